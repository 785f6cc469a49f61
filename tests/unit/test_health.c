/* What targets' traffic tells: who is busy, who is quick, and which provider gets nothing for a while. The clock is the test's. */
#include "gateway/health.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdio.h>

#define P CM_S("openai")
#define M CM_S("m")

static const struct health_rule rule = {.rate = 50, .attempts = 4};
static struct health *h;
static uint64_t now_ms;

static void setup(void)
{
    now_ms = 1000000;
    h = health_new();
}

static void teardown(void)
{
    health_free(h);
}

static bool trial; /* of the latest */

static void begin(const char *model)
{
    trial = health_begun(h, P, cm_str_of(model), now_ms);
}

static void end(const char *model, enum health_result result, int64_t first_ms)
{
    struct health_end e = {
        .result = result, .trial = trial, .streamed = true, .first_ms = first_ms, .took_ms = 500};

    health_ended(h, P, cm_str_of(model), &e, &rule, now_ms);
}

static void one(const char *model, enum health_result result, int64_t first_ms)
{
    begin(model);
    end(model, result, first_ms);
}

static double quick(const char *model)
{
    return health_first_ms(h, P, cm_str_of(model), true, now_ms);
}

START_TEST(attempts_in_flight_are_counted)
{
    ck_assert_uint_eq(health_busy(h, P, M), 0);
    begin("m");
    begin("m");
    begin("other");
    ck_assert_uint_eq(health_busy(h, P, M), 2);
    ck_assert_uint_eq(health_busy(h, CM_S("another"), M), 0);
    end("m", HEALTH_ANSWERED, 10);
    ck_assert_uint_eq(health_busy(h, P, M), 1);
}
END_TEST

START_TEST(a_slow_target_is_tried_again_when_its_time_is_forgotten)
{
    one("fast", HEALTH_ANSWERED, 200);
    one("slow", HEALTH_ANSWERED, 1000);
    ck_assert(quick("fast") < quick("slow"));
    now_ms += 3 * 60000;
    one("fast", HEALTH_ANSWERED, 200); /* kept fresh by its traffic */
    ck_assert(quick("slow") < quick("fast"));
    begin("slow"); /* one finds out; the others keep away */
    ck_assert(quick("slow") > quick("fast"));
    end("slow", HEALTH_ANSWERED, 150); /* it has recovered, which counts bit by bit */
    ck_assert(quick("slow") > quick("fast"));
    for (int i = 0; i < 20; i++)
        one("slow", HEALTH_ANSWERED, 150);
    ck_assert(quick("slow") < quick("fast"));
}
END_TEST

START_TEST(what_is_not_known_is_found_out_by_one)
{
    one("known", HEALTH_ANSWERED, 10);
    ck_assert(quick("new") == 0);
    begin("new");
    ck_assert(quick("new") > 1e9);
    end("new", HEALTH_LEFT, -1); /* the client left: still not known */
    ck_assert(quick("new") == 0);
}
END_TEST

START_TEST(a_failure_is_slow)
{
    one("good", HEALTH_ANSWERED, 3000);
    one("bad", HEALTH_FAILED, -1);
    ck_assert(quick("bad") > quick("good"));
}
END_TEST

START_TEST(streamed_and_whole_answers_are_measured_apart)
{
    one("m", HEALTH_ANSWERED, 200);
    ck_assert(health_first_ms(h, P, M, false, now_ms) == 0);
}
END_TEST

START_TEST(the_percentile_needs_samples)
{
    for (int i = 1; i <= 9; i++)
        one("m", HEALTH_ANSWERED, i);
    ck_assert_int_eq(health_first_p95(h, P, M, true), -1);
    for (int i = 10; i <= 20; i++)
        one("m", HEALTH_ANSWERED, i);
    ck_assert_int_eq(health_first_p95(h, P, M, true), 19);
    for (int i = 0; i < 64; i++)
        one("m", HEALTH_ANSWERED, 7); /* old ones are forgotten */
    ck_assert_int_eq(health_first_p95(h, P, M, true), 7);
}
END_TEST

START_TEST(names_that_clients_make_up_do_not_fill_the_memory)
{
    char name[32];

    begin("kept");
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof(name), "made-up-%d", i);
        one(name, HEALTH_ANSWERED, 5);
    }
    ck_assert(quick("made-up-9999") == 5);
    ck_assert(quick("made-up-0") == 0); /* forgotten */
    end("kept", HEALTH_ANSWERED, 5);    /* what is in flight is not */
}
END_TEST

/* ---- the breaker ---- */

static enum breaker_state breaker(void)
{
    return health_breaker(h, P, now_ms);
}

static bool admits(void)
{
    uint64_t wait_ms;

    return health_admits(h, P, now_ms, &wait_ms);
}

static void fail_often(void)
{
    for (int i = 0; i < 4; i++)
        one("m", HEALTH_FAILED, -1);
}

