/* A run drives one flow of an adapter: one attempt of an exchange, or one errand of a credential. Loop thread only.
 *
 * Upper half: what the gateway does with runs. Lower half: what adapters call from within step. */
#ifndef CHATMUX_PROVIDER_RUN_H
#define CHATMUX_PROVIDER_RUN_H

#include "chatmux/io/job.h"
#include "chatmux/io/wsc.h"
#include "chatmux/provider/memory.h"

/* How runs reach the world: real transfers, or scripted ones in tests and simulations. */
struct cm_transport {
    struct cm_xfer *(*open)(void *arg, const struct cm_xfer_req *req, const struct cm_xfer_cb *cb,
                            void *cb_arg);
    void (*pause)(void *arg, struct cm_xfer *x);
    void (*resume)(void *arg, struct cm_xfer *x);
    void (*close)(void *arg, struct cm_xfer *x);
    void (*info)(void *arg, const struct cm_xfer *x, struct cm_xfer_info *out); /* may be NULL */
    struct cm_ws *(*ws_open)(void *arg, const struct cm_xfer_req *req, size_t max_message,
                             const struct cm_ws_cb *cb, void *cb_arg);
    size_t (*ws_send)(void *arg, struct cm_ws *ws, struct cm_str message, bool binary);
    void (*ws_ping)(void *arg, struct cm_ws *ws);
    void (*ws_say_close)(void *arg, struct cm_ws *ws, int code, struct cm_str reason);
    void (*ws_pause)(void *arg, struct cm_ws *ws);
    void (*ws_resume)(void *arg, struct cm_ws *ws);
    void (*ws_close)(void *arg, struct cm_ws *ws);
    void (*ws_info)(void *arg, const struct cm_ws *ws, struct cm_xfer_info *out); /* may be NULL */
    void *arg;
};
struct cm_host { /* not owned; outlives all runs */
    struct cm_loop *loop;
    struct cm_jobs *jobs;
    struct cm_transport transport;
    struct cm_memo *memo;    /* what flows remember; NULL: they forget at once */
    struct cm_keeper keeper; /* … and what of it survives a restart */
};
/* Real transfers over `hc`. */
struct cm_transport cm_transport_httpc(struct cm_httpc *hc);

struct cm_run_cb {
    /* Canonical events as the adapter emits them; the last before on_end is FINISH (or the last RELAY). May close the run. */
    void (*on_event)(void *arg, const struct cm_event *ev);
    /* After the events of one piece of upstream input: the place to flush. May close the run. */
    void (*on_batch)(void *arg);
    /* Once: err NULL when the flow returned DONE. May close the run. */
    void (*on_end)(void *arg, const struct cm_err *err);
    /* What cm_run_say() has queued fell below CM_WS_LOW after it had been above CM_WS_HIGH. May close the run. May be NULL. */
    void (*on_drain)(void *arg);
};

/* What a person who looks for a fault wants to see; slices are valid until the return, secrets are in them. */
struct cm_trace {
    const char *state; /* the flow's own name of where it is */
    const char *
        what; /* "ask", "head", "reply", "data", "end", "failed", "timer", "computed", "open", "event", "odd" */
    int status;   /* head, reply; 0 = none */
    size_t bytes; /* of the body that was sent or came */
    struct cm_str
        text; /* ask: method and URL; reply, data: the beginning of it; failed: why; event: its kind and text; odd: what was not understood */
    struct cm_str piece; /* odd: the piece itself; ask: the body's beginning */
    int64_t ms;          /* since the run began */
};

