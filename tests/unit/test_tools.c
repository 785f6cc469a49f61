/* Tools by prompt, and what else an answer is made into on its way out: read at every cut, shown to the model again, reasoning folded or left out;
 * handles of conversations. */
#include "deepseek_replies.h"
#include "fake_run.h"
#include "unit.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "provider/tools_int.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- the reader ---- */

struct seen {
    struct cm_buf all; /* text as it is; calls as "(name arguments)" */
};

static void on_found(void *arg, const struct tools_found *found)
{
    struct seen *s = arg;

    if (found->name.n > 0)
        cm_buf_printf(&s->all, "(" CM_PRI " " CM_PRI ")", CM_ARG(found->name),
                      CM_ARG(found->arguments));
    else
        cm_buf_append(&s->all, found->text);
}

static unsigned read_in(struct cm_str text, size_t piece, int parallel, struct seen *seen)
{
    struct cm_tool tools[] = {{.name = CM_S("add")}, {.name = CM_S("now")}};
    const struct cm_chat chat = {.tools = tools, .n_tools = 2, .parallel_tool_calls = parallel};
    struct tools_reader r;
    struct cm_arena arena = {0};

    cm_buf_clear(&seen->all);
    tools_reader_init(&r, &arena, &chat);
    for (; text.n > 0; text = cm_str_from(text, piece < text.n ? piece : text.n))
        tools_read(&r, cm_str_head(text, piece), on_found, seen);
    tools_read_end(&r, on_found, seen);
    tools_reader_clear(&r);
    cm_arena_clear(&arena);
    return r.calls;
}

static const struct {
    const char *text, *seen;
    unsigned calls;
} readings[] = {
    {"plain text", "plain text", 0},
    {"  white space stays \n ", "  white space stays \n ", 0},
    {"a < b <tool <tool_cal> c", "a < b <tool <tool_cal> c", 0},
    {"<tool_call>\n{\"name\": \"now\"}\n</tool_call>", "(now {})", 1},
    {"Let me see.\n\n<tool_call>{\"name\":\"add\",\"arguments\":{\"a\": 1,  \"b\":2}}</tool_call>\n",
     "Let me see.(add {\"a\": 1,  \"b\":2})", 1},
    {"<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>\n\n<tool_call>{\"name\":\"now\","
     "\"arguments\":\"{\\\"x\\\":1}\"}</tool_call>",
     "(add {})(now {\"x\":1})", 2},
    {"<tool_call>{\"name\":\"now\",\"parameters\":{\"p\":[1]}}</tool_call> and more",
     "(now {\"p\":[1]})and more", 1},
    /* the mark within a text of the arguments */
    {"<tool_call>{\"name\":\"add\",\"arguments\":{\"s\":\"</tool_call>\"}}</tool_call>!",
     "(add {\"s\":\"</tool_call>\"})!", 1},
    /* no calls */
    {"<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>",
     "<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>", 0},
    {"<tool_call>{\"name\":\"add\",\"arguments\":[1]}</tool_call>.",
     "<tool_call>{\"name\":\"add\",\"arguments\":[1]}</tool_call>.", 0},
    {"<tool_call>{\"name\":\"add\",\"arguments\":\"{oops\"}</tool_call>",
     "<tool_call>{\"name\":\"add\",\"arguments\":\"{oops\"}</tool_call>", 0},
    {"<tool_call>not json</tool_call> so", "<tool_call>not json</tool_call> so", 0},
    /* the end mark forgotten, the answer cut */
    {"<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":1}}", "(add {\"a\":1})", 1},
    {"x <tool_call>{\"name\":\"add\",\"argum", "x <tool_call>{\"name\":\"add\",\"argum", 0},
    {"x <tool_ca", "x <tool_ca", 0},
};

START_TEST(calls_are_found_at_every_cut)
{
    struct seen seen = {0};

    for (size_t i = 0; i < CM_COUNT(readings); i++) {
        const struct cm_str text = cm_str_of(readings[i].text);

        for (size_t piece = 1; piece <= text.n; piece++) {
            const unsigned calls = read_in(text, piece, -1, &seen);

            ck_assert_msg(cm_str_eq(cm_buf_str(&seen.all), cm_str_of(readings[i].seen)),
                          "%zu by %zu: %.*s", i, piece, (int)seen.all.n, seen.all.p);
            ck_assert_uint_eq(calls, readings[i].calls);
        }
    }
    cm_buf_clear(&seen.all);
}
END_TEST

