/* WebSocket frames (RFC 6455, without extensions): bytes to whole messages at every split, messages
 * to bytes. One thread at a time. */
#ifndef CHATMUX_CODEC_WS_H
#define CHATMUX_CODEC_WS_H

#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"

enum cm_wsf_op {
    CM_WSF_TEXT = 1,
    CM_WSF_BINARY = 2,
    CM_WSF_CLOSE = 8,
    CM_WSF_PING = 9,
    CM_WSF_PONG = 10,
};

#define CM_WSF_CONTROL_MAX 125 /* payload of close, ping, pong */

/* Close codes we send or report. */
enum {
    CM_WSF_NORMAL = 1000,
    CM_WSF_GOING_AWAY = 1001,
    CM_WSF_PROTOCOL = 1002,
    CM_WSF_NO_CODE = 1005, /* never sent: the close frame had none */
    CM_WSF_BROKEN = 1006,  /* never sent: there was no close frame */
    CM_WSF_NOT_TEXT = 1007,
    CM_WSF_POLICY = 1008,
    CM_WSF_TOO_BIG = 1009,
    CM_WSF_TROUBLE = 1011, /* the server could not go on */
};

/* A whole message, its fragments joined, or one control frame. */
struct cm_wsf_message {
    enum cm_wsf_op op;
    /* a close frame's: its reason. Valid until the reader is used again, and as long as what it
     * read from */
    struct cm_str data;
    int close_code; /* of CLOSE; CM_WSF_NO_CODE when it has none */
};

struct cm_wsf_reader {
    struct cm_buf joined;  /* what has come of a message that is not whole */
    struct cm_buf control; /* the same of a control frame, which may stand between fragments */
    size_t max_message;
    uint64_t left; /* payload bytes of the frame that have not come */
    size_t head_n, masked_n;
    uint8_t head[14], mask[4];
    uint8_t op;       /* of the frame */
    uint8_t first_op; /* of the message whose fragments come; 0 = none */
    bool final, in_frame;
    bool from_client; /* frames must be masked; otherwise they must not */
    bool given;       /* `joined` or `control` was handed out, and is still there */
};

void cm_wsf_reader_init(struct cm_wsf_reader *r, size_t max_message, bool from_client);
void cm_wsf_reader_clear(struct cm_wsf_reader *r);

/* Takes from the front of *in. 1: *out is filled; 0: *in is used up and more is needed; -1: *err
 * says how the peer broke the protocol, and *close_code is what to tell it; after that the reader is
 * of no more use. */
int cm_wsf_read(struct cm_wsf_reader *r, struct cm_str *in, struct cm_wsf_message *out,
                int *close_code, struct cm_err *err);

/* The message that was handed out is not needed any more; without it its memory goes when something more is read, which may be late. */
void cm_wsf_let_go(struct cm_wsf_reader *r);

#define CM_WSF_HEAD_MAX 10
/* The head of an unfragmented frame of a server with n bytes of payload behind it; returns its length. */
size_t cm_wsf_head(char out[CM_WSF_HEAD_MAX], enum cm_wsf_op op, size_t n);
/* Appends one unfragmented frame. mask: four random bytes from a client, NULL from a server. */
void cm_wsf_write(struct cm_buf *out, enum cm_wsf_op op, struct cm_str payload,
                  const uint8_t mask[4]);
/* The payload of a close frame: the code and as much of the reason as fits, cut at a character. A code that must not stand in a
 * frame (CM_WSF_NO_CODE, CM_WSF_BROKEN …) makes an empty one. Returns its length. */
size_t cm_wsf_close_payload(char out[CM_WSF_CONTROL_MAX], int code, struct cm_str reason);
/* RFC 6455 7.4: a code that may stand in a frame. */
bool cm_wsf_code_valid(int code);
/* Appends a close frame. */
void cm_wsf_write_close(struct cm_buf *out, int code, struct cm_str reason, const uint8_t mask[4]);

#endif
