/* The parts of the chat completions surface. Loop thread only. */
#ifndef SURFACE_OPENAI_CHAT_INT_H
#define SURFACE_OPENAI_CHAT_INT_H

#include "chatmux/codec/json.h"
#include "chatmux/surface/surface.h"

struct cm_spot;

/* openai_chat_parse.c, with openai_chat_messages.c and openai_chat_tools.c */
int cm_openai_chat_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);

/* openai_chat_write.c: the whole answer, and what it has in common with the stream */
void cm_openai_chat_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                          struct cm_buf *out);

/* How reasoning stands in the text; `open.p` NULL = it does not. */
struct cm_think_tags {
    struct cm_str open, close;
};
struct cm_think_tags cm_openai_think_tags(int reasoning);

/* The finish reason: clients look for "tool_calls" when there are any, whatever the upstream
 * said. */
const char *cm_openai_finish(enum cm_finish finish, bool has_calls);
void cm_openai_put_usage(struct cm_buf *out, const struct cm_usage *usage);
void cm_openai_put_citation(struct cm_buf *out, const struct cm_citation *c);
/* The model, which must be there unless there is a name to take `otherwise` (NULL = none). */
int cm_openai_model_member(struct cm_chat *chat, yyjson_val *model, const char *otherwise,
                           struct cm_err *err);
/* {name, description, parameters, strict} of a tool; what a name may be is the caller's business. */
int cm_openai_function(struct cm_chat *chat, yyjson_val *v, const struct cm_spot *at,
                       struct cm_tool *tool, struct cm_err *err);
/* "auto", "none", "required" */
int cm_openai_tool_mode(struct cm_chat *chat, struct cm_str mode, bool has_tools,
                        const struct cm_spot *at, struct cm_err *err);
/* {mode, tools} of allowed_tools: the other tools are left out. A tool has its name in itself, or in its `function`. */
int cm_openai_choose_among(struct cm_chat *chat, yyjson_val *allowed, bool has_tools,
                           const struct cm_spot *at, struct cm_err *err);
/* The format of the answer (NULL = not given). 1: it has a schema, which is still to be read; *why says what a type is that other dialects do not have. */
int cm_openai_format(struct cm_chat *chat, yyjson_val *format, const struct cm_spot *at,
                     struct cm_err *why, struct cm_err *err);
/* {name, description, schema, strict} of it */
int cm_openai_schema(struct cm_chat *chat, yyjson_val *v, const struct cm_spot *at,
                     struct cm_err *err);
/* One text or up to four. */
int cm_openai_stop(struct cm_chat *chat, yyjson_val *stop, struct cm_err *err);
/* "url" or "b64_json" of a request; empty leaves *out alone. */
int cm_openai_media_form(struct cm_str name, enum cm_media_form *out, struct cm_err *err);
/* Only a provider that speaks the dialect can answer it. */
void cm_openai_only_relayed(struct cm_chat *chat);
/* A failure inside a stream, in two spellings. */
void cm_openai_stream_error(void *state, const struct cm_err *err, struct cm_buf *out);
void cm_openai_named_error(void *state, const struct cm_err *err, struct cm_buf *out);
/* `,"name":"value"`; nothing for an empty value. */
void cm_openai_put_member(struct cm_buf *out, struct cm_str name, struct cm_str value);
/* {"error":{…}} with all four members. */
void cm_openai_put_error(const struct cm_err *err, struct cm_buf *out);

/* compat.c: name in function names, enum cm_compat, what reads a request */
#define CM_COMPAT_DIALECTS(X)                                                                      \
    X(hix, CM_COMPAT_HIXAI2API, cm_openai_chat_parse)                                              \
    X(genspark, CM_COMPAT_GENSPARK2API, cm_openai_chat_parse)                                      \
    X(alexsidebar, CM_COMPAT_ALEXSIDEBAR2API, cm_compat_alexsidebar_parse)
int cm_compat_alexsidebar_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);
#define X(name, id, parse)                                                                         \
    void cm_compat_##name##_error(const struct cm_err *err, struct cm_buf *out);                   \
    int cm_compat_##name##_status(const struct cm_err *err);                                       \
    void cm_compat_##name##_stream_error(void *state, const struct cm_err *err, struct cm_buf *out);
CM_COMPAT_DIALECTS(X)
#undef X
/* genspark2api's pictures and videos */
void cm_compat_media_error(const struct cm_err *err, struct cm_buf *out);
int cm_compat_media_status(const struct cm_err *err);
/* … and of videos, where a wrong model has words of its own */
void cm_compat_video_error(const struct cm_err *err, struct cm_buf *out);
int cm_compat_video_status(const struct cm_err *err);
extern const struct cm_surface cm_surface_compat_images, cm_surface_compat_videos;
/* openai_chat.c: the surface with these; by enum cm_compat, the first is empty. */
extern const struct cm_surface cm_surfaces_compat[];

#endif
