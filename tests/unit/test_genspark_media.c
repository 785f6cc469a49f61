/* provider/genspark: pictures and videos, whose jobs are told at every split. */
#include "fake_run.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "unit.h"

#define STREAM "text/event-stream; charset=utf-8"
#define IMAGE "{\"model\":\"flux\",\"prompt\":\"a dot\"}"
#define CREATED "{\"status\": 0, \"data\": {\"id\": \"proj-1\"}}"
#define EVENT(json) "data: {" json "}\n\n"
#define RESULTS(list)                                                                              \
    EVENT("\"type\": \"project_start\", \"id\": \"proj-1\"")                                       \
    EVENT("\"type\": \"message_field\", \"message_id\": \"m\", \"field_name\": "                   \
          "\"image_generation_agent.results\", \"field_value\": [" list "]")                       \
    EVENT("\"type\": \"message_field_delta\", \"message_id\": \"m\", \"field_name\": "             \
          "\"content\", \"delta\": \"Here it is.\"")                                               \
    EVENT("\"type\": \"project_field\", \"field_name\": \"status\", \"field_value\": "             \
          "\"FINISHED\"")
#define JOB(id, more) "{\"task_id\": \"" id "\", \"prompt\": \"a dot\"" more "}"
#define DETAIL(more) "{\"status\": 0, \"data\": {\"id\": \"t1\"" more "}}"
#define MADE                                                                                       \
    ", \"status\": \"SUCCESS\", \"image_urls\": [\"https://h/marked\"], "                          \
    "\"image_urls_nowatermark\": [\"https://h/plain\"]"

static const char *const quick[] = {"poll_interval", "10ms", "media_delivery", "url", NULL};
static const char *const copilot[] = {
    "dialect", "copilot", "poll_interval", "10ms", "media_delivery", "url", NULL};
static struct fake_result r;

static void make(const char *body, const char *const *options, const struct fake_reply *replies,
                 size_t n, size_t piece)
{
    fake_run(&(struct fake_setup){.type = "genspark",
                                  .body = body,
                                  .surface = &cm_surface_openai_images,
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = n,
                                  .piece = piece},
             &r);
}

static void expect_address(size_t i, const char *url)
{
    ck_assert_msg(r.answer.n_images > i, "%zu pictures: %s", r.answer.n_images, r.err.msg);
    ck_assert_msg(cm_str_eq(r.answer.images[i].url, cm_str_of(url)), CM_PRI,
                  CM_ARG(r.answer.images[i].url));
}

START_TEST(jobs_of_the_agent_dialect)
{
    static const struct fake_reply replies[] = {
        {.body = CREATED},
        {.content_type = STREAM,
         .body = RESULTS(JOB("t1", ", \"status\": \"PENDING\"") ", " JOB("t2", MADE))},
        {.body = DETAIL(", \"status\": \"RUNNING\"")},
        {.status = 502, .body = "bad gateway"},
        {.body = DETAIL(", \"status\": \"COMPLETED\", \"image_urls\": [\"/api/files/s/1\"]")},
    };

    for (size_t piece = 0; piece <= 64; piece++) {
        make(IMAGE, quick, replies, CM_COUNT(replies), piece);
        ck_assert_msg(r.done, "in pieces of %zu: %s", piece, r.err.msg);
        ck_assert(r.finished_last);
        ck_assert_uint_eq(r.n_requests, 5);
        ck_str(r.requests[0].body, "{\"article\":\"# image\"}");
        ck_str(r.requests[2].url,
               "https://www.genspark.ai/api/spark/image_generation_task_detail?task_id=t1");
        ck_assert_str_eq(fake_text(&r), ""); /* what the agent says is no part of the picture */
        expect_address(0, "https://www.genspark.ai/api/files/s/1");
        expect_address(1, "https://h/plain");
        fake_result_clear(&r);
    }
}
END_TEST

#define COPILOT_ANSWER                                                                             \
    EVENT("\"type\": \"project_start\", \"id\": \"proj-1\"")                                       \
    EVENT("\"type\": \"message_result\", \"role\": \"assistant\", \"content\": "                   \
          "\"{\\\"generated_images\\\":[{\\\"task_id\\\":\\\"t1\\\"},"                             \
          "{\\\"task_id\\\":\\\"t2\\\"},{\\\"task_id\\\":\\\"t3\\\"}]}\"")
#define COMPLETE                                                                                   \
    "{\"type\": \"TASKS_STATUS_COMPLETE\", \"final_status\": {\"t3\": {\"status\": \"SUCCESS\", "  \
    "\"image_urls\": [\"https://h/3\"]}, \"t2\": {\"status\": \"FAILED\"}, \"t1\": {\"status\": "  \
    "\"SUCCESS\", \"image_urls\": [\"https://h/1\", \"https://h/x\"]}}}"

