/* Addresses in the configuration: listeners, URLs, proxies, networks, targets of a route. */
#include "config_int.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/un.h>

#include "chatmux/base/mem.h"

struct authority {
    struct cm_str host; /* without brackets */
    bool v6;
    bool has_port;
    unsigned port;
};

static bool is_ip(int family, struct cm_str s, struct in6_addr *out)
{
    char z[INET6_ADDRSTRLEN];

    if (s.n >= sizeof z || (s.n > 0 && memchr(s.p, 0, s.n)))
        return false;
    cm_str_copy(z, sizeof z, s);
    return inet_pton(family, z, out) == 1;
}

static bool is_host_name(struct cm_str s)
{
    struct in6_addr ip;
    bool numeric = true;

    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';

        if (!letter && c != '.' && (c < '0' || c > '9'))
            return false;
        numeric = numeric && !letter;
    }
    return s.n > 0 && s.n <= 253 && (!numeric || is_ip(AF_INET, s, &ip));
}

/* host, host:port, [v6] or [v6]:port */
static bool read_authority(struct cm_str s, struct authority *out)
{
    struct in6_addr ip;
    uint64_t port = 0;

    *out = (struct authority){.v6 = s.n > 0 && s.p[0] == '['};
    if (out->v6) {
        s = cm_str_from(s, 1);
        out->host = cm_str_head(s, cm_str_find_char(s, ']'));
        s = cm_str_from(s, out->host.n);
        if (s.n == 0 || !is_ip(AF_INET6, out->host, &ip))
            return false;
        s = cm_str_from(s, 1);
    } else {
        out->host = cm_str_head(s, cm_str_find_char(s, ':'));
        s = cm_str_from(s, out->host.n);
        if (!is_host_name(out->host))
            return false;
    }
    if (s.n == 0)
        return true;
    if (s.p[0] != ':' || !cm_str_to_u64(cm_str_from(s, 1), 65535, &port))
        return false;
    out->has_port = true;
    out->port = (unsigned)port;
    return true;
}

static bool is_loopback(const struct authority *a)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct in6_addr ip;

    if (!a->v6) {
        return cm_str_eq_nocase(a->host, CM_S("localhost")) ||
               (is_ip(AF_INET, a->host, &ip) && ip.s6_addr[0] == 127);
    }
    return is_ip(AF_INET6, a->host, &ip) &&
           (IN6_IS_ADDR_LOOPBACK(&ip) ||
            (memcmp(ip.s6_addr, mapped, sizeof mapped) == 0 && ip.s6_addr[12] == 127));
}

int cm_conf_listen(struct cm_str s, struct cm_listen_spec *out, struct cm_err *err)
{
    struct authority a;

    if (cm_str_eq(s, CM_S("systemd"))) {
        *out = (struct cm_listen_spec){.kind = CM_LISTEN_SYSTEMD};
        return 0;
    }
    if (cm_str_starts(s, CM_S("unix:"))) {
        struct cm_str path = cm_str_from(s, 5);

        if (path.n == 0 || path.p[0] != '/')
            return cm_fail(err, CM_ERR_CONFIG, "the path behind unix: must begin with /");
        if (path.n >= sizeof((struct sockaddr_un *)NULL)->sun_path)
            return cm_fail(err, CM_ERR_CONFIG, "the path behind unix: is longer than %zu bytes",
                           sizeof((struct sockaddr_un *)NULL)->sun_path - 1);
        *out = (struct cm_listen_spec){.kind = CM_LISTEN_UNIX, .path = path, .local = true};
        return 0;
    }
    if (!read_authority(s, &a) || !a.has_port)
        return cm_fail(err, CM_ERR_CONFIG,
                       "must be host:port (127.0.0.1:8080, 0.0.0.0:8080), [v6]:port ([::]:8080), "
                       "unix:/path or systemd");
    *out = (struct cm_listen_spec){
        .kind = CM_LISTEN_TCP, .host = a.host, .port = a.port, .local = is_loopback(&a)};
    return 0;
}

/* What a target may say of the requests that go to it. */
static int check_override(struct cm_str word, struct cm_err *err)
{
    static const struct {
        const char *name;
        enum { WHOLE, NUMBER, WORD } kind;
    } known[] = {{"temperature", NUMBER},       {"top_p", NUMBER},     {"presence_penalty", NUMBER},
                 {"frequency_penalty", NUMBER}, {"max_tokens", WHOLE}, {"seed", WHOLE},
                 {"reasoning_effort", WORD}};
    struct cm_str value = word, name = cm_str_cut(&value, '=');
    char text[40], *end;
    int64_t whole;

    for (size_t i = 0; i < CM_COUNT(known); i++) {
        if (!cm_str_eq(name, cm_str_of(known[i].name)))
            continue;
        cm_str_copy(text, sizeof(text), value);
        if (known[i].kind == WORD && value.n > 0 && value.n < sizeof(text))
            return 0;
        if (known[i].kind == WHOLE && cm_conf_int(value, 0, INT32_MAX, &whole, NULL) == 0)
            return 0;
        if (known[i].kind == NUMBER && value.n > 0 && value.n < 20 && strtod(text, &end) > -1000 &&
            strspn(text, "-.0123456789") == value.n && *end == '\0')
            return 0;
        return cm_fail(err, CM_ERR_CONFIG, "%s has no such value", known[i].name);
    }
    return cm_fail(err, CM_ERR_CONFIG,
                   "only weight=N and temperature, top_p, max_tokens, seed, presence_penalty, "
                   "frequency_penalty, reasoning_effort=… may follow provider/model");
}

