/* What the files of kept streams share. */
#ifndef CHATMUX_RESUME_INT_H
#define CHATMUX_RESUME_INT_H

#include "chatmux/codec/sse.h"
#include "eventlog.h"
#include "gateway_int.h"

struct owner; /* streams of one client key */

struct resume {
    struct cm_gateway *gw;
    struct cm_map by_id;        /* struct resume_stream */
    struct cm_map by_key;       /* struct owner, by the key's address */
    struct cm_list live, ended; /* struct resume_stream; ended: in the order in which they did */
    size_t n, n_live, followers;
    struct eventlog_shelf shelf;
    struct cm_buf event; /* the one that is being put together */
};

struct resume_stream {
    struct resume *r;
    struct cm_list link; /* in r->live or r->ended */
    struct cm_str id;    /* owned */
    struct owner *owner;
    struct exchange *ex; /* NULL once it has ended */
    const struct cm_surface *dialect;
    enum resume_kind kind;
    struct cm_sse split; /* bytes -> events */
    struct eventlog log;
    struct cm_list followers;
    struct cm_deadline due; /* keep-alives; nobody is there; it has been kept long enough */
    struct cm_task full;    /* ends the exchange: there was no room */
    size_t extra;           /* bytes above the bounds, at its end */
    uint64_t said_ms;       /* latest event; of an ended stream: since when it is kept */
    bool begun, clean;
    bool paused;    /* the upstream: its readers are as far behind as they may be */
    bool overflown; /* an event is missing at the end */
};

struct follower {
    struct eventlog_reader reader;
    struct cm_list link; /* in stream->followers */
    struct resume_stream *s;
    struct cm_req *req;
    uint64_t seen; /* of an ended stream: where it was when the clock was last asked */
};

static inline struct resume_stream *resume_stream_at(struct cm_list *link)
{
    return CM_LIST_ITEM(link, struct resume_stream, link);
}
static inline struct follower *resume_follower_at(struct cm_list *link)
{
    return CM_LIST_ITEM(link, struct follower, link);
}
static inline struct cm_loop *resume_loop(const struct resume_stream *s)
{
    return s->r->gw->host->loop;
}
static inline const struct cm_config *resume_config(const struct resume *r)
{
    return r->gw->now->config;
}

/* ---- resume.c ---- */

void resume_arm(struct resume_stream *s); /* its clock, for what it waits for next */

/* ---- resume_follow.c: the clients ---- */

void resume_hang_up(struct follower *f, bool clean); /* its connection ends, and it is gone */
void resume_feed(struct resume_stream *s); /* each gets what it can take; some may be over then */
/* Readers of a stream are so slow that its log is nearly full: the upstream has to wait for them, as it has not until now. */
void resume_mind_bound(struct resume_stream *s);

/* ---- resume_write.c: the exchange's side ---- */

void resume_on_full(void *stream); /* ends the exchange: there was no room for an event */

#endif
