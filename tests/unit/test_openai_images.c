/* surface/openai_images: requests for pictures and videos, and what comes back. */
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "surface_chat.h"

#include <stdlib.h>

#define IMG "{\"model\":\"m\",\"prompt\":\"a dot\""

START_TEST(a_small_request)
{
    parse_as(&cm_surface_openai_images, IMG "}");
    ck_str(chat.model, "m");
    ck_str(chat.media.prompt, "a dot");
    ck_assert_int_eq(chat.task, CM_TASK_IMAGE);
    ck_assert_int_eq(chat.dialect, CM_DIALECT_OPENAI_CHAT);
    ck_assert_int_eq(chat.n, 1);
    ck_assert_int_eq(chat.media.duration_s, -1);
    ck_assert_int_eq(chat.media.auto_prompt, -1);
    ck_assert_int_eq(chat.media.response_format, CM_MEDIA_ANY);
    ck_assert_uint_eq(chat.n_msgs + chat.media.n_images, 0);
    ck_assert(!chat.stream);
    ck_assert_int_gt(cm_chat_estimate_tokens(&chat), 0);
}
END_TEST

START_TEST(every_member)
{
    parse_as(
        &cm_surface_openai_videos, IMG
        ",\"n\":2,\"size\":\"1024x1024\",\"aspect_ratio\":\"16:9\",\"quality\":\"hd\",\"style\":\"vivid\","
        "\"background\":\"opaque\",\"output_format\":\"webp\",\"response_format\":\"b64_json\",\"duration\":5,"
        "\"auto_prompt\":true,\"stream\":true,\"user\":\"u\",\"unknown\":1,"
        "\"image\":[\"https://h/p.png\",\"data:image/png;base64,iVBO\"]}");
    ck_assert_int_eq(chat.task, CM_TASK_VIDEO);
    ck_assert_int_eq(chat.n, 2);
    ck_str(chat.media.size, "1024x1024");
    ck_str(chat.media.aspect_ratio, "16:9");
    ck_str(chat.media.quality, "hd");
    ck_str(chat.media.style, "vivid");
    ck_str(chat.media.background, "opaque");
    ck_str(chat.media.output_format, "webp");
    ck_str(chat.user, "u");
    ck_assert_int_eq(chat.media.response_format, CM_MEDIA_B64);
    ck_assert_int_eq(chat.media.duration_s, 5);
    ck_assert_int_eq(chat.media.auto_prompt, 1);
    ck_assert_uint_eq(chat.media.n_images, 2);
    ck_assert_int_eq(chat.media.images[0].kind, CM_PART_IMAGE);
    ck_str(chat.media.images[0].url, "https://h/p.png");
    ck_str(chat.media.images[1].media_type, "image/png");
    ck_str(chat.media.images[1].data, "iVBO");
    ck_assert_msg(!chat.stream, "a video comes whole");
}
END_TEST

START_TEST(one_picture_or_none)
{
    parse_as(&cm_surface_openai_images, IMG ",\"image\":\"https://h/p.png\",\"size\":null}");
    ck_assert_uint_eq(chat.media.n_images, 1);
    parse_as(&cm_surface_openai_images, IMG ",\"image\":\"\"}");
    ck_assert_uint_eq(chat.media.n_images, 0);
}
END_TEST

START_TEST(mistakes_are_named)
{
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{\"prompt\":\"x\"}", "model"},
        {"{\"model\":\"\",\"prompt\":\"x\"}", "model"},
        {"{\"model\":\"m\"}", "prompt"},
        {"{\"model\":\"m\",\"prompt\":\"\"}", "prompt"},
        {"{\"model\":\"m\",\"prompt\":1}", "prompt"},
        {IMG ",\"prompt\":\"y\"}", "prompt"},
        {IMG ",\"n\":0}", "n"},
        {IMG ",\"n\":11}", "n"},
        {IMG ",\"size\":1}", "size"},
        {IMG ",\"duration\":0}", "duration"},
        {IMG ",\"response_format\":\"png\"}", "response_format"},
        {IMG ",\"image\":\"ftp://h\"}", "image"},
        {IMG ",\"image\":5}", "image"},
        {IMG ",\"image\":[\"https://h\",5]}", "image[1]"},
        {IMG ",\"image\":[1,2,3,4,5,6,7,8,9,10,11]}", "image"},
        {"[]", ""},
        {"{", ""},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_err err = {0};

        ck_assert_msg(cm_surface_openai_images.parse(&chat, cm_str_of(cases[i].body), &err) < 0,
                      "%s", cases[i].body);
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_msg(strcmp(err.param, cases[i].param) == 0, "%s: %s", cases[i].body, err.param);
    }
}
END_TEST

static const struct cm_event url = {
    .kind = CM_EVENT_IMAGE, .url = CM_S_INIT("https://h/p.png?a=\"b\""), .name = CM_S_INIT("dot")};
