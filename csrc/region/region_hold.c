/*
 * region_hold.c - pages that stay: uswap_region_lock and _pin, and bringing a page in without touching it.
 *
 * A held page is RESIDENT and never chosen for eviction. It is marked first and fetched then, so that it cannot leave in between.
 */
#include "base/memory.h"
#include "base/status.h"
#include "fault/bring_in.h"
#include "reclaim/sealed.h"
#include "region/region_range.h"
#include "swap/swap_cache.h"

#include <errno.h>

typedef enum { HOLD_LOCK, HOLD_PIN } hold_kind;

/* Brings one page in. Returns as bring_in. The page is held: in, it stays. */
static int fetch(context *ctx, region *r, size_t page) {
    page_word *at = &r->object.words[page];
    while (page_state_of(page_load(at)) != PAGE_RESIDENT) {
        int status = bring_in(ctx, r, page, true, SHORTAGE_GIVE_UP);
        if (status != 0)
            return status;
    }
    return 0;
}

/* Return: 0, *fresh: whether this call holds the page (one that is locked is not locked again); -EMFILE: too many pins. */
static int mark(uswap_pool *pool, region *r, size_t page, hold_kind kind, bool *fresh) {
    page_word *at = &r->object.words[page];
    size_t chunk = page / PAGE_WORDS_PER_CHUNK;
    int status = 0;
    *fresh = true;
    metadata_touch(pool, r->object.touched, chunk, chunk);
    page_lock(at);
    uint64_t word = page_load(at);
    if (page_is_sealed(word)) /* a held page is not to fault, and is not sealed while it is held */
        unseal_page(r, page, false);
    if (kind == HOLD_LOCK && (word & PAGE_MLOCKED)) {
        *fresh = false;
    } else if (kind == HOLD_LOCK) {
        page_set_bits(at, 0, PAGE_MLOCKED);
        atomic_fetch_add(&r->locked_pages, 1);
        STAT_ADD(pool, locked_pages, 1);
    } else if (kind == HOLD_PIN && page_pins_of(word) < PAGE_PINS_MAX) {
        page_set_bits(at, PAGE_PIN_MASK, (word & PAGE_PIN_MASK) + PAGE_PIN_ONE);
        if (page_pins_of(word) == 0)
            STAT_ADD(pool, pinned_pages, 1);
    } else if (kind == HOLD_PIN) {
        status = -EMFILE;
    }
    page_unlock(at);
    return status;
}

/* The ring may have dropped the entry of a held page (I10). Context: page locked. */
static void enter_ring(uswap_pool *pool, region *r, size_t page, uint64_t word) {
    page_word *at = &r->object.words[page];
    if (page_state_of(word) == PAGE_RESIDENT)
        page_renew(at); /* an entry of before may still be in the ring */
    else if (page_state_of(word) != PAGE_SWAPPED ||
             slot_state_of(swap_cache_load(pool, page_entry_of(word))) != CACHE_CLEAN)
        return; /* no frame; or the end of its read makes the entry, for this generation */
    page_came(pool, r, page, USWAP_EVENT_KEPT, REFAULT_NEVER);
}

/* Context: page may be in any state. Pages that were not held are left alone. */
static void unmark(uswap_pool *pool, region *r, size_t page, hold_kind kind) {
    page_word *at = &r->object.words[page];
    page_lock(at);
    uint64_t word = page_load(at);
    if (kind == HOLD_LOCK && (word & PAGE_MLOCKED)) {
        page_set_bits(at, PAGE_MLOCKED, 0);
        atomic_fetch_sub(&r->locked_pages, 1);
        STAT_SUB(pool, locked_pages, 1);
    } else if (kind == HOLD_PIN && page_pins_of(word) > 0) {
        page_set_bits(at, PAGE_PIN_MASK, (word & PAGE_PIN_MASK) - PAGE_PIN_ONE);
        if (page_pins_of(word) == 1)
            STAT_SUB(pool, pinned_pages, 1);
    }
    uint64_t now = page_load(at);
    if (page_is_held(word) && !page_is_held(now))
        enter_ring(pool, r, page, now);
    page_unlock(at);
}

static void unmark_range(region_range *range, hold_kind kind) {
    gate_enter(&range->pool->gate);
    for (size_t page = range->first; page < range->first + range->count; page++)
        unmark(range->pool, range->r, page, kind);
    gate_leave(&range->pool->gate);
}

/* Which pages of a range one call holds, a bit each: if it fails, these and no others are let go. */
typedef struct {
    unsigned char *bits;
    size_t bytes;
} held_pages;

