/* A conversation as the one text that the platform takes for a question.
 * Wire facts: DeepSeek protocol notes, section 5.2. */
#include "deepseek_int.h"

#define USER_MARK "<｜User｜>"
#define ASSISTANT_MARK "<｜Assistant｜>"
#define END_MARK "<｜end▁of▁sentence｜>"

/* Pictures of earlier answers: the platform would show their address as text. Those with an address become links, the others lose it. */
static void put_without_pictures(struct cm_buf *out, struct cm_str text)
{
    while (text.n > 0) {
        const size_t at = cm_str_find(text, CM_S("!["));
        struct cm_str rest = cm_str_from(text, at == SIZE_MAX ? text.n : at + 1);
        const size_t middle = cm_str_find(rest, CM_S("](")), end = cm_str_find_char(rest, ')');

        cm_buf_append(out, cm_str_head(text, at));
        if (at == SIZE_MAX)
            return;
        if (middle == SIZE_MAX || end == SIZE_MAX || end < middle) {
            cm_buf_append(out, CM_S("!"));
            text = rest;
            continue;
        }
        cm_buf_append(out, cm_str_head(rest, middle + 1));
        if (!cm_str_starts(cm_str_from(rest, middle + 2), CM_S("data:")))
            cm_buf_append(out, cm_str_head(cm_str_from(rest, middle + 1), end - middle));
        text = cm_str_from(rest, end + 1);
    }
}

static bool tells_something(const struct cm_part *part)
{
    switch (part->kind) {
    case CM_PART_TEXT:
    case CM_PART_REFUSAL:
    case CM_PART_TOOL_RESULT:
        return part->text.n > 0;
    case CM_PART_TOOL_CALL:
        return true;
    case CM_PART_IMAGE:
    case CM_PART_AUDIO:
    case CM_PART_FILE:
    case CM_PART_REASONING:
        break;
    }
    return false;
}

static void put_message(struct cm_buf *out, const struct cm_msg *msg)
{
    const size_t begin = out->n;

    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *part = &msg->parts[i];

        if (!tells_something(part))
            continue;
        if (out->n > begin)
            cm_buf_put(out, '\n');
        if (part->kind == CM_PART_TOOL_CALL)
            cm_buf_printf(out, "[calls " CM_PRI " with " CM_PRI "]", CM_ARG(part->name),
                          CM_ARG(part->text));
        else if (msg->role == CM_ROLE_ASSISTANT)
            put_without_pictures(out, part->text);
        else
            cm_buf_append(out, part->text);
    }
}

static bool is_system(enum cm_role role)
{
    return role == CM_ROLE_SYSTEM || role == CM_ROLE_DEVELOPER;
}

/* Neighbours of one role are one block. */
static bool same_block(enum cm_role a, enum cm_role b)
{
    return a == b || (is_system(a) && is_system(b));
}

/* The model's own marks; the first block goes without. */
static void put_markers(struct cm_buf *out, const struct cm_chat *chat, size_t from)
{
    struct cm_buf block = {0};
    bool first = true;

    for (size_t i = from; i < chat->n_msgs;) {
        const enum cm_role role = chat->msgs[i].role;

        cm_buf_reset(&block);
        for (; i < chat->n_msgs && same_block(role, chat->msgs[i].role); i++) {
            const size_t begin = block.n;

            if (block.n > 0)
                cm_buf_append(&block, CM_S("\n\n"));
            put_message(&block, &chat->msgs[i]);
            if (begin > 0 && block.n == begin + 2)
                block.n = begin; /* said nothing */
        }
        if (block.n == 0)
            continue;
        if (role == CM_ROLE_ASSISTANT)
            cm_buf_append(out, CM_S(ASSISTANT_MARK));
        else if (!first)
            cm_buf_append(out, CM_S(USER_MARK));
        cm_buf_append(out, cm_buf_str(&block));
        if (role == CM_ROLE_ASSISTANT)
            cm_buf_append(out, CM_S(END_MARK));
        first = false;
    }
    cm_buf_clear(&block);
}

/* Lines with the role in brackets, but for the user's. */
static void put_brackets(struct cm_buf *out, const struct cm_chat *chat, size_t from)
{
    for (size_t i = from; i < chat->n_msgs; i++) {
        const enum cm_role role = chat->msgs[i].role;
        const size_t begin = out->n;
        size_t text;

        if (out->n > 0)
            cm_buf_put(out, '\n');
        if (is_system(role))
            cm_buf_append(out, CM_S("[System]: "));
        else if (role == CM_ROLE_ASSISTANT)
            cm_buf_append(out, CM_S("[Assistant]: "));
        text = out->n;
        put_message(out, &chat->msgs[i]);
        if (out->n == text)
            out->n = begin;
    }
}

struct cm_str deepseek_prompt(struct cm_arena *arena, const struct cm_chat *chat, size_t from,
                              enum deepseek_style style)
{
    struct cm_buf out = {0};

    if (style == DEEPSEEK_STYLE_BRACKETS)
        put_brackets(&out, chat, from);
    else
        put_markers(&out, chat, from);
    return cm_buf_settle(&out, arena);
}
