/* openai: streams and bodies go through byte for byte, the tap finds usage, errors and the end, refusals are told apart. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"

#define STREAMED                                                                                   \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}"
#define COUNTED                                                                                    \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,"      \
    "\"stream_options\":{\"include_usage\":true}}"
#define WHOLE "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define EVENTS "Content-Type: text/event-stream; charset=utf-8\n"
#define JSON "Content-Type: application/json\n"

static void play(struct fake *f, const char *request, const struct fake_answer *answer,
                 size_t piece)
{
    if (!f->flow)
        fake_use(f, "openai");
    fake_chat(f, cm_str_of(request));
    f->answers = answer;
    f->n_answers = 1;
    f->piece = piece;
    fake_play(f);
    f->answers = NULL; /* the caller's */
}

/* Returns what the upstream sent. */
static struct cm_str play_file(struct fake *f, const char *request, const char *name, size_t piece,
                               bool crlf)
{
    char path[64] = "openai/";
    struct fake_answer answer = {200, EVENTS, CM_STR_NONE, FAKE_COMPLETE};

    fake_init(f);
    cm_str_copy(path + 7, sizeof(path) - 7, cm_str_of(name));
    answer.body = fake_fixture(f, path);
    if (crlf)
        answer.body = fake_crlf(f, answer.body);
    play(f, request, &answer, piece);
    return answer.body;
}

/* ---- what reached the client, event by event ---- */

struct reading {
    struct cm_buf data; /* LF behind each event's data */
};

static int read_event(void *arg, const struct cm_sse_event *ev)
{
    struct reading *r = arg;

    if (ev->data.p) {
        cm_buf_append(&r->data, ev->data);
        cm_buf_put(&r->data, '\n');
    }
    ck_quick(!ev->unfinished); /* a client would not see it */
    return 0;
}

static struct cm_str events_of(struct fake *f, struct cm_str stream)
{
    struct reading r = {0};
    struct cm_err err;
    struct cm_sse sse;
    struct cm_str kept;

    cm_sse_init(&sse, 1u << 20);
    ck_assert_int_eq(cm_sse_feed(&sse, stream, read_event, &r, &err), 0);
    ck_assert_int_eq(cm_sse_end(&sse, read_event, &r, &err), 0);
    cm_sse_clear(&sse);
    kept = cm_arena_str(&f->arena, cm_buf_str(&r.data));
    cm_buf_clear(&r.data);
    return kept;
}

static void ck_same(struct cm_str got, struct cm_str want, const char *name, size_t piece)
{
    ck_assert(want.p);
    if (!cm_str_eq(got, want))
        ck_abort_msg("%s in pieces of %zu:\n%.*s\nnot\n%.*s", name, piece, CM_ARG(got),
                     CM_ARG(want));
}

static void ck_done(const struct fake *f, const char *name)
{
    ck_assert_msg(f->ended && f->err.cls == CM_ERR_NONE, "%s: %s", name, f->err.msg);
}

/* ---- streams that end well ---- */

static const char *const good[] = {"text.sse", "usage_last.sse", "noise.sse", "tool.sse"};