START_TEST(jobs_of_the_copilot_dialect)
{
    static const char *const ends[] = {
        "data: {\"type\": \"PROGRESS\"}\n\ndata: " COMPLETE "\n\n",
        "{\"type\": \"PROGRESS\"}\r\n" COMPLETE "\n",
        "garbage\n\n" COMPLETE, /* the connection ends the line */
    };

    for (size_t end = 0; end < CM_COUNT(ends); end++) {
        const struct fake_reply replies[] = {{.content_type = STREAM, .body = COPILOT_ANSWER},
                                             {.content_type = STREAM, .body = ends[end]}};

        for (size_t piece = 0; piece <= 64; piece++) {
            make(IMAGE, copilot, replies, 2, piece);
            ck_assert_msg(r.done, "in pieces of %zu: %s", piece, r.err.msg);
            ck_str(r.requests[1].url, "https://www.genspark.ai/api/ig_tasks_status");
            ck_str(r.requests[1].body, "{\"task_ids\":[\"t1\",\"t2\",\"t3\"]}");
            ck_assert_uint_eq(r.answer.n_images, 2); /* in the order of the jobs */
            expect_address(0, "https://h/1");
            expect_address(1, "https://h/3");
            fake_result_clear(&r);
        }
    }
}
END_TEST

START_TEST(what_can_go_wrong)
{
    static const struct {
        const char *const *options;
        struct fake_reply replies[4];
        enum cm_err_class cls;
    } cases[] = {
        {quick, {{.status = 401}}, CM_ERR_EXPIRED},
        {quick, {{.body = "{\"status\": 0}"}}, CM_ERR_UPSTREAM_DOWN},
        {quick,
         {{.body = CREATED}, {.content_type = STREAM, .body = RESULTS("")}},
         CM_ERR_UPSTREAM_DOWN},
        {quick,
         {{.body = CREATED},
          {.content_type = STREAM, .body = RESULTS(JOB("t1", ", \"status\": \"FAILED\""))}},
         CM_ERR_UPSTREAM_DOWN},
        {quick,
         {{.body = CREATED},
          {.content_type = STREAM, .body = RESULTS(JOB("t1", ", \"status\": \"PENDING\""))},
          {.body = "{\"status\":-5,\"message\":\"not login\",\"data\":{}}"}},
         CM_ERR_EXPIRED},
        {copilot,
         {{.content_type = STREAM, .body = COPILOT_ANSWER},
          {.content_type = STREAM, .body = "data: {\"type\": \"PROGRESS\"}\n\n"}},
         CM_ERR_CUT},
        {copilot,
         {{.content_type = STREAM, .body = COPILOT_ANSWER},
          {.content_type = STREAM,
           .body = "{\"type\": \"TASKS_STATUS_COMPLETE\", \"final_status\": {}}\n"}},
         CM_ERR_UPSTREAM_DOWN},
        {copilot,
         {{.content_type = STREAM, .body = COPILOT_ANSWER},
          {.status = 429, .body = "Rate limit exceeded cf1"}},
         CM_ERR_RATE_LIMITED},
        {copilot,
         {{.content_type = STREAM, .body = COPILOT_ANSWER}, {.end = FAKE_CUT, .body = "{"}},
         CM_ERR_CUT},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        make(IMAGE, cases[i].options, cases[i].replies, CM_COUNT(cases[i].replies), 0);
        ck_assert(!r.done);
        ck_assert_msg(r.err.cls == cases[i].cls, "case %zu: %s, %s", i,
                      cm_err_info(r.err.cls)->name, r.err.msg);
        ck_assert_uint_eq(r.n_events, 0);
        fake_result_clear(&r);
    }
}
END_TEST

/* The aspect ratio that a size is asked for as. */
static void expect_ratio(const char *size, const char *ratio)
{
    struct cm_buf body = {0};
    yyjson_doc *doc;
    yyjson_val *params;

    cm_buf_printf(&body, "{\"model\":\"flux\",\"prompt\":\"x\"%s%s%s}", size ? ",\"size\":\"" : "",
                  size ? size : "", size ? "\"" : "");
    make(cm_buf_z(&body), quick, (const struct fake_reply[]){{.body = CREATED}, {.end = FAKE_DOWN}},
         2, 0);
    doc = cm_json_parse(r.requests[1].body, &cm_json_limits_event, NULL);
    params = cm_json_get(yyjson_doc_get_root(doc), "model_params");
    ck_assert_str_eq(yyjson_get_str(cm_json_get(params, "aspect_ratio")), ratio);
    yyjson_doc_free(doc);
    cm_buf_clear(&body);
    fake_result_clear(&r);
}

START_TEST(sizes_become_ratios)
{
    expect_ratio(NULL, "auto");
    expect_ratio("auto", "auto");
    expect_ratio("1024x1024", "1:1");
    expect_ratio("1536x1024", "3:2");
    expect_ratio("1024x1792", "9:16");
    expect_ratio("1920x1080", "16:9");
    expect_ratio("1024x0", "auto");
    expect_ratio("1021x509", "auto"); /* no ratio that anybody has */
}
END_TEST

Suite *suite_genspark_media(void)
{
    Suite *s = suite_create("genspark_media");
    TCase *t = tcase_create("genspark_media");

    tcase_set_timeout(t, 60);
    tcase_add_test(t, jobs_of_the_agent_dialect);
    tcase_add_test(t, jobs_of_the_copilot_dialect);
    tcase_add_test(t, what_can_go_wrong);
    tcase_add_test(t, sizes_become_ratios);
    suite_add_tcase(s, t);
    return s;
}
