/* What platforms speak: the shape of an adapter, and one configured instance of it. Loop thread only.
 *
 * An adapter is a pure state machine. `step` receives one event, may emit canonical events (cm_run_text() …), asks for one thing at a time
 * (cm_run_fetch() …) and returns WAIT, DONE or FAIL. It never sees a handle, a timer, a thread, the pool or the store. */
#ifndef CHATMUX_PROVIDER_PROVIDER_H
#define CHATMUX_PROVIDER_PROVIDER_H

#include "chatmux/chat/event.h"
#include "chatmux/chat/models.h"

struct cm_run;
struct cm_instance;

enum cm_step {
    CM_STEP_WAIT, /* something is in flight: a fetch, stream, ws, sleep or compute */
    CM_STEP_DONE, /* finished well */
    CM_STEP_FAIL  /* *err says why */
};

#define CM_EV_KINDS(X)                                                                                                                                                       \
    X(START) /* first step of the run */                                                                                                                                     \
    X(REPLY) /* fetch: status, headers, data = the whole body */                                                                                                             \
    X(HEAD)  /* stream: status, headers */                                                                                                                                   \
    X(DATA)  /* stream: a piece of the body; ws: one whole message (`binary`) */                                                                                             \
    X(END) /* stream: the message was complete by its framing; ws: closed by the platform (status = close code, data = reason) */                                            \
    X(OPEN)     /* ws: the handshake is done; headers */                                                                                                                     \
    X(TIMER)    /* sleep is over */                                                                                                                                          \
    X(COMPUTED) /* compute has finished */                                                                                                                                   \
    X(FAILED) /* the thing asked for failed: err; of a refused ws handshake status and headers, too. An adapter that does not handle it returns FAIL with *err = *ev->err */ \
    X(STOP) /* the client has left: DONE, or one bounded chance (5 s) to tidy up on the platform */
enum cm_ev_kind {
#define X(name) CM_EV_##name,
    CM_EV_KINDS(X)
#undef X
};

struct cm_ev { /* slices are valid until step returns */
    enum cm_ev_kind kind;
    int status;
    const struct cm_header *headers;
    size_t n_headers;
    struct cm_str data;
    bool binary;
    const struct cm_err *err;
};

/* A state machine with its memory. */
struct cm_flow {
    enum cm_step (*step)(struct cm_run *run, const struct cm_ev *ev,
                         struct cm_err *err); /* NULL: the adapter has no such flow */
    size_t state_size; /* zeroed; freed with the run. Big or growing things: the run's arena */
    const char *(*state_name)(const void *state); /* for the log and the admin page */
    void (*clear)(void *state);                   /* frees what is not in the arena; may be NULL */
};

/* One x.… option: read by configure(), told by `chatmux help TYPE`. */
struct cm_option {
    const char *name;
    enum cm_conf_type type;
    const char *def;     /* as one would write it */
    const char *choices; /* CM_CONF_ENUM */
    const char *help;
    int64_t min, max; /* numbers; both 0 = any that is not negative */
    const char *
        env; /* variable that is read when the setting is not there, before the default; NULL = none */
};

/* One account as a run sees it. */
struct cm_cred {
    uint64_t id;          /* 0 = none is needed, or the caller's own */
    struct cm_str secret; /* never logged; valid as long as the lease */
    struct cm_str token;  /* what refresh or login made of the secret; "" = none */
    struct cm_str label;  /* what logs call it: "openai#2" */
    struct cm_str
        isolation; /* connections are shared within it only; "" = shared by all of official APIs */
    struct cm_str proxy; /* overrides the provider's; "" = the provider's */
    bool from_client;    /* the caller's own credential instead of a pooled one */
};

struct cm_provider {
    const char *name;                  /* the configuration's `type` */
    const char *help;                  /* one line */
    const char *base_url;              /* default */
    const struct cm_option *options;   /* ends with a NULL name */
    const struct cm_model_row *models; /* built-in table; NULL when the upstream's list counts */
    size_t n_models;
    unsigned any_features;  /* of models that are in no table */
    unsigned tasks;         /* CM_TASK_BIT(CHAT) | …; 0 = CHAT only. All are answered by `chat` */
    unsigned relayed_tasks; /* of those, what only a client of its own dialect gets */
    unsigned understands; /* CM_FIELD_…: those of chat/request.h that reach the platform when it is
                            * translated for. Others are told to the client as dropped */
    bool
        keyless; /* an empty list of credentials is one without a secret: demo, servers that ask for no key */
    bool isolated; /* web platform: connections are never shared between credentials */
    bool
        tools_by_prompt; /* its models read and write texts only: where the option `tools` (prompt, refuse) says so, tools are told
                           * in the prompt and calls are read out of the answer: the chat that the flow sees has none */
    bool
        needs_token; /* chat needs a token of `refresh`: a credential without one is refreshed before it serves */
    int64_t max_inflight;  /* default per credential; 0 = unlimited */
    int64_t cooldown_ms;   /* default after a limit without a time */
    int64_t monthly_limit; /* default of requests per credential and month; 0 = unlimited */
    int64_t
        probe_every_ms; /* also a credential that serves is probed so often; 0 = only those that wait for an operator */

