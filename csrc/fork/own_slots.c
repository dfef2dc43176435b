/*
 * own_slots.c - a segment for the child: of all that its parent's says, what the child's own pages are about.
 *
 * The parent goes on changing its own meanwhile. What is read there stays as it is as long as the child holds the slots: their hashes and owners, and
 * fill values. The new segment is put in the place of the old one, so that everything in it has the same address.
 */
#define _GNU_SOURCE
#include "fork/fork.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILL_VALUES_PER_CHUNK (PAGE_BYTES / sizeof(uint64_t))
#define SLOTS_PER_CHUNK (PAGE_BYTES / sizeof(swap_slot))

/* The same place in the new segment. */
static void *in_new(const segment *before, const segment *after, const void *address) {
    return after->base + ((const unsigned char *)address - before->base);
}

static void copy_fills(uswap_pool *pool, const segment *after) {
    fill_table *fills = &pool->fills;
    for (size_t chunk = 0; chunk < fill_table_touched_bytes(); chunk++) {
        const void *from = (const void *)&fills->values[chunk * FILL_VALUES_PER_CHUNK];
        if (!atomic_load(&fills->touched[chunk]))
            continue;
        memcpy(in_new(&pool->seg, after, from), from, PAGE_BYTES);
        frame_charge_metadata(pool, 1);
    }
}

static void copy_slot(uswap_pool *pool, const segment *after, swap_entry entry) {
    swap_area *area = &pool->areas[swap_entry_area(entry)];
    const swap_slot *from = &area->slots[swap_entry_slot(entry)];
    swap_slot *to = in_new(&pool->seg, after, from);
    metadata_touch_slot(pool, entry);
    atomic_store_explicit(&to->owner, atomic_load(&from->owner), memory_order_relaxed);
    memcpy(to->hash, from->hash, sizeof to->hash);
    atomic_store(&to->word, UINT64_C(1)); /* count 1, NONE */
    atomic_fetch_add(&area->used_slots, 1);
}

/* Its slots are another process's from here on. */
static void inherit_area(uswap_pool *pool, swap_area *area) {
    if (swap_area_is_closed(area))
        return;
    area->lock = (small_lock){0};
    atomic_store(&area->state, AREA_INHERITED);
    area->inherited = true;
    area->member = pool->family_member;
    atomic_store(&area->used_slots, 0);
    atomic_store(&area->lost_slots, 0);
    atomic_store(&area->lent_slots, 0);
    memset((void *)area->slots_touched, 0, swap_area_touched_bytes(area));
}

static void copy_slots(uswap_pool *pool, const segment *after) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++)
        inherit_area(pool, &pool->areas[i]);
    for (region *r; (r = fork_next_region(pool, &at));)
        FOR_TOUCHED(r, page) {
            swap_entry entry = page_entry_of(page_load(&r->object.words[page]));
            if (!swap_entry_is_none(entry))
                copy_slot(pool, after, entry);
        }
}

int fork_own_slots(uswap_pool *pool) {
    segment *before = &pool->seg, after;
    int status = segment_like(before, &after);
    if (status != 0)
        return status;
    frame_budget *budget = &segment_head(&after)->budget;
    pool->frames.budget = budget; /* for what is counted meanwhile */
    atomic_store(&budget->limit_frames, pool->options.limit_bytes >> PAGE_SHIFT);
    copy_fills(pool, &after);
    copy_slots(pool, &after);
    status = segment_take_place(before, &after);
    pool->frames.budget = &segment_head(before)->budget;
    return status;
}
