/* Pool: round robin, what each error class does to a credential, and how it comes back. The clock is the test's. */
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/pool/pool.h"

static uint64_t now_ms;

static uint64_t mono_ms(void *arg)
{
    (void)arg;
    return now_ms;
}

static int64_t unix_ms(void *arg)
{
    (void)arg;
    return 1700000000000;
}

static const struct cm_clock test_clock = {.mono_ms = mono_ms, .unix_ms = unix_ms};

#define UP CM_S("up")
#define MODEL CM_S("m")
#define SECOND UINT64_C(1000)
#define MINUTE (60 * SECOND)

static const struct cm_str three[] = {CM_S_INIT("sk-1"), CM_S_INIT("sk-2"), CM_S_INIT("sk-3")};

static struct cm_pool *pool_of(size_t n)
{
    struct cm_pool *pool = cm_pool_new(&test_clock);
    struct cm_pool_provider p = {
        .name = UP, .secrets = three, .n_secrets = n, .cooldown_ms = 20000};

    now_ms = 5 * MINUTE;
    cm_pool_configure(pool, &p, 1);
    return pool;
}

static struct cm_lease *lease_one(struct cm_pool *pool, struct cm_err *err)
{
    memset(err, 0, sizeof(*err));
    return cm_pool_lease(pool, UP, MODEL, NULL, err);
}

static struct cm_err error_of(enum cm_err_class cls, int retry_after_s)
{
    struct cm_err err = {.cls = cls, .retry_after_s = retry_after_s};

    return err;
}

/* The only credential is tried, with that result. */
static void one_result(struct cm_pool *pool, enum cm_err_class cls, int retry_after_s)
{
    struct cm_err err, why = error_of(cls, retry_after_s);
    struct cm_lease *lease = lease_one(pool, &err);

    ck_assert_msg(lease != NULL, "%s", err.msg);
    cm_lease_give_back(lease, cls == CM_ERR_NONE ? NULL : &why);
}

static void expect_state(struct cm_pool *pool, enum cm_cred_state state)
{
    struct cm_pool_counts counts;

    cm_pool_count(pool, UP, &counts);
    ck_assert_uint_eq(counts.total, 1);
    ck_assert_msg(counts.state[state] == 1, "not %s", cm_cred_state_name(state));
}

/* Nobody can serve, and the message and the time say so. */
static void expect_none(struct cm_pool *pool, int retry_after_s, const char *words)
{
    struct cm_err err;

    ck_assert_ptr_null(lease_one(pool, &err));
    ck_assert_int_eq(err.cls, CM_ERR_NO_CREDENTIAL);
    ck_assert_int_eq(err.retry_after_s, retry_after_s);
    ck_assert_int_eq(cm_err_status(&err), retry_after_s ? 429 : 503);
    ck_assert_msg(strstr(err.msg, words) != NULL, "%s", err.msg);
}

static void expect_back(struct cm_pool *pool)
{
    expect_state(pool, CM_CRED_STATE_OK);
    one_result(pool, CM_ERR_NONE, 0);
}

/* ---- leases ---- */

START_TEST(the_least_recently_used_serves_next)
{
    static const char *const order[] = {"sk-1", "sk-2", "sk-3", "sk-1", "sk-2"};
    struct cm_pool *pool = pool_of(3);

    for (size_t i = 0; i < CM_COUNT(order); i++) {
        struct cm_err err;
        struct cm_lease *lease = lease_one(pool, &err);

        ck_assert(cm_str_eq(cm_lease_secret(lease), cm_str_of(order[i])));
        cm_lease_give_back(lease, NULL);
    }
    cm_pool_free(pool);
}
END_TEST

START_TEST(a_lease_tells_who_it_is)
{
    struct cm_pool *pool = pool_of(3);
    struct cm_err err;
    struct cm_lease *a = lease_one(pool, &err), *b = lease_one(pool, &err);

    ck_str(cm_lease_label(a), "up#1");
    ck_str(cm_lease_label(b), "up#2");
    ck_str(cm_lease_isolation(a), "");
    ck_assert_uint_ne(cm_lease_id(a), 0);
    ck_assert_uint_ne(cm_lease_id(a), cm_lease_id(b));
    cm_lease_give_back(a, NULL);
    cm_lease_give_back(b, NULL);
    cm_pool_free(pool);
}
END_TEST

