/* What other gateways kept, read from their files into one shape, and put into a store that no gateway has open. A gateway that runs
 * takes the same through its admin API (src/cli/import.c). One thread at a time; blocks. */
#ifndef CHATMUX_IMPORT_IMPORT_H
#define CHATMUX_IMPORT_IMPORT_H

#include "chatmux/base/config.h"
#include "chatmux/store/store.h"

struct cm_import_key {
    struct cm_str secret, name; /* name "" = it had none */
    int64_t created_s;          /* Unix; 0 = not known */
};
struct cm_import_cred {
    struct cm_str secret, label; /* the secret as that system had it */
    int64_t created_s;
};
/* A conversation that the account has on its platform. */
struct cm_import_chat {
    struct cm_str
        secret; /* of a credential above, as that system had it; the same slice for all of one */
    struct cm_str model; /* without what is behind it ("-search") */
    struct cm_str
        name; /* by what that system knew it again: as the adapter's old_thread() tells it */
    struct cm_str chat; /* the platform's id */
    int64_t used_s;     /* Unix; 0 = not known */
};
/* Zeroed memory is an empty one; its memory is that of base/secret. */
struct cm_import {
    struct cm_arena arena;
    const char *type; /* of the provider the credentials are for: "hix" */
    struct cm_import_key *keys;
    struct cm_import_cred *creds;
    struct cm_import_chat
        *chats; /* the one used last is the last; one for each id of the platform */
    size_t n_keys, n_creds, n_chats;
    size_t
        unclear; /* conversations with a name that others have, too: they could be anybody's and are left out */
    size_t unusable; /* rows without what is needed */
};
void cm_import_clear(struct cm_import *im);

/* hixai2api: its SQLite file (hix-ai-2-api.db), or a dump of its MySQL database as text (mysqldump; the INSERT lines of other tools do as
 * well). -1: CM_ERR_IO or CM_ERR_BAD_REQUEST, with the line of the dump. */
int cm_import_hixai2api(struct cm_import *im, const char *file, struct cm_err *err);

/* What became of it. */
struct cm_import_result {
    size_t keys, creds;                 /* new */
    size_t known_keys, known_creds;     /* were there already */
    size_t refused_keys, refused_creds; /* cannot be used here; `why` tells of the last one */
    size_t chats, refused_chats;        /* go on here; their account is not here */
    struct cm_err why;
};
/* The provider of the configuration that takes them: the first of that type. NULL and CM_ERR_CONFIG: there is none. */
const struct cm_provider_conf *cm_import_provider(const struct cm_config *config,
                                                  const struct cm_import *im, struct cm_err *err);
/* Into a store that nobody else has open, all or nothing; what is there already stays as it is. Runs the loop until it is on the disk. */
int cm_import_into(struct cm_loop *loop, struct cm_store *store,
                   const struct cm_provider_conf *provider, const struct cm_import *im,
                   struct cm_import_result *out, struct cm_err *err);
/* Opens the configured store for it, and closes it again. */
int cm_import_store(const struct cm_config *config, const struct cm_import *im,
                    struct cm_import_result *out, struct cm_err *err);

#endif
