#include "reclaim/inactive.h"

#include "frame/drop_mapped.h"
#include "reclaim/sealed.h"
#include "swap/swap_cache.h"

/* Frames kept clean, as a share of the limit, and the bound of that: what a fast disk writes in some 50 ms. */
#define INACTIVE_SHARE 8
#define INACTIVE_FRAMES_MAX 16384

uint64_t inactive_target(uswap_pool *pool) {
    uint64_t limit = atomic_load_explicit(&pool->frames.budget->limit_frames, memory_order_relaxed);
    return pool->options.write_ahead ? MIN_OF(limit / INACTIVE_SHARE, (uint64_t)INACTIVE_FRAMES_MAX) : 0;
}

uint64_t inactive_frames(uswap_pool *pool) {
    return ring_length(&pool->inactive);
}

void inactive_add(uswap_pool *pool, swap_entry entry) {
    page_ref owner = swap_map_owner(pool, entry);
    region *r = region_get_by_ref(&pool->regions, owner);
    if (!r)
        return; /* its slots are being put, and the frame with them */
    stay present = stay_of(r, page_ref_page(owner));
    region_put(r);
    ring_push_page(pool, &pool->inactive, present);
}

/* What one call drops. */
typedef struct {
    context *ctx;
    frame_run run; /* frames from the cache */
    victim sealed[DROP_MAPPED_MAX];
    uint32_t sealed_count;
    uint64_t freed;
} dropping;

/* Context: page locked. Return: whether it was taken over with its lock and references, to be dropped with others. */
static bool add_sealed(dropping *d, region *r, size_t page, uint64_t word) {
    if (page_is_held(word) || !sealed_can_drop(d->ctx->pool, word) || !region_move_begin(r))
        return false;
    d->sealed[d->sealed_count++] = (victim){.r = r, .page = page, .word = word};
    return true;
}

/* Context: page locked, and still as it was when the entry was made. Return: as add_sealed. */
static bool take(dropping *d, region *r, stay entry, uint64_t word) {
    uswap_pool *pool = d->ctx->pool;
    if (page_state_of(word) == PAGE_RESIDENT)
        STAT_SUB(pool, listed_pages, 1);
    frame_id frame;
    uint64_t flags;
    if (page_state_of(word) == PAGE_RESIDENT) {
        bool sealed = add_sealed(d, r, stay_page(entry), word);
        if (!sealed &&
            !page_is_held(word)) /* written since, or its slot is to go: it waits for its turn with the others */
            pages_came(pool, &entry, 1, USWAP_EVENT_KEPT, REFAULT_NEVER);
        return sealed;
    }
    if (page_state_of(word) == PAGE_SWAPPED &&
        swap_cache_take(pool, page_entry_of(word), CACHE_CLEAN, &frame, &flags)) {
        frame_run_drop(pool, &d->run, frame);
        swap_cache_evicted(pool, page_entry_of(word), flags);
        events_note(pool, USWAP_EVENT_EVICTED, &entry, 1, REFAULT_NEVER);
        d->freed++;
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
    } else { /* somebody is at the page */
        ring_push_page(pool, &pool->inactive, entry);
    }
    region_put(r);
}

static void drop_sealed(dropping *d) {
    if (d->sealed_count > 0)
        d->freed += sealed_drop(d->ctx, d->sealed, d->sealed_count, true);
    d->sealed_count = 0;
}

/* Whether the run ends within a block: the kernel gets the memory of a huge page back only with the last part of it. */
static bool ends_inside(uswap_pool *pool, const frame_run *run) {
    return run->count > 0 && block_has(&pool->frames, run->first) &&
           block_first(&pool->frames, run->first + run->count) != run->first + run->count;
}

uint64_t inactive_drop(context *ctx, uint64_t want) {
    uswap_pool *pool = ctx->pool;
    dropping d;
    d.ctx = ctx;
    d.run.count = d.sealed_count = 0;
    d.freed = 0;
    for (uint64_t left = ring_length(&pool->inactive); left > 0; left--) {
        stay entry;
        if ((d.freed + d.sealed_count >= want && !ends_inside(pool, &d.run)) ||
            ring_pop(&pool->inactive, &entry, 1) == 0)
            break;
        drop_entry(&d, entry);
        if (d.sealed_count == DROP_MAPPED_MAX)
            drop_sealed(&d);
    }
    drop_sealed(&d);
    frame_run_end(pool, &d.run);
    return d.freed;
}
