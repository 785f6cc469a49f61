/* Store, inside: what is collected, and what a driver does with it.
 *
 * store.c knows the loop, jobs and groups; a driver knows one kind of database and blocks. A driver's functions are called one at a time: by open on
 * the loop thread, afterwards on the store lane. `requests` and `usage` come on the files lane beside them, and read only what never changes after
 * open. */
#ifndef CHATMUX_STORE_STORE_INT_H
#define CHATMUX_STORE_STORE_INT_H

#include "chatmux/base/aead.h"
#include "chatmux/base/buf.h"
#include "chatmux/base/list.h"
#include "chatmux/base/map.h"
#include "chatmux/store/store.h"

#define CM_HOUR_MS (3600 * INT64_C(1000))
#define CM_DAY_MS (24 * CM_HOUR_MS)

/* Down, also before 1970. */
static inline int64_t cm_floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* ---- what is collected between two group commits ---- */

/* The columns of a roll-up, in the order of struct cm_usage_row. */
#define CM_STORE_SUMS(X)                                                                           \
    X(requests)                                                                                    \
    X(in_uncached)                                                                                 \
    X(in_cache_read)                                                                               \
    X(in_cache_write)                                                                              \
    X(out_text)                                                                                    \
    X(out_reasoning)                                                                               \
    X(images)                                                                                      \
    X(cost_micro_usd)

/* By what the ledger adds up: the values stand in files. */
enum cm_store_dim { CM_DIM_KEY = 1, CM_DIM_MODEL = 2, CM_DIM_PROVIDER = 3, CM_DIM_CREDENTIAL = 4 };

/* One line of an hour's roll-up. In cm_store_day.sums under its first bytes: hour … name. */
struct cm_store_sum {
    struct cm_usage_row add; /* group is the name below */
    struct cm_store_sum_key {
        int64_t hour; /* Unix hours */
        uint64_t id;  /* of the key or credential; 0 = none */
        int64_t dim;  /* enum cm_store_dim */
        char name[];
    } key;
};

struct cm_store_entry { /* one row of the request log with its texts behind it */
    struct cm_list link;
    size_t bytes;
    struct cm_request_row row;
    char text[];
};

struct cm_store_day { /* what goes into one day's file, in one transaction */
    struct cm_list link;
    int64_t day; /* Unix days */
    struct cm_list entries;
    struct cm_map sums;
    size_t n_entries, bytes; /* of the entries */
};

struct cm_store_state { /* last state of a credential */
    uint64_t id, rev;
    struct cm_str state, reason, quota;
    int64_t until_ms;
    char text[];
};

struct cm_store_memory { /* in a group's map under its key */
    struct cm_memory_row row;
    bool gone; /* it is to be deleted */
    char value[];
};

/* What a transaction of the pool file brings besides. */
struct cm_store_stamp {
    uint64_t rev;       /* rows written now are newer than states with a smaller one */
    uint64_t ids_below; /* these may have been given away: the mark is raised to it; 0 = leave it */
};

struct cm_store_group {
    struct cm_map counts;   /* struct cm_cred_count by its id */
    struct cm_map states;   /* struct cm_store_state by its id */
    struct cm_map memories; /* struct cm_store_memory by its key */
    struct cm_list days;    /* struct cm_store_day */
    struct cm_store_stamp stamp;
    bool probe; /* write the pool file even when there is nothing to write: can it be written? */
};

/* ---- kept responses ---- */

struct cm_response_bounds {
    int64_t now_ms, ttl_ms; /* ttl 0: none are kept */
    int64_t max, bytes;
};
struct cm_response_find { /* see cm_store_responses() */
    struct cm_str id, scope;
    bool turns;
    size_t max_bytes;
};

/* ---- drivers ---- */

struct cm_store_db;
struct cm_store_backup;

struct cm_store_driver {
    const char *scheme; /* "sqlite" */
    /* `where` is the URL without its scheme. */
    struct cm_store_db *(*open)(struct cm_str where, struct cm_str state_dir, struct cm_err *err);
    void (*close)(struct cm_store_db *db);             /* NULL is fine */
    const char *(*dir)(const struct cm_store_db *db);  /* where a key file is looked for */
    const char *(*name)(const struct cm_store_db *db); /* for messages */

    /* The value by which a wrong master key is recognised; sealed.n 0 = none yet. */
    int (*load_check)(struct cm_store_db *db, struct cm_arena *arena, struct cm_str *sealed,
                      struct cm_err *err);
    int (*save_check)(struct cm_store_db *db, struct cm_str sealed, struct cm_err *err);
    void (*set_key)(struct cm_store_db *db, const struct cm_aead_key *key); /* copied */

    /* The mark as it was stored (1 at first), and the largest rev of any row. */
    int (*load_stamp)(struct cm_store_db *db, struct cm_store_stamp *stamp, struct cm_err *err);
    int (*load_creds)(struct cm_store_db *db, struct cm_arena *arena, struct cm_cred_row **rows,
                      size_t *n, struct cm_err *err);
    /* *row NULL: there is none. */
    int (*load_cred)(struct cm_store_db *db, uint64_t id, struct cm_arena *arena,
                     struct cm_cred_row **row, struct cm_err *err);
    int (*load_keys)(struct cm_store_db *db, struct cm_arena *arena, struct cm_key_row **rows,
                     size_t *n, struct cm_err *err);
    /* Those that end after now_ms, as cm_store_load_memories() tells. */
    int (*load_memories)(struct cm_store_db *db, int64_t now_ms, struct cm_arena *arena,
                         struct cm_memory_row **rows, size_t *n, struct cm_err *err);
    int (*load_spent)(struct cm_store_db *db, int64_t since_ms, struct cm_arena *arena,
                      struct cm_spent **rows, size_t *n, struct cm_err *err);

