#include "shared/shared_policy.h"

#include "base/memory.h"
#include "base/status.h"
#include "pool.h"
#include "reclaim/events.h"
#include "shared/shared_core.h"

#include <errno.h>
#include <string.h>

#define BYTES_PER_EVENT (sizeof(uint64_t) + sizeof(uint32_t) + sizeof(uint8_t))
#define BUFFER_BYTES ((size_t)SHARED_EVENTS_MAX * BYTES_PER_EVENT)
#define MEMORY_BYTES (2 * BUFFER_BYTES + SHARED_ORDERED_MAX * sizeof(uint64_t))
/* Of the caller's memory, which may be managed itself: copied before the lock is taken. */
#define COPY_STAYS 64U

static shared_event_buffer buffer_at(unsigned char *start) {
    shared_event_buffer buffer = {.stays = (uint64_t *)(void *)start};
    buffer.distances = (uint32_t *)(void *)(buffer.stays + SHARED_EVENTS_MAX);
    buffer.users = (uint8_t *)(buffer.distances + SHARED_EVENTS_MAX);
    return buffer;
}

static int listen(uswap_pool *pool, uint32_t every) {
    shared_policy_log *log = &pool->shared_policy;
    if (!atomic_load(&pool->group)) /* it has no shared pages, and never will */
        return 0;
    if (!log->memory) {
        unsigned char *memory = memory_map(MEMORY_BYTES);
        if (!memory)
            return -ENOMEM;
        frame_charge_metadata(pool, bytes_to_pages(MEMORY_BYTES));
        log->noting = buffer_at(memory);
        log->reading = buffer_at(memory + BUFFER_BYTES);
        log->orders = (uint64_t *)(void *)(memory + 2 * BUFFER_BYTES);
        log->memory = memory;
    }
    small_lock_acquire(&log->lock);
    log->every = MAX_OF(UINT32_C(1), MIN_OF(every, SHARED_EVENTS_MAX / 2));
    log->count = log->ordered = 0;
    log->lost = false;
    atomic_store(&log->listens, 1);
    small_lock_release(&log->lock);
    return 0;
}

void shared_policy_end(uswap_pool *pool) {
    shared_policy_log *log = &pool->shared_policy;
    small_lock_acquire(&log->lock);
    atomic_store(&log->listens, 0);
    log->count = log->ordered = 0;
    small_lock_release(&log->lock);
}

void shared_policy_fini(uswap_pool *pool) {
    if (pool->shared_policy.memory)
        memory_unmap(pool->shared_policy.memory, MEMORY_BYTES);
    pool->shared_policy.memory = NULL;
}

/* ---- what it is told ---- */

void shared_policy_note(group *g, const shared_region *r, size_t page, uint32_t frame, uint32_t distance) {
    shared_policy_log *log = &g->pool->shared_policy;
    small_lock_acquire(&log->lock);
    bool fits = shared_policy_listens(log) && log->count < SHARED_EVENTS_MAX;
    if (fits) {
        log->noting.distances[log->count] = distance;
        log->noting.stays[log->count++] = (frame & SHARED_STAY_FRAME_MASK) |
                                          (uint64_t)shared_key(r->object, r->generation) << SHARED_STAY_KEY_SHIFT |
                                          (uint64_t)page << SHARED_STAY_PAGE_SHIFT;
    }
    bool due = fits && log->count == log->every;
    log->lost |= !fits;
    small_lock_release(&log->lock);
    if (due)
        events_tell(g->pool);
}

void shared_policy_wake(group *g) {
    if (shared_policy_listens(&g->pool->shared_policy))
        events_tell(g->pool);
}

/* How many processes see the page now. */
static uint8_t count_users(const group *g, uint64_t named) {
    uint64_t key = named >> SHARED_STAY_KEY_SHIFT & (OBJECTS_MAX - 1), page = named >> SHARED_STAY_PAGE_SHIFT;
    const object_entry *object = group_object(g, (uint32_t)key);
    uint8_t users = 0;
    for (uint64_t bits = atomic_load(&object->mappers) & ~MAPPERS_CLOSED; bits != 0; bits &= bits - 1)
        users = (uint8_t)(users + (page < atomic_load(&object->mapped[__builtin_ctzll(bits)])));
    return users;
}

/* As the eviction thread sees it: what it would evict now. */
static void look_at_need(group *g, uswap_shared_events *events) {
    share_state *s = share_of(g);
    if (!s)
        return;
    uint64_t total = atomic_load(&s->frames_total), want = 2 * atomic_load(&s->frames_low);
    uint64_t used = MIN_OF(shared_used_frames(&g->commons), total), free = total - used;
    events->capacity_frames = total;
    events->short_frames = want > free && total > 0 ? want - free : 0;
}

