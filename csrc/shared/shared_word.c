/*
 * shared_word.c - locking, and finding, the word of a shared page.
 *
 * Every step is one compare-and-swap. While a page is locked, its word changes by its member's hand alone, but for WAITERS, which the others
 * set; so _set and _unlock swap, too.
 */
#include "shared/shared_word.h"

#include "shared/group.h"

static bool swap_word(shared_word *word, uint64_t *seen, uint64_t next) {
    return atomic_compare_exchange_weak_explicit(word, seen, next, memory_order_acq_rel, memory_order_acquire);
}

static uint64_t with_member(uint64_t word, member_id member) {
    return (word & ~SHARED_MEMBER_MASK) | (uint64_t)member.value << SHARED_MEMBER_SHIFT;
}

/* Whether who waits for the page goes on waiting when it is that: for the end of it. */
static bool keeps_waiters(shared_state state) {
    return state == SHARED_READING || state == SHARED_LEAVING;
}

bool shared_move(shared_word *word, uint64_t seen, shared_state state, member_id member, uint64_t field, uint64_t bits,
                 bool *waiters) {
    uint64_t same = seen & ~SHARED_WAITERS,
             next = with_member((uint64_t)state | bits | field << SHARED_FIELD_SHIFT, member);
    if (seen & SHARED_LOCK)
        return false;
    while ((seen & ~SHARED_WAITERS) == same) {
        uint64_t kept = keeps_waiters(state) ? seen & SHARED_WAITERS : 0, waited = seen & SHARED_WAITERS;
        if (swap_word(word, &seen, next | kept)) {
            *waiters |= waited && !kept;
            return true;
        }
    }
    return false;
}

bool shared_take_back(shared_word *word, uint64_t seen) {
    bool none = false; /* nobody waits for what is being written: he takes it back */
    return shared_state_of(seen) == SHARED_WRITING &&
           shared_move(word, seen, SHARED_RESIDENT, MEMBER_NONE, shared_field_of(seen), seen & SHARED_HEAT_MASK, &none);
}

bool shared_await(shared_word *word) {
    uint64_t seen = shared_load(word);
    while (shared_is_taken(seen)) /* whoever has it will see the one that is there */
        if ((seen & SHARED_WAITERS) || swap_word(word, &seen, seen | SHARED_WAITERS))
            return true;
    return false;
}

bool shared_try_lock(shared_word *word, member_id self, bool wait) {
    uint64_t seen = shared_load(word);
    for (;;) {
        if (shared_is_taken(seen)) {
            if (!wait || shared_await(word))
                return false;
        } else if (shared_state_of(seen) == SHARED_WRITING) {
            if (!wait)
                return false;
            shared_take_back(word, seen);
        } else if (swap_word(word, &seen, with_member(seen, self) | SHARED_LOCK)) {
            return true;
        } else {
            continue;
        }
        seen = shared_load(word);
    }
}

bool shared_lock_own(shared_word *word, member_id self, shared_state state) {
    uint64_t seen = shared_load(word);
    do {
        if ((seen & SHARED_LOCK) || shared_state_of(seen) != state || !member_equal(shared_member_of(seen), self))
            return false;
    } while (!swap_word(word, &seen, seen | SHARED_LOCK));
    return true;
}

/* From the very word that was seen, but for WAITERS. */
static bool lock_seen(shared_word *word, member_id self, uint64_t seen, uint64_t next) {
    uint64_t same = seen & ~SHARED_WAITERS;
    next = with_member(next, self) | SHARED_LOCK;
    while ((seen & ~SHARED_WAITERS) == same)
        if (swap_word(word, &seen, next | (seen & SHARED_WAITERS)))
            return true;
    return false;
}

bool shared_lock_reading(shared_word *word, member_id self, uint64_t seen) {
    return lock_seen(word, self, seen, seen & ~SHARED_WAITERS);
}

bool shared_lock_discarded(shared_word *word, member_id self, uint64_t seen) {
    return lock_seen(word, self, seen, SHARED_ZERO);
}

bool shared_lock_of_dead(shared_word *word, member_id self, member_id dead) {
    uint64_t seen = shared_load(word);
    do {
        if (!shared_is_of(seen, dead))
            return false;
    } while (!swap_word(word, &seen, with_member(seen, self) | SHARED_LOCK));
    return true;
}

bool shared_unlock(shared_word *word, member_id self) {
    uint64_t seen = shared_load(word), next;
    do {
        INVARIANT(I15, (seen & SHARED_LOCK) && member_equal(shared_member_of(seen), self));
        next = seen & ~(SHARED_LOCK | SHARED_WAITERS);
        if (!shared_is_in_hand(next))
            next = with_member(next, MEMBER_NONE);
        else if (keeps_waiters(shared_state_of(next)))
            next |= seen & SHARED_WAITERS;
    } while (!swap_word(word, &seen, next));
    return (seen & SHARED_WAITERS) && !(next & SHARED_WAITERS);
}

void shared_set(shared_word *word, member_id self, shared_state state, uint64_t field, uint64_t bits) {
    uint64_t seen = shared_load(word), next;
    do {
        INVARIANT(I15, (seen & SHARED_LOCK) && member_equal(shared_member_of(seen), self));
        next = (seen & (SHARED_LOCK | SHARED_WAITERS | SHARED_MEMBER_MASK)) | (uint64_t)state | bits |
               field << SHARED_FIELD_SHIFT;
    } while (!swap_word(word, &seen, next));
}

shared_word *shared_ref_word(const group *g, shared_ref ref) {
    uint32_t index = shared_ref_index(ref);
    if (ref.value == 0 || index >= OBJECTS_MAX)
        return NULL;
    const object_entry *object = group_object(g, index);
    uint64_t state = atomic_load(&object->state), words = atomic_load(&object->words);
    if (object_state_of(state) != OBJECT_LIVE && object_state_of(state) != OBJECT_DYING)
        return NULL;
    if (object_generation_of(state) != shared_ref_generation(ref) || shared_ref_page(ref) >= object_pages(object) ||
        words == 0)
        return NULL;
    return (shared_word *)commons_at(&g->commons, words) + shared_ref_page(ref);
}
