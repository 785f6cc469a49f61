/* provider/hix: its calls, its stream in both framings at every split, and what each refusal
 * means. */
#include "fake_run.h"
#include "fixture.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/list.h"
#include "unit.h"

#include <stdlib.h>

#define BODY(model, text)                                                                          \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"
#define CREATED "[{\"result\":{\"data\":{\"json\":{\"id\":\"chat-1\"}}}}]"
#define STREAM "text/event-stream; charset=utf-8"

static struct fake_result r;

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

START_TEST(same_answer_for_every_split)
{
    static const char *const files[] = {"hix/events.txt", "hix/data.txt"};
    char *created = fixture("hix/created.json");

    for (size_t f = 0; f < CM_COUNT(files); f++) {
        char *answer = fixture(files[f]);
        const struct fake_reply replies[] = {{.content_type = "application/json", .body = created},
                                             {.content_type = STREAM, .body = answer}};

        for (size_t piece = 0; piece <= 64; piece++) {
            fake_run(&(struct fake_setup){.type = "hix",
                                          .body = BODY("deepseek-r1", "Name a colour."),
                                          .replies = replies,
                                          .n_replies = 2,
                                          .piece = piece},
                     &r);
            ck_assert_msg(r.done, "%s in pieces of %zu: %s", files[f], piece, r.err.msg);
            ck_assert(r.finished_last);
            ck_assert_str_eq(fake_text(&r), "Blue 世界\n");
            ck_assert_str_eq(fake_reasoning(&r), "Two options.");
            ck_assert_int_eq(r.answer.usage.source, CM_USAGE_ESTIMATED);
            ck_assert_int_gt(r.answer.usage.out_text, 0);
            fake_result_clear(&r);
        }
        free(answer);
    }
    free(created);
}
END_TEST

START_TEST(two_calls_with_their_headers)
{
    char *created = fixture("hix/created.json"), *answer = fixture("hix/data.txt");
    const struct fake_reply replies[] = {{.body = created},
                                         {.content_type = STREAM, .body = answer}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("gpt-4", "a \\\"b\\\""),
                                  .secret = "c=1",
                                  .replies = replies,
                                  .n_replies = 2},
             &r);
    ck_assert(r.done);
    ck_assert_uint_eq(r.n_requests, 2);
    ck_str(r.requests[0].method, "POST");
    ck_str(r.requests[0].url, "https://hix.ai/api/trpc/hixChat.createChat?batch=1");
    ck_str(r.requests[0].body, "{\"0\":{\"json\":{\"title\":\"Untitled\",\"botId\":10}}}");
    ck_assert_str_eq(header(0, "accept"), "application/json");
    ck_assert_str_eq(header(0, "cookie"), "c=1");
    ck_assert_str_eq(header(0, "origin"), "https://hix.ai");
    ck_assert_str_eq(header(0, "referer"), "https://hix.ai/");
    ck_str(r.requests[1].url, "https://hix.ai/api/hix/chat");
    ck_str(r.requests[1].body,
           "{\"chatId\":\"chat 1/2\",\"fileUrl\":\"\",\"question\":\"a \\\"b\\\"\"}");
    ck_assert_str_eq(header(1, "accept"), "text/event-stream");
    ck_assert_str_eq(header(1, "content-type"), "application/json");
    ck_assert_str_eq(header(1, "referer"), "https://hix.ai/gpt4?/id=chat%201%2F2");
    ck_assert(strncmp(header(1, "user-agent"), "Mozilla/5.0 (", 13) == 0);
    fake_result_clear(&r);
    free(created);
    free(answer);
}
END_TEST

