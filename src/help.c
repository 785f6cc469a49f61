/* What `chatmux help` prints: commands, adapter types with their options, configuration keys. */
#include "help.h"

#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/version.h"
#include "chatmux/provider/list.h"
#include <stdio.h>

static const struct {
    const char *name, *usage, *text;
} commands[] = {
    {"serve", "chatmux [serve] [-c FILE]",
     "Runs the gateway. Without -c: ./chatmux.ini, then /etc/chatmux/chatmux.ini, then built-in defaults, which serve the demo on 127.0.0.1:8080.\n"
     "SIGHUP reads the file again. SIGTERM lets answers in flight finish; a second one ends at once."},
    {"check", "chatmux check [-c FILE]",
     "Reads everything and prints every problem as FILE:LINE: what to do. Exit code 0 or 1."},
    {"print-config", "chatmux print-config [-c FILE]",
     "Prints the effective configuration and where each value came from; secrets as fingerprints."},
    {"status", "chatmux status [-c FILE]",
     "Tells whether the gateway is there and ready, in one screen. It is found by the configuration (first listener, auth.admin_secret), or by\n"
     "CHATMUX_ADMIN_URL (http://, https:// or unix:/path) and CHATMUX_ADMIN_SECRET. Exit code 0 ready, 1 usage, 3 not reachable or not ready."},
    {"cred", "chatmux cred list|add|rm|check|enable|disable|reset …",
     "The accounts of the running gateway; ID is a number of the list, or a label.\n"
     "  cred list [--provider NAME]\n"
     "  cred add PROVIDER [--label TEXT] [--weight N] [--proxy URL] [--max-inflight N] [--disabled]\n"
     "      asks for the secret without an echo, or reads it from standard input: chatmux cred add openai <key.txt\n"
     "  cred rm|check|enable|disable|reset ID …\n"
     "      check asks the platform now; reset forgets cooldowns and errors. Those of the configuration file are removed there\n"
     "--json prints the admin API's answer. The gateway is found as for status. Exit code 0 fine, 1 usage or refused, 3 not reachable."},
    {"key", "chatmux key list|add|rm …",
     "Keys for clients of the running gateway; ID is a number of the list, or a name.\n"
     "  key list\n"
     "  key add NAME [--models A,B] [--rpm N] [--tpm N] [--max-parallel N] [--budget USD] [--budget-period day|week|month|total]\n"
     "          [--expires 30d | 2026-12-31]\n"
     "      prints a new key, once, on standard output; with --key it asks for one of your own instead\n"
     "  key rm ID …\n"
     "--json prints the admin API's answer. The gateway is found as for status. Exit code 0 fine, 1 usage or refused, 3 not reachable."},
    {"probe",
     "chatmux probe PROVIDER [--credential ID] [--model NAME] [--flow NAME] [--question TEXT]",
     "Asks the platform one short question through the running gateway and prints each step: what was sent where, status, time, the answer's pieces and\n"
     "what of them was not understood; secrets are masked. It costs what a question costs. --flow refresh, login, check or models walks that instead.\n"
     "--json prints the admin API's answer. Exit code 0 it works, 1 it does not, 3 the gateway is not reachable."},
    {"explain", "chatmux explain REQUEST-ID | --dry-run model=NAME [key=NAME]",
     "Why a request was served as it was: every attempt with its account, times and reasons, and who was passed over. REQUEST-ID is the x-request-id of\n"
     "the answer. With --dry-run: what would become of a request for this model that came now.\n"
     "--json prints the admin API's answer. Exit code 0 fine, 1 usage or not found, 3 not reachable."},
    {"import", "chatmux import hixai2api FILE.sql|FILE.db",
     "Takes over what another gateway kept: its accounts, client keys and conversations, from its SQLite file or a dump of its MySQL database (mysqldump). Through the\n"
     "running gateway, found as for status; when none runs, into the store that the configuration names. What is there already stays as it is, so it may\n"
     "be repeated. Exit code 0 fine, 1 usage or something cannot be used, 3 the gateway stopped answering."},
    {"rekey", "chatmux rekey [--key]",
     "Encrypts every stored secret with a new master key while the gateway serves: a random one where the key file is its own, else (--key) one that it\n"
     "asks for and that you put into store.master_key or the systemd credential before the next start."},
    {"backup", "chatmux backup FILE",
     "Copies credentials and keys to FILE while the gateway serves; FILE is on the gateway's machine and must not exist. Secrets in it are encrypted: the\n"
     "master key is not in it. Request log and figures are not either."},
    {"version", "chatmux version", "Prints the version."},
    {"help", "chatmux help [COMMAND | TYPE | config]",
     "Explains a command, a provider type with its options, or every configuration key."},
};

