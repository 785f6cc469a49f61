/* hix: one question made of a conversation. HIX protocol notes, sections 4 and 5. */
#include "chatmux/base/utf8.h"
#include "hix_int.h"

#include <stdio.h>

static bool is_system(const struct cm_msg *msg)
{
    return msg->role == CM_ROLE_SYSTEM || msg->role == CM_ROLE_DEVELOPER;
}

static bool is_file(const struct cm_part *part)
{
    return part->kind == CM_PART_IMAGE || part->kind == CM_PART_FILE;
}

/* ---- what the platform has not ---- */

static int unsupported(struct cm_err *err, const char *param, const char *why)
{
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "%s", why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
    return -1;
}

static int unsupported_in(struct cm_err *err, size_t msg, const char *why)
{
    char param[sizeof(err->param)];

    snprintf(param, sizeof(param), "messages[%zu].content", msg);
    return unsupported(err, param, why);
}

int hix_check_request(const struct cm_chat *chat, struct cm_err *err)
{
    if (chat->untranslatable.cls != CM_ERR_NONE) {
        *err = chat->untranslatable;
        return -1;
    }
    if (chat->n > 1)
        return unsupported(err, "n", "hix gives one answer to a request: 'n' must be 1.");
    if (chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE)
        return unsupported(err, "tools",
                           "hix calls no tools: leave 'tools' out or set 'tool_choice' to 'none'.");
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            const struct cm_part *part = &chat->msgs[i].parts[k];

            if (part->kind == CM_PART_AUDIO)
                return unsupported_in(err, i, "hix takes no audio.");
            if (is_file(part) && part->url.n == 0 && part->data.n == 0)
                return unsupported_in(err, i,
                                      "hix cannot look up a file by its id: send it as data.");
        }
    }
    return 0;
}

/* ---- files ---- */

/* The last message of a user, whose files are the question's; SIZE_MAX = none. */
static size_t last_of_user(const struct cm_chat *chat, size_t from)
{
    for (size_t i = chat->n_msgs; i-- > from;) {
        if (chat->msgs[i].role == CM_ROLE_USER)
            return i;
    }
    return SIZE_MAX;
}

static size_t files_in(const struct cm_msg *msg)
{
    size_t n = 0;

    for (size_t i = 0; i < msg->n_parts; i++)
        n += is_file(&msg->parts[i]);
    return n;
}

/* Those of the last question; if it has none and the chat begins anew, of the message that had some last. */
static int choose_files(struct cm_run *run, size_t from, struct hix_ask *out, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const size_t max =
        cm_option_bool(cm_run_instance(run), "file_urls") ? (size_t)HIX_FILES_MAX : 1;
    size_t at = last_of_user(chat, from);

    if (at == SIZE_MAX)
        return 0;
    if (files_in(&chat->msgs[at]) > max)
        return unsupported_in(err, at,
                              max == 1 ? "hix takes one file with a question (x.file_urls in the "
                                         "gateway's configuration may allow more)."
                                       : "hix takes at most 10 files with a question.");
    while (at > from && files_in(&chat->msgs[at]) == 0)
        at--;
    for (size_t i = chat->msgs[at].n_parts; i-- > 0 && out->n_files < max;) {
        if (is_file(&chat->msgs[at].parts[i]))
            out->files[out->n_files++] = &chat->msgs[at].parts[i];
    }
    for (size_t i = 0; i < out->n_files / 2; i++) {
        const struct cm_part *swap = out->files[i];

        out->files[i] = out->files[out->n_files - 1 - i];
        out->files[out->n_files - 1 - i] = swap;
    }
    return 0;
}

static bool goes_along(const struct hix_ask *ask, const struct cm_part *part)
{
    for (size_t i = 0; i < ask->n_files; i++) {
        if (ask->files[i] == part)
            return true;
    }
    return false;
}

static void mark_file(struct cm_arena *arena, struct cm_part *part)
{
    const bool image = part->kind == CM_PART_IMAGE;

    part->kind = CM_PART_TEXT;
    part->text = image ? CM_S("[image]")
                 : part->name.n > 0
                     ? cm_arena_printf(arena, "[file " CM_PRI "]", CM_ARG(part->name))
                     : CM_S("[file]");
}

