/* SQLite driver: the pool file. Credentials, keys, and what belongs to the file as a whole. */
#include "sqlite_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define BACKUP_PAGES 64 /* in one step: some milliseconds on a slow disk */

static const char *const pool_steps[] = {
    /* Texts and blobs stand last: rows are mostly read and written for their numbers. */
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;"
    "INSERT INTO meta VALUES ('ids_below', 1), ('probe', 0);"
    "CREATE TABLE creds ("
    " id INTEGER PRIMARY KEY, rev INTEGER NOT NULL, from_config INTEGER NOT NULL,"
    " gone INTEGER NOT NULL, enabled INTEGER NOT NULL, weight INTEGER NOT NULL,"
    " max_inflight INTEGER NOT NULL, until_ms INTEGER NOT NULL, requests INTEGER NOT NULL,"
    " failures INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,"
    " last_used_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, provider TEXT NOT NULL,"
    " label TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, quota TEXT NOT NULL,"
    " secret BLOB NOT NULL, token BLOB NOT NULL, proxy BLOB NOT NULL) STRICT;"
    "CREATE TABLE keys ("
    " id INTEGER PRIMARY KEY, rpm INTEGER NOT NULL, tpm INTEGER NOT NULL,"
    " max_parallel INTEGER NOT NULL, budget_micro_usd INTEGER NOT NULL,"
    " expires_s INTEGER NOT NULL, created_s INTEGER NOT NULL, enabled INTEGER NOT NULL,"
    " digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, hint TEXT NOT NULL,"
    " models TEXT NOT NULL, budget_period TEXT NOT NULL) STRICT;",
    "ALTER TABLE creds ADD COLUMN month_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE creds ADD COLUMN month_requests INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE creds ADD COLUMN token_expires_ms INTEGER NOT NULL DEFAULT 0;",
    SQ_MEMORIES_SQL,
};
const struct sq_schema sq_pool_schema = {pool_steps, CM_COUNT(pool_steps), 0x636d7870};

/* ---- opening */

/* Damage is found now rather than by the request that meets it; a file of 10,000 credentials takes some milliseconds. */
static int quick_check(struct sq_file *f, struct cm_err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(f->db, "PRAGMA quick_check(1)", -1, &st, NULL);
    bool ok;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    ok = rc == SQLITE_ROW && cm_str_eq(sq_col(st, 0), CM_S("ok"));
    if (rc == SQLITE_ROW && !ok)
        cm_fail(err, CM_ERR_IO,
                "%s is damaged (" CM_PRI
                "); put a backup in its place, or rescue what is left with: sqlite3 FILE .recover",
                f->path, CM_ARG(sq_col(st, 0)));
    else if (rc != SQLITE_ROW)
        sq_fail(f, sqlite3_extended_errcode(f->db), err);
    sqlite3_finalize(st);
    return ok ? 0 : -1;
}

static void pool_close(struct cm_store_db *db)
{
    if (!db)
        return;
    sq_log_close(db);
    sq_close(&db->responses);
    sq_close(&db->pool);
    cm_wipe(&db->key, sizeof(db->key));
    cm_wipe(&db->content, sizeof(db->content));
    free(db->dir);
    free(db);
}

/* The write-ahead log and its index are files beside the database: the directory must be writable. */
static int dir_writable(const char *dir, struct cm_err *err)
{
    if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) == 0)
        return 0;
    return cm_fail(err, CM_ERR_IO,
                   "cannot write to the directory %s: %s; the user that chatmux runs as must own "
                   "it, or set store.state_dir",
                   dir, strerror(errno));
}

static struct cm_store_db *pool_open(struct cm_str where, struct cm_str state_dir,
                                     struct cm_err *err)
{
    struct cm_store_db *db = CM_NEW(struct cm_store_db);
    char *path = cm_path_join(state_dir, where);
    bool made;

    db->dir = cm_parent_of(path);
    if (where.n == 0)
        cm_fail(err, CM_ERR_CONFIG, "store.url names no file: write sqlite:chatmux.db");
    else if (cm_make_dir(db->dir, err) == 0 && dir_writable(db->dir, err) == 0 &&
             cm_make_file(path, &made, err) == 0 &&
             sq_open(&db->pool, path, &sq_pool_schema, err) == 0 &&
             sq_exec(&db->pool, "PRAGMA secure_delete=ON", err) ==
                 0 && /* no old secrets in free space */
             quick_check(&db->pool, err) == 0)
        return free(path), db;
    free(path);
    pool_close(db);
    return NULL;
}

