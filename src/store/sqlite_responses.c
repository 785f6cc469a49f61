/* SQLite driver: kept responses, in a file of their own, so that backups of credentials and keys hold no content.
 *
 * What was asked and answered is sealed with a key that stands in the pool file, sealed with the master key: a new master key need not touch this file. A
 * row that does not open (another pool file was put in place) is as good as none. How many there are is counted once, when the file is opened. */
#include "sqlite_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <stdlib.h>
#include <unistd.h>

static const char *const response_steps[] = {
    "CREATE TABLE responses ("
    " no INTEGER PRIMARY KEY, used_ms INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, cred_id INTEGER NOT NULL, conversation INTEGER NOT NULL,"
    " id TEXT NOT NULL UNIQUE, scope TEXT NOT NULL, previous TEXT NOT NULL,"
    " provider TEXT NOT NULL, input BLOB NOT NULL, response BLOB NOT NULL) STRICT;"
    "CREATE INDEX responses_used ON responses (used_ms);",
};
const struct sq_schema sq_responses_schema = {response_steps, CM_COUNT(response_steps), 0x636d7872};

enum { ST_SIZE, ST_PUT, ST_GET, ST_USED, ST_BYTES_OF, ST_DROP, ST_OLDEST, ST_DROP_NO };

#define CONTENT_KEY CM_S("content_key")
#define TURNS_MAX 10000

/* ---- what seals them ---- */

static int save_content_key(struct cm_store_db *db, const struct cm_aead_key *with,
                            struct cm_err *err)
{
    unsigned char sealed[CM_AEAD_KEY_SIZE + CM_AEAD_OVERHEAD];

    cm_aead_seal(with, CONTENT_KEY,
                 cm_str((const char *)db->content.bytes, sizeof(db->content.bytes)), sealed);
    return sq_put_meta(db, CONTENT_KEY, cm_str((const char *)sealed, sizeof(sealed)), err);
}

static int load_content_key(struct cm_store_db *db, struct cm_err *err)
{
    struct cm_arena arena = {0};
    struct cm_str sealed;
    bool opens;

    if (sq_get_meta(db, CONTENT_KEY, &arena, &sealed, err) < 0)
        return -1;
    opens = sealed.n == CM_AEAD_KEY_SIZE + CM_AEAD_OVERHEAD &&
            cm_aead_open(&db->key, CONTENT_KEY, sealed, db->content.bytes) == 0;
    if (!opens && sealed.n > 0)
        cm_error("store",
                 "the key of kept responses was altered in %s: those that are there are "
                 "lost",
                 db->pool.path);
    cm_arena_clear(&arena);
    if (opens)
        return 0;
    cm_rand_bytes(db->content.bytes, sizeof(db->content.bytes));
    if (sq_begin(&db->pool, true, err) == 0 && save_content_key(db, &db->key, err) == 0 &&
        sq_commit(&db->pool, err) == 0)
        return 0;
    sq_rollback(&db->pool);
    return -1;
}

int sq_rekey_responses(struct cm_store_db *db, const struct cm_aead_key *key, struct cm_err *err)
{
    struct cm_arena arena = {0};
    struct cm_str sealed;
    int rc = sq_get_meta(db, CONTENT_KEY, &arena, &sealed, err);

    if (rc == 0 && sealed.n == CM_AEAD_KEY_SIZE + CM_AEAD_OVERHEAD &&
        cm_aead_open(&db->key, CONTENT_KEY, sealed, db->content.bytes) == 0)
        rc = save_content_key(db, key, err);
    cm_arena_clear(&arena);
    return rc;
}

/* A value belongs to its response, whose that is, and its column. */
static struct cm_str place_of(struct cm_arena *arena, const struct cm_response_row *row,
                              const char *column)
{
    return cm_arena_printf(arena, "responses/" CM_PRI "/" CM_PRI "/%s", CM_ARG(row->id),
                           CM_ARG(row->scope), column);
}

static struct cm_str seal(struct cm_store_db *db, struct cm_arena *arena,
                          const struct cm_response_row *row, const char *column,
                          struct cm_str plain)
{
    unsigned char *out;

