/* openai, translate lane: requests of other dialects as chat completions, as the golden files say; answers as canonical events, at every split. */
#include "fake_host.h"
#include "fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "provider/openai_int.h"

#include <math.h>
#include <stdlib.h>

#define EVENTS "Content-Type: text/event-stream\n"
#define JSON "Content-Type: application/json\n"

/* ---- requests ---- */

static struct cm_str dropped_so_far;

/* Members the adapter gave up, in their order: from run.c's own callback. */
static void on_dropped(struct fake *f, struct cm_str field)
{
    dropped_so_far = cm_arena_printf(&f->arena, CM_PRI "%s" CM_PRI, CM_ARG(dropped_so_far),
                                     dropped_so_far.n > 0 ? " " : "", CM_ARG(field));
}

static void use(struct fake *f, const struct cm_conf_pair *options, size_t n)
{
    fake_init(f);
    f->conf.options = (struct cm_conf_pair *)(uintptr_t)options;
    f->conf.n_options = n;
    f->on_dropped = on_dropped;
    dropped_so_far = CM_STR_NONE;
    fake_use(f, "openai");
}

static void ck_json(struct cm_str got, yyjson_val *want, struct cm_str name)
{
    yyjson_doc *doc = cm_json_parse(got, &cm_json_limits_request, NULL);
    struct cm_buf text = {0};

    cm_json_put_val(&text, want);
    if (!yyjson_equals(yyjson_doc_get_root(doc), want))
        ck_abort_msg("%.*s:\n%.*s\nnot\n%.*s", CM_ARG(name), CM_ARG(got),
                     CM_ARG(cm_buf_str(&text)));
    cm_buf_clear(&text);
    yyjson_doc_free(doc);
}

static size_t read_options(yyjson_val *list, struct cm_conf_pair *out)
{
    size_t n = yyjson_arr_size(list) / 2;

    for (size_t i = 0; i < n; i++)
        out[i] = (struct cm_conf_pair){.key = cm_json_str(yyjson_arr_get(list, 2 * i)),
                                       .value = cm_json_str(yyjson_arr_get(list, 2 * i + 1))};
    return n;
}

static void check_case(const struct cm_surface *surface, yyjson_val *c)
{
    const struct cm_str name = cm_json_str(cm_json_get(c, "name")),
                        refused = cm_json_str(cm_json_get(c, "refused"));
    struct cm_conf_pair options[4];
    const size_t n = read_options(cm_json_get(c, "options"), options);
    struct cm_buf body = {0};
    struct fake f;

    use(&f, options, n);
    f.target.model = cm_json_str(cm_json_opt(c, "model"));
    if (f.target.model.n == 0)
        f.target.model = CM_S("m");
    cm_json_put_val(&body, cm_json_get(c, "request"));
    f.path = "m:generateContent";
    fake_request(&f, surface, NULL, cm_buf_str(&body));
    cm_buf_clear(&body);
    fake_open(&f);
    fake_turn(&f);
    if (refused.n > 0) {
        ck_assert_msg(f.ended && cm_str_has(cm_str_of(f.err.msg), refused), "%.*s: %s",
                      CM_ARG(name), f.err.msg);
        ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
    } else {
        ck_assert_msg(f.n_calls == 1, "%.*s: %s", CM_ARG(name), f.err.msg);
        ck_json(f.calls[0].body, cm_json_get(c, "want"), name);
        ck_assert_msg(cm_str_eq(dropped_so_far, cm_json_str(cm_json_get(c, "dropped"))),
                      "%.*s: dropped %.*s", CM_ARG(name), CM_ARG(dropped_so_far));
        ck_assert(cm_str_ends(f.calls[0].url, CM_S("/chat/completions")));
        ck_assert(cm_str_has(f.calls[0].headers, CM_S("Content-Type: application/json\n")));
    }
    fake_clear(&f);
}

static const struct {
    const char *file;
    const struct cm_surface *surface;
} golden[] = {
    {"openai/from_anthropic.json", &cm_surface_anthropic},
    {"openai/from_gemini.json", &cm_surface_gemini},
};

