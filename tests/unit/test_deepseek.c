/* provider/deepseek: its calls and headers, proofs of work, conversations that go on or are deleted, continuation, and what each refusal means. */
#include "deepseek_replies.h"
#include "fake_run.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/list.h"

#include <stdio.h>
#include <stdlib.h>

#define BODY(model, text)                                                                          \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"
#define JSON "application/json"
#define OK(json) {.content_type = JSON, .body = json}
#define SSE(text) {.content_type = STREAM, .body = text}

static struct fake_result r;

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

static const char *const plain[] = {"prefetch", "no", "conversations", "new", NULL};

static void play(const char *body, const char *const *options, const struct fake_reply *replies,
                 size_t n)
{
    fake_run(&(struct fake_setup){.type = "deepseek",
                                  .body = body,
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = n,
                                  .idle_ms = 300},
             &r);
}

static bool asked(size_t request, const char *path)
{
    return request < r.n_requests && cm_str_ends(r.requests[request].url, cm_str_of(path));
}

START_TEST(three_calls_with_their_headers)
{
    static const struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};

    play(BODY("deepseek-chat", "a \\\"b\\\""), plain, replies, 3);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(fake_text(&r), "Blue");
    ck_assert_uint_eq(r.n_requests, 3);
    ck_str(r.requests[0].method, "POST");
    ck_str(r.requests[0].url, "https://chat.deepseek.com/api/v0/chat_session/create");
    ck_str(r.requests[0].body, "{}");
    ck_str(r.requests[1].url, "https://chat.deepseek.com/api/v0/chat/create_pow_challenge");
    ck_str(r.requests[1].body, "{\"target_path\":\"/api/v0/chat/completion\"}");
    ck_str(r.requests[2].url, "https://chat.deepseek.com/api/v0/chat/completion");
    ck_str(
        r.requests[2].body,
        "{\"chat_session_id\":\"session-1\",\"parent_message_id\":null,\"model_type\":\"default\","
        "\"prompt\":\"a \\\"b\\\"\",\"ref_file_ids\":[],\"thinking_enabled\":false,"
        "\"search_enabled\":false,\"preempt\":false}");
    for (size_t i = 0; i < 3; i++) {
        ck_assert_str_eq(header(i, "authorization"), "Bearer secret");
        ck_assert_str_eq(header(i, "content-type"), "application/json");
        ck_assert_str_eq(header(i, "accept"), "*/*");
        ck_assert_str_eq(header(i, "origin"), "https://chat.deepseek.com");
        ck_assert_str_eq(header(i, "referer"), "https://chat.deepseek.com/");
        ck_assert_str_eq(header(i, "x-client-platform"), "web");
        ck_assert_str_eq(header(i, "x-client-locale"), "zh_CN");
        ck_assert_str_eq(header(i, "x-client-version"), "2.0.0");
        ck_assert_str_eq(header(i, "x-app-version"), "20241129.1");
        ck_assert_str_eq(header(i, "x-client-timezone-offset"), "28800");
        ck_assert(strncmp(header(i, "user-agent"), "Mozilla/5.0 (", 13) == 0);
        ck_assert_str_eq(header(i, "cookie"), "");
        ck_assert_str_eq(header(i, "x-client-bundle-id"), "");
        ck_assert_str_eq(header(i, "x-ds-pow-response"), i == 2 ? PROOF : "");
    }
    fake_result_clear(&r);
}
END_TEST

START_TEST(options_move_the_calls)
{
    static const char *const options[] = {"prefetch",
                                          "no",
                                          "conversations",
                                          "delete",
                                          "origin",
                                          "https://o",
                                          "create_path",
                                          "/c",
                                          "create_body",
                                          "{\"agent\":\"chat\"}",
                                          "challenge_path",
                                          "/p",
                                          "chat_path",
                                          "/t",
                                          "delete_path",
                                          "/d",
                                          "client_version",
                                          "9",
                                          "bundle_id",
                                          "com.deepseek.chat",
                                          "default_model_type",
                                          "",
                                          NULL};
    static const struct fake_reply replies[] = {
        OK(BIZ("{\"chat_session\":{\"id\":\"s/2\",\"ttl_seconds\":259200}}")),
        OK(CHALLENGE_OF("/t", "144000.0")), SSE(ANSWER), OK(DONE)};

    fake_run(
        &(struct fake_setup){.type = "deepseek",
                             .body = BODY("deepseek", "q"),
                             .secret = "{\"token\":\"tok\",\"cookie\":\"aws-waf-token=abc; b=c\"}",
                             .options = options,
                             .replies = replies,
                             .n_replies = 4},
        &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.requests[0].url, "https://chat.deepseek.com/c");
    ck_str(r.requests[0].body, "{\"agent\":\"chat\"}");
    ck_str(r.requests[1].url, "https://chat.deepseek.com/p");
    ck_str(r.requests[1].body, "{\"target_path\":\"/t\"}");
    ck_str(r.requests[2].url, "https://chat.deepseek.com/t");
    ck_assert(cm_str_has(r.requests[2].body, CM_S("\"chat_session_id\":\"s/2\"")));
    ck_assert(cm_str_has(r.requests[2].body, CM_S("\"model_type\":null")));
    ck_str(r.requests[3].url, "https://chat.deepseek.com/d");
    ck_str(r.requests[3].body, "{\"chat_session_id\":\"s/2\"}");
    ck_assert_str_eq(header(2, "authorization"), "Bearer tok");
    ck_assert_str_eq(header(2, "cookie"), "aws-waf-token=abc; b=c");
    ck_assert_str_eq(header(2, "x-client-version"), "9");
    ck_assert_str_eq(header(2, "x-client-bundle-id"), "com.deepseek.chat");
    ck_assert_str_eq(header(2, "origin"), "https://o");
    ck_assert_str_eq(header(2, "referer"), "https://o/");
    fake_result_clear(&r);
}
END_TEST

