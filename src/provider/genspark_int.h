/* What the files of the genspark adapter share. Loop thread only.
 *
 * genspark.c drives the flow, genspark_conf.c reads options and models, genspark_cookie.c keeps the cookies, genspark_body.c writes what is asked,
 * genspark_stream.c reads what is answered, genspark_refuse.c knows what a refusal means. Wire facts: genspark protocol notes. */
#ifndef CHATMUX_PROVIDER_GENSPARK_INT_H
#define CHATMUX_PROVIDER_GENSPARK_INT_H

#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/run.h"

/* cm_model_row.number: what a model makes. 0 is a text model that the operator has listed. */
enum genspark_kind {
    GENSPARK_LISTED,
    GENSPARK_TEXT,
    GENSPARK_MIXTURE,
    GENSPARK_IMAGE,
    GENSPARK_VIDEO
};

/* The two request dialects (protocol notes, section 0). */
enum genspark_dialect { GENSPARK_AGENT, GENSPARK_COPILOT };

/* ---- genspark_conf.c ---- */

struct genspark_bound { /* a model whose requests go on in one project */
    struct cm_str model, project;
};
struct genspark_conf { /* cm_instance.options: what has to be read but once */
    enum genspark_dialect dialect;
    struct cm_str *mixture; /* at least one */
    size_t n_mixture;
    struct genspark_bound *bound;
    size_t n_bound;
    struct cm_msg *pre; /* x.pre_messages */
    size_t n_pre;
    struct cm_str verifier_url; /* "" = none; without a slash at its end */
};

extern const struct cm_option genspark_options[];

int genspark_configure(struct cm_instance *in, struct cm_problems *problems);
const struct genspark_conf *genspark_conf_of(const struct cm_run *run);
/* What the target stands for and the platform's name of it. */
enum genspark_kind genspark_model(struct cm_run *run, struct cm_str *model);
/* "NAME=PROJECT,…": x.model_chat_map. -1 with a sentence in *err; memory in the arena. */
int genspark_read_map(struct cm_arena *arena, struct cm_str text, struct genspark_bound **out,
                      size_t *n, struct cm_err *err);

/* ---- genspark_cookie.c ---- */

/* A bare value gets its name; what names session_id stays as it is, a whole Cookie header too. */
int genspark_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                       struct cm_err *err);
/* The Cookie header: the secret, and what the site has set since. In the run's arena. */
struct cm_str genspark_cookie(struct cm_run *run);
/* Remembers what an answer of the site sets, but for session_id. */
void genspark_cookie_learn(struct cm_run *run, const struct cm_header *headers, size_t n);

/* ---- genspark_refuse.c ---- */

/* An answer that is no stream: fills *err with its class and how long to wait. */
void genspark_refuse(const struct cm_run *run, int status, int retry_after_s, struct cm_str body,
                     struct cm_err *err);

#define GENSPARK_CANNED_CHARS 300 /* what is longer is an answer, whatever it talks about */
/* Could a short answer that begins so still turn out to be a failure? */
bool genspark_suspicious(struct cm_str text);
/* A whole answer of at most GENSPARK_CANNED_CHARS that is a failure told as text: -1 and *err. `served`: the platform named the model that wrote it. */
int genspark_canned(const struct cm_run *run, enum genspark_dialect dialect, struct cm_str text,
                    bool served, struct cm_err *err);
/* The platform has retired the dialect: to be asked in the other one. */
bool genspark_retired(struct cm_str text);
/* x.…_cooldown in whole seconds. */
int genspark_cooldown_s(const struct cm_run *run, const char *option);

/* ---- genspark_stream.c ---- */

struct genspark_answer {
    struct cm_sse sse;
    enum genspark_dialect dialect;
    bool search;
    struct cm_buf raw;     /* what came before the first event: a refusal, if none comes */
    bool any;              /* an event came */
    bool finished;         /* the platform's end mark came */
    bool result;           /* a complete message of the assistant came */
    bool retired;          /* copilot: see genspark_retired() */
    bool said;             /* text went out */
    bool parted;           /* a message has ended: what follows is set apart */
    struct cm_str project; /* of this conversation, told by the stream; "" = not yet */
    struct cm_str served;  /* the model that answered, as told; "" = not told */

    /* the assistant's message that is being said */
    struct cm_str message; /* its id */
    struct cm_buf text;    /* its beginning, until it is clear that it is an answer */
    size_t sent;           /* bytes of `text` that went out */
    bool open;             /* clear: pieces go straight out */
    bool streamed;         /* pieces came; else `whole` is the text */
    struct cm_buf whole;

    struct cm_str *others; /* messages that are not the assistant's: results of tools */
    size_t n_others, cap_others;
    struct cm_citation *citations;
    size_t n_citations;
    struct cm_usage usage;
};

void genspark_answer_begin(struct genspark_answer *a, enum genspark_dialect dialect, bool search);
void genspark_answer_clear(struct genspark_answer *a);
/* -1: the platform told a failure. `finished` then and after: call genspark_answer_end(). */
int genspark_answer_feed(struct cm_run *run, struct genspark_answer *a, int status,
                         struct cm_str piece, struct cm_err *err);
/* The end of the stream, or of what matters of it: what was held goes out, or -1 and why not. */
int genspark_answer_end(struct cm_run *run, struct genspark_answer *a, int status,
                        int retry_after_s, struct cm_err *err);

/* ---- genspark_body.c ---- */

/* A question as it is sent: the conversation from message `from` on; x.pre_messages come before it in a chat that does not go on. */
struct genspark_ask {
    enum genspark_dialect dialect;
    enum genspark_kind kind;
    struct cm_str model, project, token;
    bool search;
    bool
        goes_on; /* the site knows the conversation up to `from`, or (copilot) wants all of it again */
    size_t from;
};
/* In the run's arena. */
struct cm_str genspark_chat_body(struct cm_run *run, const struct genspark_ask *ask);

#endif
