/* Pool: what a calendar month allows a credential. The clocks are the test's. */
#include "unit.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/pool/pool.h"

#include <stdio.h>

#define UP CM_S("up")
#define MODEL CM_S("m")
#define S 1000 /* milliseconds */
#define DAY (INT64_C(86400) * S)
#define START_UNIX INT64_C(1700000000000)

static uint64_t mono;
static int64_t wall;
static struct cm_pool *pool;
static struct cm_pool_provider provider;
static char told_reason[64]; /* with the last change of a state */

static uint64_t read_mono(void *arg)
{
    (void)arg;
    return mono;
}

static int64_t read_wall(void *arg)
{
    (void)arg;
    return wall;
}

static const struct cm_clock test_clock = {read_mono, read_wall, NULL};

static void on_state(void *arg, const struct cm_cred_info *cred)
{
    (void)arg;
    cm_str_copy(told_reason, sizeof(told_reason), cred->reason);
}

static const struct cm_pool_host host = {.on_state = on_state};

static void set_up(void)
{
    const struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_ERROR};

    cm_log_setup(&quiet);
    mono = 300 * S;
    wall = START_UNIX;
    pool = cm_pool_new(&test_clock, &host, 7);
}

static void clean_up(void)
{
    cm_pool_free(pool);
    pool = NULL;
}

static void set_provider(struct cm_pool_provider p)
{
    provider = p;
    provider.name = UP;
    provider.cooldown_ms = 20 * S;
    cm_pool_providers(pool, &provider, 1);
}

/* Another life of the process: what the store kept is all there is. */
static void restart(void)
{
    cm_pool_free(pool);
    pool = cm_pool_new(&test_clock, &host, 8);
    cm_pool_providers(pool, &provider, 1);
}

static void pass(int64_t ms)
{
    mono += (uint64_t)ms;
    wall += ms;
    cm_pool_tick(pool);
}

static struct cm_cred_info info_of(uint64_t id, const char *secret)
{
    return (struct cm_cred_info){.id = id,
                                 .provider = UP,
                                 .secret = cm_str_of(secret),
                                 .enabled = true,
                                 .weight = 1,
                                 .state = CM_CRED_STATE_OK};
}

static void add(uint64_t id)
{
    char secret[24];
    struct cm_cred_info info;

    snprintf(secret, sizeof(secret), "sk-%llu", (unsigned long long)id);
    info = info_of(id, secret);
    cm_pool_put(pool, &info);
}

static struct cm_cred_info get(uint64_t id)
{
    struct cm_cred_info info = {0};

    ck_assert(cm_pool_get(pool, id, &info));
    return info;
}

static struct cm_err why_of(enum cm_err_class cls, int retry_after_s)
{
    return (struct cm_err){.cls = cls, .retry_after_s = retry_after_s};
}

static struct cm_lease *lease_as(struct cm_pool_ask ask)
{
    ask.provider = UP;
    ask.model = MODEL;
    return cm_pool_lease(pool, &ask, NULL);
}

static struct cm_lease *lease(void)
{
    return lease_as((struct cm_pool_ask){0});
}

static void back(struct cm_lease *l, enum cm_err_class cls, int retry_after_s)
{
    struct cm_err why = why_of(cls, retry_after_s);

    cm_lease_give_back(l, cls ? &why : NULL, 0, 0);
}

/* One request on that credential, with that end. */
static void use(uint64_t id, enum cm_err_class cls, int retry_after_s)
{
    struct cm_lease *l = lease_as((struct cm_pool_ask){.only = id});

    ck_assert_msg(l != NULL, "credential %llu is %s", (unsigned long long)id,
                  cm_cred_state_name(get(id).state));
    back(l, cls, retry_after_s);
}

/* Whom the next one would be. */
static uint64_t serves(void)
{
    struct cm_lease *l = lease();
    uint64_t id = l ? cm_lease_id(l) : 0;

    if (l)
        back(l, CM_ERR_NONE, 0);
    return id;
}

