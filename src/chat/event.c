/* The canonical answer: what an event means, and collecting a whole answer from its events. */
#include "chatmux/chat/event.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

const char *cm_finish_name(enum cm_finish f)
{
    static const char *const names[] = {
#define X(name, text) text,
        CM_FINISHES(X)
#undef X
    };

    CM_ASSERT((size_t)f < CM_COUNT(names));
    return names[f];
}

const char *cm_event_name(enum cm_event_kind kind)
{
    static const char *const names[] = {
#define X(name) #name,
        CM_EVENT_KINDS(X)
#undef X
    };

    CM_ASSERT((size_t)kind < CM_COUNT(names));
    return names[kind];
}

struct cm_event cm_event_copy(struct cm_arena *arena, const struct cm_event *ev)
{
    struct cm_event copy = *ev;
    struct cm_str *const texts[] = {&copy.text, &copy.id,         &copy.name,    &copy.url,
                                    &copy.data, &copy.media_type, &copy.logprobs};
    struct cm_header *headers = CM_ARENA_ARRAY(arena, struct cm_header, ev->n_headers);
    struct cm_usage *usage;
    struct cm_limits *limits;

    for (size_t i = 0; i < CM_COUNT(texts); i++)
        *texts[i] = cm_arena_str(arena, *texts[i]);
    for (size_t i = 0; i < ev->n_headers; i++)
        headers[i] = (struct cm_header){cm_arena_str(arena, ev->headers[i].name),
                                        cm_arena_str(arena, ev->headers[i].value)};
    copy.headers = headers;
    if (ev->usage) {
        usage = CM_ARENA_NEW(arena, struct cm_usage);
        *usage = *ev->usage;
        copy.usage = usage;
    }
    if (ev->limits) {
        limits = CM_ARENA_NEW(arena, struct cm_limits);
        *limits = *ev->limits;
        copy.limits = limits;
    }
    return copy;
}

bool cm_event_semantic(const struct cm_event *ev)
{
    switch (ev->kind) {
    case CM_EVENT_TEXT:
    case CM_EVENT_REASONING:
    case CM_EVENT_REFUSAL:
    case CM_EVENT_TOOL_ARGS:
        return ev->text.n > 0;
    case CM_EVENT_TOOL_CALL:
    case CM_EVENT_IMAGE:
    case CM_EVENT_CITATION:
    case CM_EVENT_EMBEDDING:
        return true;
    case CM_EVENT_RELAY:
        return ev->semantic;
    case CM_EVENT_SIGNATURE:
    case CM_EVENT_REDACTED:
    case CM_EVENT_USAGE:
    case CM_EVENT_SERVED:
    case CM_EVENT_CONVERSATION:
    case CM_EVENT_FINISH:
    case CM_EVENT_HEAD:
        break;
    }
    return false;
}

void cm_event_put_markdown(const struct cm_event *image, struct cm_buf *out)
{
    static const char hex[] = "0123456789ABCDEF";

    cm_buf_append(out, cm_str_starts(image->media_type, CM_S("video/")) ? CM_S("[") : CM_S("!["));
    for (size_t i = 0; i < image->text.n; i++) {
        const char c = image->text.p[i];

        if (c == '[' || c == ']' || c == '\\')
            cm_buf_put(out, '\\');
        cm_buf_put(out, c == '\n' || c == '\r' ? ' ' : c);
    }
    cm_buf_append(out, CM_S("]("));
    if (image->data.n > 0) {
        cm_buf_printf(out, "data:" CM_PRI ";base64,", CM_ARG(image->media_type));
        cm_buf_append(out, image->data);
    }
    for (size_t i = 0; i < image->url.n && image->data.n == 0; i++) {
        const unsigned char c = (unsigned char)image->url.p[i];

        /* these would end the address, or the line */
        if (c <= ' ' || c == '(' || c == ')' || c == '<' || c == '>' || c == 0x7f) {
            const char escape[3] = {'%', hex[c >> 4], hex[c & 0xf]};

            cm_buf_append(out, cm_str(escape, sizeof(escape)));
        } else {
            cm_buf_put(out, (char)c);
        }
    }
    cm_buf_put(out, ')');
}

