/* openai: every task that is no chat goes up to its own path and comes back as it came; what differs between servers. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#define EVENTS "Content-Type: text/event-stream\n"
#define JSON "Content-Type: application/json\n"

static void use(struct fake *f, const struct cm_conf_pair *options, size_t n)
{
    fake_init(f);
    f->conf.options = (struct cm_conf_pair *)(uintptr_t)options;
    f->conf.n_options = n;
    fake_use(f, "openai");
}

static void play(struct fake *f, const struct fake_answer *answer, size_t piece)
{
    f->answers = answer;
    f->n_answers = 1;
    f->piece = piece;
    fake_play(f);
    f->answers = NULL;
}

#define FORM "multipart/form-data; boundary=b1"
#define FIELD(name, data)                                                                          \
    "--b1\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" data "\r\n"
#define FILE_FIELD(name) FIELD(name "\"; filename=\"x.mp3", "\0\r\n--b")
#define END "--b1--\r\n"

static const struct sending {
    const struct cm_surface *surface;
    const char *type, *model, *path, *accept;
    struct cm_str body, sent;
} sendings[] = {
    {&cm_surface_openai_completions, NULL, "theirs", "/completions", "application/json",
     CM_S_INIT("{\"model\":\"m\", \"prompt\":\"x\",\"x\":1.0}"),
     CM_S_INIT("{\"model\":\"theirs\", \"prompt\":\"x\",\"x\":1.0}")},
    {&cm_surface_openai_completions, NULL, "m", "/completions", "text/event-stream",
     CM_S_INIT("{\"model\":\"m\",\"prompt\":[1,2],\"stream\":true}"),
     CM_S_INIT("{\"model\":\"m\",\"prompt\":[1,2],\"stream\":true,\"stream_options\":{\"include_"
               "usage\":true}}")},
    {&cm_surface_openai_embeddings, NULL, "m", "/embeddings", "application/json",
     CM_S_INIT("{\"model\":\"m\" ,\"input\":\"x\"}"),
     CM_S_INIT("{\"model\":\"m\" ,\"input\":\"x\"}")},
    {&cm_surface_openai_moderations, NULL, "omni-moderation-latest", "/moderations",
     "application/json", CM_S_INIT("{\"input\":[{}]}"), CM_S_INIT("{\"input\":[{}]}")},
    {&cm_surface_openai_images, NULL, "m", "/images/generations", "text/event-stream",
     CM_S_INIT("{\"model\":\"m\",\"prompt\":\"x\",\"stream\":true}"),
     CM_S_INIT("{\"model\":\"m\",\"prompt\":\"x\",\"stream\":true}")},
    {&cm_surface_openai_speech, NULL, "theirs", "/audio/speech", "*/*",
     CM_S_INIT("{\"model\":\"m\",\"input\":\"x\",\"voice\":\"v\"}"),
     CM_S_INIT("{\"model\":\"theirs\",\"input\":\"x\",\"voice\":\"v\"}")},
    {&cm_surface_openai_image_edits, FORM, "theirs", "/images/edits", "*/*",
     CM_S_INIT(FILE_FIELD("image") FIELD("model", "m") FIELD("prompt", "p") END),
     CM_S_INIT(FILE_FIELD("image") FIELD("model", "theirs") FIELD("prompt", "p") END)},
    {&cm_surface_openai_image_edits, "application/json", "theirs", "/images/edits",
     "application/json", CM_S_INIT("{\"model\":\"m\",\"prompt\":\"x\",\"images\":[{}]}"),
     CM_S_INIT("{\"model\":\"theirs\",\"prompt\":\"x\",\"images\":[{}]}")},
    {&cm_surface_openai_image_variations, FORM, "theirs", "/images/variations", "*/*",
     CM_S_INIT(FILE_FIELD("image") END),
     CM_S_INIT(FIELD("model", "theirs") FILE_FIELD("image") END)},
    {&cm_surface_openai_transcriptions, FORM, "", "/audio/transcriptions", "*/*",
     CM_S_INIT("pre\r\n" FIELD("model", "m") FILE_FIELD("file") END),
     CM_S_INIT("pre\r\n" FIELD("model", "m") FILE_FIELD("file") END)},
    {&cm_surface_openai_translations, FORM, "", "/audio/translations", "*/*",
     CM_S_INIT(FILE_FIELD("file") FIELD("model", "m") END),
     CM_S_INIT(FILE_FIELD("file") FIELD("model", "m") END)},
};

