/* provider/gemini, relay lane: answers go through byte for byte at every split and in both framings; the tap finds usage, errors and the end. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#define BODY                                                                                       \
    "{ \"contents\":[{\"parts\":[{\"text\":\"h\\u0069\"}]}],\"x\":1.0,\"generation_config\":{} }"
#define SSE "Content-Type: text/event-stream\n"
#define JSON "Content-Type: application/json; charset=UTF-8\n"

/* Returns what the upstream sent. */
static struct cm_str play(struct fake *f, const struct cm_surface *surface, const char *path,
                          const char *query, struct cm_str body, const char *type, size_t piece)
{
    struct fake_answer answer = {200, type, body, FAKE_COMPLETE};

    f->conf.base_url = CM_S("https://up.test");
    fake_use(f, "gemini");
    f->path = path;
    fake_request(f, surface, NULL, CM_S(BODY));
    f->chat->query = cm_str_of(query);
    f->answers = &answer;
    f->n_answers = 1;
    f->piece = piece;
    fake_play(f);
    f->answers = NULL;
    return body;
}

static struct cm_str play_file(struct fake *f, const char *name, size_t piece)
{
    const bool array = cm_str_ends(cm_str_of(name), CM_S(".array"));
    char path[64] = "gemini/";

    fake_init(f);
    cm_str_copy(path + 7, sizeof(path) - 7, cm_str_of(name));
    return play(f, array ? &cm_surface_gemini_array : &cm_surface_gemini,
                "models/m:streamGenerateContent", array ? "" : "alt=sse", fake_fixture(f, path),
                array ? JSON : SSE, piece);
}

static void ck_same(struct cm_str got, struct cm_str want, const char *name, size_t piece)
{
    if (!cm_str_eq(got, want))
        ck_abort_msg("%s in pieces of %zu:\n%.*s\nnot\n%.*s", name, piece, CM_ARG(got),
                     CM_ARG(want));
}

static const struct good {
    const char *file;
    int64_t in, out;
    const char *first; /* what stands in the first event that means something; NULL = none does */
} good[] = {
    {"text.sse", 12, 9, "Hello "},     {"text.array", 12, 9, "Hello "},
    {"thoughts.sse", 5, 11, "Let me"}, {"thoughts.array", 5, 11, "Let me"},
    {"calls.sse", 5, 2, "Looking"},    {"calls.array", 5, 2, "Looking"},
    {"candidates.sse", 0, 0, "\"a\""}, {"candidates.array", 0, 0, "\"a\""},
    {"blocked.sse", 9, 0, NULL},       {"blocked.array", 9, 0, NULL},
};

START_TEST(a_stream_passes_byte_for_byte_at_every_split)
{
    for (size_t piece = 0; piece <= 80; piece++) {
        const struct good *g = &good[_i];
        struct cm_str file, before;
        struct fake f;

        file = play_file(&f, g->file, piece);
        if (!f.ended || f.err.cls != CM_ERR_NONE)
            ck_abort_msg("%s in pieces of %zu: %s", g->file, piece, f.err.msg);
        ck_same(cm_buf_str(&f.relay), file, g->file, piece);
        ck_assert_uint_eq(f.n_heads, 1);
        ck_assert_uint_eq(f.text.n, 0);
        ck_assert_int_eq(cm_usage_in(&f.usage), g->in);
        ck_assert_int_eq(cm_usage_out(&f.usage), g->out);
        ck_assert_int_eq(f.n_semantic > 0, g->first != NULL);
        before = cm_str_head(cm_buf_str(&f.relay), f.relay_before);
        if (g->first) /* nothing that means something was held for longer than it had to be */
            ck_assert(!cm_str_has(before, cm_str_of(g->first)));
        fake_clear(&f);
    }
}
END_TEST

START_TEST(the_request_goes_up_as_it_came)
{
    struct fake f;

    play_file(&f, "text.sse", 0);
    ck_assert_uint_eq(f.n_calls, 1);
    ck_str(f.calls[0].body, BODY);
    ck_str(f.calls[0].url, "https://up.test/v1beta/models/m:streamGenerateContent?alt=sse");
    fake_clear(&f);
    play_file(&f, "text.array", 0);
    ck_str(f.calls[0].url, "https://up.test/v1beta/models/m:streamGenerateContent");
    fake_clear(&f);
}
END_TEST

START_TEST(a_stream_without_a_reason_at_its_end_was_cut)
{
    static const char *const files[] = {"cut.sse", "cut.array"};

    for (size_t i = 0; i < CM_COUNT(files); i++) {
        for (size_t piece = 0; piece <= 40; piece++) {
            struct fake f;
            struct cm_str file = play_file(&f, files[i], piece);

            ck_assert_int_eq(f.err.cls, CM_ERR_CUT);
            ck_same(cm_buf_str(&f.relay), file, files[i], piece);
            fake_clear(&f);
        }
    }
}
END_TEST

