/* Bodies of generateContent, countTokens and batchEmbedContents: any bytes are refused with a sound error or become a request whose parts agree with each
 * other. The first byte chooses the operation. */
#include "fuzz_request.h"

#include <math.h>

static void check_part(const struct cm_chat *chat, enum cm_role role, const struct cm_part *p)
{
    const struct cm_str all[] = {p->text,       p->id,   p->name,     p->url,
                                 p->media_type, p->data, p->signature};
    const bool sound = chat->untranslatable.cls == CM_ERR_NONE;

    for (size_t i = 0; i < CM_COUNT(all); i++)
        check_text(all[i]);
    CM_ASSERT((p->kind == CM_PART_TOOL_RESULT) == (role == CM_ROLE_TOOL));
    CM_ASSERT(p->kind != CM_PART_REASONING && p->kind != CM_PART_REFUSAL);
    CM_ASSERT(!sound || p->kind != CM_PART_TOOL_RESULT || cm_chat_call_of(chat, p->id));
    if (p->kind == CM_PART_TOOL_CALL)
        check_json(p->text);
    for (size_t i = 0; i < p->n_parts; i++) {
        CM_ASSERT(p->parts[i].kind <= CM_PART_FILE && p->parts[i].n_parts == 0);
        check_text(p->parts[i].text);
    }
}

static void check_chat(struct cm_chat *chat)
{
    CM_ASSERT(cm_str_eq(chat->model, CM_S("m")));
    for (size_t i = 0; i < chat->n_msgs; i++) {
        CM_ASSERT(chat->msgs[i].n_parts > 0);
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++)
            check_part(chat, chat->msgs[i].role, &chat->msgs[i].parts[k]);
    }
    for (size_t i = 0; i < chat->n_tools; i++)
        check_json(chat->tools[i].parameters);
    for (size_t i = 0; i < chat->n_inputs; i++)
        check_text(chat->inputs[i]);
    CM_ASSERT(chat->n >= 1 && chat->n <= 8 && chat->n_stop <= 5);
    CM_ASSERT(isnan(chat->temperature) || (chat->temperature >= 0 && chat->temperature <= 2));
    CM_ASSERT(chat->tool_choice != CM_TOOLS_NAMED || (chat->n_tools > 0 && chat->tool_name.n > 0));
    check_json(chat->schema);
    check_text(cm_chat_flatten(chat->arena, chat));
    CM_ASSERT(cm_chat_estimate_tokens(chat) >= 0);
    cm_chat_fields(chat);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        const struct cm_surface *surface;
        const char *path;
    } operations[] = {
        {&cm_surface_gemini, "models/m:streamGenerateContent"},
        {&cm_surface_gemini_count, "m:countTokens"},
        {&cm_surface_gemini_embed, "m:embedContent"},
        {&cm_surface_gemini_batch_embed, "m:batchEmbedContents"},
    };
    struct cm_chat chat = {0};
    size_t at;

    if (size == 0)
        return 0;
    at = data[0] % CM_COUNT(operations);
    chat.path = cm_str_of(operations[at].path);
    check_request(operations[at].surface, &cm_surface_gemini_array, &chat,
                  cm_str((const char *)data + 1, size - 1), check_chat);
    return 0;
}
