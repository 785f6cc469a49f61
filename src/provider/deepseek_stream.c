/* The answer as it comes: server-sent events whose data are patches of one message.
 *
 * A patch names a path, an operation and a value; what it does not name is as before. Three generations are read: fragments with a type each, the two
 * texts `content` and `thinking_content`, and deltas like OpenAI's. What went out is remembered by length and opening, because a snapshot may repeat it.
 * Wire facts: DeepSeek protocol notes, section 6. */
#include "deepseek_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stdio.h>

#define EVENT_MAX (4u * 1024 * 1024) /* a list of search results can be long */
#define PIECES_MAX 4096
#define RESULTS_MAX 1024

void deepseek_stream_init(struct deepseek_stream *s, struct cm_run *run, enum deepseek_marks marks)
{
    *s = (struct deepseek_stream){.run = run,
                                  .marks = marks,
                                  .text = {.kind = DEEPSEEK_TEXT},
                                  .thinking = {.kind = DEEPSEEK_THINK}};
    cm_sse_init(&s->sse, EVENT_MAX);
}

void deepseek_stream_clear(struct deepseek_stream *s)
{
    cm_sse_clear(&s->sse);
}

void deepseek_stream_again(struct deepseek_stream *s)
{
    cm_sse_clear(&s->sse);
    cm_sse_init(&s->sse, EVENT_MAX);
    s->path[0] = '\0';
    s->status = s->quasi_status = DEEPSEEK_WIP;
    s->auto_continue = s->finished = s->closed = false;
}

static struct cm_str path_of(const struct deepseek_stream *s)
{
    return cm_str_of(s->path);
}

/* ---- Text, and the citation marks in it ---- */

static void say(struct deepseek_stream *s, struct cm_str text)
{
    s->said |= text.n > 0;
    s->chars += (int64_t)cm_utf8_count(text);
    cm_run_text(s->run, text);
}

static struct deepseek_result *cited_as(struct deepseek_stream *s, int64_t number)
{
    bool numbered = false;

    for (size_t i = 0; i < s->n_results; i++) {
        if (s->results[i].cite == number)
            return &s->results[i];
        numbered |= s->results[i].cite > 0;
    }
    return !numbered && number >= 1 && (size_t)number <= s->n_results ? &s->results[number - 1]
                                                                      : NULL;
}

static void cite(struct deepseek_stream *s, int64_t number)
{
    struct deepseek_result *r = cited_as(s, number);
    struct cm_buf link = {0};
    int64_t from = s->chars;

    if (!r)
        return;
    r->cited = true;
    if (s->marks != DEEPSEEK_MARKS_LINKS)
        return;
    cm_buf_printf(&link, "[[%lld]](" CM_PRI ")", (long long)number, CM_ARG(r->url));
    say(s, cm_buf_str(&link));
    cm_buf_clear(&link);
    if (r->to == 0) {
        r->from = from;
        r->to = s->chars;
    }
}

static const struct cm_str mark_begins = CM_S_INIT("[citation:");

static bool may_be_mark(const struct deepseek_stream *s, char next)
{
    if (s->n_mark < mark_begins.n)
        return next == mark_begins.p[s->n_mark];
    return s->n_mark + 1 < sizeof(s->mark) &&
           ((next >= '0' && next <= '9') ||
            (s->n_mark > mark_begins.n && (next == ',' || next == ' ' || next == ']')));
}

static void release_mark(struct deepseek_stream *s)
{
    const size_t n = s->n_mark;

    s->n_mark = 0;
    say(s, cm_str(s->mark, n));
}

/* "[citation:3,5]" is whole. */
static void take_mark(struct deepseek_stream *s)
{
    struct cm_str rest = cm_str(s->mark + mark_begins.n, s->n_mark - mark_begins.n - 1);
    uint64_t number;

    if (s->marks == DEEPSEEK_MARKS_KEPT)
        release_mark(s);
    s->n_mark = 0;
    while (rest.n > 0) {
        if (cm_str_to_u64(cm_str_trim(cm_str_cut(&rest, ',')), 1000000, &number))
            cite(s, (int64_t)number);
    }
}

