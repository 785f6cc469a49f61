/* provider/hix: what each refusal means, what is left of an account's credit, its cookie and its session. */
#include "fake_host.h"
#include "fake_run.h"
#include "fixture.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/list.h"
#include "unit.h"

#include "provider/hix_int.h"
#include <stdlib.h>

#define BODY(model) "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
#define CREATED "[{\"result\":{\"data\":{\"json\":{\"id\":\"chat-1\"}}}}]"
#define STREAM "text/event-stream; charset=utf-8"
#define TRPC(code, data)                                                                           \
    "[{\"error\":{\"json\":{\"message\":\"m\",\"code\":" code ",\"data\":{" data "}}}}]"
#define HTML "<html><title>Just a moment...</title><script>window._cf_chl_opt={}</script></html>"
#define NO_CREDIT TRPC("-32003", "\"appName\":\"HIXChat\",\"usageType\":\"x\"")
#define LAST(json)                                                                                 \
    "[{\"result\":{\"data\":{\"json\":[]}}},{\"result\":{\"data\":{\"json\":null}}},{\"result\":{" \
    "\"data\":{\"json\":" json "}}}]"
#define HERE "{\"user\":{\"name\":\"n\"},\"expires\":\"2099-01-02T03:04:05.000Z\"}"
#define DAY_S 86400

static struct fake_result r;

static struct fake_setup chat(const struct fake_reply *replies, size_t n)
{
    return (struct fake_setup){
        .type = "hix", .body = BODY("gpt-4o"), .replies = replies, .n_replies = n, .idle_ms = 100};
}

/* ---- refusals ---- */

