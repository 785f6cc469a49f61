/* Headers every answer has: request id, what served it, limits of the upstream, CORS. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#define RETRY_SOON_S 60 /* SDKs ignore a longer retry-after */
#define ROUTE_MAX 4000  /* bytes of x-chatmux-route; longer ones are left out */

void respond_add(struct respond *r, struct cm_str name, struct cm_str value)
{
    CM_ASSERT(r->n < RESPOND_HEADERS_MAX);
    if (value.n > 0)
        r->v[r->n++] = (struct cm_header){name, value};
}

void respond_cors(struct respond *r, const struct cm_config *config, const struct cm_req *req,
                  bool preflight)
{
    struct cm_str origin = cm_req_header(req, CM_S("origin"));
    const struct cm_strs *list = &config->server.cors_origins;

    for (size_t i = 0; i < list->n && origin.n > 0; i++) {
        bool any = cm_str_eq(list->v[i], CM_S("*"));

        if (!any && !cm_str_eq_nocase(list->v[i], origin))
            continue;
        respond_add(r, CM_S("access-control-allow-origin"), any ? CM_S("*") : origin);
        if (!any)
            respond_add(r, CM_S("vary"), CM_S("origin"));
        respond_add(
            r, CM_S("access-control-expose-headers"),
            CM_S(
                "x-request-id, retry-after, x-chatmux-provider, x-chatmux-model, x-chatmux-attempts, "
                "x-chatmux-dropped, x-chatmux-stream, server-timing"));
        if (preflight) {
            struct cm_str wanted = cm_req_header(req, CM_S("access-control-request-headers"));

            respond_add(r, CM_S("access-control-allow-methods"),
                        CM_S("GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"));
            respond_add(r, CM_S("access-control-allow-headers"),
                        wanted.n ? wanted : CM_S("authorization, content-type"));
            respond_add(r, CM_S("access-control-max-age"), CM_S("86400"));
        }
        return;
    }
}

/* "1s", "6m0s", "250ms": durations as OpenAI writes them. */
static struct cm_str duration(struct exchange *ex, int64_t ms)
{
    if (ms < 1000)
        return cm_arena_printf(&ex->arena, "%lldms", (long long)ms);
    if (ms < 60000)
        return cm_arena_printf(&ex->arena, "%llds", (long long)(ms + 999) / 1000);
    return cm_arena_printf(&ex->arena, "%lldm%llds", (long long)ms / 60000,
                           (long long)(ms % 60000) / 1000);
}

static void add_anthropic(struct respond *r, struct exchange *ex, const char *what,
                          const char *member, struct cm_str value)
{
    respond_add(r, cm_arena_printf(&ex->arena, "anthropic-ratelimit-%s-%s", what, member), value);
}

/* reset_ms -1: nobody knows. */
static void add_limit(struct respond *r, struct exchange *ex, const char *what, int64_t limit,
                      int64_t remaining, int64_t reset_ms)
{
    char reset_at[CM_RFC3339_CAP] = "";

    if (limit < 0 || remaining < 0)
        return;
    if (ex->surface && ex->surface->dialect == CM_DIALECT_ANTHROPIC) {
        if (reset_ms >= 0)
            cm_rfc3339((cm_unix_ms() + reset_ms + 999) / 1000 * 1000, reset_at);
        add_anthropic(r, ex, what, "limit", cm_arena_printf(&ex->arena, "%lld", (long long)limit));
        add_anthropic(r, ex, what, "remaining",
                      cm_arena_printf(&ex->arena, "%lld", (long long)remaining));
        add_anthropic(r, ex, what, "reset", cm_arena_str(&ex->arena, cm_str_of(reset_at)));
        return;
    }
    respond_add(r, cm_arena_printf(&ex->arena, "x-ratelimit-limit-%s", what),
                cm_arena_printf(&ex->arena, "%lld", (long long)limit));
    respond_add(r, cm_arena_printf(&ex->arena, "x-ratelimit-remaining-%s", what),
                cm_arena_printf(&ex->arena, "%lld", (long long)remaining));
    respond_add(r, cm_arena_printf(&ex->arena, "x-ratelimit-reset-%s", what),
                reset_ms < 0 ? CM_STR_NONE : duration(ex, reset_ms));
}

/* A key with limits of its own is told those, not the operator's at the upstream. */
static bool add_key_limits(struct respond *r, struct exchange *ex)
{
    struct cm_key_limits l;

    if (!ex->client_key)
        return false;
    cm_key_limits(ex->client_key, &l);
    add_limit(r, ex, "requests", l.limit_requests, l.remaining_requests, l.reset_requests_ms);
    add_limit(r, ex, "tokens", l.limit_tokens, l.remaining_tokens, l.reset_tokens_ms);
    return l.limit_requests >= 0 || l.limit_tokens >= 0;
}

