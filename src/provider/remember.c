/* What flows remember between runs: the memo's entries of this credential, some of them beyond a restart, and what belongs to a client's conversation. */
#include "run_int.h"

#include "chatmux/base/secret.h"

static struct cm_str digest(struct cm_arena *arena, struct cm_str text)
{
    unsigned char d[CM_SHA256_SIZE];

    cm_sha256(text, d);
    return cm_arena_str(arena, cm_str((const char *)d, sizeof(d)));
}

void cm_cred_digest(struct cm_str provider, struct cm_str secret, unsigned char out[CM_SHA256_SIZE])
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

struct cm_str run_owner(struct cm_run *run)
{
    struct run_memory *m = run_memory(run);
    unsigned char d[CM_SHA256_SIZE];

    if (m->owner.n == 0) {
        cm_cred_digest(cm_run_instance(run)->name, cm_run_cred(run)->secret, d);
        m->owner = cm_arena_str(cm_run_arena(run), cm_str((const char *)d, sizeof(d)));
    }
    return m->owner;
}

/* By what something durable of this credential is known, in the memo and on the disk. */
static struct cm_str durable_key(struct cm_run *run, struct cm_str key)
{
    return digest(cm_run_arena(run),
                  cm_arena_printf(cm_run_arena(run), "own\n%llu\n" CM_PRI,
                                  (unsigned long long)cm_run_cred(run)->id, CM_ARG(key)));
}

bool cm_run_recall(struct cm_run *run, struct cm_str key, struct cm_str *value)
{
    return run_memo(run) &&
           (cm_memo_get(run_memo(run), run_owner(run), key, value) ||
            cm_memo_get(run_memo(run), run_owner(run), durable_key(run, key), value));
}

void cm_run_remember(struct cm_run *run, struct cm_str key, struct cm_str value, int64_t ttl_ms)
{
    if (run_memo(run))
        cm_memo_put(run_memo(run), run_owner(run), key, value, ttl_ms);
}

void cm_run_remember_durably(struct cm_run *run, struct cm_str key, struct cm_str value,
                             int64_t ttl_ms)
{
    const struct cm_keeper *keeper = run_keeper(run);
    struct cm_memory kept = {.kind = CM_MEMORY_OWN,
                             .cred = cm_run_cred(run)->id,
                             .value = value,
                             .until_ms = cm_run_unix_ms(run) + ttl_ms};
    struct cm_str name;

    if (!run_memo(run))
        return;
    name = durable_key(run, key);
    memcpy(kept.key, name.p, sizeof(kept.key));
    if (kept.cred && ttl_ms > 0 && keeper->put)
        keeper->put(keeper->arg, &kept);
    cm_memo_keep(run_memo(run), run_owner(run), name, value, ttl_ms); /* may be where value lies */
}

void cm_run_forget(struct cm_run *run, struct cm_str key)
{
    const struct cm_keeper *keeper = run_keeper(run);
    struct cm_str name, value;

    if (!run_memo(run))
        return;
    cm_memo_del(run_memo(run), run_owner(run), key);
    name = durable_key(run, key);
    if (!cm_memo_get(run_memo(run), run_owner(run), name, &value))
        return;
    cm_memo_del(run_memo(run), run_owner(run), name);
    if (cm_run_cred(run)->id && keeper->drop)
        keeper->drop(keeper->arg, (const unsigned char *)name.p);
}

/* ---- what belongs to a client's conversation ---- */

/* Never the owner of a credential's entries: those are digests of a provider and a secret. */
static struct cm_str client_of(struct cm_run *run)
{
    struct run_memory *m = run_memory(run);

    if (m->client.n == 0)
        m->client =
            digest(cm_run_arena(run),
                   cm_arena_printf(cm_run_arena(run), "kept\n" CM_PRI "\n" CM_PRI,
                                   CM_ARG(cm_run_instance(run)->name), CM_ARG(cm_run_scope(run))));
    return m->client;
}

bool cm_run_kept(struct cm_run *run, struct cm_str key, struct cm_str *value)
{
    return run_memo(run) && cm_memo_get(run_memo(run), client_of(run), key, value);
}

void cm_run_keep(struct cm_run *run, struct cm_str key, struct cm_str value)
{
    if (run_memo(run))
        cm_memo_put(run_memo(run), client_of(run), key, value, CM_KEPT_MS);
}

struct cm_str cm_run_text_key(struct cm_run *run, struct cm_str text)
{
    struct cm_buf dense = {0};
    struct cm_str key;

    run_put_dense(&dense, text);
    key = digest(cm_run_arena(run), cm_buf_str(&dense));
    cm_buf_clear(&dense);
    return key;
}
