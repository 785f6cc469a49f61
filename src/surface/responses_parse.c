/* Body of POST /v1/responses -> canonical request (OpenAI protocol notes, sections 10 and 12).
 *
 * Types and ranges are checked for every member that is read. What the canonical model has no words for (tools that a platform runs itself, prompts and
 * conversations that OpenAI keeps) is noted in chat->untranslatable; members nobody here reads are left to the relay lane. */
#include "responses_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "openai_chat_int.h"

#define MEMBERS(X)                                                                                 \
    X(model)                                                                                       \
    X(input)                                                                                       \
    X(instructions)                                                                                \
    X(previous_response_id)                                                                        \
    X(conversation)                                                                                \
    X(prompt)                                                                                      \
    X(store)                                                                                       \
    X(background)                                                                                  \
    X(stream)                                                                                      \
    X(stream_options)                                                                              \
    X(tools)                                                                                       \
    X(tool_choice)                                                                                 \
    X(parallel_tool_calls)                                                                         \
    X(max_output_tokens)                                                                           \
    X(max_tool_calls)                                                                              \
    X(temperature)                                                                                 \
    X(top_p)                                                                                       \
    X(top_logprobs)                                                                                \
    X(text)                                                                                        \
    X(reasoning)                                                                                   \
    X(include)                                                                                     \
    X(truncation)                                                                                  \
    X(metadata)                                                                                    \
    X(user)                                                                                        \
    X(safety_identifier)                                                                           \
    X(service_tier)                                                                                \
    X(prompt_cache_key)                                                                            \
    X(prompt_cache_retention)                                                                      \
    X(prompt_cache_options)                                                                        \
    X(context_management)                                                                          \
    X(moderation)

enum member {
#define X(name) M_##name,
    MEMBERS(X)
#undef X
};

static const struct cm_str member_names[] = {
#define X(name) [M_##name] = CM_S_INIT(#name),
    MEMBERS(X)
#undef X
};

struct top {
    struct cm_responses_reader r;
    yyjson_val *v[CM_COUNT(member_names)];
};

#define AT(name) CM_SPOT(NULL, #name)

void cm_responses_untranslatable(struct cm_responses_reader *r, const struct cm_err *why)
{
    if (r->chat->untranslatable.cls == CM_ERR_NONE)
        r->chat->untranslatable = *why;
}

void *cm_responses_settle(struct cm_responses_reader *r, struct cm_buf *list, size_t size,
                          size_t *n)
{
    void *items = cm_arena_alloc(r->chat->arena, list->n);

    if (list->n > 0)
        memcpy(items, list->p, list->n);
    *n = list->n / size;
    cm_buf_reset(list);
    return items;
}

/* ---- The conversation ---- */

static int read_conversation(struct top *t)
{
    struct cm_responses_reader *r = &t->r;
    struct cm_response_ask *ask = r->chat->response;
    struct cm_part system = {.kind = CM_PART_TEXT};
    struct cm_err why;

    if (cm_field_str(t->v[M_instructions], AT(instructions), &system.text, r->err) ||
        cm_field_str(t->v[M_previous_response_id], AT(previous_response_id), &ask->previous_id,
                     r->err))
        return -1;
    if (ask->previous_id.n > 0 && t->v[M_conversation])
        return cm_field_fail(r->err, AT(previous_response_id), "mutually_exclusive_parameters",
                             "'previous_response_id' cannot be used together with 'conversation'.");
    for (enum member m = M_conversation; m <= M_prompt; m++) {
        if (!t->v[m])
            continue;
        cm_field_fail(&why, CM_SPOT(NULL, member_names[m].p), "unsupported_parameter",
                      "'%s' names something that only OpenAI keeps, and this model's provider is "
                      "another one.",
                      member_names[m].p);
        cm_responses_untranslatable(r, &why);
    }
    if (ask->previous_id.n > 0 && ask->n_turns == 0) {
        cm_field_fail(&why, AT(previous_response_id), "previous_response_not_found",
                      "Previous response with id '" CM_PRI "' not found.",
                      CM_ARG(cm_utf8_head(ask->previous_id, 64)));
        cm_responses_untranslatable(r, &why);
    }
    if (!t->v[M_input] && !t->v[M_prompt] && ask->previous_id.n == 0)
        return cm_field_missing(r->err, AT(input));
    if (system.text.n > 0) {
        struct cm_msg msg = {.role = CM_ROLE_SYSTEM, .n_parts = 1};

        msg.parts = CM_ARENA_NEW(r->chat->arena, struct cm_part);
        msg.parts[0] = system;
        cm_buf_append(&r->msgs, cm_str((const char *)&msg, sizeof(msg)));
    }
    if (cm_responses_read_items(r, t->v[M_input]))
        return -1;
    r->chat->msgs = cm_responses_settle(r, &r->msgs, sizeof(*r->chat->msgs), &r->chat->n_msgs);
    if (r->chat->n_msgs == 0 && r->chat->untranslatable.cls == CM_ERR_NONE)
        return cm_field_fail(r->err, AT(input), "empty_array",
                             "Invalid 'input': there is nothing to answer.");
    return 0;
}

