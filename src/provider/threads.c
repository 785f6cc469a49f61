/* Conversations that go on in the platform's own.
 *
 * A conversation is known by the digest of its messages. When a client comes back with the same messages, our answer behind them and something new,
 * the platform's own conversation goes on instead of hearing everything again; only the account that answered it can do that, so the gateway asks for
 * the account first (cm_thread_holder()). Each turn takes the place of the one before on the disk; in the memo both stay, for answers that are
 * asked for again.
 * In the memo a provider's conversations have one owner, so that they are found before an account is chosen. A value is: digest of the account (a
 * changed secret is another account), its number, what the adapter kept. */
#include "run_int.h"

#define SAID_MAX (4u * 1024 * 1024) /* longer answers are not followed */
#define HEAD (CM_SHA256_SIZE + sizeof(uint64_t))
#define MARK_MS (365 * 24 * 60 * 60 * INT64_C(1000))
#define MARK CM_S("some")    /* there are any at all: most providers have none, and are not asked */
#define MARK_OLD CM_S("old") /* of another gateway */

static struct cm_str conversations_of(struct cm_arena *arena, struct cm_str provider)
{
    return cm_arena_printf(arena, "conversations\n" CM_PRI, CM_ARG(provider));
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

void run_put_dense(struct cm_buf *out, struct cm_str text)
{
    while (text.n > 0) {
        size_t n = 0;

        while (n < text.n && !is_space(text.p[n]))
            n++;
        cm_buf_append(out, cm_str_head(text, n));
        while (n < text.n && is_space(text.p[n]))
            n++;
        text = cm_str_from(text, n);
    }
}

static void put_message(struct cm_buf *out, const struct cm_msg *msg)
{
    cm_buf_printf(out, "\036%d\037", (int)msg->role);
    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *p = &msg->parts[i];

        switch (p->kind) {
        case CM_PART_TEXT:
        case CM_PART_REFUSAL:
            run_put_dense(out, p->text);
            break;
        case CM_PART_REASONING: /* some clients send it back, some do not */
            break;
        case CM_PART_IMAGE:
        case CM_PART_AUDIO:
        case CM_PART_FILE:
        case CM_PART_TOOL_CALL:
        case CM_PART_TOOL_RESULT:
            cm_buf_printf(out, "\037%d:", (int)p->kind);
            cm_buf_append(out, p->id);
            cm_buf_append(out, p->name);
            cm_buf_append(out, p->url);
            cm_buf_append(out, p->data);
            run_put_dense(out, p->text);
            break;
        }
    }
}

/* The client's number: its name may change, and a place in a list may become another's. */
static struct cm_str number_of(struct cm_str scope)
{
    return cm_str_cut(&scope, ' ');
}

/* Who leads it, with which model, and what was said: the first `n` messages, and `said` behind them. */
struct conversation {
    struct cm_str provider, scope, model;
    const struct cm_chat *chat;
    size_t n;
    struct cm_str said;
};

static void key_of(const struct conversation *c, unsigned char key[CM_SHA256_SIZE])
{
    const struct cm_str client = number_of(c->scope);
    struct cm_buf text = {0};

    cm_buf_printf(&text, "thread\n" CM_PRI "\n" CM_PRI "\n" CM_PRI, CM_ARG(c->provider),
                  CM_ARG(client), CM_ARG(c->model));
    for (size_t i = 0; i < c->n; i++)
        put_message(&text, &c->chat->msgs[i]);
    if (c->said.n > 0) {
        cm_buf_printf(&text, "\036%d\037", (int)CM_ROLE_ASSISTANT);
        cm_buf_append(&text, c->said);
    }
    cm_sha256(cm_buf_str(&text), key);
    cm_buf_clear(&text);
}

