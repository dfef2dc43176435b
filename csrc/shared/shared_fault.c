/*
 * shared_fault.c - one fault on a shared page, by the table of README (Processes of one pool).
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "fault/uffd.h"
#include "pool.h"

#include <fcntl.h>

/* First touches that run in sequence are served so many at a time, at most. */
#define FRESH_MAX 512U
#define FRESH_SHARE 16
/* Each time the word has changed since it was looked at, somebody else has gone on; but this thread has others to serve. */
#define TURNS 16

/* Whoever unlocks wakes us, and who has died is buried; but a peer that has no descriptor of ours yet cannot, so the thread looks again by
 * itself after a while. */
static shared_result leave_waiting(group *g, shared_region *r) {
    if (atomic_load(&r->waiting_ns) == 0)
        atomic_store(&r->waiting_ns, clock_now_ns());
    share_of(g)->waits = true;
    return SHARED_WAITS;
}

/* Pages from there on, of so many at most, that are in that state, in nobody's hand, and sealed alike (RESIDENT). */
static size_t run_of(const shared_region *r, size_t page, size_t want, uint64_t like) {
    size_t pages = r->pages, count = 0; /* it may just be getting shorter */
    want = page < pages ? MIN_OF(want, pages - page) : 0;
    while (count < want &&
           ((shared_load(&r->words[page + count]) ^ like) & (SHARED_STATE_MASK | SHARED_LOCK | SHARED_SEALED)) == 0)
        count++;
    return count;
}

/* ---- ZERO ---- */

static size_t fresh_wanted(group *g, shared_region *r, size_t page) {
    uint64_t window = MIN_OF((uint64_t)FRESH_MAX, atomic_load(&share_of(g)->frames_total) / FRESH_SHARE);
    read_ahead_bounds bounds = {.window = (uint32_t)window, .pages = r->pages};
    read_ahead_plan plan =
        read_ahead_fault(&r->fresh, (read_ahead_seen){.page = page, .known = READ_AHEAD_ABSENT}, bounds);
    return plan.count > 0 && plan.stride == 1 ? plan.count : 1;
}

/* ZERO => READING, from nothing, into that frame. Return: false: somebody else was first. */
static bool claim_fresh(group *g, shared_region *r, size_t page, uint32_t frame) {
    shared_word *word = &r->words[page];
    uint64_t seen = shared_load(word);
    bool none = false; /* nobody waits for a page that is in nobody's hand */
    frame_table_aim(g, frame, region_ref(r, page), 0);
    if (shared_state_of(seen) != SHARED_ZERO ||
        !shared_move(word, seen, SHARED_READING, g->self, frame, heat_of_first_touch(g, r, frame), &none))
        return false;
    FAILPOINT(shared_unsettled);
    frame_table_settle(g, frame, region_ref(r, page), 0); /* broken off already: it ends in vain */
    return true;
}

/* Whether it is READING from nothing, by us and into that frame. */
static bool is_ours(const group *g, const shared_region *r, size_t page, uint32_t frame) {
    uint64_t seen = shared_load(&r->words[page]);
    return shared_state_of(seen) == SHARED_READING && !(seen & SHARED_LOCK) &&
           member_equal(shared_member_of(seen), g->self) && shared_field_of(seen) == frame;
}

/* We were to make it: somebody has broken that off. Whose fault began it looks again. */
static void fresh_in_vain(group *g, shared_region *r, size_t page) {
    shared_drop_late(g, r, page);
    uffd_wake(g->uffd, shared_address(r, page), PAGE_BYTES);
}

