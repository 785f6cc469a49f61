/* deepseek: chat.deepseek.com, by the user token of an account, or by its e-mail or mobile number and password.
 *
 * Happy path: CREATE (a conversation, unless one goes on) -> CHALLENGE, PROVE (unless a proof of work was made ahead) -> TALK (the question; the answer
 * comes as a stream of patches) -> done at status FINISHED; the client has its answer, and then: TAIL (the stream's end) -> DELETE -> AHEAD, AHEAD_PROVE
 * (a proof for the next question).
 * Failures: REFUSED collects an answer that is no stream; a refused proof is made once more; a conversation that is gone begins anew; UNDO deletes a
 * conversation that came to nothing. The client leaves: STOPPING, then DELETE. A stream without an end status was cut.
 * Wire facts: DeepSeek protocol notes, sections 3 to 7. */
#include "deepseek_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/provider/list.h"

#define STATES(X)                                                                                  \
    X(CREATE)                                                                                      \
    X(CHALLENGE)                                                                                   \
    X(PROVE)                                                                                       \
    X(TALK) X(REFUSED) X(TAIL) X(STOPPING) X(UNDO) X(DELETE) X(AHEAD) X(AHEAD_PROVE)
enum state {
#define X(name) DS_##name,
    STATES(X)
#undef X
};

#define REFUSAL_MAX (64u * 1024)
#define TIDY_MS 5000                       /* for one call that the client does not wait for */
#define THREAD_MS (3 * 24 * 3600 * 1000LL) /* ttl_seconds of a conversation */
#define CHALLENGES_MAX 2                   /* broken ones, or proofs refused, for one question */
#define LEFT_MS (24 * 3600 * 1000LL)
#define LEFT_MAX 2000 /* bytes of conversations that could not be deleted yet */
#define LEFT_AT_ONCE 4
#define LEFT_ALONE_MS 30000 /* longer than a run goes on after its answer */

/* Keys of what is remembered between runs. */
#define KEY_PROOF CM_S("proof")
#define KEY_LEFT CM_S("left")

enum conversations { CONTINUE, NEW, DELETE };

struct deepseek {
    enum state state;
    struct deepseek_account account;
    enum conversations conversations;
    struct cm_str prompt, session, proof;
    int64_t parent; /* message that the question answers; 0 = none */
    bool thinking, searching;
    struct cm_str model_type;
    bool own;      /* the conversation was made by this run */
    bool threaded; /* it goes on */
    bool talked;   /* the platform took the question */
    bool answered, leaving;
    struct deepseek_stream stream;
    unsigned rounds; /* continued so often */
    unsigned challenges;
    struct deepseek_challenge challenge;
    struct deepseek_search *search; /* a thread's while `computing` */
    bool computing;
    struct cm_str deleting;
    unsigned deleted;
    struct cm_buf body; /* REFUSED: what came so far */
    int status;
    struct cm_header *headers;
    size_t n_headers;
    struct cm_err failure; /* UNDO: what is told in the end */
    struct cm_usage usage;
};

static const char *state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        STATES(X)
#undef X
    };

    return names[((const struct deepseek *)state)->state];
}

static void clear(void *state)
{
    struct deepseek *d = state;

    deepseek_stream_clear(&d->stream);
    cm_buf_clear(&d->body);
    if (!d->computing)
        deepseek_search_free(d->search);
}

/* ---- Models ---- */

enum { FLASH = 1, THINKER, EXPERT }; /* cm_model_row.number; the last two think unasked */

#define FEATURES (CM_MODEL_SEARCH | CM_MODEL_THINKING)
#define MODEL(id, kind) {.name = CM_S_INIT(id), .number = (kind), .features = FEATURES}

static const struct cm_model_row models[] = {
    MODEL("deepseek-chat", FLASH),     MODEL("deepseek", FLASH),
    MODEL("deepseek-v4-flash", FLASH), MODEL("deepseek-reasoner", THINKER),
    MODEL("deepseek-r1", THINKER),     MODEL("deepseek-v4-pro", EXPERT),
};

/* Names that are in no table ("*") tell by what they contain. */
static int64_t kind_of(const struct cm_target *target)
{
    static const char *const thinkers[] = {"reasoner", "r1", "think", "v4.5"};

    if (target->row && target->row->number)
        return target->row->number;
    if (cm_str_has(target->model, CM_S("pro")))
        return EXPERT;
    for (size_t i = 0; i < CM_COUNT(thinkers); i++) {
        if (cm_str_has(target->model, cm_str_of(thinkers[i])))
            return THINKER;
    }
    return FLASH;
}

