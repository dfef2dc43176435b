/*
 * write_slots.h - slots for what must be written: a cluster a context, so that pages evicted together lie together.
 *
 * Owns: which area a cluster is opened in, and what a pool does when the last slot is taken.
 */
#ifndef USWAP_RECLAIM_WRITE_SLOTS_H
#define USWAP_RECLAIM_WRITE_SLOTS_H

#include "pool.h"

/* A slot for one page. Return: SWAP_ENTRY_NONE when all areas are full. */
swap_entry write_slots_take(context *ctx);

/* How many pages a batch may hold: when slots are few, no more than there are. The others would be moved out, find none, and have to
 * be moved back again, at every fault. */
uint32_t write_slots_room(const context *ctx);

/* The rest of the context's open cluster goes back. */
void write_slots_return(context *ctx);

#endif
