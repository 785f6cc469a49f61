/* The elements of one JSON array that arrives in pieces: "[{…}", ",{…}", "]". One thread at a time. */
#ifndef CHATMUX_CODEC_JSON_ITEMS_H
#define CHATMUX_CODEC_JSON_ITEMS_H

#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"

struct cm_json_items {
    struct cm_buf hold; /* bytes behind the last element; empty while elements arrive whole */
    size_t max_bytes;   /* of an element with what stands before it */
    size_t scanned;     /* of `hold`: looked at already */
    size_t item_at;     /* of `hold`: where the element begins */
    unsigned depth;     /* brackets open within the element */
    bool in_array, in_item, in_string, escaped;
    bool ended; /* the array's closing bracket has come */
};

/* `item` is one element that is an object or an array, its grammar unchecked; `raw` the bytes since the last element up to its end: brackets, commas
 * and white space included, no gap to the last raw. item.p NULL: raw ends with the array's closing bracket. Returns 0, or -1 to make the feed stop. */
typedef int cm_json_items_fn(void *arg, struct cm_str item, struct cm_str raw);

void cm_json_items_init(struct cm_json_items *s, size_t max_bytes);
void cm_json_items_clear(struct cm_json_items *s);

/* Calls fn for each element that ends in `piece`. An object that stands alone, without an array around it, is an element, too. What follows the
 * array is not looked at. -1 when fn returned -1 (*err is fn's to fill), or with CM_ERR_UPSTREAM_DOWN when an element exceeds the limit or something
 * else than objects and arrays stands in the array. */
int cm_json_items_feed(struct cm_json_items *s, struct cm_str piece, cm_json_items_fn *fn,
                       void *arg, struct cm_err *err);

#endif
