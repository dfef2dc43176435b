#include "reclaim/ring.h"

#include "base/memory.h"
#include "pool.h"
#include "swap/swap_cache.h"

#include <errno.h>

#define COMPACT_BATCH 64

int ring_init(reclaim_ring *ring, uint64_t capacity) {
    *ring = (reclaim_ring){.capacity = capacity};
    ring->entries = memory_map(capacity * sizeof *ring->entries);
    return ring->entries ? 0 : -ENOMEM;
}

void ring_fini(reclaim_ring *ring) {
    memory_unmap(ring->entries, ring->capacity * sizeof *ring->entries);
    ring->entries = NULL;
}

int ring_grow(reclaim_ring *ring, uint64_t capacity) {
    stay *larger = memory_map(capacity * sizeof *larger);
    if (!larger)
        return -ENOMEM;
    small_lock_acquire(&ring->lock);
    if (ring->capacity >= capacity) { /* somebody else has made it grow */
        small_lock_release(&ring->lock);
        memory_unmap(larger, capacity * sizeof *larger);
        return -EEXIST;
    }
    uint64_t length = ring->tail - ring->head;
    for (uint64_t i = 0; i < length; i++)
        larger[i] = ring->entries[(ring->head + i) % ring->capacity];
    stay *old = ring->entries;
    uint64_t old_capacity = ring->capacity;
    ring->entries = larger;
    ring->capacity = capacity;
    ring->head = 0;
    ring->tail = length;
    small_lock_release(&ring->lock);
    memory_unmap(old, old_capacity * sizeof *old);
    return 0;
}

uint64_t ring_length(reclaim_ring *ring) {
    small_lock_acquire(&ring->lock);
    uint64_t length = ring->tail - ring->head;
    small_lock_release(&ring->lock);
    return length;
}

uint32_t ring_copy(reclaim_ring *ring, uint64_t *position, stay *entries, uint32_t count, bool *more) {
    uint32_t copied = 0;
    small_lock_acquire(&ring->lock);
    uint64_t at = MAX_OF(*position, ring->head); /* what has been popped since is gone */
    for (; copied < count && at < ring->tail; at++)
        entries[copied++] = ring->entries[at % ring->capacity];
    *more = at < ring->tail;
    *position = *more ? at : 0;
    small_lock_release(&ring->lock);
    return copied;
}

uint32_t ring_pop(reclaim_ring *ring, stay *entries, uint32_t count) {
    uint32_t popped = 0;
    small_lock_acquire(&ring->lock);
    while (popped < count && ring->head != ring->tail)
        entries[popped++] = ring->entries[ring->head++ % ring->capacity];
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
        entries[popped++] = oldest;
        ring->head++;
    }
    small_lock_release(&ring->lock);
    return popped;
}

bool ring_try_push(reclaim_ring *ring, const stay *entries, uint32_t count) {
    small_lock_acquire(&ring->lock);
    bool fits = ring->tail - ring->head + count <= ring->capacity;
    for (uint32_t i = 0; fits && i < count; i++)
        ring->entries[ring->tail++ % ring->capacity] = entries[i];
    small_lock_release(&ring->lock);
    return fits;
}

bool ring_try_push_front(reclaim_ring *ring, const stay *entries, uint32_t count) {
    small_lock_acquire(&ring->lock);
    bool fits = ring->tail - ring->head + count <= ring->capacity;
    if (fits && ring->head < count) { /* keep the counters above zero */
        uint64_t turns = (count / ring->capacity + 1) * ring->capacity;
        ring->head += turns;
        ring->tail += turns;
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

/* One round over the ring, in batches, keeping the order; without ring.lock while pages are looked at. */
static void compact(uswap_pool *pool, reclaim_ring *ring) {
    stay batch[COMPACT_BATCH];
    for (uint64_t left = ring_length(ring); left > 0;) {
        uint32_t popped = ring_pop(ring, batch, (uint32_t)MIN_OF(left, (uint64_t)COMPACT_BATCH)), kept = 0;
        if (popped == 0)
            return;
        for (uint32_t i = 0; i < popped; i++)
            if (!is_stale(pool, batch[i]))
                batch[kept++] = batch[i];
        while (kept > 0 && !ring_try_push(ring, batch, kept)) {
            /* others filled the ring in between: they compact too, and each round frees room */
            stay oldest;
            if (ring_pop(ring, &oldest, 1) == 1 && !is_stale(pool, oldest))
                ring_try_push_front(ring, &oldest, 1);
        }
        left -= popped;
    }
}

void ring_tidy(uswap_pool *pool, reclaim_ring *ring, uint64_t count) {
    stay batch[COMPACT_BATCH];
    for (uint64_t left = MIN_OF(count, ring_length(ring)); left > 0;) {
        uint32_t popped = ring_pop(ring, batch, (uint32_t)MIN_OF(left, (uint64_t)COMPACT_BATCH)), kept = 0;
        if (popped == 0)
            return;
        for (uint32_t i = 0; i < popped; i++)
            if (!is_stale(pool, batch[i]))
                batch[kept++] = batch[i];
        ring_push_pages(pool, ring, batch, kept);
        left -= popped;
    }
}

void ring_push_orders(uswap_pool *pool, reclaim_ring *ring, const stay *entries, uint32_t count) {
    while (!ring_try_push(ring, entries, count)) {
        uint64_t capacity = ring->capacity;
        int status = ring_grow(ring, 2 * capacity);
        if (status == 0) {
            frame_charge_metadata(pool, bytes_to_pages(capacity * sizeof(stay)));
        } else if (status == -ENOMEM) {
            stay oldest[COMPACT_BATCH];
            ring_pop(ring, oldest, MIN_OF(count, (uint32_t)COMPACT_BATCH));
        }
    }
}

/* The ring is full. It has room for twice the frames of the limit, so most entries are stale; unless locked pages or a full swap
 * have taken the pool far over its limit (I9): then it grows. */
static void make_room(uswap_pool *pool, reclaim_ring *ring) {
    uint64_t capacity = ring->capacity;
    compact(pool, ring);
    if (ring_length(ring) <= capacity / 4 * 3)
        return;
    if (ring_grow(ring, 2 * capacity) == 0)
        frame_charge_metadata(pool, bytes_to_pages(capacity * sizeof(stay)));
}

void ring_push_pages(uswap_pool *pool, reclaim_ring *ring, const stay *entries, uint32_t count) {
    while (!ring_try_push(ring, entries, count))
        make_room(pool, ring);
}

void ring_push_page(uswap_pool *pool, reclaim_ring *ring, stay entry) {
    ring_push_pages(pool, ring, &entry, 1);
}

void ring_push_page_front(uswap_pool *pool, reclaim_ring *ring, stay entry) {
    while (!ring_try_push_front(ring, &entry, 1))
        make_room(pool, ring);
}