    if (plain.n == 0)
        return CM_STR_NONE;
    out = cm_arena_alloc(arena, plain.n + CM_AEAD_OVERHEAD);
    cm_aead_seal(&db->content, place_of(arena, row, column), plain, out);
    return cm_str((const char *)out, plain.n + CM_AEAD_OVERHEAD);
}

static int unseal(struct cm_store_db *db, struct cm_arena *arena, const struct cm_response_row *row,
                  const char *column, struct cm_str sealed, struct cm_str *plain)
{
    unsigned char *out;

    if (sealed.n == 0)
        return 0;
    if (sealed.n < CM_AEAD_OVERHEAD)
        return -1;
    out = cm_arena_alloc(arena, sealed.n - CM_AEAD_OVERHEAD);
    if (cm_aead_open(&db->content, place_of(arena, row, column), sealed, out) < 0)
        return -1;
    *plain = cm_str((const char *)out, sealed.n - CM_AEAD_OVERHEAD);
    return 0;
}

/* ---- the file ---- */

static int count(struct cm_store_db *db, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->responses, ST_SIZE,
                              "SELECT count(*), ifnull(sum(bytes), 0) FROM responses", err);

    if (!st || sq_step(&db->responses, st, err) != 1)
        return -1;
    db->n_responses = sqlite3_column_int64(st, 0);
    db->response_bytes = sqlite3_column_int64(st, 1);
    sqlite3_reset(st);
    return 0;
}

static char *path_of(const struct cm_store_db *db)
{
    return cm_path_join(cm_str_of(db->dir), CM_S("responses.db"));
}

static int open_file(struct cm_store_db *db, struct cm_err *err)
{
    char *path;
    bool made;
    int rc;

    if (db->responses.db)
        return 0;
    path = path_of(db);
    rc = cm_make_file(path, &made, err) == 0 &&
                 sq_open(&db->responses, path, &sq_responses_schema, err) == 0 &&
                 sq_exec(&db->responses, "PRAGMA secure_delete=ON", err) == 0 &&
                 load_content_key(db, err) == 0 && count(db, err) == 0
             ? 0
             : -1;
    if (rc < 0)
        sq_close(&db->responses);
    free(path);
    return rc;
}

/* ---- bounds ---- */

static int drop_no(struct cm_store_db *db, int64_t no, int64_t bytes, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->responses, ST_DROP_NO, "DELETE FROM responses WHERE no=?1", err);

    if (!st)
        return -1;
    sq_int(st, 1, no);
    if (sq_run(&db->responses, st, err) < 0)
        return -1;
    db->n_responses--;
    db->response_bytes -= bytes;
    return 0;
}

/* The least recently used, until the rest is allowed. Within a transaction. */
static int enforce(struct cm_store_db *db, const struct cm_response_bounds *b, struct cm_err *err)
{
    for (;;) {
        sqlite3_stmt *st = sq_use(&db->responses, ST_OLDEST,
                                  "SELECT no, bytes, used_ms FROM responses ORDER BY used_ms, no "
                                  "LIMIT 1",
                                  err);
        int64_t no, bytes, used_ms;
        int rc = st ? sq_step(&db->responses, st, err) : -1;

        if (rc <= 0)
            return rc;
        no = sqlite3_column_int64(st, 0);
        bytes = sqlite3_column_int64(st, 1);
        used_ms = sqlite3_column_int64(st, 2);
        sqlite3_reset(st);
        if (db->n_responses <= b->max && db->response_bytes <= b->bytes &&
            used_ms + b->ttl_ms > b->now_ms)
            return 0;
        if (drop_no(db, no, bytes, err) < 0)
            return -1;
    }
}

/* Ends a transaction; what was counted in one that failed is counted anew. */
static int finish(struct cm_store_db *db, int rc, struct cm_err *err)
{
    if (rc == 0 && sq_commit(&db->responses, err) == 0)
        return 0;
    sq_rollback(&db->responses);
    if (count(db, NULL) < 0)
        sq_close(&db->responses);
    return -1;
}

int sq_sweep_responses(struct cm_store_db *db, const struct cm_response_bounds *b,
                       struct cm_err *err)
{
    char *path = path_of(db);
    const bool there = access(path, F_OK) == 0;

