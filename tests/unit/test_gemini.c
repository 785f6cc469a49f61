/* provider/gemini: bodies as the golden files say, streams at every split, what each refusal means, schemas, pictures that are fetched. */
#include "fake_run.h"
#include "fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/surface/surface.h"
#include "provider/gemini_int.h"

#include <stdlib.h>

#define BODY(model, more)                                                                          \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]" more "}"
#define ASKED BODY("gemini-2.5-flash", ",\"stream\":true")
#define ASKED_WHOLE BODY("gemini-2.5-flash", "")
#define SSE "text/event-stream"
#define JSON "application/json; charset=UTF-8"

static void play(const char *body, const struct fake_reply *reply, size_t piece,
                 struct fake_result *r)
{
    fake_run(&(struct fake_setup){.type = "gemini",
                                  .body = body,
                                  .secret = "AIza-secret",
                                  .replies = reply,
                                  .n_replies = 1,
                                  .piece = piece},
             r);
}

static struct cm_str header_of(const struct fake_request *q, const char *name)
{
    return cm_header_find(q->headers, q->n_headers, cm_str_of(name));
}

/* ---- what is asked ---- */

static void ck_same_json(struct cm_str got, yyjson_val *want, const char *name)
{
    yyjson_doc *doc = cm_json_parse(got, &cm_json_limits_request, NULL);
    struct cm_buf text = {0};

    cm_json_put_val(&text, want);
    if (!yyjson_equals(yyjson_doc_get_root(doc), want))
        ck_abort_msg("%s:\n%.*s\nnot\n%.*s", name, CM_ARG(got), CM_ARG(cm_buf_str(&text)));
    cm_buf_clear(&text);
    yyjson_doc_free(doc);
}

/* From every dialect into this one, and from this one into others. */
static const char *const golden[] = {
    "gemini/ask_conversation.json", "gemini/ask_signature.json", "gemini/ask_config.json",
    "gemini/ask_anthropic.json",    "gemini/ask_gemini.json",    "gemini/ask_gemini_claude.json"};

static const struct cm_surface *spoken(struct cm_str dialect)
{
    if (cm_str_eq(dialect, CM_S("anthropic")))
        return &cm_surface_anthropic;
    return cm_str_eq(dialect, CM_S("gemini")) ? &cm_surface_gemini : &cm_surface_openai_chat;
}

START_TEST(requests_are_as_the_golden_files_say)
{
    char *text = fixture(golden[_i]);
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_request, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc);
    const char *to = yyjson_get_str(cm_json_get(root, "to"));
    struct cm_buf asked = {0};
    struct fake_result r;

    ck_assert(doc != NULL);
    cm_json_put_val(&asked, cm_json_get(root, "asked"));
    fake_run(&(struct fake_setup){.type = to ? to : "gemini",
                                  .body = cm_buf_z(&asked),
                                  .surface = spoken(cm_json_str(cm_json_get(root, "from"))),
                                  .path = "m:generateContent",
                                  .idle_ms = 20},
             &r);
    ck_assert_uint_eq(r.n_requests, 1);
    ck_same_json(r.requests[0].body, cm_json_get(root, "sent"), golden[_i]);
    fake_result_clear(&r);
    cm_buf_clear(&asked);
    yyjson_doc_free(doc);
    free(text);
}
END_TEST

