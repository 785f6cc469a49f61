/* Store: kept responses. Jobs of the store lane, so that what was kept is found by whoever asks after it; bounds are the driver's to enforce, the hourly
 * sweep is for when nobody comes. */
#include "core_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#define SWEEP_MS (3600 * 1000)
#define KEEPING_MAX (64u * 1024 * 1024) /* bytes that may wait for a disk that does not write */

static struct cm_response_bounds bounds_of(const struct cm_store *s)
{
    struct cm_response_bounds b = s->responses;

    b.now_ms = s->clock->unix_ms(s->clock->arg);
    return b;
}

bool cm_store_keeps_responses(const struct cm_store *s)
{
    return s->responses.ttl_ms > 0;
}

/* ---- keeping ---- */

struct keep {
    struct cm_op op;
    struct cm_arena arena; /* the copies; not in a core dump, wiped */
    struct cm_response_row row;
    struct cm_response_bounds bounds;
};

static void keep_work(struct cm_op *op)
{
    struct keep *k = CM_CONTAINER(op, struct keep, op);

    op->rc = op->s->driver->keep_response(op->s->db, &k->row, &k->bounds, &op->err);
}

static void keep_tell(struct cm_op *op)
{
    struct keep *k = CM_CONTAINER(op, struct keep, op);

    if (op->rc < 0)
        cm_warn("store", "the response " CM_PRI " is not kept: %s", CM_ARG(k->row.id), op->err.msg);
    op->s->keeping -= k->row.input.n + k->row.response.n;
    cm_arena_clear(&k->arena);
}

void cm_store_keep_response(struct cm_store *s, const struct cm_response_row *row)
{
    struct keep *k;

    if (!cm_store_keeps_responses(s) || s->closing)
        return;
    if (s->keeping + row->input.n + row->response.n > KEEPING_MAX) {
        cm_warn("store",
                "the response " CM_PRI " is not kept: %zu bytes of others wait to be "
                "written",
                CM_ARG(row->id), s->keeping);
        return;
    }
    s->keeping += row->input.n + row->response.n;
    k = CM_NEW(struct keep);
    k->arena.secret = true;
    k->row = *row;
    k->row.id = cm_arena_str(&k->arena, row->id);
    k->row.scope = cm_arena_str(&k->arena, row->scope);
    k->row.previous = cm_arena_str(&k->arena, row->previous);
    k->row.provider = cm_arena_str(&k->arena, row->provider);
    k->row.input = cm_arena_str(&k->arena, row->input);
    k->row.response = cm_arena_str(&k->arena, row->response);
    k->bounds = bounds_of(s);
    cm_op_start(&k->op, s, keep_work, keep_tell);
}

/* ---- reading ---- */

struct load {
    struct cm_op op;
    struct cm_response_find find;
    struct cm_response_bounds bounds;
    struct cm_arena *arena; /* the caller's */
    struct cm_response_row *rows;
    size_t n;
    cm_store_responses_fn *fn;
    void *arg;
};

static void load_work(struct cm_op *op)
{
    struct load *l = CM_CONTAINER(op, struct load, op);

    if (l->bounds.ttl_ms > 0)
        op->rc = op->s->driver->load_responses(op->s->db, &l->find, &l->bounds, l->arena, &l->rows,
                                               &l->n, &op->err);
}

static void load_tell(struct cm_op *op)
{
    struct load *l = CM_CONTAINER(op, struct load, op);

    l->fn(l->arg, op->rc < 0 ? NULL : l->rows, op->rc < 0 ? 0 : l->n, cm_op_err(op));
}

void cm_store_responses(struct cm_store *s, struct cm_str id, struct cm_str scope, bool turns,
                        size_t max_bytes, struct cm_arena *arena, cm_store_responses_fn *fn,
                        void *arg)
{
    struct load *l = CM_NEW(struct load);

    /* the rows refer to them */
    l->find = (struct cm_response_find){cm_arena_str(arena, id), cm_arena_str(arena, scope), turns,
                                        max_bytes};
    l->bounds = bounds_of(s);
    l->arena = arena;
    l->fn = fn;
    l->arg = arg;
    cm_op_start(&l->op, s, load_work, load_tell);
}

/* ---- dropping ---- */

struct drop {
    struct cm_op op;
    struct cm_arena arena;
    struct cm_str id, scope;
    cm_store_done_fn *done;
    void *arg;
};

static void drop_work(struct cm_op *op)
{
    struct drop *d = CM_CONTAINER(op, struct drop, op);

    op->rc = op->s->driver->drop_response(op->s->db, d->id, d->scope, &op->err);
}

static void drop_tell(struct cm_op *op)
{
    struct drop *d = CM_CONTAINER(op, struct drop, op);

    if (d->done)
        d->done(d->arg, cm_op_err(op));
    cm_arena_clear(&d->arena);
}

void cm_store_drop_response(struct cm_store *s, struct cm_str id, struct cm_str scope,
                            cm_store_done_fn *done, void *arg)
{
    struct drop *d = CM_NEW(struct drop);

    d->id = cm_arena_str(&d->arena, id);
    d->scope = cm_arena_str(&d->arena, scope);
    d->done = done;
    d->arg = arg;
    cm_op_start(&d->op, s, drop_work, drop_tell);
}

struct sweep {
    struct cm_op op;
    struct cm_response_bounds bounds;
};

static void sweep_work(struct cm_op *op)
{
    struct sweep *w = CM_CONTAINER(op, struct sweep, op);

    op->rc = op->s->driver->sweep_responses(op->s->db, &w->bounds, &op->err);
}

static void sweep_tell(struct cm_op *op)
{
    if (op->rc < 0 && op->job.ran)
        cm_warn("store", "old responses could not be dropped: %s", op->err.msg);
}

void cm_responses_due(void *arg)
{
    struct cm_store *s = arg;
    struct sweep *w = CM_NEW(struct sweep);

    w->bounds = bounds_of(s);
    cm_op_start(&w->op, s, sweep_work, sweep_tell);
    cm_deadline_set(s->loop, &s->responses_at, cm_loop_now_ms(s->loop) + SWEEP_MS);
}
