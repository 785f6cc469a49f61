/* Configuration: the table, precedence, problems, printing, differences. */
#include "chatmux/base/config.h"
#include "unit.h"

#include "base/config_int.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEMO "[provider demo]\ntype = demo\n"

static struct cm_arena arena;
static struct cm_problems problems;
static struct cm_config *c;      /* of the last reading, NULL after a problem */
static const char *variables[8]; /* the environment of readings, NULL at the end */
static const char *sets[8];

static void clean_up(void)
{
    cm_config_unref(c);
    c = NULL;
    cm_arena_clear(&arena);
    memset(variables, 0, sizeof(variables));
    memset(sets, 0, sizeof(sets));
}

static struct cm_conf_source source(const char *file)
{
    struct cm_conf_source s = {.file = file, .sets = sets};

    s.environ_list = (char **)(uintptr_t)variables;
    while (s.n_sets < CM_COUNT(sets) && sets[s.n_sets])
        s.n_sets++;
    return s;
}

static void read_text(const char *text)
{
    struct cm_conf_source src = source(NULL);

    cm_config_unref(c);
    cm_problems_init(&problems, &arena);
    c = cm_config_parse("f.ini", cm_str_of(text), &src, &problems);
    ck_assert((c == NULL) == (problems.n > 0));
}

static void load(const char *file)
{
    struct cm_conf_source src = source(file);

    cm_config_unref(c);
    cm_problems_init(&problems, &arena);
    c = cm_config_load(&src, &problems);
}

static void no_problem(void)
{
    if (problems.n > 0)
        ck_abort_msg("%s: %s", problems.first->where.p, problems.first->text.p);
}

/* Reads the text and expects one problem: at this place, with this in its text. */
static void refuse(const char *text, const char *where, const char *part)
{
    read_text(text);
    if (problems.n != 1)
        ck_abort_msg("%u problems with \"%s\", first: %s", problems.n, text,
                     problems.n ? problems.first->text.p : "none");
    ck_assert_str_eq(problems.first->where.p, where);
    ck_assert_msg(cm_str_has(problems.first->text, cm_str_of(part)), "\"%s\" lacks \"%s\"",
                  problems.first->text.p, part);
}

static void accept(const char *text)
{
    read_text(text);
    no_problem();
}

static struct cm_str joined(struct cm_strs list)
{
    struct cm_str all = CM_STR_NONE;

    for (size_t i = 0; i < list.n; i++)
        all = cm_arena_printf(&arena, CM_PRI "%s" CM_PRI, CM_ARG(all), i ? "|" : "",
                              CM_ARG(list.v[i]));
    return all;
}

START_TEST(defaults_are_those_of_the_contract)
{
    accept(DEMO);
    ck_str(joined(c->server.listen), "127.0.0.1:8080");
    ck_assert_int_eq(c->server.max_header_bytes, 32 << 10);
    ck_assert_int_eq(c->server.max_body_bytes, 64 << 20);
    ck_assert_int_eq(c->server.keepalive_timeout_ms, 75000);
    ck_assert_int_eq(c->server.max_connections, 10000);
    ck_assert_int_eq(c->server.drain_timeout_ms, 300000);
    ck_assert(!c->auth.open && c->auth.open_here);
    ck_assert_int_eq(c->auth.ip_bad_auth_per_minute, 30);
    ck_str(c->store.url, "sqlite:chatmux.db");
    ck_str(c->store.state_dir, "./data");
    ck_assert(c->store.request_log);
    ck_assert_int_eq(c->store.keep_days, 30);
    ck_assert_uint_eq(c->n_prices, 0);
    ck_assert_int_eq(c->log.level, 2);
    ck_assert(!c->log.json && c->log.access);
    ck_assert_int_eq(c->upstream.total_timeout_ms, 3600000);
    ck_assert_int_eq(c->upstream.cooldown_ms, -1);
    ck_assert_int_eq(c->upstream.monthly_limit, -1);
    ck_assert_int_eq(c->retry.credentials, 8);
    ck_assert_int_eq(c->stream.keepalive_ms, 15000);
    ck_assert_int_eq(c->stream.commit_after_ms, 0);
    ck_assert_uint_eq(c->n_providers, 1);
    ck_str(c->providers[0].name, "demo");
    ck_str(c->providers[0].where, "f.ini:1");
    ck_assert_int_eq(c->providers[0].weight, 1);
    ck_assert_int_eq(c->providers[0].upstream.connect_timeout_ms, 10000);
    ck_assert(!c->builtin_demo);
    ck_str(c->file, "f.ini");
}
END_TEST

START_TEST(every_row_of_the_table_is_sound)
{
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        const struct cm_conf_key *row = &cm_conf_keys[i];
        bool number =
            row->type == CM_CONF_INT || row->type == CM_CONF_SIZE || row->type == CM_CONF_DURATION;

        ck_assert_msg(row->help && *row->help && row->def, "%s.%s", row->section, row->key);
        ck_assert_msg(number == (row->min < row->max), "%s.%s", row->section, row->key);
        ck_assert_msg(row->type != CM_CONF_ENUM || row->choices, "%s.%s", row->section, row->key);
        for (size_t j = 0; j < i; j++)
            ck_assert(strcmp(row->section, cm_conf_keys[j].section) != 0 ||
                      (strcmp(row->key, cm_conf_keys[j].key) != 0 &&
                       row->offset != cm_conf_keys[j].offset));
    }
}
END_TEST

