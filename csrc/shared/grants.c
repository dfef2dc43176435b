/*
 * grants.c - the limit, by chunks: whose each of them is.
 *
 * A chunk becomes shared, and comes back, by way of DRAINING: while it is, its frames belong to the member that is named there, which makes
 * them FREE, or RETIRED, one by one. RETIRED names the emptying it is of: so who mends what a dead member was emptying, and comes late,
 * cannot take a frame for free that somebody has emptied since.
 */
#include "base/failpoint.h"
#include "shared/group.h"
#include "shared/mend.h"
#include "shared/use_word.h"

#define USE_FIELD_MASK ((UINT64_C(1) << 40) - 1)

typedef _Atomic uint32_t chunk_word;

static chunk_word *chunk_at(const group *g, uint64_t chunk) {
    return &commons_chunks(&g->commons)[chunk];
}

static bool chunk_is(const group *g, uint64_t chunk, uint32_t value) {
    return atomic_load(chunk_at(g, chunk)) == value;
}

static bool chunk_swap(group *g, uint64_t chunk, uint32_t from, uint32_t to) {
    return atomic_compare_exchange_strong(chunk_at(g, chunk), &from, to);
}

static uint64_t chunks_of(const group *g) {
    return commons_head(&g->commons)->chunks;
}

static uint64_t limit_chunks(const group *g) {
    return commons_limit_chunks(&g->commons);
}

static uint32_t draining_by(member_id id) {
    return CHUNK_DRAINING | id.value;
}

static uint64_t count_of(const group *g, uint32_t value, uint64_t end) {
    uint64_t count = 0;
    for (uint64_t chunk = 0; chunk < end; chunk++)
        count += chunk_is(g, chunk, value);
    return count;
}

static void say_given(group *g, uint64_t chunks) {
    if (chunks > 0)
        event_signal_shared(&commons_head(&g->commons)->chunks_given);
}

/* ---- private chunks ---- */

static void say_held(group *g, uint64_t taken, uint64_t given) {
    atomic_fetch_add(&group_entry(g, g->self)->granted_chunks, taken - given);
}

uint64_t grants_take(group *g, uint64_t want) {
    uint64_t count = 0;
    for (uint64_t chunk = 0; chunk < limit_chunks(g) && count < want; chunk++)
        if (chunk_is(g, chunk, CHUNK_FREE) && chunk_swap(g, chunk, CHUNK_FREE, g->self.value)) {
            count++;
            FAILPOINT(chunk_taken);
        }
    /* Who mends marks us dead first, and looks at the chunks then: one of two sees the other. */
    if (!members_is_in(g)) {
        say_given(g, grants_hand(g, g->self.value, CHUNK_FREE, count));
        return 0;
    }
    say_held(g, count, 0);
    return count;
}

uint64_t grants_give(group *g, uint64_t chunks) {
    uint64_t count = 0;
    for (uint64_t chunk = chunks_of(g); chunk > 0 && count < chunks; chunk--) /* those beyond the limit come first */
        if (chunk_is(g, chunk - 1, g->self.value) && chunk_swap(g, chunk - 1, g->self.value, CHUNK_FREE)) {
            count++;
            FAILPOINT(chunk_taken);
        }
    say_held(g, 0, count);
    say_given(g, count);
    return count;
}

uint64_t grants_hand(group *g, uint32_t from, uint32_t to, uint64_t want) {
    uint64_t count = 0;
    for (uint64_t chunk = 0; chunk < limit_chunks(g) && count < want; chunk++)
        count += chunk_is(g, chunk, from) && chunk_swap(g, chunk, from, to);
    return count;
}

uint64_t grants_held(const group *g, member_id id) {
    return count_of(g, id.value, chunks_of(g));
}

uint64_t grants_free(const group *g) {
    return count_of(g, CHUNK_FREE, limit_chunks(g));
}

uint64_t grants_shared(const group *g) {
    uint64_t count = 0;
    for (uint64_t chunk = 0; chunk < chunks_of(g); chunk++) {
        uint32_t seen = atomic_load(chunk_at(g, chunk));
        count += seen == CHUNK_SHARED || (seen & CHUNK_DRAINING);
    }
    return count;
}

/* ---- shared chunks ---- */

static use_word *use_of(const group *g, uint64_t chunk, uint64_t index) {
    return &commons_frames(&g->commons)[chunk * commons_head(&g->commons)->chunk_frames + index].use;
}

