/*
 * batch.h - the pages that leave together, and how they are chosen.
 *
 * Owns: the choice: which of the oldest pages may leave now, and that those of a block leave together. A chosen page is locked, and
 * its region referenced and entered for moving, until page_out.c has published its new state.
 */
#ifndef USWAP_RECLAIM_BATCH_H
#define USWAP_RECLAIM_BATCH_H

#include "scratch.h"
#include "swap/swap_cache.h"

/* Pages isolated together that are no block. More would hold more page locks at once and gain little: MOVE costs 0.035 us a page
 * from 64 on. */
#define BATCH_PAGES 64

typedef struct {
    context *ctx;
    bool ahead;    /* nobody needs the frames yet: they stay in the cache, clean */
    bool marked;   /* so will their slots be */
    bool unmap;    /* sealed pages leave the region too, so that a touch of them is seen */
    bool popped;   /* the victims come from the reclaim ring: else they have their entries there still */
    uint32_t room; /* pages it may hold */
    uint32_t count;
    uint64_t freed;    /* frames free now or when the writes end */
    frame_run dropped; /* from the swap cache */
    victim *victims;   /* the context's */
} batch;

/* Of the slots of pages that leave ahead of need. */
static inline uint64_t batch_flags(const batch *b) {
    return b->ahead ? SLOT_STAYS | (b->marked ? SLOT_MARKED : 0) : 0;
}

typedef enum { CHOICE_VICTIM, CHOICE_STALE, CHOICE_BUSY, CHOICE_DROPPED } choice;

/* One page. any: of whatever stay. wait: for the page lock (only with an empty batch: no other lock may be held). */
choice batch_choose(batch *b, stay entry, bool any, bool wait);

/* From the ring, or from orders, until the batch is full, want is reached or the first *left entries have been seen. */
void batch_choose_oldest(batch *b, reclaim_ring *from, uint64_t want, uint64_t *left);

/* By address, so that neighbours leave in one MOVE and lie side by side in the swap area. */
void batch_sort(batch *b);

#endif
