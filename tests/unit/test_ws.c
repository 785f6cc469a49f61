/* WebSocket frames by bytes. */
#include "chatmux/codec/ws.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

#define MAX 1000

static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};

/* What a reader makes of it, as text: "T:hello;P:x;C1000:bye;!1002". */
static void read_all(struct cm_buf *out, struct cm_str bytes, size_t piece, bool from_client)
{
    struct cm_wsf_reader r;
    int rc = 0;

    cm_wsf_reader_init(&r, MAX, from_client);
    for (size_t at = 0; at < bytes.n && rc == 0; at += piece) {
        struct cm_str part = cm_str_head(cm_str_from(bytes, at), piece);
        char *copy = cm_str_dup(part); /* the sanitizer knows its end */
        struct cm_str in = cm_str(copy, part.n);
        struct cm_wsf_message m = {.op = CM_WSF_TEXT};
        struct cm_err err = {0};
        int code = 0;

        while ((rc = cm_wsf_read(&r, &in, &m, &code, &err)) == 1) {
            cm_buf_put(out, " TB     CPp"[m.op]);
            if (m.op == CM_WSF_CLOSE)
                cm_buf_put_u64(out, (uint64_t)m.close_code);
            cm_buf_put(out, ':');
            cm_buf_append(out, m.data);
            cm_buf_put(out, ';');
        }
        ck_quick(rc < 0 || in.n == 0);
        if (rc < 0) {
            ck_assert_int_eq(err.cls, CM_ERR_CUT);
            cm_buf_printf(out, "!%d", code);
        }
        free(copy);
    }
    cm_wsf_reader_clear(&r);
}

static void expect(struct cm_str bytes, bool from_client, struct cm_str want)
{
    for (size_t piece = 1; piece <= bytes.n; piece++) {
        struct cm_buf out = {0};

        read_all(&out, bytes, piece, from_client);
        ck_assert_msg(cm_str_eq(cm_buf_str(&out), want),
                      "in pieces of %zu: " CM_PRI ", not " CM_PRI, piece, CM_ARG(cm_buf_str(&out)),
                      CM_ARG(want));
        cm_buf_clear(&out);
    }
}

START_TEST(messages_at_every_split)
{
    expect(CM_S("\x81\x05hello"
                "\x82\x03\x00\xff\x01"
                "\x81\x00"
                "\x01\x03"
                "Gr\xc3" /* half a character, then a ping */
                "\x89\x02hi"
                "\x00\x00"
                "\x80\x03\xbc\xc3\x9f"
                "\x8a\x00"
                "\x02\x00\x80\x00"
                "\x88\x05\x0b\xb9"
                "bye"),
           false, CM_S("T:hello;B:\0\xff\x01;T:;P:hi;T:Gr\xc3\xbc\xc3\x9f;p:;B:;C3001:bye;"));
    expect(CM_S("\x88\x00"), false, CM_S("C1005:;"));
}
END_TEST

START_TEST(masked_at_every_split)
{
    /* RFC 6455 5.7 */
    expect(CM_S("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), true, CM_S("T:Hello;"));
    expect(CM_S("\x01\x83\x37\xfa\x21\x3d\x7f\x9f\x4d"
                "\x80\x82\x00\x00\x00\x00lo"),
           true, CM_S("T:Hello;"));
}
END_TEST

START_TEST(what_is_written_can_be_read)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, MAX};

    for (size_t i = 0; i < CM_COUNT(sizes) * 2; i++) {
        bool client = i % 2;
        struct cm_buf payload = {0}, bytes = {0}, want = {0};

        for (size_t k = 0; k < sizes[i / 2]; k++)
            cm_buf_put(&payload, (char)('a' + k % 26));
        cm_wsf_write(&bytes, CM_WSF_BINARY, cm_buf_str(&payload), client ? mask : NULL);
        cm_wsf_write_close(&bytes, 1000, CM_STR_NONE, client ? mask : NULL);
        cm_wsf_write_close(&bytes, CM_WSF_NO_CODE, CM_STR_NONE, client ? mask : NULL);
        cm_buf_printf(&want, "B:" CM_PRI ";C1000:;C1005:;", CM_ARG(cm_buf_str(&payload)));
        expect(cm_buf_str(&bytes), client, cm_buf_str(&want));
        cm_buf_clear(&payload);
        cm_buf_clear(&bytes);
        cm_buf_clear(&want);
    }
}
END_TEST

START_TEST(long_forms_of_lengths)
{
    struct cm_buf payload = {0}, bytes = {0};

    for (size_t k = 0; k < 65536; k++)
        cm_buf_put(&payload, 'x');
    cm_wsf_write(&bytes, CM_WSF_TEXT, cm_str_head(cm_buf_str(&payload), 65535), NULL);
    ck_str(cm_str_head(cm_buf_str(&bytes), 5), "\x81\x7e\xff\xffx");
    cm_buf_reset(&bytes);
    cm_wsf_write(&bytes, CM_WSF_TEXT, cm_buf_str(&payload), NULL);
    ck_str(cm_str_head(cm_buf_str(&bytes), 11), "\x81\x7f\0\0\0\0\0\1\0\0x");
    cm_buf_clear(&payload);
    cm_buf_clear(&bytes);
    /* a short payload may come with a long length */
    expect(CM_S("\x81\x7e\x00\x02hi\x81\x7f\0\0\0\0\0\0\0\2hi"), false, CM_S("T:hi;T:hi;"));
}
END_TEST

