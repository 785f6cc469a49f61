/* Intrusive list. */
#include "chatmux/base/list.h"
#include "unit.h"

struct item {
    int v;
    struct cm_list link;
};

static int value(const struct cm_list *l)
{
    return ((const struct item *)(const void *)((const char *)l - offsetof(struct item, link)))->v;
}

START_TEST(keeps_order_and_forgets_what_is_removed)
{
    struct item items[4] = {{.v = 0}, {.v = 1}, {.v = 2}, {.v = 3}};
    struct cm_list head;
    int seen = 0;

    cm_list_init(&head);
    ck_assert(cm_list_empty(&head));
    ck_assert_ptr_null(cm_list_pop(&head));
    for (int i = 0; i < 4; i++)
        cm_list_push(&head, &items[i].link);
    cm_list_remove(&items[1].link);
    cm_list_remove(&items[1].link); /* harmless */
    ck_assert(cm_list_empty(&items[1].link));
    CM_LIST_EACH(&head, it)
    {
        seen = seen * 10 + value(it) + 1;
        cm_list_remove(it);
    }
    ck_assert_int_eq(seen, 134);
    ck_assert(cm_list_empty(&head));
    cm_list_push(&head, &items[2].link);
    cm_list_push(&head, &items[0].link);
    ck_assert_int_eq(CM_LIST_ITEM(cm_list_pop(&head), struct item, link)->v, 2);
    ck_assert_int_eq(value(cm_list_pop(&head)), 0);
    ck_assert_ptr_null(cm_list_pop(&head));
}
END_TEST

Suite *suite_list(void)
{
    Suite *s = suite_create("list");
    TCase *t = tcase_create("list");

    tcase_add_test(t, keeps_order_and_forgets_what_is_removed);
    suite_add_tcase(s, t);
    return s;
}
