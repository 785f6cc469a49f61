/* provider/hix: files of a question: fetched, typed, put where the platform says, told of. */
#include "fake_run.h"
#include "hix_words.h"

#include "chatmux/base/mem.h"
#include "unit.h"

#include "provider/hix_int.h"

static const char *const deleting[] = {"delete_chat", "yes", NULL};
static struct fake_result r;

START_TEST(a_file_is_put_where_the_platform_says)
{
    const struct fake_reply replies[] = {{.body = CREATED},
                                         {.body = SIGN("k/1.png")},
                                         {.status = 200},
                                         {.content_type = STREAM, .body = SAYS("a dot")},
                                         {.body = USAGE}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
                                          "\"content\":[" TEXT("What is it?") "," PNG "]}]}",
                                  .secret = "c=1",
                                  .replies = replies,
                                  .n_replies = 5},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 5);
    ck_str(r.requests[1].url, "https://hix.ai/api/upload/sign");
    ck_assert_str_eq(header_of(&r, 1, "referer"), "https://hix.ai/home?id=chat-1");
    ck_assert_str_eq(sent_in(&r, 1, "type"), "\"file\"");
    ck_assert_uint_eq(strlen(sent_in(&r, 1, "filename")), sizeof("\"20250131235959.png\"") - 1);
    ck_assert(cm_str_ends(cm_str_of(sent_in(&r, 1, "filename")), CM_S(".png\"")));
    ck_assert_uint_eq(strspn(sent_in(&r, 1, "filename") + 1, "0123456789"), 14);
    ck_str(r.requests[2].method, "PUT");
    ck_str(r.requests[2].url, "https://b.s3.r.amazonaws.com/k/1.png?X-Amz-Signature=s&x=1");
    ck_str(r.requests[2].body, "\x89PNG\r\n\x1a\n");
    ck_assert_str_eq(header_of(&r, 2, "content-type"), "image/png");
    ck_assert_str_eq(header_of(&r, 2, "cookie"), "");
    ck_assert_str_eq(header_of(&r, 2, "origin"), "");
    ck_assert_str_eq(sent_in(&r, 3, "fileUrl"), "\"https://b.s3.r.amazonaws.com/k/1.png\"");
    ck_assert_str_eq(sent_in(&r, 3, "fileUrls"), "");
    ck_assert_str_eq(sent_in(&r, 3, "question"), "\"What is it?\"");
    fake_result_clear(&r);
}
END_TEST

#define LOOK_AT(url)                                                                               \
    "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":[" TEXT(                   \
        "What is it?") ",{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\"}}]}]}"

START_TEST(a_file_behind_an_address_is_fetched_first)
{
    const struct fake_reply replies[] = {{.content_type = "text/plain", .body = "%PDF-1.7"},
                                         {.body = CREATED},
                                         {.body = SIGN("k/1.pdf")},
                                         {.status = 200},
                                         {.content_type = STREAM, .body = SAYS("a page")},
                                         {.body = USAGE}};
    static const struct {
        struct fake_reply reply;
        const char *code;
    } failures[] = {
        {{.status = 404}, "invalid_image_url"},
        {{.body = "GIF89a\1\2\3\4\5\6"}, "invalid_file"},
    };

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = LOOK_AT("https://elsewhere.test/p?q=1"),
                                  .secret = "c=1",
                                  .replies = replies,
                                  .n_replies = 6},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_str(r.requests[0].url, "https://elsewhere.test/p?q=1");
    ck_assert_str_eq(header_of(&r, 0, "cookie"), "");
    ck_str(r.requests[3].body, "%PDF-1.7");
    ck_assert_str_eq(header_of(&r, 3, "content-type"), "application/pdf");
    ck_assert_str_eq(sent_in(&r, 4, "fileUrl"), "\"https://b.s3.r.amazonaws.com/k/1.pdf\"");
    fake_result_clear(&r);
    for (size_t i = 0; i < CM_COUNT(failures); i++) {
        const struct fake_reply bad[] = {failures[i].reply, {.body = CREATED}, {.body = DELETED}};

        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = LOOK_AT("https://elsewhere.test/p"),
                                      .options = deleting,
                                      .replies = bad,
                                      .n_replies = 3},
                 &r);
        ck_assert_msg(r.err.cls == CM_ERR_BAD_REQUEST, "case %zu: %s", i, r.err.msg);
        ck_assert_str_eq(r.err.code, failures[i].code);
        fake_result_clear(&r);
    }
}
END_TEST

START_TEST(several_files_where_the_operator_allows_it)
{
    static const char *const options[] = {"file_urls", "yes", NULL};
    const struct fake_reply replies[] = {
        {.body = CREATED},   {.body = SIGN("1")}, {.status = 200},
        {.body = SIGN("2")}, {.status = 200},     {.content_type = STREAM, .body = SAYS("x")},
        {.body = USAGE}};

    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
                                          "\"content\":[" PNG "," PDF "]}]}",
                                  .options = options,
                                  .replies = replies,
                                  .n_replies = 7},
             &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(header_of(&r, 2, "content-type"), "image/png");
    ck_assert_str_eq(header_of(&r, 4, "content-type"), "application/pdf");
    ck_assert_str_eq(sent_in(&r, 5, "fileUrl"), "\"https://b.s3.r.amazonaws.com/1\"");
    ck_assert_str_eq(sent_in(&r, 5, "fileUrls"),
                     "[\"https://b.s3.r.amazonaws.com/1\",\"https://b.s3.r.amazonaws.com/2\"]");
    ck_assert_str_eq(sent_in(&r, 5, "question"), "\"[image]\\n[file a.pdf]\""); /* it wants words */
    fake_result_clear(&r);
}
END_TEST