START_TEST(refusals_of_the_first_call)
{
    static const struct {
        struct fake_reply reply;
        enum cm_err_class cls;
        int retry_after_s;
        unsigned calls; /* 2: something else is asked before it is believed */
    } cases[] = {
        {{.status = 401, .body = TRPC("-32001", "\"httpStatus\":401")}, CM_ERR_EXPIRED, 0, 1},
        {{.status = 401}, CM_ERR_EXPIRED, 0, 1},
        {{.status = 200, .body = "{\"status\":-5,\"message\":\"not login\",\"data\":{}}"},
         CM_ERR_EXPIRED,
         0,
         1},
        {{.status = 403, .body = NO_CREDIT}, CM_ERR_QUOTA_EXHAUSTED, DAY_S, 2},
        {{.status = 403, .body = TRPC("-32003", "")}, CM_ERR_VERIFICATION_REQUIRED, 0, 2},
        {{.status = 403, .body = "Forbidden"}, CM_ERR_VERIFICATION_REQUIRED, 0, 2},
        {{.status = 402, .body = TRPC("-32002", "")}, CM_ERR_QUOTA_EXHAUSTED, DAY_S, 2},
        {{.status = 402}, CM_ERR_QUOTA_EXHAUSTED, DAY_S, 2},
        {{.status = 429, .body = TRPC("-32029", "")}, CM_ERR_RATE_LIMITED, 60, 1},
        {{.status = 429, .header = "Retry-After", .header_value = "5"}, CM_ERR_RATE_LIMITED, 5, 1},
        {{.status = 404, .body = TRPC("-32004", "")}, CM_ERR_MODEL_UNAVAILABLE, 0, 1},
        {{.status = 207, .body = TRPC("-32004", "")}, CM_ERR_MODEL_UNAVAILABLE, 0, 1},
        {{.status = 404, .body = "no such page"}, CM_ERR_UPSTREAM_DOWN, 0, 1},
        {{.status = 503, .content_type = "text/html", .body = HTML},
         CM_ERR_VERIFICATION_REQUIRED,
         60,
         1},
        {{.status = 400, .body = TRPC("-32600", "")}, CM_ERR_BAD_REQUEST, 0, 1},
        {{.status = 400, .body = TRPC("-32700", "")}, CM_ERR_BAD_REQUEST, 0, 1},
        {{.status = 413, .body = TRPC("-32013", "")}, CM_ERR_BAD_REQUEST, 0, 1},
        {{.status = 408, .body = TRPC("-32008", "")}, CM_ERR_TIMEOUT, 0, 1},
        {{.status = 500, .body = TRPC("-32603", "")}, CM_ERR_UPSTREAM_DOWN, 0, 1},
        {{.status = 403, .content_type = "text/html", .body = HTML},
         CM_ERR_VERIFICATION_REQUIRED,
         60,
         1},
        {{.status = 200, .body = "[{\"result\":{}}]"}, CM_ERR_UPSTREAM_DOWN, 0, 1},
        {{.status = 502, .body = "bad gateway"}, CM_ERR_UPSTREAM_DOWN, 0, 1},
        {{.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN, 0, 1},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        /* what is asked besides does not get through: then it is as it looks */
        const struct fake_reply replies[] = {cases[i].reply, {.end = FAKE_DOWN}};
        const struct fake_setup setup = chat(replies, 2);

        fake_run(&setup, &r);
        ck_assert(!r.done);
        ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s, %s", i,
                      cm_err_info(r.err.cls)->name, r.err.msg);
        ck_assert_int_eq(r.err.retry_after_s, cases[i].retry_after_s);
        ck_assert_uint_eq(r.n_requests, cases[i].calls);
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
        int retry_after_s;
    } cases[] = {
        {{.content_type = STREAM, .body = "data: {\"content\":\"half \"}\n\n"},
         CM_ERR_CUT,
         "half ",
         0},
        {{.content_type = STREAM, .body = "data: {\"content\":\"half \"}\n\n", .end = FAKE_CUT},
         CM_ERR_CUT,
         "half ",
         0},
        {{.content_type = STREAM, .body = ""}, CM_ERR_CUT, "", 0},
        {{.content_type = STREAM, .body = "data: [DONE]\n\n"}, CM_ERR_UPSTREAM_DOWN, "", 0},
        {{.content_type = STREAM, .body = "data: {\"content\":\"\"}\n\ndata: [DONE]\n\n"},
         CM_ERR_UPSTREAM_DOWN,
         "",
         0},
        {{.content_type = "text/html", .body = HTML}, CM_ERR_VERIFICATION_REQUIRED, "", 60},
        {{.content_type = STREAM,
          .body = "event: StepOutput\ndata: {\"action\":\"credit_exhausted\"}\n\n",
          .end = FAKE_HANG},
         CM_ERR_QUOTA_EXHAUSTED,
         "",
         DAY_S},
        {{.content_type = STREAM,
          .body = "event: StepOutput\ndata: {\"action\":\"error\",\"message\":\"m\"}\n\n"},
         CM_ERR_UPSTREAM_DOWN,
         "",
         0},
        {{.content_type = STREAM,
          .body = "event: StepOutput\ndata: {\"action\":\"credit_warning\"}\n\ndata: "
                  "{\"content\":\"a\"}\n\n"},
         CM_ERR_CUT,
         "a",
         0},
        {{.content_type = STREAM,
          .body = "data: {\"content\":\"a\"}\n\ndata: {\"code\":\"CONTENT_FILTERED\"}\n\n"},
         CM_ERR_CONTENT_FILTER,
         "a",
         0},
        {{.content_type = STREAM, .body = "data: {\"error\":{\"code\":\"SUB_AGENT_FAILURE\"}}\n\n"},
         CM_ERR_UPSTREAM_DOWN,
         "",
         0},
        {{.content_type = STREAM, .body = "data: {\"code\":\"RATE_LIMIT_EXCEEDED\"}\n\n"},
         CM_ERR_RATE_LIMITED,
         "",
         60},
        {{.content_type = STREAM, .body = "data: <garbage>\n\ndata: {\"content\":\"a\"}\n\n"},
         CM_ERR_CUT,
         "a",
         0},
        {{.content_type = "application/json", .body = "{\"status\":-5}"}, CM_ERR_EXPIRED, "", 0},
        {{.content_type = "application/json",
          .body = "{\"error\":{\"code\":\"CREDITS_EXHAUSTED\"}}"},
         CM_ERR_QUOTA_EXHAUSTED,
         "",
         DAY_S},
        {{.status = 429, .body = "{\"code\":\"RATE_LIMIT_EXCEEDED\"}"},
         CM_ERR_RATE_LIMITED,
         "",
         60},
        {{.status = 503, .body = "{\"code\":\"NETWORK_ERROR\"}"}, CM_ERR_UPSTREAM_DOWN, "", 0},
        {{.status = 400, .body = "{\"code\":\"MISSING_PARAMETER\"}"}, CM_ERR_BAD_REQUEST, "", 0},
        {{.status = 403, .body = "{\"message\":\"no\"}"}, CM_ERR_UPSTREAM_DOWN, "", 0},
        {{.status = 403, .content_type = "text/html", .body = HTML},
         CM_ERR_VERIFICATION_REQUIRED,
         "",
         60},
        {{.status = 403, .content_type = "text/html", .body = "Forbidden"},
         CM_ERR_VERIFICATION_REQUIRED,
         "",
         0},
        {{.status = 503, .body = "busy"}, CM_ERR_OVERLOADED, "", 0},
        {{.content_type = STREAM, .end = FAKE_HANG}, CM_ERR_TIMEOUT, "", 0},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_reply replies[] = {{.body = CREATED}, cases[i].reply, {.end = FAKE_DOWN}};

        for (size_t piece = 0; piece < 3; piece++) {
            struct fake_setup setup = chat(replies, 3);

            setup.piece = piece;
            fake_run(&setup, &r);
            ck_assert(!r.done && r.answer.n_choices == (cases[i].text[0] ? 1 : 0));
            ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s, %s", i,
                          cm_err_info(r.err.cls)->name, r.err.msg);
            ck_assert_str_eq(fake_text(&r), cases[i].text);
            ck_assert_msg(r.err.retry_after_s == cases[i].retry_after_s, "case %zu", i);
            ck_assert(r.err.of_address ==
                      (r.err.cls == CM_ERR_VERIFICATION_REQUIRED && r.err.retry_after_s == 60));
            fake_result_clear(&r);
        }
    }
}
END_TEST

