/* WebSocket client on libcurl: messages out, whole messages in. Loop thread only; the rules of io/httpc hold here too. */
#ifndef CHATMUX_IO_WSC_H
#define CHATMUX_IO_WSC_H

#include "chatmux/io/httpc.h"

struct cm_ws;

struct cm_ws_cb {
    void (*on_open)(void *arg);
    void (*on_message)(void *arg, struct cm_str message, bool binary); /* whole, at most max_message bytes */
    /* Once, last. err NULL: closed with `code` (1005 when none was given). Otherwise the handshake was refused (err->msg names the status), or the
     * connection broke (CM_ERR_CUT). */
    void (*on_end)(void *arg, int code, const struct cm_err *err);
};

/* req->url is ws:// or wss://; method and body are ignored. */
struct cm_ws *cm_ws_open(struct cm_httpc *hc, const struct cm_xfer_req *req, size_t max_message,
                         const struct cm_ws_cb *cb, void *arg);
void cm_ws_send(struct cm_ws *ws, struct cm_str message, bool binary); /* copied; queued without a bound: the caller's messages are few */
void cm_ws_pause(struct cm_ws *ws);
void cm_ws_resume(struct cm_ws *ws);
void cm_ws_close(struct cm_ws *ws); /* final; sends a close frame (1000) when the connection is open; NULL is fine */

#endif
