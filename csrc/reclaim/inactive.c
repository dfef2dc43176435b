#include "reclaim/inactive.h"

#include "swap/swap_cache.h"

/* Frames kept clean, as a share of the limit, and the bound of that: what a fast disk writes in some 50 ms. */
#define INACTIVE_SHARE 8
#define INACTIVE_FRAMES_MAX 16384

uint64_t inactive_target(uswap_pool *pool) {
    uint64_t limit = atomic_load_explicit(&pool->frames.budget->limit_frames, memory_order_relaxed);
    return pool->options.write_ahead ? MIN_OF(limit / INACTIVE_SHARE, (uint64_t)INACTIVE_FRAMES_MAX) : 0;
}

uint64_t inactive_frames(uswap_pool *pool) {
    return STAT_GET(pool, inactive_pages);
}

void inactive_add(uswap_pool *pool, swap_entry entry) {
    page_ref owner = swap_map_owner(pool, entry);
    region *r = region_get_by_ref(&pool->regions, owner);
    if (!r)
        return; /* its slots are being put, and the frame with them */
    unsigned generation = page_generation_of(page_load(&r->object.words[page_ref_page(owner)]));
    region_put(r);
    ring_push_page(pool, &pool->inactive, owner, generation);
}

/* Return: whether the frame was the page's and is the caller's now. *busy: somebody is at the page. */
static bool take(uswap_pool *pool, const ring_entry *entry, frame_id *frame, bool *busy) {
    region *r = region_get_by_ref(&pool->regions, entry->page);
    *busy = false;
    if (!r)
        return false;
    page_word *at = &r->object.words[page_ref_page(entry->page)];
    bool taken = false;
    if (page_try_lock(at)) {
        uint64_t word = page_load(at), flags;
        taken = page_state_of(word) == PAGE_SWAPPED && page_generation_of(word) == entry->generation &&
                swap_cache_take(pool, page_entry_of(word), CACHE_CLEAN, frame, &flags);
        page_unlock(at);
    } else {
        *busy = true;
    }
    region_put(r);
    return taken;
}

/* Whether the run ends within a block: the kernel gets the memory of a huge page back only with the last part of it. */
static bool ends_inside(uswap_pool *pool, const frame_run *run) {
    return run->count > 0 && block_has(&pool->frames, run->first) &&
           block_first(&pool->frames, run->first + run->count) != run->first + run->count;
}

uint64_t inactive_drop(uswap_pool *pool, uint64_t want) {
    frame_run run = {0};
    uint64_t freed = 0;
    for (uint64_t left = ring_length(&pool->inactive); left > 0 && (freed < want || ends_inside(pool, &run)); left--) {
        ring_entry entry;
        frame_id frame;
        bool busy;
        if (ring_pop(&pool->inactive, &entry, 1) == 0)
            break;
        if (take(pool, &entry, &frame, &busy)) {
            frame_run_drop(pool, &run, frame);
            freed++;
        } else if (busy) {
            ring_push_page(pool, &pool->inactive, entry.page, entry.generation);
        }
    }
    frame_run_end(pool, &run);
    return freed;
}
