/* Files below tests/fixtures, for unit tests; they run at the top of the tree. */
#ifndef CHATMUX_TEST_FIXTURE_H
#define CHATMUX_TEST_FIXTURE_H

#include "chatmux/base/str.h"

/* The whole file as a C string; fails the test when it cannot be read. The caller frees. */
char *fixture(const char *name);

#endif
