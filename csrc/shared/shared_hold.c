/*
 * shared_hold.c - ranges of shared pages that a member wants in memory (lock, resident).
 *
 * A range is said first, and looked at then; who evicts changes a page's word first, and looks at the ranges then. One of the two sees the other, so a
 * page that is in memory and unlocked after its range has been said stays there.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "shared/shared_advise.h"

#include <errno.h>

/* Nothing has come in for so long: there is no memory. */
#define PATIENCE_NS UINT64_C(10000000000)
#define LOOK_NS UINT64_C(2000000)

static member_hold *find_free(member_entry *own) {
    for (uint32_t i = 0; i < HOLDS_MAX; i++)
        if (atomic_load(&own->hold[i].count) == 0)
            return &own->hold[i];
    return NULL;
}

/* Context: g->regions_lock held. */
static bool say(group *g, uint32_t object, uint64_t page, uint64_t pages) {
    member_entry *own = group_entry(g, g->self);
    member_hold *hold = find_free(own);
    if (!hold)
        return false;
    atomic_fetch_or(&commons_head(&g->commons)->holders, UINT64_C(1) << member_index(g->self));
    atomic_store(&hold->object, object);
    atomic_store(&hold->first, page);
    atomic_store(&hold->count, pages);
    atomic_fetch_add(&own->holds, 1);
    return true;
}

static void unsay(group *g, member_hold *hold) {
    atomic_store(&hold->count, 0);
    if (atomic_fetch_sub(&group_entry(g, g->self)->holds, 1) == 1)
        atomic_fetch_and(&commons_head(&g->commons)->holders, ~(UINT64_C(1) << member_index(g->self)));
}

/* What is left of the range without [page, end): the part behind in a place of its own, before the part in front is cut. */
static void cut(group *g, member_hold *hold, uint64_t page, uint64_t end) {
    uint64_t first = atomic_load(&hold->first), last = first + atomic_load(&hold->count);
    if (end < last && first < page && !say(g, atomic_load(&hold->object), end, last - end))
        return; /* no place: all of it stays held */
    if (first < page) {
        atomic_store(&hold->count, page - first);
    } else if (end < last) {
        if (say(g, atomic_load(&hold->object), end, last - end))
            unsay(g, hold);
    } else {
        unsay(g, hold);
    }
}

void shared_release(group *g, shared_region *r, size_t page, size_t pages) {
    member_entry *own = group_entry(g, g->self);
    uint64_t end = page + pages;
    small_lock_acquire(&g->regions_lock);
    for (uint32_t i = 0; i < HOLDS_MAX; i++) { /* one that is exactly this, if there is one */
        member_hold *hold = &own->hold[i];
        if (atomic_load(&hold->count) == pages && atomic_load(&hold->first) == page &&
            atomic_load(&hold->object) == r->object) {
            unsay(g, hold);
            small_lock_release(&g->regions_lock);
            return;
        }
    }
    for (uint32_t i = 0; i < HOLDS_MAX; i++) {
        member_hold *hold = &own->hold[i];
        uint64_t first = atomic_load(&hold->first), count = atomic_load(&hold->count);
        if (count > 0 && atomic_load(&hold->object) == r->object && first < end && page < first + count)
            cut(g, hold, page, end);
    }
    small_lock_release(&g->regions_lock);
}

void shared_release_all(group *g, uint32_t object) {
    member_entry *own = group_entry(g, g->self);
    small_lock_acquire(&g->regions_lock);
    for (uint32_t i = 0; i < HOLDS_MAX; i++)
        if (atomic_load(&own->hold[i].count) > 0 && atomic_load(&own->hold[i].object) == object)
            unsay(g, &own->hold[i]);
    small_lock_release(&g->regions_lock);
}

/* Return: how many pages of the range are not in memory for good, for any access (a store to a sealed one would fault); *first: the first of them. -1: *first is lost. One
 * that is WRITING may be about to leave: who evicts it may have looked for holders before. */
static int64_t count_absent(shared_region *r, size_t page, size_t pages, size_t *first) {
    int64_t absent = 0;
    for (size_t i = pages; i-- > 0;) {
        uint64_t word = atomic_load(&r->words[page + i]);
        shared_state state = shared_state_of(word);
        if (!(word & (SHARED_LOCK | SHARED_SEALED)) && state == SHARED_RESIDENT)
            continue;
        *first = page + i;
        if (state == SHARED_POISONED)
            return -1;
        absent++;
    }
    return absent;
}

