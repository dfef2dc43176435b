#include "reclaim/inactive.h"

#include "frame/drop_mapped.h"
#include "reclaim/reclaimer.h"
#include "reclaim/sealed.h"
#include "swap/page_in_ahead.h"
#include "swap/swap_cache.h"

/* Frames kept clean, as a share of the limit, and the bound of that: what a fast disk writes in some 50 ms. */
#define INACTIVE_SHARE 8
#define INACTIVE_FRAMES_MAX 16384

uint64_t inactive_target(uswap_pool *pool) {
    uint64_t limit = atomic_load_explicit(&pool->frames.budget->limit_frames, memory_order_relaxed);
    return pool->options.write_ahead ? MIN_OF(limit / INACTIVE_SHARE, (uint64_t)INACTIVE_FRAMES_MAX) : 0;
}

uint64_t inactive_frames(uswap_pool *pool) {
    return ring_length(&pool->inactive) + ring_length(&pool->inactive_marked);
}

void inactive_add(uswap_pool *pool, swap_entry entry) {
    page_ref owner = swap_map_owner(pool, entry);
    region *r = region_get_by_ref(&pool->regions, owner);
    if (!r)
        return; /* its slots are being put, and the frame with them */
    stay present = stay_of(r, page_ref_page(owner));
    region_put(r);
    bool marked = swap_cache_load(pool, entry) & SLOT_MARKED;
    ring_push_page(pool, marked ? &pool->inactive_marked : &pool->inactive, present);
}

/* What one call drops. */
typedef struct {
    context *ctx;
    reclaim_ring *from; /* one of the inactive lists, or what a policy has prepared */
    frame_run run;      /* frames from the cache */
    victim sealed[DROP_MAPPED_MAX];
    uint32_t sealed_count;
    uint64_t freed;
} dropping;

static bool is_prepared(const dropping *d) {
    return d->from == &d->ctx->pool->orders.rings[ORDER_EVICT];
}

/* Context: page locked. Return: whether it was taken over with its lock and references, to be dropped with others. */
static bool add_sealed(dropping *d, region *r, size_t page, uint64_t word) {
    if (page_is_held(word) || !sealed_can_drop(d->ctx->pool, word) || !region_move_begin(r))
        return false;
    d->sealed[d->sealed_count++] = (victim){.r = r, .page = page, .word = word};
    return true;
}

/* A page that is mapped. Context and return: as add_sealed. */
static bool take_mapped(dropping *d, region *r, stay entry, uint64_t word) {
    uswap_pool *pool = d->ctx->pool;
    bool sealed = add_sealed(d, r, stay_page(entry), word), left = !sealed && !page_is_held(word);
    if (!is_prepared(d))
        STAT_SUB(pool, listed_pages, 1);
    if (left && is_prepared(d)) { /* to be written first */
        ring_push_orders(pool, &pool->orders.rings[ORDER_OUT], &entry, 1);
    } else if (left) { /* written since, or its slot is to go: it waits for its turn with the others */
        page_renew(&r->object.words[stay_page(entry)]); /* it may have other entries, where it was listed by order */
        page_came(pool, r, stay_page(entry), USWAP_EVENT_KEPT, REFAULT_NEVER);
    }
    return sealed;
}

/* Context: page locked, SWAPPED. Return: whether its frame was dropped. */
static bool drop_cached(dropping *d, region *r, stay entry, swap_entry slot) {
    uswap_pool *pool = d->ctx->pool;
    frame_id frame;
    uint64_t flags;
    /* Evicted and read ahead since, the page has still this stay; but it is not what the entry was made for. */
    if (!is_prepared(d) && !(swap_cache_load(pool, slot) & SLOT_STAYS))
        return false;
    if (!swap_cache_take(pool, slot, CACHE_CLEAN, &frame, &flags))
        return false;
    if (!frame_rest(pool, frame))
        frame_run_drop(pool, &d->run, frame);
    page_in_ahead_dropped(pool, r, stay_page(entry), flags);
    swap_cache_evicted(pool, slot, flags);
    events_note(pool, USWAP_EVENT_EVICTED, &entry, 1, REFAULT_NEVER);
    d->freed++;
    return true;
}

/* The frame is part of a huge one, of which the kernel gives the memory back only with its last part: all of it goes, in order. page: of it,
 * locked; first: its first. */
