/* alexsidebar: Alex Sidebar (api.alexcodes.app), by the Firebase refresh token of an account.
 *
 * Happy path: ASK sends the whole conversation -> ANSWER reads snapshots of the answer until the
 * body ends. Access tokens last an hour; the refresh flow makes them, the pool asks for it ahead of
 * their end and when one is refused.
 * Failures: REFUSED collects the body of a refusal and tells its class; a body that ends inside an
 * object, or says nothing, is no answer.
 * Wire facts: Alex Sidebar protocol notes, sections 1 to 5. */
#include "alexsidebar_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/crypto.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include "chatmux/base/utf8.h"
#include "chatmux/provider/list.h"
#include "chatmux/provider/run.h"

#include <stdio.h>

#define ALEX_STATES(X) X(ASK) X(ANSWER) X(REFUSED)
enum alex_state {
#define X(name) STATE_##name,
    ALEX_STATES(X)
#undef X
};

#define REFUSAL_MAX (64u * 1024)
#define WHY_MAX 200    /* bytes of the platform's own words in a message */
#define COOLDOWN_S 600 /* the vendor's limit tells no time */
#define MAX_INFLIGHT 2 /* the vendor has such a limit; how high it is: protocol notes: UNKNOWN */
#define MONTHLY_LIMIT 200
#define OUTPUT_TOKENS 100000
#define THINKS 1 /* number of a model that is asked to think without its suffix */
#define LOCAL_ID_N 10
#define SECRET_MIN 16
#define FRESH_S (10 * 60)

struct alex {
    enum alex_state state;
    struct alex_scan scan;
    struct alex_sections sections;
    struct cm_buf body; /* REFUSED: what came so far */
    int status;         /* REFUSED: of the answer */
    int retry_after_s;
    struct cm_usage usage;
    bool said; /* any text that is no thinking */
    bool odd;  /* something was not understood, and this was told */
};

static const char *alex_state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        ALEX_STATES(X)
#undef X
    };

    return names[((const struct alex *)state)->state];
}

static void alex_clear(void *state)
{
    struct alex *a = state;

    alex_scan_clear(&a->scan);
    alex_sections_clear(&a->sections);
    cm_buf_clear(&a->body);
}

/* ---- Models and options ---- */

#define MODEL(ours, theirs, features_, number_)                                                    \
    {.name = CM_S_INIT(ours),                                                                      \
     .upstream = CM_S_INIT(theirs),                                                                \
     .features = CM_MODEL_SEARCH | (features_),                                                    \
     .number = (number_),                                                                          \
     .max_output_tokens = OUTPUT_TOKENS}

static const struct cm_model_row models[] = {
    MODEL("claude-3-7-sonnet", "agent_sonnet_37", CM_MODEL_THINKING, 0),
    MODEL("claude-3-7-sonnet-thinking", "agent_sonnet_37", 0, THINKS),
    MODEL("claude-3-5-sonnet", "agent_sonnet", 0, 0),
    MODEL("deepseek-r1", "agent_deepseek_r1", 0, 0),
    MODEL("deepseek-v3", "deepseek_v3", 0, 0),
    MODEL("o3-mini", "agent_o3_mini", 0, 0),
    MODEL("gpt-4o", "gpt4o", 0, 0),
    MODEL("o1", "o1", 0, 0),
};

