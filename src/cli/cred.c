/* chatmux cred: the operator's accounts. */
#include "command.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define LIST "/admin/api/credentials"
#define CHECK_TIMEOUT_MS 120000

const struct option cm_cli_cred_options[] = {
    {"json", no_argument, NULL, 0},        {"provider", required_argument, NULL, 0},
    {"label", required_argument, NULL, 0}, {"weight", required_argument, NULL, 0},
    {"proxy", required_argument, NULL, 0}, {"max-inflight", required_argument, NULL, 0},
    {"disabled", no_argument, NULL, 0},    {NULL, 0, NULL, 0},
};

/* ---- list ---- */

static void print_table(const struct rows *rows)
{
    static const char *const heads[] = {"ID",      "PROVIDER",  "LABEL",   "HINT",
                                        "SOURCE",  "STATE",     "REASON",  "ENDS",
                                        ">IN USE", ">REQUESTS", ">FAILED", "LAST USED"};
    int64_t now = cm_unix_ms();
    struct table t;

    table_init(&t, heads, CM_COUNT(heads));
    for (size_t i = 0; i < rows->n; i++) {
        yyjson_val *o = rows->v[i];

        table_add(&t, member_text(&t.arena, o, "id"));
        table_add(&t, member_text(&t.arena, o, "provider"));
        table_add(&t, member_text(&t.arena, o, "label"));
        table_add(&t, member_text(&t.arena, o, "hint"));
        table_add(&t, member_text(&t.arena, o, "source"));
        table_add(&t, member_text(&t.arena, o, "state"));
        table_add(&t, member_text(&t.arena, o, "reason"));
        table_add(&t, time_told(&t.arena, member_text(&t.arena, o, "until"), now));
        table_add(&t, member_text(&t.arena, o, "inflight"));
        table_add(&t, member_text(&t.arena, o, "requests"));
        table_add(&t, member_text(&t.arena, o, "failures"));
        table_add(&t, time_told(&t.arena, member_text(&t.arena, o, "last_used"), now));
    }
    table_print(&t);
    table_clear(&t);
}

static struct cm_str list_path(struct command *cmd)
{
    const char *provider = option_value(cmd->args, "provider");
    struct cm_buf path = {0};
    struct cm_str s;

    if (!provider)
        return CM_S(LIST);
    cm_buf_append(&path, CM_S(LIST "?provider="));
    cm_percent(&path, cm_str_of(provider));
    s = cm_arena_str(&cmd->arena, cm_buf_str(&path));
    cm_buf_clear(&path);
    return s;
}

static int cred_list(struct command *cmd, int argc, char **argv)
{
    struct rows rows;

    if (argc > 0)
        return command_usage("cred", "list takes no \"%s\"", argv[0]);
    if (command_list(cmd, list_path(cmd), &rows) < 0)
        return cmd->exit;
    if (option_given(cmd->args, "json"))
        command_print_rows(&rows);
    else
        print_table(&rows);
    return 0;
}

/* ---- add ---- */

static int put_number(struct command *cmd, struct cm_buf *json, const char *option,
                      const char *member)
{
    const char *text = option_value(cmd->args, option);
    uint64_t v;

    if (!text)
        return 0;
    if (!cm_str_to_u64(cm_str_of(text), INT64_MAX, &v))
        return command_usage("cred", "--%s must be a number, not \"%s\"", option, text);
    cm_buf_printf(json, ",\"%s\":%llu", member, (unsigned long long)v);
    return 0;
}

static void put_text(struct command *cmd, struct cm_buf *json, const char *name)
{
    const char *text = option_value(cmd->args, name);

    if (!text)
        return;
    cm_buf_printf(json, ",\"%s\":", name);
    cm_json_put_str(json, cm_str_of(text));
}

static void print_added(struct command *cmd)
{
    yyjson_doc *doc = command_parse(cmd);
    yyjson_val *o = yyjson_doc_get_root(doc);
    struct cm_str state = cm_json_str(cm_json_get(o, "state"));

    if (option_given(cmd->args, "json")) {
        command_print_json(cmd);
    } else if (doc) {
        printf("credential " CM_PRI " (", CM_ARG(cm_json_str(cm_json_get(o, "id"))));
        client_print(cm_json_str(cm_json_get(o, "label")));
        printf(") is added: " CM_PRI "\n", CM_ARG(state));
    }
    yyjson_doc_free(doc);
}

