/* deepseek: what is asked, and in which conversation.
 * Wire facts: DeepSeek protocol notes, sections 3.4 and 5. */
#include "deepseek_int.h"

static int unsupported(struct cm_err *err, const char *param, const char *why)
{
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "%s", why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
    return -1;
}

/* What the platform has not must not vanish from the request unsaid. */
int deepseek_check_request(const struct cm_chat *chat, struct cm_err *err)
{
    if (chat->untranslatable.cls != CM_ERR_NONE) {
        *err = chat->untranslatable;
        return -1;
    }
    if (chat->n > 1)
        return unsupported(err, "n", "deepseek gives one answer to a request: 'n' must be 1.");
    if (chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE)
        return unsupported(
            err, "tools",
            "deepseek calls no tools itself: leave 'tools' out, set 'tool_choice' to 'none', or have "
            "the operator set x.tools = prompt.");
    return 0;
}

enum deepseek_conversations deepseek_conversations(const struct cm_run *run)
{
    if (deepseek_option_is(run, "conversations", "delete"))
        return DEEPSEEK_DELETE;
    return deepseek_option_is(run, "conversations", "new") ? DEEPSEEK_NEW : DEEPSEEK_CONTINUE;
}

enum deepseek_marks deepseek_marks(const struct cm_run *run)
{
    if (cm_run_target(run)->silent)
        return DEEPSEEK_MARKS_ANNOTATIONS; /* which are not told either */
    if (deepseek_option_is(run, "citations", "links"))
        return DEEPSEEK_MARKS_LINKS;
    return deepseek_option_is(run, "citations", "marks") ? DEEPSEEK_MARKS_KEPT
                                                         : DEEPSEEK_MARKS_ANNOTATIONS;
}

/* "SESSION MESSAGE", as deepseek_thread_value() wrote it. */
static bool read_thread(struct deepseek *d, const struct cm_thread *thread)
{
    struct cm_str value = thread->value;
    const struct cm_str session = cm_str_cut(&value, ' ');
    uint64_t message;

    if (!cm_str_to_u64(value, INT64_MAX, &message))
        return false;
    d->session = session;
    d->parent = (int64_t)message;
    return true;
}

struct cm_str deepseek_thread_value(struct cm_run *run, const struct deepseek *d)
{
    return cm_arena_printf(cm_run_arena(run), CM_PRI " %lld", CM_ARG(d->session),
                           (long long)d->stream.message_id);
}

int deepseek_find_thread(struct cm_run *run, struct deepseek *d, size_t *from, struct cm_err *err)
{
    struct cm_thread thread;
    int found;

    *from = 0;
    if (d->conversations != DEEPSEEK_CONTINUE)
        return 0;
    found = cm_run_handed(run, &thread, err);
    if (found < 0)
        return -1;
    if (found == 0 && !cm_run_thread(run, &thread))
        return 0;
    d->threaded = read_thread(d, &thread);
    d->alone = thread.alone;
    if (d->threaded)
        *from = thread.from;
    return 0;
}

int deepseek_make_prompt(struct cm_run *run, struct deepseek *d, size_t from, struct cm_err *err)
{
    d->prompt = deepseek_prompt(cm_run_arena(run), cm_run_chat(run), from,
                                deepseek_option_is(run, "prompt_style", "brackets")
                                    ? DEEPSEEK_STYLE_BRACKETS
                                    : DEEPSEEK_STYLE_MARKERS);
    if (d->prompt.n == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "the messages hold no text");
    d->usage = (struct cm_usage){.source = CM_USAGE_ESTIMATED,
                                 .in_uncached = cm_estimate_tokens(d->prompt)};
    return 0;
}

static void put_bool(struct cm_buf *out, const char *name, bool value)
{
    cm_buf_printf(out, ",\"%s\":%s", name, value ? "true" : "false");
}

struct cm_str deepseek_question(struct cm_run *run, const struct deepseek *d)
{
    struct cm_buf body = {0};

    cm_buf_append(&body, CM_S("{\"chat_session_id\":"));
    cm_json_put_str(&body, d->session);
    cm_buf_append(&body, CM_S(",\"parent_message_id\":"));
    if (d->parent > 0)
        cm_json_put_int(&body, d->parent);
    else
        cm_buf_append(&body, CM_S("null"));
    cm_buf_append(&body, CM_S(",\"model_type\":"));
    if (d->model_type.n > 0)
        cm_json_put_str(&body, d->model_type);
    else
        cm_buf_append(&body, CM_S("null"));
    cm_buf_append(&body, CM_S(",\"prompt\":"));
    cm_json_put_str(&body, d->prompt);
    cm_buf_append(&body, CM_S(",\"ref_file_ids\":"));
    deepseek_files_put_ids(&d->files, &body);
    put_bool(&body, "thinking_enabled", d->thinking);
    put_bool(&body, "search_enabled", d->searching);
    put_bool(&body, "preempt", false);
    cm_buf_put(&body, '}');
    return cm_buf_settle(&body, cm_run_arena(run));
}
