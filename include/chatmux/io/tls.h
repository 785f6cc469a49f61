/* TLS of the server's side, on OpenSSL and in memory: bytes of the wire in, plain bytes out, and back. No sockets. Loop thread only.
 *
 * TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers, our preference; ALPN http/1.1; resumption by tickets (nothing is kept here for a client that
 * has left); no renegotiation, no compression, no early data. */
#ifndef CHATMUX_IO_TLS_H
#define CHATMUX_IO_TLS_H

#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"

/* A certificate with its key. Counted: connections that began with it keep it. */
struct cm_tls;

/* PEM files: the certificate with its chain, the key without a pass phrase. NULL and CM_ERR_CONFIG with the file's name and what is wrong; *bad_key (may be
 * NULL) tells which of the two is meant. Reads files: at start and on reload only. */
struct cm_tls *cm_tls_new(struct cm_str cert_file, struct cm_str key_file, bool *bad_key,
                          struct cm_err *err);
void cm_tls_unref(struct cm_tls *tls); /* NULL is fine */
/* What clients will say of the certificate today: "has expired", "is not valid yet", or NULL. */
const char *cm_tls_remark(const struct cm_tls *tls);

struct cm_tls_conn;
struct cm_tls_conn *cm_tls_accept(struct cm_tls *tls);
void cm_tls_free(struct cm_tls_conn *t); /* NULL is fine */

/* Bytes for the other side: the caller takes them away after every call below. */
struct cm_buf *cm_tls_wire(struct cm_tls_conn *t);

/* What came from the other side; borrowed until cm_tls_read() says anything but CM_TLS_DATA. */
void cm_tls_input(struct cm_tls_conn *t, struct cm_str bytes);

enum cm_tls_got {
    CM_TLS_DATA,   /* *n > 0 plain bytes */
    CM_TLS_MORE,   /* all input is used up */
    CM_TLS_END,    /* the other side has ended its side in the proper way */
    CM_TLS_BROKEN, /* it does not speak TLS with us (cm_tls_why()); an alert is on the wire */
    CM_TLS_PLAIN /* it speaks plain HTTP; an answer that says so is on the wire, and whatever else comes is thrown away */
};
enum cm_tls_got cm_tls_read(struct cm_tls_conn *t, char *out, size_t cap, size_t *n);

/* The handshake is done: cm_tls_write() may be called. */
bool cm_tls_ready(const struct cm_tls_conn *t);
void cm_tls_write(struct cm_tls_conn *t, struct cm_str plain);
void cm_tls_end(
    struct cm_tls_conn
        *t); /* close_notify; nothing is written after it; no effect before the handshake is done */
const char *cm_tls_why(const struct cm_tls_conn *t);

#endif
