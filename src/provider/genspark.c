/* genspark: www.genspark.ai, by the session cookie of an account.
 *
 * Happy path: CREATE (a chat, if it is to be deleted afterwards) -> VERIFY (a token from the operator's own service, if there is one) -> ASK (the
 * answer comes as a stream) -> the client has its answer -> DELETE. Every request is a chat of its own with the whole history, unless x.continue or
 * x.model_chat_map let one go on.
 * Failures: a chat that cannot go on (it is gone, or another account's) is asked anew once; a retired dialect is asked in the other one; both
 * on the same account. A client that leaves has its answer stopped (ABORT) and its chat deleted, and so has a failure.
 * Wire facts: genspark protocol notes. */
#include "genspark_table.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/provider/list.h"

#include <stdio.h>

#define STATES(X) X(BEGIN) X(CREATE) X(VERIFY) X(ASK) X(ABORT) X(DELETE)
enum state {
#define X(name) STATE_##name,
    STATES(X)
#undef X
};

#define CALL_MS 30000 /* a small call */
#define TIDY_MS 5000  /* one that nobody waits for */
#define RETIRED_MS (24 * INT64_C(3600000))
#define FOREIGN_MS INT64_C(3600000)

/* What follows when the chat has been deleted. */
enum then { THEN_DONE, THEN_FAIL, THEN_ASK };

struct genspark {
    enum state state;
    struct genspark_ask ask;
    struct cm_str made; /* the chat that CREATE has made */
    bool repeated;      /* it was asked a second time, of a new chat */
    struct genspark_answer answer;
    int status, retry_after_s; /* of the answer */
    enum then then;
    struct cm_err failed; /* told after deleting */
};

static const char *state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        STATES(X)
#undef X
    };

    return names[((const struct genspark *)state)->state];
}

static void clear(void *state)
{
    genspark_answer_clear(&((struct genspark *)state)->answer);
}

static struct cm_str option(const struct cm_run *run, const char *name)
{
    return cm_option_value(cm_run_instance(run), name);
}

static bool option_bool(const struct cm_run *run, const char *name)
{
    return cm_option_bool(cm_run_instance(run), name);
}

static bool option_is(const struct cm_run *run, const char *name, const char *value)
{
    return cm_str_eq(option(run, name), cm_str_of(value));
}

/* ---- Chats that go on ---- */

static struct cm_str chat_key(struct cm_run *run, const struct genspark *g)
{
    const struct cm_str scope = cm_run_scope(run);

    return cm_arena_printf(cm_run_arena(run), "chat\n" CM_PRI "\n" CM_PRI, CM_ARG(scope),
                           CM_ARG(g->ask.model));
}

static struct cm_str foreign_key(struct cm_run *run, struct cm_str project)
{
    return cm_arena_printf(cm_run_arena(run), "foreign\n" CM_PRI, CM_ARG(project));
}

/* A bound chat belongs to one client: to x.model_chat_client, else to the first that uses it. */
static bool may_share(struct cm_run *run, struct cm_str project)
{
    const struct cm_str owner = option(run, "model_chat_client");
    struct cm_str scope = cm_run_scope(run), first, key;

    if (option_bool(run, "model_chat_shared"))
        return true;
    if (owner.n > 0) {
        cm_str_cut(&scope, ' '); /* the key's number: its name follows */
        return cm_str_eq(scope, owner);
    }
    key = cm_arena_printf(cm_run_arena(run), "owner\n" CM_PRI, CM_ARG(project));
    if (cm_run_recall(run, key, &first) && !cm_str_eq(first, scope))
        return false;
    cm_run_remember(run, key, scope, cm_option_int(cm_run_instance(run), "continue_ttl"));
    return true;
}

