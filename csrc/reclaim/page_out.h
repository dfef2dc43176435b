/*
 * page_out.h - the mechanics of eviction: out of the region, into the swap cache, onto the disk.
 *
 * Owns: the steps of README, "An eviction", for a batch of pages; a write's end is write_end.h. Who evicts, when and how much is
 * decided elsewhere (reclaimer.c, fault_thread.c, region_advice.c).
 */
#ifndef USWAP_RECLAIM_PAGE_OUT_H
#define USWAP_RECLAIM_PAGE_OUT_H

#include "pool.h"

/* Evicts about want of the oldest pages, at most one round of the ring. Return: how many frames were freed or will be when their
 * writes end. Context: in the gate, no page locked. Requests may still be growing (context_submit, context_drain). */
uint64_t page_out_oldest(context *ctx, uint64_t want);

/* Takes the oldest pages out until the inactive list is as long as it should be: written, and kept. Returns and context as above. */
uint64_t page_out_ahead(context *ctx);

/* Carries out a policy's orders, about most of them. *taken: how many were, those that are out of date too. Return: how many pages have left
 * or are leaving. Context as above. */
uint64_t page_out_ordered(context *ctx, uint64_t most, uint64_t *taken);

/* Evicts pages [first, first + count) of a region, those that are there. Returns and context as above. */
uint64_t page_out_range(context *ctx, region *r, size_t first, size_t count);

/* A page of the region has left, and ctx made it. */
void page_out_count(context *ctx, region *r);

#endif
