/* provider/attach: types by their first bytes, where redirects lead, and an adapter that fetches before it asks. */
#include "fake_run.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/provider/attach.h"

START_TEST(types_by_the_first_bytes)
{
    static const struct {
        struct cm_str bytes, type;
    } cases[] = {
        {CM_S_INIT("\x89PNG\r\n\x1a\n...."), CM_S_INIT("image/png")},
        {CM_S_INIT("\xff\xd8\xff\xe0"), CM_S_INIT("image/jpeg")},
        {CM_S_INIT("GIF89a"), CM_S_INIT("image/gif")},
        {CM_S_INIT("RIFF\0\0\0\0WEBPVP8 "), CM_S_INIT("image/webp")},
        {CM_S_INIT("RIFF\0\0\0\0WAVEfmt "), CM_S_INIT("audio/wav")},
        {CM_S_INIT("\0\0\0\x18"
                   "ftypheic"),
         CM_S_INIT("image/heic")},
        {CM_S_INIT("\0\0\0\x18"
                   "ftypisom"),
         CM_S_INIT("video/mp4")},
        {CM_S_INIT("%PDF-1.7"), CM_S_INIT("application/pdf")},
        {CM_S_INIT("\x89PN"), CM_S_INIT("")},
        {CM_S_INIT(""), CM_S_INIT("")},
        {CM_S_INIT("<html>"), CM_S_INIT("")},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++)
        ck_assert_msg(cm_str_eq(cm_media_type_of(cases[i].bytes), cases[i].type), "%zu", i);
}
END_TEST

START_TEST(where_redirects_lead)
{
    static const struct {
        const char *base, *location, *to;
    } cases[] = {
        {"https://a.test/x/y?q#f", "https://b.test/z", "https://b.test/z"},
        {"https://a.test/x/y", "HTTP://b.test", "HTTP://b.test"},
        {"https://a.test/x/y", "//b.test/z", "https://b.test/z"},
        {"http://a.test/x/y", "//b.test", "http://b.test"},
        {"https://a.test:8443/x/y", "/z?c", "https://a.test:8443/z?c"},
        {"https://a.test/x/y?q=/r/", "z", "https://a.test/x/z"},
        {"https://a.test/x/", "../z", "https://a.test/x/../z"},
        {"https://a.test", "z", "https://a.test/z"},
        {"https://a.test?q", "/z", "https://a.test/z"},
        {"https://a.test/x", " /z ", "https://a.test/z"},
        {"https://a.test/x?y#z", "?c=1:2", "https://a.test/x?c=1:2"},
        {"https://a.test/x", "/t?to=http://b", "https://a.test/t?to=http://b"},
        {"https://a.test/x", "file:///etc/passwd", ""},
        {"https://a.test/x", "ftp://b.test/", ""},
        {"https://a.test/x", "data:image/png;base64,AA", ""},
        {"https://a.test/x", "javascript:1", ""},
        {"https://a.test/x", "", ""},
    };
    struct cm_arena a = {0};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_str to =
            cm_attach_redirect(&a, cm_str_of(cases[i].base), cm_str_of(cases[i].location));

        ck_assert_msg(cm_str_eq(to, cm_str_of(cases[i].to)), "%s + %s: %.*s", cases[i].base,
                      cases[i].location, CM_ARG(to));
    }
    cm_arena_clear(&a);
}
END_TEST

/* ---- with an adapter ---- */

#define PICTURE(url) "{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\"}}"
#define LOOK(parts)                                                                                \
    "{\"model\":\"gemini-2.5-flash\",\"messages\":[{\"role\":\"user\",\"content\":[" parts "]}]}"
#define ANSWER                                                                                     \
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"A dot.\"}]},\"finishReason\":"          \
    "\"STOP\"}]}"
#define GIF "GIF89a~"

static void look(const char *body, const struct fake_reply *replies, size_t n,
                 struct fake_result *r)
{
    fake_run(&(struct fake_setup){.type = "gemini",
                                  .body = body,
                                  .secret = "AIza-secret",
                                  .replies = replies,
                                  .n_replies = n,
                                  .piece = 3,
                                  .idle_ms = 50},
             r);
}

