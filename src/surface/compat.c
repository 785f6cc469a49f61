/* Errors in the words of hixai2api, genspark2api and alexsidebar2api. Facts: the sections on errors and client keys of their protocol
 * notes; docs/compat.md tells what is on purpose different. */
#include "chatmux/surface/compat.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "openai_chat_int.h"

/* {"error":TEXT,"detail":ours} with 500; the first row that fits counts. */
struct words {
    enum cm_err_class cls;
    const char *code; /* of the error; NULL = any */
    const char *says; /* what our own sentence must hold; NULL = anything */
    const char *text; /* NULL: our own sentence */
};

struct dialect {
    const char *key_refused; /* the message for a wrong client key */
    bool as_object;          /* not "error":TEXT, but an object with the text */
    bool bad_json_is_400;    /* and told as text */
    const struct words *words;
    size_t n_words;
    bool model_object; /* an unknown model is told as an object, with 400 */
    bool path_object;  /* an unknown path has a body of its own */
};

#define TOO_OFTEN "{\"success\":false,\"message\":\"请求过于频繁,请稍后再试\"}"
#define BAD_JSON                                                                                   \
    "{\"error\":{\"message\":\"Invalid request parameters\",\"type\":\"request_error\","           \
    "\"param\":\"\",\"code\":\"500\"}}"

#define UNKNOWN_PATH "unknown path "
#define MAX_TOKENS_CODE "invalid_max_tokens"
#define ALEXSIDEBAR_TOKENS_MAX 100000

#define ANY NULL, NULL
#define CREDENTIALS_SPENT(text)                                                                    \
    {CM_ERR_INVALID_CREDENTIAL, ANY, text}, {CM_ERR_EXPIRED, ANY, text},                           \
        {CM_ERR_RATE_LIMITED, ANY, text},                                                          \
    {                                                                                              \
        CM_ERR_QUOTA_EXHAUSTED, ANY, text                                                          \
    }
#define OWN_WORDS                                                                                  \
    {CM_ERR_VERIFICATION_REQUIRED, ANY, NULL}, {CM_ERR_OVERLOADED, ANY, NULL},                     \
        {CM_ERR_UPSTREAM_DOWN, ANY, NULL}, {CM_ERR_CUT, ANY, NULL},                                \
    {                                                                                              \
        CM_ERR_TIMEOUT, ANY, NULL                                                                  \
    }

static const struct words hix_words[] = {
    {CM_ERR_NOT_FOUND, "model_not_found", NULL, "no model"},
    {CM_ERR_MODEL_UNAVAILABLE, ANY, "no model"},
    {CM_ERR_NO_CREDENTIAL, ANY, "No valid cookies available"},
    {CM_ERR_CONTEXT_LENGTH, ANY, NULL}, /* the adapter says it as they do */
    {CM_ERR_VERIFICATION_REQUIRED, NULL, "forbids", "Forbidden"},
    {CM_ERR_VERIFICATION_REQUIRED, ANY, "cf challenge"},
    CREDENTIALS_SPENT("All cookies are temporarily unavailable."),
    OWN_WORDS,
};
static const struct words genspark_words[] = {
    {CM_ERR_NO_CREDENTIAL, ANY, "No valid cookies available"},
    {CM_ERR_VERIFICATION_REQUIRED, NULL, "has blocked this address",
     "CloudFlare: Sorry, you have been blocked"},
    {CM_ERR_VERIFICATION_REQUIRED, ANY, "Detected Cloudflare Challenge Page"},
    {CM_ERR_UPSTREAM_DOWN, NULL, "is out of service", "Genspark Service Unavailable"},
    {CM_ERR_UPSTREAM_DOWN, ANY, "An error occurred with the current request, please try again."},
    {CM_ERR_OVERLOADED, ANY, "An error occurred with the current request, please try again."},
    CREDENTIALS_SPENT("All cookies are temporarily unavailable."),
    OWN_WORDS,
};
static const struct words genspark_media_words[] = {
    {CM_ERR_NO_CREDENTIAL, ANY, "No valid cookies available"},
    {CM_ERR_OVERLOADED, ANY, "Server overloaded, please try again later."},
    {CM_ERR_UPSTREAM_DOWN, ANY, "An error occurred with the current request, please try again"},
    CREDENTIALS_SPENT("all cookies are temporarily unavailable"),
    OWN_WORDS,
};
static const struct words alexsidebar_words[] = {
    {CM_ERR_NO_CREDENTIAL, ANY, "no cookies available"},
    CREDENTIALS_SPENT("All cookies are temporarily unavailable."),
    OWN_WORDS,
};

