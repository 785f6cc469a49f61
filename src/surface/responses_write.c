/* Canonical answer -> response object, and the pieces of JSON that the stream writes too. */
#include "responses_int.h"

#include "chatmux/base/config.h"

bool cm_responses_shows_reasoning(const struct cm_answer_meta *meta)
{
    return meta->reasoning != CM_REASONING_HIDE;
}

struct cm_str cm_responses_item_id(struct cm_arena *arena, const char *prefix, struct cm_str id,
                                   size_t index)
{
    struct cm_str tail = id;

    while (cm_str_find_char(tail, '_') != SIZE_MAX)
        cm_str_cut(&tail, '_');
    return cm_arena_printf(arena, "%s" CM_PRI "_%zu", prefix, CM_ARG(tail), index);
}

struct cm_responses_state cm_responses_ended(enum cm_finish finish, bool refused)
{
    struct cm_responses_state s = {.status = "completed"};

    switch (finish) {
    case CM_FINISH_LENGTH:
    case CM_FINISH_CONTEXT:
        s.incomplete = "max_output_tokens";
        break;
    case CM_FINISH_CONTENT_FILTER:
        s.incomplete = "content_filter";
        break;
    case CM_FINISH_REFUSAL: /* in the model's own words it is an answer */
        s.incomplete = refused ? NULL : "content_filter";
        break;
    case CM_FINISH_NONE:
    case CM_FINISH_STOP:
    case CM_FINISH_STOP_SEQUENCE:
    case CM_FINISH_PAUSE:
    case CM_FINISH_TOOL_CALLS:
        break;
    }
    if (s.incomplete)
        s.status = "incomplete";
    return s;
}

/* ---- Items ---- */

/* "name":value with a comma in front */
static void put_member(struct cm_buf *out, struct cm_str before, struct cm_str value)
{
    cm_buf_append(out, before);
    cm_json_put_str(out, value);
}

void cm_responses_put_reasoning(struct cm_buf *out, struct cm_str id, struct cm_str text)
{
    put_member(out, CM_S("{\"id\":"), id);
    cm_buf_append(out, CM_S(",\"type\":\"reasoning\",\"summary\":["));
    if (text.n > 0) {
        put_member(out, CM_S("{\"type\":\"summary_text\",\"text\":"), text);
        cm_buf_put(out, '}');
    }
    cm_buf_append(out, CM_S("]}"));
}

void cm_responses_put_message(struct cm_buf *out, struct cm_str id, const char *status,
                              struct cm_str parts)
{
    put_member(out, CM_S("{\"id\":"), id);
    put_member(out, CM_S(",\"type\":\"message\",\"status\":"), cm_str_of(status));
    cm_buf_append(out, CM_S(",\"content\":["));
    cm_buf_append(out, parts);
    cm_buf_append(out, CM_S("],\"role\":\"assistant\"}"));
}

void cm_responses_put_call(struct cm_buf *out, struct cm_str id, const char *status,
                           struct cm_str call_id, struct cm_str name, struct cm_str args)
{
    put_member(out, CM_S("{\"id\":"), id);
    put_member(out, CM_S(",\"type\":\"function_call\",\"status\":"), cm_str_of(status));
    put_member(out, CM_S(",\"arguments\":"), args);
    put_member(out, CM_S(",\"call_id\":"), call_id);
    put_member(out, CM_S(",\"name\":"), name);
    cm_buf_put(out, '}');
}

void cm_responses_put_text(struct cm_buf *out, struct cm_str text, struct cm_str annotations,
                           struct cm_str logprobs)
{
    cm_buf_append(out, CM_S("{\"type\":\"output_text\",\"annotations\":["));
    cm_buf_append(out, annotations);
    cm_buf_append(out, CM_S("],\"logprobs\":["));
    cm_buf_append(out, logprobs);
    put_member(out, CM_S("],\"text\":"), text);
    cm_buf_put(out, '}');
}

void cm_responses_put_refusal(struct cm_buf *out, struct cm_str text)
{
    put_member(out, CM_S("{\"type\":\"refusal\",\"refusal\":"), text);
    cm_buf_put(out, '}');
}

void cm_responses_put_citation(struct cm_buf *out, const struct cm_citation *c)
{
    cm_buf_append(out, CM_S("{\"type\":\"url_citation\",\"start_index\":"));
    cm_json_put_int(out, c->from);
    cm_buf_append(out, CM_S(",\"end_index\":"));
    cm_json_put_int(out, c->to);
    put_member(out, CM_S(",\"url\":"), c->url);
    put_member(out, CM_S(",\"title\":"), c->title);
    cm_buf_put(out, '}');
}

/* ---- The object ---- */

static void put_usage(struct cm_buf *out, const struct cm_usage *usage)
{
    if (!usage) {
        cm_buf_append(out, CM_S("null"));
        return;
    }
    cm_buf_append(out, CM_S("{\"input_tokens\":"));
    cm_json_put_int(out, cm_usage_in(usage));
    cm_buf_append(out, CM_S(",\"input_tokens_details\":{\"cached_tokens\":"));
    cm_json_put_int(out, usage->in_cache_read);
    cm_buf_append(out, CM_S(",\"cache_write_tokens\":"));
    cm_json_put_int(out, usage->in_cache_write);
    cm_buf_append(out, CM_S("},\"output_tokens\":"));
    cm_json_put_int(out, cm_usage_out(usage));
    cm_buf_append(out, CM_S(",\"output_tokens_details\":{\"reasoning_tokens\":"));
    cm_json_put_int(out, usage->out_reasoning);
    cm_buf_append(out, CM_S("},\"total_tokens\":"));
    cm_json_put_int(out, cm_usage_in(usage) + cm_usage_out(usage));
    cm_buf_put(out, '}');
}

