/* Which conversation a request belongs to, so that it stays with its account: what the client says of it, else how it began.
 * In this order: header, cache key, conversation (also that of a response it goes on from), first messages. */
#include "gateway_int.h"

#include "chatmux/codec/json.h"

/* Headers by which clients name a session, the explicit one first. */
static const struct cm_str session_headers[] = {
    CM_S_INIT("x-chatmux-session"),   CM_S_INIT("x-claude-code-session-id"),
    CM_S_INIT("session_id"),          CM_S_INIT("conversation_id"),
    CM_S_INIT("x-session-affinity"),  CM_S_INIT("x-session-id"),
    CM_S_INIT("x-openwebui-chat-id"),
};
/* Members of a body by which clients name a conversation. */
static const struct cm_str conversation_members[] = {CM_S_INIT("conversation_id"),
                                                     CM_S_INIT("conversation")};

/* Keys may share a name, and those of a list take each other's when it changes: not by name. */
static void put_owner(struct cm_buf *out, const struct exchange *ex)
{
    const struct cm_key_row *row = ex->client_key ? cm_key_row(ex->client_key) : NULL;

    if (!row)
        cm_buf_append(out, ex->key);
    else if (row->id)
        cm_buf_put_u64(out, row->id);
    else
        cm_buf_append(out, cm_str((const char *)row->digest, sizeof(row->digest)));
}

/* One key's conversations are not another's. */
static uint64_t scoped(const struct exchange *ex, struct cm_str kind, struct cm_str value)
{
    struct cm_buf text = {0};
    uint64_t hash;

    put_owner(&text, ex);
    cm_buf_put(&text, '\n');
    cm_buf_append(&text, kind);
    cm_buf_put(&text, '\n');
    cm_buf_append(&text, value);
    hash = cm_hash(cm_buf_str(&text));
    cm_buf_clear(&text);
    return hash ? hash : 1;
}

/* System text and first user text: the same for every turn of a conversation. */
static uint64_t of_beginning(const struct exchange *ex)
{
    const struct cm_chat *chat = ex->chat;
    struct cm_buf text = {0};
    uint64_t hash;

    cm_buf_init(&text, 64 * 1024);
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t p = 0; p < chat->msgs[i].n_parts; p++)
            if (chat->msgs[i].parts[p].kind == CM_PART_TEXT)
                cm_buf_append(&text, cm_str_head(chat->msgs[i].parts[p].text, 4096));
        if (chat->msgs[i].role == CM_ROLE_USER)
            break;
    }
    hash = scoped(ex, CM_S("begins"), cm_buf_str(&text));
    cm_buf_clear(&text);
    return hash;
}

uint64_t handed_to(const struct exchange *ex)
{
    return ex->chat->task == CM_TASK_CHAT ? cm_handle_credential(ex->chat) : 0;
}

static uint64_t of_header(const struct exchange *ex)
{
    for (size_t i = 0; ex->req && i < CM_COUNT(session_headers); i++) {
        struct cm_str value = cm_req_header(ex->req, session_headers[i]);

        if (value.n > 0)
            return scoped(ex, CM_S("header"), value);
    }
    return 0;
}

static uint64_t of_member(const struct exchange *ex, struct cm_str name)
{
    struct cm_str value;

    if (!cm_str_has(ex->chat->raw, name)) /* most bodies: cheaper to look than to walk */
        return 0;
    value = cm_json_member(ex->chat->raw, name);
    return cm_str_starts(value, CM_S("\"")) && value.n > 2 ? scoped(ex, CM_S("member"), value) : 0;
}

static uint64_t of_conversation(const struct exchange *ex)
{
    uint64_t hash = responses_conversation(ex);

    for (size_t i = 0; !hash && i < CM_COUNT(conversation_members); i++)
        hash = of_member(ex, conversation_members[i]);
    return hash;
}

uint64_t affinity_of(const struct exchange *ex, bool *begins)
{
    uint64_t named = of_header(ex);

    *begins = false;
    if (!named)
        named = of_member(ex, CM_S("prompt_cache_key"));
    if (!named)
        named = of_conversation(ex);
    if (named || ex->chat->task != CM_TASK_CHAT) /* what is no chat has no beginning */
        return named;
    *begins = !cm_chat_last(ex->chat, CM_ROLE_ASSISTANT);
    return of_beginning(ex);
}
