/*
 * inactive.h - pages that can be dropped at once, kept until frames are needed: taken out ahead of need, they wait in the swap cache, clean,
 * until they are wanted back; sealed ones (sealed.h) stay mapped.
 *
 * Owns: the order in which they are dropped. They are in nobody's way: a touch moves a frame back in (a soft fault), and a frame
 * that is needed comes from here without a write, in an instant.
 */
#ifndef USWAP_RECLAIM_INACTIVE_H
#define USWAP_RECLAIM_INACTIVE_H

#include "pool.h"

/* How many frames the list should have. */
uint64_t inactive_target(uswap_pool *pool);
/* How many it has, at most: pages that have come back, or have been written, leave their entries behind until these are met. */
uint64_t inactive_frames(uswap_pool *pool);

/* The page's frame has become CLEAN, to stay until it is wanted. Context: as ring_push_page. */
void inactive_add(uswap_pool *pool, swap_entry entry);

/* Drops about want (and no part of a block): what a policy has prepared, then the oldest. Never waits. Return: frames freed. Context: in the gate; the caller may
 * have pages locked, but for a batch of ctx. */
uint64_t inactive_drop(context *ctx, uint64_t want);
/* The same, of what a policy has prepared alone. */
uint64_t inactive_drop_prepared(context *ctx, uint64_t want);

#endif
