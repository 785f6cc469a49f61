/* What the gateway's files share: the snapshot requests are served from, the exchange, and their helpers. */
#ifndef CHATMUX_GATEWAY_INT_H
#define CHATMUX_GATEWAY_INT_H

#include "address.h"
#include "chatmux/base/crypto.h"
#include "chatmux/base/map.h"
#include "chatmux/base/rand.h"
#include "chatmux/gateway/gateway.h"
#include "chatmux/pool/pool.h"
#include "chatmux/surface/surface.h"

/* ---- snapshot.c: an immutable, counted view of the configuration, ready to serve ---- */

struct client_key {
    unsigned char digest[CM_SHA256_SIZE];
    struct cm_str name; /* what logs call it: "key#1" */
};

struct snapshot {
    unsigned refs;
    struct cm_config *config; /* a reference */
    struct cm_arena arena;
    struct cm_instance *instances; /* one per [provider …], same order */
    struct cm_offer *offers;       /* same order */
    size_t n_instances;
    struct cm_models *models;
    struct client_key *keys;
    struct cm_map keys_by_digest;
    bool loopback_only; /* every listener is on this machine */
};

/* Models an upstream told of; survives reloads. */
struct listed {
    struct cm_str provider; /* owned */
    struct cm_arena arena;  /* holds the rows */
    struct cm_model_row *rows;
    size_t n_rows, cap_rows;
};

struct snapshot *snapshot_new(struct cm_config *config, const struct cm_map *listed,
                              struct cm_problems *problems);
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s);

/* ---- gateway.c ---- */

struct figures; /* report.c */

struct cm_gateway {
    const struct cm_host *host;
    struct cm_pool *pool;
    struct snapshot *now; /* a reference */
    struct cm_map listed; /* provider name -> struct listed */
    struct cm_metrics *metrics;
    struct figures *figures;
    struct cm_list exchanges;     /* struct exchange */
    struct cm_list errands;       /* lists.c: runs outside of answers */
    struct cm_deadline lists_due; /* lists.c */
    size_t attempts_out;          /* runs that hold a lease, those that tidy up included */
    struct address_limiter requests, bad_keys; /* per client address */
    struct cm_rng rng;                         /* jitter */
    bool draining, closing;
    struct cm_task gone; /* tells on_closed and frees */
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

/* Serves from another snapshot of the same or another configuration from now on; takes the reference. */
void gateway_swap(struct cm_gateway *gw, struct snapshot *s);
/* One run less holds the gateway open. */
void gateway_attempt_over(struct cm_gateway *gw);

/* ---- route.c: the URL table ---- */

enum access {
    ACCESS_KEY,  /* a client key, where there are any */
    ACCESS_PAGE, /* no key, but no foreign web page through an open gateway either */
    ACCESS_ALL
};

struct exchange;
struct route {
    const char *methods; /* "GET HEAD" */
    const char *path; /* without /v1 and prefix; a final "*" matches the rest, slashes included */
    void (*serve)(struct exchange *ex, struct cm_str rest);
    const struct cm_surface *surface; /* dialect of errors and answers */
    enum access access;
};
extern const struct route routes[];
extern const size_t routes_n;

enum route_found { ROUTE_NONE, ROUTE_METHOD, ROUTE_OK };
/* `path` as the client wrote it, still encoded; `rest` is decoded into the arena. ROUTE_METHOD: *allow lists the methods. */
enum route_found route_find(struct cm_arena *arena, struct cm_str prefix, struct cm_str method,
                            struct cm_str path, const struct route **out, struct cm_str *rest,
                            struct cm_str *allow);

/* ---- auth.c: who is it ---- */

/* No client needs a key. */
bool auth_is_open(const struct snapshot *s);
/* Requests an open gateway refuses: those of foreign web pages, and those that name another machine. CM_ERR_FORBIDDEN. */
int auth_check_open(const struct snapshot *s, const struct cm_req *req, struct cm_err *err);
/* Name of the client key, "open" where none is needed. CM_ERR_UNAUTHORIZED, CM_ERR_FORBIDDEN. */
int auth_check(const struct snapshot *s, struct cm_req *req, struct cm_str *key_name,
               struct cm_err *err);

/* ---- exchange.c: one client request from first byte to last ---- */

#define EXCHANGE_OUTCOMES(X)                                                                       \
    X(OK, "ok") X(ERROR, "error") X(CUT, "cut") X(CLIENT_GONE, "client_gone")
enum outcome {
#define X(name, text) OUTCOME_##name,
    EXCHANGE_OUTCOMES(X)
#undef X
        OUTCOMES_N
};
const char *outcome_name(enum outcome o);

/* Where a client left: before anything was sent, before anything meant something, in the middle. */
#define EXCHANGE_PHASES(X)                                                                         \
    X(BEFORE_HEAD, "before_head") X(BEFORE_TOKEN, "before_first_token") X(MIDDLE, "middle")
enum phase {
#define X(name, text) PHASE_##name,
    EXCHANGE_PHASES(X)
#undef X
        PHASES_N
};
const char *phase_name(enum phase p);

struct attempt; /* attempt.c */

struct exchange {
    struct cm_gateway *gw;
    struct snapshot *snap; /* a reference, held to the end */
    struct cm_req *req;    /* NULL once the client has left or the response has ended */
    struct cm_list link;   /* in gw->exchanges */
    struct cm_arena arena;
    struct cm_str id;           /* request id */
    struct cm_str key;          /* name of the client key, "" = not known yet */
    const struct route *route;  /* NULL: none matches */
    struct cm_str method, path; /* for the log: without the query */
    struct cm_str address;      /* the client's, behind trusted proxies */

