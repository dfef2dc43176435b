#include "swap/swap_cache.h"

#include "pool.h"
#include "swap/holders.h"

#include <string.h>

static _Atomic uint64_t *word_at(uswap_pool *pool, swap_entry entry) {
    return &slot_at(pool, entry)->word;
}

static bool exchange(_Atomic uint64_t *at, uint64_t *word, uint64_t to) {
    return atomic_compare_exchange_weak_explicit(at, word, to, memory_order_acq_rel, memory_order_acquire);
}

static uint64_t with_state(uint64_t word, cache_state state, frame_id frame) {
    uint64_t kept = word & (SLOT_COUNT_MASK | SLOT_BAD | SLOT_WANTED | SLOT_AHEAD | SLOT_MARKER | SLOT_STAYS |
                            SLOT_MARKED | SLOT_DISTANCE_MASK | SLOT_PIN_MASK);
    return kept | (uint64_t)state << SLOT_STATE_SHIFT | (uint64_t)frame << SLOT_FRAME_SHIFT;
}

/* A frame has left the cache. */
static void count_gone(uswap_pool *pool, uint64_t word) {
    STAT_SUB(pool, cached_pages, 1);
    if (word & SLOT_STAYS)
        STAT_SUB(pool, inactive_pages, 1);
}

/* Nothing cached: count and BAD remain. */
static uint64_t without_frame(uint64_t word) {
    return word & (SLOT_COUNT_MASK | SLOT_BAD);
}

uint64_t swap_cache_load(uswap_pool *pool, swap_entry entry) {
    return atomic_load_explicit(word_at(pool, entry), memory_order_acquire);
}

page_ref swap_map_owner(uswap_pool *pool, swap_entry entry) {
    return (page_ref){atomic_load_explicit(&slot_at(pool, entry)->owner, memory_order_acquire)};
}

page_hash swap_map_hash(uswap_pool *pool, swap_entry entry) {
    page_hash hash;
    memcpy(&hash, slot_at(pool, entry)->hash, sizeof hash);
    return hash;
}

bool swap_cache_is_right(uswap_pool *pool, swap_entry entry, frame_id frame) {
    page_hash expected = swap_map_hash(pool, entry), found = page_hash_of(frame_address(pool, frame), pool->hash_seed);
    return !pool->options.verify || (expected.low == found.low && expected.high == found.high);
}

/* The word has become (count 0, NONE) by the caller's exchange: the slot goes back, unless the device refused it. */
static void free_slot(uswap_pool *pool, swap_entry entry, uint64_t word) {
    swap_area *area = &pool->areas[swap_entry_area(entry)];
    if (unlikely(area->inherited)) {
        holders_release(pool, entry);
        atomic_fetch_sub(&area->used_slots, 1);
    } else if (word & SLOT_BAD) {
        atomic_fetch_add(&area->lost_slots, 1);
    } else if (likely(!atomic_load_explicit(&area->holders, memory_order_relaxed)) || !holders_lend(pool, entry)) {
        slot_alloc_give(area, swap_entry_slot(entry), 1);
    }
    if (unlikely(!swap_area_in_use(area)))
        event_signal(&area->slot_freed);
    if (word & SLOT_BAD || area->inherited)
        return;
    if (unlikely(atomic_load(&pool->slots_exhausted)) && atomic_fetch_add(&pool->slots_freed, 1) + 1 >= CLUSTER_SLOTS)
        atomic_store(&pool->slots_exhausted, 0);
}

/* One that nobody uses: nobody else changes its word. */
static bool forgive(uswap_pool *pool, swap_area *area, uint64_t slot) {
    uint64_t word = SLOT_BAD;
    if (!atomic_compare_exchange_strong(&area->slots[slot].word, &word, 0))
        return false;
    atomic_fetch_sub(&area->lost_slots, 1);
    STAT_SUB(pool, bad_slots, 1);
    slot_alloc_give(area, slot, 1);
    return true;
}

uint64_t swap_cache_forgive(uswap_pool *pool, uint64_t most) {
    const uint64_t per_chunk = PAGE_BYTES / sizeof(swap_slot);
    uint64_t forgiven = 0;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        swap_area *area = &pool->areas[i];
        uint64_t end = swap_area_in_use(area) ? atomic_load(&area->usable_slots) : 0;
        for (uint64_t slot = 0; slot < end && forgiven < most && atomic_load(&area->lost_slots) > 0; slot++)
            if (!atomic_load_explicit(&area->slots_touched[slot / per_chunk], memory_order_relaxed))
                slot += per_chunk - 1 - slot % per_chunk;
            else
                forgiven += forgive(pool, area, slot);
    }
    return forgiven;
}

