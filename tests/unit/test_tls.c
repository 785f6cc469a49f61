/* Server TLS, against OpenSSL's client, in memory. */
#include "chatmux/io/tls.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- certificates */

static char dir[] = "/tmp/cm-tls-XXXXXX";
static char cert_file[64], key_file[64], other_key_file[64], locked_key_file[64], chain_file[64],
    text_file[64], cut_file[64], old_file[64];

static X509 *make_cert(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key,
                       long from_s, long to_s)
{
    X509 *cert = X509_new();
    X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:gateway.test");
    X509_NAME *subject = X509_get_subject_name(cert);

    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 7);
    X509_gmtime_adj(X509_getm_notBefore(cert), from_s);
    X509_gmtime_adj(X509_getm_notAfter(cert), to_s);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject);
    X509_add_ext(cert, san, -1);
    X509_EXTENSION_free(san);
    ck_assert_int_gt(X509_sign(cert, issuer_key, EVP_sha256()), 0);
    return cert;
}

static FILE *create(char *path, const char *name)
{
    FILE *f;

    snprintf(path, sizeof(cert_file), "%s/%s", dir, name);
    f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    return f;
}

static void put_cert(char *path, const char *name, X509 *cert, X509 *next)
{
    FILE *f = create(path, name);

    PEM_write_X509(f, cert);
    if (next)
        PEM_write_X509(f, next);
    fclose(f);
}

static void put_key(char *path, const char *name, EVP_PKEY *key, const char *pass)
{
    FILE *f = create(path, name);

    PEM_write_PrivateKey(f, key, pass ? EVP_aes_128_cbc() : NULL, NULL, 0, NULL,
                         (void *)(uintptr_t)pass);
    fclose(f);
}

