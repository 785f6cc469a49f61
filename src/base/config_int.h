/* What the files of the configuration share: settings on their way into a snapshot, and the slots
 * of the table in it. */
#ifndef CHATMUX_BASE_CONFIG_INT_H
#define CHATMUX_BASE_CONFIG_INT_H

#include "chatmux/base/config.h"

enum cm_conf_scope_kind { CM_SCOPE_FIXED, CM_SCOPE_PROVIDER, CM_SCOPE_MODEL, CM_SCOPE_PRICE };

/* A fixed part of the configuration, one provider, one model or one price: what the offsets of its rows count
 * from. */
struct cm_conf_scope {
    enum cm_conf_scope_kind kind;
    struct cm_str name;     /* of the provider, model or price */
    void *base;             /* cm_config, cm_provider_conf, cm_model_conf or cm_price_conf */
    struct cm_str *origins; /* one for each row of the table; empty = default */
};

/* One value from one source, found in the table but not read yet. */
struct cm_conf_setting {
    enum cm_conf_scope_kind kind;
    size_t index;                  /* of the provider, model or price */
    const struct cm_conf_key *row; /* NULL: a header or option of a provider */
    bool header;
    struct cm_str key; /* as in the table; of a header or option, without its prefix */
    struct cm_str value;
    struct cm_strs items;
    struct cm_str where;
    bool from_file;
};

struct cm_conf_origins {
    struct cm_str *fixed;                          /* one for each row of the table */
    struct cm_str **providers, **models, **prices; /* the same for each of them */
};

/* Everything one reading of the configuration needs. */
struct cm_conf_load {
    struct cm_config *c;
    struct cm_problems *problems;
    struct cm_arena scratch; /* settings and what they are made from */
    char *const *environ_list;
    const struct cm_seed *seed;       /* another gateway's environment is in force; NULL = none */
    const char *seed_by;              /* the variable that chose it */
    size_t seed_provider;             /* place of its provider */
    struct cm_conf_setting *settings; /* owned; in the order of precedence, the last one counts */
    size_t n, cap;
};

struct cm_conf_scope cm_conf_scope_of(const struct cm_config *c, enum cm_conf_scope_kind kind,
                                      size_t index);
/* "provider", "model", "price"; how many of these sections there are. */
const char *cm_conf_scope_name(enum cm_conf_scope_kind kind);
size_t cm_conf_scope_count(const struct cm_config *c, enum cm_conf_scope_kind kind);
/* The row's section as problems write it: "server.", "provider.openai." */
struct cm_str cm_conf_prefix(struct cm_arena *a, const struct cm_conf_scope *scope,
                             const struct cm_conf_key *row);

/* The row of a key, or NULL. In a provider the rows of [upstream] count too. */
const struct cm_conf_key *cm_conf_row(struct cm_str section, struct cm_str key);
bool cm_conf_row_is(const struct cm_conf_key *row, const char *section);
enum cm_conf_scope_kind cm_conf_row_scope(const struct cm_conf_key *row);
bool cm_conf_is_section(struct cm_str name); /* one without a name of its own: "server" … */
struct cm_str cm_conf_nearest_section(struct cm_str name); /* empty when none is near */
struct cm_str cm_conf_nearest_key(struct cm_str section, struct cm_str key);

/* Where a row's value stands in a scope. */
void *cm_conf_slot(const struct cm_conf_scope *scope, const struct cm_conf_key *row);

/* Reads a value into its slot; texts are copied into `arena`. *err says what is expected, with the
 * value unless it is secret. */
int cm_conf_read(struct cm_arena *arena, const struct cm_conf_key *row, struct cm_str value,
                 struct cm_strs items, void *slot, struct cm_err *err);
/* The value in a slot as one would write it on one line; not for lists. */
void cm_conf_write(struct cm_buf *out, const struct cm_conf_key *row, const void *slot);
bool cm_conf_equal(const struct cm_conf_key *row, const void *a, const void *b);

/* A value as problems quote it: cut, printable, the user:password of a URL hidden. */
struct cm_str cm_conf_shown(struct cm_arena *a, struct cm_str value);

/* Addresses; *err says what is expected and never holds the address. */
int cm_conf_url(struct cm_str url, struct cm_err *err);    /* http(s)://host[:port][/path] */
int cm_conf_proxy(struct cm_str url, struct cm_err *err);  /* http, https or socks5h */
int cm_conf_origin(struct cm_str url, struct cm_err *err); /* scheme://host[:port] */
int cm_conf_network(struct cm_str s, struct cm_err *err);  /* address[/bits] */

const char *cm_conf_getenv(char *const *environ_list, const char *name);

/* config_seed.c, in this order. The choice comes before the file is read; then the system's defaults go below the file's settings and
 * its variables above them, its provider becomes one of the configuration's; at last what only the whole shows. */
void cm_conf_choose_seed(struct cm_conf_load *l, bool has_file);
void cm_conf_add_seed(struct cm_conf_load *l);
void cm_conf_check_seed(struct cm_conf_load *l);
/* Where the system kept its data, if that is there: the place of ours below it, in the configuration's arena. */
bool cm_conf_seed_dir(struct cm_conf_load *l, struct cm_str *dir);

/* Settings of the environment and of --set, appended to l->settings. */
void cm_conf_add_environment(struct cm_conf_load *l);
void cm_conf_add_sets(struct cm_conf_load *l, const char *const *sets, size_t n);
/* Finds what a key of a section is; adds the setting, or the problem that it is unknown. */
void cm_conf_add_setting(struct cm_conf_load *l, struct cm_conf_setting s, struct cm_str section,
                         struct cm_str key);
bool cm_conf_is_open_key(struct cm_str key);  /* header.… or x.… */
bool cm_conf_is_option_name(struct cm_str s); /* letters, digits, - _ . */

/* Makes providers and models from the entries of the file and adds its settings. */
void cm_conf_add_file(struct cm_conf_load *l, const struct cm_ini_entry *entries, size_t n);
/* Defaults first, then every setting in its turn. */
void cm_conf_build(struct cm_conf_load *l);

/* What no single value shows: how the values go together. Adds problems, normalises addresses. */
void cm_conf_check(struct cm_conf_load *l);

/* Overwrites what is about to be given back. */
void cm_conf_wipe(struct cm_str s);
void cm_conf_wipe_list(struct cm_strs list);

#endif
