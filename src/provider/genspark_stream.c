/* Reads genspark's answers: both dialects are data-only SSE, one JSON object an event.
 *
 * Happy path: pieces of the answer's text go out as they come -> the end mark -> what was held, citations.
 * Failures come as text too, so the beginning of a message is held while it may still become one of those (genspark_suspicious()), and while a
 * search may follow: what is said before it is no answer. Wire facts: genspark protocol notes, sections 4.3 and 5.2. */
#include "genspark_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#define EVENT_MAX (8u * 1024 * 1024) /* results of searches, pictures in histories */
#define REFUSAL_MAX (64u * 1024)
#define CITATIONS_MAX 50
#define OTHERS_MAX 256

struct feed {
    struct cm_run *run;
    struct genspark_answer *a;
    struct cm_err *err;
};

void genspark_answer_begin(struct genspark_answer *a, const struct genspark_ask *ask)
{
    genspark_answer_clear(a);
    *a = (struct genspark_answer){
        .dialect = ask->dialect, .search = ask->search, .media = genspark_makes_media(ask->kind)};
    cm_sse_init(&a->sse, EVENT_MAX);
    cm_buf_init(&a->raw, REFUSAL_MAX);
    a->usage.source = CM_USAGE_ESTIMATED;
}

void genspark_answer_clear(struct genspark_answer *a)
{
    cm_sse_clear(&a->sse);
    cm_buf_clear(&a->raw);
    cm_buf_clear(&a->text);
    cm_buf_clear(&a->whole);
}

/* ---- What goes out ---- */

static void reason(const struct feed *f, struct cm_str text)
{
    if (f->a->media)
        return;
    f->a->usage.out_reasoning += cm_estimate_tokens(text);
    cm_run_reasoning(f->run, text);
}

static void emit(const struct feed *f, struct cm_str text)
{
    struct genspark_answer *a = f->a;

    if (text.n == 0 || a->media) /* what an agent says about its pictures is no part of them */
        return;
    if (a->said && a->parted)
        cm_run_text(f->run, CM_S("\n\n"));
    a->parted = false;
    a->said = true;
    a->usage.out_text += cm_estimate_tokens(text);
    cm_run_text(f->run, text);
}

static struct cm_str held(const struct genspark_answer *a)
{
    return cm_str_from(cm_buf_str(&a->text), a->sent);
}

static void release(const struct feed *f)
{
    struct genspark_answer *a = f->a;
    const struct cm_str text = held(a);

    a->sent = a->text.n;
    emit(f, text);
}

static void say(const struct feed *f, struct cm_str text)
{
    struct genspark_answer *a = f->a;

    a->streamed |= text.n > 0;
    if (a->open) {
        emit(f, text);
        return;
    }
    cm_buf_append(&a->text, text);
    if (a->text.n > GENSPARK_CANNED_CHARS &&
        cm_utf8_count(cm_buf_str(&a->text)) > GENSPARK_CANNED_CHARS) {
        a->open = true;
        release(f);
        cm_buf_clear(&a->text);
        a->sent = 0;
    } else if (!a->search && !genspark_suspicious(cm_buf_str(&a->text))) {
        release(f);
    }
}

/* The message goes on to call a tool: what it has said was no answer. */
static void set_aside(const struct feed *f)
{
    reason(f, held(f->a));
    cm_buf_reset(&f->a->text);
    cm_buf_reset(&f->a->whole);
    f->a->sent = 0;
}

/* What was told of the text in one piece counts when it did not come in pieces. */
static void settle(const struct feed *f)
{
    struct genspark_answer *a = f->a;

    if (!a->streamed && a->whole.n > 0) {
        say(f, cm_buf_str(&a->whole));
        cm_buf_reset(&a->whole);
    }
}

static void next_message(const struct feed *f, struct cm_str id)
{
    struct genspark_answer *a = f->a;

    if (a->message.n > 0) {
        settle(f);
        release(f);
        cm_buf_reset(&a->text);
        cm_buf_reset(&a->whole);
        a->sent = 0;
        a->open = a->streamed = a->result = false;
        a->parted = true;
    }
    a->message = cm_arena_str(cm_run_arena(f->run), id);
}

