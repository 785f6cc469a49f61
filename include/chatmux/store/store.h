/* Store: what must survive a restart. One driver behind it today (SQLite); nothing above knows SQL or files. Loop thread only; the work is done on the
 * store's job lane.
 *
 * Two kinds of writing: changes an operator or a platform was promised are committed durably before `done` (cm_store_change); counters, states and
 * log rows are collected and committed in groups (cm_store_count, cm_store_log). A store that cannot write degrades: it keeps what it can in memory,
 * tells why (cm_store_trouble) and tries again; requests go on. */
#ifndef CHATMUX_STORE_STORE_H
#define CHATMUX_STORE_STORE_H

#include "chatmux/base/arena.h"
#include "chatmux/base/clock.h"
#include "chatmux/base/err.h"
#include "chatmux/io/job.h"

struct cm_store;

/* ---- rows; slices are borrowed for the call, or live in the arena that a reader was given ---- */

struct cm_cred_row {
    uint64_t id; /* given by cm_store_next_id() */
    struct cm_str provider, label;
    struct cm_str secret; /* plain here, encrypted on disk */
    struct cm_str
        token; /* what refreshing made of it (JSON of the adapter's), encrypted too; "" = none */
    struct cm_str proxy; /* "" = the provider's; may hold a password: encrypted */
    bool from_config;    /* stands in the configuration file; false: came through the API */
    bool gone;           /* its line has disappeared: only its history is kept */
    bool enabled;
    bool
        damaged; /* load only: a secret on disk does not open in its place (altered or moved); it is empty here, and a credential
                                       * of the API comes back as not enabled, state "disabled", reason "damaged_secret" */
    int64_t weight, max_inflight; /* max_inflight 0 = the provider's */
    struct cm_str state, reason;  /* words of the pool: "cooling", "rate_limited" */
    int64_t until_ms;             /* Unix; 0 = none */
    struct cm_str quota;          /* JSON or "" */
    int64_t requests, failures, tokens_in, tokens_out;
    int64_t last_used_ms, created_ms; /* Unix; 0 = never */
    int64_t month_ms,
        month_requests;       /* when the month began that month_requests counts (Unix); 0 = none */
    bool month_anew;          /* PUT_CRED: another account, of whose requests none is counted yet */
    int64_t token_expires_ms; /* Unix; 0 = not known */
};

struct cm_key_row {
    uint64_t id;
    unsigned char digest[32];       /* SHA-256 of the key; the key itself is never stored */
    struct cm_str name, hint;       /* hint: last four characters */
    struct cm_str models;           /* JSON array of allowed names; "" = all */
    int64_t rpm, tpm, max_parallel; /* 0 = no limit */
    int64_t budget_micro_usd;       /* 0 = none */
    struct cm_str budget_period;    /* "day" "week" "month" "total" */
    int64_t expires_s, created_s;   /* Unix; expires 0 = never */
    bool enabled;
};

/* What an adapter remembers of an account beyond a restart: a conversation of the platform that can go on. Nothing secret: it lies there as it is. */
struct cm_memory_row {
    unsigned char key[32]; /* a digest */
    uint64_t cred_id;      /* it goes with this credential, and with the credential's secret */
    int64_t kind;          /* the provider layer's */
    int64_t until_ms;      /* Unix */
    struct cm_str value;   /* at most CM_MEMORY_VALUE_MAX bytes */
};
#define CM_MEMORY_VALUE_MAX 4096
#define CM_MEMORIES_MAX 20000 /* then those that end soonest go */

/* One exchange: the request log and the ledger are written from it in one transaction. */
struct cm_request_row {
    int64_t at_ms;    /* Unix: when it ended */
    struct cm_str id; /* request id */
    uint64_t key_id;  /* 0 = configured or open */
    struct cm_str key, surface, model, provider,
        credential; /* credential: its label; cred_id: its number */
    uint64_t cred_id;
    int64_t status, attempts, duration_ms, ttft_ms, bytes_in, bytes_out; /* ttft -1 = none */
    struct cm_str outcome, error, why;
    int64_t in_uncached, in_cache_read, in_cache_write, out_text, out_reasoning, images;
    struct cm_str usage_source; /* "upstream" "estimated" "partial" "none" */
    int64_t cost_micro_usd;
    /* JSON: every attempt with its credential, class and times; above 64 KiB left out */
    struct cm_str detail;
    bool ledger_only; /* counts in the ledger, and is no row of the request log */
    bool
        log_only; /* the other way round: nothing was asked of a platform; with both it is nothing at all */
};

