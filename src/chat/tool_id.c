/* Ids of tool calls between platforms: what one makes, another may refuse. */
#include "chatmux/chat/request.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/crypto.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

#define SPELLED "cmx-"  /* then letters, digits and '-' as they are, every other byte as _HH */
#define DIGESTED "cmd-" /* then the beginning of a digest */
#define DIGEST_BYTES 16

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

static bool fits(struct cm_str id, size_t max)
{
    for (size_t i = 0; i < id.n; i++) {
        if (!is_plain(id.p[i]) && id.p[i] != '_')
            return false;
    }
    return id.n > 0 && id.n <= max && !cm_str_starts(id, CM_S(SPELLED));
}

static struct cm_str digested(struct cm_arena *arena, struct cm_str id)
{
    unsigned char d[CM_SHA256_SIZE];
    struct cm_buf out = {0};

    cm_sha256(id, d);
    cm_buf_append(&out, CM_S(DIGESTED));
    cm_hex(&out, cm_str((const char *)d, DIGEST_BYTES));
    return cm_buf_settle(&out, arena);
}

struct cm_str cm_tool_id_safe(struct cm_arena *arena, struct cm_str id, size_t max)
{
    struct cm_buf out = {0};

    if (fits(id, max))
        return id;
    cm_buf_append(&out, CM_S(SPELLED));
    for (size_t i = 0; i < id.n && out.n <= max; i++) {
        if (is_plain(id.p[i])) {
            cm_buf_put(&out, id.p[i]);
        } else {
            cm_buf_put(&out, '_');
            cm_hex(&out, cm_str(id.p + i, 1));
        }
    }
    if (out.n <= max)
        return cm_buf_settle(&out, arena);
    cm_buf_clear(&out);
    return digested(arena, id);
}

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

struct cm_str cm_tool_id_plain(struct cm_arena *arena, struct cm_str id)
{
    const struct cm_str spelled = cm_str_from(id, sizeof(SPELLED) - 1);
    struct cm_buf out = {0};
    size_t i = 0;

    if (!cm_str_starts(id, CM_S(SPELLED)))
        return id;
    while (i < spelled.n) {
        if (spelled.p[i] != '_') {
            cm_buf_put(&out, spelled.p[i++]);
        } else if (i + 2 < spelled.n && nibble(spelled.p[i + 1]) >= 0 &&
                   nibble(spelled.p[i + 2]) >= 0) {
            cm_buf_put(&out, (char)(nibble(spelled.p[i + 1]) << 4 | nibble(spelled.p[i + 2])));
            i += 3;
        } else { /* not ours */
            cm_buf_clear(&out);
            return id;
        }
    }
    return cm_buf_settle(&out, arena);
}
