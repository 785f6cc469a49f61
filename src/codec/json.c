/* JSON values: parsing by yyjson behind our limits, and reading members. */
#include "chatmux/codec/json.h"

#include "chatmux/base/mem.h"
#include "json_int.h"

#include <stdlib.h>

static void *alc_malloc(void *ctx, size_t n)
{
    (void)ctx;
    return cm_alloc(n);
}

static void *alc_realloc(void *ctx, void *p, size_t old_n, size_t n)
{
    (void)ctx;
    (void)old_n;
    return cm_realloc(p, n);
}

static void alc_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

const yyjson_alc cm_json_alc = {alc_malloc, alc_realloc, alc_free, NULL};

yyjson_doc *cm_json_parse(struct cm_str text, const struct cm_json_limits *limits,
                          struct cm_err *err)
{
    struct json_trouble trouble;
    yyjson_read_err why;
    yyjson_doc *doc;

    if (cm_json_measure(text, limits, &trouble, err))
        return NULL;
    if (cm_str_trim(text).n == 0) {
        cm_json_fail_at(text, (struct json_trouble){text.n, "the text is empty"}, err);
        return NULL;
    }
    /* Brackets that do not match are parsed nevertheless: what is wrong may stand before them,
     * and yyjson gets no further than the scan did. Without YYJSON_READ_INSITU the text is
     * copied, never written. */
    doc =
        yyjson_read_opts((char *)(uintptr_t)text.p, text.n, YYJSON_READ_NOFLAG, &cm_json_alc, &why);
    if (doc)
        return doc;
    if (!trouble.why || why.pos < trouble.at)
        trouble = (struct json_trouble){why.pos, why.msg};
    cm_json_fail_at(text, trouble, err);
    return NULL;
}

struct cm_str cm_json_str(const yyjson_val *v)
{
    yyjson_val *val = (yyjson_val *)(uintptr_t)v; /* yyjson's readers take no const */

    return yyjson_is_str(val) ? cm_str(yyjson_get_str(val), yyjson_get_len(val)) : CM_STR_NONE;
}

yyjson_val *cm_json_get(const yyjson_val *obj, const char *key)
{
    return yyjson_obj_get((yyjson_val *)(uintptr_t)obj, key);
}

yyjson_val *cm_json_opt(const yyjson_val *obj, const char *key)
{
    yyjson_val *v = cm_json_get(obj, key);

    return yyjson_is_null(v) ? NULL : v;
}
