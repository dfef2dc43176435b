/*
 * page_word.h - the state of one page: one atomic 64-bit word.
 *
 *   bits  0- 2 state    3 LOCK    4 WAITERS    5 MLOCKED    6-12 pins    13-22 generation    23 SEALED    24-63 swap entry,
 *   or, of a FILLED page, the index of its fill value, or, of a POISONED one, the errno of what went wrong
 *
 * The word is the spec: README, Page states. All fields but WAITERS change only under LOCK. The generation counts arrivals,
 * so that a ring entry of an earlier stay can be told from the present one.
 */
#ifndef USWAP_REGION_PAGE_WORD_H
#define USWAP_REGION_PAGE_WORD_H

#include "base/base.h"
#include "base/held.h"
#include "base/lock.h"
#include "swap/fill_value.h"
#include "swap/swap_entry.h"

typedef enum { PAGE_ZERO = 0, PAGE_RESIDENT = 1, PAGE_SWAPPED = 2, PAGE_POISONED = 3, PAGE_FILLED = 4 } page_state;

typedef _Atomic uint64_t page_word;

#define PAGE_STATE_MASK UINT64_C(7)
#define PAGE_LOCK (UINT64_C(1) << 3)
#define PAGE_WAITERS (UINT64_C(1) << 4)
#define PAGE_MLOCKED (UINT64_C(1) << 5)
#define PAGE_PIN_SHIFT 6
#define PAGE_PIN_ONE (UINT64_C(1) << PAGE_PIN_SHIFT)
#define PAGE_PIN_MASK (UINT64_C(127) << PAGE_PIN_SHIFT)
#define PAGE_PINS_MAX 100
#define PAGE_GENERATION_SHIFT 13
#define PAGE_GENERATION_MASK (UINT64_C(1023) << PAGE_GENERATION_SHIFT)
#define PAGE_SEALED (UINT64_C(1) << 23)
#define PAGE_FIELD_SHIFT 24

static inline uint64_t page_load(page_word *page) {
    return atomic_load_explicit(page, memory_order_acquire);
}

static inline page_state page_state_of(uint64_t word) {
    return (page_state)(word & PAGE_STATE_MASK);
}

/* SWAP_ENTRY_NONE for a FILLED or POISONED page: what its word holds there is no entry. */
static inline swap_entry page_entry_of(uint64_t word) {
    page_state state = page_state_of(word);
    return state == PAGE_FILLED || state == PAGE_POISONED ? SWAP_ENTRY_NONE : (swap_entry){word >> PAGE_FIELD_SHIFT};
}

/* As lost_because has it. Context: the page is POISONED. */
static inline int page_errno_of(uint64_t word) {
    return (int)(word >> PAGE_FIELD_SHIFT);
}

/* Context: the page is FILLED. */
static inline fill_index page_fill_of(uint64_t word) {
    return (fill_index){(uint32_t)(word >> PAGE_FIELD_SHIFT)};
}

static inline unsigned page_generation_of(uint64_t word) {
    return (unsigned)((word & PAGE_GENERATION_MASK) >> PAGE_GENERATION_SHIFT);
}

static inline unsigned page_pins_of(uint64_t word) {
    return (unsigned)((word & PAGE_PIN_MASK) >> PAGE_PIN_SHIFT);
}

/* Locked by uswap_region_lock or _pin: not to be evicted. */
static inline bool page_is_held(uint64_t word) {
    return (word & (PAGE_MLOCKED | PAGE_PIN_MASK)) != 0;
}

static inline bool page_try_lock(page_word *page) {
    uint64_t word = atomic_load_explicit(page, memory_order_relaxed);
    bool got = !(word & PAGE_LOCK) && atomic_compare_exchange_strong_explicit(
                                          page, &word, word | PAGE_LOCK, memory_order_acquire, memory_order_relaxed);
    if (got)
        held_page_locked();
    return got;
}

/* Waits for the lock in the parking lot. Context: no other page lock is held. */
void page_lock(page_word *page);
void page_unlock(page_word *page);
/* Something that a waiter looks at has changed without the page's lock (its region is leaving): whoever set WAITERS looks again. */
void page_notify(page_word *page);

/* RESIDENT, write-protected, and equal to the slot it keeps (reclaim/sealed.h). */
static inline bool page_is_sealed(uint64_t word) {
    return (word & PAGE_SEALED) != 0;
}

/* The only writers of states and entries. Context: page locked. They check the move against the table of README; an arrival
 * (RESIDENT) starts a new generation. No page is SEALED after it. */
void page_set_state(page_word *page, page_state state, swap_entry entry);
void page_set_filled(page_word *page, fill_index fill);
void page_set_poisoned(page_word *page, int os_errno);
/* A new generation without an arrival: earlier ring entries of the page become stale. Context: page locked. */
void page_renew(page_word *page);
/* Context: page locked. */
void page_set_bits(page_word *page, uint64_t clear, uint64_t set);

#endif
