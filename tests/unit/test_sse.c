/* SSE: fields as the standard reads them, the same result at every cut, no copy of whole blocks,
 * nothing kept while idle. */
#include "unit.h"

#include "chatmux/codec/sse.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <stdlib.h>

#define NO_LIMIT ((size_t)1 << 30)

/* What one reading of a stream gave. */
struct seen {
    struct cm_buf text;  /* per event "event|data|id|"; data "-" = none; "~" before an unfinished */
    struct cm_buf raws;  /* with lengths, and ends made the same for every cut */
    struct cm_buf bytes; /* all raws, one after the other */
    bool cr;             /* the last raw ended with CR */
    int rc;
};

static void seen_clear(struct seen *s)
{
    cm_buf_clear(&s->text);
    cm_buf_clear(&s->raws);
    cm_buf_clear(&s->bytes);
}

static int note(void *arg, const struct cm_sse_event *ev)
{
    struct seen *s = arg;
    struct cm_str raw = ev->raw;

    if (ev->unfinished)
        cm_buf_put(&s->text, '~');
    cm_buf_append(&s->text, ev->event);
    cm_buf_put(&s->text, '|');
    cm_buf_append(&s->text, ev->data.p ? ev->data : CM_S("-"));
    cm_buf_put(&s->text, '|');
    cm_buf_append(&s->text, ev->id);
    cm_buf_put(&s->text, '|');

    cm_buf_append(&s->bytes, raw);
    if (s->cr && raw.p[0] == '\n')
        raw = cm_str_from(raw, 1);
    s->cr = cm_str_ends(raw, CM_S("\r"));
    if (cm_str_ends(raw, CM_S("\r\n")))
        raw.n--;
    cm_buf_put_u64(&s->raws, raw.n);
    cm_buf_put(&s->raws, ':');
    cm_buf_append(&s->raws, raw);
    return 0;
}

/* Feeds `stream` cut at the n ascending places. Pieces are copies of their exact size, so that a
 * sanitizer sees a read beyond them. */
static struct seen read_cut(struct cm_str stream, const size_t *cuts, size_t n, size_t limit)
{
    struct cm_sse sse;
    struct seen s = {0};
    struct cm_err err = {0};
    size_t from = 0;

    cm_sse_init(&sse, limit);
    for (size_t i = 0; i <= n && s.rc == 0; i++) {
        size_t to = i < n ? cuts[i] : stream.n;
        char *piece = cm_alloc(to - from);

        for (size_t k = from; k < to; k++)
            piece[k - from] = stream.p[k];
        s.rc = cm_sse_feed(&sse, cm_str(piece, to - from), note, &s, &err);
        free(piece);
        from = to;
    }
    if (s.rc == 0)
        s.rc = cm_sse_end(&sse, note, &s, &err);
    else
        ck_assert_int_eq(err.cls, CM_ERR_UPSTREAM_DOWN);
    cm_sse_clear(&sse);
    ck_assert(cm_str_starts(stream, cm_buf_str(&s.bytes)));
    return s;
}

static struct seen read_whole(struct cm_str stream)
{
    return read_cut(stream, NULL, 0, NO_LIMIT);
}

static void assert_same(struct cm_str stream, const size_t *cuts, size_t n, size_t limit,
                        const struct seen *whole)
{
    struct seen s = read_cut(stream, cuts, n, limit);

    ck_assert_msg(s.rc == whole->rc, "rc %d, cut at %zu", s.rc, n ? cuts[0] : 0);
    ck_assert_msg(cm_str_eq(cm_buf_str(&s.text), cm_buf_str(&whole->text)),
                  "cut at %zu of %zu: \"" CM_PRI "\", not \"" CM_PRI "\"", n ? cuts[0] : 0,
                  stream.n, CM_ARG(s.text), CM_ARG(whole->text));
    ck_assert(cm_str_eq(cm_buf_str(&s.raws), cm_buf_str(&whole->raws)));
    seen_clear(&s);
}