START_TEST(nobody_is_tried_twice)
{
    struct cm_pool *pool = pool_of(3);
    struct cm_tried tried = {.n = 0};
    struct cm_err err = {0};

    for (int i = 0; i < 3; i++) {
        struct cm_lease *lease = cm_pool_lease(pool, UP, MODEL, &tried, &err);

        ck_assert_ptr_nonnull(lease);
        for (size_t k = 0; k < tried.n; k++)
            ck_assert_uint_ne(tried.ids[k], cm_lease_id(lease));
        tried.ids[tried.n++] = cm_lease_id(lease);
        cm_lease_give_back(lease, NULL);
    }
    ck_assert_ptr_null(cm_pool_lease(pool, UP, MODEL, &tried, &err));
    ck_assert_int_eq(err.cls, CM_ERR_NO_CREDENTIAL);
    ck_assert_int_eq(err.retry_after_s, 0); /* waiting does not help */
    ck_assert_int_eq(cm_err_status(&err), 503);
    ck_assert(strstr(err.msg, "3 tried"));
    cm_pool_free(pool);
}
END_TEST

START_TEST(a_busy_credential_waits)
{
    struct cm_pool *pool = cm_pool_new(&test_clock);
    struct cm_pool_provider p = {.name = UP, .secrets = three, .n_secrets = 1, .max_inflight = 2};
    struct cm_pool_counts counts;
    struct cm_lease *a, *b;
    struct cm_err err;

    cm_pool_configure(pool, &p, 1);
    a = lease_one(pool, &err);
    b = lease_one(pool, &err);
    ck_assert(a && b);
    cm_pool_count(pool, UP, &counts);
    ck_assert_uint_eq(counts.inflight, 2);
    expect_none(pool, 1, "1 busy");
    cm_lease_give_back(a, NULL);
    a = lease_one(pool, &err);
    ck_assert_ptr_nonnull(a);
    cm_lease_give_back(a, NULL);
    cm_lease_give_back(b, NULL);
    cm_pool_count(pool, UP, &counts);
    ck_assert_uint_eq(counts.inflight, 0);
    cm_pool_free(pool);
}
END_TEST

START_TEST(no_credential_says_what_to_do)
{
    struct cm_pool *pool = pool_of(0);
    struct cm_err err = {0};

    expect_none(pool, 0, "an operator must add one");
    ck_assert_ptr_null(cm_pool_lease(pool, CM_S("unheard-of"), MODEL, NULL, &err));
    ck_assert_int_eq(cm_err_status(&err), 503);
    cm_pool_free(pool);
}
END_TEST

/* ---- what each class does ---- */

static const struct {
    enum cm_err_class cls;
    int told_s;
    enum cm_cred_state state;
    uint64_t for_ms; /* until it is back; 0 = it waits for an operator or did not change */
} verdicts[] = {
    {CM_ERR_BAD_REQUEST, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_CONTEXT_LENGTH, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_CONTENT_FILTER, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_INVALID_CREDENTIAL, 0, CM_CRED_STATE_DISABLED, 0},
    {CM_ERR_EXPIRED, 0, CM_CRED_STATE_NEEDS_LOGIN, 0},
    {CM_ERR_VERIFICATION_REQUIRED, 0, CM_CRED_STATE_VERIFY, 0},
    {CM_ERR_RATE_LIMITED, 0, CM_CRED_STATE_COOLING, 20 * SECOND},
    {CM_ERR_RATE_LIMITED, 7, CM_CRED_STATE_COOLING, 7 * SECOND},
    {CM_ERR_QUOTA_EXHAUSTED, 0, CM_CRED_STATE_EXHAUSTED, 60 * MINUTE},
    {CM_ERR_QUOTA_EXHAUSTED, 90, CM_CRED_STATE_EXHAUSTED, 90 * SECOND},
    {CM_ERR_OVERLOADED, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_UPSTREAM_DOWN, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_CUT, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_TIMEOUT, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_NONE, 0, CM_CRED_STATE_OK, 0},
};

