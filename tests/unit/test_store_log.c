/* The store: the request log in files by day, the ledger beside its rows, retention, and going on when nothing can be written. */
#include "store_fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "store/group_int.h"
#include "store/sqlite_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY INT64_C(86400000)
#define HOUR INT64_C(3600000)

static struct fix f;

static void setup(void)
{
    fix_init(&f);
}

static void teardown(void)
{
    fix_clear(&f);
}

static void log_at(int64_t at_ms, const char *id)
{
    struct cm_request_row row = fix_row(at_ms, id);

    cm_store_log(f.store, &row);
}

static bool there(const char *name)
{
    return access(fix_path(&f, name), F_OK) == 0;
}

/* ---- rows and pages */

START_TEST(rows_come_back_as_they_were)
{
    struct cm_request_row row = fix_row(f.now_ms + 5, "req_1"), *got;
    size_t n;

    row.ttft_ms = -1;
    row.in_cache_read = 11;
    row.in_cache_write = 12;
    row.out_reasoning = 13;
    row.images = 2;
    row.status = 502;
    row.attempts = 3;
    row.outcome = CM_S("error");
    row.error = CM_S("upstream_down");
    row.why = CM_S("least recently used");
    fix_open(&f);
    cm_store_log(f.store, &row);
    got = fix_requests(&f, &(struct cm_request_query){.limit = 10}, &n,
                       NULL); /* reads its own writes */
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(got->at_ms, f.now_ms + 5);
    ck_str(got->id, "req_1");
    ck_assert_uint_eq(got->key_id, 7);
    ck_assert_uint_eq(got->cred_id, 3);
    ck_str(got->key, "team");
    ck_str(got->surface, "openai");
    ck_str(got->model, "gpt-4o");
    ck_str(got->provider, "openai");
    ck_str(got->credential, "first account");
    ck_assert_int_eq(got->status, 502);
    ck_assert_int_eq(got->attempts, 3);
    ck_assert_int_eq(got->duration_ms, 1200);
    ck_assert_int_eq(got->ttft_ms, -1);
    ck_assert_int_eq(got->bytes_in, 400);
    ck_assert_int_eq(got->bytes_out, 5000);
    ck_str(got->outcome, "error");
    ck_str(got->error, "upstream_down");
    ck_str(got->why, "least recently used");
    ck_assert_int_eq(got->in_uncached, 100);
    ck_assert_int_eq(got->in_cache_read, 11);
    ck_assert_int_eq(got->in_cache_write, 12);
    ck_assert_int_eq(got->out_text, 50);
    ck_assert_int_eq(got->out_reasoning, 13);
    ck_assert_int_eq(got->images, 2);
    ck_str(got->usage_source, "upstream");
    ck_assert_int_eq(got->cost_micro_usd, 750);
    ck_str(got->detail, "{\"attempts\":[]}");
}
END_TEST

START_TEST(what_a_client_makes_long_is_cut)
{
    static char text[100000];
    struct cm_request_row row = fix_row(f.now_ms, "req_1"), *got;
    size_t n;

    memset(text, 'm', sizeof(text));
    memcpy(text + 1022, "\xe2\x82\xac", 3); /* across the cut */
    row.model = cm_str(text, sizeof(text));
    row.detail = cm_str(text, sizeof(text));
    fix_open(&f);
    cm_store_log(f.store, &row);
    row.detail = cm_str(text, 64 * 1024);
    cm_store_log(f.store, &row);
    got = fix_requests(&f, &(struct cm_request_query){.limit = 10}, &n, NULL);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(got[0].model.n, 1022);
    ck_assert_uint_eq(got[0].detail.n, 64 * 1024);
    ck_assert_uint_eq(got[1].detail.n, 0);
}
END_TEST

/* Three days; seven rows share each millisecond that has any, and one of them is late. */
#define MANY 100000
static int64_t time_of(int i)
{
    return INT64_C(1767225600000) + i / 7 * (3 * DAY / (MANY / 7)) - (i % 7 == 0 ? 3000 : 0);
}

