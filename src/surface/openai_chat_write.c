/* Canonical answer -> chat.completion, and the pieces of JSON that the stream writes too. */
#include "openai_chat_int.h"

#include "chatmux/base/config.h"
#include "chatmux/codec/json.h"

struct cm_think_tags cm_openai_think_tags(int reasoning)
{
    switch ((enum cm_reasoning)reasoning) {
    case CM_REASONING_THINK:
        return (struct cm_think_tags){CM_S("<think>\n"), CM_S("\n</think>\n\n")};
    case CM_REASONING_THINK_COLON:
    case CM_REASONING_THINK_COLON_DELTA:
        return (struct cm_think_tags){CM_S("<think:"), CM_S(">")};
    case CM_REASONING_PLAIN:
        return (struct cm_think_tags){CM_S(""), CM_S("")};
    case CM_REASONING_FIELD:
    case CM_REASONING_HIDE:
        break;
    }
    return (struct cm_think_tags){CM_STR_NONE, CM_STR_NONE};
}

const char *cm_openai_finish(enum cm_finish finish, bool has_calls)
{
    const char *word = finish == CM_FINISH_NONE ? "stop" : cm_finish_name(finish);

    return has_calls && strcmp(word, "stop") == 0 ? "tool_calls" : word;
}

void cm_openai_put_usage(struct cm_buf *out, const struct cm_usage *usage)
{
    const int64_t in = cm_usage_in(usage), produced = cm_usage_out(usage);

    cm_buf_append(out, CM_S("{\"prompt_tokens\":"));
    cm_json_put_int(out, in);
    cm_buf_append(out, CM_S(",\"completion_tokens\":"));
    cm_json_put_int(out, produced);
    cm_buf_append(out, CM_S(",\"total_tokens\":"));
    cm_json_put_int(out, in + produced);
    cm_buf_append(out, CM_S(",\"prompt_tokens_details\":{\"cached_tokens\":"));
    cm_json_put_int(out, usage->in_cache_read);
    cm_buf_append(out, CM_S(",\"audio_tokens\":"));
    cm_json_put_int(out, usage->in_audio);
    if (usage->in_cache_write > 0) {
        cm_buf_append(out, CM_S(",\"cache_write_tokens\":"));
        cm_json_put_int(out, usage->in_cache_write);
    }
    cm_buf_append(out, CM_S("},\"completion_tokens_details\":{\"reasoning_tokens\":"));
    cm_json_put_int(out, usage->out_reasoning);
    cm_buf_append(out, CM_S(",\"audio_tokens\":"));
    cm_json_put_int(out, usage->out_audio);
    cm_buf_append(out,
                  CM_S(",\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}"));
}

void cm_openai_put_citation(struct cm_buf *out, const struct cm_citation *c)
{
    cm_buf_append(out, CM_S("{\"type\":\"url_citation\",\"url_citation\":{\"url\":"));
    cm_json_put_str(out, c->url);
    cm_buf_append(out, CM_S(",\"title\":"));
    cm_json_put_str(out, c->title);
    cm_buf_append(out, CM_S(",\"start_index\":"));
    cm_json_put_int(out, c->from);
    cm_buf_append(out, CM_S(",\"end_index\":"));
    cm_json_put_int(out, c->to);
    cm_buf_append(out, CM_S("}}"));
}

void cm_openai_put_member(struct cm_buf *out, struct cm_str name, struct cm_str value)
{
    if (value.n == 0)
        return;
    cm_buf_put(out, ',');
    cm_json_put_str(out, name);
    cm_buf_put(out, ':');
    cm_json_put_str(out, value);
}

void cm_openai_put_error(const struct cm_err *err, struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"error\":{\"message\":"));
    cm_json_put_z(out, err->msg);
    cm_buf_append(out, CM_S(",\"type\":"));
    cm_json_put_z(out, cm_err_info(err->cls)->type);
    cm_buf_append(out, CM_S(",\"param\":"));
    cm_json_put_z(out, err->param[0] != '\0' ? err->param : NULL);
    cm_buf_append(out, CM_S(",\"code\":"));
    cm_json_put_z(out, cm_err_code(err));
    cm_buf_append(out, CM_S("}}"));
}

