/* Bodies of the Responses API: any bytes are refused with a sound error or become a request whose
 * parts agree with each other. */
#include "fuzz_request.h"

#include <math.h>

static void check_part(const struct cm_chat *chat, enum cm_role role, const struct cm_part *p)
{
    const struct cm_str all[] = {p->text, p->name,      p->url,     p->media_type,
                                 p->data, p->signature, p->context, p->cache};
    for (size_t i = 0; i < CM_COUNT(all); i++)
        check_text(all[i]);
    CM_ASSERT((p->kind == CM_PART_TOOL_RESULT) == (role == CM_ROLE_TOOL));
    CM_ASSERT(p->kind != CM_PART_TOOL_CALL || role == CM_ROLE_ASSISTANT);
    CM_ASSERT(p->kind != CM_PART_REASONING || role == CM_ROLE_ASSISTANT);
    CM_ASSERT(chat->untranslatable.cls != CM_ERR_NONE || p->kind != CM_PART_IMAGE ||
              (p->url.n > 0) != (p->data.n > 0));
    CM_ASSERT(p->kind != CM_PART_TOOL_RESULT || cm_chat_call_of(chat, p->id));
    for (size_t i = 0; i < p->n_parts; i++) {
        CM_ASSERT(p->parts[i].kind <= CM_PART_FILE && p->parts[i].n_parts == 0);
        check_text(p->parts[i].text);
    }
}

static void check_chat(const struct cm_chat *chat)
{
    CM_ASSERT(chat->model.n > 0);
    check_text(chat->model);
    for (size_t i = 0; i < chat->n_msgs; i++) {
        CM_ASSERT(chat->msgs[i].n_parts > 0);
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++)
            check_part(chat, chat->msgs[i].role, &chat->msgs[i].parts[k]);
    }
    for (size_t i = 0; i < chat->n_tools; i++)
        check_json(chat->tools[i].parameters);
    CM_ASSERT(chat->n == 1 && (chat->max_tokens == -1 || chat->max_tokens > 0));
    CM_ASSERT(isnan(chat->temperature) || (chat->temperature >= 0 && chat->temperature <= 2));
    check_json(chat->schema);
    check_text(cm_chat_flatten(chat->arena, chat));
    CM_ASSERT(cm_chat_estimate_tokens(chat) >= 0);
    cm_chat_fields(chat);
}

/* What repeats the request is JSON, whatever was in it. */
static void check_object(const struct cm_chat *chat)
{
    const struct cm_answer_meta meta = {
        .id = CM_S("resp_cm_1"), .model = chat->model, .chat = chat};
    const struct cm_answer nothing = {0};
    struct cm_buf out = {0};

    cm_surface_responses.whole(&meta, &nothing, &out);
    check_json(cm_buf_str(&out));
    cm_buf_clear(&out);
}

static void check(struct cm_chat *chat)
{
    check_chat(chat);
    check_object(chat);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_chat chat = {0};

    check_request(&cm_surface_responses, &cm_surface_responses, &chat,
                  cm_str((const char *)data, size), check);
    return 0;
}
