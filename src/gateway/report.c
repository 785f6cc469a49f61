/* What the operator sees of an exchange: one access line, and the figures of /metrics. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/version.h"
#include "chatmux/codec/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const double seconds_long[] = {0.01, 0.02, 0.04, 0.08,  0.16,  0.32,  0.64,
                                      1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
static const double seconds_first[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                       0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10};
static const double seconds_between[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                         0.3,   0.4,   0.5,  0.75,  1,    2.5,   5,   10,   30};
static const double seconds_short[] = {0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002,
                                       0.005,   0.01,   0.05,   0.1,    0.5};

struct figures {
    struct cm_gateway *gw;
    struct cm_metric_family *requests, *request_seconds, *ttft_seconds, *overhead_seconds,
        *attempts, *credentials, *tokens, *disconnects, *streams_open, *loop_lag, *rss, *build,
        *cost, *drift, *dropped, *queue, *breaker, *models, *hedges, *waste, *audio, *sessions;
    struct cm_metric_family *refused, *inter_chunk, *cooldown, *kept, *kept_bytes, *kept_evicted;
    long streams;
};

static void set_gauge(struct cm_metric_family *f, double v)
{
    cm_metric_set(cm_metric_with(f, NULL), v);
}

static void render_kept(struct figures *f)
{
    const struct cm_str running = CM_S("running"), ended = CM_S("ended");
    struct resume_figures kept;

    resume_figures(f->gw->resume, &kept);
    cm_metric_set(cm_metric_with(f->kept, &running), (double)kept.running);
    cm_metric_set(cm_metric_with(f->kept, &ended), (double)kept.ended);
    set_gauge(f->kept_bytes, (double)kept.bytes);
    set_gauge(f->kept_evicted, (double)kept.evicted);
}

static void on_render(void *arg)
{
    struct figures *f = arg;
    const struct snapshot *s = f->gw->now;

    set_gauge(f->streams_open, (double)f->streams);
    set_gauge(f->sessions, (double)sessions_open(f->gw));
    set_gauge(f->loop_lag, (double)cm_loop_lag_us(f->gw->host->loop) / 1e6);
    set_gauge(f->rss, (double)overload_resident_bytes());
    set_gauge(f->drift, (double)cm_keys_drift(f->gw->keys) / 1e6);
    set_gauge(f->dropped, f->gw->store ? (double)cm_store_dropped(f->gw->store) : 0);
    render_kept(f);
    for (size_t i = 0; i < s->n_instances; i++) {
        struct cm_pool_counts counts;
        size_t models[CM_MODEL_STATES_N];

        cm_pool_count(f->gw->pool, s->instances[i].name, &counts);
        cm_metric_set(cm_metric_with(f->queue, &s->instances[i].name), (double)counts.waiting);
        cm_metric_set(cm_metric_with(f->cooldown, &s->instances[i].name),
                      (double)cm_pool_cooling_ms(f->gw->pool, s->instances[i].name) / 1e3);
        cm_metric_set(
            cm_metric_with(f->breaker, &s->instances[i].name),
            health_breaker(f->gw->health, s->instances[i].name, cm_loop_now_ms(f->gw->host->loop)));
        cm_pool_count_models(f->gw->pool, s->instances[i].name, models);
        for (int state = 0; state < CM_MODEL_STATES_N; state++) {
            struct cm_str labels[] = {s->instances[i].name,
                                      cm_str_of(cm_model_state_name((enum cm_model_state)state))};

            cm_metric_set(cm_metric_with(f->models, labels), (double)models[state]);
        }
        for (int state = 0; state < CM_CRED_STATES_N; state++) {
            struct cm_str labels[] = {s->instances[i].name,
                                      cm_str_of(cm_cred_state_name((enum cm_cred_state)state))};

            cm_metric_set(cm_metric_with(f->credentials, labels), (double)counts.state[state]);
        }
    }
}

struct figures *figures_new(struct cm_gateway *gw)
{
    static const char *const none[] = {NULL};
    static const char *const by_request[] = {"surface", "provider", "model", "outcome", NULL};
    static const char *const by_refusal[] = {"surface", "class", NULL};
    static const char *const by_model[] = {"provider", "model", NULL};
    static const char *const by_class[] = {"provider", "class", NULL};
    static const char *const by_state[] = {"provider", "state", NULL};
    static const char *const by_type[] = {"provider", "model", "type", NULL};
    static const char *const by_provider[] = {"provider", NULL};
    static const char *const by_result[] = {"provider", "result", NULL};
    static const char *const by_phase[] = {"phase", NULL};
    static const char *const by_kept[] = {"state", NULL};
    static const char *const by_version[] = {"version", NULL};
    struct cm_metrics *m = gw->metrics;
    struct figures *f = CM_NEW(struct figures);
    struct cm_str version = CM_S(CM_VERSION);

    f->gw = gw;
    f->requests = cm_metrics_family(m, CM_COUNTER, "chatmux_requests_total",
                                    "Client requests that have ended.", by_request, NULL, 0);
    f->refused = cm_metrics_family(
        m, CM_COUNTER, "chatmux_refused_total",
        "Requests that ended before their first attempt, by error class; client_gone: they left.",
        by_refusal, NULL, 0);
    f->request_seconds =
        cm_metrics_family(m, CM_HISTOGRAM, "chatmux_request_seconds",
                          "From the first byte of a request to the end of its answer.", by_model,
                          seconds_long, CM_COUNT(seconds_long));
    f->ttft_seconds = cm_metrics_family(
        m, CM_HISTOGRAM, "chatmux_ttft_seconds",
        "From the first byte of a request to the first piece that means something.", by_model,
        seconds_first, CM_COUNT(seconds_first));
    f->inter_chunk = cm_metrics_family(
        m, CM_HISTOGRAM, "chatmux_inter_chunk_seconds",
        "Between two pieces of a stream that mean something, as they came from the platform.",
        by_model, seconds_between, CM_COUNT(seconds_between));
    f->overhead_seconds = cm_metrics_family(
        m, CM_HISTOGRAM, "chatmux_overhead_seconds",
        "From the complete request to the first attempt: parse until it was understood, dispatch "
        "until an account was found.",
        by_phase, seconds_short, CM_COUNT(seconds_short));
    f->attempts = cm_metrics_family(m, CM_COUNTER, "chatmux_attempts_total",
                                    "Tries with one credential, by error class (ok = served).",
                                    by_class, NULL, 0);
    f->credentials = cm_metrics_family(m, CM_GAUGE, "chatmux_credentials", "Credentials by state.",
                                       by_state, NULL, 0);
    f->cooldown = cm_metrics_family(
        m, CM_GAUGE, "chatmux_credential_cooldown_seconds",
        "Until the first of the credentials that are cooling serves again; 0: none is cooling.",
        by_provider, NULL, 0);
    f->tokens = cm_metrics_family(m, CM_COUNTER, "chatmux_tokens_total", "Tokens by kind.", by_type,
                                  NULL, 0);
    f->audio = cm_metrics_family(m, CM_COUNTER, "chatmux_audio_tokens_total",
                                 "Tokens of sound, among those by kind.", by_type, NULL, 0);
    f->sessions =
        cm_metrics_family(m, CM_GAUGE, "chatmux_realtime_sessions",
                          "Realtime sessions that are open or being opened.", none, NULL, 0);
    f->disconnects =
        cm_metrics_family(m, CM_COUNTER, "chatmux_client_disconnects_total",
                          "Clients that left before their answer had ended.", by_phase, NULL, 0);
    f->streams_open = cm_metrics_family(m, CM_GAUGE, "chatmux_streams_open",
                                        "Streams that have begun and not ended.", none, NULL, 0);
    f->cost = cm_metrics_family(m, CM_COUNTER, "chatmux_cost_usd_total",
                                "What answers cost by the price table.", by_model, NULL, 0);
    f->drift = cm_metrics_family(
        m, CM_GAUGE, "chatmux_budget_drift_usd",
        "Difference between the budgets' counters and the ledger when it was last asked.", none,
        NULL, 0);
    f->dropped =
        cm_metrics_family(m, CM_GAUGE, "chatmux_log_rows_dropped_total",
                          "Rows of the request log that could not be written.", none, NULL, 0);
    f->queue =
        cm_metrics_family(m, CM_GAUGE, "chatmux_queue_depth",
                          "Requests that wait in line for a credential.", by_provider, NULL, 0);
    f->breaker = cm_metrics_family(m, CM_GAUGE, "chatmux_breaker_state",
                                   "Whether a provider gets requests: 0 closed (it does), 1 open, "
                                   "2 half open.",
                                   by_provider, NULL, 0);
    f->models = cm_metrics_family(
        m, CM_GAUGE, "chatmux_credential_models",
        "Pairs of a credential and a model by their breaker: closed with failures in the last "
        "minute, open, half open; unavailable: the platform does not have it for this one.",
        by_state, NULL, 0);
    f->hedges =
        cm_metrics_family(m, CM_COUNTER, "chatmux_hedges_total",
                          "Second attempts beside a silent one, by their end.", by_result, NULL, 0);
    f->waste = cm_metrics_family(m, CM_COUNTER, "chatmux_hedge_waste_usd_total",
                                 "What the slower ones cost at least.", none, NULL, 0);
    f->kept = cm_metrics_family(m, CM_GAUGE, "chatmux_kept_streams",
                                "Streams that survive their client.", by_kept, NULL, 0);
    f->kept_bytes = cm_metrics_family(m, CM_GAUGE, "chatmux_kept_bytes",
                                      "Memory of the events they hold.", none, NULL, 0);
    f->kept_evicted =
        cm_metrics_family(m, CM_GAUGE, "chatmux_kept_events_evicted_total",
                          "Events that were given up to make room for others.", none, NULL, 0);
    f->loop_lag =
        cm_metrics_family(m, CM_GAUGE, "chatmux_loop_lag_seconds",
                          "Worst delay of the event loop since the last scrape.", none, NULL, 0);
    f->rss = cm_metrics_family(m, CM_GAUGE, "chatmux_rss_bytes", "Resident memory.", none, NULL, 0);
    f->build =
        cm_metrics_family(m, CM_GAUGE, "chatmux_build_info", "Always 1.", by_version, NULL, 0);
    cm_metric_set(cm_metric_with(f->build, &version), 1);
    cm_metrics_on_render(m, on_render, f);
    return f;
}

void figures_free(struct figures *f)
{
    free(f);
}

size_t report_streams_open(const struct cm_gateway *gw)
{
    return (size_t)gw->figures->streams;
}

void report_streams(struct cm_gateway *gw, int change)
{
    gw->figures->streams += change;
}

void report_disconnect(struct cm_gateway *gw, enum phase phase)
{
    struct cm_str label = cm_str_of(phase_name(phase));

    cm_metric_add(cm_metric_with(gw->figures->disconnects, &label), 1);
}

static struct cm_str provider_of_target(const struct exchange *ex)
{
    return ex->snap->offers[ex->targets[ex->target].provider].provider;
}

void report_piece(struct exchange *ex)
{
    const uint64_t now_us = cm_mono_us();

    if (ex->gaps) {
        cm_metric_observe(ex->gaps, (double)(now_us - ex->piece_us) / 1e6);
    } else { /* from here on the target stays */
        const struct cm_str labels[] = {provider_of_target(ex), ex->targets[ex->target].model};

        ex->gaps = cm_metric_with(ex->gw->figures->inter_chunk, labels);
    }
    ex->piece_us = now_us;
}