START_TEST(pages_show_every_row_once_newest_first)
{
    static unsigned char seen[MANY];
    struct cm_request_query q = {.limit = 500};
    struct cm_str cursor = CM_STR_NONE;
    int64_t before = INT64_MAX;
    size_t total = 0, n;
    char id[32];

    fix_open(&f);
    for (int i = 0; i < MANY; i++) {
        struct cm_request_row row = fix_row(time_of(i), id);

        snprintf(id, sizeof(id), "req_%d", i);
        row.id = cm_str_of(id);
        row.model = i % 1000 == 0 ? CM_S("rare") : CM_S("gpt-4o");
        row.outcome = i % 100 == 0 ? CM_S("error") : CM_S("ok");
        cm_store_log(f.store, &row);
        if (i % 10000 == 0)
            ck_assert_int_eq(fix_flush(&f), 0); /* else the memory for rows would be full */
    }
    do {
        struct cm_request_row *rows;

        q.cursor = cursor;
        rows = fix_requests(&f, &q, &n, &cursor);
        ck_assert_msg(rows != NULL, "%s", f.err.msg);
        for (size_t i = 0; i < n; i++) {
            uint64_t number;

            ck_quick(cm_str_to_u64(cm_str_from(rows[i].id, 4), MANY - 1, &number));
            ck_quick(!seen[number]++);
            ck_quick(rows[i].at_ms == time_of((int)number));
            ck_quick(rows[i].at_ms <= before);
            before = rows[i].at_ms;
        }
        ck_quick(n == 500 || cursor.n == 0);
        total += n;
        if (total == 50000) { /* rows that come meanwhile do not shift the pages */
            log_at(time_of(MANY - 1) + 1, "req_0");
            ck_assert_int_eq(fix_flush(&f), 0);
        }
        cursor = cm_str_of(cm_str_dup(cursor));
        cm_arena_clear(&f.arena);
        free((void *)(uintptr_t)q.cursor.p);
    } while (cursor.n > 0);
    free((void *)(uintptr_t)cursor.p);
    ck_assert_uint_eq(total, MANY);
    ck_assert_uint_eq(cm_store_dropped(f.store), 0);

    q = (struct cm_request_query){.limit = 500, .model = CM_S("rare")};
    fix_requests(&f, &q, &n, &cursor);
    ck_assert_uint_eq(n, MANY / 1000); /* over all days */
    ck_assert_uint_eq(cursor.n, 0);
    q = (struct cm_request_query){.limit = 500, .outcome = CM_S("error"), .key = CM_S("team")};
    total = 0;
    do {
        fix_requests(&f, &q, &n, &q.cursor);
        total += n;
    } while (q.cursor.n > 0);
    ck_assert_uint_eq(total, MANY / 100);
    q = (struct cm_request_query){.limit = 1, .id = CM_S("req_777")};
    ck_assert_int_eq(fix_requests(&f, &q, &n, &cursor)->at_ms, time_of(777));
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(cursor.n, 0);
    q = (struct cm_request_query){.limit = 1, .key = CM_S("nobody")};
    fix_requests(&f, &q, &n, &cursor);
    ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(cursors_of_others_are_refused)
{
    static const char *const bad[] = {"x", "12", "12-", "-5", "1-2-3", "99999999999999999999-1"};
    size_t n;

    fix_open(&f);
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct cm_request_query q = {.limit = 1, .cursor = cm_str_of(bad[i])};

        ck_assert_ptr_null(fix_requests(&f, &q, &n, NULL));
        ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_str_eq(f.err.param, "cursor");
    }
}
END_TEST

/* ---- plans */

