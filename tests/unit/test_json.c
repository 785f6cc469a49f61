/* JSON: limits before memory, errors with a place, edits that leave every other byte alone, and
 * text that parses again. */
#include "unit.h"

#include "chatmux/codec/json.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/base/utf8.h"

#include <stdlib.h>

static bool buf_is(const struct cm_buf *b, struct cm_str text)
{
    return cm_str_eq(cm_buf_str(b), text);
}

static yyjson_doc *parse(struct cm_str text)
{
    struct cm_err err = {0};
    yyjson_doc *doc = cm_json_parse(text, &cm_json_limits_request, &err);

    ck_assert_msg(doc, "%s in " CM_PRI, err.msg, CM_ARG(text));
    return doc;
}

static yyjson_val *root_of(yyjson_doc *doc)
{
    return yyjson_doc_get_root(doc);
}

START_TEST(the_scan_counts_what_yyjson_stores)
{
    static const struct {
        struct cm_str text;
        unsigned depth;
    } rows[] = {
        {CM_S_INIT("0"), 0},
        {CM_S_INIT(" \"a\\\"b\\\\\" "), 0},
        {CM_S_INIT("[]"), 1},
        {CM_S_INIT("{\"a\":[1,-2.5e3,true,null,\"]}\",{\"b\":{}}], \"c\" : \"\\\\\"}"), 4},
        {CM_S_INIT("[[[[0]]],[[]],{\"\":[]}]"), 4},
        {CM_S_INIT("[\n1 ,\t2\r\n, \"\\u005c\\\"\" ]"), 1},
    };

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        yyjson_doc *doc = parse(rows[i].text);
        size_t values = yyjson_doc_get_val_count(doc);
        struct cm_json_limits limits = {values, rows[i].depth};
        struct cm_err err = {0};

        yyjson_doc_free(doc);
        ck_assert_int_eq(cm_json_scan(rows[i].text, &limits, &err), 0);
        limits.max_values--;
        ck_assert_int_eq(cm_json_scan(rows[i].text, &limits, &err), -1);
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_ptr_nonnull(strstr(err.msg, "JSON has more than "));
        ck_assert_ptr_null(cm_json_parse(rows[i].text, &limits, &err));
        limits.max_values++;
        if (limits.max_depth-- == 0)
            continue;
        ck_assert_int_eq(cm_json_scan(rows[i].text, &limits, &err), -1);
        ck_assert_ptr_nonnull(strstr(err.msg, "JSON is nested deeper than "));
    }
}
END_TEST

START_TEST(limits_are_told_with_their_place)
{
    const struct cm_json_limits limits = {3, 2};
    struct cm_err err = {0};

    ck_assert_int_eq(cm_json_scan(CM_S("[1,2,3]"), &limits, &err), -1);
    ck_assert_str_eq(err.msg, "JSON has more than 3 values (the limit is passed at byte 5)");
    ck_assert_int_eq(cm_json_scan(CM_S("[[ [1]]]"), &limits, &err), -1);
    ck_assert_str_eq(err.msg, "JSON is nested deeper than 2 levels at byte 3");
    ck_assert_uint_eq(cm_json_limits_request.max_values, 4000000);
    ck_assert_uint_eq(cm_json_limits_request.max_depth, 128);
    ck_assert_uint_eq(cm_json_limits_event.max_values, 200000);
    ck_assert_uint_eq(cm_json_limits_event.max_depth, 64);
}
END_TEST

