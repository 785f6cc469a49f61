/* surface/compat: errors and answers as hixai2api, genspark2api and alexsidebar2api write them. */
#include "chatmux/surface/compat.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#define HIX CM_COMPAT_HIXAI2API
#define GENSPARK CM_COMPAT_GENSPARK2API
#define ALEX CM_COMPAT_ALEXSIDEBAR2API

static const struct cm_surface *surface(enum cm_compat compat)
{
    return cm_surface_compat(&cm_surface_openai_chat, compat);
}

static struct cm_err error(enum cm_err_class cls, const char *code, const char *msg)
{
    struct cm_err err = {0};

    cm_fail(&err, cls, "%s", msg);
    cm_str_copy(err.code, sizeof(err.code), cm_str_of(code));
    return err;
}

static void check(enum cm_compat compat, struct cm_err err, int status, const char *body)
{
    struct cm_buf out = {0};

    surface(compat)->error_body(&err, &out);
    ck_assert_str_eq(cm_buf_z(&out), body);
    ck_assert_int_eq(surface(compat)->error_status(&err), status);
    cm_buf_reset(&out);
    surface(compat)->stream_error(NULL, &err, &out);
    ck_assert(cm_str_starts(cm_buf_str(&out), CM_S("data: {")) &&
              cm_str_ends(cm_buf_str(&out), CM_S("}\n\n")));
    cm_buf_clear(&out);
}

#define KEY_REFUSED(text)                                                                          \
    "{\"error\":{\"message\":\"" text                                                              \
    "\",\"type\":\"invalid_request_error\",\"param\":\"\",\"code\":\"invalid_authorization\"}}"

START_TEST(only_the_chat_surface_has_variants)
{
    static const struct cm_surface other = {.dialect = CM_DIALECT_OPENAI_CHAT};

    ck_assert_ptr_eq(surface(CM_COMPAT_NONE), &cm_surface_openai_chat);
    ck_assert_ptr_eq(cm_surface_compat(&other, HIX), &other);
    ck_assert_ptr_ne(surface(HIX), surface(ALEX));
    ck_assert_ptr_null(cm_compat_root(CM_COMPAT_NONE).p);
    ck_assert_ptr_null(cm_compat_root(HIX).p);
    ck_assert_ptr_nonnull(cm_compat_root(GENSPARK).p);
    ck_assert_uint_eq(cm_compat_root(GENSPARK).n, 0);
}
END_TEST

START_TEST(keys_and_addresses)
{
    check(HIX, error(CM_ERR_UNAUTHORIZED, "", "no"), 401, KEY_REFUSED("API-KEY校验失败"));
    check(ALEX, error(CM_ERR_UNAUTHORIZED, "", "no"), 401, KEY_REFUSED("API-KEY校验失败"));
    check(GENSPARK, error(CM_ERR_UNAUTHORIZED, "", "no"), 401,
          KEY_REFUSED("authorization(api-secret)校验失败"));
    for (enum cm_compat c = HIX; c <= ALEX; c++) {
        check(c, error(CM_ERR_CLIENT_LIMIT, "", "wait"), 429,
              "{\"success\":false,\"message\":\"请求过于频繁,请稍后再试\"}");
        check(c, error(CM_ERR_FORBIDDEN, "address_blocked", "no"), 403,
              "{\"error\":\"Forbidden\"}");
        /* they have no words for these */
        check(c, error(CM_ERR_CLIENT_LIMIT, "insufficient_quota", "spent"), 429,
              "{\"error\":{\"message\":\"spent\",\"type\":\"rate_limit_error\",\"param\":null,"
              "\"code\":\"insufficient_quota\"}}");
        check(c, error(CM_ERR_TOO_LARGE, "", "big"), 413,
              "{\"error\":{\"message\":\"big\",\"type\":\"invalid_request_error\",\"param\":null,"
              "\"code\":null}}");
    }
}
END_TEST

START_TEST(requests_that_are_wrong)
{
    const char *bad = "{\"error\":{\"message\":\"Invalid request parameters\",\"type\":"
                      "\"request_error\",\"param\":\"\",\"code\":\"500\"}}";
    struct cm_err err;

    for (enum cm_compat c = HIX; c <= ALEX; c++) {
        err = error(CM_ERR_BAD_REQUEST, "", "invalid JSON at line 1, column 1 (byte 0): x");
        check(c, err, 500, bad);
        check(c, error(CM_ERR_BAD_REQUEST, "", "The request body must be a JSON object."), 500,
              bad);
    }
    err = error(CM_ERR_BAD_REQUEST, "", "must be a list");
    cm_str_copy(err.param, sizeof(err.param), CM_S("messages"));
    check(HIX, err, 400,
          "{\"error\":{\"message\":\"must be a list\",\"type\":\"invalid_request_error\","
          "\"param\":\"messages\",\"code\":null}}");
    err = error(CM_ERR_NOT_FOUND, "model_not_found", "The model 'x/y' does not exist.");
    check(HIX, err, 500, "{\"error\":\"no model\",\"detail\":\"The model 'x/y' does not exist.\"}");
    check(ALEX, err, 400,
          "{\"error\":{\"message\":\"Model x/y not supported\",\"type\":\"invalid_request_error\","
          "\"param\":\"\",\"code\":\"invalid_model\"}}");
    check(HIX, error(CM_ERR_CONTEXT_LENGTH, "", "input text too long: 9 characters"), 500,
          "{\"error\":\"input text too long: 9 characters\"}");
}
END_TEST

