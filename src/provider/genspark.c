/* genspark: www.genspark.ai, by the session cookie of an account.
 *
 * Happy path: pictures and files (genspark_parts.c) -> CREATE (a chat, if it is to be deleted afterwards, or to make pictures in) -> VERIFY (a token from the operator's own service, if there
 * is one) -> ASK (the answer comes as a stream) -> pictures and videos: their jobs (genspark_media.c) -> the client has its answer -> DELETE.
 * Every request is a chat of its own with the whole history, unless one can go on (genspark_chats.c).
 * Failures: a chat that cannot go on (it is gone, or another account's) is asked anew once; a retired dialect is asked in the other one; both
 * on the same account. A client that leaves has its answer stopped (ABORT) and its chat deleted, and so has a failure.
 * Wire facts: genspark protocol notes. */
#include "genspark_table.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/provider/list.h"

#include <stdio.h>

#define RETIRED_MS (24 * INT64_C(3600000))
#define LEFT_AT_ONCE 3 /* chats of earlier ones that are deleted after an answer */

static const char *state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        GENSPARK_STATES(X)
#undef X
    };

    return names[((const struct genspark *)state)->state];
}

static void clear(void *state)
{
    struct genspark *g = state;

    genspark_answer_clear(&g->answer);
    cm_buf_clear(&g->line);
}

static enum cm_step ask(struct cm_run *run, struct genspark *g)
{
    const bool agent = g->ask.dialect == GENSPARK_AGENT, media = genspark_makes_media(g->ask.kind);
    struct genspark_headers h = {.n = 0};
    struct cm_call call = {.method = "POST",
                           .url = genspark_option(run, agent ? "agent_path" : "copilot_path"),
                           .headers = h.v,
                           .body = media ? genspark_media_body(run, g) : genspark_chat_body(run, g),
                           .long_wait = media};

    genspark_headers(run, &g->ask, CM_S("text/event-stream"), &h);
    if (agent && genspark_option_bool(run, "trace_headers"))
        genspark_add_trace(run, &h);
    call.n_headers = h.n;
    g->status = 0;
    genspark_answer_begin(&g->answer, &g->ask);
    g->answer.usage.in_uncached =
        media ? cm_estimate_tokens(g->wish.prompt) : cm_chat_estimate_tokens(cm_run_chat(run));
    g->state = GENSPARK_ASK;
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
    struct cm_call call = {.method = "GET",
                           .headers = headers,
                           .n_headers = CM_COUNT(headers),
                           .timeout_ms = GENSPARK_CALL_MS};

    g->ask.token = CM_STR_NONE; /* good for one question */
    if (c->verifier_url.n == 0)
        return ask(run, g);
    call.url = cm_arena_printf(cm_run_arena(run), CM_PRI "/genspark", CM_ARG(c->verifier_url));
    call.unverified = !genspark_option_bool(run, "verifier_tls_check");
    g->state = GENSPARK_VERIFY;
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
    if (!genspark_option_bool(run, "verifier_required")) {
        cm_warn("genspark", "asks without a token, x.verifier_url failed: %s", why);
        return ask(run, g);
    }
    cm_fail(err, CM_ERR_VERIFICATION_REQUIRED, "genspark's x.verifier_url gave no token: %s", why);
    err->of_address = true; /* no account is at fault, and none would get one */
    err->retry_after_s = genspark_cooldown_s(run, "challenge_cooldown");
    return CM_STEP_FAIL;
}

/* ---- A chat that is made before the question ---- */

/* Pictures are made in a chat that is there; what is to be deleted must be known by its id, whenever the client leaves. */
static bool wants_create(struct cm_run *run, const struct genspark *g)
{
    if (g->ask.dialect != GENSPARK_AGENT || g->ask.goes_on)
        return false;
    return genspark_makes_media(g->ask.kind) ||
           (genspark_option_is(run, "continue", "no") && genspark_option_bool(run, "delete_chat") &&
            genspark_option_bool(run, "create_chat"));
}

#define EMPTY_CHAT                                                                                 \
    CM_S("{\"type\":\"ai_chat\",\"name\":\"\",\"session_state\":{\"steps\":[],\"messages\":[]}}")
