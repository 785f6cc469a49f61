/* Time. */
#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "unit.h"

#include <stdio.h>
#include <time.h>

static const char *shown(int64_t unix_ms)
{
    static char text[CM_RFC3339_CAP];

    cm_rfc3339(unix_ms, text);
    return text;
}

START_TEST(writes_instants)
{
    ck_assert_str_eq(shown(0), "1970-01-01T00:00:00.000Z");
    ck_assert_str_eq(shown(1769847300123), "2026-01-31T08:15:00.123Z");
    ck_assert_str_eq(shown(951782400000), "2000-02-29T00:00:00.000Z");
    ck_assert_str_eq(shown(-1), "1969-12-31T23:59:59.999Z");
    ck_assert_str_eq(shown(253402300799999), "9999-12-31T23:59:59.999Z");
    ck_assert_str_eq(shown(INT64_MAX), "9999-12-31T23:59:59.999Z");
    ck_assert_str_eq(shown(INT64_MIN), "0000-01-01T00:00:00.000Z");
}
END_TEST

START_TEST(agrees_with_the_c_library_on_every_day)
{
    for (int64_t day = -200000; day < 200000; day++) { /* years 1422 to 2517 */
        time_t t = (time_t)(day * 86400 + 45296);
        char want[CM_RFC3339_CAP];
        struct tm tm;

        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.007Z", &tm);
        if (strcmp(shown((int64_t)t * 1000 + 7), want) != 0)
            ck_abort_msg("%s, not %s", shown((int64_t)t * 1000 + 7), want);
    }
}
END_TEST

START_TEST(months_begin_and_end_with_the_calendar)
{
    for (int64_t day = -200000; day < 200000; day++) {
        int64_t ms = day * 86400000 + 45296789;
        const char *began = shown(cm_month_began_ms(ms)), *now;
        char month[CM_RFC3339_CAP];

        cm_str_copy(month, sizeof(month), cm_str_of(began));
        ck_assert_str_eq(month + 7, "-01T00:00:00.000Z");
        now = shown(ms);
        ck_assert_msg(strncmp(month, now, 7) == 0, "%s in %s", now, month);
        ck_assert(cm_month_ends_ms(ms) > ms);
        ck_assert_int_eq(cm_month_began_ms(cm_month_ends_ms(ms)), cm_month_ends_ms(ms));
        ck_assert_int_eq(cm_month_ends_ms(cm_month_ends_ms(ms) - 1), cm_month_ends_ms(ms));
        ck_assert_int_eq(cm_month_began_ms(cm_month_ends_ms(ms) - 1), cm_month_began_ms(ms));
    }
}
END_TEST

START_TEST(clocks_go_on)
{
    const struct cm_clock *c = &cm_clock_system;
    uint64_t us = cm_mono_us(), ms = c->mono_ms(c->arg);
    int64_t now = c->unix_ms(c->arg);

    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    ck_assert_uint_ge(cm_mono_us() - us, 20000);
    ck_assert_uint_ge(cm_mono_ms() - ms, 19);
    ck_assert_uint_lt(cm_mono_ms() - ms, 5000);
    ck_assert_int_ge(cm_unix_ms() - now, 19);
    ck_assert_int_le(time(NULL) - now / 1000, 5);
}
END_TEST

START_TEST(times_are_read_in_every_spelling_of_rfc_3339)
{
    static const struct {
        const char *text, *utc;
    } good[] = {
        {"2026-01-31T08:15:00Z", "2026-01-31T08:15:00.000Z"},
        {"2026-01-31t08:15:00z", "2026-01-31T08:15:00.000Z"},
        {"2026-01-31 08:15:00Z", "2026-01-31T08:15:00.000Z"},
        {"2026-01-31T08:15:00.1Z", "2026-01-31T08:15:00.100Z"},
        {"2026-01-31T08:15:00.123456789Z", "2026-01-31T08:15:00.123Z"},
        {"2026-01-31T08:15:00+02:00", "2026-01-31T06:15:00.000Z"},
        {"2026-01-31T08:15:00-05:30", "2026-01-31T13:45:00.000Z"},
        {"2024-02-29", "2024-02-29T00:00:00.000Z"},
        {"2000-12-31T23:59:59Z", "2000-12-31T23:59:59.000Z"},
        {"1970-01-01T00:00:01Z", "1970-01-01T00:00:01.000Z"},
        {"1969-12-31T23:59:59Z", "1969-12-31T23:59:59.000Z"},
    };

    for (size_t i = 0; i < CM_COUNT(good); i++) {
        char text[CM_RFC3339_CAP];
        int64_t ms = -1;

        ck_assert_msg(cm_rfc3339_parse(cm_str_of(good[i].text), &ms), "%s", good[i].text);
        cm_rfc3339(ms, text);
        ck_assert_str_eq(text, good[i].utc);
    }
}
END_TEST

START_TEST(what_is_no_time_is_refused)
{
    static const char *const bad[] = {"",
                                      "now",
                                      "2026",
                                      "2026-1-31",
                                      "2026-02-30",
                                      "2023-02-29",
                                      "1900-02-29",
                                      "2026-13-01",
                                      "2026-00-10",
                                      "2026-01-00",
                                      "2026-01-31T",
                                      "2026-01-31T08:15",
                                      "2026-01-31T08:15:00",
                                      "2026-01-31T24:00:00Z",
                                      "2026-01-31T08:60:00Z",
                                      "2026-01-31T08:15:61Z",
                                      "2026-01-31T08:15:00.Z",
                                      "2026-01-31T08:15:00+2:00",
                                      "2026-01-31T08:15:00+24:00",
                                      "2026-01-31T08:15:00Zx",
                                      "+026-01-31",
                                      "1769847300"};

    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        int64_t ms = 7;

        ck_assert_msg(!cm_rfc3339_parse(cm_str_of(bad[i]), &ms), "%s", bad[i]);
        ck_assert_int_eq(ms, 7);
    }
}
END_TEST

Suite *suite_clock(void)
{
    Suite *s = suite_create("clock");
    TCase *t = tcase_create("clock");

    tcase_add_test(t, writes_instants);
    tcase_add_test(t, agrees_with_the_c_library_on_every_day);
    tcase_add_test(t, months_begin_and_end_with_the_calendar);
    tcase_add_test(t, times_are_read_in_every_spelling_of_rfc_3339);
    tcase_add_test(t, what_is_no_time_is_refused);
    tcase_add_test(t, clocks_go_on);
    suite_add_tcase(s, t);
    return s;
}