static const char *pool_dir(const struct cm_store_db *db)
{
    return db->dir;
}

static const char *pool_name(const struct cm_store_db *db)
{
    return db->pool.path;
}

/* ---- meta */

static sqlite3_stmt *get_meta(struct cm_store_db *db, struct cm_str name, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_GET_META, "SELECT value FROM meta WHERE name=?1", err);

    if (st)
        sq_text(st, 1, name);
    return st;
}

int sq_get_meta(struct cm_store_db *db, struct cm_str name, struct cm_arena *arena,
                struct cm_str *value, struct cm_err *err)
{
    sqlite3_stmt *st = get_meta(db, name, err);
    int rc = st ? sq_step(&db->pool, st, err) : -1;

    if (rc < 0)
        return -1;
    *value = rc == 1 ? cm_arena_str(arena, sq_col(st, 0)) : CM_STR_NONE;
    sqlite3_reset(st);
    return 0;
}

static int load_check(struct cm_store_db *db, struct cm_arena *arena, struct cm_str *sealed,
                      struct cm_err *err)
{
    return sq_get_meta(db, CM_S("key_check"), arena, sealed, err);
}

static sqlite3_stmt *set_meta(struct cm_store_db *db, struct cm_str name, struct cm_err *err)
{
    sqlite3_stmt *st =
        sq_use(&db->pool, ST_SET_META, "INSERT OR REPLACE INTO meta VALUES (?1, ?2)", err);

    if (st)
        sq_text(st, 1, name);
    return st;
}

int sq_put_meta(struct cm_store_db *db, struct cm_str name, struct cm_str blob, struct cm_err *err)
{
    sqlite3_stmt *st = set_meta(db, name, err);

    if (!st)
        return -1;
    sq_blob(st, 2, blob);
    return sq_run(&db->pool, st, err);
}

static int put_check(struct cm_store_db *db, struct cm_str sealed, struct cm_err *err)
{
    return sq_put_meta(db, CM_S("key_check"), sealed, err);
}

static int save_check(struct cm_store_db *db, struct cm_str sealed, struct cm_err *err)
{
    if (sq_begin(&db->pool, true, err) == 0 && put_check(db, sealed, err) == 0)
        return sq_commit(&db->pool, err);
    sq_rollback(&db->pool);
    return -1;
}

static void set_key(struct cm_store_db *db, const struct cm_aead_key *key)
{
    db->key = *key;
}

static int load_stamp(struct cm_store_db *db, struct cm_store_stamp *stamp, struct cm_err *err)
{
    sqlite3_stmt *st = get_meta(db, CM_S("ids_below"), err);

    if (!st || sq_step(&db->pool, st, err) < 0)
        return -1;
    stamp->ids_below = (uint64_t)sqlite3_column_int64(st, 0); /* 0 when the row is missing */
    sqlite3_reset(st);
    st = sq_use(&db->pool, ST_MAX_REV,
                "SELECT max((SELECT ifnull(max(id), 0) FROM creds), (SELECT ifnull(max(id), 0) "
                "FROM keys)), (SELECT ifnull(max(rev), 0) FROM creds)",
                err);
    if (!st || sq_step(&db->pool, st, err) != 1)
        return -1;
    if (stamp->ids_below <= (uint64_t)sqlite3_column_int64(st, 0)) /* a hand has been at work */
        stamp->ids_below = (uint64_t)sqlite3_column_int64(st, 0) + 1;
    stamp->rev = (uint64_t)sqlite3_column_int64(st, 1);
    sqlite3_reset(st);
    return 0;
}

static int raise_ids(struct cm_store_db *db, uint64_t ids_below, struct cm_err *err)
{
    sqlite3_stmt *st;

    if (ids_below == 0)
        return 0;
    st = sq_use(&db->pool, ST_RAISE_IDS,
                "UPDATE meta SET value=max(value, ?1) WHERE name='ids_below'", err);
    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)ids_below);
    return sq_run(&db->pool, st, err);
}