EXPORT int uswap_policy_shared_events(uswap_pool *pool, uswap_shared_events *events, uswap_error *err) {
    uswap_shared_events seen = {.count = 0};
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    shared_policy_log *log = &pool->shared_policy;
    group *g = atomic_load(&pool->group);
    small_lock_acquire(&log->lock);
    shared_event_buffer filled = log->noting;
    seen.count = log->count;
    seen.lost = log->lost;
    seen.prepared_frames = log->ordered;
    log->noting = log->reading;
    log->reading = filled;
    log->count = 0;
    log->lost = false;
    small_lock_release(&log->lock);
    for (uint64_t i = 0; g && i < seen.count; i++)
        filled.users[i] = count_users(g, filled.stays[i]);
    if (g)
        look_at_need(g, &seen);
    seen.stays = filled.stays;
    seen.distances = filled.distances;
    seen.users = filled.users;
    api_leave(&guard);
    *events = seen;
    return 0;
}

EXPORT int uswap_policy_shared_listen(uswap_pool *pool, uint32_t every, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    if (listen(pool, every) != 0)
        status = error_set(err, USWAP_E_NO_MEMORY, 0, "policy", NULL, "no memory for a policy's buffers");
    api_leave(&guard);
    return status;
}

/* ---- what it orders ---- */

/* Return: how many there was room for. */
static uint32_t push(shared_policy_log *log, const uint64_t *stays, uint32_t count) {
    small_lock_acquire(&log->lock);
    uint32_t fits = shared_policy_listens(log) ? MIN_OF(count, SHARED_ORDERED_MAX - log->ordered) : 0;
    for (uint32_t i = 0; i < fits; i++)
        log->orders[(log->first + log->ordered++) % SHARED_ORDERED_MAX] = stays[i];
    small_lock_release(&log->lock);
    return fits;
}

EXPORT int uswap_policy_shared_order(uswap_pool *pool, const uint64_t *stays, uint64_t count, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    if (!atomic_load(&pool->group) &&
        count <= SHARED_ORDERED_MAX) { /* without shared pages every stay is out of date */
        STAT_ADD(pool, policy_orders, count);
        STAT_ADD(pool, policy_passed, count);
        count = 0;
    }
    for (uint64_t done = 0; done < count && status == 0;) {
        uint64_t copied[COPY_STAYS];
        uint32_t part = (uint32_t)MIN_OF(count - done, (uint64_t)COPY_STAYS);
        memcpy(copied, stays + done, part * sizeof *copied);
        if (push(&pool->shared_policy, copied, part) < part)
            status =
                error_set(err, USWAP_E_INVALID, 0, "policy", NULL,
                          "the policy has named more shared pages than %u that have not left yet", SHARED_ORDERED_MAX);
        STAT_ADD(pool, policy_orders, part);
        done += part;
    }
    api_leave(&guard);
    return status;
}

static bool pop(shared_policy_log *log, uint64_t *named) {
    small_lock_acquire(&log->lock);
    bool any = log->ordered > 0;
    if (any) {
        *named = log->orders[log->first];
        log->first = (log->first + 1) % SHARED_ORDERED_MAX;
        log->ordered--;
    }
    small_lock_release(&log->lock);
    return any;
}

/* Whether the page is (still) in such a frame. */
static bool find(group *g, uint64_t named, uint32_t *frame) {
    uint32_t key = (uint32_t)(named >> SHARED_STAY_KEY_SHIFT & 0x3FFFF), index = key & (OBJECTS_MAX - 1);
    uint64_t page = named >> SHARED_STAY_PAGE_SHIFT;
    shared_region *r = shared_region_get(g, index);
    if (!r)
        return false;
    bool there = shared_key(r->object, r->generation) == key && page < object_pages(group_object(g, index));
    uint64_t word = there ? shared_load(&r->words[page]) : 0, field = shared_field_of(word);
    shared_region_put(r);
    *frame = (uint32_t)field;
    return there && shared_state_of(word) == SHARED_RESIDENT && field < commons_head(&g->commons)->frames &&
           ((field ^ named) & SHARED_STAY_FRAME_MASK) == 0;
}

bool shared_policy_next(group *g, uint32_t *frame) {
    shared_policy_log *log = &g->pool->shared_policy;
    uint64_t named;
    if (!shared_policy_listens(log))
        return false;
    while (pop(log, &named)) {
        if (find(g, named, frame))
            return true;
        STAT_ADD(g->pool, policy_passed, 1);
    }
    return false;
}
