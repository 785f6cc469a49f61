/* surface/openai_chat: bodies in, streams and whole answers out. */
#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"
#include "chatmux/chat/models.h"
#include "chatmux/codec/json.h"
#include "surface_chat.h"

#include <math.h>
#include <stdlib.h>

static void parse(const char *body)
{
    parse_as(&cm_surface_openai_chat, body);
}

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

START_TEST(a_small_request)
{
    const char *body = "{\"model\":\"gpt-4o\"," HI ",\"unknown\":{\"x\":1},\"temperature\":null}";

    parse(body);
    ck_str(chat.model, "gpt-4o");
    ck_assert_ptr_eq(chat.raw.p, body);
    ck_assert_uint_eq(chat.n_msgs, 1);
    ck_assert_int_eq(chat.msgs[0].role, CM_ROLE_USER);
    ck_str(chat.msgs[0].parts[0].text, "Hi");
    ck_assert(isnan(chat.temperature) && isnan(chat.top_p));
    ck_assert_int_eq(chat.max_tokens, -1);
    ck_assert_int_eq(chat.n, 1);
    ck_assert_int_eq(chat.parallel_tool_calls, -1);
    ck_assert(!chat.stream && !chat.has_seed && !chat.include_usage);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    ck_assert_int_eq(chat.dialect, CM_DIALECT_OPENAI_CHAT);
}
END_TEST

