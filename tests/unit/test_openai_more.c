/* surface/openai_completions, _embeddings, _forms, _relayed: bodies in, answers out. */
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "surface_chat.h"

#include <stdlib.h>

static void refuse(const struct cm_surface *surface, const char *body, const char *param)
{
    struct cm_err err = {0};

    ck_assert_msg(surface->parse(&chat, cm_str_of(body), &err) < 0, "%s", body);
    ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_msg(strcmp(err.param, param) == 0, "%s: %s (%s)", body, err.param, err.msg);
}

/* ---- completions ---- */

#define COMPLETION(more) "{\"model\":\"m\",\"prompt\":\"Once\"" more "}"

START_TEST(a_completion_is_a_chat_of_one_message)
{
    const struct cm_surface *s = &cm_surface_openai_completions;

    parse_as(s, COMPLETION(""));
    ck_assert_int_eq(chat.task, CM_TASK_COMPLETION);
    ck_assert_uint_eq(chat.n_msgs, 1);
    ck_assert_int_eq(chat.msgs[0].role, CM_ROLE_USER);
    ck_str(chat.msgs[0].parts[0].text, "Once");
    ck_assert_int_eq(chat.max_tokens, 16);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    parse_as(
        s, COMPLETION(",\"max_tokens\":5,\"temperature\":0.5,\"top_p\":1,\"n\":2,\"stop\":[\"a\"],"
                      "\"seed\":3,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                      "\"echo\":true,\"user\":\"u\",\"best_of\":2,\"logit_bias\":{\"1\":2}"));
    ck_assert_int_eq(chat.max_tokens, 5);
    ck_assert_int_eq(chat.n, 2);
    ck_assert(chat.stream && chat.include_usage && chat.has_seed);
    ck_str(chat.stop[0], "a");
    ck_str(chat.echo, "Once");
    ck_str(chat.logit_bias, "{\"1\":2}");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    parse_as(s, "{\"model\":\"m\",\"prompt\":[\"Once\"]}");
    ck_assert_uint_eq(chat.n_msgs, 1);
    parse_as(s, "{\"model\":\"m\"}");
    ck_assert_uint_eq(chat.n_msgs, 1);
}
END_TEST

START_TEST(what_only_a_completion_model_can)
{
    static const struct {
        const char *body, *param;
        int64_t n;
    } cases[] = {
        {"{\"model\":\"m\",\"prompt\":[\"a\",\"b\"],\"n\":2}", "prompt", 4},
        {"{\"model\":\"m\",\"prompt\":[1,2,3]}", "prompt", 1},
        {"{\"model\":\"m\",\"prompt\":[[1],[2,3]]}", "prompt", 2},
        {COMPLETION(",\"suffix\":\"end\""), "suffix", 1},
        {COMPLETION(",\"logprobs\":2"), "logprobs", 1},
        {COMPLETION(",\"best_of\":3"), "best_of", 1},
        {COMPLETION(",\"max_tokens\":0"), "max_tokens", 1},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        parse_as(&cm_surface_openai_completions, cases[i].body);
        ck_assert_str_eq(chat.untranslatable.param, cases[i].param);
        ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST);
        ck_assert_int_eq(chat.n, cases[i].n);
        ck_assert_int_gt(cm_chat_estimate_tokens(&chat), 0);
    }
    refuse(&cm_surface_openai_completions, COMPLETION(",\"n\":129"), "n");
    refuse(&cm_surface_openai_completions, "{\"model\":\"m\",\"prompt\":[]}", "prompt");
    refuse(&cm_surface_openai_completions, "{\"model\":\"m\",\"prompt\":[{}]}", "prompt[0]");
    refuse(&cm_surface_openai_completions, "{\"model\":\"m\",\"prompt\":[[1],\"x\"]}", "prompt[1]");
    refuse(&cm_surface_openai_completions, COMPLETION(",\"stream_options\":{}"), "stream_options");
    refuse(&cm_surface_openai_completions, "{\"prompt\":\"x\"}", "model");
}
END_TEST

static const struct cm_event said[] = {
    {.kind = CM_EVENT_REASONING, .text = CM_S_INIT("hm")},
    {.kind = CM_EVENT_TEXT, .text = CM_S_INIT(" upon")},
    {.kind = CM_EVENT_TEXT, .text = CM_S_INIT(" a \"time\"")},
    {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_LENGTH},
};

