/* hix: hix.ai, by the session cookie of an account.
 *
 * Happy path: CREATE (a chat for the model's bot) -> TALK (the question; the answer comes as a
 * stream) -> done at [DONE].
 * The platform keeps history by chat, and every request gets a chat of its own: earlier messages
 * go flattened into the question, oldest left out first when the model's limit of characters is
 * reached.
 * Failures: REFUSED collects the body of an answer that is no stream and tells its class; a
 * stream without [DONE] was cut.
 * Wire facts: HIX protocol notes, sections 1 to 7. */
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include "chatmux/base/utf8.h"
#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/list.h"
#include "chatmux/provider/run.h"

#include <stdio.h>

#define HIX_STATES(X) X(CREATE) X(TALK) X(REFUSED)
enum hix_state {
#define X(name) HIX_##name,
    HIX_STATES(X)
#undef X
};

#define EVENT_MAX (1024u * 1024)
#define REFUSAL_MAX (64u * 1024)
#define RATE_LIMIT_S 60 /* when a limit comes without a time */
#define SESSION_COOKIE "__Secure-next-auth.session-token"
#define USER_AGENT                                                                                 \
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "            \
    "Chrome/138.0.0.0 Safari/537.36"

struct hix {
    enum hix_state state;
    struct cm_str question;
    struct cm_sse sse;
    struct cm_buf body; /* REFUSED: what came so far */
    int status;         /* REFUSED: of the answer */
    int retry_after_s;
    struct cm_usage usage;
    bool said, done; /* any text came; [DONE] came */
};

static const char *hix_state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        HIX_STATES(X)
#undef X
    };

    return names[((const struct hix *)state)->state];
}

static void hix_clear(void *state)
{
    struct hix *h = state;

    cm_sse_clear(&h->sse);
    cm_buf_clear(&h->body);
}

/* ---- Models ---- */

/* name, bot, characters in a question */
#define BOTS(X)                                                                                    \
    X("deepseek-r1", 85426, 8000)                                                                  \
    X("deepseek-v3", 85427, 8000)                                                                  \
    X("gpt-4o-mini", 86, 8000)                                                                     \
    X("claude", 42, 8000)                                                                          \
    X("claude-3-haiku", 52, 8000)                                                                  \
    X("claude-3-5-haiku-200k", 85423, 100000)                                                      \
    X("gemini-1-5-flash", 59, 8000)                                                                \
    X("chatgpt", 2, 8000)                                                                          \
    X("gemini-1-0-pro", 58, 8000)                                                                  \
    X("gemini", 83, 8000)                                                                          \
    X("gpt-3-5-turbo", 3, 8000)                                                                    \
    X("claude-instant-100k", 44, 50000)                                                            \
    X("claude-3-5-haiku", 85422, 8000)                                                             \
    X("gpt-3-5-turbo-16k", 4, 8000)                                                                \
    X("gemini-1-5-pro", 60, 8000)                                                                  \
    X("claude-3-haiku-200k", 56, 100000)                                                           \
    X("claude-3-sonnet", 51, 8000)                                                                 \
    X("gpt-4o", 5, 8000)                                                                           \
    X("gemini-1-5-flash-128k", 62, 64000)                                                          \
    X("claude-2", 45, 8000)                                                                        \
    X("claude-2-100k", 47, 50000)                                                                  \
    X("grok-2", 85428, 8000)                                                                       \
    X("claude-3-5-sonnet", 50, 8000)                                                               \
    X("claude-3-5-sonnet-200k", 54, 100000)                                                        \
    X("claude-3-sonnet-200k", 55, 100000)                                                          \
    X("gpt-4o-128k", 6, 64000)                                                                     \
    X("gemini-1-5-pro-128k", 63, 64000)                                                            \
    X("gemini-1-5-flash-1m", 65, 100000)                                                           \
    X("openai-o3-mini", 85424, 8000)                                                               \
    X("openai-o1-mini", 1182, 8000)                                                                \
    X("claude-2-1-200k", 49, 100000)                                                               \
    X("gemini-1-5-pro-1m", 67, 100000)                                                             \
    X("gpt-4-turbo", 8, 8000)                                                                      \
    X("gpt-4-turbo-128k", 9, 64000)                                                                \
    X("claude-3-7-sonnet", 85429, 8000)                                                            \
    X("openai-o1", 1181, 8000)                                                                     \
    X("claude-3-opus", 53, 8000)                                                                   \
    X("gpt4", 10, 8000)                                                                            \
    X("claude-3-opus-200k", 57, 100000)                                                            \
    X("claude-opus-5", 85502, 8000)                                                                \
    X("claude-opus-4.8", 85496, 8000)                                                              \
    X("claude-opus-4.7", 85491, 8000)                                                              \
    X("claude-sonnet-4.6", 85486, 8000)                                                            \
    X("claude-opus-4.6", 85487, 8000)                                                              \
    X("claude-opus-4.5", 85480, 8000)                                                              \
    X("claude-sonnet-4.5", 85476, 8000)                                                            \
    X("claude-haiku-4.5", 85477, 8000)                                                             \
    X("gpt-5.5", 85492, 8000)                                                                      \
    X("gpt-5.6-luna", 85499, 8000)                                                                 \
    X("gemini-3.5-flash", 85495, 8000)                                                             \
    X("deepseek-v4-pro", 85494, 8000)

