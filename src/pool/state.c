/* The state of a credential: every change, and the verdicts that cause them.
 *
 * Limits (cooling, exhausted) are remembered beside the state, so that a refresh or a login in between does not lift them, and only ever move later. */
#include "pool_int.h"

#include "chatmux/base/log.h"

#include <stdlib.h>

const char lacks_reason[] = "config";

#define COOLDOWN_MS MINUTE_MS     /* of a provider that names none */
#define EXHAUSTED_MS HOUR_MS      /* a quota whose reset nobody told */
#define DOUBLED_MAX_MS HOUR_MS    /* doubling ends here; a time that was told may be longer */
#define MODEL_MS (10 * MINUTE_MS) /* a model that is not available */
#define SERIES_N 3                /* so many failures … */
#define SERIES_MS MINUTE_MS       /* … within it cool for as long */
#define FRESH_MS (2 * MINUTE_MS)  /* a token that is refused so soon was not made for serving */
#define SERIES_QUIET_MS (10 * MINUTE_MS) /* after so long without, doubling begins anew */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool serves(const struct cred *c)
{
    return c->state == CM_CRED_STATE_OK || c->state == CM_CRED_STATE_HALF_OPEN;
}

static bool limited(const struct cred *c)
{
    return c->state == CM_CRED_STATE_COOLING || c->state == CM_CRED_STATE_EXHAUSTED;
}

/* ---- places ---- */

void cred_take(struct cred *c)
{
    struct provider *p = c->provider;

    if (!p)
        return;
    c->was = c->place;
    switch (c->place) {
    case PLACE_NONE:
        break;
    case PLACE_FIT:
        tree_del(&c->group->fit, c);
        break;
    case PLACE_BUSY:
        tree_del(&p->busy, c);
        break;
    case PLACE_RETURNS:
        heap_del(&p->returns, &c->ret);
        break;
    }
    c->place = PLACE_NONE;
}

static enum place place_of(const struct cred *c, uint64_t *until_ms)
{
    const struct provider *p = c->provider;
    int64_t cap = c->max_inflight > 0 ? c->max_inflight : p->max_inflight;

    *until_ms = c->until_ms;
    switch (c->state) {
    case CM_CRED_STATE_HALF_OPEN:
        if (c->trials > 0)
            return PLACE_BUSY;
        break;
    case CM_CRED_STATE_OK:
        break;
    case CM_CRED_STATE_REFRESHING:
        return c->until_ms ? PLACE_RETURNS : PLACE_BUSY;
    case CM_CRED_STATE_COOLING:
    case CM_CRED_STATE_EXHAUSTED:
        return PLACE_RETURNS;
    case CM_CRED_STATE_NEEDS_LOGIN:
    case CM_CRED_STATE_VERIFY:
    case CM_CRED_STATE_DISABLED:
    case CM_CRED_STATES_N:
        return PLACE_NONE;
    }
    if ((cap > 0 && c->inflight >= cap) || month_is_out(c))
        return PLACE_BUSY;
    *until_ms = c->ready_ms;
    return c->ready_ms > p->pool->now_ms ? PLACE_RETURNS : PLACE_FIT;
}

void cred_stir(struct cred *c)
{
    if (c->place == PLACE_FIT && cm_list_empty(&c->fresh) && !cm_list_empty(&c->provider->waiting))
        cm_list_push(&c->provider->pool->fresh, &c->fresh);
}

void cred_place(struct cred *c)
{
    struct provider *p = c->provider;
    uint64_t until_ms;

    if (!p)
        return;
    c->place = place_of(c, &until_ms);
    switch (c->place) {
    case PLACE_NONE:
        break;
    case PLACE_FIT:
        tree_put(&c->group->fit, c);
        if (c->was != PLACE_FIT)
            cred_stir(c);
        break;
    case PLACE_BUSY:
        tree_put(&p->busy, c);
        break;
    case PLACE_RETURNS:
        heap_put(&p->returns, &c->ret, until_ms);
        break;
    }
}

