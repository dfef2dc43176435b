#include "reclaim/events.h"

#include "base/memory.h"
#include "pool.h"
#include "reclaim/ring.h"
#include "swap/swap_cache.h"

#include <errno.h>

#define BUFFERS 3
#define BYTES_PER_EVENT (sizeof(stay) + sizeof(uint32_t) + sizeof(uint8_t))
#define MEMORY_BYTES ((size_t)BUFFERS * EVENTS_MAX * BYTES_PER_EVENT)

static event_buffer buffer_at(unsigned char *memory, unsigned number) {
    unsigned char *start = memory + (size_t)number * EVENTS_MAX * BYTES_PER_EVENT;
    event_buffer buffer = {.stays = (stay *)(void *)start};
    buffer.distances = (uint32_t *)(void *)(buffer.stays + EVENTS_MAX);
    buffer.kinds = (uint8_t *)(buffer.distances + EVENTS_MAX);
    return buffer;
}

int events_listen(uswap_pool *pool, uint32_t wanted, uint32_t every) {
    event_log *log = &pool->events;
    if (!log->memory) {
        log->memory = memory_map(MEMORY_BYTES);
        if (!log->memory)
            return -ENOMEM;
        frame_charge_metadata(pool, bytes_to_pages(MEMORY_BYTES));
        log->noting = buffer_at(log->memory, 0);
        log->reading = buffer_at(log->memory, 1);
        log->sorted = buffer_at(log->memory, 2);
    }
    small_lock_acquire(&log->lock);
    log->every = MAX_OF(UINT32_C(1), MIN_OF(every, (uint32_t)EVENTS_MAX / 2));
    log->count = 0;
    log->lost = true; /* what came before is to be told of */
    atomic_store(&log->wanted, wanted);
    small_lock_release(&log->lock);
    return 0;
}

void events_end(uswap_pool *pool) {
    atomic_store(&pool->events.wanted, 0);
}

void events_fini(uswap_pool *pool) {
    if (pool->events.memory)
        memory_unmap(pool->events.memory, MEMORY_BYTES);
    pool->events.memory = NULL;
}

void events_tell(uswap_pool *pool) {
    if (!atomic_exchange(&pool->events_waiting, 1))
        event_signal(&pool->native.pressure);
}

static void note_in_trace(uswap_pool *pool, unsigned kind, const stay *stays, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (kind == USWAP_EVENT_EVICTED || kind == USWAP_EVENT_AGED)
            trace_note(pool, kind == USWAP_EVENT_EVICTED ? TRACE_EVICTED : TRACE_AGED, stays[i], false);
}

void events_note(uswap_pool *pool, unsigned kind, const stay *stays, uint32_t count, uint32_t distance) {
    event_log *log = &pool->events;
    if (unlikely(trace_is_on(&pool->trace)))
        note_in_trace(pool, kind, stays, count);
    if (!(atomic_load_explicit(&log->wanted, memory_order_relaxed) >> (kind & ~EVENT_MARKED) & 1))
        return;
    small_lock_acquire(&log->lock);
    uint32_t room = EVENTS_MAX - log->count, fits = MIN_OF(count, room);
    for (uint32_t i = 0; i < fits; i++) {
        log->noting.stays[log->count + i] = stays[i];
        log->noting.distances[log->count + i] = distance;
        log->noting.kinds[log->count + i] = (uint8_t)kind;
    }
    log->lost |= fits < count;
    bool due = log->count < log->every && log->count + fits >= log->every;
    log->count += fits;
    small_lock_release(&log->lock);
    if (due)
        events_tell(pool);
}

void events_note_slot(uswap_pool *pool, unsigned kind, swap_entry entry) {
    if (!(atomic_load_explicit(&pool->events.wanted, memory_order_relaxed) >> kind & 1) && !trace_is_on(&pool->trace))
        return;
    page_ref owner = swap_map_owner(pool, entry);
    region *r = region_get_by_ref(&pool->regions, owner);
    if (!r)
        return;
    stay present = stay_of(r, page_ref_page(owner));
    region_put(r);
    events_note(pool, kind, &present, 1, REFAULT_NEVER);
}

void pages_came(uswap_pool *pool, const stay *stays, uint32_t count, unsigned kind, uint32_t distance) {
    bool marked = kind == (USWAP_EVENT_RESCUED | EVENT_MARKED);
    ring_push_pages(pool, marked ? &pool->ring_marked : &pool->ring, stays, count);
    if (unlikely(distance < atomic_load_explicit(&pool->near_distance, memory_order_relaxed)) &&
        (kind & ~EVENT_MARKED) == USWAP_EVENT_FAULTED)
        atomic_fetch_add_explicit(&pool->near_refaults, count, memory_order_relaxed);
    events_note(pool, kind, stays, count, distance);
}

void page_came(uswap_pool *pool, const region *r, size_t page, unsigned kind, uint32_t distance) {
    stay present = stay_of(r, page);
    pages_came(pool, &present, 1, kind, distance);
}