START_TEST(what_others_have_no_words_for)
{
    parse("{\"model\":\"m\"," HI
          ",\"logprobs\":true,\"top_logprobs\":3,\"logit_bias\":{\"5\":-100},\"verbosity\":\"low\","
          "\"service_tier\":\"flex\",\"metadata\":{\"a\":\"b\"},\"prompt_cache_key\":\"k\","
          "\"safety_identifier\":\"u\",\"store\":true,\"prediction\":{\"type\":\"content\"},"
          "\"modalities\":[\"text\",\"image\"],\"response_format\":{\"type\":\"json_schema\","
          "\"json_schema\":{\"name\":\"n\",\"description\":\"d\",\"strict\":true,\"schema\":{}}}}");
    ck_assert(chat.logprobs);
    ck_assert_int_eq(chat.top_logprobs, 3);
    ck_str(chat.logit_bias, "{\"5\":-100}");
    ck_str(chat.verbosity, "low");
    ck_str(chat.service_tier, "flex");
    ck_str(chat.metadata, "{\"a\":\"b\"}");
    ck_str(chat.cache_key, "k");
    ck_str(chat.user, "u");
    ck_assert_uint_eq(chat.modalities, CM_MODALITY_TEXT | CM_MODALITY_IMAGE);
    ck_str(chat.schema_description, "d");
    ck_assert_int_eq(chat.schema_strict, 1);
    ck_assert_uint_eq(chat.n_dropped, 2);
    ck_str(chat.dropped[0], "store");
    ck_str(chat.dropped[1], "prediction");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(every_simple_member)
{
    parse(
        "{\"model\":\"m\"," HI
        ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"temperature\":0,"
        "\"top_p\":0.5,\"max_tokens\":5,\"max_completion_tokens\":7,\"n\":3,\"stop\":[\"a\",\"b\"],\"seed\":-4,"
        "\"presence_penalty\":-2,\"frequency_penalty\":2,\"logprobs\":true,\"top_logprobs\":20,\"logit_bias\":{},"
        "\"reasoning_effort\":\"high\",\"user\":\"u\",\"modalities\":[\"text\"],\"parallel_tool_calls\":false,"
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"s\",\"schema\":{\"b\":1,\"a\":1.0}}}}");
    ck_assert(chat.stream && chat.include_usage && chat.has_seed);
    ck_assert_double_eq(chat.temperature, 0);
    ck_assert_double_eq(chat.top_p, 0.5);
    ck_assert_double_eq(chat.presence_penalty, -2);
    ck_assert_double_eq(chat.frequency_penalty, 2);
    ck_assert_int_eq(chat.max_tokens, 7);
    ck_assert_int_eq(chat.n, 3);
    ck_assert_int_eq(chat.seed, -4);
    ck_assert_uint_eq(chat.n_stop, 2);
    ck_str(chat.stop[1], "b");
    ck_str(chat.reasoning_effort, "high");
    ck_str(chat.user, "u");
    ck_assert_int_eq(chat.parallel_tool_calls, 0);
    ck_assert_int_eq(chat.format, CM_FORMAT_SCHEMA);
    ck_str(chat.schema_name, "s");
    ck_str(chat.schema, "{\"b\":1,\"a\":1.0}");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(null_is_absent)
{
    parse(
        "{\"model\":\"m\"," HI
        ",\"stream\":null,\"stream_options\":null,\"stop\":null,\"seed\":null,\"tools\":null,"
        "\"tool_choice\":null,\"functions\":null,\"function_call\":null,\"response_format\":null,\"modalities\":null,"
        "\"audio\":null,\"parallel_tool_calls\":null,\"max_tokens\":9,\"max_completion_tokens\":null,\"n\":null,\"user\":null}");
    ck_assert(!chat.has_seed && !chat.stream);
    ck_assert_int_eq(chat.parallel_tool_calls, -1);
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_UNSET);
    ck_assert_int_eq(chat.format, CM_FORMAT_TEXT);
    ck_assert_int_eq(chat.max_tokens, 9);
    ck_assert_uint_eq(chat.n_stop, 0);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(parts_of_a_user)
{
    parse(
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"name\":\"Al\",\"content\":["
        "{\"type\":\"text\",\"text\":\"see\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://h/p.png\",\"detail\":\"low\"}},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,iVBO\"}},"
        "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"UklG\",\"format\":\"wav\"}},"
        "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":\"data:application/pdf;base64,JVBE\"}},"
        "{\"type\":\"file\",\"file\":{\"file_id\":\"file-1\"}}]}]}");
    const struct cm_part *p = chat.msgs[0].parts;

    ck_str(chat.msgs[0].name, "Al");
    ck_assert_uint_eq(chat.msgs[0].n_parts, 6);
    ck_str(p[1].url, "https://h/p.png");
    ck_str(p[1].detail, "low");
    ck_assert_uint_eq(p[1].data.n, 0);
    ck_assert_int_eq(p[2].kind, CM_PART_IMAGE);
    ck_str(p[2].media_type, "image/png");
    ck_str(p[2].data, "iVBO");
    ck_assert_uint_eq(p[2].url.n, 0);
    ck_assert_int_eq(p[3].kind, CM_PART_AUDIO);
    ck_str(p[3].media_type, "wav");
    ck_assert_int_eq(p[4].kind, CM_PART_FILE);
    ck_str(p[4].name, "a.pdf");
    ck_str(p[4].media_type, "application/pdf");
    ck_str(p[5].id, "file-1");
}
END_TEST

START_TEST(bare_base64_of_a_known_kind)
{
    static const char *const kinds[][2] = {{"iVBORw0KGgoAAAAN", "image/png"},
                                           {"/9j/4AAQSkZJRg==", "image/jpeg"},
                                           {"R0lGODlhAQABAIAA", "image/gif"},
                                           {"UklGRiQAAABXRUJQ", "image/webp"},
                                           {"JVBERi0xLjcKJeLj", "application/pdf"}};
    char body[300];

    for (size_t i = 0; i < CM_COUNT(kinds); i++) {
        snprintf(body, sizeof(body),
                 "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_"
                 "url\",\"image_url\":{\"url\":\"%s\"}}]}]}",
                 kinds[i][0]);
        parse(body);
        ck_assert(cm_str_eq(chat.msgs[0].parts[0].data, cm_str_of(kinds[i][0])));
        ck_assert(cm_str_eq(chat.msgs[0].parts[0].media_type, cm_str_of(kinds[i][1])));
    }
}
END_TEST

START_TEST(a_tool_loop)
{
    parse(
        "{\"model\":\"m\",\"messages\":["
        "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"Be\"},{\"type\":\"text\",\"text\":\"brief\"}]},"
        "{\"role\":\"user\",\"content\":\"\"},"
        "{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"hm\",\"refusal\":null,\"annotations\":[],\"tool_calls\":["
        "{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},"
        "{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{\\\"a\\\":1}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"two\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":[{\"type\":\"text\",\"text\":\"o\"},{\"type\":\"text\",\"text\":\"ne\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\"},\"strict\":true}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"g\",\"strict\":null}}],"
        "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}");
    ck_assert_uint_eq(chat.n_msgs, 6);
    ck_assert_uint_eq(chat.msgs[0].n_parts, 2);
    ck_assert_uint_eq(chat.msgs[1].n_parts, 1);
    ck_assert_uint_eq(chat.msgs[2].n_parts, 3);
    ck_assert_int_eq(chat.msgs[2].parts[0].kind, CM_PART_REASONING);
    ck_str(chat.msgs[2].parts[0].text, "hm");
    ck_assert_int_eq(chat.msgs[2].parts[2].kind, CM_PART_TOOL_CALL);
    ck_str(chat.msgs[2].parts[2].id, "c2");
    ck_str(chat.msgs[2].parts[2].name, "g");
    ck_str(chat.msgs[2].parts[2].text, "{\"a\":1}");
    ck_assert_int_eq(chat.msgs[4].role, CM_ROLE_TOOL);
    ck_assert_int_eq(chat.msgs[4].parts[0].kind, CM_PART_TOOL_RESULT);
    ck_str(chat.msgs[4].parts[0].id, "c1");
    ck_str(chat.msgs[4].parts[0].text, "o\nne");
    ck_assert_int_eq(chat.msgs[5].parts[0].kind, CM_PART_REFUSAL);
    ck_assert_uint_eq(chat.n_tools, 2);
    ck_str(chat.tools[0].parameters, "{\"type\":\"object\"}");
    ck_assert_int_eq(chat.tools[0].strict, 1);
    ck_assert_int_eq(chat.tools[1].strict, -1);
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_NAMED);
    ck_str(chat.tool_name, "g");
}
END_TEST

START_TEST(functions_become_tools)
{
    parse(
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"},"
        "{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":\"f\",\"arguments\":\"{}\"}},"
        "{\"role\":\"function\",\"name\":\"f\",\"content\":\"r\"}],"
        "\"functions\":[{\"name\":\"f\",\"parameters\":{}}],\"function_call\":{\"name\":\"f\"}}");
    ck_assert_uint_eq(chat.n_tools, 1);
    ck_str(chat.tools[0].name, "f");
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_NAMED);
    ck_assert_int_eq(chat.msgs[1].parts[0].kind, CM_PART_TOOL_CALL);
    ck_assert_int_eq(chat.msgs[2].role, CM_ROLE_TOOL);
    ck_assert(cm_str_eq(chat.msgs[1].parts[0].id, chat.msgs[2].parts[0].id));
    ck_assert_uint_gt(chat.msgs[2].parts[0].id.n, 0);
}
END_TEST

