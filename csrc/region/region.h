/*
 * region.h - regions, their memory objects, and the table that finds them by address or by id.
 *
 * Owns: the page words of a region, its read-ahead streams and its counts; the region table.
 * A region found through the table is referenced until region_put: its page words stay valid, and destroy waits.
 */
#ifndef USWAP_REGION_REGION_H
#define USWAP_REGION_REGION_H

#include "base/base.h"
#include "base/lock.h"
#include "frame/arena.h"
#include "region/page_word.h"
#include "swap/read_ahead.h"

#define REGIONS_MAX 16384
#define REGION_NAME_BYTES 64
/* Page words in a 4 KiB of metadata: what memory_object.touched counts by. */
#define PAGE_WORDS_PER_CHUNK (PAGE_BYTES / sizeof(page_word))

/* A page of a region in one word: what the reverse map holds.
 * page 36 bits (256 TiB), generation of the region 12 bits, index in the table 16 bits. */
typedef struct {
    uint64_t value;
} page_ref;

/* The contents of a region, by page; a region maps one object. */
typedef struct {
    page_word *words;
    _Atomic size_t pages;
    size_t capacity;          /* pages that there is address space for; what is beyond pages is ZERO */
    _Atomic uint8_t *touched; /* one byte a 4 KiB of words: metadata counted, and worth looking at */
    _Atomic uint8_t
        *huge; /* one byte a block of addresses: it went in as a whole, so it is worth taking out as a whole */
} memory_object;

typedef enum { REGION_FREE = 0, REGION_LIVE = 1, REGION_DYING = 2 } region_state;

/* README, Resizing: WAITS: no API call gets in; STILL: the gate is closed too, and nobody refers to the region. */
typedef enum { RESIZING_NOT = 0, RESIZING_WAITS = 1, RESIZING_STILL = 2 } region_resizing;

typedef struct region {
    _Atomic uint32_t state;      /* a region_state; t */
    _Atomic uint32_t references; /* threads in the core that use it */
    _Atomic uint32_t quiesced;   /* 1: nothing is moved out (uswap_region_quiesce) */
    _Atomic uint32_t movers;     /* threads that change mappings by the region's addresses */
    _Atomic uint32_t advice;     /* NORMAL, RANDOM or SEQUENTIAL */
    _Atomic uint32_t resizing;   /* a region_resizing */
    uint32_t index;
    uint32_t generation;
    int uffd;                    /* watches its addresses: the pool's, or the one of its inline regions */
    unsigned char *_Atomic base; /* t; searches look at it without */
    memory_object object;
    size_t
        room_pages; /* addresses from base on that are mapped for it: those beyond object.pages without access. Under api_lock */
    size_t promised_pages; /* room that stays when it shrinks. Under api_lock */
    uint64_t reserved_slots;
    _Atomic uint64_t mapped_pages;
    _Atomic uint64_t swapped_pages;
    _Atomic uint64_t locked_pages;
    _Atomic uint64_t poisoned_pages;
    _Atomic uint64_t faults;
    _Atomic uint64_t
        *waited; /* ns that faults have waited, for each block of addresses; NULL: nobody wants to know (run/) */
    _Atomic int32_t written_score; /* how often pages are written soon after they came, of late (reclaim/sealed.c) */
    _Atomic uint32_t seal_turn;
    read_ahead ahead; /* streams of swapped pages */
    read_ahead fresh; /* streams of first touches */
    read_ahead soft;  /* streams of touches of inactive pages */
    char name[REGION_NAME_BYTES];
} region; /* t: under table_lock */

typedef struct {
    small_lock lock;
    region *regions;              /* [REGIONS_MAX], lazily touched */
    _Atomic uint32_t *by_address; /* t: indexes of live regions, sorted by base */
    _Atomic uint32_t live;        /* t */
    _Atomic uint32_t changing;    /* t: odd while by_address is being changed */
    _Atomic uint32_t highest;     /* t: indexes at or above were never used */
    _Atomic uint64_t pages;       /* t: sum of sizes */
} region_table;                   /* t: under lock */

