/* SQLite driver, inside: connections and statements, and the files it keeps.
 *
 * The pool file holds credentials, keys and meta. Beside it lie `requests-YYYY-MM-DD.db` (one UTC day: rows of the request log and their hourly
 * roll-ups, written in one transaction, so that they cannot disagree) and `usage-YYYY-MM.db` (roll-ups of days whose file was dropped). */
#ifndef CHATMUX_STORE_SQLITE_INT_H
#define CHATMUX_STORE_SQLITE_INT_H

#include "store_int.h"

#include <sqlite3.h>

/* ---- a connection ---- */

#define SQ_STATEMENTS_MAX 40
struct sq_file {
    sqlite3 *db; /* owned; NULL = closed */
    char *path;  /* owned */
    int refused; /* code of the last failure, 0 = none since it was opened */
    sqlite3_stmt *st[SQ_STATEMENTS_MAX]; /* owned; prepared when first used */
};

struct sq_schema {
    const char *const *steps; /* SQL; user_version counts those that are done */
    int n;
    int application_id;
};

/* Opens a file that is there, in WAL mode, and brings it up to date. On failure the file is closed. */
int sq_open(struct sq_file *f, const char *path, const struct sq_schema *schema,
            struct cm_err *err);
/* For reading beside the writer. 1: no such file. */
int sq_open_read(struct sq_file *f, const char *path, const struct sq_schema *schema,
                 struct cm_err *err);
void sq_close(struct sq_file *f); /* safe on a closed or zeroed one */
/* Each step in a transaction of its own, with its number. */
int sq_migrate(struct sq_file *f, const struct sq_schema *schema, struct cm_err *err);

/* What SQLite refused, in a sentence that says what to do; -1. */
int sq_fail(struct sq_file *f, int rc, struct cm_err *err);
/* The file itself is broken: trying again does not help. */
bool sq_is_damage(int rc);

/* Durable when `full`: the write-ahead log is synced before commit returns. */
int sq_begin(struct sq_file *f, bool full, struct cm_err *err);
int sq_commit(struct sq_file *f, struct cm_err *err);
void sq_rollback(struct sq_file *f); /* no effect outside of a transaction */
int sq_exec(struct sq_file *f, const char *sql, struct cm_err *err);

/* The statement of that slot, reset and without values. NULL on failure. */
sqlite3_stmt *sq_use(struct sq_file *f, int slot, const char *sql, struct cm_err *err);
void sq_int(sqlite3_stmt *st, int at, int64_t v);
void sq_text(sqlite3_stmt *st, int at, struct cm_str v); /* borrowed until the statement has run */
void sq_blob(sqlite3_stmt *st, int at, struct cm_str v);
/* To its end; resets. */
int sq_run(struct sq_file *f, sqlite3_stmt *st, struct cm_err *err);
/* 1 a row, 0 the end (reset), -1. */
int sq_step(struct sq_file *f, sqlite3_stmt *st, struct cm_err *err);
struct cm_str sq_col(sqlite3_stmt *st, int at); /* text or blob; valid until the next step */

/* ---- the driver ---- */

struct cm_store_db {
    struct sq_file pool;
    char *dir; /* owned; never changes: readers use it too */
    struct cm_aead_key key;
    int untrimmed;              /* memories written since their number was looked at */
    struct sq_file responses;   /* opened when first used */
    struct cm_aead_key content; /* seals what is in it; sealed itself, in the pool file */
    int64_t n_responses, response_bytes;
    struct sq_file day; /* the one written last; closed after a failure */
    int64_t day_no;
    struct cm_map names; /* texts of that file: struct sq_name, owned */
};

extern const struct sq_schema sq_pool_schema, sq_day_schema, sq_month_schema, sq_responses_schema;

/* sqlite_pool.c: values that belong to the file; "" = not there. In the arena. */
int sq_get_meta(struct cm_store_db *db, struct cm_str name, struct cm_arena *arena,
                struct cm_str *value, struct cm_err *err);
/* Within a transaction. */
int sq_put_meta(struct cm_store_db *db, struct cm_str name, struct cm_str blob, struct cm_err *err);
int sq_raise_ids(struct cm_store_db *db, uint64_t ids_below, struct cm_err *err);

/* sqlite_rows.c: as struct cm_store_driver says */
int sq_load_creds(struct cm_store_db *db, struct cm_arena *arena, struct cm_cred_row **rows,
                  size_t *n, struct cm_err *err);
int sq_load_cred(struct cm_store_db *db, uint64_t id, struct cm_arena *arena,
                 struct cm_cred_row **row, struct cm_err *err);
int sq_load_keys(struct cm_store_db *db, struct cm_arena *arena, struct cm_key_row **rows,
                 size_t *n, struct cm_err *err);
int sq_change(struct cm_store_db *db, const struct cm_change *changes, size_t n,
              const struct cm_store_stamp *stamp, struct cm_err *err);
int sq_write_pool(struct cm_store_db *db, const struct cm_store_group *group, struct cm_err *err);
/* The secrets of the row that `from` stands on (id, provider, label, secret, token, proxy) are sealed with that key. */
int sq_reseal_row(struct cm_store_db *db, const struct cm_aead_key *key, sqlite3_stmt *from,
                  struct cm_err *err);