#define MSGS(m) "{\"model\":\"m\",\"messages\":" m "}"
#define WITH(more) "{\"model\":\"m\"," HI "," more "}"

START_TEST(wrong_bodies_are_told_where)
{
    static const struct {
        const char *body, *param, *code, *msg; /* msg: what it must hold */
    } cases[] = {
        {"", "", NULL, "JSON"},
        {"[]", "", NULL, "JSON object"},
        {"{}", "model", "missing_required_parameter", "Missing required parameter: 'model'."},
        {"{\"model\":\"\"," HI "}", "model", "missing_required_parameter", "model"},
        {"{\"model\":7," HI "}", "model", "invalid_type",
         "expected a string, but got an integer instead."},
        {"{\"model\":\"m\"}", "messages", "missing_required_parameter",
         "Missing required parameter: 'messages'."},
        {"{\"model\":\"m\"," HI ",\"model\":\"m\"}", "model", "duplicate_parameter",
         "more than once"},
        {"{\"model\":\"m\"," HI ",\"\\u006dodel\":\"m\"}", "model", "duplicate_parameter",
         "more than once"},
        {"{\"model\":\"m\",\"stream\":null," HI ",\"stream\":true}", "stream",
         "duplicate_parameter", "more than once"},
        {MSGS("\"x\""), "messages", "invalid_type", "expected an array, but got a string instead."},
        {MSGS("[]"), "messages", "empty_array", "Invalid 'messages': empty array."},
        {MSGS("[3]"), "messages[0]", "invalid_type", "an object"},
        {MSGS("[{}]"), "messages[0].role", "missing_required_parameter", "messages[0].role"},
        {MSGS("[{\"role\":\"king\",\"content\":\"\"}]"), "messages[0].role", "invalid_value",
         "'king'"},
        {MSGS("[{\"role\":\"user\"}]"), "messages[0].content", "missing_required_parameter",
         "content"},
        {MSGS("[{\"role\":\"user\",\"content\":5}]"), "messages[0].content", "invalid_type",
         "a string or an array"},
        {MSGS(
             "[{\"role\":\"user\",\"content\":\"\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]"),
         "messages[1].content[0].text", "missing_required_parameter",
         "messages[1].content[0].text"},
        {MSGS("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}]"),
         "messages[0].content[0].text", "invalid_type", "a string"},
        {MSGS(
             "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":\"http://x\"}]}]"),
         "messages[0].content[0].image_url", "invalid_type", "an object"},
        {MSGS("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]"),
         "messages[0].content[0].image_url.url", "missing_required_parameter", "url"},
        {MSGS(
             "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"file:///etc/passwd\"}}]}]"),
         "messages[0].content[0].image_url.url", "invalid_value", "http"},
        {MSGS(
             "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png,x\"}}]}]"),
         "messages[0].content[0].image_url.url", "invalid_value", "base64"},
        {MSGS(
             "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,\"}}]}]"),
         "messages[0].content[0].image_url.url", "invalid_value", "base64"},
        {MSGS("[{\"role\":\"assistant\"}]"), "messages[0].content", "missing_required_parameter",
         "content"},
        {MSGS(
             "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{}}}]}]"),
         "messages[0].tool_calls[0].function.arguments", "invalid_type", "a string"},
        {MSGS("[{\"role\":\"tool\",\"content\":\"x\",\"tool_call_id\":\"c\"}]"), "messages[0].role",
         NULL, "preceding message"},
        {MSGS(
             "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]},"
             "{\"role\":\"tool\",\"content\":\"x\",\"tool_call_id\":\"d\"}]"),
         "messages[1].tool_call_id", NULL, "not found"},
        {MSGS(
             "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]},"
             "{\"role\":\"user\",\"content\":\"x\"}]"),
         "messages[1].role", NULL, "Without a response: c"},
        {MSGS(
             "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}},"
             "{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}]"),
         "messages[0].tool_calls[1].id", "invalid_value", "same id"},
        {WITH("\"temperature\":\"hot\""), "temperature", "invalid_type",
         "Invalid type for 'temperature': expected a number, but got a string instead."},
        {WITH("\"temperature\":2.1"), "temperature", "decimal_above_max_value",
         "<= 2, but got 2.1"},
        {WITH("\"top_p\":-1"), "top_p", "decimal_below_min_value", ">= 0"},
        {WITH("\"n\":0"), "n", "integer_below_min_value",
         "Expected a value >= 1, but got 0 instead."},
        {WITH("\"n\":129"), "n", "integer_above_max_value", "<= 128"},
        {WITH("\"n\":1.5"), "n", "invalid_type", "an integer"},
        {WITH("\"max_tokens\":-3"), "max_tokens", "integer_below_min_value", "-3"},
        {WITH("\"seed\":18446744073709551615"), "seed", "integer_above_max_value",
         "18446744073709551615"},
        {WITH("\"logprobs\":true,\"top_logprobs\":21"), "top_logprobs", "integer_above_max_value",
         "<= 20"},
        {WITH("\"top_logprobs\":2"), "top_logprobs", NULL, "logprobs"},
        {WITH("\"stream\":\"yes\""), "stream", "invalid_type", "a boolean"},
        {WITH("\"stream_options\":{\"include_usage\":true}"), "stream_options", NULL,
         "only allowed when 'stream'"},
        {WITH("\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]"), "stop", "array_above_max_length",
         "maximum length 4"},
        {WITH("\"stop\":[1]"), "stop[0]", "invalid_type", "a string"},
        {WITH("\"stop\":1"), "stop", "invalid_type", "a string or an array"},
        {WITH("\"tools\":{}"), "tools", "invalid_type", "an array"},
        {WITH("\"tools\":[{\"type\":\"function\"}]"), "tools[0].function",
         "missing_required_parameter", "function"},
        {WITH(
             "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":\"x\"}}]"),
         "tools[0].function.parameters", "invalid_type", "an object"},
        {WITH("\"tool_choice\":\"required\""), "tool_choice", NULL, "'tools'"},
        {WITH("\"tool_choice\":\"maybe\""), "tool_choice", "invalid_value", "'maybe'"},
        {WITH("\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"),
         "tool_choice", "invalid_value", "'f'"},
        {WITH("\"tool_choice\":{\"type\":\"allowed_tools\"}"), "tool_choice.allowed_tools",
         "missing_required_parameter", "allowed_tools"},
        {WITH("\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\"}}"),
         "tool_choice.allowed_tools.tools", "missing_required_parameter", "tools"},
        {WITH("\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"maybe\","
              "\"tools\":[]}}"),
         "tool_choice.allowed_tools.mode", "invalid_value", "'maybe'"},
        {WITH("\"response_format\":\"json\""), "response_format", "invalid_type", "an object"},
        {WITH("\"response_format\":{\"type\":\"json_schema\"}"), "response_format.json_schema",
         "missing_required_parameter", ""},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_err err = {0};
        const char *code;

        ck_assert_msg(cm_surface_openai_chat.parse(&chat, cm_str_of(cases[i].body), &err) == -1,
                      "%s", cases[i].body);
        code = cm_err_code(&err);
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_msg(strcmp(err.param, cases[i].param) == 0, "%s: param %s", cases[i].body,
                      err.param);
        ck_assert_msg(code == cases[i].code ||
                          (code && cases[i].code && strcmp(code, cases[i].code) == 0),
                      "%s: code %s", cases[i].body, code);
        ck_assert_msg(strstr(err.msg, cases[i].msg) != NULL, "%s: %s", cases[i].body, err.msg);
        cm_arena_clear(&arena);
    }
}
END_TEST

#define F(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"
#define AMONG(mode, tools)                                                                         \
    WITH("\"tools\":[" F("f") "," F("g") "," F("h") "],\"tool_choice\":{\"type\":"                 \
                                                    "\"allowed_tools\",\"allowed_tools\":{" mode   \
                                                    "\"tools\":[" tools "]}}")

START_TEST(tools_that_are_not_allowed_are_left_out)
{
    parse(AMONG("\"mode\":\"required\",", F("h") "," F("f") "," F("none")));
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_REQUIRED);
    ck_assert_uint_eq(chat.n_tools, 2);
    ck_str(chat.tools[0].name, "f");
    ck_str(chat.tools[1].name, "h");
    cm_chat_find_unread(&chat);
    ck_assert_uint_eq(chat.n_dropped, 0);
    cm_arena_clear(&arena);

    parse(AMONG("", F("g")));
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_AUTO);
    ck_assert_uint_eq(chat.n_tools, 1);
    cm_arena_clear(&arena);

    parse(AMONG("\"mode\":\"required\",", F("none")));
    ck_assert_int_eq(chat.tool_choice, CM_TOOLS_UNSET);
    ck_assert_uint_eq(chat.n_tools, 0);
}
END_TEST

