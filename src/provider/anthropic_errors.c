/* What a refusal of Anthropic's means (protocol notes, section 5). */
#include "anthropic_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

#include <stdio.h>

static const struct {
    struct cm_str type;
    enum cm_err_class cls;
} types[] = {
    {CM_S_INIT("invalid_request_error"), CM_ERR_BAD_REQUEST},
    {CM_S_INIT("authentication_error"), CM_ERR_INVALID_CREDENTIAL},
    {CM_S_INIT("billing_error"), CM_ERR_QUOTA_EXHAUSTED},
    {CM_S_INIT("permission_error"), CM_ERR_MODEL_UNAVAILABLE},
    {CM_S_INIT("not_found_error"), CM_ERR_MODEL_UNAVAILABLE},
    {CM_S_INIT("conflict_error"), CM_ERR_BAD_REQUEST},
    {CM_S_INIT("request_too_large"), CM_ERR_BAD_REQUEST},
    {CM_S_INIT("rate_limit_error"), CM_ERR_RATE_LIMITED},
    {CM_S_INIT("api_error"), CM_ERR_UPSTREAM_DOWN},
    {CM_S_INIT("timeout_error"), CM_ERR_UPSTREAM_DOWN},
    {CM_S_INIT("overloaded_error"), CM_ERR_OVERLOADED},
};

/* Words that change what a type means. The first that fits counts. */
static const struct {
    enum cm_err_class of; /* NONE = of any */
    struct cm_str words;
    enum cm_err_class cls;
} wordings[] = {
    {CM_ERR_BAD_REQUEST, CM_S_INIT("prompt is too long"), CM_ERR_CONTEXT_LENGTH},
    {CM_ERR_BAD_REQUEST, CM_S_INIT("exceed context limit"), CM_ERR_CONTEXT_LENGTH},
    {CM_ERR_BAD_REQUEST, CM_S_INIT("credit balance is too low"), CM_ERR_QUOTA_EXHAUSTED},
    {CM_ERR_BAD_REQUEST, CM_S_INIT("usage limits"), CM_ERR_QUOTA_EXHAUSTED},
    {CM_ERR_BAD_REQUEST, CM_S_INIT("spend limit"), CM_ERR_QUOTA_EXHAUSTED},
    {CM_ERR_BAD_REQUEST, CM_S_INIT("spending limit"), CM_ERR_QUOTA_EXHAUSTED},
    {CM_ERR_INVALID_CREDENTIAL, CM_S_INIT("expired"), CM_ERR_EXPIRED},
    {CM_ERR_MODEL_UNAVAILABLE, CM_S_INIT("organization has been disabled"),
     CM_ERR_INVALID_CREDENTIAL},
};

static enum cm_err_class class_of_status(int status)
{
    switch (status) {
    case 401:
        return CM_ERR_INVALID_CREDENTIAL;
    case 402:
        return CM_ERR_QUOTA_EXHAUSTED;
    case 403:
    case 404:
        return CM_ERR_MODEL_UNAVAILABLE;
    case 429:
        return CM_ERR_RATE_LIMITED;
    case 503:
    case 529:
        return CM_ERR_OVERLOADED;
    default:
        return status >= 400 && status < 500 ? CM_ERR_BAD_REQUEST : CM_ERR_UPSTREAM_DOWN;
    }
}

static enum cm_err_class class_of(const struct cm_run *run, const struct anthropic_refusal *r,
                                  struct cm_str type, struct cm_str message)
{
    enum cm_err_class cls = class_of_status(r->status);

    for (size_t i = 0; i < CM_COUNT(types); i++) {
        if (cm_str_eq(types[i].type, type))
            cls = types[i].cls;
    }
    for (size_t i = 0; i < CM_COUNT(wordings); i++) {
        if (wordings[i].of == cls && cm_str_has(message, wordings[i].words))
            return wordings[i].cls;
    }
    /* a path or an id that is not there: nothing that another account would have */
    if (cls == CM_ERR_MODEL_UNAVAILABLE && r->status == 404 && !cm_str_has(message, CM_S("model")))
        return CM_ERR_BAD_REQUEST;
    /* a limit that tells no end is that of the month, at Anthropic's */
    if (cls == CM_ERR_RATE_LIMITED && r->status == 429 && r->retry_after_s == 0 &&
        cm_str_eq(cm_option_value(cm_run_instance(run), "untimed_limit"), CM_S("month")))
        return CM_ERR_QUOTA_EXHAUSTED;
    return cls;
}