static void say_text(struct deepseek_stream *s, struct cm_str text)
{
    s->out_text += cm_estimate_tokens(text);
    while (text.n > 0) {
        if (s->n_mark == 0) {
            const size_t at = cm_str_find_char(text, mark_begins.p[0]);

            say(s, cm_str_head(text, at));
            text = cm_str_from(text, at);
            if (text.n == 0)
                return;
        }
        while (text.n > 0 && may_be_mark(s, text.p[0])) {
            s->mark[s->n_mark++] = text.p[0];
            text = cm_str_from(text, 1);
            if (s->mark[s->n_mark - 1] == ']') {
                take_mark(s);
                break;
            }
        }
        if (text.n > 0 && s->n_mark > 0)
            release_mark(s);
    }
}

static void say_piece(struct deepseek_stream *s, struct deepseek_piece *p, struct cm_str text)
{
    if (p->said < sizeof(p->opening)) {
        const struct cm_str head = cm_str_head(text, sizeof(p->opening) - p->said);

        if (head.n > 0)
            memcpy(p->opening + p->said, head.p, head.n);
    }
    p->said += text.n;
    switch (p->kind) {
    case DEEPSEEK_TEXT:
        say_text(s, text);
        break;
    case DEEPSEEK_THINK:
        s->out_reasoning += cm_estimate_tokens(text);
        s->said |= text.n > 0;
        cm_run_reasoning(s->run, text);
        break;
    case DEEPSEEK_OTHER:
        break;
    }
}

static bool continues(const struct deepseek_piece *p, struct cm_str whole)
{
    const size_t n = p->said < sizeof(p->opening) ? p->said : sizeof(p->opening);

    return whole.n >= p->said && (n == 0 || memcmp(whole.p, p->opening, n) == 0);
}

/* The piece as a whole: only what has not gone out yet is said. What contradicts it cannot be taken back. */
static void set_piece(struct deepseek_stream *s, struct deepseek_piece *p, struct cm_str whole)
{
    if (continues(p, whole))
        say_piece(s, p, cm_str_from(whole, p->said));
}

/* ---- Search results ---- */

static void add_result(struct deepseek_stream *s, yyjson_val *v)
{
    struct cm_arena *arena = cm_run_arena(s->run);
    const struct cm_str url = cm_json_str(cm_json_get(v, "url"));

    if (url.n == 0 || s->n_results >= RESULTS_MAX)
        return;
    if (s->n_results == s->cap_results) {
        struct deepseek_result *more;

        s->cap_results = s->cap_results ? 2 * s->cap_results : 16;
        more = CM_ARENA_ARRAY(arena, struct deepseek_result, s->cap_results);
        if (s->n_results > 0)
            memcpy(more, s->results, s->n_results * sizeof(*more));
        s->results = more;
    }
    s->results[s->n_results++] =
        (struct deepseek_result){.url = cm_arena_str(arena, url),
                                 .title = cm_arena_str(arena, cm_json_str(cm_json_get(v, "title"))),
                                 .cite = yyjson_get_sint(cm_json_get(v, "cite_index"))};
}

static void set_results(struct deepseek_stream *s, yyjson_val *list)
{
    yyjson_val *v;
    size_t i, max;

    if (!yyjson_is_arr(list) || yyjson_arr_size(list) == 0)
        return;
    s->newest = s->n_results;
    yyjson_arr_foreach(list, i, max, v) add_result(s, v);
}

/* "3/cite_index" below a list. */
static void set_in_results(struct deepseek_stream *s, struct cm_str below, yyjson_val *v)
{
    uint64_t index;

    if (!cm_str_to_u64(cm_str_cut(&below, '/'), RESULTS_MAX, &index) ||
        s->newest + index >= s->n_results)
        return;
    if (cm_str_eq(below, CM_S("cite_index")))
        s->results[s->newest + index].cite = yyjson_get_sint(v);
}

/* ---- Fragments ---- */

static enum deepseek_kind kind_of(struct cm_str type)
{
    if (cm_str_eq(type, CM_S("THINK")))
        return DEEPSEEK_THINK;
    /* The second is what the platform says itself instead of the model. */
    if (cm_str_eq(type, CM_S("RESPONSE")) || cm_str_eq(type, CM_S("TEMPLATE_RESPONSE")))
        return DEEPSEEK_TEXT;
    return DEEPSEEK_OTHER;
}