static int save_ids(struct cm_store_db *db, uint64_t ids_below, struct cm_err *err)
{
    sqlite3_stmt *st = set_meta(db, CM_S("ids_below"), err);

    if (!st || sq_begin(&db->pool, true, err) < 0)
        return -1;
    sq_int(st, 2, (int64_t)ids_below);
    if (sq_run(&db->pool, st, err) == 0)
        return sq_commit(&db->pool, err);
    sq_rollback(&db->pool);
    return -1;
}

/* ---- loading */

/* "" stands for itself. What does not open is told once, by the name of its row. */
static struct cm_str open_secret(struct cm_store_db *db, struct cm_arena *arena,
                                 struct cm_cred_row *row, const char *column, struct cm_str sealed)
{
    struct cm_store_place place = cm_store_place("creds", row->id, column);
    unsigned char *plain;

    if (sealed.n == 0)
        return CM_STR_NONE;
    if (sealed.n >= CM_AEAD_OVERHEAD) {
        plain = cm_arena_alloc(arena, sealed.n - CM_AEAD_OVERHEAD + 1);
        plain[sealed.n - CM_AEAD_OVERHEAD] = '\0';
        if (cm_aead_open(&db->key, cm_str(place.text, place.n), sealed, plain) == 0)
            return cm_str((const char *)plain, sealed.n - CM_AEAD_OVERHEAD);
    }
    cm_error("store",
             "the %s of credential %llu (" CM_PRI ", " CM_PRI
             ") was altered or moved in %s and is not used: enter it again",
             column, (unsigned long long)row->id, CM_ARG(row->provider), CM_ARG(row->label),
             db->pool.path);
    row->damaged = true;
    return CM_STR_NONE;
}

static void read_cred(struct cm_store_db *db, struct cm_arena *arena, sqlite3_stmt *st,
                      struct cm_cred_row *row)
{
    int at = 0;

    row->id = (uint64_t)sqlite3_column_int64(st, at++);
    row->from_config = sqlite3_column_int64(st, at++) != 0;
    row->gone = sqlite3_column_int64(st, at++) != 0;
    row->enabled = sqlite3_column_int64(st, at++) != 0;
    row->weight = sqlite3_column_int64(st, at++);
    row->max_inflight = sqlite3_column_int64(st, at++);
    row->until_ms = sqlite3_column_int64(st, at++);
    row->requests = sqlite3_column_int64(st, at++);
    row->failures = sqlite3_column_int64(st, at++);
    row->tokens_in = sqlite3_column_int64(st, at++);
    row->tokens_out = sqlite3_column_int64(st, at++);
    row->last_used_ms = sqlite3_column_int64(st, at++);
    row->created_ms = sqlite3_column_int64(st, at++);
    row->month_ms = sqlite3_column_int64(st, at++);
    row->month_requests = sqlite3_column_int64(st, at++);
    row->token_expires_ms = sqlite3_column_int64(st, at++);
    row->provider = cm_arena_str(arena, sq_col(st, at++));
    row->label = cm_arena_str(arena, sq_col(st, at++));
    row->state = cm_arena_str(arena, sq_col(st, at++));
    row->reason = cm_arena_str(arena, sq_col(st, at++));
    row->quota = cm_arena_str(arena, sq_col(st, at++));
    row->secret = open_secret(db, arena, row, "secret", sq_col(st, at++));
    row->token = open_secret(db, arena, row, "token", sq_col(st, at++));
    row->proxy = open_secret(db, arena, row, "proxy", sq_col(st, at++));
    if (row->damaged && !row->from_config) {
        row->enabled = false;
        row->state = CM_S("disabled");
        row->reason = CM_S("damaged_secret");
    }
}

void *sq_grow(struct cm_arena *arena, void *rows, size_t n, size_t *cap, size_t size)
{
    void *more;

    if (n < *cap)
        return rows;
    *cap = *cap > 0 ? *cap * 2 : 32;
    more = cm_arena_calloc(arena, *cap, size);
    if (n > 0)
        memcpy(more, rows, n * size);
    return more;
}

