/* Store: a new master key, copies, and dropping old days, all while others go on. */
#include "core_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <stdlib.h>

#define SWEEP_MS (3600 * 1000)

/* ---- the master key */

const char *cm_store_key_source(const struct cm_store *s)
{
    return s->master.source;
}

bool cm_store_key_is_ours(const struct cm_store *s)
{
    return s->master.file != NULL;
}

struct rekey {
    struct cm_op op;
    char *text; /* owned, wiped */
    cm_store_done_fn *done;
    void *arg;
};

/* The new key is on the disk before anything is encrypted with it. */
static int rekey_with(struct cm_store *s, struct cm_str text, struct cm_err *err)
{
    unsigned char buf[CM_MASTER_CHECK_CAP];
    struct cm_aead_key key;
    struct cm_err why = {0};

    if (cm_master_derive(&key, text, err) < 0)
        return err->cls = CM_ERR_BAD_REQUEST, -1;
    if (s->master.file && cm_master_prepare(&s->master, text, err) < 0)
        return -1;
    if (s->driver->rekey(s->db, &key, cm_master_seal_check(&key, buf), err) < 0)
        return -1; /* NAME.new stays: whether the last commit reached the disk is for the next start to see */
    s->master.key = key;
    cm_wipe(&key, sizeof(key));
    if (s->master.file && cm_master_replace(&s->master, &why) < 0)
        cm_warn("store", "%s; the next start tries again", why.msg);
    return 0;
}

static void rekey_work(struct cm_op *op)
{
    struct rekey *r = CM_CONTAINER(op, struct rekey, op);
    struct cm_str text = cm_str_of(r->text);
    char made[CM_MASTER_TEXT_CAP];

    if (text.n > 0) {
        op->rc = rekey_with(op->s, text, &op->err);
    } else if (!op->s->master.file) {
        op->rc = cm_fail(&op->err, CM_ERR_BAD_REQUEST,
                         "give the new master key: the present one comes from %s, which chatmux "
                         "cannot change",
                         op->s->master.source);
    } else {
        cm_master_make(made);
        op->rc = rekey_with(op->s, cm_str_of(made), &op->err);
        cm_wipe(made, sizeof(made));
    }
}

static void rekey_tell(struct cm_op *op)
{
    struct rekey *r = CM_CONTAINER(op, struct rekey, op);

    cm_wipe(r->text, strlen(r->text));
    free(r->text);
    if (r->done)
        r->done(r->arg, cm_op_err(op));
}

void cm_store_rekey(struct cm_store *s, struct cm_str new_key, cm_store_done_fn *done, void *arg)
{
    struct rekey *r = CM_NEW(struct rekey);

    r->text = cm_str_dup(new_key);
    r->done = done;
    r->arg = arg;
    cm_op_start(&r->op, s, rekey_work, rekey_tell);
}

/* One job for each step, so that others get their turn between them. */
struct backup {
    struct cm_op op;
    char *path; /* owned */
    struct cm_store_backup *copy;
    bool done_all, give_up;
    cm_store_done_fn *done;
    void *arg;
};

static void backup_work(struct cm_op *op)
{
    struct backup *b = CM_CONTAINER(op, struct backup, op);
    const struct cm_store_driver *driver = op->s->driver;

    if (!b->copy && !b->give_up) {
        b->copy = driver->backup_begin(op->s->db, cm_str_of(b->path), &op->err);
        op->rc = b->copy ? 0 : -1;
    }
    if (b->give_up)
        op->rc = cm_fail(&op->err, CM_ERR_SHUTTING_DOWN, "the store is being closed");
    else if (op->rc == 0)
        op->rc = driver->backup_step(b->copy, &b->done_all, &op->err);
    if (b->copy && (op->rc < 0 || b->done_all)) {
        driver->backup_end(b->copy);
        b->copy = NULL;
    }
}

static void backup_tell(struct cm_op *op)
{
    struct backup *b = CM_CONTAINER(op, struct backup, op);

    if (op->rc == 0 && !b->done_all) {
        op->again = true;
        b->give_up = op->s->closing;
        return;
    }
    if (b->copy) /* the lanes have ended before it could */
        op->s->driver->backup_end(b->copy);
    free(b->path);
    if (b->done)
        b->done(b->arg, cm_op_err(op));
}

void cm_store_backup(struct cm_store *s, struct cm_str path, cm_store_done_fn *done, void *arg)
{
    struct backup *b = CM_NEW(struct backup);

    b->path = cm_str_dup(path);
    b->done = done;
    b->arg = arg;
    cm_op_start(&b->op, s, backup_work, backup_tell);
}

struct sweep {
    struct cm_op op;
    int64_t first_day;
};

static void sweep_work(struct cm_op *op)
{
    struct sweep *w = CM_CONTAINER(op, struct sweep, op);

    op->rc = op->s->driver->sweep(op->s->db, w->first_day, &op->err);
}

static void sweep_tell(struct cm_op *op)
{
    if (op->rc < 0 && op->job.ran)
        cm_warn("store", "old days of the request log could not be dropped: %s", op->err.msg);
}

void cm_sweep_due(void *arg)
{
    struct cm_store *s = arg;
    struct sweep *w = CM_NEW(struct sweep);

    w->first_day = cm_floor_div(s->clock->unix_ms(s->clock->arg), CM_DAY_MS) - s->keep_days;
    cm_op_start(&w->op, s, sweep_work, sweep_tell);
    cm_deadline_set(s->loop, &s->sweep_at, cm_loop_now_ms(s->loop) + SWEEP_MS);
}