START_TEST(a_whole_file_is_read)
{
    accept(
        "[server]\nlisten =\n  127.0.0.1:1\n  [::1]:2\n  unix:/run/x.sock\nroute_prefix = hf/\n"
        "max_body_bytes = 1g\ncors_origins = https://a.example, http://b:1\n"
        "trusted_proxies = 10.0.0.0/8, ::1\n"
        "[auth]\nkeys = k1, k2\nopen = TRUE\nadmin_secret = a;b#c\n"
        "[log]\nlevel = trace\nformat = json\naccess = off\n"
        "[upstream]\nproxy = socks5h://u:p@proxy:1080\ncooldown = 600s\nmonthly_limit = 200\nhttp_version = 1.1\n"
        "[stream]\nreasoning = think_colon_delta\n"
        "[provider a.b]\ntype = openai\nbase_url = https://api.example:8443/v1/\n"
        "credentials =\n  #one, with ; signs\n  two\nmodels = x=y, *\npriority = -3\n"
        "cooldown =\nmonthly_limit =\non_disconnect = drain\nheader.X-A = b c\nx.opt = 1, 2\n"
        "[provider c]\ntype = demo\n"
        "[model best]\ntargets =\n  a.b/x weight=3\n  c/z/y\nstrategy = fastest\n"
        "hedge_after = auto\n");
    ck_str(joined(c->server.listen), "127.0.0.1:1|[::1]:2|unix:/run/x.sock");
    ck_str(c->server.route_prefix, "/hf");
    ck_assert_int_eq(c->server.max_body_bytes, 1 << 30);
    ck_str(joined(c->auth.keys), "k1|k2");
    ck_str(c->auth.admin_secret, "a;b#c");
    ck_assert(c->auth.open && !c->auth.open_here && c->log.json && !c->log.access);
    ck_assert_int_eq(c->log.level, 4);
    ck_assert_int_eq(c->stream.reasoning, CM_REASONING_THINK_COLON_DELTA);
    ck_assert_int_eq(c->upstream.http_version, CM_HTTP_1_1);

    ck_str(c->providers[0].base_url, "https://api.example:8443/v1");
    ck_str(joined(c->providers[0].credentials), "#one, with ; signs|two");
    ck_str(joined(c->providers[0].models), "x=y|*");
    ck_assert_int_eq(c->providers[0].priority, -3);
    ck_assert_int_eq(c->providers[0].upstream.cooldown_ms, -1);
    ck_assert_int_eq(c->providers[0].upstream.monthly_limit, -1);
    ck_assert_int_eq(c->providers[0].upstream.on_disconnect, CM_DISCONNECT_DRAIN);
    ck_str(c->providers[0].upstream.proxy, "socks5h://u:p@proxy:1080");
    ck_assert_uint_eq(c->providers[0].n_headers, 1);
    ck_str(c->providers[0].headers[0].key, "X-A");
    ck_str(c->providers[0].headers[0].value, "b c");
    ck_str(c->providers[0].options[0].key, "opt");
    ck_str(joined(c->providers[0].options[0].items), "1|2");
    ck_assert(cm_str_starts(c->providers[0].options[0].where, CM_S("f.ini:")));
    ck_assert_int_eq(c->providers[1].upstream.cooldown_ms, 600000);
    ck_assert_int_eq(c->providers[1].upstream.monthly_limit, 200);

    ck_str(c->models[0].name, "best");
    ck_str(joined(c->models[0].targets), "a.b/x weight=3|c/z/y");
    ck_assert_int_eq(c->models[0].strategy, CM_ROUTE_FASTEST);
    ck_assert_int_eq(c->models[0].hedge_after_ms, -1);
}
END_TEST

START_TEST(names_that_are_unknown_get_the_nearest)
{
    refuse("[server]\nlistn = x\n" DEMO, "f.ini:2", "server.listn: unknown key, is it listen?");
    refuse("[sevrer]\nlisten = x\n" DEMO, "f.ini:1", "unknown section [sevrer], is it [server]?");
    refuse("[zzz]\n" DEMO, "f.ini:1", "unknown section [zzz]");
    refuse("[server]\nadmin_secret = x\n" DEMO, "f.ini:2", "belongs to [auth]");
    refuse(DEMO "conect_timeout = 1s\n", "f.ini:3", "is it connect_timeout?");
    refuse(DEMO "zzz = 1s\n", "f.ini:3", "provider.zzz: unknown key");
    refuse("[server x]\n" DEMO, "f.ini:1", "takes no name");
    refuse("[provider]\ntype = demo\n", "f.ini:1", "needs a name");
    refuse("[provider a/b]\ntype = demo\n", "f.ini:1", "needs a name");
    refuse("[model]\n" DEMO, "f.ini:1", "needs a name");
}
END_TEST

START_TEST(the_nearest_name_is_near)
{
    static const char *const names[] = {"listen", "log", "keys"};

    ck_assert_str_eq(cm_conf_nearest(CM_S("Listen"), names, 3), "listen");
    ck_assert_str_eq(cm_conf_nearest(CM_S("lsiten"), names, 3), "listen");
    ck_assert_str_eq(cm_conf_nearest(CM_S("key"), names, 3), "keys");
    ck_assert_ptr_null(cm_conf_nearest(CM_S("x"), names, 3));
    ck_assert_ptr_null(cm_conf_nearest(CM_S("x"), (const char *const[]){"a"}, 1));
    ck_assert_ptr_null(cm_conf_nearest(CM_S("timeout"), names, 3));
    ck_assert_ptr_null(cm_conf_nearest(CM_S("log"), names, 0));
    ck_assert_ptr_null(cm_conf_nearest(CM_STR_NONE, names, 3));
}
END_TEST

START_TEST(values_tell_what_they_must_be)
{
    refuse(DEMO "weight = 0\n", "f.ini:3",
           "provider.demo.weight: must be a whole number from 1 to 1000, not \"0\"");
    refuse(DEMO "weight = 1.5\n", "f.ini:3", "whole number");
    refuse(DEMO "weight = 99999999999999999999\n", "f.ini:3", "from 1 to 1000");
    refuse(DEMO "[server]\nheader_timeout = 10\n", "f.ini:4", "a duration with its unit (500ms");
    refuse(DEMO "[server]\nheader_timeout = 90d\n", "f.ini:4",
           "must be from 1ms to 1d, not \"90d\"");
    refuse(DEMO "[server]\nmax_header_bytes = 1\n", "f.ini:4", "must be from 256 to 16m");
    refuse(DEMO "[server]\nmax_header_bytes = 1x\n", "f.ini:4", "a number of bytes");
    refuse(DEMO "[log]\nlevel = loud\n", "f.ini:4",
           "must be one of error, warn, info, debug, trace");
    refuse(DEMO "[log]\naccess = maybe\n", "f.ini:4", "must be yes or no");
    refuse(DEMO "[log]\nlevel = info\n  debug\n", "f.ini:4", "takes one value on one line");
    refuse(DEMO "[upstream]\ncooldown = soon\n", "f.ini:4", "or empty");
    refuse(DEMO "[upstream]\nmonthly_limit = many\n", "f.ini:4", "or empty");
    refuse(DEMO "[model m]\ntargets = demo/x\nhedge_after = soon\n", "f.ini:5", "or auto");
    refuse(DEMO "[model m]\ntargets = demo/x\nhedge_after = 5d\n", "f.ini:5", "0 to 1h, or auto");
    read_text("[server]\nlistn = x\nmax_connections = 0\n[log]\nlevel = x\n");
    ck_assert_uint_eq(problems.n, 4); /* all at once: no provider, too */
}
END_TEST

