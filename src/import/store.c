/* What was read, into a store: one change of all rows, so that it is there as a whole or not at all. */
#include "import_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/crypto.h"
#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"
#include "chatmux/io/job.h"
#include "chatmux/keys/keys.h"
#include "chatmux/provider/memory.h"

#include <stdlib.h>

struct writing {
    struct cm_store *store;
    const struct cm_provider_conf *provider;
    const struct cm_provider *adapter;
    struct cm_instance instance; /* for its models and settings, where there are chats */
    struct cm_arena arena;       /* secret; holds the rows */
    struct cm_map creds;         /* secret -> struct cm_cred_row, of this provider */
    struct cm_map keys;          /* digest -> any */
    struct cm_change *changes;
    size_t n;
    struct cm_import_result *out;
    /* the one change */
    struct cm_loop *loop;
    struct cm_err *err;
    int rc;
};

const struct cm_provider_conf *cm_import_provider(const struct cm_config *config,
                                                  const struct cm_import *im, struct cm_err *err)
{
    for (size_t i = 0; i < config->n_providers; i++)
        if (cm_str_eq(config->providers[i].type, cm_str_of(im->type)))
            return &config->providers[i];
    cm_fail(err, CM_ERR_CONFIG,
            "no provider of type %s is configured that could take the accounts: add [provider %s] "
            "with type = %s, or set CHATMUX_COMPAT",
            im->type, im->type, im->type);
    return NULL;
}

static int load_known(struct writing *w, struct cm_err *err)
{
    struct cm_cred_row *creds;
    struct cm_key_row *keys;
    size_t n_creds, n_keys;

    if (cm_store_load_creds(w->store, &w->arena, &creds, &n_creds, err) < 0 ||
        cm_store_load_keys(w->store, &w->arena, &keys, &n_keys, err) < 0)
        return -1;
    for (size_t i = 0; i < n_creds; i++)
        if (cm_str_eq(creds[i].provider, w->provider->name) && creds[i].secret.n > 0)
            cm_map_put(&w->creds, creds[i].secret, &creds[i]);
    for (size_t i = 0; i < n_keys; i++)
        cm_map_put(&w->keys, cm_str((const char *)keys[i].digest, sizeof(keys[i].digest)),
                   &keys[i]);
    return 0;
}

static void refuse(struct writing *w, size_t *count, const struct cm_err *why)
{
    ++*count;
    w->out->why = *why;
}

static void add_cred(struct writing *w, const struct cm_import_cred *from)
{
    struct cm_cred_row *row = CM_ARENA_NEW(&w->arena, struct cm_cred_row), *known;
    struct cm_str secret = from->secret;
    struct cm_err err = {0};

    if (w->adapter->normalize && w->adapter->normalize(&w->arena, secret, &secret, &err) < 0) {
        refuse(w, &w->out->refused_creds, &err);
        return;
    }
    known = cm_map_get(&w->creds, secret);
    if (known && !known->gone) {
        w->out->known_creds++;
        return;
    }
    *row = (struct cm_cred_row){.enabled = true, .weight = 1, .state = CM_S("ok")};
    if (known) /* its line has gone from a file: its history goes on */
        *row = *known;
    else
        row->id = cm_store_next_id(w->store);
    row->gone = row->from_config = false;
    row->provider = w->provider->name;
    row->secret = secret;
    row->label = from->label;
    row->created_ms = from->created_s > 0 ? from->created_s * 1000 : cm_unix_ms();
    cm_map_put(&w->creds, secret, row);
    w->changes[w->n++] = (struct cm_change){.kind = CM_CHANGE_PUT_CRED, .cred = row};
    w->out->creds++;
}

static void add_key(struct writing *w, const struct cm_import_key *from)
{
    struct cm_key_row *row = CM_ARENA_NEW(&w->arena, struct cm_key_row);
    struct cm_str digest = cm_str((const char *)row->digest, sizeof(row->digest));
    struct cm_err err = {0};

    *row = (struct cm_key_row){.budget_period = CM_S("total"), .enabled = true};
    if (cm_key_take(row, &w->arena, from->secret, &err) < 0) {
        refuse(w, &w->out->refused_keys, &err);
        return;
    }
    if (cm_map_get(&w->keys, digest)) {
        w->out->known_keys++;
        return;
    }
    row->id = cm_store_next_id(w->store);
    row->name = from->name.n > 0 ? from->name : CM_S("unnamed");
    row->created_s = from->created_s > 0 ? from->created_s : cm_unix_ms() / 1000;
    cm_map_put(&w->keys, digest, row);
    w->changes[w->n++] = (struct cm_change){.kind = CM_CHANGE_PUT_KEY, .key = row};
    w->out->keys++;
}