/* A refusal without a reason: is it the account, or the way to the platform? */
START_TEST(a_refusal_asks_who_we_are)
{
    static const struct {
        struct fake_reply session;
        enum cm_err_class cls;
    } cases[] = {
        {{.body = HERE}, CM_ERR_VERIFICATION_REQUIRED},
        {{.body = "{}"}, CM_ERR_INVALID_CREDENTIAL},
        {{.body = "null"}, CM_ERR_INVALID_CREDENTIAL},
        {{.body = "<html>"}, CM_ERR_VERIFICATION_REQUIRED},
        {{.status = 500, .body = "{}"}, CM_ERR_VERIFICATION_REQUIRED},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_reply replies[] = {{.status = 403, .body = "Forbidden"},
                                             cases[i].session};
        const struct fake_setup setup = chat(replies, 2);

        fake_run(&setup, &r);
        ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s", i, r.err.msg);
        ck_str(r.requests[1].method, "GET");
        ck_str(r.requests[1].url, "https://hix.ai/api/auth/session");
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- credit ---- */

#define SUB(ends)                                                                                  \
    "{\"usageList\":[{\"total_count\":100,\"use_count\":75,\"date_end\":" ends                     \
    "},{\"total_count\":60,\"use_count\":61}],\"isActiveSub\":true}"

START_TEST(figures_of_credit)
{
    static const struct {
        const char *last, *quota; /* NULL = none is told */
    } cases[] = {
        {"{\"usageList\":[{\"total_count\":100,\"use_count\":75},{\"total_count\":60,\"use_"
         "count\":1}],\"isActiveSub\":false}",
         "{\"credit\":25,\"advanced_credit\":0,\"subscribed\":false}"},
        {"{\"usageList\":[{\"totalCount\":100,\"useCount\":\"75\"},{\"totalCount\":60,\"useCount\":"
         "1}],\"isActiveSub\":true}",
         "{\"credit\":25,\"advanced_credit\":59,\"subscribed\":true}"},
        {SUB("\"2099-01-01T00:00:00.000Z\""),
         "{\"credit\":25,\"advanced_credit\":0,\"subscribed\":true,\"renews_ms\":4070908800000}"},
        {SUB("4070908800"),
         "{\"credit\":25,\"advanced_credit\":0,\"subscribed\":true,\"renews_ms\":4070908800000}"},
        {SUB("4070908800000"),
         "{\"credit\":25,\"advanced_credit\":0,\"subscribed\":true,\"renews_ms\":4070908800000}"},
        {SUB("\"2020-01-01T00:00:00.000Z\""),
         "{\"credit\":25,\"advanced_credit\":0,\"subscribed\":true}"},
        {SUB("\"soon\""), "{\"credit\":25,\"advanced_credit\":0,\"subscribed\":true}"},
        {"{\"usageList\":[{\"total_count\":5}]}",
         "{\"credit\":5,\"advanced_credit\":0,\"subscribed\":false}"},
        {"{\"usageList\":[],\"isActiveSub\":true}", NULL},
        {"null", NULL},
    };
    struct cm_arena arena = {0};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct cm_str body = cm_arena_printf(&arena, LAST("%s"), cases[i].last);
        const struct fake_reply replies[] = {{.body = HERE}, {.body = body.p}};

        for (size_t piece = 0; piece < 4; piece++) {
            fake_run(&(struct fake_setup){.type = "hix",
                                          .errand = "probe",
                                          .body = BODY("gpt-4o"),
                                          .replies = replies,
                                          .n_replies = 2,
                                          .piece = piece},
                     &r);
            ck_assert_msg(r.done == (cases[i].quota != NULL), "case %zu: %s", i, r.err.msg);
            if (cases[i].quota)
                ck_assert(cm_str_eq(r.quota, cm_str_of(cases[i].quota)));
            else
                ck_assert_int_eq(r.err.cls, CM_ERR_UPSTREAM_DOWN);
            fake_result_clear(&r);
        }
    }
    cm_arena_clear(&arena);
}
END_TEST

/* What is left decides what a refusal was about. */
START_TEST(credit_is_read_before_an_account_is_parked)
{
    static const struct {
        const char *refusal, *model, *last;
        enum cm_err_class cls;
        const char *quota;
    } cases[] = {
        {NO_CREDIT, BODY("gpt-4o"), "{\"usageList\":[{\"total_count\":100,\"use_count\":75}]}",
         CM_ERR_QUOTA_EXHAUSTED, "{\"credit\":25,\"advanced_credit\":0,\"subscribed\":false}"},
        {NO_CREDIT, BODY("gpt-4o"), "{\"usageList\":[{\"total_count\":100,\"use_count\":70}]}",
         CM_ERR_MODEL_UNAVAILABLE, "{\"credit\":30,\"advanced_credit\":0,\"subscribed\":false}"},
        {NO_CREDIT, BODY("gpt-4-turbo"), "{\"usageList\":[{\"total_count\":100,\"use_count\":70}]}",
         CM_ERR_QUOTA_EXHAUSTED, "{\"credit\":30,\"advanced_credit\":0,\"subscribed\":false}"},
        /* said in so many words: the figure is old */
        {TRPC("-32002", ""), BODY("gpt-4o"),
         "{\"usageList\":[{\"total_count\":100,\"use_count\":0}]}", CM_ERR_QUOTA_EXHAUSTED,
         "{\"credit\":100,\"advanced_credit\":0,\"subscribed\":false}"},
    };
    struct cm_arena arena = {0};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct cm_str body = cm_arena_printf(&arena, LAST("%s"), cases[i].last);
        const struct fake_reply replies[] = {{.status = 403, .body = cases[i].refusal},
                                             {.body = body.p}};
        struct fake_setup setup = chat(replies, 2);

        setup.body = cases[i].model;
        fake_run(&setup, &r);
        ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s", i, r.err.msg);
        ck_assert(cm_str_eq(r.quota, cm_str_of(cases[i].quota)));
        if (cases[i].cls == CM_ERR_QUOTA_EXHAUSTED)
            ck_assert_int_eq(r.err.retry_after_s, DAY_S);
        fake_result_clear(&r);
    }
    cm_arena_clear(&arena);
}
END_TEST

