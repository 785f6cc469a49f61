/* The world of a simulation: virtual time, seeded randomness, and an event loop that jumps from one deadline to the next. One thread.
 *
 * world.c stands in for io/loop, io/job and the kernel's clocks and random bytes, so that everything above runs as it is. */
#ifndef CHATMUX_SIM_WORLD_H
#define CHATMUX_SIM_WORLD_H

#include "chatmux/base/rand.h"
#include "chatmux/base/str.h"
#include "chatmux/io/loop.h"

/* Before anything else of the program runs: the same seed gives the same run. */
void world_begin(uint64_t seed);

/* The world's own dice: faults, clients, pauses. */
uint64_t dice(uint64_t sides); /* 0 … sides-1 */
bool chance(unsigned in_thousand);

/* fn(arg) after a pause; freed by itself. */
void world_after(struct cm_loop *loop, uint64_t ms, void (*fn)(void *arg), void *arg);

/* Ends the program with what went wrong, the seed, and how to see it again. */
_Noreturn void world_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* What is told when it fails. */
extern const char *world_how_to_replay;

#endif
