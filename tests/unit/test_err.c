/* Errors. */
#include "chatmux/base/err.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

static const enum cm_err_class classes[] = {
#define X(name, ...) CM_ERR_##name,
    CM_ERR_MAP(X)
#undef X
};

START_TEST(table_is_consistent)
{
    for (size_t i = 0; i < CM_COUNT(classes); i++) {
        const struct cm_err_info *info = cm_err_info(classes[i]);

        ck_assert_int_eq(classes[i], (int)i + 1);
        ck_assert(info->name[0] != '\0' && info->type[0] != '\0');
        ck_assert_uint_eq(strspn(info->name, "abcdefghijklmnopqrstuvwxyz_"), strlen(info->name));
        ck_assert_int_ge(info->http_status, 400);
        ck_assert_int_lt(info->http_status, 600);
        /* What is the client's fault is not blamed on a credential, and 5xx is not the client's
         * fault. */
        if (info->next == CM_NEXT_STOP)
            ck_assert_int_eq(info->cred, CM_CRED_KEEP);
        else
            ck_assert_int_ne(info->cred, CM_CRED_KEEP);
        if (info->next == CM_NEXT_RETRY)
            ck_assert_int_eq(info->cred, CM_CRED_COUNT);
        if (info->http_status >= 500)
            ck_assert_str_ne(info->type, "invalid_request_error");
        for (size_t k = 0; k < i; k++)
            ck_assert_str_ne(info->name, cm_err_info(classes[k])->name);
    }
}
END_TEST

/* An operator's refused credential must never look like the client's wrong key (design, section
 * 3). */
START_TEST(only_a_wrong_client_key_is_401)
{
    for (size_t i = 0; i < CM_COUNT(classes); i++)
        ck_assert_int_eq(cm_err_info(classes[i])->http_status == 401,
                         classes[i] == CM_ERR_UNAUTHORIZED);
    ck_assert_int_eq(cm_err_info(CM_ERR_INVALID_CREDENTIAL)->http_status, 502);
    ck_assert_int_eq(cm_err_info(CM_ERR_EXPIRED)->cred, CM_CRED_REFRESH);
    ck_assert_int_eq(cm_err_info(CM_ERR_RATE_LIMITED)->next, CM_NEXT_CREDENTIAL);
}
END_TEST

START_TEST(failing_fills_and_returns)
{
    struct cm_err err = {.retry_after_s = 5, .http_status = 418, .code = "old", .param = "old"};

    ck_assert_int_eq(cm_fail(&err, CM_ERR_TOO_LARGE, "body has %d bytes, limit is %d", 2, 1), -1);
    ck_assert_int_eq(err.cls, CM_ERR_TOO_LARGE);
    ck_assert_str_eq(err.msg, "body has 2 bytes, limit is 1");
    ck_assert_str_eq(err.param, "");
    ck_assert_str_eq(err.code, "");
    ck_assert_int_eq(err.retry_after_s, 0);
    ck_assert_int_eq(cm_err_status(&err), 413);
    ck_assert_int_eq(cm_fail_param(&err, CM_ERR_BAD_REQUEST, "messages[2].content", "no"), -1);
    ck_assert_str_eq(err.param, "messages[2].content");
    ck_assert_int_eq(cm_fail(NULL, CM_ERR_IO, "x"), -1);
    ck_assert_int_eq(cm_fail_param(NULL, CM_ERR_IO, "p", "x"), -1);
}
END_TEST

START_TEST(an_error_may_quote_itself)
{
    struct cm_err err;

    cm_fail_param(&err, CM_ERR_IO, "field", "disk full");
    cm_fail_param(&err, CM_ERR_CONFIG, err.param, "cannot start: %s", err.msg);
    ck_assert_str_eq(err.msg, "cannot start: disk full");
    ck_assert_str_eq(err.param, "field");
}
END_TEST

START_TEST(text_is_safe_to_show)
{
    struct cm_err err;

    cm_fail_param(&err, CM_ERR_CUT, "a\nb", "x\r\ny\tz\x1b[0m\x7f|\xc2\x9b|\xff|ä");
    ck_assert_str_eq(err.msg, "x  y z [0m |  |\xef\xbf\xbd|ä");
    ck_assert_str_eq(err.param, "a b");
}
END_TEST

START_TEST(long_text_is_cut_at_a_character)
{
    for (int pad = 0; pad < (int)sizeof(((struct cm_err *)0)->msg) + 10; pad++) {
        struct cm_err err;
        char param[100];
        size_t n;

        memset(param, 'p', sizeof(param));
        param[sizeof(param) - 1] = '\0';
        cm_fail_param(&err, CM_ERR_IO, param, "%*s%s", pad, "", "世界😀世界😀世界😀");
        n = strlen(err.msg);
        ck_assert_uint_lt(n, sizeof(err.msg));
        ck_assert_uint_eq(cm_utf8_valid(cm_str_of(err.msg)), n);
        ck_assert_ptr_null(strstr(err.msg, "\xef\xbf\xbd"));
        if (pad + 30 >= (int)sizeof(err.msg))
            ck_assert_uint_ge(n, sizeof(err.msg) - 4);
        ck_assert_uint_eq(strlen(err.param), sizeof(err.param) - 1);
    }
}
END_TEST

START_TEST(status_and_code_may_be_more_precise)
{
    struct cm_err err = {0};

    ck_assert_int_eq(cm_err_status(&err), 500); /* failed and did not say why */
    cm_fail(&err, CM_ERR_NO_CREDENTIAL, "all are cooling");
    ck_assert_int_eq(cm_err_status(&err), 503);
    err.retry_after_s = 20;
    ck_assert_int_eq(cm_err_status(&err), 429);
    ck_assert_str_eq(cm_err_code(&err), "no_credential");
    cm_fail(&err, CM_ERR_BAD_REQUEST, "x");
    ck_assert_ptr_null(cm_err_code(&err));
    err.http_status = 422;
    cm_str_copy(err.code, sizeof(err.code), CM_S("unsupported_value"));
    ck_assert_int_eq(cm_err_status(&err), 422);
    ck_assert_str_eq(cm_err_code(&err), "unsupported_value");
}
END_TEST

Suite *suite_err(void)
{
    Suite *s = suite_create("err");
    TCase *t = tcase_create("err");

    tcase_add_test(t, table_is_consistent);
    tcase_add_test(t, only_a_wrong_client_key_is_401);
    tcase_add_test(t, failing_fills_and_returns);
    tcase_add_test(t, an_error_may_quote_itself);
    tcase_add_test(t, text_is_safe_to_show);
    tcase_add_test(t, long_text_is_cut_at_a_character);
    tcase_add_test(t, status_and_code_may_be_more_precise);
    suite_add_tcase(s, t);
    return s;
}
