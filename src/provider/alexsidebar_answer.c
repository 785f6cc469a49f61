/* alexsidebar's answer: objects out of bytes, and what each snapshot adds to the one before. */
#include "alexsidebar_int.h"

#include "chatmux/base/mem.h"

/* ---- objects ---- */

/* How far into `piece` the object goes that has begun; all of it when it does not end there. */
static size_t object_part(struct alex_scan *s, struct cm_str piece)
{
    for (size_t i = 0; i < piece.n; i++) {
        const char c = piece.p[i];

        if (s->escaped) {
            s->escaped = false;
        } else if (s->in_string) {
            s->escaped = c == '\\';
            s->in_string = c != '"';
        } else if (c == '"') {
            s->in_string = true;
        } else if (c == '{') {
            s->depth++;
        } else if (c == '}' && --s->depth == 0) {
            return i + 1;
        }
    }
    return piece.n;
}

int alex_scan_feed(struct alex_scan *s, struct cm_str piece, alex_object_fn *fn, void *arg,
                   struct cm_err *err)
{
    while (piece.n > 0) {
        size_t n;

        if (s->depth == 0) {
            n = cm_str_find_char(piece, '{');
            if (n == SIZE_MAX)
                return 0;
            piece = cm_str_from(piece, n);
            cm_buf_reset(&s->object);
            s->object.limit = ALEX_OBJECT_MAX;
        }
        n = object_part(s, piece);
        cm_buf_append(&s->object, cm_str_head(piece, n));
        piece = cm_str_from(piece, n);
        if (s->object.failed)
            return cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                           "alexsidebar sent an object of more than %u bytes", ALEX_OBJECT_MAX);
        if (s->depth == 0 && fn(arg, cm_buf_str(&s->object), err))
            return -1;
    }
    return 0;
}

void alex_scan_clear(struct alex_scan *s)
{
    cm_buf_clear(&s->object);
}

/* ---- sections ---- */

/* Half of an edit tag may stand at the end; the next snapshot has the whole. */
static struct cm_str without_half_tag(struct cm_str text)
{
    static const struct cm_str tags[] = {CM_S_INIT("</new_"), CM_S_INIT("</new")};

    for (size_t i = 0; i < CM_COUNT(tags); i++) {
        if (cm_str_ends(text, tags[i]))
            return cm_str_head(text, text.n - tags[i].n);
    }
    return text;
}

static enum alex_kind section_of(yyjson_val *section, struct cm_str *text)
{
    yyjson_val *inner = cm_json_opt(section, "text");

    if (inner) {
        *text = cm_json_str(cm_json_get(inner, "text"));
        return yyjson_get_bool(cm_json_get(inner, "is_thinking")) ? ALEX_THINKING : ALEX_TEXT;
    }
    inner = cm_json_opt(section, "code");
    *text = cm_json_str(cm_json_get(inner, "code"));
    return inner ? ALEX_CODE : ALEX_NONE;
}

static struct cm_str gap_between(enum alex_kind before, enum alex_kind after)
{
    if (after == ALEX_CODE || before == ALEX_CODE)
        return CM_S("\n\n");
    return before == ALEX_TEXT ? CM_S("\n") : CM_STR_NONE;
}

static void say_more(struct alex_sections *s, struct cm_str more, alex_say_fn *say, void *arg)
{
    struct cm_str gap;

    if (more.n == 0)
        return;
    cm_buf_append(&s->text, more);
    if (s->kind == ALEX_THINKING) {
        say(arg, true, more);
        return;
    }
    gap = s->gap ? gap_between(s->said, s->kind) : CM_STR_NONE;
    s->gap = false;
    s->said = s->kind;
    if (gap.n > 0)
        say(arg, false, gap);
    say(arg, false, more);
}

static void walk_one(struct alex_sections *s, size_t index, enum alex_kind kind, struct cm_str all,
                     alex_say_fn *say, void *arg)
{
    const struct cm_str text = without_half_tag(all);
    const struct cm_str before = cm_buf_str(&s->text);
    const bool same = index == s->index && kind == s->kind;

    if (same && text.n < all.n && cm_str_starts(before, text))
        return; /* some of the tag was said before it could be told to be one */
    if (!same || !cm_str_starts(text, before)) {
        s->index = index;
        s->kind = kind;
        s->gap = true;
        cm_buf_reset(&s->text);
    }
    say_more(s, cm_str_from(text, s->text.n), say, arg);
}

void alex_sections_walk(struct alex_sections *s, yyjson_val *list, alex_say_fn *say, void *arg)
{
    const size_t n = yyjson_arr_size(list);

    for (size_t i = s->index; i < n; i++) {
        struct cm_str text;
        const enum alex_kind kind = section_of(yyjson_arr_get(list, i), &text);

        if (kind != ALEX_NONE)
            walk_one(s, i, kind, text, say, arg);
    }
}

void alex_sections_clear(struct alex_sections *s)
{
    cm_buf_clear(&s->text);
}
