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

/* Whoever unlocks wakes us, and who has died is buried; but a peer that has no descriptor of ours yet cannot, so the thread looks again by
 * itself after a while. */
static shared_result leave_waiting(group *g, shared_region *r) {
    if (atomic_load(&r->waiting_ns) == 0)
        atomic_store(&r->waiting_ns, clock_now_ns());
    share_of(g)->waits = true;
    return SHARED_WAITS;
}

static void unlock_run(group *g, shared_region *r, size_t page, size_t pages) {
    bool waiters = false;
    for (size_t i = 0; i < pages; i++)
        waiters |= shared_unlock(&r->words[page + i], g->self);
    if (waiters)
        shared_wake(g, r, page, pages);
}

/* Locks those behind page, which is locked, as long as they are in that state. Return: how many are locked, page included. */
static size_t lock_behind(group *g, shared_region *r, size_t page, size_t want, shared_state state) {
    size_t count = 1;
    size_t pages = r->pages; /* it may just be getting shorter */
    want = page < pages ? MIN_OF(want, pages - page) : 1;
    while (count < want) {
        shared_word *word = &r->words[page + count];
        if (shared_state_of(shared_load(word)) != state || !shared_try_lock(word, g->self, false))
            break;
        if (shared_state_of(shared_load(word)) != state) {
            unlock_run(g, r, page + count, 1);
            break;
        }
        count++;
    }
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

static shared_result fresh(group *g, shared_region *r, size_t page) {
    uint32_t frames[FRESH_MAX];
    size_t locked = lock_behind(g, r, page, fresh_wanted(g, r, page), SHARED_ZERO);
    size_t count = frames_claim(g, (uint32_t)locked, frames);
    shared_result result = count > 0 ? SHARED_DONE : SHARED_NO_FRAME;
    if (count > 0 && fallocate(r->fd, 0, (off_t)(page << PAGE_SHIFT), (off_t)(count << PAGE_SHIFT)) != 0) {
        for (size_t i = 0; i < count; i++)
            frames_release(g, frames[i]);
        count = 0;
        result = SHARED_AGAIN;
    }
    for (size_t i = 0; i < count; i++) {
        shared_ref ref = region_ref(r, page + i);
        frame_table_aim(g, frames[i], ref, 0);
        shared_set(&r->words[page + i], g->self, SHARED_RESIDENT, frames[i], heat_of_first_touch(g, r, frames[i]));
        frame_table_settle(g, frames[i], ref, 0);
        if (unlikely(shared_policy_listens(&g->pool->shared_policy)))
            shared_policy_note(g, r, page + i, frames[i], REFAULT_NEVER);
    }
    if (count > 0) {
        FAILPOINT(shared_before_continue);
        shared_map_here(g, r, page, count, (map_how){0});
        if (g->map_for_peers)
            shared_map_peers(g, r, page, count, false);
    }
    unlock_run(g, r, page, locked);
    return result;
}

/* ---- RESIDENT ---- */

static size_t sealed_alike(const shared_region *r, size_t page, size_t pages) {
    uint64_t sealed = shared_load(&r->words[page]) & SHARED_SEALED;
    size_t run = 1;
    while (run < pages && (shared_load(&r->words[page + run]) & SHARED_SEALED) == sealed)
        run++;
    return run;
}

/* A sealed one that is mapped already: it is a store's, unless two threads touched it at once. Where stores go on in sequence (on), what follows is
 * let go with it. */
static size_t map_resident(group *g, shared_region *r, size_t page, size_t pages, bool on) {
    bool sealed = shared_load(&r->words[page]) & SHARED_SEALED;
    size_t run = sealed_alike(r, page, pages);
    size_t mapped = shared_map_here(g, r, page, run, (map_how){.sealed = sealed, .around = true});
    if (!sealed || mapped > 0)
        return mapped;
    run = on ? run : 1;
    shared_unseal(g, r, page, run);
    return run;
}

/* Whether a run that was to go on to the end has come to a page that somebody else is at, who maps it, say: that says nothing about how far the run goes. */
static bool is_cut_by_lock(const shared_region *r, size_t page, size_t end) {
    return page < MIN_OF(end, r->pages) && shared_state_of(shared_load(&r->words[page])) == SHARED_RESIDENT;
}

/* In memory, and not mapped here, or write-protected: it is mapped, and its neighbours with it. Return: how many. */
static uint32_t soft(group *g, shared_region *r, size_t page) {
    soft_run *run = soft_runs_find(&r->soft, page);
    uint32_t want = soft_run_wanted(run);
    uint32_t locked = (uint32_t)lock_behind(g, r, page, want, SHARED_RESIDENT);
    uint32_t mapped = (uint32_t)map_resident(g, r, page, locked, run->pages > 0 && page == run->next);
    unlock_run(g, r, page, locked);
    bool cut = mapped == locked && is_cut_by_lock(r, page + mapped, page + want);
    mapped = MAX_OF(mapped, 1U);
    soft_runs_mapped(&r->soft, run, page, mapped, cut ? want / 2 : mapped);
    atomic_fetch_add_explicit(&commons_head(&g->commons)->soft_faults, 1, memory_order_relaxed);
    return mapped;
}

/* ---- all ---- */

static shared_result poisoned(group *g, shared_region *r, size_t page) {
    shared_poison(g, r, page);
    unlock_run(g, r, page, 1);
    return SHARED_DONE;
}

static shared_result start_read(group *g, shared_region *r, size_t page) {
    shared_result result = shared_in_start(g, r, page);
    return result == SHARED_DONE ? SHARED_WAITS : result; /* woken by its end, which is ours */
}

shared_result shared_fault(group *g, shared_region *r, size_t page) {
    shared_word *word = &r->words[page];
    atomic_fetch_add_explicit(&group_object(g, r->object)->faults, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&commons_head(&g->commons)->faults, 1, memory_order_relaxed);
    if (!shared_try_lock(word, g->self, true)) {
        if (shared_break_read(g, word))
            return start_read(g, r, page);
        if (shared_state_of(shared_load(word)) == SHARED_READING)
            shared_in_ahead(g, r, (read_ahead_seen){.page = page});
        return leave_waiting(g, r);
    }
    FAILPOINT(shared_locked);
    switch (shared_state_of(shared_load(word))) {
    case SHARED_ZERO:
        return fresh(g, r, page);
    case SHARED_RESIDENT:
        shared_in_ahead(g, r, (read_ahead_seen){.page = page, .mapped = soft(g, r, page)});
        return SHARED_DONE;
    case SHARED_SWAPPED:
        return start_read(g, r, page);
    case SHARED_POISONED:
        return poisoned(g, r, page);
    case SHARED_READING:
    case SHARED_WRITING:
        break; /* not to be locked by a fault */
    }
    unlock_run(g, r, page, 1);
    return SHARED_AGAIN;
}
