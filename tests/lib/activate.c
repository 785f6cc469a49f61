/* Starts a program as a service manager with socket activation does: activate ADDRESS... -- PROGRAM ARGUMENT...
 *
 * ADDRESS: 4:PORT (127.0.0.1), 6:PORT ([::1]), unix:PATH, udp:PORT (which no unit of ours would pass), closed (a descriptor that is not open).
 * Descriptors 3, 4, … are these sockets in their order, with the names s0, s1, …. Environment: ACTIVATE_PID announces them to another process,
 * ACTIVATE_HOLD=MS says "listening" and waits before the program starts, while connections queue up. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(111);
}

static int open_ip(int family, int type, const char *port)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(family, type, 0), on = 1;
    uint16_t number = htons((uint16_t)strtoul(port, NULL, 10));

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in.sin_port = in6.sin6_port = number;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || (family == AF_INET ? bind(fd, (struct sockaddr *)&in, sizeof(in))
                                     : bind(fd, (struct sockaddr *)&in6, sizeof(in6))) != 0)
        die(port);
    return fd;
}

static int open_unix(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) != 0)
        die(path);
    return fd;
}

static int open_socket(const char *address)
{
    int fd = -1;

    if (strncmp(address, "udp:", 4) == 0)
        return open_ip(AF_INET, SOCK_DGRAM, address + 4);
    if (strncmp(address, "4:", 2) == 0)
        fd = open_ip(AF_INET, SOCK_STREAM, address + 2);
    else if (strncmp(address, "6:", 2) == 0)
        fd = open_ip(AF_INET6, SOCK_STREAM, address + 2);
    else if (strncmp(address, "unix:", 5) == 0)
        fd = open_unix(address + 5);
    if (fd < 0 || listen(fd, 64) != 0)
        die(address);
    return fd;
}

int main(int argc, char **argv)
{
    const char *hold = getenv("ACTIVATE_HOLD");
    bool for_other = getenv("ACTIVATE_PID") != NULL;
    unsigned long hold_ms = hold ? strtoul(hold, NULL, 10) : 0; /* setenv() may move the text */
    char number[24], names[512] = "";
    int fds[16], n = 0, at = 1;

    for (; at < argc && strcmp(argv[at], "--") != 0 && n < 16; at++, n++) {
        size_t used = strlen(names);

        fds[n] = strcmp(argv[at], "closed") == 0 ? -1 : open_socket(argv[at]);
        snprintf(names + used, sizeof(names) - used, "%ss%d", n > 0 ? ":" : "", n);
    }
    if (at + 1 >= argc)
        return 110;
    for (int i = 0; i < n; i++) /* out of the way of 3, 4, … */
        fds[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, 64);
    for (int i = 0; i < n; i++) {
        if (fds[i] < 0)
            close(3 + i);
        else if (dup2(fds[i], 3 + i) < 0)
            die("dup2");
    }
    snprintf(number, sizeof(number), "%d", n);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    snprintf(number, sizeof(number), "%d", for_other ? 1 : (int)getpid());
    setenv("LISTEN_PID", number, 1);
    if (hold_ms > 0) {
        puts("listening");
        fflush(stdout);
        usleep((useconds_t)hold_ms * 1000);
    }
    execv(argv[at + 1], argv + at + 1);
    die(argv[at + 1]);
}