/* What earlier questions showed stands in the text; the file that was shown last goes along. */
START_TEST(earlier_files_are_told_of)
{
    const struct fake_reply replies[] = {{.body = CREATED},
                                         {.body = SIGN("1")},
                                         {.status = 200},
                                         {.content_type = STREAM, .body = SAYS("x")},
                                         {.body = USAGE}};

    fake_run(
        &(struct fake_setup){
            .type = "hix",
            .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":[" PNG
                    "," TEXT("one") "]},{\"role\":\"assistant\",\"content\":\"a\"},"
                                    "{\"role\":\"user\",\"content\":[" TEXT(
                                        "two") "," PDF
                                               "]},{\"role\":\"assistant\",\"content\":\"b\"}," ASK
                                               "]}",
            .replies = replies,
            .n_replies = 5},
        &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_str_eq(header_of(&r, 2, "content-type"), "application/pdf");
    ck_assert_str_eq(sent_in(&r, 3, "question"),
                     "\"user: [image]\\none\\n\\nassistant: a\\n\\nuser: "
                     "two\\n\\nassistant: b\\n\\nuser: x\"");
    fake_result_clear(&r);
}
END_TEST

START_TEST(files_that_cannot_be_sent)
{
    static const struct {
        struct fake_reply sign, put;
        enum cm_err_class cls;
    } cases[] = {
        {{.body = "{}"}, {0}, CM_ERR_UPSTREAM_DOWN},
        {{.body = "{\"sign\":\"ftp://x\"}"}, {0}, CM_ERR_UPSTREAM_DOWN},
        {{.status = 401}, {0}, CM_ERR_EXPIRED},
        {{.end = FAKE_DOWN}, {0}, CM_ERR_UPSTREAM_DOWN},
        {{.body = SIGN("1")}, {.status = 403}, CM_ERR_UPSTREAM_DOWN},
        {{.body = SIGN("1")}, {.status = 204}, CM_ERR_UPSTREAM_DOWN},
        {{.body = SIGN("1")}, {.end = FAKE_CUT}, CM_ERR_CUT},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const bool signs = cases[i].sign.body && cases[i].put.status + (int)cases[i].put.end > 0;
        const struct fake_reply replies[] = {{.body = CREATED},
                                             cases[i].sign,
                                             signs ? cases[i].put
                                                   : (struct fake_reply){.body = DELETED},
                                             {.body = DELETED}};

        fake_run(&(struct fake_setup){.type = "hix",
                                      .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":"
                                              "\"user\",\"content\":[" TEXT("x") "," PNG "]}]}",
                                      .options = deleting,
                                      .replies = replies,
                                      .n_replies = 4},
                 &r);
        ck_assert_msg(!r.done && r.err.cls == cases[i].cls, "case %zu: %s", i, r.err.msg);
        ck_assert_msg(cm_str_has(r.requests[r.n_requests - 1].url, CM_S("deleteChat")), "case %zu",
                      i);
        fake_result_clear(&r);
    }
    fake_run(&(struct fake_setup){.type = "hix",
                                  .body = "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
                                          "\"content\":[{\"type\":\"image_url\",\"image_url\":{"
                                          "\"url\":\"data:image/gif;base64,AAECAwQFBgcI\"}}]}]}",
                                  .replies = &(struct fake_reply){.body = CREATED},
                                  .n_replies = 1},
             &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_ptr_nonnull(strstr(r.err.msg, "invalid file type"));
    fake_result_clear(&r);
}
END_TEST

START_TEST(types_of_files)
{
    static const struct {
        const char *bytes;
        size_t n;
        bool said;
        const char *extension; /* NULL = refused */
    } cases[] = {
        {"%PDF-1.7", 8, false, ".pdf"},
        {"\xff\xd8\xff\xe0", 4, false, ".jpg"},
        {"\x89PNG\r\n\x1a\n", 8, false, ".png"},
        {"\x89PNG\r\n\x1a", 7, false, NULL},
        {"RIFF\1\2\3\4WEBP", 12, false, ".webp"},
        {"RIFF\1\2\3\4WAVE", 12, false, NULL},
        {"XXXX\1\2\3\4WEBP", 12, false, NULL},
        {"\xd0\xcf\x11\xe0\xa1\xb1", 6, false, ".doc"},
        {"plain text, grün 世界\r\n", 26, false, ".txt"},
        {"\xef\xbb\xbf\1\2\3", 6, false, ".txt"},
        {"\xff\xfeh\0i\0", 6, false, ".txt"},
        {"\1\2\3\4\5\6", 6, false, NULL},
        {"\1\2\3\4\5\6", 6, true, ".txt"},
        {"aaaaaaaaaaaaaaaaaaa\1", 20, false, NULL}, /* 5 % */
        {"aaaaaaaaaaaaaaaaaaaa\1", 21, false, ".txt"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct hix_file_type *t =
            hix_file_type(cm_str(cases[i].bytes, cases[i].n), cases[i].said);

        ck_assert_msg((t == NULL) == (cases[i].extension == NULL), "case %zu", i);
        ck_assert(!t || strcmp(t->extension, cases[i].extension) == 0);
    }
}
END_TEST

Suite *suite_hix_files(void)
{
    Suite *s = suite_create("hix_files");
    TCase *t = tcase_create("hix_files");

    tcase_set_timeout(t, 20);
    tcase_add_test(t, a_file_is_put_where_the_platform_says);
    tcase_add_test(t, a_file_behind_an_address_is_fetched_first);
    tcase_add_test(t, several_files_where_the_operator_allows_it);
    tcase_add_test(t, earlier_files_are_told_of);
    tcase_add_test(t, files_that_cannot_be_sent);
    tcase_add_test(t, types_of_files);
    suite_add_tcase(s, t);
    return s;
}
