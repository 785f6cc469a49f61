/* surface/gemini: both spellings mean the same, what is wrong is named, answers in both framings and whole, lists of models. */
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/chat/models.h"
#include "chatmux/codec/json.h"
#include "chatmux/surface/surface.h"

#include <stdlib.h>

static struct cm_arena arena;
static struct cm_chat chat;

static void clear(void)
{
    cm_arena_clear(&arena);
}

static int parse_as(const struct cm_surface *surface, const char *path, const char *body,
                    struct cm_err *err)
{
    *err = (struct cm_err){0};
    chat = (struct cm_chat){.arena = &arena, .path = cm_str_of(path)};
    return surface->parse(&chat, cm_str_of(body), err);
}

static int parse(const char *body, struct cm_err *err)
{
    return parse_as(&cm_surface_gemini, "m:generateContent", body, err);
}

#define HI "\"contents\":[{\"parts\":[{\"text\":\"hi\"}]}]"

/* ---- the request ---- */

START_TEST(the_path_names_model_and_stream)
{
    static const struct {
        const char *path, *model;
        bool stream;
    } cases[] = {
        {"gemini-2.5-flash:generateContent", "gemini-2.5-flash", false},
        {"models/m:streamGenerateContent", "m", true},
        {"models/models/m:generateContent", "m", false},
        {"openai/gpt-4o:generateContent", "openai/gpt-4o", false},
        {"llama3:8b:streamGenerateContent", "llama3:8b", true},
    };
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        ck_assert_int_eq(parse_as(&cm_surface_gemini, cases[i].path, "{" HI "}", &err), 0);
        ck_assert(cm_str_eq(chat.model, cm_str_of(cases[i].model)));
        ck_assert_int_eq(chat.stream, cases[i].stream);
        ck_assert_int_eq(chat.dialect, CM_DIALECT_GEMINI);
        ck_assert(chat.include_usage);
    }
    ck_assert_int_eq(parse_as(&cm_surface_gemini, ":generateContent", "{" HI "}", &err), -1);
    clear();
}
END_TEST

START_TEST(both_spellings_mean_the_same)
{
    static const char *const bodies[] = {
        "{" HI ",\"generationConfig\":{\"topP\":0.5,\"topK\":7,\"maxOutputTokens\":9,"
        "\"candidateCount\":2,\"responseMimeType\":\"application/json\",\"responseLogprobs\":true,"
        "\"thinkingConfig\":{\"thinkingBudget\":100,\"includeThoughts\":true}},"
        "\"systemInstruction\":{\"parts\":[{\"text\":\"s\"}]},\"cachedContent\":\"c\"}",
        "{" HI ",\"generation_config\":{\"top_p\":0.5,\"top_k\":7.0,\"max_output_tokens\":\"9\","
        "\"candidate_count\":2,\"response_mime_type\":\"application/json\",\"response_logprobs\":"
        "true,\"thinking_config\":{\"thinking_budget\":100,\"include_thoughts\":true}},"
        "\"system_instruction\":{\"parts\":[{\"text\":\"s\"}]},\"cached_content\":\"c\"}",
    };
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(bodies); i++) {
        ck_assert_msg(parse(bodies[i], &err) == 0, "%s", err.msg);
        ck_assert(chat.top_p > 0.49 && chat.top_p < 0.51);
        ck_assert_int_eq(chat.top_k, 7);
        ck_assert_int_eq(chat.max_tokens, 9);
        ck_assert_int_eq(chat.n, 2);
        ck_assert_int_eq(chat.format, CM_FORMAT_JSON);
        ck_assert(chat.logprobs);
        ck_assert_int_eq(chat.thinking, CM_THINKING_ON);
        ck_assert_int_eq(chat.thinking_budget, 100);
        ck_assert_int_eq(chat.show_thinking, 1);
        ck_assert_uint_eq(chat.n_msgs, 2);
        ck_assert_int_eq(chat.msgs[0].role, CM_ROLE_SYSTEM);
        ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST); /* cachedContent */
        clear();
    }
}
END_TEST

