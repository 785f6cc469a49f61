/* chat/request and chat/event: reading messages as text, counting tokens, collecting an answer. */
#include "chatmux/chat/event.h"

#include "chatmux/base/mem.h"
#include "unit.h"

#define TEXT(s) ((struct cm_part){.kind = CM_PART_TEXT, .text = CM_S(s)})

static struct cm_msg message(enum cm_role role, struct cm_part *parts, size_t n)
{
    return (struct cm_msg){.role = role, .parts = parts, .n_parts = n};
}

START_TEST(text_of_a_message)
{
    struct cm_arena a = {0};
    struct cm_part one[] = {TEXT("alone")};
    struct cm_part many[] = {
        TEXT("a"), {.kind = CM_PART_IMAGE, .text = CM_S("no")}, TEXT("b"), TEXT("c")};
    struct cm_msg m1 = message(CM_ROLE_USER, one, 1), m3 = message(CM_ROLE_USER, many, 4),
                  m0 = message(CM_ROLE_USER, NULL, 0);

    ck_assert_ptr_eq(cm_msg_text(&a, &m1).p, one[0].text.p);
    ck_str(cm_msg_text(&a, &m3), "a\nb\nc");
    ck_assert_uint_eq(cm_msg_text(&a, &m0).n, 0);
    cm_arena_clear(&a);
}
END_TEST

START_TEST(last_message_of_a_role)
{
    struct cm_part p[] = {TEXT("x")};
    struct cm_msg msgs[] = {message(CM_ROLE_USER, p, 1), message(CM_ROLE_ASSISTANT, p, 1),
                            message(CM_ROLE_USER, p, 1), message(CM_ROLE_TOOL, p, 1)};
    const struct cm_chat chat = {.msgs = msgs, .n_msgs = 4};

    ck_assert_ptr_eq(cm_chat_last(&chat, CM_ROLE_USER), &msgs[2]);
    ck_assert_ptr_null(cm_chat_last(&chat, CM_ROLE_SYSTEM));
}
END_TEST

START_TEST(flattened)
{
    struct cm_arena a = {0};
    struct cm_part system[] = {TEXT("Be brief.")}, hi[] = {TEXT("Hi")},
                   how[] = {TEXT("How?"), TEXT("Now?")};
    struct cm_part calls[] = {
        {.kind = CM_PART_REASONING, .text = CM_S("hidden")},
        TEXT("Let me see."),
        {.kind = CM_PART_TOOL_CALL, .name = CM_S("look"), .text = CM_S("{\"a\":1}")}};
    struct cm_part result[] = {{.kind = CM_PART_TOOL_RESULT, .text = CM_S("found")}};
    struct cm_msg msgs[] = {message(CM_ROLE_SYSTEM, system, 1), message(CM_ROLE_USER, hi, 1),
                            message(CM_ROLE_ASSISTANT, calls, 3), message(CM_ROLE_TOOL, result, 1),
                            message(CM_ROLE_USER, how, 2)};
    struct cm_chat chat = {.msgs = msgs, .n_msgs = 5};

    ck_str(cm_chat_flatten(&a, &chat),
           "system: Be brief.\n\nuser: Hi\n\nassistant: Let me see.\n"
           "[calls look with {\"a\":1}]\n\ntool: found\n\nuser: How?\nNow?");
    chat.msgs = &msgs[1];
    chat.n_msgs = 1;
    ck_str(cm_chat_flatten(&a, &chat), "Hi");
    chat.msgs = &msgs[0];
    ck_str(cm_chat_flatten(&a, &chat), "system: Be brief.");
    cm_arena_clear(&a);
}
END_TEST

START_TEST(tokens_are_guessed)
{
    struct cm_part p[] = {TEXT("12345678"), {.kind = CM_PART_IMAGE}};
    struct cm_msg msgs[] = {message(CM_ROLE_USER, p, 2)};
    const struct cm_chat chat = {.msgs = msgs, .n_msgs = 1};

    ck_assert_int_eq(cm_estimate_tokens(CM_STR_NONE), 0);
    ck_assert_int_eq(cm_estimate_tokens(CM_S("a")), 1);
    ck_assert_int_eq(cm_estimate_tokens(CM_S("12345678")), 2);
    ck_assert_int_eq(cm_estimate_tokens(CM_S("\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c")),
                     3);
    ck_assert_int_eq(cm_chat_estimate_tokens(&chat), 4 + 2 + 765);
}
END_TEST