START_TEST(value_readers)
{
    struct cm_err err;
    int64_t v = 7;
    bool yes = false;

    ck_assert_int_eq(cm_conf_duration(CM_S("0"), &v, &err), 0);
    ck_assert_int_eq(v, 0);
    ck_assert(cm_conf_duration(CM_S("500ms"), &v, &err) == 0 && v == 500);
    ck_assert(cm_conf_duration(CM_S("7d"), &v, &err) == 0 && v == 7 * 86400000LL);
    ck_assert(cm_conf_size(CM_S("64k"), &v, &err) == 0 && v == 65536);
    ck_assert(cm_conf_size(CM_S("32M"), &v, &err) == 0 && v == 32 << 20);
    ck_assert(cm_conf_size(CM_S("100"), &v, &err) == 0 && v == 100);
    ck_assert(cm_conf_int(CM_S("-5"), -5, 5, &v, &err) == 0 && v == -5);
    ck_assert(cm_conf_bool(CM_S("On"), &yes, &err) == 0 && yes);
    ck_assert(cm_conf_bool(CM_S("0"), &yes, &err) == 0 && !yes);

    v = 7;
    ck_assert_int_eq(cm_conf_duration(CM_S(""), &v, &err), -1);
    ck_assert_int_eq(cm_conf_duration(CM_S("ms"), &v, &err), -1);
    ck_assert_int_eq(cm_conf_duration(CM_S("-1s"), &v, &err), -1);
    ck_assert_int_eq(cm_conf_duration(CM_S("1 s"), &v, &err), -1);
    ck_assert_int_eq(cm_conf_duration(CM_S("99999999999999d"), &v, &err), -1);
    ck_assert_int_eq(cm_conf_size(CM_S("99999999999999g"), &v, &err), -1);
    ck_assert_int_eq(cm_conf_size(CM_S("k"), &v, &err), -1);
    ck_assert_int_eq(cm_conf_int(CM_S("6"), -5, 5, &v, &err), -1);
    ck_assert_int_eq(cm_conf_int(CM_S("--5"), -5, 5, &v, &err), -1);
    ck_assert_int_eq(v, 7);
    ck_assert_int_eq(err.cls, CM_ERR_CONFIG);
}
END_TEST

START_TEST(route_prefix_is_normalised)
{
    static const char *const pairs[][2] = {{"", ""},       {"hf", "/hf"},     {"/hf", "/hf"},
                                           {"hf/", "/hf"}, {"/a/b/", "/a/b"}, {"/", ""}};

    for (size_t i = 0; i < CM_COUNT(pairs); i++) {
        char text[80];

        snprintf(text, sizeof(text), "[server]\nroute_prefix = %s\n" DEMO, pairs[i][0]);
        accept(text);
        ck_assert(cm_str_eq(c->server.route_prefix, cm_str_of(pairs[i][1])));
    }
    refuse("[server]\nroute_prefix = a//b\n" DEMO, "f.ini:2",
           "server.route_prefix: must be a path");
    refuse("[server]\nroute_prefix = a/../b\n" DEMO, "f.ini:2", "must be a path");
    refuse("[server]\nroute_prefix = a b\n" DEMO, "f.ini:2", "must be a path");
    refuse("[server]\nroute_prefix = a?b\n" DEMO, "f.ini:2", "must be a path");
}
END_TEST

START_TEST(listeners_are_checked)
{
    struct cm_listen_spec spec;

    ck_assert_int_eq(cm_conf_listen(CM_S("[::ffff:127.0.0.1]:80"), &spec, NULL), 0);
    ck_assert(spec.kind == CM_LISTEN_TCP && spec.local && spec.port == 80);
    ck_str(spec.host, "::ffff:127.0.0.1");
    ck_assert(cm_conf_listen(CM_S("127.9.9.9:0"), &spec, NULL) == 0 && spec.local);
    ck_assert(cm_conf_listen(CM_S("localhost:8080"), &spec, NULL) == 0 && spec.local);
    ck_assert(cm_conf_listen(CM_S("unix:/a"), &spec, NULL) == 0 && spec.local);
    ck_str(spec.path, "/a");
    ck_assert(cm_conf_listen(CM_S("systemd"), &spec, NULL) == 0 && !spec.local);
    ck_assert(cm_conf_listen(CM_S("0.0.0.0:65535"), &spec, NULL) == 0 && !spec.local);
    ck_assert(cm_conf_listen(CM_S("[::]:1"), &spec, NULL) == 0 && !spec.local);
    ck_assert(cm_conf_listen(CM_S("host.example:1"), &spec, NULL) == 0 && !spec.local);

    refuse("[server]\nlisten = 8080\n" DEMO, "f.ini:2", "server.listen: must be host:port");
    refuse("[server]\nlisten = :8080\n" DEMO, "f.ini:2", "must be host:port");
    refuse("[server]\nlisten = 127.0.0.1\n" DEMO, "f.ini:2", "must be host:port");
    refuse("[server]\nlisten = 127.0.0.1:65536\n" DEMO, "f.ini:2", "must be host:port");
    refuse("[server]\nlisten = 127.0.0.300:1\n" DEMO, "f.ini:2", "must be host:port");
    refuse("[server]\nlisten = ::1:80\n" DEMO, "f.ini:2", "must be host:port");
    refuse("[server]\nlisten = [::g]:80\n" DEMO, "f.ini:2", "must be host:port");
    refuse("[server]\nlisten = unix:x\n" DEMO, "f.ini:2", "begin with /");
    refuse("[server]\nlisten =\n" DEMO, "f.ini:2", "at least one");
}
END_TEST