/* Orders what is missing until nothing is. */
static int bring_in(group *g, shared_region *r, size_t page, size_t pages, size_t *bad) {
    share_state *s = share_of(g);
    uint64_t since = clock_now_ns();
    int64_t before = INT64_MAX, absent;
    shared_order order = {.object = r->object, .map = true, .page = page, .pages = pages};
    shared_order_give(g, &order);
    for (;;) {
        uint32_t seen = event_count(&s->progress);
        size_t first = page;
        absent = count_absent(r, page, pages, &first);
        *bad = first;
        if (absent <= 0)
            return absent < 0 ? -EIO : 0;
        uint64_t now = clock_now_ns();
        if (absent < before || io_unanswered_since(&g->read_io) != 0) /* not memory is short: the disk is slow */
            since = now;
        else if (now - since > PATIENCE_NS)
            return shared_is_taken(shared_load(&r->words[first])) ? -EBUSY : -ENOSPC;
        before = MIN_OF(before, absent);
        if (atomic_load(&s->orders_count) ==
            0) { /* it has been followed, and some of it has gone again, or was in others' hands */
            order.page = first;
            order.pages = page + pages - first;
            shared_order_give(g, &order);
        }
        event_wait(&s->progress, seen, LOOK_NS);
    }
}

/* ---- where system calls must not fault (README, Held) ---- */

/* Return: whether all of it is in memory, mapped, and may be stored to. */
static bool pass_over(group *g, shared_region *r, size_t page, size_t pages, uint64_t deadline_ns) {
    share_state *s = share_of(g);
    shared_order order = {.object = r->object, .map = true, .page = page, .pages = pages};
    uint64_t number = shared_order_give(g, &order);
    for (;;) {
        uint32_t seen = event_count(&s->progress);
        if (number == 0 || clock_now_ns() > deadline_ns)
            return false;
        if (atomic_load(&s->orders_ended) >= number)
            return atomic_load(&s->orders_missed) < number;
        event_wait(&s->progress, seen, LOOK_NS);
    }
}

static int pass_over_all(group *g, shared_region *r, size_t page, size_t pages) {
    uint64_t deadline_ns = clock_now_ns() + PATIENCE_NS;
    while (!pass_over(g, r, page, pages, deadline_ns)) {
        if (clock_now_ns() > deadline_ns)
            return -EBUSY;
        event_wait(&share_of(g)->progress, event_count(&share_of(g)->progress), LOOK_NS);
    }
    return 0;
}

/* Until the member is no more where it was when it was protecting pages. */
static bool await_protected(group *g, unsigned index, uint64_t deadline_ns) {
    const member_entry *entry = &commons_head(&g->commons)->members[index];
    uint64_t life = atomic_load(&entry->state), at = atomic_load(&entry->protects);
    while (at % 2 == 1 && atomic_load(&entry->protects) == at && atomic_load(&entry->state) == life &&
           member_state_of(life) != MEMBER_DEAD) {
        if (clock_now_ns() > deadline_ns)
            return false;
        event_wait(&share_of(g)->progress, event_count(&share_of(g)->progress), LOOK_NS);
    }
    return true;
}

static int settle(group *g, shared_region *r, size_t page, size_t pages) {
    int status = pass_over_all(g, r, page, pages);
    FAILPOINT(hold_passed);
    uint64_t deadline_ns = clock_now_ns() + PATIENCE_NS;
    for (unsigned i = 0; i < MEMBERS_MAX && status == 0; i++)
        if (!await_protected(g, i, deadline_ns))
            status = -EBUSY;
    return status == 0 ? pass_over_all(g, r, page, pages) : status;
}

int shared_hold(group *g, shared_region *r, size_t page, size_t pages, size_t *bad) {
    if (pages >= commons_limit_chunks(&g->commons) * commons_head(&g->commons)->chunk_frames)
        return -ENOSPC;
    small_lock_acquire(&g->regions_lock);
    bool said = say(g, r->object, page, pages);
    small_lock_release(&g->regions_lock);
    if (!said)
        return -EMFILE;
    int status = bring_in(g, r, page, pages, bad);
    if (status == 0 && g->user_mode_only)
        status = settle(g, r, page, pages);
    if (status != 0)
        shared_release(g, r, page, pages);
    return status;
}
