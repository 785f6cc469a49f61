/* provider/deepseek_account: tokens out of passwords and of other tokens, and the check of an account. */
#include "deepseek_replies.h"
#include "fake_run.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define JSON "application/json"
#define OK(json) {.content_type = JSON, .body = json}
#define BODY "{\"model\":\"deepseek-chat\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
#define MAIL "{\"email\":\"me@example.org\",\"password\":\"p\\\"w\"}"
#define MOBILE "{\"mobile\":\"13800000000\",\"area_code\":\"+86\",\"password\":\"pw\"}"
#define LOGGED_IN BIZ("{\"code\":0,\"user\":{\"id\":\"u\",\"token\":\"fresh\"}}")

static struct fake_result r;

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

/* errand NULL: refresh. */
static void run_errand(const char *errand, const char *secret, const char *const *options,
                       const struct fake_reply *replies, size_t n)
{
    fake_run(&(struct fake_setup){.type = "deepseek",
                                  .body = BODY,
                                  .secret = secret,
                                  .options = options,
                                  .refresh = !errand,
                                  .errand = errand,
                                  .replies = replies,
                                  .n_replies = n,
                                  .idle_ms = 100},
             &r);
}

START_TEST(a_password_logs_in)
{
    static const char *const options[] = {"device_id",  "mine", "login_os", "android",
                                          "login_path", "/l",   NULL};
    static const struct fake_reply reply = OK(LOGGED_IN);
    struct cm_str first;

    run_errand("login", MAIL, NULL, &reply, 1);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.token, "fresh");
    ck_assert_int_eq(r.token_expires_ms, 0);
    ck_str(r.requests[0].url, "https://chat.deepseek.com/api/v0/users/login");
    ck_assert_str_eq(header(0, "authorization"), "");
    ck_assert_str_eq(header(0, "x-client-platform"), "web");
    first = r.requests[0].body;
    ck_assert(cm_str_starts(first, CM_S("{\"email\":\"me@example.org\",\"password\":\"p\\\"w\","
                                        "\"device_id\":\"")));
    ck_assert(cm_str_ends(first, CM_S("\",\"os\":\"web\"}")));
    first = cm_str(cm_str_dup(first), first.n);
    fake_result_clear(&r);

    run_errand("login", MAIL, NULL, &reply, 1); /* the same device each time */
    ck_assert(cm_str_eq(r.requests[0].body, first));
    free((void *)(uintptr_t)first.p);
    fake_result_clear(&r);

    run_errand("login", MOBILE, options, &reply, 1);
    ck_str(r.requests[0].url, "https://chat.deepseek.com/l");
    ck_str(r.requests[0].body, "{\"mobile\":\"13800000000\",\"area_code\":\"+86\",\"password\":"
                               "\"pw\",\"device_id\":\"mine\",\"os\":\"android\"}");
    fake_result_clear(&r);
    run_errand("login", "{\"mobile\":\"1\",\"password\":\"pw\"}", options, &reply, 1);
    ck_assert(cm_str_starts(r.requests[0].body, CM_S("{\"mobile\":\"1\",\"area_code\":null,")));
    fake_result_clear(&r);
}
END_TEST

