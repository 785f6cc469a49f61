/* What two dialects can both say survives the way there and back.
 *
 * A random conversation is written by the adapter of one dialect, read by that dialect's surface, written by the adapter of the other dialect, read by the
 * other surface, and so back. All four chats must say the same. Each case has a seed of its own, which is printed when it fails: SEED repeats that one,
 * CASES makes the run longer. */
#include "unit.h"
#include "wire.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/codec/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What not every dialect has words for. Nothing but what both have is said. */
enum can {
    SEED = 1 << 0,
    PENALTIES = 1 << 1,
    CHOICES = 1 << 2,
    USER = 1 << 3,
    PARALLEL = 1 << 4,
    AUDIO = 1 << 5,
    ANY_JSON = 1 << 6,
    TOP_K = 1 << 7,
    FAILED = 1 << 8,  /* a result that is an error */
    NAMES = 1 << 9,   /* of files */
    BOTH = 1 << 10,   /* temperature and top_p */
    HOT = 1 << 11,    /* temperature above 1 */
    DETAIL = 1 << 12, /* of pictures */
    STRICT = 1 << 13, /* of tools */
    TYPED = 1 << 14,  /* schemas beside tools */
    IDS = 1 << 15     /* of calls, as they were */
};
static const unsigned can[WIRE_N] = {
    [WIRE_openai] = SEED | PENALTIES | CHOICES | USER | PARALLEL | AUDIO | ANY_JSON | NAMES | BOTH |
                    HOT | DETAIL | STRICT | TYPED | IDS,
    [WIRE_anthropic] = USER | PARALLEL | TOP_K | FAILED | NAMES | STRICT | TYPED | IDS,
    [WIRE_gemini] = SEED | PENALTIES | CHOICES | AUDIO | ANY_JSON | TOP_K | FAILED | BOTH | HOT,
};

/* ---- a conversation ---- */

struct maker {
    struct cm_rng rng;
    struct cm_arena *arena;
    unsigned can;
    struct cm_msg *msgs;
    size_t n_msgs;
    unsigned serial;
    bool has_calls;
};

static size_t below(struct maker *m, size_t n)
{
    return (size_t)cm_rng_below(&m->rng, n);
}

static bool one_in(struct maker *m, size_t n)
{
    return below(m, n) == 0;
}

static bool may(struct maker *m, unsigned what, size_t n)
{
    return (m->can & what) && one_in(m, n);
}

/* With something to see at both ends: what is blank is dropped, and ends may be trimmed. */
static struct cm_str text(struct maker *m)
{
    static const char *const bits[] = {"a",  "é",  "世", "🌍",   "\"", "\\", "\n",       " ",
                                       "\t", "{}", "b",  "\x01", "/",  "'",  "</think>", "é"};
    struct cm_buf out = {0};
    const size_t n = below(m, 12);

    cm_buf_printf(&out, "t%u", m->serial++);
    for (size_t i = 0; i < n; i++)
        cm_buf_append(&out, cm_str_of(bits[below(m, CM_COUNT(bits))]));
    cm_buf_put(&out, '.');
    return cm_buf_settle(&out, m->arena);
}

static struct cm_str word(struct maker *m, const char *prefix)
{
    static const char alphabet[] = "abcXYZ019_-";
    struct cm_buf out = {0};

    cm_buf_printf(&out, "%s%u", prefix, m->serial++);
    for (size_t i = below(m, 20); i > 0; i--)
        cm_buf_put(&out, alphabet[below(m, sizeof(alphabet) - 1)]);
    return cm_buf_settle(&out, m->arena);
}

static struct cm_str base64(struct maker *m)
{
    static const char *const some[] = {"iVBORw0KGgo=", "AAAA", "/+8=", "UklGRg=="};

    return cm_str_of(some[below(m, CM_COUNT(some))]);
}

static void put_value(struct maker *m, struct cm_buf *out, unsigned depth)
{
    switch (below(m, depth > 2 ? 5 : 7)) {
    case 0:
        cm_json_put_int(out, (int64_t)cm_rng_next(&m->rng) >> 20);
        break;
    case 1:
        cm_buf_append(out, CM_S("-0.125"));
        break;
    case 2:
        cm_buf_append(out, one_in(m, 2) ? CM_S("true") : CM_S("null"));
        break;
    case 3:
    case 4:
        cm_json_put_str(out, text(m));
        break;
    case 5:
        cm_buf_put(out, '[');
        for (size_t i = 0, n = below(m, 3); i < n; i++) {
            cm_buf_append(out, i > 0 ? CM_S(",") : CM_S(""));
            put_value(m, out, depth + 1);
        }
        cm_buf_put(out, ']');
        break;
    default:
        cm_buf_put(out, '{');
        for (size_t i = 0, n = below(m, 3); i < n; i++) {
            cm_buf_append(out, i > 0 ? CM_S(",") : CM_S(""));
            cm_json_put_str(out, word(m, "k"));
            cm_buf_put(out, ':');
            put_value(m, out, depth + 1);
        }
        cm_buf_put(out, '}');
    }
}

