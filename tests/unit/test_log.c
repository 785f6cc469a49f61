/* The log, written to a file, a pipe that nobody reads, a socket. */
#include "chatmux/base/log.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <yyjson.h>

static struct {
    uint64_t mono_ms;
    int64_t unix_ms;
} now = {.mono_ms = 5000, .unix_ms = 1769847300123};

static uint64_t fake_mono_ms(void *arg)
{
    (void)arg;
    return now.mono_ms;
}

static int64_t fake_unix_ms(void *arg)
{
    (void)arg;
    return now.unix_ms;
}

static const struct cm_clock clock_of_test = {.mono_ms = fake_mono_ms, .unix_ms = fake_unix_ms};

static void set_up(int fd, enum cm_log_level level, bool json, bool access)
{
    cm_log_setup(&(struct cm_log_setup){
        .fd = fd, .level = level, .json = json, .access = access, .clock = &clock_of_test});
}

static int open_file(void)
{
    char path[] = "/tmp/chatmux-test-XXXXXX";
    int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    unlink(path);
    return fd;
}

/* What was written to the file since it was read last; valid until the next call. */
static const char *written(int fd)
{
    static char text[1 << 20];
    ssize_t n;

    cm_log_flush();
    n = pread(fd, text, sizeof(text) - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
    return text;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;

    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

START_TEST(a_line_looks_as_promised)
{
    int fd = open_file();

    set_up(fd, CM_LOG_INFO, false, false);
    cm_info("pool", "credential %d cools for %d s: %s", 3, 20, "rate_limited");
    cm_warn("httpd", "x");
    now.unix_ms += 2;
    cm_error("gateway", "y");
    now.unix_ms += 1000;
    cm_info("io", "z");
    ck_assert_str_eq(
        written(fd),
        "2026-01-31T08:15:00.123Z info  pool  credential 3 cools for 20 s: rate_limited\n"
        "2026-01-31T08:15:00.123Z warn  httpd x\n"
        "2026-01-31T08:15:00.125Z error gateway y\n"
        "2026-01-31T08:15:01.125Z info  io    z\n");
}
END_TEST

START_TEST(level_decides)
{
    int fd = open_file(), evaluated = 0;

    set_up(fd, CM_LOG_WARN, false, false);
    cm_info("t", "%d", ++evaluated);
    cm_warn("t", "w");
    ck_assert_int_eq(evaluated, 0); /* arguments cost nothing */
    ck_assert_uint_eq(count(written(fd), "\n"), 1);
    set_up(fd, CM_LOG_TRACE, false, false);
    cm_trace("t", "%d", ++evaluated);
    cm_debug("t", "d");
    ck_assert_uint_eq(count(written(fd), "\n"), 2);
}
END_TEST

START_TEST(lines_wait_for_the_flush_but_errors_do_not)
{
    int fd = open_file();

    set_up(fd, CM_LOG_INFO, false, false);
    cm_info("t", "first");
    ck_assert_int_eq(lseek(fd, 0, SEEK_END), 0);
    cm_error("t", "second");
    ck_assert_int_gt(lseek(fd, 0, SEEK_END), 0);
    ck_assert_uint_eq(count(written(fd), "\n"), 2);
    for (int i = 0; i < 20; i++) { /* a turn that says too much to collect */
        cm_info("t", "%4000d", i);
        now.mono_ms += 1000;
    }
    ck_assert_int_gt(lseek(fd, 0, SEEK_END), 20000);
}
END_TEST

START_TEST(text_cannot_break_a_line)
{
    int fd = open_file();
    const char *got;

    set_up(fd, CM_LOG_INFO, false, false);
    cm_info("t", "a\nerror pool  forged\r\t\x1b[31m\x01\x7f \xff\xc3 \xc2\x9b "
                 "\xe2\x80\xa8 \xe2\x80\xae \"\\ ä世😀");
    got = written(fd);
    ck_assert_str_eq(got + 37, "a\\nerror pool  forged\\r\\t\\x1b[31m\\x01\\x7f \\xff\\xc3 \\u009b "
                               "\\u2028 \\u202e \"\\ ä世😀\n");
}
END_TEST

static yyjson_doc *parse_line(const char *line)
{
    yyjson_doc *doc = yyjson_read(line, strcspn(line, "\n"), 0);

    ck_assert_msg(doc && yyjson_is_obj(yyjson_doc_get_root(doc)), "not JSON: %s", line);
    return doc;
}

START_TEST(json_lines_are_json_whatever_bytes_come)
{
    int fd = open_file();
    char bytes[256];
    const char *got;
    yyjson_doc *doc;
    yyjson_val *root;

    for (int i = 0; i < 255; i++)
        bytes[i] = (char)(i + 1);
    bytes[255] = '\0';
    set_up(fd, CM_LOG_INFO, true, false);
    cm_info("t", "%s ä世😀 \xe2\x80\xa8 \xed\xa0\x80", bytes);
    got = written(fd);
    ck_assert_uint_eq(count(got, "\n"), 1);
    ck_assert_uint_eq(cm_utf8_valid(cm_str_of(got)), strlen(got));
    doc = parse_line(got);
    root = yyjson_doc_get_root(doc);
    ck_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "time")), "2026-01-31T08:15:00.123Z");
    ck_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "level")), "info");
    ck_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "module")), "t");
    got = yyjson_get_str(yyjson_obj_get(root, "msg"));
    ck_assert_mem_eq(got, bytes, 127); /* ASCII comes back as it was */
    ck_assert_ptr_nonnull(strstr(got, " ä世😀 \xe2\x80\xa8 \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"));
    yyjson_doc_free(doc);
}
END_TEST

