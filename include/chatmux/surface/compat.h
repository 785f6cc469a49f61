/* The words of the gateways people come from (server.compat): their error bodies and statuses, and the members that every one of their
 * answers has. Everything OpenAI's clients expect stays beside it. Pure. Loop thread only. */
#ifndef CHATMUX_SURFACE_COMPAT_H
#define CHATMUX_SURFACE_COMPAT_H

#include "chatmux/base/config.h"
#include "chatmux/surface/surface.h"

/* The surface to use instead of `own`: a variant of the OpenAI chat surface in the words of `compat` (of genspark2api those of pictures and
 * videos, too), or `own` itself for other dialects and for CM_COMPAT_NONE.
 *
 * Its error_body() takes what the class tells:
 *   - UNAUTHORIZED, a CLIENT_LIMIT without a code (too often), FORBIDDEN with the code "address_blocked": the body of that system;
 *   - failures of accounts and platform: {"error":"<its text>","detail":"<ours>"} (pictures and videos: an object with the text);
 *   - what that system has no words for: as OpenAI writes it.
 * error_status() gives the status that goes with it. */
const struct cm_surface *cm_surface_compat(const struct cm_surface *own, enum cm_compat compat);

/* What GET / answers; "" is an empty body. NULL slice (p): as without compat. */
struct cm_str cm_compat_root(enum cm_compat compat);

#endif
