/* Loop: tasks run before it sleeps, deadlines fire in order and never early, everything closes. */
#include "unit.h"

#include "chatmux/io/loop.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/rand.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct recorder {
    struct cm_loop *loop;
    struct cm_task *task;
    struct cm_deadline *deadline;
    unsigned n, stop_at;
    uint64_t at_ms[4];
};

static void count(void *arg)
{
    struct recorder *r = arg;

    if (r->n < CM_COUNT(r->at_ms))
        r->at_ms[r->n] = cm_mono_ms();
    if (++r->n == r->stop_at)
        cm_loop_stop(r->loop);
}

static void post_again(void *arg)
{
    struct recorder *r = arg;

    count(r);
    if (r->n < 3)
        cm_task_post(r->loop, r->task);
}

START_TEST(task_runs_once_and_on_a_later_turn)
{
    struct cm_loop *loop = cm_loop_new();
    struct recorder r = {.loop = loop};
    struct cm_task t;

    cm_task_init(&t, count, &r);
    cm_task_post(loop, &t);
    cm_task_post(loop, &t);
    ck_assert_uint_eq(r.n, 0);
    cm_loop_run(loop); /* a task keeps the loop alive, and nothing else is left after it */
    ck_assert_uint_eq(r.n, 1);
    cm_loop_free(loop);
}
END_TEST

START_TEST(task_may_post_itself_and_the_loop_does_not_sleep)
{
    struct cm_loop *loop = cm_loop_new();
    struct recorder r = {.loop = loop};
    struct cm_deadline far;
    struct cm_task t;

    cm_task_init(&t, post_again, &r);
    r.task = &t;
    r.stop_at = 3;
    cm_deadline_init(&far, count, &r);
    cm_deadline_set(loop, &far, cm_loop_now_ms(loop) + 20000);
    cm_task_post(loop, &t);
    cm_loop_run(loop);
    ck_assert_uint_eq(r.n, 3);
    ck_assert_uint_lt(r.at_ms[2] - r.at_ms[0], 5000);
    cm_deadline_clear(loop, &far);
    cm_loop_free(loop);
}
END_TEST

static void post_other(void *arg)
{
    struct recorder *r = arg;

    cm_task_post(r->loop, r->task);
}

START_TEST(task_of_a_deadline_runs_before_the_loop_sleeps)
{
    struct cm_loop *loop = cm_loop_new();
    struct recorder r = {.loop = loop, .stop_at = 1};
    struct cm_deadline soon, far;
    struct cm_task t;

    cm_task_init(&t, count, &r);
    r.task = &t;
    cm_deadline_init(&soon, post_other, &r);
    cm_deadline_init(&far, count, &r);
    cm_deadline_set(loop, &far, cm_loop_now_ms(loop) + 20000);
    cm_deadline_set(loop, &soon, cm_loop_now_ms(loop) + 5);
    cm_loop_run(loop);
    ck_assert_uint_eq(r.n, 1);
    ck_assert_uint_lt(cm_mono_ms(), far.at_ms - 10000);
    cm_deadline_clear(loop, &far);
    cm_loop_free(loop);
}
END_TEST

static void cancel_other(void *arg)
{
    struct recorder *r = arg;

    cm_task_cancel(r->task);
    cm_task_cancel(r->task);
}

START_TEST(task_can_be_cancelled_also_by_another_of_the_same_round)
{
    struct cm_loop *loop = cm_loop_new();
    struct recorder r = {.loop = loop};
    struct cm_task first, second;

    cm_task_init(&first, cancel_other, &r);
    cm_task_init(&second, count, &r);
    r.task = &second;
    cm_task_post(loop, &first);
    cm_task_post(loop, &second);
    cm_loop_run(loop);
    cm_task_post(loop, &second);
    cm_task_cancel(&second);
    cm_loop_run(loop);
    ck_assert_uint_eq(r.n, 0);
    cm_loop_free(loop);
}
END_TEST

