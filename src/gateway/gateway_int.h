/* What the gateway's files share: the snapshot requests are served from, the exchange, and their helpers. */
#ifndef CHATMUX_GATEWAY_INT_H
#define CHATMUX_GATEWAY_INT_H

#include "address.h"
#include "chatmux/base/crypto.h"
#include "chatmux/base/map.h"
#include "chatmux/base/rand.h"
#include "chatmux/gateway/gateway.h"
#include "chatmux/surface/compat.h"
#include "chatmux/usage/price.h"
#include "health.h"
#include "mask.h"
#include "resume.h"

/* ---- snapshot.c: an immutable, counted view of the configuration, ready to serve ---- */

struct snapshot {
    unsigned refs;
    struct cm_config *config; /* a reference */
    struct cm_arena arena;
    struct cm_instance *instances; /* one per [provider …], same order */
    struct cm_offer *offers;       /* same order */
    size_t n_instances;
    struct cm_models *models;
    struct cm_prices *prices;
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
    struct cm_keys *keys;
    struct cm_store *store; /* not owned; NULL = nothing survives a restart */
    struct snapshot *now;   /* a reference */
    struct health *health;  /* what targets' own traffic tells of them */
    double hedge_purse;     /* hedge.c: second attempts that may begin */
    struct cm_map listed;   /* provider name -> struct listed */
    struct cm_metrics *metrics;
    struct figures *figures;
    struct resume *resume;    /* streams that survive their client */
    struct cm_list exchanges; /* struct exchange */
    struct cm_list sessions;  /* struct session (session.c) */
    struct cm_list kept;      /* creds.c: stored credentials */
    struct cm_map kept_by_id, kept_by_secret;
    struct mask mask;                      /* what may not be said of them */
    uint64_t unstored_ids;                 /* creds.c: given so far */
    struct cm_list errands;                /* errand.c: runs outside of answers */
    struct cm_list probes;                 /* probe.c: runs an operator watches */
    struct cm_deadline lists_due;          /* lists.c */
    struct cm_deadline pool_due;           /* the pool wants to be told the time */
    struct cm_deadline true_up;            /* the ledger is asked what keys have spent */
    struct cm_deadline trim;               /* memory that a burst took is given back */
    struct cm_deadline save_tokens;        /* creds_token.c: those that are not on the disk */
    struct cm_deadline farewell;           /* errand.c: closing does not wait any longer */
    const struct cm_web_route *web_routes; /* web.c: borrowed */
    size_t n_web_routes;
    void *web_arg;
    struct cm_web *web_turn;  /* the exclusive one that is being served */
    struct cm_list web_queue; /* those that wait for their turn */
    struct cm_task web_next;
    uint64_t requests_seen;
    int64_t started_ms; /* Unix */
    size_t drains;      /* exchanges whose client has left and whose answer is drained */
    size_t streams; /* overload.c: admitted and not ended, those that are silent so far included */
    size_t attempts_out; /* runs that hold a lease, those that tidy up included */
    struct address_limiter requests, bad_keys; /* per client address */
    size_t memory_bytes;                       /* overload.c: resident, as it was at memory_ms */
    uint64_t memory_ms;
    struct cm_rng rng; /* jitter */
    bool draining, closing;
    void (*on_quiet)(void *arg); /* cm_gateway_drain() */
    void *on_quiet_arg;
    struct cm_task quiet;
    struct cm_task gone; /* tells on_closed and frees */
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

/* Serves from another snapshot of the same or another configuration from now on; takes the reference. */
void gateway_swap(struct cm_gateway *gw, struct snapshot *s);
/* One run less holds the gateway open. */
void gateway_attempt_over(struct cm_gateway *gw);

/* One of the kept streams has ended. */
void gateway_stream_over(struct cm_gateway *gw);

/* The pool has changed: asks it when it next wants to be told the time. */
void gateway_pool_moved(struct cm_gateway *gw);

/* ---- creds.c: credentials of file and API, and their durable form ---- */

int creds_load(struct cm_gateway *gw, struct cm_err *err); /* at the start */
void creds_sync(struct cm_gateway *gw); /* after every load of the configuration */
void creds_free(struct cm_gateway *gw);
/* An upstream may quote what it was sent (secret and token), or what it knows of others: a text with anything of ours in it is not passed on. */
void creds_mask(const struct cm_gateway *gw, struct cm_err *err, struct cm_str provider,
                struct cm_str secret, struct cm_str token);
void creds_on_state(void *arg, const struct cm_cred_info *cred);
void creds_count(struct cm_gateway *gw, struct cm_cred_count *count); /* dates it */
/* What the platform told of a credential's quota: for the operator, and for choosing (cm_run_quota()). `lease`: of the answer that told it; NULL = none. */
void creds_quota(struct cm_gateway *gw, uint64_t id, struct cm_lease *lease, struct cm_str json);
/* A token that was made of this secret: on the disk before it is used. */
void creds_store_token(struct cm_gateway *gw, uint64_t id, struct cm_str secret,
                       struct cm_str token, int64_t expires_ms);
/* The platform wants neither of the two any more; `why` is told to the pool, unless the disk has newer ones. */
void creds_token_refused(struct cm_gateway *gw, uint64_t id, struct cm_str secret,
                         struct cm_str token, const struct cm_err *why);
void creds_save_tokens(void *arg); /* struct cm_gateway: those that the disk has refused so far */

/* ---- memories.c: what adapters remember beyond a restart ---- */

int memories_load(struct cm_gateway *gw, struct cm_err *err); /* after creds_load() */

/* ---- errand.c: what an account needs outside of an answer ---- */

void errand_refresh(void *arg, const struct cm_cred_info *cred); /* asked for by the pool */
void errand_probe(void *arg, const struct cm_cred_info *cred);
void errand_models(struct cm_gateway *gw, const struct cm_instance *in);
bool errand_under_way(struct cm_gateway *gw, struct cm_str provider); /* a models errand */
void errands_stop(struct cm_gateway *gw); /* all but refreshes, which have 5 s more */
void errands_farewell(void *arg);         /* struct cm_gateway: they are over */
void probes_stop(struct cm_gateway *gw);  /* probe.c */

/* ---- route.c: the URL table ---- */

enum access {
    ACCESS_KEY, /* a client key, where there are any */
    ACCESS_ADMIN,
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

/* Whether "GET HEAD" names the method. */
bool route_lists_method(const char *methods, struct cm_str method);
/* Without repeated slashes and a trailing one. */
struct cm_str route_tidy(struct cm_arena *arena, struct cm_str path);
/* "/v1/x" -> "/x" when `prefix` is "/v1"; false when path does not begin with the whole prefix. */
bool route_strip(struct cm_str *path, struct cm_str prefix);
/* Percent-decoded into the arena; a text with a broken sequence stays as it is. `plus`: + is a space. */
struct cm_str route_decoded(struct cm_arena *arena, struct cm_str text, bool plus);

/* The path as tables write it: without prefix and /v1, however many slashes the client added. */
struct cm_str route_bare(struct cm_arena *arena, struct cm_str prefix, struct cm_str path);

enum route_found { ROUTE_NONE, ROUTE_METHOD, ROUTE_OK };
/* `path` as the client wrote it, still encoded; `rest` is decoded into the arena. ROUTE_METHOD: *allow lists the methods. */
enum route_found route_find(struct cm_arena *arena, struct cm_str prefix, struct cm_str method,
                            struct cm_str path, const struct route **out, struct cm_str *rest,
                            struct cm_str *allow);

/* ---- auth.c: who is it ---- */

/* No client needs a key. */
bool auth_is_open(const struct cm_gateway *gw);
/* Requests an open gateway refuses: those of foreign web pages, and those that name another machine. CM_ERR_FORBIDDEN. */
int auth_check_open(const struct snapshot *s, const struct cm_req *req, struct cm_err *err);
/* The client's key; *key NULL: none is needed. CM_ERR_UNAUTHORIZED, CM_ERR_FORBIDDEN. */
int auth_check(struct cm_gateway *gw, struct cm_req *req, struct cm_key **key, struct cm_err *err);
/* The admin secret. CM_ERR_UNAUTHORIZED; CM_ERR_NOT_FOUND where there is none. */
int auth_check_admin(const struct snapshot *s, const struct cm_req *req, struct cm_err *err);
/* A client's request that shows the admin secret in x-chatmux-admin, too. CM_ERR_UNAUTHORIZED when it is another. */
int auth_check_operator(const struct snapshot *s, const struct cm_req *req, bool *is,
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
    struct cm_str id;          /* request id */
    struct cm_str key;         /* name of the client key, "" = not known yet */
    struct cm_key *client_key; /* held; NULL = none is needed, or not known yet */
    struct cm_reservation reservation;
    struct cm_pool_wait *waiting; /* in line for a credential */
    struct cm_buf tries;          /* JSON: every attempt so far, for the request log */
    struct cm_buf skipped;        /* JSON: targets that were passed over without an attempt */
    unsigned n_skipped;
    struct cm_str
        served_model; /* what the platform calls the model that answers, where it told of another; in the arena */
    struct cm_str served_by; /* label of the latest credential; in the arena */
    uint64_t served_by_id;
    struct cm_web *web;         /* a route of a layer above; NULL = one of ours */
    struct session *session;    /* a WebSocket; in the arena; NULL = an answer like others */
    const struct route *route;  /* NULL: none matches */
    struct cm_str method, path; /* for the log: without the query */
    struct cm_str address;      /* the client's, behind trusted proxies */

    const struct cm_surface *surface;
    struct cm_buf body; /* the client's; taken from the request */
    struct cm_chat
        *chat; /* in the arena; NULL before its body is asked for, empty before it is parsed */
    struct cm_answer_meta meta;
    struct parse_job *parsing; /* a big body is being parsed on another thread */

    struct cm_target *targets; /* in the arena */
    size_t n_targets, target;  /* target: the one tried now */
    struct attempt *attempt;   /* the one in flight */
    struct hedge *hedge;       /* a second one beside it; in the arena, NULL = there was none */
    struct cm_deadline hedge_due;
    bool target_asked; /* an attempt at the current target was made */
    unsigned attempts; /* so far */
    unsigned rotated;  /* of them, those that count against retry.credentials and the retries */
    unsigned retries;  /* back-off retries of this target */
    uint64_t again_ms; /* when its server wants to be asked again; in the past = has not told */
    uint64_t affinity; /* the conversation; 0 = none */
    uint64_t only_credential; /* it has the conversation that the client wants to go on; 0 = any */
    bool begins;              /* its first turn */
    struct cm_tried
        *tried; /* credentials, for this target; in the arena, NULL before the first failure */
    struct cm_err *last,
        *limited; /* why the latest attempt failed; the latest limit that was met; in the arena, NULL = none */
    struct cm_header
        *passed; /* of the latest upstream's answer, what the client gets too; in the arena */
    size_t n_passed;
    struct cm_limits *
        told; /* … the account's limits there, for clients of another dialect; in the arena, NULL = none */
    struct cm_str
        refusal; /* relay lane: the body with which the latest upstream refused; in the arena */
    struct cm_str pinned;      /* x-chatmux-target: the one provider that may serve; "" = any */
    struct cm_str answer_type; /* of what is relayed, where it is not what the dialect says */
    int answer_status;         /* PASS: of the upstream's answer */
    struct cm_str dropped; /* members of the request that the current target drops: "seed, top_k" */
    struct cm_deadline wait; /* back-off, or a cooldown that ends soon */
    uint64_t wait_began_ms;  /* first wait for a cooldown; 0 = none yet */

    void *stream;            /* the surface's state, in the arena; translate lane */
    struct cm_buf hold;      /* what may not be sent yet */
    struct cm_answer answer; /* not a stream, translate lane */
    struct cm_usage usage;
    int64_t cost_micro_usd;
    bool relay; /* the lane of the current attempt */
    bool head_sent, committed, ended;
    bool is_stream;                   /* counts in gw->streams */
    bool enlarged;                    /* the targets are the route's larger ones */
    bool operator;                    /* has shown the admin secret: is told how it was served */
    bool abandoned;                   /* the client has left, the upstream is drained */
    uint64_t drained;                 /* bytes since then */
    enum phase left_in;               /* CLIENT_GONE: where it left */
    struct responses_part *responses; /* Responses API, and routes of one response; in the arena */
    struct background *background;    /* it is a job in the background; NULL = it is not */
    struct resume_stream *kept;       /* the answer survives its client; NULL = it does not */
    struct cm_deadline alive;         /* keep-alive, commit_after */
    uint64_t sent_ms;                 /* last bytes to the client */

    int status;                   /* what the client was told; 0 = nothing */
    uint64_t began_us, body_us;   /* first byte of the request; its body complete */
    uint64_t parsed_us;           /* the request was understood; 0 = nothing to parse */
    uint64_t asked_us, first_us;  /* first attempt; first semantic event */
    uint64_t piece_us;            /* latest semantic event of a stream */
    struct cm_metric *gaps;       /* between them; NULL before the first */
    uint64_t attempt_us;          /* latest attempt */
    uint64_t bytes_in, bytes_out; /* of the bodies */
};

void exchange_attempt_served(struct exchange *ex); /* it ended well */
/* Another attempt was quicker. */
void exchange_lose_attempt(struct exchange *ex);
/* For request.c: a zeroed one with gw set; its clocks are ready and it is in the gateway's list. */
void exchange_init(struct exchange *ex);
/* The only way out, exactly once; the client has got its answer, or left. exchange_free() follows, at the latest when a parsing thread has let go. */
void exchange_end(struct exchange *ex, enum outcome outcome, const struct cm_err *err);
void exchange_free(struct exchange *ex);
void exchange_drop_attempt(struct exchange *ex); /* nobody wants its answer any more */
void exchange_alive_arm(struct exchange *ex);    /* keep-alives, commit_after */
void exchange_note_bytes(
    struct exchange *ex); /* what the request knows is lost when its response ends */
const struct cm_instance *exchange_instance(const struct exchange *ex); /* of the current target */
/* Of the target's model, else of the name the client asked for; NULL = neither has one. */
const struct cm_price *exchange_price(const struct exchange *ex, const struct cm_target *target);
/* Ends with an error: as an answer, or inside the stream. */
void exchange_fail(struct exchange *ex, const struct cm_err *err);
/* The same, after all credentials and targets were tried. */
void exchange_fail_spent(struct exchange *ex, const struct cm_err *err);
/* The error, as an event of the stream that has begun; NULL: its client has cancelled it (a job in the background). */
void exchange_tell(struct exchange *ex, const struct cm_err *why);
/* The whole answer at once; the exchange is over. */
void exchange_answer(struct exchange *ex, int status, struct cm_str content_type,
                     struct cm_str body);

/* Called by the attempt in flight. */
void exchange_event(struct exchange *ex, const struct cm_event *ev);
void exchange_flush(struct exchange *ex);

/* Called by failover.c. The attempt has ended: its lease goes back. */
void exchange_end_attempt(struct exchange *ex, const struct cm_err *verdict, bool blame, bool lost);
void exchange_answered(struct exchange *ex);       /* all of the answer is there */
void exchange_forget_attempt(struct exchange *ex); /* nothing of it may show in the next one */

/* ---- failover.c ---- */

/* The next credential or target, without a pause, until one answers. */
void exchange_next(struct exchange *ex);
/* Called by the attempt in flight. NULL: well. */
void exchange_attempt_ended(struct exchange *ex, const struct cm_err *err);

/* ---- request.c: the client's request, until its first attempt ---- */

/* The HTTP server has a request: routes it, checks the key, serves it. */
void request_begin(struct cm_gateway *gw, struct cm_req *req);
void request_stop_parsing(struct exchange *ex); /* its memory goes when the thread has let go */
/* The admin secret, with the limits per address, for routes that refuse in words of their own. */
int request_check_admin(struct exchange *ex, struct cm_err *err);
/* Whatever a provider answers: POST /v1/chat/completions, /v1/images/generations … */
void serve_chat(struct exchange *ex, struct cm_str rest);
/* Its surface reads the body that has come, or that there is none; then the first attempt. */
void request_parse(struct exchange *ex);
void request_parsed(struct exchange *ex);     /* likewise, when it has been parsed */
void request_parse_body(struct exchange *ex); /* the same, when responses.c has done its part */
/* CM_ERR_BAD_REQUEST (415) for a body that is compressed. */
int request_check_coding(const struct exchange *ex, struct cm_err *err);
/* What a surface and the relay lane may want of the request besides its body. */
void request_chat(struct exchange *ex, struct cm_str rest);

/* ---- pass.c: what is only passed on ---- */

/* Whether a path that no route serves is for an upstream: one under /v1 that leads nowhere else. */
bool pass_wants(struct exchange *ex, struct cm_str *path);
bool pass_has_takers(const struct exchange *ex); /* some provider is there to pass on to */
/* In which dialect that is. */
const struct cm_surface *pass_surface(const struct exchange *ex, struct cm_str path);
void serve_pass(struct exchange *ex, struct cm_str path);
/* Whose upstream it goes to, and whether the key may: the one target, or why there is none. */
int pass_target(struct exchange *ex, struct cm_err *err);
/* Trying it again after a failure on the way could do it twice. */
bool pass_only_once(const struct exchange *ex);

/* ---- session.c: realtime sessions, an exchange whose answer is a WebSocket ---- */

/* GET /v1/realtime */
void serve_realtime(struct exchange *ex, struct cm_str rest);
/* Of the exchange's attempt: opens it, relays, and counts. */
void session_event(struct exchange *ex, const struct cm_event *ev);
/* After the events of one piece, when they have gone out: limits and the end of a drain are looked at. May end the exchange. */
void session_batch(struct exchange *ex);
/* The upstream has ended it well; ends the exchange. */
void session_answered(struct exchange *ex);
/* Tells the client of a failure in an open one. The exchange ends elsewhere. */
void session_fail(struct exchange *ex, const struct cm_err *err);
void session_gone(struct exchange *ex);    /* the client has left; the same */
void session_drained(struct exchange *ex); /* what was sent to the upstream has gone out */
void session_end(struct exchange *ex);     /* of the exchange */
void sessions_drain(
    struct cm_gateway
        *gw); /* those without an answer under way, and later the others after theirs */
size_t sessions_open(const struct cm_gateway *gw); /* those that are being opened, too */
/* For the request log: a member of its JSON object, or nothing. */
void session_log(const struct exchange *ex, struct cm_buf *out);

/* ---- responses.c: responses that are kept ---- */

enum responses_wants { RESPONSES_OBJECT, RESPONSES_ITEMS, RESPONSES_DELETE, RESPONSES_CANCEL };
struct responses_part {
    struct cm_arena kept;   /* what the store told; its thread's while `reading` */
    struct cm_str previous; /* the id that is asked after */
    struct cm_str made;     /* relayed: the upstream's own id */
    uint64_t only;          /* the account that made it; 0 = any */
    struct cm_str maker;   /* of encrypted reasoning: its provider, which may serve another model */
    uint64_t conversation; /* the pool's, of the turn before; 0 = none */
    size_t bytes;          /* of earlier turns */
    enum responses_wants wants;
    bool reading; /* the store is asked; the exchange's memory waits for its answer */
};
/* Before the body is parsed. true: it goes on in request_parse_body(), or has failed. */
bool responses_prepare(struct exchange *ex);
/* Its body has been parsed. */
int responses_check(struct exchange *ex, struct cm_err *err);
uint64_t responses_conversation(const struct exchange *ex); /* 0 = not known */
uint64_t responses_only(const struct exchange *ex);         /* the one credential; 0 = any */
/* The answer is complete: `object`, as the client gets it. */
void responses_keep(struct exchange *ex, struct cm_str object);
/* An upstream has told the id of what it makes, or of encrypted reasoning in it, once or more. */
void responses_made(struct exchange *ex, struct cm_str id, struct cm_str sealed);
/* Whose encrypted reasoning there is in it is asked first. true: it goes on in request_parsed(). */
bool responses_find_maker(struct exchange *ex);
/* Its targets are found: only that one's, if it is among them. */
void responses_narrow(struct exchange *ex);
/* exchange_free() has to wait, and is called by whoever is waited for. */
bool responses_hold(const struct exchange *ex);
void responses_free(struct exchange *ex);
/* /v1/responses/ID, …/input_items, …/cancel */
void serve_response(struct exchange *ex, struct cm_str rest);

/* ---- order.c ---- */

/* Puts the targets (at least one) into the order in which they are tried. */
void order_targets(struct cm_gateway *gw, const struct snapshot *snap, struct cm_target *targets,
                   size_t n, bool streamed);

/* ---- gemini.c: routes of Gemini's dialect ---- */

/* POST /v1beta/models/NAME:operation */
void serve_gemini(struct exchange *ex, struct cm_str rest);
/* The client speaks it, whatever it asks for: by its path, or by the header of Google's clients. */
bool gemini_speaks(struct exchange *ex, const struct cm_req *req);
/* The page of the list that the query asks for. */
void gemini_list_models(struct exchange *ex, const struct cm_model_listed *models, size_t n,
                        struct cm_buf *out);

/* ---- attempt.c: one try with one credential ---- */

/* By what name the pool knows the current target's model. */
struct cm_str attempt_model(struct exchange *ex);
/* What the exchange wants of the pool for its current target. -1: this target cannot answer it (err). */
int attempt_ask(struct exchange *ex, struct cm_pool_ask *ask, struct cm_err *err);
/* The list "a, b" with one more member that has no effect, which is in it once. In the exchange's arena. */
struct cm_str attempt_dropped(struct exchange *ex, struct cm_str list, struct cm_str field);
/* Runs the current target with this lease, which it takes over. */
void attempt_begin(struct exchange *ex, struct cm_lease *lease);
/* Ends it and gives the lease back, now or when the platform has been tidied up. The exchange forgets it. `verdict` NULL: it served well. blame: the
 * credential is judged by it. cancelled: the client left. */
void attempt_end(struct attempt *a, const struct cm_err *verdict, bool blame, bool cancelled);
struct cm_str attempt_label(const struct attempt *a);
void attempt_mask(const struct attempt *a, struct cm_err *err); /* creds_mask() */
uint64_t attempt_credential(const struct attempt *a);           /* its id */
void attempt_pause(struct attempt *a, bool paused);
/* Of a session: cm_run_say(), cm_run_say_close(). */
size_t attempt_say(struct attempt *a, struct cm_str message, bool binary);
void attempt_say_close(struct attempt *a, int code, struct cm_str reason);
/* As attempt_begin(), but the exchange does not know it yet. */
struct attempt *attempt_open(struct exchange *ex, struct cm_lease *lease, size_t target);
/* Another was quicker: no blame, no praise. */
void attempt_lose(struct attempt *a);
struct cm_str attempt_provider(const struct attempt *a);
bool attempt_relays(const struct attempt *a);
/* What its input has cost at least, in micro-USD. */
int64_t attempt_waste(const struct attempt *a);

/* Whose the request is: what is kept for one client key is not for another. "" = no key is needed. */
struct cm_str exchange_scope(struct exchange *ex);

/* ---- hedge.c: a second attempt beside a silent one ---- */

void hedge_arm(struct exchange *ex); /* an attempt has begun */
void hedge_due(void *exchange);
bool hedge_is_rival(const struct exchange *ex, const struct attempt *a);
/* Of the rival, as exchange_event() and exchange_attempt_ended() are of the attempt. */
void hedge_event(struct exchange *ex, const struct cm_event *ev);
void hedge_ended(struct exchange *ex, const struct cm_err *err);
void hedge_dropped(struct exchange *ex, struct cm_str field);
void hedge_cancel(struct exchange *ex);
bool hedge_runs(const struct exchange *ex);
/* The attempt has failed, and its traces are gone: the rival goes on in its place. */
void hedge_take_over(struct exchange *ex);

/* ---- overload.c ---- */

/* -1: nothing new may begin now (CM_ERR_OVERLOADED with retry_after_s). */
int overload_check(struct cm_gateway *gw, struct cm_err *err);
/* The exchange has turned out to be a stream, and counts as one to its end, silent or not. -1: there are as many as may be. */
int overload_admit_stream(struct exchange *ex, struct cm_err *err);
void overload_stream_ended(struct exchange *ex); /* nothing for those that are none */
size_t overload_resident_bytes(void);

/* ---- respond.c: headers every answer has ---- */

#define RESPOND_HEADERS_MAX 40
struct respond {
    struct cm_header v[RESPOND_HEADERS_MAX];
    size_t n;
};
void respond_begin(struct respond *r, struct exchange *ex);
/* HEAD of an upstream: what of it the client gets, too. */
void respond_keep(struct exchange *ex, const struct cm_event *head);
void respond_add(struct respond *r, struct cm_str name, struct cm_str value);
/* spent: every credential was tried, the client need not do it again. */
void respond_error(struct exchange *ex, const struct cm_err *err, bool spent);
/* The upstream's own words, in the dialect that it shares with the client. */
void respond_refusal(struct exchange *ex, const struct cm_err *err);
/* CORS headers for this origin, if it is allowed. */
void respond_cors(struct respond *r, const struct cm_config *config, const struct cm_req *req,
                  bool preflight);

/* ---- background.c: jobs of the Responses API ---- */

/* In the place of the first attempt, which follows when the job is on the disk and its client has been answered. CM_ERR_BAD_REQUEST; as resume_reserve(). */
int background_begin(struct exchange *ex, struct cm_err *err);
/* Relay lane: an upstream's event with our number, and our id where it tells of the whole response. false: it is none, and stays as it came. */
bool background_event(struct exchange *ex, struct cm_str data, uint64_t number, struct cm_buf *out);
/* Its last event has been written: what has become of it is kept. Whether that event says how it ended. */
bool background_keep(struct exchange *ex);
void background_end(struct exchange *ex); /* the exchange forgets it */
/* GET of a response whose job runs, or whose events can still be read: answered. false: the store knows more. */
bool background_get(struct exchange *ex, struct cm_str id);
/* Cancels the job of that id, if one of this client's runs. `forget`: its events, too, if it has ended. */
void background_stop(struct exchange *ex, struct cm_str id, bool forget);

/* ---- report.c: the access line and the figures ---- */

struct figures *figures_new(struct cm_gateway *gw);
void figures_free(struct figures *f);
void report_attempt(struct cm_gateway *gw, struct cm_str provider, const struct cm_err *err);
void report_exchange(struct exchange *ex, enum outcome outcome, const struct cm_err *err);
void report_piece(struct exchange *ex);                 /* a semantic event of a stream came */
void report_streams(struct cm_gateway *gw, int change); /* has begun, or ended after that */
size_t report_streams_open(const struct cm_gateway *gw);
void report_disconnect(struct cm_gateway *gw, enum phase phase);
void report_hedge(struct cm_gateway *gw, struct cm_str provider, bool won);
void report_waste(struct cm_gateway *gw, int64_t micro_usd); /* of attempts that lost */

/* ---- lists.c: what models upstreams have ---- */

void lists_refresh(struct cm_gateway *gw);
/* An errand has ended: `found` (taken over) when it went well, NULL when it failed. */
void lists_found(struct cm_gateway *gw, const struct cm_instance *in, struct listed *found);
struct listed *listed_new(struct cm_str provider);
void listed_add(struct listed *l, const struct cm_model_row *row);
void listed_free(struct listed *l);
void listed_free_all(struct cm_map *listed);

/* ---- web.c: routes of the layers above ---- */

/* NULL: none matches. ROUTE_METHOD as in route_find(). */
enum route_found web_find(struct exchange *ex, struct cm_str *allow);
enum access web_access(const struct exchange *ex);
void web_serve(struct exchange *ex);
void web_next(void *arg);           /* the gateway's task */
void web_body(struct exchange *ex); /* the body has come */
void web_gone(struct exchange *ex); /* the exchange ends; the handler may still have the request */

/* ---- affinity.c: which conversation is it ---- */

/* *begins: its first turn. */
uint64_t affinity_of(const struct exchange *ex, bool *begins);
/* The credential of the platform's conversation that the client hands back (`conversation_id`); 0 = it does not. */
uint64_t handed_to(const struct exchange *ex);

/* ---- pages.c: everything that is no chat ---- */

void serve_models(struct exchange *ex, struct cm_str rest);
void serve_model(struct exchange *ex, struct cm_str rest);
void serve_healthz(struct exchange *ex, struct cm_str rest);
void serve_readyz(struct exchange *ex, struct cm_str rest);
void serve_metrics(struct exchange *ex, struct cm_str rest);
void serve_root(struct exchange *ex, struct cm_str rest);

#endif
