/* A request for tests of surfaces: parsed into `chat`, which lives until the test's end. */
#ifndef UNIT_SURFACE_CHAT_H
#define UNIT_SURFACE_CHAT_H

#include "chatmux/surface/surface.h"
#include "unit.h"

static struct cm_arena arena;
static struct cm_chat chat;

static inline void setup(void)
{
    chat = (struct cm_chat){.arena = &arena};
}

static inline void teardown(void)
{
    cm_arena_clear(&arena);
}

static inline void parse_as(const struct cm_surface *surface, const char *body)
{
    struct cm_err err = {0};

    ck_assert_msg(surface->parse(&chat, cm_str_of(body), &err) == 0, "%s (%s)", err.msg, err.param);
}

#endif
