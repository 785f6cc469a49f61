/* Secrets from people: typed without an echo, or piped in. */
#include "command.h"

#include "chatmux/base/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#define SECRET_MAX_BYTES 65536

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

/* Up to the end of the line (a terminal) or of the input. -1: read(2) failed or was interrupted. */
static int read_all(struct cm_buf *out, bool line)
{
    for (;;) {
        char piece[4096];
        ssize_t n = read(STDIN_FILENO, piece, sizeof(piece));

        if (n < 0)
            return -1;
        cm_buf_append(out, cm_str(piece, (size_t)n));
        cm_wipe(piece, sizeof(piece));
        if (n == 0 || out->failed || (line && cm_str_ends(cm_buf_str(out), CM_S("\n"))))
            return 0;
    }
}

/* A signal must not leave the terminal without its echo: it is noted, the echo comes back, and then it takes effect. */
static int read_unseen(const char *prompt, struct cm_buf *out)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction note = {.sa_handler = on_signal}, before[CM_COUNT(signals)];
    struct termios seen, unseen;
    int rc;

    tcgetattr(STDIN_FILENO, &seen);
    unseen = seen;
    unseen.c_lflag &= ~(tcflag_t)ECHO;
    for (size_t i = 0; i < CM_COUNT(signals); i++)
        sigaction(signals[i], &note, &before[i]);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &unseen); /* drops what was typed before the prompt */
    fprintf(stderr, "%s: ", prompt);
    fflush(stderr);
    rc = read_all(out, true);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &seen);
    for (size_t i = 0; i < CM_COUNT(signals); i++)
        sigaction(signals[i], &before[i], NULL);
    fputc('\n', stderr);
    if (interrupted)
        raise(interrupted);
    return rc;
}

int secret_read(const char *prompt, struct cm_buf *out)
{
    struct cm_str s;
    int rc;

    cm_buf_init(out, SECRET_MAX_BYTES);
    rc = isatty(STDIN_FILENO) ? read_unseen(prompt, out) : read_all(out, false);
    if (rc < 0) {
        fprintf(stderr, "standard input cannot be read: %s\n", strerror(errno));
        return -1;
    }
    if (out->failed) {
        fprintf(stderr, "a secret has at most %d bytes\n", SECRET_MAX_BYTES);
        return -1;
    }
    s = cm_str_trim(cm_buf_str(out));
    if (s.n == 0) {
        fprintf(stderr, "no secret came on standard input\n");
        return -1;
    }
    cm_buf_consume(out, (size_t)(s.p - out->p));
    out->n = s.n;
    return 0;
}
