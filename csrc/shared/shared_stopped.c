/*
 * shared_stopped.c - pages in the hand of a member that seems to be stopped: how the others go on (README, Nobody waits for anybody).
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "base/proc_stat.h"
#include "fault/uffd.h"

#include <errno.h>

/* Who has not looked around for so long is stopped, most likely (grants_tend.c: every 100 ms). */
#define STOPPED_NS UINT64_C(250000000)

/* It need not be so: if it goes on, it has done something in vain, and whoever is as slow as that does not lose much. */
bool shared_seems_stopped(const group *g, member_id id) {
    uint64_t beat = atomic_load(&group_entry(g, id)->beat_ns);
    return !member_equal(id, g->self) && clock_now_ns() > beat + STOPPED_NS;
}

/* ---- READING ---- */

bool shared_break_read(group *g, shared_region *r, uint64_t page, shared_word *word) {
    uint64_t seen = shared_load(word);
    if (shared_state_of(seen) != SHARED_READING || (seen & SHARED_LOCK) ||
        !shared_seems_stopped(g, shared_member_of(seen)))
        return false;
    uint32_t frame = (uint32_t)shared_field_of(seen);
    if (!shared_lock_reading(word, g->self, seen))
        return false;
    uint64_t slot = frame_table_slot(g, frame);
    frame_table_take(g, frame, shared_member_of(seen));
    if (slot > 0)
        shared_set(word, g->self, SHARED_SWAPPED, slot - 1, heat_kept(seen) | SHARED_SEALED);
    else
        shared_set(word, g->self, SHARED_ZERO, 0, 0);
    frame_table_end_leave(g, frame);
    frames_release(g, frame);
    if (shared_unlock(word, g->self))
        shared_wake(g, r, (size_t)page, 1);
    return true;
}

/* ---- LEAVING ---- */

/* What the object's file has of the page is mapped here, write-protected. Return: 0 or -EEXIST: it has it; -EFAULT: it has a hole. */
static int show(group *g, shared_region *r, size_t page) {
    size_t done;
    int status, tries = 0;
    do
        status = uffd_continue(g->uffd, shared_address(r, page), 1, true, true, &done);
    while (status == -EAGAIN && ++tries < SHARED_TRIES);
    return status;
}

/* Whether its member will not punch it any more: the thread that does is stopped, outside of any system call, and its order is taken back. (That of another run, should
 * the word have changed, is left alone.) */
static bool is_called_off(group *g, shared_word *word, uint64_t seen) {
    member_id member = shared_member_of(seen);
    const member_entry *entry = group_entry(g, member);
    uint32_t pid = member_pid_of(atomic_load(&entry->state)), tid = atomic_load(&entry->out_thread);
    uint64_t before, after;
    return proc_thread_is_stopped(pid, tid, &before) && ((shared_load(word) ^ seen) & ~SHARED_WAITERS) == 0 &&
           punch_take_back(g, member) && proc_thread_is_stopped(pid, tid, &after) && before == after &&
           atomic_load(&entry->out_thread) == tid;
}

/* The slot is the page's; the member that is stopped may not have said so yet. */
static void settle_slot(group *g, shared_word *word, uint64_t seen) {
    uint64_t slot = shared_field_of(seen), use = slot_table_seen(g, slot);
    if (slot > 0 && ((shared_load(word) ^ seen) & ~SHARED_WAITERS) == 0)
        slot_table_settle(g, slot, use, shared_member_of(seen));
}

bool shared_break_leave(group *g, shared_region *r, size_t page) {
    shared_word *word = &r->words[page];
    bool waiters = false, done = false;
    at_work_begin(g, r, page, 1); /* so it does not come and leave once more meanwhile */
    uint64_t seen = shared_load(word);
    if (shared_state_of(seen) == SHARED_LEAVING && !(seen & SHARED_LOCK) && is_called_off(g, word, seen)) {
        settle_slot(g, word, seen);
        done = shared_say_left(g, r, page, seen, false, &waiters);
    }
    at_work_end(g);
    FAILPOINT(shared_broken);
    if (waiters)
        shared_wake(g, r, page, 1);
    return done;
}

/* ---- all ---- */

stopped_result shared_go_past(group *g, shared_region *r, size_t page) {
    uint64_t seen = shared_load(&r->words[page]);
    if (!shared_is_taken(seen))
        return STOPPED_ENDED;
    if (shared_break_read(g, r, page, &r->words[page]))
        return STOPPED_ENDED;
    if (!shared_seems_stopped(g, shared_member_of(seen)) || shared_state_of(seen) == SHARED_POISONED)
        return STOPPED_NOT;
    if (g->shows && show(g, r, page) == 0)
        return STOPPED_SHOWN;
    return shared_state_of(seen) == SHARED_LEAVING && shared_break_leave(g, r, page) ? STOPPED_ENDED : STOPPED_NOT;
}
