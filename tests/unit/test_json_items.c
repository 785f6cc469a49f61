/* codec/json_items: the elements of an array, whole, byte by byte and at every other cut. */
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json_items.h"

#include <stdlib.h>

#define TEXT                                                                                       \
    " [{\"a\": \"}]\\\"{\\\\\", \"b\": [1, {}]}\n,\r\n{ \"c\":\"\xc3\xa9\" } ,[],{}\n] trailing"

struct seen {
    struct cm_buf items, raws;
    unsigned n;
    bool end;
};

static int on_item(void *arg, struct cm_str item, struct cm_str raw)
{
    struct seen *s = arg;

    cm_buf_append(&s->raws, raw);
    if (!item.p) {
        s->end = true;
        return 0;
    }
    ck_assert(!s->end);
    s->n++;
    cm_buf_append(&s->items, item);
    cm_buf_put(&s->items, '|');
    return 0;
}

/* In memory of its own for each piece, so that a read beyond it is found. */
static int feed(struct seen *seen, struct cm_str text, size_t piece, size_t max, struct cm_err *err)
{
    struct cm_json_items s;
    int failed = 0;

    *seen = (struct seen){0};
    cm_json_items_init(&s, max);
    while (text.n > 0 && !failed) {
        struct cm_str now = cm_str_head(text, piece);
        char *copy = cm_str_dup(now);

        failed = cm_json_items_feed(&s, cm_str(copy, now.n), on_item, seen, err);
        free(copy);
        text = cm_str_from(text, now.n);
    }
    ck_assert_int_eq(s.ended, seen->end);
    cm_json_items_clear(&s);
    return failed;
}

static void seen_clear(struct seen *s)
{
    cm_buf_clear(&s->items);
    cm_buf_clear(&s->raws);
}

START_TEST(every_split_gives_the_same_elements)
{
    const struct cm_str text = CM_S(TEXT);
    struct cm_err err;

    for (size_t piece = 1; piece <= text.n; piece++) {
        struct seen s;

        ck_assert_int_eq(feed(&s, text, piece, 1000, &err), 0);
        ck_assert_uint_eq(s.n, 4);
        ck_assert(s.end);
        ck_assert_str_eq(cm_buf_z(&s.items),
                         "{\"a\": \"}]\\\"{\\\\\", \"b\": [1, {}]}|{ \"c\":\"\xc3\xa9\" }|[]|{}|");
        /* nothing of the array is lost; what follows it is nobody's business */
        ck_assert(cm_str_eq(cm_buf_str(&s.raws), cm_str_head(text, text.n - 9)));
        seen_clear(&s);
    }
}
END_TEST

START_TEST(an_object_may_stand_alone)
{
    struct cm_err err;
    struct seen s;

    ck_assert_int_eq(feed(&s, CM_S("\n{\"error\":{}}\n"), 3, 1000, &err), 0);
    ck_assert_str_eq(cm_buf_z(&s.items), "{\"error\":{}}|");
    ck_assert(!s.end);
    seen_clear(&s);
}
END_TEST

START_TEST(what_is_no_array_of_objects_is_an_error)
{
    static const char *const bad[] = {"<html>", "[1]", "[{} x]", "data: {}", "\"[\"", ",[]"};
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct seen s;

        ck_assert_msg(feed(&s, cm_str_of(bad[i]), 1, 1000, &err) == -1, "%s", bad[i]);
        ck_assert_int_eq(err.cls, CM_ERR_UPSTREAM_DOWN);
        seen_clear(&s);
    }
}
END_TEST

START_TEST(an_element_has_a_limit)
{
    const struct cm_str text = CM_S("[{\"a\":\"0123456789\"}]");
    struct cm_err err;

    for (size_t piece = 1; piece <= text.n; piece++) {
        struct seen s;

        ck_assert_int_eq(feed(&s, text, piece, 18, &err), -1);
        ck_assert_int_eq(err.cls, CM_ERR_UPSTREAM_DOWN);
        seen_clear(&s);
        ck_assert_int_eq(feed(&s, text, piece, 19, &err), 0);
        seen_clear(&s);
    }
}
END_TEST

Suite *suite_json_items(void)
{
    Suite *s = suite_create("json_items");
    TCase *t = tcase_create("json_items");

    tcase_add_test(t, every_split_gives_the_same_elements);
    tcase_add_test(t, an_object_may_stand_alone);
    tcase_add_test(t, what_is_no_array_of_objects_is_an_error);
    tcase_add_test(t, an_element_has_a_limit);
    suite_add_tcase(s, t);
    return s;
}