START_TEST(requests_are_as_the_golden_files_say)
{
    char *text = fixture(golden[_i].file);
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_request, NULL);
    size_t i, n;
    yyjson_val *c;

    ck_assert(yyjson_arr_size(yyjson_doc_get_root(doc)) > 5);
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, c) check_case(golden[_i].surface, c);
    yyjson_doc_free(doc);
    free(text);
}
END_TEST

/* What no surface that is translated says today: a chat made by hand. */
static struct cm_chat *by_hand(struct fake *f)
{
    struct cm_chat *chat = CM_ARENA_NEW(&f->chat_arena, struct cm_chat);

    chat->arena = &f->chat_arena;
    cm_chat_begin(chat, CM_DIALECT_GEMINI, CM_TASK_CHAT, CM_STR_NONE);
    chat->model = f->target.model = CM_S("m");
    chat->msgs = CM_ARENA_ARRAY(&f->chat_arena, struct cm_msg, 4);
    f->chat = chat;
    return chat;
}

static void say(struct fake *f, enum cm_role role, const struct cm_part *parts, size_t n)
{
    f->chat->msgs[f->chat->n_msgs++] =
        (struct cm_msg){.role = role, .parts = (struct cm_part *)(uintptr_t)parts, .n_parts = n};
}

static void expect_body(struct fake *f, const char *want)
{
    yyjson_doc *doc = cm_json_parse(cm_str_of(want), &cm_json_limits_request, NULL);

    fake_open(f);
    fake_turn(f);
    ck_assert_msg(f->n_calls == 1, "%s", f->err.msg);
    ck_json(f->calls[0].body, yyjson_doc_get_root(doc), CM_S("by hand"));
    yyjson_doc_free(doc);
}

static const struct cm_part hi[] = {{.kind = CM_PART_TEXT, .text = CM_S_INIT("hi")}};
#define HI_JSON "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

START_TEST(every_number_and_text)
{
    static struct cm_str stop[] = {CM_S_INIT("a")};
    struct cm_chat *chat;
    struct fake f;

    use(&f, NULL, 0);
    chat = by_hand(&f);
    say(&f, CM_ROLE_USER, hi, 1);
    chat->n = 3;
    chat->seed = -7;
    chat->has_seed = true;
    chat->presence_penalty = 0.5;
    chat->frequency_penalty = -1;
    chat->temperature = 0.1;
    chat->stop = stop;
    chat->n_stop = 1;
    chat->logprobs = true;
    chat->top_logprobs = 3;
    chat->logit_bias = CM_S("{\"5\":-100}");
    chat->verbosity = CM_S("low");
    chat->cache_key = CM_S("k");
    chat->modalities = CM_MODALITY_TEXT | CM_MODALITY_IMAGE;
    expect_body(&f, "{\"model\":\"m\"," HI_JSON
                    ",\"n\":3,\"seed\":-7,\"presence_penalty\":0.5,\"frequency_penalty\":-1,"
                    "\"temperature\":0.1,\"stop\":[\"a\"],\"logprobs\":true,\"top_logprobs\":3,"
                    "\"logit_bias\":{\"5\":-100},\"verbosity\":\"low\","
                    "\"modalities\":[\"image\",\"text\"]}");
    ck_str(dropped_so_far, "prompt_cache_key");
    fake_clear(&f);
}
END_TEST

START_TEST(openai_itself_takes_what_is_newest)
{
    struct cm_chat *chat;
    struct fake f;

    fake_init(&f);
    f.conf.base_url = CM_S("https://api.openai.com/v1");
    fake_use(&f, "openai");
    chat = by_hand(&f);
    say(&f, CM_ROLE_USER, hi, 1);
    chat->cache_key = CM_S("k");
    chat->max_tokens = 9;
    expect_body(&f, "{\"model\":\"m\"," HI_JSON
                    ",\"max_completion_tokens\":9,\"prompt_cache_key\":\"k\"}");
    fake_clear(&f);
}
END_TEST