static void put_content(struct cm_buf *out, const struct cm_choice_acc *c, int reasoning)
{
    const struct cm_think_tags tags = cm_openai_think_tags(reasoning);
    struct cm_buf joined = {0};

    if (tags.open.p && c->reasoning.n > 0) {
        cm_buf_append(&joined, tags.open);
        cm_buf_append(&joined, cm_buf_str(&c->reasoning));
        cm_buf_append(&joined, tags.close);
        cm_buf_append(&joined, cm_buf_str(&c->text));
        cm_json_put_str(out, cm_buf_str(&joined));
        cm_buf_clear(&joined);
    } else if (c->text.n == 0 && (c->n_calls > 0 || c->refusal.n > 0)) {
        cm_buf_append(out, CM_S("null"));
    } else {
        cm_json_put_str(out, cm_buf_str(&c->text));
    }
}

static void put_calls(struct cm_buf *out, const struct cm_choice_acc *c)
{
    cm_buf_append(out, CM_S(",\"tool_calls\":["));
    for (size_t i = 0; i < c->n_calls; i++) {
        const struct cm_call_acc *call = &c->calls[i];

        if (i > 0)
            cm_buf_put(out, ',');
        cm_buf_append(out, CM_S("{\"id\":"));
        cm_json_put_str(out, call->id);
        cm_buf_append(out, CM_S(",\"type\":\"function\",\"function\":{\"name\":"));
        cm_json_put_str(out, call->name);
        cm_buf_append(out, CM_S(",\"arguments\":"));
        cm_json_put_str(out, call->args.n > 0 ? cm_buf_str(&call->args) : CM_S("{}"));
        cm_buf_append(out, CM_S("}}"));
    }
    cm_buf_put(out, ']');
}

static void put_choice(struct cm_buf *out, size_t index, const struct cm_choice_acc *c,
                       const struct cm_answer_meta *meta)
{
    const int reasoning = meta->reasoning;

    cm_buf_append(out, CM_S("{\"index\":"));
    cm_buf_put_u64(out, index);
    cm_buf_append(out, CM_S(",\"message\":{\"role\":\"assistant\",\"content\":"));
    put_content(out, c, reasoning);
    if (reasoning == CM_REASONING_FIELD && c->reasoning.n > 0) {
        cm_buf_append(out, CM_S(",\"reasoning_content\":"));
        cm_json_put_str(out, cm_buf_str(&c->reasoning));
    }
    cm_buf_append(out, CM_S(",\"refusal\":"));
    if (c->refusal.n > 0)
        cm_json_put_str(out, cm_buf_str(&c->refusal));
    else
        cm_buf_append(out, CM_S("null"));
    cm_buf_append(out, CM_S(",\"annotations\":["));
    for (size_t i = 0; i < c->n_citations; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        cm_openai_put_citation(out, &c->citations[i]);
    }
    cm_buf_put(out, ']');
    if (c->n_calls > 0)
        put_calls(out, c);
    cm_buf_append(out, CM_S("},\"logprobs\":"));
    if (c->logprobs.n > 0) {
        cm_buf_append(out, CM_S("{\"content\":["));
        cm_buf_append(out, cm_buf_str(&c->logprobs));
        cm_buf_append(out, CM_S("],\"refusal\":null}"));
    } else {
        cm_buf_append(out, CM_S("null"));
    }
    cm_buf_append(out, CM_S(",\"finish_reason\":"));
    cm_json_put_z(out, cm_openai_finish(c->finish, c->n_calls > 0));
    if (meta->compat)
        cm_buf_append(out, CM_S(",\"delta\":{\"content\":\"\",\"role\":\"\"}"));
    cm_buf_put(out, '}');
}

void cm_openai_chat_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                          struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"id\":"));
    cm_json_put_str(out, meta->id);
    cm_buf_append(out, CM_S(",\"object\":\"chat.completion\",\"created\":"));
    cm_json_put_int(out, meta->created_s);
    cm_buf_append(out, CM_S(",\"model\":"));
    cm_json_put_str(out, meta->model);
    cm_buf_append(out, CM_S(",\"choices\":["));
    for (size_t i = 0; i < answer->n_choices; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        put_choice(out, i, &answer->choices[i], meta);
    }
    cm_buf_append(out, CM_S("],\"usage\":"));
    cm_openai_put_usage(out, &answer->usage);
    if (answer->usage.service_tier[0] != '\0') {
        cm_buf_append(out, CM_S(",\"service_tier\":"));
        cm_json_put_z(out, answer->usage.service_tier);
    }
    cm_buf_append(out, CM_S(",\"system_fingerprint\":null"));
    if (meta->compat) {
        cm_buf_append(out, CM_S(",\"suggestions\":null"));
    } else {
        cm_openai_put_member(out, CM_S("served_model"), answer->served);
        cm_openai_put_member(out, CM_S("conversation_id"), answer->conversation);
    }
    cm_buf_put(out, '}');
}
