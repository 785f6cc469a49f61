/* Commands that talk to a running gateway. Each prints what it has to say and returns the exit code of the process: 0 fine, 1 usage or
 * configuration, or the gateway refused, 3 the gateway is not reachable, or not ready.
 *
 * The gateway is found by CHATMUX_ADMIN_URL (http://, https:// or unix:/path) and CHATMUX_ADMIN_SECRET, else by the configuration: its first listener and
 * auth.admin_secret. */
#ifndef CHATMUX_CLI_CLI_H
#define CHATMUX_CLI_CLI_H

#include "chatmux/base/config.h"

#include <getopt.h>

#define CM_EXIT_USAGE 1
#define CM_EXIT_UNREACHABLE 3

/* One screen of what runs; also the health check of a container. */
int cm_cli_status(const struct cm_conf_source *source, int argc, char **argv);

/* What stands behind a command. */
struct cm_cli_option {
    const char *name, *value; /* of --name value; value NULL when it takes none */
};
struct cm_cli_args {
    const struct cm_conf_source *source;
    int argc; /* without the command itself */
    char **argv;
    const struct cm_cli_option *options; /* the command's own */
    size_t n_options;
};

/* The options each of these takes besides the common ones; they end with a NULL name. */
extern const struct option cm_cli_cred_options[], cm_cli_key_options[], cm_cli_rekey_options[],
    cm_cli_backup_options[], cm_cli_probe_options[], cm_cli_explain_options[];

int cm_cli_cred(const struct cm_cli_args *args);
int cm_cli_key(const struct cm_cli_args *args);
int cm_cli_rekey(const struct cm_cli_args *args);
int cm_cli_backup(const struct cm_cli_args *args);
int cm_cli_probe(const struct cm_cli_args *args);
int cm_cli_explain(const struct cm_cli_args *args);

/* What another gateway kept. Unlike the others it also works while no gateway runs: then it goes into the store directly. */
int cm_cli_import(const struct cm_cli_args *args);

#endif