    free(path);
    if (!there)
        return 0; /* nothing was ever kept */
    if (open_file(db, err) < 0 || sq_begin(&db->responses, false, err) < 0)
        return -1;
    return finish(db, enforce(db, b, err), err);
}

/* ---- rows ---- */

/* One of that id makes room. */
static int replace(struct cm_store_db *db, struct cm_str id, struct cm_err *err)
{
    sqlite3_stmt *st =
        sq_use(&db->responses, ST_BYTES_OF, "SELECT no, bytes FROM responses WHERE id=?1", err);
    int64_t no, bytes;
    int rc;

    if (!st)
        return -1;
    sq_text(st, 1, id);
    rc = sq_step(&db->responses, st, err);
    if (rc <= 0)
        return rc;
    no = sqlite3_column_int64(st, 0);
    bytes = sqlite3_column_int64(st, 1);
    sqlite3_reset(st);
    return drop_no(db, no, bytes, err);
}

static int put(struct cm_store_db *db, const struct cm_response_row *row, int64_t now_ms,
               struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(
        &db->responses, ST_PUT,
        "INSERT INTO responses (used_ms, bytes, created_ms, cred_id, conversation, id, scope, "
        "previous, provider, input, response) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, "
        "?11)",
        err);
    const int64_t bytes = (int64_t)(row->input.n + row->response.n);
    struct cm_arena arena = {0};
    int rc;

    if (!st)
        return -1;
    sq_int(st, 1, now_ms);
    sq_int(st, 2, bytes);
    sq_int(st, 3, row->created_ms);
    sq_int(st, 4, (int64_t)row->cred_id);
    sq_int(st, 5, (int64_t)row->conversation);
    sq_text(st, 6, row->id);
    sq_text(st, 7, row->scope);
    sq_text(st, 8, row->previous);
    sq_text(st, 9, row->provider);
    sq_blob(st, 10, seal(db, &arena, row, "input", row->input));
    sq_blob(st, 11, seal(db, &arena, row, "response", row->response));
    rc = sq_run(&db->responses, st, err);
    sqlite3_clear_bindings(st); /* they end with the arena */
    cm_arena_clear(&arena);
    if (rc == 0) {
        db->n_responses++;
        db->response_bytes += bytes;
    }
    return rc;
}

int sq_keep_response(struct cm_store_db *db, const struct cm_response_row *row,
                     const struct cm_response_bounds *b, struct cm_err *err)
{
    if (open_file(db, err) < 0 || sq_begin(&db->responses, false, err) < 0)
        return -1;
    return finish(db,
                  replace(db, row->id, err) < 0 || put(db, row, b->now_ms, err) < 0 ||
                          enforce(db, b, err) < 0
                      ? -1
                      : 0,
                  err);
}

/* 1 and the row, 0: there is none. */
static int get(struct cm_store_db *db, const struct cm_response_find *find, struct cm_str id,
               const struct cm_response_bounds *b, struct cm_arena *arena,
               struct cm_response_row *row, struct cm_err *err)
{
    sqlite3_stmt *st =
        sq_use(&db->responses, ST_GET,
               "SELECT created_ms, cred_id, conversation, previous, provider, input, response FROM "
               "responses WHERE id=?1 AND scope=?2 AND used_ms>?3",
               err);
    int rc;

    if (!st)
        return -1;
    *row = (struct cm_response_row){.id = id, .scope = find->scope};
    sq_text(st, 1, id);
    sq_text(st, 2, find->scope);
    sq_int(st, 3, b->now_ms - b->ttl_ms);
    rc = sq_step(&db->responses, st, err);
    if (rc <= 0)
        return rc;
    row->created_ms = sqlite3_column_int64(st, 0);
    row->cred_id = (uint64_t)sqlite3_column_int64(st, 1);
    row->conversation = (uint64_t)sqlite3_column_int64(st, 2);
    row->previous = cm_arena_str(arena, sq_col(st, 3));
    row->provider = cm_arena_str(arena, sq_col(st, 4));
    if (unseal(db, arena, row, "input", sq_col(st, 5), &row->input) < 0 ||
        unseal(db, arena, row, "response", sq_col(st, 6), &row->response) < 0)
        rc = 0;
    sqlite3_reset(st);
    return rc;
}