START_TEST(json_must_have_been_said)
{
    static const struct cm_part said[] = {{.kind = CM_PART_TEXT, .text = CM_S_INIT("as Json")}};
    struct fake f;

    use(&f, NULL, 0);
    by_hand(&f)->format = CM_FORMAT_JSON;
    say(&f, CM_ROLE_USER, hi, 1);
    expect_body(&f,
                "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Answer with "
                "JSON.\"},{\"role\":\"user\",\"content\":\"hi\"}],\"response_format\":{\"type\":"
                "\"json_object\"}}");
    fake_clear(&f);
    use(&f, NULL, 0);
    by_hand(&f)->format = CM_FORMAT_JSON;
    say(&f, CM_ROLE_USER, said, 1);
    expect_body(&f, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"as Json\"}],"
                    "\"response_format\":{\"type\":\"json_object\"}}");
    fake_clear(&f);
}
END_TEST

START_TEST(sound_files_and_refusals)
{
    static const struct cm_part user[] = {
        {.kind = CM_PART_AUDIO, .media_type = CM_S_INIT("audio/mpeg"), .data = CM_S_INIT("UklG")},
        {.kind = CM_PART_FILE, .id = CM_S_INIT("file-1")},
        {.kind = CM_PART_IMAGE,
         .media_type = CM_S_INIT("image/png"),
         .data = CM_S_INIT("iVBO"),
         .detail = CM_S_INIT("low")}};
    static const struct cm_part assistant[] = {{.kind = CM_PART_REFUSAL, .text = CM_S_INIT("no")}};
    static const struct cm_part nothing[] = {{.kind = CM_PART_REASONING, .text = CM_S_INIT("x")}};
    static const struct cm_part flac[] = {
        {.kind = CM_PART_AUDIO, .media_type = CM_S_INIT("audio/flac"), .data = CM_S_INIT("x")}};
    struct fake f;

    use(&f, NULL, 0);
    by_hand(&f);
    say(&f, CM_ROLE_USER, user, 3);
    say(&f, CM_ROLE_ASSISTANT, assistant, 1);
    say(&f, CM_ROLE_ASSISTANT, nothing, 1);
    say(&f, CM_ROLE_SYSTEM, hi, 1);
    expect_body(
        &f, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_"
            "audio\",\"input_audio\":{\"data\":\"UklG\",\"format\":\"mp3\"}},{\"type\":\"file\","
            "\"file\":{\"file_id\":\"file-1\"}},{\"type\":\"image_url\",\"image_url\":{\"url\":"
            "\"data:image/png;base64,iVBO\",\"detail\":\"low\"}}]},{\"role\":\"assistant\","
            "\"content\":null,\"refusal\":\"no\"},{\"role\":\"system\",\"content\":\"hi\"}]}");
    fake_clear(&f);

    use(&f, NULL, 0);
    by_hand(&f);
    say(&f, CM_ROLE_USER, flac, 1);
    fake_open(&f);
    fake_turn(&f);
    ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(f.err.param, "contents");
    ck_assert_str_eq(f.err.code, "unsupported_content");
    fake_clear(&f);
}
END_TEST

static char called[80];

static void keep_name(struct fake *f, const struct cm_event *ev)
{
    (void)f;
    if (ev->kind == CM_EVENT_TOOL_CALL)
        cm_str_copy(called, sizeof(called), ev->name);
}

