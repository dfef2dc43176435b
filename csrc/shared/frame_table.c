/*
 * frame_table.c - shared frames: which are free, and which page each of the others has.
 *
 * The use words are the truth. For each chunk there is a hint, so that a search passes over chunks without a free frame: how often a frame
 * of it came free, and a bit that says that there was none when somebody last looked. Who finds none sets the bit only if nothing came free
 * meanwhile, so it never hides a frame; but if who frees one dies before he says so, it is whoever mends who says it (frame_table_of_dead).
 */
#include "base/failpoint.h"
#include "shared/group.h"
#include "shared/mend.h"
#include "shared/use_word.h"

#define HINT_NONE UINT32_C(1)
#define HINT_STEP UINT32_C(2)

static shared_frame *frame_at(const group *g, uint64_t frame) {
    return &commons_frames(&g->commons)[frame];
}

static _Atomic uint32_t *hint_of(const group *g, uint64_t chunk) {
    return &commons_hints(&g->commons)[chunk];
}

static uint64_t chunk_of(const group *g, uint64_t frame) {
    return frame / commons_head(&g->commons)->chunk_frames;
}

void frame_table_note_free(group *g, uint64_t chunk) {
    _Atomic uint32_t *hint = hint_of(g, chunk);
    uint32_t seen = atomic_load(hint);
    while (!atomic_compare_exchange_weak(hint, &seen, (seen + HINT_STEP) & ~HINT_NONE)) {
    }
}

static bool claim_one(group *g, uint64_t frame) {
    use_word *use = &frame_at(g, frame)->use;
    uint64_t seen = use_load(use);
    return use_kind_of(seen) == USE_FREE && use_swap(use, &seen, use_make(USE_CLAIMED, g->self, 0));
}

/* From frame on, and round to the beginning of its chunk. */
static uint32_t claim_in_chunk(group *g, uint64_t frame, uint32_t want, uint32_t *frames) {
    uint64_t size = commons_head(&g->commons)->chunk_frames, chunk = frame / size;
    uint32_t hint = atomic_load(hint_of(g, chunk)), count = 0;
    if ((hint & HINT_NONE) || atomic_load(&commons_chunks(&g->commons)[chunk]) != CHUNK_SHARED)
        return 0;
    for (uint64_t turn = 0; turn < size && count < want; turn++) {
        uint64_t at = chunk * size + (frame - chunk * size + turn) % size;
        if (!claim_one(g, at))
            continue;
        frames[count++] = (uint32_t)at;
        /* Only a page that is noted after this is meant: what lies there is of the page before. */
        atomic_store(&frame_at(g, at)->page, 0);
        FAILPOINT(frame_claimed);
    }
    if (count < want)
        atomic_compare_exchange_strong(hint_of(g, chunk), &hint, hint | HINT_NONE);
    return count;
}

uint32_t frame_table_claim(group *g, uint32_t want, uint32_t *frames) {
    commons_header *head = commons_head(&g->commons);
    uint64_t chunks = head->chunks, frame = atomic_load(&head->frame_next) % head->frames;
    uint32_t count = 0;
    for (uint64_t turn = 0; turn < chunks && count < want; turn++) {
        count += claim_in_chunk(g, frame, want - count, frames + count);
        if (count < want)
            frame = (frame / head->chunk_frames + 1) % chunks * head->chunk_frames;
    }
    if (count > 0)
        atomic_store(&head->frame_next, (uint64_t)frames[count - 1] + 1);
    return count;
}

void frame_table_release(group *g, uint32_t frame) {
    use_word *use = &frame_at(g, frame)->use;
    uint64_t seen = use_load(use);
    do {
        INVARIANT(I16, use_is(seen, USE_CLAIMED, g->self));
    } while (!use_swap(use, &seen, use_make(USE_FREE, MEMBER_NONE, 0)));
    FAILPOINT(frame_freed);
    frame_table_note_free(g, chunk_of(g, frame));
}

void frame_table_aim(group *g, uint32_t frame, shared_ref page, uint64_t slot_plus_1) {
    INVARIANT(I16, use_is(use_load(&frame_at(g, frame)->use), USE_CLAIMED, g->self));
    atomic_store(&frame_at(g, frame)->page, page.value);
    use_set_field(&frame_at(g, frame)->use, slot_plus_1);
}

bool frame_table_settle(group *g, uint32_t frame, shared_ref page, uint64_t slot_plus_1) {
    uint64_t seen = use_load(&frame_at(g, frame)->use);
    return use_is(seen, USE_CLAIMED, g->self) && atomic_load(&frame_at(g, frame)->page) == page.value &&
           use_swap(&frame_at(g, frame)->use, &seen, use_make(USE_PAGE, MEMBER_NONE, slot_plus_1));
}

bool frame_table_begin_go(group *g, uint32_t frame) {
    bool done = use_step(&frame_at(g, frame)->use, USE_PAGE, MEMBER_NONE, USE_GOING, g->self);
    FAILPOINT(frame_going);
    return done;
}

