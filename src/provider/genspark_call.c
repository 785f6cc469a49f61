/* How genspark's site is called: the headers of its web client (protocol notes, section 2), and the small calls. */
#include "genspark_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

struct cm_str genspark_option(const struct cm_run *run, const char *name)
{
    return cm_option_value(cm_run_instance(run), name);
}

bool genspark_option_bool(const struct cm_run *run, const char *name)
{
    return cm_option_bool(cm_run_instance(run), name);
}

bool genspark_option_is(const struct cm_run *run, const char *name, const char *value)
{
    return cm_str_eq(genspark_option(run, name), cm_str_of(value));
}

void genspark_add(struct genspark_headers *h, struct cm_str name, struct cm_str value)
{
    CM_ASSERT(h->n < GENSPARK_HEADERS_MAX);
    if (value.n > 0)
        h->v[h->n++] = (struct cm_header){name, value};
}

static void add_browser(struct cm_run *run, struct genspark_headers *h)
{
    const struct cm_browser *b = cm_run_browser(run);

    genspark_add(h, CM_S("User-Agent"), b->user_agent);
    if (cm_run_instance(run)->conf->upstream.user_agent.n > 0)
        return; /* the operator's agrees with nothing of ours */
    genspark_add(h, CM_S("Accept-Language"), b->accept_language);
    genspark_add(h, CM_S("sec-ch-ua"), b->sec_ch_ua);
    genspark_add(h, CM_S("sec-ch-ua-mobile"), CM_S("?0"));
    genspark_add(h, CM_S("sec-ch-ua-platform"), b->sec_ch_ua_platform);
}

static struct cm_str hex_id(struct cm_run *run, size_t bytes)
{
    unsigned char random[16];
    struct cm_buf out = {0};

    CM_ASSERT(bytes <= sizeof(random));
    cm_rand_bytes(random, bytes);
    cm_hex(&out, cm_str((const char *)random, bytes));
    return cm_buf_settle(&out, cm_run_arena(run));
}

void genspark_add_trace(struct cm_run *run, struct genspark_headers *h)
{
    struct cm_arena *a = cm_run_arena(run);
    const struct cm_str trace = hex_id(run, 16), span = hex_id(run, 8);

    genspark_add(h, CM_S("request-id"),
                 cm_arena_printf(a, "|" CM_PRI "." CM_PRI, CM_ARG(trace), CM_ARG(span)));
    genspark_add(h, CM_S("traceparent"),
                 cm_arena_printf(a, "00-" CM_PRI "-" CM_PRI "-01", CM_ARG(trace), CM_ARG(span)));
}

static struct cm_str referer(struct cm_run *run, const struct genspark_ask *ask)
{
    const bool agent = ask->dialect == GENSPARK_AGENT;
    const struct cm_str origin = genspark_option(run, "origin");
    struct cm_str page = genspark_option(run, agent ? "agent_referer" : "copilot_referer");

    if (!agent || ask->project.n == 0)
        return cm_arena_printf(cm_run_arena(run), CM_PRI CM_PRI, CM_ARG(origin), CM_ARG(page));
    page = cm_str_cut(&page, '?');
    return cm_arena_printf(cm_run_arena(run), CM_PRI CM_PRI "?id=" CM_PRI, CM_ARG(origin),
                           CM_ARG(page), CM_ARG(ask->project));
}

void genspark_headers(struct cm_run *run, const struct genspark_ask *ask, struct cm_str accept,
                      struct genspark_headers *h)
{
    genspark_add(h, CM_S("Content-Type"), CM_S("application/json"));
    genspark_add(h, CM_S("Accept"), accept);
    genspark_add(h, CM_S("Origin"), genspark_option(run, "origin"));
    genspark_add(h, CM_S("Referer"), referer(run, ask));
    genspark_add(h, CM_S("Cookie"), genspark_cookie(run));
    genspark_add(h, CM_S("X-Timezone"), genspark_option(run, "timezone"));
    add_browser(run, h);
}

struct cm_str genspark_url(struct cm_run *run, const char *path, const char *query,
                           struct cm_str value)
{
    struct cm_buf url = {0};

    cm_buf_append(&url, genspark_option(run, path));
    cm_buf_printf(&url, "?%s=", query);
    cm_percent(&url, value);
    return cm_buf_settle(&url, cm_run_arena(run));
}

enum cm_step genspark_fetch(struct cm_run *run, const struct genspark_ask *ask,
                            struct cm_call *call)
{
    struct genspark_headers h = {.n = 0};

    genspark_headers(run, ask, CM_S("application/json"), &h);
    call->headers = h.v;
    call->n_headers = h.n;
    if (call->timeout_ms == 0)
        call->timeout_ms = GENSPARK_CALL_MS;
    return cm_run_fetch(run, call);
}
