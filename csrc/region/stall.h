/*
 * stall.h - how long faults have waited: of the pool in all, and, where somebody wants to know, where.
 */
#ifndef USWAP_REGION_STALL_H
#define USWAP_REGION_STALL_H

#include "pool.h"

/* Context: r is referenced. */
static inline void stall_note(uswap_pool *pool, const region *r, size_t page, uint64_t ns) {
    STAT_ADD(pool, stall_ns, ns);
    if (unlikely(r->waited != NULL))
        atomic_fetch_add_explicit(&r->waited[page / BLOCK_PAGES], ns, memory_order_relaxed);
}

#endif