/* ---- Citations (their place in a tool's result is UNKNOWN) ---- */

static void cite(const struct feed *f, struct cm_str url, struct cm_str title)
{
    struct genspark_answer *a = f->a;
    struct cm_arena *arena = cm_run_arena(f->run);

    if (!cm_str_starts_nocase(url, CM_S("http://")) && !cm_str_starts_nocase(url, CM_S("https://")))
        return;
    for (size_t i = 0; i < a->n_citations; i++) {
        if (cm_str_eq(a->citations[i].url, url))
            return;
    }
    if (!a->citations)
        a->citations = CM_ARENA_ARRAY(arena, struct cm_citation, CITATIONS_MAX);
    if (a->n_citations == CITATIONS_MAX)
        return;
    a->citations[a->n_citations].url = cm_arena_str(arena, url);
    a->citations[a->n_citations++].title = cm_arena_str(arena, title);
}

/* Every object with a link in it. A string may be JSON once more; the depth is that of the events. */
static void collect(const struct feed *f, yyjson_val *v, int unfolded)
{
    const struct cm_str text = cm_json_str(v);
    size_t i, max;
    yyjson_val *key, *item;
    yyjson_doc *doc;

    if (yyjson_is_obj(v)) {
        struct cm_str link = cm_json_str(cm_json_get(v, "link"));

        cite(f, link.n > 0 ? link : cm_json_str(cm_json_get(v, "url")),
             cm_json_str(cm_json_get(v, "title")));
        yyjson_obj_foreach(v, i, max, key, item) collect(f, item, unfolded);
    } else if (yyjson_is_arr(v)) {
        yyjson_arr_foreach(v, i, max, item) collect(f, item, unfolded);
    } else if (unfolded == 0 &&
               (cm_str_starts(text, CM_S("{")) || cm_str_starts(text, CM_S("[")))) {
        doc = cm_json_parse(text, &cm_json_limits_event, NULL);
        if (doc)
            collect(f, yyjson_doc_get_root(doc), 1);
        yyjson_doc_free(doc);
    }
}

static void tell_citations(const struct feed *f)
{
    const struct genspark_answer *a = f->a;
    const struct cm_str how = cm_option_value(cm_run_instance(f->run), "citations");
    const bool both = cm_str_eq(how, CM_S("both"));
    struct cm_buf links = {0};

    for (size_t i = 0; i < a->n_citations; i++) {
        const struct cm_citation *c = &a->citations[i];

        if (both || cm_str_eq(how, CM_S("annotations")))
            cm_run_emit(f->run, &(struct cm_event){
                                    .kind = CM_EVENT_CITATION, .url = c->url, .name = c->title});
        cm_buf_printf(&links, "%s%zu. [", i > 0 ? "\n" : "\n\n", i + 1);
        cm_buf_append(&links, c->title.n > 0 ? c->title : c->url);
        cm_buf_append(&links, CM_S("]("));
        cm_buf_append(&links, c->url);
        cm_buf_put(&links, ')');
    }
    if (both || cm_str_eq(how, CM_S("links")))
        cm_run_text(f->run, cm_buf_str(&links));
    cm_buf_clear(&links);
}

/* ---- Failures within a stream ---- */

static int limited(const struct feed *f, yyjson_val *value)
{
    const struct cm_str mark = CM_S("{time:");
    const struct cm_str text =
        cm_json_str(yyjson_is_obj(value) ? cm_json_get(value, "value") : value);
    const size_t at = cm_str_find(text, mark);
    const int64_t now_s = cm_run_unix_ms(f->run) / 1000;
    struct cm_str rest = cm_str_from(text, at == SIZE_MAX ? text.n : at + mark.n);
    uint64_t until_s = 0;

    if (text.n == 0)
        return 0; /* the field was emptied */
    cm_str_to_u64(cm_str_cut(&rest, '}'), INT64_MAX, &until_s);
    cm_fail(f->err, CM_ERR_RATE_LIMITED, "genspark's limit of this account's window is reached");
    if (until_s == 0)
        f->err->retry_after_s = genspark_cooldown_s(f->run, "window_cooldown");
    else if ((int64_t)until_s > now_s && (int64_t)until_s - now_s < INT32_MAX)
        f->err->retry_after_s = (int)((int64_t)until_s - now_s);
    else
        f->err->retry_after_s = 1; /* it is over by now */
    return -1;
}

