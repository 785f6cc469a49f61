/* What the fuzzers of request bodies have in common: any bytes are refused with a sound error or become a request that `check` finds sound. */
#ifndef FUZZ_REQUEST_H
#define FUZZ_REQUEST_H

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "chatmux/codec/json.h"
#include "chatmux/surface/surface.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte, so that a sanitizer sees a slice that points astray. */
static inline void check_text(struct cm_str s)
{
    CM_ASSERT(cm_utf8_valid(s) == s.n);
}

/* "" = there is none */
static inline void check_json(struct cm_str s)
{
    yyjson_doc *doc;

    if (s.n == 0)
        return;
    doc = cm_json_parse(s, &cm_json_limits_request, NULL);
    CM_ASSERT(doc);
    yyjson_doc_free(doc);
}

static inline void check_error(const struct cm_surface *surface, const struct cm_err *err)
{
    struct cm_buf body = {0};

    CM_ASSERT(err->cls == CM_ERR_BAD_REQUEST && err->msg[0] != '\0');
    surface->error_body(err, &body);
    CM_ASSERT(body.n > 0);
    check_json(cm_buf_str(&body));
    cm_buf_clear(&body);
}

/* `chat` has what a request brings beside its body; `errors` is the surface whose form a refusal takes. */
static inline void check_request(const struct cm_surface *surface, const struct cm_surface *errors,
                                 struct cm_chat *chat, struct cm_str body,
                                 void (*check)(struct cm_chat *chat))
{
    struct cm_arena arena = {0};
    struct cm_err err = {0};

    chat->arena = &arena;
    if (surface->parse(chat, body, &err))
        check_error(errors, &err);
    else
        check(chat);
    if (chat->untranslatable.cls != CM_ERR_NONE)
        check_error(errors, &chat->untranslatable);
    cm_arena_clear(&arena);
}

#endif
