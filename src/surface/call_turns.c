/* Calls that wait for their turn, for streams of Messages and Responses. */
#include "call_turns.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

#define CALLS_MAX 1024

static struct cm_str own(struct cm_str s)
{
    return cm_str(cm_str_dup(s), s.n);
}

void cm_call_turns_clear(struct cm_call_turns *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free((char *)(uintptr_t)t->calls[i].id.p);
        free((char *)(uintptr_t)t->calls[i].name.p);
        cm_buf_clear(&t->calls[i].held);
    }
    free(t->calls);
    *t = (struct cm_call_turns){0};
}

void cm_call_turns_add(struct cm_call_turns *t, const struct cm_event *ev)
{
    CM_ASSERT(ev->index >= 0 && ev->index < CALLS_MAX);
    if ((size_t)ev->index < t->n)
        return; /* once is enough */
    t->calls = cm_realloc(t->calls, (t->n + 1) * sizeof(*t->calls));
    t->calls[t->n++] = (struct cm_turn_call){.id = own(ev->id), .name = own(ev->name)};
}

struct cm_turn_call *cm_call_turns_next(const struct cm_call_turns *t, bool waits)
{
    size_t k = 0;

    while (k < t->n && t->calls[k].begun)
        k++;
    if (k == t->n || (waits && !cm_whole_json_is(&t->calls[t->current].args)))
        return NULL;
    return &t->calls[k];
}

void cm_call_turns_begin(struct cm_call_turns *t, struct cm_turn_call *c)
{
    c->begun = true;
    t->current = (size_t)(c - t->calls);
}

struct cm_turn_call *cm_call_turns_args(struct cm_call_turns *t, const struct cm_event *ev,
                                        bool open)
{
    struct cm_turn_call *c;

    if (ev->text.n == 0 || (size_t)ev->index >= t->n)
        return NULL;
    c = &t->calls[ev->index];
    if (!c->begun)
        cm_buf_append(&c->held, ev->text);
    return c->begun && open && t->current == (size_t)ev->index ? c : NULL;
}
