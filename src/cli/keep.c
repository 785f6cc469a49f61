/* chatmux rekey, chatmux backup: what concerns the store of a running gateway. */
#include "command.h"

#include "chatmux/base/mem.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define PATIENCE_MS (15 * 60 * 1000)

const struct option cm_cli_rekey_options[] = {
    {"json", no_argument, NULL, 0},
    {"key", no_argument, NULL, 0},
    {NULL, 0, NULL, 0},
};
const struct option cm_cli_backup_options[] = {
    {"json", no_argument, NULL, 0},
    {NULL, 0, NULL, 0},
};

static void print_rekeyed(struct command *cmd)
{
    yyjson_doc *doc = command_parse(cmd);
    yyjson_val *o = yyjson_doc_get_root(doc);
    struct cm_str source = cm_json_str(cm_json_get(o, "key_source"));

    if (option_given(cmd->args, "json"))
        command_print_json(cmd);
    else if (doc && yyjson_get_bool(cm_json_get(o, "configured")))
        printf("every secret is encrypted with the new key. Put it into " CM_PRI
               " before the next start, or the store cannot be opened\n",
               CM_ARG(source));
    else if (doc)
        printf("every secret is encrypted with the new key, which stands in " CM_PRI "\n",
               CM_ARG(source));
    yyjson_doc_free(doc);
}

static int rekey(struct command *cmd, struct cm_str key)
{
    struct cm_buf json = {0};
    int rc = 0;

    cm_buf_append(&json, CM_S("{"));
    if (key.n > 0) {
        cm_buf_append(&json, CM_S("\"key\":"));
        cm_json_put_str(&json, key);
    }
    cm_buf_append(&json, CM_S("}"));
    if (command_ask(cmd, "POST", CM_S("/admin/api/rekey"), cm_buf_str(&json), PATIENCE_MS) < 0)
        rc = cmd->exit;
    else
        print_rekeyed(cmd);
    cm_wipe(json.p, json.n);
    cm_buf_clear(&json);
    return rc;
}

int cm_cli_rekey(const struct cm_cli_args *args)
{
    struct cm_buf key = {0};
    struct command cmd;
    int rc = CM_EXIT_USAGE;

    if (args->argc > 0)
        return command_usage("rekey",
                             "it takes no arguments; a key of your own is asked for with --key");
    if (command_open(&cmd, "rekey", args) < 0)
        return cmd.exit;
    if (!option_given(args, "key") || secret_read("New master key", &key) == 0)
        rc = rekey(&cmd, cm_buf_str(&key));
    if (key.p)
        cm_wipe(key.p, key.cap);
    cm_buf_clear(&key);
    command_close(&cmd);
    return rc;
}

/* The gateway may run in another directory. */
static struct cm_str absolute(struct cm_arena *arena, const char *path)
{
    char here[PATH_MAX];

    if (*path == '/' || !getcwd(here, sizeof(here)))
        return cm_str_of(path);
    return cm_arena_printf(arena, "%s/%s", here, path);
}

int cm_cli_backup(const struct cm_cli_args *args)
{
    struct cm_buf json = {0};
    struct command cmd;
    struct cm_str path;
    int rc = 0;

    if (args->argc != 1)
        return command_usage("backup", "it takes the file to write, which must not exist yet");
    if (command_open(&cmd, "backup", args) < 0)
        return cmd.exit;
    path = absolute(&cmd.arena, args->argv[0]);
    cm_buf_append(&json, CM_S("{\"path\":"));
    cm_json_put_str(&json, path);
    cm_buf_put(&json, '}');
    if (command_ask(&cmd, "POST", CM_S("/admin/api/backup"), cm_buf_str(&json), PATIENCE_MS) < 0)
        rc = cmd.exit;
    else if (option_given(args, "json"))
        command_print_json(&cmd);
    else
        printf(
            "credentials and keys are copied to " CM_PRI
            ". Keep the master key elsewhere: it is not in there, and without it the secrets are lost\n",
            CM_ARG(path));
    cm_buf_clear(&json);
    command_close(&cmd);
    return rc;
}
