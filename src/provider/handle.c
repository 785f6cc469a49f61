/* Handles of the platforms' own conversations, which clients hand back to go on with nothing but new messages.
 *
 * "conv_" and base64url of 16 bytes of a MAC and the text "CREDENTIAL VALUE". The MAC is keyed with the account's secret and a random salt, which is
 * remembered over restarts and told to nobody: a client that guesses at the secret cannot try its guesses on a handle. It covers provider, client key
 * and model: one client's handle is another's nonsense. */
#include "chatmux/base/crypto.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/rand.h"
#include "chatmux/codec/json.h"
#include "run_int.h"

#define PREFIX CM_S("conv_")
#define MAC_BYTES 16
#define HANDLE_MAX 2000
#define SALT_BYTES 32
#define SALT_TTL_MS (INT64_C(10) * 366 * 24 * 3600 * 1000)

/* The member's text without its quotes; base64url needs no escapes. */
static struct cm_str handle_of(const struct cm_chat *chat)
{
    const struct cm_str member = CM_S("conversation_id");
    struct cm_str text;

    if (chat->dialect != CM_DIALECT_OPENAI_CHAT || !cm_str_has(chat->raw, member))
        return CM_STR_NONE;
    text = cm_json_member(chat->raw, member);
    if (text.n < 2 || text.n > HANDLE_MAX || text.p[0] != '"')
        return CM_STR_NONE;
    text = cm_str(text.p + 1, text.n - 2);
    return cm_str_starts(text, PREFIX) ? cm_str_from(text, PREFIX.n) : CM_STR_NONE;
}

/* MAC and text; false: no handle. */
static bool take_apart(const struct cm_chat *chat, struct cm_buf *bytes)
{
    const struct cm_str handle = handle_of(chat);

    return handle.n > 0 && !cm_base64_decode(bytes, handle) && bytes->n > MAC_BYTES;
}

static uint64_t credential_of(struct cm_str *text)
{
    uint64_t id;

    return cm_str_to_u64(cm_str_cut(text, ' '), UINT64_MAX - 1, &id) ? id : 0;
}

uint64_t cm_handle_credential(const struct cm_chat *chat)
{
    struct cm_buf bytes = {0};
    struct cm_str text;
    uint64_t id = 0;

    if (take_apart(chat, &bytes)) {
        text = cm_str_from(cm_buf_str(&bytes), MAC_BYTES);
        id = credential_of(&text);
    }
    cm_buf_clear(&bytes);
    return id;
}

static struct cm_str salt_of(struct cm_run *run)
{
    const struct cm_str name = CM_S("salt of handles");
    unsigned char fresh[SALT_BYTES];
    struct cm_str salt;

    if (cm_run_recall(run, name, &salt))
        return salt;
    cm_rand_bytes(fresh, sizeof(fresh));
    salt = cm_arena_str(cm_run_arena(run), cm_str((const char *)fresh, sizeof(fresh)));
    cm_run_remember_durably(run, name, salt, SALT_TTL_MS);
    return salt;
}

static void mac_of(struct cm_run *run, struct cm_str text, unsigned char out[CM_SHA256_SIZE])
{
    struct cm_str client = cm_run_scope(run), number = cm_str_cut(&client, ' '); /* names change */
    unsigned char key[CM_SHA256_SIZE];
    const struct cm_str signed_text = cm_arena_printf(
        cm_run_arena(run), "conversation\n" CM_PRI "\n" CM_PRI "\n" CM_PRI "\n" CM_PRI,
        CM_ARG(cm_run_instance(run)->name), CM_ARG(number), CM_ARG(cm_run_target(run)->model),
        CM_ARG(text));

    cm_hmac_sha256(cm_run_cred(run)->secret, salt_of(run), key);
    cm_hmac_sha256(cm_str((const char *)key, sizeof(key)), signed_text, out);
    cm_wipe(key, sizeof(key));
}

/* Behind the last answer; what the platform has been told to be is not told again. */
static size_t first_new(const struct cm_chat *chat)
{
    size_t from = chat->n_msgs;

    while (from > 0 && chat->msgs[from - 1].role != CM_ROLE_ASSISTANT)
        from--;
    if (from == chat->n_msgs)
        return 0;
    if (from > 0)
        return from;
    while (from + 1 < chat->n_msgs && chat->msgs[from].role != CM_ROLE_USER)
        from++;
    return from;
}

static bool is_genuine(struct cm_run *run, struct cm_str bytes, struct cm_str *value)
{
    unsigned char mac[CM_SHA256_SIZE];
    struct cm_str text = cm_str_from(bytes, MAC_BYTES);

    mac_of(run, text, mac);
    *value = text;
    return cm_secret_eq(cm_str_head(bytes, MAC_BYTES), cm_str((const char *)mac, MAC_BYTES)) &&
           credential_of(value) == cm_run_cred(run)->id;
}

int cm_run_handed(struct cm_run *run, struct cm_thread *out, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_buf bytes = {0};
    struct cm_str value;
    int found = 0;

    if (take_apart(chat, &bytes)) {
        found = is_genuine(run, cm_buf_str(&bytes), &value) ? 1 : -1;
        if (found > 0)
            *out = (struct cm_thread){.value = cm_arena_str(cm_run_arena(run), value),
                                      .from = first_new(chat),
                                      .alone = !cm_chat_last(chat, CM_ROLE_ASSISTANT)};
        else if (cm_chat_last(chat, CM_ROLE_ASSISTANT))
            found = 0;
        else
            cm_fail_param(err, CM_ERR_NOT_FOUND, "conversation_id",
                          "there is no such conversation of this key with this model: send it as "
                          "a whole, without 'conversation_id'");
    }
    cm_buf_clear(&bytes);
    return found;
}

void cm_run_conversation(struct cm_run *run, struct cm_str value)
{
    unsigned char mac[CM_SHA256_SIZE];
    struct cm_buf bytes = {0}, handle = {0};
    struct cm_str text;

    if (run_is_closed(run) || value.n == 0 || cm_run_cred(run)->id == 0)
        return;
    text = cm_arena_printf(cm_run_arena(run), "%llu " CM_PRI,
                           (unsigned long long)cm_run_cred(run)->id, CM_ARG(value));
    mac_of(run, text, mac);
    cm_buf_append(&bytes, cm_str((const char *)mac, MAC_BYTES));
    cm_buf_append(&bytes, text);
    cm_buf_append(&handle, PREFIX);
    cm_base64url(&handle, cm_buf_str(&bytes));
    cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_CONVERSATION, .id = cm_buf_str(&handle)});
    cm_buf_clear(&bytes);
    cm_buf_clear(&handle);
}
