/* One error type for the log, the client and the credential: design, section 3. Any thread. */
#ifndef CHATMUX_BASE_ERR_H
#define CHATMUX_BASE_ERR_H

#include "chatmux/base/str.h"

/* What the exchange tries after this failure. */
enum cm_err_next {
    CM_NEXT_STOP,       /* nothing: the request itself is wrong */
    CM_NEXT_CREDENTIAL, /* another credential, then another target */
    CM_NEXT_RETRY       /* another credential at once, then back-off, then another target */
};

/* What the pool does with the credential. */
enum cm_err_cred {
    CM_CRED_KEEP,
    CM_CRED_DISABLE,    /* until an operator acts */
    CM_CRED_REFRESH,    /* refresh it, else needs_login */
    CM_CRED_COOL,       /* until the time told, else the provider's default */
    CM_CRED_EXHAUST,    /* until its quota resets */
    CM_CRED_VERIFY,     /* until an operator supplied what the platform asks for */
    CM_CRED_COOL_MODEL, /* this model only */
    CM_CRED_COUNT       /* three in 60 s cool it */
};

/* class, HTTP status, type and code towards OpenAI clients, next step, the pool's verdict */
#define CM_ERR_MAP(X)                                                                              \
    X(BAD_REQUEST, "bad_request", 400, "invalid_request_error", NULL, STOP, KEEP)                  \
    X(UNAUTHORIZED, "unauthorized", 401, "invalid_request_error", "invalid_api_key", STOP, KEEP)   \
    X(FORBIDDEN, "forbidden", 403, "invalid_request_error", NULL, STOP, KEEP)                      \
    X(NOT_FOUND, "not_found", 404, "invalid_request_error", NULL, STOP, KEEP)                      \
    X(METHOD, "method_not_allowed", 405, "invalid_request_error", "method_not_supported", STOP,    \
      KEEP)                                                                                        \
    X(TIMEOUT_CLIENT, "request_timeout", 408, "invalid_request_error", NULL, STOP, KEEP)           \
    X(TOO_LARGE, "too_large", 413, "invalid_request_error", NULL, STOP, KEEP)                      \
    X(HEADER_TOO_LARGE, "header_too_large", 431, "invalid_request_error", NULL, STOP, KEEP)        \
    X(CLIENT_LIMIT, "client_limit", 429, "rate_limit_error", "rate_limit_exceeded", STOP, KEEP)    \
    X(CONTEXT_LENGTH, "context_length", 400, "invalid_request_error", "context_length_exceeded",   \
      STOP, KEEP)                                                                                  \
    X(CONTENT_FILTER, "content_filter", 400, "invalid_request_error", "content_filter", STOP,      \
      KEEP)                                                                                        \
    X(INVALID_CREDENTIAL, "invalid_credential", 502, "upstream_error", "upstream_auth",            \
      CREDENTIAL, DISABLE)                                                                         \
    X(EXPIRED, "expired", 502, "upstream_error", "upstream_auth", CREDENTIAL, REFRESH)             \
    X(RATE_LIMITED, "rate_limited", 429, "rate_limit_error", "rate_limit_exceeded", CREDENTIAL,    \
      COOL)                                                                                        \
    X(QUOTA_EXHAUSTED, "quota_exhausted", 429, "insufficient_quota", "insufficient_quota",         \
      CREDENTIAL, EXHAUST)                                                                         \
    X(VERIFICATION_REQUIRED, "verification_required", 503, "upstream_error",                       \
      "verification_required", CREDENTIAL, VERIFY)                                                 \
    X(MODEL_UNAVAILABLE, "model_unavailable", 404, "invalid_request_error", "model_not_found",     \
      CREDENTIAL, COOL_MODEL)                                                                      \
    X(OVERLOADED, "overloaded", 503, "server_error", "overloaded", RETRY, COUNT)                   \
    X(UPSTREAM_DOWN, "upstream_down", 502, "upstream_error", "upstream_error", RETRY, COUNT)       \
    X(CUT, "cut", 502, "upstream_error", "upstream_cut", RETRY, COUNT)                             \
    X(TIMEOUT, "timeout", 504, "upstream_error", "upstream_timeout", RETRY, COUNT)                 \
    X(NO_CREDENTIAL, "no_credential", 503, "server_error", "no_credential", STOP, KEEP)            \
    X(SHUTTING_DOWN, "shutting_down", 503, "server_error", "shutting_down", STOP, KEEP)            \
    X(CONFIG, "config", 500, "server_error", NULL, STOP, KEEP)                                     \
    X(IO, "io", 500, "server_error", NULL, STOP, KEEP)

enum cm_err_class {
    CM_ERR_NONE, /* zeroed memory is "no error" */
#define X(name, ...) CM_ERR_##name,
    CM_ERR_MAP(X)
#undef X
};

struct cm_err {
    enum cm_err_class cls;
    int retry_after_s; /* 0 = not told */
    bool
        of_address; /* VERIFICATION_REQUIRED: it is about the address that we came from, and ends by itself: whoever comes from there rests */
    bool of_model;  /* RATE_LIMITED, QUOTA_EXHAUSTED: the limit of the model that was asked for */
    int http_status; /* towards the client; 0 = the class's own */
    char msg[400];   /* one sentence to act on; valid UTF-8; safe to show a client: no secrets */
    char param[64];  /* the offending field in the client's own words, "" = none */
    char code[48];   /* towards the client instead of the class's, "" = the class's */
};

/* What a class means; never NULL. */
struct cm_err_info {
    const char *name;
    int http_status;
    const char *type, *code; /* OpenAI dialect; code NULL = null */
    enum cm_err_next next;
    enum cm_err_cred cred;
};
const struct cm_err_info *cm_err_info(enum cm_err_class cls);

/* Fills *err (may be NULL) and returns -1, so that a function can `return cm_fail(err, …)`.
 * Long messages are cut at a character; control characters become spaces. */
int cm_fail(struct cm_err *err, enum cm_err_class cls, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, naming the field at fault: param is what the client wrote, e.g.
 * "messages[2].content". */
int cm_fail_param(struct cm_err *err, enum cm_err_class cls, const char *param, const char *fmt,
                  ...) __attribute__((format(printf, 4, 5)));

/* HTTP status towards the client. No credential, but one will return (retry_after_s): 429. */
int cm_err_status(const struct cm_err *err);
const char *cm_err_code(const struct cm_err *err); /* NULL = null */

#endif
