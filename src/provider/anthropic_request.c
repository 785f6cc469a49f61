/* Canonical request -> the body of POST /v1/messages (protocol notes of Anthropic, sections 2 and 6).
 *
 * What depends on the model (sampling, thinking, schemas) is decided by anthropic_caps_of(); what such
 * a model refuses is dropped and told. */
#include "anthropic_int.h"

#include "chatmux/base/mem.h"

#include <math.h>

#define BUDGET_MIN 1024    /* tokens; less is refused */
#define BUDGET_MEDIUM 4096 /* where thinking is asked for and no amount is told */
#define ADAPTIVE_ROOM                                                                              \
    4 /* times x.max_tokens, when nobody limits an answer that begins with thinking */
#define USER_ID_MAX 512

struct request {
    struct cm_run *run;
    const struct cm_chat *chat;
    struct anthropic_caps caps;
    struct anthropic_thinking thinking;
    int64_t max_tokens;
    struct cm_buf messages; /* made first: they decide about thinking */
    struct cm_buf out;
};

/* ---- Thinking and length ---- */

static int64_t at_most(int64_t value, int64_t limit)
{
    return limit > 0 && value > limit ? limit : value;
}

/* The nearest level that the model has. */
static struct cm_str effort_of(const struct anthropic_caps *caps, struct cm_str effort)
{
    if (effort.n == 0 || !caps->effort)
        return CM_STR_NONE;
    if (cm_str_eq(effort, CM_S("minimal")))
        return CM_S("low");
    if (cm_str_eq(effort, CM_S("xhigh")) && !caps->effort_xhigh)
        return CM_S("high");
    if (cm_str_eq(effort, CM_S("max")) && !caps->effort_max)
        return CM_S("high");
    if (cm_str_eq(effort, CM_S("low")) || cm_str_eq(effort, CM_S("medium")) ||
        cm_str_eq(effort, CM_S("high")) || cm_str_eq(effort, CM_S("xhigh")) ||
        cm_str_eq(effort, CM_S("max")))
        return effort;
    return CM_S("high"); /* of later days */
}

/* What the client, or the name of the model, asks for. */
static void wanted_thinking(const struct cm_chat *chat, const struct cm_target *target,
                            const struct anthropic_caps *caps, struct anthropic_thinking *out)
{
    const struct cm_str effort = cm_chat_effort(chat);
    const bool asked = chat->thinking == CM_THINKING_ON || chat->thinking == CM_THINKING_ADAPTIVE ||
                       effort.n > 0 || target->thinking;

    *out = (struct anthropic_thinking){0};
    if (!asked)
        return;
    if (cm_str_eq(effort, CM_S("none")) && !target->thinking) {
        out->kind =
            caps->by_default && !caps->always ? ANTHROPIC_THINKING_OFF : ANTHROPIC_THINKING_UNSAID;
    } else if (caps->adaptive) {
        out->kind = ANTHROPIC_THINKING_ADAPTIVE;
        out->effort = effort_of(caps, effort);
    } else if (caps->budget) {
        out->kind = ANTHROPIC_THINKING_BUDGET;
        out->budget = cm_chat_thinking_budget(chat);
        if (out->budget < 0)
            out->budget = BUDGET_MEDIUM;
        if (out->budget < BUDGET_MIN)
            out->budget = BUDGET_MIN;
    }
}

static int64_t default_length(struct cm_run *run, const struct anthropic_thinking *t)
{
    const int64_t room = cm_option_int(cm_run_instance(run), "max_tokens");

    switch (t->kind) {
    case ANTHROPIC_THINKING_BUDGET:
        return room + t->budget;
    case ANTHROPIC_THINKING_ADAPTIVE:
        return room * ADAPTIVE_ROOM;
    case ANTHROPIC_THINKING_UNSAID:
    case ANTHROPIC_THINKING_OFF:
        break;
    }
    return room;
}

static bool forces_tool(const struct cm_chat *chat)
{
    return chat->n_tools > 0 &&
           (chat->tool_choice == CM_TOOLS_REQUIRED || chat->tool_choice == CM_TOOLS_NAMED);
}

static bool is_prefilled(const struct cm_chat *chat)
{
    return chat->n_msgs > 0 && chat->msgs[chat->n_msgs - 1].role == CM_ROLE_ASSISTANT;
}

