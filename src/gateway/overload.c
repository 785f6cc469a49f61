/* When there is too much, new work is refused before its body is read; what runs goes on. */
#include "gateway_int.h"

#include <stdio.h>
#include <unistd.h>

#define SAMPLE_MS 250 /* how old a figure of the memory may be */
#define AGAIN_S 1     /* when a client may come back */

/* /proc/self/statm counts pages. */
size_t overload_resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long size = 0, resident = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t memory_now(struct cm_gateway *gw)
{
    uint64_t now_ms = cm_loop_now_ms(gw->host->loop);

    if (gw->memory_ms == 0 || now_ms - gw->memory_ms >= SAMPLE_MS) {
        gw->memory_bytes = overload_resident_bytes();
        gw->memory_ms = now_ms;
    }
    return gw->memory_bytes;
}

static int check_streams(const struct cm_gateway *gw, struct cm_err *err)
{
    const int64_t max = gw->now->config->server.max_streams;

    if (max <= 0 || gw->streams < (size_t)max)
        return 0;
    cm_fail(err, CM_ERR_OVERLOADED, "this gateway has %lld streams open, as many as it may",
            (long long)max);
    err->retry_after_s = AGAIN_S;
    return -1;
}

int overload_admit_stream(struct exchange *ex, struct cm_err *err)
{
    CM_ASSERT(!ex->is_stream);
    if (check_streams(ex->gw, err) < 0)
        return -1;
    ex->is_stream = true;
    ex->gw->streams++;
    return 0;
}

void overload_stream_ended(struct exchange *ex)
{
    if (!ex->is_stream)
        return;
    ex->is_stream = false;
    ex->gw->streams--;
}

int overload_check(struct cm_gateway *gw, struct cm_err *err)
{
    const struct cm_config *c = gw->now->config;
    uint64_t lag_us = c->server.max_lag_ms > 0 ? cm_loop_recent_lag_us(gw->host->loop) : 0;

    if (check_streams(gw, err) < 0)
        return -1;
    if (c->server.max_memory > 0 && memory_now(gw) > (size_t)c->server.max_memory)
        cm_fail(err, CM_ERR_OVERLOADED, "this gateway is at its limit of memory");
    else if (c->server.max_lag_ms > 0 && lag_us > (uint64_t)c->server.max_lag_ms * 1000)
        cm_fail(err, CM_ERR_OVERLOADED, "this gateway has more to do than it can");
    else
        return 0;
    err->retry_after_s = AGAIN_S;
    return -1;
}