/* DRAINING -> SHARED. Context: it is named draining, by this member or by a dead one. Any number of members at once. */
static void fill(group *g, uint64_t chunk, uint32_t draining) {
    for (uint64_t i = 0; i < commons_head(&g->commons)->chunk_frames; i++) {
        uint64_t seen = use_load(use_of(g, chunk, i));
        /* Looked at after the frame: while that is so, nobody has begun to empty the chunk anew. */
        if (!chunk_is(g, chunk, draining))
            return;
        if (use_kind_of(seen) == USE_RETIRED)
            use_swap(use_of(g, chunk, i), &seen, 0);
    }
    frame_table_note_free(g, chunk);
    FAILPOINT(chunk_filled);
    chunk_swap(g, chunk, draining, CHUNK_SHARED);
}

uint64_t grants_share(group *g, uint64_t want) {
    uint64_t count = 0;
    if (!small_lock_try(&g->share_lock)) /* shared chunks are just being emptied */
        return 0;
    for (uint64_t chunk = 0; chunk < limit_chunks(g) && count < want; chunk++)
        if (chunk_is(g, chunk, CHUNK_FREE) && chunk_swap(g, chunk, CHUNK_FREE, draining_by(g->self))) {
            FAILPOINT(chunk_draining);
            fill(g, chunk, draining_by(g->self));
            count++;
        }
    small_lock_release(&g->share_lock);
    return count;
}

/* Free frames become RETIRED. Return: whether all of them are. */
static bool retire(group *g, uint64_t chunk) {
    uint64_t drain = atomic_fetch_add(&commons_head(&g->commons)->drains, 1) & USE_FIELD_MASK, left = 0;
    for (uint64_t i = 0; i < commons_head(&g->commons)->chunk_frames; i++) {
        uint64_t seen = use_load(use_of(g, chunk, i));
        if (use_kind_of(seen) == USE_FREE)
            left += !use_swap(use_of(g, chunk, i), &seen, use_make(USE_RETIRED, g->self, drain));
        else
            left += use_kind_of(seen) != USE_RETIRED;
    }
    FAILPOINT(chunk_retired);
    return left == 0;
}

/* Of those that are in work by this member: one step, at most so many of them. Return: how many are free now, at most want. */
static uint64_t drain(group *g, uint64_t want, uint64_t most) {
    uint64_t size = commons_head(&g->commons)->chunk_frames, done = 0, in_work = 0;
    for (uint64_t chunk = chunks_of(g); chunk > 0; chunk--) {
        uint64_t at = chunk - 1;
        if (!chunk_is(g, at, draining_by(g->self)))
            continue;
        bool needed = done < want && done + in_work < most;
        bool empty = needed && retire(g, at);
        if (!empty && needed && shared_out_frames(g, at * size, size) > 0)
            empty = retire(g, at);
        if (!needed)
            fill(g, at, draining_by(g->self));
        else if (empty)
            done += chunk_swap(g, at, draining_by(g->self), CHUNK_FREE);
        else
            in_work++;
    }
    return done;
}

/* Names up to want shared chunks to be emptied: those beyond the limit, then those that the hand comes to next, which are emptied with the
 * least loss. */
static void begin_drains(group *g, uint64_t want) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t chunks = chunks_of(g), limit = limit_chunks(g), hand = atomic_load(&head->hand) / head->chunk_frames;
    for (uint64_t chunk = limit; chunk < chunks && want > 0; chunk++)
        want -= chunk_is(g, chunk, CHUNK_SHARED) && chunk_swap(g, chunk, CHUNK_SHARED, draining_by(g->self));
    for (uint64_t turn = 0; turn < chunks && want > 0; turn++) {
        uint64_t chunk = (hand + turn) % chunks;
        want -= chunk_is(g, chunk, CHUNK_SHARED) && chunk_swap(g, chunk, CHUNK_SHARED, draining_by(g->self));
    }
    FAILPOINT(chunk_draining);
}

uint64_t grants_unshare(group *g, uint64_t want, uint64_t spare) {
    small_lock_acquire(&g->share_lock);
    uint64_t begun = count_of(g, draining_by(g->self), chunks_of(g)), most = want > 0 ? want + spare : 0;
    if (begun < most)
        begin_drains(g, most - begun);
    uint64_t done = drain(g, want, most);
    if (done == want && spare > 0) /* those that were in work beside these */
        drain(g, 0, 0);
    small_lock_release(&g->share_lock);
    say_given(g, done);
    return done;
}

/* ---- after a death, and a new limit ---- */

void grants_of_dead(group *g, member_id dead) {
    for (uint64_t chunk = 0; chunk < chunks_of(g); chunk++) {
        if (chunk_is(g, chunk, dead.value))
            chunk_swap(g, chunk, dead.value, CHUNK_FREE);
        else if (chunk_is(g, chunk, draining_by(dead)))
            fill(g, chunk, draining_by(dead));
    }
    say_given(g, 1);
}