/* The chat that this model is bound to, and this account can use. */
static bool bound_chat(struct cm_run *run, struct genspark *g)
{
    const struct genspark_conf *c = genspark_conf_of(run);
    const struct cm_target *target = cm_run_target(run);
    struct cm_str unused;

    for (size_t i = 0; i < c->n_bound; i++) {
        const struct genspark_bound *b = &c->bound[i];

        if (!cm_str_eq(b->model, target->model) &&
            !(target->row && cm_str_eq(b->model, target->row->name)))
            continue;
        if (cm_run_recall(run, foreign_key(run, b->project), &unused) ||
            !may_share(run, b->project))
            return false;
        g->ask.project = b->project;
        return true;
    }
    return false;
}

/* First message behind the last answer: what a chat that goes on has not seen. */
static size_t first_new(const struct cm_chat *chat)
{
    size_t from = chat->n_msgs;

    while (from > 0 && chat->msgs[from - 1].role != CM_ROLE_ASSISTANT)
        from--;
    return from < chat->n_msgs ? from : 0;
}

static void find_chat(struct cm_run *run, struct genspark *g)
{
    struct cm_thread thread;
    struct cm_str project;

    if (bound_chat(run, g)) {
        g->ask.from = first_new(cm_run_chat(run));
    } else if (option_is(run, "continue", "thread") && cm_run_thread(run, &thread)) {
        g->ask.project = thread.value;
        g->ask.from = thread.from;
    } else if (option_is(run, "continue", "model") &&
               cm_run_recall(run, chat_key(run, g), &project)) {
        g->ask.project = cm_arena_str(cm_run_arena(run), project);
        g->ask.from = first_new(cm_run_chat(run));
    }
    g->ask.goes_on = g->ask.project.n > 0;
    if (g->ask.dialect == GENSPARK_COPILOT)
        g->ask.from = 0; /* it wants to hear all of it again */
}

static void keep_chat(struct cm_run *run, const struct genspark *g)
{
    const int64_t ttl_ms = cm_option_int(cm_run_instance(run), "continue_ttl");
    const struct cm_str project = g->ask.goes_on ? g->ask.project : g->answer.project;

    if (project.n == 0)
        return;
    if (option_is(run, "continue", "thread"))
        cm_run_thread_keep(run, project, ttl_ms);
    else if (option_is(run, "continue", "model"))
        cm_run_remember(run, chat_key(run, g), project, ttl_ms);
}

/* ---- Calls ---- */

#define HEADERS_MAX 16
struct headers {
    struct cm_header v[HEADERS_MAX];
    size_t n;
};

static void add(struct headers *h, struct cm_str name, struct cm_str value)
{
    CM_ASSERT(h->n < HEADERS_MAX);
    if (value.n > 0)
        h->v[h->n++] = (struct cm_header){name, value};
}

static void add_browser(struct cm_run *run, struct headers *h)
{
    const struct cm_browser *b = cm_run_browser(run);

    add(h, CM_S("User-Agent"), b->user_agent);
    if (cm_run_instance(run)->conf->upstream.user_agent.n > 0)
        return; /* the operator's agrees with nothing of ours */
    add(h, CM_S("Accept-Language"), b->accept_language);
    add(h, CM_S("sec-ch-ua"), b->sec_ch_ua);
    add(h, CM_S("sec-ch-ua-mobile"), CM_S("?0"));
    add(h, CM_S("sec-ch-ua-platform"), b->sec_ch_ua_platform);
}

static struct cm_str hex_id(struct cm_run *run, size_t bytes)
{
    unsigned char random[16];
    struct cm_buf out = {0};

    CM_ASSERT(bytes <= sizeof(random));
    cm_rand_bytes(random, bytes);
    cm_hex(&out, cm_str((const char *)random, bytes));
    return cm_buf_settle(&out, cm_run_arena(run));
}

static void add_trace(struct cm_run *run, struct headers *h)
{
    struct cm_arena *a = cm_run_arena(run);
    const struct cm_str trace = hex_id(run, 16), span = hex_id(run, 8);

    add(h, CM_S("request-id"),
        cm_arena_printf(a, "|" CM_PRI "." CM_PRI, CM_ARG(trace), CM_ARG(span)));
    add(h, CM_S("traceparent"),
        cm_arena_printf(a, "00-" CM_PRI "-" CM_PRI "-01", CM_ARG(trace), CM_ARG(span)));
}

