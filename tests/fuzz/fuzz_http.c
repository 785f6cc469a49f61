/* HTTP/1 requests: the same requests and the same refusals wherever the bytes are cut. Input:
 * limit / 16, step of the cuts, first cut, then what a client sends. */
#include "io/http1_int.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(struct cm_buf *out, struct cm_str s)
{
    cm_buf_put_u64(out, s.n);
    cm_buf_put(out, ':');
    cm_buf_append(out, s);
}

/* What must hold for a head that is accepted, then everything of it as text. */
static void put_head(struct cm_buf *out, const struct cm_h1_head *head)
{
    bool length = head->content_length >= 0;
    unsigned hosts = 0;

    CM_ASSERT(head->path.n > 0 && head->n_headers <= CM_H1_HEADERS_MAX);
    CM_ASSERT(!head->chunked || (!length && head->minor == 1));
    put(out, head->method);
    put(out, head->target);
    put(out, head->path);
    put(out, head->query);
    for (size_t i = 0; i < head->n_headers; i++) {
        const struct cm_header *f = &head->headers[i];

        CM_ASSERT(cm_header_name_ok(f->name) && cm_header_value_ok(f->value));
        hosts += cm_str_eq_nocase(f->name, CM_S("host"));
        if (cm_str_eq_nocase(f->name, CM_S("content-length")))
            CM_ASSERT(length);
        if (cm_str_eq_nocase(f->name, CM_S("transfer-encoding")))
            CM_ASSERT(head->chunked);
        put(out, f->name);
        put(out, f->value);
    }
    CM_ASSERT(hosts == 1 || (hosts == 0 && head->minor == 0));
    cm_buf_printf(out, "1.%d %lld %d%d%d ", head->minor, (long long)head->content_length,
                  head->chunked, head->keep_alive, head->expects_continue);
}

struct reader {
    struct cm_h1 h1;
    struct cm_buf body;
    struct cm_buf seen;
    size_t limit;
    bool failed;
};

static void reader_next(struct reader *r)
{
    cm_h1_reset(&r->h1, r->limit);
    r->h1.body = &r->body;
    r->h1.body_max = r->limit;
    cm_buf_reset(&r->body);
}

/* Reads on; returns how many bytes it is done with. */
static size_t reader_feed(struct reader *r, struct cm_str in)
{
    struct cm_arena arena = {0};
    struct cm_h1_head head;
    struct cm_err err;
    size_t at = 0, used;

    while (!r->failed) {
        struct cm_str rest = cm_str_from(in, at);
        enum cm_h1_event ev = cm_h1_next(&r->h1, rest, &used, &err);

        CM_ASSERT(used <= rest.n);
        if (ev == CM_H1_GOT_HEAD &&
            cm_h1_head(&r->h1, cm_str_head(rest, used), &arena, &head, &err) != 0)
            ev = CM_H1_ERROR;
        if (ev == CM_H1_GOT_HEAD)
            put_head(&r->seen, &head);
        cm_arena_clear(&arena);
        if (ev == CM_H1_ERROR) {
            r->failed = true;
            cm_buf_printf(&r->seen, "error %d", cm_err_status(&err));
            break;
        }
        at += used;
        if (ev == CM_H1_GOT_END || (ev == CM_H1_GOT_HEAD && r->h1.state == CM_H1_END)) {
            CM_ASSERT(r->body.n == r->h1.body_n && r->body.n <= r->limit);
            put(&r->seen, cm_buf_str(&r->body));
            reader_next(r);
        }
        if (ev == CM_H1_MORE)
            break;
    }
    return at;
}

/* Cut at `first` and then every `step` bytes; step 0 reads the rest whole. Bytes not done with are
 * handed over again, as the server does. */
static struct cm_buf read_cut(struct cm_str stream, size_t first, size_t step, size_t limit)
{
    struct reader r = {.limit = limit};
    struct cm_str rest = stream;
    size_t kept = 0, n = first < rest.n ? first : rest.n;

    reader_next(&r);
    do {
        /* of its exact size, so that a sanitizer sees a read beyond it */
        char *piece = cm_alloc(kept + n);
        size_t used;

        if (kept + n > 0)
            memcpy(piece, rest.p - kept, kept + n);
        used = reader_feed(&r, cm_str(piece, kept + n));
        free(piece);
        kept = kept + n - used;
        rest = cm_str_from(rest, n);
        n = step > 0 && step < rest.n ? step : rest.n;
    } while (!r.failed && rest.n > 0);
    if (!r.failed) {
        cm_buf_printf(&r.seen, "more %d ", (int)r.h1.state);
        put(&r.seen, cm_buf_str(&r.body));
    }
    cm_buf_clear(&r.body);
    return r.seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_buf whole, cut;
    struct cm_str stream;
    size_t limit;

    if (size < 3)
        return 0;
    limit = data[0] ? (size_t)data[0] * 16 : 32768;
    stream = cm_str((const char *)data + 3, size - 3);
    whole = read_cut(stream, stream.n, 0, limit);
    cut = read_cut(stream, data[2], data[1], limit);
    CM_ASSERT(cm_str_eq(cm_buf_str(&whole), cm_buf_str(&cut)));
    cm_buf_clear(&whole);
    cm_buf_clear(&cut);
    return 0;
}
