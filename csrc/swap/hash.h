/*
 * hash.h - the strong hash of a page's contents: XXH3 (128 bits) with the pool's secret seed.
 *
 * It answers two questions: is this page still what its slot holds (page-out), and is what was read what was written
 * (page-in).
 */
#ifndef USWAP_SWAP_HASH_H
#define USWAP_SWAP_HASH_H

#include "base/base.h"

typedef struct {
    uint64_t low, high;
} page_hash;

page_hash page_hash_of(const void *page, uint64_t seed);

/* This page is hashed next: its lines come nearer meanwhile. What a device has brought, or a program has not touched for a while, is in memory only, and the
 * processor's own prefetch ends with each page: 165 ns a page of a stream instead of 272, 70 in the cache. */
static inline void page_hash_soon(const void *page) {
    for (size_t i = 0; i < PAGE_BYTES; i += 64)
        __builtin_prefetch((const char *)page + i, 0, 2);
}

#endif
