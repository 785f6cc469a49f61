/* Credentials: those of the configuration and those of the API in one pool, and their durable form.
 *
 * `kept` holds every stored row, also of lines that have disappeared from the file and of providers that are not configured now: what comes back finds
 * its history. The pool holds those that can serve. An operator's change is durable before it counts; states and counters follow in groups. */
#include "gateway_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include "chatmux/codec/json.h"
#include <stdlib.h>

/* Credentials that are not stored: one without a secret for a provider that needs none, and all of them without a store. */
#define UNSTORED_ID (UINT64_C(1) << 62)
#define FIGURE_MAX (INT64_C(1) << 53)
#define SECRET_MIN 8 /* bytes: a shorter one could be any word */

struct kept {
    struct cm_list link;    /* in gw->kept */
    struct cm_cred_row row; /* texts are owned, secrets wiped */
    bool seen;              /* stands in the configuration that is being applied */
    unsigned char
        digest[CM_SHA256_SIZE]; /* of provider and secret: its key in gw->kept_by_secret */
};

/* ---- rows ---- */

static struct cm_str *texts_of(struct cm_cred_row *row, size_t i)
{
    struct cm_str *const all[] = {&row->provider, &row->label, &row->secret, &row->token,
                                  &row->proxy,    &row->state, &row->reason, &row->quota};

    return i < CM_COUNT(all) ? all[i] : NULL;
}

static void row_copy(struct cm_cred_row *to, const struct cm_cred_row *from)
{
    *to = *from;
    for (size_t i = 0; texts_of(to, i); i++)
        *texts_of(to, i) = cm_secret_dup(*texts_of(to, i));
}

static void row_clear(struct cm_cred_row *row)
{
    for (size_t i = 0; texts_of(row, i); i++)
        cm_secret_drop(*texts_of(row, i));
}

static struct cm_str bytes_of(const void *p, size_t n)
{
    return cm_str((const char *)p, n);
}

static struct kept *kept_find(struct cm_gateway *gw, uint64_t id)
{
    return cm_map_get(&gw->kept_by_id, bytes_of(&id, sizeof(id)));
}

static void digest_of(struct cm_str provider, struct cm_str secret,
                      unsigned char out[CM_SHA256_SIZE])
{
    struct cm_buf text = {0};

    cm_buf_reserve(&text, provider.n + 1 + secret.n);
    cm_buf_append(&text, provider);
    cm_buf_put(&text, '\n');
    cm_buf_append(&text, secret);
    cm_sha256(cm_buf_str(&text), out);
    cm_wipe(text.p, text.n);
    cm_buf_clear(&text);
}

static struct kept *kept_find_secret(struct cm_gateway *gw, struct cm_str provider,
                                     struct cm_str secret)
{
    unsigned char digest[CM_SHA256_SIZE];

    digest_of(provider, secret, digest);
    return cm_map_get(&gw->kept_by_secret, bytes_of(digest, sizeof(digest)));
}

static void unindex(struct cm_gateway *gw, struct kept *k)
{
    struct cm_str digest = bytes_of(k->digest, sizeof(k->digest));

    cm_map_del(&gw->kept_by_id, bytes_of(&k->row.id, sizeof(k->row.id)));
    if (cm_map_get(&gw->kept_by_secret, digest) == k)
        cm_map_del(&gw->kept_by_secret, digest);
}

static struct kept *kept_put(struct cm_gateway *gw, const struct cm_cred_row *row)
{
    struct kept *k = kept_find(gw, row->id);
    struct cm_cred_row copy;

    row_copy(&copy, row);
    if (!k) {
        k = CM_NEW(struct kept);
        cm_list_push(&gw->kept, &k->link);
    } else {
        unindex(gw, k);
        row_clear(&k->row);
    }
    k->row = copy;
    digest_of(k->row.provider, k->row.secret, k->digest);
    cm_map_put(&gw->kept_by_id, bytes_of(&k->row.id, sizeof(k->row.id)), k);
    cm_map_put(&gw->kept_by_secret, bytes_of(k->digest, sizeof(k->digest)), k);
    return k;
}

static void kept_drop(struct cm_gateway *gw, struct kept *k)
{
    unindex(gw, k);
    cm_list_remove(&k->link);
    row_clear(&k->row);
    free(k);
}

void creds_free(struct cm_gateway *gw)
{
    CM_LIST_EACH(&gw->kept, link)
    kept_drop(gw, CM_LIST_ITEM(link, struct kept, link));
    cm_map_clear(&gw->kept_by_id);
    cm_map_clear(&gw->kept_by_secret);
}

