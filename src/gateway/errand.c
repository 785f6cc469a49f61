/* Errands: runs of an account outside of an answer. Its models, a new token, whether it still works.
 *
 * An errand owns what its run borrows: the snapshot, and a copy of the credential (or, for lists, a lease like any attempt). Its end is told to who asked
 * from on_end; the memory goes when the run has let go of the credential. */
#include "gateway_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define TOGETHER_MAX                                                                               \
    16 /* refreshes and probes: a thousand accounts may want one at the same time */

#define FAREWELL_MS 5000

#define ERRAND_KINDS(X)                                                                            \
    X(MODELS, "models") X(REFRESH, "refresh") X(PROBE, "probe") X(CHECK, "check")
enum errand_kind {
#define X(name, text) ERRAND_##name,
    ERRAND_KINDS(X)
#undef X
};

struct errand {
    struct cm_list link; /* in gw->errands */
    enum errand_kind kind;
    struct cm_gateway *gw;
    struct snapshot *snap; /* a reference */
    const struct cm_instance *in;
    struct cm_lease *lease; /* MODELS; else NULL */
    const struct cm_flow *flow;
    bool waits;         /* for its turn: too many are under way */
    struct cm_run *run; /* NULL before it runs, and once it has been closed */
    uint64_t cred_id;
    struct cm_buf secret, token, proxy, label, isolation; /* copies of the credential's; wiped */
    struct listed *found; /* MODELS: owned until it is handed over */
    struct cm_buf new_token, quota;
    int64_t expires_ms; /* Unix */
    uint64_t began_ms;
    struct cm_err verdict;          /* cls NONE = well */
    cm_gateway_checked_fn *checked; /* CHECK */
    void *checked_arg;
};

static const char *kind_name(enum errand_kind kind)
{
    static const char *const names[] = {
#define X(name, text) text,
        ERRAND_KINDS(X)
#undef X
    };

    return names[kind];
}

static void wiped(struct cm_buf *b)
{
    if (b->p)
        cm_wipe(b->p, b->n);
    cm_buf_clear(b);
}

static void errand_free(struct errand *e)
{
    cm_list_remove(&e->link);
    wiped(&e->secret);
    wiped(&e->token);
    wiped(&e->proxy);
    wiped(&e->new_token);
    cm_buf_clear(&e->label);
    cm_buf_clear(&e->isolation);
    cm_buf_clear(&e->quota);
    listed_free(e->found);
    snapshot_unref(e->snap);
    free(e);
}

static void next_errand(struct cm_gateway *gw);

static void on_released(void *arg)
{
    struct errand *e = arg;
    struct cm_gateway *gw = e->gw;

    if (e->lease)
        cm_lease_give_back(e->lease, e->verdict.cls ? &e->verdict : NULL, 0, 0);
    errand_free(e);
    next_errand(gw);
    gateway_pool_moved(gw);
    gateway_attempt_over(gw);
}

static void errand_run(struct errand *e);

/* What the credential has was refused, or is not there yet: its secret may be good to log in. */
static bool should_log_in(const struct errand *e, const struct cm_err *err)
{
    return e->kind == ERRAND_REFRESH && e->flow == &e->in->adapter->refresh &&
           e->in->adapter->login.step && !e->gw->closing &&
           (err->cls == CM_ERR_EXPIRED || err->cls == CM_ERR_INVALID_CREDENTIAL);
}

/* The run that could not refresh is over. */
static void on_ready_to_log_in(void *arg)
{
    struct errand *e = arg;

    if (e->gw->closing) {
        on_released(e);
        return;
    }
    e->flow = &e->in->adapter->login;
    errand_run(e);
}

static void on_model(void *arg, const struct cm_model_row *row)
{
    struct errand *e = arg;

    if (e->found)
        listed_add(e->found, row);
}

static void on_token(void *arg, struct cm_str token, int64_t expires_unix_ms)
{
    struct errand *e = arg;

    cm_buf_reset(&e->new_token);
    cm_buf_append(&e->new_token, token);
    e->expires_ms = expires_unix_ms;
}

static void on_quota(void *arg, struct cm_str json)
{
    struct errand *e = arg;

    cm_buf_reset(&e->quota);
    cm_buf_append(&e->quota, json);
}

static void on_event(void *arg, const struct cm_event *ev)
{
    (void)arg;
    (void)ev; /* an errand gives no answer */
}

static void keep_token(struct errand *e)
{
    if (e->new_token.n > 0)
        creds_store_token(e->gw, e->cred_id, cm_buf_str(&e->secret), cm_buf_str(&e->new_token),
                          e->expires_ms);
}

static void refreshed(struct errand *e, const struct cm_err *err)
{
    enum cm_err_cred verdict = err ? cm_err_info(err->cls)->cred : CM_CRED_KEEP;

    if (!err && e->new_token.n > 0)
        keep_token(e);
    else if (verdict == CM_CRED_DISABLE || verdict == CM_CRED_REFRESH)
        creds_token_refused(e->gw, e->cred_id, cm_buf_str(&e->secret), cm_buf_str(&e->token), err);
    else
        cm_pool_refreshed(e->gw->pool, e->cred_id, CM_STR_NONE, e->expires_ms, err);
}

