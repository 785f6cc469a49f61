/* Streams that survive their client. Loop thread only.
 *
 * A kept stream is an exchange whose answer goes into a log (eventlog.h) instead of a socket. The exchange owns the upstream; clients only follow: each reads
 * the log at its own pace, from whatever number it asks for, and comes and goes as it likes. A slow one holds up neither the upstream nor the others.
 *
 * Life: resume_reserve() before the first attempt takes the place; resume_begin() with the head of the answer hands the client's request over (from now on
 * the exchange has none, and its pieces go to resume_write()); resume_end() when the exchange is done. After that the stream can be read again for resume.keep.
 * An exchange that ends before its head gives its place back.
 *
 * Two kinds. A stream of a chat exists for its readers: events that nobody has read are never dropped. When they become too many its upstream is paused
 * if somebody reads, and else the stream ends with an error. Without any client it goes on for resume.away and ends then; when the gateway drains, at once. A background job (`job`) has its result
 * elsewhere: its oldest events may be lost, nobody need listen, and a drain waits for it.
 *
 * Who asks is known by his key; a stream of another key is not there. */
#ifndef CHATMUX_GATEWAY_RESUME_H
#define CHATMUX_GATEWAY_RESUME_H

#include "chatmux/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_gateway;
struct cm_key;
struct exchange;
struct resume;        /* all of a gateway */
struct resume_stream; /* one */

struct resume *resume_new(struct cm_gateway *gw);
void resume_free(struct resume *r); /* no exchange is left, and no connection; NULL is fine */

enum resume_kind {
    RESUME_STREAM, /* each event gets a line `id: STREAM:NUMBER` */
    RESUME_JOB     /* its events are numbered already */
};

/* A place for the exchange's stream: ex->kept from now on. `id`: "" = one is made. -1: the key has too many, or all together (CM_ERR_CLIENT_LIMIT, CM_ERR_OVERLOADED);
 * those that have ended make room first. */
int resume_reserve(struct exchange *ex, enum resume_kind kind, struct cm_str id,
                   struct cm_err *err);
struct cm_str resume_id(const struct resume_stream *s);

/* ---- for the exchange ---- */

/* The answer begins. Its head has been sent to ex->req, which follows from now on; without one nobody does yet. */
void resume_begin(struct exchange *ex);
bool resume_begun(const struct resume_stream *s);
uint64_t resume_next(const struct resume_stream *s); /* number of the next event */
/* Server-sent events, cut anywhere. The exchange may be ended by it on a later turn: there was no room. */
void resume_write(struct resume_stream *s, struct cm_str bytes);
void resume_flush(struct resume_stream *s); /* followers are given what they can take */
/* The last event has been written; not clean: a follower's connection ends without its last chunk, today and when it reads again. The exchange forgets it. */
void resume_end(struct exchange *ex, bool clean);
/* It has not begun and will not; the exchange forgets it. */
void resume_drop(struct exchange *ex);

/* ---- for clients ---- */

/* NULL: there is none of that id, or it belongs to another key (NULL = open). */
struct resume_stream *resume_find(struct resume *r, struct cm_str id, const struct cm_key *key);
bool resume_is_job(const struct resume_stream *s);
struct exchange *resume_exchange(const struct resume_stream *s); /* NULL: it has ended */
/* Whether event `from` can be read, now or later. -1: it was dropped (CM_ERR_NOT_FOUND with status 410), or is beyond what there is (CM_ERR_BAD_REQUEST). */
int resume_check(const struct resume_stream *s, uint64_t from, struct cm_err *err);
int resume_expired(struct cm_err *err, const char *instead); /* says so; -1 */
/* The exchange's request follows from `from` on, which has been checked; its head has been sent. */
void resume_follow(struct resume_stream *s, struct exchange *ex, uint64_t from);
/* "N" or "STREAM:N" of Last-Event-ID -> the number after it. -1: neither, or of another stream (CM_ERR_BAD_REQUEST). */
int resume_after(const struct resume_stream *s, struct cm_str last_event_id, uint64_t *from,
                 struct cm_err *err);
/* Ends it, if it runs: the upstream is closed, and followers get an error. Then it is forgotten. */
void resume_cancel(struct resume_stream *s);

/* ---- for the gateway ---- */

/* No new connections come any more: streams that nobody follows end. */
void resume_drain(struct resume *r);
size_t resume_running(const struct resume *r); /* those that have begun and not ended */

struct resume_figures {
    size_t running, ended; /* reserved places count among the running */
    size_t bytes;          /* of all logs */
    size_t followers;
    uint64_t evicted; /* events given up to make room */
};
void resume_figures(const struct resume *r, struct resume_figures *out);

/* ---- streams.c: the routes, and the headers that ask for it ---- */

/* A streamed request that names the last event it has read: it follows that stream, or is told why it cannot, and the exchange is over. false: it is a new one. */
bool streams_again(struct exchange *ex);
/* A streamed request that wants to be kept gets its place. CM_ERR_BAD_REQUEST, and as resume_reserve(). */
int streams_keep(struct exchange *ex, struct cm_err *err);
/* The event with which a GET wants to begin: behind the one that Last-Event-ID or ?starting_after names, else the first. As resume_after() and resume_check(). */
int streams_from(struct exchange *ex, const struct resume_stream *s, uint64_t *from,
                 struct cm_err *err);
/* The head, and the events from there on; the exchange is over. */
void streams_follow(struct exchange *ex, struct resume_stream *s, uint64_t from);
struct respond;
void streams_head(struct respond *r); /* headers of every event stream */
struct cm_str streams_query(struct exchange *ex, struct cm_str name); /* decoded; "" = absent */
void serve_stream(struct exchange *ex, struct cm_str id);             /* GET */
void serve_stream_cancel(struct exchange *ex, struct cm_str id);      /* DELETE */

#endif
