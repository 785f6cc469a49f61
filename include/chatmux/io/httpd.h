/* HTTP/1.1 server on llhttp: connections in, requests to a handler, responses and streams out. Loop thread only.
 *
 * A request is handed over when its head is complete; the handler answers now or later, once. It reads the body (whole, up to a limit) or
 * answers without it. Requests of one connection come one after the other: the next is parsed when the response of the one before has ended.
 * Framing errors, slow heads, slow bodies and oversized heads are answered here, in the words of `describe_error`: 400, 408, 413, 431 (also for a
 * request line that is too long), and the connection closes. A connection on which nothing comes for keepalive_timeout is closed without a word.
 *
 * A client that ends its side (EOF) while its request is open has left: on_gone. What had arrived complete before is answered all the same when
 * it was not begun yet. An upgrade that is asked for is ignored unless the handler grants it (cm_resp_upgrade()); CONNECT reaches the handler like any method and its connection closes after the answer.
 *
 * Lifetime: a `struct cm_req` is owned by its connection. It stays valid from on_request until cm_resp_end(), cm_resp_send() or
 * cm_resp_abort() returns, or until on_gone was called; after that the handler forgets it. */
#ifndef CHATMUX_IO_HTTPD_H
#define CHATMUX_IO_HTTPD_H

#include "chatmux/base/arena.h"
#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"
#include "chatmux/base/header.h"
#include "chatmux/io/loop.h"
#include "chatmux/io/tls.h"

struct cm_httpd;

struct cm_req {
    struct cm_str method;            /* "GET" */
    struct cm_str target;            /* as it came: path and query */
    struct cm_str path, query;       /* not decoded; query without "?" ("" = none) */
    const struct cm_header *headers; /* in order; values trimmed */
    size_t n_headers;
    struct cm_str peer;     /* client address without port; "unix" for a unix socket */
    bool head;              /* HEAD: no body goes out whatever the handler writes */
    bool has_body;          /* Content-Length above 0 or chunked */
    int64_t content_length; /* -1 = chunked or none */
    int http_minor; /* 1, or 0 for HTTP/1.0 (no chunked coding; streams end with the connection) */
    uint64_t began_us;            /* monotonic: first byte of the head */
    uint64_t bytes_in, bytes_out; /* body bytes read; all response bytes queued so far */
    struct cm_arena arena;        /* lives as long as the request */
    struct cm_str id; /* the handler's: x-request-id of an answer made here ("" = one is made) */
    void *user;       /* the handler's */
};

struct cm_req_cb {
    /* The body is complete (once, after cm_req_read(); the slice lives as long as the request). */
    void (*on_body)(void *arg, struct cm_req *req, struct cm_str body);
    /* The client left, or a write failed, or the body could not be read (too large, too slow, broken: then the answer has been sent here and `why`
     * is not NULL). Not called after the response has ended. `req` is not valid after the return. */
    void (*on_gone)(void *arg, struct cm_req *req, const struct cm_err *why);
    /* What was queued fell below CM_HTTPD_LOW bytes after cm_resp_write() had said more than CM_HTTPD_HIGH. Never from within a cm_resp call. */
    void (*on_drain)(void *arg, struct cm_req *req);
};
#define CM_HTTPD_HIGH (128 * 1024)
#define CM_HTTPD_LOW (32 * 1024)

struct cm_httpd_setup { /* copied; reloadable by cm_httpd_limits() */
    int64_t max_header_bytes, max_body_bytes;
    int64_t header_timeout_ms; /* from the first byte of a head to its last */
    int64_t
        body_timeout_ms; /* without a body byte, or with less than 4 KiB of an incomplete body; without the client taking the rest of an answer */
    int64_t keepalive_timeout_ms; /* between requests, and before the first */
    /* At the limit a connection that has been idle for a second is closed; when all are at work, a few more are answered with 503 and Retry-After,
     * before their body is read, and the rest waits with the kernel. */
    int64_t max_connections;
};
struct cm_httpd_handler {
    void (*on_request)(void *arg, struct cm_req *req);
    /* Body text of an answer made here (framing errors, 408, 413, 431, 503), e.g. an OpenAI error object; and its extra headers. */
    void (*describe_error)(void *arg, const struct cm_err *err, struct cm_buf *body);
    void *arg;
};

struct cm_httpd *cm_httpd_new(struct cm_loop *loop, const struct cm_httpd_setup *setup,
                              const struct cm_httpd_handler *handler);
