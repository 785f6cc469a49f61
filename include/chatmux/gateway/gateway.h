/* The gateway: client requests in, attempts at providers, answers out. Knows both ends, and each only through its header. Loop
 * thread only. */
#ifndef CHATMUX_GATEWAY_GATEWAY_H
#define CHATMUX_GATEWAY_GATEWAY_H

#include "chatmux/base/config.h"
#include "chatmux/base/metrics.h"
#include "chatmux/keys/keys.h"
#include "chatmux/pool/pool.h"
#include "chatmux/provider/run.h"

struct cm_gateway;

/* Checks what only the upper layers know of a configuration (adapter types, options, routes). -1: the problems tell. */
int cm_gateway_check(struct cm_config *config, struct cm_problems *problems);

/* NULL when the configuration has problems or the store cannot be read. Takes a reference to the configuration. `store` may be NULL:
 * then nothing survives a restart. */
struct cm_gateway *cm_gateway_new(const struct cm_host *host, struct cm_config *config,
                                  struct cm_store *store, struct cm_problems *problems);

/* For struct cm_host: what adapters remember goes on in this store. cm_gateway_new() brings back what it has. */
struct cm_keeper cm_gateway_keeper(struct cm_store *store);

/* Serves from now on with another configuration; requests in flight keep theirs. -1: problems, and nothing has changed. */
int cm_gateway_reload(struct cm_gateway *gw, struct cm_config *config,
                      struct cm_problems *problems);

/* What the HTTP server calls; valid as long as the gateway. */
struct cm_httpd_handler cm_gateway_handler(struct cm_gateway *gw);

/* /readyz turns 503. Realtime sessions are closed (1001) as soon as no answer is under way in them. on_quiet, on a later turn, when no kept stream runs, now
 * or when the last one ends: until then answers may be under way that no connection shows. */
void cm_gateway_drain(struct cm_gateway *gw, void (*on_quiet)(void *arg), void *arg);
/* Ends every open exchange with an error in its dialect, at the drain deadline. */
void cm_gateway_cut(struct cm_gateway *gw);

/* After the HTTP server has closed. Runs that still tidy up keep what they need; on_closed comes on a later turn, when the last is
 * gone. The store is closed after that. */
void cm_gateway_close(struct cm_gateway *gw, void (*on_closed)(void *arg), void *arg);

/* ---- for the layers above: what the gateway works with ---- */

struct cm_metrics *cm_gateway_metrics(struct cm_gateway *gw);
struct cm_pool *cm_gateway_pool(struct cm_gateway *gw);
struct cm_keys *cm_gateway_keys(struct cm_gateway *gw);
struct cm_store *cm_gateway_store(struct cm_gateway *gw); /* NULL: none */
const struct cm_config *cm_gateway_config(const struct cm_gateway *gw);
/* One configured provider; NULL when there is none of that name. Valid until the next reload. */
const struct cm_instance *cm_gateway_instance(const struct cm_gateway *gw, struct cm_str name);
/* Whether the provider gets requests: "closed" (it does), "open", "half_open". */
const char *cm_gateway_breaker(const struct cm_gateway *gw, struct cm_str provider);
/* Every model with its targets, as requests find them. Valid until the next reload. */
const struct cm_models *cm_gateway_models(const struct cm_gateway *gw);

struct cm_gateway_stats {
    size_t exchanges, streams, attempts; /* open now */
    size_t kept_running, kept_ended;     /* streams that survive their client */
    size_t kept_bytes;                   /* of their events */
    uint64_t requests;                   /* since the start */
    int64_t started_ms;                  /* Unix */
    uint64_t loop_lag_us;                /* of the last second or two */
    bool draining;
};
void cm_gateway_stats(const struct cm_gateway *gw, struct cm_gateway_stats *out);

/* ---- changes by an operator: durable before `done`, which comes on a later turn, once ---- */

/* err NULL: done; id of what was changed. */
typedef void cm_gateway_done_fn(void *arg, uint64_t id, const struct cm_err *err);

struct cm_cred_edit { /* what is set by `has`; the rest stays as it is */
    uint64_t id;      /* 0 = a new one: provider and secret are needed */
    enum {
        CM_EDIT_SECRET = 1,
        CM_EDIT_LABEL = 2,
        CM_EDIT_PROXY = 4,
        CM_EDIT_WEIGHT = 8,
        CM_EDIT_MAX_INFLIGHT = 16,
        CM_EDIT_ENABLED = 32
    } has;
    struct cm_str provider, secret, label, proxy;
    int64_t weight, max_inflight;
    bool enabled;
};
/* CM_ERR_BAD_REQUEST with param: unknown provider, a secret that cannot be one, one that is there already, a configured
 * credential's secret or provider (those stand in the file). CM_ERR_NOT_FOUND. */
void cm_gateway_edit_cred(struct cm_gateway *gw, const struct cm_cred_edit *edit,
                          cm_gateway_done_fn *done, void *arg);
void cm_gateway_delete_cred(struct cm_gateway *gw, uint64_t id, cm_gateway_done_fn *done,
                            void *arg);