void report_hedge(struct cm_gateway *gw, struct cm_str provider, bool won)
{
    struct cm_str labels[] = {provider, won ? CM_S("won") : CM_S("lost")};

    cm_metric_add(cm_metric_with(gw->figures->hedges, labels), 1);
}

void report_waste(struct cm_gateway *gw, int64_t micro_usd)
{
    cm_metric_add(cm_metric_with(gw->figures->waste, NULL), (double)micro_usd / 1e6);
}

void report_attempt(struct cm_gateway *gw, struct cm_str provider, const struct cm_err *err)
{
    struct cm_str labels[] = {provider, err ? cm_str_of(cm_err_info(err->cls)->name) : CM_S("ok")};

    cm_metric_add(cm_metric_with(gw->figures->attempts, labels), 1);
}

struct kind {
    const char *type;
    int64_t n;
};

static void add_tokens(struct cm_metric_family *f, struct cm_str provider, struct cm_str model,
                       const struct kind *kinds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct cm_str labels[] = {provider, model, cm_str_of(kinds[i].type)};

        if (kinds[i].n > 0)
            cm_metric_add(cm_metric_with(f, labels), (double)kinds[i].n);
    }
}

static void count_tokens(struct figures *f, struct cm_str provider, struct cm_str model,
                         const struct cm_usage *u)
{
    const struct kind kinds[] = {
        {"input", u->in_uncached},          {"cache_read", u->in_cache_read},
        {"cache_write", u->in_cache_write}, {"output", u->out_text},
        {"reasoning", u->out_reasoning},
    };

    const struct kind sounds[] = {
        {"input", u->in_audio - u->in_audio_cached},
        {"cache_read", u->in_audio_cached},
        {"output", u->out_audio},
    };

    add_tokens(f->tokens, provider, model, kinds, CM_COUNT(kinds));
    add_tokens(f->audio, provider, model, sounds, CM_COUNT(sounds));
}