START_TEST(what_is_wrong_is_named)
{
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{}", "contents"},
        {"{\"contents\":[]}", "contents"},
        {"{\"contents\":\"hi\"}", "contents"},
        {"{\"contents\":[{\"parts\":[]}]}", "contents[0].parts"},
        {"{\"contents\":[{\"parts\":[\"x\"]}]}", "contents[0].parts[0]"},
        {"{\"contents\":[{\"parts\":[{\"text\":1}]}]}", "contents[0].parts[0].text"},
        {"{\"contents\":[{\"role\":\"tool\",\"parts\":[{\"text\":\"\"}]}]}", "contents[0].role"},
        {"{\"contents\":[{\"parts\":[{\"functionCall\":{}}]}]}",
         "contents[0].parts[0].functionCall.name"},
        {"{\"contents\":[{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":[]}}]}]}",
         "contents[0].parts[0].functionCall.args"},
        {"{\"contents\":[{\"parts\":[{\"inlineData\":{\"data\":\"\"}}]}]}",
         "contents[0].parts[0].inlineData.mimeType"},
        {"{\"contents\":[{\"parts\":[{\"functionResponse\":{\"name\":\"f\",\"response\":\"x\"}}]}]}",
         "contents[0].parts[0].functionResponse.response"},
        {"{" HI ",\"generationConfig\":{\"topK\":1.5}}", "generationConfig.topK"},
        {"{" HI ",\"generationConfig\":{\"maxOutputTokens\":\"x\"}}",
         "generationConfig.maxOutputTokens"},
        {"{" HI ",\"generationConfig\":{\"candidateCount\":9}}", "generationConfig.candidateCount"},
        {"{" HI ",\"generationConfig\":{\"stopSequences\":[1]}}",
         "generationConfig.stopSequences[0]"},
        {"{" HI ",\"generationConfig\":[]}", "generationConfig"},
        {"{" HI ",\"tools\":{}}", "tools"},
        {"{" HI ",\"tools\":[{\"functionDeclarations\":[{}]}]}",
         "tools[0].functionDeclarations[0].name"},
        {"{" HI ",\"toolConfig\":{\"functionCallingConfig\":{\"mode\":\"SOME\"}}}",
         "toolConfig.functionCallingConfig.mode"},
        {"{" HI ",\"systemInstruction\":\"s\"}", "systemInstruction"},
        {"{" HI ",\"contents\":[]}", "contents"},
    };
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        ck_assert_msg(parse(cases[i].body, &err) == -1, "%s", cases[i].body);
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_msg(strcmp(err.param, cases[i].param) == 0, "%s: %s", cases[i].body, err.param);
    }
    clear();
}
END_TEST

START_TEST(what_has_no_words_is_left_to_the_relay_lane)
{
    static const struct {
        const char *body, *where;
    } cases[] = {
        {"{" HI ",\"cachedContent\":\"c\"}", "cachedContent"},
        {"{" HI ",\"tools\":[{\"codeExecution\":{}}]}", "tools[0]"},
        {"{" HI ",\"tools\":[{\"functionDeclarations\":[{\"name\":\"a.b\"}]}]}",
         "tools[0].functionDeclarations[0].name"},
        {"{" HI ",\"generationConfig\":{\"responseModalities\":[\"TEXT\",\"AUDIO\"]}}",
         "generationConfig.responseModalities[1]"},
        {"{" HI ",\"generationConfig\":{\"responseMimeType\":\"text/x.enum\"}}",
         "generationConfig.responseMimeType"},
        {"{\"contents\":[{\"parts\":[{\"fileData\":{\"fileUri\":\"files/1\"}}]}]}",
         "contents[0].parts[0].fileData.fileUri"},
        {"{\"contents\":[{\"parts\":[{\"toolCall\":{}}]}]}", "contents[0].parts[0].toolCall"},
        {"{\"contents\":[{\"parts\":[{\"functionResponse\":{\"name\":\"f\",\"response\":{}}}]}]}",
         "contents[0].parts[0].functionResponse.name"},
    };
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        ck_assert_msg(parse(cases[i].body, &err) == 0, "%s: %s", cases[i].body, err.msg);
        ck_assert_msg(strcmp(chat.untranslatable.param, cases[i].where) == 0, "%s: %s",
                      cases[i].body, chat.untranslatable.param);
    }
    clear();
}
END_TEST

