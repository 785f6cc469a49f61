/* Signals on the loop. */
#include "chatmux/io/signals.h"

#include <signal.h>
#include <stdlib.h>

static const int watched[] = {SIGTERM, SIGINT, SIGHUP};

struct cm_signals {
    uv_signal_t handles[CM_COUNT(watched)];
    unsigned pending; /* handles whose close callback has not come */
    void (*fn)(void *arg, int signal);
    void *arg;
};

static void on_signal(uv_signal_t *handle, int number)
{
    struct cm_signals *s = handle->data;

    s->fn(s->arg, number);
}

struct cm_signals *cm_signals_new(struct cm_loop *loop, void (*fn)(void *arg, int signal),
                                  void *arg)
{
    struct cm_signals *s = CM_NEW(struct cm_signals);

    s->fn = fn;
    s->arg = arg;
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < CM_COUNT(watched); i++) {
        CM_ASSERT(uv_signal_init(cm_loop_uv(loop), &s->handles[i]) == 0);
        s->handles[i].data = s;
        s->pending++;
        CM_ASSERT(uv_signal_start(&s->handles[i], on_signal, watched[i]) == 0);
    }
    return s;
}

static void on_closed(uv_handle_t *handle)
{
    struct cm_signals *s = handle->data;

    if (--s->pending == 0)
        free(s);
}

void cm_signals_close(struct cm_signals *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < CM_COUNT(watched); i++)
        uv_close((uv_handle_t *)&s->handles[i], on_closed);
}
