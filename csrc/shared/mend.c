#include "shared/mend.h"

#include "shared/use_word.h"

bool shared_ref_lock(group *g, shared_ref page, page_lock *lock) {
    *lock = (page_lock){.page = page, .word = shared_ref_word(g, page)};
    if (!lock->word)
        return true;
    if (!shared_try_lock(lock->word, g->self, false))
        return false;
    if (shared_ref_word(g, page) == lock->word)
        return true;
    /* Meanwhile it has come to an end, and the word may be another object's. */
    shared_ref_unlock(g, lock);
    lock->word = NULL;
    return true;
}

void shared_ref_unlock(group *g, page_lock *lock) {
    if (!lock->word || !shared_unlock(lock->word, g->self))
        return;
    uint32_t index = shared_ref_index(lock->page);
    shared_region *mapped = shared_region_get(g, index);
    shared_region elsewhere = {.object = index, .generation = shared_ref_generation(lock->page), .fd = -1};
    shared_wake(g, mapped ? mapped : &elsewhere, (size_t)shared_ref_page(lock->page), 1);
    if (mapped)
        shared_region_put(mapped);
}

static bool has_a_frame(uint64_t word) {
    shared_state state = shared_state_of(word);
    return state == SHARED_RESIDENT || state == SHARED_WRITING || state == SHARED_READING;
}

bool shared_word_has_frame(const shared_word *word, uint64_t frame) {
    if (!word)
        return false;
    uint64_t seen = atomic_load(word);
    return has_a_frame(seen) && shared_field_of(seen) == frame;
}

bool shared_word_has_slot(const group *g, const shared_word *word, uint64_t slot) {
    if (!word)
        return false;
    uint64_t seen = atomic_load(word), field = shared_field_of(seen);
    if (shared_state_of(seen) == SHARED_SWAPPED || (shared_state_of(seen) == SHARED_LEAVING && field > 0))
        return field == slot;
    return has_a_frame(seen) && field < commons_head(&g->commons)->frames &&
           use_field_of(use_load(&commons_frames(&g->commons)[field].use)) == slot + 1;
}

void mappers_leave(object_entry *object, unsigned index) {
    uint64_t bit = UINT64_C(1) << index, mappers = atomic_load(&object->mappers), left;
    do {
        if ((mappers & MAPPERS_CLOSED) || !(mappers & bit))
            return;
        left = mappers & ~bit;
    } while (!atomic_compare_exchange_weak(&object->mappers, &mappers, left ? left : MAPPERS_CLOSED));
    atomic_fetch_add(&object->epoch, 1);
}
