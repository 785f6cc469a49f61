/* provider/hix: conversations that go on in their chat, and chats that go. */
#include "fake_host.h"
#include "fake_run.h"
#include "fixture.h"
#include "hix_words.h"

#include "chatmux/base/mem.h"
#include "chatmux/provider/memo.h"
#include "unit.h"

#include "provider/hix_int.h"
#include <stdlib.h>
#include <unistd.h>

static const char *const deleting[] = {"delete_chat", "yes", NULL};
static struct fake_result r;

/* ---- conversations ---- */

static struct cm_memo *memo;

static void with_memo(void)
{
    memo = cm_memo_new(&cm_clock_system, 1024 * 1024);
}

static void without_memo(void)
{
    cm_memo_free(memo);
}

/* [user, assistant, "next"], as a client sends a conversation that it had. */
static struct cm_str second_turn(struct cm_arena *arena, yyjson_val *user, struct cm_str said)
{
    struct cm_buf body = {0};

    cm_buf_append(&body,
                  CM_S("{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":"));
    cm_json_put_val(&body, user);
    if (said.p) {
        cm_buf_append(&body, CM_S("},{\"role\":\"assistant\",\"content\":"));
        cm_json_put_str(&body, said);
        cm_buf_append(&body, CM_S("},{\"role\":\"user\",\"content\":\"next\""));
    }
    cm_buf_append(&body, CM_S("}]}"));
    return cm_buf_settle(&body, arena);
}

/* With the memo of all runs of a test; the result is in `r`. */
static void ask(const char *body, const char *const *options, const struct fake_reply *replies,
                size_t n)
{
    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = body,
                                  .options = options,
                                  .memo = memo,
                                  .replies = replies,
                                  .n_replies = n},
             &r);
}

/* Every exchange of the vectors, whatever characters it has, goes on in its chat. */
START_TEST(each_pair_goes_on_in_its_chat)
{
    char *text = fixture("hix/vectors.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_event, NULL);
    yyjson_val *pair, *pairs = cm_json_get(yyjson_doc_get_root(doc), "pairs");
    struct cm_arena arena = {0};
    size_t i, max, n = 0;

    yyjson_arr_foreach(pairs, i, max, pair)
    {
        yyjson_val *user = cm_json_get(pair, "user");
        const struct cm_str said = cm_json_str(cm_json_get(pair, "assistant"));
        struct cm_buf frame = {0};
        struct fake_reply replies[5];
        size_t k = 0;

        if (said.n == 0)
            continue; /* no answer, for us */
        n++;
        cm_buf_append(&frame, CM_S("data: {\"content\":"));
        cm_json_put_str(&frame, said);
        cm_buf_append(&frame, CM_S("}\n\ndata: [DONE]\n\n"));
        replies[k++] = (struct fake_reply){.body = CREATED};
        if (yyjson_is_arr(user)) {
            replies[k++] = (struct fake_reply){.body = SIGN("1")};
            replies[k++] = (struct fake_reply){.status = 200};
        }
        replies[k++] = (struct fake_reply){.content_type = STREAM, .body = cm_buf_z(&frame)};
        replies[k++] = (struct fake_reply){.body = USAGE};
        ask(cm_arena_z(&arena, second_turn(&arena, user, CM_STR_NONE)), NULL, replies, k);
        ck_assert_msg(r.done, "pair %zu: %s", i, r.err.msg);
        fake_result_clear(&r);
        ask(cm_arena_z(&arena, second_turn(&arena, user, said)), NULL,
            &(struct fake_reply){.content_type = STREAM, .body = SAYS("on")}, 1);
        ck_assert_msg(r.done, "pair %zu: %s", i, r.err.msg);
        ck_assert_uint_eq(r.n_requests, 1); /* credit was read a moment ago */
        ck_assert_str_eq(sent_in(&r, 0, "chatId"), "\"chat-1\"");
        ck_assert_str_eq(sent_in(&r, 0, "question"), "\"next\"");
        fake_result_clear(&r);
        cm_buf_clear(&frame);
    }
    ck_assert_uint_ge(n, 7);
    cm_arena_clear(&arena);
    yyjson_doc_free(doc);
    free(text);
}
END_TEST

#define TURN_2                                                                                     \
    "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"one\"},{\"role\":"       \
    "\"assistant\",\"content\":\" uno\\n\"},{\"role\":\"user\",\"content\":\"two\"}]}"

static void first_turn(const char *const *options)
{
    const struct fake_reply replies[] = {
        {.body = CREATED}, {.content_type = STREAM, .body = SAYS("uno")}, {.body = USAGE}};

    ask(BODY("gpt-4o", "one"), options, replies, 3);
    ck_assert(r.done);
    fake_result_clear(&r);
}

/* ---- chats that nobody has used for long ---- */

static const char *const aging[] = {"delete_after", "200ms", NULL};
#define LOGGED_IN "{\"user\":{\"name\":\"n\"},\"expires\":\"2098-01-01T00:00:00.000Z\"}"

/* The id of the chat that a probe has deleted; "" = none. */
static const char *deleted_by_probe(struct fake_reply answer)
{
    static char id[32];
    const struct fake_reply replies[] = {{.body = LOGGED_IN}, {.body = USAGE}, answer};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .errand = "probe",
                                  .body = BODY("gpt-4o", "one"),
                                  .memo = memo,
                                  .options = aging,
                                  .replies = replies,
                                  .n_replies = 3},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    id[0] = '\0';
    if (r.n_requests > 2) {
        ck_assert(cm_str_has(r.requests[2].url, CM_S("deleteChat")));
        cm_str_copy(id, sizeof(id), r.requests[2].body);
    }
    fake_result_clear(&r);
    return id;
}

