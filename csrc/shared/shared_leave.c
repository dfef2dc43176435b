/*
 * shared_leave.c - how pages leave that have been written, or are discarded: WRITING, LEAVING, and the hole (README, A page leaves).
 *
 * Each step is one compare-and-swap, so that nobody waits for a member that is stopped between two of them. What the page needs to leave is taken before
 * its word changes, and let go of if that has changed.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "pool.h"

#include <unistd.h>

static bool is_clean(const out_page *v) {
    return v->kind == OUT_CLEAN || v->kind == OUT_SEALED;
}

/* Where the contents are when it is out. 0: they are zeroes. */
static uint64_t slot_of(const out_page *v) {
    return v->kind == OUT_EMPTY || v->kind == OUT_DISCARDED ? 0 : v->slot;
}

/* ---- WRITING => LEAVING, or RESIDENT ---- */

/* That of this eviction; no two have the same. */
static uint64_t next_clock(group *g) {
    return atomic_fetch_add_explicit(&commons_head(&g->commons)->eviction_clock, 1, memory_order_relaxed) + 1;
}

/* The slot that is to have the contents is CLAIMED by us, and the one that has older ones is LEAVING. Return: false: the kept one is somebody else's. */
static bool take_slots(group *g, out_page *v) {
    if (is_clean(v)) {
        if (!slot_table_claim_kept(g, v->kept - 1, v->kept_seen, next_clock(g)))
            return false;
        v->slot = v->kept - 1;
        v->claimed = true;
        return true;
    }
    if (v->kind == OUT_WRITTEN)
        slot_table_prepare(g, v->slot, v->hash, next_clock(g));
    v->stale = v->kept > 0 && slot_table_begin_leave_seen(g, v->kept - 1, v->kept_seen);
    return true;
}

static bool may_go(group *g, const out_page *v) {
    return v->kind != OUT_GIVEN_UP && !shared_is_held(g, v->r->object, v->page) &&
           atomic_load(&group_object(g, v->r->object)->epoch) == v->epoch;
}

/* Return: false: it stays. */
static bool let_go(group *g, out_page *v) {
    shared_word *word = &v->r->words[v->page];
    uint64_t seen = shared_load(word);
    bool none = false; /* who waits goes on waiting, until it has left */
    if (!may_go(g, v) || !out_is_ours(g, v, seen))
        return false;
    v->going = frame_table_begin_go(g, v->frame);
    if (!v->going || !take_slots(g, v))
        return false;
    if (!shared_move(word, seen, SHARED_LEAVING, g->self, slot_of(v), heat_kept(seen) | out_bits(v), &none))
        return false;
    FAILPOINT(shared_leaving);
    if (v->claimed)
        slot_table_settle(g, v->slot, slot_table_seen(g, v->slot), g->self); /* or who has found us stopped has */
    return true;
}

/* It does not leave: what was taken for that is let go of. A slot does not come back to the page: somebody may have found that it has none. */
static void stays(group *g, out_page *v) {
    shared_word *word = &v->r->words[v->page];
    uint64_t seen = shared_load(word);
    bool none = false; /* nobody waits for what is being written */
    bool has_kept = v->stale || (v->claimed && is_clean(v));
    if (has_kept)
        frame_table_drop_slot(g, v->frame, v->kept);
    if (v->going)
        frame_table_stay(g, v->frame);
    if (v->stale)
        slot_table_end_leave(g, v->kept - 1);
    if (v->claimed)
        slot_table_release(g, v->slot);
    if (out_is_ours(g, v, seen))
        shared_move(word, seen, SHARED_RESIDENT, MEMBER_NONE, v->frame, heat_kept(seen), &none);
}

/* ---- LEAVING => SWAPPED, or ZERO ---- */

/* Its order is taken back: the file may have it still, and ZERO has to find nothing there. */
static bool end_discard(group *g, shared_region *r, size_t page, uint64_t seen, bool *waiters) {
    shared_word *word = &r->words[page];
    if (!shared_lock_discarded(word, g->self, seen))
        return false;
    FAILPOINT(shared_discard);
    shared_punch(r->fd, page, 1);
    *waiters |= shared_unlock(word, g->self);
    return true;
}