START_TEST(options_move_the_calls)
{
    static const char *const options[] = {"origin",      "https://o", "create_path", "/c",
                                          "chat_path",   "/t",        "title",       "T",
                                          "search_type", "news",      NULL};
    static const char *const models[] = {"mine=85600", NULL};
    const struct fake_reply replies[] = {
        {.body = CREATED},
        {.content_type = STREAM, .body = "data: {\"content\":\"x\"}\n\ndata: [DONE]\n\n"}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("mine-search", "q"),
                                  .options = options,
                                  .models = models,
                                  .replies = replies,
                                  .n_replies = 2},
             &r);
    ck_assert(r.done);
    ck_str(r.requests[0].url, "https://hix.ai/c");
    ck_str(r.requests[0].body, "{\"0\":{\"json\":{\"title\":\"T\",\"botId\":85600}}}");
    ck_str(r.requests[1].url, "https://hix.ai/t");
    ck_str(
        r.requests[1].body,
        "{\"chatId\":\"chat-1\",\"fileUrl\":\"\",\"question\":\"q\",\"search\":true,\"searchType\":\"news\"}");
    ck_assert_str_eq(header(1, "referer"), "https://o/85600?/id=chat-1");
    fake_result_clear(&r);
}
END_TEST

/* The question that a conversation with a history of `n` turns of `chars` characters becomes. */
static const char *question_of(int n, int chars, int last_chars)
{
    const struct fake_reply replies[] = {
        {.body = CREATED},
        {.content_type = STREAM, .body = "data: {\"content\":\"x\"}\n\ndata: [DONE]\n\n"}};
    struct cm_buf body = {0};
    yyjson_doc *doc;
    const char *z;

    cm_buf_append(
        &body, CM_S("{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"system\",\"content\":\"S\"}"));
    for (int i = 0; i < n; i++) {
        cm_buf_printf(&body, ",{\"role\":\"%s\",\"content\":\"<%d>", i % 2 ? "assistant" : "user",
                      i);
        for (int k = 0; k < chars; k++)
            cm_buf_append(&body, CM_S("世"));
        cm_buf_append(&body, CM_S("\"}"));
    }
    cm_buf_append(&body, CM_S(",{\"role\":\"user\",\"content\":\""));
    for (int k = 0; k < last_chars; k++)
        cm_buf_put(&body, 'q');
    cm_buf_append(&body, CM_S("\"}]}"));
    fake_run(
        &(struct fake_setup){
            .type = "hix", .body = cm_buf_z(&body), .replies = replies, .n_replies = 2},
        &r);
    cm_buf_clear(&body);
    if (!r.done)
        return NULL;
    doc = cm_json_parse(r.requests[1].body, &cm_json_limits_event, NULL);
    z = cm_arena_z(&r.arena, cm_json_str(cm_json_get(yyjson_doc_get_root(doc), "question")));
    yyjson_doc_free(doc);
    return z;
}

START_TEST(history_is_flattened_within_the_limit)
{
    const char *q = question_of(2, 1, 3);

    ck_assert_str_eq(q, "system: S\n\nuser: <0>世\n\nassistant: <1>世\n\nuser: qqq");
    fake_result_clear(&r);
    q = question_of(20, 1000, 3); /* 8000 characters fit */
    ck_assert(strncmp(q, "system: S\n\n", 11) == 0);
    ck_assert_ptr_null(strstr(q, "<12>"));
    ck_assert_ptr_nonnull(strstr(q, "<13>"));
    ck_assert_ptr_nonnull(strstr(q, "<19>"));
    ck_assert_ptr_nonnull(strstr(q, "user: qqq"));
    fake_result_clear(&r);
    q = question_of(4, 10, 8000); /* alone, without the system text */
    ck_assert_uint_eq(strlen(q), 8000);
    fake_result_clear(&r);
    ck_assert_ptr_null(question_of(4, 10, 8001));
    ck_assert_int_eq(r.err.cls, CM_ERR_CONTEXT_LENGTH);
    ck_assert_ptr_nonnull(strstr(r.err.msg, "input text too long: 8001"));
    ck_assert_uint_eq(r.n_requests, 0);
    fake_result_clear(&r);
}
END_TEST

#define TRPC(code, data)                                                                           \
    "[{\"error\":{\"json\":{\"message\":\"m\",\"code\":" code ",\"data\":{" data "}}}}]"
