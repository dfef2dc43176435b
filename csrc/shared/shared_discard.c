/*
 * shared_discard.c - contents of shared pages are thrown away (README, Discarded pages).
 *
 * What is in memory leaves as an evicted page does, by the same order, so that nobody waits for a member that is stopped meanwhile; what is out becomes ZERO in
 * one step. LOCK is left for what is rare: lost pages, and where the file may have contents of pages that are out; or a mapper cannot be reached.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "base/lock.h"
#include "shared/mend.h"
#include "shared/shared_advise.h"

#include <errno.h>
#include <sched.h>

/* So long a page is waited for that somebody else has locked, or is reading. */
#define PATIENCE_NS UINT64_C(2000000000)
/* A reader that has been stopped gives no sign: its read can be broken off then. */
#define LOOK_NS UINT64_C(50000000)
#define AT_WORK_NS UINT64_C(1000000)
/* What one turn of waiting counts for at most: who was stopped in it himself has not waited all that time. */
#define TURN_MOST_NS (2 * LOOK_NS)
#define TOGETHER 64U

/* A range that is discarded by this call. */
typedef struct {
    group *g;
    shared_region *r;
    uint64_t state; /* of the object when it began: so that it is the same one still */
    bool waiters;
} discard;

static bool is_same(const discard *d) {
    return atomic_load(&group_object(d->g, d->r->object)->state) == d->state;
}

/* ---- in memory ---- */

/* RESIDENT => WRITING. Who has announced it, or has begun to hold it meanwhile, is looked at after this. */
static bool choose(const discard *d, size_t page, out_page *v) {
    uint64_t seen = shared_load(&d->r->words[page]);
    bool none = false; /* nobody waits for a page that is in nobody's hand */
    *v = (out_page){.r = d->r, .page = page, .frame = (uint32_t)shared_field_of(seen), .discarded = true};
    if (shared_state_of(seen) != SHARED_RESIDENT || shared_is_held(d->g, d->r->object, page) ||
        !shared_move(&d->r->words[page], seen, SHARED_WRITING, d->g->self, v->frame, heat_kept(seen) | out_bits(v),
                     &none))
        return false;
    out_note_kept_slot(d->g, v);
    v->kind = is_same(d) ? OUT_DISCARDED : OUT_GIVEN_UP;
    return true;
}

/* Those of the pages that are in memory, as far as they may go. Write-protected first: what is stored once they are LEAVING is not thrown away, however late this ends. done: a
 * bit a page, of those that have gone. */
static void discard_resident(const discard *d, size_t page, size_t pages, uint64_t *done) {
    out_page chosen[TOGETHER];
    uint32_t count = 0;
    small_lock_acquire(&d->g->leave_lock);
    for (size_t i = 0; i < pages; i++)
        if (!(*done >> i & 1))
            count += choose(d, page + i, &chosen[count]);
    if (count > 0) {
        out_settle(d->g, chosen, count);
        shared_pages_leave(d->g, chosen, count);
    }
    small_lock_release(&d->g->leave_lock);
    for (uint32_t i = 0; i < count; i++)
        *done |= (uint64_t)(chosen[i].kind == OUT_LEFT) << (chosen[i].page - page);
    if (count > 0)
        shared_frames_freed(d->g);
}

/* ---- out ---- */

bool shared_free_named(group *g) {
    uint64_t named = atomic_load(&group_entry(g, g->self)->order.slot);
    if (named > 0 && !slot_table_free_unnamed(g, named - 1))
        return false;
    punch_order_names(g, 0);
    return true;
}

/* SWAPPED => ZERO. Context: leave_lock held; the order names no slot. */
static bool let_go_of_slot(discard *d, size_t page) {
    shared_word *word = &d->r->words[page];
    uint64_t seen = shared_load(word), slot = shared_field_of(seen);
    if (shared_state_of(seen) != SHARED_SWAPPED || (seen & (SHARED_LOCK | SHARED_SEALED)) ||
        shared_is_held(d->g, d->r->object, page) || !is_same(d))
        return false;
    uint64_t use = slot_table_seen(d->g, slot);
    punch_order_names(d->g, slot + 1);
    if (!shared_move(word, seen, SHARED_ZERO, MEMBER_NONE, 0, 0, &d->waiters)) {
        punch_order_names(d->g, 0);
        return false;
    }
    FAILPOINT(shared_unnamed);
    if (slot_table_begin_leave_seen(d->g, slot, use)) {
        slot_table_end_leave(d->g, slot);
        punch_order_names(d->g, 0);
    } else {
        shared_free_named(d->g); /* the page has been in memory, and has come back to the same slot */
    }
    return true;
}

/* Pages of which nothing can be in the file; but for those that have gone: what others have stored there since is theirs. */
static void discard_swapped(discard *d, size_t page, size_t pages, uint64_t *done) {
    small_lock_acquire(&d->g->leave_lock);
    for (size_t i = 0; i < pages && shared_free_named(d->g); i++)
        if (!(*done >> i & 1))
            *done |= (uint64_t)let_go_of_slot(d, page + i) << i;
    small_lock_release(&d->g->leave_lock);
}