#define ALIAS(ours, theirs, bot)                                                                   \
    {.name = CM_S_INIT(ours),                                                                      \
     .upstream = CM_S_INIT(theirs),                                                                \
     .number = (bot),                                                                              \
     .features = CM_MODEL_SEARCH}

static const struct cm_model_row models[] = {
    ALIAS("gpt-3.5-turbo", "gpt-3-5-turbo", 3), ALIAS("gpt-3.5-turbo-16k", "gpt-3-5-turbo-16k", 4),
    ALIAS("gpt-4", "gpt4", 10), ALIAS("claude-3-5-sonnet-v2", "claude-3-5-sonnet", 50),
#define X(id, bot, chars) ALIAS(id, id, bot),
    BOTS(X)
#undef X
};

static const struct {
    int64_t bot, chars;
} limits[] = {
#define X(id, bot, chars) {bot, chars},
    BOTS(X)
#undef X
};

static const struct cm_option options[] = {
    {.name = "origin",
     .type = CM_CONF_STR,
     .def = "https://hix.ai",
     .help = "sent as Origin and in front of Referer"},
    {.name = "create_path",
     .type = CM_CONF_STR,
     .def = "/api/trpc/hixChat.createChat?batch=1",
     .help = "call that creates a chat"},
    {.name = "chat_path",
     .type = CM_CONF_STR,
     .def = "/api/hix/chat",
     .help = "call that asks and streams the answer"},
    {.name = "title", .type = CM_CONF_STR, .def = "Untitled", .help = "title of the chats"},
    {.name = "search_type",
     .type = CM_CONF_ENUM,
     .def = "internet",
     .choices = "internet|news|academic",
     .help = "what -search searches"},
    {.name = "question_limit",
     .type = CM_CONF_INT,
     .def = "8000",
     .min = 100,
     .max = 10000000,
     .help = "characters in a question to a bot that is not in the table"},
    {.name = NULL},
};

/* A bot that is not in the table yet can be configured by its number: `models =
 * new-model=85600`. 0 = none. */
static int64_t bot_of(const struct cm_target *target)
{
    uint64_t bot = 0;

    if (target->row && target->row->number > 0)
        return target->row->number;
    cm_str_to_u64(target->model, INT32_MAX, &bot);
    return (int64_t)bot;
}

static size_t question_limit(const struct cm_run *run)
{
    const int64_t bot = bot_of(cm_run_target(run));

    for (size_t i = 0; i < CM_COUNT(limits); i++) {
        if (limits[i].bot == bot)
            return (size_t)limits[i].chars;
    }
    return (size_t)cm_option_int(cm_run_instance(run), "question_limit");
}

/* ---- Credential ---- */

/* A bare token gets its cookie's name; a whole Cookie header keeps its names. Percent sequences are
 * decoded in both. */
static int hix_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                         struct cm_err *err)
{
    struct cm_buf cookie = {0};
    int failed;

    given = cm_str_trim(given);
    /* once: what moves leaves a copy behind */
    cm_buf_reserve(&cookie, sizeof(SESSION_COOKIE) + given.n);
    if (cm_str_starts_nocase(given, CM_S("Cookie:")))
        given = cm_str_trim(cm_str_from(given, sizeof("Cookie:") - 1));
    if (given.n == 0) {
        cm_buf_clear(&cookie);
        return cm_fail(err, CM_ERR_BAD_REQUEST, "paste the value of the cookie " SESSION_COOKIE);
    }
    /* NextAuth splits long cookies into NAME.0, NAME.1 … */
    if (!cm_str_has(given, CM_S(SESSION_COOKIE "=")) &&
        !cm_str_has(given, CM_S(SESSION_COOKIE ".")))
        cm_buf_append(&cookie, CM_S(SESSION_COOKIE "="));
    failed = cm_percent_decode(&cookie, given, true) || !cm_header_value_ok(cm_buf_str(&cookie));
    if (failed)
        cm_fail(err, CM_ERR_BAD_REQUEST,
                "the cookie has a broken %% sequence or a control character");
    else
        *out = cm_secret_in(arena, cm_buf_str(&cookie));
    cm_wipe(cookie.p, cookie.n);
    cm_buf_clear(&cookie);
    return failed ? -1 : 0;
}