#define WORDS(table) .words = (table), .n_words = CM_COUNT(table)
static const struct dialect dialects[] = {
    [CM_COMPAT_HIXAI2API] = {.key_refused = "API-KEY校验失败",
                             WORDS(hix_words),
                             .path_object = true},
    [CM_COMPAT_GENSPARK2API] = {.key_refused = "authorization(api-secret)校验失败",
                                WORDS(genspark_words)},
    [CM_COMPAT_ALEXSIDEBAR2API] = {.key_refused = "API-KEY校验失败",
                                   WORDS(alexsidebar_words),
                                   .model_object = true},
};
static const struct dialect genspark_media = {.key_refused = "authorization(api-secret)校验失败",
                                              .as_object = true,
                                              .bad_json_is_400 = true,
                                              WORDS(genspark_media_words)};

static bool has_code(const struct cm_err *err, const char *code)
{
    return strcmp(err->code, code) == 0;
}

/* A setting that those systems had built in is missing: no error of theirs, and an operator looks for it. */
static bool is_ours(const struct cm_err *err)
{
    return err->cls == CM_ERR_NO_CREDENTIAL && has_code(err, "not_configured");
}

static const struct words *find_words(const struct dialect *d, const struct cm_err *err)
{
    for (size_t i = 0; i < d->n_words; i++) {
        const struct words *w = &d->words[i];

        if (w->cls == err->cls && !is_ours(err) && (!w->code || has_code(err, w->code)) &&
            (!w->says || strstr(err->msg, w->says)))
            return w;
    }
    return NULL;
}

/* The body as a whole; what is wrong within it names the member (param). */
static bool is_bad_json(const struct cm_err *err)
{
    struct cm_str msg = cm_str_of(err->msg);

    return err->cls == CM_ERR_BAD_REQUEST && err->param[0] == '\0' &&
           (cm_str_starts(msg, CM_S("invalid JSON")) ||
            cm_str_starts(msg, CM_S("The request body must be")));
}

static bool is_unknown_model(const struct dialect *d, const struct cm_err *err)
{
    return d->model_object && err->cls == CM_ERR_NOT_FOUND && has_code(err, "model_not_found");
}

static void put_object(struct cm_buf *out, struct cm_str message, const char *code)
{
    cm_buf_append(out, CM_S("{\"error\":{\"message\":"));
    cm_json_put_str(out, message);
    cm_buf_append(out, CM_S(",\"type\":\"invalid_request_error\",\"param\":\"\",\"code\":"));
    cm_json_put_z(out, code);
    cm_buf_append(out, CM_S("}}"));
}

/* The sentence about an unknown model names it between the first two quotes. */
static void put_unknown_model(struct cm_buf *out, const struct cm_err *err)
{
    struct cm_str rest = cm_str_of(err->msg), name;
    struct cm_buf message = {0};

    (void)cm_str_cut(&rest, '\'');
    name = cm_str_cut(&rest, '\'');
    cm_buf_printf(&message, "Model " CM_PRI " not supported", CM_ARG(name));
    put_object(out, cm_buf_str(&message), "invalid_model");
    cm_buf_clear(&message);
}

static bool is_below(struct cm_str path, struct cm_str folder)
{
    return cm_str_starts(path, folder) && (path.n == folder.n || path.p[folder.n] == '/');
}

/* The sentence about an unknown path begins with it. hixai2api has words for those where its routes are; elsewhere it shows its page. */
static bool unknown_path(const struct dialect *d, const struct cm_err *err, struct cm_str *path)
{
    struct cm_str msg = cm_str_of(err->msg);

    if (!d->path_object || err->cls != CM_ERR_NOT_FOUND || !cm_str_starts(msg, CM_S(UNKNOWN_PATH)))
        return false;
    msg = cm_str_from(msg, strlen(UNKNOWN_PATH));
    *path = cm_str_head(msg, cm_str_find(msg, CM_S("; chat is at ")));
    return is_below(*path, CM_S("/v1")) || is_below(*path, CM_S("/api"));
}

static void put_unknown_path(struct cm_buf *out, struct cm_str path)
{
    cm_buf_append(out, CM_S("{\"error\":\"API endpoint not found\",\"path\":"));
    cm_json_put_str(out, path);
    cm_buf_append(out, CM_S(",\"code\":404}"));
}

static void put_words(struct cm_buf *out, const struct dialect *d, const struct words *w,
                      const struct cm_err *err)
{
    cm_buf_append(out, d->as_object ? CM_S("{\"error\":{\"message\":") : CM_S("{\"error\":"));
    cm_json_put_z(out, w->text ? w->text : err->msg);
    if (d->as_object)
        cm_buf_append(out, CM_S(",\"type\":\"request_error\",\"param\":\"\",\"code\":\"500\"}"));
    if (w->text) {
        cm_buf_append(out, CM_S(",\"detail\":"));
        cm_json_put_z(out, err->msg);
    }
    cm_buf_put(out, '}');
}

static void put_bad_json(struct cm_buf *out, const struct dialect *d, const struct cm_err *err)
{
    if (!d->bad_json_is_400) {
        cm_buf_append(out, CM_S(BAD_JSON));
        return;
    }
    cm_buf_append(out, CM_S("{\"error\":"));
    cm_json_put_z(out, err->msg);
    cm_buf_put(out, '}');
}