/* What nobody serves, where hixai2api has routes. */
START_TEST(paths_of_nobody)
{
    static const char *const below[] = {"/v1", "/v1/x", "/api/\"x\", ; chat"};
    char msg[200];

    for (size_t i = 0; i < CM_COUNT(below); i++) {
        struct cm_buf body = {0};

        snprintf(msg, sizeof(msg), "unknown path %s; chat is at /v1/chat/completions", below[i]);
        cm_buf_append(&body, CM_S("{\"error\":\"API endpoint not found\",\"path\":"));
        cm_json_put_z(&body, below[i]);
        cm_buf_append(&body, CM_S(",\"code\":404}"));
        check(HIX, error(CM_ERR_NOT_FOUND, "", msg), 404, cm_buf_z(&body));
        cm_buf_clear(&body);
    }
    check(HIX, error(CM_ERR_NOT_FOUND, "", "unknown path /v1x; chat is at"), 404,
          "{\"error\":{\"message\":\"unknown path /v1x; chat is at\",\"type\":"
          "\"invalid_request_error\",\"param\":null,\"code\":null}}");
    check(ALEX, error(CM_ERR_NOT_FOUND, "", "unknown path /v1; chat is at"), 404,
          "{\"error\":{\"message\":\"unknown path /v1; chat is at\",\"type\":"
          "\"invalid_request_error\",\"param\":null,\"code\":null}}");
}
END_TEST

static int parse(enum cm_compat compat, const char *more, struct cm_err *err)
{
    struct cm_arena arena = {0};
    struct cm_chat chat = {.arena = &arena};
    int rc;

    *err = (struct cm_err){0};
    rc = surface(compat)->parse(
        &chat,
        cm_arena_printf(&arena,
                        "{\"model\":\"o1\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]%s}",
                        more),
        err);
    cm_arena_clear(&arena);
    return rc;
}

START_TEST(more_tokens_than_alexsidebar2api_allows)
{
    struct cm_err err;

    ck_assert_int_eq(parse(ALEX, ",\"max_tokens\":100000", &err), 0);
    ck_assert_int_eq(parse(ALEX, "", &err), 0);
    ck_assert_int_eq(parse(HIX, ",\"max_tokens\":100001", &err), 0);
    ck_assert_int_eq(parse(ALEX, ",\"max_tokens\":\"x\"", &err), -1);
    ck_assert_int_eq(parse(ALEX, ",\"max_tokens\":100001", &err), -1);
    check(ALEX, err, 400,
          "{\"error\":{\"message\":\"Max tokens 100001 exceeds limit 100000\",\"type\":"
          "\"invalid_request_error\",\"param\":\"\",\"code\":\"invalid_max_tokens\"}}");
}
END_TEST

START_TEST(accounts_and_platforms)
{
    check(HIX, error(CM_ERR_NO_CREDENTIAL, "", "m"), 500,
          "{\"error\":\"No valid cookies available\",\"detail\":\"m\"}");
    check(ALEX, error(CM_ERR_NO_CREDENTIAL, "not_configured", "set x"), 503,
          "{\"error\":{\"message\":\"set x\",\"type\":\"server_error\",\"param\":null,"
          "\"code\":\"not_configured\"}}");
    check(ALEX, error(CM_ERR_NO_CREDENTIAL, "", "m"), 500,
          "{\"error\":\"no cookies available\",\"detail\":\"m\"}");
    for (enum cm_compat c = HIX; c <= ALEX; c++) {
        const char *all = "{\"error\":\"All cookies are temporarily unavailable.\",\"detail\":"
                          "\"m\"}";

        check(c, error(CM_ERR_RATE_LIMITED, "", "m"), 500, all);
        check(c, error(CM_ERR_QUOTA_EXHAUSTED, "", "m"), 500, all);
        check(c, error(CM_ERR_EXPIRED, "", "m"), 500, all);
        check(c, error(CM_ERR_INVALID_CREDENTIAL, "", "m"), 500, all);
        check(c, error(CM_ERR_TIMEOUT, "", "m"), 500, "{\"error\":\"m\"}");
    }
    check(HIX, error(CM_ERR_VERIFICATION_REQUIRED, "", "m"), 500,
          "{\"error\":\"cf challenge\",\"detail\":\"m\"}");
    check(HIX, error(CM_ERR_VERIFICATION_REQUIRED, "", "hix forbids it"), 500,
          "{\"error\":\"Forbidden\",\"detail\":\"hix forbids it\"}");
    check(GENSPARK, error(CM_ERR_VERIFICATION_REQUIRED, "", "m"), 500,
          "{\"error\":\"Detected Cloudflare Challenge Page\",\"detail\":\"m\"}");
    check(GENSPARK, error(CM_ERR_UPSTREAM_DOWN, "", "it is out of service"), 500,
          "{\"error\":\"Genspark Service Unavailable\",\"detail\":\"it is out of service\"}");
    check(GENSPARK, error(CM_ERR_UPSTREAM_DOWN, "", "m"), 500,
          "{\"error\":\"An error occurred with the current request, please try again.\","
          "\"detail\":\"m\"}");
}
END_TEST

