/* openai: the request that goes up. In the relay lane it is the client's own bytes, with the model's name and a few members where the server differs. */
#include "openai_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/version.h"

/* ---- Options ---- */

static const struct {
    const char *name;
    enum cm_chat_task task;
} task_names[] = {
    {"chat", CM_TASK_CHAT},
    {"completions", CM_TASK_COMPLETION},
    {"embeddings", CM_TASK_EMBEDDING},
    {"moderations", CM_TASK_MODERATION},
    {"images", CM_TASK_IMAGE},
    {"image_edits", CM_TASK_IMAGE_EDIT},
    {"image_variations", CM_TASK_IMAGE_VARIATION},
    {"videos", CM_TASK_VIDEO},
    {"speech", CM_TASK_SPEECH},
    {"transcriptions", CM_TASK_TRANSCRIPTION},
    {"translations", CM_TASK_TRANSLATION},
    {"realtime", CM_TASK_REALTIME},
    {"pass", CM_TASK_PASS},
};

struct cm_str openai_next_word(struct cm_str *list)
{
    struct cm_str word = CM_STR_NONE;
    size_t n = 0;

    *list = cm_str_trim(*list);
    while (n < list->n && list->p[n] != ' ' && list->p[n] != ',')
        n++;
    word = cm_str_head(*list, n);
    *list = cm_str_from(*list, n + 1);
    return word;
}

static struct cm_str where_of(const struct cm_instance *in, const char *name)
{
    for (size_t i = 0; i < in->conf->n_options; i++)
        if (cm_str_eq(in->conf->options[i].key, cm_str_of(name)))
            return in->conf->options[i].where;
    return in->conf->where;
}

static void read_tasks(struct cm_instance *in, struct cm_problems *problems)
{
    struct cm_str list = cm_option_value(in, "tasks");
    unsigned tasks = 0;

    while (cm_str_trim(list).n > 0) {
        const struct cm_str word = openai_next_word(&list);
        size_t i = 0;

        if (word.n == 0)
            continue;
        while (i < CM_COUNT(task_names) && !cm_str_eq(word, cm_str_of(task_names[i].name)))
            i++;
        if (i < CM_COUNT(task_names))
            tasks |= 1u << task_names[i].task;
        else
            cm_problem_add(problems, where_of(in, "tasks"),
                           "provider." CM_PRI ".x.tasks: '" CM_PRI
                           "' is none of chat, completions, embeddings, moderations, images, "
                           "image_edits, image_variations, videos, speech, transcriptions, "
                           "translations, realtime, pass",
                           CM_ARG(in->name), CM_ARG(word));
    }
    if (tasks == 0)
        cm_problem_add(problems, where_of(in, "tasks"),
                       "provider." CM_PRI ".x.tasks: name at least one", CM_ARG(in->name));
    in->tasks = tasks;
}

#define DROPS_MAX 32

static void read_drops(struct cm_instance *in, struct openai_options *o)
{
    struct cm_str list = cm_option_value(in, "drop");

    o->drop = CM_ARENA_ARRAY(in->arena, struct cm_str, DROPS_MAX);
    while (cm_str_trim(list).n > 0 && o->n_drop < DROPS_MAX) {
        const struct cm_str word = openai_next_word(&list);

        if (word.n > 0)
            o->drop[o->n_drop++] = word;
    }
}

static enum openai_reasoning reasoning_of(struct cm_str word)
{
    static const struct cm_str words[] = {
        [OPENAI_REASONING_AUTO] = CM_S_INIT("auto"),
        [OPENAI_REASONING_EFFORT] = CM_S_INIT("reasoning_effort"),
        [OPENAI_REASONING_OBJECT] = CM_S_INIT("reasoning"),
        [OPENAI_REASONING_ENABLE] = CM_S_INIT("enable_thinking"),
        [OPENAI_REASONING_THINKING] = CM_S_INIT("thinking"),
        [OPENAI_REASONING_NONE] = CM_S_INIT("none"),
    };

    for (size_t i = 0; i < CM_COUNT(words); i++)
        if (cm_str_eq(words[i], word))
            return (enum openai_reasoning)i;
    return OPENAI_REASONING_AUTO;
}

static struct cm_str host_of(struct cm_str base_url)
{
    struct cm_str host = cm_str_from(base_url, cm_str_find(base_url, CM_S("://")) + 3);

    return cm_str_cut(&host, '/');
}

static bool is_official(struct cm_str base_url)
{
    const struct cm_str host = host_of(base_url);

    return cm_str_eq_nocase(host, CM_S("api.openai.com")) ||
           cm_str_ends(host, CM_S(".openai.azure.com"));
}

