/* codec/form: which fields a form has, where they stand, and which forms are none. */
#include "chatmux/codec/form.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"
#include "unit.h"

#include <stdlib.h>

static struct cm_arena arena;
static struct cm_form form;

static void teardown(void)
{
    cm_arena_clear(&arena);
}

#define TYPE "multipart/form-data; boundary=b1"
#define PART(disposition, data)                                                                    \
    "--b1\r\nContent-Disposition: form-data; " disposition "\r\n\r\n" data "\r\n"
#define END "--b1--\r\n"

static int parse(const char *type, struct cm_str body, struct cm_err *err)
{
    return cm_form_parse(&arena, cm_str_of(type), body, &form, err);
}

static void ok(const char *type, const char *body)
{
    struct cm_err err = {0};

    ck_assert_msg(parse(type, cm_str_of(body), &err) == 0, "%s: %s", body, err.msg);
}

static void bad(const char *type, const char *body, const char *words)
{
    struct cm_err err = {0};

    ck_assert_msg(parse(type, cm_str_of(body), &err) < 0, "%s", body);
    ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_msg(strstr(err.msg, words) != NULL, "%s: %s", body, err.msg);
}

START_TEST(fields_and_their_places)
{
    const char *body =
        "--b1\r\n"
        "content-disposition:form-data;name=model\r\n\r\n"
        "ours\r\n"
        "--b1 \t\r\n"
        "Content-Type: audio/mpeg\r\n"
        "Content-Disposition: form-data; filename=\"a\\\"; x.mp3\"; name=\"file\";\r\n"
        "X-Other: 1\r\n"
        "\r\n"
        "\r\n--b\r\n-- b1\r\r\n\n\r\n" PART("name=\"empty\"", "")
            PART("name=\"image[]\"; filename*=utf-8''x", "p") END "behind";

    ok(TYPE, body);
    ck_str(form.boundary, "b1");
    ck_assert_uint_eq(form.begins, 0);
    ck_assert_uint_eq(form.n, 4);
    ck_str(form.fields[0].name, "model");
    ck_str(form.fields[0].data, "ours");
    ck_assert(!form.fields[0].is_file);
    ck_assert_ptr_eq(form.fields[0].data.p, strstr(body, "ours"));
    ck_str(form.fields[1].name, "file");
    ck_str(form.fields[1].file, "a\\\"; x.mp3");
    ck_str(form.fields[1].media_type, "audio/mpeg");
    ck_str(form.fields[1].data, "\r\n--b\r\n-- b1\r\r\n\n");
    ck_assert_uint_eq(form.fields[2].data.n, 0);
    ck_assert(form.fields[3].is_file);
    ck_assert_ptr_eq(cm_form_find(&form, CM_S("image[]")), &form.fields[3]);
    ck_assert_ptr_null(cm_form_find(&form, CM_S("image")));

    ok(TYPE, "preamble\r\n" PART("name=\"a\"", "1") "--b1--");
    ck_assert_uint_eq(form.begins, strlen("preamble\r\n"));
    ok("Multipart/Form-Data ; charset=x; Boundary=\"b1\";", PART("name=\"a\"", "1") END);
    ok(TYPE, "--b1\r\nContent-Disposition: form-data; name=a\r\n\r\n" END); /* a head alone */
    ck_assert_uint_eq(form.fields[0].data.n, 0);
    ok(TYPE, "--b1--"); /* no part at all */
    ck_assert_uint_eq(form.n, 0);
}
END_TEST

START_TEST(content_types)
{
    static const char *const none[] = {
        "",
        "application/json",
        "multipart/form-dataX; boundary=b1",
        "multipart/mixed; boundary=b1",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=b1; boundary=b2",
        "multipart/form-data; boundary=\"b1",
        "multipart/form-data; boundary=b1 b2",
        "multipart/form-data; boundary=b\xc3\xa4",
        "multipart/form-data boundary=b1",
        "multipart/form-data; boundary=12345678901234567890123456789012345678901234567890123456789012345678901",
    };

    for (size_t i = 0; i < CM_COUNT(none); i++)
        bad(none[i], PART("name=\"a\"", "1") END, "");
    ck_assert(cm_form_is(CM_S(" multipart/form-data;boundary=x")));
    ck_assert(!cm_form_is(CM_S("multipart/form-data2")));
}
END_TEST