START_TEST(each_task_has_its_path_and_its_bytes)
{
    const struct sending *c = &sendings[_i];
    struct fake f;

    use(&f, NULL, 0);
    f.target.model = cm_str_of(c->model);
    fake_request(&f, c->surface, c->type, c->body);
    fake_open(&f);
    fake_turn(&f);
    ck_assert_uint_eq(f.n_calls, 1);
    ck_assert(
        cm_str_eq(f.calls[0].url, cm_arena_printf(&f.arena, "https://up.test/v1%s", c->path)));
    ck_assert_msg(cm_str_eq(f.calls[0].body, c->sent), "%.*s", CM_ARG(f.calls[0].body));
    ck_assert(
        cm_str_has(f.calls[0].headers, cm_arena_printf(&f.arena, "Content-Type: %s\n",
                                                       c->type ? c->type : "application/json")));
    ck_assert(cm_str_has(f.calls[0].headers, cm_arena_printf(&f.arena, "Accept: %s\n", c->accept)));
    fake_clear(&f);
}
END_TEST

/* ---- answers ---- */

#define IMAGE_REQUEST "{\"model\":\"m\",\"prompt\":\"x\",\"stream\":true}"
#define PARTIAL                                                                                    \
    "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"AAAA\"}\n\n"
#define COMPLETED                                                                                  \
    "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\","           \
    "\"b64_json\":\"AAAA\",\"usage\":{\"input_tokens\":5,\"output_tokens\":7,"                     \
    "\"input_tokens_details\":{\"cached_tokens\":2}}}\n\n"

