/* Blocking work on threads of its own, in lanes, so that proof-of-work cannot starve the store. Loop thread only, but for `work`. */
#ifndef CHATMUX_IO_JOB_H
#define CHATMUX_IO_JOB_H

#include "chatmux/io/loop.h"
#include <stdatomic.h>

#define CM_LANES(X) X(STORE, "store") X(CPU, "cpu") X(FILES, "files")
enum cm_lane {
#define X(name, text) CM_LANE_##name,
    CM_LANES(X)
#undef X
        CM_LANES_N
};

struct cm_jobs;

/* A job is embedded in (or first member of) the struct it works on, which nobody else touches between start and done. */
struct cm_job {
    void (*work)(
        struct cm_job *
            job); /* on a lane's thread; polls `cancelled` when it runs for more than some milliseconds */
    /* On the loop, exactly once after every cm_job_start(), never from within it, also after a cancel (see `cancelled`, `ran`): frees what the job holds. */
    void (*done)(struct cm_job *job);
    atomic_bool cancelled;
    bool ran; /* work was called; for `done` */
    enum cm_lane lane;
    enum cm_job_state {
        CM_JOB_QUEUED,
        CM_JOB_RUNNING,
        CM_JOB_FINISHED
    } state;             /* guarded by the lanes */
    struct cm_list link; /* in the lane's queue, those that run or those finished */
};

/* store 1 thread, cpu max(1, cores − 1), files 1; threads start when they are first needed. Jobs of a lane begin in the order they were started in;
 * in a lane of one thread they also end in it. */
struct cm_jobs *cm_jobs_new(struct cm_loop *loop);
/* Cancels what is queued, asks what runs on the cpu lane to stop, waits for what runs, calls every done before it returns, ends the threads. NULL is fine. */
void cm_jobs_close(struct cm_jobs *jobs);

void cm_job_start(struct cm_jobs *jobs, struct cm_job *job, enum cm_lane lane);
/* One that is still queued never runs; one that runs is asked to stop. done follows either way. Not for a job whose done was called. */
void cm_job_cancel(struct cm_jobs *jobs, struct cm_job *job);
size_t cm_jobs_waiting(const struct cm_jobs *jobs, enum cm_lane lane); /* queued, not running */

#endif
