/* What a long request log costs: log_bench ROWS DIRECTORY writes so many rows of one day below an empty directory, then reads pages of the list as the
 * admin API does. Prints one line of JSON: microseconds of CPU that a row took, of the first 100,000 and of the last; milliseconds of each kind of page,
 * median and longest; bytes on the disk. */
#include "common.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/store/store.h"

#include <sys/stat.h>

#define GROUP 2000 /* rows between two flushes: what 1,000 requests/s collect in two seconds */
#define EDGE 100000
#define PAGES 41
#define DAY_BEGINS_MS INT64_C(1767225600000) /* 2026-01-01T00:00:00Z */
#define DAY_MS INT64_C(86400000)

static const struct page {
    const char *name;
    struct cm_request_query query;
} kinds[] = {
    {"newest", {.limit = 50}},
    {"key", {.limit = 50, .key = CM_S_INIT("key-7")}},
    {"model", {.limit = 50, .model = CM_S_INIT("model-3")}},
    {"rare", {.limit = 50, .outcome = CM_S_INIT("cut")}},
    {"id", {.limit = 50, .id = CM_S_INIT("req_00000000000000000000000077")}},
    {"old", {.limit = 50}}, /* from the last page of the day's first hour on */
};

static struct bench {
    struct cm_loop *loop;
    struct cm_jobs *jobs;
    struct cm_store *store;
    uint64_t rows, written;
    uint64_t edge_us[2]; /* CPU of the first and of the last EDGE rows */
    size_t kind, turn, got;
    uint64_t began_us, page_us[CM_COUNT(kinds)][PAGES];
    char cursor[200]; /* of an old page */
} b;