/* ---- whatever it is ---- */

static bool is_zero(const discard *d, size_t page) {
    uint64_t seen = shared_load(&d->r->words[page]);
    return shared_state_of(seen) == SHARED_ZERO && !(seen & SHARED_LOCK);
}

/* Its frame is in nobody's hand but the page's. */
static bool has_frame(const discard *d, size_t page) {
    uint64_t seen = shared_load(&d->r->words[page]);
    shared_ref ignored;
    return shared_state_of(seen) == SHARED_RESIDENT &&
           frame_table_page(d->g, (uint32_t)shared_field_of(seen), &ignored);
}

/* Whoever has ended a discard instead of another has it locked until the hole is punched. */
static bool is_being_punched(const discard *d, size_t page) {
    uint64_t seen = shared_load(&d->r->words[page]);
    return shared_state_of(seen) == SHARED_ZERO && (seen & SHARED_LOCK);
}

/* last: it could not be had otherwise for a long time (a mapper that cannot be reached, say). Return: whether it is ZERO, or was since this began. */
static bool try_one(discard *d, size_t page, bool last) {
    shared_word *word = &d->r->words[page];
    uint64_t done = 0;
    shared_break_read(d->g, d->r, page, word);
    shared_take_back(word, shared_load(word)); /* its writer finds out */
    bool framed = has_frame(d, page);
    if (framed)
        discard_resident(d, page, 1, &done);
    else
        discard_swapped(d, page, 1, &done);
    if (done || is_zero(d, page))
        return true;
    return (!framed || last) &&
           shared_try_discard(d->g, group_object(d->g, d->r->object), d->state, d->r->fd, page, &d->waiters);
}

/* A share thread is at it: if it runs, for some microseconds, and says nothing when it goes on. */
static void await_announced(event *unlocked, uint32_t seen, uint64_t waited_ns) {
    if (waited_ns < AT_WORK_NS)
        sched_yield();
    else
        event_wait_shared(unlocked, seen, AT_WORK_NS);
}

/* By a member that is stopped? The share thread looks: it is what announces. */
static void ask_whether_it_has_left(discard *d, size_t page) {
    shared_order order = {.object = d->r->object, .page = page, .pages = 1};
    uint64_t word = shared_load(&d->r->words[page]);
    if (shared_state_of(word) == SHARED_LEAVING && shared_seems_stopped(d->g, shared_member_of(word)))
        shared_order_give(d->g, &order);
}

/* gone: it has been ZERO already, and is not looked at again but for its hole. */
static bool discard_one(discard *d, size_t page, bool gone) {
    event *unlocked = &commons_head(&d->g->commons)->pages_unlocked;
    uint64_t waited_ns = 0, looked_ns = clock_now_ns();
    for (;;) {
        uint32_t seen = event_count(unlocked);
        uint64_t now = clock_now_ns();
        waited_ns += MIN_OF(now - looked_ns, TURN_MOST_NS);
        looked_ns = now;
        gone = gone || try_one(d, page, waited_ns > PATIENCE_NS / 2);
        if (gone && !is_being_punched(d, page))
            return true;
        if (waited_ns > PATIENCE_NS)
            return false;
        if (shared_await(&d->r->words[page])) {
            ask_whether_it_has_left(d, page);
            event_wait_shared(unlocked, seen, LOOK_NS); /* who unlocks it signals */
        } else {
            await_announced(unlocked, seen, waited_ns);
        }
    }
}

/* Together, and what is left then one by one. Return: false: somebody has a page for too long. */
static bool discard_some(discard *d, size_t page, size_t pages) {
    uint64_t done = 0;
    for (size_t i = 0; i < pages; i++)
        done |= (uint64_t)is_zero(d, page + i) << i;
    discard_resident(d, page, pages, &done);
    discard_swapped(d, page, pages, &done);
    for (size_t i = 0; i < pages; i++) {
        bool gone = done >> i & 1;
        if ((!gone || is_being_punched(d, page + i)) && !discard_one(d, page + i, gone))
            return false;
    }
    return true;
}

int shared_discard(group *g, shared_region *r, size_t page, size_t pages) {
    discard d = {.g = g, .r = r, .state = atomic_load(&group_object(g, r->object)->state)};
    int status = 0;
    for (size_t i = 0; i < pages; i++)
        if (shared_is_held(g, r->object, page + i))
            return -EBUSY;
    for (size_t i = 0; i < pages && status == 0; i += TOGETHER)
        if (!discard_some(&d, page + i, MIN_OF(pages - i, (size_t)TOGETHER)))
            status = -EBUSY;
    if (d.waiters)
        shared_wake(g, r, page, pages);
    return status;
}