/* what comes in, what "event|data|id|" comes out */
static const struct {
    struct cm_str stream, events;
} samples[] = {
    {CM_S_INIT(""), CM_S_INIT("")},
    {CM_S_INIT("data: a\n\n"), CM_S_INIT("|a||")},
    {CM_S_INIT("data: a\n\ndata: b\n\n"), CM_S_INIT("|a|||b||")},
    {CM_S_INIT("data: a\r\n\r\ndata: b\r\n\r\n"), CM_S_INIT("|a|||b||")},
    {CM_S_INIT("data: a\r\rdata: b\r\r"), CM_S_INIT("|a|||b||")},
    {CM_S_INIT("data: a\r\n\ndata: b\n\r\ndata: c\r\r\ndata: d\n\r"),
     CM_S_INIT("|a|||b|||c|||d||")},
    {CM_S_INIT("data: a\r\n\rdata: b\n\r\n"), CM_S_INIT("|a|||b||")},
    {CM_S_INIT("data:a\ndata: b\ndata:  c \n\n"), CM_S_INIT("|a\nb\n c ||")},
    {CM_S_INIT("data\n\n"), CM_S_INIT("|||")},
    {CM_S_INIT("data\ndata\n\n"), CM_S_INIT("|\n||")},
    {CM_S_INIT("data:\n\ndata: \n\ndata\n\n"), CM_S_INIT("|||"
                                                         "|||"
                                                         "|||")},
    {CM_S_INIT("data: a\ndata:\ndata: b\n\n"), CM_S_INIT("|a\n\nb||")},
    {CM_S_INIT("event: x\nid: 7\ndata: a\nretry: 10\n\n"), CM_S_INIT("x|a|7|")},
    {CM_S_INIT("event: x\nevent: y\nid: 1\nid\ndata: a\n\ndata: b\n\n"), CM_S_INIT("y|a|||b||")},
    {CM_S_INIT("id: a\0b\ndata: x\n\n"), CM_S_INIT("|x||")},
    {CM_S_INIT("id: 1\nid: a\0b\ndata: x\n\n"), CM_S_INIT("|x|1|")},
    {CM_S_INIT("data: a\0b\n\n"), CM_S_INIT("|a\0b||")},
    {CM_S_INIT(": ping\n\n:\n\nid: 3\n\n"), CM_S_INIT("|-|||-|||-|3|")},
    {CM_S_INIT("\n\n\r\n\rdata: a\n\n"), CM_S_INIT("|-|||-|||-|||-|||a||")},
    {CM_S_INIT("datax: 1\n data: 2\nDATA: 3\ndat: 4\nevents: 5\nidx: 6\ndata: y\n\n"),
     CM_S_INIT("|y||")},
    {CM_S_INIT(": c\ndata: a: b\n: d\n\n"), CM_S_INIT("|a: b||")},
    {CM_S_INIT("\xEF\xBB\xBF"
               "data: a\n\n"),
     CM_S_INIT("|a||")},
    {CM_S_INIT("\xEF\xBB\xBF\ndata: a\n\n"), CM_S_INIT("|-|||a||")},
    {CM_S_INIT("\xEF\xBB"
               "data: a\n\n"),
     CM_S_INIT("|-||")},
    {CM_S_INIT("\xEF\n\ndata: a\n\n"), CM_S_INIT("|-|||a||")},
    {CM_S_INIT("data: a\n\n\xEF\xBB\xBF"
               "data: b\n\n"),
     CM_S_INIT("|a|||-||")},
    {CM_S_INIT("\xEF\xBB\xBF\xEF\xBB\xBF"
               "data: b\n\n"),
     CM_S_INIT("|-||")},
    {CM_S_INIT("data: \xE4\xB8\x96\xE7\x95\x8C\n\n"), CM_S_INIT("|\xE4\xB8\x96\xE7\x95\x8C||")},
    {CM_S_INIT("data: a\n\ndata: b"), CM_S_INIT("|a||~|b||")},
    {CM_S_INIT("data: a\n\nevent: e\ndata: b\ndata: c\n"), CM_S_INIT("|a||~e|b\nc||")},
    {CM_S_INIT("data: a\n\ndata: b\r"), CM_S_INIT("|a||~|b||")},
    {CM_S_INIT("data: a\n\nevent: b\n"), CM_S_INIT("|a||")},
    {CM_S_INIT("data: a\n\ndat"), CM_S_INIT("|a||")},
    {CM_S_INIT("data: a\r\n\r\n: b\r\n"), CM_S_INIT("|a||")},
};

