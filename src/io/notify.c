/* Datagrams to the service manager, and its watchdog. */
#include "chatmux/io/notify.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SEND_PATIENCE_S 1 /* for a manager whose queue is full; signs of life do not wait at all */

struct cm_notify {
    struct cm_loop *loop; /* not owned */
    int fd;               /* -1: nobody wants to know */
    struct sockaddr_un to;
    socklen_t to_n;
    uint64_t watchdog_ms; /* between two signs of life; 0 = none are wanted */
    struct cm_deadline watchdog;
};

static void notify_send(struct cm_notify *n, struct cm_str message, int flags)
{
    ssize_t sent;

    if (n->fd < 0)
        return;
    do
        sent = sendto(n->fd, message.p, message.n, MSG_NOSIGNAL | flags,
                      (const struct sockaddr *)&n->to, n->to_n);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        cm_warn("notify", "the service manager was not told \"" CM_PRI "\": %s", CM_ARG(message),
                strerror(errno));
}

/* A path, or @name for one that is no file. */
static int read_address(struct cm_notify *n, const char *text)
{
    size_t size = strlen(text);

    if ((text[0] != '/' && text[0] != '@') || size < 2 || size >= sizeof(n->to.sun_path))
        return -1;
    n->to.sun_family = AF_UNIX;
    memcpy(n->to.sun_path, text, size + 1);
    if (text[0] == '@')
        n->to.sun_path[0] = '\0'; /* unix(7): an abstract name ends where its length says */
    n->to_n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (text[0] == '/'));
    return 0;
}

static uint64_t read_number(const char *name)
{
    const char *text = getenv(name);
    uint64_t value = 0;

    return text && cm_str_to_u64(cm_str_of(text), UINT64_MAX, &value) ? value : 0;
}

static void on_watchdog(void *arg)
{
    struct cm_notify *n = arg;

    notify_send(n, CM_S("WATCHDOG=1"), MSG_DONTWAIT);
    cm_deadline_set(n->loop, &n->watchdog, cm_loop_now_ms(n->loop) + n->watchdog_ms);
}

static void start_watchdog(struct cm_notify *n)
{
    uint64_t allowed_us = read_number("WATCHDOG_USEC"), pid = read_number("WATCHDOG_PID");

    if (n->fd < 0 || allowed_us == 0 || (pid > 0 && pid != (uint64_t)getpid()))
        return;
    n->watchdog_ms = allowed_us / 2000 > 0 ? allowed_us / 2000 : 1;
    cm_deadline_set(n->loop, &n->watchdog, cm_loop_now_ms(n->loop) + n->watchdog_ms);
}

struct cm_notify *cm_notify_new(struct cm_loop *loop)
{
    struct cm_notify *n = CM_NEW(struct cm_notify);
    const struct timeval patience = {.tv_sec = SEND_PATIENCE_S};
    const char *address = getenv("NOTIFY_SOCKET");

    n->loop = loop;
    n->fd = -1;
    cm_deadline_init(&n->watchdog, on_watchdog, n);
    if (address && read_address(n, address) < 0)
        cm_warn("notify", "NOTIFY_SOCKET is neither a path nor @name: the service manager is "
                          "told nothing");
    else if (address)
        n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (n->fd >= 0)
        setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    start_watchdog(n);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return n;
}

void cm_notify_close(struct cm_notify *n)
{
    if (!n)
        return;
    cm_deadline_clear(n->loop, &n->watchdog);
    if (n->fd >= 0)
        close(n->fd);
    free(n);
}

void cm_notify_status(struct cm_notify *n, const char *fmt, ...)
{
    char line[256] = "STATUS=";
    size_t head = strlen(line);
    va_list args;

    va_start(args, fmt);
    vsnprintf(line + head, sizeof(line) - head, fmt, args);
    va_end(args);
    for (char *p = line; *p; p++)
        if (*p == '\n')
            *p = ' ';
    notify_send(n, cm_str_of(line), 0);
}

void cm_notify_ready(struct cm_notify *n)
{
    notify_send(n, CM_S("READY=1"), 0);
}

void cm_notify_reloading(struct cm_notify *n)
{
    char text[64];

    /* With the time the manager can tell this reload from one that it asked for earlier. */
    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)cm_mono_us());
    notify_send(n, cm_str_of(text), 0);
}

void cm_notify_stopping(struct cm_notify *n)
{
    notify_send(n, CM_S("STOPPING=1"), 0);
}
