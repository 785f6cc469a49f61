/* A store in a directory of its own, on a real loop with real jobs, and calls that wait for their answers. */
#ifndef CHATMUX_TEST_STORE_FIXTURE_H
#define CHATMUX_TEST_STORE_FIXTURE_H

#include "chatmux/base/buf.h"
#include "chatmux/store/store.h"

#include <sqlite3.h>

#define FIX_KEY "the master key of the tests"

struct fix {
    char dir[64];                /* made by fix_init(), removed by fix_clear() */
    char state[96];              /* dir/state: not there at first */
    struct cm_store_setup setup; /* sqlite:chatmux.db, FIX_KEY, no retention, the clock below */
    struct cm_clock clock;
    int64_t now_ms; /* of that clock */
    struct cm_loop *loop;
    struct cm_jobs *jobs;
    struct cm_store *store; /* NULL while closed */
    struct cm_arena arena;  /* what was loaded */
    struct cm_err err;      /* of the last failure */
};

void fix_init(struct fix *f);
void fix_clear(struct fix *f); /* closes, too */
void fix_open(struct fix *f);  /* must succeed */
bool fix_try(struct fix *f);   /* false: f->err */
void fix_close(struct fix *f); /* as at the end of the process: all is written */
char *fix_path(const struct fix *f,
               const char *name); /* in the state directory; static memory, two at a time */

void fix_run_ms(struct fix *f, uint64_t ms); /* the loop turns */
/* Wait for `done`; -1 with f->err. */
int fix_change(struct fix *f, const struct cm_change *changes, size_t n);
int fix_put_cred(struct fix *f, const struct cm_cred_row *row);
int fix_put_key(struct fix *f, const struct cm_key_row *row);
int fix_flush(struct fix *f);
int fix_rekey(struct fix *f, const char *text);
int fix_backup(struct fix *f, const char *path);

struct cm_cred_row fix_cred(uint64_t id, const char *secret);
struct cm_key_row fix_key(uint64_t id, const char *name);
struct cm_request_row fix_row(int64_t at_ms, const char *id);

/* From the database; in f->arena. */
struct cm_cred_row *fix_creds(struct fix *f, size_t *n);
struct cm_key_row *fix_keys(struct fix *f, size_t *n);
const struct cm_cred_row *fix_find_cred(struct fix *f, uint64_t id); /* NULL: none */

/* Copies in f->arena. NULL and f->err on failure. */
struct cm_request_row *fix_requests(struct fix *f, const struct cm_request_query *q, size_t *n,
                                    struct cm_str *next);
struct cm_usage_row *fix_usage(struct fix *f, const char *by, int64_t from_ms, int64_t to_ms,
                               size_t *n);
int64_t fix_spent(struct fix *f, uint64_t key_id, int64_t since_ms); /* while it runs */

/* Past the store: another program at the file. */
sqlite3 *fix_raw(const char *path);
void fix_sql(const char *path, const char *sql);
int64_t fix_number(const char *path, const char *sql);
bool fix_text_in_file(const char *path, const char *text);

#endif