static bool wants_thinking(const struct cm_run *run)
{
    const struct cm_str effort = cm_chat_effort(cm_run_chat(run));

    if (cm_run_target(run)->thinking)
        return true;
    if (effort.n > 0)
        return !cm_str_eq(effort, CM_S("none"));
    return kind_of(cm_run_target(run)) != FLASH;
}

/* ---- Options ---- */

#define TEXT(option, value, what)                                                                  \
    {.name = (option), .type = CM_CONF_STR, .def = (value), .help = (what)}

static const struct cm_option options[] = {
    {.name = "conversations",
     .type = CM_CONF_ENUM,
     .def = "continue",
     .choices = "continue|new|delete",
     .help =
         "continue the platform's conversation when the client's goes on, begin a new one for each request, or also delete it after the answer"},
    {.name = "citations",
     .type = CM_CONF_ENUM,
     .def = "annotations",
     .choices = "annotations|links|marks",
     .help =
         "what becomes of [citation:N] in the text: taken out, a link, or left; annotations come in any case"},
    {.name = "prompt_style",
     .type = CM_CONF_ENUM,
     .def = "markers",
     .choices = "markers|brackets",
     .help = "how earlier messages are marked in the question"},
    {.name = "prefetch",
     .type = CM_CONF_BOOL,
     .def = "yes",
     .help = "make the proof of work for the next question ahead"},
    {.name = "continue_limit",
     .type = CM_CONF_INT,
     .def = "8",
     .max = 100,
     .help = "how often an answer that the platform cut is continued"},
    {.name = "max_tries",
     .type = CM_CONF_INT,
     .def = "10000000",
     .min = 1,
     .max = INT64_MAX / 2,
     .help = "hardest proof of work that is done"},
    TEXT("default_model_type", "default", "model_type of most models; empty = null"),
    TEXT("expert_model_type", "expert", "model_type of deepseek-v4-pro"),
    TEXT("origin", "https://chat.deepseek.com", "sent as Origin and in Referer"),
    TEXT("client_platform", "web", "x-client-platform"),
    TEXT("client_locale", "zh_CN", "x-client-locale"),
    TEXT("client_version", "2.0.0", "x-client-version"),
    TEXT("app_version", "20241129.1", "x-app-version"),
    TEXT("timezone_offset", "28800", "x-client-timezone-offset, seconds east of UTC"),
    TEXT("bundle_id", "", "x-client-bundle-id; empty = not sent"),
    TEXT("accept_language", "zh-CN,zh;q=0.9,en;q=0.8", "Accept-Language"),
    TEXT("create_path", "/api/v0/chat_session/create", "call that makes a conversation"),
    TEXT("create_body", "{}", "its body"),
    TEXT("delete_path", "/api/v0/chat_session/delete", "call that deletes one"),
    TEXT("challenge_path", "/api/v0/chat/create_pow_challenge", "call that gives a challenge"),
    TEXT("chat_path", "/api/v0/chat/completion", "call that asks"),
    TEXT("continue_path", "/api/v0/chat/continue", "call that continues a cut answer"),
    TEXT("stop_path", "/api/v0/chat/stop_stream", "call that stops an answer"),
    {.name = NULL},
};

static enum conversations conversations(const struct cm_run *run)
{
    const struct cm_str mode = deepseek_option(run, "conversations");

    if (cm_str_eq(mode, CM_S("delete")))
        return DELETE;
    return cm_str_eq(mode, CM_S("new")) ? NEW : CONTINUE;
}

static enum deepseek_marks marks(const struct cm_run *run)
{
    const struct cm_str mode = deepseek_option(run, "citations");

    if (cm_str_eq(mode, CM_S("links")))
        return DEEPSEEK_MARKS_LINKS;
    return cm_str_eq(mode, CM_S("marks")) ? DEEPSEEK_MARKS_KEPT : DEEPSEEK_MARKS_ANNOTATIONS;
}

static enum deepseek_style style(const struct cm_run *run)
{
    return cm_str_eq(deepseek_option(run, "prompt_style"), CM_S("brackets"))
               ? DEEPSEEK_STYLE_BRACKETS
               : DEEPSEEK_STYLE_MARKERS;
}

/* ---- Tidying up ---- */

static struct cm_str session_body(struct cm_run *run, struct cm_str session)
{
    struct cm_buf body = {0};

