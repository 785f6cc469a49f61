/* The admin routes of hixai2api, on the same keys and on the credentials of the first provider of type hix: tools and habits of people who come from
 * there go on working. Where the seed lists secrets in clear the hint stands, and an update that sends the hint back keeps the secret.
 * Wire facts: hix protocol notes of the seed's own surface. */
#include "admin_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/provider/provider.h"

#include <time.h>

/* ---- the envelope ---- */

static void answer(struct cm_web *web, int status, int code, struct cm_str message,
                   struct cm_str data)
{
    struct cm_buf out = {0};
    struct out o = out_begin(&out);

    out_int(&o, "code", code);
    out_str(&o, "message", message);
    out_json(&o, "data", data.n > 0 ? data : CM_S("\"\""));
    out_end(&o);
    answer_json(web, status, &out);
}

static void succeed(struct cm_web *web)
{
    answer(web, 200, 0, CM_S("success"), CM_STR_NONE);
}

static void refuse(struct cm_web *web, int status, const char *message)
{
    answer(web, status, 1, cm_str_of(message), CM_STR_NONE);
}

/* False: refused in the seed's words. */
static bool allowed(struct cm_web *web)
{
    struct cm_err err = {0};

    if (cm_web_check_admin(web, &err) == 0)
        return true;
    if (err.cls == CM_ERR_UNAUTHORIZED)
        refuse(web, 401, "unauthorized");
    else
        refuse(web, cm_err_status(&err), err.msg);
    return false;
}

/* The provider whose accounts these routes manage; NULL: refused. */
static const struct cm_instance *provider(struct cm_admin *admin, struct cm_web *web)
{
    const struct cm_config *config = cm_gateway_config(admin->gw);

    if (!allowed(web))
        return NULL;
    for (size_t i = 0; i < config->n_providers; i++)
        if (cm_str_eq(config->providers[i].type, CM_S("hix")))
            return cm_gateway_instance(admin->gw, config->providers[i].name);
    refuse(web, 404, "no provider of type hix is configured: these routes manage its cookies");
    return NULL;
}

/* "2026-01-31 08:15:00", local time */
static void out_local_time(struct out *o, int64_t unix_s)
{
    time_t at = (time_t)unix_s;
    struct tm tm;
    char text[32] = "";

    if (unix_s > 0 && localtime_r(&at, &tm))
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    out_str(o, "createTime", cm_str_of(text));
}

/* What a change ended with. */
static void answer_change(struct cm_web *web, const struct cm_err *err)
{
    if (!err || err->cls == CM_ERR_NOT_FOUND)
        succeed(web); /* the seed does not look whether there was anything to change */
    else
        refuse(web, err->cls == CM_ERR_BAD_REQUEST ? 400 : 500, err->msg);
}

static void on_changed(void *arg, uint64_t id, const struct cm_err *err)
{
    (void)id;
    answer_change(((struct task *)arg)->web, err);
}

void seed_verify(void *arg, struct cm_web *web)
{
    (void)arg;
    if (allowed(web))
        succeed(web);
}

/* ---- client keys ---- */

/* Ours have a name always; the seed's remark may be empty. */
static struct cm_str name_of(const struct body *body)
{
    struct cm_str remark = cm_str_trim(body_str(body, "remark"));

    return remark.n > 0 ? remark : CM_S("unnamed");
}

void seed_key_put(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    struct cm_key_row row = {
        .budget_period = CM_S("total"), .enabled = true, .created_s = cm_unix_ms() / 1000};
    struct cm_err err = {0};
    struct body body;

    if (!provider(admin, web))
        return;
    if (body_read(&body, arena, cm_web_body(web), "SeedKey", &err) < 0) {
        refuse(web, 500, err.msg);
        return;
    }
    if (cm_key_take(&row, arena, body_str(&body, "apiKey"), &err) < 0) {
        refuse(web, 400, err.msg);
        return;
    }
    if (keys_by_secret(cm_gateway_keys(admin->gw), body_str(&body, "apiKey"))) {
        answer(web, 400, 0, CM_S("API-KEY already exists"), CM_STR_NONE);
        return;
    }
    row.name = name_of(&body);
    cm_gateway_put_key(admin->gw, &row, on_changed, task_new(admin, web));
}

