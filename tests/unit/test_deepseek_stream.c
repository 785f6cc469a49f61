/* provider/deepseek_stream: all generations of the answer at every split, citations, how answers end, and what failures look like inside of a stream. */
#include "deepseek_replies.h"
#include "fake_run.h"
#include "fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

#define BODY "{\"model\":\"deepseek-chat\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
static struct fake_result r;

static void answer_with(const char *stream, const char *citations, size_t piece, enum fake_end end)
{
    const char *const options[] = {"prefetch", "no", "conversations", "new", "citations",
                                   citations,  NULL};
    const struct fake_reply replies[] = {{.content_type = "application/json", .body = CREATED},
                                         {.content_type = "application/json", .body = CHALLENGE},
                                         {.content_type = STREAM, .body = stream, .end = end}};

    fake_run(&(struct fake_setup){.type = "deepseek",
                                  .body = BODY,
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = CM_COUNT(replies),
                                  .piece = piece,
                                  .idle_ms = 200},
             &r);
}

static void answer(const char *stream)
{
    answer_with(stream, "annotations", 0, FAKE_END);
}

START_TEST(same_answer_for_every_split)
{
    static const struct {
        const char *file, *text;
        size_t citations;
        int64_t tokens; /* 0 = estimated */
    } cases[] = {
        {"deepseek/fragments.txt", "Blue 世界 is FINISHED [not a mark] [citation:x] 🌍.", 2, 123},
        {"deepseek/contents.txt", "Blue 世界", 0, 41},
        {"deepseek/choices.txt", "Blue 世界", 1, 0},
    };

    for (size_t c = 0; c < CM_COUNT(cases); c++) {
        char *text = fixture(cases[c].file);

        for (size_t piece = 0; piece <= 80; piece++) {
            answer_with(text, "annotations", piece, FAKE_END);
            ck_assert_msg(r.done, "%s in pieces of %zu: %s", cases[c].file, piece, r.err.msg);
            ck_assert(r.finished_last);
            ck_assert_str_eq(fake_text(&r), cases[c].text);
            ck_assert_str_eq(fake_reasoning(&r), "Two options.");
            ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_STOP);
            ck_assert_uint_eq(r.answer.choices[0].n_citations, cases[c].citations);
            if (cases[c].tokens > 0) {
                ck_assert_int_eq(r.answer.usage.source, CM_USAGE_UPSTREAM);
                ck_assert_int_eq(cm_usage_in(&r.answer.usage) + cm_usage_out(&r.answer.usage),
                                 cases[c].tokens);
            } else {
                ck_assert_int_eq(r.answer.usage.source, CM_USAGE_ESTIMATED);
            }
            ck_assert_int_gt(r.answer.usage.out_reasoning, 0);
            fake_result_clear(&r);
        }
        free(text);
    }
}
END_TEST

/* Text behind the end of an answer must not depend on where the packets end. */
START_TEST(a_stream_that_breaks_anywhere_is_cut)
{
    char *text = fixture("deepseek/fragments.txt");
    const size_t end = cm_str_find(cm_str_of(text), CM_S("\"quasi_status\""));

    for (size_t n = 0; n < end; n += 7) {
        const char kept = text[n];

        text[n] = '\0';
        answer_with(text, "annotations", 0, n % 2 ? FAKE_END : FAKE_CUT);
        ck_assert_msg(!r.done && r.err.cls == CM_ERR_CUT, "%zu: %s", n, r.err.msg);
        fake_result_clear(&r);
        text[n] = kept;
    }
    free(text);
}
END_TEST

static const struct cm_citation *citation(size_t i)
{
    return &r.answer.choices[0].citations[i];
}

START_TEST(citations_in_each_form)
{
    char *text = fixture("deepseek/fragments.txt");

    answer_with(text, "annotations", 0, FAKE_END);
    ck_str(citation(0)->url, "https://a.test/1");
    ck_str(citation(1)->url, "https://b.test/2");
    ck_str(citation(1)->title, "Second 世");
    ck_assert_int_eq(citation(1)->to, 0);
    fake_result_clear(&r);

    answer_with(text, "links", 3, FAKE_END);
    ck_assert_str_eq(fake_text(&r), "Blue 世界[[1]](https://b.test/2) is FINISHED [not a mark] "
                                    "[citation:x] 🌍.");
    ck_assert_int_eq(citation(1)->from, 7);
    ck_assert_int_eq(citation(1)->to, 7 + 5 + 18);
    fake_result_clear(&r);

    answer_with(text, "marks", 3, FAKE_END);
    ck_assert_str_eq(fake_text(&r),
                     "Blue 世界[citation:1] is FINISHED [not a mark] [citation:x] 🌍.");
    ck_assert_uint_eq(r.answer.choices[0].n_citations, 2);
    fake_result_clear(&r);
    free(text);
}
END_TEST

