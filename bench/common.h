/* What the programs of the benchmark share: clock, sockets on 127.0.0.1, options, the request.
 *
 * Programs, not a library: whatever goes wrong here ends the process with a sentence. */
#ifndef CHATMUX_BENCH_COMMON_H
#define CHATMUX_BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* Monotonic. */
static inline uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Zeroed, never NULL. */
static inline void *grab(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);

    if (p == NULL)
        die("out of memory");
    return p;
}

static inline void *regrab(void *p, size_t bytes)
{
    p = realloc(p, bytes);
    if (p == NULL)
        die("out of memory");
    return p;
}

/* The value of an option: a number from `min` to `max`. */
static inline uint64_t number(const char *what, const char *text, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max)
        die("%s: \"%s\" is no number from %llu to %llu", what, text, (unsigned long long)min,
            (unsigned long long)max);
    return value;
}

/* As many descriptors as the system lets us have. */
static inline void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

/* `type`: SOCK_STREAM and flags. Small pieces leave at once, as from any HTTP program. */
static inline int tcp_socket(int type)
{
    const int on = 1;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* --- the request ----------------------------------------------------------------------------- */

enum dialect { OPENAI, ANTHROPIC, GEMINI, N_DIALECTS };

static inline enum dialect dialect_of(const char *name)
{
    static const char *const names[N_DIALECTS] = {"openai", "anthropic", "gemini"};

    for (int i = 0; i < N_DIALECTS; i++)
        if (strcmp(names[i], name) == 0)
            return (enum dialect)i;
    die("there is no dialect \"%s\"", name);
}

struct request_options {
    enum dialect dialect;
    uint16_t port;
    const char *key;
    const char *model;
    size_t prompt_bytes; /* of the user message */
    bool stream;
};

/* Prose with line ends, so that a JSON reader meets escapes as it does in real prompts. */
static inline void print_prompt(FILE *out, size_t bytes)
{
    static const char text[] =
        "Please read the notes below, then tell me in a few sentences what they have "
        "in common and where they differ.\\n";
    const size_t unit = sizeof text - 1;

    for (; bytes >= unit; bytes -= unit)
        fwrite(text, 1, unit, out);
    for (; bytes > 0; bytes--)
        fputc('x', out);
}

static inline void print_body(FILE *out, const struct request_options *o)
{
    static const char *const before[N_DIALECTS] = {
        "\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
        "{\"role\":\"user\",\"content\":\"",
        "\"max_tokens\":1000,\"system\":\"You are a helpful assistant.\","
        "\"messages\":[{\"role\":\"user\",\"content\":\"",
        "\"systemInstruction\":{\"parts\":[{\"text\":\"You are a helpful assistant.\"}]},"
        "\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"",
    };
    static const char *const behind[N_DIALECTS] = {
        "\"}],\"temperature\":0.7}",
        "\"}],\"temperature\":0.7}",
        "\"}]}],\"generationConfig\":{\"temperature\":0.7}}",
    };

    fputc('{', out);
    if (o->dialect != GEMINI)
        fprintf(out, "\"model\":\"%s\",%s", o->model, o->stream ? "\"stream\":true," : "");
    fputs(before[o->dialect], out);
    print_prompt(out, o->prompt_bytes);
    fputs(behind[o->dialect], out);
}

static inline void print_path(FILE *out, const struct request_options *o)
{
    if (o->dialect == GEMINI)
        fprintf(out, "/v1beta/models/%s:%s", o->model,
                o->stream ? "streamGenerateContent?alt=sse" : "generateContent");
    else
        fputs(o->dialect == ANTHROPIC ? "/v1/messages" : "/v1/chat/completions", out);
}

/* A whole request for a chat on a connection that stays open; the caller frees it. */
static inline char *request_text(const struct request_options *o, size_t *length)
{
    char *body, *text;
    size_t body_length;
    FILE *out = open_memstream(&body, &body_length);

    if (out == NULL)
        die("out of memory");
    print_body(out, o);
    if (fclose(out) != 0)
        die("out of memory");

    out = open_memstream(&text, length);
    if (out == NULL)
        die("out of memory");
    fputs("POST ", out);
    print_path(out, o);
    fprintf(out,
            " HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
            "User-Agent: bench\r\n%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
            o->port, o->key, o->dialect == ANTHROPIC ? "anthropic-version: 2023-06-01\r\n" : "",
            body_length);
    fwrite(body, 1, body_length, out);
    if (fclose(out) != 0)
        die("out of memory");
    free(body);
    return text;
}

#endif