static struct cm_str referer(struct cm_run *run, const struct genspark *g)
{
    const bool agent = g->ask.dialect == GENSPARK_AGENT;
    const struct cm_str origin = option(run, "origin");
    struct cm_str page = option(run, agent ? "agent_referer" : "copilot_referer");

    if (!agent || g->ask.project.n == 0)
        return cm_arena_printf(cm_run_arena(run), CM_PRI CM_PRI, CM_ARG(origin), CM_ARG(page));
    page = cm_str_cut(&page, '?');
    return cm_arena_printf(cm_run_arena(run), CM_PRI CM_PRI "?id=" CM_PRI, CM_ARG(origin),
                           CM_ARG(page), CM_ARG(g->ask.project));
}

static void add_common(struct cm_run *run, const struct genspark *g, struct cm_str accept,
                       struct headers *h)
{
    add(h, CM_S("Content-Type"), CM_S("application/json"));
    add(h, CM_S("Accept"), accept);
    add(h, CM_S("Origin"), option(run, "origin"));
    add(h, CM_S("Referer"), referer(run, g));
    add(h, CM_S("Cookie"), genspark_cookie(run));
    add(h, CM_S("X-Timezone"), option(run, "timezone"));
    add_browser(run, h);
}

/* The chat that this run has made; "" = none, or not told yet. */
static struct cm_str own_chat(const struct genspark *g)
{
    if (g->made.n > 0 || g->ask.goes_on)
        return g->made;
    return g->answer.project;
}

/* PATH?project_id=ID */
static struct cm_str project_url(struct cm_run *run, const char *path, struct cm_str project)
{
    struct cm_buf url = {0};

    cm_buf_append(&url, option(run, path));
    cm_buf_append(&url, CM_S("?project_id="));
    cm_percent(&url, project);
    return cm_buf_settle(&url, cm_run_arena(run));
}

/* A small call about a chat, for which nobody waits. */
static enum cm_step tidy(struct cm_run *run, struct genspark *g, const char *method,
                         const char *path, struct cm_str project, enum state state)
{
    struct headers h = {.n = 0};
    struct cm_call call = {.method = method,
                           .url = project_url(run, path, project),
                           .headers = h.v,
                           .timeout_ms = TIDY_MS};

    add_common(run, g, CM_S("application/json"), &h);
    call.n_headers = h.n;
    g->state = state;
    return cm_run_fetch(run, &call);
}

static enum cm_step ask(struct cm_run *run, struct genspark *g)
{
    const bool agent = g->ask.dialect == GENSPARK_AGENT;
    struct headers h = {.n = 0};
    struct cm_call call = {.method = "POST",
                           .url = option(run, agent ? "agent_path" : "copilot_path"),
                           .headers = h.v,
                           .body = genspark_chat_body(run, &g->ask)};

    add_common(run, g, CM_S("text/event-stream"), &h);
    if (agent && option_bool(run, "trace_headers"))
        add_trace(run, &h);
    call.n_headers = h.n;
    g->status = 0;
    genspark_answer_begin(&g->answer, g->ask.dialect, g->ask.search);
    g->answer.usage.in_uncached = cm_chat_estimate_tokens(cm_run_chat(run));
    g->state = STATE_ASK;
    return cm_run_stream(run, &call);
}

/* ---- The operator's verification service (protocol notes, section 3) ---- */

static enum cm_step verify(struct cm_run *run, struct genspark *g)
{
    const struct genspark_conf *c = genspark_conf_of(run);
    const struct cm_header headers[] = {
        {CM_S("Content-Type"), CM_S("application/json")},
        {CM_S("Cookie"), genspark_cookie(run)},
    };
    struct cm_call call = {
        .method = "GET", .headers = headers, .n_headers = CM_COUNT(headers), .timeout_ms = CALL_MS};

    g->ask.token = CM_STR_NONE; /* good for one question */
    if (c->verifier_url.n == 0)
        return ask(run, g);
    call.url = cm_arena_printf(cm_run_arena(run), CM_PRI "/genspark", CM_ARG(c->verifier_url));
    g->state = STATE_VERIFY;
    return cm_run_fetch(run, &call);
}

