/* Routes of Gemini's dialect: one path for every model, whose last segment ends in the operation. */
#include "gateway_int.h"

#include "chatmux/base/enc.h"

#define PAGE_MAX 1000

/* ?name=value, as it was written; "" = none. */
static struct cm_str query_value(struct cm_str query, struct cm_str name)
{
    while (query.n > 0) {
        struct cm_str value = cm_str_cut(&query, '&');

        if (cm_str_eq(cm_str_cut(&value, '='), name))
            return value;
    }
    return CM_STR_NONE;
}

/* "generateContent" -> who speaks it; NULL: nobody. */
static const struct cm_surface *surface_of(struct cm_str operation, struct cm_str query)
{
    static const struct {
        struct cm_str name;
        const struct cm_surface *surface;
    } operations[] = {
        {CM_S_INIT("generateContent"), &cm_surface_gemini},
        {CM_S_INIT("countTokens"), &cm_surface_gemini_count},
        {CM_S_INIT("embedContent"), &cm_surface_gemini_embed},
        {CM_S_INIT("batchEmbedContents"), &cm_surface_gemini_batch_embed},
    };

    if (cm_str_eq(operation, CM_S("streamGenerateContent")))
        return cm_str_eq(query_value(query, CM_S("alt")), CM_S("sse")) ||
                       cm_str_eq(query_value(query, CM_S("$alt")), CM_S("sse")) ||
                       cm_str_eq(query_value(query, CM_S("%24alt")), CM_S("sse"))
                   ? &cm_surface_gemini
                   : &cm_surface_gemini_array;
    for (size_t i = 0; i < CM_COUNT(operations); i++) {
        if (cm_str_eq(operations[i].name, operation))
            return operations[i].surface;
    }
    return NULL;
}

void serve_gemini(struct exchange *ex, struct cm_str rest)
{
    struct cm_str operation = rest;
    struct cm_err err = {0};

    while (cm_str_has(operation, CM_S(":"))) /* a model's name may have one, too */
        cm_str_cut(&operation, ':');
    ex->surface = operation.n < rest.n ? surface_of(operation, ex->req->query) : NULL;
    if (ex->surface) {
        serve_chat(ex, rest);
        return;
    }
    ex->surface = &cm_surface_gemini;
    cm_fail(&err, CM_ERR_NOT_FOUND,
            "unknown operation in " CM_PRI
            "; there are generateContent, streamGenerateContent, countTokens, embedContent and "
            "batchEmbedContents",
            CM_ARG(cm_str_head(ex->path, 120)));
    exchange_fail(ex, &err);
}

bool gemini_speaks(struct exchange *ex, const struct cm_req *req)
{
    struct cm_str path = route_bare(&ex->arena, ex->snap->config->server.route_prefix, req->path);

    return cm_req_header(req, CM_S("x-goog-api-client")).n > 0 ||
           route_strip(&path, CM_S("/v1beta"));
}

void gemini_list_models(struct exchange *ex, const struct cm_model_listed *models, size_t n,
                        struct cm_buf *out)
{
    uint64_t from = 0, count = PAGE_MAX;

    cm_str_to_u64(query_value(ex->req->query, CM_S("pageToken")), n, &from);
    cm_str_to_u64(query_value(ex->req->query, CM_S("pageSize")), PAGE_MAX, &count);
    cm_gemini_models(models, n, (size_t)from, count > 0 ? (size_t)count : PAGE_MAX, out);
}