    cm_buf_append(&body, CM_S("{\"chat_session_id\":"));
    cm_json_put_str(&body, session);
    cm_buf_put(&body, '}');
    return cm_buf_settle(&body, cm_run_arena(run));
}

/* Conversations that are to go and are still there, as "TIME:ID TIME:ID": what a run cannot delete any more a later one does, but not before TIME (Unix,
 * ms), as long as it may be at it itself. `not_before` -1 takes the conversation out. */
static void left_change(struct cm_run *run, struct cm_str session, int64_t not_before)
{
    struct cm_str left = CM_STR_NONE;
    struct cm_buf now = {0};

    if (cm_run_recall(run, KEY_LEFT, &left))
        left = cm_arena_str(cm_run_arena(run), left);
    while (left.n > 0) {
        const struct cm_str one = cm_str_cut(&left, ' ');

        if (!cm_str_ends(one, session))
            cm_buf_printf(&now, "%s" CM_PRI, now.n ? " " : "", CM_ARG(one));
    }
    if (not_before >= 0 && now.n + session.n < LEFT_MAX)
        cm_buf_printf(&now, "%s%lld:" CM_PRI, now.n ? " " : "", (long long)not_before,
                      CM_ARG(session));
    if (now.n > 0)
        cm_run_remember(run, KEY_LEFT, cm_buf_str(&now), LEFT_MS);
    else
        cm_run_forget(run, KEY_LEFT);
    cm_buf_clear(&now);
}

/* One that is to go and nobody is at; it is taken. */
static struct cm_str left_next(struct cm_run *run)
{
    struct cm_str left;
    uint64_t not_before;

    if (!cm_run_recall(run, KEY_LEFT, &left))
        return CM_STR_NONE;
    left = cm_arena_str(cm_run_arena(run), left);
    while (left.n > 0) {
        struct cm_str id = cm_str_cut(&left, ' ');

        if (cm_str_to_u64(cm_str_cut(&id, ':'), INT64_MAX, &not_before) &&
            (int64_t)not_before <= cm_run_unix_ms(run))
            return id;
    }
    return CM_STR_NONE;
}

static enum cm_step delete_session(struct cm_run *run, struct deepseek *d, enum state state,
                                   struct cm_str session)
{
    const struct deepseek_ask ask = {
        .path_option = "delete_path", .body = session_body(run, session), .timeout_ms = TIDY_MS};

    cm_run_hang_up(run);
    d->state = state;
    d->deleting = session;
    left_change(run, session, cm_run_unix_ms(run) + LEFT_ALONE_MS);
    return deepseek_fetch(run, &d->account, &ask);
}

/* A conversation that nobody wants to find in the account. */
static bool is_waste(const struct deepseek *d)
{
    return d->own && d->session.n > 0 && (d->conversations == DELETE || !d->talked);
}

static bool can_call(enum cm_err_class cls)
{
    return cls != CM_ERR_EXPIRED && cls != CM_ERR_INVALID_CREDENTIAL &&
           cls != CM_ERR_VERIFICATION_REQUIRED;
}

static enum cm_step fail(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    if (!is_waste(d) || !can_call(err->cls))
        return CM_STEP_FAIL;
    d->failure = *err;
    return delete_session(run, d, DS_UNDO, d->session);
}

/* Whether the platform has it no more. */
static bool was_deleted(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    struct deepseek_reply reply;
    bool gone = false;

    if (ev->kind == CM_EV_REPLY) {
        deepseek_reply_read(run, ev->status, ev->headers, ev->n_headers, ev->data, &reply);
        gone = reply.cls == CM_ERR_NONE || reply.bad_session;
        yyjson_doc_free(reply.doc);
    }
    left_change(run, d->deleting, gone ? -1 : 0);
    return gone;
}

/* ---- The proof of work ---- */

static enum cm_step ask_challenge(struct cm_run *run, struct deepseek *d, enum state state)
{
    struct cm_buf body = {0};
    struct deepseek_ask ask = {.path_option = "challenge_path",
                               .timeout_ms = state == DS_AHEAD ? TIDY_MS : 0};

    cm_buf_append(&body, CM_S("{\"target_path\":"));
    cm_json_put_str(&body, deepseek_option(run, "chat_path"));
    cm_buf_put(&body, '}');
    ask.body = cm_buf_settle(&body, cm_run_arena(run));
    d->state = state;
    return deepseek_fetch(run, &d->account, &ask);
}

