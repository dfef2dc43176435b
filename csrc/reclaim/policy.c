/*
 * policy.c - where a policy is connected: what it is told, and what it orders (README, Policy).
 *
 * Owns: the API of the steering thread's policy. Does not own: any decision, and any list of pages.
 */
#include "reclaim/events.h"
#include "reclaim/inactive.h"
#include "reclaim/reclaimer.h"

#include "base/status.h"
#include "swap/swap_cache.h"

#include <string.h>

/* Of the caller's memory, which may be managed itself: copied before any lock is taken. */
#define COPY_STAYS 64
/* Orders of one kind that may be waiting, for each frame of the limit: more is not a plan but a fault. */
#define ORDERS_PER_FRAME 4

EXPORT int uswap_policy_attach(uswap_pool *pool, uint32_t wanted, uint32_t every, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    pool->announced = 0;
    pool->announcing = pool->announced_ring = false;
    status = events_listen(pool, wanted, every);
    if (status != 0)
        status = error_set(err, USWAP_E_NO_MEMORY, 0, "policy", NULL, "no memory for a policy's buffers");
    atomic_store(&pool->native.steered_ns, clock_now_ns());
    atomic_store(&pool->native.policy, status == 0);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_policy_detach(uswap_pool *pool, uint32_t failed, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    atomic_store(&pool->native.policy, 0);
    events_end(pool);
    shared_policy_end(pool);
    orders_clear(&pool->orders);
    STAT_ADD(pool, policy_errors, failed != 0);
    api_leave(&guard);
    return 0;
}

EXPORT int uswap_policy_wake(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    events_tell(pool);
    api_leave(&guard);
    return 0;
}

/* ---- what it is told ---- */

/* The next pages of the reclaim rings, as if they had just come: some were not told of. Return: how many. */
static uint32_t announce(uswap_pool *pool, event_buffer *into) {
    reclaim_ring *from = pool->announced_ring ? &pool->ring_marked : &pool->ring;
    bool more;
    uint32_t count = ring_copy(from, &pool->announced, into->stays, EVENTS_MAX, &more);
    pool->announcing = more || (!pool->announced_ring && ring_length(&pool->ring_marked) > 0);
    pool->announced_ring = pool->announcing && (pool->announced_ring || !more);
    for (uint32_t i = 0; i < count; i++) {
        into->distances[i] = REFAULT_NEVER;
        into->kinds[i] = (uint8_t)(USWAP_EVENT_FAULTED | (from == &pool->ring_marked ? EVENT_MARKED : 0));
    }
    return count;
}

/* The buffer that was filled so far is the reader's now, and an empty one is filled. Return: how many it has. */
static uint32_t turn_over(event_log *log, bool *lost) {
    small_lock_acquire(&log->lock);
    event_buffer filled = log->noting;
    uint32_t count = log->count;
    *lost = log->lost;
    log->noting = log->reading;
    log->reading = filled;
    log->count = 0;
    log->lost = false;
    small_lock_release(&log->lock);
    return count;
}

/* By kind, each in the order in which it happened. */
static void sort(event_log *log, uint32_t count, uswap_events *events) {
    const event_buffer *from = &log->reading, *to = &log->sorted;
    uint32_t next[EVENT_KINDS] = {0};
    for (uint32_t i = 0; i < count; i++)
        events->counts[from->kinds[i] & ~EVENT_MARKED]++;
    for (uint32_t kind = 0, start = 0; kind < EVENT_KINDS; start += (uint32_t)events->counts[kind++]) {
        next[kind] = start;
        events->stays[kind] = &to->stays[start].value;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = next[from->kinds[i] & ~EVENT_MARKED]++;
        to->stays[at] = from->stays[i];
        to->distances[at] = from->distances[i];
        to->kinds[at] = (from->kinds[i] & EVENT_MARKED) != 0;
    }
    events->distances = to->distances; /* FAULTED is the first kind, RESCUED the next */
    events->marks = to->kinds;
    events->rescued_marks = to->kinds + events->counts[USWAP_EVENT_FAULTED];
}

static void read_events(uswap_pool *pool, uswap_events *events) {
    event_log *log = &pool->events;
    bool lost = false, more = pool->announcing;
    memset(events, 0, sizeof *events);
    atomic_store(&pool->events_waiting, 0);
    uint32_t count = turn_over(log, &lost);
    if (lost || more) {
        /* All pages there are, from the oldest on. What was noted so far is among them: pages enter a ring first, at its young end, so the
         * log can be forgotten beside each part, and is not full again before the last one. */
        count = announce(pool, &log->reading);
        events->lost = 1;
        events->more = pool->announcing;
    }
    sort(log, count, events);
}

/* Cached pages and sealed ones. A sealed page that leaves the list otherwise than by its turn (discarded, locked, evicted by order) is not
 * taken off the count: the list is never shorter than what is on it. */
static uint64_t inactive_now(uswap_pool *pool) {
    uint64_t counted = STAT_GET(pool, inactive_pages) + STAT_GET(pool, listed_pages);
    uint64_t most = inactive_frames(pool) + atomic_load(&pool->writes_in_flight);
    return MIN_OF(counted, MAX_OF(most, STAT_GET(pool, inactive_pages)));
}

static void look_at_need(uswap_pool *pool, uswap_need *need) {
    const frame_budget *budget = pool->frames.budget;
    uint64_t limit = atomic_load(&budget->limit_frames), free = frame_pool_free(&pool->frames);
    uint64_t taken = RESERVE_FRAMES + atomic_load(&budget->metadata_frames) + pool->bounce_frames;
    uint64_t high = atomic_load(&pool->frames.high_frames);
    *need = (uswap_need){.short_frames = high > free ? high - free : 0,
                         .capacity_frames = limit > taken ? limit - taken : 0,
                         .mapped_frames = STAT_GET(pool, mapped_pages),
                         .inactive_frames = inactive_now(pool),
                         .target_frames = inactive_target(pool),
                         .prepared_frames = ring_length(&pool->orders.rings[ORDER_EVICT]),
                         .evictions = atomic_load(&pool->eviction_clock),
                         .filled = atomic_load(&pool->left_ahead)};
}

EXPORT int uswap_policy_events(uswap_pool *pool, uswap_events *events, uswap_need *need, uswap_error *err) {
    uswap_events seen;
    uswap_need now;
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    if (atomic_load(&pool->native.policy)) {
        read_events(pool, &seen);
        look_at_need(pool, &now);
    } else {
        status = error_set(err, USWAP_E_INVALID, 0, "policy", NULL, "no policy is attached to this pool");
    }
    api_leave(&guard);
    if (status == 0) {
        *events = seen;
        *need = now;
    }
    return status;
}

/* ---- what it orders ---- */

static reclaim_ring *ring_of(uswap_pool *pool, uint32_t action) {
    static const order_kind kinds[] = {ORDER_EVICT, ORDER_CLEAN, ORDER_AGE, ORDER_AGE_MARKED, ORDER_READ};
    return action <= USWAP_ACTION_READ_AHEAD ? &pool->orders.rings[kinds[action]] : NULL;
}

EXPORT int uswap_policy_order(uswap_pool *pool, uint32_t action, const uint64_t *stays, uint64_t count,
                              uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    reclaim_ring *ring = ring_of(pool, action);
    uint64_t limit = atomic_load(&pool->frames.budget->limit_frames);
    if (!ring)
        status = error_set(err, USWAP_E_INVALID, 0, "policy", NULL, "there is no action %u", action);
    else if (ring_length(ring) + count > ORDERS_PER_FRAME * limit)
        status = error_set(err, USWAP_E_INVALID, 0, "policy", NULL,
                           "the policy has named %llu pages at once; the pool can have %llu in memory",
                           (unsigned long long)count, (unsigned long long)limit);
    for (uint64_t done = 0; status == 0 && done < count;) {
        stay copied[COPY_STAYS];
        uint32_t part = (uint32_t)MIN_OF(count - done, (uint64_t)COPY_STAYS);
        for (uint32_t i = 0; i < part; i++)
            copied[i] = (stay){stays[done + i]};
        gate_enter(&pool->gate); /* it looks at the pages of others, too */
        ring_push_orders(pool, ring, copied, part);
        gate_leave(&pool->gate);
        STAT_ADD(pool, policy_orders, part);
        done += part;
    }
    api_leave(&guard);
    return status;
}

/* Whether it is the page's last stay, and has not ended. */
static bool is_current(uswap_pool *pool, stay s) {
    region *r = region_get_by_stay(&pool->regions, s);
    if (!r)
        return false;
    uint64_t word = page_load(&r->object.words[stay_page(s)]);
    region_put(r);
    if (page_generation_of(word) != stay_generation(s))
        return false;
    return page_state_of(word) == PAGE_RESIDENT ||
           (page_state_of(word) == PAGE_SWAPPED &&
            slot_state_of(swap_cache_load(pool, page_entry_of(word))) != CACHE_NONE);
}

EXPORT int64_t uswap_policy_current(uswap_pool *pool, uint64_t *stays, uint64_t count, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    uint64_t kept = 0;
    for (uint64_t i = 0; i < count; i++) {
        stay s = {stays[i]};
        gate_enter(&pool->gate);
        bool current = is_current(pool, s);
        gate_leave(&pool->gate);
        if (current)
            stays[kept++] = s.value;
    }
    api_leave(&guard);
    return (int64_t)kept;
}
