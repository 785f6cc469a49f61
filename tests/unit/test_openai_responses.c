/* openai, Responses API: events go through byte for byte at every split, the tap finds ids, numbers, figures, failures and the end. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#define STREAMED "{\"model\":\"m\", \"input\":\"Hi\",\"stream\":true}"
#define WHOLE "{\"input\":\"Hi\",\"model\":\"m\",\"temperature\":1.0e0}"
#define EVENTS "Content-Type: text/event-stream\n"
#define JSON "Content-Type: application/json\n"

static const struct cm_conf_pair speaks[] = {
    {.key = CM_S_INIT("responses"), .value = CM_S_INIT("yes")}};

/* What the relayed events told besides their bytes. */
static struct {
    char id[40], sealed[40];
    int64_t from;
    size_t n_objects;
} told;

static void on_event(struct fake *f, const struct cm_event *ev)
{
    (void)f;
    if (ev->kind != CM_EVENT_RELAY)
        return;
    if (ev->id.n > 0)
        cm_str_copy(told.id, sizeof(told.id), ev->id);
    if (ev->name.n > 0)
        cm_str_copy(told.sealed, sizeof(told.sealed), ev->name);
    if (ev->from >= 0)
        told.from = ev->from;
    told.n_objects += ev->data.n > 0;
}

static void play(struct fake *f, const char *request, const struct fake_answer *answer,
                 size_t piece)
{
    memset(&told, 0, sizeof(told));
    f->conf.options = (struct cm_conf_pair *)(uintptr_t)speaks;
    f->conf.n_options = 1;
    f->on_event = on_event;
    fake_use(f, "openai");
    fake_request(f, &cm_surface_responses, NULL, cm_str_of(request));
    f->answers = answer;
    f->n_answers = 1;
    f->piece = piece;
    fake_play(f);
    f->answers = NULL;
}

static void play_events(struct fake *f, const char *events, size_t piece)
{
    const struct fake_answer answer = {200, EVENTS, cm_str_of(events), FAKE_COMPLETE};

    fake_init(f);
    play(f, STREAMED, &answer, piece);
}

#define EVENT(type, n, more)                                                                       \
    "event: " type "\ndata: {\"type\":\"" type "\",\"sequence_number\":" #n more "}\n\n"
#define OBJECT(status, more)                                                                       \
    "{\"id\":\"resp_7\",\"object\":\"response\",\"status\":\"" status "\"" more "}"
#define BEGIN                                                                                      \
    EVENT("response.created", 0, ",\"response\":" OBJECT("in_progress", ""))                       \
    ": ping\n\n" EVENT("response.in_progress", 1, ",\"response\":" OBJECT("in_progress", ""))      \
        EVENT("response.output_item.added", 2, ",\"item\":{\"type\":\"message\"}")
#define DELTA(n) EVENT("response.output_text.delta", n, ",\"delta\":\"Gr\xc3\xbc\"")
#define USAGE                                                                                      \
    ",\"usage\":{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":2},"               \
    "\"output_tokens\":5,\"output_tokens_details\":{\"reasoning_tokens\":1},\"total_tokens\":14}"

static const char *const ends[] = {
    EVENT("response.completed", 4, ",\"response\":" OBJECT("completed", USAGE)),
    EVENT("response.incomplete", 4, ",\"response\":" OBJECT("incomplete", USAGE)),
};

