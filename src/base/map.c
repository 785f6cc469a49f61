/* Hash map: linear probing, SipHash-1-3 keyed at random. */
#include "chatmux/base/map.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <pthread.h>
#include <stdlib.h>

#define FIRST_CAP 8u

static uint64_t hash_key[2];
static pthread_once_t hash_key_once = PTHREAD_ONCE_INIT;

static void hash_key_make(void)
{
    cm_rand_bytes(hash_key, sizeof(hash_key));
}

static inline uint64_t rotl(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}

/* SipHash (Aumasson, Bernstein 2012) with one round a word and three at the end. The byte order
 * of the machine does: no hash leaves the process. */
uint64_t cm_hash(struct cm_str s)
{
    const char *p = s.p;
    uint64_t v[4], word, last = (uint64_t)s.n << 56;

    pthread_once(&hash_key_once, hash_key_make);
    v[0] = hash_key[0] ^ 0x736f6d6570736575;
    v[1] = hash_key[1] ^ 0x646f72616e646f6d;
    v[2] = hash_key[0] ^ 0x6c7967656e657261;
    v[3] = hash_key[1] ^ 0x7465646279746573;
    for (size_t left = s.n; left >= 8; left -= 8, p += 8) {
        memcpy(&word, p, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    for (size_t i = 0; i < (s.n & 7); i++)
        last |= (uint64_t)(unsigned char)p[i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void cm_map_clear(struct cm_map *m)
{
    free(m->slots);
    *m = (struct cm_map){0};
}

/* The slot of the key, or the empty slot where it would go. There always is an empty one. */
static struct cm_map_slot *slot_of(const struct cm_map *m, struct cm_str key, uint64_t hash)
{
    size_t i = (size_t)hash & (m->cap - 1);

    while (m->slots[i].key.p && (m->slots[i].hash != hash || !cm_str_eq(m->slots[i].key, key)))
        i = (i + 1) & (m->cap - 1);
    return &m->slots[i];
}

static void grow(struct cm_map *m)
{
    struct cm_map old = *m;
    size_t pos = 0;
    const struct cm_map_slot *s;

    m->cap = old.cap > 0 ? old.cap * 2 : FIRST_CAP;
    m->slots = cm_calloc(m->cap, sizeof(*m->slots));
    while ((s = cm_map_next(&old, &pos)))
        *slot_of(m, s->key, s->hash) = *s;
    free(old.slots);
}

void *cm_map_get(const struct cm_map *m, struct cm_str key)
{
    return m->n > 0 ? slot_of(m, key, cm_hash(key))->value : NULL;
}

void *cm_map_put(struct cm_map *m, struct cm_str key, void *value)
{
    uint64_t hash = cm_hash(key);
    struct cm_map_slot *s;
    void *before;

    if (m->n >= m->cap / 4 * 3)
        grow(m);
    s = slot_of(m, key, hash);
    before = s->value;
    if (!s->key.p)
        m->n++;
    if (!key.p)
        key.p = ""; /* the empty key is a key too */
    *s = (struct cm_map_slot){.key = key, .hash = hash, .value = value};
    return before;
}

void *cm_map_del(struct cm_map *m, struct cm_str key)
{
    size_t mask = m->cap - 1, hole, i;
    struct cm_map_slot *s;
    void *before;

    if (m->n == 0)
        return NULL;
    s = slot_of(m, key, cm_hash(key));
    if (!s->key.p)
        return NULL;
    before = s->value;
    hole = i = (size_t)(s - m->slots);
    for (;;) {
        size_t home;

        i = (i + 1) & mask;
        if (!m->slots[i].key.p)
            break;
        home = (size_t)m->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) { /* it would be found from the hole too */
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct cm_map_slot){0};
    m->n--;
    return before;
}

const struct cm_map_slot *cm_map_next(const struct cm_map *m, size_t *pos)
{
    while (*pos < m->cap) {
        const struct cm_map_slot *s = &m->slots[(*pos)++];

        if (s->key.p)
            return s;
    }
    return NULL;
}
