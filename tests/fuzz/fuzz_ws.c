/* WebSocket reader: what frames mean does not depend on where they are cut, nor on who masked them. Input: limit (in units of 16), step of the cuts, first
 * cut, one byte whose lowest bit says that a client sends, then the frames. */
#include "chatmux/codec/ws.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct cm_buf text; /* every message, with kind, code and length */
    int rc, code;       /* how it ended; told to the peer */
    size_t messages;
};

static void note(struct seen *s, const struct cm_wsf_message *m, size_t max_message)
{
    CM_ASSERT(m->op < CM_WSF_CLOSE ? m->data.n <= max_message : m->data.n <= CM_WSF_CONTROL_MAX);
    CM_ASSERT(m->op != CM_WSF_TEXT || cm_utf8_valid(m->data) == m->data.n);
    s->messages++;
    cm_buf_printf(&s->text, "%d %d %zu:", (int)m->op, m->op == CM_WSF_CLOSE ? m->close_code : 0,
                  m->data.n);
    cm_buf_append(&s->text, m->data);
}

/* Cut at `first` and then every `step` bytes; step 0 reads the rest whole. */
static struct seen read_cut(struct cm_str stream, size_t first, size_t step, size_t max_message,
                            bool from_client)
{
    struct cm_str rest = stream;
    struct seen s = {0};
    struct cm_wsf_reader r;
    size_t n = first < rest.n ? first : rest.n;

    cm_wsf_reader_init(&r, max_message, from_client);
    do {
        char *piece =
            cm_alloc(n); /* of its exact size, so that a sanitizer sees a read beyond it */
        struct cm_str in = cm_str(piece, n);
        struct cm_wsf_message m = {.op = CM_WSF_TEXT};
        struct cm_err err = {0};

        if (n > 0)
            memcpy(piece, rest.p, n);
        while ((s.rc = cm_wsf_read(&r, &in, &m, &s.code, &err)) == 1) {
            note(&s, &m, max_message);
            if (m.data.n & 1) /* or with the next read */
                cm_wsf_let_go(&r);
        }
        CM_ASSERT(s.rc < 0 || in.n == 0);
        CM_ASSERT(s.rc == 0 || (cm_wsf_code_valid(s.code) && err.cls != CM_ERR_NONE));
        CM_ASSERT(r.joined.n <= max_message && r.control.n <= CM_WSF_CONTROL_MAX);
        free(piece);
        rest = cm_str_from(rest, n);
        n = step > 0 && step < rest.n ? step : rest.n;
    } while (s.rc == 0 && rest.n > 0);
    cm_wsf_reader_clear(&r);
    return s;
}

/* What we write we read, as either side. */
static void check_writing(struct cm_str data, const uint8_t mask[4])
{
    const bool text = cm_utf8_valid(data) == data.n;

    for (int client = 0; client < 2; client++) {
        struct cm_buf out = {0};
        struct seen s;

        cm_wsf_write(&out, text ? CM_WSF_TEXT : CM_WSF_BINARY, data, client ? mask : NULL);
        cm_wsf_write_close(&out, 1000 + mask[0], data, client ? mask : NULL);
        s = read_cut(cm_buf_str(&out), mask[1], mask[2], data.n, client);
        CM_ASSERT(s.rc == 0 && s.messages == 2);
        cm_buf_clear(&s.text);
        cm_buf_clear(&out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str stream;
    struct seen whole, cut;
    bool client;
    size_t max;

    if (size < 4)
        return 0;
    max = (size_t)data[0] * 16;
    client = data[3] & 1;
    stream = cm_str((const char *)data + 4, size - 4);
    whole = read_cut(stream, stream.n, 0, max, client);
    cut = read_cut(stream, data[2], data[1], max, client);
    CM_ASSERT(whole.rc == cut.rc && whole.messages == cut.messages);
    CM_ASSERT(whole.rc == 0 || whole.code == cut.code);
    CM_ASSERT(cm_str_eq(cm_buf_str(&whole.text), cm_buf_str(&cut.text)));
    cm_buf_clear(&whole.text);
    cm_buf_clear(&cut.text);
    check_writing(stream, data);
    return 0;
}