/* sqlite_responses.c: as struct cm_store_driver says */
int sq_keep_response(struct cm_store_db *db, const struct cm_response_row *row,
                     const struct cm_response_bounds *bounds, struct cm_err *err);
int sq_load_responses(struct cm_store_db *db, const struct cm_response_find *find,
                      const struct cm_response_bounds *bounds, struct cm_arena *arena,
                      struct cm_response_row **rows, size_t *n, struct cm_err *err);
int sq_drop_response(struct cm_store_db *db, struct cm_str id, struct cm_str scope,
                     struct cm_err *err);
int sq_sweep_responses(struct cm_store_db *db, const struct cm_response_bounds *bounds,
                       struct cm_err *err);
/* Within the transaction of a rekey: what seals them is sealed with the new key. */
int sq_rekey_responses(struct cm_store_db *db, const struct cm_aead_key *key, struct cm_err *err);

/* The pool file's statements: slots of struct sq_file. */
enum sq_pool_statement {
    ST_PUT_CRED,
    ST_DEL_CRED,
    ST_PUT_KEY,
    ST_DEL_KEY,
    ST_COUNT,
    ST_STATE,
    ST_RAISE_IDS,
    ST_SET_META,
    ST_GET_META,
    ST_PROBE,
    ST_SECRETS,
    ST_RESEAL,
    ST_LOAD_CREDS,
    ST_LOAD_CRED,
    ST_SECRET_OF,
    ST_SET_TOKEN,
    ST_LOAD_KEYS,
    ST_MAX_REV,
    ST_PUT_MEMORY,
    ST_DEL_MEMORY,
    ST_DEL_MEMORIES_OF,
    ST_TRIM_MEMORIES,
    ST_LOAD_MEMORIES
};
/* Rows of unknown number into an arena: doubled, the old array is left behind. */
void *sq_grow(struct cm_arena *arena, void *rows, size_t n, size_t *cap, size_t size);

/* sqlite_memory.c: within a transaction of the pool file */
#define SQ_MEMORIES_SQL                                                                            \
    "CREATE TABLE memories ("                                                                      \
    " key BLOB PRIMARY KEY, cred_id INTEGER NOT NULL, kind INTEGER NOT NULL,"                      \
    " until_ms INTEGER NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"                      \
    "CREATE INDEX memories_until ON memories (until_ms);"                                          \
    "CREATE INDEX memories_cred ON memories (cred_id);"
int sq_put_memory(struct cm_store_db *db, const struct cm_memory_row *row, struct cm_err *err);
int sq_del_memories_of(struct cm_store_db *db, uint64_t cred_id, struct cm_err *err);
/* What a group has collected; now and then those that are too many go. */
int sq_write_memories(struct cm_store_db *db, const struct cm_map *memories, struct cm_err *err);
int sq_load_memories(struct cm_store_db *db, int64_t now_ms, struct cm_arena *arena,
                     struct cm_memory_row **rows, size_t *n, struct cm_err *err);

/* sqlite_log.c */
int sq_log_write(struct cm_store_db *db, const struct cm_store_day *day, struct cm_err *err);
int sq_log_sweep(struct cm_store_db *db, int64_t first_day, struct cm_err *err);
void sq_log_close(struct cm_store_db *db);

/* sqlite_read.c: on connections of their own */
int sq_requests(const struct cm_store_db *db, const struct cm_request_query *q,
                struct cm_arena *arena, struct cm_request_row **rows, size_t *n,
                struct cm_str *next, struct cm_err *err);
int sq_usage(const struct cm_store_db *db, const struct cm_usage_query *q, struct cm_arena *arena,
             struct cm_usage_row **rows, size_t *n, struct cm_err *err);
int sq_spent(const char *dir, int64_t since_ms, struct cm_arena *arena, struct cm_spent **rows,
             size_t *n, struct cm_err *err);
/* The statement that a query becomes; for a test of its plan too. */
void sq_requests_sql(struct cm_buf *sql, const struct cm_request_query *q, bool from_cursor);
/* Columns of a roll-up, the sums in the order of CM_STORE_SUMS. */
#define SQ_SUMS                                                                                    \
    "requests, in_uncached, in_cache_read, in_cache_write, out_text, out_reasoning, images, "      \
    "cost_micro_usd"
#define SQ_HOURS_WHERE " FROM hours WHERE dim=?1 AND hour>=?2 AND hour<?3"
#define SQ_DAY_HOURS_SQL "SELECT hour, id, name, " SQ_SUMS ", '' AS file" SQ_HOURS_WHERE
#define SQ_MONTH_HOURS_SQL "SELECT hour, id, name, " SQ_SUMS ", file" SQ_HOURS_WHERE

/* Files of days and months. A number is days since 1970, or years * 12 + months from 0. */
enum sq_kind { SQ_DAY, SQ_MONTH };
/* Those that lie in `dir`, ascending; malloc'd. */
int sq_list(const char *dir, enum sq_kind kind, int64_t **numbers, size_t *n, struct cm_err *err);
char *sq_log_path(const char *dir, enum sq_kind kind, int64_t number); /* malloc'd */
int64_t sq_month_of(int64_t day);

#endif
