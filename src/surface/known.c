/* Members of a body that nobody here reads, below its top level: found by a walk along a table of those that are known, and told by their path
 * ("tools[0].defer_loading"). One that stands in many elements of a list is told once, where it came first; how many are told is bounded, and
 * what stands below an unknown one is not looked at. */
#include "known_int.h"

#include "fields_int.h"

#include <stdio.h>

struct walk {
    struct cm_chat *chat;
    bool both_spellings; /* a camelCase name may be written in snake_case */
    struct told {
        const struct cm_known *in;
        struct cm_str name;
    } told[CM_DROPPED_MAX];
    size_t n;
};

struct unread {
    struct cm_unread base;
    yyjson_val *root;
    const struct cm_known *top;
};

static bool is_snake_of(struct cm_str camel, struct cm_str name)
{
    size_t k = 0;

    for (size_t i = 0; i < camel.n; i++) {
        const bool upper = camel.p[i] >= 'A' && camel.p[i] <= 'Z';
        const char c = upper ? (char)(camel.p[i] - 'A' + 'a') : camel.p[i];

        if (name.n < k + 1 + upper || (upper && name.p[k] != '_') || name.p[k + upper] != c)
            return false;
        k += 1 + upper;
    }
    return k == name.n;
}

static const struct cm_known_member *find(const struct walk *w, const struct cm_known *known,
                                          struct cm_str name)
{
    for (size_t i = 0; i < known->n; i++) {
        const struct cm_known_member *m = &known->members[i];

        if (cm_str_eq(m->name, name) || (w->both_spellings && is_snake_of(m->name, name)))
            return m;
    }
    return NULL;
}

static void tell(struct walk *w, const struct cm_known *in, struct cm_str name,
                 const struct cm_spot *at)
{
    const struct cm_str shown = cm_str_is_word(name, CM_FIELD_NAME_MAX) ? name : CM_S("unknown");
    char path[sizeof(w->chat->untranslatable.param)]; /* which `strict` names it in */
    size_t n;

    for (size_t i = 0; i < w->n; i++) {
        if (w->told[i].in == in && cm_str_eq(w->told[i].name, shown))
            return;
    }
    w->told[w->n++] = (struct told){in, shown};
    cm_spot_text(at, path, sizeof(path));
    n = strlen(path);
    if (n + 1 + shown.n < sizeof(path)) /* else the place alone is told */
        snprintf(path + n, sizeof(path) - n, "." CM_PRI, CM_ARG(shown));
    cm_chat_drop(w->chat, cm_arena_str(w->chat->arena, cm_str_of(path)));
}

static void look(struct walk *w, const struct cm_known *known, yyjson_val *v,
                 const struct cm_spot *at);

static void look_in_object(struct walk *w, const struct cm_known *known, yyjson_val *object,
                           const struct cm_spot *at) // NOLINT(misc-no-recursion)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(object);
    const struct cm_known_member *m;
    yyjson_val *key, *type;

    if (known->by_type) {
        type = cm_json_opt(object, "type");
        m = type ? find(w, known, cm_json_str(type)) : known->members;
        if (!m)
            return;
        known = m->below;
    }
    while (w->n < CM_COUNT(w->told) && (key = yyjson_obj_iter_next(&it))) {
        yyjson_val *v = yyjson_obj_iter_get_val(key);

        m = find(w, known, cm_json_str(key));
        if (m && m->below)
            look(w, m->below, v, CM_SPOT(at, yyjson_get_str(key)));
        else if (!m && at && !yyjson_is_null(v))
            tell(w, known, cm_json_str(key), at);
    }
}

/* An object, or a list of them. */
static void look(struct walk *w, const struct cm_known *known, yyjson_val *v,
                 const struct cm_spot *at) // NOLINT(misc-no-recursion)
{
    size_t i, max;
    yyjson_val *one;

    if (yyjson_is_obj(v))
        look_in_object(w, known, v, at);
    yyjson_arr_foreach(v, i, max, one)
    {
        if (w->n == CM_COUNT(w->told))
            break;
        if (yyjson_is_obj(one))
            look_in_object(w, known, one, CM_SPOT_AT(at, i));
    }
}

static void find_all(struct cm_chat *chat, const struct cm_unread *unread)
{
    const struct unread *u = (const struct unread *)unread;
    struct walk w = {.chat = chat, .both_spellings = chat->dialect == CM_DIALECT_GEMINI};

    look_in_object(&w, u->top, u->root, NULL);
}

static const struct cm_known *known_of(const struct cm_chat *chat)
{
    switch (chat->dialect) {
    case CM_DIALECT_OPENAI_CHAT:
        if (chat->task == CM_TASK_CHAT)
            return &cm_known_openai_chat;
        return chat->task == CM_TASK_COMPLETION ? &cm_known_openai_completion : NULL;
    case CM_DIALECT_OPENAI_RESPONSES:
        return &cm_known_responses;
    case CM_DIALECT_ANTHROPIC:
        return &cm_known_anthropic;
    case CM_DIALECT_GEMINI:
        return chat->task == CM_TASK_EMBEDDING ? &cm_known_gemini_embed : &cm_known_gemini;
    }
    return NULL;
}

void cm_known_note(struct cm_chat *chat, yyjson_val *root)
{
    const struct cm_known *top = known_of(chat);
    struct unread *u;

    if (!top)
        return;
    u = CM_ARENA_NEW(chat->arena, struct unread);
    *u = (struct unread){{find_all}, root, top};
    chat->unread = &u->base;
}
