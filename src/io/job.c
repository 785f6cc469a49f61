/* Lanes of worker threads.
 *
 * A job goes queue -> running -> finished -> done. One mutex guards the lists of all lanes: it is held for some pointer moves, and jobs are few and long.
 * An async handle wakes the loop for those finished. */
#include "chatmux/io/job.h"

#include "chatmux/base/mem.h"

#include <signal.h>
#include <stdlib.h>

#define STACK_BYTES (512 * 1024)

struct lane {
    struct cm_jobs *jobs;
    uv_cond_t wake;
    struct cm_list queue, running; /* struct cm_job */
    size_t waiting;                /* in the queue */
    unsigned idle;                 /* threads that wait for work and were not promised any */
    unsigned max_threads, n_threads;
    uv_thread_t *threads; /* owned; only the loop's side touches these three */
};

struct cm_jobs {
    struct cm_loop *loop; /* not owned */
    uv_async_t async;
    size_t outstanding; /* started and not done; the loop's side only */
    uv_mutex_t
        mutex; /* guards the lists, counts and states of all lanes, `finished` and `stopping` */
    struct lane lanes[CM_LANES_N];
    struct cm_list finished;
    bool stopping;
};

static void move_to(struct cm_job *job, struct cm_list *list, enum cm_job_state state)
{
    cm_list_remove(&job->link);
    cm_list_push(list, &job->link);
    job->state = state;
}

static void lane_thread(void *arg)
{
    struct lane *lane = arg;
    struct cm_jobs *jobs = lane->jobs;

    uv_mutex_lock(&jobs->mutex);
    for (;;) {
        struct cm_job *job;

        while (cm_list_empty(&lane->queue) && !jobs->stopping) {
            lane->idle++;
            uv_cond_wait(&lane->wake, &jobs->mutex);
            lane->idle--;
        }
        if (cm_list_empty(&lane->queue))
            break;
        job = CM_LIST_ITEM(lane->queue.next, struct cm_job, link);
        lane->waiting--;
        job->ran = true;
        move_to(job, &lane->running, CM_JOB_RUNNING);
        uv_mutex_unlock(&jobs->mutex);
        job->work(job);
        uv_mutex_lock(&jobs->mutex);
        move_to(job, &jobs->finished, CM_JOB_FINISHED);
        uv_async_send(&jobs->async);
    }
    uv_mutex_unlock(&jobs->mutex);
}

/* Signals belong to the loop's thread. */
static void thread_add(struct lane *lane)
{
    uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = STACK_BYTES};
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = uv_thread_create_ex(&lane->threads[lane->n_threads], &options, lane_thread, lane);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CM_ASSERT(rc == 0 ||
              lane->n_threads > 0); /* a lane that cannot have its first thread cannot serve */
    lane->n_threads += rc == 0;
}

/* Takes everything that is finished and calls done, which may start and cancel others. */
static void jobs_settle(struct cm_jobs *jobs)
{
    for (;;) {
        struct cm_list *link;
        struct cm_job *job;

        uv_mutex_lock(&jobs->mutex);
        link = cm_list_pop(&jobs->finished);
        uv_mutex_unlock(&jobs->mutex);
        if (!link)
            return;
        job = CM_LIST_ITEM(link, struct cm_job, link);
        if (--jobs->outstanding == 0 && !uv_is_closing((uv_handle_t *)&jobs->async))
            uv_unref((uv_handle_t *)&jobs->async);
        job->done(
            job); /* may free it, and may close us: `jobs` itself lives until the close callback */
    }
}

static void on_finished(uv_async_t *async)
{
    jobs_settle(async->data);
}

struct cm_jobs *cm_jobs_new(struct cm_loop *loop)
{
    struct cm_jobs *jobs = CM_NEW(struct cm_jobs);
    unsigned cores = uv_available_parallelism();

