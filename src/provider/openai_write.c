/* openai, translate lane: a request of another dialect as the body of a chat completion (protocol notes of Anthropic, section 7, and of Gemini, section 6).
 *
 * What the dialect has no place for is told as dropped, or refused where the answer would be another. Servers differ in what they take: x.drop, x.reasoning,
 * x.max_tokens and x.reasoning_models say how. */
#include "openai_int.h"

#include "chatmux/base/mem.h"

#include <math.h>

struct writer {
    struct cm_run *run;
    const struct cm_chat *chat;
    const struct openai_options *o;
    struct cm_buf *out;
    struct cm_err *err;
    struct cm_arena *arena;
    bool thinks; /* a model that reasons: it refuses sampling */
    bool any;    /* an item stands in the list that is being written */
    struct cm_buf
        late; /* pictures out of tool results: content parts for the next message of the user */
};

static void put(struct writer *w, const char *text)
{
    cm_buf_append(w->out, cm_str_of(text));
}

static void put_comma(struct writer *w)
{
    if (w->any)
        cm_buf_put(w->out, ',');
    w->any = true;
}

static bool is_dropped(const struct writer *w, struct cm_str name)
{
    for (size_t i = 0; i < w->o->n_drop; i++)
        if (cm_str_eq(w->o->drop[i], name))
            return true;
    return false;
}

/* Begins a member behind others, unless this server refuses it: then the client hears of it. */
static bool member(struct writer *w, const char *name)
{
    if (is_dropped(w, cm_str_of(name))) {
        cm_run_dropped(w->run, name);
        return false;
    }
    put(w, ",\"");
    put(w, name);
    put(w, "\":");
    return true;
}

static int refuse(struct writer *w, const char *what)
{
    cm_fail_param(w->err, CM_ERR_BAD_REQUEST, "messages",
                  "the provider of this model (" CM_PRI ") does not take %s",
                  CM_ARG(cm_run_instance(w->run)->name), what);
    cm_str_copy(w->err->code, sizeof(w->err->code), CM_S("unsupported_content"));
    return -1;
}

/* ---- Content ---- */

static void put_data_url(struct cm_buf *out, struct cm_str media_type, struct cm_str data)
{
    struct cm_buf url = {0};

    if (cm_str_eq_nocase(media_type, CM_S("image/jpg")))
        media_type = CM_S("image/jpeg");
    cm_buf_append(&url, CM_S("data:"));
    cm_buf_append(&url, media_type);
    cm_buf_append(&url, CM_S(";base64,"));
    cm_buf_append(&url, data);
    cm_json_put_str(out, cm_buf_str(&url));
    cm_buf_clear(&url);
}

static int put_image(struct writer *w, const struct cm_part *p, struct cm_buf *out)
{
    if (p->url.n == 0 && p->data.n == 0)
        return refuse(w, "pictures that only another platform can find");
    cm_buf_append(out, CM_S("{\"type\":\"image_url\",\"image_url\":{\"url\":"));
    if (p->data.n > 0)
        put_data_url(out, p->media_type.n > 0 ? p->media_type : CM_S("image/png"), p->data);
    else
        cm_json_put_str(out, p->url);
    if (p->detail.n > 0) {
        cm_buf_append(out, CM_S(",\"detail\":"));
        cm_json_put_str(out, p->detail);
    }
    cm_buf_append(out, CM_S("}}"));
    return 0;
}

static int put_audio(struct writer *w, const struct cm_part *p, struct cm_buf *out)
{
    static const struct {
        struct cm_str type, format;
    } formats[] = {
        {CM_S_INIT("wav"), CM_S_INIT("wav")},        {CM_S_INIT("mp3"), CM_S_INIT("mp3")},
        {CM_S_INIT("audio/wav"), CM_S_INIT("wav")},  {CM_S_INIT("audio/x-wav"), CM_S_INIT("wav")},
        {CM_S_INIT("audio/wave"), CM_S_INIT("wav")}, {CM_S_INIT("audio/mp3"), CM_S_INIT("mp3")},
        {CM_S_INIT("audio/mpeg"), CM_S_INIT("mp3")},
    };

    for (size_t i = 0; i < CM_COUNT(formats) && p->data.n > 0; i++) {
        if (!cm_str_eq_nocase(p->media_type, formats[i].type))
            continue;
        cm_buf_append(out, CM_S("{\"type\":\"input_audio\",\"input_audio\":{\"data\":"));
        cm_json_put_str(out, p->data);
        cm_buf_append(out, CM_S(",\"format\":"));
        cm_json_put_str(out, formats[i].format);
        cm_buf_append(out, CM_S("}}"));
        return 0;
    }
    return refuse(w, "sound in this form: send wav or mp3 with the request");
}

