/* provider/hix: its calls, its stream in both framings at every split, its models, the question a conversation becomes, answers that break off. */
#include "fake_run.h"
#include "fixture.h"
#include "hix_words.h"

#include "chatmux/base/mem.h"
#include "unit.h"

#include "provider/hix_int.h"
#include <stdlib.h>

static struct fake_result r;

/* ---- the answer ---- */

START_TEST(same_answer_for_every_split)
{
    static const char *const files[] = {"hix/events.txt", "hix/data.txt"};
    char *created = fixture("hix/created.json");

    for (size_t f = 0; f < CM_COUNT(files); f++) {
        char *answer = fixture(files[f]);
        const struct fake_reply replies[] = {{.content_type = "application/json", .body = created},
                                             {.content_type = STREAM, .body = answer},
                                             {.body = USAGE}};

        for (size_t piece = 0; piece <= 64; piece++) {
            fake_run(&(struct fake_setup){.type = "hix",
                                          .body = BODY("deepseek-r1", "Name a colour."),
                                          .replies = replies,
                                          .n_replies = 3,
                                          .piece = piece},
                     &r);
            ck_assert_msg(r.done, "%s in pieces of %zu: %s", files[f], piece, r.err.msg);
            ck_assert(r.finished_last);
            ck_assert_str_eq(fake_text(&r), "Blue 世界\n");
            ck_assert_str_eq(fake_reasoning(&r), "Two options.");
            ck_assert_int_eq(r.answer.usage.source, CM_USAGE_ESTIMATED);
            ck_assert_int_gt(r.answer.usage.out_text, 0);
            ck_str(r.quota, "{\"credit\":60,\"advanced_credit\":0,\"subscribed\":false}");
            fake_result_clear(&r);
        }
        free(answer);
    }
    free(created);
}
END_TEST

START_TEST(its_calls_with_their_headers)
{
    char *created = fixture("hix/created.json"), *answer = fixture("hix/data.txt"),
         *vectors = fixture("hix/vectors.json");
    const struct fake_reply replies[] = {
        {.body = created}, {.content_type = STREAM, .body = answer}, {.body = USAGE}};
    yyjson_doc *doc = cm_json_parse(cm_str_of(vectors), &cm_json_limits_event, NULL);
    struct cm_str input =
        cm_json_str(cm_json_get(cm_json_get(yyjson_doc_get_root(doc), "usage_input"), "encoded"));

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("gpt-4", "a \\\"b\\\""),
                                  .secret = "c=1",
                                  .replies = replies,
                                  .n_replies = 3},
             &r);
    ck_assert(r.done);
    ck_assert_uint_eq(r.n_requests, 3);
    ck_str(r.requests[0].method, "POST");
    ck_str(r.requests[0].url, "https://hix.ai/api/trpc/hixChat.createChat?batch=1");
    ck_str(r.requests[0].body, "{\"0\":{\"json\":{\"title\":\"Untitled\",\"botId\":10}}}");
    ck_str(r.requests[1].url, "https://hix.ai/api/hix/chat");
    ck_str(r.requests[1].body,
           "{\"chatId\":\"chat 1/2\",\"fileUrl\":\"\",\"question\":\"a \\\"b\\\"\"}");
    ck_str(r.requests[2].method, "GET");
    ck_assert(
        cm_str_eq(r.requests[2].url,
                  cm_arena_printf(&r.arena,
                                  "https://hix.ai/api/trpc/hixChat.getUsedBotList,subLog.getSubLog,"
                                  "subUsage.getSubUsage?batch=1&input=" CM_PRI,
                                  CM_ARG(input))));
    for (size_t i = 0; i < 3; i++) {
        ck_assert_str_eq(header_of(&r, i, "accept"),
                         i == 1 ? "text/event-stream" : "application/json");
        ck_assert_str_eq(header_of(&r, i, "content-type"), "application/json");
        ck_assert_str_eq(header_of(&r, i, "cookie"), "c=1");
        ck_assert_str_eq(header_of(&r, i, "origin"), "https://hix.ai");
        ck_assert_str_eq(header_of(&r, i, "referer"),
                         i == 1 ? "https://hix.ai/gpt4?/id=chat%201%2F2" : "https://hix.ai/");
        ck_assert(strncmp(header_of(&r, i, "user-agent"), "Mozilla/5.0 (", 13) == 0);
        ck_assert(strstr(header_of(&r, i, "sec-ch-ua"), "Chrome") != NULL);
        ck_assert_str_eq(header_of(&r, i, "user-agent"), header_of(&r, 0, "user-agent"));
    }
    fake_result_clear(&r);
    yyjson_doc_free(doc);
    free(created);
    free(answer);
    free(vectors);
}
END_TEST