void cm_responses_put_error(struct cm_buf *out, const struct cm_err *err)
{
    const char *code = err ? cm_err_code(err) : NULL;

    if (!err) {
        cm_buf_append(out, CM_S("null"));
        return;
    }
    cm_buf_append(out, CM_S("{\"code\":"));
    cm_json_put_z(out, code ? code : "server_error");
    cm_buf_append(out, CM_S(",\"message\":"));
    cm_json_put_z(out, err->msg);
    cm_buf_put(out, '}');
}

static void put_bool(struct cm_buf *out, struct cm_str before, bool value)
{
    cm_buf_append(out, before);
    cm_buf_append(out, value ? CM_S("true") : CM_S("false"));
}

/* The tier that it was served with, else the one that was asked for. */
static struct cm_str tier_of(const struct cm_answer_meta *meta, const struct cm_usage *usage)
{
    if (usage && usage->service_tier[0] != '\0')
        return cm_str_of(usage->service_tier);
    return meta->chat->service_tier.n > 0 ? meta->chat->service_tier : CM_S("auto");
}

void cm_responses_put_object(struct cm_buf *out, const struct cm_answer_meta *meta,
                             const struct cm_responses_state *state)
{
    const struct cm_response_ask *ask = meta->chat->response;

    put_member(out, CM_S("{\"id\":"), meta->id);
    cm_buf_append(out, CM_S(",\"object\":\"response\",\"created_at\":"));
    cm_json_put_int(out, meta->created_s);
    put_member(out, CM_S(",\"status\":"), cm_str_of(state->status));
    put_bool(out, CM_S(",\"background\":"), ask->background);
    cm_buf_append(out, CM_S(",\"error\":"));
    cm_responses_put_error(out, state->error);
    cm_buf_append(out, CM_S(",\"incomplete_details\":"));
    if (state->incomplete) {
        put_member(out, CM_S("{\"reason\":"), cm_str_of(state->incomplete));
        cm_buf_put(out, '}');
    } else {
        cm_buf_append(out, CM_S("null"));
    }
    cm_buf_put(out, ',');
    cm_buf_append(out, ask->echo);
    put_member(out, CM_S("\"service_tier\":"), tier_of(meta, state->usage));
    put_bool(out, CM_S(",\"store\":"), ask->store);
    put_member(out, CM_S(",\"model\":"), meta->model);
    cm_buf_append(out, CM_S(",\"output\":["));
    cm_buf_append(out, state->output);
    cm_buf_append(out, CM_S("],\"usage\":"));
    put_usage(out, state->usage);
    cm_buf_put(out, '}');
}

/* ---- The whole answer ---- */

struct items {
    const struct cm_answer_meta *meta;
    struct cm_arena arena; /* of ids */
    struct cm_buf out;
    size_t n;
};

/* The id of the next item; what stands before it is separated. */
static struct cm_str next_id(struct items *it, const char *prefix)
{
    if (it->n > 0)
        cm_buf_put(&it->out, ',');
    return cm_responses_item_id(&it->arena, prefix, it->meta->id, it->n++);
}

static void add_message(struct items *it, const struct cm_choice_acc *c, const char *status)
{
    struct cm_buf parts = {0}, notes = {0};

    for (size_t i = 0; i < c->n_citations; i++) {
        if (i > 0)
            cm_buf_put(&notes, ',');
        cm_responses_put_citation(&notes, &c->citations[i]);
    }
    if (c->text.n > 0 || c->refusal.n == 0)
        cm_responses_put_text(&parts, cm_buf_str(&c->text), cm_buf_str(&notes),
                              cm_buf_str(&c->logprobs));
    if (c->refusal.n > 0) {
        if (parts.n > 0)
            cm_buf_put(&parts, ',');
        cm_responses_put_refusal(&parts, cm_buf_str(&c->refusal));
    }
    cm_responses_put_message(&it->out, next_id(it, "msg_"), status, cm_buf_str(&parts));
    cm_buf_clear(&parts);
    cm_buf_clear(&notes);
}

void cm_responses_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                        struct cm_buf *out)
{
    static const struct cm_choice_acc nothing;
    const struct cm_choice_acc *c = answer->n_choices > 0 ? &answer->choices[0] : &nothing;
    struct cm_responses_state state = cm_responses_ended(c->finish, c->refusal.n > 0);
    const char *item_status = state.incomplete ? "incomplete" : "completed";
    struct items it = {.meta = meta};

    if (c->reasoning.n > 0 && cm_responses_shows_reasoning(meta))
        cm_responses_put_reasoning(&it.out, next_id(&it, "rs_"), cm_buf_str(&c->reasoning));
    if (c->text.n > 0 || c->refusal.n > 0 || c->n_calls == 0)
        add_message(&it, c, c->n_calls > 0 ? "completed" : item_status);
    for (size_t i = 0; i < c->n_calls; i++) {
        const struct cm_call_acc *call = &c->calls[i];

        cm_responses_put_call(&it.out, next_id(&it, "fc_"),
                              i + 1 == c->n_calls ? item_status : "completed", call->id, call->name,
                              call->args.n > 0 ? cm_buf_str(&call->args) : CM_S("{}"));
    }
    state.output = cm_buf_str(&it.out);
    state.usage = &answer->usage;
    cm_responses_put_object(out, meta, &state);
    cm_buf_clear(&it.out);
    cm_arena_clear(&it.arena);
}

void cm_responses_count_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                              struct cm_buf *out)
{
    const int64_t n = cm_usage_in(&answer->usage);

    (void)meta;
    cm_buf_append(out, CM_S("{\"object\":\"response.input_tokens\",\"input_tokens\":"));
    cm_json_put_int(out, n > 0 ? n : 1);
    cm_buf_put(out, '}');
}
