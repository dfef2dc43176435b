/*
 * shared_discard.c - a page's contents are thrown away (README, Discarded pages): it leaves much as an evicted page does, so that nobody waits for a member that is
 * stopped meanwhile.
 *
 * One thread of a member at a time: there is one order for it, and that names what the page's word has let go of.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "base/lock.h"

/* What the page has. frame, slot: + 1, 0: none. */
typedef struct {
    uint64_t frame, slot, slot_use;
} belongings;

typedef struct {
    group *g;
    shared_region *r;
    size_t page;
    shared_word *word;
    uint64_t state; /* of the object, when the discard began: so that it is the same one still */
    bool waiters;
} discard;

/* ---- may it? ---- */

/* Context: the word says that the page is ours. Whoever has announced it may bring contents late, who holds it wants it to stay. */
static bool may_go(const discard *d) {
    full_fence();
    return atomic_load(&group_object(d->g, d->r->object)->state) == d->state &&
           !shared_is_held(d->g, d->r->object, d->page) && !at_work_on(d->g, d->r->object, d->page);
}

/* Whose discard was broken off, because he is stopped, has left the contents in the file: of no other page that is ZERO is that so. */
static bool may_be_left(const discard *d) {
    const commons_header *head = commons_head(&d->g->commons);
    uint64_t bits = atomic_load(&group_object(d->g, d->r->object)->mappers) & ~MAPPERS_CLOSED;
    for (bits &= ~(UINT64_C(1) << member_index(d->g->self)); bits != 0; bits &= bits - 1)
        if (punch_order_covers(&head->members[__builtin_ctzll(bits)].orders[PUNCH_DISCARDED], d->r->object, d->page))
            return true;
    return false;
}

/* ---- LEAVING => ZERO ---- */

static bool is_ours(const discard *d, uint64_t seen, uint64_t field) {
    return shared_state_of(seen) == SHARED_LEAVING && !(seen & SHARED_LOCK) && (seen & SHARED_SEALED) &&
           shared_is_of(seen, d->g->self) && shared_field_of(seen) == field;
}

/* Nothing but our order names it: an eviction that was broken off may have the frame GOING still, or have taken the slot, and lets go of that. */
static void free_belongings(group *g, const belongings *had) {
    uint32_t frame = (uint32_t)had->frame - 1;
    if (had->frame > 0) {
        frame_table_begin_leave(g, frame);
        frame_table_end_leave(g, frame);
        frames_release(g, frame);
    }
    if (had->slot > 0 && slot_table_begin_leave_seen(g, had->slot - 1, had->slot_use))
        slot_table_end_leave(g, had->slot - 1);
}

/* BROKEN: somebody has said of the page, because we were stopped, that it is out. REFUSED: nothing is punched, our order was taken back: so he may have, too. */
typedef enum { LEFT, BROKEN, REFUSED } leaving;

/* Of a page that is LEAVING by us, with that in its field. */
static leaving leaves(discard *d, uint64_t field) {
    FAILPOINT(shared_discard);
    if (!punch_ordered(d->g, PUNCH_DISCARDED, d->r->fd))
        return REFUSED;
    FAILPOINT(shared_punched);
    uint64_t seen = shared_load(d->word);
    bool left = is_ours(d, seen, field) && shared_move(d->word, seen, SHARED_ZERO, MEMBER_NONE, 0, 0, &d->waiters);
    return left ? LEFT : BROKEN;
}

/* Back to what it was, if nobody has said so instead of us. */
static bool comes_back(discard *d, uint64_t field, shared_state state, uint64_t was) {
    uint64_t seen = shared_load(d->word);
    return is_ours(d, seen, field) && shared_move(d->word, seen, state, MEMBER_NONE, was, heat_kept(seen), &d->waiters);
}

/* ---- ZERO ---- */

/* => LEAVING, ZERO, if the file may have something. */
static bool discard_zero(discard *d, uint64_t seen) {
    bool none = false, done = !may_be_left(d);
    if (done || !shared_move(d->word, seen, SHARED_LEAVING, d->g->self, 0, SHARED_SEALED, &none))
        return done;
    leaving how = may_go(d) ? leaves(d, 0) : REFUSED;
    if (how == REFUSED)
        comes_back(d, 0, SHARED_ZERO, 0);
    return how == LEFT;
}

/* ---- SWAPPED ---- */

/* => LEAVING, ZERO. The slot is the page's all the time: so who finds us stopped makes it SWAPPED again, and need not know of the discard. */
static bool discard_swapped(discard *d, uint64_t seen) {
    uint64_t slot = shared_field_of(seen);
    bool none = false; /* who waits goes on waiting */
    punch_order_names(d->g, 0, slot + 1);
    if (!shared_move(d->word, seen, SHARED_LEAVING, d->g->self, slot, heat_kept(seen) | SHARED_SEALED, &none))
        return false;
    belongings had = {.slot = slot + 1, .slot_use = slot_table_seen(d->g, slot)};
    leaving how = may_go(d) ? leaves(d, slot) : REFUSED;
    if (how == REFUSED)
        comes_back(d, slot, SHARED_SWAPPED, slot);
    if (how != LEFT)
        return false;
    FAILPOINT(shared_unnamed);
    free_belongings(d->g, &had);
    return true;
}

