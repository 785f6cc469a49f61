/* Refreshed tokens: on the disk before they are used. */
#include "creds_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

struct fresh {
    struct cm_gateway *gw;
    uint64_t id;
    struct cm_buf token; /* wiped */
    int64_t expires_ms;
};

/* On the disk, or the disk refused it: a token that was given out replaces the old one on the platform, so it is used either way. */
static void on_token_kept(void *arg, const struct cm_err *err)
{
    struct fresh *f = arg;
    struct cm_gateway *gw = f->gw;

    if (err)
        cm_error("store", "a refreshed token of credential %llu is not on the disk: %s",
                 (unsigned long long)f->id, err->msg);
    if (!gw->closing) {
        cm_pool_refreshed(gw->pool, f->id, cm_buf_str(&f->token), f->expires_ms, NULL);
        gateway_pool_moved(gw);
    }
    cm_wipe(f->token.p, f->token.n);
    cm_buf_clear(&f->token);
    free(f);
    gateway_attempt_over(gw);
}

void creds_store_token(struct cm_gateway *gw, uint64_t id, struct cm_str token, int64_t expires_ms)
{
    struct kept *k = kept_find(gw, id);
    struct cm_change change = {.kind = CM_CHANGE_PUT_CRED};
    struct fresh *f = CM_NEW(struct fresh);
    struct cm_cred_row row;

    *f = (struct fresh){.gw = gw, .id = id, .expires_ms = expires_ms};
    cm_buf_append(&f->token, token);
    gw->attempts_out++;
    if (!k || !gw->store || id >= UNSTORED_ID) {
        on_token_kept(f, NULL);
        return;
    }
    row = k->row;
    kept_figures(gw, &row);
    row.token = token;
    row.token_expires_ms = expires_ms;
    change.cred = &kept_put(gw, &row)->row;
    cm_store_change(gw->store, &change, 1, on_token_kept, f);
}
