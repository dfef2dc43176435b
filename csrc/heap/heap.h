/*
 * heap.h - blocks of any size on a pool's memory (csrc/README.md, Heap).
 *
 * Owns: the regions behind the blocks, which it makes, resizes and ends by the public API; nothing of the core knows it. What it notes about blocks
 * lies outside managed memory, but for what the small allocator keeps in its own slabs.
 */
#ifndef USWAP_HEAP_HEAP_H
#define USWAP_HEAP_HEAP_H

#include "base/base.h"
#include "base/gate.h"
#include "base/lock.h"

/* Spans begin at multiples of a granule, and sheets are made of whole ones: the granule of an address names its span. It is the core's block too. */
#define HEAP_GRANULE_SHIFT 21
#define HEAP_GRANULE_BYTES ((size_t)1 << HEAP_GRANULE_SHIFT)
#define HEAP_UNIT_SHIFT 16
#define HEAP_UNIT_BYTES ((size_t)1 << HEAP_UNIT_SHIFT)
#define HEAP_SHEET_UNITS 1024
#define HEAP_SHEET_BYTES (HEAP_SHEET_UNITS * HEAP_UNIT_BYTES)
#define HEAP_LEAST_SHEET_BYTES (4 * HEAP_GRANULE_BYTES)
/* Blocks below it are the small allocator's, from it on they are runs of units ... */
#define HEAP_RUN_BYTES ((size_t)128 << 10)
/* ... and from here on they have a region each: making one takes 50 us, filling one this large 4 ms. */
#define HEAP_LARGE_BYTES ((size_t)8 << 20)
/* Freed runs that keep their frames for a moment, for programs that make the same temporary again and again. */
#define HEAP_STALE_RUNS 16
#define HEAP_STALE_BYTES ((size_t)16 << 20)
#define HEAP_STALE_SHARE 32 /* of the limit, at most */
/* Small blocks that wait to be freed together: a MiB of addresses. */
#define HEAP_LATER_BLOCKS 131072
/* Together they take no more swap space than that. */
#define HEAP_LATER_BYTES ((size_t)128 << 20)
/* What a block counts whose size nobody has said. */
#define HEAP_LATER_GUESS_BYTES ((size_t)8 << 10)
#define HEAPS_MAX 64

/* What a unit of a sheet is. */
typedef enum { UNIT_FREE, UNIT_FIRST, UNIT_REST, UNIT_SMALL } unit_use;

/* A region of a heap: a sheet, cut into runs of units, or a single large block. Fields: l: under the heap's lock. */
typedef struct heap_span {
    uswap_heap *heap;
    struct heap_span *next, *previous; /* l: in heap.spans */
    uint64_t region;
    uint64_t address; /* these two as in uswap_mapping */
    int64_t length;
    bool large;
    bool dirty;                       /* l: something could not be discarded: what is free need not be zero */
    uint32_t units;                   /* 0 if large */
    uint32_t units_free;              /* l */
    uint32_t longest;                 /* l: no free run is longer; it may be shorter */
    uint8_t use[HEAP_SHEET_UNITS];    /* l: a unit_use; of a unit in use, its user's to read */
    uint16_t pages[HEAP_SHEET_UNITS]; /* l: at UNIT_FIRST: what the block takes */
} heap_span;

typedef struct {
    heap_span *span;
    uint32_t unit, units;
    uint32_t pages; /* of them, from the first on, those that may hold something */
} heap_run;

typedef struct {
    small_lock lock;
    void **blocks;  /* later.lock */
    uint32_t count; /* later.lock */
    size_t bytes;   /* later.lock: as far as is known */
} later_list;

/* What NumPy expects behind a "mem_handler" capsule (NEP 49, version 1). Fixed by NumPy's ABI since 1.22. */
typedef struct {
    char name[127];
    uint8_t version;
    struct {
        void *ctx;
        void *(*malloc)(void *ctx, size_t size);
        void *(*calloc)(void *ctx, size_t count, size_t size);
        void *(*realloc)(void *ctx, void *block, size_t size);
        void (*free)(void *ctx, void *block, size_t size);
    } allocator;
} numpy_handler;

