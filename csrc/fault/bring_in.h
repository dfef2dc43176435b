/*
 * bring_in.h - a page brought in by the thread that wants it: inline faults, and pins and locks (region_hold.c).
 *
 * Owns: the loop around fault_serve for a thread that may wait: for its own read, for the read of another, and for frames.
 */
#ifndef USWAP_FAULT_BRING_IN_H
#define USWAP_FAULT_BRING_IN_H

#include "pool.h"

typedef enum {
    SHORTAGE_GIVE_UP, /* when nothing can be evicted for long, so be it: the caller can be told */
    SHORTAGE_GO_OVER  /* an instruction cannot be told: one frame over the limit (I9) */
} shortage;

/* Serves the page at least once, until it is in; write: a store wants it. Return: 0; -EIO: its contents are lost; -EFAULT: there is no memory there any more;
 * -ENOMEM: given up. Context: outside the gate, no lock held, ctx idle; may block. => nothing of ctx in flight. */
int bring_in(context *ctx, region *r, size_t page, bool write, shortage policy);

#endif
