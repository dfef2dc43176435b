/*
 * fault_inline.h - faults served by the thread that has them (README, Inline faults).
 *
 * Owns: the inline set of a pool (its second descriptor, contexts and their stacks), and the way from an address to bring_in. Does not own
 * the signal handler (signal.c), nor what a served page looks like (fault.c).
 */
#ifndef USWAP_FAULT_FAULT_INLINE_H
#define USWAP_FAULT_FAULT_INLINE_H

#include "pool.h"

/* What the pool needs for its first inline region. Return: 0 or -errno. Context: api_lock. */
int fault_inline_prepare(uswap_pool *pool);
void fault_inline_fini(uswap_pool *pool);

typedef enum {
    INLINE_SERVED, /* the instruction may run again */
    INLINE_LOST,   /* the page's contents are lost */
    INLINE_FOREIGN /* no page of an inline region of this process */
} inline_outcome;

/* Context: a signal handler of the thread that touched the address, all signals blocked. */
inline_outcome fault_inline(uintptr_t address, bool write);

#endif