static const struct cm_option options[] = {
    {.name = "firebase_key",
     .type = CM_CONF_STR,
     .def = "",
     .env = "AS_FIREBASE_KEY",
     .help = "public web key of the platform's Firebase project (AIza...); needed"},
    {.name = "token_url",
     .type = CM_CONF_STR,
     .def = "https://securetoken.googleapis.com",
     .help = "where access tokens are made"},
    {.name = "token_path", .type = CM_CONF_STR, .def = "/v1/token", .help = "call that makes them"},
    {.name = "chat_path",
     .type = CM_CONF_STR,
     .def = "/call_assistant5",
     .help = "call that asks and streams the answer"},
    {.name = "app_version",
     .type = CM_CONF_STR,
     .def = "2.5.7",
     .help = "of the application we look like"},
    {.name = "app_build", .type = CM_CONF_STR, .def = "191", .help = "its build number"},
    {.name = "accept_language",
     .type = CM_CONF_STR,
     .def = "zh-CN,zh-Hans;q=0.9",
     .help = "its language"},
    {.name = "local_id",
     .type = CM_CONF_STR,
     .def = "",
     .help =
         "device of the account, 10 characters of A-Z 0-9; empty = one for each account, always the same"},
    {.name = "token_user_agent",
     .type = CM_CONF_STR,
     .def = "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
     .help = "User-Agent where tokens are made; user_agent replaces it, too"},
    {.name = "client_version",
     .type = CM_CONF_STR,
     .def = "Node/JsCore/10.5.2/FirebaseCore-web",
     .help = "X-Client-Version where tokens are made"},
    {.name = "gmpid",
     .type = CM_CONF_STR,
     .def = "1:252179682924:web:9c80c6a32cb4682cbfaa49",
     .help = "X-Firebase-gmpid where tokens are made"},
    {.name = "image_urls",
     .type = CM_CONF_BOOL,
     .def = "no",
     .help = "experimental: http(s) URLs of images go into img_urls; no = images are refused"},
    {.name = "anthropic_key", .type = CM_CONF_STR, .def = "", .help = "api_keys.anthropic"},
    {.name = "perplexity_key", .type = CM_CONF_STR, .def = "", .help = "api_keys.perplexity"},
    {.name = "gemini_key", .type = CM_CONF_STR, .def = "", .help = "api_keys.gemini"},
    {.name = "openai_key", .type = CM_CONF_STR, .def = "", .help = "api_keys.openai"},
    {.name = NULL},
};

struct cm_str alex_option(const struct cm_run *run, const char *name)
{
    return cm_option_value(cm_run_instance(run), name);
}

static int alex_configure(struct cm_instance *in, struct cm_problems *problems)
{
    (void)problems;
    if (cm_option_value(in, "firebase_key").n == 0)
        in->lacks = CM_S("x.firebase_key is not set, so no access token can be made: put the "
                         "platform's public Firebase web key (AIza...) there, or into the "
                         "variable AS_FIREBASE_KEY");
    return 0;
}

/* ---- Credential ---- */

static int alex_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                          struct cm_err *err)
{
    given = cm_str_trim(given);
    for (size_t i = 0; i < given.n; i++) {
        if ((unsigned char)given.p[i] <= ' ' || (unsigned char)given.p[i] >= 0x7f)
            return cm_fail(err, CM_ERR_BAD_REQUEST,
                           "a refresh token has no spaces and no characters outside of ASCII");
    }
    if (given.n < SECRET_MIN)
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       "paste a Firebase refresh token (long, mostly beginning AMf-vB)");
    *out = cm_secret_in(arena, given);
    return 0;
}

/* ---- What a refusal means ---- */

static bool is_challenge(struct cm_str body)
{
    static const struct cm_str signs[] = {CM_S_INIT("Just a moment..."), CM_S_INIT("_cf_chl_opt"),
                                          CM_S_INIT("cdn-cgi/challenge-platform"),
                                          CM_S_INIT("Attention Required! | Cloudflare"),
                                          CM_S_INIT("Sorry, you have been blocked")};

    for (size_t i = 0; i < CM_COUNT(signs); i++) {
        if (cm_str_has(body, signs[i]))
            return true;
    }
    return false;
}

static int until_next_month_s(const struct cm_run *run)
{
    const int64_t now = cm_run_unix_ms(run);

    return (int)((cm_month_ends_ms(now) - now + 999) / 1000);
}

/* The platform says so when the header `auth` is missing or empty, which ours never is. An older
 * token is renewed; if a fresh one does not help, the request is what it minds. */
static enum cm_err_class bearer_class(struct cm_run *run)
{
    const int64_t age_s = cm_run_unix_ms(run) / 1000 - alex_token_of(run).made_s;

    return age_s >= 0 && age_s < FRESH_S ? CM_ERR_BAD_REQUEST : CM_ERR_EXPIRED;
}

static const struct {
    struct cm_str begins; /* of "error" */
    enum cm_err_class cls;
} words[] = {
    {CM_S_INIT("Too many concurrent requests"), CM_ERR_RATE_LIMITED},
    {CM_S_INIT("Usage limit exceeded"), CM_ERR_QUOTA_EXHAUSTED},
    {CM_S_INIT("Invalid token"), CM_ERR_EXPIRED},
    {CM_S_INIT("Service Unavailable"), CM_ERR_UPSTREAM_DOWN},
};

