/* Connection pools of the HTTP client: one CURLM per isolation, its sockets and its timer on the loop.
 *
 * A socket is watched from libcurl's first wish until its end. libcurl takes its wish back after every transfer and renews it for the next one; the
 * watcher stays as it is meanwhile and is corrected only when an event comes that nobody asked for. */
#include "httpc_int.h"

#include "chatmux/base/secret.h"

#include <openssl/ssl.h>
#include <unistd.h>

struct hc_sock {
    uv_poll_t poll;       /* in pool's loop until the socket's end */
    struct cm_httpc *hc;  /* not owned; counts it in `pending` */
    struct hc_pool *pool; /* not owned; whose multi has the socket */
    int want,
        have; /* UV_READABLE | UV_WRITABLE: libcurl's wish; what is watched (a superset of it) */
};

static void pool_drive(struct hc_pool *pool, curl_socket_t fd, int events);
static void pool_free(struct hc_pool *pool);

void hc_free_if_done(struct cm_httpc *hc)
{
    if (!hc->closing || hc->pending > 0)
        return;
    free(hc->socks);
    free(hc);
}

static void on_sock_closed(uv_handle_t *handle)
{
    struct hc_sock *s = handle->data;
    struct cm_httpc *hc = s->hc;

    free(s);
    hc->pending--;
    hc_free_if_done(hc);
}

static void sock_end(struct cm_httpc *hc, curl_socket_t fd)
{
    struct hc_sock *s = (size_t)fd < hc->n_socks ? hc->socks[fd] : NULL;

    if (!s)
        return;
    hc->socks[fd] = NULL;
    uv_close((uv_handle_t *)&s->poll, on_sock_closed);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void sock_watch(struct hc_sock *s, int mask)
{
    s->have = mask;
    if (mask)
        (void)uv_poll_start(&s->poll, mask, on_poll); /* fails only for a handle that is closing */
    else
        (void)uv_poll_stop(&s->poll);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct hc_sock *s = poll->data;
    uv_os_fd_t fd;
    int flags = 0;

    if (status < 0)
        events |= s->want; /* libcurl finds the reason itself */
    if (events & ~s->want || s->want == 0)
        sock_watch(
            s, s->want); /* an idle or paused connection has something: leave it to the kernel */
    events &= s->want;
    if (events == 0 || uv_fileno((uv_handle_t *)poll, &fd) != 0)
        return;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    if (status < 0)
        flags |= CURL_CSELECT_ERR;
    pool_drive(s->pool, fd, flags);
}

static struct hc_sock *sock_begin(struct hc_pool *pool, curl_socket_t fd)
{
    struct cm_httpc *hc = pool->hc;
    size_t at = (size_t)fd;
    struct hc_sock *s;

    if (at >= hc->n_socks) {
        size_t n = at + 1 > hc->n_socks * 2 ? at + 1 : hc->n_socks * 2;

        hc->socks = cm_realloc(hc->socks, n * sizeof(*hc->socks));
        memset(hc->socks + hc->n_socks, 0, (n - hc->n_socks) * sizeof(*hc->socks));
        hc->n_socks = n;
    }
    s = CM_NEW(struct hc_sock);
    if (uv_poll_init(cm_loop_uv(hc->loop), &s->poll, fd) != 0) {
        free(s); /* UNTESTED: epoll refuses only what is no socket */
        return NULL;
    }
    s->poll.data = s;
    s->hc = hc;
    s->pool = pool;
    hc->pending++;
    return hc->socks[at] = s;
}

/* CURLMOPT_SOCKETFUNCTION */
static int on_curl_socket(CURL *curl, curl_socket_t fd, int what, void *userp, void *sockp)
{
    struct hc_pool *pool = userp;
    struct cm_httpc *hc = pool->hc;
    struct hc_sock *s = (size_t)fd < hc->n_socks ? hc->socks[fd] : NULL;
    struct hc_easy *e = NULL;

    (void)sockp;
    if (curl_easy_getinfo(curl, CURLINFO_PRIVATE, (char **)&e) == CURLE_OK && e && e->x)
        e->x->fd = fd; /* CURLINFO_ACTIVESOCKET comes too late for a WebSocket */
    if (!s) {
        if (what == CURL_POLL_REMOVE)
            return 0;
        s = sock_begin(pool, fd);
        if (!s)
            return -1;
    }
    s->want = what == CURL_POLL_REMOVE ? 0
                                       : (what & CURL_POLL_IN ? UV_READABLE : 0) |
                                             (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    if (s->want & ~s->have)
        sock_watch(s, s->want);
    return 0;
}

/* CURLMOPT_TIMERFUNCTION */
static int on_curl_timer(CURLM *multi, long ms, void *userp)
{
    struct hc_pool *pool = userp;

    (void)multi;
    if (ms == 0) {
        cm_task_post(pool->hc->loop, &pool->kick);
        return 0;
    }
    if (ms > 0)
        cm_deadline_set(pool->hc->loop, &pool->timer,
                        cm_loop_now_ms(pool->hc->loop) + (uint64_t)ms);
    else
        cm_deadline_clear(pool->hc->loop, &pool->timer);
    return 0;
}

static void on_due(void *arg)
{
    pool_drive(arg, CURL_SOCKET_TIMEOUT, 0);
}

/* What libcurl says is finished; tells nobody. */
static void pool_collect(struct hc_pool *pool)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(pool->multi, &left))) {
        CURLcode rc = msg->data.result;
        struct hc_easy *e = NULL;

        if (msg->msg == CURLMSG_DONE &&
            curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&e) == CURLE_OK && e->x)
            hc_xfer_finish(e->x, rc);
    }
}