    const struct cm_surface *surface;
    struct cm_buf body;   /* the client's; taken from the request */
    struct cm_chat *chat; /* in the arena; NULL before it is parsed */
    struct cm_answer_meta meta;
    struct parse_job *parsing; /* a big body is being parsed on another thread */

    struct cm_target *targets; /* in the arena */
    size_t n_targets, target;  /* target: the one tried now */
    struct attempt *attempt;   /* the one in flight */
    unsigned attempts;         /* so far */
    unsigned rotated; /* of them, those that count against retry.credentials and the retries */
    unsigned retries; /* back-off retries of this target */
    struct cm_tried
        *tried; /* credentials, for this target; in the arena, NULL before the first failure */
    struct cm_err *last,
        *limited; /* why the latest attempt failed; the latest limit that was met; in the arena, NULL = none */
    struct cm_header
        *passed; /* of the latest upstream's answer, what the client gets too; in the arena */
    size_t n_passed;
    struct cm_deadline wait; /* back-off, or a cooldown that ends soon */
    uint64_t wait_began_ms;  /* first wait for a cooldown; 0 = none yet */

    void *stream;            /* the surface's state, in the arena; translate lane */
    struct cm_buf hold;      /* what may not be sent yet */
    struct cm_answer answer; /* not a stream, translate lane */
    struct cm_usage usage;
    bool relay; /* the lane of the current attempt */
    bool head_sent, committed, ended;
    bool abandoned;           /* the client has left, the upstream is drained */
    struct cm_deadline alive; /* keep-alive, commit_after */
    uint64_t sent_ms;         /* last bytes to the client */

    int status;                   /* what the client was told; 0 = nothing */
    uint64_t began_us, body_us;   /* first byte of the request; its body complete */
    uint64_t asked_us, first_us;  /* first attempt; first semantic event */
    uint64_t bytes_in, bytes_out; /* of the bodies */
};

/* The HTTP server has a request: routes it, checks the key, serves it. */
void exchange_begin(struct cm_gateway *gw, struct cm_req *req);
/* Ends with an error: as an answer, or inside the stream. */
void exchange_fail(struct exchange *ex, const struct cm_err *err);
/* The whole answer at once; the exchange is over. */
void exchange_answer(struct exchange *ex, int status, struct cm_str content_type,
                     struct cm_str body);
/* POST /v1/chat/completions */
void serve_chat(struct exchange *ex, struct cm_str rest);

/* Called by the attempt in flight. */
void exchange_event(struct exchange *ex, const struct cm_event *ev);
void exchange_flush(struct exchange *ex);
void exchange_attempt_ended(struct exchange *ex, const struct cm_err *err);

/* ---- attempt.c: one try with one credential ---- */

/* Leases a credential for the exchange's current target and runs it. -1: nobody can serve (err). */
int attempt_begin(struct exchange *ex, struct cm_err *err);
/* Ends it and gives the lease back with its verdict (NULL = no blame), now or when the platform has been tidied up. The exchange forgets it. */
void attempt_end(struct attempt *a, const struct cm_err *verdict);
uint64_t attempt_credential(const struct attempt *a); /* its id */
void attempt_pause(struct attempt *a, bool paused);

/* ---- respond.c: headers every answer has ---- */

#define RESPOND_HEADERS_MAX 40
struct respond {
    struct cm_header v[RESPOND_HEADERS_MAX];
    size_t n;
};
void respond_begin(struct respond *r, struct exchange *ex);
void respond_add(struct respond *r, struct cm_str name, struct cm_str value);
/* spent: every credential was tried, the client need not do it again. */
void respond_error(struct exchange *ex, const struct cm_err *err, bool spent);
/* CORS headers for this origin, if it is allowed. */
void respond_cors(struct respond *r, const struct cm_config *config, const struct cm_req *req,
                  bool preflight);

/* ---- report.c: the access line and the figures ---- */

struct figures *figures_new(struct cm_gateway *gw);
void figures_free(struct figures *f);
void report_attempt(struct cm_gateway *gw, struct cm_str provider, const struct cm_err *err);
void report_exchange(struct exchange *ex, enum outcome outcome, const struct cm_err *err);
void report_streams(struct cm_gateway *gw, int change);
void report_disconnect(struct cm_gateway *gw, enum phase phase);

/* ---- lists.c: what models upstreams have ---- */

void lists_refresh(struct cm_gateway *gw);
void lists_stop(struct cm_gateway *gw);
void listed_free_all(struct cm_map *listed);

/* ---- pages.c: everything that is no chat ---- */

void serve_models(struct exchange *ex, struct cm_str rest);
void serve_model(struct exchange *ex, struct cm_str rest);
void serve_healthz(struct exchange *ex, struct cm_str rest);
void serve_readyz(struct exchange *ex, struct cm_str rest);
void serve_metrics(struct exchange *ex, struct cm_str rest);
void serve_root(struct exchange *ex, struct cm_str rest);

#endif