/* {"code":200,"token":"…","message":"…"} */
static enum cm_step verified(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                             struct cm_err *err)
{
    yyjson_doc *doc = NULL;
    yyjson_val *root;
    struct cm_str token, said;
    char why[160] = "it cannot be reached";

    if (ev->kind == CM_EV_REPLY)
        doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    root = doc ? yyjson_doc_get_root(doc) : NULL;
    token = cm_json_str(cm_json_get(root, "token"));
    said = cm_json_str(cm_json_get(root, "message"));
    if (ev->status == 200 && yyjson_get_sint(cm_json_get(root, "code")) == 200 && token.n > 0)
        g->ask.token = cm_arena_str(cm_run_arena(run), token);
    else if (said.n > 0)
        cm_str_copy(why, sizeof(why), said);
    else if (ev->kind == CM_EV_REPLY)
        snprintf(why, sizeof(why), "it answered with status %d and no token", ev->status);
    yyjson_doc_free(doc);
    if (g->ask.token.n > 0)
        return ask(run, g);
    if (!option_bool(run, "verifier_required")) {
        cm_warn("genspark", "asks without a token, x.verifier_url failed: %s", why);
        return ask(run, g);
    }
    cm_fail(err, CM_ERR_VERIFICATION_REQUIRED, "genspark's x.verifier_url gave no token: %s", why);
    return CM_STEP_FAIL;
}

/* ---- A chat that is made before the question ---- */

static bool wants_create(struct cm_run *run, const struct genspark *g)
{
    return g->ask.dialect == GENSPARK_AGENT && !g->ask.goes_on &&
           option_is(run, "continue", "no") && option_bool(run, "delete_chat") &&
           option_bool(run, "create_chat");
}

static enum cm_step begin(struct cm_run *run, struct genspark *g)
{
    struct headers h = {.n = 0};
    struct cm_call call = {
        .method = "POST",
        .url = option(run, "create_path"),
        .headers = h.v,
        .body = CM_S("{\"type\":\"ai_chat\",\"name\":\"\","
                     "\"session_state\":{\"steps\":[],\"messages\":[]}}"),
        .timeout_ms = CALL_MS,
        .lands = true,
    };

    if (!wants_create(run, g))
        return verify(run, g);
    add_common(run, g, CM_S("application/json"), &h);
    call.n_headers = h.n;
    g->state = STATE_CREATE;
    return cm_run_fetch(run, &call);
}

/* {"status":0,"data":{"id":"…"}} */
static void read_created(struct cm_run *run, struct genspark *g, struct cm_str reply)
{
    yyjson_doc *doc = cm_json_parse(reply, &cm_json_limits_event, NULL);
    yyjson_val *data = doc ? cm_json_get(yyjson_doc_get_root(doc), "data") : NULL;

    g->made = cm_arena_str(cm_run_arena(run), cm_json_str(cm_json_get(data, "id")));
    yyjson_doc_free(doc);
}

static enum cm_step created(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                            struct cm_err *err)
{
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    read_created(run, g, ev->data);
    if (g->made.n == 0) {
        genspark_refuse(run, ev->status,
                        cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)), ev->data,
                        err);
        return CM_STEP_FAIL;
    }
    g->ask.project = g->made;
    return verify(run, g);
}

/* ---- The end ---- */

/* This run's own chat, which nobody will go on with, is to go. */
static bool wants_delete(struct cm_run *run, const struct genspark *g)
{
    return option_bool(run, "delete_chat") && own_chat(g).n > 0;
}

static enum cm_step delete_chat(struct cm_run *run, struct genspark *g, enum then then)
{
    cm_run_hang_up(run);
    g->then = then;
    return tidy(run, g, "GET", "delete_path", own_chat(g), STATE_DELETE);
}