static int put_file(struct writer *w, const struct cm_part *p, struct cm_buf *out)
{
    if (p->data.n == 0 && p->id.n == 0)
        return refuse(w, "files by their address: send them with the request");
    cm_buf_append(out, CM_S("{\"type\":\"file\",\"file\":{"));
    if (p->data.n > 0) {
        cm_buf_append(out, CM_S("\"filename\":"));
        cm_json_put_str(out, p->name.n > 0 ? p->name : CM_S("document.pdf"));
        cm_buf_append(out, CM_S(",\"file_data\":"));
        put_data_url(out, p->media_type.n > 0 ? p->media_type : CM_S("application/pdf"), p->data);
    } else {
        cm_buf_append(out, CM_S("\"file_id\":"));
        cm_json_put_str(out, p->id);
    }
    cm_buf_append(out, CM_S("}}"));
    return 0;
}

static void put_text_part(struct cm_str text, struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"type\":\"text\",\"text\":"));
    cm_json_put_str(out, text);
    cm_buf_put(out, '}');
}

/* One part of a user's message; nothing of kinds that have no place there. */
static int put_part(struct writer *w, const struct cm_part *p, struct cm_buf *out)
{
    if (out->n > 0 && (p->kind == CM_PART_TEXT || p->kind == CM_PART_IMAGE ||
                       p->kind == CM_PART_AUDIO || p->kind == CM_PART_FILE))
        cm_buf_put(out, ',');
    switch (p->kind) {
    case CM_PART_TEXT:
        put_text_part(p->text, out);
        return 0;
    case CM_PART_IMAGE:
        return put_image(w, p, out);
    case CM_PART_AUDIO:
        return put_audio(w, p, out);
    case CM_PART_FILE:
        return put_file(w, p, out);
    case CM_PART_REFUSAL:
    case CM_PART_REASONING:
    case CM_PART_TOOL_CALL:
    case CM_PART_TOOL_RESULT:
        break;
    }
    return 0;
}

static bool only_text(const struct cm_msg *msg)
{
    size_t n = 0;

    for (size_t i = 0; i < msg->n_parts; i++) {
        if (msg->parts[i].kind == CM_PART_TEXT)
            n++;
        else if (msg->parts[i].kind != CM_PART_TOOL_RESULT)
            return false;
    }
    return n == 1;
}

/* Texts with a blank line between. */
static void join(struct cm_buf *out, struct cm_str text)
{
    if (text.n == 0)
        return;
    if (out->n > 0)
        cm_buf_append(out, CM_S("\n\n"));
    cm_buf_append(out, text);
}

static void join_kind(const struct cm_msg *msg, enum cm_part_kind kind, struct cm_buf *out)
{
    for (size_t i = 0; i < msg->n_parts; i++)
        if (msg->parts[i].kind == kind)
            join(out, msg->parts[i].text);
}

/* ---- Messages ---- */

/* Pictures of tool results that no message of the user followed. */
static void flush_late(struct writer *w)
{
    if (w->late.n == 0)
        return;
    put_comma(w);
    put(w, "{\"role\":\"user\",\"content\":[");
    cm_buf_append(w->out, cm_buf_str(&w->late));
    put(w, "]}");
    cm_buf_reset(&w->late);
}

