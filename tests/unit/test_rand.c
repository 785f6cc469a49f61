/* Randomness and identifiers. */
#include "chatmux/base/rand.h"
#include "unit.h"

#include "chatmux/base/map.h"

#include <ctype.h>
#include <stdlib.h>

START_TEST(kernel_bytes_fill_everything)
{
    unsigned char a[1000] = {0}, seen[256] = {0};
    int different = 0;

    cm_rand_bytes(a, sizeof(a));
    for (size_t i = 0; i < sizeof(a); i++)
        seen[a[i]] = 1;
    for (int i = 0; i < 256; i++)
        different += seen[i];
    ck_assert_int_gt(different, 200);
    for (size_t i = 0; i + 16 <= sizeof(a); i += 16)
        ck_assert_mem_ne(a + i, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
}
END_TEST

/* xoshiro256** as published: the first values from the state 1, 2, 3, 4. */
START_TEST(generator_is_the_published_one)
{
    struct cm_rng r = {{1, 2, 3, 4}};

    ck_assert_uint_eq(cm_rng_next(&r), 11520);
    ck_assert_uint_eq(cm_rng_next(&r), 0);
    ck_assert_uint_eq(cm_rng_next(&r), 1509978240);
    ck_assert_uint_eq(cm_rng_next(&r), 1215971899390074240);
}
END_TEST

START_TEST(seed_decides_and_below_is_even)
{
    struct cm_rng a, b, c;
    int count[10] = {0};

    cm_rng_seed(&a, 1);
    cm_rng_seed(&b, 1);
    cm_rng_seed(&c, 2);
    ck_assert_uint_eq(cm_rng_next(&a), cm_rng_next(&b));
    ck_assert_uint_ne(cm_rng_next(&a), cm_rng_next(&c));
    for (int i = 0; i < 100000; i++) {
        uint64_t v = cm_rng_below(&a, 10);

        ck_quick(v < 10);
        count[v]++;
    }
    for (int i = 0; i < 10; i++)
        ck_assert(count[i] > 9000 && count[i] < 11000);
    ck_assert_uint_eq(cm_rng_below(&a, 1), 0);
}
END_TEST

/* Just above 2^63 a plain remainder would give the lower half twice as often. */
START_TEST(below_is_even_for_large_bounds)
{
    const uint64_t n = (1ULL << 63) + (1ULL << 62);
    struct cm_rng r;
    int low = 0;

    cm_rng_seed(&r, 3);
    for (int i = 0; i < 30000; i++)
        low += cm_rng_below(&r, n) < (1ULL << 62);
    ck_assert(low > 9500 && low < 10500);
}
END_TEST

START_TEST(identifiers_are_unique_and_in_order)
{
    enum { N = 400000 }; /* so many steps in one millisecond carry into the upper bits */
    static char ids[N][CM_ID_CAP];
    struct cm_map seen = {0};

    for (int i = 0; i < N; i++) {
        cm_id_make(ids[i], "req_", 1769847300123 + i / (N - 1000));
        ck_quick(strlen(ids[i]) == 30);
        ck_quick(cm_map_put(&seen, cm_str_of(ids[i]), ids[i]) == NULL);
        ck_quick(i == 0 || strcmp(ids[i - 1], ids[i]) < 0);
    }
    cm_map_clear(&seen);
}
END_TEST

START_TEST(identifier_shows_its_time)
{
    char a[CM_ID_CAP], b[CM_ID_CAP];

    cm_id_make(a, "", 1469918176385);
    ck_assert_int_eq(strncmp(a, "01ARYZ6S41", 10), 0); /* the example of the ULID specification */
    ck_assert_uint_eq(strspn(a, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"), 26);
    cm_id_make(b, "thirteen-char", 1469918176385);
    ck_assert_int_eq(strncmp(b, "thirteen-char01ARYZ6S41", 23), 0);
    for (int later = 1;; later++) { /* each millisecond draws anew: now and then lower */
        ck_assert_int_lt(later, 100);
        cm_id_make(a, "", 1469918176385 + later);
        cm_id_make(b, "", 1469918176386 + later);
        if (strcmp(a + 10, b + 10) > 0)
            break;
    }
    cm_id_make(a, "", 1469918176384); /* the clock went back: still unique */
    cm_id_make(b, "", 1469918176385);
    ck_assert_str_ne(a + 10, b + 10);
}
END_TEST

START_TEST(uuids_have_their_form)
{
    char a[CM_UUID_CAP], b[CM_UUID_CAP];

    for (int round = 0; round < 100; round++) {
        cm_uuid4(a);
        cm_uuid4(b);
        ck_assert_str_ne(a, b);
        ck_assert_uint_eq(strlen(a), 36);
        for (int i = 0; i < 36; i++) {
            if (i == 8 || i == 13 || i == 18 || i == 23)
                ck_assert_int_eq(a[i], '-');
            else
                ck_assert(isdigit((unsigned char)a[i]) || (a[i] >= 'a' && a[i] <= 'f'));
        }
        ck_assert_int_eq(a[14], '4');
        ck_assert_ptr_nonnull(strchr("89ab", a[19]));
    }
}
END_TEST

Suite *suite_rand(void)
{
    Suite *s = suite_create("rand");
    TCase *t = tcase_create("rand");

    tcase_add_test(t, kernel_bytes_fill_everything);
    tcase_add_test(t, generator_is_the_published_one);
    tcase_add_test(t, seed_decides_and_below_is_even);
    tcase_add_test(t, below_is_even_for_large_bounds);
    tcase_add_test(t, identifiers_are_unique_and_in_order);
    tcase_add_test(t, identifier_shows_its_time);
    tcase_add_test(t, uuids_have_their_form);
    suite_add_tcase(s, t);
    return s;
}
