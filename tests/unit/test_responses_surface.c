/* surface/responses: bodies of the Responses API in, streams, whole answers and errors out. */
#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "surface_chat.h"

#include <math.h>

static void parse(const char *body)
{
    parse_as(&cm_surface_responses, body);
}

START_TEST(a_small_request)
{
    const char *body = "{\"model\":\"m\",\"input\":\"Hi\",\"unknown\":[1],\"temperature\":null}";

    parse(body);
    ck_str(chat.model, "m");
    ck_assert_ptr_eq(chat.raw.p, body);
    ck_assert_int_eq(chat.dialect, CM_DIALECT_OPENAI_RESPONSES);
    ck_assert_int_eq(chat.task, CM_TASK_CHAT);
    ck_assert_uint_eq(chat.n_msgs, 1);
    ck_assert_int_eq(chat.msgs[0].role, CM_ROLE_USER);
    ck_str(chat.msgs[0].parts[0].text, "Hi");
    ck_assert(isnan(chat.temperature) && chat.max_tokens == -1 && !chat.stream);
    ck_assert(chat.response->store && !chat.response->background);
    ck_assert_uint_eq(chat.response->previous_id.n, 0);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    ck_assert_uint_eq(cm_chat_fields(&chat), 0);
    ck_assert_uint_eq(chat.n_dropped, 1);
    ck_str(chat.dropped[0], "unknown");
}
END_TEST

START_TEST(every_simple_member)
{
    parse("{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
          "\"instructions\":\"Be brief.\",\"stream\":true,\"store\":false,\"background\":true,"
          "\"temperature\":0.5,\"top_p\":1,\"max_output_tokens\":16,\"top_logprobs\":2,"
          "\"parallel_tool_calls\":false,\"metadata\":{\"a\":\"b\"},\"user\":\"u\","
          "\"service_tier\":\"flex\",\"prompt_cache_key\":\"k\",\"truncation\":\"auto\","
          "\"max_tool_calls\":3,\"include\":[\"reasoning.encrypted_content\"],"
          "\"reasoning\":{\"effort\":\"low\",\"summary\":\"auto\"},"
          "\"text\":{\"verbosity\":\"high\",\"format\":{\"type\":\"json_schema\",\"name\":\"n\","
          "\"schema\":{\"type\":\"object\"},\"strict\":true,\"description\":\"d\"}},"
          "\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\","
          "\"parameters\":{\"type\":\"object\"},\"strict\":true},"
          "{\"type\":\"function\",\"name\":\"g\"}],"
          "\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"required\","
          "\"tools\":[{\"type\":\"function\",\"name\":\"g\"}]}}");
    ck_assert(chat.stream && !chat.response->store && chat.response->background);
    ck_assert(chat.temperature == 0.5 && chat.top_p == 1 && chat.max_tokens == 16);
    ck_assert(chat.logprobs && chat.top_logprobs == 2);
    ck_assert_int_eq(chat.parallel_tool_calls, 0);
    ck_str(chat.metadata, "{\"a\":\"b\"}");
    ck_str(chat.user, "u");
    ck_str(chat.service_tier, "flex");
    ck_str(chat.cache_key, "k");
    ck_str(chat.reasoning_effort, "low");
    ck_assert_int_eq(chat.show_thinking, 1);
    ck_str(chat.verbosity, "high");
    ck_assert_int_eq(chat.format, CM_FORMAT_SCHEMA);
    ck_str(chat.schema_name, "n");
    ck_str(chat.schema, "{\"type\":\"object\"}");
    ck_str(chat.schema_description, "d");
    ck_assert_int_eq(chat.schema_strict, 1);
    ck_assert_uint_eq(chat.n_msgs, 2);
    ck_assert_int_eq(chat.msgs[0].role, CM_ROLE_SYSTEM);
    ck_str(chat.msgs[0].parts[0].text, "Be brief.");
    ck_assert_uint_eq(chat.n_tools, 1); /* the other one is not allowed */
    ck_str(chat.tools[0].name, "g");
    ck_assert_int_eq(chat.tools[0].strict, -1);
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_REQUIRED);
    ck_assert_uint_eq(chat.n_dropped, 2);
    ck_str(chat.dropped[0], "truncation");
    ck_str(chat.dropped[1], "max_tool_calls");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

