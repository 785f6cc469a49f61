/* URLs and what they are made of: encodings there and back, addresses and networks, and a host that
 * is the same one libcurl will connect to. Input: the text. */
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/net.h"
#include "io/httpc_int.h"

#include <arpa/inet.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_percent(struct cm_str text)
{
    struct cm_buf coded = {0}, plain = {0}, again = {0};

    cm_percent(&coded, text);
    for (size_t i = 0; i < coded.n; i++)
        CM_ASSERT(coded.p[i] > ' ' && coded.p[i] < 0x7f && !strchr("/?#&=+:@", coded.p[i]));
    CM_ASSERT(cm_percent_decode(&plain, cm_buf_str(&coded), true) == 0);
    CM_ASSERT(cm_str_eq(cm_buf_str(&plain), text));

    /* what a client wrote, in a spelling of its own */
    cm_buf_reset(&plain);
    cm_buf_reset(&coded);
    if (cm_percent_decode(&plain, text, false) == 0) {
        CM_ASSERT(plain.n <= text.n);
        cm_percent(&coded, cm_buf_str(&plain));
        CM_ASSERT(cm_percent_decode(&again, cm_buf_str(&coded), false) == 0);
        CM_ASSERT(cm_str_eq(cm_buf_str(&again), cm_buf_str(&plain)));
    }
    cm_buf_clear(&coded);
    cm_buf_clear(&plain);
    cm_buf_clear(&again);
}

static void check_base64_of(void (*encode)(struct cm_buf *out, struct cm_str bytes),
                            struct cm_str bytes, size_t length)
{
    struct cm_buf coded = {0}, plain = {0};

    encode(&coded, bytes);
    CM_ASSERT(coded.n == length);
    CM_ASSERT(cm_base64_decode(&plain, cm_buf_str(&coded)) == 0);
    CM_ASSERT(cm_str_eq(cm_buf_str(&plain), bytes));
    cm_buf_clear(&coded);
    cm_buf_clear(&plain);
}

static void check_base64(struct cm_str text)
{
    struct cm_buf plain = {0};

    check_base64_of(cm_base64, text, (text.n + 2) / 3 * 4);
    check_base64_of(cm_base64url, text, (text.n * 4 + 2) / 3);
    if (cm_base64_decode(&plain, text) == 0) {
        CM_ASSERT(plain.n <= text.n / 4 * 3 + 2);
        check_base64_of(cm_base64, cm_buf_str(&plain), (plain.n + 2) / 3 * 4);
    }
    cm_buf_clear(&plain);
}

/* The address lies in every network that begins with it, and in no other of the same length. */
static void check_networks(const struct cm_ip *ip, const char *text, unsigned bits_max)
{
    struct cm_ip other = *ip;
    char network[INET6_ADDRSTRLEN + 8];

    for (unsigned bits = 0; bits <= bits_max; bits++) {
        snprintf(network, sizeof(network), "%s/%u", text, bits);
        CM_ASSERT(cm_ip_in(ip, cm_str_of(network)));
        if (bits > 0) {
            const unsigned at = 128 - bits_max + bits - 1;

            other.bytes[at / 8] ^= (unsigned char)(0x80 >> at % 8);
            CM_ASSERT(!cm_ip_in(&other, cm_str_of(network)));
            other = *ip;
        }
    }
    snprintf(network, sizeof(network), "%s/%u", text, bits_max + 1);
    CM_ASSERT(!cm_ip_in(ip, cm_str_of(network)));
}

/* What we take for public is in none of the networks that lead back to us. */
static void check_public(const struct cm_ip *ip)
{
    static const char *const ours[] = {
        "0.0.0.0/8",      "10.0.0.0/8",    "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.168.0.0/16", "100.64.0.0/10", "224.0.0.0/3", "::/127",         "fc00::/7",
        "fe80::/10",      "64:ff9b::/96",  "ff00::/8",    "2002::/16",      "2001::/32",
        "::ffff:0:0/96",  "2001:db8::/32"};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr_in in = {.sin_family = AF_INET};
    const bool v4 = cm_ip_in(ip, CM_S("0.0.0.0/0"));
    bool is_public;

    memcpy(&in6.sin6_addr, ip->bytes, sizeof(ip->bytes));
    memcpy(&in.sin_addr, ip->bytes + 12, 4);
    if (v4) /* in its mapped form it is never public, whatever it holds */
        CM_ASSERT(!hc_addr_public((const struct sockaddr *)&in6));
    is_public = hc_addr_public(v4 ? (const struct sockaddr *)&in : (const struct sockaddr *)&in6);
    for (size_t i = 0; i < CM_COUNT(ours) && is_public; i++)
        CM_ASSERT((v4 && i == 15) || !cm_ip_in(ip, cm_str_of(ours[i])));
}

static void check_ip(struct cm_str text)
{
    char spelled[INET6_ADDRSTRLEN];
    struct cm_ip ip, again;

    if (cm_ip_parse(text, &ip))
        return;
    CM_ASSERT(cm_ip_in(&ip, text));
    CM_ASSERT(inet_ntop(AF_INET6, ip.bytes, spelled, sizeof(spelled)));
    CM_ASSERT(cm_ip_parse(cm_str_of(spelled), &again) == 0);
    CM_ASSERT(memcmp(ip.bytes, again.bytes, sizeof(ip.bytes)) == 0);
    check_networks(&ip, spelled, 128);
    if (cm_ip_in(&ip, CM_S("0.0.0.0/0"))) {
        inet_ntop(AF_INET, ip.bytes + 12, spelled, sizeof(spelled));
        check_networks(&ip, spelled, 32);
    }
    check_public(&ip);
}

/* Our own quick reading of a plain URL must be libcurl's, or a check of the host means nothing. */
static void check_as_curl_reads(const struct hc_endpoint *ep, struct cm_str url)
{
    char *z = cm_str_dup(url), *host = NULL, *port = NULL;
    CURLU *u = curl_url();

    if (strlen(z) == url.n &&
        curl_url_set(u, CURLUPART_URL, z, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK) {
        CM_ASSERT(curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK);
        CM_ASSERT(cm_str_eq_nocase(cm_str_of(host), ep->host));
        if (curl_url_get(u, CURLUPART_PORT, &port, 0) == CURLUE_OK)
            CM_ASSERT(strtoul(port, NULL, 10) == ep->port);
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    free(z);
}

static void check_endpoint(struct cm_str url, enum hc_url kind)
{
    struct hc_endpoint ep = {0};
    struct cm_err err = {0};

    if (hc_endpoint_parse(&ep, url, kind, &err)) {
        CM_ASSERT(err.cls != CM_ERR_NONE && err.msg[0] != '\0');
    } else {
        CM_ASSERT(ep.host.n > 0 && ep.host.n <= 253 && ep.port > 0);
        for (size_t i = 0; i < ep.host.n; i++)
            CM_ASSERT((unsigned char)ep.host.p[i] > ' ' && !strchr("/?#@\\", ep.host.p[i]));
        if (!ep.owned)
            check_as_curl_reads(&ep, url);
    }
    free(ep.owned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str text = cm_str((const char *)data, size);

    check_percent(text);
    check_base64(text);
    check_ip(text);
    check_endpoint(text, HC_URL_HTTP);
    check_endpoint(text, HC_URL_WS);
    check_endpoint(text, HC_URL_PROXY);
    return 0;
}