/* By the platform's own words; *why points to them, valid as long as the document. */
static enum cm_err_class body_class(struct cm_run *run, yyjson_val *root, struct cm_str *why)
{
    yyjson_val *detail = cm_json_opt(root, "detail");
    const struct cm_str error = cm_json_str(cm_json_opt(root, "error"));

    *why = error;
    for (size_t i = 0; i < CM_COUNT(words); i++) {
        if (cm_str_starts_nocase(error, words[i].begins))
            return words[i].cls;
    }
    if (yyjson_is_arr(detail)) /* what FastAPI finds wrong in a body */
        *why = cm_json_str(cm_json_get(yyjson_arr_get_first(detail), "msg"));
    else if (detail)
        *why = cm_json_str(detail);
    if (cm_str_starts_nocase(*why, CM_S("Bearer authentication is needed")))
        return bearer_class(run);
    return CM_ERR_NONE;
}

static enum cm_err_class status_class(int status)
{
    if (status == 401)
        return CM_ERR_EXPIRED;
    if (status >= 500)
        return CM_ERR_UPSTREAM_DOWN;
    return CM_ERR_NONE;
}

/* status 0: in the middle of an answer. */
static enum cm_step refuse(struct cm_run *run, int status, int retry_after_s, struct cm_str body,
                           struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_event, NULL);
    struct cm_str why = CM_STR_NONE;
    enum cm_err_class cls = doc ? body_class(run, yyjson_doc_get_root(doc), &why) : CM_ERR_NONE;

    if (cls == CM_ERR_NONE && is_challenge(body))
        cls = CM_ERR_VERIFICATION_REQUIRED;
    if (cls == CM_ERR_NONE)
        cls = status == 0 || status / 100 == 2 ? CM_ERR_UPSTREAM_DOWN : status_class(status);
    if (cls == CM_ERR_NONE) {
        cm_http_fail(err, status, NULL, 0, CM_S("alexsidebar"));
        cls = err->cls;
    }
    why = why.n > 0 ? cm_utf8_head(why, WHY_MAX) : cm_str_of(cm_err_info(cls)->name);
    if (cls == CM_ERR_VERIFICATION_REQUIRED)
        cm_fail(err, cls, "alexsidebar wants a human to verify this account or address (status %d)",
                status);
    else if (status == 0)
        cm_fail(err, cls, "alexsidebar broke off its answer: " CM_PRI, CM_ARG(why));
    else
        cm_fail(err, cls, "alexsidebar refused the request with status %d: " CM_PRI, status,
                CM_ARG(why));
    err->retry_after_s = retry_after_s;
    if (cls == CM_ERR_QUOTA_EXHAUSTED && retry_after_s == 0)
        err->retry_after_s = until_next_month_s(run);
    yyjson_doc_free(doc);
    return CM_STEP_FAIL;
}

/* ---- The request ---- */

static int unsupported(struct cm_err *err, const char *param, const char *why)
{
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "%s", why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
    return -1;
}

static int check_part(const struct cm_part *part, bool image_urls, const char *param,
                      struct cm_err *err)
{
    if (part->kind == CM_PART_FILE || part->kind == CM_PART_AUDIO)
        return unsupported(err, param, "alexsidebar takes text only, no files or audio.");
    if (part->kind != CM_PART_IMAGE)
        return 0;
    if (!image_urls)
        return unsupported(err, param,
                           "alexsidebar takes text only here, no images (x.image_urls = yes passes "
                           "on http(s) addresses, as an experiment).");
    if (part->url.n == 0)
        return unsupported(err, param,
                           "alexsidebar takes images by http(s) address only, not as data.");
    return 0;
}

/* What the platform has not must not vanish from the request unsaid. */
static int check_request(const struct cm_chat *chat, bool image_urls, struct cm_err *err)
{
    char param[sizeof(err->param)];

    if (chat->untranslatable.cls != CM_ERR_NONE) {
        *err = chat->untranslatable;
        return -1;
    }
    if (chat->n > 1)
        return unsupported(err, "n", "alexsidebar gives one answer to a request: 'n' must be 1.");
    if (chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE)
        return unsupported(
            err, "tools",
            "alexsidebar calls no tools: leave 'tools' out or set 'tool_choice' to 'none'.");
    for (size_t i = 0; i < chat->n_msgs; i++) {
        snprintf(param, sizeof(param), "messages[%zu].content", i);
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            if (check_part(&chat->msgs[i].parts[k], image_urls, param, err))
                return -1;
        }
    }
    return 0;
}

