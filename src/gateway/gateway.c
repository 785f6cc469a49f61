/* The gateway: holds the current snapshot, the pool and the figures, and hands requests to exchanges. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include <stdlib.h>

#define TRUE_UP_EVERY_MS (60 * 1000)
#define TRIM_EVERY_MS (20 * 1000)

void gateway_pool_moved(struct cm_gateway *gw)
{
    /* while it closes, answers still come back: nobody is to be called after it has gone */
    uint64_t next_ms = gw->closing ? UINT64_MAX : cm_pool_next_ms(gw->pool);

    if (gw->closing)
        return; /* a credential that comes back then sets nothing in motion */
    if (next_ms == UINT64_MAX)
        cm_deadline_clear(gw->host->loop, &gw->pool_due);
    else if (gw->pool_due.slot == SIZE_MAX || gw->pool_due.at_ms != next_ms)
        cm_deadline_set(gw->host->loop, &gw->pool_due, next_ms);
}

static void on_pool_due(void *arg)
{
    struct cm_gateway *gw = arg;

    cm_pool_tick(gw->pool);
    gateway_pool_moved(gw);
}

/* ---- what keys have spent ---- */

/* Answers to one question of the ledger: each period that is in use began at one of these instants. */
struct since {
    int64_t began_ms[4];
    size_t n;
};

static void note_period(void *arg, const struct cm_key *key)
{
    struct since *s = arg;
    int64_t began_ms = cm_key_period_began_ms(key, cm_unix_ms());

    for (size_t i = 0; i < s->n; i++)
        if (s->began_ms[i] == began_ms)
            return;
    if (s->n < CM_COUNT(s->began_ms))
        s->began_ms[s->n++] = began_ms;
}

struct spent_question {
    struct cm_gateway *gw;
    int64_t since_ms;
};

static void on_spent(void *arg, const struct cm_spent *rows, size_t n, const struct cm_err *err)
{
    struct spent_question *q = arg;

    if (!err && !q->gw->closing) {
        /* the answer is true of this moment: what was settled while it was awaited is in it */
        cm_keys_true_up_begin(q->gw->keys);
        cm_keys_true_up_since(q->gw->keys, q->since_ms, rows, n);
    }
    gateway_attempt_over(q->gw);
    free(q);
}

static void on_true_up(void *arg)
{
    struct cm_gateway *gw = arg;
    struct since since = {0};

    cm_keys_each(gw->keys, note_period, &since);
    for (size_t i = 0; i < since.n; i++) {
        struct spent_question *q = CM_NEW(struct spent_question);

        *q = (struct spent_question){gw, since.began_ms[i]};
        gw->attempts_out++;
        cm_store_spent(gw->store, q->since_ms, on_spent, q);
    }
    cm_deadline_set(gw->host->loop, &gw->true_up,
                    cm_loop_now_ms(gw->host->loop) + TRUE_UP_EVERY_MS);
}

static void on_trim(void *arg)
{
    struct cm_gateway *gw = arg;

    cm_secret_trim();
    cm_mem_trim();
    cm_deadline_set(gw->host->loop, &gw->trim, cm_loop_now_ms(gw->host->loop) + TRIM_EVERY_MS);
}

static int keys_load(struct cm_gateway *gw, struct cm_err *err)
{
    struct cm_arena arena = {0};
    struct cm_key_row *rows;
    struct since since = {0};
    size_t n;
    int failed;

    if (!gw->store)
        return 0;
    failed = cm_store_load_keys(gw->store, &arena, &rows, &n, err);
    for (size_t i = 0; !failed && i < n; i++)
        cm_keys_put(gw->keys, &rows[i]);
    cm_keys_each(gw->keys, note_period, &since);
    for (size_t i = 0; !failed && i < since.n; i++) {
        struct cm_spent *spent;

        failed = cm_store_load_spent(gw->store, since.began_ms[i], &arena, &spent, &n, err);
        if (!failed)
            cm_keys_true_up_since(gw->keys, since.began_ms[i], spent, n);
    }
    cm_arena_clear(&arena);
    if (!failed)
        cm_deadline_set(gw->host->loop, &gw->true_up,
                        cm_loop_now_ms(gw->host->loop) + TRUE_UP_EVERY_MS);
    return failed;
}

/* Settings that are read and have no effect in this release: said, so that nobody relies on them. */
static void configure(struct cm_gateway *gw)
{
    cm_keys_configure(gw->keys, gw->now->config->auth.keys.v, gw->now->config->auth.keys.n);
    creds_sync(gw);
    gateway_pool_moved(gw);
    lists_refresh(gw);
}