START_TEST(one_call_where_one_is_allowed)
{
    struct seen seen = {0};

    read_in(cm_str_of(readings[5].text), 7, 0, &seen);
    ck_str(cm_buf_str(&seen.all), "(add {})");
    cm_buf_clear(&seen.all);
}
END_TEST

START_TEST(a_block_that_never_ends_is_text)
{
    struct cm_buf text = {0};
    struct seen seen = {0};

    cm_buf_append(&text, CM_S("<tool_call>"));
    for (int i = 0; i < 200000; i++)
        cm_buf_append(&text, CM_S("</tool_call>"));
    read_in(cm_buf_str(&text), 1000, -1, &seen);
    ck_assert(cm_str_eq(cm_buf_str(&seen.all), cm_buf_str(&text)));
    cm_buf_reset(&text);
    cm_buf_append(&text, CM_S("<tool_call>{\"name\":\""));
    for (int i = 0; i < 200000; i++)
        cm_buf_append(&text, CM_S("0123456789"));
    read_in(cm_buf_str(&text), 4096, -1, &seen);
    ck_assert(cm_str_eq(cm_buf_str(&seen.all), cm_buf_str(&text)));
    cm_buf_clear(&text);
    cm_buf_clear(&seen.all);
}
END_TEST

static void repeat(struct cm_buf *text, const char *what, int times)
{
    cm_buf_reset(text);
    for (int i = 0; i < times; i++)
        cm_buf_append(text, cm_str_of(what));
}

static uint64_t time_of(const char *what, size_t bytes, size_t piece, unsigned calls)
{
    struct cm_buf text = {0};
    struct seen seen = {0};
    uint64_t began_us;

    repeat(&text, what, calls ? (int)calls : (int)(bytes / strlen(what)));
    began_us = cm_mono_us();
    ck_assert_uint_eq(read_in(cm_buf_str(&text), piece, -1, &seen), calls);
    began_us = cm_mono_us() - began_us;
    if (calls == 0) {
        ck_assert_uint_eq(seen.all.n, text.n);
        ck_assert_int_eq(memcmp(cm_buf_z(&seen.all), cm_buf_z(&text), text.n), 0);
    }
    cm_buf_clear(&text);
    cm_buf_clear(&seen.all);
    return began_us + 1;
}

/* A model that writes the same over and over costs time in proportion: what is eight times as long takes about eight times as long, not sixty-four. And its
 * white space reaches the client before it ends. */
START_TEST(repetitions_cost_no_more_than_their_length)
{
    static const struct {
        const char *what;
        size_t piece;
        unsigned calls;
    } cases[] = {
        {"<tool_call></tool_call>", SIZE_MAX, 0},
        {"<tool_call>", 4096, 0},
        /* in pieces: AddressSanitizer looks through all that memmem() is given, at each call */
        {"<tool_call>{\"name\":\"now\"}</tool_call>\n", 65536, 100000},
        {"\n", 16, 0},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const size_t bytes = 4u * 1024 * 1024;
        const uint64_t part_us =
                           time_of(cases[i].what, bytes / 8, cases[i].piece, cases[i].calls / 8),
                       whole_us = time_of(cases[i].what, bytes, cases[i].piece, cases[i].calls);

        ck_assert_msg(whole_us < 32 * part_us + 1000000, "%zu: %llu us, %llu us", i,
                      (unsigned long long)part_us, (unsigned long long)whole_us);
    }
}
END_TEST

START_TEST(white_space_is_not_held_back_for_long)
{
    const struct cm_chat chat = {.n_tools = 0};
    struct tools_reader reader;
    struct cm_arena arena = {0};
    struct seen seen = {0};

    tools_reader_init(&reader, &arena, &chat);
    for (int i = 0; i < 10000; i++)
        tools_read(&reader, CM_S("\n"), on_found, &seen);
    ck_assert_uint_gt(seen.all.n, 8000);
    ck_assert_uint_lt(reader.held.n, 4096);
    tools_reader_clear(&reader);
    cm_arena_clear(&arena);
    cm_buf_clear(&seen.all);
}
END_TEST

/* ---- through a platform ---- */

static struct fake_result r;
static struct cm_memo *memo;

static uint64_t read_mono(void *arg)
{
    (void)arg;
    return 1000;
}
static const struct cm_clock test_clock = {.mono_ms = read_mono};

static void begin_memo(void)
{
    memo = cm_memo_new(&test_clock, 256 * 1024);
}

static void end_memo(void)
{
    cm_memo_free(memo);
}