void seed_key_delete(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    uint64_t id;

    if (!provider(admin, web))
        return;
    if (!id_parse(cm_web_segment(web, 0), &id) || !keys_by_id(cm_gateway_keys(admin->gw), id))
        succeed(web);
    else
        cm_gateway_delete_key(admin->gw, id, on_changed, task_new(admin, web));
}

void seed_key_update(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    const struct cm_key *key, *twin;
    struct cm_key_row row;
    struct cm_err err = {0};
    struct cm_str secret;
    struct body body;
    uint64_t id;

    if (!provider(admin, web))
        return;
    if (body_read(&body, arena, cm_web_body(web), "SeedKey", &err) < 0) {
        refuse(web, 400, err.msg);
        return;
    }
    if (!id_parse(body_str(&body, "id"), &id)) {
        refuse(web, 400, "Invalid ID");
        return;
    }
    key = keys_by_id(cm_gateway_keys(admin->gw), id);
    if (!key) {
        succeed(web);
        return;
    }
    row = *cm_key_row(key);
    secret = body_str(&body, "apiKey");
    if (!cm_str_eq(secret, row.hint) && cm_key_take(&row, arena, secret, &err) < 0) {
        refuse(web, 400, err.msg);
        return;
    }
    twin = keys_by_secret(cm_gateway_keys(admin->gw), secret);
    if (twin && twin != key) {
        refuse(web, 400, "API-KEY already exists");
        return;
    }
    if (body_get(&body, "remark"))
        row.name = name_of(&body);
    cm_gateway_put_key(admin->gw, &row, on_changed, task_new(admin, web));
}

struct rows {
    struct cm_buf out;
    bool some;
};

static void next_row(struct rows *rows)
{
    cm_buf_put(&rows->out, rows->some ? ',' : '[');
    rows->some = true;
}

static void answer_rows(struct cm_web *web, struct rows *rows)
{
    if (rows->some)
        cm_buf_put(&rows->out, ']');
    answer(web, 200, 0, CM_S("success"), rows->some ? cm_buf_str(&rows->out) : CM_S("null"));
    cm_buf_clear(&rows->out);
}

static void put_key(void *arg, const struct cm_key *key)
{
    const struct cm_key_row *row = cm_key_row(key);
    struct rows *rows = arg;
    struct out o;

    if (row->id == 0)
        return; /* of the configuration file: without an id nobody could edit or delete it */
    next_row(rows);
    o = out_begin(&rows->out);
    out_id(&o, "id", row->id);
    out_str(&o, "apiKey", row->hint);
    out_str(&o, "remark", row->name);
    out_local_time(&o, row->created_s);
    out_end(&o);
}

void seed_key_all(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct rows rows = {0};

    if (!provider(admin, web))
        return;
    cm_keys_each(cm_gateway_keys(admin->gw), put_key, &rows);
    answer_rows(web, &rows);
}

/* ---- cookies ---- */

static bool has_twin(struct cm_admin *admin, const struct cm_instance *in, struct cm_arena *arena,
                     struct cm_str cookie, uint64_t own)
{
    struct cm_str kept = cookie;
    uint64_t twin;

    if (in->adapter->normalize && in->adapter->normalize(arena, cookie, &kept, NULL) < 0)
        return false; /* refused in a moment, with the reason */
    twin = cm_pool_find_secret(cm_gateway_pool(admin->gw), in->name, kept);
    return twin != 0 && twin != own;
}

static void on_dropped(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;

    (void)id;
    (void)err;
    answer(t->web, 500, 1, t->text, CM_STR_NONE);
}

static void on_new_checked(void *arg, bool ok, const char *message, int64_t ms)
{
    struct task *t = arg;

    (void)ms;
    if (ok) {
        succeed(t->web);
        return;
    }
    t->text = cm_arena_str(cm_web_arena(t->web), cm_str_of(message));
    cm_gateway_delete_cred(t->admin->gw, t->id, on_dropped, t);
}