/* "user[Hi] assistant[?r text !call] tool[call=out]" */
static const char *told(void)
{
    static const char marks[] = "\"iaf~?!=";
    struct cm_buf out = {0};

    for (size_t i = 0; i < chat.n_msgs; i++) {
        cm_buf_printf(&out, "%s%s[", i ? " " : "", cm_role_name(chat.msgs[i].role));
        for (size_t k = 0; k < chat.msgs[i].n_parts; k++) {
            const struct cm_part *p = &chat.msgs[i].parts[k];
            const struct cm_str shown = p->text.n ? p->text : p->url.n ? p->url : p->data;

            cm_buf_printf(&out, "%s", k ? "," : "");
            if (p->kind == CM_PART_TEXT)
                cm_buf_append(&out, p->text);
            else if (p->kind == CM_PART_TOOL_CALL)
                cm_buf_printf(&out, "!" CM_PRI ":" CM_PRI, CM_ARG(p->id), CM_ARG(p->name));
            else if (p->kind == CM_PART_TOOL_RESULT)
                cm_buf_printf(&out, CM_PRI "=" CM_PRI "+%zu", CM_ARG(p->id), CM_ARG(p->text),
                              p->n_parts);
            else
                cm_buf_printf(&out, "%c" CM_PRI, marks[p->kind], CM_ARG(shown));
        }
        cm_buf_put(&out, ']');
    }
    cm_buf_put(&out, '\0');
    return cm_buf_settle(&out, &arena).p;
}

static const char *told_of(const char *input)
{
    parse(cm_arena_printf(&arena, "{\"model\":\"m\",\"input\":%s}", input).p);
    return told();
}

#define CALL(id)                                                                                   \
    "{\"type\":\"function_call\",\"call_id\":\"" id "\",\"name\":\"f\",\"arguments\":\"{}\"}"
#define OUT(id, text)                                                                              \
    "{\"type\":\"function_call_output\",\"call_id\":\"" id "\",\"output\":\"" text "\"}"
#define SAID(text)                                                                                 \
    "{\"type\":\"message\",\"role\":\"assistant\",\"id\":\"msg_1\",\"content\":[{\"type\":"        \
    "\"output_text\",\"text\":\"" text "\",\"annotations\":[]}]}"
#define ASKED(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define THOUGHT(text)                                                                                  \
    "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"" text \
    "\"}]}"

static const struct {
    const char *input, *told;
} items[] = {
    {"[" ASKED("a") "," SAID("b") "," ASKED("c") "]", "user[a] assistant[b] user[c]"},
    {"[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"developer\",\"content\":[{\"type\":"
     "\"input_text\",\"text\":\"d\"}]}," ASKED("a") "]",
     "system[s] developer[d] user[a]"},
    /* one message of the assistant, results behind it in the order of the calls */
    {"[" ASKED("a") "," THOUGHT("t") "," SAID("b") "," CALL("1") "," CALL("2") "," OUT(
         "2", "y") "," OUT("1", "x") "]",
     "user[a] assistant[?t,b,!1:f,!2:f] tool[1=x+0] tool[2=y+0]"},
    /* a result that stands behind something else */
    {"[" ASKED("a") "," CALL("1") "," ASKED("b") "," OUT("1", "x") "]",
     "user[a] assistant[!1:f] tool[1=x+0] user[b]"},
    {"[" ASKED("a") "," CALL("1") "," OUT("1", "x") "," CALL("2") "," OUT("2", "y") "]",
     "user[a] assistant[!1:f] tool[1=x+0] assistant[!2:f] tool[2=y+0]"},
    /* an id that is used twice */
    {"[" CALL("1") "," OUT("1", "x") "," ASKED("b") "," CALL("1") "," OUT("1", "y") "]",
     "assistant[!1:f] tool[1=x+0] user[b] assistant[!1:f] tool[1=y+0]"},
    {"[" SAID("a") "," SAID("b") "," ASKED("c") "]", "assistant[a] assistant[b] user[c]"},
    {"[" CALL("1") "," THOUGHT("t") "," CALL("2") "," OUT("1", "x") "," OUT("2", "y") "]",
     "assistant[!1:f,?t,!2:f] tool[1=x+0] tool[2=y+0]"},
    {"[" ASKED("a") "," THOUGHT("t") "," ASKED("b") "]", "user[a] user[b]"},
    {"[" ASKED("a") ",{\"type\":\"item_reference\",\"id\":\"msg_9\"}]", "user[a]"},
    {"[{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"no\"}]}," ASKED(
         "b") "]",
     "assistant[~no] user[b]"},
    {"[{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_image\",\"image_url\":"
     "\"https://x/y.png\"},{\"type\":\"input_image\",\"image_url\":\"data:image/png;base64,AAAA\"},"
     "{\"type\":\"input_file\",\"file_url\":\"https://x/a.pdf\"},{\"type\":\"input_file\","
     "\"filename\":\"a\",\"file_data\":\"data:application/pdf;base64,BBBB\"}]}]",
     "user[ihttps://x/y.png,iAAAA,fhttps://x/a.pdf,fBBBB]"},
    {"[" CALL("1") ",{\"type\":\"function_call_output\",\"call_id\":\"1\",\"output\":[{\"type\":"
                   "\"input_text\",\"text\":\"x\"},{\"type\":\"input_image\",\"image_url\":"
                   "\"data:image/png;base64,AAAA\"}]}]",
     "assistant[!1:f] tool[1=x+2]"},
};

