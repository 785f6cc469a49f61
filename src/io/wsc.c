/* WebSockets of the HTTP client.
 *
 * libcurl connects, shakes hands, and frames what we send; what comes is raw bytes for codec/ws, because libcurl (8.14) forgets where frames end while a
 * transfer is paused, and answers a ping in the middle of a frame of ours that has not gone out.
 *
 * Happy path: cm_ws_open -> a transfer of io/httpc whose head is 101 -> on_open -> its body is frames -> on_message … -> the peer's close frame is answered
 * -> on_end -> cm_ws_close. An owner who closes first is forgotten at once; the socket then lives in hc->farewells until the peer has answered.
 * Failures: another status, a wrong answer to our key, the handshake's deadline, a broken connection, a peer who breaks the protocol (told by a close code).
 * What does not go into the socket at once waits until it is writable: libcurl watches for its own wishes only, so a duplicate of the descriptor is watched
 * here while something waits. */
#include "chatmux/io/wsc.h"

#include "httpc_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/rand.h"
#include "chatmux/codec/ws.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#define FAREWELL_MS 2000
#define PONGS_HELD                                                                                 \
    16 /* more unsent ones: further pings of a peer that does not read stay unanswered */

/* A frame in ws->queue. */
struct outgoing {
    struct cm_list link;
    unsigned flags; /* CURLWS_… */
    size_t n, sent;
    char data[];
};

/* Lives while something waits for the socket. */
struct writable {
    uv_poll_t poll;
    int fd;           /* owned; a duplicate */
    struct cm_ws *ws; /* NULL while it closes */
};

struct cm_ws {
    struct cm_httpc *hc;       /* not owned */
    const struct cm_ws_cb *cb; /* NULL once the end was told, or the owner has closed */
    void *arg;
    struct cm_xfer *x;         /* owned */
    struct cm_header *headers; /* owned; the caller's and our key */
    char *proxy;               /* owned: a farewell outlives what the caller lent; NULL = none */
    char peer[96];             /* host and port, for messages */
    char key[28], answer[32];  /* of the handshake: ours and what must come back */
    struct cm_wsf_reader reader;
    struct cm_buf
        rest; /* came and was not read when the owner paused; the transfer is paused as long as there is something */
    struct cm_list queue;      /* struct outgoing, owned; the first one may have gone out in part */
    size_t queued;             /* bytes in it that have not gone out, and those that hold them */
    unsigned pongs;            /* in it */
    struct writable *writable; /* NULL while nothing waits for the socket */
    struct cm_deadline deadline; /* of the handshake; later of the farewell */
    struct cm_task again;        /* goes on with `rest`, or tells that sending failed */
    struct cm_list link;         /* in hc->farewells */
    int status;                  /* of the answer to the handshake; 0 = none yet */
    unsigned busy;               /* depth of our callbacks: above 0 the memory stays */
    bool open, paused;
    bool high; /* cm_ws_send() has said more than CM_WS_HIGH: on_drain is owed */
    bool close_sent, close_came;
    bool send_failed;
    bool over; /* to be freed when not busy */
};

/* ---- sending */

static void on_writable_closed(uv_handle_t *handle)
{
    struct writable *w = handle->data;

    close(w->fd);
    free(w);
}

static void writable_stop(struct cm_ws *ws)
{
    if (!ws->writable)
        return;
    ws->writable->ws = NULL;
    uv_close((uv_handle_t *)&ws->writable->poll, on_writable_closed);
    ws->writable = NULL;
}

static void ws_flush(struct cm_ws *ws);
static void ws_leave(struct cm_ws *ws);

static void on_writable(uv_poll_t *poll, int status, int events)
{
    struct writable *w = poll->data;
    struct cm_ws *ws = w->ws;

    (void)status, (void)events; /* an error shows when we write */
    if (!ws)
        return;
    ws->busy++;
    ws_flush(ws);
    if (ws->high && ws->queued < CM_WS_LOW) {
        ws->high = false;
        if (ws->cb && ws->cb->on_drain)
            ws->cb->on_drain(ws->arg);
    }
    ws_leave(ws);
}

