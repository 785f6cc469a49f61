/* openai: what refusals and figures of an upstream mean. Wire facts: OpenAI protocol notes, sections 1, 3, 8 and 12. */
#include "openai_int.h"

#include "chatmux/base/mem.h"

/* ---- What an upstream's refusal means ---- */

static const struct {
    const char *code;
    enum cm_err_class cls;
} code_classes[] = {
    {"context_length_exceeded", CM_ERR_CONTEXT_LENGTH},
    {"string_above_max_length", CM_ERR_BAD_REQUEST},
    {"content_filter", CM_ERR_CONTENT_FILTER},
    {"content_policy_violation", CM_ERR_CONTENT_FILTER},
    {"insufficient_quota", CM_ERR_QUOTA_EXHAUSTED},
    {"billing_hard_limit_reached", CM_ERR_QUOTA_EXHAUSTED},
    {"rate_limit_exceeded", CM_ERR_RATE_LIMITED},
    {"invalid_api_key", CM_ERR_INVALID_CREDENTIAL},
    {"account_deactivated", CM_ERR_INVALID_CREDENTIAL},
    {"model_not_found", CM_ERR_MODEL_UNAVAILABLE},
    {"unsupported_country_region_territory", CM_ERR_UPSTREAM_DOWN},
    {"overloaded", CM_ERR_OVERLOADED},
    {"overloaded_error", CM_ERR_OVERLOADED},
};

static enum cm_err_class class_of_status(int status)
{
    switch (status) {
    case 401:
        return CM_ERR_INVALID_CREDENTIAL;
    case 402:
        return CM_ERR_QUOTA_EXHAUSTED;
    case 403:
        return CM_ERR_MODEL_UNAVAILABLE; /* a permission this account lacks; another may have it */
    case 408:
        return CM_ERR_TIMEOUT;
    case 429:
        return CM_ERR_RATE_LIMITED;
    case 503:
    case 529:
        return CM_ERR_OVERLOADED;
    default:
        return status >= 400 && status < 500 ? CM_ERR_BAD_REQUEST : CM_ERR_UPSTREAM_DOWN;
    }
}

static enum cm_err_class class_of_code(struct cm_str code, enum cm_err_class otherwise)
{
    for (size_t i = 0; i < CM_COUNT(code_classes); i++)
        if (cm_str_eq(code, cm_str_of(code_classes[i].code)))
            return code_classes[i].cls;
    return otherwise;
}

/* Google's shim wraps the whole in an array. */
yyjson_val *openai_error_of(yyjson_val *root)
{
    yyjson_val *e;

    if (yyjson_is_arr(root))
        root = yyjson_arr_get_first(root);
    e = cm_json_opt(root, "error");
    if (!e || (yyjson_is_bool(e) && !yyjson_get_bool(e)))
        return NULL;
    return e;
}

/* A status that is told as a number in an answer that began well: OpenRouter, Google. */
static int status_told(int status, yyjson_val *error)
{
    yyjson_val *code = cm_json_get(error, "code");

    return status < 400 && yyjson_is_int(code) && yyjson_get_sint(code) >= 400 &&
                   yyjson_get_sint(code) < 600
               ? yyjson_get_int(code)
               : status;
}

int openai_refused(struct cm_run *run, int status, int retry_after_s, yyjson_val *error,
                   struct cm_err *err)
{
    const struct cm_instance *in = cm_run_instance(run);
    const struct cm_cred *cred = cm_run_cred(run);
    struct cm_str message =
        yyjson_is_str(error) ? cm_json_str(error) : cm_json_str(cm_json_get(error, "message"));
    struct cm_str code = cm_json_str(cm_json_get(error, "code")),
                  type = cm_json_str(cm_json_get(error, "type"));
    enum cm_err_class cls;
    bool own_words;