START_TEST(an_exhausted_account_rests_until_its_renewal)
{
    struct cm_arena arena = {0};
    const int64_t in_an_hour = cm_unix_ms() + 3600 * 1000;
    const struct cm_str body = cm_arena_printf(
        &arena,
        LAST("{\"usageList\":[{\"total_count\":1,\"use_count\":1,\"date_end\":%lld},"
             "{}],\"isActiveSub\":true}"),
        (long long)in_an_hour);
    const struct fake_reply replies[] = {{.status = 402}, {.body = body.p}};
    const struct fake_setup setup = chat(replies, 2);

    fake_run(&setup, &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_QUOTA_EXHAUSTED);
    ck_assert_int_ge(r.err.retry_after_s, 3590);
    ck_assert_int_le(r.err.retry_after_s, 3601);
    fake_result_clear(&r);
    cm_arena_clear(&arena);
}
END_TEST

/* ---- the session ---- */

START_TEST(a_probe_tells_what_it_finds)
{
    static const struct {
        struct fake_reply session, usage;
        enum cm_err_class cls;
        unsigned calls;
    } cases[] = {
        {{.body = "{}"}, {0}, CM_ERR_EXPIRED, 1},
        {{.body = "null"}, {0}, CM_ERR_EXPIRED, 1},
        {{.status = 401}, {0}, CM_ERR_EXPIRED, 1},
        {{.status = 429}, {0}, CM_ERR_RATE_LIMITED, 1},
        {{.status = 403, .body = HTML}, {0}, CM_ERR_VERIFICATION_REQUIRED, 1},
        {{.body = "[]"}, {0}, CM_ERR_UPSTREAM_DOWN, 1},
        {{.end = FAKE_DOWN}, {0}, CM_ERR_UPSTREAM_DOWN, 1},
        {{.body = HERE}, {.status = 401, .body = TRPC("-32001", "")}, CM_ERR_EXPIRED, 2},
        {{.body = HERE}, {.status = 207, .body = TRPC("-32001", "")}, CM_ERR_EXPIRED, 2},
        {{.body = HERE}, {.body = "[]"}, CM_ERR_UPSTREAM_DOWN, 2},
        {{.body = HERE}, {.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN, 2},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_reply replies[] = {cases[i].session, cases[i].usage};

        fake_run(&(struct fake_setup){.type = "hix",
                                      .errand = "probe",
                                      .body = BODY("gpt-4o"),
                                      .replies = replies,
                                      .n_replies = 2},
                 &r);
        ck_assert_msg(!r.done && r.err.cls == cases[i].cls, "case %zu: %s", i, r.err.msg);
        ck_assert_uint_eq(r.n_requests, cases[i].calls);
        fake_result_clear(&r);
    }
}
END_TEST

#define NAME HIX_SESSION_COOKIE

/* The session in the answer stands in the place of the old one; what else the operator pasted stays. */
START_TEST(a_renewed_cookie_is_taken)
{
    static const struct {
        const char *secret, *token, *headers, *made;
    } cases[] = {
        {NAME "=old", "", "", ""},
        {NAME "=old", NAME "=newer", "", NAME "=newer"},
        {NAME "=old", "", "Set-Cookie: " NAME "=fresh; Path=/; HttpOnly\n", NAME "=fresh"},
        {"a=1; " NAME "=old; b=2", "", "Set-Cookie: " NAME "=fresh; Path=/\nSet-Cookie: c=3\n",
         "a=1; b=2; " NAME "=fresh"},
        {NAME ".0=old; " NAME ".1=er; a=1", "",
         "set-cookie: " NAME ".0=fre\nset-cookie: " NAME ".1=sh; Secure\n",
         "a=1; " NAME ".0=fre; " NAME ".1=sh"},
        {NAME "=old", NAME ".0=o; " NAME ".1=p", "Set-Cookie: " NAME "=fresh\n", NAME "=fresh"},
        {NAME "=old", "", "Set-Cookie: " NAME "=; Max-Age=0\n", ""},
        {NAME "=old", "", "Set-Cookie: " NAME "x=fresh\n", ""},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer answer = {
            .status = 200, .headers = cases[i].headers, .body = CM_S(HERE)};
        struct fake f;

        fake_init(&f);
        fake_use(&f, "hix");
        f.flow = &f.instance.adapter->refresh;
        f.cred.secret = cm_str_of(cases[i].secret);
        f.cred.token = cm_str_of(cases[i].token);
        f.answers = &answer;
        f.n_answers = 1;
        fake_play(&f);
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        ck_assert_msg(cm_str_eq(cm_buf_str(&f.token), cm_str_of(cases[i].made)), "case %zu: %.*s",
                      i, (int)f.token.n, f.token.n ? f.token.p : "");
        ck_assert(cm_str_has(f.calls[0].headers,
                             cm_str_of(cases[i].token[0] ? cases[i].token : cases[i].secret)));
        fake_clear(&f);
    }
}
END_TEST

START_TEST(a_refresh_tells_how_long_it_lasts)
{
    fake_run(&(struct fake_setup){.type = "hix",
                                  .refresh = true,
                                  .body = BODY("gpt-4o"),
                                  .replies = &(struct fake_reply){.body = HERE},
                                  .n_replies = 1},
             &r);
    ck_assert(r.done);
    ck_assert_int_eq(r.token_expires_ms, INT64_C(4071006245000));
    fake_result_clear(&r);
    fake_run(&(struct fake_setup){.type = "hix",
                                  .refresh = true,
                                  .body = BODY("gpt-4o"),
                                  .replies = &(struct fake_reply){.body = "{}"},
                                  .n_replies = 1},
             &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_EXPIRED);
    fake_result_clear(&r);
}
END_TEST

/* ---- the cookie ---- */

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
    char *text = fixture("hix/vectors.json");
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

Suite *suite_hix_account(void)
{
    Suite *s = suite_create("hix_account");
    TCase *t = tcase_create("hix_account");

    tcase_set_timeout(t, 20);
    tcase_add_test(t, refusals_of_the_first_call);
    tcase_add_test(t, refusals_of_the_second_call);
    tcase_add_test(t, a_refusal_asks_who_we_are);
    tcase_add_test(t, figures_of_credit);
    tcase_add_test(t, credit_is_read_before_an_account_is_parked);
    tcase_add_test(t, an_exhausted_account_rests_until_its_renewal);
    tcase_add_test(t, a_probe_tells_what_it_finds);
    tcase_add_test(t, a_renewed_cookie_is_taken);
    tcase_add_test(t, a_refresh_tells_how_long_it_lasts);
    tcase_add_test(t, cookies_are_normalised);
    suite_add_tcase(s, t);
    return s;
}
