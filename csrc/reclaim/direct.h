/*
 * direct.h - what a fault does that finds no frame: leave it to those who make frames, evict by itself, or go over the limit.
 *
 * Owns: the order of these, and the grants to go over (README, I9). Used by the fault thread for its parked faults and by threads that
 * bring in their own pages (bring_in.c); how each of them waits is its own affair.
 */
#ifndef USWAP_RECLAIM_DIRECT_H
#define USWAP_RECLAIM_DIRECT_H

#include "pool.h"

typedef enum {
    DIRECT_FRAMES, /* there are frames now: try again at once */
    DIRECT_WAIT,   /* try again when frames are freed, or after *wait_ms */
    DIRECT_NOTHING /* nothing can be evicted, and nothing is under way that could bring frames */
} direct_outcome;

/* One step for a fault that has waited so long. Context: in the gate, no page locked, frame_waiters or wants_frames set before the look
 * that found no frame. => writes may be in flight in ctx. */
direct_outcome direct_reclaim(context *ctx, uint64_t waited_ns, int *wait_ms);

/* After DIRECT_NOTHING: one charge of FRAME_FAULT may go over the limit until direct_revoke. Another fault may be faster and have it: it
 * is the one that is served then. */
void direct_grant(uswap_pool *pool);
void direct_revoke(uswap_pool *pool);

#endif