void gateway_swap(struct cm_gateway *gw, struct snapshot *s)
{
    struct snapshot *before = gw->now;

    gw->now = s;
    snapshot_unref(before);
}

int cm_gateway_check(struct cm_config *config, struct cm_problems *problems)
{
    struct cm_map nothing_listed = {0};
    struct snapshot *s = snapshot_new(config, &nothing_listed, problems);

    snapshot_unref(s);
    return s ? 0 : -1;
}

static void on_lists_due(void *arg)
{
    lists_refresh(arg);
}

static void on_gone(void *task_arg)
{
    struct cm_gateway *gw = task_arg;
    void (*on_closed)(void *arg) = gw->on_closed;
    void *arg = gw->on_closed_arg;

    cm_task_cancel(&gw->web_next);
    cm_task_cancel(&gw->quiet);
    resume_free(gw->resume);
    cm_deadline_clear(gw->host->loop, &gw->farewell);
    address_limiter_clear(&gw->requests);
    address_limiter_clear(&gw->bad_keys);
    cm_pool_free(gw->pool);
    health_free(gw->health);
    creds_free(gw);
    cm_keys_free(gw->keys);
    figures_free(gw->figures);
    cm_metrics_free(gw->metrics);
    snapshot_unref(gw->now);
    listed_free_all(&gw->listed);
    free(gw);
    on_closed(arg);
}

static void on_quiet(void *task_arg)
{
    struct cm_gateway *gw = task_arg;

    if (gw->on_quiet && resume_running(gw->resume) == 0)
        gw->on_quiet(gw->on_quiet_arg);
}

static struct cm_gateway *gateway_make(const struct cm_host *host, struct snapshot *s,
                                       struct cm_store *store)
{
    struct cm_gateway *gw = CM_NEW(struct cm_gateway);
    struct cm_pool_host pool_host = {
        .on_state = creds_on_state, .refresh = errand_refresh, .probe = errand_probe, .arg = gw};
    uint64_t seed;

    cm_rand_bytes(&seed, sizeof(seed));
    cm_rng_seed(&gw->rng, seed);
    gw->host = host;
    gw->now = s;
    gw->store = store;
    gw->started_ms = cm_unix_ms();
    gw->pool = cm_pool_new(&cm_clock_system, &pool_host, seed);
    gw->keys = cm_keys_new(&cm_clock_system);
    gw->metrics = cm_metrics_new();
    gw->figures = figures_new(gw);
    address_limiter_init(&gw->requests);
    address_limiter_init(&gw->bad_keys);
    cm_list_init(&gw->exchanges);
    cm_list_init(&gw->sessions);
    cm_list_init(&gw->errands);
    cm_list_init(&gw->probes);
    gw->health = health_new();
    gw->resume = resume_new(gw);
    gw->hedge_purse = 1;
    cm_list_init(&gw->kept);
    cm_list_init(&gw->web_queue);
    cm_task_init(&gw->web_next, web_next, gw);
    cm_deadline_init(&gw->lists_due, on_lists_due, gw);
    cm_deadline_init(&gw->pool_due, on_pool_due, gw);
    cm_deadline_init(&gw->true_up, on_true_up, gw);
    cm_deadline_init(&gw->trim, on_trim, gw);
    cm_deadline_set(host->loop, &gw->trim, cm_loop_now_ms(host->loop) + TRIM_EVERY_MS);
    cm_deadline_init(&gw->save_tokens, creds_save_tokens, gw);
    cm_deadline_init(&gw->farewell, errands_farewell, gw);
    cm_task_init(&gw->quiet, on_quiet, gw);
    cm_task_init(&gw->gone, on_gone, gw);
    return gw;
}

static void ignore_closed(void *arg)
{
    (void)arg;
}

struct cm_gateway *cm_gateway_new(const struct cm_host *host, struct cm_config *config,
                                  struct cm_store *store, struct cm_problems *problems)
{
    struct cm_map nothing_listed = {0};
    struct snapshot *s = snapshot_new(config, &nothing_listed, problems);
    struct cm_err err = {0};
    struct cm_gateway *gw;

    if (!s)
        return NULL;
    gw = gateway_make(host, s, store);
    if (creds_load(gw, &err) < 0 || keys_load(gw, &err) < 0 || memories_load(gw, &err) < 0) {
        cm_problem_add(problems, CM_S("store"), "%s", err.msg);
        cm_gateway_close(gw, ignore_closed, NULL);
        return NULL;
    }
    configure(gw);
    return gw;
}