/* The conversation with a mark in the place of each file that does not go along, or of all. */
static struct cm_chat marked(struct cm_run *run, size_t from, const struct hix_ask *ask, bool all)
{
    struct cm_arena *arena = cm_run_arena(run);
    const struct cm_msg *msgs = cm_run_chat(run)->msgs + from;
    struct cm_chat chat = *cm_run_chat(run);

    chat.n_msgs -= from;
    chat.msgs = CM_ARENA_ARRAY(arena, struct cm_msg, chat.n_msgs);
    for (size_t i = 0; i < chat.n_msgs; i++) {
        struct cm_msg *msg = &chat.msgs[i];

        *msg = msgs[i];
        if (files_in(msg) == 0)
            continue;
        msg->parts = CM_ARENA_ARRAY(arena, struct cm_part, msg->n_parts);
        for (size_t k = 0; k < msg->n_parts; k++) {
            msg->parts[k] = msgs[i].parts[k];
            if (is_file(&msg->parts[k]) && (all || !goes_along(ask, &msgs[i].parts[k])))
                mark_file(arena, &msg->parts[k]);
        }
    }
    return chat;
}

/* ---- text ---- */

/* System text and the last `keep` other messages. */
static struct cm_str flatten_last(struct cm_run *run, const struct cm_chat *chat, size_t keep)
{
    struct cm_chat part = *chat;
    size_t others = 0, skip;

    for (size_t i = 0; i < chat->n_msgs; i++)
        others += !is_system(&chat->msgs[i]);
    skip = others > keep ? others - keep : 0;
    part.msgs = CM_ARENA_ARRAY(cm_run_arena(run), struct cm_msg, chat->n_msgs);
    part.n_msgs = 0;
    for (size_t i = 0; i < chat->n_msgs; i++) {
        if (!is_system(&chat->msgs[i]) && skip > 0)
            skip--;
        else
            part.msgs[part.n_msgs++] = chat->msgs[i];
    }
    return cm_chat_flatten(cm_run_arena(run), &part);
}

/* As much of the conversation as the bot takes, at least its last message; by halving, because a history can be long. */
static int fit(struct cm_run *run, const struct cm_chat *chat, struct cm_str *question,
               struct cm_err *err)
{
    const size_t limit = hix_question_limit(run);
    size_t fits = 0, too_many = chat->n_msgs + 1, chars;
    struct cm_chat last = *chat;

    if (cm_utf8_count(*question) <= limit)
        return 0;
    while (too_many - fits > 1) {
        const size_t keep = fits + (too_many - fits) / 2;
        const struct cm_str text = flatten_last(run, chat, keep);

        if (cm_utf8_count(text) > limit) {
            too_many = keep;
        } else {
            fits = keep;
            *question = text;
        }
    }
    if (fits > 0)
        return 0;
    last.msgs = &chat->msgs[chat->n_msgs - 1];
    last.n_msgs = 1;
    *question = cm_chat_flatten(cm_run_arena(run), &last);
    chars = cm_utf8_count(*question);
    if (chars == 0 || chars > limit)
        return cm_fail_param(err, CM_ERR_CONTEXT_LENGTH, "messages",
                             "input text too long: %zu characters, the model takes %zu", chars,
                             limit);
    return 0;
}

int hix_make_ask(struct cm_run *run, size_t from, struct hix_ask *out, struct cm_err *err)
{
    struct cm_chat chat;

    *out = (struct hix_ask){0};
    if (choose_files(run, from, out, err) < 0)
        return -1;
    chat = marked(run, from, out, false);
    out->question = cm_chat_flatten(cm_run_arena(run), &chat);
    if (out->question.n == 0 && out->n_files > 0) { /* the platform wants words */
        chat = marked(run, from, out, true);
        out->question = cm_chat_flatten(cm_run_arena(run), &chat);
    }
    if (out->question.n == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "the messages hold no text");
    return fit(run, &chat, &out->question, err);
}
