/*
 * fill_value.h - the values of pages whose 64-bit words are all equal: such a page needs no slot, only the index of its value.
 *
 * Owns: a table of values of the pool, which only grows: an index is good for as long as the pool lives (README, An eviction).
 * No lock, no allocation; may be called with a page locked.
 */
#ifndef USWAP_SWAP_FILL_VALUE_H
#define USWAP_SWAP_FILL_VALUE_H

#include "base/base.h"
#include "shared/segment.h"

#define FILL_VALUES_MAX 65536U

/* A one-field struct, so that it is not taken for a swap entry. */
typedef struct {
    uint32_t value;
} fill_index;

typedef struct {
    _Atomic uint64_t *values; /* [FILL_VALUES_MAX], in the segment, lazily touched; 0: empty */
    _Atomic uint8_t *touched; /* one byte a 4 KiB of values: metadata counted */
} fill_table;

typedef struct uswap_pool uswap_pool;

/* Of fill_table.touched. */
static inline size_t fill_table_touched_bytes(void) {
    return FILL_VALUES_MAX / (PAGE_BYTES / sizeof(uint64_t));
}

/* Return: 0 or -errno. */
int fill_table_init(fill_table *table, segment *seg);
void fill_table_fini(fill_table *table);

/* Whether all words of the page are equal; *value: which. Ends at the first that differs. */
bool fill_value_of(const void *page, uint64_t *value);
void fill_value_write(void *page, uint64_t value);

/* The index of a value other than 0, which is added if it is new. Return: false if there is no place for it. */
bool fill_value_intern(uswap_pool *pool, uint64_t value, fill_index *index);
uint64_t fill_value_at(const uswap_pool *pool, fill_index index);

#endif
