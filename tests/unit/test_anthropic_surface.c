/* surface/anthropic: Messages bodies in, streams, whole answers and errors out. */
#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"
#include "surface_chat.h"

#include <math.h>
#include <stdlib.h>

static void parse(const char *body)
{
    parse_as(&cm_surface_anthropic, body);
}

#define HEAD "{\"model\":\"m\",\"max_tokens\":9,"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

START_TEST(a_small_request)
{
    const char *body = HEAD HI ",\"unknown\":{\"x\":1},\"temperature\":null}";

    parse(body);
    ck_str(chat.model, "m");
    ck_assert_ptr_eq(chat.raw.p, body);
    ck_assert_int_eq(chat.dialect, CM_DIALECT_ANTHROPIC);
    ck_assert_int_eq(chat.task, CM_TASK_CHAT);
    ck_assert_int_eq(chat.max_tokens, 9);
    ck_assert_uint_eq(chat.n_msgs, 1);
    ck_str(chat.msgs[0].parts[0].text, "Hi");
    ck_assert(isnan(chat.temperature) && chat.top_k == -1 && !chat.stream);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    ck_assert_uint_eq(cm_chat_fields(&chat), 0); /* max_tokens is no choice of the client's */
}
END_TEST

START_TEST(every_simple_member)
{
    parse(HEAD HI
          ",\"stream\":true,\"temperature\":0.5,\"top_p\":1,\"top_k\":40,"
          "\"stop_sequences\":[\"a\",\"b\"],\"metadata\":{\"user_id\":\"u\"},"
          "\"service_tier\":\"auto\",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"},"
          "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2000,\"display\":\"omitted\"},"
          "\"output_config\":{\"effort\":\"high\",\"format\":{\"type\":\"json_schema\","
          "\"schema\":{\"type\":\"object\"}}},\"context_management\":{},\"speed\":\"fast\","
          "\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"},"
          "\"strict\":true,\"cache_control\":{\"type\":\"ephemeral\"}},"
          "{\"type\":\"custom\",\"name\":\"g\",\"input_schema\":{}}],"
          "\"tool_choice\":{\"type\":\"tool\",\"name\":\"g\",\"disable_parallel_tool_use\":true}}");
    ck_assert(chat.stream);
    ck_assert(chat.temperature == 0.5 && chat.top_p == 1);
    ck_assert_int_eq(chat.top_k, 40);
    ck_assert_uint_eq(chat.n_stop, 2);
    ck_str(chat.stop[1], "b");
    ck_str(chat.user, "u");
    ck_str(chat.service_tier, "auto");
    ck_str(chat.cache, "1h");
    ck_assert_int_eq(chat.thinking, CM_THINKING_ON);
    ck_assert_int_eq(chat.thinking_budget, 2000);
    ck_assert_int_eq(chat.show_thinking, 0);
    ck_str(chat.reasoning_effort, "high");
    ck_assert_int_eq(chat.format, CM_FORMAT_SCHEMA);
    ck_str(chat.schema_name, "output");
    ck_str(chat.schema, "{\"type\":\"object\"}");
    ck_assert_uint_eq(chat.n_tools, 2);
    ck_str(chat.tools[0].parameters, "{\"type\":\"object\"}");
    ck_assert_int_eq(chat.tools[0].strict, 1);
    ck_str(chat.tools[0].cache, "5m");
    ck_assert_int_eq(chat.tools[1].strict, -1);
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_NAMED);
    ck_str(chat.tool_name, "g");
    ck_assert_int_eq(chat.parallel_tool_calls, 0);
    ck_assert_uint_eq(chat.n_dropped, 2);
    ck_str(chat.dropped[0], "context_management");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(thinking_and_choices)
{
    static const struct {
        const char *members;
        enum cm_thinking thinking;
        int show;
        enum cm_tool_choice choice;
    } cases[] = {
        {"", CM_THINKING_UNSET, -1, CM_TOOLS_UNSET},
        {",\"thinking\":{\"type\":\"adaptive\",\"display\":\"summarized\"}", CM_THINKING_ADAPTIVE,
         1, CM_TOOLS_UNSET},
        {",\"thinking\":{\"type\":\"disabled\"}", CM_THINKING_OFF, -1, CM_TOOLS_UNSET},
        {",\"tool_choice\":{\"type\":\"auto\"}", CM_THINKING_UNSET, -1, CM_TOOLS_AUTO},
        {",\"tool_choice\":{\"type\":\"any\"}", CM_THINKING_UNSET, -1, CM_TOOLS_REQUIRED},
        {",\"tool_choice\":{\"type\":\"none\"}", CM_THINKING_UNSET, -1, CM_TOOLS_NONE},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_str body = cm_arena_printf(&arena, "%s%s%s}", HEAD, HI, cases[i].members);

        parse(cm_arena_z(&arena, body));
        ck_assert_int_eq(chat.thinking, cases[i].thinking);
        ck_assert_int_eq(chat.show_thinking, cases[i].show);
        ck_assert_int_eq(chat.tool_choice, cases[i].choice);
        ck_assert_int_eq(chat.parallel_tool_calls, -1);
    }
}
END_TEST

