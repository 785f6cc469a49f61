/* Transfers of the HTTP client.
 *
 * Happy path: cm_xfer_open -> the name is resolved, often at once -> into the multi of its pool -> libcurl calls hc_on_header and hc_on_body, which only
 * collect -> libcurl has returned: hc_tell_ready runs on_head, on_data, on_end -> cm_xfer_close.
 * Failures: what cannot be sent, resolved, connected or trusted ends before the head; what breaks off later ends as CM_ERR_CUT.
 * A close in between takes the transfer out of the multi at once: no owner ever runs inside libcurl. */
#include "httpc_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/secret.h"

#include <stdlib.h>

/* Ends of header lists: what libcurl would add of its own. Shared, as libcurl only reads them. */
static struct curl_slist no_expect = {"Expect:", NULL};
static struct curl_slist no_accept = {"Accept:", &no_expect};
static struct curl_slist no_type = {"Content-Type:", &no_expect};
static struct curl_slist no_type_accept = {"Content-Type:", &no_accept};

static void on_deliver(void *arg)
{
    hc_tell_ready(arg);
}

struct cm_httpc *cm_httpc_new_with(struct cm_loop *loop, struct cm_resolver *resolver)
{
    struct cm_httpc *hc = CM_NEW(struct cm_httpc);

    hc_curl_init();
    hc->loop = loop;
    hc->resolver = resolver;
    cm_list_init(&hc->all_pools);
    cm_list_init(&hc->ready);
    cm_list_init(&hc->farewells);
    cm_task_init(&hc->deliver, on_deliver, hc);
    return hc;
}

struct cm_httpc *cm_httpc_new(struct cm_loop *loop)
{
    return cm_httpc_new_with(loop, cm_resolver_new(loop));
}

void cm_httpc_close(struct cm_httpc *hc)
{
    if (!hc)
        return;
    hc_farewells_end(hc);
    CM_ASSERT(hc->active == 0 && cm_list_empty(&hc->ready) && !hc->telling);
    hc_pools_close(hc);
    hc_ca_stores_clear(hc);
    cm_resolver_close(hc->resolver);
    cm_task_cancel(&hc->deliver);
    hc->closing = true;
    hc_free_if_done(hc);
}

size_t cm_httpc_active(const struct cm_httpc *hc)
{
    return hc->active;
}

/* ---- what libcurl hands over: collect, tell nobody */

static void xfer_ready(struct cm_xfer *x)
{
    if (cm_list_empty(&x->link))
        cm_list_push(&x->hc->ready, &x->link);
}

static int parse_status(struct cm_str line)
{
    size_t space = cm_str_find_char(line, ' ');
    uint64_t status = 0;

    if (space == SIZE_MAX ||
        !cm_str_to_u64(cm_str_head(cm_str_from(line, space + 1), 3), 999, &status))
        return 0;
    return (int)status;
}

/* CURLOPT_HEADERFUNCTION: one line of a head, or of trailers. */
size_t hc_on_header(char *p, size_t size, size_t n, void *arg)
{
    struct cm_xfer *x = ((struct hc_easy *)arg)->x;
    struct cm_str line = cm_str(p, size * n);
    size_t max_bytes = x->req.max_head_bytes ? x->req.max_head_bytes : HC_HEAD_BYTES;

    if (x->head_done)
        return line.n; /* trailers */
    if (x->head.n + line.n > max_bytes) {
        x->head_too_large = true;
        return 0;
    }
    if (cm_str_starts(line, CM_S("HTTP/"))) {
        cm_buf_reset(&x->head);
        x->status = parse_status(line);
        return line.n;
    }
    if (cm_str_trim(line).n > 0) {
        cm_buf_append(&x->head, line);
        return line.n;
    }
    if (x->status >= 200 || (x->websocket && x->status == 101)) {
        x->head_done = true;
        x->info.head_us = cm_mono_us() - x->began_us;
        xfer_ready(x);
    }
    return line.n;
}

