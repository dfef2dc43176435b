/*
 * scratch.h - a context's room for what concerns many pages at once: too large for the stack of a thread that is not ours.
 */
#ifndef USWAP_SCRATCH_H
#define USWAP_SCRATCH_H

#include "frame/transport.h"
#include "pool.h"

/* A page on its way out (reclaim/page_out.c). */
typedef struct {
    region *r;
    size_t page;
    uint64_t word; /* when it was locked */
    out_outcome out;
    swap_entry entry; /* the slot being written, if any */
} victim;

/* The page stays where it is after all, and is as young as any. popped: its entry in the reclaim ring is gone. Context: page locked. */
static inline void victim_stays(uswap_pool *pool, const victim *v, bool popped) {
    stay present = stay_of(v->r, v->page);
    if (popped)
        pages_came(pool, &present, 1, USWAP_EVENT_KEPT, REFAULT_NEVER);
    else
        events_note(pool, USWAP_EVENT_KEPT, &present, 1, REFAULT_NEVER);
}

struct context_scratch {
    stay ring[BLOCK_PAGES];
    victim victims[BLOCK_PAGES];
    out_outcome outcomes[BLOCK_PAGES];
};

#endif
