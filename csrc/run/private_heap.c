/*
 * private_heap.c - what libc allocates while the runtime is at work: in ordinary memory, without a lock.
 *
 * The child of a fork starts its threads while jemalloc's locks are still held, and with nobody to serve faults: what they and pthread_create touch must lie
 * here. Blocks have sizes of powers of two; what is free lies in a list for each size, whose head is changed by one compare-and-swap: a fork may come
 * at any instruction, and its child goes on with what it finds.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define HEAP_BYTES ((size_t)64 << 20)
#define UNIT 16 /* alignment, and what a free list counts in */
#define LEAST_SHIFT 5
#define CLASSES 22 /* of 32 bytes to 64 MiB */

/* Before each block. */
typedef struct {
    uint32_t class, offset; /* of the block in the list's units, for a block that is aligned further */
    size_t bytes;
} header;

static unsigned char *_Atomic heap;
static _Atomic size_t used;
/* The first free block of a class in units (0: none), and how often that has changed: who finds the same block there again sees whether it is the same list. */
static _Atomic uint64_t free_blocks[CLASSES];

static unsigned char *base(void) {
    unsigned char *memory = atomic_load(&heap);
    if (memory)
        return memory;
    unsigned char *fresh =
        run_core_mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fresh == MAP_FAILED)
        return NULL;
    if (atomic_compare_exchange_strong(&heap, &memory, fresh))
        return fresh;
    run_core_munmap(fresh, HEAP_BYTES);
    return memory;
}

static unsigned class_of(size_t bytes) {
    unsigned class = 0;
    while ((size_t)1 << (class + LEAST_SHIFT) < bytes)
        class ++;
    return class;
}

static uint64_t *next_of(uint64_t unit) {
    return (uint64_t *)(atomic_load(&heap) + unit * UNIT);
}

/* Return: a free block of that class in units; 0: there is none. */
static uint64_t pop(unsigned class) {
    uint64_t head = atomic_load(&free_blocks[class]);
    while ((uint32_t)head != 0) {
        uint64_t after = *next_of((uint32_t)head); /* of no use if somebody was faster */
        if (atomic_compare_exchange_weak(&free_blocks[class], &head, ((head >> 32) + 1) << 32 | (uint32_t)after))
            return (uint32_t)head;
    }
    return 0;
}

static void push(unsigned class, uint64_t unit) {
    uint64_t head = atomic_load(&free_blocks[class]);
    do
        *next_of(unit) = (uint32_t)head;
    while (!atomic_compare_exchange_weak(&free_blocks[class], &head, ((head >> 32) + 1) << 32 | unit));
}

/* Return: a block of that class in units, new or free; 0: there is none. The first unit is nobody's. */
static uint64_t take(unsigned class) {
    uint64_t unit = pop(class);
    size_t bytes = (size_t)1 << (class + LEAST_SHIFT), at = atomic_load(&used);
    while (unit == 0) {
        size_t start = MAX_OF(at, (size_t)UNIT);
        if (bytes > HEAP_BYTES - start)
            return 0;
        if (atomic_compare_exchange_weak(&used, &at, start + bytes))
            unit = start / UNIT;
    }
    return unit;
}

static header *header_of(const void *block) {
    return (header *)(uintptr_t)block - 1;
}

void *run_private_memalign(size_t alignment, size_t bytes) {
    size_t room = sizeof(header) + (alignment > UNIT ? alignment : 0);
    unsigned char *memory = bytes < HEAP_BYTES - room ? base() : NULL;
    unsigned class = memory ? class_of(bytes + room) : CLASSES;
    uint64_t unit = class < CLASSES ? take(class) : 0;
    if (unit == 0) {
        errno = ENOMEM;
        return NULL;
    }
    uintptr_t block = (uintptr_t)memory + unit * UNIT + sizeof(header);
    if (alignment > UNIT)
        block = (block + alignment - 1) & ~(uintptr_t)(alignment - 1);
    *header_of((void *)block) = (header){.class = class, .offset = (uint32_t)unit, .bytes = bytes};
    return (void *)block;
}

void *run_private_malloc(size_t bytes) {
    return run_private_memalign(UNIT, bytes);
}

void *run_private_calloc(size_t count, size_t bytes) {
    size_t all;
    if (__builtin_mul_overflow(count, bytes, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    void *block = run_private_malloc(all);
    return block ? memset(block, 0, all) : NULL;
}

void run_private_free(void *block) {
    if (block)
        push(header_of(block)->class, header_of(block)->offset);
}

void *run_private_realloc(void *block, size_t bytes) {
    void *moved = run_private_malloc(bytes);
    if (moved && block) {
        memcpy(moved, block, MIN_OF(bytes, run_private_size(block)));
        run_private_free(block);
    }
    return moved;
}

bool run_private_has(const void *block) {
    const unsigned char *memory = atomic_load_explicit(&heap, memory_order_relaxed);
    return memory && (uintptr_t)block - (uintptr_t)memory < HEAP_BYTES;
}

size_t run_private_size(const void *block) {
    return header_of(block)->bytes;
}
