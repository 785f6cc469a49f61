/* HTTP/1 requests out of bytes: what llhttp reads, plus what RFC 9112 lets us refuse and llhttp does not. No I/O, no clock.
 *
 * The caller keeps the bytes: a head is handed over and over again, each time with more behind it, until it is complete, so that it lies in
 * one piece and is copied once; llhttp sees every byte once all the same. */
#ifndef CHATMUX_IO_HTTP1_INT_H
#define CHATMUX_IO_HTTP1_INT_H

#include "chatmux/base/arena.h"
#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"
#include "chatmux/base/header.h"

#include <llhttp.h>

#define CM_H1_HEADERS_MAX 200
#define CM_H1_OVERHEAD_MAX                                                                         \
    8192 /* chunk framing without a body byte in it: extensions, zeros, trailers */

enum cm_h1_state {
    CM_H1_LEAD, /* before the first byte of a request line */
    CM_H1_HEAD,
    CM_H1_LENGTH, /* in a body of known length */
    CM_H1_CHUNKED,
    CM_H1_END,   /* the message is complete: cm_h1_reset() before the next */
    CM_H1_FAILED /* framing is lost, nothing of this connection is readable any more */
};

struct cm_h1 {
    llhttp_t parser;
    enum cm_h1_state state;
    unsigned lead; /* bytes of empty lines before the request */
    size_t head_n; /* bytes of the head that llhttp has seen */
    size_t head_max;
    uint64_t left;       /* LENGTH: bytes to come */
    uint64_t body_n;     /* body bytes so far, decoded */
    uint64_t body_max;   /* more is CM_ERR_TOO_LARGE */
    size_t overhead;     /* CHUNKED: framing bytes since the last body byte */
    struct cm_buf *body; /* where body bytes go; NULL = nowhere */
};

enum cm_h1_event {
    CM_H1_MORE,     /* `used` bytes are done with; come back with the rest and more */
    CM_H1_GOT_HEAD, /* the last head_n of the `used` bytes are the head: cm_h1_head() reads them */
    CM_H1_GOT_END,  /* the body is complete */
    CM_H1_ERROR     /* *err is set; answer it and close */
};

struct cm_h1_head {
    struct cm_str method, target, path, query;
    struct cm_header *headers;
    size_t n_headers;
    int minor;              /* HTTP/1.minor */
    int64_t content_length; /* -1 = none */
    bool chunked;
    bool keep_alive; /* what the client wishes, the version's default included */
    bool expects_continue;
};

void cm_h1_reset(struct cm_h1 *h, size_t head_max);

/* Goes as far as it can in `in`: one head, or the body up to its end. */
enum cm_h1_event cm_h1_next(struct cm_h1 *h, struct cm_str in, size_t *used, struct cm_err *err);

/* After CM_H1_GOT_HEAD, with the `used` bytes: reads, checks and copies the head into the arena. -1: *err is BAD_REQUEST or HEADER_TOO_LARGE.
 * Afterwards the state is LENGTH, CHUNKED or END. */
int cm_h1_head(struct cm_h1 *h, struct cm_str used, struct cm_arena *arena, struct cm_h1_head *out,
               struct cm_err *err);

#endif
