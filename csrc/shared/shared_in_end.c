/*
 * shared_in_end.c - a read of shared pages has ended: the contents are checked, come into the object's file, and the words say so.
 *
 * Whoever has broken the read off meanwhile, whatever comes late does no harm: README, Nobody waits for anybody.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "fault/uffd.h"
#include "pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool is_right(group *g, uint64_t slot, void *memory) {
    uint8_t found[16];
    FAILPOINT_DATA(shared_hash, memory, PAGE_BYTES);
    shared_hash(g, memory, found);
    return memcmp(found, commons_slots(&g->commons)[slot].hash, sizeof found) == 0;
}

/* Return: 0; -EBADMSG: its checksum is wrong; -errno: it could not be read. */
static int read_again(group *g, uint64_t slot, void *memory) {
    int status = FAILPOINT(shared_one);
    if (status == 0)
        status = io_page(&g->read_io, IO_READ, g->swap_fd, memory, swap_entry_make(0, slot));
    if (status == 0 && is_right(g, slot, memory))
        return 0;
    STAT_ADD(g->pool, read_errors, status != 0);
    STAT_ADD(g->pool, hash_errors, status == 0);
    return status != 0 ? status : -EBADMSG;
}

/* Whether that is this one's read still, and nobody has the page locked: others break off the reads of who seems to be stopped, and whatever has become
 * of the page since, this thread may have begun to read it anew. No other thread makes it READING by this member. */
static bool is_our_read(group *g, const read_unit *unit, uint32_t i, uint64_t seen) {
    uint32_t frame = unit->frame[i];
    return shared_state_of(seen) == SHARED_READING && !(seen & SHARED_LOCK) &&
           member_equal(shared_member_of(seen), g->self) && shared_field_of(seen) == frame &&
           frame_table_slot(g, frame) == unit->first_slot + i + 1;
}

/* The same, and locks it. */
static bool lock_read(group *g, const read_unit *unit, uint32_t i) {
    shared_word *word = &unit->r->words[unit->page[i]];
    return is_our_read(g, unit, i, shared_load(word)) && shared_lock_own(word, g->self, SHARED_READING);
}

/* Locked, READING => SWAPPED again: there was no memory for it. */
static void take_back(group *g, shared_region *r, size_t page, uint32_t frame, uint64_t slot) {
    shared_give_up_read(g, r, page, frame, SHARED_SWAPPED, slot,
                        heat_kept(shared_load(&r->words[page])) | SHARED_SEALED); /* another may come late */
}

/* Somebody else has broken the read off. Who does that wakes whoever has said that he waits (WAITERS); those whose fault began it have not: they look
 * again. */
static void end_in_vain(group *g, const read_unit *unit, uint32_t i) {
    shared_drop_late(g, unit->r, unit->page[i]);
    uffd_wake(g->uffd, shared_address(unit->r, unit->page[i]), PAGE_BYTES);
}

/* Whoever touches it faults, and is told by a thread of its own process (shared_fault.c): only that one knows that the handler of SIGBUS is there. */
static void lose(group *g, const read_unit *unit, uint32_t i, int status) {
    shared_region *r = unit->r;
    size_t page = unit->page[i];
    uint32_t frame = unit->frame[i];
    uint64_t slot = unit->first_slot + i;
    if (!lock_read(g, unit, i)) {
        end_in_vain(g, unit, i);
        return;
    }
    INVARIANT(I17, slot_table_begin_leave(g, slot));
    shared_give_up_read(g, r, page, frame, SHARED_POISONED, (uint64_t)-status, 0);
    slot_table_end_leave(g, slot);
}

/* For the policy, if there is one that wants to know: after how many evictions it has come back. */
static void note_return(group *g, const read_unit *unit, uint32_t i) {
    uint64_t since = slot_eviction(g, unit->first_slot + i),
             clock = atomic_load(&commons_head(&g->commons)->eviction_clock);
    uint64_t distance = since > 0 ? MIN_OF(clock - (since - 1), (uint64_t)REFAULT_NEVER - 1) : REFAULT_NEVER;
    shared_policy_note(g, unit->r, unit->page[i], unit->frame[i], (uint32_t)distance);
}

/* READING => RESIDENT; sealed, but where somebody wants the page for any access: he has said so, and looks after this. Return: false: it was broken off.
 * *sealed, *waiters: as by shared_move. */
static bool settle(group *g, const read_unit *unit, uint32_t i, bool *sealed, bool *waiters) {
    shared_word *word = &unit->r->words[unit->page[i]];
    uint64_t seen = shared_load(word), heat = heat_of_return(g, unit->r, seen, unit->first_slot + i);
    *sealed = *sealed && !shared_is_held(g, unit->r->object, unit->page[i]);
    if (!is_our_read(g, unit, i, seen) || !shared_move(word, seen, SHARED_RESIDENT, MEMBER_NONE, unit->frame[i],
                                                       heat | (*sealed ? SHARED_SEALED : 0), waiters))
        return false;
    if (unlikely(shared_policy_listens(&g->pool->shared_policy)))
        note_return(g, unit, i);
    return true;
}

