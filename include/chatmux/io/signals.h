/* Signals on the loop. Loop thread only. */
#ifndef CHATMUX_IO_SIGNALS_H
#define CHATMUX_IO_SIGNALS_H

#include "chatmux/io/loop.h"

struct cm_signals;

/* SIGTERM, SIGINT and SIGHUP come to `fn` on the loop; SIGPIPE is ignored from now on. */
struct cm_signals *cm_signals_new(struct cm_loop *loop, void (*fn)(void *arg, int signal),
                                  void *arg);
void cm_signals_close(
    struct cm_signals *s); /* final; the signals have their default effect again */

#endif