START_TEST(what_only_a_relay_can_carry_is_noted)
{
    static const struct {
        const char *body, *param;
    } cases[] = {
        {WITH("\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"c\"}}]"), "tools[0].type"},
        {WITH("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a.b\"}}]"),
         "tools[0].function.name"},
        {WITH("\"tool_choice\":{\"type\":\"custom\",\"custom\":{\"name\":\"c\"}}"),
         "tool_choice.type"},
        {WITH("\"modalities\":[\"text\",\"audio\"],\"audio\":{}"), "modalities[1]"},
        {WITH("\"response_format\":{\"type\":\"grammar\"}"), "response_format.type"},
        {MSGS("[{\"role\":\"user\",\"content\":[{\"type\":\"video_url\",\"video_url\":{}}]}]"),
         "messages[0].content[0].type"},
        {MSGS("[{\"role\":\"system\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]"),
         "messages[0].content[0].type"},
        {MSGS("[{\"role\":\"assistant\",\"audio\":{\"id\":\"a\"}}]"), "messages[0].audio"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        parse(cases[i].body);
        ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST);
        ck_assert_str_eq(chat.untranslatable.param, cases[i].param);
    }
}
END_TEST

START_TEST(lists_of_hostile_length_cost_no_memory)
{
    struct cm_buf body = {0};
    struct cm_err err;

    cm_buf_append(&body, CM_S("{\"model\":\"m\",\"messages\":["));
    for (int i = 0; i < 1000000; i++)
        cm_buf_append(&body, CM_S("0,"));
    cm_buf_append(&body, CM_S("0]}"));
    ck_assert_int_eq(cm_surface_openai_chat.parse(&chat, cm_buf_str(&body), &err), -1);
    ck_assert_str_eq(err.param, "messages[0]");
    cm_buf_clear(&body);
}
END_TEST