/* Without a filter the newest are read from the end of the index, which SQLite calls a scan. */
static void check_plan(const char *path, const char *sql, const char *want)
{
    sqlite3 *db = fix_raw(path);
    struct cm_buf explain = {0}, lines = {0};
    const char *plan;
    sqlite3_stmt *st;

    cm_buf_printf(&explain, "EXPLAIN QUERY PLAN %s", sql);
    ck_assert_msg(sqlite3_prepare_v2(db, cm_buf_z(&explain), -1, &st, NULL) == SQLITE_OK, "%s",
                  sqlite3_errmsg(db));
    while (sqlite3_step(st) == SQLITE_ROW)
        cm_buf_printf(&lines, "%s\n", (const char *)sqlite3_column_text(st, 3));
    sqlite3_finalize(st);
    sqlite3_close(db);
    plan = cm_buf_z(&lines);
    ck_assert_ptr_nonnull(plan);
    ck_assert_msg(!strstr(plan, "TEMP B-TREE"), "%s\n%s", sql, plan);
    ck_assert_msg(strstr(plan, want), "%s\n%snot: %s", sql, plan, want);
    ck_assert_msg(!strstr(plan, "SCAN") || strstr(plan, "SCAN requests USING INDEX requests_at"),
                  "%s\n%s", sql, plan);
    cm_buf_clear(&explain);
    cm_buf_clear(&lines);
}

START_TEST(no_query_reads_or_sorts_more_than_it_shows)
{
    static const struct {
        struct cm_request_query q;
        bool cursor;
        const char *want;
    } cases[] = {
        {{.limit = 1}, false, "SCAN requests USING INDEX requests_at"},
        {{.limit = 1}, true, "SEARCH requests USING INDEX requests_at (at_ms<?)"},
        {{.key = CM_S_INIT("k")}, false, "requests_key (key=?)"},
        {{.key = CM_S_INIT("k")}, true, "requests_key (key=? AND at_ms<?)"},
        {{.model = CM_S_INIT("k")}, true, "requests_model (model=? AND at_ms<?)"},
        {{.outcome = CM_S_INIT("k")}, true, "requests_outcome (outcome=? AND at_ms<?)"},
        {{.id = CM_S_INIT("k")}, true, "requests_id (id=? AND at_ms<?)"},
        {{.key = CM_S_INIT("k"), .model = CM_S_INIT("m"), .outcome = CM_S_INIT("o")},
         true,
         "requests_key (key=? AND at_ms<?)"},
        {{.model = CM_S_INIT("m"), .outcome = CM_S_INIT("o")},
         true,
         "requests_model (model=? AND at_ms<?)"},
        {{.id = CM_S_INIT("i"), .key = CM_S_INIT("k"), .model = CM_S_INIT("m")},
         false,
         "requests_id (id=?)"},
    };
    struct cm_buf sql = {0};
    char *path;

    f.setup.keep_days = 1;
    fix_open(&f);
    log_at(f.now_ms - 9 * DAY, "req_0"); /* goes to the month's file */
    log_at(f.now_ms, "req_1");
    fix_close(&f);
    fix_open(&f);
    fix_run_ms(&f, 300);
    ck_assert(there("usage-2025-12.db"));
    path = cm_strdup(fix_path(&f, "requests-2026-01-01.db"));
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        cm_buf_reset(&sql);
        sq_requests_sql(&sql, &cases[i].q, cases[i].cursor);
        check_plan(path, cm_buf_z(&sql), cases[i].want);
    }
    check_plan(path, SQ_DAY_HOURS_SQL,
               "SEARCH hours USING PRIMARY KEY (dim=? AND hour>? AND hour<?)");
    check_plan(fix_path(&f, "usage-2025-12.db"), SQ_MONTH_HOURS_SQL,
               "SEARCH hours USING PRIMARY KEY (dim=? AND hour>? AND hour<?)");
    check_plan(path, "SELECT id FROM names WHERE text=?1", "SEARCH names USING COVERING INDEX");
    cm_buf_clear(&sql);
    free(path);
}
END_TEST

/* ---- the ledger */

static struct cm_usage_row sum_of(const struct cm_usage_row *rows, size_t n)
{
    struct cm_usage_row sum = {0};

    for (size_t i = 0; i < n; i++) {
#define X(name) sum.name += rows[i].name;
        CM_STORE_SUMS(X)
#undef X
    }
    return sum;
}