static void pool_drive(struct hc_pool *pool, curl_socket_t fd, int events)
{
    struct cm_httpc *hc = pool->hc;
    CURLMcode rc;
    int running;

    hc->in_curl++;
    rc = curl_multi_socket_action(pool->multi, fd, events, &running);
    hc->in_curl--;
    pool_collect(pool);
    if (rc !=
        CURLM_OK) { /* UNTESTED: only our own bug or memory; every transfer is in an uncertain state now */
        struct cm_list *link;

        while ((link = pool->active.next) != &pool->active)
            hc_xfer_finish(CM_LIST_ITEM(link, struct cm_xfer, link_pool), CURLE_FAILED_INIT);
    }
    hc_tell_ready(hc); /* may close this pool */
}

/* What the multi's own name cache was given: from here on it holds these addresses for good. */
static void pool_learn(struct hc_pool *pool, const char *entry)
{
    const char *port = strchr(entry, ':');
    const char *addresses = port ? strchr(port + 1, ':') : NULL;
    struct hc_host *h;
    struct cm_str key;

    if (!addresses)
        return;
    key = cm_str(entry, (size_t)(addresses - entry));
    h = cm_map_get(&pool->hosts, key);
    if (!h) {
        h = CM_NEW(struct hc_host);
        h->key = cm_str_dup(key);
        cm_map_put(&pool->hosts, cm_str(h->key, key.n), h);
    }
    free(h->addresses);
    h->addresses = cm_strdup(addresses + 1);
}

bool hc_pool_knows(const struct hc_pool *pool, struct cm_str host_port, struct cm_str addresses)
{
    const struct hc_host *h = cm_map_get(&pool->hosts, host_port);

    return h && cm_str_eq(cm_str_of(h->addresses), addresses);
}

/* CURLOPT_OPENSOCKETFUNCTION: the last place where an address can be refused, whatever a name resolved to. */
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct hc_easy *e = arg;
    struct cm_xfer *x = e->x;

    if (purpose != CURLSOCKTYPE_IPCXN || !x)
        return CURL_SOCKET_BAD;
    if (x->req.public_only && !hc_addr_public(&addr->addr)) {
        x->not_public = true;
        return CURL_SOCKET_BAD;
    }
    if (x->resolve && !x->req.public_only) /* hosts of clients do not pile up */
        pool_learn(e->pool, x->resolve->data);
    return socket(addr->family, addr->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, addr->protocol);
}

/* CURLOPT_CLOSESOCKETFUNCTION */
static int on_close_socket(void *arg, curl_socket_t fd)
{
    struct cm_httpc *hc = arg;

    sock_end(hc, fd); /* before the descriptor can be given out again */
    return close(fd);
}

/* CURLOPT_RESOLVER_START_FUNCTION: libcurl found no address for a name, although it was given one. Its own lookup would block the loop. */
static int on_curl_resolves(void *state, void *reserved, void *arg)
{
    const struct hc_easy *e = arg;

    (void)state, (void)reserved;
    return e->x && (e->x->via.host.n ? e->x->via.literal : e->x->to.literal) ? 0 : 1;
}

/* CURLOPT_SSL_CTX_FUNCTION: certificates are read once for all connections, not once for each. */
static CURLcode on_ssl_ctx(CURL *curl, void *ctx, void *arg)
{
    const struct hc_easy *e = arg;

    (void)curl;
    if (!e->store)
        return CURLE_SSL_CERTPROBLEM;
    SSL_CTX_set1_cert_store(ctx, e->store);
    return CURLE_OK;
}

