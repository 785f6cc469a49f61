/* Which conversation a request belongs to, so that it stays with its account: what the client says of it, else how it began. */
#include "gateway_int.h"

#include "chatmux/codec/json.h"

/* Headers by which clients name a session, the explicit one first. */
static const struct cm_str session_headers[] = {
    CM_S_INIT("x-chatmux-session"),   CM_S_INIT("x-claude-code-session-id"),
    CM_S_INIT("session_id"),          CM_S_INIT("conversation_id"),
    CM_S_INIT("x-session-affinity"),  CM_S_INIT("x-session-id"),
    CM_S_INIT("x-openwebui-chat-id"),
};
/* Members of a body that do the same. */
static const struct cm_str session_members[] = {
    CM_S_INIT("prompt_cache_key"), CM_S_INIT("conversation_id"), CM_S_INIT("conversation")};

/* One key's conversations are not another's. */
static uint64_t scoped(const struct exchange *ex, struct cm_str kind, struct cm_str value)
{
    struct cm_buf text = {0};
    uint64_t hash;

    cm_buf_append(&text, ex->key);
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

uint64_t affinity_of(const struct exchange *ex, bool *begins)
{
    *begins = false;
    for (size_t i = 0; ex->req && i < CM_COUNT(session_headers); i++) {
        struct cm_str value = cm_req_header(ex->req, session_headers[i]);

        if (value.n > 0)
            return scoped(ex, CM_S("header"), value);
    }
    if (responses_conversation(ex))
        return responses_conversation(ex);
    for (size_t i = 0; i < CM_COUNT(session_members); i++) {
        struct cm_str value = CM_STR_NONE;

        if (cm_str_has(
                ex->chat->raw,
                session_members[i])) /* most bodies have none: cheaper to look than to walk */
            value = cm_json_member(ex->chat->raw, session_members[i]);
        if (cm_str_starts(value, CM_S("\"")) && value.n > 2)
            return scoped(ex, CM_S("member"), value);
    }
    if (ex->chat->task != CM_TASK_CHAT)
        return 0; /* no conversation */
    *begins = !cm_chat_last(ex->chat, CM_ROLE_ASSISTANT);
    return of_beginning(ex);
}
