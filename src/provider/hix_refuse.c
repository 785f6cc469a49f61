/* hix: what an answer means that is not what was asked for. HIX protocol notes, section 7. */
#include "hix_int.h"

static const struct {
    const char *word; /* the vendor's, or the number of a tRPC error */
    enum cm_err_class cls;
} words[] = {
    {"-32001", CM_ERR_EXPIRED},
    {"-32002", CM_ERR_QUOTA_EXHAUSTED},
    {"-32008", CM_ERR_TIMEOUT},
    {"-32009", CM_ERR_UPSTREAM_DOWN},
    {"-32012", CM_ERR_UPSTREAM_DOWN},
    {"-32013", CM_ERR_BAD_REQUEST},
    {"-32015", CM_ERR_BAD_REQUEST},
    {"-32022", CM_ERR_BAD_REQUEST},
    {"-32029", CM_ERR_RATE_LIMITED},
    {"-32099", CM_ERR_UPSTREAM_DOWN},
    {"-32600", CM_ERR_BAD_REQUEST},
    {"-32603", CM_ERR_UPSTREAM_DOWN},
    {"-32700", CM_ERR_BAD_REQUEST},
    {"CREDITS_EXHAUSTED", CM_ERR_QUOTA_EXHAUSTED},
    {"RATE_LIMIT_EXCEEDED", CM_ERR_RATE_LIMITED},
    {"CONTENT_FILTERED", CM_ERR_CONTENT_FILTER},
    {"MISSING_PARAMETER", CM_ERR_BAD_REQUEST},
    {"NETWORK_ERROR", CM_ERR_UPSTREAM_DOWN},
    {"SUB_AGENT_FAILURE", CM_ERR_UPSTREAM_DOWN},
    {"credit_exhausted", CM_ERR_QUOTA_EXHAUSTED},
};

static enum cm_err_class word_class(struct cm_str word)
{
    for (size_t i = 0; i < CM_COUNT(words); i++) {
        if (cm_str_eq(cm_str_of(words[i].word), word))
            return words[i].cls;
    }
    return CM_ERR_NONE;
}

/* What an error object tells: {"json":{"code":-32001,…}}, {"code":"CREDITS_EXHAUSTED"}, {"status":-5}. *number: of a tRPC error, else 0. */
static enum cm_err_class object_class(yyjson_val *error, int64_t *number, bool *of_credit)
{
    yyjson_val *inner = cm_json_opt(error, "json"), *code, *data;
    struct cm_buf text = {0};
    enum cm_err_class cls;

    *number = 0;
    *of_credit = false;
    if (inner)
        error = inner;
    if (yyjson_get_sint(cm_json_get(error, "status")) == -5)
        return CM_ERR_EXPIRED; /* "not login" */
    code = cm_json_opt(error, "code");
    if (!yyjson_is_int(code))
        return word_class(cm_json_str(code));
    *number = yyjson_get_sint(code);
    data = cm_json_opt(error, "data");
    *of_credit = cm_json_opt(data, "appName") || cm_json_opt(data, "usageType");
    cm_json_put_int(&text, *number);
    cls = word_class(cm_buf_str(&text));
    cm_buf_clear(&text);
    return cls;
}

enum cm_err_class hix_frame_class(yyjson_val *frame)
{
    const struct cm_str action = cm_json_str(cm_json_get(frame, "action"));
    yyjson_val *error = cm_json_opt(frame, "error");
    int64_t number;
    bool of_credit;
    enum cm_err_class cls = object_class(yyjson_is_obj(error) ? error : frame, &number, &of_credit);

    if (cls == CM_ERR_NONE && error)
        cls = word_class(cm_json_str(error));
    if (cls == CM_ERR_NONE)
        cls = word_class(action);
    if (cls == CM_ERR_NONE && (error || cm_str_eq(action, CM_S("error"))))
        cls = CM_ERR_UPSTREAM_DOWN;
    return cls;
}

struct reading {
    bool is_json;
    int64_t number;
    bool of_credit;
    enum cm_err_class cls;
};