#define JSON "application/json"
#define OK(json) {.content_type = JSON, .body = json}
#define SSE(text) {.content_type = STREAM, .body = text}
#define WEATHER                                                                                    \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"at a " \
    "place\",\"parameters\":{\"type\":\"object\"}}}]"

static const char *const options[] = {"prefetch", "no", NULL};

static void play_as(const char *scope, const char *secret, const char *body,
                    const struct fake_reply *replies, size_t n, size_t piece)
{
    fake_run(&(struct fake_setup){.type = "deepseek",
                                  .body = body,
                                  .scope = scope,
                                  .secret = secret,
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = n,
                                  .piece = piece,
                                  .memo = memo,
                                  .idle_ms = 500},
             &r);
}

static void play(const char *body, const struct fake_reply *replies, size_t n, size_t piece)
{
    play_as("1 ann", NULL, body, replies, n, piece);
}

#define SAYS(text)                                                                                 \
    READY FRAGMENT("RESPONSE", text)                                                               \
    FINISHED EVENT("close", "{}")
#define CALLS                                                                                      \
    SAYS("I look.\\n<tool_call>\\n{\\\"name\\\": \\\"weather\\\", \\\"arguments\\\": "             \
         "{\\\"at\\\":\\\"Oslo\\\"}}\\n</tool_call>")

START_TEST(a_call_and_its_result)
{
    static const struct fake_reply first[] = {OK(CREATED), OK(CHALLENGE), SSE(CALLS)};
    static const struct fake_reply second[] = {OK(CHALLENGE), SSE(SAYS("Cold."))};
    struct cm_buf body = {0};

    for (size_t piece = 1; piece < 60; piece += piece < 8 ? 1 : 13) {
        begin_memo();
        play("{\"model\":\"deepseek-chat\"," WEATHER
             ",\"messages\":[{\"role\":\"user\",\"content\":\"Oslo?\"}]}",
             first, 3, piece);
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_str_eq(fake_text(&r), "I look.");
        ck_assert_uint_eq(r.answer.choices[0].n_calls, 1);
        ck_str(r.answer.choices[0].calls[0].name, "weather");
        ck_str(cm_buf_str(&r.answer.choices[0].calls[0].args), "{\"at\":\"Oslo\"}");
        ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_TOOL_CALLS);
        ck_assert(r.finished_last);
        /* the model was told */
        ck_assert(
            cm_str_has(r.requests[2].body,
                       CM_S("{\\\"name\\\": \\\"weather\\\", \\\"description\\\": \\\"at a "
                            "place\\\", \\\"parameters\\\": {\\\"type\\\":\\\"object\\\"}}")));
        ck_assert(cm_str_has(r.requests[2].body, CM_S("Oslo?")));

        cm_buf_reset(&body);
        cm_buf_printf(&body,
                      "{\"model\":\"deepseek-chat\"," WEATHER
                      ",\"messages\":[{\"role\":\"user\",\"content\":\"Oslo?\"},{\"role\":"
                      "\"assistant\",\"content\":\"I look.\",\"tool_calls\":[{\"id\":\"" CM_PRI
                      "\",\"type\":\"function\",\"function\":{\"name\":\"weather\",\"arguments\":"
                      "\"{\\\"at\\\":\\\"Oslo\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":"
                      "\"" CM_PRI "\",\"content\":\"-4\"}]}",
                      CM_ARG(r.answer.choices[0].calls[0].id),
                      CM_ARG(r.answer.choices[0].calls[0].id));
        fake_result_clear(&r);
        /* the conversation goes on: only the result is told */
        play(cm_buf_z(&body), second, 2, piece);
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_str_eq(fake_text(&r), "Cold.");
        ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_STOP);
        ck_assert_uint_eq(r.n_requests, 2);
        ck_assert(cm_str_has(
            r.requests[1].body,
            CM_S("\"prompt\":\"<tool_response name=\\\"weather\\\">\\n-4\\n</tool_response>\"")));
        fake_result_clear(&r);
        end_memo();
    }
    cm_buf_clear(&body);
}
END_TEST

