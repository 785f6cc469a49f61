/* Asking the admin API, and saying in plain words what went wrong. */
#include "command.h"

#include "chatmux/base/mem.h"

#include <stdarg.h>
#include <stdio.h>

static void drop_doc(void *doc)
{
    yyjson_doc_free(doc);
}

int command_usage(const char *name, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "chatmux %s: ", name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see: chatmux help %s\n", name);
    return CM_EXIT_USAGE;
}

const char *option_value(const struct cm_cli_args *args, const char *name)
{
    const char *value = NULL;

    for (size_t i = 0; i < args->n_options; i++)
        if (strcmp(args->options[i].name, name) == 0)
            value = args->options[i].value; /* the last one counts */
    return value;
}

bool option_given(const struct cm_cli_args *args, const char *name)
{
    for (size_t i = 0; i < args->n_options; i++)
        if (strcmp(args->options[i].name, name) == 0)
            return true;
    return false;
}

int command_open(struct command *cmd, const char *name, const struct cm_cli_args *args)
{
    struct cm_err err = {0};

    *cmd = (struct command){.name = name, .args = args, .exit = CM_EXIT_USAGE};
    if (client_open(&cmd->client, args->source, &err) < 0) {
        fprintf(stderr, "chatmux %s: %s\n", name, err.msg);
        return -1;
    }
    if (cmd->client.secret.n == 0) {
        fprintf(
            stderr,
            "chatmux %s: no admin secret is known. Write admin_secret = … below [auth] in the gateway's configuration\n"
            "(openssl rand -hex 24 makes a good one) and reload or restart it; or set CHATMUX_ADMIN_SECRET here.\n",
            name);
        client_close(&cmd->client);
        return -1;
    }
    return 0;
}

void command_close(struct command *cmd)
{
    if (cmd->answer.body.p)
        cm_wipe(cmd->answer.body.p, cmd->answer.body.cap);
    cm_buf_clear(&cmd->answer.body);
    cm_arena_clear(&cmd->arena);
    client_close(&cmd->client);
}

/* The message of an error in OpenAI's shape, else the beginning of what came. */
static void complain(const struct command *cmd)
{
    struct cm_str body = cm_buf_str(&cmd->answer.body);
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_request, NULL);
    struct cm_str message =
        cm_json_str(cm_json_get(cm_json_get(yyjson_doc_get_root(doc), "error"), "message"));

    fprintf(stderr, "chatmux %s: ", cmd->name);
    if (cmd->answer.status == 401)
        fprintf(
            stderr,
            "the gateway refused the admin secret (auth.admin_secret, or CHATMUX_ADMIN_SECRET)\n");
    else if (message.n > 0)
        fprintf(stderr, CM_PRI "\n", CM_ARG(message));
    else
        fprintf(stderr, "the gateway answered with status %d\n", cmd->answer.status);
    yyjson_doc_free(doc);
}

int command_ask(struct command *cmd, const char *method, struct cm_str path, struct cm_str json,
                int64_t timeout_ms)
{
    struct cm_err err = {0};

    cmd->exit = CM_EXIT_UNREACHABLE;
    if (client_ask(&cmd->client, method, cm_arena_z(&cmd->arena, path), json, timeout_ms,
                   &cmd->answer, &err) < 0) {
        fprintf(stderr,
                "chatmux %s: no answer from the gateway at " CM_PRI ": %s\n"
                "Start it (chatmux serve), or set CHATMUX_ADMIN_URL if it is elsewhere.\n",
                cmd->name, CM_ARG(cmd->client.address), err.msg);
        return -1;
    }
    cmd->exit = CM_EXIT_USAGE;
    if (cmd->answer.status / 100 == 2)
        return 0;
    complain(cmd);
    return -1;
}

void command_print_json(const struct command *cmd)
{
    fwrite(cmd->answer.body.p, 1, cmd->answer.body.n, stdout);
    putchar('\n');
}

yyjson_doc *command_parse(struct command *cmd)
{
    struct cm_err err = {0};
    yyjson_doc *doc = cm_json_parse(cm_buf_str(&cmd->answer.body), &cm_json_limits_request, &err);

    if (!doc)
        fprintf(stderr, "chatmux %s: the gateway's answer cannot be read: %s\n", cmd->name,
                err.msg);
    cmd->exit = CM_EXIT_USAGE;
    return doc;
}

/* ---- lists ---- */

static int add_page(struct command *cmd, struct rows *out, struct cm_str *next)
{
    yyjson_doc *doc = command_parse(cmd);
    yyjson_val *data = cm_json_get(yyjson_doc_get_root(doc), "data"), *item;
    yyjson_val **v;
    size_t i, n;

    if (!doc)
        return -1;
    cm_arena_defer(&cmd->arena, drop_doc, doc);
    v = CM_ARENA_ARRAY(&cmd->arena, yyjson_val *, out->n + yyjson_arr_size(data) + 1);
    if (out->n > 0)
        memcpy(v, out->v, out->n * sizeof(*v));
    yyjson_arr_foreach(data, i, n, item) v[out->n++] = item;
    out->v = v;
    *next = cm_json_str(cm_json_get(yyjson_doc_get_root(doc), "next"));
    return 0;
}

int command_list(struct command *cmd, struct cm_str path, struct rows *out)
{
    const char *mark = cm_str_find_char(path, '?') == SIZE_MAX ? "?" : "&";
    struct cm_str next = CM_STR_NONE;

    *out = (struct rows){0};
    do {
        struct cm_str page = path;

        if (next.n > 0)
            page = cm_arena_printf(&cmd->arena, CM_PRI "%scursor=" CM_PRI, CM_ARG(path), mark,
                                   CM_ARG(next));
        if (command_ask(cmd, "GET", page, CM_STR_NONE, CLIENT_TIMEOUT_MS) < 0 ||
            add_page(cmd, out, &next) < 0)
            return -1;
    } while (next.n > 0);
    return 0;
}

void command_print_rows(const struct rows *rows)
{
    struct cm_buf out = {0};

    cm_buf_append(&out, CM_S("{\"data\":["));
    for (size_t i = 0; i < rows->n; i++) {
        if (i > 0)
            cm_buf_put(&out, ',');
        cm_json_put_val(&out, rows->v[i]);
    }
    cm_buf_append(&out, CM_S("],\"next\":null}\n"));
    fwrite(out.p, 1, out.n, stdout);
    cm_buf_clear(&out);
}

struct cm_str command_resolve(struct command *cmd, struct cm_str list_path, const char *member,
                              const char *what, const char *text)
{
    struct cm_str wanted = cm_str_of(text), found = CM_STR_NONE;
    struct rows rows;
    uint64_t id;
    size_t hits = 0;

    if (cm_str_to_u64(wanted, UINT64_MAX, &id))
        return wanted;
    if (command_list(cmd, list_path, &rows) < 0)
        return CM_STR_NONE;
    for (size_t i = 0; i < rows.n; i++) {
        struct cm_str own = cm_json_str(cm_json_get(rows.v[i], "id"));

        if (own.n > 0 && cm_str_eq(cm_json_str(cm_json_get(rows.v[i], member)), wanted)) {
            found = own;
            hits++;
        }
    }
    cmd->exit = CM_EXIT_USAGE;
    if (hits == 1)
        return found;
    fprintf(stderr,
            hits ? "chatmux %s: %zu %ss are called \"%s\": say which one by its ID\n"
                 : "chatmux %s: %zu %ss are called \"%s\"\n",
            cmd->name, hits, what, text);
    return CM_STR_NONE;
}
