/* SQLite: one connection with its statements, migrations, and sentences for what goes wrong.
 *
 * All files are in WAL mode. There synchronous=NORMAL syncs only at checkpoints, and FULL at every commit too: one connection switches between the
 * two before each transaction, which costs nothing, and a full commit also makes durable what earlier ones left unsynced. */
#include "sqlite_int.h"

#include "chatmux/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define BUSY_MS 2500 /* then it is trouble, told and tried again */
#define CACHE_KIB "1024"
#define WAL_KEEP_BYTES "4194304" /* what a write-ahead log that has grown is cut to */

bool sq_is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
}

int sq_fail(struct sq_file *f, int rc, struct cm_err *err)
{
    int os = f->db ? sqlite3_system_errno(f->db) : 0;
    const char *text = f->db ? sqlite3_errmsg(f->db) : sqlite3_errstr(rc);

    f->refused = rc;
    if ((rc & 0xff) == SQLITE_FULL ||
        ((rc & 0xff) == SQLITE_IOERR && (os == ENOSPC || os == EDQUOT)))
        return cm_fail(err, CM_ERR_IO, "%s: the disk is full; make room on it", f->path);
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return cm_fail(err, CM_ERR_IO,
                       "%s is locked by another program; end it (a second chatmux, a sqlite3 "
                       "shell, a backup job)",
                       f->path);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return cm_fail(err, CM_ERR_IO,
                       "cannot write %s: %s%s%s; the user that chatmux runs as must be able to "
                       "write the file and its directory",
                       f->path, text, os ? ": " : "", os ? strerror(os) : "");
    case SQLITE_NOTADB:
        return cm_fail(err, CM_ERR_IO,
                       "%s is damaged or no SQLite database; put a backup in its place, or move "
                       "it away to start anew",
                       f->path);
    case SQLITE_CORRUPT:
        return cm_fail(err, CM_ERR_IO,
                       "%s is damaged (%s); put a backup in its place, or rescue what is left "
                       "with: sqlite3 FILE .recover",
                       f->path, text);
    case SQLITE_IOERR:
        return cm_fail(err, CM_ERR_IO, "%s: reading or writing failed (%s%s%s); check the disk",
                       f->path, text, os ? ": " : "", os ? strerror(os) : "");
    case SQLITE_CONSTRAINT:
        return cm_fail(err, CM_ERR_BAD_REQUEST, "this contradicts what is stored: %s", text);
    default:
        return cm_fail(err, CM_ERR_IO, "%s: %s", f->path, text);
    }
}