START_TEST(what_items_become)
{
    ck_assert_str_eq(told_of(items[_i].input), items[_i].told);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(earlier_turns_come_first)
{
    static const struct cm_response_turn turns[] = {
        {CM_S_INIT("\"Hi\""), CM_S_INIT("{\"output\":[" SAID("Hello") "]}")},
        {CM_S_INIT("[" ASKED("look") "]"),
         CM_S_INIT("{\"output\":[" THOUGHT("t") "," CALL("1") "]}")},
    };
    struct cm_response_ask ask = {.turns = turns, .n_turns = 2};

    chat.response = &ask;
    parse(
        "{\"model\":\"m\",\"previous_response_id\":\"resp_cm_1\",\"instructions\":\"s\",\"input\":[" OUT(
            "1", "x") "]}");
    ck_assert_str_eq(
        told(), "system[s] user[Hi] assistant[Hello] user[look] assistant[?t,!1:f] tool[1=x+0]");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(a_response_of_an_upstream)
{
    /* the call that it answers is not ours to see */
    parse("{\"model\":\"m\",\"previous_response_id\":\"resp_1\",\"input\":[" OUT("1", "x") "]}");
    ck_assert_str_eq(chat.untranslatable.code, "previous_response_not_found");
}
END_TEST

static const struct {
    const char *members, *param, *code;
} wrong[] = {
    {"", "input", "missing_required_parameter"},
    {",\"input\":[]", "input", "empty_array"},
    {",\"input\":[1]", "input[0]", "invalid_type"},
    {",\"input\":[{\"content\":\"x\"}]", "input[0].role", "missing_required_parameter"},
    {",\"input\":[{\"role\":\"user\"}]", "input[0].content", "missing_required_parameter"},
    {",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]",
     "input[0].content[0].image_url", "missing_required_parameter"},
    {",\"input\":[" CALL("1") "]", "input", ""},
    {",\"input\":[" OUT("1", "x") "]", "input[0]", ""},
    {",\"input\":[{\"type\":\"function_call\",\"call_id\":\"1\",\"name\":\"f\"}]",
     "input[0].arguments", "missing_required_parameter"},
    {",\"input\":\"x\",\"input\":\"y\"", "input", "duplicate_parameter"},
    {",\"input\":\"x\",\"store\":1", "store", "invalid_type"},
    {",\"input\":\"x\",\"include\":[1]", "include[0]", "invalid_type"},
    {",\"input\":\"x\",\"tools\":{}", "tools", "invalid_type"},
    {",\"input\":\"x\",\"tools\":[{\"type\":\"function\"}]", "tools[0].name",
     "missing_required_parameter"},
    {",\"input\":\"x\",\"tool_choice\":\"required\"", "tool_choice", ""},
    {",\"input\":\"x\",\"tool_choice\":\"some\"", "tool_choice", "invalid_value"},
    {",\"input\":\"x\",\"previous_response_id\":\"a\",\"conversation\":\"b\"",
     "previous_response_id", "mutually_exclusive_parameters"},
};

START_TEST(wrong_requests)
{
    struct cm_err err = {0};
    const struct cm_str body = cm_arena_printf(&arena, "{\"model\":\"m\"%s}", wrong[_i].members);

    ck_assert_int_eq(cm_surface_responses.parse(&chat, body, &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(err.param, wrong[_i].param);
    ck_assert_str_eq(err.code, wrong[_i].code);
}
END_TEST

static const struct {
    const char *members, *param;
} foreign[] = {
    {",\"conversation\":\"c\"", "conversation"},
    {",\"prompt\":{\"id\":\"p\"}", "prompt"},
    {",\"tools\":[{\"type\":\"web_search\"}]", "tools[0].type"},
    {",\"tools\":[{\"type\":\"custom\",\"name\":\"x\"}]", "tools[0].type"},
    {",\"tool_choice\":{\"type\":\"mcp\"}", "tool_choice.type"},
    {",\"text\":{\"format\":{\"type\":\"grammar\"}}", "text.format.type"},
};

START_TEST(only_for_those_who_speak_it)
{
    parse(cm_arena_printf(&arena, "{\"model\":\"m\",\"input\":\"x\"%s}", foreign[_i].members).p);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(chat.untranslatable.param, foreign[_i].param);
}
END_TEST

/* ---- Out ---- */

#define ID "resp_cm_7X"
/* What the response repeats of the request {"model":"m","input":"Hi"}. */
#define ECHO                                                                                       \
    "\"instructions\":null,\"max_output_tokens\":null,\"max_tool_calls\":null,\"metadata\":{},"    \
    "\"parallel_tool_calls\":true,\"previous_response_id\":null,\"prompt_cache_key\":null,"        \
    "\"reasoning\":{\"effort\":null,\"summary\":null},\"safety_identifier\":null,"                 \
    "\"temperature\":1.0,\"text\":{\"format\":{\"type\":\"text\"}},\"tool_choice\":\"auto\","      \
    "\"tools\":[],\"top_logprobs\":0,\"top_p\":1.0,\"truncation\":\"disabled\",\"user\":null,"     \
    "\"service_tier\":\"auto\",\"store\":true,\"model\":\"m\""
#define RESPONSE(status, error, why, output, usage)                                                \
    "{\"id\":\"" ID "\",\"object\":\"response\",\"created_at\":7,\"status\":\"" status             \
    "\",\"background\":false,\"error\":" error ",\"incomplete_details\":" why "," ECHO             \
    ",\"output\":[" output "],\"usage\":" usage "}"
#define USAGE                                                                                      \
    "{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":4,\"cache_write_tokens\":3}," \
    "\"output_tokens\":6,\"output_tokens_details\":{\"reasoning_tokens\":1},\"total_tokens\":15}"
#define EVENT(n, type, members)                                                                    \
    "event: " type "\ndata: {\"type\":\"" type "\",\"sequence_number\":" #n members "}\n\n"
#define BEGUN RESPONSE("in_progress", "null", "null", "", "null")
#define BEGIN                                                                                      \
    EVENT(0, "response.created", ",\"response\":" BEGUN)                                           \
    EVENT(1, "response.in_progress", ",\"response\":" BEGUN)
#define AT(id, index) ",\"item_id\":\"" id "\",\"output_index\":" #index
#define IN(id, index, content) AT(id, index) ",\"content_index\":" #content
#define TEXT(text)                                                                                 \
    "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"" text "\"}"
#define MESSAGE(id, status, parts)                                                                 \
    "{\"id\":\"" id "\",\"type\":\"message\",\"status\":\"" status "\",\"content\":[" parts        \
    "],\"role\":\"assistant\"}"
#define ITEM(index, item) ",\"output_index\":" #index ",\"item\":" item
#define FC(id, status, args, call, name)                                                           \
    "{\"id\":\"" id "\",\"type\":\"function_call\",\"status\":\"" status                           \
    "\",\"arguments\":\"" args "\",\"call_id\":\"" call "\",\"name\":\"" name "\"}"

static const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM,
                                      .in_uncached = 2,
                                      .in_cache_read = 4,
                                      .in_cache_write = 3,
                                      .out_text = 5,
                                      .out_reasoning = 1};

static struct cm_answer_meta meta_of(void)
{
    return (struct cm_answer_meta){.id = CM_S(ID),
                                   .model = CM_S("m"),
                                   .created_s = 7,
                                   .n = 1,
                                   .reasoning = CM_REASONING_FIELD,
                                   .chat = &chat};
}

static void ask(void)
{
    parse("{\"model\":\"m\",\"input\":\"Hi\"}");
}

/* The bytes of a whole stream; with an error instead of its end, if there is one. */
static struct cm_str streamed(const struct cm_event *events, size_t n, const struct cm_err *err)
{
    const struct cm_surface *s = &cm_surface_responses;
    void *state = cm_arena_zalloc(&arena, s->stream_size);
    const struct cm_answer_meta meta = meta_of();
    struct cm_buf out = {0};

    s->stream_begin(state, &meta, &out);
    for (size_t i = 0; i < n; i++)
        s->stream_event(state, &events[i], &out);
    if (err)
        s->stream_error(state, err, &out);
    else
        s->stream_end(state, &usage, &out);
    ck_assert_uint_gt(s->stream_object(state).n, 0);
    ck_assert(cm_str_has(cm_buf_str(&out), s->stream_object(state)));
    s->stream_clear(state);
    return cm_buf_settle(&out, &arena);
}

static struct cm_event text_event(enum cm_event_kind kind, const char *text)
{
    return (struct cm_event){.kind = kind, .text = cm_str_of(text)};
}

START_TEST(a_stream_of_text)
{
    const struct cm_event events[] = {text_event(CM_EVENT_TEXT, "Hel"),
                                      text_event(CM_EVENT_TEXT, ""),
                                      text_event(CM_EVENT_TEXT, "lo"),
                                      {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP}};

    ask();
    ck_str(streamed(events, CM_COUNT(events), NULL),
           BEGIN EVENT(2, "response.output_item.added",
                       ITEM(0, MESSAGE("msg_7X_0", "in_progress", "")))
               EVENT(3, "response.content_part.added", IN("msg_7X_0", 0, 0) ",\"part\":" TEXT(""))
                   EVENT(4, "response.output_text.delta",
                         IN("msg_7X_0", 0, 0) ",\"delta\":\"Hel\",\"logprobs\":[]")
                       EVENT(5, "response.output_text.delta",
                             IN("msg_7X_0", 0, 0) ",\"delta\":\"lo\",\"logprobs\":[]")
                           EVENT(6, "response.output_text.done",
                                 IN("msg_7X_0", 0, 0) ",\"text\":\"Hello\",\"logprobs\":[]")
                               EVENT(7, "response.content_part.done",
                                     IN("msg_7X_0", 0, 0) ",\"part\":" TEXT("Hello"))
                                   EVENT(8, "response.output_item.done",
                                         ITEM(0, MESSAGE("msg_7X_0", "completed", TEXT("Hello"))))
                                       EVENT(9, "response.completed",
                                             ",\"response\":" RESPONSE(
                                                 "completed", "null", "null",
                                                 MESSAGE("msg_7X_0", "completed", TEXT("Hello")),
                                                 USAGE)));
}
END_TEST

START_TEST(what_is_repeated_is_bounded)
{
    static const struct cm_event piece = {.kind = CM_EVENT_TEXT};
    const struct cm_surface *s = &cm_surface_responses;
    void *state = cm_arena_zalloc(&arena, s->stream_size);
    struct cm_answer_meta meta;
    struct cm_event ev = piece;
    struct cm_buf out = {0}, text = {0};
    size_t said = 0;

    ask();
    meta = meta_of();
    memset(cm_buf_reserve(&text, 1024 * 1024), 'x', 1024 * 1024);
    ev.text = cm_str(text.p, 1024 * 1024);
    s->stream_begin(state, &meta, &out);
    while (!s->stream_full(state)) {
        cm_buf_reset(&out);
        s->stream_event(state, &ev, &out);
        said += ev.text.n;
    }
    ck_assert_uint_eq(said, CM_ANSWER_MAX + ev.text.n);
    s->stream_clear(state);
    cm_buf_clear(&out);
    cm_buf_clear(&text);
}
END_TEST

/* Arguments cut at every place, and a second call that comes in between. */
START_TEST(a_call_for_every_split)
{
    static const struct cm_str args = CM_S_INIT("{\"a\":\"}\\\"{\",\"b\":[1,{}]}");

    for (size_t cut = 0; cut <= args.n; cut++) {
        const struct cm_event events[] = {
            {.kind = CM_EVENT_TOOL_CALL, .id = CM_S("c1"), .name = CM_S("f")},
            {.kind = CM_EVENT_TOOL_ARGS, .text = cm_str_head(args, cut)},
            {.kind = CM_EVENT_TOOL_CALL, .index = 1, .id = CM_S("c2"), .name = CM_S("g")},
            {.kind = CM_EVENT_TOOL_ARGS, .text = cm_str_from(args, cut)},
            {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_TOOL_CALLS}};
        struct cm_str out;

        ask();
        out = streamed(events, CM_COUNT(events), NULL);
        ck_assert(cm_str_has(
            out,
            CM_S(FC("fc_7X_0", "completed", "{\\\"a\\\":\\\"}\\\\\\\"{\\\",\\\"b\\\":[1,{}]}", "c1",
                    "f") "," FC("fc_7X_1", "completed", "{}", "c2", "g") "],\"usage\"")));
        ck_assert(cm_str_find(out, CM_S("\"output_index\":1")) >
                  cm_str_find(out, CM_S("response.function_call_arguments.done")));
        teardown();
        setup();
    }
}
END_TEST

START_TEST(reasoning_comes_first_and_closes)
{
    const struct cm_event events[] = {text_event(CM_EVENT_REASONING, "I "),
                                      text_event(CM_EVENT_REASONING, "think"),
                                      text_event(CM_EVENT_SIGNATURE, "x"),
                                      text_event(CM_EVENT_REFUSAL, "No."),
                                      {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_REFUSAL}};
    struct cm_str out;

    ask();
    out = streamed(events, CM_COUNT(events), NULL);
#define RS "{\"id\":\"rs_7X_0\",\"type\":\"reasoning\",\"summary\":["
#define SUMMARY(text) "{\"type\":\"summary_text\",\"text\":\"" text "\"}"
    ck_assert(cm_str_has(
        out, CM_S(EVENT(2, "response.output_item.added", ITEM(0, RS "]}")) EVENT(
                 3, "response.reasoning_summary_part.added",
                 AT("rs_7X_0", 0) ",\"summary_index\":0,\"part\":" SUMMARY(""))
                      EVENT(4, "response.reasoning_summary_text.delta",
                            AT("rs_7X_0", 0) ",\"summary_index\":0,\"delta\":\"I \"")
                          EVENT(5, "response.reasoning_summary_text.delta",
                                AT("rs_7X_0", 0) ",\"summary_index\":0,\"delta\":\"think\"")
                              EVENT(6, "response.reasoning_summary_text.done",
                                    AT("rs_7X_0", 0) ",\"summary_index\":0,\"text\":\"I think\"")
                                  EVENT(7, "response.reasoning_summary_part.done",
                                        AT("rs_7X_0",
                                           0) ",\"summary_index\":0,\"part\":" SUMMARY("I think"))
                                      EVENT(8, "response.output_item.done",
                                            ITEM(0, RS SUMMARY("I think") "]}")))));
    ck_assert(cm_str_has(out, CM_S("\"status\":\"completed\",\"content\":[{\"type\":\"refusal\","
                                   "\"refusal\":\"No.\"}]")));
    ck_assert(cm_str_has(out, CM_S("event: response.completed\n")));
}
END_TEST

START_TEST(how_a_stream_ends)
{
    static const struct {
        enum cm_finish finish;
        const char *end;
    } ends[] = {
        {CM_FINISH_STOP, "response.completed"},
        {CM_FINISH_TOOL_CALLS, "response.completed"},
        {CM_FINISH_LENGTH, "\"incomplete_details\":{\"reason\":\"max_output_tokens\"}"},
        {CM_FINISH_CONTEXT, "\"incomplete_details\":{\"reason\":\"max_output_tokens\"}"},
        {CM_FINISH_CONTENT_FILTER, "\"incomplete_details\":{\"reason\":\"content_filter\"}"},
        {CM_FINISH_REFUSAL, "event: response.incomplete\n"},
    };

    for (size_t i = 0; i < CM_COUNT(ends); i++) {
        const struct cm_event events[] = {text_event(CM_EVENT_TEXT, "x"),
                                          {.kind = CM_EVENT_FINISH, .finish = ends[i].finish}};

        ask();
        ck_assert_msg(cm_str_has(streamed(events, 2, NULL), cm_str_of(ends[i].end)), "%s",
                      ends[i].end);
    }
    /* nothing at all is an empty message */
    ask();
    ck_assert(
        cm_str_has(streamed(NULL, 0, NULL), CM_S(MESSAGE("msg_7X_0", "completed", TEXT("")))));
}
END_TEST

START_TEST(a_failure_inside)
{
    const struct cm_event events[] = {text_event(CM_EVENT_TEXT, "x")};
    struct cm_err err;
    struct cm_str out;

    ask();
    cm_fail(&err, CM_ERR_CUT, "it broke");
    out = streamed(events, 1, &err);
    ck_assert(cm_str_ends(
        out,
        CM_S(EVENT(5, "error", ",\"code\":\"upstream_cut\",\"message\":\"it broke\",\"param\":null")
                 EVENT(6, "response.failed",
                       ",\"response\":" RESPONSE(
                           "failed", "{\"code\":\"upstream_cut\",\"message\":\"it broke\"}", "null",
                           "", "null")))));
    ck_assert(!cm_str_has(out, CM_S("output_item.done")));
}
END_TEST

START_TEST(a_job_that_is_cancelled)
{
    const struct cm_event event = text_event(CM_EVENT_TEXT, "x");
    const struct cm_surface *s = &cm_surface_responses;
    void *state = cm_arena_zalloc(&arena, s->stream_size);
    struct cm_answer_meta meta;
    struct cm_buf out = {0};

    ask();
    meta = meta_of();
    s->stream_begin(state, &meta, &out);
    s->stream_event(state, &event, &out);
    cm_buf_reset(&out);
    cm_responses_number(state, 70);
    cm_responses_cancel(state, &out);
    ck_str(cm_buf_str(&out),
           EVENT(70, "response.incomplete",
                 ",\"response\":" RESPONSE("cancelled", "null", "null", "", "null")));
    ck_str(s->stream_object(state), RESPONSE("cancelled", "null", "null", "", "null"));
    s->stream_clear(state);
    cm_buf_reset(&out);
    cm_responses_put_progress(&out, &meta, "queued");
    ck_str(cm_buf_str(&out), RESPONSE("queued", "null", "null", "", "null"));
    cm_buf_clear(&out);
}
END_TEST

START_TEST(a_job_whose_process_has_gone)
{
    static const char *const left[] = {"queued", "in_progress"}, *const settled[] = {
                                                                     "completed", "failed",
                                                                     "incomplete", "cancelled"};
    struct cm_buf object = {0}, out = {0};

    for (size_t i = 0; i < CM_COUNT(left); i++) {
        cm_buf_reset(&object);
        cm_buf_reset(&out);
        cm_buf_printf(&object, "{\"id\":\"a\",\"status\":\"%s\",\"error\":null,\"output\":[]}",
                      left[i]);
        ck_assert(cm_responses_interrupted(cm_buf_str(&object), &out));
        ck_assert(cm_str_starts(cm_buf_str(&out),
                                CM_S("{\"id\":\"a\",\"status\":\"failed\",\"error\":{\"code\":"
                                     "\"server_error\",\"message\":\"the gateway was stopped")));
        ck_assert(cm_str_ends(cm_buf_str(&out), CM_S("},\"output\":[]}")));
    }
    cm_buf_reset(&out);
    for (size_t i = 0; i < CM_COUNT(settled); i++) {
        cm_buf_reset(&object);
        cm_buf_printf(&object, "{\"status\":\"%s\",\"error\":null}", settled[i]);
        ck_assert(!cm_responses_interrupted(cm_buf_str(&object), &out));
    }
    ck_assert(!cm_responses_interrupted(CM_S("{}"), &out));
    ck_assert(!cm_responses_interrupted(CM_S(""), &out));
    ck_assert_uint_eq(out.n, 0);
    cm_buf_clear(&object);
    cm_buf_clear(&out);
}
END_TEST

START_TEST(citations_and_logprobs)
{
    const struct cm_event events[] = {
        {.kind = CM_EVENT_TEXT, .text = CM_S("a"), .logprobs = CM_S("[{\"token\":\"a\"}]")},
        {.kind = CM_EVENT_TEXT, .text = CM_S("b"), .logprobs = CM_S("[{\"token\":\"b\"}]")},
        {.kind = CM_EVENT_CITATION,
         .url = CM_S("https://x"),
         .name = CM_S("X"),
         .from = 0,
         .to = 2}};
    struct cm_str out;

    ask();
    out = streamed(events, CM_COUNT(events), NULL);
#define NOTE                                                                                        \
    "{\"type\":\"url_citation\",\"start_index\":0,\"end_index\":2,\"url\":\"https://x\",\"title\":" \
    "\"X\"}"
    ck_assert(cm_str_has(out, CM_S("\"delta\":\"b\",\"logprobs\":[{\"token\":\"b\"}]")));
    ck_assert(cm_str_has(out, CM_S(EVENT(6, "response.output_text.annotation.added",
                                         IN("msg_7X_0", 0, 0) ",\"annotation_index\":0,"
                                                              "\"annotation\":" NOTE))));
    ck_assert(cm_str_has(out, CM_S("{\"type\":\"output_text\",\"annotations\":[" NOTE
                                   "],\"logprobs\":[{\"token\":\"a\"},{\"token\":\"b\"}],"
                                   "\"text\":\"ab\"}")));
}
END_TEST

START_TEST(whole_answers)
{
    const struct cm_event events[] = {
        text_event(CM_EVENT_REASONING, "hm"),
        text_event(CM_EVENT_TEXT, "Look"),
        {.kind = CM_EVENT_TOOL_CALL, .id = CM_S("c1"), .name = CM_S("f")},
        {.kind = CM_EVENT_TOOL_ARGS, .text = CM_S("{\"a\":1}")},
        {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_TOOL_CALLS}};
    struct cm_answer answer = {0};
    struct cm_answer_meta meta;
    struct cm_buf out = {0};
    yyjson_doc *doc;

    ask();
    meta = meta_of();
    for (size_t i = 0; i < CM_COUNT(events); i++)
        ck_assert_int_eq(cm_answer_add(&answer, &events[i], NULL), 0);
    answer.usage = usage;
    cm_surface_responses.whole(&meta, &answer, &out);
    ck_str(cm_buf_str(&out),
           RESPONSE("completed", "null", "null",
                    RS SUMMARY("hm") "]}," MESSAGE("msg_7X_1", "completed", TEXT("Look")) "," FC(
                        "fc_7X_2", "completed", "{\\\"a\\\":1}", "c1", "f"),
                    USAGE));
    doc = cm_json_parse(cm_buf_str(&out), &cm_json_limits_request, NULL);
    ck_assert_ptr_nonnull(doc);
    yyjson_doc_free(doc);
    cm_buf_reset(&out);
    meta.reasoning = CM_REASONING_HIDE;
    cm_surface_responses.whole(&meta, &answer, &out);
    ck_assert(!cm_str_has(cm_buf_str(&out), CM_S("summary_text")));
    cm_answer_clear(&answer);
    cm_buf_clear(&out);
}
END_TEST

START_TEST(counting)
{
    struct cm_answer answer = {.usage = {.in_uncached = 5, .in_cache_read = 2}};
    struct cm_buf out = {0};
    struct cm_err err = {0};

    ck_assert_int_eq(cm_surface_responses_tokens.parse(
                         &chat, CM_S("{\"model\":\"m\",\"input\":\"Hi\",\"stream\":true}"), &err),
                     0);
    ck_assert_int_eq(chat.task, CM_TASK_COUNT_TOKENS);
    ck_assert(!chat.stream);
    cm_surface_responses_tokens.whole(NULL, &answer, &out);
    ck_str(cm_buf_str(&out), "{\"object\":\"response.input_tokens\",\"input_tokens\":7}");
    cm_buf_clear(&out);
}
END_TEST

static const struct {
    const char *input, *after;
    int limit;
    bool ascending;
    const char *ids, *more; /* NULL = there is no such item */
} pages[] = {
    {"\"Hi\"", "", 20, false, "in_7X_0", "false"},
    {"\"Hi\"", "in_7X_0", 20, false, "", "false"},
    {"[]", "", 20, false, "", "false"},
    {"[" ASKED("a") "," ASKED("b") "," SAID("c") "]", "", 2, false, "msg_1 in_7X_1", "true"},
    {"[" ASKED("a") "," ASKED("b") "," SAID("c") "]", "in_7X_1", 2, false, "in_7X_0", "false"},
    {"[" ASKED("a") "," ASKED("b") "," SAID("c") "]", "in_7X_0", 1, true, "in_7X_1", "true"},
    {"[" ASKED("a") "," ASKED("b") "," SAID("c") "]", "msg_1", 9, true, "", "false"},
    {"[" ASKED("a") "]", "in_7X_1", 9, true, NULL, NULL},
};

START_TEST(pages_of_items)
{
    const struct cm_response_page page = {.after = cm_str_of(pages[_i].after),
                                          .limit = pages[_i].limit,
                                          .ascending = pages[_i].ascending};
    struct cm_buf out = {0}, ids = {0};
    struct cm_err err = {0};
    yyjson_val *data, *item;
    yyjson_doc *doc;
    size_t i, n;

    if (!pages[_i].ids) {
        ck_assert_int_eq(
            cm_responses_items(CM_S(ID), cm_str_of(pages[_i].input), &page, &out, &err), -1);
        ck_assert_str_eq(err.param, "after");
        return;
    }
    ck_assert_int_eq(cm_responses_items(CM_S(ID), cm_str_of(pages[_i].input), &page, &out, &err),
                     0);
    doc = cm_json_parse(cm_buf_str(&out), &cm_json_limits_request, &err);
    ck_assert_msg(doc != NULL, "%s in %.*s", err.msg, CM_ARG(cm_buf_str(&out)));
    data = cm_json_get(yyjson_doc_get_root(doc), "data");
    yyjson_arr_foreach(data, i, n, item)
    {
        cm_buf_printf(&ids, "%s" CM_PRI, i ? " " : "",
                      CM_ARG(cm_json_str(cm_json_get(item, "id"))));
        ck_str(cm_json_str(cm_json_get(item, "type")), "message");
        ck_assert(yyjson_is_arr(cm_json_get(item, "content")));
    }
    ck_assert_str_eq(ids.p ? cm_buf_z(&ids) : "", pages[_i].ids);
    ck_assert(yyjson_get_bool(cm_json_get(yyjson_doc_get_root(doc), "has_more")) ==
              (strcmp(pages[_i].more, "true") == 0));
    yyjson_doc_free(doc);
    cm_buf_clear(&ids);
    cm_buf_clear(&out);
}
END_TEST

Suite *suite_responses_surface(void)
{
    Suite *s = suite_create("responses_surface");
    TCase *in = tcase_create("in"), *out = tcase_create("out");

    tcase_add_checked_fixture(in, setup, teardown);
    tcase_add_test(in, a_small_request);
    tcase_add_test(in, every_simple_member);
    tcase_add_loop_test(in, what_items_become, 0, (int)CM_COUNT(items));
    tcase_add_test(in, earlier_turns_come_first);
    tcase_add_test(in, a_response_of_an_upstream);
    tcase_add_loop_test(in, wrong_requests, 0, (int)CM_COUNT(wrong));
    tcase_add_loop_test(in, only_for_those_who_speak_it, 0, (int)CM_COUNT(foreign));
    tcase_add_test(in, counting);
    suite_add_tcase(s, in);

    tcase_add_checked_fixture(out, setup, teardown);
    tcase_add_test(out, a_stream_of_text);
    tcase_add_test(out, what_is_repeated_is_bounded);
    tcase_add_test(out, a_call_for_every_split);
    tcase_add_test(out, reasoning_comes_first_and_closes);
    tcase_add_test(out, how_a_stream_ends);
    tcase_add_test(out, a_failure_inside);
    tcase_add_test(out, a_job_that_is_cancelled);
    tcase_add_test(out, a_job_whose_process_has_gone);
    tcase_add_test(out, citations_and_logprobs);
    tcase_add_test(out, whole_answers);
    tcase_add_loop_test(out, pages_of_items, 0, (int)CM_COUNT(pages));
    suite_add_tcase(s, out);
    return s;
}
