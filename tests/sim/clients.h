/* Clients: requests that a gateway gets, and what they make of the answers. clients.c stands in for io/httpd's requests and responses. */
#ifndef CHATMUX_SIM_CLIENTS_H
#define CHATMUX_SIM_CLIENTS_H

#include "chatmux/io/httpd.h"

struct client_figures {
    uint64_t asked, ended, whole, errors, cut,
        left; /* whole: good answers; cut: an error behind the beginning of one */
    uint64_t by_status[600];
    uint64_t digest; /* of everything that clients saw, in order: equal for equal seeds */
};
struct client_figures *clients_figures(void);

/* One client asks with this key; `streamed`. It may leave early or read slowly. When its answer has ended it is checked, and on_end(arg) follows. */
void client_ask(struct cm_loop *loop, const struct cm_httpd_handler *gateway, const char *key,
                const char *model, bool streamed, void (*on_end)(void *arg), void *arg);

#endif
