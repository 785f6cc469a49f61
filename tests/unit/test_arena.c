/* Arena. */
#include "chatmux/base/arena.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>

START_TEST(memory_is_aligned_separate_and_keeps_its_bytes)
{
    struct cm_arena a = {0};
    struct cm_rng rng;
    struct {
        unsigned char *p;
        size_t n;
    } got[2000];

    cm_rng_seed(&rng, 1);
    for (size_t i = 0; i < CM_COUNT(got); i++) {
        got[i].n = cm_rng_below(&rng, i % 50 == 0 ? 100000 : 200);
        got[i].p = cm_arena_alloc(&a, got[i].n);
        ck_assert_ptr_nonnull(got[i].p);
        ck_assert_uint_eq((uintptr_t)got[i].p % _Alignof(max_align_t), 0);
        memset(got[i].p, (int)(i & 0xff), got[i].n);
    }
    for (size_t i = 0; i < CM_COUNT(got); i++) {
        for (size_t k = 0; k < got[i].n; k++)
            ck_quick(got[i].p[k] == (i & 0xff));
    }
    cm_arena_clear(&a);
    ck_assert_ptr_null(a.blocks);
    cm_arena_clear(&a);
}
END_TEST

START_TEST(small_and_large_ones_share_no_fate)
{
    struct cm_arena a = {0};
    char *large = cm_arena_alloc(&a, 1 << 20), *first = cm_arena_alloc(&a, 16), *next;

    memset(large, 1, 1 << 20);
    cm_arena_alloc(&a, 1 << 20);
    next = cm_arena_alloc(&a, 16);
    ck_assert_ptr_eq(next, first + 16); /* a large block does not end the small one */
    cm_arena_clear(&a);
}
END_TEST

START_TEST(new_memory_is_zero)
{
    struct cm_arena a = {0};

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            uint64_t *v = CM_ARENA_NEW(&a, uint64_t);
            uint32_t *many = CM_ARENA_ARRAY(&a, uint32_t, 40);

            ck_assert_uint_eq(*v, 0);
            for (int k = 0; k < 40; k++)
                ck_quick(many[k] == 0);
            memset(v, 0xff, sizeof(*v));
            memset(many, 0xff, 40 * sizeof(*many));
        }
        cm_arena_clear(&a);
    }
}
END_TEST

START_TEST(copies_and_prints)
{
    struct cm_arena a = {0};
    struct cm_str s = cm_arena_str(&a, CM_S("a\0b"));

    ck_str(s, "a\0b");
    ck_assert_int_eq(s.p[s.n], '\0');
    ck_assert_str_eq(cm_arena_z(&a, CM_S("hello")), "hello");
    ck_assert_str_eq(cm_arena_z(&a, CM_STR_NONE), "");
    ck_assert_str_eq(cm_arena_join(&a, CM_S("one"), CM_S(" two")).p, "one two");
    ck_assert_uint_eq(cm_arena_join(&a, CM_STR_NONE, CM_S("two")).n, 3);
    ck_assert_str_eq(cm_arena_join(&a, CM_STR_NONE, CM_STR_NONE).p, "");
    for (int n = 250; n < 262; n++) { /* around the size of the first try */
        s = cm_arena_printf(&a, "%0*d", n, 7);
        ck_assert_uint_eq(s.n, (size_t)n);
        ck_assert_int_eq(s.p[n - 1], '7');
        ck_assert_int_eq(s.p[n], '\0');
    }
    cm_arena_clear(&a);
}
END_TEST

static struct {
    struct cm_arena *arena;
    char order[8];
    size_t n;
} calls;

static void note(void *arg)
{
    calls.order[calls.n++] = *(char *)arg; /* the argument lives in the arena: not freed yet */
}

static void note_and_defer(void *arg)
{
    note(arg);
    cm_arena_defer(calls.arena, note, cm_arena_z(calls.arena, CM_S("x")));
}

START_TEST(deferred_calls_run_newest_first_before_memory_goes)
{
    struct cm_arena a = {0};

    calls.arena = &a;
    cm_arena_defer(&a, note, cm_arena_z(&a, CM_S("1")));
    cm_arena_defer(&a, note_and_defer, cm_arena_z(&a, CM_S("2")));
    cm_arena_defer(&a, note, cm_arena_z(&a, CM_S("3")));
    cm_arena_clear(&a);
    ck_assert_str_eq(calls.order, "32x1");
    cm_arena_clear(&a);
    ck_assert_uint_eq(calls.n, 4);
}
END_TEST

#ifndef UNIT_ASAN
START_TEST(a_little_used_one_costs_a_kilobyte)
{
    size_t before = mallinfo2().uordblks;
    struct cm_arena a = {0};

    cm_arena_alloc(&a, 500);
    cm_arena_alloc(&a, 400);
    ck_assert_uint_le(mallinfo2().uordblks - before, 1024);
    cm_arena_alloc(&a, 100);
    ck_assert_uint_le(mallinfo2().uordblks - before, 3 * 1024 + 64);
    for (int i = 0; i < 20000; i++) { /* 3.2 MB in blocks of at most 64 KiB */
        size_t used = mallinfo2().uordblks;

        cm_arena_alloc(&a, 160);
        ck_quick(mallinfo2().uordblks - used <= 65536);
    }
    ck_assert_uint_le(mallinfo2().uordblks - before, 3300000 + 65536);
    cm_arena_clear(&a);
    ck_assert_uint_le(mallinfo2().uordblks,
                      before + 4096); /* malloc keeps a few small ones at hand */
}
END_TEST
#endif

START_TEST(overflowing_array_ends_the_process)
{
    struct cm_arena a = {0};

    CM_ARENA_ARRAY(&a, uint64_t, SIZE_MAX / 8 + 2); /* 8 bytes, if it wrapped */
}
END_TEST

Suite *suite_arena(void)
{
    Suite *s = suite_create("arena");
    TCase *t = tcase_create("arena");

    tcase_add_test(t, memory_is_aligned_separate_and_keeps_its_bytes);
    tcase_add_test(t, small_and_large_ones_share_no_fate);
    tcase_add_test(t, new_memory_is_zero);
    tcase_add_test(t, copies_and_prints);
    tcase_add_test(t, deferred_calls_run_newest_first_before_memory_goes);
#ifndef UNIT_ASAN
    tcase_add_test(t, a_little_used_one_costs_a_kilobyte);
#endif
    tcase_add_test_raise_signal(t, overflowing_array_ends_the_process, SIGABRT);
    suite_add_tcase(s, t);
    return s;
}
