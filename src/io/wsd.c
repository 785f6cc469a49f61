/* WebSocket server on upgraded requests.
 *
 * Happy path: cm_wsd_check -> cm_wsd_open (101) -> bytes -> codec/ws -> on_message … -> the client's close frame -> on_close -> cm_wsd_close: our close
 * frame, then the connection's end in the way of io/httpd (what is queued goes out, two seconds for what still comes).
 * Failures: the client breaks the protocol -> on_close with an error; it leaves -> on_gone of the request -> cm_wsd_free. */
#include "chatmux/io/wsd.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/ws.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct cm_wsd {
    struct cm_req *req; /* the caller's */
    const struct cm_wsd_cb *cb;
    void *arg;
    struct cm_upgrade up;
    struct cm_wsf_reader reader;
    bool held, over; /* over: nothing of the client's is read any more */
    bool reading;    /* on_bytes() is on the stack: the memory stays */
    bool freed;      /* and goes with its return */
};

#define WS_HEADERS_MAX 64

/* ---- the handshake */

/* "keep-alive, Upgrade": headers that hold lists may come more than once. */
static bool lists(const struct cm_req *req, struct cm_str name, struct cm_str word, bool nocase)
{
    for (size_t i = 0; i < req->n_headers; i++) {
        struct cm_str rest = req->headers[i].value;

        if (!cm_str_eq_nocase(req->headers[i].name, name))
            continue;
        while (rest.n > 0) {
            struct cm_str item = cm_str_trim(cm_str_cut(&rest, ','));

            if (nocase ? cm_str_eq_nocase(item, word) : cm_str_eq(item, word))
                return true;
        }
    }
    return false;
}

bool cm_wsd_offers(const struct cm_req *req, struct cm_str protocol)
{
    return lists(req, CM_S("sec-websocket-protocol"), protocol, false);
}

/* 16 bytes in base64. */
static bool key_ok(struct cm_str key)
{
    struct cm_buf bytes = {0};
    bool ok = key.n == 24 && cm_base64_decode(&bytes, key) == 0 && bytes.n == 16;

    cm_buf_clear(&bytes);
    return ok;
}

static int try_again(struct cm_err *err)
{
    err->http_status = 426;
    return -1;
}

int cm_wsd_check(const struct cm_req *req, struct cm_err *err)
{
    struct cm_str version = cm_req_header(req, CM_S("sec-websocket-version"));

    if (!cm_str_eq(req->method, CM_S("GET")) || req->http_minor < 1 || req->has_body)
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       "a WebSocket begins with GET, HTTP/1.1 and no body");
    if (!lists(req, CM_S("upgrade"), CM_S("websocket"), true) ||
        !lists(req, CM_S("connection"), CM_S("upgrade"), true)) {
        cm_fail(err, CM_ERR_BAD_REQUEST,
                "this path speaks WebSocket: ask for it with \"Connection: Upgrade\" and "
                "\"Upgrade: websocket\"");
        return try_again(err);
    }
    if (!cm_str_eq(version, CM_S(CM_WSD_VERSION))) {
        cm_fail(err, CM_ERR_BAD_REQUEST, "Sec-WebSocket-Version must be " CM_WSD_VERSION);
        return try_again(err);
    }
    if (!key_ok(cm_req_header(req, CM_S("sec-websocket-key"))))
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       "Sec-WebSocket-Key must be 16 bytes in base64 (RFC 6455 4.1)");
    return 0;
}