START_TEST(without_a_key_only_this_machine_is_let_in)
{
    refuse("[server]\nlisten = 0.0.0.0:8080\n" DEMO, "f.ini:2",
           "set auth.keys, or auth.open = yes");
    refuse("[server]\nlisten = 127.0.0.1:1, [::]:8080\n" DEMO, "f.ini:2", "[::]:8080 lets other");
    accept("[server]\nlisten = 0.0.0.0:8080\n[auth]\nopen = yes\n" DEMO);
    accept("[server]\nlisten = 0.0.0.0:8080\n[auth]\nkeys = k\n" DEMO);
    ck_assert(!c->auth.open_here);
    accept("[server]\nlisten = unix:/x, localhost:1\n" DEMO);
    ck_assert(c->auth.open_here);
}
END_TEST

START_TEST(values_must_go_together)
{
    refuse("[server]\ntls_cert = x\n" DEMO, "f.ini:2", "server.tls_cert: needs server.tls_key");
    refuse("[server]\ntls_key = x\n" DEMO, "f.ini:2", "server.tls_key: needs server.tls_cert");
    refuse("[server]\ntrusted_proxies = 10.0.0.0/33\n" DEMO, "f.ini:2", "must be networks");
    refuse("[server]\ntrusted_proxies = ten\n" DEMO, "f.ini:2", "must be networks");
    refuse("[server]\ncors_origins = https://a/\n" DEMO, "f.ini:2", "without a path");
    accept("[server]\ncors_origins = *\n" DEMO);
    refuse("[store]\nurl = postgresql://u:hidden@h/db\n" DEMO, "f.ini:2", "not supported yet");
    ck_assert_ptr_null(strstr(problems.first->text.p, "hidden"));
    refuse("[store]\nurl = mysql://h\n" DEMO, "f.ini:2", "must be sqlite:FILE");
    refuse("[store]\nurl = sqlite:\n" DEMO, "f.ini:2", "must be sqlite:FILE");
    refuse("[store]\nurl =\n" DEMO, "f.ini:2", "must be sqlite:FILE");
    refuse("[store]\nmaster_key = a\nmaster_key_file = b\n" DEMO, "f.ini:3", "keep one of the two");
    refuse("[provider a]\nweight = 1\n", "f.ini:1", "provider.a.type: is needed");
    refuse("[model m]\n" DEMO, "f.ini:1", "model.m.targets: is needed");
    refuse("[model m]\ntargets = deno/x\n" DEMO, "f.ini:2",
           "no [provider deno] is configured, is it demo?");
    refuse("[model m]\ntargets = x\n" DEMO, "f.ini:2", "must be provider/model");
    refuse("[model m]\ntargets = demo/x weight=0\n" DEMO, "f.ini:2", "from 1 to 1000");
    refuse("[model m]\ntargets = demo/x fast\n" DEMO, "f.ini:2", "only weight=N");
    refuse(DEMO "models =\n  a, b\n", "f.ini:3", "must be one name");
    refuse(DEMO "models = =b\n", "f.ini:3", "ours=theirs");
    refuse("[log]\nlevel = info\n", "f.ini", "type = demo");
    refuse("", "f.ini", "no [provider NAME] section");
}
END_TEST

START_TEST(addresses_of_platforms)
{
    refuse(DEMO "base_url = ftp://x\n", "f.ini:3", "must begin with https:// or http://");
    refuse(DEMO "base_url = api.example/v1\n", "f.ini:3", "must begin with");
    refuse(DEMO "base_url = https:///v1\n", "f.ini:3", "no valid host");
    refuse(DEMO "base_url = https://h:0/v1\n", "f.ini:3", "no valid host, or a port");
    refuse(DEMO "base_url = https://h/v1?key=1\n", "f.ini:3", "before any ?");
    refuse(DEMO "base_url = https://h/v 1\n", "f.ini:3", "a blank");
    refuse(DEMO "base_url = https://u:hidden@h/v1\n", "f.ini:3", "must not hold a user");
    ck_assert_ptr_null(strstr(problems.first->text.p, "hidden"));
    accept(DEMO "base_url = HTTP://[::1]:80///\n");
    ck_str(c->providers[0].base_url, "HTTP://[::1]:80");
    accept(DEMO "base_url = http://h/a@b\n");
    refuse(DEMO "proxy = socks5://h:1\n", "f.ini:3", "socks5h://");
    refuse(DEMO "[upstream]\nproxy = http://\n", "f.ini:4", "upstream.proxy: has no valid host");
    refuse(DEMO "proxy = http://u:hid/den@h:1\n", "f.ini:3", "end behind the port");
    accept(DEMO "proxy = http://u:p@h:1/\n");
}
END_TEST

START_TEST(headers_and_options)
{
    refuse(DEMO "header.X Y = 1\n", "f.ini:3", "a header's name");
    refuse(DEMO "header. = 1\n", "f.ini:3", "a header's name");
    refuse(DEMO "header.X-A = 1\n  2\n", "f.ini:3", "provider.demo.header.X-A: takes one value");
    refuse(DEMO "header.X-A = 1\nheader.x-a = 2\n", "f.ini:4", "already");
    refuse(DEMO "x. = 1\n", "f.ini:3", "an option's name");
    refuse("[server]\nx.a = 1\n" DEMO, "f.ini:2", "unknown key");
    accept(DEMO "x.a =\n  1, 2\n  3\nx.b = 1\nx.B =\n");
    ck_assert_uint_eq(c->providers[0].n_options, 3);
    ck_str(joined(c->providers[0].options[0].items), "1, 2|3");
    ck_str(c->providers[0].options[0].value, "1, 2\n3");
}
END_TEST

START_TEST(later_sources_win)
{
    variables[0] = "CHATMUX_LOG_LEVEL=warn";
    variables[1] = "CHATMUX_LOG_FORMAT=json";
    variables[2] = "CHATMUX_AUTH_KEYS=a,b";
    variables[3] = "CHATMUX_SERVER_ROUTE_PREFIX=";
    variables[4] = "STATE_DIRECTORY=/var/lib/chatmux:/other";
    sets[0] = "log.level=debug";
    sets[1] = "log.level = error";
    accept("[log]\nlevel = info\n[server]\nroute_prefix = hf\n" DEMO);
    ck_assert_int_eq(c->log.level, 0);
    ck_assert(c->log.json);
    ck_str(joined(c->auth.keys), "a|b");
    ck_str(c->server.route_prefix, "");
    ck_str(c->store.state_dir, "/var/lib/chatmux");
    variables[5] = "CHATMUX_STORE_STATE_DIR=here";
    accept(DEMO);
    ck_str(c->store.state_dir, "here");
}
END_TEST

