#define _GNU_SOURCE
#include "shared/object_place.h"

#include "base/failpoint.h"

#include <errno.h>
#include <sched.h>

/* ---- visits ---- */

object_visit object_visit_begin(group *g, uint32_t index) {
    for (;; sched_yield())
        for (unsigned i = 0; i < OBJECT_VISITS; i++) {
            _Atomic uint32_t *word = &group_entry(g, g->self)->visits[i];
            uint32_t none = 0;
            if (atomic_compare_exchange_strong(word, &none, index + 1))
                return (object_visit){.word = word};
        }
}

void object_visit_end(object_visit visit) {
    atomic_store(visit.word, 0);
}

static bool is_visited(const group *g, uint32_t index) {
    const commons_header *head = commons_head(&g->commons);
    for (unsigned member = 0; member < MEMBERS_MAX; member++)
        for (unsigned i = 0; i < OBJECT_VISITS; i++)
            if (atomic_load(&head->members[member].visits[i]) == index + 1)
                return true;
    return false;
}

/* ---- places ---- */

void object_set_size(object_entry *object, uint64_t pages) {
    uint64_t changes = atomic_load(&object->size) >> OBJECT_SIZE_SHIFT;
    atomic_store(&object->size, pages | (changes + 1) << OBJECT_SIZE_SHIFT);
}

static uint64_t free_word(uint64_t state) {
    return object_state_make(OBJECT_FREE, object_generation_of(state), MEMBER_NONE);
}

/* Taken first, looked at after that; who visits does it the other way round: one of the two sees the other. */
static bool try_take(group *g, uint32_t index) {
    object_entry *object = group_object(g, index);
    uint64_t state = atomic_load(&object->state);
    if (object_state_of(state) != OBJECT_FREE)
        return false;
    uint32_t generation = (object_generation_of(state) + 1) & OBJECT_GENERATION_MASK;
    uint64_t making = object_state_make(OBJECT_MAKING, MAX_OF(generation, 1U), g->self);
    if (!atomic_compare_exchange_strong(&object->state, &state, making))
        return false;
    FAILPOINT(object_taken);
    if (!is_visited(g, index))
        return true;
    atomic_store(&object->state, free_word(making));
    return false;
}

int64_t object_place_take(group *g) {
    for (uint32_t index = 0; index < OBJECTS_MAX; index++) {
        object_entry *object = group_object(g, index);
        if (!try_take(g, index))
            continue;
        atomic_store(&object->creator, g->self.value);
        atomic_store(&object->written_score, 0);
        atomic_store(&object->faults, 0);
        atomic_store(&object->priority, 0);
        atomic_store(&object->resize, 0);
        return index;
    }
    return -ENFILE;
}

void object_place_give(group *g, uint32_t index) {
    object_entry *object = group_object(g, index);
    object->name[0] = '\0';
    object_set_size(object, 0);
    atomic_store(&object->state, free_word(atomic_load(&object->state)));
}

void object_place_of_dead(group *g, uint32_t index, member_id dead) {
    object_entry *object = group_object(g, index);
    object_visit visit = object_visit_begin(g, index);
    uint64_t state = atomic_load(&object->state);
    if (object_state_of(state) == OBJECT_MAKING && member_equal(object_maker_of(state), dead)) {
        object->name[0] = '\0';
        atomic_compare_exchange_strong(&object->state, &state, free_word(state));
    }
    object_visit_end(visit);
}