START_TEST(a_completion_is_written)
{
    const struct cm_surface *s = &cm_surface_openai_completions;
    const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM, .in_uncached = 1, .out_text = 4};
    struct cm_answer answer = {.usage = usage};
    const struct cm_answer_meta meta = {
        .id = CM_S("cmpl-1"), .model = CM_S("m"), .created_s = 7, .n = 1, .chat = &chat};
    struct cm_buf out = {0};
    struct cm_err err;

    parse_as(s, COMPLETION(",\"echo\":true"));
    for (size_t i = 0; i < CM_COUNT(said); i++)
        cm_answer_add(&answer, &said[i], &err);
    s->whole(&meta, &answer, &out);
    ck_assert(cm_str_starts(
        cm_buf_str(&out),
        CM_S("{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\","
             "\"choices\":[{\"text\":\"Once upon a \\\"time\\\"\",\"index\":0,\"logprobs\":null,"
             "\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":1,")));
    cm_buf_clear(&out);
    cm_answer_clear(&answer);
}
END_TEST

#define CHUNK(text, finish, more)                                                                  \
    "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\","       \
    "\"choices\":[{\"text\":\"" text "\",\"index\":0,\"logprobs\":null,\"finish_reason\":" finish  \
    "}]" more "}\n\n"

START_TEST(a_completion_is_streamed)
{
    const struct cm_surface *s = &cm_surface_openai_completions;
    const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM, .in_uncached = 1, .out_text = 4};
    struct cm_answer_meta meta = {
        .id = CM_S("cmpl-1"), .model = CM_S("m"), .created_s = 7, .n = 1, .chat = &chat};

    for (int counted = 0; counted < 2; counted++) {
        void *state = cm_arena_zalloc(&arena, s->stream_size);
        struct cm_buf out = {0};

        meta.include_usage = counted;
        parse_as(s, COMPLETION(",\"echo\":true,\"stream\":true"));
        s->stream_begin(state, &meta, &out);
        for (size_t i = 0; i < CM_COUNT(said); i++)
            s->stream_event(state, &said[i], &out);
        s->stream_end(state, &usage, &out);
        s->stream_clear(state);
        if (!counted)
            ck_str(cm_buf_str(&out), CHUNK("Once", "null", "") CHUNK(" upon", "null", "")
                                         CHUNK(" a \\\"time\\\"", "null", "")
                                             CHUNK("", "\"length\"", "") "data: [DONE]\n\n");
        else
            ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"choices\":[],\"usage\":{\"prompt_")));
        cm_buf_clear(&out);
    }
}
END_TEST

/* ---- embeddings ---- */

START_TEST(embeddings_are_read)
{
    const struct cm_surface *s = &cm_surface_openai_embeddings;

    parse_as(
        s,
        "{\"model\":\"m\",\"input\":[\"a\",\"bc\"],\"dimensions\":3,\"encoding_format\":\"base64\"}");
    ck_assert_int_eq(chat.task, CM_TASK_EMBEDDING);
    ck_assert_uint_eq(chat.n_inputs, 2);
    ck_str(chat.inputs[1], "bc");
    ck_assert_int_eq(chat.dimensions, 3);
    ck_assert(chat.base64);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    parse_as(s, "{\"model\":\"m\",\"input\":\"a\"}");
    ck_assert_uint_eq(chat.n_inputs, 1);
    ck_assert(!chat.base64);
    ck_assert_int_eq(chat.dimensions, -1);
    parse_as(s, "{\"model\":\"m\",\"input\":[[1,2],[3]]}");
    ck_assert_int_eq(chat.input_tokens, 3);
    ck_assert_str_eq(chat.untranslatable.param, "input");
    refuse(s, "{\"model\":\"m\",\"input\":[\"a\",1]}", "input[1]");
    refuse(s, "{\"model\":\"m\",\"input\":[\"a\",\"\"]}", "input[1]");
    refuse(s, "{\"model\":\"m\",\"input\":[[1,\"x\"]]}", "input[0][1]");
    refuse(s, "{\"model\":\"m\",\"input\":{}}", "input");
    refuse(s, "{\"model\":\"m\",\"input\":\"a\",\"dimensions\":0}", "dimensions");
}
END_TEST

