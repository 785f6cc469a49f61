/* anthropic: where calls go and what stands in their heads (protocol notes, section 1). */
#include "anthropic_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/version.h"

static bool is_oauth(struct cm_str secret)
{
    return cm_str_starts(secret, CM_S("sk-ant-oat"));
}

struct cm_str anthropic_path(struct cm_run *run, struct cm_str path, struct cm_str query)
{
    const bool has = cm_str_ends(cm_run_instance(run)->base_url, CM_S("/v1"));

    return cm_arena_printf(cm_run_arena(run), "%s" CM_PRI "%s" CM_PRI, has ? "" : "/v1",
                           CM_ARG(path), query.n > 0 ? "?" : "", CM_ARG(query));
}

void anthropic_add_header(struct anthropic_headers *h, struct cm_str name, struct cm_str value)
{
    if (h->n < ANTHROPIC_HEADERS_MAX)
        h->v[h->n++] = (struct cm_header){name, value};
}

/* API keys go into x-api-key, tokens of an account into Authorization. */
static void add_credential(struct cm_run *run, struct anthropic_headers *h)
{
    const struct cm_str secret = cm_run_cred(run)->secret;
    const struct cm_str how = cm_option_value(cm_run_instance(run), "auth");
    const bool bearer =
        cm_str_eq(how, CM_S("bearer")) || (cm_str_eq(how, CM_S("auto")) && is_oauth(secret));

    if (secret.n == 0)
        return;
    if (bearer)
        anthropic_add_header(h, CM_S("Authorization"),
                             cm_arena_join(cm_run_arena(run), CM_S("Bearer "), secret));
    else
        anthropic_add_header(h, CM_S("x-api-key"), secret);
}

/* Version and capabilities: the client's own where it speaks the dialect, whatever they are called. */
static void add_dialect(struct cm_run *run, const struct cm_chat *chat, struct anthropic_headers *h)
{
    const struct cm_instance *in = cm_run_instance(run);
    struct cm_str beta = CM_STR_NONE, more = cm_option_value(in, "oauth_beta");
    bool versioned = false;

    for (size_t i = 0; chat && i < chat->n_headers; i++) {
        const struct cm_header *c = &chat->headers[i];

        if (cm_str_eq_nocase(c->name, CM_S("anthropic-beta"))) {
            beta = beta.n == 0 ? c->value
                               : cm_arena_printf(cm_run_arena(run), CM_PRI "," CM_PRI, CM_ARG(beta),
                                                 CM_ARG(c->value));
        } else if (cm_str_starts_nocase(c->name, CM_S("anthropic-"))) {
            versioned |= cm_str_eq_nocase(c->name, CM_S("anthropic-version"));
            anthropic_add_header(h, c->name, c->value);
        }
    }
    if (!versioned)
        anthropic_add_header(h, CM_S("anthropic-version"), cm_option_value(in, "version"));
    if (is_oauth(cm_run_cred(run)->secret) && more.n > 0 && !cm_str_has(beta, more))
        beta = beta.n == 0 ? more
                           : cm_arena_printf(cm_run_arena(run), CM_PRI "," CM_PRI, CM_ARG(beta),
                                             CM_ARG(more));
    if (beta.n > 0)
        anthropic_add_header(h, CM_S("anthropic-beta"), beta);
}

void anthropic_credential(struct cm_run *run, const struct cm_chat *chat,
                          struct anthropic_headers *h)
{
    anthropic_add_header(h, CM_S("User-Agent"), CM_S("chatmux/" CM_VERSION));
    add_credential(run, h);
    add_dialect(run, chat && chat->dialect == CM_DIALECT_ANTHROPIC ? chat : NULL, h);
}
