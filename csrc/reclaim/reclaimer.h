/*
 * reclaimer.h - who evicts in the background: the native thread, and whoever steers from outside through uswap_reclaimer_*.
 *
 * Owns: the watermarks' answer: below low, evict up to high. The steering thread goes first; the native one acts when nobody steers
 * or when frames are short and the other is late (stuck behind an interpreter lock, dead, gone).
 */
#ifndef USWAP_RECLAIM_RECLAIMER_H
#define USWAP_RECLAIM_RECLAIMER_H

#include "pool.h"

/* Return: 0 or -errno. */
int reclaimer_start(uswap_pool *pool);
void reclaimer_stop(uswap_pool *pool);

/* Whether a policy says which pages leave: it is there, and has been seen of late (it looks in each second). Then those it has marked leave
 * after all others; else before them: its marks are not renewed any more, and nobody would ask for these pages again. */
bool reclaimer_is_led(const uswap_pool *pool);

/* Whether waiting for the reclaimers is in vain: the last one found nothing to evict. */
static inline bool reclaimer_is_exhausted(const uswap_pool *pool) {
    return atomic_load_explicit(&pool->native.exhausted, memory_order_relaxed) != 0;
}

#endif
