/* Model names: which targets serve a name (contract, section 3 "Model names"). Loop thread only;
 * part of an immutable snapshot but for what upstreams list. */
#ifndef CHATMUX_CHAT_MODELS_H
#define CHATMUX_CHAT_MODELS_H

#include "chatmux/base/arena.h"
#include "chatmux/base/config.h"
#include "chatmux/base/map.h"

/* What an adapter or the operator says of one model. */
struct cm_model_row {
    struct cm_str name;                        /* what clients write */
    struct cm_str upstream;                    /* what the provider wants to read; empty = name */
    unsigned features;                         /* CM_MODEL_… */
    int64_t context_tokens, max_output_tokens; /* 0 = not known */
    int64_t number;                            /* private to the adapter, e.g. a bot id */
    int64_t cost;   /* of one answer, in the platform's credits; 0 = nothing, or not known */
    unsigned purse; /* which kind of credit pays for it, where a platform has several */
};
#define CM_MODEL_SEARCH 1u    /* "-search" switches it on */
#define CM_MODEL_THINKING 2u  /* "-thinking" */
#define CM_MODEL_IMAGE_OUT 4u /* makes images */
#define CM_MODEL_NEWS 8u      /* "-news": a search among news */
#define CM_MODEL_ACADEMIC 16u /* "-academic": a search among papers */
#define CM_MODEL_SILENT 32u   /* "-silent": neither reasoning nor citations are told */
#define CM_MODEL_FOLD 64u /* "-fold": reasoning stands in the text, in a block that pages fold */

/* One provider's offer. */
struct cm_offer {
    struct cm_str provider; /* name */
    struct cm_str owner;    /* "owned_by" in lists: the adapter's type */
    int64_t priority, weight;
    const struct cm_model_row *rows; /* live as long as the catalogue */
    size_t n_rows;
    bool any;              /* takes names that are in no list ("*", or its list is not known yet) */
    unsigned any_features; /* what -search and -thinking mean on such names */
};

struct cm_target {
    size_t provider;                /* index of the offer */
    struct cm_str model;            /* for the upstream */
    const struct cm_model_row *row; /* NULL for a name taken through `any` */
    /* of a route: priority is the place in its list, the same for all unless its strategy is
     * priority */
    int64_t priority, weight;
    bool search, thinking;             /* modifiers that were in the name */
    bool news, academic;               /* kinds of search; `search` is set as well */
    bool silent, fold;                 /* what becomes of reasoning */
    const struct cm_model_conf *route; /* whose strategy counts; NULL = the name is no route */
    struct cm_str
        overrides; /* of requests that go to it: "temperature=0.2 …", as cm_chat_override() reads it */
};

struct cm_models;

/* Offers and routes are borrowed. Complaints (a route that names an unknown provider …) go to
 * `problems`. NULL when there are any. */
struct cm_models *cm_models_new(const struct cm_offer *offers, size_t n_offers,
                                const struct cm_model_conf *routes, size_t n_routes,
                                struct cm_problems *problems);
void cm_models_free(struct cm_models *m);

/* Targets of a name in the order of priority; weights are the caller's business. 0 and
 * CM_ERR_NOT_FOUND (model_not_found, with the nearest known name) when nobody serves it. */
size_t cm_models_find(const struct cm_models *m, struct cm_arena *arena, struct cm_str name,
                      struct cm_target **out, struct cm_err *err);

/* The route's targets for prompts that are too long for its others, in their order; 0 = none. `route` NULL is fine. */
size_t cm_models_larger(const struct cm_models *m, struct cm_arena *arena,
                        const struct cm_model_conf *route, struct cm_target **out);

struct cm_model_listed {
    struct cm_str id, owner;
    const struct cm_model_row *row; /* NULL for a route */
};
/* Every route and every name of an offer, sorted, once each; spellings with a provider in front or a
 * modifier behind are not told. */
size_t cm_models_list(const struct cm_models *m, struct cm_arena *arena,
                      struct cm_model_listed **out);

#endif