static void add_told_limit(struct respond *r, struct exchange *ex, const char *what,
                           const struct cm_limit *l)
{
    const int64_t left_ms = l->reset_unix_ms - cm_unix_ms();

    add_limit(r, ex, what, l->limit, l->remaining,
              l->reset_unix_ms < 0 ? -1
              : left_ms > 0        ? left_ms
                                   : 0);
}

static bool tells_limits(struct cm_str name)
{
    return cm_str_starts_nocase(name, CM_S("x-ratelimit-")) ||
           cm_str_starts_nocase(name, CM_S("anthropic-ratelimit-"));
}

/* "read;dur=0.1, queue;dur=0, …": milliseconds with one decimal. By hand: this is written for every answer. */
static const char *timing_text(struct exchange *ex, const uint64_t us[3])
{
    static const char *const names[] = {"read;dur=", ", queue;dur=", ", upstream;dur="};
    char *text = cm_arena_alloc(&ex->arena, 128), *at = text;

    for (size_t i = 0; i < CM_COUNT(names); i++) {
        uint64_t tenths = us[i] / 100, whole = tenths / 10, scale = 1;

        at = stpcpy(at, names[i]);
        while (whole / scale >= 10)
            scale *= 10;
        for (; scale > 0; scale /= 10)
            *at++ = (char)('0' + whole / scale % 10);
        *at++ = '.';
        *at++ = (char)('0' + tenths % 10);
    }
    *at = '\0';
    return text;
}

/* Where the time until this head went, for browsers' tools and curious people: the body on its way in; other attempts and queues; the attempt that serves. */
static void add_timing(struct respond *r, struct exchange *ex)
{
    uint64_t now_us = cm_mono_us(), asked_us = ex->attempt_us ? ex->attempt_us : now_us;

    respond_add(
        r, CM_S("server-timing"),
        cm_str_of(timing_text(ex, (const uint64_t[]){ex->body_us - ex->began_us,
                                                     asked_us - ex->body_us, now_us - asked_us})));
}

/* For an operator who showed the admin secret: every attempt so far, the one that serves last. */
static void add_route(struct respond *r, struct exchange *ex)
{
    struct cm_buf out = {0};
    struct cm_str value;

    cm_buf_put(&out, '[');
    cm_buf_append(&out, cm_buf_str(&ex->tries));
    if (ex->attempt) {
        cm_buf_printf(&out, "%s{\"provider\":", ex->tries.n ? "," : "");
        cm_json_put_str(&out, exchange_instance(ex)->name);
        cm_buf_append(&out, CM_S(",\"credential\":"));
        cm_json_put_str(&out, attempt_label(ex->attempt));
        cm_buf_append(&out, CM_S(",\"model\":"));
        cm_json_put_str(&out, ex->targets[ex->target].model);
        cm_buf_put(&out, '}');
    }
    cm_buf_put(&out, ']');
    value = cm_buf_settle(&out, &ex->arena);
    if (value.n <= ROUTE_MAX && cm_header_value_ok(value))
        respond_add(r, CM_S("x-chatmux-route"), value);
}

static bool passes(const struct exchange *ex, struct cm_str name)
{
    static const struct cm_str prefixes[] = {
        CM_S_INIT("x-ratelimit-"), CM_S_INIT("openai-processing-ms"), CM_S_INIT("openai-version"),
        CM_S_INIT("anthropic-ratelimit-"), CM_S_INIT("request-id")};

    for (size_t i = 0; i < CM_COUNT(prefixes); i++)
        if (cm_str_starts_nocase(name, prefixes[i]))
            return true;
    return ex->chat->task == CM_TASK_PASS && cm_str_eq_nocase(name, CM_S("content-disposition"));
}

static void keep_headers(struct exchange *ex, const struct cm_event *ev)
{
    ex->passed = CM_ARENA_ARRAY(&ex->arena, struct cm_header, ev->n_headers);
    ex->n_passed = 0;
    for (size_t i = 0; i < ev->n_headers; i++)
        if (passes(ex, ev->headers[i].name) && cm_header_value_ok(ev->headers[i].value))
            ex->passed[ex->n_passed++] =
                (struct cm_header){cm_arena_str(&ex->arena, ev->headers[i].name),
                                   cm_arena_str(&ex->arena, ev->headers[i].value)};
}

