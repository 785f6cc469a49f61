/* The simulation: the gateway with its pool, its keys and its adapters as they are, in a world whose clock, network and clients are ours.
 *
 *     sim [SEED [EXCHANGES]]       the same seed gives the same run
 *
 * Clients of four dialects ask platforms of three, through routes of every strategy: relayed, translated, hedged, drained. Checked at every step: an
 * account never has more requests than agreed, none while it is limited, none after it was refused (platform.c); every answer is legal in its dialect, of
 * one attempt, whole or with an error at its end, and given once (clients.c, reading.c). When nothing is under way: every lease is back, every reservation
 * of a key is settled, every exchange was counted once. At the end: memory is what it was, and accounts that fail for one model were spared it. */
#include "clients.h"
#include "platform.h"
#include "world.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/crypto.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/gateway/gateway.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define CAP 4
#define ROUND 5000
#define PER_SECOND 200
#define COVERED 20000 /* so many exchanges see everything */
#define MEMORY_GROWTH (256u * 1024)

struct sim {
    struct cm_loop *loop;
    struct cm_memo *memo;
    struct cm_host host;
    struct platform *platform;
    struct cm_gateway *gateway;
    struct cm_httpd_handler handler;
    uint64_t left_to_ask; /* in this round */
    uint64_t open;
};

static const char *const keys[] = {"sk-plain-0001", "sk-limited-0002", "sk-parallel-0003",
                                   "sk-budget-0004"};
/* "/" is a part of a path for Gemini's clients. */
static const char *const models[] = {"m1",    "m2",    "best",  "quick", "calm",
                                     "every", "up/m1", "an/c1", "ge/g1"};
#define PLAIN_MODELS 6

static const char settings[] =
    "[auth]\nkeys = sk-plain-0001\n"
    "[upstream]\nfirst_token_timeout = 3s\nidle_timeout = 3s\nresponse_timeout = 8s\n"
    "total_timeout = 60s\ncooldown = 60s\n"
    "[retry]\nmax_wait = 5s\ncredentials = 8\nretries = 1\n"
    "[stream]\nkeepalive = 1s\ncommit_after = 700ms\n"
    "[price m1]\ninput = 1\noutput = 2\n"
    "[model best]\ntargets =\n  up/m1 weight=2\n  an/c1\n  ge/g1\nstrategy = weighted\nlarger_targets =\n  up/m3\n"
    "[model quick]\ntargets =\n  up/m1\n  an/c1\nstrategy = fastest\nhedge_after = 400ms\n"
    "[model calm]\ntargets =\n  ge/g1\n  up/m2\nstrategy = least_busy\nhedge_after = auto\n"
    "[model every]\ntargets =\n  an/c1 temperature=0.5\n  up/m2\n  ge/g1\nstrategy = priority\n";

/* What is drained after its client has left, and what is cancelled. */
static const char *const houses[PLATFORM_HOUSES] = {
    "type = openai\nbase_url = https://up.sim/v1\nmodels = m1, m2, m3\n",
    "type = anthropic\nbase_url = https://an.sim\nmodels = c1\nx.untimed_limit = short\non_disconnect = drain\n"
    "drain_time = 2s\ndrain_bytes = 2k\ndrain_max = 3\n",
    "type = gemini\nbase_url = https://ge.sim\nmodels = g1\non_disconnect = drain\n",
};
static const char *const house_names[PLATFORM_HOUSES] = {"up", "an", "ge"};

static struct cm_config *configure(const struct platform *p, struct cm_problems *problems)
{
    static char *const nothing[] = {NULL};
    struct cm_conf_source source = {.environ_list = nothing};
    struct cm_config *config;
    struct cm_buf text = {0};

    cm_buf_append(&text, cm_str_of(settings));
    for (unsigned h = 0; h < PLATFORM_HOUSES; h++) {
        cm_buf_printf(&text, "[provider %s]\n%smax_inflight = %d\ncredentials =\n", house_names[h],
                      houses[h], CAP);
        platform_put_accounts(p, h, &text);
    }
    config = cm_config_parse("sim.ini", cm_buf_str(&text), &source, problems);
    cm_buf_clear(&text);
    if (!config)
        world_fail(CM_PRI, CM_ARG(problems->first->text));
    return config;
}

static void add_key(struct sim *s, uint64_t id, const char *secret, struct cm_key_row row)
{
    row.id = id;
    cm_sha256(cm_str_of(secret), row.digest);
    row.name = row.hint = cm_str_of(secret);
    row.budget_period = CM_S("day");
    row.enabled = true;
    cm_keys_put(cm_gateway_keys(s->gateway), &row);
}

