/* What the files of the gemini adapter share. */
#ifndef PROVIDER_GEMINI_INT_H
#define PROVIDER_GEMINI_INT_H

#include "chatmux/codec/json.h"
#include "chatmux/codec/json_items.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/attach.h"
#include "chatmux/provider/run.h"

/* ---- gemini_model.c: what a model of this name takes ---- */

enum gemini_thinking { GEMINI_NO_THINKING, GEMINI_BUDGET, GEMINI_LEVEL };

struct gemini_traits {
    enum gemini_thinking thinking;
    bool pro;    /* thinking cannot be switched off, fewer levels */
    bool images; /* makes pictures */
    bool json_with_tools, signatures;
    int64_t budget_min, budget_max;
    int64_t max_output; /* tokens of an answer; 0 = not known */
};
void gemini_traits_of(const struct cm_run *run, struct gemini_traits *out);

/* Below base_url: "/v1beta/models/gemini-2.5-flash:generateContent?alt=sse". */
struct cm_str gemini_url(struct cm_run *run, const char *operation, struct cm_str query);
/* The headers of every call, the key included; *n of them. */
const struct cm_header *gemini_headers(struct cm_run *run, size_t *n);

/* models_list and probe */
struct gemini_listing {
    unsigned pages;
};
enum cm_step gemini_models_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);
struct gemini_options {
    struct cm_str version; /* "v1beta" */
};
int gemini_configure(struct cm_instance *in, struct cm_problems *problems);

/* ---- gemini_error.c ---- */

/* The `error` object of an answer, also of one that stands in an array; NULL when there is none. */
yyjson_val *gemini_error_of(yyjson_val *root);
/* Why the platform refused. status 0: the error came inside a 200. Returns -1. */
int gemini_refused(struct cm_run *run, int status, int retry_after_s, yyjson_val *error,
                   struct cm_err *err);
/* The same from a body that may be anything. */
int gemini_refused_text(struct cm_run *run, int status, int retry_after_s, struct cm_str body,
                        struct cm_err *err);
/* Seconds until the quota's day ends, which is midnight in California. */
int64_t gemini_quota_day_left_s(int64_t unix_s);

/* ---- gemini_schema.c ---- */

/* A JSON Schema as the platform takes it. small: the subset that `parameters` and responseSchema understand. Empty: there is nothing to tell (an object
 * without members), or it is no schema. In the arena. */
struct cm_str gemini_schema(struct cm_arena *arena, struct cm_str schema, bool small);

/* ---- gemini_contents.c ---- */

enum gemini_turn { GEMINI_NOBODY, GEMINI_USER, GEMINI_MODEL, GEMINI_RESULTS };

/* A body that is being written. */
struct gemini_writer {
    struct cm_run *run;
    const struct cm_chat *chat;
    const struct cm_attach *attached;
    const struct gemini_traits *traits;
    struct cm_buf *out;
    struct cm_err *err;
    enum gemini_turn turn; /* whose content is open */
    bool any;              /* a content was written */
    size_t n_calls;        /* in the open content of the model */
};
int gemini_put_contents(struct gemini_writer *w); /* the member "contents" */
void gemini_put_system(struct gemini_writer *w);  /* systemInstruction, if there is any */
int gemini_put_drawing(struct gemini_writer *w);  /* contents of the tasks that make pictures */

/* "name": and a comma before it where one is needed; the same before an element of a list. */
void gemini_key(struct cm_buf *out, const char *name);
void gemini_element(struct cm_buf *out);

/* The proof that the platform wants back with a call, kept under the call's id. */
void gemini_keep_signature(struct cm_run *run, struct cm_str call_id, struct cm_str signature);

/* ---- gemini_request.c ---- */

/* The body of generateContent for the run's chat. */
int gemini_put_request(struct cm_run *run, const struct cm_attach *attached, struct cm_buf *out,
                       struct cm_err *err);

/* ---- gemini_read.c: what the platform says ---- */

#define GEMINI_CANDIDATES_MAX 8

struct gemini_candidate {
    bool seen, finished;
    enum cm_finish finish;
    int calls; /* so far */
};

struct gemini_reader {
    struct gemini_candidate candidates[GEMINI_CANDIDATES_MAX];
    bool relayed;                  /* nothing is told but USAGE */
    bool draws;                    /* a picture was asked for: an answer without one is none */
    bool said;                     /* something that means something */
    bool blocked;                  /* the prompt was */
    bool malformed;                /* the model tried to call a function and failed */
    struct cm_usage usage, before; /* the latest figures; those of pictures asked for earlier */
    struct cm_str grounding; /* JSON text of the latest groundingMetadata; in the run's arena */
};

/* One response object: its parts as events, usage as USAGE; FINISH only at gemini_finish(). *semantic (may be NULL): it means something. -1: *err. */
int gemini_read(struct cm_run *run, struct gemini_reader *r, struct cm_str object, bool *semantic,
                struct cm_err *err);
/* Every candidate that began has ended, or the prompt was blocked: the answer is complete. */
bool gemini_complete(const struct gemini_reader *r);
/* The next of several answers that are asked for one by one. */
void gemini_reader_next(struct gemini_reader *r);
/* Citations and FINISH of every candidate. -1: *err, where there was no answer. */
int gemini_finish(struct cm_run *run, struct gemini_reader *r, struct cm_err *err);

/* ---- gemini_tasks.c: vectors and token counts ---- */

/* A batch of the chat's inputs from there on. */
enum cm_step gemini_embed_ask(struct cm_run *run, size_t from, struct cm_buf *body,
                              struct cm_err *err);
/* Its vectors as EMBEDDING; `wanted` inputs in all. */
int gemini_embed_read(struct cm_run *run, size_t from, size_t wanted, struct cm_str reply,
                      struct cm_err *err);
#define GEMINI_EMBED_BATCH 100
enum cm_step gemini_count_ask(struct cm_run *run, const struct cm_attach *attached,
                              struct cm_buf *body, struct cm_err *err);
int gemini_count_read(struct cm_run *run, struct cm_str reply, struct cm_err *err);

/* ---- gemini_relay.c: bodies that go through ---- */

/* "models/NAME" of the target as JSON text; in the arena. */
struct cm_str gemini_model_json(struct cm_run *run);

/* Which of the platform's operations the client asked for. */
const char *gemini_operation(const struct cm_run *run);
/* The stream is asked for as server-sent events; else it is one JSON array. */
bool gemini_wants_events(struct cm_str query);
/* The client's body, the model's name in it replaced by the upstream's: in `out`, or the client's own bytes. */
int gemini_relay_body(struct cm_run *run, struct cm_buf *out, struct cm_str *body,
                      struct cm_err *err);

#endif
