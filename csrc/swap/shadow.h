/*
 * shadow.h - what an evicted page leaves behind: when that was, by the pool's clock of evictions.
 *
 * The difference to the clock when it comes back is its refault distance: so many frames more would have kept it. (Linux:
 * mm/workingset.c.) A shadow has no memory of its own: it lies in the bits of the slot word that hold a frame else. While the page is
 * being read these hold one again, so the distance is kept as six bits then: two for each power of two.
 */
#ifndef USWAP_SWAP_SHADOW_H
#define USWAP_SWAP_SHADOW_H

#include "base/base.h"

/* Shadows count modulo this; 0: none. One of so long ago, 4 TiB of evictions, says too little anyway. */
#define SHADOW_MODULUS ((UINT64_C(1) << 30) - 1)
#define REFAULT_NEVER UINT32_MAX

static inline uint64_t shadow_make(uint64_t clock) {
    return clock % SHADOW_MODULUS + 1;
}

/* Evictions since, in six bits: 0 for no shadow, else 1 + twice the binary logarithm, rounded down to halves. */
static inline unsigned shadow_encode(uint64_t shadow, uint64_t clock) {
    if (shadow == 0)
        return 0;
    uint64_t distance = (clock % SHADOW_MODULUS + SHADOW_MODULUS + 1 - shadow) % SHADOW_MODULUS;
    if (distance < 2)
        return 1 + (unsigned)distance;
    unsigned log = 63U - (unsigned)__builtin_clzll(distance);
    return 1 + 2 * log + (unsigned)(distance >> (log - 1) & 1);
}

/* The middle of what the code stands for: at most a quarter off. */
static inline uint32_t shadow_decode(unsigned code) {
    if (code == 0)
        return REFAULT_NEVER;
    if (code < 3)
        return code - 1;
    unsigned log = (code - 1) / 2, half = (code - 1) % 2;
    return (UINT32_C(1) << log) + half * (UINT32_C(1) << (log - 1)) + (log > 1 ? UINT32_C(1) << (log - 2) : 0);
}

#endif
