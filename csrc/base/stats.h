/*
 * stats.h - the counters of a pool, from one list. Relaxed atomics: each is exact, a snapshot of several is not.
 */
#ifndef USWAP_BASE_STATS_H
#define USWAP_BASE_STATS_H

#include "base/base.h"

/* clang-format off */
/* Fields of uswap_stats that only ever grow (uswap_api.h says what each means). */
#define STATS_COUNTERS(X)                                                                                              \
    X(faults) X(inline_faults) X(zero_fills) X(soft_faults) X(major_faults) X(write_faults) X(duplicate_faults) X(parked_faults) X(write_waits)         \
    X(fault_around_pages) X(pages_in) X(pages_out) X(reads) X(writes) X(read_ahead_pages) X(read_ahead_hits)           \
    X(read_ahead_misses) X(read_ahead_waste) X(evictions) X(evictions_steered) X(evictions_native) X(evictions_direct) X(evictions_api)     \
    X(clean_drops) X(zero_drops) X(filled_drops) X(evict_busy) X(copy_fallbacks) X(read_errors) X(write_errors) X(hash_errors)         \
    X(swap_full_events) X(write_ahead_pages) X(rescues) X(refaults)              \
    X(policy_orders) X(policy_passed) X(policy_errors) X(stall_ns) X(disk_stalls)
/* clang-format on */

/* Gauges kept by hand (the others are computed when asked for). */
#define STATS_GAUGES(X)                                                                                                \
    X(mapped_pages)                                                                                                    \
    X(cached_pages) X(inactive_pages) X(listed_pages) X(locked_pages) X(pinned_pages) X(poisoned_pages) X(bad_slots)

typedef struct {
#define STATS_FIELD(name) _Atomic uint64_t name;
    STATS_COUNTERS(STATS_FIELD)
    STATS_GAUGES(STATS_FIELD)
    _Atomic uint64_t peak_frames; /* the most that were counted at a time */
#undef STATS_FIELD
} pool_counters;

#define STAT_ADD(pool, name, n)                                                                                        \
    ((void)atomic_fetch_add_explicit(&(pool)->counters->name, (uint64_t)(n), memory_order_relaxed))
#define STAT_SUB(pool, name, n)                                                                                        \
    ((void)atomic_fetch_sub_explicit(&(pool)->counters->name, (uint64_t)(n), memory_order_relaxed))
#define STAT_GET(pool, name) atomic_load_explicit(&(pool)->counters->name, memory_order_relaxed)

#endif