void frame_table_stay(group *g, uint32_t frame) {
    bool ignored = use_step(&frame_at(g, frame)->use, USE_GOING, g->self, USE_PAGE, MEMBER_NONE);
    (void)ignored; /* who has locked the page has taken the frame */
}

void frame_table_end_go(group *g, uint32_t frame) {
    uint64_t seen = use_load(&frame_at(g, frame)->use);
    do {
        INVARIANT(I16, use_is(seen, USE_GOING, g->self));
    } while (!use_swap(&frame_at(g, frame)->use, &seen, use_make(USE_CLAIMED, g->self, 0)));
}

/* => LEAVING by self. Who has it GOING has not let go of the page, and finds out: the page is locked by self. */
static void leave(group *g, uint32_t frame, member_id reader) {
    use_word *use = &frame_at(g, frame)->use;
    uint64_t seen = use_load(use);
    do {
        INVARIANT(I16, use_is(seen, USE_PAGE, MEMBER_NONE) || use_kind_of(seen) == USE_GOING ||
                           (reader.value != 0 && use_is(seen, USE_CLAIMED, reader)));
    } while (!use_swap(use, &seen, use_make(USE_LEAVING, g->self, use_field_of(seen))));
    FAILPOINT(frame_leaving);
}

void frame_table_take(group *g, uint32_t frame, member_id reader) {
    leave(g, frame, reader);
}

void frame_table_begin_leave(group *g, uint32_t frame) {
    leave(g, frame, MEMBER_NONE);
}

void frame_table_end_leave(group *g, uint32_t frame) {
    uint64_t seen = use_load(&frame_at(g, frame)->use);
    do {
        INVARIANT(I16, use_is(seen, USE_LEAVING, g->self));
    } while (!use_swap(&frame_at(g, frame)->use, &seen, use_make(USE_CLAIMED, g->self, 0)));
}

uint64_t frame_table_slot(group *g, uint32_t frame) {
    return use_field_of(use_load(&frame_at(g, frame)->use));
}

void frame_table_drop_slot(group *g, uint32_t frame, uint64_t slot_plus_1) {
    use_drop_field(&frame_at(g, frame)->use, slot_plus_1);
}

bool frame_table_page(const group *g, uint32_t frame, shared_ref *page) {
    const shared_frame *entry = frame_at(g, frame);
    *page = (shared_ref){atomic_load(&entry->page)};
    return use_kind_of(use_load(&entry->use)) == USE_PAGE;
}

void frame_table_seize(group *g, uint32_t frame, shared_ref page, bool leaving) {
    use_word *use = &frame_at(g, frame)->use;
    atomic_store(&frame_at(g, frame)->page, page.value);
    uint64_t seen = use_load(use);
    use_kind kind = leaving ? USE_LEAVING : USE_PAGE;
    member_id member = leaving ? g->self : MEMBER_NONE;
    while (!use_swap(use, &seen, use_make(kind, member, use_field_of(seen)))) {
    }
}

/* The page's word is locked by this member, or there is none. */
static void mend_locked(group *g, uint64_t frame, const shared_word *word, member_id dead) {
    use_word *use = &frame_at(g, frame)->use;
    uint64_t seen = use_load(use);
    if (!use_is_held_by(seen, dead))
        return;
    if (shared_word_has_frame(word, frame)) {
        use_swap(use, &seen, use_make(USE_PAGE, MEMBER_NONE, use_field_of(seen)));
    } else if (use_swap(use, &seen, use_make(USE_FREE, MEMBER_NONE, 0))) {
        frame_table_note_free(g, chunk_of(g, frame));
    }
}

/* The decision is taken under the lock of the page: it holds still. Return: false: somebody else has it. */
static bool mend(group *g, uint64_t frame, member_id dead) {
    shared_ref page = {atomic_load(&frame_at(g, frame)->page)};
    page_lock lock;
    if (!shared_ref_lock(g, page, &lock))
        return false;
    mend_locked(g, frame, lock.word, dead);
    shared_ref_unlock(g, &lock);
    return true;
}

bool frame_table_of_dead(group *g, member_id dead) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t end = head->frames_at + head->frames * sizeof(shared_frame), from = head->frames_at, first, last;
    bool all = true;
    for (; commons_touched(&g->commons, from, end, &first, &last); from = last)
        for (uint64_t frame = (first - head->frames_at) / sizeof(shared_frame);
             frame < (last - head->frames_at) / sizeof(shared_frame); frame++)
            if (use_is_held_by(use_load(&frame_at(g, frame)->use), dead) && !mend(g, frame, dead))
                all = false;
    for (uint64_t chunk = 0; chunk < head->chunks; chunk++)
        if (atomic_load(hint_of(g, chunk)) & HINT_NONE)
            frame_table_note_free(g, chunk);
    return all;
}
