/* The store without its database: opening, closing, and the jobs between loop and lanes.
 *
 * Happy path: rows are collected in `pending`; a quarter of a second later, or at 256 log rows, one flush takes all of it to the store lane. Changes
 * are jobs of their own on the same lane, which keeps the order of the calls. Reads for operators wait for the flush of what was collected before
 * them and run on the files lane.
 * Failure: what was not written returns to `pending`, the trouble is told, and the flush is tried again with a growing pause; meanwhile log rows above
 * 8 MiB are dropped, oldest first, but never their sums. A change that fails is told to its caller, and starts the same probing. */
#include "chatmux/store/store.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "core_int.h"

#include <stdio.h>
#include <stdlib.h>

static const struct cm_store_driver *const drivers[] = {&cm_store_sqlite};

/* ---- jobs */

static void op_work(struct cm_job *job)
{
    struct cm_op *op = CM_CONTAINER(job, struct cm_op, job);

    if (job->lane == CM_LANE_STORE)
        uv_mutex_lock(&op->s->in_db);
    op->work(op);
    if (job->lane == CM_LANE_STORE)
        uv_mutex_unlock(&op->s->in_db);
}

static void op_done(struct cm_job *job)
{
    struct cm_op *op = CM_CONTAINER(job, struct cm_op, job);
    struct cm_store *s = op->s;

    if (!job->ran)
        op->rc = cm_fail(&op->err, CM_ERR_SHUTTING_DOWN, "the store is being closed");
    op->tell(op);
    if (op->again) {
        op->again = false;
        cm_job_start(s->jobs, job, job->lane);
        return;
    }
    free(op);
    s->n_ops--;
    cm_store_close_on(s);
}

void cm_op_begin(struct cm_op *op, enum cm_lane lane)
{
    op->s->n_ops++;
    op->job.work = op_work;
    op->job.done = op_done;
    cm_job_start(op->s->jobs, &op->job, lane);
}

void cm_op_start(struct cm_op *op, struct cm_store *s, cm_op_fn *work, cm_op_fn *tell)
{
    op->s = s;
    op->work = work;
    op->tell = tell;
    cm_op_begin(op, CM_LANE_STORE);
}

const struct cm_err *cm_op_err(const struct cm_op *op)
{
    return op->rc < 0 ? &op->err : NULL;
}

/* ---- life */

struct cm_store_place cm_store_place(const char *table, uint64_t id, const char *column)
{
    struct cm_store_place p;
    int n = snprintf(p.text, sizeof(p.text), "%s/%llu/%s", table, (unsigned long long)id, column);

    CM_ASSERT(n > 0 && (size_t)n < sizeof(p.text));
    p.n = (size_t)n;
    return p;
}

static const struct cm_store_driver *find_driver(struct cm_str *url, struct cm_err *err)
{
    struct cm_str where = *url, scheme = cm_str_cut(&where, ':');

    for (size_t i = 0; i < CM_COUNT(drivers); i++)
        if (cm_str_eq_nocase(scheme, cm_str_of(drivers[i]->scheme))) {
            *url = where;
            return drivers[i];
        }
    cm_fail(err, CM_ERR_CONFIG,
            "store.url must be sqlite:FILE, not \"" CM_PRI "\"", /* may hold a password */
            CM_ARG(scheme));
    return NULL;
}

static int unlock_db(struct cm_store *s, const struct cm_store_setup *setup, struct cm_err *err)
{
    unsigned char buf[CM_MASTER_CHECK_CAP];
    struct cm_arena arena = {0};
    struct cm_str check;
    int rc = s->driver->load_check(s->db, &arena, &check, err);

    if (rc == 0)
        rc = cm_master_find(&s->master, setup, s->driver->dir(s->db), s->driver->name(s->db), check,
                            err);
    if (rc == 0 && check.n == 0)
        rc = s->driver->save_check(s->db, cm_master_seal_check(&s->master.key, buf), err);
    if (rc == 0)
        s->driver->set_key(s->db, &s->master.key);
    cm_arena_clear(&arena);
    return rc;
}