static void drop_block(dropping *d, region *r, size_t first, size_t page, frame_id block) {
    for (size_t at = first; at < first + BLOCK_PAGES; at++) {
        page_word *word = &r->object.words[at];
        if (at != page && !page_try_lock(word))
            continue;
        uint64_t now = page_load(word);
        swap_entry slot = page_entry_of(now);
        if (page_state_of(now) == PAGE_SWAPPED &&
            slot_frame_of(swap_cache_load(d->ctx->pool, slot)) == block + (frame_id)(at - first))
            drop_cached(d, r, stay_of(r, at), slot);
        if (at != page)
            page_unlock(word);
    }
}

/* Whether the page lies in the cache as part of a block of its own. */
static bool in_block(uswap_pool *pool, region *r, size_t page, swap_entry slot, size_t *first, frame_id *block) {
    uint64_t word = swap_cache_load(pool, slot);
    if (slot_state_of(word) != CACHE_CLEAN || !block_has(&pool->frames, slot_frame_of(word)) ||
        !region_block_of(r, page, first))
        return false;
    *block = block_first(&pool->frames, slot_frame_of(word));
    return slot_frame_of(word) - *block == page - *first;
}

/* Context: page locked, and still as it was when the entry was made. Return: as add_sealed. */
static bool take(dropping *d, region *r, stay entry, uint64_t word) {
    uswap_pool *pool = d->ctx->pool;
    frame_id block;
    size_t first;
    if (page_state_of(word) == PAGE_RESIDENT)
        return take_mapped(d, r, entry, word);
    if (page_state_of(word) != PAGE_SWAPPED)
        return false;
    swap_entry slot = page_entry_of(word);
    if (in_block(pool, r, stay_page(entry), slot, &first, &block)) {
        drop_block(d, r, first, stay_page(entry), block);
    } else if (!drop_cached(d, r, entry, slot) && is_prepared(d) &&
               slot_state_of(swap_cache_load(pool, slot)) == CACHE_WRITING) {
        ring_push_orders(pool, d->from, &entry, 1); /* soon */
    }
    return false;
}

static void drop_entry(dropping *d, stay entry) {
    uswap_pool *pool = d->ctx->pool;
    region *r = region_get_by_stay(&pool->regions, entry);
    if (!r)
        return;
    page_word *at = &r->object.words[stay_page(entry)];
    if (page_try_lock(at)) {
        uint64_t word = page_load(at);
        if (page_generation_of(word) == stay_generation(entry) && take(d, r, entry, word))
            return;
        page_unlock(at);
    } else if (is_prepared(d)) { /* somebody is at the page */
        ring_push_orders(pool, d->from, &entry, 1);
    } else { /* no hint, but its only entry */
        ring_push_page(pool, d->from, entry);
    }
    region_put(r);
}

static void drop_sealed(dropping *d) {
    if (d->sealed_count > 0)
        d->freed += sealed_drop(d->ctx, d->sealed, d->sealed_count, !is_prepared(d));
    d->sealed_count = 0;
}

static void drop_from(dropping *d, reclaim_ring *from, uint64_t want) {
    d->from = from;
    for (uint64_t left = ring_length(from); left > 0; left--) {
        stay entry;
        if (d->freed + d->sealed_count >= want || ring_pop(from, &entry, 1) == 0)
            break;
        drop_entry(d, entry);
        if (d->sealed_count == DROP_MAPPED_MAX)
            drop_sealed(d);
    }
    drop_sealed(d);
}

static uint64_t drop(context *ctx, uint64_t want, bool prepared_only) {
    uswap_pool *pool = ctx->pool;
    dropping d;
    d.ctx = ctx;
    d.run.count = d.sealed_count = 0;
    d.freed = 0;
    drop_from(&d, &pool->orders.rings[ORDER_EVICT], want);
    if (!prepared_only) {
        bool led = reclaimer_is_led(pool);
        drop_from(&d, led ? &pool->inactive : &pool->inactive_marked, want);
        drop_from(&d, led ? &pool->inactive_marked : &pool->inactive, want);
    }
    frame_run_end(pool, &d.run);
    return d.freed;
}

uint64_t inactive_drop(context *ctx, uint64_t want) {
    return drop(ctx, want, false);
}

uint64_t inactive_drop_prepared(context *ctx, uint64_t want) {
    return drop(ctx, want, true);
}