/* A budget has rules of its own: room for the answer, a free choice of tools, no prefill, and in a tool
 * loop the thinking before it. Where they do not hold, the answer comes without. */
static void settle_thinking(struct request *q, bool thought)
{
    struct anthropic_thinking *t = &q->thinking;
    bool possible = true;

    if (t->kind != ANTHROPIC_THINKING_BUDGET)
        return;
    if (t->budget >= q->max_tokens)
        t->budget = q->max_tokens - 1;
    possible =
        t->budget >= BUDGET_MIN && thought && !forces_tool(q->chat) && !is_prefilled(q->chat);
    if (!possible) {
        t->kind = ANTHROPIC_THINKING_UNSAID;
        cm_run_dropped(q->run, "reasoning_effort");
    }
}

static void put_thinking(struct cm_buf *out, const struct cm_chat *chat,
                         const struct anthropic_caps *caps, const struct anthropic_thinking *t)
{
    /* the newer ones leave the text out unless told otherwise */
    const bool shown = chat->show_thinking != 0 && caps->adaptive;

    switch (t->kind) {
    case ANTHROPIC_THINKING_UNSAID:
        break;
    case ANTHROPIC_THINKING_OFF:
        cm_buf_append(out, CM_S("{\"type\":\"disabled\"}"));
        break;
    case ANTHROPIC_THINKING_BUDGET:
        cm_buf_append(out, CM_S("{\"type\":\"enabled\",\"budget_tokens\":"));
        cm_json_put_int(out, t->budget);
        cm_buf_put(out, '}');
        break;
    case ANTHROPIC_THINKING_ADAPTIVE:
        cm_buf_append(out, shown ? CM_S("{\"type\":\"adaptive\",\"display\":\"summarized\"}")
                                 : CM_S("{\"type\":\"adaptive\"}"));
        break;
    }
}

struct cm_str anthropic_thinking_member(struct cm_run *run)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct anthropic_caps caps;
    struct anthropic_thinking t;
    struct cm_buf out = {0};

    anthropic_caps_of(cm_run_target(run), &caps);
    wanted_thinking(chat, cm_run_target(run), &caps, &t);
    if (t.kind == ANTHROPIC_THINKING_BUDGET && t.budget >= chat->max_tokens)
        t.budget = chat->max_tokens - 1;
    if (t.kind != ANTHROPIC_THINKING_BUDGET || t.budget >= BUDGET_MIN)
        put_thinking(&out, chat, &caps, &t);
    return cm_buf_settle(&out, cm_run_arena(run));
}

/* ---- Members ---- */

static void put_key(struct request *q, struct cm_str name)
{
    cm_buf_append(&q->out, CM_S(",\""));
    cm_buf_append(&q->out, name);
    cm_buf_append(&q->out, CM_S("\":"));
}

static void put_cache(struct cm_buf *out, struct cm_str ttl)
{
    cm_buf_append(out, CM_S("{\"type\":\"ephemeral\",\"ttl\":"));
    cm_json_put_str(out, ttl);
    cm_buf_put(out, '}');
}

static void add_system(struct cm_buf *text, struct cm_str more)
{
    if (cm_str_trim(more).n == 0)
        return;
    if (text->n > 0)
        cm_buf_append(text, CM_S("\n\n"));
    cm_buf_append(text, more);
}

/* JSON without a schema, or on a model that knows no schemas: asked for in words. */
static void add_format(const struct request *q, struct cm_buf *text)
{
    if (q->chat->format == CM_FORMAT_JSON ||
        (q->chat->format == CM_FORMAT_SCHEMA && q->chat->schema.n == 0)) {
        add_system(text, CM_S("Answer with one JSON object and nothing else: no explanation, no "
                              "Markdown."));
    } else if (q->chat->format == CM_FORMAT_SCHEMA && !q->caps.schema) {
        add_system(text, CM_S("Answer with one JSON value and nothing else: no explanation, no "
                              "Markdown. It has to match this JSON Schema:"));
        add_system(text, q->chat->schema);
    }
}

static bool is_system(const struct cm_msg *msg)
{
    return msg->role == CM_ROLE_SYSTEM || msg->role == CM_ROLE_DEVELOPER;
}

static bool has_breakpoint(const struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; is_system(&chat->msgs[i]) && k < chat->msgs[i].n_parts; k++) {
            if (chat->msgs[i].parts[k].cache.n > 0)
                return true;
        }
    }
    return false;
}

