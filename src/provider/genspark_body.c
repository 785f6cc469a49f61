/* What genspark is asked: the bodies of both dialects.
 *
 * Wire facts: genspark protocol notes, sections 4.1, 4.2 and 5.1. */
#include "genspark_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

/* ---- Which messages ---- */

struct talk {
    struct cm_msg *msgs;
    size_t n;
};

static bool is_system(const struct cm_msg *msg)
{
    return msg->role == CM_ROLE_SYSTEM || msg->role == CM_ROLE_DEVELOPER;
}

/* From message `from` on; x.pre_messages stand behind the last system text of a chat that does not go on. */
static struct talk talk_of(struct cm_run *run, const struct genspark *g)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const struct genspark_conf *c = genspark_conf_of(run);
    struct talk t = {CM_ARENA_ARRAY(cm_run_arena(run), struct cm_msg, chat->n_msgs + c->n_pre + 1),
                     0};
    size_t pre_at = 0;

    for (size_t i = 0; i < chat->n_msgs; i++) {
        if (is_system(&chat->msgs[i]))
            pre_at = i + 1;
    }
    for (size_t i = g->ask.from; i <= chat->n_msgs; i++) {
        for (size_t k = 0; k < c->n_pre && !g->ask.goes_on && i == pre_at; k++)
            t.msgs[t.n++] = c->pre[k];
        if (i == chat->n_msgs)
            break;
        t.msgs[t.n] = chat->msgs[i];
        if (is_system(&chat->msgs[i]))
            t.msgs[t.n].role = CM_ROLE_SYSTEM; /* developer is a word of others */
        t.n++;
    }
    return t;
}

/* Calls of tools and their results are told as text: the site refuses both forms of their own. */
static struct cm_str text_of(struct cm_run *run, const struct cm_msg *msg)
{
    struct cm_buf out = {0};

    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *part = &msg->parts[i];

        if (part->kind != CM_PART_TEXT && part->kind != CM_PART_REFUSAL &&
            part->kind != CM_PART_TOOL_CALL && part->kind != CM_PART_TOOL_RESULT)
            continue;
        if (out.n > 0)
            cm_buf_put(&out, '\n');
        if (part->kind == CM_PART_TOOL_CALL)
            cm_buf_printf(&out, "[calls " CM_PRI " with ", CM_ARG(part->name));
        else if (part->kind == CM_PART_TOOL_RESULT)
            cm_buf_append(&out, CM_S("[result: "));
        cm_buf_append(&out, part->text);
        if (part->kind == CM_PART_TOOL_CALL || part->kind == CM_PART_TOOL_RESULT)
            cm_buf_put(&out, ']');
    }
    return cm_buf_settle(&out, cm_run_arena(run));
}

enum cm_role genspark_role(const struct cm_msg *msg)
{
    return is_system(msg)                   ? CM_ROLE_SYSTEM
           : msg->role == CM_ROLE_ASSISTANT ? CM_ROLE_ASSISTANT
                                            : CM_ROLE_USER;
}

static void put_strings(struct cm_buf *out, const struct cm_str *v, size_t n)
{
    cm_buf_put(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        cm_json_put_str(out, v[i]);
    }
    cm_buf_put(out, ']');
}

static void put_bool(struct cm_buf *out, bool value)
{
    cm_buf_append(out, value ? CM_S("true") : CM_S("false"));
}

static void put_option(struct cm_buf *out, struct cm_run *run, const char *name)
{
    put_bool(out, cm_option_bool(cm_run_instance(run), name));
}

/* ---- Agent ---- */