static struct deepseek_piece *add_piece(struct deepseek_stream *s)
{
    if (s->n_pieces == s->cap_pieces) {
        struct deepseek_piece *more;

        s->cap_pieces = s->cap_pieces ? 2 * s->cap_pieces : 8;
        more = CM_ARENA_ARRAY(cm_run_arena(s->run), struct deepseek_piece, s->cap_pieces);
        if (s->n_pieces > 0)
            memcpy(more, s->pieces, s->n_pieces * sizeof(*more));
        s->pieces = more;
    }
    return &s->pieces[s->n_pieces++];
}

static void add_fragment(struct deepseek_stream *s, yyjson_val *v)
{
    struct deepseek_piece *p;

    if (!yyjson_is_obj(v) || s->n_pieces >= PIECES_MAX)
        return;
    p = add_piece(s);
    *p = (struct deepseek_piece){.kind = kind_of(cm_json_str(cm_json_get(v, "type")))};
    set_piece(s, p, cm_json_str(cm_json_get(v, "content")));
    set_results(s, cm_json_opt(v, "results"));
}

static void add_fragments(struct deepseek_stream *s, yyjson_val *v)
{
    yyjson_val *one;
    size_t i, max;

    if (yyjson_is_obj(v)) {
        add_fragment(s, v);
        return;
    }
    yyjson_arr_foreach(v, i, max, one) add_fragment(s, one);
}

/* All fragments at once. Those that are known go on; in a continued stream the list may also begin anew. */
static void set_fragments(struct deepseek_stream *s, yyjson_val *list)
{
    const size_t known = s->n_pieces;
    yyjson_val *v;
    size_t i, max;

    yyjson_arr_foreach(list, i, max, v)
    {
        const enum deepseek_kind kind = kind_of(cm_json_str(cm_json_get(v, "type")));
        const struct cm_str content = cm_json_str(cm_json_get(v, "content"));

        if (i == 0 && known > 0 &&
            !(s->pieces[0].kind == kind && continues(&s->pieces[0], content)))
            s->n_pieces = 0;
        if (i >= s->n_pieces) {
            add_fragment(s, v);
        } else {
            s->pieces[i].kind = kind;
            set_piece(s, &s->pieces[i], content);
        }
    }
}

/* "-1" is the last one. NULL: there is none of that number. */
static struct deepseek_piece *piece_at(struct deepseek_stream *s, struct cm_str index)
{
    const bool from_end = cm_str_starts(index, CM_S("-"));
    uint64_t n;

    if (!cm_str_to_u64(from_end ? cm_str_from(index, 1) : index, PIECES_MAX, &n))
        return NULL;
    if (from_end)
        return n >= 1 && n <= s->n_pieces ? &s->pieces[s->n_pieces - n] : NULL;
    return n < s->n_pieces ? &s->pieces[n] : NULL;
}

/* ---- Patches ---- */

