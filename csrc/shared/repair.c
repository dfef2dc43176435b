/*
 * repair.c - what a dead member left: every survivor mends it by itself (README, Death).
 *
 * All steps may be done twice, by two at once, or be broken off: whatever is unfinished names the dead member, and is taken over, or undone, by a
 * compare-and-swap from that name. What is named by a page's word is decided under that page's lock. As long as anybody is registered as
 * a mender, the place is not taken again: so steps that name the member by its place alone (mappers) cannot meet the next one there.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "shared/group.h"
#include "shared/mend.h"
#include "shared/object_place.h"
#include "shared/use_word.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* An object that is looked at; its file is got when a page needs it. */
typedef struct {
    group *g;
    member_id dead;
    uint32_t index, generation;
    int fd;
    bool asked, complete;
    shared_region *mapped; /* NULL: not here */
} patient;

static int punch(int fd, uint64_t page) {
    int status;
    do
        status = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page << PAGE_SHIFT), PAGE_BYTES);
    while (status != 0 && errno == EINTR);
    return status;
}

/* Returns when the kernel has ended all direct I/O to the swap file that has begun. false: this file system has no such call. */
static bool wait_for_writes(const group *g) {
    return FAILPOINT(repair_barrier) == 0 && punch(g->swap_fd, g->barrier_slot) == 0;
}

/* ---- pages ---- */

/* Whether there is a file to throw contents out of; false: it cannot be had now. fd -1: nobody has it any more. */
static bool get_file(patient *p) {
    if (p->fd >= 0 || p->asked)
        return p->fd >= 0 || p->complete;
    p->asked = true;
    p->mapped = shared_region_get(p->g, p->index);
    p->fd = p->mapped ? p->mapped->fd : peers_object_fd(p->g, p->index);
    uint64_t others = atomic_load(&group_object(p->g, p->index)->mappers) & ~MAPPERS_CLOSED;
    if (p->fd < 0 && (others & ~(UINT64_C(1) << member_index(p->dead))) != 0)
        p->complete = false;
    return p->fd >= 0 || p->complete;
}

static void put_file(patient *p) {
    if (p->mapped)
        shared_region_put(p->mapped);
    else if (p->fd >= 0)
        close(p->fd);
}

/* The page's slot, named by its frame, is kept only if it is known to have the contents of some time. */
static void mend_kept_slot(group *g, uint32_t frame, shared_ref page, bool drop) {
    uint64_t slot = frame_table_slot(g, frame);
    if (slot == 0)
        return;
    bool kept = slot_table_is_of(g, slot - 1, page);
    if (kept && !drop)
        return;
    uint64_t ours = slot_table_begin_leave_kept(g, frame); /* or it is somebody's who was evicting the page before */
    frame_table_drop_slot(g, frame, slot);
    if (ours > 0)
        slot_table_end_leave(g, ours - 1);
}

/* READING: back to its slot, or to nothing. Whatever the device still brings goes to a page that is no more the file's. */
static void undo_read(group *g, shared_word *word, shared_ref page) {
    uint32_t frame = (uint32_t)shared_field_of(shared_load(word));
    frame_table_seize(g, frame, page, true);
    uint64_t slot = frame_table_slot(g, frame);
    if (slot > 0) {
        slot_table_seize(g, slot - 1, page);
        shared_set(word, g->self, SHARED_SWAPPED, slot - 1, SHARED_SEALED); /* another may bring it late */
    } else {
        shared_set(word, g->self, SHARED_ZERO, 0, 0);
    }
    frame_table_end_leave(g, frame);
    frame_table_release(g, frame);
}

/* Context: locked by this member, taken over from the dead. */
static void mend_page(patient *p, shared_word *word, shared_ref page) {
    group *g = p->g;
    uint64_t seen = shared_load(word), field = shared_field_of(seen);
    shared_state state = shared_state_of(seen);
    if (p->fd >= 0 && state != SHARED_RESIDENT && state != SHARED_WRITING)
        punch(p->fd, shared_ref_page(page));
    switch (state) {
    case SHARED_READING:
        undo_read(g, word, page);
        break;
    case SHARED_WRITING:
    case SHARED_RESIDENT:
        frame_table_seize(g, (uint32_t)field, page, false);
        mend_kept_slot(g, (uint32_t)field, page, state == SHARED_WRITING);
        shared_set(word, g->self, SHARED_RESIDENT, field, 0);
        break;
    case SHARED_SWAPPED:
        slot_table_seize(g, field, page);
        break;
    case SHARED_LEAVING:
        if (field > 0)
            slot_table_seize(g, field, page);
        shared_set(word, g->self, field > 0 ? SHARED_SWAPPED : SHARED_ZERO, field, 0);
        break;
    case SHARED_ZERO:
    case SHARED_POISONED:
        break;
    }
}

static void mend_if_of_dead(patient *p, shared_word *words, uint64_t page) {
    if (!shared_is_of(shared_load(&words[page]), p->dead))
        return;
    if (!get_file(p) || !shared_lock_of_dead(&words[page], p->g->self, p->dead))
        return;
    FAILPOINT(repair_page);
    page_lock lock = {.page = shared_ref_make(p->index, p->generation, page), .word = &words[page]};
    mend_page(p, lock.word, lock.page);
    shared_ref_unlock(p->g, &lock);
}

/* Contents may be in the file that no word tells of. Return: false: it must wait. */
static bool mend_late(patient *p, shared_word *words, uint64_t page) {
    shared_state state = shared_state_of(shared_load(&words[page]));
    if (state != SHARED_SWAPPED && state != SHARED_ZERO && state != SHARED_POISONED)
        return true;
    if (!get_file(p) || !shared_try_lock(&words[page], p->g->self, false))
        return false;
    page_lock lock = {.page = shared_ref_make(p->index, p->generation, page), .word = &words[page]};
    state = shared_state_of(shared_load(&words[page]));
    if (p->fd >= 0 && (state == SHARED_SWAPPED || state == SHARED_ZERO || state == SHARED_POISONED))
        punch(p->fd, page);
    shared_ref_unlock(p->g, &lock);
    return true;
}

