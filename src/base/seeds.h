/* The environments of the gateways people come from: for each one a table that says what its variables mean here. config_seed.c
 * reads it, so that a new system is a table and nothing else. Constant; any thread. */
#ifndef CHATMUX_BASE_SEEDS_H
#define CHATMUX_BASE_SEEDS_H

#include <stddef.h>

enum cm_seed_form {
    CM_SEED_TEXT, /* as it is */
    CM_SEED_LIST, /* between commas; empty items are dropped */
    CM_SEED_NUMBER, /* decimal digits; anything else leaves the default, as in that system, and is told */
    CM_SEED_SECONDS, /* the same, becomes a duration */
    CM_SEED_DAYS,    /* a duration, if there is at least one */
    CM_SEED_PORT,    /* of server.listen, on all addresses */
    CM_SEED_PROXY,   /* socks5:// means socks5h:// there */
    CM_SEED_WORDS,   /* `words` translate it */
    CM_SEED_IGNORED  /* accepted, without effect; `words` says why */
};

/* One variable may have several rows. */
struct cm_seed_var {
    const char *name;
    enum cm_seed_form form;
    const char *section,
        *key; /* "provider" is the system's own one; key with "x." is an adapter's option. IGNORED: NULL */
    /* WORDS: "1=hide|*=think": value=ours, * for every other value; one that is not there changes nothing. */
    const char *words;
};

struct cm_seed_default {
    const char *section, *key, *value;
};

struct cm_seed {
    const char *name; /* of CHATMUX_COMPAT and of server.compat */
    const char
        *provider; /* name and type of its provider; NULL: the system is not understood yet */
    const char
        *needs; /* the variable that must bring credentials; NULL = they come by other ways */
    const char *data_dir; /* what its image mounts; ours lies below it */
    const char *old_data; /* a file there that `chatmux import` understands; NULL = none */
    const char *
        also_listen; /* the port of its other versions: in our image without PORT there, too; NULL = none */
    const struct cm_seed_var *vars;         /* ends with a NULL name */
    const struct cm_seed_default *defaults; /* ends with a NULL key */
};

extern const struct cm_seed cm_seeds[];
extern const size_t cm_seeds_n;

#endif