#define EMPTY_ARTICLE CM_S("{\"article\":\"# image\"}") /* for a video too: UNKNOWN */

static enum cm_step begin(struct cm_run *run, struct genspark *g)
{
    struct cm_call call = {
        .method = "POST",
        .url = genspark_option(run, "create_path"),
        .body = genspark_makes_media(g->ask.kind) ? EMPTY_ARTICLE : EMPTY_CHAT,
        .lands = true,
    };

    if (!wants_create(run, g))
        return verify(run, g);
    g->state = GENSPARK_CREATE;
    return genspark_fetch(run, &g->ask, &call);
}

/* This run's own chat, which nobody will go on with, is to go. */
static bool wants_delete(struct cm_run *run, const struct genspark *g)
{
    return genspark_option_bool(run, "delete_chat") && genspark_own_chat(g).n > 0;
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
    if (wants_delete(run, g)) /* should the process end meanwhile */
        cm_run_left_put(run, g->made, CM_LEFT_ASKED_MS);
    return verify(run, g);
}

/* ---- Pictures and files come first ---- */

static enum cm_step prepared(struct cm_run *run, struct genspark *g, enum cm_step step)
{
    return step == CM_STEP_DONE ? begin(run, g) : step;
}

static enum cm_step prepare_again(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const bool more = g->more;

    g->more = false;
    return prepared(run, g, more ? genspark_parts_again(run, g, err) : CM_STEP_DONE);
}

/* ---- The end ---- */

/* A small call about a chat, for which nobody waits. */
static enum cm_step tidy(struct cm_run *run, struct genspark *g, const char *method,
                         const char *path, struct cm_str project, enum genspark_state state)
{
    struct cm_call call = {.method = method,
                           .url = genspark_url(run, path, "project_id", project),
                           .timeout_ms = GENSPARK_TIDY_MS};

    g->state = state;
    return genspark_fetch(run, &g->ask, &call);
}

static enum cm_step delete_one(struct cm_run *run, struct genspark *g, struct cm_str project)
{
    g->deleting = project;
    cm_run_left_put(run, project, CM_LEFT_ALONE_MS);
    return tidy(run, g, "GET", "delete_path", project, GENSPARK_DELETE);
}

static enum cm_step delete_chat(struct cm_run *run, struct genspark *g, enum genspark_then then)
{
    cm_run_hang_up(run);
    g->then = then;
    return delete_one(run, g, genspark_own_chat(g));
}

/* Whether the site has it no more. */
static bool was_deleted(struct cm_run *run, struct genspark *g, const struct cm_ev *ev)
{
    const bool gone = ev->kind == CM_EV_REPLY && ev->status >= 200 && ev->status < 300;

    if (gone) {
        cm_run_left_gone(run, g->deleting);
        return true;
    }
    cm_warn("genspark", "a chat of " CM_PRI " was not deleted, a later answer will do it: %s",
            CM_ARG(cm_run_cred(run)->label), ev->err ? ev->err->msg : "the site refused");
    cm_run_left_failed(run, g->deleting);
    return false;
}

/* What earlier ones left, a few at a time. */
static enum cm_step delete_left(struct cm_run *run, struct genspark *g)
{
    const struct cm_str next = cm_run_left_next(run);

    if (next.n > 0 && ++g->deleted <= LEFT_AT_ONCE)
        return delete_one(run, g, next);
    return CM_STEP_DONE;
}

static enum cm_step deleted(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                            struct cm_err *err)
{
    const bool gone = was_deleted(run, g, ev);