#define CRED_COLUMNS                                                                               \
    "SELECT id, from_config, gone, enabled, weight, max_inflight, until_ms, requests, failures, "  \
    "tokens_in, tokens_out, last_used_ms, created_ms, month_ms, month_requests, "                  \
    "token_expires_ms, provider, label, state, reason, quota, secret, token, proxy FROM creds "

static int load_creds(struct cm_store_db *db, struct cm_arena *arena, struct cm_cred_row **rows,
                      size_t *n, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_LOAD_CREDS, CRED_COLUMNS "ORDER BY id", err);
    struct cm_cred_row *all = NULL;
    size_t count = 0, cap = 0;
    int rc = -1;

    while (st && (rc = sq_step(&db->pool, st, err)) == 1) {
        all = sq_grow(arena, all, count, &cap, sizeof(*all));
        read_cred(db, arena, st, &all[count++]);
    }
    if (rc == 0)
        *rows = all, *n = count;
    return rc;
}

static int load_cred(struct cm_store_db *db, uint64_t id, struct cm_arena *arena,
                     struct cm_cred_row **row, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_LOAD_CRED, CRED_COLUMNS "WHERE id=?1", err);
    int rc;

    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)id);
    rc = sq_step(&db->pool, st, err);
    *row = NULL;
    if (rc == 1) {
        *row = CM_ARENA_NEW(arena, struct cm_cred_row);
        read_cred(db, arena, st, *row);
        sqlite3_reset(st);
    }
    return rc < 0 ? -1 : 0;
}

static void read_key(struct cm_arena *arena, sqlite3_stmt *st, struct cm_key_row *row)
{
    struct cm_str digest = sq_col(st, 8);

    row->id = (uint64_t)sqlite3_column_int64(st, 0);
    row->rpm = sqlite3_column_int64(st, 1);
    row->tpm = sqlite3_column_int64(st, 2);
    row->max_parallel = sqlite3_column_int64(st, 3);
    row->budget_micro_usd = sqlite3_column_int64(st, 4);
    row->expires_s = sqlite3_column_int64(st, 5);
    row->created_s = sqlite3_column_int64(st, 6);
    row->enabled = sqlite3_column_int64(st, 7) != 0;
    if (digest.n == sizeof(row->digest))
        memcpy(row->digest, digest.p, digest.n);
    row->name = cm_arena_str(arena, sq_col(st, 9));
    row->hint = cm_arena_str(arena, sq_col(st, 10));
    row->models = cm_arena_str(arena, sq_col(st, 11));
    row->budget_period = cm_arena_str(arena, sq_col(st, 12));
}

static int load_keys(struct cm_store_db *db, struct cm_arena *arena, struct cm_key_row **rows,
                     size_t *n, struct cm_err *err)
{
    sqlite3_stmt *st =
        sq_use(&db->pool, ST_LOAD_KEYS,
               "SELECT id, rpm, tpm, max_parallel, budget_micro_usd, expires_s, created_s, "
               "enabled, digest, name, hint, models, budget_period FROM keys ORDER BY id",
               err);
    struct cm_key_row *all = NULL;
    size_t count = 0, cap = 0;
    int rc = -1;

    while (st && (rc = sq_step(&db->pool, st, err)) == 1) {
        all = sq_grow(arena, all, count, &cap, sizeof(*all));
        read_key(arena, st, &all[count++]);
    }
    if (rc == 0)
        *rows = all, *n = count;
    return rc;
}

static int load_spent(struct cm_store_db *db, int64_t since_ms, struct cm_arena *arena,
                      struct cm_spent **rows, size_t *n, struct cm_err *err)
{
    return sq_spent(db->dir, since_ms, arena, rows, n, err);
}

/* ---- changes */

/* malloc'd; for a value of the row `id`. */
static struct cm_str seal(const struct cm_aead_key *key, uint64_t id, const char *column,
                          struct cm_str plain)
{
    struct cm_store_place place = cm_store_place("creds", id, column);
    unsigned char *sealed;

    if (plain.n == 0)
        return CM_STR_NONE;
    sealed = cm_alloc(plain.n + CM_AEAD_OVERHEAD);
    cm_aead_seal(key, cm_str(place.text, place.n), plain, sealed);
    return cm_str((const char *)sealed, plain.n + CM_AEAD_OVERHEAD);
}