/* Conversations that another gateway led with the account of this secret: each goes on here once, when a client comes back with it. `model` as that one's
 * clients wrote it; `name` as the adapter's old_thread() tells it. CM_ERR_BAD_REQUEST with param: no such provider, or account. */
struct cm_old_thread {
    struct cm_str model, name, value;
};
void cm_gateway_take_threads(struct cm_gateway *gw, struct cm_str provider, struct cm_str secret,
                             const struct cm_old_thread *threads, size_t n,
                             cm_gateway_done_fn *done, void *arg);

/* Asks the platform now, whatever the state; ok resets the state. */
typedef void cm_gateway_checked_fn(void *arg, bool ok, const char *message, int64_t ms);
void cm_gateway_check_cred(struct cm_gateway *gw, uint64_t id, cm_gateway_checked_fn *fn,
                           void *arg);

/* Runs one flow of an account once and tells every step it took, so that a platform that has changed can be understood. No lease is taken and no state
 * changes, except that a refreshed token is kept. */
struct cm_probe_ask {
    struct cm_str provider;
    uint64_t credential;    /* 0 = one that works, if there is one */
    struct cm_str flow;     /* "chat" ("" too), "refresh", "login", "check", "models" */
    struct cm_str model;    /* chat: "" = the provider's first */
    struct cm_str question; /* chat: "" = a short one of ours */
};
/* Once: a JSON object as the shape "Probe" of /openapi.json tells it, secrets masked, valid until the return; or err when nothing could be asked. It may
 * come from within the call. */
typedef void cm_gateway_probed_fn(void *arg, struct cm_str json, const struct cm_err *err);
void cm_gateway_probe(struct cm_gateway *gw, const struct cm_probe_ask *ask,
                      cm_gateway_probed_fn *done, void *arg);

/* What would become of a request that came now: the shape "Explanation" of /openapi.json. -1: CM_ERR_NOT_FOUND, of the model or the key. */
struct cm_explain_ask {
    struct cm_str model;
    struct cm_str key; /* name of a client key; "" = none */
    bool streamed;
};
int cm_gateway_explain(struct cm_gateway *gw, const struct cm_explain_ask *ask, struct cm_buf *out,
                       struct cm_err *err);

/* row->id 0 = a new one. */
void cm_gateway_put_key(struct cm_gateway *gw, const struct cm_key_row *row,
                        cm_gateway_done_fn *done, void *arg);
void cm_gateway_delete_key(struct cm_gateway *gw, uint64_t id, cm_gateway_done_fn *done, void *arg);

/* ---- routes of the layers above ---- */

struct
    cm_web; /* one request of such a route; the handler's until it is answered, also after the client has left */
struct cm_web_route {
    const char *methods; /* "GET POST" */
    const char
        *path; /* "/admin/api/keys"; a segment "*" matches one segment, a final "*" the rest */
    bool
        admin; /* the admin secret is needed: checked before `serve`; without one in the configuration the route is 404 */
    bool client; /* a client key is needed, where clients need one; found with /v1 in front, too */
    bool body;   /* the body is read first (up to 1 MiB) */
    /* Reads, changes and answers later: only one of these at a time, in the order they came, so that two changes of one
     * row cannot undo each other. */
    bool exclusive;
    void (*serve)(void *arg, struct cm_web *web);
};
/* Table and arg are borrowed for the gateway's life. Served below the route prefix too; with /v1 in front only those of clients. */
void cm_gateway_mount(struct cm_gateway *gw, const struct cm_web_route *table, size_t n, void *arg);

struct cm_str cm_web_method(const struct cm_web *web);
struct cm_str cm_web_path(const struct cm_web *web);
/* What the n-th "*" of the route's path matched, decoded; "" when there is none. */
struct cm_str cm_web_segment(const struct cm_web *web, size_t n);
struct cm_str cm_web_query(struct cm_web *web, struct cm_str name); /* decoded; "" = absent */
struct cm_str cm_web_header(const struct cm_web *web, struct cm_str name);
struct cm_str cm_web_body(const struct cm_web *web);
struct cm_str cm_web_address(const struct cm_web *web); /* the client's, for the log */
/* Of a `client` route: who asks; NULL when no key is needed and none was shown. The name as the ledger has it. */
const struct cm_key *cm_web_key(const struct cm_web *web);
struct cm_str cm_web_key_name(const struct cm_web *web);
/* The same check as for `admin` routes, for those that refuse in words of their own: -1 and CM_ERR_UNAUTHORIZED, CM_ERR_CLIENT_LIMIT (too many wrong
 * ones from this address) or CM_ERR_NOT_FOUND (no secret is configured). */
int cm_web_check_admin(struct cm_web *web, struct cm_err *err);
struct cm_arena *cm_web_arena(struct cm_web *web); /* lives until the answer */
/* Exactly one of the two; web is gone afterwards. cm_web_fail(): in the OpenAI dialect. */
void cm_web_answer(struct cm_web *web, int status, struct cm_str content_type, struct cm_str body);
void cm_web_fail(struct cm_web *web, const struct cm_err *err);

#endif
