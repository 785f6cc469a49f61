/* Prices: what an exchange costs. Built-in values for well-known models, `[price MODEL]` of the
 * configuration on top. Any thread once it is built. */
#ifndef CHATMUX_USAGE_PRICE_H
#define CHATMUX_USAGE_PRICE_H

#include "chatmux/base/config.h"
#include "chatmux/chat/event.h"

/* Micro-USD per million tokens, at most CM_CONF_USD_MAX: whole numbers without loss for every price
 * in use. */
struct cm_price {
    int64_t input, output;
    int64_t cache_read, cache_write;                     /* -1 = as input */
    int64_t reasoning;                                   /* -1 = as output */
    int64_t audio_input, audio_cache_read, audio_output; /* -1 = as input, cache_read, output */
    int64_t image;                                       /* micro-USD each */
};

struct cm_prices;
struct cm_price_row {
    struct cm_str model; /* name, or "prefix*" */
    struct cm_price price;
};
/* Copied. Of two rows with one name the later counts. */
struct cm_prices *cm_prices_new(const struct cm_price_row *rows, size_t n);
struct cm_prices *cm_prices_of(const struct cm_config *config); /* its [price MODEL] sections */
void cm_prices_free(struct cm_prices *p);                       /* NULL is fine */

/* NULL: not known, costs nothing and is counted as unpriced. Letter case does not matter.
 * The operator's rows are asked first, and only if none fits the built-in ones. Of each an exact
 * name wins over a prefix, a longer prefix over a shorter. The name is tried whole, then without
 * what stands before each "/" in turn, then each of these without a date or "latest" at its end
 * (-2024-08-06, -20240806, @20240806, -latest). Names of more than 200 bytes are not known.
 * The price lives as long as p. */
const struct cm_price *cm_price_find(const struct cm_prices *p, struct cm_str model);
/* Tokens that an answer of a well-known model has at most; 0 = not known. Names as above, but for prefixes. */
int64_t cm_price_max_output(struct cm_str model);
/* Rounded up to the next micro-dollar. A NULL price = 0. Figures below 0 count as 0; what no
 * int64_t can hold becomes INT64_MAX. */
int64_t cm_price_cost(const struct cm_price *price, const struct cm_usage *usage, int64_t images);
/* Upper estimate for a reservation: no usage with these sums costs more. */
int64_t cm_price_estimate(const struct cm_price *price, int64_t input_tokens,
                          int64_t output_tokens);

#endif
