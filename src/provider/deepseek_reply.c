/* What the platform says where it does not stream: nearly all of it, failures too, comes with status 200 in one envelope,
 * {"code":0,"msg":"","data":{"biz_code":0,"biz_msg":"","biz_data":{…}}}.
 * Wire facts: DeepSeek protocol notes, sections 3 and 7. */
#include "deepseek_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#define BUSY_REST_S 5             /* the account is still answering another question */
#define BANNED_S (30 * 24 * 3600) /* muted for longer is banned */

/* ---- Words ---- */

/* Parts of messages and reasons, lower case; the first that is found counts. */
static const struct {
    const char *part;
    enum cm_err_class cls;
    int rest_s; /* 0 = the provider's cooldown */
} words[] = {
    {"password_or_user_name_is_wrong", CM_ERR_INVALID_CREDENTIAL, 0},
    {"being generated", CM_ERR_RATE_LIMITED, BUSY_REST_S},
    {"正在生成", CM_ERR_RATE_LIMITED, BUSY_REST_S},
    {"过于频繁", CM_ERR_RATE_LIMITED, 0},
    {"too frequent", CM_ERR_RATE_LIMITED, 0},
    {"too many requests", CM_ERR_RATE_LIMITED, 0},
    {"rate_limit", CM_ERR_RATE_LIMITED, 0},
    {"rate limit", CM_ERR_RATE_LIMITED, 0},
    /* protocol notes: UNKNOWN which words a used up quota has */
    {"quota", CM_ERR_QUOTA_EXHAUSTED, 0},
    {"daily", CM_ERR_QUOTA_EXHAUSTED, 0},
    {"次数已", CM_ERR_QUOTA_EXHAUSTED, 0},
    {"已达上限", CM_ERR_QUOTA_EXHAUSTED, 0},
    {"content_filter", CM_ERR_CONTENT_FILTER, 0},
    {"context_length", CM_ERR_CONTEXT_LENGTH, 0},
    {"content_too_long", CM_ERR_CONTEXT_LENGTH, 0},
    {"timeout", CM_ERR_OVERLOADED, 0},
    {"busy", CM_ERR_OVERLOADED, 0},
    {"繁忙", CM_ERR_OVERLOADED, 0},
    {"invalid token", CM_ERR_EXPIRED, 0},
    {"invalid_token", CM_ERR_EXPIRED, 0},
};

static bool has_nocase(struct cm_str text, struct cm_str part)
{
    for (size_t i = 0; i + part.n <= text.n; i++) {
        if (cm_str_eq_nocase(cm_str(text.p + i, part.n), part))
            return true;
    }
    return false;
}

static enum cm_err_class word_class(struct cm_str text, int *rest_s)
{
    for (size_t i = 0; i < CM_COUNT(words); i++) {
        if (has_nocase(text, cm_str_of(words[i].part))) {
            *rest_s = words[i].rest_s;
            return words[i].cls;
        }
    }
    return CM_ERR_NONE;
}

enum cm_err_class deepseek_words_class(struct cm_str reason, struct cm_str text, int *rest_s)
{
    enum cm_err_class cls = word_class(reason, rest_s);

    return cls != CM_ERR_NONE ? cls : word_class(text, rest_s);
}

/* ---- Numbers ---- */

static enum cm_err_class code_class(int64_t code)
{
    switch (code) {
    case 40001:
    case 40002:
    case 40003:
        return CM_ERR_EXPIRED;
    case 40029:
        return CM_ERR_RATE_LIMITED;
    case 1001:
    case 1201:
        return CM_ERR_UPSTREAM_DOWN;
    default:
        return CM_ERR_NONE;
    }
}

#define BAD_PROOF 40301

int deepseek_until_s(yyjson_val *when, int64_t now_unix_ms)
{
    double at = yyjson_is_num(when) ? yyjson_get_num(when) : 0;
    const double now = (double)now_unix_ms / 1000;

    if (at > 1e11)
        at /= 1000;
    if (at <= now)
        return 0;
    return at - now > INT32_MAX / 2 ? INT32_MAX / 2 : (int)(at - now) + 1;
}

/* ---- The envelope ---- */

static bool is_html(struct cm_str type, struct cm_str body)
{
    return cm_str_starts_nocase(type, CM_S("text/html")) ||
           cm_str_starts(cm_str_trim(body), CM_S("<"));
}

static bool is_waf(const struct cm_header *headers, size_t n, int status)
{
    return cm_header_find(headers, n, CM_S("x-amzn-waf-action")).n > 0 || status == 202;
}

/* Of what is no JSON, or has a status of its own; the rest is cm_http_fail()'s. */
static enum cm_err_class status_class(int status, bool html)
{
    if (status == 401)
        return CM_ERR_EXPIRED;
    if (status == 422)
        return CM_ERR_BAD_REQUEST;
    if (status == 429)
        return CM_ERR_RATE_LIMITED;
    if (html && status < 500)
        return CM_ERR_VERIFICATION_REQUIRED;
    return CM_ERR_NONE;
}

static int told_rest_s(struct cm_run *run, const struct cm_header *headers, size_t n)
{
    uint64_t seconds = 0;

    if (!cm_str_to_u64(cm_str_trim(cm_header_find(headers, n, CM_S("x-fetch-after-sec"))),
                       30 * 86400, &seconds))
        return cm_retry_after_s(headers, n, cm_run_unix_ms(run));
    return (int)seconds;
}

