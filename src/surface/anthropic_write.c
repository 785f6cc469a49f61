/* Canonical answer -> message, and the pieces of JSON that the stream writes too. */
#include "anthropic_int.h"

#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"

#define SAFE_ID_MAX 256

bool cm_anthropic_shows_thinking(const struct cm_answer_meta *meta)
{
    if (meta->reasoning == CM_REASONING_HIDE)
        return false;
    return !meta->chat ||
           (meta->chat->thinking != CM_THINKING_OFF && meta->chat->show_thinking != 0);
}

static const char *stop_reason(enum cm_finish finish, bool has_calls)
{
    switch (finish) {
    case CM_FINISH_LENGTH:
        return "max_tokens";
    case CM_FINISH_CONTEXT:
        return "model_context_window_exceeded";
    case CM_FINISH_TOOL_CALLS:
        return "tool_use";
    case CM_FINISH_CONTENT_FILTER:
    case CM_FINISH_REFUSAL:
        return "refusal";
    case CM_FINISH_PAUSE:
        return "pause_turn";
    case CM_FINISH_STOP_SEQUENCE:
        return "stop_sequence";
    case CM_FINISH_NONE:
    case CM_FINISH_STOP:
        break;
    }
    return has_calls ? "tool_use" : "end_turn";
}

void cm_anthropic_put_stop(struct cm_buf *out, enum cm_finish finish, struct cm_str text,
                           bool has_calls)
{
    const char *reason = stop_reason(finish, has_calls);

    if (finish == CM_FINISH_STOP_SEQUENCE && text.n == 0)
        reason = "end_turn"; /* which one is not told */
    cm_buf_append(out, CM_S("\"stop_reason\":"));
    cm_json_put_z(out, reason);
    cm_buf_append(out, CM_S(",\"stop_sequence\":"));
    if (finish == CM_FINISH_STOP_SEQUENCE && text.n > 0)
        cm_json_put_str(out, text);
    else
        cm_buf_append(out, CM_S("null"));
    if (strcmp(reason, "refusal") != 0) {
        cm_buf_append(out, CM_S(",\"stop_details\":null"));
        return;
    }
    cm_buf_append(out, CM_S(",\"stop_details\":{\"type\":\"refusal\",\"category\":null,"
                            "\"explanation\":"));
    if (text.n > 0)
        cm_json_put_str(out, text);
    else
        cm_buf_append(out, CM_S("null"));
    cm_buf_put(out, '}');
}

void cm_anthropic_put_usage(struct cm_buf *out, const struct cm_usage *usage)
{
    cm_buf_append(out, CM_S("\"input_tokens\":"));
    cm_json_put_int(out, usage->in_uncached);
    cm_buf_append(out, CM_S(",\"cache_creation_input_tokens\":"));
    cm_json_put_int(out, usage->in_cache_write);
    cm_buf_append(out, CM_S(",\"cache_read_input_tokens\":"));
    cm_json_put_int(out, usage->in_cache_read);
    cm_buf_append(out, CM_S(",\"output_tokens\":"));
    cm_json_put_int(out, cm_usage_out(usage));
    cm_buf_append(out, CM_S(",\"output_tokens_details\":{\"thinking_tokens\":"));
    cm_json_put_int(out, usage->out_reasoning);
    cm_buf_append(out, CM_S("},\"server_tool_use\":null"));
}

void cm_anthropic_put_call(struct cm_buf *out, struct cm_str id, struct cm_str name)
{
    struct cm_arena scratch = {0};

    cm_buf_append(out, CM_S("{\"type\":\"tool_use\",\"id\":"));
    cm_json_put_str(out, cm_tool_id_safe(&scratch, id, SAFE_ID_MAX));
    cm_buf_append(out, CM_S(",\"name\":"));
    cm_json_put_str(out, name);
    cm_buf_append(out, CM_S(",\"input\":"));
    cm_arena_clear(&scratch);
}

/* Arguments are an object here, whatever an upstream's model wrote. */
static void put_input(struct cm_buf *out, struct cm_str args)
{
    yyjson_doc *doc;

    if (cm_str_trim(args).n == 0) {
        cm_buf_append(out, CM_S("{}"));
        return;
    }
    doc = cm_json_parse(args, &cm_json_limits_request, NULL);
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        cm_json_put_val(out, yyjson_doc_get_root(doc));
    } else {
        cm_buf_append(out, CM_S("{\"raw\":"));
        cm_json_put_str(out, args);
        cm_buf_put(out, '}');
    }
    yyjson_doc_free(doc);
}

static void put_text(struct cm_buf *out, struct cm_str text)
{
    cm_buf_append(out, CM_S("{\"type\":\"text\",\"text\":"));
    cm_json_put_str(out, text);
    cm_buf_put(out, '}');
}