START_TEST(the_environment_reaches_providers)
{
    variables[0] = "CHATMUX_PROVIDER_MY_OWN_2_CREDENTIALS=c1,c2";
    variables[1] = "CHATMUX_PROVIDER_MY_OWN_2_IDLE_TIMEOUT=3s";
    variables[2] = "CHATMUX_PROVIDER_MY_OWN_2_X_CHUNK_MS=5";
    variables[3] = "CHATMUX_PROVIDER_MY_OWN_2_X_A_B=6";
    variables[4] = "CHATMUX_PROVIDER_MY_OWN_2_HEADER_X_ONE=7";
    variables[5] = "CHATMUX_PROVIDER_MY_TYPE=openai";
    accept("[upstream]\nidle_timeout = 2s\n[provider my-own.2]\ntype = demo\nx.a-b = 1\n"
           "[provider my]\ntype = demo\n");
    ck_str(joined(c->providers[0].credentials), "c1|c2");
    ck_assert_int_eq(c->providers[0].upstream.idle_timeout_ms, 3000);
    ck_assert_int_eq(c->providers[1].upstream.idle_timeout_ms, 2000);
    ck_assert_uint_eq(c->providers[0].n_options, 2);
    ck_str(c->providers[0].options[0].key, "a-b");
    ck_str(c->providers[0].options[0].value, "6");
    ck_str(c->providers[0].options[0].where, "environment CHATMUX_PROVIDER_MY_OWN_2_X_A_B");
    ck_str(c->providers[0].options[1].key, "chunk_ms");
    ck_str(c->providers[0].headers[0].key, "x-one");
    ck_str(c->providers[1].type, "openai");
}
END_TEST

START_TEST(variables_that_mean_nothing_are_told)
{
    variables[0] = "CHATMUX_SERVER_LISTN=x";
    refuse(DEMO, "environment CHATMUX_SERVER_LISTN", "is it listen?");
    variables[0] = "CHATMUX_PROVIDER_OPENAI_TYPE=demo";
    refuse(DEMO, "environment CHATMUX_PROVIDER_OPENAI_TYPE", "no provider of this name");
    ck_assert_ptr_nonnull(strstr(problems.first->text.p, "there is demo"));
    variables[0] = "CHATMUX_PROVIDER_DEMO_TIPE=demo";
    refuse(DEMO, "environment CHATMUX_PROVIDER_DEMO_TIPE", "is it type?");
    variables[0] = "CHATMUX_LOG_LEVEL=";
    refuse(DEMO, "environment CHATMUX_LOG_LEVEL", "must be one of");
    variables[0] = "CHATMUX_PROVIDER_DEMO_HEADER_A=x\ny";
    refuse(DEMO, "environment CHATMUX_PROVIDER_DEMO_HEADER_A", "one line");
    variables[0] = "CHATMUX_STORE_URL=sqlite:a\nb";
    refuse(DEMO, "environment CHATMUX_STORE_URL", "one line");
    variables[0] = "CHATMUX_PROVIDER_A_X_X_B=1";
    refuse("[provider a]\ntype = demo\n[provider a.x]\ntype = demo\n",
           "environment CHATMUX_PROVIDER_A_X_X_B", "more than one");
    variables[0] = NULL;
    refuse("[provider a-b]\ntype = demo\n[provider a.b]\ntype = demo\n", "f.ini:3",
           "provider a.b and a-b (f.ini:1) share the variables CHATMUX_PROVIDER_A_B_");
    variables[0] = "CHATMUX_ADMIN_URL=http://x";
    variables[1] = "CHATMUX_SERVER_SERVICE_HOST=10.0.0.1";
    variables[2] = "CHATMUX_SERVER_PORT_80_TCP=tcp://10.0.0.1:80";
    variables[3] = "CHATMUX=1";
    variables[4] = "CHATMUX_LOG=1";
    accept(DEMO);
}
END_TEST

START_TEST(sets_find_names_with_dots)
{
    sets[0] = "provider.a.b.weight=2";
    sets[1] = "provider.a.x.opt=3";
    sets[2] = "provider.a.b.header.X-Y=4";
    sets[3] = "model.gpt-4.1.strategy=fastest";
    sets[4] = "server.listen=127.0.0.1:1,127.0.0.1:2";
    accept("[provider a]\ntype = demo\n[provider a.b]\ntype = demo\n"
           "[model gpt-4]\ntargets = a/x\n[model gpt-4.1]\ntargets = a/x\n");
    ck_assert_int_eq(c->providers[1].weight, 2);
    ck_assert_int_eq(c->providers[0].weight, 1);
    ck_str(c->providers[0].options[0].key, "opt");
    ck_str(c->providers[1].headers[0].key, "X-Y");
    ck_assert_int_eq(c->models[1].strategy, CM_ROUTE_FASTEST);
    ck_assert_uint_eq(c->server.listen.n, 2);
}
END_TEST

START_TEST(sets_that_mean_nothing_are_told)
{
    sets[0] = "sk-secret";
    refuse(DEMO, "--set", "must be section.key=value");
    sets[0] = "log=1";
    refuse(DEMO, "--set log", "must be section.key=value");
    sets[0] = "lgo.level=info";
    refuse(DEMO, "--set lgo.level", "unknown section \"lgo\", is it log?");
    sets[0] = "log.levle=info";
    refuse(DEMO, "--set log.levle", "is it level?");
    sets[0] = "provider.x.type=demo";
    refuse(DEMO, "--set provider.x.type", "no provider of this name");
    sets[0] = "provider.demo.tpye=demo";
    refuse(DEMO, "--set provider.demo.tpye", "is it type?");
    sets[0] = "model.x.strategy=fastest";
    refuse(DEMO, "--set model.x.strategy", "no model");
    sets[0] = "log.level=x";
    refuse(DEMO, "--set log.level", "log.level: must be one of");
}
END_TEST