static enum cm_step deleted(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                            struct cm_err *err)
{
    if (ev->kind == CM_EV_FAILED || ev->status < 200 || ev->status >= 300)
        cm_warn("genspark", "a chat of " CM_PRI " was not deleted: %s",
                CM_ARG(cm_run_cred(run)->label), ev->err ? ev->err->msg : "the site refused");
    switch (g->then) {
    case THEN_DONE:
        return CM_STEP_DONE;
    case THEN_ASK:
        g->made = g->ask.project = g->answer.project = CM_STR_NONE;
        return begin(run, g);
    case THEN_FAIL:
        break;
    }
    *err = g->failed;
    return CM_STEP_FAIL;
}

static enum cm_step fail(struct cm_run *run, struct genspark *g, const struct cm_err *why,
                         struct cm_err *err)
{
    if (!wants_delete(run, g)) {
        *err = *why;
        return CM_STEP_FAIL;
    }
    g->failed = *why;
    return delete_chat(run, g, THEN_FAIL);
}

static enum cm_step ask_again(struct cm_run *run, struct genspark *g)
{
    if (wants_delete(run, g))
        return delete_chat(run, g, THEN_ASK);
    cm_run_hang_up(run);
    return begin(run, g);
}

/* The chat is another account's, or gone: empty answers and 5xx are how it looks. */
static bool cannot_go_on(const struct genspark *g, const struct cm_err *why)
{
    return g->ask.goes_on && !g->repeated && !g->answer.said && why->cls == CM_ERR_UPSTREAM_DOWN;
}

static enum cm_step ask_failed(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const struct cm_err why = *err;

    if (g->answer.retired && g->ask.dialect == GENSPARK_COPILOT && !g->answer.said) {
        cm_warn("genspark", "the copilot dialect is retired, asks in the agent dialect instead");
        cm_run_remember(run, CM_S("retired"), CM_S("copilot"), RETIRED_MS);
        g->ask.dialect = GENSPARK_AGENT;
        if (g->ask.goes_on)
            g->ask.from = first_new(cm_run_chat(run));
        return ask_again(run, g);
    }
    if (cannot_go_on(g, &why)) {
        cm_run_remember(run, foreign_key(run, g->ask.project), CM_S("1"), FOREIGN_MS);
        cm_run_forget(run, chat_key(run, g));
        g->ask.project = CM_STR_NONE;
        g->answer.project = CM_STR_NONE; /* not ours to delete */
        g->ask.from = 0;
        g->ask.goes_on = false;
        g->repeated = true;
        return ask_again(run, g);
    }
    return fail(run, g, &why, err);
}

/* The name itself, or one with a date or a way of serving behind it. */
static bool is_served_by(struct cm_str asked, struct cm_str served)
{
    return cm_str_eq_nocase(asked, served) ||
           (cm_str_starts_nocase(served, asked) &&
            (cm_str_starts(cm_str_from(served, asked.n), CM_S("-20")) ||
             cm_str_ends(served, CM_S("-extended-cache"))));
}

static void check_served(struct cm_run *run, const struct genspark *g)
{
    const struct cm_str served = g->answer.served;

    if (served.n == 0 || g->ask.kind == GENSPARK_MIXTURE || is_served_by(g->ask.model, served))
        return;
    cm_warn("genspark", CM_PRI " was asked for model " CM_PRI ", but " CM_PRI " answered",
            CM_ARG(cm_run_cred(run)->label), CM_ARG(g->ask.model), CM_ARG(served));
}

static enum cm_step finish(struct cm_run *run, struct genspark *g)
{
    check_served(run, g);
    cm_run_usage(run, &g->answer.usage);
    cm_run_finish(run, CM_FINISH_STOP);
    keep_chat(run, g);
    if (!option_is(run, "continue", "no") || !wants_delete(run, g)) /* it may go on */
        return CM_STEP_DONE;
    cm_run_answered(run);
    return delete_chat(run, g, THEN_DONE);
}

static enum cm_step ended(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    if (genspark_answer_end(run, &g->answer, g->status, g->retry_after_s, err))
        return ask_failed(run, g, err);
    return finish(run, g);
}

