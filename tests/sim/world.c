#include "world.h"

#include "chatmux/base/mem.h"
#include "chatmux/io/httpd.h"
#include "chatmux/io/job.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define BEGINS_MS 1000000u                     /* monotonic */
#define BEGINS_UNIX_MS UINT64_C(1767225600000) /* 2026-01-01 */

static uint64_t seed, now_us = BEGINS_MS * UINT64_C(1000);
static struct cm_rng rng, kernel;
const char *world_how_to_replay = "";

void world_begin(uint64_t with_seed)
{
    seed = with_seed;
    cm_rng_seed(&rng, seed);
    cm_rng_seed(&kernel, seed + 1);
}

uint64_t dice(uint64_t sides)
{
    return cm_rng_below(&rng, sides);
}

bool chance(unsigned in_thousand)
{
    return dice(1000) < in_thousand;
}

void world_fail(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fprintf(stderr, "simulation with seed %llu, at %.3f s: ", (unsigned long long)seed,
            (double)now_us / 1e6 - BEGINS_MS / 1e3);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nsee it again: %s\n", world_how_to_replay);
    exit(1);
}

/* ---- the kernel ---- */

/* Instead of the C library's. */
int clock_gettime(clockid_t id, struct timespec *out)
{
    uint64_t us = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE
                      ? now_us + BEGINS_UNIX_MS * 1000 - BEGINS_MS * UINT64_C(1000)
                      : now_us;

    out->tv_sec = (time_t)(us / 1000000);
    out->tv_nsec = (long)(us % 1000000) * 1000;
    return 0;
}

ssize_t getrandom(void *out, size_t n, unsigned flags)
{
    unsigned char *p = out;

    (void)flags;
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)cm_rng_next(&kernel);
    return (ssize_t)n;
}

/* ---- io/loop ---- */

struct cm_loop {
    struct cm_list tasks;
    struct cm_deadline **heap; /* the earliest first */
    size_t n, cap;
    bool stopped;
};

struct cm_loop *cm_loop_new(void)
{
    struct cm_loop *loop = CM_NEW(struct cm_loop);

    cm_list_init(&loop->tasks);
    return loop;
}

void cm_loop_free(struct cm_loop *loop)
{
    if (!cm_list_empty(&loop->tasks) || loop->n > 0)
        world_fail("the loop ends with %zu deadlines that are armed", loop->n);
    free(loop->heap);
    free(loop);
}

uv_loop_t *cm_loop_uv(struct cm_loop *loop)
{
    (void)loop;
    world_fail("something real was asked for: there is no libuv here");
}

uint64_t cm_loop_now_ms(const struct cm_loop *loop)
{
    (void)loop;
    return now_us / 1000;
}

uint64_t cm_loop_lag_us(struct cm_loop *loop)
{
    (void)loop;
    return 0;
}

uint64_t cm_loop_recent_lag_us(struct cm_loop *loop)
{
    (void)loop;
    return 0;
}

void cm_task_init(struct cm_task *t, void (*fn)(void *arg), void *arg)
{
    cm_list_init(&t->link);
    t->fn = fn;
    t->arg = arg;
}

void cm_task_post(struct cm_loop *loop, struct cm_task *t)
{
    if (cm_list_empty(&t->link))
        cm_list_push(&loop->tasks, &t->link);
}

void cm_task_cancel(struct cm_task *t)
{
    cm_list_remove(&t->link);
}

static void heap_place(struct cm_loop *loop, size_t slot, struct cm_deadline *d)
{
    loop->heap[slot] = d;
    d->slot = slot;
}