static void set_up(struct sim *s)
{
    struct cm_arena texts = {0};
    struct cm_problems problems;
    struct cm_config *config;

    s->loop = cm_loop_new();
    s->platform = platform_new(s->loop, CAP);
    s->memo = cm_memo_new(&cm_clock_system, 1024 * 1024);
    s->host = (struct cm_host){.loop = s->loop,
                               .jobs = cm_jobs_new(s->loop),
                               .transport = platform_transport(s->platform),
                               .memo = s->memo};
    cm_problems_init(&problems, &texts);
    config = configure(s->platform, &problems);
    s->gateway = cm_gateway_new(&s->host, config, NULL, &problems);
    if (!s->gateway)
        world_fail(CM_PRI, CM_ARG(problems.first->text));
    cm_config_unref(config);
    cm_arena_clear(&texts);
    s->handler = cm_gateway_handler(s->gateway);
    add_key(s, 1, keys[1], (struct cm_key_row){.rpm = 2000, .tpm = 3000000});
    add_key(s, 2, keys[2], (struct cm_key_row){.max_parallel = 40});
    add_key(s, 3, keys[3], (struct cm_key_row){.budget_micro_usd = 300000});
}

/* ---- rounds ---- */

static void on_answer(void *arg)
{
    struct sim *s = arg;

    s->open--;
    if (s->open == 0 && s->left_to_ask == 0)
        cm_loop_stop(s->loop);
}

static void ask(void *arg)
{
    struct sim *s = arg;
    struct client_question question = {.key = keys[dice(CM_COUNT(keys))],
                                       .dialect = (enum dialect)dice(DIALECTS),
                                       .streamed = chance(600)};

    s->open++;
    if (--s->left_to_ask > 0)
        world_after(s->loop, dice(2000 / PER_SECOND + 1), ask, s);
    question.model = models[dice(question.dialect < GEMINI ? CM_COUNT(models) : PLAIN_MODELS)];
    client_ask(s->loop, &s->handler, &question, on_answer, s);
}

static void stop(void *arg)
{
    cm_loop_stop(((struct sim *)arg)->loop);
}

static void end_outage(void *arg)
{
    platform_outage(((struct sim *)arg)->platform, false);
}

static void begin_outage(void *arg)
{
    struct sim *s = arg;

    platform_outage(s->platform, true);
    world_after(s->loop, 1000 + dice(4000), end_outage, s);
}

static void play_round(struct sim *s, uint64_t n)
{
    platform_faults(s->platform, (unsigned)dice(150));
    if (chance(300))
        world_after(s->loop, dice(8000), begin_outage, s);
    s->left_to_ask = n;
    world_after(s->loop, 0, ask, s);
    cm_loop_run(s->loop);
    world_after(s->loop, 20000 + dice(100000), stop,
                s); /* what tidies up has ended by then, and limits end */
    cm_loop_run(s->loop);
}

/* ---- what must be true when nothing is under way ---- */

/* Adds up what was spent. */
static void check_key(void *arg, const struct cm_key *key)
{
    struct cm_key_limits limits;
    int64_t *spent = arg;

    cm_key_limits(key, &limits);
    if (limits.parallel != 0 || limits.reserved_micro_usd != 0)
        world_fail("the key " CM_PRI " still has %lld requests and %lld micro-USD reserved",
                   CM_ARG(cm_key_row(key)->name), (long long)limits.parallel,
                   (long long)limits.reserved_micro_usd);
    *spent += limits.spent_micro_usd;
}

/* Sum of a counter over all its labels. */
static double sum_of(struct sim *s, const char *name)
{
    struct cm_buf text = {0};
    struct cm_str rest;
    double sum = 0;

    cm_metrics_render(cm_gateway_metrics(s->gateway), &text);
    rest = cm_buf_str(&text);
    while (rest.n > 0) {
        struct cm_str line = cm_str_cut(&rest, '\n');
        char value[64];

        if (!cm_str_starts(line, cm_str_of(name)))
            continue;
        cm_str_copy(value, sizeof(value), cm_str_from(line, cm_str_find(line, CM_S("} ")) + 2));
        sum += strtod(value, NULL);
    }
    cm_buf_clear(&text);
    return sum;
}

static uint64_t counted(struct sim *s, const char *name)
{
    return (uint64_t)(sum_of(s, name) + 0.5);
}

/* Each answer was paid for once: what keys have spent (it is the same day all the time) is what answers cost. */
static void check_spent(struct sim *s)
{
    int64_t spent = 0;
    double cost;

    cm_keys_each(cm_gateway_keys(s->gateway), check_key, &spent);
    cost = sum_of(s, "chatmux_cost_usd_total{") * 1e6;
    if (cost - (double)spent > 1 || (double)spent - cost > 1)
        world_fail("keys have spent %lld micro-USD, answers cost %.0f", (long long)spent, cost);
}

static void check_idle(struct sim *s)
{
    struct cm_pool_counts pool;
    struct cm_gateway_stats stats;

    cm_gateway_stats(s->gateway, &stats);
    cm_pool_count(cm_gateway_pool(s->gateway), CM_STR_NONE, &pool);
    if (stats.exchanges || stats.streams || stats.attempts || pool.inflight || pool.waiting)
        world_fail(
            "nothing is under way, but %zu exchanges, %zu streams, %zu attempts, %zu leases and %zu in line",
            stats.exchanges, stats.streams, stats.attempts, pool.inflight, pool.waiting);
    if (platform_inflight(s->platform) > 0)
        world_fail("%u transfers are still open", platform_inflight(s->platform));
    check_spent(s);
    if (counted(s, "chatmux_requests_total{") != clients_figures()->asked)
        world_fail("%llu requests were asked, %llu were counted",
                   (unsigned long long)clients_figures()->asked,
                   (unsigned long long)counted(s, "chatmux_requests_total{"));
}

