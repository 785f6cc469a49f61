/* The table of what operators can ask, its routes, and what every operation needs to answer. */
#include "admin_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/ui/docs.h"

#include <stdlib.h>

#define API "/admin/api"

const struct op admin_ops[] = {
    {"GET", API "/credentials", creds_list, "Every credential with its state",
     "provider limit cursor", NULL, "Credential[]", 200, OP_ADMIN},
    {"POST", API "/credentials", creds_create, "Add a credential", NULL, "CredentialNew",
     "Credential", 201, OP_ADMIN},
    {"GET", API "/credentials/{id}", creds_get, "One credential", NULL, NULL, "Credential", 200,
     OP_ADMIN},
    {"PATCH", API "/credentials/{id}", creds_patch, "Change a credential", NULL, "CredentialChange",
     "Credential", 200, OP_ADMIN},
    {"DELETE", API "/credentials/{id}", creds_delete, "Remove a credential", NULL, NULL, "Deleted",
     200, OP_ADMIN},
    {"POST", API "/credentials/{id}/check", creds_check, "Ask the platform whether it is good",
     NULL, NULL, "Check", 200, OP_ADMIN},
    {"POST", API "/credentials/{id}/reset", creds_reset, "Forget its cooldowns and errors", NULL,
     NULL, "Credential", 200, OP_ADMIN},

    {"POST", API "/conversations", conversations_take,
     "Conversations that another gateway led with an account go on here", NULL, "ConversationsNew",
     "ConversationsTaken", 200, OP_ADMIN},

    {"GET", API "/keys", keys_list, "Every client key with its limits", "limit cursor", NULL,
     "Key[]", 200, OP_ADMIN},
    {"POST", API "/keys", keys_create, "Make a client key; it is shown this once", NULL, "KeyNew",
     "Key", 201, OP_ADMIN},
    {"GET", API "/keys/{id}", keys_get, "One client key", NULL, NULL, "Key", 200, OP_ADMIN},
    {"PATCH", API "/keys/{id}", keys_patch, "Change a client key", NULL, "KeyChange", "Key", 200,
     OP_ADMIN},
    {"DELETE", API "/keys/{id}", keys_delete, "Remove a client key", NULL, NULL, "Deleted", 200,
     OP_ADMIN},

    {"GET", API "/providers", providers_list, "Every provider with its credentials by state", NULL,
     NULL, "Provider[]", 200, OP_ADMIN},
    {"POST", API "/providers/{name}/probe", providers_probe,
     "Ask one short question and show every step", NULL, "ProbeAsk", "Probe", 200, OP_ADMIN},
    {"GET", API "/models", models_list, "Every model with those who serve it", NULL, NULL,
     "Model[]", 200, OP_ADMIN},
    {"GET", API "/usage", usage_list, "Tokens and cost, grouped", "from to by", NULL, "Usage[]",
     200, OP_ADMIN},
    {"GET", API "/requests", requests_list, "The request log, newest first",
     "limit cursor key model outcome", NULL, "Request[]", 200, OP_ADMIN},
    {"GET", API "/requests/{id}", requests_get, "One request of the log", NULL, NULL, "Request",
     200, OP_ADMIN},

    {"POST", API "/explain", explain, "What would become of a request that came now", NULL,
     "ExplainAsk", "Explanation", 200, OP_ADMIN},
    {"GET", API "/stats", system_stats, "What happens now", NULL, NULL, "Stats", 200, OP_ADMIN},
    {"POST", API "/reload", system_reload, "Read the configuration again", NULL, NULL, "Changed",
     200, OP_ADMIN},
    {"POST", API "/rekey", system_rekey, "Encrypt every secret with a new master key", NULL,
     "Rekey", "Rekeyed", 200, OP_ADMIN},
    {"POST", API "/backup", system_backup, "Copy credentials and keys to a file", NULL, "Backup",
     "BackedUp", 200, OP_ADMIN},

    {"POST", "/api/auth/verify", seed_verify, "hixai2api: is the secret right", NULL, NULL,
     "SeedAnswer", 200, OP_SEED},
    {"PUT", "/api/key", seed_key_put, "hixai2api: add a client key", NULL, "SeedKey", "SeedAnswer",
     200, OP_SEED},
    {"DELETE", "/api/key/{id}", seed_key_delete, "hixai2api: remove a client key", NULL, NULL,
     "SeedAnswer", 200, OP_SEED},
    {"POST", "/api/key/update", seed_key_update, "hixai2api: change a client key", NULL, "SeedKey",
     "SeedAnswer", 200, OP_SEED},
    {"GET", "/api/key/all", seed_key_all, "hixai2api: list client keys by their hints", NULL, NULL,
     "SeedAnswer", 200, OP_SEED},
    {"PUT", "/api/cookie", seed_cookie_put, "hixai2api: add a cookie", NULL, "SeedCookie",
     "SeedAnswer", 200, OP_SEED},
    {"DELETE", "/api/cookie/{id}", seed_cookie_delete, "hixai2api: remove a cookie", NULL, NULL,
     "SeedAnswer", 200, OP_SEED},
    {"POST", "/api/cookie/update", seed_cookie_update, "hixai2api: change a cookie", NULL,
     "SeedCookie", "SeedAnswer", 200, OP_SEED},
    {"GET", "/api/cookie/all", seed_cookie_all, "hixai2api: list cookies by their hints", NULL,
     NULL, "SeedAnswer", 200, OP_SEED},
    {"POST", "/api/cookie/credit/refresh", seed_cookie_refresh,
     "hixai2api: ask for every cookie's credit", NULL, NULL, "SeedAnswer", 200, OP_SEED},

    {"GET", "/dashboard/billing/subscription", billing_subscription,
     "The key's budget, as NextChat and one-api ask for it", NULL, NULL, "Object", 200, OP_CLIENT},
    {"GET", "/dashboard/billing/usage", billing_usage, "What the key has spent, in cents",
     "start_date end_date", NULL, "Object", 200, OP_CLIENT},

    {"GET", "/openapi.json", serve_openapi, "This document", NULL, NULL, "Object", 200, OP_PUBLIC},
    {"GET", "/docs", serve_docs, "This document as a page", NULL, NULL, "text/html", 200,
     OP_PUBLIC},
    {"GET", "/swagger/{file}", serve_swagger, "The same", NULL, NULL, "text/html", 200, OP_ALIAS},
};
const size_t admin_ops_n = CM_COUNT(admin_ops);

