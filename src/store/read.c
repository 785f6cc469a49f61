/* Store: reading. For operators on the files lane, after the flush of what was collected before; spending on the store lane. */
#include "core_int.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

/* ---- the request log */

struct read_requests {
    struct cm_op op;
    struct cm_arena arena;
    struct cm_request_query q;
    struct cm_request_row *rows;
    size_t n;
    struct cm_str next;
    cm_store_requests_fn *fn;
    void *arg;
};

static void requests_work(struct cm_op *op)
{
    struct read_requests *r = CM_CONTAINER(op, struct read_requests, op);

    op->rc =
        op->s->driver->requests(op->s->db, &r->q, &r->arena, &r->rows, &r->n, &r->next, &op->err);
}

static void requests_tell(struct cm_op *op)
{
    struct read_requests *r = CM_CONTAINER(op, struct read_requests, op);

    if (op->rc < 0)
        r->fn(r->arg, NULL, 0, CM_STR_NONE, &op->err);
    else
        r->fn(r->arg, r->rows, r->n, r->next, NULL);
    cm_arena_clear(&r->arena);
}

/* After the flush, whatever became of it: what is on the disk can be read. */
static void read_start(void *arg, const struct cm_err *err)
{
    struct cm_op *op = arg;

    (void)err;
    op->s->n_ops--; /* it was counted while it waited */
    cm_op_begin(op, CM_LANE_FILES);
}

static void read_after_flush(struct cm_op *op, struct cm_store *s, cm_op_fn *work, cm_op_fn *tell)
{
    op->s = s;
    op->work = work;
    op->tell = tell;
    if (s->retry_ms > 0 || (cm_group_empty(&s->pending) && !s->flying)) {
        cm_op_begin(op, CM_LANE_FILES);
        return;
    }
    s->n_ops++;
    cm_flush_wait(s, read_start, op);
}

void cm_store_requests(struct cm_store *s, const struct cm_request_query *q,
                       cm_store_requests_fn *fn, void *arg)
{
    struct read_requests *r = CM_NEW(struct read_requests);

    r->q = *q;
    r->q.cursor = cm_arena_str(&r->arena, q->cursor);
    r->q.key = cm_arena_str(&r->arena, q->key);
    r->q.model = cm_arena_str(&r->arena, q->model);
    r->q.outcome = cm_arena_str(&r->arena, q->outcome);
    r->q.id = cm_arena_str(&r->arena, q->id);
    r->fn = fn;
    r->arg = arg;
    read_after_flush(&r->op, s, requests_work, requests_tell);
}

struct read_usage {
    struct cm_op op;
    struct cm_arena arena;
    struct cm_usage_query q;
    struct cm_usage_row *rows;
    size_t n;
    cm_store_usage_fn *fn;
    void *arg;
};

static void usage_work(struct cm_op *op)
{
    struct read_usage *r = CM_CONTAINER(op, struct read_usage, op);

    op->rc = op->s->driver->usage(op->s->db, &r->q, &r->arena, &r->rows, &r->n, &op->err);
}

static void usage_tell(struct cm_op *op)
{
    struct read_usage *r = CM_CONTAINER(op, struct read_usage, op);

    r->fn(r->arg, op->rc < 0 ? NULL : r->rows, op->rc < 0 ? 0 : r->n, cm_op_err(op));
    cm_arena_clear(&r->arena);
}

void cm_store_usage(struct cm_store *s, const struct cm_usage_query *q, cm_store_usage_fn *fn,
                    void *arg)
{
    struct read_usage *r = CM_NEW(struct read_usage);

    r->q = *q;
    r->q.by = cm_arena_str(&r->arena, q->by);
    if (r->q.to_ms == 0)
        r->q.to_ms = s->clock->unix_ms(s->clock->arg) + 1;
    r->fn = fn;
    r->arg = arg;
    read_after_flush(&r->op, s, usage_work, usage_tell);
}

struct read_spent {
    struct cm_op op;
    struct cm_arena arena;
    int64_t since_ms;
    struct cm_spent *rows;
    size_t n;
    cm_store_spent_fn *fn;
    void *arg;
};

static void spent_work(struct cm_op *op)
{
    struct read_spent *r = CM_CONTAINER(op, struct read_spent, op);

    op->rc =
        op->s->driver->load_spent(op->s->db, r->since_ms, &r->arena, &r->rows, &r->n, &op->err);
}

