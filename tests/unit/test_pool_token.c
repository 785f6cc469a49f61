/* Pool: credentials that need a token before they serve, and providers that lack a setting. */
#include "pool_fixture.h"

#define LACKS "set x.key"

static const struct cm_pool_provider needs = {.can_refresh = true, .needs_token = true};
static const struct cm_pool_provider lacking = {
    .can_refresh = true, .can_probe = true, .needs_token = true, .lacks = CM_S_INIT(LACKS)};

static void refused_with(const char *text, int status)
{
    struct cm_err err = {0};

    ck_assert_ptr_null(
        cm_pool_lease(pool, &(struct cm_pool_ask){.provider = UP, .model = MODEL}, &err));
    ck_assert_msg(strstr(err.msg, text) != NULL, "%s", err.msg);
    ck_assert_int_eq(cm_err_status(&err), status);
}

static void refreshed(uint64_t id, const char *token, int64_t life_ms)
{
    cm_pool_refreshed(pool, id, cm_str_of(token), life_ms ? wall + life_ms : 0, NULL);
}

static void refresh_failed(uint64_t id, enum cm_err_class cls, const char *msg)
{
    struct cm_err err;

    cm_fail(&err, cls, "%s", msg);
    cm_pool_refreshed(pool, id, CM_STR_NONE, 0, &err);
}

/* ---- no request without a token ---- */

START_TEST(without_a_token_it_is_refreshed_first)
{
    set_provider(needs);
    add(1);
    expect(1, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 1);
    refused_with("busy", 429); /* one may wait for it */
    refreshed(1, "token", HOUR);
    expect(1, OK, 0);
    ck_assert_uint_eq(serves(), 1);
    ck_assert_uint_eq(told.refreshes, 1);
}
END_TEST

START_TEST(with_a_token_it_serves_at_once)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    set_provider(needs);
    info.token = CM_S("kept");
    info.token_expires_ms = wall + HOUR;
    cm_pool_put(pool, &info);
    expect(1, OK, 0);
    ck_assert_uint_eq(told.refreshes, 0);
    pass(54 * MIN + 1); /* at the latest */
    ck_assert_uint_eq(told.refreshes, 1);
    ck_assert_uint_eq(serves(), 1); /* with the old one meanwhile */
}
END_TEST

START_TEST(a_kept_token_that_is_over_does_not_serve)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    set_provider(needs);
    info.token = CM_S("kept");
    info.token_expires_ms = wall - 1;
    cm_pool_put(pool, &info);
    expect(1, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 1);
}
END_TEST

START_TEST(another_secret_wants_another_token)
{
    struct cm_cred_info info = info_of(1, "sk-other");

    set_provider(needs);
    add(1);
    refreshed(1, "token", HOUR);
    cm_pool_put(pool, &info);
    expect(1, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 2);
    ck_str(get(1).token, "");
}
END_TEST

START_TEST(a_limit_comes_before_the_token)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    set_provider(needs);
    info.state = CM_CRED_STATE_COOLING;
    info.until_ms = wall + 10 * S;
    cm_pool_put(pool, &info);
    expect(1, COOLING, 10 * S);
    ck_assert_uint_eq(told.refreshes, 0);
    pass(10 * S);
    expect(1, REFRESHING, 0);
    refreshed(1, "token", HOUR);
    expect(1, HALF_OPEN, 0);
}
END_TEST

/* One that was made for nothing is not made again and again; but one that has lain idle may have been taken back meanwhile. */
START_TEST(a_token_that_is_refused_at_once_needs_a_login)
{
    set_provider(needs);
    add(1);
    refreshed(1, "idle", HOUR);
    pass(3 * MIN);
    use(1, CM_ERR_EXPIRED, 0);
    expect(1, REFRESHING, 0);
    refreshed(1, "fresh", HOUR);
    use(1, CM_ERR_EXPIRED, 0);
    expect(1, NEEDS_LOGIN, 0);
    ck_assert_uint_eq(told.refreshes, 2);
}
END_TEST

/* ---- what is missing ---- */