/* A platform that is asked may renew the session, too. */
static void probed(struct errand *e, const struct cm_err *err)
{
    struct cm_gateway *gw = e->gw;

    keep_token(e);
    creds_quota(gw, e->cred_id, NULL, cm_buf_str(&e->quota));
    cm_pool_probed(gw->pool, e->cred_id, CM_STR_NONE, err);
}

/* What was learned goes to who asked. */
static void tell(struct errand *e, const struct cm_err *err)
{
    struct cm_gateway *gw = e->gw;

    switch (e->kind) {
    case ERRAND_MODELS:
        lists_found(gw, e->in, err ? NULL : e->found);
        if (!err)
            e->found = NULL;
        break;
    case ERRAND_REFRESH:
        refreshed(e, err);
        break;
    case ERRAND_PROBE:
        probed(e, err);
        break;
    case ERRAND_CHECK:
        if (!err)
            cm_pool_reset(gw->pool, e->cred_id);
        probed(e, err);
        e->checked(e->checked_arg, !err, err ? err->msg : "the platform accepts it",
                   (int64_t)(cm_loop_now_ms(gw->host->loop) - e->began_ms));
        break;
    }
    gateway_pool_moved(gw);
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct errand *e = arg;
    struct cm_run *run = e->run;

    if (err && should_log_in(e, err)) {
        e->run = NULL;
        cm_run_close(run, on_ready_to_log_in, e);
        return;
    }
    if (err) {
        e->verdict = *err;
        creds_mask(e->gw, &e->verdict, e->in->name, cm_buf_str(&e->secret), cm_buf_str(&e->token));
        cm_info("errand", "%s of %s failed: %s", kind_name(e->kind),
                e->label.n ? cm_buf_z(&e->label) : "-", e->verdict.msg);
    }
    if (!e->gw->closing)
        tell(e, err ? &e->verdict : NULL);
    else if (!err)
        keep_token(e); /* the one before may be worthless by now */
    e->run = NULL;
    cm_run_close(run, on_released, e);
}

static const struct cm_run_cb errand_cb = {.on_event = on_event, .on_end = on_end};

static struct errand *errand_new(struct cm_gateway *gw, enum errand_kind kind,
                                 const struct cm_instance *in)
{
    struct errand *e = CM_NEW(struct errand);

    e->kind = kind;
    e->gw = gw;
    e->snap = snapshot_ref(gw->now);
    e->in = in;
    e->began_ms = cm_loop_now_ms(gw->host->loop);
    cm_list_push(&gw->errands, &e->link);
    gw->attempts_out++;
    return e;
}

static void errand_run(struct errand *e)
{
    struct cm_run_setup setup = {.flow = e->flow,
                                 .instance = e->in,
                                 .cred = {.id = e->cred_id,
                                          .secret = cm_buf_str(&e->secret),
                                          .token = cm_buf_str(&e->token),
                                          .label = cm_buf_str(&e->label),
                                          .isolation = cm_buf_str(&e->isolation),
                                          .proxy = cm_buf_str(&e->proxy)},
                                 .id = cm_str_of(kind_name(e->kind)),
                                 .on_model = on_model,
                                 .on_token = on_token,
                                 .on_quota = on_quota};

    e->waits = false;
    e->run = cm_run_open(e->gw->host, &setup, &errand_cb, e);
}

/* What the pool asks for may be much at once, and takes turns. */
static bool takes_turns(const struct errand *e)
{
    return e->kind == ERRAND_REFRESH || e->kind == ERRAND_PROBE;
}

static void errand_go(struct errand *e, const struct cm_flow *flow)
{
    size_t together = 0;

    e->flow = flow;
    CM_LIST_EACH(&e->gw->errands, link)
    {
        const struct errand *other = CM_LIST_ITEM(link, struct errand, link);

        together += takes_turns(other) && !other->waits;
        if (together > TOGETHER_MAX) /* it is one of them */
            break;
    }
    if (takes_turns(e) && together > TOGETHER_MAX)
        e->waits = true;
    else
        errand_run(e);
}

/* The oldest first. */
static void next_errand(struct cm_gateway *gw)
{
    size_t together = 0;

    CM_LIST_EACH(&gw->errands, link)
    {
        struct errand *e = CM_LIST_ITEM(link, struct errand, link);

        if (gw->closing || together == TOGETHER_MAX)
            return;
        together += takes_turns(e);
        if (e->waits)
            errand_run(e);
    }
}

static void copy_cred(struct errand *e, const struct cm_cred_info *cred)
{
    e->cred_id = cred->id;
    cm_buf_append(&e->secret, cred->secret);
    cm_buf_append(&e->token, cred->token);
    cm_buf_append(&e->label, cred->label);
    cm_buf_append(&e->proxy, cred->proxy);
    cm_buf_append(&e->isolation, cred->isolation);
}

