/* Reads the configuration: sections and keys of the file, then the environment, then --set, then
 * the checks. */
#include "chatmux/base/config.h"

#include "config_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chatmux/base/mem.h"

#define FILE_MAX_BYTES ((size_t)4 << 20)

static const char builtin_text[] = "[provider demo]\ntype = demo\n";

static const char *read_environ(void *environ_list, const char *name)
{
    return cm_conf_getenv(environ_list, name);
}

/* --- another format
 * ------------------------------------------------------------------------------ */

static const char *format_of_name(struct cm_str file)
{
    if (cm_str_ends(file, CM_S(".yaml")) || cm_str_ends(file, CM_S(".yml")))
        return "YAML";
    if (cm_str_ends(file, CM_S(".json")))
        return "JSON";
    return cm_str_ends(file, CM_S(".toml")) ? "TOML" : NULL;
}

/* By the first line that says something: "{", "---" or "key: value". */
static const char *format_of_look(struct cm_str text)
{
    struct cm_str line = CM_STR_NONE, name;

    if (cm_str_starts(text, CM_S("\xEF\xBB\xBF")))
        text = cm_str_from(text, 3);
    while (text.n > 0 && (line.n == 0 || line.p[0] == '#' || line.p[0] == ';'))
        line = cm_str_trim(cm_str_cut(&text, '\n'));
    if (cm_str_starts(line, CM_S("{")))
        return "JSON";
    if (cm_str_eq(line, CM_S("---")))
        return "YAML";
    name = cm_str_head(line, cm_str_find_char(line, ':'));
    line = cm_str_from(line, name.n);
    if (line.n == 0 || !cm_conf_is_option_name(name) || (line.n > 1 && line.p[1] != ' '))
        return NULL;
    return "YAML";
}

static bool is_foreign(const char *file, struct cm_str text, struct cm_problems *problems)
{
    const char *format = format_of_name(cm_str_of(file));

    if (!format)
        format = format_of_look(text);
    if (!format)
        return false;
    cm_problem_add(
        problems, cm_str_of(file),
        "this is %s, and chatmux reads INI: write a chatmux.ini that begins with the "
        "three lines \"[provider openai]\", \"type = openai\", \"credentials = sk-...\"; "
        "config.example.ini has every key",
        format);
    return true;
}

/* --- reading
 * ------------------------------------------------------------------------------------- */

static struct cm_config *read_text(const char *file, struct cm_str text, bool builtin,
                                   const struct cm_conf_source *src, struct cm_problems *problems)
{
    static const struct cm_conf_source nothing;
    unsigned before = problems->n;
    struct cm_conf_load l = {.problems = problems};
    struct cm_ini_entry *entries;
    size_t n;

    if (!src)
        src = &nothing;
    if (!builtin && is_foreign(file, text, problems))
        return NULL;
    l.environ_list = src->environ_list ? src->environ_list : environ;
    l.c = CM_NEW(struct cm_config);
    l.c->arena.secret = l.scratch.secret = true;
    l.c->refs = 1;
    cm_conf_choose_seed(&l, !builtin);
    if (builtin && l.seed)
        text = CM_STR_NONE;
    l.c->builtin_demo = builtin && !l.seed;
    l.c->file = builtin ? CM_STR_NONE : cm_arena_str(&l.c->arena, cm_str_of(file));
    cm_ini_parse(&l.scratch, file, text, read_environ, (void *)(uintptr_t)l.environ_list, &entries,
                 &n, problems);
    /* in the order of precedence */
    cm_conf_add_file(&l, entries, n);
    cm_conf_add_seed(&l);
    cm_conf_add_environment(&l);
    cm_conf_add_sets(&l, src->sets, src->n_sets);
    cm_conf_build(&l);
    cm_conf_check(&l);
    if (src->check)
        src->check(src->check_arg, l.c, problems);

    cm_ini_wipe(entries, n);
    for (size_t i = 0; i < l.n; i++)
        cm_conf_wipe_list(
            l.settings[i].items); /* not the values: some are the environment's own text */
    free(l.settings);
    cm_arena_clear(&l.scratch);
    if (problems->n == before || src->lenient)
        return l.c;
    cm_config_unref(l.c);
    return NULL;
}

