/* openai, translate lane: an answer as canonical events, streamed or whole.
 *
 * Compatible servers differ in how they tell a tool call (no index, one index for all, no id, arguments as an object, all at once) and where reasoning
 * stands: what each says becomes a call with an ordinal of its own (OpenAI protocol notes, "Compatible servers"). A choice's finish is told at the very
 * end, behind the figures, which come last. */
#include "openai_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#define CALLS_MAX 256   /* of one choice */
#define SOURCES_MAX 200 /* addresses an answer rests on */

struct call {
    int64_t theirs;     /* their index; -1 = they tell none */
    struct cm_str id;   /* as they told it; "" = they told none */
    bool begun;         /* TOOL_CALL was emitted */
    struct cm_buf args; /* what came before its name */
};

struct choice {
    struct call *calls; /* in the run's arena, CALLS_MAX of them; NULL = none yet */
    size_t n_calls;
    enum cm_finish finish;
};

/* Names of tools as we sent them, where they are not the client's. */
struct renamed {
    struct cm_str sent, ours;
};

struct openai_said {
    struct choice choices[OPENAI_CHOICES_MAX];
    struct renamed *renamed;
    size_t n_renamed;
    bool logprobs; /* the client wants them */
    struct cm_usage usage;
    bool counted;
    struct cm_str *sources; /* of vendors that tell addresses beside the answer; in the arena */
    size_t n_sources;
};

static void free_calls(void *arg)
{
    struct openai_said *s = arg;

    for (size_t i = 0; i < OPENAI_CHOICES_MAX; i++)
        for (size_t k = 0; k < s->choices[i].n_calls; k++)
            cm_buf_clear(&s->choices[i].calls[k].args);
}

void openai_talk_begin(struct cm_run *run, struct openai *o)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_arena *arena = cm_run_arena(run);
    struct openai_said *s = CM_ARENA_NEW(arena, struct openai_said);

    s->logprobs = chat->logprobs;
    s->renamed = CM_ARENA_ARRAY(arena, struct renamed, chat->n_tools);
    for (size_t i = 0; i < chat->n_tools; i++) {
        const struct cm_str sent = openai_tool_name(arena, chat->tools[i].name);

        if (!cm_str_eq(sent, chat->tools[i].name))
            s->renamed[s->n_renamed++] =
                (struct renamed){sent, cm_arena_str(arena, chat->tools[i].name)};
    }
    cm_arena_defer(arena, free_calls, s);
    o->said = s;
}

/* ---- Tool calls ---- */

static struct cm_str our_name(const struct openai_said *s, struct cm_str name)
{
    for (size_t i = 0; i < s->n_renamed; i++)
        if (cm_str_eq(s->renamed[i].sent, name))
            return s->renamed[i].ours;
    return name;
}

static struct call *add_call(struct cm_run *run, struct choice *c, int64_t theirs)
{
    if (!c->calls)
        c->calls = CM_ARENA_ARRAY(cm_run_arena(run), struct call, CALLS_MAX);
    if (c->n_calls == CALLS_MAX)
        return NULL;
    c->calls[c->n_calls].theirs = theirs;
    return &c->calls[c->n_calls++];
}

static struct call *call_with_id(struct choice *c, struct cm_str id)
{
    for (size_t i = 0; i < c->n_calls; i++)
        if (cm_str_eq(c->calls[i].id, id))
            return &c->calls[i];
    return NULL;
}

static struct call *call_with_index(struct choice *c, int64_t theirs)
{
    for (size_t i = c->n_calls; i-- > 0;)
        if (c->calls[i].theirs == theirs)
            return &c->calls[i];
    return NULL;
}

/* The call that a piece belongs to: by its id, where that says something new a new one; by its index; else the latest. */
static struct call *call_of(struct cm_run *run, struct choice *c, yyjson_val *piece,
                            struct cm_str name)
{
    yyjson_val *index = cm_json_opt(piece, "index");
    const int64_t theirs = yyjson_is_uint(index) ? openai_count_of(piece, "index") : -1;
    const struct cm_str id = cm_json_str(cm_json_opt(piece, "id"));
    struct call *found = theirs >= 0 ? call_with_index(c, theirs) : NULL;

