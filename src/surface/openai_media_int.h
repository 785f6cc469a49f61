/* What the routes that take forms or make pictures share. Loop thread only. */
#ifndef SURFACE_OPENAI_MEDIA_INT_H
#define SURFACE_OPENAI_MEDIA_INT_H

#include "chatmux/codec/form.h"
#include "openai_chat_int.h"

/* openai_forms.c: the chat of a form; model (`otherwise` when the client left it out, NULL = it must
 * not), stream and where the model stands are read. The form's fields live in chat->arena. */
int cm_openai_form(struct cm_chat *chat, enum cm_chat_task task, struct cm_str body,
                   const char *otherwise, struct cm_form *form, struct cm_err *err);

/* openai_images.c: JSON with a prompt, and answers made of pictures. */
int cm_openai_media_json(struct cm_chat *chat, enum cm_chat_task task, struct cm_str body,
                         struct cm_err *err);
void cm_openai_media_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                           struct cm_buf *out);
struct cm_openai_media_stream {
    struct cm_answer_meta meta;
};
void cm_openai_media_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out);
void cm_openai_media_event(void *state, const struct cm_event *ev, struct cm_buf *out);
void cm_openai_media_end(void *state, const struct cm_usage *usage, struct cm_buf *out);
void cm_openai_media_clear(void *state);

#define CM_OPENAI_MEDIA_SURFACE(which, prefix, parse_fn, whole_fn)                                 \
    CM_OPENAI_MEDIA_SURFACE_AS(which, prefix, parse_fn, whole_fn, cm_openai_put_error, NULL)
/* The same with errors of another gateway. */
#define CM_OPENAI_MEDIA_SURFACE_AS(which, prefix, parse_fn, whole_fn, put_error, status)           \
    {                                                                                              \
        .dialect = CM_DIALECT_OPENAI_CHAT,                                                         \
        .task = CM_TASK_##which,                                                                   \
        .id_prefix = CM_S_INIT(prefix),                                                            \
        .parse = (parse_fn),                                                                       \
        .stream_size = sizeof(struct cm_openai_media_stream),                                      \
        .stream_begin = cm_openai_media_begin,                                                     \
        .stream_event = cm_openai_media_event,                                                     \
        .stream_end = cm_openai_media_end,                                                         \
        .stream_error = cm_openai_named_error,                                                     \
        .stream_clear = cm_openai_media_clear,                                                     \
        .keepalive = CM_S_INIT(": keep-alive\n\n"),                                                \
        .whole = (whole_fn),                                                                       \
        .error_body = (put_error),                                                                 \
        .error_status = (status),                                                                  \
    }

#endif
