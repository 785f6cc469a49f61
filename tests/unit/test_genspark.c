/* provider/genspark: its answers in both dialects at every split, what it sends, and what each refusal means. */
#include "fake_run.h"
#include "fixture.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/list.h"
#include "unit.h"

#include <stdlib.h>

#define BODY(model)                                                                                \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"
#define STREAM "text/event-stream; charset=utf-8"
#define EVENT(json) "data: {" json "}\n\n"
#define START_ EVENT("\"type\": \"project_start\", \"id\": \"proj-1\"")
#define DELTA(text)                                                                                \
    EVENT("\"type\": \"message_field_delta\", \"message_id\": \"m1\", \"field_name\": "            \
          "\"content\", \"delta\": \"" text "\"")
#define FINISHED                                                                                   \
    EVENT("\"type\": \"project_field\", \"field_name\": \"status\", \"field_value\": \"FINISHED\"")
#define RESULT(text, state)                                                                        \
    EVENT("\"type\": \"message_result\", \"message_id\": \"m1\", \"message\": {\"role\": "         \
          "\"assistant\", \"content\": \"" text "\", \"session_state\": {" state "}}")
#define ANSWER START_ DELTA("Blue") FINISHED
#define SERVED "\"_llm_model\": \"gpt-5.2\""
#define COPILOT_RESULT(text)                                                                       \
    EVENT("\"type\": \"message_result\", \"role\": \"assistant\", \"content\": \"" text "\"")

static struct fake_result r;

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

