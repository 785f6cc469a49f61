/* The client's request: who asks, what for, and for which models; from its first byte until the first attempt, and its leaving.
 *
 * Happy path: begin -> route -> admit (address, key) -> body -> parse (a big one on another thread) -> targets -> reserve for the key -> exchange_next().
 * The client may leave, or the HTTP server may give up on its body, at any point: on_gone(). */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/net.h"
#include <stdlib.h>

#define PARSE_ON_LOOP_MAX (256u * 1024) /* bytes; more is parsed on another thread */

/* Parsing of a big body: the exchange's memory belongs to the thread until `done`. */
struct parse_job {
    struct cm_job job; /* first */
    struct exchange *ex;
    struct cm_err err;
    bool failed;
};

#define OUTPUT_TOKENS_DEFAULT 4096 /* reserved for an answer whose length nobody limits */

static int64_t longest_answer(const struct cm_target *target)
{
    int64_t tokens = target->row ? target->row->max_output_tokens : 0;

    if (tokens <= 0)
        tokens = cm_price_max_output(target->model);
    return tokens > 0 ? tokens : OUTPUT_TOKENS_DEFAULT;
}

/* Tokens an answer may have: as the request limits it, else the model, else a guess for what is text. */
static int64_t output_estimate(const struct exchange *ex)
{
    if (ex->chat->max_tokens >= 0)
        return ex->chat->max_tokens;
    if (ex->chat->task != CM_TASK_CHAT && ex->chat->task != CM_TASK_REALTIME)
        return 0;
    return longest_answer(&ex->targets[0]);
}

/* The key's models, and its limits with an estimate of what this request may use. */
static int reserve(struct exchange *ex, struct cm_err *err)
{
    const struct cm_chat *chat = ex->chat;
    int64_t in = cm_chat_estimate_tokens(chat), out = output_estimate(ex) * chat->n, cost;
    const struct cm_price *price = exchange_price(ex, &ex->targets[0]);

    if (!ex->client_key)
        return 0;
    if (chat->task == CM_TASK_COUNT_TOKENS)
        in = out = 0;
    if (chat->task != CM_TASK_PASS && !cm_key_allows(ex->client_key, chat->model)) {
        cm_fail_param(err, CM_ERR_FORBIDDEN, "model",
                      "this API key may not use the model \"" CM_PRI "\"",
                      CM_ARG(cm_str_head(chat->model, 100)));
        cm_str_copy(err->code, sizeof(err->code), CM_S("model_not_allowed"));
        return -1;
    }
    cost = cm_price_estimate(price, in, out) +
           (cm_task_makes_media(chat->task) ? cm_price_cost(price, &(struct cm_usage){0}, chat->n)
                                            : 0);
    return cm_key_reserve(ex->client_key, in + out, cost, &ex->reservation, err);
}

static enum cm_compat compat_of(const struct exchange *ex)
{
    return (enum cm_compat)ex->snap->config->server.compat;
}

/* The platform has no counter: clients that ask live with a guess. */
static void count_here(struct exchange *ex)
{
    const struct cm_answer answer = {
        .usage = {.source = CM_USAGE_ESTIMATED, .in_uncached = cm_chat_estimate_tokens(ex->chat)}};
    struct cm_buf out = {0};

    ex->surface->whole(&ex->meta, &answer, &out);
    exchange_answer(ex, 200, CM_S("application/json"), cm_buf_str(&out));
    cm_buf_clear(&out);
}

/* A client may pin the provider besides the model's name. */
static int only_target(struct exchange *ex, struct cm_str provider, struct cm_err *err)
{
    size_t n = 0;

    for (size_t i = 0; i < ex->n_targets; i++)
        if (cm_str_eq(ex->snap->instances[ex->targets[i].provider].name, provider))
            ex->targets[n++] = ex->targets[i];
    ex->n_targets = n;
    if (n > 0)
        return 0;
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, "x-chatmux-target",
                         "no provider of that name serves this model");
}

static int find_targets(struct exchange *ex, struct cm_err *err)
{
    if (ex->chat->task == CM_TASK_PASS)
        return pass_target(ex, err);
    ex->n_targets =
        cm_models_find(ex->snap->models, &ex->arena, ex->chat->model, &ex->targets, err);
    if (ex->n_targets == 0)
        return -1;
    if (ex->responses)
        responses_narrow(ex);
    return ex->pinned.n > 0 ? only_target(ex, ex->pinned, err) : 0;
}

static void parsed(struct exchange *ex)
{
    if (!ex->chat->response || !responses_find_maker(ex))
        request_parsed(ex);
}