#define expect(id, want, left_ms) expect_at(__LINE__, id, CM_CRED_STATE_##want, left_ms)
static void expect_at(int line, uint64_t id, enum cm_cred_state state, int64_t left_ms)
{
    struct cm_cred_info info = get(id);
    int64_t left = info.until_ms ? info.until_ms - wall : 0;

    ck_assert_msg(info.state == state && left == left_ms,
                  "line %d: %s for %lld ms, not %s for %lld ms", line,
                  cm_cred_state_name(info.state), (long long)left, cm_cred_state_name(state),
                  (long long)left_ms);
}

#define NOVEMBER INT64_C(1698796800000) /* START_UNIX is within it */
#define DECEMBER INT64_C(1701388800000)

static void allow(int64_t a_month)
{
    set_provider((struct cm_pool_provider){.monthly_limit = a_month});
}

START_TEST(a_month_that_is_used_up_ends_on_the_1st)
{
    allow(3);
    add(1);
    for (int i = 0; i < 3; i++) {
        expect(1, OK, 0);
        ck_assert_int_eq(get(1).month_requests, i);
        use(1, CM_ERR_NONE, 0);
    }
    expect(1, EXHAUSTED, DECEMBER - wall);
    ck_assert_str_eq(told_reason, "monthly_limit");
    ck_assert_int_eq(get(1).month_requests, 3);
    ck_assert_int_eq(get(1).month_ms, NOVEMBER);
    ck_assert_int_eq(get(1).monthly_limit, 3);
    ck_assert_uint_eq(serves(), 0);
    ck_assert(cm_pool_reset(pool, 1)); /* it is our count: nothing to forget */
    expect(1, EXHAUSTED, DECEMBER - wall);
    pass(DECEMBER - wall - 1);
    expect(1, EXHAUSTED, 1);
    pass(1);
    expect(1, OK, 0);
    ck_assert_int_eq(get(1).month_requests, 0);
    ck_assert_uint_eq(serves(), 1);
    ck_assert_int_eq(get(1).month_requests, 1);
}
END_TEST

/* Out of so many at once only the rest of the month is given, and what cost nothing comes back. */
START_TEST(no_more_are_out_than_the_month_has_left)
{
    struct cm_lease *out[3];
    struct cm_err err = {0};

    allow(3);
    add(1);
    for (int i = 0; i < 3; i++)
        ck_assert_ptr_nonnull(out[i] = lease());
    ck_assert_ptr_null(
        cm_pool_lease(pool, &(struct cm_pool_ask){.provider = UP, .model = MODEL}, &err));
    ck_assert_str_eq(err.param, "busy"); /* one of the three may cost nothing */
    expect(1, OK, 0);
    back(out[0], CM_ERR_UPSTREAM_DOWN, 0);
    ck_assert_ptr_nonnull(out[0] = lease());
    back(out[1], CM_ERR_NONE, 0);
    back(out[2], CM_ERR_NONE, 0);
    ck_assert_ptr_null(lease());
    expect(1, OK, 0);
    back(out[0], CM_ERR_NONE, 0);
    expect(1, EXHAUSTED, DECEMBER - wall);
}
END_TEST

static const struct {
    enum cm_err_class cls;
    bool cancelled;
    int64_t counts;
} month_costs[] = {
    {CM_ERR_NONE, false, 1},
    {CM_ERR_CUT, false, 1},
    {CM_ERR_TIMEOUT, false, 1},
    {CM_ERR_BAD_REQUEST, false, 0},
    {CM_ERR_RATE_LIMITED, false, 0},
    {CM_ERR_QUOTA_EXHAUSTED, false, 0},
    {CM_ERR_EXPIRED, false, 0},
    {CM_ERR_INVALID_CREDENTIAL, false, 0},
    {CM_ERR_UPSTREAM_DOWN, false, 0},
    {CM_ERR_OVERLOADED, false, 0},
    {CM_ERR_MODEL_UNAVAILABLE, false, 0},
    {CM_ERR_NONE, true, 1},
    {CM_ERR_CUT, true, 1},
    {CM_ERR_UPSTREAM_DOWN, true, 0},
};