START_TEST(patches_of_all_kinds)
{
    static const struct {
        const char *stream, *text, *reasoning;
    } cases[] = {
        /* text without a path after a path that is no text */
        {READY FRAGMENT("RESPONSE", "a") DATA("{\"p\":\"response/tips\",\"o\":\"SET\",\"v\":[]}")
             MORE("b") FINISHED,
         "ab", ""},
        /* the sticky path is the last text that was named */
        {READY FRAGMENT("THINK", "a") FRAGMENT("RESPONSE", "b")
             DATA("{\"p\":\"response/fragments/0/content\",\"v\":\"c\"}") MORE("d")
                 DATA("{\"p\":\"response/fragments/-1/content\",\"v\":\"e\"}") MORE("f") FINISHED,
         "bef", "acd"},
        {READY MORE("a") MORE("b") FINISHED, "ab", ""},
        /* keys in another order, blanks, a slash in front */
        {DATA(
             "{ \"o\" : \"APPEND\" , \"v\" : [ { \"content\" : \"a\" , \"type\" : \"RESPONSE\" } ] "
             ", \"p\" : \"/response/fragments\" }") FINISHED,
         "a", ""},
        /* a batch in a batch; relative paths */
        {DATA(
             "{\"p\":\"response\",\"o\":\"BATCH\",\"v\":[{\"p\":\"fragments\",\"o\":\"APPEND\",\"v\":{"
             "\"type\":\"RESPONSE\",\"content\":\"a\"}},{\"p\":\"fragments\",\"o\":\"BATCH\",\"v\":[{"
             "\"p\":\"-1/content\",\"o\":\"APPEND\",\"v\":\"b\"}]}]}") FINISHED,
         "ab", ""},
        /* the status within a batch, and batches without the word */
        {FRAGMENT("RESPONSE", "a")
             DATA("{\"p\":\"response\",\"v\":[{\"p\":\"status\",\"v\":\"FINISHED\"}]}"),
         "a", ""},
        /* kinds that are no text; one that becomes text */
        {FRAGMENT("TIP", "x") FRAGMENT("TOOL_SEARCH", "x") FRAGMENT("RESPONSE", "a") FINISHED, "a",
         ""},
        {FRAGMENT("", "") DATA("{\"p\":\"response/fragments/-1/type\",\"v\":\"RESPONSE\"}")
             DATA("{\"p\":\"response/fragments/-1/content\",\"v\":\"a\"}") FINISHED,
         "a", ""},
        /* a whole text said again is not said twice */
        {FRAGMENT("RESPONSE", "ab")
             DATA("{\"p\":\"response/fragments/-1/content\",\"o\":\"SET\",\"v\":\"abc\"}") FINISHED,
         "abc", ""},
        {DATA("{\"v\":{\"response\":{\"fragments\":[{\"type\":\"THINK\",\"content\":\"a\"}]}}}")
             DATA("{\"v\":{\"response\":{\"fragments\":[{\"type\":\"THINK\",\"content\":\"ab\"},"
                  "{\"type\":\"RESPONSE\",\"content\":\"c\"}],\"status\":\"FINISHED\"}}}"),
         "c", "ab"},
        /* the platform takes the answer back and says something itself */
        {FRAGMENT("RESPONSE", "a") DATA(
             "{\"p\":\"response\",\"o\":\"BATCH\",\"v\":[{\"p\":\"fragments\",\"o\":\"SET\",\"v\":[{"
             "\"type\":\"TEMPLATE_RESPONSE\",\"content\":\"Sorry.\"}]},{\"p\":\"status\",\"v\":"
             "\"CONTENT_FILTER\"}]}"),
         "aSorry.", ""},
        /* a snapshot without its envelope */
        {DATA("{\"v\":{\"content\":\"a\",\"thinking_content\":\"b\"}}") FINISHED, "a", "b"},
        /* named delta; comments; an event that is no JSON; a hint that is no error; an unknown event */
        {": \n\n" EVENT("delta", "{\"v\":\"a\"}") DATA("<garbage>")
             EVENT("hint", "{\"type\":\"notice\",\"content\":\"busy\"}")
                 EVENT("updateFile", "{\"v\":\"x\"}") FINISHED,
         "a", ""},
        /* the event, or its shortest form, is an end, too */
        {MORE("a") EVENT("finish", "{}"), "a", ""},
        {MORE("a") DATA("[DONE]"), "a", ""},
        {MORE("a") DATA("{\"p\":\"response/quasi_status\",\"v\":\"FINISHED\"}")
             EVENT("close", "{\"click_behavior\":\"none\"}"),
         "a", ""},
        /* marks that are none, and one without a source */
        {MORE("[[cit") MORE("[citation:1[citation:2,3]") MORE("[citation:") FINISHED,
         "[[cit[citation:1[citation:", ""},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        for (size_t piece = 0; piece < 3; piece++) {
            answer_with(cases[i].stream, "annotations", piece, FAKE_END);
            ck_assert_msg(r.done, "case %zu: %s", i, r.err.msg);
            ck_assert_msg(strcmp(fake_text(&r), cases[i].text) == 0, "case %zu: %s", i,
                          fake_text(&r));
            ck_assert_str_eq(fake_reasoning(&r), cases[i].reasoning);
            fake_result_clear(&r);
        }
    }
}
END_TEST