START_TEST(the_call_has_the_key_in_its_header)
{
    static const struct fake_reply reply = {.content_type = JSON, .body = "{}"};
    static const char *const options[] = {"api_version", "v1", NULL};
    struct fake_result r;

    play(ASKED, &reply, 0, &r);
    ck_str(r.requests[0].method, "POST");
    ck_str(r.requests[0].url, "https://generativelanguage.googleapis.com/v1beta/models/"
                              "gemini-2.5-flash:streamGenerateContent?alt=sse");
    ck_str(header_of(&r.requests[0], "x-goog-api-key"), "AIza-secret");
    ck_str(header_of(&r.requests[0], "content-type"), "application/json");
    ck_assert_uint_eq(header_of(&r.requests[0], "authorization").n, 0);
    fake_result_clear(&r);

    fake_run(&(struct fake_setup){.type = "gemini",
                                  .body = BODY("tunedModels/my model", ""),
                                  .options = options,
                                  .idle_ms = 20},
             &r);
    ck_str(r.requests[0].url, "https://generativelanguage.googleapis.com/v1/tunedModels/"
                              "my%20model:generateContent");
    fake_result_clear(&r);
}
END_TEST

/* ---- what is answered ---- */

static const struct answer {
    const char *file;
    const char *text, *reasoning;
    size_t calls, citations, choices;
    enum cm_finish finish;
    int64_t in_uncached, in_cache_read, out_text, out_reasoning, in_audio;
} answers[] = {
    {"gemini/text.sse", "Hello wörld €𐍈 and \"all\"\n", "", 0, 0, 1, CM_FINISH_STOP, 8, 4, 6, 3, 3},
    {"gemini/thoughts.sse", "Blue.", "Let me see.", 0, 1, 1, CM_FINISH_LENGTH, 5, 0, 2, 9, 0},
    {"gemini/calls.sse", "Looking.", "", 3, 0, 1, CM_FINISH_TOOL_CALLS, 5, 0, 2, 0, 0},
    {"gemini/candidates.sse", "aA", "", 0, 0, 2, CM_FINISH_STOP, 0, 0, 0, 0, 0},
    {"gemini/blocked.sse", "", "", 0, 0, 1, CM_FINISH_CONTENT_FILTER, 9, 0, 0, 0, 0},
};

static void ck_answer(struct fake_result *r, const struct answer *want, size_t piece)
{
    const struct cm_usage *u = &r->answer.usage;
    const struct cm_choice_acc *c = &r->answer.choices[0];

    if (!r->done)
        ck_abort_msg("%s in pieces of %zu: %s", want->file, piece, r->err.msg);
    ck_quick(r->finished_last);
    ck_quick(r->answer.n_choices == want->choices);
    if (strcmp(fake_text(r), want->text) != 0 || strcmp(fake_reasoning(r), want->reasoning) != 0)
        ck_abort_msg("%s in pieces of %zu: %s", want->file, piece, fake_text(r));
    ck_quick(c->finish == want->finish);
    ck_quick(c->n_calls == want->calls && c->n_citations == want->citations);
    ck_quick(u->in_uncached == want->in_uncached && u->in_cache_read == want->in_cache_read);
    ck_quick(u->out_text == want->out_text && u->out_reasoning == want->out_reasoning);
    ck_quick(u->in_audio == want->in_audio);
    if (want->calls == 3) {
        ck_str(cm_buf_str(&c->calls[0].args), "{\"city\":\"Köln\",\"days\":3,\"exact\":1.5}");
        ck_quick(cm_str_starts(c->calls[0].id, CM_S("call_")) && c->calls[0].id.n <= 40);
        ck_str(c->calls[1].id, "fc-2");
        ck_str(cm_buf_str(&c->calls[1].args), "{}");
        ck_quick(cm_str_starts(c->calls[2].id, CM_S("call_")));
        ck_quick(!cm_str_eq(c->calls[0].id, c->calls[2].id));
    }
    if (want->choices == 2) {
        ck_str(cm_buf_str(&r->answer.choices[1].text), "bB");
        ck_quick(r->answer.choices[1].finish == CM_FINISH_CONTENT_FILTER);
    }
}

START_TEST(a_stream_is_the_same_at_every_split)
{
    char *text = fixture(answers[_i].file);
    const size_t n = strlen(text);

    for (size_t piece = 1; piece <= n; piece += piece < 64 ? 1 : 37) {
        const struct fake_reply reply = {.content_type = SSE, .body = text};
        struct fake_result r;

        play(ASKED, &reply, piece, &r);
        ck_answer(&r, &answers[_i], piece);
        fake_result_clear(&r);
    }
    free(text);
}
END_TEST

