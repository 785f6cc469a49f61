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

/* What every command takes. */
struct options {
    const char *file;
    const char **sets; /* "section.key=value" */
    size_t n_sets;
};

enum { OPT_LISTEN = 256, OPT_LOG_LEVEL, OPT_SET };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"set", required_argument, NULL, OPT_SET},
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

typedef int command_fn(const struct cm_conf_source *source, int argc, char **argv);

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

static int no_arguments(const char *command, int argc)
{
    if (argc > 0)
        fprintf(stderr, "chatmux %s takes no arguments; see: chatmux help %s\n", command, command);
    return argc > 0 ? EXIT_USAGE : 0;
}

static int command_serve(const struct cm_conf_source *source, int argc, char **argv)
{
    struct cm_config *c;

    (void)argv;
    if (no_arguments("serve", argc) || !(c = load(source)))
        return EXIT_USAGE;
    return app_run(c, source);
}

static int command_check(const struct cm_conf_source *source, int argc, char **argv)
{
    struct cm_config *c;

    (void)argv;
    if (no_arguments("check", argc) || !(c = load(source)))
        return EXIT_USAGE;
    printf("%s: fine (%zu provider%s, %zu route%s)\n", c->file.n ? c->file.p : "built-in defaults",
           c->n_providers, c->n_providers == 1 ? "" : "s", c->n_models,
           c->n_models == 1 ? "" : "s");
    cm_config_unref(c);
    return 0;
}

static int command_print_config(const struct cm_conf_source *source, int argc, char **argv)
{
    struct cm_buf out = {0};
    struct cm_config *c;

    (void)argv;
    if (no_arguments("print-config", argc) || !(c = load(source)))
        return EXIT_USAGE;
    cm_config_print(c, &out);
    fwrite(out.p, 1, out.n, stdout);
    cm_buf_clear(&out);
    cm_config_unref(c);
    return 0;
}

static int command_version(const struct cm_conf_source *source, int argc, char **argv)
{
    (void)source;
    (void)argc;
    (void)argv;
    printf("chatmux " CM_VERSION "\n");
    return 0;
}

static int command_help(const struct cm_conf_source *source, int argc, char **argv)
{
    (void)source;
    return help_print(argc > 0 ? argv[0] : NULL) < 0 ? EXIT_USAGE : 0;
}

static const struct {
    const char *name;
    command_fn *run;
} commands[] = {
    {"serve", command_serve},  {"check", command_check},     {"print-config", command_print_config},
    {"status", cm_cli_status}, {"version", command_version}, {"help", command_help},
};

static command_fn *command_find(const char *name)
{
    const char *names[CM_COUNT(commands)], *near;

    for (size_t i = 0; i < CM_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run;
        names[i] = commands[i].name;
    }
    near = cm_conf_nearest(cm_str_of(name), names, CM_COUNT(commands));
    fprintf(stderr, "chatmux: there is no command \"%s\"%s%s%s; see: chatmux help\n", name,
            near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return NULL;
}

/* Options may stand before and after the command. -1: usage; 1: answered already. */
static int read_options(struct options *o, int argc, char **argv)
{
    int c;

    while ((c = getopt_long(argc, argv, "c:hV", long_options, NULL)) != -1) {
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
        case 'h':
            help_print(optind < argc ? argv[optind] : NULL);
            return 1;
        case 'V':
            command_version(NULL, 0, NULL);
            return 1;
        default:
            fprintf(stderr, "see: chatmux help\n");
            return -1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct cm_conf_source source = {0};
    command_fn *run = command_serve;
    int rc = read_options(&o, argc, argv), status = rc < 0 ? EXIT_USAGE : 0;

    if (rc == 0) {
        argc -= optind;
        argv += optind;
        if (argc > 0) {
            run = command_find(argv[0]);
            argc--;
            argv++;
        }
        source.file = o.file;
        source.sets = o.sets;
        source.n_sets = o.n_sets;
        source.check = check_more;
        status = run ? run(&source, argc, argv) : EXIT_USAGE;
    }
    options_clear(&o);
    return status;
}
