/* provider/demo: what each of its models says, in what pieces, and how fast. */
#include "fake_run.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "unit.h"

static struct fake_result r;

static void ask(const char *body, const char *const *options)
{
    fake_run(&(struct fake_setup){.type = "demo", .body = body, .options = options}, &r);
}

#define BODY(model, text)                                                                          \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"

START_TEST(echoes_word_by_word)
{
    ask(BODY("demo", "Hello 世界, how are you?"), NULL);
    ck_assert(r.done && r.finished_last);
    ck_assert_str_eq(fake_text(&r), "Hello 世界, how are you?");
    ck_assert_uint_eq(r.n_events, 5 + 2); /* words, usage, finish */
    ck_assert_int_eq(r.answer.usage.source, CM_USAGE_ESTIMATED);
    ck_assert_int_gt(r.answer.usage.in_uncached, 0);
    ck_assert_int_gt(r.answer.usage.out_text, 0);
    ck_assert_uint_eq(r.n_requests, 0);
    fake_result_clear(&r);

    ask(BODY("demo", ""), NULL);
    ck_assert_str_eq(fake_text(&r), "Hello from chatmux.");
    fake_result_clear(&r);

    ask("{\"model\":\"demo\",\"n\":3,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", NULL);
    ck_assert_uint_eq(r.answer.n_choices, 3);
    ck_str(cm_buf_str(&r.answer.choices[2].text), "x");
    ck_assert_int_eq(r.answer.choices[2].finish, CM_FINISH_STOP);
    fake_result_clear(&r);
}
END_TEST

START_TEST(pieces_never_cut_a_character)
{
    static const char *const options[] = {"chunks", "5", NULL};

    ask(BODY("demo", "世界世界世界🌍🌍"), options);
    ck_assert(r.done);
    ck_assert_str_eq(fake_text(&r), "世界世界世界🌍🌍");
    ck_assert_uint_le(r.n_events, 5 + 2);
    ck_assert_uint_ge(r.n_events, 4 + 2);
    fake_result_clear(&r);
}
END_TEST

START_TEST(pauses_between_pieces)
{
    static const char *const options[] = {"delay", "60ms", "chunk_ms", "30", NULL};

    ask(BODY("demo", "a b c"), options);
    ck_assert(r.done);
    ck_assert_str_eq(fake_text(&r), "a b c");
    ck_assert_uint_ge(r.took_ms, 60 + 2 * 30);
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_slow_client_holds_it_back)
{
    static const char *const options[] = {"chunk_ms", "1", NULL};

    fake_run(
        &(struct fake_setup){
            .type = "demo", .body = BODY("demo", "a b c d"), .options = options, .pause_after = 2},
        &r);
    ck_assert(r.done);
    ck_assert_str_eq(fake_text(&r), "a b c d");
    ck_assert_uint_ge(r.took_ms, 20);
    fake_result_clear(&r);
}
END_TEST

START_TEST(stops_when_the_client_leaves)
{
    fake_run(
        &(struct fake_setup){.type = "demo", .body = BODY("demo", "a b c d"), .leave_after = 2},
        &r);
    ck_assert(r.released && !r.done);
    ck_assert_str_eq(fake_text(&r), "a b ");
    fake_result_clear(&r);
}
END_TEST

START_TEST(reasons_first)
{
    ask(BODY("demo-reasoning", "Hi"), NULL);
    ck_assert_str_eq(fake_text(&r), "Hi");
    ck_assert_str_eq(fake_reasoning(&r), "The user wrote 2 characters. I will say them back.");
    ck_assert_int_gt(r.answer.usage.out_reasoning, 0);
    fake_result_clear(&r);

    ask(BODY("demo-thinking", "Hi"), NULL);
    ck_assert_str_ne(fake_reasoning(&r), "");
    fake_result_clear(&r);
}
END_TEST

#define TOOLS                                                                                                                                 \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":"    \
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":\"integer\"},\"c\":{\"enum\":[\"x\",\"y\"]},\"d\":{}}," \
    "\"required\":[\"a\",\"b\",\"c\"]}}}]"

