/* Conversations that are to be deleted and are still there, remembered for their account: what a run could not delete any more, because its time was over,
 * the platform did not answer or the process ended, a later one does. That a run is at one of them is remembered apart, and not over a restart. */
#include "chatmux/provider/run.h"

#include "chatmux/base/log.h"

#define KEY CM_S("left") /* "FAILURES:ID FAILURES:ID", the newest last */
#define KEPT_MS (7 * 24 * 3600 * 1000LL)
#define BYTES_MAX 4000
#define FAILURES_MAX 5 /* it may be gone, and the platform says so in words that nobody knows */

struct entry {
    struct cm_str id;
    uint64_t failures;
};

static bool next_entry(struct cm_str *list, struct entry *out)
{
    while (list->n > 0) {
        struct cm_str text = cm_str_cut(list, ' ');

        if (cm_str_to_u64(cm_str_cut(&text, ':'), INT32_MAX, &out->failures)) {
            out->id = text;
            return true;
        }
    }
    return false;
}

static void put_entry(struct cm_buf *out, const struct entry *e)
{
    cm_buf_printf(out, "%s%llu:" CM_PRI, out->n ? " " : "", (unsigned long long)e->failures,
                  CM_ARG(e->id));
}

static struct cm_str busy_key(struct cm_run *run, struct cm_str id)
{
    return cm_arena_printf(cm_run_arena(run), "is being left\n" CM_PRI, CM_ARG(id));
}

/* The list without this conversation, of which *failures is told. */
static void list_without(struct cm_run *run, struct cm_str id, struct cm_buf *out,
                         uint64_t *failures)
{
    struct cm_str left;
    struct entry e;

    *failures = 0;
    if (!cm_run_recall(run, KEY, &left))
        return;
    while (next_entry(&left, &e)) {
        if (cm_str_eq(e.id, id))
            *failures = e.failures;
        else
            put_entry(out, &e);
    }
}

static void keep(struct cm_run *run, struct cm_buf *list)
{
    if (list->n > 0)
        cm_run_remember_durably(run, KEY, cm_buf_str(list), KEPT_MS);
    else
        cm_run_forget(run, KEY);
    cm_buf_clear(list);
}

static void put(struct cm_run *run, struct cm_buf *list, const struct entry *e)
{
    if (list->n + e->id.n < BYTES_MAX && cm_str_find_char(e->id, ' ') == SIZE_MAX)
        put_entry(list, e);
    keep(run, list);
}

void cm_run_left_put(struct cm_run *run, struct cm_str id, int64_t mine_ms)
{
    struct entry e = {.id = id};
    struct cm_buf list = {0};

    list_without(run, id, &list, &e.failures);
    put(run, &list, &e);
    if (mine_ms > 0)
        cm_run_remember(run, busy_key(run, id), CM_S("1"), mine_ms);
    else
        cm_run_forget(run, busy_key(run, id));
}

void cm_run_left_failed(struct cm_run *run, struct cm_str id)
{
    struct entry e = {.id = id};
    struct cm_buf list = {0};

    cm_run_forget(run, busy_key(run, id));
    list_without(run, id, &list, &e.failures);
    if (++e.failures < FAILURES_MAX) {
        put(run, &list, &e);
        return;
    }
    cm_warn("run", CM_PRI ": a conversation could not be deleted %d times, it stays: " CM_PRI,
            CM_ARG(cm_run_cred(run)->label), FAILURES_MAX, CM_ARG(id));
    keep(run, &list);
}

void cm_run_left_gone(struct cm_run *run, struct cm_str id)
{
    struct cm_buf list = {0};
    uint64_t failures;

    cm_run_forget(run, busy_key(run, id));
    list_without(run, id, &list, &failures);
    keep(run, &list);
}

struct cm_str cm_run_left_next(struct cm_run *run)
{
    struct cm_str left, busy;
    struct entry e;

    if (!cm_run_recall(run, KEY, &left))
        return CM_STR_NONE;
    left = cm_arena_str(cm_run_arena(run), left); /* the next question to the memo may move it */
    while (next_entry(&left, &e)) {
        if (!cm_run_recall(run, busy_key(run, e.id), &busy))
            return e.id;
    }
    return CM_STR_NONE;
}