/* RFC 6455 4.2.2: what a server makes of the client's key. */
static struct cm_str accept_of(struct cm_req *req)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct cm_buf text = {0};
    struct cm_str answer;
    size_t n = 0;

    cm_buf_append(&text, cm_req_header(req, CM_S("sec-websocket-key")));
    cm_buf_append(&text, CM_S("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    CM_ASSERT(EVP_Q_digest(NULL, "SHA1", NULL, text.p, text.n, digest, &n) == 1);
    cm_buf_reset(&text);
    cm_base64(&text, cm_str((const char *)digest, n));
    answer = cm_arena_str(&req->arena, cm_buf_str(&text));
    cm_buf_clear(&text);
    return answer;
}

/* ---- frames in */

static void put_frame(struct cm_wsd *w, enum cm_wsf_op op, struct cm_str payload)
{
    char head[CM_WSF_HEAD_MAX];

    cm_resp_write(w->req, cm_str(head, cm_wsf_head(head, op, payload.n)));
    cm_resp_write(w->req, payload);
}

static void take_message(struct cm_wsd *w, const struct cm_wsf_message *m)
{
    switch (m->op) {
    case CM_WSF_TEXT:
    case CM_WSF_BINARY:
        w->cb->on_message(w->arg, m->data, m->op == CM_WSF_BINARY);
        return;
    case CM_WSF_PING:
        if (cm_resp_queued(w->req) > CM_HTTPD_HIGH)
            return; /* who does not read needs no more to read */
        put_frame(w, CM_WSF_PONG, m->data);
        cm_resp_flush(w->req);
        return;
    case CM_WSF_PONG:
        return;
    case CM_WSF_CLOSE:
        w->over = true;
        w->cb->on_close(w->arg, m->close_code, m->data, NULL);
        return;
    }
}

static void broken(struct cm_wsd *w, int code, struct cm_err *err)
{
    w->over = true;
    err->cls = code == CM_WSF_TOO_BIG ? CM_ERR_TOO_LARGE : CM_ERR_BAD_REQUEST;
    w->cb->on_close(w->arg, code, CM_STR_NONE, err);
}

static void wsd_free(struct cm_wsd *w)
{
    cm_wsf_reader_clear(&w->reader);
    free(w);
}

static size_t on_bytes(void *arg, struct cm_str bytes)
{
    struct cm_wsd *w = arg;
    struct cm_str in = bytes;
    struct cm_wsf_message m = {.op = CM_WSF_TEXT};
    struct cm_err err = {0};
    size_t used;
    int code = 0;

    w->reading = true;
    while (!w->held && !w->over && in.n > 0) {
        int rc = cm_wsf_read(&w->reader, &in, &m, &code, &err);

        if (rc > 0) {
            take_message(w, &m);
            cm_wsf_let_go(&w->reader);
        } else if (rc < 0) {
            broken(w, code, &err);
        }
    }
    w->reading = false;
    used = w->over ? bytes.n : bytes.n - in.n;
    if (w->freed)
        wsd_free(w);
    return used;
}

/* ---- for the owner */

struct cm_wsd *cm_wsd_open(struct cm_req *req, const struct cm_header *headers, size_t n,
                           struct cm_str protocol, size_t max_message, const struct cm_wsd_cb *cb,
                           void *arg)
{
    struct cm_header all[WS_HEADERS_MAX] = {
        {CM_S("Connection"), CM_S("Upgrade")},
        {CM_S("Upgrade"), CM_S("websocket")},
        {CM_S("Sec-WebSocket-Accept"), accept_of(req)},
    };
    size_t all_n = 3;
    struct cm_wsd *w = CM_NEW(struct cm_wsd);

    CM_ASSERT(n + 4 <= CM_COUNT(all));
    w->req = req;
    w->cb = cb;
    w->arg = arg;
    w->up = (struct cm_upgrade){.on_bytes = on_bytes, .arg = w};
    cm_wsf_reader_init(&w->reader, max_message, true);
    if (protocol.n > 0)
        all[all_n++] = (struct cm_header){CM_S("Sec-WebSocket-Protocol"), protocol};
    for (size_t i = 0; i < n; i++)
        all[all_n++] = headers[i];
    cm_resp_upgrade(req, all, all_n, &w->up);
    return w;
}

size_t cm_wsd_send(struct cm_wsd *w, struct cm_str message, bool binary)
{
    put_frame(w, binary ? CM_WSF_BINARY : CM_WSF_TEXT, message);
    return cm_resp_queued(w->req);
}

void cm_wsd_ping(struct cm_wsd *w)
{
    put_frame(w, CM_WSF_PING, CM_STR_NONE);
    cm_resp_flush(w->req);
}

void cm_wsd_hold(struct cm_wsd *w, bool held)
{
    if (w->over)
        return;
    w->held = held;
    cm_req_hold(w->req, held);
}

void cm_wsd_free(struct cm_wsd *w)
{
    if (!w)
        return;
    w->over = true;
    if (w->reading)
        w->freed = true;
    else
        wsd_free(w);
}

void cm_wsd_close(struct cm_wsd *w, int code, struct cm_str reason)
{
    struct cm_req *req;
    char payload[CM_WSF_CONTROL_MAX];

    if (!w)
        return;
    req = w->req;
    put_frame(w, CM_WSF_CLOSE, cm_str(payload, cm_wsf_close_payload(payload, code, reason)));
    cm_wsd_free(w);
    cm_resp_end(req);
}