struct uswap_heap {
    numpy_handler handler;
    uswap_pool *pool;
    gate gate;               /* closed by a fork, and at the end */
    _Atomic uint32_t refuse; /* no new blocks */
    _Atomic uint32_t lost;   /* this process is a child without the pool: blocks must not be touched */
    _Atomic uint64_t blocks; /* in use */
    void *small;             /* the small allocator's pool */
    later_list later;
    _Atomic uint32_t frees;         /* of small blocks; wraps around */
    _Atomic uint32_t something_out; /* when last looked */
    _Atomic uintptr_t looked_at;    /* a page, and in bit 0 whether it was out */
    small_lock lock;
    heap_span *spans;                /* l */
    heap_run stale[HEAP_STALE_RUNS]; /* l: oldest first */
    uint32_t stale_count;            /* l */
    size_t stale_bytes, stale_limit; /* l */
};

/* ---- heap_span.c: regions come and go, and are found ---- */

/* Return: NULL: no swap space, no address space, closed. Context: heap.lock. */
heap_span *heap_span_make(uswap_heap *h, size_t bytes, bool large);
/* Context: heap.lock, or nobody else is in the heap; no block is left in it. */
void heap_span_end(heap_span *span);
/* The span an address lies in, of any heap; NULL: it is nobody's. Only of addresses that are in use is the answer good for longer than a moment. */
heap_span *heap_span_find(const void *address);
/* A large span gets another length, and perhaps another address. Return: the address; NULL: it cannot be, and nothing has changed. */
void *heap_span_resize(heap_span *span, size_t bytes);
/* Contents thrown away, frames and slots given back. Return: false: they could not be. */
bool heap_discard(const heap_span *span, size_t first_byte, size_t bytes);

/* ---- heap_run.c: runs of units in sheets ---- */

/* use: UNIT_FIRST or UNIT_SMALL. Return: the address, or NULL. zeroed: asked for; => whether it is so. */
void *heap_run_take(uswap_heap *h, size_t bytes, unit_use use, bool *zeroed);
void heap_run_free(heap_span *span, void *address);
void heap_run_free_small(heap_span *span, void *address, size_t bytes);
size_t heap_run_bytes(const heap_span *span, const void *address);
/* In place. Return: false: it cannot be, and nothing has changed. */
bool heap_run_resize(heap_span *span, void *address, size_t bytes);

/* ---- heap_small.c: the small allocator ---- */

bool heap_small_there(void);
int heap_small_make(uswap_heap *h, uswap_error *err);
void heap_small_end(uswap_heap *h);
void *heap_small_malloc(uswap_heap *h, size_t bytes);
void *heap_small_realloc(uswap_heap *h, void *block, size_t bytes);
size_t heap_small_bytes(uswap_heap *h, void *block);
void heap_small_free(uswap_heap *h, void *block);

/* ---- heap_later.c: small blocks that are out ---- */

/* bytes: its size, or 0: not known. Return: false: free it now. */
bool heap_free_later(uswap_heap *h, void *block, size_t bytes);
/* Context: the small allocator's pool has ended. */
void heap_later_end(uswap_heap *h);

/* ---- heap_fork.c: the list of heaps, and forks ---- */

int heap_list_add(uswap_heap *h);
/* Context: heap_hold_forks. */
void heap_list_remove(uswap_heap *h);
void heap_hold_forks(void);
void heap_allow_forks(void);

/* ---- heap.c ---- */

void *heap_malloc(uswap_heap *h, size_t bytes, bool zeroed);
void *heap_realloc(uswap_heap *h, void *block, size_t bytes);
/* bytes: its size as far as the caller knows, or 0. Only a hint. */
void heap_free(uswap_heap *h, void *block, size_t bytes);

/* ---- numpy_handler.c ---- */

void heap_fill_handler(uswap_heap *h);

#endif
