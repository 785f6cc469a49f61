/* SQLite driver: what adapters remember beyond a restart. Bounded by its number; what is over goes with the next look at it. */
#include "sqlite_int.h"

#define TRIM_EVERY 1000 /* rows written */

static int trim(struct cm_store_db *db, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_TRIM_MEMORIES,
                              "DELETE FROM memories WHERE key IN (SELECT key FROM memories ORDER "
                              "BY until_ms LIMIT max(0, (SELECT count(*) FROM memories) - ?1))",
                              err);

    if (!st)
        return -1;
    db->untrimmed = 0;
    sq_int(st, 1, CM_MEMORIES_MAX);
    return sq_run(&db->pool, st, err);
}

int sq_put_memory(struct cm_store_db *db, const struct cm_memory_row *row, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_PUT_MEMORY,
                              "INSERT OR REPLACE INTO memories VALUES (?1, ?2, ?3, ?4, ?5)", err);

    if (!st)
        return -1;
    sq_blob(st, 1, cm_str((const char *)row->key, sizeof(row->key)));
    sq_int(st, 2, (int64_t)row->cred_id);
    sq_int(st, 3, row->kind);
    sq_int(st, 4, row->until_ms);
    sq_blob(st, 5, row->value);
    if (sq_run(&db->pool, st, err) < 0)
        return -1;
    return ++db->untrimmed < TRIM_EVERY ? 0 : trim(db, err);
}

static int del_memory(struct cm_store_db *db, const struct cm_memory_row *row, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_DEL_MEMORY, "DELETE FROM memories WHERE key=?1", err);

    if (!st)
        return -1;
    sq_blob(st, 1, cm_str((const char *)row->key, sizeof(row->key)));
    return sq_run(&db->pool, st, err);
}

int sq_del_memories_of(struct cm_store_db *db, uint64_t cred_id, struct cm_err *err)
{
    sqlite3_stmt *st =
        sq_use(&db->pool, ST_DEL_MEMORIES_OF, "DELETE FROM memories WHERE cred_id=?1", err);

    if (!st)
        return -1;
    sq_int(st, 1, (int64_t)cred_id);
    return sq_run(&db->pool, st, err);
}

int sq_write_memories(struct cm_store_db *db, const struct cm_map *memories, struct cm_err *err)
{
    const struct cm_map_slot *slot;
    int rc = 0;

    for (size_t pos = 0; rc == 0 && (slot = cm_map_next(memories, &pos));) {
        const struct cm_store_memory *m = slot->value;

        rc = m->gone ? del_memory(db, &m->row, err) : sq_put_memory(db, &m->row, err);
    }
    return rc;
}

/* The latest ones, when a hand has put in more. */
int sq_load_memories(struct cm_store_db *db, int64_t now_ms, struct cm_arena *arena,
                     struct cm_memory_row **rows, size_t *n, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(&db->pool, ST_LOAD_MEMORIES,
                              "SELECT key, cred_id, kind, until_ms, value FROM (SELECT * FROM "
                              "memories WHERE until_ms>?1 ORDER BY until_ms DESC LIMIT ?2) ORDER "
                              "BY until_ms",
                              err);
    struct cm_memory_row *all = NULL;
    size_t count = 0, cap = 0;
    int rc;

    if (!st)
        return -1;
    sq_int(st, 1, now_ms);
    sq_int(st, 2, CM_MEMORIES_MAX);
    while ((rc = sq_step(&db->pool, st, err)) == 1) {
        struct cm_str key = sq_col(st, 0);
        struct cm_memory_row row = {.cred_id = (uint64_t)sqlite3_column_int64(st, 1),
                                    .kind = sqlite3_column_int64(st, 2),
                                    .until_ms = sqlite3_column_int64(st, 3)};

        if (key.n != sizeof(row.key))
            continue; /* a hand has been at work */
        memcpy(row.key, key.p, key.n);
        row.value = cm_arena_str(arena, sq_col(st, 4));
        all = sq_grow(arena, all, count, &cap, sizeof(*all));
        all[count++] = row;
    }
    if (rc == 0)
        *rows = all, *n = count;
    return rc;
}