/* Where the kernel does not take the contents so, they go into the file under the lock: nobody may come between. Return: whether the page came in. */
static bool come_by_file(group *g, const read_unit *unit, uint32_t i) {
    shared_region *r = unit->r;
    size_t page = unit->page[i];
    if (!lock_read(g, unit, i)) {
        end_in_vain(g, unit, i);
        return false;
    }
    const unsigned char *contents = unit->memory + ((size_t)i << PAGE_SHIFT);
    if (pwrite(r->fd, contents, PAGE_BYTES, (off_t)((uint64_t)page << PAGE_SHIFT)) != (ssize_t)PAGE_BYTES) {
        take_back(g, r, page, unit->frame[i], unit->first_slot + i);
        return false;
    }
    uint64_t heat = heat_of_return(g, r, shared_load(&r->words[page]), unit->first_slot + i);
    shared_set(&r->words[page], g->self, SHARED_RESIDENT, unit->frame[i], heat);
    if (unlikely(shared_policy_listens(&g->pool->shared_policy)))
        note_return(g, unit, i);
    bool waiters = shared_unlock(&r->words[page], g->self);
    (void)waiters;
    shared_wake(g, r, page, 1); /* and whose fault began it */
    return true;
}

/* What is not sealed may be stored to. loose: of these pages, which. */
static void let_stores(group *g, shared_region *r, size_t page, uint32_t count, const bool *loose) {
    for (uint32_t i = 0, run; i < count; i += run + 1) {
        for (run = 0; i + run < count && loose[i + run]; run++) {
        }
        if (run > 0)
            shared_allow_stores(g, r, page + i, run);
    }
}

/* Contents are there, and mapped write-protected: the words say so. Return: how many came in. */
static uint32_t settle_run(group *g, const read_unit *unit, uint32_t first, uint32_t count, bool *waiters) {
    bool loose[IN_UNIT_PAGES], seal = shared_seal_wanted(g, unit->r);
    uint32_t came = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool sealed = seal, ours = settle(g, unit, first + i, &sealed, waiters);
        loose[i] = ours && !sealed;
        came += ours;
        if (!ours)
            end_in_vain(g, unit, first + i);
    }
    FAILPOINT(shared_settled);
    if (unit->markers[first])
        shared_unmap_here(unit->r, unit->page[first], count);
    else
        let_stores(g, unit->r, unit->page[first], count, loose);
    if (g->map_for_peers && came == count)
        shared_map_peers(g, unit->r, unit->page[first], count, seal);
    return came;
}

/* Neighbours with the right contents come in: all markers, or none. Context: announced, then seen READING by us. */
static void run_comes(group *g, const read_unit *unit, uint32_t first, uint32_t count, bool *waiters) {
    shared_region *r = unit->r;
    size_t page = unit->page[first];
    FAILPOINT(shared_arriving);
    uint32_t copied = (uint32_t)shared_copy_here(g, r, page, count, unit->memory + ((size_t)first << PAGE_SHIFT));
    FAILPOINT(shared_filled);
    uint32_t came = copied > 0 ? settle_run(g, unit, first, copied, waiters) : 0;
    for (uint32_t i = copied; i < count; i++)
        came += come_by_file(g, unit, first + i);
    atomic_fetch_add_explicit(&commons_head(&g->commons)->pages_read, came, memory_order_relaxed);
}

/* Whoever has broken a read off, it does no harm: README, Nobody waits for anybody. */
static void run_ends(group *g, const read_unit *unit, uint32_t first, uint32_t count, bool *waiters) {
    at_work_begin(g, unit->r, unit->page[first], count);
    for (uint32_t end = first + count, run; first < end; first += run + 1) {
        for (run = 0; first + run < end &&
                      is_our_read(g, unit, first + run, shared_load(&unit->r->words[unit->page[first + run]]));
             run++) {
        }
        if (run > 0)
            run_comes(g, unit, first, run, waiters);
        if (first + run < end)
            end_in_vain(g, unit, first + run);
    }
    at_work_end(g);
}

/* Those who wait, here and, if there are any, in the peers. At the end of all: whoever goes on from the first page would else be at the markers behind it
 * before they are unmapped again. */
static void wake_unit(group *g, const read_unit *unit, bool waiters) {
    for (uint32_t i = 0, run; i < unit->pages; i += run) {
        for (run = 1; i + run < unit->pages && unit->page[i + run] == unit->page[i] + run; run++) {
        }
        if (waiters)
            shared_wake(g, unit->r, unit->page[i], run);
        else
            uffd_wake(g->uffd, shared_address(unit->r, unit->page[i]), (size_t)run << PAGE_SHIFT);
    }
}

void shared_in_end(group *g, const read_unit *unit, bool whole) {
    uint32_t begin = 0;
    bool waiters = false;
    for (uint32_t i = 0; i < unit->pages; i++) {
        void *memory = unit->memory + ((size_t)i << PAGE_SHIFT);
        uint64_t slot = unit->first_slot + i;
        bool first_try = whole && is_right(g, slot, memory);
        /* Broken off, the slot may have become another page's: that is no error. */
        bool ours = first_try || is_our_read(g, unit, i, shared_load(&unit->r->words[unit->page[i]]));
        int status = first_try || !ours ? 0 : read_again(g, slot, memory);
        bool right = ours && status == 0;
        bool joins =
            right && i > begin && unit->page[i] == unit->page[i - 1] + 1 && unit->markers[i] == unit->markers[i - 1];
        if (i > begin && !joins)
            run_ends(g, unit, begin, i - begin, &waiters);
        if (!joins)
            begin = i;
        if (right)
            continue;
        if (ours)
            lose(g, unit, i, status);
        else
            end_in_vain(g, unit, i);
        begin = i + 1;
    }
    if (begin < unit->pages)
        run_ends(g, unit, begin, unit->pages - begin, &waiters);
    wake_unit(g, unit, waiters);
}
