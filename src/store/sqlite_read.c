/* SQLite driver: reading the request log and the ledger, each time on connections of its own, beside the writer. */
#include "sqlite_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <stdlib.h>

/* One broken day must not hide the others. 1: skip it, -1: fail. */
static int skip_or_fail(const struct sq_file *f, const struct cm_err *why, struct cm_err *err)
{
    if (sq_is_damage(f->refused)) {
        cm_warn("store", "left out: %s", why->msg);
        return 1;
    }
    if (err)
        *err = *why;
    return -1;
}

/* ---- the request log */

#define REQUEST_COLUMNS                                                                            \
    "no, at_ms, key_id, cred_id, status, attempts, duration_ms, ttft_ms, bytes_in, bytes_out, "    \
    "in_uncached, in_cache_read, in_cache_write, out_text, out_reasoning, images, "                \
    "cost_micro_usd, (SELECT text FROM names WHERE names.id=key), "                                \
    "(SELECT text FROM names WHERE names.id=surface), "                                            \
    "(SELECT text FROM names WHERE names.id=model), "                                              \
    "(SELECT text FROM names WHERE names.id=provider), "                                           \
    "(SELECT text FROM names WHERE names.id=credential), "                                         \
    "(SELECT text FROM names WHERE names.id=outcome), "                                            \
    "(SELECT text FROM names WHERE names.id=usage_source), id, error, why, detail"

/* Each index continues with at_ms and the row's number, so that a page is read from its end without sorting. One filter chooses the index, the most
 * telling first; with a plus sign the others do not. */
void sq_requests_sql(struct cm_buf *sql, const struct cm_request_query *q, bool from_cursor)
{
    const char *plus = "";

    cm_buf_printf(sql, "SELECT " REQUEST_COLUMNS " FROM requests WHERE 1");
    if (q->id.n > 0) {
        cm_buf_printf(sql, " AND id=?1");
        plus = "+";
    }
    if (q->key.n > 0) {
        cm_buf_printf(sql, " AND %skey=(SELECT id FROM names WHERE text=?2)", plus);
        plus = "+";
    }
    if (q->model.n > 0) {
        cm_buf_printf(sql, " AND %smodel=(SELECT id FROM names WHERE text=?3)", plus);
        plus = "+";
    }
    if (q->outcome.n > 0)
        cm_buf_printf(sql, " AND %soutcome=(SELECT id FROM names WHERE text=?4)", plus);
    if (from_cursor)
        cm_buf_printf(sql, " AND at_ms<=?5 AND (at_ms<?5 OR no<?6)");
    cm_buf_printf(sql, " ORDER BY at_ms DESC, no DESC LIMIT ?7");
}

struct page {
    const struct cm_request_query *q;
    struct cm_arena *arena;
    struct cm_request_row *rows;
    int64_t *numbers; /* of the rows in their files */
    size_t n, want;   /* want: one more than the page has, to know whether another follows */
    bool from_cursor;
    int64_t at_ms, no; /* of the cursor */
};

static void read_row(struct page *p, sqlite3_stmt *st)
{
    struct cm_request_row *r = &p->rows[p->n];
    int at = 0;

    p->numbers[p->n++] = sqlite3_column_int64(st, at++);
    r->at_ms = sqlite3_column_int64(st, at++);
    r->key_id = (uint64_t)sqlite3_column_int64(st, at++);
    r->cred_id = (uint64_t)sqlite3_column_int64(st, at++);
    r->status = sqlite3_column_int64(st, at++);
    r->attempts = sqlite3_column_int64(st, at++);
    r->duration_ms = sqlite3_column_int64(st, at++);
    r->ttft_ms = sqlite3_column_int64(st, at++);
    r->bytes_in = sqlite3_column_int64(st, at++);
    r->bytes_out = sqlite3_column_int64(st, at++);
    r->in_uncached = sqlite3_column_int64(st, at++);
    r->in_cache_read = sqlite3_column_int64(st, at++);
    r->in_cache_write = sqlite3_column_int64(st, at++);
    r->out_text = sqlite3_column_int64(st, at++);
    r->out_reasoning = sqlite3_column_int64(st, at++);
    r->images = sqlite3_column_int64(st, at++);
    r->cost_micro_usd = sqlite3_column_int64(st, at++);
    r->key = cm_arena_str(p->arena, sq_col(st, at++));
    r->surface = cm_arena_str(p->arena, sq_col(st, at++));
    r->model = cm_arena_str(p->arena, sq_col(st, at++));
    r->provider = cm_arena_str(p->arena, sq_col(st, at++));
    r->credential = cm_arena_str(p->arena, sq_col(st, at++));
    r->outcome = cm_arena_str(p->arena, sq_col(st, at++));
    r->usage_source = cm_arena_str(p->arena, sq_col(st, at++));
    r->id = cm_arena_str(p->arena, sq_col(st, at++));
    r->error = cm_arena_str(p->arena, sq_col(st, at++));
    r->why = cm_arena_str(p->arena, sq_col(st, at++));
    r->detail = cm_arena_str(p->arena, sq_col(st, at));
}

