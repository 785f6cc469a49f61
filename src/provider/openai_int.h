/* The files of the openai adapter: the flow (openai.c), what goes up and comes back as it is (openai_ask.c, openai_relay.c), realtime sessions
 * (openai_session.c), what refusals and figures mean (openai_read.c). */
#ifndef PROVIDER_OPENAI_INT_H
#define PROVIDER_OPENAI_INT_H

#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/run.h"

#define OPENAI_STATES(X)                                                                           \
    X(TALK)     /* a stream of events with choices: chat, completions */                           \
    X(RESPONSE) /* a stream of the Responses API's events */                                       \
    X(EVENTS)   /* a stream of other events: pictures, transcripts, sound */                       \
    X(BYTES)    /* anything, as it comes */                                                        \
    X(WHOLE)    /* one JSON object */                                                              \
    X(PLAIN)    /* one text that is none */                                                        \
    X(SESSION)  /* a WebSocket */                                                                  \
    X(REFUSED)  /* the body of an error status */
enum openai_state {
#define X(name) OPENAI_##name,
    OPENAI_STATES(X)
#undef X
};

#define OPENAI_EVENT_MAX (32u * 1024 * 1024) /* one event can be a picture in base64 */
#define OPENAI_REFUSAL_MAX (64u * 1024)      /* of an error body */
#define OPENAI_CHOICES_MAX 128               /* n of the dialect */

/* The x.… options, read once. */
enum openai_max_tokens { OPENAI_MAX_AS_SENT, OPENAI_MAX_TOKENS, OPENAI_MAX_COMPLETION_TOKENS };
enum openai_history { OPENAI_HISTORY_AS_SENT, OPENAI_HISTORY_DROP, OPENAI_HISTORY_SEND };
enum openai_reasoning {
    OPENAI_REASONING_AUTO, /* reasoning_effort, to models that are known to reason */
    OPENAI_REASONING_EFFORT,
    OPENAI_REASONING_OBJECT,
    OPENAI_REASONING_ENABLE,
    OPENAI_REASONING_THINKING,
    OPENAI_REASONING_NONE
};
struct openai_options {
    bool stream_options, deployments, developer, short_ids, top_k;
    bool responses; /* speaks the Responses API */
    bool official;  /* OpenAI's own service, or Azure's: takes what is newest */
    enum openai_reasoning reasoning;
    struct cm_str reasoning_models, efforts; /* lists of words */
    enum openai_max_tokens max_tokens;
    enum openai_history history_reasoning;
    struct cm_str api_version, key_header; /* key_header "Authorization": as a bearer */
    struct cm_str realtime_url;            /* "" = below base_url */
    struct cm_str *drop;
    size_t n_drop;
};

/* What is needed of the chat stands here: it may go in the middle of a step. */
struct openai {
    enum openai_state state;
    enum cm_chat_task task;
    bool stream;
    bool response; /* of the Responses API */
    int status;    /* of the upstream's answer */
    int retry_after_s;
    struct cm_sse sse;
    struct cm_buf body;       /* WHOLE, PLAIN, REFUSED: what came so far */
    struct cm_buf sent;       /* the request's spliced body */
    struct cm_str piece;      /* TALK, EVENTS: what is being fed */
    struct cm_str run_of_raw; /* neighbouring events of `piece`, not yet emitted */
    bool raw_semantic;
    bool done;                         /* [DONE] was seen */
    bool finished[OPENAI_CHOICES_MAX]; /* a finish_reason was seen for this choice */
    int64_t n_finished;
    bool want_usage_chunk; /* the client asked for it */
    int64_t n_wanted;      /* choices, pictures */
    int64_t n_ended;       /* EVENTS: those that end something */
    struct openai_said
        *said; /* translate lane: what of the answer is known so far; NULL = relayed */
    struct openai_session *session; /* in the arena; NULL = it is none */
};

/* Its answer has choices. */
static inline bool openai_talks(const struct openai *o)
{
    return !o->response && (o->task == CM_TASK_CHAT || o->task == CM_TASK_COMPLETION);
}

/* ---- openai_ask.c: the request ---- */

