/* The parts of the Responses surface. Loop thread only. */
#ifndef SURFACE_RESPONSES_INT_H
#define SURFACE_RESPONSES_INT_H

#include "fields_int.h"

#include "chatmux/base/map.h"
#include "chatmux/surface/surface.h"

/* ---- parsing ---- */

struct cm_responses_reader {
    struct cm_chat *chat;
    struct cm_err *err;
    /* lists while they grow: their lengths are the client's choice */
    struct cm_buf parts, msgs, tools;
    struct cm_map outputs; /* of calls: struct output by call id */
    bool has_text;         /* `parts` has text of the assistant's */
    size_t n_calls;        /* calls in `parts` */
};

/* responses_parse.c */
int cm_responses_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);
int cm_responses_count_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);
/* The first thing that no provider can be asked for but one that speaks the dialect itself. */
void cm_responses_untranslatable(struct cm_responses_reader *r, const struct cm_err *why);
/* Moves a grown list of items of `size` bytes into the arena. */
void *cm_responses_settle(struct cm_responses_reader *r, struct cm_buf *list, size_t size,
                          size_t *n);

/* responses_items.c: earlier turns and `input` into chat->msgs, behind what is there. */
int cm_responses_read_items(struct cm_responses_reader *r, yyjson_val *input);

/* ---- writing (responses_write.c) ---- */

/* How a response stands, or has ended. */
struct cm_responses_state {
    const char *status;           /* "in_progress", "completed" … */
    const char *incomplete;       /* why it is incomplete; NULL = it is not */
    const struct cm_err *error;   /* NULL = none */
    struct cm_str output;         /* items with commas between */
    const struct cm_usage *usage; /* NULL = not known yet */
};
void cm_responses_put_object(struct cm_buf *out, const struct cm_answer_meta *meta,
                             const struct cm_responses_state *state);
/* {"code":…,"message":…}; null for NULL. */
void cm_responses_put_error(struct cm_buf *out, const struct cm_err *err);
/* completed, or incomplete and why. `refused`: there is a refusal in the model's own words. */
struct cm_responses_state cm_responses_ended(enum cm_finish finish, bool refused);

/* The id of an item: PREFIX, what the response's own id ends in, and its place. Valid until the
 * arena is cleared. */
struct cm_str cm_responses_item_id(struct cm_arena *arena, const char *prefix, struct cm_str id,
                                   size_t index);
/* Whole items. */
void cm_responses_put_reasoning(struct cm_buf *out, struct cm_str id, struct cm_str text);
void cm_responses_put_message(struct cm_buf *out, struct cm_str id, const char *status,
                              struct cm_str parts);
void cm_responses_put_call(struct cm_buf *out, struct cm_str id, const char *status,
                           struct cm_str call_id, struct cm_str name, struct cm_str args);
/* Parts of a message; annotations and logprobs without brackets. */
void cm_responses_put_text(struct cm_buf *out, struct cm_str text, struct cm_str annotations,
                           struct cm_str logprobs);
void cm_responses_put_refusal(struct cm_buf *out, struct cm_str text);
void cm_responses_put_citation(struct cm_buf *out, const struct cm_citation *c);
void cm_responses_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                        struct cm_buf *out);
void cm_responses_count_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                              struct cm_buf *out);
bool cm_responses_shows_reasoning(const struct cm_answer_meta *meta);

#endif
