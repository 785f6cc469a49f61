/* Shows a configuration as a file that can be read again. */
#include "config_int.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/mem.h"

static bool is_among(struct cm_str word, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (cm_str_eq_nocase(word, cm_str_of(words[i])))
            return true;
    }
    return false;
}

bool cm_conf_secret_name(struct cm_str name)
{
    static const char *const anywhere[] = {"apikey",     "authorization", "cookie",
                                           "credential", "credentials",   "passwd",
                                           "password",   "secret",        "session"};
    static const char *const at_the_end[] = {"auth", "key", "token"}; /* not max_tokens, key_id */
    struct cm_str word = CM_STR_NONE;

    while (name.n > 0) {
        size_t n = 0;

        while (n < name.n && !strchr("-_.", name.p[n]))
            n++;
        word = cm_str_head(name, n);
        if (is_among(word, anywhere, CM_COUNT(anywhere)))
            return true;
        name = cm_str_from(name, n + 1);
    }
    return is_among(word, at_the_end, CM_COUNT(at_the_end));
}

/* ${ is doubled in its dollar, so that reading does not look for a variable. */
static void put_text(struct cm_buf *out, struct cm_str s)
{
    for (size_t at = cm_str_find(s, CM_S("${")); at != SIZE_MAX; at = cm_str_find(s, CM_S("${"))) {
        cm_buf_append(out, cm_str_head(s, at));
        cm_buf_append(out, CM_S("$${"));
        s = cm_str_from(s, at + 2);
    }
    cm_buf_append(out, s);
}

static bool needs_quotes(struct cm_str item)
{
    return item.n > 0 && (item.p[0] == '"' || cm_str_trim(item).n != item.n);
}

static void put_item(struct cm_buf *out, struct cm_str item)
{
    struct cm_str part;

    if (!needs_quotes(item)) {
        put_text(out, item);
        return;
    }
    cm_buf_put(out, '"');
    while (item.n > 0) {
        bool quote = cm_str_find_char(item, '"') != SIZE_MAX;

        part = cm_str_cut(&item, '"');
        put_text(out, part);
        if (quote)
            cm_buf_append(out, CM_S("\"\""));
    }
    cm_buf_put(out, '"');
}

static void put_fingerprint(struct cm_buf *out, struct cm_str secret)
{
    char print[CM_FINGERPRINT_CAP];

    if (secret.n == 0)
        return;
    cm_fingerprint(secret, print);
    put_text(out, cm_str_of(print));
}

/* Behind "scheme://" at the very beginning; 0 when this is no URL. */
static size_t authority_start(struct cm_str s)
{
    size_t mark = cm_str_find(s, CM_S("://"));

    for (size_t i = 0; i < mark && mark != SIZE_MAX; i++) {
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= 'A' && s.p[i] <= 'Z') ||
              (s.p[i] >= '0' && s.p[i] <= '9')))
            return 0;
    }
    return mark == SIZE_MAX || mark == 0 ? 0 : mark + 3;
}

/* Any text; of a URL without its user and password. */
static void put_url(struct cm_buf *out, struct cm_str url)
{
    size_t from = authority_start(url), end = from;

    for (size_t i = from; from > 0 && i < url.n && !strchr("/?# ", url.p[i]); i++) {
        if (url.p[i] == '@')
            end = i;
    }
    put_text(out, cm_str_head(url, from));
    if (end > from)
        cm_buf_append(out, CM_S("***"));
    put_text(out, cm_str_from(url, end));
}

static void put_list(struct cm_buf *out, struct cm_strs list, bool secret)
{
    bool inline_item = list.n == 1 && !secret && !needs_quotes(list.v[0]) &&
                       cm_str_find_char(list.v[0], ',') == SIZE_MAX;

    for (size_t i = 0; i < list.n; i++) {
        cm_buf_append(out, inline_item ? CM_S(" ") : CM_S("\n    "));
        if (secret)
            put_fingerprint(out, list.v[i]);
        else
            put_item(out, list.v[i]);
    }
}

static void put_origin(struct cm_buf *out, struct cm_str origin)
{
    bool from_file = origin.n > 0 && !cm_str_starts(origin, CM_S("environment ")) &&
                     !cm_str_starts(origin, CM_S("--"));

    cm_buf_append(out, from_file ? CM_S("; from ") : CM_S("; "));
    origin = origin.n > 0 ? origin : CM_S("default");
    for (size_t i = 0; i < origin.n; i++) /* a file's name may hold anything */
        cm_buf_put(out, (unsigned char)origin.p[i] < ' ' ? '?' : origin.p[i]);
    cm_buf_put(out, '\n');
}

