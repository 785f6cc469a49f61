/* openai: realtime sessions, and the surface that asks for them. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <string.h>

static char relayed[256]; /* "T" or "B" for each message, "!" when an answer is under way */
static int finish_code;
static struct cm_buf finish_reason;

static void note_event(struct fake *f, const struct cm_event *ev)
{
    size_t n = strlen(relayed);

    (void)f;
    if (ev->kind == CM_EVENT_RELAY && n + 2 < sizeof(relayed))
        cm_str_copy(relayed + n, sizeof(relayed) - n,
                    ev->binary     ? CM_S("B")
                    : ev->semantic ? CM_S("T!")
                                   : CM_S("T"));
    if (ev->kind == CM_EVENT_FINISH) {
        finish_code = ev->status;
        cm_buf_append(&finish_reason, ev->text);
    }
}

static void begin(struct fake *f, const char *query)
{
    relayed[0] = '\0';
    finish_code = 0;
    fake_use(f, "openai");
    f->query = query;
    f->cred.secret = CM_S("sk-up");
    f->cred.label = CM_S("up#1");
    f->on_event = note_event;
    fake_request(f, &cm_surface_openai_realtime, NULL, CM_STR_NONE);
    fake_open(f);
    fake_turn(f);
}

static void end(struct fake *f)
{
    fake_close(f);
    fake_clear(f);
    cm_buf_clear(&finish_reason);
}

static void same(struct cm_str got, const char *want)
{
    ck_assert_msg(cm_str_eq(got, cm_str_of(want)), "\"" CM_PRI "\" instead of \"%s\"", CM_ARG(got),
                  want);
}

static void expect_url(const char *base_url, const char *query, const char *url)
{
    struct fake f;

    fake_init(&f);
    f.conf.base_url = cm_str_of(base_url);
    begin(&f, query);
    ck_assert(f.calls[0].ws);
    same(f.calls[0].url, url);
    end(&f);
}

START_TEST(where_it_goes)
{
    expect_url("https://api.openai.com/v1", "model=gpt-realtime",
               "wss://api.openai.com/v1/realtime?model=gpt-realtime");
    expect_url("http://127.0.0.1:9/v1", "intent=a%20b&model=x%2Fy+z&q=",
               "ws://127.0.0.1:9/v1/realtime?model=x%2Fy%20z&intent=a%20b&q=");
    expect_url("https://a.b/v1", "deployment=d&api-version=2024", "wss://a.b/v1/realtime?model=d");
}
END_TEST

START_TEST(headers_are_ours)
{
    struct fake f;

    fake_init(&f);
    begin(&f, "model=m");
    ck_assert_ptr_nonnull(
        strstr(cm_arena_z(&f.arena, f.calls[0].headers), "Authorization: Bearer sk-up\n"));
    end(&f);
}
END_TEST

#define CREATED CM_S("{\"event_id\":\"e\",\"type\":\"response.created\"}")
#define DONE(usage)                                                                                \
    CM_S("{\"type\":\"response.done\",\"response\":{\"id\":\"r\",\"usage\":" usage "}}")