/* "error" events: the text is found wherever it is. */
static int broken_off(const struct feed *f, yyjson_val *root)
{
    static const char *const names[] = {"message", "error", "content", "detail", "field_value"};

    cm_fail(f->err, CM_ERR_UPSTREAM_DOWN, "genspark broke off its answer with an error");
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        yyjson_val *v = cm_json_opt(root, names[i]);
        struct cm_str text = cm_json_str(yyjson_is_obj(v) ? cm_json_get(v, "message") : v);
        struct cm_err why;

        if (text.n == 0)
            continue;
        genspark_refuse(f->run, 500, 0, text, &why);
        if (why.cls != CM_ERR_UPSTREAM_DOWN)
            *f->err = why;
        break;
    }
    return -1;
}

static int not_logged_in(const struct feed *f)
{
    return cm_fail(f->err, CM_ERR_EXPIRED, "genspark says that this account is not logged in");
}

/* ---- Events ---- */

static bool is_other(const struct genspark_answer *a, struct cm_str id)
{
    for (size_t i = 0; i < a->n_others; i++) {
        if (cm_str_eq(a->others[i], id))
            return true;
    }
    return false;
}

static void note_other(const struct feed *f, struct cm_str id)
{
    struct genspark_answer *a = f->a;

    if (a->n_others == OTHERS_MAX || is_other(a, id))
        return;
    if (!a->others)
        a->others = CM_ARENA_ARRAY(cm_run_arena(f->run), struct cm_str, OTHERS_MAX);
    a->others[a->n_others++] = cm_arena_str(cm_run_arena(f->run), id);
}

/* Is this event about a message of the assistant? Then that is the one being said. */
static bool is_answer(const struct feed *f, yyjson_val *root)
{
    const struct cm_str id = cm_json_str(cm_json_get(root, "message_id"));

    if (is_other(f->a, id))
        return false;
    if (id.n > 0 && !cm_str_eq(id, f->a->message))
        next_message(f, id);
    return true;
}

static bool is_layer(struct cm_str name)
{
    return cm_str_starts(name, CM_S("session_state.layer_"));
}

static void on_delta(const struct feed *f, yyjson_val *root)
{
    const struct genspark_answer *a = f->a;
    const struct cm_str name = cm_json_str(cm_json_get(root, "field_name"));
    const struct cm_str delta = cm_json_str(cm_json_get(root, "delta"));

    if (cm_str_eq(name, CM_S("session_state.answerthink"))) {
        reason(f, delta);
    } else if (is_layer(name)) {
        if (cm_option_bool(cm_run_instance(f->run), "mixture_reasoning"))
            reason(f, delta);
    } else if (a->dialect == GENSPARK_AGENT) {
        if (cm_str_eq(name, CM_S("content")) && is_answer(f, root))
            say(f, delta);
    } else if (cm_str_eq(name, CM_S("session_state.answer")) ||
               cm_str_has(name, CM_S("session_state.streaming_detail_answer")) ||
               cm_str_has(name, CM_S("session_state.streaming_markmap"))) {
        say(f, delta);
    }
}

static void keep_whole(const struct feed *f, struct cm_str text)
{
    cm_buf_reset(&f->a->whole);
    cm_buf_append(&f->a->whole, text);
}

static int on_field(const struct feed *f, yyjson_val *root)
{
    const struct genspark_answer *a = f->a;
    const struct cm_str name = cm_json_str(cm_json_get(root, "field_name"));
    yyjson_val *value = cm_json_get(root, "field_value");

    if (cm_str_eq(name, CM_S("session_state.session_limit_message")))
        return limited(f, value);
    if (a->dialect == GENSPARK_COPILOT) {
        if (cm_str_eq(name, CM_S("session_state.answer")) && yyjson_is_str(value))
            keep_whole(f, cm_json_str(value));
    } else if (cm_str_ends(name, CM_S("_generation_agent.results"))) {
        genspark_media_jobs(f->run, f->a, value);
    } else if (cm_str_starts(name, CM_S("tool_calls[")) && is_answer(f, root)) {
        set_aside(f);
    } else if (cm_str_eq(name, CM_S("content")) && yyjson_is_str(value) && is_answer(f, root)) {
        keep_whole(f, cm_json_str(value));
    }
    return 0;
}

