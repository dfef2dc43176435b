#include "base/lock.h"

#include "base/awake.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Spins before sleeping. A futex sleep and wake-up costs some 5 us; the sections under small locks take well under 1 us. */
#define SPIN_TURNS 100
#define PARKING_SLOTS 256

static void futex_wait_by(int operation, _Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000U),
                               .tv_nsec = (long)(timeout_ns % 1000000000U)};
    syscall(SYS_futex, word, operation, value, timeout_ns ? &timeout : NULL, NULL, 0);
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    futex_wait_by(FUTEX_WAIT_PRIVATE, word, value, timeout_ns);
}

static void futex_wake(_Atomic uint32_t *word, int threads) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

bool small_lock_try(small_lock *lock) {
    uint32_t expected = 0;
    return atomic_compare_exchange_strong_explicit(&lock->state, &expected, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

void small_lock_acquire(small_lock *lock) {
    for (int turn = 0; turn < SPIN_TURNS; turn++) {
        if (small_lock_try(lock))
            return;
        cpu_relax();
    }
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0)
        futex_wait(&lock->state, 2, 0);
}

void small_lock_release(small_lock *lock) {
    uint32_t before = atomic_exchange_explicit(&lock->state, 0, memory_order_release);
    DEBUG_INVARIANT(I21, before != 0);
    if (before == 2)
        futex_wake(&lock->state, 1);
}

static struct { _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t count; } parking_lot[PARKING_SLOTS];

static _Atomic uint32_t *parking_word(const void *address) {
    uint64_t mixed = ((uintptr_t)address >> 3) * UINT64_C(0x9E3779B97F4A7C15);
    return &parking_lot[mixed >> 56].count;
}

uint32_t parking_ticket(const void *address) {
    return atomic_load_explicit(parking_word(address), memory_order_seq_cst);
}

void parking_wait(const void *address, uint32_t ticket, uint64_t timeout_ns) {
    futex_wait(parking_word(address), ticket, timeout_ns);
}

void parking_wake(const void *address) {
    _Atomic uint32_t *word = parking_word(address);
    atomic_fetch_add_explicit(word, 1, memory_order_seq_cst);
    futex_wake(word, INT_MAX);
}

uint32_t event_count(event *e) {
    return atomic_load_explicit(&e->count, memory_order_seq_cst);
}

void event_wait(event *e, uint32_t seen, uint64_t timeout_ns) {
    atomic_fetch_add_explicit(&e->waiters, 1, memory_order_seq_cst);
    if (event_count(e) == seen)
        futex_wait(&e->count, seen, timeout_ns);
    atomic_fetch_sub_explicit(&e->waiters, 1, memory_order_seq_cst);
}

void event_signal(event *e) {
    atomic_fetch_add_explicit(&e->count, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&e->waiters, memory_order_seq_cst) > 0)
        futex_wake(&e->count, INT_MAX);
}

void event_wait_shared(event *e, uint32_t seen, uint64_t timeout_ns) {
    atomic_fetch_add_explicit(&e->waiters, 1, memory_order_seq_cst);
    if (event_count(e) == seen)
        futex_wait_by(FUTEX_WAIT, &e->count, seen, timeout_ns);
    atomic_fetch_sub_explicit(&e->waiters, 1, memory_order_seq_cst);
}

void event_signal_shared(event *e) {
    atomic_fetch_add_explicit(&e->count, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&e->waiters, memory_order_seq_cst) > 0)
        syscall(SYS_futex, &e->count, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint64_t clock_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void signals_block(void *saved) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, saved);
}

void signals_block_but(int number, void *saved) {
    sigset_t others;
    sigfillset(&others);
    sigdelset(&others, number);
    pthread_sigmask(SIG_SETMASK, &others, saved);
}

void signals_restore(const void *saved) {
    pthread_sigmask(SIG_SETMASK, saved, NULL);
}
