/*
 * block.c - blocks: 512 neighbouring frames that are made, moved and dropped as one (README, Blocks).
 *
 * Where the kernel has huge pages a block is one: it costs a twelfth of 512 single frames to make and drop, and the disk reads into
 * it and writes from it as one piece of memory. Where it has none, everything here still holds, and only costs more.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "pool.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Idle frames that form a block (recycle): the last BLOCK_PAGES of the stack, if they were dropped together. */
static bool pop_idle_block(frame_pool *frames, frame_id *first) {
    bool found = false;
    if (!frames->recycle)
        return false;
    small_lock_acquire(&frames->idle_lock);
    if (frames->idle_count >= BLOCK_PAGES) {
        const frame_id *top = &frames->idle[frames->idle_count - BLOCK_PAGES];
        /* The stack hands out places in ascending order, so the highest of a run lies deepest. */
        found = block_has(frames, top[0]) && block_first(frames, top[0]) == top[BLOCK_PAGES - 1] &&
                top[0] == top[BLOCK_PAGES - 1] + BLOCK_PAGES - 1;
        for (uint32_t i = 1; found && i < BLOCK_PAGES; i++)
            found = top[i] == top[0] - i;
        if (found) {
            *first = top[BLOCK_PAGES - 1];
            frames->idle_count -= BLOCK_PAGES;
            atomic_fetch_sub_explicit(&frames->budget->idle_frames, BLOCK_PAGES, memory_order_relaxed);
        }
    }
    small_lock_release(&frames->idle_lock);
    return found;
}

/* An emptied page table in the way of a huge page goes with the first call (kernel 6.14). */
static bool populate(void *memory) {
    return FAILPOINT(block_populate) == 0 && madvise(memory, BLOCK_BYTES, MADV_DONTNEED) == 0 &&
           madvise(memory, BLOCK_BYTES, MADV_POPULATE_WRITE) == 0;
}

bool block_take(uswap_pool *pool, frame_purpose purpose, bool zeroed, frame_id *first) {
    if (!zeroed && pop_idle_block(&pool->frames, first))
        return true;
    if (!frame_charge(pool, BLOCK_PAGES, purpose))
        return false;
    bool placed = arena_take_block(&pool->frames.arenas[ARENA_BLOCK_FILL], first);
    if (placed && populate(frame_address(pool, *first)))
        return true;
    if (placed) {
        madvise(frame_address(pool, *first), BLOCK_BYTES, MADV_DONTNEED);
        frame_give_places(pool, *first, BLOCK_PAGES);
    }
    frame_uncharge(pool, BLOCK_PAGES);
    return false;
}

bool block_take_catch(uswap_pool *pool, frame_id *first) {
    if (!arena_take_block(&pool->frames.arenas[ARENA_BLOCK_CATCH], first))
        return false;
    /* Nothing is mapped there; but an emptied page table would make MOVE split a huge page. */
    madvise(frame_address(pool, *first), BLOCK_BYTES, MADV_DONTNEED);
    return true;
}