static void add_costs(struct cm_spending *sp, const struct cm_group_cost *costs, size_t n,
                      int64_t since_ms)
{
    for (size_t i = 0; i < n; i++)
        if (costs[i].hour >= cm_floor_div(since_ms, CM_HOUR_MS))
            cm_spending_add(sp, costs[i].key_id, costs[i].micro_usd);
}

/* A flush that was started before this read has been settled before it, one that was started after it was not read: what is flying is missing. */
static void spent_tell(struct cm_op *op)
{
    struct read_spent *r = CM_CONTAINER(op, struct read_spent, op);
    struct cm_spending sp = {.arena = &r->arena};
    struct cm_flush *flying = op->s->flying;
    struct cm_group_cost *costs;
    size_t n;

    if (op->rc < 0) {
        r->fn(r->arg, NULL, 0, &op->err);
        cm_arena_clear(&r->arena);
        return;
    }
    for (size_t i = 0; i < r->n; i++)
        cm_spending_add(&sp, r->rows[i].key_id, r->rows[i].micro_usd);
    if (flying)
        add_costs(&sp, flying->costs, flying->n_costs, r->since_ms);
    n = cm_group_costs(&op->s->pending, &costs);
    add_costs(&sp, costs, n, r->since_ms);
    free(costs);
    r->n = cm_spending_end(&sp, &r->rows);
    r->fn(r->arg, r->rows, r->n, NULL);
    cm_arena_clear(&r->arena);
}

void cm_store_spent(struct cm_store *s, int64_t since_ms, cm_store_spent_fn *fn, void *arg)
{
    struct read_spent *r = CM_NEW(struct read_spent);

    r->since_ms = since_ms;
    r->fn = fn;
    r->arg = arg;
    cm_op_start(&r->op, s, spent_work, spent_tell);
}

int cm_store_load_creds(struct cm_store *s, struct cm_arena *arena, struct cm_cred_row **rows,
                        size_t *n, struct cm_err *err)
{
    int rc;

    uv_mutex_lock(&s->in_db);
    rc = s->driver->load_creds(s->db, arena, rows, n, err);
    uv_mutex_unlock(&s->in_db);
    return rc;
}

int cm_store_load_keys(struct cm_store *s, struct cm_arena *arena, struct cm_key_row **rows,
                       size_t *n, struct cm_err *err)
{
    int rc;

    uv_mutex_lock(&s->in_db);
    rc = s->driver->load_keys(s->db, arena, rows, n, err);
    uv_mutex_unlock(&s->in_db);
    return rc;
}

int cm_store_load_memories(struct cm_store *s, struct cm_arena *arena, struct cm_memory_row **rows,
                           size_t *n, struct cm_err *err)
{
    int rc;

    uv_mutex_lock(&s->in_db);
    rc = s->driver->load_memories(s->db, s->clock->unix_ms(s->clock->arg), arena, rows, n, err);
    uv_mutex_unlock(&s->in_db);
    return rc;
}

int cm_store_load_spent(struct cm_store *s, int64_t since_ms, struct cm_arena *arena,
                        struct cm_spent **rows, size_t *n, struct cm_err *err)
{
    int rc;

    uv_mutex_lock(&s->in_db);
    rc = s->driver->load_spent(s->db, since_ms, arena, rows, n, err);
    uv_mutex_unlock(&s->in_db);
    return rc;
}

/* ---- one credential */

struct read_cred {
    struct cm_op op;
    struct cm_arena arena; /* wiped */
    uint64_t id;
    struct cm_cred_row *row;
    cm_store_cred_fn *fn;
    void *arg;
};

static void cred_work(struct cm_op *op)
{
    struct read_cred *r = CM_CONTAINER(op, struct read_cred, op);

    op->rc = op->s->driver->load_cred(op->s->db, r->id, &r->arena, &r->row, &op->err);
}

static void cred_tell(struct cm_op *op)
{
    struct read_cred *r = CM_CONTAINER(op, struct read_cred, op);

    r->fn(r->arg, op->rc < 0 ? NULL : r->row, cm_op_err(op));
    cm_arena_clear(&r->arena);
}

/* On the lane of those who write: behind the changes that were made before. */
void cm_store_cred(struct cm_store *s, uint64_t id, cm_store_cred_fn *fn, void *arg)
{
    struct read_cred *r = CM_NEW(struct read_cred);

    r->arena.secret = true;
    r->id = id;
    r->fn = fn;
    r->arg = arg;
    cm_op_start(&r->op, s, cred_work, cred_tell);
}
