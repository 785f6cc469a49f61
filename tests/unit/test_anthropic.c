/* anthropic: requests translated row by row, streams at every split, bytes of the own dialect, refusals,
 * thinking that comes back, the list of models. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/memo.h"

#include <stdio.h>

#define EVENTS "Content-Type: text/event-stream; charset=utf-8\n"
#define JSON "Content-Type: application/json\n"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

static void begin(struct fake *f)
{
    fake_init(f);
    f->conf.base_url = CM_S("https://up.test");
    fake_use(f, "anthropic");
}

static void play(struct fake *f, struct cm_str request, const struct fake_answer *answers, size_t n,
                 size_t piece)
{
    fake_chat(f, request);
    f->answers = answers;
    f->n_answers = n;
    f->piece = piece;
    fake_play(f);
    f->answers = NULL; /* the caller's */
}

static struct fake_answer file(struct fake *f, const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "anthropic/%s", name);
    return (struct fake_answer){200, cm_str_ends(cm_str_of(name), CM_S(".sse")) ? EVENTS : JSON,
                                fake_fixture(f, path), FAKE_COMPLETE};
}

static void play_file(struct fake *f, const char *request, const char *name, size_t piece)
{
    struct fake_answer answer = file(f, name);

    play(f, cm_str_of(request), &answer, 1, piece);
}

/* ---- requests of OpenAI's dialect, row by row (protocol notes, section 6) ---- */

#define OPUS "claude-opus-4-8"     /* adaptive, no sampling */
#define SONNET "claude-sonnet-4-5" /* a budget, temperature or top_p */
#define OLD "claude-3-opus-20240229"

#define ASKED(members) "{\"messages\":[" members "]}"
#define USER(content) "{\"role\":\"user\",\"content\":" content "}"
#define CALLED                                                                                     \
    "{\"role\":\"assistant\",\"content\":\"I look.\",\"tool_calls\":[{\"id\":\"a.1\",\"type\":"    \
    "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": 1.0}\"}},{\"id\":"      \
    "\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"\"}},{\"id\":\"c\"," \
    "\"type\":\"function\",\"function\":{\"name\":\"h\",\"arguments\":\"nonsense\"}}]}"
#define RESULTS                                                                                    \
    "{\"role\":\"tool\",\"tool_call_id\":\"a.1\",\"content\":\"one\"},{\"role\":\"tool\","         \
    "\"tool_call_id\":\"b\",\"content\":\"\"},{\"role\":\"tool\",\"tool_call_id\":\"c\","          \
    "\"content\":[{\"type\":\"text\",\"text\":\"two\"}]}"
#define TOOLS                                                                                      \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\","       \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":" \
    "1}}}}},{\"type\":\"function\",\"function\":{\"name\":\"g\"}},{\"type\":\"function\","         \
    "\"function\":{\"name\":\"h\",\"parameters\":{\"properties\":{}}}}]"