static struct cm_log_field text_field(const char *name, struct cm_str s)
{
    return (struct cm_log_field){
        .name = name, .kind = s.n ? CM_FIELD_STR : CM_FIELD_NONE, .str = s};
}

static struct cm_log_field number_field(const char *name, int64_t v, bool known)
{
    return (struct cm_log_field){
        .name = name, .kind = known ? CM_FIELD_INT : CM_FIELD_NONE, .num = v};
}

static void access_line(const struct exchange *ex, struct cm_str provider, struct cm_str model,
                        enum outcome outcome, const struct cm_err *err, uint64_t total_us,
                        uint64_t overhead_us)
{
    const struct cm_usage *u = &ex->usage;
    struct cm_log_field fields[] = {
        text_field("id", ex->id),
        text_field("key", ex->key),
        text_field("method", ex->method),
        text_field("path", ex->path),
        text_field("model", model),
        text_field("provider", provider),
        number_field("attempts", ex->attempts, true),
        number_field("status", ex->status, ex->status > 0),
        number_field("bytes_in", (int64_t)ex->bytes_in, true),
        number_field("bytes_out", (int64_t)ex->bytes_out, true),
        number_field("tokens_in", cm_usage_in(u), u->source != CM_USAGE_NONE),
        number_field("tokens_out", cm_usage_out(u), u->source != CM_USAGE_NONE),
        number_field("ttft_ms", ex->first_us ? (int64_t)(ex->first_us - ex->began_us) / 1000 : 0,
                     ex->first_us > 0),
        number_field("ms", (int64_t)total_us / 1000, true),
        number_field("overhead_us", (int64_t)overhead_us, ex->attempts > 0),
        text_field("outcome", cm_str_of(outcome_name(outcome))),
        text_field("error", err ? cm_str_of(cm_err_info(err->cls)->name) : CM_STR_NONE),
        text_field("why", err && ex->attempts > 0 ? cm_str_of(err->msg) : CM_STR_NONE),
    };

    if (cm_log_access_on())
        cm_log_access(fields, CM_COUNT(fields));
}