START_TEST(what_a_request_says)
{
    struct cm_arena a = {0};
    struct cm_part p[] = {TEXT("x")};
    struct cm_msg msgs[] = {message(CM_ROLE_USER, p, 1)};
    struct cm_chat chat = {.arena = &a, .path = CM_S("kept")};

    cm_chat_begin(&chat, CM_DIALECT_GEMINI, CM_TASK_CHAT, CM_S("{}"));
    ck_str(chat.path, "kept");
    ck_assert_uint_eq(cm_chat_fields(&chat), 0);
    ck_str(cm_chat_effort(&chat), "");
    ck_assert_int_eq(cm_chat_thinking_budget(&chat), -1);

    chat.top_k = 0;
    chat.temperature = 0;
    chat.msgs = msgs;
    chat.n_msgs = 1;
    p[0].cache = CM_S("1h");
    ck_assert_uint_eq(cm_chat_fields(&chat),
                      CM_FIELD_TOP_K | CM_FIELD_TEMPERATURE | CM_FIELD_CACHE);
    p[0].cache = CM_STR_NONE;
    p[0].detail = CM_S("auto"); /* as if it had not been said */
    chat.top_k = -1;
    ck_assert_uint_eq(cm_chat_fields(&chat), CM_FIELD_TEMPERATURE);
    p[0].detail = CM_S("low");
    p[0].context = CM_S("c");
    chat.msgs[0].name = CM_S("Jo");
    chat.tools = &(struct cm_tool){.name = CM_S("f"), .strict = 1};
    chat.n_tools = 1;
    ck_assert_uint_eq(cm_chat_fields(&chat), CM_FIELD_TEMPERATURE | CM_FIELD_DETAIL |
                                                 CM_FIELD_CONTEXT | CM_FIELD_NAME |
                                                 CM_FIELD_STRICT);
    chat.msgs[0].role = CM_ROLE_TOOL; /* whose name is the function's */
    ck_assert_uint_eq(cm_chat_fields(&chat) & CM_FIELD_NAME, 0);
    ck_str(cm_chat_field_name(CM_FIELD_NUMBER_CACHE_KEY), "prompt_cache_key");

    cm_chat_drop(&chat, CM_S("a"));
    cm_chat_drop(&chat, CM_S("b"));
    cm_chat_drop(&chat, CM_S("a"));
    ck_assert_uint_eq(chat.n_dropped, 2);
    ck_str(chat.dropped[1], "b");
    for (size_t i = 0; i < 100; i++)
        cm_chat_drop(&chat, cm_arena_printf(&a, "f%zu", i));
    ck_assert_uint_eq(chat.n_dropped, CM_DROPPED_MAX);
    cm_arena_clear(&a);
}
END_TEST

static void expect_spelling(const struct cm_chat *chat, const char *field, const char *said)
{
    const struct cm_str got = cm_chat_spelling(chat, cm_str_of(field));

    ck_assert_msg(cm_str_eq(got, cm_str_of(said)), "%s in dialect %d: " CM_PRI, field,
                  chat->dialect, CM_ARG(got));
}

