/* provider/deepseek_hash, deepseek_proof: every vector of the hash, of the rounds and of the puzzles. */
#include "fixture.h"
#include "provider/deepseek_int.h"
#include "unit.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/enc.h"

#include <stdlib.h>

#define NOW_MS INT64_C(1771229500000)
#define MAX_TRIES 10000000

static yyjson_doc *vectors(void)
{
    char *text = fixture("deepseek/pow.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_event, NULL);

    ck_assert_ptr_nonnull(doc);
    free(text);
    return doc;
}

static void read_lanes(yyjson_val *list, uint64_t lanes[25])
{
    ck_assert_uint_eq(yyjson_arr_size(list), 25);
    for (size_t i = 0; i < 25; i++)
        lanes[i] = strtoull(yyjson_get_str(yyjson_arr_get(list, i)), NULL, 16);
}

static void expect_lanes(const uint64_t lanes[25], yyjson_val *list)
{
    uint64_t want[25];

    read_lanes(list, want);
    for (size_t i = 0; i < 25; i++)
        ck_assert_msg(lanes[i] == want[i], "lane %zu", i);
}

START_TEST(rounds_of_the_permutation)
{
    yyjson_doc *doc = vectors();
    yyjson_val *v = cm_json_get(yyjson_doc_get_root(doc), "permutation");
    uint64_t zero[25] = {0}, whole[25] = {0}, counted[25];

    for (size_t i = 0; i < 25; i++)
        counted[i] = i;
    deepseek_permute(zero, 1);
    expect_lanes(zero, cm_json_get(v, "zero_state_rounds_1_to_23"));
    deepseek_permute(whole, 0);
    expect_lanes(whole, cm_json_get(v, "zero_state_rounds_0_to_23_standard_keccak_f"));
    deepseek_permute(counted, 1);
    expect_lanes(counted, cm_json_get(v, "lane_i_equals_i_rounds_1_to_23"));
    yyjson_doc_free(doc);
}
END_TEST

/* "3a985d…" as bytes; the same function backwards would hide a mistake in cm_hex(). */
static void read_hex(struct cm_buf *out, struct cm_str hex)
{
    for (size_t i = 0; i + 1 < hex.n; i += 2) {
        const char digits[] = {hex.p[i], hex.p[i + 1], '\0'};

        cm_buf_put(out, (char)strtoul(digits, NULL, 16));
    }
}

START_TEST(every_hash)
{
    yyjson_doc *doc = vectors();
    yyjson_val *v, *list = cm_json_get(yyjson_doc_get_root(doc), "raw_hash");
    size_t i, max;

    ck_assert_uint_ge(yyjson_arr_size(list), 20);
    yyjson_arr_foreach(list, i, max, v)
    {
        unsigned char got[DEEPSEEK_HASH_BYTES];
        struct cm_buf message = {0}, hex = {0};

        if (cm_json_get(v, "input_hex")) {
            read_hex(&message, cm_json_str(cm_json_get(v, "input_hex")));
        } else { /* "1000 times the letter a" */
            for (int64_t n = yyjson_get_sint(cm_json_get(v, "bytes")); n > 0; n--)
                cm_buf_put(&message, 'a');
        }
        ck_assert_int_eq((int64_t)message.n, yyjson_get_sint(cm_json_get(v, "bytes")));
        deepseek_hash(cm_buf_str(&message), got);
        cm_hex(&hex, cm_str((const char *)got, sizeof(got)));
        ck_assert_msg(cm_str_eq(cm_buf_str(&hex), cm_json_str(cm_json_get(v, "hash"))), "%s",
                      yyjson_get_str(cm_json_get(v, "name")));
        cm_buf_clear(&message);
        cm_buf_clear(&hex);
    }
    yyjson_doc_free(doc);
}
END_TEST

START_TEST(every_puzzle)
{
    yyjson_doc *doc = vectors();
    yyjson_val *v, *list = cm_json_get(yyjson_doc_get_root(doc), "challenges");
    struct cm_arena arena = {0};
    size_t i, max;

    ck_assert_uint_ge(yyjson_arr_size(list), 23);
    yyjson_arr_foreach(list, i, max, v)
    {
        const char *name = yyjson_get_str(cm_json_get(v, "name"));
        yyjson_val *answer = cm_json_opt(v, "answer");
        struct deepseek_challenge c;
        struct deepseek_search *s;
        struct cm_err err = {0};

        ck_assert_msg(deepseek_challenge_read(&arena, cm_json_get(v, "challenge"), NOW_MS,
                                              MAX_TRIES, &c, &err) == 0,
                      "%s: %s", name, err.msg);
        s = deepseek_search_new(&c);
        ck_assert_msg(cm_str_eq(cm_buf_str(&s->prefix), cm_json_str(cm_json_get(v, "prefix"))),
                      "%s", name);
        deepseek_search_work(s, NULL);
        ck_assert_msg(s->answer == (answer ? yyjson_get_sint(answer) : -1), "%s: %lld", name,
                      (long long)s->answer);
        if (answer)
            ck_assert_msg(cm_str_eq(deepseek_proof(&arena, &c, s->answer),
                                    cm_json_str(cm_json_get(v, "x_ds_pow_response"))),
                          "%s", name);
        deepseek_search_free(s);
    }
    cm_arena_clear(&arena);
    yyjson_doc_free(doc);
}
END_TEST

/* The wide search looks at several numbers at once: each place, each number of digits, and the edges of the limit. */
START_TEST(small_answers_and_limits)
{
    static const struct cm_str prefix = CM_S_INIT("0123456789abcdef0123_1800000000000_");
    unsigned char want[DEEPSEEK_HASH_BYTES];

    for (int64_t n = 0; n < 1300; n += n < 120 ? 1 : 59) {
        struct cm_buf text = {0};

        cm_buf_append(&text, prefix);
        cm_buf_put_u64(&text, (uint64_t)n);
        deepseek_hash(cm_buf_str(&text), want);
        cm_buf_clear(&text);
        ck_quick(deepseek_solve(prefix, want, n + 1, NULL) == n);
        ck_quick(deepseek_solve(prefix, want, n, NULL) == -1);
        ck_quick(deepseek_solve(prefix, want, 0, NULL) == -1);
    }
}
END_TEST

START_TEST(every_length_of_the_prefix)
{
    char text[300];

    memset(text, 's', sizeof(text));
    for (size_t n = 0; n < sizeof(text); n++) {
        const struct cm_str prefix = cm_str(text, n);
        unsigned char want[DEEPSEEK_HASH_BYTES];
        struct cm_buf whole = {0};

        cm_buf_append(&whole, prefix);
        cm_buf_append(&whole, CM_S("107"));
        deepseek_hash(cm_buf_str(&whole), want);
        cm_buf_clear(&whole);
        ck_quick(deepseek_solve(prefix, want, 200, NULL) == 107);
    }
}
END_TEST

START_TEST(a_search_can_be_stopped)
{
    static const unsigned char nothing[DEEPSEEK_HASH_BYTES];
    atomic_bool cancelled = true;
    const uint64_t began_us = cm_mono_us();

    ck_assert_int_eq(deepseek_solve(CM_S("x_1_"), nothing, INT64_MAX / 2, &cancelled), -1);
    ck_assert_uint_lt(cm_mono_us() - began_us, 100000);
}
END_TEST

#define GOOD                                                                                       \
    "\"challenge\":\"94e422f2ac55677000b92e561bb1a10da1a7fad54af93fa4706e4c1fa06eba5c\","          \
    "\"salt\":\"9fa6d396e71f769c77ee\",\"signature\":\"s\",\"target_path\":\"/p\","
#define KIND "\"algorithm\":\"DeepSeekHashV1\","

START_TEST(challenges_as_they_may_come)
{
    static const struct {
        const char *json;
        int result; /* of deepseek_challenge_read() */
        int64_t tries, lives_ms;
    } cases[] = {
        {"{" KIND GOOD "\"difficulty\":144000,\"expire_at\":1771229508176,\"expire_after\":300000}",
         0, 144000, 285000},
        {"{" KIND GOOD "\"difficulty\":1000.9,\"expire_at\":1771229530000}", 0, 1000, 15000},
        {"{" KIND GOOD "\"difficulty\":1000,\"expire_at\":1771229400000}", 0, 1000, 0},
        {"{" KIND GOOD "\"difficulty\":10000001,\"expire_at\":1}", -1, 0, 0},
        {"{" KIND GOOD "\"difficulty\":-5,\"expire_at\":1}", 1, 0, 0},
        {"{" KIND GOOD "\"difficulty\":\"5\",\"expire_at\":1}", 1, 0, 0},
        {"{" KIND GOOD "\"difficulty\":5}", 1, 0, 0},
        {"{" KIND "\"challenge\":\"94e4\",\"salt\":\"s\",\"difficulty\":5,\"expire_at\":1}", 1, 0,
         0},
        {"{\"algorithm\":\"DeepSeekHashV2\"," GOOD "\"difficulty\":5,\"expire_at\":1}", -1, 0, 0},
        {"{" GOOD "\"difficulty\":5,\"expire_at\":1}", 1, 0, 0},
        {"{}", 1, 0, 0},
        {"null", 1, 0, 0},
    };
    struct cm_arena arena = {0};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        yyjson_doc *doc = cm_json_parse(cm_str_of(cases[i].json), &cm_json_limits_event, NULL);
        struct deepseek_challenge c;
        struct cm_err err = {0};
        const int result =
            deepseek_challenge_read(&arena, yyjson_doc_get_root(doc), NOW_MS, MAX_TRIES, &c, &err);

        ck_assert_msg(result == cases[i].result, "%s: %d", cases[i].json, result);
        ck_assert_int_eq(err.cls, result < 0 ? CM_ERR_UPSTREAM_DOWN : CM_ERR_NONE);
        if (result == 0) {
            ck_assert_int_eq(c.tries, cases[i].tries);
            ck_assert_int_eq(c.lives_ms, cases[i].lives_ms);
        }
        yyjson_doc_free(doc);
    }
    cm_arena_clear(&arena);
}
END_TEST

Suite *suite_deepseek_hash(void)
{
    Suite *s = suite_create("deepseek_hash");
    TCase *t = tcase_create("deepseek_hash");

    tcase_set_timeout(t, 60);
    tcase_add_test(t, rounds_of_the_permutation);
    tcase_add_test(t, every_hash);
    tcase_add_test(t, every_puzzle);
    tcase_add_test(t, small_answers_and_limits);
    tcase_add_test(t, every_length_of_the_prefix);
    tcase_add_test(t, a_search_can_be_stopped);
    tcase_add_test(t, challenges_as_they_may_come);
    suite_add_tcase(s, t);
    return s;
}