static bool mend_range(patient *p, shared_word *words, uint64_t object, uint64_t first, uint64_t count) {
    bool all = true;
    if (object != p->index)
        return true;
    /* To the end of the words, as above. */
    uint64_t pages = atomic_load(&group_object(p->g, p->index)->words_bytes) / sizeof(shared_word);
    for (uint64_t page = first; page < MIN_OF(first + count, pages); page++)
        all &= mend_late(p, words, page);
    return all;
}

/* What it was at, and what it was to punch. */
static bool mend_ranges(patient *p, shared_word *words) {
    const member_at_work *at = &group_entry(p->g, p->dead)->at_work;
    const member_order *order = &group_entry(p->g, p->dead)->order;
    bool all = mend_range(p, words, atomic_load(&at->object), atomic_load(&at->first), atomic_load(&at->count));
    return mend_range(p, words, atomic_load(&order->object), atomic_load(&order->first), atomic_load(&order->count)) &&
           all;
}

/* Return: false: some of them must wait. */
static bool mend_object(group *g, uint32_t index, member_id dead) {
    const object_entry *object = group_object(g, index);
    uint64_t state = atomic_load(&object->state), at = atomic_load(&object->words), first, last;
    if ((object_state_of(state) != OBJECT_LIVE && object_state_of(state) != OBJECT_DYING) || at == 0)
        return true;
    patient p = {.g = g, .dead = dead, .index = index, .generation = object_generation_of(state), .fd = -1};
    p.complete = true;
    shared_word *words = commons_at(&g->commons, at);
    /* To the end of the words: it may have become shorter since (a page that was all zeroes is not waited for). */
    uint64_t end = at + atomic_load(&object->words_bytes), from = at;
    for (; commons_touched(&g->commons, from, end, &first, &last); from = last)
        for (uint64_t page = (first - at) / sizeof(shared_word); page < (last - at) / sizeof(shared_word); page++)
            mend_if_of_dead(&p, words, page);
    bool all = mend_ranges(&p, words);
    put_file(&p);
    return all && p.complete;
}

static bool mend_pages(group *g, member_id dead) {
    bool all = true;
    for (uint32_t index = 0; index < OBJECTS_MAX; index++)
        all &= mend_object(g, index, dead);
    return all;
}

/* ---- objects ---- */

/* An object that the dead member had begun to make, or had made and mapped nowhere; or one that is to end anyway. */
static bool is_to_end(group *g, const object_entry *object, member_id dead) {
    uint64_t mappers = atomic_load(&object->mappers);
    member_id creator = {(uint16_t)atomic_load(&object->creator)};
    return mappers == MAPPERS_CLOSED || object_state_of(atomic_load(&object->state)) == OBJECT_DYING ||
           (mappers == 0 && (member_equal(creator, dead) || !members_alive(g, creator)));
}

static void leave_objects(group *g, member_id dead) {
    for (uint32_t index = 0; index < OBJECTS_MAX; index++) {
        object_entry *object = group_object(g, index);
        object_state state = object_state_of(atomic_load(&object->state));
        if (state == OBJECT_MAKING) {
            object_place_of_dead(g, index, dead);
        } else if (state == OBJECT_LIVE || state == OBJECT_DYING) {
            mappers_leave(object, member_index(dead));
            if (is_to_end(g, object, dead))
                objects_end(g, index);
        }
    }
}

/* Threads of one's own process that wait for what the dead member had: they fault again. */
static void wake_own(group *g) {
    for (uint32_t index = 0; index < OBJECTS_MAX; index++) {
        shared_region *region = shared_region_get(g, index);
        if (!region)
            continue;
        shared_wake(g, region, 0, region->pages);
        shared_region_put(region);
    }
}

/* ---- all of it ---- */

/* Context: registered. */
static bool mend_all(group *g, member_id dead) {
    bool quiet = wait_for_writes(g);
    bool all = mend_pages(g, dead);
    FAILPOINT(repair_frames);
    all &= frame_table_of_dead(g, dead);
    FAILPOINT(repair_slots);
    all &= slot_table_of_dead(g, dead, quiet);
    FAILPOINT(repair_sizes);
    for (uint32_t index = 0; index < OBJECTS_MAX; index++)
        all &= object_mend_size(g, index, dead);
    FAILPOINT(repair_chunks);
    grants_of_dead(g, dead);
    leave_objects(g, dead);
    wake_own(g);
    return all;
}

bool repair_after(group *g, member_id dead) {
    member_entry *entry = group_entry(g, dead);
    uint64_t bit = UINT64_C(1) << member_index(g->self);
    members_mark_dead(g, dead);
    FAILPOINT(repair_marked);
    /* Registered first, looked at after that; who takes the place does it the other way round. */
    atomic_fetch_or(&entry->repairers, bit);
    uint64_t state = atomic_load(&entry->state);
    bool all = true;
    if (member_equal(member_id_of(state), dead) && member_state_of(state) == MEMBER_DEAD) {
        all = mend_all(g, dead);
        /* What it was mending itself does not wait for it any more. */
        for (unsigned index = 0; index < MEMBERS_MAX; index++)
            atomic_fetch_and(&commons_head(&g->commons)->members[index].repairers,
                             ~(UINT64_C(1) << member_index(dead)));
        if (all)
            members_bury(g, dead);
    }
    atomic_fetch_and(&entry->repairers, ~bit);
    return all;
}
