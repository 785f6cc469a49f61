/* The table of client keys: configured and stored ones, found by the SHA-256 of the secret. */
#include "keys_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "chatmux/base/crypto.h"
#include "chatmux/base/map.h"
#include "chatmux/codec/json.h"

struct cm_keys {
    struct cm_list configured, stored; /* struct cm_key; each holds a reference */
    struct cm_map by_digest;           /* row.digest; of several keys with one secret the best */
    struct cm_map by_id;               /* row.id, stored keys only */
    size_t n;
    bool asks;                    /* answers of the ledger are answers to cm_keys_true_up_begin() */
    const struct cm_clock *clock; /* not owned */
};

static struct cm_key *key_at(struct cm_list *link)
{
    return CM_LIST_ITEM(link, struct cm_key, link);
}

static struct cm_str digest_of(const struct cm_key *key)
{
    return cm_str((const char *)key->row.digest, sizeof(key->row.digest));
}

static struct cm_str id_of(const struct cm_key *key)
{
    return cm_str((const char *)&key->row.id, sizeof(key->row.id));
}

/* --- one key -------------------------------------------------------------------------------- */

static struct cm_key *key_new(struct cm_keys *k, struct cm_list *list)
{
    struct cm_key *key = CM_NEW(struct cm_key);

    key->refs = 1;
    key->clock = k->clock;
    key->all_models = true;
    key->row.enabled = true;
    key->asked.began_ms = NO_PERIOD;
    for (enum period p = 0; p < PERIODS; p++)
        key->spent[p].began_ms = key->other[p].began_ms = NO_PERIOD;
    cm_list_push(list, &key->link);
    k->n++;
    return key;
}

struct cm_key *cm_key_ref(struct cm_key *key)
{
    key->refs++;
    return key;
}

void cm_key_unref(struct cm_key *key)
{
    if (!key || --key->refs > 0)
        return;
    cm_arena_clear(&key->texts);
    free(key->requests);
    free(key->tokens);
    free(key);
}

/* JSON array of strings; anything else leaves the list empty: what cannot be read allows nothing. */
static void read_models(struct cm_key *key)
{
    static const struct cm_json_limits limits = {100000, 2};
    yyjson_doc *doc;
    yyjson_val *list, *item;
    size_t i, n;

    key->models = (struct cm_strs){0};
    key->all_models = key->row.models.n == 0;
    doc = key->all_models ? NULL : cm_json_parse(key->row.models, &limits, NULL);
    list = yyjson_doc_get_root(doc);
    key->models.v = CM_ARENA_ARRAY(&key->texts, struct cm_str, yyjson_arr_size(list));
    yyjson_arr_foreach(list, i, n, item)
    {
        if (yyjson_is_str(item))
            key->models.v[key->models.n++] = cm_arena_str(&key->texts, cm_json_str(item));
    }
    yyjson_doc_free(doc);
}

static void set_row(struct cm_key *key, const struct cm_key_row *row)
{
    struct cm_arena old = key->texts; /* the new row may be made of the old one's texts */
    enum period period = period_of(row->budget_period);

    key->texts = (struct cm_arena){0};
    key->row = *row;
    key->row.name = cm_arena_str(&key->texts, row->name);
    key->row.hint = cm_arena_str(&key->texts, row->hint);
    key->row.models = cm_arena_str(&key->texts, row->models);
    key->row.budget_period = cm_arena_str(&key->texts, row->budget_period);
    cm_arena_clear(&old);
    read_models(key);
    if (row->budget_micro_usd <= 0)
        period = PERIOD_TOTAL;
    if (period != key->period) {
        key->period = period;
        key->trued = false;
        key->asked.began_ms = NO_PERIOD; /* an answer on its way is about the other period */
    }
}

const struct cm_key_row *cm_key_row(const struct cm_key *key)
{
    return &key->row;
}

int64_t cm_key_period_began_ms(const struct cm_key *key, int64_t now_unix_ms)
{
    return period_began_ms(key->period, now_unix_ms);
}

bool cm_key_allows(const struct cm_key *key, struct cm_str model)
{
    for (size_t i = 0; i < key->models.n; i++) {
        struct cm_str entry = key->models.v[i];

        if (cm_str_ends(entry, CM_S("*")) ? cm_str_starts(model, cm_str_head(entry, entry.n - 1))
                                          : cm_str_eq(model, entry))
            return true;
    }
    return key->all_models;
}