/* ---- The question ---- */

/* System text and the last `keep` other messages. */
static struct cm_str flatten_last(struct cm_run *run, size_t keep)
{
    struct cm_chat part = *cm_run_chat(run);
    const struct cm_msg *all = part.msgs;
    size_t others = 0, skip;

    for (size_t i = 0; i < part.n_msgs; i++)
        others += all[i].role != CM_ROLE_SYSTEM && all[i].role != CM_ROLE_DEVELOPER;
    skip = others > keep ? others - keep : 0;
    part.msgs = CM_ARENA_ARRAY(cm_run_arena(run), struct cm_msg, part.n_msgs);
    part.n_msgs = 0;
    for (size_t i = 0; i < cm_run_chat(run)->n_msgs; i++) {
        const bool system = all[i].role == CM_ROLE_SYSTEM || all[i].role == CM_ROLE_DEVELOPER;

        if (!system && skip > 0)
            skip--;
        else
            part.msgs[part.n_msgs++] = all[i];
    }
    return cm_chat_flatten(cm_run_arena(run), &part);
}

/* As much of the conversation as the bot takes, at least its last message; by halving, because a
 * history can be long. */
static int make_question(struct cm_run *run, struct cm_str *out, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const size_t limit = question_limit(run);
    size_t fits = 0, too_many = chat->n_msgs + 1;
    struct cm_str question = cm_chat_flatten(cm_run_arena(run), chat);
    struct cm_chat last = *chat;
    size_t chars = cm_utf8_count(question);

    if (chars == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "the messages hold no text");
    *out = question;
    if (chars <= limit)
        return 0;
    while (too_many - fits > 1) {
        const size_t keep = fits + (too_many - fits) / 2;

        question = flatten_last(run, keep);
        if (cm_utf8_count(question) > limit) {
            too_many = keep;
        } else {
            fits = keep;
            *out = question;
        }
    }
    if (fits > 0)
        return 0;
    last.msgs = &chat->msgs[chat->n_msgs - 1];
    last.n_msgs = 1;
    question = cm_chat_flatten(cm_run_arena(run), &last);
    chars = cm_utf8_count(question);
    if (chars == 0 || chars > limit)
        return cm_fail_param(err, CM_ERR_CONTEXT_LENGTH, "messages",
                             "input text too long: %zu characters, the model takes %zu", chars,
                             limit);
    *out = question;
    return 0;
}

static bool has_files(const struct cm_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        const enum cm_part_kind kind = msg->parts[i].kind;

        if (kind == CM_PART_IMAGE || kind == CM_PART_FILE || kind == CM_PART_AUDIO)
            return true;
    }
    return false;
}

static int unsupported(struct cm_err *err, const char *param, const char *why)
{
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "%s", why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
    return -1;
}

/* What the platform has not must not vanish from the request unsaid. */
static int check_request(const struct cm_chat *chat, struct cm_err *err)
{
    char param[sizeof(err->param)];

    if (chat->untranslatable.cls != CM_ERR_NONE) {
        *err = chat->untranslatable;
        return -1;
    }
    if (chat->n > 1)
        return unsupported(err, "n", "hix gives one answer to a request: 'n' must be 1.");
    if (chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE)
        return unsupported(err, "tools",
                           "hix calls no tools: leave 'tools' out or set 'tool_choice' to 'none'.");
    for (size_t i = 0; i < chat->n_msgs; i++) {
        if (!has_files(&chat->msgs[i]))
            continue;
        snprintf(param, sizeof(param), "messages[%zu].content", i);
        return unsupported(err, param, "hix takes text only here, no images, files or audio.");
    }
    return 0;
}

/* ---- What a refusal means ---- */

