/* provider/hix: its calls, its stream in both framings at every split, questions, files, conversations that go on and chats that go. */
#include "fake_host.h"
#include "fake_run.h"
#include "fixture.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/memo.h"
#include "unit.h"

#include "provider/hix_int.h"
#include <stdio.h>
#include <stdlib.h>

#define BODY(model, text)                                                                          \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"
#define CREATED "[{\"result\":{\"data\":{\"json\":{\"id\":\"chat-1\"}}}}]"
#define STREAM "text/event-stream; charset=utf-8"
#define SAYS(text) "data: {\"content\":\"" text "\"}\n\ndata: [DONE]\n\n"
#define USAGE                                                                                      \
    "[{\"result\":{\"data\":{\"json\":{\"usageList\":[{\"total_count\":100,\"use_count\":40}],"    \
    "\"isActiveSub\":false}}}}]"
#define DELETED "[{\"result\":{\"data\":{\"json\":null}}}]"

static const char *const deleting[] = {"delete_chat", "yes", NULL};
static struct fake_result r;

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

/* The member of the JSON that was sent. */
static const char *sent(size_t request, const char *member)
{
    return cm_arena_z(&r.arena, cm_json_member(r.requests[request].body, cm_str_of(member)));
}

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
        ck_assert_str_eq(header(i, "accept"), i == 1 ? "text/event-stream" : "application/json");
        ck_assert_str_eq(header(i, "content-type"), "application/json");
        ck_assert_str_eq(header(i, "cookie"), "c=1");
        ck_assert_str_eq(header(i, "origin"), "https://hix.ai");
        ck_assert_str_eq(header(i, "referer"),
                         i == 1 ? "https://hix.ai/gpt4?/id=chat%201%2F2" : "https://hix.ai/");
        ck_assert(strncmp(header(i, "user-agent"), "Mozilla/5.0 (", 13) == 0);
        ck_assert(strstr(header(i, "sec-ch-ua"), "Chrome") != NULL);
        ck_assert_str_eq(header(i, "user-agent"), header(0, "user-agent"));
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
    ck_assert_str_eq(header(1, "referer"), "https://o/85600?/id=chat-1");
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
        ck_assert_str_eq(sent(1, "searchType"), cases[i].type);
        ck_assert_str_eq(sent(1, "search"), cases[i].type[0] ? "true" : "");
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

#define AUDIO                                                                                       \
    "{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AAAA\"," \
    "\"format\":\"wav\"}}]}"
#define FILE_ID "{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}}]}"
#define PNG                                                                                        \
    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,iVBORw0KGgo=\"}}"
#define PDF                                                                                        \
    "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":\"data:application/"        \
    "pdf;base64,JVBERi0x\"}}"
#define TEXT(text) "{\"type\":\"text\",\"text\":\"" text "\"}"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
#define ASK "{\"role\":\"user\",\"content\":\"x\"}"

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

/* ---- files ---- */

#define SIGN(key) "{\"sign\":\"https://b.s3.r.amazonaws.com/" key "?X-Amz-Signature=s&x=1\"}"

START_TEST(a_file_is_put_where_the_platform_says)
{
    const struct fake_reply replies[] = {{.body = CREATED},
                                         {.body = SIGN("k/1.png")},
                                         {.status = 200},
                                         {.content_type = STREAM, .body = SAYS("a dot")},
                                         {.body = USAGE}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
                                          "\"content\":[" TEXT("What is it?") "," PNG "]}]}",
                                  .secret = "c=1",
                                  .replies = replies,
                                  .n_replies = 5},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 5);
    ck_str(r.requests[1].url, "https://hix.ai/api/upload/sign");
    ck_assert_str_eq(header(1, "referer"), "https://hix.ai/home?id=chat-1");
    ck_assert_str_eq(sent(1, "type"), "\"file\"");
    ck_assert_uint_eq(strlen(sent(1, "filename")), sizeof("\"20250131235959.png\"") - 1);
    ck_assert(cm_str_ends(cm_str_of(sent(1, "filename")), CM_S(".png\"")));
    ck_assert_uint_eq(strspn(sent(1, "filename") + 1, "0123456789"), 14);
    ck_str(r.requests[2].method, "PUT");
    ck_str(r.requests[2].url, "https://b.s3.r.amazonaws.com/k/1.png?X-Amz-Signature=s&x=1");
    ck_str(r.requests[2].body, "\x89PNG\r\n\x1a\n");
    ck_assert_str_eq(header(2, "content-type"), "image/png");
    ck_assert_str_eq(header(2, "cookie"), "");
    ck_assert_str_eq(header(2, "origin"), "");
    ck_assert_str_eq(sent(3, "fileUrl"), "\"https://b.s3.r.amazonaws.com/k/1.png\"");
    ck_assert_str_eq(sent(3, "fileUrls"), "");
    ck_assert_str_eq(sent(3, "question"), "\"What is it?\"");
    fake_result_clear(&r);
}
END_TEST