START_TEST(plain_documents_are_text_and_thoughts_are_not)
{
    struct cm_err err;

    ck_assert_int_eq(
        parse("{\"contents\":[{\"parts\":[{\"inlineData\":{\"mimeType\":\"text/csv\",\"data\":"
              "\"w6k\"}},{\"text\":\"deep\",\"thought\":true},{\"text\":\"\"},"
              "{\"inlineData\":{\"mimeType\":\"text/plain\",\"data\":\"/w==\"}}]}]}",
              &err),
        0);
    ck_assert_uint_eq(chat.n_msgs, 1);
    ck_assert_uint_eq(chat.msgs[0].n_parts, 2);
    ck_str(chat.msgs[0].parts[0].text, "é");
    ck_assert_int_eq(chat.msgs[0].parts[1].kind, CM_PART_FILE); /* no UTF-8 */
    clear();
}
END_TEST

/* Of two contents and the pieces of a stream that came back: text, the call of each, a text with its proof. */
START_TEST(what_the_model_said_in_pieces_is_one_message)
{
    struct cm_err err;
    const struct cm_msg *m;

    ck_assert_msg(
        parse("{\"contents\":[{\"parts\":[{\"text\":\"a\"},{\"text\":\"b\"}]},"
              "{\"role\":\"model\",\"parts\":[{\"text\":\"Lo\"},{\"text\":\"ok\"},{\"text\":\"\"},"
              "{\"functionCall\":{\"name\":\"f\"}}]},"
              "{\"role\":\"model\",\"parts\":[{\"functionCall\":{\"name\":\"g\"}},"
              "{\"text\":\"x\"},{\"text\":\"y\",\"thoughtSignature\":\"c2ln\"},{\"text\":\"z\"}]},"
              "{\"parts\":[{\"functionResponse\":{\"name\":\"g\",\"response\":"
              "{\"name\":\"g\",\"content\":\"G\"}}},"
              "{\"functionResponse\":{\"name\":\"f\",\"response\":"
              "{\"name\":\"other\",\"content\":\"F\"}}}]}]}",
              &err) == 0,
        "%s", err.msg);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_NONE);
    ck_assert_uint_eq(chat.n_msgs, 4);
    ck_assert_uint_eq(chat.msgs[0].n_parts, 2); /* what a user says stays in its parts */
    m = &chat.msgs[1];
    ck_assert_int_eq(m->role, CM_ROLE_ASSISTANT);
    ck_assert_uint_eq(m->n_parts, 6);
    ck_str(m->parts[0].text, "Look");
    ck_str(m->parts[1].name, "f");
    ck_str(m->parts[2].name, "g");
    ck_str(m->parts[3].text, "x");
    ck_str(m->parts[4].text, "y");
    ck_str(m->parts[4].signature, "c2ln");
    ck_str(m->parts[5].text, "z");
    ck_str(chat.msgs[2].parts[0].text, "G");
    ck_assert(cm_str_eq(chat.msgs[2].parts[0].id, m->parts[2].id));
    ck_str(chat.msgs[3].parts[0].text, "{\"name\":\"other\",\"content\":\"F\"}");
    clear();
}
END_TEST