static void put_row(struct cm_buf *out, const struct cm_conf_scope *scope,
                    const struct cm_conf_key *row)
{
    const void *slot = cm_conf_slot(scope, row);
    struct cm_buf text = {0};

    put_origin(out, scope->origins[row - cm_conf_keys]);
    cm_buf_append(out, cm_str_of(row->key));
    cm_buf_append(out, CM_S(" ="));
    if (row->type == CM_CONF_LIST) {
        put_list(out, *(const struct cm_strs *)slot, row->secret);
    } else {
        cm_conf_write(&text, row, slot);
        if (text.n > 0)
            cm_buf_put(out, ' ');
        if (row->secret)
            put_fingerprint(out, cm_buf_str(&text));
        else if (strcmp(row->key, "proxy") == 0)
            put_url(out, cm_buf_str(&text));
        else
            put_text(out, cm_buf_str(&text));
        if (text.p)
            cm_wipe(text.p, text.n);
        cm_buf_clear(&text);
    }
    cm_buf_put(out, '\n');
}

/* Whether the first line of an option, written behind the "=", reads as the list it was. */
static bool splits_alike(struct cm_str first, struct cm_strs items)
{
    struct cm_arena scratch = {0};
    struct cm_strs list = cm_ini_list(&scratch, first);
    bool alike = list.n > 0 && items.n > 0 && cm_str_eq(list.v[0], items.v[0]);

    cm_arena_clear(&scratch);
    return alike;
}

static void put_pair(struct cm_buf *out, const char *prefix, const struct cm_conf_pair *pair)
{
    struct cm_str rest = pair->value, line = cm_str_cut(&rest, '\n');
    bool secret = cm_conf_secret_name(pair->key), header = strcmp(prefix, "header.") == 0;

    put_origin(out, pair->where);
    cm_buf_append(out, cm_str_of(prefix));
    cm_buf_append(out, pair->key);
    cm_buf_append(out, CM_S(" ="));
    if (secret) {
        cm_buf_append(out, pair->value.n > 0 ? CM_S(" ") : CM_STR_NONE);
        put_fingerprint(out, pair->value);
    } else if (line.n > 0) {
        cm_buf_append(out, header || splits_alike(line, pair->items) ? CM_S(" ") : CM_S("\n    "));
        put_url(out, line);
        while (rest.n > 0) {
            cm_buf_append(out, CM_S("\n    "));
            put_url(out, cm_str_trim(cm_str_cut(&rest, '\n')));
        }
    }
    cm_buf_put(out, '\n');
}

static void put_provider(struct cm_buf *out, const struct cm_config *c, size_t index)
{
    struct cm_conf_scope scope = cm_conf_scope_of(c, CM_SCOPE_PROVIDER, index);
    const struct cm_provider_conf *p = &c->providers[index];

    cm_buf_printf(out, "\n[provider " CM_PRI "]\n", CM_ARG(p->name));
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        const struct cm_conf_key *row = &cm_conf_keys[i];

        if (cm_conf_row_is(row, "provider") ||
            (cm_conf_row_is(row, "upstream") && scope.origins[i].n > 0))
            put_row(out, &scope, row);
    }
    for (size_t i = 0; i < p->n_headers; i++)
        put_pair(out, "header.", &p->headers[i]);
    for (size_t i = 0; i < p->n_options; i++)
        put_pair(out, "x.", &p->options[i]);
}

/* A model or a price. */
static void put_named(struct cm_buf *out, const struct cm_config *c, enum cm_conf_scope_kind kind,
                      size_t index)
{
    struct cm_conf_scope scope = cm_conf_scope_of(c, kind, index);

    cm_buf_printf(out, "\n[%s " CM_PRI "]\n", cm_conf_scope_name(kind), CM_ARG(scope.name));
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        if (cm_conf_row_scope(&cm_conf_keys[i]) == kind)
            put_row(out, &scope, &cm_conf_keys[i]);
    }
}

void cm_config_print(const struct cm_config *c, struct cm_buf *out)
{
    struct cm_conf_scope fixed = cm_conf_scope_of(c, CM_SCOPE_FIXED, 0);
    const char *section = "";

    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        const struct cm_conf_key *row = &cm_conf_keys[i];

        if (cm_conf_row_scope(row) != CM_SCOPE_FIXED)
            continue;
        if (!cm_conf_row_is(row, section))
            cm_buf_printf(out, "%s[%s]\n", *section ? "\n" : "", row->section);
        section = row->section;
        put_row(out, &fixed, row);
    }
    for (size_t i = 0; i < c->n_providers; i++)
        put_provider(out, c, i);
    for (size_t i = 0; i < c->n_models; i++)
        put_named(out, c, CM_SCOPE_MODEL, i);
    for (size_t i = 0; i < c->n_prices; i++)
        put_named(out, c, CM_SCOPE_PRICE, i);
}