START_TEST(pictures_and_videos_of_genspark2api)
{
    const struct cm_surface *s = cm_surface_compat(&cm_surface_openai_images, GENSPARK);
    struct cm_err err = error(CM_ERR_RATE_LIMITED, "", "m");
    struct cm_buf out = {0};

    ck_assert_ptr_eq(cm_surface_compat(&cm_surface_openai_images, HIX), &cm_surface_openai_images);
    ck_assert_int_eq(cm_surface_compat(&cm_surface_openai_videos, GENSPARK)->task, CM_TASK_VIDEO);
    s->error_body(&err, &out);
    ck_str(cm_buf_str(&out),
           "{\"error\":{\"message\":\"all cookies are temporarily unavailable\",\"type\":"
           "\"request_error\",\"param\":\"\",\"code\":\"500\"},\"detail\":\"m\"}");
    ck_assert_int_eq(s->error_status(&err), 500);
    cm_buf_reset(&out);
    err = error(CM_ERR_BAD_REQUEST, "", "invalid JSON at line 1");
    s->error_body(&err, &out);
    ck_str(cm_buf_str(&out), "{\"error\":\"invalid JSON at line 1\"}");
    ck_assert_int_eq(s->error_status(&err), 400);
    cm_buf_reset(&out);
    s = cm_surface_compat(&cm_surface_openai_videos, GENSPARK);
    err = error(CM_ERR_BAD_REQUEST, "unsupported_value", "no videos with 'x'");
    cm_str_copy(err.param, sizeof(err.param), CM_S("model"));
    s->error_body(&err, &out);
    ck_str(cm_buf_str(&out), "{\"error\":\"Invalid model\",\"detail\":\"no videos with 'x'\"}");
    ck_assert_int_eq(s->error_status(&err), 400);
    cm_buf_reset(&out);
    cm_str_copy(err.param, sizeof(err.param), CM_S("prompt"));
    s->error_body(&err, &out);
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"param\":\"prompt\"")));
    err = error(CM_ERR_NOT_FOUND, "model_not_found", "m");
    ck_assert_int_eq(s->error_status(&err), 400);
    cm_buf_clear(&out);
}
END_TEST

/* ---- answers ---- */

static const struct cm_answer_meta meta = {.id = CM_S_INIT("chatcmpl-1"),
                                           .model = CM_S_INIT("m"),
                                           .created_s = 7,
                                           .n = 1,
                                           .reasoning = CM_REASONING_THINK,
                                           .compat = true};
static const struct cm_usage usage = {.in_uncached = 5, .out_text = 3, .out_reasoning = 2};

#define CHUNK(choice, content, finish, in, out, all)                                               \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,"             \
    "\"model\":\"m\",\"choices\":[{\"index\":" choice ",\"logprobs\":null,"                        \
    "\"delta\":{\"role\":\"assistant\",\"content\":\"" content "\"},\"finish_reason\":" finish     \
    "}],\"usage\":{\"prompt_tokens\":" in ",\"completion_tokens\":" out ",\"total_tokens\":" all   \
    "},\"system_fingerprint\":null,\"suggestions\":null}\n\n"

static struct cm_str stream(const struct cm_answer_meta *m, const struct cm_event *events, size_t n,
                            struct cm_buf *out)
{
    const struct cm_surface *s = surface(HIX);
    void *state = cm_calloc(1, s->stream_size);

    s->stream_begin(state, m, out);
    for (size_t i = 0; i < n; i++)
        s->stream_event(state, &events[i], out);
    s->stream_end(state, &usage, out);
    s->stream_clear(state);
    free(state);
    return cm_buf_str(out);
}

