/* Commands that talk to a running gateway. Each prints what it has to say and returns the exit code of the process: 0 fine, 1 usage or
 * configuration, 3 the gateway is not reachable, or not ready.
 *
 * The gateway is found by CHATMUX_ADMIN_URL (http://, https:// or unix:/path) and CHATMUX_ADMIN_SECRET, else by the configuration: its first listener and
 * auth.admin_secret. */
#ifndef CHATMUX_CLI_CLI_H
#define CHATMUX_CLI_CLI_H

#include "chatmux/base/config.h"

#define CM_EXIT_USAGE 1
#define CM_EXIT_UNREACHABLE 3

/* One screen of what runs; also the health check of a container. */
int cm_cli_status(const struct cm_conf_source *source, int argc, char **argv);

#endif