static uint64_t cpu_us(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* ---- writing ---- */

static void log_one(uint64_t i)
{
    char id[32], key[16], model[16], credential[16];
    const bool cut = i % 5000 == 4999;
    const struct cm_request_row row = {
        .at_ms = DAY_BEGINS_MS + (int64_t)(i * (uint64_t)DAY_MS / b.rows),
        .id = (snprintf(id, sizeof(id), "req_%026llu", (unsigned long long)i), cm_str_of(id)),
        .key_id = i % 20 + 1,
        .key = (snprintf(key, sizeof(key), "key-%u", (unsigned)(i % 20)), cm_str_of(key)),
        .surface = CM_S("openai"),
        .model = (snprintf(model, sizeof(model), "model-%u", (unsigned)(i % 10)), cm_str_of(model)),
        .provider = CM_S("openai"),
        .credential = (snprintf(credential, sizeof(credential), "openai#%u", (unsigned)(i % 40)),
                       cm_str_of(credential)),
        .cred_id = i % 40 + 1,
        .status = 200,
        .attempts = 1,
        .duration_ms = 800,
        .ttft_ms = 200,
        .bytes_in = 2000,
        .bytes_out = 4000,
        .outcome = cut ? CM_S("cut") : CM_S("ok"),
        .in_uncached = 500,
        .out_text = 200,
        .usage_source = CM_S("upstream"),
        .cost_micro_usd = 1200,
        .detail = CM_S("{\"attempts\":[{\"provider\":\"openai\",\"credential\":\"openai#1\","
                       "\"model\":\"m\",\"chosen\":\"least_used\",\"ms\":800}]}"),
    };

    cm_store_log(b.store, &row);
}

static void read_next(void);

static void write_next(void *arg, const struct cm_err *err)
{
    const uint64_t end = b.written + GROUP < b.rows ? b.written + GROUP : b.rows;

    (void)arg;
    if (err)
        die("the rows cannot be written: %s", err->msg);
    if (b.written == EDGE || b.written == b.rows)
        b.edge_us[b.written != EDGE] += cpu_us();
    if (b.written == b.rows) {
        read_next();
        return;
    }
    if (b.written == 0 || b.written == b.rows - EDGE)
        b.edge_us[b.written != 0] -= cpu_us();
    while (b.written < end)
        log_one(b.written++);
    cm_store_flush(b.store, write_next, NULL);
}

/* ---- reading ---- */

static void on_page(void *arg, const struct cm_request_row *rows, size_t n, struct cm_str next,
                    const struct cm_err *err)
{
    (void)arg, (void)rows;
    if (err || n == 0)
        die("the page \"%s\" cannot be read: %s", kinds[b.kind].name, err ? err->msg : "no rows");
    b.page_us[b.kind][b.turn] = now_us() - b.began_us;
    if (cm_str_eq(kinds[b.kind].query.outcome, CM_S("cut")) && next.n > 0)
        cm_str_copy(b.cursor, sizeof(b.cursor), next);
    if (++b.turn == PAGES) {
        b.turn = 0;
        b.kind++;
    }
    read_next();
}

static void read_next(void)
{
    struct cm_request_query query;

    if (b.kind == CM_COUNT(kinds)) {
        cm_loop_stop(b.loop);
        return;
    }
    query = kinds[b.kind].query;
    if (strcmp(kinds[b.kind].name, "old") == 0)
        query.cursor = cm_str_of(b.cursor);
    b.began_us = now_us();
    cm_store_requests(b.store, &query, on_page, NULL);
}

/* ---- */

static int by_size(const void *x, const void *y)
{
    const uint64_t a = *(const uint64_t *)x, c = *(const uint64_t *)y;

    return a < c ? -1 : a > c;
}

static void report(const char *directory)
{
    char path[4096];
    struct stat st = {0};

    snprintf(path, sizeof(path), "%s/state/requests-2026-01-01.db", directory);
    if (stat(path, &st) != 0)
        die("%s: %s", path, strerror(errno));
    printf("{\"rows\":%llu,\"first_us\":%.2f,\"last_us\":%.2f,\"bytes\":%lld,\"pages\":{",
           (unsigned long long)b.rows, (double)b.edge_us[0] / EDGE, (double)b.edge_us[1] / EDGE,
           (long long)st.st_size);
    for (size_t i = 0; i < CM_COUNT(kinds); i++) {
        uint64_t median;

        qsort(b.page_us[i], PAGES, sizeof(b.page_us[i][0]), by_size);
        median = b.page_us[i][PAGES / 2];
        printf("%s\"%s\":[%.2f,%.2f]", i > 0 ? "," : "", kinds[i].name, (double)median / 1000,
               (double)b.page_us[i][PAGES - 1] / 1000);
    }
    puts("}}");
}

static int64_t unix_ms(void *arg)
{
    (void)arg;
    return DAY_BEGINS_MS + DAY_MS - 1;
}

static uint64_t mono_ms(void *arg)
{
    (void)arg;
    return now_us() / 1000;
}

static void on_closed(void *arg)
{
    cm_loop_stop(arg);
}

int main(int argc, char **argv)
{
    const struct cm_clock clock = {mono_ms, unix_ms, NULL};
    struct cm_store_setup setup = {.url = CM_S("sqlite:chatmux.db"),
                                   .master_key = CM_S("only for a benchmark"),
                                   .clock = &clock};
    struct cm_err err = {0};
    char state[4096];

    if (argc != 3)
        die("usage: log_bench ROWS DIRECTORY");
    b.rows = number("ROWS", argv[1], 2 * EDGE, 100000000);
    b.rows -= b.rows % EDGE;
    snprintf(state, sizeof(state), "%s/state", argv[2]);
    setup.state_dir = cm_str_of(state);
    b.loop = setup.loop = cm_loop_new();
    b.jobs = setup.jobs = cm_jobs_new(b.loop);
    b.store = cm_store_open(&setup, &err);
    if (!b.store)
        die("%s", err.msg);
    write_next(NULL, NULL);
    cm_loop_run(b.loop);
    cm_store_close(b.store, on_closed, b.loop);
    cm_loop_run(b.loop);
    cm_jobs_close(b.jobs);
    cm_loop_free(b.loop);
    report(argv[2]);
    return 0;
}
