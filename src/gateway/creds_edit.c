/* An operator's changes of credentials and client keys: checked, durable, and then they count. */
#include "creds_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include <stdlib.h>

/* One change on its way to the disk. */
struct edit {
    struct cm_task
        told; /* without a store, or refused: the answer comes on a later turn all the same */
    struct cm_gateway *gw;
    struct cm_cred_row row; /* owned; as it will be */
    struct cm_key_row key;  /* its texts are in the arena */
    struct cm_arena arena;
    enum cm_change_kind kind;
    uint64_t id;
    struct cm_err err;
    cm_gateway_done_fn *done;
    void *arg;
};

static void edit_free(struct edit *e)
{
    kept_row_clear(&e->row);
    cm_arena_clear(&e->arena);
    free(e);
}

static void edit_apply(struct edit *e)
{
    struct cm_gateway *gw = e->gw;
    struct kept *k = kept_find(gw, e->id);

    switch (e->kind) {
    case CM_CHANGE_PUT_CRED:
        e->row.month_anew = false;                          /* it has been */
        if (k && cm_str_eq(k->row.secret, e->row.secret)) { /* refreshed meanwhile, perhaps */
            cm_secret_drop(e->row.token);
            e->row.token = cm_secret_dup(k->row.token);
            e->row.token_expires_ms = k->row.token_expires_ms;
        }
        kept_to_pool(gw, &kept_put(gw, &e->row)->row);
        break;
    case CM_CHANGE_SET_TOKEN: /* no operator's */
    case CM_CHANGE_PUT_MEMORY:
        break;
    case CM_CHANGE_DEL_CRED:
        cm_pool_remove(gw->pool, e->id);
        if (k)
            kept_drop(gw, k);
        break;
    case CM_CHANGE_PUT_KEY:
        cm_keys_put(gw->keys, &e->key);
        if (gw->store) /* another budget or period: the ledger knows what it has seen of it */
            cm_deadline_set(gw->host->loop, &gw->true_up, cm_loop_now_ms(gw->host->loop));
        break;
    case CM_CHANGE_DEL_KEY:
        cm_keys_delete(gw->keys, e->id);
        break;
    }
}

static void edit_tell(void *arg)
{
    struct edit *e = arg;
    struct cm_gateway *gw = e->gw;
    bool failed = e->err.cls != CM_ERR_NONE;

    if (!failed && !gw->closing) {
        edit_apply(e);
        gateway_pool_moved(gw);
    }
    if (e->done)
        e->done(e->arg, e->id, failed ? &e->err : NULL);
    edit_free(e);
    gateway_attempt_over(gw);
}

static void on_durable(void *arg, const struct cm_err *err)
{
    struct edit *e = arg;

    if (err)
        e->err = *err;
    edit_tell(e);
}

static struct edit *edit_new(struct cm_gateway *gw, enum cm_change_kind kind, uint64_t id,
                             cm_gateway_done_fn *done, void *arg)
{
    struct edit *e = CM_NEW(struct edit);

    e->gw = gw;
    e->kind = kind;
    e->id = id;
    e->done = done;
    e->arg = arg;
    cm_task_init(&e->told, edit_tell, e);
    gw->attempts_out++; /* the gateway stays until the answer has come */
    return e;
}

static void edit_commit(struct edit *e)
{
    struct cm_change change = {.kind = e->kind, .cred = &e->row, .key = &e->key, .id = e->id};

    if (e->gw->store && e->err.cls == CM_ERR_NONE && e->id < UNSTORED_ID)
        cm_store_change(e->gw->store, &change, 1, on_durable, e);
    else
        cm_task_post(e->gw->host->loop, &e->told);
}

/* One that stands in for credentials where a provider needs none: it is in the pool, and nothing of it is kept. */
static bool is_stand_in(struct cm_gateway *gw, uint64_t id)
{
    struct cm_cred_info info;

    return id >= UNSTORED_ID && !kept_find(gw, id) && cm_pool_get(gw->pool, id, &info);
}

static int fail_stand_in(struct cm_err *err)
{
    cm_fail(err, CM_ERR_BAD_REQUEST,
            "this one only stands in, because the provider needs no credential and has none: it "
            "has nothing to change or delete, and goes when a credential is added");
    cm_str_copy(err->code, sizeof(err->code), CM_S("stand_in"));
    err->http_status = 409;
    return -1;
}

static int edit_check(struct cm_gateway *gw, const struct cm_cred_edit *edit, const struct kept *k,
                      struct cm_arena *arena, struct cm_str *secret, struct cm_err *err)
{
    struct cm_str provider = k ? k->row.provider : edit->provider;
    const struct cm_instance *in = cm_gateway_instance(gw, provider);
    const struct kept *twin;