static enum cm_step prove(struct cm_run *run, struct deepseek *d, enum state state)
{
    deepseek_search_free(d->search);
    d->search = deepseek_search_new(&d->challenge);
    d->computing = true;
    d->state = state;
    return cm_run_compute(run, deepseek_search_work, d->search, deepseek_search_free);
}

/* 1: broken. */
static int read_challenge(struct cm_run *run, struct deepseek *d,
                          const struct deepseek_reply *reply, struct cm_err *err)
{
    return deepseek_challenge_read(
        cm_run_arena(run), cm_json_get(reply->biz, "challenge"), cm_run_unix_ms(run),
        cm_option_int(cm_run_instance(run), "max_tries"), &d->challenge, err);
}

static enum cm_step another_challenge(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    if (++d->challenges < CHALLENGES_MAX)
        return ask_challenge(run, d, DS_CHALLENGE);
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek gave challenges that have no solution");
    return fail(run, d, err);
}

/* ---- The question ---- */

static void put_bool(struct cm_buf *out, const char *name, bool value)
{
    cm_buf_printf(out, ",\"%s\":%s", name, value ? "true" : "false");
}

static enum cm_step talk(struct cm_run *run, struct deepseek *d, const char *path,
                         struct cm_buf *body)
{
    const struct deepseek_ask ask = {
        .path_option = path, .body = cm_buf_settle(body, cm_run_arena(run)), .proof = d->proof};

    d->state = DS_TALK;
    return deepseek_stream(run, &d->account, &ask);
}

static enum cm_step ask_question(struct cm_run *run, struct deepseek *d)
{
    struct cm_buf body = {0};

    cm_buf_append(&body, CM_S("{\"chat_session_id\":"));
    cm_json_put_str(&body, d->session);
    cm_buf_append(&body, CM_S(",\"parent_message_id\":"));
    if (d->parent > 0)
        cm_json_put_int(&body, d->parent);
    else
        cm_buf_append(&body, CM_S("null"));
    cm_buf_append(&body, CM_S(",\"model_type\":"));
    if (d->model_type.n > 0)
        cm_json_put_str(&body, d->model_type);
    else
        cm_buf_append(&body, CM_S("null"));
    cm_buf_append(&body, CM_S(",\"prompt\":"));
    cm_json_put_str(&body, d->prompt);
    cm_buf_append(&body, CM_S(",\"ref_file_ids\":[]"));
    put_bool(&body, "thinking_enabled", d->thinking);
    put_bool(&body, "search_enabled", d->searching);
    put_bool(&body, "preempt", false);
    cm_buf_put(&body, '}');
    return talk(run, d, "chat_path", &body);
}

static enum cm_step ask_or_prove(struct cm_run *run, struct deepseek *d)
{
    struct cm_str proof;

    if (d->challenges == 0 && cm_run_recall(run, KEY_PROOF, &proof)) {
        d->proof = cm_arena_str(cm_run_arena(run), proof);
        cm_run_forget(run, KEY_PROOF); /* it is good once */
        return ask_question(run, d);
    }
    return ask_challenge(run, d, DS_CHALLENGE);
}

static enum cm_step create_session(struct cm_run *run, struct deepseek *d)
{
    const struct deepseek_ask ask = {
        .path_option = "create_path", .body = deepseek_option(run, "create_body"), .lands = true};

    d->state = DS_CREATE;
    return deepseek_fetch(run, &d->account, &ask);
}

