/* Accounts in the forms operators paste them, and the headers that every call has.
 * Wire facts: DeepSeek protocol notes, sections 1 and 2. */
#include "deepseek_int.h"

#include "chatmux/base/secret.h"

/* ---- Accounts ---- */

#define MEMBERS(X) X(token) X(cookie) X(email) X(mobile) X(area_code) X(password)

static bool is_member(struct cm_str name)
{
#define X(member)                                                                                  \
    if (cm_str_eq(name, CM_S(#member)))                                                            \
        return true;
    MEMBERS(X)
#undef X
    return false;
}

static int bad_secret(struct cm_err *err, const char *why)
{
    return cm_fail(err, CM_ERR_BAD_REQUEST, "%s", why);
}

/* Slices are the document's. */
static void read_members(const yyjson_val *root, struct deepseek_account *out)
{
#define X(member) out->member = cm_str_trim(cm_json_str(cm_json_get(root, #member)));
    MEMBERS(X)
#undef X
}

static void put_members(struct cm_buf *out, const struct deepseek_account *a)
{
    const char *comma = "";

    cm_buf_put(out, '{');
#define X(member)                                                                                  \
    if (a->member.n > 0) {                                                                         \
        cm_buf_printf(out, "%s\"%s\":", comma, #member);                                           \
        cm_json_put_str(out, a->member);                                                           \
        comma = ",";                                                                               \
    }
    MEMBERS(X)
#undef X
    cm_buf_put(out, '}');
}

static bool is_token(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] > '~' ||
            strchr("\"'\\:;,{}", s.p[i]))
            return false;
    }
    return s.n > 0;
}

static int check_account(const struct deepseek_account *a, struct cm_err *err)
{
    const bool has_name = a->email.n > 0 || a->mobile.n > 0;

    if (a->token.n == 0 && !(has_name && a->password.n > 0))
        return bad_secret(err, "give the user token, or email (or mobile) and password");
    if (has_name != (a->password.n > 0))
        return bad_secret(err, "email (or mobile) and password belong together");
    if (a->token.n > 0 && !is_token(a->token))
        return bad_secret(err, "the token holds characters that no token has");
    if (!cm_header_value_ok(a->cookie))
        return bad_secret(err, "the cookie holds a control character");
    return 0;
}

/* What the site keeps in its local storage, {"value":"…","__version":"0"}, or members by name. */
static int read_object(struct cm_str given, struct deepseek_account *out, yyjson_doc **doc,
                       struct cm_err *err)
{
    yyjson_val *root, *key, *v;
    size_t i, max;

    *doc = cm_json_parse(given, &cm_json_limits_event, err);
    if (!*doc)
        return -1;
    root = yyjson_doc_get_root(*doc);
    if (cm_json_get(root, "value")) {
        out->token = cm_str_trim(cm_json_str(cm_json_get(root, "value")));
        return 0;
    }
    yyjson_obj_foreach(root, i, max, key, v)
    {
        if (!is_member(cm_json_str(key)) || !(yyjson_is_str(v) || yyjson_is_null(v)))
            return bad_secret(err, "an account has the texts token, cookie, email, mobile, "
                                   "area_code and password");
    }
    read_members(root, out);
    return 0;
}

/* "name@host:password", "+86 13800000000:password". A password may hold colons, a name may not. */
static void read_login(struct cm_str given, struct deepseek_account *out)
{
    struct cm_str name = cm_str_trim(cm_str_cut(&given, ':'));

    out->password = given;
    if (cm_str_find_char(name, '@') != SIZE_MAX) {
        out->email = name;
        return;
    }
    if (cm_str_starts(name, CM_S("+")) && cm_str_find_char(name, ' ') != SIZE_MAX) {
        out->area_code = cm_str_cut(&name, ' ');
        name = cm_str_trim(name);
    } else if (cm_str_starts(name, CM_S("+86")) && name.n == sizeof("+8613800000000") - 1) {
        out->area_code = cm_str_head(name, 3);
        name = cm_str_from(name, 3);
    }
    out->mobile = name;
}

int deepseek_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                       struct cm_err *err)
{
    struct deepseek_account a = {0};
    struct cm_buf json = {0};
    yyjson_doc *doc = NULL;
    int failed = 0;

    given = cm_str_trim(given);
    if (cm_str_starts_nocase(given, CM_S("Bearer ")))
        given = cm_str_trim(cm_str_from(given, sizeof("Bearer ") - 1));
    if (cm_str_starts(given, CM_S("{")))
        failed = read_object(given, &a, &doc, err);
    else if (cm_str_find_char(given, ':') != SIZE_MAX)
        read_login(given, &a);
    else
        a.token = given;
    if (!failed)
        failed = check_account(&a, err);
    if (!failed && a.password.n == 0 && a.cookie.n == 0) {
        *out = cm_secret_in(arena, a.token);
    } else if (!failed) {
        /* once: what moves leaves a copy behind */
        cm_buf_reserve(&json, 6 * given.n + 128);
        put_members(&json, &a);
        *out = cm_secret_in(arena, cm_buf_str(&json));
        cm_wipe(json.p, json.n);
        cm_buf_clear(&json);
    }
    yyjson_doc_free(doc);
    return failed;
}

