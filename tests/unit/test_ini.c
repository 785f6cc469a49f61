/* INI reader. */
#include "chatmux/base/ini.h"
#include "unit.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"

static struct cm_arena arena;
static struct cm_problems problems;
static struct cm_ini_entry *entries;
static size_t n_entries;

static const char *env(void *arg, const char *name)
{
    (void)arg;
    if (strcmp(name, "NAME") == 0)
        return "value";
    if (strcmp(name, "EMPTY") == 0)
        return "";
    if (strcmp(name, "LIST") == 0)
        return "a,b ";
    if (strcmp(name, "NESTED") == 0)
        return "${NAME}";
    return strcmp(name, "LINES") == 0 ? "a\n[auth]\nopen = yes" : NULL;
}

static void parse_str(struct cm_str text)
{
    cm_arena_clear(&arena);
    cm_problems_init(&problems, &arena);
    cm_ini_parse(&arena, "f.ini", text, env, NULL, &entries, &n_entries, &problems);
}

static void parse(const char *text)
{
    parse_str(cm_str_of(text));
}

/* The first entry of this key in any section. */
static struct cm_ini_entry entry(const char *key)
{
    for (size_t i = 0; i < n_entries; i++) {
        if (cm_str_eq(entries[i].key, cm_str_of(key)))
            return entries[i];
    }
    ck_abort_msg("no entry %s", key);
}

static struct cm_str value(const char *key)
{
    return entry(key).value;
}

/* "a|b|c" */
static struct cm_str joined(struct cm_strs list)
{
    struct cm_str all = CM_STR_NONE;

    for (size_t i = 0; i < list.n; i++)
        all = cm_arena_printf(&arena, CM_PRI "%s" CM_PRI, CM_ARG(all), i ? "|" : "",
                              CM_ARG(list.v[i]));
    return all;
}

static struct cm_str items(const char *key)
{
    return joined(entry(key).items);
}

static struct cm_str list_of(const char *text)
{
    return joined(cm_ini_list(&arena, cm_str_of(text)));
}

static void no_problem(void)
{
    if (problems.n > 0)
        ck_abort_msg("%s: %s", problems.first->where.p, problems.first->text.p);
}

static void one_problem(const char *where, const char *text)
{
    ck_assert_uint_eq(problems.n, 1);
    ck_assert_str_eq(problems.first->where.p, where);
    ck_assert_msg(cm_str_has(problems.first->text, cm_str_of(text)), "\"%s\" lacks \"%s\"",
                  problems.first->text.p, text);
}

START_TEST(sections_begin_with_an_entry_of_their_own)
{
    parse("[server]\nlisten = a\n\n[provider  my one ]\ntype=openai\n[log]");
    no_problem();
    ck_assert_uint_eq(n_entries, 5);
    ck_str(entries[0].kind, "server");
    ck_str(entries[0].name, "");
    ck_str(entries[0].key, "");
    ck_str(entries[1].key, "listen");
    ck_assert_int_eq(entries[1].line, 2);
    ck_str(entries[2].kind, "provider");
    ck_str(entries[2].name, "my one");
    ck_assert_int_eq(entries[2].line, 4);
    ck_str(entries[3].name, "my one");
    ck_str(entries[3].value, "openai");
    ck_str(entries[4].kind, "log");
}
END_TEST

START_TEST(values_hold_comment_signs_and_equals)
{
    parse("[s]\ncookie = a=1; b=2 # c, \"d\"\nempty =\nnone=\n");
    no_problem();
    ck_str(value("cookie"), "a=1; b=2 # c, \"d\"");
    ck_str(value("empty"), "");
    ck_str(value("none"), "");
    ck_str(items("empty"), "");
}
END_TEST

START_TEST(comments_count_at_the_start_of_a_line)
{
    parse("; one\n# two\n[s]\n   ; before any key, so this continues nothing\nk =\n  #item\n"
          "; not an item\n  ;item two\n\n\tthird\n#end\nl = x\n");
    no_problem();
    ck_str(items("k"), "#item|;item two|third");
    ck_str(value("k"), "#item\n;item two\nthird");
    ck_str(value("l"), "x");
}
END_TEST