START_TEST(options_move_the_calls)
{
    static const char *const options[] = {
        "origin",      "https://o", "create_path", "/c",   "chat_path",   "/t",
        "title",       "T",         "search_type", "news", "delete_path", "/d",
        "usage_path",  "/u?a=1",    "usage_input", "{}",   "delete_chat", "yes",
        "resume_path", "",          NULL};
    static const char *const models[] = {"mine=85600", NULL};
    const struct fake_reply replies[] = {{.body = CREATED},
                                         {.content_type = STREAM, .body = SAYS("x")},
                                         {.body = DELETED},
                                         {.body = USAGE}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("mine-search", "q"),
                                  .options = options,
                                  .models = models,
                                  .replies = replies,
                                  .n_replies = 4},
             &r);
    ck_assert(r.done);
    ck_str(r.requests[0].url, "https://hix.ai/c");
    ck_str(r.requests[0].body, "{\"0\":{\"json\":{\"title\":\"T\",\"botId\":85600}}}");
    ck_str(r.requests[1].url, "https://hix.ai/t");
    ck_str(
        r.requests[1].body,
        "{\"chatId\":\"chat-1\",\"fileUrl\":\"\",\"question\":\"q\",\"search\":true,\"searchType\":\"news\"}");
    ck_assert_str_eq(header_of(&r, 1, "referer"), "https://o/85600?/id=chat-1");
    ck_str(r.requests[2].url, "https://hix.ai/d");
    ck_str(r.requests[3].url, "https://hix.ai/u?a=1&input=%7B%7D");
    fake_result_clear(&r);
}
END_TEST

