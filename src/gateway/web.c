/* Routes of the layers above: found by path segments, served by a handler that answers when it can.
 *
 * A `struct cm_web` belongs to its handler until the answer, so it outlives an exchange whose client has left; then the answer goes nowhere. */
#include "gateway_int.h"

#include "chatmux/base/mem.h"
#include <stdlib.h>

#define BODY_MAX (1024u * 1024)
#define SEGMENTS_MAX 4

struct cm_web {
    struct cm_gateway *gw;
    struct cm_list link; /* in gw->web_queue while it waits for its turn */
    struct exchange *ex; /* NULL once it has ended */
    const struct cm_web_route *route;
    void *arg;
    struct cm_arena arena; /* holds what follows */
    struct cm_str method, path, query, body, address, key_name;
    struct cm_key *key; /* held; NULL = none is needed, or the route asks for none */
    const struct cm_header *headers;
    size_t n_headers;
    struct cm_str segments[SEGMENTS_MAX];
    size_t n_segments;
    bool handed; /* the handler has it */
};

/* Segment by segment; "*" takes one, a final "*" the rest. `path` without its leading slash. */
static bool matches(struct cm_arena *arena, struct cm_str pattern, struct cm_str path,
                    struct cm_str *segments, size_t *n)
{
    *n = 0;
    cm_str_cut(&pattern, '/');
    cm_str_cut(&path, '/');
    for (;;) {
        struct cm_str want = cm_str_cut(&pattern, '/'), got;

        if (cm_str_eq(want, CM_S("*")) && pattern.n == 0) {
            if (path.n > 0 && *n < SEGMENTS_MAX)
                segments[(*n)++] = route_decoded(arena, path, false);
            return path.n > 0;
        }
        got = cm_str_cut(&path, '/');
        if (cm_str_eq(want, CM_S("*")) && got.n > 0 && *n < SEGMENTS_MAX)
            segments[(*n)++] = route_decoded(arena, got, false);
        else if (!cm_str_eq(want, got))
            return false;
        if (pattern.n == 0)
            return path.n == 0;
    }
}

/* HEAD works like GET. */
static bool serves(const struct cm_web_route *r, struct cm_str method)
{
    return route_lists_method(r->methods, method) ||
           (cm_str_eq(method, CM_S("HEAD")) && route_lists_method(r->methods, CM_S("GET")));
}

static struct cm_str without_prefix(struct cm_str path, struct cm_str prefix)
{
    if (prefix.n > 0 && cm_str_starts(path, prefix) && path.n > prefix.n && path.p[prefix.n] == '/')
        return cm_str_from(path, prefix.n);
    return path;
}

enum route_found web_find(struct exchange *ex, struct cm_str *allow)
{
    struct cm_gateway *gw = ex->gw;
    struct cm_str prefix = ex->snap->config->server.route_prefix,
                  path = without_prefix(ex->path, prefix),
                  bare = route_bare(&ex->arena, prefix, ex->path);
    enum route_found found = ROUTE_NONE;

    for (size_t i = 0; i < gw->n_web_routes; i++) {
        const struct cm_web_route *r = &gw->web_routes[i];
        struct cm_str segments[SEGMENTS_MAX];
        size_t n;

        if (!matches(&ex->arena, cm_str_of(r->path), r->client ? bare : path, segments, &n))
            continue;
        if (!serves(r, ex->method)) {
            *allow = cm_arena_printf(&ex->arena, CM_PRI "%s%s", CM_ARG(*allow),
                                     allow->n ? ", " : "", r->methods);
            found = ROUTE_METHOD;
            continue;
        }
        ex->web = CM_NEW(struct cm_web);
        ex->web->gw = gw;
        ex->web->ex = ex;
        cm_list_init(&ex->web->link);
        ex->web->route = r;
        ex->web->arg = gw->web_arg;
        ex->web->n_segments = n;
        for (size_t k = 0; k < n; k++)
            ex->web->segments[k] = cm_arena_str(&ex->web->arena, segments[k]);
        return ROUTE_OK;
    }
    return found;
}

enum access web_access(const struct exchange *ex)
{
    return ex->web->route->admin ? ACCESS_ADMIN : ex->web->route->client ? ACCESS_KEY : ACCESS_ALL;
}

static void serve(struct cm_web *web)
{
    web->handed = true;
    web->route->serve(web->arg, web);
}

static void hand_over(struct cm_web *web)
{
    if (web->route->exclusive && web->gw->web_turn) {
        cm_list_push(&web->gw->web_queue, &web->link);
        return;
    }
    if (web->route->exclusive)
        web->gw->web_turn = web;
    serve(web);
}