static yyjson_doc *vectors(void)
{
    char *text = fixture("genspark/vectors.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_request, NULL);

    ck_assert_ptr_nonnull(doc);
    free(text);
    return doc;
}

static const char *z_of(yyjson_val *v, const char *key)
{
    const char *z = yyjson_get_str(cm_json_get(v, key));

    return z ? z : "";
}

static enum cm_err_class class_of(yyjson_val *v)
{
    const char *name = z_of(v, "class");

    for (int c = CM_ERR_NONE; c <= CM_ERR_IO; c++) {
        if (c != CM_ERR_NONE && strcmp(cm_err_info((enum cm_err_class)c)->name, name) == 0)
            return (enum cm_err_class)c;
    }
    ck_assert_msg(name[0] == '\0', "no class is called %s", name);
    return CM_ERR_NONE;
}

/* ---- Streams ---- */

/* The end of a window lies ahead, whenever this runs. */
static char *with_future(const char *body, int64_t until_s)
{
    struct cm_buf out = {0};
    const char *mark = strstr(body, "{time:");
    char *z;

    while (mark) {
        cm_buf_append(&out, cm_str(body, (size_t)(mark - body)));
        cm_buf_printf(&out, "{time:%lld}", (long long)until_s);
        body = strchr(mark, '}') + 1;
        mark = strstr(body, "{time:");
    }
    cm_buf_append(&out, cm_str_of(body));
    z = cm_str_dup(cm_buf_str(&out));
    cm_buf_clear(&out);
    return z;
}

static void play(yyjson_val *stream, size_t piece, int64_t until_s)
{
    const char *const options[] = {"dialect", z_of(stream, "dialect"), NULL};
    char *body = with_future(z_of(stream, "body"), until_s);
    const struct fake_reply replies[] = {{.content_type = STREAM, .body = body},
                                         {.content_type = STREAM, .body = ANSWER}};
    struct cm_buf request = {0};

    cm_buf_printf(
        &request, "{\"model\":\"%s%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}",
        z_of(stream, "model"), yyjson_get_bool(cm_json_get(stream, "search")) ? "-search" : "");
    fake_run(&(struct fake_setup){.type = "genspark",
                                  .body = cm_buf_z(&request),
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = 2,
                                  .piece = piece},
             &r);
    cm_buf_clear(&request);
    free(body);
}

static void expect(yyjson_val *stream, size_t piece, int64_t until_s, int64_t now_s)
{
    yyjson_val *e = cm_json_get(stream, "expect");
    const enum cm_err_class cls = class_of(e);
    const int64_t cooldown_s = yyjson_get_sint(cm_json_get(e, "cooldown"));

    if (cm_json_get(e, "switch_dialect")) {
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_uint_eq(r.n_requests, 2);
        ck_str(r.requests[0].url, "https://www.genspark.ai/api/copilot/ask");
        ck_str(r.requests[1].url, "https://www.genspark.ai/api/agent/ask_proxy");
        ck_assert_str_eq(fake_text(&r), "Blue");
        return;
    }
    ck_assert_uint_eq(r.n_requests, 1);
    ck_assert_msg(r.done == (cls == CM_ERR_NONE), "%s in pieces of %zu: %s", z_of(stream, "name"),
                  piece, r.err.msg);
    if (cls == CM_ERR_NONE) {
        ck_assert_str_eq(fake_text(&r), z_of(e, "content"));
        ck_assert_str_eq(fake_reasoning(&r), z_of(e, "reasoning"));
        ck_assert(r.finished_last);
        ck_assert_int_gt(r.answer.usage.out_text, 0);
        return;
    }
    ck_assert_uint_eq(r.n_events, 0); /* another account can still answer */
    ck_assert_msg(r.err.cls == cls, "%s: %s", z_of(stream, "name"), r.err.msg);
    if (cm_json_get(e, "until"))
        ck_assert(r.err.retry_after_s >= until_s - now_s - 5 &&
                  r.err.retry_after_s <= until_s - now_s + 5);
    else
        ck_assert_int_eq(r.err.retry_after_s, cooldown_s);
}

START_TEST(the_same_at_every_split)
{
    const int64_t now_s = cm_unix_ms() / 1000, until_s = now_s + 5000;
    yyjson_doc *doc = vectors();
    yyjson_val *streams = cm_json_get(yyjson_doc_get_root(doc), "streams"), *v;
    size_t i, max;

    ck_assert_uint_ge(yyjson_arr_size(streams), 13);
    yyjson_arr_foreach(streams, i, max, v)
    {
        for (size_t piece = 0; piece <= 80; piece++) {
            play(v, piece, until_s);
            expect(v, piece, until_s, now_s);
            fake_result_clear(&r);
        }
    }
    yyjson_doc_free(doc);
}
END_TEST

START_TEST(replies_of_the_catalogue)
{
    yyjson_doc *doc = vectors();
    yyjson_val *replies = cm_json_get(yyjson_doc_get_root(doc), "replies"), *v;
    size_t i, max;

    ck_assert_uint_ge(yyjson_arr_size(replies), 17);
    yyjson_arr_foreach(replies, i, max, v)
    {
        for (size_t piece = 0; piece <= 3; piece++) {
            const struct fake_reply reply = {.status = yyjson_get_int(cm_json_get(v, "status")),
                                             .content_type = piece % 2 ? STREAM : "text/html",
                                             .body = z_of(v, "body")};

            fake_run(&(struct fake_setup){.type = "genspark",
                                          .body = BODY("gpt-5.2"),
                                          .replies = &reply,
                                          .n_replies = 1,
                                          .piece = piece},
                     &r);
            ck_assert(!r.done);
            ck_assert_msg(r.err.cls == class_of(v), "%d %s: %s, %s", reply.status, reply.body,
                          cm_err_info(r.err.cls)->name, r.err.msg);
            if (cm_json_get(v, "cooldown"))
                ck_assert_int_eq(r.err.retry_after_s, yyjson_get_sint(cm_json_get(v, "cooldown")));
            fake_result_clear(&r);
        }
    }
    yyjson_doc_free(doc);
}
END_TEST

/* ---- What is asked ---- */

/* Runs one request and gives the body of its question; the document is the caller's. */
static yyjson_doc *asked(const char *body, const char *const *options, size_t request)
{
    const struct fake_reply replies[] = {{.content_type = STREAM, .body = ANSWER},
                                         {.content_type = STREAM, .body = ANSWER}};
    yyjson_doc *doc;

    fake_run(&(struct fake_setup){.type = "genspark",
                                  .body = body,
                                  .secret = "session_id=abc",
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = 2},
             &r);
    ck_assert_msg(r.n_requests > request, "%s", r.err.msg);
    doc = cm_json_parse(r.requests[request].body, &cm_json_limits_event, NULL);
    ck_assert_ptr_nonnull(doc);
    return doc;
}

static void expect_text(yyjson_val *root, const char *const *path, const char *text)
{
    struct cm_buf out = {0};

    for (; *path; path++)
        root = (*path)[0] == '#' ? yyjson_arr_get(root, (size_t)strtoul(*path + 1, NULL, 10))
                                 : cm_json_get(root, *path);
    cm_json_put_val(&out, root);
    ck_assert_str_eq(cm_buf_z(&out), text);
    cm_buf_clear(&out);
}
#define EXPECT(doc, text, ...)                                                                     \
    expect_text(yyjson_doc_get_root(doc), (const char *const[]){__VA_ARGS__, NULL}, text)

#define TALK                                                                                       \
    "\"messages\":[{\"role\":\"developer\",\"content\":\"Be brief.\"},"                            \
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"                          \
    "{\"type\":\"text\",\"text\":\"b\"}]},"                                                        \
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"type\":"            \
    "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"                          \
    "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"sun\"},"                             \
    "{\"role\":\"user\",\"content\":\"and now?\"}]"

START_TEST(a_question_in_the_agent_dialect)
{
    yyjson_doc *doc = asked("{\"model\":\"gpt-5.2-search\"," TALK "}", NULL, 0);
    yyjson_val *messages = cm_json_get(yyjson_doc_get_root(doc), "messages");
    const char *request_id = header(0, "request-id"), *trace = header(0, "traceparent");

    ck_assert(r.done);
    ck_str(r.requests[0].method, "POST");
    ck_str(r.requests[0].url, "https://www.genspark.ai/api/agent/ask_proxy");
    ck_assert_str_eq(header(0, "content-type"), "application/json");
    ck_assert_str_eq(header(0, "accept"), "text/event-stream");
    ck_assert_str_eq(header(0, "origin"), "https://www.genspark.ai");
    ck_assert_str_eq(header(0, "referer"), "https://www.genspark.ai/agents?type=ai_chat");
    ck_assert_str_eq(header(0, "cookie"), "session_id=abc");
    ck_assert(strncmp(header(0, "user-agent"), "Mozilla/5.0 (", 13) == 0);
    ck_assert_uint_eq(strlen(request_id), 1 + 32 + 1 + 16);
    ck_assert_uint_eq(strlen(trace), 55);
    ck_assert(strncmp(request_id + 1, trace + 3, 32) == 0);
    ck_assert(strncmp(request_id + 34, trace + 36, 16) == 0);
    EXPECT(doc, "\"gpt-5.2\"", "ai_chat_model");
    EXPECT(doc, "true", "ai_chat_enable_search");
    EXPECT(doc, "false", "ai_chat_disable_personalization");
    EXPECT(doc, "false", "use_moa_proxy");
    EXPECT(doc, "[]", "moa_models");
    EXPECT(doc, "null", "models"); /* none */
    EXPECT(doc, "null", "writingContent");
    EXPECT(doc, "\"ai_chat\"", "type");
    EXPECT(doc, "null", "project_id");
    EXPECT(doc, "\"and now?\"", "user_s_input");
    EXPECT(doc, "\"\"", "g_recaptcha_token");
    EXPECT(doc, "true", "is_private");
    EXPECT(doc, "\"\"", "push_token");
    EXPECT(doc, "[]", "session_state", "steps");
    ck_assert_uint_eq(yyjson_arr_size(messages), 5);
    EXPECT(doc, "\"system\"", "messages", "#0", "role");
    EXPECT(doc, "\"a\\nb\"", "messages", "#1", "content");
    EXPECT(doc, "\"assistant\"", "messages", "#2", "role");
    EXPECT(doc, "\"[calls f with {}]\"", "messages", "#2", "content");
    EXPECT(doc, "\"user\"", "messages", "#3", "role");
    EXPECT(doc, "\"[result: sun]\"", "messages", "#3", "content");
    ck_assert_uint_eq(yyjson_get_len(cm_json_get(yyjson_arr_get(messages, 1), "id")), 36);
    ck_assert(yyjson_equals(
        messages, cm_json_get(cm_json_get(yyjson_doc_get_root(doc), "session_state"), "messages")));
    yyjson_doc_free(doc);
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_question_in_the_copilot_dialect)
{
    static const char *const options[] = {"dialect", "copilot", NULL};
    yyjson_doc *doc = asked("{\"model\":\"deepseek-v3-search\"," TALK "}", options, 0);

    ck_str(r.requests[0].url, "https://www.genspark.ai/api/copilot/ask");
    ck_assert_str_eq(header(0, "referer"), "https://www.genspark.ai/");
    ck_assert_str_eq(header(0, "request-id"), "");
    EXPECT(doc, "\"COPILOT_MOA_CHAT\"", "type");
    EXPECT(doc, "\"type=COPILOT_MOA_CHAT\"", "current_query_string");
    EXPECT(doc, "{}", "action_params");
    EXPECT(doc,
           "{\"models\":[\"deep-seek-v3\"],\"run_with_another_model\":false,"
           "\"writingContent\":null,\"request_web_knowledge\":true}",
           "extra_data");
    EXPECT(doc, "null", "g_recaptcha_token"); /* none */
    /* the site reads the last question only: everything is in it */
    EXPECT(doc,
           "[{\"role\":\"user\",\"content\":\"system: Be brief.\\n\\nuser: a\\nb\\n\\nassistant: "
           "[calls f with {}]\\n\\ntool: sun\\n\\nuser: and now?\",\"is_prompt\":false,"
           "\"session_state\":null}]",
           "messages");
    yyjson_doc_free(doc);
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_chat_that_goes_on_in_the_copilot_dialect)
{
    static const char *const options[] = {"dialect", "copilot", "model_chat_map",
                                          "deepseek-r1=chat-1", NULL};
    yyjson_doc *doc = asked("{\"model\":\"deepseek-r1\"," TALK "}", options, 0);

    EXPECT(doc, "\"id=chat-1&type=COPILOT_MOA_CHAT\"", "current_query_string");
    ck_assert_uint_eq(yyjson_arr_size(cm_json_get(yyjson_doc_get_root(doc), "messages")), 5);
    /* this model takes no system role, and wants a state with what it has said */
    EXPECT(doc,
           "{\"role\":\"user\",\"content\":\"Be brief.\",\"is_prompt\":false,"
           "\"session_state\":null}",
           "messages", "#0");
    EXPECT(doc,
           "{\"role\":\"assistant\",\"content\":\"[calls f with {}]\",\"is_prompt\":false,"
           "\"session_state\":{\"models\":[\"deep-seek-r1\"],\"layers\":0,\"answer\":\"\","
           "\"answer_is_finished\":false}}",
           "messages", "#2");
    yyjson_doc_free(doc);
    fake_result_clear(&r);
}
END_TEST

/* What a client reads of an answer to gpt-5.2-search, in pieces of any size. */
static void reads(const char *const *options, const char *body, const char *text,
                  const char *reasoning)
{
    const struct fake_reply reply = {.content_type = STREAM, .body = body};

    for (size_t piece = 0; piece <= 40; piece++) {
        fake_run(&(struct fake_setup){.type = "genspark",
                                      .body = BODY("gpt-5.2-search"),
                                      .options = options,
                                      .replies = &reply,
                                      .n_replies = 1,
                                      .piece = piece},
                 &r);
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_str_eq(fake_text(&r), text);
        ck_assert_str_eq(fake_reasoning(&r), reasoning);
        fake_result_clear(&r);
    }
}

#define OF(id, name, value)                                                                        \
    EVENT("\"type\": \"message_field_delta\", \"message_id\": \"" id "\", \"field_name\": \"" name \
          "\", \"delta\": \"" value "\"")
#define CALLS(id)                                                                                  \
    EVENT("\"type\": \"message_field\", \"message_id\": \"" id                                     \
          "\", \"field_name\": \"tool_calls[0]\", \"field_value\": {}")
#define TOOL(id)                                                                                   \
    EVENT("\"type\": \"message_start\", \"message_id\": \"" id "\", \"role\": \"tool\"")           \
    OF(id, "content", "found")

START_TEST(an_answer_in_several_messages)
{
    static const char *const copilot[] = {"dialect", "copilot", "mixture_reasoning", "yes", NULL};

    /* what is said before a search is no answer, nor is what the search found */
    reads(NULL,
          START_ OF("a", "content", "Let me look.") CALLS("a") TOOL("t")
              OF("b", "content", "Again.") CALLS("b") TOOL("u") OF("c", "content", "Blue") FINISHED,
          "Blue", "Let me look.Again.");
    /* two that call nothing: both were said */
    reads(NULL, START_ OF("a", "content", "Red.") OF("b", "content", "Blue.") FINISHED,
          "Red.\n\nBlue.", "");
    /* the second one in one piece */
    reads(NULL, START_ OF("a", "content", "Red.") RESULT("Blue.", SERVED) FINISHED, "Red.\n\nBlue.",
          "");
    reads(copilot,
          START_ OF("a", "session_state.layer_1", "one ")
              OF("a", "session_state.answerthink", "two")
                  OF("a", "session_state.streaming_detail_answer_0", "Blue")
                      COPILOT_RESULT("{\\\"detailAnswer\\\":\\\"x\\\"}"),
          "Blue", "one two");
}
END_TEST

START_TEST(several_models_answer_together)
{
    static const char *const any[] = {"*", NULL};
    static const char *const options[] = {"mixture", "m1, m2", NULL};
    static const char *const copilot[] = {"dialect", "copilot", NULL};
    static const char *const forward[] = {"unknown_models", "forward", NULL};
    const struct fake_reply reply = {.content_type = STREAM, .body = ANSWER};
    struct fake_setup setup = {.type = "genspark",
                               .body = BODY("mixture-of-agents"),
                               .options = options,
                               .replies = &reply,
                               .n_replies = 1};
    yyjson_doc *doc = asked(BODY("mixture-of-agents"), options, 0);

    EXPECT(doc, "\"m1\"", "ai_chat_model");
    EXPECT(doc, "true", "use_moa_proxy");
    EXPECT(doc, "[\"m1\",\"m2\"]", "moa_models");
    EXPECT(doc, "[\"m1\",\"m2\"]", "models");
    yyjson_doc_free(doc);
    fake_result_clear(&r);

    doc = asked(BODY("mixture-of-agents"), copilot, 0);
    EXPECT(doc, "[\"gpt-5.1-low\",\"claude-sonnet-4-5\",\"gemini-3-pro-preview\"]", "extra_data",
           "models");
    yyjson_doc_free(doc);
    fake_result_clear(&r);

    setup.body = BODY("unheard-of");
    setup.models = any;
    fake_run(&setup, &r);
    ck_assert(cm_str_has(r.requests[0].body, CM_S("\"moa_models\":[\"m1\",\"m2\"]")));
    fake_result_clear(&r);
    setup.body = BODY("deepseek-x");
    setup.options = forward;
    fake_run(&setup, &r);
    ck_assert(cm_str_has(r.requests[0].body, CM_S("\"ai_chat_model\":\"deep-seek-x\"")));
    ck_assert(cm_str_has(r.requests[0].body, CM_S("\"moa_models\":[]")));
    fake_result_clear(&r);
}
END_TEST

START_TEST(options_move_the_calls)
{
    static const char *const options[] = {"origin",
                                          "https://o",
                                          "agent_path",
                                          "/ask",
                                          "agent_referer",
                                          "/page",
                                          "timezone",
                                          "Europe/Paris",
                                          "trace_headers",
                                          "no",
                                          "send_state",
                                          "no",
                                          "private",
                                          "no",
                                          "personalization",
                                          "no",
                                          "pre_messages",
                                          "[{\"role\":\"user\",\"content\":\"first\"}]",
                                          NULL};
    yyjson_doc *doc = asked("{\"model\":\"gpt-5.2\"," TALK "}", options, 0);

    ck_str(r.requests[0].url, "https://www.genspark.ai/ask");
    ck_assert_str_eq(header(0, "origin"), "https://o");
    ck_assert_str_eq(header(0, "referer"), "https://o/page");
    ck_assert_str_eq(header(0, "x-timezone"), "Europe/Paris");
    ck_assert_str_eq(header(0, "traceparent"), "");
    EXPECT(doc, "null", "session_state"); /* none */
    EXPECT(doc, "false", "is_private");
    EXPECT(doc, "true", "ai_chat_disable_personalization");
    EXPECT(doc, "\"system\"", "messages", "#0", "role");
    EXPECT(doc, "\"first\"", "messages", "#1", "content"); /* behind the system text */
    yyjson_doc_free(doc);
    fake_result_clear(&r);
}
END_TEST

static struct cm_problems problems_of(struct cm_arena *arena, const char *option, const char *value)
{
    struct cm_conf_pair pair = {
        .key = cm_str_of(option), .value = cm_str_of(value), .where = CM_S("f.ini:2")};
    struct cm_provider_conf conf = {.name = CM_S("p"),
                                    .where = CM_S("f.ini:1"),
                                    .type = CM_S("genspark"),
                                    .options = &pair,
                                    .n_options = 1};
    struct cm_instance in;
    struct cm_problems problems;

    cm_problems_init(&problems, arena);
    cm_instance_init(&in, &conf, arena, &problems);
    return problems;
}

START_TEST(what_is_written_wrong_is_told_at_start)
{
    static const char *const wrong[][2] = {
        {"model_chat_map", "o3-pro"},
        {"model_chat_map", "o3-pro=a b"},
        {"model_chat_map", "unheard-of=a"},
        {"model_chat_map", "=a"},
        {"pre_messages", "{}"},
        {"pre_messages", "[1]"},
        {"pre_messages", "[{\"role\":\"x\",\"content\":\"\"}]"},
        {"pre_messages", "not JSON"},
        {"verifier_url", "ftp://x"},
        {"mixture", " , "},
    };
    struct cm_arena arena = {0};
    yyjson_doc *doc = vectors();
    yyjson_val *maps = cm_json_get(yyjson_doc_get_root(doc), "model_chat_map"), *v;
    size_t i, max;

    for (i = 0; i < CM_COUNT(wrong); i++) {
        struct cm_problems p = problems_of(&arena, wrong[i][0], wrong[i][1]);

        ck_assert_msg(p.n == 1, "%s = %s: %u problems", wrong[i][0], wrong[i][1], p.n);
        ck_str(p.first->where, "f.ini:2");
    }
    yyjson_arr_foreach(maps, i, max, v)
    {
        const bool fine = !yyjson_is_null(cm_json_get(v, "map"));

        ck_assert_msg((problems_of(&arena, "model_chat_map", z_of(v, "text")).n == 0) == fine, "%s",
                      z_of(v, "text"));
    }
    yyjson_doc_free(doc);
    cm_arena_clear(&arena);
}
END_TEST

START_TEST(cookies_are_normalised)
{
    static const struct {
        const char *given, *kept; /* NULL = refused */
    } more[] = {
        {" abc \n", "session_id=abc"},
        {"Cookie: c1=x; session_id=abc", "c1=x; session_id=abc"},
        {"other=abc", "other=abc"},
        {"", NULL},
        {"Cookie:", NULL},
        {"a\nb", NULL},
    };
    struct cm_arena arena = {0};
    yyjson_doc *doc = vectors();
    yyjson_val *cookies = cm_json_get(yyjson_doc_get_root(doc), "cookie"), *v;
    struct cm_str out;
    struct cm_err err;
    size_t i, max;

    yyjson_arr_foreach(cookies, i, max, v)
    {
        ck_assert_int_eq(cm_provider_genspark.normalize(
                             &arena, cm_json_str(cm_json_get(v, "given")), &out, &err),
                         0);
        ck_assert(cm_str_eq(out, cm_json_str(cm_json_get(v, "header"))));
    }
    for (i = 0; i < CM_COUNT(more); i++) {
        const int failed =
            cm_provider_genspark.normalize(&arena, cm_str_of(more[i].given), &out, &err);

        ck_assert_msg(failed == (more[i].kept ? 0 : -1), "%s", more[i].given);
        ck_assert(failed || cm_str_eq(out, cm_str_of(more[i].kept)));
    }
    yyjson_doc_free(doc);
    cm_arena_clear(&arena);
}
END_TEST

START_TEST(what_the_platform_has_not_is_refused)
{
    static const char *const no_tools[] = {"tools", "refuse", NULL};
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{\"model\":\"gpt-5.2\",\"n\":2,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         "n"},
        {"{\"model\":\"gpt-5.2\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
         "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         "tools"},
        {"{\"model\":\"gpt-5.2\",\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", "messages"},
        {"{\"model\":\"gpt-5.2\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
         "\"input_audio\",\"input_audio\":{\"data\":\"AAAA\",\"format\":\"wav\"}}]}]}",
         "messages[0].content"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        fake_run(
            &(struct fake_setup){.type = "genspark", .body = cases[i].body, .options = no_tools},
            &r);
        ck_assert_uint_eq(r.n_requests, 0);
        ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_str_eq(r.err.param, cases[i].param);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(the_example_file_has_every_option)
{
    struct cm_buf path = {0};
    char *text = fixture("../../config.example.ini");

    for (const struct cm_option *o = cm_provider_genspark.options; o->name; o++) {
        cm_buf_reset(&path);
        cm_buf_printf(&path, "\n;x.%s =%s%s\n", o->name, o->def[0] ? " " : "", o->def);
        ck_assert_msg(strstr(text, cm_buf_z(&path)) != NULL, "x.%s = %s is not in it", o->name,
                      o->def);
    }
    cm_buf_clear(&path);
    free(text);
}
END_TEST

Suite *suite_genspark(void)
{
    Suite *s = suite_create("genspark");
    TCase *t = tcase_create("genspark");

    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_same_at_every_split);
    tcase_add_test(t, replies_of_the_catalogue);
    tcase_add_test(t, a_question_in_the_agent_dialect);
    tcase_add_test(t, a_question_in_the_copilot_dialect);
    tcase_add_test(t, a_chat_that_goes_on_in_the_copilot_dialect);
    tcase_add_test(t, an_answer_in_several_messages);
    tcase_add_test(t, several_models_answer_together);
    tcase_add_test(t, options_move_the_calls);
    tcase_add_test(t, what_is_written_wrong_is_told_at_start);
    tcase_add_test(t, cookies_are_normalised);
    tcase_add_test(t, what_the_platform_has_not_is_refused);
    tcase_add_test(t, the_example_file_has_every_option);
    suite_add_tcase(s, t);
    return s;
}
