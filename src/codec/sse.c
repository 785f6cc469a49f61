/* Server-sent events: finds blocks across pieces, reads their fields, writes events. */
#include "chatmux/codec/sse.h"

#define BOM "\xEF\xBB\xBF"
#define BOM_SIZE 3

/* A buffer above this is freed when it is empty: thousands of streams are held open, and most
 * are silent. */
#define KEEP_BYTES 1024

/* Line ends of a text, front to back; searches no byte twice for the same character. */
struct eols {
    const char *end;
    const char *lf, *cr; /* the next of each, or `end` */
};

static const char *find(const char *at, const char *end, char c)
{
    const char *p = at < end ? memchr(at, c, (size_t)(end - at)) : NULL;

    return p ? p : end;
}

static struct eols eols_of(struct cm_str s)
{
    const char *end = s.p + s.n;

    return (struct eols){end, find(s.p, end, '\n'), find(s.p, end, '\r')};
}

/* First line end at or behind `at`, which never moves back. */
static const char *eol_find(struct eols *e, const char *at)
{
    if (e->lf < at)
        e->lf = find(at, e->end, '\n');
    if (e->cr < at)
        e->cr = find(at, e->end, '\r');
    return e->lf < e->cr ? e->lf : e->cr;
}

/* Behind the line end at `eol`, both bytes of a CR LF included. */
static const char *eol_skip(const struct eols *e, const char *eol)
{
    return eol + (*eol == '\r' && eol + 1 < e->end && eol[1] == '\n' ? 2 : 1);
}

/* Finds the empty line that ends a block. `prev` is the byte of the block before `at`, LF where
 * the block begins. Returns the place behind the empty line and in *text_end its beginning; NULL
 * when the block goes on. */
static const char *block_end(struct eols *e, const char *at, char prev, const char **text_end)
{
    bool line_begins = prev == '\n' || prev == '\r';

    if (prev == '\r' && *at == '\n')
        at++;
    for (; at < e->end; line_begins = true) {
        const char *eol = eol_find(e, at);

        if (eol == e->end)
            break;
        if (eol == at && line_begins) {
            *text_end = at;
            return eol_skip(e, eol);
        }
        at = eol_skip(e, eol);
    }
    return NULL;
}

/* True when the line is `name`, alone or with a value. One space after the colon belongs to the
 * syntax. */
static bool field_is(struct cm_str line, struct cm_str name, struct cm_str *value)
{
    if (!cm_str_starts(line, name))
        return false;
    if (line.n > name.n && line.p[name.n] != ':')
        return false;
    *value = cm_str_from(line, name.n + 1);
    if (value->n > 0 && value->p[0] == ' ')
        *value = cm_str_from(*value, 1);
    return true;
}

static void parse_block(struct cm_sse *s, struct cm_str text, struct cm_sse_event *ev)
{
    struct eols eols = eols_of(text);
    const char *at = text.p;

    while (at < eols.end) {
        const char *eol = eol_find(&eols, at);
        struct cm_str line = cm_str(at, (size_t)(eol - at)), value;

        at = eol < eols.end ? eol_skip(&eols, eol) : eol;
        if (field_is(line, CM_S("data"), &value)) {
            if (!ev->data.p) {
                ev->data = value;
                continue;
            }
            if (s->joined.n == 0)
                cm_buf_append(&s->joined, ev->data);
            cm_buf_put(&s->joined, '\n');
            cm_buf_append(&s->joined, value);
            ev->data = cm_buf_str(&s->joined);
        } else if (field_is(line, CM_S("event"), &value)) {
            ev->event = value;
        } else if (field_is(line, CM_S("id"), &value) && !memchr(value.p, '\0', value.n)) {
            ev->id = value;
        }
    }
}

static void forget(struct cm_buf *b)
{
    if (b->cap > KEEP_BYTES)
        cm_buf_clear(b);
    else
        cm_buf_reset(b);
}

void cm_sse_init(struct cm_sse *s, size_t max_block_bytes)
{
    *s = (struct cm_sse){.max_bytes = max_block_bytes};
}

