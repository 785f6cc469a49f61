#include "platform.h"
#include "world.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#include <stdio.h>
#include <stdlib.h>

#define FAULTS(X)                                                                                  \
    X(LIMITED)      /* 429 with a time */                                                          \
    X(LIMITED_MUTE) /* 429 without */                                                              \
    X(DOWN)         /* 500, 502, 503 */                                                            \
    X(HTML)         /* 200 with a page */                                                          \
    X(NOTHING)      /* no answer, the connection is gone */                                        \
    X(CUT_HEAD)     /* gone behind the head */                                                     \
    X(CUT)          /* gone in the middle */                                                       \
    X(NO_END)       /* ends well, without the end mark */                                          \
    X(HANG)         /* silence from the beginning */                                               \
    X(HANG_MIDDLE)  /* silence in the middle */                                                    \
    X(ERROR_FIRST)  /* 200, and the first event is an error */                                     \
    X(ERROR_MIDDLE) /* an error in the middle */                                                   \
    X(EMPTY)        /* 200, and nothing in it */                                                   \
    X(GARBAGE)      /* 200, and bytes that are no events */                                        \
    X(TOO_LONG)     /* 400, the prompt is too long */                                              \
    X(REFUSED)      /* 401: the account is dead */
enum fault {
    NONE,
#define X(name) name,
    FAULTS(X)
#undef X
        FAULTS_N
};

struct account {
    char key[32];
    bool dead, told_dead; /* every request is refused; it was told so */
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

enum ending { ENDS, BREAKS, SILENT };

struct cm_xfer {
    struct platform *p;
    struct account *account;
    const struct cm_xfer_cb *cb;
    void *arg;
    struct cm_deadline next;
    int status;
    const char *content_type;
    char retry_after[16];
    struct cm_buf body;
    size_t at;
    enum ending ending;
    bool headed, ended, paused, closed, trial, streamed;
    unsigned depth, pace_ms;
    enum fault fault;
};

/* ---- what is answered ---- */

struct cm_str platform_text(struct cm_arena *arena, uint64_t q, uint64_t attempt, unsigned n)
{
    struct cm_buf out = {0};

