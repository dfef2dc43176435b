/*
 * stay.h - a page's stay in memory, from one arrival to the next, named by one word: what rings, queues and policies hold.
 *
 *   bits 0- 9 generation of the page    10-23 index of its region    24-27 generation of the region    28-63 page
 *
 * A stay is a hint: whether the page is still there is decided under its page lock, by its generation. Both generations are counted
 * modulo few: who meets a stay of long ago that looks like one of now evicts a page somewhat early, and nothing else. The layout is part
 * of the API (src/uswap/policy/interface.py).
 */
#ifndef USWAP_REGION_STAY_H
#define USWAP_REGION_STAY_H

#include "region/region.h"

#define STAY_INDEX_SHIFT 10
#define STAY_REGION_SHIFT 24
#define STAY_PAGE_SHIFT 28

typedef struct {
    uint64_t value;
} stay;

/* The page's present stay. */
static inline stay stay_of(const region *r, size_t page) {
    uint64_t word = page_load(&r->object.words[page]);
    return (stay){(uint64_t)page << STAY_PAGE_SHIFT | (uint64_t)(r->generation & 15U) << STAY_REGION_SHIFT |
                  (uint64_t)r->index << STAY_INDEX_SHIFT | page_generation_of(word)};
}

static inline size_t stay_page(stay s) {
    return (size_t)(s.value >> STAY_PAGE_SHIFT);
}

static inline unsigned stay_generation(stay s) {
    return (unsigned)(s.value & (PAGE_GENERATION_MASK >> PAGE_GENERATION_SHIFT));
}

/* Key of the region. */
static inline uint64_t stay_key(stay s) {
    return s.value & ((UINT64_C(1) << STAY_PAGE_SHIFT) - (UINT64_C(1) << STAY_INDEX_SHIFT));
}

/* Whether it is of one of count pages from the first's on, of the same region. */
static inline bool stay_within(stay s, stay first, size_t count) {
    return stay_key(s) == stay_key(first) && stay_page(s) - stay_page(first) < count;
}

/* Its region, referenced, which has such a page; NULL if it is gone. */
region *region_get_by_stay(region_table *table, stay s);

#endif
