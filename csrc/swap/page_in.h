/*
 * page_in.h - from the slot into the region: starting reads, and ending them.
 *
 * Owns: the order of steps from NONE over READING to a mapped page or a page left in the swap cache, and what happens when the
 * contents cannot be had. Fault and prefetch call it; completions come back through the context (context.c).
 */
#ifndef USWAP_SWAP_PAGE_IN_H
#define USWAP_SWAP_PAGE_IN_H

#include "pool.h"

/* Adds a slot to the growing read if it lies next to it, else to a new one. Return: false: all requests are in flight. Context: page locked. */
bool page_in_add(context *ctx, swap_entry entry, frame_id frame);

/* Starts the read of a SWAPPED page whose slot is NONE. for_write: a store waits for it. Return: 0, -ENOMEM (no frame), -EAGAIN (all requests are in flight).
 * Context: page locked. => request in ctx->reading; context_submit sends it. */
int page_in_start(context *ctx, swap_entry entry, bool for_write);

/* Whether a page that comes in from this slot keeps it. */
bool page_in_keeps_slot(uswap_pool *pool, swap_entry entry);

/* A fault waits for the read of this slot from now on: for stall_ns. */
void page_in_wanted(context *ctx, swap_entry entry);

/* How a page has come whose slot word was this before: a uswap_event, for page_came. Counts. */
unsigned page_in_kind(uswap_pool *pool, uint64_t flags);

/* The page's frame is mapped: states, counts, ring. keep: the slot has the same contents and stays the page's, unless slots are
 * scarce. flags: the slot word as it was. Context: page locked, SWAPPED. */
void page_in_arrived(uswap_pool *pool, region *r, size_t page, swap_entry entry, bool keep, uint64_t flags);
/* The same of one that nobody has touched: it comes with a neighbour. */
void page_in_beside(uswap_pool *pool, region *r, size_t page, swap_entry entry, uint64_t flags);

/* The part of that which concerns the page alone: state and slot. */
void page_in_settled(uswap_pool *pool, region *r, size_t page, swap_entry entry);

/* Whether the memory of a READING slot has what it should; if not, one more read is tried. whole: its request has ended well. Return: 0; -EBADMSG:
 * it has not; -errno: it could not be read. */
int page_in_judge(context *ctx, io_request *request, swap_entry entry, bool whole);
/* The contents of a READING slot are lost; status: as page_in_judge. Context: no page locked. */
void page_in_poison(context *ctx, swap_entry entry, int status);
/* Nobody uses the slot of this frame any more; whoever waited for the read is woken, faults again and finds what there is now. */
void page_in_unused(uswap_pool *pool, frame_id frame, page_ref owner);

/* A read has ended. Context: no page locked. */
void page_in_complete(context *ctx, io_request *request);

#endif
