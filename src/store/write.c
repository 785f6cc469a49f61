/* Store: collecting, group commit, changes, and what happens when nothing can be written. */
#include "core_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define FLUSH_MS 250
#define FLUSH_ROWS 256
#define LOG_BYTES_MAX (8 * 1024 * 1024)
#define RETRY_MS 1000
#define RETRY_MAX_MS (30 * 1000)
#define IDS_BLOCK 64 /* identifiers that are marked ahead: as many are skipped by a crash */

/* ---- trouble */

static void schedule(struct cm_store *s, uint64_t in_ms)
{
    uint64_t at_ms = cm_loop_now_ms(s->loop) + in_ms;

    if (s->closing)
        return;
    if (s->flush_at.slot == SIZE_MAX || s->flush_at.at_ms > at_ms)
        cm_deadline_set(s->loop, &s->flush_at, at_ms);
}

static void trouble_begin(struct cm_store *s, const struct cm_err *err)
{
    if (s->retry_ms == 0) {
        s->retry_ms = RETRY_MS;
        cm_error("store",
                 "%s (requests go on; counters and the request log wait in memory, changes are "
                 "refused)",
                 err->msg);
    }
    snprintf(s->trouble, sizeof(s->trouble), "%s", err->msg);
}

static void trouble_end(struct cm_store *s)
{
    if (s->retry_ms > 0)
        cm_info("store", "writing works again (%llu rows of the request log were dropped so far)",
                (unsigned long long)s->dropped);
    s->retry_ms = 0;
    s->trouble[0] = '\0';
}

const char *cm_store_trouble(const struct cm_store *s)
{
    return s->trouble[0] ? s->trouble : NULL;
}

/* ---- flushing */

struct waiter {
    struct cm_list link;
    cm_store_done_fn *fn;
    void *arg;
};

/* Each file on its own: what was written is gone from the group, the rest goes back. */
static void flush_work(struct cm_job *job)
{
    struct cm_flush *f = CM_CONTAINER(job, struct cm_flush, job);
    const struct cm_store_driver *driver = f->s->driver;
    struct cm_store_db *db = f->s->db;

    uv_mutex_lock(&f->s->in_db);
    if (cm_group_has_pool(&f->group)) {
        f->rc = driver->write_pool(db, &f->group, &f->err);
        if (f->rc == 0)
            cm_group_clear_pool(&f->group);
    }
    CM_LIST_EACH(&f->group.days, link)
    {
        struct cm_store_day *day = CM_LIST_ITEM(link, struct cm_store_day, link);
        struct cm_err err = {0};

        if (driver->write_day(db, day, &err) == 0) {
            cm_group_free_day(day);
        } else {
            if (f->rc == 0)
                f->err = err;
            f->rc = -1;
        }
    }
    uv_mutex_unlock(&f->s->in_db);
}

static void drop_excess(struct cm_store *s)
{
    while (s->log_bytes > LOG_BYTES_MAX) {
        size_t bytes = cm_group_drop_oldest(&s->pending);

        if (bytes == 0)
            break; /* all of it is with the writer */
        s->log_bytes -= bytes;
        if (s->dropped++ == 0)
            cm_warn("store", "the request log cannot be written fast enough: dropping its oldest "
                             "rows (spending is kept)");
    }
}

static void tell_waiters(struct cm_list *waiting, const struct cm_err *err)
{
    struct cm_list *link;

    while ((link = cm_list_pop(waiting))) {
        struct waiter *w = CM_LIST_ITEM(link, struct waiter, link);

        w->fn(w->arg, err);
        free(w);
    }
}

static void flush_next(struct cm_store *s)
{
    if (s->flying) /* somebody who was told has asked for it */
        return;
    if (s->retry_ms > 0) {
        schedule(s, s->retry_ms);
        s->retry_ms = s->retry_ms * 2 < RETRY_MAX_MS ? s->retry_ms * 2 : RETRY_MAX_MS;
    } else if (!cm_list_empty(&s->waiting) || cm_group_entries(&s->pending) >= FLUSH_ROWS) {
        cm_flush_start(s);
    } else if (!cm_group_empty(&s->pending)) {
        schedule(s, FLUSH_MS);
    }
}