void cm_event_image(const struct cm_event *ev, struct cm_image_acc *out)
{
    struct cm_str data = ev->url, head;

    *out = (struct cm_image_acc){
        .url = ev->url, .data = ev->data, .media_type = ev->media_type, .prompt = ev->name};
    if (ev->data.n > 0 || !cm_str_starts_nocase(ev->url, CM_S("data:")))
        return;
    head = cm_str_cut(&data, ',');
    if (!cm_str_ends(head, CM_S(";base64")))
        return; /* written out in another way: goes on as it is */
    head = cm_str_from(head, sizeof("data:") - 1);
    out->media_type = cm_str_cut(&head, ';');
    out->data = data;
    out->url = CM_STR_NONE;
}

/* Adapters number choices, calls and vectors without gaps; these bound what an upstream's own numbers can
 * make us allocate. */
#define CHOICES_MAX 128
#define CALLS_MAX 1024
#define VECTORS_MAX 4096
#define ITEM_OVERHEAD 64 /* bytes counted for a call or a citation besides its text */

static struct cm_choice_acc *choice_at(struct cm_answer *a, int index)
{
    const size_t want = (size_t)index + 1;

    if (want > a->n_choices) {
        a->choices = cm_realloc(a->choices, want * sizeof(*a->choices));
        memset(a->choices + a->n_choices, 0, (want - a->n_choices) * sizeof(*a->choices));
        a->n_choices = want;
    }
    return &a->choices[index];
}

static struct cm_call_acc *call_at(struct cm_choice_acc *c, int index)
{
    while (c->n_calls <= (size_t)index) {
        if (c->n_calls == c->cap_calls) {
            c->cap_calls = c->cap_calls ? c->cap_calls * 2 : 4;
            c->calls = cm_realloc(c->calls, c->cap_calls * sizeof(*c->calls));
        }
        c->calls[c->n_calls++] = (struct cm_call_acc){0};
    }
    return &c->calls[index];
}

static struct cm_str own(struct cm_str s)
{
    return cm_str(cm_str_dup(s), s.n);
}

static void own_free(struct cm_str s)
{
    free((char *)(uintptr_t)s.p);
}

static void begin_call(struct cm_choice_acc *c, const struct cm_event *ev)
{
    struct cm_call_acc *call = call_at(c, ev->index);

    own_free(call->id);
    own_free(call->name);
    call->id = own(ev->id);
    call->name = own(ev->name);
    cm_buf_append(&call->args, ev->text);
}

static void add_citation(struct cm_choice_acc *c, const struct cm_event *ev)
{
    if (c->n_citations == c->cap_citations) {
        c->cap_citations = c->cap_citations ? c->cap_citations * 2 : 4;
        c->citations = cm_realloc(c->citations, c->cap_citations * sizeof(*c->citations));
    }
    c->citations[c->n_citations++] = (struct cm_citation){
        own(ev->url), own(ev->name), own(ev->text), .from = ev->from, .to = ev->to};
}

/* The brackets of each piece's array go. */
static void add_logprobs(struct cm_choice_acc *c, struct cm_str array)
{
    struct cm_str entries;

    if (array.n < 2)
        return;
    entries = cm_str_trim(cm_str(array.p + 1, array.n - 2));
    if (entries.n > 0 && c->logprobs.n > 0)
        cm_buf_put(&c->logprobs, ',');
    cm_buf_append(&c->logprobs, entries);
}

static void add_image(struct cm_answer *a, const struct cm_event *ev)
{
    struct cm_image_acc image;

    if (a->n_images == a->cap_images) {
        a->cap_images = a->cap_images ? a->cap_images * 2 : 4;
        a->images = cm_realloc(a->images, a->cap_images * sizeof(*a->images));
    }
    cm_event_image(ev, &image);
    a->images[a->n_images++] = (struct cm_image_acc){own(image.url), own(image.data),
                                                     own(image.media_type), own(image.prompt)};
}

static void add_vector(struct cm_answer *a, const struct cm_event *ev)
{
    const size_t want = (size_t)ev->index + 1;

    if (want > a->n_vectors) {
        a->vectors = cm_realloc(a->vectors, want * sizeof(*a->vectors));
        memset(a->vectors + a->n_vectors, 0, (want - a->n_vectors) * sizeof(*a->vectors));
        a->n_vectors = want;
    }
    cm_buf_append(&a->vectors[ev->index], ev->data);
}