/* One response of the Responses API: of ours with its content, or an upstream's with the credential that made it. */
struct cm_response_row {
    struct cm_str id;       /* "resp_…" */
    struct cm_str scope;    /* whose it is: nobody else is told of it */
    struct cm_str previous; /* the response it went on from; "" = none */
    struct cm_str provider; /* an upstream's: which one made it, and … */
    uint64_t cred_id;       /* … with which account; "" and 0 = it is ours */
    uint64_t conversation;  /* as the pool knows it; 0 = not known */
    struct cm_str input,
        response;       /* ours: JSON of what was asked and answered; sealed on the disk */
    int64_t created_ms; /* Unix */
};

/* ---- life ---- */

struct cm_store_setup {
    struct cm_loop *loop;
    struct cm_jobs *jobs;
    struct cm_str url,
        state_dir; /* "sqlite:chatmux.db", relative to state_dir; the directory is made with mode 0700 */
    struct cm_str master_key; /* 64 hex digits or any text of 16+ bytes; "" = see below */
    struct cm_str
        master_key_file; /* "" = $CREDENTIALS_DIRECTORY/chatmux-master-key (systemd), else master.key beside the database, made with
                                       * mode 0600 at first start */
    int64_t keep_days;   /* of the request log; the roll-ups stay; 0 = all days */
    /* Of responses: how long after their last use, how many, and bytes of content together; beyond that the least recently used go. ttl 0 = none are
     * kept, and what an earlier process has kept goes. */
    int64_t responses_ttl_ms, responses_max, responses_bytes;
    const struct cm_clock *clock; /* not owned; NULL = the system's */
};
#define CM_STORE_KEEP_DAYS 30 /* a default for configurations that say nothing */
/* Synchronous, before the loop runs: opens or makes the files, migrates, checks the master key. NULL and a sentence that says what to do: a newer
 * schema than ours, a corrupt file, a read-only directory, a wrong key …: all CM_ERR_CONFIG or CM_ERR_IO. Slices of `setup` are borrowed for the
 * call. */
struct cm_store *cm_store_open(const struct cm_store_setup *setup, struct cm_err *err);
/* Writes what is collected, waits for what is in progress (a backup is given up), then on_closed, on a later turn; nothing of the store is called
 * after that. Changes, flushes and reads in progress get their answers before. NULL is not fine. */
void cm_store_close(struct cm_store *s, void (*on_closed)(void *arg), void *arg);

/* Synchronous, before the loop runs. */
int cm_store_load_creds(struct cm_store *s, struct cm_arena *arena, struct cm_cred_row **rows,
                        size_t *n, struct cm_err *err);
int cm_store_load_keys(struct cm_store *s, struct cm_arena *arena, struct cm_key_row **rows,
                       size_t *n, struct cm_err *err);
/* Those that are not over, the one that ends soonest first; at most CM_MEMORIES_MAX. */
int cm_store_load_memories(struct cm_store *s, struct cm_arena *arena, struct cm_memory_row **rows,
                           size_t *n, struct cm_err *err);
/* What each stored key has spent since `since_ms` (Unix; rounded down to the hour, as every period begins on one): from the ledger. */
struct cm_spent {
    uint64_t key_id;
    int64_t micro_usd;
};
int cm_store_load_spent(struct cm_store *s, int64_t since_ms, struct cm_arena *arena,
                        struct cm_spent **rows, size_t *n, struct cm_err *err);

/* The same while the loop runs, with what is not on the disk yet: true of the moment in which fn is called. Rows live until its return. */
typedef void cm_store_spent_fn(void *arg, const struct cm_spent *rows, size_t n,
                               const struct cm_err *err);
