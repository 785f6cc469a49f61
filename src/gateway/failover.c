/* Failover: the next credential, a retry after a pause, the next target, a place in line; and at last an error. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#define BACKOFF_FIRST_MS 500
#define BACKOFF_MAX_MS 8000
#define SKIPPED_MAX 32u

static struct cm_loop *loop_of(const struct exchange *ex)
{
    return ex->gw->host->loop;
}

/* What is left of the time after which the target's server wants to be asked again. */
static uint64_t told_wait_ms(const struct exchange *ex)
{
    const uint64_t now_ms = cm_loop_now_ms(loop_of(ex));

    return ex->again_ms > now_ms ? ex->again_ms - now_ms : 0;
}

/* For the request log: the current target is left without an attempt. `err`: why; empty when retry.credentials is used up. */
static void note_skipped(struct exchange *ex, const struct cm_err *err)
{
    struct cm_buf *out = &ex->skipped;

    if (ex->target_asked || ex->n_skipped == SKIPPED_MAX)
        return;
    cm_buf_append(out, ex->n_skipped++ ? CM_S(",{\"provider\":") : CM_S("{\"provider\":"));
    cm_json_put_str(out, exchange_instance(ex)->name);
    cm_buf_append(out, CM_S(",\"model\":"));
    cm_json_put_str(out, ex->targets[ex->target].model);
    cm_buf_append(out, CM_S(",\"reason\":"));
    cm_json_put_z(out, err->cls == CM_ERR_NONE
                           ? "no further attempt: as many as retry.credentials allows were made"
                           : err->msg);
    cm_buf_put(out, '}');
}

static void aim_at(struct exchange *ex, size_t target)
{
    ex->target = target;
    ex->target_asked = false;
    ex->retries = 0;
    ex->again_ms = 0;
}

/* Every credential and target was tried. `err`: why the last lease was refused. */
static void give_up(struct exchange *ex, const struct cm_err *err)
{
    struct cm_err told = ex->last ? *ex->last : *err;

    note_skipped(ex, err);
    /* dialects with statuses of their own have words for this */
    if (!ex->last && err->cls == CM_ERR_NO_CREDENTIAL && err->retry_after_s > 0 &&
        !ex->surface->error_status)
        cm_fail(&told, CM_ERR_RATE_LIMITED, "%s",
                err->msg); /* to the client a limit like any other */
    if (ex->limited && err->retry_after_s > 0)
        told = *ex->limited; /* of several reasons the one that ends by itself is the most useful */
    if (err->retry_after_s > 0 && cm_err_info(told.cls)->cred == CM_CRED_COOL)
        told.retry_after_s = err->retry_after_s;
    if (cm_err_info(told.cls)->next == CM_NEXT_RETRY) {
        const int left_s = (int)((told_wait_ms(ex) + 999) / 1000);

        told.retry_after_s = told.retry_after_s > left_s ? told.retry_after_s : left_s;
    }
    exchange_fail_spent(ex, &told);
}

static void take_lease(struct exchange *ex, struct cm_lease *lease)
{
    attempt_begin(ex, lease);
    ex->target_asked = true;
    gateway_pool_moved(ex->gw);
    ex->attempt_us = cm_mono_us();
    if (ex->asked_us == 0)
        ex->asked_us = ex->attempt_us;
    ex->attempts++;
    ex->rotated++;
    ex->n_passed = 0;
    ex->told = NULL;
    hedge_arm(ex);
    ex->answer_type = CM_STR_NONE;
    ex->answer_status = 0;
}

static void on_turn(void *arg, struct cm_lease *lease, const struct cm_err *err)
{
    struct exchange *ex = arg;

    ex->waiting = NULL;
    if (lease)
        take_lease(ex, lease);
    else
        give_up(ex, err);
}

/* All are busy, or one returns soon: waits in line for what is left of retry.max_wait. */
static bool stand_in_line(struct exchange *ex)
{
    uint64_t now_ms = cm_loop_now_ms(loop_of(ex));
    int64_t left_ms;
    struct cm_pool_ask ask;
    struct cm_err err = {0};

    if (ex->wait_began_ms == 0)
        ex->wait_began_ms = now_ms;
    left_ms = ex->snap->config->retry.max_wait_ms - (int64_t)(now_ms - ex->wait_began_ms);
    if (left_ms <= 0 || attempt_ask(ex, &ask, &err) < 0)
        return false;
    ask.tried =
        NULL; /* what was limited may be tried again when its time has come; what has not changed, the pool refuses */
    ex->waiting = cm_pool_wait(ex->gw->pool, &ask, left_ms, on_turn, ex, &err);
    gateway_pool_moved(ex->gw);
    return ex->waiting != NULL;
}