/* The end of the limit that is used up, as its headers tell it. */
static int reset_after_s(const struct cm_header *headers, size_t n, int64_t now_unix_ms)
{
    static const char *const limits[] = {"requests", "tokens", "input-tokens", "output-tokens"};
    int latest_s = 0;

    for (size_t i = 0; i < CM_COUNT(limits); i++) {
        char name[64];
        int64_t at_ms;

        snprintf(name, sizeof(name), "anthropic-ratelimit-%s-remaining", limits[i]);
        if (!cm_str_eq(cm_header_find(headers, n, cm_str_of(name)), CM_S("0")))
            continue;
        snprintf(name, sizeof(name), "anthropic-ratelimit-%s-reset", limits[i]);
        if (cm_rfc3339_parse(cm_header_find(headers, n, cm_str_of(name)), &at_ms) &&
            at_ms > now_unix_ms && at_ms - now_unix_ms < INT64_C(24) * 3600 * 1000 &&
            (at_ms - now_unix_ms + 999) / 1000 > latest_s)
            latest_s = (int)((at_ms - now_unix_ms + 999) / 1000);
    }
    return latest_s;
}

void anthropic_refusal_read(struct anthropic_refusal *r, int status,
                            const struct cm_header *headers, size_t n, int64_t now_unix_ms)
{
    r->status = status;
    r->retry_after_s = cm_retry_after_s(headers, n, now_unix_ms);
    if (r->retry_after_s == 0)
        r->retry_after_s = reset_after_s(headers, n, now_unix_ms);
}

int anthropic_refused(struct cm_run *run, const struct anthropic_refusal *r, yyjson_val *error,
                      struct cm_err *err)
{
    const struct cm_instance *in = cm_run_instance(run);
    const struct cm_cred *cred = cm_run_cred(run);
    const struct cm_str type = cm_json_str(cm_json_get(error, "type"));
    struct cm_str message =
        yyjson_is_str(error) ? cm_json_str(error) : cm_json_str(cm_json_get(error, "message"));
    const enum cm_err_class cls = class_of(run, r, type, message);
    const bool own_words = cm_err_info(cls)->next == CM_NEXT_STOP; /* about the request itself */

    if (cls == CM_ERR_INVALID_CREDENTIAL || cls == CM_ERR_EXPIRED ||
        (cred->secret.n > 0 && cm_str_has(message, cred->secret)))
        message = CM_STR_NONE; /* it may quote the key */
    if (cls == CM_ERR_INVALID_CREDENTIAL || cls == CM_ERR_EXPIRED)
        cm_fail(err, cls, CM_PRI " refused the operator's credential (" CM_PRI "%s" CM_PRI ")",
                CM_ARG(in->name), CM_ARG(cred->label), type.n > 0 ? ", " : "", CM_ARG(type));
    else if (message.n > 0 && own_words)
        cm_fail(err, cls, CM_PRI, CM_ARG(message));
    else if (message.n > 0)
        cm_fail(err, cls, CM_PRI ": " CM_PRI, CM_ARG(in->name), CM_ARG(message));
    else if (r->status == 0)
        cm_fail(err, cls, CM_PRI " reported an error without words", CM_ARG(in->name));
    else
        cm_fail(err, cls, CM_PRI " answered with status %d", CM_ARG(in->name), r->status);
    if (r->status >= 400 && r->status < 500 &&
        (cls == CM_ERR_BAD_REQUEST || (r->status == 403 && cls == CM_ERR_MODEL_UNAVAILABLE)))
        err->http_status = r->status;
    err->retry_after_s = r->retry_after_s;
    err->of_model = cls == CM_ERR_RATE_LIMITED && cm_run_names_model(run, message);
    return -1;
}