#define THE_CHAT "{\"0\":{\"json\":{\"id\":\"chat-1\"}}}"

START_TEST(a_chat_that_nobody_uses_is_deleted_in_time)
{
    const struct fake_reply well = {.body = DELETED};

    first_turn(aging);
    ck_assert_str_eq(deleted_by_probe(well), "");
    usleep(420000); /* its stretch of time is over, and as long again as it may be unused */
    ck_assert_str_eq(deleted_by_probe((struct fake_reply){.status = 500, .body = "x"}), THE_CHAT);
    ck_assert_str_eq(deleted_by_probe((struct fake_reply){.end = FAKE_DOWN}), THE_CHAT);
    ck_assert_str_eq(deleted_by_probe(well), THE_CHAT);
    ck_assert_str_eq(deleted_by_probe(well), "");
}
END_TEST

START_TEST(a_chat_that_is_used_again_stays)
{
    const struct fake_reply well = {.body = DELETED};

    first_turn(aging);
    usleep(420000);
    ask(TURN_2, aging, &(struct fake_reply){.content_type = STREAM, .body = SAYS("due")}, 1);
    ck_assert(r.done);
    ck_assert_uint_eq(r.n_requests, 1);
    fake_result_clear(&r);
    ck_assert_str_eq(deleted_by_probe(well), "");
    usleep(420000);
    ck_assert_str_eq(deleted_by_probe(well), THE_CHAT);
}
END_TEST

