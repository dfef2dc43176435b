/*
 * ring.h - the pages that hold frames, oldest first.
 *
 * One push when a page gets a frame, one pop to evict: the cost does not depend on how much memory there is. An entry is a
 * hint: whether the page is still there, unlocked and of that generation is decided under its page lock. Entries of pages
 * that left by another way (discard, destroy) are simply stale. A ring that is three quarters full is swept, a few entries a push, so that
 * nobody has to look at all of it at once: from the youngest entry to the oldest, those that still say something close up towards the
 * young end, in their order.
 *
 *     head ... sweep    not looked at yet (if there is a sweep)
 *     sweep ... kept    the gap: nothing
 *     kept ... tail     looked at, or younger than the sweep
 */
#ifndef USWAP_RECLAIM_RING_H
#define USWAP_RECLAIM_RING_H

#include "base/base.h"
#include "base/lock.h"
#include "region/stay.h"

typedef struct {
    small_lock lock;
    stay *entries; /* r */
    uint64_t capacity;
    uint64_t head;  /* r: oldest */
    uint64_t tail;  /* r: next free; tail - head <= capacity */
    uint64_t sweep; /* r */
    uint64_t kept;  /* r: head <= sweep <= kept <= tail while there is a sweep */
    bool sweeping;  /* r */
} reclaim_ring;     /* r: under lock */

int ring_init(reclaim_ring *ring, uint64_t capacity);
void ring_fini(reclaim_ring *ring);
/* Return: how many were popped, oldest first. */
uint32_t ring_pop(reclaim_ring *ring, stay *entries, uint32_t count);
/* Pops the oldest entries as long as they are of count pages from the first's on. Return: how many. */
uint32_t ring_pop_range(reclaim_ring *ring, stay first, stay *entries, uint32_t count);
/* Return: false if the ring is full. */
bool ring_try_push(reclaim_ring *ring, const stay *entries, uint32_t count);
/* To the head: first to be evicted. */
bool ring_try_push_front(reclaim_ring *ring, const stay *entries, uint32_t count);
uint64_t ring_length(reclaim_ring *ring);
uint64_t ring_capacity(reclaim_ring *ring);
static inline uint64_t ring_pages(uint64_t capacity) {
    return bytes_to_pages(capacity * sizeof(stay));
}
/* Where the entry behind position lies: behind the gap, if that begins there. Context: ring.lock. */
static inline uint64_t ring_past_gap(const reclaim_ring *ring, uint64_t position) {
    return ring->sweeping && position >= ring->sweep && position < ring->kept ? ring->kept : position;
}
/* Copies entries, oldest first, from *position on (0: from the head), which moves; *more: whether there are others. Return: how many. */
uint32_t ring_copy(reclaim_ring *ring, uint64_t *position, stay *entries, uint32_t count, bool *more);

typedef struct uswap_pool uswap_pool;
/* The same entries in a larger ring, whose memory is charged. Return: 0, -EEXIST (it is as large already) or -ENOMEM. */
int ring_grow(uswap_pool *pool, reclaim_ring *ring, uint64_t capacity);
/* In a smaller one, and what it takes less is uncharged: if they fit, once the stale ones have gone. */
void ring_shrink(uswap_pool *pool, reclaim_ring *ring, uint64_t capacity);
/* A page has arrived (or may be evicted again). Context: page locked or unlocked; takes ring.lock only. */
void ring_push_page(uswap_pool *pool, reclaim_ring *ring, stay entry);
/* The same for several, one behind the other. */
void ring_push_pages(uswap_pool *pool, reclaim_ring *ring, const stay *entries, uint32_t count);
/* The same for orders: a ring that is full grows. Without memory for that, the oldest are forgotten. */
void ring_push_orders(uswap_pool *pool, reclaim_ring *ring, const stay *entries, uint32_t count);
void ring_push_page_front(uswap_pool *pool, reclaim_ring *ring, stay entry);

#endif
