/*
 * heap.c - the malloc family: jemalloc's, whose memory comes from the managed addresses (core_calls.c, run_heap_mmap); or, for the runtime itself, the
 * private heap.
 *
 * jemalloc rather than an allocator that keeps its lists in the blocks that are free: those would be read back from the disk to be given out.
 */
#define _GNU_SOURCE
#include "run/sites.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* jemalloc's, by the names that setup.py gives them. */
void *run_je_malloc(size_t bytes);
void *run_je_calloc(size_t count, size_t bytes);
void *run_je_realloc(void *block, size_t bytes);
void run_je_free(void *block);
void *run_je_memalign(size_t alignment, size_t bytes);
int run_je_posix_memalign(void **block, size_t alignment, size_t bytes);
void *run_je_aligned_alloc(size_t alignment, size_t bytes);
size_t run_je_malloc_usable_size(void *block);
int run_je_mallctl(const char *name, void *old, size_t *old_bytes, void *fresh, size_t fresh_bytes);

/* Never by brk: that memory is not managed. What is free goes back after a second: a page that is thrown away costs a fault when it is used again, and one that is
 * kept may be written to the disk in vain. */
const char *run_je_malloc_conf = "dss:disabled,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:false";

#define PAGE_MASK (PAGE_BYTES - 1)

/* Who has a large block, for the report. */
static inline void *noted(void *block, size_t bytes, const void *caller) {
    if (unlikely(bytes >= SITE_LEAST_BYTES))
        run_sites_note(block, bytes, caller);
    return block;
}

/* The loader's blocks are small, but for those that threads have their variables in. */
#define LOADER_MOST_BYTES ((size_t)16 << 10)

/* What the runtime asks for, or the loader, whose list of libraries each thread that starts looks into. */
static inline bool is_private(size_t bytes, const void *caller) {
    return unlikely(run_inside) ||
           (unlikely((uintptr_t)caller - run_loader_base < run_loader_bytes) && bytes <= LOADER_MOST_BYTES);
}

EXPORT void *malloc(size_t bytes) {
    return is_private(bytes, __builtin_return_address(0))
               ? run_private_malloc(bytes)
               : noted(run_je_malloc(bytes), bytes, __builtin_return_address(0));
}

EXPORT void *calloc(size_t count, size_t bytes) {
    return is_private(count * bytes, __builtin_return_address(0))
               ? run_private_calloc(count, bytes)
               : noted(run_je_calloc(count, bytes), count * bytes, __builtin_return_address(0));
}

EXPORT void free(void *block) {
    if (unlikely(run_private_has(block)))
        run_private_free(block);
    else
        run_je_free(block);
}

/* A block that libc has made within the runtime, and the program (or libc for it: open_memstream) makes larger: it is the program's from now on. */
static void *realloc_to_program(void *block, size_t bytes) {
    void *moved = run_je_malloc(bytes);
    if (moved) {
        memcpy(moved, block, MIN_OF(bytes, run_private_size(block)));
        run_private_free(block);
    }
    return moved;
}

EXPORT void *realloc(void *block, size_t bytes) {
    if (likely(!is_private(bytes, __builtin_return_address(0))))
        return unlikely(run_private_has(block))
                   ? realloc_to_program(block, bytes)
                   : noted(run_je_realloc(block, bytes), bytes, __builtin_return_address(0));
    if (!run_private_has(block) && block) { /* the program's: it stays the program's */
        void *moved = run_private_malloc(bytes);
        if (moved)
            memcpy(moved, block, MIN_OF(bytes, run_je_malloc_usable_size(block)));
        return moved;
    }
    return run_private_realloc(block, bytes);
}

EXPORT void *reallocarray(void *block, size_t count, size_t bytes) {
    size_t all;
    if (__builtin_mul_overflow(count, bytes, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, all);
}

EXPORT void *memalign(size_t alignment, size_t bytes) {
    void *block = NULL;
    if (unlikely(alignment & (alignment - 1))) /* as glibc: the next power of two */
        alignment = alignment > SIZE_MAX / 2 + 1 ? 0 : (size_t)1 << (64 - __builtin_clzll(alignment));
    if (alignment > 0)
        block = unlikely(run_inside) ? run_private_memalign(alignment, bytes) : run_je_memalign(alignment, bytes);
    if (unlikely(!block))
        errno = alignment > 0 ? ENOMEM : EINVAL;
    return block;
}

EXPORT int posix_memalign(void **block, size_t alignment, size_t bytes) {
    if (likely(!run_inside))
        return run_je_posix_memalign(block, alignment, bytes);
    *block = run_private_memalign(alignment, bytes);
    return *block ? 0 : ENOMEM;
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes) {
    return unlikely(run_inside) ? run_private_memalign(alignment, bytes) : run_je_aligned_alloc(alignment, bytes);
}

EXPORT void *valloc(size_t bytes) {
    return memalign(PAGE_BYTES, bytes);
}

EXPORT void *pvalloc(size_t bytes) {
    if (bytes > SIZE_MAX - PAGE_MASK) {
        errno = ENOMEM;
        return NULL;
    }
    return memalign(PAGE_BYTES, (bytes + PAGE_MASK) & ~PAGE_MASK);
}

EXPORT size_t malloc_usable_size(void *block) {
    if (!block)
        return 0;
    return run_private_has(block) ? run_private_size(block) : run_je_malloc_usable_size(block);
}

#ifdef __clang__
#define ALSO(name) __attribute__((alias(#name)))
#else
#define ALSO(name) __attribute__((alias(#name), copy(name)))
#endif

/* glibc's own names, by which some programs call past a malloc in front of it: their blocks, too, come to our free. */
EXPORT void *__libc_malloc(size_t bytes) ALSO(malloc);
EXPORT void *__libc_calloc(size_t count, size_t bytes) ALSO(calloc);
EXPORT void *__libc_realloc(void *block, size_t bytes) ALSO(realloc);
EXPORT void *__libc_memalign(size_t alignment, size_t bytes) ALSO(memalign);
EXPORT void __libc_free(void *block) ALSO(free);

/* => what is free goes back to the pool. */
EXPORT int malloc_trim(size_t keep) {
    (void)keep;
    return run_je_mallctl("arena.4096.purge", NULL, NULL, NULL, 0) == 0; /* 4096: MALLCTL_ARENAS_ALL */
}

/* ---- where jemalloc's memory comes from ---- */

void *run_heap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
void *run_heap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (!run_pool || run_inside || fd >= 0)
        return run_core_mmap(address, bytes, protection, flags, fd, offset);
    return MANAGED(run_space_map(SPACE_HEAP, bytes, protection, flags & ~MAP_NORESERVE, address));
}

int run_heap_munmap(void *address, size_t bytes);
int run_heap_munmap(void *address, size_t bytes) {
    return run_space_has(address, bytes) ? MANAGED(run_space_unmap(address, bytes)) : run_core_munmap(address, bytes);
}

int run_heap_mprotect(void *address, size_t bytes, int protection);
int run_heap_mprotect(void *address, size_t bytes, int protection) {
    return run_space_has(address, bytes) ? MANAGED(run_space_protect(address, bytes, protection))
                                         : run_core_mprotect(address, bytes, protection);
}

int run_heap_madvise(void *address, size_t bytes, int advice);
int run_heap_madvise(void *address, size_t bytes, int advice) {
    return run_space_has(address, bytes) ? MANAGED(run_space_advise(address, bytes, advice))
                                         : run_core_madvise(address, bytes, advice);
}
