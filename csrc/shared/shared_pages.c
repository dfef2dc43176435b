#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "swap/hash.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>

/* So often a page is looked at again that somebody has locked: a few instructions, or the punch of one page. */
#define LATE_TRIES 1000

/* ---- frames ---- */

uint32_t frames_claim(group *g, uint32_t want, uint32_t *frames) {
    uint32_t got = frame_table_claim(g, want, frames);
    share_state *s = share_of(g);
    atomic_fetch_add_explicit(&commons_head(&g->commons)->shared_used, got, memory_order_relaxed);
    if (s && shared_used_frames(&g->commons) + atomic_load(&s->frames_low) > atomic_load(&s->frames_total))
        shared_out_wake(g);
    return got;
}

void frames_release(group *g, uint32_t frame) {
    frame_table_release(g, frame);
    atomic_fetch_sub_explicit(&commons_head(&g->commons)->shared_used, 1, memory_order_relaxed);
}

/* ---- slots ---- */

uint64_t slot_eviction(group *g, uint64_t slot) {
    return use_field_of(slot_table_seen(g, slot));
}

/* ---- pages ---- */

void shared_hash(group *g, const void *memory, uint8_t hash[16]) {
    page_hash found = page_hash_of(memory, commons_head(&g->commons)->hash_seed);
    memcpy(hash, &found.low, sizeof found.low);
    memcpy(hash + sizeof found.low, &found.high, sizeof found.high);
}

static bool holds_any(const member_entry *member, uint32_t object, uint64_t page, uint64_t pages) {
    for (uint32_t i = 0; i < HOLDS_MAX; i++) {
        const member_hold *hold = &member->hold[i];
        uint64_t count = atomic_load(&hold->count), first = atomic_load(&hold->first);
        if (count > 0 && atomic_load(&hold->object) == object && page < first + count && first < page + pages)
            return true;
    }
    return false;
}

bool shared_is_held(group *g, uint32_t object, uint64_t page) {
    return shared_range_is_held(g, object, page, 1);
}

bool shared_range_is_held(group *g, uint32_t object, uint64_t page, uint64_t pages) {
    const commons_header *head = commons_head(&g->commons);
    for (uint64_t left = atomic_load(&head->holders); left != 0; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        if (atomic_load(&head->members[i].holds) > 0 && holds_any(&head->members[i], object, page, pages))
            return true;
    }
    return false;
}

static bool is_out(uint64_t word) {
    shared_state state = shared_state_of(word);
    return state == SHARED_SWAPPED || state == SHARED_ZERO || state == SHARED_POISONED;
}

void shared_drop_late(group *g, shared_region *r, size_t page) {
    shared_word *word = &r->words[page];
    for (int tries = 0; tries < LATE_TRIES && is_out(shared_load(word)); tries++) {
        if (!shared_try_lock(word, g->self, false)) {
            sched_yield(); /* who has it locked may only be looking at it */
            continue;
        }
        if (is_out(shared_load(word)))
            shared_punch(r->fd, page, 1);
        if (shared_unlock(word, g->self))
            shared_wake(g, r, page, 1);
        return;
    }
}

void shared_give_up_read(group *g, shared_region *r, size_t page, uint32_t frame, shared_state state, uint64_t field,
                         uint64_t bits) {
    shared_word *word = &r->words[page];
    frame_table_begin_leave(g, frame);
    shared_set(word, g->self, state, field, bits);
    shared_punch(r->fd, page, 1); /* what others may have brought late */
    frame_table_end_leave(g, frame);
    frames_release(g, frame);
    bool ignored = shared_unlock(word, g->self);
    (void)ignored; /* those whose fault began the read have not said that they wait */
    shared_wake(g, r, page, 1);
}

/* RESIDENT => ZERO. */
static void discard_locked(group *g, shared_word *word, int fd, uint64_t page, uint32_t frame) {
    uint64_t kept = slot_table_begin_leave_kept(g, frame);
    frame_table_begin_leave(g, frame);
    shared_set(word, g->self, SHARED_ZERO, 0, 0);
    FAILPOINT(shared_discard);
    shared_punch(fd, page, 1);
    frame_table_end_leave(g, frame);
    frames_release(g, frame);
    if (kept > 0)
        slot_table_end_leave(g, kept - 1);
}

void shared_discard_page(group *g, uint32_t object, int fd, uint64_t page, shared_word *word) {
    uint64_t now = shared_load(word), field = shared_field_of(now);
    switch (shared_state_of(now)) {
    case SHARED_RESIDENT:
        discard_locked(g, word, fd, page, (uint32_t)field);
        break;
    case SHARED_SWAPPED:
        INVARIANT(I17, slot_table_begin_leave(g, field));
        shared_set(word, g->self, SHARED_ZERO, 0, 0);
        shared_punch(fd, page, 1); /* what a read has left there that was broken off, or an eviction */
        slot_table_end_leave(g, field);
        break;
    case SHARED_POISONED:
        shared_unpoison(g, object, fd, page);
        shared_set(word, g->self, SHARED_ZERO, 0, 0);
        shared_punch(fd, page, 1);
        break;
    case SHARED_ZERO:
    case SHARED_WRITING: /* it was taken back before it was locked */
    case SHARED_READING:
    case SHARED_LEAVING:
        break;
    }
}

/* Context: locked by us. Whoever has announced the page may bring contents late. */
static bool may_discard(group *g, const object_entry *object, uint64_t state, uint64_t page) {
    uint32_t index = (uint32_t)(object - group_object(g, 0));
    bool ends = object_state_of(state) != OBJECT_LIVE; /* what somebody held is nobody's then */
    full_fence();
    return atomic_load(&object->state) == state && (ends || !shared_is_held(g, index, page)) &&
           !at_work_on(g, index, page);
}

bool shared_try_discard(group *g, const object_entry *object, uint64_t state, int fd, uint64_t page, bool *waiters) {
    shared_word *word = (shared_word *)commons_at(&g->commons, atomic_load(&object->words)) + page;
    uint32_t index = (uint32_t)(object - group_object(g, 0));
    shared_region elsewhere = {.object = index, .fd = -1};
    uint64_t now = shared_load(word);
    if (shared_state_of(now) == SHARED_ZERO && !(now & SHARED_LOCK))
        return true;
    shared_break_read(g, &elsewhere, page, word);
    if (!shared_try_lock(word, g->self, true))
        return false;
    bool done = may_discard(g, object, state, page);
    if (done)
        shared_discard_page(g, index, fd, page, word);
    *waiters |= shared_unlock(word, g->self);
    return done;
}