/* The seed asks the platform for the credit before it keeps a cookie. */
static void on_added(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;
    const struct cm_instance *in = cm_gateway_instance(t->admin->gw, t->text);

    t->id = id;
    if (err || !in || !in->adapter->probe.step)
        answer_change(t->web, err);
    else
        cm_gateway_check_cred(t->admin->gw, id, on_new_checked, t);
}

void seed_cookie_put(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    const struct cm_instance *in = provider(admin, web);
    struct cm_cred_edit edit = {.has = CM_EDIT_SECRET};
    struct cm_err err = {0};
    struct body body;
    struct task *t;

    if (!in)
        return;
    if (body_read(&body, arena, cm_web_body(web), "SeedCookie", &err) < 0) {
        err.http_status = 500; /* as the seed does, in this form and no other */
        cm_web_fail(web, &err);
        return;
    }
    edit.provider = cm_arena_str(arena, in->name);
    edit.secret = body_str(&body, "cookie");
    edit.has |= CM_EDIT_LABEL;
    edit.label = body_str(&body, "remark");
    if (has_twin(admin, in, arena, edit.secret, 0)) {
        refuse(web, 400, "COOKIE already exists");
        return;
    }
    t = task_new(admin, web);
    t->text = edit.provider;
    cm_gateway_edit_cred(admin->gw, &edit, on_added, t);
}

/* A credential of that provider. */
static bool find_cookie(struct cm_admin *admin, const struct cm_instance *in, struct cm_str text,
                        struct cm_cred_info *cred)
{
    uint64_t id;

    return id_parse(text, &id) && cm_pool_get(cm_gateway_pool(admin->gw), id, cred) &&
           cm_str_eq(cred->provider, in->name);
}

void seed_cookie_delete(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    const struct cm_instance *in = provider(admin, web);
    struct cm_cred_info cred;

    if (!in)
        return;
    if (!find_cookie(admin, in, cm_web_segment(web, 0), &cred))
        succeed(web);
    else
        cm_gateway_delete_cred(admin->gw, cred.id, on_changed, task_new(admin, web));
}

/* Another cookie in the place of one: it is asked for its credit first, on a row of its own that serves nobody. */
struct update {
    struct cm_admin *admin;
    struct cm_web *web;
    struct cm_cred_edit edit; /* what becomes of the cookie */
    uint64_t trial;           /* that row */
    bool ok;
    struct cm_str why;
};

static void on_updated(void *arg, uint64_t id, const struct cm_err *err)
{
    (void)id;
    answer_change(((struct update *)arg)->web, err);
}

static void on_trial_over(void *arg, uint64_t id, const struct cm_err *err)
{
    struct update *u = arg;

    (void)id;
    if (err)
        answer_change(u->web, err);
    else if (!u->ok)
        answer(u->web, 500, 1, u->why, CM_STR_NONE);
    else
        cm_gateway_edit_cred(u->admin->gw, &u->edit, on_updated, u);
}

static void on_trial_checked(void *arg, bool ok, const char *message, int64_t ms)
{
    struct update *u = arg;

    (void)ms;
    u->ok = ok;
    u->why = cm_arena_str(cm_web_arena(u->web), cm_str_of(message));
    cm_gateway_delete_cred(u->admin->gw, u->trial, on_trial_over, u);
}

static void on_trial_added(void *arg, uint64_t id, const struct cm_err *err)
{
    struct update *u = arg;

    u->trial = id;
    if (err)
        answer_change(u->web, err);
    else
        cm_gateway_check_cred(u->admin->gw, id, on_trial_checked, u);
}

static void update_cookie(struct cm_admin *admin, struct cm_web *web, struct cm_str provider_name,
                          const struct cm_cred_edit *edit)
{
    struct cm_arena *arena = cm_web_arena(web);
    struct update *u = CM_ARENA_NEW(arena, struct update);
    struct cm_cred_edit trial = {.provider = cm_arena_str(arena, provider_name),
                                 .secret = edit->secret};

    trial.has |= CM_EDIT_SECRET;
    trial.has |= CM_EDIT_ENABLED;
    *u = (struct update){.admin = admin, .web = web, .edit = *edit};
    cm_gateway_edit_cred(admin->gw, &trial, on_trial_added, u);
}