void web_next(void *arg)
{
    struct cm_gateway *gw = arg;
    struct cm_list *link = gw->web_turn ? NULL : cm_list_pop(&gw->web_queue);

    if (link) {
        gw->web_turn = CM_LIST_ITEM(link, struct cm_web, link);
        serve(gw->web_turn);
    }
}

void web_serve(struct exchange *ex)
{
    struct cm_web *web = ex->web;
    struct cm_req *req = ex->req;
    struct cm_header *headers = CM_ARENA_ARRAY(&web->arena, struct cm_header, req->n_headers);

    for (size_t i = 0; i < req->n_headers; i++) {
        const struct cm_header *h = &req->headers[i];

        if (!cm_str_eq_nocase(h->name,
                              CM_S("authorization"))) /* checked before; no copy of it stays */
            headers[web->n_headers++] = (struct cm_header){cm_arena_str(&web->arena, h->name),
                                                           cm_arena_str(&web->arena, h->value)};
    }
    web->headers = headers;
    web->method = cm_arena_str(&web->arena, ex->method);
    web->path = cm_arena_str(&web->arena, ex->path);
    web->query = cm_arena_str(&web->arena, req->query);
    web->address = cm_arena_str(&web->arena, ex->address);
    web->key_name = cm_arena_str(&web->arena, ex->key);
    web->key = ex->client_key ? cm_key_ref(ex->client_key) : NULL;
    if (web->route->body && req->has_body)
        cm_req_read(req, BODY_MAX);
    else
        hand_over(web);
}

void web_body(struct exchange *ex)
{
    ex->web->body = cm_arena_str(&ex->web->arena, cm_buf_str(&ex->body));
    hand_over(ex->web);
}

static void web_free(struct cm_web *web)
{
    struct cm_gateway *gw = web->gw;

    cm_list_remove(&web->link);
    if (gw->web_turn == web) {
        gw->web_turn = NULL;
        cm_task_post(gw->host->loop, &gw->web_next);
    }
    cm_key_unref(web->key);
    cm_arena_clear(&web->arena);
    free(web);
}

void web_gone(struct exchange *ex)
{
    struct cm_web *web = ex->web;

    ex->web = NULL;
    web->ex = NULL;
    if (!web->handed)
        web_free(web);
}

void cm_gateway_mount(struct cm_gateway *gw, const struct cm_web_route *table, size_t n, void *arg)
{
    gw->web_routes = table;
    gw->n_web_routes = n;
    gw->web_arg = arg;
}

struct cm_str cm_web_method(const struct cm_web *web)
{
    return web->method;
}

struct cm_str cm_web_path(const struct cm_web *web)
{
    return web->path;
}

struct cm_str cm_web_segment(const struct cm_web *web, size_t n)
{
    return n < web->n_segments ? web->segments[n] : CM_STR_NONE;
}

struct cm_str cm_web_query(struct cm_web *web, struct cm_str name)
{
    struct cm_str rest = web->query;

    while (rest.n > 0) {
        struct cm_str value = cm_str_cut(&rest, '&'), key = cm_str_cut(&value, '=');

        if (cm_str_eq(key, name))
            return route_decoded(&web->arena, value, true);
    }
    return CM_STR_NONE;
}

struct cm_str cm_web_header(const struct cm_web *web, struct cm_str name)
{
    return cm_header_find(web->headers, web->n_headers, name);
}

struct cm_str cm_web_body(const struct cm_web *web)
{
    return web->body;
}

struct cm_str cm_web_address(const struct cm_web *web)
{
    return web->address;
}

const struct cm_key *cm_web_key(const struct cm_web *web)
{
    return web->key;
}

struct cm_str cm_web_key_name(const struct cm_web *web)
{
    return web->key_name;
}

int cm_web_check_admin(struct cm_web *web, struct cm_err *err)
{
    if (!web->ex)
        return cm_fail(err, CM_ERR_UNAUTHORIZED, "the client has left");
    return request_check_admin(web->ex, err);
}

struct cm_arena *cm_web_arena(struct cm_web *web)
{
    return &web->arena;
}

void cm_web_answer(struct cm_web *web, int status, struct cm_str content_type, struct cm_str body)
{
    struct exchange *ex = web->ex;

    if (ex) {
        ex->web = NULL;
        exchange_answer(ex, status, content_type, body);
    }
    web_free(web);
}

void cm_web_fail(struct cm_web *web, const struct cm_err *err)
{
    struct exchange *ex = web->ex;

    if (ex) {
        ex->web = NULL;
        exchange_fail(ex, err);
    }
    web_free(web);
}