START_TEST(errors_say_where_and_why)
{
    static const struct {
        struct cm_str text;
        const char *msg;
    } rows[] = {
        {CM_S_INIT(""), "line 1, column 1 (byte 0): the text is empty"},
        {CM_S_INIT(" \n "), "line 2, column 2 (byte 3): the text is empty"},
        {CM_S_INIT("{\"a\":1,\n \"b\": x}"), "line 2, column 7 (byte 14): unexpected character"},
        {CM_S_INIT("[\"\xE4\xB8\x96\", x]"), "line 1, column 7 (byte 8): unexpected character"},
        {CM_S_INIT("{\"a\":\"x}"),
         "line 1, column 6 (byte 5): the string that begins here has no end"},
        {CM_S_INIT("[1,\n2}"), "line 2, column 2 (byte 5): '}' where ']' must end the array"},
        {CM_S_INIT("{\"a\":1]"), "line 1, column 7 (byte 6): ']' where '}' must end the object"},
        {CM_S_INIT("}"), "line 1, column 1 (byte 0): this bracket closes nothing"},
        {CM_S_INIT("[]]"), "line 1, column 3 (byte 2): this bracket closes nothing"},
        {CM_S_INIT("{\"a\":[1]"), "line 1, column 9 (byte 8): the text ends where '}' is missing"},
        {CM_S_INIT("[[1]"), "line 1, column 5 (byte 4): the text ends where ']' is missing"},
        /* the bracket at the end is not where the mistake is */
        {CM_S_INIT("{\"a\": \"b, \"c\": 1}"), "line 1, column 12 (byte 11): unexpected character"},
        {CM_S_INIT("[1 2"), "line 1, column 4 (byte 3): unexpected character"},
    };

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        struct cm_err err = {0};

        ck_assert_ptr_null(cm_json_parse(rows[i].text, &cm_json_limits_request, &err));
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_msg(strncmp(err.msg, "invalid JSON at ", 16) == 0 &&
                          strncmp(err.msg + 16, rows[i].msg, strlen(rows[i].msg)) == 0,
                      "row %zu: \"%s\"", i, err.msg);
    }
}
END_TEST

START_TEST(what_json_forbids_is_refused_with_a_position)
{
    static const struct cm_str rows[] = {
        CM_S_INIT("[1,]"),
        CM_S_INIT("{\"a\":1,}"),
        CM_S_INIT("{'a':1}"),
        CM_S_INIT("[1] x"),
        CM_S_INIT("[1][2]"),
        CM_S_INIT("// c\n1"),
        CM_S_INIT("[NaN]"),
        CM_S_INIT("[01]"),
        CM_S_INIT("[+1]"),
        CM_S_INIT("[1.]"),
        CM_S_INIT("[tru]"),
        CM_S_INIT("\"a\nb\""),
        CM_S_INIT("\"\\x\""),
        CM_S_INIT("\"\\u12\""),
        CM_S_INIT("\"\\ud800\""),
        CM_S_INIT("\"\\udc00\""),
        CM_S_INIT("\"\\ud800\\u0041\""),
        CM_S_INIT("\"\\ud800x\""),
        CM_S_INIT("\"\xff\""),
        CM_S_INIT("\"\xc0\x80\""),
        CM_S_INIT("\"\xed\xa0\x80\""),
        CM_S_INIT("\"\xe4\xb8\""),
        CM_S_INIT("\xEF\xBB\xBF{}"),
        CM_S_INIT("[\"a\" \"b\"]"),
        CM_S_INIT("[1]\0"),
    };

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        struct cm_err err = {0};

        ck_assert_msg(!cm_json_parse(rows[i], &cm_json_limits_request, &err), "row %zu", i);
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        ck_assert_ptr_nonnull(strstr(err.msg, "invalid JSON at line "));
    }
}
END_TEST

START_TEST(the_document_does_not_need_the_text)
{
    char text[] = "{\"a\":\"b\\u00e9\"}";
    yyjson_doc *doc = parse(cm_str_of(text));

    memset(text, 'x', sizeof(text));
    ck_assert(cm_str_eq(cm_json_str(cm_json_get(root_of(doc), "a")), CM_S("b\xC3\xA9")));
    yyjson_doc_free(doc);
}
END_TEST

START_TEST(members_are_found)
{
    yyjson_doc *doc =
        parse(CM_S("{\"s\":\"a\\u0000b\",\"n\":null,\"i\":3,\"s\":\"second\",\"\\u0065\":1}"));
    yyjson_val *root = root_of(doc);

    ck_assert(cm_str_eq(cm_json_str(cm_json_get(root, "s")), CM_S("a\0b")));
    ck_assert_ptr_nonnull(cm_json_get(root, "n"));
    ck_assert_ptr_null(cm_json_opt(root, "n"));
    ck_assert_ptr_nonnull(cm_json_opt(root, "i"));
    ck_assert_ptr_nonnull(cm_json_opt(root, "e"));
    ck_assert_ptr_null(cm_json_get(root, "x"));
    ck_assert_ptr_null(cm_json_opt(root, "x"));
    ck_assert_ptr_null(cm_json_get(NULL, "x"));
    ck_assert_ptr_null(cm_json_get(cm_json_get(root, "i"), "x"));
    ck_assert_uint_eq(cm_json_str(cm_json_get(root, "i")).n, 0);
    ck_assert_uint_eq(cm_json_str(NULL).n, 0);
    yyjson_doc_free(doc);
}
END_TEST

