/* A pool whose clocks are the test's, with one provider "up"; what it told and asked of its host is counted. Short names: every line of a test is
 * about it. */
#ifndef CHATMUX_TEST_POOL_FIXTURE_H
#define CHATMUX_TEST_POOL_FIXTURE_H

#include "chatmux/pool/pool.h"
#include "unit.h"

#define UP CM_S("up")
#define MODEL CM_S("m")
#define S 1000 /* milliseconds */
#define MIN (60 * S)
#define HOUR (60 * MIN)
#define DAY (INT64_C(24) * HOUR)
#define START_UNIX INT64_C(1700000000000)

extern uint64_t mono;
extern int64_t wall;
extern struct cm_pool *pool;
extern struct cm_pool_provider provider;
extern struct told {
    size_t states, refreshes, probes;
    uint64_t id; /* of the last one */
    enum cm_cred_state state;
    char reason[64];
} told;

void set_up(void);
void clean_up(void);
void restart(void); /* another life of the process: what the store kept is all there is */
void set_provider(struct cm_pool_provider p);
void pass(int64_t ms);

struct cm_cred_info info_of(uint64_t id, const char *secret);
void add(uint64_t id); /* with the secret "sk-1" */
struct cm_cred_info get(uint64_t id);

struct cm_err why_of(enum cm_err_class cls, int retry_after_s);
struct cm_lease *lease_as(struct cm_pool_ask ask);
struct cm_lease *lease(void);
void back(struct cm_lease *l, enum cm_err_class cls, int retry_after_s);
void use(uint64_t id, enum cm_err_class cls,
         int retry_after_s); /* one request on it, with that end */
uint64_t serves(void);       /* whom the next one would be; 0 = nobody */

#define expect(id, want, left_ms) expect_at(__LINE__, id, CM_CRED_STATE_##want, left_ms)
void expect_at(int line, uint64_t id, enum cm_cred_state state, int64_t left_ms);

#endif