/* {"k1": …} or {} */
static struct cm_str arguments(struct maker *m)
{
    struct cm_buf out = {0};
    const size_t n = below(m, 4);

    cm_buf_put(&out, '{');
    for (size_t i = 0; i < n; i++) {
        cm_buf_append(&out, i > 0 ? CM_S(",") : CM_S(""));
        cm_json_put_str(&out, word(m, "k"));
        cm_buf_put(&out, ':');
        put_value(m, &out, 0);
    }
    cm_buf_put(&out, '}');
    return cm_buf_settle(&out, m->arena);
}

/* What every platform takes as it is, also as strict. */
static void put_schema(struct maker *m, struct cm_buf *out, unsigned depth)
{
    const size_t n = 1 + below(m, 3);

    switch (depth == 0 ? 9 : below(m, depth > 2 ? 4 : 6)) {
    case 0:
        cm_buf_append(out, CM_S("{\"type\":\"integer\"}"));
        break;
    case 1:
        cm_buf_append(out, CM_S("{\"type\":\"string\",\"description\":"));
        cm_json_put_str(out, text(m));
        cm_buf_put(out, '}');
        break;
    case 2:
        cm_buf_append(out, CM_S("{\"type\":\"string\",\"enum\":[\"a\",\"b é\"]}"));
        break;
    case 3:
        cm_buf_append(out, CM_S("{\"anyOf\":[{\"type\":\"boolean\"},{\"type\":\"null\"}]}"));
        break;
    case 4:
        cm_buf_append(out, CM_S("{\"type\":\"array\",\"items\":"));
        put_schema(m, out, depth + 1);
        cm_buf_put(out, '}');
        break;
    default:
        cm_buf_append(out, CM_S("{\"type\":\"object\",\"properties\":{"));
        for (size_t i = 0; i < n; i++) {
            cm_buf_printf(out, "%s\"p%zu\":", i > 0 ? "," : "", i);
            put_schema(m, out, depth + 1);
        }
        cm_buf_append(out, CM_S("},\"required\":["));
        for (size_t i = 0; i < n; i++)
            cm_buf_printf(out, "%s\"p%zu\"", i > 0 ? "," : "", i);
        cm_buf_append(out, CM_S("],\"additionalProperties\":false}"));
    }
}

static struct cm_str schema(struct maker *m)
{
    struct cm_buf out = {0};

    put_schema(m, &out, 0);
    return cm_buf_settle(&out, m->arena);
}

static struct cm_msg *push_msg(struct maker *m, enum cm_role role, size_t max_parts)
{
    struct cm_msg *msg = &m->msgs[m->n_msgs++];

    *msg = (struct cm_msg){.role = role};
    msg->parts = CM_ARENA_ARRAY(m->arena, struct cm_part, max_parts);
    return msg;
}

static struct cm_part *push_part(struct cm_msg *msg, enum cm_part_kind kind)
{
    struct cm_part *part = &msg->parts[msg->n_parts++];

    part->kind = kind;
    return part;
}

static void say_user(struct maker *m)
{
    const size_t n = 1 + below(m, 3);
    struct cm_msg *msg = push_msg(m, CM_ROLE_USER, n + 1);
    struct cm_part *part;

    push_part(msg, CM_PART_TEXT)->text = text(m);
    for (size_t i = 1; i < n; i++) {
        if (one_in(m, 2)) {
            push_part(msg, CM_PART_TEXT)->text = text(m);
        } else if (may(m, AUDIO, 3)) {
            part = push_part(msg, CM_PART_AUDIO);
            part->data = base64(m);
            part->media_type = one_in(m, 2) ? CM_S("wav") : CM_S("mp3");
        } else if (one_in(m, 3)) {
            part = push_part(msg, CM_PART_FILE);
            part->data = base64(m);
            part->media_type = CM_S("application/pdf");
            part->name = m->can & NAMES ? word(m, "file") : CM_S("document.pdf");
        } else {
            part = push_part(msg, CM_PART_IMAGE);
            part->data = base64(m);
            part->media_type = one_in(m, 2) ? CM_S("image/png") : CM_S("image/jpeg");
            if (may(m, DETAIL, 2))
                part->detail = one_in(m, 2) ? CM_S("low") : CM_S("high");
        }
    }
}

