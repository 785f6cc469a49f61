/* HTTP client: libcurl's multi interface on the loop. Loop thread only.
 *
 * A transfer reports head, body pieces and end to its owner, always from a later turn of the loop and always from a place where the owner may
 * open and close transfers, itself included. Names are resolved here (io/resolve), never inside libcurl. */
#ifndef CHATMUX_IO_HTTPC_H
#define CHATMUX_IO_HTTPC_H

#include "chatmux/base/err.h"
#include "chatmux/io/httpd.h"

struct cm_httpc;
struct cm_xfer;

struct cm_xfer_req {      /* slices are borrowed until cm_xfer_close() */
    struct cm_str method; /* "POST" */
    struct cm_str url;    /* http:// or https:// */
    /* Sent as given, in this order. Left out: Expect, and what frames the message (Content-Length, Transfer-Encoding). libcurl adds no Accept,
     * User-Agent or Content-Type of its own. A name or value with a line break or NUL ends the transfer with CM_ERR_BAD_REQUEST. */
    const struct cm_header *headers;
    size_t n_headers;
    struct cm_str body; /* sent when the method is not GET or HEAD, or when not empty */
    /* Transfers of the same isolation share connections, TLS sessions and nothing else with others. "" = the shared one of official APIs. Copied. */
    struct cm_str isolation;
    struct cm_str
        proxy; /* "" = go out directly, whatever the environment says; else http://, https:// or socks5h:// */
    struct cm_str ca_file; /* "" = the system's; a file is read once in the life of the client */
    int http_version;      /* enum cm_http_version */
    int64_t connect_timeout_ms; /* name, TCP, TLS, proxy together */
    bool
        public_only; /* refuse private, loopback … addresses after resolution, and any proxy (design, section 6) */
    size_t max_head_bytes;   /* 0 = 64 KiB */
    struct cm_str unix_path; /* "" = to the host of `url`; else over this unix socket */
    /* "" = the certificate is checked; else "sha256//BASE64" of the one public key that is accepted, for whatever name and by whomever its certificate was
     * issued: for a server whose certificate is known as a file. */
    struct cm_str pinned_key;
    bool
        unverified; /* any certificate is accepted: where an operator says so of a service of theirs */
};

struct cm_xfer_cb {
    /* Final status line and headers (1xx are skipped, redirects are not followed). Slices are valid until the return. */
    void (*on_head)(void *arg, int status, const struct cm_header *headers, size_t n);
    void (*on_data)(void *arg, struct cm_str piece);
    /* Once, last. err NULL: the message was complete by its own framing. CM_ERR_UPSTREAM_DOWN: nothing came; CM_ERR_CUT: broke off after the head;
     * CM_ERR_TIMEOUT: connect timeout; CM_ERR_BAD_REQUEST: refused here (header with a line break, address that is not public).
     * The owner closes the transfer, now or later. */
    void (*on_end)(void *arg, const struct cm_err *err);
};

struct cm_httpc *cm_httpc_new(struct cm_loop *loop);
void cm_httpc_close(struct cm_httpc *hc); /* after all transfers were closed; NULL is fine */

/* Never fails at once: what is wrong comes through on_end. Owned by the caller until cm_xfer_close(). */
struct cm_xfer *cm_xfer_open(struct cm_httpc *hc, const struct cm_xfer_req *req,
                             const struct cm_xfer_cb *cb, void *arg);
/* Paused: no more on_data and no on_end from the return on, and the socket is not read (what is held is at most 80 KiB here and libcurl's 16 KiB). */
void cm_xfer_pause(struct cm_xfer *x);
void cm_xfer_resume(struct cm_xfer *x);
/* Final: nothing is reported afterwards; an unfinished transfer closes its connection. NULL is fine. */
void cm_xfer_close(struct cm_xfer *x);

struct cm_xfer_info { /* microseconds since the start; 0 = not reached */
    uint64_t resolved_us, connected_us, head_us;
    bool reused;                   /* an existing connection served */
    uint64_t bytes_up, bytes_down; /* of bodies */
};
void cm_xfer_info(const struct cm_xfer *x, struct cm_xfer_info *out);

/* Forget pooled connections of that isolation, e.g. when a credential is removed: idle ones at once, busy ones when their transfer ends. */
void cm_httpc_forget(struct cm_httpc *hc, struct cm_str isolation);
size_t cm_httpc_active(const struct cm_httpc *hc); /* transfers that have not ended */

#endif