    if (is_stand_in(gw, edit->id))
        return fail_stand_in(err);
    if (edit->id != 0 && (!k || k->row.gone))
        return cm_fail(err, CM_ERR_NOT_FOUND, "there is no credential %llu",
                       (unsigned long long)edit->id);
    if (!in)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "provider",
                             "no provider \"" CM_PRI "\" is configured", CM_ARG(provider));
    if (!(edit->has & CM_EDIT_SECRET)) {
        if (!k)
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, "secret",
                                 "a new credential needs its secret");
        *secret = k->row.secret;
        return 0;
    }
    if (k && k->row.from_config)
        return cm_fail_param(
            err, CM_ERR_BAD_REQUEST, "secret",
            "this credential stands in the configuration file: change its line there");
    *secret = edit->secret;
    if (edit->secret.n == 0 ||
        (in->adapter->normalize && in->adapter->normalize(arena, edit->secret, secret, err) < 0)) {
        if (edit->secret.n == 0)
            cm_fail(err, CM_ERR_BAD_REQUEST, "the secret is empty");
        cm_str_copy(err->param, sizeof(err->param), CM_S("secret"));
        return -1;
    }
    twin = kept_find_secret(gw, provider, *secret);
    if (twin && twin != k && !twin->row.gone)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "secret",
                             "this secret is there already, as credential %llu",
                             (unsigned long long)twin->row.id);
    return 0;
}

void cm_gateway_edit_cred(struct cm_gateway *gw, const struct cm_cred_edit *edit,
                          cm_gateway_done_fn *done, void *arg)
{
    struct kept *k = edit->id ? kept_find(gw, edit->id) : NULL;
    struct edit *e = edit_new(gw, CM_CHANGE_PUT_CRED, edit->id, done, arg);
    struct cm_cred_row row = {
        .enabled = true, .weight = 1, .state = CM_S("ok"), .created_ms = cm_unix_ms()};
    struct cm_str secret = CM_STR_NONE;

    if (edit_check(gw, edit, k, &e->arena, &secret, &e->err) == 0) {
        const struct kept *twin = k ? NULL : kept_find_secret(gw, edit->provider, secret);

        if (k)
            row = k->row;
        else if (twin)
            row = twin->row; /* its line has gone from the file: its history goes on */
        kept_figures(gw, &row);
        if (k &&
            !cm_str_eq(
                secret,
                k->row
                    .secret)) { /* another account: nothing that was held against the old one counts */
            row.enabled |= cm_str_eq(row.reason, CM_S("damaged_secret"));
            row.state = CM_S("ok");
            row.reason = row.token = row.quota = CM_STR_NONE;
            row.until_ms = row.token_expires_ms = row.month_requests = 0;
            row.month_anew = true;
        }
        row.id = k ? edit->id : twin ? twin->row.id : kept_new_id(gw);
        row.provider = k ? row.provider : edit->provider;
        row.from_config = k ? row.from_config : false;
        row.gone = false;
        row.secret = secret;
        if (edit->has & CM_EDIT_LABEL)
            row.label = edit->label;
        if (edit->has & CM_EDIT_PROXY)
            row.proxy = edit->proxy;
        if (edit->has & CM_EDIT_WEIGHT)
            row.weight = edit->weight;
        if (edit->has & CM_EDIT_MAX_INFLIGHT)
            row.max_inflight = edit->max_inflight;
        if (edit->has & CM_EDIT_ENABLED)
            row.enabled = edit->enabled;
        kept_row_copy(&e->row, &row);
        e->id = row.id;
    }
    edit_commit(e);
}

void cm_gateway_delete_cred(struct cm_gateway *gw, uint64_t id, cm_gateway_done_fn *done, void *arg)
{
    struct kept *k = kept_find(gw, id);
    struct edit *e = edit_new(gw, CM_CHANGE_DEL_CRED, id, done, arg);

    if (is_stand_in(gw, id))
        fail_stand_in(&e->err);
    else if (!k || k->row.gone)
        cm_fail(&e->err, CM_ERR_NOT_FOUND, "there is no credential %llu", (unsigned long long)id);
    else if (k->row.from_config)
        cm_fail(
            &e->err, CM_ERR_BAD_REQUEST,
            "this credential stands in the configuration file: remove its line there, or disable it here");
    edit_commit(e);
}

/* ---- client keys ---- */

void cm_gateway_put_key(struct cm_gateway *gw, const struct cm_key_row *row,
                        cm_gateway_done_fn *done, void *arg)
{
    struct edit *e = edit_new(gw, CM_CHANGE_PUT_KEY, row->id, done, arg);

    if (e->id == 0)
        e->id = gw->store ? cm_store_next_id(gw->store) : UNSTORED_ID + ++gw->unstored_ids;
    e->key = *row;
    e->key.id = e->id;
    e->key.name = cm_arena_str(&e->arena, row->name);
    e->key.hint = cm_arena_str(&e->arena, row->hint);
    e->key.models = cm_arena_str(&e->arena, row->models);
    e->key.budget_period = cm_arena_str(&e->arena, row->budget_period);
    edit_commit(e);
}

void cm_gateway_delete_key(struct cm_gateway *gw, uint64_t id, cm_gateway_done_fn *done, void *arg)
{
    edit_commit(edit_new(gw, CM_CHANGE_DEL_KEY, id, done, arg));
}
