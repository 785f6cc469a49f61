/* Orders of the pool: a binary heap by time, and a treap by rank whose nodes know for which models a whole subtree is cooled, and what it can pay. */
#include "pool_int.h"

#include <stdlib.h>

#define SECOND_LOOKS 8

/* ---- heap ---- */

static void heap_set(struct heap *h, size_t pos, struct due *d)
{
    h->v[pos] = d;
    d->pos = pos;
    ++*h->ops;
}

static void heap_up(struct heap *h, size_t pos, struct due *d)
{
    for (; pos > 1 && h->v[pos / 2]->at_ms > d->at_ms; pos /= 2)
        heap_set(h, pos, h->v[pos / 2]);
    heap_set(h, pos, d);
}

static void heap_down(struct heap *h, size_t pos, struct due *d)
{
    for (size_t child; (child = 2 * pos) <= h->n; pos = child) {
        if (child < h->n && h->v[child + 1]->at_ms < h->v[child]->at_ms)
            child++;
        if (h->v[child]->at_ms >= d->at_ms)
            break;
        heap_set(h, pos, h->v[child]);
    }
    heap_set(h, pos, d);
}

static void heap_settle(struct heap *h, size_t pos, struct due *d)
{
    if (pos > 1 && h->v[pos / 2]->at_ms > d->at_ms)
        heap_up(h, pos, d);
    else
        heap_down(h, pos, d);
}

void heap_put(struct heap *h, struct due *d, uint64_t at_ms)
{
    d->at_ms = at_ms;
    if (d->pos == 0) {
        if (h->n + 1 >= h->cap) {
            h->cap = h->cap > 0 ? 2 * h->cap : 8;
            h->v = cm_realloc(h->v, h->cap * sizeof(struct due *));
        }
        d->pos = ++h->n;
        h->v[d->pos] = d;
    }
    heap_settle(h, d->pos, d);
}

void heap_del(struct heap *h, struct due *d)
{
    size_t pos = d->pos;
    struct due *last;

    if (pos == 0)
        return;
    last = h->v[h->n--];
    if (last != d)
        heap_settle(h, pos, last);
    d->pos = 0;
}

void heap_shrink(struct heap *h)
{
    CM_ASSERT(h->n == 0);
    if (h->cap > 8) {
        free(h->v), h->v = NULL;
        h->cap = 0;
    }
}

/* ---- tree ---- */

static bool before(const struct cred *a, const struct cred *b)
{
    if (a->inflight != b->inflight)
        return a->inflight < b->inflight;
    if (a->seq != b->seq)
        return a->seq < b->seq;
    return a->id < b->id;
}

/* What is known of a subtree goes into what is known of the one above. */
static void add_up(struct cred *c, const struct cred *below)
{
    c->all &= below->all;
    for (unsigned i = 0; i < CM_PURSES; i++)
        if (below->rich[i] > c->rich[i])
            c->rich[i] = below->rich[i];
}

static void begin_sum(struct cred *c)
{
    c->all = c->mask;
    for (unsigned i = 0; i < CM_PURSES; i++)
        c->rich[i] = cred_purse(c, i);
}

static void sum_up(struct cred *c)
{
    begin_sum(c);
    if (c->left)
        add_up(c, c->left);
    if (c->right)
        add_up(c, c->right);
}

static struct cred **link_to(struct tree *t, struct cred *c)
{
    if (!c->up)
        return &t->root;
    return c->up->left == c ? &c->up->left : &c->up->right;
}

/* Changes places with its parent. */
static void rotate_up(struct tree *t, struct cred *c)
{
    struct cred *parent = c->up, **from = link_to(t, parent), *moved;

    if (parent->left == c) {
        moved = c->right;
        c->right = parent;
        parent->left = moved;
    } else {
        moved = c->left;
        c->left = parent;
        parent->right = moved;
    }
    if (moved)
        moved->up = parent;
    c->up = parent->up;
    parent->up = c;
    *from = c;
    sum_up(parent);
    sum_up(c);
    ++*t->ops;
}

void tree_put(struct tree *t, struct cred *c)
{
    struct cred **at = &t->root;

    c->up = c->left = c->right = NULL;
    begin_sum(c);
    while (*at) {
        c->up = *at;
        add_up(c->up, c);
        at = before(c, *at) ? &(*at)->left : &(*at)->right;
        ++*t->ops;
    }
    *at = c;
    while (c->up && c->up->prio < c->prio)
        rotate_up(t, c);
    t->n++;
}

void tree_del(struct tree *t, struct cred *c)
{
    struct cred *up;

    while (c->left || c->right) {
        if (!c->right || (c->left && c->left->prio > c->right->prio))
            rotate_up(t, c->left);
        else
            rotate_up(t, c->right);
    }
    *link_to(t, c) = NULL;
    for (up = c->up; up; up = up->up) {
        sum_up(up);
        ++*t->ops;
    }
    c->up = NULL;
    t->n--;
}

void tree_remask(struct tree *t, struct cred *c)
{
    for (; c; c = c->up) {
        sum_up(c);
        ++*t->ops;
    }
}

bool was_tried(const struct cm_tried *tried, uint64_t id)
{
    for (size_t i = 0; tried && i < tried->n; i++)
        if (tried->ids[i] == id)
            return true;
    return false;
}

static bool hopeful(const struct cred *root, const struct want *w)
{
    return root && !(root->all & w->bit) && root->rich[w->purse] >= w->cost;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the treap, about 2 log n */
static struct cred *first_below(const struct tree *t, struct cred *c, const struct want *w)
{
    for (; hopeful(c, w); c = c->right) {
        struct cred *found = first_below(t, c->left, w);

        ++*t->ops;
        if (found)
            return found;
        if (want_suits(w, c))
            return c;
    }
    return NULL;
}

struct cred *tree_first(const struct tree *t, const struct want *w)
{
    return first_below(t, t->root, w);
}

bool tree_hopeful(const struct tree *t, const struct want *w)
{
    return hopeful(t->root, w);
}

/* Behind it in the order of ranks. */
static const struct cred *after(const struct tree *t, const struct cred *c)
{
    ++*t->ops;
    if (c->right) {
        for (c = c->right; c->left; c = c->left)
            ++*t->ops;
        return c;
    }
    for (; c->up && c->up->right == c; c = c->up)
        ++*t->ops;
    return c->up;
}

const struct cred *tree_second(const struct tree *t, const struct cred *first, const struct want *w)
{
    const struct cred *c = after(t, first);

    for (int looks = 1; c && looks < SECOND_LOOKS && !want_suits(w, c); looks++)
        c = after(t, c);
    return c;
}