START_TEST(fields_are_read_as_the_standard_says)
{
    for (size_t i = 0; i < CM_COUNT(samples); i++) {
        struct seen s = read_whole(samples[i].stream);

        ck_assert_int_eq(s.rc, 0);
        ck_assert_msg(cm_str_eq(cm_buf_str(&s.text), samples[i].events),
                      "sample %zu: \"" CM_PRI "\", not \"" CM_PRI "\"", i, CM_ARG(s.text),
                      CM_ARG(samples[i].events));
        seen_clear(&s);
    }
}
END_TEST

START_TEST(same_result_at_every_one_and_two_cuts)
{
    for (size_t i = 0; i < CM_COUNT(samples); i++) {
        const struct cm_str stream = samples[i].stream;
        struct seen whole = read_whole(stream);

        for (size_t a = 0; a <= stream.n; a++)
            for (size_t b = a; b <= stream.n; b++)
                assert_same(stream, (size_t[]){a, b}, 2, NO_LIMIT, &whole);
        seen_clear(&whole);
    }
}
END_TEST

START_TEST(same_result_byte_by_byte)
{
    for (size_t i = 0; i < CM_COUNT(samples); i++) {
        const struct cm_str stream = samples[i].stream;
        struct seen whole = read_whole(stream);
        size_t cuts[200];

        ck_assert_uint_le(stream.n, CM_COUNT(cuts));
        for (size_t c = 0; c < stream.n; c++)
            cuts[c] = c;
        assert_same(stream, cuts, stream.n, NO_LIMIT, &whole);
        seen_clear(&whole);
    }
}
END_TEST

/* Streams put together from the bytes that matter, cut anywhere, with and without a limit that
 * bites. */
START_TEST(same_result_for_random_streams_and_cuts)
{
    static const char *const parts[] = {"\n",
                                        "\r",
                                        "\r\n",
                                        "\n\n",
                                        "data",
                                        "data:",
                                        "data: x",
                                        "id: 1",
                                        "id:",
                                        ":",
                                        "event:",
                                        " ",
                                        "d",
                                        "\xEF\xBB\xBF",
                                        "\r\r",
                                        "\xEF",
                                        "long words that fill a line"};
    struct cm_rng rng;

    cm_rng_seed(&rng, 7);
    for (int round = 0; round < 20000; round++) {
        struct cm_buf stream = {0};
        size_t cuts[8] = {0}, n = 1 + cm_rng_below(&rng, CM_COUNT(cuts));
        size_t limit = round % 2 ? NO_LIMIT : 5 + cm_rng_below(&rng, 60);
        struct seen whole;

        for (uint64_t k = cm_rng_below(&rng, 20); k > 0; k--)
            cm_buf_append(&stream, cm_str_of(parts[cm_rng_below(&rng, CM_COUNT(parts))]));
        for (size_t c = 0; c < n; c++) {
            size_t left = stream.n - (c ? cuts[c - 1] : 0);

            cuts[c] = (c ? cuts[c - 1] : 0) + cm_rng_below(&rng, left + 1) / (n - c);
        }
        whole = read_cut(cm_buf_str(&stream), NULL, 0, limit);
        assert_same(cm_buf_str(&stream), cuts, n, limit, &whole);
        seen_clear(&whole);
        cm_buf_clear(&stream);
    }
}
END_TEST

struct inside {
    struct cm_str piece;
    int events;
};

static int must_point_inside(void *arg, const struct cm_sse_event *ev)
{
    struct inside *in = arg;

    ck_assert(ev->raw.p >= in->piece.p && ev->raw.p + ev->raw.n <= in->piece.p + in->piece.n);
    ck_assert(ev->data.p >= in->piece.p && ev->data.p + ev->data.n <= in->piece.p + in->piece.n);
    in->events++;
    return 0;
}

START_TEST(whole_blocks_are_not_copied)
{
    struct inside in = {.piece = CM_S("data: a\n\nevent: e\ndata: b\r\n\r\n: c\ndata: d\n\n")};
    struct cm_sse sse;
    struct cm_err err;

    cm_sse_init(&sse, NO_LIMIT);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(cm_sse_feed(&sse, in.piece, must_point_inside, &in, &err), 0);
    ck_assert_int_eq(in.events, 9);
    ck_assert_uint_eq(sse.hold.cap, 0);
    ck_assert_uint_eq(sse.joined.cap, 0);
    cm_sse_clear(&sse);
}
END_TEST