START_TEST(long_text_is_cut_at_a_character)
{
    static char text[6000];
    int fd = open_file();

    memset(text, 'a', sizeof(text) - 1);
    for (size_t at = 4085; at < 4096; at++) {
        const char *got;

        memset(text, 'a', sizeof(text) - 1);
        memcpy(text + at, "😀", 4);
        set_up(fd, CM_LOG_INFO, false, false);
        cm_info("t", "%s", text);
        got = written(fd);
        ck_assert_ptr_null(strstr(got, "\\x"));
        ck_assert_str_eq(got + strlen(got) - 4, "…\n");
        ck_assert_uint_gt(strlen(got), 4000);
        ck_assert_uint_lt(strlen(got), 4200);
    }
}
END_TEST

START_TEST(errno_survives)
{
    set_up(-1, CM_LOG_INFO, false, false);
    errno = ENOENT;
    cm_error("t", "writing fails with EBADF: %m");
    ck_assert_int_eq(errno, ENOENT);
}
END_TEST

static void repeat(int n)
{
    for (int i = 0; i < n; i++)
        cm_info("t", "same %d", i);
}

START_TEST(repeats_are_counted_and_summed_up)
{
    int fd = open_file();
    const char *got;

    set_up(fd, CM_LOG_INFO, false, false);
    repeat(125);
    cm_info("t", "other");
    got = written(fd);
    ck_assert_uint_eq(count(got, "same "), 5);
    ck_assert_uint_eq(count(got, "other"), 1);
    ck_assert_uint_eq(count(got, "more like this"), 0);
    now.mono_ms += 999;
    repeat(1); /* belongs to the same second */
    ck_assert_str_eq(written(fd), "");
    now.mono_ms += 1;
    got = written(fd); /* a flush sums up, no further line is needed */
    ck_assert_uint_eq(count(got, "info  t     … 121 more like this: same %d\n"), 1);
    ck_assert_uint_eq(count(got, "\n"), 1);
    now.mono_ms += 5000;
    ck_assert_str_eq(written(fd), "");
    repeat(1); /* shown again */
    got = written(fd);
    ck_assert_uint_eq(count(got, "same 0"), 1);
    ck_assert_uint_eq(count(got, "\n"), 1); /* and nothing is summed up twice */
}
END_TEST

START_TEST(the_next_window_sums_up_the_last)
{
    int fd = open_file();
    const char *got;

    set_up(fd, CM_LOG_INFO, false, false);
    repeat(6);
    now.mono_ms += 1000;
    repeat(2);
    got = written(fd);
    ck_assert_uint_eq(count(got, "same "), 7 + 1); /* with the sum, which shows the format */
    ck_assert_uint_eq(count(got, "… 1 more like this"), 1);
    ck_assert(strstr(got, "more like") < strstr(strstr(got, "same 4") + 6, "same 0"));
}
END_TEST