void provider_wake(struct provider *p)
{
    const uint64_t now = p->pool->now_ms;
    struct due *d;

    while ((d = heap_top(&p->returns)) && d->at_ms <= now) {
        struct cred *c = CM_CONTAINER(d, struct cred, ret);

        if (limited(c)) {
            cred_resume(c, c->reason);
        } else if (c->state == CM_CRED_STATE_REFRESHING) {
            cred_want_refresh(c);
            cred_set(c, CM_CRED_STATE_REFRESHING, 0, c->reason);
        } else { /* min_interval is over */
            cred_take(c);
            cred_place(c);
        }
    }
    for (uint64_t left = p->models; left; left &= left - 1) {
        struct heap *over = &p->model[__builtin_ctzll(left)].over;

        while ((d = heap_top(over)) && d->at_ms <= now)
            cooled_wake(CM_CONTAINER(d, struct cooled, over));
    }
}

/* ---- the state ---- */

static void log_change(const struct cred *c, enum cm_cred_state before, const char *why)
{
    const char *from = cm_cred_state_name(before), *to = cm_cred_state_name(c->state);
    const struct cm_str label = c->ident->label;

    switch (c->state) {
    case CM_CRED_STATE_NEEDS_LOGIN:
    case CM_CRED_STATE_VERIFY:
    case CM_CRED_STATE_DISABLED:
        cm_warn("pool", CM_PRI ": %s -> %s until an operator acts: %s", CM_ARG(label), from, to,
                why);
        break;
    default:
        if (c->until_ms)
            cm_info("pool", CM_PRI ": %s -> %s for %llu s: %s", CM_ARG(label), from, to,
                    (unsigned long long)(c->until_ms - c->provider->pool->now_ms + 999) / 1000,
                    why);
        else
            cm_info("pool", CM_PRI ": %s -> %s: %s", CM_ARG(label), from, to, why);
    }
}

/* The only place where a state changes. */
void cred_set(struct cred *c, enum cm_cred_state state, uint64_t until_ms, const char *reason)
{
    enum cm_cred_state before = c->state;

    if (state == before && until_ms == c->until_ms)
        return;
    cred_take(c);
    c->provider->count.state[before]--;
    c->provider->count.state[state]++;
    c->state = state;
    c->until_ms = until_ms;
    c->reason = state == CM_CRED_STATE_OK ? "" : reason;
    cred_place(c);
    cred_replan(c);
    log_change(c, before, reason);
    cred_tell(c);
}

static bool wants_token(const struct cred *c)
{
    bool none = c->provider->needs_token && c->ident->token.n == 0 && !secretless(c);
    bool over = c->expires_ms && c->expires_ms <= c->provider->pool->now_ms;

    return (none || over) && can_refresh(c);
}

void cred_resume(struct cred *c, const char *reason)
{
    const uint64_t now = c->provider->pool->now_ms;

    if (!c->enabled) {
        cred_set(c, CM_CRED_STATE_DISABLED, 0, "operator");
    } else if (c->provider->lacks) {
        cred_set(c, CM_CRED_STATE_NEEDS_LOGIN, 0, lacks_reason);
    } else if (month_rest(c)) {
        return;
    } else if (c->limit_until_ms > now) {
        cred_set(c, c->limit, c->limit_until_ms, c->limit_reason);
    } else if (wants_token(c)) {
        cred_want_refresh(c);
        cred_set(c, CM_CRED_STATE_REFRESHING, 0, "expired");
    } else if (c->limit_ms) {
        cred_set(c, CM_CRED_STATE_HALF_OPEN, 0, c->limit_reason);
    } else {
        cred_set(c, CM_CRED_STATE_OK, 0, reason);
    }
}

/* The graver states stay: they have another reason. */
void provider_lacks(struct provider *p, const char *text, bool known)
{
    char *before = p->lacks;

    p->lacks = text ? cm_strdup(text) : NULL;
    p->lacks_known = known;
    if (text && !before)
        cm_warn("pool", "%s: %s", p->name, text);
    free(before);
    CM_LIST_EACH(&p->creds, link)
    {
        struct cred *c = CM_LIST_ITEM(link, struct cred, link);
        bool waits = c->state == CM_CRED_STATE_NEEDS_LOGIN &&
                     cm_str_eq(cm_str_of(c->reason), cm_str_of(lacks_reason));

        if (text ? c->state < CM_CRED_STATE_NEEDS_LOGIN : waits)
            cred_resume(c, "the setting is there");
    }
}

