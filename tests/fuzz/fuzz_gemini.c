/* Bodies of generateContent, countTokens and batchEmbedContents: any bytes are refused with a sound error or become a request whose parts agree with each
 * other. The first byte chooses the operation. */
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "chatmux/codec/json.h"
#include "chatmux/surface/surface.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte, so that a sanitizer sees a slice that points astray. */
static void check_text(struct cm_str s)
{
    CM_ASSERT(cm_utf8_valid(s) == s.n);
}

static void check_json(struct cm_str s)
{
    yyjson_doc *doc;

    if (s.n == 0)
        return;
    doc = cm_json_parse(s, &cm_json_limits_request, NULL);
    CM_ASSERT(doc);
    yyjson_doc_free(doc);
}

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

static void check_chat(const struct cm_chat *chat)
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

static void check_error(const struct cm_err *err)
{
    struct cm_buf body = {0};

    CM_ASSERT(err->cls == CM_ERR_BAD_REQUEST && err->msg[0] != '\0');
    cm_surface_gemini_array.error_body(err, &body);
    check_json(cm_buf_str(&body));
    cm_buf_clear(&body);
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
    struct cm_arena arena = {0};
    struct cm_chat chat = {.arena = &arena};
    struct cm_err err = {0};
    size_t at;

    if (size == 0)
        return 0;
    at = data[0] % CM_COUNT(operations);
    chat.path = cm_str_of(operations[at].path);
    if (operations[at].surface->parse(&chat, cm_str((const char *)data + 1, size - 1), &err))
        check_error(&err);
    else
        check_chat(&chat);
    if (chat.untranslatable.cls != CM_ERR_NONE)
        check_error(&chat.untranslatable);
    cm_arena_clear(&arena);
    return 0;
}