static void flush_done(struct cm_job *job)
{
    struct cm_flush *f = CM_CONTAINER(job, struct cm_flush, job);
    struct cm_store *s = f->s;
    bool ok;

    if (!job->ran)
        f->rc = cm_fail(&f->err, CM_ERR_SHUTTING_DOWN, "the store is being closed");
    ok = f->rc == 0;
    s->flying = NULL;
    s->log_bytes -= f->bytes - cm_group_bytes(&f->group);
    if (!cm_group_has_pool(&f->group) && f->ids_below > s->ids_below)
        s->ids_below = f->ids_below;
    if (ok && (f->tries_pool || !s->probe)) {
        s->probe = false;
        trouble_end(s);
    } else if (!ok && job->ran) {
        s->probe = s->probe || cm_group_has_pool(&f->group);
        trouble_begin(s, &f->err);
    }
    cm_group_return(&s->pending, &f->group);
    drop_excess(s);
    tell_waiters(&f->waiting, ok ? NULL : &f->err);
    if (!ok) /* the next attempt may be far away */
        tell_waiters(&s->waiting, &f->err);
    free(f->costs);
    free(f);
    if (s->closing)
        cm_store_close_on(s);
    else
        flush_next(s);
}

/* The mark that goes with everything that may name new identifiers; 0 when the reserve is large enough. */
static uint64_t ids_wanted(const struct cm_store *s)
{
    return s->next_id + IDS_BLOCK / 2 > s->ids_below ? s->next_id + IDS_BLOCK : 0;
}

void cm_flush_start(struct cm_store *s)
{
    struct cm_flush *f = CM_NEW(struct cm_flush);
    struct cm_list *link;

    CM_ASSERT(!s->flying);
    cm_deadline_clear(s->loop, &s->flush_at);
    f->s = s;
    f->group = s->pending;
    cm_list_init(&f->group.days);
    while ((link = cm_list_pop(&s->pending.days)))
        cm_list_push(&f->group.days, link);
    cm_group_init(&s->pending);
    f->group.probe = s->probe;
    f->group.stamp.ids_below = f->ids_below = ids_wanted(s);
    f->tries_pool = cm_group_has_pool(&f->group);
    f->bytes = cm_group_bytes(&f->group);
    f->n_costs = cm_group_costs(&f->group, &f->costs);
    cm_list_init(&f->waiting);
    while ((link = cm_list_pop(&s->waiting)))
        cm_list_push(&f->waiting, link);
    f->job.work = flush_work;
    f->job.done = flush_done;
    s->flying = f;
    cm_job_start(s->jobs, &f->job, CM_LANE_STORE);
}

void cm_flush_due(void *arg)
{
    struct cm_store *s = arg;

    if (!s->flying)
        cm_flush_start(s);
}

/* Something was added. */
static void collected(struct cm_store *s)
{
    if (s->closing || s->flying || s->retry_ms > 0) /* their end looks for more */
        return;
    if (cm_group_entries(&s->pending) >= FLUSH_ROWS)
        cm_flush_start(s);
    else
        schedule(s, FLUSH_MS);
}

void cm_flush_wait(struct cm_store *s, cm_store_done_fn *fn, void *arg)
{
    struct waiter *w = CM_NEW(struct waiter);

    w->fn = fn;
    w->arg = arg;
    cm_list_push(&s->waiting, &w->link);
    if (!s->flying)
        cm_flush_start(s);
}

static void no_one_waits(void *arg, const struct cm_err *err)
{
    (void)arg, (void)err;
}

void cm_store_flush(struct cm_store *s, cm_store_done_fn *done, void *arg)
{
    cm_flush_wait(s, done ? done : no_one_waits, arg);
}

void cm_store_count(struct cm_store *s, const struct cm_cred_count *count)
{
    struct cm_cred_count add = *count;

    add.month_requests = add.month_ms != 0 ? add.requests : 0;
    cm_group_count(&s->pending, &add);
    collected(s);
}

void cm_store_state(struct cm_store *s, uint64_t id, struct cm_str state, struct cm_str reason,
                    int64_t until_ms, struct cm_str quota)
{
    struct cm_store_state given = {
        .id = id,
        .rev = ++s->rev,
        .state = state,
        .reason = reason,
        .quota = quota,
        .until_ms = until_ms,
    };

    cm_group_state(&s->pending, &given);
    collected(s);
}

void cm_store_remember(struct cm_store *s, const struct cm_memory_row *row)
{
    if (row->value.n > CM_MEMORY_VALUE_MAX)
        return;
    cm_group_memory(&s->pending, row, false);
    collected(s);
}

void cm_store_forget(struct cm_store *s, const unsigned char key[32])
{
    struct cm_memory_row row = {0};

    memcpy(row.key, key, sizeof(row.key));
    cm_group_memory(&s->pending, &row, true);
    collected(s);
}

void cm_store_log(struct cm_store *s, const struct cm_request_row *row)
{
    s->log_bytes += cm_group_log(&s->pending, row);
    drop_excess(s);
    collected(s);
}

uint64_t cm_store_dropped(const struct cm_store *s)
{
    return s->dropped;
}