static const struct cm_event bytes = {
    .kind = CM_EVENT_IMAGE, .media_type = CM_S_INIT("image/png"), .data = CM_S_INIT("iVBO")};

static char *whole(const struct cm_surface *surface, const struct cm_usage *usage)
{
    struct cm_answer answer = {.keep_images = true, .usage = *usage};
    const struct cm_answer_meta meta = {.created_s = 7, .chat = &chat};
    struct cm_buf out = {0};
    struct cm_err err = {0};

    ck_assert_int_eq(cm_answer_add(&answer, &url, &err), 0);
    ck_assert_int_eq(cm_answer_add(&answer, &bytes, &err), 0);
    surface->whole(&meta, &answer, &out);
    cm_answer_clear(&answer);
    cm_buf_z(&out);
    return out.p;
}

static void check_whole(const struct cm_surface *surface, const struct cm_usage *usage,
                        const char *expected)
{
    char *text = whole(surface, usage);

    ck_assert_str_eq(text, expected);
    free(text);
}

#define URL "{\"url\":\"https://h/p.png?a=\\\"b\\\"\",\"revised_prompt\":\"dot\""

START_TEST(answers_with_what_there_is)
{
    const struct cm_usage none = {0};
    const struct cm_usage told = {.source = CM_USAGE_UPSTREAM, .in_uncached = 3, .out_text = 4};

    parse_as(&cm_surface_openai_images, IMG "}");
    check_whole(&cm_surface_openai_images, &none,
                "{\"created\":7,\"data\":[" URL "},{\"b64_json\":\"iVBO\"}]}");
    parse_as(&cm_surface_openai_images, IMG ",\"response_format\":\"url\"}");
    check_whole(&cm_surface_openai_images, &told,
                "{\"created\":7,\"data\":[" URL
                "},{\"url\":\"data:image/png;base64,iVBO\"}],\"usage\":{\"input_tokens\":3,"
                "\"output_tokens\":4,\"total_tokens\":7}}");
}
END_TEST

START_TEST(videos_have_all_members)
{
    const struct cm_usage none = {0};

    parse_as(&cm_surface_openai_videos, IMG "}");
    check_whole(
        &cm_surface_openai_videos, &none,
        "{\"created\":7,\"data\":[" URL
        ",\"b64_json\":\"\"},{\"url\":\"data:image/png;base64,iVBO\",\"revised_prompt\":\"a "
        "dot\",\"b64_json\":\"\"}]}");
    parse_as(&cm_surface_openai_videos, IMG ",\"response_format\":\"b64_json\"}");
    check_whole(&cm_surface_openai_videos, &none,
                "{\"created\":7,\"data\":[" URL ",\"b64_json\":\"\"},{\"url\":\"\",\"b64_json\":"
                "\"iVBO\",\"revised_prompt\":\"a dot\"}]}");
}
END_TEST

START_TEST(a_stream_tells_each_picture)
{
    const struct cm_surface *s = &cm_surface_openai_images;
    const struct cm_answer_meta meta = {.created_s = 7, .chat = &chat};
    const struct cm_usage usage = {0};
    void *state = cm_arena_zalloc(&arena, s->stream_size);
    struct cm_err why = {0};
    struct cm_buf out = {0};

    parse_as(s, IMG ",\"stream\":true,\"size\":\"1x1\",\"response_format\":\"b64_json\"}");
    ck_assert(chat.stream);
    s->stream_begin(state, &meta, &out);
    ck_assert_uint_eq(out.n, 0);
    s->stream_event(state, &(struct cm_event){.kind = CM_EVENT_TEXT, .text = CM_S("x")}, &out);
    s->stream_event(state, &bytes, &out);
    s->stream_end(state, &usage, &out);
    ck_str(cm_buf_str(&out),
           "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\","
           "\"created_at\":7,\"b64_json\":\"iVBO\",\"size\":\"1x1\"}\n\n");
    cm_buf_reset(&out);
    cm_fail(&why, CM_ERR_OVERLOADED, "busy");
    s->stream_error(state, &why, &out);
    ck_assert(cm_str_starts(cm_buf_str(&out),
                            CM_S("event: error\ndata: {\"error\":{\"message\":\"busy\"")));
    s->stream_clear(state);
    cm_buf_clear(&out);
}
END_TEST

Suite *suite_openai_images(void)
{
    Suite *s = suite_create("openai_images");
    TCase *t = tcase_create("openai_images");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_small_request);
    tcase_add_test(t, every_member);
    tcase_add_test(t, one_picture_or_none);
    tcase_add_test(t, mistakes_are_named);
    tcase_add_test(t, answers_with_what_there_is);
    tcase_add_test(t, videos_have_all_members);
    tcase_add_test(t, a_stream_tells_each_picture);
    suite_add_tcase(s, t);
    return s;
}