struct cm_config *cm_config_parse(const char *file, struct cm_str text,
                                  const struct cm_conf_source *src, struct cm_problems *problems)
{
    return read_text(file, text, false, src, problems);
}

/* 0, or the errno; EFBIG above FILE_MAX_BYTES. */
static int read_file(const char *file, struct cm_buf *out)
{
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC), failed = 0;
    ssize_t got = 1;

    if (fd < 0)
        return errno;
    cm_buf_init(out, FILE_MAX_BYTES + 1);
    if (fstat(fd, &st) != 0)
        failed = errno;
    else if (S_ISDIR(st.st_mode))
        failed = EISDIR;
    while (!failed && got > 0 && out->n <= FILE_MAX_BYTES) {
        size_t room = FILE_MAX_BYTES + 1 - out->n;
        char *p =
            cm_buf_reserve(out, room); /* all at once: a buffer that moves leaves secrets behind */

        got = read(fd, p, room);
        if (got > 0)
            out->n += (size_t)got;
        else if (got < 0 && errno != EINTR)
            failed = errno;
        else if (got < 0)
            got = 1;
    }
    close(fd);
    return !failed && out->n > FILE_MAX_BYTES ? EFBIG : failed;
}

static void complain_unreadable(const char *file, int why, struct cm_problems *problems)
{
    struct cm_str where = cm_str_of(file);

    if (why == EFBIG)
        cm_problem_add(problems, where, "larger than %zu MiB, so this is no configuration",
                       FILE_MAX_BYTES >> 20);
    else if (why == EISDIR)
        cm_problem_add(problems, where, "is a directory; name the file, such as %s/chatmux.ini",
                       file);
    else if (why == ENOENT)
        cm_problem_add(problems, where, "there is no such file");
    else
        cm_problem_add(problems, where, "cannot be read: %s", strerror(why));
}

struct cm_config *cm_config_load(const struct cm_conf_source *src, struct cm_problems *problems)
{
    static const char *const usual[] = {"chatmux.ini", "/etc/chatmux/chatmux.ini"};
    const char *file = src->file ? src->file : usual[0];
    struct cm_buf text = {0};
    struct cm_config *c = NULL;
    int failed = read_file(file, &text);

    if (!src->file && failed == ENOENT) {
        file = usual[1];
        failed = read_file(file, &text);
    }
    if (!src->file && failed == ENOENT)
        c = read_text("built-in", cm_str_of(builtin_text), true, src, problems);
    else if (failed)
        complain_unreadable(file, failed, problems);
    else
        c = read_text(file, cm_buf_str(&text), false, src, problems);
    if (text.p)
        cm_wipe(text.p, text.n);
    cm_buf_clear(&text);
    return c;
}

struct cm_config *cm_config_ref(struct cm_config *c)
{
    c->refs++;
    return c;
}

void cm_conf_wipe(struct cm_str s)
{
    if (s.n > 0)
        cm_wipe((void *)(uintptr_t)s.p, s.n);
}

void cm_conf_wipe_list(struct cm_strs list)
{
    for (size_t i = 0; i < list.n; i++)
        cm_conf_wipe(list.v[i]);
}

static void wipe_pairs(struct cm_conf_pair *pairs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cm_conf_wipe(pairs[i].value);
        cm_conf_wipe_list(pairs[i].items);
    }
}

void cm_config_unref(struct cm_config *c)
{
    if (!c || --c->refs > 0)
        return;
    cm_conf_wipe_list(c->auth.keys);
    cm_conf_wipe(c->auth.admin_secret);
    cm_conf_wipe(c->store.master_key);
    for (size_t i = 0; i < c->n_providers; i++) {
        struct cm_provider_conf *p = &c->providers[i];

        cm_conf_wipe_list(p->credentials);
        wipe_pairs(p->headers, p->n_headers);
        wipe_pairs(p->options, p->n_options);
    }
    cm_arena_clear(&c->arena);
    free(c);
}