START_TEST(names_that_this_dialect_cannot_have)
{
    static struct cm_tool tools[] = {{.name = CM_S_INIT("mail.send"), .strict = -1},
                                     {.name = CM_S_INIT("mail:send"), .strict = -1}};
    const struct fake_answer answer = {
        200, JSON,
        CM_S_INIT(
            "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,"
            "\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"NAME\","
            "\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}"),
        FAKE_COMPLETE};
    struct cm_arena arena = {0};
    const struct cm_str first = openai_tool_name(&arena, tools[0].name),
                        second = openai_tool_name(&arena, tools[1].name);
    struct cm_buf body = {0};
    struct fake_answer named = answer;
    struct cm_str rest = answer.body;
    struct cm_chat *chat;
    struct fake f;

    ck_assert(cm_str_starts(first, CM_S("mail_send_")) && !cm_str_eq(first, second));
    ck_str(openai_tool_name(&arena, CM_S("plain-name_1")), "plain-name_1");
    ck_assert_uint_eq(openai_tool_name(&arena, cm_arena_printf(&arena, "%0100d", 1)).n, 64);

    cm_buf_append(&body, cm_str_head(rest, cm_str_find(rest, CM_S("NAME"))));
    cm_buf_append(&body, second);
    cm_buf_append(&body, cm_str_from(rest, cm_str_find(rest, CM_S("NAME")) + 4));
    named.body = cm_buf_str(&body);
    use(&f, NULL, 0);
    chat = by_hand(&f);
    say(&f, CM_ROLE_USER, hi, 1);
    chat->tools = tools;
    chat->n_tools = 2;
    f.on_event = keep_name;
    f.answers = &named;
    f.n_answers = 1;
    fake_play(&f);
    ck_assert(cm_str_has(f.calls[0].body, first) && cm_str_has(f.calls[0].body, second));
    ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
    ck_assert_str_eq(called, "mail:send");
    f.answers = NULL;
    fake_clear(&f);
    cm_buf_clear(&body);
    cm_arena_clear(&arena);
}
END_TEST

/* ---- answers ---- */

static struct cm_buf heard; /* one line for each event */

static void hear(struct fake *f, const struct cm_event *ev)
{
    (void)f;
    cm_buf_printf(&heard, "%s", cm_event_name(ev->kind));
    if (ev->choice)
        cm_buf_printf(&heard, " #%d", ev->choice);
    if (ev->kind == CM_EVENT_TOOL_CALL || ev->kind == CM_EVENT_TOOL_ARGS)
        cm_buf_printf(&heard, " %d", ev->index);
    if (ev->id.n > 0)
        cm_buf_printf(&heard, " id=" CM_PRI,
                      CM_ARG(cm_str_starts(ev->id, CM_S("call_0")) ? CM_S("made") : ev->id));
    if (ev->name.n > 0)
        cm_buf_printf(&heard, " name=" CM_PRI, CM_ARG(ev->name));
    if (ev->url.n > 0)
        cm_buf_printf(&heard, " url=" CM_PRI, CM_ARG(ev->url));
    if (ev->text.n > 0)
        cm_buf_printf(&heard, " '" CM_PRI "'", CM_ARG(ev->text));
    if (ev->logprobs.n > 0)
        cm_buf_printf(&heard, " " CM_PRI, CM_ARG(ev->logprobs));
    if (ev->kind == CM_EVENT_FINISH)
        cm_buf_printf(&heard, " %d", (int)ev->finish);
    if (ev->kind == CM_EVENT_USAGE)
        cm_buf_printf(&heard, " %d %d %s", (int)cm_usage_in(ev->usage),
                      (int)cm_usage_out(ev->usage), ev->usage->service_tier);
    cm_buf_put(&heard, '\n');
}

static void ask(struct fake *f, int64_t n, bool stream)
{
    struct cm_chat *chat;

    use(f, NULL, 0);
    chat = by_hand(f);
    say(f, CM_ROLE_USER, hi, 1);
    chat->n = n;
    chat->stream = stream;
    chat->logprobs = true;
    f->on_event = hear;
    cm_buf_reset(&heard);
}

#define D(delta) "data: {\"choices\":[{\"index\":0,\"delta\":" delta "}]}\n\n"
#define FIN(word)                                                                                  \
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" word "\"}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define CALL(index, more) D("{\"tool_calls\":[{\"index\":" index more "}]}")