static int writable_start(struct cm_ws *ws)
{
    struct writable *w;
    int fd;

    if (ws->writable)
        return 0;
    fd = fcntl(ws->x->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return -1; /* UNTESTED: no descriptors left */
    w = CM_NEW(struct writable);
    w->fd = fd;
    w->ws = ws;
    if (uv_poll_init(cm_loop_uv(ws->hc->loop), &w->poll, fd) != 0) {
        close(fd); /* UNTESTED: epoll refuses only what is no socket */
        free(w);
        return -1;
    }
    w->poll.data = w;
    ws->writable = w;
    return uv_poll_start(&w->poll, UV_WRITABLE, on_writable);
}

/* As much as the socket takes; a failure is told on a later turn. libcurl is out of raw mode for the time of the call: raw bytes it would only send for
 * CONNECT_ONLY handles, frames of its own making it sends without blocking. One frame at a time, so that none gets into another. */
static void ws_flush(struct cm_ws *ws)
{
    if (!ws->open)
        return;
    while (!ws->send_failed && ws->x->easy && !cm_list_empty(&ws->queue)) {
        struct outgoing *m = CM_LIST_ITEM(ws->queue.next, struct outgoing, link);
        CURL *curl = ws->x->easy->curl;
        size_t did = 0;
        CURLcode rc;

        ws->hc->in_curl++;
        curl_easy_setopt(curl, CURLOPT_WS_OPTIONS, 0L);
        rc = curl_ws_send(curl, m->data + m->sent, m->n - m->sent, &did, 0, m->flags);
        curl_easy_setopt(curl, CURLOPT_WS_OPTIONS, CURLWS_RAW_MODE);
        ws->hc->in_curl--;
        m->sent += did;
        ws->queued -= did;
        if (rc == CURLE_OK && m->sent == m->n) {
            cm_list_remove(&m->link);
            ws->pongs -= m->flags == CURLWS_PONG;
            ws->queued -= sizeof(*m);
            free(m);
        } else if ((rc != CURLE_OK && rc != CURLE_AGAIN) || writable_start(ws) < 0) {
            ws->send_failed = true;
            cm_task_post(ws->hc->loop, &ws->again);
        } else {
            return;
        }
    }
    writable_stop(ws);
}

static void send_frame(struct cm_ws *ws, unsigned flags, struct cm_str payload)
{
    struct outgoing *m = cm_alloc(sizeof(*m) + payload.n);

    m->flags = flags;
    m->n = payload.n;
    m->sent = 0;
    cm_list_init(&m->link);
    if (payload.n > 0)
        memcpy(m->data, payload.p, payload.n);
    if (flags == CURLWS_PONG && !cm_list_empty(&ws->queue))
        cm_list_push(ws->queue.next->next, &m->link); /* second: the first may be under way */
    else
        cm_list_push(&ws->queue, &m->link);
    ws->pongs += flags == CURLWS_PONG;
    ws->queued += sizeof(*m) + payload.n; /* empty ones would cost nothing otherwise */
    if (!ws->writable)
        ws_flush(ws);
}

static void send_close(struct cm_ws *ws, int code, struct cm_str reason)
{
    char payload[CM_WSF_CONTROL_MAX];

    if (ws->close_sent)
        return;
    ws->close_sent = true;
    send_frame(ws, CURLWS_CLOSE, cm_str(payload, cm_wsf_close_payload(payload, code, reason)));
}

/* ---- the end */

static void ws_free(struct cm_ws *ws)
{
    struct cm_list *link;

    while ((link = cm_list_pop(&ws->queue)))
        free(CM_LIST_ITEM(link, struct outgoing, link));
    writable_stop(ws);
    cm_list_remove(&ws->link);
    cm_task_cancel(&ws->again);
    cm_deadline_clear(ws->hc->loop, &ws->deadline);
    cm_xfer_close(ws->x);
    cm_wsf_reader_clear(&ws->reader);
    cm_buf_clear(&ws->rest);
    free(ws->headers);
    free(ws->proxy);
    free(ws);
}

static void ws_leave(struct cm_ws *ws)
{
    if (--ws->busy == 0 && ws->over)
        ws_free(ws);
}

static bool is_farewell(const struct cm_ws *ws)
{
    return !cm_list_empty(&ws->link);
}

/* Nothing more will come or go: the owner is told, or there is none any more. Callers are busy with `ws`. */
static void ws_end(struct cm_ws *ws, int code, struct cm_str reason, const struct cm_err *err)
{
    const struct cm_ws_cb *cb = ws->cb;

    ws->cb = NULL;
    if (is_farewell(ws))
        ws->over = true;
    else
        cm_deadline_clear(ws->hc->loop, &ws->deadline);
    if (cb)
        cb->on_end(ws->arg, code, reason, err);
}

/* ---- receiving */

static void take_message(struct cm_ws *ws, const struct cm_wsf_message *m)
{
    switch (m->op) {
    case CM_WSF_TEXT:
    case CM_WSF_BINARY:
        if (ws->cb)
            ws->cb->on_message(ws->arg, m->data, m->op == CM_WSF_BINARY);
        return;
    case CM_WSF_PING:
        if (!ws->close_sent && ws->pongs < PONGS_HELD)
            send_frame(ws, CURLWS_PONG, m->data);
        return;
    case CM_WSF_PONG:
        if (ws->cb && ws->cb->on_pong)
            ws->cb->on_pong(ws->arg);
        return;
    case CM_WSF_CLOSE:
        ws->close_came = true;
        send_close(ws, m->close_code, CM_STR_NONE);
        ws_end(ws, m->close_code, m->data, NULL);
        return;
    }
}

static bool reads(const struct cm_ws *ws)
{
    return !ws->over && !ws->paused && !ws->close_came && (ws->cb || is_farewell(ws));
}

/* Returns with *in used up, or with what is left when the owner has paused. */
static void read_frames(struct cm_ws *ws, struct cm_str *in)
{
    struct cm_wsf_message m = {.op = CM_WSF_TEXT};
    struct cm_err err = {0};
    int code = 0;

    while (in->n > 0 && reads(ws)) {
        switch (cm_wsf_read(&ws->reader, in, &m, &code, &err)) {
        case 1:
            take_message(ws, &m);
            cm_wsf_let_go(&ws->reader);
            break;
        case -1:
            send_close(ws, code, CM_STR_NONE);
            ws_end(ws, code, CM_STR_NONE, &err);
            ws->close_came = true; /* what follows cannot be understood */
            break;
        default:
            break;
        }
    }
    if (!ws->paused)
        *in = CM_STR_NONE;
}

static void on_data(void *arg, struct cm_str piece)
{
    struct cm_ws *ws = arg;

    ws->busy++;
    read_frames(ws, &piece);
    cm_buf_append(&ws->rest, piece);
    ws_leave(ws);
}

static void on_again(void *arg)
{
    struct cm_ws *ws = arg;
    struct cm_buf rest = ws->rest;
    struct cm_str in = cm_buf_str(&rest);
    struct cm_err err = {0};

    ws->busy++;
    if (!ws->paused) {
        memset(&ws->rest, 0, sizeof(ws->rest));
        read_frames(ws, &in);
        cm_buf_append(&ws->rest, in);
        cm_buf_clear(&rest);
        if (!ws->paused)
            cm_xfer_resume(ws->x);
    }
    if (ws->send_failed && !ws->paused && (ws->cb || is_farewell(ws))) {
        cm_fail(&err, CM_ERR_CUT, "%s: the connection broke while sending", ws->peer);
        ws_end(ws, CM_WSF_BROKEN, CM_STR_NONE, &err);
    }
    ws_leave(ws);
}

static void on_head(void *arg, int status, const struct cm_header *headers, size_t n)
{
    struct cm_ws *ws = arg;
    struct cm_str answer = cm_header_find(headers, n, CM_S("sec-websocket-accept"));
    struct cm_str extensions = cm_header_find(headers, n, CM_S("sec-websocket-extensions"));
    struct cm_err err = {0};

    ws->status = status;
    ws->busy++;
    if (ws->cb && ws->cb->on_head)
        ws->cb->on_head(ws->arg, status, headers, n);
    if (status != 101 || !ws->cb) {
        ; /* libcurl ends a refused transfer by itself */
    } else if (!cm_str_eq(answer, cm_str_of(ws->answer)) || extensions.n > 0) {
        cm_fail(&err, CM_ERR_UPSTREAM_DOWN, "%s: the answer to the WebSocket handshake is wrong",
                ws->peer);
        ws_end(ws, CM_WSF_BROKEN, CM_STR_NONE, &err);
    } else {
        cm_deadline_clear(ws->hc->loop, &ws->deadline);
        ws->open = true;
        ws_flush(ws);
        if (ws->cb)
            ws->cb->on_open(ws->arg);
    }
    ws_leave(ws);
}

static void on_xfer_end(void *arg, const struct cm_err *err)
{
    struct cm_ws *ws = arg;
    struct cm_err why = {0};
    int code = CM_WSF_BROKEN;

    ws->busy++;
    writable_stop(ws);
    if (ws->status > 0 && ws->status != 101) {
        cm_fail(&why, CM_ERR_UPSTREAM_DOWN, "%s refused the WebSocket with status %d", ws->peer,
                ws->status);
        code = ws->status;
    } else if (err) {
        why = *err;
    } else {
        cm_fail(&why, CM_ERR_CUT, "%s: the connection was closed without a close frame", ws->peer);
    }
    ws_end(ws, code, CM_STR_NONE, &why);
    ws_leave(ws);
}

static const struct cm_xfer_cb xfer_cb = {on_head, on_data, on_xfer_end};

/* ---- for the owner */

static void on_deadline(void *arg)
{
    struct cm_ws *ws = arg;
    struct cm_err err = {0};

    ws->busy++;
    cm_fail(&err, CM_ERR_TIMEOUT, "%s: no WebSocket within %lld ms", ws->peer,
            (long long)ws->x->req.connect_timeout_ms);
    ws_end(ws, CM_WSF_BROKEN, CM_STR_NONE, &err);
    ws_leave(ws);
}

/* RFC 6455 4.1 and 4.2.2: 16 random bytes, and what a server makes of them. libcurl (8.14) sends a key of its own, but looks at no answer. */
static void make_key(struct cm_ws *ws)
{
    unsigned char bytes[16], digest[EVP_MAX_MD_SIZE];
    struct cm_buf text = {0};
    size_t n = 0;

    cm_rand_bytes(bytes, sizeof(bytes));
    cm_base64(&text, cm_str((const char *)bytes, sizeof(bytes)));
    (void)cm_str_copy(ws->key, sizeof(ws->key), cm_buf_str(&text));
    cm_buf_append(&text, CM_S("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    CM_ASSERT(EVP_Q_digest(NULL, "SHA1", NULL, text.p, text.n, digest, &n) == 1);
    cm_buf_reset(&text);
    cm_base64(&text, cm_str((const char *)digest, n));
    (void)cm_str_copy(ws->answer, sizeof(ws->answer), cm_buf_str(&text));
    cm_buf_clear(&text);
}

struct cm_ws *cm_ws_open(struct cm_httpc *hc, const struct cm_xfer_req *req, size_t max_message,
                         const struct cm_ws_cb *cb, void *arg)
{
    struct cm_ws *ws = CM_NEW(struct cm_ws);
    struct cm_xfer_req own = *req;
    struct hc_endpoint to = {0};

    ws->hc = hc;
    ws->cb = cb;
    ws->arg = arg;
    cm_list_init(&ws->link);
    cm_list_init(&ws->queue);
    cm_task_init(&ws->again, on_again, ws);
    cm_deadline_init(&ws->deadline, on_deadline, ws);
    cm_wsf_reader_init(&ws->reader, max_message, false);
    make_key(ws);
    ws->headers = cm_calloc(req->n_headers + 1, sizeof(*ws->headers));
    if (req->n_headers > 0)
        memcpy(ws->headers, req->headers, req->n_headers * sizeof(*ws->headers));
    ws->headers[req->n_headers] = (struct cm_header){CM_S("Sec-WebSocket-Key"), cm_str_of(ws->key)};
    ws->proxy = req->proxy.n > 0 ? cm_str_dup(req->proxy) : NULL;
    own.method = CM_S("GET");
    own.body = CM_STR_NONE;
    own.headers = ws->headers;
    own.n_headers = req->n_headers + 1;
    own.proxy = cm_str_of(ws->proxy);
    if (req->connect_timeout_ms > 0)
        cm_deadline_set(hc->loop, &ws->deadline,
                        cm_loop_now_ms(hc->loop) + (uint64_t)req->connect_timeout_ms);
    if (hc_endpoint_parse(&to, req->url, HC_URL_WS, NULL) == 0)
        (void)snprintf(ws->peer, sizeof(ws->peer), CM_PRI ":%u", CM_ARG(cm_str_head(to.host, 80)),
                       to.port);
    free(to.owned);
    ws->x = hc_xfer_open(hc, &own, true, &xfer_cb, ws);
    return ws;
}

size_t cm_ws_send(struct cm_ws *ws, struct cm_str message, bool binary)
{
    if (ws->cb && !ws->close_sent)
        send_frame(ws, binary ? CURLWS_BINARY : CURLWS_TEXT, message);
    ws->high |= ws->queued > CM_WS_HIGH;
    return ws->queued;
}

void cm_ws_ping(struct cm_ws *ws)
{
    if (ws->cb && ws->open && !ws->close_sent)
        send_frame(ws, CURLWS_PING, CM_STR_NONE);
}

void cm_ws_say_close(struct cm_ws *ws, int code, struct cm_str reason)
{
    if (ws->cb && ws->open)
        send_close(ws, code, reason);
}

void cm_ws_pause(struct cm_ws *ws)
{
    ws->paused = true;
    cm_xfer_pause(ws->x);
}

void cm_ws_resume(struct cm_ws *ws)
{
    if (!ws->paused)
        return;
    ws->paused = false;
    cm_task_post(ws->hc->loop, &ws->again); /* what was kept first, then the transfer */
}

void cm_ws_info(const struct cm_ws *ws, struct cm_xfer_info *out)
{
    cm_xfer_info(ws->x, out);
}

void cm_ws_close(struct cm_ws *ws)
{
    if (!ws)
        return;
    ws->busy++;
    ws->cb = NULL;
    if (ws->open && ws->x->easy && !ws->send_failed) {
        cm_list_push(&ws->hc->farewells, &ws->link);
        cm_deadline_set(ws->hc->loop, &ws->deadline, cm_loop_now_ms(ws->hc->loop) + FAREWELL_MS);
        send_close(ws, CM_WSF_NORMAL, CM_STR_NONE);
        cm_ws_resume(ws);
    } else {
        ws->over = true;
    }
    if (ws->close_came && !ws->writable)
        ws->over = true; /* both have said it */
    ws_leave(ws);
}

void hc_farewells_end(struct cm_httpc *hc)
{
    CM_LIST_EACH(&hc->farewells, link)
    ws_free(CM_LIST_ITEM(link, struct cm_ws, link));
}
