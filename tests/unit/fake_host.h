/* A run on a real loop and a transport in the test's hand: it sees what an adapter asks, answers in pieces of any size, and collects what it says.
 * (fake_run.h plays whole answers; here a test may stop and look between two bytes.) */
#ifndef CHATMUX_TEST_FAKE_HOST_H
#define CHATMUX_TEST_FAKE_HOST_H

#include "chatmux/provider/run.h"
#include "chatmux/surface/surface.h"

/* How a scripted answer goes on after its bytes. */
enum fake_rest {
    FAKE_COMPLETE, /* ends by its framing */
    FAKE_BREAKS,   /* CM_ERR_CUT */
    FAKE_NOTHING,  /* not even a head: CM_ERR_UPSTREAM_DOWN */
    FAKE_SILENT    /* stays open */
};

struct fake_answer {
    int status;
    const char *headers; /* "Name: value\n" for each; NULL = none */
    struct cm_str body;
    enum fake_rest rest;
};

/* What an adapter asked for. */
struct fake_call {
    bool ws;
    struct cm_str method, url, headers, body; /* in the fake's arena; headers as in fake_answer */
    struct cm_str isolation, proxy;
};
#define FAKE_CALLS_MAX 16

struct fake {
    /* For the test to fill in between fake_init() and fake_open(). */
    struct cm_provider_conf conf;
    struct cm_instance instance; /* fake_use() fills it for a real adapter */
    const struct cm_flow *flow;
    struct cm_cred cred;
    struct cm_str scope;              /* who the client is */
    const struct cm_surface *surface; /* that it speaks; NULL = chat completions */
    const char *path;                 /* what the route's * matched; NULL = nothing */
    const char *query;                /* of the URL; NULL = none */
    int64_t ping_ms;                  /* of sessions */
    struct cm_target target;
    const struct fake_answer
        *answers; /* the n-th call gets the n-th; NULL = by hand, with the functions below */
    size_t n_answers;
    size_t piece; /* bytes in one piece of a scripted body; 0 = all */
    void (*on_event)(struct fake *f,
                     const struct cm_event *ev); /* after it was collected; NULL = nothing */
    void (*on_batch)(struct fake *f);
    void (*on_end)(struct fake *f);
    void (*on_dropped)(struct fake *f, struct cm_str field); /* a member without effect */
    void (*on_spared)(struct fake *f); /* the credential serves others, and its texts may go */

    /* What the adapter asked. */
    struct fake_call calls[FAKE_CALLS_MAX];
    size_t n_calls;
    struct cm_xfer *xfer; /* the open transfer; NULL = none */
    struct cm_ws *ws;
    bool held;             /* the open transfer or connection is paused */
    struct cm_buf ws_sent; /* messages, LF behind each */
    size_t ws_queued;      /* for the test: what the next cm_run_say() is told to wait */
    unsigned ws_pings, n_drains;
    int ws_code; /* of the close frame that was sent; 0 = none */
    struct cm_buf ws_reason;

    /* What it said. */
    struct cm_buf text, relay, models; /* models: LF behind each name */
    struct cm_buf quota, token;        /* the last ones */
    struct cm_usage usage;
    unsigned n_events, n_semantic, n_usages, n_batches, n_heads;
    size_t relay_before; /* bytes relayed before the first event that means something */
    int head_status;
    bool ended;
    struct cm_err err; /* of on_end */
    unsigned n_released, n_spared;

    /* The machine. */
    struct cm_loop *loop;
    struct cm_jobs *jobs;
    struct cm_host host;
    struct cm_run *run; /* NULL once closed */
    struct cm_arena arena,
        chat_arena; /* the second ends with cm_run_close(), as an exchange's does */
    struct cm_chat *chat;
    struct cm_list opened; /* every transfer and connection so far */
};

void fake_init(struct fake *f);
/* The instance of a real adapter of that type, from f->conf. */
void fake_use(struct fake *f, const char *type);
/* The request, as a client would write it: in OpenAI's dialect unless f->surface tells another. */
void fake_chat(struct fake *f, struct cm_str body);
/* The same of any surface; content_type NULL = JSON. */
void fake_request(struct fake *f, const struct cm_surface *surface, const char *content_type,
                  struct cm_str body);
void fake_open(struct fake *f);
/* Until on_end, then closes the run and waits for its release. */
void fake_play(struct fake *f);
void fake_close(struct fake *f);
/* Everything is over: no transfer, run, job or handle is left, and the credential was released once. */
void fake_clear(struct fake *f);

void fake_turn(struct fake *f);         /* what has been posted so far runs */
void fake_wait(struct fake *f, int ms); /* the loop runs for so long */

/* By hand, for the open transfer or connection. Slices die with the call, as libcurl's do. */
void fake_head(struct fake *f, int status, const char *headers);
void fake_data(struct fake *f, struct cm_str piece);
void fake_end(struct fake *f);
void fake_fail(struct fake *f, enum cm_err_class cls);
void fake_ws_open(struct fake *f);
void fake_ws_message(struct fake *f, struct cm_str message, bool binary);
void fake_ws_end(struct fake *f, int code);
void fake_ws_fail(struct fake *f, enum cm_err_class cls);
void fake_ws_refuse(struct fake *f, int status, const char *headers);
void fake_ws_pong(struct fake *f);
void fake_ws_drain(struct fake *f);

/* A file below tests/fixtures, in the fake's arena; and a text with CR LF for LF. */
struct cm_str fake_fixture(struct fake *f, const char *name);
struct cm_str fake_crlf(struct fake *f, struct cm_str text);

#endif
