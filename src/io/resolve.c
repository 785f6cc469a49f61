/* Names to addresses.
 *
 * Happy path: cm_resolve -> an entry that is fresh answers at once. Otherwise the entry gets one lookup, its waiters queue on it -> a detached thread runs
 * getaddrinfo -> the async handle brings the result home -> waiters are told.
 * Failures: a lookup that fails is remembered shortly, but never replaces addresses that may still be served. One that hangs keeps its thread until
 * it returns; when the resolver is closed meanwhile, the thread frees what it was given. */
#include "resolve_int.h"

#include "chatmux/base/map.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

#define ADDRESSES_CAP 1024 /* bytes; about 20 IPv6 addresses */
#define ADDRESSES_MAX 16
#define STACK_BYTES (256 * 1024)

/* What the threads and the resolver share; everything below `mutex` is guarded by it. */
struct shared {
    int (*lookup)(const char *host, char *out, size_t cap);
    pthread_mutex_t mutex;
    struct cm_list finished; /* struct lookup */
    uv_async_t *async;       /* NULL once the resolver is closed */
    unsigned refs;           /* the resolver and every thread that runs */
};

/* Belongs to its thread from start to finish, to the resolver before and after. */
struct lookup {
    struct cm_list link; /* in shared->finished, or in resolver->queue */
    struct shared *shared;
    struct entry *entry; /* never touched by the thread */
    char *host;          /* owned */
    enum cm_resolve_for who;
    bool running; /* not in a queue any more; on the loop's side */
    int rc, sys_errno;
    char addresses[ADDRESSES_CAP];
};

struct entry {
    char *host;            /* owned; lower case; the key */
    struct cm_list link;   /* in resolver->entries, the least recently used first */
    struct cm_list waits;  /* struct cm_resolve_wait */
    struct lookup *lookup; /* NULL when none is queued or running */
    char *addresses;       /* owned; NULL = none known */
    uint64_t fresh_until_ms, stale_until_ms; /* of `addresses` */
    uint64_t failed_until_ms;
    struct cm_err err; /* of the last failure */
};

struct cm_resolve_wait {
    struct cm_list link; /* in entry->waits */
    struct entry *entry;
    cm_resolve_fn *fn;
    void *arg;
};

struct cm_resolver {
    struct cm_loop *loop; /* not owned */
    struct cm_resolver_setup setup;
    struct shared *shared; /* one reference */
    uv_async_t async;
    struct cm_map map; /* host -> struct entry */
    struct cm_list entries;
    size_t n_entries;
    struct cm_list queue[2]; /* struct lookup that wait for a thread, by enum cm_resolve_for */
    unsigned running, running_client;
};

/* ---- on a lookup's thread */

static int lookup_system(const char *host, char *out, size_t cap)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &list);
    size_t n = 0, count = 0;

    if (rc != 0)
        return rc;
    for (const struct addrinfo *ai = list; ai && count < ADDRESSES_MAX; ai = ai->ai_next) {
        char text[80];
        bool v6 = ai->ai_family == AF_INET6;
        int len;

        if ((!v6 && ai->ai_family != AF_INET) ||
            getnameinfo(ai->ai_addr, ai->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) !=
                0 ||
            strchr(text, '%')) /* link-local: means nothing without its interface */
            continue;
        len = snprintf(out + n, cap - n, v6 ? "%s[%s]" : "%s%s", n > 0 ? "," : "", text);
        if (len < 0 || (size_t)len >= cap - n) {
            out[n] = '\0';
            break;
        }
        n += (size_t)len;
        count++;
    }
    freeaddrinfo(list);
    return n > 0 ? 0 : EAI_NONAME;
}

static void lookup_free(struct lookup *l)
{
    free(l->host);
    free(l);
}