static void free_str(struct cm_str s)
{
    free((void *)(uintptr_t)s.p);
}

static int put_cred(struct cm_store_db *db, const struct cm_cred_row *row, uint64_t rev,
                    struct cm_err *err)
{
    /* Counters are given for a new row only: afterwards they are added to. */
    sqlite3_stmt *st = sq_use(
        &db->pool, ST_PUT_CRED,
        "INSERT INTO creds (id, rev, from_config, gone, enabled, weight, max_inflight, until_ms, "
        "created_ms, provider, label, state, reason, quota, secret, token, proxy, requests, "
        "failures, tokens_in, tokens_out, last_used_ms, month_ms, month_requests, "
        "token_expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, "
        "?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25) ON CONFLICT (id) DO UPDATE SET "
        "rev=?2, from_config=?3, gone=?4, enabled=?5, weight=?6, max_inflight=?7, until_ms=?8, "
        "created_ms=?9, provider=?10, label=?11, state=?12, reason=?13, quota=?14, secret=?15, "
        "token=?16, proxy=?17, token_expires_ms=?25, "
        "month_requests=CASE WHEN ?26 THEN 0 ELSE month_requests END",
        err);
    struct cm_str secret = seal(&db->key, row->id, "secret", row->secret);
    struct cm_str token = seal(&db->key, row->id, "token", row->token);
    struct cm_str proxy = seal(&db->key, row->id, "proxy", row->proxy);
    int rc = -1;

    if (st) {
        sq_int(st, 1, (int64_t)row->id);
        sq_int(st, 2, (int64_t)rev);
        sq_int(st, 3, row->from_config);
        sq_int(st, 4, row->gone);
        sq_int(st, 5, row->enabled);
        sq_int(st, 6, row->weight);
        sq_int(st, 7, row->max_inflight);
        sq_int(st, 8, row->until_ms);
        sq_int(st, 9, row->created_ms);
        sq_text(st, 10, row->provider);
        sq_text(st, 11, row->label);
        sq_text(st, 12, row->state);
        sq_text(st, 13, row->reason);
        sq_text(st, 14, row->quota);
        sq_blob(st, 15, secret);
        sq_blob(st, 16, token);
        sq_blob(st, 17, proxy);
        sq_int(st, 18, row->requests);
        sq_int(st, 19, row->failures);
        sq_int(st, 20, row->tokens_in);
        sq_int(st, 21, row->tokens_out);
        sq_int(st, 22, row->last_used_ms);
        sq_int(st, 23, row->month_ms);
        sq_int(st, 24, row->month_requests);
        sq_int(st, 25, row->token_expires_ms);
        sq_int(st, 26, row->month_anew);
        rc = sq_run(&db->pool, st, err);
    }
    if (rc == 0 && row->month_anew) /* another account: the old one's conversations are not its */
        rc = sq_del_memories_of(db, row->id, err);
    free_str(secret);
    free_str(token);
    free_str(proxy);
    return rc;
}

/* 1: the row is there with this secret, 0: it is not. */
static int has_secret(struct cm_store_db *db, uint64_t id, struct cm_str secret, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_SECRET_OF,
                              "SELECT provider, label, secret FROM creds WHERE id=?1", err);
    struct cm_cred_row row = {.id = id};
    struct cm_arena arena = {.secret = true};
    int rc;

    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)id);
    rc = sq_step(&db->pool, st, err);
    if (rc == 1) {
        row.provider = sq_col(st, 0);
        row.label = sq_col(st, 1);
        rc = cm_str_eq(open_secret(db, &arena, &row, "secret", sq_col(st, 2)), secret);
        sqlite3_reset(st);
    }
    cm_arena_clear(&arena);
    return rc;
}

static int set_token(struct cm_store_db *db, const struct cm_cred_row *row, struct cm_err *err)
{
    int rc = has_secret(db, row->id, row->secret, err);
    struct cm_str token;
    sqlite3_stmt *st;

    if (rc <= 0)
        return rc;
    st = sq_use(&db->pool, ST_SET_TOKEN,
                "UPDATE creds SET token=?2, token_expires_ms=?3 WHERE id=?1", err);
    if (!st)
        return -1;
    token = seal(&db->key, row->id, "token", row->token);
    sq_int(st, 1, (int64_t)row->id);
    sq_blob(st, 2, token);
    sq_int(st, 3, row->token_expires_ms);
    rc = sq_run(&db->pool, st, err);
    free_str(token);
    return rc;
}