static void make_files(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    X509 *cert, *authority, *leaf, *old;
    FILE *f;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    cert = make_cert(key, "gateway", NULL, key, -3600, 3600);
    authority = make_cert(other, "authority", NULL, other, -3600, 3600);
    leaf = make_cert(key, "leaf", authority, other, -3600, 3600);
    old = make_cert(key, "old", NULL, key, -7200, -3600);
    put_cert(cert_file, "cert", cert, NULL);
    put_cert(chain_file, "chain", leaf, authority);
    put_cert(old_file, "old", old, NULL);
    put_key(key_file, "key", key, NULL);
    put_key(other_key_file, "other", other, NULL);
    put_key(locked_key_file, "locked", key, "secret");
    f = create(text_file, "text");
    fputs("good morning\n", f);
    fclose(f);
    f = create(cut_file, "cut");
    fputs("-----BEGIN CERTIFICATE-----\nMIIB\n", f);
    fclose(f);
    X509_free(cert);
    X509_free(authority);
    X509_free(leaf);
    X509_free(old);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

static void remove_files(void)
{
    char *const all[] = {cert_file,  key_file,  other_key_file, locked_key_file,
                         chain_file, text_file, cut_file,       old_file};

    for (size_t i = 0; i < CM_COUNT(all); i++)
        unlink(all[i]);
    rmdir(dir);
}

static struct cm_tls *load(const char *cert, const char *key)
{
    struct cm_err err = {0};
    struct cm_tls *tls = cm_tls_new(cm_str_of(cert), cm_str_of(key), NULL, &err);

    ck_assert_msg(tls != NULL, "%s", err.msg);
    return tls;
}

/* ---- both ends */

struct ends {
    struct cm_tls *tls;
    struct cm_tls_conn *server;
    SSL_CTX *ctx;
    SSL *client;
    BIO *to_client, *from_client;
    struct cm_buf got;      /* by the server */
    struct cm_buf received; /* by the client */
    enum cm_tls_got last;
    size_t piece; /* bytes at a time, both ways */
    bool client_failed;
};

static void open_ends(struct ends *e, int version, size_t piece)
{
    *e = (struct ends){.tls = load(cert_file, key_file), .piece = piece};
    e->server = cm_tls_accept(e->tls);
    e->ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(e->ctx, version);
    SSL_CTX_set_max_proto_version(e->ctx, version);
    e->client = SSL_new(e->ctx);
    e->to_client = BIO_new(BIO_s_mem());
    e->from_client = BIO_new(BIO_s_mem());
    SSL_set_bio(e->client, e->to_client, e->from_client);
    SSL_set_connect_state(e->client);
}

static void close_ends(struct ends *e)
{
    cm_tls_free(e->server);
    cm_tls_unref(e->tls);
    SSL_free(e->client);
    SSL_CTX_free(e->ctx);
    cm_buf_clear(&e->got);
    cm_buf_clear(&e->received);
    ERR_clear_error();
}

static void client_turn(struct ends *e)
{
    char plain[4096];
    int n;

    ERR_clear_error();
    while ((n = SSL_read(e->client, plain, sizeof(plain))) > 0)
        cm_buf_append(&e->received, cm_str(plain, (size_t)n));
    e->client_failed |= SSL_get_error(e->client, n) == SSL_ERROR_SSL;
    ERR_clear_error();
}

static void server_turn(struct ends *e, struct cm_str bytes)
{
    char *copy = cm_str_dup(bytes), plain[1000]; /* the sanitizer knows its end */
    size_t n;

    cm_tls_input(e->server, cm_str(copy, bytes.n));
    while ((e->last = cm_tls_read(e->server, plain, sizeof(plain), &n)) == CM_TLS_DATA) {
        ck_quick(n > 0 && n <= sizeof(plain));
        cm_buf_append(&e->got, cm_str(plain, n));
    }
    free(copy);
}

/* Carries bytes until there are none. */
static void carry(struct ends *e)
{
    struct cm_buf *wire = cm_tls_wire(e->server);
    bool moved = true;
    char bytes[65536];

    client_turn(e);
    while (moved) {
        int n = BIO_read(e->from_client, bytes,
                         (int)(e->piece < sizeof(bytes) ? e->piece : sizeof(bytes)));

        moved = n > 0 || wire->n > 0;
        if (n > 0)
            server_turn(e, cm_str(bytes, (size_t)n));
        if (wire->n > 0) {
            size_t m = wire->n < e->piece ? wire->n : e->piece;

            BIO_write(e->to_client, wire->p, (int)m);
            cm_buf_consume(wire, m);
            client_turn(e);
        }
    }
}

static void say(struct ends *e, struct cm_str text)
{
    ck_assert_int_eq(SSL_write(e->client, text.p, (int)text.n), (int)text.n);
}

START_TEST(both_versions_at_every_split)
{
    static const size_t pieces[] = {1, 2, 3, 5, 7, 100, 100000};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

    make_files();
    for (size_t i = 0; i < CM_COUNT(pieces) * 2; i++) {
        struct ends e;

        open_ends(&e, versions[i % 2], pieces[i / 2]);
        ck_assert(!cm_tls_ready(e.server));
        carry(&e);
        ck_assert(cm_tls_ready(e.server) && !e.client_failed);
        ck_assert_int_eq(SSL_version(e.client), versions[i % 2]);
        say(&e, CM_S("GET / HTTP/1.1\r\n\r\n"));
        carry(&e);
        ck_str(cm_buf_str(&e.got), "GET / HTTP/1.1\r\n\r\n");
        ck_assert_int_eq(e.last, CM_TLS_MORE);
        cm_tls_write(e.server, CM_S("HTTP/1.1 200 OK\r\n\r\n"));
        carry(&e);
        ck_str(cm_buf_str(&e.received), "HTTP/1.1 200 OK\r\n\r\n");
        cm_tls_end(e.server);
        ck_assert(!cm_tls_ready(e.server));
        carry(&e);
        ck_assert_int_eq(SSL_get_shutdown(e.client), SSL_RECEIVED_SHUTDOWN);
        say(&e, CM_S("late")); /* its side is open yet */
        carry(&e);
        SSL_shutdown(e.client);
        carry(&e);
        ck_assert_int_eq(e.last, CM_TLS_END);
        ck_assert(cm_str_ends(cm_buf_str(&e.got), CM_S("late")));
        close_ends(&e);
    }
    remove_files();
}
END_TEST

START_TEST(much_in_both_directions)
{
    struct cm_buf much = {0};
    struct ends e;

    make_files();
    for (int i = 0; i < 300000; i++)
        cm_buf_put(&much, (char)(i * 7));
    open_ends(&e, TLS1_3_VERSION, 5000);
    carry(&e);
    say(&e, cm_buf_str(&much));
    carry(&e);
    ck_assert(cm_str_eq(cm_buf_str(&e.got), cm_buf_str(&much)));
    cm_tls_write(e.server, cm_buf_str(&much));
    carry(&e);
    ck_assert(cm_str_eq(cm_buf_str(&e.received), cm_buf_str(&much)));
    close_ends(&e);
    cm_buf_clear(&much);
    remove_files();
}
END_TEST

START_TEST(one_write_is_one_record)
{
    struct cm_buf text = {0};
    const struct cm_buf *wire;
    struct ends e;

    make_files();
    for (int i = 0; i < 16384; i++)
        cm_buf_put(&text, 'x');
    open_ends(&e, TLS1_3_VERSION, 100000);
    carry(&e);
    wire = cm_tls_wire(e.server);
    cm_tls_write(e.server, cm_buf_str(&text));
    ck_assert_int_eq((unsigned char)wire->p[0], 23);
    ck_assert_uint_eq(wire->n,
                      5u + ((size_t)(unsigned char)wire->p[3] << 8 | (unsigned char)wire->p[4]));
    close_ends(&e);
    cm_buf_clear(&text);
    remove_files();
}
END_TEST

START_TEST(old_versions_are_refused)
{
    struct ends e;

    make_files();
    open_ends(&e, TLS1_1_VERSION, 100000);
    SSL_set_security_level(e.client, 0);
    carry(&e);
    ck_assert_int_eq(e.last, CM_TLS_BROKEN);
    ck_assert_ptr_nonnull(strstr(cm_tls_why(e.server), "unsupported protocol"));
    ck_assert(e.client_failed && !cm_tls_ready(e.server)); /* it got an alert */
    server_turn(&e, CM_S("more"));
    ck_assert_int_eq(e.last, CM_TLS_BROKEN);
    close_ends(&e);
    remove_files();
}
END_TEST

START_TEST(protocols_by_alpn)
{
    static const struct {
        struct cm_str offered;
        const char *chosen; /* NULL: refused */
    } cases[] = {
        {CM_S_INIT("\x02h2\x08http/1.1"), "http/1.1"},
        {CM_S_INIT("\x08http/1.0"), "http/1.0"},
        {CM_S_INIT("\x02h2"), NULL},
        {CM_S_INIT(""), ""},
    };

    make_files();
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const unsigned char *name = NULL;
        unsigned n = 0;
        struct ends e;

        open_ends(&e, TLS1_3_VERSION, 100000);
        SSL_set_alpn_protos(e.client, (const unsigned char *)cases[i].offered.p,
                            (unsigned)cases[i].offered.n);
        carry(&e);
        ck_assert_int_eq(cm_tls_ready(e.server), cases[i].chosen != NULL);
        SSL_get0_alpn_selected(e.client, &name, &n);
        if (cases[i].chosen)
            ck_assert(cm_str_eq(cm_str((const char *)name, n), cm_str_of(cases[i].chosen)));
        close_ends(&e);
    }
    remove_files();
}
END_TEST

