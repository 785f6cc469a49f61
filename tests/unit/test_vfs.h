/* A disk that can lose what was not synced, and refuse: a SQLite VFS over the real one, for tests of one process.
 *
 * What is written stays in memory until the file is synced; only then it reaches the real file. So a process that ends in test_vfs_crash() leaves the
 * files as a machine does that loses power: with what was synced, and a random part of what was not, sector by sector. */
#ifndef CHATMUX_TEST_VFS_H
#define CHATMUX_TEST_VFS_H

#include <stdint.h>

/* Becomes SQLite's default. */
void test_vfs_install(void);

/* The n-th call (from 1) that writes, truncates or syncs is refused with this SQLite code; 0 = none. With `forever` all after it too. Counting begins
 * anew. Calls that come from other threads count as well. */
void test_vfs_refuse(int64_t nth, int code, int forever);
/* The process ends within the n-th call, as in a power cut; 0 = never. Counting begins anew. */
void test_vfs_crash_at(int64_t nth, uint64_t seed);
int64_t test_vfs_calls(void); /* so far */

#define TEST_VFS_CRASHED 77 /* the exit code */
void test_vfs_crash(uint64_t seed) __attribute__((noreturn));

#endif
