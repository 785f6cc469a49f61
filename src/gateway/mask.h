/* Which of many secrets a text quotes, in a time that does not depend on how many there are. Pure; one thread. */
#ifndef CHATMUX_GATEWAY_MASK_H
#define CHATMUX_GATEWAY_MASK_H

#include "chatmux/base/map.h"

struct mask {            /* zeroed memory is an empty one */
    struct cm_map tails; /* the last bytes of a part -> struct mask_part */
};

#define MASK_PARTS_MAX 24
struct mask_parts {      /* of one account; zeroed memory has none */
    struct mask_part *v; /* owned */
    size_t n;
};

/* What could be quoted of an account: its secret and its token, the values in them when they are cookies (name=value; …) or JSON, and the password in its
 * proxy. The texts are borrowed until mask_remove(). Words that are too short or too plain to be secrets are left out. */
void mask_add(struct mask *m, struct mask_parts *parts, struct cm_str secret, struct cm_str token,
              struct cm_str proxy);
void mask_remove(struct mask *m, struct mask_parts *parts); /* fine without parts */
bool mask_finds(const struct mask *m, struct cm_str text);
void mask_clear(struct mask *m); /* parts are removed by their owners, before or after */

#endif