static const struct {
    const char *word; /* the vendor's, or the number of a tRPC error */
    enum cm_err_class cls;
} words[] = {
    {"-32001", CM_ERR_EXPIRED},
    {"-32002", CM_ERR_QUOTA_EXHAUSTED},
    {"-32029", CM_ERR_RATE_LIMITED},
    {"-32600", CM_ERR_BAD_REQUEST},
    {"-32603", CM_ERR_UPSTREAM_DOWN},
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

/* The class that an error object tells: {"json":{"code":-32001,…}},
 * {"code":"CREDITS_EXHAUSTED"}, {"status":-5}. */
static enum cm_err_class object_class(const struct hix *h, yyjson_val *error)
{
    yyjson_val *inner = cm_json_opt(error, "json"), *code, *data;
    struct cm_buf number = {0};
    enum cm_err_class cls;

    if (inner)
        error = inner;
    if (yyjson_get_sint(cm_json_get(error, "status")) == -5)
        return CM_ERR_EXPIRED; /* "not login" */
    code = cm_json_opt(error, "code");
    if (!yyjson_is_int(code))
        return word_class(cm_json_str(code));
    data = cm_json_opt(error, "data");
    if (h->state == HIX_CREATE && yyjson_get_sint(code) == -32004)
        return CM_ERR_MODEL_UNAVAILABLE; /* the bot is gone */
    if (h->state == HIX_CREATE && yyjson_get_sint(code) == -32003 &&
        (cm_json_opt(data, "appName") || cm_json_opt(data, "usageType")))
        return CM_ERR_QUOTA_EXHAUSTED;
    cm_json_put_int(&number, yyjson_get_sint(code));
    cls = word_class(cm_buf_str(&number));
    cm_buf_clear(&number);
    return cls;
}

static enum cm_err_class body_class(const struct hix *h, struct cm_str body, bool *is_json)
{
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_event, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL, *error;
    enum cm_err_class cls;

    *is_json = doc != NULL;
    if (yyjson_is_arr(root))
        root = yyjson_arr_get_first(root);
    error = cm_json_opt(root, "error");
    cls = object_class(h, yyjson_is_obj(error) ? error : root);
    yyjson_doc_free(doc);
    return cls;
}

static bool is_challenge(struct cm_str body)
{
    return cm_str_has(body, CM_S("Just a moment...")) || cm_str_has(body, CM_S("_cf_chl_opt")) ||
           cm_str_has(body, CM_S("cdn-cgi/challenge-platform"));
}

static enum cm_err_class status_class(const struct hix *h, int status, bool is_json)
{
    switch (status) {
    case 401:
        return CM_ERR_EXPIRED;
    case 402:
        return CM_ERR_QUOTA_EXHAUSTED;
    case 403: /* JSON: it does not know the chat that it has just made */
        return is_json && h->state != HIX_CREATE ? CM_ERR_UPSTREAM_DOWN
                                                 : CM_ERR_VERIFICATION_REQUIRED;
    case 429:
        return CM_ERR_RATE_LIMITED;
    default:
        return CM_ERR_NONE;
    }
}

static enum cm_step refuse(const struct hix *h, int status, int retry_after_s, struct cm_str body,
                           struct cm_err *err)
{
    const char *call = h->state == HIX_CREATE ? "createChat" : "chat";
    bool is_json;
    enum cm_err_class cls = body_class(h, body, &is_json);

    if (is_challenge(body))
        cls = CM_ERR_VERIFICATION_REQUIRED;
    if (cls == CM_ERR_NONE)
        cls = status_class(h, status, is_json);
    if (cls == CM_ERR_NONE)
        cm_http_fail(err, status, NULL, 0, CM_S("hix"));
    else if (cls == CM_ERR_VERIFICATION_REQUIRED)
        cm_fail(err, cls, "hix wants a human to verify this account or address (%s, status %d)",
                call, status);
    else
        cm_fail(err, cls, "hix refused %s with status %d: %s", call, status,
                cm_err_info(cls)->name);
    err->retry_after_s = retry_after_s;
    if (err->cls == CM_ERR_RATE_LIMITED && retry_after_s == 0)
        err->retry_after_s = RATE_LIMIT_S;
    return CM_STEP_FAIL;
}

/* ---- Calls ---- */

static struct cm_str option(const struct cm_run *run, const char *name)
{
    return cm_option_value(cm_run_instance(run), name);
}

#define N_HEADERS 6

static void make_headers(struct cm_run *run, struct cm_str accept, struct cm_str referer,
                         struct cm_header out[N_HEADERS])
{
    const struct cm_header headers[N_HEADERS] = {
        {CM_S("Content-Type"), CM_S("application/json")}, {CM_S("Accept"), accept},
        {CM_S("Origin"), option(run, "origin")},          {CM_S("Referer"), referer},
        {CM_S("Cookie"), cm_run_cred(run)->secret},       {CM_S("User-Agent"), CM_S(USER_AGENT)},
    };

    memcpy(out, headers, sizeof(headers));
}

static enum cm_step create_chat(struct cm_run *run)
{
    struct cm_header headers[N_HEADERS];
    struct cm_call call = {.method = "POST",
                           .url = option(run, "create_path"),
                           .headers = headers,
                           .n_headers = N_HEADERS};
    struct cm_buf body = {0};

    make_headers(run, CM_S("application/json"),
                 cm_arena_printf(cm_run_arena(run), CM_PRI "/", CM_ARG(option(run, "origin"))),
                 headers);
    cm_buf_append(&body, CM_S("{\"0\":{\"json\":{\"title\":"));
    cm_json_put_str(&body, option(run, "title"));
    cm_buf_append(&body, CM_S(",\"botId\":"));
    cm_json_put_int(&body, bot_of(cm_run_target(run)));
    cm_buf_append(&body, CM_S("}}}"));
    call.body = cm_buf_settle(&body, cm_run_arena(run));
    return cm_run_fetch(run, &call);
}

static enum cm_step ask(struct cm_run *run, struct hix *h, struct cm_str chat_id)
{
    struct cm_header headers[N_HEADERS];
    struct cm_call call = {.method = "POST",
                           .url = option(run, "chat_path"),
                           .headers = headers,
                           .n_headers = N_HEADERS};
    struct cm_buf body = {0}, referer = {0};

    cm_buf_append(&referer, option(run, "origin"));
    cm_buf_put(&referer, '/');
    cm_percent(&referer, cm_run_target(run)->model);
    cm_buf_append(&referer, CM_S("?/id="));
    cm_percent(&referer, chat_id);
    make_headers(run, CM_S("text/event-stream"), cm_buf_settle(&referer, cm_run_arena(run)),
                 headers);

    cm_buf_append(&body, CM_S("{\"chatId\":"));
    cm_json_put_str(&body, chat_id);
    cm_buf_append(&body, CM_S(",\"fileUrl\":\"\",\"question\":"));
    cm_json_put_str(&body, h->question);
    if (cm_run_target(run)->search) {
        cm_buf_append(&body, CM_S(",\"search\":true,\"searchType\":"));
        cm_json_put_str(&body, option(run, "search_type"));
    }
    cm_buf_put(&body, '}');
    call.body = cm_buf_settle(&body, cm_run_arena(run));
    cm_sse_init(&h->sse, EVENT_MAX);
    h->state = HIX_TALK;
    return cm_run_stream(run, &call);
}

static enum cm_step start(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    if (check_request(cm_run_chat(run), err))
        return CM_STEP_FAIL;
    if (bot_of(cm_run_target(run)) == 0) {
        cm_fail_param(err, CM_ERR_MODEL_UNAVAILABLE, "model", "hix has no bot for this model");
        return CM_STEP_FAIL;
    }
    if (make_question(run, &h->question, err))
        return CM_STEP_FAIL;
    h->usage.source = CM_USAGE_ESTIMATED;
    h->usage.in_uncached = cm_estimate_tokens(h->question);
    return create_chat(run);
}

static enum cm_step created(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                            struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    yyjson_val *v = doc ? yyjson_arr_get_first(yyjson_doc_get_root(doc)) : NULL;
    struct cm_str id;

    v = cm_json_get(cm_json_get(cm_json_get(cm_json_get(v, "result"), "data"), "json"), "id");
    id = cm_arena_str(cm_run_arena(run), cm_json_str(v));
    yyjson_doc_free(doc);
    if (id.n > 0 && (ev->status == 200 || ev->status == 207))
        return ask(run, h, id);
    return refuse(h, ev->status, cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)),
                  ev->data, err);
}

