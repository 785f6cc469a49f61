/* Finds the gateway, and runs the loop for as long as one answer takes. */
#include "client.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/log.h"

#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>

#define BODY_MAX_BYTES ((size_t)64 << 20)

/* ---- where it is ---- */

/* The public key of a certificate as libcurl wants it pinned; "" when the file cannot be read. */
static struct cm_str pin_of(struct cm_arena *a, struct cm_str cert_file)
{
    FILE *file = fopen(cm_arena_z(a, cert_file), "re");
    X509 *cert = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
    unsigned char hash[CM_SHA256_SIZE], *der = NULL;
    int n = cert ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der) : 0;
    struct cm_buf text = {0};
    struct cm_str pin = CM_STR_NONE;

    if (n > 0) {
        cm_sha256(cm_str((const char *)der, (size_t)n), hash);
        cm_buf_append(&text, CM_S("sha256//"));
        cm_base64(&text, cm_str((const char *)hash, sizeof(hash)));
        pin = cm_arena_str(a, cm_buf_str(&text));
    }
    cm_buf_clear(&text);
    OPENSSL_free(der);
    X509_free(cert);
    if (file)
        fclose(file);
    return pin;
}

static void use_unix(struct client *c, struct cm_str path)
{
    c->unix_path = cm_arena_str(&c->arena, path);
    c->address = cm_arena_printf(&c->arena, "unix:" CM_PRI, CM_ARG(path));
}

/* An address that stands for all of this machine's is asked through loopback. */
static void use_tcp(struct client *c, const struct cm_listen_spec *spec, const char *scheme)
{
    bool v6 = cm_str_find_char(spec->host, ':') != SIZE_MAX;
    struct cm_str host = spec->host;

    if (host.n == 0 || cm_str_eq(host, CM_S("0.0.0.0")))
        host = CM_S("127.0.0.1");
    else if (cm_str_eq(host, CM_S("::")))
        host = CM_S("::1");
    c->base = cm_arena_printf(&c->arena, "%s://%s" CM_PRI "%s:%u", scheme, v6 ? "[" : "",
                              CM_ARG(host), v6 ? "]" : "", spec->port);
    c->address = c->base;
}

static int find_in_config(struct client *c, struct cm_err *err)
{
    const struct cm_strs *listen = &c->config->server.listen;
    struct cm_str cert = c->config->server.tls_cert;
    const char *scheme = cert.n > 0 ? "https" : "http";

    c->base = cm_arena_printf(&c->arena, "%s://localhost", scheme);
    for (size_t i = 0; i < listen->n && c->address.n == 0; i++) {
        struct cm_listen_spec spec;

        if (cm_conf_listen(listen->v[i], &spec, NULL) < 0)
            continue;
        if (spec.kind == CM_LISTEN_UNIX)
            use_unix(c, spec.path);
        else if (spec.kind == CM_LISTEN_TCP && spec.port > 0)
            use_tcp(c, &spec, scheme);
    }
    if (c->address.n == 0)
        return cm_fail(err, CM_ERR_CONFIG,
                       "server.listen does not tell where the gateway is; set CHATMUX_ADMIN_URL "
                       "(http://127.0.0.1:8080 or unix:/path)");
    if (cert.n > 0 && (c->pinned_key = pin_of(&c->arena, cert)).n == 0)
        return cm_fail(err, CM_ERR_CONFIG, "server.tls_cert: " CM_PRI " cannot be read",
                       CM_ARG(cert));
    return 0;
}

static int find_by_url(struct client *c, struct cm_str url, struct cm_err *err)
{
    c->base = CM_S("http://localhost");
    if (cm_str_starts(url, CM_S("unix:/"))) {
        use_unix(c, cm_str_from(url, strlen("unix:")));
        return 0;
    }
    if (!cm_str_starts(url, CM_S("http://")) && !cm_str_starts(url, CM_S("https://")))
        return cm_fail(err, CM_ERR_CONFIG,
                       "CHATMUX_ADMIN_URL must be http://HOST:PORT, https://HOST:PORT or "
                       "unix:/path");
    while (cm_str_ends(url, CM_S("/")))
        url.n--;
    c->base = c->address = cm_arena_str(&c->arena, url);
    return 0;
}

/* As it is, problems and all: a client needs little of it, and may lack the variables that it mentions. */
static int load(struct client *c, const struct cm_conf_source *source, struct cm_err *err)
{
    struct cm_conf_source here = *source;
    struct cm_arena texts = {0};
    struct cm_problems problems;

    here.check = NULL;
    here.lenient = true;
    cm_problems_init(&problems, &texts);
    c->config = cm_config_load(&here, &problems);
    if (!c->config)
        cm_fail(err, CM_ERR_CONFIG, CM_PRI ": " CM_PRI "; or set CHATMUX_ADMIN_URL",
                CM_ARG(problems.first->where), CM_ARG(problems.first->text));
    cm_arena_clear(&texts);
    return c->config ? 0 : -1;
}

