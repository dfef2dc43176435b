/*
 * region_discard.c - DONTNEED: contents thrown away, frames and slots given back.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "fault/uffd.h"
#include "region/region_range.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <sys/mman.h>

/* Pages locked together: one madvise for all of them. */
#define DISCARD_PAGES 64

/* Locks a run of pages: the first by waiting, the others by try-lock. Return: how many. */
static size_t lock_run(region *r, size_t first, size_t count) {
    size_t locked = 1;
    page_lock(&r->object.words[first]);
    while (locked < count && locked < DISCARD_PAGES && page_try_lock(&r->object.words[first + locked]))
        locked++;
    return locked;
}

static void unlock_run(region *r, size_t first, size_t count) {
    for (size_t page = first; page < first + count; page++)
        page_unlock(&r->object.words[page]);
}

static bool any_held(const region *r, size_t first, size_t count) {
    for (size_t page = first; page < first + count; page++)
        if (page_is_held(page_load(&r->object.words[page])))
            return true;
    return false;
}

/* Context: page locked; nothing is mapped there any more. Return: frames that were. */
static uint64_t forget_page(uswap_pool *pool, region *r, page_word *at) {
    uint64_t word = page_load(at);
    page_state state = page_state_of(word);
    if (state == PAGE_ZERO)
        return 0;
    page_set_state(at, PAGE_ZERO, SWAP_ENTRY_NONE);
    if (state == PAGE_SWAPPED)
        atomic_fetch_sub(&r->swapped_pages, 1);
    if (state == PAGE_POISONED) {
        atomic_fetch_sub(&r->poisoned_pages, 1);
        STAT_SUB(pool, poisoned_pages, 1);
    }
    if (!swap_entry_is_none(page_entry_of(word)))
        swap_map_put(pool, page_entry_of(word));
    return state == PAGE_RESIDENT;
}

static int discard_run(uswap_pool *pool, region *r, size_t first, size_t count) {
    if (any_held(r, first, count))
        return -EBUSY;
    FAILPOINT(discard_locked);
    if (madvise(region_address(r, first), count << PAGE_SHIFT, MADV_DONTNEED) != 0)
        return -errno;
    uint64_t frames = 0;
    for (size_t page = first; page < first + count; page++)
        frames += forget_page(pool, r, &r->object.words[page]);
    if (frames > 0) {
        atomic_fetch_sub(&r->mapped_pages, frames);
        STAT_SUB(pool, mapped_pages, frames);
        frame_uncharge(pool, frames);
    }
    /* Who waits for a read of what is gone now faults again, and gets zeroes. */
    uffd_wake(r->uffd, region_address(r, first), count << PAGE_SHIFT);
    return 0;
}

int region_discard(uswap_pool *pool, region *r, size_t first, size_t count) {
    int status = 0;
    if (!region_move_begin(r))
        return -EAGAIN;
    for (size_t page = first; page < first + count && status == 0;) {
        size_t chunk = page / PAGE_WORDS_PER_CHUNK, chunk_end = (chunk + 1) * PAGE_WORDS_PER_CHUNK;
        size_t left = MIN_OF(chunk_end, first + count) - page;
        if (!atomic_load(&r->object.touched[chunk])) {
            page += left;
            continue;
        }
        size_t locked = lock_run(r, page, left);
        status = discard_run(pool, r, page, locked);
        unlock_run(r, page, locked);
        page += locked;
    }
    region_move_end(r);
    return status;
}