static const char *role_word(enum cm_role role)
{
    switch (role) {
    case CM_ROLE_SYSTEM:
    case CM_ROLE_DEVELOPER:
        return "System";
    case CM_ROLE_ASSISTANT:
        return "Assistant";
    case CM_ROLE_USER:
    case CM_ROLE_TOOL:
        break;
    }
    return "User";
}

/* The text that a part becomes, empty for one that has none; in the arena where it is made. */
static struct cm_str part_text(struct cm_run *run, const struct cm_part *part)
{
    const struct cm_part *call;

    switch (part->kind) {
    case CM_PART_TEXT:
    case CM_PART_REFUSAL:
        return part->text;
    case CM_PART_TOOL_CALL:
        return cm_arena_printf(cm_run_arena(run), "[calls " CM_PRI " with " CM_PRI "]",
                               CM_ARG(part->name), CM_ARG(part->text));
    case CM_PART_TOOL_RESULT:
        call = cm_chat_call_of(cm_run_chat(run), part->id);
        return cm_arena_printf(cm_run_arena(run), "[result of " CM_PRI "]\n" CM_PRI,
                               CM_ARG(call ? call->name : CM_S("a tool")), CM_ARG(part->text));
    case CM_PART_IMAGE:
    case CM_PART_AUDIO:
    case CM_PART_FILE:
    case CM_PART_REASONING: /* of earlier turns: no part of the conversation */
        break;
    }
    return CM_STR_NONE;
}

static bool has_content(struct cm_run *run, const struct cm_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        if (msg->parts[i].kind == CM_PART_IMAGE || part_text(run, &msg->parts[i]).n > 0)
            return true;
    }
    return false;
}

static void put_bool(struct cm_buf *out, const char *name, bool v)
{
    cm_buf_printf(out, ",\"%s\":%s", name, v ? "true" : "false");
}

static void put_message(struct cm_run *run, const struct cm_msg *msg, size_t id, bool last,
                        struct cm_buf *out)
{
    const struct cm_target *target = cm_run_target(run);
    const bool asks = last && msg->role == CM_ROLE_USER;
    const bool thinks = target->thinking || (target->row && target->row->number == THINKS);
    bool some = false;

    cm_buf_printf(out, "%s{\"role\":\"%s\",\"id\":%zu,\"ts_created\":%lld", id > 0 ? "," : "",
                  role_word(msg->role), id, (long long)(cm_run_unix_ms(run) / 1000));
    put_bool(out, "web_access", asks && target->search); /* effect: protocol notes: UNKNOWN */
    cm_buf_append(out, CM_S(",\"img_urls\":["));
    for (size_t i = 0; i < msg->n_parts; i++) {
        if (msg->parts[i].kind != CM_PART_IMAGE)
            continue;
        if (some)
            cm_buf_put(out, ',');
        cm_json_put_str(out, msg->parts[i].url);
        some = true;
    }
    cm_buf_append(out, CM_S("],\"relevant_files\":[],\"docs\":[],\"code_contexts\":[]"));
    put_bool(out, "think_first", asks && thinks);
    cm_buf_append(out, CM_S(",\"sections\":["));
    some = false;
    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_str text = part_text(run, &msg->parts[i]);

        if (text.n == 0)
            continue;
        cm_buf_append(out, some ? CM_S(",{\"text\":{\"text\":") : CM_S("{\"text\":{\"text\":"));
        cm_json_put_str(out, text);
        cm_buf_append(out, CM_S(",\"is_thinking\":false}}"));
        some = true;
    }
    cm_buf_append(out, CM_S("]}"));
}

/* The first system text, if it is one text. */
static struct cm_str prompt_of(const struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->n_msgs; i++) {
        const struct cm_msg *msg = &chat->msgs[i];

