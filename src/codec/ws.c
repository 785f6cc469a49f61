/* WebSocket frames: reader and writer. */
#include "chatmux/codec/ws.h"

#include "chatmux/base/utf8.h"

#define BIT_FIN 0x80
#define BITS_RESERVED 0x70
#define BITS_OP 0x0f
#define BIT_MASK 0x80
#define OP_CONTINUED 0

void cm_wsf_reader_init(struct cm_wsf_reader *r, size_t max_message, bool from_client)
{
    *r = (struct cm_wsf_reader){.max_message = max_message, .from_client = from_client};
}

void cm_wsf_reader_clear(struct cm_wsf_reader *r)
{
    cm_buf_clear(&r->joined);
    cm_buf_clear(&r->control);
}

static bool is_control(uint8_t op)
{
    return op >= CM_WSF_CLOSE;
}

static int broken(int *close_code, struct cm_err *err, const char *what)
{
    *close_code = CM_WSF_PROTOCOL;
    return cm_fail(err, CM_ERR_CUT, "the WebSocket peer broke the protocol: %s", what);
}

static size_t head_length(const struct cm_wsf_reader *r)
{
    size_t length = r->head[1] & 0x7f;

    return 2 + (length == 126 ? 2u : length == 127 ? 8u : 0u) + (r->from_client ? 4u : 0u);
}

/* What the first two bytes say. */
static int check_head(struct cm_wsf_reader *r, int *close_code, struct cm_err *err)
{
    uint8_t op = r->head[0] & BITS_OP, length = r->head[1] & 0x7f;
    bool final = r->head[0] & BIT_FIN;

    if (r->head[0] & BITS_RESERVED)
        return broken(close_code, err, "an extension nobody asked for");
    if (((r->head[1] & BIT_MASK) != 0) != r->from_client)
        return broken(close_code, err, r->from_client ? "a frame without mask" : "a masked frame");
    if (is_control(op)) {
        if (op > CM_WSF_PONG)
            return broken(close_code, err, "an unknown control frame");
        if (!final || length > CM_WSF_CONTROL_MAX)
            return broken(close_code, err, "a control frame that is fragmented or too long");
    } else if (op > CM_WSF_BINARY) {
        return broken(close_code, err, "an unknown kind of message");
    } else if ((op == OP_CONTINUED) != (r->first_op != 0)) {
        return broken(close_code, err, "fragments of messages out of order");
    }
    r->op = op;
    r->final = final;
    return 0;
}

/* The rest of the head: the length, and the mask. */
static int begin_frame(struct cm_wsf_reader *r, int *close_code, struct cm_err *err)
{
    size_t at = 2, wide = (r->head[1] & 0x7f) == 126 ? 2 : (r->head[1] & 0x7f) == 127 ? 8 : 0;
    uint64_t n = wide > 0 ? 0 : r->head[1] & 0x7f;

    for (; wide > 0; wide--)
        n = n << 8 | r->head[at++];
    if (r->from_client)
        memcpy(r->mask, r->head + at, sizeof(r->mask));
    if (!is_control(r->op)) {
        if (n > r->max_message || r->joined.n > r->max_message - n) {
            *close_code = CM_WSF_TOO_BIG;
            return cm_fail(err, CM_ERR_CUT, "a WebSocket message has more than %zu bytes",
                           r->max_message);
        }
        if (r->op != OP_CONTINUED)
            r->first_op = r->op;
    }
    r->left = n;
    r->masked_n = 0;
    r->in_frame = true;
    return 0;
}

static void take_payload(struct cm_wsf_reader *r, struct cm_str piece)
{
    struct cm_buf *to = is_control(r->op) ? &r->control : &r->joined;
    char *at;

    if (!r->from_client) {
        cm_buf_append(to, piece);
        return;
    }
    at = cm_buf_reserve(to, piece.n);
    for (size_t i = 0; i < piece.n; i++)
        at[i] = (char)((uint8_t)piece.p[i] ^ r->mask[r->masked_n++ & 3]);
    to->n += piece.n;
}