#define LOOK_AT(url)                                                                               \
    "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":[" TEXT(                   \
        "What is it?") ",{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\"}}]}]}"

START_TEST(a_file_behind_an_address_is_fetched_first)
{
    const struct fake_reply replies[] = {{.content_type = "text/plain", .body = "%PDF-1.7"},
                                         {.body = CREATED},
                                         {.body = SIGN("k/1.pdf")},
                                         {.status = 200},
                                         {.content_type = STREAM, .body = SAYS("a page")},
                                         {.body = USAGE}};
    static const struct {
        struct fake_reply reply;
        const char *code;
    } failures[] = {
        {{.status = 404}, "invalid_image_url"},
        {{.body = "GIF89a\1\2\3\4\5\6"}, "invalid_file"},
    };

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = LOOK_AT("https://elsewhere.test/p?q=1"),
                                  .secret = "c=1",
                                  .replies = replies,
                                  .n_replies = 6},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.requests[0].url, "https://elsewhere.test/p?q=1");
    ck_assert_str_eq(header(0, "cookie"), "");
    ck_str(r.requests[3].body, "%PDF-1.7");
    ck_assert_str_eq(header(3, "content-type"), "application/pdf");
    ck_assert_str_eq(sent(4, "fileUrl"), "\"https://b.s3.r.amazonaws.com/k/1.pdf\"");
    fake_result_clear(&r);
    for (size_t i = 0; i < CM_COUNT(failures); i++) {
        const struct fake_reply bad[] = {failures[i].reply, {.body = CREATED}, {.body = DELETED}};

        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = LOOK_AT("https://elsewhere.test/p"),
                                      .options = deleting,
                                      .replies = bad,
                                      .n_replies = 3},
                 &r);
        ck_assert_msg(r.err.cls == CM_ERR_BAD_REQUEST, "case %zu: %s", i, r.err.msg);
        ck_assert_str_eq(r.err.code, failures[i].code);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(several_files_where_the_operator_allows_it)
{
    static const char *const options[] = {"file_urls", "yes", NULL};
    const struct fake_reply replies[] = {
        {.body = CREATED},   {.body = SIGN("1")}, {.status = 200},
        {.body = SIGN("2")}, {.status = 200},     {.content_type = STREAM, .body = SAYS("x")},
        {.body = USAGE}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
                                          "\"content\":[" PNG "," PDF "]}]}",
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = 7},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(header(2, "content-type"), "image/png");
    ck_assert_str_eq(header(4, "content-type"), "application/pdf");
    ck_assert_str_eq(sent(5, "fileUrl"), "\"https://b.s3.r.amazonaws.com/1\"");
    ck_assert_str_eq(sent(5, "fileUrls"),
                     "[\"https://b.s3.r.amazonaws.com/1\",\"https://b.s3.r.amazonaws.com/2\"]");
    ck_assert_str_eq(sent(5, "question"), "\"[image]\\n[file a.pdf]\""); /* it wants words */
    fake_result_clear(&r);
}
END_TEST

