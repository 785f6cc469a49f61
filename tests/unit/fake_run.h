/* Runs an adapter on the real run.c and a real loop, against scripted replies in pieces of any
 * size. For unit tests. */
#ifndef CHATMUX_TEST_FAKE_RUN_H
#define CHATMUX_TEST_FAKE_RUN_H

#include "chatmux/provider/run.h"
#include "chatmux/surface/surface.h"

enum fake_end {
    FAKE_END,  /* complete by its framing */
    FAKE_CUT,  /* breaks off after the body */
    FAKE_HANG, /* says nothing more */
    FAKE_DOWN  /* no answer at all */
};

/* What the platform answers to one transfer, in the order of the transfers. */
struct fake_reply {
    int status;                        /* 0 = 200 */
    const char *content_type;          /* NULL = none */
    const char *header, *header_value; /* one more header; NULL = none */
    const char *body;                  /* NULL = empty */
    enum fake_end end;
};

#define FAKE_REQUESTS_MAX 16

struct fake_setup {
    const char *type;                 /* of the adapter */
    const char *body;                 /* the client's request, JSON */
    const struct cm_surface *surface; /* it speaks; NULL = chat completions */
    const char *path;                 /* what the route's * matched; NULL = nothing */
    const char *secret;               /* NULL = "secret" */
    const char *token;                /* what refreshing has made of it; NULL = none */
    bool refresh;                     /* runs the flow that makes a token, not the answer */
    const char *errand;               /* "login" or "probe": runs that flow; NULL = neither */
    const char *scope;                /* who the client is; NULL = nobody in particular */
    struct cm_memo *memo;             /* what is remembered from run to run; NULL = nothing */
    const char *const *options;       /* "name", "value", …, NULL */
    const char *const *models;        /* as the operator lists them, …, NULL */
    const struct fake_reply *replies;
    size_t n_replies;
    size_t piece;       /* bytes of a body handed over at once; 0 = all */
    int64_t idle_ms;    /* idle_timeout and first_token_timeout; 0 = 10 s */
    size_t leave_after; /* the client leaves after so many events; 0 = stays */
    size_t pause_after; /* the client is slow for a moment after so many events; 0 = never */
};

struct fake_request {
    struct cm_str method, url, body;
    struct cm_header *headers;
    size_t n_headers;
};

struct fake_result {
    bool done;               /* the flow returned DONE */
    struct cm_err err;       /* when it did not */
    bool released;           /* the client left, and the credential came back */
    struct cm_answer answer; /* events but USAGE, collected; usage is the last one told */
    size_t n_events;
    bool finished_last; /* the last event was FINISH */
    uint64_t took_ms;
    struct cm_str token; /* made by refresh */
    int64_t token_expires_ms;
    struct cm_str quota; /* the last one told */
    struct fake_request requests[FAKE_REQUESTS_MAX];
    size_t n_requests;
    struct cm_arena arena;
};

/* Fails the test when the setup is wrong; the result is cleared with fake_result_clear(). */
void fake_run(const struct fake_setup *setup, struct fake_result *out);
void fake_result_clear(struct fake_result *r);

/* Text of choice 0 as a C string; lives as long as the result. */
const char *fake_text(struct fake_result *r);
const char *fake_reasoning(struct fake_result *r);

#endif
