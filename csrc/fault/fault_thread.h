/*
 * fault_thread.h - the thread that serves faults.
 *
 * Owns: the reading of messages, the parked faults, prefetch orders, and direct reclaim: what happens when a fault needs a frame
 * and nobody else makes one.
 */
#ifndef USWAP_FAULT_FAULT_THREAD_H
#define USWAP_FAULT_FAULT_THREAD_H

#include "pool.h"

/* Return: 0 or -errno. */
int fault_thread_start(uswap_pool *pool);
/* => stopped; no fault may be waiting. */
void fault_thread_stop(uswap_pool *pool);
/* Reads pages in, as far as frames go, some time soon. */
void fault_thread_prefetch(uswap_pool *pool, page_ref first, uint64_t pages);

#endif
