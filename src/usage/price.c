/* Finding the price of a model, and adding up what an exchange costs. */
#include "chatmux/usage/price.h"

#include <stdlib.h>

#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"

#include "price_table.h"

#define NAME_BYTES 200u
#define FORMS_MAX 12u

struct prefix {
    struct cm_str name; /* without its * */
    const struct cm_price *price;
};

/* Rows of one source. */
struct list {
    struct cm_map exact; /* name in lower case -> struct cm_price */
    struct prefix *prefixes;
    size_t n_prefixes;
};

struct cm_prices {
    struct list own, builtin;
    struct cm_arena arena; /* names and prices */
};

static void put_lower(char *out, struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++)
        out[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] - 'A' + 'a') : s.p[i];
}

static void add_row(struct cm_prices *p, struct list *list, struct cm_str model,
                    const struct cm_price *price)
{
    char *name = cm_arena_alloc(&p->arena, model.n + 1);
    struct cm_price *copy = CM_ARENA_NEW(&p->arena, struct cm_price);
    struct cm_str lower = cm_str(name, model.n);

    put_lower(name, model);
    *copy = *price;
    if (!cm_str_ends(lower, CM_S("*"))) {
        cm_map_put(&list->exact, lower, copy);
        return;
    }
    list->prefixes[list->n_prefixes++] = (struct prefix){cm_str_head(lower, lower.n - 1), copy};
}

/* Dollars of the built-in table. */
static int64_t micro_usd(const char *dollars)
{
    int64_t micro = -1;
    int failed = *dollars ? cm_conf_usd(cm_str_of(dollars), &micro, NULL) : 0;

    CM_ASSERT(!failed);
    return micro;
}

static void add_audio(struct cm_price *price, const char *model)
{
    price->audio_input = price->audio_cache_read = price->audio_output = -1;
    for (size_t i = 0; i < price_table_audio_n; i++) {
        const struct price_table_audio_row *row = &price_table_audio[i];

        if (strcmp(row->model, model) != 0)
            continue;
        price->audio_input = micro_usd(row->input);
        price->audio_cache_read = micro_usd(row->cache_read);
        price->audio_output = micro_usd(row->output);
    }
}

struct cm_prices *cm_prices_new(const struct cm_price_row *rows, size_t n)
{
    struct cm_prices *p = CM_NEW(struct cm_prices);

    p->own.prefixes = CM_ARENA_ARRAY(&p->arena, struct prefix, n);
    for (size_t i = 0; i < n; i++)
        add_row(p, &p->own, rows[i].model, &rows[i].price);
    p->builtin.prefixes = CM_ARENA_ARRAY(&p->arena, struct prefix, price_table_n);
    for (size_t i = 0; i < price_table_n; i++) {
        const struct price_table_row *row = &price_table[i];
        struct cm_price price = {.input = micro_usd(row->input),
                                 .output = micro_usd(row->output),
                                 .cache_read = micro_usd(row->cache_read),
                                 .cache_write = micro_usd(row->cache_write),
                                 .reasoning = -1};

        add_audio(&price, row->model);
        add_row(p, &p->builtin, cm_str_of(row->model), &price);
    }
    return p;
}

struct cm_prices *cm_prices_of(const struct cm_config *config)
{
    struct cm_price_row *rows = cm_calloc(config->n_prices + 1, sizeof(*rows));
    struct cm_prices *p;

    for (size_t i = 0; i < config->n_prices; i++) {
        const struct cm_price_conf *c = &config->prices[i];

        rows[i] = (struct cm_price_row){.model = c->name,
                                        .price = {.input = c->input,
                                                  .output = c->output,
                                                  .cache_read = c->cache_read,
                                                  .cache_write = c->cache_write,
                                                  .reasoning = c->reasoning,
                                                  .audio_input = c->audio_input,
                                                  .audio_cache_read = c->audio_cache_read,
                                                  .audio_output = c->audio_output,
                                                  .image = c->image}};
    }
    p = cm_prices_new(rows, config->n_prices);
    free(rows);
    return p;
}

void cm_prices_free(struct cm_prices *p)
{
    if (!p)
        return;
    cm_map_clear(&p->own.exact);
    cm_map_clear(&p->builtin.exact);
    cm_arena_clear(&p->arena);
    free(p);
}

/* --- finding -------------------------------------------------------------------------------- */

/* Whether s ends with what `shape` describes: 9 stands for any digit. */
static bool ends_like(struct cm_str s, struct cm_str shape)
{
    const char *at = s.p + s.n - shape.n;

    if (s.n < shape.n)
        return false;
    for (size_t i = 0; i < shape.n; i++) {
        if (shape.p[i] == '9' ? at[i] < '0' || at[i] > '9' : at[i] != shape.p[i])
            return false;
    }
    return true;
}