static const char *surface_name(const struct exchange *ex)
{
    static const char *const names[] = {
#define X(name, text) text,
        CM_DIALECTS(X)
#undef X
    };

    return names[ex->surface->dialect];
}

static const char *usage_source(enum cm_usage_source source)
{
    static const char *const names[] = {"none", "upstream", "estimated", "partial"};

    return names[source];
}

/* Why others were not chosen: told of exchanges that needed more than one attempt, failed, or had not all accounts to choose from; and of pools a person
 * can read. */
#define OTHERS_POOL_MAX 200u
#define OTHERS_MAX 32u

struct others {
    struct cm_buf *out;
    const struct cm_pool *pool;
    struct cm_str model; /* "" = none was asked for */
    uint64_t served;     /* this one was chosen; 0 = none */
    size_t n;
};

/* "" when it serves. */
static const char *why_passed_over(const struct others *o, const struct cm_cred_info *cred)
{
    struct cm_cred_model m;

    if (cred->state != CM_CRED_STATE_OK || !cm_pool_model(o->pool, cred->id, o->model, &m))
        return "";
    switch (m.state) {
    case CM_MODEL_BROKEN:
    case CM_MODEL_HALF_OPEN:
        return "breaker of this model";
    case CM_MODEL_LIMITED:
        return "rate limit of this model";
    case CM_MODEL_ABSENT:
        return "without this model";
    case CM_MODEL_WATCHED:
    case CM_MODEL_STATES_N:
        break;
    }
    return "";
}