uint64_t cm_store_next_id(struct cm_store *s)
{
    uint64_t id = s->next_id++;

    if (ids_wanted(s) > 0)
        collected(s); /* the next transaction raises the mark */
    return id;
}

/* ---- changes */

struct change {
    struct cm_op op;
    struct cm_arena arena; /* the copies; wiped before it is freed */
    struct cm_change *changes;
    size_t n;
    struct cm_store_stamp stamp;
    cm_store_done_fn *done;
    void *arg;
};

static void change_work(struct cm_op *op)
{
    struct change *c = CM_CONTAINER(op, struct change, op);

    op->rc = op->s->driver->change(op->s->db, c->changes, c->n, &c->stamp, &op->err);
}

static void wipe_str(struct cm_str s)
{
    cm_wipe((void *)(uintptr_t)s.p, s.n);
}

static void change_tell(struct cm_op *op)
{
    struct change *c = CM_CONTAINER(op, struct change, op);
    struct cm_store *s = op->s;

    if (op->rc == 0) {
        if (c->stamp.ids_below > s->ids_below)
            s->ids_below = c->stamp.ids_below;
        if (s->retry_ms > 0)
            schedule(s, 0); /* it works again: the rest need not wait */
    } else if (op->job.ran && op->err.cls != CM_ERR_BAD_REQUEST) {
        s->probe = true;
        trouble_begin(s, &op->err);
        if (!s->flying)
            schedule(s, s->retry_ms);
    }
    for (size_t i = 0; i < c->n; i++)
        if (c->changes[i].cred) {
            wipe_str(c->changes[i].cred->secret);
            wipe_str(c->changes[i].cred->token);
            wipe_str(c->changes[i].cred->proxy);
        }
    cm_arena_clear(&c->arena);
    if (c->done)
        c->done(c->arg, cm_op_err(op));
}

static const struct cm_cred_row *copy_cred(struct cm_arena *a, const struct cm_cred_row *given)
{
    struct cm_cred_row *row = CM_ARENA_NEW(a, struct cm_cred_row);

    *row = *given;
    row->provider = cm_arena_str(a, given->provider);
    row->label = cm_arena_str(a, given->label);
    row->secret = cm_arena_str(a, given->secret);
    row->token = cm_arena_str(a, given->token);
    row->proxy = cm_arena_str(a, given->proxy);
    row->state = cm_arena_str(a, given->state);
    row->reason = cm_arena_str(a, given->reason);
    row->quota = cm_arena_str(a, given->quota);
    return row;
}

static const struct cm_memory_row *copy_memory(struct cm_arena *a,
                                               const struct cm_memory_row *given)
{
    struct cm_memory_row *row = CM_ARENA_NEW(a, struct cm_memory_row);

    *row = *given;
    row->value = cm_arena_str(a, given->value);
    return row;
}

static const struct cm_key_row *copy_key(struct cm_arena *a, const struct cm_key_row *given)
{
    struct cm_key_row *row = CM_ARENA_NEW(a, struct cm_key_row);

    *row = *given;
    row->name = cm_arena_str(a, given->name);
    row->hint = cm_arena_str(a, given->hint);
    row->models = cm_arena_str(a, given->models);
    row->budget_period = cm_arena_str(a, given->budget_period);
    return row;
}

void cm_store_change(struct cm_store *s, const struct cm_change *changes, size_t n,
                     cm_store_done_fn *done, void *arg)
{
    struct change *c = CM_NEW(struct change);

    c->changes = CM_ARENA_ARRAY(&c->arena, struct cm_change, n);
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        const struct cm_change *from = &changes[i];

        c->changes[i] = (struct cm_change){
            .kind = from->kind,
            .cred = from->kind == CM_CHANGE_PUT_CRED || from->kind == CM_CHANGE_SET_TOKEN
                        ? copy_cred(&c->arena, from->cred)
                        : NULL,
            .key = from->kind == CM_CHANGE_PUT_KEY ? copy_key(&c->arena, from->key) : NULL,
            .memory =
                from->kind == CM_CHANGE_PUT_MEMORY ? copy_memory(&c->arena, from->memory) : NULL,
            .id = from->id,
        };
        if (from->kind == CM_CHANGE_PUT_CRED && from->cred->month_anew) {
            cm_group_month_anew(&s->pending, from->cred->id);
            cm_group_drop_memories(&s->pending, from->cred->id);
        }
    }
    c->stamp = (struct cm_store_stamp){.rev = ++s->rev, .ids_below = ids_wanted(s)};
    c->done = done;
    c->arg = arg;
    cm_op_start(&c->op, s, change_work, change_tell);
}