START_TEST(models_and_their_features)
{
    static const struct {
        const char *model, *more;
        bool thinking, search, expert;
    } cases[] = {
        {"deepseek-chat", "", false, false, false},
        {"deepseek", "", false, false, false},
        {"deepseek-v4-flash", "", false, false, false},
        {"deepseek-reasoner", "", true, false, false},
        {"deepseek-r1", "", true, false, false},
        {"deepseek-v4-pro", "", true, false, true},
        {"deepseek-chat-search", "", false, true, false},
        {"deepseek-chat-thinking", "", true, false, false},
        {"deepseek-reasoner-search", "", true, true, false},
        {"deepseek-v4-pro-search-thinking", "", true, true, true},
        {"deepseek-v4-pro", ",\"reasoning_effort\":\"none\"", false, false, true},
        {"deepseek-chat", ",\"reasoning_effort\":\"high\"", true, false, false},
        {"my-r1-search", "", true, true, false}, /* names in no table */
        {"ds-v9-pro", "", true, false, true},
        {"gpt-4o", "", false, false, false},
    };
    static const char *const any[] = {"deepseek-chat",
                                      "deepseek",
                                      "deepseek-v4-flash",
                                      "deepseek-reasoner",
                                      "deepseek-r1",
                                      "deepseek-v4-pro",
                                      "*",
                                      NULL};
    static const struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_buf body = {0};

        cm_buf_printf(&body,
                      "{\"model\":\"%s\"%s,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
                      cases[i].model, cases[i].more);
        fake_run(&(struct fake_setup){.type = "deepseek",
                                      .body = cm_buf_z(&body),
                                      .options = plain,
                                      .models = any,
                                      .replies = replies,
                                      .n_replies = 3},
                 &r);
        cm_buf_clear(&body);
        ck_assert_msg(r.done, "%s: %s", cases[i].model, r.err.msg);
        ck_assert_msg(cm_str_has(r.requests[2].body, CM_S("\"thinking_enabled\":true")) ==
                          cases[i].thinking,
                      "%s thinks", cases[i].model);
        ck_assert_msg(cm_str_has(r.requests[2].body, CM_S("\"search_enabled\":true")) ==
                          cases[i].search,
                      "%s searches", cases[i].model);
        ck_assert_msg(cm_str_has(r.requests[2].body, CM_S("\"model_type\":\"expert\"")) ==
                          cases[i].expert,
                      "%s is expert", cases[i].model);
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- proofs of work ---- */

START_TEST(a_proof_is_made_ahead_and_used_once)
{
    static const char *const options[] = {"conversations", "new", NULL};
    static const struct fake_reply first[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER),
                                              OK(CHALLENGE)};
    static const struct fake_reply second[] = {OK(CREATED), SSE(ANSWER), OK(CHALLENGE)};
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 65536);
    struct fake_setup setup = {.type = "deepseek",
                               .body = BODY("deepseek-chat", "x"),
                               .options = options,
                               .memo = memo,
                               .replies = first,
                               .n_replies = 4};

    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 4);
    ck_assert(asked(3, "/create_pow_challenge"));
    fake_result_clear(&r);

    setup.replies = second;
    setup.n_replies = 3;
    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(asked(1, "/chat/completion"));
    ck_assert_str_eq(header(1, "x-ds-pow-response"), PROOF);
    ck_assert(asked(2, "/create_pow_challenge")); /* the next one */
    ck_assert_uint_eq(r.n_requests, 3);
    fake_result_clear(&r);

    /* of another account's there is none */
    setup.secret = "other";
    setup.replies = first;
    setup.n_replies = 4;
    fake_run(&setup, &r);
    ck_assert(asked(1, "/create_pow_challenge"));
    fake_result_clear(&r);
    cm_memo_free(memo);
}
END_TEST

