/* What the parts of the HTTP client share: transfers (httpc.c), what is set for one (httpc_easy.c), connection pools (httpc_pool.c), addresses (httpc_addr.c), trust (httpc_tls.c),
 * WebSockets (wsc.c). */
#ifndef CHATMUX_SRC_IO_HTTPC_INT_H
#define CHATMUX_SRC_IO_HTTPC_INT_H

#include "chatmux/base/buf.h"
#include "chatmux/base/map.h"
#include "chatmux/io/httpc.h"
#include "chatmux/io/resolve.h"
#include <curl/curl.h>
#include <openssl/x509_vfy.h>
#include <sys/socket.h>

#define HC_IDLE_MS 60000 /* a pool without transfers is closed after this time */
#define HC_MAX_ACTIVE                                                                              \
    128 /* transfers per pool: libcurl walks along a host's connections to find an idle one, 40 ns each */
#define HC_MAX_CONNS                                                                               \
    65536L /* idle connections kept per pool: no limit of its own, descriptors and peers set it */
#define HC_MAX_FREE_EASY 64 /* idle easy handles kept per pool, about 8 KiB each */
#define HC_HEAD_BYTES 65536 /* of a response, when the request does not say */
#define HC_IN_BYTES 65536   /* collected per transfer before libcurl is held */
#define HC_UPLOAD_BUFFER                                                                           \
    16384L /* libcurl keeps it as long as the transfer: the smallest it allows */
#define HC_UPLOAD_BUFFER_LARGE 65536L
#define HC_LARGE_BODY (1 << 20) /* bytes from which fewer system calls are worth the memory */

/* Where a URL or a proxy leads. */
struct hc_endpoint {
    struct cm_str host; /* without brackets; in the parsed string or in `owned` */
    char *owned;        /* NULL when the host stands in the string as libcurl sees it */
    struct cm_str
        rest; /* path and query as they are sent, or "" where libcurl is to put them right; in the parsed string */
    uint16_t port;
    bool tls;
    bool literal; /* an address: nothing to resolve */
};

/* All pools of one isolation. In hc->groups until its last pool is closed or it is forgotten. */
struct hc_group {
    char
        *key; /* owned; of key_n bytes: isolation, and what else must not be shared (hc_pool_get) */
    size_t key_n, isolation_n; /* the key starts with the isolation */
    struct cm_list
        pools;      /* struct hc_pool, link_group; never empty; the first ones are used first */
    bool forgotten; /* its pools are closed with their last transfer */
};

/* A set of connections that transfers share: one CURLM. Lives until it has been idle for HC_IDLE_MS or its group is forgotten. */
struct hc_pool {
    struct cm_httpc *hc;       /* not owned */
    struct hc_group *group;    /* not owned; freed with its last pool */
    struct cm_list link_group; /* in group->pools */
    struct cm_list link;       /* in hc->all_pools */
    CURLM *multi;              /* owned */
    struct cm_list active; /* struct cm_xfer, link_pool: those with an easy handle in the multi */
    struct cm_list free;   /* struct hc_easy, prepared and idle */
    size_t n_active, n_free;
    struct cm_map hosts;      /* "host:port" -> struct hc_host: what the multi's own cache holds */
    struct cm_task kick;      /* libcurl's timer, when due at once */
    struct cm_deadline timer; /* libcurl's timer otherwise */
    struct cm_deadline idle;
    uint64_t idle_since_ms; /* meaningful while `active` is empty */
};

/* Addresses that the multi of a pool knows for good. */
struct hc_host {
    char *key, *addresses; /* owned */
};

/* An easy handle with what was set on it, so that the next transfer sets only what differs. Used by one pool only: it may carry TLS sessions. */
struct hc_easy {
    CURL *curl;           /* owned */
    struct hc_pool *pool; /* not owned */
    struct cm_xfer *x;    /* NULL while idle */
    struct cm_list link;  /* in pool->free */
    X509_STORE *store;    /* of the transfer; not owned */
    char *proxy;          /* owned: cm_secret_alloc(); NULL = none */
    CURLU *
        origin; /* owned; scheme, host and port of a transfer whose path is sent as it is; NULL = none yet */
    char *origin_text; /* owned; it */
    bool has_origin;   /* it is set, and no URL */
    long http_version; /* CURL_HTTP_VERSION_… */
    int64_t connect_timeout_ms;
    long upload_buffer;
    enum hc_method { HC_GET, HC_HEAD, HC_POST, HC_OTHER } method;
    bool has_local; /* a unix path, a pinned key or `unverified` is set */
    bool has_body, has_resolve, websocket;
};