/* ---- Answers ---- */

static struct cm_answer_meta meta(int reasoning, bool usage, int64_t n)
{
    return (struct cm_answer_meta){.id = CM_S("chatcmpl-1"),
                                   .model = CM_S("m\"1"),
                                   .created_s = 7,
                                   .include_usage = usage,
                                   .n = n,
                                   .reasoning = reasoning};
}

static const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM,
                                      .in_uncached = 5,
                                      .in_cache_read = 2,
                                      .out_text = 3,
                                      .out_reasoning = 4};

#define USAGE                                                                                                          \
    "{\"prompt_tokens\":7,\"completion_tokens\":7,\"total_tokens\":14,\"prompt_tokens_details\":{\"cached_tokens\":2," \
    "\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":4,\"audio_tokens\":0,"                    \
    "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}"

/* The stream of these events; the caller frees. */
static char *streamed(struct cm_answer_meta m, const struct cm_event *events, size_t n)
{
    void *state = cm_calloc(1, cm_surface_openai_chat.stream_size);
    struct cm_buf out = {0};

    cm_surface_openai_chat.stream_begin(state, &m, &out);
    for (size_t i = 0; i < n; i++)
        cm_surface_openai_chat.stream_event(state, &events[i], &out);
    cm_surface_openai_chat.stream_end(state, &usage, &out);
    cm_surface_openai_chat.stream_clear(state);
    free(state);
    cm_buf_z(&out);
    return out.p;
}

#define HEAD                                                                                       \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\\\"1\",\"choices\":["
#define CHUNK_OF(i, d) HEAD "{\"index\":" i ",\"delta\":{" d "},\"finish_reason\":null}]}\n\n"
#define CHUNK(d) CHUNK_OF("0", d)
#define FINISH_OF(i, f) HEAD "{\"index\":" i ",\"delta\":{},\"finish_reason\":\"" f "\"}]}\n\n"
#define ROLE "\"role\":\"assistant\",\"content\":\"\",\"refusal\":null"
#define DONE "data: [DONE]\n\n"

#define EXPECT(m, events, text)                                                                    \
    do {                                                                                           \
        char *got_ = streamed(m, events, CM_COUNT(events));                                        \
        ck_assert_str_eq(got_, text);                                                              \
        free(got_);                                                                                \
    } while (0)

#define EV_TEXT(t) {.kind = CM_EVENT_TEXT, .text = CM_S_INIT(t)}
#define EV_REASONING(t) {.kind = CM_EVENT_REASONING, .text = CM_S_INIT(t)}
#define EV_FINISH(f) {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_##f}

START_TEST(a_stream_of_text)
{
    const struct cm_event events[] = {EV_TEXT("Hel"),
                                      EV_TEXT(""),
                                      EV_TEXT("l\"o\n"),
                                      {.kind = CM_EVENT_USAGE, .usage = &usage},
                                      EV_FINISH(LENGTH)};

    EXPECT(meta(CM_REASONING_FIELD, false, 1), events,
           CHUNK(ROLE) CHUNK("\"content\":\"Hel\"") CHUNK("\"content\":\"l\\\"o\\n\"")
               FINISH_OF("0", "length") DONE);
}
END_TEST

START_TEST(a_stream_with_usage)
{
    const struct cm_event events[] = {EV_TEXT("x"), EV_FINISH(STOP)};

    EXPECT(
        meta(CM_REASONING_FIELD, true, 1), events,
        HEAD
        "{\"index\":0,\"delta\":{" ROLE "},\"finish_reason\":null}],\"usage\":null}\n\n" HEAD
        "{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}],\"usage\":null}\n\n" HEAD
        "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n" HEAD
        "],\"usage\":" USAGE "}\n\n" DONE);
}
END_TEST