START_TEST(calls_a_tool_and_tells_its_result)
{
    ask("{\"model\":\"demo-tool\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]," TOOLS "}",
        NULL);
    ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_TOOL_CALLS);
    ck_assert_uint_eq(r.answer.choices[0].n_calls, 1);
    ck_str(r.answer.choices[0].calls[0].name, "f");
    ck_str(cm_buf_str(&r.answer.choices[0].calls[0].args), "{}");
    ck_assert(cm_str_starts(r.answer.choices[0].calls[0].id, CM_S("call_")));
    fake_result_clear(&r);

    ask("{\"model\":\"demo-tool\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]," TOOLS
        ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
        NULL);
    ck_str(r.answer.choices[0].calls[0].name, "g");
    ck_str(cm_buf_str(&r.answer.choices[0].calls[0].args), "{\"a\":\"demo\",\"b\":1,\"c\":\"x\"}");
    fake_result_clear(&r);

    ask("{\"model\":\"demo-tool\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\","
        "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":"
        "\"42 degrees\"}]," TOOLS "}",
        NULL);
    ck_assert_str_eq(fake_text(&r), "42 degrees");
    ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_STOP);
    fake_result_clear(&r);

    ask(BODY("demo-tool", "x"), NULL);
    ck_assert_ptr_nonnull(strstr(fake_text(&r), "no tools"));
    fake_result_clear(&r);
}
END_TEST

START_TEST(shows_an_image)
{
    ask(BODY("demo-image", "x"), NULL);
    ck_assert(strncmp(fake_text(&r), "![a blue pixel](data:image/png;base64,iVBOR", 43) == 0);
    fake_result_clear(&r);
}
END_TEST

START_TEST(fails_as_it_is_told)
{
    static const struct {
        const char *body;
        enum cm_err_class cls;
        int retry_after_s;
    } cases[] = {
        {BODY("demo-error", "please: rate_limited."), CM_ERR_RATE_LIMITED, 7},
        {BODY("demo-error", "quota_exhausted"), CM_ERR_QUOTA_EXHAUSTED, 0},
        {BODY("demo-error", "execute cut now"), CM_ERR_CUT, 0},
        {BODY("demo-error", "whatever"), CM_ERR_UPSTREAM_DOWN, 0},
        {BODY("demo-error", ""), CM_ERR_UPSTREAM_DOWN, 0},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        ask(cases[i].body, NULL);
        ck_assert(!r.done);
        ck_assert_int_eq(r.err.cls, cases[i].cls);
        ck_assert_int_eq(r.err.retry_after_s, cases[i].retry_after_s);
        ck_assert_uint_eq(r.n_events, 0);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(refuses_what_it_cannot_understand)
{
    ask("{\"model\":\"demo\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}]}",
        NULL);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(r.err.param, "messages[0].content[0].type");
    ck_assert_str_eq(cm_err_code(&r.err), "invalid_value");
    fake_result_clear(&r);
}
END_TEST

START_TEST(makes_pictures)
{
    fake_run(&(struct fake_setup){.type = "demo",
                                  .surface = &cm_surface_openai_images,
                                  .body = "{\"model\":\"demo-image\",\"prompt\":\"x\",\"n\":2}"},
             &r);
    ck_assert(r.done && r.finished_last);
    ck_assert_uint_eq(r.answer.n_images, 2);
    ck_str(r.answer.images[1].media_type, "image/png");
    ck_assert(cm_str_starts(r.answer.images[1].data, CM_S("iVBO")));
    ck_assert_str_eq(fake_text(&r), "");
    fake_result_clear(&r);

    fake_run(&(struct fake_setup){.type = "demo",
                                  .surface = &cm_surface_openai_images,
                                  .body = "{\"model\":\"demo-error\",\"prompt\":\"overloaded\"}"},
             &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_OVERLOADED);
    fake_result_clear(&r);
}
END_TEST

Suite *suite_demo(void)
{
    Suite *s = suite_create("demo");
    TCase *t = tcase_create("demo");

    tcase_add_test(t, echoes_word_by_word);
    tcase_add_test(t, pieces_never_cut_a_character);
    tcase_add_test(t, pauses_between_pieces);
    tcase_add_test(t, a_slow_client_holds_it_back);
    tcase_add_test(t, stops_when_the_client_leaves);
    tcase_add_test(t, reasons_first);
    tcase_add_test(t, calls_a_tool_and_tells_its_result);
    tcase_add_test(t, shows_an_image);
    tcase_add_test(t, fails_as_it_is_told);
    tcase_add_test(t, refuses_what_it_cannot_understand);
    tcase_add_test(t, makes_pictures);
    suite_add_tcase(s, t);
    return s;
}