START_TEST(logins_that_fail)
{
    static const struct {
        struct fake_reply reply;
        enum cm_err_class cls;
    } cases[] = {
        {OK(BIZ_REFUSED("2", "PASSWORD_OR_USER_NAME_IS_WRONG")), CM_ERR_INVALID_CREDENTIAL},
        {OK(BIZ_REFUSED("7", "DEVICE_NOT_TRUSTED")), CM_ERR_EXPIRED}, /* not to be repeated */
        {OK(BIZ("{\"user\":{}}")), CM_ERR_UPSTREAM_DOWN},
        {OK(CODE("40003", "")), CM_ERR_EXPIRED},
        {{.status = 429}, CM_ERR_RATE_LIMITED},
        {{.status = 202, .header = "x-amzn-waf-action", .header_value = "challenge"},
         CM_ERR_VERIFICATION_REQUIRED},
        {{.status = 500}, CM_ERR_UPSTREAM_DOWN},
        {{.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        run_errand("login", MAIL, NULL, &cases[i].reply, 1);
        ck_assert_msg(!r.done && r.err.cls == cases[i].cls, "%zu: %s, %s", i,
                      cm_err_info(r.err.cls)->name, r.err.msg);
        ck_assert_uint_eq(r.token.n, 0);
        ck_assert_ptr_null(strstr(r.err.msg, "p\"w"));
        fake_result_clear(&r);
    }
    run_errand("login", "token", NULL, NULL, 0);
    ck_assert_int_eq(r.err.cls, CM_ERR_EXPIRED);
    ck_assert_uint_eq(r.n_requests, 0);
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_user_token_is_exchanged)
{
    static const struct fake_reply exchanged = OK(BIZ("{\"id\":\"u\",\"token\":\"other\"}"));
    static const struct {
        struct fake_reply reply;
        enum cm_err_class cls;
    } cases[] = {
        {OK(CODE("40003", "Authorization Failed (invalid token)")), CM_ERR_EXPIRED},
        {OK(BIZ("{\"id\":\"u\"}")), CM_ERR_EXPIRED},
        {{.status = 401}, CM_ERR_EXPIRED},
        {{.status = 503}, CM_ERR_OVERLOADED},
        {{.end = FAKE_CUT}, CM_ERR_CUT},
    };
    const int64_t hour_ms = 3600000, now_ms = cm_unix_ms();

    fake_run(&(struct fake_setup){.type = "deepseek",
                                  .body = BODY,
                                  .secret = "user-token",
                                  .token = "refused",
                                  .refresh = true,
                                  .replies = &exchanged,
                                  .n_replies = 1},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.requests[0].method, "GET");
    ck_str(r.requests[0].url, "https://chat.deepseek.com/api/v0/users/current");
    ck_assert_str_eq(header(0, "authorization"), "Bearer user-token"); /* not the refused one */
    ck_str(r.token, "other");
    ck_assert_int_ge(r.token_expires_ms, now_ms + hour_ms);
    ck_assert_int_le(r.token_expires_ms, now_ms + hour_ms + 60000);
    fake_result_clear(&r);

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        run_errand(NULL, "user-token", NULL, &cases[i].reply, 1);
        ck_assert_msg(!r.done && r.err.cls == cases[i].cls, "%zu: %s", i, r.err.msg);
        fake_result_clear(&r);
    }
    run_errand(NULL, MAIL, NULL, NULL, 0); /* a password has nothing to exchange: it logs in */
    ck_assert_int_eq(r.err.cls, CM_ERR_EXPIRED);
    ck_assert_uint_eq(r.n_requests, 0);
    fake_result_clear(&r);
}
END_TEST

START_TEST(what_a_token_is_used_for)
{
    static const struct fake_reply down = {.end = FAKE_DOWN};
    struct fake_setup setup = {
        .type = "deepseek", .body = BODY, .secret = MAIL, .replies = &down, .n_replies = 1};

    fake_run(&setup, &r); /* there is none yet */
    ck_assert_int_eq(r.err.cls, CM_ERR_EXPIRED);
    ck_assert_uint_eq(r.n_requests, 0);
    fake_result_clear(&r);
    setup.token = "fresh";
    fake_run(&setup, &r);
    ck_assert_str_eq(header(0, "authorization"), "Bearer fresh");
    fake_result_clear(&r);
    setup.secret = "{\"token\":\"mine\",\"cookie\":\"c=1\"}";
    fake_run(&setup, &r);
    ck_assert_str_eq(header(0, "authorization"), "Bearer fresh");
    ck_assert_str_eq(header(0, "cookie"), "c=1");
    fake_result_clear(&r);
}
END_TEST

#define CURRENT BIZ("{\"id\":\"u\",\"chat\":{\"is_muted\":0,\"mute_until\":0}}")
#define QUOTA BIZ("{\"thinking\":{\"quota\":50,\"used\":3}}")

START_TEST(an_account_is_checked)
{
    static const struct fake_reply works[] = {OK(CURRENT), OK(QUOTA)};
    static const struct fake_reply no_quota[] = {OK(CURRENT), {.status = 404}};
    static const struct fake_reply first_login[] = {OK(LOGGED_IN), OK(CURRENT), OK(QUOTA)};
    static const struct fake_reply wrong[] = {
        OK(BIZ_REFUSED("2", "PASSWORD_OR_USER_NAME_IS_WRONG"))};
    static const char *const unasked[] = {"quota_path", "", NULL};

    run_errand("probe", "tok", NULL, works, 2);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.quota, "{\"thinking\":{\"quota\":50,\"used\":3}}");
    ck_str(r.requests[1].url, "https://chat.deepseek.com/api/v0/users/feature_quota");
    ck_assert_uint_eq(r.token.n, 0);
    fake_result_clear(&r);

    run_errand("probe", "tok", NULL, no_quota, 2);
    ck_assert(r.done && r.quota.n == 0);
    fake_result_clear(&r);
    run_errand("probe", "tok", unasked, works, 1);
    ck_assert(r.done && r.n_requests == 1);
    fake_result_clear(&r);

    run_errand("probe", MAIL, NULL, first_login, 3);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.token, "fresh"); /* it is kept */
    ck_assert_str_eq(header(1, "authorization"), "Bearer fresh");
    ck_assert_str_eq(header(2, "authorization"), "Bearer fresh");
    fake_result_clear(&r);
    run_errand("probe", MAIL, NULL, wrong, 1);
    ck_assert_int_eq(r.err.cls, CM_ERR_INVALID_CREDENTIAL);
    fake_result_clear(&r);
}
END_TEST

START_TEST(checks_that_fail)
{
    char muted[200];
    const struct fake_reply gone = OK(CODE("40003", "invalid token"));
    const struct fake_reply mute = OK(muted);

    run_errand("probe", "tok", NULL, &gone, 1);
    ck_assert_int_eq(r.err.cls, CM_ERR_EXPIRED);
    fake_result_clear(&r);
    snprintf(muted, sizeof(muted), BIZ("{\"chat\":{\"is_muted\":1,\"mute_until\":%lld.5}}"),
             (long long)cm_unix_ms() / 1000 + 100);
    run_errand("probe", "tok", NULL, &mute, 1);
    ck_assert_int_eq(r.err.cls, CM_ERR_RATE_LIMITED);
    ck_assert_int_ge(r.err.retry_after_s, 95);
    fake_result_clear(&r);
}
END_TEST

Suite *suite_deepseek_account(void)
{
    Suite *s = suite_create("deepseek_account");
    TCase *t = tcase_create("deepseek_account");

    tcase_add_test(t, a_password_logs_in);
    tcase_add_test(t, logins_that_fail);
    tcase_add_test(t, a_user_token_is_exchanged);
    tcase_add_test(t, what_a_token_is_used_for);
    tcase_add_test(t, an_account_is_checked);
    tcase_add_test(t, checks_that_fail);
    suite_add_tcase(s, t);
    return s;
}
