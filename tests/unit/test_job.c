/* Lanes of jobs. */
#include "chatmux/io/job.h"
#include "unit.h"

#include "chatmux/base/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static struct cm_loop *loop;
static struct cm_jobs *jobs;
static atomic_bool gate; /* jobs of kind WAIT go on when it opens */
static atomic_int working;

enum kind { QUICK, WAIT, OBEY }; /* OBEY: until cancelled */

struct task {
    struct cm_job job; /* first */
    enum kind kind;
    int number;
    bool seen_cancel; /* by work */
    int dones;
    pthread_t thread;
    struct task *then; /* started by done */
};

static int order[100], n_order; /* numbers in the order of their ends */

static void work(struct cm_job *job)
{
    struct task *t = (struct task *)job;

    atomic_fetch_add(&working, 1);
    t->thread = pthread_self();
    while (t->kind == WAIT && !atomic_load(&gate))
        usleep(500);
    while (t->kind == OBEY && !atomic_load(&job->cancelled))
        usleep(500);
    t->seen_cancel = atomic_load(&job->cancelled);
    atomic_fetch_sub(&working, 1);
}

static void done(struct cm_job *job)
{
    struct task *t = (struct task *)job;

    t->dones++;
    order[n_order++] = t->number;
    if (t->then)
        cm_job_start(jobs, &t->then->job, job->lane);
}

static void start(struct task *t, enum cm_lane lane, enum kind kind, int number)
{
    t->job.work = work;
    t->job.done = done;
    t->kind = kind;
    t->number = number;
    cm_job_start(jobs, &t->job, lane);
    ck_assert_int_eq(t->dones, 0); /* never from within the call */
}

static void wait_working(int n)
{
    for (int i = 0; i < 10000 && atomic_load(&working) != n; i++)
        usleep(500);
    ck_assert_int_eq(atomic_load(&working), n);
}

static void wait_done(const struct task *t)
{
    while (t->dones == 0)
        uv_run(cm_loop_uv(loop), UV_RUN_ONCE);
    ck_assert_int_eq(t->dones, 1);
}

static void open_loop(void)
{
    loop = cm_loop_new();
    jobs = cm_jobs_new(loop);
}

static void close_loop(void)
{
    cm_jobs_close(jobs);
    cm_loop_free(loop); /* ends the process unless uv_loop_close() is 0 */
}

START_TEST(a_lane_keeps_its_order)
{
    struct task t[50] = {{.number = 0}};

    open_loop();
    for (int i = 0; i < 50; i++)
        start(&t[i], CM_LANE_STORE, QUICK, i);
    cm_loop_run(loop); /* jobs alone keep it going, and nothing else does */
    ck_assert_int_eq(n_order, 50);
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(order[i], i);
        ck_assert(t[i].job.ran && !t[i].seen_cancel);
        ck_assert(pthread_equal(t[i].thread, t[0].thread) &&
                  !pthread_equal(t[i].thread, pthread_self()));
    }
    close_loop();
}
END_TEST

START_TEST(lanes_are_independent)
{
    struct task cpu[10] = {{.number = 0}}, store = {.number = 0}, file = {.number = 0};

    open_loop();
    for (int i = 0; i < 10; i++)
        start(&cpu[i], CM_LANE_CPU, WAIT, i);
    start(&store, CM_LANE_STORE, QUICK, 100);
    start(&file, CM_LANE_FILES, QUICK, 101);
    wait_done(&store);
    wait_done(&file);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(cpu[i].dones, 0);
    ck_assert_uint_gt(cm_jobs_waiting(jobs, CM_LANE_CPU), 0);
    ck_assert_uint_eq(cm_jobs_waiting(jobs, CM_LANE_STORE), 0);
    atomic_store(&gate, true);
    for (int i = 0; i < 10; i++)
        wait_done(&cpu[i]);
    close_loop();
}
END_TEST

START_TEST(a_queued_job_that_is_cancelled_never_runs)
{
    struct task a = {.number = 0}, b = {.number = 0}, c = {.number = 0};

    open_loop();
    start(&a, CM_LANE_STORE, WAIT, 1);
    start(&b, CM_LANE_STORE, QUICK, 2);
    start(&c, CM_LANE_STORE, QUICK, 3);
    wait_working(1);
    ck_assert_uint_eq(cm_jobs_waiting(jobs, CM_LANE_STORE), 2);
    cm_job_cancel(jobs, &b.job);
    cm_job_cancel(jobs, &b.job); /* twice is once */
    ck_assert_int_eq(b.dones, 0);
    ck_assert_uint_eq(cm_jobs_waiting(jobs, CM_LANE_STORE), 1);
    wait_done(&b); /* while the other still runs */
    ck_assert(!b.job.ran && atomic_load(&b.job.cancelled));
    ck_assert_int_eq(a.dones, 0);
    atomic_store(&gate, true);
    wait_done(&c);
    ck_assert(c.job.ran && a.dones == 1 && b.dones == 1);
    close_loop();
}
END_TEST

START_TEST(a_running_job_is_asked_to_stop)
{
    struct task t = {.number = 0};

    open_loop();
    start(&t, CM_LANE_CPU, OBEY, 1);
    wait_working(1);
    cm_job_cancel(jobs, &t.job);
    wait_done(&t);
    ck_assert(t.job.ran && t.seen_cancel);
    t.dones = 0;
    start(&t, CM_LANE_CPU, QUICK, 2); /* may be used again */
    wait_done(&t);
    ck_assert(t.job.ran && !t.seen_cancel);
    close_loop();
}
END_TEST

static void *open_gate_later(void *arg)
{
    usleep(100000);
    atomic_store(&gate, true);
    return arg;
}

START_TEST(close_waits_for_what_runs_and_settles_all)
{
    struct task store = {.number = 0}, queued = {.number = 0}, cpu = {.number = 0},
                again = {.number = 0};
    pthread_t opener;

    again.job.work = work;
    again.job.done = done;
    queued.then = &again; /* started while everything ends */
    open_loop();
    start(&store, CM_LANE_STORE, WAIT, 1);
    start(&queued, CM_LANE_STORE, QUICK, 2);
    start(&cpu, CM_LANE_CPU, OBEY, 3);
    wait_working(2);
    pthread_create(&opener, NULL, open_gate_later, NULL);
    close_loop();
    ck_assert(store.job.ran && store.dones == 1 && !store.seen_cancel);
    ck_assert(!queued.job.ran && queued.dones == 1 && atomic_load(&queued.job.cancelled));
    ck_assert(cpu.job.ran && cpu.dones == 1 && cpu.seen_cancel);
    ck_assert(!again.job.ran && again.dones == 1);
    pthread_join(opener, NULL);
}
END_TEST

START_TEST(unused_lanes_have_no_threads)
{
    open_loop();
    cm_loop_run(loop); /* returns at once */
    close_loop();
    cm_jobs_close(NULL);
}
END_TEST

Suite *suite_job(void)
{
    Suite *s = suite_create("job");
    TCase *t = tcase_create("job");

    tcase_add_test(t, a_lane_keeps_its_order);
    tcase_add_test(t, lanes_are_independent);
    tcase_add_test(t, a_queued_job_that_is_cancelled_never_runs);
    tcase_add_test(t, a_running_job_is_asked_to_stop);
    tcase_add_test(t, close_waits_for_what_runs_and_settles_all);
    tcase_add_test(t, unused_lanes_have_no_threads);
    suite_add_tcase(s, t);
    return s;
}