struct cm_run_setup {
    const struct cm_flow *flow;
    const struct cm_instance *instance;
    const struct cm_chat *chat;     /* NULL outside of an answer */
    const struct cm_target *target; /* which model, which modifiers; NULL outside of an answer */
    struct cm_cred cred;
    struct cm_str id;    /* request id, for the log */
    struct cm_str scope; /* who the client is; "" = nobody in particular (open gateway, errands) */
    /* What errands bring home, and answers too; same arg; slices are valid until the return. Token and quota also come while the flow goes on without its
     * owner, until `released`. */
    void (*on_model)(void *arg, const struct cm_model_row *row);
    void (*on_token)(void *arg, struct cm_str token, int64_t expires_unix_ms);
    void (*on_quota)(void *arg, struct cm_str json);
    /* The flow goes on, but the credential may serve others; same arg; once, after on_end and before `released`. NULL: it waits for that. */
    void (*on_spared)(void *arg);
    void (*on_trace)(void *arg,
                     const struct cm_trace *trace); /* may be NULL; must not close the run */
    /* A member of the request that has no effect; same arg. May be NULL. */
    void (*on_dropped)(void *arg, struct cm_str field);
    size_t max_message; /* of a WebSocket; 0 = 16 MiB */
    /* Of a session: the platform is pinged when it was silent for so long; silent for twice as long it is lost. 0 = never */
    int64_t ping_ms;
};

/* Chat and target are borrowed until cm_run_close(); instance, credential and their strings until the credential is released (see there). The first
 * step comes on a later turn. */
struct cm_run *cm_run_open(const struct cm_host *host, const struct cm_run_setup *setup,
                           const struct cm_run_cb *cb, void *arg);
/* A slow client: pieces stop coming, and the idle clock stands still. */
void cm_run_pause(struct cm_run *run);
void cm_run_resume(struct cm_run *run);
/* Sessions (a WebSocket that is the client's, `session` in struct cm_call), while they are open; no effect otherwise. A message of the client goes up as it
 * is, and the flow does not hear of it; returns the bytes that wait for the platform's socket. */
size_t cm_run_say(struct cm_run *run, struct cm_str message, bool binary);
/* How the client has ended it: goes up before cm_run_close() ends the connection. */
void cm_run_say_close(struct cm_run *run, int code, struct cm_str reason);
/* Final: the owner hears nothing more. A run that has not ended gets CM_EV_STOP and may go on by itself for at most 5 s to tidy up on the
 * platform, without its chat. `released` (may be NULL) is called once, within this call or later, when the credential is free. */
void cm_run_close(struct cm_run *run, void (*released)(void *arg), void *arg);

struct cm_run_info {
    const char *state;                   /* the flow's own name of where it is */
    uint64_t began_us;                   /* monotonic */
    uint64_t first_byte_us, semantic_us; /* 0 = not yet */
    uint64_t
        connect_us; /* what its calls have spent on new connections: name, TCP, TLS; 0 = all were there */
    uint64_t bytes_up, bytes_down;
};
void cm_run_info(const struct cm_run *run, struct cm_run_info *out);

/* The credential that a request's `conversation_id` speaks of, when that is one of our handles (cm_run_conversation()): nobody else can go on there. 0 =
 * it has none. Whether it is genuine its run decides. */
uint64_t cm_handle_credential(const struct cm_chat *chat);

/* ---- For adapters, within step ---- */

struct cm_call {
    const char *method; /* "POST" */
    struct cm_str url;  /* absolute, or a path below the instance's base_url */
    const struct cm_header
        *headers; /* besides the operator's header.… and User-Agent, which the run adds */
    size_t n_headers;
    struct cm_str body; /* must live in the arena, the chat or the setup */
    size_t max_reply;   /* fetch: 0 = 4 MiB. More fails as CM_ERR_UPSTREAM_DOWN */
    int64_t timeout_ms; /* fetch: 0 = response_timeout */
    bool
        long_wait; /* stream: the answer itself is not streamed: response_timeout instead of first_token and idle */
    bool
        lands; /* fetch: it makes something on the platform that may have to go again. When the client leaves meanwhile, STOP waits for the
                 * reply and carries it: status, headers, data; status 0 = none came */
    bool
        session; /* ws: lasts as long as its client likes: after OPEN only the setup's ping_ms counts, no other clock */
    /* A client chose the address (provider/attach.h): private and loopback ones are refused unless allow_private_fetch, and nothing of the operator's goes
     * along: no header.…, no connection of the credential's. A proxy cannot be watched, so it is only used with allow_private_fetch. */
    bool foreign;
    bool
        unverified; /* any certificate is accepted; for a service of the operator's, and on its own connection */
};

enum cm_step cm_run_fetch(struct cm_run *run, const struct cm_call *call); /* -> REPLY or FAILED */
enum cm_step cm_run_stream(struct cm_run *run,
                           const struct cm_call *call); /* -> HEAD, DATA*, END or FAILED */
