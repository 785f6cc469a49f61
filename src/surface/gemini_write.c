/* Answers and errors in Gemini's shape. Protocol notes, sections 3, 4 and 6. */
#include "gemini_int.h"

#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"

const char *cm_gemini_finish(enum cm_finish finish)
{
    switch (finish) {
    case CM_FINISH_LENGTH:
    case CM_FINISH_CONTEXT:
        return "MAX_TOKENS";
    case CM_FINISH_CONTENT_FILTER:
    case CM_FINISH_REFUSAL:
        return "SAFETY";
    case CM_FINISH_NONE:
    case CM_FINISH_STOP:
    case CM_FINISH_STOP_SEQUENCE:
    case CM_FINISH_PAUSE:
    case CM_FINISH_TOOL_CALLS:
        break;
    }
    return "STOP";
}

bool cm_gemini_shows_thoughts(const struct cm_answer_meta *meta)
{
    return meta->chat->show_thinking == 1 && meta->reasoning != CM_REASONING_HIDE;
}

static void put_count(struct cm_buf *out, const char *name, int64_t count)
{
    if (count <= 0) /* what is zero is left out */
        return;
    if (out->p[out->n - 1] != '{')
        cm_buf_put(out, ',');
    cm_json_put_z(out, name);
    cm_buf_put(out, ':');
    cm_json_put_int(out, count);
}

void cm_gemini_put_usage(struct cm_buf *out, const struct cm_usage *usage)
{
    cm_buf_put(out, '{');
    put_count(out, "promptTokenCount", cm_usage_in(usage));
    put_count(out, "cachedContentTokenCount", usage->in_cache_read);
    put_count(out, "candidatesTokenCount", usage->out_text);
    put_count(out, "thoughtsTokenCount", usage->out_reasoning);
    put_count(out, "totalTokenCount", cm_usage_in(usage) + cm_usage_out(usage));
    cm_buf_put(out, '}');
}

/* ---- parts ---- */

void cm_gemini_put_call(struct cm_buf *out, struct cm_str id, struct cm_str name,
                        struct cm_str args)
{
    yyjson_doc *doc = cm_json_parse(args, &cm_json_limits_event, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc);

    cm_buf_append(out, CM_S("{\"functionCall\":{"));
    if (id.n > 0) {
        cm_buf_append(out, CM_S("\"id\":"));
        cm_json_put_str(out, id);
        cm_buf_put(out, ',');
    }
    cm_buf_append(out, CM_S("\"name\":"));
    cm_json_put_str(out, name);
    cm_buf_append(out, CM_S(",\"args\":"));
    if (yyjson_is_obj(root)) {
        cm_json_put_val(out, root);
    } else if (cm_str_trim(args).n == 0 || yyjson_is_null(root)) {
        cm_buf_append(out, CM_S("{}"));
    } else { /* this dialect has objects only */
        cm_buf_append(out, CM_S("{\"raw\":"));
        cm_json_put_str(out, args);
        cm_buf_put(out, '}');
    }
    cm_buf_append(out, CM_S("}}"));
    yyjson_doc_free(doc);
}

void cm_gemini_put_image(struct cm_buf *out, const struct cm_image_acc *image)
{
    struct cm_buf text = {0};

    if (image->data.n > 0) {
        cm_buf_append(out, CM_S("{\"inlineData\":{\"mimeType\":"));
        cm_json_put_str(out, image->media_type.n > 0 ? image->media_type : CM_S("image/png"));
        cm_buf_append(out, CM_S(",\"data\":"));
        cm_json_put_str(out, image->data);
        cm_buf_append(out, CM_S("}}"));
        return;
    }
    cm_buf_printf(&text, "![](" CM_PRI ")", CM_ARG(image->url));
    cm_buf_append(out, CM_S("{\"text\":"));
    cm_json_put_str(out, cm_buf_str(&text));
    cm_buf_put(out, '}');
    cm_buf_clear(&text);
}

void cm_gemini_put_grounding(struct cm_buf *out, const struct cm_citation *citations, size_t n)
{
    cm_buf_append(out, CM_S("\"groundingMetadata\":{\"groundingChunks\":["));
    for (size_t i = 0; i < n; i++) {
        cm_buf_append(out, i > 0 ? CM_S(",{\"web\":{\"uri\":") : CM_S("{\"web\":{\"uri\":"));
        cm_json_put_str(out, citations[i].url);
        cm_buf_append(out, CM_S(",\"title\":"));
        cm_json_put_str(out, citations[i].title);
        cm_buf_append(out, CM_S("}}"));
    }
    cm_buf_append(out, CM_S("]}"));
}

void cm_gemini_put_meta(struct cm_buf *out, const struct cm_answer_meta *meta)
{
    cm_buf_append(out, CM_S(",\"modelVersion\":"));
    cm_json_put_str(out, meta->model);
    cm_buf_append(out, CM_S(",\"responseId\":"));
    cm_json_put_str(out, meta->id);
}

/* ---- the whole answer ---- */

