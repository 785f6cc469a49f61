/* Hedging: when the attempt of a route has said nothing for a while, a second one runs beside it, with another account or target. Whoever says something
 * first serves; the other is cancelled, and what it cost is booked as waste.
 *
 * Until it wins, the second attempt (the rival) touches nothing of the exchange: what it says is kept and said again when it has won, or when the first
 * attempt has failed. Only for texts. At most 5 % of all attempts are extra ones, and none takes the last healthy account of its provider. */
#include "gateway_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#define SHARE 0.05     /* what each attempt adds to the purse; a hedge takes 1 */
#define PURSE_MAX 10.0 /* hedges in a row, after a quiet time */
#define SAID_MAX 64u   /* events that mean nothing yet; a rival that says more is dropped */

struct hedge {
    struct attempt *rival; /* NULL: none is under way */
    size_t target;         /* its place among the exchange's */
    struct cm_str dropped; /* x-chatmux-dropped of it */
    struct cm_event *said; /* copies, in the exchange's arena */
    size_t n_said;
};

/* ---- whether and when ---- */

static bool makes_pictures(const struct cm_target *t)
{
    return t->row && t->row->features & CM_MODEL_IMAGE_OUT;
}

/* Pictures and speech are never made twice. */
static bool is_text(const struct exchange *ex)
{
    return (ex->chat->task == CM_TASK_CHAT || ex->chat->task == CM_TASK_COMPLETION) &&
           !(ex->chat->modalities & (CM_MODALITY_IMAGE | CM_MODALITY_AUDIO)) &&
           !makes_pictures(&ex->targets[ex->target]);
}

static int64_t delay_ms(const struct exchange *ex)
{
    const struct cm_target *t = &ex->targets[ex->target];

    if (!t->route || t->route->hedge_after_ms == 0 || ex->hedge || !is_text(ex))
        return -1;
    if (t->route->hedge_after_ms > 0)
        return t->route->hedge_after_ms;
    return health_first_p95(ex->gw->health, exchange_instance(ex)->name, t->model,
                            ex->chat->stream);
}

void hedge_arm(struct exchange *ex)
{
    int64_t ms = delay_ms(ex);
    double *purse = &ex->gw->hedge_purse;

    *purse = *purse + SHARE < PURSE_MAX ? *purse + SHARE : PURSE_MAX;
    if (ms >= 0)
        cm_deadline_set(ex->gw->host->loop, &ex->hedge_due,
                        cm_loop_now_ms(ex->gw->host->loop) + (uint64_t)ms);
}

/* One more account must stay healthy besides those that this exchange uses; a server that asks for no key has none to lose. */
static bool spares_one(const struct exchange *ex, const struct cm_instance *in)
{
    struct cm_pool_counts counts;
    size_t used = in == exchange_instance(ex) ? 2 : 1;

    cm_pool_count(ex->gw->pool, in->name, &counts);
    return counts.state[CM_CRED_STATE_OK] > used ||
           (in->adapter->keyless && in->n_secrets == 0 && counts.total == 1);
}

/* What the rival would be asked with, of the target at that place. */
static int ask_for(struct exchange *ex, struct hedge *h, struct cm_pool_ask *ask)
{
    size_t target = ex->target;
    struct cm_str dropped = ex->dropped;
    struct cm_err err = {0};
    int rc;

    ex->target = h->target;
    ex->dropped = CM_STR_NONE;
    rc = attempt_ask(ex, ask, &err);
    h->dropped = ex->dropped;
    ex->target = target;
    ex->dropped = dropped;
    ask->affinity = 0; /* the conversation stays where it is */
    ask->begins = false;
    return rc;
}

static struct cm_lease *lease_at(struct exchange *ex, struct hedge *h, struct cm_tried *tried)
{
    const struct cm_target *t = &ex->targets[h->target];
    const struct cm_instance *in = &ex->snap->instances[t->provider];
    struct cm_pool_ask ask;
    struct cm_err err = {0};
    uint64_t wait_ms;

    if (makes_pictures(t) || !spares_one(ex, in) ||
        !health_admits(ex->gw->health, in->name, cm_loop_now_ms(ex->gw->host->loop), &wait_ms) ||
        ask_for(ex, h, &ask) < 0)
        return NULL;
    ask.tried = tried;
    return cm_pool_lease(ex->gw->pool, &ask, &err);
}