START_TEST(kinds_of_search)
{
    static const struct {
        const char *body, *type;
    } cases[] = {{BODY("gpt-4o-search", "q"), "\"internet\""},
                 {BODY("gpt-4o-news", "q"), "\"news\""},
                 {BODY("gpt-4o-academic", "q"), "\"academic\""},
                 {BODY("gpt-4o", "q"), ""}};
    const struct fake_reply replies[] = {
        {.body = CREATED}, {.content_type = STREAM, .body = SAYS("x")}, {.body = USAGE}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        fake_run(
            &(struct fake_setup){
                .type = "hix", .body = cases[i].body, .replies = replies, .n_replies = 3},
            &r);
        ck_assert(r.done);
        ck_assert_str_eq(sent_in(&r, 1, "searchType"), cases[i].type);
        ck_assert_str_eq(sent_in(&r, 1, "search"), cases[i].type[0] ? "true" : "");
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- models ---- */

static const struct cm_model_row *row(const struct cm_instance *in, const char *name)
{
    for (size_t i = 0; i < in->n_rows; i++) {
        if (cm_str_eq(in->rows[i].name, cm_str_of(name)))
            return &in->rows[i];
    }
    return NULL;
}

static int instance(struct cm_instance *in, struct cm_arena *arena, struct cm_problems *problems,
                    const char *bots, struct cm_str model)
{
    struct cm_provider_conf *conf = CM_ARENA_NEW(arena, struct cm_provider_conf);
    struct cm_conf_pair *pair = CM_ARENA_NEW(arena, struct cm_conf_pair);
    struct cm_str *models = CM_ARENA_NEW(arena, struct cm_str);

    *pair = (struct cm_conf_pair){.key = CM_S("bots"), .value = cm_str_of(bots)};
    *models = model;
    *conf = (struct cm_provider_conf){.name = CM_S("p"),
                                      .type = CM_S("hix"),
                                      .options = pair,
                                      .n_options = 1,
                                      .models = {models, model.n > 0}};
    cm_problems_init(problems, arena);
    return cm_instance_init(in, conf, arena, problems);
}

START_TEST(the_table_is_the_operators_to_edit)
{
    static const char *const wrong[] = {"new",     "new=",      "=5",       "new=0",      "new=x",
                                        "new=5/y", "new=5/1/z", "new=5/-1", "new=5/1/2/3"};
    struct cm_arena arena = {0};
    struct cm_problems problems;
    struct cm_instance in;

    ck_assert_int_eq(instance(&in, &arena, &problems,
                              "claude-opus-5=85502/20a/100000\n gpt-4o=6/31, new=99", CM_STR_NONE),
                     0);
    ck_assert_uint_eq(in.n_rows, HIX_N_MODELS + 1);
    ck_assert_int_eq(row(&in, "claude-opus-5")->cost, 20);
    ck_assert_uint_eq(row(&in, "claude-opus-5")->purse, HIX_ADVANCED);
    ck_assert_int_eq(row(&in, "gpt-4o")->number, 6);
    ck_assert_int_eq(row(&in, "gpt-4o")->cost, 31);
    ck_assert_int_eq(row(&in, "new")->number, 99);
    ck_assert_int_eq(row(&in, "new")->cost, 0);
    ck_assert_uint_ne(row(&in, "new")->features & CM_MODEL_ACADEMIC, 0);
    ck_assert_int_eq(row(&in, "gpt-4")->cost, 45);
    ck_assert_uint_eq(row(&in, "gpt-4")->purse, HIX_ADVANCED);
    ck_assert_int_eq(row(&in, "grok-2")->cost, 100);
    ck_assert_int_eq(row(&in, "gpt-3.5-turbo-16k")->cost, 12);
    /* a bot by its number is what the table says of it */
    ck_assert_int_eq(instance(&in, &arena, &problems, "other=77/3", CM_S("mine=85428")), 0);
    ck_assert_uint_eq(in.n_rows, 1);
    ck_assert_int_eq(row(&in, "mine")->cost, 100);
    ck_assert_int_eq(instance(&in, &arena, &problems, "other=77/3a", CM_S("mine=77")), 0);
    ck_assert_int_eq(row(&in, "mine")->cost, 3);
    ck_assert_uint_eq(row(&in, "mine")->purse, HIX_ADVANCED);
    for (size_t i = 0; i < CM_COUNT(wrong); i++)
        ck_assert_msg(instance(&in, &arena, &problems, wrong[i], CM_STR_NONE) == -1, "%s",
                      wrong[i]);
    cm_arena_clear(&arena);
}
END_TEST

/* ---- the question ---- */

/* The question that a conversation with a history of `n` turns of `chars` characters becomes. */
static const char *question_of(const char *bots, int n, int chars, int last_chars)
{
    const struct fake_reply replies[] = {
        {.body = CREATED}, {.content_type = STREAM, .body = SAYS("x")}, {.body = USAGE}};
    const char *const options[] = {"bots", bots, NULL};
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
    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = cm_buf_z(&body),
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = 3},
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
    const char *q = question_of("", 2, 1, 3);

    ck_assert_str_eq(q, "system: S\n\nuser: <0>世\n\nassistant: <1>世\n\nuser: qqq");
    fake_result_clear(&r);
    q = question_of("", 20, 1000, 3); /* 8000 characters fit */
    ck_assert(strncmp(q, "system: S\n\n", 11) == 0);
    ck_assert_ptr_null(strstr(q, "<12>"));
    ck_assert_ptr_nonnull(strstr(q, "<13>"));
    ck_assert_ptr_nonnull(strstr(q, "<19>"));
    ck_assert_ptr_nonnull(strstr(q, "user: qqq"));
    fake_result_clear(&r);
    q = question_of("gpt-4o=5/30/22000", 20, 1000, 3); /* the operator knows better */
    ck_assert_ptr_nonnull(strstr(q, "<0>"));
    fake_result_clear(&r);
    q = question_of("", 4, 10, 8000); /* alone, without the system text */
    ck_assert_uint_eq(strlen(q), 8000);
    fake_result_clear(&r);
    ck_assert_ptr_null(question_of("", 4, 10, 8001));
    ck_assert_int_eq(r.err.cls, CM_ERR_CONTEXT_LENGTH);
    ck_assert_ptr_nonnull(strstr(r.err.msg, "input text too long: 8001"));
    ck_assert_uint_eq(r.n_requests, 0);
    fake_result_clear(&r);
}
END_TEST

START_TEST(what_the_platform_has_not_is_refused)
{
    static const struct {
        const char *body, *param; /* NULL = not refused */
    } cases[] = {
        {"{\"model\":\"gpt-4o\",\"messages\":[" AUDIO "]}", "messages[0].content"},
        {"{\"model\":\"gpt-4o\",\"messages\":[" ASK "," FILE_ID "," ASK "]}",
         "messages[1].content"},
        {"{\"model\":\"gpt-4o\",\"messages\":[" ASK ",{\"role\":\"user\",\"content\":[" PNG
         "," TEXT("x") "," PDF "]}]}",
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

/* ---- broken streams ---- */

#define BEGUN                                                                                      \
    "id: 1716-0\nevent: 2002\ndata: {\"detailId\":900001}\n\nid: 1716-1\ndata: "                   \
    "{\"content\":\"Bl\"}\n\n"

START_TEST(a_broken_answer_is_asked_for_its_rest)
{
    static const struct {
        struct fake_reply broken, rest;
        enum cm_err_class cls;
        const char *text;
    } cases[] = {
        {{.content_type = STREAM, .body = BEGUN},
         {.content_type = STREAM, .body = SAYS("ue")},
         0,
         "Blue"},
        {{.content_type = STREAM, .body = BEGUN, .end = FAKE_CUT},
         {.content_type = STREAM, .body = SAYS("ue")},
         0,
         "Blue"},
        {{.content_type = STREAM, .body = BEGUN},
         {.content_type = STREAM, .body = BEGUN},
         CM_ERR_CUT,
         "BlBl"},
        {{.content_type = STREAM, .body = BEGUN}, {.status = 404, .body = "{}"}, CM_ERR_CUT, "Bl"},
        {{.content_type = STREAM, .body = BEGUN}, {.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN, "Bl"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_reply replies[] = {
            {.body = CREATED}, cases[i].broken, cases[i].rest, {.body = USAGE}};

        fake_run(
            &(struct fake_setup){
                .type = "hix", .body = BODY("gpt-4o", "x"), .replies = replies, .n_replies = 4},
            &r);
        ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s", i, r.err.msg);
        ck_assert_str_eq(fake_text(&r), cases[i].text);
        ck_str(r.requests[2].url, "https://hix.ai/api/hix/agentEvent");
        ck_str(r.requests[2].body,
               "{\"chatId\":\"chat-1\",\"detailId\":900001,\"lastCursor\":\"1716-1\"}");
        ck_assert_str_eq(header_of(&r, 2, "accept"), "text/event-stream");
        fake_result_clear(&r);
    }
}
END_TEST

Suite *suite_hix(void)
{
    Suite *s = suite_create("hix");
    TCase *t = tcase_create("hix");

    tcase_set_timeout(t, 20);
    tcase_add_test(t, same_answer_for_every_split);
    tcase_add_test(t, its_calls_with_their_headers);
    tcase_add_test(t, options_move_the_calls);
    tcase_add_test(t, kinds_of_search);
    tcase_add_test(t, the_table_is_the_operators_to_edit);
    tcase_add_test(t, history_is_flattened_within_the_limit);
    tcase_add_test(t, what_the_platform_has_not_is_refused);
    tcase_add_test(t, what_it_cannot_do_is_said_at_once);
    tcase_add_test(t, a_broken_answer_is_asked_for_its_rest);
    suite_add_tcase(s, t);
    return s;
}
