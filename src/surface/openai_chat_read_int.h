/* What the readers of a chat completion's body have in common. Pure; a body above 256 KiB is read on
 * another thread. */
#ifndef SURFACE_OPENAI_CHAT_READ_INT_H
#define SURFACE_OPENAI_CHAT_READ_INT_H

#include "fields_int.h"

#include "chatmux/base/map.h"

struct cm_openai_reader {
    struct cm_chat *chat;
    struct cm_err *err;
    /* lists while they grow: their lengths are the client's choice */
    struct cm_buf parts, msgs, tools;
    struct cm_map calls; /* ids of the calls that may be answered now -> with a result or without */
    size_t unanswered;   /* calls among them without a result */
    struct cm_str function_id; /* made up for the last function_call, which has none */
    bool has_tools;            /* the client said so, even if there are none */
};

/* Moves a grown list of items of `size` bytes into the arena. */
void *cm_openai_settle(struct cm_openai_reader *r, struct cm_buf *list, size_t size, size_t *n);
/* Remembers the first thing that the canonical model has no words for. */
void cm_openai_untranslatable(struct cm_openai_reader *r, const struct cm_err *why);
/* The object that `v` has under the key of `spot`; NULL with an error when there is none. */
yyjson_val *cm_openai_part_object(struct cm_openai_reader *r, yyjson_val *v,
                                  const struct cm_spot *spot);

/* openai_chat_messages.c: into chat->msgs; NULL = the client left them out */
int cm_openai_read_messages(struct cm_openai_reader *r, yyjson_val *messages);

/* openai_chat_tools.c: the tools before the choice; NULL = not said */
int cm_openai_read_tools(struct cm_openai_reader *r, yyjson_val *tools, yyjson_val *functions);
int cm_openai_read_tool_choice(struct cm_openai_reader *r, yyjson_val *choice,
                               yyjson_val *function_call);

#endif
