/* The text of a key: making one, telling a mistyped one, taking one of a client's. */
#include "chatmux/keys/keys.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#define PREFIX "sk-cmx-"
#define PREFIX_CHARS (sizeof(PREFIX) - 1)
#define SECRET_BYTES 32u
#define SECRET_CHARS 43u /* 62^43 > 2^256 */
#define SUM_CHARS 4u
#define KEY_CHARS (PREFIX_CHARS + SECRET_CHARS + SUM_CHARS)

static const char base62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/* Divides the big-endian number by 62 in place and returns the remainder. */
static unsigned divide(unsigned char number[SECRET_BYTES])
{
    unsigned rest = 0;

    for (size_t i = 0; i < SECRET_BYTES; i++) {
        rest = rest << 8 | number[i];
        number[i] = (unsigned char)(rest / 62);
        rest %= 62;
    }
    return rest;
}

static void put_checksum(struct cm_str text, char out[SUM_CHARS])
{
    unsigned char digest[CM_SHA256_SIZE];
    uint64_t number = 0;

    cm_sha256(text, digest);
    for (size_t i = 0; i < 8; i++)
        number = number << 8 | digest[i];
    for (size_t i = SUM_CHARS; i-- > 0; number /= 62)
        out[i] = base62[number % 62];
}

void cm_key_make(char out[CM_KEY_TEXT_CAP])
{
    unsigned char number[SECRET_BYTES];
    char *secret = out + PREFIX_CHARS;

    cm_rand_bytes(number, sizeof(number));
    memcpy(out, PREFIX, PREFIX_CHARS);
    for (size_t i = SECRET_CHARS; i-- > 0;)
        secret[i] = base62[divide(number)];
    put_checksum(cm_str(out, PREFIX_CHARS + SECRET_CHARS), secret + SECRET_CHARS);
    out[KEY_CHARS] = '\0';
    cm_wipe(number, sizeof(number));
}

bool cm_key_plausible(struct cm_str text)
{
    char sum[SUM_CHARS];

    if (!cm_str_starts(text, CM_S(PREFIX)))
        return true;
    if (text.n != KEY_CHARS)
        return false;
    put_checksum(cm_str_head(text, KEY_CHARS - SUM_CHARS), sum);
    return memcmp(sum, text.p + KEY_CHARS - SUM_CHARS, SUM_CHARS) == 0;
}

/* Clients put it into a header, a query or a WebSocket subprotocol. */
int cm_key_take(struct cm_key_row *row, struct cm_arena *arena, struct cm_str secret,
                struct cm_err *err)
{
    for (size_t i = 0; i < secret.n; i++)
        if (secret.p[i] <= ' ' || secret.p[i] > '~')
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, "key",
                                 "a key is made of visible ASCII characters only");
    if (secret.n == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "key", "the key is empty");
    if (!cm_key_plausible(secret))
        return cm_fail_param(
            err, CM_ERR_BAD_REQUEST, "key",
            "this begins like a key that was made here, but it is mistyped or cut");
    cm_sha256(secret, row->digest);
    row->hint = cm_arena_str(arena, cm_hint(secret));
    return 0;
}
