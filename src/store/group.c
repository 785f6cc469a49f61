/* What is collected between two group commits: copies, sums, and putting back what could not be written. */
#include "group_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stddef.h>
#include <stdlib.h>

#define TEXT_MAX 1024          /* of one text of a log row; a model name comes from a client */
#define DETAIL_MAX (64 * 1024) /* above: left out, since half of a JSON text is none */
#define SUM_NAME_MAX 128
#define AT_MS_MAX INT64_C(253402300799999) /* the year 9999: what a file's name can say */
#define MEMORIES_MAX 4096
#define MODELS_MAX 4096 /* sums of one day in one group: then the rest is "(other)" */

void cm_group_init(struct cm_store_group *g)
{
    *g = (struct cm_store_group){0};
    cm_list_init(&g->days);
}

static void free_values(struct cm_map *m)
{
    const struct cm_map_slot *slot;

    for (size_t pos = 0; (slot = cm_map_next(m, &pos));)
        free(slot->value);
    cm_map_clear(m);
}

static void free_entry(struct cm_store_day *day, struct cm_store_entry *e)
{
    day->n_entries--;
    day->bytes -= e->bytes;
    cm_list_remove(&e->link);
    free(e);
}

void cm_group_free_day(struct cm_store_day *day)
{
    CM_LIST_EACH(&day->entries, link)
    free_entry(day, CM_LIST_ITEM(link, struct cm_store_entry, link));
    free_values(&day->sums);
    cm_list_remove(&day->link);
    free(day);
}

void cm_group_clear_pool(struct cm_store_group *g)
{
    free_values(&g->counts);
    free_values(&g->states);
    free_values(&g->memories);
    g->stamp = (struct cm_store_stamp){0};
    g->probe = false;
}

void cm_group_clear(struct cm_store_group *g)
{
    cm_group_clear_pool(g);
    CM_LIST_EACH(&g->days, link)
    cm_group_free_day(CM_LIST_ITEM(link, struct cm_store_day, link));
}

bool cm_group_has_pool(const struct cm_store_group *g)
{
    return g->counts.n > 0 || g->states.n > 0 || g->memories.n > 0 || g->stamp.ids_below > 0 ||
           g->probe;
}

bool cm_group_empty(const struct cm_store_group *g)
{
    return !cm_group_has_pool(g) && cm_list_empty(&g->days);
}

size_t cm_group_entries(const struct cm_store_group *g)
{
    size_t n = 0;

    CM_LIST_EACH(&g->days, link)
    n += CM_LIST_ITEM(link, struct cm_store_day, link)->n_entries;
    return n;
}

size_t cm_group_bytes(const struct cm_store_group *g)
{
    size_t n = 0;

    CM_LIST_EACH(&g->days, link)
    n += CM_LIST_ITEM(link, struct cm_store_day, link)->bytes;
    return n;
}

/* ---- counts and states */

static struct cm_str id_key(const uint64_t *id)
{
    return cm_str((const char *)id, sizeof(*id));
}

void cm_group_count(struct cm_store_group *g, const struct cm_cred_count *add)
{
    struct cm_cred_count *c = cm_map_get(&g->counts, id_key(&add->id));

    if (!c) {
        c = CM_NEW(struct cm_cred_count);
        c->id = add->id;
        cm_map_put(&g->counts, id_key(&c->id), c);
    }
    c->requests += add->requests;
    c->failures += add->failures;
    c->tokens_in += add->tokens_in;
    c->tokens_out += add->tokens_out;
    if (add->last_used_ms > c->last_used_ms)
        c->last_used_ms = add->last_used_ms;
    if (add->month_ms == 0 || add->month_ms < c->month_ms)
        return;
    if (c->month_ms != add->month_ms) /* what the month before had counts for nothing any more */
        c->month_requests = 0;
    c->month_ms = add->month_ms;
    c->month_requests += add->month_requests;
}

