/* Hash map. */
#include "chatmux/base/map.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* A model that cannot be wrong: one value per possible key. */
START_TEST(agrees_with_a_model_over_100000_operations)
{
    enum { KEYS = 700 };
    static char names[KEYS][8];
    static int numbers[1000];
    void *model[KEYS] = {0};
    struct cm_map m = {0};
    struct cm_rng rng;
    size_t n = 0;

    cm_rng_seed(&rng, 2);
    for (int i = 0; i < KEYS; i++)
        snprintf(names[i], sizeof(names[i]), "k%d", i);
    for (int op = 0; op < 100000; op++) {
        size_t i = cm_rng_below(&rng, KEYS);
        struct cm_str key = cm_str_of(names[i]);
        void *v = &numbers[cm_rng_below(&rng, CM_COUNT(numbers))];
        bool shrink = op / 10000 % 2 == 1; /* fill up and empty by turns */
        uint64_t dice = cm_rng_below(&rng, 4);

        if (dice == 0) {
            ck_quick(cm_map_put(&m, key, v) == model[i]);
            n += model[i] == NULL;
            model[i] = v;
        } else if (dice == 1 || (dice == 2 && shrink)) {
            ck_quick(cm_map_del(&m, key) == model[i]);
            n -= model[i] != NULL;
            model[i] = NULL;
        } else {
            ck_quick(cm_map_get(&m, key) == model[i]);
        }
        ck_quick(m.n == n);
    }
    for (int i = 0; i < KEYS; i++)
        ck_assert_ptr_eq(cm_map_get(&m, cm_str_of(names[i])), model[i]);
    cm_map_clear(&m);
    ck_assert_ptr_null(cm_map_get(&m, CM_S("k1")));
}
END_TEST

START_TEST(walks_over_every_entry_once)
{
    struct cm_map m = {0};
    char names[100][4];
    bool seen[100] = {0};
    size_t pos = 0, n = 0;
    const struct cm_map_slot *s;

    ck_assert_ptr_null(cm_map_next(&m, &pos));
    for (int i = 0; i < 100; i++) {
        snprintf(names[i], sizeof(names[i]), "%d", i);
        cm_map_put(&m, cm_str_of(names[i]), &seen[i]);
    }
    for (pos = 0; (s = cm_map_next(&m, &pos)); n++) {
        bool *it = s->value;

        ck_assert(!*it);
        ck_assert(cm_str_eq(s->key, cm_str_of(names[it - seen])));
        *it = true;
    }
    ck_assert_uint_eq(n, 100);
    cm_map_clear(&m);
}
END_TEST

START_TEST(keys_are_bytes)
{
    struct cm_map m = {0};
    int v[4];

    ck_assert_ptr_null(cm_map_put(&m, CM_STR_NONE, &v[0]));
    ck_assert_ptr_null(cm_map_put(&m, CM_S("a"), &v[1]));
    ck_assert_ptr_null(cm_map_put(&m, CM_S("a\0"), &v[2]));
    ck_assert_ptr_eq(cm_map_put(&m, CM_S("a"), &v[3]), &v[1]);
    ck_assert_uint_eq(m.n, 3);
    ck_assert_ptr_eq(cm_map_get(&m, CM_S("")), &v[0]);
    ck_assert_ptr_eq(cm_map_get(&m, CM_S("a")), &v[3]);
    ck_assert_ptr_eq(cm_map_get(&m, CM_S("a\0")), &v[2]);
    ck_assert_ptr_eq(cm_map_del(&m, CM_S("")), &v[0]);
    ck_assert_ptr_null(cm_map_del(&m, CM_S("")));
    cm_map_clear(&m);
}
END_TEST

START_TEST(putting_again_replaces_the_key_slice)
{
    struct cm_map m = {0};
    char a[] = "key", b[] = "key";
    size_t pos = 0;

    cm_map_put(&m, cm_str_of(a), &m);
    cm_map_put(&m, cm_str_of(b), &m);
    memset(a, 'x', 3); /* the first owner is gone */
    ck_assert_ptr_eq(cm_map_get(&m, CM_S("key")), &m);
    ck_assert_ptr_eq(cm_map_next(&m, &pos)->key.p, b);
    cm_map_clear(&m);
}
END_TEST

START_TEST(every_bit_of_a_key_matters_to_the_hash)
{
    char bytes[40] = {0};

    for (size_t n = 1; n <= sizeof(bytes); n++) {
        uint64_t before = cm_hash(cm_str(bytes, n));

        ck_assert_uint_ne(before, cm_hash(cm_str(bytes, n - 1)));
        for (size_t bit = 0; bit < n * 8; bit++) {
            uint64_t changed;

            bytes[bit / 8] = (char)(1 << bit % 8);
            changed = before ^ cm_hash(cm_str(bytes, n));
            bytes[bit / 8] = 0;
            ck_assert_int_gt(__builtin_popcountll(changed),
                             8); /* 32 expected; 8 has odds of 1 : 10^9 */
            ck_assert_int_lt(__builtin_popcountll(changed), 56);
        }
    }
}
END_TEST

START_TEST(hash_differs_from_run_to_run)
{
    uint64_t hashes[2];

    /* Both children make their key after the fork, as two runs would. */
    for (int i = 0; i < 2; i++) {
        int ends[2];
        pid_t child;

        ck_assert_int_eq(pipe(ends), 0);
        child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            uint64_t hash = cm_hash(CM_S("model"));

            _exit(write(ends[1], &hash, sizeof(hash)) != sizeof(hash));
        }
        ck_assert_int_eq(read(ends[0], &hashes[i], sizeof(hashes[i])), sizeof(hashes[i]));
        waitpid(child, NULL, 0);
        close(ends[0]);
        close(ends[1]);
    }
    ck_assert_uint_ne(hashes[0], hashes[1]);
}
END_TEST

Suite *suite_map(void)
{
    Suite *s = suite_create("map");
    TCase *t = tcase_create("map");

    tcase_add_test(t, agrees_with_a_model_over_100000_operations);
    tcase_add_test(t, walks_over_every_entry_once);
    tcase_add_test(t, keys_are_bytes);
    tcase_add_test(t, putting_again_replaces_the_key_slice);
    tcase_add_test(t, every_bit_of_a_key_matters_to_the_hash);
    tcase_add_test(t, hash_differs_from_run_to_run);
    suite_add_tcase(s, t);
    return s;
}
