/* /admin/api/credentials: the operator's accounts. */
#include "admin_int.h"

#include "chatmux/base/config.h"

#define PAGE_DEFAULT 1000
#define PAGE_MAX 10000

/* ---- answers ---- */

static void answer_cred(struct cm_admin *admin, struct cm_web *web, int status, uint64_t id)
{
    struct cm_cred_info cred;
    struct cm_buf out = {0};

    if (!cm_pool_get(cm_gateway_pool(admin->gw), id, &cred)) {
        answer_missing(web, "credential",
                       cm_arena_printf(cm_web_arena(web), "%llu", (unsigned long long)id));
        return;
    }
    cred_write(&out, cm_web_arena(web), cm_gateway_pool(admin->gw), &cred);
    answer_json(web, status, &out);
}

struct page {
    const struct cm_pool *pool;
    struct cm_buf out;
    struct cm_arena *arena;
    uint64_t after, last; /* ids */
    int64_t left;
    bool some, more;
};

static void list_one(void *arg, const struct cm_cred_info *cred)
{
    struct page *p = arg;

    if (cred->id <= p->after)
        return;
    if (p->left == 0) {
        p->more = true;
        return;
    }
    if (p->some)
        cm_buf_put(&p->out, ',');
    cred_write(&p->out, p->arena, p->pool, cred);
    p->some = true;
    p->last = cred->id;
    p->left--;
}

void creds_list(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_str cursor = cm_web_query(web, CM_S("cursor"));
    struct page p = {.arena = cm_web_arena(web), .pool = cm_gateway_pool(admin->gw)};
    struct cm_err err = {0};

    if (cursor.n > 0 && !id_parse(cursor, &p.after))
        cm_fail_param(&err, CM_ERR_BAD_REQUEST, "cursor",
                      "cursor must be the \"next\" of the page before");
    if (err.cls != CM_ERR_NONE ||
        query_int(web, "limit", PAGE_DEFAULT, PAGE_MAX, &p.left, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    list_begin(&p.out);
    cm_pool_each(cm_gateway_pool(admin->gw), cm_web_query(web, CM_S("provider")), list_one, &p);
    list_end(&p.out,
             p.more ? cm_arena_printf(p.arena, "%llu", (unsigned long long)p.last) : CM_STR_NONE);
    answer_json(web, 200, &p.out);
}

void creds_get(void *arg, struct cm_web *web)
{
    uint64_t id = segment_id(web, "credential");

    if (id)
        answer_cred(arg, web, 200, id);
}

/* ---- changes ---- */

static int check_proxy(struct cm_str proxy, struct cm_err *err)
{
    static const char *const schemes[] = {"http://", "https://", "socks5h://"};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(*schemes); i++)
        if (cm_str_starts(proxy, cm_str_of(schemes[i])) && proxy.n > strlen(schemes[i]))
            return 0;
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, "proxy",
                         "proxy must begin with http://, https:// or socks5h://");
}

/* The settings a new credential and a changed one share. `shown`: the proxy as lists show it, without its password: sent back it changes nothing. */
static int read_settings(const struct body *body, struct cm_str shown, struct cm_cred_edit *edit,
                         struct cm_err *err)
{
    const struct value *v;

    if ((v = body_get(body, "secret"))) {
        edit->has |= CM_EDIT_SECRET;
        edit->secret = cm_str_trim(v->s);
        if (edit->secret.n == 0)
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, "secret", "the secret is empty");
    }
    if ((v = body_get(body, "label"))) {
        edit->has |= CM_EDIT_LABEL;
        edit->label = cm_str_trim(v->s);
    }
    if ((v = body_get(body, "proxy")) && (v->s.n == 0 || !cm_str_eq(v->s, shown))) {
        edit->has |= CM_EDIT_PROXY;
        edit->proxy = cm_str_trim(v->s);
        if (edit->proxy.n > 0 && check_proxy(edit->proxy, err) < 0)
            return -1;
    }
    if ((v = body_get(body, "weight"))) {
        edit->has |= CM_EDIT_WEIGHT;
        edit->weight = v->i;
    }
    if ((v = body_get(body, "max_inflight"))) {
        edit->has |= CM_EDIT_MAX_INFLIGHT;
        edit->max_inflight = v->i;
    }
    if ((v = body_get(body, "enabled"))) {
        edit->has |= CM_EDIT_ENABLED;
        edit->enabled = v->b;
    }
    return 0;
}

static void on_created(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;

    if (err)
        cm_web_fail(t->web, err);
    else
        answer_cred(t->admin, t->web, 201, id);
}

static void on_changed(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;

    if (err)
        cm_web_fail(t->web, err);
    else
        answer_cred(t->admin, t->web, 200, id);
}

void creds_create(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    struct cm_cred_edit edit = {0};
    struct cm_err err = {0};
    struct body body;

    if (body_read(&body, arena, cm_web_body(web), "CredentialNew", &err) < 0 ||
        read_settings(&body, CM_STR_NONE, &edit, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    edit.provider = body_str(&body, "provider");
    cm_gateway_edit_cred(admin->gw, &edit, on_created, task_new(admin, web));
}

void creds_patch(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    struct cm_cred_edit edit = {.id = segment_id(web, "credential")};
    struct cm_cred_info cred;
    struct cm_err err = {0};
    struct body body;

    if (!edit.id)
        return;
    if (!cm_pool_get(cm_gateway_pool(admin->gw), edit.id, &cred)) {
        answer_cred(admin, web, 200, edit.id);
        return;
    }
    if (body_read(&body, arena, cm_web_body(web), "CredentialChange", &err) < 0 ||
        read_settings(&body, url_shown(arena, cred.proxy), &edit, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    if (!edit.has)
        answer_cred(admin, web, 200, edit.id);
    else
        cm_gateway_edit_cred(admin->gw, &edit, on_changed, task_new(admin, web));
}

void creds_delete(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    uint64_t id = segment_id(web, "credential");

    if (id)
        cm_gateway_delete_cred(admin->gw, id, task_deleted, task_new(admin, web));
}

void creds_reset(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    uint64_t id = segment_id(web, "credential");

    if (!id)
        return;
    cm_pool_reset(cm_gateway_pool(admin->gw), id);
    answer_cred(admin, web, 200, id); /* 404 when there is none */
}

/* ---- check ---- */

static void on_checked(void *arg, bool ok, const char *message, int64_t ms)
{
    struct task *t = arg;
    struct cm_cred_info cred;
    struct cm_buf out = {0};
    struct out o;

    if (!cm_pool_get(cm_gateway_pool(t->admin->gw), t->id, &cred)) { /* removed meanwhile */
        answer_cred(t->admin, t->web, 200, t->id);
        return;
    }
    o = out_begin(&out);
    out_bool(&o, "ok", ok);
    out_str(&o, "state", cm_str_of(cm_cred_state_name(cred.state)));
    out_str(&o, "message", cm_str_of(message));
    out_int(&o, "ms", ms);
    out_end(&o);
    answer_json(t->web, 200, &out);
}

void creds_check(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_cred_info cred;
    struct task *t;
    uint64_t id = segment_id(web, "credential");

    if (!id)
        return;
    if (!cm_pool_get(cm_gateway_pool(admin->gw), id, &cred)) {
        answer_cred(admin, web, 200, id);
        return;
    }
    t = task_new(admin, web);
    t->id = id;
    cm_gateway_check_cred(admin->gw, id, on_checked, t);
}
