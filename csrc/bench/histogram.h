/*
 * histogram.h - latencies in buckets, eight to each doubling: a relative error of an eighth at most.
 */
#ifndef USWAP_BENCH_HISTOGRAM_H
#define USWAP_BENCH_HISTOGRAM_H

#include "base/base.h"

#define BUCKETS_PER_DOUBLING_SHIFT 3

/* Values below 8 ns have a bucket each. */
static inline uint32_t histogram_bucket(uint64_t ns) {
    if (ns < UINT64_C(1) << BUCKETS_PER_DOUBLING_SHIFT)
        return (uint32_t)ns;
    uint32_t doubling = 63U - (uint32_t)__builtin_clzll(ns) - BUCKETS_PER_DOUBLING_SHIFT;
    uint32_t bucket = ((doubling + 1) << BUCKETS_PER_DOUBLING_SHIFT) +
                      (uint32_t)(ns >> doubling & ((1U << BUCKETS_PER_DOUBLING_SHIFT) - 1));
    return MIN_OF(bucket, (uint32_t)USWAP_BENCH_BUCKETS - 1);
}

static inline void histogram_add(uswap_bench_result *result, uint64_t ns) {
    result->latency[histogram_bucket(ns)]++;
}

#endif
