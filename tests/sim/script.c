#include "script.h"
#include "world.h"

#include "chatmux/base/err.h"
#include "chatmux/codec/json.h"

#include <stdio.h>

struct talk {
    struct cm_buf *out;
    enum dialect dialect;
    unsigned said; /* events of an array */
};

/* ---- events ---- */

#define CHUNK                                                                                      \
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m1\","
#define PIECE "data: {\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m1\","
#define USAGE "{\"prompt_tokens\":10,\"completion_tokens\":20,\"total_tokens\":30}"
#define GOOGLE_USAGE                                                                               \
    "\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":20,"                      \
    "\"totalTokenCount\":30},\"modelVersion\":\"g1\",\"responseId\":\"r\""

static void put(const struct talk *t, const char *text)
{
    cm_buf_append(t->out, cm_str_of(text));
}

/* Google's objects: events, or elements of an array. */
static void object_begin(struct talk *t)
{
    if (t->dialect == GEMINI)
        put(t, "data: ");
    else
        put(t, t->said == 0 ? "[" : ",\r\n");
    t->said++;
}

static void object_end(const struct talk *t)
{
    put(t, t->dialect == GEMINI ? "\r\n\r\n" : "\n");
}

static void begin(struct talk *t)
{
    switch (t->dialect) {
    case CHAT:
        put(t,
            CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                  "\"finish_reason\":null}]}\n\n");
        break;
    case MESSAGES:
        put(t,
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\","
            "\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c1\",\"content\":[],"
            "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":10,"
            "\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":"
            "\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":"
            "\"\"}}\n\n");
        break;
    case TEXT:
    case RESPONSES:
    case GEMINI:
    case GEMINI_ARRAY:
        break;
    }
}

static void word(struct talk *t, struct cm_str text)
{
    switch (t->dialect) {
    case CHAT:
        put(t, CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"content\":");
        cm_json_put_str(t->out, text);
        put(t, "},\"finish_reason\":null}]}\n\n");
        break;
    case TEXT:
        put(t, PIECE "\"choices\":[{\"index\":0,\"text\":");
        cm_json_put_str(t->out, text);
        put(t, ",\"logprobs\":null,\"finish_reason\":null}]}\n\n");
        break;
    case RESPONSES:
        break;
    case MESSAGES:
        put(t, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
               "\"delta\":{\"type\":\"text_delta\",\"text\":");
        cm_json_put_str(t->out, text);
        put(t, "}}\n\n");
        break;
    case GEMINI:
    case GEMINI_ARRAY:
        object_begin(t);
        put(t, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":");
        cm_json_put_str(t->out, text);
        put(t, "}],\"role\":\"model\"}}]," GOOGLE_USAGE "}");
        object_end(t);
        break;
    }
}

static void ping(const struct talk *t)
{
    if (t->dialect == MESSAGES)
        put(t, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
    else if (t->dialect != GEMINI_ARRAY)
        put(t, ": ping\n\n");
}

static void finish(struct talk *t)
{
    switch (t->dialect) {
    case CHAT:
        put(t,
            CHUNK "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" CHUNK
                  "\"choices\":[],\"usage\":" USAGE "}\n\ndata: [DONE]\n\n");
        break;
    case TEXT:
        put(t, PIECE "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":null,"
                     "\"finish_reason\":\"stop\"}]}\n\n" PIECE "\"choices\":[],\"usage\":" USAGE
                     "}\n\ndata: [DONE]\n\n");
        break;
    case RESPONSES:
        break;
    case MESSAGES:
        put(t, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
               "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
               "\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":20}}\n\n"
               "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
        break;
    case GEMINI:
    case GEMINI_ARRAY:
        object_begin(t);
        put(t, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},"
               "\"finishReason\":\"STOP\"}]," GOOGLE_USAGE "}");
        object_end(t);
        if (t->dialect == GEMINI_ARRAY)
            put(t, "]");
        break;
    }
}