    /* True when bytes of this dialect go through as they came, for every task the instance has; the flow then emits HEAD and RELAY. */
    bool (*relays)(const struct cm_instance *in, enum cm_dialect dialect);
    /* Reads the options into in->options (memory in in->arena); complaints name the option. NULL: nothing to read. */
    int (*configure)(struct cm_instance *in, struct cm_problems *problems);
    /* The form in which a secret is kept, e.g. a cookie with its name in front. NULL: as given. CM_ERR_BAD_REQUEST when it cannot be one. */
    int (*normalize)(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                     struct cm_err *err);

    /* A conversation that another gateway led is known by a name of that one's making: the name of this request's, in the arena, and the first message
     * that the platform has not seen. false: it cannot be one. NULL: nothing was ever taken over. */
    bool (*old_thread)(struct cm_arena *arena, const struct cm_chat *chat, struct cm_str *name,
                       size_t *from);

    struct cm_flow chat; /* answers cm_run_chat(), whatever its task */
    /* Per credential, outside of an answer. `refresh` makes a token of what there is; when it is missing or refused, `login` makes one of the secret. */
    struct cm_flow refresh, login, probe;
    struct cm_flow models_list; /* emits models with cm_run_model() */
    struct cm_flow session;     /* long-lived, per credential */
};

/* One [provider …] section, ready to run. Part of a snapshot, immutable. */
struct cm_instance {
    const struct cm_provider *adapter;
    const struct cm_provider_conf *conf;
    struct cm_str name, base_url; /* base_url without a trailing slash */
    struct cm_model_row *rows;    /* offered models: the operator's, else the adapter's */
    size_t n_rows;
    bool any;               /* the operator wrote "*" */
    unsigned tasks;         /* the adapter's; configure() may take some away */
    bool listed;            /* no models configured and none built in: the upstream's list counts */
    struct cm_str *secrets; /* the configured credentials in the form the adapter keeps them */
    size_t n_secrets;
    void *options; /* the adapter's */
    /* What has to be set before anything can be asked, in a sentence with the setting's name; by configure(). The process serves all the same: this
     * provider's credentials are needs_login, and clients are told. "" = nothing */
    struct cm_str lacks;
    struct cm_arena *arena; /* the snapshot's */
};

/* What the platform calls a model that a client writes so. */
struct cm_str cm_instance_upstream(const struct cm_instance *in, struct cm_str model);
/* How long a conversation is kept in mind: x.continue_ttl, where there is one. */
int64_t cm_instance_thread_ms(const struct cm_instance *in);

static inline bool cm_provider_makes_tokens(const struct cm_provider *p)
{
    return p->refresh.step || p->login.step;
}

/* provider/list.h names every adapter once. NULL when there is none of that name. */
const struct cm_provider *cm_provider_find(struct cm_str type);
/* Members of the request, as the client calls them, that this instance drops when it translates: at most max are written. */
size_t cm_instance_drops(const struct cm_instance *in, const struct cm_chat *chat,
                         struct cm_str *fields, size_t max);
#define CM_INSTANCE_DROPS_MAX (CM_DROPPED_MAX + CM_FIELDS_N)
/* CM_ERR_BAD_REQUEST for a member that has no effect where `strict` is set. */
int cm_fail_dropped(struct cm_err *err, const struct cm_instance *in, struct cm_str field);

/* "openai, demo, hix" for messages. */
const char *cm_provider_names(void);

/* Checks and prepares one section; -1 when there were problems. */
int cm_instance_init(struct cm_instance *in, const struct cm_provider_conf *conf,
                     struct cm_arena *arena, struct cm_problems *problems);

/* The lane: whether the instance's flow relays what this chat asks for, instead of having it translated. */
bool cm_instance_relays(const struct cm_instance *in, const struct cm_chat *chat);
/* Whether it can do at all what this chat asks for. */
bool cm_instance_serves(const struct cm_instance *in, const struct cm_chat *chat);

/* Value of an option as written, else of its variable, else its default. */
struct cm_str cm_option_value(const struct cm_instance *in, const char *name);
bool cm_option_bool(const struct cm_instance *in, const char *name);
int64_t cm_option_int(const struct cm_instance *in,
                      const char *name); /* numbers, durations in ms, sizes */

/* Class of an upstream's HTTP status when nothing better is known, with retry-after(-ms) read from the headers; the message names the status. */
int cm_http_fail(struct cm_err *err, int status, const struct cm_header *headers, size_t n,
                 struct cm_str what);

#endif