void cm_store_spent(struct cm_store *s, int64_t since_ms, cm_store_spent_fn *fn, void *arg);

/* One credential as it is on the disk, with what was given to cm_store_change() before; another process may have written it. NULL: there is none. The
 * row lives until the return. On a later turn. */
typedef void cm_store_cred_fn(void *arg, const struct cm_cred_row *row, const struct cm_err *err);
void cm_store_cred(struct cm_store *s, uint64_t id, cm_store_cred_fn *fn, void *arg);

/* Identifiers ascend and are never used twice, also after a crash. From 1. */
uint64_t cm_store_next_id(struct cm_store *s);

/* Nothing was ever kept in it: no identifier was given. */
bool cm_store_is_unused(const struct cm_store *s);

/* NULL = fine; otherwise one sentence for /readyz and the log. */
const char *cm_store_trouble(const struct cm_store *s);

/* ---- writing ---- */

enum cm_change_kind {
    CM_CHANGE_PUT_CRED,
    /* token and token_expires_ms of `cred`, if its id is there with this secret (what was made of another one is worthless); nothing else changes, so
     * that it crosses no operator's change that is under way */
    CM_CHANGE_SET_TOKEN,
    CM_CHANGE_DEL_CRED,
    CM_CHANGE_PUT_KEY,
    CM_CHANGE_DEL_KEY,
    CM_CHANGE_PUT_MEMORY
};
struct cm_change {
    enum cm_change_kind kind;
    const struct cm_cred_row
        *cred; /* PUT_CRED: all but the counters, which are only added to; SET_TOKEN */
    const struct cm_key_row *key;       /* PUT_KEY */
    const struct cm_memory_row *memory; /* PUT_MEMORY */
    uint64_t id;                        /* DEL_… */
};
/* err NULL: on the disk (synchronous=FULL). CM_ERR_BAD_REQUEST: it contradicts what is stored (a second key with the same digest); CM_ERR_IO: the
 * disk is full, the file is locked …: nothing of it was written, the sentence says what to do; CM_ERR_SHUTTING_DOWN. */
typedef void cm_store_done_fn(void *arg, const struct cm_err *err);
/* All of them or none, in the order of the calls. Copied. `done` on a later turn (may be NULL). A state that was given to cm_store_state() before
 * this call never overwrites what PUT_CRED brings, also when it is written later. */
void cm_store_change(struct cm_store *s, const struct cm_change *changes, size_t n,
                     cm_store_done_fn *done, void *arg);

/* Collected and committed in groups: every 250 ms, or at 256 log rows. The request log and the ledger are synced with each group; counters and
 * states may lose their last seconds when the machine (not the process) dies. */
struct cm_cred_count {
    uint64_t id;
    int64_t requests, failures, tokens_in, tokens_out; /* to be added */
    int64_t last_used_ms;
    int64_t month_ms;       /* the month in which they count (when it began, Unix); 0 = in none */
    int64_t month_requests; /* the store's own */
};
void cm_store_count(struct cm_store *s, const struct cm_cred_count *count);
/* State, reason, until, quota of a credential: group-committed, the last one counts. */
void cm_store_state(struct cm_store *s, uint64_t id, struct cm_str state, struct cm_str reason,
                    int64_t until_ms, struct cm_str quota);
/* Group-committed, too; of one key the last one counts. Copied. When the writer cannot follow, at most 4096 wait and further ones are not kept; a value that
 * is too large is not kept either. */
void cm_store_remember(struct cm_store *s, const struct cm_memory_row *row);
void cm_store_forget(struct cm_store *s, const unsigned char key[32]);
/* Copied. When the writer cannot follow, the oldest rows are dropped and counted; the ledger's part never is. */
void cm_store_log(struct cm_store *s, const struct cm_request_row *row);
uint64_t cm_store_dropped(const struct cm_store *s);
/* Writes now what was collected before this call; done (may be NULL) on a later turn. */
void cm_store_flush(struct cm_store *s, cm_store_done_fn *done, void *arg);