void errand_refresh(void *arg, const struct cm_cred_info *cred)
{
    struct cm_gateway *gw = arg;
    const struct cm_instance *in = cm_gateway_instance(gw, cred->provider);
    struct errand *e;

    CM_ASSERT(in && cm_provider_makes_tokens(in->adapter)); /* else the pool does not ask */
    e = errand_new(gw, ERRAND_REFRESH, in);
    copy_cred(e, cred);
    errand_go(e, in->adapter->refresh.step ? &in->adapter->refresh : &in->adapter->login);
}

void errand_probe(void *arg, const struct cm_cred_info *cred)
{
    struct cm_gateway *gw = arg;
    const struct cm_instance *in = cm_gateway_instance(gw, cred->provider);
    struct errand *e;

    CM_ASSERT(in && in->adapter->probe.step);
    e = errand_new(gw, ERRAND_PROBE, in);
    copy_cred(e, cred);
    errand_go(e, &in->adapter->probe);
}

static bool makes_token(const struct cm_gateway *gw, uint64_t cred_id)
{
    CM_LIST_EACH(&gw->errands, link)
    {
        const struct errand *e = CM_LIST_ITEM(link, struct errand, link);

        if (e->cred_id == cred_id && e->kind == ERRAND_REFRESH)
            return true;
    }
    return false;
}

/* Where no call of the platform tells whether an account works, making a token does; one at a time. */
static const struct cm_flow *check_flow(const struct cm_gateway *gw, const struct cm_instance *in,
                                        uint64_t cred_id, struct cm_str *why)
{
    *why = CM_S("there is no such credential");
    if (!in)
        return NULL;
    if (in->adapter->probe.step)
        return &in->adapter->probe;
    *why = CM_S("this platform has no check that costs nothing");
    if (!in->adapter->refresh.step)
        return NULL;
    *why = in->lacks.n > 0 ? in->lacks : CM_S("its token is being renewed just now: ask again");
    return in->lacks.n > 0 || makes_token(gw, cred_id) ? NULL : &in->adapter->refresh;
}

void cm_gateway_check_cred(struct cm_gateway *gw, uint64_t id, cm_gateway_checked_fn *fn, void *arg)
{
    struct cm_cred_info cred;
    const struct cm_instance *in =
        cm_pool_get(gw->pool, id, &cred) ? cm_gateway_instance(gw, cred.provider) : NULL;
    struct cm_str why;
    const struct cm_flow *flow = check_flow(gw, in, id, &why);
    struct cm_err err = {0};
    struct errand *e;

    if (!flow) {
        cm_fail(&err, CM_ERR_BAD_REQUEST, CM_PRI, CM_ARG(why));
        fn(arg, false, err.msg, 0);
        return;
    }
    e = errand_new(gw, ERRAND_CHECK, in);
    e->checked = fn;
    e->checked_arg = arg;
    copy_cred(e, &cred);
    errand_go(e, flow);
}

bool errand_under_way(struct cm_gateway *gw, struct cm_str provider)
{
    CM_LIST_EACH(&gw->errands, link)
    {
        struct errand *e = CM_LIST_ITEM(link, struct errand, link);

        if (e->kind == ERRAND_MODELS && cm_str_eq(e->in->name, provider))
            return true;
    }
    return false;
}

void errand_models(struct cm_gateway *gw, const struct cm_instance *in)
{
    struct cm_pool_ask ask = {.provider = in->name, .uncounted = true};
    struct cm_err err = {0};
    struct cm_lease *lease = cm_pool_lease(gw->pool, &ask, &err);
    struct errand *e;

    if (!lease) {
        lists_found(gw, in, NULL);
        return;
    }
    e = errand_new(gw, ERRAND_MODELS, in);
    e->lease = lease;
    e->found = listed_new(in->name);
    copy_cred(e, &(struct cm_cred_info){.id = cm_lease_id(lease),
                                        .secret = cm_lease_secret(lease),
                                        .token = cm_lease_token(lease),
                                        .label = cm_lease_label(lease),
                                        .proxy = cm_lease_proxy(lease),
                                        .isolation = cm_lease_isolation(lease)});
    errand_go(e, &in->adapter->models_list);
}

static void stop(struct errand *e)
{
    struct cm_run *run = e->run;

    e->run = NULL;
    if (e->kind == ERRAND_CHECK && e->checked)
        e->checked(e->checked_arg, false, "the gateway is shutting down", 0);
    e->checked = NULL;
    if (run)
        cm_run_close(run, on_released, e);
    else if (e->waits)
        on_released(e);
}

void errands_stop(struct cm_gateway *gw)
{
    CM_LIST_EACH(&gw->errands, link)
    {
        struct errand *e = CM_LIST_ITEM(link, struct errand, link);

        if (e->kind != ERRAND_REFRESH || e->waits)
            stop(e);
    }
    if (!cm_list_empty(&gw->errands)) /* a token may be on its way that replaces the one we have */
        cm_deadline_set(gw->host->loop, &gw->farewell,
                        cm_loop_now_ms(gw->host->loop) + FAREWELL_MS);
}

void errands_farewell(void *arg)
{
    struct cm_gateway *gw = arg;

    CM_LIST_EACH(&gw->errands, link)
    stop(CM_LIST_ITEM(link, struct errand, link));
}
