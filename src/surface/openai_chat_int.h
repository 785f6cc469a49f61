/* The parts of the chat completions surface. Loop thread only. */
#ifndef SURFACE_OPENAI_CHAT_INT_H
#define SURFACE_OPENAI_CHAT_INT_H

#include "chatmux/surface/surface.h"

/* openai_chat_parse.c */
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
/* "url" or "b64_json" of a request; empty leaves *out alone. */
int cm_openai_media_form(struct cm_str name, enum cm_media_form *out, struct cm_err *err);
/* {"error":{…}} with all four members. */
void cm_openai_put_error(const struct cm_err *err, struct cm_buf *out);

#endif