        if (msg->role == CM_ROLE_SYSTEM || msg->role == CM_ROLE_DEVELOPER)
            return msg->n_parts == 1 && msg->parts[0].kind == CM_PART_TEXT ? msg->parts[0].text
                                                                           : CM_STR_NONE;
    }
    return CM_STR_NONE;
}

static void put_body(struct cm_run *run, struct cm_buf *out, size_t *n_messages)
{
    static const char *const keys[] = {"anthropic", "perplexity", "gemini", "openai"};
    const struct cm_chat *chat = cm_run_chat(run);
    size_t left = 0;

    for (size_t i = 0; i < chat->n_msgs; i++)
        left += has_content(run, &chat->msgs[i]);
    *n_messages = left;
    cm_buf_append(out, CM_S("{\"model\":"));
    cm_json_put_str(out, cm_run_target(run)->model);
    cm_buf_append(out, CM_S(",\"prompt\":"));
    cm_json_put_str(out, prompt_of(chat));
    cm_buf_append(out, CM_S(",\"api_keys\":{"));
    for (size_t i = 0; i < CM_COUNT(keys); i++) {
        char name[32];

        snprintf(name, sizeof(name), "%s_key", keys[i]);
        cm_buf_printf(out, "%s\"%s\":", i > 0 ? "," : "", keys[i]);
        cm_json_put_str(out, alex_option(run, name));
    }
    cm_buf_append(out, CM_S("},\"deps\":[],\"messages\":["));
    for (size_t i = 0, id = 0; i < chat->n_msgs; i++) {
        if (has_content(run, &chat->msgs[i])) {
            put_message(run, &chat->msgs[i], id++, left == 1, out);
            left--;
        }
    }
    cm_buf_append(out, CM_S("]}"));
}

/* A serial number in the manner of a Mac's. The vendor allows two devices to an account, so each
 * account has one of its own, always the same. */
static struct cm_str local_id(struct cm_run *run, const struct alex_token *token)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const struct cm_str told = alex_option(run, "local_id");
    unsigned char hash[CM_SHA256_SIZE];
    char id[LOCAL_ID_N];

    if (told.n > 0)
        return told;
    cm_sha256(token->user.n > 0 ? token->user : cm_run_cred(run)->secret, hash);
    for (size_t i = 0; i < sizeof(id); i++)
        id[i] = digits[hash[i] % 36];
    return cm_arena_str(cm_run_arena(run), cm_str(id, sizeof(id)));
}

static enum cm_step start(struct cm_run *run, struct alex *a, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_arena *arena = cm_run_arena(run);
    const struct alex_token token = alex_token_of(run);
    const struct cm_header headers[] = {
        {CM_S("Content-Type"), CM_S("application/json")},
        {CM_S("auth"), token.access},
        {CM_S("app-version"), alex_option(run, "app_version")},
        {CM_S("app-build-number"), alex_option(run, "app_build")},
        {CM_S("local-id"), local_id(run, &token)},
        {CM_S("accept-language"), alex_option(run, "accept_language")},
        {CM_S("User-Agent"),
         cm_arena_printf(arena, "AlexSideBar/" CM_PRI " CFNetwork/1568.300.101 Darwin/24.2.0",
                         CM_ARG(alex_option(run, "app_build")))},
    };
    struct cm_call call = {.method = "POST",
                           .url = alex_option(run, "chat_path"),
                           .headers = headers,
                           .n_headers = CM_COUNT(headers)};
    struct cm_buf body = {0};
    size_t n_messages;

    if (check_request(chat, cm_option_bool(cm_run_instance(run), "image_urls"), err))
        return CM_STEP_FAIL;
    if (token.access.n == 0) {
        cm_fail(err, CM_ERR_EXPIRED, "alexsidebar has no access token for this account yet");
        return CM_STEP_FAIL;
    }
    put_body(run, &body, &n_messages);
    call.body = cm_buf_settle(&body, arena);
    if (n_messages == 0) {
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "the messages hold no text");
        return CM_STEP_FAIL;
    }
    a->usage.source = CM_USAGE_ESTIMATED;
    a->usage.in_uncached = cm_chat_estimate_tokens(chat);
    a->state = STATE_ANSWER;
    return cm_run_stream(run, &call);
}

/* ---- The answer ---- */

struct feed {
    struct cm_run *run;
    struct alex *a;
};