/* ---- The answer ---- */

struct feed {
    struct cm_run *run;
    struct hix *h;
    struct cm_err *err;
};

/* Frames of no known kind are the platform's own business, unless they tell a failure. */
static int on_other(const struct feed *f, yyjson_val *root)
{
    const struct cm_str action = cm_json_str(cm_json_get(root, "action"));
    enum cm_err_class cls = object_class(f->h, root);

    if (cls == CM_ERR_NONE)
        cls = word_class(action);
    if (cls == CM_ERR_NONE && cm_str_eq(action, CM_S("error")))
        cls = CM_ERR_UPSTREAM_DOWN;
    if (cls == CM_ERR_NONE)
        return 0;
    return cm_fail(f->err, cls, "hix broke off its answer: %s", cm_err_info(cls)->name);
}

static int on_sse(void *arg, const struct cm_sse_event *ev)
{
    const struct feed *f = arg;
    struct hix *h = f->h;
    yyjson_val *root, *content, *reasoning;
    yyjson_doc *doc;
    int failed = 0;

    if (!ev->data.p || h->done)
        return 0;
    if (cm_str_eq(cm_str_trim(ev->data), CM_S("[DONE]"))) {
        h->done = true;
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    if (!doc) {
        cm_run_odd(f->run, "an event that is no JSON", ev->data);
        return 0;
    }
    root = yyjson_doc_get_root(doc);
    content = cm_json_opt(root, "content");
    reasoning = cm_json_opt(root, "reasoning_content");
    if (reasoning) {
        h->usage.out_reasoning += cm_estimate_tokens(cm_json_str(reasoning));
        cm_run_reasoning(f->run, cm_json_str(reasoning));
    }
    if (content) {
        h->usage.out_text += cm_estimate_tokens(cm_json_str(content));
        h->said |= cm_json_str(content).n > 0;
        cm_run_text(f->run, cm_json_str(content));
    }
    if (!reasoning && !content && yyjson_is_obj(root))
        failed = on_other(f, root);
    yyjson_doc_free(doc);
    return failed;
}

static enum cm_step finish(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    if (!h->said) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "hix ended its answer without any text");
        return CM_STEP_FAIL;
    }
    cm_run_usage(run, &h->usage);
    cm_run_finish(run, CM_FINISH_STOP);
    return CM_STEP_DONE;
}

