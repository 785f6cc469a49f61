/* The event loop: one thread that owns everything. Loop thread only, unless said. */
#ifndef CHATMUX_IO_LOOP_H
#define CHATMUX_IO_LOOP_H

#include "chatmux/base/list.h"
#include <stdint.h>
#include <uv.h>

struct cm_loop;

struct cm_loop *cm_loop_new(void); /* also ignores SIGPIPE: libuv wants that */
/* All handles of others must be closed (or closing): runs the loop until their close callbacks have come and ends the process with a
 * message when one is left: uv_loop_close() is 0 at exit. NULL is fine. */
void cm_loop_free(struct cm_loop *loop);
uv_loop_t *cm_loop_uv(struct cm_loop *loop);

void cm_loop_run(struct cm_loop *loop); /* until nothing is left or cm_loop_stop() */
void cm_loop_stop(struct cm_loop *loop);

/* Runs fn(arg) on a later turn, before the loop sleeps again. Embedded in its owner; armed at most once at a time. */
struct cm_task {
    struct cm_list link;
    void (*fn)(void *arg);
    void *arg;
};
void cm_task_init(struct cm_task *t, void (*fn)(void *arg), void *arg);
void cm_task_post(struct cm_loop *loop, struct cm_task *t); /* no effect when posted already */
void cm_task_cancel(struct cm_task *t);

/* A deadline that is cheap to move: many start and few fire. Embedded in its owner, no handle to close; accurate to about 10 ms, never early.
 * All deadlines share one uv timer. */
struct cm_deadline {
    uint64_t at_ms; /* monotonic; meaningful while armed */
    size_t slot;    /* place in the heap; SIZE_MAX = not armed */
    void (*fn)(void *arg);
    void *arg;
};
void cm_deadline_init(struct cm_deadline *d, void (*fn)(void *arg), void *arg);
void cm_deadline_set(struct cm_loop *loop, struct cm_deadline *d,
                     uint64_t at_ms); /* also moves one that is armed */
void cm_deadline_clear(struct cm_loop *loop, struct cm_deadline *d);

uint64_t cm_loop_now_ms(const struct cm_loop *loop); /* monotonic, of this turn: no system call */

/* How late the loop was: the longest that callbacks of one turn kept it from polling since the last call, in microseconds, a millisecond less at most. */
uint64_t cm_loop_lag_us(struct cm_loop *loop);
/* The same of this second and the one before, whoever asks and how often. */
uint64_t cm_loop_recent_lag_us(struct cm_loop *loop);

#endif