enum cm_step cm_run_ws(struct cm_run *run,
                       const struct cm_call *call); /* wss:// URL -> OPEN, DATA*, END or FAILED */
void cm_run_ws_send(struct cm_run *run, struct cm_str message, bool binary); /* after OPEN */
enum cm_step cm_run_sleep(struct cm_run *run, int64_t ms);                   /* -> TIMER */
/* fn(arg) on the cpu lane; arg is touched by nobody else until COMPUTED. When the run ends first, `cancelled` becomes true and drop(arg) follows (may be
 * NULL) once the thread has let go: arg must then not be in the run's arena. */
enum cm_step cm_run_compute(struct cm_run *run, void (*fn)(void *arg, const atomic_bool *cancelled),
                            void *arg, void (*drop)(void *arg));
/* Ends what is in flight (a stream that has said all) without waiting for its end. */
void cm_run_hang_up(struct cm_run *run);
/* After FINISH: the client's answer ends with this step, which returns WAIT. The flow goes on with the credential for at most 15 s (deletes the
 * conversation, fetches something ahead): chat and target are gone, what it emits nobody hears, STOP does not come, its failure is only logged. A
 * stream that is still open then fails after a second of silence. */
void cm_run_answered(struct cm_run *run);
/* After that: what is left to do needs no turn of the account (no question, no stream), which serves others from here on. */
void cm_run_spare(struct cm_run *run);

void *cm_run_state(struct cm_run *run);
struct cm_arena *cm_run_arena(struct cm_run *run);
const struct cm_chat *cm_run_chat(const struct cm_run *run);
const struct cm_target *cm_run_target(const struct cm_run *run);
/* The upstream's words name the model that is asked for: as a whole word, and by a name that is no word of a language ("gpt-4o", not "chat"). */
bool cm_run_names_model(const struct cm_run *run, struct cm_str words);
const struct cm_instance *cm_run_instance(const struct cm_run *run);
const struct cm_cred *cm_run_cred(const struct cm_run *run);
int64_t cm_run_unix_ms(const struct cm_run *run);
struct cm_str cm_run_scope(const struct cm_run *run);

/* What a platform sees of the person's browser: one and the same for each credential. They age; the operator's user_agent wins. */
struct cm_browser {
    struct cm_str user_agent, sec_ch_ua, sec_ch_ua_platform, accept_language;
};
const struct cm_browser *cm_run_browser(const struct cm_run *run);

void cm_run_emit(struct cm_run *run, const struct cm_event *ev);
void cm_run_text(struct cm_run *run,
                 struct cm_str text); /* choice 0, like the others; empty text is no event */
void cm_run_reasoning(struct cm_run *run, struct cm_str text);
void cm_run_usage(struct cm_run *run, const struct cm_usage *usage);
void cm_run_finish(struct cm_run *run, enum cm_finish finish);
/* Another model than the one that was asked for answers: as early as it is known. Clients read it in x-chatmux-model, or, when their answer has begun, as
 * `served_model` of its last chunk. */
void cm_run_served(struct cm_run *run, struct cm_str model);
void cm_run_model(struct cm_run *run, const struct cm_model_row *row); /* models_list */
/* refresh, login, probe: what later runs get as cred.token; expires 0 = not known. Once, before DONE. */
void cm_run_token(struct cm_run *run, struct cm_str token, int64_t expires_unix_ms);
/* Figures of the account, a JSON object: for the operator, and for choosing where models have a `cost`: "credit" and "advanced_credit" are what is left in
 * the two purses, "renews_ms" (Unix) when the platform fills them up. From probe; from an answer after its FINISH, or before it fails: its cost is then in
 * the figures already. */
void cm_run_quota(struct cm_run *run, struct cm_str json);
/* Besides what the adapter's `understands` tells: a member of the canonical request ("seed") that has no effect at this model. To be called
 * in the step that answers START, before anything is emitted; with `strict` set the run then fails when the step returns. */
