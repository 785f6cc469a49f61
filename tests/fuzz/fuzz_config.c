/* Any text as a configuration: no crash, and what is accepted reads the same after it was
 * printed. */
#include "chatmux/base/config.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cm_config *parse(struct cm_str text, struct cm_arena *arena)
{
    static char state[] = "STATE_DIRECTORY=/var/lib/chatmux", name[] = "A=b,c";
    char *variables[] = {state, name, NULL};
    struct cm_conf_source src = {.environ_list = variables};
    struct cm_problems problems;
    struct cm_config *c;

    cm_problems_init(&problems, arena);
    c = cm_config_parse("fuzz.ini", text, &src, &problems);
    CM_ASSERT((c == NULL) == (problems.n > 0));
    return c;
}

static const struct cm_conf_pair *pair_at(const struct cm_provider_conf *p, size_t i)
{
    return i < p->n_headers ? &p->headers[i] : &p->options[i - p->n_headers];
}

/* Values that are printed as fingerprints, or without user and password, differ on purpose. Of an
 * option the text must be the same; its list may split otherwise when a variable brought a comma. */
static bool may_differ(const struct cm_config *c, const struct cm_config *again, struct cm_str name)
{
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        const struct cm_conf_key *row = &cm_conf_keys[i];

        if ((row->secret || strcmp(row->key, "proxy") == 0) &&
            cm_str_ends(name, cm_str_of(row->key)))
            return true;
    }
    for (size_t i = 0; i < c->n_providers; i++) {
        const struct cm_provider_conf *p = &c->providers[i], *q = &again->providers[i];

        for (size_t j = 0; j < p->n_headers + p->n_options; j++) {
            const struct cm_conf_pair *pair = pair_at(p, j);

            if (cm_str_ends(name, pair->key) &&
                (cm_conf_secret_name(pair->key) || cm_str_has(pair->value, CM_S("@")) ||
                 (cm_str_has(pair->value, CM_S(",")) &&
                  cm_str_eq(pair->value, pair_at(q, j)->value))))
                return true;
        }
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_arena arena = {0};
    struct cm_buf text = {0};
    struct cm_config *c = parse(cm_str((const char *)data, size), &arena), *again;
    struct cm_strs diff;
    size_t restart;

    if (c) {
        cm_config_print(c, &text);
        again = parse(cm_buf_str(&text), &arena);
        CM_ASSERT(again);
        CM_ASSERT(again->n_providers == c->n_providers && again->n_models == c->n_models);
        for (size_t i = 0; i < c->n_providers; i++)
            CM_ASSERT(again->providers[i].n_headers == c->providers[i].n_headers &&
                      again->providers[i].n_options == c->providers[i].n_options);
        diff = cm_config_diff(&arena, c, again, &restart);
        for (size_t i = 0; i < diff.n; i++)
            CM_ASSERT(may_differ(c, again, diff.v[i]));
        cm_config_unref(again);
    }
    cm_config_unref(c);
    cm_buf_clear(&text);
    cm_arena_clear(&arena);
    return 0;
}