    cm_buf_printf(&out, "B:%llu:%llu:%u ", (unsigned long long)q, (unsigned long long)attempt, n);
    for (unsigned i = 0; i < n; i++)
        cm_buf_printf(&out, "w%u ", i);
    return cm_buf_settle(&out, arena);
}

static void put_chunk(struct cm_buf *out, struct cm_str content, const char *finish)
{
    cm_buf_append(out,
                  CM_S("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,"
                       "\"model\":\"m1\",\"choices\":[{\"index\":0,\"delta\":{"));
    if (content.p) {
        cm_buf_append(out, CM_S("\"content\":"));
        cm_json_put_str(out, content);
    }
    cm_buf_printf(out, "},\"finish_reason\":%s}]}\n\n", finish ? finish : "null");
}

static void put_role(struct cm_buf *out)
{
    cm_buf_append(
        out, CM_S("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,"
                  "\"model\":\"m1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
                  "\"content\":\"\"},\"finish_reason\":null}]}\n\n"));
}

static const char usage[] = "{\"prompt_tokens\":10,\"completion_tokens\":20,\"total_tokens\":30}";
static const char error_event[] =
    "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":\"overloaded\"}}\n\n";

/* `upto` words of n, and the end if all of them. */
static void put_stream(struct cm_buf *out, struct cm_str text, unsigned upto, bool finish)
{
    put_role(out);
    for (unsigned i = 0; i <= upto && text.n > 0; i++) {
        size_t n = cm_str_find_char(text, ' ') + 1;

        put_chunk(out, cm_str_head(text, n), NULL);
        text = cm_str_from(text, n);
        if (chance(50))
            cm_buf_append(out, CM_S(": ping\n\n"));
    }
    if (!finish)
        return;
    put_chunk(out, CM_STR_NONE, "\"stop\"");
    cm_buf_printf(out,
                  "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,"
                  "\"model\":\"m1\",\"choices\":[],\"usage\":%s}\n\ndata: [DONE]\n\n",
                  usage);
}

static void put_whole(struct cm_buf *out, struct cm_str text)
{
    cm_buf_append(
        out, CM_S("{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m1\","
                  "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"));
    cm_json_put_str(out, text);
    cm_buf_printf(out, "},\"finish_reason\":\"stop\"}],\"usage\":%s}", usage);
}

static void refuse(struct cm_xfer *x, int status, const char *type, const char *code)
{
    x->status = status;
    x->content_type = "application/json";
    cm_buf_reset(&x->body);
    cm_buf_printf(&x->body,
                  "{\"error\":{\"message\":\"no\",\"type\":\"%s\",\"code\":\"%s\",\"param\":null}}",
                  type, code);
}

static void script(struct cm_xfer *x, struct cm_str text, unsigned n)
{
    static const int down[] = {500, 502, 503};
    unsigned middle = (unsigned)dice(n);

    x->status = 200;
    x->content_type = x->streamed ? "text/event-stream" : "application/json";
    x->ending = ENDS;
    switch (x->fault) {
    case NONE:
    case FAULTS_N:
        break;
    case LIMITED:
        refuse(x, 429, "requests", "rate_limit_exceeded");
        snprintf(x->retry_after, sizeof(x->retry_after), "%u", 1 + (unsigned)dice(30));
        return;
    case LIMITED_MUTE:
        refuse(x, 429, "requests", "rate_limit_exceeded");
        return;
    case DOWN:
        refuse(x, down[dice(CM_COUNT(down))], "server_error", "oops");
        return;
    case HTML:
        x->content_type = "text/html";
        cm_buf_append(&x->body, CM_S("<html><title>Welcome</title></html>"));
        return;
    case NOTHING:
        x->status = 0;
        x->ending = BREAKS;
        return;
    case CUT_HEAD:
        x->ending = BREAKS;
        return;
    case HANG:
        x->status = 0;
        x->ending = SILENT;
        return;
    case EMPTY:
        return;
    case GARBAGE:
        cm_buf_append(&x->body, CM_S("\x01\x02 what is this\n\n{{{{\n\ndata: {\"choices\":\n\n"));
        return;
    case TOO_LONG:
        refuse(x, 400, "invalid_request_error", "context_length_exceeded");
        return;
    case REFUSED:
        refuse(x, 401, "invalid_request_error", "invalid_api_key");
        return;
    case ERROR_FIRST:
        if (x->streamed) {
            put_role(&x->body);
            cm_buf_append(&x->body, cm_str_of(error_event));
        } else {
            cm_buf_append(
                &x->body,
                CM_S("{\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}"));
        }
        return;
    case CUT:
    case HANG_MIDDLE:
    case NO_END:
    case ERROR_MIDDLE:
        if (x->streamed) {
            put_stream(&x->body, text, middle, false);
            if (x->fault == ERROR_MIDDLE)
                cm_buf_append(&x->body, cm_str_of(error_event));
        } else {
            put_whole(&x->body, text);
            x->body.n = 1 + dice(x->body.n - 1);
        }
        x->ending = x->fault == CUT ? BREAKS : x->fault == HANG_MIDDLE ? SILENT : ENDS;
        return;
    }
    if (x->streamed)
        put_stream(&x->body, text, n, true);
    else
        put_whole(&x->body, text);
}

/* ---- transfers ---- */

static uint64_t now_of(const struct platform *p)
{
    return cm_loop_now_ms(p->loop);
}

static void xfer_free(struct cm_xfer *x)
{
    cm_buf_clear(&x->body);
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
        limit_ms = strtoul(x->retry_after, NULL, 10) * 1000;
    else if (x->fault == LIMITED_MUTE)
        limit_ms = 50000; /* a minute, as the configuration says */
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
    struct cm_header headers[2] = {{CM_S("content-type"), cm_str_of(x->content_type)},
                                   {CM_S("retry-after"), cm_str_of(x->retry_after)}};

    x->headed = true;
    x->cb->on_head(x->arg, x->status, headers, x->retry_after[0] ? 2 : 1);
}

static void tell_end(struct cm_xfer *x)
{
    struct cm_err err = {0};

    if (x->ending == SILENT)
        return;
    x->ended = true;
    if (x->ending == ENDS)
        heard(x);
    else
        cm_fail(&err, x->headed ? CM_ERR_CUT : CM_ERR_UPSTREAM_DOWN, "the connection is gone");
    x->cb->on_end(x->arg, x->ending == ENDS ? NULL : &err);
}

static void on_next(void *arg)
{
    struct cm_xfer *x = arg;

    x->depth++;
    if (!x->headed && x->status > 0) {
        tell_head(x);
        if (!x->closed)
            arm(x);
    } else if (x->at < x->body.n) {
        struct cm_str piece = cm_str_head(cm_str_from(cm_buf_str(&x->body), x->at), 1 + dice(400));

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

        if (!cm_str_eq_nocase(req->headers[i].name, CM_S("authorization")))
            continue;
        for (unsigned k = 0; k < p->n; k++)
            if (cm_str_eq(cm_str_from(value, 7), cm_str_of(p->accounts[k].key)))
                return &p->accounts[k];
    }
    world_fail("a request without a known account");
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

static enum fault choose_fault(const struct platform *p, const struct account *a)
{
    if (a->dead)
        return REFUSED;
    if (p->outage)
        return chance(500) ? DOWN : NOTHING;
    if (!chance(p->faults))
        return NONE;
    return (enum fault)(1 + dice(REFUSED - 1)); /* any but REFUSED */
}

static struct cm_xfer *open_xfer(void *arg, const struct cm_xfer_req *req,
                                 const struct cm_xfer_cb *cb, void *cb_arg)
{
    struct platform *p = arg;
    struct cm_xfer *x = CM_NEW(struct cm_xfer);
    struct cm_arena texts = {0};
    size_t at = cm_str_find(req->body, CM_S("\"q:"));
    unsigned n = 1 + (unsigned)dice(chance(20) ? 3000 : 30);

    x->p = p;
    x->cb = cb;
    x->arg = cb_arg;
    x->account = find_account(p, req);
    check_account(p, x->account, &x->trial);
    x->account->inflight++;
    p->inflight++;
    p->figures.asked++;
    x->streamed = cm_str_has(req->body, CM_S("\"stream\":true"));
    x->pace_ms = 1 + (unsigned)dice(chance(100) ? 500 : 40);
    x->fault = choose_fault(p, x->account);
    p->figures.faults += x->fault != NONE;
    p->figures.limited += x->fault == LIMITED || x->fault == LIMITED_MUTE;
    p->figures.refused += x->fault == REFUSED;
    if (at == SIZE_MAX)
        world_fail("a question without its number");
    script(x, platform_text(&texts, strtoull(req->body.p + at + 3, NULL, 10), ++p->attempts, n), n);
    cm_arena_clear(&texts);
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

struct platform *platform_new(struct cm_loop *loop, unsigned accounts, unsigned cap)
{
    struct platform *p = CM_NEW(struct platform);

    p->loop = loop;
    p->n = accounts;
    p->cap = cap;
    p->accounts = cm_calloc(accounts, sizeof(*p->accounts));
    for (unsigned i = 0; i < accounts; i++) {
        snprintf(p->accounts[i].key, sizeof(p->accounts[i].key), "sk-account-%04u", i);
        p->accounts[i].dead = i % 10 == 3;
    }
    return p;
}

void platform_free(struct platform *p)
{
    free(p->accounts);
    free(p);
}

void platform_put_accounts(const struct platform *p, struct cm_buf *out)
{
    for (unsigned i = 0; i < p->n; i++)
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