START_TEST(modules_are_limited_apart_and_closing_sums_up)
{
    static _Alignas(64) char modules[32][4]; /* 0 and 16 are 64 apart: the same slot */
    int fd = open_file();
    const char *got;

    set_up(fd, CM_LOG_INFO, false, false);
    for (size_t i = 0; i < CM_COUNT(modules); i++)
        memcpy(modules[i], "mod", 4);
    for (int k = 0; k < 10; k++) {
        for (size_t i = 0; i < 2; i++)
            cm_log_write(i % 2 ? CM_LOG_INFO : CM_LOG_WARN, modules[i * 16], "%s", "x");
    }
    cm_log_close();
    got = written(fd);
    ck_assert_uint_eq(count(got, " x\n"), 10);
    ck_assert_uint_eq(count(got, "info  mod   … 5 more"), 1);
    ck_assert_uint_eq(count(got, "warn  mod   … 5 more"), 1);
    cm_info("t", "after");
    ck_assert_uint_eq(count(written(fd), "after"), 1);
}
END_TEST

/* More format strings than the table has slots: none is lost, every hidden line is counted. */
START_TEST(a_full_table_hides_nothing_uncounted)
{
    static char formats[500][8];
    int fd = open_file();
    const char *got;
    unsigned long hidden = 0;

    set_up(fd, CM_LOG_INFO, false, false);
    for (int i = 0; i < 500; i++)
        memcpy(formats[i], "line", 5);
    for (int i = 0; i < 500; i++) {
        now.mono_ms++;
        for (int k = 0; k < 8; k++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
            cm_log_write(CM_LOG_INFO, "t", formats[i]);
#pragma GCC diagnostic pop
        }
    }
    cm_log_close();
    got = written(fd);
    for (const char *at = got; (at = strstr(at, "… ")); at++)
        hidden += strtoul(at + strlen("… "), NULL, 10);
    ck_assert_uint_eq(hidden, 1500);
    ck_assert_uint_eq(count(got, "t     line\n"), 2500);
}
END_TEST

static const struct cm_log_field fields[] = {
    {.name = "id", .kind = CM_FIELD_STR, .str = {"req_1", 5}},
    {.name = "model", .kind = CM_FIELD_STR, .str = {"a \"b\"\n=\\", 8}},
    {.name = "status", .kind = CM_FIELD_INT, .num = 200},
    {.name = "low", .kind = CM_FIELD_INT, .num = INT64_MIN},
    {.name = "ttft_ms", .kind = CM_FIELD_NONE},
    {.name = "key", .kind = CM_FIELD_STR, .str = {"-", 1}},
    {.name = "none", .kind = CM_FIELD_STR},
    {.name = "left", .kind = CM_FIELD_INT, .num = -5},
    {.name = "query", .kind = CM_FIELD_STR, .str = {"a=b", 3}},
};

START_TEST(access_line_as_text)
{
    int fd = open_file();

    set_up(fd, CM_LOG_ERROR, false, true); /* the level does not matter */
    ck_assert(cm_log_access_on());
    cm_log_access(fields, CM_COUNT(fields));
    ck_assert_str_eq(written(fd),
                     "2026-01-31T08:15:00.123Z info  access id=req_1 "
                     "model=\"a \\\"b\\\"\\n=\\\\\" status=200 low=-9223372036854775808 "
                     "ttft_ms=- key=\"-\" none=\"\" left=-5 query=\"a=b\"\n");
}
END_TEST

START_TEST(access_line_as_json)
{
    int fd = open_file();
    yyjson_doc *doc;
    yyjson_val *root;

    set_up(fd, CM_LOG_INFO, true, true);
    cm_log_access(fields, CM_COUNT(fields));
    doc = parse_line(written(fd));
    root = yyjson_doc_get_root(doc);
    ck_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "module")), "access");
    ck_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "model")), "a \"b\"\n=\\");
    ck_assert_int_eq(yyjson_get_sint(yyjson_obj_get(root, "status")), 200);
    ck_assert(yyjson_get_sint(yyjson_obj_get(root, "low")) == INT64_MIN);
    ck_assert(yyjson_is_null(yyjson_obj_get(root, "ttft_ms")));
    ck_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "none")), "");
    yyjson_doc_free(doc);
}
END_TEST