START_TEST(a_chat_that_is_not_ours_is_begun_anew)
{
    static const struct fake_reply refusals[] = {
        {.status = 403, .content_type = "application/json", .body = "{\"message\":\"no\"}"},
        {.status = 404, .content_type = "application/json", .body = "{\"message\":\"no\"}"},
    };

    for (size_t i = 0; i < CM_COUNT(refusals); i++) {
        struct fake_reply replies[] = {
            refusals[i],
            {.body = "[{\"result\":{\"data\":{\"json\":{\"id\":\"chat-2\"}}}}]"},
            {.content_type = STREAM, .body = SAYS("due")}};

        first_turn(NULL);
        ask(TURN_2, NULL, replies, 3);
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_str_eq(sent_in(&r, 0, "chatId"), "\"chat-1\"");
        ck_assert_str_eq(sent_in(&r, 2, "chatId"), "\"chat-2\"");
        ck_assert_str_eq(sent_in(&r, 2, "question"),
                         "\"user: one\\n\\nassistant:  uno\\n\\n\\nuser: two\"");
        fake_result_clear(&r);
        /* once: then it is the platform's own trouble */
        replies[2] = refusals[i];
        first_turn(NULL);
        ask(TURN_2, NULL, replies, 3);
        ck_assert_int_eq(r.err.cls, CM_ERR_UPSTREAM_DOWN);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(others_begin_a_chat_of_their_own)
{
    static const char *const never[] = {"continue", "no", NULL};
    const struct fake_reply replies[] = {
        {.body = CREATED}, {.content_type = STREAM, .body = SAYS("due")}, {.body = USAGE}};
    const struct fake_setup cases[] = {
        {.scope = "somebody else"},
        {.secret = "another account"},
        {.options = never},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake_setup setup = cases[i];

        first_turn(setup.options);
        setup.type = "hix";
        setup.body = TURN_2;
        setup.memo = memo;
        setup.replies = replies;
        setup.n_replies = 3;
        fake_run(&setup, &r);
        ck_assert_str_eq(sent_in(&r, 1, "question"),
                         "\"user: one\\n\\nassistant:  uno\\n\\n\\nuser: two\"");
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- chats that go ---- */

START_TEST(a_chat_goes_after_its_answer)
{
    const struct fake_reply replies[] = {
        {.body = CREATED},
        {.content_type = STREAM, .body = SAYS("x"), .end = FAKE_HANG},
        {.body = DELETED},
        {.body = USAGE}};

    ask(BODY("gpt-4o", "x"), deleting, replies, 4);
    ck_assert(r.done && r.finished_last);
    ck_assert_uint_eq(r.n_requests, 4);
    ck_str(r.requests[2].url, "https://hix.ai/api/trpc/hixChat.deleteChat?batch=1");
    ck_str(r.requests[2].body, "{\"0\":{\"json\":{\"id\":\"chat-1\"}}}");
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_chat_goes_after_a_failure)
{
    static const struct fake_reply failures[] = {
        {.status = 500, .body = "{}"},
        {.content_type = STREAM, .body = "data: {\"content\":\"half\"}\n\n"},
        {.content_type = STREAM, .body = "data: {\"content\":\"half\"}\n\n", .end = FAKE_CUT},
        {.content_type = STREAM,
         .body = "data: {\"code\":\"CONTENT_FILTERED\"}\n\n",
         .end = FAKE_HANG},
        {.content_type = STREAM, .body = "data: [DONE]\n\n", .end = FAKE_HANG},
        {.end = FAKE_DOWN},
    };

    for (size_t i = 0; i < CM_COUNT(failures); i++) {
        const struct fake_reply replies[] = {{.body = CREATED}, failures[i], {.body = DELETED}};

        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = BODY("gpt-4o", "x"),
                                      .options = deleting,
                                      .replies = replies,
                                      .n_replies = 3},
                 &r);
        ck_assert_msg(!r.done && r.n_requests == 3, "case %zu", i);
        ck_str(r.requests[2].body, "{\"0\":{\"json\":{\"id\":\"chat-1\"}}}");
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(what_could_not_be_deleted_is_remembered)
{
    struct fake_reply replies[] = {{.body = CREATED},
                                   {.content_type = STREAM, .body = SAYS("x")},
                                   {.status = 500},
                                   {.body = USAGE}};
    const struct fake_reply again[] = {
        {.body = "[{\"result\":{\"data\":{\"json\":{\"id\":\"chat-2\"}}}}]"},
        {.content_type = STREAM, .body = SAYS("x")},
        {.body = DELETED},
        {.status = 404, /* somebody was faster */
         .body = "[{\"error\":{\"json\":{\"message\":\"m\",\"code\":-32004,\"data\":{}}}}]"}};

    ask(BODY("gpt-4o", "x"), deleting, replies, 4);
    ck_assert(r.done);
    fake_result_clear(&r);
    for (int i = 0; i < 2; i++) {
        ask(BODY("gpt-4o", "x"), deleting, again, 4);
        ck_assert(r.done);
        ck_assert_uint_eq(r.n_requests, i == 0 ? 4 : 3);
        ck_str(r.requests[2].body, "{\"0\":{\"json\":{\"id\":\"chat-2\"}}}");
        if (i == 0)
            ck_str(r.requests[3].body, "{\"0\":{\"json\":{\"id\":\"chat-1\"}}}");
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(what_can_not_be_deleted_is_left_after_five_times)
{
    const struct fake_reply first[] = {{.body = CREATED},
                                       {.content_type = STREAM, .body = SAYS("x")},
                                       {.status = 500},
                                       {.body = USAGE}};
    const struct fake_reply later[] = {
        {.body = "[{\"result\":{\"data\":{\"json\":{\"id\":\"chat-2\"}}}}]"},
        {.content_type = STREAM, .body = SAYS("x")},
        {.body = DELETED},
        {.status = 500}};

    for (int i = 0; i < 6; i++) {
        ask(BODY("gpt-4o", "x"), deleting, i == 0 ? first : later, 4);
        ck_assert(r.done);
        ck_assert_uint_eq(r.n_requests, i < 5 ? 4 : 3);
        if (i > 0 && i < 5)
            ck_str(r.requests[3].body, "{\"0\":{\"json\":{\"id\":\"chat-1\"}}}");
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(a_client_that_leaves_ends_the_call)
{
    const struct fake_reply replies[] = {
        {.body = CREATED},
        {.content_type = STREAM, .body = "data: {\"content\":\"x\"}\n\n", .end = FAKE_HANG},
        {.body = DELETED}};

    for (int i = 0; i < 2; i++) {
        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = BODY("gpt-4o", "x"),
                                      .options = i ? deleting : NULL,
                                      .replies = replies,
                                      .n_replies = 3,
                                      .leave_after = 1},
                 &r);
        ck_assert(r.released && !r.done);
        ck_assert_uint_lt(r.took_ms, 1000);
        ck_assert_uint_eq(r.n_requests, i ? 3 : 2);
        fake_result_clear(&r);
    }
}
END_TEST

static void answer(struct fake *f, int status, struct cm_str body)
{
    fake_head(f, status, NULL);
    fake_data(f, body);
    fake_end(f);
}

/* The client leaves while the chat is being made, and while it is being deleted after a failure: each time it is deleted. */
START_TEST(a_client_leaves_in_between)
{
    struct cm_conf_pair pair = {.key = CM_S("delete_chat"), .value = CM_S("yes")};
    struct fake f;

    for (int i = 0; i < 2; i++) {
        fake_init(&f);
        f.conf.options = &pair;
        f.conf.n_options = 1;
        f.conf.upstream.response_timeout_ms = 5000;
        f.target.row = &hix_models[0];
        fake_use(&f, "hix");
        fake_chat(&f, CM_S(BODY("gpt-3-5-turbo", "x")));
        fake_open(&f);
        fake_turn(&f);
        if (i == 1) {
            answer(&f, 200, CM_S(CREATED));
            answer(&f, 500, CM_S("oops"));
        }
        ck_assert_uint_eq(f.n_calls, i == 0 ? 1 : 3);
        fake_close(&f);
        ck_assert_uint_eq(f.n_released, 0);
        if (i == 0)
            answer(&f, 200, CM_S(CREATED));
        ck_assert_uint_eq(f.n_calls, i == 0 ? 2 : 4);
        ck_str(f.calls[f.n_calls - 1].body, "{\"0\":{\"json\":{\"id\":\"chat-1\"}}}");
        answer(&f, 200, CM_S(DELETED));
        ck_assert_uint_eq(f.n_released, 1);
        fake_clear(&f);
    }
}
END_TEST

Suite *suite_hix_chats(void)
{
    Suite *s = suite_create("hix_chats");
    TCase *t = tcase_create("hix_chats");

    tcase_add_checked_fixture(t, with_memo, without_memo);
    tcase_set_timeout(t, 20);
    tcase_add_test(t, each_pair_goes_on_in_its_chat);
    tcase_add_test(t, a_chat_that_nobody_uses_is_deleted_in_time);
    tcase_add_test(t, a_chat_that_is_used_again_stays);
    tcase_add_test(t, a_chat_that_is_not_ours_is_begun_anew);
    tcase_add_test(t, others_begin_a_chat_of_their_own);
    tcase_add_test(t, a_chat_goes_after_its_answer);
    tcase_add_test(t, a_chat_goes_after_a_failure);
    tcase_add_test(t, what_could_not_be_deleted_is_remembered);
    tcase_add_test(t, what_can_not_be_deleted_is_left_after_five_times);
    tcase_add_test(t, a_client_that_leaves_ends_the_call);
    tcase_add_test(t, a_client_leaves_in_between);
    suite_add_tcase(s, t);
    return s;
}