static int unsupported(struct cm_err *err, const char *param, const char *why)
{
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "%s", why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
    return -1;
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

/* What the platform has not must not vanish from the request unsaid. */
static int check_request(const struct cm_chat *chat, struct cm_err *err)
{
    char param[sizeof(err->param)];

    if (chat->untranslatable.cls != CM_ERR_NONE) {
        *err = chat->untranslatable;
        return -1;
    }
    if (chat->n > 1)
        return unsupported(err, "n", "deepseek gives one answer to a request: 'n' must be 1.");
    if (chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE)
        return unsupported(
            err, "tools",
            "deepseek calls no tools: leave 'tools' out or set 'tool_choice' to 'none'.");
    for (size_t i = 0; i < chat->n_msgs; i++) {
        if (!has_files(&chat->msgs[i]))
            continue;
        snprintf(param, sizeof(param), "messages[%zu].content", i);
        return unsupported(err, param, "deepseek takes text only here, no images, files or audio.");
    }
    return 0;
}

/* "SESSION MESSAGE", as thread_keep() wrote it. */
static bool find_thread(struct cm_run *run, struct deepseek *d, size_t *from)
{
    struct cm_thread thread;
    uint64_t message;

    if (d->conversations != CONTINUE || !cm_run_thread(run, &thread))
        return false;
    d->session = cm_str_cut(&thread.value, ' ');
    if (!cm_str_to_u64(thread.value, INT64_MAX, &message))
        return false;
    d->parent = (int64_t)message;
    *from = thread.from;
    return true;
}

static int make_prompt(struct cm_run *run, struct deepseek *d, size_t from, struct cm_err *err)
{
    d->prompt = deepseek_prompt(cm_run_arena(run), cm_run_chat(run), from, style(run));
    if (d->prompt.n == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "the messages hold no text");
    d->usage = (struct cm_usage){.source = CM_USAGE_ESTIMATED,
                                 .in_uncached = cm_estimate_tokens(d->prompt)};
    return 0;
}

static enum cm_step start(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    size_t from = 0;

    if (check_request(cm_run_chat(run), err))
        return CM_STEP_FAIL;
    deepseek_account(run, &d->account);
    if (deepseek_bearer(run, &d->account).n == 0) {
        cm_fail(err, CM_ERR_EXPIRED, "this deepseek account has to log in first");
        return CM_STEP_FAIL;
    }
    d->conversations = conversations(run);
    d->thinking = wants_thinking(run);
    d->searching = cm_run_target(run)->search;
    d->model_type = deepseek_option(
        run, kind_of(cm_run_target(run)) == EXPERT ? "expert_model_type" : "default_model_type");
    deepseek_stream_init(&d->stream, run, marks(run));
    d->threaded = find_thread(run, d, &from);
    if (make_prompt(run, d, from, err))
        return CM_STEP_FAIL;
    return d->threaded ? ask_or_prove(run, d) : create_session(run, d);
}

/* The conversation that was to go on is gone: all of it is told to a new one. */
static enum cm_step begin_anew(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    cm_run_hang_up(run);
    d->threaded = false;
    d->session = CM_STR_NONE;
    d->parent = 0;
    if (make_prompt(run, d, 0, err))
        return CM_STEP_FAIL;
    return create_session(run, d);
}

/* ---- The answer ---- */

static enum cm_step after(struct cm_run *run, struct deepseek *d);

static void tell_usage(struct cm_run *run, struct deepseek *d)
{
    struct cm_usage *u = &d->usage;

    u->out_text = d->stream.out_text;
    u->out_reasoning = d->stream.out_reasoning;
    /* The platform tells how long the conversation is now, question and answer together. */
    if (d->stream.tokens > u->out_text + u->out_reasoning) {
        u->source = CM_USAGE_UPSTREAM;
        u->in_uncached = d->stream.tokens - u->out_text - u->out_reasoning;
    }
    cm_run_usage(run, u);
}

static bool wants_ahead(struct cm_run *run)
{
    struct cm_str proof;

    return cm_option_bool(cm_run_instance(run), "prefetch") &&
           !cm_run_recall(run, KEY_PROOF, &proof);
}

/* `over`: the stream has ended, too. */
static enum cm_step complete(struct cm_run *run, struct deepseek *d, enum cm_finish finish,
                             bool over)
{
    deepseek_stream_flush(&d->stream);
    tell_usage(run, d);
    cm_run_finish(run, finish);
    if (d->conversations == CONTINUE && finish == CM_FINISH_STOP && d->stream.message_id > 0)
        cm_run_thread_keep(run,
                           cm_arena_printf(cm_run_arena(run), CM_PRI " %lld", CM_ARG(d->session),
                                           (long long)d->stream.message_id),
                           THREAD_MS);
    if (d->conversations == DELETE)
        left_change(run, d->session, cm_run_unix_ms(run) + LEFT_ALONE_MS);
    else if (!wants_ahead(run))
        return CM_STEP_DONE;
    cm_run_answered(run);
    d->answered = true;
    d->state = DS_TAIL;
    return over ? after(run, d) : CM_STEP_WAIT;
}

static enum cm_step fail_with(struct cm_run *run, struct deepseek *d, enum cm_err_class cls,
                              const char *why, struct cm_err *err)
{
    cm_fail(err, cls, "%s", why);
    return fail(run, d, err);
}

/* An answer that the platform cut goes on in another stream; the proof serves once more. */
static enum cm_step go_on(struct cm_run *run, struct deepseek *d, bool over)
{
    struct cm_buf body = {0};

    if (d->rounds >= (unsigned)cm_option_int(cm_run_instance(run), "continue_limit") ||
        d->stream.message_id <= 0)
        return complete(run, d, CM_FINISH_LENGTH, over);
    d->rounds++;
    cm_run_hang_up(run);
    deepseek_stream_again(&d->stream);
    cm_buf_append(&body, CM_S("{\"chat_session_id\":"));
    cm_json_put_str(&body, d->session);
    cm_buf_append(&body, CM_S(",\"message_id\":"));
    cm_json_put_int(&body, d->stream.message_id);
    cm_buf_append(&body, CM_S(",\"fallback_to_resume\":true}"));
    return talk(run, d, "continue_path", &body);
}

static enum cm_step finished(struct cm_run *run, struct deepseek *d, bool over, struct cm_err *err)
{
    if (!d->stream.said)
        return fail_with(run, d, CM_ERR_UPSTREAM_DOWN, "deepseek ended its answer without any text",
                         err);
    return complete(run, d, CM_FINISH_STOP, over);
}

/* What the stream has said so far, and whether that is all. */
static enum cm_step judge(struct cm_run *run, struct deepseek *d, bool over, struct cm_err *err)
{
    const struct deepseek_stream *s = &d->stream;
    const bool last = over || s->closed || s->finished;

    switch (s->status) {
    case DEEPSEEK_FINISHED:
        return finished(run, d, over, err);
    case DEEPSEEK_INCOMPLETE:
        return go_on(run, d, over);
    case DEEPSEEK_CONTENT_FILTER:
        if (!last)
            return CM_STEP_WAIT; /* words of the platform's own may follow */
        if (s->said)
            return complete(run, d, CM_FINISH_CONTENT_FILTER, over);
        return fail_with(run, d, CM_ERR_CONTENT_FILTER,
                         "deepseek does not answer this (content filter)", err);
    case DEEPSEEK_CONTEXT_LENGTH_EXCEEDED:
    case DEEPSEEK_CONTENT_TOO_LONG:
        return fail_with(run, d, CM_ERR_CONTEXT_LENGTH, "the conversation is too long for deepseek",
                         err);
    case DEEPSEEK_CANCELLED:
        return fail_with(run, d, CM_ERR_CUT, "deepseek cancelled its answer", err);
    case DEEPSEEK_WIP:
        break;
    }
    if (s->finished || (last && s->quasi_status == DEEPSEEK_FINISHED))
        return finished(run, d, over, err);
    if (!last)
        return CM_STEP_WAIT;
    if (s->auto_continue)
        return go_on(run, d, over);
    return fail_with(run, d, CM_ERR_CUT, "deepseek broke off its answer before the end", err);
}

/* The stream, or the reply in its place, tells a failure. */
static enum cm_step refused_question(struct cm_run *run, struct deepseek *d, bool bad_proof,
                                     bool bad_session, struct cm_err *err)
{
    if (d->rounds > 0 && d->stream.said && d->state == DS_REFUSED) {
        cm_run_odd(run, "the answer could not be continued", cm_str_of(err->msg));
        return complete(run, d, CM_FINISH_LENGTH, true);
    }
    if (d->stream.said)
        return fail(run, d, err);
    if (bad_proof && ++d->challenges < CHALLENGES_MAX) {
        cm_run_hang_up(run);
        return ask_challenge(run, d, DS_CHALLENGE);
    }
    if (bad_session && d->threaded)
        return begin_anew(run, d, err);
    return fail(run, d, err);
}

static enum cm_step talk_began(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    const struct cm_str type = cm_header_find(ev->headers, ev->n_headers, CM_S("content-type"));
    struct cm_arena *arena = cm_run_arena(run);

    if (ev->status == 200 &&
        (type.n == 0 || cm_str_starts_nocase(type, CM_S("text/event-stream")))) {
        d->talked = true;
        return CM_STEP_WAIT;
    }
    d->state = DS_REFUSED;
    d->status = ev->status;
    d->n_headers = ev->n_headers;
    d->headers = CM_ARENA_ARRAY(arena, struct cm_header, ev->n_headers);
    for (size_t i = 0; i < ev->n_headers; i++) {
        d->headers[i].name = cm_arena_str(arena, ev->headers[i].name);
        d->headers[i].value = cm_arena_str(arena, ev->headers[i].value);
    }
    cm_buf_init(&d->body, REFUSAL_MAX);
    return CM_STEP_WAIT;
}

static enum cm_step talked(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                           struct cm_err *err)
{
    const bool over = ev->kind == CM_EV_END;

    if (ev->kind == CM_EV_HEAD)
        return talk_began(run, d, ev);
    if (ev->kind == CM_EV_FAILED) {
        if (d->stream.status == DEEPSEEK_CONTENT_FILTER)
            return judge(run, d, true, err);
        *err = *ev->err;
        return fail(run, d, err);
    }
    if (over ? deepseek_stream_end(&d->stream, err)
             : deepseek_stream_feed(&d->stream, ev->data, err))
        return refused_question(run, d, d->stream.bad_proof, d->stream.bad_session, err);
    return judge(run, d, over, err);
}

static enum cm_step refused(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                            struct cm_err *err)
{
    struct deepseek_reply reply;
    bool bad_proof, bad_session;

    if (ev->kind == CM_EV_DATA) {
        cm_buf_append(&d->body, cm_str_head(ev->data, REFUSAL_MAX - d->body.n));
        if (d->body.n < REFUSAL_MAX)
            return CM_STEP_WAIT;
    }
    deepseek_reply_read(run, d->status, d->headers, d->n_headers, cm_buf_str(&d->body), &reply);
    deepseek_refuse(&reply, "the question", err);
    bad_proof = reply.bad_proof;
    bad_session = reply.bad_session;
    yyjson_doc_free(reply.doc);
    cm_buf_clear(&d->body);
    return refused_question(run, d, bad_proof, bad_session, err);
}

/* ---- After the answer ---- */

static enum cm_step ahead(struct cm_run *run, struct deepseek *d)
{
    return wants_ahead(run) ? ask_challenge(run, d, DS_AHEAD) : CM_STEP_DONE;
}

static enum cm_step after(struct cm_run *run, struct deepseek *d)
{
    if (d->conversations == DELETE)
        return delete_session(run, d, DS_DELETE, d->session);
    return ahead(run, d);
}

static enum cm_step deleted(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    const bool gone = was_deleted(run, d, ev);
    struct cm_str next;

    if (d->leaving)
        return CM_STEP_DONE;
    next = left_next(run);
    if (gone && next.n > 0 && ++d->deleted < LEFT_AT_ONCE)
        return delete_session(run, d, DS_DELETE, next);
    return ahead(run, d);
}

static enum cm_step challenged_ahead(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    struct deepseek_reply reply;
    struct cm_err err;
    int failed;

    if (ev->kind != CM_EV_REPLY)
        return CM_STEP_DONE;
    deepseek_reply_read(run, ev->status, ev->headers, ev->n_headers, ev->data, &reply);
    failed = reply.cls != CM_ERR_NONE || read_challenge(run, d, &reply, &err);
    yyjson_doc_free(reply.doc);
    return failed ? CM_STEP_DONE : prove(run, d, DS_AHEAD_PROVE);
}

static enum cm_step proved_ahead(struct cm_run *run, struct deepseek *d)
{
    d->computing = false;
    if (d->search->answer >= 0 && d->challenge.lives_ms > 0)
        cm_run_remember(run, KEY_PROOF,
                        deepseek_proof(cm_run_arena(run), &d->challenge, d->search->answer),
                        d->challenge.lives_ms);
    return CM_STEP_DONE;
}

/* ---- The client leaves ---- */

static enum cm_step leave_session(struct cm_run *run, struct deepseek *d)
{
    if (!is_waste(d))
        return CM_STEP_DONE;
    return delete_session(run, d, DS_DELETE, d->session);
}

/* The id of what create_path made; empty when there is none. */
static struct cm_str session_of(struct cm_run *run, const struct deepseek_reply *reply)
{
    yyjson_val *id = cm_json_opt(reply->biz, "id");

    if (!id)
        id = cm_json_opt(cm_json_opt(reply->biz, "chat_session"), "id");
    return cm_arena_str(cm_run_arena(run), cm_json_str(id));
}

static enum cm_step stop_answer(struct cm_run *run, struct deepseek *d)
{
    struct deepseek_ask ask = {.path_option = "stop_path", .timeout_ms = TIDY_MS};
    struct cm_buf body = {0};

    cm_buf_append(&body, CM_S("{\"chat_session_id\":"));
    cm_json_put_str(&body, d->session);
    cm_buf_append(&body, CM_S(",\"message_id\":"));
    cm_json_put_int(&body, d->stream.message_id);
    cm_buf_put(&body, '}');
    ask.body = cm_buf_settle(&body, cm_run_arena(run));
    d->state = DS_STOPPING;
    return deepseek_fetch(run, &d->account, &ask);
}

static enum cm_step leave(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    struct deepseek_reply reply;

    d->leaving = true;
    if (d->state == DS_CREATE && ev->status != 0) { /* it was made after all */
        deepseek_reply_read(run, ev->status, ev->headers, ev->n_headers, ev->data, &reply);
        d->session = session_of(run, &reply);
        d->own = true;
        yyjson_doc_free(reply.doc);
    }
    if (d->state == DS_TALK && d->stream.message_id > 0)
        return stop_answer(run, d);
    return leave_session(run, d);
}

/* ---- The machine ---- */

static enum cm_step created(struct cm_run *run, struct deepseek *d,
                            const struct deepseek_reply *reply, struct cm_err *err)
{
    d->session = session_of(run, reply);
    if (d->session.n == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek made a conversation without an id");
        return CM_STEP_FAIL;
    }
    d->own = true;
    return ask_or_prove(run, d);
}

static enum cm_step challenged(struct cm_run *run, struct deepseek *d,
                               const struct deepseek_reply *reply, struct cm_err *err)
{
    const int failed = read_challenge(run, d, reply, err);

    if (failed > 0)
        return another_challenge(run, d, err);
    return failed ? fail(run, d, err) : prove(run, d, DS_PROVE);
}

static enum cm_step proved(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    d->computing = false;
    if (d->search->answer < 0)
        return another_challenge(run, d, err);
    d->proof = deepseek_proof(cm_run_arena(run), &d->challenge, d->search->answer);
    return ask_question(run, d);
}

/* CREATE, CHALLENGE. */
static enum cm_step replied(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                            struct cm_err *err)
{
    struct deepseek_reply reply;
    enum cm_step step;

    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return fail(run, d, err);
    }
    deepseek_reply_read(run, ev->status, ev->headers, ev->n_headers, ev->data, &reply);
    if (reply.cls != CM_ERR_NONE) {
        deepseek_refuse(&reply, d->state == DS_CREATE ? "a conversation" : "a challenge", err);
        step = fail(run, d, err);
    } else if (d->state == DS_CREATE) {
        step = created(run, d, &reply, err);
    } else {
        step = challenged(run, d, &reply, err);
    }
    yyjson_doc_free(reply.doc);
    return step;
}

