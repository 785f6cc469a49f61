/* Why the platform refused: google.rpc errors, whose details say more than the status. Wire facts: Gemini protocol notes, section 4. */
#include "gemini_int.h"

#include "chatmux/base/clock.h"

#define RATE_LIMIT_S 30 /* when a limit tells no time */
#define DAY_S 86400

yyjson_val *gemini_error_of(yyjson_val *root)
{
    yyjson_val *e;

    if (yyjson_is_arr(root))
        root = yyjson_arr_get_first(root);
    e = cm_json_opt(root, "error");
    return yyjson_is_obj(e) || yyjson_is_str(e) ? e : NULL;
}

/* ---- the details ---- */

/* The detail of that type ("…/google.rpc.RetryInfo"), or NULL. */
static yyjson_val *detail(yyjson_val *error, struct cm_str type)
{
    yyjson_val *details = cm_json_get(error, "details"), *d;
    size_t i, n;

    if (!yyjson_is_arr(details))
        return NULL;
    yyjson_arr_foreach(details, i, n, d)
    {
        if (cm_str_ends(cm_json_str(cm_json_get(d, "@type")), type))
            return d;
    }
    return NULL;
}

/* "17s", "0.250s": up to the next whole second; 0 = not told. */
static int delay_s(struct cm_str text)
{
    uint64_t seconds;
    struct cm_str whole;

    if (!cm_str_ends(text, CM_S("s")))
        return 0;
    text = cm_str_head(text, text.n - 1);
    whole = cm_str_cut(&text, '.');
    if (!cm_str_to_u64(whole, 30 * DAY_S, &seconds))
        return 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '0')
            return (int)seconds + 1;
    }
    return (int)seconds;
}

static yyjson_val *violations_of(yyjson_val *error)
{
    return cm_json_get(detail(error, CM_S("google.rpc.QuotaFailure")), "violations");
}

/* Every quota that is used up is one of the model. */
static bool limits_model_only(yyjson_val *error)
{
    yyjson_val *violations = violations_of(error), *v;
    size_t i, n;

    if (!yyjson_is_arr(violations))
        return false;
    yyjson_arr_foreach(violations, i, n, v)
    {
        if (!cm_json_get(cm_json_get(v, "quotaDimensions"), "model") &&
            !cm_str_has(cm_json_str(cm_json_get(v, "quotaId")), CM_S("PerModel")))
            return false;
    }
    return yyjson_arr_size(violations) > 0;
}

static bool day_is_over(yyjson_val *error)
{
    yyjson_val *violations = violations_of(error), *v;
    size_t i, n;

    if (!yyjson_is_arr(violations))
        return false;
    yyjson_arr_foreach(violations, i, n, v)
    {
        if (cm_str_has(cm_json_str(cm_json_get(v, "quotaId")), CM_S("PerDay")))
            return true;
    }
    return false;
}

/* Days since 1970-01-01 of the n-th Sunday of a month (H. Hinnant's calendar of months from March). */
static int64_t nth_sunday(int64_t year, int64_t month, int64_t n)
{
    const int64_t y = month <= 2 ? year - 1 : year, m = (month + 9) % 12;
    const int64_t first = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 - 719468;
    const int64_t weekday = (first + 4) % 7; /* 1970-01-01 was a Thursday; 0 = Sunday */

    return first + (7 - weekday) % 7 + 7 * (n - 1);
}

static int64_t year_of(int64_t unix_s)
{
    char text[CM_RFC3339_CAP];
    uint64_t year = 1970;

    cm_rfc3339(unix_s * 1000, text);
    cm_str_to_u64(cm_str(text, 4), 9999, &year);
    return (int64_t)year;
}

int64_t gemini_quota_day_left_s(int64_t unix_s)
{
    const int64_t year = year_of(unix_s);
    /* 2 o'clock of the second Sunday in March, 2 o'clock summer time of the first one in November */
    const int64_t begins = nth_sunday(year, 3, 2) * DAY_S + 10 * 3600,
                  ends = nth_sunday(year, 11, 1) * DAY_S + 9 * 3600;
    const int64_t west_s = unix_s >= begins && unix_s < ends ? 7 * 3600 : 8 * 3600;

    return DAY_S - (unix_s - west_s) % DAY_S;
}

/* ---- the class ---- */

static const struct {
    const char *reason; /* of ErrorInfo */
    enum cm_err_class cls;
} reasons[] = {
    {"API_KEY_INVALID", CM_ERR_INVALID_CREDENTIAL},
    {"CONSUMER_SUSPENDED", CM_ERR_INVALID_CREDENTIAL},
    {"CONSUMER_INVALID", CM_ERR_INVALID_CREDENTIAL},
    {"ACCESS_TOKEN_EXPIRED", CM_ERR_EXPIRED},
    {"SERVICE_DISABLED", CM_ERR_VERIFICATION_REQUIRED},
    {"API_KEY_SERVICE_BLOCKED", CM_ERR_VERIFICATION_REQUIRED},
    {"API_KEY_HTTP_REFERRER_BLOCKED", CM_ERR_VERIFICATION_REQUIRED},
    {"API_KEY_IP_ADDRESS_BLOCKED", CM_ERR_VERIFICATION_REQUIRED},
    {"BILLING_DISABLED", CM_ERR_QUOTA_EXHAUSTED},
};

static enum cm_err_class class_of_400(struct cm_str status, struct cm_str message)
{
    if (cm_str_has(message, CM_S("input token count")) && cm_str_has(message, CM_S("exceeds")))
        return CM_ERR_CONTEXT_LENGTH;
    if (!cm_str_eq(status, CM_S("FAILED_PRECONDITION")))
        return CM_ERR_BAD_REQUEST;
    if (cm_str_has(message, CM_S("billing")))
        return CM_ERR_QUOTA_EXHAUSTED;
    return CM_ERR_UPSTREAM_DOWN; /* this machine's place in the world; another proxy may help */
}