static void settle(uswap_pool *pool, swap_entry entry, uint64_t word) {
    if (slot_count_of(word) == 0 && slot_state_of(word) == CACHE_NONE)
        free_slot(pool, entry, word);
}

void swap_cache_add_writing(uswap_pool *pool, swap_entry entry, frame_id frame, page_ref owner, page_hash hash,
                            uint64_t flags) {
    swap_slot *slot = slot_at(pool, entry);
    INVARIANT(I6, atomic_load(&slot->word) == 0);
    atomic_store_explicit(&slot->owner, owner.value, memory_order_relaxed);
    memcpy(slot->hash, &hash, sizeof hash);
    STAT_ADD(pool, cached_pages, 1);
    STAT_ADD(pool, inactive_pages, (flags & SLOT_STAYS) != 0);
    atomic_store_explicit(&slot->word, with_state(1 | flags, CACHE_WRITING, frame), memory_order_release);
}

bool swap_cache_add_clean(uswap_pool *pool, swap_entry entry, frame_id frame, uint64_t flags) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    do {
        if (slot_state_of(word) != CACHE_NONE)
            return false;
    } while (!exchange(at, &word, with_state(word, CACHE_CLEAN, frame) | flags));
    STAT_ADD(pool, cached_pages, 1);
    STAT_ADD(pool, inactive_pages, 1);
    return true;
}

bool swap_cache_claim_read(uswap_pool *pool, swap_entry entry, frame_id frame, uint64_t flags) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    uint64_t clock = atomic_load_explicit(&pool->eviction_clock, memory_order_relaxed), distance;
    do {
        if (slot_state_of(word) != CACHE_NONE || slot_count_of(word) == 0)
            return false;
        distance = (uint64_t)shadow_encode(word >> SLOT_FRAME_SHIFT, clock) << SLOT_DISTANCE_SHIFT;
    } while (!exchange(at, &word, with_state(word, CACHE_READING, frame) | distance | flags));
    STAT_ADD(pool, cached_pages, 1);
    return true;
}

bool swap_cache_want(uswap_pool *pool, swap_entry entry, uint64_t *flags) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    do {
        if (slot_state_of(word) != CACHE_READING)
            return false;
    } while (!exchange(at, &word, word | SLOT_WANTED));
    *flags = word;
    return true;
}

void swap_cache_evicted(uswap_pool *pool, swap_entry entry, uint64_t flags) {
    uint64_t clock = atomic_fetch_add_explicit(&pool->eviction_clock, 1, memory_order_relaxed) + 1;
    if (swap_entry_is_none(entry))
        return;
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    do {
        if (slot_state_of(word) != CACHE_NONE || slot_count_of(word) == 0)
            return;
    } while (
        !exchange(at, &word, without_frame(word) | (flags & SLOT_MARKED) | shadow_make(clock) << SLOT_FRAME_SHIFT));
}

/* states: a bit each. */
static bool take(uswap_pool *pool, swap_entry entry, unsigned states, frame_id *frame, uint64_t *flags) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    do {
        if (!(states >> slot_state_of(word) & 1) || (word & SLOT_PIN_MASK))
            return false;
    } while (!exchange(at, &word, without_frame(word)));
    *frame = slot_frame_of(word);
    *flags = word;
    count_gone(pool, word);
    settle(pool, entry, without_frame(word));
    return true;
}

bool swap_cache_take(uswap_pool *pool, swap_entry entry, cache_state from, frame_id *frame, uint64_t *flags) {
    return take(pool, entry, 1U << from, frame, flags);
}

bool swap_cache_take_arrived(uswap_pool *pool, swap_entry entry, frame_id *frame, uint64_t *flags) {
    return take(pool, entry, 1U << CACHE_CLEAN | 1U << CACHE_READING, frame, flags);
}

bool swap_cache_pin(uswap_pool *pool, swap_entry entry, frame_id *frame) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    do {
        cache_state state = slot_state_of(word);
        if ((state != CACHE_WRITING && state != CACHE_CLEAN) || (word & SLOT_PIN_MASK) == SLOT_PIN_MASK)
            return false;
    } while (!exchange(at, &word, (word & ~SLOT_STAYS) + SLOT_PIN_ONE)); /* a copy of it goes in: no need to stay */
    if (word & SLOT_STAYS)
        STAT_SUB(pool, inactive_pages, 1);
    *frame = slot_frame_of(word);
    DEBUG_INVARIANT(I7, swap_cache_is_right(pool, entry, *frame));
    return true;
}