static void put_agent_messages(struct cm_buf *out, struct cm_run *run, const struct genspark *g,
                               const struct talk *t)
{
    char id[CM_UUID_CAP];
    bool any = false;

    cm_buf_put(out, '[');
    for (size_t i = 0; i < t->n; i++) {
        const struct cm_str text = text_of(run, &t->msgs[i]);

        if (text.n == 0 && !genspark_has_files(g, &t->msgs[i]))
            continue;
        cm_uuid4(id);
        cm_buf_append(out, any ? CM_S(",{\"role\":") : CM_S("{\"role\":"));
        cm_json_put_z(out, cm_role_name(genspark_role(&t->msgs[i])));
        cm_buf_append(out, CM_S(",\"id\":"));
        cm_json_put_z(out, id);
        cm_buf_append(out, CM_S(",\"content\":"));
        genspark_put_content(out, g, text, &t->msgs[i], 1);
        cm_buf_put(out, '}');
        any = true;
    }
    cm_buf_put(out, ']');
}

static struct cm_str last_question(struct cm_run *run, const struct talk *t)
{
    for (size_t i = t->n; i-- > 0;) {
        if (genspark_role(&t->msgs[i]) == CM_ROLE_USER)
            return text_of(run, &t->msgs[i]);
    }
    return CM_STR_NONE;
}

static struct cm_str agent_chat(struct cm_run *run, const struct genspark *g)
{
    const struct genspark_conf *c = genspark_conf_of(run);
    const struct talk t = talk_of(run, g);
    const bool mixture = g->ask.kind == GENSPARK_MIXTURE;
    struct cm_buf out = {0}, messages = {0};

    put_agent_messages(&messages, run, g, &t);
    cm_buf_append(&out, CM_S("{\"ai_chat_model\":"));
    cm_json_put_str(&out, g->ask.model);
    cm_buf_append(&out, CM_S(",\"ai_chat_enable_search\":"));
    put_bool(&out, g->ask.search);
    cm_buf_append(&out, CM_S(",\"ai_chat_disable_personalization\":"));
    put_bool(&out, !cm_option_bool(cm_run_instance(run), "personalization"));
    cm_buf_append(&out, CM_S(",\"use_moa_proxy\":"));
    put_bool(&out, mixture);
    cm_buf_append(&out, CM_S(",\"moa_models\":"));
    put_strings(&out, c->mixture, mixture ? c->n_mixture : 0);
    if (mixture) { /* with moa_models alone one model answers */
        cm_buf_append(&out, CM_S(",\"models\":"));
        put_strings(&out, c->mixture, c->n_mixture);
    }
    cm_buf_append(&out, CM_S(",\"writingContent\":null,\"type\":\"ai_chat\",\"project_id\":"));
    if (g->ask.project.n > 0)
        cm_json_put_str(&out, g->ask.project);
    else
        cm_buf_append(&out, CM_S("null"));
    cm_buf_append(&out, CM_S(",\"messages\":"));
    cm_buf_append(&out, cm_buf_str(&messages));
    cm_buf_append(&out, CM_S(",\"user_s_input\":"));
    cm_json_put_str(&out, last_question(run, &t));
    cm_buf_append(&out, CM_S(",\"g_recaptcha_token\":"));
    cm_json_put_str(&out, g->ask.token);
    cm_buf_append(&out, CM_S(",\"is_private\":"));
    put_option(&out, run, "private");
    cm_buf_append(&out, CM_S(",\"push_token\":\"\""));
    if (cm_option_bool(cm_run_instance(run), "send_state")) {
        cm_buf_append(&out, CM_S(",\"session_state\":{\"steps\":[],\"messages\":"));
        cm_buf_append(&out, cm_buf_str(&messages));
        cm_buf_put(&out, '}');
    }
    cm_buf_put(&out, '}');
    cm_buf_clear(&messages);
    return cm_buf_settle(&out, cm_run_arena(run));
}

/* ---- Copilot ---- */

struct said { /* one message, made of `n` of the client's */
    enum cm_role role;
    struct cm_str text, state;
    const struct cm_msg *msgs;
    size_t n;
};