void deepseek_account(struct cm_run *run, struct deepseek_account *out)
{
    struct cm_arena *arena = cm_run_arena(run);
    const struct cm_str secret = cm_run_cred(run)->secret;
    struct deepseek_account a = {0};
    yyjson_doc *doc;

    *out = (struct deepseek_account){.token = secret};
    if (!cm_str_starts(secret, CM_S("{")))
        return;
    doc = cm_json_parse(secret, &cm_json_limits_event, NULL);
    if (doc)
        read_members(yyjson_doc_get_root(doc), &a);
#define X(member) out->member = cm_arena_str(arena, a.member);
    MEMBERS(X)
#undef X
    yyjson_doc_free(doc);
}

struct cm_str deepseek_bearer(struct cm_run *run, const struct deepseek_account *account)
{
    const struct cm_str token = cm_run_cred(run)->token;

    return token.n > 0 ? token : account->token;
}

/* ---- Calls ---- */

struct cm_str deepseek_option(const struct cm_run *run, const char *name)
{
    return cm_option_value(cm_run_instance(run), name);
}

bool deepseek_option_is(const struct cm_run *run, const char *name, const char *value)
{
    return cm_str_eq(deepseek_option(run, name), cm_str_of(value));
}

struct cm_str deepseek_session_body(struct cm_run *run, struct cm_str session, int64_t message_id)
{
    struct cm_buf body = {0};

    cm_buf_append(&body, CM_S("{\"chat_session_id\":"));
    cm_json_put_str(&body, session);
    if (message_id != 0)
        cm_buf_printf(&body, ",\"message_id\":%lld", (long long)message_id);
    cm_buf_put(&body, '}');
    return cm_buf_settle(&body, cm_run_arena(run));
}

#define HEADERS_MAX 28

struct head {
    struct cm_header v[HEADERS_MAX];
    size_t n;
};

static void add(struct head *h, struct cm_str name, struct cm_str value)
{
    if (value.n > 0)
        h->v[h->n++] = (struct cm_header){name, value};
}

/* What a browser says besides. A user_agent of the operator's would contradict the sec-ch-ua lines. */
static void add_browser(struct cm_run *run, struct head *h)
{
    const struct cm_browser *b = cm_run_browser(run);

    add(h, CM_S("User-Agent"), b->user_agent);
    add(h, CM_S("Accept-Language"), deepseek_option(run, "accept_language"));
    if (cm_run_instance(run)->conf->upstream.user_agent.n == 0) {
        add(h, CM_S("sec-ch-ua"), b->sec_ch_ua);
        add(h, CM_S("sec-ch-ua-mobile"), CM_S("?0"));
        add(h, CM_S("sec-ch-ua-platform"), b->sec_ch_ua_platform);
    }
    add(h, CM_S("sec-fetch-dest"), CM_S("empty"));
    add(h, CM_S("sec-fetch-mode"), CM_S("cors"));
    add(h, CM_S("sec-fetch-site"), CM_S("same-origin"));
}

static void make_call(struct cm_run *run, const struct deepseek_account *account,
                      const struct deepseek_ask *ask, struct head *h, struct cm_call *call)
{
    struct cm_arena *arena = cm_run_arena(run);
    const struct cm_str origin = deepseek_option(run, "origin");
    const struct cm_str bearer = ask->bearer.n > 0 ? ask->bearer : deepseek_bearer(run, account);

    h->n = 0;
    if (!ask->anonymous)
        add(h, CM_S("Authorization"), cm_arena_join(arena, CM_S("Bearer "), bearer));
    add(h, CM_S("Content-Type"),
        ask->content_type.n ? ask->content_type : CM_S("application/json"));
    add(h, CM_S("Accept"), CM_S("*/*"));
    add(h, CM_S("Origin"), origin);
    add(h, CM_S("Referer"), cm_arena_printf(arena, CM_PRI "/", CM_ARG(origin)));
    add_browser(run, h);
    add(h, CM_S("x-client-platform"), deepseek_option(run, "client_platform"));
    add(h, CM_S("x-client-locale"), deepseek_option(run, "client_locale"));
    add(h, CM_S("x-client-version"), deepseek_option(run, "client_version"));
    add(h, CM_S("x-app-version"), deepseek_option(run, "app_version"));
    add(h, CM_S("x-client-timezone-offset"), deepseek_option(run, "timezone_offset"));
    add(h, CM_S("x-client-bundle-id"), deepseek_option(run, "bundle_id"));
    add(h, CM_S("Cookie"), account->cookie);
    add(h, CM_S("x-ds-pow-response"), ask->proof);
    add(h, CM_S("x-file-size"), ask->file_size);
    add(h, CM_S("x-thinking-enabled"), ask->thinking);
    add(h, CM_S("x-model-type"), ask->model_type);
    *call = (struct cm_call){.method = ask->method ? ask->method : "POST",
                             .url = cm_arena_printf(arena, CM_PRI CM_PRI,
                                                    CM_ARG(deepseek_option(run, ask->path_option)),
                                                    CM_ARG(ask->query)),
                             .headers = h->v,
                             .n_headers = h->n,
                             .body = ask->body,
                             .timeout_ms = ask->timeout_ms,
                             .lands = ask->lands};
}

enum cm_step deepseek_fetch(struct cm_run *run, const struct deepseek_account *account,
                            const struct deepseek_ask *ask)
{
    struct cm_call call;
    struct head head;

    make_call(run, account, ask, &head, &call);
    return cm_run_fetch(run, &call);
}

enum cm_step deepseek_stream(struct cm_run *run, const struct deepseek_account *account,
                             const struct deepseek_ask *ask)
{
    struct cm_call call;
    struct head head;

    make_call(run, account, ask, &head, &call);
    return cm_run_stream(run, &call);
}
