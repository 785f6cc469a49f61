/* The event loop on libuv: tasks, deadlines on one timer, and how late a turn was.
 *
 * A turn: timers (deadlines fire) -> prepare (tasks of timers, log) -> poll (callbacks of handles) -> check (their tasks) -> close callbacks. */
#include "chatmux/io/loop.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"

#include <signal.h>
#include <stdlib.h>

#define DEADLINE_GRAIN_MS 10  /* deadlines that lie close together fire in one go */
#define FREE_PATIENCE_MS 3000 /* how long a blocking call on libuv's threads may hold up the end */

struct cm_loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;    /* runs while tasks wait: the loop does not sleep then */
    uv_timer_t timer;  /* for the earliest deadline, or earlier */
    uint64_t timer_ms; /* when it is due; 0 = not running */
    struct cm_list tasks;
    struct cm_deadline **heap; /* owned; the earliest first */
    size_t n_heap, heap_cap;
    uint64_t woke_ms; /* when the last poll returned; 0 = none yet */
    uint64_t lag_us;
    uint64_t lag_second, recent_us[2]; /* worst of that second, and of the one before */
    bool impatient;                    /* cm_loop_free() has waited long enough */
};

/* ---- tasks */

void cm_task_init(struct cm_task *t, void (*fn)(void *arg), void *arg)
{
    cm_list_init(&t->link);
    t->fn = fn;
    t->arg = arg;
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* its being there makes poll return at once */
}

void cm_task_post(struct cm_loop *loop, struct cm_task *t)
{
    if (!cm_list_empty(&t->link))
        return;
    cm_list_push(&loop->tasks, &t->link);
    uv_idle_start(&loop->idle, on_idle);
}

void cm_task_cancel(struct cm_task *t)
{
    cm_list_remove(&t->link);
}

/* Those posted by a task wait for the next round, so that I/O gets its turn. */
static void tasks_run(struct cm_loop *loop)
{
    struct cm_list batch, *link;

    if (cm_list_empty(&loop->tasks)) {
        uv_idle_stop(&loop->idle); /* the last one may have been cancelled */
        return;
    }
    cm_list_init(&batch);
    cm_list_push(&loop->tasks, &batch);
    cm_list_remove(&loop->tasks); /* the ring now hangs on `batch` */
    while ((link = cm_list_pop(&batch))) {
        struct cm_task *t = CM_LIST_ITEM(link, struct cm_task, link);

        t->fn(t->arg);
    }
    if (cm_list_empty(&loop->tasks))
        uv_idle_stop(&loop->idle);
}

/* ---- deadlines: a binary heap */

static void heap_put(struct cm_loop *loop, size_t slot, struct cm_deadline *d)
{
    loop->heap[slot] = d;
    d->slot = slot;
}

static void heap_sift(struct cm_loop *loop, size_t slot, struct cm_deadline *d)
{
    for (size_t up; slot > 0 && loop->heap[up = (slot - 1) / 2]->at_ms > d->at_ms; slot = up)
        heap_put(loop, slot, loop->heap[up]);
    for (;;) {
        size_t down = slot * 2 + 1;

        if (down + 1 < loop->n_heap && loop->heap[down + 1]->at_ms < loop->heap[down]->at_ms)
            down++;
        if (down >= loop->n_heap || loop->heap[down]->at_ms >= d->at_ms)
            break;
        heap_put(loop, slot, loop->heap[down]);
        slot = down;
    }
    heap_put(loop, slot, d);
}

static void heap_remove(struct cm_loop *loop, struct cm_deadline *d)
{
    size_t slot = d->slot;
    struct cm_deadline *last = loop->heap[--loop->n_heap];

    d->slot = SIZE_MAX;
    if (last != d)
        heap_sift(loop, slot, last);
}

static void on_timer(uv_timer_t *timer);