int openai_configure(struct cm_instance *in, struct cm_problems *problems)
{
    struct openai_options *o = CM_ARENA_NEW(in->arena, struct openai_options);
    const struct cm_str max = cm_option_value(in, "max_tokens"),
                        history = cm_option_value(in, "history_reasoning");

    o->stream_options = cm_option_bool(in, "stream_options");
    o->responses = cm_str_eq(cm_option_value(in, "responses"), CM_S("yes")) ||
                   (cm_str_eq(cm_option_value(in, "responses"), CM_S("auto")) &&
                    cm_str_eq_nocase(host_of(in->base_url), CM_S("api.openai.com")));
    o->deployments = cm_option_bool(in, "deployments");
    o->developer = cm_option_bool(in, "developer");
    o->short_ids = cm_option_bool(in, "short_ids");
    o->api_version = cm_option_value(in, "api_version");
    o->key_header = cm_option_value(in, "key_header");
    o->max_tokens = cm_str_eq(max, CM_S("max_tokens"))              ? OPENAI_MAX_TOKENS
                    : cm_str_eq(max, CM_S("max_completion_tokens")) ? OPENAI_MAX_COMPLETION_TOKENS
                                                                    : OPENAI_MAX_AS_SENT;
    o->history_reasoning = cm_str_eq(history, CM_S("drop"))   ? OPENAI_HISTORY_DROP
                           : cm_str_eq(history, CM_S("send")) ? OPENAI_HISTORY_SEND
                                                              : OPENAI_HISTORY_AS_SENT;
    o->reasoning = reasoning_of(cm_option_value(in, "reasoning"));
    o->reasoning_models = cm_option_value(in, "reasoning_models");
    o->efforts = cm_option_value(in, "efforts");
    o->top_k = cm_option_bool(in, "top_k");
    o->official = is_official(in->base_url);
    if (!cm_header_name_ok(o->key_header))
        cm_problem_add(problems, where_of(in, "key_header"),
                       "provider." CM_PRI ".x.key_header: this is no name of a header",
                       CM_ARG(in->name));
    o->realtime_url = cm_option_value(in, "realtime_url");
    if (o->realtime_url.n > 0 && !cm_str_starts(o->realtime_url, CM_S("ws://")) &&
        !cm_str_starts(o->realtime_url, CM_S("wss://")))
        cm_problem_add(problems, where_of(in, "realtime_url"),
                       "provider." CM_PRI ".x.realtime_url: must begin with wss:// or ws://",
                       CM_ARG(in->name));
    read_tasks(in, problems);
    if (o->responses)
        in->tasks |= CM_TASK_BIT(COUNT_TOKENS);
    read_drops(in, o);
    in->options = o;
    return 0;
}

const struct openai_options *openai_options_of(const struct cm_run *run)
{
    return cm_run_instance(run)->options;
}

/* ---- URL and headers ---- */

static const char *path_of(enum cm_chat_task task)
{
    switch (task) {
    case CM_TASK_CHAT:
        return "/chat/completions";
    case CM_TASK_COMPLETION:
        return "/completions";
    case CM_TASK_EMBEDDING:
        return "/embeddings";
    case CM_TASK_MODERATION:
        return "/moderations";
    case CM_TASK_IMAGE:
        return "/images/generations";
    case CM_TASK_IMAGE_EDIT:
        return "/images/edits";
    case CM_TASK_IMAGE_VARIATION:
        return "/images/variations";
    case CM_TASK_VIDEO:
        return "/videos/generations";
    case CM_TASK_SPEECH:
        return "/audio/speech";
    case CM_TASK_TRANSCRIPTION:
        return "/audio/transcriptions";
    case CM_TASK_TRANSLATION:
        return "/audio/translations";
    case CM_TASK_COUNT_TOKENS:
    case CM_TASK_REALTIME:
    case CM_TASK_PASS:
        break; /* never asked for by name */
    }
    return "/";
}

struct cm_str openai_url(struct cm_run *run, struct cm_str path, struct cm_str query)
{
    const struct openai_options *o = openai_options_of(run);
    const char *mark = query.n > 0 ? "&" : "?";

    if (o->api_version.n == 0)
        return query.n == 0 ? path
                            : cm_arena_printf(cm_run_arena(run), CM_PRI "?" CM_PRI, CM_ARG(path),
                                              CM_ARG(query));
    return cm_arena_printf(cm_run_arena(run), CM_PRI "%s" CM_PRI "%sapi-version=" CM_PRI,
                           CM_ARG(path), query.n > 0 ? "?" : "", CM_ARG(query), mark,
                           CM_ARG(o->api_version));
}