/* The file has zeroes: READING => RESIDENT. Return: false: it was broken off, so nothing is known of the page. */
static bool settle_fresh(group *g, shared_region *r, size_t page, uint32_t frame, bool *waiters) {
    shared_word *word = &r->words[page];
    uint64_t seen = shared_load(word);
    if (!is_ours(g, r, page, frame) ||
        !shared_move(word, seen, SHARED_RESIDENT, MEMBER_NONE, frame, seen & SHARED_HEAT_MASK, waiters)) {
        fresh_in_vain(g, r, page);
        return false;
    }
    if (unlikely(shared_policy_listens(&g->pool->shared_policy)))
        shared_policy_note(g, r, page, frame, REFAULT_NEVER);
    return true;
}

/* READING => ZERO again, and the frame is free: there is no memory, or those before it were broken off. */
static void drop_fresh(group *g, shared_region *r, size_t page, uint32_t frame) {
    shared_word *word = &r->words[page];
    if (!is_ours(g, r, page, frame) || !shared_lock_own(word, g->self, SHARED_READING)) {
        fresh_in_vain(g, r, page);
        return;
    }
    shared_give_up_read(g, r, page, frame, SHARED_ZERO, 0, 0);
}

/* RESIDENT, by us, and announced since before that. */
static void map_fresh(group *g, shared_region *r, size_t page, size_t count) {
    if (count == 0)
        return;
    shared_map_here(g, r, page, count, (map_how){0});
    if (g->map_for_peers)
        shared_map_peers(g, r, page, count, false);
}

/* Context: announced, then seen READING by us, so many pages. */
static shared_result make_fresh(group *g, shared_region *r, size_t page, size_t count, const uint32_t *frames) {
    if (fallocate(r->fd, 0, (off_t)(page << PAGE_SHIFT), (off_t)(count << PAGE_SHIFT)) != 0) {
        for (size_t i = 0; i < count; i++)
            drop_fresh(g, r, page + i, frames[i]);
        return SHARED_AGAIN;
    }
    FAILPOINT(shared_fresh);
    bool waiters = false;
    for (size_t at = 0, run; at < count; at += run + 1) {
        for (run = 0; at + run < count && settle_fresh(g, r, page + at + run, frames[at + run], &waiters); run++) {
        }
        FAILPOINT(shared_before_continue);
        map_fresh(g, r, page + at, run);
    }
    if (waiters)
        shared_wake(g, r, page, count);
    return SHARED_DONE;
}

static shared_result fresh(group *g, shared_region *r, size_t page) {
    uint32_t frames[FRESH_MAX];
    size_t wanted = MAX_OF(run_of(r, page, fresh_wanted(g, r, page), SHARED_ZERO), (size_t)1);
    uint32_t left = frames_claim(g, (uint32_t)wanted, frames);
    size_t count = 0, ours = 0;
    if (left == 0)
        return SHARED_NO_FRAME;
    while (count < left && claim_fresh(g, r, page + count, frames[count]))
        count++;
    at_work_begin(g, r, page, count);
    while (ours < count && is_ours(g, r, page + ours, frames[ours]))
        ours++;
    shared_result result = ours > 0 ? make_fresh(g, r, page, ours, frames) : SHARED_LOST;
    at_work_end(g);
    for (size_t i = ours; i < count; i++) /* behind one that was broken off */
        drop_fresh(g, r, page + i, frames[i]);
    while (left > count)
        frames_release(g, frames[--left]);
    return result;
}

/* ---- RESIDENT ---- */

/* A sealed one that is mapped already: it is a store's, unless two threads touched it at once. Where stores go on in sequence (on), what follows is
 * let go with it. Context: announced, then seen RESIDENT, and sealed alike. */
static size_t map_resident(group *g, shared_region *r, size_t page, size_t run, bool sealed, bool on) {
    FAILPOINT(shared_before_continue);
    size_t mapped = shared_map_here(g, r, page, run, (map_how){.sealed = sealed, .around = true});
    return !sealed || mapped > 0 ? mapped : shared_unseal(g, r, page, on ? run : 1);
}