static int read_page(struct page *p, struct sq_file *f, bool from_cursor, struct cm_err *err)
{
    const struct cm_str texts[] = {p->q->id, p->q->key, p->q->model, p->q->outcome};
    struct cm_buf sql = {0};
    sqlite3_stmt *st;
    int rc;

    sq_requests_sql(&sql, p->q, from_cursor);
    st = sq_use(f, 0, cm_buf_z(&sql), err);
    cm_buf_clear(&sql);
    if (!st)
        return -1;
    for (int i = 0; i < (int)CM_COUNT(texts); i++)
        if (texts[i].n > 0)
            sq_text(st, i + 1, texts[i]);
    if (from_cursor) {
        sq_int(st, 5, p->at_ms);
        sq_int(st, 6, p->no);
    }
    sq_int(st, 7, (int64_t)(p->want - p->n));
    while ((rc = sq_step(f, st, err)) == 1)
        read_row(p, st);
    return rc;
}

static int read_day(struct page *p, const char *dir, int64_t day, struct cm_err *err)
{
    char *path = sq_log_path(dir, SQ_DAY, day);
    struct sq_file f = {0};
    struct cm_err why = {0};
    size_t before = p->n;
    int rc = sq_open_read(&f, path, &sq_day_schema, &why);

    if (rc == 0) {
        bool here = p->from_cursor && cm_floor_div(p->at_ms, CM_DAY_MS) == day;

        rc = read_page(p, &f, here, &why);
    }
    if (rc < 0) {
        p->n = before;
        rc = skip_or_fail(&f, &why, err);
    }
    sq_close(&f);
    free(path);
    return rc < 0 ? -1 : 0;
}

/* "<at_ms>-<no>" of the last row that was shown. */
static int parse_cursor(struct page *p, struct cm_err *err)
{
    struct cm_str rest = p->q->cursor, at = cm_str_cut(&rest, '-');
    uint64_t at_ms, no;

    if (p->q->cursor.n == 0)
        return 0;
    if (!cm_str_to_u64(at, INT64_MAX, &at_ms) || !cm_str_to_u64(rest, INT64_MAX, &no))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "cursor",
                             "cursor must be the \"next\" of an earlier page");
    p->from_cursor = true;
    p->at_ms = (int64_t)at_ms;
    p->no = (int64_t)no;
    return 0;
}

int sq_requests(const struct cm_store_db *db, const struct cm_request_query *q,
                struct cm_arena *arena, struct cm_request_row **rows, size_t *n,
                struct cm_str *next, struct cm_err *err)
{
    size_t limit = (size_t)(q->limit < 1 ? 1 : q->limit > 500 ? 500 : q->limit), n_days;
    struct page p = {.q = q, .arena = arena, .want = limit + 1};
    int64_t *days;
    int rc = 0;

    if (parse_cursor(&p, err) < 0 || sq_list(db->dir, SQ_DAY, &days, &n_days, err) < 0)
        return -1;
    p.rows = CM_ARENA_ARRAY(arena, struct cm_request_row, p.want);
    p.numbers = CM_ARENA_ARRAY(arena, int64_t, p.want);
    for (size_t i = n_days; rc == 0 && i-- > 0 && p.n < p.want;)
        if (!p.from_cursor || days[i] <= cm_floor_div(p.at_ms, CM_DAY_MS))
            rc = read_day(&p, db->dir, days[i], err);
    free(days);
    if (rc < 0)
        return -1;
    *next = CM_STR_NONE;
    if (p.n > limit) {
        p.n = limit;
        *next = cm_arena_printf(arena, "%lld-%lld", (long long)p.rows[limit - 1].at_ms,
                                (long long)p.numbers[limit - 1]);
    }
    *rows = p.rows;
    *n = p.n;
    return 0;
}

/* ---- the ledger */

typedef void ledger_fn(void *arg, int64_t hour, const struct cm_usage_row *row);

