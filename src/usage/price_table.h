/* The built-in prices, and how long answers can be. */
#ifndef CHATMUX_USAGE_PRICE_TABLE_H
#define CHATMUX_USAGE_PRICE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct price_table_row {
    const char *model; /* lower case; "prefix*" */
    /* USD per million tokens; "" = as input */
    const char *input, *cache_read, *cache_write, *output;
};
/* Sound, of models that stand in the table above under the same name. */
struct price_table_audio_row {
    const char *model;
    const char *input, *cache_read, *output;
};
/* Of models that stand in the table above under the same name. */
struct price_table_output_row {
    const char *model;
    int64_t max_tokens;
};
extern const struct price_table_audio_row price_table_audio[];
extern const size_t price_table_audio_n;
extern const struct price_table_row price_table[];
extern const size_t price_table_n;
extern const struct price_table_output_row price_table_output[];
extern const size_t price_table_output_n;

#endif