/* In memory, and not mapped here, or write-protected: it is mapped, and its neighbours with it. Return: how many; 0: look again. */
static uint32_t soft(group *g, shared_region *r, size_t page) {
    soft_run *run = soft_runs_find(&r->soft, page);
    uint32_t want = soft_run_wanted(run);
    at_work_begin(g, r, page, want);
    uint64_t seen = shared_load(&r->words[page]);
    if (!(seen & SHARED_LOCK) && shared_take_back(&r->words[page], seen))
        seen = shared_load(&r->words[page]);
    size_t count = shared_state_of(seen) == SHARED_RESIDENT ? run_of(r, page, want, seen) : 0;
    uint32_t mapped = 0;
    if (count > 0)
        mapped = (uint32_t)map_resident(g, r, page, count, seen & SHARED_SEALED, run->pages > 0 && page == run->next);
    at_work_end(g);
    if (mapped == 0)
        return 0;
    soft_runs_mapped(&r->soft, run, page, mapped);
    atomic_fetch_add_explicit(&commons_head(&g->commons)->soft_faults, 1, memory_order_relaxed);
    return mapped;
}

static shared_result resident(group *g, shared_region *r, size_t page) {
    uint32_t mapped = soft(g, r, page);
    if (mapped == 0)
        return SHARED_LOST;
    shared_in_ahead(g, r, (read_ahead_seen){.page = page, .mapped = mapped});
    return SHARED_DONE;
}

/* ---- the others ---- */

static shared_result poisoned(group *g, shared_region *r, size_t page) {
    shared_word *word = &r->words[page];
    if (!shared_try_lock(word, g->self, true))
        return SHARED_LOST;
    bool lost = shared_state_of(shared_load(word)) == SHARED_POISONED;
    if (lost) {
        shared_punch(r->fd, page, 1); /* of a late reader, who had found it right: stores would go through to it */
        shared_poison(g, r, page);
    }
    if (shared_unlock(word, g->self))
        shared_wake(g, r, page, 1);
    return lost ? SHARED_DONE : SHARED_LOST;
}

static shared_result swapped(group *g, shared_region *r, size_t page) {
    shared_result result = shared_in_start(g, r, page);
    return result == SHARED_DONE ? SHARED_WAITS : result; /* woken by its end, which is ours */
}

/* Somebody has it. */
static shared_result taken(group *g, shared_region *r, size_t page) {
    stopped_result past = shared_go_past(g, r, page);
    if (past == STOPPED_SHOWN)
        return SHARED_SHOWN;
    if (past == STOPPED_ENDED || !shared_await(&r->words[page]))
        return SHARED_LOST;
    if (shared_state_of(shared_load(&r->words[page])) == SHARED_READING)
        shared_in_ahead(g, r, (read_ahead_seen){.page = page});
    return leave_waiting(g, r);
}

static shared_result by_word(group *g, shared_region *r, size_t page) {
    uint64_t seen = shared_load(&r->words[page]);
    if (shared_is_taken(seen))
        return taken(g, r, page);
    switch (shared_state_of(seen)) {
    case SHARED_ZERO:
        return fresh(g, r, page);
    case SHARED_RESIDENT:
    case SHARED_WRITING:
        return resident(g, r, page);
    case SHARED_SWAPPED:
        return swapped(g, r, page);
    case SHARED_POISONED:
        return poisoned(g, r, page);
    case SHARED_READING:
    case SHARED_LEAVING:
        break; /* taken */
    }
    return SHARED_LOST;
}

shared_result shared_fault(group *g, shared_region *r, size_t page) {
    atomic_fetch_add_explicit(&group_object(g, r->object)->faults, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&commons_head(&g->commons)->faults, 1, memory_order_relaxed);
    FAILPOINT(shared_fault);
    shared_result result = SHARED_LOST;
    for (int turn = 0; turn < TURNS && result == SHARED_LOST; turn++)
        result = by_word(g, r, page);
    return result == SHARED_LOST ? SHARED_AGAIN : result;
}