/* CURLOPT_WRITEFUNCTION */
size_t hc_on_body(char *p, size_t size, size_t n, void *arg)
{
    struct cm_xfer *x = ((struct hc_easy *)arg)->x;
    struct cm_str piece = cm_str(p, size * n);

    if (x->paused || x->in.n >= HC_IN_BYTES) {
        x->held = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    cm_buf_append(&x->in, piece);
    x->info.bytes_down += piece.n;
    xfer_ready(x);
    return piece.n;
}

/* ---- beginning and end */

static uint64_t info_us(CURL *curl, CURLINFO which)
{
    curl_off_t us = 0;

    (void)curl_easy_getinfo(curl, which, &us);
    return us > 0 ? (uint64_t)us : 0;
}

static void info_from_curl(const struct cm_xfer *x, struct cm_xfer_info *info)
{
    CURL *curl = x->easy->curl;
    uint64_t ready_us = info_us(curl, CURLINFO_PRETRANSFER_TIME_T);
    long connects = 1;

    info->bytes_up = info_us(curl, CURLINFO_SIZE_UPLOAD_T); /* the same type */
    if (ready_us == 0)
        return;
    info->connected_us = info->resolved_us + ready_us;
    (void)curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &connects);
    info->reused = connects == 0;
}

void cm_xfer_info(const struct cm_xfer *x, struct cm_xfer_info *out)
{
    *out = x->info;
    if (x->easy)
        info_from_curl(x, out);
}

/* Out of the multi. One that is not finished closes its connection. */
static void xfer_leave(struct cm_xfer *x)
{
    struct hc_easy *e = x->easy;

    if (e) {
        x->easy = NULL;
        x->hc->in_curl++;
        curl_multi_remove_handle(x->pool->multi, e->curl);
        x->hc->in_curl--;
        hc_easy_put(e);
        hc_pool_leave(x->pool, x);
        x->pool = NULL;
    }
    cm_secret_free(x->block), x->block = NULL;
    free(x->resolve), x->resolve = NULL;
}

static void xfer_end(struct cm_xfer *x)
{
    x->ended = true;
    x->hc->active--;
    xfer_ready(x);
}

void hc_xfer_finish(struct cm_xfer *x, CURLcode rc)
{
    info_from_curl(x, &x->info);
    if (rc != CURLE_OK || !x->head_done) {
        x->err = CM_NEW(struct cm_err);
        hc_describe(x, rc, x->err);
    }
    if (rc == CURLE_COULDNT_RESOLVE_HOST || rc == CURLE_COULDNT_RESOLVE_PROXY)
        hc_pool_unlearn(x->pool); /* the multi did not keep them, whatever the reason */
    xfer_leave(x);
    xfer_end(x);
}

/* Known here, without libcurl; told on a later turn. */
static void xfer_fail(struct cm_xfer *x, const struct cm_err *err)
{
    x->err = CM_NEW(struct cm_err);
    *x->err = *err;
    xfer_leave(x);
    xfer_end(x);
    cm_task_post(x->hc->loop, &x->hc->deliver);
}

static bool header_valid(const struct cm_header *h)
{
    if (h->name.n == 0)
        return false;
    for (size_t i = 0; i < h->name.n; i++)
        if (h->name.p[i] <= ' ' || h->name.p[i] == ':' || h->name.p[i] == 0x7f)
            return false;
    for (size_t i = 0; i < h->value.n; i++)
        if (h->value.p[i] == '\r' || h->value.p[i] == '\n' || h->value.p[i] == '\0')
            return false;
    return true;
}

static bool is_ours(struct cm_str name)
{
    return cm_str_eq_nocase(name, CM_S("expect")) ||
           cm_str_eq_nocase(name, CM_S("content-length")) ||
           cm_str_eq_nocase(name, CM_S("transfer-encoding"));
}

static char *put(char *to, struct cm_str s)
{
    if (s.n > 0)
        memcpy(to, s.p, s.n);
    return to + s.n;
}