/* Azure has the model in the path. */
static struct cm_str task_url(struct cm_run *run, enum cm_chat_task task)
{
    struct cm_str path = cm_str_of(path_of(task));
    struct cm_buf name = {0};

    if (openai_options_of(run)->deployments) {
        cm_percent(&name, cm_run_target(run)->model);
        path = cm_arena_printf(cm_run_arena(run), "/deployments/" CM_PRI CM_PRI,
                               CM_ARG(cm_buf_str(&name)), CM_ARG(path));
        cm_buf_clear(&name);
    }
    return openai_url(run, path, CM_STR_NONE);
}

size_t openai_headers(struct cm_run *run, struct cm_header *headers, size_t n)
{
    const struct openai_options *o = openai_options_of(run);
    const struct cm_str secret = cm_run_cred(run)->secret;

    headers[n++] = (struct cm_header){CM_S("User-Agent"), CM_S("chatmux/" CM_VERSION)};
    if (secret.n == 0)
        return n; /* a local server that asks for no key */
    headers[n++] = (struct cm_header){
        o->key_header, cm_str_eq_nocase(o->key_header, CM_S("Authorization"))
                           ? cm_arena_join(cm_run_arena(run), CM_S("Bearer "), secret)
                           : secret};
    return n;
}

static struct cm_str accepted(const struct cm_chat *chat)
{
    if (chat->bytes || chat->form.boundary.n > 0)
        return CM_S("*/*");
    return chat->stream ? CM_S("text/event-stream") : CM_S("application/json");
}

/* ---- The body ---- */

static struct cm_str with_usage_asked(struct cm_run *run, const struct cm_chat *chat)
{
    struct cm_json_edit ask = {.key = CM_S("include_usage"), .value = CM_S("true")};
    struct cm_str given = cm_json_member(chat->raw, CM_S("stream_options"));
    struct cm_buf out = {0};

    if (cm_str_starts(given, CM_S("{")) && cm_json_splice(given, &ask, 1, &out, NULL) == 0)
        return cm_buf_settle(&out, cm_run_arena(run));
    cm_buf_clear(&out);
    return CM_S("{\"include_usage\":true}");
}

struct edits {
    struct cm_json_edit v[CM_JSON_EDITS_MAX];
    size_t n;
};

static void edit(struct edits *e, struct cm_str key, struct cm_str value)
{
    e->v[e->n++] = (struct cm_json_edit){key, value};
}

/* The output limit under the name that this server knows. */
static void edit_max_tokens(struct cm_run *run, const struct cm_chat *chat, struct edits *e)
{
    const struct cm_str names[] = {CM_S("max_tokens"), CM_S("max_completion_tokens")};
    const enum openai_max_tokens wanted = openai_options_of(run)->max_tokens;
    const size_t good = wanted == OPENAI_MAX_TOKENS ? 0 : 1;

    if (wanted == OPENAI_MAX_AS_SENT || chat->max_tokens < 0 ||
        cm_json_member(chat->raw, names[1 - good]).n == 0)
        return;
    edit(e, names[1 - good], CM_STR_NONE);
    edit(e, names[good], cm_arena_printf(cm_run_arena(run), "%lld", (long long)chat->max_tokens));
}

static void edits_of(struct cm_run *run, const struct cm_chat *chat, struct edits *e)
{
    const struct openai_options *o = openai_options_of(run);
    const struct cm_str model = cm_run_target(run)->model;
    struct cm_str messages;
    struct cm_buf name = {0};

    if (!cm_str_eq(model, chat->model)) {
        cm_json_put_str(&name, model);
        edit(e, CM_S("model"), cm_buf_settle(&name, cm_run_arena(run)));
    }
    if (chat->dialect == CM_DIALECT_OPENAI_CHAT &&
        (chat->task == CM_TASK_CHAT || chat->task == CM_TASK_COMPLETION)) {
        if (chat->stream && o->stream_options)
            edit(e, CM_S("stream_options"), with_usage_asked(run, chat));
        else if (chat->stream && chat->include_usage)
            edit(e, CM_S("stream_options"), CM_STR_NONE);
    }
    if (chat->dialect == CM_DIALECT_OPENAI_CHAT && chat->task == CM_TASK_CHAT) {
        edit_max_tokens(run, chat, e);
        if (openai_history(run, chat, &messages))
            edit(e, CM_S("messages"), messages);
    }
    for (size_t i = 0; i < o->n_drop; i++)
        edit(e, o->drop[i], CM_STR_NONE);
}

