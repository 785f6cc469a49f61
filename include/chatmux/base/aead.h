/* Values encrypted at rest: AES-256-GCM with a key made from the operator's master key. Any thread. */
#ifndef CHATMUX_BASE_AEAD_H
#define CHATMUX_BASE_AEAD_H

#include "chatmux/base/err.h"
#include "chatmux/base/str.h"

#define CM_AEAD_KEY_SIZE 32
struct cm_aead_key {
    unsigned char bytes[CM_AEAD_KEY_SIZE]; /* wiped by its owner: cm_wipe() */
};

/* What a sealed value is longer than the plain one: format (1), nonce (12), tag (16). */
#define CM_AEAD_OVERHEAD 29

#define CM_MASTER_KEY_MIN 16
/* HKDF-SHA256 over 64 hex digits, taken as 32 bytes, or any other text of CM_MASTER_KEY_MIN bytes and more; the text should be random, it is not
 * stretched. `purpose` separates keys made from one master key. CM_ERR_CONFIG when the text is too short. */
int cm_aead_derive(struct cm_aead_key *key, struct cm_str master, struct cm_str purpose,
                   struct cm_err *err);

/* `out` takes plain.n + CM_AEAD_OVERHEAD bytes. The nonce is random, so that a key is good for 2^32 values. `place` says where the value belongs
 * and is not stored: elsewhere it does not open. */
void cm_aead_seal(const struct cm_aead_key *key, struct cm_str place, struct cm_str plain,
                  unsigned char *out);

/* `out` takes sealed.n - CM_AEAD_OVERHEAD bytes. -1: not sealed with this key for this place, or altered; then nothing of it stands in `out`. */
int cm_aead_open(const struct cm_aead_key *key, struct cm_str place, struct cm_str sealed,
                 unsigned char *out);

#endif
