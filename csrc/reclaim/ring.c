#include "reclaim/ring.h"

#include "base/memory.h"
#include "pool.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <string.h>

/* Entries looked at under one hold of the lock (4 us). */
#define SWEEP_BATCH 64
/* And for each that is pushed: from three quarters full on all of them, before it is full. */
#define SWEEP_PER_PUSH 4

int ring_init(reclaim_ring *ring, uint64_t capacity) {
    *ring = (reclaim_ring){.capacity = capacity};
    ring->entries = memory_map(capacity * sizeof *ring->entries);
    return ring->entries ? 0 : -ENOMEM;
}

void ring_fini(reclaim_ring *ring) {
    memory_unmap(ring->entries, ring->capacity * sizeof *ring->entries);
    ring->entries = NULL;
}

static uint64_t length_of(const reclaim_ring *ring) {
    return ring->tail - ring->head - (ring->sweeping ? ring->kept - ring->sweep : 0);
}

/* From and to positions of two memories: as few pieces as their ends allow. */
static void copy_entries(const reclaim_ring *ring, uint64_t from, uint64_t end, stay *entries, uint64_t capacity,
                         uint64_t to) {
    for (uint64_t count; from < end; from += count, to += count) {
        uint64_t here = from % ring->capacity, there = to % capacity;
        count = MIN_OF(MIN_OF(ring->capacity - here, capacity - there), end - from);
        memcpy(&entries[there], &ring->entries[here], count * sizeof *entries);
    }
}

/* Up to where they were: who copies on from a position (ring_copy) misses none. Context: ring.lock. */
static void move_entries(reclaim_ring *ring, stay *entries, uint64_t capacity) {
    uint64_t head = ring->tail - length_of(ring), gap = ring->sweeping ? ring->sweep : ring->tail;
    copy_entries(ring, ring->head, gap, entries, capacity, head);
    if (ring->sweeping)
        copy_entries(ring, ring->kept, ring->tail, entries, capacity, head + gap - ring->head);
    ring->entries = entries;
    ring->capacity = capacity;
    ring->head = head;
    ring->sweeping = false;
}

/* The kernel's page faults come now, not under the lock, for about as much as will be moved. */
static void touch_room(reclaim_ring *ring, stay *entries, uint64_t capacity) {
    small_lock_acquire(&ring->lock);
    uint64_t end = ring->tail, begin = end - MIN_OF(length_of(ring), capacity);
    small_lock_release(&ring->lock);
    for (uint64_t at = begin; at < end; at += PAGE_BYTES / sizeof *entries)
        *(volatile uint64_t *)&entries[at % capacity].value = 0;
}

/* larger: it is to grow, not to shrink. *before: its capacity until now. Return: 0, -EEXIST (it is so large, or so small, already), -EBUSY (it is too
 * full for that) or -ENOMEM. */
static int resize(reclaim_ring *ring, uint64_t capacity, bool larger, uint64_t *before) {
    stay *entries = memory_map(capacity * sizeof *entries), *unused = entries;
    if (!entries)
        return -ENOMEM;
    touch_room(ring, entries, capacity);
    small_lock_acquire(&ring->lock);
    *before = ring->capacity;
    int status = 0;
    if (larger ? *before >= capacity : *before <= capacity)
        status = -EEXIST;
    else if (length_of(ring) > capacity / 4 * 3 && !larger)
        status = -EBUSY;
    if (status == 0) {
        unused = ring->entries;
        move_entries(ring, entries, capacity);
    }
    small_lock_release(&ring->lock);
    memory_unmap(unused, (status == 0 ? *before : capacity) * sizeof *unused);
    return status;
}

int ring_grow(uswap_pool *pool, reclaim_ring *ring, uint64_t capacity) {
    uint64_t before;
    int status = resize(ring, capacity, true, &before);
    if (status == 0)
        frame_charge_metadata(pool, ring_pages(capacity) - ring_pages(before));
    return status;
}

