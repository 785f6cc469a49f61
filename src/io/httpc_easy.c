/* What is set on an easy handle for one transfer: that which differs from the transfer before. */
#include "httpc_int.h"

#include "chatmux/base/config.h"
#include "chatmux/base/secret.h"

#include <stdlib.h>

/* libcurl copies both, and compares both before it takes an open connection. */
void hc_easy_set_local(struct hc_easy *e, struct cm_str unix_path, struct cm_str pinned_key,
                       bool unverified)
{
    const bool checks = pinned_key.n == 0 && !unverified;
    char *path = unix_path.n > 0 ? cm_str_dup(unix_path) : NULL;
    char *key = pinned_key.n > 0 ? cm_str_dup(pinned_key) : NULL;

    curl_easy_setopt(e->curl, CURLOPT_UNIX_SOCKET_PATH, path);
    curl_easy_setopt(e->curl, CURLOPT_PINNEDPUBLICKEY, key);
    curl_easy_setopt(e->curl, CURLOPT_SSL_VERIFYPEER, checks ? 1L : 0L);
    curl_easy_setopt(e->curl, CURLOPT_SSL_VERIFYHOST, checks ? 2L : 0L);
    e->has_local = path || !checks;
    free(path);
    free(key);
}

static long curl_http_version(const struct cm_xfer *x)
{
    if (x->websocket)
        return CURL_HTTP_VERSION_1_1;
    switch ((enum cm_http_version)x->req.http_version) {
    case CM_HTTP_1_1:
        return CURL_HTTP_VERSION_1_1;
    case CM_HTTP_2:
        return x->to.tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
    case CM_HTTP_AUTO:
        break;
    }
    return CURL_HTTP_VERSION_2TLS;
}

static void easy_set_method(struct hc_easy *e, const struct cm_xfer_req *req)
{
    enum hc_method method = HC_OTHER;

    if (cm_str_eq(req->method, CM_S("POST")))
        method = HC_POST;
    else if (cm_str_eq(req->method, CM_S("GET")) && req->body.n == 0)
        method = HC_GET;
    else if (cm_str_eq(req->method, CM_S("HEAD")))
        method = HC_HEAD;
    if (method != e->method) {
        curl_easy_setopt(e->curl, CURLOPT_HTTPGET, 1L); /* undoes the others */
        curl_easy_setopt(e->curl, CURLOPT_CUSTOMREQUEST, NULL);
        if (method == HC_HEAD)
            curl_easy_setopt(e->curl, CURLOPT_NOBODY, 1L);
        e->method = method;
    }
    if (method == HC_OTHER) {
        char name[32];

        cm_str_copy(name, sizeof(name), req->method);
        curl_easy_setopt(e->curl, CURLOPT_CUSTOMREQUEST, name);
    }
    if (method == HC_POST || method == HC_OTHER) {
        curl_easy_setopt(e->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.n);
        curl_easy_setopt(e->curl, CURLOPT_POSTFIELDS, req->body.n > 0 ? req->body.p : "");
    }
}

/* Raw: libcurl shakes hands, frames are ours (wsc.c). Such a connection serves nothing else before or after. */
static void easy_set_websocket(struct hc_easy *e, bool websocket)
{
    if (e->websocket == websocket)
        return;
    e->websocket = websocket;
    curl_easy_setopt(e->curl, CURLOPT_PROTOCOLS_STR, websocket ? "ws,wss" : "http,https");
    curl_easy_setopt(e->curl, CURLOPT_WS_OPTIONS, websocket ? CURLWS_RAW_MODE : 0L);
    curl_easy_setopt(e->curl, CURLOPT_FRESH_CONNECT, websocket ? 1L : 0L);
    curl_easy_setopt(e->curl, CURLOPT_FORBID_REUSE, websocket ? 1L : 0L);
}

/* Scheme, host and port, taken apart once. False: libcurl reads them otherwise than we did. */
static bool easy_learn_origin(struct hc_easy *e, struct cm_str text)
{
    if (e->origin && cm_str_eq(cm_str_of(e->origin_text), text))
        return true;
    curl_easy_setopt(e->curl, CURLOPT_CURLU, NULL);
    e->has_origin = false;
    curl_url_cleanup(e->origin);
    free(e->origin_text);
    e->origin = curl_url();
    e->origin_text = cm_str_dup(text);
    if (e->origin && curl_url_set(e->origin, CURLUPART_URL, e->origin_text, 0) == CURLUE_OK)
        return true;
    curl_url_cleanup(e->origin), e->origin = NULL; /* UNTESTED: it reads what we read */
    return false;
}

/* libcurl takes a URL apart, prints it and takes it apart again for each transfer. Where nothing but the path differs it is given only that. */
static void easy_set_url(struct hc_easy *e, const struct cm_xfer *x)
{
    const struct cm_str origin = cm_str(x->url, x->req.url.n - x->to.rest.n);
    const bool split =
        x->to.rest.n > 0 && x->req.proxy.n == 0 && !x->websocket && easy_learn_origin(e, origin);

    if (split != e->has_origin)
        curl_easy_setopt(e->curl, CURLOPT_CURLU, split ? e->origin : NULL);
    e->has_origin = split;
    curl_easy_setopt(e->curl, CURLOPT_REQUEST_TARGET, split ? x->to.rest.p : NULL);
    if (!split)
        curl_easy_setopt(e->curl, CURLOPT_URL, x->url);
}

void hc_easy_set(struct hc_easy *e, struct cm_xfer *x)
{
    const struct cm_xfer_req *req = &x->req;
    long version = curl_http_version(x);
    long upload_buffer = req->body.n >= HC_LARGE_BODY ? HC_UPLOAD_BUFFER_LARGE : HC_UPLOAD_BUFFER;
    int64_t left_ms = req->connect_timeout_ms;
    struct cm_str proxy = cm_str_of(e->proxy);

    if (left_ms > 0 && x->info.resolved_us >= 1000)
        left_ms -= (int64_t)(x->info.resolved_us / 1000);
    if (left_ms < 1)
        left_ms = 1;
    easy_set_url(e, x);
    curl_easy_setopt(e->curl, CURLOPT_HTTPHEADER, x->headers);
    easy_set_method(e, req);
    easy_set_websocket(e, x->websocket);
    if (version != e->http_version)
        curl_easy_setopt(e->curl, CURLOPT_HTTP_VERSION, e->http_version = version);
    if (upload_buffer != e->upload_buffer)
        curl_easy_setopt(e->curl, CURLOPT_UPLOAD_BUFFERSIZE, e->upload_buffer = upload_buffer);
    if (left_ms != e->connect_timeout_ms) {
        curl_easy_setopt(e->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)left_ms);
        e->connect_timeout_ms = left_ms;
    }
    if (!cm_str_eq(proxy, req->proxy)) {
        cm_secret_free(e->proxy);
        e->proxy =
            req->proxy.n > 0 ? cm_secret_alloc(req->proxy.n + 1) : NULL; /* may hold a password */
        if (e->proxy)
            cm_str_copy(e->proxy, req->proxy.n + 1, req->proxy);
        curl_easy_setopt(e->curl, CURLOPT_PROXY, e->proxy ? e->proxy : "");
    }
    if (req->unix_path.n > 0 || req->pinned_key.n > 0 || req->unverified)
        hc_easy_set_local(e, req->unix_path, req->pinned_key, req->unverified);
    if (x->resolve) {
        curl_easy_setopt(e->curl, CURLOPT_RESOLVE, x->resolve);
        e->has_resolve = true;
    }
}
