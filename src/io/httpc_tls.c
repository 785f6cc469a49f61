/* Trust: one certificate store per CA file, read once and shared by all connections. */
#include "httpc_int.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <unistd.h>

/* Where distributions keep the bundle; libraries of our own may have been built for another one. */
static const char *const bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt", /* Debian, Alpine, Arch */
    "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora, RHEL */
    "/etc/ssl/ca-bundle.pem",             /* SUSE */
    "/etc/ssl/cert.pem",
};

/* In hc->stores, by its path. */
struct ca_store {
    char *path;        /* owned */
    X509_STORE *store; /* one reference is ours */
};

static void ca_store_free(struct ca_store *ca)
{
    X509_STORE_free(ca->store);
    free(ca->path);
    free(ca);
}

static int load_system(X509_STORE *store)
{
    const char *file = getenv("SSL_CERT_FILE");

    for (size_t i = 0; !file && i < CM_COUNT(bundles); i++)
        if (access(bundles[i], R_OK) == 0)
            file = bundles[i];
    return file ? X509_STORE_load_file(store, file) : X509_STORE_set_default_paths(store);
}

X509_STORE *hc_ca_store(struct cm_httpc *hc, struct cm_str ca_file, struct cm_err *err)
{
    struct ca_store *ca = cm_map_get(&hc->stores, ca_file.n > 0 ? ca_file : CM_S("system"));
    int ok;

    if (ca)
        return ca->store;
    ca = CM_NEW(struct ca_store);
    ca->path = cm_str_dup(ca_file.n > 0 ? ca_file : CM_S("system"));
    ca->store = X509_STORE_new();
    CM_ASSERT(ca->store != NULL);
    ok = ca_file.n > 0 ? X509_STORE_load_file(ca->store, ca->path) : load_system(ca->store);
    ERR_clear_error(); /* libcurl would read it as its own */
    if (ok != 1) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "cannot read certificates from %s",
                ca_file.n > 0 ? ca->path : "the system's CA bundle: is ca-certificates installed?");
        ca_store_free(ca);
        return NULL;
    }
    /* As libcurl does: an intermediate in the file is trusted, too. */
    X509_STORE_set_flags(ca->store, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
    cm_map_put(&hc->stores, cm_str_of(ca->path), ca);
    return ca->store;
}

void hc_ca_stores_clear(struct cm_httpc *hc)
{
    const struct cm_map_slot *slot;

    for (size_t pos = 0; (slot = cm_map_next(&hc->stores, &pos));)
        ca_store_free(slot->value);
    cm_map_clear(&hc->stores);
}