/* ---- credit ---- */

static int64_t figure(const yyjson_val *root, const char *name)
{
    const double n = yyjson_get_num(cm_json_get(root, name));

    return n > 0 ? n < FIGURE_MAX ? (int64_t)n : FIGURE_MAX : 0;
}

/* The members that choosing knows; the others are the operator's. */
static struct cm_credit credit_of(struct cm_str quota)
{
    yyjson_doc *doc = quota.n > 0 ? cm_json_parse(quota, &cm_json_limits_event, NULL) : NULL;
    const yyjson_val *root = yyjson_doc_get_root(doc);
    struct cm_credit credit = {.known = yyjson_is_num(cm_json_get(root, "credit")),
                               .left = {figure(root, "credit"), figure(root, "advanced_credit")},
                               .renews_ms = figure(root, "renews_ms")};

    yyjson_doc_free(doc);
    return credit;
}

void creds_quota(struct cm_gateway *gw, uint64_t id, struct cm_lease *lease, struct cm_str json)
{
    const struct cm_credit credit = credit_of(json);

    if (json.n == 0)
        return;
    if (lease)
        cm_lease_told(lease, json, &credit);
    else
        cm_pool_told(gw->pool, id, json, &credit);
    gateway_pool_moved(gw);
}

/* ---- into the pool ---- */

static void pool_put(struct cm_gateway *gw, const struct cm_cred_row *row)
{
    struct cm_cred_info info = {.id = row->id,
                                .provider = row->provider,
                                .label = row->label,
                                .secret = row->secret,
                                .token = row->token,
                                .proxy = row->proxy,
                                .from_config = row->from_config,
                                .enabled = row->enabled,
                                .weight = row->weight,
                                .max_inflight = row->max_inflight,
                                .reason = row->reason,
                                .until_ms = row->until_ms,
                                .quota = row->quota,
                                .credit = credit_of(row->quota),
                                .requests = row->requests,
                                .failures = row->failures,
                                .tokens_in = row->tokens_in,
                                .tokens_out = row->tokens_out,
                                .last_used_ms = row->last_used_ms,
                                .created_ms = row->created_ms,
                                .token_expires_ms = row->token_expires_ms,
                                .month_ms = row->month_ms,
                                .month_requests = row->month_requests};

    uint64_t nobody = cm_pool_find_secret(gw->pool, row->provider, CM_STR_NONE);

    if (cm_cred_state_parse(row->state, &info.state) < 0)
        info.state = CM_CRED_STATE_OK;
    if (nobody && row->secret.n > 0)
        cm_pool_remove(gw->pool, nobody); /* stood in for credentials, see without_secret() */
    cm_pool_put(gw->pool, &info);
}

/* What the pool has learned since goes along when a row is written for another reason. */
static void with_figures(struct cm_gateway *gw, struct cm_cred_row *row)
{
    struct cm_cred_info info;

    if (!cm_pool_get(gw->pool, row->id, &info))
        return;
    row->state = cm_str_of(cm_cred_state_name(info.state));
    row->reason = info.reason;
    row->until_ms = info.until_ms;
    row->quota = info.quota;
    row->token = info.token;
    row->requests = info.requests;
    row->failures = info.failures;
    row->tokens_in = info.tokens_in;
    row->tokens_out = info.tokens_out;
    row->last_used_ms = info.last_used_ms;
    row->token_expires_ms = info.token_expires_ms;
    row->month_ms = info.month_ms;
    row->month_requests = info.month_requests;
}

static uint64_t new_id(struct cm_gateway *gw)
{
    return gw->store ? cm_store_next_id(gw->store) : UNSTORED_ID + ++gw->unstored_ids;
}

/* ---- from the configuration ---- */

static void store_row(struct cm_gateway *gw, const struct cm_cred_row *row)
{
    struct cm_change change = {.kind = CM_CHANGE_PUT_CRED, .cred = row};

    if (gw->store)
        cm_store_change(gw->store, &change, 1, NULL, NULL);
}

/* A line of the file: known before, back again, or new. */
static void configured(struct cm_gateway *gw, const struct cm_instance *in, struct cm_str secret)
{
    struct kept *k = kept_find_secret(gw, in->name, secret);
    bool changed = !k || k->row.gone;

    if (!k) {
        struct cm_cred_row row = {.id = new_id(gw),
                                  .provider = in->name,
                                  .secret = secret,
                                  .from_config = true,
                                  .enabled = true,
                                  .weight = 1,
                                  .state = CM_S("ok"),
                                  .created_ms = cm_unix_ms()};

        k = kept_put(gw, &row);
    }
    k->seen = true;
    k->row.gone = false;
    if (changed)
        store_row(gw, &k->row);
    pool_put(gw, &k->row);
}