START_TEST(system_and_content)
{
    parse(HEAD
          "\"system\":[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":\"two\","
          "\"cache_control\":{\"type\":\"ephemeral\"}}],\"messages\":["
          "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"look\"},"
          "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\","
          "\"data\":\"iVBO\"}},{\"type\":\"image\",\"source\":{\"type\":\"url\","
          "\"url\":\"https://h/p\"}},{\"type\":\"document\",\"title\":\"T\",\"context\":\"C\","
          "\"source\":{\"type\":\"base64\",\"media_type\":\"application/pdf\",\"data\":\"JVBE\"}},"
          "{\"type\":\"document\",\"title\":\"T\",\"citations\":{\"enabled\":true},\"source\":"
          "{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"body\"}},"
          "{\"type\":\"document\",\"source\":{\"type\":\"content\",\"content\":["
          "{\"type\":\"text\",\"text\":\"inner\"}]}},"
          "{\"type\":\"search_result\",\"title\":\"S\",\"source\":\"https://s\",\"content\":["
          "{\"type\":\"text\",\"text\":\"found\"}]}]},"
          "{\"role\":\"system\",\"content\":\"now\"},"
          "{\"role\":\"assistant\",\"content\":\"pre\"}]}");
    const struct cm_part *p = chat.msgs[1].parts;

    ck_assert_uint_eq(chat.n_msgs, 4);
    ck_assert_int_eq(chat.msgs[0].role, CM_ROLE_SYSTEM);
    ck_assert_uint_eq(chat.msgs[0].n_parts, 2);
    ck_str(chat.msgs[0].parts[1].text, "two");
    ck_str(chat.msgs[0].parts[1].cache, "5m");
    ck_assert_uint_eq(chat.msgs[1].n_parts, 8);
    ck_assert_int_eq(p[1].kind, CM_PART_IMAGE);
    ck_str(p[1].media_type, "image/png");
    ck_str(p[1].data, "iVBO");
    ck_str(p[2].url, "https://h/p");
    ck_assert_int_eq(p[3].kind, CM_PART_FILE);
    ck_str(p[3].name, "T");
    ck_str(p[3].context, "C");
    ck_assert_int_eq(p[4].kind, CM_PART_TEXT);
    ck_str(p[4].text, "T\n\nbody");
    ck_str(p[5].text, "inner");
    ck_str(p[6].text, "S (https://s)");
    ck_str(p[7].text, "found");
    ck_assert_int_eq(chat.msgs[2].role, CM_ROLE_SYSTEM);
    ck_assert_int_eq(chat.msgs[3].role, CM_ROLE_ASSISTANT);
    ck_str(chat.dropped[0], "citations");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(tools_and_thinking_in_the_history)
{
    parse(
        HEAD
        "\"messages\":[{\"role\":\"user\",\"content\":\"go\"},{\"role\":\"assistant\",\"content\":["
        "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"sig\"},"
        "{\"type\":\"redacted_thinking\",\"data\":\"sealed\"},"
        "{\"type\":\"text\",\"text\":\"I look\",\"citations\":[]},"
        "{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"web_search\",\"input\":{}},"
        "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\",\"input\":{\"a\":1.0}},"
        "{\"type\":\"tool_use\",\"id\":\"cmx-functions_2ef_3a0\",\"name\":\"g\",\"input\":{}}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_1\","
        "\"is_error\":true,\"content\":\"bad\"},{\"type\":\"tool_result\","
        "\"tool_use_id\":\"cmx-functions_2ef_3a0\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},"
        "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://h/p\"}},"
        "{\"type\":\"text\",\"text\":\"y\"}]},{\"type\":\"text\",\"text\":\"and?\"}]}]}");
    const struct cm_part *p = chat.msgs[1].parts, *r;

    ck_assert_uint_eq(chat.n_msgs, 5);
    ck_assert_uint_eq(chat.msgs[1].n_parts, 5);
    ck_str(p[0].text, "hm");
    ck_str(p[0].signature, "sig");
    ck_assert(p[1].redacted);
    ck_str(p[1].data, "sealed");
    ck_str(p[3].text, "{\"a\":1.0}");
    ck_str(p[4].id, "functions.f:0"); /* as the platform had it */
    ck_assert_int_eq(chat.msgs[2].role, CM_ROLE_TOOL);
    r = chat.msgs[2].parts;
    ck_str(r->id, "toolu_1");
    ck_str(r->text, "bad");
    ck_assert(r->failed && r->n_parts == 0);
    r = chat.msgs[3].parts;
    ck_str(r->id, "functions.f:0");
    ck_str(r->text, "x\ny");
    ck_assert_uint_eq(r->n_parts, 3);
    ck_assert_int_eq(r->parts[1].kind, CM_PART_IMAGE);
    ck_assert_int_eq(chat.msgs[4].role, CM_ROLE_USER);
    ck_str(chat.dropped[0], "server_tool_use");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

/* The rest of a body, and what it is refused for. */
static const struct {
    const char *members, *param, *text;
} wrong[] = {
    {"\"max_tokens\":1," HI, "model", "Missing"},
    {"\"model\":\"m\"," HI, "max_tokens", "Missing"},
    {"\"model\":\"m\",\"max_tokens\":-1," HI, "max_tokens", ""},
    {"\"model\":\"m\",\"max_tokens\":\"1\"," HI, "max_tokens", "integer"},
    {"\"model\":\"m\",\"max_tokens\":1", "messages", "Missing"},
    {"\"model\":\"m\",\"max_tokens\":1,\"messages\":[]", "messages", "at least one"},
    {"\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]",
     "messages[0].role", "'tool'"},
    {"\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\"}]", "messages[0].content",
     "Missing"},
    {"\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
     "\"text\"}]}]",
     "messages[0].content[0].text", "Missing"},
    {"\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
     "\"image\",\"source\":{\"type\":\"url\",\"url\":\"ftp://x\"}}]}]",
     "messages[0].content[0].source.url", "http"},
    {"\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"assistant\",\"content\":[{"
     "\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":\"{}\"}]}]",
     "messages[0].content[0].input", "object"},
    {"\"model\":\"m\",\"max_tokens\":1,\"temperature\":1.5," HI, "temperature", "above"},
    {"\"model\":\"m\",\"max_tokens\":1,\"model\":\"n\"," HI, "model", "more than once"},
    {"\"model\":\"m\",\"max_tokens\":1,\"thinking\":{\"type\":\"enabled\"}," HI,
     "thinking.budget_tokens", "Missing"},
    {"\"model\":\"m\",\"max_tokens\":1,\"tool_choice\":{\"type\":\"some\"}," HI, "tool_choice.type",
     "'some'"},
    {"\"model\":\"m\",\"max_tokens\":1,\"system\":7," HI, "system", "string or an array"},
    {"\"model\":\"m\",\"max_tokens\":1,\"tools\":[{\"input_schema\":{}}]," HI, "tools[0].name",
     "Missing"},
    {"\"model\":\"m\",\"max_tokens\":1,\"output_config\":{\"format\":{\"type\":\"json_schema\"}}," HI,
     "output_config.format.schema", "Missing"},
};

START_TEST(wrong_requests)
{
    struct cm_str body = cm_arena_printf(&arena, "{%s}", wrong[_i].members);
    struct cm_err err = {0};

    ck_assert_int_eq(cm_surface_anthropic.parse(&chat, body, &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(err.param, wrong[_i].param);
    ck_assert_msg(cm_str_has(cm_str_of(err.msg), cm_str_of(wrong[_i].text)), "%s", err.msg);
}
END_TEST

#define USER(content) "\"messages\":[{\"role\":\"user\",\"content\":[" content "]}]"
#define CALLED                                                                                     \
    "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\","     \
    "\"input\":{}}]}"

/* What Anthropic itself may take, or refuse in its own words. */
static const struct {
    const char *members, *param, *text;
} foreign[] = {
    {USER("{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}}"),
     "messages[0].content[0].source.type", "\"file\""},
    {USER("{\"type\":\"container_upload\",\"file_id\":\"f\"}"), "messages[0].content[0].type",
     "container_upload"},
    {"\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]," HI, "tools[0].type",
     "web_search_20250305"},
    {"\"container\":\"c\"," HI, "container", "container"},
    {"\"mcp_servers\":[{}]," HI, "mcp_servers", "MCP"},
    {"\"thinking\":{\"type\":\"later\"}," HI, "thinking.type", "thinking"},
    {"\"tool_choice\":{\"type\":\"tool\",\"name\":\"no\"}," HI, "tool_choice.name",
     "'no' not found"},
    {"\"messages\":[" CALLED "]", "messages[0]", "without `tool_result`"},
    {"\"messages\":[" CALLED "," CALLED "]", "messages[1]", "immediately after: a."},
    {USER("{\"type\":\"tool_result\",\"tool_use_id\":\"b\"}"), "messages[0].content[0]",
     "unexpected `tool_use_id`"},
    {"\"messages\":[{\"role\":\"user\",\"content\":[]},{\"role\":\"user\",\"content\":\"x\"}]",
     "messages[0].content", "non-empty"},
};

START_TEST(only_for_anthropic_itself)
{
    parse(cm_arena_z(&arena, cm_arena_printf(&arena, HEAD "%s}", foreign[_i].members)));
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(chat.untranslatable.param, foreign[_i].param);
    ck_assert_msg(cm_str_has(cm_str_of(chat.untranslatable.msg), cm_str_of(foreign[_i].text)), "%s",
                  chat.untranslatable.msg);
}
END_TEST

START_TEST(counting)
{
    const struct cm_answer answer = {.usage = {.in_uncached = 7, .in_cache_read = 5}}, none = {0};
    struct cm_buf out = {0};
    struct cm_err err = {0};

    ck_assert_int_eq(cm_surface_anthropic_count.parse(
                         &chat, CM_S("{\"model\":\"m\",\"stream\":true," HI "}"), &err),
                     0);
    ck_assert_int_eq(chat.task, CM_TASK_COUNT_TOKENS);
    ck_assert(!chat.stream);
    cm_surface_anthropic_count.whole(NULL, &answer, &out);
    cm_surface_anthropic_count.whole(NULL, &none, &out);
    ck_str(cm_buf_str(&out), "{\"input_tokens\":12}{\"input_tokens\":1}");
    cm_buf_clear(&out);
}
END_TEST

/* ---- Answers ---- */

static const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM,
                                      .in_uncached = 10,
                                      .in_cache_read = 4,
                                      .in_cache_write = 2,
                                      .out_text = 5,
                                      .out_reasoning = 3};

static const struct cm_answer_meta meta = {.id = CM_S_INIT("msg_1"), .model = CM_S_INIT("m")};

static char *streamed(const struct cm_answer_meta *m, const struct cm_event *events, size_t n)
{
    void *state = cm_calloc(1, cm_surface_anthropic.stream_size);
    struct cm_buf out = {0};

    cm_surface_anthropic.stream_begin(state, m, &out);
    for (size_t i = 0; i < n; i++)
        cm_surface_anthropic.stream_event(state, &events[i], &out);
    cm_surface_anthropic.stream_end(state, &usage, &out);
    cm_surface_anthropic.stream_clear(state);
    free(state);
    cm_buf_z(&out);
    return out.p;
}

#define EVENT(name, members) "event: " name "\ndata: {\"type\":\"" name "\"" members "}\n\n"
#define BEGIN                                                                                      \
    EVENT("message_start",                                                                         \
          ",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","            \
          "\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"            \
          "\"stop_details\":null,\"usage\":{\"input_tokens\":0,\"cache_creation_input_tokens\":0," \
          "\"cache_read_input_tokens\":0,\"output_tokens\":0,\"output_tokens_details\":{"          \
          "\"thinking_tokens\":0},\"server_tool_use\":null}}")
#define START(i, block) EVENT("content_block_start", ",\"index\":" i ",\"content_block\":" block)
#define DELTA(i, delta) EVENT("content_block_delta", ",\"index\":" i ",\"delta\":" delta)
#define STOP(i) EVENT("content_block_stop", ",\"index\":" i)
#define TEXT_START(i) START(i, "{\"type\":\"text\",\"text\":\"\"}")
#define TEXT_DELTA(i, t) DELTA(i, "{\"type\":\"text_delta\",\"text\":\"" t "\"}")
#define CALL_START(i, id, name)                                                                    \
    START(i, "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"" name "\",\"input\":{}}")
#define ARGS(i, t) DELTA(i, "{\"type\":\"input_json_delta\",\"partial_json\":\"" t "\"}")
#define USAGE                                                                                      \
    "{\"input_tokens\":10,\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":4,"        \
    "\"output_tokens\":8,\"output_tokens_details\":{\"thinking_tokens\":3},"                       \
    "\"server_tool_use\":null}"
#define END(reason, sequence, details)                                                             \
    EVENT("message_delta",                                                                         \
          ",\"delta\":{\"stop_reason\":\"" reason "\",\"stop_sequence\":" sequence                 \
          ",\"stop_details\":" details "},\"usage\":" USAGE)                                       \
    EVENT("message_stop", "")

#define EXPECT(m, events, text)                                                                    \
    do {                                                                                           \
        char *got_ = streamed(m, events, CM_COUNT(events));                                        \
        ck_assert_str_eq(got_, text);                                                              \
        free(got_);                                                                                \
    } while (0)

#define EV_TEXT(t) {.kind = CM_EVENT_TEXT, .text = CM_S_INIT(t)}
#define EV_REASONING(t) {.kind = CM_EVENT_REASONING, .text = CM_S_INIT(t)}
#define EV_CALL(i, call, f)                                                                        \
    {.kind = CM_EVENT_TOOL_CALL, .index = i, .id = CM_S_INIT(call), .name = CM_S_INIT(f)}
#define EV_ARGS(i, t) {.kind = CM_EVENT_TOOL_ARGS, .index = i, .text = CM_S_INIT(t)}
#define EV_FINISH(f) {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_##f}

START_TEST(a_stream_of_text)
{
    static const struct cm_event events[] = {
        EV_TEXT("Hel"), EV_TEXT(""), EV_TEXT("l\"o\n"), {.kind = CM_EVENT_USAGE}, EV_FINISH(STOP)};

    EXPECT(&meta, events,
           BEGIN TEXT_START("0") TEXT_DELTA("0", "Hel") TEXT_DELTA("0", "l\\\"o\\n") STOP("0")
               END("end_turn", "null", "null"));
}
END_TEST

START_TEST(a_stream_without_anything)
{
    static const struct cm_event events[] = {EV_FINISH(LENGTH)};

    EXPECT(&meta, events, BEGIN END("max_tokens", "null", "null"));
}
END_TEST

START_TEST(a_stream_of_every_block)
{
    static const struct cm_event events[] = {
        EV_REASONING("a"),
        EV_REASONING("b"),
        {.kind = CM_EVENT_SIGNATURE, .text = CM_S_INIT("x")},
        EV_TEXT("c"),
        {.kind = CM_EVENT_CITATION, .url = CM_S_INIT("https://h")},
        {.kind = CM_EVENT_IMAGE, .text = CM_S_INIT("p"), .url = CM_S_INIT("https://h/p")},
        EV_CALL(0, "c0", "f"),
        EV_CALL(1, "functions.f:1", "g"),
        EV_ARGS(1, "{\"a\":1}"),
        EV_FINISH(STOP),
    };

    EXPECT(&meta, events,
           BEGIN START("0", "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")
               DELTA("0", "{\"type\":\"thinking_delta\",\"thinking\":\"a\"}")
                   DELTA("0", "{\"type\":\"thinking_delta\",\"thinking\":\"b\"}") STOP("0")
                       TEXT_START("1") TEXT_DELTA("1", "c") TEXT_DELTA("1", "![p](https://h/p)")
                           STOP("1") CALL_START("2", "c0", "f") STOP("2")
                               CALL_START("3", "cmx-functions_2ef_3a1", "g")
                                   ARGS("3", "{\\\"a\\\":1}") STOP("3")
                                       END("tool_use", "null", "null"));
}
END_TEST

START_TEST(calls_that_alternate_take_turns)
{
    static const struct cm_event events[] = {
        EV_CALL(0, "c0", "f"), EV_ARGS(0, "{\"a\":\"}"), EV_CALL(1, "c1", "g"),
        EV_ARGS(1, "{\"b\""),  EV_CALL(2, "c2", "h"),    EV_ARGS(0, "\\\""),
        EV_ARGS(1, ":[{}]}"),  EV_ARGS(0, "\"}"),        EV_ARGS(2, "{}"),
        EV_FINISH(TOOL_CALLS),
    };

    EXPECT(&meta, events,
           BEGIN CALL_START("0", "c0", "f") ARGS("0", "{\\\"a\\\":\\\"}") ARGS("0", "\\\\\\\"")
               ARGS("0", "\\\"}") STOP("0") CALL_START("1", "c1", "g") ARGS("1", "{\\\"b\\\":[{}]}")
                   STOP("1") CALL_START("2", "c2", "h") ARGS("2", "{}") STOP("2")
                       END("tool_use", "null", "null"));
}
END_TEST

START_TEST(calls_in_a_row_go_out_as_they_come)
{
    static const struct cm_event events[] = {EV_CALL(0, "c0", "f"),     EV_ARGS(0, "{\"a\""),
                                             EV_ARGS(0, ":\"\\\"{\"}"), EV_CALL(1, "c1", "g"),
                                             EV_ARGS(1, "{"),           EV_ARGS(1, "}")};
    void *state = cm_calloc(1, cm_surface_anthropic.stream_size);
    struct cm_buf out = {0};

    cm_surface_anthropic.stream_begin(state, &meta, &out);
    for (size_t i = 0; i < CM_COUNT(events); i++) {
        size_t before = out.n;

        cm_surface_anthropic.stream_event(state, &events[i], &out);
        ck_assert_uint_gt(out.n, before); /* nothing is held back */
    }
    cm_surface_anthropic.stream_clear(state);
    free(state);
    cm_buf_clear(&out);
}
END_TEST

START_TEST(how_a_stream_ends)
{
    static const struct cm_event sequence[] = {
        EV_TEXT("x"),
        {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP_SEQUENCE, .text = CM_S_INIT("END")}};
    static const struct cm_event untold[] = {EV_FINISH(STOP_SEQUENCE)};
    static const struct cm_event refused[] = {
        {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_REFUSAL, .text = CM_S_INIT("why")}};
    static const struct cm_event filtered[] = {EV_FINISH(CONTENT_FILTER)};
    static const struct cm_event said_no[] = {{.kind = CM_EVENT_REFUSAL, .text = CM_S_INIT("no")},
                                              EV_FINISH(STOP)};
    static const struct cm_event paused[] = {EV_FINISH(PAUSE)};
    static const struct cm_event full[] = {EV_FINISH(CONTEXT)};
    static const struct cm_event broken_call[] = {EV_CALL(0, "c0", "f"), EV_ARGS(0, "{\"a"),
                                                  EV_FINISH(LENGTH)};

    EXPECT(&meta, sequence,
           BEGIN TEXT_START("0") TEXT_DELTA("0", "x") STOP("0")
               END("stop_sequence", "\"END\"", "null"));
    EXPECT(&meta, untold, BEGIN END("end_turn", "null", "null"));
    EXPECT(&meta, refused,
           BEGIN END("refusal", "null",
                     "{\"type\":\"refusal\",\"category\":null,\"explanation\":\"why\"}"));
    EXPECT(&meta, filtered,
           BEGIN END("refusal", "null",
                     "{\"type\":\"refusal\",\"category\":null,\"explanation\":null}"));
    EXPECT(&meta, said_no,
           BEGIN TEXT_START("0") TEXT_DELTA("0", "no") STOP("0") END(
               "refusal", "null", "{\"type\":\"refusal\",\"category\":null,\"explanation\":null}"));
    EXPECT(&meta, paused, BEGIN END("pause_turn", "null", "null"));
    EXPECT(&meta, full, BEGIN END("model_context_window_exceeded", "null", "null"));
    EXPECT(&meta, broken_call,
           BEGIN CALL_START("0", "c0", "f") ARGS("0", "{\\\"a") STOP("0")
               END("max_tokens", "null", "null"));
}
END_TEST

START_TEST(thinking_is_shown_as_asked)
{
    static const struct cm_event events[] = {EV_REASONING("a"), EV_TEXT("b"), EV_FINISH(STOP)};
    const struct cm_chat omitted = {.show_thinking = 0},
                         off = {.thinking = CM_THINKING_OFF, .show_thinking = -1};
    struct cm_answer_meta m = meta;

    m.chat = &omitted;
    EXPECT(&m, events,
           BEGIN TEXT_START("0") TEXT_DELTA("0", "b") STOP("0") END("end_turn", "null", "null"));
    m.chat = &off;
    EXPECT(&m, events,
           BEGIN TEXT_START("0") TEXT_DELTA("0", "b") STOP("0") END("end_turn", "null", "null"));
    m.chat = NULL;
    m.reasoning = CM_REASONING_HIDE;
    EXPECT(&m, events,
           BEGIN TEXT_START("0") TEXT_DELTA("0", "b") STOP("0") END("end_turn", "null", "null"));
}
END_TEST

static void expect_whole(const struct cm_event *events, size_t n, const char *content,
                         const char *stop)
{
    struct cm_answer answer = {0};
    struct cm_buf out = {0}, expected = {0};
    struct cm_err err;

    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(cm_answer_add(&answer, &events[i], &err), 0);
    answer.usage = usage;
    cm_surface_anthropic.whole(&meta, &answer, &out);
    cm_buf_printf(&expected,
                  "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\","
                  "\"content\":[%s],\"stop_reason\":%s,\"usage\":%s}",
                  content, stop, USAGE);
    ck_assert_str_eq(cm_buf_z(&out), cm_buf_z(&expected));
    cm_buf_clear(&out);
    cm_buf_clear(&expected);
    cm_answer_clear(&answer);
}

START_TEST(whole_answers)
{
    static const struct cm_event all[] = {EV_REASONING("hm"),     EV_TEXT("x"),
                                          EV_CALL(0, "a b", "f"), EV_ARGS(0, "{\"a\":1.0}"),
                                          EV_CALL(1, "c1", "g"),  EV_CALL(2, "c2", "h"),
                                          EV_ARGS(2, "no json"),  EV_FINISH(STOP)};
    static const struct cm_event nothing[] = {EV_FINISH(STOP)};
    static const struct cm_event no[] = {{.kind = CM_EVENT_REFUSAL, .text = CM_S_INIT("no")},
                                         EV_FINISH(STOP)};

    expect_whole(
        all, CM_COUNT(all),
        "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"\"},"
        "{\"type\":\"text\",\"text\":\"x\"},"
        "{\"type\":\"tool_use\",\"id\":\"cmx-a_20b\",\"name\":\"f\",\"input\":{\"a\":1.0}},"
        "{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"g\",\"input\":{}},"
        "{\"type\":\"tool_use\",\"id\":\"c2\",\"name\":\"h\",\"input\":{\"raw\":\"no json\"}}",
        "\"tool_use\",\"stop_sequence\":null,\"stop_details\":null");
    expect_whole(nothing, 1, "", "\"end_turn\",\"stop_sequence\":null,\"stop_details\":null");
    expect_whole(no, 2, "{\"type\":\"text\",\"text\":\"no\"}",
                 "\"refusal\",\"stop_sequence\":null,\"stop_details\":{\"type\":\"refusal\","
                 "\"category\":null,\"explanation\":null}");
}
END_TEST

static const struct {
    enum cm_err_class cls;
    int status;
    const char *param, *type, *message;
} errors[] = {
    {CM_ERR_BAD_REQUEST, 0, "messages[2].content", "invalid_request_error",
     "messages.2.content: told"},
    {CM_ERR_BAD_REQUEST, 413, "", "request_too_large", "told"},
    {CM_ERR_BAD_REQUEST, 409, "", "conflict_error", "told"},
    {CM_ERR_UNAUTHORIZED, 0, "", "authentication_error", "told"},
    {CM_ERR_FORBIDDEN, 0, "model", "permission_error", "told"},
    {CM_ERR_NOT_FOUND, 0, "", "not_found_error", "told"},
    {CM_ERR_MODEL_UNAVAILABLE, 0, "", "not_found_error", "told"},
    {CM_ERR_CONTEXT_LENGTH, 0, "", "invalid_request_error", "prompt is too long: told"},
    {CM_ERR_RATE_LIMITED, 0, "", "rate_limit_error", "told"},
    {CM_ERR_QUOTA_EXHAUSTED, 0, "", "rate_limit_error", "told"},
    {CM_ERR_CLIENT_LIMIT, 0, "", "rate_limit_error", "told"},
    {CM_ERR_OVERLOADED, 0, "", "overloaded_error", "told"},
    {CM_ERR_NO_CREDENTIAL, 0, "", "overloaded_error", "told"},
    {CM_ERR_SHUTTING_DOWN, 0, "", "overloaded_error", "told"},
    {CM_ERR_UPSTREAM_DOWN, 0, "", "api_error", "told"},
    {CM_ERR_INVALID_CREDENTIAL, 0, "", "api_error", "told"},
    {CM_ERR_TIMEOUT, 0, "", "timeout_error", "told"},
    {CM_ERR_CUT, 0, "", "api_error", "told"},
};

START_TEST(errors_have_their_types)
{
    struct cm_buf body = {0}, expected = {0};
    struct cm_err err = {0};

    cm_fail_param(&err, errors[_i].cls, errors[_i].param, "told");
    err.http_status = errors[_i].status;
    cm_surface_anthropic.error_body(&err, &body);
    cm_buf_printf(&expected, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}",
                  errors[_i].type, errors[_i].message);
    ck_assert_str_eq(cm_buf_z(&body), cm_buf_z(&expected));
    cm_buf_reset(&body);
    cm_surface_anthropic.stream_error(NULL, &err, &body);
    ck_assert_str_eq(cm_buf_z(&body),
                     cm_arena_z(&arena, cm_arena_printf(&arena, "event: error\ndata: %s\n\n",
                                                        cm_buf_z(&expected))));
    cm_buf_clear(&body);
    cm_buf_clear(&expected);
}
END_TEST

/* ---- Ids ---- */

START_TEST(ids_between_platforms)
{
    static const struct {
        const char *id, *safe;
    } cases[] = {
        {"toolu_01-A", "toolu_01-A"}, {"functions.f:0", "cmx-functions_2ef_3a0"},
        {"cmx-a", "cmx-cmx-a"},       {"", "cmx-"},
        {"a_b c", "cmx-a_5fb_20c"},   {"\xc3\xa9", "cmx-_c3_a9"},
    };
    char text[200];
    struct cm_str safe;

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        safe = cm_tool_id_safe(&arena, cm_str_of(cases[i].id), 64);
        ck_assert_msg(cm_str_eq(safe, cm_str_of(cases[i].safe)), CM_PRI, CM_ARG(safe));
        ck_assert(cm_str_eq(cm_tool_id_plain(&arena, safe), cm_str_of(cases[i].id)));
    }
    memset(text, '.', sizeof(text));
    safe = cm_tool_id_safe(&arena, cm_str(text, sizeof(text)), 64);
    ck_assert(cm_str_starts(safe, CM_S("cmd-")) && safe.n <= 64);
    ck_assert(cm_str_eq(safe, cm_tool_id_safe(&arena, cm_str(text, sizeof(text)), 64)));
    memset(text, 'a', sizeof(text));
    ck_assert(cm_str_starts(cm_tool_id_safe(&arena, cm_str(text, 65), 64), CM_S("cmd-")));
    ck_str(cm_tool_id_plain(&arena, CM_S("cmx-a_g0")), "cmx-a_g0"); /* not one of ours */
    ck_str(cm_tool_id_plain(&arena, CM_S("cmx-a_2")), "cmx-a_2");
}
END_TEST

Suite *suite_anthropic_surface(void)
{
    Suite *s = suite_create("anthropic_surface");
    TCase *in = tcase_create("in"), *out = tcase_create("out");

    tcase_add_checked_fixture(in, setup, teardown);
    tcase_add_test(in, a_small_request);
    tcase_add_test(in, every_simple_member);
    tcase_add_test(in, thinking_and_choices);
    tcase_add_test(in, system_and_content);
    tcase_add_test(in, tools_and_thinking_in_the_history);
    tcase_add_loop_test(in, wrong_requests, 0, (int)CM_COUNT(wrong));
    tcase_add_loop_test(in, only_for_anthropic_itself, 0, (int)CM_COUNT(foreign));
    tcase_add_test(in, counting);
    suite_add_tcase(s, in);

    tcase_add_checked_fixture(out, setup, teardown);
    tcase_add_test(out, a_stream_of_text);
    tcase_add_test(out, a_stream_without_anything);
    tcase_add_test(out, a_stream_of_every_block);
    tcase_add_test(out, calls_that_alternate_take_turns);
    tcase_add_test(out, calls_in_a_row_go_out_as_they_come);
    tcase_add_test(out, how_a_stream_ends);
    tcase_add_test(out, thinking_is_shown_as_asked);
    tcase_add_test(out, whole_answers);
    tcase_add_loop_test(out, errors_have_their_types, 0, (int)CM_COUNT(errors));
    tcase_add_test(out, ids_between_platforms);
    suite_add_tcase(s, out);
    return s;
}
