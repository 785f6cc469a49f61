/* alexsidebar's access tokens: made of a Firebase refresh token, for an hour each (protocol notes, section 2). */
#include "alexsidebar_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#define REPLY_MAX (256u * 1024)
#define TIMEOUT_MS 10000

struct alex_token alex_token_of(struct cm_run *run)
{
    const struct cm_cred *cred = cm_run_cred(run);
    struct cm_arena *arena = cm_run_arena(run);
    yyjson_doc *doc =
        cred->token.n > 0 ? cm_json_parse(cred->token, &cm_json_limits_event, NULL) : NULL;
    const yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    struct alex_token t = {
        .access = cm_arena_str(arena, cm_json_str(cm_json_get(root, "access"))),
        .refresh = cm_arena_str(arena, cm_json_str(cm_json_get(root, "refresh"))),
        .user = cm_arena_str(arena, cm_json_str(cm_json_get(root, "user"))),
        .made_s = yyjson_get_sint(cm_json_get(root, "made")),
    };

    yyjson_doc_free(doc);
    if (t.refresh.n == 0)
        t.refresh = cred->secret;
    return t;
}

static enum cm_step ask_token(struct cm_run *run, struct cm_err *err)
{
    const struct cm_header headers[] = {
        {CM_S("Content-Type"), CM_S("application/x-www-form-urlencoded")},
        {CM_S("User-Agent"), alex_option(run, "token_user_agent")},
        {CM_S("X-Client-Version"), alex_option(run, "client_version")},
        {CM_S("X-Firebase-gmpid"), alex_option(run, "gmpid")},
    };
    struct cm_call call = {.method = "POST",
                           .headers = headers,
                           .n_headers = CM_COUNT(headers),
                           .max_reply = REPLY_MAX,
                           .timeout_ms = TIMEOUT_MS};
    const struct cm_str refresh = alex_token_of(run).refresh;
    struct cm_buf url = {0}, body = {0};

    if (cm_run_instance(run)->lacks.n > 0) {
        cm_fail(err, CM_ERR_CONFIG, CM_PRI, CM_ARG(cm_run_instance(run)->lacks));
        return CM_STEP_FAIL;
    }
    cm_buf_append(&url, alex_option(run, "token_url"));
    cm_buf_append(&url, alex_option(run, "token_path"));
    cm_buf_append(&url, CM_S("?key="));
    cm_percent(&url, alex_option(run, "firebase_key"));
    /* once: what moves leaves a copy behind */
    cm_buf_reserve(&body, 64 + 3 * refresh.n);
    cm_buf_append(&body, CM_S("grant_type=refresh_token&refresh_token="));
    cm_percent(&body, refresh);
    call.url = cm_buf_settle(&url, cm_run_arena(run));
    call.body = cm_arena_str(cm_run_arena(run), cm_buf_str(&body));
    cm_wipe(body.p, body.n);
    cm_buf_clear(&body);
    return cm_run_fetch(run, &call);
}

static const struct {
    const char *word; /* first of the message */
    enum cm_err_class cls;
} token_words[] = {
    {"TOKEN_EXPIRED", CM_ERR_EXPIRED},
    {"INVALID_REFRESH_TOKEN", CM_ERR_INVALID_CREDENTIAL},
    {"USER_NOT_FOUND", CM_ERR_INVALID_CREDENTIAL},
    {"USER_DISABLED", CM_ERR_INVALID_CREDENTIAL},
    {"MISSING_REFRESH_TOKEN", CM_ERR_BAD_REQUEST},
    {"INVALID_GRANT_TYPE", CM_ERR_BAD_REQUEST},
};

static enum cm_err_class token_class(int status, const yyjson_val *error, struct cm_str message)
{
    struct cm_str word = cm_str_head(message, cm_str_find_char(message, ' '));

    for (size_t i = 0; i < CM_COUNT(token_words); i++) {
        if (cm_str_eq(word, cm_str_of(token_words[i].word)))
            return token_words[i].cls;
    }
    if (cm_str_starts_nocase(message, CM_S("API key ")) ||
        (status == 403 &&
         cm_str_eq(cm_json_str(cm_json_get(error, "status")), CM_S("PERMISSION_DENIED"))))
        return CM_ERR_CONFIG;
    return status == 403 ? CM_ERR_UPSTREAM_DOWN : CM_ERR_NONE;
}