/* --- the table ------------------------------------------------------------------------------ */

struct cm_keys *cm_keys_new(const struct cm_clock *clock)
{
    struct cm_keys *k = CM_NEW(struct cm_keys);

    cm_list_init(&k->configured);
    cm_list_init(&k->stored);
    k->clock = clock;
    return k;
}

static bool is_better(const struct cm_key *a, const struct cm_key *b)
{
    if (a->configured != b->configured)
        return !a->configured;
    return a->row.id < b->row.id;
}

/* Keys with one secret form a chain behind the best of them, which is the one that is found. */
static void enter_digest(struct cm_keys *k, struct cm_key *key)
{
    struct cm_key *at = cm_map_get(&k->by_digest, digest_of(key));

    if (!at || is_better(key, at)) {
        key->same = at;
        cm_map_put(&k->by_digest, digest_of(key), key);
        return;
    }
    while (at->same && is_better(at->same, key))
        at = at->same;
    key->same = at->same;
    at->same = key;
}

static void leave_digest(struct cm_keys *k, struct cm_key *key)
{
    struct cm_key *at = cm_map_get(&k->by_digest, digest_of(key));

    if (at == key && key->same)
        cm_map_put(&k->by_digest, digest_of(key->same), key->same);
    else if (at == key)
        cm_map_del(&k->by_digest, digest_of(key));
    for (; at; at = at->same) {
        if (at->same == key)
            at->same = key->same;
    }
    key->same = NULL;
}

static void drop(struct cm_keys *k, struct cm_key *key)
{
    leave_digest(k, key);
    if (!key->configured)
        cm_map_del(&k->by_id, id_of(key));
    cm_list_remove(&key->link);
    key->gone = true;
    k->n--;
    cm_key_unref(key);
}

void cm_keys_free(struct cm_keys *k)
{
    if (!k)
        return;
    CM_LIST_EACH(&k->configured, it)
    drop(k, key_at(it));
    CM_LIST_EACH(&k->stored, it)
    drop(k, key_at(it));
    cm_map_clear(&k->by_digest);
    cm_map_clear(&k->by_id);
    free(k);
}

static void configure(struct cm_keys *k, struct cm_map *known, struct cm_str secret, size_t place)
{
    struct cm_key_row row = {.enabled = true};
    struct cm_key *key;
    char name[32];
    bool is_new;

    cm_sha256(secret, row.digest);
    key = cm_map_get(known, cm_str((const char *)row.digest, sizeof(row.digest)));
    if (key && key->listed)
        return; /* the same secret twice */
    is_new = !key;
    if (is_new)
        key = key_new(k, &k->configured);
    cm_list_remove(&key->link);
    cm_list_push(&k->configured, &key->link);
    key->configured = key->listed = true;
    snprintf(name, sizeof(name), "key#%zu", place);
    row.name = cm_str_of(name);
    if (secret.n >= 12)
        row.hint = cm_str_from(secret, secret.n - 4);
    set_row(key, &row);
    if (is_new) {
        cm_map_put(known, digest_of(key), key);
        enter_digest(k, key);
    }
}

void cm_keys_configure(struct cm_keys *k, const struct cm_str *secrets, size_t n)
{
    struct cm_map known = {0};

    CM_LIST_EACH(&k->configured, it)
    {
        key_at(it)->listed = false;
        cm_map_put(&known, digest_of(key_at(it)), key_at(it));
    }
    for (size_t i = 0; i < n; i++)
        configure(k, &known, secrets[i], i + 1);
    cm_map_clear(&known);
    CM_LIST_EACH(&k->configured, it)
    {
        if (!key_at(it)->listed)
            drop(k, key_at(it));
    }
}

void cm_keys_put(struct cm_keys *k, const struct cm_key_row *row)
{
    struct cm_key *key = cm_map_get(&k->by_id, cm_str((const char *)&row->id, sizeof(row->id)));
    bool is_new = !key;

    if (is_new)
        key = key_new(k, &k->stored);
    else
        leave_digest(k, key); /* the secret may be another one now */
    set_row(key, row);
    enter_digest(k, key);
    if (is_new)
        cm_map_put(&k->by_id, id_of(key), key);
}

