/* What a target's own traffic tells of it: how busy it is, how soon it answers, and a breaker for each provider. Loop thread only; pure, time comes in as
 * monotonic milliseconds. Lost at a restart, kept over reloads. */
#ifndef CHATMUX_GATEWAY_HEALTH_H
#define CHATMUX_GATEWAY_HEALTH_H

#include "chatmux/base/str.h"

struct health;

struct health *health_new(void);
void health_free(struct health *h); /* NULL is fine */

/* One attempt at (provider, model) begins; each is followed by one end. True: it is the one that decides about a half-open breaker. */
bool health_begun(struct health *h, struct cm_str provider, struct cm_str model, uint64_t now_ms);

enum health_result {
    HEALTH_ANSWERED, /* the provider was there, also when it refused this account or this request */
    HEALTH_FAILED,   /* down, overloaded, cut, silent */
    HEALTH_LEFT      /* the client left: says nothing */
};
/* How a provider's breaker opens; rate 0 = never. */
struct health_rule {
    int64_t rate;     /* per cent of the attempts of the last 30 s that failed */
    int64_t attempts; /* that must have ended in this time */
};
struct health_end {
    enum health_result result;
    bool trial; /* what health_begun() said */
    bool streamed;
    int64_t
        first_ms; /* from the attempt's begin to the first event that meant something; -1 = there was none */
    int64_t took_ms; /* to its end */
};
void health_ended(struct health *h, struct cm_str provider, struct cm_str model,
                  const struct health_end *end, const struct health_rule *rule, uint64_t now_ms);

/* Attempts in flight. */
unsigned health_busy(const struct health *h, struct cm_str provider, struct cm_str model);
/* What the next first event is expected to take, in ms; streamed answers and whole ones are measured apart. It is forgotten with time (half of it every minute), so that a slow target is tried again, by
 * one attempt at a time. 0 = nothing is known and nobody is finding out. */
double health_first_ms(const struct health *h, struct cm_str provider, struct cm_str model,
                       bool streamed, uint64_t now_ms);
/* The 95th percentile of the last first events; -1 while fewer than 10 are known. */
int64_t health_first_p95(const struct health *h, struct cm_str provider, struct cm_str model,
                         bool streamed);

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
const char *breaker_state_name(enum breaker_state s);
/* Half open: one real request at a time decides. */
enum breaker_state health_breaker(const struct health *h, struct cm_str provider, uint64_t now_ms);
/* Whether an attempt may begin now; *wait_ms: when to come back. */
bool health_admits(const struct health *h, struct cm_str provider, uint64_t now_ms,
                   uint64_t *wait_ms);

#endif