static void put_system_block(struct request *q, struct cm_str text, struct cm_str cache, bool *some)
{
    if (cm_str_trim(text).n == 0)
        return;
    if (*some)
        cm_buf_put(&q->out, ',');
    *some = true;
    cm_buf_append(&q->out, CM_S("{\"type\":\"text\",\"text\":"));
    cm_json_put_str(&q->out, text);
    if (cache.n > 0) {
        cm_buf_append(&q->out, CM_S(",\"cache_control\":"));
        put_cache(&q->out, cache);
    }
    cm_buf_put(&q->out, '}');
}

/* All system texts, wherever they stood; as blocks where one has a breakpoint. */
static void put_system(struct request *q)
{
    const struct cm_chat *chat = q->chat;
    const bool blocks = has_breakpoint(chat);
    struct cm_buf text = {0};
    bool some = false;

    if (blocks) {
        put_key(q, CM_S("system"));
        cm_buf_put(&q->out, '[');
    }
    for (size_t i = 0; i < chat->n_msgs; i++) {
        const struct cm_msg *msg = &chat->msgs[i];

        for (size_t k = 0; is_system(msg) && k < msg->n_parts; k++) {
            if (blocks)
                put_system_block(q, msg->parts[k].text, msg->parts[k].cache, &some);
            else
                add_system(&text, msg->parts[k].text);
        }
    }
    add_format(q, &text);
    if (blocks) {
        put_system_block(q, cm_buf_str(&text), CM_STR_NONE, &some);
        cm_buf_put(&q->out, ']');
    } else if (text.n > 0) {
        put_key(q, CM_S("system"));
        cm_json_put_str(&q->out, cm_buf_str(&text));
    }
    cm_buf_clear(&text);
}

static void put_sampling(struct request *q)
{
    const struct cm_chat *chat = q->chat;
    const bool none = q->caps.sampling == ANTHROPIC_SAMPLING_NONE ||
                      q->thinking.kind == ANTHROPIC_THINKING_BUDGET;
    const bool has_temperature = !isnan(chat->temperature), has_top_p = !isnan(chat->top_p);

    if (none) {
        /* the default is no wish */
        if (has_temperature && chat->temperature != 1)
            cm_run_dropped(q->run, "temperature");
        if (has_top_p && chat->top_p != 1)
            cm_run_dropped(q->run, "top_p");
        if (chat->top_k >= 0)
            cm_run_dropped(q->run, "top_k");
        return;
    }
    if (has_temperature)
        cm_buf_printf(&q->out, ",\"temperature\":%.6g",
                      chat->temperature > 1 ? 1.0 : chat->temperature);
    if (has_top_p && (!has_temperature || q->caps.sampling == ANTHROPIC_SAMPLING_ANY))
        cm_buf_printf(&q->out, ",\"top_p\":%.6g", chat->top_p);
    else if (has_top_p && chat->top_p != 1)
        cm_run_dropped(q->run, "top_p");
    if (chat->top_k >= 0) {
        put_key(q, CM_S("top_k"));
        cm_json_put_int(&q->out, chat->top_k);
    }
}

static void put_stop(struct request *q)
{
    bool some = false, blank = false;

    for (size_t i = 0; i < q->chat->n_stop; i++) {
        if (cm_str_trim(q->chat->stop[i]).n == 0) {
            blank = true;
            continue;
        }
        if (some)
            cm_buf_put(&q->out, ',');
        else
            cm_buf_append(&q->out, CM_S(",\"stop_sequences\":["));
        some = true;
        cm_json_put_str(&q->out, q->chat->stop[i]);
    }
    if (some)
        cm_buf_put(&q->out, ']');
    if (blank)
        cm_run_dropped(q->run, "stop");
}

/* ---- Tools ---- */

struct cm_str anthropic_name(struct cm_arena *arena, struct cm_str name)
{
    return cm_tool_id_safe(arena, name, ANTHROPIC_NAME_MAX);
}

/* An object's schema, whatever the client left out. */
static void put_input_schema(struct request *q, const struct cm_tool *tool)
{
    struct cm_json_edit type = {.key = CM_S("type"), .value = CM_S("\"object\"")};

    if (tool->parameters.n == 0)
        cm_buf_append(&q->out, CM_S("{\"type\":\"object\",\"properties\":{}}"));
    else if (cm_str_eq(cm_json_member(tool->parameters, CM_S("type")), CM_S("\"object\"")))
        cm_buf_append(&q->out, tool->parameters);
    else
        cm_json_splice(tool->parameters, &type, 1, &q->out, NULL);
}