static enum cm_step talked(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                           struct cm_err *err)
{
    struct feed feed = {run, h, err};
    const struct cm_str type = cm_header_find(ev->headers, ev->n_headers, CM_S("content-type"));

    switch (ev->kind) {
    case CM_EV_HEAD:
        if (ev->status == 200 &&
            (type.n == 0 || cm_str_starts_nocase(type, CM_S("text/event-stream"))))
            return CM_STEP_WAIT;
        h->state = HIX_REFUSED;
        h->status = ev->status;
        h->retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run));
        cm_buf_init(&h->body, REFUSAL_MAX);
        return CM_STEP_WAIT;
    case CM_EV_DATA:
        if (cm_sse_feed(&h->sse, ev->data, on_sse, &feed, err))
            return CM_STEP_FAIL;
        return h->done ? finish(run, h, err) : CM_STEP_WAIT;
    default: /* END */
        if (cm_sse_end(&h->sse, on_sse, &feed, err))
            return CM_STEP_FAIL;
        if (h->done)
            return finish(run, h, err);
        cm_fail(err, CM_ERR_CUT, "hix broke off its answer before the end");
        return CM_STEP_FAIL;
    }
}

static enum cm_step refused(struct hix *h, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_DATA) {
        cm_buf_append(&h->body, cm_str_head(ev->data, REFUSAL_MAX - h->body.n));
        if (h->body.n < REFUSAL_MAX)
            return CM_STEP_WAIT;
    }
    return refuse(h, h->status, h->retry_after_s, cm_buf_str(&h->body), err);
}

static enum cm_step hix_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct hix *h = cm_run_state(run);

    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    switch (h->state) {
    case HIX_CREATE:
        return ev->kind == CM_EV_START ? start(run, h, err) : created(run, h, ev, err);
    case HIX_TALK:
        return talked(run, h, ev, err);
    case HIX_REFUSED:
        break;
    }
    return refused(h, ev, err);
}

const struct cm_provider cm_provider_hix = {
    .name = "hix",
    .help = "hix.ai, by the cookie " SESSION_COOKIE,
    .base_url = "https://hix.ai",
    .options = options,
    .models = models,
    .n_models = CM_COUNT(models),
    .any_features = CM_MODEL_SEARCH,
    .isolated = true,
    .cooldown_ms = RATE_LIMIT_S * 1000,
    .normalize = hix_normalize,
    .chat = {.step = hix_step,
             .state_size = sizeof(struct hix),
             .state_name = hix_state_name,
             .clear = hix_clear},
};