static void note_other(void *arg, const struct cm_cred_info *cred)
{
    struct others *o = arg;
    const char *why = why_passed_over(o, cred);

    if ((cred->state == CM_CRED_STATE_OK && !*why) || cred->id == o->served || o->n == OTHERS_MAX)
        return;
    cm_buf_append(o->out, o->n++ ? CM_S(",{\"credential\":") : CM_S("{\"credential\":"));
    cm_json_put_str(o->out, cred->label);
    cm_buf_append(o->out, CM_S(",\"state\":"));
    cm_json_put_z(o->out, cm_cred_state_name(cred->state));
    cm_buf_append(o->out, CM_S(",\"reason\":"));
    cm_json_put_str(o->out, *why ? cm_str_of(why) : cred->reason);
    cm_buf_put(o->out, '}');
}

static void put_others(struct exchange *ex, struct cm_str provider, enum outcome outcome,
                       struct cm_buf *out)
{
    struct others o = {.out = out, .pool = ex->gw->pool};
    struct cm_pool_counts counts;
    bool narrowed;

    if (ex->n_targets > 0)
        o.model = attempt_model(ex);
    if (outcome == OUTCOME_OK)
        o.served = ex->served_by_id;
    cm_pool_count(o.pool, provider, &counts);
    narrowed = counts.state[CM_CRED_STATE_OK] < counts.total ||
               cm_pool_without(o.pool, provider, o.model) > 0;
    if ((ex->attempts == 1 && outcome == OUTCOME_OK && !narrowed) || counts.total > OTHERS_POOL_MAX)
        return;
    cm_buf_append(out, CM_S(",\"others\":["));
    cm_pool_each(ex->gw->pool, provider, note_other, &o);
    cm_buf_put(out, ']');
}

/* What ended before its first attempt counts without provider and model: names that clients make up are no labels. */
static void count_refusal(const struct exchange *ex, enum outcome outcome, const struct cm_err *err)
{
    const struct figures *f = ex->gw->figures;
    const bool admin = !ex->client_key && cm_str_eq(ex->key, CM_S("admin"));
    const struct cm_str surface = admin ? CM_S("admin") : cm_str_of(surface_name(ex));
    const struct cm_str request[] = {surface, CM_STR_NONE, CM_STR_NONE,
                                     cm_str_of(outcome_name(outcome))};
    const struct cm_str refusal[] = {surface, err ? cm_str_of(cm_err_info(err->cls)->name)
                                                  : cm_str_of(outcome_name(outcome))};

    if (outcome == OUTCOME_OK)
        return; /* lists and pages */
    cm_metric_add(cm_metric_with(f->refused, refusal), 1);
    if (!admin)
        cm_metric_add(cm_metric_with(f->requests, request), 1);
}

/* Strangers cannot fill the log: without an attempt only those stand in it who showed a key, or sit at this machine. What is refused because there is too
 * much is counted alone. */
static bool is_logged(const struct exchange *ex, const struct cm_err *err)
{
    const bool trusted = ex->client_key || (ex->key.n > 0 && ex->snap->config->auth.open_here);

    if (!ex->gw->store)
        return false;
    if (ex->attempts > 0)
        return true;
    return err && err->cls != CM_ERR_OVERLOADED && trusted && ex->snap->config->store.request_log &&
           ex->route && ex->route->access == ACCESS_KEY &&
           (cm_str_eq(ex->method, CM_S("POST")) || ex->route->serve == serve_realtime);
}