/* The account is known by now, or was refused. */
static void add_chat(struct writing *w, const struct cm_import_chat *from, int64_t until_ms)
{
    struct cm_memory_row *row = CM_ARENA_NEW(&w->arena, struct cm_memory_row);
    const struct cm_cred_row *cred = NULL;
    struct cm_str secret = from->secret;
    struct cm_err unused = {0};

    if (!w->adapter->normalize || w->adapter->normalize(&w->arena, secret, &secret, &unused) == 0)
        cred = cm_map_get(&w->creds, secret);
    if (!cred) {
        w->out->refused_chats++;
        return;
    }
    *row = (struct cm_memory_row){.cred_id = cred->id,
                                  .kind = CM_MEMORY_OLD_THREAD,
                                  .until_ms = until_ms,
                                  .value = from->chat};
    cm_memory_old_key(w->provider->name, cm_instance_upstream(&w->instance, from->model),
                      from->name, row->key);
    w->changes[w->n++] = (struct cm_change){.kind = CM_CHANGE_PUT_MEMORY, .memory = row};
    w->out->chats++;
}

/* The latest ones, as many as there is room for; those used last end last. */
static void add_chats(struct writing *w, const struct cm_import *im)
{
    const size_t skip = im->n_chats > CM_MEMORIES_MAX ? im->n_chats - CM_MEMORIES_MAX : 0;
    struct cm_problems problems;
    int64_t until_ms;

    cm_problems_init(&problems, &w->arena);
    if (im->n_chats == 0 || !w->adapter->old_thread ||
        cm_instance_init(&w->instance, w->provider, &w->arena, &problems) < 0) {
        w->out->refused_chats = im->n_chats;
        return;
    }
    until_ms = cm_unix_ms() + cm_instance_thread_ms(&w->instance);
    w->out->refused_chats = skip;
    for (size_t i = skip; i < im->n_chats; i++)
        add_chat(w, &im->chats[i], until_ms + (int64_t)i);
}

static void on_durable(void *arg, const struct cm_err *err)
{
    struct writing *w = arg;

    if (err) {
        w->rc = -1;
        if (w->err)
            *w->err = *err;
    }
    cm_loop_stop(w->loop);
}

int cm_import_into(struct cm_loop *loop, struct cm_store *store,
                   const struct cm_provider_conf *provider, const struct cm_import *im,
                   struct cm_import_result *out, struct cm_err *err)
{
    struct writing w = {.store = store,
                        .provider = provider,
                        .adapter = cm_provider_find(provider->type),
                        .arena = {.secret = true},
                        .out = out,
                        .loop = loop,
                        .err = err};

    *out = (struct cm_import_result){0};
    CM_ASSERT(w.adapter);
    w.rc = load_known(&w, err);
    if (w.rc == 0) {
        w.changes =
            CM_ARENA_ARRAY(&w.arena, struct cm_change, im->n_creds + im->n_keys + im->n_chats + 1);
        for (size_t i = 0; i < im->n_creds; i++)
            add_cred(&w, &im->creds[i]);
        for (size_t i = 0; i < im->n_keys; i++)
            add_key(&w, &im->keys[i]);
        add_chats(&w, im);
        if (w.n > 0) {
            cm_store_change(store, w.changes, w.n, on_durable, &w);
            cm_loop_run(loop);
        }
    }
    cm_map_clear(&w.creds);
    cm_map_clear(&w.keys);
    cm_arena_clear(&w.arena);
    return w.rc;
}

static void on_closed(void *loop)
{
    cm_loop_stop(loop);
}

int cm_import_store(const struct cm_config *config, const struct cm_import *im,
                    struct cm_import_result *out, struct cm_err *err)
{
    const struct cm_provider_conf *provider = cm_import_provider(config, im, err);
    struct cm_loop *loop = provider ? cm_loop_new() : NULL;
    struct cm_jobs *jobs = provider ? cm_jobs_new(loop) : NULL;
    struct cm_store_setup setup = {.loop = loop,
                                   .jobs = jobs,
                                   .url = config->store.url,
                                   .state_dir = config->store.state_dir,
                                   .master_key = config->store.master_key,
                                   .master_key_file = config->store.master_key_file};
    struct cm_store *store = provider ? cm_store_open(&setup, err) : NULL;
    int rc = store ? cm_import_into(loop, store, provider, im, out, err) : -1;

    if (store) {
        cm_store_close(store, on_closed, loop);
        cm_loop_run(loop);
    }
    if (provider) {
        cm_jobs_close(jobs);
        cm_loop_free(loop);
    }
    return rc;
}