    status = status_told(status, error);
    cls = class_of_code(code, class_of_code(type, class_of_status(status)));
    if (cls == CM_ERR_BAD_REQUEST && cm_str_has(message, CM_S("must be verified")))
        cls = CM_ERR_VERIFICATION_REQUIRED;
    if (cls == CM_ERR_BAD_REQUEST && status == 404 && cm_str_has(message, CM_S("model")))
        cls = CM_ERR_MODEL_UNAVAILABLE; /* servers that know no codes */
    if (cls == CM_ERR_INVALID_CREDENTIAL || (cred->secret.n && cm_str_has(message, cred->secret)))
        message = CM_STR_NONE;                          /* it may quote the key */
    own_words = cm_err_info(cls)->next == CM_NEXT_STOP; /* it is about the request itself */
    if (cls == CM_ERR_INVALID_CREDENTIAL)
        cm_fail(err, cls, CM_PRI " refused the operator's credential (" CM_PRI "%s" CM_PRI ")",
                CM_ARG(in->name), CM_ARG(cred->label), code.n ? ", " : "", CM_ARG(code));
    else if (message.n && own_words)
        cm_fail(err, cls, CM_PRI, CM_ARG(message));
    else if (message.n)
        cm_fail(err, cls, CM_PRI ": " CM_PRI, CM_ARG(in->name), CM_ARG(message));
    else if (status == 0)
        cm_fail(err, cls, CM_PRI " reported an error without words", CM_ARG(in->name));
    else
        cm_fail(err, cls, CM_PRI " answered with status %d", CM_ARG(in->name), status);
    if (own_words) {
        cm_str_copy(err->code, sizeof(err->code), code);
        cm_str_copy(err->param, sizeof(err->param), cm_json_str(cm_json_get(error, "param")));
    }
    /* a 403 goes on as one where it tells of a permission or a region, not of our credential */
    if ((status >= 400 && status < 500 && cls == CM_ERR_BAD_REQUEST) ||
        (status == 403 && (cls == CM_ERR_MODEL_UNAVAILABLE || cls == CM_ERR_UPSTREAM_DOWN)))
        err->http_status = status;
    err->retry_after_s = retry_after_s;
    err->of_model = cls == CM_ERR_RATE_LIMITED && cm_run_names_model(run, message);
    return -1;
}

enum cm_step openai_refused_body(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(cm_buf_str(&o->body), &cm_json_limits_event, NULL);

    if (!doc && o->status == 404 && o->task == CM_TASK_CHAT) /* a page: it is not the request */
        cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                CM_PRI " answered with status 404 and no reason: check base_url",
                CM_ARG(cm_run_instance(run)->name));
    else
        openai_refused(run, o->status, o->retry_after_s, openai_error_of(yyjson_doc_get_root(doc)),
                       err);
    yyjson_doc_free(doc);
    return CM_STEP_FAIL;
}

/* ---- Usage ---- */

#define COUNT_MAX (UINT64_C(1) << 40) /* nobody means more, and sums of such cannot overflow */

static int64_t count(yyjson_val *v)
{
    return yyjson_is_uint(v) && yyjson_get_uint(v) <= COUNT_MAX ? (int64_t)yyjson_get_uint(v) : 0;
}

int64_t openai_count_of(yyjson_val *obj, const char *key)
{
    return count(cm_json_get(obj, key));
}

static bool has_any(yyjson_val *obj, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (cm_json_opt(obj, keys[i]))
            return true;
    return false;
}

/* Of two spellings the one that is there. */
static yyjson_val *either(yyjson_val *obj, const char *first, const char *second)
{
    yyjson_val *v = cm_json_opt(obj, first);

    return v ? v : cm_json_opt(obj, second);
}

/* Cached tokens are a part of the prompt's, reasoning tokens a part of the completion's; ours are
 * disjoint. Pictures and sound are counted under the names of the Responses API. */
bool openai_read_usage(yyjson_val *usage, struct cm_usage *out)
{
    static const char *const figures[] = {"prompt_tokens", "completion_tokens", "input_tokens",
                                          "output_tokens"};
    yyjson_val *ins = either(usage, "prompt_tokens_details", "input_tokens_details");
    yyjson_val *outs = either(usage, "completion_tokens_details", "output_tokens_details");
    int64_t in = count(either(usage, "prompt_tokens", "input_tokens"));
    int64_t produced = count(either(usage, "completion_tokens", "output_tokens"));
    int64_t cached = openai_count_of(ins, "cached_tokens"),
            written = openai_count_of(ins, "cache_write_tokens");
    int64_t reasoning = openai_count_of(outs, "reasoning_tokens");

    if (!yyjson_is_obj(usage) || !has_any(usage, figures, CM_COUNT(figures)))
        return false;
    if (cached == 0)
        cached = openai_count_of(usage, "prompt_cache_hit_tokens"); /* DeepSeek */
    cached = cached < in ? cached : in;
    written = written < in - cached ? written : in - cached;
    reasoning = reasoning < produced ? reasoning : produced;
    *out = (struct cm_usage){.source = CM_USAGE_UPSTREAM,
                             .in_uncached = in - cached - written,
                             .in_cache_read = cached,
                             .in_cache_write = written,
                             .out_text = produced - reasoning,
                             .out_reasoning = reasoning,
                             .in_audio = openai_count_of(ins, "audio_tokens"),
                             .out_audio = openai_count_of(outs, "audio_tokens")};
    return true;
}