static struct reading read_body(struct cm_str body)
{
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_event, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL, *error;
    struct reading r = {.is_json = doc != NULL};

    if (yyjson_is_arr(root))
        root = yyjson_arr_get_first(root);
    error = cm_json_opt(root, "error");
    r.cls = object_class(yyjson_is_obj(error) ? error : root, &r.number, &r.of_credit);
    yyjson_doc_free(doc);
    return r;
}

static bool is_challenge(struct cm_str body)
{
    return cm_str_has(body, CM_S("Just a moment...")) || cm_str_has(body, CM_S("_cf_chl_opt")) ||
           cm_str_has(body, CM_S("cdn-cgi/challenge-platform"));
}

/* What only one of the calls means by it. */
static enum cm_err_class call_class(const struct hix_refusal *r, const struct reading *read,
                                    enum hix_advice *advice)
{
    if (r->call == HIX_CALL_CREATE && read->number == -32004)
        return CM_ERR_MODEL_UNAVAILABLE; /* the bot is gone */
    if (r->call == HIX_CALL_CREATE && read->number == -32003 && read->of_credit) {
        *advice = HIX_DOUBT_CREDIT;
        return CM_ERR_QUOTA_EXHAUSTED;
    }
    if (read->cls != CM_ERR_NONE)
        return read->cls;
    if (r->call == HIX_CALL_CHAT && read->is_json && (r->status == 403 || r->status == 404)) {
        *advice = HIX_NOT_OURS;
        return CM_ERR_UPSTREAM_DOWN;
    }
    return CM_ERR_NONE;
}

static enum cm_err_class status_class(int status, enum hix_advice *advice)
{
    switch (status) {
    case 401:
        return CM_ERR_EXPIRED;
    case 402:
        return CM_ERR_QUOTA_EXHAUSTED;
    case 403:
        *advice = HIX_ASK_SESSION;
        return CM_ERR_VERIFICATION_REQUIRED;
    case 429:
        return CM_ERR_RATE_LIMITED;
    default:
        return CM_ERR_NONE;
    }
}

enum hix_advice hix_refuse(const struct hix_refusal *r, struct cm_err *err)
{
    static const char *const calls[] = {
        [HIX_CALL_CREATE] = "createChat", [HIX_CALL_CHAT] = "chat", [HIX_CALL_OTHER] = "a call"};
    const struct reading read = read_body(r->body);
    enum hix_advice advice = HIX_AS_IT_IS;
    const bool challenge = is_challenge(r->body);
    enum cm_err_class cls = call_class(r, &read, &advice);

    if (challenge)
        cls = CM_ERR_VERIFICATION_REQUIRED;
    if (cls == CM_ERR_NONE)
        cls = status_class(r->status, &advice);
    if (cls == CM_ERR_NONE && r->status == 404)
        cls = CM_ERR_UPSTREAM_DOWN; /* the call has moved */
    if (cls == CM_ERR_NONE)
        cm_http_fail(err, r->status, NULL, 0, CM_S("hix"));
    else if (cls == CM_ERR_VERIFICATION_REQUIRED && !challenge)
        cm_fail(
            err, cls,
            "hix forbids %s to this account or address (status %d): a proxy for the provider or "
            "the account may help",
            calls[r->call], r->status);
    else if (cls == CM_ERR_VERIFICATION_REQUIRED)
        cm_fail(err, cls, "hix wants a human to verify this account or address (%s, status %d)",
                calls[r->call], r->status);
    else
        cm_fail(err, cls, "hix refused %s with status %d: %s", calls[r->call], r->status,
                cm_err_info(cls)->name);
    err->retry_after_s = r->retry_after_s;
    if (challenge) {
        err->of_address = true;
        err->retry_after_s = r->challenge_s;
    }
    if (err->cls == CM_ERR_RATE_LIMITED && r->retry_after_s == 0)
        err->retry_after_s = HIX_RATE_LIMIT_S;
    return err->cls == CM_ERR_QUOTA_EXHAUSTED && advice == HIX_AS_IT_IS ? HIX_ASK_CREDIT : advice;
}