static void on_message_start(const struct feed *f, yyjson_val *root)
{
    const struct cm_str role = cm_json_str(cm_json_get(root, "role"));

    if (role.n > 0 && !cm_str_eq(role, CM_S("assistant")))
        note_other(f, cm_json_str(cm_json_get(root, "message_id")));
    else
        is_answer(f, root);
}

/* o1 with search wraps its answer once more: {"detailAnswer":"…"}. */
static void keep_copilot_result(const struct feed *f, struct cm_str content)
{
    yyjson_doc *doc = NULL;
    yyjson_val *inner;

    if (f->a->search && cm_str_starts(content, CM_S("{")))
        doc = cm_json_parse(content, &cm_json_limits_event, NULL);
    inner = doc ? cm_json_get(yyjson_doc_get_root(doc), "detailAnswer") : NULL;
    keep_whole(f, yyjson_is_str(inner) ? cm_json_str(inner) : content);
    yyjson_doc_free(doc);
}

static int on_copilot_result(const struct feed *f, yyjson_val *root)
{
    yyjson_val *action = cm_json_opt(root, "action"), *state = cm_json_opt(root, "session_state");
    const struct cm_str role = cm_json_str(cm_json_get(root, "role"));

    if (cm_str_eq(cm_json_str(cm_json_get(action, "type")), CM_S("ACTION_QUOTA_EXCEEDED")) ||
        yyjson_get_bool(cm_json_get(state, "consume_usage_quota_exceeded"))) {
        cm_fail(f->err, CM_ERR_QUOTA_EXHAUSTED, "genspark's free use of this account is used up");
        f->err->retry_after_s = genspark_cooldown_s(f->run, "quota_cooldown");
        return -1;
    }
    if (role.n == 0 || cm_str_eq(role, CM_S("assistant"))) {
        if (f->a->media)
            genspark_media_copilot_jobs(f->run, f->a, cm_json_str(cm_json_get(root, "content")));
        keep_copilot_result(f, cm_json_str(cm_json_get(root, "content")));
        f->a->result = f->a->finished = true;
    }
    return 0;
}

static void on_agent_result(const struct feed *f, yyjson_val *root)
{
    struct genspark_answer *a = f->a;
    yyjson_val *message = cm_json_opt(root, "message");
    struct cm_str role, served;

    message = message ? message : root;
    role = cm_json_str(cm_json_get(message, "role"));
    if (role.n > 0 && !cm_str_eq(role, CM_S("assistant"))) {
        note_other(f, cm_json_str(cm_json_get(root, "message_id")));
        collect(f, message, 0);
        return;
    }
    if (!is_answer(f, root))
        return;
    a->result = yyjson_arr_size(cm_json_get(message, "tool_calls")) == 0;
    served = cm_json_str(cm_json_get(cm_json_opt(message, "session_state"), "_llm_model"));
    if (served.n > 0)
        a->served = cm_arena_str(cm_run_arena(f->run), served);
    if (yyjson_is_str(cm_json_get(message, "content")))
        keep_whole(f, cm_json_str(cm_json_get(message, "content")));
    if (!a->result) {
        if (!a->streamed)
            cm_buf_append(&a->text, cm_buf_str(&a->whole));
        set_aside(f);
    }
}

