/*
 * base.h - the words every file uses: sizes, compiler hints, invariants.
 */
#ifndef USWAP_BASE_BASE_H
#define USWAP_BASE_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/uswap_api.h"

#define PAGE_SHIFT 12
#define PAGE_BYTES ((size_t)1 << PAGE_SHIFT)
#define CACHE_LINE_BYTES 64

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))

#define EXPORT __attribute__((visibility("default")))

/* A broken invariant would lose data later and elsewhere; stopping here is the only safe answer. The line goes to stderr by
 * write(2): no stdio, no malloc (README, Threads). */
_Noreturn void invariant_failed(const char *invariant, const char *what, const char *file, int line);

/* Cheap checks: in every build. */
#define INVARIANT(id, condition)                                                                                       \
    do {                                                                                                               \
        if (unlikely(!(condition)))                                                                                    \
            invariant_failed(#id, #condition, __FILE__, __LINE__);                                                     \
    } while (0)

/* Checks that cost: debug builds only. */
#ifdef USWAP_DEBUG
#define DEBUG_INVARIANT(id, condition) INVARIANT(id, condition)
#else
#define DEBUG_INVARIANT(id, condition) ((void)0)
#endif

/* Stores before it are seen before loads behind it are done. ThreadSanitizer knows no fences, but this: */
static inline void full_fence(void) {
#ifdef __SANITIZE_THREAD__
    _Atomic int somewhere = 0;
    atomic_fetch_add(&somewhere, 1);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline size_t bytes_to_pages(uint64_t bytes) {
    return (size_t)((bytes + PAGE_BYTES - 1) >> PAGE_SHIFT);
}

#endif