/* A provider that needs no key and has none gets one credential without a secret. */
static void without_secret(struct cm_gateway *gw, const struct cm_instance *in)
{
    struct cm_pool_counts counts;
    struct cm_cred_row row = {.id = UNSTORED_ID + ++gw->unstored_ids,
                              .provider = in->name,
                              .from_config = true,
                              .enabled = true,
                              .weight = 1,
                              .state = CM_S("ok"),
                              .created_ms = cm_unix_ms()};

    cm_pool_count(gw->pool, in->name, &counts);
    if (in->adapter->keyless && counts.total == 0)
        pool_put(gw, &row);
}

static void providers_to_pool(struct cm_gateway *gw)
{
    const struct snapshot *s = gw->now;
    struct cm_pool_provider *p = cm_calloc(s->n_instances ? s->n_instances : 1, sizeof(*p));

    for (size_t i = 0; i < s->n_instances; i++) {
        const struct cm_instance *in = &s->instances[i];
        const struct cm_upstream_conf *up = &in->conf->upstream;

        p[i] = (struct cm_pool_provider){
            .name = in->name,
            .isolated = in->adapter->isolated,
            .max_inflight = up->max_inflight > 0 ? up->max_inflight : in->adapter->max_inflight,
            .cooldown_ms = up->cooldown_ms >= 0 ? up->cooldown_ms : in->adapter->cooldown_ms,
            .monthly_limit =
                up->monthly_limit >= 0 ? up->monthly_limit : in->adapter->monthly_limit,
            .can_refresh = in->adapter->refresh.step != NULL,
            .can_probe = in->adapter->probe.step != NULL,
            .needs_token = in->adapter->needs_token,
            .lacks = in->lacks,
            .probe_every_ms = in->adapter->probe_every_ms};
    }
    cm_pool_providers(gw->pool, p, s->n_instances);
    free(p);
}

static const struct cm_instance *instance_of(const struct cm_gateway *gw, struct cm_str name)
{
    for (size_t i = 0; i < gw->now->n_instances; i++)
        if (cm_str_eq(gw->now->instances[i].name, name))
            return &gw->now->instances[i];
    return NULL;
}

const struct cm_instance *cm_gateway_instance(const struct cm_gateway *gw, struct cm_str name)
{
    return instance_of(gw, name);
}

void creds_sync(struct cm_gateway *gw)
{
    CM_LIST_EACH(&gw->kept, link)
    CM_LIST_ITEM(link, struct kept, link)->seen = false;
    providers_to_pool(gw);
    for (size_t i = 0; i < gw->now->n_instances; i++)
        for (size_t n = 0; n < gw->now->instances[i].n_secrets; n++)
            configured(gw, &gw->now->instances[i], gw->now->instances[i].secrets[n]);
    CM_LIST_EACH(&gw->kept, link)
    {
        struct kept *k = CM_LIST_ITEM(link, struct kept, link);

        if (!k->row.from_config && instance_of(gw, k->row.provider)) {
            pool_put(gw, &k->row);
        } else if (k->row.from_config && !k->seen && !k->row.gone) {
            struct cm_cred_row row = k->row;

            with_figures(gw, &row);
            row.gone = true;
            store_row(gw, &kept_put(gw, &row)->row);
            cm_pool_remove(gw->pool, row.id);
        }
    }
    for (size_t i = 0; i < gw->now->n_instances; i++)
        without_secret(gw, &gw->now->instances[i]);
}

static void wipe(struct cm_str s)
{
    cm_wipe((char *)(uintptr_t)s.p, s.n);
}

int creds_load(struct cm_gateway *gw, struct cm_err *err)
{
    struct cm_arena arena = {0};
    struct cm_cred_row *rows;
    size_t n;

    if (!gw->store)
        return 0;
    if (cm_store_load_creds(gw->store, &arena, &rows, &n, err) < 0) {
        cm_arena_clear(&arena);
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        kept_put(gw, &rows[i]);
        wipe(rows[i].secret);
        wipe(rows[i].token);
        wipe(rows[i].proxy);
    }
    cm_arena_clear(&arena);
    return 0;
}