static void on_say(void *arg, bool reasoning, struct cm_str text)
{
    const struct feed *f = arg;

    if (reasoning) {
        f->a->usage.out_reasoning += cm_estimate_tokens(text);
        cm_run_reasoning(f->run, text);
    } else {
        f->a->usage.out_text += cm_estimate_tokens(text);
        f->a->said = true;
        cm_run_text(f->run, text);
    }
}

static int on_object(void *arg, struct cm_str object, struct cm_err *err)
{
    struct feed *f = arg;
    yyjson_doc *doc = cm_json_parse(object, &cm_json_limits_event, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    yyjson_val *list = cm_json_opt(root, "sections");
    int failed = 0;

    if (list)
        alex_sections_walk(&f->a->sections, list, on_say, f);
    else if (cm_json_opt(root, "error") || cm_json_opt(root, "detail"))
        failed = refuse(f->run, 0, 0, object, err) == CM_STEP_FAIL ? -1 : 0;
    else if (!doc &&
             !f->a->odd) { /* the next one is as whole; a character may have been cut here */
        f->a->odd = true;
        cm_run_odd(f->run, "an object that is no JSON", object);
    }
    yyjson_doc_free(doc);
    return failed;
}

static enum cm_step finish(struct cm_run *run, const struct alex *a, struct cm_err *err)
{
    if (a->scan.depth > 0 || !a->said) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "alexsidebar ended its answer %s",
                a->scan.depth > 0 ? "before it was complete" : "without any text");
        return CM_STEP_FAIL;
    }
    cm_run_usage(run, &a->usage);
    cm_run_finish(run, CM_FINISH_STOP);
    return CM_STEP_DONE;
}

static enum cm_step answered(struct cm_run *run, struct alex *a, const struct cm_ev *ev,
                             struct cm_err *err)
{
    struct feed feed = {run, a};
    const struct cm_str type = cm_header_find(ev->headers, ev->n_headers, CM_S("content-type"));

    switch (ev->kind) {
    case CM_EV_HEAD:
        if (ev->status / 100 == 2 && !cm_str_starts_nocase(type, CM_S("text/html")))
            return CM_STEP_WAIT;
        a->state = STATE_REFUSED;
        a->status = ev->status;
        a->retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run));
        cm_buf_init(&a->body, REFUSAL_MAX);
        return CM_STEP_WAIT;
    case CM_EV_DATA:
        return alex_scan_feed(&a->scan, ev->data, on_object, &feed, err) ? CM_STEP_FAIL
                                                                         : CM_STEP_WAIT;
    default: /* END */
        return finish(run, a, err);
    }
}

static enum cm_step refused(struct cm_run *run, struct alex *a, const struct cm_ev *ev,
                            struct cm_err *err)
{
    if (ev->kind == CM_EV_DATA) {
        cm_buf_append(&a->body, cm_str_head(ev->data, REFUSAL_MAX - a->body.n));
        if (a->body.n < REFUSAL_MAX)
            return CM_STEP_WAIT;
    }
    return refuse(run, a->status, a->retry_after_s, cm_buf_str(&a->body), err);
}

static enum cm_step alex_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct alex *a = cm_run_state(run);

    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    switch (a->state) {
    case STATE_ASK:
        return start(run, a, err);
    case STATE_ANSWER:
        return answered(run, a, ev, err);
    case STATE_REFUSED:
        break;
    }
    return refused(run, a, ev, err);
}

const struct cm_provider cm_provider_alexsidebar = {
    .name = "alexsidebar",
    .help = "Alex Sidebar (alexcodes.app), by the Firebase refresh token of an account",
    .base_url = "https://api.alexcodes.app",
    .options = options,
    .models = models,
    .n_models = CM_COUNT(models),
    .any_features = CM_MODEL_SEARCH | CM_MODEL_THINKING,
    .isolated = true,
    .needs_token = true,
    .max_inflight = MAX_INFLIGHT,
    .cooldown_ms = COOLDOWN_S * 1000,
    .monthly_limit = MONTHLY_LIMIT,
    .configure = alex_configure,
    .normalize = alex_normalize,
    .chat = {.step = alex_step,
             .state_size = sizeof(struct alex),
             .state_name = alex_state_name,
             .clear = alex_clear},
    .refresh = {.step = alex_refresh_step},
};