struct due {
    struct cm_deadline d;
    struct cm_loop *loop;
    uint64_t *last_ms; /* of the one that fired before */
    unsigned *fired;
};

static void on_due(void *arg)
{
    struct due *due = arg;

    ck_quick(cm_mono_ms() >= due->d.at_ms); /* never early */
    ck_quick(due->d.at_ms >= *due->last_ms);
    ck_quick(due->d.slot == SIZE_MAX);
    *due->last_ms = due->d.at_ms;
    ++*due->fired;
}

START_TEST(deadlines_fire_in_order_whatever_was_moved)
{
    enum { N = 400 };
    struct cm_loop *loop = cm_loop_new();
    struct due *dues = cm_calloc(N, sizeof(*dues));
    uint64_t last_ms = 0, now_ms = cm_loop_now_ms(loop);
    unsigned fired = 0, cleared = 0;
    struct cm_rng rng;

    cm_rng_seed(&rng, 7);
    for (size_t i = 0; i < N; i++) {
        dues[i].loop = loop;
        dues[i].last_ms = &last_ms;
        dues[i].fired = &fired;
        cm_deadline_init(&dues[i].d, on_due, &dues[i]);
        cm_deadline_set(loop, &dues[i].d, now_ms + 1 + cm_rng_below(&rng, 120));
    }
    for (size_t i = 0; i < N; i++)
        cm_deadline_set(loop, &dues[cm_rng_below(&rng, N)].d, now_ms + 1 + cm_rng_below(&rng, 120));
    for (size_t i = 0; i < N; i += 3) {
        cm_deadline_clear(loop, &dues[i].d);
        cm_deadline_clear(loop, &dues[i].d); /* harmless */
        cleared++;
    }
    cm_loop_run(loop); /* ends: an armed deadline keeps the loop alive, none does not */
    ck_assert_uint_eq(fired, N - cleared);
    free(dues);
    cm_loop_free(loop);
}
END_TEST

static void set_in_the_past(void *arg)
{
    struct recorder *r = arg;

    count(r);
    if (r->n < 3)
        cm_deadline_set(r->loop, r->deadline, 0);
}

START_TEST(deadline_in_the_past_fires_on_a_later_turn)
{
    struct cm_loop *loop = cm_loop_new();
    struct recorder r = {.loop = loop};
    struct cm_deadline d;

    cm_deadline_init(&d, set_in_the_past, &r);
    r.deadline = &d;
    cm_deadline_set(loop, &d, 0);
    ck_assert_uint_eq(r.n, 0);
    cm_loop_run(loop);
    ck_assert_uint_eq(r.n, 3);
    ck_assert_uint_gt(r.at_ms[1], r.at_ms[0]); /* a turn each */
    ck_assert_uint_gt(r.at_ms[2], r.at_ms[1]);
    cm_loop_free(loop);
}
END_TEST

START_TEST(deadline_moved_forward_and_back)
{
    struct cm_loop *loop = cm_loop_new();
    struct recorder r = {.loop = loop};
    uint64_t start_ms = cm_loop_now_ms(loop);
    struct cm_deadline d;

    cm_deadline_init(&d, count, &r);
    cm_deadline_set(loop, &d, start_ms + 20000);
    cm_deadline_set(loop, &d, start_ms + 10); /* the timer must follow */
    cm_deadline_set(loop, &d, start_ms + 60); /* the timer fires early and is set again */
    cm_loop_run(loop);
    ck_assert_uint_eq(r.n, 1);
    ck_assert_uint_ge(r.at_ms[0], start_ms + 60);
    ck_assert_uint_lt(r.at_ms[0], start_ms + 5000);
    cm_loop_free(loop);
}
END_TEST

static void block(void *arg)
{
    (void)arg;
    usleep(60000);
}

