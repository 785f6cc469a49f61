/* Server TLS: one BIO of ours for each connection stands between OpenSSL and the caller's bytes, so that nothing is copied or kept that need not be. */
#include "chatmux/io/tls.h"

#include "chatmux/base/mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>

#define RECORD_BYTES 16384

struct cm_tls {
    SSL_CTX *ctx; /* owned */
    unsigned refs;
};

struct cm_tls_conn {
    struct cm_tls *tls; /* a reference */
    SSL *ssl;           /* owned */
    struct cm_str in;   /* not read by OpenSSL yet; borrowed */
    struct cm_buf wire; /* written by OpenSSL */
    const char *why;    /* what broke; static text of OpenSSL's */
    bool begun;         /* the first byte has come, and it is TLS */
    bool plain, broken, ended;
};

/* ---- certificate and key */

/* PEM_read_… asks for a pass phrase when a key is encrypted. There is nobody to ask. */
static int on_pass_phrase(char *buf, int cap, int writing, void *arg)
{
    bool *asked = arg;

    (void)buf, (void)cap, (void)writing;
    *asked = true;
    return -1;
}

static const char *openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    return reason ? reason : "unknown";
}

static FILE *open_pem(struct cm_str path, struct cm_err *err)
{
    char *z = cm_str_dup(path);
    FILE *file = fopen(z, "re");
    int first = file ? fgetc(file) : EOF; /* a directory can be opened, too */

    free(z);
    if (file && !ferror(file)) {
        if (first != EOF)
            ungetc(first, file);
        return file;
    }
    cm_fail(err, CM_ERR_CONFIG, "cannot read " CM_PRI ": %s", CM_ARG(path), strerror(errno));
    if (file)
        fclose(file);
    return NULL;
}

static int refuse_cert(struct cm_str path, struct cm_err *err)
{
    if (ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
        return cm_fail(err, CM_ERR_CONFIG,
                       CM_PRI " holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
                       CM_ARG(path));
    return cm_fail(err, CM_ERR_CONFIG, CM_PRI " cannot be used as a certificate: %s", CM_ARG(path),
                   openssl_reason());
}

/* The certificate first, then what leads to its authority. */
static int load_chain(SSL_CTX *ctx, struct cm_str path, struct cm_err *err)
{
    FILE *file = open_pem(path, err);
    X509 *cert;
    int rc = -1;

    if (!file)
        return -1;
    cert = PEM_read_X509_AUX(file, NULL, NULL, NULL);
    if (!cert || SSL_CTX_use_certificate(ctx, cert) != 1) {
        refuse_cert(path, err);
        X509_free(cert);
        goto out;
    }
    X509_free(cert);
    while ((cert = PEM_read_X509(file, NULL, NULL, NULL))) {
        if (SSL_CTX_add0_chain_cert(ctx, cert) != 1) {
            X509_free(cert);
            refuse_cert(path, err);
            goto out;
        }
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
        refuse_cert(path, err);
        goto out;
    }
    rc = 0;
out:
    fclose(file);
    return rc;
}

static int load_key(SSL_CTX *ctx, struct cm_str path, struct cm_str cert_path, struct cm_err *err)
{
    FILE *file = open_pem(path, err);
    bool asked = false;
    EVP_PKEY *key;
    int rc = -1;

    if (!file)
        return -1;
    key = PEM_read_PrivateKey(file, NULL, on_pass_phrase, &asked);
    if (asked)
        cm_fail(err, CM_ERR_CONFIG,
                CM_PRI " is encrypted, and nobody is there to type its pass phrase: write it "
                       "without one (openssl pkey -in " CM_PRI " -out NEW)",
                CM_ARG(path), CM_ARG(path));
    else if (!key)
        cm_fail(err, CM_ERR_CONFIG,
                CM_PRI " holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)",
                CM_ARG(path));
    else if (SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1)
        rc = 0;
    else if (ERR_GET_LIB(ERR_peek_last_error()) == ERR_LIB_X509)
        cm_fail(err, CM_ERR_CONFIG, CM_PRI " is not the key of the certificate in " CM_PRI,
                CM_ARG(path), CM_ARG(cert_path));
    else
        cm_fail(err, CM_ERR_CONFIG, CM_PRI " cannot be used as a key: %s", CM_ARG(path),
                openssl_reason());
    EVP_PKEY_free(key);
    fclose(file);
    return rc;
}

/* ALPN: a client that offers protocols, and HTTP/1.1 not among them, could not talk to us. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                   const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";

    (void)ssl, (void)arg;
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, ours, sizeof(ours) - 1, in,
                              in_n) == OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_OK;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void configure(SSL_CTX *ctx)
{
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS); /* an idle connection holds none */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    CM_ASSERT(SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1);
}

struct cm_tls *cm_tls_new(struct cm_str cert_file, struct cm_str key_file, bool *bad_key,
                          struct cm_err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    struct cm_tls *tls = NULL;
    bool key = false;

    CM_ASSERT(ctx != NULL);
    configure(ctx);
    ERR_clear_error();
    if (load_chain(ctx, cert_file, err) == 0) {
        key = true;
        if (load_key(ctx, key_file, cert_file, err) == 0) {
            tls = CM_NEW(struct cm_tls);
            tls->ctx = ctx;
            tls->refs = 1;
        }
    }
    if (!tls)
        SSL_CTX_free(ctx);
    if (bad_key)
        *bad_key = !tls && key;
    ERR_clear_error(); /* the queue is the thread's: libcurl would read it as its own */
    return tls;
}