    jobs->loop = loop;
    CM_ASSERT(uv_async_init(cm_loop_uv(loop), &jobs->async, on_finished) == 0);
    uv_unref((uv_handle_t *)&jobs->async); /* only jobs keep a loop going */
    jobs->async.data = jobs;
    CM_ASSERT(uv_mutex_init(&jobs->mutex) == 0);
    cm_list_init(&jobs->finished);
    for (int i = 0; i < CM_LANES_N; i++) {
        struct lane *lane = &jobs->lanes[i];

        lane->jobs = jobs;
        CM_ASSERT(uv_cond_init(&lane->wake) == 0);
        cm_list_init(&lane->queue);
        cm_list_init(&lane->running);
        lane->max_threads = i == CM_LANE_CPU && cores > 2 ? cores - 1 : 1;
        lane->threads = cm_calloc(lane->max_threads, sizeof(*lane->threads));
    }
    return jobs;
}

static void on_closed(uv_handle_t *handle)
{
    struct cm_jobs *jobs = handle->data;

    uv_mutex_destroy(&jobs->mutex);
    free(jobs);
}

void cm_jobs_close(struct cm_jobs *jobs)
{
    if (!jobs || uv_is_closing((uv_handle_t *)&jobs->async))
        return;
    uv_mutex_lock(&jobs->mutex);
    jobs->stopping = true;
    for (int i = 0; i < CM_LANES_N; i++) {
        struct lane *lane = &jobs->lanes[i];

        CM_LIST_EACH(&lane->queue, link)
        {
            struct cm_job *job = CM_LIST_ITEM(link, struct cm_job, link);

            atomic_store(&job->cancelled, true);
            move_to(job, &jobs->finished, CM_JOB_FINISHED);
        }
        lane->waiting = 0;
        if (i == CM_LANE_CPU)
            CM_LIST_EACH(&lane->running, link)
        atomic_store(&CM_LIST_ITEM(link, struct cm_job, link)->cancelled, true);
        uv_cond_broadcast(&lane->wake);
    }
    uv_mutex_unlock(&jobs->mutex);
    for (int i = 0; i < CM_LANES_N; i++)
        for (unsigned t = 0; t < jobs->lanes[i].n_threads; t++)
            uv_thread_join(&jobs->lanes[i].threads[t]);
    uv_close((uv_handle_t *)&jobs->async, on_closed);
    jobs_settle(jobs);
    for (int i = 0; i < CM_LANES_N; i++) {
        uv_cond_destroy(&jobs->lanes[i].wake);
        free(jobs->lanes[i].threads);
    }
}

void cm_job_start(struct cm_jobs *jobs, struct cm_job *job, enum cm_lane lane_id)
{
    struct lane *lane = &jobs->lanes[lane_id];
    bool add = false;

    atomic_store(&job->cancelled, false);
    job->ran = false;
    job->lane = lane_id;
    cm_list_init(&job->link);
    if (jobs->outstanding++ == 0 && !uv_is_closing((uv_handle_t *)&jobs->async))
        uv_ref((uv_handle_t *)&jobs->async);
    uv_mutex_lock(&jobs->mutex);
    if (jobs->stopping) { /* by a done during the close: it is settled there */
        atomic_store(&job->cancelled, true);
        move_to(job, &jobs->finished, CM_JOB_FINISHED);
    } else {
        move_to(job, &lane->queue, CM_JOB_QUEUED);
        lane->waiting++;
        add = lane->waiting > lane->idle && lane->n_threads < lane->max_threads;
        uv_cond_signal(&lane->wake);
    }
    uv_mutex_unlock(&jobs->mutex);
    if (add)
        thread_add(lane);
}

void cm_job_cancel(struct cm_jobs *jobs, struct cm_job *job)
{
    uv_mutex_lock(&jobs->mutex);
    atomic_store(&job->cancelled, true);
    if (job->state == CM_JOB_QUEUED) {
        jobs->lanes[job->lane].waiting--;
        move_to(job, &jobs->finished, CM_JOB_FINISHED);
        uv_async_send(&jobs->async);
    }
    uv_mutex_unlock(&jobs->mutex);
}

size_t cm_jobs_waiting(const struct cm_jobs *jobs, enum cm_lane lane)
{
    struct cm_jobs *mine =
        (struct cm_jobs *)(uintptr_t)jobs; /* the lock is no part of what callers see */
    size_t n;

    uv_mutex_lock(&mine->mutex);
    n = jobs->lanes[lane].waiting;
    uv_mutex_unlock(&mine->mutex);
    return n;
}