/* Enforcing a schema that breaks the rules would be an error: then it is a wish, as without strict. */
static bool keeps_strict(struct request *q, const struct cm_tool *tool)
{
    bool changed = true;

    if (tool->strict != 1 || !q->caps.schema)
        return false;
    if (tool->parameters.n > 0)
        anthropic_schema(cm_run_arena(q->run), tool->parameters, &changed);
    return !changed;
}

static void put_tool(struct request *q, const struct cm_tool *tool)
{
    cm_buf_append(&q->out, CM_S("{\"name\":"));
    cm_json_put_str(&q->out, anthropic_name(cm_run_arena(q->run), tool->name));
    if (tool->description.n > 0) {
        put_key(q, CM_S("description"));
        cm_json_put_str(&q->out, tool->description);
    }
    put_key(q, CM_S("input_schema"));
    put_input_schema(q, tool);
    if (keeps_strict(q, tool))
        cm_buf_append(&q->out, CM_S(",\"strict\":true"));
    else if (tool->strict == 1)
        cm_run_dropped(q->run, "strict");
    if (tool->cache.n > 0) {
        put_key(q, CM_S("cache_control"));
        put_cache(&q->out, tool->cache);
    }
    cm_buf_put(&q->out, '}');
}

static void put_tool_choice(struct request *q)
{
    static const struct cm_str words[] = {[CM_TOOLS_UNSET] = CM_S_INIT("auto"),
                                          [CM_TOOLS_AUTO] = CM_S_INIT("auto"),
                                          [CM_TOOLS_NONE] = CM_S_INIT("none"),
                                          [CM_TOOLS_REQUIRED] = CM_S_INIT("any"),
                                          [CM_TOOLS_NAMED] = CM_S_INIT("tool")};
    const struct cm_chat *chat = q->chat;
    const bool one = chat->parallel_tool_calls == 0 && chat->tool_choice != CM_TOOLS_NONE;

    if (chat->tool_choice == CM_TOOLS_UNSET && !one)
        return;
    put_key(q, CM_S("tool_choice"));
    cm_buf_append(&q->out, CM_S("{\"type\":"));
    cm_json_put_str(&q->out, words[chat->tool_choice]);
    if (chat->tool_choice == CM_TOOLS_NAMED) {
        put_key(q, CM_S("name"));
        cm_json_put_str(&q->out, anthropic_name(cm_run_arena(q->run), chat->tool_name));
    }
    if (one)
        cm_buf_append(&q->out, CM_S(",\"disable_parallel_tool_use\":true"));
    cm_buf_put(&q->out, '}');
}

static bool is_known(struct cm_str *names, size_t n, struct cm_str name)
{
    for (size_t i = 0; i < n; i++) {
        if (cm_str_eq(names[i], name))
            return true;
    }
    return false;
}

#define OLD_TOOLS_MAX 64

/* Calls in the history want their tools, though none is offered any more. */
static void put_old_tools(struct request *q)
{
    struct cm_str names[OLD_TOOLS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < q->chat->n_msgs; i++) {
        const struct cm_msg *msg = &q->chat->msgs[i];

        for (size_t k = 0; k < msg->n_parts && n < OLD_TOOLS_MAX; k++) {
            if (msg->parts[k].kind != CM_PART_TOOL_CALL || is_known(names, n, msg->parts[k].name))
                continue;
            names[n++] = msg->parts[k].name;
            cm_buf_append(&q->out, n == 1 ? CM_S(",\"tools\":[") : CM_S(","));
            put_tool(q, &(struct cm_tool){.name = names[n - 1], .strict = -1});
        }
    }
    if (n > 0)
        cm_buf_append(&q->out, CM_S("],\"tool_choice\":{\"type\":\"none\"}"));
}

static void put_tools(struct request *q)
{
    if (q->chat->n_tools == 0) {
        put_old_tools(q);
        return;
    }
    put_key(q, CM_S("tools"));
    cm_buf_put(&q->out, '[');
    for (size_t i = 0; i < q->chat->n_tools; i++) {
        if (i > 0)
            cm_buf_put(&q->out, ',');
        put_tool(q, &q->chat->tools[i]);
    }
    cm_buf_put(&q->out, ']');
    put_tool_choice(q);
}