static const struct transcript {
    const char *body, *heard;
    int64_t n;
} transcripts[] = {
    {": hi\n\n" D("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}")
         D("{\"content\":\"Gr\\u00fc\"}") D("{\"content\":\"ße\"}") FIN(
             "stop") "data: {\"choices\":[],\"service_tier\":\"flex\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\n" DONE,
     "TEXT 'Grü'\nTEXT 'ße'\nUSAGE 5 3 flex\nFINISH 1\n", 1},
    /* reasoning under its names, and told twice */
    {D("{\"reasoning_content\":\"a\"}") D("{\"reasoning\":\"b\"}") D(
         "{\"reasoning\":\"c\",\"reasoning_content\":\"c\"}")
         D("{\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"d\"}]},{\"type\":\"text\",\"text\":\"e\"}]}")
             D("{\"refusal\":\"f\"}") FIN("length") DONE,
     "REASONING 'a'\nREASONING 'b'\nREASONING 'c'\nREASONING 'd'\nTEXT 'e'\nREFUSAL 'f'\nFINISH 4\n",
     1},
    /* parallel calls, pieces that alternate */
    {CALL("0",
          ",\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}")
         CALL("1", ",\"id\":\"c2\",\"function\":{\"name\":\"g\",\"arguments\":\"{\"}")
             CALL("0", ",\"function\":{\"arguments\":\"{\\\"a\\\"\"}")
                 CALL("1", ",\"function\":{\"arguments\":\"}\"}")
                     CALL("0", ",\"id\":\"\",\"function\":{\"name\":null,\"arguments\":\":1}\"}")
                         FIN("tool_calls") DONE,
     "TOOL_CALL 0 id=c1 name=f\nTOOL_CALL 1 id=c2 name=g\nTOOL_ARGS 1 '{'\nTOOL_ARGS 0 '{\"a\"'\nTOOL_ARGS 1 '}'\nTOOL_ARGS 0 ':1}'\nFINISH 6\n",
     1},
    /* indices with gaps; no id; arguments as an object; finish says stop */
    {CALL("3", ",\"function\":{\"name\":\"f\",\"arguments\":{\"a\": 1}}")
         CALL("7", ",\"function\":{\"arguments\":\"{\"}")
             CALL("7", ",\"function\":{\"name\":\"g\",\"arguments\":\"}\"}") FIN("stop") DONE,
     "TOOL_CALL 0 id=made name=f\nTOOL_ARGS 0 '{\"a\":1}'\nTOOL_CALL 1 id=made name=g\nTOOL_ARGS 1 '{'\nTOOL_ARGS 1 '}'\nFINISH 1\n",
     1},
    /* every call whole, all with the index 0, or with none */
    {CALL("0", ",\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}")
         CALL("0", ",\"id\":\"c2\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}")
             FIN("tool_calls") DONE,
     "TOOL_CALL 0 id=c1 name=f\nTOOL_ARGS 0 '{}'\nTOOL_CALL 1 id=c2 name=f\nTOOL_ARGS 1 '{}'\nFINISH 6\n",
     1},
    {D("{\"tool_calls\":[{\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}},{\"id\":\"c2\",\"function\":{\"name\":\"g\",\"arguments\":\"[\"}}]}")
         D("{\"tool_calls\":[{\"function\":{\"arguments\":\"]\"}}]}")
             D("{\"tool_calls\":[{\"id\":\"c1\",\"function\":{\"arguments\":\"}\"}}]}")
                 FIN("tool_calls") DONE,
     "TOOL_CALL 0 id=c1 name=f\nTOOL_ARGS 0 '{'\nTOOL_CALL 1 id=c2 name=g\nTOOL_ARGS 1 '['\nTOOL_ARGS 1 ']'\nTOOL_ARGS 0 '}'\nFINISH 6\n",
     1},
    /* an id on every piece */
    {CALL("0", ",\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}")
         CALL("0", ",\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"}\"}")
             FIN("tool_calls") DONE,
     "TOOL_CALL 0 id=c1 name=f\nTOOL_ARGS 0 '{'\nTOOL_ARGS 0 '}'\nFINISH 6\n", 1},
    /* the form before tools */
    {D("{\"function_call\":{\"name\":\"f\",\"arguments\":\"\"}}")
         D("{\"function_call\":{\"arguments\":\"{}\"}}") FIN("function_call") DONE,
     "TOOL_CALL 0 id=made name=f\nTOOL_ARGS 0 '{}'\nFINISH 6\n", 1},
    /* several choices, one too many; figures on every chunk; no end mark */
    {"data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"},{\"index\":2,\"delta\":{\"content\":\"c\"}}]}\n\n"
     "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"eos\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":4}}\n\n",
     "TEXT #1 'b'\nTEXT 'a'\nUSAGE 1 4 \nFINISH 1\nFINISH #1 7\n", 2},
    /* pictures, citations, probabilities */
    {D("{\"content\":\"x\",\"images\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,iVBO\"}}]}") "data: {\"citations\":[\"https://a\",\"https://b\"],\"choices\":[{\"index\":0,\"delta\":{\"content\":\"y\",\"annotations\":[{\"type\":\"url_citation\",\"url_citation\":{\"url\":\"https://c\",\"title\":\"C\"}}]},"
                                                                                                                           "\"logprobs\":{\"content\":[{\"token\":\"y\",\"logprob\":-0.5}]}}]}\n\n" FIN(
                                                                                                                               "stop")
                                                                                                                               DONE,
     "TEXT 'x'\nIMAGE url=data:image/png;base64,iVBO\nTEXT 'y' [{\"token\":\"y\",\"logprob\":-0.5}]\nCITATION name=C url=https://c\nCITATION url=https://a\nCITATION url=https://b\nFINISH 1\n",
     1},
};

