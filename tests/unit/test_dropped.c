/* Members inside of others that no surface reads: found when they are asked for, told by their place, in bounded number. */
#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"
#include "chatmux/surface/surface.h"
#include "unit.h"

static struct cm_arena arena;
static struct cm_chat chat;

static void teardown(void)
{
    cm_arena_clear(&arena);
}

static void parse(const struct cm_surface *surface, struct cm_str body)
{
    struct cm_err err = {0};

    chat = (struct cm_chat){.arena = &arena, .path = CM_S("models/m:generateContent")};
    ck_assert_msg(surface->parse(&chat, body, &err) == 0, "%s (%s)", err.msg, err.param);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
}

/* The names in order, with blanks between. */
static const char *told(void)
{
    struct cm_buf list = {0};

    for (size_t i = 0; i < chat.n_dropped; i++) {
        if (i > 0)
            cm_buf_put(&list, ' ');
        cm_buf_append(&list, chat.dropped[i]);
    }
    return cm_arena_str(&arena, cm_buf_settle(&list, &arena)).p;
}

static void tells(const struct cm_surface *surface, const char *body, const char *expected)
{
    parse(surface, cm_str_of(body));
    ck_assert_uint_eq(chat.n_dropped, 0); /* a relayed body is not looked through */
    cm_chat_find_unread(&chat);
    ck_assert_str_eq(told(), expected);
    cm_chat_find_unread(&chat);
    ck_assert_str_eq(told(), expected);
}

#define CHAT(rest)                                                                                 \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]," rest "}"

START_TEST(of_chat_completions)
{
    const struct cm_surface *s = &cm_surface_openai_chat;

    tells(s, CHAT("\"stop\":\"x\""), "");
    tells(s, CHAT("\"stream\":true,\"stream_options\":{\"x\":1}"), "stream_options.x");
    tells(s, CHAT("\"response_format\":{\"type\":\"text\",\"x\":1}"), "response_format.x");
    tells(s,
          CHAT("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
               "\"schema\":{\"x\":1},\"y\":2}}"),
          "response_format.json_schema.y");
    tells(s,
          CHAT("\"tools\":[{\"type\":\"function\",\"x\":1,\"function\":{\"name\":\"f\",\"y\":1,"
               "\"parameters\":{\"z\":1}}}],\"tool_choice\":{\"type\":\"function\",\"z\":1,"
               "\"function\":{\"name\":\"f\"}}"),
          "tools[0].x tools[0].function.y tool_choice.z");
    tells(
        s,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"x\":1,\"y\":null,\"content\":[{"
        "\"type\":\"image_url\",\"text\":\"t\",\"image_url\":{\"url\":\"https://a/b\",\"z\":1}}]}]}",
        "messages[0].x messages[0].content[0].text messages[0].content[0].image_url.z");
    tells(&cm_surface_openai_completions,
          "{\"model\":\"m\",\"prompt\":\"p\",\"stream\":true,\"stream_options\":{\"x\":1}}",
          "stream_options.x");
}
END_TEST

START_TEST(of_messages)
{
    const struct cm_surface *s = &cm_surface_anthropic;

    tells(s, CHAT("\"max_tokens\":1,\"thinking\":{\"type\":\"disabled\",\"x\":1}"), "thinking.x");
    tells(s,
          CHAT("\"max_tokens\":1,\"tools\":[{\"name\":\"f\",\"input_schema\":{\"x\":1},"
               "\"eager_input_streaming\":true,\"defer_loading\":true,"
               "\"cache_control\":{\"type\":\"ephemeral\"}}]"),
          "tools[0].defer_loading");
    tells(s,
          CHAT("\"max_tokens\":1,\"output_config\":{\"x\":1,\"format\":{\"type\":\"json_schema\","
               "\"schema\":{},\"y\":1}},\"metadata\":{\"z\":1}"),
          "output_config.x output_config.format.y metadata.z");
    tells(
        s,
        "{\"model\":\"m\",\"max_tokens\":1,\"system\":[{\"type\":\"text\",\"text\":\"s\",\"x\":1}],"
        "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"title\":\"t\","
        "\"source\":{\"type\":\"content\",\"content\":[{\"type\":\"text\",\"text\":\"d\",\"y\":1}]}}]}]}",
        "system[0].x messages[0].content[0].source.content[0].y");
}
END_TEST

#define HI "\"contents\":[{\"parts\":[{\"text\":\"Hi\"}]}]"

