/* What an operator says of requests that go to one target, instead of what the client said. */
#include "chatmux/base/mem.h"
#include "chatmux/chat/request.h"
#include "chatmux/codec/json.h"

#include <stdlib.h>

static double number(struct cm_str value)
{
    char text[40];

    cm_str_copy(text, sizeof(text), value);
    return strtod(text, NULL);
}

/* The names are those that cm_conf_target() lets pass. */
static void set(struct cm_chat *chat, struct cm_str name, struct cm_str value)
{
    const struct {
        const char *name;
        double *at;
    } numbers[] = {{"temperature", &chat->temperature},
                   {"top_p", &chat->top_p},
                   {"presence_penalty", &chat->presence_penalty},
                   {"frequency_penalty", &chat->frequency_penalty}};

    for (size_t i = 0; i < CM_COUNT(numbers); i++)
        if (cm_str_eq(name, cm_str_of(numbers[i].name)))
            *numbers[i].at = number(value);
    if (cm_str_eq(name, CM_S("max_tokens")))
        chat->max_tokens = (int64_t)number(value);
    if (cm_str_eq(name, CM_S("reasoning_effort")))
        chat->reasoning_effort = value;
    if (cm_str_eq(name, CM_S("seed"))) {
        chat->seed = (int64_t)number(value);
        chat->has_seed = true;
    }
}

/* What the client's own body calls it; "" when its dialect has no top-level member for it. */
static struct cm_str member(const struct cm_chat *chat, struct cm_str name)
{
    static const struct cm_str anthropic[] = {CM_S_INIT("temperature"), CM_S_INIT("top_p"),
                                              CM_S_INIT("max_tokens")};

    switch (chat->dialect) {
    case CM_DIALECT_OPENAI_CHAT:
        if (cm_str_eq(name, CM_S("max_tokens")) &&
            cm_json_member(chat->raw, CM_S("max_completion_tokens")).n > 0)
            return CM_S("max_completion_tokens");
        return name;
    case CM_DIALECT_ANTHROPIC:
        for (size_t i = 0; i < CM_COUNT(anthropic); i++)
            if (cm_str_eq(name, anthropic[i]))
                return name;
        break;
    case CM_DIALECT_OPENAI_RESPONSES:
        if (cm_str_eq(name, CM_S("max_tokens")))
            return CM_S("max_output_tokens");
        if (cm_str_eq(name, CM_S("temperature")) || cm_str_eq(name, CM_S("top_p")))
            return name;
        break;
    case CM_DIALECT_GEMINI:
        break;
    }
    return CM_STR_NONE;
}

struct cm_chat *cm_chat_override(struct cm_arena *arena, const struct cm_chat *chat,
                                 struct cm_str overrides)
{
    struct cm_chat *copy = CM_ARENA_NEW(arena, struct cm_chat);
    struct cm_json_edit edits[CM_JSON_EDITS_MAX];
    struct cm_buf raw = {0};
    size_t n = 0;

    *copy = *chat;
    for (overrides = cm_str_trim(overrides); overrides.n > 0; overrides = cm_str_trim(overrides)) {
        struct cm_str value = cm_str_cut(&overrides, ' '), name = cm_str_cut(&value, '=');
        struct cm_str key = member(chat, name);
        bool word = cm_str_eq(name, CM_S("reasoning_effort"));

        if (cm_str_eq(name, CM_S("weight")))
            continue;
        set(copy, name, value);
        if (key.n == 0)
            copy->translate = true;
        else if (n < CM_COUNT(edits))
            edits[n++] = (struct cm_json_edit){
                key, word ? cm_arena_printf(arena, "\"" CM_PRI "\"", CM_ARG(value)) : value};
    }
    if (n > 0 && cm_json_splice(chat->raw, edits, n, &raw, NULL) == 0)
        copy->raw = cm_arena_str(arena, cm_buf_str(&raw));
    cm_buf_clear(&raw);
    return copy;
}
