/*
 * heap_span.c - the regions of a heap, and which of them an address lies in.
 *
 * Owns: the directory, two levels of granules. It is read without a lock: an entry is written before the first block of the span is handed out, and
 * cleared after the last has come back.
 */
#define _GNU_SOURCE
#include "base/memory.h"
#include "heap/heap.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#define LEAF_SHIFT 13
#define LEAF_ENTRIES ((size_t)1 << LEAF_SHIFT)
#define TOP_ENTRIES ((size_t)1 << (47 - HEAP_GRANULE_SHIFT - LEAF_SHIFT))
/* Addresses that a region is just leaving (src/uswap/_mapping.py, rule 2) are refused; others are then asked for. */
#define TRIES 8
/* A region that others are at can move only a little later: so often it is tried, 50 ms each time at most. */
#define RESIZE_TRIES 20

typedef _Atomic(heap_span *) directory_entry;

static _Atomic(directory_entry *) top[TOP_ENTRIES];
static small_lock growing;

static directory_entry *leaf_of(size_t granule, bool make) {
    _Atomic(directory_entry *) *at = &top[granule >> LEAF_SHIFT];
    directory_entry *leaf = atomic_load(at);
    if (leaf || !make)
        return leaf;
    small_lock_acquire(&growing);
    leaf = atomic_load(at);
    if (!leaf) {
        leaf = memory_map(LEAF_ENTRIES * sizeof *leaf);
        memory_inherit((void *)leaf, LEAF_ENTRIES * sizeof *leaf, true);
        atomic_store(at, leaf);
    }
    small_lock_release(&growing);
    return leaf;
}

/* Return: false: no memory for the directory. */
static bool note(const heap_span *span, heap_span *value) {
    size_t first = span->address >> HEAP_GRANULE_SHIFT;
    size_t granules = span->large ? 1 : (size_t)span->length >> HEAP_GRANULE_SHIFT;
    for (size_t i = first; i < first + granules; i++) {
        directory_entry *leaf = leaf_of(i, value != NULL);
        if (!leaf)
            return false;
        atomic_store(&leaf[i & (LEAF_ENTRIES - 1)], value);
    }
    return true;
}

heap_span *heap_span_find(const void *address) {
    size_t granule = (uintptr_t)address >> HEAP_GRANULE_SHIFT;
    if (granule >> (47 - HEAP_GRANULE_SHIFT))
        return NULL;
    directory_entry *leaf = leaf_of(granule, false);
    return leaf ? atomic_load(&leaf[granule & (LEAF_ENTRIES - 1)]) : NULL;
}

/* ---- making ---- */

/* Address space that begins with a granule. Without access at first: see memory_map. */
static unsigned char *map_aligned(size_t bytes) {
    size_t slack = HEAP_GRANULE_BYTES;
    unsigned char *mapping = mmap(NULL, bytes + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)mapping % HEAP_GRANULE_BYTES;
    if (before > 0)
        munmap(mapping, before);
    munmap(mapping + before + bytes, slack - before);
    unsigned char *start = mapping + before;
    munlock(start, bytes);
    if (mprotect(start, bytes, PROT_READ | PROT_WRITE) == 0)
        return start;
    munmap(start, bytes);
    return NULL;
}

static bool make_region(heap_span *span, size_t bytes) {
    unsigned char *unusable[TRIES];
    int tries = 0, status = USWAP_E_INVALID;
    while (status == USWAP_E_INVALID && tries < TRIES) {
        unsigned char *start = unusable[tries] = map_aligned(bytes);
        if (!start)
            break;
        status = uswap_region_create(span->heap->pool, start, bytes, span->heap->handler.name, USWAP_FAULTS_DEFAULT,
                                     &span->region, NULL);
        if (status == USWAP_OK)
            span->address = (uintptr_t)start;
        else
            tries++;
    }
    for (int i = 0; i < tries; i++)
        munmap(unusable[i], bytes);
    return status == USWAP_OK;
}

static void end_region(heap_span *span) {
    if (uswap_region_destroy(span->heap->pool, span->region, NULL) == USWAP_OK)
        munmap((void *)(uintptr_t)span->address, bytes_to_pages((uint64_t)span->length) << PAGE_SHIFT);
}

heap_span *heap_span_make(uswap_heap *h, size_t bytes, bool large) {
    heap_span *span = memory_map(sizeof *span);
    if (!span)
        return NULL;
    memory_inherit(span, sizeof *span, true);
    span->heap = h;
    span->large = large;
    span->length = (int64_t)bytes;
    span->units = span->units_free = span->longest = large ? 0 : (uint32_t)(bytes >> HEAP_UNIT_SHIFT);
    if (!make_region(span, bytes_to_pages(bytes) << PAGE_SHIFT)) {
        memory_unmap(span, sizeof *span);
        return NULL;
    }
    if (!note(span, span)) {
        note(span, NULL);
        end_region(span);
        memory_unmap(span, sizeof *span);
        return NULL;
    }
    span->next = h->spans;
    if (span->next)
        span->next->previous = span;
    h->spans = span;
    return span;
}

void heap_span_end(heap_span *span) {
    if (span->previous)
        span->previous->next = span->next;
    else
        span->heap->spans = span->next;
    if (span->next)
        span->next->previous = span->previous;
    note(span, NULL);
    end_region(span);
    memory_unmap(span, sizeof *span);
}

/* ---- changing ---- */

void *heap_span_resize(heap_span *span, size_t bytes) {
    const int32_t exports = 0;
    /* Its own copies: the directory must have the old address until the block has the new one. */
    uint64_t address = span->address;
    int64_t length = span->length;
    const uswap_mapping mapping = {.address = &address, .length = &length, .exports = &exports};
    int status = USWAP_RESIZE_LATER;
    for (int i = 0; i < RESIZE_TRIES && status == USWAP_RESIZE_LATER; i++) {
        /* realloc's caller has promised that nobody else is at the block. */
        status =
            uswap_region_resize(span->heap->pool, span->region, (int64_t)bytes, USWAP_RESIZE_ALONE, &mapping, NULL);
        if (status == USWAP_RESIZE_LATER)
            sched_yield();
    }
    if (status != USWAP_RESIZED)
        return NULL;
    note(span, NULL);
    span->address = address;
    span->length = length;
    /* A leaf that cannot be had would lose the block: there is nothing better than to stop here. */
    INVARIANT(I20, note(span, span));
    return (void *)(uintptr_t)address;
}

bool heap_discard(const heap_span *span, size_t first_byte, size_t bytes) {
    return uswap_region_advise(span->heap->pool, span->region, first_byte, bytes, USWAP_ADVICE_DONTNEED, NULL) ==
           USWAP_OK;
}