int cm_conf_target(struct cm_str s, struct cm_target_spec *out, struct cm_err *err)
{
    struct cm_target_spec t = {.weight = 1};
    struct cm_str model = cm_str_trim(cm_str_cut(&s, ' '));

    t.provider = cm_str_head(model, cm_str_find_char(model, '/'));
    t.model = cm_str_from(model, t.provider.n + 1);
    if (t.provider.n == 0 || t.model.n == 0 || cm_str_find_char(model, ',') != SIZE_MAX)
        return cm_fail(err, CM_ERR_CONFIG, "must be provider/model or provider/model weight=N");
    t.overrides = s = cm_str_trim(s);
    for (; s.n > 0; s = cm_str_trim(s)) {
        struct cm_str word = cm_str_cut(&s, ' ');

        if (!cm_str_starts(word, CM_S("weight="))) {
            if (check_override(word, err) < 0)
                return -1;
            continue;
        }
        if (cm_conf_int(cm_str_from(word, 7), 1, 1000, &t.weight, NULL) != 0)
            return cm_fail(err, CM_ERR_CONFIG, "weight must be a whole number from 1 to 1000");
    }
    *out = t;
    return 0;
}

/* Blanks and what must be percent-encoded in a URL. */
static bool is_url_text(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c <= ' ' || c >= 0x7f || strchr("\"<>\\^`{|}", c))
            return false;
    }
    return true;
}

/* Cuts "scheme://" off. */
static bool cut_scheme(struct cm_str *url, const char *scheme)
{
    struct cm_str s = cm_str_of(scheme);

    if (!cm_str_starts_nocase(*url, s) || !cm_str_starts(cm_str_from(*url, s.n), CM_S("://")))
        return false;
    *url = cm_str_from(*url, s.n + 3);
    return true;
}

static size_t find_any(struct cm_str s, const char *chars)
{
    size_t i = 0;

    while (i < s.n && !strchr(chars, s.p[i]))
        i++;
    return i;
}

int cm_conf_url(struct cm_str url, struct cm_err *err)
{
    struct authority a;

    if (!cut_scheme(&url, "https") && !cut_scheme(&url, "http"))
        return cm_fail(err, CM_ERR_CONFIG, "must begin with https:// or http://");
    if (!is_url_text(url))
        return cm_fail(err, CM_ERR_CONFIG, "holds a blank or another character no URL can have");
    if (cm_str_find_char(cm_str_head(url, find_any(url, "/?#")), '@') != SIZE_MAX)
        return cm_fail(err, CM_ERR_CONFIG,
                       "must not hold a user or password; keys and cookies go into credentials");
    if (find_any(url, "?#") < url.n)
        return cm_fail(err, CM_ERR_CONFIG, "must end before any ? or #");
    if (!read_authority(cm_str_head(url, find_any(url, "/")), &a) || (a.has_port && a.port == 0))
        return cm_fail(err, CM_ERR_CONFIG, "has no valid host, or a port that is not 1 to 65535");
    return 0;
}

int cm_conf_proxy(struct cm_str url, struct cm_err *err)
{
    struct authority a;
    size_t end;

    if (!cut_scheme(&url, "http") && !cut_scheme(&url, "https") && !cut_scheme(&url, "socks5h"))
        return cm_fail(
            err, CM_ERR_CONFIG,
            "must begin with http://, https:// or socks5h:// (the proxy resolves names)");
    if (!is_url_text(url))
        return cm_fail(err, CM_ERR_CONFIG, "holds a blank or another character no URL can have");
    end = find_any(url, "/?#");
    if (end < url.n && !cm_str_eq(cm_str_from(url, end), CM_S("/")))
        return cm_fail(err, CM_ERR_CONFIG,
                       "must end behind the port; / ? # in a password are written %%2F %%3F %%23");
    url = cm_str_head(url, end);
    for (size_t at = cm_str_find_char(url, '@'); at != SIZE_MAX; at = cm_str_find_char(url, '@'))
        url = cm_str_from(url, at + 1);
    if (!read_authority(url, &a) || (a.has_port && a.port == 0))
        return cm_fail(err, CM_ERR_CONFIG, "has no valid host, or a port that is not 1 to 65535");
    return 0;
}

int cm_conf_origin(struct cm_str url, struct cm_err *err)
{
    struct authority a;
    size_t mark = cm_str_find(url, CM_S("://"));

    if (mark == SIZE_MAX || mark == 0 || !is_url_text(url) ||
        !read_authority(cm_str_from(url, mark + 3), &a))
        return cm_fail(err, CM_ERR_CONFIG,
                       "must be * or scheme://host or scheme://host:port, without a path");
    return 0;
}

int cm_conf_network(struct cm_str s, struct cm_err *err)
{
    struct cm_str bits = s, address = cm_str_cut(&bits, '/');
    struct in6_addr ip;
    uint64_t n;
    unsigned max = 0;

    if (is_ip(AF_INET, address, &ip))
        max = 32;
    else if (is_ip(AF_INET6, address, &ip))
        max = 128;
    if (max == 0 || (address.n < s.n && !cm_str_to_u64(bits, max, &n)))
        return cm_fail(err, CM_ERR_CONFIG, "must be networks such as 10.0.0.0/8 or fd00::/8");
    return 0;
}