static int put_key(struct cm_store_db *db, const struct cm_key_row *row, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(
        &db->pool, ST_PUT_KEY,
        "INSERT INTO keys (id, rpm, tpm, max_parallel, budget_micro_usd, expires_s, created_s, "
        "enabled, digest, name, hint, models, budget_period) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, "
        "?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (id) DO UPDATE SET rpm=?2, tpm=?3, "
        "max_parallel=?4, budget_micro_usd=?5, expires_s=?6, created_s=?7, enabled=?8, digest=?9, "
        "name=?10, hint=?11, models=?12, budget_period=?13",
        err);
    struct cm_err why = {0};

    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)row->id);
    sq_int(st, 2, row->rpm);
    sq_int(st, 3, row->tpm);
    sq_int(st, 4, row->max_parallel);
    sq_int(st, 5, row->budget_micro_usd);
    sq_int(st, 6, row->expires_s);
    sq_int(st, 7, row->created_s);
    sq_int(st, 8, row->enabled);
    sq_blob(st, 9, cm_str((const char *)row->digest, sizeof(row->digest)));
    sq_text(st, 10, row->name);
    sq_text(st, 11, row->hint);
    sq_text(st, 12, row->models);
    sq_text(st, 13, row->budget_period);
    if (sq_run(&db->pool, st, &why) == 0)
        return 0;
    if (why.cls == CM_ERR_BAD_REQUEST)
        return cm_fail(err, CM_ERR_BAD_REQUEST, "another key has the same text already");
    *err = why;
    return -1;
}

static int delete_row(struct cm_store_db *db, int slot, const char *sql, uint64_t id,
                      struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, slot, sql, err);

    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)id);
    return sq_run(&db->pool, st, err);
}

static int apply(struct cm_store_db *db, const struct cm_change *c, uint64_t rev,
                 struct cm_err *err)
{
    switch (c->kind) {
    case CM_CHANGE_PUT_CRED:
        return put_cred(db, c->cred, rev, err);
    case CM_CHANGE_SET_TOKEN:
        return set_token(db, c->cred, err);
    case CM_CHANGE_DEL_CRED:
        if (sq_del_memories_of(db, c->id, err) < 0)
            return -1;
        return delete_row(db, ST_DEL_CRED, "DELETE FROM creds WHERE id=?1", c->id, err);
    case CM_CHANGE_PUT_KEY:
        return put_key(db, c->key, err);
    case CM_CHANGE_DEL_KEY:
        return delete_row(db, ST_DEL_KEY, "DELETE FROM keys WHERE id=?1", c->id, err);
    case CM_CHANGE_PUT_MEMORY:
        return sq_put_memory(db, c->memory, err);
    }
    return -1;
}

static int change(struct cm_store_db *db, const struct cm_change *changes, size_t n,
                  const struct cm_store_stamp *stamp, struct cm_err *err)
{
    int rc = sq_begin(&db->pool, true, err);

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = apply(db, &changes[i], stamp->rev, err);
    if (rc == 0)
        rc = raise_ids(db, stamp->ids_below, err);
    if (rc == 0)
        return sq_commit(&db->pool, err);
    sq_rollback(&db->pool);
    return -1;
}

/* ---- groups */

static int write_count(struct cm_store_db *db, const struct cm_cred_count *c, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_COUNT,
                              "UPDATE creds SET requests=requests+?2, failures=failures+?3, "
                              "tokens_in=tokens_in+?4, tokens_out=tokens_out+?5, "
                              "last_used_ms=max(last_used_ms, ?6), month_requests=CASE ?7 WHEN 0 "
                              "THEN month_requests WHEN month_ms THEN month_requests+?8 ELSE ?8 "
                              "END, month_ms=CASE ?7 WHEN 0 THEN month_ms ELSE ?7 END WHERE id=?1",
                              err);

    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)c->id);
    sq_int(st, 2, c->requests);
    sq_int(st, 3, c->failures);
    sq_int(st, 4, c->tokens_in);
    sq_int(st, 5, c->tokens_out);
    sq_int(st, 6, c->last_used_ms);
    sq_int(st, 7, c->month_ms);
    sq_int(st, 8, c->month_requests);
    return sq_run(&db->pool, st, err);
}