START_TEST(results_that_are_not_cited)
{
    answer(DATA(
        "{\"p\":\"response/fragments\",\"o\":\"APPEND\",\"v\":[{\"type\":\"SEARCH\",\"results\":"
        "[{\"url\":\"https://a.test\",\"title\":\"A\"},{\"url\":\"\"},{\"url\":\"https://b.test\"}]}]}")
               FRAGMENT("RESPONSE", "a") FINISHED);
    ck_assert(r.done);
    ck_assert_uint_eq(r.answer.choices[0].n_citations, 2); /* nothing tells which of them count */
    fake_result_clear(&r);

    /* two lists; numbers count over both, and patches go to the newer one */
    answer(
        FRAGMENT("TOOL_SEARCH", "") DATA(
            "{\"p\":\"response/fragments/-1/results\",\"o\":\"SET\",\"v\":[{\"url\":\"https://a.test\"}]}")
            DATA(
                "{\"p\":\"response/fragments/-1/results\",\"o\":\"BATCH\",\"v\":[{\"p\":\"0/cite_index\",\"v\":1}]}")
                DATA(
                    "{\"p\":\"response/fragments/-1/results\",\"o\":\"SET\",\"v\":[{\"url\":\"https://b.test\"},{\"url\":\"https://c.test\"}]}")
                    DATA(
                        "{\"p\":\"response/fragments/-1/results\",\"o\":\"BATCH\",\"v\":[{\"p\":\"1/cite_index\",\"v\":2},{\"p\":\"9/cite_index\",\"v\":3}]}")
                        FRAGMENT("RESPONSE", "a[citation:2]") FINISHED);
    ck_assert(r.done);
    ck_assert_uint_eq(r.answer.choices[0].n_citations, 2);
    ck_str(citation(0)->url, "https://a.test");
    ck_str(citation(1)->url, "https://c.test");
    fake_result_clear(&r);
}
END_TEST

#define HINT(reason, text)                                                                         \
    EVENT("hint", "{\"type\":\"error\",\"content\":\"" text                                        \
                  "\",\"clear_response\":true,\"finish_reason\":\"" reason "\"}")