#define SET(key, value) {CM_S_INIT(key), CM_S_INIT(value)}
#define REMOVE(key) {CM_S_INIT(key), {NULL, 0}}

START_TEST(splice_changes_what_was_asked_and_nothing_else)
{
    static const struct {
        struct cm_str text;
        struct cm_json_edit edits[3]; /* ends with an empty key */
        struct cm_str out;
    } rows[] = {
        {CM_S_INIT("{\"model\":\"a\",\"n\":1.0e+02}"),
         {SET("model", "\"b\"")},
         CM_S_INIT("{\"model\":\"b\",\"n\":1.0e+02}")},
        {CM_S_INIT(" {\n \"x\" : [1, 2] ,\n \"model\" :\t\"a\" \n} \n"),
         {SET("model", "\"b\"")},
         CM_S_INIT(" {\n \"x\" : [1, 2] ,\n \"model\" :\t\"b\" \n} \n")},
        {CM_S_INIT("{\"\\u006dodel\":1}"), {SET("model", "2")}, CM_S_INIT("{\"\\u006dodel\":2}")},
        {CM_S_INIT("{\"\\/\":1,\"\\ud83d\\ude00\":1}"),
         {SET("/", "2"), SET("\xF0\x9F\x98\x80", "3")},
         CM_S_INIT("{\"\\/\":2,\"\\ud83d\\ude00\":3}")},
        {CM_S_INIT("{\"a\\\\\":1}"),
         {SET("a\\\\", "2"), SET("a\\", "3")},
         CM_S_INIT("{\"a\\\\\":3,\"a\\\\\\\\\":2}")},
        {CM_S_INIT("{\"x\":{\"model\":1},\"y\":[{\"model\":2}]}"),
         {SET("model", "3")},
         CM_S_INIT("{\"x\":{\"model\":1},\"y\":[{\"model\":2}],\"model\":3}")},
        /* appending */
        {CM_S_INIT("{}"), {SET("a", "1")}, CM_S_INIT("{\"a\":1}")},
        {CM_S_INIT(" { } "),
         {SET("a", "1"), SET("b\"", "[]")},
         CM_S_INIT(" {\"a\":1,\"b\\\"\":[] } ")},
        {CM_S_INIT("{\n  \"x\": 1\n}\n"),
         {SET("a", "true")},
         CM_S_INIT("{\n  \"x\": 1,\"a\":true\n}\n")},
        {CM_S_INIT("{\"x\":1}"), {SET("a", "1"), SET("a", "2")}, CM_S_INIT("{\"x\":1,\"a\":1}")},
        /* removing */
        {CM_S_INIT("{\"a\":1}"), {REMOVE("a")}, CM_S_INIT("{}")},
        {CM_S_INIT("{ \"a\":1 }"), {REMOVE("a")}, CM_S_INIT("{  }")},
        {CM_S_INIT("{ \"a\":1 , \"b\":2 }"), {REMOVE("a")}, CM_S_INIT("{ \"b\":2 }")},
        {CM_S_INIT("{ \"a\":1 , \"b\":2 }"), {REMOVE("b")}, CM_S_INIT("{ \"a\":1 }")},
        {CM_S_INIT("{\"a\":1,\"b\":2,\"c\":3}"), {REMOVE("b")}, CM_S_INIT("{\"a\":1,\"c\":3}")},
        {CM_S_INIT("{\"a\":1,\"b\":2,\"c\":3}"),
         {REMOVE("a"), REMOVE("b")},
         CM_S_INIT("{\"c\":3}")},
        {CM_S_INIT("{\"a\":1,\"b\":2,\"c\":3}"),
         {REMOVE("b"), REMOVE("c")},
         CM_S_INIT("{\"a\":1}")},
        {CM_S_INIT("{\"a\":1,\"b\":2,\"c\":3}"),
         {REMOVE("a"), REMOVE("c")},
         CM_S_INIT("{\"b\":2}")},
        {CM_S_INIT("{\"a\":1}"), {REMOVE("x")}, CM_S_INIT("{\"a\":1}")},
        {CM_S_INIT("{\"a\":1}"), {REMOVE("a"), SET("b", "2")}, CM_S_INIT("{\"b\":2}")},
        {CM_S_INIT("{\"a\":1,\"b\":1}"), {REMOVE("a"), SET("b", "2")}, CM_S_INIT("{\"b\":2}")},
        {CM_S_INIT("{\"b\":1,\"a\":1}"), {SET("b", "2"), REMOVE("a")}, CM_S_INIT("{\"b\":2}")},
        /* doubled: one is left, whichever a parser would take */
        {CM_S_INIT("{\"a\":1,\"b\":0,\"a\":2,\"\\u0061\":3}"),
         {SET("a", "9")},
         CM_S_INIT("{\"a\":9,\"b\":0}")},
        {CM_S_INIT("{\"a\":1,\"b\":0,\"a\":2}"), {REMOVE("a")}, CM_S_INIT("{\"b\":0}")},
        {CM_S_INIT("{\"a\":1,\"a\":2}"), {REMOVE("a")}, CM_S_INIT("{}")},
        /* what looks like structure inside strings */
        {CM_S_INIT("{\"x\":\"}\\\",\\\"a\\\":1\\\\\",\"a\":\"{[\"}"),
         {SET("a", "2")},
         CM_S_INIT("{\"x\":\"}\\\",\\\"a\\\":1\\\\\",\"a\":2}")},
    };

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        struct cm_buf out = {0};
        struct cm_err err = {0};
        size_t n = 0;

        while (n < CM_COUNT(rows[i].edits) && rows[i].edits[n].key.n > 0)
            n++;
        cm_buf_append(&out, CM_S("before"));
        ck_assert_int_eq(cm_json_splice(rows[i].text, rows[i].edits, n, &out, &err), 0);
        cm_buf_consume(&out, 6);
        ck_assert_msg(buf_is(&out, rows[i].out), "row %zu: " CM_PRI, i, CM_ARG(out));
        cm_buf_clear(&out);
    }
}
END_TEST

