/* What the tests of provider/hix have in common: bodies of its platform, and what was sent. */
#ifndef CHATMUX_TEST_HIX_WORDS_H
#define CHATMUX_TEST_HIX_WORDS_H

#include "fake_run.h"

#include "chatmux/codec/json.h"

#define BODY(model, text)                                                                          \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"
#define CREATED "[{\"result\":{\"data\":{\"json\":{\"id\":\"chat-1\"}}}}]"
#define STREAM "text/event-stream; charset=utf-8"
#define SAYS(text) "data: {\"content\":\"" text "\"}\n\ndata: [DONE]\n\n"
#define USAGE                                                                                      \
    "[{\"result\":{\"data\":{\"json\":{\"usageList\":[{\"total_count\":100,\"use_count\":40}],"    \
    "\"isActiveSub\":false}}}}]"
#define DELETED "[{\"result\":{\"data\":{\"json\":null}}}]"

#define SIGN(key) "{\"sign\":\"https://b.s3.r.amazonaws.com/" key "?X-Amz-Signature=s&x=1\"}"

#define AUDIO                                                                                       \
    "{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AAAA\"," \
    "\"format\":\"wav\"}}]}"
#define FILE_ID "{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}}]}"
#define PNG                                                                                        \
    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,iVBORw0KGgo=\"}}"
#define PDF                                                                                        \
    "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":\"data:application/"        \
    "pdf;base64,JVBERi0x\"}}"
#define TEXT(text) "{\"type\":\"text\",\"text\":\"" text "\"}"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
#define ASK "{\"role\":\"user\",\"content\":\"x\"}"

/* A header of a request, and the member of the JSON that was sent; "" = none. */
static inline const char *header_of(struct fake_result *r, size_t request, const char *name)
{
    const struct fake_request *q = &r->requests[request];

    return cm_arena_z(&r->arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

static inline const char *sent_in(struct fake_result *r, size_t request, const char *member)
{
    return cm_arena_z(&r->arena, cm_json_member(r->requests[request].body, cm_str_of(member)));
}

#endif
