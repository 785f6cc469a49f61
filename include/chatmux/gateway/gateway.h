/* The gateway: client requests in, attempts at providers, answers out. Knows both ends, and each only through its header. Loop thread only. */
#ifndef CHATMUX_GATEWAY_GATEWAY_H
#define CHATMUX_GATEWAY_GATEWAY_H

#include "chatmux/base/config.h"
#include "chatmux/base/metrics.h"
#include "chatmux/provider/run.h"

struct cm_gateway;

/* Checks what only the upper layers know of a configuration (adapter types, options, routes). -1: the problems tell. */
int cm_gateway_check(struct cm_config *config, struct cm_problems *problems);

/* NULL when the configuration has problems. Takes a reference to it. */
struct cm_gateway *cm_gateway_new(const struct cm_host *host, struct cm_config *config,
                                  struct cm_problems *problems);

/* Serves from now on with another configuration; requests in flight keep theirs. -1: problems, and nothing has changed. */
int cm_gateway_reload(struct cm_gateway *gw, struct cm_config *config,
                      struct cm_problems *problems);

/* What the HTTP server calls; valid as long as the gateway. */
struct cm_httpd_handler cm_gateway_handler(struct cm_gateway *gw);

/* /readyz turns 503. */
void cm_gateway_drain(struct cm_gateway *gw);
/* Ends every open exchange with an error in its dialect, at the drain deadline. */
void cm_gateway_cut(struct cm_gateway *gw);

/* After the HTTP server has closed. Runs that still tidy up keep what they need; on_closed comes on a later turn, when the last is gone. */
void cm_gateway_close(struct cm_gateway *gw, void (*on_closed)(void *arg), void *arg);

struct cm_metrics *cm_gateway_metrics(struct cm_gateway *gw);

#endif