int cm_answer_add(struct cm_answer *a, const struct cm_event *ev, struct cm_err *err)
{
    const size_t bytes = ev->text.n + ev->url.n + ev->id.n + ev->name.n + ev->data.n +
                         ev->media_type.n + ev->logprobs.n;
    struct cm_choice_acc *c;

    if (ev->kind == CM_EVENT_USAGE) {
        a->usage = *ev->usage;
        return 0;
    }
    if (ev->choice < 0 || ev->choice >= CHOICES_MAX || ev->index < 0 ||
        ev->index >= (ev->kind == CM_EVENT_EMBEDDING ? VECTORS_MAX : CALLS_MAX))
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                       "the upstream numbered a part of its answer %d/%d", ev->choice, ev->index);
    if (bytes + ITEM_OVERHEAD > CM_ANSWER_MAX - a->bytes)
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN, "the answer has more than %d MiB",
                       CM_ANSWER_MAX / (1024 * 1024));
    c = choice_at(a, ev->choice);
    switch (ev->kind) {
    case CM_EVENT_TEXT:
        cm_buf_append(&c->text, ev->text);
        add_logprobs(c, ev->logprobs);
        break;
    case CM_EVENT_REASONING:
        cm_buf_append(&c->reasoning, ev->text);
        break;
    case CM_EVENT_REFUSAL:
        cm_buf_append(&c->refusal, ev->text);
        break;
    case CM_EVENT_TOOL_CALL:
        begin_call(c, ev);
        a->bytes += ITEM_OVERHEAD;
        break;
    case CM_EVENT_TOOL_ARGS:
        cm_buf_append(&call_at(c, ev->index)->args, ev->text);
        break;
    case CM_EVENT_IMAGE:
        if (a->keep_images)
            add_image(a, ev);
        else
            cm_event_put_markdown(ev, &c->text);
        a->bytes += ITEM_OVERHEAD;
        break;
    case CM_EVENT_CITATION:
        add_citation(c, ev);
        a->bytes += ITEM_OVERHEAD;
        break;
    case CM_EVENT_EMBEDDING:
        add_vector(a, ev);
        a->bytes += ITEM_OVERHEAD;
        break;
    case CM_EVENT_FINISH:
        c->finish = ev->finish;
        own_free(c->finish_text);
        c->finish_text = own(ev->text);
        break;
    case CM_EVENT_SERVED:
        own_free(a->served);
        a->served = own(ev->name);
        break;
    case CM_EVENT_CONVERSATION:
        own_free(a->conversation);
        a->conversation = own(ev->id);
        break;
    case CM_EVENT_SIGNATURE:
    case CM_EVENT_REDACTED:
    case CM_EVENT_USAGE:
    case CM_EVENT_HEAD:
    case CM_EVENT_RELAY:
        break;
    }
    a->bytes += bytes;
    return 0;
}

bool cm_answer_has_vectors(const struct cm_answer *a, size_t n)
{
    for (size_t i = 0; i < a->n_vectors; i++)
        if (a->vectors[i].n == 0)
            return false;
    return a->n_vectors == n;
}

static void choice_clear(struct cm_choice_acc *c)
{
    cm_buf_clear(&c->text);
    cm_buf_clear(&c->reasoning);
    cm_buf_clear(&c->refusal);
    cm_buf_clear(&c->logprobs);
    own_free(c->finish_text);
    for (size_t i = 0; i < c->n_calls; i++) {
        own_free(c->calls[i].id);
        own_free(c->calls[i].name);
        cm_buf_clear(&c->calls[i].args);
    }
    free(c->calls);
    for (size_t i = 0; i < c->n_citations; i++) {
        own_free(c->citations[i].url);
        own_free(c->citations[i].title);
        own_free(c->citations[i].cited);
    }
    free(c->citations);
}

void cm_answer_clear(struct cm_answer *a)
{
    for (size_t i = 0; i < a->n_choices; i++)
        choice_clear(&a->choices[i]);
    free(a->choices);
    for (size_t i = 0; i < a->n_images; i++) {
        own_free(a->images[i].url);
        own_free(a->images[i].data);
        own_free(a->images[i].media_type);
        own_free(a->images[i].prompt);
    }
    free(a->images);
    own_free(a->served);
    own_free(a->conversation);
    for (size_t i = 0; i < a->n_vectors; i++)
        cm_buf_clear(&a->vectors[i]);
    free(a->vectors);
    *a = (struct cm_answer){.keep_images = a->keep_images};
}