/* The timer is moved forward only: when it fires too early it is set again, which is cheaper than following every move. */
static void timer_follow(struct cm_loop *loop)
{
    uint64_t due_ms, now_ms = uv_now(&loop->uv);

    if (loop->n_heap == 0) {
        if (loop->timer_ms > 0)
            uv_timer_stop(&loop->timer);
        loop->timer_ms = 0;
        return;
    }
    due_ms = (loop->heap[0]->at_ms + DEADLINE_GRAIN_MS - 1) / DEADLINE_GRAIN_MS * DEADLINE_GRAIN_MS;
    if (loop->timer_ms > 0 && loop->timer_ms <= due_ms)
        return;
    loop->timer_ms = due_ms;
    uv_timer_start(&loop->timer, on_timer, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct cm_loop *loop = timer->data;
    uint64_t now_ms = uv_now(&loop->uv);

    while (loop->n_heap > 0 && loop->heap[0]->at_ms <= now_ms) {
        struct cm_deadline *d = loop->heap[0];

        heap_remove(loop, d);
        d->fn(d->arg);
    }
    loop->timer_ms = 0;
    timer_follow(loop);
}

void cm_deadline_init(struct cm_deadline *d, void (*fn)(void *arg), void *arg)
{
    *d = (struct cm_deadline){.slot = SIZE_MAX, .fn = fn, .arg = arg};
}

void cm_deadline_set(struct cm_loop *loop, struct cm_deadline *d, uint64_t at_ms)
{
    uint64_t now_ms = uv_now(&loop->uv);

    if (at_ms <=
        now_ms) /* one that sets itself again while deadlines fire must not hold the loop */
        at_ms = now_ms + 1;
    d->at_ms = at_ms;
    if (d->slot == SIZE_MAX) {
        if (loop->n_heap == loop->heap_cap) {
            loop->heap_cap = loop->heap_cap > 0 ? loop->heap_cap * 2 : 64;
            loop->heap = cm_realloc(loop->heap, loop->heap_cap * sizeof(loop->heap[0]));
        }
        d->slot = loop->n_heap++;
    }
    heap_sift(loop, d->slot, d);
    if (loop->heap[0] == d)
        timer_follow(loop);
}

void cm_deadline_clear(struct cm_loop *loop, struct cm_deadline *d)
{
    if (d->slot == SIZE_MAX)
        return;
    heap_remove(loop, d);
    if (loop->n_heap == 0)
        timer_follow(loop); /* nothing is left to keep the loop alive for */
}

/* ---- turns */

static void lag_seconds(struct cm_loop *loop, uint64_t second)
{
    if (second == loop->lag_second)
        return;
    loop->recent_us[1] = second == loop->lag_second + 1 ? loop->recent_us[0] : 0;
    loop->recent_us[0] = 0;
    loop->lag_second = second;
}

static void note_lag(struct cm_loop *loop, uint64_t lag_us, uint64_t second)
{
    lag_seconds(loop, second);
    if (lag_us > loop->lag_us)
        loop->lag_us = lag_us;
    if (lag_us > loop->recent_us[0])
        loop->recent_us[0] = lag_us;
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct cm_loop *loop = prepare->data;

    tasks_run(loop);
    if (loop->woke_ms > 0) {
        uint64_t now_us = uv_hrtime() / 1000, woke_us = (loop->woke_ms + 1) * 1000;

        if (now_us > woke_us)
            note_lag(loop, now_us - woke_us, now_us / 1000000);
    }
    cm_log_flush();
}

static void on_check(uv_check_t *check)
{
    struct cm_loop *loop = check->data;

    loop->woke_ms = uv_now(&loop->uv); /* libuv read the clock when poll returned */
    tasks_run(loop);
}

uint64_t cm_loop_now_ms(const struct cm_loop *loop)
{
    return uv_now(&loop->uv);
}

uint64_t cm_loop_lag_us(struct cm_loop *loop)
{
    uint64_t lag_us = loop->lag_us;

    loop->lag_us = 0;
    return lag_us;
}

uint64_t cm_loop_recent_lag_us(struct cm_loop *loop)
{
    lag_seconds(loop, uv_hrtime() / 1000000000);
    return loop->recent_us[0] > loop->recent_us[1] ? loop->recent_us[0] : loop->recent_us[1];
}

uv_loop_t *cm_loop_uv(struct cm_loop *loop)
{
    return &loop->uv;
}

void cm_loop_run(struct cm_loop *loop)
{
    uv_update_time(&loop->uv);
    loop->woke_ms = 0;
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void cm_loop_stop(struct cm_loop *loop)
{
    uv_stop(&loop->uv);
}

/* ---- birth and death */

struct cm_loop *cm_loop_new(void)
{
    struct cm_loop *loop = CM_NEW(struct cm_loop);
    int rc = uv_loop_init(&loop->uv);

    if (rc != 0) {
        cm_error("loop", "cannot make an event loop: %s", uv_strerror(rc));
        cm_log_flush();
        exit(2);
    }
    /* libuv writes with write(2): a peer that left is an error code, not the end of the process */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
    cm_list_init(&loop->tasks);
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->idle);
    uv_timer_init(&loop->uv, &loop->timer);
    loop->prepare.data = loop->check.data = loop->idle.data = loop->timer.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
    uv_unref((uv_handle_t *)&loop->prepare);
    uv_unref((uv_handle_t *)&loop->check);
    return loop;
}

static void on_patience_end(uv_timer_t *timer)
{
    struct cm_loop *loop = timer->data;

    loop->impatient = true;
}

struct leftovers {
    const struct cm_loop *loop;
    unsigned n;
};

static void report_open(uv_handle_t *handle, void *arg)
{
    struct leftovers *left = arg;

    if (uv_is_closing(handle) || handle->data == left->loop)
        return;
    cm_error("loop", "a %s handle is still open at the end (%p)",
             uv_handle_type_name(uv_handle_get_type(handle)), (void *)handle);
    left->n++;
}

void cm_loop_free(struct cm_loop *loop)
{
    struct leftovers left = {.loop = loop};

    if (!loop)
        return;
    uv_walk(&loop->uv, report_open, &left);
    if (loop->n_heap > 0)
        cm_error("loop", "%zu deadlines are still armed at the end", loop->n_heap);
    if (left.n > 0 || loop->n_heap > 0) {
        cm_log_flush();
        abort();
    }
    uv_timer_start(&loop->timer, on_patience_end, FREE_PATIENCE_MS, 0);
    uv_unref((uv_handle_t *)&loop->timer);
    while (!loop->impatient && uv_loop_alive(&loop->uv))
        uv_run(&loop->uv, UV_RUN_ONCE);

    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    free(loop->heap), loop->heap = NULL;
    if (uv_loop_close(&loop->uv) == 0) {
        free(loop);
        return;
    }
    /* A name lookup that hangs on its thread still points into the loop. The process is about to end: leave both. */
    cm_warn("loop", "a blocking call does not return; left behind");
    cm_log_flush();
}
