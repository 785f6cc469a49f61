/* Requests that are only passed on: files, batches, fine-tuning and whatever else clients ask for under /v1. They go with a credential of the pool to the
 * provider that x-chatmux-target names, or to the only one of the client's dialect that takes such, and the answer comes back as it is. Clients that say
 * anthropic-version, or name a provider that speaks nothing else, and /v1/messages/…, mean Anthropic's dialect, all others OpenAI's.
 *
 * Nothing is known of what they cost, so keys that are limited to models or by a budget may only read, delete, and upload files. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

/* Where accounts, keys and secrets are administered: nothing that a client of ours has to do with. Sessions of the last two give out credentials. */
static const struct cm_str closed[] = {
    CM_S_INIT("admin"),    CM_S_INIT("organization"), CM_S_INIT("organizations"),
    CM_S_INIT("projects"), CM_S_INIT("dashboard"),    CM_S_INIT("auth"),
    CM_S_INIT("oauth"),    CM_S_INIT("realtime"),     CM_S_INIT("chatkit"),
};

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-_.~:@,=+", c));
}

/* One name of a path, decoded: what an upstream could read as something else (dots, escapes that are left, slashes) is none. */
static bool segment_ok(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is_plain(s.p[i]))
            return false;
    return s.n > 0 && !cm_str_eq(s, CM_S(".")) && !cm_str_eq(s, CM_S(".."));
}

static bool is_closed(struct cm_str first)
{
    for (size_t i = 0; i < CM_COUNT(closed); i++)
        if (cm_str_eq_nocase(first, closed[i]))
            return true;
    return false;
}

/* What stands behind the prefix and /v1; false when there is no /v1. */
static bool below_v1(struct exchange *ex, struct cm_str *path)
{
    bool found = false;

    *path = route_tidy(&ex->arena, ex->path);
    route_strip(path, ex->snap->config->server.route_prefix);
    while (route_strip(path, CM_S("/v1")))
        found = true;
    return found;
}

bool pass_wants(struct exchange *ex, struct cm_str *path)
{
    struct cm_str rest, clean = CM_STR_NONE;

    if (!below_v1(ex, &rest))
        return false;
    rest = cm_str_from(rest, 1);
    for (bool first = true; rest.n > 0; first = false) {
        const struct cm_str segment = route_decoded(&ex->arena, cm_str_cut(&rest, '/'), false);

        if (!segment_ok(segment) || (first && is_closed(segment)))
            return false;
        clean = cm_arena_printf(&ex->arena, CM_PRI "/" CM_PRI, CM_ARG(clean), CM_ARG(segment));
    }
    *path = clean;
    return clean.n > 0;
}

/* Takes what clients of the dialect want passed on. */
static bool takes_of(const struct cm_instance *in, enum cm_dialect dialect)
{
    return (in->tasks & CM_TASK_BIT(PASS)) && in->adapter->relays &&
           in->adapter->relays(in, dialect);
}

static const struct cm_instance *named(const struct exchange *ex, struct cm_str name)
{
    for (size_t i = 0; i < ex->snap->n_instances; i++)
        if (cm_str_eq(ex->snap->instances[i].name, name))
            return &ex->snap->instances[i];
    return NULL;
}

const struct cm_surface *pass_surface(const struct exchange *ex, struct cm_str path)
{
    const struct cm_instance *in = named(ex, cm_req_header(ex->req, CM_S("x-chatmux-target")));
    const bool names_it = in && takes_of(in, cm_surface_anthropic_pass.dialect) &&
                          !takes_of(in, cm_surface_openai_pass.dialect);

    return names_it || cm_str_starts(path, CM_S("/messages/")) ||
                   cm_req_header(ex->req, CM_S("anthropic-version")).n > 0
               ? &cm_surface_anthropic_pass
               : &cm_surface_openai_pass;
}

void serve_pass(struct exchange *ex, struct cm_str path)
{
    struct cm_err err = {0};

    if (request_check_coding(ex, &err) < 0) {
        exchange_fail(ex, &err);
        return;
    }
    request_chat(ex, path);
    ex->body_us = cm_mono_us();
    if (ex->req->has_body)
        cm_req_read(ex->req, (size_t)ex->snap->config->server.max_body_bytes);
    else
        request_parse(ex);
}