    if (!found && theirs < 0 && id.n > 0)
        found = call_with_id(c, id);
    else if (!found && theirs < 0 && name.n == 0 && c->n_calls > 0)
        found = &c->calls[c->n_calls - 1];
    /* servers that give every call the index 0 */
    if (found && found->begun && id.n > 0 && name.n > 0 && found->id.n > 0 &&
        !cm_str_eq(found->id, id))
        found = call_with_id(c, id);
    if (!found)
        found = add_call(run, c, theirs);
    if (found && found->id.n == 0)
        found->id = cm_arena_str(cm_run_arena(run), id);
    return found;
}

static void emit_args(struct cm_run *run, int choice, int index, struct cm_str text)
{
    struct cm_event ev = {
        .kind = CM_EVENT_TOOL_ARGS, .choice = choice, .index = index, .text = text};

    if (text.n > 0)
        cm_run_emit(run, &ev);
}

static void begin_call(struct cm_run *run, struct openai_said *s, int choice, int index,
                       struct call *call, struct cm_str name)
{
    struct cm_event ev = {
        .kind = CM_EVENT_TOOL_CALL, .choice = choice, .index = index, .name = our_name(s, name)};
    char made[CM_ID_CAP];

    if (call->id.n == 0) {
        cm_id_make(made, "call_", cm_run_unix_ms(run));
        call->id = cm_arena_str(cm_run_arena(run), cm_str_of(made));
    }
    ev.id = call->id;
    call->begun = true;
    cm_run_emit(run, &ev);
    emit_args(run, choice, index, cm_buf_str(&call->args));
    cm_buf_clear(&call->args);
}

/* {index?, id?, function: {name?, arguments?}}; arguments are a text, or the object itself. */
static void read_call(struct cm_run *run, struct openai_said *s, int choice, yyjson_val *piece)
{
    struct choice *c = &s->choices[choice];
    yyjson_val *function = cm_json_opt(piece, "function"),
               *given = cm_json_opt(function, "arguments");
    const struct cm_str name = cm_json_str(cm_json_opt(function, "name"));
    struct call *call = call_of(run, c, piece, name);
    struct cm_buf object = {0};
    struct cm_str args = cm_json_str(given);

    if (!call) {
        cm_run_odd(run, "more tool calls than a choice can have", name);
        return;
    }
    if (yyjson_is_obj(given)) {
        cm_json_put_val(&object, given);
        args = cm_buf_str(&object);
    }
    if (!call->begun && name.n > 0)
        begin_call(run, s, choice, (int)(call - c->calls), call, name);
    if (call->begun)
        emit_args(run, choice, (int)(call - c->calls), args);
    else
        cm_buf_append(&call->args, args);
    cm_buf_clear(&object);
}

/* ---- What a choice says ---- */

static void emit_text(struct cm_run *run, enum cm_event_kind kind, int choice, struct cm_str text)
{
    struct cm_event ev = {.kind = kind, .choice = choice, .text = text};

    if (text.n > 0)
        cm_run_emit(run, &ev);
}

/* With the probabilities of its tokens, which are in the choice, not in the delta. */
static void emit_content(struct cm_run *run, const struct openai_said *s, int choice,
                         struct cm_str text, yyjson_val *entry)
{
    yyjson_val *tokens = cm_json_get(cm_json_opt(entry, "logprobs"), "content");
    struct cm_event ev = {.kind = CM_EVENT_TEXT, .choice = choice, .text = text};
    struct cm_buf logprobs = {0};

    if (s->logprobs && yyjson_is_arr(tokens)) {
        cm_json_put_val(&logprobs, tokens);
        ev.logprobs = cm_buf_str(&logprobs);
    }
    if (text.n > 0 || logprobs.n > 0)
        cm_run_emit(run, &ev);
    cm_buf_clear(&logprobs);
}

/* Parts instead of a text: {type: text, text}, {type: thinking, thinking: [{text}] or a text}. */
static void read_parts(struct cm_run *run, int choice, yyjson_val *parts)
{
    size_t i, n, k, m;
    yyjson_val *part, *inner, *thinking;

    yyjson_arr_foreach(parts, i, n, part)
    {
        emit_text(run, CM_EVENT_TEXT, choice, cm_json_str(cm_json_opt(part, "text")));
        thinking = cm_json_opt(part, "thinking");
        emit_text(run, CM_EVENT_REASONING, choice, cm_json_str(thinking));
        yyjson_arr_foreach(thinking, k, m, inner)
            emit_text(run, CM_EVENT_REASONING, choice, cm_json_str(cm_json_opt(inner, "text")));
    }
}