void cm_group_month_anew(struct cm_store_group *g, uint64_t id)
{
    struct cm_cred_count *c = cm_map_get(&g->counts, id_key(&id));

    if (c)
        c->month_requests = 0;
}

static char *copy_text(char *at, struct cm_str *s)
{
    if (s->n > 0)
        memcpy(at, s->p, s->n);
    s->p = at;
    return at + s->n;
}

/* The newer one of two stays. Takes `s`. */
static void put_state(struct cm_store_group *g, struct cm_store_state *s)
{
    struct cm_store_state *before = cm_map_get(&g->states, id_key(&s->id));

    if (before && before->rev > s->rev) {
        free(s);
        return;
    }
    cm_map_put(&g->states, id_key(&s->id),
               s); /* the entry's key lies in what is freed: replaced before */
    free(before);
}

void cm_group_state(struct cm_store_group *g, const struct cm_store_state *given)
{
    struct cm_store_state *s =
        cm_alloc(sizeof(*s) + given->state.n + given->reason.n + given->quota.n);
    char *at = s->text;

    *s = *given;
    at = copy_text(at, &s->state);
    at = copy_text(at, &s->reason);
    copy_text(at, &s->quota);
    put_state(g, s);
}

/* ---- memories */

static struct cm_str memory_key(const unsigned char key[32])
{
    return cm_str((const char *)key, 32);
}

/* Takes `m`. */
static void put_memory(struct cm_store_group *g, struct cm_store_memory *m)
{
    struct cm_store_memory *before = cm_map_get(&g->memories, memory_key(m->row.key));

    cm_map_put(&g->memories, memory_key(m->row.key), m); /* the entry's key lies in the value */
    free(before);
}

void cm_group_memory(struct cm_store_group *g, const struct cm_memory_row *row, bool gone)
{
    struct cm_store_memory *m;

    if (g->memories.n >= MEMORIES_MAX && !cm_map_get(&g->memories, memory_key(row->key)))
        return;
    m = cm_alloc(sizeof(*m) + row->value.n);
    *m = (struct cm_store_memory){.row = *row, .gone = gone};
    copy_text(m->value, &m->row.value);
    put_memory(g, m);
}

void cm_group_drop_memories(struct cm_store_group *g, uint64_t cred_id)
{
    struct cm_map kept = {0};
    const struct cm_map_slot *slot;

    for (size_t pos = 0; (slot = cm_map_next(&g->memories, &pos));) {
        struct cm_store_memory *m = slot->value;

        if (m->row.cred_id == cred_id && !m->gone)
            free(m);
        else
            cm_map_put(&kept, memory_key(m->row.key), m);
    }
    cm_map_clear(&g->memories);
    g->memories = kept;
}

/* What came since counts more. */
static void return_memory(struct cm_store_group *to, struct cm_store_memory *m)
{
    if (to->memories.n >= MEMORIES_MAX || cm_map_get(&to->memories, memory_key(m->row.key)))
        free(m);
    else
        put_memory(to, m);
}

/* ---- the log and the ledger */

static struct cm_store_day *day_of(struct cm_store_group *g, int64_t day)
{
    struct cm_store_day *d;

    CM_LIST_EACH(&g->days, link)
    {
        d = CM_LIST_ITEM(link, struct cm_store_day, link);
        if (d->day == day)
            return d;
    }
    d = CM_NEW(struct cm_store_day);
    d->day = day;
    cm_list_init(&d->link);
    cm_list_init(&d->entries);
    cm_list_push(&g->days, &d->link);
    return d;
}

#define TEXTS(X)                                                                                   \
    X(id)                                                                                          \
    X(key)                                                                                         \
    X(surface)                                                                                     \
    X(model) X(provider) X(credential) X(outcome) X(error) X(why) X(usage_source) X(detail)

static struct cm_store_entry *copy_row(const struct cm_request_row *given)
{
    struct cm_request_row row = *given;
    struct cm_store_entry *e;
    size_t n = 0;
    char *at;

