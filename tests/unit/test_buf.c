/* Growing buffer. */
#include "chatmux/base/buf.h"

#include "chatmux/base/arena.h"
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>

START_TEST(zeroed_memory_is_an_empty_buffer)
{
    struct cm_buf b = {0};

    ck_str(cm_buf_str(&b), "");
    ck_assert_str_eq(cm_buf_z(&b), "");
    cm_buf_clear(&b);
    cm_buf_clear(&b);
}
END_TEST

START_TEST(keeps_what_is_appended)
{
    struct cm_buf b = {0};

    for (size_t i = 0; i < 10000; i++) {
        cm_buf_append(&b, CM_S("ab"));
        cm_buf_put(&b, (char)('0' + i % 10));
    }
    ck_assert_uint_eq(b.n, 30000);
    for (size_t i = 0; i < 10000; i++) {
        ck_quick(memcmp(b.p + 3 * i, "ab", 2) == 0);
        ck_quick(b.p[3 * i + 2] == (char)('0' + i % 10));
    }
    cm_buf_append(&b, CM_STR_NONE);
    ck_assert_uint_eq(b.n, 30000);
    ck_assert(!b.failed);
    cm_buf_clear(&b);
}
END_TEST

/* For every limit and every size of the second append: all or nothing. */
START_TEST(limit_is_exact_and_remembered)
{
    for (size_t limit = 1; limit <= 200; limit++) {
        for (size_t n = 0; n <= 201; n += limit % 7 + 1) {
            struct cm_buf b;
            char bytes[201] = {0};

            cm_buf_init(&b, limit);
            cm_buf_put(&b, 'x');
            cm_buf_append(&b, cm_str(bytes, n));
            ck_quick(b.n == (n + 1 <= limit ? n + 1 : 1));
            ck_quick(b.failed == (n + 1 > limit));
            ck_quick(b.cap <= limit);
            cm_buf_clear(&b);
            ck_quick(b.limit == limit);
        }
    }
}
END_TEST

START_TEST(nothing_follows_what_failed)
{
    struct cm_buf b;

    cm_buf_init(&b, 8);
    cm_buf_append(&b, CM_S("12345"));
    cm_buf_append(&b, CM_S("6789"));
    cm_buf_append(&b, CM_S("6")); /* would fit, but leave a hole */
    cm_buf_put(&b, '6');
    cm_buf_printf(&b, "6");
    cm_buf_put_u64(&b, 6);
    ck_assert_ptr_null(cm_buf_reserve(&b, 1));
    ck_assert_ptr_null(cm_buf_z(&b));
    ck_str(cm_buf_str(&b), "12345");
    cm_buf_reset(&b);
    cm_buf_append(&b, CM_S("12345678"));
    ck_assert_str_eq(cm_buf_z(&b), "12345678"); /* the NUL does not count */
    ck_assert(!b.failed);
    cm_buf_printf(&b, "%d", 9);
    ck_assert(b.failed);
    cm_buf_clear(&b);
}
END_TEST

START_TEST(prints)
{
    struct cm_buf b = {0};

    for (int n = 0; n < 300; n++) {
        cm_buf_reset(&b);
        cm_buf_put(&b, '<');
        cm_buf_printf(&b, "%*s", n, "");
        cm_buf_put(&b, '>');
        ck_assert_uint_eq(b.n, (size_t)n + 2);
        ck_assert_int_eq(b.p[n + 1], '>');
        if (n % 3 == 0)
            cm_buf_clear(&b);
    }
    cm_buf_clear(&b);
}
END_TEST

START_TEST(prints_up_to_the_limit)
{
    struct cm_buf b;

    for (size_t limit = 60; limit < 70; limit++) {
        cm_buf_init(&b, limit);
        cm_buf_printf(&b, "%*s", (int)limit, "x");
        ck_assert(!b.failed && b.n == limit);
        cm_buf_clear(&b);
        cm_buf_printf(&b, "%*s", (int)limit + 1, "x");
        ck_assert(b.failed && b.n == 0);
        cm_buf_clear(&b);
    }
}
END_TEST

START_TEST(writes_numbers)
{
    static const uint64_t some[] = {0, 9, 10, 99, 100, 4294967295, 4294967296, UINT64_MAX};
    struct cm_buf b = {0};
    char text[32];

    for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
        cm_buf_reset(&b);
        cm_buf_put_u64(&b, some[i]);
        snprintf(text, sizeof(text), "%" PRIu64, some[i]);
        ck_assert_str_eq(cm_buf_z(&b), text);
    }
    cm_buf_clear(&b);
}
END_TEST

START_TEST(reserves_and_consumes)
{
    struct cm_buf b;
    char *room;

    cm_buf_init(&b, 100);
    room = cm_buf_reserve(&b, 100);
    ck_assert_ptr_nonnull(room);
    memset(room, 'r', 100);
    b.n += 100;
    ck_assert_ptr_null(cm_buf_reserve(&b, 1));
    cm_buf_reset(&b);
    cm_buf_append(&b, CM_S("hello world"));
    cm_buf_consume(&b, 0);
    cm_buf_consume(&b, 6);
    ck_str(cm_buf_str(&b), "world");
    cm_buf_consume(&b, 99);
    ck_str(cm_buf_str(&b), "");
    cm_buf_clear(&b);
    cm_buf_consume(&b, 1);
}
END_TEST

START_TEST(settles_in_an_arena)
{
    struct cm_arena arena = {0};
    struct cm_buf b = {.limit = 10};
    struct cm_str s;

    ck_str(cm_buf_settle(&b, &arena), "");
    cm_buf_append(&b, CM_S("abc"));
    s = cm_buf_settle(&b, &arena);
    ck_assert(!b.p && b.n == 0 && b.limit == 10);
    cm_buf_append(&b, CM_S("xyz"));
    ck_str(s, "abc");
    cm_buf_clear(&b);
    cm_arena_clear(&arena);
}
END_TEST

Suite *suite_buf(void)
{
    Suite *s = suite_create("buf");
    TCase *t = tcase_create("buf");

    tcase_add_test(t, zeroed_memory_is_an_empty_buffer);
    tcase_add_test(t, keeps_what_is_appended);
    tcase_add_test(t, limit_is_exact_and_remembered);
    tcase_add_test(t, nothing_follows_what_failed);
    tcase_add_test(t, prints);
    tcase_add_test(t, prints_up_to_the_limit);
    tcase_add_test(t, writes_numbers);
    tcase_add_test(t, reserves_and_consumes);
    tcase_add_test(t, settles_in_an_arena);
    suite_add_tcase(s, t);
    return s;
}