/* ---- kept responses; all in the order of the calls ---- */

bool cm_store_keeps_responses(const struct cm_store *s);
/* In the place of one with its id. Copied. What cannot be written, or would make more than 64 MiB wait for the disk, is lost, and the log tells it; a later
 * cm_store_responses() finds it otherwise. */
void cm_store_keep_response(struct cm_store *s, const struct cm_response_row *row);
/* The response of that id, if `scope` is its own; with `turns` also those that it went on from, the oldest first, up to one of an upstream, and all of
 * them count as used now. n 0 and no error: there is none, or no longer. CM_ERR_NOT_FOUND: an earlier one of them is missing; CM_ERR_TOO_LARGE: together
 * they are larger than `max_bytes`. Rows live in `arena`, which belongs to the thread until fn is called, on a later turn. */
typedef void cm_store_responses_fn(void *arg, const struct cm_response_row *rows, size_t n,
                                   const struct cm_err *err);
void cm_store_responses(struct cm_store *s, struct cm_str id, struct cm_str scope, bool turns,
                        size_t max_bytes, struct cm_arena *arena, cm_store_responses_fn *fn,
                        void *arg);
/* `done` (may be NULL): it is gone, and nothing of it is left in the file. */
void cm_store_drop_response(struct cm_store *s, struct cm_str id, struct cm_str scope,
                            cm_store_done_fn *done, void *arg);

/* ---- reading, for operators: on a thread of its own that holds up no writer; what was given to cm_store_log() before is there ---- */

struct cm_request_query {
    int64_t limit;                         /* 1 … 500 */
    struct cm_str cursor;                  /* "" = newest; otherwise `next` of the page before */
    struct cm_str key, model, outcome, id; /* "" = all */
};
/* Rows live until the return. next "" = no more. CM_ERR_BAD_REQUEST: that is no cursor. */
typedef void cm_store_requests_fn(void *arg, const struct cm_request_row *rows, size_t n,
                                  struct cm_str next, const struct cm_err *err);
void cm_store_requests(struct cm_store *s, const struct cm_request_query *q,
                       cm_store_requests_fn *fn, void *arg);

struct cm_usage_row {
    struct cm_str group; /* key, model, provider, credential, or the hour or day (RFC 3339) */
    uint64_t id;         /* of the key or credential; 0 = none */
    int64_t requests, in_uncached, in_cache_read, in_cache_write, out_text, out_reasoning, images,
        cost_micro_usd;
};
struct cm_usage_query {
    int64_t from_ms, to_ms; /* Unix; to 0 = now; widened to whole hours */
    struct cm_str by;       /* "key" "model" "provider" "credential" "hour" "day" */
};
/* Hours and days ascend; the others by cost, then requests, descending. CM_ERR_BAD_REQUEST: no such `by`. */
typedef void cm_store_usage_fn(void *arg, const struct cm_usage_row *rows, size_t n,
                               const struct cm_err *err);
void cm_store_usage(struct cm_store *s, const struct cm_usage_query *q, cm_store_usage_fn *fn,
                    void *arg);

/* ---- operations, online ---- */

/* Where the master key came from: "store.master_key", or the name of a file. */
const char *cm_store_key_source(const struct cm_store *s);
/* True: the key stands in a file that cm_store_rekey() replaces itself. False: in the configuration or in a systemd credential, which the operator
 * must change before the next start. */
bool cm_store_key_is_ours(const struct cm_store *s);
/* Every secret is encrypted anew, in one transaction. new_key "": a random one, only when the key file is ours. The file is written as NAME.new
 * before and renamed after; a crash between the two is mended at the next start. */
void cm_store_rekey(struct cm_store *s, struct cm_str new_key, cm_store_done_fn *done, void *arg);
/* A consistent copy of the pool file (credentials, keys) at `path`, which must not exist; mode 0600; in small steps between which others write.
 * The master key is not in it, nor are the request log and the ledger. */
void cm_store_backup(struct cm_store *s, struct cm_str path, cm_store_done_fn *done, void *arg);

#endif
