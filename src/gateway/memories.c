/* What adapters remember beyond a restart: to the store and, at the start, back. And conversations that another gateway led. */
#include "creds_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

static void keep(void *arg, const struct cm_memory *m)
{
    struct cm_memory_row row = {
        .cred_id = m->cred, .kind = m->kind, .until_ms = m->until_ms, .value = m->value};

    if (m->cred >= UNSTORED_ID)
        return;
    memcpy(row.key, m->key, sizeof(row.key));
    cm_store_remember(arg, &row);
}

static void drop(void *arg, const unsigned char key[CM_SHA256_SIZE])
{
    cm_store_forget(arg, key);
}

struct cm_keeper cm_gateway_keeper(struct cm_store *store)
{
    return (struct cm_keeper){.put = keep, .drop = drop, .arg = store};
}

static void restore(struct cm_gateway *gw, const struct cm_memory_row *row, int64_t now_ms)
{
    const struct kept *k = kept_find(gw, row->cred_id);
    struct cm_memory m = {.kind = (enum cm_memory_kind)row->kind,
                          .cred = row->cred_id,
                          .until_ms = row->until_ms,
                          .value = row->value};

    if (!k || k->row.secret.n == 0)
        return;
    memcpy(m.key, row->key, sizeof(m.key));
    cm_memory_restore(gw->host->memo, k->row.provider, k->row.secret, &m, now_ms);
}

int memories_load(struct cm_gateway *gw, struct cm_err *err)
{
    struct cm_arena arena = {0};
    struct cm_memory_row *rows = NULL;
    size_t n = 0;
    int rc;

    if (!gw->store || !gw->host->memo)
        return 0;
    rc = cm_store_load_memories(gw->store, &arena, &rows, &n, err);
    for (size_t i = 0; rc == 0 && i < n; i++)
        restore(gw, &rows[i], cm_unix_ms());
    cm_arena_clear(&arena);
    return rc;
}

/* ---- another gateway's ---- */

struct taking {
    struct cm_gateway *gw;
    uint64_t cred;
    struct cm_task told;
    struct cm_err err;
    cm_gateway_done_fn *done;
    void *arg;
};

static void take_tell(void *arg)
{
    struct taking *t = arg;
    struct cm_gateway *gw = t->gw;

    t->done(t->arg, t->cred, t->err.cls != CM_ERR_NONE ? &t->err : NULL);
    free(t);
    gateway_attempt_over(gw);
}

static void take_durable(void *arg, const struct cm_err *err)
{
    struct taking *t = arg;

    if (err)
        t->err = *err;
    take_tell(t);
}

static void take(struct cm_gateway *gw, const struct cm_instance *in, const struct kept *k,
                 const struct cm_old_thread *old)
{
    const int64_t now_ms = cm_unix_ms();
    struct cm_memory m = {.kind = CM_MEMORY_OLD_THREAD,
                          .cred = k->row.id,
                          .value = old->value,
                          .until_ms = now_ms + cm_instance_thread_ms(in)};
    const struct cm_keeper keeper = cm_gateway_keeper(gw->store);

    cm_memory_old_key(in->name, cm_instance_upstream(in, old->model), old->name, m.key);
    cm_memory_restore(gw->host->memo, in->name, k->row.secret, &m, now_ms);
    if (gw->store)
        keeper.put(keeper.arg, &m);
}

void cm_gateway_take_threads(struct cm_gateway *gw, struct cm_str provider, struct cm_str secret,
                             const struct cm_old_thread *threads, size_t n,
                             cm_gateway_done_fn *done, void *arg)
{
    const struct cm_instance *in = cm_gateway_instance(gw, provider);
    struct taking *t = CM_NEW(struct taking);
    struct cm_arena arena = {.secret = true};
    const struct kept *k = NULL;

    *t = (struct taking){.gw = gw, .done = done, .arg = arg};
    gw->attempts_out++; /* the gateway stays until the answer has come */
    if (!in || !in->adapter->old_thread)
        cm_fail_param(&t->err, CM_ERR_BAD_REQUEST, "provider",
                      "there is no provider \"" CM_PRI "\" that can go on with conversations of "
                      "another gateway",
                      CM_ARG(cm_str_head(provider, 80)));
    else if (!in->adapter->normalize ||
             in->adapter->normalize(&arena, secret, &secret, &t->err) == 0)
        k = kept_find_secret(gw, provider, secret);
    if (!k && t->err.cls == CM_ERR_NONE)
        cm_fail_param(&t->err, CM_ERR_BAD_REQUEST, "secret",
                      "no credential of this provider has this secret");
    for (size_t i = 0; k && i < n; i++)
        take(gw, in, k, &threads[i]);
    t->cred = k ? k->row.id : 0;
    cm_arena_clear(&arena);
    if (k && gw->store) {
        cm_store_flush(gw->store, take_durable, t);
        return;
    }
    cm_task_init(&t->told, take_tell, t);
    cm_task_post(gw->host->loop, &t->told);
}
