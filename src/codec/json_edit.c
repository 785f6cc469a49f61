/* JSON edits on the text of an object, without touching a byte that need not change. One pass,
 * no tree. */
#include "chatmux/codec/json.h"

#include "chatmux/base/mem.h"
#include "json_int.h"

struct walk {
    struct cm_str text;
    size_t at;       /* next byte to look at; where the trouble is after a failure */
    const char *why; /* what was expected there */
    bool inside;     /* a member was read: a comma or the brace comes next */
};

struct member {
    size_t key, key_end; /* with its quotes */
    size_t value, end;
};

static void skip_space(struct walk *w)
{
    while (w->at < w->text.n && json_class_of(w->text.p[w->at]) == JSON_SPACE)
        w->at++;
}

static bool at_char(const struct walk *w, char c)
{
    return w->at < w->text.n && w->text.p[w->at] == c;
}

static int walk_fail(struct walk *w, const char *why)
{
    w->why = why;
    return -1;
}

static int skip_char(struct walk *w, char c, const char *why)
{
    if (!at_char(w, c))
        return walk_fail(w, why);
    w->at++;
    skip_space(w);
    return 0;
}

static int skip_string(struct walk *w)
{
    size_t end = cm_json_string_end(w->text, w->at + 1);

    if (!end)
        return walk_fail(w, "the string that begins here has no end");
    w->at = end;
    return 0;
}

/* Over a string, a number or literal, or everything between a bracket and its partner. */
static int skip_value(struct walk *w)
{
    size_t depth = 0;

    do {
        if (w->at == w->text.n)
            return walk_fail(w, "the text ends inside a value");
        switch (json_class_of(w->text.p[w->at])) {
        case JSON_QUOTE:
            if (skip_string(w))
                return -1;
            break;
        case JSON_OPEN:
            depth++;
            w->at++;
            break;
        case JSON_CLOSE:
            if (depth == 0)
                return walk_fail(w, "a value is missing");
            depth--;
            w->at++;
            break;
        case JSON_MARK:
            if (depth == 0)
                return walk_fail(w, "a value is missing");
            w->at++;
            break;
        case JSON_SPACE:
            w->at++;
            break;
        case JSON_PLAIN:
            while (w->at < w->text.n && json_class_of(w->text.p[w->at]) == JSON_PLAIN)
                w->at++;
            break;
        }
    } while (depth > 0);
    return 0;
}

static int walk_open(struct walk *w, struct cm_str object)
{
    *w = (struct walk){.text = object};
    skip_space(w);
    if (!at_char(w, '{'))
        return walk_fail(w, "an object must begin here");
    w->at++;
    return 0;
}

/* 1 = a member, 0 = the object has ended and nothing but white space followed, -1 = malformed. */
static int walk_next(struct walk *w, struct member *m)
{
    skip_space(w);
    if (at_char(w, '}')) {
        w->at++;
        skip_space(w);
        return w->at < w->text.n ? walk_fail(w, "the object has ended before this") : 0;
    }
    if (w->inside && skip_char(w, ',', "',' or '}' must follow the value"))
        return -1;
    w->inside = true;
    if (!at_char(w, '"'))
        return walk_fail(w, "a member must begin here");
    m->key = w->at;
    if (skip_string(w))
        return -1;
    m->key_end = w->at;
    skip_space(w);
    if (skip_char(w, ':', "':' must follow the name of a member"))
        return -1;
    m->value = w->at;
    if (skip_value(w))
        return -1;
    m->end = w->at;
    return 1;
}

/* Index of the edit whose key is the member's name, or n. */
static size_t find_edit(const struct cm_json_edit *edits, size_t n, struct cm_str name)
{
    size_t i = 0;

    while (i < n && !cm_str_eq(edits[i].key, name))
        i++;
    return i;
}

