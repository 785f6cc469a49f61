/* What a stream has said so far, event by event, for clients that come back. Pure: no clock, no socket. Loop thread only.
 *
 * Events are numbered from 0 without gaps. A reader begins at any number that is still there and takes one event after the other at its own pace; what is
 * appended meanwhile follows. That is all there is to "replay, then follow": no step lies between the two in which something could be lost or doubled.
 *
 * Memory is bounded for each log and for all of a shelf. What does not fit makes room in this order:
 *   1. of other logs: those that have ended and have no reader, the one that ended first first, wholly;
 *   2. of this log: its oldest events, if there are readers and all of them have taken these. Without a reader nothing goes: what the last one was given
 *      may have been lost on its way;
 *   3. of a log that may lose events: its oldest, read or not. Readers that have not taken them are lost.
 * An event that fits in memory that is there needs no room. When all that is not enough the append fails and the log stays as it is: its owner ends the stream, and says why. */
#ifndef CHATMUX_GATEWAY_EVENTLOG_H
#define CHATMUX_GATEWAY_EVENTLOG_H

#include "chatmux/base/list.h"
#include "chatmux/base/str.h"

struct eventlog_segment;

/* Where logs share their memory. Zeroed but for `ended`: see eventlog_shelf_init(). */
struct eventlog_shelf {
    size_t bytes,
        max_bytes; /* of all logs, their own bookkeeping included; may be changed at any time and counts when memory is taken next */
    struct cm_list ended; /* logs, the one that ended first first */
    uint64_t evicted;     /* events that were given up to make room, read or not */
};

struct eventlog {
    struct eventlog_shelf *shelf;
    struct eventlog_segment **segments; /* oldest first */
    size_t n_segments, cap_segments;
    uint64_t first, next;   /* the oldest that is there; the number of the next one */
    size_t bytes;           /* allocated */
    struct cm_list readers; /* struct eventlog_reader */
    struct cm_list link;    /* in shelf->ended */
    bool lossy;             /* may lose what nobody has read: the owner has the whole elsewhere */
};

struct eventlog_reader {
    struct cm_list link;  /* in log->readers */
    struct eventlog *log; /* NULL: attached to none */
    uint64_t next;        /* what it takes next */
    bool lost;            /* that is not there any more */
};

void eventlog_shelf_init(struct eventlog_shelf *shelf);

void eventlog_init(struct eventlog *log, struct eventlog_shelf *shelf, bool lossy);
void eventlog_clear(struct eventlog *log); /* frees; readers must be gone */
/* Copies the event. max_bytes: of this log alone. -1: there is no room. */
int eventlog_append(struct eventlog *log, struct cm_str event, size_t max_bytes);
/* Drops the oldest events as far as all readers have taken them, until the log has at most so many bytes. */
void eventlog_trim(struct eventlog *log, size_t bytes);
/* Nothing more is appended: from now on it may be evicted for others. */
void eventlog_end(struct eventlog *log);

/* Begins with number `from`: at least log->first, at most log->next, which the caller has checked. */
void eventlog_attach(struct eventlog *log, struct eventlog_reader *r, uint64_t from);
/* The next event, valid until the next append or end; false when all were taken, or `lost`. */
bool eventlog_take(struct eventlog_reader *r, struct cm_str *event);
void eventlog_detach(struct eventlog_reader *r); /* safe on one that is attached to none */

#endif