START_TEST(streams_at_every_split)
{
    const struct transcript *c = &transcripts[_i];
    const struct fake_answer answer = {200, EVENTS, cm_str_of(c->body), FAKE_COMPLETE};

    for (size_t piece = 0; piece <= answer.body.n; piece = piece < 70 ? piece + 1 : piece * 2) {
        struct fake f;

        ask(&f, c->n, true);
        f.answers = &answer;
        f.n_answers = 1;
        f.piece = piece;
        fake_play(&f);
        f.answers = NULL;
        ck_assert_msg(f.err.cls == CM_ERR_NONE, "%s", f.err.msg);
        if (!cm_str_eq(cm_buf_str(&heard), cm_str_of(c->heard)))
            ck_abort_msg("in pieces of %zu:\n%.*s\nnot\n%s", piece, CM_ARG(cm_buf_str(&heard)),
                         c->heard);
        ck_assert_uint_eq(f.n_heads, 0);
        fake_clear(&f);
    }
    cm_buf_clear(&heard);
}
END_TEST

/* Cut anywhere, a stream without its end mark is no answer. */
START_TEST(every_cut_of_a_stream)
{
    const struct cm_str body = cm_str_of(transcripts[2].body);
    const size_t whole = cm_str_find(body, CM_S("finish_reason"));

    for (size_t n = 0; n < whole; n++) {
        const struct fake_answer answer = {200, EVENTS, cm_str_head(body, n), FAKE_COMPLETE};
        struct fake f;

        ask(&f, 1, true);
        f.answers = &answer;
        f.n_answers = 1;
        fake_play(&f);
        f.answers = NULL;
        ck_assert(f.err.cls == CM_ERR_CUT || f.err.cls == CM_ERR_UPSTREAM_DOWN);
        ck_assert(!cm_str_has(cm_buf_str(&heard), CM_S("FINISH")));
        fake_clear(&f);
    }
    cm_buf_clear(&heard);
}
END_TEST

static const struct {
    const char *headers, *body, *heard;
    enum cm_err_class cls;
} wholes[] = {
    {JSON,
     "{\"id\":\"x\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hi\",\"reasoning_content\":\"hm\",\"refusal\":null,"
     "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
     "\"logprobs\":{\"content\":[]},\"finish_reason\":\"tool_calls\"}],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":9}}",
     "REASONING 'hm'\nTEXT 'Hi' []\nTOOL_CALL 0 id=c1 name=f\nTOOL_ARGS 0 '{\"a\":1}'\nTOOL_CALL 1 id=c2 name=g\nTOOL_ARGS 1 '{}'\nUSAGE 2 9 \nFINISH 6\n",
     CM_ERR_NONE},
    {JSON, "{\"choices\":[{\"message\":{\"content\":null}}]}", "FINISH 1\n", CM_ERR_NONE},
    {JSON, "{\"choices\":[]}", "", CM_ERR_UPSTREAM_DOWN},
    {JSON, "{\"choices\":", "", CM_ERR_UPSTREAM_DOWN},
    {JSON, "{\"error\":{\"code\":\"context_length_exceeded\",\"message\":\"long\"}}", "",
     CM_ERR_CONTEXT_LENGTH},
    {"Content-Type: text/html\n", "<html>", "", CM_ERR_UPSTREAM_DOWN},
};