static void forget_limits(struct cred *c)
{
    c->limit_until_ms = 0;
    c->limit_ms = 0;
    c->series_model = 0;
    memset(c->failed_ms, 0, sizeof(c->failed_ms));
}

void cred_reset(struct cred *c, const char *reason)
{
    forget_limits(c);
    c->series_ms = 0;
    c->backoff_ms = 0;
    cred_forget_models(c);
    cred_forget_credit(c);
    cred_resume(c, reason);
}

/* ---- limits ---- */

uint64_t limit_length(uint64_t for_ms, uint64_t before_ms, bool decided)
{
    if (decided)
        for_ms = most(for_ms, least(2 * before_ms, DOUBLED_MAX_MS));
    return least(for_ms, LIMIT_MAX_MS);
}

static void limit(struct cred *c, enum cm_cred_state kind, uint64_t for_ms, bool decided,
                  const char *reason)
{
    uint64_t until;

    for_ms = limit_length(for_ms, c->limit_ms, decided);
    until = c->provider->pool->now_ms + for_ms;
    if (until > c->limit_until_ms) {
        c->limit = kind;
        c->limit_until_ms = until;
        c->limit_ms = for_ms;
        c->limit_reason = reason;
        c->series_model = 0;
    }
    if ((serves(c) || limited(c)) && !month_rest(c))
        cred_set(c, c->limit, c->limit_until_ms, c->limit_reason);
}

/* Three within a minute cool the credential, each further series twice as long; unless more went well in between: with hundreds of requests a minute
 * a platform that fails now and then would lose all its accounts at once. */
static void count_failure(struct cred *c, uint64_t model, uint64_t told_ms, bool decided,
                          const char *reason)
{
    const uint64_t now = c->provider->pool->now_ms;
    uint64_t oldest = c->failed_ms[1], well = c->answered - c->failed_at[1];
    bool one_model = c->failed_model[0] == model && c->failed_model[1] == model;

    if (decided) {
        limit(c, CM_CRED_STATE_COOLING, most(told_ms, SERIES_MS), true, reason);
        return;
    }
    c->failed_ms[1] = c->failed_ms[0];
    c->failed_ms[0] = now ? now : 1;
    c->failed_at[1] = c->failed_at[0];
    c->failed_at[0] = c->answered;
    c->failed_model[1] = c->failed_model[0];
    c->failed_model[0] = model;
    if (!oldest || now - oldest > SERIES_MS || well > SERIES_N)
        return;
    memset(c->failed_ms, 0, sizeof(c->failed_ms));
    if (!c->series_ms || now > c->series_over_ms + SERIES_QUIET_MS)
        c->series_ms = SERIES_MS;
    else
        c->series_ms = least(2 * c->series_ms, DOUBLED_MAX_MS);
    c->series_over_ms = now + c->series_ms;
    limit(c, CM_CRED_STATE_COOLING, most(told_ms, c->series_ms), false, reason);
    c->series_model = one_model ? model : 0;
}

/* States that an operator ends. The graver one stays. */
static void await_operator(struct cred *c, enum cm_cred_state state, const char *reason)
{
    if (c->state < state)
        cred_set(c, state, 0, reason);
}

static void expired(struct cred *c, const char *reason)
{
    bool fresh = c->token_unproven && c->provider->pool->now_ms - c->token_made_ms <= FRESH_MS;

    if (c->state == CM_CRED_STATE_REFRESHING)
        return;
    if (!can_refresh(c) || fresh) { /* another one would be refused as well */
        await_operator(c, CM_CRED_STATE_NEEDS_LOGIN, reason);
    } else if (serves(c) || limited(c)) {
        cred_want_refresh(c);
        cred_set(c, CM_CRED_STATE_REFRESHING, 0, reason);
    }
}

/* ---- verdicts ---- */

bool secretless(const struct cred *c)
{
    return c->ident->secret.n == 0;
}

static uint64_t told_ms(const struct cm_err *why)
{
    return why->retry_after_s > 0 ? (uint64_t)why->retry_after_s * SECOND_MS : 0;
}

/* Everybody who goes out the same way is asked by the same challenge. The account that met it may go out another way since. */
static void rest_address(struct cred *c, struct cm_str proxy, uint64_t for_ms, bool decided,
                         const char *reason)
{
    CM_LIST_EACH(&c->provider->creds, link)
    {
        struct cred *other = CM_LIST_ITEM(link, struct cred, link);

        if (cm_str_eq(other->ident->proxy, proxy))
            limit(other, CM_CRED_STATE_COOLING, for_ms, decided && other == c, reason);
    }
}

