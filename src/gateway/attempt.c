/* One try of an exchange with one credential: lease, run, and the lease's way back.
 *
 * The attempt outlives the exchange when a platform is tidied up after the client has left: it holds the lease and the snapshot until then. */
#include "gateway_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

struct attempt {
    struct exchange *ex; /* NULL once the exchange has let go */
    struct cm_gateway *gw;
    struct snapshot *snap; /* a reference */
    struct cm_lease *lease;
    struct cm_run *run;
    struct cm_err *verdict; /* owned; NULL = no blame */
};

static void on_released(void *arg)
{
    struct attempt *a = arg;
    struct cm_gateway *gw = a->gw;

    cm_lease_give_back(a->lease, a->verdict);
    snapshot_unref(a->snap);
    free(a->verdict);
    free(a);
    gateway_attempt_over(gw);
}

static void on_event(void *arg, const struct cm_event *ev)
{
    struct attempt *a = arg;

    exchange_event(a->ex, ev);
}

static void on_batch(void *arg)
{
    struct attempt *a = arg;

    exchange_flush(a->ex);
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct attempt *a = arg;

    exchange_attempt_ended(a->ex, err);
}

static const struct cm_run_cb run_cb = {
    .on_event = on_event, .on_batch = on_batch, .on_end = on_end};

int attempt_begin(struct exchange *ex, struct cm_err *err)
{
    const struct cm_target *target = &ex->targets[ex->target];
    const struct cm_instance *in = &ex->snap->instances[target->provider];
    bool relay = in->adapter->relays && in->adapter->relays(in, ex->chat->dialect);
    struct cm_lease *lease;
    struct cm_run_setup setup;
    struct attempt *a;

    if (!relay && ex->chat->untranslatable.cls != CM_ERR_NONE) {
        *err = ex->chat->untranslatable;
        return -1;
    }
    lease = cm_pool_lease(ex->gw->pool, in->name, target->model, ex->tried, err);
    if (!lease)
        return -1;
    a = CM_NEW(struct attempt);
    a->ex = ex;
    a->gw = ex->gw;
    a->snap = snapshot_ref(ex->snap);
    a->lease = lease;
    setup = (struct cm_run_setup){.flow = &in->adapter->chat,
                                  .instance = in,
                                  .chat = ex->chat,
                                  .target = target,
                                  .cred = {.id = cm_lease_id(lease),
                                           .secret = cm_lease_secret(lease),
                                           .label = cm_lease_label(lease),
                                           .isolation = cm_lease_isolation(lease)},
                                  .id = ex->id};
    ex->gw->attempts_out++;
    ex->attempt = a;
    ex->relay = relay;
    a->run = cm_run_open(ex->gw->host, &setup, &run_cb, a);
    return 0;
}

void attempt_end(struct attempt *a, const struct cm_err *verdict)
{
    struct cm_run *run = a->run;

    report_attempt(a->gw, a->ex->snap->instances[a->ex->targets[a->ex->target].provider].name,
                   verdict);
    if (verdict) {
        a->verdict = cm_alloc(sizeof(*verdict));
        *a->verdict = *verdict;
    }
    a->ex = NULL;
    a->run = NULL;
    cm_run_close(run, on_released, a);
}

uint64_t attempt_credential(const struct attempt *a)
{
    return cm_lease_id(a->lease);
}

void attempt_pause(struct attempt *a, bool paused)
{
    if (paused)
        cm_run_pause(a->run);
    else
        cm_run_resume(a->run);
}