START_TEST(renegotiation_is_refused)
{
    struct ends e;

    make_files();
    open_ends(&e, TLS1_2_VERSION, 100000);
    carry(&e);
    ck_assert_int_eq(SSL_renegotiate(e.client), 1);
    SSL_do_handshake(e.client);
    carry(&e);
    ck_assert(e.client_failed); /* told by an alert, and it gives up */
    ck_assert_uint_eq(e.got.n, 0);
    close_ends(&e);
    remove_files();
}
END_TEST

START_TEST(sessions_are_resumed)
{
    SSL_SESSION *session = NULL;
    struct ends e, f;

    make_files();
    open_ends(&e, TLS1_3_VERSION, 100000);
    carry(&e);
    session = SSL_get1_session(e.client);
    ck_assert(SSL_SESSION_is_resumable(session));
    f = e; /* a second client of the same gateway */
    f.server = cm_tls_accept(e.tls);
    f.client = SSL_new(e.ctx);
    f.to_client = BIO_new(BIO_s_mem());
    f.from_client = BIO_new(BIO_s_mem());
    SSL_set_bio(f.client, f.to_client, f.from_client);
    SSL_set_connect_state(f.client);
    SSL_set_session(f.client, session);
    carry(&f);
    ck_assert_int_eq(SSL_session_reused(f.client), 1);
    cm_tls_free(f.server);
    SSL_free(f.client);
    SSL_SESSION_free(session);
    close_ends(&e);
    remove_files();
}
END_TEST