static int add_secret(struct command *cmd, const char *provider, struct cm_str secret)
{
    struct cm_buf json = {0};
    int rc;

    cm_buf_append(&json, CM_S("{\"provider\":"));
    cm_json_put_str(&json, cm_str_of(provider));
    put_text(cmd, &json, "label");
    put_text(cmd, &json, "proxy");
    if (option_given(cmd->args, "disabled"))
        cm_buf_append(&json, CM_S(",\"enabled\":false"));
    rc = put_number(cmd, &json, "weight", "weight");
    if (rc == 0)
        rc = put_number(cmd, &json, "max-inflight", "max_inflight");
    if (rc == 0) {
        cm_buf_append(&json, CM_S(",\"secret\":"));
        cm_json_put_str(&json, secret);
        cm_buf_put(&json, '}');
        rc = command_ask(cmd, "POST", CM_S(LIST), cm_buf_str(&json), CLIENT_TIMEOUT_MS) < 0
                 ? cmd->exit
                 : 0;
    }
    cm_wipe(json.p, json.n);
    cm_buf_clear(&json);
    if (rc == 0)
        print_added(cmd);
    return rc;
}

static int cred_add(struct command *cmd, int argc, char **argv)
{
    struct cm_buf secret = {0};
    int rc = CM_EXIT_USAGE;

    if (argc < 1 || argc > 2)
        return command_usage("cred", "add takes the name of a provider");
    if (argc == 2) {
        fprintf(
            stderr,
            "chatmux cred: a secret on the command line is seen by every user of this machine and kept in the shell's history; "
            "next time let it be asked for, or pipe it in\n");
        return add_secret(cmd, argv[0], cm_str_of(argv[1]));
    }
    if (secret_read("Secret (API key, cookie or token)", &secret) == 0)
        rc = add_secret(cmd, argv[0], cm_buf_str(&secret));
    if (secret.p)
        cm_wipe(secret.p, secret.cap);
    cm_buf_clear(&secret);
    return rc;
}

/* ---- one or several, by id or label ---- */

struct action {
    const char *name, *method, *path_end, *json, *done;
};

static int print_check(struct command *cmd, struct cm_str id)
{
    yyjson_doc *doc = command_parse(cmd);
    yyjson_val *o = yyjson_doc_get_root(doc);
    bool ok = yyjson_get_bool(cm_json_get(o, "ok"));

    if (!doc)
        return cmd->exit;
    printf("credential " CM_PRI " is %s: ", CM_ARG(id), ok ? "good" : "not good");
    client_print(cm_json_str(cm_json_get(o, "message")));
    printf(" (" CM_PRI ", %lld ms)\n", CM_ARG(cm_json_str(cm_json_get(o, "state"))),
           (long long)yyjson_get_sint(cm_json_get(o, "ms")));
    yyjson_doc_free(doc);
    return ok ? 0 : CM_EXIT_USAGE;
}

static int act(struct command *cmd, const struct action *a, const char *text)
{
    struct cm_str id = command_resolve(cmd, list_path(cmd), "label", "credential", text), path;

    if (id.n == 0)
        return cmd->exit;
    path = cm_arena_printf(&cmd->arena, LIST "/" CM_PRI "%s", CM_ARG(id), a->path_end);
    if (command_ask(cmd, a->method, path, cm_str_of(a->json), CHECK_TIMEOUT_MS) < 0)
        return cmd->exit;
    if (option_given(cmd->args, "json"))
        command_print_json(cmd);
    else if (!a->done)
        return print_check(cmd, id);
    else
        printf("credential " CM_PRI " %s\n", CM_ARG(id), a->done);
    return 0;
}

static const struct action actions[] = {
    {"rm", "DELETE", "", NULL, "is removed"},
    {"check", "POST", "/check", NULL, NULL},
    {"enable", "PATCH", "", "{\"enabled\":true}", "is enabled"},
    {"disable", "PATCH", "", "{\"enabled\":false}", "is disabled"},
    {"reset", "POST", "/reset", NULL, "is reset"},
};

static int cred_act(struct command *cmd, const struct action *a, int argc, char **argv)
{
    int rc = 0;

    if (argc == 0)
        return command_usage("cred", "%s takes the ID or label of one or more credentials",
                             a->name);
    for (int i = 0; i < argc && cmd->exit != CM_EXIT_UNREACHABLE; i++) {
        int one = act(cmd, a, argv[i]);

        rc = one ? one : rc;
    }
    return rc;
}

int cm_cli_cred(const struct cm_cli_args *args)
{
    const char *verb = args->argc > 0 ? args->argv[0] : "";
    const struct action *action = NULL;
    bool list = strcmp(verb, "list") == 0, add = strcmp(verb, "add") == 0;
    struct command cmd;
    int rc;

    for (size_t i = 0; i < CM_COUNT(actions); i++)
        if (strcmp(actions[i].name, verb) == 0)
            action = &actions[i];
    if (!list && !add && !action)
        return command_usage("cred",
                             "it takes list, add, rm, check, enable, disable or reset%s%s%s",
                             *verb ? ", not \"" : "", verb, *verb ? "\"" : "");
    if (command_open(&cmd, "cred", args) < 0)
        return cmd.exit;
    if (action)
        rc = cred_act(&cmd, action, args->argc - 1, args->argv + 1);
    else
        rc = (list ? cred_list : cred_add)(&cmd, args->argc - 1, args->argv + 1);
    command_close(&cmd);
    return rc;
}