static void wait_for(struct exchange *ex, uint64_t ms)
{
    if (ex->tried)
        ex->tried->n =
            0; /* what has changed meanwhile may be tried again; what has not, the pool refuses */
    cm_deadline_set(loop_of(ex), &ex->wait, cm_loop_now_ms(loop_of(ex)) + ms);
}

/* A pause that doubles, with up to a quarter taken off at random, so that clients do not come back in step. */
static uint64_t backoff_ms(struct exchange *ex)
{
    uint64_t ms = BACKOFF_FIRST_MS << (ex->retries < 5 ? ex->retries : 5);

    ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    return ms - cm_rng_below(&ex->gw->rng, ms / 4);
}

/* How long until the target may be asked again: a back-off, or longer when it has told so. false: longer than anybody waits. */
static bool pause_before_retry(struct exchange *ex, uint64_t *out)
{
    const struct cm_config *c = ex->snap->config;
    const uint64_t backoff = backoff_ms(ex), told = told_wait_ms(ex);
    const int64_t longest = ex->background ? c->resume.job_wait_ms : c->retry.max_wait_ms;

    *out = told > backoff ? told : backoff;
    return told <= (uint64_t)longest;
}

/* A job has time. It asks again and again instead of standing in line, where clients wait who have not. */
static bool bide(struct exchange *ex, const struct cm_err *err)
{
    const uint64_t now_ms = cm_loop_now_ms(loop_of(ex));

    if (!ex->background || err->retry_after_s <= 0)
        return false;
    if (ex->wait_began_ms == 0)
        ex->wait_began_ms = now_ms;
    if (now_ms - ex->wait_began_ms >= (uint64_t)ex->snap->config->resume.job_wait_ms)
        return false;
    aim_at(ex, 0);
    cm_buf_clear(&ex->skipped); /* told of the last round alone */
    ex->n_skipped = 0;
    wait_for(ex, 250 + cm_rng_below(&ex->gw->rng, 500));
    return true;
}

/* No credential of this target is left: pause and retry, wait for one that returns soon, go to the next target, or give up. */
static void target_spent(struct exchange *ex, const struct cm_err *err)
{
    uint64_t pause_ms;

    if (ex->last && cm_err_info(ex->last->cls)->next == CM_NEXT_RETRY &&
        ex->retries < (unsigned)ex->snap->config->retry.retries &&
        pause_before_retry(ex, &pause_ms)) {
        wait_for(ex, pause_ms);
        ex->retries++;
        return;
    }
    if (ex->target + 1 < ex->n_targets) {
        note_skipped(ex, err);
        aim_at(ex, ex->target + 1);
        if (ex->tried)
            ex->tried->n = 0;
        exchange_next(ex);
        return;
    }
    if (bide(ex, err) || (!ex->background && err->cls == CM_ERR_NO_CREDENTIAL &&
                          err->retry_after_s > 0 && stand_in_line(ex)))
        return;
    give_up(ex, err);
}

/* A provider that fails all the time gets none: its breaker is open. -1: *err tells when to come back. */
static int admitted(const struct exchange *ex, struct cm_err *err)
{
    struct cm_str provider = exchange_instance(ex)->name;
    uint64_t wait_ms;

    if (health_admits(ex->gw->health, provider, cm_loop_now_ms(loop_of(ex)), &wait_ms))
        return 0;
    cm_fail(err, CM_ERR_OVERLOADED,
            CM_PRI " fails too often now and gets no requests; the next one is tried in %llu s",
            CM_ARG(provider), (unsigned long long)(wait_ms + 999) / 1000);
    err->retry_after_s = (int)((wait_ms + 999) / 1000);
    return -1;
}

/* The next credential, without a pause; a retry after a pause is one attempt, not another round through the pool. */
void exchange_next(struct exchange *ex)
{
    struct cm_pool_ask ask;
    struct cm_lease *lease = NULL;
    struct cm_err err = {0};

    if (ex->rotated < (unsigned)ex->snap->config->retry.credentials + ex->retries &&
        admitted(ex, &err) == 0 && attempt_ask(ex, &ask, &err) == 0)
        lease = cm_pool_lease(ex->gw->pool, &ask, &err);
    if (!lease && ex->only_credential && cm_chat_last(ex->chat, CM_ROLE_ASSISTANT)) {
        ex->only_credential = 0; /* all of the conversation is there: another account can be told */
        exchange_next(ex);
        return;
    }
    if (lease)
        take_lease(ex, lease);
    else
        target_spent(ex, &err);
}

