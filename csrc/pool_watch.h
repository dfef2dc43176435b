/*
 * pool_watch.h - whether the swap disks answer (README, A disk that does not answer).
 *
 * A thread that looks at the pool's queues once a second, takes no lock and does no I/O: whoever else waits for the disk, it
 * does not. When a request has had no answer for STALL_NS it says so on standard error, once until all is well again.
 */
#ifndef USWAP_POOL_WATCH_H
#define USWAP_POOL_WATCH_H

#include "base/lock.h"

#include <pthread.h>

struct uswap_pool;

typedef struct {
    pthread_t thread;
    bool started;
    _Atomic uint32_t stop;
    event stopping;
} pool_watch;

/* Return: 0 or -errno. Context: every signal blocked. */
int watch_start(struct uswap_pool *pool);
void watch_stop(struct uswap_pool *pool);
/* For how long the oldest of all requests that have no answer yet has been with its disk; 0: there is none. Context: any. */
uint64_t watch_unanswered_ns(struct uswap_pool *pool);

#endif