START_TEST(named_events_pass_at_every_split)
{
    const struct fake_answer answer = {
        200, EVENTS, CM_S_INIT(": hi\n\n" PARTIAL COMPLETED COMPLETED), FAKE_COMPLETE};

    for (size_t piece = 0; piece <= answer.body.n; piece++) {
        struct fake f;

        use(&f, NULL, 0);
        fake_request(&f, &cm_surface_openai_images, NULL, CM_S(IMAGE_REQUEST));
        play(&f, &answer, piece);
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        ck_assert(cm_str_eq(cm_buf_str(&f.relay), answer.body));
        ck_assert(f.relay_before <= strlen(": hi\n\n"));
        ck_assert_int_eq(f.usage.images, 2);
        ck_assert_int_eq(f.usage.in_uncached, 3);
        ck_assert_int_eq(f.usage.in_cache_read, 2);
        ck_assert_int_eq(f.usage.out_text, 7);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(named_events_that_fail)
{
    static const struct {
        const char *body;
        enum cm_err_class cls;
    } cases[] = {
        {PARTIAL, CM_ERR_CUT},
        {"", CM_ERR_CUT},
        {PARTIAL
         "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"no\",\"code\":\"content_policy_violation\"}}\n\n",
         CM_ERR_CONTENT_FILTER},
        {"event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"}\n\n",
         CM_ERR_RATE_LIMITED},
        {"data: {\"type\":\n\n", CM_ERR_UPSTREAM_DOWN},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer answer = {200, EVENTS, cm_str_of(cases[i].body), FAKE_COMPLETE};
        struct fake f;

        use(&f, NULL, 0);
        fake_request(&f, &cm_surface_openai_images, NULL, CM_S(IMAGE_REQUEST));
        play(&f, &answer, 3);
        ck_assert_msg(f.err.cls == cases[i].cls, "%s: %s", cases[i].body, f.err.msg);
        fake_clear(&f);
    }
}
END_TEST

/* The type that a client is told, where the answer is neither the dialect's JSON nor its events. */
static char told[64];

static void note_type(struct fake *f, const struct cm_event *ev)
{
    (void)f;
    if (ev->kind == CM_EVENT_HEAD)
        cm_str_copy(told, sizeof(told), ev->media_type);
}

static const struct {
    const struct cm_surface *surface;
    const char *request; /* NULL = a form */
    const char *headers, *body, *told;
    unsigned n_semantic; /* RELAY events of a body in pieces of 4 */
    enum cm_err_class cls;
} answers[] = {
    {&cm_surface_openai_speech, "{\"model\":\"m\",\"input\":\"x\"}", "Content-Type: audio/wav\n",
     "RIFF1234", "audio/wav", 2, CM_ERR_NONE},
    {&cm_surface_openai_speech, "{\"model\":\"m\",\"input\":\"x\"}", NULL, "RIFF",
     "application/octet-stream", 1, CM_ERR_NONE},
    {&cm_surface_openai_speech, "{\"model\":\"m\",\"input\":\"x\"}", JSON, "{\"error\":\"busy\"}",
     "application/json", 0, CM_ERR_UPSTREAM_DOWN},
    {&cm_surface_openai_transcriptions, NULL, "Content-Type: text/plain; charset=utf-8\n",
     "1\n00:00\n", "text/plain; charset=utf-8", 1, CM_ERR_NONE},
    {&cm_surface_openai_transcriptions, NULL, JSON, "{\"text\":\"x\"}", "", 1, CM_ERR_NONE},
    {&cm_surface_openai_transcriptions, NULL, EVENTS, "data: x\n\n", "", 0, CM_ERR_UPSTREAM_DOWN},
    {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", JSON,
     "{\"data\":[0.1,1e5]}", "", 1, CM_ERR_NONE},
    {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", NULL, "{\"data\":[]}", "",
     1, CM_ERR_NONE},
    {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", JSON, "{\"data\":[}", "",
     0, CM_ERR_UPSTREAM_DOWN},
    {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", JSON, "[1]", "", 0,
     CM_ERR_UPSTREAM_DOWN},
    {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", JSON, "", "", 0,
     CM_ERR_UPSTREAM_DOWN},
    {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", JSON,
     "{\"error\":{\"code\":\"insufficient_quota\"}}", "", 0, CM_ERR_QUOTA_EXHAUSTED},
    {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", JSON,
     "{\"error\":null,\"error_x\":1}", "", 1, CM_ERR_NONE},
};

START_TEST(what_comes_back_keeps_its_type)
{
    const struct fake_answer answer = {200, answers[_i].headers, cm_str_of(answers[_i].body),
                                       FAKE_COMPLETE};
    struct fake f;

    use(&f, NULL, 0);
    f.on_event = note_type;
    told[0] = '\0';
    fake_request(&f, answers[_i].surface, answers[_i].request ? NULL : FORM,
                 answers[_i].request ? cm_str_of(answers[_i].request)
                                     : CM_S(FIELD("model", "m") FILE_FIELD("file") END));
    play(&f, &answer, 4);
    ck_assert_msg(f.err.cls == answers[_i].cls, "%s", f.err.msg);
    ck_assert_str_eq(
        told, answers[_i].cls == CM_ERR_UPSTREAM_DOWN && f.n_heads == 0 ? "" : answers[_i].told);
    ck_assert_uint_eq(f.n_semantic, answers[_i].n_semantic);
    if (answers[_i].cls == CM_ERR_NONE)
        ck_assert(cm_str_eq(cm_buf_str(&f.relay), answer.body));
    fake_clear(&f);
}
END_TEST

START_TEST(figures_of_other_answers)
{
    static const struct {
        const struct cm_surface *surface;
        const char *request, *body;
        int64_t in, out, images;
    } cases[] = {
        {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\"}",
         "{\"usage\":{\"prompt_tokens\":9,\"total_tokens\":9}}", 9, 0, 0},
        {&cm_surface_openai_images, "{\"model\":\"m\",\"prompt\":\"x\",\"n\":3}", "{\"data\":[]}",
         0, 0, 3},
        {&cm_surface_openai_images, "{\"model\":\"m\",\"prompt\":\"x\"}",
         "{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}", 1, 2, 1},
        {&cm_surface_openai_moderations, "{\"input\":\"x\"}", "{\"usage\":{\"seconds\":3}}", 0, 0,
         0},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer answer = {200, JSON, cm_str_of(cases[i].body), FAKE_COMPLETE};
        struct fake f;

        use(&f, NULL, 0);
        fake_request(&f, cases[i].surface, NULL, cm_str_of(cases[i].request));
        play(&f, &answer, 0);
        ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
        ck_assert_int_eq(cm_usage_in(&f.usage), cases[i].in);
        ck_assert_int_eq(cm_usage_out(&f.usage), cases[i].out);
        ck_assert_int_eq(f.usage.images, cases[i].images);
        fake_clear(&f);
    }
}
END_TEST

/* ---- what is only passed on ---- */

static void ask_pass(struct fake *f, const char *method)
{
    f->chat = CM_ARENA_NEW(&f->chat_arena, struct cm_chat);
    f->chat->arena = &f->chat_arena;
    f->chat->method = cm_str_of(method);
    f->chat->path = CM_S("/files/file-1");
    f->chat->query = CM_S("limit=2");
    f->chat->headers = CM_ARENA_ARRAY(&f->chat_arena, struct cm_header, 3);
    f->chat->headers[f->chat->n_headers++] = (struct cm_header){CM_S("openai-beta"), CM_S("b=1")};
    f->chat->headers[f->chat->n_headers++] =
        (struct cm_header){CM_S("openai-organization"), CM_S("org")};
    f->chat->headers[f->chat->n_headers++] = (struct cm_header){CM_S("idempotency-key"), CM_S("i")};
    ck_assert_int_eq(cm_surface_openai_pass.parse(f->chat, CM_STR_NONE, NULL), 0);
}

START_TEST(what_is_passed_on)
{
    static const struct {
        int status;
        enum cm_err_class cls;
    } cases[] = {
        {200, CM_ERR_NONE},         {206, CM_ERR_NONE},          {400, CM_ERR_NONE},
        {403, CM_ERR_NONE},         {404, CM_ERR_NONE},          {401, CM_ERR_INVALID_CREDENTIAL},
        {429, CM_ERR_RATE_LIMITED}, {500, CM_ERR_UPSTREAM_DOWN}, {503, CM_ERR_OVERLOADED}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer answer = {cases[i].status, "Content-Type: text/html\n",
                                           CM_S_INIT("<p>"), FAKE_COMPLETE};
        struct fake f;

        use(&f, NULL, 0);
        f.on_event = note_type;
        told[0] = '\0';
        ask_pass(&f, "PATCH");
        f.target.model = CM_S("");
        play(&f, &answer, 1);
        ck_assert_int_eq(f.err.cls, cases[i].cls);
        ck_str(f.calls[0].url, "https://up.test/v1/files/file-1?limit=2");
        ck_str(f.calls[0].method, "PATCH");
        ck_assert(cm_str_has(f.calls[0].headers, CM_S("OpenAI-Beta: b=1\n")));
        ck_assert(cm_str_has(f.calls[0].headers, CM_S("Idempotency-Key: i\n")));
        ck_assert(!cm_str_has(f.calls[0].headers, CM_S("rganization")));
        if (cases[i].cls == CM_ERR_NONE) {
            ck_str(cm_buf_str(&f.relay), "<p>");
            ck_assert_int_eq(f.head_status, cases[i].status);
            ck_assert_str_eq(told, "text/html");
        } else {
            ck_assert_uint_eq(f.relay.n, 0);
        }
        fake_clear(&f);
    }
}
END_TEST

/* ---- servers that differ ---- */

#define CHAT(more) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" more "}"
#define LONG "id-of-a-call-that-is-longer-than-forty-bytes"

static const struct quirk {
    const char *option, *value, *request, *sent;
} quirks[] = {
    {"max_tokens", "max_tokens", CHAT(",\"max_completion_tokens\":9,\"x\":1"),
     CHAT(",\"x\":1,\"max_tokens\":9")},
    {"max_tokens", "max_tokens", CHAT(",\"max_tokens\":9"), CHAT(",\"max_tokens\":9")},
    {"max_tokens", "max_completion_tokens", CHAT(",\"max_tokens\":9"),
     CHAT(",\"max_completion_tokens\":9")},
    {"max_tokens", "max_tokens", CHAT(",\"max_tokens\":7,\"max_completion_tokens\":9"),
     CHAT(",\"max_tokens\":9")},
    {"drop", "service_tier, metadata store",
     CHAT(",\"metadata\":{\"a\":1},\"user\":\"u\",\"store\":true"), CHAT(",\"user\":\"u\"")},
    {"stream_options", "no", CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"),
     CHAT(",\"stream\":true")},
    {"developer", "no",
     "{\"model\":\"m\",\"messages\":[ {\"role\" : \"developer\",\"content\":\"x\"} , {\"role\":\"user\",\"content\":\"\\u00e4\"}]}",
     "{\"model\":\"m\",\"messages\":[{\"role\" : \"system\",\"content\":\"x\"},{\"role\":\"user\",\"content\":\"\\u00e4\"}]}"},
    {"developer", "yes",
     "{\"model\":\"m\",\"messages\":[ {\"role\":\"developer\",\"content\":\"x\"}]}",
     "{\"model\":\"m\",\"messages\":[ {\"role\":\"developer\",\"content\":\"x\"}]}"},
    {"history_reasoning", "drop",
     "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"reasoning_content\":\"hm\",\"content\":\"x\",\"y\":1.0}]}",
     "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"y\":1.0}]}"},
    {"short_ids", "no",
     "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"" LONG
     "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
     "{\"role\":\"tool\",\"tool_call_id\":\"" LONG "\",\"content\":\"1\"}]}",
     "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"" LONG
     "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
     "{\"role\":\"tool\",\"tool_call_id\":\"" LONG "\",\"content\":\"1\"}]}"},
};

START_TEST(quirks_are_options)
{
    const struct quirk *q = &quirks[_i];
    const struct cm_conf_pair option = {.key = cm_str_of(q->option), .value = cm_str_of(q->value)};
    struct fake f;

    use(&f, &option, 1);
    fake_chat(&f, cm_str_of(q->request));
    fake_open(&f);
    fake_turn(&f);
    ck_assert_msg(cm_str_eq(f.calls[0].body, cm_str_of(q->sent)), "%.*s", CM_ARG(f.calls[0].body));
    fake_clear(&f);
}
END_TEST

/* The value of the first `key` in a text of JSON. */
static struct cm_str value_of(struct cm_str json, struct cm_str key)
{
    struct cm_str rest = cm_str_from(json, cm_str_find(json, key) + key.n + 3);

    return cm_str_cut(&rest, '"');
}

START_TEST(long_ids_become_short_ones_and_still_fit_together)
{
    struct cm_str call, result;
    struct fake f;

    use(&f, NULL, 0);
    fake_chat(
        &f,
        CM_S(
            "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"id\":\"" LONG
            "\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"2\"},{\"role\":\"tool\",\"content\":\"1\",\"tool_call_id\":\"" LONG
            "\"}]}"));
    fake_open(&f);
    fake_turn(&f);
    call = value_of(f.calls[0].body, CM_S("\"id"));
    result = value_of(
        cm_str_from(f.calls[0].body, cm_str_find(f.calls[0].body, CM_S("\"content\":\"1\""))),
        CM_S("\"tool_call_id"));
    ck_assert_msg(call.n > 5 && call.n <= 40 && cm_str_eq(call, result), "%.*s",
                  CM_ARG(f.calls[0].body));
    ck_assert(!cm_str_has(f.calls[0].body, CM_S(LONG)));
    ck_assert(cm_str_has(f.calls[0].body, CM_S("\"id\":\"c2\"")));
    fake_clear(&f);
}
END_TEST

START_TEST(azure)
{
    const struct cm_conf_pair options[] = {
        {.key = CM_S("key_header"), .value = CM_S("api-key")},
        {.key = CM_S("api_version"), .value = CM_S("2026-01-01")},
        {.key = CM_S("deployments"), .value = CM_S("yes")}};
    struct fake f;

    use(&f, options, CM_COUNT(options));
    f.target.model = CM_S("my gpt");
    fake_chat(&f, CM_S(CHAT("")));
    fake_open(&f);
    fake_turn(&f);
    ck_str(f.calls[0].url,
           "https://up.test/v1/deployments/my%20gpt/chat/completions?api-version=2026-01-01");
    ck_assert(cm_str_has(f.calls[0].headers, CM_S("api-key: sk-secret\n")));
    ck_assert(!cm_str_has(f.calls[0].headers, CM_S("uthorization")));
    fake_clear(&f);

    use(&f, options, CM_COUNT(options));
    ask_pass(&f, "GET");
    f.target.model = CM_S("");
    fake_open(&f);
    fake_turn(&f);
    ck_str(f.calls[0].url, "https://up.test/v1/files/file-1?limit=2&api-version=2026-01-01");
    fake_clear(&f);

    use(&f, options, CM_COUNT(options));
    f.flow = &f.instance.adapter->models_list;
    fake_open(&f);
    fake_turn(&f);
    ck_str(f.calls[0].url, "https://up.test/v1/models?api-version=2026-01-01");
    fake_clear(&f);
}
END_TEST

static int configured(struct cm_instance *in, struct cm_arena *arena, struct cm_problems *problems,
                      const struct cm_conf_pair *option)
{
    struct cm_provider_conf *conf = CM_ARENA_NEW(arena, struct cm_provider_conf);

    *conf = (struct cm_provider_conf){.name = CM_S("p"),
                                      .type = CM_S("openai"),
                                      .options = (struct cm_conf_pair *)(uintptr_t)option,
                                      .n_options = option ? 1 : 0};
    cm_problems_init(problems, arena);
    return cm_instance_init(in, conf, arena, problems);
}

START_TEST(tasks_are_what_the_operator_says)
{
    const struct cm_conf_pair few = {.key = CM_S("tasks"),
                                     .value = CM_S("chat, videos  embeddings")};
    const struct cm_conf_pair wrong = {
        .key = CM_S("tasks"), .value = CM_S("chat cooking"), .where = CM_S("gw.ini:7")};
    const struct cm_conf_pair none = {.key = CM_S("tasks"), .value = CM_S(" , ")};
    const struct cm_conf_pair header = {
        .key = CM_S("key_header"), .value = CM_S("a b"), .where = CM_S("gw.ini:8")};
    struct cm_arena arena = {0};
    struct cm_problems problems;
    struct cm_instance in;

    ck_assert_int_eq(configured(&in, &arena, &problems, &few), 0);
    /* OpenAI's own address counts tokens, whatever the list says */
    ck_assert_uint_eq(in.tasks, CM_TASK_BIT(CHAT) | CM_TASK_BIT(VIDEO) | CM_TASK_BIT(EMBEDDING) |
                                    CM_TASK_BIT(COUNT_TOKENS));
    ck_assert_int_eq(configured(&in, &arena, &problems, NULL), 0);
    ck_assert(in.tasks & CM_TASK_BIT(PASS));
    ck_assert(!(in.tasks & CM_TASK_BIT(VIDEO)));
    ck_assert_int_eq(configured(&in, &arena, &problems, &wrong), -1);
    ck_str(problems.first->where, "gw.ini:7");
    ck_assert(cm_str_has(problems.first->text, CM_S("'cooking' is none of chat, completions")));
    ck_assert_int_eq(configured(&in, &arena, &problems, &none), -1);
    ck_assert(cm_str_has(problems.first->text, CM_S("at least one")));
    ck_assert_int_eq(configured(&in, &arena, &problems, &header), -1);
    ck_str(problems.first->where, "gw.ini:8");
    cm_arena_clear(&arena);
}
END_TEST

Suite *suite_openai_tasks(void)
{
    Suite *s = suite_create("openai_tasks");
    TCase *t = tcase_create("openai_tasks");

    tcase_add_loop_test(t, each_task_has_its_path_and_its_bytes, 0, (int)CM_COUNT(sendings));
    tcase_add_test(t, named_events_pass_at_every_split);
    tcase_add_test(t, named_events_that_fail);
    tcase_add_loop_test(t, what_comes_back_keeps_its_type, 0, (int)CM_COUNT(answers));
    tcase_add_test(t, figures_of_other_answers);
    tcase_add_test(t, what_is_passed_on);
    tcase_add_loop_test(t, quirks_are_options, 0, (int)CM_COUNT(quirks));
    tcase_add_test(t, long_ids_become_short_ones_and_still_fit_together);
    tcase_add_test(t, azure);
    tcase_add_test(t, tasks_are_what_the_operator_says);
    suite_add_tcase(s, t);
    return s;
}