void cm_httpd_limits(struct cm_httpd *h, const struct cm_httpd_setup *setup);

/* TCP connections from now on speak TLS with this certificate; those there are keep what they have. Takes the reference. NULL: plain HTTP. A handshake
 * that is not done within header_timeout is dropped; plain HTTP is answered with 400 and a line of text. */
void cm_httpd_tls(struct cm_httpd *h, struct cm_tls *tls);

/* "127.0.0.1:8080", "[::]:8080" and ":8080" (both families), "localhost:80" (blocks while the name is looked up), "unix:/path" (a stale socket file is
 * replaced; mode 0660; gone after close or drain), "systemd" (every socket that the service manager passed, sd_listen_fds(3)). CM_ERR_CONFIG tells address and reason. */
int cm_httpd_listen(struct cm_httpd *h, struct cm_str address, struct cm_err *err);
/* Port of the n-th address (0 for a unix socket): for "127.0.0.1:0". */
int cm_httpd_port(const struct cm_httpd *h, size_t n);

/* Stops accepting and closes idle connections (those that were busy half a second ago a little later, since a request may be on its way: it is served).
 * Answers in flight go on, with "Connection: close" where the head is not out yet. on_idle once, on a later turn, when no connection is left. */
void cm_httpd_drain(struct cm_httpd *h, void (*on_idle)(void *arg), void *arg);
size_t cm_httpd_connections(const struct cm_httpd *h);
/* Closes everything at once (on_gone for requests that are open). The memory goes after the last close callback. */
void cm_httpd_close(struct cm_httpd *h);

/* First header of that name, empty when absent. */
struct cm_str cm_req_header(const struct cm_req *req, struct cm_str name);

/* Who hears of this request from now on. Set it in on_request, before anything else. */
void cm_req_listen(struct cm_req *req, const struct cm_req_cb *cb, void *arg);
/* Collects the body; a body above max_bytes (or setup.max_body_bytes) ends in 413. Sends 100 Continue when the client waits for it. on_body comes
 * later, never from within this call or on_request, or not at all (on_gone). */
void cm_req_read(struct cm_req *req, size_t max_bytes);

/* The body's memory, from on_body on: the caller's from now, with cm_buf_clear(). */
struct cm_buf cm_req_take_body(struct cm_req *req);

/* The whole response. Content-Length, Date and Connection are added; `headers` must not hold them. A body that was not read yet is drained
 * (up to 256 KiB, else the connection closes). */
void cm_resp_send(struct cm_req *req, int status, const struct cm_header *headers, size_t n,
                  struct cm_str body);
/* A response in pieces: chunked for HTTP/1.1, until close for 1.0. */
void cm_resp_start(struct cm_req *req, int status, const struct cm_header *headers, size_t n);
/* Queues; returns the bytes now queued on the connection. Nothing is sent before cm_resp_flush(), so that what belongs together shares a packet. */
size_t cm_resp_write(struct cm_req *req, struct cm_str bytes);
void cm_resp_flush(struct cm_req *req);
size_t cm_resp_queued(const struct cm_req *req);
void cm_resp_end(struct cm_req *req);
/* Ends without the last chunk: what is queued still goes out, then the connection closes, and the client knows that something is missing. */
void cm_resp_abort(struct cm_req *req);
bool cm_resp_started(const struct cm_req *req);

/* Another protocol on this connection, from the 101 on. cm_resp_write() and its companions then carry its bytes as they are, with the same marks; cm_resp_end()
 * ends our side, and what the client still sends within two seconds is thrown away. on_gone and on_drain come as ever, and so does their arg; no clock of
 * the server runs. */
struct cm_upgrade { /* owned by the handler, who keeps it as long as the request */
    /* Bytes of the client, in order; returns how many it has taken. The rest comes again after cm_req_hold(req, false), with what follows. */
    size_t (*on_bytes)(void *arg, struct cm_str bytes);
    void *arg;
};
/* A request without a body, HTTP/1.1. `headers`: all of the 101 but Date. on_bytes comes on a later turn. */
void cm_resp_upgrade(struct cm_req *req, const struct cm_header *headers, size_t n,
                     const struct cm_upgrade *up);
/* Held: no on_bytes from the return on; what the client sends stays in its socket, but for about 64 KiB. A client that leaves is noticed when it has sent
 * no more than that, and what it has sent is lost then. */
void cm_req_hold(struct cm_req *req, bool held);

#endif
