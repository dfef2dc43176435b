/*
 * evict_all.c - everything leaves: the state of a pool in which nothing but page words and slots says where contents are.
 */
#include "fork/fork.h"

#include "reclaim/page_out.h"
#include "swap/swap_cache.h"

/* What the kernel has pinned only just now (the end of a read) leaves at the second try. */
#define ROUNDS 2

static void evict_region(context *ctx, region *r) {
    for (size_t first = 0; (first = region_next_touched(r, first)) < r->object.pages;) {
        size_t end = first;
        while (end < r->object.pages && region_next_touched(r, end) == end)
            end = MIN_OF((end / PAGE_WORDS_PER_CHUNK + 1) * PAGE_WORDS_PER_CHUNK, r->object.pages);
        page_out_range(ctx, r, first, end - first);
        first = end;
    }
    context_drain(ctx);
}

/* Frames that hold what a slot has, too. Return: false: there are some that hold what no slot has. */
static bool drop_cached(uswap_pool *pool, region *r) {
    frame_run run = {0};
    bool safe = true;
    FOR_TOUCHED(r, page) {
        uint64_t word = page_load(&r->object.words[page]), flags;
        frame_id frame;
        if (page_state_of(word) != PAGE_SWAPPED)
            continue;
        swap_entry entry = page_entry_of(word);
        if (swap_cache_take(pool, entry, CACHE_CLEAN, &frame, &flags)) {
            frame_run_drop(pool, &run, frame);
            swap_cache_evicted(pool, entry, flags);
        }
        safe &= slot_state_of(swap_cache_load(pool, entry)) == CACHE_NONE;
    }
    frame_run_end(pool, &run);
    return safe;
}

static uint64_t resident_pages(uswap_pool *pool) {
    uint64_t count = 0;
    uint32_t at = 0;
    for (region *r; (r = fork_next_region(pool, &at));)
        count += atomic_load(&r->quiesced) ? 0 : atomic_load(&r->mapped_pages);
    return count;
}

/* Everybody's, though they are each one thread's: nobody is inside the gate. */
static void end_io(uswap_pool *pool) {
    context_drain(&pool->fault_context);
    context_drain(&pool->reclaim_context);
    for (int i = 0; i < API_CONTEXTS; i++)
        context_drain(&pool->api_contexts[i]);
    for (int i = 0; pool->inlines.contexts && i < INLINE_CONTEXTS; i++)
        context_drain(&pool->inlines.contexts[i]);
}

uint64_t fork_evict_all(uswap_pool *pool, bool *unsafe) {
    end_io(pool);
    pool->reclaim_context.who = ACTOR_API;
    for (int round = 0; round < ROUNDS && resident_pages(pool) > 0; round++) {
        uint32_t at = 0;
        for (region *r; (r = fork_next_region(pool, &at));)
            evict_region(&pool->reclaim_context, r);
    }
    uint32_t at = 0;
    *unsafe = false;
    for (region *r; (r = fork_next_region(pool, &at));)
        *unsafe |= !drop_cached(pool, r);
    return resident_pages(pool);
}