/* Everything that is the same for all transfers; what differs is set by httpc_easy.c. */
static struct hc_easy *easy_new(struct hc_pool *pool)
{
    struct hc_easy *e = CM_NEW(struct hc_easy);
    CURL *curl = curl_easy_init();

    CM_ASSERT(curl != NULL);
    e->curl = curl;
    e->pool = pool;
    cm_list_init(&e->link);
    e->http_version = CURL_HTTP_VERSION_NONE;
    e->method = HC_GET;
    curl_easy_setopt(curl, CURLOPT_PRIVATE, e);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    /* Against http_proxy, NO_PROXY and their like in the environment. */
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "");
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, hc_on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, e);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, hc_on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, e);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, e);
    curl_easy_setopt(curl, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(curl, CURLOPT_CLOSESOCKETDATA,
                     pool->hc); /* the socket may outlive this handle */
    curl_easy_setopt(curl, CURLOPT_RESOLVER_START_FUNCTION, on_curl_resolves);
    curl_easy_setopt(curl, CURLOPT_RESOLVER_START_DATA, e);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(curl, CURLOPT_CAINFO, NULL);
    curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(curl, CURLOPT_PROXY_CAINFO, NULL);
    curl_easy_setopt(curl, CURLOPT_PROXY_CAPATH, NULL);
    curl_easy_setopt(curl, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
    curl_easy_setopt(curl, CURLOPT_SSL_CTX_DATA, e);
    /* An answer may be silent for minutes while middleboxes forget idle connections. */
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    return e;
}

struct hc_easy *hc_easy_get(struct hc_pool *pool)
{
    struct cm_list *link = pool->free.prev; /* the last one used is warm */

    if (link == &pool->free)
        return easy_new(pool);
    cm_list_remove(link);
    pool->n_free--;
    return CM_LIST_ITEM(link, struct hc_easy, link);
}

static void easy_free(struct hc_easy *e)
{
    e->pool->hc->in_curl++;
    curl_easy_cleanup(e->curl);
    e->pool->hc->in_curl--;
    curl_url_cleanup(e->origin);
    free(e->origin_text);
    cm_secret_free(e->proxy);
    free(e);
}

void hc_easy_put(struct hc_easy *e)
{
    e->x = NULL;
    e->store = NULL;
    if (e->has_resolve) {
        curl_easy_setopt(e->curl, CURLOPT_RESOLVE, NULL);
        e->has_resolve = false;
    }
    if (e->has_local)
        hc_easy_set_local(e, CM_STR_NONE, CM_STR_NONE, false);
    if (e->pool->n_free >= HC_MAX_FREE_EASY) {
        easy_free(e);
        return;
    }
    cm_list_push(&e->pool->free, &e->link);
    e->pool->n_free++;
}

void hc_pool_unlearn(struct hc_pool *pool)
{
    const struct cm_map_slot *slot;

    for (size_t pos = 0; (slot = cm_map_next(&pool->hosts, &pos));) {
        struct hc_host *h = slot->value;

        free(h->key);
        free(h->addresses);
        free(h);
    }
    cm_map_clear(&pool->hosts);
}

static void group_free(struct cm_httpc *hc, struct hc_group *group)
{
    if (!group->forgotten)
        cm_map_del(&hc->groups, cm_str(group->key, group->key_n));
    free(group->key);
    free(group);
}

static void pool_free(struct hc_pool *pool)
{
    struct cm_httpc *hc = pool->hc;
    struct cm_list *link;

    CM_ASSERT(pool->n_active == 0 && hc->in_curl == 0);
    while ((link = cm_list_pop(&pool->free)))
        easy_free(CM_LIST_ITEM(link, struct hc_easy, link));
    hc->in_curl++;
    curl_multi_cleanup(pool->multi);
    hc->in_curl--;
    cm_task_cancel(&pool->kick); /* after the last word of libcurl */
    cm_deadline_clear(hc->loop, &pool->timer);
    cm_deadline_clear(hc->loop, &pool->idle);
    hc_pool_unlearn(pool);
    cm_list_remove(&pool->link);
    cm_list_remove(&pool->link_group);
    if (cm_list_empty(&pool->group->pools))
        group_free(hc, pool->group);
    free(pool);
}

/* Set once and looked at when it fires, so that a request does not move it. */
static void on_pool_idle(void *arg)
{
    struct hc_pool *pool = arg;
    struct cm_loop *loop = pool->hc->loop;
    uint64_t now_ms = cm_loop_now_ms(loop);

    if (pool->n_active > 0)
        cm_deadline_set(loop, &pool->idle, now_ms + HC_IDLE_MS);
    else if (!pool->group->forgotten && now_ms < pool->idle_since_ms + HC_IDLE_MS)
        cm_deadline_set(loop, &pool->idle, pool->idle_since_ms + HC_IDLE_MS);
    else
        pool_free(pool);
}

void hc_pool_enter(struct hc_pool *pool, struct cm_xfer *x)
{
    cm_list_push(&pool->active, &x->link_pool);
    pool->n_active++;
}

void hc_pool_leave(struct hc_pool *pool, struct cm_xfer *x)
{
    cm_list_remove(&x->link_pool);
    if (--pool->n_active > 0)
        return;
    pool->idle_since_ms = cm_loop_now_ms(pool->hc->loop);
    if (pool->group->forgotten) /* not here: pool_drive() may be at work on it */
        cm_deadline_set(pool->hc->loop, &pool->idle, pool->idle_since_ms);
}

static struct hc_pool *pool_new(struct cm_httpc *hc, struct hc_group *group)
{
    struct hc_pool *pool = CM_NEW(struct hc_pool);

    pool->hc = hc;
    pool->group = group;
    cm_list_init(&pool->link);
    cm_list_init(&pool->link_group);
    cm_list_init(&pool->active);
    cm_list_init(&pool->free);
    cm_task_init(&pool->kick, on_due, pool);
    cm_deadline_init(&pool->timer, on_due, pool);
    cm_deadline_init(&pool->idle, on_pool_idle, pool);
    pool->multi = curl_multi_init();
    CM_ASSERT(pool->multi != NULL);
    curl_multi_setopt(pool->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(pool->multi, CURLMOPT_SOCKETDATA, pool);
    curl_multi_setopt(pool->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(pool->multi, CURLMOPT_TIMERDATA, pool);
    curl_multi_setopt(pool->multi, CURLMOPT_MAXCONNECTS, HC_MAX_CONNS);
    cm_list_push(&hc->all_pools, &pool->link);
    cm_list_push(&group->pools, &pool->link_group);
    pool->idle_since_ms = cm_loop_now_ms(hc->loop);
    cm_deadline_set(hc->loop, &pool->idle, pool->idle_since_ms + HC_IDLE_MS);
    return pool;
}

static struct hc_group *group_get(struct cm_httpc *hc, struct cm_str key, size_t isolation_n)
{
    struct hc_group *group = cm_map_get(&hc->groups, key);

    if (group)
        return group;
    group = CM_NEW(struct hc_group);
    group->key = cm_str_dup(key);
    group->key_n = key.n;
    group->isolation_n = isolation_n;
    cm_list_init(&group->pools);
    cm_map_put(&hc->groups, cm_str(group->key, key.n), group);
    return group;
}

/* A connection that was opened under other rules must not serve: one to a private address would pass `public_only`, and one that another authority
 * vouched for would pass `ca_file`; one whose server nobody vouched for would pass as checked. */
struct hc_pool *hc_pool_get(struct cm_httpc *hc, const struct cm_xfer_req *req)
{
    struct cm_str key = req->isolation.n > 0 ? req->isolation : CM_S("\0-");
    struct cm_buf long_key = {0};
    struct hc_group *group;

    if (req->public_only || req->unverified || req->ca_file.n > 0) {
        cm_buf_append(&long_key, req->isolation);
        cm_buf_put(&long_key, '\0');
        cm_buf_put(&long_key, req->public_only ? 'p' : '-');
        cm_buf_put(&long_key, req->unverified ? 'u' : '-');
        cm_buf_append(&long_key, req->ca_file);
        key = cm_buf_str(&long_key);
    }
    group = group_get(hc, key, req->isolation.n);
    cm_buf_clear(&long_key);
    CM_LIST_EACH(&group->pools, link)
    {
        struct hc_pool *pool = CM_LIST_ITEM(link, struct hc_pool, link_group);

        if (pool->n_active < HC_MAX_ACTIVE)
            return pool;
    }
    return pool_new(hc, group);
}

void cm_httpc_forget(struct cm_httpc *hc, struct cm_str isolation)
{
    CM_LIST_EACH(&hc->all_pools, link)
    {
        struct hc_pool *pool = CM_LIST_ITEM(link, struct hc_pool, link);
        struct hc_group *group = pool->group;

        if (!cm_str_eq(cm_str(group->key, group->isolation_n), isolation))
            continue;
        if (!group->forgotten)
            cm_map_del(&hc->groups, cm_str(group->key, group->key_n));
        group->forgotten = true;
        if (pool->n_active == 0)
            pool_free(pool);
    }
}

void hc_pools_close(struct cm_httpc *hc)
{
    CM_LIST_EACH(&hc->all_pools, link)
    pool_free(CM_LIST_ITEM(link, struct hc_pool, link));
    cm_map_clear(&hc->groups);
}