void hedge_due(void *arg)
{
    struct exchange *ex = arg;
    struct cm_tried *tried;
    struct cm_lease *lease = NULL;
    struct hedge *h;

    if (!ex->attempt || ex->hedge || ex->first_us || ex->abandoned || !ex->req ||
        ex->gw->hedge_purse < 1)
        return;
    tried = CM_ARENA_NEW(&ex->arena, struct cm_tried);
    if (ex->tried)
        *tried = *ex->tried;
    if (tried->n < CM_TRIED_MAX)
        tried->ids[tried->n++] = attempt_credential(ex->attempt);
    h = CM_ARENA_NEW(&ex->arena, struct hedge);
    for (h->target = ex->target; h->target < ex->n_targets && !lease; h->target++)
        lease = lease_at(ex, h, tried);
    if (!lease)
        return;
    h->target--;
    h->said = CM_ARENA_ARRAY(&ex->arena, struct cm_event, SAID_MAX);
    ex->hedge = h;
    ex->gw->hedge_purse -= 1;
    ex->attempts++;
    h->rival = attempt_open(ex, lease, h->target);
    gateway_pool_moved(ex->gw);
    cm_debug("hedge", CM_PRI ": attempt %u runs beside the first", CM_ARG(ex->id), ex->attempts);
}

/* ---- the rival ---- */

bool hedge_is_rival(const struct exchange *ex, const struct attempt *a)
{
    return ex->hedge && ex->hedge->rival == a;
}

void hedge_dropped(struct exchange *ex, struct cm_str field)
{
    struct hedge *h = ex->hedge;

    h->dropped = attempt_dropped(ex, h->dropped, field);
}

static void end_rival(struct exchange *ex, const struct cm_err *verdict)
{
    struct attempt *a = ex->hedge->rival;

    ex->hedge->rival = NULL;
    report_hedge(ex->gw, attempt_provider(a), false);
    report_waste(ex->gw, attempt_waste(a));
    if (verdict)
        attempt_end(a, verdict, true, false);
    else
        attempt_lose(a);
}

bool hedge_runs(const struct exchange *ex)
{
    return ex->hedge && ex->hedge->rival;
}

void hedge_cancel(struct exchange *ex)
{
    cm_deadline_clear(ex->gw->host->loop, &ex->hedge_due);
    if (hedge_runs(ex))
        end_rival(ex, NULL);
}

/* The rival is the exchange's attempt from now on, and what it has said is said. The other one is gone, and nothing of it shows. */
void hedge_take_over(struct exchange *ex)
{
    struct hedge *h = ex->hedge;
    struct attempt *a = h->rival;

    CM_ASSERT(a && !ex->attempt);
    h->rival = NULL;
    ex->attempt = a;
    ex->target = h->target;
    ex->target_asked = true;
    ex->dropped = h->dropped;
    ex->relay = attempt_relays(a);
    ex->n_passed = 0;
    ex->told = NULL;
    ex->answer_type = CM_STR_NONE;
    ex->answer_status = 0;
    report_hedge(ex->gw, attempt_provider(a), true);
    for (size_t i = 0; i < h->n_said && ex->attempt == a; i++)
        exchange_event(ex, &h->said[i]);
}

void hedge_event(struct exchange *ex, const struct cm_event *ev)
{
    struct hedge *h = ex->hedge;
    struct attempt *rival = h->rival;

    if (cm_event_semantic(ev)) {
        exchange_lose_attempt(ex);
        hedge_take_over(ex);
        if (ex->attempt == rival)
            exchange_event(ex, ev);
    } else if (h->n_said < SAID_MAX) {
        h->said[h->n_said++] = cm_event_copy(&ex->arena, ev);
    } else {
        end_rival(ex, NULL);
    }
}

void hedge_ended(struct exchange *ex, const struct cm_err *err)
{
    struct cm_err empty;

    if (!err)
        cm_fail(&empty, CM_ERR_UPSTREAM_DOWN, "it ended without an answer");
    end_rival(ex, err ? err : &empty);
}