/* What earlier questions showed stands in the text; the file that was shown last goes along. */
START_TEST(earlier_files_are_told_of)
{
    const struct fake_reply replies[] = {{.body = CREATED},
                                         {.body = SIGN("1")},
                                         {.status = 200},
                                         {.content_type = STREAM, .body = SAYS("x")},
                                         {.body = USAGE}};

    fake_run(
        &(struct fake_setup){
            .type = "hix",
            .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":[" PNG
                    "," TEXT("one") "]},{\"role\":\"assistant\",\"content\":\"a\"},"
                                    "{\"role\":\"user\",\"content\":[" TEXT(
                                        "two") "," PDF
                                               "]},{\"role\":\"assistant\",\"content\":\"b\"}," ASK
                                               "]}",
            .replies = replies,
            .n_replies = 5},
        &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(header(2, "content-type"), "application/pdf");
    ck_assert_str_eq(sent(3, "question"), "\"user: [image]\\none\\n\\nassistant: a\\n\\nuser: "
                                          "two\\n\\nassistant: b\\n\\nuser: x\"");
    fake_result_clear(&r);
}
END_TEST

START_TEST(files_that_cannot_be_sent)
{
    static const struct {
        struct fake_reply sign, put;
        enum cm_err_class cls;
    } cases[] = {
        {{.body = "{}"}, {0}, CM_ERR_UPSTREAM_DOWN},
        {{.body = "{\"sign\":\"ftp://x\"}"}, {0}, CM_ERR_UPSTREAM_DOWN},
        {{.status = 401}, {0}, CM_ERR_EXPIRED},
        {{.end = FAKE_DOWN}, {0}, CM_ERR_UPSTREAM_DOWN},
        {{.body = SIGN("1")}, {.status = 403}, CM_ERR_UPSTREAM_DOWN},
        {{.body = SIGN("1")}, {.status = 204}, CM_ERR_UPSTREAM_DOWN},
        {{.body = SIGN("1")}, {.end = FAKE_CUT}, CM_ERR_CUT},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const bool signs = cases[i].sign.body && cases[i].put.status + (int)cases[i].put.end > 0;
        const struct fake_reply replies[] = {{.body = CREATED},
                                             cases[i].sign,
                                             signs ? cases[i].put
                                                   : (struct fake_reply){.body = DELETED},
                                             {.body = DELETED}};

        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":"
                                              "\"user\",\"content\":[" TEXT("x") "," PNG "]}]}",
                                      .options = deleting,
                                      .replies = replies,
                                      .n_replies = 4},
                 &r);
        ck_assert_msg(!r.done && r.err.cls == cases[i].cls, "case %zu: %s", i, r.err.msg);
        ck_assert_msg(cm_str_has(r.requests[r.n_requests - 1].url, CM_S("deleteChat")), "case %zu",
                      i);
        fake_result_clear(&r);
    }
    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
                                          "\"content\":[{\"type\":\"image_url\",\"image_url\":{"
                                          "\"url\":\"data:image/gif;base64,AAECAwQFBgcI\"}}]}]}",
                                  .replies = &(struct fake_reply){.body = CREATED},
                                  .n_replies = 1},
             &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_ptr_nonnull(strstr(r.err.msg, "invalid file type"));
    fake_result_clear(&r);
}
END_TEST