static bool is_job(const struct cm_chat *chat)
{
    return chat->response && chat->response->background && chat->task == CM_TASK_CHAT;
}

/* Its answer takes a place among the open streams: jobs and sessions, too. */
static int admit_stream(struct exchange *ex, struct cm_err *err)
{
    return ex->chat->stream || ex->session || is_job(ex->chat) ? overload_admit_stream(ex, err) : 0;
}

void request_parsed(struct exchange *ex)
{
    struct cm_err err = {0};
    struct cm_chat *chat = ex->chat;
    char id[CM_ID_CAP];

    ex->parsed_us = cm_mono_us();
    cm_id_make(id, ex->surface->id_prefix.p, cm_unix_ms());
    if (chat->stream && streams_again(ex))
        return;
    if (admit_stream(ex, &err) < 0 || (chat->response && responses_check(ex, &err) < 0) ||
        find_targets(ex, &err) < 0) {
        exchange_fail(ex, &err);
        return;
    }
    ex->meta = (struct cm_answer_meta){.id = cm_arena_str(&ex->arena, cm_str_of(id)),
                                       .model = chat->model,
                                       .created_s = cm_unix_ms() / 1000,
                                       .include_usage = chat->include_usage,
                                       .n = chat->n,
                                       .reasoning = ex->snap->config->stream.reasoning,
                                       .chat = chat,
                                       .compat = compat_of(ex) != CM_COMPAT_NONE};
    ex->answer.keep_images = cm_task_makes_media(chat->task) || ex->surface->keeps_images;
    order_targets(ex->gw, ex->snap, ex->targets, ex->n_targets, chat->stream);
    if (reserve(ex, &err) < 0 || (chat->stream && streams_keep(ex, &err) < 0)) {
        exchange_fail(ex, &err);
        return;
    }
    if (chat->task == CM_TASK_COUNT_TOKENS && !cm_instance_serves(exchange_instance(ex), chat)) {
        count_here(ex);
        return;
    }
    ex->affinity = affinity_of(ex, &ex->begins);
    ex->only_credential = handed_to(ex);
    if (is_job(chat)) {
        if (background_begin(ex, &err) < 0)
            exchange_fail(ex, &err);
        return;
    }
    if (chat->stream)
        exchange_alive_arm(ex);
    exchange_next(ex);
}

static void parse_work(struct cm_job *job)
{
    struct parse_job *p = (struct parse_job *)job;

    p->failed = p->ex->surface->parse(p->ex->chat, cm_buf_str(&p->ex->body), &p->err) < 0;
}

static void parse_done(struct cm_job *job)
{
    struct parse_job *p = (struct parse_job *)job;
    struct exchange *ex = p->ex;

    ex->parsing = NULL;
    if (ex->ended)
        exchange_free(ex);
    else if (p->failed)
        exchange_fail(ex, &p->err);
    else
        parsed(ex);
    free(p);
}

void request_stop_parsing(struct exchange *ex)
{
    cm_job_cancel(ex->gw->host->jobs, &ex->parsing->job);
}

static void on_body(void *arg, struct cm_req *req, struct cm_str body)
{
    struct exchange *ex = arg;

    (void)body;
    ex->body_us = cm_mono_us();
    ex->body = cm_req_take_body(req);
    if (ex->web)
        web_body(ex);
    else
        request_parse(ex);
}

void request_parse(struct exchange *ex)
{
    if (ex->surface->dialect != CM_DIALECT_OPENAI_RESPONSES || !responses_prepare(ex))
        request_parse_body(ex);
}

void request_parse_body(struct exchange *ex)
{
    struct cm_err err = {0};

    if (ex->body.n + (ex->responses ? ex->responses->bytes : 0) > PARSE_ON_LOOP_MAX) {
        ex->parsing = CM_NEW(struct parse_job);
        ex->parsing->ex = ex;
        ex->parsing->job.work = parse_work;
        ex->parsing->job.done = parse_done;
        cm_job_start(ex->gw->host->jobs, &ex->parsing->job, CM_LANE_CPU);
        return;
    }
    if (ex->surface->parse(ex->chat, cm_buf_str(&ex->body), &err) < 0)
        exchange_fail(ex, &err);
    else
        parsed(ex);
}

static enum phase phase_of(const struct exchange *ex)
{
    return ex->committed ? PHASE_MIDDLE : ex->head_sent ? PHASE_BEFORE_TOKEN : PHASE_BEFORE_HEAD;
}

