/* Runs the unit tests: every suite of suites.h, or the one that SUITE names; --list prints the names. */
#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define X(module) {#module, suite_##module},
#include "suites.h"
#undef X
};

static int list(void)
{
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
        puts(suites[i].name);
    return 0;
}

int main(int argc, char **argv)
{
    /* Seconds a test may take, sanitizers and a busy machine included. */
    int limit = setenv("CK_DEFAULT_TIMEOUT", "30", 0);
    const char *only = getenv("SUITE");
    SRunner *runner = srunner_create(NULL);
    size_t chosen = 0;
    int failed;

    if (limit != 0)
        return 2;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        srunner_free(runner);
        return list();
    }
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        if (only && strcmp(only, suites[i].name) != 0)
            continue;
        srunner_add_suite(runner, suites[i].make());
        chosen++;
    }
    if (chosen == 0) {
        fprintf(stderr, "no suite is called \"%s\"\n", only ? only : "");
        srunner_free(runner);
        return 2;
    }
    srunner_run_all(
        runner,
        CK_NORMAL); /* a process for each test, unless CK_FORK=no asks otherwise for a debugger */
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
