/* The service manager (systemd): tells it how we are, and shows signs of life when it asks for them. Loop thread only.
 *
 * Without NOTIFY_SOCKET in the environment all of this does nothing. The protocol is sd_notify(3): datagrams of NAME=value lines. */
#ifndef CHATMUX_IO_NOTIFY_H
#define CHATMUX_IO_NOTIFY_H

#include "chatmux/io/loop.h"

struct cm_notify;

/* Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment. Never NULL. From here on the watchdog is fed from the loop, at half of
 * the time it allows: a loop that hangs is noticed. */
struct cm_notify *cm_notify_new(struct cm_loop *loop);
/* Final: the watchdog is not fed any more, and the loop may end. NULL is fine. */
void cm_notify_close(struct cm_notify *n);

/* What `systemctl status` shows: one line. */
void cm_notify_status(struct cm_notify *n, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void cm_notify_ready(struct cm_notify *n);     /* after the start, and after each reload */
void cm_notify_reloading(struct cm_notify *n); /* must be followed by cm_notify_ready() */
void cm_notify_stopping(struct cm_notify *n);

#endif
