/* The daemon: every module created in order, the loop, drain, and everything closed in reverse. */
#ifndef CHATMUX_APP_H
#define CHATMUX_APP_H

#include "chatmux/base/config.h"
#include "chatmux/io/tls.h"

/* Runs until it is told to stop. `source` is read again on SIGHUP and is borrowed. Takes the reference to `config`. Exit code: 0 fine, 1 configuration, 2 cannot
 * listen. */
int app_run(struct cm_config *config, const struct cm_conf_source *source);

/* What server.tls_cert and tls_key name; *out NULL when they are empty. -1 after the problem was added. */
int app_load_tls(const struct cm_config *config, struct cm_tls **out, struct cm_problems *problems);

/* Problems as FILE:LINE: text, one a line, on standard error. */
void app_print_problems(const struct cm_problems *problems);

#endif
