/*
 * shared_model.c - what members do with shared pages, without the kernel's part: contents are copied, nothing is mapped.
 */
#define _GNU_SOURCE
#include "shared_model.h"

#include "shared/mend.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- contents ---- */

void check_contents(const uint64_t *contents, uint64_t page, const char *where) {
    if (contents[0] != page || contents[1] != contents[WORDS - 1])
        die(where, page, contents[0]);
    if (contents[1] < atomic_load(&expected[page]))
        die("a store is lost", page, contents[1]);
}

static void make_contents(uint64_t *contents, uint64_t page, uint64_t version) {
    for (size_t i = 1; i < WORDS; i++)
        contents[i] = version;
    contents[0] = page;
}

void transfer(bool out, int fd, uint64_t *contents, uint64_t at) {
    ssize_t done = out ? pwrite(fd, contents, PAGE_BYTES, (off_t)(at << PAGE_SHIFT))
                       : pread(fd, contents, PAGE_BYTES, (off_t)(at << PAGE_SHIFT));
    if (done != PAGE_BYTES)
        die("transfer", at, (uint64_t)errno);
}

static void punch(uint64_t page) {
    if (fallocate(object_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page << PAGE_SHIFT), PAGE_BYTES) != 0)
        die("punch", page, (uint64_t)errno);
}

/* ---- pages, as members handle them ---- */

shared_word *word_of(uint64_t page) {
    return (shared_word *)commons_at(&g.commons, atomic_load(&group_object(&g, 0)->words)) + page;
}

static shared_ref ref_of(uint64_t page) {
    return shared_ref_make(0, 1, page);
}

static void unlock(uint64_t page) {
    step();
    bool waiters = shared_unlock(word_of(page), g.self);
    (void)waiters;
}

/* Locked; ZERO. */
static void first_touch(uint64_t page) {
    uint64_t contents[WORDS];
    uint32_t frame;
    if (frame_table_claim(&g, 1, &frame) == 0)
        return;
    frame_table_aim(&g, frame, ref_of(page), 0);
    step();
    make_contents(contents, page, atomic_load(&expected[page]));
    transfer(true, object_fd, contents, page);
    step();
    shared_set(word_of(page), g.self, SHARED_RESIDENT, frame, 0);
    step();
    frame_table_settle(&g, frame, ref_of(page), 0);
}

/* Locked; RESIDENT. */
static void store(uint64_t page) {
    uint64_t contents[WORDS];
    transfer(false, object_fd, contents, page);
    check_contents(contents, page, "resident");
    make_contents(contents, page, contents[1] + 1);
    transfer(true, object_fd, contents, page);
    step();
    atomic_store(&expected[page], contents[1]);
}

/* Locked; SWAPPED. Unlocks. */
static void bring_in(uint64_t page) {
    uint64_t contents[WORDS], slot = shared_field_of(shared_load(word_of(page)));
    uint32_t frame;
    if (frame_table_claim(&g, 1, &frame) == 0) {
        unlock(page);
        return;
    }
    frame_table_aim(&g, frame, ref_of(page), slot + 1);
    shared_set(word_of(page), g.self, SHARED_READING, frame, 0);
    unlock(page);
    transfer(false, g.swap_fd, contents, slot);
    check_contents(contents, page, "swapped");
    step();
    transfer(true, object_fd, contents, page);
    step();
    if (!shared_lock_own(word_of(page), g.self, SHARED_READING))
        die("somebody else ended a read", page, shared_load(word_of(page)));
    step();
    shared_set(word_of(page), g.self, SHARED_RESIDENT, frame, 0);
    step();
    frame_table_settle(&g, frame, ref_of(page), slot + 1);
    unlock(page);
}

/* Locked, RESIDENT or WRITING: lets go of its frame; state and field are what the page becomes. */
static void lose_frame(uint64_t page, uint32_t frame, shared_state state, uint64_t field) {
    frame_table_begin_leave(&g, frame);
    shared_set(word_of(page), g.self, state, field, 0);
    step();
    punch(page);
    frame_table_end_leave(&g, frame);
    step();
    frame_table_release(&g, frame);
}

static bool write_out(uint64_t page, uint64_t kept, const uint64_t *contents, uint64_t *slot) {
    if (kept > 0 && memcmp(commons_slots(&g.commons)[kept - 1].hash, contents, 16) == 0) {
        *slot = kept - 1;
        return true;
    }
    if (slot_table_claim(&g, 1, slot) == 0)
        return false;
    slot_table_aim(&g, *slot, ref_of(page));
    step();
    transfer(true, g.swap_fd, (uint64_t *)contents, *slot);
    step();
    return true;
}

/* A page that is to leave: what was taken for it (shared_leave.c). */
typedef struct {
    uint64_t page, kept, kept_seen, slot;
    uint32_t frame;
    bool going, claimed, stale;
} goer;