static int use_now(struct cm_store_db *db, struct cm_str id, int64_t now_ms, struct cm_err *err)
{
    sqlite3_stmt *st =
        sq_use(&db->responses, ST_USED, "UPDATE responses SET used_ms=?2 WHERE id=?1", err);

    if (!st)
        return -1;
    sq_text(st, 1, id);
    sq_int(st, 2, now_ms);
    return sq_run(&db->responses, st, err);
}

/* From the last turn back to the first, into `list` in that order. */
static int walk(struct cm_store_db *db, const struct cm_response_find *find,
                const struct cm_response_bounds *b, struct cm_arena *arena, struct cm_buf *list,
                struct cm_err *err)
{
    struct cm_str id = find->id;
    size_t bytes = 0;

    for (size_t n = 0; id.n > 0; n++) {
        struct cm_response_row row;
        const int rc = get(db, find, id, b, arena, &row, err);

        if (rc < 0)
            return -1;
        if (rc == 0 && n == 0)
            return 0;
        if (rc == 0)
            return cm_fail(err, CM_ERR_NOT_FOUND,
                           "The conversation of '" CM_PRI "' is not kept any more: '" CM_PRI
                           "', with which it went on, is missing.",
                           CM_ARG(find->id), CM_ARG(id));
        bytes += row.input.n + row.response.n;
        if (bytes > find->max_bytes || n == TURNS_MAX)
            return cm_fail(err, CM_ERR_TOO_LARGE,
                           "The conversation of '" CM_PRI "' is larger than %zu bytes or %d turns.",
                           CM_ARG(find->id), find->max_bytes, TURNS_MAX);
        cm_buf_append(list, cm_str((const char *)&row, sizeof(row)));
        if (!find->turns)
            return 0;
        if (use_now(db, id, b->now_ms, err) < 0)
            return -1;
        id = row.provider.n > 0 ? CM_STR_NONE : row.previous; /* an upstream knows the rest */
    }
    return 0;
}

int sq_load_responses(struct cm_store_db *db, const struct cm_response_find *find,
                      const struct cm_response_bounds *b, struct cm_arena *arena,
                      struct cm_response_row **rows, size_t *n, struct cm_err *err)
{
    struct cm_buf list = {0};
    struct cm_response_row *found;
    int rc;

    if (open_file(db, err) < 0 || sq_begin(&db->responses, false, err) < 0)
        return -1;
    rc = finish(db, walk(db, find, b, arena, &list, err), err);
    if (rc == 0) {
        *n = list.n / sizeof(**rows);
        *rows = CM_ARENA_ARRAY(arena, struct cm_response_row, *n);
        found = (struct cm_response_row *)(void *)list.p;
        for (size_t i = 0; i < *n; i++)
            (*rows)[i] = found[*n - 1 - i];
    }
    cm_buf_clear(&list);
    return rc;
}

int sq_drop_response(struct cm_store_db *db, struct cm_str id, struct cm_str scope,
                     struct cm_err *err)
{
    sqlite3_stmt *st;
    int64_t bytes = 0, no = 0;
    int rc;

    if (open_file(db, err) < 0 || sq_begin(&db->responses, true, err) < 0)
        return -1;
    st = sq_use(&db->responses, ST_DROP, "SELECT no, bytes FROM responses WHERE id=?1 AND scope=?2",
                err);
    rc = st ? 0 : -1;
    if (st) {
        sq_text(st, 1, id);
        sq_text(st, 2, scope);
        rc = sq_step(&db->responses, st, err);
    }
    if (rc == 1) {
        no = sqlite3_column_int64(st, 0);
        bytes = sqlite3_column_int64(st, 1);
        sqlite3_reset(st);
        rc = drop_no(db, no, bytes, err);
    }
    rc = finish(db, rc, err);
    if (rc == 0) /* the log of writes holds it, too */
        sqlite3_wal_checkpoint_v2(db->responses.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    return rc;
}
