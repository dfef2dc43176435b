/*
 * object_place.h - places for objects: who gets one, and that nobody who is at its object finds another one there (README, An object's life).
 *
 * Owns: the state of an object from FREE to MAKING, and back; the visits of the members.
 */
#ifndef USWAP_SHARED_OBJECT_PLACE_H
#define USWAP_SHARED_OBJECT_PLACE_H

#include "shared/group.h"

/* A thread is about to open or to end the object of a place, or is just doing it: until it says that it has done, the place gets no other one. */
typedef struct {
    _Atomic uint32_t *word;
} object_visit;

/* Before the object's state is looked at. May wait for other threads of this process. */
object_visit object_visit_begin(group *g, uint32_t index);
void object_visit_end(object_visit visit);

/* => a place without a visitor, MAKING by us. Return: its index; -ENFILE: there is none. */
int64_t object_place_take(group *g);
/* It is FREE again. Context: MAKING by us. */
void object_place_give(group *g, uint32_t index);
/* The same for who died while it was making one. */
void object_place_of_dead(group *g, uint32_t index, member_id dead);
/* Context: MAKING by us. The count of changes goes on, over all objects of the place. */
void object_set_size(object_entry *object, uint64_t pages);

#endif