START_TEST(what_fails_ahead_fails_nobody)
{
    static const char *const options[] = {"conversations", "new", NULL};
    static const struct fake_reply fourth[] = {
        OK(UNSOLVABLE), OK("<html>"), {.end = FAKE_DOWN}, {.status = 500}, OK(BIZ("{}"))};
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 65536);

    for (size_t i = 0; i < CM_COUNT(fourth); i++) {
        const struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER), fourth[i]};

        fake_run(&(struct fake_setup){.type = "deepseek",
                                      .body = BODY("deepseek-chat", "x"),
                                      .options = options,
                                      .memo = memo,
                                      .replies = replies,
                                      .n_replies = 4},
                 &r);
        ck_assert_msg(r.done, "%zu: %s", i, r.err.msg);
        ck_assert_uint_eq(r.n_requests, 4);
        fake_result_clear(&r);
    }
    cm_memo_free(memo);
}
END_TEST

#define BAD_PROOF CODE("40301", "INVALID_POW_RESPONSE")

START_TEST(a_refused_proof_is_made_once_more)
{
    static const struct fake_reply once[] = {OK(CREATED), OK(CHALLENGE), OK(BAD_PROOF),
                                             OK(CHALLENGE), SSE(ANSWER)};
    static const struct fake_reply inside[] = {OK(CREATED), OK(CHALLENGE), SSE(DATA(BAD_PROOF)),
                                               OK(CHALLENGE), SSE(ANSWER)};
    static const struct fake_reply twice[] = {OK(CREATED),   OK(CHALLENGE), OK(BAD_PROOF),
                                              OK(CHALLENGE), OK(BAD_PROOF), OK(DONE)};

    play(BODY("deepseek-chat", "x"), plain, once, 5);
    ck_assert_msg(r.done, "%s", r.err.msg);
    fake_result_clear(&r);
    play(BODY("deepseek-chat", "x"), plain, inside, 5);
    ck_assert_msg(r.done, "%s", r.err.msg);
    fake_result_clear(&r);
    play(BODY("deepseek-chat", "x"), plain, twice, 6);
    ck_assert_int_eq(r.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_uint_eq(r.n_requests, 6);
    ck_assert(asked(5, "/chat_session/delete")); /* nothing is left of it */
    fake_result_clear(&r);
}
END_TEST

START_TEST(challenges_without_a_solution)
{
    static const struct fake_reply once[] = {OK(CREATED), OK(UNSOLVABLE), OK(CHALLENGE),
                                             SSE(ANSWER)};
    static const struct fake_reply twice[] = {OK(CREATED), OK(UNSOLVABLE), OK(BIZ("{}")), OK(DONE)};
    static const struct fake_reply foreign[] = {
        OK(CREATED), OK(BIZ("{\"challenge\":{\"algorithm\":\"Other\"}}")), OK(DONE)};

    play(BODY("deepseek-chat", "x"), plain, once, 4);
    ck_assert_msg(r.done, "%s", r.err.msg);
    fake_result_clear(&r);
    play(BODY("deepseek-chat", "x"), plain, twice, 4);
    ck_assert_int_eq(r.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_uint_eq(r.n_requests, 4);
    fake_result_clear(&r);
    play(BODY("deepseek-chat", "x"), plain, foreign, 3);
    ck_assert_int_eq(r.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_ptr_nonnull(strstr(r.err.msg, "\"Other\""));
    ck_assert_uint_eq(r.n_requests, 3);
    fake_result_clear(&r);
}
END_TEST

/* ---- conversations ---- */

#define TURN(role, text) "{\"role\":\"" role "\",\"content\":\"" text "\"}"
#define TALK(turns) "{\"model\":\"deepseek-chat\",\"messages\":[" turns "]}"

START_TEST(a_conversation_goes_on)
{
    static const char *const options[] = {"prefetch", "no", NULL};
    static const struct fake_reply first[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};
    static const struct fake_reply more[] = {
        OK(CHALLENGE), SSE(EVENT("ready", "{\"request_message_id\":3,\"response_message_id\":4}")
                               FRAGMENT("RESPONSE", "Sky") FINISHED)};
    static const struct fake_reply gone[] = {OK(CHALLENGE),
                                             OK(BIZ_REFUSED("7", "invalid chat session")),
                                             OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 65536);
    struct fake_setup setup = {.type = "deepseek",
                               .body = TALK(TURN("user", "Colour?")),
                               .options = options,
                               .memo = memo,
                               .replies = first,
                               .n_replies = 3};

    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    fake_result_clear(&r);

    setup.body =
        TALK(TURN("user", "Colour?") "," TURN("assistant", "Blue") "," TURN("user", "Why?"));
    setup.replies = more;
    setup.n_replies = 2;
    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(asked(1, "/chat/completion"));
    ck_assert(cm_str_has(r.requests[1].body,
                         CM_S("\"chat_session_id\":\"session-1\",\"parent_message_id\":2")));
    ck_assert(cm_str_has(r.requests[1].body, CM_S("\"prompt\":\"Why?\"")));
    fake_result_clear(&r);

    /* the platform has lost it: a new one hears all, once */
    setup.replies = gone;
    setup.n_replies = 5;
    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(asked(2, "/chat_session/create"));
    ck_assert(cm_str_has(r.requests[4].body, CM_S("\"parent_message_id\":null")));
    ck_assert(cm_str_has(r.requests[4].body, CM_S("Colour?<｜Assistant｜>Blue")));
    fake_result_clear(&r);
    cm_memo_free(memo);
}
END_TEST

START_TEST(a_conversation_is_deleted_after_its_answer)
{
    static const char *const options[] = {"conversations", "delete", NULL};
    static const struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER), OK(DONE),
                                                OK(CHALLENGE)};
    static const struct fake_reply kept[] = {
        OK(CREATED), OK(CHALLENGE), SSE(ANSWER), {.status = 500}, OK(CHALLENGE)};
    static const struct fake_reply later[] = {OK(BIZ("{\"id\":\"session-2\"}")), SSE(ANSWER),
                                              OK(DONE), OK(DONE), OK(CHALLENGE)};
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 65536);
    struct fake_setup setup = {.type = "deepseek",
                               .body = BODY("deepseek-chat", "x"),
                               .options = options,
                               .memo = memo,
                               .replies = replies,
                               .n_replies = 5};

    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 5);
    ck_str(r.requests[3].body, "{\"chat_session_id\":\"session-1\"}");
    ck_assert(asked(4, "/create_pow_challenge"));
    fake_result_clear(&r);
    cm_memo_free(memo);

    /* what could not be deleted is deleted with the next one */
    setup.memo = memo = cm_memo_new(&cm_clock_system, 65536);
    setup.replies = kept;
    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 5);
    fake_result_clear(&r);
    setup.replies = later;
    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 5);
    ck_str(r.requests[2].body, "{\"chat_session_id\":\"session-2\"}");
    ck_str(r.requests[3].body, "{\"chat_session_id\":\"session-1\"}");
    fake_result_clear(&r);
    cm_memo_free(memo);
}
END_TEST