int cm_gateway_reload(struct cm_gateway *gw, struct cm_config *config, struct cm_problems *problems)
{
    struct snapshot *s = snapshot_new(config, &gw->listed, problems);

    if (!s)
        return -1;
    gateway_swap(gw, s);
    configure(gw);
    return 0;
}

static void on_request(void *arg, struct cm_req *req)
{
    request_begin(arg, req);
}

static void describe_error(void *arg, const struct cm_err *err, struct cm_buf *body)
{
    (void)arg;
    cm_surface_openai_chat.error_body(err, body);
}

struct cm_httpd_handler cm_gateway_handler(struct cm_gateway *gw)
{
    return (struct cm_httpd_handler){
        .on_request = on_request, .describe_error = describe_error, .arg = gw};
}

void gateway_stream_over(struct cm_gateway *gw)
{
    if (gw->on_quiet && !gw->closing)
        cm_task_post(gw->host->loop, &gw->quiet);
}

void cm_gateway_drain(struct cm_gateway *gw, void (*on_quiet_fn)(void *arg), void *arg)
{
    gw->draining = true;
    sessions_drain(gw);
    gw->on_quiet = on_quiet_fn;
    gw->on_quiet_arg = arg;
    resume_drain(gw->resume);
    gateway_stream_over(gw);
}

void cm_gateway_cut(struct cm_gateway *gw)
{
    struct cm_err err = {0};

    cm_fail(&err, CM_ERR_SHUTTING_DOWN, "the gateway is shutting down: please try again");
    while (!cm_list_empty(&gw->exchanges))
        exchange_fail(CM_LIST_ITEM(gw->exchanges.next, struct exchange, link), &err);
}

void gateway_attempt_over(struct cm_gateway *gw)
{
    CM_ASSERT(gw->attempts_out > 0);
    gw->attempts_out--;
    if (gw->closing && gw->attempts_out == 0)
        cm_task_post(
            gw->host->loop,
            &gw->gone); /* the last one may end inside a transfer's callback, where httpc cannot be closed */
}

void cm_gateway_close(struct cm_gateway *gw, void (*on_closed)(void *arg), void *arg)
{
    gw->closing = true;
    gw->on_closed = on_closed;
    gw->on_closed_arg = arg;
    gw->attempts_out++; /* ours: nobody closes under our feet */
    cm_gateway_cut(gw);
    errands_stop(gw);
    probes_stop(gw);
    cm_deadline_clear(gw->host->loop, &gw->lists_due);
    cm_deadline_clear(gw->host->loop, &gw->pool_due);
    cm_deadline_clear(gw->host->loop, &gw->true_up);
    cm_deadline_clear(gw->host->loop, &gw->trim);
    cm_deadline_clear(gw->host->loop, &gw->save_tokens);
    creds_save_tokens(gw);
    gateway_attempt_over(gw);
}

struct cm_metrics *cm_gateway_metrics(struct cm_gateway *gw)
{
    return gw->metrics;
}

struct cm_pool *cm_gateway_pool(struct cm_gateway *gw)
{
    /* Whatever the caller does to it, the pool is asked soon what has become due. */
    if (!gw->closing)
        cm_deadline_set(gw->host->loop, &gw->pool_due, cm_loop_now_ms(gw->host->loop));
    return gw->pool;
}

struct cm_keys *cm_gateway_keys(struct cm_gateway *gw)
{
    return gw->keys;
}

struct cm_store *cm_gateway_store(struct cm_gateway *gw)
{
    return gw->store;
}

const struct cm_config *cm_gateway_config(const struct cm_gateway *gw)
{
    return gw->now->config;
}

const char *cm_gateway_breaker(const struct cm_gateway *gw, struct cm_str provider)
{
    return breaker_state_name(health_breaker(gw->health, provider, cm_loop_now_ms(gw->host->loop)));
}

const struct cm_models *cm_gateway_models(const struct cm_gateway *gw)
{
    return gw->now->models;
}

void cm_gateway_stats(const struct cm_gateway *gw, struct cm_gateway_stats *out)
{
    struct resume_figures kept;

    resume_figures(gw->resume, &kept);
    *out = (struct cm_gateway_stats){.attempts = gw->attempts_out,
                                     .streams = report_streams_open(gw),
                                     .kept_running = kept.running,
                                     .kept_ended = kept.ended,
                                     .kept_bytes = kept.bytes,
                                     .requests = gw->requests_seen,
                                     .started_ms = gw->started_ms,
                                     .draining = gw->draining};
    for (const struct cm_list *l = gw->exchanges.next; l != &gw->exchanges; l = l->next)
        out->exchanges++;
}