    switch (g->then) {
    case GENSPARK_THEN_DONE:
        return gone ? delete_left(run, g) : CM_STEP_DONE;
    case GENSPARK_THEN_ASK:
        g->made = g->ask.project = g->answer.project = CM_STR_NONE;
        return prepare_again(run, g, err);
    case GENSPARK_THEN_FAIL:
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
    return delete_chat(run, g, GENSPARK_THEN_FAIL);
}

static enum cm_step ask_again(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    if (wants_delete(run, g))
        return delete_chat(run, g, GENSPARK_THEN_ASK);
    cm_run_hang_up(run);
    return prepare_again(run, g, err);
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
            g->ask.from = genspark_first_new(cm_run_chat(run));
        return ask_again(run, g, err);
    }
    if (cannot_go_on(g, &why)) {
        if (g->alone) {
            cm_fail_param(err, CM_ERR_NOT_FOUND, "conversation_id",
                          "genspark does not go on in this conversation any more: send it as a "
                          "whole");
            return CM_STEP_FAIL;
        }
        genspark_leave_chat(run, g);
        g->repeated = g->more = true;
        return ask_again(run, g, err);
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
    cm_run_served(run, served);
}

static enum cm_step finish(struct cm_run *run, struct genspark *g)
{
    check_served(run, g);
    cm_run_usage(run, &g->answer.usage);
    genspark_tell_chat(run, g);
    cm_run_finish(run, CM_FINISH_STOP);
    genspark_keep_chat(run, g);
    if (!wants_delete(run, g) ||
        (!genspark_option_is(run, "continue", "no") && !genspark_makes_media(g->ask.kind)))
        return CM_STEP_DONE; /* it may go on */
    cm_run_answered(run);
    return delete_chat(run, g, GENSPARK_THEN_DONE);
}

/* Where jobs are waited for. */
static enum cm_step waited(struct cm_run *run, struct genspark *g, enum cm_step step,
                           struct cm_err *err)
{
    if (step == CM_STEP_FAIL) {
        const struct cm_err why = *err;

        return fail(run, g, &why, err);
    }
    return step == CM_STEP_DONE ? finish(run, g) : step;
}

static enum cm_step ended(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const char *limit = g->ask.kind == GENSPARK_VIDEO ? "video_timeout" : "image_timeout";

    if (genspark_answer_end(run, &g->answer, g->status, g->retry_after_s, err))
        return ask_failed(run, g, err);
    if (!genspark_makes_media(g->ask.kind))
        return finish(run, g);
    cm_run_hang_up(run);
    g->until_ms = cm_run_unix_ms(run) + cm_option_int(cm_run_instance(run), limit);
    return waited(run, g, genspark_media_wait(run, g, err), err);
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

    if (g->state == GENSPARK_CREATE)
        read_created(run, g, ev->data);
    if (g->state == GENSPARK_ASK && project.n > 0 && g->ask.dialect == GENSPARK_AGENT &&
        genspark_option_bool(run, "abort"))
        return tidy(run, g, "POST", "abort_path", project, GENSPARK_ABORT);
    return wants_delete(run, g) ? delete_chat(run, g, GENSPARK_THEN_DONE) : CM_STEP_DONE;
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
    if (chat->media.mask)
        return unsupported(err, "mask", "genspark works on whole pictures: leave 'mask' out.");
    if (chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE)
        return unsupported(
            err, "tools",
            "genspark calls no tools itself: leave 'tools' out, set 'tool_choice' to 'none', or have "
            "the operator set x.tools = prompt.");
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            if (chat->msgs[i].parts[k].kind != CM_PART_AUDIO)
                continue;
            snprintf(param, sizeof(param), "messages[%zu].content", i);
            return unsupported(err, param, "genspark takes text, pictures and files, no sound.");
        }
    }
    return 0;
}

/* More than one answer is only to be had of pictures. */
static int check_number(const struct cm_chat *chat, const struct genspark_ask *a,
                        struct cm_err *err)
{
    if (chat->n > 1 && !(a->kind == GENSPARK_IMAGE && a->dialect == GENSPARK_AGENT))
        return unsupported(err, "n", "genspark gives one answer to this request: 'n' must be 1.");
    return 0;
}

/* A name that the operator listed, or that is in no list, is what it is asked for. */
static int check_task(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const struct cm_target *target = cm_run_target(run);
    const enum cm_chat_task task = cm_run_chat(run)->task;
    const bool video = task == CM_TASK_VIDEO;

    if (!cm_task_makes_media(task))
        return 0;
    if (!target->row || target->row->number == GENSPARK_LISTED) {
        g->ask.kind = video ? GENSPARK_VIDEO : GENSPARK_IMAGE;
        g->ask.model = target->model;
    }
    if (g->ask.kind == (video ? GENSPARK_VIDEO : GENSPARK_IMAGE))
        return 0;
    cm_fail_param(err, CM_ERR_BAD_REQUEST, "model", "genspark makes no %s with '" CM_PRI "'",
                  cm_chat_task_name(task), CM_ARG(cm_run_chat(run)->model));
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
    return -1;
}