START_TEST(an_idle_reader_keeps_almost_nothing)
{
    struct cm_buf big = {0};
    struct seen s = {0};
    struct cm_sse sse;
    struct cm_err err;

    for (int i = 0; i < 20000; i++)
        cm_buf_append(&big, CM_S("data: many lines\n"));
    cm_sse_init(&sse, NO_LIMIT);
    ck_assert_int_eq(cm_sse_feed(&sse, cm_buf_str(&big), note, &s, &err), 0);
    ck_assert_uint_ge(sse.hold.cap, big.n);
    ck_assert_int_eq(cm_sse_feed(&sse, CM_S("\n"), note, &s, &err), 0);
    ck_assert_uint_gt(s.text.n, 20000 * 10);
    ck_assert_uint_le(sse.hold.cap + sse.joined.cap, 2048);
    cm_sse_clear(&sse);
    cm_buf_clear(&big);
    seen_clear(&s);
}
END_TEST

/* Quadratic searching would take minutes here. */
START_TEST(long_lines_and_many_lines_take_linear_time)
{
    const size_t size = 4 << 20;
    char *bytes = cm_alloc(size);
    struct seen s = {0};
    struct cm_sse sse;
    struct cm_err err;

    cm_sse_init(&sse, NO_LIMIT);
    memset(bytes, 'x', size);
    for (size_t i = 0; i < size; i += 256)
        ck_assert_int_eq(cm_sse_feed(&sse, cm_str(bytes + i, 256), note, &s, &err), 0);
    for (size_t i = 1; i < size; i += 2)
        bytes[i] = '\r';
    ck_assert_int_eq(cm_sse_feed(&sse, cm_str(bytes, size), note, &s, &err), 0);
    for (size_t i = 1; i < size; i += 2)
        bytes[i] = '\n';
    ck_assert_int_eq(cm_sse_feed(&sse, cm_str(bytes, size), note, &s, &err), 0);
    ck_assert_int_eq(cm_sse_feed(&sse, CM_S("\n"), note, &s, &err), 0);
    ck_assert_uint_eq(s.bytes.n, 3 * size + 1);
    cm_sse_clear(&sse);
    seen_clear(&s);
    free(bytes);
}
END_TEST

START_TEST(a_block_has_a_limit_wherever_it_is_cut)
{
    const struct cm_str fits = CM_S("data: a\n\ndata: 45678\n\n"),
                        over = CM_S("data: a\n\ndata: 456789\n\n");

    for (size_t cut = 0; cut <= fits.n; cut++) {
        struct seen s = read_cut(fits, &cut, 1, 12);

        ck_assert_int_eq(s.rc, 0);
        ck_assert(cm_str_eq(cm_buf_str(&s.text), CM_S("|a|||45678||")));
        seen_clear(&s);
    }
    for (size_t cut = 0; cut <= over.n; cut++) {
        struct seen s = read_cut(over, &cut, 1, 12);

        ck_assert_int_eq(s.rc, -1);
        ck_assert(cm_str_eq(cm_buf_str(&s.text), CM_S("|a||")));
        seen_clear(&s);
    }
}
END_TEST