/* A turn of the assistant, and the results when it called something. */
static void say_assistant(struct maker *m, const struct cm_chat *chat)
{
    const size_t n = chat->n_tools > 0 && one_in(m, 2) ? 1 + below(m, 3) : 0;
    struct cm_msg *msg = push_msg(m, CM_ROLE_ASSISTANT, n + 1);
    struct cm_part *part;

    if (n == 0 || one_in(m, 2))
        push_part(msg, CM_PART_TEXT)->text = text(m);
    for (size_t i = 0; i < n; i++) {
        part = push_part(msg, CM_PART_TOOL_CALL);
        part->id = word(m, "call_");
        part->name = chat->tools[below(m, chat->n_tools)].name;
        part->text = arguments(m);
        m->has_calls = true;
    }
    for (size_t i = 0; i < n; i++) {
        const struct cm_part *call = &msg->parts[msg->n_parts - n + i];

        part = push_part(push_msg(m, CM_ROLE_TOOL, 1), CM_PART_TOOL_RESULT);
        part->id = call->id;
        part->name = call->name;
        part->text = one_in(m, 8) ? CM_S("") : one_in(m, 6) ? arguments(m) : text(m);
        part->failed = may(m, FAILED, 4);
    }
}

static void say_tools(struct maker *m, struct cm_chat *chat)
{
    chat->n_tools = 1 + below(m, 3);
    chat->tools = CM_ARENA_ARRAY(m->arena, struct cm_tool, chat->n_tools);
    for (size_t i = 0; i < chat->n_tools; i++) {
        chat->tools[i] = (struct cm_tool){
            .name = word(m, "f"), .parameters = schema(m), .strict = may(m, STRICT, 3) ? 1 : -1};
        if (one_in(m, 2))
            chat->tools[i].description = text(m);
    }
    chat->tool_choice = (enum cm_tool_choice)below(m, CM_TOOLS_NAMED + 1);
    if (chat->tool_choice == CM_TOOLS_NAMED)
        chat->tool_name = chat->tools[below(m, chat->n_tools)].name;
    if (may(m, PARALLEL, 3))
        chat->parallel_tool_calls = chat->tool_choice != CM_TOOLS_NONE ? 0 : -1;
}

static void say_sampling(struct maker *m, struct cm_chat *chat)
{
    if (one_in(m, 2))
        chat->temperature = (double)below(m, m->can & HOT ? 9 : 5) / 4;
    if (one_in(m, 2) && ((m->can & BOTH) || isnan(chat->temperature)))
        chat->top_p = (double)(1 + below(m, 4)) / 4;
    if (may(m, TOP_K, 3))
        chat->top_k = 1 + (int64_t)below(m, 100);
    if (may(m, PENALTIES, 3))
        chat->presence_penalty = (double)below(m, 8) / 4 - 1;
    if (may(m, PENALTIES, 3))
        chat->frequency_penalty = (double)below(m, 8) / 4 - 1;
    if ((chat->has_seed = may(m, SEED, 3)))
        chat->seed = (int64_t)below(m, INT32_MAX);
}

/* Thinking puts conditions on nearly everything else of Anthropic's, so it comes alone. */
static void say_thinking(struct maker *m, struct cm_chat *chat)
{
    chat->thinking = CM_THINKING_ON;
    chat->reasoning_effort = one_in(m, 2) ? CM_S("low") : CM_S("medium");
    chat->max_tokens = 10000 + (int64_t)below(m, 5000);
}

static struct cm_chat *conversation(struct maker *m)
{
    struct cm_chat *chat = CM_ARENA_NEW(m->arena, struct cm_chat);
    const size_t turns = below(m, 4);