START_TEST(reasoning_is_folded_or_left_out)
{
    static const struct fake_reply replies[] = {
        OK(CREATED), OK(CHALLENGE),
        SSE(READY FRAGMENT("THINK", "Two ") MORE("options.") FRAGMENT("RESPONSE", "Blue")
                MORE("[citation:1].") DATA("{\"p\":\"response/search_results\",\"o\":\"SET\",\"v\":"
                                           "[{\"url\":\"https://a.test/\",\"cite_index\":1}]}")
                    FINISHED EVENT("close", "{}"))};
    static const struct {
        const char *model, *text, *reasoning;
        size_t citations;
    } cases[] = {
        {"deepseek-r1", "Blue.", "Two options.", 1},
        {"deepseek-r1-silent", "Blue.", "", 0},
        {"deepseek-r1-search-silent", "Blue.", "", 0},
        {"deepseek-r1-fold",
         "<details><summary>Reasoning</summary>\n\nTwo options.\n\n</details>\n\nBlue.", "", 1},
        {"deepseek-r1-fold-search",
         "<details><summary>Reasoning</summary>\n\nTwo options.\n\n</details>\n\nBlue.", "", 1},
    };
    char body[200];

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        snprintf(body, sizeof(body),
                 "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",
                 cases[i].model);
        play(body, replies, 3, 5);
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_str_eq(fake_text(&r), cases[i].text);
        ck_assert_str_eq(fake_reasoning(&r), cases[i].reasoning);
        ck_assert_uint_eq(r.answer.choices[0].n_citations, cases[i].citations);
        ck_assert(cm_str_has(r.requests[2].body, CM_S("\"thinking_enabled\":true")));
        fake_result_clear(&r);
    }
}
END_TEST