static void put_copilot_message(struct cm_buf *out, const struct genspark *g,
                                const struct said *said)
{
    cm_buf_append(out, CM_S("{\"role\":"));
    cm_json_put_z(out, cm_role_name(said->role));
    cm_buf_append(out, CM_S(",\"content\":"));
    genspark_put_content(out, g, said->text, said->msgs, said->n);
    cm_buf_append(out, CM_S(",\"is_prompt\":false,\"session_state\":"));
    cm_buf_append(out, said->state);
    cm_buf_put(out, '}');
}

/* This model takes no system role and wants a state with what it has said. */
#define R1 CM_S("deep-seek-r1")
#define R1_STATE                                                                                   \
    CM_S(                                                                                          \
        "{\"models\":[\"deep-seek-r1\"],\"layers\":0,\"answer\":\"\",\"answer_is_finished\":false}")

static void put_copilot_messages(struct cm_buf *out, struct cm_run *run, const struct genspark *g,
                                 const struct talk *t)
{
    const bool r1 = cm_str_eq(g->ask.model, R1);
    struct cm_chat flat = *cm_run_chat(run);
    struct said said = {.role = CM_ROLE_USER, .state = CM_S("null"), .msgs = t->msgs, .n = t->n};

    if (!g->ask.goes_on) { /* only the last question is read: all goes into it */
        flat.msgs = t->msgs;
        flat.n_msgs = t->n;
        said.text = cm_chat_flatten(cm_run_arena(run), &flat);
        put_copilot_message(out, g, &said);
        return;
    }
    for (size_t i = 0; i < t->n; i++) {
        const enum cm_role role = genspark_role(&t->msgs[i]);

        said.role = r1 && role == CM_ROLE_SYSTEM ? CM_ROLE_USER : role;
        said.text = text_of(run, &t->msgs[i]);
        said.state = r1 && role == CM_ROLE_ASSISTANT ? R1_STATE : CM_S("null");
        said.msgs = &t->msgs[i];
        said.n = 1;
        if (i > 0)
            cm_buf_put(out, ',');
        put_copilot_message(out, g, &said);
    }
}

static struct cm_str copilot_chat(struct cm_run *run, const struct genspark *g)
{
    const struct genspark_conf *c = genspark_conf_of(run);
    const struct talk t = talk_of(run, g);
    const bool mixture = g->ask.kind == GENSPARK_MIXTURE;
    struct cm_buf out = {0}, query = {0};

    if (g->ask.project.n > 0)
        cm_buf_printf(&query, "id=" CM_PRI "&", CM_ARG(g->ask.project));
    cm_buf_append(&query, CM_S("type=COPILOT_MOA_CHAT"));
    cm_buf_append(&out, CM_S("{\"type\":\"COPILOT_MOA_CHAT\",\"current_query_string\":"));
    cm_json_put_str(&out, cm_buf_str(&query));
    cm_buf_append(&out, CM_S(",\"messages\":["));
    put_copilot_messages(&out, run, g, &t);
    cm_buf_append(&out, CM_S("],\"action_params\":{},\"extra_data\":{\"models\":"));
    put_strings(&out, mixture ? c->mixture : &g->ask.model, mixture ? c->n_mixture : 1);
    cm_buf_append(&out, CM_S(",\"run_with_another_model\":false,\"writingContent\":null,"
                             "\"request_web_knowledge\":"));
    put_bool(&out, g->ask.search);
    cm_buf_put(&out, '}');
    if (g->ask.token.n > 0) {
        cm_buf_append(&out, CM_S(",\"g_recaptcha_token\":"));
        cm_json_put_str(&out, g->ask.token);
    }
    cm_buf_put(&out, '}');
    cm_buf_clear(&query);
    return cm_buf_settle(&out, cm_run_arena(run));
}

struct cm_str genspark_chat_body(struct cm_run *run, const struct genspark *g)
{
    return g->ask.dialect == GENSPARK_COPILOT ? copilot_chat(run, g) : agent_chat(run, g);
}
