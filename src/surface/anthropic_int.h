/* The parts of the Messages surface. Loop thread only. */
#ifndef SURFACE_ANTHROPIC_INT_H
#define SURFACE_ANTHROPIC_INT_H

#include "fields_int.h"

#include "chatmux/base/map.h"
#include "chatmux/surface/surface.h"

/* ---- parsing ---- */

struct cm_anthropic_reader {
    struct cm_chat *chat;
    struct cm_err *err;
    /* lists while they grow: their lengths are the client's choice */
    struct cm_buf parts, inner, msgs, tools;
    struct cm_map calls; /* ids of the latest assistant message's calls that have no result yet */
};

/* The first thing that only Anthropic itself understands. */
void cm_anthropic_untranslatable(struct cm_anthropic_reader *r, const struct cm_spot *at,
                                 const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Moves a grown list of items of `size` bytes into the arena. */
void *cm_anthropic_settle(struct cm_anthropic_reader *r, struct cm_buf *list, size_t size,
                          size_t *n);
/* The life time of a breakpoint: {"type":"ephemeral","ttl":…}. */
int cm_anthropic_read_cache(struct cm_anthropic_reader *r, yyjson_val *v, const struct cm_spot *at,
                            struct cm_str *out);
/* anthropic_blocks.c: `system` and `messages` into chat->msgs. */
int cm_anthropic_read_system(struct cm_anthropic_reader *r, yyjson_val *system);
int cm_anthropic_read_messages(struct cm_anthropic_reader *r, yyjson_val *messages);

/* anthropic_parse.c */
int cm_anthropic_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);
int cm_anthropic_count_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);

/* ---- writing (anthropic_write.c): the whole answer, and what it has in common with the stream ---- */

void cm_anthropic_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                        struct cm_buf *out);
void cm_anthropic_count_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                              struct cm_buf *out);
/* Whether the client is to see the model's reasoning. */
bool cm_anthropic_shows_thinking(const struct cm_answer_meta *meta);
/* "stop_reason":…,"stop_sequence":…,"stop_details":… */
void cm_anthropic_put_stop(struct cm_buf *out, enum cm_finish finish, struct cm_str text,
                           bool has_calls);
/* The members that message_delta has, too; without braces. */
void cm_anthropic_put_usage(struct cm_buf *out, const struct cm_usage *usage);
/* {"type":"tool_use","id":…,"name":…,"input": */
void cm_anthropic_put_call(struct cm_buf *out, struct cm_str id, struct cm_str name);
int cm_anthropic_error_status(const struct cm_err *err);
void cm_anthropic_put_error(const struct cm_err *err, struct cm_buf *out);

#endif