START_TEST(secrets_are_not_told)
{
    struct cm_conf_key secret = {.section = "s", .key = "k", .max = 9, .secret = true};
    struct cm_err err = {0};
    int64_t v;

    static const char *const texts[] = {
        "[auth]\nkeys =\n  ok\n  hush hush\n" DEMO,
        "[auth]\nadmin_secret = hush hush\n" DEMO,
        "[auth]\nadmin_secret = hush\n  hush\n" DEMO,
        DEMO "credentials =\nhush-hush\n",
        DEMO "credentials =\n\x01hush\n",
        DEMO "header.Cookie = hush\n  hush\n",
        DEMO "proxy = socks4://u:hush@h\n",
        DEMO "base_url = https://hush@h\n",
        DEMO "credentials =\nhush0123456789012345678901234567890123456789==\n",
    };

    for (size_t i = 0; i < CM_COUNT(texts); i++) {
        read_text(texts[i]);
        ck_assert_uint_ge(problems.n, 1);
        for (struct cm_problem *p = problems.first; p; p = p->next)
            ck_assert_msg(!cm_str_has(p->text, CM_S("hush")), "%s", p->text.p);
    }
    secret.type = CM_CONF_INT; /* our secrets are texts today */
    ck_assert_int_eq(cm_conf_read(&arena, &secret, CM_S("hush"), (struct cm_strs){0}, &v, &err),
                     -1);
    ck_assert_ptr_null(strstr(err.msg, "hush"));
    ck_assert(cm_conf_secret_name(CM_S("Authorization")));
    ck_assert(cm_conf_secret_name(CM_S("X-Api-Key")));
    ck_assert(cm_conf_secret_name(CM_S("session_id")));
    ck_assert(cm_conf_secret_name(CM_S("bearer_token")));
    ck_assert(!cm_conf_secret_name(CM_S("max_tokens")));
    ck_assert(!cm_conf_secret_name(CM_S("token_url")));
    ck_assert(!cm_conf_secret_name(CM_STR_NONE));
}
END_TEST

START_TEST(other_formats_get_a_sentence)
{
    static const struct {
        const char *text, *format;
    } looks[] = {
        {"# c\n\nopenai:\n  key: x\n", "YAML"},
        {"server: x\n", "YAML"},
        {"---\na: b\n", "YAML"},
        {"\xEF\xBB\xBF{\"a\": 1}\n", "JSON"},
        {"server:\r\n  a: b\r\n", "YAML"},
    };

    for (size_t i = 0; i < CM_COUNT(looks); i++) {
        refuse(looks[i].text, "f.ini", "[provider openai]");
        ck_assert_ptr_nonnull(strstr(problems.first->text.p, looks[i].format));
    }
    refuse("a:b\n" DEMO, "f.ini:1", "neither key = value");
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"c.yaml", "c.json", "c.toml"};

        cm_problems_init(&problems, &arena);
        ck_assert_ptr_null(cm_config_parse(names[i], CM_S(DEMO), NULL, &problems));
        ck_assert_uint_eq(problems.n, 1);
        ck_assert_ptr_nonnull(strstr(problems.first->text.p, "reads INI"));
    }
}
END_TEST

