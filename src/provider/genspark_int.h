/* What the files of the genspark adapter share. Loop thread only. Wire facts: genspark protocol notes.
 *
 *     genspark.c         the flow: create, verify, ask, delete, and what is tried again
 *     genspark_conf.c    options, what a model's name stands for     genspark_table.h   the models
 *     genspark_call.c    headers, small calls                        genspark_cookie.c  cookies
 *     genspark_chats.c   chats that go on                            genspark_parts.c   pictures and files in messages
 *     genspark_body.c    what is asked                               genspark_stream.c  what is answered
 *     genspark_media.c   pictures and videos: jobs and what they made
 *     genspark_refuse.c  what a refusal means                        genspark_probe.c   is the account fit, what has it left */
#ifndef CHATMUX_PROVIDER_GENSPARK_INT_H
#define CHATMUX_PROVIDER_GENSPARK_INT_H

#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/attach.h"
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

static inline bool genspark_makes_media(enum genspark_kind kind)
{
    return kind == GENSPARK_IMAGE || kind == GENSPARK_VIDEO;
}

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

/* ---- genspark_conf.c ---- */

struct genspark;

struct genspark_bound { /* a model whose requests go on in one project */
    struct cm_str model, project;
};
struct genspark_conf { /* cm_instance.options: what has to be read but once */
    enum genspark_dialect dialect;
    struct cm_str *mixture; /* at least one */
    size_t n_mixture;
    struct genspark_bound *bound;
    size_t n_bound;
    struct genspark_bound *sessions; /* x.session_image_chat_map: `model` is a session_id */
    size_t n_sessions;
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

#define GENSPARK_JOBS_MAX 16
struct genspark_job { /* one picture or video that the site is making */
    struct cm_str id, url, prompt;
    struct cm_str model; /* as told; "" = not told */
    bool over;           /* made, or failed: then without a url */
};

struct genspark_answer {
    struct cm_sse sse;
    enum genspark_dialect dialect;
    bool search;
    struct cm_buf raw;     /* what came before the first event: a refusal, if none comes */
    bool any;              /* an event came */
    bool finished;         /* the platform's end mark came */
    bool result;           /* a complete message of the assistant came */
    bool retired;          /* copilot: see genspark_retired() */
    bool media;            /* jobs are what matters, not text */
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
    struct genspark_job *jobs;
    size_t n_jobs;
    struct cm_usage usage;
};

void genspark_answer_begin(struct genspark_answer *a, const struct genspark_ask *ask);
void genspark_answer_clear(struct genspark_answer *a);
/* -1: the platform told a failure. `finished` then and after: call genspark_answer_end(). */
int genspark_answer_feed(struct cm_run *run, struct genspark_answer *a, int status,
                         struct cm_str piece, struct cm_err *err);
/* The end of the stream, or of what matters of it: what was held goes out, or -1 and why not. */
int genspark_answer_end(struct cm_run *run, struct genspark_answer *a, int status,
                        int retry_after_s, struct cm_err *err);

/* ---- genspark_body.c ---- */

/* In the run's arena. */
struct cm_str genspark_chat_body(struct cm_run *run, const struct genspark *g);
/* The three roles of the site. */
enum cm_role genspark_role(const struct cm_msg *msg);

/* ---- genspark_parts.c ---- */

struct genspark_file { /* a picture or another file in a message */
    const struct cm_part *part;
    struct cm_str data, type; /* base64; by its bytes, else as declared */
    bool is_picture;
    struct cm_str handle; /* of one that was uploaded */
    size_t size;
};
/* Fetches and uploads; DONE: the messages can be written. */
enum cm_step genspark_parts_begin(struct cm_run *run, struct genspark *g, struct cm_err *err);
/* More messages are to be written than before: a chat could not go on. */
enum cm_step genspark_parts_again(struct cm_run *run, struct genspark *g, struct cm_err *err);
enum cm_step genspark_parts_step(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                                 struct cm_err *err);
/* A message's content: its text, or the files of all `msgs` first and the text behind them. */
void genspark_put_content(struct cm_buf *out, const struct genspark *g, struct cm_str text,
                          const struct cm_msg *msgs, size_t n);
bool genspark_has_files(const struct genspark *g, const struct cm_msg *msg);

/* ---- genspark_call.c ---- */

#define GENSPARK_CALL_MS 30000 /* a small call */
#define GENSPARK_TIDY_MS 5000  /* one that nobody waits for */

struct cm_str genspark_option(const struct cm_run *run, const char *name);
bool genspark_option_bool(const struct cm_run *run, const char *name);
bool genspark_option_is(const struct cm_run *run, const char *name, const char *value);

#define GENSPARK_HEADERS_MAX 16
struct genspark_headers {
    struct cm_header v[GENSPARK_HEADERS_MAX];
    size_t n;
};
void genspark_add(struct genspark_headers *h, struct cm_str name,
                  struct cm_str value); /* "" = left out */
/* Those of every call. */
void genspark_headers(struct cm_run *run, const struct genspark_ask *ask, struct cm_str accept,
                      struct genspark_headers *h);
void genspark_add_trace(struct cm_run *run, struct genspark_headers *h);
/* PATH?QUERY=value, PATH being the option `path`. */
struct cm_str genspark_url(struct cm_run *run, const char *path, const char *query,
                           struct cm_str value);
/* Adds the headers, and a time limit where there is none. */
enum cm_step genspark_fetch(struct cm_run *run, const struct genspark_ask *ask,
                            struct cm_call *call);

/* ---- genspark_chats.c ---- */

/* Fills ask.project, goes_on and from when a chat can go on. -1: the client asks for one that cannot (*err). */
int genspark_find_chat(struct cm_run *run, struct genspark *g, struct cm_err *err);
void genspark_tell_chat(struct cm_run *run,
                        const struct genspark *g); /* to the client, before FINISH */
void genspark_keep_chat(struct cm_run *run, const struct genspark *g); /* after FINISH */
/* This account cannot go on in ask.project, for an hour at least: all has to be asked anew. */
void genspark_leave_chat(struct cm_run *run, struct genspark *g);
/* The chat that this run has made; "" = none, or not told yet. */
struct cm_str genspark_own_chat(const struct genspark *g);
/* First message behind the last answer. */
size_t genspark_first_new(const struct cm_chat *chat);

/* ---- genspark_media.c ---- */

/* What is to be made; slices of the chat. */
struct genspark_wish {
    struct cm_str prompt;
    struct cm_msg msg; /* pictures among its parts are worked on */
};
/* From the task, or the last message of a user. -1: *err. */
int genspark_media_wish(struct cm_run *run, struct genspark *g, struct cm_err *err);
struct cm_str genspark_media_body(struct cm_run *run, const struct genspark *g);
/* Jobs that an event told: the list of the agent dialect; JSON text of the copilot dialect. */
void genspark_media_jobs(struct cm_run *run, struct genspark_answer *a, yyjson_val *list);
void genspark_media_copilot_jobs(struct cm_run *run, struct genspark_answer *a, struct cm_str text);
/* Waits for the jobs, fetches what only this account can open, and tells all of it. DONE: told, FINISH is the caller's. */
enum cm_step genspark_media_wait(struct cm_run *run, struct genspark *g, struct cm_err *err);
enum cm_step genspark_media_step(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                                 struct cm_err *err);

/* ---- genspark_probe.c ---- */

#define GENSPARK_PROBES(X) X(BEGIN) X(LOGIN) X(CREDIT) X(PAUSE)
enum genspark_probe_state {
#define X(name) GENSPARK_PROBE_##name,
    GENSPARK_PROBES(X)
#undef X
};
struct genspark_probe {
    enum genspark_probe_state state;
    bool again; /* nothing was left: asked a second time */
};
const char *genspark_probe_state(const void *state);
enum cm_step genspark_probe_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);