static int put_user(struct writer *w, const struct cm_msg *msg)
{
    struct cm_buf parts = {0};
    int failed = 0;

    cm_buf_append(&parts, cm_buf_str(&w->late));
    for (size_t i = 0; i < msg->n_parts && !failed; i++)
        failed = put_part(w, &msg->parts[i], &parts);
    if (!failed && parts.n > 0) {
        put_comma(w);
        put(w, "{\"role\":\"user\",\"content\":");
        if (w->late.n == 0 && only_text(msg)) {
            cm_json_put_str(w->out, cm_msg_text(w->arena, msg));
        } else {
            put(w, "[");
            cm_buf_append(w->out, cm_buf_str(&parts));
            put(w, "]");
        }
        if (msg->name.n > 0) {
            put(w, ",\"name\":");
            cm_json_put_str(w->out, msg->name);
        }
        put(w, "}");
        cm_buf_reset(&w->late);
    }
    cm_buf_clear(&parts);
    return failed;
}

static int put_result(struct writer *w, const struct cm_part *result)
{
    struct cm_buf text = {0};
    int failed = 0;

    if (result->failed)
        cm_buf_append(&text, CM_S("Error: "));
    cm_buf_append(&text, result->text);
    put_comma(w);
    put(w, "{\"role\":\"tool\",\"tool_call_id\":");
    cm_json_put_str(w->out, openai_short_id(w->arena, result->id));
    put(w, ",\"content\":");
    cm_json_put_str(w->out, cm_buf_str(&text));
    put(w, "}");
    cm_buf_clear(&text);
    for (size_t i = 0; i < result->n_parts && !failed; i++)
        if (result->parts[i].kind != CM_PART_TEXT)
            failed = put_part(w, &result->parts[i], &w->late);
    return failed;
}

static void put_call(struct writer *w, const struct cm_part *call)
{
    put_comma(w);
    put(w, "{\"id\":");
    cm_json_put_str(w->out, openai_short_id(w->arena, call->id));
    put(w, ",\"type\":\"function\",\"function\":{\"name\":");
    cm_json_put_str(w->out, openai_tool_name(w->arena, call->name));
    put(w, ",\"arguments\":");
    cm_json_put_str(w->out, call->text.n > 0 ? call->text : CM_S("{}"));
    put(w, "}}");
}

static void put_calls(struct writer *w, const struct cm_msg *msg)
{
    put(w, ",\"tool_calls\":[");
    w->any = false;
    for (size_t i = 0; i < msg->n_parts; i++)
        if (msg->parts[i].kind == CM_PART_TOOL_CALL)
            put_call(w, &msg->parts[i]);
    put(w, "]");
    w->any = true;
}

static size_t count(const struct cm_msg *msg, enum cm_part_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < msg->n_parts; i++)
        n += msg->parts[i].kind == kind;
    return n;
}

static void put_member_text(struct writer *w, const char *name, const struct cm_buf *text)
{
    if (text->n == 0)
        return;
    put(w, name);
    cm_json_put_str(w->out, cm_buf_str(text));
}

static void put_assistant(struct writer *w, const struct cm_msg *msg)
{
    const size_t calls = count(msg, CM_PART_TOOL_CALL);
    struct cm_buf text = {0}, refusal = {0}, reasoning = {0};

    join_kind(msg, CM_PART_TEXT, &text);
    join_kind(msg, CM_PART_REFUSAL, &refusal);
    if (w->o->history_reasoning == OPENAI_HISTORY_SEND)
        join_kind(msg, CM_PART_REASONING, &reasoning);
    if (text.n + refusal.n + reasoning.n + calls > 0) {
        put_comma(w);
        put(w, "{\"role\":\"assistant\",\"content\":");
        if (text.n > 0)
            cm_json_put_str(w->out, cm_buf_str(&text));
        else
            put(w, calls + refusal.n > 0 ? "null" : "\"\"");
        put_member_text(w, ",\"refusal\":", &refusal);
        put_member_text(w, ",\"reasoning_content\":", &reasoning);
        if (calls > 0)
            put_calls(w, msg);
        put(w, "}");
    }
    cm_buf_clear(&text);
    cm_buf_clear(&refusal);
    cm_buf_clear(&reasoning);
}

static void put_system(struct writer *w, struct cm_str text)
{
    if (text.n == 0)
        return;
    put_comma(w);
    put(w, "{\"role\":\"system\",\"content\":");
    cm_json_put_str(w->out, text);
    put(w, "}");
}