static enum cm_step deepseek_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct deepseek *d = cm_run_state(run);

    if (ev->kind == CM_EV_START)
        return start(run, d, err);
    if (ev->kind == CM_EV_STOP)
        return leave(run, d, ev);
    switch (d->state) {
    case DS_CREATE:
    case DS_CHALLENGE:
        return replied(run, d, ev, err);
    case DS_PROVE:
        if (ev->kind == CM_EV_COMPUTED)
            return proved(run, d, err);
        *err = *ev->err; /* total_timeout */
        return fail(run, d, err);
    case DS_TALK:
        return talked(run, d, ev, err);
    case DS_REFUSED:
        return refused(run, d, ev, err);
    case DS_TAIL:
        return ev->kind == CM_EV_END || ev->kind == CM_EV_FAILED ? after(run, d) : CM_STEP_WAIT;
    case DS_STOPPING:
        return leave_session(run, d);
    case DS_DELETE:
        return deleted(run, d, ev);
    case DS_AHEAD:
        return challenged_ahead(run, d, ev);
    case DS_AHEAD_PROVE:
        return proved_ahead(run, d);
    case DS_UNDO:
        was_deleted(run, d, ev);
        break;
    }
    *err = d->failure;
    return CM_STEP_FAIL;
}

const struct cm_provider cm_provider_deepseek = {
    .name = "deepseek",
    .help = "chat.deepseek.com, by user token, or e-mail (or mobile) and password",
    .base_url = "https://chat.deepseek.com",
    .options = options,
    .models = models,
    .n_models = CM_COUNT(models),
    .any_features = FEATURES,
    .understands = CM_FIELD_EFFORT,
    .isolated = true,
    .max_inflight = 1,
    .cooldown_ms = 60000,
    .normalize = deepseek_normalize,
    .chat = {.step = deepseek_step,
             .state_size = sizeof(struct deepseek),
             .state_name = state_name,
             .clear = clear},
};