START_TEST(types_of_files)
{
    static const struct {
        const char *bytes;
        size_t n;
        bool said;
        const char *extension; /* NULL = refused */
    } cases[] = {
        {"%PDF-1.7", 8, false, ".pdf"},
        {"\xff\xd8\xff\xe0", 4, false, ".jpg"},
        {"\x89PNG\r\n\x1a\n", 8, false, ".png"},
        {"\x89PNG\r\n\x1a", 7, false, NULL},
        {"RIFF\1\2\3\4WEBP", 12, false, ".webp"},
        {"RIFF\1\2\3\4WAVE", 12, false, NULL},
        {"XXXX\1\2\3\4WEBP", 12, false, NULL},
        {"\xd0\xcf\x11\xe0\xa1\xb1", 6, false, ".doc"},
        {"plain text, grün 世界\r\n", 26, false, ".txt"},
        {"\xef\xbb\xbf\1\2\3", 6, false, ".txt"},
        {"\xff\xfeh\0i\0", 6, false, ".txt"},
        {"\1\2\3\4\5\6", 6, false, NULL},
        {"\1\2\3\4\5\6", 6, true, ".txt"},
        {"aaaaaaaaaaaaaaaaaaa\1", 20, false, NULL}, /* 5 % */
        {"aaaaaaaaaaaaaaaaaaaa\1", 21, false, ".txt"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct hix_file_type *t =
            hix_file_type(cm_str(cases[i].bytes, cases[i].n), cases[i].said);

        ck_assert_msg((t == NULL) == (cases[i].extension == NULL), "case %zu", i);
        ck_assert(!t || strcmp(t->extension, cases[i].extension) == 0);
    }
}
END_TEST

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
        fake_run(
            &(struct fake_setup){.type = "hix",
                                 .body = cm_arena_z(&arena, second_turn(&arena, user, CM_STR_NONE)),
                                 .memo = memo,
                                 .replies = replies,
                                 .n_replies = k},
            &r);
        ck_assert_msg(r.done, "pair %zu: %s", i, r.err.msg);
        fake_result_clear(&r);
        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = cm_arena_z(&arena, second_turn(&arena, user, said)),
                                      .memo = memo,
                                      .replies = &(struct fake_reply){.content_type = STREAM,
                                                                      .body = SAYS("on")},
                                      .n_replies = 1},
                 &r);
        ck_assert_msg(r.done, "pair %zu: %s", i, r.err.msg);
        ck_assert_uint_eq(r.n_requests, 1); /* credit was read a moment ago */
        ck_assert_str_eq(sent(0, "chatId"), "\"chat-1\"");
        ck_assert_str_eq(sent(0, "question"), "\"next\"");
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

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("gpt-4o", "one"),
                                  .memo = memo,
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = 3},
             &r);
    ck_assert(r.done);
    fake_result_clear(&r);
}

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
        fake_run(
            &(struct fake_setup){
                .type = "hix", .body = TURN_2, .memo = memo, .replies = replies, .n_replies = 3},
            &r);
        ck_assert_msg(r.done, "%s", r.err.msg);
        ck_assert_str_eq(sent(0, "chatId"), "\"chat-1\"");
        ck_assert_str_eq(sent(2, "chatId"), "\"chat-2\"");
        ck_assert_str_eq(sent(2, "question"),
                         "\"user: one\\n\\nassistant:  uno\\n\\n\\nuser: two\"");
        fake_result_clear(&r);
        /* once: then it is the platform's own trouble */
        replies[2] = refusals[i];
        first_turn(NULL);
        fake_run(
            &(struct fake_setup){
                .type = "hix", .body = TURN_2, .memo = memo, .replies = replies, .n_replies = 3},
            &r);
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
        ck_assert_str_eq(sent(1, "question"),
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

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("gpt-4o", "x"),
                                  .options = deleting,
                                  .memo = memo,
                                  .replies = replies,
                                  .n_replies = 4},
             &r);
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

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = BODY("gpt-4o", "x"),
                                  .options = deleting,
                                  .memo = memo,
                                  .replies = replies,
                                  .n_replies = 4},
             &r);
    ck_assert(r.done);
    fake_result_clear(&r);
    for (int i = 0; i < 2; i++) {
        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = BODY("gpt-4o", "x"),
                                      .options = deleting,
                                      .memo = memo,
                                      .replies = again,
                                      .n_replies = 4},
                 &r);
        ck_assert(r.done);
        ck_assert_uint_eq(r.n_requests, i == 0 ? 4 : 3);
        ck_str(r.requests[2].body, "{\"0\":{\"json\":{\"id\":\"chat-2\"}}}");
        if (i == 0)
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
        ck_assert_str_eq(header(2, "accept"), "text/event-stream");
        fake_result_clear(&r);
    }
}
END_TEST

Suite *suite_hix(void)
{
    Suite *s = suite_create("hix");
    TCase *t = tcase_create("hix");

    tcase_add_checked_fixture(t, with_memo, without_memo);
    tcase_set_timeout(t, 20);
    tcase_add_test(t, same_answer_for_every_split);
    tcase_add_test(t, its_calls_with_their_headers);
    tcase_add_test(t, options_move_the_calls);
    tcase_add_test(t, kinds_of_search);
    tcase_add_test(t, the_table_is_the_operators_to_edit);
    tcase_add_test(t, history_is_flattened_within_the_limit);
    tcase_add_test(t, what_the_platform_has_not_is_refused);
    tcase_add_test(t, what_it_cannot_do_is_said_at_once);
    tcase_add_test(t, a_file_is_put_where_the_platform_says);
    tcase_add_test(t, a_file_behind_an_address_is_fetched_first);
    tcase_add_test(t, several_files_where_the_operator_allows_it);
    tcase_add_test(t, earlier_files_are_told_of);
    tcase_add_test(t, files_that_cannot_be_sent);
    tcase_add_test(t, types_of_files);
    tcase_add_test(t, each_pair_goes_on_in_its_chat);
    tcase_add_test(t, a_chat_that_is_not_ours_is_begun_anew);
    tcase_add_test(t, others_begin_a_chat_of_their_own);
    tcase_add_test(t, a_chat_goes_after_its_answer);
    tcase_add_test(t, a_chat_goes_after_a_failure);
    tcase_add_test(t, what_could_not_be_deleted_is_remembered);
    tcase_add_test(t, a_client_that_leaves_ends_the_call);
    tcase_add_test(t, a_client_leaves_in_between);
    tcase_add_test(t, a_broken_answer_is_asked_for_its_rest);
    suite_add_tcase(s, t);
    return s;
}
