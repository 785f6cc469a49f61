/* base/header: lookup, Retry-After in its forms, HTTP dates. */
#include "chatmux/base/header.h"

#include "unit.h"

static int retry_after(const char *name, const char *value, int64_t now_ms)
{
    const struct cm_header h[] = {{CM_S("x-other"), CM_S("9")},
                                  {cm_str_of(name), cm_str_of(value)}};

    return cm_retry_after_s(h, 2, now_ms);
}

START_TEST(finds_names_in_any_case)
{
    const struct cm_header h[] = {{CM_S("A"), CM_S("1")},
                                  {CM_S("Content-Type"), CM_S("x/y")},
                                  {CM_S("content-type"), CM_S("second")}};

    ck_assert(cm_str_eq(cm_header_find(h, 3, CM_S("content-TYPE")), CM_S("x/y")));
    ck_assert_uint_eq(cm_header_find(h, 3, CM_S("b")).n, 0);
    ck_assert_uint_eq(cm_header_find(NULL, 0, CM_S("b")).n, 0);
}
END_TEST

START_TEST(retry_after_in_every_form)
{
    ck_assert_int_eq(retry_after("Retry-After", "20", 0), 20);
    ck_assert_int_eq(retry_after("Retry-After", " 1.2 ", 0), 2);
    ck_assert_int_eq(retry_after("Retry-After", "0", 0), 0);
    ck_assert_int_eq(retry_after("Retry-After", "-5", 0), 0);
    ck_assert_int_eq(retry_after("Retry-After", "soon", 0), 0);
    ck_assert_int_eq(retry_after("Retry-After", ".5", 0), 0);
    ck_assert_int_eq(retry_after("Retry-After", "", 0), 0);
    ck_assert_int_eq(retry_after("Retry-After", "99999999999999999999999999", 0), 30 * 24 * 3600);
    ck_assert_int_eq(retry_after("retry-after-ms", "1", 0), 1);
    ck_assert_int_eq(retry_after("retry-after-ms", "1000", 0), 1);
    ck_assert_int_eq(retry_after("retry-after-ms", "1000.5", 0), 2);
    ck_assert_int_eq(retry_after("retry-after-ms", "99999999999999999999999999", 0),
                     30 * 24 * 3600);
    ck_assert_int_eq(retry_after("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT", 784111770000), 7);
    ck_assert_int_eq(retry_after("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT", 784111778000), 0);
    ck_assert_int_eq(retry_after("Retry-After", "Sun, 06 Nov 2094 08:49:37 GMT", 784111778000),
                     30 * 24 * 3600);
}
END_TEST

START_TEST(retry_after_ms_comes_first)
{
    const struct cm_header h[] = {{CM_S("retry-after"), CM_S("60")},
                                  {CM_S("retry-after-ms"), CM_S("2500")}};

    ck_assert_int_eq(cm_retry_after_s(h, 2, 0), 3);
    ck_assert_int_eq(cm_retry_after_s(h, 1, 0), 60);
}
END_TEST

START_TEST(dates_out_and_in)
{
    char z[CM_HTTP_DATE_CAP];
    int64_t t = 0;

    cm_http_date(784111777, z);
    ck_assert_str_eq(z, "Sun, 06 Nov 1994 08:49:37 GMT");
    cm_http_date(INT64_MAX, z);
    ck_assert_str_eq(z, "Fri, 31 Dec 9999 23:59:59 GMT");
    cm_http_date(-1, z);
    ck_assert_str_eq(z, "Thu, 01 Jan 1970 00:00:00 GMT");

    ck_assert_int_eq(cm_http_date_parse(CM_S("Sun, 06 Nov 1994 08:49:37 GMT"), &t), 0);
    ck_assert_int_eq(t, 784111777);
    ck_assert_int_eq(cm_http_date_parse(CM_S("Sunday, 06-Nov-94 08:49:37 GMT"), &t), 0);
    ck_assert_int_eq(t, 784111777);
    ck_assert_int_eq(cm_http_date_parse(CM_S("Sun Nov  6 08:49:37 1994"), &t), 0);
    ck_assert_int_eq(t, 784111777);
    ck_assert_int_eq(cm_http_date_parse(CM_S("Sun, 30 Feb 1994 08:49:37 GMT"), &t), -1);
    ck_assert_int_eq(t, 784111777); /* left alone */
    ck_assert_int_eq(cm_http_date_parse(CM_S("Sun, 06 Nov 1994 08:49:37 GMT+"), &t), -1);
    ck_assert_int_eq(cm_http_date_parse(CM_S("Sun, 06 Nov 1994 08:49:37 GMT\0"), &t), -1);
    ck_assert_int_eq(cm_http_date_parse(CM_STR_NONE, &t), -1);
}
END_TEST

START_TEST(names_and_values_that_may_be_sent)
{
    ck_assert(cm_header_name_ok(CM_S("X-Any_thing.1")));
    ck_assert(!cm_header_name_ok(CM_S("")));
    ck_assert(!cm_header_name_ok(CM_S("a b")));
    ck_assert(!cm_header_name_ok(CM_S("a:")));
    ck_assert(!cm_header_name_ok(CM_S("a\0")));
    ck_assert(cm_header_value_ok(CM_S("a\tb \xe4\xb8\x96")));
    ck_assert(cm_header_value_ok(CM_S("")));
    ck_assert(!cm_header_value_ok(CM_S("a\r\nb: c")));
    ck_assert(!cm_header_value_ok(CM_S("a\0b")));
    ck_assert(!cm_header_value_ok(CM_S("a\x7f")));
}
END_TEST

Suite *suite_header(void)
{
    Suite *s = suite_create("header");
    TCase *t = tcase_create("header");

    tcase_add_test(t, finds_names_in_any_case);
    tcase_add_test(t, retry_after_in_every_form);
    tcase_add_test(t, retry_after_ms_comes_first);
    tcase_add_test(t, dates_out_and_in);
    tcase_add_test(t, names_and_values_that_may_be_sent);
    suite_add_tcase(s, t);
    return s;
}
