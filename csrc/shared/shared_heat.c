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

static uint64_t chance_of(uint64_t number) {
    return (number * UINT64_C(0x9E3779B97F4A7C15)) >> 40;
}

/* ---- priorities ---- */

/* A weight, in 256ths: what is behind the point is left to chance. */
#define ONE UINT64_C(256)

void heat_look_at_priorities(group *g) {
    int64_t least = INT64_MAX;
    for (uint32_t i = 0; i < OBJECTS_MAX; i++) {
        const object_entry *object = group_object(g, i);
        if (object_state_of(atomic_load(&object->state)) == OBJECT_LIVE)
            least = MIN_OF(least, atomic_load(&object->priority));
    }
    if (least != INT64_MAX)
        atomic_store(&commons_head(&g->commons)->priority_least, least);
}

/* What a page of the region has more than one of the least priority. */
static uint64_t rounds_by_priority(group *g, const shared_region *r, uint64_t chance) {
    int64_t steps = atomic_load_explicit(&group_object(g, r->object)->priority, memory_order_relaxed) -
                    atomic_load_explicit(&commons_head(&g->commons)->priority_least, memory_order_relaxed);
    uint64_t weight = ONE;
    for (; steps > 0 && weight <= HEAT_ROUNDS_MAX * ONE; steps--)
        weight += weight / 4;
    return MIN_OF((weight - ONE + chance % ONE) / ONE, (uint64_t)HEAT_ROUNDS_MAX);
}

uint64_t heat_of_first_touch(group *g, const shared_region *r, uint32_t frame) {
    return rounds_by_priority(g, r, chance_of(frame)) << SHARED_ROUNDS_SHIFT;
}

/* ---- returns ---- */

/* The level of a page that is back. */
static uint64_t level_of_return(group *g, uint64_t word, uint64_t slot) {
    commons_header *head = commons_head(&g->commons);
    uint64_t since = slot_eviction(g, slot), level = (word & SHARED_LEVEL_MASK) >> SHARED_LEVEL_SHIFT;
    if (since == 0)
        return 0;
    uint64_t distance = atomic_load_explicit(&head->eviction_clock, memory_order_relaxed) - (since - 1);
    if (distance < head->chunk_frames * commons_limit_chunks(&g->commons))
        atomic_fetch_add_explicit(&head->shared_near_refaults, 1, memory_order_relaxed);
    if (distance >= atomic_load(&share_of(g)->frames_total))
        return 0;
    return MIN_OF(level + 1, SHARED_LEVEL_MASK >> SHARED_LEVEL_SHIFT);
}

uint64_t heat_of_return(group *g, const shared_region *r, uint64_t word, uint64_t slot) {
    uint64_t level = level_of_return(g, word, slot), chance = chance_of(slot);
    uint64_t rounds = rounds_at[level].most - chance % rounds_at[level].spread + rounds_by_priority(g, r, chance);
    return level << SHARED_LEVEL_SHIFT | MIN_OF(rounds, (uint64_t)HEAT_ROUNDS_MAX) << SHARED_ROUNDS_SHIFT;
}
