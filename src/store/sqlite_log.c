/* SQLite driver: writing the request log and the ledger, a file per day, and dropping old days.
 *
 * A row and what it adds to the roll-ups of its hour stand in the same file and are written in the same transaction. When a day is dropped its
 * roll-ups are copied to the file of the month under the identity of the day's file, made durable, and only then the file is removed: after a crash
 * in between both are there, readers skip the copy of a file that still exists, and the next sweep copies it again in place of the first copy. */
#include "sqlite_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NAMES_MAX 20000 /* remembered texts of a day */

static const char *const day_steps[] = {
    /* Texts that repeat stand once in `names`. Numbers first, long texts last: a page of the list does not read what it does not show. */
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;"
    "INSERT INTO meta VALUES ('file', lower(hex(randomblob(16))));"
    "CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;"
    "CREATE TABLE requests ("
    " no INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, key_id INTEGER NOT NULL,"
    " cred_id INTEGER NOT NULL, status INTEGER NOT NULL, attempts INTEGER NOT NULL,"
    " duration_ms INTEGER NOT NULL, ttft_ms INTEGER NOT NULL, bytes_in INTEGER NOT NULL,"
    " bytes_out INTEGER NOT NULL, in_uncached INTEGER NOT NULL, in_cache_read INTEGER NOT NULL,"
    " in_cache_write INTEGER NOT NULL, out_text INTEGER NOT NULL, out_reasoning INTEGER NOT NULL,"
    " images INTEGER NOT NULL, cost_micro_usd INTEGER NOT NULL, key INTEGER NOT NULL,"
    " surface INTEGER NOT NULL, model INTEGER NOT NULL, provider INTEGER NOT NULL,"
    " credential INTEGER NOT NULL, outcome INTEGER NOT NULL, usage_source INTEGER NOT NULL,"
    " id TEXT NOT NULL, error TEXT NOT NULL, why TEXT NOT NULL, detail TEXT NOT NULL) STRICT;"
    "CREATE INDEX requests_at ON requests (at_ms);"
    "CREATE INDEX requests_id ON requests (id, at_ms);"
    "CREATE INDEX requests_key ON requests (key, at_ms);"
    "CREATE INDEX requests_model ON requests (model, at_ms);"
    "CREATE INDEX requests_outcome ON requests (outcome, at_ms);"
    "CREATE TABLE hours ("
    " dim INTEGER NOT NULL, hour INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL,"
    " requests INTEGER NOT NULL, in_uncached INTEGER NOT NULL, in_cache_read INTEGER NOT NULL,"
    " in_cache_write INTEGER NOT NULL, out_text INTEGER NOT NULL, out_reasoning INTEGER NOT NULL,"
    " images INTEGER NOT NULL, cost_micro_usd INTEGER NOT NULL,"
    " PRIMARY KEY (dim, hour, id, name)) STRICT, WITHOUT ROWID;",
};
const struct sq_schema sq_day_schema = {day_steps, CM_COUNT(day_steps), 0x636d7864};

static const char *const month_steps[] = {
    "CREATE TABLE hours ("
    " dim INTEGER NOT NULL, hour INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL,"
    " file TEXT NOT NULL, requests INTEGER NOT NULL, in_uncached INTEGER NOT NULL,"
    " in_cache_read INTEGER NOT NULL, in_cache_write INTEGER NOT NULL, out_text INTEGER NOT NULL,"
    " out_reasoning INTEGER NOT NULL, images INTEGER NOT NULL, cost_micro_usd INTEGER NOT NULL,"
    " PRIMARY KEY (dim, hour, id, name, file)) STRICT, WITHOUT ROWID;",
};
const struct sq_schema sq_month_schema = {month_steps, CM_COUNT(month_steps), 0x636d786d};

enum { ST_INSERT, ST_FIND_NAME, ST_ADD_NAME, ST_SUM };

/* ---- names of files */

#define DAY_PATTERN "requests-%Y-%m-%d.db"
#define MONTH_PATTERN "usage-%Y-%m.db"