/* A time that its server told holds for the target, whichever account it was told. */
static void note_when(struct exchange *ex, const struct cm_err *err)
{
    const uint64_t told_ms = cm_loop_now_ms(loop_of(ex)) + (uint64_t)err->retry_after_s * 1000;

    if (cm_err_info(err->cls)->next == CM_NEXT_RETRY && err->retry_after_s > 0 &&
        told_ms > ex->again_ms)
        ex->again_ms = told_ms;
}

/* Remembers why, and that this credential has had its turn. */
static void note_failure(struct exchange *ex, const struct cm_err *err)
{
    if (!ex->last) {
        ex->last = CM_ARENA_NEW(&ex->arena, struct cm_err);
        ex->tried = CM_ARENA_NEW(&ex->arena, struct cm_tried);
    }
    *ex->last = *err;
    attempt_mask(ex->attempt, ex->last);
    note_when(ex, ex->last);
    err = ex->last;
    if (err->cls == CM_ERR_RATE_LIMITED || err->cls == CM_ERR_QUOTA_EXHAUSTED) {
        ex->limited = ex->limited ? ex->limited : CM_ARENA_NEW(&ex->arena, struct cm_err);
        *ex->limited = *err;
    }
    /* One that is being refreshed may be waited for. */
    if (ex->tried->n < CM_TRIED_MAX &&
        !(err->cls == CM_ERR_EXPIRED && cm_provider_makes_tokens(exchange_instance(ex)->adapter)))
        ex->tried->ids[ex->tried->n++] = attempt_credential(ex->attempt);
    cm_debug("exchange", CM_PRI ": attempt %u failed: %s", CM_ARG(ex->id), ex->attempts, err->msg);
}

/* A platform may talk about the picture instead of making it, or leave a vector out, and call that an answer. */
static bool lacks_something(const struct exchange *ex, struct cm_err *err)
{
    if (ex->relay)
        return false;
    if (cm_task_makes_media(ex->chat->task) && ex->usage.images == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered without a picture or video",
                CM_ARG(exchange_instance(ex)->name));
        return true;
    }
    if (ex->chat->task == CM_TASK_EMBEDDING &&
        !cm_answer_has_vectors(&ex->answer, ex->chat->n_inputs)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered with fewer vectors than texts",
                CM_ARG(exchange_instance(ex)->name));
        return true;
    }
    return false;
}

/* The prompt was too long: the route may know a model that takes more, once. */
static bool go_larger(struct exchange *ex)
{
    struct cm_target *larger;
    size_t n;

    if (ex->enlarged)
        return false;
    n = cm_models_larger(ex->snap->models, &ex->arena, ex->targets[0].route, &larger);
    if (n == 0)
        return false;
    ex->enlarged = true;
    ex->targets = larger;
    ex->n_targets = n;
    aim_at(ex, 0);
    ex->tried->n = 0;
    return true;
}

void exchange_attempt_ended(struct exchange *ex, const struct cm_err *err)
{
    struct cm_err empty;
    bool retries_count,
        told; /* the client has something of it, or left, or it must not be done twice: no second try */

    if (!err && lacks_something(ex, &empty))
        err = &empty;
    if (!err) {
        hedge_cancel(ex);
        exchange_answered(ex);
        return;
    }
    note_failure(ex, err);
    err = ex->last;
    /* A retry of the same request that fails again says nothing new about the account. */
    retries_count = ex->retries == 0 || cm_err_info(err->cls)->cred != CM_CRED_COUNT;
    exchange_end_attempt(ex, err, retries_count, false);
    told = ex->committed || ex->abandoned || (!ex->req && !ex->chat->stream) ||
           (cm_err_info(err->cls)->next == CM_NEXT_RETRY && pass_only_once(ex));
    if (!told && err->cls == CM_ERR_CONTEXT_LENGTH && go_larger(ex)) {
        exchange_forget_attempt(ex);
        exchange_next(ex);
        return;
    }
    if (told || cm_err_info(err->cls)->next == CM_NEXT_STOP) {
        exchange_fail(ex, err);
        return;
    }
    exchange_forget_attempt(ex);
    if (hedge_runs(ex)) {
        hedge_take_over(ex);
        return;
    }
    if (ex->retries > 0 && cm_err_info(err->cls)->next == CM_NEXT_RETRY)
        target_spent(ex, &(struct cm_err){0});
    else
        exchange_next(ex);
}
