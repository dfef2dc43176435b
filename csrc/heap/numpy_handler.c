/*
 * numpy_handler.c - a heap as NumPy wants it: the functions of a PyDataMem_Handler (NEP 49). No header of Python or NumPy is needed: a handler is a
 * plain structure of function pointers, fixed by NumPy's ABI, and the capsule around it is made in src/uswap/_numpy_handler.py.
 *
 * NumPy may call these from any thread, with or without the GIL; free also long after the block or the pool that the handler is of has ended.
 */
#include "heap/heap.h"

#include <string.h>

static void *numpy_malloc(void *heap, size_t bytes) {
    return heap_malloc(heap, bytes, false);
}

static void *numpy_calloc(void *heap, size_t count, size_t bytes) {
    size_t all;
    return __builtin_mul_overflow(count, bytes, &all) ? NULL : heap_malloc(heap, all, true);
}

static void *numpy_realloc(void *heap, void *block, size_t bytes) {
    return heap_realloc(heap, block, bytes);
}

/* bytes: not to be relied on, as NumPy says itself. */
static void numpy_free(void *heap, void *block, size_t bytes) {
    heap_free(heap, block, bytes);
}

void heap_fill_handler(uswap_heap *h) {
    h->handler.version = 1;
    h->handler.allocator.ctx = h;
    h->handler.allocator.malloc = numpy_malloc;
    h->handler.allocator.calloc = numpy_calloc;
    h->handler.allocator.realloc = numpy_realloc;
    h->handler.allocator.free = numpy_free;
}

EXPORT void *uswap_heap_numpy_handler(uswap_heap *h) {
    return &h->handler;
}

/* ---- the default handler of the process ---- */

/* NumPy's own functions, once ours stand in its default handler; and the heap from which those take blocks, or NULL: NumPy's. A block goes back to
 * where it has come from, which its address says. */
static numpy_handler own;
static _Atomic(uswap_heap *) everywhere;

static uswap_heap *owner_of(const void *block) {
    const heap_span *span = block ? heap_span_find(block) : NULL;
    return span ? span->heap : NULL;
}

/* Of a child that could not go on with the pool, NumPy's. */
static uswap_heap *heap_for_all(void) {
    uswap_heap *h = atomic_load(&everywhere);
    return h && !atomic_load(&h->lost) ? h : NULL;
}

static void *default_malloc(void *ctx, size_t bytes) {
    uswap_heap *h = heap_for_all();
    return h ? heap_malloc(h, bytes, false) : own.allocator.malloc(ctx, bytes);
}

static void *default_calloc(void *ctx, size_t count, size_t bytes) {
    uswap_heap *h = heap_for_all();
    return h ? numpy_calloc(h, count, bytes) : own.allocator.calloc(ctx, count, bytes);
}

static void *default_realloc(void *ctx, void *block, size_t bytes) {
    uswap_heap *h = owner_of(block);
    return h ? heap_realloc(h, block, bytes) : own.allocator.realloc(ctx, block, bytes);
}

static void default_free(void *ctx, void *block, size_t bytes) {
    uswap_heap *h = owner_of(block);
    if (h)
        heap_free(h, block, bytes);
    else
        own.allocator.free(ctx, block, bytes);
}

EXPORT void uswap_heap_everywhere(void *numpy_default, uswap_heap *h) {
    numpy_handler *handler = numpy_default;
    if (handler->allocator.malloc != default_malloc) {
        own = *handler;
        handler->allocator.free = default_free; /* first: what the others hand out comes back here */
        handler->allocator.realloc = default_realloc;
        handler->allocator.calloc = default_calloc;
        handler->allocator.malloc = default_malloc;
    }
    atomic_store(&everywhere, h);
}
