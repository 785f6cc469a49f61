/* Every adapter, once: X(identifier). The name users write is in the adapter itself. */
#ifndef CHATMUX_PROVIDER_LIST_H
#define CHATMUX_PROVIDER_LIST_H

#include "chatmux/provider/provider.h"

#define CM_PROVIDER_LIST(X)                                                                        \
    X(openai)                                                                                      \
    X(demo)                                                                                        \
    X(hix)                                                                                         \
    X(deepseek)                                                                                    \
    X(alexsidebar)                                                                                 \
    X(gemini)                                                                                      \
    X(genspark)                                                                                    \
    X(anthropic)

#define X(id) extern const struct cm_provider cm_provider_##id;
CM_PROVIDER_LIST(X)
#undef X

#endif