static const struct cm_provider *const adapters[] = {
#define X(id) &cm_provider_##id,
    CM_PROVIDER_LIST(X)
#undef X
};

static void print_overview(void)
{
    printf("chatmux " CM_VERSION
           ": your chat accounts behind one OpenAI-compatible base URL\n\nCommands\n");
    for (size_t i = 0; i < CM_COUNT(commands); i++)
        printf("  %s\n", commands[i].usage);
    printf("\nOptions of serve, check, print-config and the commands for a running gateway\n"
           "  -c, --config FILE        configuration file\n"
           "  --listen ADDRESS         instead of server.listen\n"
           "  --log-level LEVEL        error, warn, info, debug, trace\n"
           "  --set SECTION.KEY=VALUE  any setting, for this run; may be repeated\n"
           "  -h, --help               this text\n"
           "  -V, --version            the version\n"
           "\nProvider types (chatmux help TYPE)\n");
    for (size_t i = 0; i < CM_COUNT(adapters); i++)
        printf("  %-10s %s\n", adapters[i]->name, adapters[i]->help);
    printf("\nEvery setting: chatmux help config\n");
}

static void print_type(const struct cm_provider *p)
{
    printf("type = %s: %s\n", p->name, p->help);
    if (p->base_url)
        printf("base_url = %s unless set\n", p->base_url);
    for (const struct cm_option *o = p->options; o && o->name; o++)
        printf("  x.%s = %s\n      %s%s%s%s%s\n", o->name, o->def, o->help,
               o->choices ? "; one of " : "", o->choices ? o->choices : "",
               o->env ? "; also from the variable " : "", o->env ? o->env : "");
    if (p->n_models > 0)
        printf("Models:");
    for (size_t i = 0; i < p->n_models; i++)
        printf("%s " CM_PRI, i > 0 ? "," : "", CM_ARG(p->models[i].name));
    if (p->n_models > 0)
        printf("\n");
}

static void print_keys(void)
{
    const char *section = "";

    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        const struct cm_conf_key *k = &cm_conf_keys[i];

        if (strcmp(section, k->section) != 0)
            printf("%s[%s%s]\n", i > 0 ? "\n" : "", k->section,
                   strcmp(k->section, "provider") == 0 || strcmp(k->section, "model") == 0 ? " NAME"
                                                                                           : "");
        section = k->section;
        printf("  %s = %s\n      %s%s%s%s\n", k->key, k->def ? k->def : "", k->help,
               k->choices ? "; one of " : "", k->choices ? k->choices : "",
               k->reloadable ? "" : " (takes effect after a restart)");
    }
}

int help_print(const char *topic)
{
    const struct cm_provider *type;

    if (!topic) {
        print_overview();
        return 0;
    }
    for (size_t i = 0; i < CM_COUNT(commands); i++) {
        if (strcmp(commands[i].name, topic) == 0) {
            printf("%s\n\n%s\n", commands[i].usage, commands[i].text);
            return 0;
        }
    }
    if (strcmp(topic, "config") == 0) {
        print_keys();
        return 0;
    }
    type = cm_provider_find(cm_str_of(topic));
    if (type) {
        print_type(type);
        return 0;
    }
    fprintf(
        stderr,
        "chatmux: no help on \"%s\"; topics are the commands, config, and the provider types %s\n",
        topic, cm_provider_names());
    return -1;
}