void cm_run_dropped(struct cm_run *run, const char *field);
/* Something of the platform's was not understood: logged with the state, secrets masked, and counted. Not an error by itself. */
void cm_run_odd(struct cm_run *run, const char *what, struct cm_str piece);

/* ---- Between runs of one credential of one provider (remember.c). Bounded, not found with another secret; lost at a restart unless it says so ---- */

/* *value is valid until the step returns or something is remembered. */
bool cm_run_recall(struct cm_run *run, struct cm_str key, struct cm_str *value);
void cm_run_remember(struct cm_run *run, struct cm_str key, struct cm_str value, int64_t ttl_ms);
/* Found after a restart as well, if the account has a number and the disk has room. Of the value nothing may be secret: it is stored as it is, up to 4 KiB;
 * of the key only a digest is. */
void cm_run_remember_durably(struct cm_run *run, struct cm_str key, struct cm_str value,
                             int64_t ttl_ms);
void cm_run_forget(struct cm_run *run, struct cm_str key);

/* ---- Conversations of the platform that are to go and are still there (left.c). Kept for the account for a week, over restarts too: what one run cannot
 * delete a later one does ---- */

#define CM_LEFT_ALONE_MS 30000             /* longer than a run goes on after its answer */
#define CM_LEFT_ASKED_MS (2 * 3600 * 1000) /* longer than an answer takes */

/* `id` has no space in it. For mine_ms this run is at it, unless the process ends; 0: nobody is. */
void cm_run_left_put(struct cm_run *run, struct cm_str id, int64_t mine_ms);
void cm_run_left_gone(struct cm_run *run, struct cm_str id);
/* The platform did not delete it: it is tried again, five times at most. */
void cm_run_left_failed(struct cm_run *run, struct cm_str id);
/* One that nobody is at; in the arena, empty when there is none. */
struct cm_str cm_run_left_next(struct cm_run *run);

/* ---- What clients' conversations keep ---- */

/* The same for what belongs to the client's conversation and not to an account: what a platform wants back on the next turn and the client's dialect has
 * no place for (a signature of reasoning, encrypted reasoning). One client of one provider finds only its own, for CM_KEPT_MS, whatever credential
 * serves it. The key is the id of a tool call, or cm_run_text_key() of a message; put the model into the value where it matters. */
bool cm_run_kept(struct cm_run *run, struct cm_str key, struct cm_str *value);
void cm_run_keep(struct cm_run *run, struct cm_str key, struct cm_str value);
#define CM_KEPT_MS (6 * 60 * 60 * 1000)
/* Of an answer's text, white space left out; in the run's arena. */
struct cm_str cm_run_text_key(struct cm_run *run, struct cm_str text);

/* A conversation of the platform that can go on. It survives a restart, and requests that go on with it are given to the account that has it
 * (threads.c, provider/memory.h). */
struct cm_thread {
    struct cm_str value; /* what was kept; in the run's arena */
    size_t from;         /* first message the platform has not seen */
    bool
        alone; /* by a handle, and the messages do not hold what came before: nobody else can be told of it */
};
/* To be called before anything is emitted. True: this client's conversation so far is one that ended with an answer of this credential in the same
 * model, and nothing but new messages follow. White space does not count when messages are compared. */
bool cm_run_thread(struct cm_run *run, struct cm_thread *out);
/* The same by the handle that the client has handed back, before cm_run_thread(). 1: it is good, for this client, credential and model; `from` is
 * behind the last answer, or at the first message that is no system text. 0: there is none, or a wrong one beside a whole conversation. -1: it
 * is not good and what it stands for is not in the messages (*err, for the client). */
int cm_run_handed(struct cm_run *run, struct cm_thread *out, struct cm_err *err);
/* Before FINISH: tells the client a handle (`conversation_id`) by which it can go on with new messages alone, for as long as the platform keeps the
 * conversation. It outlives a restart, holds no secret, and is of no use to anybody else's key. */
void cm_run_conversation(struct cm_run *run, struct cm_str value);
/* After FINISH, before cm_run_answered(), when cm_run_thread() was asked: `value` is found when this conversation goes on. It is no secret, and one of
 * another account that has the same conversation is forgotten. */
void cm_run_thread_keep(struct cm_run *run, struct cm_str value, int64_t ttl_ms);

#endif