START_TEST(whole_answers)
{
    const struct fake_answer answer = {200, wholes[_i].headers, cm_str_of(wholes[_i].body),
                                       FAKE_COMPLETE};

    for (size_t piece = 0; piece <= 32; piece++) {
        struct fake f;

        ask(&f, 1, false);
        f.answers = &answer;
        f.n_answers = 1;
        f.piece = piece;
        fake_play(&f);
        f.answers = NULL;
        ck_assert_msg(f.err.cls == wholes[_i].cls, "%s", f.err.msg);
        ck_assert_msg(cm_str_eq(cm_buf_str(&heard), cm_str_of(wholes[_i].heard)), "%.*s",
                      CM_ARG(cm_buf_str(&heard)));
        fake_clear(&f);
    }
    cm_buf_clear(&heard);
}
END_TEST

START_TEST(streams_that_fail)
{
    static const struct {
        const char *body;
        enum cm_err_class cls;
    } cases[] = {
        {"data: {\"error\":{\"message\":\"busy\",\"code\":\"overloaded\"}}\n\n", CM_ERR_OVERLOADED},
        {D("{\"content\":\"a\"}") "data: {\"error\":\"plain\"}\n\n", CM_ERR_UPSTREAM_DOWN},
        {"data: {\"choices\":\n\n", CM_ERR_UPSTREAM_DOWN},
        {"", CM_ERR_CUT},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer answer = {200, EVENTS, cm_str_of(cases[i].body), FAKE_COMPLETE};
        struct fake f;

        ask(&f, 1, true);
        f.answers = &answer;
        f.n_answers = 1;
        f.piece = 3;
        fake_play(&f);
        f.answers = NULL;
        ck_assert_msg(f.err.cls == cases[i].cls, "%s: %s", cases[i].body, f.err.msg);
        fake_clear(&f);
    }
    cm_buf_clear(&heard);
}
END_TEST

static void close_at_text(struct fake *f, const struct cm_event *ev)
{
    if (f->run && ev->kind == CM_EVENT_TEXT)
        fake_close(f);
}

START_TEST(the_client_may_leave_in_the_middle_of_an_event)
{
    struct fake f;

    ask(&f, 1, true);
    f.on_event = close_at_text;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, EVENTS);
    fake_data(
        &f,
        CM_S(D(
            "{\"content\":\"a\",\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}")
                 FIN("stop") DONE));
    ck_assert(!f.run && !f.ended);
    while (f.n_released == 0)
        fake_wait(&f, 50);
    fake_clear(&f);
}
END_TEST

/* ---- vectors, and completions by chat ---- */

static float vectors[2][2];

static void keep_vector(struct fake *f, const struct cm_event *ev)
{
    (void)f;
    if (ev->kind == CM_EVENT_EMBEDDING && ev->data.n == sizeof(vectors[0]))
        memcpy(vectors[ev->index], ev->data.p, ev->data.n);
}

