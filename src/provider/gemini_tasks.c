/* Vectors and token counts for clients of other dialects. Wire facts: Gemini protocol notes, sections 3 and 5. */
#include "gemini_int.h"

#define VECTORS_MAX ((size_t)64 * 1024 * 1024) /* bytes of one reply */

static enum cm_step post(struct cm_run *run, const char *operation, struct cm_buf *body)
{
    struct cm_call call = {.method = "POST",
                           .url = gemini_url(run, operation, CM_STR_NONE),
                           .body = cm_buf_str(body),
                           .max_reply = VECTORS_MAX};

    call.headers = gemini_headers(run, &call.n_headers);
    return cm_run_fetch(run, &call);
}

static void put_model(struct cm_run *run, struct cm_buf *out)
{
    gemini_key(out, "model");
    cm_buf_append(out, gemini_model_json(run));
}

/* ---- embeddings ---- */

enum cm_step gemini_embed_ask(struct cm_run *run, size_t from, struct cm_buf *body,
                              struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);

    if (chat->n_inputs == 0) {
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "input",
                      "this model makes vectors of texts; tokens as numbers mean nothing to it");
        return CM_STEP_FAIL;
    }
    cm_buf_reset(body);
    cm_buf_append(body, CM_S("{\"requests\":["));
    for (size_t i = from; i < chat->n_inputs && i < from + GEMINI_EMBED_BATCH; i++) {
        gemini_element(body);
        cm_buf_put(body, '{');
        put_model(run, body);
        cm_buf_append(body, CM_S(",\"content\":{\"parts\":[{\"text\":"));
        cm_json_put_str(body, chat->inputs[i]);
        cm_buf_append(body, CM_S("}]}"));
        if (chat->dimensions > 0) {
            gemini_key(body, "outputDimensionality");
            cm_json_put_int(body, chat->dimensions);
        }
        cm_buf_put(body, '}');
    }
    cm_buf_append(body, CM_S("]}"));
    return post(run, "batchEmbedContents", body);
}

static void tell_vector(struct cm_run *run, size_t index, yyjson_val *values)
{
    struct cm_event ev = {.kind = CM_EVENT_EMBEDDING, .index = (int)index};
    struct cm_buf bytes = {0};
    yyjson_val *v;
    size_t i, n;

    yyjson_arr_foreach(values, i, n, v)
    {
        const float f = (float)yyjson_get_num(v);

        cm_buf_append(&bytes, cm_str((const char *)&f, sizeof(f)));
    }
    ev.data = cm_buf_str(&bytes);
    cm_run_emit(run, &ev);
    cm_buf_clear(&bytes);
}

int gemini_embed_read(struct cm_run *run, size_t from, size_t wanted, struct cm_str reply,
                      struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(reply, &cm_json_limits_request, NULL);
    yyjson_val *list = cm_json_get(yyjson_doc_get_root(doc), "embeddings"), *v;
    const size_t batch = wanted - from < GEMINI_EMBED_BATCH ? wanted - from : GEMINI_EMBED_BATCH;
    size_t i, n = yyjson_arr_size(list);

    if (n != batch) {
        yyjson_doc_free(doc);
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent %zu vectors instead of %zu",
                       CM_ARG(cm_run_instance(run)->name), n, batch);
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        tell_vector(run, from + i, cm_json_get(v, "values"));
    }
    yyjson_doc_free(doc);
    return 0;
}

/* ---- how many tokens ---- */

enum cm_step gemini_count_ask(struct cm_run *run, const struct cm_attach *attached,
                              struct cm_buf *body, struct cm_err *err)
{
    struct cm_buf request = {0};
    int failed = gemini_put_request(run, attached, &request, err);

    /* the whole request with its model: contents alone would leave system text and tools out */
    cm_buf_reset(body);
    cm_buf_append(body, CM_S("{\"generateContentRequest\":{"));
    put_model(run, body);
    if (!failed) {
        cm_buf_put(body, ',');
        cm_buf_append(body, cm_str_from(cm_buf_str(&request), 1)); /* behind its brace */
    }
    cm_buf_put(body, '}');
    cm_buf_clear(&request);
    return failed ? CM_STEP_FAIL : post(run, "countTokens", body);
}

int gemini_count_read(struct cm_run *run, struct cm_str reply, struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(reply, &cm_json_limits_event, NULL);
    yyjson_val *total = cm_json_get(yyjson_doc_get_root(doc), "totalTokens");
    const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM,
                                   .in_uncached =
                                       yyjson_is_uint(total) ? yyjson_get_sint(total) : 0};
    const bool told = yyjson_is_uint(total) && usage.in_uncached >= 0;

    yyjson_doc_free(doc);
    if (!told)
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI ": the count of tokens cannot be read",
                       CM_ARG(cm_run_instance(run)->name));
    cm_run_usage(run, &usage);
    return 0;
}