uint64_t ring_length(reclaim_ring *ring) {
    small_lock_acquire(&ring->lock);
    uint64_t length = length_of(ring);
    small_lock_release(&ring->lock);
    return length;
}

uint64_t ring_capacity(reclaim_ring *ring) {
    small_lock_acquire(&ring->lock);
    uint64_t capacity = ring->capacity;
    small_lock_release(&ring->lock);
    return capacity;
}

uint32_t ring_copy(reclaim_ring *ring, uint64_t *position, stay *entries, uint32_t count, bool *more) {
    uint32_t copied = 0;
    small_lock_acquire(&ring->lock);
    uint64_t at = ring_past_gap(ring, MAX_OF(*position, ring->head)); /* what has been popped since is gone */
    for (; copied < count && at < ring->tail; at = ring_past_gap(ring, at + 1))
        entries[copied++] = ring->entries[at % ring->capacity];
    *more = at < ring->tail;
    *position = *more ? at : 0;
    small_lock_release(&ring->lock);
    return copied;
}

/* All older entries have been looked at, or have gone. Context: ring.lock. */
static void end_sweep_at_head(reclaim_ring *ring) {
    if (ring->sweeping && ring->head == ring->sweep) {
        ring->head = ring->kept;
        ring->sweeping = false;
    }
}

/* The oldest entry is taken away. Context: ring.lock; there is one. */
static stay take_oldest(reclaim_ring *ring) {
    stay oldest = ring->entries[ring->head++ % ring->capacity];
    end_sweep_at_head(ring);
    return oldest;
}

uint32_t ring_pop(reclaim_ring *ring, stay *entries, uint32_t count) {
    uint32_t popped = 0;
    small_lock_acquire(&ring->lock);
    while (popped < count && ring->head != ring->tail)
        entries[popped++] = take_oldest(ring);
    small_lock_release(&ring->lock);
    return popped;
}

uint32_t ring_pop_range(reclaim_ring *ring, stay first, stay *entries, uint32_t count) {
    uint32_t popped = 0;
    small_lock_acquire(&ring->lock);
    while (popped < count && ring->head != ring->tail) {
        stay oldest = ring->entries[ring->head % ring->capacity];
        if (!stay_within(oldest, first, count))
            break;
        entries[popped++] = take_oldest(ring);
    }
    small_lock_release(&ring->lock);
    return popped;
}

/* *sweep_due: there is a sweep, or is to be one. Return: false if the ring is full. */
static bool try_push(reclaim_ring *ring, const stay *entries, uint32_t count, bool *sweep_due) {
    small_lock_acquire(&ring->lock);
    bool fits = ring->tail - ring->head + count <= ring->capacity;
    for (uint32_t i = 0; fits && i < count; i++)
        ring->entries[ring->tail++ % ring->capacity] = entries[i];
    *sweep_due = ring->sweeping || ring->tail - ring->head > ring->capacity / 4 * 3;
    small_lock_release(&ring->lock);
    return fits;
}

bool ring_try_push(reclaim_ring *ring, const stay *entries, uint32_t count) {
    bool sweep_due;
    return try_push(ring, entries, count, &sweep_due);
}

bool ring_try_push_front(reclaim_ring *ring, const stay *entries, uint32_t count) {
    small_lock_acquire(&ring->lock);
    bool fits = ring->tail - ring->head + count <= ring->capacity;
    if (fits && ring->head < count) { /* keep the counters above zero */
        uint64_t turns = (count / ring->capacity + 1) * ring->capacity;
        ring->head += turns;
        ring->tail += turns;
        ring->sweep += turns;
        ring->kept += turns;
    }
    for (uint32_t i = count; fits && i-- > 0;)
        ring->entries[--ring->head % ring->capacity] = entries[i];
    small_lock_release(&ring->lock);
    return fits;
}

/* Whether the entry says nothing any more: the page and its frame have gone, or have come again later, or are held (unlock and
 * unpin push it again). The others are at most as many as there are frames, so that a compacted ring has room. */