/* One block for what libcurl wants as C strings: list nodes, URL, lines. */
static int xfer_prepare(struct cm_xfer *x, struct cm_err *err)
{
    const struct cm_xfer_req *req = &x->req;
    size_t bytes = req->n_headers * sizeof(struct curl_slist) + req->url.n + 1;
    struct curl_slist *nodes, **tail = &x->headers;
    bool accept = false, type = false;
    char *at;

    for (size_t i = 0; i < req->n_headers; i++) {
        const struct cm_header *h = &req->headers[i];

        if (!header_valid(h))
            return cm_fail(
                err, CM_ERR_BAD_REQUEST,
                "header %zu of the upstream request has a character that no header may have",
                i + 1);
        bytes += h->name.n + h->value.n + 3;
    }
    if (memchr(req->url.p, '\0', req->url.n))
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN, "the URL is not valid");
    nodes = cm_secret_alloc(bytes);
    x->block = nodes;
    at = (char *)(nodes + req->n_headers);
    x->url = at;
    at = put(at, req->url);
    *at++ = '\0';
    for (size_t i = 0; i < req->n_headers; i++) {
        const struct cm_header *h = &req->headers[i];
        struct cm_str value = cm_str_trim(h->value);

        if (is_ours(h->name))
            continue;
        accept |= cm_str_eq_nocase(h->name, CM_S("accept"));
        type |= cm_str_eq_nocase(h->name, CM_S("content-type"));
        nodes->data = at;
        at = put(at, h->name);
        at = put(at, value.n > 0 ? CM_S(": ") : CM_S(";")); /* libcurl's way to say "empty" */
        at = put(at, value);
        *at++ = '\0';
        *tail = nodes;
        tail = &nodes->next;
        nodes++;
    }
    *tail = accept ? (type ? &no_expect : &no_type) : (type ? &no_accept : &no_type_accept);
    return 0;
}

/* Addresses for libcurl, unless the pool's multi has the same already. A client's host must not pile up there: "+" lets it expire. */
static void xfer_set_resolve(struct cm_xfer *x, const struct hc_endpoint *ep,
                             struct cm_str addresses)
{
    struct cm_buf entry = {0};
    bool guest = x->req.public_only;

    if (guest)
        cm_buf_put(&entry, '+');
    cm_buf_append(&entry, ep->host);
    cm_buf_put(&entry, ':');
    cm_buf_put_u64(&entry, ep->port);
    if (guest || !hc_pool_knows(x->pool, cm_buf_str(&entry), addresses)) {
        cm_buf_put(&entry, ':');
        cm_buf_append(&entry, addresses);
        x->resolve = cm_alloc(sizeof(*x->resolve) + entry.n + 1);
        x->resolve->next = NULL;
        x->resolve->data = (char *)(x->resolve + 1);
        (void)cm_str_copy(x->resolve->data, entry.n + 1, cm_buf_str(&entry));
    }
    cm_buf_clear(&entry);
}

static const struct hc_endpoint *xfer_first_hop(const struct cm_xfer *x)
{
    return x->via.host.n > 0 ? &x->via : &x->to;
}

static void xfer_start(struct cm_xfer *x, struct cm_str addresses)
{
    struct cm_httpc *hc = x->hc;
    X509_STORE *store = NULL;
    struct cm_err err = {0};

    if (x->to.tls || x->via.tls) {
        store = hc_ca_store(hc, x->req.ca_file, &err);
        if (!store) {
            xfer_fail(x, &err);
            return;
        }
    }
    x->pool = hc_pool_get(hc, &x->req);
    x->easy = hc_easy_get(x->pool);
    x->easy->x = x;
    x->easy->store = store;
    hc_pool_enter(x->pool, x);
    if (addresses.n > 0)
        xfer_set_resolve(x, xfer_first_hop(x), addresses);
    hc_easy_set(x->easy, x);
    hc->in_curl++;
    if (curl_multi_add_handle(x->pool->multi, x->easy->curl) != CURLM_OK) {
        cm_fail(&err, CM_ERR_UPSTREAM_DOWN,
                "the transfer could not be started"); /* UNTESTED: no memory */
        xfer_fail(x, &err);
    }
    hc->in_curl--;
}