/* An account that is refused cannot delete what it has just made: that waits until it can. */
START_TEST(what_a_refused_account_left_is_deleted_later)
{
    static const struct fake_reply refused_[] = {OK(CREATED), OK(CODE("40003", ""))};
    static const struct fake_reply later[] = {OK(BIZ("{\"id\":\"session-2\"}")), OK(CHALLENGE),
                                              SSE(ANSWER), OK(DONE)};
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 65536);
    struct fake_setup setup = {.type = "deepseek",
                               .body = BODY("deepseek-chat", "x"),
                               .options = plain,
                               .memo = memo,
                               .replies = refused_,
                               .n_replies = 2};

    fake_run(&setup, &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_EXPIRED);
    ck_assert_uint_eq(r.n_requests, 2);
    fake_result_clear(&r);
    setup.replies = later;
    setup.n_replies = 4;
    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 4);
    ck_str(r.requests[3].body, "{\"chat_session_id\":\"session-1\"}");
    fake_result_clear(&r);
    cm_memo_free(memo);
}
END_TEST

START_TEST(history_is_one_text)
{
    static const struct {
        const char *style, *body, *prompt;
    } cases[] = {
        {"markers", TALK(TURN("user", "a")), "a"},
        {"markers", TALK(TURN("system", "S") "," TURN("user", "a")), "S<｜User｜>a"},
        {"markers",
         TALK(TURN("system", "S") "," TURN("developer", "T") "," TURN("user", "a") "," TURN(
             "user", "b") "," TURN("assistant", "c") "," TURN("user", "d")),
         "S\n\nT<｜User｜>a\n\nb<｜Assistant｜>c<｜end▁of▁sentence｜><｜User｜>d"},
        {"markers", TALK(TURN("assistant", "a") "," TURN("user", "b")),
         "<｜Assistant｜>a<｜end▁of▁sentence｜><｜User｜>b"},
        {"markers",
         TALK(TURN("user", "a") "," TURN(
             "assistant",
             "see ![p](https://h/p.png) and ![q](data:image/png;base64,AA==) ![") "," TURN("user",
                                                                                           "b")),
         "a<｜Assistant｜>see [p](https://h/p.png) and [q] ![<｜end▁of▁sentence｜><｜User｜>b"},
        {"brackets",
         TALK(TURN("system", "S") "," TURN("user", "a") "," TURN("assistant", "b") "," TURN("user",
                                                                                            "c")),
         "[System]: S\na\n[Assistant]: b\nc"},
        {"markers",
         TALK(
             TURN("user", "a") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":"
                               "\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                               "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"1\","
                               "\"content\":\"ok\"}"),
         "a<｜Assistant｜>[calls f with {}]<｜end▁of▁sentence｜><｜User｜>ok"},
    };
    static const struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(ANSWER)};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const char *const options[] = {"prefetch",     "no", "conversations", "new", "prompt_style",
                                       cases[i].style, NULL};
        yyjson_doc *doc;

        play(cases[i].body, options, replies, 3);
        ck_assert_msg(r.done, "%s", r.err.msg);
        doc = cm_json_parse(r.requests[2].body, &cm_json_limits_event, NULL);
        ck_assert_str_eq(yyjson_get_str(cm_json_get(yyjson_doc_get_root(doc), "prompt")),
                         cases[i].prompt);
        yyjson_doc_free(doc);
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- answers that the platform cut ---- */

