/* What flows remember between runs: the memo's entries of this credential, and conversations by what was said in them.
 *
 * A conversation is known by the digest of its messages. When a client comes back with the same messages, our answer behind them and something new,
 * the platform's own conversation goes on instead of hearing everything again. */
#include "chatmux/base/crypto.h"
#include "run_int.h"

#define SAID_MAX (4u * 1024 * 1024) /* longer answers are not followed */

static struct cm_str digest(struct cm_arena *arena, struct cm_str text)
{
    unsigned char d[CM_SHA256_SIZE];

    cm_sha256(text, d);
    return cm_arena_str(arena, cm_str((const char *)d, sizeof(d)));
}

static struct cm_str owner_of(struct cm_run *run)
{
    struct run_memory *m = run_memory(run);
    struct cm_str provider = cm_run_instance(run)->name;

    if (m->owner.n == 0)
        m->owner = digest(cm_run_arena(run),
                          cm_arena_printf(cm_run_arena(run), CM_PRI "\n" CM_PRI, CM_ARG(provider),
                                          CM_ARG(cm_run_cred(run)->secret)));
    return m->owner;
}

bool cm_run_recall(struct cm_run *run, struct cm_str key, struct cm_str *value)
{
    return run_memo(run) && cm_memo_get(run_memo(run), owner_of(run), key, value);
}

void cm_run_remember(struct cm_run *run, struct cm_str key, struct cm_str value, int64_t ttl_ms)
{
    if (run_memo(run))
        cm_memo_put(run_memo(run), owner_of(run), key, value, ttl_ms);
}

void cm_run_forget(struct cm_run *run, struct cm_str key)
{
    if (run_memo(run))
        cm_memo_del(run_memo(run), owner_of(run), key);
}

/* ---- what belongs to a client's conversation ---- */

/* Never the owner of a credential's entries: those are digests of a provider and a secret. */
static struct cm_str client_of(struct cm_run *run)
{
    struct run_memory *m = run_memory(run);

    if (m->client.n == 0)
        m->client =
            digest(cm_run_arena(run),
                   cm_arena_printf(cm_run_arena(run), "kept\n" CM_PRI "\n" CM_PRI,
                                   CM_ARG(cm_run_instance(run)->name), CM_ARG(cm_run_scope(run))));
    return m->client;
}

bool cm_run_kept(struct cm_run *run, struct cm_str key, struct cm_str *value)
{
    return run_memo(run) && cm_memo_get(run_memo(run), client_of(run), key, value);
}

void cm_run_keep(struct cm_run *run, struct cm_str key, struct cm_str value)
{
    if (run_memo(run))
        cm_memo_put(run_memo(run), client_of(run), key, value, CM_KEPT_MS);
}

/* ---- conversations ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Clients trim and re-indent what they send back. */
static void put_dense(struct cm_buf *out, struct cm_str text)
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

struct cm_str cm_run_text_key(struct cm_run *run, struct cm_str text)
{
    struct cm_buf dense = {0};
    struct cm_str key;

    put_dense(&dense, text);
    key = digest(cm_run_arena(run), cm_buf_str(&dense));
    cm_buf_clear(&dense);
    return key;
}

static void put_message(struct cm_buf *out, const struct cm_msg *msg)
{
    cm_buf_printf(out, "\036%d\037", (int)msg->role);
    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *p = &msg->parts[i];

        switch (p->kind) {
        case CM_PART_TEXT:
        case CM_PART_REFUSAL:
            put_dense(out, p->text);
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
            put_dense(out, p->text);
            break;
        }
    }
}

/* Under which name the conversation of the first `n` messages, and `said` behind them, is kept. */
static struct cm_str thread_key(struct cm_run *run, size_t n, struct cm_str said)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_buf text = {0};
    struct cm_str key;

    cm_buf_append(&text, cm_run_scope(run));
    cm_buf_put(&text, '\n');
    cm_buf_append(&text, cm_run_target(run)->model);
    for (size_t i = 0; i < n; i++)
        put_message(&text, &chat->msgs[i]);
    if (said.n > 0) {
        cm_buf_printf(&text, "\036%d\037", (int)CM_ROLE_ASSISTANT);
        cm_buf_append(&text, said);
    }
    key = digest(cm_run_arena(run), cm_buf_str(&text));
    cm_buf_clear(&text);
    return key;
}

bool cm_run_thread(struct cm_run *run, struct cm_thread *out)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct run_memory *m = run_memory(run);
    size_t from = chat->n_msgs;
    struct cm_str value;

    if (!run_memo(run))
        return false;
    m->follows = true;
    cm_buf_init(&m->said, SAID_MAX);
    while (from > 0 && chat->msgs[from - 1].role != CM_ROLE_ASSISTANT)
        from--;
    if (from == 0 || from == chat->n_msgs ||
        !cm_run_recall(run, thread_key(run, from, CM_STR_NONE), &value))
        return false;
    *out = (struct cm_thread){cm_arena_str(cm_run_arena(run), value), from};
    return true;
}

void run_memory_heard(struct run_memory *m, const struct cm_event *ev)
{
    struct cm_buf image = {0};

    if (ev->choice != 0)
        return;
    if (ev->kind == CM_EVENT_TEXT) {
        put_dense(&m->said, ev->text);
    } else if (ev->kind == CM_EVENT_IMAGE) { /* comes back as the surface wrote it */
        cm_event_put_markdown(ev, &image);
        put_dense(&m->said, cm_buf_str(&image));
        cm_buf_clear(&image);
    }
}

void cm_run_thread_keep(struct cm_run *run, struct cm_str value, int64_t ttl_ms)
{
    struct run_memory *m = run_memory(run);

    if (m->follows && !run_is_closed(run) && !m->said.failed && m->said.n > 0)
        cm_run_remember(run, thread_key(run, cm_run_chat(run)->n_msgs, cm_buf_str(&m->said)), value,
                        ttl_ms);
}
