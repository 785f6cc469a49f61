/* Helpers for the tests of the store. */
#include "store_fixture.h"

#include "chatmux/base/mem.h"
#include "unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t clock_mono(void *arg)
{
    (void)arg;
    return cm_mono_ms();
}

static int64_t clock_unix(void *arg)
{
    return ((struct fix *)arg)->now_ms;
}

void fix_init(struct fix *f)
{
    *f = (struct fix){.now_ms = INT64_C(1767225600000)}; /* 2026-01-01T00:00:00Z */
    snprintf(f->dir, sizeof(f->dir), "/tmp/chatmux-store-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(f->dir));
    chmod(f->dir, 0755); /* for tests that become somebody else */
    snprintf(f->state, sizeof(f->state), "%s/state", f->dir);
    f->clock = (struct cm_clock){clock_mono, clock_unix, f};
    f->setup = (struct cm_store_setup){
        .url = CM_S("sqlite:chatmux.db"),
        .state_dir = cm_str_of(f->state),
        .master_key = CM_S(FIX_KEY),
        .clock = &f->clock,
    };
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void fix_clear(struct fix *f)
{
    fix_close(f);
    cm_arena_clear(&f->arena);
    nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void loop_end(struct fix *f)
{
    cm_jobs_close(f->jobs);
    cm_loop_free(f->loop);
    f->jobs = NULL;
    f->loop = NULL;
}

bool fix_try(struct fix *f)
{
    f->loop = f->setup.loop = cm_loop_new();
    f->jobs = f->setup.jobs = cm_jobs_new(f->loop);
    f->err = (struct cm_err){0};
    f->store = cm_store_open(&f->setup, &f->err);
    if (!f->store)
        loop_end(f);
    return f->store != NULL;
}

void fix_open(struct fix *f)
{
    ck_assert_msg(fix_try(f), "%s", f->err.msg);
}

static void on_closed(void *arg)
{
    cm_loop_stop(((struct fix *)arg)->loop);
}

void fix_close(struct fix *f)
{
    if (!f->store)
        return;
    cm_store_close(f->store, on_closed, f);
    cm_loop_run(f->loop);
    f->store = NULL;
    loop_end(f);
}

char *fix_path(const struct fix *f, const char *name)
{
    static char text[2][256];
    static int turn;

    turn = !turn;
    snprintf(text[turn], sizeof(text[turn]), "%s/%s", f->state, name);
    return text[turn];
}

static void on_time(void *arg)
{
    cm_loop_stop(((struct fix *)arg)->loop);
}

void fix_run_ms(struct fix *f, uint64_t ms)
{
    struct cm_deadline d;

    cm_deadline_init(&d, on_time, f);
    uv_update_time(cm_loop_uv(f->loop));
    cm_deadline_set(f->loop, &d, cm_loop_now_ms(f->loop) + ms);
    cm_loop_run(f->loop);
    cm_deadline_clear(f->loop, &d);
}

/* ---- waiting for an answer */

struct answer {
    struct fix *f;
    bool came;
    int rc;
};

static void on_answer(void *arg, const struct cm_err *err)
{
    struct answer *a = arg;

    ck_quick(!a->came);
    a->came = true;
    a->rc = err ? -1 : 0;
    if (err)
        a->f->err = *err;
    cm_loop_stop(a->f->loop);
}

static int await(struct answer *a)
{
    ck_quick(!a->came); /* never from within the call */
    while (!a->came)
        cm_loop_run(a->f->loop);
    return a->rc;
}

int fix_change(struct fix *f, const struct cm_change *changes, size_t n)
{
    struct answer a = {.f = f};

    cm_store_change(f->store, changes, n, on_answer, &a);
    return await(&a);
}

int fix_put_cred(struct fix *f, const struct cm_cred_row *row)
{
    return fix_change(f, &(struct cm_change){.kind = CM_CHANGE_PUT_CRED, .cred = row}, 1);
}

int fix_put_key(struct fix *f, const struct cm_key_row *row)
{
    return fix_change(f, &(struct cm_change){.kind = CM_CHANGE_PUT_KEY, .key = row}, 1);
}

int fix_flush(struct fix *f)
{
    struct answer a = {.f = f};

    cm_store_flush(f->store, on_answer, &a);
    return await(&a);
}

int fix_rekey(struct fix *f, const char *text)
{
    struct answer a = {.f = f};

    cm_store_rekey(f->store, cm_str_of(text), on_answer, &a);
    return await(&a);
}

int fix_backup(struct fix *f, const char *path)
{
    struct answer a = {.f = f};

    cm_store_backup(f->store, cm_str_of(path), on_answer, &a);
    return await(&a);
}

/* ---- rows */

struct cm_cred_row fix_cred(uint64_t id, const char *secret)
{
    return (struct cm_cred_row){
        .id = id,
        .provider = CM_S("openai"),
        .label = CM_S("first account"),
        .secret = cm_str_of(secret),
        .enabled = true,
        .weight = 1,
        .state = CM_S("ok"),
        .created_ms = 1767225600000,
    };
}

struct cm_key_row fix_key(uint64_t id, const char *name)
{
    struct cm_key_row row = {
        .id = id,
        .name = cm_str_of(name),
        .hint = CM_S("abcd"),
        .budget_period = CM_S("month"),
        .created_s = 1767225600,
        .enabled = true,
    };

    memset(row.digest, (int)id, sizeof(row.digest));
    return row;
}

struct cm_request_row fix_row(int64_t at_ms, const char *id)
{
    return (struct cm_request_row){
        .at_ms = at_ms,
        .id = cm_str_of(id),
        .key_id = 7,
        .key = CM_S("team"),
        .surface = CM_S("openai"),
        .model = CM_S("gpt-4o"),
        .provider = CM_S("openai"),
        .credential = CM_S("first account"),
        .cred_id = 3,
        .status = 200,
        .attempts = 1,
        .duration_ms = 1200,
        .ttft_ms = 300,
        .bytes_in = 400,
        .bytes_out = 5000,
        .outcome = CM_S("ok"),
        .in_uncached = 100,
        .out_text = 50,
        .usage_source = CM_S("upstream"),
        .cost_micro_usd = 750,
        .detail = CM_S("{\"attempts\":[]}"),
    };
}

struct cm_cred_row *fix_creds(struct fix *f, size_t *n)
{
    struct cm_cred_row *rows = NULL;

    ck_assert_msg(cm_store_load_creds(f->store, &f->arena, &rows, n, &f->err) == 0, "%s",
                  f->err.msg);
    return rows;
}

struct cm_key_row *fix_keys(struct fix *f, size_t *n)
{
    struct cm_key_row *rows = NULL;

    ck_assert_msg(cm_store_load_keys(f->store, &f->arena, &rows, n, &f->err) == 0, "%s",
                  f->err.msg);
    return rows;
}

const struct cm_cred_row *fix_find_cred(struct fix *f, uint64_t id)
{
    size_t n;
    const struct cm_cred_row *rows = fix_creds(f, &n);

    for (size_t i = 0; i < n; i++)
        if (rows[i].id == id)
            return &rows[i];
    return NULL;
}

struct requests_answer {
    struct answer a;
    struct cm_request_row *rows;
    size_t n;
    struct cm_str next;
};

static void on_requests(void *arg, const struct cm_request_row *rows, size_t n, struct cm_str next,
                        const struct cm_err *err)
{
    struct requests_answer *r = arg;
    struct cm_arena *arena = &r->a.f->arena;

    r->rows = CM_ARENA_ARRAY(arena, struct cm_request_row, n + 1);
    for (size_t i = 0; i < n; i++) {
        struct cm_request_row *row = &r->rows[i];

        *row = rows[i];
        row->id = cm_arena_str(arena, row->id);
        row->key = cm_arena_str(arena, row->key);
        row->surface = cm_arena_str(arena, row->surface);
        row->model = cm_arena_str(arena, row->model);
        row->provider = cm_arena_str(arena, row->provider);
        row->credential = cm_arena_str(arena, row->credential);
        row->outcome = cm_arena_str(arena, row->outcome);
        row->error = cm_arena_str(arena, row->error);
        row->why = cm_arena_str(arena, row->why);
        row->usage_source = cm_arena_str(arena, row->usage_source);
        row->detail = cm_arena_str(arena, row->detail);
    }
    r->n = n;
    r->next = cm_arena_str(arena, next);
    on_answer(&r->a, err);
}

struct cm_request_row *fix_requests(struct fix *f, const struct cm_request_query *q, size_t *n,
                                    struct cm_str *next)
{
    struct requests_answer r = {.a.f = f};

    cm_store_requests(f->store, q, on_requests, &r);
    if (await(&r.a) < 0)
        return NULL;
    *n = r.n;
    if (next)
        *next = r.next;
    return r.rows;
}

struct usage_answer {
    struct answer a;
    struct cm_usage_row *rows;
    size_t n;
};

static void on_usage(void *arg, const struct cm_usage_row *rows, size_t n, const struct cm_err *err)
{
    struct usage_answer *u = arg;

    u->rows = CM_ARENA_ARRAY(&u->a.f->arena, struct cm_usage_row, n + 1);
    for (size_t i = 0; i < n; i++) {
        u->rows[i] = rows[i];
        u->rows[i].group = cm_arena_str(&u->a.f->arena, rows[i].group);
    }
    u->n = n;
    on_answer(&u->a, err);
}

struct cm_usage_row *fix_usage(struct fix *f, const char *by, int64_t from_ms, int64_t to_ms,
                               size_t *n)
{
    struct cm_usage_query q = {.from_ms = from_ms, .to_ms = to_ms, .by = cm_str_of(by)};
    struct usage_answer u = {.a.f = f};

    cm_store_usage(f->store, &q, on_usage, &u);
    if (await(&u.a) < 0)
        return NULL;
    *n = u.n;
    return u.rows;
}

struct spent_answer {
    struct answer a;
    uint64_t key_id;
    int64_t micro_usd;
};

static void on_spent(void *arg, const struct cm_spent *rows, size_t n, const struct cm_err *err)
{
    struct spent_answer *s = arg;

    for (size_t i = 0; i < n; i++)
        if (rows[i].key_id == s->key_id)
            s->micro_usd += rows[i].micro_usd;
    on_answer(&s->a, err);
}

int64_t fix_spent(struct fix *f, uint64_t key_id, int64_t since_ms)
{
    struct spent_answer s = {.a.f = f, .key_id = key_id};

    cm_store_spent(f->store, since_ms, on_spent, &s);
    return await(&s.a) < 0 ? -1 : s.micro_usd;
}

/* ---- past the store */

sqlite3 *fix_raw(const char *path)
{
    sqlite3 *db;

    ck_assert_msg(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK, "%s: %s",
                  path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 2000);
    return db;
}

void fix_sql(const char *path, const char *sql)
{
    sqlite3 *db = fix_raw(path);
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);

    ck_assert_msg(rc == SQLITE_OK, "%s: %s: %s", path, sql, sqlite3_errmsg(db));
    sqlite3_close(db);
}

int64_t fix_number(const char *path, const char *sql)
{
    sqlite3 *db = fix_raw(path);
    sqlite3_stmt *st;
    int64_t v = -1;

    ck_assert_msg(sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK, "%s: %s", sql,
                  sqlite3_errmsg(db));
    if (sqlite3_step(st) == SQLITE_ROW)
        v = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return v;
}

bool fix_text_in_file(const char *path, const char *text)
{
    int fd = open(path, O_RDONLY);
    struct cm_buf b = {0};
    char piece[4096];
    ssize_t n;
    bool found;

    if (fd < 0)
        return false;
    while ((n = read(fd, piece, sizeof(piece))) > 0)
        cm_buf_append(&b, cm_str(piece, (size_t)n));
    close(fd);
    found = cm_str_has(cm_buf_str(&b), cm_str_of(text));
    cm_buf_clear(&b);
    return found;
}
