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
    tcase_add_test(t, which_events_mean_something);
    tcase_add_test(t, an_answer_is_collected);
    tcase_add_test(t, images_are_kept_apart_where_they_are_the_answer);
    tcase_add_test(t, what_serves_a_task);
    tcase_add_test(t, an_answer_has_bounds);
    suite_add_tcase(s, t);
    return s;
}