    int (*change)(struct cm_store_db *db, const struct cm_change *changes, size_t n,
                  const struct cm_store_stamp *stamp, struct cm_err *err);
    /* Counts, states, memories and stamp of a group, in one transaction. */
    int (*write_pool)(struct cm_store_db *db, const struct cm_store_group *group,
                      struct cm_err *err);
    /* Rows and roll-ups of a day, in one transaction, synced. */
    int (*write_day)(struct cm_store_db *db, const struct cm_store_day *day, struct cm_err *err);
    /* Drops days of the request log before `first_day`; their roll-ups stay. */
    int (*sweep)(struct cm_store_db *db, int64_t first_day, struct cm_err *err);
    /* Exactly this becomes the mark, also when it is lower; durable. */
    int (*save_ids)(struct cm_store_db *db, uint64_t ids_below, struct cm_err *err);

    int (*requests)(const struct cm_store_db *db, const struct cm_request_query *q,
                    struct cm_arena *arena, struct cm_request_row **rows, size_t *n,
                    struct cm_str *next, struct cm_err *err);
    int (*usage)(const struct cm_store_db *db, const struct cm_usage_query *q,
                 struct cm_arena *arena, struct cm_usage_row **rows, size_t *n, struct cm_err *err);

    /* Kept responses. What `bounds` does not allow goes with each of these. */
    int (*keep_response)(struct cm_store_db *db, const struct cm_response_row *row,
                         const struct cm_response_bounds *bounds, struct cm_err *err);
    int (*load_responses)(struct cm_store_db *db, const struct cm_response_find *find,
                          const struct cm_response_bounds *bounds, struct cm_arena *arena,
                          struct cm_response_row **rows, size_t *n, struct cm_err *err);
    int (*drop_response)(struct cm_store_db *db, struct cm_str id, struct cm_str scope,
                         struct cm_err *err);
    /* Those that nobody has used for too long. */
    int (*sweep_responses)(struct cm_store_db *db, const struct cm_response_bounds *bounds,
                           struct cm_err *err);

    /* All secrets and the check value, in one transaction; from then on the new key is the one set. */
    int (*rekey)(struct cm_store_db *db, const struct cm_aead_key *key, struct cm_str check,
                 struct cm_err *err);
    struct cm_store_backup *(*backup_begin)(struct cm_store_db *db, struct cm_str path,
                                            struct cm_err *err);
    int (*backup_step)(struct cm_store_backup *b, bool *done, struct cm_err *err);
    /* Ends the copy; one that is not done is removed. */
    void (*backup_end)(struct cm_store_backup *b);
};
extern const struct cm_store_driver cm_store_sqlite;

/* ---- what keys spent, added up from several places (group.c) ---- */

struct cm_spending {
    struct cm_arena *arena; /* the rows' */
    struct cm_map keys;     /* struct cm_spent by its id */
};
void cm_spending_add(struct cm_spending *sp, uint64_t key_id, int64_t micro_usd);
/* The rows as an array of the arena; frees the rest. Returns how many. */
size_t cm_spending_end(struct cm_spending *sp, struct cm_spent **rows);

/* ---- secrets: one place says what is sealed to what ---- */

/* The place of a value: table, row and column, so that values cannot change places. */
struct cm_store_place {
    char text[64];
    size_t n;
};
struct cm_store_place cm_store_place(const char *table, uint64_t id, const char *column);

/* ---- master.c: where the master key comes from ---- */

struct cm_master {
    struct cm_aead_key key;
    char *source; /* owned; for people */
    char *file;   /* owned; the key file that is ours to replace; NULL = none */
};
/* Finds the key and holds it against `check` (empty: a new database, a key file may be made). */
int cm_master_find(struct cm_master *m, const struct cm_store_setup *setup, const char *dir,
                   const char *db_name, struct cm_str check, struct cm_err *err);
void cm_master_clear(struct cm_master *m);
#define CM_MASTER_TEXT_CAP (CM_AEAD_KEY_SIZE * 2 + 1)
void cm_master_make(char out[CM_MASTER_TEXT_CAP]);
int cm_master_derive(struct cm_aead_key *key, struct cm_str text, struct cm_err *err);
/* The new key beside the old file; then in its place. */
int cm_master_prepare(const struct cm_master *m, struct cm_str text, struct cm_err *err);
int cm_master_replace(const struct cm_master *m, struct cm_err *err);
#define CM_MASTER_CHECK_CAP (CM_AEAD_OVERHEAD + 32)
/* The value that tells a wrong key; returned in buf. */
struct cm_str cm_master_seal_check(const struct cm_aead_key *key,
                                   unsigned char buf[CM_MASTER_CHECK_CAP]);
bool cm_master_fits(const struct cm_aead_key *key, struct cm_str check);

/* ---- files.c: files of ours ---- */

/* With its parents, mode 0700, durable. */
int cm_make_dir(const char *path, struct cm_err *err);
/* An empty file of mode 0600 unless there is one; *made tells. Durable with its name. */
int cm_make_file(const char *path, bool *made, struct cm_err *err);
/* Mode 0600, whole or not at all, durable. */
int cm_write_file(const char *path, struct cm_str text, struct cm_err *err);
int cm_rename_file(const char *from, const char *to, struct cm_err *err);
/* Makes the names in the folder of `path` durable. */
int cm_sync_names(const char *path, struct cm_err *err);
char *cm_parent_of(const char *path); /* malloc'd: the folder that holds it */
/* malloc'd: dir/name, or name alone when it is absolute. */
char *cm_path_join(struct cm_str dir, struct cm_str name);

#endif
