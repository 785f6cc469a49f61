/* chatmux explain: why a request was served as it was, or how one would be served now. */
#include "command.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

#include <stdio.h>

const struct option cm_cli_explain_options[] = {
    {"json", no_argument, NULL, 0}, {"dry-run", no_argument, NULL, 0}, {NULL, 0, NULL, 0}};

static struct cm_str text_of(yyjson_val *o, const char *name)
{
    return cm_json_str(cm_json_get(o, name));
}

static long long number_of(yyjson_val *o, const char *name)
{
    return (long long)yyjson_get_num(cm_json_get(o, name));
}

static void print_line(const char *name, struct cm_str text)
{
    if (text.n == 0)
        return;
    printf("  %-12s ", name);
    client_print(text);
    putchar('\n');
}

/* ---- a request of the log ---- */

static void print_attempts(struct command *cmd, yyjson_val *attempts)
{
    static const char *const heads[] = {"ATTEMPT",      "PROVIDER",  "CREDENTIAL", "MODEL",
                                        "RESULT",       ">MS",       ">CONNECT",   ">FIRST BYTE",
                                        ">FIRST TOKEN", "TARGET BY", "CHOSEN",     "WHY"};
    yyjson_val *a;
    struct table t;
    size_t i, n;

    table_init(&t, heads, CM_COUNT(heads));
    yyjson_arr_foreach(attempts, i, n, a)
    {
        table_add_int(&t, (int64_t)i + 1);
        table_add(&t, text_of(a, "provider"));
        table_add(&t, text_of(a, "credential"));
        table_add(&t, text_of(a, "model"));
        table_add(&t, text_of(a, "result"));
        table_add(&t, member_text(&cmd->arena, a, "ms"));
        table_add(&t, member_text(&cmd->arena, a, "connect_ms"));
        table_add(&t, member_text(&cmd->arena, a, "first_byte_ms"));
        table_add(&t, member_text(&cmd->arena, a, "first_token_ms"));
        table_add(&t, text_of(a, "target_by"));
        table_add(&t, text_of(a, "chosen"));
        table_add(&t, text_of(a, "why"));
    }
    table_print(&t);
    table_clear(&t);
}

static void print_skipped(yyjson_val *skipped)
{
    static const char *const heads[] = {"SKIPPED", "MODEL", "REASON"};
    yyjson_val *s;
    struct table t;
    size_t i, n;

    if (yyjson_arr_size(skipped) == 0)
        return;
    putchar('\n');
    table_init(&t, heads, CM_COUNT(heads));
    yyjson_arr_foreach(skipped, i, n, s)
    {
        table_add(&t, text_of(s, "provider"));
        table_add(&t, text_of(s, "model"));
        table_add(&t, text_of(s, "reason"));
    }
    table_print(&t);
    table_clear(&t);
}

static void print_others(yyjson_val *others)
{
    static const char *const heads[] = {"PASSED OVER", "STATE", "REASON"};
    yyjson_val *o;
    struct table t;
    size_t i, n;

    if (yyjson_arr_size(others) == 0)
        return;
    putchar('\n');
    table_init(&t, heads, CM_COUNT(heads));
    yyjson_arr_foreach(others, i, n, o)
    {
        table_add(&t, text_of(o, "credential"));
        table_add(&t, text_of(o, "state"));
        table_add(&t, text_of(o, "reason"));
    }
    table_print(&t);
    table_clear(&t);
}

static void print_request(struct command *cmd, yyjson_val *r)
{
    printf("request ");
    client_print(text_of(r, "id"));
    printf(": " CM_PRI ", status %lld, %lld ms", CM_ARG(text_of(r, "outcome")),
           number_of(r, "status"), number_of(r, "duration_ms"));
    if (yyjson_is_num(cm_json_get(r, "ttft_ms")))
        printf(", first token after %lld ms", number_of(r, "ttft_ms"));
    putchar('\n');
    print_line("at", text_of(r, "at"));
    print_line("key", text_of(r, "key"));
    print_line("model", text_of(r, "model"));
    print_line("error", text_of(r, "error"));
    print_line("why", text_of(r, "why"));
    putchar('\n');
    print_attempts(cmd, cm_json_get(r, "attempts"));
    print_skipped(cm_json_get(r, "skipped"));
    print_others(cm_json_get(r, "others"));
}

/* ---- one that might come ---- */

