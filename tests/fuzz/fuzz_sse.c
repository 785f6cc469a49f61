/* SSE reader: what a stream means does not depend on where it is cut. Input: limit, step of the
 * cuts, first cut, then the stream. */
#include "chatmux/codec/sse.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct cm_buf text;  /* every event, members with lengths, ends of raws made comparable */
    struct cm_buf bytes; /* all raws, one after the other */
    bool cr;             /* the last raw ended with CR */
    int rc;
};

static void put(struct cm_buf *out, struct cm_str s)
{
    cm_buf_put(out, s.p ? '+' : '-');
    cm_buf_put_u64(out, s.n);
    cm_buf_put(out, ':');
    cm_buf_append(out, s);
}

static int note(void *arg, const struct cm_sse_event *ev)
{
    struct seen *s = arg;
    struct cm_str raw = ev->raw;

    cm_buf_append(&s->bytes, raw);
    /* an LF that came after the CR of an empty line belongs to either side */
    if (s->cr && raw.p[0] == '\n')
        raw = cm_str_from(raw, 1);
    s->cr = cm_str_ends(raw, CM_S("\r"));
    if (cm_str_ends(raw, CM_S("\r\n")))
        raw.n--;
    put(&s->text, ev->data);
    put(&s->text, ev->event.n ? ev->event : CM_S(""));
    put(&s->text, ev->id.n ? ev->id : CM_S(""));
    put(&s->text, raw);
    cm_buf_put(&s->text, ev->unfinished ? '~' : '.');
    return 0;
}

/* Cut at `first` and then every `step` bytes; step 0 reads the rest whole. */
static struct seen read_cut(struct cm_str stream, size_t first, size_t step, size_t limit)
{
    struct cm_str rest = stream;
    struct seen s = {0};
    struct cm_sse sse;
    struct cm_err err;
    size_t n = first < rest.n ? first : rest.n;

    cm_sse_init(&sse, limit);
    do {
        char *piece =
            cm_alloc(n); /* of its exact size, so that a sanitizer sees a read beyond it */

        if (n > 0)
            memcpy(piece, rest.p, n);
        s.rc = cm_sse_feed(&sse, cm_str(piece, n), note, &s, &err);
        free(piece);
        rest = cm_str_from(rest, n);
        n = step > 0 && step < rest.n ? step : rest.n;
    } while (s.rc == 0 && rest.n > 0);
    if (s.rc == 0)
        s.rc = cm_sse_end(&sse, note, &s, &err);
    cm_sse_clear(&sse);
    CM_ASSERT(cm_str_starts(stream, cm_buf_str(&s.bytes)));
    return s;
}

static void seen_clear(struct seen *s)
{
    cm_buf_clear(&s->text);
    cm_buf_clear(&s->bytes);
}

static int compare_data(void *arg, const struct cm_sse_event *ev)
{
    struct cm_str *expected = arg;

    CM_ASSERT(cm_str_eq(ev->data, *expected));
    expected->p = NULL;
    return 0;
}

/* What cm_sse_put() writes is one event with this data, its line ends turned into LF. */
static void check_writing(struct cm_str data)
{
    struct cm_buf lf = {0}, out = {0};
    struct cm_str expected;
    struct cm_sse sse;

    for (size_t i = 0; i < data.n; i++) {
        if (data.p[i] != '\r')
            cm_buf_put(&lf, data.p[i]);
        else if (i + 1 == data.n || data.p[i + 1] != '\n')
            cm_buf_put(&lf, '\n');
    }
    expected = lf.n > 0 ? cm_buf_str(&lf) : CM_S("");
    cm_sse_init(&sse, SIZE_MAX);
    cm_sse_put(&out, CM_S(""), data);
    CM_ASSERT(cm_sse_feed(&sse, cm_buf_str(&out), compare_data, &expected, NULL) == 0);
    CM_ASSERT(!expected.p && sse.hold.n == 0);
    cm_sse_clear(&sse);
    cm_buf_clear(&lf);
    cm_buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str stream;
    struct seen whole, cut;
    size_t limit;

    if (size < 3)
        return 0;
    limit = data[0] ? data[0] : SIZE_MAX;
    stream = cm_str((const char *)data + 3, size - 3);
    whole = read_cut(stream, stream.n, 0, limit);
    cut = read_cut(stream, data[2], data[1], limit);
    CM_ASSERT(whole.rc == cut.rc);
    CM_ASSERT(cm_str_eq(cm_buf_str(&whole.text), cm_buf_str(&cut.text)));
    seen_clear(&whole);
    seen_clear(&cut);
    check_writing(stream);
    return 0;
}