START_TEST(what_clients_call_a_member)
{
    static const struct {
        const char *field, *responses, *anthropic, *gemini;
    } rows[] = {
        {"messages", "input", "messages", "contents"},
        {"messages[2].content", "input", "messages[2].content", "contents"},
        {"max_tokens", "max_output_tokens", "max_tokens", "generationConfig.maxOutputTokens"},
        {"stop", "stop", "stop_sequences", "generationConfig.stopSequences"},
        {"top_k", "top_k", "top_k", "generationConfig.topK"},
        {"n", "n", "n", "generationConfig.candidateCount"},
        {"user", "user", "metadata.user_id", "user"},
        {"verbosity", "text.verbosity", "verbosity", "verbosity"},
        {"reasoning_effort", "reasoning.effort", "output_config.effort",
         "generationConfig.thinkingConfig"},
        {"response_format.json_schema.schema", "text.format", "output_config.format",
         "generationConfig.responseMimeType"},
        {"parallel_tool_calls", "parallel_tool_calls", "tool_choice.disable_parallel_tool_use",
         "parallel_tool_calls"},
        {"tool_choice", "tool_choice", "tool_choice", "toolConfig.functionCallingConfig"},
        {"tools[1].name", "tools[1].name", "tools[1].name", "tools[1].name"},
        {"generationConfig.topK", "generationConfig.topK", "generationConfig.topK",
         "generationConfig.topK"},
    };
    struct cm_chat chat = {0};

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        cm_chat_begin(&chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_CHAT, CM_STR_NONE);
        expect_spelling(&chat, rows[i].field, rows[i].field);
        chat.dialect = CM_DIALECT_OPENAI_RESPONSES;
        expect_spelling(&chat, rows[i].field, rows[i].responses);
        chat.dialect = CM_DIALECT_ANTHROPIC;
        expect_spelling(&chat, rows[i].field, rows[i].anthropic);
        chat.dialect = CM_DIALECT_GEMINI;
        expect_spelling(&chat, rows[i].field, rows[i].gemini);
    }
    chat.dialect = CM_DIALECT_ANTHROPIC;
    chat.thinking = CM_THINKING_ON;
    ck_str(cm_chat_spelling(&chat, CM_S("reasoning_effort")), "thinking");
    chat.dialect = CM_DIALECT_OPENAI_RESPONSES;
    ck_str(cm_chat_spelling(&chat, CM_S("logprobs")), "include");
    chat.top_logprobs = 2;
    ck_str(cm_chat_spelling(&chat, CM_S("logprobs")), "top_logprobs");
    cm_chat_begin(&chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_IMAGE, CM_STR_NONE);
    ck_str(cm_chat_spelling(&chat, CM_S("messages")), "prompt");
}
END_TEST

START_TEST(errors_name_what_clients_wrote)
{
    struct cm_chat chat = {0};
    struct cm_err err;

    cm_chat_begin(&chat, CM_DIALECT_GEMINI, CM_TASK_CHAT, CM_STR_NONE);
    cm_fail_param(&err, CM_ERR_BAD_REQUEST, "n", "no 'n' and \"n\", not 'no', n nor 'n\": 'n'");
    cm_chat_respell(&chat, &err);
    ck_assert_str_eq(err.param, "generationConfig.candidateCount");
    ck_assert_str_eq(err.msg, "no 'generationConfig.candidateCount' and "
                              "\"generationConfig.candidateCount\", not 'no', n nor 'n\": "
                              "'generationConfig.candidateCount'");
    cm_fail_param(&err, CM_ERR_BAD_REQUEST, "model", "no 'model'");
    cm_chat_respell(&chat, &err);
    ck_assert_str_eq(err.param, "model");
    ck_assert_str_eq(err.msg, "no 'model'");
}
END_TEST

START_TEST(how_much_thinking)
{
    static const struct {
        enum cm_thinking thinking;
        int64_t budget;
        const char *effort;
        const char *as_effort;
        int64_t as_budget;
    } cases[] = {
        {CM_THINKING_ON, 1024, "", "low", 1024},
        {CM_THINKING_ON, 2048, "", "low", 2048},
        {CM_THINKING_ON, 2049, "", "medium", 2049},
        {CM_THINKING_ON, 8192, "", "medium", 8192},
        {CM_THINKING_ON, 100000, "", "high", 100000},
        {CM_THINKING_ON, 0, "", "none", 0},
        {CM_THINKING_ON, 30000, "low", "low", 30000},
        {CM_THINKING_OFF, 5000, "high", "none", 0},
        {CM_THINKING_ADAPTIVE, -1, "", "", -1},
        {CM_THINKING_ADAPTIVE, -1, "xhigh", "xhigh", 16384},
        {CM_THINKING_UNSET, -1, "minimal", "minimal", 1024},
        {CM_THINKING_UNSET, -1, "none", "none", 0},
        {CM_THINKING_UNSET, -1, "odd", "odd", -1},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct cm_chat chat = {.thinking = cases[i].thinking,
                                     .thinking_budget = cases[i].budget,
                                     .reasoning_effort = cm_str_of(cases[i].effort)};

        ck_assert(cm_str_eq(cm_chat_effort(&chat), cm_str_of(cases[i].as_effort)));
        ck_assert_int_eq(cm_chat_thinking_budget(&chat), cases[i].as_budget);
    }
}
END_TEST

