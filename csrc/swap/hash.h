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

#endif
