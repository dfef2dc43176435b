/*
 * heap_later.c - small blocks that are freed while they are out: the small allocator would write to them, and so bring them in.
 *
 * They are noted, outside managed memory, and freed many at a time in the order of their addresses: each page then comes in once, beside its
 * neighbours, and not once a block. What waits takes swap space, but no memory.
 */
#define _GNU_SOURCE
#include "base/memory.h"
#include "heap/heap.h"

#include <stdlib.h>
#include <sys/mman.h>

/* Slabs of the small allocator begin at multiples of this, with a header that a free writes to. */
#define SLAB_BYTES ((uintptr_t)16 << 10)
#define SLAB_PAGES (SLAB_BYTES / PAGE_BYTES)
/* So many frees between two looks at whether the pool has anything out. */
#define LOOK_EVERY 1024

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (void *const *)a, y = (uintptr_t) * (void *const *)b;
    return (x > y) - (x < y);
}

/* Whether anything is out is asked now and then, not for each block. */
static bool may_be_out(uswap_heap *h) {
    uswap_stats stats;
    if (atomic_fetch_add_explicit(&h->frees, 1, memory_order_relaxed) % LOOK_EVERY == 0 &&
        uswap_pool_stats(h->pool, &stats, NULL) == USWAP_OK)
        atomic_store(&h->something_out, stats.swap_used_bytes > 0 || stats.cached_bytes > 0);
    return atomic_load_explicit(&h->something_out, memory_order_relaxed);
}

/* Whether the page of the block, or that of its slab's header, is not mapped. Blocks that are freed one after the other often share a page: the last
 * answer is kept, with the page. It may be out of date, which costs a fault. */
static bool is_out(uswap_heap *h, const void *block) {
    uintptr_t page = (uintptr_t)block & ~(PAGE_BYTES - 1), slab = page & ~(SLAB_BYTES - 1), known;
    unsigned char there[SLAB_PAGES];
    known = atomic_load(&h->looked_at);
    if ((known & ~(PAGE_BYTES - 1)) == page)
        return known & 1;
    size_t last = (page - slab) >> PAGE_SHIFT;
    if (mincore((void *)slab, (last + 1) << PAGE_SHIFT, there) != 0)
        return false;
    bool out = !(there[0] & there[last] & 1);
    atomic_store(&h->looked_at, page | out);
    return out;
}

static void free_all(uswap_heap *h, void **blocks, uint32_t count) {
    qsort((void *)blocks, count, sizeof *blocks, by_address);
    for (uint32_t i = 0; i < count; i++)
        heap_small_free(h, blocks[i]);
}

/* Context: heap.later.lock. Return: false: no memory for the list. */
static bool list_there(later_list *list) {
    if (!list->blocks) {
        list->blocks = memory_map(HEAP_LATER_BLOCKS * sizeof *list->blocks);
        memory_inherit((void *)list->blocks, HEAP_LATER_BLOCKS * sizeof *list->blocks, true);
    }
    return list->blocks != NULL;
}

/* Others go on with another list while these are freed. Context: heap.later.lock. */
static later_list take_full(later_list *list) {
    later_list full = {.blocks = NULL};
    if (list->count == HEAP_LATER_BLOCKS || list->bytes >= HEAP_LATER_BYTES) {
        full.blocks = list->blocks;
        full.count = list->count;
        list->blocks = NULL;
        list->count = 0;
        list->bytes = 0;
    }
    return full;
}

bool heap_free_later(uswap_heap *h, void *block, size_t bytes) {
    if (!may_be_out(h) || !is_out(h, block))
        return false;
    later_list *list = &h->later, full = {.blocks = NULL};
    small_lock_acquire(&list->lock);
    bool noted = list_there(list);
    if (noted) {
        list->blocks[list->count++] = block;
        list->bytes += bytes > 0 ? bytes : HEAP_LATER_GUESS_BYTES;
        full = take_full(list);
    }
    small_lock_release(&list->lock);
    if (full.blocks) {
        free_all(h, full.blocks, full.count);
        memory_unmap((void *)full.blocks, HEAP_LATER_BLOCKS * sizeof *full.blocks);
    }
    return noted;
}

void heap_later_end(uswap_heap *h) {
    memory_unmap((void *)h->later.blocks, HEAP_LATER_BLOCKS * sizeof *h->later.blocks);
    h->later = (later_list){.blocks = NULL};
}