void cm_keys_delete(struct cm_keys *k, uint64_t id)
{
    struct cm_key *key = cm_map_get(&k->by_id, cm_str((const char *)&id, sizeof(id)));

    if (key)
        drop(k, key);
}

size_t cm_keys_count(const struct cm_keys *k)
{
    return k->n;
}

struct cm_key *cm_keys_find(struct cm_keys *k, struct cm_str secret, struct cm_err *err)
{
    unsigned char digest[CM_SHA256_SIZE];
    struct cm_key *key;

    /* The time of the look-up depends on the digest alone, of which a client cannot choose a byte. */
    cm_sha256(secret, digest);
    key = cm_map_get(&k->by_digest, cm_str((const char *)digest, sizeof(digest)));
    if (key)
        return key_usable(key, k->clock->unix_ms(k->clock->arg), err) == 0 ? key : NULL;
    if (cm_key_plausible(secret))
        (void)cm_fail(err, CM_ERR_UNAUTHORIZED, "incorrect API key provided");
    else
        (void)cm_fail(err, CM_ERR_UNAUTHORIZED,
                      "incorrect API key provided: it is mistyped or cut, its checksum is wrong");
    return NULL;
}

void cm_keys_each(const struct cm_keys *k, cm_keys_each_fn *fn, void *arg)
{
    CM_LIST_EACH(&k->configured, it)
    fn(arg, key_at(it));
    CM_LIST_EACH(&k->stored, it)
    fn(arg, key_at(it));
}

/* --- the ledger ----------------------------------------------------------------------------- */

void cm_keys_true_up_begin(struct cm_keys *k)
{
    int64_t now_unix_ms = k->clock->unix_ms(k->clock->arg);

    CM_LIST_EACH(&k->stored, it)
    {
        struct cm_key *key = key_at(it);

        key_turn_periods(key, now_unix_ms);
        key->asked = key->spent[key->period];
    }
    k->asks = true;
}

static void true_up(const struct cm_keys *k, struct cm_key *key, int64_t micro_usd)
{
    struct spending *spent = &key->spent[key->period];
    struct spending asked = key->asked;

    key_turn_periods(key, k->clock->unix_ms(k->clock->arg));
    if (!k->asks)
        asked = *spent;
    key->asked.began_ms = NO_PERIOD;
    if (asked.began_ms != spent->began_ms)
        return;
    if (micro_usd < 0 || micro_usd > SPENT_MAX / 2)
        micro_usd = micro_usd < 0 ? 0 : SPENT_MAX / 2;
    key->drift = key->trued ? asked.micro_usd - micro_usd : 0;
    key->trued = true;
    spent->micro_usd += micro_usd - asked.micro_usd;
}

void cm_keys_true_up(struct cm_keys *k, uint64_t id, int64_t micro_usd)
{
    struct cm_key *key = cm_map_get(&k->by_id, cm_str((const char *)&id, sizeof(id)));

    if (key)
        true_up(k, key, micro_usd);
}

void cm_keys_true_up_since(struct cm_keys *k, int64_t since_ms, const struct cm_spent *rows,
                           size_t n)
{
    int64_t now_unix_ms = k->clock->unix_ms(k->clock->arg);
    struct cm_map told = {0};

    for (size_t i = 0; i < n; i++)
        cm_map_put(&told, cm_str((const char *)&rows[i].key_id, sizeof(rows[i].key_id)),
                   (void *)(uintptr_t)&rows[i]);
    CM_LIST_EACH(&k->stored, it)
    {
        struct cm_key *key = key_at(it);
        const struct cm_spent *row = cm_map_get(&told, id_of(key));

        if (period_began_ms(key->period, now_unix_ms) == since_ms)
            true_up(k, key, row ? row->micro_usd : 0);
    }
    cm_map_clear(&told);
}

int64_t cm_keys_drift(const struct cm_keys *k)
{
    int64_t sum = 0;

    CM_LIST_EACH(&k->stored, it)
    {
        int64_t drift = key_at(it)->drift;

        sum += drift < 0 ? -drift : drift;
    }
    return sum;
}