/* Somebody must have said the word, or the server refuses json_object. */
static bool mentions_json(const struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            const struct cm_str text = chat->msgs[i].parts[k].text;

            for (size_t at = 0; at + 4 <= text.n; at++)
                if (cm_str_eq_nocase(cm_str(text.p + at, 4), CM_S("json")))
                    return true;
        }
    }
    return false;
}

/* The system texts in front of the conversation are one message. */
static size_t put_first_system(struct writer *w)
{
    const struct cm_chat *chat = w->chat;
    struct cm_buf text = {0};
    size_t n = 0;

    while (n < chat->n_msgs &&
           (chat->msgs[n].role == CM_ROLE_SYSTEM || chat->msgs[n].role == CM_ROLE_DEVELOPER))
        join_kind(&chat->msgs[n++], CM_PART_TEXT, &text);
    if (chat->format == CM_FORMAT_JSON && !mentions_json(chat))
        join(&text, CM_S("Answer with JSON."));
    put_system(w, cm_buf_str(&text));
    cm_buf_clear(&text);
    return n;
}

static int put_message(struct writer *w, const struct cm_msg *msg)
{
    struct cm_buf text = {0};
    int failed = 0;

    for (size_t i = 0; i < msg->n_parts && !failed; i++)
        if (msg->parts[i].kind == CM_PART_TOOL_RESULT)
            failed = put_result(w, &msg->parts[i]);
    if (failed)
        return -1;
    switch (msg->role) {
    case CM_ROLE_SYSTEM:
    case CM_ROLE_DEVELOPER:
        flush_late(w);
        join_kind(msg, CM_PART_TEXT, &text);
        put_system(w, cm_buf_str(&text));
        cm_buf_clear(&text);
        return 0;
    case CM_ROLE_ASSISTANT:
        flush_late(w);
        put_assistant(w, msg);
        return 0;
    case CM_ROLE_TOOL:
        return count(msg, CM_PART_TOOL_RESULT) == msg->n_parts ? 0 : put_user(w, msg);
    case CM_ROLE_USER:
        return put_user(w, msg);
    }
    return 0;
}

static int put_messages(struct writer *w)
{
    size_t i;

    put(w, ",\"messages\":[");
    w->any = false;
    for (i = put_first_system(w); i < w->chat->n_msgs; i++)
        if (put_message(w, &w->chat->msgs[i]))
            return -1;
    flush_late(w);
    if (!w->any) /* a list may not be empty */
        put(w, "{\"role\":\"user\",\"content\":\"\"}");
    put(w, "]");
    return 0;
}

/* ---- Tools ---- */

static void put_tool(struct writer *w, const struct cm_tool *tool)
{
    put_comma(w);
    put(w, "{\"type\":\"function\",\"function\":{\"name\":");
    cm_json_put_str(w->out, openai_tool_name(w->arena, tool->name));
    if (tool->description.n > 0) {
        put(w, ",\"description\":");
        cm_json_put_str(w->out, tool->description);
    }
    put(w, ",\"parameters\":");
    cm_buf_append(w->out, tool->parameters.n > 0 ? tool->parameters
                                                 : CM_S("{\"type\":\"object\",\"properties\":{}}"));
    if (tool->strict == 1) {
        if (!is_dropped(w, CM_S("strict")) && openai_strict_schema(tool->parameters))
            put(w, ",\"strict\":true");
        else
            cm_run_dropped(w->run, "strict");
    }
    put(w, "}}");
}

static void put_choice(struct writer *w)
{
    static const char *const words[] = {[CM_TOOLS_AUTO] = "\"auto\"",
                                        [CM_TOOLS_NONE] = "\"none\"",
                                        [CM_TOOLS_REQUIRED] = "\"required\""};

    if (w->chat->tool_choice == CM_TOOLS_UNSET || !member(w, "tool_choice"))
        return;
    if (w->chat->tool_choice != CM_TOOLS_NAMED) {
        put(w, words[w->chat->tool_choice]);
        return;
    }
    put(w, "{\"type\":\"function\",\"function\":{\"name\":");
    cm_json_put_str(w->out, openai_tool_name(w->arena, w->chat->tool_name));
    put(w, "}}");
}