static bool says_something(const struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            const struct cm_part *part = &chat->msgs[i].parts[k];

            if (part->text.n > 0 || part->kind == CM_PART_IMAGE || part->kind == CM_PART_FILE)
                return true;
        }
    }
    return false;
}

static int read_request(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_str gone;

    if (check_request(chat, err))
        return -1;
    g->ask.kind = genspark_model(run, &g->ask.model);
    g->ask.search = cm_run_target(run)->search;
    g->ask.dialect = genspark_conf_of(run)->dialect;
    if (g->ask.dialect == GENSPARK_COPILOT && cm_run_recall(run, CM_S("retired"), &gone))
        g->ask.dialect = GENSPARK_AGENT;
    if (check_task(run, g, err) || check_number(chat, &g->ask, err))
        return -1;
    if (genspark_makes_media(g->ask.kind))
        return genspark_media_wish(run, g, err);
    if (!says_something(chat))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "the messages hold nothing");
    return 0;
}

static enum cm_step start(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    if (read_request(run, g, err) || genspark_find_chat(run, g, err))
        return CM_STEP_FAIL;
    if (g->ask.kind == GENSPARK_MIXTURE &&
        !(cm_run_target(run)->row && cm_run_target(run)->row->number == GENSPARK_MIXTURE))
        cm_run_served(run, CM_S("mixture-of-agents")); /* a name that is in no list */
    return prepared(run, g, genspark_parts_begin(run, g, err));
}

/* Does what comes in this state come from the site itself? */
static bool is_sites(enum genspark_state state)
{
    return state != GENSPARK_FETCH && state != GENSPARK_UPLOAD && state != GENSPARK_VERIFY &&
           state != GENSPARK_DOWNLOAD;
}

static enum cm_step genspark_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct genspark *g = cm_run_state(run);

    if (ev->kind == CM_EV_STOP)
        return leave(run, g, ev);
    if (is_sites(g->state))
        genspark_cookie_learn(run, ev->headers, ev->n_headers);
    switch (g->state) {
    case GENSPARK_BEGIN:
        return start(run, g, err);
    case GENSPARK_FETCH:
    case GENSPARK_UPLOAD_URL:
    case GENSPARK_UPLOAD:
        return prepared(run, g, genspark_parts_step(run, g, ev, err));
    case GENSPARK_CREATE:
        return created(run, g, ev, err);
    case GENSPARK_VERIFY:
        return verified(run, g, ev, err);
    case GENSPARK_ASK:
        return answered(run, g, ev, err);
    case GENSPARK_STATUS:
    case GENSPARK_POLL:
    case GENSPARK_PAUSE:
    case GENSPARK_DOWNLOAD:
        return waited(run, g, genspark_media_step(run, g, ev, err), err);
    case GENSPARK_ABORT:
        return wants_delete(run, g) ? delete_chat(run, g, GENSPARK_THEN_DONE) : CM_STEP_DONE;
    case GENSPARK_DELETE:
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
    .understands = CM_FIELD_PARALLEL,
    .tools_by_prompt = true,
    .isolated = true,
    .tasks = CM_TASK_BIT(CHAT) | CM_TASK_BIT(IMAGE) | CM_TASK_BIT(IMAGE_EDIT) | CM_TASK_BIT(VIDEO),
    .max_inflight = 2, /* three at once are too many for a free account */
    .cooldown_ms = 30000,
    .probe_every_ms = 6 * INT64_C(3600000),
    .configure = genspark_configure,
    .normalize = genspark_normalize,
    .chat = {.step = genspark_step,
             .state_size = sizeof(struct genspark),
             .state_name = state_name,
             .clear = clear},
    .probe = {.step = genspark_probe_step,
              .state_size = sizeof(struct genspark_probe),
              .state_name = genspark_probe_state},
};