struct ledger_read {
    const char *dir;
    int64_t dim, from_hour, to_hour; /* to: not included */
    ledger_fn *fn;
    void *arg;
    struct cm_map seen;    /* identities of day files: what the months hold of them is skipped */
    struct cm_arena arena; /* of those */
};

static void note_identity(struct ledger_read *r, struct cm_str identity)
{
    struct cm_str mine = cm_arena_str(&r->arena, identity);

    cm_map_put(&r->seen, mine, r);
}

/* Slot 1 of a day's file. */
static int read_identity(struct ledger_read *r, struct sq_file *f, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(f, 1, "SELECT value FROM meta WHERE name='file'", err);
    int rc = st ? sq_step(f, st, err) : -1;

    if (rc == 1) {
        note_identity(r, sq_col(st, 0));
        sqlite3_reset(st);
    }
    return rc < 0 ? -1 : 0;
}

static int read_hours(struct ledger_read *r, struct sq_file *f, const char *sql, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(f, 0, sql, err);
    int rc;

    if (!st)
        return -1;
    sq_int(st, 1, r->dim);
    sq_int(st, 2, r->from_hour);
    sq_int(st, 3, r->to_hour);
    while ((rc = sq_step(f, st, err)) == 1) {
        struct cm_usage_row row = {.id = (uint64_t)sqlite3_column_int64(st, 1),
                                   .group = sq_col(st, 2)};
        int at = 3;

#define X(name) row.name = sqlite3_column_int64(st, at++);
        CM_STORE_SUMS(X)
#undef X
        if (!cm_map_get(&r->seen, sq_col(st, at)))
            r->fn(r->arg, sqlite3_column_int64(st, 0), &row);
    }
    return rc;
}

static int read_file(struct ledger_read *r, enum sq_kind kind, int64_t number, struct cm_err *err)
{
    char *path = sq_log_path(r->dir, kind, number);
    struct sq_file f = {0};
    struct cm_err why = {0};
    int rc = sq_open_read(&f, path, kind == SQ_DAY ? &sq_day_schema : &sq_month_schema, &why);

    if (rc == 0 && kind == SQ_DAY)
        rc = read_identity(r, &f, &why);
    if (rc == 0)
        rc = read_hours(r, &f, kind == SQ_DAY ? SQ_DAY_HOURS_SQL : SQ_MONTH_HOURS_SQL, &why);
    if (rc < 0)
        rc = skip_or_fail(&f, &why, err);
    sq_close(&f);
    free(path);
    return rc < 0 ? -1 : 0;
}

static int read_kind(struct ledger_read *r, enum sq_kind kind, struct cm_err *err)
{
    int64_t first = cm_floor_div(r->from_hour, 24), last = cm_floor_div(r->to_hour - 1, 24);
    int64_t *numbers;
    size_t n;
    int rc = 0;

    if (sq_list(r->dir, kind, &numbers, &n, err) < 0)
        return -1;
    if (kind == SQ_MONTH) {
        first = sq_month_of(first);
        last = sq_month_of(last);
    }
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (numbers[i] >= first && numbers[i] <= last)
            rc = read_file(r, kind, numbers[i], err);
    free(numbers);
    return rc;
}

/* Days first: a day that is dropped meanwhile has been copied to its month before, and is found there. */
static int read_ledger(struct ledger_read *r, struct cm_err *err)
{
    int rc = read_kind(r, SQ_DAY, err);

    if (rc == 0)
        rc = read_kind(r, SQ_MONTH, err);
    cm_map_clear(&r->seen);
    cm_arena_clear(&r->arena);
    return rc;
}

struct totals {
    struct cm_arena *arena;
    struct cm_map groups; /* struct cm_usage_row by `key` below */
    int64_t unit_hours;   /* 0: by name and id; 1, 24: by time */
};

static struct cm_str group_key(const struct totals *t, int64_t hour, const struct cm_usage_row *row,
                               struct cm_arena *arena)
{
    if (t->unit_hours > 0)
        return cm_arena_printf(arena, "%lld", (long long)cm_floor_div(hour, t->unit_hours));
    return cm_arena_printf(arena, "%llu " CM_PRI, (unsigned long long)row->id, CM_ARG(row->group));
}

static struct cm_str group_label(const struct totals *t, int64_t hour,
                                 const struct cm_usage_row *row)
{
    char text[CM_RFC3339_CAP];

    if (t->unit_hours == 0)
        return cm_arena_str(t->arena, row->group);
    cm_rfc3339(cm_floor_div(hour, t->unit_hours) * t->unit_hours * CM_HOUR_MS, text);
    return t->unit_hours == 24 ? cm_arena_str(t->arena, cm_str(text, 10)) /* the date */
                               : cm_arena_printf(t->arena, "%.19sZ", text);
}