START_TEST(embeddings_are_written_in_the_order_of_inputs)
{
    const struct cm_surface *s = &cm_surface_openai_embeddings;
    static const float a[] = {1.0f, -0.5f, 0.1f}, b[] = {3.4e38f, 1e-45f};
    const struct cm_answer_meta meta = {.model = CM_S("m"), .chat = &chat};
    const struct cm_event events[] = {
        {.kind = CM_EVENT_EMBEDDING, .index = 1, .data = {(const char *)b, sizeof(b)}},
        {.kind = CM_EVENT_EMBEDDING, .index = 0, .data = {(const char *)a, sizeof(a)}},
    };
    struct cm_answer answer = {.usage = {.source = CM_USAGE_UPSTREAM, .in_uncached = 9}};
    struct cm_buf out = {0};
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(events); i++)
        ck_assert_int_eq(cm_answer_add(&answer, &events[i], &err), 0);
    ck_assert(cm_answer_has_vectors(&answer, 2) && !cm_answer_has_vectors(&answer, 3));
    parse_as(s, "{\"model\":\"m\",\"input\":[\"a\",\"b\"]}");
    s->whole(&meta, &answer, &out);
    ck_str(
        cm_buf_str(&out),
        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[1,-0.5,"
        "0.100000001]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[3.39999995e+38,"
        "1.40129846e-45]}],\"model\":\"m\",\"usage\":{\"prompt_tokens\":9,\"total_tokens\":9}}");
    cm_buf_reset(&out);
    parse_as(s, "{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"encoding_format\":\"base64\"}");
    s->whole(&meta, &answer, &out);
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"embedding\":\"AACAPwAAAL/NzMw9\"")));
    cm_buf_clear(&out);
    cm_answer_clear(&answer);
}
END_TEST

/* ---- forms ---- */

#define FORM "multipart/form-data; boundary=b1"
#define FIELD(name, data)                                                                          \
    "--b1\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" data "\r\n"
#define PICTURE(name, data) FIELD(name "\"; filename=\"a.png", data)
#define END "--b1--\r\n"

START_TEST(an_edit_is_read)
{
    const struct cm_surface *s = &cm_surface_openai_image_edits;

    chat.content_type = CM_S(FORM);
    parse_as(s, PICTURE("image[]", "\x89PNG") FIELD("prompt", "bigger") FIELD("model", "ours")
                    PICTURE("image[]", "\xff\xd8\xff\xe0") PICTURE("mask", "RIFF") FIELD("n", "2")
                        FIELD("size", "1x1") FIELD("response_format", "b64_json")
                            FIELD("stream", "true") FIELD("unknown", "x") END);
    ck_assert_int_eq(chat.task, CM_TASK_IMAGE_EDIT);
    ck_str(chat.model, "ours");
    ck_assert_ptr_eq(chat.form.model.p, chat.model.p);
    ck_str(chat.form.boundary, "b1");
    ck_str(chat.media.prompt, "bigger");
    ck_str(chat.media.size, "1x1");
    ck_assert_int_eq(chat.n, 2);
    ck_assert(chat.stream);
    ck_assert_int_eq(chat.media.response_format, CM_MEDIA_B64);
    ck_assert_uint_eq(chat.media.n_images, 2);
    ck_str(chat.media.images[0].media_type, "image/png");
    ck_str(chat.media.images[1].media_type, "image/jpeg");
    ck_assert_uint_eq(chat.media.images[0].data.n, 0);
    cm_chat_load_media(&chat);
    ck_str(chat.media.images[0].data, "iVBORw==");
    ck_str(chat.media.mask->data, "UklGRg==");
    ck_str(chat.media.mask->media_type, "image/webp");
    ck_assert_uint_eq(chat.media.images[0].text.n, 0);
    cm_chat_load_media(&chat);
    ck_str(chat.media.images[0].data, "iVBORw==");

    refuse(s, FIELD("model", "m") FIELD("prompt", "x") END, "image");
    refuse(s, FIELD("model", "m") PICTURE("image", "x") END, "prompt");
    refuse(s, FIELD("prompt", "x") PICTURE("image", "x") END, "model");
    refuse(s, FIELD("model", "m") FIELD("model", "n") PICTURE("image", "x") END, "model");
    refuse(s, FIELD("model", "m") FIELD("n", "0") PICTURE("image", "x") END, "n");
    refuse(s, FIELD("model", "m") FIELD("response_format", "x") PICTURE("image", "x") END,
           "response_format");
}
END_TEST

