#include "platform.h"
#include "script.h"
#include "world.h"

#include "chatmux/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static const struct house {
    const char *name, *header, *prefix; /* the provider's, of its key, of a key's text */
    unsigned accounts;
} houses[PLATFORM_HOUSES] = {
    {"up", "authorization", "sk-account-", 60},
    {"an", "x-api-key", "sk-ant-api03-", 20},
    {"ge", "x-goog-api-key", "AIza", 20},
};
#define BROKEN_MODEL "\"m2\"" /* for some accounts of the first one */

struct account {
    char key[32];
    unsigned house;
    bool dead, told_dead; /* every request is refused; it was told so */
    bool broken;          /* fails for one model, and serves the others */
    unsigned inflight,
        trials; /* trials: begun since the limit ended, while nothing has been answered well */
    uint64_t limited_until_ms; /* as it was told */
    bool half_open;            /* limited once, and no good answer since */
};

struct platform {
    struct cm_loop *loop;
    struct account *accounts;
    unsigned n, cap, inflight, faults;
    bool outage;
    uint64_t attempts;
    struct platform_figures figures;
};

struct cm_xfer {
    struct platform *p;
    struct account *account;
    const struct cm_xfer_cb *cb;
    void *arg;
    struct cm_deadline next;
    struct script script;
    size_t at;
    bool headed, ended, paused, closed, trial;
    unsigned depth, pace_ms;
    enum fault fault;
};

/* ---- transfers ---- */

static uint64_t now_of(const struct platform *p)
{
    return cm_loop_now_ms(p->loop);
}

static void xfer_free(struct cm_xfer *x)
{
    cm_buf_clear(&x->script.body);
    free(x);
}

static void arm(struct cm_xfer *x)
{
    if (!x->closed && !x->paused && !x->ended)
        cm_deadline_set(x->p->loop, &x->next, now_of(x->p) + 1 + dice(x->pace_ms));
}

/* What the gateway must have understood once it has heard all of this answer. */
static void heard(struct cm_xfer *x)
{
    struct account *a = x->account;
    uint64_t limit_ms = 0;

    if (x->fault == LIMITED)
        limit_ms = x->script.limited_s * UINT64_C(1000);
    else if (x->fault ==
             LIMITED_MUTE) /* a minute, as the configuration says; Google's half a minute */
        limit_ms = a->house == 2 ? 25000 : 50000;
    if (limit_ms > 0 && now_of(x->p) + limit_ms > a->limited_until_ms) {
        a->limited_until_ms = now_of(x->p) + limit_ms;
        a->half_open = true;
        a->trials = 0;
    }
    if (x->fault == REFUSED)
        a->told_dead = true;
    if (x->fault == NONE && x->trial)
        a->half_open = false;
}

static void tell_head(struct cm_xfer *x)
{
    const struct script *s = &x->script;
    struct cm_header headers[2] = {{CM_S("content-type"), cm_str_of(s->content_type)},
                                   {CM_S("retry-after"), cm_str_of(s->retry_after)}};

    x->headed = true;
    x->cb->on_head(x->arg, s->status, headers, s->retry_after[0] ? 2 : 1);
}

static void tell_end(struct cm_xfer *x)
{
    struct cm_err err = {0};

    if (x->script.ending == SILENT)
        return;
    x->ended = true;
    if (x->script.ending == ENDS)
        heard(x);
    else
        cm_fail(&err, x->headed ? CM_ERR_CUT : CM_ERR_UPSTREAM_DOWN, "the connection is gone");
    x->cb->on_end(x->arg, x->script.ending == ENDS ? NULL : &err);
}

static void on_next(void *arg)
{
    struct cm_xfer *x = arg;

    x->depth++;
    if (!x->headed && x->script.status > 0) {
        tell_head(x);
        if (!x->closed)
            arm(x);
    } else if (x->at < x->script.body.n) {
        struct cm_str piece =
            cm_str_head(cm_str_from(cm_buf_str(&x->script.body), x->at), 1 + dice(400));

        x->at += piece.n;
        x->cb->on_data(x->arg, piece);
        arm(x);
    } else {
        tell_end(x);
    }
    if (--x->depth == 0 && x->closed)
        xfer_free(x);
}

static struct account *find_account(struct platform *p, const struct cm_xfer_req *req)
{
    for (size_t i = 0; i < req->n_headers; i++) {
        struct cm_str value = req->headers[i].value;

        if (cm_str_starts(value, CM_S("Bearer ")))
            value = cm_str_from(value, 7);
        for (unsigned k = 0; k < p->n; k++)
            if (cm_str_eq_nocase(req->headers[i].name,
                                 cm_str_of(houses[p->accounts[k].house].header)) &&
                cm_str_eq(value, cm_str_of(p->accounts[k].key)))
                return &p->accounts[k];
    }
    world_fail("a request without a known account");
}

/* In which dialect it is asked, and whether for a stream. */
static enum dialect dialect_of(const struct account *a, const struct cm_xfer_req *req,
                               bool *streamed)
{
    *streamed = cm_str_has(req->body, CM_S("\"stream\":true")) ||
                cm_str_has(req->url, CM_S(":streamGenerateContent"));
    if (a->house == 2)
        return *streamed && !cm_str_has(req->url, CM_S("alt=sse")) ? GEMINI_ARRAY : GEMINI;
    if (a->house == 1)
        return MESSAGES;
    return cm_str_ends(req->url, CM_S("/chat/completions")) ? CHAT : TEXT;
}