int region_table_init(region_table *table);
void region_table_fini(region_table *table);

/* Bytes of memory_object.touched and .huge. */
size_t region_touched_bytes(size_t pages);
size_t region_huge_bytes(size_t pages);

/* The region at this address, referenced; NULL if it is none of ours. Takes no lock: threads that fault at once do not wait for each
 * other, and a signal handler may ask. */
region *region_get_by_address(region_table *table, uintptr_t address);
/* By page_ref or exported id; NULL if it is gone (index reused or dying). */
region *region_get_by_ref(region_table *table, page_ref ref);
region *region_get_by_id(region_table *table, uint64_t id);
/* The same, for callers from outside the gate: waits while it is being resized. */
region *region_get_settled(region_table *table, uint64_t id);
void region_put(region *r);
/* Whether a region that is being closed lies there: its memory is about to be ordinary again. */
bool region_is_leaving(region_table *table, uintptr_t address);

/* Context: pool.api_lock. Return: 0, -EEXIST (overlaps), -ENFILE (table full), -ENOMEM. Not findable until _publish. */
int region_table_add(region_table *table, unsigned char *base, size_t pages, const char *name, region **out);
void region_table_publish(region_table *table, region *r);
/* => not findable any more; returns when nobody else refers to it. Context: caller holds no reference, no lock. */
void region_table_retire(region_table *table, region *r);
/* Other addresses, or another size, for a live region, seen together. Context: pool.api_lock; to move or shrink, the region is still. */
void region_table_move(region_table *table, region *r, unsigned char *base, size_t pages);
/* Whether a region that is not r (NULL: any) lies there, also one whose owner has unmapped it already. */
bool region_table_overlaps(region_table *table, const region *r, const unsigned char *base, size_t bytes);
/* Room for the words of so many pages. Return: 0 or -ENOMEM. Context: pool.api_lock; the region is still. */
int region_extend(region *r, size_t pages);
/* => index free for reuse with a new generation. */
void region_table_remove(region_table *table, region *r);

/* Brackets whatever changes mappings by address and not through the uffd (page-out, discard, mprotect): once the caller of
 * uswap_region_quiesce has unmapped, those addresses may be somebody else's. Return: false if the region is quiesced. */
bool region_move_begin(region *r);
void region_move_end(region *r);
/* => the region is still (README, Resizing), until region_go_on. wait_ns: 0: as long as it takes. Return: false: it did not become so in
 * that time, and nothing has changed. Context: pool.api_lock, outside the gate, no reference held. (region_still.c) */
struct uswap_pool;
bool region_still(struct uswap_pool *pool, region *r, uint64_t wait_ns);
void region_go_on(struct uswap_pool *pool, region *r);
/* Sleeps while it is being resized; may return early. Context: any, signal handlers too. */
void region_await_settled(region *r, region_resizing least);

/* => no mover is inside, none gets in. */
void region_quiesce(region *r);

static inline uint64_t region_id(const region *r) {
    return (uint64_t)r->generation << 16 | r->index;
}

static inline page_ref page_ref_in(uint64_t region_id, uint64_t page) {
    return (page_ref){page << 28 | (region_id & ((UINT64_C(1) << 28) - 1))};
}

static inline page_ref page_ref_of(const region *r, size_t page) {
    return page_ref_in(region_id(r), page);
}

static inline size_t page_ref_page(page_ref ref) {
    return (size_t)(ref.value >> 28);
}

/* The page n pages further in the same region. */
static inline page_ref page_ref_after(page_ref ref, uint64_t n) {
    return (page_ref){ref.value + (n << 28)};
}

/* The block of addresses that the page lies in: *first is its first page. Return: false if it is not wholly in the region. */
bool region_block_of(const region *r, size_t page, size_t *first);
/* What the kernel may map there by one huge page: a hint, for page-out. */
bool region_is_huge(const region *r, size_t first);
void region_set_huge(region *r, size_t first, bool huge);

static inline unsigned char *region_address(const region *r, size_t page) {
    return r->base + (page << PAGE_SHIFT);
}

#endif