static void put_tools(struct writer *w)
{
    if (w->chat->n_tools == 0 || !member(w, "tools"))
        return;
    put(w, "[");
    w->any = false;
    for (size_t i = 0; i < w->chat->n_tools; i++)
        put_tool(w, &w->chat->tools[i]);
    put(w, "]");
    put_choice(w);
    if (w->chat->parallel_tool_calls >= 0 && member(w, "parallel_tool_calls"))
        put(w, w->chat->parallel_tool_calls ? "true" : "false");
}

/* ---- The other members ---- */

static void put_number(struct writer *w, const char *name, double value, double usual)
{
    if (isnan(value))
        return;
    if (w->thinks) {
        if (value != usual)
            cm_run_dropped(w->run, name);
    } else if (member(w, name)) {
        cm_buf_printf(w->out, "%.15g", value);
    }
}

#define STOP_MAX 4

static void put_stop(struct writer *w)
{
    const struct cm_chat *chat = w->chat;

    if (chat->n_stop == 0)
        return;
    if (chat->n_stop > STOP_MAX || w->thinks)
        cm_run_dropped(w->run, "stop");
    if (w->thinks || !member(w, "stop"))
        return;
    put(w, "[");
    for (size_t i = 0; i < chat->n_stop && i < STOP_MAX; i++) {
        put(w, i > 0 ? "," : "");
        cm_json_put_str(w->out, chat->stop[i]);
    }
    put(w, "]");
}

static void put_sampling(struct writer *w)
{
    const struct cm_chat *chat = w->chat;

    put_number(w, "temperature", chat->temperature, 1);
    put_number(w, "top_p", chat->top_p, 1);
    put_number(w, "presence_penalty", chat->presence_penalty, 0);
    put_number(w, "frequency_penalty", chat->frequency_penalty, 0);
    put_stop(w);
    if (chat->top_k >= 0) {
        if (!w->o->top_k)
            cm_run_dropped(w->run, "top_k");
        else if (member(w, "top_k"))
            cm_json_put_int(w->out, chat->top_k);
    }
    if (chat->has_seed && member(w, "seed"))
        cm_json_put_int(w->out, chat->seed);
    if (chat->n > 1 && member(w, "n"))
        cm_json_put_int(w->out, chat->n);
    if (chat->logit_bias.n > 0 && member(w, "logit_bias"))
        cm_buf_append(w->out, chat->logit_bias);
    if (chat->logprobs && w->thinks) {
        cm_run_dropped(w->run, "logprobs");
    } else if (chat->logprobs && member(w, "logprobs")) {
        put(w, "true");
        if (chat->top_logprobs >= 0 && member(w, "top_logprobs"))
            cm_json_put_int(w->out, chat->top_logprobs);
    }
}

static void put_max_tokens(struct writer *w)
{
    const enum openai_max_tokens as = w->o->max_tokens;
    const bool newer = as == OPENAI_MAX_COMPLETION_TOKENS ||
                       (as == OPENAI_MAX_AS_SENT && (w->thinks || w->o->official));

    if (w->chat->max_tokens > 0 && member(w, newer ? "max_completion_tokens" : "max_tokens"))
        cm_json_put_int(w->out, w->chat->max_tokens);
}

/* How much is to be thought, in the words and by the member that this server knows. */
static void put_effort(struct writer *w)
{
    const struct cm_str asked = cm_chat_effort(w->chat), effort = openai_effort(w->o, asked);
    const bool off = cm_str_eq(asked, CM_S("none"));
    enum openai_reasoning as = w->o->reasoning;

    if (asked.n == 0)
        return;
    if (as == OPENAI_REASONING_AUTO && w->thinks)
        as = OPENAI_REASONING_EFFORT;
    switch (as) {
    case OPENAI_REASONING_EFFORT:
        if (effort.n > 0 && member(w, "reasoning_effort"))
            cm_json_put_str(w->out, effort);
        return;
    case OPENAI_REASONING_OBJECT:
        if (!member(w, "reasoning"))
            return;
        put(w, off ? "{\"enabled\":false}" : "{\"effort\":");
        if (!off) {
            cm_json_put_str(w->out, effort.n > 0 ? effort : asked);
            put(w, "}");
        }
        return;
    case OPENAI_REASONING_ENABLE:
        if (member(w, "enable_thinking"))
            put(w, off ? "false" : "true");
        return;
    case OPENAI_REASONING_THINKING:
        if (member(w, "thinking"))
            put(w, off ? "{\"type\":\"disabled\"}" : "{\"type\":\"enabled\"}");
        return;
    case OPENAI_REASONING_AUTO: /* a model that is not known to think */
    case OPENAI_REASONING_NONE:
        if (!off)
            cm_run_dropped(w->run, "reasoning_effort");
        return;
    }
}