static void print_target(struct command *cmd, yyjson_val *target, size_t place)
{
    static const char *const heads[] = {"",      "CREDENTIAL", "STATE",      "REASON",
                                        "UNTIL", ">WEIGHT",    ">IN FLIGHT", "THIS MODEL"};
    yyjson_val *c;
    struct table t;
    size_t i, n;

    printf("\n%zu. ", place);
    client_print(text_of(target, "provider"));
    putchar('/');
    client_print(text_of(target, "model"));
    printf(" (weight %lld, %lld in flight, breaker " CM_PRI, number_of(target, "weight"),
           number_of(target, "inflight"), CM_ARG(text_of(target, "breaker")));
    if (yyjson_is_num(cm_json_get(target, "first_token_ms")))
        printf(", first token in about %lld ms", number_of(target, "first_token_ms"));
    printf(")\n");
    if (text_of(target, "excluded").n > 0) {
        printf("   nobody would be asked: ");
        client_print(text_of(target, "excluded"));
        putchar('\n');
    }
    table_init(&t, heads, CM_COUNT(heads));
    yyjson_arr_foreach(cm_json_get(target, "credentials"), i, n, c)
    {
        table_add(&t, yyjson_get_bool(cm_json_get(c, "chosen")) ? CM_S("->") : CM_S(" "));
        table_add(&t, text_of(c, "label"));
        table_add(&t, text_of(c, "state"));
        table_add(&t, text_of(c, "reason"));
        table_add(&t, time_told(&cmd->arena, text_of(c, "until"), cm_unix_ms()));
        table_add(&t, member_text(&cmd->arena, c, "weight"));
        table_add(&t, member_text(&cmd->arena, c, "inflight"));
        table_add(&t, text_of(c, "model_state"));
    }
    table_print(&t);
    table_clear(&t);
}

static void print_plan(struct command *cmd, yyjson_val *plan)
{
    yyjson_val *key = cm_json_get(plan, "key"), *target;
    size_t i, n;

    printf("a request for ");
    client_print(text_of(plan, "model"));
    if (text_of(plan, "strategy").n > 0)
        printf(", a route (" CM_PRI ")", CM_ARG(text_of(plan, "strategy")));
    if (key)
        printf(yyjson_get_bool(cm_json_get(key, "allowed")) ? "; the key may use it"
                                                            : "; the key may NOT use it");
    putchar('\n');
    yyjson_arr_foreach(cm_json_get(plan, "targets"), i, n, target) print_target(cmd, target, i + 1);
}

static int show(struct command *cmd, void (*print)(struct command *cmd, yyjson_val *root))
{
    yyjson_doc *doc;

    if (option_given(cmd->args, "json")) {
        command_print_json(cmd);
        return 0;
    }
    doc = command_parse(cmd);
    if (!doc)
        return cmd->exit;
    print(cmd, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    return 0;
}

/* model=NAME key=NAME as JSON. */
static int read_wishes(struct command *cmd, struct cm_buf *json)
{
    static const char *const names[] = {"model", "key"};
    bool model = false;

    cm_buf_put(json, '{');
    for (int i = 0; i < cmd->args->argc; i++) {
        struct cm_str value = cm_str_of(cmd->args->argv[i]), name = cm_str_cut(&value, '=');
        bool known = false;

        for (size_t k = 0; k < CM_COUNT(names); k++)
            known |= cm_str_eq(name, cm_str_of(names[k])) && value.n > 0;
        if (!known)
            return command_usage("explain", "--dry-run takes model=NAME and key=NAME, not \"%s\"",
                                 cmd->args->argv[i]);
        model |= cm_str_eq(name, CM_S("model"));
        cm_buf_printf(json, "%s\"" CM_PRI "\":", json->n > 1 ? "," : "", CM_ARG(name));
        cm_json_put_str(json, value);
    }
    cm_buf_put(json, '}');
    return model ? 0 : command_usage("explain", "--dry-run needs model=NAME");
}

static int explain(struct command *cmd)
{
    struct cm_buf json = {0};
    int rc;

    if (!option_given(cmd->args, "dry-run")) {
        if (cmd->args->argc != 1)
            return command_usage("explain", "it takes the ID of a request, or --dry-run");
        if (command_ask(cmd, "GET",
                        cm_arena_printf(&cmd->arena, "/admin/api/requests/%s", cmd->args->argv[0]),
                        CM_STR_NONE, CLIENT_TIMEOUT_MS) < 0)
            return cmd->exit;
        return show(cmd, print_request);
    }
    rc = read_wishes(cmd, &json);
    if (rc == 0)
        rc = command_ask(cmd, "POST", CM_S("/admin/api/explain"), cm_buf_str(&json),
                         CLIENT_TIMEOUT_MS) < 0
                 ? cmd->exit
                 : show(cmd, print_plan);
    cm_buf_clear(&json);
    return rc;
}

int cm_cli_explain(const struct cm_cli_args *args)
{
    struct command cmd;
    int rc;

    if (command_open(&cmd, "explain", args) < 0)
        return cmd.exit;
    rc = explain(&cmd);
    command_close(&cmd);
    return rc;
}