static void on_gone(void *arg, struct cm_req *req, const struct cm_err *why)
{
    struct exchange *ex = arg;
    const struct cm_upstream_conf *c = ex->attempt ? &exchange_instance(ex)->conf->upstream : NULL;

    ex->bytes_in = req->bytes_in;
    ex->req = NULL;
    if (why) { /* told by the HTTP server: too large, too slow, broken */
        ex->status = cm_err_status(why);
        exchange_end(ex, OUTCOME_ERROR, why);
        return;
    }
    ex->left_in = phase_of(ex);
    report_disconnect(ex->gw, ex->left_in);
    if (ex->session)
        session_gone(ex);
    if (!ex->session && c && c->on_disconnect == CM_DISCONNECT_DRAIN &&
        ex->gw->drains <
            (size_t)c->drain_max) { /* the answer is awaited without a reader, for its usage */
        ex->abandoned = true;
        ex->gw->drains++;
        hedge_cancel(ex);
        attempt_pause(ex->attempt, false);
        cm_deadline_set(ex->gw->host->loop, &ex->alive,
                        cm_loop_now_ms(ex->gw->host->loop) + (uint64_t)c->drain_time_ms);
        return;
    }
    exchange_drop_attempt(ex);
    exchange_end(ex, OUTCOME_CLIENT_GONE, NULL);
}

static void on_drain(void *arg, struct cm_req *req)
{
    struct exchange *ex = arg;

    (void)req;
    if (ex->attempt)
        attempt_pause(ex->attempt, false);
}

static const struct cm_req_cb req_cb = {
    .on_body = on_body, .on_gone = on_gone, .on_drain = on_drain};

/* Headers that say something about the request itself, for providers that speak the dialect. What
 * tells who the client is, or how it is connected, is not among them. */
static bool speaks(struct cm_str name)
{
    static const struct cm_str prefixes[] = {CM_S_INIT("anthropic-"), CM_S_INIT("openai-"),
                                             CM_S_INIT("x-goog-"), CM_S_INIT("x-claude-code-"),
                                             CM_S_INIT("idempotency-key")};

    if (cm_str_eq_nocase(name, CM_S("x-goog-api-key")))
        return false;
    for (size_t i = 0; i < CM_COUNT(prefixes); i++) {
        if (cm_str_starts_nocase(name, prefixes[i]))
            return true;
    }
    return false;
}

/* The query but for the keys in it. */
static struct cm_str spoken_query(struct exchange *ex)
{
    struct cm_str rest = ex->req->query, kept = CM_STR_NONE;

    while (rest.n > 0) {
        const struct cm_str pair = cm_str_cut(&rest, '&');
        struct cm_str value = pair;
        const struct cm_str name = route_decoded(&ex->arena, cm_str_cut(&value, '='), true);

        if (pair.n > 0 && !cm_str_eq(name, CM_S("key")))
            kept = cm_arena_printf(&ex->arena, CM_PRI "%s" CM_PRI, CM_ARG(kept),
                                   kept.n > 0 ? "&" : "", CM_ARG(pair));
    }
    return kept;
}

void request_chat(struct exchange *ex, struct cm_str rest)
{
    const struct cm_req *req = ex->req;
    struct cm_chat *chat = CM_ARENA_NEW(&ex->arena, struct cm_chat);

    if (ex->pinned.n == 0) /* else only one provider knows what is asked for */
        ex->pinned = cm_arena_str(&ex->arena, cm_req_header(req, CM_S("x-chatmux-target")));

    chat->arena = &ex->arena;
    chat->method = ex->method;
    chat->path = cm_arena_str(&ex->arena, rest);
    chat->content_type = cm_arena_str(&ex->arena, cm_req_header(req, CM_S("content-type")));
    chat->query = spoken_query(ex);
    chat->headers = CM_ARENA_ARRAY(&ex->arena, struct cm_header, req->n_headers);
    for (size_t i = 0; i < req->n_headers; i++) {
        if (!speaks(req->headers[i].name))
            continue;
        chat->headers[chat->n_headers++] =
            (struct cm_header){cm_arena_str(&ex->arena, req->headers[i].name),
                               cm_arena_str(&ex->arena, req->headers[i].value)};
    }
    ex->chat = chat;
}

int request_check_coding(const struct exchange *ex, struct cm_err *err)
{
    struct cm_str coding = cm_req_header(ex->req, CM_S("content-encoding"));

    if (coding.n == 0 || cm_str_eq_nocase(coding, CM_S("identity")))
        return 0;
    cm_fail(err, CM_ERR_BAD_REQUEST,
            "the body is encoded (Content-Encoding: " CM_PRI "): send it plain",
            CM_ARG(cm_str_head(coding, 40)));
    err->http_status = 415;
    return -1;
}