START_TEST(an_error_in_the_middle_is_not_passed_on)
{
    static const char *const files[] = {"late_error.sse", "late_error.array"};

    for (size_t i = 0; i < CM_COUNT(files); i++) {
        for (size_t piece = 0; piece <= 40; piece++) {
            struct fake f;

            play_file(&f, files[i], piece);
            ck_assert_int_eq(f.err.cls, CM_ERR_OVERLOADED);
            ck_assert(!cm_str_has(cm_buf_str(&f.relay), CM_S("error")));
            ck_assert(cm_str_has(cm_buf_str(&f.relay), CM_S("one ")));
            fake_clear(&f);
        }
    }
}
END_TEST

START_TEST(what_is_missing_at_a_complete_end_is_added)
{
    static const struct {
        const char *file, *tail;
        size_t drop;
    } cases[] = {{"text.array", "]", 2}, {"text.sse", "\r\n\r\n", 4}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        for (size_t piece = 0; piece <= 20; piece++) {
            const bool array = i == 0;
            char path[64] = "gemini/";
            struct cm_str file, got;
            struct fake f;

            fake_init(&f);
            cm_str_copy(path + 7, sizeof(path) - 7, cm_str_of(cases[i].file));
            file = fake_fixture(&f, path);
            file.n -= cases[i].drop;
            play(&f, array ? &cm_surface_gemini_array : &cm_surface_gemini,
                 "m:streamGenerateContent", array ? "" : "alt=sse", file, array ? JSON : SSE,
                 piece);
            ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
            got = cm_buf_str(&f.relay);
            ck_same(cm_str_head(got, file.n), file, cases[i].file, piece);
            ck_same(cm_str_from(got, file.n), cm_str_of(cases[i].tail), cases[i].file, piece);
            fake_clear(&f);
        }
    }
}
END_TEST

START_TEST(whole_answers_pass_too)
{
    static const char body[] = " {\"totalTokens\" : 3}\n";
    struct fake f;

    for (size_t piece = 0; piece <= sizeof(body); piece++) {
        fake_init(&f);
        play(&f, &cm_surface_gemini, "m:generateContent", "", CM_S(" {\"candidates\":[]}\n"), JSON,
             piece);
        ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
        ck_str(cm_buf_str(&f.relay), " {\"candidates\":[]}\n");
        fake_clear(&f);
    }
    fake_init(&f);
    play(&f, &cm_surface_gemini, "m:generateContent", "", CM_S("<html>"),
         "Content-Type: text/html\n", 0);
    ck_assert_int_eq(f.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_uint_eq(f.relay.n, 0);
    fake_clear(&f);
}
END_TEST

/* A target whose name is another than the client's. */
START_TEST(only_the_models_name_changes)
{
    static const struct {
        const struct cm_surface *surface;
        const char *path, *body, *sent;
    } cases[] = {
        {&cm_surface_gemini, "ours:generateContent",
         "{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}], \"model\":\"models/ours\",\"y\":1.0}",
         "{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}], \"model\":\"models/theirs\",\"y\":1.0}"},
        {&cm_surface_gemini_count, "ours:countTokens",
         "{\"generateContentRequest\":{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}],\"model\":"
         "\"models/ours\"} }",
         "{\"generateContentRequest\":{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}],\"model\":"
         "\"models/theirs\"} }"},
        {&cm_surface_gemini_batch_embed, "ours:batchEmbedContents",
         "{ \"requests\":[{\"model\":\"models/ours\",\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}",
         "{ \"requests\":[{\"model\":\"models/theirs\",\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}"},
        {&cm_surface_gemini_batch_embed, "ours:batchEmbedContents",
         "{ \"requests\":[{\"model\":\"models/theirs\",\"content\":{\"parts\":[{\"text\":\"x\"}]} }]}",
         "{ \"requests\":[{\"model\":\"models/theirs\",\"content\":{\"parts\":[{\"text\":\"x\"}]} }]}"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake_answer answer = {200, JSON, CM_S("{}"), FAKE_COMPLETE};
        struct fake f;

        fake_init(&f);
        fake_use(&f, "gemini");
        f.path = cases[i].path;
        fake_request(&f, cases[i].surface, NULL, cm_str_of(cases[i].body));
        f.target.model = CM_S("theirs");
        f.answers = &answer;
        f.n_answers = 1;
        fake_play(&f);
        ck_assert_msg(cm_str_eq(f.calls[0].body, cm_str_of(cases[i].sent)), "%.*s",
                      CM_ARG(f.calls[0].body));
        f.answers = NULL;
        fake_clear(&f);
    }
}
END_TEST

Suite *suite_gemini_relay(void)
{
    Suite *s = suite_create("gemini_relay");
    TCase *t = tcase_create("relay");

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, a_stream_passes_byte_for_byte_at_every_split, 0, CM_COUNT(good));
    tcase_add_test(t, the_request_goes_up_as_it_came);
    tcase_add_test(t, a_stream_without_a_reason_at_its_end_was_cut);
    tcase_add_test(t, an_error_in_the_middle_is_not_passed_on);
    tcase_add_test(t, what_is_missing_at_a_complete_end_is_added);
    tcase_add_test(t, whole_answers_pass_too);
    tcase_add_test(t, only_the_models_name_changes);
    suite_add_tcase(s, t);
    return s;
}
