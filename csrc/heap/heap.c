/*
 * heap.c - making and ending heaps, and their blocks: which of the three ways a size goes.
 */
#include "heap/heap.h"

#include "base/memory.h"
#include "base/status.h"

#include <stdio.h>
#include <string.h>

/* ---- blocks. Context: inside the gate ---- */

static void *take(uswap_heap *h, size_t bytes, bool zeroed) {
    bool is_zero = zeroed;
    void *block;
    if (bytes < HEAP_RUN_BYTES) {
        block = heap_small_malloc(h, MAX_OF(bytes, (size_t)1));
        is_zero = false;
    } else if (bytes < HEAP_LARGE_BYTES) {
        block = heap_run_take(h, bytes, UNIT_FIRST, &is_zero);
    } else {
        small_lock_acquire(&h->lock);
        heap_span *span = bytes >> 47 ? NULL : heap_span_make(h, bytes, true);
        small_lock_release(&h->lock);
        block = span ? (void *)(uintptr_t)span->address : NULL;
        is_zero = true;
    }
    if (block && zeroed && !is_zero)
        memset(block, 0, bytes);
    return block;
}

static unit_use use_at(const heap_span *span, const void *block) {
    return (unit_use)span->use[((uintptr_t)block - span->address) >> HEAP_UNIT_SHIFT];
}

static void give_back(uswap_heap *h, void *block, size_t bytes) {
    heap_span *span = heap_span_find(block);
    INVARIANT(I20, span && span->heap == h);
    if (span->large) {
        small_lock_acquire(&h->lock);
        heap_span_end(span);
        small_lock_release(&h->lock);
    } else if (use_at(span, block) == UNIT_SMALL) {
        if (!heap_free_later(h, block, bytes))
            heap_small_free(h, block);
    } else {
        heap_run_free(span, block);
    }
}

/* Without a copy. Return: NULL: it cannot be. */
static void *resize(uswap_heap *h, heap_span *span, void *block, size_t bytes) {
    if (span->large)
        return bytes >= HEAP_RUN_BYTES && bytes >> 47 == 0 ? heap_span_resize(span, bytes) : NULL;
    if (use_at(span, block) == UNIT_SMALL)
        return bytes < HEAP_RUN_BYTES ? heap_small_realloc(h, block, MAX_OF(bytes, (size_t)1)) : NULL;
    return heap_run_resize(span, block, bytes) ? block : NULL;
}

static size_t bytes_of(uswap_heap *h, const heap_span *span, void *block) {
    if (span->large)
        return (size_t)span->length;
    return use_at(span, block) == UNIT_SMALL ? heap_small_bytes(h, block) : heap_run_bytes(span, block);
}

static void *change(uswap_heap *h, void *block, size_t bytes) {
    heap_span *span = heap_span_find(block);
    INVARIANT(I20, span && span->heap == h);
    void *changed = resize(h, span, block, bytes);
    if (changed || atomic_load(&h->refuse))
        return changed;
    changed = take(h, bytes, false);
    if (!changed)
        return NULL;
    memcpy(changed, block, MIN_OF(bytes, bytes_of(h, span, block)));
    give_back(h, block, 0);
    return changed;
}

void *heap_malloc(uswap_heap *h, size_t bytes, bool zeroed) {
    gate_enter(&h->gate);
    void *block = atomic_load(&h->refuse) || atomic_load(&h->lost) ? NULL : take(h, bytes, zeroed);
    if (block)
        atomic_fetch_add_explicit(&h->blocks, 1, memory_order_relaxed); /* the gate orders it */
    gate_leave(&h->gate);
    return block;
}

void *heap_realloc(uswap_heap *h, void *block, size_t bytes) {
    if (!block)
        return heap_malloc(h, bytes, false);
    gate_enter(&h->gate);
    void *changed = atomic_load(&h->lost) ? NULL : change(h, block, bytes);
    gate_leave(&h->gate);
    return changed;
}

void heap_free(uswap_heap *h, void *block, size_t bytes) {
    if (!block)
        return;
    gate_enter(&h->gate);
    if (!atomic_load(&h->lost)) {
        give_back(h, block, bytes);
        atomic_fetch_sub_explicit(&h->blocks, 1, memory_order_relaxed);
    }
    gate_leave(&h->gate);
}

/* ---- heaps ---- */

static int refuse_create(uswap_heap *h, uswap_error *err) {
    heap_small_end(h);
    memory_unmap(h, sizeof *h);
    return error_set(err, USWAP_E_NO_MEMORY, 0, "heap", NULL, "a process has at most %d heaps", HEAPS_MAX);
}

EXPORT int uswap_heap_create(uswap_pool *pool, const char *name, uint64_t limit_bytes, uswap_heap **heap,
                             uswap_error *err) {
    if (!heap_small_there())
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "heap", NULL, "no allocator for small blocks has been loaded");
    uswap_heap *h = memory_map(sizeof *h);
    if (!h)
        return error_set(err, USWAP_E_NO_MEMORY, 0, "mmap", NULL, "no address space");
    memory_inherit(h, sizeof *h, true);
    h->pool = pool;
    h->stale_limit = MIN_OF(HEAP_STALE_BYTES, (size_t)limit_bytes / HEAP_STALE_SHARE);
    snprintf(h->handler.name, sizeof h->handler.name, "%.63s", name);
    int status = heap_small_make(h, err);
    if (status != 0) {
        memory_unmap(h, sizeof *h);
        return status;
    }
    if (heap_list_add(h) != 0)
        return refuse_create(h, err);
    heap_fill_handler(h);
    *heap = h;
    return 0;
}

EXPORT void uswap_heap_refuse(uswap_heap *h) {
    atomic_store(&h->refuse, 1);
}

EXPORT uint64_t uswap_heap_blocks(uswap_heap *h) {
    return atomic_load(&h->blocks);
}

/* Context: the gate is closed, no block is in use. */
static void give_all_back(uswap_heap *h) {
    atomic_store(&h->refuse, 1);
    heap_small_end(h); /* its last runs become stale */
    h->stale_count = 0;
    heap_later_end(h);
    while (h->spans)
        heap_span_end(h->spans);
    h->pool = NULL;
}

EXPORT int uswap_heap_end(uswap_heap *h, uswap_error *err) {
    heap_hold_forks(); /* they close the gate too */
    gate_close(&h->gate);
    uint64_t blocks = atomic_load(&h->blocks);
    bool lost = atomic_load(&h->lost);
    if (blocks == 0 && h->pool && !lost)
        give_all_back(h);
    if (blocks == 0 || lost)
        heap_list_remove(h);
    gate_open(&h->gate);
    heap_allow_forks();
    if (blocks == 0 || lost)
        return 0;
    return error_set(err, USWAP_E_BUSY, 0, "heap", NULL, "%llu blocks are in use", (unsigned long long)blocks);
}

EXPORT void uswap_heap_forget(uswap_heap *h) {
    memory_unmap(h, sizeof *h);
}

EXPORT uint32_t uswap_heap_regions(uswap_heap *h, uint64_t *regions, uint32_t capacity) {
    uint32_t count = 0;
    small_lock_acquire(&h->lock);
    for (const heap_span *span = h->spans; span && count < capacity; span = span->next)
        regions[count++] = span->region;
    small_lock_release(&h->lock);
    return count;
}