static enum cm_err_class class_of_status(int code, struct cm_str status, struct cm_str message)
{
    switch (code) {
    case 400:
        return class_of_400(status, message);
    case 401:
        return CM_ERR_EXPIRED;
    case 403:
        /* a permission that this account lacks, unless no key came at all */
        return cm_str_has(message, CM_S("unregistered callers")) ? CM_ERR_INVALID_CREDENTIAL
                                                                 : CM_ERR_MODEL_UNAVAILABLE;
    case 404:
        return CM_ERR_MODEL_UNAVAILABLE;
    case 408:
    case 504:
        return CM_ERR_TIMEOUT;
    case 429:
        return CM_ERR_RATE_LIMITED;
    case 503:
        return CM_ERR_OVERLOADED;
    default:
        return code >= 400 && code < 499 ? CM_ERR_BAD_REQUEST : CM_ERR_UPSTREAM_DOWN;
    }
}

static enum cm_err_class class_of(int code, yyjson_val *error, struct cm_str message)
{
    struct cm_str reason =
        cm_json_str(cm_json_get(detail(error, CM_S("google.rpc.ErrorInfo")), "reason"));

    for (size_t i = 0; i < CM_COUNT(reasons); i++) {
        if (!cm_str_eq(reason, cm_str_of(reasons[i].reason)))
            continue;
        /* the same reason for a key that was never right and for one that is over */
        if (reasons[i].cls == CM_ERR_INVALID_CREDENTIAL && cm_str_has(message, CM_S("expired")))
            return CM_ERR_EXPIRED;
        return reasons[i].cls;
    }
    if (code == 429 && day_is_over(error))
        return CM_ERR_QUOTA_EXHAUSTED;
    return class_of_status(code, cm_json_str(cm_json_get(error, "status")), message);
}

static int wait_s(struct cm_run *run, enum cm_err_class cls, int retry_after_s, yyjson_val *error)
{
    const int told = delay_s(
        cm_json_str(cm_json_get(detail(error, CM_S("google.rpc.RetryInfo")), "retryDelay")));

    if (cls == CM_ERR_QUOTA_EXHAUSTED &&
        day_is_over(error)) /* its RetryInfo is that of the minute */
        return (int)gemini_quota_day_left_s(cm_run_unix_ms(run) / 1000);
    if (told > 0 || retry_after_s > 0)
        return told > retry_after_s ? told : retry_after_s;
    return cls == CM_ERR_RATE_LIMITED ? RATE_LIMIT_S : 0;
}

int gemini_refused(struct cm_run *run, int status, int retry_after_s, yyjson_val *error,
                   struct cm_err *err)
{
    const struct cm_instance *in = cm_run_instance(run);
    const struct cm_cred *cred = cm_run_cred(run);
    struct cm_str message =
        yyjson_is_str(error) ? cm_json_str(error) : cm_json_str(cm_json_get(error, "message"));
    yyjson_val *told = cm_json_get(error, "code");
    int code = status >= 400 ? status : yyjson_is_int(told) ? (int)yyjson_get_sint(told) : 500;
    enum cm_err_class cls = class_of(code, error, message);
    bool own_words = cm_err_info(cls)->next == CM_NEXT_STOP; /* it is about the request itself */

    if (cls == CM_ERR_INVALID_CREDENTIAL || cls == CM_ERR_EXPIRED ||
        (cred->secret.n > 0 && cm_str_has(message, cred->secret)))
        message = CM_STR_NONE; /* it may quote the key */
    if (cls == CM_ERR_INVALID_CREDENTIAL || cls == CM_ERR_EXPIRED)
        cm_fail(err, cls, CM_PRI " refused the operator's credential (" CM_PRI "%s)",
                CM_ARG(in->name), CM_ARG(cred->label), cls == CM_ERR_EXPIRED ? ", expired" : "");
    else if (message.n > 0 && own_words)
        cm_fail(err, cls, CM_PRI, CM_ARG(message));
    else if (message.n > 0)
        cm_fail(err, cls, CM_PRI ": " CM_PRI, CM_ARG(in->name), CM_ARG(message));
    else if (status < 400)
        cm_fail(err, cls, CM_PRI " reported an error without words", CM_ARG(in->name));
    else
        cm_fail(err, cls, CM_PRI " answered with status %d", CM_ARG(in->name), code);
    /* the client's own mistake goes on with its status; a region or a permission is none of ours */
    if ((code >= 400 && code < 500 && cls == CM_ERR_BAD_REQUEST) ||
        (code == 403 && cls == CM_ERR_MODEL_UNAVAILABLE))
        err->http_status = code;
    if (code == 400 && cls == CM_ERR_UPSTREAM_DOWN)
        err->http_status = 403;
    err->retry_after_s = wait_s(run, cls, retry_after_s, error);
    err->of_model =
        (cls == CM_ERR_RATE_LIMITED || cls == CM_ERR_QUOTA_EXHAUSTED) && limits_model_only(error);
    return -1;
}

int gemini_refused_text(struct cm_run *run, int status, int retry_after_s, struct cm_str body,
                        struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_event, NULL);
    yyjson_val *error = gemini_error_of(yyjson_doc_get_root(doc));

    if (!error && status == 404) /* the front end knows no such path: not a matter of models */
        cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                CM_PRI " answered with status 404 and no reason: check base_url and x.api_version",
                CM_ARG(cm_run_instance(run)->name));
    else
        gemini_refused(run, status, retry_after_s, error, err);
    yyjson_doc_free(doc);
    return -1;
}