int sq_exec(struct sq_file *f, const char *sql, struct cm_err *err)
{
    int rc = sqlite3_exec(f->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : sq_fail(f, sqlite3_extended_errcode(f->db), err);
}

sqlite3_stmt *sq_use(struct sq_file *f, int slot, const char *sql, struct cm_err *err)
{
    sqlite3_stmt **st = &f->st[slot];

    CM_ASSERT(slot < SQ_STATEMENTS_MAX);
    if (*st) {
        sqlite3_reset(*st);
        sqlite3_clear_bindings(*st);
    } else if (sqlite3_prepare_v3(f->db, sql, -1, SQLITE_PREPARE_PERSISTENT, st, NULL) !=
               SQLITE_OK) {
        sq_fail(f, sqlite3_extended_errcode(f->db), err);
        return NULL;
    }
    return *st;
}

/* Binding fails only out of memory or for an index that is not there, which only our own bug can bring. */
void sq_int(sqlite3_stmt *st, int at, int64_t v)
{
    CM_ASSERT(sqlite3_bind_int64(st, at, v) == SQLITE_OK);
}

void sq_text(sqlite3_stmt *st, int at, struct cm_str v)
{
    CM_ASSERT(sqlite3_bind_text64(st, at, v.n > 0 ? v.p : "", v.n, SQLITE_STATIC, SQLITE_UTF8) ==
              SQLITE_OK);
}

void sq_blob(sqlite3_stmt *st, int at, struct cm_str v)
{
    CM_ASSERT(sqlite3_bind_blob64(st, at, v.n > 0 ? v.p : "", v.n, SQLITE_STATIC) == SQLITE_OK);
}

int sq_step(struct sq_file *f, sqlite3_stmt *st, struct cm_err *err)
{
    int rc = sqlite3_step(st);

    if (rc == SQLITE_ROW)
        return 1;
    if (rc == SQLITE_DONE)
        return sqlite3_reset(st), 0;
    sq_fail(f, sqlite3_extended_errcode(f->db), err);
    sqlite3_reset(st);
    return -1;
}

int sq_run(struct sq_file *f, sqlite3_stmt *st, struct cm_err *err)
{
    int rc;

    while ((rc = sq_step(f, st, err)) == 1)
        ;
    return rc;
}

struct cm_str sq_col(sqlite3_stmt *st, int at)
{
    const void *p = sqlite3_column_blob(st, at);

    return cm_str(p, p ? (size_t)sqlite3_column_bytes(st, at) : 0);
}

int sq_begin(struct sq_file *f, bool full, struct cm_err *err)
{
    sq_rollback(f); /* of a commit that failed and stayed open */
    if (sq_exec(f, full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", err) < 0)
        return -1;
    return sq_exec(f, "BEGIN IMMEDIATE", err);
}

int sq_commit(struct sq_file *f, struct cm_err *err)
{
    if (sq_exec(f, "COMMIT", err) == 0)
        return 0;
    sq_rollback(f);
    return -1;
}

void sq_rollback(struct sq_file *f)
{
    if (f->db && !sqlite3_get_autocommit(f->db))
        sqlite3_exec(f->db, "ROLLBACK", NULL, NULL, NULL);
}

static int pragma_int(struct sq_file *f, const char *sql, int64_t *out, struct cm_err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(f->db, sql, -1, &st, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(st, 0);
    else
        sq_fail(f, sqlite3_extended_errcode(f->db), err);
    sqlite3_finalize(st);
    return rc == SQLITE_ROW ? 0 : -1;
}

static int version_of(struct sq_file *f, const struct sq_schema *schema, int64_t *version,
                      struct cm_err *err)
{
    int64_t application_id, tables;

    if (pragma_int(f, "PRAGMA user_version", version, err) < 0 ||
        pragma_int(f, "PRAGMA application_id", &application_id, err) < 0 ||
        pragma_int(f, "SELECT count(*) FROM sqlite_schema", &tables, err) < 0)
        return -1;
    if (application_id != schema->application_id && (application_id != 0 || tables > 0))
        return cm_fail(err, CM_ERR_CONFIG,
                       "%s is the database of another program; give store.url another name",
                       f->path);
    if (*version > schema->n)
        return cm_fail(err, CM_ERR_CONFIG,
                       "%s was written by a newer chatmux (schema %d, this one knows up to %d); "
                       "install that version again, or put back a backup made before",
                       f->path, (int)*version, schema->n);
    return 0;
}

static int migrate_step(struct sq_file *f, const struct sq_schema *schema, int64_t from,
                        struct cm_err *err)
{
    struct cm_buf mark = {0};
    int64_t now;
    int rc = -1;

    cm_buf_printf(&mark, "PRAGMA application_id=%d; PRAGMA user_version=%d", schema->application_id,
                  (int)from + 1);
    if (sq_begin(f, false, err) < 0) /* what is lost is done again, and what follows syncs it */
        goto out;
    if (version_of(f, schema, &now, err) < 0)
        goto out;
    if (now == from && /* otherwise another process was faster */
        (sq_exec(f, schema->steps[from], err) < 0 || sq_exec(f, mark.p, err) < 0))
        goto out;
    rc = sq_commit(f, err);
out:
    sq_rollback(f);
    cm_buf_clear(&mark);
    return rc;
}

int sq_migrate(struct sq_file *f, const struct sq_schema *schema, struct cm_err *err)
{
    int64_t version;

    if (version_of(f, schema, &version, err) < 0)
        return -1;
    for (; version < schema->n; version++)
        if (migrate_step(f, schema, version, err) < 0)
            return -1;
    return 0;
}

static int connect_to(struct sq_file *f, const char *path, struct cm_err *err)
{
    int rc;

    *f = (struct sq_file){.path = cm_strdup(path)};
    rc = sqlite3_open_v2(path, &f->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return sq_fail(f, f->db ? sqlite3_extended_errcode(f->db) : rc, err);
    sqlite3_extended_result_codes(f->db, 1);
    sqlite3_busy_timeout(f->db, BUSY_MS);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return sq_exec(f, "PRAGMA cache_size=-" CACHE_KIB "; PRAGMA temp_store=MEMORY", err);
}

int sq_open(struct sq_file *f, const char *path, const struct sq_schema *schema, struct cm_err *err)
{
    int64_t version;

    if (connect_to(f, path, err) == 0 && version_of(f, schema, &version, err) == 0 &&
        sq_exec(f, "PRAGMA journal_mode=WAL; PRAGMA journal_size_limit=" WAL_KEEP_BYTES, err) ==
            0 &&
        sq_migrate(f, schema, err) == 0)
        return 0;
    sq_close(f);
    return -1;
}

int sq_open_read(struct sq_file *f, const char *path, const struct sq_schema *schema,
                 struct cm_err *err)
{
    int64_t version;
    int rc = -1;

    if (access(path, F_OK) < 0 && errno == ENOENT)
        rc = 1;
    else if (connect_to(f, path, err) == 0 && version_of(f, schema, &version, err) == 0)
        rc = version == 0 ? 1 : sq_migrate(f, schema, err); /* 0: it is just being made */
    if (rc < 0 && access(path, F_OK) < 0)                   /* dropped in between */
        rc = 1;
    if (rc != 0)
        sq_close(f);
    return rc;
}

void sq_close(struct sq_file *f)
{
    for (size_t i = 0; i < CM_COUNT(f->st); i++) {
        sqlite3_finalize(f->st[i]);
        f->st[i] = NULL;
    }
    sqlite3_close(f->db), f->db = NULL;
    free(f->path), f->path = NULL;
}
