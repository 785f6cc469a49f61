/* Elements of a JSON array, found by counting brackets outside of strings. */
#include "chatmux/codec/json_items.h"

void cm_json_items_init(struct cm_json_items *s, size_t max_bytes)
{
    *s = (struct cm_json_items){.max_bytes = max_bytes};
}

void cm_json_items_clear(struct cm_json_items *s)
{
    cm_buf_clear(&s->hold);
    cm_json_items_init(s, s->max_bytes);
}

enum found { NOTHING, ITEM, ARRAY_END, BAD };

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* One byte within an element. */
static enum found within(struct cm_json_items *s, char c)
{
    if (s->in_string) {
        if (s->escaped)
            s->escaped = false;
        else if (c == '\\')
            s->escaped = true;
        else if (c == '"')
            s->in_string = false;
    } else if (c == '"') {
        s->in_string = true;
    } else if (c == '{' || c == '[') {
        s->depth++;
    } else if ((c == '}' || c == ']') && --s->depth == 0) {
        s->in_item = false;
        return ITEM;
    }
    return NOTHING;
}

/* One byte between elements, at `at` of the text. */
static enum found between(struct cm_json_items *s, char c, size_t at)
{
    if (is_blank(c) || (c == ',' && s->in_array))
        return NOTHING;
    if (c == '[' && !s->in_array) {
        s->in_array = true;
        return NOTHING;
    }
    if (c == ']' && s->in_array) {
        s->ended = true;
        return ARRAY_END;
    }
    if (c != '{' && c != '[')
        return BAD;
    s->in_item = true;
    s->depth = 1;
    s->item_at = at;
    return NOTHING;
}

/* From `at` on to what is found next; *at stands behind it. */
static enum found scan(struct cm_json_items *s, struct cm_str text, size_t *at)
{
    enum found found = NOTHING;

    while (*at < text.n && found == NOTHING) {
        const char c = text.p[*at];

        found = s->in_item ? within(s, c) : between(s, c, *at);
        ++*at;
    }
    return found;
}

static int too_large(const struct cm_json_items *s, struct cm_err *err)
{
    return cm_fail(err, CM_ERR_UPSTREAM_DOWN, "an element of the stream has more than %zu bytes",
                   s->max_bytes);
}

/* Gives out what is whole in `text`, of which the first `scanned` bytes were looked at before; returns how many bytes that was, or SIZE_MAX. */
static size_t give(struct cm_json_items *s, struct cm_str text, cm_json_items_fn *fn, void *arg,
                   struct cm_err *err)
{
    size_t at = s->scanned, given = 0;

    while (!s->ended) {
        const enum found found = scan(s, text, &at);
        const struct cm_str raw = cm_str(text.p + given, at - given);

        if (found == NOTHING)
            break;
        if (found == BAD) {
            cm_fail(err, CM_ERR_UPSTREAM_DOWN, "the stream is no JSON array of objects");
            return SIZE_MAX;
        }
        if (raw.n > s->max_bytes) {
            too_large(s, err);
            return SIZE_MAX;
        }
        if (fn(arg, found == ITEM ? cm_str(text.p + s->item_at, at - s->item_at) : CM_STR_NONE,
               raw))
            return SIZE_MAX;
        given = at;
    }
    s->scanned = at - given;
    s->item_at -= s->in_item ? given : 0;
    return given;
}

int cm_json_items_feed(struct cm_json_items *s, struct cm_str piece, cm_json_items_fn *fn,
                       void *arg, struct cm_err *err)
{
    size_t given;

    if (s->ended || piece.n == 0)
        return 0;
    if (s->hold.n > 0) {
        cm_buf_append(&s->hold, piece);
        given = give(s, cm_buf_str(&s->hold), fn, arg, err);
        if (given == SIZE_MAX)
            return -1;
        cm_buf_consume(&s->hold, given);
    } else {
        given = give(s, piece, fn, arg, err);
        if (given == SIZE_MAX)
            return -1;
        cm_buf_append(&s->hold, cm_str_from(piece, given));
    }
    if (s->ended)
        cm_buf_clear(&s->hold);
    return s->hold.n > s->max_bytes ? too_large(s, err) : 0;
}