/* ---- answering ---- */

struct task *task_new(struct cm_admin *admin, struct cm_web *web)
{
    struct task *t = CM_ARENA_NEW(cm_web_arena(web), struct task);

    t->admin = admin;
    t->web = web;
    return t;
}

void answer_json(struct cm_web *web, int status, struct cm_buf *json)
{
    cm_web_answer(web, status, CM_S("application/json"), cm_buf_str(json));
    cm_buf_clear(json);
}

bool task_failed(const struct task *t, const struct cm_err *err)
{
    if (err)
        cm_web_fail(t->web, err);
    return err != NULL;
}

void task_deleted(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_buf out = {0};
    struct out o;

    if (task_failed(t, err))
        return;
    o = out_begin(&out);
    out_id(&o, "id", id);
    out_bool(&o, "deleted", true);
    out_end(&o);
    answer_json(t->web, 200, &out);
}

void list_begin(struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"data\":["));
}

void list_end(struct cm_buf *out, struct cm_str next)
{
    cm_buf_append(out, CM_S("],\"next\":"));
    if (next.n > 0)
        cm_json_put_str(out, next);
    else
        cm_json_put_z(out, NULL);
    cm_buf_put(out, '}');
}

int query_int(struct cm_web *web, const char *name, int64_t otherwise, int64_t max, int64_t *out,
              struct cm_err *err)
{
    struct cm_str text = cm_web_query(web, cm_str_of(name));
    uint64_t v;

    if (text.n == 0) {
        *out = otherwise;
        return 0;
    }
    if (!cm_str_to_u64(text, (uint64_t)max, &v) || v == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, name, "%s must be 1 to %lld", name,
                             (long long)max);
    *out = (int64_t)v;
    return 0;
}

