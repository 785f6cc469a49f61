/* Clients: requests that a gateway gets, and what they make of the answers. clients.c stands in for io/httpd's requests and responses. */
#ifndef CHATMUX_SIM_CLIENTS_H
#define CHATMUX_SIM_CLIENTS_H

#include "chatmux/io/httpd.h"
#include "script.h"

struct client_figures {
    uint64_t asked, ended, whole, errors, cut,
        left; /* whole: good answers; cut: an error behind the beginning of one */
    uint64_t by_status[600], by_dialect[DIALECTS]; /* by_dialect: good answers */
    uint64_t digest; /* of everything that clients saw, in order: equal for equal seeds */
};
struct client_figures *clients_figures(void);

struct client_question {
    const char *key, *model;
    enum dialect dialect;
    bool streamed;
};
/* One client asks. It may leave early or read slowly. When its answer has ended it is checked, and on_end(arg) follows. */
void client_ask(struct cm_loop *loop, const struct cm_httpd_handler *gateway,
                const struct client_question *ask, void (*on_end)(void *arg), void *arg);

#endif
