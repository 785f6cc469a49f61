/* What the head of an answer tells of the account's limits (limits.c), for clients that speak another dialect than the platform. Loop thread only. */
#ifndef CHATMUX_LIMITS_INT_H
#define CHATMUX_LIMITS_INT_H

#include "chatmux/provider/run.h"

/* x-ratelimit-{limit,remaining,reset}-{requests,tokens} and anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}. A
 * platform that tells input and output apart and nothing of both: the tighter one. False: nothing is told. */
bool limits_read(const struct cm_header *headers, size_t n, int64_t now_unix_ms,
                 struct cm_limits *out);
/* A HEAD event with them, if there are any. */
void limits_tell(struct cm_run *run, const struct cm_header *headers, size_t n);

#endif