START_TEST(the_limit_holds_without_any_line_end)
{
    struct seen s = {0};
    struct cm_sse sse;
    struct cm_err err = {0};
    int fed = 0;

    cm_sse_init(&sse, 1000);
    while (cm_sse_feed(&sse, CM_S("0123456789"), note, &s, &err) == 0)
        fed++;
    ck_assert_int_eq(fed, 100);
    ck_assert_int_eq(err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_str_eq(err.msg, "one event of the upstream's stream has more than 1000 bytes");
    cm_sse_clear(&sse);
    ck_assert_int_eq(cm_sse_feed(&sse, CM_S("data: a\n\n"), note, &s, &err), 0);
    ck_assert(cm_str_eq(cm_buf_str(&s.text), CM_S("|a||")));
    cm_sse_clear(&sse);
    seen_clear(&s);
}
END_TEST

static int stop_at_third(void *arg, const struct cm_sse_event *ev)
{
    int *calls = arg;

    (void)ev;
    return ++*calls == 3 ? -1 : 0;
}

START_TEST(the_callback_can_stop_the_reading)
{
    struct cm_sse sse;
    struct cm_err err;
    int calls = 0;

    cm_sse_init(&sse, NO_LIMIT);
    ck_assert_int_eq(cm_sse_feed(&sse, CM_S("data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n"),
                                 stop_at_third, &calls, &err),
                     -1);
    ck_assert_int_eq(calls, 3);
    cm_sse_clear(&sse);
    calls = 2;
    ck_assert_int_eq(cm_sse_feed(&sse, CM_S("data: 1"), stop_at_third, &calls, &err), 0);
    ck_assert_int_eq(cm_sse_end(&sse, stop_at_third, &calls, &err), -1);
    cm_sse_clear(&sse);
}
END_TEST

START_TEST(events_are_written)
{
    static const struct {
        struct cm_str event, data, text;
    } rows[] = {
        {CM_S_INIT(""), CM_S_INIT("a"), CM_S_INIT("data: a\n\n")},
        {CM_S_INIT("e"), CM_S_INIT("a"), CM_S_INIT("event: e\ndata: a\n\n")},
        {CM_S_INIT(""), CM_S_INIT("a\nb"), CM_S_INIT("data: a\ndata: b\n\n")},
        {CM_S_INIT(""), CM_S_INIT("a\r\nb\rc\n"),
         CM_S_INIT("data: a\ndata: b\ndata: c\ndata: \n\n")},
        {CM_S_INIT(""), CM_S_INIT(""), CM_S_INIT("data: \n\n")},
        {CM_S_INIT(""), {NULL, 0}, CM_S_INIT("data: \n\n")},
        {CM_S_INIT("e\rdata: x"), CM_S_INIT("a"), CM_S_INIT("event: e\ndata: a\n\n")},
    };

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        struct cm_buf out = {0};

        cm_sse_put(&out, rows[i].event, rows[i].data);
        ck_assert_msg(cm_str_eq(cm_buf_str(&out), rows[i].text), "row %zu: " CM_PRI, i,
                      CM_ARG(out));
        cm_buf_clear(&out);
    }
}
END_TEST

START_TEST(what_is_written_is_read_again)
{
    static const char letters[] = "ab:\n \x01";
    struct cm_rng rng;

    cm_rng_seed(&rng, 11);
    for (int round = 0; round < 2000; round++) {
        struct cm_buf data = {0}, out = {0}, expected = {0};
        struct seen s;

        for (uint64_t n = cm_rng_below(&rng, 30); n > 0; n--)
            cm_buf_put(&data, letters[cm_rng_below(&rng, sizeof(letters) - 1)]);
        cm_sse_put(&out, CM_S("ev"), cm_buf_str(&data));
        cm_buf_append(&expected, CM_S("ev|"));
        cm_buf_append(&expected, cm_buf_str(&data));
        cm_buf_append(&expected, CM_S("||"));
        s = read_whole(cm_buf_str(&out));
        ck_assert(cm_str_eq(cm_buf_str(&s.text), cm_buf_str(&expected)));
        seen_clear(&s);
        cm_buf_clear(&data);
        cm_buf_clear(&out);
        cm_buf_clear(&expected);
    }
}
END_TEST

Suite *suite_sse(void)
{
    Suite *suite = suite_create("sse");
    TCase *read = tcase_create("read"), *write = tcase_create("write");

    tcase_add_test(read, fields_are_read_as_the_standard_says);
    tcase_add_test(read, same_result_at_every_one_and_two_cuts);
    tcase_add_test(read, same_result_byte_by_byte);
    tcase_add_test(read, same_result_for_random_streams_and_cuts);
    tcase_add_test(read, whole_blocks_are_not_copied);
    tcase_add_test(read, an_idle_reader_keeps_almost_nothing);
    tcase_add_test(read, long_lines_and_many_lines_take_linear_time);
    tcase_add_test(read, a_block_has_a_limit_wherever_it_is_cut);
    tcase_add_test(read, the_limit_holds_without_any_line_end);
    tcase_add_test(read, the_callback_can_stop_the_reading);
    tcase_add_test(write, events_are_written);
    tcase_add_test(write, what_is_written_is_read_again);
    suite_add_tcase(suite, read);
    suite_add_tcase(suite, write);
    return suite;
}