/* The request log and the ledger: every exchange that reached an upstream; in the log alone, those that should have. */
static void log_row(struct exchange *ex, struct cm_str provider, struct cm_str model,
                    enum outcome outcome, const struct cm_err *err, uint64_t total_us)
{
    const struct cm_usage *u = &ex->usage;
    struct cm_buf detail = {0};
    struct cm_request_row row = {
        .at_ms = cm_unix_ms(),
        .id = ex->id,
        .key_id = ex->client_key ? cm_key_row(ex->client_key)->id : 0,
        .key = ex->key,
        .surface = cm_str_of(surface_name(ex)),
        .model = model,
        .provider = provider,
        .credential = ex->served_by,
        .cred_id = ex->served_by_id,
        .status = ex->status,
        .attempts = ex->attempts,
        .duration_ms = (int64_t)total_us / 1000,
        .ttft_ms = ex->first_us ? (int64_t)(ex->first_us - ex->began_us) / 1000 : -1,
        .bytes_in = (int64_t)ex->bytes_in,
        .bytes_out = (int64_t)ex->bytes_out,
        .outcome = cm_str_of(outcome_name(outcome)),
        .error = err ? cm_str_of(cm_err_info(err->cls)->name) : CM_STR_NONE,
        .why = err                              ? cm_str_of(err->msg)
               : outcome == OUTCOME_CLIENT_GONE ? cm_str_of(phase_name(ex->left_in))
                                                : CM_STR_NONE,
        .in_uncached = u->in_uncached,
        .in_cache_read = u->in_cache_read,
        .in_cache_write = u->in_cache_write,
        .out_text = u->out_text,
        .out_reasoning = u->out_reasoning,
        .images = u->images,
        .usage_source = cm_str_of(usage_source(u->source)),
        .cost_micro_usd = ex->cost_micro_usd,
        .ledger_only = !ex->snap->config->store.request_log,
        .log_only = ex->attempts == 0,
    };

    cm_buf_append(&detail, CM_S("{\"attempts\":["));
    cm_buf_append(&detail, cm_buf_str(&ex->tries));
    cm_buf_put(&detail, ']');
    if (ex->n_skipped > 0) {
        cm_buf_append(&detail, CM_S(",\"skipped\":["));
        cm_buf_append(&detail, cm_buf_str(&ex->skipped));
        cm_buf_put(&detail, ']');
    }
    session_log(ex, &detail);
    if (provider.n > 0)
        put_others(ex, provider, outcome, &detail);
    cm_buf_put(&detail, '}');
    row.detail = cm_buf_str(&detail);
    cm_store_log(ex->gw->store, &row);
    cm_buf_clear(&detail);
}

/* As the client wrote it; while another thread parses, nobody knows. */
static struct cm_str asked_model(const struct exchange *ex)
{
    return ex->chat && !ex->parsing ? ex->chat->model : CM_STR_NONE;
}

static void observe_overhead(struct figures *f, const struct exchange *ex)
{
    const struct cm_str parse = CM_S("parse"), dispatch = CM_S("dispatch");
    const uint64_t understood_us = ex->parsed_us ? ex->parsed_us : ex->body_us;

    if (!ex->asked_us)
        return;
    if (ex->parsed_us)
        cm_metric_observe(cm_metric_with(f->overhead_seconds, &parse),
                          (double)(ex->parsed_us - ex->body_us) / 1e6);
    cm_metric_observe(cm_metric_with(f->overhead_seconds, &dispatch),
                      (double)(ex->asked_us - understood_us) / 1e6);
}

void report_exchange(struct exchange *ex, enum outcome outcome, const struct cm_err *err)
{
    struct figures *f = ex->gw->figures;
    uint64_t now_us = cm_mono_us(), total_us = now_us - ex->began_us;
    uint64_t overhead_us = ex->asked_us ? ex->asked_us - ex->body_us : 0;
    bool tried = ex->attempts > 0;
    struct cm_str provider = tried ? provider_of_target(ex) : CM_STR_NONE;
    struct cm_str model = tried ? ex->targets[ex->target].model : CM_STR_NONE;

    if (tried) {
        struct cm_str labels[] = {cm_str_of(surface_name(ex)), provider, model,
                                  cm_str_of(outcome_name(outcome))};

        cm_metric_add(cm_metric_with(f->requests, labels), 1);
        cm_metric_observe(cm_metric_with(f->request_seconds, &labels[1]), (double)total_us / 1e6);
        observe_overhead(f, ex);
        if (ex->first_us)
            cm_metric_observe(cm_metric_with(f->ttft_seconds, &labels[1]),
                              (double)(ex->first_us - ex->began_us) / 1e6);
        if (ex->cost_micro_usd > 0)
            cm_metric_add(cm_metric_with(f->cost, &labels[1]), (double)ex->cost_micro_usd / 1e6);
        count_tokens(f, provider, model, &ex->usage);
    }
    if (!tried)
        count_refusal(ex, outcome, err);
    if (is_logged(ex, err))
        log_row(ex, tried || ex->n_targets == 0 ? provider : provider_of_target(ex),
                tried ? model : asked_model(ex), outcome, err, total_us);
    access_line(ex, provider, model, outcome, err, total_us, overhead_us);
}
