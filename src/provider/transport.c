/* Runs reach the world through real transfers. */
#include "chatmux/provider/run.h"

static struct cm_xfer *httpc_open(void *arg, const struct cm_xfer_req *req,
                                  const struct cm_xfer_cb *cb, void *cb_arg)
{
    return cm_xfer_open(arg, req, cb, cb_arg);
}

static void httpc_pause(void *arg, struct cm_xfer *x)
{
    (void)arg;
    cm_xfer_pause(x);
}

static void httpc_resume(void *arg, struct cm_xfer *x)
{
    (void)arg;
    cm_xfer_resume(x);
}

static void httpc_close(void *arg, struct cm_xfer *x)
{
    (void)arg;
    cm_xfer_close(x);
}

static void httpc_info(void *arg, const struct cm_xfer *x, struct cm_xfer_info *out)
{
    (void)arg;
    cm_xfer_info(x, out);
}

static struct cm_ws *wsc_open(void *arg, const struct cm_xfer_req *req, size_t max_message,
                              const struct cm_ws_cb *cb, void *cb_arg)
{
    return cm_ws_open(arg, req, max_message, cb, cb_arg);
}

static size_t wsc_send(void *arg, struct cm_ws *ws, struct cm_str message, bool binary)
{
    (void)arg;
    return cm_ws_send(ws, message, binary);
}

static void wsc_ping(void *arg, struct cm_ws *ws)
{
    (void)arg;
    cm_ws_ping(ws);
}

static void wsc_say_close(void *arg, struct cm_ws *ws, int code, struct cm_str reason)
{
    (void)arg;
    cm_ws_say_close(ws, code, reason);
}

static void wsc_pause(void *arg, struct cm_ws *ws)
{
    (void)arg;
    cm_ws_pause(ws);
}

static void wsc_resume(void *arg, struct cm_ws *ws)
{
    (void)arg;
    cm_ws_resume(ws);
}

static void wsc_close(void *arg, struct cm_ws *ws)
{
    (void)arg;
    cm_ws_close(ws);
}

static void wsc_info(void *arg, const struct cm_ws *ws, struct cm_xfer_info *out)
{
    (void)arg;
    cm_ws_info(ws, out);
}

struct cm_transport cm_transport_httpc(struct cm_httpc *hc)
{
    return (struct cm_transport){.open = httpc_open,
                                 .pause = httpc_pause,
                                 .resume = httpc_resume,
                                 .close = httpc_close,
                                 .info = httpc_info,
                                 .ws_open = wsc_open,
                                 .ws_send = wsc_send,
                                 .ws_ping = wsc_ping,
                                 .ws_say_close = wsc_say_close,
                                 .ws_pause = wsc_pause,
                                 .ws_resume = wsc_resume,
                                 .ws_close = wsc_close,
                                 .ws_info = wsc_info,
                                 .arg = hc};
}