START_TEST(figures_of_all_answers_are_added_up)
{
    struct fake f;

    fake_init(&f);
    begin(&f, "model=m");
    fake_ws_open(&f);
    ck_assert_int_eq(f.head_status, 101);
    fake_ws_message(&f, CM_S("{\"type\":\"session.created\"}"), false);
    fake_ws_message(&f, CREATED, false);
    fake_ws_message(
        &f, CM_S("{\"type\":\"x\",\"delta\":\"response.done \\\"type\\\":\\\"response.done\\\"\"}"),
        false);
    fake_ws_message(&f, CREATED, true); /* bytes are no events */
    fake_ws_message(&f,
                    DONE("{\"total_tokens\":330,\"input_tokens\":210,\"output_tokens\":120,"
                         "\"input_token_details\":{\"text_tokens\":110,\"audio_tokens\":100,"
                         "\"cached_tokens\":64,\"cached_tokens_details\":{\"audio_tokens\":40}},"
                         "\"output_token_details\":{\"audio_tokens\":100}}"),
                    false);
    ck_assert_str_eq(relayed, "TT!T!BT");
    ck_assert_uint_eq(f.n_usages, 1);
    ck_assert_int_eq(f.usage.source, CM_USAGE_UPSTREAM);
    fake_ws_message(
        &f,
        DONE(
            "{\"input_tokens\":5,\"output_tokens\":3,\"input_token_details\":{\"cached_tokens\":99}}"),
        false);
    fake_ws_message(&f, DONE("null"), false); /* cancelled before it began */
    fake_ws_message(&f, CM_S("{\"type\":\"response.done\",\"response\":["), false);
    ck_assert_uint_eq(f.n_usages, 2);
    ck_assert_int_eq(f.usage.in_uncached, 146);
    ck_assert_int_eq(f.usage.in_cache_read, 64 + 5);
    ck_assert_int_eq(f.usage.out_text, 123);
    ck_assert_int_eq(f.usage.in_audio, 100);
    ck_assert_int_eq(f.usage.in_audio_cached, 40);
    ck_assert_int_eq(f.usage.out_audio, 100);
    end(&f);
}
END_TEST

START_TEST(an_answer_is_under_way_until_the_last_one_is_done)
{
    struct fake f;

    fake_init(&f);
    begin(&f, "model=m");
    fake_ws_open(&f);
    fake_ws_message(&f, DONE("null"), false); /* nobody has heard of its beginning */
    fake_ws_message(&f, CREATED, false);
    fake_ws_message(&f, CREATED, false); /* beside the conversation */
    fake_ws_message(&f, DONE("null"), false);
    fake_ws_message(&f, CM_S("{\"type\":\"x\"}"), false);
    fake_ws_message(&f, DONE("null"), false);
    ck_assert_str_eq(relayed, "TT!T!T!T!T");
    end(&f);
}
END_TEST

START_TEST(absurd_figures_are_bounded)
{
    struct fake f;

    fake_init(&f);
    begin(&f, "model=m");
    fake_ws_open(&f);
    fake_ws_message(
        &f, DONE("{\"input_tokens\":-5,\"output_tokens\":1e3,\"input_token_details\":3}"), false);
    fake_ws_message(&f, DONE("{\"input_tokens\":18446744073709551615}"), false);
    fake_ws_message(&f, DONE("[]"), false);
    ck_assert_int_eq(f.usage.in_uncached, 0);
    ck_assert_int_eq(f.usage.out_text, 0);
    end(&f);
}
END_TEST

static void expect_end(int code, enum cm_err_class cls)
{
    struct fake f;

    fake_init(&f);
    begin(&f, "model=m");
    fake_ws_open(&f);
    fake_ws_end(&f, code);
    ck_assert(f.ended);
    ck_assert_int_eq(f.err.cls, cls);
    ck_assert_int_eq(finish_code, code);
    end(&f);
}

START_TEST(close_codes_are_told_and_judged)
{
    expect_end(1000, CM_ERR_NONE);
    expect_end(1001, CM_ERR_NONE);
    expect_end(1005, CM_ERR_NONE);
    expect_end(4000, CM_ERR_NONE);
    expect_end(1008, CM_ERR_NONE);
    expect_end(1011, CM_ERR_CUT);
    expect_end(1013, CM_ERR_CUT);
    expect_end(1002, CM_ERR_CUT);
}
END_TEST

static void expect_refused(int status, const char *headers, enum cm_err_class cls, int after_s)
{
    struct fake f;

    fake_init(&f);
    begin(&f, "model=m");
    fake_ws_refuse(&f, status, headers);
    ck_assert_msg(f.err.cls == cls, "%d is %s: %s", status, cm_err_info(f.err.cls)->name,
                  f.err.msg);
    ck_assert_int_eq(f.err.retry_after_s, after_s);
    ck_assert_ptr_null(strstr(f.err.msg, "sk-up"));
    end(&f);
}

