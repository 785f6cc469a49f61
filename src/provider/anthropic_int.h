/* The parts of the adapter `anthropic`. Loop thread only. */
#ifndef PROVIDER_ANTHROPIC_INT_H
#define PROVIDER_ANTHROPIC_INT_H

#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/run.h"

/* ---- anthropic_call.c: where calls go, and their heads ---- */

#define ANTHROPIC_HEADERS_MAX 32
struct anthropic_headers {
    struct cm_header v[ANTHROPIC_HEADERS_MAX];
    size_t n;
};
void anthropic_add_header(struct anthropic_headers *h, struct cm_str name, struct cm_str value);
/* Who asks, in which version of the dialect, with which capabilities: those of the chat's client where it speaks the dialect. `chat` may be NULL. */
void anthropic_credential(struct cm_run *run, const struct cm_chat *chat,
                          struct anthropic_headers *h);
/* "/messages" as a path below the operator's base URL, which may end in /v1, as OpenAI's do, or not, as Anthropic's own clients want it. */
struct cm_str anthropic_path(struct cm_run *run, struct cm_str path, struct cm_str query);

/* ---- anthropic_models.c: what a model takes ---- */

enum anthropic_sampling {
    ANTHROPIC_SAMPLING_ANY,
    ANTHROPIC_SAMPLING_ONE, /* temperature or top_p */
    ANTHROPIC_SAMPLING_NONE /* any value but the default is an error */
};

struct anthropic_caps {
    bool budget;     /* thinking of so many tokens */
    bool adaptive;   /* thinking as the model finds right; preferred where it has both */
    bool always;     /* it thinks whatever is said */
    bool by_default; /* it thinks unless told not to */
    bool effort, effort_xhigh, effort_max;
    bool schema;  /* output_config.format */
    bool prefill; /* the last message may be the assistant's */
    enum anthropic_sampling sampling;
    int64_t max_output; /* tokens; 0 = not known */
};
void anthropic_caps_of(const struct cm_target *target, struct anthropic_caps *out);
/* One entry of GET /v1/models. */
void anthropic_model_row(yyjson_val *model, struct cm_model_row *row);

/* ---- anthropic_schema.c ---- */

/* A JSON Schema reduced to what structured outputs take; what has no place there is told in the
 * descriptions. *changed: it did not hold to the rules. Empty when it is no object. */
struct cm_str anthropic_schema(struct cm_arena *arena, struct cm_str schema, bool *changed);

/* ---- anthropic_request.c, anthropic_messages.c: canonical request -> body ---- */

/* How the model is to think, decided for one request. */
struct anthropic_thinking {
    enum {
        ANTHROPIC_THINKING_UNSAID,
        ANTHROPIC_THINKING_OFF,
        ANTHROPIC_THINKING_BUDGET,
        ANTHROPIC_THINKING_ADAPTIVE
    } kind;
    int64_t budget;
    struct cm_str effort; /* "" = not said */
};

/* The whole body, in the run's arena; *stream: it asks for a stream. CM_ERR_BAD_REQUEST: the dialect has no place for something. */
int anthropic_body(struct cm_run *run, struct cm_str *body, bool *stream, struct cm_err *err);
/* `thinking` of a model that the client asked for by a name with -thinking, as JSON text. */
struct cm_str anthropic_thinking_member(struct cm_run *run);
/* "messages":[…]; *thought: inside a tool loop the last answer's thinking could be put back, or none
 * is needed. */
int anthropic_put_messages(struct cm_run *run, struct cm_buf *out, bool *thought,
                           struct cm_err *err);
/* The client's body without the thinking that this gateway made up for it (it has no signature);
 * empty when there is none. */
struct cm_str anthropic_without_ours(struct cm_run *run);
/* The name of a function as this platform takes it. */
struct cm_str anthropic_name(struct cm_arena *arena, struct cm_str name);

#define ANTHROPIC_NAME_MAX 64
#define ANTHROPIC_ID_MAX 64

/* ---- anthropic_usage.c ---- */

/* A `usage` object: members that are there replace what was known before. */
void anthropic_read_usage(yyjson_val *usage, struct cm_usage *out);
/* That of message_start: what went in counts although the answer may break off. */
void anthropic_begin_usage(struct cm_run *run, yyjson_val *root, struct cm_usage *out);

/* ---- anthropic_answer.c: an answer -> canonical events ---- */

struct anthropic_answer {
    /* from the request, because chat and target may go in the middle of a step */
    struct cm_str model;
    struct anthropic_renamed { /* functions whose names had to be spelled otherwise */
        struct cm_str sent, name;
    } *renamed;
    size_t n_renamed;
    bool keeps; /* there are tools: thinking may have to come back */

    struct cm_usage usage;
    bool whole; /* it came at once, calls with their input */
    bool done;  /* all of it was told */
    enum cm_finish finish;
    struct cm_str finish_text; /* in the run's arena */
    int64_t block;             /* index of the open block */
    enum anthropic_block {     /* its type */
                           ANTHROPIC_NO_BLOCK,
                           ANTHROPIC_TEXT,
                           ANTHROPIC_THINKING,
                           ANTHROPIC_CALL,
                           ANTHROPIC_OTHER
    } kind;
    int n_calls;
    bool has_input;                    /* the open call began with its whole input */
    struct cm_buf text, thought, args; /* of the open block */
    struct cm_str signature;           /* in the run's arena */
    struct cm_str name, id;            /* of the open call; in the run's arena */
    struct cm_buf content;             /* the blocks so far, as they have to come back */
    struct cm_buf all_text, ids;       /* of the message: to know it again */
    struct cm_str first_id;            /* in the run's arena */
    bool sealed;                       /* there was thinking: `content` is worth keeping */
};
void anthropic_answer_begin(struct cm_run *run, struct anthropic_answer *a); /* at START */
/* One event of the stream. -1: *err is filled. */
int anthropic_event(struct cm_run *run, struct anthropic_answer *a, yyjson_val *root,
                    struct cm_err *err);
/* A whole message. */
void anthropic_message(struct cm_run *run, struct anthropic_answer *a, yyjson_val *root);
void anthropic_answer_clear(struct anthropic_answer *a);
/* The blocks of an earlier answer as the platform gave them, "" when they are not known any more or
 * the client has changed its message. JSON objects with commas between. */
struct cm_str anthropic_kept(struct cm_run *run, const struct cm_msg *msg);

/* ---- anthropic_errors.c ---- */

struct anthropic_refusal {
    int status; /* 0 = the error came inside a 200 */
    int retry_after_s;
};
void anthropic_refusal_read(struct anthropic_refusal *r, int status,
                            const struct cm_header *headers, size_t n, int64_t now_unix_ms);
/* What an upstream's `error` object means; `error` NULL: nothing readable came. Returns -1. */
int anthropic_refused(struct cm_run *run, const struct anthropic_refusal *r, yyjson_val *error,
                      struct cm_err *err);

/* ---- anthropic_pass.c: what nobody here reads ---- */

struct anthropic_pass {
    struct anthropic_refusal refusal;
    bool asks_batches;  /* what the client asked for */
    bool refused;       /* the answer is an error of which the client is told otherwise */
    bool batches;       /* … is JSON about batches */
    struct cm_buf body; /* of those two */
};
/* A whole flow: the request as it came with a credential of ours, the answer as it comes. */
enum cm_step anthropic_pass_step(struct cm_run *run, struct anthropic_pass *p,
                                 const struct cm_ev *ev, struct cm_err *err);

#endif