/* A field of a form in the place of another, or in front of all. */
static void splice_form(struct cm_run *run, const struct cm_chat *chat, struct cm_buf *out)
{
    const struct cm_form_place *f = &chat->form;
    const struct cm_str model = cm_run_target(run)->model;
    size_t at = f->begins;

    if (f->model.p)
        at = (size_t)(f->model.p - chat->raw.p);
    cm_buf_append(out, cm_str_head(chat->raw, at));
    if (!f->model.p) {
        cm_buf_printf(out, "--" CM_PRI "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n",
                      CM_ARG(f->boundary));
        cm_buf_append(out, model);
        cm_buf_append(out, CM_S("\r\n"));
    } else {
        cm_buf_append(out, model);
    }
    cm_buf_append(out, cm_str_from(chat->raw, at + f->model.n));
}

/* The client's own bytes where nothing has to change. A stream has its own copy, so that the connection may outlive the exchange and serve again; but
 * not of a form, which can be large. */
static int make_body(struct cm_run *run, const struct cm_chat *chat, struct openai *o,
                     struct cm_str *body, struct cm_err *err)
{
    struct edits e;

    *body = chat->raw;
    if (chat->task == CM_TASK_PASS)
        return 0;
    if (o->said) {
        if (chat->task == CM_TASK_EMBEDDING ? openai_write_embedding(run, o, err)
                                            : openai_write_chat(run, o, err))
            return -1;
        *body = cm_buf_str(&o->sent);
        return 0;
    }
    if (chat->form.boundary.n > 0) {
        if (cm_str_eq(cm_run_target(run)->model, chat->model))
            return 0;
        splice_form(run, chat, &o->sent);
    } else {
        e.n = 0;
        edits_of(run, chat, &e);
        if (e.n == 0 && !chat->stream)
            return 0;
        if (cm_json_splice(chat->raw, e.v, e.n, &o->sent, err))
            return -1;
    }
    *body = cm_buf_str(&o->sent);
    return 0;
}

static struct cm_str response_path(enum cm_chat_task task)
{
    return task == CM_TASK_COUNT_TOKENS ? CM_S("/responses/input_tokens") : CM_S("/responses");
}

static struct cm_str header_of(const struct cm_chat *chat, struct cm_str name)
{
    return cm_header_find(chat->headers, chat->n_headers, name);
}

enum cm_step openai_ask(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    static const struct cm_str spoken[] = {CM_S_INIT("OpenAI-Beta"), CM_S_INIT("Idempotency-Key")};
    const struct cm_chat *chat = cm_run_chat(run);
    const bool pass = chat->task == CM_TASK_PASS;
    struct cm_header headers[OPENAI_HEADERS_MAX];
    struct cm_call call = {.method = pass ? cm_arena_z(cm_run_arena(run), chat->method) : "POST",
                           .headers = headers,
                           .long_wait = !chat->stream || pass};
    struct cm_str type =
        chat->form.boundary.n > 0 || pass ? chat->content_type : CM_S("application/json");
    size_t n = 0;

    o->task = chat->task;
    o->stream = chat->stream;
    if (!cm_instance_relays(cm_run_instance(run), chat)) {
        openai_talk_begin(run, o);
        if (o->task == CM_TASK_COMPLETION) /* of a server that only chats */
            o->task = CM_TASK_CHAT;
    }
    o->response = !o->said && chat->dialect == CM_DIALECT_OPENAI_RESPONSES;
    o->want_usage_chunk = chat->include_usage;
    o->n_wanted = chat->n;
    if (make_body(run, chat, o, &call.body, err))
        return CM_STEP_FAIL;
    if (type.n > 0)
        headers[n++] = (struct cm_header){CM_S("Content-Type"), type};
    headers[n++] = (struct cm_header){CM_S("Accept"), accepted(chat)};
    for (size_t i = 0; i < (pass ? CM_COUNT(spoken) : 1); i++)
        if (header_of(chat, spoken[i]).n > 0)
            headers[n++] = (struct cm_header){spoken[i], header_of(chat, spoken[i])};
    call.n_headers = openai_headers(run, headers, n);
    call.url = pass          ? openai_url(run, chat->path, chat->query)
               : o->response ? openai_url(run, response_path(o->task), CM_STR_NONE)
                             : task_url(run, o->task);
    cm_sse_init(&o->sse, OPENAI_EVENT_MAX);
    return cm_run_stream(run, &call);
}