void respond_keep(struct exchange *ex, const struct cm_event *ev)
{
    keep_headers(ex, ev);
    ex->told = NULL;
    if (ev->limits) {
        ex->told = CM_ARENA_NEW(&ex->arena, struct cm_limits);
        *ex->told = *ev->limits;
    }
    ex->answer_type =
        cm_header_value_ok(ev->media_type) ? cm_arena_str(&ex->arena, ev->media_type) : CM_STR_NONE;
    if (ex->chat->task == CM_TASK_PASS)
        ex->answer_status = ev->status;
}

void respond_begin(struct respond *r, struct exchange *ex)
{
    bool own_limits;

    r->n = 0;
    respond_add(r, CM_S("x-request-id"), ex->id);
    if (ex->attempts > 0) {
        respond_add(r, CM_S("x-chatmux-provider"),
                    ex->snap->offers[ex->targets[ex->target].provider].provider);
        respond_add(r, CM_S("x-chatmux-model"),
                    ex->served_model.n > 0 && cm_header_value_ok(ex->served_model)
                        ? ex->served_model
                        : ex->targets[ex->target].model);
        respond_add(r, CM_S("x-chatmux-attempts"), cm_arena_printf(&ex->arena, "%u", ex->attempts));
        respond_add(r, CM_S("x-chatmux-dropped"), ex->dropped);
        add_timing(r, ex);
        if (ex->operator)
            add_route(r, ex);
    }
    own_limits = add_key_limits(r, ex);
    if (!own_limits && ex->told) {
        add_told_limit(r, ex, "requests", &ex->told->requests);
        add_told_limit(r, ex, "tokens", &ex->told->tokens);
    }
    for (size_t i = 0; i < ex->n_passed && r->n < RESPOND_HEADERS_MAX - 15; i++)
        if (!own_limits || !tells_limits(ex->passed[i].name))
            respond_add(r, ex->passed[i].name, ex->passed[i].value);
    if (ex->surface && ex->surface->dialect == CM_DIALECT_ANTHROPIC &&
        cm_header_find(r->v, r->n, CM_S("request-id")).n == 0)
        respond_add(r, CM_S("request-id"), ex->id);
    if (ex->req)
        respond_cors(r, ex->snap->config, ex->req, false);
}

/* The error in the client's dialect. */
static void put_error(const struct exchange *ex, const struct cm_err *err, struct cm_buf *out)
{
    const struct cm_surface *s = ex->surface ? ex->surface : &cm_surface_openai_chat;
    struct cm_json_edit with_id = {.key = s->error_id_member};
    struct cm_buf body = {0}, id = {0};

    if (s->error_id_member.n == 0) {
        s->error_body(err, out);
        return;
    }
    s->error_body(err, &body);
    cm_json_put_str(&id, ex->id);
    with_id.value = cm_buf_str(&id);
    cm_json_splice(cm_buf_str(&body), &with_id, 1, out, NULL);
    cm_buf_clear(&body);
    cm_buf_clear(&id);
}

void respond_refusal(struct exchange *ex, const struct cm_err *err)
{
    struct respond r;

    respond_begin(&r, ex);
    respond_add(&r, CM_S("content-type"), CM_S("application/json"));
    ex->status = cm_err_status(err);
    ex->bytes_out = ex->refusal.n;
    cm_resp_send(ex->req, ex->status, r.v, r.n, ex->refusal);
}

void respond_error(struct exchange *ex, const struct cm_err *err, bool spent)
{
    const struct cm_surface *surface = ex->surface ? ex->surface : &cm_surface_openai_chat;
    struct cm_buf body = {0};
    struct respond r;

    ex->status = surface->error_status ? surface->error_status(err) : cm_err_status(err);
    /* a dialect may give 500, which SDKs repeat, to what cannot become better */
    spent |= ex->status >= 500 && cm_err_info(err->cls)->next == CM_NEXT_STOP;
    respond_begin(&r, ex);
    respond_add(&r, CM_S("content-type"), CM_S("application/json"));
    if (err->retry_after_s > 0)
        respond_add(&r, CM_S("retry-after"), cm_arena_printf(&ex->arena, "%d", err->retry_after_s));
    if ((spent || err->cls == CM_ERR_CLIENT_LIMIT) &&
        (err->retry_after_s <= 0 || err->retry_after_s > RETRY_SOON_S))
        respond_add(&r, CM_S("x-should-retry"), CM_S("false"));
    if (err->cls == CM_ERR_UNAUTHORIZED)
        respond_add(&r, CM_S("www-authenticate"), CM_S("Bearer"));
    put_error(ex, err, &body);
    ex->bytes_out = body.n;
    cm_resp_send(ex->req, ex->status, r.v, r.n, cm_buf_str(&body));
    cm_buf_clear(&body);
}