START_TEST(lag_is_what_a_turn_took)
{
    struct cm_loop *loop = cm_loop_new();
    struct recorder r = {.loop = loop};
    struct cm_deadline first, second;
    uint64_t lag_us;

    cm_deadline_init(&first, block, NULL);
    cm_deadline_init(&second, count, &r);
    cm_deadline_set(loop, &first, cm_loop_now_ms(loop) + 10);
    cm_deadline_set(loop, &second, cm_loop_now_ms(loop) + 150);
    cm_loop_run(loop);
    lag_us = cm_loop_lag_us(loop);
    ck_assert_uint_ge(lag_us, 55000);
    ck_assert_uint_lt(lag_us, 10000000);
    ck_assert_uint_eq(cm_loop_lag_us(loop), 0);
    ck_assert_uint_ge(cm_loop_recent_lag_us(loop), 55000); /* whoever has asked before */
    sleep(2);
    ck_assert_uint_eq(cm_loop_recent_lag_us(loop), 0);
    cm_loop_free(loop);
}
END_TEST

static void on_closed(uv_handle_t *handle)
{
    ++*(unsigned *)handle->data;
}

START_TEST(free_waits_for_close_callbacks)
{
    struct cm_loop *loop = cm_loop_new();
    unsigned closed = 0;
    uv_timer_t timer;

    uv_timer_init(cm_loop_uv(loop), &timer);
    timer.data = &closed;
    uv_close((uv_handle_t *)&timer, on_closed);
    cm_loop_free(loop);
    ck_assert_uint_eq(closed, 1);
    cm_loop_free(NULL);
}
END_TEST

START_TEST(free_ends_the_process_when_a_handle_is_open)
{
    struct cm_loop *loop = cm_loop_new();
    uv_timer_t timer;

    uv_timer_init(cm_loop_uv(loop), &timer);
    cm_loop_free(loop);
}
END_TEST

START_TEST(free_ends_the_process_when_a_deadline_is_armed)
{
    struct cm_loop *loop = cm_loop_new();
    struct cm_deadline d;

    cm_deadline_init(&d, block, NULL);
    cm_deadline_set(loop, &d, cm_loop_now_ms(loop) + 1000);
    cm_loop_free(loop);
}
END_TEST

static atomic_bool released;

static void hang(uv_work_t *work)
{
    (void)work;
    while (!atomic_load(&released))
        usleep(1000);
}

static void on_hung(uv_work_t *work, int status)
{
    (void)work;
    (void)status;
}

START_TEST(free_does_not_wait_for_ever_for_a_thread)
{
    static struct cm_loop *loop; /* left behind, reachable */
    static uv_work_t work;
    uint64_t start_ms = cm_mono_ms();

    loop = cm_loop_new();
    uv_queue_work(cm_loop_uv(loop), &work, hang, on_hung);
    cm_loop_free(loop);
    ck_assert_uint_ge(cm_mono_ms() - start_ms, 2000);
    atomic_store(&released, true);
}
END_TEST

Suite *suite_loop(void)
{
    Suite *suite = suite_create("loop");
    TCase *tc = tcase_create("loop");

    tcase_add_test(tc, task_runs_once_and_on_a_later_turn);
    tcase_add_test(tc, task_may_post_itself_and_the_loop_does_not_sleep);
    tcase_add_test(tc, task_of_a_deadline_runs_before_the_loop_sleeps);
    tcase_add_test(tc, task_can_be_cancelled_also_by_another_of_the_same_round);
    tcase_add_test(tc, deadlines_fire_in_order_whatever_was_moved);
    tcase_add_test(tc, deadline_in_the_past_fires_on_a_later_turn);
    tcase_add_test(tc, deadline_moved_forward_and_back);
    tcase_add_test(tc, lag_is_what_a_turn_took);
    tcase_add_test(tc, free_waits_for_close_callbacks);
    tcase_add_test_raise_signal(tc, free_ends_the_process_when_a_handle_is_open, SIGABRT);
    tcase_add_test_raise_signal(tc, free_ends_the_process_when_a_deadline_is_armed, SIGABRT);
    tcase_add_test(tc, free_does_not_wait_for_ever_for_a_thread);
    suite_add_tcase(suite, tc);
    return suite;
}