static void add_up(void *arg, int64_t hour, const struct cm_usage_row *row)
{
    struct totals *t = arg;
    struct cm_arena scratch = {0};
    struct cm_str key = group_key(t, hour, row, &scratch);
    struct cm_usage_row *sum = cm_map_get(&t->groups, key);

    if (!sum) {
        sum = CM_ARENA_NEW(t->arena, struct cm_usage_row);
        sum->group = group_label(t, hour, row);
        sum->id = t->unit_hours > 0 ? 0 : row->id;
        cm_map_put(&t->groups, cm_arena_str(t->arena, key), sum);
    }
#define X(name) sum->name += row->name;
    CM_STORE_SUMS(X)
#undef X
    cm_arena_clear(&scratch);
}

static int by_cost(const void *a, const void *b)
{
    const struct cm_usage_row *x = a, *y = b;

    if (x->cost_micro_usd != y->cost_micro_usd)
        return x->cost_micro_usd > y->cost_micro_usd ? -1 : 1;
    if (x->requests != y->requests)
        return x->requests > y->requests ? -1 : 1;
    return cm_str_cmp(x->group, y->group);
}

static int by_time(const void *a, const void *b)
{
    const struct cm_usage_row *x = a, *y = b;

    return cm_str_cmp(x->group, y->group);
}

static struct cm_usage_row *sorted(struct totals *t, size_t *n)
{
    struct cm_usage_row *all = CM_ARENA_ARRAY(t->arena, struct cm_usage_row, t->groups.n + 1);
    const struct cm_map_slot *slot;

    *n = 0;
    for (size_t pos = 0; (slot = cm_map_next(&t->groups, &pos));)
        all[(*n)++] = *(const struct cm_usage_row *)slot->value;
    qsort(all, *n, sizeof(*all), t->unit_hours > 0 ? by_time : by_cost);
    return all;
}

/* Every row of the log has one provider, so the providers' hours are also everything. */
static const struct {
    const char *by;
    enum cm_store_dim dim;
    int64_t unit_hours;
} groupings[] = {
    {"key", CM_DIM_KEY, 0},           {"model", CM_DIM_MODEL, 0},
    {"provider", CM_DIM_PROVIDER, 0}, {"credential", CM_DIM_CREDENTIAL, 0},
    {"hour", CM_DIM_PROVIDER, 1},     {"day", CM_DIM_PROVIDER, 24},
};

int sq_usage(const struct cm_store_db *db, const struct cm_usage_query *q, struct cm_arena *arena,
             struct cm_usage_row **rows, size_t *n, struct cm_err *err)
{
    struct totals t = {.arena = arena};
    struct ledger_read r = {
        .dir = db->dir,
        .from_hour = cm_floor_div(q->from_ms, CM_HOUR_MS),
        .to_hour = cm_floor_div(q->to_ms + CM_HOUR_MS - 1, CM_HOUR_MS),
        .fn = add_up,
        .arg = &t,
    };
    size_t i = 0;
    int rc;

    while (i < CM_COUNT(groupings) && !cm_str_eq(q->by, cm_str_of(groupings[i].by)))
        i++;
    if (i == CM_COUNT(groupings))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "by",
                             "by must be key, model, provider, credential, hour or day");
    r.dim = groupings[i].dim;
    t.unit_hours = groupings[i].unit_hours;
    rc = read_ledger(&r, err);
    if (rc == 0)
        *rows = sorted(&t, n);
    cm_map_clear(&t.groups);
    return rc;
}

static void add_spent(void *arg, int64_t hour, const struct cm_usage_row *row)
{
    (void)hour;
    if (row->id > 0)
        cm_spending_add(arg, row->id, row->cost_micro_usd);
}

int sq_spent(const char *dir, int64_t since_ms, struct cm_arena *arena, struct cm_spent **rows,
             size_t *n, struct cm_err *err)
{
    struct cm_spending sp = {.arena = arena};
    struct ledger_read r = {
        .dir = dir,
        .dim = CM_DIM_KEY,
        .from_hour = cm_floor_div(since_ms, CM_HOUR_MS),
        .to_hour = INT64_C(24) * 366 * 8000, /* far ahead: a clock may have been wrong */
        .fn = add_spent,
        .arg = &sp,
    };
    struct cm_spent *all;
    size_t count;
    int rc = read_ledger(&r, err);

    count = cm_spending_end(&sp, &all);
    if (rc == 0)
        *rows = all, *n = count;
    return rc;
}