static void read_envelope(struct cm_run *run, yyjson_val *root, struct deepseek_reply *out)
{
    yyjson_val *data = cm_json_opt(root, "data"), *muted;

    out->biz = cm_json_opt(data, "biz_data");
    /* The event {"code":"content_filter"} has a word there. */
    out->code =
        yyjson_is_str(cm_json_get(root, "code")) ? -1 : yyjson_get_sint(cm_json_get(root, "code"));
    out->biz_code = yyjson_get_sint(cm_json_get(data, "biz_code"));
    out->msg = cm_json_str(cm_json_get(data, "biz_msg"));
    if (out->msg.n == 0)
        out->msg = cm_json_str(cm_json_get(root, "msg"));
    if (out->msg.n == 0 && out->code == -1)
        out->msg = cm_json_str(cm_json_get(root, "code"));
    muted = cm_json_get(out->biz, "is_muted");
    if (!muted)
        muted = cm_json_get(cm_json_opt(out->biz, "chat"), "is_muted");
    out->muted = (yyjson_is_num(muted) && yyjson_get_num(muted) > 0) || yyjson_is_true(muted) ||
                 has_nocase(out->msg, CM_S("is muted"));
    if (out->muted) {
        yyjson_val *until = cm_json_get(out->biz, "mute_until");

        if (!until)
            until = cm_json_get(cm_json_opt(out->biz, "chat"), "mute_until");
        out->retry_after_s = deepseek_until_s(until, cm_run_unix_ms(run));
    }
}

static enum cm_err_class mute_class(int for_s)
{
    return for_s > BANNED_S ? CM_ERR_INVALID_CREDENTIAL : CM_ERR_RATE_LIMITED;
}

void deepseek_judge_mute(struct deepseek_reply *reply)
{
    if (reply->cls == CM_ERR_NONE && reply->muted)
        reply->cls = mute_class(reply->retry_after_s);
}

static enum cm_err_class envelope_class(struct deepseek_reply *out)
{
    enum cm_err_class cls;
    int rest_s = 0;

    if (out->code == 0 && out->biz_code == 0)
        return CM_ERR_NONE;
    out->bad_proof = out->code == BAD_PROOF || out->biz_code == BAD_PROOF;
    if (out->bad_proof)
        return CM_ERR_UPSTREAM_DOWN;
    cls = code_class(out->code);
    if (cls == CM_ERR_NONE)
        cls = code_class(out->biz_code);
    if (cls == CM_ERR_NONE)
        cls = word_class(out->msg, &rest_s);
    if (cls == CM_ERR_RATE_LIMITED && out->retry_after_s == 0)
        out->retry_after_s = rest_s;
    if (out->muted)
        return mute_class(out->retry_after_s);
    if (cls != CM_ERR_NONE)
        return cls;
    /* The numbers of biz_code are not established: whatever else it is, the request was at fault. */
    out->bad_session = out->biz_code != 0;
    return out->biz_code != 0 ? CM_ERR_BAD_REQUEST : CM_ERR_UPSTREAM_DOWN;
}

void deepseek_reply_read(struct cm_run *run, int status, const struct cm_header *headers, size_t n,
                         struct cm_str body, struct deepseek_reply *out)
{
    const struct cm_str type = cm_header_find(headers, n, CM_S("content-type"));
    yyjson_val *root;

    *out = (struct deepseek_reply){.status = status};
    out->doc = cm_json_parse(body, &cm_json_limits_event, NULL);
    root = out->doc ? yyjson_doc_get_root(out->doc) : NULL;
    if (yyjson_is_obj(root)) {
        read_envelope(run, root, out);
        out->cls = envelope_class(out);
    }
    if (out->cls == CM_ERR_NONE && is_waf(headers, n, status))
        out->cls = CM_ERR_VERIFICATION_REQUIRED;
    if (out->cls == CM_ERR_NONE)
        out->cls = status_class(status, !out->doc && is_html(type, body));
    if (out->cls == CM_ERR_NONE && status != 200) {
        struct cm_err err = {0};

        cm_http_fail(&err, status, headers, n, CM_S("deepseek"));
        out->cls = err.cls;
    }
    if (out->cls == CM_ERR_NONE && !yyjson_is_obj(root))
        out->cls = CM_ERR_UPSTREAM_DOWN;
    if (out->cls == CM_ERR_RATE_LIMITED && out->retry_after_s == 0)
        out->retry_after_s = told_rest_s(run, headers, n);
}

void deepseek_reply_of(struct cm_run *run, const struct cm_ev *ev, struct deepseek_reply *out)
{
    deepseek_reply_read(run, ev->status, ev->headers, ev->n_headers, ev->data, out);
}

enum cm_step deepseek_refuse(const struct deepseek_reply *reply, const char *call,
                             struct cm_err *err)
{
    const enum cm_err_class cls = reply->cls ? reply->cls : CM_ERR_UPSTREAM_DOWN;
    const char *name = cm_err_info(cls)->name;

    if (cls == CM_ERR_VERIFICATION_REQUIRED)
        cm_fail(err, cls,
                "deepseek wants a browser to verify this account or address (%s, status %d)", call,
                reply->status);
    else if (reply->bad_proof)
        cm_fail(err, cls, "deepseek refused the proof of work for %s", call);
    else if (reply->muted)
        cm_fail(err, cls, "deepseek has muted this account (%s)", call);
    else if (cls == CM_ERR_BAD_REQUEST && reply->msg.n > 0)
        cm_fail(err, cls, "deepseek refused %s: " CM_PRI " (biz_code %lld)", call,
                CM_ARG(cm_utf8_head(reply->msg, 160)), (long long)reply->biz_code);
    else if (reply->code != 0 || reply->biz_code != 0)
        cm_fail(err, cls, "deepseek refused %s: %s (code %lld, biz_code %lld)", call, name,
                (long long)reply->code, (long long)reply->biz_code);
    else
        cm_fail(err, cls, "deepseek refused %s with status %d: %s", call, reply->status, name);
    err->retry_after_s = reply->retry_after_s;
    return CM_STEP_FAIL;
}
