#include "region/page_word.h"

/* moves[from] = bits of the states that may follow (README, Page states). */
static const uint8_t moves[] = {
    [PAGE_ZERO] = 1U << PAGE_RESIDENT,
    [PAGE_RESIDENT] = 1U << PAGE_SWAPPED | 1U << PAGE_FILLED | 1U << PAGE_ZERO |
                      1U << PAGE_RESIDENT, /* itself: the kept entry changes */
    [PAGE_SWAPPED] = 1U << PAGE_RESIDENT | 1U << PAGE_ZERO | 1U << PAGE_POISONED,
    [PAGE_POISONED] = 1U << PAGE_ZERO,
    [PAGE_FILLED] = 1U << PAGE_RESIDENT | 1U << PAGE_ZERO,
};

#define LOCK_SPINS 200

void page_lock(page_word *page) {
    held_before_page();
    for (int turn = 0; turn < LOCK_SPINS; turn++)
        if (page_try_lock(page))
            return;
    for (;;) {
        uint32_t ticket = parking_ticket((const void *)page);
        uint64_t word = atomic_load_explicit(page, memory_order_relaxed);
        if (!(word & PAGE_LOCK)) {
            if (page_try_lock(page))
                return;
            continue;
        }
        if (!(word & PAGE_WAITERS) && !atomic_compare_exchange_strong_explicit(
                                          page, &word, word | PAGE_WAITERS, memory_order_relaxed, memory_order_relaxed))
            continue;
        parking_wait((const void *)page, ticket, 0);
    }
}

void page_unlock(page_word *page) {
    uint64_t word = atomic_fetch_and_explicit(page, ~(PAGE_LOCK | PAGE_WAITERS), memory_order_release);
    DEBUG_INVARIANT(I21, word & PAGE_LOCK);
    held_page_unlocked();
    if (word & PAGE_WAITERS)
        parking_wake((const void *)page);
}

void page_notify(page_word *page) {
    if (atomic_fetch_and(page, ~PAGE_WAITERS) & PAGE_WAITERS)
        parking_wake((const void *)page);
}

/* WAITERS may be set by others at any time, so the other fields are exchanged around it. */
static void replace_bits(page_word *page, uint64_t mask, uint64_t bits) {
    uint64_t word = atomic_load_explicit(page, memory_order_relaxed);
    INVARIANT(I3, word & PAGE_LOCK);
    while (!atomic_compare_exchange_weak_explicit(page, &word, (word & ~mask) | bits, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

static uint64_t next_generation(uint64_t word) {
    return (word + (UINT64_C(1) << PAGE_GENERATION_SHIFT)) & PAGE_GENERATION_MASK;
}

void page_renew(page_word *page) {
    uint64_t word = atomic_load_explicit(page, memory_order_relaxed);
    replace_bits(page, PAGE_GENERATION_MASK, next_generation(word));
}

static void set_state(page_word *page, page_state state, uint64_t field) {
    uint64_t word = atomic_load_explicit(page, memory_order_relaxed);
    page_state from = page_state_of(word);
    INVARIANT(I3, moves[from] & (1U << state));
    uint64_t generation = word & PAGE_GENERATION_MASK;
    if (state == PAGE_RESIDENT && from != PAGE_RESIDENT)
        generation = next_generation(word);
    replace_bits(page, PAGE_STATE_MASK | PAGE_GENERATION_MASK | PAGE_SEALED | (~UINT64_C(0) << PAGE_FIELD_SHIFT),
                 (uint64_t)state | generation | field << PAGE_FIELD_SHIFT);
}

void page_set_state(page_word *page, page_state state, swap_entry entry) {
    INVARIANT(I3, state != PAGE_FILLED && state != PAGE_POISONED);
    set_state(page, state, entry.value);
}

void page_set_filled(page_word *page, fill_index fill) {
    set_state(page, PAGE_FILLED, fill.value);
}

void page_set_poisoned(page_word *page, int os_errno) {
    set_state(page, PAGE_POISONED, (uint64_t)os_errno);
}

void page_set_bits(page_word *page, uint64_t clear, uint64_t set) {
    replace_bits(page, clear, set);
}