START_TEST(a_class_decides)
{
    struct cm_pool *pool = pool_of(1);

    one_result(pool, verdicts[_i].cls, verdicts[_i].told_s);
    expect_state(pool, verdicts[_i].state);
    if (verdicts[_i].for_ms) {
        expect_none(pool, (int)(verdicts[_i].for_ms / SECOND), "1 limited");
        now_ms += verdicts[_i].for_ms - 1;
        expect_none(pool, 1, "1 limited");
        now_ms += 1;
        expect_back(pool);
    } else if (verdicts[_i].state != CM_CRED_STATE_OK) {
        now_ms += 30 * 24 * 60 * MINUTE;
        expect_none(pool, 0, "1 waiting for an operator");
    } else {
        expect_back(pool);
    }
    cm_pool_free(pool);
}
END_TEST

START_TEST(without_a_default_a_limit_cools_for_a_minute)
{
    struct cm_pool *pool = cm_pool_new(&test_clock);
    struct cm_pool_provider p = {.name = UP, .secrets = three, .n_secrets = 1};

    cm_pool_configure(pool, &p, 1);
    one_result(pool, CM_ERR_RATE_LIMITED, 0);
    expect_none(pool, 60, "1 limited");
    cm_pool_free(pool);
}
END_TEST

START_TEST(a_cooled_one_leaves_the_others)
{
    struct cm_pool *pool = pool_of(3);
    struct cm_err err;

    one_result(pool, CM_ERR_RATE_LIMITED, 30);      /* sk-1 */
    one_result(pool, CM_ERR_INVALID_CREDENTIAL, 0); /* sk-2 */
    for (int i = 0; i < 3; i++) {
        struct cm_lease *lease = lease_one(pool, &err);

        ck_str(cm_lease_secret(lease), "sk-3");
        cm_lease_give_back(lease, NULL);
    }
    one_result(pool, CM_ERR_RATE_LIMITED, 10); /* sk-3 */
    expect_none(pool, 10,
                "2 limited, 0 busy, 0 tried for this request, 1 waiting"); /* the soonest */
    cm_pool_free(pool);
}
END_TEST

/* Attempts that were out together come back with different news. */
START_TEST(the_worst_of_several_news_counts)
{
    static const struct {
        enum cm_err_class first, second;
        int first_s, second_s;
        enum cm_cred_state state;
        int back_s; /* 0 = not by itself */
    } cases[] = {
        {CM_ERR_INVALID_CREDENTIAL, CM_ERR_RATE_LIMITED, 0, 5, CM_CRED_STATE_DISABLED, 0},
        {CM_ERR_RATE_LIMITED, CM_ERR_INVALID_CREDENTIAL, 5, 0, CM_CRED_STATE_DISABLED, 0},
        {CM_ERR_VERIFICATION_REQUIRED, CM_ERR_QUOTA_EXHAUSTED, 0, 0, CM_CRED_STATE_VERIFY, 0},
        {CM_ERR_QUOTA_EXHAUSTED, CM_ERR_RATE_LIMITED, 900, 5, CM_CRED_STATE_EXHAUSTED, 900},
        {CM_ERR_RATE_LIMITED, CM_ERR_QUOTA_EXHAUSTED, 5, 900, CM_CRED_STATE_EXHAUSTED, 900},
        {CM_ERR_RATE_LIMITED, CM_ERR_RATE_LIMITED, 30, 5, CM_CRED_STATE_COOLING, 30},
        {CM_ERR_RATE_LIMITED, CM_ERR_RATE_LIMITED, 5, 30, CM_CRED_STATE_COOLING, 30},
        {CM_ERR_RATE_LIMITED, CM_ERR_NONE, 5, 0, CM_CRED_STATE_COOLING, 5},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_pool *pool = pool_of(1);
        struct cm_err err, why;
        struct cm_lease *a = lease_one(pool, &err), *b = lease_one(pool, &err);

        why = error_of(cases[i].first, cases[i].first_s);
        cm_lease_give_back(a, &why);
        why = error_of(cases[i].second, cases[i].second_s);
        cm_lease_give_back(b, cases[i].second ? &why : NULL);
        expect_state(pool, cases[i].state);
        expect_none(pool, cases[i].back_s, "none of 1");
        cm_pool_free(pool);
    }
}
END_TEST

