/* The gateway as client commands see it: one request at a time, waiting for the answer. */
#ifndef CHATMUX_SRC_CLI_CLIENT_H
#define CHATMUX_SRC_CLI_CLIENT_H

#include "chatmux/cli/cli.h"
#include "chatmux/io/httpc.h"

struct client {
    struct cm_arena arena;    /* holds every slice below */
    struct cm_config *config; /* owned; NULL when the environment named the gateway */
    struct cm_str base;       /* "http://127.0.0.1:8080", no slash at its end */
    struct cm_str unix_path;  /* "" = over TCP */
    struct cm_str pinned_key; /* of the configured certificate; "" = checked as usual */
    struct cm_str secret;     /* for /admin/api; "" = none; wiped at the end */
    struct cm_str address;    /* as a person would write it */
    struct cm_loop *loop;
    struct cm_httpc *httpc;
};

/* Finds the gateway; asks nothing yet. -1: CM_ERR_CONFIG, and nothing is to be closed. */
int client_open(struct client *c, const struct cm_conf_source *source, struct cm_err *err);
void client_close(struct client *c);

struct client_answer { /* zeroed before the first use; the caller clears the body */
    int status;
    struct cm_buf body;
};
#define CLIENT_TIMEOUT_MS 5000

/* `path` begins with a slash. The admin secret goes along for paths below /admin/api/ only. `json` is sent as the body when it is not empty.
 * -1: no answer within timeout_ms, or none at all; *err says who was asked and why. */
int client_ask(struct client *c, const char *method, const char *path, struct cm_str json,
               int64_t timeout_ms, struct client_answer *out, struct cm_err *err);

/* For terminals: control characters of the text become "?". */
void client_print(struct cm_str text);

#endif
