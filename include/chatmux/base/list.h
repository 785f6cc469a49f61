/* Intrusive doubly linked list: a circular ring through a head. Any thread that owns the list. */
#ifndef CHATMUX_BASE_LIST_H
#define CHATMUX_BASE_LIST_H

#include "chatmux/base/mem.h"

#include <stdbool.h>

struct cm_list {
    struct cm_list *prev, *next;
};

static inline void cm_list_init(struct cm_list *l)
{
    l->prev = l->next = l;
}

/* True for an empty head and for a link that is in no list (initialised or removed). */
static inline bool cm_list_empty(const struct cm_list *l)
{
    return l->next == l;
}

/* Appends `link` at the end of the list. */
static inline void cm_list_push(struct cm_list *head, struct cm_list *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* Safe on a link that is in no list. */
static inline void cm_list_remove(struct cm_list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    cm_list_init(link);
}

/* Removes and returns the first link, or NULL. */
static inline struct cm_list *cm_list_pop(struct cm_list *head)
{
    struct cm_list *first = head->next;

    if (first == head)
        return NULL;
    cm_list_remove(first);
    return first;
}

/* The body may remove `it`, and nothing else. */
#define CM_LIST_EACH(head, it)                                                                     \
    for (struct cm_list *it = (head)->next, *it##_next = it->next; it != (head);                   \
         it = it##_next, it##_next = it->next)

#define CM_LIST_ITEM(link, type, member) CM_CONTAINER(link, type, member)

#endif