    row.at_ms = row.at_ms < 0 ? 0 : row.at_ms > AT_MS_MAX ? AT_MS_MAX : row.at_ms;
    if (row.detail.n > DETAIL_MAX)
        row.detail = CM_STR_NONE;
#define X(name)                                                                                    \
    if (row.name.n > TEXT_MAX && &row.name != &row.detail)                                         \
        row.name = cm_utf8_head(row.name, TEXT_MAX);                                               \
    n += row.name.n;
    TEXTS(X)
#undef X
    e = cm_alloc(sizeof(*e) + n);
    cm_list_init(&e->link);
    e->bytes = sizeof(*e) + n;
    e->row = row;
    at = e->text;
#define X(name) at = copy_text(at, &e->row.name);
    TEXTS(X)
#undef X
    return e;
}

static void add_sum(struct cm_store_day *day, int64_t hour, enum cm_store_dim dim, uint64_t id,
                    struct cm_str name, const struct cm_usage_row *add)
{
    union {
        struct cm_store_sum_key key;
        char bytes[sizeof(struct cm_store_sum_key) + SUM_NAME_MAX];
    } k;
    struct cm_str key, key_name = cm_utf8_head(name, SUM_NAME_MAX);
    struct cm_store_sum *sum;

    k.key = (struct cm_store_sum_key){.hour = hour, .id = id, .dim = dim};
    if (key_name.n > 0)
        memcpy(k.bytes + sizeof(k.key), key_name.p, key_name.n);
    key = cm_str(k.bytes, sizeof(k.key) + key_name.n);
    sum = cm_map_get(&day->sums, key);
    if (!sum && dim == CM_DIM_MODEL && day->sums.n >= MODELS_MAX &&
        !cm_str_eq(name, CM_S("(other)"))) {
        add_sum(day, hour, dim, id, CM_S("(other)"), add);
        return;
    }
    if (!sum) {
        sum = cm_calloc(1, sizeof(*sum) + key_name.n);
        memcpy(&sum->key, key.p, key.n);
        sum->add.group = cm_str(sum->key.name, key_name.n);
        cm_map_put(&day->sums, cm_str((const char *)&sum->key, key.n), sum);
    }
#define X(field) sum->add.field += add->field;
    CM_STORE_SUMS(X)
#undef X
}

size_t cm_group_log(struct cm_store_group *g, const struct cm_request_row *given)
{
    struct cm_store_entry *e = copy_row(given);
    const struct cm_request_row *row = &e->row;
    int64_t hour = row->at_ms / CM_HOUR_MS;
    struct cm_store_day *day = day_of(g, row->at_ms / CM_DAY_MS);
    struct cm_usage_row add = {
        .requests = 1,
        .in_uncached = row->in_uncached,
        .in_cache_read = row->in_cache_read,
        .in_cache_write = row->in_cache_write,
        .out_text = row->out_text,
        .out_reasoning = row->out_reasoning,
        .images = row->images,
        .cost_micro_usd = row->cost_micro_usd,
    };
    size_t bytes = row->ledger_only ? 0 : e->bytes;

    if (!row->ledger_only) {
        cm_list_push(&day->entries, &e->link);
        day->n_entries++;
        day->bytes += bytes;
    }
    if (!row->log_only) {
        add_sum(day, hour, CM_DIM_KEY, row->key_id, row->key, &add);
        add_sum(day, hour, CM_DIM_MODEL, 0, row->model, &add);
        add_sum(day, hour, CM_DIM_PROVIDER, 0, row->provider, &add);
        add_sum(day, hour, CM_DIM_CREDENTIAL, row->cred_id, row->credential, &add);
    }
    if (row->ledger_only)
        free(e);
    return bytes;
}