/* WRITING by us => LEAVING. */
static bool let_go(goer *v, const uint64_t *contents) {
    uint64_t seen = shared_load(word_of(v->page)),
             clock = atomic_fetch_add(&commons_head(&g.commons)->eviction_clock, 1) + 1;
    bool none = false;
    if (shared_state_of(seen) != SHARED_WRITING || !member_equal(shared_member_of(seen), g.self) ||
        !frame_table_begin_go(&g, v->frame))
        return false;
    v->going = true;
    step();
    if (v->slot + 1 == v->kept) {
        v->claimed = slot_table_claim_kept(&g, v->slot, v->kept_seen, clock);
        if (!v->claimed)
            return false;
    } else {
        slot_table_prepare(&g, v->slot, (const uint8_t *)contents, clock);
        step();
        v->stale = v->kept > 0 && slot_table_begin_leave_seen(&g, v->kept - 1, v->kept_seen);
    }
    step();
    return shared_move(word_of(v->page), seen, SHARED_LEAVING, g.self, v->slot, 0, &none);
}

static void stays(goer *v) {
    uint64_t seen = shared_load(word_of(v->page));
    bool none = false, has_kept = v->stale || (v->claimed && v->slot + 1 == v->kept);
    if (has_kept)
        frame_table_drop_slot(&g, v->frame, v->kept);
    step();
    if (v->going)
        frame_table_stay(&g, v->frame);
    step();
    if (v->stale)
        slot_table_end_leave(&g, v->kept - 1);
    if (v->claimed)
        slot_table_release(&g, v->slot);
    if (shared_state_of(seen) == SHARED_WRITING && member_equal(shared_member_of(seen), g.self))
        shared_move(word_of(v->page), seen, SHARED_RESIDENT, MEMBER_NONE, v->frame, 0, &none);
}

/* LEAVING by us. */
static void leaves(const goer *v) {
    bool none = false;
    step();
    slot_table_settle(&g, v->slot, slot_table_seen(&g, v->slot), g.self);
    step();
    punch(v->page);
    step();
    if (!shared_move(word_of(v->page), shared_load(word_of(v->page)), SHARED_SWAPPED, MEMBER_NONE, v->slot, 0, &none))
        die("somebody else has a page that leaves", v->page, shared_load(word_of(v->page)));
    step();
    frame_table_end_go(&g, v->frame);
    step();
    frame_table_release(&g, v->frame);
    if (v->stale)
        slot_table_end_leave(&g, v->kept - 1);
}

/* Locked; RESIDENT. Unlocks. */
static void evict(uint64_t page) {
    uint64_t contents[WORDS];
    goer v = {.page = page, .frame = (uint32_t)shared_field_of(shared_load(word_of(page)))};
    v.kept = slot_table_kept(&g, v.frame);
    v.kept_seen = v.kept > 0 ? slot_table_seen(&g, v.kept - 1) : 0;
    shared_set(word_of(page), g.self, SHARED_WRITING, v.frame, 0);
    unlock(page);
    transfer(false, object_fd, contents, page); /* whatever this is: only if nobody took the page back is it used */
    bool written = write_out(page, v.kept, contents, &v.slot);
    v.claimed = written && v.slot + 1 != v.kept;
    step();
    if (written && let_go(&v, contents)) {
        check_contents(contents, page, "written");
        leaves(&v);
    } else {
        stays(&v);
    }
}

/* Locked; not READING. */
static void discard(uint64_t page) {
    uint64_t word = shared_load(word_of(page)), field = shared_field_of(word), kept = 0;
    atomic_store(&expected[page], 0);
    if (shared_state_of(word) == SHARED_RESIDENT) {
        kept = slot_table_kept(&g, (uint32_t)field);
        if (kept > 0 && !slot_table_begin_leave(&g, kept - 1))
            kept = 0;
        lose_frame(page, (uint32_t)field, SHARED_ZERO, 0);
    } else if (shared_state_of(word) == SHARED_SWAPPED) {
        kept = field + 1;
        if (!slot_table_begin_leave(&g, field))
            die("the only copy is somebody else's", page, field);
        shared_set(word_of(page), g.self, SHARED_ZERO, 0, 0);
    }
    step();
    if (kept > 0)
        slot_table_end_leave(&g, kept - 1);
}

void use_page(uint64_t page) {
    if (!shared_try_lock(word_of(page), g.self, dice(2) != 0))
        return;
    step();
    switch (shared_state_of(shared_load(word_of(page)))) {
    case SHARED_ZERO:
        first_touch(page);
        break;
    case SHARED_SWAPPED:
        if (dice(16) != 0) {
            bring_in(page);
            return;
        }
        discard(page);
        break;
    case SHARED_RESIDENT:
        if (dice(3) == 0) {
            evict(page);
            return;
        }
        if (dice(16) == 0)
            discard(page);
        else
            store(page);
        break;
    default:
        die("a state that cannot be locked", page, shared_load(word_of(page)));
    }
    unlock(page);
}

uint64_t shared_out_frames(group *of, uint64_t first, uint64_t frames) {
    (void)of;
    for (uint64_t frame = first; frame < first + frames; frame++) {
        shared_ref page;
        if (frame_table_page(&g, (uint32_t)frame, &page) &&
            shared_try_lock(word_of(shared_ref_page(page)), g.self, false)) {
            uint64_t word = shared_load(word_of(shared_ref_page(page)));
            if (shared_state_of(word) == SHARED_RESIDENT && shared_field_of(word) == frame)
                evict(shared_ref_page(page));
            else
                unlock(shared_ref_page(page));
        }
    }
    return 1;
}