START_TEST(counts_and_vectors_are_asked_for)
{
    struct cm_err err;

    ck_assert_int_eq(parse_as(&cm_surface_gemini_count, "m:countTokens",
                              "{\"generateContentRequest\":{\"model\":\"models/m\"," HI
                              ",\"tools\":[{\"functionDeclarations\":[{\"name\":\"f\"}]}]}}",
                              &err),
                     0);
    ck_assert_int_eq(chat.task, CM_TASK_COUNT_TOKENS);
    ck_assert_uint_eq(chat.n_tools, 1);
    ck_assert_int_eq(
        parse_as(&cm_surface_gemini_embed, "m:embedContent",
                 "{\"content\":{\"parts\":[{\"text\":\"a\"},{\"text\":\"b\"}]},\"taskType\":\"X\","
                 "\"output_dimensionality\":8}",
                 &err),
        0);
    ck_assert_int_eq(chat.task, CM_TASK_EMBEDDING);
    ck_assert_uint_eq(chat.n_inputs, 1);
    ck_str(chat.inputs[0], "a\nb");
    ck_assert_int_eq(chat.dimensions, 8);
    ck_assert_uint_eq(chat.n_dropped, 1);
    ck_assert_int_eq(
        parse_as(&cm_surface_gemini_batch_embed, "m:batchEmbedContents",
                 "{\"requests\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}},{\"content\":"
                 "{\"parts\":[{\"text\":\"b\"}]},\"outputDimensionality\":3}]}",
                 &err),
        0);
    ck_assert_uint_eq(chat.n_inputs, 2);
    ck_assert_int_eq(chat.untranslatable.cls, CM_ERR_BAD_REQUEST); /* two sizes */
    ck_assert_int_eq(
        parse_as(&cm_surface_gemini_batch_embed, "m:batchEmbedContents", "{\"requests\":[]}", &err),
        -1);
    ck_assert_int_eq(parse_as(&cm_surface_gemini_embed, "m:embedContent", "{}", &err), -1);
    clear();
}
END_TEST

/* ---- the answer ---- */

static const struct cm_event events[] = {
    {.kind = CM_EVENT_REASONING, .text = CM_S_INIT("hm")},
    {.kind = CM_EVENT_SIGNATURE, .text = CM_S_INIT("sig")},
    {.kind = CM_EVENT_TEXT, .text = CM_S_INIT("a\"b")},
    {.kind = CM_EVENT_TOOL_CALL, .index = 0, .id = CM_S_INIT("c1"), .name = CM_S_INIT("f")},
    {.kind = CM_EVENT_TOOL_ARGS, .index = 0, .text = CM_S_INIT("{\"x\":")},
    {.kind = CM_EVENT_TOOL_CALL, .index = 1, .id = CM_S_INIT("c2"), .name = CM_S_INIT("g")},
    {.kind = CM_EVENT_TOOL_ARGS, .index = 0, .text = CM_S_INIT("1}")},
    {.kind = CM_EVENT_TOOL_ARGS, .index = 1, .text = CM_S_INIT("nonsense")},
    {.kind = CM_EVENT_IMAGE, .url = CM_S_INIT("data:image/png;base64,QUJD")},
    {.kind = CM_EVENT_CITATION, .url = CM_S_INIT("https://a"), .name = CM_S_INIT("A")},
    {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_TOOL_CALLS},
};

static const struct cm_usage usage = {.source = CM_USAGE_UPSTREAM,
                                      .in_uncached = 5,
                                      .in_cache_read = 2,
                                      .out_text = 3,
                                      .out_reasoning = 4};

static struct cm_answer_meta meta_of(int show_thinking)
{
    chat = (struct cm_chat){.arena = &arena, .show_thinking = show_thinking};
    return (struct cm_answer_meta){.id = CM_S("r1"), .model = CM_S("m"), .n = 1, .chat = &chat};
}

static void stream(const struct cm_surface *s, int show_thinking, struct cm_buf *out)
{
    struct cm_answer_meta meta = meta_of(show_thinking);
    void *state = cm_arena_zalloc(&arena, s->stream_size);

    s->stream_begin(state, &meta, out);
    for (size_t i = 0; i < CM_COUNT(events); i++)
        s->stream_event(state, &events[i], out);
    s->stream_end(state, &usage, out);
    s->stream_clear(state);
}

#define META ",\"modelVersion\":\"m\",\"responseId\":\"r1\"}"
#define CHUNK(part)                                                                                \
    "{\"candidates\":[{\"content\":{\"parts\":[" part "],\"role\":\"model\"},\"index\":0}]" META
#define USAGE                                                                                      \
    "\"usageMetadata\":{\"promptTokenCount\":7,\"cachedContentTokenCount\":2,"                     \
    "\"candidatesTokenCount\":3,\"thoughtsTokenCount\":4,\"totalTokenCount\":14}"