START_TEST(ends_that_are_failures)
{
    static const struct {
        const char *stream, *text; /* what was said before */
        enum cm_err_class cls;
        int retry_after_s;
    } cases[] = {
        {READY HINT("rate_limit_reached", "消息发送过于频繁，请稍后重试"), "", CM_ERR_RATE_LIMITED,
         0},
        {READY HINT("", "消息发送过于频繁"), "", CM_ERR_RATE_LIMITED, 0},
        {READY MORE("a") HINT("rate_limit_reached", ""), "a", CM_ERR_RATE_LIMITED, 0},
        {READY HINT("", "A message is being generated, please try again later."), "",
         CM_ERR_RATE_LIMITED, 5},
        {READY HINT("generation_timeout", "Server busy, please try again later."), "",
         CM_ERR_OVERLOADED, 0},
        {READY HINT("", "Your daily quota is used up"), "", CM_ERR_QUOTA_EXHAUSTED, 0},
        {READY HINT("anything", "anything"), "", CM_ERR_UPSTREAM_DOWN, 0},
        {READY EVENT("toast", "{\"type\":\"error\",\"content\":\"server busy\"}"), "",
         CM_ERR_OVERLOADED, 0},
        {READY EVENT("error", "{\"content\":\"消息发送过于频繁，请稍后重试\"}"), "",
         CM_ERR_RATE_LIMITED, 0},
        {READY STATUS("CONTENT_FILTER") EVENT("finish", "{}"), "", CM_ERR_CONTENT_FILTER, 0},
        {READY STATUS("CONTENT_FILTER"), "", CM_ERR_CONTENT_FILTER, 0},
        {READY DATA("{\"code\":\"content_filter\"}"), "", CM_ERR_CONTENT_FILTER, 0},
        {READY STATUS("CONTEXT_LENGTH_EXCEEDED"), "", CM_ERR_CONTEXT_LENGTH, 0},
        {READY STATUS("CONTENT_TOO_LONG"), "", CM_ERR_CONTEXT_LENGTH, 0},
        {READY MORE("a") STATUS("CANCELLED"), "a", CM_ERR_CUT, 0},
        {READY MORE("a") STATUS("SOMETHING_NEW"), "a", CM_ERR_CUT, 0},
        {READY MORE("a") EVENT("close", "{\"click_behavior\":\"retry\"}"), "a", CM_ERR_CUT, 0},
        {READY MORE("a"), "a", CM_ERR_CUT, 0},
        {READY EVENT("close", "{}"), "", CM_ERR_CUT, 0},
        {"", "", CM_ERR_CUT, 0},
        {READY FINISHED, "", CM_ERR_UPSTREAM_DOWN, 0}, /* empty answers are refusals in disguise */
        {READY FRAGMENT("TIP", "x") FINISHED, "", CM_ERR_UPSTREAM_DOWN, 0},
        {DATA("{\"code\":40003,\"msg\":\"Authorization Failed (invalid token)\",\"data\":null}"),
         "", CM_ERR_EXPIRED, 0},
        {DATA("{\"code\":40029,\"msg\":\"\"}"), "", CM_ERR_RATE_LIMITED, 0},
        {DATA("{\"code\":0,\"data\":{\"biz_code\":9,\"biz_msg\":\"invalid ref file id\"}}"), "",
         CM_ERR_BAD_REQUEST, 0},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        for (size_t piece = 0; piece < 3; piece++) {
            answer_with(cases[i].stream, "annotations", piece, FAKE_END);
            ck_assert_msg(!r.done && r.err.cls == cases[i].cls, "case %zu: %s, %s", i,
                          cm_err_info(r.err.cls)->name, r.err.msg);
            ck_assert_int_eq(r.err.retry_after_s, cases[i].retry_after_s);
            ck_assert_str_eq(fake_text(&r), cases[i].text);
            fake_result_clear(&r);
        }
    }
    answer_with(READY MORE("a"), "annotations", 0, FAKE_HANG);
    ck_assert_int_eq(r.err.cls, CM_ERR_TIMEOUT);
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_filtered_answer_keeps_its_text)
{
    for (int end = FAKE_END; end <= FAKE_CUT; end++) {
        answer_with(READY MORE("a") STATUS("CONTENT_FILTER") MORE("b"), "annotations", 0,
                    (enum fake_end)end);
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_str_eq(fake_text(&r), "ab");
        ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_CONTENT_FILTER);
        fake_result_clear(&r);
    }
}
END_TEST

Suite *suite_deepseek_stream(void)
{
    Suite *s = suite_create("deepseek_stream");
    TCase *t = tcase_create("deepseek_stream");

    tcase_add_test(t, same_answer_for_every_split);
    tcase_add_test(t, a_stream_that_breaks_anywhere_is_cut);
    tcase_add_test(t, citations_in_each_form);
    tcase_add_test(t, patches_of_all_kinds);
    tcase_add_test(t, results_that_are_not_cited);
    tcase_add_test(t, ends_that_are_failures);
    tcase_add_test(t, a_filtered_answer_keeps_its_text);
    suite_add_tcase(s, t);
    return s;
}
