/* chatmux key: who may use the gateway. */
#include "command.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

#include <stdio.h>

#define LIST "/admin/api/keys"

const struct option cm_cli_key_options[] = {
    {"json", no_argument, NULL, 0},
    {"models", required_argument, NULL, 0},
    {"rpm", required_argument, NULL, 0},
    {"tpm", required_argument, NULL, 0},
    {"max-parallel", required_argument, NULL, 0},
    {"budget", required_argument, NULL, 0},
    {"budget-period", required_argument, NULL, 0},
    {"expires", required_argument, NULL, 0},
    {"key", no_argument, NULL, 0},
    {NULL, 0, NULL, 0},
};

/* ---- list ---- */

static struct cm_str budget_told(struct cm_arena *arena, yyjson_val *key)
{
    struct cm_str usd = member_text(arena, key, "budget_usd");

    if (usd.n == 0)
        return CM_STR_NONE;
    return cm_arena_printf(arena, "$" CM_PRI "/" CM_PRI, CM_ARG(usd),
                           CM_ARG(member_text(arena, key, "budget_period")));
}

/* "gpt-4o, gpt-4o-mini", "all" */
static struct cm_str models_told(struct cm_arena *arena, yyjson_val *key)
{
    yyjson_val *list = cm_json_opt(key, "models"), *item;
    struct cm_str told = CM_STR_NONE;
    size_t i, n;

    if (!list)
        return CM_S("all");
    yyjson_arr_foreach(list, i, n, item) told = cm_arena_printf(
        arena, CM_PRI "%s" CM_PRI, CM_ARG(told), i > 0 ? ", " : "", CM_ARG(cm_json_str(item)));
    return told;
}

static void print_table(const struct rows *rows)
{
    static const char *const heads[] = {"ID",      "NAME",   "HINT",    "SOURCE",
                                        "ENABLED", ">RPM",   ">TPM",    ">PARALLEL",
                                        ">BUDGET", ">SPENT", "EXPIRES", "MODELS"};
    int64_t now = cm_unix_ms();
    struct table t;

    table_init(&t, heads, CM_COUNT(heads));
    for (size_t i = 0; i < rows->n; i++) {
        yyjson_val *o = rows->v[i];

        table_add(&t, member_text(&t.arena, o, "id"));
        table_add(&t, member_text(&t.arena, o, "name"));
        table_add(&t, member_text(&t.arena, o, "hint"));
        table_add(&t, member_text(&t.arena, o, "source"));
        table_add(&t, member_text(&t.arena, o, "enabled"));
        table_add(&t, member_text(&t.arena, o, "rpm"));
        table_add(&t, member_text(&t.arena, o, "tpm"));
        table_add(&t, member_text(&t.arena, o, "max_parallel"));
        table_add(&t, budget_told(&t.arena, o));
        table_add(&t, cm_arena_printf(&t.arena, "$" CM_PRI,
                                      CM_ARG(member_text(&t.arena, o, "spent_usd"))));
        table_add(&t, time_told(&t.arena, member_text(&t.arena, o, "expires"), now));
        table_add(&t, models_told(&t.arena, o));
    }
    table_print(&t);
    table_clear(&t);
}

static int key_list(struct command *cmd, int argc, char **argv)
{
    struct rows rows;

    if (argc > 0)
        return command_usage("key", "list takes no \"%s\"", argv[0]);
    if (command_list(cmd, CM_S(LIST), &rows) < 0)
        return cmd->exit;
    if (option_given(cmd->args, "json"))
        command_print_rows(&rows);
    else
        print_table(&rows);
    return 0;
}

/* ---- add ---- */

static void put_models(struct cm_buf *json, const char *list)
{
    struct cm_str rest = cm_str_of(list);
    const char *before = ",\"models\":[";

    while (rest.n > 0) {
        struct cm_str model = cm_str_trim(cm_str_cut(&rest, ','));

        if (model.n == 0)
            continue;
        cm_buf_append(json, cm_str_of(before));
        cm_json_put_str(json, model);
        before = ",";
    }
    if (*before == ',' && before[1] == '\0')
        cm_buf_put(json, ']');
}

/* "30d" from now, or a time as it is. */
static void put_expires(struct cm_buf *json, const char *text)
{
    char time[CM_RFC3339_CAP];
    int64_t ms;

    cm_buf_append(json, CM_S(",\"expires\":"));
    if (cm_conf_duration(cm_str_of(text), &ms, NULL) == 0 && ms > 0) {
        cm_rfc3339(cm_unix_ms() + ms, time);
        text = time;
    }
    cm_json_put_str(json, cm_str_of(text));
}

/* Digits and at most one point, so that the rest of the body stays JSON. */
static bool is_amount(struct cm_str s)
{
    struct cm_str rest = s, whole = cm_str_cut(&rest, '.');
    uint64_t v;

    return cm_str_to_u64(whole, UINT32_MAX, &v) &&
           (whole.n == s.n || cm_str_to_u64(rest, UINT64_MAX, &v)) &&
           (whole.n == 1 || whole.p[0] != '0');
}