#define CALLS                                                                                      \
    "{\"functionCall\":{\"id\":\"c1\",\"name\":\"f\",\"args\":{\"x\":1}}},"                        \
    "{\"functionCall\":{\"id\":\"c2\",\"name\":\"g\",\"args\":{\"raw\":\"nonsense\"}}}"
#define PICTURE "{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"QUJD\"}}"
#define GROUNDING                                                                                  \
    "\"groundingMetadata\":{\"groundingChunks\":[{\"web\":{\"uri\":\"https://a\",\"title\":"       \
    "\"A\"}}]}"
#define LAST                                                                                       \
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},"              \
    "\"finishReason\":\"STOP\",\"index\":0," GROUNDING "}]," USAGE META

START_TEST(a_stream_in_both_framings)
{
    struct cm_buf out = {0};

    stream(&cm_surface_gemini, 1, &out);
    ck_assert_str_eq(
        cm_buf_z(&out),
        "data: " CHUNK(
            "{\"text\":\"hm\",\"thought\":true}") "\r\n\r\n"
                                                  "data: " CHUNK(
                                                      "{\"text\":\"a\\\"b\"}") "\r\n\r\n"
                                                                               "data: " CHUNK(
                                                                                   PICTURE) "\r\n\r\n"
                                                                                            "data: " CHUNK(
                                                                                                CALLS) "\r\n\r\n"
                                                                                                       "data: " LAST
                                                                                                       "\r\n\r\n");
    cm_buf_clear(&out);
    stream(&cm_surface_gemini_array, 0, &out);
    ck_assert_str_eq(cm_buf_z(&out), "[" CHUNK("{\"text\":\"a\\\"b\"}") "\n,\n" CHUNK(
                                         PICTURE) "\n,\n" CHUNK(CALLS) "\n,\n" LAST "\n]");
    cm_buf_clear(&out);
    clear();
}
END_TEST

START_TEST(a_whole_answer)
{
    struct cm_answer answer = {.keep_images = true, .usage = usage};
    struct cm_answer_meta meta = meta_of(1);
    struct cm_buf out = {0};
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(events); i++)
        ck_assert_int_eq(cm_answer_add(&answer, &events[i], &err), 0);
    cm_surface_gemini.whole(&meta, &answer, &out);
    ck_assert_str_eq(cm_buf_z(&out),
                     "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true},"
                     "{\"text\":\"a\\\"b\"}," PICTURE "," CALLS "],\"role\":\"model\"},"
                     "\"finishReason\":\"STOP\",\"index\":0," GROUNDING "}]," USAGE META);
    cm_buf_clear(&out);
    cm_answer_clear(&answer);
    clear();
}
END_TEST

#define PIECE_1                                                                                    \
    "{\"token\":\"Hel\",\"logprob\":-0.5,\"bytes\":[72,101,108],\"top_logprobs\":"                 \
    "[{\"token\":\"Hel\",\"logprob\":-0.5},{\"token\":\"Hi\",\"logprob\":-2}]}"
#define PIECE_2                                                                                    \
    "{\"token\":\"lo\",\"logprob\":-0.25,\"top_logprobs\":[]},"                                    \
    "{\"token\":\"!\",\"logprob\":-0.75,\"top_logprobs\":[{\"token\":\"?\",\"logprob\":-3.5}]}"
#define CHOSEN_1 "{\"token\":\"Hel\",\"logProbability\":-0.5}"
#define CHOSEN_2                                                                                   \
    "{\"token\":\"lo\",\"logProbability\":-0.25},{\"token\":\"!\",\"logProbability\":-0.75}"
#define TOP_1 "{\"candidates\":[" CHOSEN_1 ",{\"token\":\"Hi\",\"logProbability\":-2}]}"
#define TOP_2 "{\"candidates\":[]},{\"candidates\":[{\"token\":\"?\",\"logProbability\":-3.5}]}"
#define RESULT(tops, chosen)                                                                       \
    "\"logprobsResult\":{\"topCandidates\":[" tops "],\"chosenCandidates\":[" chosen "]}"