START_TEST(splice_refuses_what_is_no_object)
{
    const struct cm_json_edit edit = SET("a", "2");
    const struct cm_str whole = CM_S("{ \"x\" : [1,{\"y\":\"\\\"\"}] , \"a\" : 1 }");
    static const struct cm_str rows[] = {
        CM_S_INIT(""),
        CM_S_INIT("[1]"),
        CM_S_INIT("\"a\""),
        CM_S_INIT("{} x"),
        CM_S_INIT("{}{}"),
        CM_S_INIT("{a:1}"),
        CM_S_INIT("{\"a\" 1}"),
        CM_S_INIT("{\"a\":}"),
        CM_S_INIT("{\"a\":,}"),
        CM_S_INIT("{\"a\":]"),
        CM_S_INIT("{\"a\":1 2}"),
        CM_S_INIT("{,\"a\":1}"),
        CM_S_INIT("{\"a\":1\"b\":2}"),
    };
    struct cm_buf out = {0};
    struct cm_err err = {0};

    cm_buf_append(&out, CM_S("kept"));
    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        ck_assert_msg(cm_json_splice(rows[i], &edit, 1, &out, &err) == -1, "row %zu", i);
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
        ck_assert(buf_is(&out, CM_S("kept")));
    }
    for (size_t n = 0; n < whole.n; n++) {
        char *exact = cm_str_dup(cm_str_head(whole, n));

        ck_assert_int_eq(cm_json_splice(cm_str(exact, n), &edit, 1, &out, &err), -1);
        ck_assert(buf_is(&out, CM_S("kept")));
        free(exact);
    }
    ck_assert_int_eq(cm_json_splice(CM_S("{\"a\":1,\n oops}"), &edit, 1, &out, &err), -1);
    ck_assert_str_eq(err.msg,
                     "invalid JSON at line 2, column 2 (byte 9): a member must begin here");
    cm_buf_clear(&out);
}
END_TEST

