/* What the surfaces of OpenAI's dialect have in common: members that several of them read, and how
 * they tell a failure. */
#include "openai_chat_int.h"

#include "chatmux/codec/json.h"
#include "fields_int.h"

int cm_openai_model_member(struct cm_chat *chat, yyjson_val *model, const char *otherwise,
                           struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "model");

    chat->model = cm_str_of(otherwise);
    if (otherwise && !model)
        return 0;
    if (cm_field_need_str(model, at, &chat->model, err))
        return -1;
    return chat->model.n > 0 ? 0 : cm_field_missing(err, at);
}

#define STOP_MAX 4

int cm_openai_stop(struct cm_chat *chat, yyjson_val *stop, struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "stop");
    yyjson_val *v;
    const size_t count = yyjson_is_arr(stop) ? yyjson_arr_size(stop) : 1;
    size_t i, max;

    if (!stop)
        return 0;
    if (!yyjson_is_str(stop) && !yyjson_is_arr(stop))
        return cm_field_wrong_type(err, at, "a string or an array of strings", stop);
    if (count > STOP_MAX)
        return cm_field_fail(
            err, at, "array_above_max_length",
            "Invalid 'stop': array too long. Expected an array with maximum length %d, "
            "but got an array with length %zu instead.",
            STOP_MAX, count);
    chat->stop = CM_ARENA_ARRAY(chat->arena, struct cm_str, STOP_MAX);
    if (yyjson_is_str(stop))
        chat->stop[chat->n_stop++] = cm_json_str(stop);
    yyjson_arr_foreach(stop, i, max, v)
    {
        if (!yyjson_is_str(v))
            return cm_field_wrong_type(err, CM_SPOT_AT(at, i), "a string", v);
        chat->stop[chat->n_stop++] = cm_json_str(v);
    }
    return 0;
}

int cm_openai_media_form(struct cm_str name, enum cm_media_form *out, struct cm_err *err)
{
    if (cm_str_eq(name, CM_S("url")))
        *out = CM_MEDIA_URL;
    else if (cm_str_eq(name, CM_S("b64_json")))
        *out = CM_MEDIA_B64;
    else if (name.n > 0)
        return cm_field_wrong_value(err, CM_SPOT(NULL, "response_format"), name,
                                    "'url' and 'b64_json'");
    return 0;
}

void cm_openai_only_relayed(struct cm_chat *chat)
{
    cm_fail(&chat->untranslatable, CM_ERR_BAD_REQUEST,
            "The provider of this model cannot be asked for %s in this form.",
            cm_chat_task_name(chat->task));
}

void cm_openai_stream_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    (void)state;
    cm_buf_append(out, CM_S("data: "));
    cm_openai_put_error(err, out);
    cm_buf_append(out, CM_S("\n\n"));
}

/* With the line that names the event: what these streams have on all of theirs. */
void cm_openai_named_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    cm_buf_append(out, CM_S("event: error\n"));
    cm_openai_stream_error(state, err, out);
}