static void file_name(char out[64], enum sq_kind kind, int64_t number)
{
    struct tm tm = {0};
    time_t t;

    if (kind == SQ_DAY) {
        t = (time_t)(number * (CM_DAY_MS / 1000));
        gmtime_r(&t, &tm);
    } else {
        tm = (struct tm){
            .tm_year = (int)(number / 12) - 1900, .tm_mon = (int)(number % 12), .tm_mday = 1};
    }
    if (strftime(out, 64, kind == SQ_DAY ? DAY_PATTERN : MONTH_PATTERN, &tm) == 0)
        out[0] = '\0';
}

char *sq_log_path(const char *dir, enum sq_kind kind, int64_t number)
{
    char name[64];

    file_name(name, kind, number);
    return cm_path_join(cm_str_of(dir), cm_str_of(name));
}

int64_t sq_month_of(int64_t day)
{
    time_t t = (time_t)(day * (CM_DAY_MS / 1000));
    struct tm tm;

    gmtime_r(&t, &tm);
    return (int64_t)(tm.tm_year + 1900) * 12 + tm.tm_mon;
}

/* The number that a name stands for, or -1: only names that we would give. */
static int64_t number_of(const char *name, enum sq_kind kind)
{
    struct tm tm = {.tm_mday = 1};
    const char *end = strptime(name, kind == SQ_DAY ? DAY_PATTERN : MONTH_PATTERN, &tm);
    char same[64];
    int64_t number;

    if (!end || *end)
        return -1;
    number = cm_floor_div((int64_t)timegm(&tm), CM_DAY_MS / 1000);
    if (kind == SQ_MONTH)
        number = sq_month_of(number);
    file_name(same, kind, number);
    return strcmp(same, name) == 0 ? number : -1;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

int sq_list(const char *dir, enum sq_kind kind, int64_t **numbers, size_t *n, struct cm_err *err)
{
    DIR *d = opendir(dir);
    int64_t *all = NULL;
    size_t count = 0, cap = 0;
    struct dirent *entry;

    if (!d)
        return cm_fail(err, CM_ERR_IO, "cannot read the directory %s: %s", dir, strerror(errno));
    while ((entry = readdir(d))) {
        int64_t number = number_of(entry->d_name, kind);

        if (number < 0)
            continue;
        if (count == cap) {
            cap = cap > 0 ? cap * 2 : 64;
            all = cm_realloc(all, cap * sizeof(*all));
        }
        all[count++] = number;
    }
    closedir(d);
    if (count > 1)
        qsort(all, count, sizeof(*all), by_number);
    *numbers = all;
    *n = count;
    return 0;
}

/* ---- the file of a day */

struct sq_name {
    int64_t id;
    size_t n;
    char text[];
};

static void names_clear(struct cm_map *names)
{
    const struct cm_map_slot *slot;

    for (size_t pos = 0; (slot = cm_map_next(names, &pos));)
        free(slot->value);
    cm_map_clear(names);
}

void sq_log_close(struct cm_store_db *db)
{
    names_clear(&db->names);
    sq_close(&db->day);
}

static int day_open(struct cm_store_db *db, int64_t day, struct cm_err *err)
{
    char *path;
    bool made;
    int rc;

    if (db->day.db && db->day_no == day)
        return 0;
    sq_log_close(db);
    path = sq_log_path(db->dir, SQ_DAY, day);
    db->day.refused = 0;
    rc = cm_make_file(path, &made, err);
    if (rc == 0)
        rc = sq_open(&db->day, path, &sq_day_schema, err);
    db->day_no = day;
    free(path);
    return rc;
}

/* Number of a text in the file that is open, or -1. */
static int64_t name_id(struct cm_store_db *db, struct cm_str text, struct cm_err *err)
{
    struct sq_name *name = cm_map_get(&db->names, text);
    sqlite3_stmt *st;
    int64_t id;
    int rc;

    if (name)
        return name->id;
    st = sq_use(&db->day, ST_FIND_NAME, "SELECT id FROM names WHERE text=?1", err);
    if (!st)
        return -1;
    sq_text(st, 1, text);
    rc = sq_step(&db->day, st, err);
    id = rc == 1 ? sqlite3_column_int64(st, 0) : -1;
    sqlite3_reset(st);
    if (rc == 0) {
        st = sq_use(&db->day, ST_ADD_NAME, "INSERT INTO names (text) VALUES (?1)", err);
        if (!st)
            return -1;
        sq_text(st, 1, text);
        rc = sq_run(&db->day, st, err);
        id = sqlite3_last_insert_rowid(db->day.db);
    }
    if (rc < 0)
        return -1;
    if (db->names.n >= NAMES_MAX)
        names_clear(&db->names);
    name = cm_alloc(sizeof(*name) + text.n + 1);
    name->id = id;
    name->n = text.n;
    cm_str_copy(name->text, text.n + 1, text);
    cm_map_put(&db->names, cm_str(name->text, name->n), name);
    return id;
}

static int write_row(struct cm_store_db *db, const struct cm_request_row *r, struct cm_err *err)
{
    const struct cm_str named[] = {r->key,        r->surface, r->model,       r->provider,
                                   r->credential, r->outcome, r->usage_source};
    const int64_t numbers[] = {
        r->at_ms,     (int64_t)r->key_id, (int64_t)r->cred_id, r->status,
        r->attempts,  r->duration_ms,     r->ttft_ms,          r->bytes_in,
        r->bytes_out, r->in_uncached,     r->in_cache_read,    r->in_cache_write,
        r->out_text,  r->out_reasoning,   r->images,           r->cost_micro_usd};
    int64_t ids[CM_COUNT(named)];
    sqlite3_stmt *st;
    int at = 1;

    for (size_t i = 0; i < CM_COUNT(named); i++)
        if ((ids[i] = name_id(db, named[i], err)) < 0)
            return -1;
    st = sq_use(&db->day, ST_INSERT,
                "INSERT INTO requests (at_ms, key_id, cred_id, status, attempts, duration_ms, "
                "ttft_ms, bytes_in, bytes_out, in_uncached, in_cache_read, in_cache_write, "
                "out_text, out_reasoning, images, cost_micro_usd, key, surface, model, provider, "
                "credential, outcome, usage_source, id, error, why, detail) VALUES (?1, ?2, ?3, "
                "?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, "
                "?21, ?22, ?23, ?24, ?25, ?26, ?27)",
                err);
    if (!st)
        return -1;
    for (size_t i = 0; i < CM_COUNT(numbers); i++)
        sq_int(st, at++, numbers[i]);
    for (size_t i = 0; i < CM_COUNT(ids); i++)
        sq_int(st, at++, ids[i]);
    sq_text(st, at++, r->id);
    sq_text(st, at++, r->error);
    sq_text(st, at++, r->why);
    sq_text(st, at, r->detail);
    return sq_run(&db->day, st, err);
}

static int write_sum(struct cm_store_db *db, const struct cm_store_sum *sum, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(
        &db->day, ST_SUM,
        "INSERT INTO hours (dim, hour, id, name, " SQ_SUMS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, "
        "?8, ?9, ?10, ?11, ?12) ON CONFLICT DO UPDATE SET requests=requests+?5, "
        "in_uncached=in_uncached+?6, in_cache_read=in_cache_read+?7, "
        "in_cache_write=in_cache_write+?8, out_text=out_text+?9, out_reasoning=out_reasoning+?10, "
        "images=images+?11, cost_micro_usd=cost_micro_usd+?12",
        err);
    int at = 5;

    if (!st)
        return -1;
    sq_int(st, 1, sum->key.dim);
    sq_int(st, 2, sum->key.hour);
    sq_int(st, 3, (int64_t)sum->key.id);
    sq_text(st, 4, sum->add.group);
#define X(name) sq_int(st, at++, sum->add.name);
    CM_STORE_SUMS(X)
#undef X
    return sq_run(&db->day, st, err);
}

static int write_day(struct cm_store_db *db, const struct cm_store_day *day, struct cm_err *err)
{
    const struct cm_map_slot *slot;

    if (day_open(db, day->day, err) < 0 || sq_begin(&db->day, true, err) < 0)
        return -1;
    CM_LIST_EACH(&day->entries, link)
    {
        if (write_row(db, &CM_LIST_ITEM(link, struct cm_store_entry, link)->row, err) < 0)
            return -1;
    }
    for (size_t pos = 0; (slot = cm_map_next(&day->sums, &pos));)
        if (write_sum(db, slot->value, err) < 0)
            return -1;
    return sq_commit(&db->day, err);
}

/* A file that is broken would stop the log for the rest of the day: it is kept under another name for whoever wants to rescue it. */
static int set_aside(const char *dir, int64_t day)
{
    static const char *const parts[] = {"", "-wal"};
    char *path = sq_log_path(dir, SQ_DAY, day);
    struct cm_buf from = {0}, to = {0};
    struct cm_err err = {0};
    int rc = 0;

    for (size_t i = 0; i < CM_COUNT(parts); i++) {
        cm_buf_reset(&from);
        cm_buf_reset(&to);
        cm_buf_printf(&from, "%s%s", path, parts[i]);
        cm_buf_printf(&to, "%s.damaged-%lld%s", path, (long long)time(NULL), parts[i]);
        if (access(from.p, F_OK) == 0 && cm_rename_file(from.p, to.p, &err) < 0)
            rc = -1;
    }
    cm_buf_reset(&from);
    cm_buf_printf(&from, "%s-shm", path);
    unlink(from.p);
    if (rc == 0)
        cm_error("store",
                 "%s is damaged and was moved aside with a name that ends in .damaged-…: its part "
                 "of the request log and of the spending is missing until it is mended",
                 path);
    else
        cm_error("store", "%s", err.msg);
    cm_buf_clear(&from);
    cm_buf_clear(&to);
    free(path);
    return rc;
}

int sq_log_write(struct cm_store_db *db, const struct cm_store_day *day, struct cm_err *err)
{
    for (int try = 0;; try++) {
        int refused;

        if (write_day(db, day, err) == 0)
            return 0;
        refused = db->day.refused;
        sq_log_close(db); /* rolls back, and forgets names that were rolled back with it */
        if (try > 0 || !sq_is_damage(refused) || set_aside(db->dir, day->day) < 0)
            return -1;
    }
}

/* ---- dropping old days */

static int fold_into(struct sq_file *month, const char *path, struct cm_err *err)
{
    sqlite3_stmt *st = sq_use(month, 0, "ATTACH ?1 AS day", err);
    int rc;

    if (!st)
        return -1;
    sq_text(st, 1, cm_str_of(path));
    if (sq_run(month, st, err) < 0 || sq_begin(month, true, err) < 0)
        return -1;
    rc = sq_exec(
        month,
        "DELETE FROM hours WHERE file=(SELECT value FROM day.meta WHERE name='file');"
        "INSERT INTO hours (dim, hour, id, name, file, " SQ_SUMS ")"
        " SELECT dim, hour, id, name, (SELECT value FROM day.meta WHERE name='file'), " SQ_SUMS
        " FROM day.hours",
        err);
    if (rc == 0)
        rc = sq_commit(month, err);
    sq_rollback(month);
    return rc;
}

static void remove_file(const char *path)
{
    static const char *const parts[] = {"", "-wal", "-shm"};
    struct cm_buf name = {0};

    for (size_t i = 0; i < CM_COUNT(parts); i++) {
        cm_buf_reset(&name);
        cm_buf_printf(&name, "%s%s", path, parts[i]);
        unlink(name.p);
    }
    cm_buf_clear(&name);
}

static int drop_day(const char *dir, int64_t day, struct cm_err *err)
{
    char *path = sq_log_path(dir, SQ_DAY, day);
    char *month_path = sq_log_path(dir, SQ_MONTH, sq_month_of(day));
    struct sq_file file = {0}, month = {0};
    bool made;
    int rc = sq_open_read(&file, path, &sq_day_schema, err); /* brought up to date */

    if (sq_is_damage(file.refused)) {
        rc = set_aside(dir, day);
    } else if (rc >= 0) {
        if (rc == 0 && (cm_make_file(month_path, &made, err) < 0 ||
                        sq_open(&month, month_path, &sq_month_schema, err) < 0 ||
                        fold_into(&month, path, err) < 0))
            rc = -1;
        sq_close(&month);
        sq_close(&file);
        if (rc >= 0)
            remove_file(path);
    }
    free(path);
    free(month_path);
    return rc < 0 ? -1 : 0;
}

int sq_log_sweep(struct cm_store_db *db, int64_t first_day, struct cm_err *err)
{
    int64_t *days = NULL;
    size_t n = 0;
    int rc = 0;

    if (sq_list(db->dir, SQ_DAY, &days, &n, err) < 0)
        return -1;
    if (db->day.db && db->day_no < first_day)
        sq_log_close(db);
    for (size_t i = 0; i < n && days[i] < first_day; i++)
        if (drop_day(db->dir, days[i], err) < 0)
            rc = -1;
    free(days);
    return rc;
}
