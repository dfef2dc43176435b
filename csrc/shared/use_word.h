/*
 * use_word.h - the steps of the use word of a shared frame or slot. Each is one compare-and-swap, so exactly one member does it.
 */
#ifndef USWAP_SHARED_USE_WORD_H
#define USWAP_SHARED_USE_WORD_H

#include "shared/commons.h"

typedef _Atomic uint64_t use_word;

static inline uint64_t use_load(const use_word *use) {
    return atomic_load_explicit(use, memory_order_acquire);
}

static inline bool use_swap(use_word *use, uint64_t *seen, uint64_t next) {
    return atomic_compare_exchange_strong_explicit(use, seen, next, memory_order_acq_rel, memory_order_acquire);
}

static inline bool use_is(uint64_t use, use_kind kind, member_id member) {
    return use_kind_of(use) == kind && member_equal(use_member_of(use), member);
}

/* CLAIMED, LEAVING or GOING by the member. */
static inline bool use_is_held_by(uint64_t use, member_id member) {
    return use_is(use, USE_CLAIMED, member) || use_is(use, USE_LEAVING, member) || use_is(use, USE_GOING, member);
}

/* From kind by member (MEMBER_NONE with PAGE) to the other, with the field as it is. Return: false: it is not that. */
static inline bool use_step(use_word *use, use_kind from, member_id from_member, use_kind to, member_id to_member) {
    uint64_t seen = use_load(use);
    do {
        if (!use_is(seen, from, from_member))
            return false;
    } while (!use_swap(use, &seen, use_make(to, to_member, use_field_of(seen))));
    return true;
}

static inline void use_set_field(use_word *use, uint64_t field) {
    uint64_t seen = use_load(use);
    while (!use_swap(use, &seen, use_make(use_kind_of(seen), use_member_of(seen), field))) {
    }
}

/* The slot that a used frame names becomes 0 if it is (still) that. */
static inline void use_drop_field(use_word *use, uint64_t field) {
    uint64_t seen = use_load(use);
    while (use_kind_of(seen) != USE_RETIRED && use_field_of(seen) == field) {
        if (use_swap(use, &seen, use_make(use_kind_of(seen), use_member_of(seen), 0)))
            return;
    }
}

#endif