START_TEST(what_readers_differ_on_is_refused)
{
    static const struct {
        const char *body, *words;
    } cases[] = {
        {"", "boundary"},
        {"x--b1\r\n", "boundary"},
        {"\n--b1\r\n", "boundary"},
        {"--b1\n" END, "something else"},
        {"--b1x\r\n" END, "something else"},
        {PART("name=\"a\"", "1") "--b1x\r\n" END, "something else"},
        {PART("name=\"a\"", "1") "--b1- " END, "something else"},
        {PART("name=\"a\"", "--b1") END, "no head"},
        {PART("name=\"a\"", "x--b1") END, "no end"},
        {PART("name=\"a\"", "x\n--b1--\r\n") END, "no end"},
        {PART("name=\"a\"", "1") END "\r\n--b1\r\n", "something else"},
        {PART("name=\"a\"", "1"), "no end"},
        {"--b1\r\nContent-Disposition: form-data; name=a\n\n1\r\n" END, "no head"},
        {"--b1\r\nContent-Disposition: form-data; name=a\nX: y\r\n\r\n1\r\n" END, "without CRLF"},
        {"--b1\r\nX: --b1\r\n\r\n1\r\n" END, "no Content-Disposition"},
        {"--b1\r\nX: \r\n--b1\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" END,
         "no header"},
        {"--b1\r\nX: y\r\n\r\n1\r\n" END, "no Content-Disposition"},
        {"--b1\r\nContent-Disposition: form-data; name=a\r\n--b1: x\r\n\r\n1\r\n" END, "no end"},
        {"--b1\r\nContent-Disposition : form-data; name=a\r\n\r\n1\r\n" END, "no header"},
        {"--b1\r\nno header\r\n\r\n1\r\n" END, "no header"},
        {PART("x=y", "1") END, "no name"},
        {PART("name=\"\"", "1") END, "plain"},
        {PART("name=\"a\\b\"", "1") END, "plain"},
        {PART("name=\"a\"; name=\"b\"", "1") END, "plain"},
        {PART("name*=utf-8''a", "1") END, "plain"},
        {PART("name=\"a", "1") END, "no name"},
        {PART("name=a b", "1") END, "no name"},
        {"--b1\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n" END, "no form-data"},
        {"--b1\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; "
         "name=b\r\n\r\n1\r\n" END,
         "two Content-Dispositions"},
        {"--b1\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: "
         "base64\r\n\r\n1\r\n" END,
         "encoded"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++)
        bad(TYPE, cases[i].body, cases[i].words);
    ok(TYPE, "--b1\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: "
             "binary\r\n\r\n1\r\n" END);
}
END_TEST

/* Nothing is read beyond the end, and no beginning of a form is one. */
START_TEST(every_cut)
{
    const char body[] = PART("name=\"model\"", "ours")
        PART("name=\"file\"; filename=\"a\"", "\r\n--b\r\n") "--b1--";

    for (size_t n = 0; n < sizeof(body) - 1; n++) {
        char *copy = cm_str_dup(cm_str(body, n));
        struct cm_err err = {0};

        ck_assert_msg(parse(TYPE, cm_str(copy, n), &err) < 0, "%zu bytes", n);
        free(copy);
        cm_arena_clear(&arena);
    }
    ok(TYPE, body);
}
END_TEST

START_TEST(sizes_are_bounded)
{
    struct cm_buf body = {0};
    struct cm_err err = {0};

    for (size_t i = 0; i <= CM_FORM_FIELDS_MAX; i++)
        cm_buf_append(&body, CM_S(PART("name=\"a\"", "1")));
    cm_buf_append(&body, CM_S(END));
    ck_assert_int_eq(parse(TYPE, cm_buf_str(&body), &err), -1);
    ck_assert(strstr(err.msg, "too many"));
    cm_buf_reset(&body);
    cm_buf_append(&body, CM_S("--b1\r\nX: "));
    for (int i = 0; i < 20000; i++)
        cm_buf_put(&body, 'y');
    cm_buf_append(&body, CM_S("\r\n\r\n1\r\n" END));
    ck_assert_int_eq(parse(TYPE, cm_buf_str(&body), &err), -1);
    ck_assert(strstr(err.msg, "too large"));
    cm_buf_clear(&body);
}
END_TEST

Suite *suite_form(void)
{
    Suite *s = suite_create("form");
    TCase *t = tcase_create("form");

    tcase_add_checked_fixture(t, NULL, teardown);
    tcase_add_test(t, fields_and_their_places);
    tcase_add_test(t, content_types);
    tcase_add_test(t, what_readers_differ_on_is_refused);
    tcase_add_test(t, every_cut);
    tcase_add_test(t, sizes_are_bounded);
    suite_add_tcase(s, t);
    return s;
}