static int write_state(struct cm_store_db *db, const struct cm_store_state *s, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_STATE,
                              "UPDATE creds SET rev=?2, until_ms=?3, state=?4, reason=?5, quota=?6 "
                              "WHERE id=?1 AND rev<?2",
                              err);

    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)s->id);
    sq_int(st, 2, (int64_t)s->rev);
    sq_int(st, 3, s->until_ms);
    sq_text(st, 4, s->state);
    sq_text(st, 5, s->reason);
    sq_text(st, 6, s->quota);
    return sq_run(&db->pool, st, err);
}

/* A transaction that changes no page does not reach the disk: a probe must. */
static int write_probe(struct cm_store_db *db, struct cm_err *err)
{
    sqlite3_stmt *st =
        sq_use(&db->pool, ST_PROBE, "UPDATE meta SET value=value+1 WHERE name='probe'", err);

    return st ? sq_run(&db->pool, st, err) : -1;
}

static int write_pool(struct cm_store_db *db, const struct cm_store_group *group,
                      struct cm_err *err)
{
    int rc = sq_begin(&db->pool, group->stamp.ids_below > 0 || group->probe, err);
    const struct cm_map_slot *slot;

    for (size_t pos = 0; rc == 0 && (slot = cm_map_next(&group->counts, &pos));)
        rc = write_count(db, slot->value, err);
    for (size_t pos = 0; rc == 0 && (slot = cm_map_next(&group->states, &pos));)
        rc = write_state(db, slot->value, err);
    if (rc == 0)
        rc = sq_write_memories(db, &group->memories, err);
    if (rc == 0)
        rc = raise_ids(db, group->stamp.ids_below, err);
    if (rc == 0 && group->probe)
        rc = write_probe(db, err);
    if (rc == 0)
        return sq_commit(&db->pool, err);
    sq_rollback(&db->pool);
    return -1;
}

/* ---- operations */

static struct cm_str reseal(struct cm_store_db *db, const struct cm_aead_key *key,
                            struct cm_cred_row *row, const char *column, struct cm_str sealed)
{
    struct cm_arena arena = {0};
    struct cm_str plain = open_secret(db, &arena, row, column, sealed), fresh;

    if (plain.n == 0 && sealed.n > 0) /* damaged: left as it is, for whoever can mend it */
        fresh = cm_str(cm_str_dup(sealed), sealed.n);
    else
        fresh = seal(key, row->id, column, plain);
    cm_wipe((void *)(uintptr_t)plain.p, plain.n);
    cm_arena_clear(&arena);
    return fresh;
}

static int reseal_row(struct cm_store_db *db, const struct cm_aead_key *key, sqlite3_stmt *from,
                      struct cm_err *err)
{
    struct cm_cred_row row = {.id = (uint64_t)sqlite3_column_int64(from, 0),
                              .provider = sq_col(from, 1),
                              .label = sq_col(from, 2)};
    sqlite3_stmt *st = sq_use(&db->pool, ST_RESEAL,
                              "UPDATE creds SET secret=?2, token=?3, proxy=?4 WHERE id=?1", err);
    struct cm_str secret, token, proxy;
    int rc;

    if (!st)
        return -1;
    secret = reseal(db, key, &row, "secret", sq_col(from, 3));
    token = reseal(db, key, &row, "token", sq_col(from, 4));
    proxy = reseal(db, key, &row, "proxy", sq_col(from, 5));
    sq_int(st, 1, (int64_t)row.id);
    sq_blob(st, 2, secret);
    sq_blob(st, 3, token);
    sq_blob(st, 4, proxy);
    rc = sq_run(&db->pool, st, err);
    free_str(secret);
    free_str(token);
    free_str(proxy);
    return rc;
}

/* Row by row in the order of id: updating a row while the select stands on it changes nothing of what is still to come. */
static int rekey(struct cm_store_db *db, const struct cm_aead_key *key, struct cm_str check,
                 struct cm_err *err)
{
    sqlite3_stmt *st;
    int rc;