static struct cm_str schema_name(struct writer *w)
{
    return w->chat->schema_name.n > 0 ? openai_tool_name(w->arena, w->chat->schema_name)
                                      : CM_S("output");
}

static void put_format(struct writer *w)
{
    const struct cm_chat *chat = w->chat;

    if (chat->format == CM_FORMAT_TEXT || !member(w, "response_format"))
        return;
    if (chat->format == CM_FORMAT_JSON || chat->schema.n == 0) {
        put(w, "{\"type\":\"json_object\"}");
        return;
    }
    put(w, "{\"type\":\"json_schema\",\"json_schema\":{\"name\":");
    cm_json_put_str(w->out, schema_name(w));
    if (chat->schema_description.n > 0) {
        put(w, ",\"description\":");
        cm_json_put_str(w->out, chat->schema_description);
    }
    put(w, ",\"schema\":");
    cm_buf_append(w->out, chat->schema);
    if (chat->schema_strict == 1 && !is_dropped(w, CM_S("strict")) &&
        openai_strict_schema(chat->schema))
        put(w, ",\"strict\":true");
    put(w, "}}");
}

static void put_texts(struct writer *w)
{
    const struct cm_chat *chat = w->chat;

    if (chat->verbosity.n > 0 && member(w, "verbosity"))
        cm_json_put_str(w->out, chat->verbosity);
    if (chat->user.n > 0 && member(w, "user"))
        cm_json_put_str(w->out, chat->user);
    if (chat->cache_key.n > 0) {
        if (!w->o->official)
            cm_run_dropped(w->run, "prompt_cache_key");
        else if (member(w, "prompt_cache_key"))
            cm_json_put_str(w->out, chat->cache_key);
    }
    if (chat->modalities & CM_MODALITY_IMAGE && member(w, "modalities"))
        put(w, "[\"image\",\"text\"]");
}

static void put_stream(struct writer *w)
{
    if (!w->chat->stream)
        return;
    put(w, ",\"stream\":true");
    if (w->o->stream_options && !is_dropped(w, CM_S("stream_options")))
        put(w, ",\"stream_options\":{\"include_usage\":true}");
}

int openai_write_chat(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    const struct cm_str model = cm_run_target(run)->model;
    struct writer w = {.run = run,
                       .chat = cm_run_chat(run),
                       .o = openai_options_of(run),
                       .out = &o->sent,
                       .err = err,
                       .arena = cm_run_arena(run),
                       .thinks = openai_thinks(openai_options_of(run), model)};
    int failed;

    put(&w, "{\"model\":");
    cm_json_put_str(w.out, model);
    failed = put_messages(&w);
    cm_buf_clear(&w.late);
    if (failed)
        return -1;
    put_tools(&w);
    put_max_tokens(&w);
    put_sampling(&w);
    put_effort(&w);
    put_format(&w);
    put_texts(&w);
    put_stream(&w);
    put(&w, "}");
    return 0;
}

int openai_write_embedding(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_buf *out = &o->sent;

    (void)err;
    cm_buf_append(out, CM_S("{\"model\":"));
    cm_json_put_str(out, cm_run_target(run)->model);
    cm_buf_append(out, CM_S(",\"input\":["));
    for (size_t i = 0; i < chat->n_inputs; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        cm_json_put_str(out, chat->inputs[i]);
    }
    cm_buf_put(out, ']');
    if (chat->dimensions > 0) {
        cm_buf_append(out, CM_S(",\"dimensions\":"));
        cm_json_put_int(out, chat->dimensions);
    }
    cm_buf_put(out, '}');
    return 0;
}