START_TEST(an_edit_may_be_json)
{
    const struct cm_surface *s = &cm_surface_openai_image_edits;

    chat.content_type = CM_S("application/json; charset=utf-8");
    parse_as(s, "{\"model\":\"m\",\"prompt\":\"x\",\"image\":\"https://h/p.png\"}");
    ck_assert_int_eq(chat.task, CM_TASK_IMAGE_EDIT);
    ck_assert_uint_eq(chat.media.n_images, 1);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    parse_as(s, "{\"model\":\"m\",\"prompt\":\"x\",\"images\":[{\"file_id\":\"f\"}]}");
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST);
}
END_TEST

START_TEST(other_forms)
{
    chat.content_type = CM_S(FORM);
    parse_as(&cm_surface_openai_image_variations, PICTURE("image", "x") END);
    ck_str(chat.model, "dall-e-2");
    ck_assert_ptr_null(chat.form.model.p);
    ck_assert_int_eq(chat.task, CM_TASK_IMAGE_VARIATION);
    parse_as(&cm_surface_openai_transcriptions,
             PICTURE("file", "x") FIELD("model", "m") FIELD("stream", "1") END);
    ck_assert_int_eq(chat.task, CM_TASK_TRANSCRIPTION);
    ck_assert(chat.stream && !chat.bytes);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST);
    parse_as(&cm_surface_openai_translations, PICTURE("file", "x") FIELD("model", "m") END);
    ck_assert_int_eq(chat.task, CM_TASK_TRANSLATION);
    refuse(&cm_surface_openai_translations, FIELD("model", "m") END, "file");
    refuse(&cm_surface_openai_transcriptions, PICTURE("file", "x") END, "model");
    chat.content_type = CM_S("application/json");
    refuse(&cm_surface_openai_transcriptions, "{\"model\":\"m\"}", "");
}
END_TEST

/* ---- the rest ---- */

START_TEST(what_is_only_relayed)
{
    parse_as(&cm_surface_openai_moderations, "{\"input\":[\"a\",{\"type\":\"text\"}]}");
    ck_str(chat.model, "omni-moderation-latest");
    ck_assert_uint_eq(chat.n_inputs, 1);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST);
    parse_as(&cm_surface_openai_speech, "{\"model\":\"m\",\"input\":\"Hi\"}");
    ck_assert(chat.stream && chat.bytes);
    parse_as(&cm_surface_openai_speech,
             "{\"model\":\"m\",\"input\":\"Hi\",\"stream_format\":\"sse\"}");
    ck_assert(chat.stream && !chat.bytes);
    ck_assert_int_gt(cm_chat_estimate_tokens(&chat), 0);
    refuse(&cm_surface_openai_moderations, "{\"input\":1}", "input");
    refuse(&cm_surface_openai_moderations, "{\"model\":\"\",\"input\":\"x\"}", "model");
    refuse(&cm_surface_openai_speech, "{\"model\":\"m\"}", "input");
    parse_as(&cm_surface_openai_pass, "\xff whatever");
    ck_assert_int_eq(chat.task, CM_TASK_PASS);
    ck_assert(chat.bytes);
}
END_TEST

Suite *suite_openai_more(void)
{
    Suite *s = suite_create("openai_more");
    TCase *t = tcase_create("openai_more");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_completion_is_a_chat_of_one_message);
    tcase_add_test(t, what_only_a_completion_model_can);
    tcase_add_test(t, a_completion_is_written);
    tcase_add_test(t, a_completion_is_streamed);
    tcase_add_test(t, embeddings_are_read);
    tcase_add_test(t, embeddings_are_written_in_the_order_of_inputs);
    tcase_add_test(t, an_edit_is_read);
    tcase_add_test(t, an_edit_may_be_json);
    tcase_add_test(t, other_forms);
    tcase_add_test(t, what_is_only_relayed);
    suite_add_tcase(s, t);
    return s;
}
