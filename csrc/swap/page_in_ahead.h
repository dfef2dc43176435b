/*
 * page_in_ahead.h - reads before anybody has asked: windows of streams, groups of neighbours in swap space, and a policy's orders.
 *
 * Owns: how a plan (read_ahead.h says what is worth reading) becomes reads, as far as frames and requests go that nobody else needs. The
 * reads end as all others do (page_in.h).
 */
#ifndef USWAP_SWAP_PAGE_IN_AHEAD_H
#define USWAP_SWAP_PAGE_IN_AHEAD_H

#include "pool.h"

/* A fault on a swapped page: reads ahead what its stream will want next, or has the fault thread do so. absent: nobody was reading it.
 * Context: no page locked. */
void page_in_ahead(context *ctx, region *r, size_t page, bool absent);

/* Reads the pages of a plan as far as speculative frames go. stream: the plan is one of the region's streams; its first page stays in the
 * cache as the marker, and the stream is told what could not be asked for. Context: no page locked. */
void page_in_plan(context *ctx, region *r, read_ahead_plan plan, bool stream);

/* Reads what a policy has ordered to be read ahead, as far as speculative frames and requests go; the rest is forgotten. Context: in the gate. */
void page_in_ordered(context *ctx);

/* The page's frame has been dropped from the cache; flags: of its slot. If nobody wanted it since it was read ahead, its stream is to ask for
 * less. Context: page locked. */
void page_in_ahead_dropped(uswap_pool *pool, region *r, size_t page, uint64_t flags);

#endif