START_TEST(a_break_after_the_reason_is_no_failure)
{
    char *text = fixture("gemini/text.sse");
    const struct fake_reply reply = {.content_type = SSE, .body = text, .end = FAKE_CUT};
    struct fake_result r;

    play(ASKED, &reply, 7, &r);
    ck_answer(&r, &answers[0], 7);
    fake_result_clear(&r);
    free(text);
}
END_TEST

START_TEST(what_ends_without_a_reason_failed)
{
    static const struct {
        const char *file;
        enum fake_end end;
        enum cm_err_class cls;
        int retry_after_s;
    } cases[] = {
        {"gemini/cut.sse", FAKE_END, CM_ERR_CUT, 0},
        {"gemini/cut.sse", FAKE_CUT, CM_ERR_CUT, 0},
        {"gemini/late_error.sse", FAKE_END, CM_ERR_OVERLOADED, 0},
        {"gemini/bare_error.sse", FAKE_END, CM_ERR_RATE_LIMITED, 4},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        char *text = fixture(cases[i].file);
        const struct fake_reply reply = {.content_type = SSE, .body = text, .end = cases[i].end};

        for (size_t piece = 1; piece <= strlen(text); piece++) {
            struct fake_result r;

            play(ASKED, &reply, piece, &r);
            ck_quick(!r.done && !r.finished_last);
            if (r.err.cls != cases[i].cls || r.err.retry_after_s != cases[i].retry_after_s)
                ck_abort_msg("%s in pieces of %zu: %s", cases[i].file, piece, r.err.msg);
            fake_result_clear(&r);
        }
        free(text);
    }
}
END_TEST