START_TEST(a_stream_passes_byte_for_byte_at_every_split)
{
    for (size_t piece = 0; piece <= 64; piece++) {
        struct cm_str file;
        struct fake f;

        file = play_file(&f, COUNTED, good[_i], piece, false);
        ck_done(&f, good[_i]);
        ck_same(cm_buf_str(&f.relay), file, good[_i], piece);
        ck_assert_uint_eq(f.n_heads, 1);
        ck_assert_int_eq(f.head_status, 200);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(line_ends_do_not_matter)
{
    for (size_t piece = 0; piece <= 64; piece++) {
        static const char *const requests[] = {STREAMED, COUNTED};

        for (size_t i = 0; i < CM_COUNT(requests); i++) {
            struct cm_str lf, crlf;
            struct fake a, b;

            play_file(&a, requests[i], good[_i], piece, false);
            play_file(&b, requests[i], good[_i], piece, true);
            ck_done(&b, good[_i]);
            lf = events_of(&a, cm_buf_str(&a.relay));
            crlf = events_of(&b, cm_buf_str(&b.relay));
            ck_same(crlf, lf, good[_i], piece);
            ck_assert_int_eq(cm_usage_out(&b.usage), cm_usage_out(&a.usage));
            fake_clear(&a);
            fake_clear(&b);
        }
    }
}
END_TEST

START_TEST(usage_is_read_in_disjoint_parts)
{
    struct fake f;

    play_file(&f, STREAMED, "text.sse", 0, false);
    ck_assert_uint_eq(f.n_usages, 1);
    ck_assert_int_eq(f.usage.source, CM_USAGE_UPSTREAM);
    ck_assert_int_eq(f.usage.in_uncached, 12);
    ck_assert_int_eq(f.usage.in_cache_read, 8);
    ck_assert_int_eq(f.usage.in_cache_write, 0);
    ck_assert_int_eq(f.usage.out_text, 5);
    ck_assert_int_eq(f.usage.out_reasoning, 4);
    fake_clear(&f);
}
END_TEST

START_TEST(figures_nobody_asked_for_are_left_out)
{
    for (size_t piece = 0; piece <= 64; piece++) {
        struct cm_str file, got, chunk;
        struct fake f;

        play_file(&f, STREAMED, "text.sse", piece, false);
        ck_done(&f, "text.sse");
        ck_assert_uint_eq(f.n_usages, 1);
        got = cm_buf_str(&f.relay);
        file = fake_fixture(&f, "openai/text.sse");
        chunk = cm_str_from(
            file,
            cm_str_find(
                file,
                CM_S(
                    "data: {\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"theirs-1\",\"choices\":[],")));
        ck_same(cm_str_head(got, file.n - chunk.n), cm_str_head(file, file.n - chunk.n), "text.sse",
                piece);
        ck_same(cm_str_from(got, file.n - chunk.n), CM_S("data: [DONE]\n\n"), "text.sse", piece);
        fake_clear(&f);

        play_file(&f, STREAMED, "usage_last.sse", piece, false);
        ck_done(&f, "usage_last.sse");
        ck_assert_int_eq(f.usage.in_uncached, 3);
        got = events_of(&f, cm_buf_str(&f.relay));
        ck_assert(cm_str_has(
            got,
            CM_S("\"content\":\"!\"},\"finish_reason\":\"stop\"}],\"x_kept\":1.0}\n[DONE]\n")));
        ck_assert(!cm_str_has(got, CM_S("prompt_tokens")));
        fake_clear(&f);
    }
}
END_TEST

/* Roles, comments, pings and empty events are no answer yet: nothing is sent before something means something. */
START_TEST(only_meaning_counts)
{
    static const struct {
        const char *file, *first; /* what must stand in the first event that means something */
    } cases[] = {{"text.sse", "Hello "},
                 {"noise.sse", "reasoning_content"},
                 {"tool.sse", "call_1"},
                 {"usage_last.sse", "\"Hi\""}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_str before, rest;
        struct fake f;

        play_file(&f, COUNTED, cases[i].file, 1, false);
        before = cm_str_head(cm_buf_str(&f.relay), f.relay_before);
        rest = cm_str_from(cm_buf_str(&f.relay), f.relay_before);
        ck_assert_uint_gt(f.n_semantic, 0);
        ck_assert(!cm_str_has(before, cm_str_of(cases[i].first)));
        ck_assert(cm_str_has(cm_str_head(rest, cm_str_find(rest, CM_S("\n\n"))),
                             cm_str_of(cases[i].first)));
        fake_clear(&f);
    }
}
END_TEST

START_TEST(a_finish_reason_is_an_end_where_no_mark_is_sent)
{
    for (size_t piece = 0; piece <= 64; piece++) {
        struct cm_str events, file;
        struct fake f;

        play_file(&f, STREAMED, "no_mark.sse", piece, piece % 2);
        ck_done(&f, "no_mark.sse");
        events = events_of(&f, cm_buf_str(&f.relay));
        ck_assert(cm_str_ends(
            events, CM_S("\"finish_reason\":\"stop\"}]}\n[DONE]\n"))); /* our clients get one */
        file = fake_fixture(&f, "openai/no_mark.sse");
        if (piece % 2 == 0)
            ck_same(cm_str_head(cm_buf_str(&f.relay), file.n), file, "no_mark.sse", piece);
        fake_clear(&f);
    }
}
END_TEST

/* Neither the blank line after the last event nor its line end is there. */
START_TEST(the_last_blank_line_may_be_missing)
{
    static const struct {
        const char *file;
        size_t drop;
    } cases[] = {{"text.sse", 1}, {"text.sse", 2}, {"no_mark.sse", 1}, {"no_mark.sse", 2}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        for (size_t piece = 0; piece <= 16; piece++) {
            struct fake_answer answer = {200, EVENTS, CM_STR_NONE, FAKE_COMPLETE};
            struct cm_str events;
            struct fake f;

            fake_init(&f);
            answer.body = fake_fixture(&f, i < 2 ? "openai/text.sse" : "openai/no_mark.sse");
            answer.body.n -= cases[i].drop;
            play(&f, COUNTED, &answer, piece);
            ck_done(&f, cases[i].file);
            events = events_of(&f, cm_buf_str(&f.relay));
            ck_assert(cm_str_ends(events, CM_S("}\n[DONE]\n")));
            ck_assert(!cm_str_has(events, CM_S("[DONE]\n[DONE]")));
            fake_clear(&f);
        }
    }
}
END_TEST

/* ---- streams that do not ---- */

static void expect_failure(const struct fake *f, enum cm_err_class cls, const char *words)
{
    ck_assert(f->ended);
    ck_assert_msg(f->err.cls == cls, "%s: %s", cm_err_info(f->err.cls)->name, f->err.msg);
    ck_assert_msg(cm_str_has(cm_str_of(f->err.msg), cm_str_of(words)), "%s", f->err.msg);
}

START_TEST(a_stream_without_any_end_is_cut)
{
    for (size_t piece = 0; piece <= 64; piece++) {
        struct fake f;

        play_file(&f, STREAMED, "cut.sse", piece, false);
        expect_failure(&f, CM_ERR_CUT, "before the answer was complete");
        ck_assert(!cm_str_has(cm_buf_str(&f.relay), CM_S("[DONE]")));
        ck_assert(cm_str_has(cm_buf_str(&f.relay), CM_S("Hal"))); /* what came was passed on */
        fake_clear(&f);
    }
}
END_TEST

START_TEST(every_choice_must_have_ended)
{
    static const struct {
        const char *request;
        enum cm_err_class cls;
    } cases[] = {
        {"{\"model\":\"m\",\"n\":2,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}",
         CM_ERR_CUT},
        {STREAMED, CM_ERR_NONE},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake f;

        play_file(&f, cases[i].request, "two_choices.sse", 0, false);
        ck_assert_int_eq(f.err.cls, cases[i].cls);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(a_connection_that_breaks_is_cut_even_after_a_finish_reason)
{
    struct fake_answer answer = {200, EVENTS, CM_STR_NONE, FAKE_BREAKS};
    struct fake f;

    fake_init(&f);
    answer.body = fake_fixture(&f, "openai/no_mark.sse");
    play(&f, STREAMED, &answer, 7);
    expect_failure(&f, CM_ERR_CUT, "scripted: cut");
    ck_assert(!cm_str_has(cm_buf_str(&f.relay), CM_S("[DONE]")));
    fake_clear(&f);
}
END_TEST

START_TEST(errors_inside_a_stream_are_errors)
{
    static const struct {
        const char *file;
        enum cm_err_class cls;
        const char *words;
        unsigned semantic;
    } cases[] = {{"error_inside.sse", CM_ERR_OVERLOADED, "The engine is overloaded", 0},
                 {"error_late.sse", CM_ERR_UPSTREAM_DOWN, "Provider disconnected", 1},
                 {"unreadable.sse", CM_ERR_UPSTREAM_DOWN, "cannot be read", 1}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        for (size_t piece = 0; piece <= 64; piece++) {
            struct fake f;

            play_file(&f, STREAMED, cases[i].file, piece, piece % 2);
            expect_failure(&f, cases[i].cls, cases[i].words);
            ck_assert_uint_eq(f.n_semantic, cases[i].semantic);
            ck_assert(!cm_str_has(cm_buf_str(&f.relay),
                                  CM_S("error"))); /* the surface says it, not the upstream */
            fake_clear(&f);
        }
    }
}
END_TEST

static void close_at_once(struct fake *f, const struct cm_event *ev)
{
    if (f->run && ev->kind == CM_EVENT_RELAY)
        fake_close(f);
}

/* The exchange may end the run in the middle of a piece, and its chat is gone with it. */
START_TEST(the_client_may_leave_between_two_events_of_a_piece)
{
    static const char *const files[] = {"text.sse", "usage_last.sse", "noise.sse", "no_mark.sse",
                                        "cut.sse"};

    for (size_t i = 0; i < CM_COUNT(files); i++) {
        for (int unfinished = 0; unfinished < 2; unfinished++) {
            struct cm_str body;
            char path[64] = "openai/";
            struct fake f;

            fake_init(&f);
            fake_use(&f, "openai");
            fake_chat(&f, CM_S(STREAMED));
            f.on_event = close_at_once;
            cm_str_copy(path + 7, sizeof(path) - 7, cm_str_of(files[i]));
            body = fake_fixture(&f, path);
            fake_open(&f);
            fake_turn(&f);
            fake_head(&f, 200, EVENTS);
            if (unfinished) { /* the only event comes at the very end */
                fake_data(&f, CM_S("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}"));
                fake_end(&f);
            } else {
                fake_data(&f, body);
            }
            ck_assert(!f.run && !f.ended);
            while (f.n_released == 0)
                fake_wait(&f, 50);
            fake_clear(&f);
        }
    }
}
END_TEST

/* ---- refusals ---- */

static const struct {
    int status;
    const char *headers, *body;
    enum cm_err_class cls;
    const char *words;
    int http_status; /* of the error, 0 = the class's */
    const char *code, *param;
    int retry_after_s;
} refusals[] = {
    {400, JSON,
     "{\"error\":{\"message\":\"Bad temperature\",\"type\":\"invalid_request_error\",\"param\":\"temperature\",\"code\":\"invalid_value\"}}",
     CM_ERR_BAD_REQUEST, "Bad temperature", 400, "invalid_value", "temperature", 0},
    {400, JSON,
     "{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\",\"param\":\"messages\"}}",
     CM_ERR_CONTEXT_LENGTH, "too long", 0, "context_length_exceeded", "messages", 0},
    {400, JSON, "{\"error\":{\"message\":\"too long\",\"code\":\"string_above_max_length\"}}",
     CM_ERR_BAD_REQUEST, "too long", 400, "string_above_max_length", "", 0},
    {400, JSON, "{\"error\":{\"message\":\"filtered\",\"code\":\"content_filter\"}}",
     CM_ERR_CONTENT_FILTER, "filtered", 0, "content_filter", "", 0},
    {400, JSON, "{\"error\":{\"message\":\"filtered\",\"code\":\"content_policy_violation\"}}",
     CM_ERR_CONTENT_FILTER, "filtered", 0, "content_policy_violation", "", 0},
    {400, JSON, "{\"error\":{\"message\":\"Your organization must be verified to use this\"}}",
     CM_ERR_VERIFICATION_REQUIRED, "must be verified", 0, "", "", 0},
    {401, JSON,
     "{\"error\":{\"message\":\"Incorrect API key provided: sk-se**ret\",\"code\":\"invalid_api_key\"}}",
     CM_ERR_INVALID_CREDENTIAL, "refused the operator's credential (up#1, invalid_api_key)", 0, "",
     "", 0},
    {401, JSON, "{\"error\":{\"message\":\"gone\",\"code\":\"account_deactivated\"}}",
     CM_ERR_INVALID_CREDENTIAL, "account_deactivated", 0, "", "", 0},
    {401, NULL, "", CM_ERR_INVALID_CREDENTIAL, "refused the operator's credential (up#1)", 0, "",
     "", 0},
    {402, JSON, "{\"error\":{\"message\":\"Insufficient Balance\"}}", CM_ERR_QUOTA_EXHAUSTED,
     "Insufficient Balance", 0, "", "", 0},
    {403, JSON, "{\"error\":{\"message\":\"no access\"}}", CM_ERR_MODEL_UNAVAILABLE, "no access",
     403, "", "", 0},
    {403, JSON,
     "{\"error\":{\"message\":\"not here\",\"code\":\"unsupported_country_region_territory\"}}",
     CM_ERR_UPSTREAM_DOWN, "not here", 403, "", "", 0},
    /* a client must not take these for a refusal of its own key */
    {403, JSON, "{\"error\":{\"message\":\"gone\",\"code\":\"account_deactivated\"}}",
     CM_ERR_INVALID_CREDENTIAL, "account_deactivated", 0, "", "", 0},
    {403, JSON, "{\"error\":{\"message\":\"pay\",\"code\":\"insufficient_quota\"}}",
     CM_ERR_QUOTA_EXHAUSTED, "pay", 0, "", "", 0},
    {404, JSON, "{\"error\":{\"message\":\"no such thing\",\"code\":\"model_not_found\"}}",
     CM_ERR_MODEL_UNAVAILABLE, "no such thing", 0, "", "", 0},
    {404, JSON, "{\"error\":{\"message\":\"model \\\"m\\\" not found, try pulling it first\"}}",
     CM_ERR_MODEL_UNAVAILABLE, "pulling", 0, "", "", 0},
    {404, JSON, "{\"error\":{\"message\":\"no such path\"}}", CM_ERR_BAD_REQUEST, "no such path",
     404, "", "", 0},
    {408, NULL, "", CM_ERR_TIMEOUT, "status 408", 0, "", "", 0},
    {413, JSON, "{\"error\":\"too large\"}", CM_ERR_BAD_REQUEST, "too large", 413, "", "", 0},
    {429, JSON "Retry-After: 17\n",
     "{\"error\":{\"message\":\"slow down\",\"code\":\"rate_limit_exceeded\"}}",
     CM_ERR_RATE_LIMITED, "slow down", 0, "", "", 17},
    {429, JSON "retry-after-ms: 2500\nretry-after: 9\n", "{\"error\":{\"message\":\"slow down\"}}",
     CM_ERR_RATE_LIMITED, "slow down", 0, "", "", 3},
    {429, JSON,
     "{\"error\":{\"message\":\"pay\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}",
     CM_ERR_QUOTA_EXHAUSTED, "pay", 0, "", "", 0},
    {429, JSON, "{\"error\":{\"message\":\"pay\",\"code\":\"billing_hard_limit_reached\"}}",
     CM_ERR_QUOTA_EXHAUSTED, "pay", 0, "", "", 0},
    {429, JSON,
     "[{\"error\":{\"code\":429,\"message\":\"Resource has been exhausted\",\"status\":\"RESOURCE_EXHAUSTED\"}}]",
     CM_ERR_RATE_LIMITED, "exhausted", 0, "", "", 0},
    {500, JSON, "{\"error\":{\"message\":\"oops\",\"type\":\"server_error\"}}",
     CM_ERR_UPSTREAM_DOWN, "oops", 0, "", "", 0},
    {502, "Content-Type: text/html\n", "<html>Bad Gateway</html>", CM_ERR_UPSTREAM_DOWN,
     "status 502", 0, "", "", 0},
    {503, NULL, "", CM_ERR_OVERLOADED, "status 503", 0, "", "", 0},
    {529, JSON, "{\"error\":{\"message\":\"Overloaded\"}}", CM_ERR_OVERLOADED, "Overloaded", 0, "",
     "", 0},
    {504, NULL, "", CM_ERR_UPSTREAM_DOWN, "status 504", 0, "", "", 0},
    {302, NULL, "", CM_ERR_UPSTREAM_DOWN, "status 302", 0, "", "", 0},
    {400, JSON, "{\"error\":{\"message\":\"the key sk-secret is odd\"}}", CM_ERR_BAD_REQUEST,
     "status 400", 400, "", "", 0},
    /* JSON where events were asked for, or inside a 200 */
    {200, JSON, "{\"error\":{\"message\":\"busy\",\"code\":\"overloaded\"}}", CM_ERR_OVERLOADED,
     "busy", 0, "", "", 0},
    {200, JSON, "{\"error\":\"plain words\"}", CM_ERR_UPSTREAM_DOWN, "plain words", 0, "", "", 0},
    {200, JSON, "{\"error\":{\"message\":\"slow down\",\"code\":429}}", CM_ERR_RATE_LIMITED,
     "slow down", 0, "", "", 0},
};

START_TEST(a_refusal_is_told_apart)
{
    static const char *const requests[] = {STREAMED, WHOLE};

    for (size_t i = 0; i < CM_COUNT(requests); i++) {
        for (size_t piece = 0; piece <= 20; piece++) {
            struct fake_answer answer = {refusals[_i].status, refusals[_i].headers,
                                         cm_str_of(refusals[_i].body), FAKE_COMPLETE};
            struct fake f;

            fake_init(&f);
            play(&f, requests[i], &answer, piece);
            expect_failure(&f, refusals[_i].cls, refusals[_i].words);
            ck_assert_int_eq(f.err.http_status, refusals[_i].http_status);
            ck_assert_str_eq(f.err.code, refusals[_i].code);
            ck_assert_str_eq(f.err.param, refusals[_i].param);
            ck_assert_int_eq(f.err.retry_after_s, refusals[_i].retry_after_s);
            ck_assert(!cm_str_has(cm_str_of(f.err.msg), CM_S("sk-secret")));
            ck_assert_uint_eq(f.n_semantic, 0);
            ck_assert_uint_eq(f.relay.n, 0);
            fake_clear(&f);
        }
    }
}
END_TEST

static const struct {
    const char *message, *code;
    bool of_model;
} limits[] = {
    {"Rate limit reached for gpt-4o in organization org-1 on tokens per min", "rate_limit_exceeded",
     true},
    {"Rate limit reached for model `gpt-4o`.", "tokens", true},
    {"gpt-4o: too many requests for models/gpt-4o-mini", "", true},
    {"Not gpt-4o-mini but gpt-4o.", "", true},
    {"Rate limit reached for gpt-4o-mini in organization org-1", "rate_limit_exceeded", false},
    {"Rate limit reached for chatgpt-4o", "rate_limit_exceeded", false},
    {"Rate limit reached for ft:my-gpt-4o.1", "rate_limit_exceeded", false},
    {"Rate limit reached for requests", "rate_limit_exceeded", false},
    {"You exceeded your quota for gpt-4o", "insufficient_quota", false},
};

START_TEST(a_limit_that_names_the_model)
{
    struct fake_answer answer = {429, JSON, CM_STR_NONE, FAKE_COMPLETE};
    struct fake f;

    fake_init(&f);
    f.target.model = CM_S("gpt-4o");
    answer.body = cm_arena_printf(&f.arena, "{\"error\":{\"message\":\"%s\",\"code\":\"%s\"}}",
                                  limits[_i].message, limits[_i].code);
    play(&f, STREAMED, &answer, 0);
    ck_assert_int_eq(cm_err_status(&f.err), 429);
    ck_assert_msg(f.err.of_model == limits[_i].of_model, "%s", limits[_i].message);
    fake_clear(&f);
}
END_TEST

START_TEST(a_limit_that_says_a_word_which_is_also_a_model)
{
    static const struct fake_answer answer = {
        429, JSON, CM_S_INIT("{\"error\":{\"message\":\"too many chat requests\"}}"),
        FAKE_COMPLETE};
    struct fake f;

    fake_init(&f);
    f.target.model = CM_S("chat");
    play(&f, STREAMED, &answer, 0);
    ck_assert_int_eq(f.err.cls, CM_ERR_RATE_LIMITED);
    ck_assert(!f.err.of_model);
    fake_clear(&f);
}
END_TEST

START_TEST(a_refusal_is_read_to_a_limit)
{
    struct fake f;

    fake_init(&f);
    fake_use(&f, "openai");
    fake_chat(&f, CM_S(STREAMED));
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 500, NULL);
    for (int i = 0; i < 100 && !f.ended; i++)
        fake_data(&f, cm_arena_printf(&f.arena, "%01024d", i));
    expect_failure(&f, CM_ERR_UPSTREAM_DOWN, "status 500");
    fake_clear(&f);
}
END_TEST

/* ---- whole bodies ---- */

START_TEST(a_whole_answer_passes_byte_for_byte)
{
    for (size_t piece = 0; piece <= 64; piece++) {
        struct fake_answer answer = {200, JSON, CM_STR_NONE, FAKE_COMPLETE};
        struct fake f;

        fake_init(&f);
        answer.body = fake_fixture(&f, "openai/whole.json");
        play(&f, WHOLE, &answer, piece);
        ck_done(&f, "whole.json");
        ck_same(cm_buf_str(&f.relay), answer.body, "whole.json", piece);
        ck_assert_uint_eq(f.n_semantic, 1);
        ck_assert_int_eq(f.usage.in_uncached, 5);
        ck_assert_int_eq(f.usage.in_cache_read, 2);
        ck_assert_int_eq(f.usage.in_cache_write, 3);
        ck_assert_int_eq(f.usage.out_text, 5);
        fake_clear(&f);
    }
}
END_TEST

/* Figures that contradict each other never make a part larger than the whole, or negative. */
START_TEST(odd_figures_are_bounded)
{
    struct fake_answer answer = {
        200, JSON,
        CM_S_INIT(
            "{\"choices\":[{}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"prompt_cache_hit_tokens\":4,"
            "\"prompt_tokens_details\":{\"cached_tokens\":-1,\"cache_write_tokens\":9},"
            "\"completion_tokens_details\":{\"reasoning_tokens\":7}}}"),
        FAKE_COMPLETE};
    struct fake f;

    fake_init(&f);
    play(&f, WHOLE, &answer, 0);
    ck_done(&f, "odd");
    ck_assert_int_eq(f.usage.in_uncached, 0);
    ck_assert_int_eq(f.usage.in_cache_read, 4);
    ck_assert_int_eq(f.usage.in_cache_write, 1);
    ck_assert_int_eq(f.usage.out_text, 0);
    ck_assert_int_eq(f.usage.out_reasoning, 3);
    fake_clear(&f);

    answer.body = CM_S("{\"choices\":[{}],\"usage\":{\"prompt_tokens\":9223372036854775807,"
                       "\"completion_tokens\":9223372036854775807}}");
    fake_init(&f);
    play(&f, WHOLE, &answer, 0);
    ck_assert_int_eq(cm_usage_in(&f.usage) + cm_usage_out(&f.usage), 0);
    fake_clear(&f);
}
END_TEST

START_TEST(a_whole_answer_must_be_one)
{
    static const struct {
        const char *body;
        enum fake_rest rest;
        enum cm_err_class cls;
        const char *words;
    } cases[] = {
        {"{\"id\":1", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN, "cannot be read"},
        {"", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN, "cannot be read"},
        {"<html></html>", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN, "cannot be read"},
        {"[1]", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN, "no JSON object"},
        {"{\"id\":\"c\"}", FAKE_BREAKS, CM_ERR_CUT, "scripted"},
        {"", FAKE_NOTHING, CM_ERR_UPSTREAM_DOWN, "scripted"},
        {"{\"error\":{}}", FAKE_COMPLETE, CM_ERR_UPSTREAM_DOWN, "error without words"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake_answer answer = {200, JSON, cm_str_of(cases[i].body), cases[i].rest};
        struct fake f;

        fake_init(&f);
        play(&f, WHOLE, &answer, 2);
        expect_failure(&f, cases[i].cls, cases[i].words);
        ck_assert_uint_eq(f.relay.n, 0);
        fake_clear(&f);
    }
}
END_TEST

START_TEST(error_null_is_no_error)
{
    struct fake_answer answer = {200, JSON, CM_S_INIT("{\"error\":null,\"choices\":[{}]}"),
                                 FAKE_COMPLETE};
    struct fake f;

    fake_init(&f);
    play(&f, WHOLE, &answer, 0);
    ck_done(&f, "null");
    ck_str(cm_buf_str(&f.relay), "{\"error\":null,\"choices\":[{}]}");
    ck_assert_uint_eq(f.n_usages, 0);
    fake_clear(&f);
}
END_TEST

/* ---- what is sent ---- */

#define REQUEST(options)                                                                           \
    "{ \"messages\":[{\"role\":\"user\",\"content\":\"hi\"}], \"temperature\":1.50e0,\"model\" : " \
    "\"ours\", \"x_unknown\":{\"a\":[1 ,2]}" options ",\"stream\":true}"

static const struct {
    const char *request, *model, *option, *sent;
} sendings[] = {
    /* usage is always asked for; everything else stays as it was */
    {REQUEST(""), "ours", NULL,
     "{ \"messages\":[{\"role\":\"user\",\"content\":\"hi\"}], \"temperature\":1.50e0,\"model\" : \"ours\", \"x_unknown\":{\"a\":[1 ,2]},\"stream\":true,"
     "\"stream_options\":{\"include_usage\":true}}"},
    {REQUEST(""), "their \"s", NULL,
     "{ \"messages\":[{\"role\":\"user\",\"content\":\"hi\"}], \"temperature\":1.50e0,\"model\" : \"their \\\"s\", \"x_unknown\":{\"a\":[1 ,2]},\"stream\":true,"
     "\"stream_options\":{\"include_usage\":true}}"},
    {REQUEST(",\"stream_options\":{\"include_usage\":false,\"include_obfuscation\":false}"), "ours",
     NULL, REQUEST(",\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false}")},
    {REQUEST(",\"stream_options\":null"), "ours", NULL,
     REQUEST(",\"stream_options\":{\"include_usage\":true}")},
    {REQUEST(",\"stream_options\":{}"), "ours", NULL,
     REQUEST(",\"stream_options\":{\"include_usage\":true}")},
    {REQUEST(""), "ours", "no", REQUEST("")},
    {WHOLE, "m", NULL, WHOLE},
    {WHOLE, "other", NULL,
     "{\"model\":\"other\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"},
};

START_TEST(the_request_is_changed_only_where_it_must)
{
    struct cm_conf_pair option = {.key = CM_S("stream_options")};
    struct fake f;

    fake_init(&f);
    if (sendings[_i].option) {
        option.value = cm_str_of(sendings[_i].option);
        f.conf.options = &option;
        f.conf.n_options = 1;
    }
    fake_use(&f, "openai");
    f.target.model = cm_str_of(sendings[_i].model);
    fake_chat(&f, cm_str_of(sendings[_i].request));
    fake_open(&f);
    fake_turn(&f);
    ck_assert_uint_eq(f.n_calls, 1);
    ck_same(f.calls[0].body, cm_str_of(sendings[_i].sent), "request", (size_t)_i);
    ck_str(f.calls[0].url, "https://up.test/v1/chat/completions");
    ck_str(f.calls[0].method, "POST");
    ck_assert(cm_str_has(f.calls[0].headers, CM_S("Authorization: Bearer sk-secret\n")));
    ck_assert(cm_str_has(f.calls[0].headers, CM_S("Content-Type: application/json\n")));
    fake_clear(&f);
}
END_TEST

START_TEST(without_a_key_none_is_sent)
{
    struct fake f;

    fake_init(&f);
    f.cred.secret = CM_STR_NONE;
    fake_use(&f, "openai");
    fake_chat(&f, CM_S(WHOLE));
    fake_open(&f);
    fake_turn(&f);
    ck_assert(!cm_str_has(f.calls[0].headers, CM_S("Authorization")));
    fake_clear(&f);
}
END_TEST

/* A whole answer is silent until it is done: neither first_token nor idle may end it. */
START_TEST(a_whole_answer_may_take_its_time)
{
    struct fake f;

    fake_init(&f);
    f.conf.upstream.first_token_timeout_ms = f.conf.upstream.idle_timeout_ms = 30;
    f.conf.upstream.response_timeout_ms = 200;
    fake_use(&f, "openai");
    fake_chat(&f, CM_S(WHOLE));
    fake_open(&f);
    fake_wait(&f, 100);
    ck_assert(!f.ended);
    fake_wait(&f, 250);
    expect_failure(&f, CM_ERR_TIMEOUT, "response_timeout");
    fake_clear(&f);
}
END_TEST

/* ---- the list of models ---- */

START_TEST(models_are_listed)
{
    static const struct {
        int status;
        const char *body, *models;
        enum cm_err_class cls;
    } cases[] = {
        {200,
         "{\"object\":\"list\",\"data\":[{\"id\":\"a\"},{\"id\":\"\"},{\"x\":1},{\"id\":\"b/c\"}]}",
         "a\nb/c\n", CM_ERR_NONE},
        {200, "{\"data\":[]}", "", CM_ERR_NONE},
        {200, "{\"data\":{}}", "", CM_ERR_UPSTREAM_DOWN},
        {200, "no", "", CM_ERR_UPSTREAM_DOWN},
        {401, "{\"error\":{\"code\":\"invalid_api_key\"}}", "", CM_ERR_INVALID_CREDENTIAL},
        {404, "", "", CM_ERR_BAD_REQUEST},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct fake_answer answer = {cases[i].status, JSON, cm_str_of(cases[i].body),
                                     FAKE_COMPLETE};
        struct fake f;

        fake_init(&f);
        fake_use(&f, "openai");
        f.flow = &f.instance.adapter->models_list;
        f.answers = &answer;
        f.n_answers = 1;
        fake_play(&f);
        ck_assert_int_eq(f.err.cls, cases[i].cls);
        ck_same(cm_buf_str(&f.models), cm_str_of(cases[i].models), "models", i);
        ck_str(f.calls[0].url, "https://up.test/v1/models");
        ck_str(f.calls[0].method, "GET");
        fake_clear(&f);
    }
}
END_TEST

Suite *suite_openai(void)
{
    Suite *s = suite_create("openai");
    TCase *t = tcase_create("streams");

    tcase_add_loop_test(t, a_stream_passes_byte_for_byte_at_every_split, 0, (int)CM_COUNT(good));
    tcase_add_loop_test(t, line_ends_do_not_matter, 0, (int)CM_COUNT(good));
    tcase_add_test(t, usage_is_read_in_disjoint_parts);
    tcase_add_test(t, figures_nobody_asked_for_are_left_out);
    tcase_add_test(t, only_meaning_counts);
    tcase_add_test(t, a_finish_reason_is_an_end_where_no_mark_is_sent);
    tcase_add_test(t, the_last_blank_line_may_be_missing);
    tcase_add_test(t, a_stream_without_any_end_is_cut);
    tcase_add_test(t, every_choice_must_have_ended);
    tcase_add_test(t, a_connection_that_breaks_is_cut_even_after_a_finish_reason);
    tcase_add_test(t, errors_inside_a_stream_are_errors);
    tcase_add_test(t, the_client_may_leave_between_two_events_of_a_piece);
    suite_add_tcase(s, t);

    t = tcase_create("bodies");
    tcase_add_loop_test(t, a_refusal_is_told_apart, 0, (int)CM_COUNT(refusals));
    tcase_add_loop_test(t, a_limit_that_names_the_model, 0, (int)CM_COUNT(limits));
    tcase_add_test(t, a_limit_that_says_a_word_which_is_also_a_model);
    tcase_add_test(t, a_refusal_is_read_to_a_limit);
    tcase_add_test(t, a_whole_answer_passes_byte_for_byte);
    tcase_add_test(t, odd_figures_are_bounded);
    tcase_add_test(t, a_whole_answer_must_be_one);
    tcase_add_test(t, error_null_is_no_error);
    suite_add_tcase(s, t);

    t = tcase_create("requests");
    tcase_add_loop_test(t, the_request_is_changed_only_where_it_must, 0, (int)CM_COUNT(sendings));
    tcase_add_test(t, without_a_key_none_is_sent);
    tcase_add_test(t, a_whole_answer_may_take_its_time);
    tcase_add_test(t, models_are_listed);
    suite_add_tcase(s, t);
    return s;
}
