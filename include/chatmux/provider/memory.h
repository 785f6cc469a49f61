/* What of the memo survives a restart: conversations of platforms, and what flows remember durably (cm_run_remember_durably()). Loop thread only.
 *
 * Everything is in the memo; what is durable is told to a keeper besides, which writes it when it can, and is put back at the next start. A conversation
 * is known by a digest of who leads it, the model and all that was said, so a request can be asked for the account that has it. */
#ifndef CHATMUX_PROVIDER_MEMORY_H
#define CHATMUX_PROVIDER_MEMORY_H

#include "chatmux/base/crypto.h"
#include "chatmux/provider/memo.h"
#include "chatmux/provider/provider.h"

enum cm_memory_kind {                       /* as they are stored */
                      CM_MEMORY_THREAD = 1, /* a conversation that was led here */
                      CM_MEMORY_OLD_THREAD =
                          2, /* one that another gateway led: known by what that had kept */
                      CM_MEMORY_OWN = 3 /* of the credential */
};
struct cm_memory {
    unsigned char key[CM_SHA256_SIZE];
    enum cm_memory_kind kind;
    uint64_t cred;       /* whose it is */
    struct cm_str value; /* no secret; borrowed for the call */
    int64_t until_ms;    /* Unix */
};
/* Both return at once; what cannot be kept is not. Zeroed: nothing survives. */
struct cm_keeper {
    void (*put)(void *arg, const struct cm_memory *m);
    void (*drop)(void *arg, const unsigned char key[CM_SHA256_SIZE]);
    void *arg;
};

/* By what an account is known where its secret must not stand. */
void cm_cred_digest(struct cm_str provider, struct cm_str secret,
                    unsigned char out[CM_SHA256_SIZE]);
/* One that was kept; provider and secret are those that its credential has now. */
void cm_memory_restore(struct cm_memo *memo, struct cm_str provider, struct cm_str secret,
                       const struct cm_memory *m, int64_t now_unix_ms);
/* The key of a CM_MEMORY_OLD_THREAD: `name` is what the adapter's old_thread() says of such a conversation, `model` the platform's. */
void cm_memory_old_key(struct cm_str provider, struct cm_str model, struct cm_str name,
                       unsigned char key[CM_SHA256_SIZE]);

/* The credential whose conversation this request goes on with; 0 = none, or not known. */
uint64_t cm_thread_holder(struct cm_memo *memo, const struct cm_instance *in,
                          const struct cm_target *target, const struct cm_chat *chat,
                          struct cm_str scope);

#endif