/* ---- RESIDENT ---- */

/* The slot that the page keeps, as it is while the page is ours. */
static void note_kept_slot(const discard *d, uint64_t mine, belongings *has) {
    uint64_t frame = has->frame - 1, kept = slot_table_kept(d->g, (uint32_t)frame);
    has->slot_use = kept > 0 ? slot_table_seen(d->g, kept - 1) : 0;
    bool same = kept > 0 && kept == slot_table_kept(d->g, (uint32_t)frame) &&
                ((shared_load(d->word) ^ mine) & ~SHARED_WAITERS) == 0;
    has->slot = same ? kept : 0;
    punch_order_names(d->g, has->frame, has->slot);
}

/* WRITING by us => LEAVING, ZERO. */
static bool end_resident(discard *d, uint64_t mine, const belongings *has) {
    bool none = false;
    if (!shared_move(d->word, mine, SHARED_LEAVING, d->g->self, 0, heat_kept(mine) | SHARED_SEALED, &none))
        return false;
    leaving how = leaves(d, 0);
    if (how == REFUSED && comes_back(d, 0, SHARED_RESIDENT, has->frame - 1))
        return false;
    FAILPOINT(shared_unnamed);
    if (how == REFUSED)
        shared_drop_late(d->g, d->r,
                         d->page); /* it is ZERO, or was: what is in the file is nobody's, or another frame's */
    free_belongings(d->g, has);
    return how == LEFT;
}

/* => WRITING, LEAVING, ZERO. As long as it is WRITING anybody may take it back. */
static bool discard_resident(discard *d, uint64_t seen) {
    belongings has = {.frame = shared_field_of(seen) + 1};
    bool none = false;
    if (!shared_move(d->word, seen, SHARED_WRITING, d->g->self, has.frame - 1, heat_kept(seen) | SHARED_SEALED, &none))
        return false;
    uint64_t mine = shared_load(d->word);
    bool ours = shared_state_of(mine) == SHARED_WRITING && (mine & SHARED_SEALED) && shared_is_of(mine, d->g->self) &&
                shared_field_of(mine) == has.frame - 1;
    if (!ours)
        return false;
    note_kept_slot(d, mine, &has);
    bool done = may_go(d) && end_resident(d, mine, &has);
    if (!done)
        shared_take_back(d->word, mine);
    return done;
}

/* ---- all ---- */

/* Rare, and under LOCK: its marks are taken out in all mappers. */
static bool discard_poisoned(discard *d) {
    if (!shared_try_lock(d->word, d->g->self, true))
        return false;
    bool done = may_go(d);
    if (done)
        shared_discard_page(d->g, d->r->object, d->r->fd, d->page, d->word);
    d->waiters |= shared_unlock(d->word, d->g->self);
    return done;
}

static bool discard_as(discard *d, uint64_t seen) {
    switch (shared_state_of(seen)) {
    case SHARED_ZERO:
        return discard_zero(d, seen);
    case SHARED_RESIDENT:
        return discard_resident(d, seen);
    case SHARED_SWAPPED:
        return discard_swapped(d, seen);
    case SHARED_POISONED:
        return discard_poisoned(d);
    case SHARED_WRITING: /* its writer finds out */
        shared_take_back(d->word, seen);
        return false;
    case SHARED_READING:
    case SHARED_LEAVING:
        break;
    }
    return false;
}

static bool discard_by_order(discard *d, uint64_t seen) {
    punch_order(d->g, PUNCH_DISCARDED, d->r->object, d->page, 1);
    bool done = discard_as(d, seen);
    punch_order_names(d->g, 0, 0);
    punch_order_end(d->g, PUNCH_DISCARDED);
    return done;
}

bool shared_try_discard(group *g, shared_region *r, uint64_t state, size_t page) {
    discard d = {.g = g, .r = r, .page = page, .word = &r->words[page], .state = state};
    uint64_t seen = shared_load(d.word);
    if (shared_state_of(seen) == SHARED_ZERO && !(seen & SHARED_LOCK) && !may_be_left(&d))
        return true;
    shared_break_read(g, r, page, d.word);
    small_lock_acquire(&g->discards_lock);
    seen = shared_load(d.word);
    bool done = !shared_is_taken(seen) && discard_by_order(&d, seen);
    small_lock_release(&g->discards_lock);
    if (d.waiters)
        shared_wake(g, r, page, 1);
    return done;
}