static uint64_t cooldown_of(const struct cred *c)
{
    return c->provider->cooldown_ms > 0 ? (uint64_t)c->provider->cooldown_ms : COOLDOWN_MS;
}

static uint64_t limit_ms_of(const struct cred *c, const struct cm_err *why)
{
    if (told_ms(why))
        return told_ms(why);
    return cm_err_info(why->cls)->cred == CM_CRED_EXHAUST ? EXHAUSTED_MS : cooldown_of(c);
}

/* `as`: what the account was when it was asked. */
static void judge(struct cred *c, const struct ident *as, uint64_t model, const struct cm_err *why,
                  bool decided)
{
    const struct cm_err_info *info = cm_err_info(why->cls);
    uint64_t told = told_ms(why);

    switch (info->cred) {
    case CM_CRED_KEEP:
    case CM_CRED_COOL_MODEL:
        break;
    case CM_CRED_DISABLE:
        await_operator(c, CM_CRED_STATE_DISABLED, info->name);
        break;
    case CM_CRED_REFRESH:
        expired(c, info->name);
        break;
    case CM_CRED_VERIFY:
        if (why->of_address)
            rest_address(c, as->proxy, told ? told : cooldown_of(c), decided, info->name);
        else
            await_operator(c, CM_CRED_STATE_VERIFY, info->name);
        break;
    case CM_CRED_COOL:
        limit(c, CM_CRED_STATE_COOLING, limit_ms_of(c, why), decided, info->name);
        break;
    case CM_CRED_EXHAUST:
        limit(c, CM_CRED_STATE_EXHAUSTED, limit_ms_of(c, why), decided, info->name);
        break;
    case CM_CRED_COUNT:
        count_failure(c, model, told, decided, info->name);
        break;
    }
}

void cred_judge(struct cm_lease *lease, const struct cm_err *why)
{
    struct cred *c = lease->cred;
    bool decides = lease->trial && c->state == CM_CRED_STATE_HALF_OPEN;
    bool same_token = cm_str_eq(lease->ident->token, c->ident->token);
    enum cm_err_cred verdict;

    if (lease->secret_gen != c->secret_gen || secretless(c))
        return;
    if (!why) {
        c->answered++;
        c->token_unproven &= !same_token;
        pair_ends(lease, PAIR_ANSWERED);
        if (decides) {
            forget_limits(c);
            cred_set(c, CM_CRED_STATE_OK, 0, "served");
        }
        return;
    }
    verdict = cm_err_info(why->cls)->cred;
    if (why->of_model && (verdict == CM_CRED_COOL || verdict == CM_CRED_EXHAUST) &&
        pair_limit(lease, limit_ms_of(c, why)))
        return;
    pair_ends(lease, verdict == CM_CRED_COUNT ? PAIR_FAILED : PAIR_UNDECIDED);
    if (verdict == CM_CRED_COUNT && pair_takes_blame(lease, decides))
        return;
    if (verdict == CM_CRED_COOL_MODEL)
        model_absent(lease, c->provider->pool->now_ms +
                                least(told_ms(why) ? told_ms(why) : MODEL_MS, LIMIT_MAX_MS));
    else if (verdict == CM_CRED_EXHAUST && credit_short(lease) && !credit_gone(c))
        return; /* it can pay for others: its credit says so where it is chosen */
    else if (verdict != CM_CRED_REFRESH || same_token) /* else it has been renewed meanwhile */
        judge(c, lease->ident, lease->model_hash, why, decides);
}

/* A probe is our own request: that it did not get through says nothing about the account. */
void cred_judge_probe(struct cred *c, const struct cm_err *why)
{
    bool answered = !why || why->cls == CM_ERR_NONE;

    if (!answered && cm_err_info(why->cls)->cred != CM_CRED_COUNT)
        judge(c, c->ident, 0, why, false);
    else if (answered && c->enabled &&
             (c->state == CM_CRED_STATE_NEEDS_LOGIN || c->state == CM_CRED_STATE_VERIFY ||
              c->state == CM_CRED_STATE_DISABLED))
        cred_resume(c, "checked");
}