static int take_ids(struct cm_store *s, struct cm_err *err)
{
    struct cm_store_stamp stamp;

    if (s->driver->load_stamp(s->db, &stamp, err) < 0)
        return -1;
    s->rev = stamp.rev;
    s->next_id = s->ids_below =
        stamp.ids_below; /* raised by the first transaction, not by a start */
    return 0;
}

static void store_free(struct cm_store *s)
{
    s->driver->close(s->db);
    cm_group_clear(&s->pending);
    cm_master_clear(&s->master);
    uv_mutex_destroy(&s->in_db);
    free(s);
}

struct cm_store *cm_store_open(const struct cm_store_setup *setup, struct cm_err *err)
{
    struct cm_str where = setup->url;
    const struct cm_store_driver *driver = find_driver(&where, err);
    struct cm_store *s;

    if (!driver)
        return NULL;
    s = CM_NEW(struct cm_store);
    s->loop = setup->loop;
    s->jobs = setup->jobs;
    s->clock = setup->clock ? setup->clock : &cm_clock_system;
    s->driver = driver;
    s->keep_days = setup->keep_days;
    s->responses = (struct cm_response_bounds){.ttl_ms = setup->responses_ttl_ms,
                                               .max = setup->responses_max,
                                               .bytes = setup->responses_bytes};
    CM_ASSERT(uv_mutex_init(&s->in_db) == 0);
    cm_group_init(&s->pending);
    cm_list_init(&s->waiting);
    cm_deadline_init(&s->flush_at, cm_flush_due, s);
    cm_deadline_init(&s->sweep_at, cm_sweep_due, s);
    cm_deadline_init(&s->responses_at, cm_responses_due, s);
    s->db = driver->open(where, setup->state_dir, err);
    if (!s->db || unlock_db(s, setup, err) < 0 || take_ids(s, err) < 0) {
        store_free(s);
        return NULL;
    }
    if (s->keep_days > 0)
        cm_deadline_set(s->loop, &s->sweep_at, cm_loop_now_ms(s->loop) + 1);
    cm_deadline_set(s->loop, &s->responses_at, cm_loop_now_ms(s->loop) + 1);
    return s;
}

bool cm_store_is_unused(const struct cm_store *s)
{
    return s->next_id == 1 && s->ids_below <= 1;
}

struct closing {
    struct cm_job job;
    struct cm_store *s;
};

static void close_work(struct cm_job *job)
{
    struct cm_store *s = CM_CONTAINER(job, struct closing, job)->s;
    struct cm_err err;

    if (s->ids_below != s->next_id &&
        s->driver->save_ids(s->db, s->next_id, &err) < 0) /* then some numbers are skipped */
        cm_debug("store", "%s", err.msg);
    s->driver->close(s->db);
    s->db = NULL;
}

static void close_done(struct cm_job *job)
{
    struct closing *c = CM_CONTAINER(job, struct closing, job);
    void (*on_closed)(void *arg) = c->s->on_closed;
    void *arg = c->s->closed_arg;

    store_free(c->s);
    free(c);
    if (on_closed)
        on_closed(arg);
}

void cm_store_close_on(struct cm_store *s)
{
    struct closing *c;

    if (!s->closing || s->ending || s->flying)
        return;
    if (!cm_list_empty(&s->waiting) || (!s->tried_last && !cm_group_empty(&s->pending))) {
        s->tried_last = true;
        cm_flush_start(s);
        return;
    }
    if (s->n_ops > 0)
        return;
    s->ending = true;
    if (!cm_group_empty(&s->pending))
        cm_error("store", "%zu rows of the request log and their spending are lost: %s",
                 cm_group_entries(&s->pending),
                 s->trouble[0] ? s->trouble : "the process ended too soon");
    c = CM_NEW(struct closing);
    c->s = s;
    c->job.work = close_work;
    c->job.done = close_done;
    cm_job_start(s->jobs, &c->job, CM_LANE_STORE);
}

void cm_store_close(struct cm_store *s, void (*on_closed)(void *arg), void *arg)
{
    CM_ASSERT(!s->closing);
    s->on_closed = on_closed;
    s->closed_arg = arg;
    cm_deadline_clear(s->loop, &s->flush_at);
    cm_deadline_clear(s->loop, &s->sweep_at);
    cm_deadline_clear(s->loop, &s->responses_at);
    s->closing = true;
    cm_store_close_on(s);
}