    chat->arena = m->arena;
    cm_chat_begin(chat, CM_DIALECT_OPENAI_RESPONSES, CM_TASK_CHAT, CM_STR_NONE);
    chat->model = CM_S("m");
    m->msgs = CM_ARENA_ARRAY(m->arena, struct cm_msg, 24);
    chat->max_tokens = 1 + (int64_t)below(m, 4000);
    if (one_in(m, 2))
        say_tools(m, chat);
    if (one_in(m, 2))
        push_part(push_msg(m, CM_ROLE_SYSTEM, 1), CM_PART_TEXT)->text = text(m);
    say_user(m);
    for (size_t i = 0; i < turns; i++) {
        say_assistant(m, chat);
        if (m->msgs[m->n_msgs - 1].role != CM_ROLE_TOOL || one_in(m, 2))
            say_user(m);
    }
    chat->msgs = m->msgs;
    chat->n_msgs = m->n_msgs;
    if (one_in(m, 3)) {
        chat->n_stop = 1 + below(m, 4);
        chat->stop = CM_ARENA_ARRAY(m->arena, struct cm_str, chat->n_stop);
        for (size_t i = 0; i < chat->n_stop; i++)
            chat->stop[i] = text(m);
    }
    if (may(m, CHOICES, 4))
        chat->n = 1 + (int64_t)below(m, 8);
    if (may(m, USER, 3))
        chat->user = word(m, "user");
    if ((chat->n_tools == 0 || (m->can & TYPED)) && one_in(m, 4)) {
        chat->format = may(m, ANY_JSON, 2) ? CM_FORMAT_JSON : CM_FORMAT_SCHEMA;
        if (chat->format == CM_FORMAT_SCHEMA)
            chat->schema = schema(m), chat->schema_name = CM_S("output");
        else /* the word must occur, and is added where it does not */
            push_part(push_msg(m, CM_ROLE_USER, 1), CM_PART_TEXT)->text = CM_S("As JSON.");
        chat->n_msgs = m->n_msgs;
    }
    if (chat->n_tools == 0 && chat->format == CM_FORMAT_TEXT && one_in(m, 4))
        say_thinking(m, chat);
    else
        say_sampling(m, chat);
    chat->stream = one_in(m, 2);
    return chat;
}

/* ---- what a chat says, as a text ---- */

static void put_json(struct cm_buf *out, struct cm_str json)
{
    yyjson_doc *doc = cm_json_parse(json, &cm_json_limits_request, NULL);

    cm_json_put_val(out, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
}

/* The ordinal of the call with that id, in the whole conversation. */
static size_t call_number(const struct cm_chat *chat, size_t before, struct cm_str id)
{
    size_t n = 0, found = 0;

    for (size_t i = 0; i < before; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            const struct cm_part *p = &chat->msgs[i].parts[k];

            if (p->kind != CM_PART_TOOL_CALL)
                continue;
            n++;
            if (cm_str_eq(p->id, id))
                found = n;
        }
    }
    return found;
}

static void put_part(const struct cm_chat *chat, size_t at, const struct cm_part *p, unsigned both,
                     struct cm_buf *out)
{
    cm_buf_printf(out, "%s ", cm_role_name(chat->msgs[at].role));
    switch (p->kind) {
    case CM_PART_TEXT:
        cm_json_put_str(out, p->text);
        break;
    case CM_PART_IMAGE:
    case CM_PART_AUDIO:
        cm_buf_printf(out, "data " CM_PRI " " CM_PRI " " CM_PRI, CM_ARG(p->media_type),
                      CM_ARG(p->data), CM_ARG(p->detail));
        break;
    case CM_PART_FILE:
        cm_buf_printf(out, "file " CM_PRI " " CM_PRI " " CM_PRI, CM_ARG(p->media_type),
                      CM_ARG(p->data), CM_ARG(both & NAMES ? p->name : CM_S("")));
        break;
    case CM_PART_TOOL_CALL:
        cm_buf_printf(out, "call #%zu " CM_PRI " " CM_PRI " ", call_number(chat, at + 1, p->id),
                      CM_ARG(both & IDS ? p->id : CM_S("")), CM_ARG(p->name));
        put_json(out, p->text);
        break;
    case CM_PART_TOOL_RESULT:
        cm_buf_printf(out, "result #%zu %s ", call_number(chat, at, p->id),
                      p->failed ? "failed" : "");
        cm_json_put_str(out, p->text);
        break;
    case CM_PART_REFUSAL:
    case CM_PART_REASONING:
        cm_buf_append(out, CM_S("?"));
    }
    cm_buf_put(out, '\n');
}

static void put_number(struct cm_buf *out, const char *name, double v)
{
    if (!isnan(v))
        cm_buf_printf(out, "%s %.6f\n", name, v);
}

static void put_tools(const struct cm_chat *chat, struct cm_buf *out)
{
    static const char *const choices[] = {"unset", "auto", "none", "required", "named"};

    for (size_t i = 0; i < chat->n_tools; i++) {
        const struct cm_tool *t = &chat->tools[i];

        cm_buf_printf(out, "tool " CM_PRI " %s", CM_ARG(t->name), t->strict == 1 ? "strict " : "");
        cm_json_put_str(out, t->description);
        put_json(out, t->parameters);
        cm_buf_put(out, '\n');
    }
    /* not said and auto are the same, and one platform must say it to forbid parallel calls */
    cm_buf_printf(out, "choice %s " CM_PRI " parallel %d\n",
                  choices[chat->tool_choice ? chat->tool_choice : CM_TOOLS_AUTO],
                  CM_ARG(chat->tool_name), chat->parallel_tool_calls == 0);
}

