/* Bodies of what is no chat in OpenAI's dialect, forms among them, and of Anthropic's counts: any bytes are refused with a sound error or become a request
 * whose parts agree with each other. Input: a byte for the surface, the content type, LF, the body. */
#include "fuzz_request.h"

static void check_chat(struct cm_chat *chat)
{
    const struct cm_media *media = &chat->media;

    check_text(chat->model);
    for (size_t i = 0; i < chat->n_msgs; i++)
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++)
            check_text(chat->msgs[i].parts[k].text);
    for (size_t i = 0; i < chat->n_inputs; i++)
        check_text(chat->inputs[i]);
    for (size_t i = 0; i < chat->n_dropped; i++)
        check_text(chat->dropped[i]);
    check_text(media->prompt);
    check_text(media->size);
    if (chat->untranslatable.cls == CM_ERR_NONE)
        cm_chat_load_media(chat);
    for (size_t i = 0; i < media->n_images; i++)
        CM_ASSERT(media->images[i].kind == CM_PART_IMAGE);
    CM_ASSERT(chat->n >= 1 && cm_chat_estimate_tokens(chat) >= 0);
    cm_chat_fields(chat);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cm_surface *const surfaces[] = {
        &cm_surface_openai_completions,    &cm_surface_openai_embeddings,
        &cm_surface_openai_images,         &cm_surface_openai_videos,
        &cm_surface_openai_image_edits,    &cm_surface_openai_image_variations,
        &cm_surface_openai_moderations,    &cm_surface_openai_speech,
        &cm_surface_openai_transcriptions, &cm_surface_openai_translations,
        &cm_surface_openai_pass,           &cm_surface_anthropic_count,
    };
    struct cm_str body = cm_str((const char *)data, size);
    struct cm_chat chat = {.method = CM_S("POST"), .path = CM_S("/v1/x")};

    if (size == 0)
        return 0;
    body = cm_str_from(body, 1);
    chat.content_type = cm_str_cut(&body, '\n');
    check_request(surfaces[data[0] % CM_COUNT(surfaces)], &cm_surface_openai_chat, &chat, body,
                  check_chat);
    return 0;
}