START_TEST(plain_http_is_told)
{
    const struct cm_str request = CM_S("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n{}");

    make_files();
    for (size_t piece = 1; piece <= request.n; piece += 9) {
        struct cm_str answer;
        struct ends e;
        int told = 0;

        open_ends(&e, TLS1_3_VERSION, 100000);
        for (size_t at = 0; at < request.n; at += piece) {
            server_turn(&e, cm_str_head(cm_str_from(request, at), piece));
            told += e.last == CM_TLS_PLAIN;
            ck_assert(e.last == CM_TLS_PLAIN || e.last == CM_TLS_MORE);
        }
        ck_assert_int_eq(told, 1);
        answer = cm_buf_str(cm_tls_wire(e.server));
        ck_assert(cm_str_starts(answer, CM_S("HTTP/1.1 400 ")));
        ck_assert(cm_str_has(answer, CM_S("Connection: close\r\n")));
        ck_assert(cm_str_has(answer, CM_S("Content-Length: 59\r\n")));
        ck_assert_uint_eq(answer.n - cm_str_find(answer, CM_S("\r\n\r\n")) - 4, 59);
        ck_assert(cm_str_ends(answer, CM_S("This port speaks https: write https:// instead of "
                                           "http://.\n")));
        ck_assert(!cm_tls_ready(e.server));
        ck_assert_uint_eq(e.got.n, 0);
        close_ends(&e);
    }
    remove_files();
}
END_TEST

START_TEST(garbage_is_refused)
{
    static const struct cm_str garbage[] = {
        CM_S_INIT("\x00\x01\x02\x03\x04\x05\x06\x07"),
        CM_S_INIT("\x16\x03\x01\xff\xff\x01\x00\x00"),
        CM_S_INIT("\x16\x03\x01\x00\x04\x63\x00\x00\x00"),
        CM_S_INIT("\x17\x03\x03\x00\x02hi"),
    };

    make_files();
    for (size_t i = 0; i < CM_COUNT(garbage); i++) {
        struct ends e;

        open_ends(&e, TLS1_3_VERSION, 100000);
        server_turn(&e, garbage[i]);
        ck_assert_msg(e.last == CM_TLS_BROKEN, "%zu", i);
        ck_assert_uint_eq(ERR_peek_error(), 0); /* libcurl shares this queue */
        close_ends(&e);
    }
    remove_files();
}
END_TEST