static void error_body(const struct dialect *d, const struct cm_err *err, struct cm_buf *out)
{
    const struct words *w = find_words(d, err);
    struct cm_str path;

    if (err->cls == CM_ERR_UNAUTHORIZED)
        put_object(out, cm_str_of(d->key_refused), "invalid_authorization");
    else if (err->cls == CM_ERR_CLIENT_LIMIT && err->code[0] == '\0')
        cm_buf_append(out, CM_S(TOO_OFTEN));
    else if (err->cls == CM_ERR_FORBIDDEN && has_code(err, "address_blocked"))
        cm_buf_append(out, CM_S("{\"error\":\"Forbidden\"}"));
    else if (is_bad_json(err))
        put_bad_json(out, d, err);
    else if (is_unknown_model(d, err))
        put_unknown_model(out, err);
    else if (unknown_path(d, err, &path))
        put_unknown_path(out, path);
    else if (has_code(err, MAX_TOKENS_CODE))
        put_object(out, cm_str_of(err->msg), MAX_TOKENS_CODE);
    else if (w)
        put_words(out, d, w, err);
    else
        cm_surface_openai_chat.error_body(err, out);
}

static int error_status(const struct dialect *d, const struct cm_err *err)
{
    if (is_bad_json(err))
        return d->bad_json_is_400 ? 400 : 500;
    if (is_unknown_model(d, err))
        return 400;
    return find_words(d, err) ? 500 : cm_err_status(err);
}

#define X(name, id, parse)                                                                         \
    void cm_compat_##name##_error(const struct cm_err *err, struct cm_buf *out)                    \
    {                                                                                              \
        error_body(&dialects[id], err, out);                                                       \
    }                                                                                              \
    int cm_compat_##name##_status(const struct cm_err *err)                                        \
    {                                                                                              \
        return error_status(&dialects[id], err);                                                   \
    }                                                                                              \
    void cm_compat_##name##_stream_error(void *state, const struct cm_err *err,                    \
                                         struct cm_buf *out)                                       \
    {                                                                                              \
        (void)state;                                                                               \
        cm_buf_append(out, CM_S("data: "));                                                        \
        error_body(&dialects[id], err, out);                                                       \
        cm_buf_append(out, CM_S("\n\n"));                                                          \
    }
CM_COMPAT_DIALECTS(X)
#undef X

/* Its limit is one for all models. */
int cm_compat_alexsidebar_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    if (cm_openai_chat_parse(chat, body, err) < 0)
        return -1;
    if (chat->max_tokens <= ALEXSIDEBAR_TOKENS_MAX)
        return 0;
    cm_fail_param(err, CM_ERR_BAD_REQUEST, "max_tokens", "Max tokens %lld exceeds limit %d",
                  (long long)chat->max_tokens, ALEXSIDEBAR_TOKENS_MAX);
    cm_str_copy(err->code, sizeof(err->code), CM_S(MAX_TOKENS_CODE));
    return -1;
}

void cm_compat_media_error(const struct cm_err *err, struct cm_buf *out)
{
    error_body(&genspark_media, err, out);
}

int cm_compat_media_status(const struct cm_err *err)
{
    return error_status(&genspark_media, err);
}

static bool is_wrong_model(const struct cm_err *err)
{
    return (err->cls == CM_ERR_NOT_FOUND && has_code(err, "model_not_found")) ||
           (err->cls == CM_ERR_BAD_REQUEST && strcmp(err->param, "model") == 0);
}

void cm_compat_video_error(const struct cm_err *err, struct cm_buf *out)
{
    if (!is_wrong_model(err)) {
        error_body(&genspark_media, err, out);
        return;
    }
    cm_buf_append(out, CM_S("{\"error\":\"Invalid model\",\"detail\":"));
    cm_json_put_z(out, err->msg);
    cm_buf_put(out, '}');
}

int cm_compat_video_status(const struct cm_err *err)
{
    return is_wrong_model(err) ? 400 : error_status(&genspark_media, err);
}

const struct cm_surface *cm_surface_compat(const struct cm_surface *own, enum cm_compat compat)
{
    if (compat == CM_COMPAT_GENSPARK2API && own == &cm_surface_openai_images)
        return &cm_surface_compat_images;
    if (compat == CM_COMPAT_GENSPARK2API && own == &cm_surface_openai_videos)
        return &cm_surface_compat_videos;
    return own == &cm_surface_openai_chat && compat != CM_COMPAT_NONE ? &cm_surfaces_compat[compat]
                                                                      : own;
}

struct cm_str cm_compat_root(enum cm_compat compat)
{
    return compat == CM_COMPAT_GENSPARK2API || compat == CM_COMPAT_ALEXSIDEBAR2API ? CM_S("")
                                                                                   : CM_STR_NONE;
}
