/* What the files of the admin layer share: the table of operations, the shapes of bodies and answers, and helpers of the routes. */
#ifndef CHATMUX_ADMIN_INT_H
#define CHATMUX_ADMIN_INT_H

#include "chatmux/admin/admin.h"
#include "chatmux/base/crypto.h"
#include "chatmux/codec/json.h"

/* ---- shapes.c: what goes in and comes out; read by the parser of bodies and by /openapi.json ---- */

enum shape_type {
    SHAPE_STR,
    SHAPE_WORD, /* one of `words` */
    SHAPE_INT,
    SHAPE_USD, /* dollars; kept as micro-dollars */
    SHAPE_NUMBER,
    SHAPE_BOOL,
    SHAPE_TIME, /* RFC 3339; kept as Unix ms */
    SHAPE_STRS, /* array of strings */
    SHAPE_ANY,  /* an object whose members are not ours to name */
    SHAPE_ONE,  /* an object of the shape `words` */
    SHAPE_MANY  /* an array of them */
};
struct field {
    const char *name;
    enum shape_type type;
    bool required, nullable;
    int64_t min, max;  /* SHAPE_INT; of a text max is the most bytes; both 0 = no bounds */
    const char *words; /* "day|week", or the name of a shape */
    const char *help;
};
struct shape {
    const char *name;
    const struct field *fields;
    size_t n;
    bool open; /* more members may come */
};
extern const struct shape shapes[];
extern const size_t shapes_n;
const struct shape *shape_find(const char *name); /* NULL: none of that name */

/* ---- body.c ---- */

#define FIELDS_MAX 16 /* of a shape that is read */
struct value {
    bool given, null;
    struct cm_str s; /* SHAPE_STR, SHAPE_WORD; SHAPE_STRS: the array as JSON text */
    int64_t i;       /* SHAPE_INT; SHAPE_USD: micro-dollars; SHAPE_TIME: Unix ms */
    bool b;
};
struct body {
    const struct shape *shape;
    struct value values[FIELDS_MAX];
};
/* CM_ERR_BAD_REQUEST with param: an unknown or doubled member, a wrong type, a value out of range, a required one that is missing. Texts live
 * in the arena. An empty text is an empty object. */
int body_read(struct body *body, struct cm_arena *arena, struct cm_str text, const char *shape,
              struct cm_err *err);
/* NULL when the member was not given. A name that the shape does not have is our own bug. */
const struct value *body_get(const struct body *body, const char *name);
/* The member's text, "" when it was not given or is null. */
struct cm_str body_str(const struct body *body, const char *name);
int64_t body_int(const struct body *body, const char *name, int64_t otherwise);

/* A decimal number from 1; false for anything else. */
bool id_parse(struct cm_str text, uint64_t *id);

/* ---- write.c: values as JSON ---- */

/* One object being written; members come in the order of the calls. */
struct out {
    struct cm_buf *buf;
    bool some; /* a member stands there already */
};
struct out out_begin(struct cm_buf *buf);
void out_end(struct out *o);
void out_name(struct out *o, const char *name); /* a value of the caller's follows */
void out_str(struct out *o, const char *name, struct cm_str s);
void out_str_or_null(struct out *o, const char *name, struct cm_str s); /* "" gives null */
void out_int(struct out *o, const char *name, int64_t v);
void out_int_or_null(struct out *o, const char *name, int64_t v); /* 0 gives null */
void out_bool(struct out *o, const char *name, bool v);
void out_usd(struct out *o, const char *name, int64_t micro_usd);
void out_time(struct out *o, const char *name, int64_t unix_ms); /* 0 gives null */
void out_id(struct out *o, const char *name, uint64_t id); /* a decimal string; 0 gives null */
void out_json(struct out *o, const char *name, struct cm_str json); /* "" gives null */

/* A URL without the password in it: "http://user:***@host". In the arena when it differs. */
struct cm_str url_shown(struct cm_arena *arena, struct cm_str url);

void cred_write(struct cm_buf *out, struct cm_arena *arena, const struct cm_pool *pool,
                const struct cm_cred_info *cred);
/* `limits` may be NULL; `secret` "" leaves the member "key" out. */
void key_write(struct cm_buf *out, const struct cm_key_row *row, const struct cm_key_limits *limits,
               struct cm_str secret);
void request_write(struct cm_buf *out, const struct cm_request_row *row);
void usage_write(struct cm_buf *out, const struct cm_usage_row *row);
void counts_write(struct cm_buf *out, const struct cm_pool_counts *counts);

/* ---- operations: one table for the routes and for /openapi.json ---- */

struct op {
    const char *method; /* GET answers HEAD, too */
    const char *path;   /* "/admin/api/keys/{id}" */
    void (*serve)(void *admin, struct cm_web *web);
    const char *summary;
    const char *query;  /* names of parameters, "limit cursor"; NULL = none */
    const char *body;   /* a shape; NULL = none */
    const char *answer; /* a shape, "Key[]" for a page of them, "text/plain" for what is no JSON */
    int status;         /* when all is well */
    enum {
        OP_ADMIN,  /* the admin secret */
        OP_SEED,   /* the same, refused in the words of the seed */
        OP_CLIENT, /* a client key */
        OP_PUBLIC,
        OP_ALIAS /* public, where another gateway had it; not told of */
    } access;
};
extern const struct op admin_ops[]; /* admin.c: what this layer serves */
extern const size_t admin_ops_n;
extern const struct op client_ops[]; /* openapi.c: what the gateway serves */
extern const size_t client_ops_n;