START_TEST(member_gives_the_text_of_a_value)
{
    const struct cm_str text =
        CM_S(" { \"a\" : [1, {\"b\": 2}] , \"\\u0062\":-0.50,\"b\":1, \"o\":{ } }");

    ck_assert(cm_str_eq(cm_json_member(text, CM_S("a")), CM_S("[1, {\"b\": 2}]")));
    ck_assert(cm_str_eq(cm_json_member(text, CM_S("b")), CM_S("-0.50")));
    ck_assert(cm_str_eq(cm_json_member(text, CM_S("o")), CM_S("{ }")));
    ck_assert_uint_eq(cm_json_member(text, CM_S("x")).n, 0);
    ck_assert_uint_eq(cm_json_member(CM_S("[\"a\"]"), CM_S("a")).n, 0);
    ck_assert_uint_eq(cm_json_member(CM_S("{\"a\" 1}"), CM_S("a")).n, 0);
    ck_assert_uint_eq(cm_json_member(CM_STR_NONE, CM_S("a")).n, 0);
}
END_TEST

/* A made-up object of which we know every member, in the spelling it was given. */
struct made {
    struct cm_buf text;
    struct {
        size_t name;         /* index into `names` */
        size_t begin, value; /* offsets in `text` */
        size_t end;
    } members[12];
    size_t n;
};

static const char *const names[] = {"model", "stream", "n", "a\"b", "\xC3\xA9"};
static const char *const spellings[][3] = {{"model", "\\u006dodel", "mode\\u006C"},
                                           {"stream", "str\\u0065am", "stream"},
                                           {"n", "\\u006e", "n"},
                                           {"a\\\"b", "a\\u0022b", "\\u0061\\\"b"},
                                           {"\xC3\xA9", "\\u00e9", "\\u00E9"}};
static const char *const values[] = {
    "1",    "-0.0e+1",        "\"x\"", "\"}\\\",{\"", "[ ]", "{\"model\": 1}",
    "null", "[1,[\"]\"], 2]", "\"\"",  "true"};
static const char *const spaces[] = {"", "", "", " ", "\n  ", "\t\r\n"};

#define ANY(rng, array) (array)[cm_rng_below((rng), CM_COUNT(array))]

static void put_space(struct made *m, struct cm_rng *rng)
{
    cm_buf_append(&m->text, cm_str_of(ANY(rng, spaces)));
}

static void make_object(struct made *m, struct cm_rng *rng)
{
    m->text = (struct cm_buf){0};
    m->n = cm_rng_below(rng, CM_COUNT(m->members) + 1);
    put_space(m, rng);
    cm_buf_put(&m->text, '{');
    for (size_t i = 0; i < m->n; i++) {
        if (i > 0)
            cm_buf_put(&m->text, ',');
        put_space(m, rng);
        m->members[i].name = cm_rng_below(rng, CM_COUNT(names));
        m->members[i].begin = m->text.n;
        cm_buf_printf(&m->text, "\"%s\"", ANY(rng, spellings[m->members[i].name]));
        put_space(m, rng);
        cm_buf_put(&m->text, ':');
        put_space(m, rng);
        m->members[i].value = m->text.n;
        cm_buf_append(&m->text, cm_str_of(ANY(rng, values)));
        m->members[i].end = m->text.n;
        put_space(m, rng);
    }
    if (m->n == 0)
        put_space(m, rng);
    cm_buf_put(&m->text, '}');
    put_space(m, rng);
}

static struct cm_str made_slice(const struct made *m, size_t from, size_t to)
{
    return cm_str(m->text.p + from, to - from);
}

/* The next member of `out` has this name and a value equal to the text `value`. */
static void assert_member(yyjson_obj_iter *it, const char *name, struct cm_str value)
{
    yyjson_val *key = yyjson_obj_iter_next(it);
    yyjson_doc *doc = parse(value);

    ck_assert_msg(key, "a member is missing");
    ck_assert_str_eq(yyjson_get_str(key), name);
    ck_assert(yyjson_equals(yyjson_obj_iter_get_val(key), root_of(doc)));
    yyjson_doc_free(doc);
}

