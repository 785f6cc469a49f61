#include "clients.h"
#include "reading.h"
#include "world.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

struct client {
    struct cm_req req; /* first: what the gateway sees */
    struct cm_loop *loop;
    const struct cm_req_cb *cb;
    void *cb_arg;
    struct cm_buf body, got; /* question; everything that came */
    struct cm_header headers[3];
    char path[100], authorization[80];
    enum dialect dialect;
    int status;
    bool streamed, started, slow, over, aborted, left, high;
    size_t queued;
    unsigned pump_ms; /* how long a slow reader rests */
    uint64_t q;
    struct cm_deadline leave, read, pump;
    void (*on_end)(void *arg);
    void *arg;
};

static struct client_figures figures;

struct client_figures *clients_figures(void)
{
    return &figures;
}

/* ---- what an answer must be ---- */

static void note(struct cm_str bytes)
{
    for (size_t i = 0; i < bytes.n; i++)
        figures.digest = (figures.digest ^ (unsigned char)bytes.p[i]) * UINT64_C(0x100000001b3);
}

/* ---- a client's life ---- */

static void client_over(void *arg)
{
    struct client *c = arg;
    const struct answer answer = {.q = c->q,
                                  .dialect = c->dialect,
                                  .left = c->left,
                                  .aborted = c->aborted,
                                  .status = c->status,
                                  .bytes = cm_buf_str(&c->got)};
    struct verdict v = {0};

    note(cm_buf_str(&c->got));
    figures.ended++;
    figures.by_status[c->status]++;
    figures.left += c->left;
    if (c->started)
        v = read_stream(&answer);
    else if (!c->left)
        v = read_whole(&answer);
    figures.whole += v.whole;
    figures.cut += v.error && c->started;
    figures.errors += v.error && !c->started;
    figures.by_dialect[c->dialect] += v.whole;
    cm_buf_clear(&c->body);
    cm_buf_clear(&c->got);
    cm_arena_clear(&c->req.arena);
    c->on_end(c->arg);
    free(c);
}

static void over(struct client *c)
{
    if (c->over)
        world_fail("question %llu is answered twice", (unsigned long long)c->q);
    c->over = true;
    cm_deadline_clear(c->loop, &c->leave);
    cm_deadline_clear(c->loop, &c->read);
    cm_deadline_clear(c->loop, &c->pump);
    world_after(c->loop, 0, client_over, c); /* the gateway may still be on the stack */
}

static void on_leave(void *arg)
{
    struct client *c = arg;

    c->left = true;
    over(c);
    c->cb->on_gone(c->cb_arg, &c->req, NULL);
}

static void on_read(void *arg)
{
    struct client *c = arg;

    c->req.bytes_in = c->body.n;
    c->cb->on_body(c->cb_arg, &c->req, cm_buf_str(&c->body));
}

/* A slow reader takes some bytes now and then. */
static void on_pump(void *arg)
{
    struct client *c = arg;
    size_t n = 512 + dice(4096);

    c->queued -= n < c->queued ? n : c->queued;
    if (c->queued > 0)
        cm_deadline_set(c->loop, &c->pump, cm_loop_now_ms(c->loop) + c->pump_ms);
    if (c->high && c->queued < CM_HTTPD_LOW) {
        c->high = false;
        c->cb->on_drain(c->cb_arg, &c->req);
    }
}

static struct cm_str put_question(struct client *c, const char *model)
{
    const char *stream = c->streamed ? "true" : "false";
    const unsigned long long q = c->q;

    switch (c->dialect) {
    case CHAT:
        cm_buf_printf(&c->body,
                      "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":100,"
                      "\"messages\":[{\"role\":\"user\",\"content\":\"q:%llu\"}]}",
                      model, stream, q);
        return CM_S("/v1/chat/completions");
    case TEXT:
        cm_buf_printf(&c->body,
                      "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":100,\"prompt\":\"q:%llu\"}",
                      model, stream, q);
        return CM_S("/v1/completions");
    case RESPONSES:
        cm_buf_printf(
            &c->body,
            "{\"model\":\"%s\",\"stream\":%s,\"max_output_tokens\":100,\"input\":\"q:%llu\"}",
            model, stream, q);
        return CM_S("/v1/responses");
    case MESSAGES:
        cm_buf_printf(&c->body,
                      "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":100,"
                      "\"messages\":[{\"role\":\"user\",\"content\":\"q:%llu\"}]}",
                      model, stream, q);
        return CM_S("/v1/messages");
    case GEMINI:
    case GEMINI_ARRAY:
        cm_buf_printf(&c->body,
                      "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"q:%llu\"}]}]}", q);
        snprintf(c->path, sizeof(c->path), "/v1beta/models/%s:%s", model,
                 c->streamed ? "streamGenerateContent" : "generateContent");
        break;
    }
    return cm_str_of(c->path);
}