START_TEST(a_cut_answer_is_continued)
{
    static const char *const twice[] = {"prefetch", "no", "conversations", "new", "continue_limit",
                                        "2",        NULL};
    static const struct fake_reply resumed[] = {
        OK(CREATED), OK(CHALLENGE),
        SSE(READY FRAGMENT("THINK", "t") FRAGMENT("RESPONSE", "One ") STATUS("INCOMPLETE")),
        /* the whole so far, and more */
        SSE(READY DATA("{\"v\":{\"response\":{\"message_id\":2,\"status\":\"WIP\",\"fragments\":[{"
                       "\"type\":\"THINK\",\"content\":\"t\"},{\"type\":\"RESPONSE\",\"content\":"
                       "\"One two \"}]}}}")
                DATA("{\"p\":\"response/fragments/-1/content\",\"v\":\"three \"}")
                    EVENT("close", "{}")), /* cut: WIP at the end */
    };
    static const struct fake_reply appended[] = {
        OK(CREATED), OK(CHALLENGE), SSE(READY FRAGMENT("RESPONSE", "One ") STATUS("INCOMPLETE")),
        SSE(READY DATA(
            "{\"v\":{\"response\":{\"message_id\":2,\"auto_continue\":true,\"fragments\":[{"
            "\"type\":\"RESPONSE\",\"content\":\"two \"}]}}}") EVENT("close", "{}")),
        SSE(READY MORE("three") FINISHED)};
    static const struct fake_reply endless[] = {
        OK(CREATED), OK(CHALLENGE), SSE(READY FRAGMENT("RESPONSE", "One ") STATUS("INCOMPLETE")),
        SSE(READY MORE("two ") STATUS("INCOMPLETE")),
        SSE(READY MORE("three") STATUS("INCOMPLETE"))};
    static const struct fake_reply refused[] = {
        OK(CREATED), OK(CHALLENGE), SSE(READY FRAGMENT("RESPONSE", "One") STATUS("INCOMPLETE")),
        OK(BIZ_REFUSED("3", "no"))};

    play(BODY("deepseek-chat", "x"), twice, resumed, 4);
    ck_assert_int_eq(r.err.cls, CM_ERR_CUT);
    ck_assert_str_eq(fake_text(&r), "One two three ");
    ck_assert_str_eq(fake_reasoning(&r), "t");
    fake_result_clear(&r);

    play(BODY("deepseek-chat", "x"), twice, appended, 5);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(fake_text(&r), "One two three");
    ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_STOP);
    ck_str(r.requests[3].url, "https://chat.deepseek.com/api/v0/chat/continue");
    ck_str(r.requests[3].body,
           "{\"chat_session_id\":\"session-1\",\"message_id\":2,\"fallback_to_resume\":true}");
    ck_assert_str_eq(header(3, "x-ds-pow-response"), PROOF); /* the spent one */
    fake_result_clear(&r);

    play(BODY("deepseek-chat", "x"), twice, endless, 5);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_LENGTH);
    ck_assert_uint_eq(r.n_requests, 5);
    fake_result_clear(&r);

    play(BODY("deepseek-chat", "x"), twice, refused, 4);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(fake_text(&r), "One");
    ck_assert_int_eq(r.answer.choices[0].finish, CM_FINISH_LENGTH);
    fake_result_clear(&r);
}
END_TEST

/* ---- refusals ---- */