static void heap_move(struct cm_loop *loop, size_t slot)
{
    struct cm_deadline *d = loop->heap[slot];

    while (slot > 0 && loop->heap[(slot - 1) / 2]->at_ms > d->at_ms) {
        heap_place(loop, slot, loop->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        size_t child = slot * 2 + 1;

        if (child + 1 < loop->n && loop->heap[child + 1]->at_ms < loop->heap[child]->at_ms)
            child++;
        if (child >= loop->n || loop->heap[child]->at_ms >= d->at_ms)
            break;
        heap_place(loop, slot, loop->heap[child]);
        slot = child;
    }
    heap_place(loop, slot, d);
}

void cm_deadline_init(struct cm_deadline *d, void (*fn)(void *arg), void *arg)
{
    *d = (struct cm_deadline){.slot = SIZE_MAX, .fn = fn, .arg = arg};
}

void cm_deadline_set(struct cm_loop *loop, struct cm_deadline *d, uint64_t at_ms)
{
    d->at_ms = at_ms;
    if (d->slot == SIZE_MAX) {
        if (loop->n == loop->cap) {
            loop->cap = loop->cap * 2 + 64;
            loop->heap = cm_realloc(loop->heap, loop->cap * sizeof(*loop->heap));
        }
        heap_place(loop, loop->n++, d);
    }
    heap_move(loop, d->slot);
}

void cm_deadline_clear(struct cm_loop *loop, struct cm_deadline *d)
{
    size_t slot = d->slot;

    if (slot == SIZE_MAX)
        return;
    d->slot = SIZE_MAX;
    if (slot != --loop->n) {
        heap_place(loop, slot, loop->heap[loop->n]);
        heap_move(loop, slot);
    }
}

static bool run_tasks(struct cm_loop *loop)
{
    struct cm_list batch, *link;

    if (cm_list_empty(&loop->tasks))
        return false;
    cm_list_init(&batch);
    while ((link = cm_list_pop(&loop->tasks)))
        cm_list_push(&batch, link);
    while ((link = cm_list_pop(&batch))) {
        struct cm_task *t = CM_LIST_ITEM(link, struct cm_task, link);

        t->fn(t->arg);
    }
    return true;
}

void cm_loop_run(struct cm_loop *loop)
{
    loop->stopped = false;
    while (!loop->stopped) {
        struct cm_deadline *d;

        now_us += 20; /* work takes time */
        if (run_tasks(loop))
            continue;
        if (loop->n == 0)
            return;
        d = loop->heap[0];
        if (d->at_ms * 1000 > now_us)
            now_us = d->at_ms * 1000;
        cm_deadline_clear(loop, d);
        d->fn(d->arg);
    }
}

void cm_loop_stop(struct cm_loop *loop)
{
    loop->stopped = true;
}

/* ---- io/job: the work is done at once, its end is told later ---- */

struct cm_jobs {
    struct cm_loop *loop;
    struct cm_task task;
    struct cm_list queue;
};

static void on_jobs(void *arg)
{
    struct cm_jobs *jobs = arg;
    struct cm_list *link;

    while ((link = cm_list_pop(&jobs->queue))) {
        struct cm_job *job = CM_LIST_ITEM(link, struct cm_job, link);

        job->ran = !job->cancelled;
        if (job->ran)
            job->work(job);
        job->done(job);
    }
}

struct cm_jobs *cm_jobs_new(struct cm_loop *loop)
{
    struct cm_jobs *jobs = CM_NEW(struct cm_jobs);

    jobs->loop = loop;
    cm_list_init(&jobs->queue);
    cm_task_init(&jobs->task, on_jobs, jobs);
    return jobs;
}

void cm_jobs_close(struct cm_jobs *jobs)
{
    on_jobs(jobs);
    cm_task_cancel(&jobs->task);
    free(jobs);
}

void cm_job_start(struct cm_jobs *jobs, struct cm_job *job, enum cm_lane lane)
{
    (void)lane;
    cm_list_init(&job->link);
    cm_list_push(&jobs->queue, &job->link);
    cm_task_post(jobs->loop, &jobs->task);
}

void cm_job_cancel(struct cm_jobs *jobs, struct cm_job *job)
{
    (void)jobs;
    job->cancelled = true;
}

size_t cm_jobs_waiting(const struct cm_jobs *jobs, enum cm_lane lane)
{
    (void)jobs;
    (void)lane;
    return 0;
}

/* ---- pauses ---- */

struct pause {
    struct cm_deadline d;
    void (*fn)(void *arg);
    void *arg;
};

static void on_pause_over(void *arg)
{
    struct pause *p = arg;
    void (*fn)(void *) = p->fn;
    void *fn_arg = p->arg;

    free(p);
    fn(fn_arg);
}

void world_after(struct cm_loop *loop, uint64_t ms, void (*fn)(void *arg), void *arg)
{
    struct pause *p = CM_NEW(struct pause);

    p->fn = fn;
    p->arg = arg;
    cm_deadline_init(&p->d, on_pause_over, p);
    cm_deadline_set(loop, &p->d, now_us / 1000 + ms);
}
