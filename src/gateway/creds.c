/* Credentials: those of the configuration and those of the API in one pool, and their durable form.
 *
 * `kept` holds every stored row, also of lines that have disappeared from the file and of providers that are not configured now: what comes back finds
 * its history. The pool holds those that can serve. An operator's change is durable before it counts; states and counters follow in groups. */
#include "creds_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/memory.h"
#include <stdlib.h>

#define FIGURE_MAX (INT64_C(1) << 53)

/* ---- rows ---- */

static struct cm_str *texts_of(struct cm_cred_row *row, size_t i)
{
    struct cm_str *const all[] = {&row->provider, &row->label, &row->secret, &row->token,
                                  &row->proxy,    &row->state, &row->reason, &row->quota};

    return i < CM_COUNT(all) ? all[i] : NULL;
}

void kept_row_copy(struct cm_cred_row *to, const struct cm_cred_row *from)
{
    *to = *from;
    for (size_t i = 0; texts_of(to, i); i++)
        *texts_of(to, i) = cm_secret_dup(*texts_of(to, i));
}

void kept_row_clear(struct cm_cred_row *row)
{
    for (size_t i = 0; texts_of(row, i); i++)
        cm_secret_drop(*texts_of(row, i));
}

static struct cm_str bytes_of(const void *p, size_t n)
{
    return cm_str((const char *)p, n);
}

struct kept *kept_find(struct cm_gateway *gw, uint64_t id)
{
    return cm_map_get(&gw->kept_by_id, bytes_of(&id, sizeof(id)));
}

struct kept *kept_find_secret(struct cm_gateway *gw, struct cm_str provider, struct cm_str secret)
{
    unsigned char digest[CM_SHA256_SIZE];

    cm_cred_digest(provider, secret, digest);
    return cm_map_get(&gw->kept_by_secret, bytes_of(digest, sizeof(digest)));
}

static void unindex(struct cm_gateway *gw, struct kept *k)
{
    struct cm_str digest = bytes_of(k->digest, sizeof(k->digest));

    mask_remove(&gw->mask, &k->parts);
    cm_map_del(&gw->kept_by_id, bytes_of(&k->row.id, sizeof(k->row.id)));
    if (cm_map_get(&gw->kept_by_secret, digest) == k)
        cm_map_del(&gw->kept_by_secret, digest);
}

struct kept *kept_put(struct cm_gateway *gw, const struct cm_cred_row *row)
{
    struct kept *k = kept_find(gw, row->id);
    struct cm_cred_row copy;

    kept_row_copy(&copy, row);
    if (!k) {
        k = CM_NEW(struct kept);
        cm_list_push(&gw->kept, &k->link);
    } else {
        unindex(gw, k);
        kept_row_clear(&k->row);
    }
    k->row = copy;
    mask_add(&gw->mask, &k->parts, k->row.secret, k->row.token, k->row.proxy);
    cm_cred_digest(k->row.provider, k->row.secret, k->digest);
    cm_map_put(&gw->kept_by_id, bytes_of(&k->row.id, sizeof(k->row.id)), k);
    cm_map_put(&gw->kept_by_secret, bytes_of(k->digest, sizeof(k->digest)), k);
    return k;
}

void kept_drop(struct cm_gateway *gw, struct kept *k)
{
    unindex(gw, k);
    cm_list_remove(&k->link);
    kept_row_clear(&k->row);
    free(k);
}

void creds_free(struct cm_gateway *gw)
{
    mask_clear(&gw->mask);
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

void kept_to_pool(struct cm_gateway *gw, const struct cm_cred_row *row)
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
void kept_figures(struct cm_gateway *gw, struct cm_cred_row *row)
{
    struct cm_cred_info info;

    if (!cm_pool_get(gw->pool, row->id, &info))
        return;
    row->state = cm_str_of(cm_cred_state_name(info.state));
    row->reason = info.reason;
    row->until_ms = info.until_ms;
    row->quota = info.quota;
    row->requests = info.requests;
    row->failures = info.failures;
    row->tokens_in = info.tokens_in;
    row->tokens_out = info.tokens_out;
    row->last_used_ms = info.last_used_ms;
    row->month_ms = info.month_ms;
    row->month_requests = info.month_requests;
}

uint64_t kept_new_id(struct cm_gateway *gw)
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
        struct cm_cred_row row = {.id = kept_new_id(gw),
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
    kept_to_pool(gw, &k->row);
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
        kept_to_pool(gw, &row);
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
            .min_interval_ms = up->min_interval_ms,
            .cooldown_ms = up->cooldown_ms >= 0 ? up->cooldown_ms : in->adapter->cooldown_ms,
            .monthly_limit =
                up->monthly_limit >= 0 ? up->monthly_limit : in->adapter->monthly_limit,
            .can_refresh = cm_provider_makes_tokens(in->adapter),
            .can_probe = in->adapter->probe.step != NULL,
            .needs_token = in->adapter->needs_token,
            .breaker_rate = up->breaker_rate,
            .breaker_attempts = up->breaker_account_attempts,
            .lacks = in->lacks,
            .probe_every_ms = in->adapter->probe_every_ms};
    }
    cm_pool_providers(gw->pool, p, s->n_instances);
    free(p);
}

const struct cm_instance *cm_gateway_instance(const struct cm_gateway *gw, struct cm_str name)
{
    for (size_t i = 0; i < gw->now->n_instances; i++)
        if (cm_str_eq(gw->now->instances[i].name, name))
            return &gw->now->instances[i];
    return NULL;
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

        if (!k->row.from_config && cm_gateway_instance(gw, k->row.provider)) {
            kept_to_pool(gw, &k->row);
        } else if (k->row.from_config && !k->seen && !k->row.gone) {
            struct cm_cred_row row = k->row;

            kept_figures(gw, &row);
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

void creds_mask(const struct cm_gateway *gw, struct cm_err *err, struct cm_str provider,
                struct cm_str secret, struct cm_str token)
{
    const struct cm_str said = cm_str_of(err->msg);
    struct mask own = {0}; /* the token may be one that was replaced meanwhile */
    struct mask_parts parts = {0};

    mask_add(&own, &parts, secret, token, CM_STR_NONE);
    if (mask_finds(&own, said) || mask_finds(&gw->mask, said))
        cm_fail(err, err->cls,
                CM_PRI " answered with a text that quotes a credential: it is not shown",
                CM_ARG(provider));
    mask_remove(&own, &parts);
    mask_clear(&own);
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