#define WAF .header = "x-amzn-waf-action", .header_value = "challenge"
#define MUTED(until)                                                                                   \
    "{\"code\":0,\"data\":{\"biz_code\":5,\"biz_msg\":\"user is muted\",\"biz_data\":{\"is_muted\":1," \
    "\"mute_until\":" until "}}}"

static const struct {
    struct fake_reply reply;
    enum cm_err_class cls;
    int retry_after_s;
} refusals[] = {
    {OK(CODE("40003", "Authorization Failed (invalid token)")), CM_ERR_EXPIRED, 0},
    {OK(CODE("40001", "")), CM_ERR_EXPIRED, 0},
    {OK(CODE("40002", "")), CM_ERR_EXPIRED, 0},
    {{.status = 401}, CM_ERR_EXPIRED, 0},
    {OK(CODE("40029", "")), CM_ERR_RATE_LIMITED, 0},
    {OK(BIZ_REFUSED("1", "消息发送过于频繁，请稍后重试")), CM_ERR_RATE_LIMITED, 0},
    {OK(BIZ_REFUSED("2", "A message is being generated, please try again later.")),
     CM_ERR_RATE_LIMITED, 5},
    {OK(BIZ_REFUSED("6", "something else")), CM_ERR_BAD_REQUEST, 0},
    {OK(BIZ_REFUSED("5", "user is muted")), CM_ERR_RATE_LIMITED, 0},
    {OK(MUTED("4102444800.5")), CM_ERR_INVALID_CREDENTIAL, 1073741823}, /* the year 2100: banned */
    {OK(MUTED("1000000000")), CM_ERR_RATE_LIMITED, 0},
    {{.status = 429, .header = "Retry-After", .header_value = "7"}, CM_ERR_RATE_LIMITED, 7},
    {{.status = 429, .header = "x-fetch-after-sec", .header_value = "9"}, CM_ERR_RATE_LIMITED, 9},
    {{.status = 429}, CM_ERR_RATE_LIMITED, 0},
    {{.status = 422, .content_type = JSON, .body = "{\"detail\":[{\"loc\":\"body.prompt\"}]}"},
     CM_ERR_BAD_REQUEST,
     0},
    {{.status = 202, WAF}, CM_ERR_VERIFICATION_REQUIRED, 0},
    {{.status = 403, .content_type = "text/html", .body = "<html></html>"},
     CM_ERR_VERIFICATION_REQUIRED,
     0},
    {{.status = 200, .content_type = "text/html", .body = "<!doctype html>"},
     CM_ERR_VERIFICATION_REQUIRED,
     0},
    {{.status = 502, .content_type = "text/html", .body = "<html></html>"},
     CM_ERR_UPSTREAM_DOWN,
     0},
    {{.status = 503}, CM_ERR_OVERLOADED, 0},
    {OK(CODE("1001", "")), CM_ERR_UPSTREAM_DOWN, 0},
    {OK(CODE("1201", "")), CM_ERR_UPSTREAM_DOWN, 0},
    {OK(CODE("99999", "")), CM_ERR_UPSTREAM_DOWN, 0},
    {OK("{"), CM_ERR_UPSTREAM_DOWN, 0},
    {OK("[]"), CM_ERR_UPSTREAM_DOWN, 0},
    {{.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN, 0},
    {{.end = FAKE_HANG}, CM_ERR_TIMEOUT, 0},
};

static bool can_call(enum cm_err_class cls)
{
    return cls != CM_ERR_EXPIRED && cls != CM_ERR_INVALID_CREDENTIAL &&
           cls != CM_ERR_VERIFICATION_REQUIRED;
}

/* `at`: which of the three calls is refused. What was made before is deleted, where the account can still do so. */
static void expect_refusals(size_t at)
{
    for (size_t i = 0; i < CM_COUNT(refusals); i++) {
        struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE), SSE(""), OK(DONE), OK(DONE)};
        const bool muted = refusals[i].reply.body && strstr(refusals[i].reply.body, "is muted");
        const bool asks = at == 2 && muted && refusals[i].cls == CM_ERR_RATE_LIMITED; /* when */
        const bool heard = at == 2 && refusals[i].reply.end == FAKE_HANG; /* its head came */
        const bool undone = at > 0 && can_call(refusals[i].cls) && !heard;

        replies[at] = refusals[i].reply;
        replies[at + 1] = (struct fake_reply)OK(DONE);
        fake_run(&(struct fake_setup){.type = "deepseek",
                                      .body = BODY("deepseek-chat", "x"),
                                      .options = plain,
                                      .replies = replies,
                                      .n_replies = at + 2 + asks,
                                      .idle_ms = 100},
                 &r);
        ck_assert(!r.done);
        ck_assert_msg(r.err.cls == refusals[i].cls, "call %zu, case %zu: %s, %s", at, i,
                      cm_err_info(r.err.cls)->name, r.err.msg);
        ck_assert_msg(r.err.retry_after_s == refusals[i].retry_after_s, "case %zu: %d", i,
                      r.err.retry_after_s);
        ck_assert_ptr_null(strstr(r.err.msg, "secret"));
        ck_assert_uint_eq(r.n_requests, at + 1 + asks + undone);
        if (undone)
            ck_assert(asked(at + 1 + asks, "/chat_session/delete"));
        fake_result_clear(&r);
    }
}