static void put_content(const struct cm_answer_meta *meta, const struct cm_choice_acc *c,
                        struct cm_buf *out)
{
    const char *comma = "";

    if (c->reasoning.n > 0 && cm_anthropic_shows_thinking(meta)) {
        cm_buf_append(out, CM_S("{\"type\":\"thinking\",\"thinking\":"));
        cm_json_put_str(out, cm_buf_str(&c->reasoning));
        cm_buf_append(out, CM_S(",\"signature\":\"\"}"));
        comma = ",";
    }
    if (c->text.n > 0) {
        cm_buf_append(out, cm_str_of(comma));
        put_text(out, cm_buf_str(&c->text));
        comma = ",";
    }
    if (c->refusal.n > 0) {
        cm_buf_append(out, cm_str_of(comma));
        put_text(out, cm_buf_str(&c->refusal));
        comma = ",";
    }
    for (size_t i = 0; i < c->n_calls; i++) {
        cm_buf_append(out, cm_str_of(comma));
        cm_anthropic_put_call(out, c->calls[i].id, c->calls[i].name);
        put_input(out, cm_buf_str(&c->calls[i].args));
        cm_buf_put(out, '}');
        comma = ",";
    }
}

void cm_anthropic_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                        struct cm_buf *out)
{
    static const struct cm_choice_acc nothing;
    const struct cm_choice_acc *c = answer->n_choices > 0 ? &answer->choices[0] : &nothing;

    cm_buf_append(out, CM_S("{\"id\":"));
    cm_json_put_str(out, meta->id);
    cm_buf_append(out, CM_S(",\"type\":\"message\",\"role\":\"assistant\",\"model\":"));
    cm_json_put_str(out, meta->model);
    cm_buf_append(out, CM_S(",\"content\":["));
    put_content(meta, c, out);
    cm_buf_append(out, CM_S("],"));
    cm_anthropic_put_stop(out, c->refusal.n > 0 ? CM_FINISH_REFUSAL : c->finish, c->finish_text,
                          c->n_calls > 0);
    cm_buf_append(out, CM_S(",\"usage\":{"));
    cm_anthropic_put_usage(out, &answer->usage);
    cm_buf_append(out, CM_S("}}"));
}

void cm_anthropic_count_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                              struct cm_buf *out)
{
    const int64_t n = cm_usage_in(&answer->usage);

    (void)meta;
    cm_buf_append(out, CM_S("{\"input_tokens\":"));
    cm_json_put_int(out, n > 0 ? n : 1);
    cm_buf_put(out, '}');
}

/* ---- Errors ---- */

static const char *error_type(const struct cm_err *err)
{
    const int status = cm_err_status(err);

    if (err->cls == CM_ERR_OVERLOADED || err->cls == CM_ERR_NO_CREDENTIAL ||
        err->cls == CM_ERR_SHUTTING_DOWN)
        return status == 429 ? "rate_limit_error" : "overloaded_error";
    switch (status) {
    case 401:
        return "authentication_error";
    case 402:
        return "billing_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 409:
        return "conflict_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 504:
        return "timeout_error";
    case 529:
        return "overloaded_error";
    default:
        return status >= 500 ? "api_error" : "invalid_request_error";
    }
}

int cm_anthropic_error_status(const struct cm_err *err)
{
    return err->cls == CM_ERR_OVERLOADED ? 529 : cm_err_status(err);
}

/* "messages[2].content" as this dialect writes it: "messages.2.content: " */
static void put_path(struct cm_buf *out, struct cm_str param)
{
    for (size_t i = 0; i < param.n; i++) {
        if (param.p[i] == '[')
            cm_buf_put(out, '.');
        else if (param.p[i] != ']')
            cm_buf_put(out, param.p[i]);
    }
    cm_buf_append(out, CM_S(": "));
}

/* What coding clients look for before they shorten a conversation. */
#define TOO_LONG "prompt is too long"

void cm_anthropic_put_error(const struct cm_err *err, struct cm_buf *out)
{
    const struct cm_str msg = cm_str_of(err->msg);
    struct cm_buf told = {0};

    if (err->cls == CM_ERR_CONTEXT_LENGTH && !cm_str_has(msg, CM_S(TOO_LONG)))
        cm_buf_append(&told, CM_S(TOO_LONG ": "));
    else if (err->cls == CM_ERR_BAD_REQUEST && err->param[0] != '\0')
        put_path(&told, cm_str_of(err->param));
    cm_buf_append(&told, msg);
    cm_buf_append(out, CM_S("{\"type\":\"error\",\"error\":{\"type\":"));
    cm_json_put_z(out, error_type(err));
    cm_buf_append(out, CM_S(",\"message\":"));
    cm_json_put_str(out, cm_buf_str(&told));
    cm_buf_append(out, CM_S("}}"));
    cm_buf_clear(&told);
}