START_TEST(results_find_their_calls)
{
    struct cm_part one[] = {{.kind = CM_PART_TOOL_CALL, .id = CM_S("a"), .name = CM_S("old")}};
    struct cm_part two[] = {TEXT("x"),
                            {.kind = CM_PART_TOOL_CALL, .id = CM_S("a"), .name = CM_S("new")}};
    struct cm_part three[] = {{.kind = CM_PART_TOOL_RESULT, .id = CM_S("b"), .name = CM_S("no")}};
    struct cm_msg msgs[] = {message(CM_ROLE_ASSISTANT, one, 1), message(CM_ROLE_ASSISTANT, two, 2),
                            message(CM_ROLE_TOOL, three, 1)};
    const struct cm_chat chat = {.msgs = msgs, .n_msgs = 3};

    ck_assert_ptr_eq(cm_chat_call_of(&chat, CM_S("a")), &two[1]);
    ck_assert_ptr_null(cm_chat_call_of(&chat, CM_S("b")));
}
END_TEST

START_TEST(which_events_mean_something)
{
    static const struct {
        struct cm_event ev;
        bool semantic;
    } cases[] = {
        {{.kind = CM_EVENT_TEXT, .text = CM_S_INIT("x")}, true},
        {{.kind = CM_EVENT_TEXT}, false},
        {{.kind = CM_EVENT_REASONING, .text = CM_S_INIT("x")}, true},
        {{.kind = CM_EVENT_REASONING}, false},
        {{.kind = CM_EVENT_REFUSAL, .text = CM_S_INIT("x")}, true},
        {{.kind = CM_EVENT_TOOL_CALL}, true},
        {{.kind = CM_EVENT_IMAGE}, true},
        {{.kind = CM_EVENT_CITATION}, true},
        {{.kind = CM_EVENT_SIGNATURE, .text = CM_S_INIT("x")}, false},
        {{.kind = CM_EVENT_REDACTED, .text = CM_S_INIT("x")}, false},
        {{.kind = CM_EVENT_USAGE}, false},
        {{.kind = CM_EVENT_FINISH}, false},
        {{.kind = CM_EVENT_HEAD}, false},
        {{.kind = CM_EVENT_RELAY, .text = CM_S_INIT("x")}, false},
        {{.kind = CM_EVENT_RELAY, .semantic = true}, true},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++)
        ck_assert_msg(cm_event_semantic(&cases[i].ev) == cases[i].semantic, "case %zu, %s", i,
                      cm_event_name(cases[i].ev.kind));
}
END_TEST

static void add(struct cm_answer *a, struct cm_event ev)
{
    struct cm_err err;

    ck_assert_int_eq(cm_answer_add(a, &ev, &err), 0);
}