static struct cm_str without_date(struct cm_str name)
{
    static const struct cm_str shapes[] = {CM_S_INIT("-9999-99-99"), CM_S_INIT("-99999999"),
                                           CM_S_INIT("@99999999"), CM_S_INIT("-latest")};

    for (size_t i = 0; i < CM_COUNT(shapes); i++) {
        if (ends_like(name, shapes[i]))
            return cm_str_head(name, name.n - shapes[i].n);
    }
    return name;
}

/* The forms of a name, the most exact one first; returns how many. */
static size_t list_forms(struct cm_str name, struct cm_str forms[FORMS_MAX])
{
    size_t n = 0, whole, slash;

    do {
        forms[n++] = name;
        slash = cm_str_find_char(name, '/');
        name = cm_str_from(name, slash + 1);
    } while (slash != SIZE_MAX && n < FORMS_MAX / 2);
    whole = n;
    for (size_t i = 0; i < whole; i++) {
        struct cm_str less = without_date(forms[i]);

        if (less.n < forms[i].n)
            forms[n++] = less;
    }
    return n;
}

static const struct cm_price *find_in(const struct list *list, const struct cm_str *forms, size_t n)
{
    const struct prefix *best = NULL;

    for (size_t f = 0; f < n; f++) {
        const struct cm_price *exact = cm_map_get(&list->exact, forms[f]);

        if (exact)
            return exact;
    }
    for (size_t i = 0; i < list->n_prefixes; i++) {
        const struct prefix *prefix = &list->prefixes[i];

        for (size_t f = 0; f < n && (!best || prefix->name.n >= best->name.n); f++) {
            if (cm_str_starts(forms[f], prefix->name))
                best = prefix;
        }
    }
    return best ? best->price : NULL;
}

const struct cm_price *cm_price_find(const struct cm_prices *p, struct cm_str model)
{
    struct cm_str forms[FORMS_MAX];
    const struct cm_price *found;
    char lower[NAME_BYTES];
    size_t n;

    if (model.n > NAME_BYTES)
        return NULL;
    put_lower(lower, model);
    n = list_forms(cm_str(lower, model.n), forms);
    found = find_in(&p->own, forms, n);
    return found ? found : find_in(&p->builtin, forms, n);
}

int64_t cm_price_max_output(struct cm_str model)
{
    struct cm_str forms[FORMS_MAX];
    char lower[NAME_BYTES];
    size_t n;

    if (model.n > NAME_BYTES)
        return 0;
    put_lower(lower, model);
    n = list_forms(cm_str(lower, model.n), forms);
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < price_table_output_n; i++)
            if (cm_str_eq(forms[f], cm_str_of(price_table_output[i].model)))
                return price_table_output[i].max_tokens;
    return 0;
}

/* --- adding up ------------------------------------------------------------------------------ */

#define MILLION 1000000

/* Any count times the highest price, even of images, stays below a tenth of what it holds. */
__extension__ typedef __int128 wide;

static wide times(int64_t count, int64_t price)
{
    if (count <= 0 || price <= 0)
        return 0;
    return (wide)count * (price < CM_CONF_USD_MAX ? price : CM_CONF_USD_MAX);
}

static int64_t or_as(int64_t price, int64_t otherwise)
{
    return price >= 0 ? price : otherwise;
}

/* Millionths of a micro-dollar, rounded up to micro-dollars. */
static int64_t rounded_up(wide sum)
{
    wide micro_usd = sum / MILLION + (sum % MILLION > 0);

    return micro_usd < INT64_MAX ? (int64_t)micro_usd : INT64_MAX;
}

/* Tokens of one bucket, of which `sound` (as far as it can be) has a price of its own. */
static wide mixed(int64_t count, int64_t price, int64_t sound, int64_t sound_price)
{
    sound = sound < 0 ? 0 : sound < count ? sound : count;
    return times(count - sound, price) + times(sound, or_as(sound_price, price));
}

int64_t cm_price_cost(const struct cm_price *price, const struct cm_usage *usage, int64_t images)
{
    if (!price)
        return 0;
    return rounded_up(mixed(usage->in_uncached, price->input,
                            usage->in_audio - usage->in_audio_cached, price->audio_input) +
                      mixed(usage->in_cache_read, or_as(price->cache_read, price->input),
                            usage->in_audio_cached, price->audio_cache_read) +
                      times(usage->in_cache_write, or_as(price->cache_write, price->input)) +
                      mixed(usage->out_text, price->output, usage->out_audio, price->audio_output) +
                      times(usage->out_reasoning, or_as(price->reasoning, price->output)) +
                      times(images, price->image) * MILLION);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t cm_price_estimate(const struct cm_price *price, int64_t input_tokens, int64_t output_tokens)
{
    if (!price)
        return 0;
    return rounded_up(
        times(input_tokens, larger(larger(price->input, price->audio_input),
                                   larger(larger(price->cache_read, price->audio_cache_read),
                                          price->cache_write))) +
        times(output_tokens, larger(larger(price->output, price->audio_output), price->reasoning)));
}