START_TEST(lists_are_read_both_ways)
{
    parse("[s]\na = 1, 2 ,,\"3,4\", \"say \"\"hi\"\"\"\nb =\n  1, 2\n  \"3, 4\"\nc = 1, 2\n  3, 4\n"
          "d = \"un\" quoted, 5\" tall\ne = \"open, end\nf = \" spaced \"\n");
    no_problem();
    ck_str(items("a"), "1|2|3,4|say \"hi\"");
    ck_str(items("b"), "1, 2|3, 4");
    ck_str(items("c"), "1|2|3, 4");
    ck_str(items("d"), "\"un\" quoted|5\" tall");
    ck_str(items("e"), "\"open|end");
    ck_str(items("f"), " spaced ");
    ck_str(value("f"), "\" spaced \"");
}
END_TEST

START_TEST(a_plain_list_is_lines_or_commas)
{
    ck_str(list_of(""), "");
    ck_str(list_of(" , ,"), "");
    ck_str(list_of("a, b"), "a|b");
    ck_str(list_of("a, b\n c"), "a, b|c");
    ck_str(list_of("\na, b"), "a, b");
    ck_str(list_of("\"a, b\" , c,\"\""), "a, b|c");
}
END_TEST

START_TEST(variables_expand_once)
{
    parse("[s]\na = ${NAME}-${NAME}\nb = ${EMPTY}\nc = ${EMPTY:-x y}\nd = ${UNSET:-}\n"
          "e = $${NAME} $$${NAME} $ $$ $NAME\nf = ${NESTED}\ng = ${LIST}, c\nh =\n  ${LIST}\n"
          "i = ${NAME}$${x}\nj = ${UNSET:-a, b}, $${c, d}\n");
    no_problem();
    ck_str(value("a"), "value-value");
    ck_str(value("b"), "");
    ck_str(value("c"), "x y");
    ck_str(value("d"), "");
    ck_str(items("d"), "");
    ck_str(value("e"), "${NAME} $${NAME} $ $$ $NAME");
    ck_str(value("f"), "${NAME}");
    ck_str(items("g"), "a,b|c");
    ck_str(items("h"), "a,b");
    ck_str(value("i"), "value${x}");
    ck_str(items("j"), "a, b|${c|d}");
}
END_TEST

START_TEST(bad_variables_are_told_with_their_line)
{
    parse("[s]\nk = ${UNSET}\n");
    one_problem("f.ini:2", "UNSET is not set");
    parse("[s]\nk =\n  a\n; gap\n\n  ${UNSET}\n");
    one_problem("f.ini:6", "UNSET is not set");
    parse("[s]\nk = ${LINES}\n");
    one_problem("f.ini:2", "LINES holds a line break");
    ck_assert_uint_eq(n_entries, 2);
    parse("[s]\nk = ${NAME\n");
    one_problem("f.ini:2", "without its }");
    parse("[s]\nk = ${a b}\n");
    one_problem("f.ini:2", "not written as");
    parse("[s]\nk = ${1A}\n");
    one_problem("f.ini:2", "not written as");
    parse("[s]\nk = ${A:-${NAME}}\n");
    one_problem("f.ini:2", "another variable in its default");
}
END_TEST

START_TEST(line_ends_and_marks_of_other_systems)
{
    parse("\xEF\xBB\xBF[s]\r\nk = v\r\nl =\r\n  1\r\n  2\r\n");
    no_problem();
    ck_str(value("k"), "v");
    ck_str(items("l"), "1|2");
}
END_TEST

START_TEST(control_characters_are_a_problem_of_their_line)
{
    parse_str(CM_S("[s]\na = x\0y\nb = 1\n"));
    one_problem("f.ini:2", "NUL byte");
    ck_str(value("b"), "1");
    ck_assert_uint_eq(n_entries, 2);
    parse_str(CM_S("[s]\n# \0\nb = 1\n"));
    one_problem("f.ini:2", "NUL byte");
    parse_str(CM_S("[s]\na =\n  x\0\n  y\n"));
    one_problem("f.ini:3", "NUL byte");
    ck_str(items("a"), "y");
    parse("[s]\na = x\ry\n");
    one_problem("f.ini:2", "control character");
}
END_TEST

