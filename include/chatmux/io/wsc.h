/* WebSocket client on libcurl: messages out, whole messages in. Loop thread only; the rules of io/httpc hold here too. */
#ifndef CHATMUX_IO_WSC_H
#define CHATMUX_IO_WSC_H

#include "chatmux/io/httpc.h"

struct cm_ws;

struct cm_ws_cb {
    void (*on_open)(void *arg);
    void (*on_message)(void *arg, struct cm_str message,
                       bool binary); /* whole, at most max_message bytes; text is valid UTF-8 */
    /* Once, last. err NULL: the peer closed with `code` (1005 when it gave none) and `reason`. Otherwise
     * - the handshake was refused: err->msg names the status, `code` is the status;
     * - nothing was opened: the class as in io/httpc, CM_ERR_TIMEOUT when the whole handshake took longer than connect_timeout_ms; `code` is 1006;
     * - CM_ERR_CUT: the connection broke (1006), or the peer did not keep to the protocol (1002), to UTF-8 (1007), to max_message (1009). */
    void (*on_end)(void *arg, int code, struct cm_str reason, const struct cm_err *err);
    /* The answer to the handshake, whatever it is; before on_open or on_end. May be NULL, as what follows. */
    void (*on_head)(void *arg, int status, const struct cm_header *headers, size_t n);
    /* What waits fell below CM_WS_LOW bytes after cm_ws_send() had said more than CM_WS_HIGH. Never from within a call. */
    void (*on_drain)(void *arg);
    void (*on_pong)(void *arg);
};
#define CM_WS_HIGH (128 * 1024)
#define CM_WS_LOW (32 * 1024)

/* req->url is ws:// or wss://; method and body are ignored; a WebSocket has a connection of its own. Slices are borrowed until cm_ws_close(). */
struct cm_ws *cm_ws_open(struct cm_httpc *hc, const struct cm_xfer_req *req, size_t max_message,
                         const struct cm_ws_cb *cb, void *arg);
/* Copied; queued without a bound of its own: returns the bytes that wait for the socket now, with what it takes to hold them. No effect after on_end or cm_ws_say_close(). */
size_t cm_ws_send(struct cm_ws *ws, struct cm_str message, bool binary);
/* Answered by on_pong; no effect before the connection is open. */
void cm_ws_ping(struct cm_ws *ws);
/* The close frame, once. What the peer still says comes, and at last on_end with its answer, for which the caller keeps the clock. */
void cm_ws_say_close(struct cm_ws *ws, int code, struct cm_str reason);
/* Paused: no on_message, and no on_end of an open connection, from the return on; what the peer sends stays in the socket, pings included. */
void cm_ws_pause(struct cm_ws *ws);
void cm_ws_resume(struct cm_ws *ws);
/* Of the handshake. */
void cm_ws_info(const struct cm_ws *ws, struct cm_xfer_info *out);
/* Final. When the connection is open: what is queued and a close frame (1000, unless it was said before) are still sent, and the connection ends with the peer's answer, or after
 * two seconds. cm_httpc_close() does not wait for that. NULL is fine. */
void cm_ws_close(struct cm_ws *ws);

#endif