static void read_reasoning(struct cm_run *run, int choice, yyjson_val *delta)
{
    static const char *const members[] = {"reasoning_content", "reasoning", "thinking"};

    for (size_t i = 0; i < CM_COUNT(members); i++) {
        const struct cm_str text = cm_json_str(cm_json_opt(delta, members[i]));

        emit_text(run, CM_EVENT_REASONING, choice, text);
        if (text.n > 0)
            return; /* servers that tell it twice */
    }
}

static void read_images(struct cm_run *run, int choice, yyjson_val *images)
{
    size_t i, n;
    yyjson_val *image;

    yyjson_arr_foreach(images, i, n, image)
    {
        yyjson_val *url = cm_json_get(cm_json_opt(image, "image_url"), "url");
        struct cm_event ev = {.kind = CM_EVENT_IMAGE, .choice = choice, .url = cm_json_str(url)};

        if (ev.url.n > 0)
            cm_run_emit(run, &ev);
    }
}

static void read_annotations(struct cm_run *run, int choice, yyjson_val *annotations)
{
    size_t i, n;
    yyjson_val *a;

    yyjson_arr_foreach(annotations, i, n, a)
    {
        yyjson_val *c = cm_json_opt(a, "url_citation");
        struct cm_event ev = {.kind = CM_EVENT_CITATION,
                              .choice = choice,
                              .url = cm_json_str(cm_json_opt(c, "url")),
                              .name = cm_json_str(cm_json_opt(c, "title")),
                              .text = cm_json_str(cm_json_opt(c, "content")),
                              .from = openai_count_of(c, "start_index"),
                              .to = openai_count_of(c, "end_index")};

        if (ev.url.n > 0)
            cm_run_emit(run, &ev);
    }
}

static enum cm_finish finish_of(struct cm_str word)
{
    static const struct {
        struct cm_str word;
        enum cm_finish finish;
    } words[] = {
        {CM_S_INIT("stop"), CM_FINISH_STOP},
        {CM_S_INIT("length"), CM_FINISH_LENGTH},
        {CM_S_INIT("max_tokens"), CM_FINISH_LENGTH},
        {CM_S_INIT("tool_calls"), CM_FINISH_TOOL_CALLS},
        {CM_S_INIT("function_call"), CM_FINISH_TOOL_CALLS},
        {CM_S_INIT("content_filter"), CM_FINISH_CONTENT_FILTER},
        {CM_S_INIT("sensitive"), CM_FINISH_CONTENT_FILTER},
    };

    for (size_t i = 0; i < CM_COUNT(words); i++)
        if (cm_str_eq(words[i].word, word))
            return words[i].finish;
    return CM_FINISH_STOP; /* words of a vendor's own */
}

/* One entry of `choices`; `said` is its delta, or its message. */
static void read_choice(struct cm_run *run, struct openai *o, yyjson_val *entry, yyjson_val *said)
{
    struct openai_said *s = o->said;
    const int64_t at = openai_count_of(entry, "index");
    yyjson_val *content = cm_json_opt(said, "content"), *call,
               *old = cm_json_opt(said, "function_call");
    const struct cm_str finish = cm_json_str(cm_json_opt(entry, "finish_reason"));
    const int choice = (int)at;
    size_t i, n;

    if (at >= o->n_wanted || at >= OPENAI_CHOICES_MAX)
        return; /* more than was asked for */
    read_reasoning(run, choice, said);
    if (yyjson_is_arr(content))
        read_parts(run, choice, content);
    else
        emit_content(run, s, choice, cm_json_str(content), entry);
    emit_text(run, CM_EVENT_REFUSAL, choice, cm_json_str(cm_json_opt(said, "refusal")));
    yyjson_arr_foreach(cm_json_opt(said, "tool_calls"), i, n, call) read_call(run, s, choice, call);
    if (yyjson_is_obj(old)) {
        struct call *c = s->choices[choice].n_calls > 0 ? &s->choices[choice].calls[0]
                                                        : add_call(run, &s->choices[choice], 0);

        if (!c->begun && cm_json_str(cm_json_opt(old, "name")).n > 0)
            begin_call(run, s, choice, 0, c, cm_json_str(cm_json_opt(old, "name")));
        if (c->begun)
            emit_args(run, choice, 0, cm_json_str(cm_json_opt(old, "arguments")));
    }
    read_images(run, choice, cm_json_opt(said, "images"));
    read_annotations(run, choice, cm_json_opt(said, "annotations"));
    if (finish.n > 0 && s->choices[choice].finish == CM_FINISH_NONE) {
        s->choices[choice].finish = finish_of(finish);
        o->n_finished++;
    }
}

