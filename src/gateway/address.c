/* Limits per client address, and which address a client has behind proxies that are trusted. */
#include "address.h"

#include "chatmux/base/net.h"
#include <stdlib.h>

/* One address with the times of its latest events: a ring of as many as the limit allows. */
struct seen {
    struct cm_list link;   /* in the limiter's `recent` */
    struct cm_str address; /* owned */
    uint32_t *times_s;     /* owned; cap of them */
    size_t first, n, cap;
};

void address_limiter_init(struct address_limiter *l)
{
    *l = (struct address_limiter){0};
    cm_list_init(&l->recent);
}

static void seen_free(struct address_limiter *l, struct seen *s)
{
    cm_list_remove(&s->link);
    cm_map_del(&l->addresses, s->address);
    free((char *)(uintptr_t)s->address.p);
    free(s->times_s);
    free(s);
}

void address_limiter_clear(struct address_limiter *l)
{
    CM_LIST_EACH(&l->recent, link)
    seen_free(l, CM_LIST_ITEM(link, struct seen, link));
    cm_map_clear(&l->addresses);
}

static void forget_old(struct seen *s, uint64_t now_s)
{
    while (s->n > 0 && now_s - s->times_s[s->first] >= ADDRESS_WINDOW_S) {
        s->first = (s->first + 1) % s->cap;
        s->n--;
    }
}

bool address_fits(struct address_limiter *l, struct cm_str address, int64_t limit, uint64_t now_s,
                  int *retry_after_s)
{
    struct seen *s = limit > 0 ? cm_map_get(&l->addresses, address) : NULL;

    if (!s)
        return true;
    forget_old(s, now_s);
    if (s->n < (size_t)limit)
        return true;
    *retry_after_s = (int)(ADDRESS_WINDOW_S - (now_s - s->times_s[s->first]));
    return false;
}

static struct seen *seen_get(struct address_limiter *l, struct cm_str address)
{
    struct seen *s = cm_map_get(&l->addresses, address);

    if (s) {
        cm_list_remove(&s->link);
    } else {
        if (l->addresses.n >= ADDRESSES_MAX)
            seen_free(l, CM_LIST_ITEM(l->recent.next, struct seen, link));
        s = CM_NEW(struct seen);
        s->address = cm_str(cm_str_dup(address), address.n);
        cm_map_put(&l->addresses, s->address, s);
        cm_list_init(&s->link);
    }
    cm_list_push(&l->recent, &s->link);
    return s;
}

/* A changed limit keeps the latest events. */
static void seen_resize(struct seen *s, size_t cap)
{
    uint32_t *times_s = cm_calloc(cap, sizeof(*times_s));
    size_t keep = s->n < cap ? s->n : cap;

    for (size_t i = 0; i < keep; i++)
        times_s[i] = s->times_s[(s->first + s->n - keep + i) % s->cap];
    free(s->times_s);
    s->times_s = times_s;
    s->first = 0;
    s->n = keep;
    s->cap = cap;
}

void address_record(struct address_limiter *l, struct cm_str address, int64_t limit, uint64_t now_s)
{
    struct seen *s;

    if (limit <= 0)
        return;
    s = seen_get(l, address);
    forget_old(s, now_s);
    if (s->cap != (size_t)limit)
        seen_resize(s, (size_t)limit);
    if (s->n == s->cap)
        return; /* only when the caller did not ask address_fits() */
    s->times_s[(s->first + s->n++) % s->cap] = (uint32_t)now_s;
}

static bool is_trusted(const struct cm_strs *trusted, struct cm_str address)
{
    struct cm_ip ip;

    if (cm_ip_parse(address, &ip) < 0)
        return false;
    for (size_t i = 0; i < trusted->n; i++)
        if (cm_ip_in(&ip, trusted->v[i]))
            return true;
    return false;
}

struct cm_str address_of_client(const struct cm_strs *trusted, struct cm_str peer,
                                struct cm_str forwarded_for)
{
    struct cm_str client = peer;

    /* A unix socket has no address that could be listed: who may open it is trusted as soon as anybody is. */
    bool believe = cm_str_eq(peer, CM_S("unix")) ? trusted->n > 0 : is_trusted(trusted, peer);

    while (believe && forwarded_for.n > 0) {
        size_t comma = forwarded_for.n;
        struct cm_str hop;
        struct cm_ip ip;

        while (comma > 0 && forwarded_for.p[comma - 1] != ',')
            comma--;
        hop = cm_str_trim(cm_str_from(forwarded_for, comma));
        forwarded_for = cm_str_head(forwarded_for, comma > 0 ? comma - 1 : 0);
        if (cm_ip_parse(hop, &ip) < 0)
            break; /* a proxy that writes names or ports: the last address we understood counts */
        client = hop;
        believe = is_trusted(trusted, hop);
    }
    return client;
}
