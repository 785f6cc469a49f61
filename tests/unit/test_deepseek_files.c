/* provider/deepseek_files: what messages carry goes up first, with a proof each, and is waited for. */
#include "deepseek_replies.h"
#include "fake_run.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

#define JSON "application/json"
#define OK(json) {.content_type = JSON, .body = json}
#define SSE(text) {.content_type = STREAM, .body = text}
#define TEXT_PART "{\"type\":\"text\",\"text\":\"what is it?\"}"
#define IMAGE(url) "{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\"}}"
#define PNG "data:image/png;base64,aGVsbG8gcGljdHVyZQ=="
#define FILE_PART(name, data)                                                                      \
    "{\"type\":\"file\",\"file\":{\"filename\":\"" name "\",\"file_data\":\"" data "\"}}"
#define ASK(parts)                                                                                 \
    "{\"model\":\"deepseek-chat\",\"messages\":[{\"role\":\"user\",\"content\":[" TEXT_PART        \
    "," parts "]}]}"
#define UPLOAD_CHALLENGE CHALLENGE_OF("/api/v0/file/upload_file", "1000")
#define UPLOADED(id) BIZ("{\"id\":\"" id "\",\"status\":\"PENDING\"}")
#define STATUS_OF(id, status) "{\"id\":\"" id "\",\"status\":\"" status "\"}"
#define FILES(list) BIZ("{\"files\":[" list "]}")

static struct fake_result r;
static const char *const plain[] = {"prefetch", "no", "conversations", "new", NULL};

static void play(const char *body, const struct fake_reply *replies, size_t n)
{
    fake_run(&(struct fake_setup){.type = "deepseek",
                                  .body = body,
                                  .options = plain,
                                  .replies = replies,
                                  .n_replies = n,
                                  .idle_ms = 300},
             &r);
}

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

START_TEST(a_picture_goes_up_and_is_waited_for)
{
    static const struct fake_reply replies[] = {OK(UPLOAD_CHALLENGE),
                                                OK(UPLOADED("f-1")),
                                                OK(FILES(STATUS_OF("f-1", "PENDING"))),
                                                OK(FILES(STATUS_OF("f-1", "PARSING"))),
                                                OK(FILES(STATUS_OF("f-1", "SUCCESS"))),
                                                OK(CREATED),
                                                OK(CHALLENGE),
                                                SSE(ANSWER)};
    struct cm_str body, boundary, type;
    struct cm_buf want = {0};

    play(ASK(IMAGE(PNG)), replies, 8);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 8);
    ck_str(r.requests[0].body, "{\"target_path\":\"/api/v0/file/upload_file\"}");
    ck_str(r.requests[1].url, "https://chat.deepseek.com/api/v0/file/upload_file");
    type = cm_str_of(header(1, "content-type"));
    ck_assert_msg(cm_str_starts(type, CM_S("multipart/form-data; boundary=----")), CM_PRI,
                  CM_ARG(type));
    boundary = cm_str_from(type, sizeof("multipart/form-data; boundary=") - 1);
    body = r.requests[1].body;
    cm_buf_printf(
        &want,
        "--" CM_PRI "\r\nContent-Disposition: form-data; name=\"file\"; "
        "filename=\"image.png\"\r\nContent-Type: image/png\r\n\r\nhello picture\r\n--" CM_PRI
        "--\r\n",
        CM_ARG(boundary), CM_ARG(boundary));
    ck_assert_msg(cm_str_eq(body, cm_buf_str(&want)), CM_PRI, CM_ARG(body));
    cm_buf_clear(&want);
    ck_assert_str_eq(header(1, "x-file-size"), "13");
    ck_assert_str_eq(header(1, "x-thinking-enabled"), "0");
    ck_assert_str_eq(header(1, "x-model-type"), "default");
    ck_assert_str_ne(header(1, "x-ds-pow-response"), "");
    ck_assert_str_ne(header(1, "x-ds-pow-response"), PROOF); /* it is for another path */
    ck_str(r.requests[2].method, "GET");
    ck_str(r.requests[2].url, "https://chat.deepseek.com/api/v0/file/fetch_files?file_ids=f-1");
    ck_assert(cm_str_has(r.requests[7].body, CM_S("\"ref_file_ids\":[\"f-1\"]")));
    ck_assert(cm_str_has(r.requests[7].body, CM_S("\"model_type\":\"default\"")));
    ck_assert(cm_str_has(r.requests[7].body, CM_S("\"prompt\":\"what is it?\"")));
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_picture_that_is_not_understood_is_forked)
{
    static const struct fake_reply replies[] = {OK(UPLOAD_CHALLENGE),
                                                OK(UPLOADED("f-1")),
                                                OK(FILES(STATUS_OF("f-1", "CONTENT_EMPTY"))),
                                                OK(BIZ("{\"file\":{\"id\":\"f-2\"}}")),
                                                OK(FILES(STATUS_OF("f-2", "SUCCESS"))),
                                                OK(CREATED),
                                                OK(CHALLENGE),
                                                SSE(ANSWER)};
    static const struct fake_reply twice[] = {
        OK(UPLOAD_CHALLENGE), OK(UPLOADED("f-1")), OK(FILES(STATUS_OF("f-1", "CONTENT_EMPTY"))),
        OK(UPLOADED("f-2")), OK(FILES(STATUS_OF("f-2", "CONTENT_EMPTY")))};

    play(ASK(IMAGE(PNG)), replies, 8);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.requests[3].url, "https://chat.deepseek.com/api/v0/file/fork_file_task");
    ck_str(r.requests[3].body, "{\"file_id\":\"f-1\",\"to_model_type\":\"vision\"}");
    ck_assert(cm_str_ends(r.requests[4].url, CM_S("?file_ids=f-2")));
    ck_assert(cm_str_has(r.requests[7].body, CM_S("\"ref_file_ids\":[\"f-2\"]")));
    ck_assert(cm_str_has(r.requests[7].body, CM_S("\"model_type\":\"vision\"")));
    fake_result_clear(&r);
    play(ASK(IMAGE(PNG)), twice, 5);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_uint_eq(r.n_requests, 5);
    fake_result_clear(&r);
}
END_TEST