static struct cm_str said(const struct cm_chat *chat, unsigned both, struct cm_arena *arena)
{
    struct cm_buf out = {0};

    for (size_t i = 0; i < chat->n_msgs; i++)
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++)
            put_part(chat, i, &chat->msgs[i].parts[k], both, &out);
    put_tools(chat, &out);
    put_number(&out, "temperature", chat->temperature);
    put_number(&out, "top_p", chat->top_p);
    put_number(&out, "presence", chat->presence_penalty);
    put_number(&out, "frequency", chat->frequency_penalty);
    cm_buf_printf(&out, "max %lld n %lld top_k %lld seed %lld effort " CM_PRI " user " CM_PRI "\n",
                  (long long)chat->max_tokens, (long long)chat->n, (long long)chat->top_k,
                  (long long)(chat->has_seed ? chat->seed : -1), CM_ARG(cm_chat_effort(chat)),
                  CM_ARG(chat->user));
    for (size_t i = 0; i < chat->n_stop; i++) {
        cm_buf_append(&out, CM_S("stop "));
        cm_json_put_str(&out, chat->stop[i]);
        cm_buf_put(&out, '\n');
    }
    cm_buf_printf(&out, "format %d ", (int)chat->format);
    put_json(&out, chat->schema.n > 0 ? chat->schema : CM_S("null"));
    return cm_buf_settle(&out, arena);
}

/* ---- there and back ---- */

static void one_case(struct wire *w, enum wire_dialect a, enum wire_dialect b, uint64_t seed)
{
    struct cm_arena arena = {0};
    struct maker m = {.arena = &arena, .can = can[a] & can[b]};
    const enum wire_dialect way[] = {a, b, a};
    struct cm_chat *chat;
    struct cm_str meant;

    cm_rng_seed(&m.rng, seed);
    chat = conversation(&m);
    meant = said(chat, m.can, &arena);
    for (size_t i = 0; i < CM_COUNT(way); i++) {
        struct cm_err err = {0};
        const struct cm_str body = wire_write(w, way[i], chat, &arena, &err);
        struct cm_str now;

        ck_assert_msg(body.p != NULL, "SEED=%llu: %s refuses: %s", (unsigned long long)seed,
                      wire_names[way[i]], err.msg);
        chat = wire_parse(way[i], body, chat->stream, &arena, &err);
        ck_assert_msg(chat != NULL, "SEED=%llu: %s cannot read: %s", (unsigned long long)seed,
                      wire_names[way[i]], err.msg);
        ck_assert_msg(chat->untranslatable.cls == CM_ERR_NONE, "SEED=%llu: %s: %s",
                      (unsigned long long)seed, wire_names[way[i]], chat->untranslatable.msg);
        now = said(chat, m.can, &arena);
        if (!cm_str_eq(now, meant)) {
            fprintf(stderr, CM_PRI "\nbecame\n" CM_PRI "\nin " CM_PRI "\n", CM_ARG(meant),
                    CM_ARG(now), CM_ARG(body));
            ck_abort_msg("SEED=%llu, %s and %s: step %zu says something else",
                         (unsigned long long)seed, wire_names[a], wire_names[b], i);
        }
    }
    cm_arena_clear(&arena);
}

static unsigned long long number(const char *name, unsigned long long otherwise)
{
    const char *given = getenv(name);

    return given ? strtoull(given, NULL, 10) : otherwise;
}

static const struct {
    enum wire_dialect a, b;
} pairs[] = {
    {WIRE_openai, WIRE_anthropic}, {WIRE_anthropic, WIRE_openai}, {WIRE_openai, WIRE_gemini},
    {WIRE_gemini, WIRE_openai},    {WIRE_anthropic, WIRE_gemini}, {WIRE_gemini, WIRE_anthropic},
    {WIRE_openai, WIRE_openai}, /* what no other has words for */
};

START_TEST(requests)
{
    const unsigned long long only = number("SEED", 0), cases = only ? 1 : number("CASES", 2000);
    struct wire *w = wire_new();

    for (unsigned long long i = 0; i < cases; i++)
        one_case(w, pairs[_i].a, pairs[_i].b, only ? only : 1 + i * CM_COUNT(pairs) + (unsigned)_i);
    wire_free(w);
}
END_TEST

Suite *suite_roundtrip(void)
{
    Suite *s = suite_create("roundtrip");
    TCase *tc = tcase_create("requests");

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, requests, 0, CM_COUNT(pairs));
    suite_add_tcase(s, tc);
    return s;
}