static void put_text(struct cm_buf *out, struct cm_str text, bool thought)
{
    if (text.n == 0)
        return;
    if (out->p[out->n - 1] != '[')
        cm_buf_put(out, ',');
    cm_buf_append(out, CM_S("{\"text\":"));
    cm_json_put_str(out, text);
    cm_buf_append(out, thought ? CM_S(",\"thought\":true}") : CM_S("}"));
}

static void put_probabilities(struct cm_buf *out, const struct cm_answer_meta *meta,
                              const struct cm_choice_acc *c)
{
    struct cm_gemini_mean mean = {0};
    struct cm_buf array = {0};

    if (c->logprobs.n == 0)
        return;
    cm_buf_put(&array, '[');
    cm_buf_append(&array, cm_buf_str(&c->logprobs));
    cm_buf_put(&array, ']');
    cm_gemini_put_logprobs(out, meta, cm_buf_str(&array), &mean);
    cm_gemini_put_mean(out, &mean);
    cm_buf_clear(&array);
}

static void put_candidate(struct cm_buf *out, const struct cm_answer_meta *meta,
                          const struct cm_answer *answer, size_t index)
{
    const struct cm_choice_acc *c = &answer->choices[index];

    cm_buf_append(out, CM_S("{\"content\":{\"parts\":["));
    if (cm_gemini_shows_thoughts(meta))
        put_text(out, cm_buf_str(&c->reasoning), true);
    put_text(out, cm_buf_str(&c->text), false);
    put_text(out, cm_buf_str(&c->refusal), false);
    for (size_t i = 0; i < answer->n_images && index == 0; i++) {
        if (out->p[out->n - 1] != '[')
            cm_buf_put(out, ',');
        cm_gemini_put_image(out, &answer->images[i]);
    }
    for (size_t i = 0; i < c->n_calls; i++) {
        if (out->p[out->n - 1] != '[')
            cm_buf_put(out, ',');
        cm_gemini_put_call(out, c->calls[i].id, c->calls[i].name, cm_buf_str(&c->calls[i].args));
    }
    if (out->p[out->n - 1] == '[') /* clients look into the first part */
        cm_buf_append(out, CM_S("{\"text\":\"\"}"));
    cm_buf_append(out, CM_S("],\"role\":\"model\"},\"finishReason\":"));
    cm_json_put_z(out, cm_gemini_finish(c->finish));
    cm_buf_append(out, CM_S(",\"index\":"));
    cm_buf_put_u64(out, index);
    put_probabilities(out, meta, c);
    if (c->n_citations > 0) {
        cm_buf_put(out, ',');
        cm_gemini_put_grounding(out, c->citations, c->n_citations);
    }
    cm_buf_put(out, '}');
}

void cm_gemini_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                     struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"candidates\":["));
    for (size_t i = 0; i < answer->n_choices; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        put_candidate(out, meta, answer, i);
    }
    cm_buf_append(out, CM_S("],\"usageMetadata\":"));
    cm_gemini_put_usage(out, &answer->usage);
    cm_gemini_put_meta(out, meta);
    cm_buf_put(out, '}');
}

/* ---- errors ---- */

static const char *status_name(int status)
{
    switch (status) {
    case 401:
        return "UNAUTHENTICATED";
    case 403:
        return "PERMISSION_DENIED";
    case 404:
        return "NOT_FOUND";
    case 408:
    case 504:
        return "DEADLINE_EXCEEDED";
    case 429:
        return "RESOURCE_EXHAUSTED";
    case 500:
        return "INTERNAL";
    default:
        return status >= 500 ? "UNAVAILABLE" : "INVALID_ARGUMENT";
    }
}

static void put_details(const struct cm_err *err, struct cm_buf *out)
{
    bool any = false;

    if (err->param[0] == '\0' && err->retry_after_s <= 0)
        return;
    cm_buf_append(out, CM_S(",\"details\":["));
    if (err->param[0] != '\0') {
        cm_buf_append(out, CM_S("{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\","
                                "\"fieldViolations\":[{\"field\":"));
        cm_json_put_z(out, err->param);
        cm_buf_append(out, CM_S(",\"description\":"));
        cm_json_put_z(out, err->msg);
        cm_buf_append(out, CM_S("}]}"));
        any = true;
    }
    if (err->retry_after_s > 0)
        cm_buf_printf(out,
                      "%s{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\","
                      "\"retryDelay\":\"%ds\"}",
                      any ? "," : "", err->retry_after_s);
    cm_buf_put(out, ']');
}

void cm_gemini_put_error(const struct cm_err *err, struct cm_buf *out)
{
    const int status = cm_err_status(err);

    cm_buf_append(out, CM_S("{\"error\":{\"code\":"));
    cm_json_put_int(out, status);
    cm_buf_append(out, CM_S(",\"message\":"));
    cm_json_put_z(out, err->msg);
    cm_buf_append(out, CM_S(",\"status\":"));
    cm_json_put_z(out, status_name(status));
    put_details(err, out);
    cm_buf_append(out, CM_S("}}"));
}

void cm_gemini_put_error_array(const struct cm_err *err, struct cm_buf *out)
{
    cm_buf_put(out, '[');
    cm_gemini_put_error(err, out);
    cm_buf_put(out, ']');
}
