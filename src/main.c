/* The command line: options, commands, exit codes. Exit: 0 fine, 1 configuration or usage, 2 cannot listen, 3 the gateway is not reachable. */
#include "app.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/version.h"
#include "chatmux/cli/cli.h"
#include "chatmux/gateway/gateway.h"
#include "help.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#define EXIT_USAGE 1
#define OWN_MAX 16 /* options of one command, repeated ones counted */

/* What every command takes, and what one takes besides. */
struct options {
    const char *file;
    const char **sets; /* "section.key=value" */
    size_t n_sets;
    struct cm_cli_option own[OWN_MAX];
    size_t n_own;
};

enum { OPT_LISTEN = 256, OPT_LOG_LEVEL, OPT_SET, OPT_PORT, OPT_LOG_DIR, OPT_OWN };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"set", required_argument, NULL, OPT_SET},
    {"port", required_argument, NULL, OPT_PORT}, /* of the gateways people come from */
    {"log-dir", required_argument, NULL, OPT_LOG_DIR},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static void add_set(struct options *o, const char *prefix, const char *value)
{
    size_t size = strlen(prefix) + strlen(value) + 1;
    char *set = cm_alloc(size);

    snprintf(set, size, "%s%s", prefix, value);
    o->sets = cm_realloc(o->sets, (o->n_sets + 1) * sizeof(*o->sets));
    o->sets[o->n_sets++] = set;
}

static void options_clear(struct options *o)
{
    for (size_t i = 0; i < o->n_sets; i++)
        free((char *)(uintptr_t)o->sets[i]);
    free(o->sets);
}

typedef int command_fn(const struct cm_cli_args *args);

static int refuse(const struct cm_problems *problems)
{
    app_print_problems(problems);
    fprintf(stderr, "%u problem%s: nothing was started\n", problems->n,
            problems->n == 1 ? "" : "s");
    return EXIT_USAGE;
}

/* The configuration as the gateway would use it, or NULL after its problems were printed. */
static struct cm_config *load(const struct cm_conf_source *source)
{
    struct cm_arena texts = {0};
    struct cm_problems problems;
    struct cm_config *c;

    cm_problems_init(&problems, &texts);
    c = cm_config_load(source, &problems);
    if (!c)
        refuse(&problems);
    cm_arena_clear(&texts);
    return c;
}

/* What the configuration's own layer cannot check. */
static void check_more(void *arg, struct cm_config *config, struct cm_problems *problems)
{
    struct cm_tls *tls = NULL;

    (void)arg;
    cm_gateway_check(config, problems);
    (void)app_load_tls(config, &tls, problems);
    cm_tls_unref(tls);
}

static int no_arguments(const char *command, const struct cm_cli_args *args)
{
    if (args->argc > 0)
        fprintf(stderr, "chatmux %s takes no arguments; see: chatmux help %s\n", command, command);
    return args->argc > 0 ? EXIT_USAGE : 0;
}

static int command_serve(const struct cm_cli_args *args)
{
    struct cm_config *c;

    if (no_arguments("serve", args) || !(c = load(args->source)))
        return EXIT_USAGE;
    return app_run(c, args->source);
}

static int command_check(const struct cm_cli_args *args)
{
    struct cm_config *c;

    if (no_arguments("check", args) || !(c = load(args->source)))
        return EXIT_USAGE;
    for (size_t i = 0; i < c->remarks.n; i++)
        fprintf(stderr, CM_PRI "\n", CM_ARG(c->remarks.v[i]));
    printf("%s: fine (%zu provider%s, %zu route%s)\n",
           c->file.n   ? c->file.p
           : c->seed.n ? c->seed.p
                       : "built-in defaults",
           c->n_providers, c->n_providers == 1 ? "" : "s", c->n_models,
           c->n_models == 1 ? "" : "s");
    cm_config_unref(c);
    return 0;
}

static int command_print_config(const struct cm_cli_args *args)
{
    struct cm_buf out = {0};
    struct cm_config *c;

    if (no_arguments("print-config", args) || !(c = load(args->source)))
        return EXIT_USAGE;
    cm_config_print(c, &out);
    fwrite(out.p, 1, out.n, stdout);
    cm_buf_clear(&out);
    cm_config_unref(c);
    return 0;
}

static int command_status(const struct cm_cli_args *args)
{
    return cm_cli_status(args->source, args->argc, args->argv);
}

static int command_version(const struct cm_cli_args *args)
{
    (void)args;
    printf("chatmux " CM_VERSION "\n");
    return 0;
}