/* One upstream transfer. Owned by who opened it. */
struct cm_xfer {
    struct cm_httpc *hc; /* not owned; is closed after all transfers */
    const struct cm_xfer_cb *cb;
    void *arg;
    struct cm_xfer_req req;     /* slices borrowed from the owner */
    struct hc_endpoint to, via; /* target; proxy (host.n 0 = none) */
    void *block; /* owned: header list, URL and lines; NULL once the easy handle is given back */
    char *url;   /* in it */
    struct curl_slist *headers;   /* in it; ends with static nodes */
    struct curl_slist *resolve;   /* owned block; NULL when the multi knows the addresses */
    struct cm_resolve_wait *wait; /* while the name is looked up */
    struct cm_deadline deadline;  /* of that wait; afterwards libcurl keeps the connect timeout */
    struct hc_easy *easy;         /* while in the multi */
    struct hc_pool *pool;         /* not owned; while `easy` */
    curl_socket_t fd;    /* libcurl's, the one it last asked to watch; meaningful while `easy` */
    struct cm_list link; /* in hc->ready: something to tell */
    struct cm_list link_pool; /* in pool->active */
    struct cm_buf head;       /* lines of the response head that comes in; freed when told */
    struct cm_buf in;         /* body the owner has not seen yet; freed when told */
    struct cm_err *err;       /* owned; how it ended; NULL = complete or not ended */
    uint64_t began_us;
    struct cm_xfer_info info;
    int status;                /* of the head that comes in */
    bool head_done, head_told; /* complete, final head; on_head was called */
    bool ended, end_told;
    bool websocket;  /* 101 is its final head; what follows is frames both ways */
    bool paused;     /* by the owner */
    bool held;       /* libcurl was told to wait: the owner pauses or `in` is full */
    bool not_public; /* an address was refused */
    bool head_too_large;
};

struct hc_sock;

struct cm_httpc {
    struct cm_loop *loop;         /* not owned */
    struct cm_resolver *resolver; /* owned */
    struct cm_map groups;         /* key -> struct hc_group, without those forgotten */
    struct cm_list all_pools;     /* owned */
    struct cm_map stores;         /* CA file -> certificates */
    struct hc_sock **socks;       /* by descriptor; NULL where none */
    size_t n_socks;
    struct cm_list ready; /* struct cm_xfer, link */
    struct cm_task deliver;
    struct cm_xfer *telling; /* whose callback runs; NULL once it was closed in there */
    struct cm_list
        farewells; /* struct cm_ws that their owners have closed, until the peer has, too */
    size_t active;
    unsigned in_curl; /* depth: above 0 owners are not called */
    unsigned pending; /* uv handles whose close callback is due */
    bool closing;
};

/* For tests: with a resolver of theirs, which it owns from now on. */
struct cm_httpc *cm_httpc_new_with(struct cm_loop *loop, struct cm_resolver *resolver);

/* httpc.c */
struct cm_xfer *hc_xfer_open(struct cm_httpc *hc, const struct cm_xfer_req *req, bool websocket,
                             const struct cm_xfer_cb *cb, void *arg);
void hc_xfer_finish(
    struct cm_xfer *x,
    CURLcode rc); /* the multi is done with it: takes the easy handle away, tells nobody */
void hc_tell_ready(struct cm_httpc *hc); /* runs owners */
size_t hc_on_header(char *p, size_t size, size_t n, void *arg);
size_t hc_on_body(char *p, size_t size, size_t n, void *arg);

/* httpc_pool.c */
struct hc_pool *hc_pool_get(struct cm_httpc *hc, const struct cm_xfer_req *req);
struct hc_easy *hc_easy_get(struct hc_pool *pool);
void hc_easy_put(struct hc_easy *e); /* out of the multi; to the idle ones or away */
void hc_pool_enter(struct hc_pool *pool, struct cm_xfer *x);
void hc_pool_leave(struct hc_pool *pool, struct cm_xfer *x);
bool hc_pool_knows(const struct hc_pool *pool, struct cm_str host_port, struct cm_str addresses);
void hc_pool_unlearn(struct hc_pool *pool); /* gives libcurl all addresses anew */
void hc_pools_close(struct cm_httpc *hc);
void hc_free_if_done(struct cm_httpc *hc);

/* httpc_easy.c */
void hc_easy_set(struct hc_easy *e, struct cm_xfer *x); /* after `resolve` was found */
/* Empty ones undo it. */
void hc_easy_set_local(struct hc_easy *e, struct cm_str unix_path, struct cm_str pinned_key,
                       bool unverified);

/* httpc_addr.c */
enum hc_url { HC_URL_HTTP, HC_URL_WS, HC_URL_PROXY };
int hc_endpoint_parse(struct hc_endpoint *ep, struct cm_str url, enum hc_url kind,
                      struct cm_err *err);
bool hc_addr_public(const struct sockaddr *addr);

/* httpc_tls.c */
X509_STORE *hc_ca_store(struct cm_httpc *hc, struct cm_str ca_file, struct cm_err *err);
void hc_ca_stores_clear(struct cm_httpc *hc);

/* httpc_mem.c */
void hc_curl_init(void);

/* wsc.c */
void hc_farewells_end(struct cm_httpc *hc);

/* httpc_err.c */
void hc_describe(const struct cm_xfer *x, CURLcode rc, struct cm_err *err);

#endif