#define HTML "<html><title>Just a moment...</title><script>window._cf_chl_opt={}</script></html>"

START_TEST(refusals_of_the_first_call)
{
    static const struct {
        struct fake_reply reply;
        enum cm_err_class cls;
        int retry_after_s;
    } cases[] = {
        {{.status = 401, .body = TRPC("-32001", "\"httpStatus\":401")}, CM_ERR_EXPIRED, 0},
        {{.status = 401}, CM_ERR_EXPIRED, 0},
        {{.status = 200, .body = "{\"status\":-5,\"message\":\"not login\",\"data\":{}}"},
         CM_ERR_EXPIRED,
         0},
        {{.status = 403, .body = TRPC("-32003", "\"appName\":\"HIXChat\",\"usageType\":\"x\"")},
         CM_ERR_QUOTA_EXHAUSTED,
         0},
        {{.status = 403, .body = TRPC("-32003", "")}, CM_ERR_VERIFICATION_REQUIRED, 0},
        {{.status = 402, .body = TRPC("-32002", "")}, CM_ERR_QUOTA_EXHAUSTED, 0},
        {{.status = 429, .body = TRPC("-32029", "")}, CM_ERR_RATE_LIMITED, 60},
        {{.status = 429, .header = "Retry-After", .header_value = "5"}, CM_ERR_RATE_LIMITED, 5},
        {{.status = 404, .body = TRPC("-32004", "")}, CM_ERR_MODEL_UNAVAILABLE, 0},
        {{.status = 207, .body = TRPC("-32004", "")}, CM_ERR_MODEL_UNAVAILABLE, 0},
        {{.status = 503, .content_type = "text/html", .body = HTML},
         CM_ERR_VERIFICATION_REQUIRED,
         0},
        {{.status = 400, .body = TRPC("-32600", "")}, CM_ERR_BAD_REQUEST, 0},
        {{.status = 500, .body = TRPC("-32603", "")}, CM_ERR_UPSTREAM_DOWN, 0},
        {{.status = 403, .content_type = "text/html", .body = HTML},
         CM_ERR_VERIFICATION_REQUIRED,
         0},
        {{.status = 200, .body = "[{\"result\":{}}]"}, CM_ERR_UPSTREAM_DOWN, 0},
        {{.status = 502, .body = "bad gateway"}, CM_ERR_UPSTREAM_DOWN, 0},
        {{.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN, 0},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = BODY("gpt-4o", "x"),
                                      .replies = &cases[i].reply,
                                      .n_replies = 1},
                 &r);
        ck_assert(!r.done);
        ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s, %s", i,
                      cm_err_info(r.err.cls)->name, r.err.msg);
        ck_assert_int_eq(r.err.retry_after_s, cases[i].retry_after_s);
        ck_assert_uint_eq(r.n_requests, 1);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(refusals_of_the_second_call)
{
    static const struct {
        struct fake_reply reply;
        enum cm_err_class cls;
        const char *text; /* what was said before */
    } cases[] = {
        {{.content_type = STREAM, .body = "data: {\"content\":\"half \"}\n\n"},
         CM_ERR_CUT,
         "half "},
        {{.content_type = STREAM, .body = "data: {\"content\":\"half \"}\n\n", .end = FAKE_CUT},
         CM_ERR_CUT,
         "half "},
        {{.content_type = STREAM, .body = ""}, CM_ERR_CUT, ""},
        {{.content_type = STREAM, .body = "data: [DONE]\n\n"}, CM_ERR_UPSTREAM_DOWN, ""},
        {{.content_type = STREAM, .body = "data: {\"content\":\"\"}\n\ndata: [DONE]\n\n"},
         CM_ERR_UPSTREAM_DOWN,
         ""},
        {{.content_type = "text/html", .body = HTML}, CM_ERR_VERIFICATION_REQUIRED, ""},
        {{.content_type = STREAM,
          .body = "event: StepOutput\ndata: {\"action\":\"credit_exhausted\"}\n\n"},
         CM_ERR_QUOTA_EXHAUSTED,
         ""},
        {{.content_type = STREAM,
          .body = "data: {\"content\":\"a\"}\n\ndata: {\"code\":\"CONTENT_FILTERED\"}\n\n"},
         CM_ERR_CONTENT_FILTER,
         "a"},
        {{.content_type = STREAM, .body = "data: <garbage>\n\ndata: {\"content\":\"a\"}\n\n"},
         CM_ERR_CUT,
         "a"},
        {{.content_type = "application/json", .body = "{\"status\":-5}"}, CM_ERR_EXPIRED, ""},
        {{.content_type = "application/json",
          .body = "{\"error\":{\"code\":\"CREDITS_EXHAUSTED\"}}"},
         CM_ERR_QUOTA_EXHAUSTED,
         ""},
        {{.status = 429, .body = "{\"code\":\"RATE_LIMIT_EXCEEDED\"}"}, CM_ERR_RATE_LIMITED, ""},
        {{.status = 400, .body = "{\"code\":\"MISSING_PARAMETER\"}"}, CM_ERR_BAD_REQUEST, ""},
        {{.status = 403, .body = "{\"message\":\"no\"}"}, CM_ERR_UPSTREAM_DOWN, ""},
        {{.status = 403, .content_type = "text/html", .body = HTML},
         CM_ERR_VERIFICATION_REQUIRED,
         ""},
        {{.status = 503, .body = "busy"}, CM_ERR_OVERLOADED, ""},
        {{.content_type = STREAM, .end = FAKE_HANG}, CM_ERR_TIMEOUT, ""},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_reply replies[] = {{.body = CREATED}, cases[i].reply};

        for (size_t piece = 0; piece < 3; piece++) {
            fake_run(&(struct fake_setup){.type = "hix",
                                          .body = BODY("gpt-4o", "x"),
                                          .replies = replies,
                                          .n_replies = 2,
                                          .piece = piece,
                                          .idle_ms = 50},
                     &r);
            ck_assert(!r.done && r.answer.n_choices == (cases[i].text[0] ? 1 : 0));
            ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s, %s", i,
                          cm_err_info(r.err.cls)->name, r.err.msg);
            ck_assert_str_eq(fake_text(&r), cases[i].text);
            fake_result_clear(&r);
        }
    }
}
END_TEST