/* Addresses in a list beside the choices, on every chunk: told once, at the end. */
static void read_sources(struct cm_run *run, struct openai_said *s, yyjson_val *list)
{
    struct cm_arena *arena = cm_run_arena(run);
    size_t i, n;
    yyjson_val *v;

    if (s->n_sources > 0 || yyjson_arr_size(list) == 0)
        return;
    s->sources = CM_ARENA_ARRAY(arena, struct cm_str, SOURCES_MAX);
    yyjson_arr_foreach(list, i, n, v)
    {
        if (yyjson_is_str(v) && s->n_sources < SOURCES_MAX)
            s->sources[s->n_sources++] = cm_arena_str(arena, cm_json_str(v));
    }
}

/* A chunk, or the whole answer: `member` is "delta" or "message". */
static void read_answer(struct cm_run *run, struct openai *o, yyjson_val *root, const char *member)
{
    struct openai_said *s = o->said;
    struct cm_str tier = cm_json_str(cm_json_opt(root, "service_tier"));
    struct cm_usage usage;
    size_t i, n;
    yyjson_val *entry;

    yyjson_arr_foreach(cm_json_opt(root, "choices"), i, n, entry)
        read_choice(run, o, entry, cm_json_opt(entry, member));
    read_sources(run, s, cm_json_opt(root, "citations"));
    if (openai_read_usage(cm_json_opt(root, "usage"), &usage)) {
        memcpy(usage.service_tier, s->usage.service_tier, sizeof(usage.service_tier));
        s->usage = usage;
        s->counted = true;
    }
    if (tier.n > 0)
        cm_str_copy(s->usage.service_tier, sizeof(s->usage.service_tier), tier);
}

/* Figures, sources, and the end of every choice. */
static enum cm_step tell_end(struct cm_run *run, struct openai *o)
{
    struct openai_said *s = o->said;

    for (size_t i = 0; i < s->n_sources; i++)
        cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_CITATION, .url = s->sources[i]});
    if (s->counted)
        cm_run_usage(run, &s->usage);
    for (int i = 0; i < o->n_wanted && i < OPENAI_CHOICES_MAX; i++) {
        const enum cm_finish f = s->choices[i].finish;
        struct cm_event ev = {.kind = CM_EVENT_FINISH,
                              .choice = i,
                              .finish = f == CM_FINISH_NONE ? CM_FINISH_STOP : f};

        cm_run_emit(run, &ev);
    }
    return CM_STEP_DONE;
}

/* ---- Streams ---- */

struct hearing {
    struct cm_run *run;
    struct openai *o;
    struct cm_err *err;
};

static int hear_event(void *arg, const struct cm_sse_event *ev)
{
    struct hearing *h = arg;
    struct cm_err why = {0};
    yyjson_val *root, *error;
    yyjson_doc *doc;

    if (h->o->done || cm_str_trim(ev->data).n == 0)
        return 0;
    if (cm_str_eq(cm_str_trim(ev->data), CM_S("[DONE]"))) {
        h->o->done = true;
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, &why);
    root = yyjson_doc_get_root(doc);
    error = openai_error_of(root);
    if (!doc)
        cm_fail(h->err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an event that cannot be read: %s",
                CM_ARG(cm_run_instance(h->run)->name), why.msg);
    else if (error)
        openai_refused(h->run, 0, h->o->retry_after_s, error, h->err);
    else
        read_answer(h->run, h->o, root, "delta");
    yyjson_doc_free(doc);
    return h->err->cls == CM_ERR_NONE ? 0 : -1;
}

