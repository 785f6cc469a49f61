/* Refreshed tokens. A platform may give each token once and take the old one back: so a new one is on the disk before it is used, and one that was refused
 * is compared with the disk before its account is given up. What the disk refuses is used all the same, and written as soon as it can be. */
#include "creds_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define SAVE_AGAIN_MS 5000

/* A token on its way to the disk; or one that was refused, on the way to look there. */
struct fresh {
    struct cm_gateway *gw;
    uint64_t id;
    struct cm_buf secret, token; /* wiped */
    int64_t expires_ms;
    struct cm_err why; /* looking: how it was refused */
};

static struct fresh *fresh_new(struct cm_gateway *gw, uint64_t id, struct cm_str secret,
                               struct cm_str token)
{
    struct fresh *f = CM_NEW(struct fresh);

    f->gw = gw;
    f->id = id;
    cm_buf_append(&f->secret, secret);
    cm_buf_append(&f->token, token);
    gw->attempts_out++; /* the gateway stays until the disk has answered */
    return f;
}

static void fresh_free(struct fresh *f)
{
    struct cm_gateway *gw = f->gw;

    cm_wipe(f->secret.p, f->secret.n);
    cm_wipe(f->token.p, f->token.n);
    cm_buf_clear(&f->secret);
    cm_buf_clear(&f->token);
    free(f);
    gateway_attempt_over(gw);
}

/* ---- to the disk ---- */

static bool is_latest(const struct kept *k, const struct fresh *f)
{
    return k && cm_str_eq(k->row.token, cm_buf_str(&f->token));
}

static void note_saved(struct fresh *f, const struct cm_err *err)
{
    struct cm_gateway *gw = f->gw;
    struct kept *k = kept_find(gw, f->id);

    if (!is_latest(k, f))
        return; /* another one is on its way */
    if (err && !k->unsaved)
        cm_error("store",
                 "a refreshed token of credential %llu is not on the disk yet, and lost if the "
                 "process ends now: %s",
                 (unsigned long long)f->id, err->msg);
    if (!err && k->unsaved)
        cm_info("store", "the token of credential %llu is on the disk now",
                (unsigned long long)f->id);
    k->unsaved = err != NULL;
    if (err && !gw->closing)
        cm_deadline_set(gw->host->loop, &gw->save_tokens,
                        cm_loop_now_ms(gw->host->loop) + SAVE_AGAIN_MS);
}

static void to_disk(struct fresh *f, cm_store_done_fn *done)
{
    struct cm_cred_row row = {.id = f->id,
                              .secret = cm_buf_str(&f->secret),
                              .token = cm_buf_str(&f->token),
                              .token_expires_ms = f->expires_ms};
    struct cm_change change = {.kind = CM_CHANGE_SET_TOKEN, .cred = &row};

    cm_store_change(f->gw->store, &change, 1, done, f);
}

/* It replaces the old one on the platform, so it is used, whatever the disk says. */
static void on_saved(void *arg, const struct cm_err *err)
{
    struct fresh *f = arg;
    struct cm_gateway *gw = f->gw;

    note_saved(f, err);
    if (!gw->closing) {
        cm_pool_refreshed(gw->pool, f->id, cm_buf_str(&f->token), f->expires_ms, NULL);
        gateway_pool_moved(gw);
    }
    fresh_free(f);
}

void creds_store_token(struct cm_gateway *gw, uint64_t id, struct cm_str secret,
                       struct cm_str token, int64_t expires_ms)
{
    struct fresh *f = fresh_new(gw, id, secret, token);
    struct kept *k = kept_find(gw, id);
    struct cm_cred_row row;

    f->expires_ms = expires_ms;
    if (!k || !cm_str_eq(k->row.secret, secret)) { /* removed, or another account by now */
        cm_pool_refreshed(gw->pool, id, CM_STR_NONE, k ? k->row.token_expires_ms : 0, NULL);
        fresh_free(f);
        return;
    }
    row = k->row;
    row.token = cm_buf_str(&f->token);
    row.token_expires_ms = expires_ms;
    kept_put(gw, &row);
    if (gw->store && id < UNSTORED_ID)
        to_disk(f, on_saved);
    else
        on_saved(f, NULL);
}

static void on_saved_again(void *arg, const struct cm_err *err)
{
    struct fresh *f = arg;

    note_saved(f, err);
    fresh_free(f);
}

void creds_save_tokens(void *arg)
{
    struct cm_gateway *gw = arg;

    CM_LIST_EACH(&gw->kept, link)
    {
        struct kept *k = CM_LIST_ITEM(link, struct kept, link);

        if (k->unsaved) {
            struct fresh *f = fresh_new(gw, k->row.id, k->row.secret, k->row.token);

            f->expires_ms = k->row.token_expires_ms;
            to_disk(f, on_saved_again);
        }
    }
}

/* ---- refused ---- */

static void give_up(struct fresh *f)
{
    cm_pool_refreshed(f->gw->pool, f->id, CM_STR_NONE, 0, &f->why);
}

/* The disk has a newer token (another process has refreshed it), or another secret. */
static bool is_newer(const struct fresh *f, const struct kept *k, const struct cm_cred_row *row)
{
    bool other_secret = !cm_str_eq(row->secret, cm_buf_str(&f->secret));
    bool other_token = row->token.n > 0 && !cm_str_eq(row->token, cm_buf_str(&f->token));

    if (row->gone || row->damaged || !row->enabled)
        return false;
    return other_secret ? !k->row.from_config : other_token;
}

static void adopt(struct fresh *f, const struct cm_cred_row *stored)
{
    struct cm_gateway *gw = f->gw;
    struct cm_cred_row row = kept_find(gw, f->id)->row;

    cm_info("store",
            "credential %llu was refused, but the disk has a newer token: that one is taken",
            (unsigned long long)f->id);
    kept_figures(gw, &row);
    row.secret = stored->secret;
    row.token = stored->token;
    row.token_expires_ms = stored->token_expires_ms;
    kept_to_pool(gw, &kept_put(gw, &row)->row);
    cm_pool_refreshed(gw->pool, f->id, CM_STR_NONE, row.token_expires_ms, NULL);
}

static void on_stored(void *arg, const struct cm_cred_row *row, const struct cm_err *err)
{
    struct fresh *f = arg;
    struct cm_gateway *gw = f->gw;
    const struct kept *k = kept_find(gw, f->id);

    if (err)
        cm_warn("store", "cannot look for a newer token of credential %llu: %s",
                (unsigned long long)f->id, err->msg);
    if (!gw->closing) {
        if (k && row && is_newer(f, k, row))
            adopt(f, row);
        else
            give_up(f);
        gateway_pool_moved(gw);
    }
    fresh_free(f);
}

void creds_token_refused(struct cm_gateway *gw, uint64_t id, struct cm_str secret,
                         struct cm_str token, const struct cm_err *why)
{
    struct fresh *f = fresh_new(gw, id, secret, token);

    f->why = *why;
    if (gw->store && id < UNSTORED_ID) {
        cm_store_cred(gw->store, id, on_stored, f);
    } else {
        give_up(f);
        fresh_free(f);
    }
}
