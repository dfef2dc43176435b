/*
 * region_verify.c - looking at pages without touching them: their class, and whether their slots hold what they should.
 */
#include "base/failpoint.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/io.h"
#include "region/region_range.h"
#include "swap/swap_cache.h"

#include <errno.h>

/* What a slot is found to be; or an errno: lost, as lost_because has it. */
enum { SLOT_GOOD = 0, SLOT_CHANGED = -1 };

/* Reads the slot of a swapped page into *memory and compares. The page may come in, change and leave meanwhile, and the slot be
 * reused: then the page word is another one, and there is nothing to say. */
static int verify_slot(context *ctx, page_word *at, uint64_t word, void *memory) {
    uswap_pool *pool = ctx->pool;
    swap_entry entry = page_entry_of(word);
    page_hash expected = swap_map_hash(pool, entry);
    FAILPOINT(verify_slot);
    int status = io_page(&ctx->io, IO_READ, pool->areas[swap_entry_area(entry)].fd, memory, entry);
    page_hash found = page_hash_of(memory, pool->hash_seed);
    uint64_t same = PAGE_STATE_MASK | PAGE_GENERATION_MASK | ~UINT64_C(0) << PAGE_FIELD_SHIFT;
    if ((page_load(at) & same) != (word & same) || slot_state_of(swap_cache_load(pool, entry)) != CACHE_NONE)
        return SLOT_CHANGED;
    if (status != 0)
        return -status;
    return expected.low == found.low && expected.high == found.high ? SLOT_GOOD : EBADMSG;
}

static int verify_page(context *ctx, region *r, size_t page, void *memory) {
    uswap_pool *pool = ctx->pool;
    page_word *at = &r->object.words[page];
    int found;
    do {
        gate_enter(&pool->gate); /* the area of an entry seen inside is open */
        uint64_t word = page_load(at);
        if (page_state_of(word) == PAGE_POISONED)
            found = page_errno_of(word);
        else if (page_state_of(word) != PAGE_SWAPPED ||
                 slot_state_of(swap_cache_load(pool, page_entry_of(word))) != CACHE_NONE)
            found = SLOT_GOOD; /* in memory, or on its way: whoever reads it compares the hash */
        else
            found = verify_slot(ctx, at, word, memory);
        gate_leave(&pool->gate);
    } while (found == SLOT_CHANGED);
    return found;
}

static int verify(context *ctx, region_range *range, void *memory, uswap_error *err) {
    for (size_t page = range->first, end = page + range->count; page < end;) {
        bool touched;
        size_t left = region_range_chunk(range, page, &touched);
        for (size_t i = 0; touched && i < left; i++) {
            int found = verify_page(ctx, range->r, page + i, memory);
            if (found != SLOT_GOOD)
                return region_lost(err, "verify", range->r, page + i, found);
        }
        page += left;
    }
    return 0;
}

EXPORT int uswap_region_verify(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes,
                               uswap_error *err) {
    region_range range;
    int status = region_range_begin(&range, pool, id, start_bytes, length_bytes, RANGE_TOUCHED, err);
    if (status != 0)
        return status;
    void *memory = memory_map(PAGE_BYTES);
    if (memory) {
        context *ctx = context_borrow(pool); /* for its codec */
        status = verify(ctx, &range, memory, err);
        context_return(ctx);
    } else {
        status = error_set(err, USWAP_E_NO_MEMORY, ENOMEM, "mmap", NULL, "out of memory");
    }
    memory_unmap(memory, PAGE_BYTES);
    region_range_end(&range);
    return status;
}

static uswap_page_class class_of(uswap_pool *pool, uint64_t word) {
    switch (page_state_of(word)) {
    case PAGE_ZERO:
        return USWAP_PAGE_ZERO;
    case PAGE_RESIDENT:
        return USWAP_PAGE_RESIDENT;
    case PAGE_POISONED:
        return USWAP_PAGE_POISONED;
    case PAGE_FILLED:
        return USWAP_PAGE_FILLED;
    case PAGE_SWAPPED:
        break;
    }
    return slot_state_of(swap_cache_load(pool, page_entry_of(word))) == CACHE_NONE ? USWAP_PAGE_SWAPPED
                                                                                   : USWAP_PAGE_CACHED;
}

/* The page word, when nobody is at the page: who is woken by the mapping of a page runs on before its word says so. */
static uint64_t settled(uswap_pool *pool, page_word *at) {
    uint64_t word = page_load(at);
    if (!(word & PAGE_LOCK))
        return word;
    gate_enter(&pool->gate);
    page_lock(at);
    word = page_load(at);
    page_unlock(at);
    gate_leave(&pool->gate);
    return word;
}

EXPORT int uswap_region_page_classes(uswap_pool *pool, uint64_t id, uint64_t first_page, uint64_t pages,
                                     uint8_t *classes, uswap_error *err) {
    region_range range;
    if (first_page >> 52 || pages >> 52)
        return error_set(err, USWAP_E_INVALID, 0, "page_classes", NULL, "no region has that many pages");
    int status =
        region_range_begin(&range, pool, id, first_page << PAGE_SHIFT, pages << PAGE_SHIFT, RANGE_TOUCHED, err);
    if (status != 0)
        return status;
    /* The caller's buffer may be managed memory: no lock is held here, and a fault on it is served like any other. */
    for (size_t i = 0; i < range.count; i++)
        classes[i] = (uint8_t)class_of(pool, settled(pool, &range.r->object.words[range.first + i]));
    region_range_end(&range);
    return 0;
}