START_TEST(what_counts_in_a_month)
{
    struct cm_err why = why_of(month_costs[_i].cls, 0);
    struct cm_lease *l;
    int64_t month;

    allow(10);
    add(1);
    ck_assert_ptr_nonnull(l = lease());
    if (month_costs[_i].cancelled)
        month = cm_lease_cancel(l, why.cls ? &why : NULL);
    else
        month = cm_lease_give_back(l, why.cls ? &why : NULL, 0, 0);
    ck_assert_int_eq(get(1).month_requests, month_costs[_i].counts);
    ck_assert_int_eq(month, month_costs[_i].counts ? NOVEMBER : 0);
}
END_TEST

START_TEST(an_errand_is_no_request_of_the_month)
{
    struct cm_lease *l;

    allow(1);
    add(1);
    ck_assert_ptr_nonnull(l = lease_as((struct cm_pool_ask){.uncounted = true}));
    ck_assert_int_eq(cm_lease_give_back(l, NULL, 0, 0), 0);
    expect(1, OK, 0);
    ck_assert_int_eq(get(1).month_requests, 0);
}
END_TEST

START_TEST(a_month_survives_a_restart)
{
    struct cm_cred_info kept;

    allow(2);
    add(1);
    use(1, CM_ERR_NONE, 0);
    use(1, CM_ERR_NONE, 0);
    kept = get(1);
    kept.secret = CM_S("sk-1"), kept.label = kept.token = kept.proxy = CM_STR_NONE;
    kept.reason = CM_S("monthly_limit");
    kept.provider = UP;
    restart();
    cm_pool_put(pool, &kept);
    expect(1, EXHAUSTED, DECEMBER - wall);
    ck_str(get(1).reason, "monthly_limit");
    ck_assert_int_eq(get(1).month_requests, 2);

    mono += 7;
    wall = DECEMBER; /* the next month begins while it is down */
    restart();
    cm_pool_put(pool, &kept);
    expect(1, OK, 0);
    ck_assert_int_eq(get(1).month_requests, 0);
}
END_TEST

START_TEST(another_limit_counts_at_once)
{
    struct cm_lease *l;

    allow(3);
    add(1);
    use(1, CM_ERR_NONE, 0);
    use(1, CM_ERR_NONE, 0);
    allow(2);
    expect(1, EXHAUSTED, DECEMBER - wall);
    allow(3);
    expect(1, OK, 0);
    ck_assert_ptr_nonnull(l = lease());
    ck_assert_ptr_null(lease());
    allow(0);
    ck_assert_uint_eq(serves(), 1);
    back(l, CM_ERR_NONE, 0);
    expect(1, OK, 0);
}
END_TEST

/* The later one of two reasons to rest counts, and neither hides the other. */
START_TEST(month_and_limits_of_the_platform)
{
    struct cm_lease *a, *b;

    allow(1);
    add(1);
    set_provider((struct cm_pool_provider){.monthly_limit = 2});
    a = lease(), b = lease();
    back(a, CM_ERR_NONE, 0);
    set_provider((struct cm_pool_provider){.monthly_limit = 1});
    expect(1, EXHAUSTED, DECEMBER - wall);
    back(b, CM_ERR_RATE_LIMITED, 0); /* which is over long before */
    expect(1, EXHAUSTED, DECEMBER - wall);
    ck_str(get(1).reason, "monthly_limit");
    pass(DECEMBER - wall);
    expect(1, HALF_OPEN, 0);
    use(1, CM_ERR_QUOTA_EXHAUSTED, 100);
    expect(1, EXHAUSTED, 100 * S);
    ck_str(get(1).reason, "quota_exhausted");
    pass(100 * S);
    use(1, CM_ERR_NONE, 0);
    expect(1, EXHAUSTED, INT64_C(1704067200000) - wall);
    ck_str(get(1).reason, "monthly_limit");
}
END_TEST