static const char *const groupings[] = {"key", "model", "provider", "credential", "hour", "day"};

/* Every grouping of the ledger adds up to the same. */
static void check_ledger(int64_t requests, int64_t cost)
{
    for (size_t i = 0; i < CM_COUNT(groupings); i++) {
        size_t n;
        struct cm_usage_row *rows = fix_usage(&f, groupings[i], 0, INT64_C(4000000000000), &n);
        struct cm_usage_row sum;

        ck_assert_msg(rows != NULL, "%s", f.err.msg);
        sum = sum_of(rows, n);
        ck_assert_msg(sum.requests == requests && sum.cost_micro_usd == cost &&
                          sum.in_uncached == 100 * requests && sum.out_text == 50 * requests,
                      "%s: %lld requests cost %lld, not %lld cost %lld", groupings[i],
                      (long long)sum.requests, (long long)sum.cost_micro_usd, (long long)requests,
                      (long long)cost);
    }
}

START_TEST(the_ledger_is_the_sum_of_the_rows)
{
    struct cm_usage_row *rows;
    int64_t cost = 0, key_cost[3] = {0};
    size_t n;

    fix_open(&f);
    for (int i = 0; i < 3000; i++) {
        static const char *const keys[] = {"a", "b", "c"};
        struct cm_request_row row = fix_row(f.now_ms + i * (DAY / 1000), "req");

        row.key_id = (uint64_t)(i % 3);
        row.key = cm_str_of(keys[i % 3]);
        row.model = i % 2 ? CM_S("small") : CM_S("large");
        row.cost_micro_usd = i;
        cm_store_log(f.store, &row);
        cost += i;
        key_cost[i % 3] += i;
    }
    check_ledger(3000, cost);
    rows = fix_usage(&f, "key", 0, 0, &n); /* to now: the first of the three days only begins */
    ck_assert_int_eq(sum_of(rows, n).requests, 42);
    rows = fix_usage(&f, "key", f.now_ms, f.now_ms + 3 * DAY, &n);
    ck_assert_uint_eq(n, 3);
    ck_str(rows[0].group, "c"); /* the dearest first */
    ck_assert_uint_eq(rows[0].id, 2);
    ck_assert_int_eq(rows[0].cost_micro_usd, key_cost[2]);
    ck_assert_int_eq(rows[2].cost_micro_usd, key_cost[0]);
    rows = fix_usage(&f, "day", f.now_ms, f.now_ms + 3 * DAY, &n);
    ck_assert_uint_eq(n, 3);
    ck_str(rows[0].group, "2026-01-01");
    ck_str(rows[2].group, "2026-01-03");
    ck_assert_int_eq(rows[1].requests, 1000);
    rows = fix_usage(&f, "hour", f.now_ms + HOUR / 2, f.now_ms + 3 * HOUR, &n); /* whole hours */
    ck_assert_uint_eq(n, 3);
    ck_str(rows[0].group, "2026-01-01T00:00:00Z");
    ck_str(rows[2].group, "2026-01-01T02:00:00Z");
    ck_assert_ptr_null(fix_usage(&f, "color", 0, 0, &n));
    ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
    for (uint64_t k = 1; k < 3; k++)
        ck_assert_int_eq(fix_spent(&f, k, 0), key_cost[k]);
    ck_assert_int_eq(fix_spent(&f, 0, 0), 0); /* that is no stored key */
}
END_TEST