START_TEST(a_whole_answer_is_read_as_one)
{
    static const struct {
        const char *body;
        enum cm_err_class cls;
    } cases[] = {
        {"{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"},{\"text\":\"b\"}]},"
         "\"finishReason\":\"STOP\"}]}",
         CM_ERR_NONE},
        {"{\"candidates\":[{\"finishReason\":\"SAFETY\"}]}", CM_ERR_NONE},
        {"{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}", CM_ERR_UPSTREAM_DOWN},
        {"{\"candidates\":[]}", CM_ERR_UPSTREAM_DOWN},
        {"{\"candidates\":[{\"finishReason\":\"MALFORMED_FUNCTION_CALL\"}]}", CM_ERR_UPSTREAM_DOWN},
        {"{\"error\":{\"code\":503,\"status\":\"UNAVAILABLE\"}}", CM_ERR_OVERLOADED},
        {"[]", CM_ERR_UPSTREAM_DOWN},
        {"{\"candidates\":", CM_ERR_UPSTREAM_DOWN},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_reply reply = {.content_type = JSON, .body = cases[i].body};
        struct fake_result r;

        play(ASKED_WHOLE, &reply, 1, &r);
        ck_assert_msg(r.err.cls == cases[i].cls, "%s: %s", cases[i].body, r.err.msg);
        if (i == 0)
            ck_assert_str_eq(fake_text(&r), "ab");
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- refusals ---- */

#define ERROR(code, status, message, details)                                                      \
    "{\"error\":{\"code\":" #code ",\"message\":\"" message "\",\"status\":\"" status "\"" details \
    "}}"
#define DETAIL(type, more)                                                                         \
    ",\"details\":[{\"@type\":\"other\"},{\"@type\":\"type.googleapis.com/google.rpc." type        \
    "\"," more "}]"
#define REASON(name) DETAIL("ErrorInfo", "\"reason\":\"" name "\"")

static const struct refusal {
    int status;
    const char *body;
    enum cm_err_class cls;
    int retry_after_s, http_status;
} refusals[] = {
    {400, ERROR(400, "INVALID_ARGUMENT", "bad value", ""), CM_ERR_BAD_REQUEST, 0, 400},
    {400, "[" ERROR(400, "INVALID_ARGUMENT", "bad value", "") "]", CM_ERR_BAD_REQUEST, 0, 400},
    {400, ERROR(400, "INVALID_ARGUMENT", "API key not valid.", REASON("API_KEY_INVALID")),
     CM_ERR_INVALID_CREDENTIAL, 0, 0},
    {400, ERROR(400, "INVALID_ARGUMENT", "API key expired.", REASON("API_KEY_INVALID")),
     CM_ERR_EXPIRED, 0, 0},
    {400,
     ERROR(400, "INVALID_ARGUMENT",
           "The input token count (9) exceeds the maximum number of tokens allowed (8).", ""),
     CM_ERR_CONTEXT_LENGTH, 0, 0},
    {400, ERROR(400, "FAILED_PRECONDITION", "User location is not supported", ""),
     CM_ERR_UPSTREAM_DOWN, 0, 403},
    {400, ERROR(400, "FAILED_PRECONDITION", "Please enable billing", ""), CM_ERR_QUOTA_EXHAUSTED, 0,
     0},
    {401, ERROR(401, "UNAUTHENTICATED", "invalid credentials", ""), CM_ERR_EXPIRED, 0, 0},
    {403, ERROR(403, "PERMISSION_DENIED", "unregistered callers", ""), CM_ERR_INVALID_CREDENTIAL, 0,
     0},
    {403, ERROR(403, "PERMISSION_DENIED", "suspended", REASON("CONSUMER_SUSPENDED")),
     CM_ERR_INVALID_CREDENTIAL, 0, 0},
    {403, ERROR(403, "PERMISSION_DENIED", "not used before", REASON("SERVICE_DISABLED")),
     CM_ERR_VERIFICATION_REQUIRED, 0, 0},
    {403, ERROR(403, "PERMISSION_DENIED", "not yours", ""), CM_ERR_MODEL_UNAVAILABLE, 0, 403},
    {404, ERROR(404, "NOT_FOUND", "models/x is not found", ""), CM_ERR_MODEL_UNAVAILABLE, 0, 0},
    {404, "<html>404</html>", CM_ERR_UPSTREAM_DOWN, 0, 0},
    {404, "", CM_ERR_UPSTREAM_DOWN, 0, 0},
    {429,
     ERROR(429, "RESOURCE_EXHAUSTED", "slow", DETAIL("RetryInfo", "\"retryDelay\":\"17.250s\"")),
     CM_ERR_RATE_LIMITED, 18, 0},
    {429, ERROR(429, "RESOURCE_EXHAUSTED", "slow", DETAIL("RetryInfo", "\"retryDelay\":\"5s\"")),
     CM_ERR_RATE_LIMITED, 5, 0},
    {429, ERROR(429, "RESOURCE_EXHAUSTED", "slow", ""), CM_ERR_RATE_LIMITED, 30, 0},
    {429,
     ERROR(429, "RESOURCE_EXHAUSTED", "day",
           DETAIL("QuotaFailure",
                  "\"violations\":[{\"quotaId\":\"GenerateRequestsPerDayPerProject\"}]")),
     CM_ERR_QUOTA_EXHAUSTED, -1, 0},
    {500, ERROR(500, "INTERNAL", "oops", ""), CM_ERR_UPSTREAM_DOWN, 0, 0},
    {502, "<html>", CM_ERR_UPSTREAM_DOWN, 0, 0},
    {503, ERROR(503, "UNAVAILABLE", "overloaded", ""), CM_ERR_OVERLOADED, 0, 0},
    {504, ERROR(504, "DEADLINE_EXCEEDED", "late", ""), CM_ERR_TIMEOUT, 0, 0},
};

START_TEST(each_refusal_has_its_class)
{
    for (size_t i = 0; i < CM_COUNT(refusals); i++) {
        const struct refusal *want = &refusals[i];
        const struct fake_reply reply = {
            .status = want->status, .content_type = JSON, .body = want->body};
        struct fake_result r;

        play(i % 2 ? ASKED : ASKED_WHOLE, &reply, 3, &r);
        ck_assert_msg(r.err.cls == want->cls, "%s: %s", want->body, r.err.msg);
        ck_assert_msg(r.err.http_status == want->http_status, "%s", want->body);
        if (want->retry_after_s >= 0)
            ck_assert_int_eq(r.err.retry_after_s, want->retry_after_s);
        else
            ck_assert(r.err.retry_after_s > 0 && r.err.retry_after_s <= 25 * 3600);
        fake_result_clear(&r);
    }
}
END_TEST

#define QUOTAS(violations)                                                                         \
    ERROR(429, "RESOURCE_EXHAUSTED", "slow",                                                       \
          DETAIL("QuotaFailure", "\"violations\":[" violations "]"))
#define MINUTE_OF_MODEL "{\"quotaId\":\"GenerateRequestsPerMinutePerProjectPerModel-FreeTier\"}"
#define DAY_OF_MODEL                                                                               \
    "{\"quotaId\":\"RequestsPerDay\",\"quotaDimensions\":{\"model\":\"gemini-2.5-flash\"}}"
#define DAY_OF_PROJECT                                                                             \
    "{\"quotaId\":\"RequestsPerDay\",\"quotaDimensions\":{\"location\":\"global\"}}"

START_TEST(a_quota_of_the_model_is_told_apart)
{
    static const struct {
        const char *body;
        enum cm_err_class cls;
        bool of_model;
    } quotas[] = {
        {QUOTAS(MINUTE_OF_MODEL), CM_ERR_RATE_LIMITED, true},
        {QUOTAS(DAY_OF_MODEL), CM_ERR_QUOTA_EXHAUSTED, true},
        {QUOTAS(MINUTE_OF_MODEL "," DAY_OF_MODEL), CM_ERR_QUOTA_EXHAUSTED, true},
        {QUOTAS(MINUTE_OF_MODEL "," DAY_OF_PROJECT), CM_ERR_QUOTA_EXHAUSTED, false},
        {QUOTAS("{\"quotaId\":\"RequestsPerMinutePerProject\"}"), CM_ERR_RATE_LIMITED, false},
        {QUOTAS(""), CM_ERR_RATE_LIMITED, false},
    };

    for (size_t i = 0; i < CM_COUNT(quotas); i++) {
        const struct fake_reply reply = {
            .status = 429, .content_type = JSON, .body = quotas[i].body};
        struct fake_result r;

        play(ASKED, &reply, 3, &r);
        ck_assert_int_eq(r.err.cls, quotas[i].cls);
        ck_assert_msg(r.err.of_model == quotas[i].of_model, "%s", quotas[i].body);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(a_text_that_quotes_the_key_is_not_passed_on)
{
    static const struct fake_reply reply = {
        .status = 400,
        .content_type = JSON,
        .body = ERROR(400, "INVALID_ARGUMENT", "Bad use of AIza-secret.", "")};
    struct fake_result r;

    play(ASKED, &reply, 0, &r);
    ck_assert(!strstr(r.err.msg, "AIza"));
    fake_result_clear(&r);
}
END_TEST

START_TEST(the_quota_day_ends_at_midnight_in_california)
{
    static const struct {
        int64_t unix_s, left_s;
    } cases[] = {
        {1768435200, 8 * 3600},          /* 2026-01-15T00:00Z, winter: 08:00Z */
        {1784160000, 7 * 3600},          /* 2026-07-16T00:00Z, summer: 07:00Z */
        {1768463999, 1},                 /* 2026-01-15T07:59:59Z */
        {1768464000, 24 * 3600},         /* a new day */
        {1772964000 - 1, 22 * 3600 + 1}, /* 2026-03-08T09:59:59Z, the last second of winter */
        {1772964000, 21 * 3600},         /* summer time begins */
        {1793523600 - 1, 22 * 3600 + 1}, /* 2026-11-01T08:59:59Z, the last second of summer */
        {1793523600, 23 * 3600},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++)
        ck_assert_int_eq(gemini_quota_day_left_s(cases[i].unix_s), cases[i].left_s);
}
END_TEST

/* ---- schemas ---- */

START_TEST(a_schema_without_content_is_left_out)
{
    static const char *const nothing[] = {
        "",
        "{}",
        "[]",
        "null",
        "{\"type\":\"object\"}",
        "{\"type\":\"object\",\"properties\":{}}",
        "{\"$ref\":\"#/nowhere\"}",
        "{\"$ref\":\"https://elsewhere/x\"}",
    };
    struct cm_arena a = {0};

    for (size_t i = 0; i < CM_COUNT(nothing); i++) {
        ck_assert_uint_eq(gemini_schema(&a, cm_str_of(nothing[i]), false).n, 0);
        ck_assert_uint_eq(gemini_schema(&a, cm_str_of(nothing[i]), true).n, 0);
    }
    cm_arena_clear(&a);
}
END_TEST

/* References that double with each step must not fill the memory. */
START_TEST(references_that_multiply_have_an_end)
{
    struct cm_buf text = {0};
    struct cm_arena a = {0};

    cm_buf_append(&text, CM_S("{\"$ref\":\"#/$defs/d0\",\"$defs\":{"));
    for (int i = 0; i < 30; i++)
        cm_buf_printf(
            &text, "\"d%d\":{\"anyOf\":[{\"$ref\":\"#/$defs/d%d\"},{\"$ref\":\"#/$defs/d%d\"}]},",
            i, i + 1, i + 1);
    cm_buf_append(&text, CM_S("\"d30\":{\"type\":\"string\"}}}"));
    ck_assert_uint_lt(gemini_schema(&a, cm_buf_str(&text), true).n, 8u << 20);
    ck_assert_uint_lt(gemini_schema(&a, cm_buf_str(&text), false).n, 8u << 20);
    cm_buf_clear(&text);
    cm_arena_clear(&a);
}
END_TEST

Suite *suite_gemini(void)
{
    Suite *s = suite_create("gemini");
    TCase *ask = tcase_create("ask"), *answer = tcase_create("answer"),
          *refuse = tcase_create("refuse"), *schema = tcase_create("schema");

    tcase_add_loop_test(ask, requests_are_as_the_golden_files_say, 0, CM_COUNT(golden));
    tcase_add_test(ask, the_call_has_the_key_in_its_header);
    suite_add_tcase(s, ask);
    tcase_set_timeout(answer, 60);
    tcase_add_loop_test(answer, a_stream_is_the_same_at_every_split, 0, CM_COUNT(answers));
    tcase_add_test(answer, a_break_after_the_reason_is_no_failure);
    tcase_add_test(answer, what_ends_without_a_reason_failed);
    tcase_add_test(answer, a_whole_answer_is_read_as_one);
    suite_add_tcase(s, answer);
    tcase_add_test(refuse, each_refusal_has_its_class);
    tcase_add_test(refuse, a_quota_of_the_model_is_told_apart);
    tcase_add_test(refuse, a_text_that_quotes_the_key_is_not_passed_on);
    tcase_add_test(refuse, the_quota_day_ends_at_midnight_in_california);
    suite_add_tcase(s, refuse);
    tcase_add_test(schema, a_schema_without_content_is_left_out);
    tcase_add_test(schema, references_that_multiply_have_an_end);
    suite_add_tcase(s, schema);
    return s;
}