/* Called with the mutex held; releases it. */
static void shared_unref(struct shared *s)
{
    bool last = --s->refs == 0;

    pthread_mutex_unlock(&s->mutex);
    if (!last)
        return;
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

static void *lookup_thread(void *arg)
{
    struct lookup *l = arg;
    struct shared *s = l->shared;

    l->rc = s->lookup(l->host, l->addresses, sizeof(l->addresses));
    l->sys_errno = errno;
    pthread_mutex_lock(&s->mutex);
    if (s->async) {
        cm_list_push(&s->finished, &l->link);
        uv_async_send(s->async);
    } else {
        lookup_free(l);
    }
    shared_unref(s);
    return NULL;
}

/* Signals belong to the loop's thread. */
static int thread_start(struct lookup *l)
{
    sigset_t all, before;
    pthread_attr_t attr;
    pthread_t thread;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    rc = pthread_create(&thread, &attr, lookup_thread, l);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* ---- on the loop */

/* A callback may cancel other waiters, ask again (and is answered at once) or close the resolver, which empties the list. */
static void entry_tell(struct entry *e, struct cm_str addresses, const struct cm_err *err)
{
    struct cm_list *link;

    while ((link = cm_list_pop(&e->waits))) {
        struct cm_resolve_wait *w = CM_LIST_ITEM(link, struct cm_resolve_wait, link);
        cm_resolve_fn *fn = w->fn;
        void *fn_arg = w->arg;

        free(w);
        fn(fn_arg, addresses, err);
    }
}

static void entry_fail(struct cm_resolver *r, struct entry *e, const char *why)
{
    e->failed_until_ms = cm_loop_now_ms(r->loop) + r->setup.fail_ttl_ms;
    memset(&e->err, 0, sizeof(e->err));
    cm_fail(&e->err, CM_ERR_UPSTREAM_DOWN, "the name %s cannot be resolved: %s", e->host, why);
}

static void lookup_done(struct cm_resolver *r, struct lookup *l)
{
    struct entry *e = l->entry;
    uint64_t now_ms = cm_loop_now_ms(r->loop);

    e->lookup = NULL;
    if (l->rc == 0) {
        free(e->addresses);
        e->addresses = cm_strdup(l->addresses);
        e->fresh_until_ms = now_ms + r->setup.ttl_ms;
        e->stale_until_ms = e->fresh_until_ms + r->setup.stale_ms;
        e->failed_until_ms = 0;
        entry_tell(e, cm_str_of(l->addresses),
                   NULL); /* the entry's own copy may be evicted in a callback */
    } else {
        struct cm_err err;

        entry_fail(r, e, l->rc == EAI_SYSTEM ? strerror(l->sys_errno) : gai_strerror(l->rc));
        err = e->err;
        entry_tell(e, CM_STR_NONE, &err);
    }
    lookup_free(l);
}

static void queue_run(struct cm_resolver *r)
{
    for (;;) {
        struct cm_list *link = NULL;
        struct lookup *l;

        if (r->running >= r->setup.max_lookups)
            return;
        link = cm_list_pop(&r->queue[CM_RESOLVE_OWN]);
        if (!link && r->running_client < r->setup.max_client_lookups)
            link = cm_list_pop(&r->queue[CM_RESOLVE_CLIENT]);
        if (!link)
            return;
        l = CM_LIST_ITEM(link, struct lookup, link);
        l->running = true;
        pthread_mutex_lock(&r->shared->mutex);
        r->shared->refs++;
        pthread_mutex_unlock(&r->shared->mutex);
        if (r->running++ == 0)
            uv_ref((uv_handle_t *)&r
                       ->async); /* somebody waits: the loop must not end for lack of other work */
        r->running_client += l->who == CM_RESOLVE_CLIENT;
        if (thread_start(l) !=
            0) { /* UNTESTED: no more threads; told like every other failure, on a later turn */
            l->rc = EAI_AGAIN;
            pthread_mutex_lock(&r->shared->mutex);
            cm_list_push(&r->shared->finished, &l->link);
            uv_async_send(&r->async);
            shared_unref(r->shared);
        }
    }
}

static void on_finished(uv_async_t *async)
{
    struct cm_resolver *r = async->data;

    for (;;) {
        struct cm_list *link;
        struct lookup *l;

        pthread_mutex_lock(&r->shared->mutex);
        link = cm_list_pop(&r->shared->finished);
        pthread_mutex_unlock(&r->shared->mutex);
        if (!link)
            break;
        l = CM_LIST_ITEM(link, struct lookup, link);
        r->running--;
        r->running_client -= l->who == CM_RESOLVE_CLIENT;
        lookup_done(r, l);
        if (uv_is_closing((uv_handle_t *)async))
            return; /* a waiter closed us */
    }
    queue_run(r);
    if (r->running == 0)
        uv_unref((uv_handle_t *)async);
}

struct cm_resolver *cm_resolver_new_with(struct cm_loop *loop,
                                         const struct cm_resolver_setup *setup)
{
    struct cm_resolver *r = CM_NEW(struct cm_resolver);

    r->loop = loop;
    r->setup = *setup;
    cm_list_init(&r->entries);
    cm_list_init(&r->queue[CM_RESOLVE_OWN]);
    cm_list_init(&r->queue[CM_RESOLVE_CLIENT]);
    CM_ASSERT(uv_async_init(cm_loop_uv(loop), &r->async, on_finished) == 0);
    uv_unref((uv_handle_t *)&r->async);
    r->async.data = r;
    r->shared = CM_NEW(struct shared);
    r->shared->lookup = setup->lookup;
    pthread_mutex_init(&r->shared->mutex, NULL);
    cm_list_init(&r->shared->finished);
    r->shared->async = &r->async;
    r->shared->refs = 1;
    return r;
}

struct cm_resolver *cm_resolver_new(struct cm_loop *loop)
{
    static const struct cm_resolver_setup setup = {
        .lookup = lookup_system,
        .ttl_ms = 60 * 1000,
        .fail_ttl_ms = 2 * 1000,
        .stale_ms = 5 * 60 * 1000,
        .max_lookups = 32,
        .max_client_lookups = 16,
        .max_entries = 1024,
    };

    return cm_resolver_new_with(loop, &setup);
}

static void entry_free(struct cm_resolver *r, struct entry *e)
{
    cm_list_remove(&e->link);
    cm_map_del(&r->map, cm_str_of(e->host));
    r->n_entries--;
    free(e->addresses);
    free(e->host);
    free(e);
}

static void on_closed(uv_handle_t *handle)
{
    struct cm_resolver *r = handle->data;
    struct cm_list *link;

    for (int i = 0; i < 2; i++)
        while ((link = cm_list_pop(&r->queue[i])))
            lookup_free(CM_LIST_ITEM(link, struct lookup, link));
    while ((link = r->entries.next) != &r->entries)
        entry_free(r, CM_LIST_ITEM(link, struct entry, link));
    cm_map_clear(&r->map);
    free(r);
}

void cm_resolver_close(struct cm_resolver *r)
{
    struct cm_list *link;

    if (!r)
        return;
    pthread_mutex_lock(&r->shared->mutex);
    r->shared->async = NULL;
    while ((link = cm_list_pop(&r->shared->finished)))
        lookup_free(CM_LIST_ITEM(link, struct lookup, link));
    shared_unref(r->shared);
    CM_LIST_EACH(&r->entries, it)
    {
        struct entry *e = CM_LIST_ITEM(it, struct entry, link);

        while ((link = cm_list_pop(&e->waits)))
            free(CM_LIST_ITEM(link, struct cm_resolve_wait, link));
    }
    uv_close((uv_handle_t *)&r->async, on_closed);
}

static void evict_one(struct cm_resolver *r)
{
    CM_LIST_EACH(&r->entries, it)
    {
        struct entry *e = CM_LIST_ITEM(it, struct entry, link);

        if (!e->lookup) {
            entry_free(r, e);
            return;
        }
    }
}

static struct entry *entry_get(struct cm_resolver *r, struct cm_str host)
{
    struct entry *e = cm_map_get(&r->map, host);

    if (e) {
        cm_list_remove(&e->link);
    } else {
        if (r->n_entries >= r->setup.max_entries)
            evict_one(r);
        e = CM_NEW(struct entry);
        e->host = cm_str_dup(host);
        cm_list_init(&e->waits);
        cm_map_put(&r->map, cm_str(e->host, host.n), e);
        r->n_entries++;
    }
    cm_list_push(&r->entries, &e->link);
    return e;
}

static void lookup_start(struct cm_resolver *r, struct entry *e, enum cm_resolve_for who)
{
    struct lookup *l = CM_NEW(struct lookup);

    l->shared = r->shared;
    l->entry = e;
    l->host = cm_strdup(e->host);
    l->who = who;
    e->lookup = l;
    cm_list_push(&r->queue[who], &l->link);
    queue_run(r);
}

/* A name of the configuration must not queue behind those of clients because a client happened to ask for it first. */
static void lookup_promote(struct cm_resolver *r, struct lookup *l)
{
    if (l->running || l->who == CM_RESOLVE_OWN)
        return;
    cm_list_remove(&l->link);
    l->who = CM_RESOLVE_OWN;
    cm_list_push(&r->queue[CM_RESOLVE_OWN], &l->link);
    queue_run(r);
}

static bool is_localhost(struct cm_str host)
{
    return cm_str_eq(host, CM_S("localhost")) || cm_str_ends(host, CM_S(".localhost"));
}

static struct cm_str lower_host(struct cm_str host, char *out, size_t cap)
{
    size_t n = cm_str_copy(out, cap, host);

    for (size_t i = 0; i < n; i++)
        if (out[i] >= 'A' && out[i] <= 'Z')
            out[i] = (char)(out[i] + ('a' - 'A'));
    return cm_str(out, n);
}

struct cm_resolve_wait *cm_resolve(struct cm_resolver *r, struct cm_str host,
                                   enum cm_resolve_for who, struct cm_str *addresses,
                                   struct cm_err *err, cm_resolve_fn *fn, void *arg)
{
    uint64_t now_ms = cm_loop_now_ms(r->loop);
    char lower[256];
    struct cm_resolve_wait *w;
    struct entry *e;

    *addresses = CM_STR_NONE;
    if (host.n == 0 || host.n >= sizeof(lower) || memchr(host.p, '\0', host.n)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "the host name is not valid");
        return NULL;
    }
    host = lower_host(host, lower, sizeof(lower));
    if (is_localhost(host)) {
        *addresses = CM_S("127.0.0.1,[::1]");
        return NULL;
    }
    e = entry_get(r, host);
    if (e->addresses && now_ms < e->stale_until_ms) {
        *addresses = cm_str_of(e->addresses);
        if (now_ms >= e->fresh_until_ms && now_ms >= e->failed_until_ms && !e->lookup)
            lookup_start(r, e, who);
        return NULL;
    }
    if (now_ms < e->failed_until_ms) {
        *err = e->err;
        return NULL;
    }
    w = CM_NEW(struct cm_resolve_wait);
    w->entry = e;
    w->fn = fn;
    w->arg = arg;
    cm_list_push(&e->waits, &w->link);
    if (!e->lookup)
        lookup_start(r, e, who);
    else if (who == CM_RESOLVE_OWN)
        lookup_promote(r, e->lookup);
    return w;
}

/* A lookup that runs goes on: its answer may serve the next one. One that nobody waits for any more does not begin. */
void cm_resolve_cancel(struct cm_resolve_wait *w)
{
    struct entry *e;

    if (!w)
        return;
    e = w->entry;
    cm_list_remove(&w->link);
    free(w);
    if (cm_list_empty(&e->waits) && e->lookup && !e->lookup->running && !e->addresses) {
        cm_list_remove(&e->lookup->link);
        lookup_free(e->lookup);
        e->lookup = NULL;
    }
}
