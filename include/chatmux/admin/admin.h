/* The operator's side: /admin/api, the old admin routes of hixai2api, /openapi.json and /docs. Loop thread only. */
#ifndef CHATMUX_ADMIN_ADMIN_H
#define CHATMUX_ADMIN_ADMIN_H

#include "chatmux/gateway/gateway.h"

struct cm_admin;

/* Reads the configuration again. 0: `changed` names what differs, in the arena. -1: the problems tell, and nothing has changed. */
typedef int cm_admin_reload_fn(void *arg, struct cm_arena *arena, struct cm_strs *changed,
                               struct cm_problems *problems);

/* Mounts every route. */
struct cm_admin *cm_admin_new(struct cm_gateway *gw, cm_admin_reload_fn *reload, void *arg);
/* After the gateway has closed. NULL is fine. */
void cm_admin_free(struct cm_admin *admin);

#endif