static enum cm_step answered(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                             struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_HEAD:
        g->status = ev->status;
        g->retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run));
        return CM_STEP_WAIT;
    case CM_EV_DATA:
        if (genspark_answer_feed(run, &g->answer, g->status, ev->data, err))
            return ask_failed(run, g, err);
        return g->answer.finished ? ended(run, g, err) : CM_STEP_WAIT;
    case CM_EV_FAILED:
        *err = *ev->err;
        return fail(run, g, ev->err, err);
    default: /* END */
        return ended(run, g, err);
    }
}

/* The client has left: the answer would go on costing credit. */
static enum cm_step leave(struct cm_run *run, struct genspark *g, const struct cm_ev *ev)
{
    const struct cm_str project = g->ask.project.n > 0 ? g->ask.project : g->answer.project;

    if (g->state == STATE_CREATE)
        read_created(run, g, ev->data);
    if (g->state == STATE_ASK && project.n > 0 && g->ask.dialect == GENSPARK_AGENT &&
        option_bool(run, "abort"))
        return tidy(run, g, "POST", "abort_path", project, STATE_ABORT);
    return wants_delete(run, g) ? delete_chat(run, g, THEN_DONE) : CM_STEP_DONE;
}

/* ---- The request ---- */

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
        return unsupported(err, "n", "genspark gives one answer to a request: 'n' must be 1.");
    if (chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE)
        return unsupported(
            err, "tools",
            "genspark calls no tools: leave 'tools' out or set 'tool_choice' to 'none'.");
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            const enum cm_part_kind kind = chat->msgs[i].parts[k].kind;

            if (kind != CM_PART_AUDIO && kind != CM_PART_IMAGE && kind != CM_PART_FILE)
                continue;
            snprintf(param, sizeof(param), "messages[%zu].content", i);
            return unsupported(err, param, "genspark takes text only here.");
        }
    }
    return 0;
}

static bool says_something(const struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            if (chat->msgs[i].parts[k].text.n > 0)
                return true;
        }
    }
    return false;
}

static enum cm_step start(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_str gone;

    if (check_request(chat, err))
        return CM_STEP_FAIL;
    if (!says_something(chat)) {
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "the messages hold no text");
        return CM_STEP_FAIL;
    }
    g->ask.kind = genspark_model(run, &g->ask.model);
    g->ask.search = cm_run_target(run)->search;
    g->ask.dialect = genspark_conf_of(run)->dialect;
    if (g->ask.dialect == GENSPARK_COPILOT && cm_run_recall(run, CM_S("retired"), &gone))
        g->ask.dialect = GENSPARK_AGENT;
    find_chat(run, g);
    return begin(run, g);
}

static enum cm_step genspark_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct genspark *g = cm_run_state(run);

    if (ev->kind == CM_EV_STOP)
        return leave(run, g, ev);
    if (g->state != STATE_VERIFY)
        genspark_cookie_learn(run, ev->headers, ev->n_headers);
    switch (g->state) {
    case STATE_BEGIN:
        return start(run, g, err);
    case STATE_CREATE:
        return created(run, g, ev, err);
    case STATE_VERIFY:
        return verified(run, g, ev, err);
    case STATE_ASK:
        return answered(run, g, ev, err);
    case STATE_ABORT:
        return wants_delete(run, g) ? delete_chat(run, g, THEN_DONE) : CM_STEP_DONE;
    case STATE_DELETE:
        break;
    }
    return deleted(run, g, ev, err);
}

const struct cm_provider cm_provider_genspark = {
    .name = "genspark",
    .help = "genspark.ai, by the cookie session_id",
    .base_url = "https://www.genspark.ai",
    .options = genspark_options,
    .models = models,
    .n_models = CM_COUNT(models),
    .any_features = CM_MODEL_SEARCH,
    .isolated = true,
    .max_inflight = 2, /* three at once are too many for a free account */
    .cooldown_ms = 30000,
    .configure = genspark_configure,
    .normalize = genspark_normalize,
    .chat = {.step = genspark_step,
             .state_size = sizeof(struct genspark),
             .state_name = state_name,
             .clear = clear},
};