static int command_help(const struct cm_cli_args *args)
{
    return help_print(args->argc > 0 ? args->argv[0] : NULL) < 0 ? EXIT_USAGE : 0;
}

static const struct command {
    const char *name;
    command_fn *run;
    const struct option *own; /* its own options; NULL = none */
} commands[] = {
    {"serve", command_serve, NULL},
    {"check", command_check, NULL},
    {"print-config", command_print_config, NULL},
    {"status", command_status, NULL},
    {"cred", cm_cli_cred, cm_cli_cred_options},
    {"key", cm_cli_key, cm_cli_key_options},
    {"import", cm_cli_import, NULL},
    {"probe", cm_cli_probe, cm_cli_probe_options},
    {"explain", cm_cli_explain, cm_cli_explain_options},
    {"rekey", cm_cli_rekey, cm_cli_rekey_options},
    {"backup", cm_cli_backup, cm_cli_backup_options},
    {"version", command_version, NULL},
    {"help", command_help, NULL},
};

static const struct command *command_find(const char *name)
{
    const char *names[CM_COUNT(commands)], *near;

    for (size_t i = 0; i < CM_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
        names[i] = commands[i].name;
    }
    near = cm_conf_nearest(cm_str_of(name), names, CM_COUNT(commands));
    fprintf(stderr, "chatmux: there is no command \"%s\"%s%s%s; see: chatmux help\n", name,
            near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return NULL;
}

/* The common options and the command's own: option i of those has the value OPT_OWN + i. */
static struct option *all_options(const struct command *command)
{
    struct option *all = cm_calloc(CM_COUNT(long_options) + OWN_MAX, sizeof(*all));
    size_t n = CM_COUNT(long_options) - 1;

    memcpy(all, long_options, sizeof(long_options));
    for (int i = 0; command && command->own && command->own[i].name; i++) {
        all[n] = command->own[i];
        all[n++].val = OPT_OWN + i;
    }
    return all;
}

static int own_option(struct options *o, const struct command *command, int c)
{
    if (o->n_own == OWN_MAX) {
        fprintf(stderr, "too many options; see: chatmux help %s\n", command->name);
        return -1;
    }
    o->own[o->n_own].name = command->own[c - OPT_OWN].name;
    o->own[o->n_own++].value = optarg;
    return 0;
}

/* Before the command (`command` NULL: up to it) and behind it, between its arguments. -1: usage; 1: answered already. */
static int read_options(struct options *o, const struct command *command, int argc, char **argv)
{
    struct option *all = all_options(command);
    int c, rc = 0;

    optind = 0; /* begins anew */
    while (rc == 0 && (c = getopt_long(argc, argv, command ? "c:hV" : "+c:hV", all, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->file = optarg;
            break;
        case OPT_LISTEN:
            add_set(o, "server.listen=", optarg);
            break;
        case OPT_LOG_LEVEL:
            add_set(o, "log.level=", optarg);
            break;
        case OPT_SET:
            add_set(o, "", optarg);
            break;
        case OPT_PORT:
            add_set(o, "server.listen=0.0.0.0:", optarg);
            break;
        case OPT_LOG_DIR:
            fprintf(stderr, "--log-dir has no effect: the log goes to standard error\n");
            break;
        case 'h':
            help_print(command ? command->name : optind < argc ? argv[optind] : NULL);
            rc = 1;
            break;
        case 'V':
            command_version(NULL);
            rc = 1;
            break;
        case '?':
            fprintf(stderr, "see: chatmux help%s%s\n", command ? " " : "",
                    command ? command->name : "");
            rc = -1;
            break;
        default:
            CM_ASSERT(command); /* without one no such option is known */
            rc = own_option(o, command, c);
        }
    }
    free(all);
    return rc;
}

int main(int argc, char **argv)
{
    const struct command *command = &commands[0];
    struct cm_conf_source source = {.check = check_more};
    struct cm_cli_args args = {.source = &source};
    struct options o = {0};
    int rc = read_options(&o, NULL, argc, argv), status;

    if (rc == 0 && optind < argc) {
        argc -= optind;
        argv += optind;
        command = command_find(argv[0]);
        rc = command ? read_options(&o, command, argc, argv) : -1;
    }
    status = rc < 0 ? EXIT_USAGE : 0;
    if (rc == 0) {
        source.file = o.file;
        source.sets = o.sets;
        source.n_sets = o.n_sets;
        args.argc = argc - optind;
        args.argv = argv + optind;
        args.options = o.own;
        args.n_options = o.n_own;
        status = command->run(&args);
    }
    options_clear(&o);
    return status;
}
