#include "clients.h"
#include "world.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#include <stdio.h>
#include <stdlib.h>

struct client {
    struct cm_req req; /* first: what the gateway sees */
    struct cm_loop *loop;
    const struct cm_req_cb *cb;
    void *cb_arg;
    struct cm_buf body, got; /* question; everything that came */
    struct cm_header headers[2];
    char authorization[80];
    int status;
    bool streamed, started, slow, over, aborted, left, high;
    size_t queued;
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

/* "B:q:attempt:n w0 w1 … " of this question, its words in order; all of them when it is whole. */
static void check_text(const struct client *c, struct cm_str text, bool whole)
{
    unsigned long long q, attempt;
    unsigned n, i = 0;
    char head[80];

    if (text.n == 0 && !whole)
        return;
    cm_str_copy(head, sizeof(head), text);
    if (sscanf(head, "B:%llu:%llu:%u ", &q, &attempt, &n) != 3 || q != c->q)
        world_fail("question %llu is answered with \"%s\"", (unsigned long long)c->q, head);
    cm_str_cut(&text, ' ');
    while (text.n > 0) {
        struct cm_str word = cm_str_cut(&text, ' ');
        char expected[16];

        snprintf(expected, sizeof(expected), "w%u", i++);
        if (!cm_str_eq(word, cm_str_of(expected)))
            world_fail("question %llu: \"" CM_PRI "\" stands where \"%s\" should be",
                       (unsigned long long)c->q, CM_ARG(cm_str_head(word, 20)), expected);
    }
    if (whole && i != n)
        world_fail("question %llu: the answer ends well after %u of %u words",
                   (unsigned long long)c->q, i, n);
}

struct reading {
    struct cm_buf text;
    bool role, finish, done, error;
};

static void read_event(const struct client *c, struct reading *r, struct cm_str data)
{
    yyjson_doc *doc;
    yyjson_val *root, *choice, *delta;

    if (r->done || r->error)
        world_fail("question %llu: something comes behind the end", (unsigned long long)c->q);
    if (cm_str_eq(data, CM_S("[DONE]"))) {
        r->done = true;
        return;
    }
    doc = cm_json_parse(data, &cm_json_limits_event, NULL);
    root = yyjson_doc_get_root(doc);
    if (!doc)
        world_fail("question %llu: an event is no JSON", (unsigned long long)c->q);
    if (yyjson_obj_get(root, "error")) {
        r->error = true;
    } else {
        choice = yyjson_arr_get_first(yyjson_obj_get(root, "choices"));
        delta = cm_json_get(choice, "delta");
        r->role |= yyjson_is_str(cm_json_get(delta, "role"));
        if (cm_json_str(cm_json_get(delta, "content")).n > 0 && !r->role)
            world_fail("question %llu: text before the role", (unsigned long long)c->q);
        cm_buf_append(&r->text, cm_json_str(cm_json_get(delta, "content")));
        r->finish |= yyjson_is_str(cm_json_get(choice, "finish_reason"));
    }
    yyjson_doc_free(doc);
}

static void check_stream(const struct client *c)
{
    struct cm_str rest = cm_buf_str(&c->got);
    struct reading r = {0};

    while (rest.n > 0) {
        struct cm_str line = cm_str_cut(&rest, '\n');

        if (cm_str_starts(line, CM_S("data: ")))
            read_event(c, &r, cm_str_from(line, 6));
        else if (line.n > 0 && line.p[0] != ':')
            world_fail("question %llu: a line of its stream is \"" CM_PRI "\"",
                       (unsigned long long)c->q, CM_ARG(cm_str_head(line, 60)));
    }
    if (!c->left && c->aborted != r.error)
        world_fail("question %llu: a stream that breaks off must say why, and only that",
                   (unsigned long long)c->q);
    if (!c->left && !c->aborted && (!r.done || !r.finish))
        world_fail("question %llu: a stream ends well without its end mark",
                   (unsigned long long)c->q);
    if (r.done && r.error)
        world_fail("question %llu: a stream with an error ends well", (unsigned long long)c->q);
    check_text(c, cm_buf_str(&r.text), r.done);
    figures.whole += r.done;
    figures.cut += r.error;
    cm_buf_clear(&r.text);
}

static void check_whole(const struct client *c)
{
    yyjson_doc *doc = cm_json_parse(cm_buf_str(&c->got), &cm_json_limits_request, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc),
               *choice = yyjson_arr_get_first(cm_json_get(root, "choices"));

    if (!doc)
        world_fail("question %llu: status %d, and a body that is no JSON", (unsigned long long)c->q,
                   c->status);
    if (c->status != 200) {
        if (!cm_json_str(cm_json_get(cm_json_get(root, "error"), "message")).n)
            world_fail("question %llu: status %d without an error", (unsigned long long)c->q,
                       c->status);
        figures.errors++;
    } else {
        check_text(c, cm_json_str(cm_json_get(cm_json_get(choice, "message"), "content")), true);
        figures.whole++;
    }
    yyjson_doc_free(doc);
}

/* ---- a client's life ---- */

static void client_over(void *arg)
{
    struct client *c = arg;

    note(cm_buf_str(&c->got));
    figures.ended++;
    figures.by_status[c->status]++;
    figures.left += c->left;
    if (c->started)
        check_stream(c);
    else if (!c->left)
        check_whole(c);
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
        cm_deadline_set(c->loop, &c->pump, cm_loop_now_ms(c->loop) + 30);
    if (c->high && c->queued < CM_HTTPD_LOW) {
        c->high = false;
        c->cb->on_drain(c->cb_arg, &c->req);
    }
}

void client_ask(struct cm_loop *loop, const struct cm_httpd_handler *gateway, const char *key,
                const char *model, bool streamed, void (*on_end)(void *arg), void *arg)
{
    struct client *c = CM_NEW(struct client);

    c->loop = loop;
    c->streamed = streamed;
    c->q = ++figures.asked;
    c->on_end = on_end;
    c->arg = arg;
    c->slow = chance(30);
    snprintf(c->authorization, sizeof(c->authorization), "Bearer %s", key);
    c->headers[0] = (struct cm_header){CM_S("authorization"), cm_str_of(c->authorization)};
    c->headers[1] = (struct cm_header){CM_S("content-type"), CM_S("application/json")};
    cm_buf_printf(&c->body,
                  "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":100,"
                  "\"messages\":[{\"role\":\"user\",\"content\":\"q:%llu\"}]}",
                  model, streamed ? "true" : "false", (unsigned long long)c->q);
    c->req = (struct cm_req){.method = CM_S("POST"),
                             .target = CM_S("/v1/chat/completions"),
                             .path = CM_S("/v1/chat/completions"),
                             .headers = c->headers,
                             .n_headers = 2,
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
    if (c->queued > UINT64_C(64) * 1024 * 1024)
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
        cm_deadline_set(c->loop, &c->pump, cm_loop_now_ms(c->loop) + 30);
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
