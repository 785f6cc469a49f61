/* Addresses and networks as text. Any thread. */
#ifndef CHATMUX_BASE_NET_H
#define CHATMUX_BASE_NET_H

#include "chatmux/base/str.h"

/* An IPv4 address is kept in its v4-mapped form, so that ::ffff:10.0.0.1 is 10.0.0.1. */
struct cm_ip {
    unsigned char bytes[16];
};

/* "10.0.0.1" "::1" "[::1]"; -1 for anything else. */
int cm_ip_parse(struct cm_str text, struct cm_ip *out);

/* Whether the address lies in "10.0.0.0/8", "fd00::/8" or equals "127.0.0.1"; false for a network
 * that cannot be read. */
bool cm_ip_in(const struct cm_ip *ip, struct cm_str network);

#endif
