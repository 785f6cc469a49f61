/* Who is it: the client's key in all the places where clients put one, and the rule that keeps web pages out of an open gateway. */
#include "gateway_int.h"

#include "chatmux/base/enc.h"

static struct cm_str without_bearer(struct cm_str value)
{
    if (cm_str_starts_nocase(value, CM_S("Bearer ")))
        value = cm_str_trim(cm_str_from(value, sizeof("Bearer ") - 1));
    return value;
}

/* ?key=… as Google's SDKs write it; decoded into the request's arena. */
static struct cm_str key_of_query(struct cm_req *req)
{
    struct cm_str rest = req->query;
    struct cm_buf plain = {0};
    struct cm_str found = CM_STR_NONE;

    while (rest.n > 0) {
        struct cm_str value = cm_str_cut(&rest, '&'), name = cm_str_cut(&value, '=');

        cm_buf_reset(&plain);
        if (cm_str_eq(name, CM_S("key")) && cm_percent_decode(&plain, value, true) == 0) {
            found = cm_arena_str(&req->arena, cm_buf_str(&plain));
            break;
        }
    }
    cm_buf_clear(&plain);
    return found;
}

/* WebSocket clients in browsers cannot set headers: they offer the key as a subprotocol. */
static struct cm_str key_of_subprotocol(const struct cm_req *req)
{
    struct cm_str mark = CM_S("openai-insecure-api-key.");
    struct cm_str rest = cm_req_header(req, CM_S("sec-websocket-protocol"));

    while (rest.n > 0) {
        struct cm_str item = cm_str_trim(cm_str_cut(&rest, ','));

        if (cm_str_starts(item, mark))
            return cm_str_from(item, mark.n);
    }
    return CM_STR_NONE;
}

static struct cm_str key_of(struct cm_req *req)
{
    struct cm_str key = without_bearer(cm_req_header(req, CM_S("authorization")));

    if (key.n == 0)
        key = cm_req_header(req, CM_S("x-api-key"));
    if (key.n == 0)
        key = cm_req_header(req, CM_S("x-goog-api-key"));
    if (key.n == 0)
        key = key_of_query(req);
    if (key.n == 0)
        key = key_of_subprotocol(req);
    return key;
}

/* "name:8080" or "[::1]:8080" -> without the port. */
static struct cm_str host_name(struct cm_str host)
{
    size_t end = cm_str_find_char(host, cm_str_starts(host, CM_S("[")) ? ']' : ':');

    if (end < host.n && host.p[end] == ']')
        end++;
    if (end >= host.n || host.p[end] != ':')
        return host;
    return cm_str_head(host, end);
}

static bool is_this_machine(struct cm_str name)
{
    return cm_str_eq_nocase(name, CM_S("localhost")) || cm_str_eq(name, CM_S("127.0.0.1")) ||
           cm_str_eq(name, CM_S("[::1]"));
}

static bool origin_allowed(const struct snapshot *s, const struct cm_req *req, struct cm_str origin)
{
    const struct cm_strs *list = &s->config->server.cors_origins;
    size_t scheme = cm_str_find(origin, CM_S("://"));

    for (size_t i = 0; i < list->n; i++)
        if (cm_str_eq(list->v[i], CM_S("*")) || cm_str_eq_nocase(list->v[i], origin))
            return true;
    if (scheme == SIZE_MAX)
        return false; /* "null": a sandboxed page, a local file */
    return cm_str_eq_nocase(cm_str_from(origin, scheme + 3), cm_req_header(req, CM_S("host")));
}

/* Any web page in the operator's browser can reach an open gateway on this machine, by its address or by a name that is bound to it anew: only requests
 * that name this machine and come from no foreign page are served. Beyond this machine the operator said so, and names are not ours to judge. */
int auth_check_open(const struct snapshot *s, const struct cm_req *req, struct cm_err *err)
{
    struct cm_str host = cm_req_header(req, CM_S("host")),
                  origin = cm_req_header(req, CM_S("origin"));

    if (s->loopback_only && !cm_str_eq(req->peer, CM_S("unix")) && host.n > 0 &&
        !is_this_machine(host_name(host)))
        return cm_fail(
            err, CM_ERR_FORBIDDEN,
            "this gateway is open to its own machine only: use localhost or 127.0.0.1, not \"" CM_PRI
            "\", or set auth.keys",
            CM_ARG(cm_str_head(host, 80)));
    if (origin.n > 0 && !origin_allowed(s, req, origin))
        return cm_fail(
            err, CM_ERR_FORBIDDEN,
            "a page of " CM_PRI
            " may not use this open gateway: set auth.keys, or add the page to server.cors_origins",
            CM_ARG(cm_str_head(origin, 80)));
    return 0;
}

bool auth_is_open(const struct cm_gateway *gw)
{
    return gw->now->config->auth.open || cm_keys_count(gw->keys) == 0;
}

int auth_check(struct cm_gateway *gw, struct cm_req *req, struct cm_key **key, struct cm_err *err)
{
    struct cm_str given = key_of(req);
    /* coding clients send two: a token of their own account, and the key meant for us */
    struct cm_str other = cm_req_header(req, CM_S("x-api-key"));

    *key = given.n > 0 ? cm_keys_find(gw->keys, given, err) : NULL;
    if (!*key && other.n > 0 && !cm_str_eq(other, given))
        *key = cm_keys_find(gw->keys, other, NULL);
    if (*key) /* a known key counts where none is needed, too: its limits hold */
        return 0;
    if (auth_is_open(gw))
        return auth_check_open(gw->now, req, err);
    if (given.n == 0)
        return cm_fail(err, CM_ERR_UNAUTHORIZED,
                       "no API key given: send one as \"Authorization: Bearer …\"");
    return -1;
}

static bool is_admin(const struct snapshot *s, struct cm_str given)
{
    unsigned char a[CM_SHA256_SIZE], b[CM_SHA256_SIZE];

    cm_sha256(given,
              a); /* equal lengths, so that the comparison tells nothing about the secret's */
    cm_sha256(s->config->auth.admin_secret, b);
    return s->config->auth.admin_secret.n > 0 &&
           cm_secret_eq(cm_str((const char *)a, sizeof(a)), cm_str((const char *)b, sizeof(b)));
}

int auth_check_operator(const struct snapshot *s, const struct cm_req *req, bool *is,
                        struct cm_err *err)
{
    struct cm_str given = cm_req_header(req, CM_S("x-chatmux-admin"));

    *is = given.n > 0 && is_admin(s, given);
    if (given.n > 0 && !*is)
        return cm_fail(err, CM_ERR_UNAUTHORIZED, "x-chatmux-admin is not the admin secret");
    return 0;
}

int auth_check_admin(const struct snapshot *s, const struct cm_req *req, struct cm_err *err)
{
    struct cm_str given = without_bearer(cm_req_header(req, CM_S("authorization")));
    struct cm_str secret = s->config->auth.admin_secret;

    if (secret.n == 0)
        return cm_fail(err, CM_ERR_NOT_FOUND,
                       "the admin API is off: set auth.admin_secret to switch it on");
    if (!is_admin(s, given))
        return cm_fail(err, CM_ERR_UNAUTHORIZED,
                       given.n
                           ? "wrong admin secret"
                           : "the admin secret is needed: send it as \"Authorization: Bearer …\"");
    return 0;
}