void cm_tls_unref(struct cm_tls *tls)
{
    if (!tls || --tls->refs > 0)
        return;
    SSL_CTX_free(tls->ctx);
    free(tls);
}

const char *cm_tls_remark(const struct cm_tls *tls)
{
    const X509 *cert = SSL_CTX_get0_certificate(tls->ctx);

    if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
        return "has expired";
    if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0)
        return "is not valid yet";
    return NULL;
}

/* ---- the BIO */

static int bio_read(BIO *bio, char *out, int cap)
{
    struct cm_tls_conn *t = BIO_get_data(bio);
    struct cm_str piece = cm_str_head(t->in, (size_t)cap);

    BIO_clear_retry_flags(bio);
    if (piece.n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, piece.p, piece.n);
    t->in = cm_str_from(t->in, piece.n);
    return (int)piece.n;
}

static int bio_write(BIO *bio, const char *bytes, int n)
{
    struct cm_tls_conn *t = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    cm_buf_append(&t->wire, cm_str(bytes, (size_t)n));
    return n;
}

static long bio_ctrl(BIO *bio, int what, long number, void *p)
{
    (void)bio, (void)number, (void)p;
    return what == BIO_CTRL_FLUSH;
}

static BIO *bio_new(struct cm_tls_conn *t)
{
    static BIO_METHOD *method; /* for the life of the process */
    BIO *bio;

    if (!method) {
        method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "chatmux");
        CM_ASSERT(method != NULL);
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_ctrl);
    }
    bio = BIO_new(method);
    CM_ASSERT(bio != NULL);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- a connection */

struct cm_tls_conn *cm_tls_accept(struct cm_tls *tls)
{
    struct cm_tls_conn *t = CM_NEW(struct cm_tls_conn);
    BIO *bio = bio_new(t);

    tls->refs++;
    t->tls = tls;
    t->ssl = SSL_new(tls->ctx);
    CM_ASSERT(t->ssl != NULL);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_accept_state(t->ssl);
    return t;
}

void cm_tls_free(struct cm_tls_conn *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    cm_buf_clear(&t->wire);
    cm_tls_unref(t->tls);
    free(t);
}

struct cm_buf *cm_tls_wire(struct cm_tls_conn *t)
{
    return &t->wire;
}

void cm_tls_input(struct cm_tls_conn *t, struct cm_str bytes)
{
    t->in = bytes;
}

bool cm_tls_ready(const struct cm_tls_conn *t)
{
    return SSL_is_init_finished(t->ssl) && !t->plain && !t->broken && !t->ended;
}

const char *cm_tls_why(const struct cm_tls_conn *t)
{
    return t->why ? t->why : "";
}

/* A TLS connection begins with a handshake record, whose first byte is 22; a request line with a letter. */
static bool is_request(struct cm_str in)
{
    char c = in.p[0];

    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '\r' || c == '\n';
}

static void answer_plainly(struct cm_tls_conn *t)
{
    static const char text[] = "This port speaks https: write https:// instead of http://.\n";

    cm_buf_printf(&t->wire,
                  "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: "
                  "%zu\r\nConnection: close\r\n\r\n%s",
                  sizeof(text) - 1, text);
}

enum cm_tls_got cm_tls_read(struct cm_tls_conn *t, char *out, size_t cap, size_t *n)
{
    int rc;

    if (!t->begun && !t->plain && t->in.n > 0) {
        t->begun = true;
        if (is_request(t->in)) {
            t->plain = true;
            answer_plainly(t);
            t->in = CM_STR_NONE;
            return CM_TLS_PLAIN;
        }
    }
    if (t->plain || t->broken) {
        t->in = CM_STR_NONE;
        return t->plain ? CM_TLS_MORE : CM_TLS_BROKEN;
    }
    ERR_clear_error();
    rc = SSL_read_ex(t->ssl, out, cap, n);
    if (rc == 1)
        return CM_TLS_DATA;
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return CM_TLS_MORE;
    case SSL_ERROR_ZERO_RETURN:
        t->in = CM_STR_NONE;
        return CM_TLS_END;
    default:
        t->broken = true;
        t->why = openssl_reason();
        t->in = CM_STR_NONE;
        ERR_clear_error();
        return CM_TLS_BROKEN;
    }
}

void cm_tls_write(struct cm_tls_conn *t, struct cm_str plain)
{
    while (plain.n > 0 && cm_tls_ready(t)) {
        struct cm_str piece = cm_str_head(plain, (size_t)RECORD_BYTES);
        size_t did = 0;

        ERR_clear_error();
        if (SSL_write_ex(t->ssl, piece.p, piece.n, &did) != 1) {
            t->broken = true; /* UNTESTED: our BIO takes everything */
            t->why = openssl_reason();
            ERR_clear_error();
            return;
        }
        plain = cm_str_from(plain, did);
    }
}

void cm_tls_end(struct cm_tls_conn *t)
{
    if (!cm_tls_ready(t))
        return;
    t->ended = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
}