static void error(struct talk *t)
{
    switch (t->dialect) {
    case CHAT:
    case TEXT:
    case RESPONSES:
        put(t, "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\","
               "\"code\":\"overloaded\"}}\n\n");
        break;
    case MESSAGES:
        put(t, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
               "\"message\":\"Overloaded\"}}\n\n");
        break;
    case GEMINI:
    case GEMINI_ARRAY:
        object_begin(t);
        put(t, "{\"error\":{\"code\":503,\"message\":\"overloaded\",\"status\":\"UNAVAILABLE\"}}");
        object_end(t);
        if (t->dialect == GEMINI_ARRAY)
            put(t, "]");
        break;
    }
}

/* The head of an answer and `upto` words of it; all of them, and the end. */
static void put_stream(struct talk *t, struct cm_str text, unsigned upto, bool whole)
{
    begin(t);
    for (unsigned i = 0; i <= upto && text.n > 0; i++) {
        const size_t n = cm_str_find_char(text, ' ') + 1;

        word(t, cm_str_head(text, n));
        text = cm_str_from(text, n);
        if (chance(50))
            ping(t);
    }
    if (whole)
        finish(t);
}

static void put_whole(const struct talk *t, struct cm_str text)
{
    switch (t->dialect) {
    case CHAT:
        put(t, "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m1\","
               "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
        cm_json_put_str(t->out, text);
        put(t, "},\"finish_reason\":\"stop\"}],\"usage\":" USAGE "}");
        break;
    case TEXT:
        put(t, "{\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m1\","
               "\"choices\":[{\"index\":0,\"logprobs\":null,\"text\":");
        cm_json_put_str(t->out, text);
        put(t, ",\"finish_reason\":\"stop\"}],\"usage\":" USAGE "}");
        break;
    case RESPONSES:
        break;
    case MESSAGES:
        put(t, "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c1\","
               "\"content\":[{\"type\":\"text\",\"text\":");
        cm_json_put_str(t->out, text);
        put(t, "}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,"
               "\"usage\":{\"input_tokens\":10,\"output_tokens\":20}}");
        break;
    case GEMINI:
    case GEMINI_ARRAY:
        put(t, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":");
        cm_json_put_str(t->out, text);
        put(t, "}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}]," GOOGLE_USAGE "}");
        break;
    }
}

/* ---- refusals ---- */

struct refusal {
    int status;
    const char *type, *code, *message;
};

static void refuse(struct script *s, enum dialect dialect, const struct refusal *r)
{
    s->status = r->status;
    s->content_type = "application/json";
    cm_buf_reset(&s->body);
    switch (dialect) {
    case CHAT:
    case TEXT:
    case RESPONSES:
        cm_buf_printf(
            &s->body,
            "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"code\":\"%s\",\"param\":null}}",
            r->message, r->type, r->code);
        break;
    case MESSAGES:
        cm_buf_printf(&s->body,
                      "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}",
                      r->type, r->message);
        break;
    case GEMINI:
    case GEMINI_ARRAY:
        cm_buf_printf(&s->body, "%s{\"error\":{\"code\":%d,\"message\":\"%s\",\"status\":\"%s\"",
                      dialect == GEMINI_ARRAY ? "[" : "", r->status, r->message, r->type);
        if (s->limited_s > 0)
            cm_buf_printf(&s->body,
                          ",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\","
                          "\"retryDelay\":\"%us\"}]",
                          s->limited_s);
        else if (r->code[0])
            cm_buf_printf(&s->body,
                          ",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\","
                          "\"reason\":\"%s\"}]",
                          r->code);
        cm_buf_append(&s->body, dialect == GEMINI_ARRAY ? CM_S("}}]") : CM_S("}}"));
        break;
    }
}

static bool refused(struct script *s, enum dialect dialect, enum fault fault)
{
    static const struct refusal limits[] = {
        {429, "requests", "rate_limit_exceeded", "no"},
        {429, "rate_limit_error", "", "no"},
        {429, "RESOURCE_EXHAUSTED", "", "no"},
    };
    static const struct refusal downs[][3] = {
        {{500, "server_error", "oops", "no"},
         {502, "server_error", "oops", "no"},
         {503, "server_error", "oops", "no"}},
        {{500, "api_error", "", "no"},
         {529, "overloaded_error", "", "no"},
         {504, "timeout_error", "", "no"}},
        {{500, "INTERNAL", "", "no"},
         {503, "UNAVAILABLE", "", "no"},
         {504, "DEADLINE_EXCEEDED", "", "no"}},
    };
    static const struct refusal too_long[] = {
        {400, "invalid_request_error", "context_length_exceeded", "no"},
        {400, "invalid_request_error", "", "prompt is too long: 210000 tokens > 200000 maximum"},
        {400, "INVALID_ARGUMENT", "",
         "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."},
    };
    static const struct refusal dead[] = {
        {401, "invalid_request_error", "invalid_api_key", "no"},
        {401, "authentication_error", "", "no"},
        {400, "INVALID_ARGUMENT", "API_KEY_INVALID", "no"},
    };
    const unsigned house = dialect <= TEXT ? 0 : dialect == MESSAGES ? 1 : 2;

    switch (fault) {
    case LIMITED:
        s->limited_s = 1 + (unsigned)dice(30);
        if (house < 2)
            snprintf(s->retry_after, sizeof(s->retry_after), "%u", s->limited_s);
        refuse(s, dialect, &limits[house]);
        return true;
    case LIMITED_MUTE:
        refuse(s, dialect, &limits[house]);
        return true;
    case DOWN:
        refuse(s, dialect, &downs[house][dice(CM_COUNT(downs[house]))]);
        return true;
    case TOO_LONG:
        refuse(s, dialect, &too_long[house]);
        return true;
    case REFUSED:
        refuse(s, dialect, &dead[house]);
        return true;
    default:
        return false;
    }
}

/* ---- the whole script ---- */

/* Answers that are broken from their beginning. */
static bool broken_early(struct script *s, struct talk *t, bool streamed, enum fault fault)
{
    switch (fault) {
    case HTML:
        s->content_type = "text/html";
        put(t, "<html><title>Welcome</title></html>");
        return true;
    case NOTHING:
        s->status = 0;
        s->ending = BREAKS;
        return true;
    case CUT_HEAD:
        s->ending = BREAKS;
        return true;
    case HANG:
        s->status = 0;
        s->ending = SILENT;
        return true;
    case EMPTY:
        return true;
    case GARBAGE:
        put(t, "\x01\x02 what is this\n\n{{{{\n\ndata: {\"choices\":\n\n");
        return true;
    case ERROR_FIRST:
        if (streamed) {
            begin(t);
            error(t);
        } else if (t->dialect == MESSAGES) {
            put(t,
                "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"no\"}}");
        } else {
            put(t, "{\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":503,"
                   "\"status\":\"UNAVAILABLE\"}}");
        }
        return true;
    default:
        return false;
    }
}

static void put_text(struct cm_buf *out, uint64_t q, uint64_t attempt, unsigned n)
{
    cm_buf_printf(out, "B:%llu:%llu:%u ", (unsigned long long)q, (unsigned long long)attempt, n);
    for (unsigned i = 0; i < n; i++)
        cm_buf_printf(out, "w%u ", i);
}

void script_write(struct script *s, enum dialect dialect, bool streamed, enum fault fault,
                  uint64_t q, uint64_t attempt, unsigned n)
{
    const bool middle =
        fault == CUT || fault == HANG_MIDDLE || fault == NO_END || fault == ERROR_MIDDLE;
    struct talk t = {.out = &s->body, .dialect = dialect};
    struct cm_buf text = {0};

    s->status = 200;
    s->ending = fault == CUT ? BREAKS : fault == HANG_MIDDLE ? SILENT : ENDS;
    s->content_type =
        streamed && dialect != GEMINI_ARRAY ? "text/event-stream" : "application/json";
    if (refused(s, dialect, fault) || broken_early(s, &t, streamed, fault))
        return;
    put_text(&text, q, attempt, n);
    if (streamed) {
        put_stream(&t, cm_buf_str(&text), middle ? (unsigned)dice(n) : n, !middle);
        if (fault == ERROR_MIDDLE)
            error(&t);
    } else {
        put_whole(&t, cm_buf_str(&text));
        if (middle)
            s->body.n = 1 + dice(s->body.n - 1);
    }
    cm_buf_clear(&text);
}