    if (sq_begin(&db->pool, true, err) < 0)
        return -1;
    st = sq_use(&db->pool, ST_SECRETS,
                "SELECT id, provider, label, secret, token, proxy FROM creds ORDER BY id", err);
    rc = st ? 1 : -1;
    while (rc == 1) {
        rc = sq_step(&db->pool, st, err);
        if (rc == 1 && reseal_row(db, key, st, err) < 0)
            rc = -1;
    }
    if (st)
        sqlite3_reset(st);
    if (rc == 0 && put_check(db, check, err) == 0 && sq_rekey_responses(db, key, err) == 0 &&
        sq_commit(&db->pool, err) == 0) {
        db->key = *key;
        sqlite3_wal_checkpoint_v2(db->pool.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL,
                                  NULL); /* holds the old values */
        return 0;
    }
    sq_rollback(&db->pool);
    return -1;
}

struct cm_store_backup {
    struct sq_file copy;
    sqlite3_backup *backup;
    bool done;
};

static void backup_end(struct cm_store_backup *b)
{
    char *path = cm_strdup(b->copy.path);

    if (b->backup)
        sqlite3_backup_finish(b->backup);
    sq_close(&b->copy);
    if (!b->done) {
        struct cm_buf journal = {0};

        cm_buf_printf(&journal, "%s-journal", path);
        unlink(path);
        unlink(journal.p);
        cm_buf_clear(&journal);
    }
    free(path);
    free(b);
}

/* With the connection that writes as its source, the copy follows what is written meanwhile and never begins anew. */
static struct cm_store_backup *backup_begin(struct cm_store_db *db, struct cm_str path,
                                            struct cm_err *err)
{
    struct cm_store_backup *b = CM_NEW(struct cm_store_backup);
    char *z = cm_str_dup(path);
    bool made;

    b->copy.path = z;
    if (cm_make_file(z, &made, err) < 0) {
        b->done = true; /* nothing of ours to remove */
    } else if (!made) {
        cm_fail(err, CM_ERR_BAD_REQUEST, "%s is there already; name a file that is not", z);
        b->done = true;
    } else if (sqlite3_open_v2(z, &b->copy.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) ==
                   SQLITE_OK &&
               (b->backup = sqlite3_backup_init(b->copy.db, "main", db->pool.db, "main"))) {
        return b;
    } else {
        sq_fail(&b->copy, b->copy.db ? sqlite3_extended_errcode(b->copy.db) : SQLITE_NOMEM, err);
    }
    backup_end(b);
    return NULL;
}

static int backup_step(struct cm_store_backup *b, bool *done, struct cm_err *err)
{
    int rc = sqlite3_backup_step(b->backup, BACKUP_PAGES);

    if (rc == SQLITE_OK)
        return 0;
    if (rc != SQLITE_DONE)
        return sq_fail(&b->copy, rc, err);
    rc = sqlite3_backup_finish(b->backup);
    b->backup = NULL;
    if (rc != SQLITE_OK)
        return sq_fail(&b->copy, rc, err);
    *done = b->done = true;
    return 0;
}

const struct cm_store_driver cm_store_sqlite = {
    .scheme = "sqlite",
    .open = pool_open,
    .close = pool_close,
    .dir = pool_dir,
    .name = pool_name,
    .load_check = load_check,
    .save_check = save_check,
    .set_key = set_key,
    .load_stamp = load_stamp,
    .load_creds = load_creds,
    .load_cred = load_cred,
    .load_keys = load_keys,
    .load_memories = sq_load_memories,
    .load_spent = load_spent,
    .change = change,
    .write_pool = write_pool,
    .write_day = sq_log_write,
    .sweep = sq_log_sweep,
    .save_ids = save_ids,
    .keep_response = sq_keep_response,
    .load_responses = sq_load_responses,
    .drop_response = sq_drop_response,
    .sweep_responses = sq_sweep_responses,
    .requests = sq_requests,
    .usage = sq_usage,
    .rekey = rekey,
    .backup_begin = backup_begin,
    .backup_step = backup_step,
    .backup_end = backup_end,
};