static size_t find_edit_quoted(const struct cm_json_edit *edits, size_t n, struct cm_str quoted)
{
    struct cm_str name = cm_str(quoted.p + 1, quoted.n - 2);
    yyjson_doc *doc;
    size_t found = n;

    if (!memchr(name.p, '\\', name.n))
        return find_edit(edits, n, name);
    doc = yyjson_read_opts((char *)(uintptr_t)quoted.p, quoted.n, YYJSON_READ_NOFLAG, &cm_json_alc,
                           NULL);
    if (doc)
        found = find_edit(edits, n, cm_json_str(yyjson_doc_get_root(doc)));
    yyjson_doc_free(doc);
    return found;
}

static void append_range(struct cm_buf *out, struct cm_str text, size_t from, size_t to)
{
    cm_buf_append(out, cm_str(text.p + from, to - from));
}

int cm_json_splice(struct cm_str object, const struct cm_json_edit *edits, size_t n,
                   struct cm_buf *out, struct cm_err *err)
{
    const size_t n_before = out->n;
    struct walk w;
    struct member m;
    uint64_t seen = 0; /* one bit per edit */
    bool kept = false; /* a member stands in the output: the next needs a comma */
    size_t copied = 0; /* object's bytes up to here are in the output or dropped */
    size_t last_end;   /* behind the last value, or behind the opening brace */
    int more;

    CM_ASSERT(n <= CM_JSON_EDITS_MAX);
    if (walk_open(&w, object))
        goto malformed;
    last_end = w.at;
    while ((more = walk_next(&w, &m)) > 0) {
        size_t i = find_edit_quoted(edits, n, cm_str(object.p + m.key, m.key_end - m.key));
        uint64_t bit = i < n ? UINT64_C(1) << i : 0;

        if (!kept && copied > 0)
            copied = m.key; /* all members before were removed, and with them the comma here */
        if (bit && (edits[i].value.n == 0 || (seen & bit))) {
            append_range(out, object, copied, kept ? last_end : m.key);
            copied = m.end;
        } else {
            if (bit) {
                append_range(out, object, copied, m.value);
                cm_buf_append(out, edits[i].value);
                copied = m.end;
            }
            kept = true;
        }
        seen |= bit;
        last_end = m.end;
    }
    if (more < 0)
        goto malformed;
    append_range(out, object, copied, last_end);
    for (size_t i = 0; i < n; i++) {
        bool done = (seen & UINT64_C(1) << i) || find_edit(edits, i, edits[i].key) < i;

        if (done || edits[i].value.n == 0)
            continue;
        if (kept)
            cm_buf_put(out, ',');
        kept = true;
        cm_json_put_str(out, edits[i].key);
        cm_buf_put(out, ':');
        cm_buf_append(out, edits[i].value);
    }
    append_range(out, object, last_end, object.n);
    return 0;
malformed:
    out->n = n_before;
    return cm_json_fail_at(object, (struct json_trouble){w.at, w.why}, err);
}

struct cm_str cm_json_member(struct cm_str object, struct cm_str key)
{
    const struct cm_json_edit wanted = {.key = key};
    struct walk w;
    struct member m;

    if (walk_open(&w, object))
        return CM_STR_NONE;
    while (walk_next(&w, &m) > 0) {
        if (find_edit_quoted(&wanted, 1, cm_str(object.p + m.key, m.key_end - m.key)) == 0)
            return cm_str(object.p + m.value, m.end - m.value);
    }
    return CM_STR_NONE;
}

int cm_json_item(struct cm_str array, size_t *at, struct cm_str *item)
{
    struct walk w = {.text = array, .at = *at};
    size_t begins;

    skip_space(&w);
    if (*at == 0) {
        if (skip_char(&w, '[', "an array must begin here"))
            return -1;
        if (at_char(&w, ']'))
            return 0;
    } else {
        if (at_char(&w, ']'))
            return 0;
        if (skip_char(&w, ',', "',' or ']' must follow the value"))
            return -1;
    }
    begins = w.at;
    if (skip_value(&w))
        return -1;
    *item = cm_str(array.p + begins, w.at - begins);
    *at = w.at;
    return 1;
}