START_TEST(a_connection_outlives_its_certificate)
{
    struct ends e;

    make_files();
    open_ends(&e, TLS1_3_VERSION, 100000);
    carry(&e);
    cm_tls_unref(e.tls);
    e.tls = load(chain_file, key_file);
    say(&e, CM_S("still there?"));
    cm_tls_write(e.server, CM_S("yes"));
    carry(&e);
    ck_str(cm_buf_str(&e.got), "still there?");
    ck_str(cm_buf_str(&e.received), "yes");
    close_ends(&e);
    remove_files();
}
END_TEST

START_TEST(the_chain_is_sent)
{
    struct ends e;

    make_files();
    open_ends(&e, TLS1_3_VERSION, 100000);
    cm_tls_free(e.server);
    cm_tls_unref(e.tls);
    e.tls = load(chain_file, key_file);
    e.server = cm_tls_accept(e.tls);
    carry(&e);
    ck_assert_int_eq(sk_X509_num(SSL_get_peer_cert_chain(e.client)), 2);
    close_ends(&e);
    remove_files();
}
END_TEST

START_TEST(wrong_files_are_named)
{
    char missing[80];
    const struct {
        const char *cert, *key, *named, *says;
        bool bad_key;
    } cases[] = {
        {missing, key_file, missing, "No such file", false},
        {cert_file, missing, missing, "No such file", true},
        {text_file, key_file, text_file, "no certificate in PEM form", false},
        {cut_file, key_file, cut_file, "cannot be used as a certificate", false},
        {dir, key_file, dir, "Is a directory", false},
        {key_file, key_file, key_file, "no certificate in PEM form", false},
        {cert_file, text_file, text_file, "no private key in PEM form", true},
        {cert_file, cert_file, cert_file, "no private key in PEM form", true},
        {cert_file, other_key_file, other_key_file, "is not the key of the certificate", true},
        {cert_file, locked_key_file, locked_key_file, "is encrypted", true},
    };

    make_files();
    snprintf(missing, sizeof(missing), "%s/missing", dir);
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_err err = {0};
        bool bad_key = !cases[i].bad_key;

        ck_assert_ptr_null(
            cm_tls_new(cm_str_of(cases[i].cert), cm_str_of(cases[i].key), &bad_key, &err));
        ck_assert_msg(err.cls == CM_ERR_CONFIG && strstr(err.msg, cases[i].named) &&
                          strstr(err.msg, cases[i].says) && bad_key == cases[i].bad_key,
                      "%zu: %s", i, err.msg);
        ck_assert_uint_eq(ERR_peek_error(), 0);
    }
    remove_files();
}
END_TEST

START_TEST(an_old_certificate_is_remarked)
{
    struct cm_tls *tls;

    make_files();
    tls = load(old_file, key_file);
    ck_assert_str_eq(cm_tls_remark(tls), "has expired");
    cm_tls_unref(tls);
    tls = load(cert_file, key_file);
    ck_assert_ptr_null(cm_tls_remark(tls));
    cm_tls_unref(tls);
    remove_files();
}
END_TEST

Suite *suite_tls(void)
{
    Suite *s = suite_create("tls");
    TCase *t = tcase_create("tls");

    tcase_add_test(t, both_versions_at_every_split);
    tcase_add_test(t, much_in_both_directions);
    tcase_add_test(t, one_write_is_one_record);
    tcase_add_test(t, old_versions_are_refused);
    tcase_add_test(t, protocols_by_alpn);
    tcase_add_test(t, renegotiation_is_refused);
    tcase_add_test(t, sessions_are_resumed);
    tcase_add_test(t, plain_http_is_told);
    tcase_add_test(t, garbage_is_refused);
    tcase_add_test(t, a_connection_outlives_its_certificate);
    tcase_add_test(t, the_chain_is_sent);
    tcase_add_test(t, wrong_files_are_named);
    tcase_add_test(t, an_old_certificate_is_remarked);
    suite_add_tcase(s, t);
    return s;
}
