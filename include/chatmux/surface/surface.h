/* What clients speak: pure translation between a dialect's bytes and the canonical model. No I/O, no
 * knowledge of providers. Loop thread only. */
#ifndef CHATMUX_SURFACE_SURFACE_H
#define CHATMUX_SURFACE_SURFACE_H

#include "chatmux/chat/event.h"

/* What every answer of one exchange repeats. */
struct cm_answer_meta {
    struct cm_str id;           /* "chatcmpl-…" */
    struct cm_str model;        /* as the client is told */
    int64_t created_s;          /* Unix */
    bool include_usage;         /* streams: the client asked for the usage chunk */
    int64_t n;                  /* choices */
    int reasoning;              /* enum cm_reasoning: how reasoning is shown */
    const struct cm_chat *chat; /* what was asked for */
    /* The members of every answer that clients of hixai2api and its relatives may read: see surface/compat.h */
    bool compat;
};

/* One kind of request in one dialect: what a route speaks. */
struct cm_surface {
    enum cm_dialect dialect;
    enum cm_chat_task task;
    struct cm_str id_prefix; /* of the ids made for answers: "chatcmpl-" */

    /* Body -> chat (chat->arena and content_type are set). Checks every member that is read: CM_ERR_BAD_REQUEST with
     * param. Doubled top-level members are refused. */
    int (*parse)(struct cm_chat *chat, struct cm_str body, struct cm_err *err);

    /* Streams: state is zeroed memory of stream_size bytes, in the exchange's arena. Each appends
     * bytes ready to be sent. */
    size_t stream_size;
    struct cm_str stream_type; /* media type; "" = server-sent events */
    /* the role of each choice */
    void (*stream_begin)(void *state, const struct cm_answer_meta *meta, struct cm_buf *out);
    void (*stream_event)(void *state, const struct cm_event *ev, struct cm_buf *out);
    /* the usage chunk if it was asked for, and the end mark */
    void (*stream_end)(void *state, const struct cm_usage *usage, struct cm_buf *out);
    /* it keeps what it says, for its last event, and that is more than CM_ANSWER_MAX; NULL: it keeps
     * nothing */
    bool (*stream_full)(const void *state);
    /* after stream_end() or stream_error(): the answer as `whole` would have written it, until
     * stream_clear(); NULL: nobody keeps answers of this dialect */
    struct cm_str (*stream_object)(const void *state);
    /* relay lane: what stream_error() has to know of an event that goes by; NULL: nothing. The
     * state is of a stream that has not begun */
    void (*stream_relayed)(void *state, const struct cm_answer_meta *meta,
                           const struct cm_event *ev);
    /* never a clean end; state may be NULL (relay lane) */
    void (*stream_error)(void *state, const struct cm_err *err, struct cm_buf *out);
    /* frees what the state holds; also half-way */
    void (*stream_clear)(void *state);
    struct cm_str keepalive; /* a comment or ping for a silent stream */

    bool keeps_images; /* whole answers have a place for pictures: they do not become Markdown */
    /* The whole answer as one JSON body. */
    void (*whole)(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                  struct cm_buf *out);
    void (*error_body)(const struct cm_err *err, struct cm_buf *out);
    int (*error_status)(const struct cm_err *err); /* NULL: cm_err_status() */
    struct cm_str error_id_member; /* of an error body: the request id, added behind; "" = none */
};

extern const struct cm_surface cm_surface_openai_chat;
extern const struct cm_surface cm_surface_openai_images; /* /v1/images/generations */
extern const struct cm_surface cm_surface_openai_videos; /* /v1/videos/generations */
extern const struct cm_surface cm_surface_openai_completions;
extern const struct cm_surface cm_surface_openai_embeddings;
/* Forms: chat->content_type says where their fields begin. */
extern const struct cm_surface cm_surface_openai_image_edits;
extern const struct cm_surface cm_surface_openai_image_variations;
/* Only providers that relay the dialect answer these: they have no writers. */
extern const struct cm_surface cm_surface_openai_moderations;
extern const struct cm_surface cm_surface_openai_speech;
extern const struct cm_surface cm_surface_openai_transcriptions; /* a form */
extern const struct cm_surface cm_surface_openai_translations;   /* a form */
extern const struct cm_surface
    cm_surface_openai_realtime; /* a WebSocket: chat->query names the model */
extern const struct cm_surface cm_surface_openai_pass; /* whatever it is */

extern const struct cm_surface cm_surface_responses;        /* /v1/responses */
extern const struct cm_surface cm_surface_responses_tokens; /* /v1/responses/input_tokens */
/* Its ids, which tell a response of ours from an upstream's. */
#define CM_RESPONSE_ID "resp_cm_"
/* One page of the items that were asked with: `input` and `id` are those of a response. `after`: an
 * item's id, "" = from the beginning. CM_ERR_BAD_REQUEST: there is none of that id. */
struct cm_response_page {
    struct cm_str after;
    int64_t limit; /* 1 … 100 */
    bool ascending;
};
/* One that has said nothing: status "queued" or "in_progress". */
void cm_responses_put_progress(struct cm_buf *out, const struct cm_answer_meta *meta,
                               const char *status);
/* The sequence number of its next event. `state`: of cm_surface_responses, begun. */
void cm_responses_number(void *state, int64_t sequence);
/* Instead of stream_end(): its client wants no more. `state`: of cm_surface_responses, begun. */
void cm_responses_cancel(void *state, struct cm_buf *out);
/* A stored object that nobody works on any more: true, and as it is told from now on, when it was
 * left queued or in progress. */
bool cm_responses_interrupted(struct cm_str object, struct cm_buf *out);
int cm_responses_items(struct cm_str id, struct cm_str input, const struct cm_response_page *page,
                       struct cm_buf *out, struct cm_err *err);

extern const struct cm_surface cm_surface_anthropic;       /* /v1/messages */
extern const struct cm_surface cm_surface_anthropic_count; /* /v1/messages/count_tokens */
extern const struct cm_surface
    cm_surface_anthropic_pass; /* batches, files and whatever else its clients ask for */

/* /v1beta/models/NAME:operation; chat->path names both */
extern const struct cm_surface
    cm_surface_gemini; /* generateContent, streamGenerateContent with alt=sse */
extern const struct cm_surface
    cm_surface_gemini_array; /* streamGenerateContent as one JSON array */
extern const struct cm_surface cm_surface_gemini_count; /* countTokens */
extern const struct cm_surface cm_surface_gemini_embed, cm_surface_gemini_batch_embed;

/* GET /v1/models and one entry: a superset that OpenAI's and Anthropic's SDKs both accept. */
struct cm_model_listed;
void cm_openai_models(const struct cm_model_listed *models, size_t n, int64_t created_s,
                      struct cm_buf *out);
void cm_openai_model(const struct cm_model_listed *model, int64_t created_s, struct cm_buf *out);
/* GET /v1beta/models: `count` entries from one of them on, and one entry. */
void cm_gemini_models(const struct cm_model_listed *models, size_t n, size_t from, size_t count,
                      struct cm_buf *out);
void cm_gemini_model(const struct cm_model_listed *model, struct cm_buf *out);

#endif