void cm_sse_clear(struct cm_sse *s)
{
    cm_buf_clear(&s->hold);
    cm_buf_clear(&s->joined);
    cm_sse_init(s, s->max_bytes);
}

/* Moves what is no text of the block from the piece to `hold`: a byte order mark, which may come
 * in pieces, and a late LF. */
static void take_lead(struct cm_sse *s, struct cm_str *piece)
{
    while (!s->begun && piece->n > 0) {
        if (piece->p[0] != BOM[s->hold.n]) {
            s->begun = true;
            break;
        }
        cm_buf_put(&s->hold, piece->p[0]);
        *piece = cm_str_from(*piece, 1);
        if (s->hold.n == BOM_SIZE) {
            s->begun = true;
            s->lead = BOM_SIZE;
        }
    }
    if (s->after_cr && piece->n > 0) {
        s->after_cr = false;
        if (piece->p[0] != '\n')
            return;
        cm_buf_put(&s->hold, '\n');
        *piece = cm_str_from(*piece, 1);
        s->lead = 1;
    }
}

int cm_sse_feed(struct cm_sse *s, struct cm_str piece, cm_sse_fn *fn, void *arg, struct cm_err *err)
{
    struct eols eols;

    take_lead(s, &piece);
    if (piece.n == 0)
        return 0;
    eols = eols_of(piece);
    while (piece.n > 0) {
        struct cm_sse_event ev = {.raw = piece};
        const char prev = s->hold.n > s->lead ? s->hold.p[s->hold.n - 1] : '\n';
        const char *text_end = eols.end;
        const char *end = block_end(&eols, piece.p, prev, &text_end);

        if (s->hold.n - s->lead + (size_t)(text_end - piece.p) > s->max_bytes)
            return cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                           "one event of the upstream's stream has more than %zu bytes",
                           s->max_bytes);
        if (!end) {
            cm_buf_append(&s->hold, piece);
            return 0;
        }
        ev.raw.n = (size_t)(end - piece.p);
        piece = cm_str_from(piece, ev.raw.n);
        s->after_cr = piece.n == 0 && end[-1] == '\r';
        if (s->hold.n > 0) {
            cm_buf_append(&s->hold, ev.raw);
            ev.raw = cm_buf_str(&s->hold);
        }
        parse_block(s, cm_str_from(ev.raw, s->lead), &ev);
        if (fn(arg, &ev))
            return -1;
        s->lead = 0;
        forget(&s->hold);
        forget(&s->joined);
    }
    return 0;
}

int cm_sse_end(struct cm_sse *s, cm_sse_fn *fn, void *arg, struct cm_err *err)
{
    struct cm_sse_event ev = {.raw = cm_buf_str(&s->hold), .unfinished = true};
    int rc = 0;

    (void)err; /* what is held was within the limit when it came */
    if (s->hold.n > s->lead)
        parse_block(s, cm_str_from(ev.raw, s->lead), &ev);
    if (ev.data.p)
        rc = fn(arg, &ev) ? -1 : 0;
    cm_sse_clear(s);
    return rc;
}

static void put_line(struct cm_buf *out, struct cm_str name, struct cm_str value)
{
    cm_buf_append(out, name);
    cm_buf_append(out, value);
    cm_buf_put(out, '\n');
}

void cm_sse_put(struct cm_buf *out, struct cm_str event, struct cm_str data)
{
    const char *at, *eol;
    struct eols eols;

    if (event.n > 0) {
        struct eols name = eols_of(event);

        put_line(out, CM_S("event: "),
                 cm_str(event.p, (size_t)(eol_find(&name, event.p) - event.p)));
    }
    if (!data.p)
        data = CM_S("");
    eols = eols_of(data);
    for (at = data.p; (eol = eol_find(&eols, at)) < eols.end; at = eol_skip(&eols, eol))
        put_line(out, CM_S("data: "), cm_str(at, (size_t)(eol - at)));
    put_line(out, CM_S("data: "), cm_str(at, (size_t)(eol - at)));
    cm_buf_put(out, '\n');
}
