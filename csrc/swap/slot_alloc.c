/*
 * slot_alloc.c - which slots of an area are taken: a bitmap, and the number of free slots of each cluster.
 *
 * Whole free clusters are given first, so that what is evicted together lies together and is written in one piece; only when
 * there is none are holes in used clusters filled. The search goes on where it ended (next fit), so it costs a step a
 * cluster at most once a round.
 */
#include "swap/swap_area.h"

#define WORD_BITS 64U

static uint64_t clusters_of(const swap_area *area) {
    uint64_t usable = atomic_load_explicit(&area->usable_slots, memory_order_relaxed);
    return (usable + CLUSTER_SLOTS - 1) / CLUSTER_SLOTS;
}

bool slot_alloc_is_taken(const swap_area *area, uint64_t slot) {
    return area->bitmap[slot / WORD_BITS] >> (slot % WORD_BITS) & 1;
}

static void set_taken(swap_area *area, uint64_t slot, bool taken) {
    uint64_t bit = UINT64_C(1) << (slot % WORD_BITS);
    uint16_t *free_here = &area->cluster_free[slot / CLUSTER_SLOTS];
    if (taken) {
        area->whole_clusters -= *free_here == CLUSTER_SLOTS;
        area->bitmap[slot / WORD_BITS] |= bit;
        *free_here = (uint16_t)(*free_here - 1);
    } else {
        area->bitmap[slot / WORD_BITS] &= ~bit;
        *free_here = (uint16_t)(*free_here + 1);
        area->whole_clusters += *free_here == CLUSTER_SLOTS;
    }
}

/* The next cluster, from the cursor on, with at least least free slots; the number of clusters if there is none. */
static uint64_t find_cluster(const swap_area *area, uint16_t least) {
    uint64_t clusters = clusters_of(area);
    for (uint64_t turn = 0; turn < clusters; turn++) {
        uint64_t cluster = (area->cursor + turn) % clusters;
        if (area->cluster_free[cluster] >= least)
            return cluster;
    }
    return clusters;
}

/* The first run of free slots in the cluster. */
static uint32_t take_run(swap_area *area, uint64_t cluster, uint32_t want, uint64_t *first) {
    uint64_t slot = cluster * CLUSTER_SLOTS;
    uint64_t end = MIN_OF(slot + CLUSTER_SLOTS, atomic_load_explicit(&area->usable_slots, memory_order_relaxed));
    while (slot < end && slot_alloc_is_taken(area, slot))
        slot++;
    *first = slot;
    uint32_t count = 0;
    for (; count < want && slot < end && !slot_alloc_is_taken(area, slot); slot++, count++)
        set_taken(area, slot, true);
    return count;
}

uint32_t slot_alloc_run(swap_area *area, uint32_t want, uint64_t *first) {
    uint32_t count = 0;
    small_lock_acquire(&area->lock);
    uint64_t clusters = clusters_of(area);
    uint64_t cluster = area->whole_clusters > 0 ? find_cluster(area, CLUSTER_SLOTS) : find_cluster(area, 1);
    if (cluster < clusters) {
        count = take_run(area, cluster, MIN_OF(want, (uint32_t)CLUSTER_SLOTS), first);
        area->cursor = area->cluster_free[cluster] ? cluster : (cluster + 1) % clusters;
    }
    small_lock_release(&area->lock);
    atomic_fetch_add_explicit(&area->used_slots, count, memory_order_relaxed);
    return count;
}

void slot_alloc_give(swap_area *area, uint64_t first, uint32_t count) {
    small_lock_acquire(&area->lock);
    for (uint64_t slot = first; slot < first + count; slot++) {
        INVARIANT(I6, slot_alloc_is_taken(area, slot));
        set_taken(area, slot, false);
    }
    small_lock_release(&area->lock);
    atomic_fetch_sub_explicit(&area->used_slots, count, memory_order_relaxed);
}

void slot_alloc_extend(swap_area *area, uint64_t from, uint64_t to) {
    small_lock_acquire(&area->lock);
    for (uint64_t slot = from; slot < to;) {
        uint64_t cluster = slot / CLUSTER_SLOTS, end = MIN_OF((cluster + 1) * CLUSTER_SLOTS, to);
        area->cluster_free[cluster] = (uint16_t)(area->cluster_free[cluster] + (end - slot));
        area->whole_clusters += area->cluster_free[cluster] == CLUSTER_SLOTS;
        slot = end;
    }
    atomic_store_explicit(&area->usable_slots, to, memory_order_release);
    small_lock_release(&area->lock);
}

static bool is_whole(const swap_area *area, uint64_t cluster) {
    return area->cluster_free[cluster] == CLUSTER_SLOTS;
}

static void set_whole(swap_area *area, uint64_t first_cluster, uint64_t count, bool taken) {
    for (uint64_t slot = first_cluster * CLUSTER_SLOTS; slot < (first_cluster + count) * CLUSTER_SLOTS; slot++)
        set_taken(area, slot, taken);
}

uint64_t slot_alloc_take_whole(swap_area *area, uint64_t most, uint64_t *first_cluster) {
    uint64_t count = 0;
    small_lock_acquire(&area->lock);
    uint64_t end = area->whole_clusters > 0 ? clusters_of(area) : 0;
    while (end > 0 && !is_whole(area, end - 1))
        end--;
    while (count < most && end > count && is_whole(area, end - count - 1))
        count++;
    *first_cluster = end - count;
    set_whole(area, *first_cluster, count, true);
    small_lock_release(&area->lock);
    return count;
}

void slot_alloc_give_whole(swap_area *area, uint64_t first_cluster, uint64_t count) {
    small_lock_acquire(&area->lock);
    set_whole(area, first_cluster, count, false);
    small_lock_release(&area->lock);
}
