/*
 * hashes.c - the hash of a page: what the processor's fast form says is what the plain one says, and every bit counts.
 */
#include "part.h"

#include "swap/hash.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static bool equal(page_hash a, page_hash b) {
    return a.low == b.low && a.high == b.high;
}

int main(void) {
    static _Alignas(64) unsigned char page[PAGE_BYTES + 8];
    for (size_t i = 0; i < PAGE_BYTES; i++)
        page[i] = (unsigned char)dice(256);
    for (uint64_t seed = 0; seed < 100; seed++) {
        XXH128_hash_t plain = XXH3_128bits_withSeed(page, PAGE_BYTES, seed);
        CHECK(equal(page_hash_of(page, seed), (page_hash){.low = plain.low64, .high = plain.high64}));
        CHECK(!equal(page_hash_of(page, seed), page_hash_of(page, seed + 1)));
    }
    page_hash hash = page_hash_of(page, 7);
    for (size_t bit = 0; bit < 8 * PAGE_BYTES; bit++) {
        page[bit / 8] ^= (unsigned char)(1U << (bit % 8));
        CHECK(!equal(page_hash_of(page, 7), hash));
        page[bit / 8] ^= (unsigned char)(1U << (bit % 8));
    }
    memmove(page + 8, page, PAGE_BYTES); /* not aligned as vectors are */
    CHECK(equal(page_hash_of(page + 8, 7), hash));
    return 0;
}