int client_open(struct client *c, const struct cm_conf_source *source, struct cm_err *err)
{
    const struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_WARN};
    const char *url = getenv("CHATMUX_ADMIN_URL"), *secret = getenv("CHATMUX_ADMIN_SECRET");

    *c = (struct client){0};
    cm_log_setup(&quiet);
    if (url && *url ? find_by_url(c, cm_str_of(url), err) < 0
                    : load(c, source, err) < 0 || find_in_config(c, err) < 0) {
        client_close(c);
        return -1;
    }
    if (secret && *secret)
        c->secret = cm_arena_str(&c->arena, cm_str_of(secret));
    else if (c->config)
        c->secret = cm_arena_str(&c->arena, c->config->auth.admin_secret);
    c->loop = cm_loop_new();
    c->httpc = cm_httpc_new(c->loop);
    return 0;
}

void client_close(struct client *c)
{
    if (c->loop) {
        cm_httpc_close(c->httpc);
        cm_loop_free(c->loop);
    }
    if (c->secret.n > 0)
        cm_wipe((char *)(uintptr_t)c->secret.p, c->secret.n);
    cm_config_unref(c->config);
    cm_arena_clear(&c->arena);
}

/* ---- asking ---- */

struct asking {
    struct cm_loop *loop;
    struct client_answer *out;
    struct cm_err *err;
    bool ended, failed;
};

static void on_head(void *arg, int status, const struct cm_header *headers, size_t n)
{
    struct asking *a = arg;

    (void)headers, (void)n;
    a->out->status = status;
}

static void on_data(void *arg, struct cm_str piece)
{
    cm_buf_append(&((struct asking *)arg)->out->body, piece);
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct asking *a = arg;

    a->ended = true;
    if (err) {
        a->failed = true;
        *a->err = *err;
    }
    cm_loop_stop(a->loop);
}

static void on_timeout(void *arg)
{
    cm_loop_stop(((struct asking *)arg)->loop);
}

int client_ask(struct client *c, const char *method, const char *path, struct cm_str json,
               int64_t timeout_ms, struct client_answer *out, struct cm_err *err)
{
    static const struct cm_xfer_cb cb = {on_head, on_data, on_end};
    struct asking a = {.loop = c->loop, .out = out, .err = err};
    struct cm_arena texts = {0};
    struct cm_str bearer = CM_STR_NONE;
    struct cm_header headers[2];
    struct cm_xfer_req req = {.method = cm_str_of(method),
                              .headers = headers,
                              .body = json,
                              .connect_timeout_ms = timeout_ms,
                              .unix_path = c->unix_path,
                              .pinned_key = c->pinned_key};
    struct cm_deadline deadline;
    struct cm_xfer *x;
    int rc;

    out->status = 0;
    cm_buf_clear(&out->body);
    cm_buf_init(&out->body, BODY_MAX_BYTES);
    req.url = cm_arena_printf(&texts, CM_PRI "%s", CM_ARG(c->base), path);
    if (json.n > 0)
        headers[req.n_headers++] =
            (struct cm_header){CM_S("Content-Type"), CM_S("application/json")};
    if (c->secret.n > 0 && cm_str_starts(cm_str_of(path), CM_S("/admin/api/"))) {
        bearer = cm_arena_join(&texts, CM_S("Bearer "), c->secret);
        headers[req.n_headers++] = (struct cm_header){CM_S("Authorization"), bearer};
    }
    uv_update_time(cm_loop_uv(c->loop)); /* it stood still since the last answer */
    cm_deadline_init(&deadline, on_timeout, &a);
    cm_deadline_set(c->loop, &deadline, cm_loop_now_ms(c->loop) + (uint64_t)timeout_ms);
    x = cm_xfer_open(c->httpc, &req, &cb, &a);
    cm_loop_run(c->loop);
    cm_xfer_close(x);
    cm_deadline_clear(c->loop, &deadline);
    if (!a.ended)
        rc = cm_fail(err, CM_ERR_TIMEOUT, "no answer within %lld s", (long long)timeout_ms / 1000);
    else if (out->body.failed)
        rc = cm_fail(err, CM_ERR_TOO_LARGE, "the answer is larger than %zu MiB",
                     BODY_MAX_BYTES >> 20);
    else
        rc = a.failed ? -1 : 0;
    if (bearer.n > 0)
        cm_wipe((char *)(uintptr_t)bearer.p, bearer.n);
    cm_arena_clear(&texts);
    return rc;
}

void client_print(struct cm_str text)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];

        putchar(c < ' ' || c == 0x7f ? '?' : c);
    }
}
