/*
 * fault_thread.h - the thread that serves faults.
 *
 * Owns: the reading of messages, the parked faults, and the orders: reads ahead on behalf of those who do not want to wait for them.
 */
#ifndef USWAP_FAULT_FAULT_THREAD_H
#define USWAP_FAULT_FAULT_THREAD_H

#include "pool.h"

/* Return: 0 or -errno. */
int fault_thread_start(uswap_pool *pool);
/* => stopped; no fault may be waiting. */
void fault_thread_stop(uswap_pool *pool);
/* => looks at everything soon. */
void fault_thread_wake(uswap_pool *pool);
/* Reads pages in, as far as frames go, some time soon. Costs a system call only when the thread may be asleep.
 * Return: false if too many orders are waiting: it is not taken. */
bool fault_thread_order(uswap_pool *pool, const read_order *order);

#endif