bool swap_cache_unpin(uswap_pool *pool, swap_entry entry, frame_id *frame) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire), to;
    bool last;
    do {
        INVARIANT(I7, word & SLOT_PIN_MASK);
        to = word - SLOT_PIN_ONE;
        /* The write ended while we copied, or failed and the page has given the slot up: nobody else will drop the frame. */
        last = !(to & SLOT_PIN_MASK) &&
               (slot_state_of(word) == CACHE_CLEAN || (slot_state_of(word) == CACHE_DIRTY && slot_count_of(word) == 0));
        if (last)
            to = without_frame(word);
    } while (!exchange(at, &word, to));
    if (!last)
        return false;
    *frame = slot_frame_of(word);
    count_gone(pool, word);
    settle(pool, entry, to);
    return true;
}

cache_end swap_cache_end_read(uswap_pool *pool, swap_entry entry, read_wish wish, frame_id *frame) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire), to;
    cache_end end;
    do {
        INVARIANT(I7, slot_state_of(word) == CACHE_READING);
        *frame = slot_frame_of(word);
        if (slot_count_of(word) == 0) {
            end = END_DROP;
            to = without_frame(word);
        } else if (wish == WISH_MAP || (wish == WISH_IF_WANTED && (word & SLOT_WANTED))) {
            return END_MAP;
        } else {
            end = END_KEEP;
            to = with_state(word & ~SLOT_WANTED, CACHE_CLEAN, *frame);
        }
    } while (!exchange(at, &word, to));
    if (end == END_DROP) {
        count_gone(pool, word);
        settle(pool, entry, to);
    }
    return end;
}

cache_end swap_cache_end_write(uswap_pool *pool, swap_entry entry, frame_id *frame, uint64_t *flags) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire), to;
    bool kept;
    DEBUG_INVARIANT(I7, swap_cache_is_right(pool, entry, slot_frame_of(word)));
    do {
        INVARIANT(I7, slot_state_of(word) == CACHE_WRITING);
        *frame = slot_frame_of(word);
        kept = (word & SLOT_PIN_MASK) || ((word & SLOT_STAYS) && slot_count_of(word) > 0);
        to = kept ? with_state(word, CACHE_CLEAN, *frame) : without_frame(word);
    } while (!exchange(at, &word, to));
    *flags = word;
    if (kept)
        return END_KEEP;
    count_gone(pool, word);
    settle(pool, entry, to);
    return END_DROP;
}

bool swap_cache_fail_write(uswap_pool *pool, swap_entry entry, frame_id *frame) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire), to;
    bool unused;
    do {
        *frame = slot_frame_of(word);
        unused = slot_count_of(word) == 0 && !(word & SLOT_PIN_MASK); /* pinned: the last unpin drops the frame */
        to = unused ? SLOT_BAD : with_state(word, CACHE_DIRTY, *frame) | SLOT_BAD;
    } while (!exchange(at, &word, to));
    STAT_ADD(pool, bad_slots, 1);
    if (unused) {
        count_gone(pool, word);
        settle(pool, entry, to);
    }
    return !unused;
}

void swap_map_put(uswap_pool *pool, swap_entry entry) {
    _Atomic uint64_t *at = word_at(pool, entry);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire), to;
    bool drop;
    do {
        INVARIANT(I5, slot_count_of(word) > 0);
        to = word - 1;
        cache_state state = slot_state_of(word);
        drop = slot_count_of(to) == 0 && (state == CACHE_CLEAN || state == CACHE_DIRTY) && !(word & SLOT_PIN_MASK);
        if (drop || (slot_count_of(to) == 0 && state == CACHE_NONE)) /* a free slot has no shadow */
            to = without_frame(to);
    } while (!exchange(at, &word, to));
    if (drop) {
        count_gone(pool, word);
        frame_drop(pool, slot_frame_of(word), 1);
    }
    settle(pool, entry, to);
}

void swap_cache_count_read(uswap_pool *pool, uint64_t requests, uint64_t pages, uint64_t ahead_pages) {
    STAT_ADD(pool, reads, requests);
    STAT_ADD(pool, pages_in, pages);
    STAT_ADD(pool, read_ahead_pages, ahead_pages);
}

void swap_cache_count_write(uswap_pool *pool, uint64_t requests, uint64_t pages) {
    STAT_ADD(pool, writes, requests);
    STAT_ADD(pool, pages_out, pages);
}