/* An upstream may quote what it was sent, or what it knows of others: a text with any of our secrets in it is not passed on. */
void creds_mask(struct cm_gateway *gw, struct cm_err *err)
{
    struct cm_str msg = cm_str_of(err->msg);

    CM_LIST_EACH(&gw->kept, link)
    {
        const struct kept *k = CM_LIST_ITEM(link, struct kept, link);

        if (k->row.secret.n >= SECRET_MIN && cm_str_has(msg, k->row.secret)) {
            cm_fail(err, err->cls,
                    CM_PRI " answered with a text that quotes a credential: it is not shown",
                    CM_ARG(k->row.provider));
            return;
        }
    }
}

/* ---- what the pool tells ---- */

void creds_on_state(void *arg, const struct cm_cred_info *cred)
{
    struct cm_gateway *gw = arg;

    if (gw->store && cred->id < UNSTORED_ID)
        cm_store_state(gw->store, cred->id, cm_str_of(cm_cred_state_name(cred->state)),
                       cred->reason, cred->until_ms, cred->quota);
}

void creds_count(struct cm_gateway *gw, struct cm_cred_count *count)
{
    count->last_used_ms = cm_unix_ms();
    if (gw->store && count->id < UNSTORED_ID)
        cm_store_count(gw->store, count);
}

/* ---- refreshed tokens ---- */

struct fresh {
    struct cm_gateway *gw;
    uint64_t id;
    struct cm_buf token; /* wiped */
    int64_t expires_ms;
};

/* On the disk, or the disk refused it: a token that was given out replaces the old one on the platform, so it is used either way. */
static void on_token_kept(void *arg, const struct cm_err *err)
{
    struct fresh *f = arg;
    struct cm_gateway *gw = f->gw;

    if (err)
        cm_error("store", "a refreshed token of credential %llu is not on the disk: %s",
                 (unsigned long long)f->id, err->msg);
    if (!gw->closing) {
        cm_pool_refreshed(gw->pool, f->id, cm_buf_str(&f->token), f->expires_ms, NULL);
        gateway_pool_moved(gw);
    }
    cm_wipe(f->token.p, f->token.n);
    cm_buf_clear(&f->token);
    free(f);
    gateway_attempt_over(gw);
}

void creds_store_token(struct cm_gateway *gw, uint64_t id, struct cm_str token, int64_t expires_ms)
{
    struct kept *k = kept_find(gw, id);
    struct cm_change change = {.kind = CM_CHANGE_PUT_CRED};
    struct fresh *f = CM_NEW(struct fresh);
    struct cm_cred_row row;

    *f = (struct fresh){.gw = gw, .id = id, .expires_ms = expires_ms};
    cm_buf_append(&f->token, token);
    gw->attempts_out++;
    if (!k || !gw->store || id >= UNSTORED_ID) {
        on_token_kept(f, NULL);
        return;
    }
    row = k->row;
    with_figures(gw, &row);
    row.token = token;
    row.token_expires_ms = expires_ms;
    change.cred = &kept_put(gw, &row)->row;
    cm_store_change(gw->store, &change, 1, on_token_kept, f);
}

/* ---- an operator's changes ---- */

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
    row_clear(&e->row);
    cm_arena_clear(&e->arena);
    free(e);
}

static void edit_apply(struct edit *e)
{
    struct cm_gateway *gw = e->gw;
    struct kept *k = kept_find(gw, e->id);

    switch (e->kind) {
    case CM_CHANGE_PUT_CRED:
        e->row.month_anew = false; /* it has been */
        pool_put(gw, &kept_put(gw, &e->row)->row);
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

static int edit_check(struct cm_gateway *gw, const struct cm_cred_edit *edit, const struct kept *k,
                      struct cm_arena *arena, struct cm_str *secret, struct cm_err *err)
{
    struct cm_str provider = k ? k->row.provider : edit->provider;
    const struct cm_instance *in = instance_of(gw, provider);
    const struct kept *twin;

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
        with_figures(gw, &row);
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
        row.id = k ? edit->id : twin ? twin->row.id : new_id(gw);
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
        row_copy(&e->row, &row);
        e->id = row.id;
    }
    edit_commit(e);
}

void cm_gateway_delete_cred(struct cm_gateway *gw, uint64_t id, cm_gateway_done_fn *done, void *arg)
{
    struct kept *k = kept_find(gw, id);
    struct edit *e = edit_new(gw, CM_CHANGE_DEL_CRED, id, done, arg);

    if (!k || k->row.gone)
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