static void on_resolved(void *arg, struct cm_str addresses, const struct cm_err *err)
{
    struct cm_xfer *x = arg;

    x->wait = NULL;
    cm_deadline_clear(x->hc->loop, &x->deadline);
    x->info.resolved_us = cm_mono_us() - x->began_us;
    if (addresses.n > 0)
        xfer_start(x, addresses);
    else
        xfer_fail(x, err);
}

static void on_resolve_timeout(void *arg)
{
    struct cm_xfer *x = arg;
    struct cm_err err = {0};

    cm_resolve_cancel(x->wait);
    x->wait = NULL;
    hc_describe(x, CURLE_OPERATION_TIMEDOUT, &err);
    xfer_fail(x, &err);
}

struct cm_xfer *hc_xfer_open(struct cm_httpc *hc, const struct cm_xfer_req *req, bool websocket,
                             const struct cm_xfer_cb *cb, void *arg)
{
    struct cm_xfer *x = CM_NEW(struct cm_xfer);
    const struct hc_endpoint *hop;
    struct cm_str addresses = CM_STR_NONE;
    struct cm_err err = {0};

    x->hc = hc;
    x->cb = cb;
    x->arg = arg;
    x->req = *req;
    x->websocket = websocket;
    x->began_us = cm_mono_us();
    cm_list_init(&x->link);
    cm_list_init(&x->link_pool);
    cm_deadline_init(&x->deadline, on_resolve_timeout, x);
    hc->active++;
    if (xfer_prepare(x, &err) < 0 ||
        hc_endpoint_parse(&x->to, cm_str(x->url, req->url.n), websocket ? HC_URL_WS : HC_URL_HTTP,
                          &err) < 0 ||
        (req->proxy.n > 0 && hc_endpoint_parse(&x->via, req->proxy, HC_URL_PROXY, &err) < 0)) {
        xfer_fail(x, &err);
        return x;
    }
    if (req->public_only && req->proxy.n > 0) {
        cm_fail(&err, CM_ERR_BAD_REQUEST,
                "addresses cannot be checked behind a proxy: not fetched");
        xfer_fail(x, &err);
        return x;
    }
    hop = xfer_first_hop(x);
    if (!hop->literal && req->unix_path.n == 0) {
        x->wait = cm_resolve(hc->resolver, hop->host,
                             req->public_only ? CM_RESOLVE_CLIENT : CM_RESOLVE_OWN, &addresses,
                             &err, on_resolved, x);
        if (x->wait) {
            if (req->connect_timeout_ms > 0)
                cm_deadline_set(hc->loop, &x->deadline,
                                cm_loop_now_ms(hc->loop) + (uint64_t)req->connect_timeout_ms);
            return x;
        }
        if (addresses.n == 0) {
            xfer_fail(x, &err);
            return x;
        }
    }
    xfer_start(x, addresses);
    return x;
}

struct cm_xfer *cm_xfer_open(struct cm_httpc *hc, const struct cm_xfer_req *req,
                             const struct cm_xfer_cb *cb, void *arg)
{
    return hc_xfer_open(hc, req, false, cb, arg);
}

void cm_xfer_close(struct cm_xfer *x)
{
    if (!x)
        return;
    CM_ASSERT(x->hc->in_curl == 0);
    if (x->hc->telling == x)
        x->hc->telling = NULL;
    cm_resolve_cancel(x->wait);
    cm_deadline_clear(x->hc->loop, &x->deadline);
    xfer_leave(x);
    if (!x->ended)
        x->hc->active--;
    cm_list_remove(&x->link);
    cm_buf_clear(&x->head);
    cm_buf_clear(&x->in);
    free(x->to.owned);
    free(x->via.owned);
    free(x->err);
    free(x);
}

/* ---- pause */

/* libcurl learns of it when it next has something: hc_on_body() refuses, and from then on the socket is not read. */
void cm_xfer_pause(struct cm_xfer *x)
{
    x->paused = true;
}