/* Places of citations are those in the text that the client gets. */
START_TEST(citations_stand_where_the_client_reads_them)
{
    static const struct fake_reply replies[] = {
        OK(CREATED), OK(CHALLENGE),
        SSE(READY DATA("{\"p\":\"response/search_results\",\"o\":\"SET\",\"v\":"
                       "[{\"url\":\"https://a.test/\",\"cite_index\":1}]}")
                FRAGMENT("THINK", "Zw\u00f6lf.") FRAGMENT("RESPONSE", "Bl\u00e4u")
                    MORE("[citation:1].") FINISHED EVENT("close", "{}"))};
    static const char *const links[] = {"prefetch", "no", "citations", "links", NULL};
    static const char link[] = "[[1]](https://a.test/)";
    static const char *const models[] = {"deepseek-r1-search", "deepseek-r1-search-fold"};
    char body[200];

    for (size_t i = 0; i < CM_COUNT(models); i++) {
        const struct cm_citation *c;
        size_t at;

        snprintf(body, sizeof(body),
                 "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",
                 models[i]);
        fake_run(&(struct fake_setup){.type = "deepseek",
                                      .body = body,
                                      .options = links,
                                      .replies = replies,
                                      .n_replies = 3,
                                      .piece = 5,
                                      .idle_ms = 500},
                 &r);
        ck_assert_msg(r.done, "%s", r.err.msg);
        at = cm_str_find(cm_str_of(fake_text(&r)), cm_str_of(link));
        ck_assert_uint_ne(at, SIZE_MAX);
        ck_assert_uint_eq(r.answer.choices[0].n_citations, 1);
        c = &r.answer.choices[0].citations[0];
        ck_assert_int_eq(c->from, (int64_t)cm_utf8_count(cm_str(fake_text(&r), at)));
        ck_assert_int_eq(c->to - c->from, (int64_t)strlen(link));
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- handles ---- */

static char handle[400];

#define WITH(id, messages)                                                                         \
    (snprintf(body, sizeof(body),                                                                  \
              "{\"model\":\"deepseek-chat\",\"conversation_id\":\"%s\",\"messages\":[%s]}", id,    \
              messages),                                                                           \
     body)
#define SAID "{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"and?\"}"
#define WHOLE                                                                                      \
    "{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"x\"},"            \
    "{\"role\":\"user\",\"content\":\"and?\"}"

static void get_handle(void)
{
    static const struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};

    play("{\"model\":\"deepseek-chat\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",
         replies, 3, 0);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(cm_str_starts(r.answer.conversation, CM_S("conv_")));
    ck_assert(!cm_str_has(r.answer.conversation, CM_S("secret")));
    cm_str_copy(handle, sizeof(handle), r.answer.conversation);
    fake_result_clear(&r);
}

START_TEST(a_handle_goes_on_with_new_messages_alone)
{
    static const struct fake_reply replies[] = {OK(CHALLENGE), SSE(ANSWER)};
    char body[1200];

    get_handle();
    play(WITH(handle, SAID), replies, 2, 0);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(cm_str_has(r.requests[1].body, CM_S("\"chat_session_id\":\"session-1\",\"parent_"
                                                  "message_id\":2")));
    ck_assert(cm_str_has(r.requests[1].body, CM_S("\"prompt\":\"and?\"")));
    ck_assert(r.answer.conversation.n > 0);
    fake_result_clear(&r);
    play(WITH(handle, WHOLE), replies, 2, 0);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(cm_str_has(r.requests[1].body, CM_S("\"prompt\":\"and?\"")));
    fake_result_clear(&r);
    /* none of the messages in front is told again */
    play(WITH(handle, "{\"role\":\"developer\",\"content\":\"d\"}," SAID), replies, 2, 0);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(cm_str_has(r.requests[1].body, CM_S("\"prompt\":\"and?\"")));
    fake_result_clear(&r);
}
END_TEST

/* What the account's secret makes alone could be guessed at. */
START_TEST(a_handle_needs_more_than_the_secret)
{
    static const struct fake_reply replies[] = {OK(CHALLENGE), SSE(ANSWER)};
    char body[1200];

    get_handle();
    end_memo();
    begin_memo();
    play(WITH(handle, SAID), replies, 2, 0);
    ck_assert(!r.done);
    ck_assert_int_eq(r.err.cls, CM_ERR_NOT_FOUND);
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_handle_is_nobody_elses)
{
    static const struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};
    char body[1200], other[400];
    const struct {
        const char *scope, *secret, *id;
        const char *messages;
        bool served; /* as a new conversation */
    } cases[] = {
        {"2 bob", NULL, handle, SAID, false},      {"1 ann", "another", handle, SAID, false},
        {"1 ann", NULL, other, SAID, false},       {"2 bob", NULL, handle, WHOLE, true},
        {"1 ann", NULL, "conv_", SAID, true}, /* not one of ours */
        {"1 ann", NULL, "my-session", SAID, true},
    };

    get_handle();
    memcpy(other, handle, sizeof(other));
    other[12] = other[12] == 'A' ? 'B' : 'A';
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        play_as(cases[i].scope, cases[i].secret, WITH(cases[i].id, cases[i].messages), replies, 3,
                0);
        ck_assert_msg(r.done == cases[i].served, "%zu: %s", i, r.err.msg);
        if (cases[i].served) {
            ck_assert(cm_str_ends(r.requests[0].url, CM_S("/chat_session/create")));
        } else {
            ck_assert_int_eq(r.err.cls, CM_ERR_NOT_FOUND);
            ck_assert_str_eq(r.err.param, "conversation_id");
            ck_assert_uint_eq(r.n_requests, 0);
        }
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(a_conversation_that_is_gone)
{
    static const struct fake_reply replies[] = {OK(CHALLENGE),
                                                OK(BIZ_REFUSED("7", "invalid chat session")),
                                                OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};
    char body[1200];

    get_handle();
    play(WITH(handle, SAID), replies, 5, 0);
    ck_assert(!r.done);
    ck_assert_int_eq(r.err.cls, CM_ERR_NOT_FOUND);
    ck_assert_uint_eq(r.n_requests, 2);
    fake_result_clear(&r);
    play(WITH(handle, WHOLE), replies, 5, 0); /* all of it is told to a new one */
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(cm_str_has(r.requests[4].body, CM_S("q<｜Assistant｜>x")));
    fake_result_clear(&r);
}
END_TEST

Suite *suite_tools(void)
{
    Suite *s = suite_create("tools");
    TCase *reading = tcase_create("reading"), *platform = tcase_create("platform"),
          *handles = tcase_create("handles");

    tcase_add_test(reading, calls_are_found_at_every_cut);
    tcase_add_test(reading, one_call_where_one_is_allowed);
    tcase_add_test(reading, a_block_that_never_ends_is_text);
    tcase_add_test(reading, repetitions_cost_no_more_than_their_length);
    tcase_add_test(reading, white_space_is_not_held_back_for_long);
    tcase_set_timeout(reading, 60);
    suite_add_tcase(s, reading);
    tcase_add_test(platform, a_call_and_its_result);
    tcase_add_test(platform, reasoning_is_folded_or_left_out);
    tcase_add_test(platform, citations_stand_where_the_client_reads_them);
    tcase_set_timeout(platform, 20);
    suite_add_tcase(s, platform);
    tcase_add_checked_fixture(handles, begin_memo, end_memo);
    tcase_add_test(handles, a_handle_goes_on_with_new_messages_alone);
    tcase_add_test(handles, a_handle_needs_more_than_the_secret);
    tcase_add_test(handles, a_handle_is_nobody_elses);
    tcase_add_test(handles, a_conversation_that_is_gone);
    suite_add_tcase(s, handles);
    return s;
}