/* Everything that must not happen to an account. */
static void check_account(struct platform *p, struct account *a, bool *trial)
{
    if (a->inflight >= p->cap)
        world_fail("%s has %u requests at once, agreed are %u", a->key, a->inflight + 1, p->cap);
    if (a->told_dead)
        world_fail("%s was refused and is asked again", a->key);
    if (now_of(p) + 5 < a->limited_until_ms)
        world_fail("%s is limited for another %llu ms and is asked", a->key,
                   (unsigned long long)(a->limited_until_ms - now_of(p)));
    *trial = a->half_open;
    if (a->half_open && a->trials > 0)
        world_fail("%s comes back from a limit, and a second request does not wait for the first",
                   a->key);
    a->trials += a->half_open;
}

static enum fault choose_fault(const struct platform *p, const struct account *a, bool broken)
{
    if (a->dead)
        return REFUSED;
    if (p->outage)
        return chance(500) ? DOWN : NOTHING;
    if (broken)
        return DOWN;
    if (!chance(p->faults))
        return NONE;
    return (enum fault)(1 + dice(REFUSED - 1)); /* any but REFUSED */
}

/* How often accounts are asked for what fails on them. */
static bool note_broken(struct platform *p, const struct account *a, const struct cm_xfer_req *req)
{
    const bool asked = a->house == 0 && cm_str_has(req->body, CM_S(BROKEN_MODEL));

    if (asked && !a->dead) {
        p->figures.broken_model++;
        p->figures.broken += a->broken;
    }
    p->figures.kept += a->broken && !asked;
    return a->broken && asked;
}

static struct cm_xfer *open_xfer(void *arg, const struct cm_xfer_req *req,
                                 const struct cm_xfer_cb *cb, void *cb_arg)
{
    struct platform *p = arg;
    struct cm_xfer *x = CM_NEW(struct cm_xfer);
    const size_t at = cm_str_find(req->body, CM_S("\"q:"));
    const unsigned n = 1 + (unsigned)dice(chance(20) ? 3000 : 30);
    enum dialect dialect;
    bool streamed;

    x->p = p;
    x->cb = cb;
    x->arg = cb_arg;
    x->account = find_account(p, req);
    check_account(p, x->account, &x->trial);
    x->account->inflight++;
    p->inflight++;
    p->figures.asked++;
    dialect = dialect_of(x->account, req, &streamed);
    x->pace_ms = 1 + (unsigned)dice(chance(100) ? 500 : 40);
    x->fault = choose_fault(p, x->account, note_broken(p, x->account, req));
    p->figures.faults += x->fault != NONE;
    p->figures.limited += x->fault == LIMITED || x->fault == LIMITED_MUTE;
    p->figures.refused += x->fault == REFUSED;
    if (at == SIZE_MAX)
        world_fail("a question without its number");
    script_write(&x->script, dialect, streamed, x->fault, strtoull(req->body.p + at + 3, NULL, 10),
                 ++p->attempts, n);
    cm_deadline_init(&x->next, on_next, x);
    arm(x);
    return x;
}

static void pause_xfer(void *arg, struct cm_xfer *x)
{
    (void)arg;
    x->paused = true;
    cm_deadline_clear(x->p->loop, &x->next);
}

static void resume_xfer(void *arg, struct cm_xfer *x)
{
    (void)arg;
    x->paused = false;
    arm(x);
}

static void close_xfer(void *arg, struct cm_xfer *x)
{
    struct account *a = x->account;

    (void)arg;
    x->closed = true;
    cm_deadline_clear(x->p->loop, &x->next);
    a->inflight--;
    x->p->inflight--;
    if (x->trial && a->trials > 0 && a->half_open)
        a->trials--; /* it decided, or told nothing */
    if (x->depth == 0)
        xfer_free(x);
}

struct cm_transport platform_transport(struct platform *p)
{
    return (struct cm_transport){.open = open_xfer,
                                 .pause = pause_xfer,
                                 .resume = resume_xfer,
                                 .close = close_xfer,
                                 .arg = p};
}

/* ---- life ---- */

struct platform *platform_new(struct cm_loop *loop, unsigned cap)
{
    struct platform *p = CM_NEW(struct platform);

    p->loop = loop;
    p->cap = cap;
    for (unsigned h = 0; h < PLATFORM_HOUSES; h++)
        p->n += houses[h].accounts;
    p->accounts = cm_calloc(p->n, sizeof(*p->accounts));
    for (unsigned h = 0, at = 0; h < PLATFORM_HOUSES; h++) {
        for (unsigned i = 0; i < houses[h].accounts; i++, at++) {
            struct account *a = &p->accounts[at];

            snprintf(a->key, sizeof(a->key), "%s%04u", houses[h].prefix, i);
            a->house = h;
            a->dead = i % 10 == 3;
            a->broken = h == 0 && i % 5 == 1;
        }
    }
    return p;
}

void platform_free(struct platform *p)
{
    free(p->accounts);
    free(p);
}

void platform_put_accounts(const struct platform *p, unsigned house, struct cm_buf *out)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->accounts[i].house == house)
            cm_buf_printf(out, "  %s\n", p->accounts[i].key);
}

unsigned platform_inflight(const struct platform *p)
{
    return p->inflight;
}

void platform_faults(struct platform *p, unsigned in_thousand)
{
    p->faults = in_thousand;
}

void platform_outage(struct platform *p, bool on)
{
    p->outage = on;
}

struct platform_figures platform_figures(const struct platform *p)
{
    return p->figures;
}
