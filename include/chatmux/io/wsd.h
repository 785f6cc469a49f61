/* WebSocket server: an upgraded request of io/httpd as messages (RFC 6455; no extensions). Loop thread only.
 *
 * Frames are read as they come, messages handed over whole, pings answered. A client that breaks the protocol is told by a close code: 1002, 1007 (text
 * that is not UTF-8), 1009 (a message above max_message). */
#ifndef CHATMUX_IO_WSD_H
#define CHATMUX_IO_WSD_H

#include "chatmux/io/httpd.h"

struct cm_wsd;

struct cm_wsd_cb { /* each may call anything below, cm_wsd_close() included */
    /* Whole, at most max_message bytes; text is valid UTF-8. The slice is valid until the return. */
    void (*on_message)(void *arg, struct cm_str message, bool binary);
    /* Once: the client has closed with `code` (1005 when it gave none), or broken the protocol (err, CM_ERR_BAD_REQUEST or CM_ERR_TOO_LARGE; `code` is what
     * it is to be told). Nothing follows; the owner answers with cm_wsd_close(). */
    void (*on_close)(void *arg, int code, struct cm_str reason, const struct cm_err *err);
};

/* What the request lacks of an upgrade to WebSocket. -1: *err is CM_ERR_BAD_REQUEST with http_status 426 where another try could do (no upgrade was asked
 * for, another version of the protocol; the answer then names "upgrade" and "sec-websocket-version": CM_WSD_VERSION), else 400. */
int cm_wsd_check(const struct cm_req *req, struct cm_err *err);
#define CM_WSD_VERSION "13"
/* Whether the client offers this subprotocol. */
bool cm_wsd_offers(const struct cm_req *req, struct cm_str protocol);

/* Answers 101; cm_wsd_check() was 0. `headers` besides those of the handshake; protocol "" = none is selected. The request stays the caller's: its on_gone,
 * after which cm_wsd_free() is due, its on_drain, cm_resp_queued(). Owned by the caller until cm_wsd_close() or cm_wsd_free(). */
struct cm_wsd *cm_wsd_open(struct cm_req *req, const struct cm_header *headers, size_t n,
                           struct cm_str protocol, size_t max_message, const struct cm_wsd_cb *cb,
                           void *arg);
/* Queued until cm_resp_flush(); returns the bytes now queued on the connection. */
size_t cm_wsd_send(struct cm_wsd *w, struct cm_str message, bool binary);
void cm_wsd_ping(struct cm_wsd *w); /* sent at once */
/* No on_message, and no on_close, from the return on; the client's frames stay in its socket. */
void cm_wsd_hold(struct cm_wsd *w, bool held);
/* Sends a close frame (empty when the code must not stand in one) and ends the request, which is not valid afterwards. NULL is fine. */
void cm_wsd_close(struct cm_wsd *w, int code, struct cm_str reason);
/* The request is gone. NULL is fine. */
void cm_wsd_free(struct cm_wsd *w);

#endif