/* Looks for `piece` behind *at and moves there: untouched text must be there in its order. */
static void assert_follows(const struct cm_buf *out, size_t *at, struct cm_str piece)
{
    size_t found = cm_str_find(cm_str_from(cm_buf_str(out), *at), piece);

    ck_assert_msg(found != SIZE_MAX, "\"" CM_PRI "\" is not in " CM_PRI, CM_ARG(piece),
                  CM_ARG(*out));
    *at += found + piece.n;
}

static void check_splice(const struct made *m, const struct cm_json_edit *edits, size_t n)
{
    struct cm_buf out = {0};
    struct cm_err err = {0};
    yyjson_doc *doc;
    yyjson_obj_iter it;
    bool seen[CM_COUNT(names)] = {false};
    size_t at = 0;

    ck_assert_int_eq(cm_json_splice(cm_buf_str(&m->text), edits, n, &out, &err), 0);
    doc = parse(cm_buf_str(&out));
    it = yyjson_obj_iter_with(root_of(doc));
    for (size_t i = 0; i < m->n; i++) {
        size_t name = m->members[i].name, e = 0;

        while (e < n && !cm_str_eq(edits[e].key, cm_str_of(names[name])))
            e++;
        if (e < n && (edits[e].value.n == 0 || seen[name]))
            continue;
        seen[name] = true;
        assert_follows(&out, &at, made_slice(m, m->members[i].begin, m->members[i].value));
        assert_follows(&out, &at,
                       e < n ? edits[e].value
                             : made_slice(m, m->members[i].value, m->members[i].end));
        assert_member(&it, names[name],
                      e < n ? edits[e].value
                            : made_slice(m, m->members[i].value, m->members[i].end));
    }
    for (size_t e = 0; e < n; e++) {
        bool there = false;

        for (size_t k = 0; k < CM_COUNT(names); k++)
            there |= seen[k] && cm_str_eq(edits[e].key, cm_str_of(names[k]));
        if (!there && edits[e].value.n > 0)
            assert_member(&it, edits[e].key.p, edits[e].value);
    }
    ck_assert_ptr_null(yyjson_obj_iter_next(&it));
    if (m->n > 0) {
        ck_assert(cm_str_starts(cm_buf_str(&out), made_slice(m, 0, m->members[0].begin)));
        ck_assert(
            cm_str_ends(cm_buf_str(&out), made_slice(m, m->members[m->n - 1].end, m->text.n)));
    }
    if (n == 0)
        ck_assert(buf_is(&out, cm_buf_str(&m->text)));
    yyjson_doc_free(doc);
    cm_buf_clear(&out);
}

START_TEST(splice_holds_for_random_objects_and_edits)
{
    struct cm_rng rng;

    cm_rng_seed(&rng, 3);
    for (int round = 0; round < 20000; round++) {
        struct cm_json_edit edits[CM_COUNT(names)];
        struct made m;
        size_t n = 0;

        make_object(&m, &rng);
        for (size_t k = 0; k < CM_COUNT(names); k++) {
            if (cm_rng_below(&rng, 2) == 0)
                continue;
            edits[n].key = cm_str_of(names[k]);
            edits[n++].value = cm_rng_below(&rng, 2) ? cm_str_of(ANY(&rng, values)) : CM_STR_NONE;
        }
        check_splice(&m, edits, n);
        cm_buf_clear(&m.text);
    }
}
END_TEST

/* Quadratic work would take minutes here. */
START_TEST(big_texts_take_linear_time)
{
    const struct cm_json_edit edits[] = {SET("model", "\"b\""), REMOVE("k"), SET("new", "1")};
    struct cm_buf text = {0}, out = {0};
    struct cm_err err;

    cm_buf_append(&text, CM_S("{\"k\":\""));
    for (int i = 0; i < 1000000; i++)
        cm_buf_append(&text, CM_S("\\\\\\\""));
    cm_buf_append(&text, CM_S("\",\"model\":\"a\""));
    for (int i = 0; i < 100000; i++)
        cm_buf_append(&text, CM_S(",\"k\":[[]],\"\\u006b\":{}"));
    cm_buf_put(&text, '}');
    ck_assert_int_eq(cm_json_scan(cm_buf_str(&text), &cm_json_limits_request, &err), 0);
    ck_assert_int_eq(cm_json_splice(cm_buf_str(&text), edits, CM_COUNT(edits), &out, &err), 0);
    ck_assert(buf_is(&out, CM_S("{\"model\":\"b\",\"new\":1}")));
    cm_buf_clear(&text);
    cm_buf_clear(&out);
}
END_TEST