void serve_chat(struct exchange *ex, struct cm_str rest)
{
    struct cm_err err = {0};

    if (request_check_coding(ex, &err) < 0) {
        exchange_fail(ex, &err);
        return;
    }
    request_chat(ex, rest);
    cm_req_read(ex->req, (size_t)ex->snap->config->server.max_body_bytes);
}

/* The client's own id, if it is short and visible: it goes to logs and back into a header. */
static struct cm_str request_id(struct exchange *ex, const struct cm_req *req)
{
    struct cm_str given = cm_req_header(req, CM_S("x-request-id"));
    bool sane = given.n > 0 && given.n <= 128;
    char made[CM_ID_CAP];

    for (size_t i = 0; i < given.n && sane; i++)
        sane = given.p[i] > ' ' && given.p[i] < 127;
    if (sane)
        return cm_arena_str(&ex->arena, given);
    cm_id_make(made, "req_", cm_unix_ms());
    return cm_arena_str(&ex->arena, cm_str_of(made));
}

static void answer_preflight(struct exchange *ex)
{
    struct respond r;

    respond_begin(&r, ex);
    r.n = 1; /* the id; CORS anew, with what a preflight asks for */
    respond_cors(&r, ex->snap->config, ex->req, true);
    ex->status = 204;
    exchange_note_bytes(ex);
    cm_resp_send(ex->req, 204, r.v, r.n, CM_STR_NONE);
    exchange_end(ex, OUTCOME_OK, NULL);
}

static void wrong_method(struct exchange *ex, struct cm_str allow)
{
    struct cm_err err = {0};

    cm_fail(&err, CM_ERR_METHOD, CM_PRI " is not allowed for " CM_PRI "; allowed: " CM_PRI,
            CM_ARG(cm_str_head(ex->method, 20)), CM_ARG(cm_str_head(ex->path, 100)), CM_ARG(allow));
    ex->passed = CM_ARENA_NEW(&ex->arena, struct cm_header);
    ex->passed[0] = (struct cm_header){CM_S("allow"), allow};
    ex->n_passed = 1;
    exchange_fail(ex, &err);
}

/* Who asks: a client by its key, or the operator by the admin secret. */
static int known(struct exchange *ex, enum access access, struct cm_err *err)
{
    struct cm_key *key;

    if (access == ACCESS_ADMIN) {
        ex->key = CM_S("admin");
        return auth_check_admin(ex->snap, ex->req, err);
    }
    if (auth_check(ex->gw, ex->req, &key, err) < 0 ||
        auth_check_operator(ex->snap, ex->req, &ex->operator, err) < 0)
        return -1;
    ex->client_key = key ? cm_key_ref(key) : NULL;
    ex->key = key ? cm_arena_str(&ex->arena, cm_key_row(key)->name) : CM_S("open");
    return 0;
}

/* The operator refuses this address, whatever key it shows. */
static bool blocked(const struct exchange *ex)
{
    const struct cm_strs *list = &ex->snap->config->auth.ip_block;
    struct cm_ip ip;

    if (list->n == 0 || cm_ip_parse(ex->address, &ip) < 0)
        return false;
    for (size_t i = 0; i < list->n; i++)
        if (cm_ip_in(&ip, list->v[i]))
            return true;
    return false;
}

/* Addresses that ask too often, or that guess keys, are told to wait; a right key is served whatever its neighbours behind one address do. */
static int admit(struct exchange *ex, enum access access, struct cm_err *err)
{
    struct cm_gateway *gw = ex->gw;
    const struct cm_config *c = ex->snap->config;
    uint64_t now_s = cm_loop_now_ms(ex->gw->host->loop) / 1000;
    int wait_s = 0;

    if (blocked(ex)) {
        cm_fail(err, CM_ERR_FORBIDDEN, "this gateway does not serve your address");
        cm_str_copy(err->code, sizeof(err->code), CM_S("address_blocked"));
        return -1;
    }
    if (access == ACCESS_ALL)
        return 0;
    if (access == ACCESS_ADMIN && known(ex, access, err) == 0)
        return 0; /* an operator's commands and scripts are not counted */
    if (!address_fits(&gw->requests, ex->address, c->auth.ip_requests_per_minute, now_s, &wait_s)) {
        cm_fail(err, CM_ERR_CLIENT_LIMIT, "too many requests from your address: please wait %d s",
                wait_s);
        err->retry_after_s = wait_s;
        return -1;
    }
    address_record(&gw->requests, ex->address, c->auth.ip_requests_per_minute, now_s);
    if (access == ACCESS_PAGE)
        return auth_is_open(gw) ? auth_check_open(ex->snap, ex->req, err) : 0;
    if (known(ex, access, err) == 0)
        return access == ACCESS_KEY && cm_str_eq(ex->method, CM_S("POST")) ? overload_check(gw, err)
                                                                           : 0;
    if (err->cls == CM_ERR_UNAUTHORIZED) {
        if (address_fits(&gw->bad_keys, ex->address, c->auth.ip_bad_auth_per_minute, now_s,
                         &wait_s)) {
            address_record(&gw->bad_keys, ex->address, c->auth.ip_bad_auth_per_minute, now_s);
        } else {
            cm_fail(err, CM_ERR_CLIENT_LIMIT,
                    "too many wrong API keys from your address: please wait %d s", wait_s);
            err->retry_after_s = wait_s;
        }
    }
    return -1;
}