int openai_configure(struct cm_instance *in, struct cm_problems *problems);
const struct openai_options *openai_options_of(const struct cm_run *run);
enum cm_step openai_ask(struct cm_run *run, struct openai *o, struct cm_err *err);
/* Headers every call has, its own included: two more than are given fit into `headers`. */
#define OPENAI_HEADERS_MAX 8
size_t openai_headers(struct cm_run *run, struct cm_header *headers, size_t n);
/* A path below the base URL, as this server wants it. */
struct cm_str openai_url(struct cm_run *run, struct cm_str path, struct cm_str query);

struct cm_str openai_next_word(struct cm_str *list); /* words with spaces or commas between */

/* ---- openai_fit.c: what the dialect demands of names and schemas; which models reason ---- */

/* The same short id for the same long one, e.g. of a call and its result; others as they are. */
struct cm_str openai_short_id(struct cm_arena *arena, struct cm_str id);
bool openai_id_too_long(struct cm_str id);
/* A name of 1 to 64 letters, digits, _ and -, the same for the same one. */
struct cm_str openai_tool_name(struct cm_arena *arena, struct cm_str name);
/* Whether the server would take this schema as strict. */
bool openai_strict_schema(struct cm_str schema);
/* A model that reasons: it takes an effort and refuses sampling. */
bool openai_thinks(const struct openai_options *o, struct cm_str model);
/* The level nearest to the one asked for that this server knows; "" = none can be said. */
struct cm_str openai_effort(const struct openai_options *o, struct cm_str asked);

/* ---- openai_history.c: quirks inside of messages ---- */

/* The client's body with a history that this upstream takes; false: it may go as it is. */
bool openai_history(struct cm_run *run, const struct cm_chat *chat, struct cm_str *messages);

/* ---- openai_relay.c: the answer, byte for byte ---- */

enum cm_step openai_relay_data(struct cm_run *run, struct openai *o, struct cm_str piece,
                               struct cm_err *err);
enum cm_step openai_relay_ended(struct cm_run *run, struct openai *o, struct cm_err *err);

/* ---- openai_session.c: realtime ---- */

enum cm_step openai_session_ask(struct cm_run *run, struct openai *o);
enum cm_step openai_session_step(struct cm_run *run, struct openai *o, const struct cm_ev *ev,
                                 struct cm_err *err);

/* ---- openai_responses.c: the same of the Responses API ---- */

enum cm_step openai_responses_data(struct cm_run *run, struct openai *o, struct cm_str piece,
                                   struct cm_err *err);
enum cm_step openai_responses_ended(struct cm_run *run, struct openai *o, struct cm_err *err);
enum cm_step openai_response_whole(struct cm_run *run, struct openai *o, struct cm_err *err);

/* ---- openai_write.c: a request of another dialect ---- */

/* The body into o->sent; -1 and CM_ERR_BAD_REQUEST for what this dialect cannot say. */
int openai_write_chat(struct cm_run *run, struct openai *o, struct cm_err *err);
int openai_write_embedding(struct cm_run *run, struct openai *o, struct cm_err *err);

/* ---- openai_talk.c: the answer as canonical events ---- */

void openai_talk_begin(struct cm_run *run, struct openai *o);
enum cm_step openai_talk_data(struct cm_run *run, struct openai *o, struct cm_str piece,
                              struct cm_err *err);
enum cm_step openai_talk_ended(struct cm_run *run, struct openai *o, struct cm_err *err);

/* ---- openai_read.c: refusals and figures ---- */

/* The `error` value of an answer: an object, or only a text. NULL when there is none. */
yyjson_val *openai_error_of(yyjson_val *root);
/* Always -1. status 0: the error came inside a 200. */
int openai_refused(struct cm_run *run, int status, int retry_after_s, yyjson_val *error,
                   struct cm_err *err);
/* The same of a whole body. */
enum cm_step openai_refused_body(struct cm_run *run, struct openai *o, struct cm_err *err);
int64_t openai_count_of(yyjson_val *obj, const char *key);
bool openai_read_usage(yyjson_val *usage, struct cm_usage *out);

#endif
