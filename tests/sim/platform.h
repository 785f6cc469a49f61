/* Scripted platforms of three houses (OpenAI-compatible, Anthropic, Gemini) behind the transport, with faults. They know what a gateway must not do to an account, and fail the simulation when
 * it happens: more requests at once than agreed, any while it is limited, any after it was refused. */
#ifndef CHATMUX_SIM_PLATFORM_H
#define CHATMUX_SIM_PLATFORM_H

#include "chatmux/provider/run.h"

struct platform;

#define PLATFORM_HOUSES 3 /* up, an, ge */

/* cap: attempts at once per account. */
struct platform *platform_new(struct cm_loop *loop, unsigned cap);
void platform_free(struct platform *p);
struct cm_transport platform_transport(struct platform *p);

/* The accounts of a house as configuration, one indented line each. */
void platform_put_accounts(const struct platform *p, unsigned house, struct cm_buf *out);
unsigned platform_inflight(const struct platform *p);
/* From now on every request meets a fault with this chance. */
void platform_faults(struct platform *p, unsigned in_thousand);
/* Everything fails until told otherwise. */
void platform_outage(struct platform *p, bool on);

struct platform_figures {
    uint64_t asked, faults, refused, limited;
    uint64_t broken_model, broken,
        kept; /* asked for the model that fails on some; of them on such accounts; what those were asked besides */
};
struct platform_figures platform_figures(const struct platform *p);

#endif
