#include "swap/hash.h"

/* xxhash.h picks its vector code when it is compiled. Without -march this would be SSE2; the AVX2 form is built beside it
 * (0.39 against 0.65 us a page) and chosen once. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
page_hash page_hash_avx2(const void *page, uint64_t seed);
#endif

static page_hash hash_portable(const void *page, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(page, PAGE_BYTES, seed);
    return (page_hash){.low = hash.low64, .high = hash.high64};
}

page_hash page_hash_of(const void *page, uint64_t seed) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return page_hash_avx2(page, seed);
#endif
    return hash_portable(page, seed);
}
