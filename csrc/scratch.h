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

struct context_scratch {
    stay ring[BLOCK_PAGES];
    victim victims[BLOCK_PAGES];
    out_outcome outcomes[BLOCK_PAGES];
};

#endif
