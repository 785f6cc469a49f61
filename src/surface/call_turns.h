/* Calls of a streamed answer in a dialect that has one at a time: those whose arguments an upstream sends alternately wait for their turn, and a call's
 * turn is over when its arguments are a whole JSON value. Loop thread only. */
#ifndef SURFACE_CALL_TURNS_H
#define SURFACE_CALL_TURNS_H

#include "chatmux/base/buf.h"
#include "chatmux/chat/event.h"
#include "whole_json.h"

struct cm_turn_call {
    struct cm_str id, name; /* owned */
    struct cm_buf held;     /* arguments, before its turn */
    bool begun;
    struct cm_whole_json args; /* those that were sent */
};

/* Zeroed memory has no calls. */
struct cm_call_turns {
    struct cm_turn_call *calls; /* owned */
    size_t n, current;          /* current: the one that began last */
};

void cm_call_turns_clear(struct cm_call_turns *t); /* as zeroed memory */

/* A CALL event; one that is known already changes nothing. Its place is checked by the gateway. */
void cm_call_turns_add(struct cm_call_turns *t, const struct cm_event *ev);
/* The call that may begin next; NULL = none. `waits`: the current one is open, and nothing begins before it is whole. */
struct cm_turn_call *cm_call_turns_next(const struct cm_call_turns *t, bool waits);
/* It begins, after the current one was closed: from now on it is the current one. */
void cm_call_turns_begin(struct cm_call_turns *t, struct cm_turn_call *c);
/* An ARGS event: the call that they are to be written for now, else NULL: it has not begun, and they are held, or it is over. `open`: the current one is. */
struct cm_turn_call *cm_call_turns_args(struct cm_call_turns *t, const struct cm_event *ev,
                                        bool open);

#endif