START_TEST(broken_frames)
{
    static const struct {
        const char *what;
        struct cm_str bytes;
        const char *want;
    } cases[] = {
        {"reserved bit", CM_S_INIT("\xc1\x00"), "!1002"},
        {"masked by a server", CM_S_INIT("\x81\x80\0\0\0\0"), "!1002"},
        {"unknown data kind", CM_S_INIT("\x83\x00"), "!1002"},
        {"unknown control kind", CM_S_INIT("\x8b\x00"), "!1002"},
        {"fragmented ping", CM_S_INIT("\x09\x00"), "!1002"},
        {"long ping", CM_S_INIT("\x89\x7e\x00\x7e"), "!1002"},
        {"continues nothing", CM_S_INIT("\x80\x00"), "!1002"},
        {"message within a message", CM_S_INIT("\x01\x01h\x81\x01i"), "!1002"},
        {"half a close code", CM_S_INIT("\x88\x01\x03"), "!1002"},
        {"close code 999", CM_S_INIT("\x88\x02\x03\xe7"), "!1002"},
        {"close code 1005", CM_S_INIT("\x88\x02\x03\xed"), "!1002"},
        {"close code 1006", CM_S_INIT("\x88\x02\x03\xee"), "!1002"},
        {"close code 2000", CM_S_INIT("\x88\x02\x07\xd0"), "!1002"},
        {"close code 5000", CM_S_INIT("\x88\x02\x13\x88"), "!1002"},
        {"close reason", CM_S_INIT("\x88\x03\x03\xe8\xff"), "!1007"},
        {"text", CM_S_INIT("\x81\x02\xc3\x28"), "!1007"},
        {"text, cut character", CM_S_INIT("\x01\x01h\x80\x01\xc3"), "!1007"},
        {"surrogate", CM_S_INIT("\x81\x03\xed\xa0\x80"), "!1007"},
        {"too long", CM_S_INIT("\x81\x7e\x03\xe9"), "!1009"},
        {"too long together", CM_S_INIT("\x01\x01h\x80\x7e\x03\xe8"), "!1009"},
        {"endless", CM_S_INIT("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), "!1009"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++)
        for (size_t piece = 1; piece <= cases[i].bytes.n; piece++) {
            struct cm_buf out = {0};

            read_all(&out, cases[i].bytes, piece, false);
            ck_assert_msg(cm_str_eq(cm_buf_str(&out), cm_str_of(cases[i].want)),
                          "%s in pieces of %zu: " CM_PRI, cases[i].what, piece,
                          CM_ARG(cm_buf_str(&out)));
            cm_buf_clear(&out);
        }
    expect(CM_S("\x81\x00"), true, CM_S("!1002"));
}
END_TEST

/* What a server must refuse of a client: the same, behind a mask. */
START_TEST(broken_frames_of_clients)
{
    static const struct {
        struct cm_str bytes; /* without the mask, which is zeros: byte 1 gets the bit */
        const char *want;
    } cases[] = {
        {CM_S_INIT("\xc1\x00"), "!1002"},         {CM_S_INIT("\x83\x00"), "!1002"},
        {CM_S_INIT("\x8b\x00"), "!1002"},         {CM_S_INIT("\x09\x00"), "!1002"},
        {CM_S_INIT("\x80\x00"), "!1002"},         {CM_S_INIT("\x88\x01\x03"), "!1002"},
        {CM_S_INIT("\x88\x02\x03\xee"), "!1002"}, {CM_S_INIT("\x88\x03\x03\xe8\xff"), "!1007"},
        {CM_S_INIT("\x81\x02\xc3\x28"), "!1007"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_buf bytes = {0};

        cm_buf_append(&bytes, cm_str_head(cases[i].bytes, 2));
        bytes.p[1] = (char)(bytes.p[1] | 0x80);
        cm_buf_append(&bytes, CM_S("\0\0\0\0"));
        cm_buf_append(&bytes, cm_str_from(cases[i].bytes, 2));
        expect(cm_buf_str(&bytes), true, cm_str_of(cases[i].want));
        cm_buf_clear(&bytes);
    }
}
END_TEST

START_TEST(close_frames_hold_what_may_stand_in_them)
{
    char payload[CM_WSF_CONTROL_MAX];
    struct cm_buf reason = {0};

    for (int code = -1; code <= 70000; code++) {
        bool fits = (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
                    (code >= 3000 && code <= 4999);

        ck_quick(cm_wsf_code_valid(code) == fits);
        ck_quick(cm_wsf_close_payload(payload, code, CM_STR_NONE) == (fits ? 2u : 0u));
    }
    ck_assert_uint_eq(cm_wsf_close_payload(payload, 4001, CM_S("bye")), 5);
    ck_assert_mem_eq(payload,
                     "\x0f\xa1"
                     "bye",
                     5);
    for (size_t i = 0; i < 100; i++)
        cm_buf_append(&reason, CM_S("ü"));
    ck_assert_uint_eq(cm_wsf_close_payload(payload, 1011, cm_buf_str(&reason)), 2 + 122);
    ck_assert_uint_eq(cm_wsf_close_payload(payload, 1011, CM_S("a\xff")), 3);
    cm_buf_clear(&reason);
}
END_TEST

Suite *suite_ws(void)
{
    Suite *s = suite_create("ws");
    TCase *t = tcase_create("ws");

    tcase_add_test(t, messages_at_every_split);
    tcase_add_test(t, masked_at_every_split);
    tcase_add_test(t, what_is_written_can_be_read);
    tcase_add_test(t, long_forms_of_lengths);
    tcase_add_test(t, broken_frames);
    tcase_add_test(t, broken_frames_of_clients);
    tcase_add_test(t, close_frames_hold_what_may_stand_in_them);
    suite_add_tcase(s, t);
    return s;
}
