/* chatmux import: keys and accounts of another gateway, through the admin API of the gateway that runs, else into its store. */
#include "command.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/import/import.h"

#include <stdio.h>

#define CHATS_MAX 1000 /* in one request */

static const struct kind {
    const char *name;
    int (*read)(struct cm_import *im, const char *file, struct cm_err *err);
} kinds[] = {{"hixai2api", cm_import_hixai2api}};

static const struct kind *kind_find(const char *name)
{
    for (size_t i = 0; i < CM_COUNT(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

/* ---- through the gateway ---- */

/* Counts one answer. -1: the gateway cannot be used at all; complained. */
static int count(struct command *cmd, size_t *taken, size_t *known, size_t *refused,
                 struct cm_err *why)
{
    struct cm_str body = cm_buf_str(&cmd->answer.body);
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_request, NULL);
    struct cm_str message =
        cm_json_str(cm_json_get(cm_json_get(yyjson_doc_get_root(doc), "error"), "message"));
    int rc = 0;

    if (cmd->answer.status == 201) {
        ++*taken;
    } else if (cmd->answer.status == 400 && cm_str_has(message, CM_S("is there already"))) {
        ++*known;
    } else if (cmd->answer.status == 400) {
        ++*refused;
        cm_fail(why, CM_ERR_BAD_REQUEST, CM_PRI, CM_ARG(message));
    } else {
        fprintf(stderr, "chatmux import: the gateway answered with status %d: " CM_PRI "\n",
                cmd->answer.status, CM_ARG(message));
        rc = -1;
    }
    yyjson_doc_free(doc);
    return rc;
}

static int post(struct command *cmd, const char *path, struct cm_buf *json)
{
    struct cm_err err = {0};
    int rc = client_ask(&cmd->client, "POST", path, cm_buf_str(json), CLIENT_TIMEOUT_MS,
                        &cmd->answer, &err);

    cm_wipe(json->p, json->n);
    cm_buf_clear(json);
    if (rc < 0) {
        fprintf(stderr, "chatmux import: the gateway does not answer any more: %s\n", err.msg);
        cmd->exit = CM_EXIT_UNREACHABLE;
    }
    return rc;
}

static int send_cred(struct command *cmd, struct cm_str provider, const struct cm_import_cred *cred,
                     struct cm_import_result *out)
{
    struct cm_buf json = {0};

    cm_buf_reserve(&json, 6 * cred->secret.n + 6 * cred->label.n + 256);
    cm_buf_append(&json, CM_S("{\"provider\":"));
    cm_json_put_str(&json, provider);
    if (cred->label.n > 0) {
        cm_buf_append(&json, CM_S(",\"label\":"));
        cm_json_put_str(&json, cred->label);
    }
    cm_buf_append(&json, CM_S(",\"secret\":"));
    cm_json_put_str(&json, cred->secret);
    cm_buf_put(&json, '}');
    if (post(cmd, "/admin/api/credentials", &json) < 0)
        return -1;
    return count(cmd, &out->creds, &out->known_creds, &out->refused_creds, &out->why);
}

static int send_key(struct command *cmd, const struct cm_import_key *key,
                    struct cm_import_result *out)
{
    struct cm_buf json = {0};

    cm_buf_reserve(&json, 6 * key->secret.n + 6 * key->name.n + 256);
    cm_buf_append(&json, CM_S("{\"name\":"));
    cm_json_put_str(&json, key->name.n > 0 ? key->name : CM_S("unnamed"));
    cm_buf_append(&json, CM_S(",\"key\":"));
    cm_json_put_str(&json, key->secret);
    cm_buf_put(&json, '}');
    if (post(cmd, "/admin/api/keys", &json) < 0)
        return -1;
    return count(cmd, &out->keys, &out->known_keys, &out->refused_keys, &out->why);
}

/* "MODEL NAME CHAT", of which none has a space in it. */
static void put_chat(struct cm_buf *json, const struct cm_import_chat *c)
{
    struct cm_buf words = {0};

    cm_buf_printf(&words, CM_PRI " " CM_PRI " " CM_PRI, CM_ARG(c->model), CM_ARG(c->name),
                  CM_ARG(c->chat));
    cm_json_put_str(json, cm_buf_str(&words));
    cm_buf_clear(&words);
}

/* Conversations of one account, at most CHATS_MAX of those from `at` on; `at` moves behind them. */
static int send_chats(struct command *cmd, struct cm_str provider, const struct cm_import *im,
                      size_t *at, struct cm_import_result *out)
{
    const struct cm_str secret = im->chats[*at].secret;
    struct cm_buf json = {0};
    size_t n = 0;

    cm_buf_reserve(&json, 6 * secret.n + CHATS_MAX * 512);
    cm_buf_append(&json, CM_S("{\"provider\":"));
    cm_json_put_str(&json, provider);
    cm_buf_append(&json, CM_S(",\"secret\":"));
    cm_json_put_str(&json, secret);
    cm_buf_append(&json, CM_S(",\"conversations\":["));
    for (; *at < im->n_chats && n < CHATS_MAX && im->chats[*at].secret.p == secret.p; ++*at) {
        if (n++ > 0)
            cm_buf_put(&json, ',');
        put_chat(&json, &im->chats[*at]);
    }
    cm_buf_append(&json, CM_S("]}"));
    if (post(cmd, "/admin/api/conversations", &json) < 0)
        return -1;
    if (cmd->answer.status == 200)
        out->chats += n;
    else
        out->refused_chats += n; /* its account was refused, or is not there any more */
    return 0;
}

/* The first provider of that type; "" after a complaint. */
static struct cm_str provider_of(struct command *cmd, const char *type)
{
    struct rows rows;

    if (command_list(cmd, CM_S("/admin/api/providers"), &rows) < 0)
        return CM_STR_NONE;
    for (size_t i = 0; i < rows.n; i++)
        if (cm_str_eq(cm_json_str(cm_json_get(rows.v[i], "type")), cm_str_of(type)))
            return cm_json_str(cm_json_get(rows.v[i], "name"));
    fprintf(stderr,
            "chatmux import: the gateway has no provider of type %s that could take the accounts\n",
            type);
    cmd->exit = CM_EXIT_USAGE;
    return CM_STR_NONE;
}

static int by_gateway(struct command *cmd, const struct cm_import *im, struct cm_import_result *out)
{
    struct cm_str provider = provider_of(cmd, im->type);

    if (provider.n == 0)
        return -1;
    cmd->exit = CM_EXIT_USAGE;
    for (size_t i = 0; i < im->n_creds; i++)
        if (send_cred(cmd, provider, &im->creds[i], out) < 0)
            return -1;
    for (size_t i = 0; i < im->n_keys; i++)
        if (send_key(cmd, &im->keys[i], out) < 0)
            return -1;
    for (size_t at = 0; at < im->n_chats;)
        if (send_chats(cmd, provider, im, &at, out) < 0)
            return -1;
    return 0;
}

/* ---- into the store ---- */

static int by_store(const struct cm_conf_source *source, const struct cm_import *im,
                    struct cm_import_result *out)
{
    struct cm_arena texts = {0};
    struct cm_problems problems;
    struct cm_config *config;
    struct cm_err err = {0};
    int rc = -1;

    cm_problems_init(&problems, &texts);
    config = cm_config_load(source, &problems);
    for (const struct cm_problem *p = problems.first; p; p = p->next)
        fprintf(stderr, CM_PRI ": " CM_PRI "\n", CM_ARG(p->where), CM_ARG(p->text));
    if (config) {
        rc = cm_import_store(config, im, out, &err);
        if (rc < 0)
            fprintf(stderr, "chatmux import: %s\n", err.msg);
    }
    cm_config_unref(config);
    cm_arena_clear(&texts);
    return rc;
}

/* ---- the command ---- */

static void print_result(const struct cm_import *im, const struct cm_import_result *r)
{
    printf("accounts: %zu taken over", r->creds);
    if (r->known_creds)
        printf(", %zu were there already", r->known_creds);
    if (r->refused_creds)
        printf(", %zu cannot be used", r->refused_creds);
    printf("\nclient keys: %zu taken over", r->keys);
    if (r->known_keys)
        printf(", %zu were there already", r->known_keys);
    if (r->refused_keys)
        printf(", %zu cannot be used", r->refused_keys);
    putchar('\n');
    if (im->n_chats + im->unclear)
        printf("conversations: %zu go on in their chats", r->chats);
    if (r->refused_chats)
        printf(", %zu are of accounts that are not here", r->refused_chats);
    if (im->unclear)
        printf(", %zu cannot be told from one another", im->unclear);
    if (im->n_chats + im->unclear)
        printf("; all others go on in new ones, with what was said before\n");
    if (im->unusable)
        printf("rows without what is needed: %zu\n", im->unusable);
    if (r->refused_creds + r->refused_keys)
        fprintf(stderr, "chatmux import: what cannot be used, the last one: %s\n", r->why.msg);
}

/* Is a gateway there? 1, 0, or -1 after a complaint: who is there and does not answer may be one that is busy. */
static int is_running(struct command *cmd)
{
    struct cm_err err = {0};

    if (client_ask(&cmd->client, "GET", "/healthz", CM_STR_NONE, CLIENT_TIMEOUT_MS, &cmd->answer,
                   &err) == 0)
        return 1;
    if (err.cls != CM_ERR_TIMEOUT && cmd->client.config)
        return 0;
    fprintf(stderr, "chatmux import: no answer from the gateway at " CM_PRI ": %s\n",
            CM_ARG(cmd->client.address), err.msg);
    cmd->exit = CM_EXIT_UNREACHABLE;
    return -1;
}

static int take_over(const struct cm_cli_args *args, const struct cm_import *im,
                     struct cm_import_result *out)
{
    struct command cmd = {.name = "import", .args = args, .exit = CM_EXIT_USAGE};
    struct cm_err err = {0};
    int rc = -1, running;

    if (client_open(&cmd.client, args->source, &err) < 0) {
        fprintf(stderr, "chatmux import: %s\n", err.msg);
        return CM_EXIT_USAGE;
    }
    running = is_running(&cmd);
    if (running == 0) {
        rc = by_store(args->source, im, out);
    } else if (running > 0 && cmd.client.secret.n == 0) {
        fprintf(
            stderr,
            "chatmux import: a gateway runs at " CM_PRI
            ", and no admin secret is known to ask it by: set auth.admin_secret (BACKEND_SECRET, "
            "CHATMUX_ADMIN_SECRET), or stop it first\n",
            CM_ARG(cmd.client.address));
    } else if (running > 0) {
        rc = by_gateway(&cmd, im, out);
    }
    rc = rc < 0 ? cmd.exit : 0;
    command_close(&cmd);
    return rc;
}

int cm_cli_import(const struct cm_cli_args *args)
{
    const struct kind *kind = args->argc > 0 ? kind_find(args->argv[0]) : NULL;
    struct cm_import_result result = {0};
    struct cm_import im = {0};
    struct cm_err err = {0};
    int rc;

    if (args->argc != 2)
        return command_usage("import", "it takes the system that the file is of, and the file");
    if (!kind)
        return command_usage("import", "it knows hixai2api, not \"%s\"", args->argv[0]);
    if (kind->read(&im, args->argv[1], &err) < 0) {
        fprintf(stderr, "chatmux import: %s: %s\n", args->argv[1], err.msg);
        return CM_EXIT_USAGE;
    }
    rc = take_over(args, &im, &result);
    if (rc == 0) {
        print_result(&im, &result);
        rc = result.refused_creds + result.refused_keys > 0 ? CM_EXIT_USAGE : 0;
    }
    cm_import_clear(&im);
    return rc;
}
