/* What the commands on the admin API share: asking, complaining, secrets, tables. */
#ifndef CHATMUX_SRC_CLI_COMMAND_H
#define CHATMUX_SRC_CLI_COMMAND_H

#include "chatmux/codec/json.h"
#include "client.h"

struct command {
    const char *name; /* "cred" */
    const struct cm_cli_args *args;
    struct client client;
    struct client_answer answer; /* the latest */
    struct cm_arena arena;       /* texts of this run */
    int exit;                    /* why the latest step failed */
};

/* Finds the gateway and the admin secret. -1: complained, and cmd->exit is set; nothing is to be closed. */
int command_open(struct command *cmd, const char *name, const struct cm_cli_args *args);
void command_close(struct command *cmd);

/* -1: no answer, or one that is no 2xx; complained, and cmd->exit is set. */
int command_ask(struct command *cmd, const char *method, struct cm_str path, struct cm_str json,
                int64_t timeout_ms);
/* The latest answer as it came. */
void command_print_json(const struct command *cmd);
/* Its members; NULL (complained) when it is no JSON. Free with yyjson_doc_free(). */
yyjson_doc *command_parse(struct command *cmd);

/* Every item of a list, page by page: rows are yyjson values in documents that live as long as the arena. -1 as above. */
struct rows {
    yyjson_val **v;
    size_t n;
};
int command_list(struct command *cmd, struct cm_str path, struct rows *out);
void command_print_rows(const struct rows *rows);
/* What a person wrote, an id or a name, as an id: `member` holds the name ("label", "name"). "" : complained. */
struct cm_str command_resolve(struct command *cmd, struct cm_str list_path, const char *member,
                              const char *what, const char *text);

/* Usage: complains on standard error with a hint at the help, and returns CM_EXIT_USAGE. */
int command_usage(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* NULL: not given. */
const char *option_value(const struct cm_cli_args *args, const char *name);
bool option_given(const struct cm_cli_args *args, const char *name);

/* secret.c: a secret from the terminal without an echo, or all of standard input when that is no terminal. -1: none came, complained. The
 * caller wipes. */
int secret_read(const char *prompt, struct cm_buf *out);

/* ---- table.c ---- */

/* Columns padded to the widest; what is not ASCII counts by characters. */
struct table {
    struct cm_arena arena;
    const char *const
        *heads; /* a name that begins with ">" is aligned to the right, without that sign */
    size_t columns, n, cap;
    struct cm_str *cells; /* n of them, row after row; owned */
};
void table_init(struct table *t, const char *const *heads, size_t columns);
void table_add(struct table *t,
               struct cm_str cell); /* row after row; "" shows as "-"; control characters as "?" */
void table_add_int(struct table *t, int64_t v);
void table_print(const struct table *t);
void table_clear(struct table *t);

/* "in 4 min", "3 h ago"; "" for what is no time. */
struct cm_str time_told(struct cm_arena *arena, struct cm_str rfc3339, int64_t now_ms);
/* A member as it is told in a table: null and a missing one are "". */
struct cm_str member_text(struct cm_arena *arena, yyjson_val *object, const char *name);

#endif
