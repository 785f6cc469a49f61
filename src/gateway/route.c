/* The URL table: which function serves which path. Every route is found with and without /v1 in front, and below the prefix as well. */
#include "gateway_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

#define OPENAI &cm_surface_openai_chat
#define IMAGES &cm_surface_openai_images
#define VIDEOS &cm_surface_openai_videos
#define MESSAGES &cm_surface_anthropic
#define COUNT &cm_surface_anthropic_count
#define GEMINI &cm_surface_gemini
#define RESPONSES &cm_surface_responses

/* methods, path, function, dialect, who may */
const struct route routes[] = {
    {"POST", "/chat/completions", serve_chat, OPENAI, ACCESS_KEY},
    {"POST", "/responses", serve_chat, RESPONSES, ACCESS_KEY},
    {"POST", "/responses/input_tokens", serve_chat, &cm_surface_responses_tokens, ACCESS_KEY},
    {"GET HEAD DELETE POST", "/responses/*", serve_response, RESPONSES, ACCESS_KEY},
    {"POST", "/completions", serve_chat, &cm_surface_openai_completions, ACCESS_KEY},
    {"POST", "/embeddings", serve_chat, &cm_surface_openai_embeddings, ACCESS_KEY},
    {"POST", "/moderations", serve_chat, &cm_surface_openai_moderations, ACCESS_KEY},
    {"POST", "/images/generations", serve_chat, IMAGES, ACCESS_KEY},
    {"POST", "/images/edits", serve_chat, &cm_surface_openai_image_edits, ACCESS_KEY},
    {"POST", "/images/variations", serve_chat, &cm_surface_openai_image_variations, ACCESS_KEY},
    {"POST", "/audio/speech", serve_chat, &cm_surface_openai_speech, ACCESS_KEY},
    {"POST", "/audio/transcriptions", serve_chat, &cm_surface_openai_transcriptions, ACCESS_KEY},
    {"POST", "/audio/translations", serve_chat, &cm_surface_openai_translations, ACCESS_KEY},
    {"POST", "/videos/generations", serve_chat, VIDEOS, ACCESS_KEY},
    {"GET", "/realtime", serve_realtime, &cm_surface_openai_realtime, ACCESS_KEY},
    {"POST", "/messages", serve_chat, MESSAGES, ACCESS_KEY},
    {"POST", "/messages/count_tokens", serve_chat, COUNT, ACCESS_KEY},
    {"POST", "/v1beta/models/*", serve_gemini, GEMINI, ACCESS_KEY},
    {"GET HEAD", "/v1beta/models", serve_models, GEMINI, ACCESS_KEY},
    {"GET HEAD", "/v1beta/models/*", serve_model, GEMINI, ACCESS_KEY},
    {"POST", "/models/*", serve_gemini, GEMINI, ACCESS_KEY},
    {"GET HEAD", "/models", serve_models, OPENAI, ACCESS_KEY},
    {"GET HEAD", "/models/*", serve_model, OPENAI, ACCESS_KEY},
    {"GET HEAD", "/chatmux/streams/*", serve_stream, OPENAI, ACCESS_KEY},
    {"DELETE", "/chatmux/streams/*", serve_stream_cancel, OPENAI, ACCESS_KEY},
    {"GET HEAD", "/healthz", serve_healthz, OPENAI, ACCESS_ALL},
    {"GET HEAD", "/readyz", serve_readyz, OPENAI, ACCESS_ALL},
    {"GET HEAD", "/metrics", serve_metrics, OPENAI, ACCESS_PAGE},
    {"HEAD", "/api/hello", serve_root, OPENAI, ACCESS_ALL},
    {"GET HEAD", "/", serve_root, OPENAI, ACCESS_ALL},
};
const size_t routes_n = CM_COUNT(routes);

struct cm_str route_tidy(struct cm_arena *arena, struct cm_str path)
{
    char *out = cm_arena_alloc(arena, path.n + 1);
    size_t n = 0;

    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] != '/' || n == 0 || out[n - 1] != '/')
            out[n++] = path.p[i];
    if (n > 1 && out[n - 1] == '/')
        n--;
    return cm_str(out, n);
}

bool route_strip(struct cm_str *path, struct cm_str prefix)
{
    if (prefix.n == 0 || !cm_str_starts(*path, prefix) ||
        (path->n > prefix.n && path->p[prefix.n] != '/'))
        return false;
    *path = path->n == prefix.n ? CM_S("/") : cm_str_from(*path, prefix.n);
    return true;
}

bool route_lists_method(const char *methods, struct cm_str method)
{
    struct cm_str rest = cm_str_of(methods);

    while (rest.n > 0)
        if (cm_str_eq(cm_str_cut(&rest, ' '), method))
            return true;
    return false;
}

static bool matches(const struct route *r, struct cm_str path, struct cm_str *rest)
{
    struct cm_str pattern = cm_str_of(r->path);

    if (!cm_str_ends(pattern, CM_S("*")))
        return cm_str_eq(pattern, path);
    pattern.n--;
    if (!cm_str_starts(path, pattern) || path.n == pattern.n)
        return false;
    *rest = cm_str_from(path, pattern.n);
    return true;
}

struct cm_str route_decoded(struct cm_arena *arena, struct cm_str text, bool plus)
{
    struct cm_buf out = {0};
    struct cm_str s = text;

    if (cm_percent_decode(&out, text, plus) == 0)
        s = cm_arena_str(arena, cm_buf_str(&out));
    cm_buf_clear(&out);
    return s;
}

static void allow_add(struct cm_arena *arena, struct cm_str *allow, const char *methods)
{
    struct cm_str rest = cm_str_of(methods);

    while (rest.n > 0) {
        struct cm_str method = cm_str_cut(&rest, ' ');

        *allow = cm_arena_printf(arena, CM_PRI "%s" CM_PRI, CM_ARG(*allow), allow->n ? ", " : "",
                                 CM_ARG(method));
    }
}

struct cm_str route_bare(struct cm_arena *arena, struct cm_str prefix, struct cm_str path)
{
    struct cm_str bare = cm_str_has(path, CM_S("//")) || cm_str_ends(path, CM_S("/"))
                             ? route_tidy(arena, path)
                             : path;

    bool beta = false, again = true;

    route_strip(&bare, prefix);
    while (again) { /* clients append their version to a base URL that has one already */
        again = route_strip(&bare, CM_S("/v1beta")) || route_strip(&bare, CM_S("/v1alpha"));
        beta |= again;
        again |= route_strip(&bare, CM_S("/v1"));
    }
    return beta ? cm_arena_printf(arena, "/v1beta" CM_PRI, CM_ARG(bare)) : bare;
}

enum route_found route_find(struct cm_arena *arena, struct cm_str prefix, struct cm_str method,
                            struct cm_str path, const struct route **out, struct cm_str *rest,
                            struct cm_str *allow)
{
    struct cm_str wanted = route_bare(arena, prefix, path);
    enum route_found found = ROUTE_NONE;

    *allow = *rest = CM_STR_NONE;
    for (size_t i = 0; i < routes_n; i++) {
        struct cm_str tail = CM_STR_NONE;

        if (!matches(&routes[i], wanted, &tail))
            continue;
        if (!route_lists_method(routes[i].methods, method)) {
            allow_add(arena, allow, routes[i].methods);
            found = ROUTE_METHOD;
            continue;
        }
        *out = &routes[i];
        *rest = route_decoded(arena, tail, false);
        return ROUTE_OK;
    }
    return found;
}