static void unmark_held(region_range *range, const held_pages *held, hold_kind kind) {
    gate_enter(&range->pool->gate);
    for (size_t i = 0; i < range->count; i++)
        if (held->bits[i / 8] >> (i % 8) & 1)
            unmark(range->pool, range->r, range->first + i, kind);
    gate_leave(&range->pool->gate);
}

static int check_room(region_range *range, uswap_error *err) {
    uswap_pool *pool = range->pool;
    const frame_budget *budget = pool->frames.budget;
    uint64_t held = STAT_GET(pool, locked_pages) + STAT_GET(pool, pinned_pages) + range->count;
    uint64_t keep = RESERVE_FRAMES + HOLD_LEAVES_FRAMES + pool->bounce_frames + atomic_load(&budget->metadata_frames);
    if (held + keep <= atomic_load(&budget->limit_frames))
        return 0;
    return error_set(err, USWAP_E_LIMIT, 0, "lock", NULL,
                     "locking %llu bytes would leave too little of the limit of %llu bytes (%llu are locked or pinned "
                     "already): raise the limit or lock less",
                     (unsigned long long)(range->count << PAGE_SHIFT),
                     (unsigned long long)(atomic_load(&budget->limit_frames) << PAGE_SHIFT),
                     (unsigned long long)((held - range->count) << PAGE_SHIFT));
}

static int hold_error(region_range *range, size_t page, int status, uswap_error *err) {
    unsigned long long offset = (unsigned long long)page << PAGE_SHIFT;
    int result;
    if (status == -EIO)
        result = region_lost(err, "read", range->r, page, page_errno_of(page_load(&range->r->object.words[page])));
    else if (status == -EMFILE)
        result =
            error_set(err, USWAP_E_INVALID, 0, "pin", NULL, "a page can be pinned at most %d times", PAGE_PINS_MAX);
    else if (status == -ENOMEM)
        result = error_set(
            err, USWAP_E_LIMIT, 0, "pin", NULL,
            "no frame could be freed for the range: swap is full, or the kernel has pinned what is in memory");
    else
        result = error_set(err, USWAP_E_OS, -status, "pin", NULL, "region '%s', offset %llu is not mapped any more",
                           range->r->name, offset);
    if (err)
        err->offset = offset;
    return result;
}

/* Return: 0 or what failed at page *failed (of the range). */
static int hold_each(region_range *range, held_pages *held, hold_kind kind, size_t *failed) {
    context *ctx = context_borrow(range->pool);
    int status = 0;
    for (size_t i = 0; i < range->count && status == 0; i++) {
        bool fresh = false;
        *failed = i;
        gate_enter(&range->pool->gate);
        status = mark(range->pool, range->r, range->first + i, kind, &fresh);
        gate_leave(&range->pool->gate);
        if (status == 0) {
            held->bits[i / 8] |= (unsigned char)(fresh << (i % 8));
            status = fetch(ctx, range->r, range->first + i);
        }
    }
    context_return(ctx);
    return status;
}

static int hold(region_range *range, hold_kind kind, uswap_error *err) {
    int status = check_room(range, err);
    if (status != 0)
        return status;
    held_pages held = {.bytes = range->count / 8 + 1};
    held.bits = memory_map(held.bytes);
    if (!held.bits)
        return error_set(err, USWAP_E_NO_MEMORY, ENOMEM, "lock", NULL,
                         "no memory to keep account of a range that long");
    size_t failed = 0;
    status = hold_each(range, &held, kind, &failed);
    if (status != 0) {
        unmark_held(range, &held, kind);
        status = hold_error(range, range->first + failed, status, err);
    }
    memory_unmap(held.bits, held.bytes);
    return status;
}

static int hold_range(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes, hold_kind kind,
                      bool on, uswap_error *err) {
    region_range range;
    int status = region_range_begin(&range, pool, id, start_bytes, length_bytes, RANGE_TOUCHED, err);
    if (status != 0)
        return status;
    if (on)
        status = hold(&range, kind, err);
    else
        unmark_range(&range, kind);
    region_range_end(&range);
    return status;
}

EXPORT int uswap_region_lock(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes,
                             uswap_error *err) {
    return hold_range(pool, id, start_bytes, length_bytes, HOLD_LOCK, true, err);
}

EXPORT int uswap_region_unlock(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes,
                               uswap_error *err) {
    return hold_range(pool, id, start_bytes, length_bytes, HOLD_LOCK, false, err);
}

EXPORT int uswap_region_pin(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes, uint8_t *held,
                            uswap_error *err) {
    int status = hold_range(pool, id, start_bytes, length_bytes, HOLD_PIN, true, err);
    *held = status == 0;
    return status;
}

EXPORT int uswap_region_unpin(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes,
                              uswap_error *err) {
    return hold_range(pool, id, start_bytes, length_bytes, HOLD_PIN, false, err);
}
