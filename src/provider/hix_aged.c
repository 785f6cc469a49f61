/* hix: chats that go when nobody has used them for long (x.delete_after), as hixai2api's CHAT_MAX_DAYS has it.
 *
 * After each answer its chat is written into the list of the present stretch of time, a line each, once. The probe takes what stands in stretches that are
 * over and in no later one, and deletes it. The lists are durable; one that is full is followed by another. */
#include "hix_int.h"

#define STRETCH_MAX_MS (24 * 60 * 60 * INT64_C(1000))
#define STRETCH_MIN_MS 100
#define LOOK_BACK 64 /* stretches: how long nobody may look */
#define LISTS 8      /* of one stretch */
#define LIST_MAX 3800

static int64_t age_ms(const struct cm_run *run)
{
    return cm_option_int(cm_run_instance(run), "delete_after");
}

static int64_t stretch_ms(const struct cm_run *run)
{
    const int64_t ms = age_ms(run) / 4;

    return ms < STRETCH_MIN_MS ? STRETCH_MIN_MS : ms > STRETCH_MAX_MS ? STRETCH_MAX_MS : ms;
}

static int64_t stretch_of_now(const struct cm_run *run)
{
    return cm_run_unix_ms(run) / stretch_ms(run);
}

static struct cm_str key_of(struct cm_run *run, int64_t stretch, int list)
{
    return cm_arena_printf(cm_run_arena(run), "chats of %lld by %lld, %d", (long long)stretch,
                           (long long)stretch_ms(run), list);
}

static bool has_line(struct cm_str list, struct cm_str line)
{
    while (list.n > 0)
        if (cm_str_eq(cm_str_cut(&list, '\n'), line))
            return true;
    return false;
}

static bool stands_in(struct cm_run *run, int64_t stretch, struct cm_str chat)
{
    struct cm_str list;

    for (int i = 0; i < LISTS && cm_run_recall(run, key_of(run, stretch, i), &list); i++)
        if (has_line(list, chat))
            return true;
    return false;
}

static void put(struct cm_run *run, int64_t stretch, struct cm_str chat)
{
    struct cm_str list = CM_STR_NONE;
    int i = 0;

    while (i < LISTS && cm_run_recall(run, key_of(run, stretch, i), &list) &&
           list.n + 1 + chat.n > LIST_MAX)
        i++;
    if (i == LISTS) {
        cm_run_odd(run, "so many chats in so short a time that this one is not deleted later",
                   chat);
        return;
    }
    if (cm_run_recall(run, key_of(run, stretch, i), &list))
        chat = cm_arena_printf(cm_run_arena(run), CM_PRI "\n" CM_PRI, CM_ARG(list), CM_ARG(chat));
    cm_run_remember_durably(run, key_of(run, stretch, i), chat,
                            age_ms(run) + LOOK_BACK * stretch_ms(run));
}

void hix_note_use(struct cm_run *run, struct cm_str chat)
{
    const int64_t now = stretch_of_now(run);

    if (age_ms(run) > 0 && chat.n > 0 && cm_str_find_char(chat, '\n') == SIZE_MAX &&
        !stands_in(run, now, chat))
        put(run, now, chat);
}

/* The first line of a list goes out of it; false: there is no such list. */
static bool take(struct cm_run *run, int64_t stretch, int i, struct cm_str *chat)
{
    const struct cm_str key = key_of(run, stretch, i);
    struct cm_str list;

    if (!cm_run_recall(run, key, &list))
        return false;
    list = cm_arena_str(cm_run_arena(run), list);
    *chat = cm_str_cut(&list, '\n');
    if (list.n > 0)
        cm_run_remember_durably(run, key, list, age_ms(run) + LOOK_BACK * stretch_ms(run));
    else
        cm_run_forget(run, key);
    return true;
}

static bool used_later(struct cm_run *run, int64_t stretch, struct cm_str chat)
{
    for (int64_t s = stretch + 1; s <= stretch_of_now(run); s++)
        if (stands_in(run, s, chat))
            return true;
    return false;
}

bool hix_take_aged(struct cm_run *run, struct cm_str *chat, int64_t *stretch)
{
    const int64_t over =
        age_ms(run) > 0 ? (cm_run_unix_ms(run) - age_ms(run)) / stretch_ms(run) - 1 : -1;

    /* what is before *stretch was taken by this run already */
    for (int64_t s = *stretch > over - LOOK_BACK ? *stretch : over - LOOK_BACK; s <= over; s++)
        for (int i = LISTS; s >= 0 && i-- > 0;)
            while (take(run, s, i, chat)) {
                *stretch = s;
                if (!used_later(run, s, *chat))
                    return true;
            }
    return false;
}

void hix_put_back(struct cm_run *run, struct cm_str chat, int64_t stretch)
{
    put(run, stretch, chat);
}