void client_ask(struct cm_loop *loop, const struct cm_httpd_handler *gateway,
                const struct client_question *ask, void (*on_end)(void *arg), void *arg)
{
    struct client *c = CM_NEW(struct client);
    struct cm_str path;

    c->loop = loop;
    c->streamed = ask->streamed;
    c->dialect = ask->dialect;
    c->q = ++figures.asked;
    c->on_end = on_end;
    c->arg = arg;
    c->slow = chance(50);
    c->pump_ms = chance(300) ? 800 : 30;
    snprintf(c->authorization, sizeof(c->authorization), "Bearer %s", ask->key);
    c->headers[0] = (struct cm_header){CM_S("authorization"), cm_str_of(c->authorization)};
    c->headers[1] = (struct cm_header){CM_S("content-type"), CM_S("application/json")};
    c->headers[2] = (struct cm_header){CM_S("anthropic-version"), CM_S("2023-06-01")};
    path = put_question(c, ask->model);
    c->req =
        (struct cm_req){.method = CM_S("POST"),
                        .target = path,
                        .path = path,
                        .query = c->streamed && c->dialect == GEMINI ? CM_S("alt=sse") : CM_S(""),
                        .headers = c->headers,
                        .n_headers = c->dialect == MESSAGES ? 3 : 2,
                        .peer = CM_S("127.0.0.1"),
                        .has_body = true,
                        .content_length = (int64_t)c->body.n,
                        .http_minor = 1,
                        .began_us = cm_mono_us()};
    cm_deadline_init(&c->leave, on_leave, c);
    cm_deadline_init(&c->read, on_read, c);
    cm_deadline_init(&c->pump, on_pump, c);
    if (chance(50))
        cm_deadline_set(loop, &c->leave, cm_loop_now_ms(loop) + 1 + dice(chance(500) ? 50 : 3000));
    gateway->on_request(gateway->arg, &c->req);
}

/* ---- io/httpd, as the gateway knows it ---- */

static struct client *of(const struct cm_req *req)
{
    return (struct client *)(uintptr_t)req;
}

struct cm_str cm_req_header(const struct cm_req *req, struct cm_str name)
{
    for (size_t i = 0; i < req->n_headers; i++)
        if (cm_str_eq_nocase(req->headers[i].name, name))
            return req->headers[i].value;
    return CM_STR_NONE;
}

void cm_req_listen(struct cm_req *req, const struct cm_req_cb *cb, void *arg)
{
    of(req)->cb = cb;
    of(req)->cb_arg = arg;
}

void cm_req_read(struct cm_req *req, size_t max_bytes)
{
    struct client *c = of(req);

    (void)max_bytes;
    cm_deadline_set(c->loop, &c->read, cm_loop_now_ms(c->loop) + dice(5));
}

struct cm_buf cm_req_take_body(struct cm_req *req)
{
    struct cm_buf body = of(req)->body;

    of(req)->body = (struct cm_buf){0};
    return body;
}

void cm_resp_send(struct cm_req *req, int status, const struct cm_header *headers, size_t n,
                  struct cm_str body)
{
    struct client *c = of(req);

    (void)headers;
    (void)n;
    if (c->started)
        world_fail("question %llu: a whole answer behind the beginning of a stream",
                   (unsigned long long)c->q);
    c->status = status;
    cm_buf_append(&c->got, body);
    over(c);
}

void cm_resp_start(struct cm_req *req, int status, const struct cm_header *headers, size_t n)
{
    struct client *c = of(req);

    (void)headers;
    (void)n;
    if (c->started || c->over)
        world_fail("question %llu: a second head", (unsigned long long)c->q);
    c->status = status;
    c->started = true;
}

size_t cm_resp_write(struct cm_req *req, struct cm_str bytes)
{
    struct client *c = of(req);

    if (!c->started || c->over)
        world_fail("question %llu: bytes outside of a stream", (unsigned long long)c->q);
    cm_buf_append(&c->got, bytes);
    c->queued += bytes.n;
    if (c->queued > CM_HTTPD_HIGH)
        c->high = true;
    if (c->queued > CM_HTTPD_HIGH + (size_t)64 * 1024)
        world_fail("question %llu: the gateway does not stop for a slow reader",
                   (unsigned long long)c->q);
    return c->queued;
}

void cm_resp_flush(struct cm_req *req)
{
    struct client *c = of(req);

    if (!c->slow)
        c->queued = 0;
    else if (c->queued > 0 && c->pump.slot == SIZE_MAX)
        cm_deadline_set(c->loop, &c->pump, cm_loop_now_ms(c->loop) + c->pump_ms);
}

size_t cm_resp_queued(const struct cm_req *req)
{
    return of(req)->queued;
}

void cm_resp_end(struct cm_req *req)
{
    over(of(req));
}

void cm_resp_abort(struct cm_req *req)
{
    of(req)->aborted = true;
    over(of(req));
}

bool cm_resp_started(const struct cm_req *req)
{
    return of(req)->started;
}

/* ---- what nobody here asks for */

void cm_req_hold(struct cm_req *req, bool held)
{
    (void)held;
    world_fail("question %llu: held", (unsigned long long)of(req)->q);
}

void cm_resp_upgrade(struct cm_req *req, const struct cm_header *headers, size_t n,
                     const struct cm_upgrade *up)
{
    (void)headers;
    (void)n;
    (void)up;
    world_fail("question %llu: upgraded", (unsigned long long)of(req)->q);
}
