/*
 * fork.h - a fork as a snapshot: what the forking thread prepares, and how the child goes on (README, Fork, which numbers the steps).
 */
#ifndef USWAP_FORK_FORK_H
#define USWAP_FORK_FORK_H

#include "pool.h"
#include "shared/family.h"

#define FORK_RINGS_MAX (4 + API_CONTEXTS + INLINE_CONTEXTS)

/* One pool at one fork. The child has a copy. */
typedef struct {
    uswap_pool *pool;                                  /* NULL: none at this index, or none of this process */
    bool placed;                                       /* there is a place for the child */
    bool quiet;                                        /* the pool is locked and still */
    bool ready;                                        /* the child may go on with its regions */
    family_place place;                                /* where placed */
    uint64_t stuck;                                    /* pages that could not leave, and are in both */
    int rings[FORK_RINGS_MAX];                         /* descriptors of the parent's queues; -1: none */
    char reason[sizeof((uswap_pool *)0)->fork_reason]; /* if not ready */
} fork_plan;

/* Steps 1 and 2. => placed, or the reason why not. (prepare.c) */
void fork_place(fork_plan *plan);
/* Steps 3 to 6. => quiet; and ready, or the reason why not. */
void fork_quiesce(fork_plan *plan);
/* Step 7. => not quiet, not placed. */
void fork_resume(fork_plan *plan);

/* All pages of all regions leave, and what is in the swap cache. Return: how many pages are still in; *unsafe: some whose contents are in no slot
 * and in no region. Context: the gate is closed. (evict_all.c) */
uint64_t fork_evict_all(uswap_pool *pool, bool *unsafe);

/* Steps 8 and 9. Return: 0, or -errno with plan.reason. Context: the only thread of the child; all signals blocked. (reborn.c) */
int fork_rebirth(fork_plan *plan);
/* The segment is this process's own, with the words of the slots that its pages use. Return: 0 or -errno. (own_slots.c) */
int fork_own_slots(uswap_pool *pool);

/* For each page of a region that was ever touched. */
#define FOR_TOUCHED(r, page) for (size_t page = 0; (page = region_next_touched(r, page)) < (r)->object.pages; page++)

/* The first page from this one on whose word may be other than 0. */
static inline size_t region_next_touched(const region *r, size_t page) {
    while (page < r->object.pages &&
           !atomic_load_explicit(&r->object.touched[page / PAGE_WORDS_PER_CHUNK], memory_order_relaxed))
        page = (page / PAGE_WORDS_PER_CHUNK + 1) * PAGE_WORDS_PER_CHUNK;
    return page;
}

static inline region *fork_next_region(uswap_pool *pool, uint32_t *index) {
    while (*index < pool->regions.highest) {
        region *r = &pool->regions.regions[(*index)++];
        if (atomic_load(&r->state) == REGION_LIVE)
            return r;
    }
    return NULL;
}

#endif