int request_check_admin(struct exchange *ex, struct cm_err *err)
{
    return admit(ex, ACCESS_ADMIN, err);
}

/* Where the path does not tell it (models, unknown paths): SDKs of Anthropic's always name its version. */
static const struct cm_surface *spoken(struct exchange *ex, const struct cm_req *req)
{
    if (cm_req_header(req, CM_S("anthropic-version")).n > 0)
        return &cm_surface_anthropic;
    return gemini_speaks(ex, req) ? &cm_surface_gemini : &cm_surface_openai_chat;
}

/* It has words of its own for what is nowhere. */
static bool is_hixai2api(const struct exchange *ex)
{
    return compat_of(ex) == CM_COMPAT_HIXAI2API;
}

void request_begin(struct cm_gateway *gw, struct cm_req *req)
{
    struct exchange *ex = CM_NEW(struct exchange);
    struct cm_str rest, allow;
    struct cm_err err = {0};
    enum route_found found;

    ex->gw = gw;
    ex->snap = snapshot_ref(gw->now);
    ex->req = req;
    ex->began_us = req->began_us;
    exchange_init(ex);
    ex->id = request_id(ex, req);
    ex->method = cm_arena_str(&ex->arena, req->method);
    ex->path = cm_arena_str(&ex->arena, req->path);
    ex->address = cm_arena_str(
        &ex->arena, address_of_client(&ex->snap->config->server.trusted_proxies, req->peer,
                                      cm_req_header(req, CM_S("x-forwarded-for"))));
    ex->surface = spoken(ex, req);
    cm_req_listen(req, &req_cb, ex);
    gw->requests_seen++;
    req->id = ex->id;
    found = route_find(&ex->arena, ex->snap->config->server.route_prefix, req->method, req->path,
                       &ex->route, &rest, &allow);
    if (found == ROUTE_NONE)
        found = web_find(ex, &allow);
    if (cm_str_eq(req->method, CM_S("OPTIONS")) && ex->snap->config->server.cors_origins.n > 0 &&
        cm_req_header(req, CM_S("access-control-request-method")).n > 0) {
        answer_preflight(ex);
    } else if (found == ROUTE_METHOD) {
        wrong_method(ex, allow);
    } else if (found == ROUTE_NONE && (!is_hixai2api(ex) || pass_has_takers(ex)) &&
               pass_wants(ex, &rest)) {
        ex->surface = pass_surface(ex, rest);
        if (admit(ex, ACCESS_KEY, &err) < 0)
            exchange_fail(ex, &err);
        else
            serve_pass(ex, rest);
    } else if (found == ROUTE_NONE) {
        ex->surface = cm_surface_compat(ex->surface, compat_of(ex));
        cm_fail(&err, CM_ERR_NOT_FOUND,
                "unknown path " CM_PRI
                "; chat is at /v1/chat/completions, the models are at /v1/models",
                CM_ARG(cm_str_head(ex->path, 120)));
        exchange_fail(ex, &err);
    } else {
        if (ex->web)
            ex->surface = &cm_surface_openai_chat;
        else if (ex->route->serve == serve_chat || ex->surface == &cm_surface_openai_chat)
            ex->surface = cm_surface_compat(ex->route->surface, compat_of(ex));
        if (admit(ex, ex->web ? web_access(ex) : ex->route->access, &err) < 0)
            exchange_fail(ex, &err);
        else if (ex->web)
            web_serve(ex);
        else
            ex->route->serve(ex, rest);
    }
}