static int on_event(const struct feed *f, yyjson_val *root)
{
    struct genspark_answer *a = f->a;
    const struct cm_str type = cm_json_str(cm_json_get(root, "type"));

    if (a->project.n == 0) {
        const bool start = cm_str_eq(type, CM_S("project_start"));

        a->project = cm_arena_str(cm_run_arena(f->run),
                                  cm_json_str(cm_json_get(root, start ? "id" : "project_id")));
    }
    if (cm_str_eq(type, CM_S("message_field_delta")))
        on_delta(f, root);
    else if (cm_str_eq(type, CM_S("message_field")))
        return on_field(f, root);
    else if (cm_str_eq(type, CM_S("message_start")))
        on_message_start(f, root);
    else if (cm_str_eq(type, CM_S("message_result")) && a->dialect == GENSPARK_COPILOT)
        return on_copilot_result(f, root);
    else if (cm_str_eq(type, CM_S("message_result")))
        on_agent_result(f, root);
    else if (cm_str_eq(type, CM_S("error")))
        return broken_off(f, root);
    else if (cm_str_eq(type, CM_S("project_field")) && a->dialect == GENSPARK_AGENT &&
             cm_str_eq(cm_json_str(cm_json_get(root, "field_name")), CM_S("status")) &&
             cm_str_eq(cm_json_str(cm_json_get(root, "field_value")), CM_S("FINISHED")))
        a->finished = true;
    else if (type.n == 0 && yyjson_get_sint(cm_json_get(root, "status")) == -5)
        return not_logged_in(f);
    return 0;
}

static int on_sse(void *arg, const struct cm_sse_event *ev)
{
    const struct feed *f = arg;
    struct genspark_answer *a = f->a;
    const struct cm_str data = cm_str_trim(ev->data);
    yyjson_doc *doc;
    int failed = 0;

    if (!ev->data.p || a->finished)
        return 0;
    if (cm_str_eq(data, CM_S("[DONE]"))) {
        a->finished = a->any;
        return 0;
    }
    doc = cm_json_parse(data, &cm_json_limits_event, NULL);
    if (!doc) {
        cm_run_odd(f->run, "an event that is no JSON", data);
        return 0;
    }
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        a->any = true;
        failed = on_event(f, yyjson_doc_get_root(doc));
    }
    yyjson_doc_free(doc);
    return failed;
}

int genspark_answer_feed(struct cm_run *run, struct genspark_answer *a, int status,
                         struct cm_str piece, struct cm_err *err)
{
    struct feed f = {run, a, err};

    if (!a->any)
        cm_buf_append(&a->raw, cm_str_head(piece, REFUSAL_MAX - a->raw.n));
    if (status != 200) {
        a->finished = a->raw.n == REFUSAL_MAX;
        return 0;
    }
    return cm_sse_feed(&a->sse, piece, on_sse, &f, err);
}

/* ---- The end ---- */

static int check(const struct feed *f, struct cm_err *err)
{
    struct genspark_answer *a = f->a;
    const struct cm_str text = cm_buf_str(&a->text);

    if (!a->open && a->dialect == GENSPARK_COPILOT && genspark_retired(text)) {
        a->retired = true;
        return cm_fail(err, CM_ERR_MODEL_UNAVAILABLE,
                       "genspark has retired the copilot dialect: set x.dialect = agent");
    }
    if (!a->open && genspark_canned(f->run, a->dialect, text, a->served.n > 0, err))
        return -1;
    if (a->media ? a->n_jobs == 0 : !a->said && cm_str_trim(text).n == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "genspark ended its answer without any %s",
                a->media ? "job" : "text");
        err->retry_after_s = genspark_cooldown_s(f->run, "failure_cooldown");
        return -1;
    }
    return 0;
}

int genspark_answer_end(struct cm_run *run, struct genspark_answer *a, int status,
                        int retry_after_s, struct cm_err *err)
{
    struct feed f = {run, a, err};

    if (!a->finished && cm_sse_end(&a->sse, on_sse, &f, err))
        return -1;
    if (!a->any) {
        genspark_refuse(run, status, retry_after_s, cm_buf_str(&a->raw), err);
        return -1;
    }
    if (!a->finished && !a->result && (a->said || a->text.n > 0))
        return cm_fail(err, CM_ERR_CUT, "genspark broke off its answer before the end");
    settle(&f);
    if (check(&f, err))
        return -1;
    release(&f);
    tell_citations(&f);
    return 0;
}