START_TEST(reasoning_in_every_form)
{
    const struct cm_event events[] = {EV_REASONING("a"), EV_REASONING("b"), EV_TEXT("c"),
                                      EV_FINISH(STOP)};
    const struct cm_event only[] = {EV_REASONING("a"), EV_FINISH(STOP)};
    const char *rest = CHUNK("\"content\":\"c\"") FINISH_OF("0", "stop") DONE;
    static const struct {
        int mode;
        const char *pieces;
    } cases[] = {
        {CM_REASONING_FIELD,
         CHUNK("\"reasoning_content\":\"a\"") CHUNK("\"reasoning_content\":\"b\"")},
        {CM_REASONING_THINK, CHUNK("\"content\":\"<think>\\na\"") CHUNK("\"content\":\"b\"")
                                 CHUNK("\"content\":\"\\n</think>\\n\\n\"")},
        {CM_REASONING_THINK_COLON,
         CHUNK("\"content\":\"<think:a\"") CHUNK("\"content\":\"b\"") CHUNK("\"content\":\">\"")},
        {CM_REASONING_THINK_COLON_DELTA,
         CHUNK("\"content\":\"<think:a>\"") CHUNK("\"content\":\"<think:b>\"")},
        {CM_REASONING_PLAIN, CHUNK("\"content\":\"a\"") CHUNK("\"content\":\"b\"")},
        {CM_REASONING_HIDE, ""},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        char *got = streamed(meta(cases[i].mode, false, 1), events, CM_COUNT(events));
        struct cm_buf expected = {0};

        cm_buf_printf(&expected, "%s%s%s", CHUNK(ROLE), cases[i].pieces, rest);
        ck_assert_str_eq(got, cm_buf_z(&expected));
        cm_buf_clear(&expected);
        free(got);
    }
    EXPECT(meta(CM_REASONING_THINK, false, 1), only,
           CHUNK(ROLE) CHUNK("\"content\":\"<think>\\na\"")
               CHUNK("\"content\":\"\\n</think>\\n\\n\"") FINISH_OF("0", "stop") DONE);
}
END_TEST

#define CALL(i, id, name)                                                                          \
    CHUNK("\"tool_calls\":[{\"index\":" i ",\"id\":\"" id                                          \
          "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":\"\"}}]")
#define ARGS(i, a)                                                                                 \
    CHUNK("\"tool_calls\":[{\"index\":" i ",\"function\":{\"arguments\":\"" a "\"}}]")

START_TEST(a_stream_of_tool_calls)
{
    const struct cm_event events[] = {
        {.kind = CM_EVENT_TOOL_CALL, .index = 0, .id = CM_S("c0"), .name = CM_S("f")},
        {.kind = CM_EVENT_TOOL_ARGS, .index = 0, .text = CM_S("{\"a\"")},
        {.kind = CM_EVENT_TOOL_CALL, .index = 1, .id = CM_S("c1"), .name = CM_S("g")},
        {.kind = CM_EVENT_TOOL_ARGS, .index = 1},
        {.kind = CM_EVENT_TOOL_ARGS, .index = 0, .text = CM_S(":1}")},
        EV_FINISH(STOP),
    };

    EXPECT(meta(CM_REASONING_FIELD, false, 1), events,
           CHUNK(ROLE) CALL("0", "c0", "f") ARGS("0", "{\\\"a\\\"") CALL("1", "c1", "g")
               ARGS("0", ":1}") ARGS("1", "{}") FINISH_OF("0", "tool_calls") DONE);
}
END_TEST

START_TEST(a_stream_of_everything_else)
{
    const struct cm_event events[] = {
        {.kind = CM_EVENT_IMAGE, .text = CM_S("alt"), .url = CM_S("https://h/p.png")},
        {.kind = CM_EVENT_CITATION, .url = CM_S("https://s"), .name = CM_S("T")},
        {.kind = CM_EVENT_REFUSAL, .text = CM_S("no")},
        EV_FINISH(CONTENT_FILTER),
        EV_FINISH(STOP), /* once is enough */
    };

    EXPECT(
        meta(CM_REASONING_FIELD, false, 1), events,
        CHUNK(ROLE) CHUNK("\"content\":\"![alt](https://h/p.png)\"") CHUNK(
            "\"annotations\":[{\"type\":\"url_citation\",\"url_citation\":{\"url\":\"https://s\",\"title\":\"T\",\"start_index\":0,\"end_index\":0}}]")
            CHUNK("\"refusal\":\"no\"") FINISH_OF("0", "content_filter") DONE);
}
END_TEST