START_TEST(access_lines_are_never_limited_and_can_be_off)
{
    int fd = open_file();

    set_up(fd, CM_LOG_INFO, false, true);
    for (int i = 0; i < 3000; i++) /* more than is collected between two flushes */
        cm_log_access(fields, 1);
    ck_assert_uint_eq(count(written(fd), "access id=req_1\n"), 3000);
    set_up(fd, CM_LOG_INFO, false, false);
    ck_assert(!cm_log_access_on());
    cm_log_access(fields, 1);
    ck_assert_str_eq(written(fd), "");
}
END_TEST

/* Reads what is there, without waiting, into `out`. */
static void drain(int fd, struct cm_buf *out)
{
    char piece[4096];
    ssize_t n;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while ((n = read(fd, piece, sizeof(piece))) > 0)
        cm_buf_append(out, cm_str(piece, (size_t)n));
}

/* The blocking pipe or socket of a reader that sleeps, wakes, and gets every line that was kept,
 * whole, and the count of the others. */
static void meet_a_sleeping_reader(int writer, int reader)
{
    enum { LINES = 20000 };
    struct cm_buf got = {0};
    uint64_t start = cm_mono_ms(), lost = 0, lines = 0, number = 0;
    struct cm_str rest;

    set_up(writer, CM_LOG_INFO, false, true);
    for (int i = 0; i < LINES; i++) {
        struct cm_log_field f = {.name = "number", .kind = CM_FIELD_INT, .num = i};

        cm_log_access(&f, 1);
        if (i % 10 == 0)
            cm_log_flush();
    }
    ck_assert_uint_lt(cm_mono_ms() - start, 2000); /* 2,000 flushes: it waited once, not for each */
    for (int round = 0; round < 200; round++) {
        drain(reader, &got);
        cm_log_flush();
    }
    for (rest = cm_buf_str(&got); rest.n > 0; lines++) {
        struct cm_str line = cm_str_cut(&rest, '\n');
        size_t at = cm_str_find(line, CM_S("number="));
        uint64_t v;

        if (at == SIZE_MAX) {
            at = cm_str_find(line, CM_S(" lines were lost: "));
            ck_assert_uint_ne(at, SIZE_MAX);
            line = cm_str_from(cm_str_head(line, at), 37);
            ck_assert(cm_str_to_u64(line, LINES, &v));
            lost += v;
            lines--;
            continue;
        }
        ck_quick(cm_str_to_u64(cm_str_from(line, at + 7), LINES, &v));
        ck_quick(lines == 0 || v > number);
        number = v;
    }
    ck_assert_uint_gt(lost, 0);
    ck_assert_uint_gt(lines, 4000);
    ck_assert_uint_eq(lines + lost, LINES);
    cm_buf_clear(&got);
}

START_TEST(a_sleeping_reader_of_a_pipe_stops_nobody)
{
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    meet_a_sleeping_reader(ends[1], ends[0]);
    ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0); /* it is shared with others */
}
END_TEST

START_TEST(a_sleeping_reader_of_a_socket_stops_nobody)
{
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    meet_a_sleeping_reader(ends[1], ends[0]);
}
END_TEST

/* Milliseconds that more lines take than a pipe holds. */
static uint64_t overfill(void)
{
    uint64_t start = cm_mono_ms();

    for (int i = 0; i < 1400; i++)
        cm_log_access(fields, 1);
    cm_log_flush();
    return cm_mono_ms() - start;
}

START_TEST(it_waits_for_a_reader_again_once_that_has_caught_up)
{
    struct cm_buf got = {0};
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    set_up(ends[1], CM_LOG_INFO, false, true);
    ck_assert_uint_ge(overfill(), 19);
    ck_assert_uint_lt(overfill(), 19);
    for (int round = 0; round < 50; round++) {
        drain(ends[0], &got);
        cm_log_flush();
    }
    ck_assert_uint_ge(overfill(), 19);
    cm_buf_clear(&got);
}
END_TEST

