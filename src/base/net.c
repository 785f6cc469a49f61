/* Addresses and networks as text. */
#include "chatmux/base/net.h"

#include <arpa/inet.h>

#define MAPPED_BITS 96u /* ::ffff:0:0/96 holds the IPv4 addresses */

int cm_ip_parse(struct cm_str text, struct cm_ip *out)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    const bool brackets = text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']';
    char z[INET6_ADDRSTRLEN];

    if (brackets)
        text = cm_str(text.p + 1, text.n - 2);
    if (text.n >= sizeof(z) || memchr(text.p ? text.p : "", '\0', text.n))
        return -1;
    cm_str_copy(z, sizeof(z), text);
    if (inet_pton(AF_INET6, z, out->bytes) == 1)
        return 0;
    if (brackets || inet_pton(AF_INET, z, out->bytes + sizeof(mapped)) != 1)
        return -1;
    memcpy(out->bytes, mapped, sizeof(mapped));
    return 0;
}

bool cm_ip_in(const struct cm_ip *ip, struct cm_str network)
{
    struct cm_str bits_text = network, address = cm_str_cut(&bits_text, '/');
    bool v4 = cm_str_find_char(address, ':') == SIZE_MAX;
    uint64_t bits = v4 ? 32 : 128;
    struct cm_ip base;
    size_t whole;
    unsigned rest;

    if (cm_ip_parse(address, &base) < 0 ||
        (address.n < network.n && !cm_str_to_u64(bits_text, bits, &bits)))
        return false;
    bits += v4 ? MAPPED_BITS : 0;
    whole = bits / 8;
    rest = (unsigned)(bits % 8);
    if (memcmp(ip->bytes, base.bytes, whole) != 0)
        return false;
    return rest == 0 || (ip->bytes[whole] >> (8 - rest)) == (base.bytes[whole] >> (8 - rest));
}