/* ---- Tools ---- */

static int read_tool(struct top *t, yyjson_val *v, const struct cm_spot *at)
{
    struct cm_responses_reader *r = &t->r;
    struct cm_tool tool = {0};
    struct cm_str type;
    struct cm_err why;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_json_get(v, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    if (!cm_str_eq(type, CM_S("function"))) {
        cm_field_fail(&why, CM_SPOT(at, "type"), "unsupported_value",
                      "The tool '" CM_PRI
                      "' is not supported by this model's provider: it can be given functions.",
                      CM_ARG(cm_utf8_head(type, 40)));
        cm_responses_untranslatable(r, &why);
        return 0;
    }
    if (cm_openai_function(r->chat, v, at, &tool, r->err))
        return -1;
    if (!cm_str_is_word(tool.name, CM_TOOL_NAME_MAX))
        return cm_field_fail(
            r->err, CM_SPOT(at, "name"), "invalid_value",
            "A function's name has 1 to 64 letters, digits, underscores and hyphens.");
    cm_buf_append(&r->tools, cm_str((const char *)&tool, sizeof(tool)));
    return 0;
}

static int read_tools(struct top *t)
{
    struct cm_chat *chat = t->r.chat;
    yyjson_val *tools = t->v[M_tools], *v;
    const struct cm_spot *at = AT(tools);
    size_t i, max;

    if (cm_field_is_array(tools, at, t->r.err))
        return -1;
    yyjson_arr_foreach(tools, i, max, v)
    {
        if (read_tool(t, v, CM_SPOT_AT(at, i)))
            return -1;
    }
    chat->tools = cm_responses_settle(&t->r, &t->r.tools, sizeof(*chat->tools), &chat->n_tools);
    return 0;
}

static bool has_tool(const struct cm_chat *chat, struct cm_str name)
{
    for (size_t i = 0; i < chat->n_tools; i++)
        if (cm_str_eq(chat->tools[i].name, name))
            return true;
    return false;
}

static int read_tool_choice(struct top *t)
{
    struct cm_chat *chat = t->r.chat;
    yyjson_val *choice = t->v[M_tool_choice];
    const struct cm_spot *at = AT(tool_choice);
    struct cm_str type;
    struct cm_err why;

    if (!choice)
        return 0;
    if (yyjson_is_str(choice))
        return cm_openai_tool_mode(t->r.chat, cm_json_str(choice), t->v[M_tools], at, t->r.err);
    if (!yyjson_is_obj(choice))
        return cm_field_wrong_type(t->r.err, at, "a string or an object", choice);
    if (cm_field_need_str(cm_json_get(choice, "type"), CM_SPOT(at, "type"), &type, t->r.err))
        return -1;
    if (cm_str_eq(type, CM_S("allowed_tools")))
        return cm_openai_choose_among(chat, choice, t->v[M_tools], at, t->r.err);
    if (!cm_str_eq(type, CM_S("function"))) {
        cm_field_wrong_value(&why, CM_SPOT(at, "type"), type, "'function' and 'allowed_tools'");
        cm_responses_untranslatable(&t->r, &why);
        return 0;
    }
    if (cm_field_need_str(cm_json_get(choice, "name"), CM_SPOT(at, "name"), &chat->tool_name,
                          t->r.err))
        return -1;
    chat->tool_choice = CM_TOOLS_NAMED;
    if (has_tool(chat, chat->tool_name))
        return 0;
    return cm_field_fail(t->r.err, at, "invalid_value",
                         "The function '" CM_PRI "' that is asked for is not among the tools.",
                         CM_ARG(cm_utf8_head(chat->tool_name, 64)));
}

/* ---- The other members ---- */

static int read_format(struct top *t)
{
    struct cm_chat *chat = t->r.chat;
    const struct cm_spot *text_spot = AT(text), *at = CM_SPOT(text_spot, "format");
    yyjson_val *format = cm_json_opt(t->v[M_text], "format");
    struct cm_err why = {0};
    int rc;

    if (cm_field_is_object(t->v[M_text], text_spot, t->r.err) ||
        cm_field_str(cm_json_get(t->v[M_text], "verbosity"), CM_SPOT(text_spot, "verbosity"),
                     &chat->verbosity, t->r.err))
        return -1;
    rc = cm_openai_format(chat, format, at, &why, t->r.err);
    if (why.cls != CM_ERR_NONE)
        cm_responses_untranslatable(&t->r, &why);
    if (rc <= 0)
        return rc;
    if (cm_openai_schema(chat, format, at, t->r.err))
        return -1;
    return chat->schema.n > 0 ? 0 : cm_field_missing(t->r.err, CM_SPOT(at, "schema"));
}

static int read_reasoning(struct top *t)
{
    struct cm_chat *chat = t->r.chat;
    const struct cm_spot *at = AT(reasoning);
    struct cm_str summary = CM_STR_NONE;

    if (cm_field_is_object(t->v[M_reasoning], at, t->r.err) ||
        cm_field_str(cm_json_get(t->v[M_reasoning], "effort"), CM_SPOT(at, "effort"),
                     &chat->reasoning_effort, t->r.err) ||
        cm_field_str(cm_json_get(t->v[M_reasoning], "summary"), CM_SPOT(at, "summary"), &summary,
                     t->r.err))
        return -1;
    if (summary.n > 0)
        chat->show_thinking = 1;
    return 0;
}

/* What an answer is to have besides. Encrypted reasoning comes only from those who speak the dialect; what others need of it is kept here. */
static int read_include(struct top *t)
{
    const struct cm_spot *at = AT(include);
    size_t i, max;
    yyjson_val *v;

    if (cm_field_is_array(t->v[M_include], at, t->r.err))
        return -1;
    yyjson_arr_foreach(t->v[M_include], i, max, v)
    {
        if (!yyjson_is_str(v))
            return cm_field_wrong_type(t->r.err, CM_SPOT_AT(at, i), "a string", v);
        if (yyjson_equals_str(v, "message.output_text.logprobs"))
            t->r.chat->logprobs = true;
        else if (!yyjson_equals_str(v, "reasoning.encrypted_content"))
            cm_chat_drop(t->r.chat, CM_S("include"));
    }
    return 0;
}

static int read_sampling(struct top *t)
{
    struct cm_chat *chat = t->r.chat;
    int64_t logprobs = 0;

    if (cm_field_num(t->v[M_temperature], AT(temperature), 0, 2, &chat->temperature, t->r.err) ||
        cm_field_num(t->v[M_top_p], AT(top_p), 0, 1, &chat->top_p, t->r.err) ||
        cm_field_int(t->v[M_max_output_tokens], AT(max_output_tokens), 1, INT64_MAX,
                     &chat->max_tokens, t->r.err) ||
        cm_field_int(t->v[M_top_logprobs], AT(top_logprobs), 0, 20, &logprobs, t->r.err))
        return -1;
    if (logprobs > 0) {
        chat->logprobs = true;
        chat->top_logprobs = logprobs;
    }
    return 0;
}

static int read_rest(struct top *t)
{
    static const enum member droppable[] = {M_max_tool_calls, M_moderation,
                                            M_prompt_cache_retention, M_prompt_cache_options,
                                            M_context_management};
    struct cm_chat *chat = t->r.chat;
    struct cm_response_ask *ask = chat->response;
    struct cm_str truncation = CM_S("disabled");
    bool parallel = false;

    ask->store = true;
    if (cm_field_bool(t->v[M_stream], AT(stream), &chat->stream, t->r.err) ||
        cm_field_is_object(t->v[M_stream_options], AT(stream_options), t->r.err) ||
        cm_field_bool(t->v[M_store], AT(store), &ask->store, t->r.err) ||
        cm_field_bool(t->v[M_background], AT(background), &ask->background, t->r.err) ||
        cm_field_bool(t->v[M_parallel_tool_calls], AT(parallel_tool_calls), &parallel, t->r.err) ||
        cm_field_str(t->v[M_user], AT(user), &chat->user, t->r.err) ||
        cm_field_str(t->v[M_safety_identifier], AT(safety_identifier), &chat->user, t->r.err) ||
        cm_field_str(t->v[M_service_tier], AT(service_tier), &chat->service_tier, t->r.err) ||
        cm_field_str(t->v[M_prompt_cache_key], AT(prompt_cache_key), &chat->cache_key, t->r.err) ||
        cm_field_str(t->v[M_truncation], AT(truncation), &truncation, t->r.err) ||
        cm_field_is_object(t->v[M_metadata], AT(metadata), t->r.err))
        return -1;
    if (cm_str_eq(truncation, CM_S("auto")))
        cm_chat_drop(chat, CM_S("truncation"));
    else if (!cm_str_eq(truncation, CM_S("disabled")))
        return cm_field_wrong_value(t->r.err, AT(truncation), truncation, "'auto' and 'disabled'");
    if (t->v[M_parallel_tool_calls])
        chat->parallel_tool_calls = parallel;
    chat->metadata = cm_field_json(chat->arena, t->v[M_metadata]);
    for (size_t i = 0; i < CM_COUNT(droppable); i++)
        if (t->v[droppable[i]])
            cm_chat_drop(chat, member_names[droppable[i]]);
    return read_format(t) || read_reasoning(t) || read_include(t) ? -1 : 0;
}

/* ---- What a response repeats ---- */

/* "name":value, as the client said it, else as OpenAI fills it in. */
static void echo(struct top *t, struct cm_buf *out, enum member m, const char *otherwise)
{
    cm_json_put_str(out, member_names[m]);
    cm_buf_put(out, ':');
    if (t->v[m])
        cm_json_put_val(out, t->v[m]);
    else
        cm_buf_append(out, cm_str_of(otherwise));
    cm_buf_put(out, ',');
}

static struct cm_str make_echo(struct top *t)
{
    struct cm_buf out = {0};

    echo(t, &out, M_instructions, "null");
    echo(t, &out, M_max_output_tokens, "null");
    echo(t, &out, M_max_tool_calls, "null");
    echo(t, &out, M_metadata, "{}");
    echo(t, &out, M_parallel_tool_calls, "true");
    echo(t, &out, M_previous_response_id, "null");
    echo(t, &out, M_prompt_cache_key, "null");
    echo(t, &out, M_reasoning, "{\"effort\":null,\"summary\":null}");
    echo(t, &out, M_safety_identifier, "null");
    echo(t, &out, M_temperature, "1.0");
    echo(t, &out, M_text, "{\"format\":{\"type\":\"text\"}}");
    echo(t, &out, M_tool_choice, "\"auto\"");
    echo(t, &out, M_tools, "[]");
    echo(t, &out, M_top_logprobs, "0");
    echo(t, &out, M_top_p, "1.0");
    echo(t, &out, M_truncation, "\"disabled\"");
    echo(t, &out, M_user, "null");
    return cm_buf_settle(&out, t->r.chat->arena);
}

static int parse(struct cm_chat *chat, enum cm_chat_task task, struct cm_str body,
                 struct cm_err *err)
{
    struct top t = {.r = {.chat = chat, .err = err}};
    int failed;

    if (!chat->response)
        chat->response = CM_ARENA_NEW(chat->arena, struct cm_response_ask);
    failed = cm_field_body(chat, CM_DIALECT_OPENAI_RESPONSES, task, body, member_names,
                           CM_COUNT(member_names), t.v, err) ||
             cm_openai_model_member(chat, t.v[M_model], NULL, err) || read_conversation(&t) ||
             read_tools(&t) || read_tool_choice(&t) || read_sampling(&t) || read_rest(&t);
    if (!failed)
        chat->response->echo = make_echo(&t);
    cm_map_clear(&t.r.outputs);
    cm_buf_clear(&t.r.parts);
    cm_buf_clear(&t.r.msgs);
    cm_buf_clear(&t.r.tools);
    return failed ? -1 : 0;
}

int cm_responses_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    return parse(chat, CM_TASK_CHAT, body, err);
}

int cm_responses_count_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    const int rc = parse(chat, CM_TASK_COUNT_TOKENS, body, err);

    chat->stream = false;
    return rc;
}