static size_t memory(void)
{
    return mallinfo2().uordblks + mallinfo2().hblkhd;
}

static double cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void play(struct sim *s, uint64_t exchanges)
{
    size_t before = 0;

    for (uint64_t done = 0, round = 0; done < exchanges; round++) {
        uint64_t n = exchanges - done < ROUND ? exchanges - done : ROUND;

        play_round(s, n);
        check_idle(s);
        done += n;
        if (round == 2)
            before = memory();
    }
    if (before > 0 && memory() > before + MEMORY_GROWTH)
        world_fail("memory grew from %zu to %zu bytes", before, memory());
}

static const char *const coverage[] = {
    "chatmux_hedges_total{provider=\"an\",result=\"won\"}",
    "chatmux_hedges_total{provider=\"up\",result=\"won\"}",
    "chatmux_hedges_total{provider=\"up\",result=\"lost\"}",
    "chatmux_client_disconnects_total{phase=\"before_head\"}",
    "chatmux_client_disconnects_total{phase=\"middle\"}",
    "chatmux_attempts_total{provider=\"up\",class=\"ok\"}",
    "chatmux_attempts_total{provider=\"an\",class=\"ok\"}",
    "chatmux_attempts_total{provider=\"ge\",class=\"ok\"}",
    "chatmux_attempts_total{provider=\"an\",class=\"timeout\"}",
};

/* Of a long run: what was to be seen was seen. */
static void check_coverage(struct sim *s)
{
    const struct platform_figures p = platform_figures(s->platform);

    for (size_t i = 0; i < CM_COUNT(coverage); i++)
        if (counted(s, coverage[i]) == 0)
            world_fail("%s was never counted", coverage[i]);
    for (size_t i = 0; i < CM_COUNT(clients_figures()->by_dialect); i++)
        if (clients_figures()->by_dialect[i] == 0)
            world_fail("nobody was answered in dialect %zu", i);
    if (p.broken * 10 > p.broken_model) /* without a breaker it is one in five */
        world_fail("of %llu requests %llu went to accounts on which they fail",
                   (unsigned long long)p.broken_model, (unsigned long long)p.broken);
}

static void on_closed(void *arg)
{
    cm_loop_stop(((struct sim *)arg)->loop);
}

/* Nothing may be left: the loop complains about deadlines, the sanitizer about memory. */
static void tear_down(struct sim *s)
{
    cm_gateway_close(s->gateway, on_closed, s);
    cm_loop_run(s->loop);
    cm_jobs_close(s->host.jobs);
    cm_memo_free(s->memo);
    platform_free(s->platform);
    cm_loop_free(s->loop);
}

static void report(struct sim *s, uint64_t seed)
{
    struct client_figures *c = clients_figures();
    struct platform_figures p = platform_figures(s->platform);

    printf(
        "seed %llu: %llu exchanges over %llu attempts (%llu of them failed, %llu limited, %llu refused)\n"
        "answers: %llu whole, %llu errors, %llu cut, %llu clients left; statuses",
        (unsigned long long)seed, (unsigned long long)c->asked, (unsigned long long)p.asked,
        (unsigned long long)p.faults, (unsigned long long)p.limited, (unsigned long long)p.refused,
        (unsigned long long)c->whole, (unsigned long long)c->errors, (unsigned long long)c->cut,
        (unsigned long long)c->left);
    for (int i = 1; i < 600; i++)
        if (c->by_status[i])
            printf(" %d: %llu", i, (unsigned long long)c->by_status[i]);
    printf("\ngood answers by dialect:");
    for (size_t i = 0; i < CM_COUNT(c->by_dialect); i++)
        printf(" %llu", (unsigned long long)c->by_dialect[i]);
    printf(
        "; of %llu requests for a model %llu went to accounts on which it fails, which got %llu others\n",
        (unsigned long long)p.broken_model, (unsigned long long)p.broken,
        (unsigned long long)p.kept);
    printf("%.1f s of CPU time, %zu KiB held, digest %016llx\n", cpu_s(), memory() / 1024,
           (unsigned long long)c->digest);
}

int main(int argc, char **argv)
{
    static char replay[200];
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t exchanges = argc > 2 ? strtoull(argv[2], NULL, 10) : 200000;
    struct sim s = {0};

    snprintf(replay, sizeof(replay), "%s %llu %llu", argv[0], (unsigned long long)seed,
             (unsigned long long)exchanges);
    world_how_to_replay = replay;
    world_begin(seed);
    cm_log_setup(&(struct cm_log_setup){.fd = 2, .level = CM_LOG_ERROR});
    set_up(&s);
    play(&s, exchanges);
    report(&s, seed);
    if (exchanges >= COVERED)
        check_coverage(&s);
    tear_down(&s);
    return 0;
}