START_TEST(a_stream_with_logprobs)
{
    const struct cm_event events[] = {
        {.kind = CM_EVENT_TEXT, .text = CM_S("a"), .logprobs = CM_S("[{\"token\":\"a\"}]")},
        {.kind = CM_EVENT_SIGNATURE, .text = CM_S("sealed")},
        EV_FINISH(REFUSAL),
    };

    EXPECT(meta(CM_REASONING_FIELD, false, 1), events,
           CHUNK(ROLE) HEAD "{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{"
                            "\"content\":[{\"token\":\"a\"}],\"refusal\":null},"
                            "\"finish_reason\":null}]}\n\n" FINISH_OF("0", "content_filter") DONE);
}
END_TEST

START_TEST(a_stream_of_two_choices)
{
    const struct cm_event events[] = {
        {.kind = CM_EVENT_TEXT, .choice = 1, .text = CM_S("b")},
        EV_TEXT("a"),
        {.kind = CM_EVENT_FINISH, .choice = 1, .finish = CM_FINISH_STOP},
        EV_FINISH(STOP),
    };

    EXPECT(meta(CM_REASONING_FIELD, false, 2), events,
           CHUNK(ROLE) CHUNK_OF("1", ROLE) CHUNK_OF("1", "\"content\":\"b\"")
               CHUNK("\"content\":\"a\"") FINISH_OF("1", "stop") FINISH_OF("0", "stop") DONE);
}
END_TEST

START_TEST(an_error_ends_a_stream)
{
    struct cm_buf out = {0};
    struct cm_err err = {0};

    cm_fail(&err, CM_ERR_CUT, "broke \"off\"");
    cm_surface_openai_chat.stream_error(NULL, &err, &out);
    ck_str(
        cm_buf_str(&out),
        "data: {\"error\":{\"message\":\"broke \\\"off\\\"\",\"type\":\"upstream_error\",\"param\":null,\"code\":\"upstream_cut\"}}\n\n");
    cm_buf_reset(&out);
    cm_fail_param(&err, CM_ERR_BAD_REQUEST, "model", "bad");
    cm_surface_openai_chat.error_body(&err, &out);
    ck_str(
        cm_buf_str(&out),
        "{\"error\":{\"message\":\"bad\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":null}}");
    cm_buf_clear(&out);
}
END_TEST

START_TEST(written_cache_is_told)
{
    const struct cm_usage written = {.in_uncached = 1, .in_cache_write = 2, .out_text = 3};
    const struct cm_answer answer = {.usage = written};
    const struct cm_answer_meta m = meta(CM_REASONING_FIELD, false, 1);
    struct cm_buf out = {0};

    cm_surface_openai_chat.whole(&m, &answer, &out);
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"prompt_tokens\":3,")));
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"cache_write_tokens\":2")));
    cm_buf_clear(&out);
}
END_TEST

static char *whole(int reasoning, const struct cm_event *events, size_t n)
{
    struct cm_answer_meta m = meta(reasoning, false, 1);
    struct cm_answer answer = {0};
    struct cm_buf out = {0};
    struct cm_err err;

    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(cm_answer_add(&answer, &events[i], &err), 0);
    answer.usage = usage;
    cm_surface_openai_chat.whole(&m, &answer, &out);
    cm_answer_clear(&answer);
    cm_buf_z(&out);
    return out.p;
}

#define WHOLE(message, finish)                                                                                            \
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\\\"1\",\"choices\":[{\"index\":0," \
    "\"message\":{\"role\":\"assistant\"," message                                                                        \
    "},\"logprobs\":null,\"finish_reason\":\"" finish "\"}],\"usage\":" USAGE                                             \
    ",\"system_fingerprint\":null}"
#define EXPECT_WHOLE(mode, events, text)                                                           \
    do {                                                                                           \
        char *got_ = whole(mode, events, CM_COUNT(events));                                        \
        ck_assert_str_eq(got_, text);                                                              \
        free(got_);                                                                                \
    } while (0)