/* openapi.c: the document; `prefix` is the gateway's route prefix. */
void openapi_write(struct cm_buf *out, struct cm_str prefix);
extern const struct field query_params[];
extern const size_t query_params_n;

/* ---- admin.c ---- */

#define SAMPLES 64
struct cm_admin {
    struct cm_gateway *gw; /* not owned */
    cm_admin_reload_fn *reload;
    void *reload_arg;
    struct cm_web_route *routes; /* owned, with their paths; one for each of admin_ops */
    struct cm_buf docs;          /* the page of /docs */
    struct sample {
        uint64_t at_ms; /* monotonic; 0 = none */
        uint64_t requests;
    } samples[SAMPLES]; /* what GET stats saw; a ring */
    size_t last_sample;
    uint64_t refreshing; /* seed_hix.c: the credential being checked; 0 = none */
};

/* A request that waits for the gateway or the store; lives in the request's arena. */
struct task {
    struct cm_admin *admin;
    struct cm_web *web;
    struct cm_str text; /* the operation's own */
    uint64_t id;        /* likewise */
};
struct task *task_new(struct cm_admin *admin, struct cm_web *web);
/* What it waited for went wrong: answers that. */
bool task_failed(const struct task *t, const struct cm_err *err);
/* What it waited for is deleted, or that failed: answers. `arg`: the task. */
void task_deleted(void *arg, uint64_t id, const struct cm_err *err);

/* Answers with what the buffer holds and clears it. */
void answer_json(struct cm_web *web, int status, struct cm_buf *json);
/* Begins {"data":[ and ends it with the cursor of the next page ("" = null). */
void list_begin(struct cm_buf *out);
void list_end(struct cm_buf *out, struct cm_str next);
/* ?limit= and the like; -1 and CM_ERR_BAD_REQUEST when it is no number of that range. */
int query_int(struct cm_web *web, const char *name, int64_t otherwise, int64_t max, int64_t *out,
              struct cm_err *err);
/* The first segment of the path as an id; otherwise 404 is answered and 0 returned. `what` is "credential" or "key". */
uint64_t segment_id(struct cm_web *web, const char *what);
void answer_missing(struct cm_web *web, const char *what, struct cm_str id);
/* There is a store; otherwise 503 is answered. */
struct cm_store *need_store(struct cm_admin *admin, struct cm_web *web);

/* ---- the operations ---- */

void creds_list(void *admin, struct cm_web *web);
void creds_create(void *admin, struct cm_web *web);
void creds_get(void *admin, struct cm_web *web);
void creds_patch(void *admin, struct cm_web *web);
void creds_delete(void *admin, struct cm_web *web);
void creds_check(void *admin, struct cm_web *web);
void creds_reset(void *admin, struct cm_web *web);
void conversations_take(void *admin, struct cm_web *web);

void keys_list(void *admin, struct cm_web *web);
void keys_create(void *admin, struct cm_web *web);
void keys_get(void *admin, struct cm_web *web);
void keys_patch(void *admin, struct cm_web *web);
void keys_delete(void *admin, struct cm_web *web);
/* NULL: there is none. Of a configured and a stored key with one secret the stored one. */
const struct cm_key *keys_by_id(struct cm_keys *keys, uint64_t id);
const struct cm_key *keys_by_secret(struct cm_keys *keys, struct cm_str secret);

void providers_list(void *admin, struct cm_web *web);
void providers_probe(void *admin, struct cm_web *web);
void explain(void *admin, struct cm_web *web);
void models_list(void *admin, struct cm_web *web);
void usage_list(void *admin, struct cm_web *web);
void requests_list(void *admin, struct cm_web *web);
void requests_get(void *admin, struct cm_web *web);

void billing_subscription(void *admin, struct cm_web *web);
void billing_usage(void *admin, struct cm_web *web);

void system_stats(void *admin, struct cm_web *web);
void system_reload(void *admin, struct cm_web *web);
void system_rekey(void *admin, struct cm_web *web);
void system_backup(void *admin, struct cm_web *web);
void serve_openapi(void *admin, struct cm_web *web);
void serve_docs(void *admin, struct cm_web *web);
void serve_swagger(void *admin, struct cm_web *web);

void seed_verify(void *admin, struct cm_web *web);
void seed_key_put(void *admin, struct cm_web *web);
void seed_key_delete(void *admin, struct cm_web *web);
void seed_key_update(void *admin, struct cm_web *web);
void seed_key_all(void *admin, struct cm_web *web);
void seed_cookie_put(void *admin, struct cm_web *web);
void seed_cookie_delete(void *admin, struct cm_web *web);
void seed_cookie_update(void *admin, struct cm_web *web);
void seed_cookie_all(void *admin, struct cm_web *web);
void seed_cookie_refresh(void *admin, struct cm_web *web);

#endif
