/* The log: one line per event on standard error, as text or JSON. Lines are collected and
 * written once per loop turn. Any thread may log; cm_log_setup() and cm_log_flush() belong to
 * the loop thread. */
#ifndef CHATMUX_BASE_LOG_H
#define CHATMUX_BASE_LOG_H

#include "chatmux/base/buf.h"
#include "chatmux/base/clock.h"

#define CM_LOG_LEVELS(X)                                                                           \
    X(ERROR, "error") X(WARN, "warn") X(INFO, "info") X(DEBUG, "debug") X(TRACE, "trace")
enum cm_log_level {
#define X(name, text) CM_LOG_##name,
    CM_LOG_LEVELS(X)
#undef X
};

struct cm_log_setup {
    int fd; /* where lines go; 2 until set up */
    enum cm_log_level level;
    bool json;
    bool access;                  /* access lines on */
    const struct cm_clock *clock; /* not owned; NULL = the system's */
};
/* Writes what was collected to where it went so far, then goes on as told. */
void cm_log_setup(const struct cm_log_setup *setup);

/* Read by the macro below; set by cm_log_setup(). */
extern _Atomic(enum cm_log_level) cm_log_threshold;

/* Module and format are literals. `module` is a short word: "httpd", "pool" …; a line:
 * `2026-01-31T08:15:00.123Z info  pool  credential 3 cools for 20 s: rate_limited`. The text is
 * escaped: control characters and invalid UTF-8 from outside cannot break a line; above 4 KiB
 * it is cut. More than 5 lines of the same module and format string within a second are counted
 * and summed up in one line ("… 120 more like this: <format>"). */
#define cm_log(lvl, module, ...)                                                                   \
    do {                                                                                           \
        if ((lvl) <= cm_log_threshold)                                                             \
            cm_log_write((lvl), (module), __VA_ARGS__);                                            \
    } while (0)
void cm_log_write(enum cm_log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define cm_error(module, ...) cm_log(CM_LOG_ERROR, module, __VA_ARGS__)
#define cm_warn(module, ...) cm_log(CM_LOG_WARN, module, __VA_ARGS__)
#define cm_info(module, ...) cm_log(CM_LOG_INFO, module, __VA_ARGS__)
#define cm_debug(module, ...) cm_log(CM_LOG_DEBUG, module, __VA_ARGS__)
#define cm_trace(module, ...) cm_log(CM_LOG_TRACE, module, __VA_ARGS__)

/* One line of named values, used for the access log: never limited, only written when `access`
 * is on. */
struct cm_log_field {
    const char *name;
    enum { CM_FIELD_STR, CM_FIELD_INT, CM_FIELD_NONE } kind; /* NONE: null in JSON, "-" in text */
    struct cm_str str;
    int64_t num;
};
void cm_log_access(const struct cm_log_field *fields, size_t n);
bool cm_log_access_on(void);

/* For a process about to abort: writes what was collected, unless the log itself is busy. Any
 * thread. */
void cm_log_abandon(void);

/* Writes what was collected; the loop calls it before it sleeps, errors do at once. Waits at
 * most 20 ms for a reader that is slow, then keeps up to 256 KiB for later; what does not fit
 * is counted and reported once somebody reads again. */
void cm_log_flush(void);

/* At exit: sums up what was limited, flushes, frees. Logging goes on working. */
void cm_log_close(void);

#endif
