/* provider/alexsidebar: every vector of the protocol notes, at every split; its calls; what each refusal means. */
#include "fake_run.h"
#include "fixture.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/provider/list.h"
#include "provider/alexsidebar_int.h"
#include "unit.h"

#include <stdlib.h>

#define BODY(model, messages) "{\"model\":\"" model "\",\"messages\":[" messages "]}"
#define ASK "{\"role\":\"user\",\"content\":\"Name a colour.\"}"
#define TOKEN "{\"access\":\"acc.ess\",\"refresh\":\"AMf-later\",\"user\":\"uid-1\"}"
#define SAYS(text) "{\"sections\":[{\"text\":{\"text\":\"" text "\",\"is_thinking\":false}}]}"
#define SEP "\xe2\x80\xba"

static struct fake_result r;
static const char *const keyed[] = {"firebase_key", "AIza-test&key", NULL};

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

static void ask(const char *body, struct fake_reply reply)
{
    fake_run(&(struct fake_setup){.type = "alexsidebar",
                                  .body = body,
                                  .token = TOKEN,
                                  .options = keyed,
                                  .replies = &reply,
                                  .n_replies = 1},
             &r);
}

/* ---- the vectors ---- */

static yyjson_doc *vectors(const char *list, yyjson_val **out)
{
    char *text = fixture("alexsidebar/vectors.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_request, NULL);

    free(text);
    ck_assert_ptr_nonnull(doc);
    *out = cm_json_get(yyjson_doc_get_root(doc), list);
    ck_assert_uint_gt(yyjson_arr_size(*out), 0);
    return doc;
}

static void put_hex(struct cm_buf *out, struct cm_str hex)
{
    for (size_t i = 0; i + 1 < hex.n; i += 2) {
        char two[3] = {hex.p[i], hex.p[i + 1], '\0'};

        cm_buf_put(out, (char)strtoul(two, NULL, 16));
    }
}

static void expect_answer(yyjson_val *vector, size_t piece)
{
    yyjson_val *want = cm_json_get(vector, "expect");
    struct cm_str name = cm_json_str(cm_json_get(vector, "name"));

    ck_assert_msg(r.done, CM_PRI " in pieces of %zu: %s", CM_ARG(name), piece, r.err.msg);
    ck_assert(r.finished_last);
    ck_assert_msg(cm_str_eq(cm_str_of(fake_text(&r)), cm_json_str(cm_json_get(want, "content"))),
                  CM_PRI " in pieces of %zu: \"%s\"", CM_ARG(name), piece, fake_text(&r));
    ck_assert_msg(
        cm_str_eq(cm_str_of(fake_reasoning(&r)), cm_json_str(cm_json_get(want, "reasoning"))),
        CM_PRI ": \"%s\"", CM_ARG(name), fake_reasoning(&r));
}

START_TEST(the_streams_of_the_notes_in_pieces_of_every_size)
{
    yyjson_val *list, *v;
    yyjson_doc *doc = vectors("streams", &list);
    size_t i, max, k, n;

    yyjson_arr_foreach(list, i, max, v)
    {
        struct cm_buf body = {0};
        yyjson_val *chunk;

        yyjson_arr_foreach(cm_json_get(v, "chunks_hex"), k, n, chunk)
            put_hex(&body, cm_json_str(chunk));
        for (size_t piece = 0; piece <= body.n && piece <= 64; piece++) {
            const struct fake_reply reply = {.body = cm_buf_z(&body)};

            fake_run(&(struct fake_setup){.type = "alexsidebar",
                                          .body = BODY("gpt-4o", ASK),
                                          .token = TOKEN,
                                          .options = keyed,
                                          .replies = &reply,
                                          .n_replies = 1,
                                          .piece = piece},
                     &r);
            expect_answer(v, piece);
            fake_result_clear(&r);
        }
        cm_buf_clear(&body);
    }
    yyjson_doc_free(doc);
}
END_TEST

struct heard {
    struct alex_sections sections;
    struct cm_buf content, reasoning;
};

static void on_say(void *arg, bool reasoning, struct cm_str text)
{
    struct heard *h = arg;

    ck_assert_uint_gt(text.n, 0);
    cm_buf_append(reasoning ? &h->reasoning : &h->content, text);
}

static int on_object(void *arg, struct cm_str object, struct cm_err *err)
{
    struct heard *h = arg;
    yyjson_doc *doc = cm_json_parse(object, &cm_json_limits_event, err);

    ck_assert_msg(doc != NULL, "%s", err->msg);
    alex_sections_walk(&h->sections, cm_json_get(yyjson_doc_get_root(doc), "sections"), on_say, h);
    yyjson_doc_free(doc);
    return 0;
}

/* The chunks as they are, and the whole cut in two at every byte. */
static void scan(const struct cm_str *pieces, size_t n, yyjson_val *want)
{
    struct alex_scan s = {0};
    struct heard h = {0};
    struct cm_err err = {0};

    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(alex_scan_feed(&s, pieces[i], on_object, &h, &err), 0);
    ck_assert_uint_eq(s.depth, 0);
    ck_assert(cm_str_eq(cm_buf_str(&h.content), cm_json_str(cm_json_get(want, "content"))));
    ck_assert(cm_str_eq(cm_buf_str(&h.reasoning), cm_json_str(cm_json_get(want, "reasoning"))));
    alex_scan_clear(&s);
    alex_sections_clear(&h.sections);
    cm_buf_clear(&h.content);
    cm_buf_clear(&h.reasoning);
}

START_TEST(the_streams_of_the_notes_at_every_split)
{
    yyjson_val *list, *v;
    yyjson_doc *doc = vectors("streams", &list);
    size_t i, max, k, n;

    yyjson_arr_foreach(list, i, max, v)
    {
        yyjson_val *chunks = cm_json_get(v, "chunks_hex"), *chunk;
        struct cm_str *pieces = cm_calloc(yyjson_arr_size(chunks), sizeof(struct cm_str));
        size_t *ends = cm_calloc(yyjson_arr_size(chunks), sizeof(size_t));
        struct cm_buf body = {0};

        yyjson_arr_foreach(chunks, k, n, chunk)
        {
            put_hex(&body, cm_json_str(chunk));
            ends[k] = body.n;
        }
        for (k = 0; k < n; k++)
            pieces[k] =
                cm_str(body.p + (k > 0 ? ends[k - 1] : 0), ends[k] - (k > 0 ? ends[k - 1] : 0));
        scan(pieces, n, cm_json_get(v, "expect"));
        for (size_t at = 0; at <= body.n; at++) {
            const struct cm_str two[] = {cm_str_head(cm_buf_str(&body), at),
                                         cm_str_from(cm_buf_str(&body), at)};

            scan(two, 2, cm_json_get(v, "expect"));
        }
        free(pieces);
        free(ends);
        cm_buf_clear(&body);
    }
    yyjson_doc_free(doc);
}
END_TEST

static int seconds_of_month_left(void)
{
    return (int)((cm_month_ends_ms(cm_unix_ms()) - cm_unix_ms()) / 1000);
}

/* One that was made so many seconds ago. */
static char *token_aged(int64_t s)
{
    struct cm_buf out = {0};

    cm_buf_printf(&out, "{\"access\":\"acc.ess\",\"made\":%lld}",
                  (long long)(cm_unix_ms() / 1000 - s));
    cm_buf_z(&out);
    return out.p;
}

/* With a fresh token and an old one: that makes a difference for "Bearer" alone. */
START_TEST(the_refusals_of_the_notes)
{
    yyjson_val *list, *v;
    yyjson_doc *doc = vectors("replies", &list);
    struct cm_arena arena = {0};
    size_t i, max;

    yyjson_arr_foreach(list, i, max, v)
    {
        const char *body = cm_arena_z(&arena, cm_json_str(cm_json_get(v, "body")));
        const char *want = cm_arena_z(&arena, cm_json_str(cm_json_get(v, "class")));
        const struct fake_reply reply = {.status = yyjson_get_int(cm_json_get(v, "status")),
                                         .content_type = "application/json",
                                         .body = body};

        for (int old = 0; old < 2; old++) {
            char *token = token_aged(old ? 1800 : 60);

            fake_run(&(struct fake_setup){.type = "alexsidebar",
                                          .body = BODY("gpt-4o", ASK),
                                          .token = token,
                                          .options = keyed,
                                          .replies = &reply,
                                          .n_replies = 1,
                                          .piece = 7},
                     &r);
            free(token);
            ck_assert(!r.done && r.answer.n_choices == 0);
            ck_assert_str_eq(cm_err_info(r.err.cls)->name,
                             old && strstr(body, "Bearer") ? "expired" : want);
            if (cm_json_get(v, "cooldown")) { /* the provider's own, which `cooldown` changes */
                ck_assert_int_eq(r.err.retry_after_s, 0);
                ck_assert_int_eq(cm_provider_alexsidebar.cooldown_ms,
                                 1000 * yyjson_get_sint(cm_json_get(v, "cooldown")));
            }
            if (r.err.cls == CM_ERR_QUOTA_EXHAUSTED) {
                ck_assert_int_le(abs(r.err.retry_after_s - seconds_of_month_left()), 2);
            }
            fake_result_clear(&r);
        }
    }
    yyjson_doc_free(doc);
    cm_arena_clear(&arena);
}
END_TEST

/* ---- snapshots beyond the vectors ---- */

static const struct {
    const char *body, *content, *reasoning;
} answers[] = {
    /* rewritten: said again as a new section, as the notes want it */
    {SAYS("one two") SEP SAYS("one three"), "one two\none three", ""},
    /* the half tag grows out of what was said before */
    {SAYS("a</n") SEP SAYS("a</new") SEP SAYS("a</new_") SEP SAYS("a</new_x>b"), "a</new_x>b", ""},
    {SAYS("a</new") SEP SAYS("a</new_"), "a", ""},
    /* line feeds and odd things between objects */
    {"\r\n" SAYS("a") "\n[]," SAYS("ab") "\n", "ab", ""},
    /* thinking between two texts */
    {"{\"sections\":[{\"text\":{\"text\":\"a\",\"is_thinking\":false}},{\"text\":{\"text\":\"hm\","
     "\"is_thinking\":true}},{\"text\":{\"text\":\"b\",\"is_thinking\":false}}]}",
     "a\nb", "hm"},
    /* code first, code after code */
    {"{\"sections\":[{\"code\":{\"code\":\"x\"}},{\"code\":{\"code\":\"y\"}}]}", "\n\nx\n\ny", ""},
    /* an empty section has nothing to be kept apart from */
    {"{\"sections\":[{\"text\":{\"text\":\"\",\"is_thinking\":false}},{\"text\":{\"text\":\"a\","
     "\"is_thinking\":false}}]}",
     "a", ""},
    {"{\"sections\":[{\"text\":null,\"code\":null},{\"text\":{\"text\":\"a\"}}]}", "a", ""},
    /* half a character: that snapshot is left out, the next has it whole */
    {SAYS("a\\ud83c") SEP SAYS("a\\ud83c\\udf0d"), "a\xf0\x9f\x8c\x8d", ""},
    {"{\"sections\":{}}" SEP "{\"sections\":[1,\"x\"]}" SEP SAYS("a"), "a", ""},
};

START_TEST(what_a_snapshot_adds)
{
    ask(BODY("gpt-4o", ASK), (struct fake_reply){.body = answers[_i].body});
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(fake_text(&r), answers[_i].content);
    ck_assert_str_eq(fake_reasoning(&r), answers[_i].reasoning);
    ck_assert_int_eq(r.answer.usage.source, CM_USAGE_ESTIMATED);
    ck_assert_int_gt(r.answer.usage.in_uncached, 0);
    ck_assert_int_gt(r.answer.usage.out_text, 0);
    fake_result_clear(&r);
}
END_TEST

/* Many snapshots of a long answer: each byte is scanned once. */
START_TEST(a_long_answer_is_read_in_reasonable_time)
{
    struct cm_buf body = {0};
    uint64_t began;

    for (int n = 100; n <= 20000; n += 100) { /* 2 MB in all */
        cm_buf_append(&body, CM_S("{\"sections\":[{\"text\":{\"text\":\""));
        for (int i = 0; i < n; i++)
            cm_buf_put(&body, (char)('a' + i % 26));
        cm_buf_append(&body, CM_S("\",\"is_thinking\":false}}]}" SEP));
    }
    began = cm_mono_ms();
    fake_run(&(struct fake_setup){.type = "alexsidebar",
                                  .body = BODY("gpt-4o", ASK),
                                  .token = TOKEN,
                                  .options = keyed,
                                  .replies = &(struct fake_reply){.body = cm_buf_z(&body)},
                                  .n_replies = 1,
                                  .piece = 1000},
             &r);
    ck_assert(r.done);
    ck_assert_uint_eq(strlen(fake_text(&r)), 20000);
    ck_assert_uint_lt(cm_mono_ms() - began, 2000);
    fake_result_clear(&r);
    cm_buf_clear(&body);
}
END_TEST

START_TEST(an_object_without_an_end_is_given_up)
{
    struct alex_scan s = {0};
    struct heard h = {0};
    struct cm_err err = {0};
    char piece[65536];
    int failed = 0;

    memset(piece, 'x', sizeof(piece));
    ck_assert_int_eq(alex_scan_feed(&s, CM_S("{\""), on_object, &h, &err), 0);
    for (int i = 0; i < 129 && !failed; i++)
        failed = alex_scan_feed(&s, cm_str(piece, sizeof(piece)), on_object, &h, &err);
    ck_assert_int_eq(failed, -1);
    ck_assert_int_eq(err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_uint_le(s.object.n, ALEX_OBJECT_MAX);
    alex_scan_clear(&s);
}
END_TEST

/* ---- the call ---- */

/* ts_created is the moment: replaced by 0 where it is one of the last few. */
static const char *sent_body(size_t request)
{
    const struct cm_str body = r.requests[request].body, name = CM_S("\"ts_created\":");
    struct cm_buf out = {0};
    struct cm_str rest = body;
    size_t at;

    while ((at = cm_str_find(rest, name)) != SIZE_MAX) {
        uint64_t s;

        cm_buf_append(&out, cm_str_head(rest, at + name.n));
        rest = cm_str_from(rest, at + name.n);
        ck_assert(cm_str_to_u64(cm_str_head(rest, 10), UINT64_MAX, &s));
        ck_assert_int_le(llabs((long long)s - cm_unix_ms() / 1000), 5);
        cm_buf_put(&out, '0');
        rest = cm_str_from(rest, 10);
    }
    cm_buf_append(&out, rest);
    return cm_arena_z(&r.arena, cm_buf_settle(&out, &r.arena));
}

#define REST "\"img_urls\":[],\"relevant_files\":[],\"docs\":[],\"code_contexts\":[]"
#define SENT(role, id, think, text)                                                                \
    "{\"role\":\"" role "\",\"id\":" id ",\"ts_created\":0,\"web_access\":false," REST             \
    ",\"think_first\":" think ",\"sections\":[{\"text\":{\"text\":\"" text                         \
    "\",\"is_thinking\":false}}]}"
#define KEYS                                                                                       \
    "\"api_keys\":{\"anthropic\":\"\",\"perplexity\":\"\",\"gemini\":\"\",\"openai\":\"\"},\"deps\":[]"

static void expect_sent(const char *want)
{
    struct cm_buf got = {0};

    ck_assert_msg(r.done, "%s", r.err.msg);
    cm_buf_append(&got, cm_str_of(sent_body(0)));
    ck_assert_str_eq(cm_buf_z(&got), want);
    cm_buf_clear(&got);
    fake_result_clear(&r);
}

START_TEST(the_call_of_the_notes)
{
    static const char *const names[] = {"Content-Type",     "auth",     "app-version",
                                        "app-build-number", "local-id", "accept-language",
                                        "User-Agent"};

    ask(BODY("claude-3-7-sonnet-thinking", "{\"role\":\"system\",\"content\":\"Be brief.\"}," ASK),
        (struct fake_reply){.body = SAYS("Blue")});
    ck_assert_uint_eq(r.n_requests, 1);
    ck_str(r.requests[0].method, "POST");
    ck_str(r.requests[0].url, "https://api.alexcodes.app/call_assistant5");
    ck_assert_uint_eq(r.requests[0].n_headers, CM_COUNT(names));
    for (size_t i = 0; i < CM_COUNT(names); i++)
        ck_assert(cm_str_eq(r.requests[0].headers[i].name, cm_str_of(names[i])));
    ck_assert_str_eq(header(0, "content-type"), "application/json");
    ck_assert_str_eq(header(0, "auth"), "acc.ess");
    ck_assert_str_eq(header(0, "app-version"), "2.5.7");
    ck_assert_str_eq(header(0, "app-build-number"), "191");
    ck_assert_str_eq(header(0, "accept-language"), "zh-CN,zh-Hans;q=0.9");
    ck_assert_str_eq(header(0, "user-agent"),
                     "AlexSideBar/191 CFNetwork/1568.300.101 Darwin/24.2.0");
    ck_assert_str_eq(header(0, "local-id"), "CB26WJGLEB"); /* of SHA-256("uid-1") */
    expect_sent("{\"model\":\"agent_sonnet_37\",\"prompt\":\"Be brief.\"," KEYS
                ",\"messages\":[" SENT("System", "0", "false", "Be brief.") "," SENT(
                    "User", "1", "true", "Name a colour.") "]}");
}
END_TEST

static const struct {
    const char *body, *sent;
} bodies[] = {
    /* several turns; what has no content is left out; developer, tool */
    {BODY("gpt-4o",
          "{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\"},"
          "{\"role\":\"assistant\",\"content\":\"b\\n\\\"c\\\"\"},"
          "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"d\"},"
          "{\"type\":\"text\",\"text\":\"e\"}]},"
          "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\","
          "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
          "{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"42\"}"),
     "{\"model\":\"gpt4o\",\"prompt\":\"\"," KEYS
     ",\"messages\":[" SENT("User", "0", "false", "a") "," SENT(
         "Assistant", "1", "false",
         "b\\n\\\"c\\\"") ","
                          "{\"role\":\"System\",\"id\":2,\"ts_created\":0,\"web_access\":false," REST
                          ",\"think_first\":false,\"sections\":[{\"text\":{\"text\":\"d\",\"is_thinking\":false}},"
                          "{\"text\":{\"text\":\"e\",\"is_thinking\":false}}]}," SENT(
                              "Assistant", "3", "false",
                              "[calls f with {}]") "," SENT("User", "4", "false",
                                                            "[result of f]\\n42") "]}"},
    /* thinking is for a question: the last message is not the user's */
    {BODY("claude-3-7-sonnet-thinking", ASK ",{\"role\":\"assistant\",\"content\":\"B\"}"),
     "{\"model\":\"agent_sonnet_37\",\"prompt\":\"\"," KEYS ",\"messages\":[" SENT(
         "User", "0", "false", "Name a colour.") "," SENT("Assistant", "1", "false", "B") "]}"},
    {BODY("o1", ASK), "{\"model\":\"o1\",\"prompt\":\"\"," KEYS
                      ",\"messages\":[" SENT("User", "0", "false", "Name a colour.") "]}"},
};

START_TEST(what_becomes_of_a_conversation)
{
    ask(bodies[_i].body, (struct fake_reply){.body = SAYS("x")});
    expect_sent(bodies[_i].sent);
}
END_TEST

START_TEST(every_model_has_its_name)
{
    static const char *const names[][2] = {
        {"claude-3-7-sonnet", "agent_sonnet_37"},
        {"claude-3-7-sonnet-thinking", "agent_sonnet_37"},
        {"claude-3-5-sonnet", "agent_sonnet"},
        {"deepseek-r1", "agent_deepseek_r1"},
        {"deepseek-v3", "deepseek_v3"},
        {"o3-mini", "agent_o3_mini"},
        {"gpt-4o", "gpt4o"},
        {"o1", "o1"},
        {"o1-search", "o1"},
        {"claude-3-7-sonnet-search", "agent_sonnet_37"},
    };

    for (size_t i = 0; i < CM_COUNT(names); i++) {
        struct cm_buf body = {0};
        yyjson_doc *doc;
        yyjson_val *root, *msg;

        cm_buf_printf(&body, BODY("%s", ASK), names[i][0]);
        ask(cm_buf_z(&body), (struct fake_reply){.body = SAYS("x")});
        ck_assert_msg(r.done, "%s: %s", names[i][0], r.err.msg);
        doc = cm_json_parse(r.requests[0].body, &cm_json_limits_event, NULL);
        root = yyjson_doc_get_root(doc);
        msg = yyjson_arr_get_first(cm_json_get(root, "messages"));
        ck_assert(cm_str_eq(cm_json_str(cm_json_get(root, "model")), cm_str_of(names[i][1])));
        ck_assert(yyjson_get_bool(cm_json_get(msg, "web_access")) ==
                  (strstr(names[i][0], "-search") != NULL));
        ck_assert(yyjson_get_bool(cm_json_get(msg, "think_first")) ==
                  (strstr(names[i][0], "-thinking") != NULL));
        yyjson_doc_free(doc);
        cm_buf_clear(&body);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(options_move_the_calls)
{
    static const char *const options[] = {"firebase_key",
                                          "k",
                                          "token_url",
                                          "https://t",
                                          "token_path",
                                          "/tp",
                                          "chat_path",
                                          "/c",
                                          "app_version",
                                          "9.9",
                                          "app_build",
                                          "7",
                                          "accept_language",
                                          "de",
                                          "local_id",
                                          "MYMACMYMAC",
                                          "client_version",
                                          "cv",
                                          "gmpid",
                                          "gm",
                                          "anthropic_key",
                                          "sk-a",
                                          "openai_key",
                                          "sk-o",
                                          "perplexity_key",
                                          "sk-p",
                                          "gemini_key",
                                          "sk-g",
                                          "image_urls",
                                          "yes",
                                          "token_user_agent",
                                          "tua",
                                          NULL};
    static const char *const any[] = {"mine=agent_new", NULL};
    struct fake_setup setup = {
        .type = "alexsidebar",
        .body = BODY("mine-thinking",
                     "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
                     "\"url\":\"https://h/p.png\"}},{\"type\":\"text\",\"text\":\"x\"}]}"),
        .token = "{\"access\":\"a\"}",
        .options = options,
        .models = any,
        .replies = &(struct fake_reply){.body = SAYS("x")},
        .n_replies = 1};

    fake_run(&setup, &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.requests[0].url, "https://api.alexcodes.app/c");
    ck_assert_str_eq(header(0, "app-version"), "9.9");
    ck_assert_str_eq(header(0, "app-build-number"), "7");
    ck_assert_str_eq(header(0, "accept-language"), "de");
    ck_assert_str_eq(header(0, "local-id"), "MYMACMYMAC");
    ck_assert_str_eq(header(0, "user-agent"), "AlexSideBar/7 CFNetwork/1568.300.101 Darwin/24.2.0");
    expect_sent("{\"model\":\"agent_new\",\"prompt\":\"\",\"api_keys\":{\"anthropic\":\"sk-a\","
                "\"perplexity\":\"sk-p\",\"gemini\":\"sk-g\",\"openai\":\"sk-o\"},\"deps\":[],"
                "\"messages\":[{\"role\":\"User\",\"id\":0,\"ts_created\":0,\"web_access\":false,"
                "\"img_urls\":[\"https://h/p.png\"],\"relevant_files\":[],\"docs\":[],"
                "\"code_contexts\":[],\"think_first\":true,\"sections\":[{\"text\":{\"text\":\"x\","
                "\"is_thinking\":false}}]}]}");
    setup.refresh = true;
    setup.replies = &(struct fake_reply){.body = "{\"access_token\":\"a\"}"};
    fake_run(&setup, &r);
    ck_assert(r.done);
    ck_str(r.requests[0].url, "https://t/tp?key=k");
    ck_assert_str_eq(header(0, "user-agent"), "tua");
    ck_assert_str_eq(header(0, "x-client-version"), "cv");
    ck_assert_str_eq(header(0, "x-firebase-gmpid"), "gm");
    fake_result_clear(&r);
}
END_TEST

/* Stable, of the right shape, another for each account, and the secret's while the user is not known. */
START_TEST(each_account_has_a_device_of_its_own)
{
    char first[16];

    for (int i = 0; i < 4; i++) {
        const char *token = i < 2    ? TOKEN
                            : i == 2 ? "{\"access\":\"a\",\"user\":\"uid-2\"}"
                                     : "{\"access\":\"a\"}";
        struct cm_str id;

        fake_run(&(struct fake_setup){.type = "alexsidebar",
                                      .body = BODY("o1", ASK),
                                      .token = token,
                                      .options = keyed,
                                      .replies = &(struct fake_reply){.body = SAYS("x")},
                                      .n_replies = 1},
                 &r);
        id = cm_str_of(header(0, "local-id"));
        ck_assert_uint_eq(id.n, 10);
        for (size_t k = 0; k < id.n; k++)
            ck_assert(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", id.p[k]) != NULL);
        if (i == 0)
            cm_str_copy(first, sizeof(first), id);
        ck_assert(cm_str_eq(id, cm_str_of(first)) == (i < 2));
        fake_result_clear(&r);
    }
}
END_TEST

#define PICTURE(url)                                                                               \
    "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\"}}]}"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"

START_TEST(what_it_cannot_do_is_said_at_once)
{
    static const struct {
        const char *body, *param; /* NULL = not refused */
        bool image_urls;
    } cases[] = {
        {BODY("o1", PICTURE("https://h/p.png")), "messages[0].content", false},
        {BODY("o1", ASK "," PICTURE("https://h/p.png")), "messages[1].content", false},
        {BODY("o1", PICTURE("data:image/png;base64,AAAA")), "messages[0].content", true},
        {BODY("o1", PICTURE("https://h/p.png")), NULL, true},
        {"{\"model\":\"o1\",\"n\":2,\"messages\":[" ASK "]}", "n", false},
        {"{\"model\":\"o1\"," TOOLS ",\"messages\":[" ASK "]}", "tools", false},
        {"{\"model\":\"o1\"," TOOLS ",\"tool_choice\":\"none\",\"messages\":[" ASK "]}", NULL,
         false},
        {BODY("o1", "{\"role\":\"user\",\"content\":\"\"}"), "messages", false},
        {BODY("o1", "{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}"),
         "messages[0].content[0].type", false},
    };
    static const char *const pictures[] = {"firebase_key", "k", "image_urls", "yes", NULL};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        fake_run(&(struct fake_setup){.type = "alexsidebar",
                                      .body = cases[i].body,
                                      .token = TOKEN,
                                      .options = cases[i].image_urls ? pictures : keyed,
                                      .replies = &(struct fake_reply){.body = SAYS("x")},
                                      .n_replies = 1},
                 &r);
        ck_assert_msg(r.done == !cases[i].param, "case %zu: %s", i, r.err.msg);
        ck_assert_uint_eq(r.n_requests, cases[i].param ? 0 : 1);
        if (cases[i].param) {
            ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
            ck_assert_str_eq(r.err.param, cases[i].param);
        }
        fake_result_clear(&r);
    }
}
END_TEST

/* ---- failures beyond the vectors ---- */

#define HTML "<html><title>Just a moment...</title><script>window._cf_chl_opt={}</script></html>"
#define BLOCKED "<html><title>Attention Required! | Cloudflare</title>{}</html>"

static const struct {
    struct fake_reply reply;
    enum cm_err_class cls;
    int retry_after_s;
    const char *text; /* what was said before; in the message when `says` */
} failures[] = {
    {{.status = 403, .content_type = "text/html", .body = HTML},
     CM_ERR_VERIFICATION_REQUIRED,
     0,
     ""},
    {{.status = 200, .content_type = "text/html; charset=utf-8", .body = BLOCKED},
     CM_ERR_VERIFICATION_REQUIRED,
     0,
     ""},
    {{.status = 503, .content_type = "text/html", .body = HTML},
     CM_ERR_VERIFICATION_REQUIRED,
     0,
     ""},
    {{.status = 429, .header = "Retry-After", .header_value = "5"}, CM_ERR_RATE_LIMITED, 5, ""},
    {{.status = 429}, CM_ERR_RATE_LIMITED, 0, ""},
    {{.status = 401}, CM_ERR_EXPIRED, 0, ""},
    {{.status = 422, .body = "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"field required\"}]}"},
     CM_ERR_BAD_REQUEST,
     0,
     ""},
    {{.status = 403, .body = "{\"detail\":\"no\"}"}, CM_ERR_UPSTREAM_DOWN, 0, ""},
    {{.status = 402}, CM_ERR_QUOTA_EXHAUSTED, -1, ""},
    {{.status = 502, .body = "bad gateway"}, CM_ERR_UPSTREAM_DOWN, 0, ""},
    {{.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN, 0, ""},
    {{.body = ""}, CM_ERR_UPSTREAM_DOWN, 0, ""},
    {{.body = "{}" SEP "{\"sections\":[]}"}, CM_ERR_UPSTREAM_DOWN, 0, ""},
    {{.body = SAYS("half ") SEP "{\"sections\":[{\"te"}, CM_ERR_UPSTREAM_DOWN, 0, "half "},
    {{.body = SAYS("half ") SEP "{\"sections\":[{\"te", .end = FAKE_CUT}, CM_ERR_CUT, 0, "half "},
    {{.body = SAYS("half "), .end = FAKE_HANG}, CM_ERR_TIMEOUT, 0, "half "},
    {{.body = "{\"error\":\"Too many concurrent requests\"}"}, CM_ERR_RATE_LIMITED, 0, ""},
    {{.body = SAYS("half ") SEP "{\"error\":\"Usage limit exceeded\"}"},
     CM_ERR_QUOTA_EXHAUSTED,
     -1,
     "half "},
    {{.body = "{\"detail\":\"who knows\"}"}, CM_ERR_UPSTREAM_DOWN, 0, ""},
    /* thought, and nothing said */
    {{.body = "{\"sections\":[{\"text\":{\"text\":\"hm\",\"is_thinking\":true}}]}"},
     CM_ERR_UPSTREAM_DOWN,
     0,
     ""},
};

START_TEST(failures_and_their_classes)
{
    for (size_t piece = 0; piece < 3; piece++) {
        fake_run(&(struct fake_setup){.type = "alexsidebar",
                                      .body = BODY("gpt-4o", ASK),
                                      .token = TOKEN,
                                      .options = keyed,
                                      .replies = &failures[_i].reply,
                                      .n_replies = 1,
                                      .piece = piece,
                                      .idle_ms = 50},
                 &r);
        ck_assert(!r.done);
        ck_assert_msg(r.err.cls == failures[_i].cls, "%s, %s", cm_err_info(r.err.cls)->name,
                      r.err.msg);
        ck_assert_str_eq(fake_text(&r), failures[_i].text);
        ck_assert_ptr_null(strstr(r.err.msg, "acc.ess"));
        if (failures[_i].retry_after_s < 0)
            ck_assert_int_le(abs(r.err.retry_after_s - seconds_of_month_left()), 2);
        else
            ck_assert_int_eq(r.err.retry_after_s, failures[_i].retry_after_s);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(the_platforms_words_reach_the_client)
{
    ask(BODY("o1", ASK),
        (struct fake_reply){.status = 422,
                            .body =
                                "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"field required\"}]}"});
    ck_assert_ptr_nonnull(strstr(r.err.msg, "field required"));
    fake_result_clear(&r);
}
END_TEST

START_TEST(without_a_token_nothing_is_asked)
{
    for (int i = 0; i < 3; i++) {
        fake_run(&(struct fake_setup){.type = "alexsidebar",
                                      .body = BODY("o1", ASK),
                                      .token = i == 0   ? NULL
                                               : i == 1 ? "{}"
                                                        : "no JSON",
                                      .options = keyed},
                 &r);
        ck_assert_int_eq(r.err.cls, CM_ERR_EXPIRED);
        ck_assert_uint_eq(r.n_requests, 0);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(a_client_that_leaves)
{
    const struct fake_reply reply = {.body = SAYS("a") SEP SAYS("ab"), .end = FAKE_HANG};

    fake_run(&(struct fake_setup){.type = "alexsidebar",
                                  .body = BODY("o1", ASK),
                                  .token = TOKEN,
                                  .options = keyed,
                                  .replies = &reply,
                                  .n_replies = 1,
                                  .piece = 5,
                                  .leave_after = 1},
             &r);
    ck_assert(r.released);
    ck_assert_uint_eq(r.n_requests, 1);
    ck_assert_uint_lt(r.took_ms, 1000);
    fake_result_clear(&r);
}
END_TEST

Suite *suite_alexsidebar(void)
{
    Suite *s = suite_create("alexsidebar");
    TCase *t = tcase_create("alexsidebar");

    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_streams_of_the_notes_in_pieces_of_every_size);
    tcase_add_test(t, the_streams_of_the_notes_at_every_split);
    tcase_add_test(t, the_refusals_of_the_notes);
    tcase_add_loop_test(t, what_a_snapshot_adds, 0, CM_COUNT(answers));
    tcase_add_test(t, a_long_answer_is_read_in_reasonable_time);
    tcase_add_test(t, an_object_without_an_end_is_given_up);
    tcase_add_test(t, the_call_of_the_notes);
    tcase_add_loop_test(t, what_becomes_of_a_conversation, 0, CM_COUNT(bodies));
    tcase_add_test(t, every_model_has_its_name);
    tcase_add_test(t, options_move_the_calls);
    tcase_add_test(t, each_account_has_a_device_of_its_own);
    tcase_add_test(t, what_it_cannot_do_is_said_at_once);
    tcase_add_loop_test(t, failures_and_their_classes, 0, CM_COUNT(failures));
    tcase_add_test(t, the_platforms_words_reach_the_client);
    tcase_add_test(t, without_a_token_nothing_is_asked);
    tcase_add_test(t, a_client_that_leaves);
    suite_add_tcase(s, t);
    return s;
}