static int put_limits(struct command *cmd, struct cm_buf *json)
{
    static const struct {
        const char *option, *member;
    } numbers[] = {
        {"rpm", "rpm"}, {"tpm", "tpm"}, {"max-parallel", "max_parallel"}, {"budget", "budget_usd"}};
    const char *text;

    for (size_t i = 0; i < CM_COUNT(numbers); i++) {
        text = option_value(cmd->args, numbers[i].option);
        if (!text)
            continue;
        if (!is_amount(cm_str_of(text)))
            return command_usage("key", "--%s must be a number, not \"%s\"", numbers[i].option,
                                 text);
        cm_buf_printf(json, ",\"%s\":%s", numbers[i].member, text);
    }
    if ((text = option_value(cmd->args, "models")))
        put_models(json, text);
    if ((text = option_value(cmd->args, "expires")))
        put_expires(json, text);
    if ((text = option_value(cmd->args, "budget-period"))) {
        cm_buf_append(json, CM_S(",\"budget_period\":"));
        cm_json_put_str(json, cm_str_of(text));
    }
    return 0;
}

/* The key alone goes to standard output, for KEY=$(chatmux key add …). */
static void print_added(struct command *cmd, bool own)
{
    yyjson_doc *doc = command_parse(cmd);
    yyjson_val *o = yyjson_doc_get_root(doc);

    if (option_given(cmd->args, "json")) {
        command_print_json(cmd);
    } else if (doc) {
        fprintf(stderr, "key " CM_PRI " (" CM_PRI ") is added%s\n",
                CM_ARG(cm_json_str(cm_json_get(o, "id"))),
                CM_ARG(cm_json_str(cm_json_get(o, "name"))), own ? "" : "; it is shown this once:");
        if (!own)
            printf(CM_PRI "\n", CM_ARG(cm_json_str(cm_json_get(o, "key"))));
    }
    yyjson_doc_free(doc);
}

static int send_key(struct command *cmd, struct cm_buf *json, struct cm_str own)
{
    int rc = put_limits(cmd, json);

    if (rc != 0)
        return rc;
    if (own.n > 0) {
        cm_buf_append(json, CM_S(",\"key\":"));
        cm_json_put_str(json, own);
    }
    cm_buf_put(json, '}');
    if (command_ask(cmd, "POST", CM_S(LIST), cm_buf_str(json), CLIENT_TIMEOUT_MS) < 0)
        return cmd->exit;
    print_added(cmd, own.n > 0);
    return 0;
}

static int key_add(struct command *cmd, int argc, char **argv)
{
    struct cm_buf own = {0}, json = {0};
    int rc = CM_EXIT_USAGE;

    if (argc != 1)
        return command_usage("key", "add takes a name for the key");
    if (!option_given(cmd->args, "key") || secret_read("Key", &own) == 0) {
        cm_buf_append(&json, CM_S("{\"name\":"));
        cm_json_put_str(&json, cm_str_of(argv[0]));
        rc = send_key(cmd, &json, cm_buf_str(&own));
        cm_wipe(json.p, json.n);
    }
    if (own.p)
        cm_wipe(own.p, own.cap);
    cm_buf_clear(&own);
    cm_buf_clear(&json);
    return rc;
}

/* ---- rm ---- */

static int key_rm(struct command *cmd, int argc, char **argv)
{
    int rc = 0;

    if (argc == 0)
        return command_usage("key", "rm takes the ID or name of one or more keys");
    for (int i = 0; i < argc && cmd->exit != CM_EXIT_UNREACHABLE; i++) {
        struct cm_str id = command_resolve(cmd, CM_S(LIST), "name", "key", argv[i]), path;

        path = cm_arena_printf(&cmd->arena, LIST "/" CM_PRI, CM_ARG(id));
        if (id.n == 0 || command_ask(cmd, "DELETE", path, CM_STR_NONE, CLIENT_TIMEOUT_MS) < 0)
            rc = cmd->exit;
        else if (option_given(cmd->args, "json"))
            command_print_json(cmd);
        else
            printf("key " CM_PRI " is removed\n", CM_ARG(id));
    }
    return rc;
}

int cm_cli_key(const struct cm_cli_args *args)
{
    static const struct {
        const char *name;
        int (*run)(struct command *cmd, int argc, char **argv);
    } verbs[] = {{"list", key_list}, {"add", key_add}, {"rm", key_rm}};
    const char *verb = args->argc > 0 ? args->argv[0] : "";
    struct command cmd;
    int rc;

    for (size_t i = 0; i < CM_COUNT(verbs); i++) {
        if (strcmp(verbs[i].name, verb) != 0)
            continue;
        if (command_open(&cmd, "key", args) < 0)
            return cmd.exit;
        rc = verbs[i].run(&cmd, args->argc - 1, args->argv + 1);
        command_close(&cmd);
        return rc;
    }
    return command_usage("key", "it takes list, add or rm%s%s%s", *verb ? ", not \"" : "", verb,
                         *verb ? "\"" : "");
}