/* ---- genspark.c ---- */

#define GENSPARK_STATES(X)                                                                         \
    X(BEGIN)                                                                                       \
    X(FETCH)                                                                                       \
    X(UPLOAD_URL)                                                                                  \
    X(UPLOAD) X(CREATE) X(VERIFY) X(ASK) X(STATUS) X(POLL) X(PAUSE) X(DOWNLOAD) X(ABORT) X(DELETE)
enum genspark_state {
#define X(name) GENSPARK_##name,
    GENSPARK_STATES(X)
#undef X
};

/* What follows when the chat has been deleted. */
enum genspark_then { GENSPARK_THEN_DONE, GENSPARK_THEN_FAIL, GENSPARK_THEN_ASK };

struct genspark { /* the flow's memory */
    enum genspark_state state;
    struct genspark_ask ask;
    struct cm_str made; /* the chat that CREATE has made */
    bool is_theirs;     /* ask.project was given by the operator */
    bool alone;         /* as in cm_thread */
    bool repeated;      /* it was asked a second time, of a new chat */
    bool more;          /* and that one has to hear more: see genspark_parts_again() */
    struct genspark_answer answer;
    int status, retry_after_s; /* of the answer */
    enum genspark_then then;
    struct cm_err failed;   /* told after deleting */
    struct cm_str deleting; /* DELETE: which one */
    unsigned deleted;       /* of earlier ones */

    struct cm_attach attach;
    struct genspark_file *files;
    size_t n_files, file; /* file: the one that is being uploaded */

    struct genspark_wish wish;
    size_t job;         /* whose turn it is */
    int64_t until_ms;   /* Unix: the jobs have to be over by then */
    struct cm_buf line; /* STATUS: a line that has not ended */
    bool told;          /* a picture or video went out */
};

#endif