START_TEST(vectors_for_another_dialect)
{
    static struct cm_str inputs[] = {CM_S_INIT("a"), CM_S_INIT("b\"")};
    static const struct {
        const char *body;
        enum cm_err_class cls;
    } cases[] = {
        {"{\"data\":[{\"index\":1,\"embedding\":[3,-4.5]},{\"index\":0,\"embedding\":\"AACAPwAAAD8=\"}],\"usage\":{\"prompt_tokens\":4}}",
         CM_ERR_NONE},
        {"{\"data\":[{\"index\":0,\"embedding\":[1,\"x\"]}]}", CM_ERR_UPSTREAM_DOWN},
        {"{\"data\":[{\"index\":0,\"embedding\":\"AAA=\"}]}", CM_ERR_UPSTREAM_DOWN},
        {"{\"data\":[{\"index\":0}]}", CM_ERR_UPSTREAM_DOWN},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer answer = {200, JSON, cm_str_of(cases[i].body), FAKE_COMPLETE};
        struct cm_chat *chat;
        struct fake f;

        use(&f, NULL, 0);
        chat = by_hand(&f);
        chat->task = CM_TASK_EMBEDDING;
        chat->inputs = inputs;
        chat->n_inputs = 2;
        chat->dimensions = 2;
        f.on_event = keep_vector;
        f.answers = &answer;
        f.n_answers = 1;
        fake_play(&f);
        f.answers = NULL;
        ck_assert_msg(f.err.cls == cases[i].cls, "%s: %s", cases[i].body, f.err.msg);
        ck_str(f.calls[0].url, "https://up.test/v1/embeddings");
        ck_str(f.calls[0].body, "{\"model\":\"m\",\"input\":[\"a\",\"b\\\"\"],\"dimensions\":2}");
        if (i == 0) {
            ck_assert(vectors[0][0] == 1.0f && vectors[0][1] == 0.5f);
            ck_assert(vectors[1][0] == 3.0f && vectors[1][1] == -4.5f);
            ck_assert_int_eq(cm_usage_in(&f.usage), 4);
        }
        fake_clear(&f);
    }
}
END_TEST

START_TEST(a_completion_of_a_server_that_only_chats)
{
    const struct cm_conf_pair chat = {.key = CM_S("tasks"), .value = CM_S("chat")};
    const struct fake_answer answer = {
        200, EVENTS, CM_S_INIT(D("{\"content\":\" upon\"}") FIN("stop") DONE), FAKE_COMPLETE};
    struct fake f;

    use(&f, &chat, 1);
    fake_request(&f, &cm_surface_openai_completions, NULL,
                 CM_S("{\"model\":\"m\",\"prompt\":\"Once\",\"max_tokens\":7,\"stop\":\"x\","
                      "\"stream\":true}"));
    ck_assert(!cm_instance_relays(&f.instance, f.chat));
    f.answers = &answer;
    f.n_answers = 1;
    fake_play(&f);
    f.answers = NULL;
    ck_str(f.calls[0].url, "https://up.test/v1/chat/completions");
    ck_str(
        f.calls[0].body,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Once\"}],\"max_tokens\":7,"
        "\"stop\":[\"x\"],\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
    ck_str(cm_buf_str(&f.text), " upon");
    fake_clear(&f);
}
END_TEST

Suite *suite_openai_translate(void)
{
    Suite *s = suite_create("openai_translate");
    TCase *t = tcase_create("requests");

    tcase_add_loop_test(t, requests_are_as_the_golden_files_say, 0, (int)CM_COUNT(golden));
    tcase_add_test(t, every_number_and_text);
    tcase_add_test(t, openai_itself_takes_what_is_newest);
    tcase_add_test(t, json_must_have_been_said);
    tcase_add_test(t, sound_files_and_refusals);
    tcase_add_test(t, names_that_this_dialect_cannot_have);
    suite_add_tcase(s, t);
    t = tcase_create("answers");
    tcase_add_loop_test(t, streams_at_every_split, 0, (int)CM_COUNT(transcripts));
    tcase_add_test(t, every_cut_of_a_stream);
    tcase_add_loop_test(t, whole_answers, 0, (int)CM_COUNT(wholes));
    tcase_add_test(t, streams_that_fail);
    tcase_add_test(t, the_client_may_leave_in_the_middle_of_an_event);
    tcase_add_test(t, vectors_for_another_dialect);
    tcase_add_test(t, a_completion_of_a_server_that_only_chats);
    suite_add_tcase(s, t);
    return s;
}