START_TEST(three_failures_within_a_minute_cool)
{
    struct cm_pool *pool = pool_of(1);

    one_result(pool, CM_ERR_CUT, 0);
    now_ms += 30 * SECOND;
    one_result(pool, CM_ERR_TIMEOUT, 0);
    now_ms += 30 * SECOND;
    expect_state(pool, CM_CRED_STATE_OK);
    one_result(pool, CM_ERR_OVERLOADED, 0);
    expect_state(pool, CM_CRED_STATE_COOLING);
    expect_none(pool, 60, "1 limited");
    now_ms += MINUTE;
    expect_state(pool, CM_CRED_STATE_OK);
    cm_pool_free(pool);
}
END_TEST

START_TEST(slower_failures_do_not)
{
    struct cm_pool *pool = pool_of(1);

    for (int i = 0; i < 20; i++) {
        one_result(pool, CM_ERR_UPSTREAM_DOWN, 0);
        expect_state(pool, CM_CRED_STATE_OK);
        now_ms += 31 * SECOND;
    }
    cm_pool_free(pool);
}
END_TEST

static void three_failures(struct cm_pool *pool)
{
    for (int i = 0; i < 3; i++)
        one_result(pool, CM_ERR_CUT, 0);
}

START_TEST(each_further_series_cools_twice_as_long)
{
    static const uint64_t minutes[] = {1, 2, 4, 8, 16, 32, 60, 60};
    struct cm_pool *pool = pool_of(1);

    for (size_t i = 0; i < CM_COUNT(minutes); i++) {
        three_failures(pool);
        expect_none(pool, (int)(minutes[i] * 60), "1 limited");
        now_ms += minutes[i] * MINUTE;
    }
    one_result(pool, CM_ERR_NONE, 0); /* a good answer begins anew */
    three_failures(pool);
    expect_none(pool, 60, "1 limited");
    cm_pool_free(pool);
}
END_TEST

START_TEST(a_missing_model_is_cooled_alone)
{
    struct cm_pool *pool = pool_of(1);
    struct cm_lease *lease;
    struct cm_err err;

    one_result(pool, CM_ERR_MODEL_UNAVAILABLE, 0);
    expect_state(pool, CM_CRED_STATE_OK);
    expect_none(pool, 600, "1 limited");
    lease = cm_pool_lease(pool, UP, CM_S("other"), NULL, &err);
    ck_assert_ptr_nonnull(lease);
    cm_lease_give_back(lease, NULL);
    expect_none(pool, 600,
                "1 limited"); /* a good answer of another model says nothing about this one */
    now_ms += 10 * MINUTE;
    expect_back(pool);
    one_result(pool, CM_ERR_MODEL_UNAVAILABLE, 5);
    expect_none(pool, 5, "1 limited");
    cm_pool_free(pool);
}
END_TEST

/* ---- configuration ---- */

START_TEST(a_reload_keeps_what_is_known)
{
    static const struct cm_str other[] = {CM_S_INIT("sk-1"), CM_S_INIT("sk-9")};
    struct cm_pool *pool = pool_of(1);
    struct cm_pool_provider p = {
        .name = UP, .secrets = other, .n_secrets = 2, .cooldown_ms = 20000};
    struct cm_pool_counts counts;
    struct cm_lease *lease;
    struct cm_err err;

    one_result(pool, CM_ERR_INVALID_CREDENTIAL, 0);
    cm_pool_configure(pool, &p, 1);
    cm_pool_count(pool, UP, &counts);
    ck_assert_uint_eq(counts.total, 2);
    ck_assert_uint_eq(counts.state[CM_CRED_STATE_DISABLED], 1);
    lease = lease_one(pool, &err);
    ck_str(cm_lease_secret(lease), "sk-9");
    ck_str(cm_lease_label(lease), "up#2");
    cm_lease_give_back(lease, NULL);
    cm_pool_free(pool);
}
END_TEST

