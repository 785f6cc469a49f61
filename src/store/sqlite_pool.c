/* SQLite driver: the pool file as a whole. */
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

int sq_raise_ids(struct cm_store_db *db, uint64_t ids_below, struct cm_err *err)
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

static int load_spent(struct cm_store_db *db, int64_t since_ms, struct cm_arena *arena,
                      struct cm_spent **rows, size_t *n, struct cm_err *err)
{
    return sq_spent(db->dir, since_ms, arena, rows, n, err);
}

/* ---- operations */

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
        if (rc == 1 && sq_reseal_row(db, key, st, err) < 0)
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
    .load_creds = sq_load_creds,
    .load_cred = sq_load_cred,
    .load_keys = sq_load_keys,
    .load_memories = sq_load_memories,
    .load_spent = load_spent,
    .change = sq_change,
    .write_pool = sq_write_pool,
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
