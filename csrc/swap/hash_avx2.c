/*
 * hash_avx2.c - the same hash, compiled for AVX2. Only hash.c calls it, after asking the processor.
 */
#include "swap/hash.h"

#if defined(__x86_64__)
#pragma GCC target("avx2")
#define XXH_INLINE_ALL
#define XXH_VECTOR 2 /* XXH_AVX2 */
#include <xxhash.h>

page_hash page_hash_avx2(const void *page, uint64_t seed);

page_hash page_hash_avx2(const void *page, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(page, PAGE_BYTES, seed);
    return (page_hash){.low = hash.low64, .high = hash.high64};
}
#endif