START_TEST(several_are_polled_together)
{
    static const struct fake_reply replies[] = {
        OK(UPLOAD_CHALLENGE),
        OK(UPLOADED("f-1")),
        OK(UPLOAD_CHALLENGE),
        OK(UPLOADED("f/2")),
        OK(FILES(STATUS_OF("f-1", "SUCCESS") "," STATUS_OF("f/2", "PENDING"))),
        OK(FILES(STATUS_OF("f/2", "SUCCESS"))),
        OK(CREATED),
        OK(CHALLENGE),
        SSE(ANSWER)};

    play(ASK(IMAGE(PNG) "," FILE_PART("a/b \\\"c\\\".pdf", "data:application/pdf;base64,JVBERi0=")),
         replies, 9);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(cm_str_has(r.requests[3].body, CM_S("filename=\"b _c_.pdf\"")));
    ck_assert(
        cm_str_has(r.requests[3].body, CM_S("Content-Type: application/pdf\r\n\r\n%PDF-\r\n")));
    ck_assert(cm_str_ends(r.requests[4].url, CM_S("?file_ids=f-1,f%2F2")));
    ck_assert(cm_str_ends(r.requests[5].url, CM_S("?file_ids=f%2F2")));
    ck_assert(cm_str_has(r.requests[8].body, CM_S("\"ref_file_ids\":[\"f-1\",\"f/2\"]")));
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_picture_behind_an_address_is_fetched)
{
    static const struct fake_reply replies[] = {{.content_type = "image/gif", .body = "GIF89a..."},
                                                OK(UPLOAD_CHALLENGE),
                                                OK(UPLOADED("f-1")),
                                                OK(FILES(STATUS_OF("f-1", "SUCCESS"))),
                                                OK(CREATED),
                                                OK(CHALLENGE),
                                                SSE(ANSWER)};

    play(ASK(IMAGE("https://pictures.test/a.gif")), replies, 7);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.requests[0].url, "https://pictures.test/a.gif");
    ck_assert_str_eq(header(0, "authorization"), "");
    ck_assert(cm_str_has(r.requests[2].body, CM_S("filename=\"image.gif\"")));
    ck_assert(cm_str_has(r.requests[2].body, CM_S("GIF89a...")));
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_refused_proof_is_made_once_more)
{
    static const struct fake_reply once[] = {OK(UPLOAD_CHALLENGE),
                                             OK(CODE("40301", "INVALID_POW_RESPONSE")),
                                             OK(UPLOAD_CHALLENGE),
                                             OK(UPLOADED("f-1")),
                                             OK(FILES(STATUS_OF("f-1", "SUCCESS"))),
                                             OK(CREATED),
                                             OK(CHALLENGE),
                                             SSE(ANSWER)};
    static const struct fake_reply twice[] = {
        OK(UPLOAD_CHALLENGE), OK(CODE("40301", "INVALID_POW_RESPONSE")), OK(UPLOAD_CHALLENGE),
        OK(CODE("40301", "INVALID_POW_RESPONSE"))};

    play(ASK(IMAGE(PNG)), once, 8);
    ck_assert_msg(r.done, "%s", r.err.msg);
    fake_result_clear(&r);
    play(ASK(IMAGE(PNG)), twice, 4);
    ck_assert_int_eq(r.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_uint_eq(r.n_requests, 4);
    fake_result_clear(&r);
}
END_TEST

START_TEST(uploads_that_fail)
{
    static const struct {
        struct fake_reply replies[3];
        size_t n;
        enum cm_err_class cls;
    } cases[] = {
        {{OK(CODE("40003", ""))}, 1, CM_ERR_EXPIRED},
        {{OK(UNSOLVABLE)}, 1, CM_ERR_UPSTREAM_DOWN},
        {{OK(BIZ("{}"))}, 1, CM_ERR_UPSTREAM_DOWN},
        {{OK(UPLOAD_CHALLENGE), OK(BIZ_REFUSED("9", "unsupported file type"))},
         2,
         CM_ERR_BAD_REQUEST},
        {{OK(UPLOAD_CHALLENGE), OK(BIZ("{}"))}, 2, CM_ERR_UPSTREAM_DOWN},
        {{OK(UPLOAD_CHALLENGE), {.status = 413}}, 2, CM_ERR_BAD_REQUEST},
        {{OK(UPLOAD_CHALLENGE), {.status = 429}}, 2, CM_ERR_RATE_LIMITED},
        {{OK(UPLOAD_CHALLENGE), {.end = FAKE_CUT}}, 2, CM_ERR_CUT},
        {{OK(UPLOAD_CHALLENGE), OK(UPLOADED("f")), OK(FILES(STATUS_OF("f", "FAILED")))},
         3,
         CM_ERR_BAD_REQUEST},
        {{OK(UPLOAD_CHALLENGE), OK(UPLOADED("f")), OK(FILES(STATUS_OF("f", "REJECTED")))},
         3,
         CM_ERR_BAD_REQUEST},
        {{OK(UPLOAD_CHALLENGE), OK(UPLOADED("f")), {.status = 503}}, 3, CM_ERR_OVERLOADED},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        play(ASK(IMAGE(PNG)), cases[i].replies, cases[i].n);
        ck_assert_msg(!r.done && r.err.cls == cases[i].cls, "%zu: %s, %s", i,
                      cm_err_info(r.err.cls)->name, r.err.msg);
        ck_assert_uint_eq(r.n_requests, cases[i].n); /* no conversation was made */
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(files_that_cannot_be_taken)
{
    static const struct {
        const char *body;
        size_t calls;
    } cases[] = {
        {ASK("{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AAAA\",\"format\":\"wav\"}}"),
         0},
        {ASK("{\"type\":\"file\",\"file\":{\"file_id\":\"file-1\"}}"), 0},
        {ASK(IMAGE("data:image/png;base64,@@@@")), 1},
    };
    static const struct fake_reply replies[] = {OK(UPLOAD_CHALLENGE)};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        play(cases[i].body, replies, 1);
        ck_assert_msg(r.err.cls == CM_ERR_BAD_REQUEST, "%zu: %s", i, r.err.msg);
        ck_assert_uint_eq(r.n_requests, cases[i].calls);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(files_that_are_never_read)
{
    static const char *const options[] = {"prefetch", "no", "file_timeout", "1s", NULL};
    static const struct fake_reply pending = OK(FILES(STATUS_OF("f", "PENDING")));
    const struct fake_reply replies[] = {
        OK(UPLOAD_CHALLENGE), OK(UPLOADED("f")), pending, pending, pending, pending, pending};

    fake_run(&(struct fake_setup){.type = "deepseek",
                                  .body = ASK(IMAGE(PNG)),
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = 7},
             &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_TIMEOUT);
    fake_result_clear(&r);
}
END_TEST

Suite *suite_deepseek_files(void)
{
    Suite *s = suite_create("deepseek_files");
    TCase *t = tcase_create("deepseek_files");

    tcase_add_test(t, a_picture_goes_up_and_is_waited_for);
    tcase_add_test(t, a_picture_that_is_not_understood_is_forked);
    tcase_add_test(t, several_are_polled_together);
    tcase_add_test(t, a_picture_behind_an_address_is_fetched);
    tcase_add_test(t, a_refused_proof_is_made_once_more);
    tcase_add_test(t, uploads_that_fail);
    tcase_add_test(t, files_that_cannot_be_taken);
    tcase_add_test(t, files_that_are_never_read);
    suite_add_tcase(s, t);
    return s;
}