START_TEST(strings_are_escaped)
{
    static const struct {
        struct cm_str in, out;
    } rows[] = {
        {CM_S_INIT(""), CM_S_INIT("\"\"")},
        {{NULL, 0}, CM_S_INIT("\"\"")},
        {CM_S_INIT("plain text, long enough for words"),
         CM_S_INIT("\"plain text, long enough for words\"")},
        {CM_S_INIT("\"\\/"), CM_S_INIT("\"\\\"\\\\/\"")},
        {CM_S_INIT("\b\f\n\r\t"), CM_S_INIT("\"\\b\\f\\n\\r\\t\"")},
        {CM_S_INIT("\0\x01\x1f\x20\x7f"), CM_S_INIT("\"\\u0000\\u0001\\u001f\x20\x7f\"")},
        {CM_S_INIT("\xE4\xB8\x96\xF0\x9F\x98\x80"), CM_S_INIT("\"\xE4\xB8\x96\xF0\x9F\x98\x80\"")},
        {CM_S_INIT("a\xff\"\xc3"), CM_S_INIT("\"a\xEF\xBF\xBD\\\"\xEF\xBF\xBD\"")},
    };
    struct cm_buf out = {0};

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        cm_buf_reset(&out);
        cm_json_put_str(&out, rows[i].in);
        ck_assert_msg(buf_is(&out, rows[i].out), "row %zu: " CM_PRI, i, CM_ARG(out));
    }
    cm_buf_clear(&out);
}
END_TEST

/* Parsing what was written gives the string back, cleaned. */
static void check_round_trip(struct cm_str s)
{
    struct cm_buf out = {0}, clean = {0};
    yyjson_doc *doc;

    cm_json_put_str(&out, s);
    cm_utf8_clean(&clean, s);
    doc = parse(cm_buf_str(&out));
    ck_assert(cm_str_eq(cm_json_str(root_of(doc)), cm_buf_str(&clean)));
    yyjson_doc_free(doc);
    cm_buf_clear(&out);
    cm_buf_clear(&clean);
}

START_TEST(every_byte_at_every_place_survives_writing)
{
    char text[24];

    for (unsigned byte = 0; byte < 256; byte++) {
        for (size_t at = 0; at < sizeof(text); at++) {
            for (size_t i = 0; i < sizeof(text); i++)
                text[i] = "ab !#[]~"[i % 8];
            text[at] = (char)byte;
            check_round_trip(cm_str(text, sizeof(text)));
        }
    }
}
END_TEST

START_TEST(random_strings_survive_writing)
{
    static const char *const parts[] = {"\"",       "\\",
                                        "\n",       "\x1f",
                                        "\x80",     "\xE4\xB8\x96",
                                        "\xE4\xB8", "\xF0\x9F\x98\x80",
                                        "a",        "words in between ",
                                        "\x7f",     "\xED\xA0\x80"};
    struct cm_rng rng;

    cm_rng_seed(&rng, 5);
    for (int round = 0; round < 5000; round++) {
        struct cm_buf text = {0};

        for (uint64_t n = cm_rng_below(&rng, 40); n > 0; n--)
            cm_buf_append(&text, cm_str_of(ANY(&rng, parts)));
        check_round_trip(cm_buf_str(&text));
        cm_buf_clear(&text);
    }
}
END_TEST

START_TEST(numbers_and_c_strings_are_written)
{
    static const struct {
        int64_t in;
        const char *out;
    } rows[] = {{0, "0"},
                {-1, "-1"},
                {INT64_MAX, "9223372036854775807"},
                {INT64_MIN, "-9223372036854775808"}};
    struct cm_buf out = {0};

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        cm_buf_reset(&out);
        cm_json_put_int(&out, rows[i].in);
        ck_assert(buf_is(&out, cm_str_of(rows[i].out)));
    }
    cm_buf_reset(&out);
    cm_json_put_z(&out, NULL);
    cm_json_put_z(&out, "a\"");
    ck_assert(buf_is(&out, CM_S("null\"a\\\"\"")));
    cm_buf_clear(&out);
}
END_TEST