void answer_missing(struct cm_web *web, const char *what, struct cm_str id)
{
    struct cm_err err = {0};

    cm_fail(&err, CM_ERR_NOT_FOUND, "there is no %s \"" CM_PRI "\"", what,
            CM_ARG(cm_str_head(id, 80)));
    cm_web_fail(web, &err);
}

uint64_t segment_id(struct cm_web *web, const char *what)
{
    struct cm_str text = cm_web_segment(web, 0);
    uint64_t id;

    if (id_parse(text, &id))
        return id;
    answer_missing(web, what, text);
    return 0;
}

struct cm_store *need_store(struct cm_admin *admin, struct cm_web *web)
{
    struct cm_store *store = cm_gateway_store(admin->gw);
    struct cm_err err = {0};

    if (!store) {
        cm_fail(&err, CM_ERR_IO, "this gateway runs without a store, so nothing of this is kept");
        err.http_status = 503;
        cm_web_fail(web, &err);
    }
    return store;
}

/* ---- public pages ---- */

void serve_openapi(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_buf out = {0};

    openapi_write(&out, cm_gateway_config(admin->gw)->server.route_prefix);
    answer_json(web, 200, &out);
}

void serve_docs(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;

    cm_web_answer(web, 200, CM_S("text/html; charset=utf-8"), cm_buf_str(&admin->docs));
}

/* Where hixai2api and alexsidebar2api had theirs. */
void serve_swagger(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_str file = cm_web_segment(web, 0);
    bool on = cm_gateway_config(admin->gw)->server.swagger;

    if (on && cm_str_eq(file, CM_S("index.html")))
        serve_docs(arg, web);
    else if (on && cm_str_eq(file, CM_S("doc.json")))
        serve_openapi(arg, web);
    else
        answer_missing(web, on ? "page" : "page (server.swagger is off)", file);
}

/* ---- life ---- */

/* "/admin/api/keys/{id}" -> "/admin/api/keys/" and a star */
static char *pattern_of(const char *path)
{
    char *pattern = cm_strdup(path), *to = pattern;

    for (const char *p = path; *p; p++) {
        if (*p == '{') {
            *to++ = '*';
            p = strchr(p, '}');
        } else {
            *to++ = *p;
        }
    }
    *to = '\0';
    return pattern;
}

/* Everything but questions and errands, which may take their time. */
static bool changes_rows(const struct op *op)
{
    static const struct cm_str errands[] = {CM_S_INIT("/check"),   CM_S_INIT("/probe"),
                                            CM_S_INIT("/explain"), CM_S_INIT("/rekey"),
                                            CM_S_INIT("/backup"),  CM_S_INIT("/reload")};

    for (size_t i = 0; i < CM_COUNT(errands); i++)
        if (cm_str_ends(cm_str_of(op->path), errands[i]))
            return false;
    return strcmp(op->method, "GET") != 0;
}

struct cm_admin *cm_admin_new(struct cm_gateway *gw, cm_admin_reload_fn *reload, void *arg)
{
    struct cm_admin *admin = CM_NEW(struct cm_admin);

    admin->gw = gw;
    admin->reload = reload;
    admin->reload_arg = arg;
    admin->routes = cm_calloc(admin_ops_n, sizeof(*admin->routes));
    for (size_t i = 0; i < admin_ops_n; i++)
        admin->routes[i] = (struct cm_web_route){.methods = admin_ops[i].method,
                                                 .path = pattern_of(admin_ops[i].path),
                                                 .admin = admin_ops[i].access == OP_ADMIN,
                                                 .client = admin_ops[i].access == OP_CLIENT,
                                                 .body = strcmp(admin_ops[i].method, "GET") != 0,
                                                 .exclusive = changes_rows(&admin_ops[i]),
                                                 .serve = admin_ops[i].serve};
    cm_ui_docs(&admin->docs);
    cm_gateway_mount(gw, admin->routes, admin_ops_n, admin);
    return admin;
}

void cm_admin_free(struct cm_admin *admin)
{
    if (!admin)
        return;
    for (size_t i = 0; i < admin_ops_n; i++)
        free((char *)(uintptr_t)admin->routes[i].path);
    free(admin->routes);
    cm_buf_clear(&admin->docs);
    free(admin);
}