START_TEST(a_missing_setting_stops_them_all)
{
    set_provider(lacking);
    add(1);
    add(2);
    expect(1, NEEDS_LOGIN, 0);
    expect(2, NEEDS_LOGIN, 0);
    ck_assert_str_eq(told.reason, "config");
    refused_with(LACKS, 503);
    ck_assert(cm_pool_reset(pool, 1)); /* does not mend the configuration */
    expect(1, NEEDS_LOGIN, 0);
    pass(DAY); /* nor does waiting */
    expect(1, NEEDS_LOGIN, 0);
    ck_assert_uint_eq(told.refreshes + told.probes, 0);

    set_provider(needs);
    cm_pool_tick(pool);
    expect(1, REFRESHING, 0);
    expect(2, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 2);
    set_provider(lacking); /* and taken away again */
    expect(1, NEEDS_LOGIN, 0);
    refreshed(1, "late", HOUR);
    expect(1, NEEDS_LOGIN, 0);
    set_provider(needs);
    expect(1, OK, 0);
    ck_str(get(1).token, "late");
}
END_TEST

START_TEST(a_missing_setting_leaves_graver_states_alone)
{
    struct cm_cred_info info = info_of(3, "sk-3");

    set_provider(needs);
    add(1);
    refresh_failed(1, CM_ERR_INVALID_CREDENTIAL, "refused");
    add(2);
    refresh_failed(2, CM_ERR_VERIFICATION_REQUIRED, "captcha");
    info.enabled = false;
    cm_pool_put(pool, &info);
    set_provider(lacking);
    set_provider(needs);
    expect(1, NEEDS_LOGIN, 0);
    ck_str(get(1).reason, "invalid_credential");
    expect(2, VERIFY, 0);
    expect(3, DISABLED, 0);
    ck_assert_uint_eq(told.refreshes, 2);
}
END_TEST

START_TEST(a_limit_outlives_a_missing_setting)
{
    set_provider(needs);
    add(1);
    refreshed(1, "token", DAY);
    use(1, CM_ERR_RATE_LIMITED, 600);
    set_provider(lacking);
    expect(1, NEEDS_LOGIN, 0);
    pass(MIN);
    set_provider(needs);
    expect(1, COOLING, 540 * S);
}
END_TEST

/* The platform says that the setting is wrong: the same, until somebody acts. */
START_TEST(a_refresh_that_finds_the_setting_wrong)
{
    set_provider(needs);
    add(1);
    add(2);
    ck_assert_uint_eq(told.refreshes, 2);
    refresh_failed(1, CM_ERR_CONFIG, "x.key is refused");
    expect(1, NEEDS_LOGIN, 0);
    expect(2, NEEDS_LOGIN, 0);
    refused_with("x.key is refused", 503);
    refresh_failed(2, CM_ERR_CONFIG, "x.key is refused");
    ck_assert(cm_pool_reset(pool, 2)); /* the platform may have been wrong: all try again */
    expect(1, REFRESHING, 0);
    expect(2, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 4);
    refresh_failed(1, CM_ERR_CONFIG, "x.key is refused");
    refresh_failed(2, CM_ERR_CONFIG, "x.key is refused");
    set_provider(needs); /* a reload */
    cm_pool_tick(pool);
    ck_assert_uint_eq(told.refreshes, 6);
    refreshed(1, "token", HOUR);
    expect(1, OK, 0);
}
END_TEST

START_TEST(a_restart_looks_again)
{
    struct cm_cred_info kept = info_of(1, "sk-1");

    set_provider(needs);
    kept.state = CM_CRED_STATE_NEEDS_LOGIN;
    kept.reason = CM_S("config");
    restart();
    cm_pool_put(pool, &kept);
    expect(1, REFRESHING, 0);
    kept.id = 2;
    kept.reason = CM_S("expired");
    cm_pool_put(pool, &kept);
    expect(2, NEEDS_LOGIN, 0);
}
END_TEST

Suite *suite_pool_token(void)
{
    Suite *s = suite_create("pool_token");
    TCase *c = tcase_create("token");

    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, without_a_token_it_is_refreshed_first);
    tcase_add_test(c, with_a_token_it_serves_at_once);
    tcase_add_test(c, a_kept_token_that_is_over_does_not_serve);
    tcase_add_test(c, another_secret_wants_another_token);
    tcase_add_test(c, a_limit_comes_before_the_token);
    tcase_add_test(c, a_token_that_is_refused_at_once_needs_a_login);
    tcase_add_test(c, a_missing_setting_stops_them_all);
    tcase_add_test(c, a_missing_setting_leaves_graver_states_alone);
    tcase_add_test(c, a_limit_outlives_a_missing_setting);
    tcase_add_test(c, a_refresh_that_finds_the_setting_wrong);
    tcase_add_test(c, a_restart_looks_again);
    suite_add_tcase(s, c);
    return s;
}