void cm_memory_old_key(struct cm_str provider, struct cm_str model, struct cm_str name,
                       unsigned char key[CM_SHA256_SIZE])
{
    struct cm_buf text = {0};

    cm_buf_printf(&text, "old thread\n" CM_PRI "\n" CM_PRI "\n" CM_PRI, CM_ARG(provider),
                  CM_ARG(model), CM_ARG(name));
    cm_sha256(cm_buf_str(&text), key);
    cm_buf_clear(&text);
}

/* What the platform has heard: all up to the last answer. 0 = nothing, or there is nothing new. */
static size_t heard(const struct cm_chat *chat)
{
    size_t n = chat->n_msgs;

    while (n > 0 && chat->msgs[n - 1].role != CM_ROLE_ASSISTANT)
        n--;
    return n < chat->n_msgs ? n : 0;
}

struct finding {
    unsigned char key[CM_SHA256_SIZE];
    bool old;
    size_t from;         /* first message that the platform has not seen */
    struct cm_str value; /* the memo's: HEAD and what was kept */
};

static bool find(struct cm_memo *memo, const struct cm_instance *in, struct conversation *c,
                 struct cm_arena *arena, struct finding *out)
{
    const struct cm_str owner = conversations_of(arena, in->name);
    const struct cm_str key = cm_str((const char *)out->key, sizeof(out->key));
    struct cm_str name, unused;

    out->from = c->n = heard(c->chat);
    if (c->n == 0 || !cm_memo_get(memo, owner, MARK, &unused))
        return false;
    out->old = false;
    key_of(c, out->key);
    if (cm_memo_get(memo, owner, key, &out->value))
        return out->value.n >= HEAD;
    if (!in->adapter->old_thread || !cm_memo_get(memo, owner, MARK_OLD, &unused) ||
        !in->adapter->old_thread(arena, c->chat, &name, &out->from))
        return false;
    out->old = true;
    cm_memory_old_key(c->provider, c->model, name, out->key);
    return cm_memo_get(memo, owner, key, &out->value) && out->value.n >= HEAD;
}

uint64_t cm_thread_holder(struct cm_memo *memo, const struct cm_instance *in,
                          const struct cm_target *target, const struct cm_chat *chat,
                          struct cm_str scope)
{
    struct conversation c = {in->name, scope, target->model, chat, 0, CM_STR_NONE};
    struct cm_arena arena = {0};
    struct finding found;
    uint64_t id = 0;

    if (run_emulates_tools(in, chat)) /* as the run will see it */
        c.chat = tools_as_text(&arena, chat);
    if (memo && chat->task == CM_TASK_CHAT && find(memo, in, &c, &arena, &found))
        memcpy(&id, found.value.p + CM_SHA256_SIZE, sizeof(id));
    cm_arena_clear(&arena);
    return id;
}

bool cm_run_thread(struct cm_run *run, struct cm_thread *out)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_arena *arena = cm_run_arena(run);
    struct conversation c = {cm_run_instance(run)->name,
                             cm_run_scope(run),
                             cm_run_target(run)->model,
                             chat,
                             0,
                             CM_STR_NONE};
    struct run_memory *m = run_memory(run);
    struct finding found;

    if (!run_memo(run))
        return false;
    m->follows = true;
    cm_buf_init(&m->said, SAID_MAX);
    if (!find(run_memo(run), cm_run_instance(run), &c, arena, &found) ||
        !cm_str_eq(cm_str_head(found.value, CM_SHA256_SIZE), run_owner(run)))
        return false;
    m->found = (const unsigned char *)cm_arena_str(
                   arena, cm_str((const char *)found.key, sizeof(found.key)))
                   .p;
    m->found_old = found.old;
    *out = (struct cm_thread){.value = cm_arena_str(arena, cm_str_from(found.value, HEAD)),
                              .from = found.from};
    return true;
}