START_TEST(refusals_of_each_call)
{
    for (size_t at = 0; at < 3; at++)
        expect_refusals(at);
}
END_TEST

START_TEST(a_mute_without_a_time_is_looked_up)
{
    static const struct {
        const char *muted, *digits_before, *digits_after; /* of the time */
        enum cm_err_class cls;
        int at_least_s, at_most_s;
    } cases[] = {
        {"1", "", "", CM_ERR_RATE_LIMITED, 590, 601},
        {"true", "", ".25", CM_ERR_RATE_LIMITED, 590, 602},
        {"1", "", "000", CM_ERR_RATE_LIMITED, 590, 601}, /* milliseconds */
        {"0", "", "", CM_ERR_RATE_LIMITED, 0, 0},
        {"1", "9", "", CM_ERR_INVALID_CREDENTIAL, 2592000, INT32_MAX}, /* banned */
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake_reply replies[] = {OK(CREATED), OK(CHALLENGE),
                                       OK(BIZ_REFUSED("5", "user is muted")), OK(""), OK(DONE)};
        char reply[300];

        snprintf(reply, sizeof(reply), BIZ("{\"chat\":{\"is_muted\":%s,\"mute_until\":%s%lld%s}}"),
                 cases[i].muted, cases[i].digits_before, (long long)cm_unix_ms() / 1000 + 600,
                 cases[i].digits_after);
        replies[3].body = reply;
        play(BODY("deepseek-chat", "x"), plain, replies, 5);
        ck_assert_msg(r.err.cls == cases[i].cls, "%zu: %s", i, r.err.msg);
        ck_assert_int_ge(r.err.retry_after_s, cases[i].at_least_s);
        ck_assert_int_le(r.err.retry_after_s, cases[i].at_most_s);
        ck_str(r.requests[3].method, "GET");
        ck_assert(asked(3, "/users/current"));
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(odd_successes_of_the_first_call)
{
    static const struct fake_reply replies[] = {OK(BIZ("{}")), OK(BIZ("null")),
                                                OK(BIZ("{\"id\":7}")), OK("{}")};

    for (size_t i = 0; i < CM_COUNT(replies); i++) {
        play(BODY("deepseek-chat", "x"), plain, &replies[i], 1);
        ck_assert_int_eq(r.err.cls, CM_ERR_UPSTREAM_DOWN);
        fake_result_clear(&r);
    }
}
END_TEST

#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
#define ASK TURN("user", "x")

START_TEST(what_the_platform_has_not_is_refused)
{
    static const char *const no_tools[] = {"tools", "refuse", "prefetch", "no", NULL};
    static const struct {
        const char *body, *param; /* NULL = not refused */
    } cases[] = {
        {"{\"model\":\"deepseek\",\"n\":2,\"messages\":[" ASK "]}", "n"},
        {"{\"model\":\"deepseek\"," TOOLS ",\"messages\":[" ASK "]}", "tools"},
        {"{\"model\":\"deepseek\"," TOOLS ",\"tool_choice\":\"none\",\"messages\":[" ASK "]}",
         NULL},
        {"{\"model\":\"deepseek\",\"messages\":[" TURN("user", "") "]}", "messages"},
        {"{\"model\":\"deepseek\",\"temperature\":0.5,\"messages\":[" ASK "]}", NULL},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        play(cases[i].body, no_tools, &(struct fake_reply){.end = FAKE_DOWN}, 1);
        ck_assert_uint_eq(r.n_requests, cases[i].param ? 0 : 1);
        if (cases[i].param) {
            ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
            ck_assert_str_eq(r.err.param, cases[i].param);
        }
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- a client that leaves ---- */

START_TEST(a_client_that_leaves_stops_the_answer)
{
    static const char *const deleting[] = {"prefetch", "no", "conversations", "delete", NULL};
    static const struct fake_reply replies[] = {
        OK(CREATED),
        OK(CHALLENGE),
        {.content_type = STREAM, .body = READY FRAGMENT("RESPONSE", "a"), .end = FAKE_HANG},
        OK(DONE),
        OK(DONE)};

    for (int i = 0; i < 2; i++) {
        fake_run(&(struct fake_setup){.type = "deepseek",
                                      .body = BODY("deepseek-chat", "x"),
                                      .options = i == 0 ? plain : deleting,
                                      .replies = replies,
                                      .n_replies = 5,
                                      .leave_after = 1},
                 &r);
        ck_assert(r.released && !r.done);
        ck_assert_uint_eq(r.n_requests, i == 0 ? 4 : 5);
        ck_assert(asked(3, "/chat/stop_stream"));
        ck_str(r.requests[3].body, "{\"chat_session_id\":\"session-1\",\"message_id\":2}");
        if (i == 1)
            ck_assert(asked(4, "/chat_session/delete"));
        ck_assert_uint_lt(r.took_ms, 1000);
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- secrets ---- */

START_TEST(secrets_as_they_are_pasted)
{
    static const struct {
        const char *given, *stored; /* NULL = refused */
    } cases[] = {
        {" abcDEF123+/= \n", "abcDEF123+/="},
        {"Bearer abc", "abc"},
        {"{\"value\":\"abc\",\"__version\":\"0\"}", "abc"},
        {"{\"token\":\"abc\"}", "abc"},
        {"{\"token\":\"abc\",\"cookie\":\"aws-waf-token=x\"}",
         "{\"token\":\"abc\",\"cookie\":\"aws-waf-token=x\"}"},
        {"me@example.org:pa:ss word", "{\"email\":\"me@example.org\",\"password\":\"pa:ss word\"}"},
        {"{\"password\":\"p\",\"email\":\"me@example.org\",\"area_code\":null}",
         "{\"email\":\"me@example.org\",\"password\":\"p\"}"},
        {"13800000000:pass", "{\"mobile\":\"13800000000\",\"password\":\"pass\"}"},
        {"+8613800000000:pass",
         "{\"mobile\":\"13800000000\",\"area_code\":\"+86\",\"password\":\"pass\"}"},
        {"+1 5550100:pass", "{\"mobile\":\"5550100\",\"area_code\":\"+1\",\"password\":\"pass\"}"},
        {"{\"mobile\":\"1\",\"password\":\"p\",\"token\":\"t\"}",
         "{\"token\":\"t\",\"mobile\":\"1\",\"password\":\"p\"}"},
        {"", NULL},
        {"two words", NULL},
        {"me@example.org:", NULL},
        {":pass", NULL},
        {"{}", NULL},
        {"{\"token\":7}", NULL},
        {"{\"tokens\":\"a\"}", NULL},
        {"{\"password\":\"p\"}", NULL},
        {"{\"token\":\"a\",\"password\":\"p\"}", NULL},
        {"{\"token\":\"a\",\"cookie\":\"a\\u0001b\"}", NULL},
        {"{\"token\":\"a", NULL},
    };
    struct cm_arena arena = {0};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_str out = CM_STR_NONE;
        struct cm_err err = {0};
        const int failed =
            cm_provider_deepseek.normalize(&arena, cm_str_of(cases[i].given), &out, &err);

        ck_assert_msg(failed == (cases[i].stored ? 0 : -1), "%s", cases[i].given);
        if (failed)
            ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        else
            ck_assert_msg(cm_str_eq(out, cm_str_of(cases[i].stored)), "%s: " CM_PRI, cases[i].given,
                          CM_ARG(out));
    }
    cm_arena_clear(&arena);
}
END_TEST

Suite *suite_deepseek(void)
{
    Suite *s = suite_create("deepseek");
    TCase *t = tcase_create("deepseek");

    tcase_add_test(t, three_calls_with_their_headers);
    tcase_add_test(t, options_move_the_calls);
    tcase_add_test(t, models_and_their_features);
    tcase_add_test(t, a_proof_is_made_ahead_and_used_once);
    tcase_add_test(t, what_fails_ahead_fails_nobody);
    tcase_add_test(t, a_refused_proof_is_made_once_more);
    tcase_add_test(t, challenges_without_a_solution);
    tcase_add_test(t, a_conversation_goes_on);
    tcase_add_test(t, a_conversation_is_deleted_after_its_answer);
    tcase_add_test(t, what_a_refused_account_left_is_deleted_later);
    tcase_add_test(t, history_is_one_text);
    tcase_add_test(t, a_cut_answer_is_continued);
    tcase_add_test(t, refusals_of_each_call);
    tcase_add_test(t, a_mute_without_a_time_is_looked_up);
    tcase_add_test(t, odd_successes_of_the_first_call);
    tcase_add_test(t, what_the_platform_has_not_is_refused);
    tcase_add_test(t, a_client_that_leaves_stops_the_answer);
    tcase_add_test(t, secrets_as_they_are_pasted);
    suite_add_tcase(s, t);
    return s;
}
