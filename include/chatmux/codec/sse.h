/* Server-sent events: a reader that works at every split, and a writer. WHATWG HTML, 9.2.6. One
 * thread at a time. */
#ifndef CHATMUX_CODEC_SSE_H
#define CHATMUX_CODEC_SSE_H

#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"

/* One dispatched event, or one block that carries none. Slices are valid until the callback
 * returns. */
struct cm_sse_event {
    struct cm_str event; /* "" = message */
    struct cm_str data;  /* data lines joined by LF; p NULL = no data line: comments, keep-alives */
    struct cm_str id;    /* of this block only; "" = none */
    struct cm_str raw;   /* the block as it came, with its empty line; no gap to the last raw */
    bool unfinished;     /* from cm_sse_end(): no empty line came; raw may end within a line */
};
/* Returns 0, or -1 to make cm_sse_feed() stop and return -1. Does not touch the reader. */
typedef int cm_sse_fn(void *arg, const struct cm_sse_event *ev);

struct cm_sse {
    struct cm_buf hold;   /* bytes of a block that has not ended; empty while blocks arrive whole */
    struct cm_buf joined; /* data of several lines, put together */
    size_t lead;          /* bytes of `hold` before the block's text: a BOM, or the LF of a CR LF */
    size_t max_bytes;     /* of a block's text */
    bool begun;           /* past the place where a byte order mark counts */
    bool after_cr;        /* the last piece ended with the CR of an empty line */
};

/* A block may have max_block_bytes before its empty line. One event can be a picture in base64:
 * think of megabytes. */
void cm_sse_init(struct cm_sse *s, size_t max_block_bytes);
void cm_sse_clear(struct cm_sse *s); /* frees; the reader is as after cm_sse_init() */

/* Calls fn for each block that ends in `piece`, in order. Slices point into `piece` where the
 * whole block does (several data lines are joined in a buffer); between calls only an unfinished
 * block occupies memory. Line ends are LF, CRLF or CR, mixed. An empty line that is a CR at the
 * very end of a piece ends its block at once; if the next piece begins with an LF, the two are
 * one line end, and the LF is the first byte of the next raw. That apart, neither events nor
 * raws depend on the cuts. -1 when fn returned -1 (*err is fn's to fill) or a block exceeds the
 * limit (CM_ERR_UPSTREAM_DOWN); then only cm_sse_clear() may follow. */
int cm_sse_feed(struct cm_sse *s, struct cm_str piece, cm_sse_fn *fn, void *arg,
                struct cm_err *err);

/* End of input. A block without its empty line is not dispatched by the standard; some servers
 * end so, hence it is handed to fn, marked `unfinished`, when it has a complete or final data
 * line. The rest is dropped and the reader is as after cm_sse_init(). -1 when fn returned -1
 * (*err is fn's to fill). */
int cm_sse_end(struct cm_sse *s, cm_sse_fn *fn, void *arg, struct cm_err *err);

/* "event: name\n" (unless empty), "data: " per line of data, and the empty line. Lines of data
 * end with LF, CRLF or CR; a name is cut at its first line end, so that nothing can smuggle in a
 * field. */
void cm_sse_put(struct cm_buf *out, struct cm_str event, struct cm_str data);

#endif
