/* Secrets: their pages are in no core dump, and nothing is left of them when they are given back. */
#include "unit.h"

#include "chatmux/base/secret.h"

#include "chatmux/base/arena.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* Whether the page is kept out of core dumps: "dd" among the flags of its mapping. Sanitizers have their own heap and do not ask. */
__attribute__((unused)) static bool hidden(const void *p)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    bool inside = false, result = false;

    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to;
        char rights[5];

        if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3)
            inside = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            result = strstr(line, " dd") != NULL;
    }
    fclose(f);
    return result;
}

START_TEST(blocks_are_zero_aligned_and_their_own)
{
    enum { N = 3000 };
    static unsigned char *blocks[N];
    static size_t sizes[N];
    struct cm_rng rng;

    cm_rng_seed(&rng, 11);
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < N; i++) {
            sizes[i] = cm_rng_below(&rng, i % 100 == 0 ? 200000 : 2000);
            blocks[i] = cm_secret_alloc(sizes[i]);
            ck_quick((uintptr_t)blocks[i] % _Alignof(max_align_t) == 0);
            for (size_t k = 0; k < sizes[i]; k++)
                ck_quick(blocks[i][k] == 0);
            memset(blocks[i], (int)(i % 255) + 1, sizes[i]);
        }
        for (size_t i = 0; i < N; i++) {
            for (size_t k = 0; k < sizes[i]; k++)
                ck_quick(blocks[i][k] == i % 255 + 1);
            cm_secret_free(blocks[i]);
        }
    }
    cm_secret_free(NULL);
}
END_TEST

#ifndef UNIT_ASAN
START_TEST(pages_are_in_no_core_dump)
{
    static const size_t sizes[] = {1, 48, 1000, 60000, 65536, 1000000};
    char *heap = malloc(100);

    ck_assert(!hidden(heap)); /* the probe can say no */
    free(heap);
    for (size_t i = 0; i < CM_COUNT(sizes); i++) {
        char *p = cm_secret_alloc(sizes[i]);

        ck_assert_msg(hidden(p), "%zu bytes", sizes[i]);
        ck_assert(hidden(p + sizes[i] - 1));
        cm_secret_free(p);
    }
}
END_TEST

START_TEST(nothing_is_left_of_a_block_given_back)
{
    struct cm_str s = cm_secret_dup(CM_S("sk-very-secret-4711"));
    const char *at = s.p; /* its page stays mapped */

    ck_str(s, "sk-very-secret-4711");
    ck_assert_int_eq(s.p[s.n], '\0');
    cm_secret_drop(s);
    for (size_t i = 0; i < s.n; i++)
        ck_assert_int_eq(at[i], 0);
    cm_secret_drop(CM_STR_NONE);
}
END_TEST

/* Bytes of this process in memory. */
static size_t resident(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long size, pages;

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%lu %lu", &size, &pages), 2);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Of a burst of large blocks the pages go back once nobody has needed them between two calls; what is taken again is zero. */
START_TEST(memory_of_a_burst_goes_back)
{
    enum { N = 400, BYTES = 30000 };
    static unsigned char *blocks[N];
    size_t before = resident(), full;

    for (size_t i = 0; i < N; i++) {
        blocks[i] = cm_secret_alloc(BYTES);
        memset(blocks[i], 'x', BYTES);
    }
    full = resident();
    ck_assert_uint_gt(full, before + (size_t)N * BYTES / 2);
    for (size_t i = 0; i < N; i++)
        cm_secret_free(blocks[i]);
    cm_secret_trim(); /* they were in use since the one before */
    ck_assert_uint_gt(resident(), before + (size_t)N * BYTES / 2);
    blocks[0] = cm_secret_alloc(BYTES);
    memset(blocks[0], 'x', BYTES);
    cm_secret_trim();
    ck_assert_uint_lt(resident(), before + (size_t)N * BYTES / 4);
    for (size_t i = 0; i < BYTES; i++)
        ck_assert_uint_eq(blocks[0][i], 'x');
    for (size_t i = 1; i < N; i++) {
        blocks[i] = cm_secret_alloc(BYTES);
        for (size_t k = 0; k < BYTES; k++)
            if (blocks[i][k])
                ck_abort_msg("block %zu is not zero at %zu", i, k);
        blocks[i][0] = 1;
    }
    for (size_t i = 0; i < N; i++)
        cm_secret_free(blocks[i]);
    cm_secret_trim();
}
END_TEST

START_TEST(arena_of_secrets_keeps_to_it)
{
    struct cm_arena a = {.secret = true};
    struct cm_str small, large;

    for (int round = 0; round < 2; round++) { /* also after it was cleared */
        small = cm_arena_printf(&a, "Bearer %s", "sk-very-secret-4711");
        large = cm_arena_str(&a, cm_str(cm_arena_zalloc(&a, 100000), 100000));
        ck_assert(hidden(small.p));
        ck_assert(hidden(large.p));
        cm_arena_clear(&a);
        ck_assert_int_eq(small.p[7], 0);
    }
}
END_TEST

START_TEST(environment_is_hidden)
{
    const char *value = getenv("PATH");

    ck_assert_ptr_nonnull(value);
    ck_assert(!hidden(value));
    cm_secret_hide_environment();
    ck_assert(hidden(value));
}
END_TEST
#endif

START_TEST(cores_are_forbidden)
{
    struct rlimit limit = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};

    (void)setrlimit(RLIMIT_CORE, &limit);
    cm_secret_forbid_cores();
    ck_assert_int_eq(getrlimit(RLIMIT_CORE, &limit), 0);
    ck_assert_uint_eq(limit.rlim_cur, limit.rlim_max > 0 ? 1 : 0);
    limit.rlim_cur = limit.rlim_max = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_CORE, &limit), 0);
    cm_secret_forbid_cores(); /* nothing to gain, and no harm */
    ck_assert_int_eq(getrlimit(RLIMIT_CORE, &limit), 0);
    ck_assert_uint_eq(limit.rlim_cur, 0);
}
END_TEST

Suite *suite_secret(void)
{
    Suite *s = suite_create("secret");
    TCase *tc = tcase_create("secret");

    tcase_add_test(tc, blocks_are_zero_aligned_and_their_own);
#ifndef UNIT_ASAN
    tcase_add_test(tc, pages_are_in_no_core_dump);
    tcase_add_test(tc, nothing_is_left_of_a_block_given_back);
    tcase_add_test(tc, memory_of_a_burst_goes_back);
    tcase_add_test(tc, arena_of_secrets_keeps_to_it);
    tcase_add_test(tc, environment_is_hidden);
#endif
    tcase_add_test(tc, cores_are_forbidden);
    suite_add_tcase(s, tc);
    return s;
}
