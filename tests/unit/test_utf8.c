/* UTF-8. */
#include "chatmux/base/utf8.h"
#include "unit.h"

/* Written from the definition, not from the table: decodes and asks whether this is the shortest
 * form. */
static bool is_valid_by_definition(const unsigned char *p, size_t n)
{
    uint32_t c;

    if (n == 1)
        return p[0] < 0x80;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return false;
    }
    if (n == 2 && (p[0] & 0xe0) == 0xc0) {
        c = (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
        return c >= 0x80;
    }
    if (n == 3 && (p[0] & 0xf0) == 0xe0) {
        c = (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
        return c >= 0x800 && (c < 0xd800 || c > 0xdfff);
    }
    if (n == 4 && (p[0] & 0xf8) == 0xf0) {
        c = (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
        return c >= 0x10000 && c <= 0x10ffff;
    }
    return false;
}

static size_t valid_prefix(const unsigned char *p, size_t n)
{
    size_t i = 0, step;

    while (i < n) {
        for (step = 1; step <= 4 && i + step <= n; step++) {
            if (is_valid_by_definition(p + i, step))
                break;
        }
        if (step > 4 || i + step > n)
            break;
        i += step;
    }
    return i;
}

START_TEST(valid_is_what_the_rfc_says)
{
    static const unsigned char edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                          0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
                                          0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    const size_t n = sizeof(edges);
    unsigned char p[4];

    for (size_t i = 0; i < n * n * n * n; i++) {
        size_t k = i;

        for (int at = 0; at < 4; at++, k /= n)
            p[at] = edges[k % n];
        if (cm_utf8_valid(cm_str((char *)p, 4)) != valid_prefix(p, 4))
            ck_abort_msg("%02x %02x %02x %02x", p[0], p[1], p[2], p[3]);
    }
    for (unsigned i = 0; i < 65536; i++) {
        p[0] = (unsigned char)(i >> 8);
        p[1] = (unsigned char)i;
        ck_quick(cm_utf8_valid(cm_str((char *)p, 2)) == valid_prefix(p, 2));
    }
    ck_assert_uint_eq(cm_utf8_valid(CM_STR_NONE), 0);
}
END_TEST

START_TEST(every_code_point_comes_back)
{
    struct cm_buf b = {0};

    for (uint32_t c = 0; c <= 0x110000; c++) {
        cm_buf_reset(&b);
        cm_utf8_put(&b, c);
        ck_quick(cm_utf8_valid(cm_buf_str(&b)) == b.n);
        ck_quick(cm_utf8_count(cm_buf_str(&b)) == 1);
        if (c == 0xd800 || c == 0xdfff || c == 0x110000)
            ck_str(cm_buf_str(&b), "\xef\xbf\xbd");
    }
    cm_buf_reset(&b);
    cm_utf8_put(&b, 'A');
    cm_utf8_put(&b, 0xe4);
    cm_utf8_put(&b, 0x4e16);
    cm_utf8_put(&b, 0x1f600);
    ck_str(cm_buf_str(&b), "Aä世😀");
    cm_buf_clear(&b);
}
END_TEST

/* The fast path looks at eight bytes at once: one bad byte at each place of each alignment. */
START_TEST(finds_one_bad_byte_anywhere)
{
    char text[80];

    for (size_t start = 0; start < 8; start++) {
        for (size_t bad = start; bad < sizeof(text); bad++) {
            memset(text, 'a', sizeof(text));
            text[bad] = '\xff';
            ck_assert_uint_eq(cm_utf8_valid(cm_str(text + start, sizeof(text) - start)),
                              bad - start);
        }
    }
}
END_TEST

START_TEST(tail_is_what_may_still_become_a_character)
{
    struct cm_str s = CM_S("x😀");

    ck_assert_uint_eq(cm_utf8_tail(CM_STR_NONE), 0);
    for (size_t n = 0; n <= s.n; n++)
        ck_assert_uint_eq(cm_utf8_tail(cm_str_head(s, n)), n < 2 || n == 5 ? 0 : n - 1);
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xe4\xb8")), 2);
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xc3")), 1);
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xed\xa0")), 0); /* a surrogate never completes */
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xf4\x90")), 0); /* above the last code point */
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xe0\x80")), 0); /* not the shortest form */
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xff")), 0);
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xbf\xbf\xbf\xbf")), 0);
    ck_assert_uint_eq(cm_utf8_tail(CM_S("\xc3\xa4\xa4")), 0); /* a complete one and a stray byte */
}
END_TEST

START_TEST(joining_at_the_tail_loses_nothing)
{
    struct cm_str s = CM_S("aä世😀€z😀");

    for (size_t piece = 1; piece <= s.n; piece++) {
        struct cm_buf held = {0}, out = {0};

        for (size_t at = 0; at < s.n; at += piece) {
            size_t whole;

            cm_buf_append(&held, cm_str_head(cm_str_from(s, at), piece));
            whole = held.n - cm_utf8_tail(cm_buf_str(&held));
            cm_utf8_clean(&out, cm_str(held.p, whole));
            cm_buf_consume(&held, whole);
        }
        ck_str(cm_buf_str(&out), "aä世😀€z😀");
        cm_buf_clear(&held);
        cm_buf_clear(&out);
    }
}
END_TEST

START_TEST(cleaning_replaces_each_invalid_byte)
{
    struct cm_buf b = {0};

    cm_utf8_clean(&b, CM_S("a\xff"
                           "b\xe4\xb8"
                           "cä\xed\xa0\x80\xc3"));
    ck_str(cm_buf_str(&b), "a\xef\xbf\xbd"
                           "b\xef\xbf\xbd\xef\xbf\xbd"
                           "cä\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    cm_buf_reset(&b);
    cm_utf8_clean(&b, CM_STR_NONE);
    ck_assert_uint_eq(b.n, 0);
    cm_buf_clear(&b);
}
END_TEST

START_TEST(counts_and_cuts_characters)
{
    struct cm_str s = CM_S("aä世😀");

    ck_assert_uint_eq(cm_utf8_count(s), 4);
    ck_assert_uint_eq(cm_utf8_count(CM_S("\xff\xc3z")), 3);
    ck_assert_uint_eq(cm_utf8_head(s, 0).n, 0);
    ck_assert_uint_eq(cm_utf8_head(s, 1).n, 1);
    ck_assert_uint_eq(cm_utf8_head(s, 2).n, 1);
    ck_assert_uint_eq(cm_utf8_head(s, 3).n, 3);
    ck_assert_uint_eq(cm_utf8_head(s, 5).n, 3);
    ck_assert_uint_eq(cm_utf8_head(s, 6).n, 6);
    ck_assert_uint_eq(cm_utf8_head(s, 9).n, 6);
    ck_assert_uint_eq(cm_utf8_head(s, 10).n, 10);
    ck_assert_uint_eq(cm_utf8_head(s, 99).n, 10);
    ck_assert_uint_eq(cm_utf8_head(CM_S("\xbf\xbf\xbf\xbf\xbf\xbf"), 5).n, 5);
    ck_assert_uint_eq(cm_utf8_head(CM_S("a\xc3\xbf\xbf"), 3).n, 3);
}
END_TEST

Suite *suite_utf8(void)
{
    Suite *s = suite_create("utf8");
    TCase *t = tcase_create("utf8");

    tcase_add_test(t, valid_is_what_the_rfc_says);
    tcase_add_test(t, every_code_point_comes_back);
    tcase_add_test(t, finds_one_bad_byte_anywhere);
    tcase_add_test(t, tail_is_what_may_still_become_a_character);
    tcase_add_test(t, joining_at_the_tail_loses_nothing);
    tcase_add_test(t, cleaning_replaces_each_invalid_byte);
    tcase_add_test(t, counts_and_cuts_characters);
    suite_add_tcase(s, t);
    return s;
}