START_TEST(chunks_have_their_members)
{
    const struct cm_event events[] = {
        {.kind = CM_EVENT_REASONING, .text = CM_S("hm")},
        {.kind = CM_EVENT_TEXT, .text = CM_S("Blue")},
        {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP},
    };
    struct cm_answer_meta asked = meta;
    struct cm_buf out = {0};

    ck_str(stream(&meta, events, CM_COUNT(events), &out),
           CHUNK("0", "<think>\\nhm", "null", "0", "0", "0")
               CHUNK("0", "\\n</think>\\n\\n", "null", "0", "0", "0")
                   CHUNK("0", "Blue", "null", "0", "0", "0")
                       CHUNK("0", "", "\"stop\"", "5", "5", "10") "data: [DONE]\n\n");
    cm_buf_reset(&out);
    asked.include_usage = true; /* then OpenAI's chunk has the figures, once */
    ck_assert(
        cm_str_ends(stream(&asked, events, CM_COUNT(events), &out), CM_S("data: [DONE]\n\n")));
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"choices\":[],\"usage\":{\"prompt_tokens\":5,")));
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S(CHUNK("0", "", "\"stop\"", "0", "0", "0"))));
    cm_buf_clear(&out);
}
END_TEST

START_TEST(every_choice_ends)
{
    const struct cm_event events[] = {
        {.kind = CM_EVENT_TEXT, .text = CM_S("a")},
        {.kind = CM_EVENT_TEXT, .choice = 1, .text = CM_S("b")},
        {.kind = CM_EVENT_FINISH, .choice = 1, .finish = CM_FINISH_LENGTH},
        {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP},
    };
    struct cm_answer_meta two = meta;
    struct cm_buf out = {0};

    two.n = 2;
    ck_str(stream(&two, events, CM_COUNT(events), &out),
           CHUNK("0", "a", "null", "0", "0", "0") CHUNK("1", "b", "null", "0", "0", "0")
               CHUNK("0", "", "\"stop\"", "0", "0", "0")
                   CHUNK("1", "", "\"length\"", "5", "5", "10") "data: [DONE]\n\n");
    cm_buf_clear(&out);
}
END_TEST

START_TEST(whole_answers_have_their_members)
{
    const struct cm_event events[] = {{.kind = CM_EVENT_TEXT, .text = CM_S("Blue")},
                                      {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP}};
    struct cm_answer answer = {0};
    struct cm_buf out = {0};
    yyjson_doc *doc;
    yyjson_val *root, *choice;

    for (size_t i = 0; i < CM_COUNT(events); i++)
        ck_assert_int_eq(cm_answer_add(&answer, &events[i], NULL), 0);
    answer.usage = usage;
    surface(GENSPARK)->whole(&meta, &answer, &out);
    doc = cm_json_parse(cm_buf_str(&out), &cm_json_limits_request, NULL);
    root = yyjson_doc_get_root(doc);
    choice = yyjson_arr_get_first(cm_json_get(root, "choices"));
    ck_str(cm_json_str(cm_json_get(root, "object")), "chat.completion");
    ck_assert(yyjson_is_null(cm_json_get(root, "suggestions")));
    ck_assert(yyjson_is_null(cm_json_get(root, "system_fingerprint")));
    ck_assert(yyjson_is_null(cm_json_get(choice, "logprobs")));
    ck_str(cm_json_str(cm_json_get(cm_json_get(choice, "message"), "content")), "Blue");
    ck_str(cm_json_str(cm_json_get(choice, "finish_reason")), "stop");
    ck_assert_uint_eq(yyjson_obj_size(cm_json_get(choice, "delta")), 2);
    ck_assert_int_eq(yyjson_get_int(cm_json_get(cm_json_get(root, "usage"), "total_tokens")), 10);
    yyjson_doc_free(doc);
    cm_answer_clear(&answer);
    cm_buf_clear(&out);
}
END_TEST

Suite *suite_compat(void)
{
    Suite *s = suite_create("compat");
    TCase *t = tcase_create("compat");

    suite_add_tcase(s, t);
    tcase_add_test(t, only_the_chat_surface_has_variants);
    tcase_add_test(t, keys_and_addresses);
    tcase_add_test(t, requests_that_are_wrong);
    tcase_add_test(t, paths_of_nobody);
    tcase_add_test(t, more_tokens_than_alexsidebar2api_allows);
    tcase_add_test(t, accounts_and_platforms);
    tcase_add_test(t, pictures_and_videos_of_genspark2api);
    tcase_add_test(t, chunks_have_their_members);
    tcase_add_test(t, every_choice_ends);
    tcase_add_test(t, whole_answers_have_their_members);
    return s;
}