bool cm_wsf_code_valid(int code)
{
    return (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
           (code >= 3000 && code <= 4999);
}

static int end_close(struct cm_wsf_message *out, int *close_code, struct cm_err *err)
{
    const uint8_t *p = (const uint8_t *)out->data.p;

    out->close_code = CM_WSF_NO_CODE;
    if (out->data.n == 0)
        return 1;
    if (out->data.n == 1)
        return broken(close_code, err, "half a close code");
    out->close_code = p[0] << 8 | p[1];
    out->data = cm_str_from(out->data, 2);
    if (!cm_wsf_code_valid(out->close_code))
        return broken(close_code, err, "an impossible close code");
    if (cm_utf8_valid(out->data) == out->data.n)
        return 1;
    *close_code = CM_WSF_NOT_TEXT;
    return cm_fail(err, CM_ERR_CUT, "the reason of a WebSocket close frame is not UTF-8");
}

/* The frame is whole: 1 when it ends something, 0 when its message goes on. */
static int end_frame(struct cm_wsf_reader *r, struct cm_str payload, struct cm_wsf_message *out,
                     int *close_code, struct cm_err *err)
{
    r->in_frame = false;
    r->head_n = 0;
    if (!is_control(r->op)) {
        if (!r->final)
            return 0;
        out->op = r->first_op;
        r->first_op = 0;
    } else {
        out->op = r->op;
    }
    r->given = true;
    out->data = payload;
    if (out->op == CM_WSF_CLOSE)
        return end_close(out, close_code, err);
    if (out->op == CM_WSF_TEXT && cm_utf8_valid(payload) != payload.n) {
        *close_code = CM_WSF_NOT_TEXT;
        return cm_fail(err, CM_ERR_CUT, "a WebSocket text message is not UTF-8");
    }
    return 1;
}

void cm_wsf_let_go(struct cm_wsf_reader *r)
{
    if (!r->given)
        return;
    r->given = false;
    cm_buf_clear(is_control(r->op) ? &r->control : &r->joined);
}

int cm_wsf_read(struct cm_wsf_reader *r, struct cm_str *in, struct cm_wsf_message *out,
                int *close_code, struct cm_err *err)
{
    cm_wsf_let_go(r);
    for (;;) {
        struct cm_buf *held = is_control(r->op) ? &r->control : &r->joined;
        struct cm_str piece;
        int rc;

        while (!r->in_frame) {
            if (in->n == 0)
                return 0;
            r->head[r->head_n++] = (uint8_t)in->p[0];
            *in = cm_str_from(*in, 1);
            if (r->head_n == 2 && check_head(r, close_code, err) < 0)
                return -1;
            if (r->head_n >= 2 && r->head_n == head_length(r) &&
                begin_frame(r, close_code, err) < 0)
                return -1;
            held = is_control(r->op) ? &r->control : &r->joined;
        }
        piece = cm_str_head(*in, r->left < in->n ? (size_t)r->left : in->n);
        *in = cm_str_from(*in, piece.n);
        r->left -= piece.n;
        if (r->left == 0 && held->n == 0 && !r->from_client && (r->final || piece.n == 0)) {
            rc = end_frame(r, piece, out, close_code, err); /* whole in one piece: no copy */
        } else {
            take_payload(r, piece);
            if (r->left > 0)
                return 0; /* `in` is used up */
            rc = end_frame(r, cm_buf_str(held), out, close_code, err);
        }
        if (rc != 0)
            return rc;
    }
}

size_t cm_wsf_head(char out[CM_WSF_HEAD_MAX], enum cm_wsf_op op, size_t n)
{
    size_t wide = n < 126 ? 0 : n < 65536 ? 2 : 8, at = 2;

    out[0] = (char)(BIT_FIN | op);
    out[1] = (char)(wide == 0 ? n : wide == 2 ? 126 : 127);
    for (; wide > 0; wide--)
        out[at++] = (char)(n >> (8 * (wide - 1)) & 0xff);
    return at;
}

void cm_wsf_write(struct cm_buf *out, enum cm_wsf_op op, struct cm_str payload,
                  const uint8_t mask[4])
{
    char head[CM_WSF_HEAD_MAX];
    size_t head_n = cm_wsf_head(head, op, payload.n);
    char *at;

    if (mask)
        head[1] = (char)(head[1] | BIT_MASK);
    cm_buf_append(out, cm_str(head, head_n));
    if (!mask) {
        cm_buf_append(out, payload);
        return;
    }
    cm_buf_append(out, cm_str((const char *)mask, 4));
    at = cm_buf_reserve(out, payload.n);
    if (!at)
        return;
    for (size_t i = 0; i < payload.n; i++)
        at[i] = (char)((uint8_t)payload.p[i] ^ mask[i & 3]);
    out->n += payload.n;
}

size_t cm_wsf_close_payload(char out[CM_WSF_CONTROL_MAX], int code, struct cm_str reason)
{
    if (!cm_wsf_code_valid(code))
        return 0;
    out[0] = (char)(code >> 8);
    out[1] = (char)(code & 0xff);
    reason = cm_str_head(reason, CM_WSF_CONTROL_MAX - 2);
    reason.n = cm_utf8_valid(reason);
    if (reason.n > 0)
        memcpy(out + 2, reason.p, reason.n);
    return 2 + reason.n;
}

void cm_wsf_write_close(struct cm_buf *out, int code, struct cm_str reason, const uint8_t mask[4])
{
    char payload[CM_WSF_CONTROL_MAX];

    cm_wsf_write(out, CM_WSF_CLOSE, cm_str(payload, cm_wsf_close_payload(payload, code, reason)),
                 mask);
}