static bool status_of(struct cm_str word, enum deepseek_status *out)
{
#define X(name)                                                                                    \
    if (cm_str_eq(word, CM_S(#name))) {                                                            \
        *out = DEEPSEEK_##name;                                                                    \
        return true;                                                                               \
    }
    DEEPSEEK_STATUSES(X)
#undef X
    return false;
}

static void set_status(struct deepseek_stream *s, struct cm_str word)
{
    if (!status_of(word, &s->status))
        cm_run_odd(s->run, "an unknown status of the answer", word);
}

static void put_content(struct deepseek_stream *s, struct deepseek_piece *p, bool append,
                        struct cm_str text)
{
    if (!p)
        cm_run_odd(s->run, "text for a fragment that is not there", text);
    else if (append)
        say_piece(s, p, text);
    else
        set_piece(s, p, text);
}

static void patch(struct deepseek_stream *s, struct cm_str path, struct cm_str op, yyjson_val *v);

static void patch_batch(struct deepseek_stream *s, struct cm_str path, yyjson_val *list)
{
    char joined[DEEPSEEK_PATH_MAX];
    yyjson_val *one;
    size_t i, max;

    yyjson_arr_foreach(list, i, max, one)
    {
        const struct cm_str p = cm_json_str(cm_json_get(one, "p"));
        const int n = snprintf(joined, sizeof(joined), CM_PRI "%s" CM_PRI, CM_ARG(path),
                               path.n > 0 && p.n > 0 ? "/" : "", CM_ARG(p));

        if (n >= 0 && (size_t)n < sizeof(joined))
            patch(s, cm_str(joined, (size_t)n), cm_json_str(cm_json_get(one, "o")),
                  cm_json_get(one, "v"));
    }
}

/* Below "fragments/". */
static void patch_fragment(struct deepseek_stream *s, struct cm_str below, struct cm_str op,
                           yyjson_val *v)
{
    struct deepseek_piece *p = piece_at(s, cm_str_cut(&below, '/'));
    const struct cm_str member = cm_str_cut(&below, '/');

    if (cm_str_eq(member, CM_S("content")) && yyjson_is_str(v))
        put_content(s, p, !cm_str_eq(op, CM_S("SET")), cm_json_str(v));
    else if (cm_str_eq(member, CM_S("type")) && p && yyjson_is_str(v))
        p->kind = kind_of(cm_json_str(v));
    else if (cm_str_eq(member, CM_S("results")) && below.n == 0)
        set_results(s, v);
    else if (cm_str_eq(member, CM_S("results")))
        set_in_results(s, below, v);
}

static void patch_member(struct deepseek_stream *s, struct cm_str path, struct cm_str op,
                         yyjson_val *v)
{
    const bool set = cm_str_eq(op, CM_S("SET"));

    if (cm_str_eq(path, CM_S("fragments"))) {
        if (set)
            set_fragments(s, v);
        else
            add_fragments(s, v);
    } else if (cm_str_starts(path, CM_S("fragments/"))) {
        patch_fragment(s, cm_str_from(path, sizeof("fragments/") - 1), op, v);
    } else if (cm_str_eq(path, CM_S("content"))) {
        put_content(s, &s->text, !set, cm_json_str(v));
    } else if (cm_str_eq(path, CM_S("thinking_content"))) {
        put_content(s, &s->thinking, !set, cm_json_str(v));
    } else if (cm_str_eq(path, CM_S("search_results"))) {
        set_results(s, v);
    } else if (cm_str_starts(path, CM_S("search_results/"))) {
        set_in_results(s, cm_str_from(path, sizeof("search_results/") - 1), v);
    } else if (cm_str_eq(path, CM_S("status"))) {
        set_status(s, cm_json_str(v));
    } else if (cm_str_eq(path, CM_S("quasi_status"))) {
        status_of(cm_json_str(v), &s->quasi_status);
    } else if (cm_str_eq(path, CM_S("auto_continue"))) {
        s->auto_continue = yyjson_is_true(v);
    } else if (cm_str_eq(path, CM_S("message_id"))) {
        s->message_id = yyjson_get_sint(v);
    } else if (cm_str_eq(path, CM_S("accumulated_token_usage"))) {
        if (yyjson_get_sint(v) > 0)
            s->tokens = yyjson_get_sint(v);
    }
}

/* The message as far as it is. */
static void take_snapshot(struct deepseek_stream *s, yyjson_val *message)
{
    static const char *const members[] = {"message_id", "auto_continue", "accumulated_token_usage",
                                          "quasi_status", "search_results"};
    yyjson_val *v;

    for (size_t i = 0; i < CM_COUNT(members); i++) {
        if ((v = cm_json_opt(message, members[i])))
            patch_member(s, cm_str_of(members[i]), CM_S("SET"), v);
    }
    if ((v = cm_json_opt(message, "fragments")))
        set_fragments(s, v);
    if ((v = cm_json_opt(message, "thinking_content")))
        set_piece(s, &s->thinking, cm_json_str(v));
    if ((v = cm_json_opt(message, "content")))
        set_piece(s, &s->text, cm_json_str(v));
    if ((v = cm_json_opt(message, "status")))
        set_status(s, cm_json_str(v));
}

static bool is_batch(struct cm_str op, yyjson_val *v)
{
    return yyjson_is_arr(v) && (cm_str_eq(op, CM_S("BATCH")) ||
                                (op.n == 0 && cm_json_get(yyjson_arr_get_first(v), "p")));
}

static void patch(struct deepseek_stream *s, struct cm_str path, struct cm_str op, yyjson_val *v)
{
    if (cm_str_starts(path, CM_S("/")))
        path = cm_str_from(path, 1);
    if (is_batch(op, v)) {
        patch_batch(s, path, v);
        return;
    }
    if (cm_str_starts(path, CM_S("response/")))
        path = cm_str_from(path, sizeof("response/") - 1);
    else if (path.n == 0 || cm_str_eq(path, CM_S("response")))
        path = CM_STR_NONE;
    if (path.n > 0)
        patch_member(s, path, op, v);
    else if (yyjson_is_obj(v))
        take_snapshot(s, v);
}

/* Text without a path goes on with what was named last; when that is no text, with the newest fragment. */
static void put_bare_text(struct deepseek_stream *s, yyjson_val *v)
{
    const struct cm_str path = path_of(s);
    enum deepseek_status status;

    if (cm_str_ends(path, CM_S("content")))
        patch(s, path, CM_S("APPEND"), v);
    else if (cm_str_ends(path, CM_S("status")) && status_of(cm_json_str(v), &status))
        patch(s, path, CM_S("SET"), v);
    else
        say_piece(s, s->n_pieces > 0 ? &s->pieces[s->n_pieces - 1] : &s->text, cm_json_str(v));
}

static void on_patch(struct deepseek_stream *s, yyjson_val *root, yyjson_val *v)
{
    yyjson_val *p = cm_json_opt(root, "p");
    const struct cm_str op = cm_json_str(cm_json_opt(root, "o"));

    if (p) {
        /* one that does not fit is not one of ours */
        s->path[0] = '\0';
        if (cm_json_str(p).n < sizeof(s->path))
            cm_str_copy(s->path, sizeof(s->path), cm_json_str(p));
        patch(s, cm_json_str(p), op, v);
    } else if (cm_json_opt(v, "response")) {
        take_snapshot(s, cm_json_opt(v, "response"));
    } else if (yyjson_is_obj(v)) {
        take_snapshot(s, v);
    } else if (yyjson_is_str(v) && op.n == 0) {
        put_bare_text(s, v);
    } else {
        patch(s, path_of(s), op, v);
    }
}

/* ---- Events ---- */

struct feed {
    struct deepseek_stream *s;
    struct cm_err *err;
};

/* The generation before the patches: {"choices":[{"delta":{"type":"thinking"|"text"|"search_result","content":…},"finish_reason":…}]} */
static void on_choices(struct deepseek_stream *s, yyjson_val *choices)
{
    yyjson_val *choice = yyjson_arr_get_first(choices), *delta = cm_json_opt(choice, "delta");
    const struct cm_str type = cm_json_str(cm_json_get(delta, "type"));
    const struct cm_str reason = cm_json_str(cm_json_opt(choice, "finish_reason"));
    yyjson_val *content = cm_json_opt(delta, "content");

    if (cm_str_eq(type, CM_S("thinking")))
        say_piece(s, &s->thinking, cm_json_str(content));
    else if (yyjson_is_arr(content))
        set_results(s, content);
    else if (type.n == 0 || cm_str_eq(type, CM_S("text")))
        say_piece(s, &s->text, cm_json_str(content));
    if (cm_str_eq(reason, CM_S("content_filter")))
        s->status = DEEPSEEK_CONTENT_FILTER;
    else if (cm_str_eq(reason, CM_S("length")))
        s->status = DEEPSEEK_INCOMPLETE;
    else if (reason.n > 0)
        s->status = DEEPSEEK_FINISHED;
}

/* "hint" and "toast": words for the person in front of the page; of type "error", or named so, instead of an answer. */
static int on_hint(const struct feed *f, struct cm_str name, yyjson_val *root)
{
    const struct cm_str reason = cm_json_str(cm_json_get(root, "finish_reason"));
    const struct cm_str text = cm_json_str(cm_json_get(root, "content"));
    enum cm_err_class cls;
    int rest_s = 0;

    if (!cm_str_eq(name, CM_S("error")) &&
        !cm_str_eq(cm_json_str(cm_json_get(root, "type")), CM_S("error")))
        return 0;
    cls = deepseek_words_class(reason, text, &rest_s);
    if (cls == CM_ERR_NONE) /* protocol notes: UNKNOWN what else there is */
        cls = CM_ERR_UPSTREAM_DOWN;
    cm_fail(f->err, cls, "deepseek broke off its answer: %s (" CM_PRI ")", cm_err_info(cls)->name,
            CM_ARG(cm_utf8_head(reason, 60)));
    f->err->retry_after_s = rest_s;
    return -1;
}

/* A refusal where patches should be. */
static int on_refusal(const struct feed *f, struct cm_str data)
{
    struct deepseek_reply reply;

    deepseek_reply_read(f->s->run, 200, NULL, 0, data, &reply);
    if (reply.cls != CM_ERR_NONE) {
        f->s->bad_proof = reply.bad_proof;
        f->s->bad_session = reply.bad_session;
        deepseek_refuse(&reply, "the question", f->err);
    }
    yyjson_doc_free(reply.doc);
    return reply.cls != CM_ERR_NONE ? -1 : 0;
}

static int on_data(const struct feed *f, const struct cm_sse_event *ev, yyjson_val *root)
{
    struct deepseek_stream *s = f->s;
    yyjson_val *v = cm_json_get(root, "v"), *message;

    if (cm_str_eq(ev->event, CM_S("hint")) || cm_str_eq(ev->event, CM_S("toast")) ||
        cm_str_eq(ev->event, CM_S("error")))
        return on_hint(f, ev->event, root);
    if (cm_str_eq(ev->event, CM_S("title")) || cm_str_eq(ev->event, CM_S("update_session")))
        return 0;
    if (cm_str_eq(ev->event, CM_S("finish")))
        s->finished = true;
    if (cm_str_eq(ev->event, CM_S("close")))
        s->closed = true;
    if ((message = cm_json_opt(root, "response_message_id")))
        s->message_id = yyjson_get_sint(message);
    if (ev->event.n > 0 && !cm_str_eq(ev->event, CM_S("delta")) &&
        !cm_str_eq(ev->event, CM_S("message")))
        return 0;
    if (v) {
        on_patch(s, root, v);
    } else if (cm_json_get(root, "choices")) {
        if ((message = cm_json_opt(root, "message_id")))
            s->message_id = yyjson_get_sint(message);
        on_choices(s, cm_json_get(root, "choices"));
    } else if (cm_json_get(root, "code") || cm_json_get(root, "data")) {
        return on_refusal(f, ev->data);
    }
    return 0;
}

static int on_event(void *arg, const struct cm_sse_event *ev)
{
    const struct feed *f = arg;
    yyjson_doc *doc;
    int failed;

    if (!ev->data.p)
        return 0;
    if (cm_str_eq(cm_str_trim(ev->data), CM_S("[DONE]"))) {
        f->s->finished = true;
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    if (!doc) {
        cm_run_odd(f->s->run, "an event that is no JSON", ev->data);
        return 0;
    }
    failed = on_data(f, ev, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    return failed;
}

int deepseek_stream_feed(struct deepseek_stream *s, struct cm_str bytes, struct cm_err *err)
{
    struct feed feed = {s, err};

    return cm_sse_feed(&s->sse, bytes, on_event, &feed, err);
}

int deepseek_stream_end(struct deepseek_stream *s, struct cm_err *err)
{
    struct feed feed = {s, err};

    return cm_sse_end(&s->sse, on_event, &feed, err);
}

void deepseek_stream_flush(struct deepseek_stream *s)
{
    bool numbered = false;

    if (s->n_mark > 0)
        release_mark(s);
    for (size_t i = 0; i < s->n_results; i++)
        numbered |= s->results[i].cited || s->results[i].cite > 0;
    for (size_t i = 0; i < s->n_results; i++) {
        const struct deepseek_result *r = &s->results[i];

        if (!numbered || r->cited || r->cite > 0)
            cm_run_emit(s->run, &(struct cm_event){.kind = CM_EVENT_CITATION,
                                                   .url = r->url,
                                                   .name = r->title,
                                                   .from = r->from,
                                                   .to = r->to});
    }
}