START_TEST(a_limit_told_beyond_the_month_stays)
{
    struct cm_cred_info info = info_of(1, "sk-1");
    struct cm_lease *a, *b;

    allow(2);
    add(1);
    a = lease(), b = lease();
    back(a, CM_ERR_NONE, 0);
    back(b, CM_ERR_QUOTA_EXHAUSTED, 30 * 86400);
    allow(1);
    expect(1, EXHAUSTED, 30 * DAY);
    info.enabled = false;
    cm_pool_put(pool, &info);
    info.enabled = true;
    cm_pool_put(pool, &info); /* looks at both */
    expect(1, EXHAUSTED, 30 * DAY);
    ck_str(get(1).reason, "quota_exhausted");
}
END_TEST

START_TEST(another_account_begins_its_month)
{
    struct cm_cred_info info;
    struct cm_lease *l;

    allow(2);
    add(1);
    use(1, CM_ERR_NONE, 0);
    ck_assert_ptr_nonnull(l = lease());
    info = info_of(1, "sk-other");
    cm_pool_put(pool, &info);
    ck_assert_int_eq(get(1).month_requests, 0);
    ck_assert_int_eq(cm_lease_give_back(l, NULL, 0, 0), 0); /* the old one's */
    ck_assert_int_eq(get(1).month_requests, 0);
    use(1, CM_ERR_NONE, 0);
    use(1, CM_ERR_NONE, 0);
    expect(1, EXHAUSTED, DECEMBER - wall);
    info = info_of(1, "sk-third");
    cm_pool_put(pool, &info);
    expect(1, OK, 0);
}
END_TEST

START_TEST(the_clock_is_set_into_another_month)
{
    allow(1);
    add(1);
    use(1, CM_ERR_NONE, 0);
    expect(1, EXHAUSTED, DECEMBER - wall);
    wall = DECEMBER + DAY;
    pass(1);
    expect(1, OK, 0);
    use(1, CM_ERR_NONE, 0);
    expect(1, EXHAUSTED, INT64_C(1704067200000) - wall);
}
END_TEST

static void on_lease(void *arg, struct cm_lease *l, const struct cm_err *err)
{
    ck_assert_ptr_null(err);
    *(struct cm_lease **)arg = l;
}

START_TEST(who_waits_gets_what_a_month_has_left)
{
    struct cm_pool_ask ask = {.provider = UP, .model = MODEL};
    struct cm_lease *l, *waited = NULL;

    allow(1);
    add(1);
    ck_assert_ptr_nonnull(l = lease());
    ck_assert_ptr_nonnull(cm_pool_wait(pool, &ask, 10 * S, on_lease, &waited, NULL));
    back(l, CM_ERR_OVERLOADED, 0); /* cost nothing */
    ck_assert_ptr_nonnull(waited);
    back(waited, CM_ERR_NONE, 0);
    expect(1, EXHAUSTED, DECEMBER - wall);
}
END_TEST

Suite *suite_pool_month(void)
{
    Suite *s = suite_create("pool_month");
    TCase *c = tcase_create("month");

    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, a_month_that_is_used_up_ends_on_the_1st);
    tcase_add_test(c, no_more_are_out_than_the_month_has_left);
    tcase_add_loop_test(c, what_counts_in_a_month, 0, CM_COUNT(month_costs));
    tcase_add_test(c, an_errand_is_no_request_of_the_month);
    tcase_add_test(c, a_month_survives_a_restart);
    tcase_add_test(c, another_limit_counts_at_once);
    tcase_add_test(c, month_and_limits_of_the_platform);
    tcase_add_test(c, a_limit_told_beyond_the_month_stays);
    tcase_add_test(c, another_account_begins_its_month);
    tcase_add_test(c, the_clock_is_set_into_another_month);
    tcase_add_test(c, who_waits_gets_what_a_month_has_left);
    suite_add_tcase(s, c);
    return s;
}