START_TEST(a_stream_passes_byte_for_byte_at_every_split)
{
    struct cm_arena arena = {0};
    const char *all = cm_arena_printf(&arena, "%s%s", BEGIN DELTA(3), ends[_i]).p;

    for (size_t piece = 0; piece <= 300; piece++) {
        struct fake f;

        play_events(&f, all, piece);
        ck_assert_msg(f.ended && f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        ck_quick(cm_str_eq(cm_buf_str(&f.relay), cm_str_of(all)));
        ck_quick(cm_usage_in(&f.usage) == 9 && cm_usage_out(&f.usage) == 5);
        ck_assert_str_eq(told.id, "resp_7");
        ck_quick(told.from == 4 && told.n_objects == 1);
        ck_quick(f.relay_before == sizeof(BEGIN) - 1); /* only the text means something */
        fake_clear(&f);
    }
    cm_arena_clear(&arena);
}
END_TEST

START_TEST(a_call_means_something_when_it_begins)
{
    struct fake f;

    play_events(
        &f,
        BEGIN EVENT("response.output_item.added", 3, ",\"item\":{\"type\":\"function_call\"}")
            EVENT("response.completed", 4, ",\"response\":" OBJECT("completed", USAGE)),
        0);
    ck_assert_uint_eq(f.relay_before, sizeof(BEGIN) - 1);
    fake_clear(&f);
}
END_TEST

#define REASONING "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"encrypted_content\":\"x\"}"

START_TEST(encrypted_reasoning_is_told)
{
    const struct fake_answer whole = {
        200, JSON, CM_S("{\"id\":\"resp_7\",\"output\":[{\"type\":\"message\"}," REASONING "]}"),
        FAKE_COMPLETE};
    struct fake f;

    play_events(&f,
                BEGIN EVENT("response.output_item.done", 3, ",\"item\":" REASONING)
                    EVENT("response.completed", 4, ",\"response\":" OBJECT("completed", USAGE)),
                0);
    ck_assert_str_eq(told.sealed, "rs_1");
    ck_assert_str_eq(told.id, "resp_7");
    fake_clear(&f);
    fake_init(&f);
    play(&f, WHOLE, &whole, 0);
    ck_assert_str_eq(told.sealed, "rs_1");
    fake_clear(&f);
}
END_TEST

static const struct {
    const char *events;
    enum cm_err_class cls;
    const char *words;
} bad[] = {
    {BEGIN DELTA(3), CM_ERR_CUT, "before the answer was complete"},
    {BEGIN DELTA(3) "data: [DONE]\n\n", CM_ERR_CUT, "before the answer was complete"},
    {BEGIN EVENT("error", 3,
                 ",\"code\":\"rate_limit_exceeded\",\"message\":\"Too fast\",\"param\":null"),
     CM_ERR_RATE_LIMITED, "Too fast"},
    {BEGIN EVENT("error", 3,
                 ",\"error\":{\"code\":\"context_length_exceeded\",\"message\":\"Too long\"}"),
     CM_ERR_CONTEXT_LENGTH, "Too long"},
    {BEGIN EVENT("response.failed", 3,
                 ",\"response\":" OBJECT(
                     "failed", ",\"error\":{\"code\":\"server_error\",\"message\":\"It broke\"}")),
     CM_ERR_UPSTREAM_DOWN, "It broke"},
    {BEGIN DELTA(3)
         EVENT("response.failed", 4, ",\"response\":" OBJECT("failed", ",\"error\":null")),
     CM_ERR_UPSTREAM_DOWN, "error without words"},
    {BEGIN "data: {\"type\":\n\n", CM_ERR_UPSTREAM_DOWN, "cannot be read"},
    {"data: {\"error\":{\"message\":\"no\",\"code\":\"insufficient_quota\"}}\n\n",
     CM_ERR_QUOTA_EXHAUSTED, "no"},
};

START_TEST(failures_are_told_apart_at_every_split)
{
    for (size_t piece = 0; piece <= 100; piece++) {
        struct fake f;

        play_events(&f, bad[_i].events, piece);
        ck_assert(f.ended);
        ck_assert_msg(f.err.cls == bad[_i].cls, "%s", f.err.msg);
        ck_assert_msg(strstr(f.err.msg, bad[_i].words) != NULL, "%s", f.err.msg);
        ck_assert(!cm_str_has(cm_buf_str(&f.relay), CM_S("failed"))); /* the surface says it */
        fake_clear(&f);
    }
}
END_TEST

static const struct {
    const char *body;
    enum cm_err_class cls;
} wholes[] = {
    {"{\"id\" : \"resp_7\",\"status\":\"completed\",\"error\":null,\"output\":[]" USAGE "}",
     CM_ERR_NONE},
    {"{\"id\":\"resp_7\",\"output\":[],\"error\":{\"code\":\"server_error\",\"message\":\"x\"}}",
     CM_ERR_UPSTREAM_DOWN},
    {"{\"choices\":[]}", CM_ERR_UPSTREAM_DOWN},
    {"<html>", CM_ERR_UPSTREAM_DOWN},
};

START_TEST(whole_answers)
{
    const struct fake_answer answer = {200, JSON, cm_str_of(wholes[_i].body), FAKE_COMPLETE};
    struct fake f;

    fake_init(&f);
    play(&f, WHOLE, &answer, 5);
    ck_assert_msg(f.err.cls == wholes[_i].cls, "%s", f.err.msg);
    ck_str(f.calls[0].url, "https://up.test/v1/responses");
    ck_str(f.calls[0].body, WHOLE);
    if (wholes[_i].cls == CM_ERR_NONE) {
        ck_assert(cm_str_eq(cm_buf_str(&f.relay), cm_str_of(wholes[_i].body)));
        ck_assert_str_eq(told.id, "resp_7");
        ck_assert_int_eq(cm_usage_out(&f.usage), 5);
    } else {
        ck_assert_uint_eq(f.relay.n, 0);
    }
    fake_clear(&f);
}
END_TEST

/* Without the option it is a matter of the host. */
START_TEST(who_speaks_it)
{
    static const struct {
        const char *url, *option;
        bool relays;
    } cases[] = {
        {"https://api.openai.com/v1", NULL, true},
        {"https://api.openai.com/v1", "no", false},
        {"https://api.example.com/v1", NULL, false},
        {"https://api.example.com/v1", "yes", true},
        {"https://x.openai.azure.com/openai", NULL, false},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_conf_pair option = {.key = CM_S("responses"),
                                      .value = cm_str_of(cases[i].option)};
        const struct cm_provider_conf conf = {.name = CM_S("up"),
                                              .type = CM_S("openai"),
                                              .base_url = cm_str_of(cases[i].url),
                                              .options = &option,
                                              .n_options = cases[i].option ? 1 : 0};
        const struct cm_chat chat = {.dialect = CM_DIALECT_OPENAI_RESPONSES, .task = CM_TASK_CHAT};
        struct cm_problems problems = {0};
        struct cm_arena arena = {0};
        struct cm_instance in;

        ck_assert_int_eq(cm_instance_init(&in, &conf, &arena, &problems), 0);
        ck_assert_msg(cm_instance_relays(&in, &chat) == cases[i].relays, "%s %s", cases[i].url,
                      cases[i].option);
        cm_arena_clear(&arena);
    }
}
END_TEST

Suite *suite_openai_responses(void)
{
    Suite *s = suite_create("openai_responses");
    TCase *tc = tcase_create("core");

    tcase_add_loop_test(tc, a_stream_passes_byte_for_byte_at_every_split, 0, (int)CM_COUNT(ends));
    tcase_add_test(tc, a_call_means_something_when_it_begins);
    tcase_add_test(tc, encrypted_reasoning_is_told);
    tcase_add_loop_test(tc, failures_are_told_apart_at_every_split, 0, (int)CM_COUNT(bad));
    tcase_add_loop_test(tc, whole_answers, 0, (int)CM_COUNT(wholes));
    tcase_add_test(tc, who_speaks_it);
    suite_add_tcase(s, tc);
    return s;
}
