/* SQLite driver: rows of the pool file. Credentials, whose secrets are sealed for their place, and client keys. */
#include "sqlite_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <stdlib.h>

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

int sq_load_creds(struct cm_store_db *db, struct cm_arena *arena, struct cm_cred_row **rows,
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

int sq_load_cred(struct cm_store_db *db, uint64_t id, struct cm_arena *arena,
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

int sq_load_keys(struct cm_store_db *db, struct cm_arena *arena, struct cm_key_row **rows,
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

int sq_change(struct cm_store_db *db, const struct cm_change *changes, size_t n,
              const struct cm_store_stamp *stamp, struct cm_err *err)
{
    int rc = sq_begin(&db->pool, true, err);

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = apply(db, &changes[i], stamp->rev, err);
    if (rc == 0)
        rc = sq_raise_ids(db, stamp->ids_below, err);
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

int sq_write_pool(struct cm_store_db *db, const struct cm_store_group *group, struct cm_err *err)
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
        rc = sq_raise_ids(db, group->stamp.ids_below, err);
    if (rc == 0 && group->probe)
        rc = write_probe(db, err);
    if (rc == 0)
        return sq_commit(&db->pool, err);
    sq_rollback(&db->pool);
    return -1;
}

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

int sq_reseal_row(struct cm_store_db *db, const struct cm_aead_key *key, sqlite3_stmt *from,
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
