/* Allocation and assertions. */
#include "chatmux/base/mem.h"
#include "unit.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

START_TEST(nothing_is_something)
{
    void *a = cm_alloc(0), *b = cm_calloc(0, 8), *c = cm_realloc(NULL, 0);

    ck_assert(a && b && c);
    c = cm_realloc(c, 0);
    ck_assert_ptr_nonnull(c);
    free(a);
    free(b);
    free(c);
}
END_TEST

START_TEST(calloc_zeroes_and_strdup_copies)
{
    unsigned char *p = cm_calloc(100, 10);
    char *z = cm_strdup("hello");

    for (int i = 0; i < 1000; i++)
        ck_assert_uint_eq(p[i], 0);
    ck_assert_str_eq(z, "hello");
    free(p);
    free(z);
}
END_TEST

START_TEST(wipe_overwrites)
{
    char secret[] = "hunter2";

    cm_wipe(secret, sizeof(secret));
    for (size_t i = 0; i < sizeof(secret); i++)
        ck_assert_int_eq(secret[i], 0);
    cm_wipe(NULL, 0);
}
END_TEST

#ifndef UNIT_ASAN
START_TEST(overflowing_product_ends_the_process)
{
    volatile size_t count = SIZE_MAX / 2; /* the compiler would warn */

    free(cm_calloc(count, 4));
}
END_TEST
#endif

START_TEST(assertions_stay_on)
{
    CM_ASSERT(1 + 1 == 2);
    CM_ASSERT(1 + 1 == 3);
}
END_TEST

Suite *suite_mem(void)
{
    Suite *s = suite_create("mem");
    TCase *t = tcase_create("mem");

    tcase_add_test(t, nothing_is_something);
    tcase_add_test(t, calloc_zeroes_and_strdup_copies);
    tcase_add_test(t, wipe_overwrites);
    tcase_add_test_raise_signal(t, assertions_stay_on, SIGABRT);
#ifndef UNIT_ASAN
    tcase_add_test_raise_signal(t, overflowing_product_ends_the_process, SIGABRT);
#endif
    suite_add_tcase(s, t);
    return s;
}