START_TEST(what_occurs_twice_names_the_first_line)
{
    parse("[s]\nk = 1\nk = 2\n[t]\nk = 3\n");
    one_problem("f.ini:3", "k stands in line 2");
    ck_str(value("k"), "1");
    parse("[s]\nk = 1\n[provider a]\n[s]\nl = 2\n[provider b]\n");
    one_problem("f.ini:4", "[s] stands in line 1");
    ck_assert_uint_eq(n_entries, 4);
    parse("[provider a]\n[provider\ta]\n");
    one_problem("f.ini:2", "[provider a] stands in line 1");
}
END_TEST

START_TEST(lines_that_mean_nothing)
{
    parse("k = 1\n");
    one_problem("f.ini:1", "before the first [section]");
    parse("[s]\n  k = 1\n  l = 2\n");
    ck_assert_uint_eq(problems.n, 2);
    ck_assert_ptr_nonnull(strstr(problems.first->text.p, "indented"));
    parse("[s]\nl =\nsk-secret\n  more of it\nm = 1\n");
    one_problem("f.ini:3", "an item of a list is indented");
    ck_assert_ptr_null(strstr(problems.first->text.p, "sk-secret"));
    ck_str(value("m"), "1");
    parse("[s]\n= 1\n");
    one_problem("f.ini:2", "without a key");
    parse("[s] ; remark\nk = 1\n");
    one_problem("f.ini:1", "nothing behind the ]");
    parse("[ ]\n[");
    ck_assert_uint_eq(problems.n, 2);
}
END_TEST

START_TEST(a_line_may_be_as_long_as_it_likes)
{
    struct cm_buf text = {0};

    cm_buf_append(&text, CM_S("[s]\nk = "));
    memset(cm_buf_reserve(&text, 1000000), 'x', 1000000);
    text.n += 1000000;
    parse_str(cm_buf_str(&text));
    no_problem();
    ck_assert_uint_eq(value("k").n, 1000000);
    cm_buf_clear(&text);
}
END_TEST

START_TEST(problems_are_counted_beyond_those_kept)
{
    struct cm_buf text = {0};
    unsigned kept = 0;

    for (int i = 0; i < CM_PROBLEMS_KEPT + 500; i++)
        cm_buf_append(&text, CM_S("x\n"));
    parse_str(cm_buf_str(&text));
    for (struct cm_problem *p = problems.first; p; p = p->next)
        kept++;
    ck_assert_uint_eq(problems.n, CM_PROBLEMS_KEPT + 500);
    ck_assert_uint_eq(kept, CM_PROBLEMS_KEPT);
    cm_problems_init(&problems, &arena);
    cm_problem_add(&problems, CM_S("a\x1b[0m"), "line\n%s", "break");
    ck_str(problems.first->where, "a?[0m");
    ck_str(problems.first->text, "line?break");
    cm_buf_clear(&text);
}
END_TEST

START_TEST(wiping_leaves_nothing)
{
    parse("[s]\nk = one, two\n");
    cm_ini_wipe(entries, n_entries);
    ck_str(value("k"), "\0\0\0\0\0\0\0\0");
    ck_str(entry("k").items.v[0], "\0\0\0");
    ck_str(entry("k").items.v[1], "\0\0\0");
}
END_TEST

Suite *suite_ini(void)
{
    Suite *s = suite_create("ini");
    TCase *t = tcase_create("ini");

    suite_add_tcase(s, t);
    tcase_add_test(t, sections_begin_with_an_entry_of_their_own);
    tcase_add_test(t, values_hold_comment_signs_and_equals);
    tcase_add_test(t, comments_count_at_the_start_of_a_line);
    tcase_add_test(t, lists_are_read_both_ways);
    tcase_add_test(t, a_plain_list_is_lines_or_commas);
    tcase_add_test(t, variables_expand_once);
    tcase_add_test(t, bad_variables_are_told_with_their_line);
    tcase_add_test(t, line_ends_and_marks_of_other_systems);
    tcase_add_test(t, control_characters_are_a_problem_of_their_line);
    tcase_add_test(t, what_occurs_twice_names_the_first_line);
    tcase_add_test(t, lines_that_mean_nothing);
    tcase_add_test(t, a_line_may_be_as_long_as_it_likes);
    tcase_add_test(t, problems_are_counted_beyond_those_kept);
    tcase_add_test(t, wiping_leaves_nothing);
    return s;
}