START_TEST(an_answer_is_collected)
{
    const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM, .in_uncached = 3, .out_text = 4};
    struct cm_answer a = {0};

    add(&a, (struct cm_event){.kind = CM_EVENT_REASONING, .text = CM_S("hm")});
    add(&a, (struct cm_event){.kind = CM_EVENT_TEXT, .text = CM_S("Hel")});
    add(&a, (struct cm_event){.kind = CM_EVENT_TEXT, .text = CM_S("lo ")});
    add(&a, (struct cm_event){
                .kind = CM_EVENT_IMAGE, .text = CM_S("a [b]"), .url = CM_S("http://h/a (1)")});
    add(&a, (struct cm_event){.kind = CM_EVENT_CITATION, .url = CM_S("u"), .name = CM_S("t")});
    add(&a, (struct cm_event){
                .kind = CM_EVENT_TOOL_CALL, .index = 0, .id = CM_S("i0"), .name = CM_S("f0")});
    add(&a, (struct cm_event){
                .kind = CM_EVENT_TOOL_CALL, .index = 1, .id = CM_S("i1"), .name = CM_S("f1")});
    add(&a, (struct cm_event){.kind = CM_EVENT_TOOL_ARGS, .index = 1, .text = CM_S("{1")});
    add(&a, (struct cm_event){.kind = CM_EVENT_TOOL_ARGS, .index = 0, .text = CM_S("{0}")});
    add(&a, (struct cm_event){.kind = CM_EVENT_TOOL_ARGS, .index = 1, .text = CM_S("}")});
    add(&a, (struct cm_event){.kind = CM_EVENT_TEXT, .choice = 2, .text = CM_S("third")});
    add(&a, (struct cm_event){.kind = CM_EVENT_USAGE, .usage = &usage});
    add(&a, (struct cm_event){.kind = CM_EVENT_FINISH, .finish = CM_FINISH_TOOL_CALLS});

    ck_assert_uint_eq(a.n_choices, 3);
    ck_str(cm_buf_str(&a.choices[0].text), "Hello ![a \\[b\\]](http://h/a%20%281%29)");
    ck_str(cm_buf_str(&a.choices[0].reasoning), "hm");
    ck_assert_uint_eq(a.choices[0].n_calls, 2);
    ck_str(a.choices[0].calls[1].id, "i1");
    ck_str(a.choices[0].calls[1].name, "f1");
    ck_str(cm_buf_str(&a.choices[0].calls[0].args), "{0}");
    ck_str(cm_buf_str(&a.choices[0].calls[1].args), "{1}");
    ck_str(a.choices[0].citations[0].title, "t");
    ck_assert_int_eq(a.choices[0].finish, CM_FINISH_TOOL_CALLS);
    ck_str(cm_buf_str(&a.choices[2].text), "third");
    ck_assert_int_eq(a.choices[1].finish, CM_FINISH_NONE);
    ck_assert_int_eq(cm_usage_out(&a.usage), 4);
    cm_answer_clear(&a);
    ck_assert_uint_eq(a.n_choices, 0);
}
END_TEST

START_TEST(images_are_kept_apart_where_they_are_the_answer)
{
    struct cm_answer a = {.keep_images = true};
    struct cm_buf markdown = {0};
    const struct cm_event bytes = {.kind = CM_EVENT_IMAGE,
                                   .text = CM_S("dot"),
                                   .name = CM_S("a dot"),
                                   .media_type = CM_S("image/webp"),
                                   .data = CM_S("UklG")};

    add(&a, (struct cm_event){.kind = CM_EVENT_IMAGE, .url = CM_S("https://h/p.png")});
    add(&a, (struct cm_event){.kind = CM_EVENT_IMAGE,
                              .choice = 1,
                              .url = CM_S("data:image/png;name=x;base64,iVBO")});
    add(&a, (struct cm_event){.kind = CM_EVENT_IMAGE, .url = CM_S("data:image/svg+xml,<svg/>")});
    add(&a, bytes);
    ck_assert_uint_eq(a.n_images, 4);
    ck_str(a.images[0].url, "https://h/p.png");
    ck_assert_uint_eq(a.images[0].data.n, 0);
    ck_str(a.images[1].data, "iVBO");
    ck_str(a.images[1].media_type, "image/png");
    ck_assert_uint_eq(a.images[1].url.n, 0);
    ck_str(a.images[2].url, "data:image/svg+xml,<svg/>");
    ck_str(a.images[3].prompt, "a dot");
    ck_assert_uint_eq(a.choices[0].text.n, 0);
    cm_answer_clear(&a);
    ck_assert(a.n_images == 0 && a.keep_images);

    cm_event_put_markdown(&bytes, &markdown);
    ck_str(cm_buf_str(&markdown), "![dot](data:image/webp;base64,UklG)");
    cm_buf_clear(&markdown);
    cm_event_put_markdown(&(struct cm_event){.text = CM_S("clip"),
                                             .url = CM_S("https://h/v"),
                                             .media_type = CM_S("video/mp4")},
                          &markdown);
    ck_str(cm_buf_str(&markdown), "[clip](https://h/v)");
    cm_buf_clear(&markdown);
}
END_TEST

START_TEST(what_serves_a_task)
{
    ck_assert(cm_tasks_serve(CM_TASK_BIT(CHAT), CM_TASK_CHAT));
    ck_assert(cm_tasks_serve(CM_TASK_BIT(CHAT), CM_TASK_COMPLETION));
    ck_assert(!cm_tasks_serve(CM_TASK_BIT(COMPLETION), CM_TASK_CHAT));
    ck_assert(!cm_tasks_serve(CM_TASK_BIT(CHAT) | CM_TASK_BIT(IMAGE), CM_TASK_IMAGE_EDIT));
    ck_assert(cm_tasks_serve(CM_TASK_BIT(VIDEO), CM_TASK_VIDEO));
    ck_assert(cm_task_makes_media(CM_TASK_IMAGE_EDIT) && !cm_task_makes_media(CM_TASK_SPEECH));
    ck_assert_str_eq(cm_chat_task_name(CM_TASK_IMAGE_EDIT), "image edits");
}
END_TEST

