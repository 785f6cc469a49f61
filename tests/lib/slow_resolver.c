/* Preloaded into the gateway by the resolver tests: a getaddrinfo() whose answers and delays the test decides.
 * Names ending in .hang.test take SLOW_RESOLVER_MS (6000) and then answer 127.0.0.1, those ending in .fake.test answer 127.0.0.1 at
 * once, those ending in .none.test do not exist; every other name goes to the real resolver. Each lookup appends the name to
 * $SLOW_RESOLVER_LOG. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int lookup_fn(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name), t = strlen(tail);

    return n >= t && strcmp(name + n - t, tail) == 0;
}

static void note(const char *name)
{
    const char *path = getenv("SLOW_RESOLVER_LOG");
    char line[300];
    size_t n = strnlen(name, sizeof(line) - 1);
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        return;
    memcpy(line, name, n);
    line[n] = '\n';
    if (write(fd, line, n + 1) < 0)
        abort(); /* the test would draw wrong conclusions */
    close(fd);
}

static void take_time(void)
{
    const char *text = getenv("SLOW_RESOLVER_MS");
    long ms = text != NULL ? strtol(text, NULL, 10) : 6000;
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    while (nanosleep(&left, &left) != 0)
        ;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **res)
{
    lookup_fn *next = (lookup_fn *)dlsym(RTLD_NEXT, "getaddrinfo");
    bool hang, fake;

    if (node == NULL)
        return next(node, service, hints, res);
    note(node);
    if (ends_with(node, ".none.test"))
        return EAI_NONAME;
    hang = ends_with(node, ".hang.test");
    fake = ends_with(node, ".fake.test");
    if (hang)
        take_time();
    return next(hang || fake ? "127.0.0.1" : node, service, hints, res);
}
