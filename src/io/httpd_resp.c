/* Responses of the HTTP server: heads, whole bodies, pieces, and the answers it makes itself. */
#include "httpd_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/rand.h"

#include <stdio.h>

static const struct {
    int status;
    const char *text;
} reasons[] = {
    {200, "OK"},
    {101, "Switching Protocols"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {426, "Upgrade Required"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {304, "Not Modified"},
};

static struct cm_str reason(int status)
{
    for (size_t i = 0; i < CM_COUNT(reasons); i++) {
        if (reasons[i].status == status)
            return cm_str_of(reasons[i].text);
    }
    return CM_STR_NONE; /* may be empty (RFC 9112 4) */
}

static struct cm_str http_date(struct cm_httpd *h)
{
    int64_t now_s = cm_unix_ms() / 1000;

    if (now_s != h->date_s) {
        h->date_s = now_s;
        cm_http_date(now_s, h->date);
    }
    return cm_str(h->date, CM_HTTP_DATE_CAP - 1);
}

enum length { LENGTH_NONE, LENGTH_KNOWN, LENGTH_CHUNKED };

struct head {
    int status;
    const struct cm_header *headers;
    size_t n_headers;
    enum length length;
    size_t content_length;
    bool keep;
    int minor; /* the client's */
};

static void put_head(struct cm_httpd *h, struct cm_buf *out, const struct head *head)
{
    cm_buf_reserve(out, 512); /* most heads fit, so that the buffer grows once */
    cm_buf_append(out, CM_S("HTTP/1.1 "));
    cm_buf_put_u64(out, (uint64_t)head->status);
    cm_buf_put(out, ' ');
    cm_buf_append(out, reason(head->status));
    cm_buf_append(out, CM_S("\r\nDate: "));
    cm_buf_append(out, http_date(h));
    cm_buf_append(out, CM_S("\r\n"));
    for (size_t i = 0; i < head->n_headers; i++) {
        const struct cm_header *f = &head->headers[i];

        if (!cm_header_name_ok(f->name) || !cm_header_value_ok(f->value)) {
            cm_warn("httpd",
                    "a response header that would break the message is left out: \"" CM_PRI "\"",
                    CM_ARG(f->name));
            continue;
        }
        cm_buf_append(out, f->name);
        cm_buf_append(out, CM_S(": "));
        cm_buf_append(out, f->value);
        cm_buf_append(out, CM_S("\r\n"));
    }
    if (head->length == LENGTH_KNOWN) {
        cm_buf_append(out, CM_S("Content-Length: "));
        cm_buf_put_u64(out, head->content_length);
        cm_buf_append(out, CM_S("\r\n"));
    } else if (head->length == LENGTH_CHUNKED) {
        cm_buf_append(out, CM_S("Transfer-Encoding: chunked\r\n"));
    }
    if (head->status == 101)
        ; /* its Connection is among the headers */
    else if (!head->keep)
        cm_buf_append(out, CM_S("Connection: close\r\n"));
    else if (head->minor == 0)
        cm_buf_append(out, CM_S("Connection: keep-alive\r\n"));
    cm_buf_append(out, CM_S("\r\n"));
}

static const struct req *const_req_of(const struct cm_req *pub)
{
    return (const struct req *)(const void *)((const char *)pub - offsetof(struct req, pub));
}

/* -1 and a task when the connection is lost: the handler hears of it on a later turn, not from within its own call. */
int hconn_send(struct hconn *c, struct cm_str tail)
{
    struct req *r = c->req;
    int rc = cm_conn_flush(&c->conn, tail);

    if (rc != 0 || (r && r->high && cm_conn_queued(&c->conn) < CM_HTTPD_LOW))
        cm_task_post(c->h->loop, &c->task);
    return rc;
}

/* Whether another request may follow, as far as that is known when the head goes out. */
static bool may_keep(const struct req *r)
{
    const struct hconn *c = r->c;
    bool unread = c->state == STATE_HOLD || c->state == STATE_BODY;

    if (!r->keep || c->h->draining)
        return false;
    if (unread && r->expects)
        return false; /* whether the body comes now is the client's choice: what follows is not readable */
    return !unread || c->h1.state != CM_H1_LENGTH || c->h1.left <= DISCARD_BYTES;
}

static void put_resp_head(struct req *r, int status, const struct cm_header *headers, size_t n,
                          enum length length, size_t content_length)
{
    struct cm_buf *out = &r->c->conn.out;
    size_t before = out->n;
    bool bodyless = status < 200 || status == 204 || status == 304;

    CM_ASSERT(!r->started);
    r->started = true;
    r->mute = r->pub.head || bodyless;
    r->keep = may_keep(r) && (length != LENGTH_NONE || r->mute);
    put_head(r->c->h, out,
             &(struct head){.status = status,
                            .headers = headers,
                            .n_headers = n,
                            .length = bodyless ? LENGTH_NONE : length,
                            .content_length = content_length,
                            .keep = r->keep,
                            .minor = r->pub.http_minor});
    r->pub.bytes_out += out->n - before;
}

/* The response is queued and flushed: the request is over. */
static void resp_over(struct req *r)
{
    struct hconn *c = r->c;
    bool keep = r->keep;

    c->req = NULL;
    httpd_req_free(r);
    if (c->conn.closing)
        return;
    if (!keep || c->conn.lost != 0) {
        hconn_end(c, false);
        return;
    }
    if (c->state == STATE_WAIT) {
        hconn_next(c);
    } else {
        c->state = STATE_DISCARD;
        c->h1.body = NULL;
        c->h1.body_max = c->h1.body_n + DISCARD_BYTES;
        c->since_ms = c->last_ms = hconn_now_ms(c);
        c->mark = c->h1.body_n;
    }
    if (c->running)
        return;
    if (c->in.n > 0)
        cm_task_post(c->h->loop, &c->task);
    else
        hconn_settle(c);
}

void cm_resp_send(struct cm_req *req, int status, const struct cm_header *headers, size_t n,
                  struct cm_str body)
{
    struct req *r = req_of(req);

    if (!r->c)
        return;
    put_resp_head(r, status, headers, n, LENGTH_KNOWN, body.n);
    if (r->mute)
        body = CM_STR_NONE;
    r->pub.bytes_out += body.n;
    hconn_send(r->c, body);
    resp_over(r);
}

void cm_resp_start(struct cm_req *req, int status, const struct cm_header *headers, size_t n)
{
    struct req *r = req_of(req);

    if (!r->c)
        return;
    r->chunked = req->http_minor > 0;
    put_resp_head(r, status, headers, n, r->chunked ? LENGTH_CHUNKED : LENGTH_NONE, 0);
}

size_t cm_resp_write(struct cm_req *req, struct cm_str bytes)
{
    struct req *r = req_of(req);
    struct cm_buf *out;
    size_t before, queued;

    if (!r->c)
        return 0;
    CM_ASSERT(r->started);
    out = &r->c->conn.out;
    before = out->n;
    if (r->mute || bytes.n == 0 || r->c->conn.lost != 0)
        return cm_conn_queued(&r->c->conn);
    if (r->chunked) {
        char size[2 * sizeof(size_t) + 2];
        size_t at = sizeof(size);

        size[--at] = '\n';
        size[--at] = '\r';
        for (size_t left = bytes.n; left > 0; left >>= 4)
            size[--at] = "0123456789abcdef"[left & 15];
        cm_buf_reserve(out, sizeof(size) + bytes.n + 2);
        cm_buf_append(out, cm_str(size + at, sizeof(size) - at));
        cm_buf_append(out, bytes);
        cm_buf_append(out, CM_S("\r\n"));
    } else {
        cm_buf_append(out, bytes);
    }
    r->pub.bytes_out += out->n - before;
    queued = cm_conn_queued(&r->c->conn);
    r->high |= queued > CM_HTTPD_HIGH;
    return queued;
}

void cm_resp_flush(struct cm_req *req)
{
    struct req *r = req_of(req);

    if (r->c)
        hconn_send(r->c, CM_STR_NONE);
}

size_t cm_resp_queued(const struct cm_req *req)
{
    const struct req *r = const_req_of(req);

    return r->c ? cm_conn_queued(&r->c->conn) : 0;
}

bool cm_resp_started(const struct cm_req *req)
{
    return const_req_of(req)->started;
}

void cm_resp_end(struct cm_req *req)
{
    struct req *r = req_of(req);

    if (!r->c)
        return;
    CM_ASSERT(r->started);
    if (r->chunked && !r->mute)
        cm_buf_append(&r->c->conn.out, CM_S("0\r\n\r\n"));
    hconn_send(r->c, CM_STR_NONE);
    resp_over(r);
}

void cm_resp_abort(struct cm_req *req)
{
    struct req *r = req_of(req);
    struct hconn *c = r->c;

    if (!c)
        return;
    c->req = NULL;
    httpd_req_free(r);
    hconn_end(c, true);
}

/* ---- upgrades */

void cm_resp_upgrade(struct cm_req *req, const struct cm_header *headers, size_t n,
                     const struct cm_upgrade *up)
{
    struct req *r = req_of(req);
    struct hconn *c = r->c;

    if (!c)
        return;
    CM_ASSERT(c->state == STATE_WAIT && req->http_minor > 0);
    put_resp_head(r, 101, headers, n, LENGTH_NONE, 0);
    r->mute = false;
    r->keep = false;
    r->up = up;
    c->state = STATE_UPGRADED;
    hconn_send(c, CM_STR_NONE);
    if (c->conn.lost == 0 && !c->running)
        cm_task_post(c->h->loop, &c->task); /* what came behind the head */
}

void cm_req_hold(struct cm_req *req, bool held)
{
    struct req *r = req_of(req);

    if (!r->c || r->held == held)
        return;
    r->held = held;
    if (r->c->running)
        return;
    if (held)
        hconn_settle(r->c);
    else
        cm_task_post(r->c->h->loop, &r->c->task);
}

/* ---- answers made here */

void httpd_put_error(struct hconn *c, const struct cm_err *err)
{
    struct req *r = c->req;
    char made[CM_ID_CAP];
    struct cm_header headers[3] = {{CM_S("Content-Type"), CM_S("application/json")}};
    char after[16];
    struct cm_buf body = {0};
    struct cm_buf *out = &c->conn.out;
    size_t before = out->n;
    bool mute = r && r->pub.head;

    if (c->h->handler.describe_error)
        c->h->handler.describe_error(c->h->handler.arg, err, &body);
    headers[1].name = CM_S("x-request-id");
    if (r && r->pub.id.n > 0) {
        headers[1].value = r->pub.id;
    } else {
        cm_id_make(made, "req_", cm_unix_ms());
        headers[1].value = cm_str_of(made);
    }
    snprintf(after, sizeof(after), "%d", err->retry_after_s);
    headers[2] = (struct cm_header){CM_S("Retry-After"), cm_str_of(after)};
    put_head(c->h, out,
             &(struct head){.status = cm_err_status(err),
                            .headers = headers,
                            .n_headers = err->retry_after_s > 0 ? 3 : 2,
                            .length = LENGTH_KNOWN,
                            .content_length = body.n});
    if (r)
        r->pub.bytes_out += out->n - before + (mute ? 0 : body.n);
    hconn_send(c, mute ? CM_STR_NONE : cm_buf_str(&body));
    cm_buf_clear(&body);
}