START_TEST(an_answer_with_figures)
{
    struct cm_answer a = {0};

    add(&a, (struct cm_event){.kind = CM_EVENT_TEXT,
                              .text = CM_S("ab"),
                              .logprobs = CM_S("[{\"token\":\"a\"},{\"token\":\"b\"}]")});
    add(&a, (struct cm_event){.kind = CM_EVENT_TEXT, .logprobs = CM_S("[]")});
    add(&a, (struct cm_event){
                .kind = CM_EVENT_TEXT, .text = CM_S("c"), .logprobs = CM_S("[{\"token\":\"c\"}]")});
    add(&a, (struct cm_event){.kind = CM_EVENT_SIGNATURE, .text = CM_S("sealed")});
    add(&a, (struct cm_event){.kind = CM_EVENT_REDACTED, .text = CM_S("sealed")});
    add(&a, (struct cm_event){.kind = CM_EVENT_CITATION,
                              .url = CM_S("u"),
                              .text = CM_S("quote"),
                              .from = 1,
                              .to = 3});
    add(&a, (struct cm_event){
                .kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP_SEQUENCE, .text = CM_S("END")});

    ck_str(cm_buf_str(&a.choices[0].text), "abc");
    ck_str(cm_buf_str(&a.choices[0].logprobs),
           "{\"token\":\"a\"},{\"token\":\"b\"},{\"token\":\"c\"}");
    ck_assert_uint_eq(a.choices[0].reasoning.n, 0);
    ck_str(a.choices[0].citations[0].cited, "quote");
    ck_assert_int_eq(a.choices[0].citations[0].to, 3);
    ck_str(a.choices[0].finish_text, "END");
    cm_answer_clear(&a);
}
END_TEST

START_TEST(an_answer_has_bounds)
{
    static char big[1024 * 1024];
    struct cm_answer a = {0};
    struct cm_event ev = {.kind = CM_EVENT_TEXT, .text = {big, sizeof(big)}};
    struct cm_event far = {.kind = CM_EVENT_TOOL_CALL, .index = 1 << 20};
    struct cm_err err = {0};
    int n = 0;

    ck_assert_int_eq(cm_answer_add(&a, &far, &err), -1);
    far = (struct cm_event){.kind = CM_EVENT_TEXT, .choice = 1 << 20};
    ck_assert_int_eq(cm_answer_add(&a, &far, &err), -1);
    memset(big, 'x', sizeof(big));
    while (cm_answer_add(&a, &ev, &err) == 0)
        n++;
    ck_assert_int_eq(n, CM_ANSWER_MAX / (int)sizeof(big) - 1);
    ck_assert_int_eq(err.cls, CM_ERR_UPSTREAM_DOWN);
    cm_answer_clear(&a);
}
END_TEST

Suite *suite_chat(void)
{
    Suite *s = suite_create("chat");
    TCase *t = tcase_create("chat");

    tcase_add_test(t, text_of_a_message);
    tcase_add_test(t, last_message_of_a_role);
    tcase_add_test(t, flattened);
    tcase_add_test(t, tokens_are_guessed);
    tcase_add_test(t, what_a_request_says);
    tcase_add_test(t, what_clients_call_a_member);
    tcase_add_test(t, errors_name_what_clients_wrote);
    tcase_add_test(t, how_much_thinking);
    tcase_add_test(t, results_find_their_calls);
    tcase_add_test(t, which_events_mean_something);
    tcase_add_test(t, an_answer_is_collected);
    tcase_add_test(t, images_are_kept_apart_where_they_are_the_answer);
    tcase_add_test(t, what_serves_a_task);
    tcase_add_test(t, an_answer_with_figures);
    tcase_add_test(t, an_answer_has_bounds);
    suite_add_tcase(s, t);
    return s;
}
