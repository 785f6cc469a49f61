/* Conversations that are to be deleted and are still there, remembered for their account: what a run could not delete any more, because its time was over
 * or the platform did not answer, a later one does. */
#include "deepseek_int.h"

#define KEY CM_S("left") /* "TIME:ID TIME:ID", the newest last */
#define KEPT_MS (24 * 3600 * 1000LL)
#define BYTES_MAX 4000

/* The list without this conversation. */
static void list_without(struct cm_run *run, struct cm_str session, struct cm_buf *out)
{
    struct cm_str left;

    if (!cm_run_recall(run, KEY, &left))
        return;
    while (left.n > 0) {
        const struct cm_str entry = cm_str_cut(&left, ' ');
        struct cm_str id = entry;

        cm_str_cut(&id, ':');
        if (!cm_str_eq(id, session))
            cm_buf_printf(out, "%s" CM_PRI, out->n ? " " : "", CM_ARG(entry));
    }
}

static void keep(struct cm_run *run, struct cm_buf *list)
{
    if (list->n > 0)
        cm_run_remember(run, KEY, cm_buf_str(list), KEPT_MS);
    else
        cm_run_forget(run, KEY);
    cm_buf_clear(list);
}

void deepseek_left_put(struct cm_run *run, struct cm_str session, int64_t not_before_ms)
{
    struct cm_buf list = {0};

    list_without(run, session, &list);
    if (list.n + session.n < BYTES_MAX && cm_str_find_char(session, ' ') == SIZE_MAX)
        cm_buf_printf(&list, "%s%lld:" CM_PRI, list.n ? " " : "", (long long)not_before_ms,
                      CM_ARG(session));
    keep(run, &list);
}

void deepseek_left_gone(struct cm_run *run, struct cm_str session)
{
    struct cm_buf list = {0};

    list_without(run, session, &list);
    keep(run, &list);
}

struct cm_str deepseek_left_next(struct cm_run *run)
{
    struct cm_str left;

    if (!cm_run_recall(run, KEY, &left))
        return CM_STR_NONE;
    while (left.n > 0) {
        struct cm_str id = cm_str_cut(&left, ' ');
        uint64_t not_before_ms;

        if (cm_str_to_u64(cm_str_cut(&id, ':'), INT64_MAX, &not_before_ms) &&
            (int64_t)not_before_ms <= cm_run_unix_ms(run))
            return cm_arena_str(cm_run_arena(run), id);
    }
    return CM_STR_NONE;
}