bool shared_say_left(group *g, shared_region *r, size_t page, uint64_t seen, bool punched, bool *waiters) {
    shared_word *word = &r->words[page];
    uint64_t slot = shared_field_of(seen), rest = punched ? 0 : SHARED_SEALED;
    if (!punched && (seen & SHARED_SEALED)) /* discarded: it has to be zeroes for whoever finds it ZERO */
        return end_discard(g, r, page, seen, waiters);
    if (slot == 0)
        return shared_move(word, seen, SHARED_ZERO, MEMBER_NONE, 0, 0, waiters);
    return shared_move(word, seen, SHARED_SWAPPED, MEMBER_NONE, slot, heat_kept(seen) | rest, waiters);
}

/* If nobody has said so instead of us, who has found us stopped. */
static void has_left(group *g, const out_page *v, bool punched, bool *waiters) {
    uint64_t seen = shared_load(&v->r->words[v->page]);
    if (shared_state_of(seen) == SHARED_LEAVING && shared_is_of(seen, g->self) && !(seen & SHARED_LOCK))
        shared_say_left(g, v->r, v->page, seen, punched, waiters);
}

static void let_go_of_memory(group *g, const out_page *v) {
    frame_table_end_go(g, v->frame);
    frame_table_release(g, v->frame);
    if (v->stale)
        slot_table_end_leave(g, v->kept - 1);
}

static void count_gone(group *g, const out_page *first, uint32_t run) {
    commons_header *head = commons_head(&g->commons);
    uint32_t clean = 0, sealed = 0, empty = 0;
    atomic_fetch_sub_explicit(&head->shared_used, run, memory_order_relaxed);
    if (first->discarded) /* then all are */
        return;
    for (uint32_t i = 0; i < run; i++) {
        clean += is_clean(&first[i]);
        sealed += first[i].kind == OUT_SEALED;
        empty += first[i].kind == OUT_EMPTY;
    }
    atomic_fetch_add_explicit(&head->evictions, run, memory_order_relaxed);
    atomic_fetch_add_explicit(&head->clean_drops, clean, memory_order_relaxed);
    atomic_fetch_add_explicit(&head->zero_drops, empty, memory_order_relaxed);
    if (sealed > 0)
        shared_seal_dropped(g, first->r, sealed);
    out_of(g)->freed += run;
}

/* Neighbours, all LEAVING, or said to have left by somebody else. */
static void run_leaves(group *g, out_page *first, uint32_t run) {
    bool waiters = false;
    punch_order_shorten(g, run);
    FAILPOINT(shared_committed);
    bool punched = punch_ordered(g, first->r->fd);
    FAILPOINT(shared_punched);
    for (uint32_t i = 0; i < run; i++)
        has_left(g, &first[i], punched, &waiters);
    if (waiters)
        shared_wake(g, first->r, first->page, run);
    FAILPOINT(shared_late);
    for (uint32_t i = 0; i < run; i++) {
        if (!punched)
            shared_drop_late(g, first->r, first->page + i);
        let_go_of_memory(g, &first[i]);
    }
    count_gone(g, first, run);
    for (uint32_t i = 0; i < run; i++)
        first[i].kind = OUT_LEFT;
}

/* As many neighbours as may go, of so many. Return: how many. */
static uint32_t leave_together(group *g, out_page *first, uint32_t most) {
    uint32_t run = 0;
    punch_order(g, first->r->object, first->page, most);
    while (run < most && let_go(g, &first[run]))
        run++;
    if (run > 0)
        run_leaves(g, first, run);
    punch_order_end(g);
    return run;
}

void shared_pages_leave(group *g, out_page *page, uint32_t pages) {
    atomic_store(&group_entry(g, g->self)->out_thread, (uint32_t)gettid());
    for (uint32_t i = 0; i < pages;) {
        uint32_t most = out_run_of(&page[i], pages - i), run = leave_together(g, &page[i], most);
        i += run;
        if (run < most)
            stays(g, &page[i++]);
    }
}

void shared_leave(group *g, out_batch *b) {
    small_lock_acquire(&g->leave_lock);
    shared_pages_leave(g, b->page, b->count);
    small_lock_release(&g->leave_lock);
    for (uint32_t i = 0; i < b->count; i++)
        hand_release(g, &b->page[i]);
    b->count = 0;
    shared_frames_freed(g);
}
