#include "swap/fill_value.h"

#include "base/memory.h"
#include "pool.h"

#include <errno.h>
#include <string.h>

#define PAGE_VALUES (PAGE_BYTES / sizeof(uint64_t))
/* Places looked at from where the hash points to: 64 values are 8 cache lines. A table nine tenths full still has one free
 * among them. */
#define PROBES 64U

_Static_assert((FILL_VALUES_MAX & (FILL_VALUES_MAX - 1)) == 0, "places wrap around by a mask");

int fill_table_init(fill_table *table, segment *seg) {
    int64_t offset = segment_allot(seg, FILL_VALUES_MAX * sizeof(uint64_t));
    table->touched = memory_map(FILL_VALUES_MAX / PAGE_VALUES);
    if (offset < 0 || !table->touched)
        return -ENOMEM;
    table->values = segment_at(seg, (uint64_t)offset);
    return 0;
}

void fill_table_fini(fill_table *table) {
    memory_unmap((void *)table->touched, FILL_VALUES_MAX / PAGE_VALUES);
}

bool fill_value_of(const void *page, uint64_t *value) {
    const uint64_t *word = page;
    *value = word[0];
    /* The ends first: most pages differ there, and are not looked at further. */
    return word[0] == word[1] && word[0] == word[PAGE_VALUES - 1] && memcmp(word, word + 1, PAGE_BYTES - 8) == 0;
}

void fill_value_write(void *page, uint64_t value) {
    uint64_t *word = page;
    for (size_t i = 0; i < PAGE_VALUES; i++)
        word[i] = value;
}

/* Fibonacci hashing: the upper bits of the product with 2^64 / phi. */
static uint32_t place_of(uint64_t value) {
    return (uint32_t)(value * UINT64_C(0x9E3779B97F4A7C15) >> 32) % FILL_VALUES_MAX;
}

bool fill_value_intern(uswap_pool *pool, uint64_t value, fill_index *index) {
    fill_table *table = &pool->fills;
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        uint32_t place = (place_of(value) + probe) % FILL_VALUES_MAX;
        size_t chunk = place / PAGE_VALUES;
        metadata_touch(pool, table->touched, chunk, chunk);
        uint64_t found = atomic_load_explicit(&table->values[place], memory_order_relaxed);
        /* Who comes second to an empty place finds what the first has put there: the same value, perhaps. */
        if (found == value ||
            (found == 0 && (atomic_compare_exchange_strong(&table->values[place], &found, value) || found == value))) {
            *index = (fill_index){place};
            return true;
        }
    }
    return false;
}

uint64_t fill_value_at(const uswap_pool *pool, fill_index index) {
    return atomic_load_explicit(&pool->fills.values[index.value], memory_order_relaxed);
}
