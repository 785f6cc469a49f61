/* Tools for platforms that know none: told in the prompt, and calls read out of the answer's text (tools.c). Loop thread only. */
#ifndef CHATMUX_TOOLS_INT_H
#define CHATMUX_TOOLS_INT_H

#include "chatmux/chat/event.h"

#define TOOLS_CALL_BEGIN "<tool_call>"
#define TOOLS_CALL_END "</tool_call>"

/* The client offers tools and lets the model choose. */
bool tools_are_wanted(const struct cm_chat *chat);
/* A copy in the arena without tools: a system text in front says which there are and how they are called; earlier calls and their results are text. */
struct cm_chat *tools_as_text(struct cm_arena *arena, const struct cm_chat *chat);
/* A call as the model is told to write it. */
void tools_put_call(struct cm_buf *out, struct cm_str name, struct cm_str arguments);

/* One piece of an answer's text, as the reader finds it. */
struct tools_found {
    struct cm_str text;            /* plain text, or "" and a call: */
    struct cm_str name, arguments; /* arguments: JSON */
};
typedef void tools_found_fn(void *arg, const struct tools_found *found);

/* Reads text in pieces of any size. Held back is only what may be the beginning of a call, some white space before it included. What looks like a call
 * and is none, or names no tool of the request, is text; where there is too much of that, all is. */
struct tools_reader {
    struct cm_str *names; /* of the request's tools; in the arena */
    size_t n_names;
    bool only_one; /* of calls in an answer */
    struct cm_buf held;
    size_t done;       /* bytes of `held` that were told; 0 between two pieces */
    bool in_call;      /* the rest is white space, TOOLS_CALL_BEGIN and what followed so far */
    bool behind_call;  /* nothing but white space came since a call */
    size_t json_at;    /* in_call: where in the rest its JSON begins */
    size_t looked;     /* in_call: bytes of the rest that hold no end */
    unsigned ends;     /* in_call: ends that were none */
    unsigned calls;    /* found */
    unsigned no_calls; /* blocks that were none */
};
void tools_reader_init(struct tools_reader *r, struct cm_arena *arena, const struct cm_chat *chat);
void tools_read(struct tools_reader *r, struct cm_str text, tools_found_fn *fn, void *arg);
void tools_read_end(struct tools_reader *r, tools_found_fn *fn, void *arg);
void tools_reader_clear(struct tools_reader *r);

#endif
