/* What run.c shares with the files beside it. */
#ifndef CHATMUX_RUN_INT_H
#define CHATMUX_RUN_INT_H

#include "chatmux/provider/run.h"
#include "tools_int.h"

/* The part of a run that remember.c and threads.c have. */
struct run_memory {
    struct cm_str owner;  /* digest of provider and secret; in the arena; "" = not made yet */
    struct cm_str client; /* the same of provider and client */
    struct cm_buf
        said; /* the answer's text without white space, once the flow asked for its thread */
    const unsigned char
        *found; /* the key of the conversation that goes on; in the arena; NULL = none */
    bool follows, found_old; /* the second: another gateway led it */
};

/* shape.c's part: how the answer is changed on its way out. */
struct run_shape {
    bool silent;  /* no reasoning, no citations */
    bool fold;    /* reasoning is text in a block that pages fold */
    bool folding; /* and it is open */
    bool tools;   /* calls are read out of the text */
    /* Citations name places in the text as the platform wrote it: what stands in front of them besides. */
    struct run_folded {
        int64_t at, chars; /* characters: of the platform's text before the block; of the block */
    } blocks[8];
    size_t n_blocks;
    bool lost_places; /* there were more blocks */
    int64_t text_chars;
    struct tools_reader reader;
};

#define FLIGHTS(X) X(NONE) X(FETCH) X(STREAM) X(WS) X(SLEEP) X(COMPUTE)
enum flight {
#define X(name) FLIGHT_##name,
    FLIGHTS(X)
#undef X
};

/* A computation outlives its run when the thread has not let go yet. */
struct run_job {
    struct cm_job job;  /* first: what the lanes hand around */
    struct cm_run *run; /* NULL: the run has ended */
    void (*fn)(void *arg, const atomic_bool *cancelled);
    void *arg;
    void (*drop)(void *arg);
};

struct cm_run {
    const struct cm_host *host; /* not owned */
    struct cm_run_setup setup;  /* copy; never changed */
    const struct cm_run_cb *cb; /* NULL once closed */
    void *arg;
    void (*released)(void *arg);
    void *released_arg;
    struct cm_arena arena;
    void *state; /* the flow's, in the arena */
    struct cm_task start;
    struct cm_deadline
        clock; /* the nearest of all clocks; moved when it fires, not with every byte */

    enum flight flight;
    struct cm_xfer *xfer; /* FETCH, STREAM, or lingering after the end */
    struct cm_ws *ws;
    struct run_job *job;
    int reply_status; /* FETCH: head and body collected so far */
    struct cm_header *reply_headers;
    size_t n_reply_headers;
    struct cm_buf reply;

    uint64_t began_ms, call_ms; /* monotonic: of the run, of what is in flight */
    uint64_t byte_ms;           /* last sign of life of what is in flight */
    uint64_t timer_ms;          /* SLEEP: when it is over */
    uint64_t stop_ms;           /* when the farewell began */
    int64_t call_timeout_ms;    /* FETCH, or a stream that is one long wait */
    uint64_t began_us, first_byte_us, semantic_us, bytes_up, bytes_down;
    uint64_t connect_us; /* of calls that are over */

    unsigned refs, depth; /* depth: steps of this run on the stack */
    bool head_seen, long_wait, lands, stop_owed, paused, timer_due, emitted;
    bool pinged;             /* since byte_ms */
    bool session;            /* what is in flight is one, and open: see cm_run_say() */
    bool lends_chat;         /* the body of what is in flight is the chat's own */
    bool answered, end_told; /* the client has all, the flow goes on without it; the owner knows */
    bool spare, spared;      /* the credential may serve others; it does */
    struct cm_str
        refused; /* `strict` is set, and this member, as the client calls it, has no effect */
    bool flow_done, stopping, closed, gone; /* gone: the credential was released */
    struct run_memory memory;
    struct run_shape *shape; /* in the arena; NULL: the answer goes out as it is */
};

/* ---- run.c ---- */

const char *run_state_name(const struct cm_run *run); /* of the flow, for people */
const struct cm_upstream_conf *run_conf(const struct cm_run *run);
void run_trace(const struct cm_run *run, struct cm_trace t);
/* The nearest clock is set; after anything that moves one. */
void run_clock_arm(struct cm_run *run);
/* Ends whatever is in flight. */
void run_drop_flight(struct cm_run *run);
void run_spare_credential(struct cm_run *run); /* see cm_run_spare() */
extern const struct cm_xfer_cb run_xfer_cb;
extern const struct cm_ws_cb run_ws_cb;
void run_job_work(struct cm_job *job);
void run_job_done(struct cm_job *job);

/* ---- shape.c ---- */

/* Where the target or tools want it; `chat` is then another one. */
void run_shape_init(struct cm_run *run);
void run_shape_clear(struct cm_run *run);
void run_shape(struct cm_run *run, const struct cm_event *ev);
/* Whether the flow sees this chat as tools_as_text(). */
bool run_emulates_tools(const struct cm_instance *in, const struct cm_chat *chat);

/* ---- run_ask.c, remember.c, threads.c ---- */

void run_emit(struct cm_run *run, const struct cm_event *ev); /* as it is */

struct run_memory *run_memory(struct cm_run *run);
struct cm_memo *run_memo(const struct cm_run *run); /* NULL: nothing is remembered */
const struct cm_keeper *run_keeper(const struct cm_run *run);
bool run_is_closed(const struct cm_run *run);
/* Who an account is: a digest of provider and secret. */
struct cm_str run_owner(struct cm_run *run);
/* Text without its white space: clients trim and re-indent what they send back. */
void run_put_dense(struct cm_buf *out, struct cm_str text);
/* An event of the answer, while the flow follows its thread. */
void run_memory_heard(struct run_memory *m, const struct cm_event *ev);

#endif