START_TEST(whole_answers)
{
    const struct cm_event plain[] = {EV_REASONING("r"), EV_TEXT("t"), EV_FINISH(STOP)};
    const struct cm_event calls[] = {
        {.kind = CM_EVENT_TOOL_CALL, .id = CM_S("c0"), .name = CM_S("f")},
        {.kind = CM_EVENT_TOOL_CALL, .index = 1, .id = CM_S("c1"), .name = CM_S("g")},
        {.kind = CM_EVENT_TOOL_ARGS, .index = 1, .text = CM_S("{\"a\":1}")},
        EV_FINISH(STOP),
    };
    const struct cm_event cited[] = {
        EV_TEXT("t"),
        {.kind = CM_EVENT_CITATION, .url = CM_S("u"), .name = CM_S("n")},
        EV_FINISH(LENGTH)};
    const struct cm_event refusal[] = {{.kind = CM_EVENT_REFUSAL, .text = CM_S("no")},
                                       EV_FINISH(STOP)};
    const struct cm_event empty[] = {EV_FINISH(STOP)};

    EXPECT_WHOLE(
        CM_REASONING_FIELD, plain,
        WHOLE("\"content\":\"t\",\"reasoning_content\":\"r\",\"refusal\":null,\"annotations\":[]",
              "stop"));
    EXPECT_WHOLE(
        CM_REASONING_THINK, plain,
        WHOLE("\"content\":\"<think>\\nr\\n</think>\\n\\nt\",\"refusal\":null,\"annotations\":[]",
              "stop"));
    EXPECT_WHOLE(CM_REASONING_THINK_COLON_DELTA, plain,
                 WHOLE("\"content\":\"<think:r>t\",\"refusal\":null,\"annotations\":[]", "stop"));
    EXPECT_WHOLE(CM_REASONING_PLAIN, plain,
                 WHOLE("\"content\":\"rt\",\"refusal\":null,\"annotations\":[]", "stop"));
    EXPECT_WHOLE(CM_REASONING_HIDE, plain,
                 WHOLE("\"content\":\"t\",\"refusal\":null,\"annotations\":[]", "stop"));
    EXPECT_WHOLE(
        CM_REASONING_FIELD, calls,
        WHOLE(
            "\"content\":null,\"refusal\":null,\"annotations\":[],\"tool_calls\":[{\"id\":\"c0\",\"type\":\"function\","
            "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":"
            "\"g\",\"arguments\":\"{\\\"a\\\":1}\"}}]",
            "tool_calls"));
    EXPECT_WHOLE(
        CM_REASONING_FIELD, cited,
        WHOLE(
            "\"content\":\"t\",\"refusal\":null,\"annotations\":[{\"type\":\"url_citation\",\"url_citation\":{\"url\":\"u\","
            "\"title\":\"n\",\"start_index\":0,\"end_index\":0}}]",
            "length"));
    EXPECT_WHOLE(CM_REASONING_FIELD, refusal,
                 WHOLE("\"content\":null,\"refusal\":\"no\",\"annotations\":[]", "stop"));
    EXPECT_WHOLE(CM_REASONING_FIELD, empty,
                 WHOLE("\"content\":\"\",\"refusal\":null,\"annotations\":[]", "stop"));
}
END_TEST

START_TEST(lists_of_models)
{
    const struct cm_model_row row = {.context_tokens = 128000, .max_output_tokens = 4096};
    const struct cm_model_listed models[] = {{CM_S("a/b"), CM_S("openai"), &row},
                                             {CM_S("z"), CM_S("chatmux"), NULL}};
    struct cm_buf out = {0};

    cm_openai_models(models, 2, 1700000000, &out);
    ck_str(
        cm_buf_str(&out),
        "{\"object\":\"list\",\"data\":[{\"id\":\"a/b\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"openai\",\"type\":\"model\","
        "\"display_name\":\"a/b\",\"created_at\":\"2023-11-14T22:13:20.000Z\",\"context_length\":128000,\"max_input_tokens\":128000,\"max_tokens\":4096,\"top_provider\":{\"max_completion_tokens\":4096}},"
        "{\"id\":\"z\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"chatmux\",\"type\":\"model\",\"display_name\":\"z\","
        "\"created_at\":\"2023-11-14T22:13:20.000Z\"}],\"has_more\":false,\"first_id\":\"a/b\",\"last_id\":\"z\"}");
    cm_buf_reset(&out);
    cm_openai_models(NULL, 0, 1, &out);
    ck_str(
        cm_buf_str(&out),
        "{\"object\":\"list\",\"data\":[],\"has_more\":false,\"first_id\":null,\"last_id\":null}");
    cm_buf_clear(&out);
}
END_TEST

Suite *suite_openai_chat(void)
{
    Suite *s = suite_create("openai_chat");
    TCase *in = tcase_create("parse"), *out = tcase_create("write");

    tcase_add_checked_fixture(in, setup, teardown);
    tcase_add_test(in, a_small_request);
    tcase_add_test(in, what_others_have_no_words_for);
    tcase_add_test(in, every_simple_member);
    tcase_add_test(in, null_is_absent);
    tcase_add_test(in, parts_of_a_user);
    tcase_add_test(in, bare_base64_of_a_known_kind);
    tcase_add_test(in, a_tool_loop);
    tcase_add_test(in, functions_become_tools);
    tcase_add_test(in, wrong_bodies_are_told_where);
    tcase_add_test(in, tools_that_are_not_allowed_are_left_out);
    tcase_add_test(in, what_only_a_relay_can_carry_is_noted);
    tcase_add_test(in, lists_of_hostile_length_cost_no_memory);
    tcase_add_test(out, a_stream_of_text);
    tcase_add_test(out, a_stream_with_usage);
    tcase_add_test(out, reasoning_in_every_form);
    tcase_add_test(out, a_stream_of_tool_calls);
    tcase_add_test(out, a_stream_of_everything_else);
    tcase_add_test(out, a_stream_with_logprobs);
    tcase_add_test(out, a_stream_of_two_choices);
    tcase_add_test(out, an_error_ends_a_stream);
    tcase_add_test(out, written_cache_is_told);
    tcase_add_test(out, whole_answers);
    tcase_add_test(out, lists_of_models);
    suite_add_tcase(s, in);
    suite_add_tcase(s, out);
    return s;
}
