/* Pool: what a calendar month allows a credential. */
#include "pool_fixture.h"

#include "chatmux/base/mem.h"

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
    ck_assert_str_eq(told.reason, "monthly_limit");
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
