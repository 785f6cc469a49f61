/* openai: what some servers do not take inside of messages: roles and members they do not know, ids that are too long. Everything else of the client's text
 * stays as it is. */
#include "openai_int.h"

struct quirks {
    bool no_developer, no_reasoning, short_ids;
};

static bool id_too_long(const struct cm_part *part)
{
    return (part->kind == CM_PART_TOOL_CALL || part->kind == CM_PART_TOOL_RESULT) &&
           openai_id_too_long(part->id);
}

/* Which of them this conversation needs. */
static bool needed(const struct cm_chat *chat, const struct openai_options *o, struct quirks *q)
{
    for (size_t i = 0; i < chat->n_msgs; i++) {
        const struct cm_msg *msg = &chat->msgs[i];

        q->no_developer |= msg->role == CM_ROLE_DEVELOPER && !o->developer;
        for (size_t k = 0; k < msg->n_parts; k++) {
            q->no_reasoning |= msg->parts[k].kind == CM_PART_REASONING &&
                               o->history_reasoning == OPENAI_HISTORY_DROP;
            q->short_ids |= o->short_ids && id_too_long(&msg->parts[k]);
        }
    }
    return q->no_developer || q->no_reasoning || q->short_ids;
}

/* A member that is a text, resolved; "" when it is none. */
static struct cm_str text_member(struct cm_arena *arena, struct cm_str object, struct cm_str key)
{
    yyjson_doc *doc = cm_json_parse(cm_json_member(object, key), &cm_json_limits_event, NULL);
    const struct cm_str text = cm_arena_str(arena, cm_json_str(yyjson_doc_get_root(doc)));

    yyjson_doc_free(doc);
    return text;
}

static struct cm_str quoted(struct cm_arena *arena, struct cm_str text)
{
    struct cm_buf out = {0};

    cm_json_put_str(&out, text);
    return cm_buf_settle(&out, arena);
}

/* The value of `key` where it is an id that is too long: an edit more. */
static void shorten(struct cm_arena *arena, struct cm_str object, struct cm_str key,
                    struct cm_json_edit *edits, size_t *n)
{
    const struct cm_str id = text_member(arena, object, key);

    if (openai_id_too_long(id))
        edits[(*n)++] = (struct cm_json_edit){key, quoted(arena, openai_short_id(arena, id))};
}

static void put_spliced(struct cm_str object, const struct cm_json_edit *edits, size_t n,
                        struct cm_buf *out)
{
    if (n == 0 || cm_json_splice(object, edits, n, out, NULL))
        cm_buf_append(out, object);
}

/* Every item of an array through `fn`; what is between them is not kept. */
static void each_item(struct cm_arena *arena, struct cm_str array,
                      void (*fn)(struct cm_arena *arena, struct cm_str item, const struct quirks *q,
                                 struct cm_buf *out),
                      const struct quirks *q, struct cm_buf *out)
{
    struct cm_str item;
    size_t at = 0;
    bool first = true;

    cm_buf_put(out, '[');
    while (cm_json_item(array, &at, &item) > 0) {
        if (!first)
            cm_buf_put(out, ',');
        first = false;
        fn(arena, item, q, out);
    }
    cm_buf_put(out, ']');
}

static void put_call(struct cm_arena *arena, struct cm_str call, const struct quirks *q,
                     struct cm_buf *out)
{
    struct cm_json_edit edits[1];
    size_t n = 0;

    (void)q;
    shorten(arena, call, CM_S("id"), edits, &n);
    put_spliced(call, edits, n, out);
}

static void put_message(struct cm_arena *arena, struct cm_str msg, const struct quirks *q,
                        struct cm_buf *out)
{
    struct cm_json_edit edits[6];
    const struct cm_str calls = cm_json_member(msg, CM_S("tool_calls"));
    struct cm_buf shortened = {0};
    size_t n = 0;

    if (q->no_developer && cm_str_eq(text_member(arena, msg, CM_S("role")), CM_S("developer")))
        edits[n++] = (struct cm_json_edit){CM_S("role"), CM_S("\"system\"")};
    if (q->no_reasoning) {
        edits[n++] = (struct cm_json_edit){.key = CM_S("reasoning_content")};
        edits[n++] = (struct cm_json_edit){.key = CM_S("reasoning")};
        edits[n++] = (struct cm_json_edit){.key = CM_S("reasoning_details")};
    }
    if (q->short_ids) {
        shorten(arena, msg, CM_S("tool_call_id"), edits, &n);
        if (cm_str_starts(calls, CM_S("["))) {
            each_item(arena, calls, put_call, q, &shortened);
            edits[n++] = (struct cm_json_edit){CM_S("tool_calls"), cm_buf_str(&shortened)};
        }
    }
    put_spliced(msg, edits, n, out);
    cm_buf_clear(&shortened);
}

bool openai_history(struct cm_run *run, const struct cm_chat *chat, struct cm_str *messages)
{
    struct quirks q = {0};
    struct cm_buf out = {0};

    if (!needed(chat, openai_options_of(run), &q))
        return false;
    each_item(cm_run_arena(run), cm_json_member(chat->raw, CM_S("messages")), put_message, &q,
              &out);
    *messages = cm_buf_settle(&out, cm_run_arena(run));
    return true;
}