static void enter_empty_directory(char dir[static 32])
{
    snprintf(dir, 32, "/tmp/chatmux-config-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
}

static void write_file(const char *name, const char *text, long extra)
{
    FILE *f = fopen(name, "w");

    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    if (extra > 0) {
        fseek(f, extra, SEEK_CUR);
        fputc('\n', f);
    }
    fclose(f);
}

START_TEST(files_are_found_and_refused)
{
    char dir[32];

    enter_empty_directory(dir);
    load(NULL);
    no_problem();
    ck_assert(c->builtin_demo && c->auth.open_here);
    ck_str(c->file, "");
    ck_str(c->providers[0].type, "demo");
    ck_str(joined(c->server.listen), "127.0.0.1:8080");
    sets[0] = "server.listen=0.0.0.0:1";
    load(NULL);
    ck_assert_ptr_null(c);
    ck_assert_uint_eq(problems.n, 1);
    sets[0] = NULL;

    write_file("chatmux.ini", "[provider own]\ntype = openai\n", 0);
    load(NULL);
    no_problem();
    ck_str(c->file, "chatmux.ini");
    ck_str(c->providers[0].where, "chatmux.ini:1");
    ck_assert(!c->builtin_demo);

    load("absent.ini");
    ck_assert_str_eq(problems.first->where.p, "absent.ini");
    ck_assert_ptr_nonnull(strstr(problems.first->text.p, "no such file"));
    load(dir);
    ck_assert_ptr_nonnull(strstr(problems.first->text.p, "is a directory"));
    write_file("big.ini", DEMO "#", 4 << 20);
    load("big.ini");
    ck_assert_uint_eq(problems.n, 1);
    ck_assert_ptr_nonnull(strstr(problems.first->text.p, "larger than 4 MiB"));
    unlink("chatmux.ini");
    unlink("big.ini");
    rmdir(dir);
}
END_TEST

static void print(struct cm_buf *out)
{
    cm_buf_reset(out);
    cm_config_print(c, out);
}

static bool printed(struct cm_buf *out, const char *part)
{
    return cm_str_has(cm_buf_str(out), cm_str_of(part));
}

START_TEST(print_shows_values_and_origins)
{
    char fingerprint[CM_FINGERPRINT_CAP];
    struct cm_buf out = {0};

    variables[0] = "CHATMUX_LOG_LEVEL=debug";
    sets[0] = "retry.retries=0";
    accept("[auth]\nkeys = secret-key-of-a-client\nadmin_secret = ${NO:-the-admin-secret}\n"
           "[upstream]\nproxy = http://user:hush@proxy:1\n"
           "[provider demo]\ntype = demo\nheader.Authorization = Bearer hush\nx.a = $${b}\n"
           "user_agent = a ${NO:-;b} (c@d)\nmodels =\n    a\n    b=c\n");
    print(&out);
    ck_assert(printed(&out, "; default\nlisten = 127.0.0.1:8080\n"));
    ck_assert(printed(&out, "; environment CHATMUX_LOG_LEVEL\nlevel = debug\n"));
    ck_assert(printed(&out, "; --set retry.retries\nretries = 0\n"));
    ck_assert(printed(&out, "; from f.ini:3\nadmin_secret = "));
    ck_assert(printed(&out, "\nproxy = http://***@proxy:1\n"));
    ck_assert(printed(&out, "\nmodels =\n    a\n    b=c\n"));
    ck_assert(printed(&out, "\nuser_agent = a ;b (c@d)\n"));
    ck_assert(printed(&out, "\nx.a = $${b}\n"));
    ck_assert(printed(&out, "\ncooldown =\n"));
    ck_assert(printed(&out, "\nmax_body_bytes = 64m\n"));
    cm_fingerprint(CM_S("secret-key-of-a-client"), fingerprint);
    ck_assert(printed(&out, fingerprint));
    ck_assert(!printed(&out, "secret-key") && !printed(&out, "the-admin") &&
              !printed(&out, "hush"));
    cm_buf_clear(&out);
}
END_TEST

START_TEST(what_was_printed_reads_the_same)
{
    struct cm_buf first = {0}, second = {0};
    struct cm_config *before;
    struct cm_strs diff;
    size_t restart;

    accept("[server]\nlisten = unix:/a, [::1]:1\nroute_prefix = a/b\nheader_timeout = 90s\n"
           "max_header_bytes = 1000\n[upstream]\nidle_timeout = 1500ms\ncooldown = 0\n"
           "[provider demo]\ntype = demo\nmodels = \"#a\", b, c\nidle_timeout = 61s\n"
           "header.X = \"q\"\nx.one = a, b\nx.two =\n  a, b\nx.three = ${N:-a,b}\nx.four =\n"
           "x.five = a, b\n  \"c, d\"\nx.six = $$${x}\nx.seven = \"\"\"a, b\"\nx.token = t\n"
           "[model m]\ntargets =\n  demo/a\n  demo/b weight=2\nhedge_after = auto\n"
           "[price m]\ninput = 0.30\ncache_read = 0.000010\n[price n*]\noutput = 1000000\n"
           "[auth]\nkeys = secret-key-of-a-client, secret-key-with-a-$${\nadmin_secret = short\n");
    print(&first);
    before = c;
    c = NULL;
    accept(cm_buf_z(&first));
    diff = cm_config_diff(&arena, before, c, &restart);
    ck_str(joined(diff), "auth.keys|auth.admin_secret|provider.demo.x.token");
    print(&second);
    ck_assert_uint_gt(second.n, 1000);
    cm_config_unref(before);
    cm_buf_clear(&first);
    cm_buf_clear(&second);
}
END_TEST

START_TEST(diff_names_what_changed)
{
    struct cm_config *before;
    size_t restart;

    accept("[server]\nlisten = 127.0.0.1:1\n[provider a]\ntype = demo\nx.o = 1\nx.p = 1\n"
           "header.H = 1\ncredentials = c1\nidle_timeout = 1s\n[provider gone]\ntype = demo\n"
           "[model m]\ntargets = a/x\n[model gone]\ntargets = a/x\n");
    before = cm_config_ref(c);
    ck_assert_uint_eq(cm_config_diff(&arena, before, c, &restart).n, 0);
    ck_assert_uint_eq(restart, 0);
    accept("[server]\nlisten = 127.0.0.1:2\n[upstream]\nconnect_timeout = 1s\n"
           "[provider new]\ntype = demo\n[provider a]\ntype = demo\nx.o = 2\nx.q = 1\n"
           "credentials = c2\nidle_timeout = 2s\n[model m]\ntargets = new/x\n");
    ck_str(joined(cm_config_diff(&arena, before, c, &restart)),
           "server.listen (after a restart)|upstream.connect_timeout|provider.gone|model.gone|"
           "provider.new|provider.a.idle_timeout|provider.a.credentials|provider.a.header.H|"
           "provider.a.x.o|provider.a.x.p|provider.a.x.q|model.m.targets");
    ck_assert_uint_eq(restart, 1);
    cm_config_unref(before);
}
END_TEST

START_TEST(prices_are_read_exactly)
{
    struct cm_buf out = {0};

    sets[0] = "price.gpt-4.1.input=1.5";
    accept(DEMO "[price gpt-4o*]\ninput = 2.50\noutput = 10\ncache_read = 0.000001\n"
                "reasoning = 1000000\nimage = 0.0400\n"
                "[price gpt-4.1]\noutput = 0.1\n[price openai/x]\ninput = 0\n");
    ck_assert_uint_eq(c->n_prices, 3);
    ck_str(c->prices[0].name, "gpt-4o*");
    ck_str(c->prices[0].where, "f.ini:3");
    ck_assert_int_eq(c->prices[0].input, 2500000);
    ck_assert_int_eq(c->prices[0].output, 10000000);
    ck_assert_int_eq(c->prices[0].cache_read, 1);
    ck_assert_int_eq(c->prices[0].cache_write, -1);
    ck_assert_int_eq(c->prices[0].reasoning, CM_CONF_USD_MAX);
    ck_assert_int_eq(c->prices[0].image, 40000);
    ck_assert_int_eq(c->prices[1].input, 1500000);
    ck_assert_int_eq(c->prices[1].output, 100000);
    ck_assert_int_eq(c->prices[1].reasoning, -1);
    ck_assert_int_eq(c->prices[2].input, 0);
    print(&out);
    ck_assert(printed(&out, "\n[price gpt-4o*]\n"));
    ck_assert(printed(&out, "\ninput = 2.5\n") && printed(&out, "\noutput = 10\n"));
    ck_assert(printed(&out, "\ncache_read = 0.000001\n") && printed(&out, "\ncache_write =\n"));
    ck_assert(printed(&out, "\nimage = 0.04\n"));
    cm_buf_clear(&out);
}
END_TEST

START_TEST(prices_that_are_none)
{
    static const char *const wrong[] = {
        "-1",      "1,5",   "1.", ".5",  "$1", "1e3",  "1.0000001", "0x10",      "1 0",
        "1000001", "1.2.3", "+1", "nan", "",   "1.-5", "1. 5",      "1.000001x", "1000000.000001"};

    for (size_t i = 0; i < CM_COUNT(wrong); i++) {
        struct cm_buf text = {0};

        cm_buf_printf(&text, "%s[price m]\ninput = %s\n", DEMO, wrong[i]);
        refuse(cm_buf_z(&text), "f.ini:4", "price.m.input: must be USD from 0 to 1000000");
        cm_buf_clear(&text);
    }
    refuse(DEMO "[price a*b]\ninput = 1\n", "f.ini:3",
           "[price a*b]: a * can only stand at the end");
    refuse(DEMO "[price m]\n", "f.ini:3", "[price m] has no price");
    refuse(DEMO "[price]\ninput = 1\n", "f.ini:3", "[price NAME] needs a name");
    refuse(DEMO "[price m]\ninput = 1\ninptu = 1\n", "f.ini:5", "is it input?");
    refuse(DEMO "[prices m]\ninput = 1\n", "f.ini:3", "is it [price]?");
    sets[0] = "price.n.input=1";
    refuse(DEMO "[price m]\ninput = 1\n", "--set price.n.input", "no price of this name");
}
END_TEST

START_TEST(prices_and_retention_change_with_a_reload)
{
    struct cm_config *before;
    size_t restart;

    accept(DEMO "[price m]\ninput = 1\n[price gone]\ninput = 1\n");
    before = cm_config_ref(c);
    accept(DEMO "[price new]\ninput = 1\n[price m]\ninput = 1.000000\nreasoning = 2\n"
                "[store]\nkeep_days = 0\nrequest_log = no\n");
    ck_str(joined(cm_config_diff(&arena, before, c, &restart)),
           "store.request_log|store.keep_days (after a restart)|price.gone|price.new|"
           "price.m.reasoning");
    ck_assert_uint_eq(restart, 1);
    cm_config_unref(before);
}
END_TEST

START_TEST(the_last_reference_frees)
{
    struct cm_config *same;

    accept(DEMO "credentials = secret\n");
    same = cm_config_ref(c);
    ck_assert_ptr_eq(same, c);
    cm_config_unref(same);
    ck_str(joined(c->providers[0].credentials), "secret");
    cm_config_unref(NULL);
}
END_TEST

/* The example with every setting that is switched off by a ; switched on. */
static void uncomment(const char *file, struct cm_buf *out)
{
    FILE *f = fopen(file, "r");
    char line[1000];

    ck_assert_msg(f != NULL, "%s: run the tests from the top of the tree", file);
    while (fgets(line, sizeof(line), f))
        cm_buf_append(out, cm_str_of(line[0] == ';' ? line + 1 : line));
    fclose(f);
}

static const char *no_environment(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return NULL;
}

START_TEST(the_example_has_every_key_with_its_default)
{
    struct cm_buf text = {0};
    struct cm_ini_entry *entries;
    struct cm_config *defaults;
    struct cm_strs diff;
    size_t n, restart;

    accept(DEMO);
    defaults = cm_config_ref(c);
    uncomment("config.example.ini", &text);
    accept(cm_buf_z(&text)); /* each key is known, each value is good */
    diff = cm_config_diff(&arena, defaults, c, &restart);
    for (size_t i = 0; i < diff.n; i++)
        ck_assert_msg(cm_str_starts(diff.v[i], CM_S("provider.")) ||
                          cm_str_starts(diff.v[i], CM_S("model.")) ||
                          cm_str_eq(diff.v[i], CM_S("price.my-model")),
                      "%s is not the default in the example", diff.v[i].p);

    cm_ini_parse(&arena, "example", cm_buf_str(&text), no_environment, NULL, &entries, &n,
                 &problems);
    no_problem();
    for (size_t k = 0; k < cm_conf_keys_n; k++) {
        const struct cm_conf_key *row = &cm_conf_keys[k];
        size_t i = 0;

        while (i < n && !(cm_str_eq(entries[i].kind, cm_str_of(row->section)) &&
                          cm_str_eq(entries[i].key, cm_str_of(row->key))))
            i++;
        ck_assert_msg(i < n, "%s.%s is missing in the example", row->section, row->key);
    }
    cm_config_unref(defaults);
    load("config.example.ini"); /* as it is */
    no_problem();
    ck_assert_uint_eq(c->n_providers, 1);
    cm_buf_clear(&text);
}
END_TEST

Suite *suite_config(void)
{
    Suite *s = suite_create("config");
    TCase *t = tcase_create("config");

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, NULL, clean_up);
    tcase_add_test(t, defaults_are_those_of_the_contract);
    tcase_add_test(t, every_row_of_the_table_is_sound);
    tcase_add_test(t, a_whole_file_is_read);
    tcase_add_test(t, names_that_are_unknown_get_the_nearest);
    tcase_add_test(t, the_nearest_name_is_near);
    tcase_add_test(t, values_tell_what_they_must_be);
    tcase_add_test(t, value_readers);
    tcase_add_test(t, route_prefix_is_normalised);
    tcase_add_test(t, listeners_are_checked);
    tcase_add_test(t, without_a_key_only_this_machine_is_let_in);
    tcase_add_test(t, values_must_go_together);
    tcase_add_test(t, addresses_of_platforms);
    tcase_add_test(t, headers_and_options);
    tcase_add_test(t, later_sources_win);
    tcase_add_test(t, the_environment_reaches_providers);
    tcase_add_test(t, variables_that_mean_nothing_are_told);
    tcase_add_test(t, sets_find_names_with_dots);
    tcase_add_test(t, sets_that_mean_nothing_are_told);
    tcase_add_test(t, secrets_are_not_told);
    tcase_add_test(t, other_formats_get_a_sentence);
    tcase_add_test(t, files_are_found_and_refused);
    tcase_add_test(t, print_shows_values_and_origins);
    tcase_add_test(t, what_was_printed_reads_the_same);
    tcase_add_test(t, diff_names_what_changed);
    tcase_add_test(t, prices_are_read_exactly);
    tcase_add_test(t, prices_that_are_none);
    tcase_add_test(t, prices_and_retention_change_with_a_reload);
    tcase_add_test(t, the_last_reference_frees);
    tcase_add_test(t, the_example_has_every_key_with_its_default);
    return s;
}
