/* Headers every answer has: request id, what served it, limits of the upstream, CORS. */
#include "gateway_int.h"

#include "chatmux/base/mem.h"

#define RETRY_SOON_S 60 /* SDKs ignore a longer retry-after */

void respond_add(struct respond *r, struct cm_str name, struct cm_str value)
{
    CM_ASSERT(r->n < RESPOND_HEADERS_MAX);
    if (value.n > 0)
        r->v[r->n++] = (struct cm_header){name, value};
}

void respond_cors(struct respond *r, const struct cm_config *config, const struct cm_req *req,
                  bool preflight)
{
    struct cm_str origin = cm_req_header(req, CM_S("origin"));
    const struct cm_strs *list = &config->server.cors_origins;

    for (size_t i = 0; i < list->n && origin.n > 0; i++) {
        bool any = cm_str_eq(list->v[i], CM_S("*"));

        if (!any && !cm_str_eq_nocase(list->v[i], origin))
            continue;
        respond_add(r, CM_S("access-control-allow-origin"), any ? CM_S("*") : origin);
        if (!any)
            respond_add(r, CM_S("vary"), CM_S("origin"));
        respond_add(
            r, CM_S("access-control-expose-headers"),
            CM_S(
                "x-request-id, retry-after, x-chatmux-provider, x-chatmux-model, x-chatmux-attempts"));
        if (preflight) {
            struct cm_str wanted = cm_req_header(req, CM_S("access-control-request-headers"));

            respond_add(r, CM_S("access-control-allow-methods"),
                        CM_S("GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"));
            respond_add(r, CM_S("access-control-allow-headers"),
                        wanted.n ? wanted : CM_S("authorization, content-type"));
            respond_add(r, CM_S("access-control-max-age"), CM_S("86400"));
        }
        return;
    }
}

void respond_begin(struct respond *r, struct exchange *ex)
{
    r->n = 0;
    respond_add(r, CM_S("x-request-id"), ex->id);
    if (ex->attempts > 0) {
        respond_add(r, CM_S("x-chatmux-provider"),
                    ex->snap->offers[ex->targets[ex->target].provider].provider);
        respond_add(r, CM_S("x-chatmux-model"), ex->targets[ex->target].model);
        respond_add(r, CM_S("x-chatmux-attempts"), cm_arena_printf(&ex->arena, "%u", ex->attempts));
    }
    for (size_t i = 0; i < ex->n_passed && r->n < RESPOND_HEADERS_MAX - 12; i++)
        respond_add(r, ex->passed[i].name, ex->passed[i].value);
    if (ex->req)
        respond_cors(r, ex->snap->config, ex->req, false);
}

void respond_error(struct exchange *ex, const struct cm_err *err, bool spent)
{
    struct cm_buf body = {0};
    struct respond r;

    respond_begin(&r, ex);
    respond_add(&r, CM_S("content-type"), CM_S("application/json"));
    if (err->retry_after_s > 0)
        respond_add(&r, CM_S("retry-after"), cm_arena_printf(&ex->arena, "%d", err->retry_after_s));
    if (spent && (err->retry_after_s <= 0 || err->retry_after_s > RETRY_SOON_S))
        respond_add(&r, CM_S("x-should-retry"), CM_S("false"));
    if (err->cls == CM_ERR_UNAUTHORIZED)
        respond_add(&r, CM_S("www-authenticate"), CM_S("Bearer"));
    (ex->surface ? ex->surface : &cm_surface_openai_chat)->error_body(err, &body);
    ex->status = cm_err_status(err);
    ex->bytes_out = body.n;
    cm_resp_send(ex->req, ex->status, r.v, r.n, cm_buf_str(&body));
    cm_buf_clear(&body);
}
