/* The gateway: holds the current snapshot, the pool and the figures, and hands requests to exchanges. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

static void pool_configure(struct cm_gateway *gw)
{
    const struct snapshot *s = gw->now;
    struct cm_pool_provider *p = cm_calloc(s->n_instances, sizeof(*p));

    for (size_t i = 0; i < s->n_instances; i++) {
        const struct cm_instance *in = &s->instances[i];
        const struct cm_upstream_conf *up = &in->conf->upstream;

        p[i] = (struct cm_pool_provider){
            .name = in->name,
            .secrets = in->secrets,
            .n_secrets = in->n_secrets,
            .keyless = in->adapter->keyless,
            .isolated = in->adapter->isolated,
            .max_inflight = up->max_inflight > 0 ? up->max_inflight : in->adapter->max_inflight,
            .cooldown_ms = up->cooldown_ms >= 0 ? up->cooldown_ms : in->adapter->cooldown_ms};
    }
    cm_pool_configure(gw->pool, p, s->n_instances);
    free(p);
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

    address_limiter_clear(&gw->requests);
    address_limiter_clear(&gw->bad_keys);
    cm_pool_free(gw->pool);
    figures_free(gw->figures);
    cm_metrics_free(gw->metrics);
    snapshot_unref(gw->now);
    listed_free_all(&gw->listed);
    free(gw);
    on_closed(arg);
}

struct cm_gateway *cm_gateway_new(const struct cm_host *host, struct cm_config *config,
                                  struct cm_problems *problems)
{
    struct cm_map nothing_listed = {0};
    struct snapshot *s = snapshot_new(config, &nothing_listed, problems);
    struct cm_gateway *gw;
    uint64_t seed;

    if (!s)
        return NULL;
    gw = CM_NEW(struct cm_gateway);
    gw->host = host;
    gw->now = s;
    gw->pool = cm_pool_new(&cm_clock_system);
    gw->metrics = cm_metrics_new();
    gw->figures = figures_new(gw);
    address_limiter_init(&gw->requests);
    address_limiter_init(&gw->bad_keys);
    cm_list_init(&gw->exchanges);
    cm_list_init(&gw->errands);
    cm_rand_bytes(&seed, sizeof(seed));
    cm_rng_seed(&gw->rng, seed);
    cm_deadline_init(&gw->lists_due, on_lists_due, gw);
    cm_task_init(&gw->gone, on_gone, gw);
    pool_configure(gw);
    lists_refresh(gw);
    return gw;
}

int cm_gateway_reload(struct cm_gateway *gw, struct cm_config *config, struct cm_problems *problems)
{
    struct snapshot *s = snapshot_new(config, &gw->listed, problems);

    if (!s)
        return -1;
    gateway_swap(gw, s);
    pool_configure(gw);
    lists_refresh(gw);
    return 0;
}

static void on_request(void *arg, struct cm_req *req)
{
    exchange_begin(arg, req);
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

void cm_gateway_drain(struct cm_gateway *gw)
{
    gw->draining = true;
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
    lists_stop(gw);
    gateway_attempt_over(gw);
}

struct cm_metrics *cm_gateway_metrics(struct cm_gateway *gw)
{
    return gw->metrics;
}
