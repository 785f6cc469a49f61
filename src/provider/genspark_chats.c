/* The chats of genspark's site that a request goes on in, makes, and has deleted (protocol notes, section 10.3).
 *
 * What goes on is remembered by account, client and model, or belongs to the conversation (cm_run_thread()); bound chats are the operator's. A
 * chat of one client is never another's. */
#include "genspark_int.h"

#include "chatmux/base/mem.h"

#define FOREIGN_MS INT64_C(3600000)
#define OWNED_MS (365 * 24 * INT64_C(3600000)) /* since its last use */

static struct cm_str chat_key(struct cm_run *run, const struct genspark *g)
{
    const struct cm_str scope = cm_run_scope(run);

    if (genspark_makes_media(g->ask.kind))
        return cm_arena_printf(cm_run_arena(run), "%s\n" CM_PRI,
                               g->ask.kind == GENSPARK_VIDEO ? "videos" : "pictures",
                               CM_ARG(scope));
    return cm_arena_printf(cm_run_arena(run), "chat\n" CM_PRI "\n" CM_PRI, CM_ARG(scope),
                           CM_ARG(g->ask.model));
}

static struct cm_str foreign_key(struct cm_run *run, struct cm_str project)
{
    return cm_arena_printf(cm_run_arena(run), "foreign\n" CM_PRI, CM_ARG(project));
}

/* A bound chat belongs to one client: to x.model_chat_client, else to the first that uses it. */
static bool may_share(struct cm_run *run, struct cm_str project)
{
    const struct cm_str owner = genspark_option(run, "model_chat_client");
    struct cm_str name = cm_run_scope(run), first, key;
    const struct cm_str client = cm_str_cut(&name, ' '); /* the key's number: its name follows */

    if (genspark_option_bool(run, "model_chat_shared"))
        return true;
    if (owner.n > 0)
        return cm_str_eq(name, owner);
    key = cm_arena_printf(cm_run_arena(run), "owner\n" CM_PRI, CM_ARG(project));
    if (cm_run_recall(run, key, &first) && !cm_str_eq(first, client))
        return false;
    /* for good, over restarts too: who came later must not read what was said there */
    cm_run_remember_durably(run, key, client, OWNED_MS);
    return true;
}

/* The chat that this model is bound to, and this account can use. */
static bool bound_chat(struct cm_run *run, struct genspark *g)
{
    const struct genspark_conf *c = genspark_conf_of(run);
    const struct cm_target *target = cm_run_target(run);
    struct cm_str unused;

    for (size_t i = 0; i < c->n_bound; i++) {
        const struct genspark_bound *b = &c->bound[i];

        if (!cm_str_eq(b->model, target->model) &&
            !(target->row && cm_str_eq(b->model, target->row->name)))
            continue;
        if (cm_run_recall(run, foreign_key(run, b->project), &unused) ||
            !may_share(run, b->project))
            return false;
        g->ask.project = b->project;
        g->is_theirs = true;
        return true;
    }
    return false;
}

/* First message behind the last answer: what a chat that goes on has not seen. */
size_t genspark_first_new(const struct cm_chat *chat)
{
    size_t from = chat->n_msgs;

    while (from > 0 && chat->msgs[from - 1].role != CM_ROLE_ASSISTANT)
        from--;
    return from < chat->n_msgs ? from : 0;
}

/* x.session_image_chat_map names this account's. */
static bool session_chat(struct cm_run *run, struct genspark *g)
{
    const struct genspark_conf *c = genspark_conf_of(run);
    struct cm_str unused;

    for (size_t i = 0; i < c->n_sessions; i++) {
        const struct cm_str mark =
            cm_arena_printf(cm_run_arena(run), "session_id=" CM_PRI, CM_ARG(c->sessions[i].model));

        if (!cm_str_has(cm_run_cred(run)->secret, mark) ||
            cm_run_recall(run, foreign_key(run, c->sessions[i].project), &unused))
            continue;
        g->ask.project = c->sessions[i].project;
        g->is_theirs = true;
        return true;
    }
    return false;
}

/* Pictures and videos: one chat for all of a client's, unless it is to be deleted. */
static void find_media_chat(struct cm_run *run, struct genspark *g)
{
    struct cm_str project;

    if (!session_chat(run, g) && g->ask.dialect == GENSPARK_AGENT &&
        !genspark_option_bool(run, "delete_chat") && cm_run_recall(run, chat_key(run, g), &project))
        g->ask.project = cm_arena_str(cm_run_arena(run), project);
    g->ask.goes_on = g->ask.project.n > 0;
}

/* The conversation's own: by the client's handle, or by what was said. 0: there is none. */
static int thread_chat(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    struct cm_thread thread;
    int found = cm_run_handed(run, &thread, err);

    if (found == 0)
        found = cm_run_thread(run, &thread) ? 1 : 0;
    if (found > 0) {
        g->ask.project = thread.value;
        g->ask.from = thread.from;
        g->alone = thread.alone;
    }
    return found;
}

int genspark_find_chat(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    struct cm_str project;

    if (genspark_makes_media(g->ask.kind)) {
        find_media_chat(run, g);
        return 0;
    }
    if (bound_chat(run, g)) {
        g->ask.from = genspark_first_new(cm_run_chat(run));
    } else if (genspark_option_is(run, "continue", "thread")) {
        if (thread_chat(run, g, err) < 0)
            return -1;
    } else if (genspark_option_is(run, "continue", "model") &&
               cm_run_recall(run, chat_key(run, g), &project)) {
        g->ask.project = cm_arena_str(cm_run_arena(run), project);
        g->ask.from = genspark_first_new(cm_run_chat(run));
    }
    g->ask.goes_on = g->ask.project.n > 0;
    if (g->ask.dialect == GENSPARK_COPILOT)
        g->ask.from = 0; /* it wants to hear all of it again */
    return 0;
}

void genspark_tell_chat(struct cm_run *run, const struct genspark *g)
{
    const struct cm_str project = g->ask.project.n > 0 ? g->ask.project : g->answer.project;

    if (!g->is_theirs && !genspark_makes_media(g->ask.kind) &&
        genspark_option_is(run, "continue", "thread"))
        cm_run_conversation(run, project);
}

void genspark_keep_chat(struct cm_run *run, const struct genspark *g)
{
    const int64_t ttl_ms = cm_option_int(cm_run_instance(run), "continue_ttl");
    const struct cm_str project = g->ask.project.n > 0 ? g->ask.project : g->answer.project;

    if (project.n == 0 || g->is_theirs)
        return;
    if (genspark_makes_media(g->ask.kind)) {
        if (!genspark_option_bool(run, "delete_chat"))
            cm_run_remember(run, chat_key(run, g), project, ttl_ms);
        return;
    }
    if (genspark_option_is(run, "continue", "thread"))
        cm_run_thread_keep(run, project, ttl_ms);
    else if (genspark_option_is(run, "continue", "model"))
        cm_run_remember(run, chat_key(run, g), project, ttl_ms);
}

void genspark_leave_chat(struct cm_run *run, struct genspark *g)
{
    cm_run_remember(run, foreign_key(run, g->ask.project), CM_S("1"), FOREIGN_MS);
    cm_run_forget(run, chat_key(run, g));
    g->ask.project = g->answer.project = CM_STR_NONE; /* not ours to delete */
    g->ask.from = 0;
    g->ask.goes_on = g->is_theirs = false;
}

struct cm_str genspark_own_chat(const struct genspark *g)
{
    if (g->made.n > 0 || g->ask.goes_on)
        return g->made;
    return g->answer.project;
}