static enum cm_step stream_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct hearing h = {run, o, err};

    if (cm_sse_end(&o->sse, hear_event, &h, err) < 0)
        return CM_STEP_FAIL;
    if (o->done || o->n_finished >= o->n_wanted)
        return tell_end(run, o);
    cm_fail(err, CM_ERR_CUT, CM_PRI " ended its stream before the answer was complete",
            CM_ARG(cm_run_instance(run)->name));
    return CM_STEP_FAIL;
}

/* ---- Whole answers ---- */

static int add_float(struct cm_buf *out, yyjson_val *v)
{
    const float f = (float)yyjson_get_num(v);

    if (!yyjson_is_num(v))
        return -1;
    cm_buf_append(out, cm_str((const char *)&f, sizeof(f)));
    return 0;
}

/* Numbers, or their bytes in base64 from a server that prefers them. */
static int read_vector(struct cm_run *run, yyjson_val *entry)
{
    yyjson_val *given = cm_json_opt(entry, "embedding"), *v;
    struct cm_event ev = {.kind = CM_EVENT_EMBEDDING,
                          .index = (int)openai_count_of(entry, "index")};
    struct cm_buf bytes = {0};
    int failed = 0;
    size_t i, n;

    if (yyjson_is_str(given))
        failed = cm_base64_decode(&bytes, cm_json_str(given));
    else if (!yyjson_is_arr(given))
        failed = -1;
    yyjson_arr_foreach(given, i, n, v) failed |= add_float(&bytes, v);
    if (failed || bytes.n == 0 || bytes.n % sizeof(float) != 0) {
        cm_buf_clear(&bytes);
        return -1;
    }
    ev.data = cm_buf_str(&bytes);
    cm_run_emit(run, &ev);
    cm_buf_clear(&bytes);
    return 0;
}

static enum cm_step read_vectors(struct cm_run *run, yyjson_val *root, struct cm_err *err)
{
    yyjson_val *data = cm_json_opt(root, "data"), *entry;
    struct cm_usage usage;
    size_t i, n;

    yyjson_arr_foreach(data, i, n, entry)
    {
        if (read_vector(run, entry) == 0)
            continue;
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent a vector that cannot be read",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    if (openai_read_usage(cm_json_opt(root, "usage"), &usage))
        cm_run_usage(run, &usage);
    cm_run_finish(run, CM_FINISH_STOP);
    return CM_STEP_DONE;
}

static enum cm_step whole_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct cm_err why = {0};
    yyjson_doc *doc = cm_json_parse(cm_buf_str(&o->body), &cm_json_limits_request, &why);
    yyjson_val *root = yyjson_doc_get_root(doc), *error = openai_error_of(root);
    enum cm_step step = CM_STEP_FAIL;

    if (!doc || !yyjson_is_obj(root)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer that cannot be read: %s",
                CM_ARG(cm_run_instance(run)->name), doc ? "it is no JSON object" : why.msg);
    } else if (error) {
        openai_refused(run, 0, o->retry_after_s, error, err);
    } else if (o->task == CM_TASK_EMBEDDING) {
        step = read_vectors(run, root, err);
    } else if (yyjson_arr_size(cm_json_opt(root, "choices")) == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer without choices",
                CM_ARG(cm_run_instance(run)->name));
    } else {
        read_answer(run, o, root, "message");
        step = tell_end(run, o);
    }
    yyjson_doc_free(doc);
    return step;
}

/* ---- The lane ---- */

enum cm_step openai_talk_data(struct cm_run *run, struct openai *o, struct cm_str piece,
                              struct cm_err *err)
{
    struct hearing h = {run, o, err};

    if (o->state == OPENAI_TALK) {
        if (cm_sse_feed(&o->sse, piece, hear_event, &h, err) < 0)
            return CM_STEP_FAIL;
        return o->done ? tell_end(run, o) : CM_STEP_WAIT;
    }
    cm_buf_append(&o->body, piece);
    if (!o->body.failed)
        return CM_STEP_WAIT;
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer larger than %d bytes",
            CM_ARG(cm_run_instance(run)->name), CM_ANSWER_MAX);
    return CM_STEP_FAIL;
}

enum cm_step openai_talk_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    return o->state == OPENAI_TALK ? stream_ended(run, o, err) : whole_ended(run, o, err);
}