void run_memory_heard(struct run_memory *m, const struct cm_event *ev)
{
    struct cm_buf image = {0};

    if (ev->choice != 0)
        return;
    if (ev->kind == CM_EVENT_TEXT) {
        run_put_dense(&m->said, ev->text);
    } else if (ev->kind == CM_EVENT_IMAGE) { /* comes back as the surface wrote it */
        cm_event_put_markdown(ev, &image);
        run_put_dense(&m->said, cm_buf_str(&image));
        cm_buf_clear(&image);
    }
}

/* ---- keeping ---- */

static void put(struct cm_memo *memo, struct cm_str provider, struct cm_str account,
                const struct cm_memory *kept, int64_t ttl_ms)
{
    struct cm_arena arena = {0};
    const struct cm_str owner = conversations_of(&arena, provider);
    struct cm_buf value = {0};

    cm_buf_append(&value, account);
    cm_buf_append(&value, cm_str((const char *)&kept->cred, sizeof(kept->cred)));
    cm_buf_append(&value, kept->value);
    cm_memo_put(memo, owner, MARK, CM_S("1"), MARK_MS);
    if (kept->kind == CM_MEMORY_OLD_THREAD)
        cm_memo_put(memo, owner, MARK_OLD, CM_S("1"), MARK_MS);
    cm_memo_put(memo, owner, cm_str((const char *)kept->key, sizeof(kept->key)), cm_buf_str(&value),
                ttl_ms);
    cm_buf_clear(&value);
    cm_arena_clear(&arena);
}

void cm_memory_restore(struct cm_memo *memo, struct cm_str provider, struct cm_str secret,
                       const struct cm_memory *m, int64_t now_unix_ms)
{
    unsigned char digest[CM_SHA256_SIZE];
    const struct cm_str account = cm_str((const char *)digest, sizeof(digest));

    if (!memo || m->until_ms <= now_unix_ms)
        return;
    cm_cred_digest(provider, secret, digest);
    if (m->kind == CM_MEMORY_OWN)
        cm_memo_keep(memo, account, cm_str((const char *)m->key, sizeof(m->key)), m->value,
                     m->until_ms - now_unix_ms);
    else
        put(memo, provider, account, m, m->until_ms - now_unix_ms);
}

/* The turn before is not needed on the disk any more, and what another gateway led is led here from now on. */
static void replace(struct cm_run *run, const struct cm_memory *kept)
{
    const struct run_memory *m = run_memory(run);
    const struct cm_keeper *keeper = run_keeper(run);
    const struct cm_str key = cm_str((const char *)m->found, CM_SHA256_SIZE);

    if (memcmp(m->found, kept->key, sizeof(kept->key)) == 0)
        return;
    if (m->found_old)
        cm_memo_del(run_memo(run), conversations_of(cm_run_arena(run), cm_run_instance(run)->name),
                    key);
    if (kept->cred && keeper->drop)
        keeper->drop(keeper->arg, m->found);
}

void cm_run_thread_keep(struct cm_run *run, struct cm_str value, int64_t ttl_ms)
{
    const struct cm_keeper *keeper = run_keeper(run);
    struct run_memory *m = run_memory(run);
    struct cm_memory kept = {.kind = CM_MEMORY_THREAD,
                             .cred = cm_run_cred(run)->id,
                             .value = value,
                             .until_ms = cm_run_unix_ms(run) + ttl_ms};
    struct conversation c;

    if (!m->follows || run_is_closed(run) || m->said.failed || m->said.n == 0 || ttl_ms <= 0)
        return;
    c = (struct conversation){cm_run_instance(run)->name, cm_run_scope(run),
                              cm_run_target(run)->model,  cm_run_chat(run),
                              cm_run_chat(run)->n_msgs,   cm_buf_str(&m->said)};
    key_of(&c, kept.key);
    put(run_memo(run), c.provider, run_owner(run), &kept, ttl_ms);
    if (kept.cred && keeper->put)
        keeper->put(keeper->arg, &kept);
    if (m->found)
        replace(run, &kept);
}