/* The upstream may have done it before the answer was lost. */
bool pass_only_once(const struct exchange *ex)
{
    const struct cm_chat *chat = ex->chat;

    return chat->task == CM_TASK_PASS &&
           (cm_str_eq(chat->method, CM_S("POST")) || cm_str_eq(chat->method, CM_S("PATCH"))) &&
           cm_header_find(chat->headers, chat->n_headers, CM_S("idempotency-key")).n == 0;
}

/* Providers of the client's own dialect: the others would not know what it asks for. */
static bool takes(const struct cm_instance *in, const struct exchange *ex)
{
    return takes_of(in, ex->surface->dialect);
}

/* What cannot cost much whatever it is. */
static bool is_harmless(const struct cm_chat *chat)
{
    static const struct cm_str methods[] = {CM_S_INIT("GET"), CM_S_INIT("HEAD"),
                                            CM_S_INIT("DELETE")};

    for (size_t i = 0; i < CM_COUNT(methods); i++)
        if (cm_str_eq(chat->method, methods[i]))
            return true;
    return cm_str_eq(chat->path, CM_S("/files")) || cm_str_starts(chat->path, CM_S("/uploads")) ||
           cm_str_ends(chat->path, CM_S("/cancel"));
}

static int check_key(const struct exchange *ex, struct cm_err *err)
{
    const struct cm_key_row *row = ex->client_key ? cm_key_row(ex->client_key) : NULL;

    if (!row || (row->models.n == 0 && row->budget_micro_usd <= 0) || is_harmless(ex->chat))
        return 0;
    return cm_fail(err, CM_ERR_FORBIDDEN,
                   "this API key is limited to models or by a budget, and what " CM_PRI " " CM_PRI
                   " uses is not counted: it may only read, delete and upload files",
                   CM_ARG(ex->chat->method), CM_ARG(cm_str_head(ex->chat->path, 60)));
}

/* "a, b" */
static struct cm_str candidates(struct exchange *ex)
{
    struct cm_str list = CM_STR_NONE;

    for (size_t i = 0; i < ex->snap->n_instances; i++)
        if (takes(&ex->snap->instances[i], ex))
            list = cm_arena_printf(&ex->arena, CM_PRI "%s" CM_PRI, CM_ARG(list),
                                   list.n > 0 ? ", " : "", CM_ARG(ex->snap->instances[i].name));
    return list;
}

bool pass_has_takers(const struct exchange *ex)
{
    for (size_t i = 0; i < ex->snap->n_instances; i++)
        if (takes(&ex->snap->instances[i], ex))
            return true;
    return false;
}

int pass_target(struct exchange *ex, struct cm_err *err)
{
    const struct snapshot *s = ex->snap;
    size_t found = SIZE_MAX, n = 0;

    if (check_key(ex, err) < 0)
        return -1;
    for (size_t i = 0; i < s->n_instances; i++) {
        if (!takes(&s->instances[i], ex) ||
            (ex->pinned.n > 0 && !cm_str_eq(s->instances[i].name, ex->pinned)))
            continue;
        found = i;
        n++;
    }
    if (n == 1) {
        ex->targets = CM_ARENA_NEW(&ex->arena, struct cm_target);
        ex->targets[0] = (struct cm_target){.provider = found, .weight = 1};
        ex->n_targets = 1;
        return 0;
    }
    if (candidates(ex).n == 0)
        return cm_fail(err, CM_ERR_NOT_FOUND,
                       "unknown path " CM_PRI ", and no provider takes what is only passed on",
                       CM_ARG(cm_str_head(ex->path, 100)));
    if (ex->pinned.n > 0)
        return cm_fail_param(
            err, CM_ERR_BAD_REQUEST, "x-chatmux-target",
            "the header x-chatmux-target names " CM_PRI ", which %s. It can go to: " CM_PRI,
            CM_ARG(cm_str_head(ex->pinned, 60)),
            named(ex, ex->pinned) ? "does not take what is only passed on" : "is no provider here",
            CM_ARG(candidates(ex)));
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, "x-chatmux-target",
                         "say in the header x-chatmux-target to which provider this goes: " CM_PRI,
                         CM_ARG(candidates(ex)));
}