static const struct cm_event likely[] = {
    {.kind = CM_EVENT_TEXT, .logprobs = CM_S_INIT("[]")}, /* says nothing */
    {.kind = CM_EVENT_TEXT, .text = CM_S_INIT("Hel"), .logprobs = CM_S_INIT("[" PIECE_1 "]")},
    {.kind = CM_EVENT_TEXT, .text = CM_S_INIT("lo!"), .logprobs = CM_S_INIT("[" PIECE_2 "]")},
    {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP},
};

START_TEST(a_whole_answer_with_probabilities)
{
    struct cm_answer answer = {0};
    struct cm_answer_meta meta = meta_of(-1);
    struct cm_buf out = {0};
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(likely); i++)
        ck_assert_int_eq(cm_answer_add(&answer, &likely[i], &err), 0);
    chat.top_logprobs = 2;
    cm_surface_gemini.whole(&meta, &answer, &out);
    ck_assert_str_eq(cm_buf_z(&out),
                     "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hello!\"}],\"role\":"
                     "\"model\"},\"finishReason\":\"STOP\",\"index\":0," RESULT(
                         TOP_1 "," TOP_2, CHOSEN_1
                         "," CHOSEN_2) ",\"avgLogprobs\":-0.5}],\"usageMetadata\":{}" META);
    cm_buf_reset(&out);
    chat.top_logprobs = -1; /* no alternatives were asked for */
    cm_surface_gemini.whole(&meta, &answer, &out);
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"logprobsResult\":{\"chosenCandidates\":[")));
    cm_buf_clear(&out);
    cm_answer_clear(&answer);
    clear();
}
END_TEST

START_TEST(a_stream_with_probabilities)
{
    const struct cm_surface *s = &cm_surface_gemini_array;
    struct cm_answer_meta meta = meta_of(-1);
    void *state = cm_arena_zalloc(&arena, s->stream_size);
    struct cm_buf out = {0};

    chat.top_logprobs = 2;
    s->stream_begin(state, &meta, &out);
    for (size_t i = 0; i < CM_COUNT(likely); i++)
        s->stream_event(state, &likely[i], &out);
    s->stream_end(state, &usage, &out);
    s->stream_clear(state);
#define LIKELY(text, tops, chosen)                                                                 \
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"" text                                  \
    "\"}],\"role\":\"model\"},\"index\":0," RESULT(tops, chosen) "}]" META
    ck_assert_str_eq(
        cm_buf_z(&out),
        "[" LIKELY("Hel", TOP_1, CHOSEN_1) "\n,\n" LIKELY(
            "lo!", TOP_2, CHOSEN_2) "\n,\n"
                                    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],"
                                    "\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0,"
                                    "\"avgLogprobs\":-0.5}]," USAGE META "\n]");
    cm_buf_clear(&out);
    clear();
}
END_TEST

START_TEST(an_answer_without_words_has_an_empty_part)
{
    const struct cm_event filtered = {.kind = CM_EVENT_FINISH, .finish = CM_FINISH_CONTENT_FILTER};
    struct cm_answer answer = {0};
    struct cm_answer_meta meta = meta_of(-1);
    struct cm_buf out = {0};
    struct cm_err err;

    ck_assert_int_eq(cm_answer_add(&answer, &filtered, &err), 0);
    cm_surface_gemini.whole(&meta, &answer, &out);
    ck_assert_str_eq(
        cm_buf_z(&out),
        "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":"
        "\"model\"},\"finishReason\":\"SAFETY\",\"index\":0}],\"usageMetadata\":{}" META);
    cm_buf_clear(&out);
    cm_answer_clear(&answer);
    clear();
}
END_TEST

