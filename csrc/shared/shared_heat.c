/*
 * shared_heat.c - how long a shared page stays beyond its turn.
 *
 * Accesses to a mapped page leave no trace, so use is told by returns: a page that comes back before as many others have been evicted as
 * there are frames would have been met by a second chance, had there been one. Each such return in a row makes the hand pass it over for more
 * rounds, and one that comes late ends the row. A page of a scan comes back soon once, by chance; one of a hot set each time.
 */
#include "shared/shared_core.h"

/* By level: the most rounds, and of how many of them chance decides: pages that came back together are not to go together. */
static const struct { uint8_t most, spread; } rounds_at[] = {{0, 1}, {1, 1}, {7, 4}, {HEAT_ROUNDS_MAX, 8}};

static uint64_t rounds_of(uint64_t level, uint64_t slot) {
    uint64_t chance = (slot * UINT64_C(0x9E3779B97F4A7C15)) >> 40;
    return rounds_at[level].most - chance % rounds_at[level].spread;
}

uint64_t heat_of_return(group *g, uint64_t word, uint64_t slot) {
    commons_header *head = commons_head(&g->commons);
    uint64_t since = slot_eviction(g, slot), level = (word & SHARED_LEVEL_MASK) >> SHARED_LEVEL_SHIFT;
    if (since == 0)
        return 0;
    uint64_t distance = atomic_load_explicit(&head->eviction_clock, memory_order_relaxed) - (since - 1);
    if (distance < head->chunk_frames * atomic_load_explicit(&head->limit_chunks, memory_order_relaxed))
        atomic_fetch_add_explicit(&head->shared_near_refaults, 1, memory_order_relaxed);
    if (distance >= atomic_load(&share_of(g)->frames_total))
        return 0;
    level = MIN_OF(level + 1, SHARED_LEVEL_MASK >> SHARED_LEVEL_SHIFT);
    return level << SHARED_LEVEL_SHIFT | rounds_of(level, slot) << SHARED_ROUNDS_SHIFT;
}