static enum cm_step token_refused(const struct cm_ev *ev, const yyjson_val *root,
                                  struct cm_err *err)
{
    const yyjson_val *error = cm_json_opt(root, "error");
    const struct cm_str message = cm_utf8_head(cm_json_str(cm_json_get(error, "message")), 200);
    enum cm_err_class cls = token_class(ev->status, error, message);

    if (cls == CM_ERR_CONFIG)
        cm_fail(err, cls,
                "the platform refuses x.firebase_key: \"" CM_PRI
                "\"; put its public Firebase web key there, or into the variable AS_FIREBASE_KEY",
                CM_ARG(message));
    else if (cls == CM_ERR_NONE)
        cm_http_fail(err, ev->status == 200 ? 502 : ev->status, ev->headers, ev->n_headers,
                     CM_S("the token service"));
    else
        cm_fail(err, cls, "the token service refuses this refresh token: " CM_PRI, CM_ARG(message));
    return CM_STEP_FAIL;
}

/* Part two of a JWT as JSON; NULL when it is none. */
static yyjson_doc *claims_of(struct cm_str jwt)
{
    struct cm_buf json = {0};
    yyjson_doc *doc = NULL;

    cm_str_cut(&jwt, '.');
    if (cm_base64_decode(&json, cm_str_cut(&jwt, '.')) == 0)
        doc = cm_json_parse(cm_buf_str(&json), &cm_json_limits_event, NULL);
    cm_buf_clear(&json);
    return doc;
}

/* The time it has left, as told beside it, does not depend on our clock; its own end does. */
static int64_t expires_ms(struct cm_run *run, yyjson_val *root, yyjson_val *claims)
{
    yyjson_val *told = cm_json_opt(root, "expires_in");
    uint64_t seconds = 0;

    if (yyjson_is_uint(told))
        seconds = yyjson_get_uint(told);
    else
        cm_str_to_u64(cm_json_str(told), INT32_MAX, &seconds);
    if (seconds > 0 && seconds <= INT32_MAX)
        return cm_run_unix_ms(run) + (int64_t)seconds * 1000;
    seconds = yyjson_get_uint(cm_json_opt(claims, "exp"));
    return seconds <= INT64_MAX / 1000 ? (int64_t)seconds * 1000 : 0;
}

static void keep_token(struct cm_run *run, struct cm_str access, yyjson_val *root)
{
    const struct alex_token before = alex_token_of(run);
    yyjson_doc *doc = claims_of(access);
    yyjson_val *claims = doc ? yyjson_doc_get_root(doc) : NULL;
    struct cm_str refresh = cm_json_str(cm_json_opt(root, "refresh_token"));
    struct cm_str user = cm_json_str(cm_json_opt(root, "user_id"));
    struct cm_buf token = {0};

    if (user.n == 0)
        user = cm_json_str(cm_json_opt(claims, "sub"));
    if (refresh.n == 0)
        refresh = before.refresh;
    cm_buf_reserve(&token, 64 + access.n + refresh.n + user.n);
    cm_buf_append(&token, CM_S("{\"access\":"));
    cm_json_put_str(&token, access);
    cm_buf_append(&token, CM_S(",\"refresh\":"));
    cm_json_put_str(&token, refresh);
    cm_buf_append(&token, CM_S(",\"user\":"));
    cm_json_put_str(&token, user);
    cm_buf_append(&token, CM_S(",\"made\":"));
    cm_json_put_int(&token, cm_run_unix_ms(run) / 1000);
    cm_buf_put(&token, '}');
    cm_run_token(run, cm_buf_str(&token), expires_ms(run, root, claims));
    cm_wipe(token.p, token.n);
    cm_buf_clear(&token);
    yyjson_doc_free(doc);
}

enum cm_step alex_refresh_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    enum cm_step step = CM_STEP_DONE;
    yyjson_val *root;
    yyjson_doc *doc;
    struct cm_str access;

    if (ev->kind == CM_EV_START)
        return ask_token(run, err);
    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    root = doc ? yyjson_doc_get_root(doc) : NULL;
    access = cm_json_str(cm_json_opt(root, "access_token"));
    if (access.n == 0)
        access = cm_json_str(cm_json_opt(root, "id_token"));
    if (ev->status == 200 && access.n > 0 && cm_header_value_ok(access))
        keep_token(run, access, root);
    else
        step = token_refused(ev, root, err);
    yyjson_doc_free(doc);
    return step;
}
