/* chatmux probe: one short question to a platform, step by step. */
#include "command.h"

#include "chatmux/base/mem.h"

#include <stdio.h>

#define PATIENCE_MS (15 * 60 * 1000)

const struct option cm_cli_probe_options[] = {
    {"json", no_argument, NULL, 0},        {"credential", required_argument, NULL, 0},
    {"flow", required_argument, NULL, 0},  {"question", required_argument, NULL, 0},
    {"model", required_argument, NULL, 0}, {NULL, 0, NULL, 0},
};

static struct cm_str text_of(yyjson_val *o, const char *name)
{
    return cm_json_str(cm_json_get(o, name));
}

static long long number_of(yyjson_val *o, const char *name)
{
    return (long long)yyjson_get_sint(cm_json_get(o, name));
}

/* Lines of a text, indented below the step they belong to. */
static void print_text(struct cm_str text)
{
    while (text.n > 0) {
        struct cm_str line = cm_str_cut(&text, '\n');

        if (cm_str_trim(line).n == 0)
            continue;
        printf("                     ");
        client_print(line);
        putchar('\n');
    }
}

static void print_step(yyjson_val *step)
{
    struct cm_str what = text_of(step, "what"), text = text_of(step, "text");
    bool ask = cm_str_eq(what, CM_S("ask"));

    printf("%7lld ms  ", number_of(step, "ms"));
    client_print(what);
    printf("%*s  in ", what.n < 10 ? (int)(10 - what.n) : 0, "");
    client_print(text_of(step, "state"));
    if (number_of(step, "status"))
        printf(", status %lld", number_of(step, "status"));
    if (number_of(step, "bytes"))
        printf(", %lld bytes", number_of(step, "bytes"));
    if (ask) {
        printf(": ");
        client_print(text);
    }
    putchar('\n');
    if (!ask)
        print_text(text);
    print_text(text_of(step, "piece"));
}

static int print_probe(struct command *cmd)
{
    yyjson_doc *doc = command_parse(cmd);
    yyjson_val *o = yyjson_doc_get_root(doc), *error = cm_json_get(o, "error"), *step;
    bool ok = yyjson_get_bool(cm_json_get(o, "ok"));
    size_t i, n;

    if (!doc)
        return cmd->exit;
    printf(CM_PRI " (type " CM_PRI "), credential ", CM_ARG(text_of(o, "provider")),
           CM_ARG(text_of(o, "type")));
    client_print(text_of(o, "credential"));
    printf(", " CM_PRI, CM_ARG(text_of(o, "flow")));
    if (text_of(o, "model").n > 0) {
        printf(" with ");
        client_print(text_of(o, "model"));
    }
    putchar('\n');
    yyjson_arr_foreach(cm_json_get(o, "steps"), i, n, step) print_step(step);
    if (number_of(o, "steps_left_out"))
        printf("(%lld more steps)\n", number_of(o, "steps_left_out"));
    if (text_of(o, "answer").n > 0) {
        printf("answer: ");
        client_print(text_of(o, "answer"));
        putchar('\n');
    }
    if (number_of(o, "models"))
        printf("models: %lld\n", number_of(o, "models"));
    if (ok) {
        printf("it works (%lld ms)\n", number_of(o, "ms"));
    } else {
        printf("it does not work: ");
        client_print(text_of(error, "message"));
        printf(" (" CM_PRI ", %lld ms)\n", CM_ARG(text_of(error, "class")), number_of(o, "ms"));
    }
    yyjson_doc_free(doc);
    return ok ? 0 : CM_EXIT_USAGE;
}

static void put_option(struct cm_buf *json, const struct command *cmd, const char *name)
{
    const char *value = option_value(cmd->args, name);

    if (!value)
        return;
    cm_buf_printf(json, "%s\"%s\":", json->n > 1 ? "," : "", name);
    cm_json_put_z(json, value);
}

static int probe(struct command *cmd, const char *provider)
{
    const char *which = option_value(cmd->args, "credential");
    struct cm_buf json = {0};
    struct cm_str id;
    int rc;

    cm_buf_put(&json, '{');
    put_option(&json, cmd, "flow");
    put_option(&json, cmd, "model");
    put_option(&json, cmd, "question");
    if (which) {
        id = command_resolve(cmd, CM_S("/admin/api/credentials"), "label", "credential", which);
        if (id.n == 0) {
            cm_buf_clear(&json);
            return cmd->exit;
        }
        cm_buf_append(&json, json.n > 1 ? CM_S(",\"credential\":") : CM_S("\"credential\":"));
        cm_json_put_str(&json, id);
    }
    cm_buf_put(&json, '}');
    rc = command_ask(cmd, "POST",
                     cm_arena_printf(&cmd->arena, "/admin/api/providers/%s/probe", provider),
                     cm_buf_str(&json), PATIENCE_MS);
    cm_buf_clear(&json);
    if (rc < 0)
        return cmd->exit;
    if (!option_given(cmd->args, "json"))
        return print_probe(cmd);
    command_print_json(cmd);
    return 0;
}

int cm_cli_probe(const struct cm_cli_args *args)
{
    struct command cmd;
    int rc;

    if (args->argc != 1)
        return command_usage("probe", "it takes the name of a provider");
    if (command_open(&cmd, "probe", args) < 0)
        return cmd.exit;
    rc = probe(&cmd, args->argv[0]);
    command_close(&cmd);
    return rc;
}