void seed_cookie_update(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    const struct cm_instance *in = provider(admin, web);
    struct cm_cred_edit edit = {0};
    struct cm_cred_info cred;
    struct cm_err err = {0};
    struct body body;

    if (!in)
        return;
    if (body_read(&body, arena, cm_web_body(web), "SeedCookie", &err) < 0) {
        refuse(web, 400, err.msg);
        return;
    }
    if (!id_parse(body_str(&body, "id"), &edit.id)) {
        refuse(web, 400, "Invalid ID");
        return;
    }
    if (!find_cookie(admin, in, body_str(&body, "id"), &cred)) {
        succeed(web);
        return;
    }
    if (body_get(&body, "cookie") && !cm_str_eq(body_str(&body, "cookie"), cm_hint(cred.secret))) {
        edit.has |= CM_EDIT_SECRET;
        edit.secret = body_str(&body, "cookie");
        if (has_twin(admin, in, arena, edit.secret, cred.id)) {
            refuse(web, 400, "COOKIE already exists");
            return;
        }
    }
    if (body_get(&body, "remark")) {
        edit.has |= CM_EDIT_LABEL;
        edit.label = body_str(&body, "remark");
    }
    if (!edit.has)
        succeed(web);
    else if ((edit.has & CM_EDIT_SECRET) && in->adapter->probe.step)
        update_cookie(admin, web, in->name, &edit);
    else
        cm_gateway_edit_cred(admin->gw, &edit, on_changed, task_new(admin, web));
}

static void put_cookie(void *arg, const struct cm_cred_info *cred)
{
    struct rows *rows = arg;
    struct out o;

    next_row(rows);
    o = out_begin(&rows->out);
    out_id(&o, "id", cred->id);
    out_str(&o, "cookie", cm_hint(cred->secret));
    out_int(&o, "credit", cred->credit.left[0]); /* 0 when it is not known */
    out_int(&o, "advancedCredit", cred->credit.left[1]);
    out_str(&o, "remark", cred->label);
    out_local_time(&o, cred->created_ms / 1000);
    out_end(&o);
}

void seed_cookie_all(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    const struct cm_instance *in = provider(admin, web);
    struct rows rows = {0};

    if (!in)
        return;
    cm_pool_each(cm_gateway_pool(admin->gw), in->name, put_cookie, &rows);
    answer_rows(web, &rows);
}

/* ---- credit of all, one after the other, in the background ---- */

static void refresh_next(struct cm_admin *admin);

static void on_refreshed(void *arg, bool ok, const char *message, int64_t ms)
{
    (void)ok;
    (void)message;
    (void)ms;
    refresh_next(arg);
}

struct after {
    uint64_t id, next;
};

static void first_after(void *arg, const struct cm_cred_info *cred)
{
    struct after *a = arg;

    if (!a->next && cred->id > a->id && cred->enabled)
        a->next = cred->id;
}

static void refresh_next(struct cm_admin *admin)
{
    const struct cm_config *config = cm_gateway_config(admin->gw);
    struct after a = {.id = admin->refreshing};
    struct cm_gateway_stats stats;

    cm_gateway_stats(admin->gw, &stats);
    for (size_t i = 0; i < config->n_providers && !stats.draining; i++) {
        const struct cm_instance *in = cm_gateway_instance(admin->gw, config->providers[i].name);

        if (!cm_str_eq(config->providers[i].type, CM_S("hix")))
            continue;
        if (in && in->adapter->probe.step)
            cm_pool_each(cm_gateway_pool(admin->gw), in->name, first_after, &a);
        break;
    }
    admin->refreshing = a.next;
    if (a.next)
        cm_gateway_check_cred(admin->gw, a.next, on_refreshed, admin);
}

void seed_cookie_refresh(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;

    if (!provider(admin, web))
        return;
    if (!admin->refreshing)
        refresh_next(admin);
    succeed(web);
}
