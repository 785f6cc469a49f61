/* The members that a dialect's readers know below the top level of a body, so that those nobody reads can be told as dropped. The body is looked through
 * only when a provider is translated for: what is relayed pays nothing. Loop thread only. */
#ifndef SURFACE_KNOWN_INT_H
#define SURFACE_KNOWN_INT_H

#include "chatmux/base/mem.h"
#include "chatmux/chat/request.h"
#include "chatmux/codec/json.h"

struct cm_known;
struct cm_known_member {
    struct cm_str name; /* of a dialect with two spellings: in camelCase */
    const struct cm_known *
        below; /* of its object, or of each object in its array; NULL: whatever it holds is not looked into */
};
/* What an object may have. Members that change nothing here (what SDKs add to the answers that they send back) are in it, too. */
struct cm_known {
    const struct cm_known_member *members;
    size_t n;
    /* The members are values of the object's `type`, and `below` is what objects of that type may have; without a type it is the first. A type that is
     * not there is told or refused where it is read. */
    bool by_type;
};

#define CM_KNOWN_MEMBER(name) {CM_S_INIT(#name), NULL}
#define CM_KNOWN_BELOW(name, known) {CM_S_INIT(#name), &(known)}
#define CM_KNOWN(id, ...)                                                                          \
    static const struct cm_known_member id##_members[] = {__VA_ARGS__};                            \
    static const struct cm_known id = {id##_members, CM_COUNT(id##_members), false}
#define CM_KNOWN_TOP(id, ...)                                                                      \
    static const struct cm_known_member id##_members[] = {__VA_ARGS__};                            \
    const struct cm_known id = {id##_members, CM_COUNT(id##_members), false}
#define CM_KNOWN_BY_TYPE(id, ...)                                                                  \
    static const struct cm_known_member id##_types[] = {__VA_ARGS__};                              \
    static const struct cm_known id = {id##_types, CM_COUNT(id##_types), true}

/* From now on the chat's body can be looked through (cm_chat_find_unread()). `root` lives as long as the chat, whose dialect and task are known. Of what
 * stands directly in it, only members with something below count: cm_field_drop_others() knows the others. */
void cm_known_note(struct cm_chat *chat, yyjson_val *root);

/* One file for each dialect: openai_known.c … */
extern const struct cm_known cm_known_openai_chat, cm_known_openai_completion, cm_known_anthropic,
    cm_known_gemini, cm_known_gemini_embed, cm_known_responses;

#endif