START_TEST(values_are_written_compact)
{
    const struct cm_str text = CM_S(
        "{ \"a\" : [1,-2,1.5,true,null,\"x\\n\\u00e9\"], \"b\":{},\"big\":18446744073709551615 }");
    yyjson_doc *doc = parse(text), *again;
    struct cm_buf out = {0};

    cm_json_put_val(&out, cm_json_get(root_of(doc), "a"));
    ck_assert(buf_is(&out, CM_S("[1,-2,1.5,true,null,\"x\\n\xC3\xA9\"]")));
    cm_buf_reset(&out);
    cm_json_put_val(&out, root_of(doc));
    again = parse(cm_buf_str(&out));
    ck_assert(yyjson_equals(root_of(doc), root_of(again)));
    cm_buf_reset(&out);
    cm_json_put_val(&out, NULL);
    ck_assert(buf_is(&out, CM_S("null")));
    yyjson_doc_free(doc);
    yyjson_doc_free(again);
    cm_buf_clear(&out);
}
END_TEST

START_TEST(a_full_buffer_is_remembered)
{
    const struct cm_json_edit edit = SET("model", "\"a long name\"");
    struct cm_buf out;
    struct cm_err err;

    cm_buf_init(&out, 16);
    ck_assert_int_eq(cm_json_splice(CM_S("{\"model\":1,\"x\":2}"), &edit, 1, &out, &err), 0);
    ck_assert(out.failed);
    cm_buf_clear(&out);
}
END_TEST

START_TEST(items_of_an_array)
{
    static const struct {
        const char *array, *items; /* "|" behind each; "!" = malformed after them */
    } cases[] = {
        {"[]", ""},
        {" [ ] ", ""},
        {"[1]", "1|"},
        {" [ {\"a\":[1,2]} , \"x,]\" ,null,[ [] ] ] ", "{\"a\":[1,2]}|\"x,]\"|null|[ [] ]|"},
        {"[1 2]", "1|!"},
        {"[1,]", "1|!"},
        {"[1", "1|!"},
        {"{}", "!"},
        {"", "!"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_buf seen = {0};
        struct cm_str item;
        size_t at = 0;
        int more;

        while ((more = cm_json_item(cm_str_of(cases[i].array), &at, &item)) > 0) {
            cm_buf_append(&seen, item);
            cm_buf_put(&seen, '|');
        }
        if (more < 0)
            cm_buf_put(&seen, '!');
        ck_assert_msg(cm_str_eq(cm_buf_str(&seen), cm_str_of(cases[i].items)), "%s",
                      cases[i].array);
        cm_buf_clear(&seen);
    }
}
END_TEST

Suite *suite_json(void)
{
    Suite *suite = suite_create("json");
    TCase *read = tcase_create("read"), *edit = tcase_create("edit"),
          *write = tcase_create("write");

    tcase_add_test(read, the_scan_counts_what_yyjson_stores);
    tcase_add_test(read, limits_are_told_with_their_place);
    tcase_add_test(read, errors_say_where_and_why);
    tcase_add_test(read, what_json_forbids_is_refused_with_a_position);
    tcase_add_test(read, the_document_does_not_need_the_text);
    tcase_add_test(read, members_are_found);
    suite_add_tcase(suite, read);

    tcase_add_test(edit, splice_changes_what_was_asked_and_nothing_else);
    tcase_add_test(edit, splice_refuses_what_is_no_object);
    tcase_add_test(edit, member_gives_the_text_of_a_value);
    tcase_add_test(edit, items_of_an_array);
    tcase_add_test(edit, splice_holds_for_random_objects_and_edits);
    tcase_add_test(edit, big_texts_take_linear_time);
    tcase_add_test(edit, a_full_buffer_is_remembered);
    suite_add_tcase(suite, edit);

    tcase_add_test(write, strings_are_escaped);
    tcase_add_test(write, every_byte_at_every_place_survives_writing);
    tcase_add_test(write, random_strings_survive_writing);
    tcase_add_test(write, numbers_and_c_strings_are_written);
    tcase_add_test(write, values_are_written_compact);
    suite_add_tcase(suite, write);
    return suite;
}