START_TEST(what_is_gone_lives_until_its_lease_is_back)
{
    struct cm_pool *pool = pool_of(1);
    struct cm_err err, why = error_of(CM_ERR_RATE_LIMITED, 5);
    struct cm_lease *a = lease_one(pool, &err), *b = lease_one(pool, &err);
    struct cm_pool_counts counts;

    cm_pool_configure(pool, NULL, 0);
    cm_pool_count(pool, UP, &counts);
    ck_assert_uint_eq(counts.total, 0);
    ck_assert_ptr_null(lease_one(pool, &err));
    ck_str(cm_lease_secret(a), "sk-1");
    cm_lease_give_back(a, &why);
    ck_str(cm_lease_secret(b), "sk-1");
    cm_lease_give_back(b, NULL);
    cm_pool_free(pool);
}
END_TEST

START_TEST(the_same_secret_counts_once)
{
    static const struct cm_str twice[] = {CM_S_INIT("sk-1"), CM_S_INIT("sk-1"), CM_S_INIT("sk-2")};
    struct cm_pool *pool = cm_pool_new(&test_clock);
    struct cm_pool_provider p[] = {{.name = UP, .secrets = twice, .n_secrets = 3},
                                   {.name = CM_S("two"), .secrets = twice, .n_secrets = 1}};
    struct cm_pool_counts counts;

    cm_pool_configure(pool, p, 2);
    cm_pool_count(pool, UP, &counts);
    ck_assert_uint_eq(counts.total, 2);
    cm_pool_count(pool, CM_S("two"), &counts); /* another provider is another account */
    ck_assert_uint_eq(counts.total, 1);
    cm_pool_free(pool);
}
END_TEST

START_TEST(keyless_means_one_without_a_secret)
{
    struct cm_pool *pool = cm_pool_new(&test_clock);
    struct cm_pool_provider p = {.name = UP, .keyless = true, .isolated = true};
    struct cm_lease *lease;
    struct cm_err err;

    cm_pool_configure(pool, &p, 1);
    cm_pool_configure(pool, &p, 1);
    expect_state(pool, CM_CRED_STATE_OK);
    lease = lease_one(pool, &err);
    ck_assert_uint_eq(cm_lease_secret(lease).n, 0);
    ck_assert_uint_gt(cm_lease_isolation(lease).n, 0); /* connections of its own */
    cm_lease_give_back(lease, NULL);
    cm_pool_free(pool);
}
END_TEST

Suite *suite_pool(void)
{
    Suite *s = suite_create("pool");
    TCase *t = tcase_create("leases");

    tcase_add_test(t, the_least_recently_used_serves_next);
    tcase_add_test(t, a_lease_tells_who_it_is);
    tcase_add_test(t, nobody_is_tried_twice);
    tcase_add_test(t, a_busy_credential_waits);
    tcase_add_test(t, no_credential_says_what_to_do);
    suite_add_tcase(s, t);

    t = tcase_create("states");
    tcase_add_loop_test(t, a_class_decides, 0, (int)CM_COUNT(verdicts));
    tcase_add_test(t, without_a_default_a_limit_cools_for_a_minute);
    tcase_add_test(t, a_cooled_one_leaves_the_others);
    tcase_add_test(t, the_worst_of_several_news_counts);
    tcase_add_test(t, three_failures_within_a_minute_cool);
    tcase_add_test(t, slower_failures_do_not);
    tcase_add_test(t, each_further_series_cools_twice_as_long);
    tcase_add_test(t, a_missing_model_is_cooled_alone);
    suite_add_tcase(s, t);

    t = tcase_create("configuration");
    tcase_add_test(t, a_reload_keeps_what_is_known);
    tcase_add_test(t, what_is_gone_lives_until_its_lease_is_back);
    tcase_add_test(t, the_same_secret_counts_once);
    tcase_add_test(t, keyless_means_one_without_a_secret);
    suite_add_tcase(s, t);
    return s;
}
