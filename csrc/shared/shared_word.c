/*
 * shared_word.c - locking, and finding, the word of a shared page.
 *
 * Every step is one compare-and-swap. While a page is locked, its word changes by its member's hand alone, but for WAITERS, which the others
 * set; so _set and _unlock swap too.
 */
#include "shared/shared_word.h"

#include "shared/group.h"

static bool swap_word(shared_word *word, uint64_t *seen, uint64_t next) {
    return atomic_compare_exchange_weak_explicit(word, seen, next, memory_order_acq_rel, memory_order_acquire);
}

static uint64_t with_member(uint64_t word, member_id member) {
    return (word & ~SHARED_MEMBER_MASK) | (uint64_t)member.value << SHARED_MEMBER_SHIFT;
}

static uint64_t with_state(uint64_t word, shared_state state) {
    return (word & ~SHARED_STATE_MASK) | (uint64_t)state;
}

/* The word if a fault, or (not wait) somebody in passing, can lock it now; 0 if not. */
static uint64_t locked_word(uint64_t seen, member_id self, bool wait) {
    if ((seen & SHARED_LOCK) || shared_state_of(seen) == SHARED_READING)
        return 0;
    if (shared_state_of(seen) == SHARED_WRITING) {
        if (!wait)
            return 0;
        seen = with_state(seen, SHARED_RESIDENT);
    }
    return with_member(seen, self) | SHARED_LOCK;
}

bool shared_try_lock(shared_word *word, member_id self, bool wait) {
    uint64_t seen = shared_load(word);
    for (;;) {
        uint64_t next = locked_word(seen, self, wait);
        bool locks = next != 0;
        if (!locks) {
            next = seen | SHARED_WAITERS;
            if (!wait || next == seen) /* whoever has it will see the one that is there */
                return false;
        }
        if (swap_word(word, &seen, next))
            return locks;
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

bool shared_lock_reading(shared_word *word, member_id self, uint64_t seen) {
    uint64_t same = seen & ~SHARED_WAITERS;
    while ((seen & ~SHARED_WAITERS) == same)
        if (swap_word(word, &seen, with_member(seen, self) | SHARED_LOCK))
            return true;
    return false;
}

static bool is_in_hand(uint64_t word) {
    return (word & SHARED_LOCK) || shared_state_of(word) == SHARED_READING || shared_state_of(word) == SHARED_WRITING;
}

bool shared_lock_of_dead(shared_word *word, member_id self, member_id dead) {
    uint64_t seen = shared_load(word);
    do {
        if (!is_in_hand(seen) || !member_equal(shared_member_of(seen), dead))
            return false;
    } while (!swap_word(word, &seen, with_member(seen, self) | SHARED_LOCK));
    return true;
}

bool shared_unlock(shared_word *word, member_id self) {
    uint64_t seen = shared_load(word), next;
    do {
        INVARIANT(I15, (seen & SHARED_LOCK) && member_equal(shared_member_of(seen), self));
        next = seen & ~(SHARED_LOCK | SHARED_WAITERS);
        if (!is_in_hand(next))
            next = with_member(next, MEMBER_NONE);
        /* Who waits for the contents of a page that is being read is woken at the end of that, not now. */
        else if (shared_state_of(next) == SHARED_READING)
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