START_TEST(it_opens_when_enough_have_failed)
{
    uint64_t wait_ms;

    for (int i = 0; i < 3; i++)
        one("m", HEALTH_FAILED, -1);
    ck_assert_int_eq(breaker(), BREAKER_CLOSED); /* three say nothing yet */
    one("m", HEALTH_ANSWERED, 5);
    ck_assert_int_eq(breaker(), BREAKER_OPEN); /* three of four */
    ck_assert(!health_admits(h, P, now_ms, &wait_ms));
    ck_assert_uint_eq(wait_ms, 10000);
    ck_assert(health_admits(h, CM_S("another"), now_ms, &wait_ms));
}
END_TEST

START_TEST(a_few_failures_among_many_answers_do_not_open_it)
{
    for (int i = 0; i < 100; i++)
        one("m", i % 3 == 2 ? HEALTH_FAILED : HEALTH_ANSWERED, -1);
    ck_assert(admits());
}
END_TEST

START_TEST(old_failures_do_not_count)
{
    for (int i = 0; i < 3; i++)
        one("m", HEALTH_FAILED, -1);
    now_ms += 31000;
    one("m", HEALTH_FAILED, -1);
    ck_assert(admits());
    now_ms += 24 * 3600 * 1000;
    one("m", HEALTH_FAILED, -1);
    ck_assert(admits());
}
END_TEST

START_TEST(clients_that_leave_say_nothing)
{
    for (int i = 0; i < 100; i++)
        one("m", HEALTH_LEFT, -1);
    fail_often();
    ck_assert(!admits());
}
END_TEST

START_TEST(one_real_request_decides)
{
    fail_often();
    now_ms += 10000;
    ck_assert_int_eq(breaker(), BREAKER_HALF_OPEN);
    ck_assert(admits());
    begin("m");
    ck_assert(!admits()); /* one at a time */
    end("m", HEALTH_LEFT, -1);
    ck_assert(admits()); /* it told nothing: the next one */
    one("m", HEALTH_ANSWERED, 5);
    ck_assert_int_eq(breaker(), BREAKER_CLOSED);
    one("m", HEALTH_FAILED, -1); /* what was before is forgotten */
    ck_assert(admits());
}
END_TEST

START_TEST(it_stays_open_longer_each_time_up_to_a_minute)
{
    static const uint64_t lasts_ms[] = {10000, 20000, 40000, 60000, 60000};
    uint64_t wait_ms;

    fail_often();
    for (size_t i = 0; i < CM_COUNT(lasts_ms); i++) {
        ck_assert(!health_admits(h, P, now_ms, &wait_ms));
        ck_assert_uint_eq(wait_ms, lasts_ms[i]);
        now_ms += wait_ms;
        one("m", HEALTH_FAILED, -1);
    }
}
END_TEST

START_TEST(what_began_before_it_opened_decides_nothing)
{
    begin("m");
    fail_often();
    now_ms += 10000;
    begin("m");
    trial = false; /* the old one ends */
    end("m", HEALTH_ANSWERED, 5);
    ck_assert_int_eq(breaker(), BREAKER_HALF_OPEN);
    ck_assert(!admits()); /* the one that decides is still under way */
}
END_TEST

START_TEST(a_rate_of_0_never_opens_it)
{
    static const struct health_rule never = {.rate = 0, .attempts = 1};
    struct health_end e = {.result = HEALTH_FAILED, .first_ms = -1};

    for (int i = 0; i < 100; i++) {
        begin("m");
        health_ended(h, P, M, &e, &never, now_ms);
    }
    ck_assert(admits());
}
END_TEST

Suite *suite_health(void)
{
    Suite *s = suite_create("health");
    TCase *t = tcase_create("targets");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, attempts_in_flight_are_counted);
    tcase_add_test(t, a_slow_target_is_tried_again_when_its_time_is_forgotten);
    tcase_add_test(t, what_is_not_known_is_found_out_by_one);
    tcase_add_test(t, a_failure_is_slow);
    tcase_add_test(t, streamed_and_whole_answers_are_measured_apart);
    tcase_add_test(t, the_percentile_needs_samples);
    tcase_add_test(t, names_that_clients_make_up_do_not_fill_the_memory);
    suite_add_tcase(s, t);

    t = tcase_create("breaker");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, it_opens_when_enough_have_failed);
    tcase_add_test(t, a_few_failures_among_many_answers_do_not_open_it);
    tcase_add_test(t, old_failures_do_not_count);
    tcase_add_test(t, clients_that_leave_say_nothing);
    tcase_add_test(t, one_real_request_decides);
    tcase_add_test(t, it_stays_open_longer_each_time_up_to_a_minute);
    tcase_add_test(t, what_began_before_it_opened_decides_nothing);
    tcase_add_test(t, a_rate_of_0_never_opens_it);
    suite_add_tcase(s, t);
    return s;
}
