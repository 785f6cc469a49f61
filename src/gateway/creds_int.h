/* The stored credentials as the gateway keeps them: creds.c (rows, the configuration, the pool), creds_edit.c (an operator's changes),
 * creds_token.c (refreshed tokens). */
#ifndef CHATMUX_GATEWAY_CREDS_INT_H
#define CHATMUX_GATEWAY_CREDS_INT_H

#include "gateway_int.h"

/* Credentials that are not stored: one without a secret for a provider that needs none, and all of them without a store. */
#define UNSTORED_ID (UINT64_C(1) << 62)

struct kept {
    struct cm_list link;     /* in gw->kept */
    struct cm_cred_row row;  /* texts are owned, secrets wiped */
    bool seen;               /* stands in the configuration that is being applied */
    struct mask_parts parts; /* of its texts, in gw->mask */
    bool unsaved;            /* the disk has refused its token: tried again until it is there */
    unsigned char
        digest[CM_SHA256_SIZE]; /* of provider and secret: its key in gw->kept_by_secret */
};

struct kept *kept_find(struct cm_gateway *gw, uint64_t id);
struct kept *kept_find_secret(struct cm_gateway *gw, struct cm_str provider, struct cm_str secret);
/* Copied; replaces the row of that id. */
struct kept *kept_put(struct cm_gateway *gw, const struct cm_cred_row *row);
void kept_drop(struct cm_gateway *gw, struct kept *k);
uint64_t kept_new_id(struct cm_gateway *gw);
void kept_row_copy(struct cm_cred_row *to, const struct cm_cred_row *from);
void kept_row_clear(struct cm_cred_row *row); /* of kept_row_copy() */
void kept_to_pool(struct cm_gateway *gw, const struct cm_cred_row *row);
/* What the pool has learned since goes along when a row is written for another reason (but the token, which the rows have before the pool). Borrowed from the pool until it is called again. */
void kept_figures(struct cm_gateway *gw, struct cm_cred_row *row);

#endif