#define TOOLS_SENT                                                                                 \
    ",\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\","     \
    "\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":1}}}},{\"name\":\"g\","               \
    "\"input_schema\":{\"type\":\"object\",\"properties\":{}}},{\"name\":\"h\",\"input_schema\":{" \
    "\"properties\":{},\"type\":\"object\"}}]"
#define TEXT(t) "{\"type\":\"text\",\"text\":\"" t "\"}"
#define SENT(blocks) "\"messages\":[{\"role\":\"user\",\"content\":[" blocks "]}]"
#define STREAM ",\"stream\":true"

static const struct {
    const char *model, *asked, *sent; /* behind the model */
} rows[] = {
    {OPUS, HI,
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi"))},
    {OLD, HI,
     "\"max_tokens\":4096"
     "," SENT(TEXT("Hi"))},
    {OLD, "\"max_tokens\":9000," HI,
     "\"max_tokens\":4096"
     "," SENT(TEXT("Hi"))},
    {"deepseek-chat", "\"max_tokens\":5,\"max_completion_tokens\":7," HI,
     "\"max_tokens\":7"
     "," SENT(TEXT("Hi"))},
    /* system texts */
    {OPUS,
     "\"messages\":[{\"role\":\"system\",\"content\":\"one\"},{\"role\":\"user\",\"content\":"
     "\"Hi\"},{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"two\"},{"
     "\"type\":\"text\",\"text\":\"three\"}]},{\"role\":\"system\",\"content\":\" \"}]",
     "\"max_tokens\":8192"
     ",\"system\":\"one\\n\\ntwo\\n\\nthree\"," SENT(TEXT("Hi"))},
    /* content */
    {OPUS,
     "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"see\"},{\"type\":"
     "\"text\",\"text\":\" \\n\"},{\"type\":\"image_url\",\"image_url\":{\"url\":"
     "\"data:image/jpg;base64,/9j/\"}},{\"type\":\"image_url\",\"image_url\":{\"url\":"
     "\"https://h/p.png\"}},{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":"
     "\"data:application/pdf;base64,JVBE\"}},{\"type\":\"file\",\"file\":{\"filename\":\"a.txt\","
     "\"file_data\":\"data:text/plain;base64,R3LDvMOfZQ==\"}}]}]",
     "\"max_tokens\":8192"
     "," SENT(
         TEXT("see") ",{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
                     "\"image/jpeg\",\"data\":\"/9j/\"}},{\"type\":\"image\",\"source\":{\"type\":"
                     "\"url\",\"url\":\"https://h/p.png\"}},{\"type\":\"document\",\"source\":{"
                     "\"type\":\"base64\",\"media_type\":\"application/pdf\",\"data\":\"JVBE\"},"
                     "\"title\":\"a.pdf\"},{\"type\":\"document\",\"source\":{\"type\":\"text\","
                     "\"media_type\":\"text/plain\",\"data\":\"Grüße\"},\"title\":\"a.txt\"}")},
    /* turns: equal roles become one, blank ones go, the user begins */
    {OPUS,
     "\"messages\":[{\"role\":\"assistant\",\"content\":\"Hello.\"},{\"role\":\"user\",\"content\":"
     "\"a\"},{\"role\":\"user\",\"content\":\" \"},{\"role\":\"user\",\"content\":\"b\"},{"
     "\"role\":\"assistant\",\"content\":null,\"refusal\":\"No.\"},{\"role\":\"user\",\"content\":"
     "\"c\"}]",
     "\"max_tokens\":8192"
     ",\"messages\":[{\"role\":\"user\",\"content\":[" TEXT(".") "]},{\"role\":\"assistant\",\"content\":[" TEXT(
         "Hello.") "]},{\"role\":\"user\","
                   "\"content\":[" TEXT("a") "," TEXT(
                       "b") "]},{\"role\":"
                            "\"assistant\","
                            "\"content\":"
                            "[" TEXT("No.") "]},{\"role\":\"user\",\"content\":[" TEXT("c") "]}]"},
    {OPUS, "\"messages\":[{\"role\":\"system\",\"content\":\"only\"}]",
     "\"max_tokens\":8192"
     ",\"system\":\"only\"," SENT(TEXT("."))},
    {OLD,
     "\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":"
     "\"So \\n\"}]",
     "\"max_tokens\":4096"
     ",\"messages\":[{\"role\":\"user\",\"content\":[" TEXT(
         "a") "]},{\"role\":\"assistant\",\"content\":[" TEXT("So") "]}]"},
    /* calls and results */
    {OPUS, "\"messages\":[" USER("\"go\"") "," CALLED "," RESULTS "," USER("\"and?\"") "]" TOOLS,
     "\"max_tokens\":8192"
     ",\"messages\":[{\"role\":\"user\",\"content\":[" TEXT("go") "]},{\"role\":\"assistant\",\"content\":[" TEXT("I look.") ",{\"type\":\"tool_use\",\"id\":\"cmx-a_2e1\",\"name\":\"f\",\"input\":{\"x\": 1.0}},{\"type\":\"tool_use\",\"id\":\"b\",\"name\":\"g\",\"input\":{}},{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"h\",\"input\":{\"raw\":\"nonsense\"}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"cmx-a_2e1\",\"content\":\"one\"},{\"type\":\"tool_result\",\"tool_use_id\":\"b\"},{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":\"two\"}," TEXT(
         "and?") "]}]" TOOLS_SENT},
    {OPUS, HI TOOLS ",\"tool_choice\":\"auto\"",
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) TOOLS_SENT ",\"tool_choice\":{\"type\":\"auto\"}"},
    {OPUS, HI TOOLS ",\"tool_choice\":\"required\",\"parallel_tool_calls\":true",
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) TOOLS_SENT ",\"tool_choice\":{\"type\":\"any\"}"},
    {OPUS, HI TOOLS ",\"tool_choice\":\"none\",\"parallel_tool_calls\":false",
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) TOOLS_SENT ",\"tool_choice\":{\"type\":\"none\"}"},
    {OPUS,
     HI TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}},"
              "\"parallel_tool_calls\":false",
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) TOOLS_SENT
     ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"g\",\"disable_parallel_tool_use\":true}"},
    {OPUS, HI TOOLS ",\"parallel_tool_calls\":false",
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) TOOLS_SENT
     ",\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}"},
    {OPUS,
     HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,"
        "\"parameters\":{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}}}]",
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) ",\"tools\":[{\"name\":\"f\","
                          "\"input_schema\":{\"type\":\"object\","
                          "\"properties\":{},\"additionalProperties\":"
                          "false},\"strict\":true}]"},
    /* sampling */
    {OLD, "\"temperature\":1.5,\"top_p\":0.25," HI,
     "\"max_tokens\":4096"
     ",\"temperature\":1,\"top_p\":0.25," SENT(TEXT("Hi"))},
    {SONNET, "\"temperature\":0.3,\"top_p\":0.5," HI,
     "\"max_tokens\":8192"
     ",\"temperature\":0.3," SENT(TEXT("Hi"))},
    {SONNET, "\"top_p\":0.5," HI,
     "\"max_tokens\":8192"
     ",\"top_p\":0.5," SENT(TEXT("Hi"))},
    {OPUS, "\"temperature\":0.3,\"top_p\":0.5," HI,
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi"))},
    {"vendor/claude-opus-4.8", "\"temperature\":0.3," HI,
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi"))},
    {"us.anthropic.claude-3.5-sonnet-20240620-v1:0", "\"max_tokens\":9000,\"temperature\":0.3," HI,
     "\"max_tokens\":8192"
     ",\"temperature\":0.3," SENT(TEXT("Hi"))},
    {OPUS,
     "\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"s\","
     "\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":\"text\",\"text\":\"t\"}]},{"
     "\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\",\"cache_control\":{"
     "\"type\":\"ephemeral\",\"ttl\":\"1h\"}}]}]",
     "\"max_tokens\":8192"
     ",\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":"
     "\"ephemeral\",\"ttl\":\"5m\"}}," TEXT("t") "]," SENT(
         "{\"type\":\"text\",\"text\":\"Hi\",\"cache_control\":{\"type\":\"ephemeral\","
         "\"ttl\":\"1h\"}}")},
    {OPUS, "\"stop\":[\"END\",\" \"]," HI,
     "\"max_tokens\":8192"
     ",\"stop_sequences\":[\"END\"]," SENT(TEXT("Hi"))},
    /* form */
    {OPUS,
     HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
        "\"schema\":{\"$schema\":\"x\",\"type\":\"object\",\"properties\":{\"a\":{\"type\":"
        "\"number\",\"minimum\":1}}}}}",
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{"
                          "\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\","
                          "\"description\":\"{minimum: 1}\"}},\"additionalProperties\":false}}}"},
    {OLD, HI ",\"response_format\":{\"type\":\"json_object\"}",
     "\"max_tokens\":4096"
     ",\"system\":\"Answer with one JSON object and nothing else: no explanation, no Markdown.\"," SENT(
         TEXT("Hi"))},
    /* thinking */
    {SONNET, "\"reasoning_effort\":\"none\"," HI,
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi"))},
    {SONNET, "\"reasoning_effort\":\"low\"," HI,
     "\"max_tokens\":9216" STREAM
     "," SENT(TEXT("Hi")) ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}"},
    {SONNET, "\"reasoning_effort\":\"max\",\"max_tokens\":2000,\"temperature\":0.5,\"top_p\":1," HI,
     "\"max_tokens\":2000"
     "," SENT(TEXT("Hi")) ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1999}"},
    {SONNET, "\"reasoning_effort\":\"max\",\"max_tokens\":1000,\"temperature\":0.5," HI,
     "\"max_tokens\":1000"
     ",\"temperature\":0.5," SENT(TEXT("Hi"))},
    {SONNET, "\"reasoning_effort\":\"high\",\"tool_choice\":\"required\"," HI TOOLS,
     "\"max_tokens\":16384" STREAM "," SENT(TEXT("Hi")) TOOLS_SENT
     ",\"tool_choice\":{\"type\":\"any\"}"},
    {SONNET,
     "\"reasoning_effort\":\"high\",\"messages\":[" USER("\"go\"") "," CALLED "," RESULTS "]",
     NULL /* its thinking is not known: without */},
    {OPUS,
     "\"messages\":[" USER(
         "\"go\"") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"x\"},{\"role\":\"tool\",\"tool_call_id\":\"b\",\"content\":\"y\"}]",
     "\"max_tokens\":8192"
     ",\"messages\":[{\"role\":\"user\",\"content\":[" TEXT(
         "go") "]},{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}},{\"type\":\"tool_use\",\"id\":\"b\",\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":\"x\"},{\"type\":\"tool_result\",\"tool_use_id\":\"b\",\"content\":\"y\"}]}],\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\",\"properties\":{}}}],\"tool_choice\":{\"type\":\"none\"}"},
    {OPUS, "\"reasoning_effort\":\"xhigh\"," HI,
     "\"max_tokens\":32768" STREAM "," SENT(TEXT(
         "Hi")) ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"summarized\"},\"output_config\":{\"effort\":\"xhigh\"}"},
    {"claude-opus-4-6", "\"reasoning_effort\":\"xhigh\"," HI,
     "\"max_tokens\":32768" STREAM "," SENT(TEXT(
         "Hi")) ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"summarized\"},\"output_config\":{\"effort\":\"high\"}"},
    {OPUS, "\"reasoning_effort\":\"minimal\"," HI,
     "\"max_tokens\":32768" STREAM "," SENT(TEXT(
         "Hi")) ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"summarized\"},\"output_config\":{\"effort\":\"low\"}"},
    {OPUS, "\"reasoning_effort\":\"none\"," HI,
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi"))},
    {"claude-sonnet-5", "\"reasoning_effort\":\"none\"," HI,
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi")) ",\"thinking\":{\"type\":\"disabled\"}"},
    {"claude-fable-5-1", "\"reasoning_effort\":\"none\"," HI,
     "\"max_tokens\":8192"
     "," SENT(TEXT("Hi"))},
    /* the rest */
    {OPUS,
     "\"user\":\"u\",\"seed\":1,\"logit_bias\":{},\"store\":false,\"stream\":true,"
     "\"stream_options\":{\"include_usage\":true}," HI,
     "\"max_tokens\":8192" STREAM "," SENT(TEXT("Hi")) ",\"metadata\":{\"user_id\":\"u\"}"},
};

START_TEST(requests_are_translated)
{
    struct cm_buf expected = {0};
    struct fake f;

    begin(&f);
    play(&f, cm_arena_printf(&f.arena, "{\"model\":\"%s\",%s}", rows[_i].model, rows[_i].asked),
         (struct fake_answer[]){file(&f, "text.sse")}, 1, 0);
    ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
    cm_buf_printf(&expected, "{\"model\":\"%s\",%s}", rows[_i].model,
                  rows[_i].sent ? rows[_i].sent : "");
    if (rows[_i].sent)
        ck_assert_str_eq(cm_arena_z(&f.arena, f.calls[0].body), cm_buf_z(&expected));
    else
        ck_assert(!cm_str_has(f.calls[0].body, CM_S("\"thinking\"")));
    ck_str(f.calls[0].url, "https://up.test/v1/messages");
    cm_buf_clear(&expected);
    fake_clear(&f);
}
END_TEST

/* What cannot be said, and what is dropped for this model. */
START_TEST(what_has_no_place)
{
    static const struct {
        const char *asked, *param, *code;
    } cases[] = {
        {"\"n\":2," HI, "n", "unsupported_parameter"},
        {"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{"
         "\"data\":\"UklG\",\"format\":\"wav\"}}]}]",
         "messages", "unsupported_content"},
        {"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":"
         "\"file-1\"}}]}]",
         "messages", "unsupported_content"},
        {"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"filename\":"
         "\"a.zip\",\"file_data\":\"data:application/zip;base64,UEsD\"}}]}]",
         "messages", "unsupported_content"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake f;

        begin(&f);
        play(&f, cm_arena_printf(&f.arena, "{\"model\":\"" OPUS "\",%s}", cases[i].asked), NULL, 0,
             0);
        ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_str_eq(f.err.param, cases[i].param);
        ck_assert_str_eq(f.err.code, cases[i].code);
        ck_assert_uint_eq(f.n_calls, 0);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(strict_refuses_what_the_model_does_without)
{
    static const char *const asked[] = {
        "\"temperature\":0.3," HI, "\"top_p\":0.5," HI, "\"stop\":[\" \"]," HI,
        HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,"
           "\"parameters\":{\"type\":\"object\"}}}]"};
    static const char *const params[] = {"temperature", "top_p", "stop", "strict"};

    for (size_t i = 0; i < CM_COUNT(asked); i++) {
        struct fake f;

        begin(&f);
        f.conf.upstream.strict = true;
        play(&f, cm_arena_printf(&f.arena, "{\"model\":\"" OPUS "\",%s}", asked[i]), NULL, 0, 0);
        ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_str_eq(f.err.param, params[i]);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(the_name_of_a_model_asks_for_thinking)
{
    static const struct {
        const char *model, *thinking;
    } cases[] = {
        {SONNET, "{\"type\":\"enabled\",\"budget_tokens\":4096}"},
        {OPUS, "{\"type\":\"adaptive\",\"display\":\"summarized\"}"},
        {OLD, ""},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake f;

        begin(&f);
        f.target.thinking = true;
        f.target.model = cm_str_of(cases[i].model);
        play_file(&f, "{\"model\":\"x-thinking\"," HI "}", "text.sse", 0);
        ck_assert(cm_str_eq(cm_json_member(f.calls[0].body, CM_S("thinking")),
                            cm_str_of(cases[i].thinking)));
        fake_clear(&f);
    }
}
END_TEST

/* ---- schemas ---- */

START_TEST(schemas_are_reduced)
{
    static const struct {
        const char *schema, *sent;
    } cases[] = {
        {"{\"type\":\"object\"}", "{\"type\":\"object\",\"additionalProperties\":false}"},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"},\"title\":\"t\"}",
         "{\"type\":\"object\",\"title\":\"t\",\"additionalProperties\":false}"},
        {"{\"oneOf\":[{\"type\":\"string\",\"format\":\"uri\"},{\"type\":\"string\",\"format\":"
         "\"phone\"}]}",
         "{\"anyOf\":[{\"type\":\"string\",\"format\":\"uri\"},{\"type\":\"string\","
         "\"description\":\"{format: \\\"phone\\\"}\"}]}"},
        {"{\"type\":\"array\",\"minItems\":1,\"maxItems\":3,\"description\":\"d\",\"items\":{"
         "\"$ref\":\"#/$defs/a\"},\"$defs\":{\"a\":{\"type\":\"object\",\"properties\":{\"b\":{"
         "\"enum\":[1,\"x\"]}},\"required\":[\"b\"]}}}",
         "{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#/$defs/a\"},\"$defs\":{\"a\":{"
         "\"type\":\"object\",\"properties\":{\"b\":{\"enum\":[1,\"x\"]}},\"required\":[\"b\"],"
         "\"additionalProperties\":false}},\"description\":\"d\\n\\n{maxItems: 3}\"}"},
        {"{\"type\":[\"object\",\"null\"],\"properties\":{\"a\":true}}",
         "{\"type\":[\"object\",\"null\"],\"properties\":{\"a\":{}},\"additionalProperties\":false}"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_str schema;
        struct fake f;

        begin(&f);
        play(&f,
             cm_arena_printf(&f.arena,
                             "{\"model\":\"" OPUS "\"," HI ",\"response_format\":{\"type\":"
                             "\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":%s}}}",
                             cases[i].schema),
             (struct fake_answer[]){file(&f, "text.sse")}, 1, 0);
        schema = cm_json_member(f.calls[0].body, CM_S("output_config"));
        schema = cm_json_member(cm_json_member(schema, CM_S("format")), CM_S("schema"));
        ck_assert_str_eq(cm_arena_z(&f.arena, schema), cases[i].sent);
        fake_clear(&f);
    }
}
END_TEST

/* ---- headers ---- */

static void ck_header(const struct fake *f, const char *line, bool there)
{
    ck_assert_msg(cm_str_has(f->calls[0].headers, cm_str_of(line)) == there, "%s in\n%.*s", line,
                  CM_ARG(f->calls[0].headers));
}

START_TEST(credentials_go_where_they_belong)
{
    static const struct {
        const char *secret, *auth, *line, *beta;
    } cases[] = {
        {"sk-ant-api03-x", NULL, "x-api-key: sk-ant-api03-x\n", ""},
        {"sk-ant-oat01-x", NULL, "Authorization: Bearer sk-ant-oat01-x\n",
         "anthropic-beta: oauth-2025-04-20\n"},
        {"sk-ant-api03-x", "bearer", "Authorization: Bearer sk-ant-api03-x\n", ""},
        {"sk-ant-oat01-x", "x-api-key", "x-api-key: sk-ant-oat01-x\n",
         "anthropic-beta: oauth-2025-04-20\n"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_conf_pair option = {.key = CM_S("auth"), .where = CM_S("f.ini:1")};
        struct fake f;

        fake_init(&f);
        f.conf.base_url = CM_S("https://up.test/v1");
        if (cases[i].auth) {
            option.value = cm_str_of(cases[i].auth);
            f.conf.options = &option;
            f.conf.n_options = 1;
        }
        fake_use(&f, "anthropic");
        f.cred.secret = cm_str_of(cases[i].secret);
        play_file(&f, "{\"model\":\"m\"," HI "}", "text.sse", 0);
        ck_str(f.calls[0].url, "https://up.test/v1/messages");
        ck_header(&f, cases[i].line, true);
        ck_header(&f, "Authorization", cm_str_starts(cm_str_of(cases[i].line), CM_S("Auth")));
        ck_header(&f, "anthropic-version: 2023-06-01\n", true);
        ck_header(&f, "anthropic-beta", cases[i].beta[0] != '\0');
        if (cases[i].beta[0])
            ck_header(&f, cases[i].beta, true);
        fake_clear(&f);
    }
}
END_TEST

/* ---- streams -> canonical events, at every split ---- */

static struct cm_answer answer;
static struct cm_buf trail; /* other events, one letter each */

static void collect(struct fake *f, const struct cm_event *ev)
{
    struct cm_err err;

    (void)f;
    ck_quick(cm_answer_add(&answer, ev, &err) == 0);
    if (ev->kind == CM_EVENT_SIGNATURE)
        cm_buf_printf(&trail, "S(" CM_PRI ")", CM_ARG(ev->text));
    if (ev->kind == CM_EVENT_REDACTED)
        cm_buf_printf(&trail, "R(" CM_PRI ")", CM_ARG(ev->text));
    if (ev->kind == CM_EVENT_FINISH)
        cm_buf_put(&trail, 'F');
}

static void listen_to(struct fake *f, const char *request, const char *name, size_t piece)
{
    begin(f);
    cm_answer_clear(&answer);
    cm_buf_reset(&trail);
    f->on_event = collect;
    play_file(f, request, name, piece);
}

static void forget(struct fake *f)
{
    fake_clear(f);
    cm_answer_clear(&answer);
    cm_buf_clear(&trail);
}

#define ASK "{\"model\":\"" OPUS "\",\"stream\":true," HI "}"
#define ASK_TOOLS "{\"model\":\"" OPUS "\",\"stream\":true," HI TOOLS "}"

START_TEST(a_stream_of_text_at_every_split)
{
    for (size_t piece = 0; piece <= 80; piece++) {
        struct fake f;

        listen_to(&f, ASK, "text.sse", piece);
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        ck_str(cm_buf_str(&answer.choices[0].text), "Grüße, \xf0\x9f\x8c\x8d \"x\"\n");
        ck_assert_int_eq(answer.choices[0].finish, CM_FINISH_STOP);
        ck_assert_int_eq(answer.usage.in_uncached, 25);
        ck_assert_int_eq(answer.usage.in_cache_write, 3);
        ck_assert_int_eq(answer.usage.in_cache_read, 7);
        ck_assert_int_eq(answer.usage.out_text, 12);
        ck_assert_uint_eq(f.n_heads, 0);
        forget(&f);
    }
}
END_TEST

START_TEST(a_stream_of_calls_at_every_split)
{
    for (size_t piece = 0; piece <= 80; piece++) {
        const struct cm_choice_acc *c;
        struct fake f;

        listen_to(&f, ASK_TOOLS, "tools.sse", piece);
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        c = &answer.choices[0];
        ck_str(cm_buf_str(&c->reasoning), "Let me look.");
        ck_str(cm_buf_str(&c->text), "I look.");
        ck_assert_uint_eq(c->n_calls, 2); /* blocks 3 and 4 are calls 0 and 1 */
        ck_str(c->calls[0].id, "toolu_01");
        ck_str(c->calls[0].name, "look");
        ck_str(cm_buf_str(&c->calls[0].args), "{\"at\": \"caf\\u00e9\"}");
        ck_str(c->calls[1].name, "now");
        ck_assert_uint_eq(c->calls[1].args.n, 0);
        ck_assert_int_eq(c->finish, CM_FINISH_TOOL_CALLS);
        ck_assert_int_eq(answer.usage.in_uncached, 25); /* null keeps the earlier figure */
        ck_assert_int_eq(answer.usage.out_text, 25);
        ck_assert_int_eq(answer.usage.out_reasoning, 15);
        ck_str(cm_buf_str(&trail), "S(EqQB+/==)R(c2VhbGVk)F");
        forget(&f);
    }
}
END_TEST

#define ASK_WHOLE "{\"model\":\"" OPUS "\"," HI "}"
#define ASK_WHOLE_TOOLS "{\"model\":\"" OPUS "\"," HI TOOLS "}"

static bool asked_for_a_stream(const struct fake *f)
{
    const bool stream = cm_str_eq(cm_json_member(f->calls[0].body, CM_S("stream")), CM_S("true"));

    ck_header(f, stream ? "Accept: text/event-stream\n" : "Accept: application/json\n", true);
    return stream;
}

START_TEST(a_whole_answer_in_any_pieces)
{
    for (size_t piece = 0; piece <= 80; piece++) {
        const struct cm_choice_acc *c;
        struct fake f;

        listen_to(&f, ASK_WHOLE_TOOLS, "whole_tools.json", piece);
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        ck_assert(!asked_for_a_stream(&f));
        c = &answer.choices[0];
        ck_str(cm_buf_str(&c->reasoning), "Let me look.");
        ck_str(cm_buf_str(&c->text), "I look.");
        ck_str(c->citations[0].url, "https://s/1");
        ck_str(c->citations[0].title, "One");
        ck_assert_uint_eq(c->n_calls, 2);
        ck_str(c->calls[0].id, "toolu_01");
        ck_str(c->calls[0].name, "look");
        ck_str(cm_buf_str(&c->calls[0].args), "{\"at\":\"café\",\"n\":1.0}");
        ck_str(c->calls[1].name, "now");
        ck_str(cm_buf_str(&c->calls[1].args), "{}");
        ck_assert_int_eq(c->finish, CM_FINISH_TOOL_CALLS);
        ck_assert_int_eq(answer.usage.in_uncached, 25);
        ck_assert_int_eq(answer.usage.in_cache_write, 3);
        ck_assert_int_eq(answer.usage.in_cache_read, 7);
        ck_assert_int_eq(answer.usage.out_text, 25);
        ck_assert_int_eq(answer.usage.out_reasoning, 15);
        ck_str(cm_buf_str(&trail), "S(EqQB+/==)R(c2VhbGVk)F");
        ck_assert_uint_eq(f.n_heads, 0);
        forget(&f);
    }
}
END_TEST

static const struct {
    const char *body;
    enum cm_finish finish;
    const char *text;
} whole_ends[] = {
    {"{\"content\":[],\"stop_reason\":\"end_turn\"}", CM_FINISH_STOP, ""},
    {"{\"content\":[{\"type\":\"text\",\"text\":\"x\"}],\"stop_reason\":\"stop_sequence\","
     "\"stop_sequence\":\"END\"}",
     CM_FINISH_STOP_SEQUENCE, "END"},
    {"{\"content\":[],\"stop_reason\":\"refusal\",\"stop_details\":{\"explanation\":\"No.\"}}",
     CM_FINISH_REFUSAL, "No."},
    {"{\"content\":[],\"stop_reason\":null}", CM_FINISH_STOP, ""},
};

START_TEST(how_a_whole_answer_ends)
{
    const struct fake_answer said = {200, JSON, cm_str_of(whole_ends[_i].body), FAKE_COMPLETE};
    struct fake f;

    begin(&f);
    f.on_event = collect;
    play(&f, CM_S(ASK_WHOLE), &said, 1, 0);
    ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
    ck_assert_int_eq(answer.choices[0].finish, whole_ends[_i].finish);
    ck_assert(cm_str_eq(answer.choices[0].finish_text, cm_str_of(whole_ends[_i].text)));
    forget(&f);
}
END_TEST

START_TEST(a_server_that_always_streams)
{
    struct fake f;

    listen_to(&f, ASK_WHOLE, "text.sse", 7);
    ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
    ck_assert(!asked_for_a_stream(&f));
    ck_str(cm_buf_str(&answer.choices[0].text), "Grüße, \xf0\x9f\x8c\x8d \"x\"\n");
    forget(&f);
}
END_TEST

START_TEST(long_answers_are_asked_for_as_streams)
{
    static const struct {
        const char *request, *above;
        bool stream;
    } cases[] = {
        {"{\"model\":\"" OPUS "\",\"max_tokens\":8192," HI "}", NULL, false},
        {"{\"model\":\"" OPUS "\",\"max_tokens\":8193," HI "}", NULL, true},
        {"{\"model\":\"" OPUS "\",\"reasoning_effort\":\"high\"," HI "}", NULL, true},
        {"{\"model\":\"" OPUS "\",\"max_tokens\":50000," HI "}", "50000", false},
        {"{\"model\":\"" OPUS "\",\"max_tokens\":1," HI "}", "0", true},
        {ASK, NULL, true},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_conf_pair option = {.key = CM_S("stream_above"), .where = CM_S("f.ini:1")};
        struct fake f;

        fake_init(&f);
        if (cases[i].above) {
            option.value = cm_str_of(cases[i].above);
            f.conf.options = &option;
            f.conf.n_options = 1;
        }
        fake_use(&f, "anthropic");
        play_file(&f, cases[i].request, "text.sse", 0);
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "case %zu: %s", i, f.err.msg);
        ck_assert_msg(asked_for_a_stream(&f) == cases[i].stream, "case %zu", i);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(what_nobody_knows_is_skipped)
{
    for (size_t piece = 0; piece <= 80; piece++) {
        struct fake f;

        listen_to(&f, ASK, "noise.sse", piece);
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        ck_str(cm_buf_str(&answer.choices[0].text), "So it is");
        ck_assert_uint_eq(answer.choices[0].n_calls, 0);
        ck_str(answer.choices[0].citations[0].url, "https://s/1");
        ck_str(answer.choices[0].citations[0].title, "One");
        ck_str(answer.choices[0].citations[0].cited, "quote");
        ck_assert_int_eq(answer.choices[0].finish, CM_FINISH_STOP_SEQUENCE);
        ck_str(answer.choices[0].finish_text, "END");
        ck_assert_int_eq(answer.usage.in_uncached, 30);
        ck_assert_int_eq(answer.usage.out_text, 9);
        forget(&f);
    }
}
END_TEST

START_TEST(how_answers_end)
{
    static const struct {
        const char *reason;
        enum cm_finish finish;
    } cases[] = {
        {"end_turn", CM_FINISH_STOP},       {"max_tokens", CM_FINISH_LENGTH},
        {"tool_use", CM_FINISH_TOOL_CALLS}, {"pause_turn", CM_FINISH_PAUSE},
        {"refusal", CM_FINISH_REFUSAL},     {"model_context_window_exceeded", CM_FINISH_CONTEXT},
        {"of_later_days", CM_FINISH_STOP},
    };
    struct fake f;

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake_answer said = {200, EVENTS, CM_STR_NONE, FAKE_COMPLETE};

        begin(&f);
        f.on_event = collect;
        said.body = cm_arena_printf(&f.arena,
                                    "event: message_delta\ndata: {\"type\":\"message_delta\","
                                    "\"delta\":{\"stop_reason\":\"%s\"}}\n\nevent: message_stop\n"
                                    "data: {\"type\":\"message_stop\"}\n\n",
                                    cases[i].reason);
        play(&f, CM_S(ASK), &said, 1, 0);
        ck_assert_int_eq(answer.choices[0].finish, cases[i].finish);
        ck_assert_uint_eq(f.n_usages, 0); /* none was told */
        forget(&f);
    }
    listen_to(&f, ASK, "refusal.sse", 0);
    ck_str(answer.choices[0].finish_text, "not that");
    forget(&f);
}
END_TEST

/* Names that only other platforms take are spelled for this one, and come back as they were. */
START_TEST(odd_names_of_functions)
{
    const struct fake_answer said = {
        200, EVENTS,
        CM_S(
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
            "\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"cmx-a_2eb\",\"input\":{"
            "\"x\":1}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\","
            "\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"x\\\":1}\"}}"
            "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
        FAKE_COMPLETE};
    struct fake f;

    begin(&f);
    f.on_event = collect;
    fake_chat(&f, CM_S(ASK_TOOLS));
    f.chat->tools[0].name = CM_S("a.b"); /* as Gemini's clients may call it */
    f.answers = &said;
    f.n_answers = 1;
    fake_play(&f);
    f.answers = NULL;
    ck_assert(cm_str_has(f.calls[0].body, CM_S("{\"name\":\"cmx-a_2eb\"")));
    ck_str(answer.choices[0].calls[0].name, "a.b");
    ck_str(cm_buf_str(&answer.choices[0].calls[0].args), "{\"x\":1}"); /* whole at once */
    forget(&f);
}
END_TEST

START_TEST(a_client_that_leaves_in_the_middle)
{
    for (size_t piece = 1; piece <= 300; piece += 7) {
        struct fake_answer said;
        struct fake f;

        begin(&f);
        said = file(&f, "tools.sse");
        fake_chat(&f, CM_S(ASK_TOOLS));
        f.answers = &said;
        f.n_answers = 1;
        f.piece = piece;
        f.on_event = NULL;
        fake_open(&f);
        fake_wait(&f, 1);
        fake_close(&f);
        f.answers = NULL;
        fake_clear(&f);
    }
}
END_TEST

/* ---- thinking that comes back ---- */

/* What is sent; the answer has thinking and calls. */
static struct cm_str body_of(struct cm_memo *memo, struct cm_arena *arena, const char *scope,
                             const char *model, const char *messages, bool whole)
{
    const char *asked = whole ? "\"low\",\"max_tokens\":8000" : "\"high\"";
    struct cm_memo *own;
    struct cm_str body;
    struct fake f;

    begin(&f);
    own = f.host.memo;
    f.host.memo = memo;
    f.scope = cm_str_of(scope);
    play(&f,
         cm_arena_printf(&f.arena, "{\"model\":\"%s\",\"reasoning_effort\":%s,\"messages\":[%s]%s}",
                         model, asked, messages, TOOLS),
         (struct fake_answer[]){file(&f, whole ? "whole_tools.json" : "tools.sse")}, 1, 0);
    ck_assert(asked_for_a_stream(&f) == !whole);
    ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
    body = cm_arena_str(arena, f.calls[0].body);
    f.host.memo = own;
    fake_clear(&f);
    return body;
}

#define GO USER("\"go\"")
#define LOOKED(text)                                                                               \
    GO ",{\"role\":\"assistant\",\"content\":\"" text                                              \
       "\",\"tool_calls\":[{\"id\":\"toolu_01\",\"type\":\"function\",\"function\":{\"name\":"     \
       "\"look\",\"arguments\":\"{\\\"at\\\":\\\"café\\\"}\"}},{\"id\":\"toolu_02\",\"type\":"     \
       "\"function\",\"function\":{\"name\":\"now\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\","  \
       "\"tool_call_id\":\"toolu_01\",\"content\":\"x\"},{\"role\":\"tool\",\"tool_call_id\":"     \
       "\"toolu_02\",\"content\":\"y\"}"
#define KEPT                                                                                       \
    "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"Let me look.\","   \
    "\"signature\":\"EqQB+/==\"},{\"type\":\"redacted_thinking\",\"data\":\"c2VhbGVk\"},{"         \
    "\"type\":\"text\",\"text\":\"I look.\"},{\"type\":\"tool_use\",\"id\":\"toolu_01\",\"name\":" \
    "\"look\",\"input\":{\"at\": \"caf\\u00e9\"}},{\"type\":\"tool_use\",\"id\":\"toolu_02\","     \
    "\"name\":\"now\",\"input\":{}}]}"

START_TEST(thinking_comes_back_before_its_calls)
{
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 1024 * 1024);
    struct cm_arena arena = {0};
    struct cm_str body;

    /* unknown yet: on a model with a budget the request goes without thinking */
    body = body_of(memo, &arena, "1 a", SONNET, LOOKED("I look."), false);
    ck_assert(!cm_str_has(body, CM_S("\"thinking\"")));

    body_of(memo, &arena, "1 a", SONNET, GO, false);
    body = body_of(memo, &arena, "1 a", SONNET, LOOKED(" I look."), false);
    ck_assert_msg(cm_str_has(body, CM_S(KEPT)), CM_PRI, CM_ARG(body));
    ck_assert(cm_str_has(body, CM_S(",\"thinking\":{\"type\":\"enabled\"")));

    /* of another client, another model, or changed by the client: not */
    body = body_of(memo, &arena, "2 b", SONNET, LOOKED("I look."), false);
    ck_assert(!cm_str_has(body, CM_S("EqQB")));
    body = body_of(memo, &arena, "1 a", OPUS, LOOKED("I look."), false);
    ck_assert(!cm_str_has(body, CM_S("EqQB")) && cm_str_has(body, CM_S("\"adaptive\"")));
    body = body_of(memo, &arena, "1 a", SONNET, LOOKED("I do not."), false);
    ck_assert(!cm_str_has(body, CM_S("EqQB")));
    cm_memo_free(memo);
    cm_arena_clear(&arena);
}
END_TEST

START_TEST(thinking_of_a_whole_answer_comes_back)
{
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 1024 * 1024);
    struct cm_arena arena = {0};
    struct cm_str body;

    body_of(memo, &arena, "1 a", SONNET, GO, true);
    body = body_of(memo, &arena, "1 a", SONNET, LOOKED("I look."), true);
    ck_assert_msg(
        cm_str_has(
            body,
            CM_S(
                "[{\"type\":\"thinking\",\"thinking\":\"Let me look.\",\"signature\":\"EqQB+/==\"},"
                "{\"type\":\"redacted_thinking\",\"data\":\"c2VhbGVk\"},"
                "{\"type\":\"text\",\"text\":\"I look.\"},"
                "{\"type\":\"tool_use\",\"id\":\"toolu_01\",\"name\":\"look\","
                "\"input\":{\"at\":\"café\",\"n\":1.0}},"
                "{\"type\":\"tool_use\",\"id\":\"toolu_02\",\"name\":\"now\",\"input\":{}}]")),
        CM_PRI, CM_ARG(body));
    cm_memo_free(memo);
    cm_arena_clear(&arena);
}
END_TEST

/* ---- the own dialect: bytes ---- */

#define OWN "{ \"model\":\"m\",\"max_tokens\":9 ,\"x\":1.0,\"stream\":true, " HI " }"
#define OWN_WHOLE "{\"model\":\"m\",\"max_tokens\":9," HI "}"

static void begin_own(struct fake *f)
{
    begin(f);
    f->surface = &cm_surface_anthropic;
}

static const char *const good[] = {"text.sse", "tools.sse", "noise.sse", "refusal.sse"};

START_TEST(a_stream_passes_byte_for_byte_at_every_split)
{
    for (size_t piece = 0; piece <= 64; piece++) {
        for (int crlf = 0; crlf < 2; crlf++) {
            struct fake_answer said;
            struct fake f;

            begin_own(&f);
            said = file(&f, good[_i]);
            if (crlf)
                said.body = fake_crlf(&f, said.body);
            play(&f, CM_S(OWN), &said, 1, piece);
            ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
            /* a cut between the very last CR and LF: the answer is over with the CR */
            if (crlf && f.relay.n + 1 == said.body.n)
                said.body.n--;
            ck_assert(cm_str_eq(cm_buf_str(&f.relay), said.body));
            ck_str(f.calls[0].body, OWN);
            ck_assert_uint_eq(f.n_heads, 1);
            ck_assert_int_eq(f.usage.source, CM_USAGE_UPSTREAM);
            ck_assert_uint_eq(f.n_usages, 2); /* what went in is told at once */
            fake_clear(&f);
        }
    }
}
END_TEST

START_TEST(nothing_counts_before_something_is_said)
{
    static const char *const before[] = {"Gr\xc3\xbc\xc3\x9f", "Let me ", "web_search\""};

    for (size_t i = 0; i < CM_COUNT(before); i++) {
        struct fake_answer said;
        struct cm_str held;
        struct fake f;

        begin_own(&f);
        said = file(&f, good[i]);
        play(&f, CM_S(OWN), &said, 1, 1);
        held = cm_str_head(cm_buf_str(&f.relay), f.relay_before);
        ck_assert(!cm_str_has(held, cm_str_of(before[i])));
        ck_assert(cm_str_has(held, CM_S("message_start")));
        fake_clear(&f);
    }
}
END_TEST

/* Thinking whose text is left out is an answer under way all the same. */
START_TEST(a_signature_is_something_said)
{
    const struct fake_answer said = {
        200, EVENTS,
        CM_S("event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
             "\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n"
             "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
             "\"delta\":{\"type\":\"signature_delta\",\"signature\":\"x\"}}\n\n"
             "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
        FAKE_COMPLETE};
    struct fake f;

    begin_own(&f);
    play(&f, CM_S(OWN), &said, 1, 1);
    ck_assert_uint_eq(f.n_semantic, 1);
    ck_assert(
        !cm_str_has(cm_str_head(cm_buf_str(&f.relay), f.relay_before), CM_S("signature_delta")));
    fake_clear(&f);
}
END_TEST

START_TEST(a_whole_answer_passes_byte_for_byte)
{
    struct fake_answer said;
    struct fake f;

    begin_own(&f);
    said = file(&f, "whole.json");
    play(&f, CM_S(OWN_WHOLE), &said, 1, 3);
    ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
    ck_assert(cm_str_eq(cm_buf_str(&f.relay), said.body));
    ck_str(f.calls[0].body, OWN_WHOLE);
    ck_assert_int_eq(f.usage.in_uncached, 5);
    ck_assert_int_eq(f.usage.in_cache_read, 2);
    ck_assert_int_eq(f.usage.out_text, 2);
    ck_assert_int_eq(f.usage.out_reasoning, 1);
    ck_assert_str_eq(f.usage.service_tier, "standard");
    fake_clear(&f);
}
END_TEST

START_TEST(only_the_name_of_the_model_changes)
{
    struct fake f;

    begin_own(&f);
    f.target.model = CM_S("claude-x");
    play_file(&f, OWN, "text.sse", 0);
    ck_str(f.calls[0].body,
           "{ \"model\":\"claude-x\",\"max_tokens\":9 ,\"x\":1.0,\"stream\":true, " HI " }");
    fake_clear(&f);

    begin_own(&f); /* and what it asks for */
    f.target.model = CM_S(OPUS);
    f.target.thinking = true;
    play_file(&f, OWN_WHOLE, "whole.json", 0);
    ck_str(f.calls[0].body, "{\"model\":\"" OPUS "\",\"max_tokens\":9," HI
                            ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"summarized\"}}");
    fake_clear(&f);
}
END_TEST

START_TEST(headers_of_the_dialect_go_up)
{
    static struct cm_header given[] = {
        {CM_S_INIT("anthropic-version"), CM_S_INIT("2026-10-21")},
        {CM_S_INIT("anthropic-beta"), CM_S_INIT("a-1,b-2")},
        {CM_S_INIT("Anthropic-Later"), CM_S_INIT("x")},
        {CM_S_INIT("openai-organization"), CM_S_INIT("theirs")},
        {CM_S_INIT("x-claude-code-session-id"), CM_S_INIT("s")},
        {CM_S_INIT("anthropic-beta"), CM_S_INIT("c-3")},
    };
    struct fake_answer said;
    struct fake f;

    begin_own(&f);
    f.cred.secret = CM_S("sk-ant-oat01-x");
    said = file(&f, "text.sse");
    fake_chat(&f, CM_S(OWN));
    f.chat->headers = given;
    f.chat->n_headers = CM_COUNT(given);
    f.chat->query = CM_S("beta=true");
    f.answers = &said;
    f.n_answers = 1;
    fake_play(&f);
    f.answers = NULL;
    ck_str(f.calls[0].url, "https://up.test/v1/messages?beta=true");
    ck_header(&f, "anthropic-version: 2026-10-21\n", true);
    ck_header(&f, "2023-06-01", false);
    ck_header(&f, "anthropic-beta: a-1,b-2,c-3,oauth-2025-04-20\n", true);
    ck_header(&f, "Anthropic-Later: x\n", true);
    ck_header(&f, "theirs", false);
    ck_header(&f, "session-id", false);
    fake_clear(&f);
}
END_TEST

/* Thinking that was made up here for another model's reasoning has no signature. */
START_TEST(what_came_from_us_is_taken_out)
{
    struct fake f;

    begin_own(&f);
    play_file(
        &f,
        "{\"model\":\"m\",\"max_tokens\":9,\"x\":[1.0],\"messages\":[" USER(
            "\"a\"") ","
                     "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
                     "\"signature\":\"\"},{\"type\":\"text\",\"text\":\"b\",\"x\":1.50}]},"
                     "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"so\","
                     "\"signature\":\"\"}]}," USER(
                         "\"c\"") ",{\"role\":\"assistant\",\"content\":[{"
                                  "\"type\":\"thinking\",\"thinking\":\"real\",\"signature\":\"s\"}]}," USER(
                                      "\"d\"") "]}",
        "whole.json", 0);
    ck_str(
        f.calls[0].body,
        "{\"model\":\"m\",\"max_tokens\":9,\"x\":[1.0],\"messages\":[" USER(
            "\"a\"") ","
                     "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"b\",\"x\":1.5}]}," USER(
                         "\"c\"") ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
                                  "\"thinking\":\"real\",\"signature\":\"s\"}]}," USER(
                                      "\"d\"") "]}");
    fake_clear(&f);
}
END_TEST

/* ---- counting ---- */

START_TEST(tokens_are_counted)
{
    const struct fake_answer said = {200, JSON, CM_S("{\"input_tokens\": 42}"), FAKE_COMPLETE};
    struct fake f;

    begin_own(&f);
    f.surface = &cm_surface_anthropic_count;
    play(&f, CM_S("{\"model\":\"m\"," HI "}"), &said, 1, 0);
    ck_str(f.calls[0].url, "https://up.test/v1/messages/count_tokens");
    ck_str(f.calls[0].body, "{\"model\":\"m\"," HI "}");
    ck_str(cm_buf_str(&f.relay), "{\"input_tokens\": 42}");
    ck_assert_uint_eq(f.n_usages, 0);
    fake_clear(&f);

    begin(&f); /* for another dialect */
    fake_chat(&f, CM_S("{\"model\":\"m\",\"temperature\":0.5," HI "}"));
    f.chat->task = CM_TASK_COUNT_TOKENS;
    f.answers = &said;
    f.n_answers = 1;
    fake_play(&f);
    f.answers = NULL;
    ck_str(f.calls[0].body, "{\"model\":\"m\"," SENT(TEXT("Hi")) "}");
    ck_assert_int_eq(f.usage.in_uncached, 42);
    fake_clear(&f);
}
END_TEST

START_TEST(a_count_that_is_none)
{
    static const char *const bodies[] = {"{}", "[]", "{\"input_tokens\":null}",
                                         "{\"input_tokens\":\"4\"}", "nonsense"};

    for (size_t i = 0; i < CM_COUNT(bodies); i++) {
        const struct fake_answer said = {200, JSON, cm_str_of(bodies[i]), FAKE_COMPLETE};
        struct fake f;

        begin(&f);
        fake_chat(&f, CM_S("{\"model\":\"m\"," HI "}"));
        f.chat->task = CM_TASK_COUNT_TOKENS;
        f.answers = &said;
        f.n_answers = 1;
        fake_play(&f);
        f.answers = NULL;
        ck_assert_msg(f.err.cls == CM_ERR_UPSTREAM_DOWN, "%s", bodies[i]);
        ck_assert_uint_eq(f.n_usages, 0);
        fake_clear(&f);
    }
}
END_TEST

/* ---- failures ---- */

static const struct {
    int status;
    const char *headers, *type, *message;
    enum cm_err_class cls;
    int told, retry_after_s;
} refusals[] = {
    {400, "", "invalid_request_error", "messages: bad", CM_ERR_BAD_REQUEST, 400, 0},
    {400, "", "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum",
     CM_ERR_CONTEXT_LENGTH, 400, 0},
    {400, "", "invalid_request_error", "Your credit balance is too low to access the API.",
     CM_ERR_QUOTA_EXHAUSTED, 429, 0},
    {400, "", "invalid_request_error", "You have reached your specified API usage limits.",
     CM_ERR_QUOTA_EXHAUSTED, 429, 0},
    {401, "", "authentication_error", "invalid x-api-key", CM_ERR_INVALID_CREDENTIAL, 502, 0},
    {401, "", "authentication_error", "OAuth token has expired.", CM_ERR_EXPIRED, 502, 0},
    {402, "", "billing_error", "pay", CM_ERR_QUOTA_EXHAUSTED, 429, 0},
    {403, "", "permission_error", "not for this key", CM_ERR_MODEL_UNAVAILABLE, 403, 0},
    {403, "", "permission_error", "This organization has been disabled.", CM_ERR_INVALID_CREDENTIAL,
     502, 0},
    {404, "", "not_found_error", "model: claude-x", CM_ERR_MODEL_UNAVAILABLE, 404, 0},
    {404, "", "not_found_error", "Not found", CM_ERR_BAD_REQUEST, 404, 0},
    {409, "", "conflict_error", "again", CM_ERR_BAD_REQUEST, 409, 0},
    {413, "", "request_too_large", "too large", CM_ERR_BAD_REQUEST, 413, 0},
    {429, "retry-after: 17\n", "rate_limit_error", "slow down", CM_ERR_RATE_LIMITED, 429, 17},
    {429, "", "rate_limit_error", "the month is over", CM_ERR_QUOTA_EXHAUSTED, 429, 0},
    {500, "", "api_error", "Internal server error", CM_ERR_UPSTREAM_DOWN, 502, 0},
    {503, "", NULL, NULL, CM_ERR_OVERLOADED, 503, 0},
    {504, "", "timeout_error", "late", CM_ERR_UPSTREAM_DOWN, 502, 0},
    {529, "", "overloaded_error", "Overloaded", CM_ERR_OVERLOADED, 503, 0},
    {400, "", "of_later_days", "x", CM_ERR_BAD_REQUEST, 400, 0},
};

START_TEST(refusals_are_told_apart)
{
    const bool own_words = cm_err_info(refusals[_i].cls)->next == CM_NEXT_STOP;

    for (size_t piece = 0; piece < 3; piece++) {
        for (int own = 0; own < 2; own++) {
            struct fake_answer said = {refusals[_i].status, NULL, CM_S("Bad gateway"),
                                       FAKE_COMPLETE};
            struct fake f;

            begin(&f);
            f.surface = own ? &cm_surface_anthropic : NULL;
            said.headers =
                cm_arena_z(&f.arena, cm_arena_printf(&f.arena, "%s" JSON, refusals[_i].headers));
            if (refusals[_i].type)
                said.body = cm_arena_printf(&f.arena,
                                            "{\"type\":\"error\",\"error\":{\"type\":\"%s\","
                                            "\"message\":\"%s\"},\"request_id\":\"req_9\"}",
                                            refusals[_i].type, refusals[_i].message);
            play(&f, own ? CM_S(OWN) : CM_S(ASK), &said, 1, piece);
            ck_assert_int_eq(f.err.cls, refusals[_i].cls);
            ck_assert_int_eq(cm_err_status(&f.err), refusals[_i].told);
            ck_assert_int_eq(f.err.retry_after_s, refusals[_i].retry_after_s);
            /* a client of the dialect reads the original */
            ck_assert(cm_str_eq(cm_buf_str(&f.relay), own && own_words ? said.body : CM_STR_NONE));
            fake_clear(&f);
        }
    }
}
END_TEST

START_TEST(a_limit_that_names_the_model)
{
    static const struct {
        const char *words;
        bool of_model;
    } limits[] = {
        {"would exceed your organization's rate limit of 50,000 input tokens per minute (org: 1, "
         "model: " OPUS ").",
         true},
        {"would exceed your organization's rate limit of 50 requests per minute", false},
        {"model: " OPUS "-fast", false},
    };

    for (size_t i = 0; i < CM_COUNT(limits); i++) {
        struct fake_answer said = {429, "retry-after: 17\n" JSON, CM_STR_NONE, FAKE_COMPLETE};
        struct fake f;

        begin(&f);
        said.body = cm_arena_printf(&f.arena,
                                    "{\"type\":\"error\",\"error\":{\"type\":"
                                    "\"rate_limit_error\",\"message\":\"%s\"}}",
                                    limits[i].words);
        play(&f, CM_S(ASK), &said, 1, 0);
        ck_assert_int_eq(f.err.cls, CM_ERR_RATE_LIMITED);
        ck_assert_msg(f.err.of_model == limits[i].of_model, "%s", limits[i].words);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(a_limit_that_tells_its_end_in_other_headers)
{
    struct fake_answer said = {429, NULL, CM_S("{\"error\":{\"type\":\"rate_limit_error\"}}"),
                               FAKE_COMPLETE};
    char at[CM_RFC3339_CAP], later[CM_RFC3339_CAP];
    struct fake f;

    begin(&f);
    cm_rfc3339(cm_unix_ms() + 30000, at);
    cm_rfc3339(cm_unix_ms() + 90000, later);
    said.headers =
        cm_arena_z(&f.arena, cm_arena_printf(&f.arena,
                                             "anthropic-ratelimit-requests-remaining: 0\n"
                                             "anthropic-ratelimit-requests-reset: %s\n"
                                             "anthropic-ratelimit-tokens-remaining: 5\n"
                                             "anthropic-ratelimit-tokens-reset: %s\n" JSON,
                                             at, later));
    play(&f, CM_S(ASK), &said, 1, 0);
    ck_assert_int_eq(f.err.cls, CM_ERR_RATE_LIMITED);
    ck_assert_int_ge(f.err.retry_after_s, 28);
    ck_assert_int_le(f.err.retry_after_s, 30);
    fake_clear(&f);
}
END_TEST

START_TEST(a_refusal_never_quotes_the_key)
{
    const struct fake_answer said = {
        400, JSON,
        CM_S("{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"not sk-secret\"}}"),
        FAKE_COMPLETE};
    struct fake f;

    begin_own(&f);
    play(&f, CM_S(OWN), &said, 1, 0);
    ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert(!cm_str_has(cm_str_of(f.err.msg), CM_S("sk-secret")));
    ck_assert_uint_eq(f.relay.n, 0);
    fake_clear(&f);
}
END_TEST

static const struct {
    const char *name;
    enum cm_err_class cls;
    size_t semantic; /* events that meant something */
} broken[] = {
    {"overloaded.sse", CM_ERR_OVERLOADED, 0},
    {"overloaded_late.sse", CM_ERR_UPSTREAM_DOWN, 1},
    {"cut.sse", CM_ERR_CUT, 1},
    {"unreadable.sse", CM_ERR_UPSTREAM_DOWN, 0},
};

START_TEST(whole_answers_that_fail)
{
    static const struct {
        const char *body;
        enum fake_rest rest;
        enum cm_err_class cls;
    } cases[] = {
        {"{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}",
         FAKE_COMPLETE, CM_ERR_OVERLOADED},
        {"{\"error\":{\"type\":\"rate_limit_error\",\"message\":\"m\"}}", FAKE_COMPLETE,
         CM_ERR_RATE_LIMITED},
        {"{\"type\":\"message\"}", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN},
        {"{\"content\":\"x\"}", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN},
        {"{\"content\":[", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN},
        {"[]", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN},
        {"", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN},
        {"{\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}", FAKE_BREAKS, CM_ERR_CUT},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer said = {200, JSON, cm_str_of(cases[i].body), cases[i].rest};
        struct fake f;

        begin(&f);
        f.on_event = collect;
        play(&f, CM_S(ASK_WHOLE), &said, 1, 0);
        ck_assert_msg(f.err.cls == cases[i].cls, "case %zu: %s", i, f.err.msg);
        ck_assert_msg(answer.n_choices == 0, "case %zu: nothing was told", i);
        forget(&f);
    }
}
END_TEST

START_TEST(streams_that_fail)
{
    for (size_t piece = 0; piece <= 40; piece++) {
        for (int own = 0; own < 2; own++) {
            struct fake f;

            begin(&f);
            f.surface = own ? &cm_surface_anthropic : NULL;
            play_file(&f, own ? OWN : ASK, broken[_i].name, piece);
            ck_assert_int_eq(f.err.cls, broken[_i].cls);
            ck_assert_uint_eq(f.n_semantic > 0, broken[_i].semantic);
            ck_assert(!cm_str_has(cm_buf_str(&f.relay), CM_S("event: error")));
            fake_clear(&f);
        }
    }
}
END_TEST

START_TEST(answers_that_are_none)
{
    static const struct {
        const char *headers, *body, *request;
        enum cm_err_class cls;
    } cases[] = {
        {"Content-Type: text/html\n", "<html>", ASK, CM_ERR_UPSTREAM_DOWN},
        {JSON, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}", ASK,
         CM_ERR_OVERLOADED},
        {JSON, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}", OWN_WHOLE,
         CM_ERR_OVERLOADED},
        {JSON, "[1]", OWN_WHOLE, CM_ERR_UPSTREAM_DOWN},
        {JSON, "{", OWN_WHOLE, CM_ERR_UPSTREAM_DOWN},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake_answer said = {200, cases[i].headers, cm_str_of(cases[i].body), FAKE_COMPLETE};
        struct fake f;

        begin(&f);
        f.surface = cases[i].request[2] == 'm' ? &cm_surface_anthropic : NULL;
        if (strcmp(cases[i].request, ASK) == 0)
            f.surface = NULL;
        play(&f, cm_str_of(cases[i].request), &said, 1, 0);
        ck_assert_int_eq(f.err.cls, cases[i].cls);
        fake_clear(&f);
    }
}
END_TEST

/* ---- models ---- */

static enum cm_step list_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    return cm_provider_find(CM_S("anthropic"))->models_list.step(run, ev, err);
}

START_TEST(the_list_of_models)
{
    static const struct fake_answer pages[] = {
        {200, JSON,
         CM_S_INIT("{\"data\":[{\"type\":\"model\",\"id\":\"claude-a\"},{\"id\":\"claude-b\"}],"
                   "\"has_more\":true,\"last_id\":\"claude b\"}"),
         FAKE_COMPLETE},
        {200, JSON, CM_S_INIT("{\"data\":[{\"id\":\"claude-c\"}],\"has_more\":false}"),
         FAKE_COMPLETE}};
    const struct cm_flow flow = {.step = list_step, .state_size = 64};
    struct fake f;

    begin(&f);
    f.flow = &flow;
    f.answers = pages;
    f.n_answers = CM_COUNT(pages);
    fake_play(&f);
    f.answers = NULL;
    ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
    ck_str(cm_buf_str(&f.models), "claude-a\nclaude-b\nclaude-c\n");
    ck_str(f.calls[0].url, "https://up.test/v1/models?limit=1000");
    ck_str(f.calls[1].url, "https://up.test/v1/models?limit=1000&after_id=claude%20b");
    ck_header(&f, "anthropic-version: 2023-06-01\n", true);
    fake_clear(&f);
}
END_TEST

Suite *suite_anthropic(void)
{
    Suite *s = suite_create("anthropic");
    TCase *t = tcase_create("requests");

    tcase_add_loop_test(t, requests_are_translated, 0, (int)CM_COUNT(rows));
    tcase_add_test(t, what_has_no_place);
    tcase_add_test(t, strict_refuses_what_the_model_does_without);
    tcase_add_test(t, the_name_of_a_model_asks_for_thinking);
    tcase_add_test(t, schemas_are_reduced);
    tcase_add_test(t, credentials_go_where_they_belong);
    suite_add_tcase(s, t);

    t = tcase_create("answers");
    tcase_add_test(t, a_stream_of_text_at_every_split);
    tcase_add_test(t, a_stream_of_calls_at_every_split);
    tcase_add_test(t, a_whole_answer_in_any_pieces);
    tcase_add_loop_test(t, how_a_whole_answer_ends, 0, (int)CM_COUNT(whole_ends));
    tcase_add_test(t, a_server_that_always_streams);
    tcase_add_test(t, long_answers_are_asked_for_as_streams);
    tcase_add_test(t, what_nobody_knows_is_skipped);
    tcase_add_test(t, how_answers_end);
    tcase_add_test(t, odd_names_of_functions);
    tcase_add_test(t, a_client_that_leaves_in_the_middle);
    tcase_add_test(t, thinking_comes_back_before_its_calls);
    tcase_add_test(t, thinking_of_a_whole_answer_comes_back);
    suite_add_tcase(s, t);

    t = tcase_create("relay");
    tcase_add_loop_test(t, a_stream_passes_byte_for_byte_at_every_split, 0, (int)CM_COUNT(good));
    tcase_add_test(t, nothing_counts_before_something_is_said);
    tcase_add_test(t, a_signature_is_something_said);
    tcase_add_test(t, a_whole_answer_passes_byte_for_byte);
    tcase_add_test(t, only_the_name_of_the_model_changes);
    tcase_add_test(t, headers_of_the_dialect_go_up);
    tcase_add_test(t, what_came_from_us_is_taken_out);
    tcase_add_test(t, tokens_are_counted);
    tcase_add_test(t, a_count_that_is_none);
    suite_add_tcase(s, t);

    t = tcase_create("failures");
    tcase_add_loop_test(t, refusals_are_told_apart, 0, (int)CM_COUNT(refusals));
    tcase_add_test(t, a_limit_that_names_the_model);
    tcase_add_test(t, a_limit_that_tells_its_end_in_other_headers);
    tcase_add_test(t, a_refusal_never_quotes_the_key);
    tcase_add_test(t, whole_answers_that_fail);
    tcase_add_loop_test(t, streams_that_fail, 0, (int)CM_COUNT(broken));
    tcase_add_test(t, answers_that_are_none);
    tcase_add_test(t, the_list_of_models);
    suite_add_tcase(s, t);
    return s;
}