START_TEST(refused_handshakes_are_judged_by_their_status)
{
    struct fake f;

    expect_refused(401, "", CM_ERR_INVALID_CREDENTIAL, 0);
    expect_refused(402, "", CM_ERR_QUOTA_EXHAUSTED, 0);
    expect_refused(403, "", CM_ERR_MODEL_UNAVAILABLE, 0);
    expect_refused(404, "", CM_ERR_MODEL_UNAVAILABLE, 0);
    expect_refused(426, "", CM_ERR_MODEL_UNAVAILABLE, 0);
    expect_refused(400, "", CM_ERR_BAD_REQUEST, 0);
    expect_refused(429, "retry-after: 17\n", CM_ERR_RATE_LIMITED, 17);
    expect_refused(500, "", CM_ERR_UPSTREAM_DOWN, 0);
    expect_refused(503, "", CM_ERR_OVERLOADED, 0);
    expect_refused(200, "", CM_ERR_UPSTREAM_DOWN, 0);
    expect_refused(301, "location: /x\n", CM_ERR_UPSTREAM_DOWN, 0);

    fake_init(&f); /* a connection that was never there, and one that broke */
    begin(&f, "model=m");
    fake_ws_fail(&f, CM_ERR_TIMEOUT);
    ck_assert_int_eq(f.err.cls, CM_ERR_TIMEOUT);
    end(&f);
    fake_init(&f);
    begin(&f, "model=m");
    fake_ws_open(&f);
    fake_ws_fail(&f, CM_ERR_CUT);
    ck_assert_int_eq(f.err.cls, CM_ERR_CUT);
    ck_assert_int_eq(finish_code, 0);
    end(&f);
}
END_TEST

START_TEST(the_query_names_one_model)
{
    static const struct {
        const char *query, *model, *rest, *param;
    } cases[] = {
        {"model=a", "a", "", NULL},
        {"x=1&model=a%2Fb&y", "a/b", "x=1&y", NULL},
        {"mod%65l=a", "a", "", NULL},
        {"deployment=a&api-version=1", "a", "", NULL},
        {"", NULL, NULL, "model"},
        {"model=", NULL, NULL, "model"},
        {"model=a&model=a", NULL, NULL, "model"},
        {"model=a&deployment=b", NULL, NULL, "model"},
        {"call_id=c", NULL, NULL, "call_id"},
        {"model=a&call%5fid=c", NULL, NULL, "call_id"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_arena arena = {0};
        struct cm_chat chat = {.arena = &arena, .query = cm_str_of(cases[i].query)};
        struct cm_err err = {0};
        int rc = cm_surface_openai_realtime.parse(&chat, CM_STR_NONE, &err);

        ck_assert_msg(rc == (cases[i].param ? -1 : 0), "%s: %s", cases[i].query, err.msg);
        if (rc == 0) {
            same(chat.model, cases[i].model);
            same(chat.query, cases[i].rest);
            ck_assert_int_eq(chat.task, CM_TASK_REALTIME);
            ck_assert(chat.stream && chat.bytes && chat.untranslatable.cls != CM_ERR_NONE);
        } else {
            ck_assert_str_eq(err.param, cases[i].param);
        }
        cm_arena_clear(&arena);
    }
}
END_TEST

Suite *suite_openai_session(void)
{
    Suite *s = suite_create("openai_session");
    TCase *t = tcase_create("openai_session");

    tcase_add_test(t, where_it_goes);
    tcase_add_test(t, headers_are_ours);
    tcase_add_test(t, figures_of_all_answers_are_added_up);
    tcase_add_test(t, an_answer_is_under_way_until_the_last_one_is_done);
    tcase_add_test(t, absurd_figures_are_bounded);
    tcase_add_test(t, close_codes_are_told_and_judged);
    tcase_add_test(t, refused_handshakes_are_judged_by_their_status);
    tcase_add_test(t, the_query_names_one_model);
    suite_add_tcase(s, t);
    return s;
}