START_TEST(what_it_cannot_do_is_said_at_once)
{
    static const char *const any[] = {"*", NULL};

    fake_run(&(struct fake_setup){.type = "hix", .body = BODY("unheard-of", "x"), .models = any},
             &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_MODEL_UNAVAILABLE);
    fake_result_clear(&r);
    fake_run(
        &(struct fake_setup){
            .type = "hix",
            .body =
                "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}]}"},
        &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(r.err.param, "messages[0].content[0].type");
    fake_result_clear(&r);
    fake_run(&(struct fake_setup){.type = "hix", .body = BODY("gpt-4o", "")}, &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    fake_result_clear(&r);
}
END_TEST

#define PICTURE                                                                                    \
    "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","                                     \
    "\"image_url\":{\"url\":\"https://h/p.png\"}}]}"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
#define ASK "{\"role\":\"user\",\"content\":\"x\"}"

START_TEST(what_the_platform_has_not_is_refused)
{
    static const struct {
        const char *body, *param; /* NULL = not refused */
    } cases[] = {
        {"{\"model\":\"gpt-4o\",\"messages\":[" PICTURE "]}", "messages[0].content"},
        {"{\"model\":\"gpt-4o\",\"messages\":[" ASK "," PICTURE "," ASK "]}",
         "messages[1].content"},
        {"{\"model\":\"gpt-4o\",\"n\":2,\"messages\":[" ASK "]}", "n"},
        {"{\"model\":\"gpt-4o\",\"n\":1,\"messages\":[" ASK "]}", NULL},
        {"{\"model\":\"gpt-4o\"," TOOLS ",\"messages\":[" ASK "]}", "tools"},
        {"{\"model\":\"gpt-4o\"," TOOLS ",\"tool_choice\":\"auto\",\"messages\":[" ASK "]}",
         "tools"},
        {"{\"model\":\"gpt-4o\"," TOOLS ",\"tool_choice\":\"none\",\"messages\":[" ASK "]}", NULL},
        {"{\"model\":\"gpt-4o\",\"tools\":[],\"messages\":[" ASK "]}", NULL},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = cases[i].body,
                                      .replies = &(struct fake_reply){.end = FAKE_DOWN},
                                      .n_replies = 1},
                 &r);
        ck_assert_uint_eq(r.n_requests, cases[i].param ? 0 : 1);
        if (cases[i].param) {
            ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
            ck_assert_str_eq(r.err.param, cases[i].param);
            ck_assert_str_eq(r.err.code, "unsupported_value");
        }
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(a_client_that_leaves_ends_the_call)
{
    const struct fake_reply replies[] = {
        {.body = CREATED},
        {.content_type = STREAM, .body = "data: {\"content\":\"x\"}\n\n", .end = FAKE_HANG}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("gpt-4o", "x"),
                                  .replies = replies,
                                  .n_replies = 2,
                                  .leave_after = 1},
             &r);
    ck_assert(r.released && !r.done);
    ck_assert_uint_lt(r.took_ms, 1000);
    fake_result_clear(&r);
}
END_TEST

START_TEST(cookies_are_normalised)
{
    static const struct {
        const char *given, *stored; /* NULL = refused */
    } more[] = {
        {"  eyJ..a.b.c \n", "__Secure-next-auth.session-token=eyJ..a.b.c"},
        {"Cookie: __Secure-next-auth.session-token.0=a; __Secure-next-auth.session-token.1=b",
         "__Secure-next-auth.session-token.0=a; __Secure-next-auth.session-token.1=b"},
        {"", NULL},
        {"Cookie:", NULL},
        {"a%2", NULL},
        {"a%0d%0aX: y", NULL},
    };
    struct cm_arena arena = {0};
    char *text = fixture("hix/cookies.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_event, NULL);
    yyjson_val *v, *cookies = cm_json_get(yyjson_doc_get_root(doc), "cookies");
    struct cm_str out;
    struct cm_err err;
    size_t i, max;

    ck_assert_uint_ge(yyjson_arr_size(cookies), 3);
    yyjson_arr_foreach(cookies, i, max, v)
    {
        ck_assert_int_eq(
            cm_provider_hix.normalize(&arena, cm_json_str(cm_json_get(v, "given")), &out, &err), 0);
        ck_assert(cm_str_eq(out, cm_json_str(cm_json_get(v, "stored"))));
    }
    for (i = 0; i < CM_COUNT(more); i++) {
        const int failed = cm_provider_hix.normalize(&arena, cm_str_of(more[i].given), &out, &err);

        ck_assert_msg(failed == (more[i].stored ? 0 : -1), "%s", more[i].given);
        ck_assert(failed || cm_str_eq(out, cm_str_of(more[i].stored)));
    }
    yyjson_doc_free(doc);
    free(text);
    cm_arena_clear(&arena);
}
END_TEST

Suite *suite_hix(void)
{
    Suite *s = suite_create("hix");
    TCase *t = tcase_create("hix");

    tcase_add_test(t, same_answer_for_every_split);
    tcase_add_test(t, two_calls_with_their_headers);
    tcase_add_test(t, options_move_the_calls);
    tcase_add_test(t, history_is_flattened_within_the_limit);
    tcase_add_test(t, refusals_of_the_first_call);
    tcase_add_test(t, refusals_of_the_second_call);
    tcase_add_test(t, what_it_cannot_do_is_said_at_once);
    tcase_add_test(t, what_the_platform_has_not_is_refused);
    tcase_add_test(t, a_client_that_leaves_ends_the_call);
    tcase_add_test(t, cookies_are_normalised);
    suite_add_tcase(s, t);
    return s;
}
