/* Routes that only a provider of the same dialect can answer: moderations and speech in JSON,
 * transcriptions and translations as forms (OpenAI protocol notes, sections 8 and 9). Read is what
 * routing, limits and the choice of the lane need; everything else is the upstream's business. */
#include "chatmux/surface/surface.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "fields_int.h"
#include "openai_media_int.h"

enum member { M_model, M_input, M_stream_format };
static const struct cm_str member_names[] = {
    [M_model] = CM_S_INIT("model"),
    [M_input] = CM_S_INIT("input"),
    [M_stream_format] = CM_S_INIT("stream_format"),
};

static void add_input(struct cm_chat *chat, yyjson_val *text)
{
    if (yyjson_is_str(text))
        chat->inputs[chat->n_inputs++] = cm_json_str(text);
}

static int parse_moderation(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    yyjson_val *top[CM_COUNT(member_names)], *v;
    const struct cm_spot *at = CM_SPOT(NULL, "input");
    size_t i, max;

    if (cm_field_body(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_MODERATION, body, member_names,
                      CM_COUNT(member_names), top, err) ||
        cm_openai_model_member(chat, top[M_model], "omni-moderation-latest", err))
        return -1;
    if (!top[M_input])
        return cm_field_missing(err, at);
    if (!yyjson_is_str(top[M_input]) && !yyjson_is_arr(top[M_input]))
        return cm_field_wrong_type(err, at, "a string or an array", top[M_input]);
    chat->inputs = CM_ARENA_ARRAY(chat->arena, struct cm_str, yyjson_arr_size(top[M_input]) + 1);
    add_input(chat, top[M_input]);
    yyjson_arr_foreach(top[M_input], i, max, v) add_input(chat, v);
    cm_openai_only_relayed(chat);
    return 0;
}

static int parse_speech(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    yyjson_val *top[CM_COUNT(member_names)];
    struct cm_str format = CM_STR_NONE;

    if (cm_field_body(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_SPEECH, body, member_names,
                      CM_COUNT(member_names), top, err) ||
        cm_openai_model_member(chat, top[M_model], NULL, err))
        return -1;
    chat->inputs = CM_ARENA_NEW(chat->arena, struct cm_str);
    if (cm_field_need_str(top[M_input], CM_SPOT(NULL, "input"), &chat->inputs[0], err) ||
        cm_field_str(top[M_stream_format], CM_SPOT(NULL, "stream_format"), &format, err))
        return -1;
    chat->n_inputs = 1;
    chat->stream = true; /* whatever its form, it goes out as it comes */
    chat->bytes = !cm_str_eq(format, CM_S("sse"));
    cm_openai_only_relayed(chat);
    return 0;
}

static int parse_audio(struct cm_chat *chat, enum cm_chat_task task, struct cm_str body,
                       struct cm_err *err)
{
    struct cm_form form;

    if (cm_openai_form(chat, task, body, NULL, &form, err))
        return -1;
    if (!cm_form_find(&form, CM_S("file")))
        return cm_field_missing(err, CM_SPOT(NULL, "file"));
    cm_openai_only_relayed(chat);
    return 0;
}

static int parse_transcription(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    return parse_audio(chat, CM_TASK_TRANSCRIPTION, body, err);
}

static int parse_translation(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    return parse_audio(chat, CM_TASK_TRANSLATION, body, err);
}

/* Nobody here reads it. */
static int parse_pass(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    (void)err;
    cm_chat_begin(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_PASS, body);
    chat->stream = chat->bytes = true;
    cm_openai_only_relayed(chat);
    return 0;
}

/* What the client decides by the query and the gateway by the target; what names a call belongs to an account. */
static bool is_model(struct cm_str name)
{
    return cm_str_eq(name, CM_S("model")) || cm_str_eq(name, CM_S("deployment"));
}

static struct cm_str decoded(struct cm_arena *arena, struct cm_str text)
{
    struct cm_buf out = {0};

    if (cm_percent_decode(&out, text, true) == 0)
        text = cm_arena_str(arena, cm_buf_str(&out));
    cm_buf_clear(&out);
    return text;
}

/* ?model=…, as OpenAI's clients write it, or Azure's ?deployment=…&api-version=… There is no body. */
static int parse_realtime(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    struct cm_str rest = chat->query, kept = CM_STR_NONE;
    size_t models = 0;

    cm_chat_begin(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_REALTIME, body);
    while (rest.n > 0) {
        const struct cm_str pair = cm_str_cut(&rest, '&');
        struct cm_str value = pair, name = decoded(chat->arena, cm_str_cut(&value, '='));

        if (cm_str_eq(name, CM_S("call_id")))
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, "call_id",
                                 "a call cannot be joined here: it belongs to the account that "
                                 "made it. Name a model instead");
        if (is_model(name)) {
            chat->model = decoded(chat->arena, value);
            models++;
        } else if (pair.n > 0 && !cm_str_eq(name, CM_S("api-version"))) {
            kept = cm_arena_printf(chat->arena, CM_PRI "%s" CM_PRI, CM_ARG(kept),
                                   kept.n > 0 ? "&" : "", CM_ARG(pair));
        }
    }
    if (chat->model.n == 0 || models != 1)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "model",
                             "name one model in the query: /v1/realtime?model=…");
    chat->query = kept;
    chat->stream = chat->bytes = true;
    cm_openai_only_relayed(chat);
    return 0;
}

#define RELAYED(which, parse_fn)                                                                   \
    {                                                                                              \
        .dialect = CM_DIALECT_OPENAI_CHAT,                                                         \
        .task = CM_TASK_##which,                                                                   \
        .id_prefix = CM_S_INIT("req-"),                                                            \
        .parse = (parse_fn),                                                                       \
        .stream_error = cm_openai_named_error,                                                     \
        .keepalive = CM_S_INIT(": keep-alive\n\n"),                                                \
        .error_body = cm_openai_put_error,                                                         \
    }
const struct cm_surface cm_surface_openai_moderations = RELAYED(MODERATION, parse_moderation);
const struct cm_surface cm_surface_openai_speech = RELAYED(SPEECH, parse_speech);
const struct cm_surface cm_surface_openai_transcriptions =
    RELAYED(TRANSCRIPTION, parse_transcription);
const struct cm_surface cm_surface_openai_realtime = RELAYED(REALTIME, parse_realtime);
const struct cm_surface cm_surface_openai_pass = RELAYED(PASS, parse_pass);
const struct cm_surface cm_surface_openai_translations = RELAYED(TRANSLATION, parse_translation);
