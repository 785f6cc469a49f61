/* What each dialect calls the members of the canonical request, for clients that are told of one. */
#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "chatmux/chat/request.h"

struct spelling {
    struct cm_str field, said;
    bool (*where)(const struct cm_chat *chat); /* NULL = always; the first row that fits counts */
};

static bool has_prompt(const struct cm_chat *chat)
{
    return chat->task == CM_TASK_COMPLETION || cm_task_makes_media(chat->task);
}

static bool counts_logprobs(const struct cm_chat *chat)
{
    return chat->top_logprobs >= 0;
}

static bool says_thinking(const struct cm_chat *chat)
{
    return chat->thinking != CM_THINKING_UNSET;
}

#define SAID(field, said) {CM_S_INIT(field), CM_S_INIT(said), NULL}
#define SAID_WHERE(field, said, where) {CM_S_INIT(field), CM_S_INIT(said), where}

static const struct spelling openai_chat[] = {
    SAID_WHERE("messages", "prompt", has_prompt),
};

static const struct spelling responses[] = {
    SAID("messages", "input"),
    SAID("max_tokens", "max_output_tokens"),
    SAID("max_completion_tokens", "max_output_tokens"),
    SAID("reasoning_effort", "reasoning.effort"),
    SAID("response_format", "text.format"),
    SAID("verbosity", "text.verbosity"),
    SAID_WHERE("logprobs", "top_logprobs", counts_logprobs),
    SAID("logprobs", "include"),
};

static const struct spelling anthropic[] = {
    SAID("max_completion_tokens", "max_tokens"),
    SAID("stop", "stop_sequences"),
    SAID_WHERE("reasoning_effort", "thinking", says_thinking),
    SAID("reasoning_effort", "output_config.effort"),
    SAID("response_format", "output_config.format"),
    SAID("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
    SAID("user", "metadata.user_id"),
    SAID("filename", "title"),
};

#define CONFIG(field, said) SAID(field, "generationConfig." said)
static const struct spelling gemini[] = {
    SAID("messages", "contents"),
    CONFIG("n", "candidateCount"),
    CONFIG("temperature", "temperature"),
    CONFIG("top_p", "topP"),
    CONFIG("top_k", "topK"),
    CONFIG("presence_penalty", "presencePenalty"),
    CONFIG("frequency_penalty", "frequencyPenalty"),
    CONFIG("seed", "seed"),
    CONFIG("max_tokens", "maxOutputTokens"),
    CONFIG("max_completion_tokens", "maxOutputTokens"),
    CONFIG("stop", "stopSequences"),
    CONFIG("logprobs", "responseLogprobs"),
    CONFIG("top_logprobs", "logprobs"),
    CONFIG("reasoning_effort", "thinkingConfig"),
    CONFIG("response_format", "responseMimeType"),
    CONFIG("modalities", "responseModalities"),
    SAID("tool_choice", "toolConfig.functionCallingConfig"),
    SAID("filename", "displayName"),
};

static const struct {
    const struct spelling *rows;
    size_t n;
} dialects[] = {
    [CM_DIALECT_OPENAI_CHAT] = {openai_chat, CM_COUNT(openai_chat)},
    [CM_DIALECT_OPENAI_RESPONSES] = {responses, CM_COUNT(responses)},
    [CM_DIALECT_ANTHROPIC] = {anthropic, CM_COUNT(anthropic)},
    [CM_DIALECT_GEMINI] = {gemini, CM_COUNT(gemini)},
};

/* "messages[2].content" -> "messages" */
static struct cm_str head_of(struct cm_str place)
{
    size_t n = 0;

    while (n < place.n && place.p[n] != '.' && place.p[n] != '[')
        n++;
    return cm_str_head(place, n);
}

struct cm_str cm_chat_spelling(const struct cm_chat *chat, struct cm_str field)
{
    const struct cm_str head = head_of(field);

    for (size_t i = 0; i < dialects[chat->dialect].n; i++) {
        const struct spelling *row = &dialects[chat->dialect].rows[i];

        if (cm_str_eq(row->field, head) && (!row->where || row->where(chat)))
            return row->said;
    }
    return field;
}

static bool is_quote(char c)
{
    return c == '\'' || c == '"';
}

/* Whether `text` begins with `name` in quotation marks. */
static bool quotes(struct cm_str text, struct cm_str name)
{
    return text.n >= name.n + 2 && is_quote(text.p[0]) && text.p[name.n + 1] == text.p[0] &&
           cm_str_starts(cm_str_from(text, 1), name);
}

static void respell_sentence(struct cm_err *err, struct cm_str field, struct cm_str said)
{
    struct cm_str text = cm_str_of(err->msg);
    struct cm_buf out = {0};

    while (text.n > 0) {
        size_t taken = 1;

        cm_buf_put(&out, text.p[0]);
        if (quotes(text, field)) {
            cm_buf_append(&out, said);
            taken = field.n + 1;
        }
        text = cm_str_from(text, taken);
    }
    cm_str_copy(err->msg, sizeof(err->msg), cm_utf8_head(cm_buf_str(&out), sizeof(err->msg) - 1));
    cm_buf_clear(&out);
}

void cm_chat_respell(const struct cm_chat *chat, struct cm_err *err)
{
    char field[sizeof(err->param)];
    struct cm_str said;

    cm_str_copy(field, sizeof(field), cm_str_of(err->param));
    said = cm_chat_spelling(chat, cm_str_of(field));
    if (cm_str_eq(said, cm_str_of(field)))
        return;
    respell_sentence(err, cm_str_of(field), said);
    cm_str_copy(err->param, sizeof(err->param), said);
}