START_TEST(errors_in_both_framings)
{
    struct cm_buf out = {0};
    struct cm_err err = {0};
    _Alignas(16) char state[1024] = {0};

    cm_fail_param(&err, CM_ERR_RATE_LIMITED, "x", "too \"fast\"");
    err.retry_after_s = 7;
#define ERROR                                                                                      \
    "{\"error\":{\"code\":429,\"message\":\"too \\\"fast\\\"\",\"status\":\"RESOURCE_EXHAUSTED\"," \
    "\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\",\"fieldViolations\":"   \
    "[{\"field\":\"x\",\"description\":\"too \\\"fast\\\"\"}]},"                                   \
    "{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"7s\"}]}}"
    cm_surface_gemini.error_body(&err, &out);
    ck_assert_str_eq(cm_buf_z(&out), ERROR);
    cm_buf_reset(&out);
    cm_surface_gemini_array.error_body(&err, &out);
    ck_assert_str_eq(cm_buf_z(&out), "[" ERROR "]");
    cm_buf_reset(&out);
    cm_surface_gemini.stream_error(NULL, &err, &out);
    ck_assert_str_eq(cm_buf_z(&out), "data: " ERROR "\r\n\r\n");
    cm_buf_reset(&out);
    cm_surface_gemini_array.stream_error(state, &err, &out); /* nothing was written yet */
    ck_assert_str_eq(cm_buf_z(&out), "[" ERROR "\n]");
    cm_buf_reset(&out);
    cm_surface_gemini_array.stream_error(NULL, &err, &out); /* the upstream's elements were */
    ck_assert_str_eq(cm_buf_z(&out), ",\n" ERROR "\n]");
    cm_buf_clear(&out);
}
END_TEST

START_TEST(models_page_by_page)
{
    static const struct cm_model_row row = {
        .context_tokens = 10, .max_output_tokens = 5, .features = CM_MODEL_THINKING};
    static const struct cm_model_listed models[] = {
        {.id = CM_S_INIT("a"), .row = &row}, {.id = CM_S_INIT("b/embed")}, {.id = CM_S_INIT("c")}};
    struct cm_buf out = {0};

    cm_gemini_models(models, 3, 0, 2, &out);
    ck_assert_str_eq(
        cm_buf_z(&out),
        "{\"models\":[{\"name\":\"models/a\",\"baseModelId\":\"a\",\"version\":\"001\","
        "\"displayName\":\"a\",\"inputTokenLimit\":10,\"outputTokenLimit\":5,"
        "\"supportedGenerationMethods\":[\"generateContent\",\"countTokens\"],\"thinking\":true},"
        "{\"name\":\"models/b/embed\",\"baseModelId\":\"b/embed\",\"version\":\"001\","
        "\"displayName\":\"b/embed\",\"supportedGenerationMethods\":[\"embedContent\","
        "\"batchEmbedContents\"]}],\"nextPageToken\":\"2\"}");
    cm_buf_reset(&out);
    cm_gemini_models(models, 3, 2, 2, &out);
    ck_assert(!cm_str_has(cm_buf_str(&out), CM_S("nextPageToken")));
    cm_buf_reset(&out);
    cm_gemini_models(models, 3, 9, 1000, &out);
    ck_assert_str_eq(cm_buf_z(&out), "{\"models\":[]}");
    cm_buf_clear(&out);
}
END_TEST

Suite *suite_gemini_surface(void)
{
    Suite *s = suite_create("gemini_surface");
    TCase *in = tcase_create("requests"), *out = tcase_create("answers");

    tcase_add_test(in, the_path_names_model_and_stream);
    tcase_add_test(in, both_spellings_mean_the_same);
    tcase_add_test(in, what_is_wrong_is_named);
    tcase_add_test(in, what_has_no_words_is_left_to_the_relay_lane);
    tcase_add_test(in, plain_documents_are_text_and_thoughts_are_not);
    tcase_add_test(in, what_the_model_said_in_pieces_is_one_message);
    tcase_add_test(in, counts_and_vectors_are_asked_for);
    suite_add_tcase(s, in);
    tcase_add_test(out, a_stream_in_both_framings);
    tcase_add_test(out, a_whole_answer);
    tcase_add_test(out, a_whole_answer_with_probabilities);
    tcase_add_test(out, a_stream_with_probabilities);
    tcase_add_test(out, an_answer_without_words_has_an_empty_part);
    tcase_add_test(out, errors_in_both_framings);
    tcase_add_test(out, models_page_by_page);
    suite_add_tcase(s, out);
    return s;
}