START_TEST(what_is_pointed_at_is_fetched_first)
{
    static const struct fake_reply replies[] = {
        {.content_type = "text/plain", .body = GIF},
        {.status = 307, .header = "Location", .header_value = "/there"},
        {.content_type = "image/x; a=b", .body = "?"},
        {.content_type = "application/json", .body = ANSWER},
    };
    struct fake_result r;

    look(LOOK(PICTURE("https://a.test/1") "," PICTURE("https://a.test/1") "," PICTURE(
             "https://b.test/2?s")),
         replies, CM_COUNT(replies), &r);
    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert_uint_eq(r.n_requests, 4);
    ck_str(r.requests[0].url, "https://a.test/1");
    ck_str(r.requests[1].url, "https://b.test/2?s");
    ck_str(r.requests[2].url, "https://b.test/there");
    for (size_t i = 0; i < 3; i++) {
        ck_str(r.requests[i].method, "GET");
        ck_assert_uint_eq(r.requests[i].body.n, 0);
        ck_assert_uint_eq(
            cm_header_find(r.requests[i].headers, r.requests[i].n_headers, CM_S("x-goog-api-key"))
                .n,
            0);
    }
    ck_str(r.requests[3].body,
           "{\"contents\":[{\"role\":\"user\",\"parts\":["
           "{\"inlineData\":{\"mimeType\":\"image/gif\",\"data\":\"R0lGODlhfg==\"}},"
           "{\"inlineData\":{\"mimeType\":\"image/gif\",\"data\":\"R0lGODlhfg==\"}},"
           "{\"inlineData\":{\"mimeType\":\"image/x\",\"data\":\"Pw==\"}}]}]}");
    ck_assert_str_eq(fake_text(&r), "A dot.");
    fake_result_clear(&r);
}
END_TEST

static const struct {
    struct fake_reply reply;
    const char *why;
} failures[] = {
    {{.status = 404}, "it answers with status 404"},
    {{.status = 500, .body = GIF}, "it answers with status 500"},
    {{.content_type = "image/png"}, "there is nothing"},
    {{.content_type = "text/html", .body = "<html>"}, "neither a picture"},
    {{.body = "no type"}, "neither a picture"},
    {{.status = 302}, "it redirects to nowhere"},
    {{.status = 302, .header = "Location", .header_value = "gopher://x/"},
     "it redirects to nowhere"},
    {{.end = FAKE_DOWN}, "connection refused"},
    {{.body = "GIF", .end = FAKE_CUT}, "the connection broke off"},
    {{.body = "GIF", .end = FAKE_HANG}, ""},
};

START_TEST(what_cannot_be_fetched_is_the_clients_to_mend)
{
    struct fake_result r;

    look(LOOK(PICTURE("https://a.test/1?sig=hidden")), &failures[_i].reply, 1, &r);
    ck_assert(!r.done);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(r.err.code, "invalid_image_url");
    ck_assert_msg(strstr(r.err.msg, failures[_i].why) && strstr(r.err.msg, "https://a.test/1 "),
                  "%s", r.err.msg);
    ck_assert(!strstr(r.err.msg, "hidden"));
    ck_assert_uint_eq(r.n_requests, 1);
    fake_result_clear(&r);
}
END_TEST

START_TEST(redirects_and_addresses_have_limits)
{
    static struct fake_reply ring[8];
    struct cm_buf body = {0};
    struct fake_result r;

    for (size_t i = 0; i < CM_COUNT(ring); i++)
        ring[i] = (struct fake_reply){.status = 301, .header = "Location", .header_value = "/x"};
    look(LOOK(PICTURE("https://a.test/x")), ring, CM_COUNT(ring), &r);
    ck_assert_uint_eq(r.n_requests, 1 + CM_ATTACH_REDIRECTS);
    ck_assert_ptr_nonnull(strstr(r.err.msg, "redirects too often"));
    fake_result_clear(&r);

    cm_buf_append(&body, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":["));
    for (int i = 0; i <= CM_ATTACH_MAX; i++)
        cm_buf_printf(&body, "%s" PICTURE("https://a.test/%d"), i ? "," : "", i);
    cm_buf_append(&body, CM_S("]}]}"));
    look(cm_buf_z(&body), NULL, 0, &r);
    ck_assert_int_eq(r.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_uint_eq(r.n_requests, 0);
    fake_result_clear(&r);
    cm_buf_clear(&body);
}
END_TEST

Suite *suite_attach(void)
{
    Suite *s = suite_create("attach");
    TCase *t = tcase_create("attach");

    tcase_add_test(t, types_by_the_first_bytes);
    tcase_add_test(t, where_redirects_lead);
    tcase_add_test(t, what_is_pointed_at_is_fetched_first);
    tcase_add_loop_test(t, what_cannot_be_fetched_is_the_clients_to_mend, 0, CM_COUNT(failures));
    tcase_add_test(t, redirects_and_addresses_have_limits);
    suite_add_tcase(s, t);
    return s;
}
