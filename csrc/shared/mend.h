/*
 * mend.h - what repair.c, the tables and the check have in common: the words that the dead leave behind.
 */
#ifndef USWAP_SHARED_MEND_H
#define USWAP_SHARED_MEND_H

#include "shared/group.h"

/* A page locked by this member; word NULL: its object is no more, so there is nothing to lock. */
typedef struct {
    shared_ref page;
    shared_word *word;
} page_lock;

/* Return: false: somebody else has the page. */
bool shared_ref_lock(group *g, shared_ref page, page_lock *lock);
/* Wakes all mappers, if anybody waits. */
void shared_ref_unlock(group *g, page_lock *lock);

/* Whether the word says that the page is in that frame; NULL: it does not. */
bool shared_word_has_frame(const shared_word *word, uint64_t frame);
/* ... in that slot, or in a frame that keeps that slot. */
bool shared_word_has_slot(const group *g, const shared_word *word, uint64_t slot);

/* Its bit comes off; the last one's closes the object in the same step, so that whoever dies then leaves an object that is seen to be
 * ending. */
void mappers_leave(object_entry *object, unsigned index);

/* Context: page locked by this member, its word names the frame, and who held the frame is dead. => PAGE, or LEAVING by self. */
void frame_table_seize(group *g, uint32_t frame, shared_ref page, bool leaving);
/* Context: the same, and the page is SWAPPED, or READING in a frame that keeps the slot: it has the only copy. => PAGE. */
void slot_table_seize(group *g, uint64_t slot, shared_ref page);
/* A frame of the chunk is free: searches look at it. */
void frame_table_note_free(group *g, uint64_t chunk);

#endif
