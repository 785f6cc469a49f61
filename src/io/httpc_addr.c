/* Where a URL leads and whether we may go there. */
#include "httpc_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* Addresses that are not for everyone (IANA special-purpose registries). */
static const struct {
    uint32_t net, bits;
} private_v4[] = {
    {0x00000000, 8},  /* this network */
    {0x0a000000, 8},  /* private */
    {0x64400000, 10}, /* carrier-grade NAT */
    {0x7f000000, 8},  /* loopback */
    {0xa9fe0000, 16}, /* link-local: cloud metadata lives here */
    {0xac100000, 12}, /* private */
    {0xc0000000, 24}, /* protocol assignments */
    {0xc0000200, 24}, /* documentation */
    {0xc0586300, 24}, /* 6to4 relays */
    {0xc0a80000, 16}, /* private */
    {0xc6120000, 15}, /* benchmarks */
    {0xc6336400, 24}, /* documentation */
    {0xcb007100, 24}, /* documentation */
    {0xe0000000, 4},  /* multicast */
    {0xf0000000, 4},  /* reserved, broadcast */
};

static bool v4_public(uint32_t addr)
{
    for (size_t i = 0; i < CM_COUNT(private_v4); i++)
        if (((addr ^ private_v4[i].net) >> (32 - private_v4[i].bits)) == 0)
            return false;
    return true;
}

/* Only 2000::/3 is global unicast. That leaves out ::/96, v4-mapped, NAT64 (64:ff9b::/96), fc00::/7, fe80::/10 and ff00::/8, whatever they embed. */
static bool v6_public(const uint8_t a[16])
{
    uint32_t head = (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3];

    return head >> 29 == 1 && head >> 9 != 0x20010000 >> 9 /* 2001::/23: Teredo, ORCHID … */
           && head != 0x20010db8                           /* documentation */
           && head >> 16 != 0x2002                         /* 6to4 embeds a v4 address */
           && head >> 12 != 0x3fff0;                       /* documentation */
}

bool hc_addr_public(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, addr, sizeof(in));
        return v4_public(ntohl(in.sin_addr.s_addr));
    }
    if (addr->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, addr, sizeof(in6));
        return v6_public(in6.sin6_addr.s6_addr);
    }
    return false;
}

static bool is_literal(const char *host)
{
    uint8_t addr[16];

    return inet_pton(AF_INET, host, addr) == 1 || strchr(host, ':');
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
}

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Four numbers as everybody writes them; in other notations numbers are addresses, too, and libcurl's business. */
static bool is_dotted_quad(struct cm_str s)
{
    char z[INET_ADDRSTRLEN];
    struct in_addr ip;

    return cm_str_copy(z, sizeof(z), s) == s.n && inet_pton(AF_INET, z, &ip) == 1;
}

/* Nothing in it that libcurl would change: it takes out "/../" and "/./", drops a fragment and refuses blanks. */
static bool is_plain_path(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(is_name_char(s.p[i]) || strchr("/?&=:,+~@", s.p[i])) || s.p[i] == '\0' ||
            (s.p[i] == '/' && i + 1 < s.n && s.p[i + 1] == '.'))
            return false;
    return s.n > 0 && s.p[0] == '/';
}

/* A plain name or IPv4 address with an optional port, as nearly every URL has it. False: ask libcurl, whose reading is the one that counts. */
static bool parse_plain(struct hc_endpoint *ep, struct cm_str rest)
{
    size_t n = 0, label = 0;
    uint64_t port = ep->port;
    bool quad;

    while (n < rest.n && is_name_char(rest.p[n])) {
        if (rest.p[n] == '.')
            label = n + 1;
        n++;
    }
    if (n == 0 || n > 253 || label >= n)
        return false;
    quad = is_dotted_quad(cm_str(rest.p, n));
    if (!quad && !is_alpha(rest.p[label]))
        return false;
    ep->host = cm_str(rest.p, n);
    if (n < rest.n && rest.p[n] == ':') {
        size_t end = ++n;

        while (end < rest.n && rest.p[end] >= '0' && rest.p[end] <= '9')
            end++;
        if (!cm_str_to_u64(cm_str(rest.p + n, end - n), 65535, &port) || port == 0)
            return false;
        n = end;
    }
    ep->port = (uint16_t)port;
    ep->literal = quad;
    if (is_plain_path(cm_str_from(rest, n)))
        ep->rest = cm_str_from(rest, n);
    return n == rest.n || rest.p[n] == '/' || rest.p[n] == '?' || rest.p[n] == '#';
}

static bool parse_by_curl(struct hc_endpoint *ep, struct cm_str url)
{
    char *z = cm_str_dup(url), *host = NULL, *port = NULL;
    CURLU *u = curl_url();
    uint64_t n;
    bool ok = false;

    CM_ASSERT(u != NULL);
    if (strlen(z) != url.n ||
        curl_url_set(u, CURLUPART_URL, z, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_HOST, &host, CURLU_PUNYCODE) != CURLUE_OK)
        goto out;
    if (curl_url_get(u, CURLUPART_PORT, &port, 0) == CURLUE_OK &&
        cm_str_to_u64(cm_str_of(port), 65535, &n) && n > 0)
        ep->port = (uint16_t)n;
    if (host[0] == '[') { /* the brackets go; a zone would only mean something on this machine */
        size_t len = strlen(host);

        if (len < 3 || strchr(host, '%'))
            goto out;
        ep->owned = cm_str_dup(cm_str(host + 1, len - 2));
    } else {
        ep->owned = cm_strdup(host);
    }
    ep->host = cm_str_of(ep->owned);
    ep->literal = is_literal(ep->owned);
    ok = ep->host.n > 0 && ep->host.n <= 253;
out:
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    free(z);
    return ok;
}

int hc_endpoint_parse(struct hc_endpoint *ep, struct cm_str url, enum hc_url kind,
                      struct cm_err *err)
{
    static const struct {
        struct cm_str scheme;
        uint16_t port;
        bool tls;
    } known[][3] = {
        [HC_URL_HTTP] = {{CM_S_INIT("http://"), 80, false}, {CM_S_INIT("https://"), 443, true}},
        [HC_URL_WS] = {{CM_S_INIT("ws://"), 80, false}, {CM_S_INIT("wss://"), 443, true}},
        /* the ports are libcurl's defaults for a proxy */
        [HC_URL_PROXY] = {{CM_S_INIT("http://"), 1080, false},
                          {CM_S_INIT("https://"), 443, true},
                          {CM_S_INIT("socks5h://"), 1080, false}},
    };
    static const char *const schemes[] = {
        [HC_URL_HTTP] = "the URL must start with http:// or https://",
        [HC_URL_WS] = "the URL must start with ws:// or wss://",
        [HC_URL_PROXY] = "the proxy must start with http://, https:// or socks5h://"};

    for (size_t i = 0; i < CM_COUNT(known[kind]); i++) {
        struct cm_str scheme = known[kind][i].scheme;

        if (scheme.n == 0 || !cm_str_starts_nocase(url, scheme))
            continue;
        ep->port = known[kind][i].port;
        ep->tls = known[kind][i].tls;
        if (parse_plain(ep, cm_str_from(url, scheme.n)) || parse_by_curl(ep, url))
            return 0;
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN, "%s is not valid",
                       kind == HC_URL_PROXY ? "the proxy's address" : "the URL");
    }
    return cm_fail(err, CM_ERR_UPSTREAM_DOWN, "%s", schemes[kind]);
}