size_t cm_group_drop_oldest(struct cm_store_group *g)
{
    CM_LIST_EACH(&g->days, link)
    {
        struct cm_store_day *day = CM_LIST_ITEM(link, struct cm_store_day, link);

        if (!cm_list_empty(&day->entries)) {
            struct cm_store_entry *e = CM_LIST_ITEM(day->entries.next, struct cm_store_entry, link);
            size_t bytes = e->bytes;

            free_entry(day, e);
            return bytes;
        }
    }
    return 0;
}

size_t cm_group_costs(const struct cm_store_group *g, struct cm_group_cost **costs)
{
    size_t n = 0, cap = 0;

    *costs = NULL;
    CM_LIST_EACH(&g->days, link)
    {
        struct cm_store_day *day = CM_LIST_ITEM(link, struct cm_store_day, link);
        const struct cm_map_slot *slot;

        for (size_t pos = 0; (slot = cm_map_next(&day->sums, &pos));) {
            const struct cm_store_sum *sum = slot->value;

            if (sum->key.dim != CM_DIM_KEY || sum->key.id == 0 || sum->add.cost_micro_usd == 0)
                continue;
            if (n == cap) {
                cap = cap > 0 ? cap * 2 : 16;
                *costs = cm_realloc(*costs, cap * sizeof(**costs));
            }
            (*costs)[n++] =
                (struct cm_group_cost){sum->key.hour, sum->key.id, sum->add.cost_micro_usd};
        }
    }
    return n;
}

void cm_spending_add(struct cm_spending *sp, uint64_t key_id, int64_t micro_usd)
{
    struct cm_spent *spent = cm_map_get(&sp->keys, id_key(&key_id));

    if (!spent) {
        spent = CM_ARENA_NEW(sp->arena, struct cm_spent);
        spent->key_id = key_id;
        cm_map_put(&sp->keys, id_key(&spent->key_id), spent);
    }
    spent->micro_usd += micro_usd;
}

size_t cm_spending_end(struct cm_spending *sp, struct cm_spent **rows)
{
    struct cm_spent *all = CM_ARENA_ARRAY(sp->arena, struct cm_spent, sp->keys.n + 1);
    const struct cm_map_slot *slot;
    size_t n = 0;

    for (size_t pos = 0; (slot = cm_map_next(&sp->keys, &pos));)
        all[n++] = *(const struct cm_spent *)slot->value;
    cm_map_clear(&sp->keys);
    *rows = all;
    return n;
}

/* ---- putting back */

/* The older entries go in front of those that came since. */
static void return_day(struct cm_store_group *to, struct cm_store_day *from)
{
    struct cm_store_day *day = day_of(to, from->day);
    const struct cm_map_slot *slot;

    while (!cm_list_empty(&day->entries))
        cm_list_push(&from->entries, cm_list_pop(&day->entries));
    while (!cm_list_empty(&from->entries))
        cm_list_push(&day->entries, cm_list_pop(&from->entries));
    day->n_entries += from->n_entries;
    day->bytes += from->bytes;
    from->n_entries = from->bytes = 0;
    for (size_t pos = 0; (slot = cm_map_next(&from->sums, &pos));) {
        const struct cm_store_sum *sum = slot->value;

        add_sum(day, sum->key.hour, (enum cm_store_dim)sum->key.dim, sum->key.id, sum->add.group,
                &sum->add);
    }
    cm_group_free_day(from);
}

void cm_group_return(struct cm_store_group *to, struct cm_store_group *from)
{
    const struct cm_map_slot *slot;

    for (size_t pos = 0; (slot = cm_map_next(&from->counts, &pos));)
        cm_group_count(to, slot->value);
    for (size_t pos = 0; (slot = cm_map_next(&from->states, &pos));)
        put_state(to, slot->value);
    cm_map_clear(&from->states); /* its values have moved */
    for (size_t pos = 0; (slot = cm_map_next(&from->memories, &pos));)
        return_memory(to, slot->value);
    cm_map_clear(&from->memories);
    CM_LIST_EACH(&from->days, link)
    return_day(to, CM_LIST_ITEM(link, struct cm_store_day, link));
    cm_group_clear_pool(from);
}