START_TEST(without_a_request_log_the_ledger_counts_all_the_same)
{
    struct cm_request_row row;
    struct cm_usage_row *rows;
    size_t n;

    fix_open(&f);
    row = fix_row(f.now_ms, "req");
    row.ledger_only = true;
    row.cost_micro_usd = 7;
    cm_store_log(f.store, &row);
    rows = fix_usage(&f, "key", 0, 0, &n);
    ck_assert_int_eq(sum_of(rows, n).requests, 1);
    ck_assert_int_eq(sum_of(rows, n).cost_micro_usd, 7);
    fix_requests(&f, &(struct cm_request_query){.limit = 10}, &n, NULL);
    ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(what_keys_have_spent)
{
    struct cm_spent *spent;
    size_t n;

    fix_open(&f);
    log_at(f.now_ms - DAY, "a");
    log_at(f.now_ms, "b");
    ck_assert_int_eq(fix_spent(&f, 7, 0), 1500); /* also what is not written yet */
    ck_assert_int_eq(fix_flush(&f), 0);
    log_at(f.now_ms + HOUR, "c");
    ck_assert_int_eq(fix_spent(&f, 7, 0), 2250);
    ck_assert_int_eq(fix_spent(&f, 7, f.now_ms), 1500);
    ck_assert_int_eq(fix_spent(&f, 7, f.now_ms + HOUR), 750);
    ck_assert_int_eq(fix_spent(&f, 8, 0), 0);
    fix_close(&f);
    fix_open(&f);
    ck_assert_int_eq(cm_store_load_spent(f.store, f.now_ms, &f.arena, &spent, &n, &f.err), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(spent->key_id, 7);
    ck_assert_int_eq(spent->micro_usd, 1500);
}
END_TEST

static int64_t told;

static void on_spent(void *arg, const struct cm_spent *rows, size_t n, const struct cm_err *err)
{
    int64_t *want = arg;

    ck_assert_ptr_null(err);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(rows->micro_usd, *want);
    told++;
}

/* Asked at any moment, with flushes before, after and in between: nothing is missed or counted twice. */
START_TEST(spending_is_exact_while_groups_are_written)
{
    int64_t want = 0, asked = 0;

    fix_open(&f);
    for (int i = 0; i < 3000; i++) {
        log_at(f.now_ms, "x");
        want += 750;
        if (i % 5 == 0) {
            cm_store_spent(f.store, 0, on_spent, &want);
            asked++;
        }
        uv_run(cm_loop_uv(f.loop), UV_RUN_NOWAIT);
    }
    while (told < asked)
        uv_run(cm_loop_uv(f.loop), UV_RUN_ONCE);
}
END_TEST

START_TEST(names_without_end_do_not_fill_the_memory)
{
    struct cm_store_group g;
    size_t n = 0;
    char name[32];

    cm_group_init(&g);
    for (int i = 0; i < 20000; i++) {
        struct cm_request_row row = fix_row(f.now_ms, "r");

        snprintf(name, sizeof(name), "made-up-%d", i);
        row.model = cm_str_of(name);
        cm_group_log(&g, &row);
    }
    CM_LIST_EACH(&g.days, link)
    n += CM_LIST_ITEM(link, struct cm_store_day, link)->sums.n;
    ck_assert_uint_lt(n, 5000);
    cm_group_clear(&g);
}
END_TEST

/* ---- days */

START_TEST(each_day_has_its_file_and_old_ones_go)
{
    struct cm_request_row *rows;
    struct cm_usage_row *usage;
    size_t n;

    f.setup.keep_days = 3;
    fix_open(&f);
    for (int day = -5; day <= 0; day++) { /* 27 December to 1 January */
        log_at(f.now_ms + day * DAY, "first");
        log_at(f.now_ms + day * DAY + DAY - 1, "last");
    }
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert(there("requests-2025-12-27.db"));
    ck_assert(there("requests-2026-01-01.db"));
    ck_assert_int_eq(
        fix_number(fix_path(&f, "requests-2025-12-31.db"), "SELECT count(*) FROM requests"), 2);
    check_ledger(12, 12 * 750);

    fix_close(&f);
    fix_open(&f); /* looks for old days soon after the start, and every hour */
    fix_run_ms(&f, 300);
    ck_assert(!there("requests-2025-12-28.db"));
    ck_assert(!there("requests-2025-12-28.db-wal"));
    ck_assert(there("requests-2025-12-29.db"));
    ck_assert(there("usage-2025-12.db"));
    ck_assert(!there("usage-2026-01.db"));
    check_ledger(12, 12 * 750); /* the roll-ups stay */
    rows = fix_requests(&f, &(struct cm_request_query){.limit = 100}, &n, NULL);
    ck_assert_uint_eq(n, 8);
    ck_assert_int_eq(rows[7].at_ms, f.now_ms - 3 * DAY);
    usage = fix_usage(&f, "day", 0, 0, &n);
    ck_str(usage[0].group, "2025-12-27");
    ck_assert_int_eq(usage[0].requests, 2);
    ck_assert_int_eq(fix_spent(&f, 7, 0), 12 * 750);

    log_at(f.now_ms - 5 * DAY + 7, "late"); /* a clock that went back: the day gets a file again */
    check_ledger(13, 13 * 750);
    fix_close(&f);
    fix_open(&f);
    fix_run_ms(&f, 300);
    ck_assert(!there("requests-2025-12-27.db"));
    check_ledger(13, 13 * 750);
    usage = fix_usage(&f, "day", 0, 0, &n);
    ck_assert_int_eq(usage[0].requests, 3);
}
END_TEST

/* The copy in the month's file and the day's file are both there: the spending counts once, and the next sweep ends it. */
START_TEST(a_crash_between_copy_and_removal_counts_once)
{
    char kept[256];

    snprintf(kept, sizeof(kept), "cp %s/requests-2025-12-20.db %s/kept", f.state, f.dir);
    fix_open(&f);
    log_at(f.now_ms - 12 * DAY, "old");
    log_at(f.now_ms, "new");
    fix_close(&f);
    ck_assert_int_eq(system(kept), 0); /* NOLINT: a fixed command of a test */
    f.setup.keep_days = 3;
    fix_open(&f);
    fix_run_ms(&f, 200);
    ck_assert(!there("requests-2025-12-20.db"));
    fix_close(&f);
    snprintf(kept, sizeof(kept), "%s/kept", f.dir);
    ck_assert_int_eq(rename(kept, fix_path(&f, "requests-2025-12-20.db")), 0);
    f.setup.keep_days = 0;
    fix_open(&f);
    check_ledger(2, 1500);
    fix_close(&f);
    f.setup.keep_days = 3;
    fix_open(&f);
    fix_run_ms(&f, 200);
    ck_assert(!there("requests-2025-12-20.db"));
    check_ledger(2, 1500);
}
END_TEST

START_TEST(a_broken_day_is_moved_aside)
{
    char noise[8192], name[256];
    int fd;

    fix_open(&f);
    log_at(f.now_ms - DAY, "yesterday");
    log_at(f.now_ms, "lost");
    fix_close(&f);
    memset(noise, 0x5a, sizeof(noise));
    fd = open(fix_path(&f, "requests-2026-01-01.db"), O_WRONLY);
    ck_assert_int_eq(pwrite(fd, noise, sizeof(noise), 0), (ssize_t)sizeof(noise));
    close(fd);
    fix_open(&f);
    check_ledger(1, 750); /* readers leave it out */
    log_at(f.now_ms, "after");
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert_ptr_null(cm_store_trouble(f.store));
    check_ledger(2, 1500);
    snprintf(name, sizeof(name), "ls %s | grep -q 'db.damaged-[0-9]*$'", f.state);
    ck_assert_int_eq(system(name), 0); /* NOLINT: a fixed command of a test */
}
END_TEST

START_TEST(names_of_files)
{
    static const char *const others[] = {
        "requests-2026-1-01.db",      "requests-2026-02-30.db",
        "requests-2026-01-01.db-wal", "requests-2026-01-01.db.damaged-5",
        "xrequests-2026-01-01.db",    "usage-2026-13.db"};
    int64_t *numbers;
    size_t n;
    char *path;

    ck_assert_int_eq(mkdir(f.state, 0700), 0);
    for (size_t i = 0; i < CM_COUNT(others); i++)
        close(open(fix_path(&f, others[i]), O_CREAT | O_WRONLY, 0600));
    close(open(fix_path(&f, "requests-2026-03-01.db"), O_CREAT | O_WRONLY, 0600));
    close(open(fix_path(&f, "requests-1970-01-02.db"), O_CREAT | O_WRONLY, 0600));
    close(open(fix_path(&f, "usage-2025-12.db"), O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(sq_list(f.state, SQ_DAY, &numbers, &n, &f.err), 0);
    ck_assert_uint_eq(n, 2);
    ck_assert_int_eq(numbers[0], 1);
    path = sq_log_path("/d", SQ_DAY, numbers[1]);
    ck_assert_str_eq(path, "/d/requests-2026-03-01.db");
    free(path);
    free(numbers);
    ck_assert_int_eq(sq_list(f.state, SQ_MONTH, &numbers, &n, &f.err), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(numbers[0], 2025 * 12 + 11);
    path = sq_log_path("/d", SQ_MONTH, numbers[0]);
    ck_assert_str_eq(path, "/d/usage-2025-12.db");
    free(path);
    free(numbers);
}
END_TEST

/* ---- flushing */

static int told_flushes;

static void on_flushed_again(void *arg, const struct cm_err *err)
{
    (void)arg;
    ck_assert_ptr_null(err);
    told_flushes++;
}

/* Asks for more from within the answer. */
static void on_flushed(void *arg, const struct cm_err *err)
{
    on_flushed_again(arg, err);
    for (int i = 0; i < 600; i++)
        log_at(f.now_ms, "more");
    cm_store_flush(f.store, on_flushed_again, NULL);
    cm_store_flush(f.store, on_flushed_again, NULL);
    log_at(f.now_ms, "last");
}

START_TEST(who_is_told_may_go_on_at_once)
{
    fix_open(&f);
    log_at(f.now_ms, "first");
    cm_store_flush(f.store, on_flushed, NULL);
    cm_store_flush(f.store, on_flushed_again, NULL);
    ck_assert_int_eq(told_flushes, 0);
    while (told_flushes < 4)
        uv_run(cm_loop_uv(f.loop), UV_RUN_ONCE);
    check_ledger(602, 602 * 750);
    cm_store_flush(f.store, NULL, NULL);
}
END_TEST

/* ---- when nothing can be written */

static sqlite3 *lock_file(const char *path)
{
    sqlite3 *db = fix_raw(path);

    ck_assert_int_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    return db;
}

/* The writer waits 2.5 s for a lock that somebody else holds, for each file. */
START_TEST(a_stuck_writer_costs_bounded_memory_and_no_spending)
{
    static char detail[2000];
    struct cm_cred_row cred = fix_cred(1, "secret");
    struct cm_request_row *rows;
    sqlite3 *other, *other_pool;
    int64_t logged = 0;
    size_t n;

    memset(detail, 'd', sizeof(detail));
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &cred), 0);
    log_at(f.now_ms, "first");
    logged++;
    ck_assert_int_eq(fix_flush(&f), 0);
    other = lock_file(fix_path(&f, "requests-2026-01-01.db"));
    other_pool = lock_file(fix_path(&f, "chatmux.db"));
    for (int i = 0; i < 10000; i++) { /* 20 MB */
        struct cm_request_row row = fix_row(f.now_ms + i, "row");

        row.detail = cm_str(detail, sizeof(detail));
        cm_store_log(f.store, &row);
        cm_store_count(f.store, &(struct cm_cred_count){.id = 1, .requests = 1});
        logged++;
        if (i % 100 == 0)
            uv_run(cm_loop_uv(f.loop), UV_RUN_NOWAIT); /* the loop is never held up */
    }
    ck_assert_uint_gt(cm_store_dropped(f.store), 5000);
    ck_assert_uint_lt(cm_store_dropped(f.store), 7500); /* 8 MiB are kept */
    fix_run_ms(&f, 6000);
    ck_assert_ptr_nonnull(cm_store_trouble(f.store));
    ck_assert_ptr_nonnull(strstr(cm_store_trouble(f.store), "locked by another program"));
    ck_assert_int_eq(fix_put_cred(&f, &cred), -1); /* told, not kept */
    ck_assert_int_eq(f.err.cls, CM_ERR_IO);
    ck_assert_int_eq(fix_spent(&f, 7, 0), logged * 750);
    sqlite3_close(other);
    sqlite3_close(other_pool);
    for (int i = 0; cm_store_trouble(f.store) && i < 200; i++)
        fix_run_ms(&f, 100); /* comes back by itself */
    ck_assert_ptr_null(cm_store_trouble(f.store));
    ck_assert_int_eq(fix_find_cred(&f, 1)->requests, 10000);
    ck_assert_int_eq(fix_put_cred(&f, &cred), 0);
    rows = fix_requests(&f, &(struct cm_request_query){.limit = 1}, &n, NULL);
    ck_assert_int_eq(rows->at_ms, f.now_ms + 9999); /* the oldest were dropped */
    check_ledger(logged, logged * 750);
    ck_assert_int_eq(
        fix_number(fix_path(&f, "requests-2026-01-01.db"), "SELECT count(*) FROM requests"),
        logged - (int64_t)cm_store_dropped(f.store));
}
END_TEST

/* A change that meets trouble is refused, and the store finds out by itself when it is over. */
START_TEST(after_a_refused_change_the_store_probes)
{
    struct cm_cred_row cred = fix_cred(1, "secret");
    sqlite3 *other;

    fix_open(&f);
    other = lock_file(fix_path(&f, "chatmux.db"));
    ck_assert_int_eq(fix_put_cred(&f, &cred), -1);
    ck_assert_ptr_nonnull(strstr(f.err.msg, "locked"));
    ck_assert_ptr_nonnull(cm_store_trouble(f.store));
    sqlite3_close(other);
    fix_run_ms(&f, 1500);
    ck_assert_ptr_null(cm_store_trouble(f.store));
    ck_assert_ptr_null(fix_find_cred(&f, 1));
}
END_TEST

/* Rows that reach their own file prove nothing about the pool file. */
START_TEST(only_the_pool_file_ends_its_trouble)
{
    struct cm_cred_row cred = fix_cred(1, "secret");
    sqlite3 *other;

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &cred), 0);
    other = lock_file(fix_path(&f, "chatmux.db"));
    cm_store_change(f.store, &(struct cm_change){.kind = CM_CHANGE_PUT_CRED, .cred = &cred}, 1,
                    NULL, NULL);
    log_at(f.now_ms, "row");
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert_ptr_nonnull(cm_store_trouble(f.store));
    sqlite3_close(other);
    fix_run_ms(&f, 2500);
    ck_assert_ptr_null(cm_store_trouble(f.store));
}
END_TEST

Suite *suite_store_log(void)
{
    Suite *s = suite_create("store_log");
    TCase *t = tcase_create("store_log");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, rows_come_back_as_they_were);
    tcase_add_test(t, what_a_client_makes_long_is_cut);
    tcase_add_test(t, pages_show_every_row_once_newest_first);
    tcase_add_test(t, cursors_of_others_are_refused);
    tcase_add_test(t, no_query_reads_or_sorts_more_than_it_shows);
    tcase_add_test(t, the_ledger_is_the_sum_of_the_rows);
    tcase_add_test(t, without_a_request_log_the_ledger_counts_all_the_same);
    tcase_add_test(t, what_keys_have_spent);
    tcase_add_test(t, spending_is_exact_while_groups_are_written);
    tcase_add_test(t, names_without_end_do_not_fill_the_memory);
    tcase_add_test(t, each_day_has_its_file_and_old_ones_go);
    tcase_add_test(t, a_crash_between_copy_and_removal_counts_once);
    tcase_add_test(t, a_broken_day_is_moved_aside);
    tcase_add_test(t, names_of_files);
    tcase_add_test(t, who_is_told_may_go_on_at_once);
    tcase_add_test(t, a_stuck_writer_costs_bounded_memory_and_no_spending);
    tcase_add_test(t, after_a_refused_change_the_store_probes);
    tcase_add_test(t, only_the_pool_file_ends_its_trouble);
    suite_add_tcase(s, t);
    return s;
}
