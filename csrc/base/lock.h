/*
 * lock.h - the three ways to wait in the core: a small lock, a parking lot for page words, an event.
 *
 * Owns: every futex call of the tree. All are private to the process, but for events between processes.
 * None allocates and none uses thread-local storage, so all may be used on the fault path.
 */
#ifndef USWAP_BASE_LOCK_H
#define USWAP_BASE_LOCK_H

#include "base/base.h"

/* A small lock for short sections: spins a little, then sleeps. 0 free, 1 held, 2 held with sleepers. */
typedef struct {
    _Atomic uint32_t state;
} small_lock;

void small_lock_acquire(small_lock *lock);
bool small_lock_try(small_lock *lock);
void small_lock_release(small_lock *lock);

/* Parking: threads that wait for "something about this address changed" sleep in a shared table of futex words.
 * parking_ticket is read before the condition is checked; parking_wait returns when the ticket is stale (also at once),
 * or after timeout_ns (0: never). A wake-up between check and sleep cannot be lost. */
uint32_t parking_ticket(const void *address);
void parking_wait(const void *address, uint32_t ticket, uint64_t timeout_ns);
void parking_wake(const void *address);

/* An event: a counter one can wait on. */
typedef struct {
    _Atomic uint32_t count;
    _Atomic uint32_t waiters;
} event;

uint32_t event_count(event *e);
/* Returns when the count differs from seen, or after timeout_ns (0: never times out). */
void event_wait(event *e, uint32_t seen, uint64_t timeout_ns);
void event_signal(event *e);
/* The same for an event in memory that processes share. One that dies in the wait leaves waiters too high: each signal costs a system call then. One
 * that is stopped or dies before it signals gives no sign: whoever waits for what it would have done must set a time. */
void event_wait_shared(event *e, uint32_t seen, uint64_t timeout_ns);
void event_signal_shared(event *e);

uint64_t clock_now_ns(void);

/* Blocks every signal of the calling thread; the old mask goes to *saved (a sigset_t). */
void signals_block(void *saved);
/* Every signal but one. */
void signals_block_but(int number, void *saved);
void signals_restore(const void *saved);

#endif