void cm_xfer_resume(struct cm_xfer *x)
{
    if (!x->paused)
        return;
    x->paused = false;
    xfer_ready(x); /* what was kept is told first; libcurl goes on after that */
    cm_task_post(x->hc->loop, &x->hc->deliver);
}

static void xfer_let_go_on(struct cm_xfer *x)
{
    x->held = false;
    if (!x->easy)
        return;
    x->hc->in_curl++;
    (void)curl_easy_pause(
        x->easy->curl,
        CURLPAUSE_CONT); /* may call hc_on_body(); what fails in there ends the transfer soon */
    x->hc->in_curl--;
}

/* ---- telling owners */

/* Lines become names and values in place. A line that begins with a blank continues the one before (RFC 9112 5.2). */
static size_t parse_head(struct cm_buf *head, struct cm_header *out)
{
    struct cm_str rest = cm_buf_str(head);
    size_t n = 0;

    for (size_t i = 0; i + 1 < head->n; i++)
        if (head->p[i] == '\0' || (head->p[i] == '\r' && head->p[i + 1] != '\n'))
            head->p[i] = ' ';
    while (rest.n > 0) {
        struct cm_str line = cm_str_cut(&rest, '\n'), name;
        bool more = line.n > 0 && (line.p[0] == ' ' || line.p[0] == '\t');

        if (more && n > 0) {
            struct cm_str *value = &out[n - 1].value;
            char *from = head->p + (value->p + value->n - head->p);

            memset(from, ' ', (size_t)(line.p - from));
            *value = cm_str_trim(cm_str(value->p, (size_t)(line.p + line.n - value->p)));
            continue;
        }
        name = cm_str_cut(&line, ':');
        out[n].name = cm_str_trim(name);
        out[n].value = cm_str_trim(line);
        if (out[n].name.n > 0)
            n++;
    }
    return n;
}

static void xfer_tell_head(struct cm_xfer *x)
{
    struct cm_buf head = x->head; /* `x` may be gone after the call */
    struct cm_header few[32] = {0}, *headers = few;
    size_t lines = 0, n;

    memset(&x->head, 0, sizeof(x->head));
    x->head_told = true;
    for (size_t i = 0; i < head.n; i++)
        lines += head.p[i] == '\n';
    if (lines > CM_COUNT(few))
        headers = cm_calloc(lines, sizeof(*headers));
    n = parse_head(&head, headers);
    x->cb->on_head(x->arg, x->status, headers, n);
    if (headers != few)
        free(headers);
    cm_buf_clear(&head);
}

static void xfer_tell(struct cm_xfer *x)
{
    struct cm_httpc *hc = x->hc;

    if (x->head_done && !x->head_told) {
        xfer_tell_head(x);
        if (hc->telling != x)
            return;
    }
    if (x->paused)
        return;
    if (x->in.n > 0) {
        struct cm_buf in = x->in;

        memset(&x->in, 0, sizeof(x->in));
        x->cb->on_data(x->arg, cm_buf_str(&in));
        cm_buf_clear(&in);
        if (hc->telling != x || x->paused)
            return;
    }
    if (x->ended && !x->end_told) {
        x->end_told = true;
        x->cb->on_end(x->arg, x->err);
        return;
    }
    if (x->held)
        xfer_let_go_on(x);
}

void hc_tell_ready(struct cm_httpc *hc)
{
    struct cm_list batch, *link;

    if (cm_list_empty(&hc->ready) || hc->in_curl > 0)
        return;
    cm_list_init(&batch);
    cm_list_push(&hc->ready, &batch);
    cm_list_remove(
        &hc->ready); /* the ring hangs on `batch`: what gets ready in a callback waits for the next turn */
    while ((link = cm_list_pop(&batch))) {
        struct cm_xfer *x = CM_LIST_ITEM(link, struct cm_xfer, link);

        hc->telling = x;
        xfer_tell(x);
        hc->telling = NULL;
    }
    if (!cm_list_empty(&hc->ready))
        cm_task_post(hc->loop, &hc->deliver);
}