/* ---- The rest ---- */

static void put_output(struct request *q)
{
    struct cm_str schema = CM_STR_NONE;
    bool changed;

    if (q->chat->format == CM_FORMAT_SCHEMA && q->caps.schema)
        schema = anthropic_schema(cm_run_arena(q->run), q->chat->schema, &changed);
    if (schema.n == 0 && q->thinking.effort.n == 0)
        return;
    put_key(q, CM_S("output_config"));
    cm_buf_put(&q->out, '{');
    if (q->thinking.effort.n > 0) {
        cm_buf_append(&q->out, CM_S("\"effort\":"));
        cm_json_put_str(&q->out, q->thinking.effort);
    }
    if (schema.n > 0) {
        cm_buf_append(&q->out, q->thinking.effort.n > 0 ? CM_S(",") : CM_S(""));
        cm_buf_append(&q->out, CM_S("\"format\":{\"type\":\"json_schema\",\"schema\":"));
        cm_buf_append(&q->out, schema);
        cm_buf_put(&q->out, '}');
    }
    cm_buf_put(&q->out, '}');
}

static void put_rest(struct request *q)
{
    const struct cm_str option = cm_option_value(cm_run_instance(q->run), "cache");
    const struct cm_str cache = q->chat->cache.n > 0            ? q->chat->cache
                                : cm_str_eq(option, CM_S("no")) ? CM_STR_NONE
                                                                : option;

    if (q->thinking.kind != ANTHROPIC_THINKING_UNSAID) {
        put_key(q, CM_S("thinking"));
        put_thinking(&q->out, q->chat, &q->caps, &q->thinking);
    }
    put_output(q);
    if (q->chat->user.n > 0) {
        put_key(q, CM_S("metadata"));
        cm_buf_append(&q->out, CM_S("{\"user_id\":"));
        cm_json_put_str(&q->out, cm_str_head(q->chat->user, USER_ID_MAX));
        cm_buf_put(&q->out, '}');
    }
    if (cache.n > 0) {
        put_key(q, CM_S("cache_control"));
        put_cache(&q->out, cache);
    }
}

/* What the dialect cannot say at all. */
static int refuse(const struct cm_chat *chat, struct cm_err *err)
{
    if (chat->n <= 1)
        return 0;
    cm_fail_param(err, CM_ERR_BAD_REQUEST, "n", "this model gives one answer to a request");
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_parameter"));
    return -1;
}

/* Of a long answer the clocks of a stream tell a slow model from a dead one. */
static bool wants_stream(const struct request *q)
{
    return q->chat->stream ||
           q->max_tokens > cm_option_int(cm_run_instance(q->run), "stream_above");
}

int anthropic_body(struct cm_run *run, struct cm_str *body, bool *stream, struct cm_err *err)
{
    struct request q = {.run = run, .chat = cm_run_chat(run)};
    const bool counts = q.chat->task == CM_TASK_COUNT_TOKENS;
    bool thought = true;
    int failed;

    anthropic_caps_of(cm_run_target(run), &q.caps);
    wanted_thinking(q.chat, cm_run_target(run), &q.caps, &q.thinking);
    failed = refuse(q.chat, err) || anthropic_put_messages(run, &q.messages, &thought, err);
    q.max_tokens =
        at_most(q.chat->max_tokens > 0 ? q.chat->max_tokens : default_length(run, &q.thinking),
                q.caps.max_output);
    settle_thinking(&q, thought);
    *stream = !counts && wants_stream(&q);
    cm_buf_append(&q.out, CM_S("{\"model\":"));
    cm_json_put_str(&q.out, cm_run_target(run)->model);
    if (!counts) {
        put_key(&q, CM_S("max_tokens"));
        cm_json_put_int(&q.out, q.max_tokens);
        if (*stream)
            cm_buf_append(&q.out, CM_S(",\"stream\":true"));
        put_sampling(&q);
        put_stop(&q);
    }
    put_system(&q);
    cm_buf_put(&q.out, ',');
    cm_buf_append(&q.out, cm_buf_str(&q.messages));
    put_tools(&q);
    put_rest(&q);
    cm_buf_put(&q.out, '}');
    cm_buf_clear(&q.messages);
    *body = cm_buf_settle(&q.out, cm_run_arena(run));
    return failed ? -1 : 0;
}
