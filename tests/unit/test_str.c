/* Byte slices. */
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

START_TEST(compares_bytes)
{
    ck_assert(cm_str_eq(CM_S("a\0b"), CM_S("a\0b")));
    ck_assert(!cm_str_eq(CM_S("a\0b"), CM_S("a\0c")));
    ck_assert(!cm_str_eq(CM_S("ab"), CM_S("abc")));
    ck_assert(cm_str_eq(CM_STR_NONE, CM_S("")));
    ck_assert(cm_str_eq_nocase(CM_S("Content-TYPE: AZ"), CM_S("content-type: az")));
    ck_assert(!cm_str_eq_nocase(CM_S("\xc4"), CM_S("\xe4"))); /* ASCII only */
    ck_assert(!cm_str_eq_nocase(CM_S("@"), CM_S("`")));       /* neighbours of the letters */
    ck_assert(!cm_str_eq_nocase(CM_S("["), CM_S("{")));
    ck_assert_int_lt(cm_str_cmp(CM_S("a"), CM_S("b")), 0);
    ck_assert_int_lt(cm_str_cmp(CM_S("a"), CM_S("aa")), 0);
    ck_assert_int_gt(cm_str_cmp(CM_S("\xff"), CM_S("a")), 0);
    ck_assert_int_eq(cm_str_cmp(CM_STR_NONE, CM_S("")), 0);
}
END_TEST

START_TEST(knows_starts_and_ends)
{
    ck_assert(cm_str_starts(CM_S("Bearer x"), CM_S("Bearer ")));
    ck_assert(!cm_str_starts(CM_S("Bear"), CM_S("Bearer ")));
    ck_assert(cm_str_starts_nocase(CM_S("BEARER x"), CM_S("bearer ")));
    ck_assert(!cm_str_starts_nocase(CM_S("bear"), CM_S("bearer ")));
    ck_assert(cm_str_is_word(CM_S("get_Weather-2"), 13));
    ck_assert(!cm_str_is_word(CM_S("get_Weather-2"), 12));
    ck_assert(!cm_str_is_word(CM_S("a.b"), 12));
    ck_assert(!cm_str_is_word(CM_S("\xc3\xa9"), 12));
    ck_assert(!cm_str_is_word(CM_STR_NONE, 12));
    ck_assert(cm_str_ends(CM_S("a.json"), CM_S(".json")));
    ck_assert(!cm_str_ends(CM_S("json"), CM_S(".json")));
    ck_assert(cm_str_starts(CM_STR_NONE, CM_S("")) && cm_str_ends(CM_STR_NONE, CM_S("")));
}
END_TEST

START_TEST(finds)
{
    ck_assert_uint_eq(cm_str_find(CM_S("hello"), CM_S("l")), 2);
    ck_assert_uint_eq(cm_str_find(CM_S("hello"), CM_S("lo")), 3);
    ck_assert_uint_eq(cm_str_find(CM_S("hello"), CM_S("lox")), SIZE_MAX);
    ck_assert_uint_eq(cm_str_find(CM_S("hello"), CM_S("")), 0);
    ck_assert_uint_eq(cm_str_find(CM_STR_NONE, CM_S("a")), SIZE_MAX);
    ck_assert_uint_eq(cm_str_find_char(CM_S("a\0b"), 'b'), 2);
    ck_assert_uint_eq(cm_str_find_char(CM_STR_NONE, 'b'), SIZE_MAX);
    ck_assert(cm_str_has(CM_S("gpt-4o-search"), CM_S("-search")));
}
END_TEST

START_TEST(takes_parts)
{
    ck_str(cm_str_from(CM_S("hello"), 2), "llo");
    ck_str(cm_str_from(CM_S("hello"), 5), "");
    ck_str(cm_str_from(CM_S("hello"), 99), "");
    ck_str(cm_str_from(CM_STR_NONE, 1), "");
    ck_str(cm_str_head(CM_S("hello"), 2), "he");
    ck_str(cm_str_head(CM_S("hello"), 99), "hello");
    ck_str(cm_str_trim(CM_S(" \t\r\n a b \n")), "a b");
    ck_str(cm_str_trim(CM_S(" \t ")), "");
    ck_str(cm_str_of(NULL), "");
}
END_TEST

START_TEST(cuts_at_a_separator)
{
    struct cm_str s = CM_S("a::b");

    ck_str(cm_str_cut(&s, ':'), "a");
    ck_str(cm_str_cut(&s, ':'), "");
    ck_str(s, "b");
    ck_str(cm_str_cut(&s, ':'), "b");
    ck_assert_uint_eq(s.n, 0);
    ck_str(cm_str_cut(&s, ':'), "");
}
END_TEST

START_TEST(reads_numbers)
{
    uint64_t v = 7;

    ck_assert(cm_str_to_u64(CM_S("18446744073709551615"), UINT64_MAX, &v) && v == UINT64_MAX);
    ck_assert(cm_str_to_u64(CM_S("0"), 0, &v) && v == 0);
    ck_assert(cm_str_to_u64(CM_S("007"), 7, &v) && v == 7);
    ck_assert(cm_str_to_u64(CM_S("65535"), 65535, &v) && v == 65535);
    v = 42;
    ck_assert(!cm_str_to_u64(CM_S("18446744073709551616"), UINT64_MAX, &v));
    ck_assert(!cm_str_to_u64(CM_S("99999999999999999999"), UINT64_MAX, &v));
    ck_assert(!cm_str_to_u64(CM_S("65536"), 65535, &v));
    ck_assert(!cm_str_to_u64(CM_S(":"), 99, &v));
    ck_assert(!cm_str_to_u64(CM_S("/"), 99, &v));
    ck_assert(!cm_str_to_u64(CM_S("8"), 7, &v));
    ck_assert(!cm_str_to_u64(CM_S("1"), 0, &v));
    ck_assert(!cm_str_to_u64(CM_S(""), 9, &v));
    ck_assert(!cm_str_to_u64(CM_S("-1"), 9, &v));
    ck_assert(!cm_str_to_u64(CM_S("+1"), 9, &v));
    ck_assert(!cm_str_to_u64(CM_S(" 1"), 9, &v));
    ck_assert(!cm_str_to_u64(CM_S("1 "), 9, &v));
    ck_assert(!cm_str_to_u64(CM_S("1\0"), 99, &v));
    ck_assert_uint_eq(v, 42);
}
END_TEST

START_TEST(copies)
{
    char small[4] = "zzz";
    char *z = cm_str_dup(CM_S("a\0b"));

    ck_assert_mem_eq(z, "a\0b", 4);
    free(z);
    ck_assert_uint_eq(cm_str_copy(small, sizeof(small), CM_S("hello")), 3);
    ck_assert_str_eq(small, "hel");
    ck_assert_uint_eq(cm_str_copy(small, sizeof(small), CM_STR_NONE), 0);
    ck_assert_str_eq(small, "");
    ck_assert_uint_eq(cm_str_copy(small, 0, CM_S("x")), 0);
}
END_TEST

Suite *suite_str(void)
{
    Suite *s = suite_create("str");
    TCase *t = tcase_create("str");

    tcase_add_test(t, compares_bytes);
    tcase_add_test(t, knows_starts_and_ends);
    tcase_add_test(t, finds);
    tcase_add_test(t, takes_parts);
    tcase_add_test(t, cuts_at_a_separator);
    tcase_add_test(t, reads_numbers);
    tcase_add_test(t, copies);
    suite_add_tcase(s, t);
    return s;
}
