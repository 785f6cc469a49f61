/* What every unit test includes: Check, the prototypes of all suites, and comparing slices. */
#ifndef CHATMUX_TEST_UNIT_H
#define CHATMUX_TEST_UNIT_H

#include "chatmux/base/str.h"

#include <check.h>

/* AddressSanitizer ends a process in its own way and has its own malloc. */
#if defined(__SANITIZE_ADDRESS__)
#define UNIT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNIT_ASAN 1
#endif
#endif

#define X(module) Suite *suite_##module(void);
#include "suites.h"
#undef X

/* Compares a cm_str with a string literal, which may hold NUL bytes. */
#define ck_str(slice, literal)                                                                     \
    do {                                                                                           \
        struct cm_str got_ = (slice);                                                              \
        ck_assert_msg(cm_str_eq(got_, CM_S(literal)), "%s is \"%.*s\" (%zu bytes), not \"%s\"",    \
                      #slice, CM_ARG(got_), got_.n, literal);                                      \
    } while (0)

/* For loops of thousands of rounds: Check notes each ck_assert() it passes in a file. */
#define ck_quick(cond)                                                                             \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ck_abort_msg("%s", #cond);                                                             \
    } while (0)

#endif
