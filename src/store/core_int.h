/* Store, inside: the state that its parts share. store.c opens, closes and runs jobs; write.c collects, flushes and changes; read.c reads; upkeep.c
 * rekeys, copies and drops old days. Loop thread only, unless said. */
#ifndef CHATMUX_STORE_CORE_INT_H
#define CHATMUX_STORE_CORE_INT_H

#include "group_int.h"

struct cm_store {
    struct cm_loop *loop; /* not owned */
    struct cm_jobs *jobs; /* not owned */
    const struct cm_clock *clock;
    const struct cm_store_driver *driver;
    /* Held by the jobs of the store lane: what is loaded before the loop runs may meet a change that was started before it. */
    uv_mutex_t in_db;
    struct cm_store_db *db;  /* owned; by whoever holds in_db */
    struct cm_master master; /* its key: the lane's; source and file never change */
    int64_t keep_days;
    struct cm_response_bounds responses; /* without the time */
    size_t keeping;                      /* bytes of those on their way to the disk */
    uint64_t next_id;
    uint64_t ids_below; /* the mark on the disk: what is below is never given again */
    uint64_t rev;       /* of the last state or change */

    struct cm_store_group pending;
    struct cm_flush *flying; /* at most one; NULL = none */
    struct cm_list waiting;  /* whoever wants what is pending on the disk (write.c) */
    size_t log_bytes;        /* of entries in `pending` and `flying` */
    uint64_t dropped;        /* entries */
    struct cm_deadline flush_at, sweep_at, responses_at;
    char trouble[400]; /* "" = none */
    uint64_t retry_ms; /* the next pause; 0 = no trouble */
    bool probe;        /* the pool file refused: find out whether it can be written */

    size_t n_ops; /* that were started or wait for a flush */
    bool closing; /* cm_store_close() was called */
    bool tried_last, ending;
    void (*on_closed)(void *arg);
    void *closed_arg;
};

/* ---- jobs: work on a lane's thread, then told on the loop */

struct cm_op;
typedef void cm_op_fn(struct cm_op *op);

struct cm_op {
    struct cm_job job;
    struct cm_store *s;
    int rc; /* of the work */
    struct cm_err err;
    cm_op_fn *work;
    cm_op_fn *tell; /* on the loop; frees what the op holds beside itself */
    bool again;     /* set by tell: work once more */
};

/* On the store's lane. Allocated by the caller; freed after tell. */
void cm_op_start(struct cm_op *op, struct cm_store *s, cm_op_fn *work, cm_op_fn *tell);
/* On any lane, with `s`, `work` and `tell` set. */
void cm_op_begin(struct cm_op *op, enum cm_lane lane);
const struct cm_err *cm_op_err(const struct cm_op *op); /* NULL = fine */

/* ---- write.c */

/* One group on its way to the disk. */
struct cm_flush {
    struct cm_job job;
    struct cm_store *s;
    struct cm_store_group group;
    uint64_t ids_below;
    size_t bytes;                /* of the entries it began with */
    struct cm_group_cost *costs; /* owned; of its keys, since the group is the lane's meanwhile */
    size_t n_costs;
    struct cm_list waiting; /* those that this flush serves */
    bool tries_pool;
    int rc;
    struct cm_err err;
};

void cm_flush_start(struct cm_store *s);
void cm_flush_due(void *arg); /* struct cm_store: the deadline's */
/* fn is called when what is pending now has been written, or could not be. */
void cm_flush_wait(struct cm_store *s, cm_store_done_fn *fn, void *arg);

/* ---- the others */

void cm_sweep_due(void *arg);     /* struct cm_store: the deadline's */
void cm_responses_due(void *arg); /* likewise */
/* One step on the way out, when nothing is in the way. */
void cm_store_close_on(struct cm_store *s);

#endif