START_TEST(before_set_up_it_goes_to_standard_error)
{
    int ends[2], fd = open_file(), saved = dup(STDERR_FILENO);
    struct cm_buf got = {0};

    ck_assert_int_ge(saved, 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    dup2(ends[1], STDERR_FILENO);
    cm_debug("t", "too fine");
    cm_error("t", "early");
    cm_info("t", "goes where it was meant to go");
    set_up(fd, CM_LOG_INFO, false, false);
    dup2(saved, STDERR_FILENO);
    cm_info("t", "to a file"); /* which is no socket: found out anew */
    drain(ends[0], &got);
    ck_assert_uint_eq(count(cm_buf_z(&got), "\n"), 2);
    ck_assert_ptr_nonnull(strstr(cm_buf_z(&got), "error t     early\n"));
    ck_assert_uint_eq(count(written(fd), "to a file\n"), 1);
    cm_buf_clear(&got);
    close(saved);
}
END_TEST

static void *write_1000_lines(void *arg)
{
    for (int i = 0; i < 1000; i++) {
        cm_log_access(fields, 1);
        cm_info("thread", "%s", (const char *)arg);
    }
    return NULL;
}

START_TEST(threads_do_not_mix_their_lines)
{
    int fd = open_file();
    pthread_t threads[4];
    const char *got;

    set_up(fd, CM_LOG_INFO, false, true);
    for (size_t i = 0; i < CM_COUNT(threads); i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_1000_lines, "x"), 0);
    for (size_t i = 0; i < CM_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    cm_log_close();
    got = written(fd);
    ck_assert_uint_eq(count(got, "Z info  access id=req_1\n"), 4000);
    ck_assert_uint_eq(count(got, "Z info  thread x\n"), 5);
    ck_assert_uint_eq(count(got, "… 3995 more"), 1);
}
END_TEST

START_TEST(a_broken_descriptor_is_survived_and_told)
{
    int fd = open_file(), ends[2];

    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(pipe(ends), 0);
    set_up(ends[1], CM_LOG_INFO, false, false);
    close(ends[0]);
    cm_error("t", "one");
    cm_info("t", "two");
    cm_log_flush();
    cm_log_flush();
    set_up(fd, CM_LOG_INFO, false, false);
    ck_assert_ptr_nonnull(strstr(written(fd), "warn  log   2 lines were lost: "));
    ck_assert_str_eq(written(fd), "");
}
END_TEST

START_TEST(before_an_abort_lines_are_written)
{
    int fd = open_file();
    char text[100] = "";

    set_up(fd, CM_LOG_INFO, false, false);
    cm_info("t", "last words");
    cm_log_abandon();
    ck_assert_int_gt(pread(fd, text, sizeof(text) - 1, 0), 0);
    ck_assert_ptr_nonnull(strstr(text, "last words\n"));
}
END_TEST

Suite *suite_log(void)
{
    Suite *s = suite_create("log");
    TCase *t = tcase_create("log");

    tcase_add_test(t, a_line_looks_as_promised);
    tcase_add_test(t, level_decides);
    tcase_add_test(t, lines_wait_for_the_flush_but_errors_do_not);
    tcase_add_test(t, text_cannot_break_a_line);
    tcase_add_test(t, json_lines_are_json_whatever_bytes_come);
    tcase_add_test(t, long_text_is_cut_at_a_character);
    tcase_add_test(t, errno_survives);
    tcase_add_test(t, repeats_are_counted_and_summed_up);
    tcase_add_test(t, the_next_window_sums_up_the_last);
    tcase_add_test(t, modules_are_limited_apart_and_closing_sums_up);
    tcase_add_test(t, a_full_table_hides_nothing_uncounted);
    tcase_add_test(t, access_line_as_text);
    tcase_add_test(t, access_line_as_json);
    tcase_add_test(t, access_lines_are_never_limited_and_can_be_off);
    tcase_add_test(t, a_sleeping_reader_of_a_pipe_stops_nobody);
    tcase_add_test(t, a_sleeping_reader_of_a_socket_stops_nobody);
    tcase_add_test(t, it_waits_for_a_reader_again_once_that_has_caught_up);
    tcase_add_test(t, before_set_up_it_goes_to_standard_error);
    tcase_add_test(t, threads_do_not_mix_their_lines);
    tcase_add_test(t, a_broken_descriptor_is_survived_and_told);
    tcase_add_test(t, before_an_abort_lines_are_written);
    suite_add_tcase(s, t);
    return s;
}
