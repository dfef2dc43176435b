/*
 * shared_word.h - the state of one page of a shared object: one atomic 64-bit word in the commons.
 *
 *   bits 0-2 state   3 LOCK   4 WAITERS   5 SEALED   6-11 heat   12-27 member   28-63 frame, or slot (SWAPPED, LEAVING)
 *
 * member: who holds LOCK; without it, in whose hand the page is (READING, WRITING, LEAVING). The word is the spec: README, Processes of one
 * pool. While it is locked it changes by that member's hand alone, but for WAITERS; else by one compare-and-swap (shared_move).
 */
#ifndef USWAP_SHARED_SHARED_WORD_H
#define USWAP_SHARED_SHARED_WORD_H

#include "shared/commons.h"

typedef enum {
    SHARED_ZERO = 0,
    SHARED_RESIDENT = 1, /* the object's file has the contents, in that frame */
    SHARED_SWAPPED = 2,  /* the slot has */
    SHARED_READING = 3,  /* the member is reading the slot (in the frame's use word) into the object's file */
    SHARED_WRITING =
        4, /* as RESIDENT, write-protected everywhere; the member is writing it to a slot, or finds that the kept one is right */
    SHARED_POISONED = 5,
    SHARED_LEAVING =
        6 /* the slot has the contents (0: none, they are zeroes, or discarded); the member punches the hole in the object's file */
} shared_state;

typedef _Atomic uint64_t shared_word;

#define SHARED_STATE_MASK UINT64_C(7)
#define SHARED_LOCK (UINT64_C(1) << 3)
#define SHARED_WAITERS (UINT64_C(1) << 4)
/* RESIDENT: the kept slot has the contents, and no mapper can store to the page without a fault: it was mapped write-protected everywhere
 * since it came in (README). Taken off before a store is allowed anywhere. WRITING, LEAVING: the page is discarded. SWAPPED: the file may have
 * contents too, or get them late: a read was broken off, or the order to punch was taken back. */
#define SHARED_SEALED (UINT64_C(1) << 5)
/* Heat (shared_heat.c): how often in a row the page has come back soon after it was evicted, and how often the hand passes it over yet
 * (RESIDENT). A hint. */
#define SHARED_LEVEL_SHIFT 6
#define SHARED_LEVEL_MASK (UINT64_C(3) << SHARED_LEVEL_SHIFT)
#define SHARED_ROUNDS_SHIFT 8
#define SHARED_ROUNDS_MASK (UINT64_C(0xF) << SHARED_ROUNDS_SHIFT)
#define SHARED_HEAT_MASK (SHARED_LEVEL_MASK | SHARED_ROUNDS_MASK)
#define SHARED_MEMBER_SHIFT 12
#define SHARED_MEMBER_MASK (UINT64_C(0xFFFF) << SHARED_MEMBER_SHIFT)
#define SHARED_FIELD_SHIFT 28

static inline shared_state shared_state_of(uint64_t word) {
    return (shared_state)(word & SHARED_STATE_MASK);
}

static inline member_id shared_member_of(uint64_t word) {
    return (member_id){(uint16_t)(word >> SHARED_MEMBER_SHIFT)};
}

static inline uint64_t shared_field_of(uint64_t word) {
    return word >> SHARED_FIELD_SHIFT;
}

static inline uint64_t shared_load(shared_word *word) {
    return atomic_load_explicit(word, memory_order_acquire);
}

/* Somebody is at it: nobody else may lock it. (WRITING may be taken back.) */
static inline bool shared_is_taken(uint64_t word) {
    shared_state state = shared_state_of(word);
    return (word & SHARED_LOCK) || state == SHARED_READING || state == SHARED_LEAVING;
}

/* The word names the member whose it is. */
static inline bool shared_is_in_hand(uint64_t word) {
    return shared_is_taken(word) || shared_state_of(word) == SHARED_WRITING;
}

/* ZERO, or zeroes that leave: only the hole is not punched yet, or not known to be. */
static inline bool shared_is_nothing(uint64_t word) {
    shared_state state = shared_state_of(word);
    return state == SHARED_ZERO || (state == SHARED_LEAVING && shared_field_of(word) == 0 && !(word & SHARED_SEALED));
}

/* It is that member's. */
static inline bool shared_is_of(uint64_t word, member_id member) {
    return shared_is_in_hand(word) && member_equal(shared_member_of(word), member);
}

/* One step of a page that nobody has locked, from the word that was seen. member: MEMBER_NONE, or whose the page is then. bits: SEALED, and the heat.
 * Return: false: it is not as it was seen any more, but for WAITERS. *waiters: somebody waits for this: the caller wakes the page's mappers (shared_wake). */
bool shared_move(shared_word *word, uint64_t seen, shared_state state, member_id member, uint64_t field, uint64_t bits,
                 bool *waiters);
/* WRITING, and not locked => RESIDENT: the writer finds out. Return: false: it is not so any more. */
bool shared_take_back(shared_word *word, uint64_t seen);
/* Whoever ends what is done to the page (locked, READING, LEAVING) wakes its mappers. Return: false: nothing is done to it. */
bool shared_await(shared_word *word);
/* Return: false if somebody has it: no member ever waits for the lock of a page. A page that is READING or LEAVING is its member's; one that is WRITING is
 * left alone, or, with wait, taken back. wait: also, WAITERS is set if it is false, as by shared_await. */
bool shared_try_lock(shared_word *word, member_id self, bool wait);
/* Locks a page that self is READING or WRITING (state), to end that. Return: false if it is that no more: somebody took it back. */
bool shared_lock_own(shared_word *word, member_id self, shared_state state);
/* Locks a page that was seen READING, and not locked: its member finds out. Return: false: it is not so any more. */
bool shared_lock_reading(shared_word *word, member_id self, uint64_t seen);
/* The same of one that was seen LEAVING because it is discarded; it is ZERO. */
bool shared_lock_discarded(shared_word *word, member_id self, uint64_t seen);
/* Locks what the dead member had locked, or had in its hand. Return: false if it has nothing here. */
bool shared_lock_of_dead(shared_word *word, member_id self, member_id dead);
/* Ends the lock. Return: true if there are waiters: the caller wakes the page's mappers (shared_wake). */
bool shared_unlock(shared_word *word, member_id self) __attribute__((warn_unused_result));
/* Context: locked by self. LEAVING: of self, once it is unlocked. bits: SEALED, and the heat. LOCK and WAITERS stay. */
void shared_set(shared_word *word, member_id self, shared_state state, uint64_t field, uint64_t bits);

#endif
