/*
 * heap_small.c - small blocks by the memory pools of oneTBB's allocator (libtbbmalloc), over units of the heap's sheets.
 *
 * It is found at run time: nothing of it is needed to build the core, and who never makes a heap need not have it. Only what is declared in TBB's
 * own tbb/scalable_allocator.h (namespace rml) is used. Its slabs lie in managed memory, headers included, and so do the lists of free blocks that it
 * threads through them; its locks may be held over a fault, which is served by threads that never take them.
 */
#define _GNU_SOURCE
#include "base/status.h"
#include "heap/heap.h"

#include <dlfcn.h>

/* As rml::MemPoolPolicy, version 1. The flags are bit fields: fixedPool, keepAllMemory; neither is wanted. */
typedef struct {
    void *(*raw_malloc)(intptr_t heap, size_t *bytes);
    int (*raw_free)(intptr_t heap, void *address, size_t bytes);
    size_t granularity;
    int version;
    unsigned flags;
} pool_policy;

#define POLICY_VERSION 1

static struct {
    int (*create)(intptr_t id, const pool_policy *policy, void **pool);
    bool (*destroy)(void *pool);
    void *(*malloc)(void *pool, size_t bytes);
    void *(*realloc)(void *pool, void *block, size_t bytes);
    bool (*free)(void *pool, void *block);
    size_t (*msize)(void *pool, void *block);
} tbb;

static _Atomic uint32_t loaded;
static small_lock loading;

static int load(const char *path, uswap_error *err) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "dlopen", path, "%s", dlerror());
    /* The names are those that every C++ compiler for Linux makes of rml::pool_create_v1 and so on. */
    const struct {
        void *slot;
        const char *name;
    } wanted[] = {
        {&tbb.create, "_ZN3rml14pool_create_v1ElPKNS_13MemPoolPolicyEPPNS_10MemoryPoolE"},
        {&tbb.destroy, "_ZN3rml12pool_destroyEPNS_10MemoryPoolE"},
        {&tbb.malloc, "_ZN3rml11pool_mallocEPNS_10MemoryPoolEm"},
        {&tbb.realloc, "_ZN3rml12pool_reallocEPNS_10MemoryPoolEPvm"},
        {&tbb.free, "_ZN3rml9pool_freeEPNS_10MemoryPoolEPv"},
        {&tbb.msize, "_ZN3rml10pool_msizeEPNS_10MemoryPoolEPv"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library, wanted[i].name);
        if (!found)
            return error_set(err, USWAP_E_UNSUPPORTED, 0, "dlsym", path, "this libtbbmalloc has no memory pools");
        *(void **)wanted[i].slot = found;
    }
    atomic_store(&loaded, 1);
    return 0;
}

bool heap_small_there(void) {
    return atomic_load(&loaded);
}

EXPORT int uswap_heap_load(const char *path, uswap_error *err) {
    small_lock_acquire(&loading);
    int status = heap_small_there() ? 0 : load(path, err);
    small_lock_release(&loading);
    return status;
}

/* ---- what the allocator asks for. Context: it may hold locks of its own ---- */

/* The allocator fills its slabs, and each slab, from the end: first touches that no one takes for a sequence. So they are made here, in sequence, where
 * the limit has room for them. */
static void touch(uswap_heap *h, unsigned char *run, size_t bytes) {
    for (size_t at = 0; bytes <= h->stale_limit && at < bytes; at += PAGE_BYTES)
        *(volatile unsigned char *)(run + at) = 0;
}

static void *raw_malloc(intptr_t heap, size_t *bytes) {
    uswap_heap *h = (uswap_heap *)heap; /* NOLINT */
    bool zeroed = false;
    *bytes = (*bytes + HEAP_UNIT_BYTES - 1) & ~(HEAP_UNIT_BYTES - 1);
    unsigned char *run = heap_run_take(h, *bytes, UNIT_SMALL, &zeroed);
    if (run && zeroed)
        touch(h, run, *bytes);
    return run;
}

static int raw_free(intptr_t heap, void *address, size_t bytes) {
    (void)heap;
    heap_run_free_small(heap_span_find(address), address, bytes);
    return 0;
}

/* ---- what the heap asks for ---- */

int heap_small_make(uswap_heap *h, uswap_error *err) {
    const pool_policy policy = {
        .raw_malloc = raw_malloc, .raw_free = raw_free, .granularity = HEAP_UNIT_BYTES, .version = POLICY_VERSION};
    int status = tbb.create((intptr_t)h, &policy, &h->small);
    if (status == 0 && h->small)
        return 0;
    return error_set(err, USWAP_E_NO_MEMORY, 0, "pool_create", NULL, "libtbbmalloc cannot make a memory pool: %d",
                     status);
}

void heap_small_end(uswap_heap *h) {
    if (h->small)
        tbb.destroy(h->small);
    h->small = NULL;
}

void *heap_small_malloc(uswap_heap *h, size_t bytes) {
    return tbb.malloc(h->small, bytes);
}

void *heap_small_realloc(uswap_heap *h, void *block, size_t bytes) {
    return tbb.realloc(h->small, block, bytes);
}

size_t heap_small_bytes(uswap_heap *h, void *block) {
    return tbb.msize(h->small, block);
}

void heap_small_free(uswap_heap *h, void *block) {
    tbb.free(h->small, block);
}