static bool is_stale(uswap_pool *pool, stay entry) {
    region *r = region_get_by_stay(&pool->regions, entry);
    if (!r)
        return true;
    uint64_t word = page_load(&r->object.words[stay_page(entry)]);
    region_put(r);
    bool cached =
        page_state_of(word) == PAGE_SWAPPED && slot_state_of(swap_cache_load(pool, page_entry_of(word))) == CACHE_CLEAN;
    return !(page_state_of(word) == PAGE_RESIDENT || cached) || page_generation_of(word) != stay_generation(entry) ||
           page_is_held(word);
}

/* Looks at count entries more, in batches; begins a sweep if there is none. Return: whether the sweep has ended. */
static bool sweep(uswap_pool *pool, reclaim_ring *ring, uint64_t count) {
    bool sweeping = true;
    for (uint64_t left = count; left > 0 && sweeping; left -= MIN_OF(left, (uint64_t)SWEEP_BATCH)) {
        small_lock_acquire(&ring->lock);
        if (!ring->sweeping) {
            ring->sweep = ring->kept = ring->tail;
            ring->sweeping = true;
        }
        for (uint64_t i = MIN_OF(left, (uint64_t)SWEEP_BATCH); i > 0 && ring->sweep > ring->head; i--) {
            stay entry = ring->entries[--ring->sweep % ring->capacity];
            if (!is_stale(pool, entry))
                ring->entries[--ring->kept % ring->capacity] = entry;
        }
        end_sweep_at_head(ring);
        sweeping = ring->sweeping;
        small_lock_release(&ring->lock);
    }
    return !sweeping;
}

void ring_shrink(uswap_pool *pool, reclaim_ring *ring, uint64_t capacity) {
    uint64_t before = ring_capacity(ring), room = capacity / 4 * 3;
    if (before <= capacity)
        return;
    /* More entries than frames: the others are stale. */
    if (ring_length(ring) > room && atomic_load(&pool->frames.budget->used_frames) <= room)
        sweep(pool, ring, before);
    if (ring_length(ring) <= room && resize(ring, capacity, false, &before) == 0)
        frame_uncharge_metadata(pool, ring_pages(before) - ring_pages(capacity));
}

void ring_push_orders(uswap_pool *pool, reclaim_ring *ring, const stay *entries, uint32_t count) {
    while (!ring_try_push(ring, entries, count))
        if (ring_grow(pool, ring, 2 * ring_capacity(ring)) == -ENOMEM) {
            stay oldest[SWEEP_BATCH];
            ring_pop(ring, oldest, MIN_OF(count, (uint32_t)SWEEP_BATCH));
        }
}

/* The ring is full, although it is swept. It has room for twice the frames of the limit, so most entries are stale; unless locked pages or a
 * full swap have taken the pool far over its limit (I9): then it grows. */
static void make_room(uswap_pool *pool, reclaim_ring *ring) {
    uint64_t capacity = ring_capacity(ring);
    if (!sweep(pool, ring, capacity)) /* others push meanwhile */
        return;
    if (ring_length(ring) > capacity / 4 * 3)
        ring_grow(pool, ring, 2 * capacity);
}

void ring_push_pages(uswap_pool *pool, reclaim_ring *ring, const stay *entries, uint32_t count) {
    bool sweep_due;
    while (!try_push(ring, entries, count, &sweep_due))
        make_room(pool, ring);
    if (sweep_due)
        sweep(pool, ring, (uint64_t)SWEEP_PER_PUSH * count);
}

void ring_push_page(uswap_pool *pool, reclaim_ring *ring, stay entry) {
    ring_push_pages(pool, ring, &entry, 1);
}

void ring_push_page_front(uswap_pool *pool, reclaim_ring *ring, stay entry) {
    while (!ring_try_push_front(ring, &entry, 1))
        make_room(pool, ring);
}