START_TEST(of_gemini_in_both_spellings)
{
    const struct cm_surface *s = &cm_surface_gemini;

    tells(s, "{" HI ",\"generationConfig\":{\"topK\":1,\"top_p\":1,\"x\":1,\"top_P\":1}}",
          "generationConfig.x generationConfig.top_P");
    tells(s, "{" HI ",\"generation_config\":{\"thinking_config\":{\"thinking_budget\":0,\"x\":1}}}",
          "generation_config.thinking_config.x");
    tells(s, "{" HI ",\"tools\":[{\"functionDeclarations\":[{\"name\":\"f\",\"x\":1}]}]}",
          "tools[0].functionDeclarations[0].x");
    tells(s,
          "{\"contents\":[{\"x\":1,\"parts\":[{\"text\":\"t\",\"y\":1},{\"inline_data\":{"
          "\"mime_type\":\"image/png\",\"data\":\"AA==\",\"z\":1}}]}]}",
          "contents[0].x contents[0].parts[0].y contents[0].parts[1].inline_data.z");
    tells(&cm_surface_gemini_count,
          "{\"generateContentRequest\":{\"model\":\"models/m\",\"x\":1," HI "}}",
          "generateContentRequest.x");
    tells(
        &cm_surface_gemini_batch_embed,
        "{\"requests\":[{\"model\":\"models/m\",\"content\":{\"parts\":[{\"text\":\"a\",\"x\":1}]}}]}",
        "requests[0].content.parts[0].x");
}
END_TEST

START_TEST(of_responses)
{
    const struct cm_surface *s = &cm_surface_responses;

    tells(s, "{\"model\":\"m\",\"input\":\"Hi\",\"text\":{\"x\":1},\"reasoning\":{\"y\":1}}",
          "text.x reasoning.y");
    tells(s,
          "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"x\":1,\"content\":[{\"type\":"
          "\"input_text\",\"text\":\"Hi\",\"y\":1}]}],\"tools\":[{\"type\":\"function\","
          "\"name\":\"f\",\"z\":1}]}",
          "input[0].x input[0].content[0].y tools[0].z");
}
END_TEST

/* What official SDKs make of our answers and send back. */
START_TEST(what_clients_send_back_is_known)
{
    tells(
        &cm_surface_openai_chat,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":"
        "\"assistant\",\"content\":\"x\",\"refusal\":null,\"annotations\":[],\"parsed\":{},"
        "\"reasoning_content\":\"r\",\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\",\"parsed_arguments\":{}}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"ok\"}]}",
        "");
    tells(&cm_surface_anthropic,
          "{\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
          "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"t\","
          "\"signature\":\"\"},{\"type\":\"text\",\"text\":\"x\",\"citations\":null,"
          "\"parsed_output\":{}},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{"
          "\"x\":1},\"caller\":{\"type\":\"direct\"}}]},{\"role\":\"user\",\"content\":[{\"type\":"
          "\"tool_result\",\"tool_use_id\":\"t\",\"content\":\"ok\"}]}]}",
          "");
    tells(
        &cm_surface_responses,
        "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"type\":\"reasoning\","
        "\"id\":\"rs\",\"status\":\"completed\",\"summary\":[{\"type\":\"summary_text\",\"text\":"
        "\"t\"}],\"encrypted_content\":\"e\"},{\"type\":\"message\",\"id\":\"msg\",\"role\":"
        "\"assistant\",\"status\":\"completed\",\"content\":[{\"type\":\"output_text\",\"text\":"
        "\"x\",\"annotations\":[],\"logprobs\":[],\"parsed\":null}]},{\"role\":\"user\",\"content\":"
        "\"On\"}]}",
        "");
}
END_TEST

START_TEST(what_is_told_is_bounded)
{
    struct cm_buf body = {0};

    cm_buf_append(&body,
                  CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\","
                       "\"odd, name\":1,\"a\\r\\nb\":1,\""));
    for (int i = 0; i < 70; i++)
        cm_buf_put(&body, 'x');
    cm_buf_append(&body, CM_S("\":1}"));
    for (int i = 0; i < 1000; i++)
        cm_buf_printf(&body, ",{\"role\":\"user\",\"content\":\"Hi\",\"same\":1,\"x%d\":1}", i);
    cm_buf_append(&body, CM_S("]}"));
    parse(&cm_surface_openai_chat, cm_buf_str(&body));
    cm_chat_find_unread(&chat);
    ck_assert_uint_eq(chat.n_dropped, CM_DROPPED_MAX);
    ck_str(chat.dropped[0], "messages[0].unknown"); /* the three of them */
    ck_str(chat.dropped[1], "messages[1].same");
    ck_str(chat.dropped[2], "messages[1].x0");
    ck_str(chat.dropped[3], "messages[2].x1");
    cm_buf_clear(&body);
}
END_TEST

START_TEST(what_does_not_fit_is_told_by_its_place)
{
    tells(
        &cm_surface_anthropic,
        "{\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
        "\"text\",\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\","
        "\"a_name_of_more_than_twenty_letters\":1}}]}]}",
        "messages[0].content[0].cache_control");
}
END_TEST

Suite *suite_dropped(void)
{
    Suite *suite = suite_create("dropped");
    TCase *tc = tcase_create("all");

    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, of_chat_completions);
    tcase_add_test(tc, of_messages);
    tcase_add_test(tc, of_gemini_in_both_spellings);
    tcase_add_test(tc, of_responses);
    tcase_add_test(tc, what_clients_send_back_is_known);
    tcase_add_test(tc, what_is_told_is_bounded);
    tcase_add_test(tc, what_does_not_fit_is_told_by_its_place);
    suite_add_tcase(suite, tc);
    return suite;
}
