/* Bodies of chat completions: any bytes are refused with a sound error or become a request whose
 * parts agree with each other. */
#include "fuzz_request.h"

#include <math.h>

static void check_number(double v, double min, double max)
{
    CM_ASSERT(isnan(v) || (v >= min && v <= max));
}

static void check_part(enum cm_role role, const struct cm_part *p)
{
    const struct cm_str all[] = {p->text,       p->id,   p->name,  p->url,
                                 p->media_type, p->data, p->detail};

    for (size_t i = 0; i < CM_COUNT(all); i++)
        check_text(all[i]);
    CM_ASSERT((p->kind == CM_PART_TOOL_RESULT) == (role == CM_ROLE_TOOL));
    CM_ASSERT(p->kind != CM_PART_TOOL_CALL || role == CM_ROLE_ASSISTANT);
    CM_ASSERT(p->kind != CM_PART_REASONING || role == CM_ROLE_ASSISTANT);
    CM_ASSERT(p->kind != CM_PART_IMAGE || (p->url.n > 0) != (p->data.n > 0));
}

static void check_chat(struct cm_chat *chat)
{
    bool named = false;

    CM_ASSERT(chat->model.n > 0 && chat->n_msgs > 0);
    check_text(chat->model);
    for (size_t i = 0; i < chat->n_msgs; i++) {
        check_text(chat->msgs[i].name);
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++)
            check_part(chat->msgs[i].role, &chat->msgs[i].parts[k]);
    }
    for (size_t i = 0; i < chat->n_tools; i++) {
        check_text(chat->tools[i].description);
        check_json(chat->tools[i].parameters);
        named |= cm_str_eq(chat->tools[i].name, chat->tool_name);
    }
    CM_ASSERT(chat->tool_choice != CM_TOOLS_NAMED || named);
    CM_ASSERT(chat->n >= 1 && chat->n <= 128 && chat->n_stop <= 4);
    CM_ASSERT(chat->max_tokens == -1 || chat->max_tokens >= 1);
    CM_ASSERT(chat->stream || !chat->include_usage);
    check_number(chat->temperature, 0, 2);
    check_number(chat->top_p, 0, 1);
    check_number(chat->presence_penalty, -2, 2);
    check_json(chat->schema);
    check_text(cm_chat_flatten(chat->arena, chat));
    CM_ASSERT(cm_chat_estimate_tokens(chat) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_chat chat = {0};

    check_request(&cm_surface_openai_chat, &cm_surface_openai_chat, &chat,
                  cm_str((const char *)data, size), check_chat);
    return 0;
}
