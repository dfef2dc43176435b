/*
 * grants_tend.c - a member's part of the limit, by need: what it takes, what it gives, what it says of itself.
 *
 * Each member looks around by itself, and changes only what is its own; the rule is need.c. Chunks are given back in two steps: the private
 * pool's limit is lowered and its reclaimers evict, and only when its frames have been within the new limit do the chunks change hands.
 * So the sum holds at every instant, and this thread waits for nobody.
 */
#include "base/failpoint.h"
#include "base/memory.h"
#include "pool.h"
#include "shared/group.h"
#include "shared/need.h"
#include "shared/peers.h"

#include <errno.h>
#include <unistd.h>

/* How soon it looks again: while chunks change hands; while somebody is short, though nobody has any for him; else. */
#define MOVING_NS UINT64_C(4000000)
#define WANTING_NS UINT64_C(20000000)
#define IDLE_NS UINT64_C(100000000)
#define GIVING_NS UINT64_C(1000000)
/* Somebody is short for as long after the last sign of it. */
#define PRESSED_NS UINT64_C(30000000)
/* Near refaults count half after this. */
#define FADE_NS UINT64_C(100000000)
/* Who has not looked around for so long is stopped: it would not take what is given for its sake. */
#define SILENT_NS UINT64_C(500000000)
/* A limit that could not be met in this time (all is pinned, or there are no slots) goes up again. */
#define PATIENCE_NS UINT64_C(2000000000)
/* Whoever is short asks for half as much as it has, but for so many at least. */
#define WANT_LEAST 4
/* What shared pages are never asked for, while there are objects. */
#define SHARED_FLOOR_FRAMES 256

/* Shared chunks that are emptied in one look: their pages are written meanwhile. */
#define DRAIN_MOST 16
/* None has become empty for so long: others are begun beside them. In each a page may be held, or in work by who is stopped. */
#define STUCK_NS UINT64_C(50000000)

/* Somebody's near refaults, as they were and as they fade. */
typedef struct {
    uint32_t id;
    uint64_t counted, rate;
} refault_record;

typedef struct tending {
    _Atomic uint64_t due_ns; /* the peer thread looks at it without the tend_lock of a family */
    uint64_t moved_ns, pressed_ns, faded_ns;
    uint64_t wakeups;    /* of the reclaimers, as last seen */
    uint64_t giving;     /* chunks that are still held; the limit is without them */
    uint64_t giving_ns;  /* since when */
    uint64_t unable_ns;  /* until then nothing is given */
    uint64_t draining;   /* shared chunks, by this member */
    uint64_t spare;      /* and so many beside these */
    uint64_t drained_ns; /* when one of them became empty, or others were begun */
    refault_record records[MEMBERS_MAX + 1];
} tending;

/* What one look has seen. */
typedef struct {
    uint64_t now, held, free;
    uint64_t beyond; /* of those held, from the limit on: they must go, and as good as have gone */
    need self, shared;
    need others[MEMBERS_MAX + 1];
    uint32_t count;
    bool first; /* of those who look around and have all their threads: it acts for the shared pages */
} outlook;

int grants_tend_init(group *g) {
    g->tending = memory_map(sizeof *g->tending);
    return g->tending ? 0 : -ENOMEM;
}

void grants_tend_fini(group *g) {
    tending *state = g->tending;
    g->tending = NULL;
    memory_unmap(state, sizeof *state);
}

uint64_t grants_due_ns(const group *g) {
    if (g->beside)
        return UINT64_MAX;
    return atomic_load_explicit(&g->pressed, memory_order_relaxed) ? 0 : g->tending->due_ns;
}

void grants_want(group *g) {
    if (!atomic_exchange_explicit(&g->pressed, 1, memory_order_relaxed)) {
        uint64_t one = 1;
        ssize_t ignored = write(g->peer_wake_fd, &one, sizeof one);
        (void)ignored;
    }
}

/* ---- looking ---- */

static uint64_t rate_of(tending *state, unsigned index, uint32_t id, uint64_t counted) {
    refault_record *record = &state->records[index];
    if (record->id != id)
        *record = (refault_record){.id = id, .counted = counted};
    if (counted > record->counted)
        record->rate += counted - record->counted;
    record->counted = counted;
    return record->rate;
}

static void fade(tending *state, uint64_t now) {
    if (now < state->faded_ns + FADE_NS)
        return;
    for (unsigned i = 0; i <= MEMBERS_MAX; i++)
        state->records[i].rate /= 2;
    state->faded_ns = now;
}

static uint64_t in_chunks(const group *g, uint64_t frames) {
    return frames / commons_head(&g->commons)->chunk_frames;
}

/* Whether private frames are short, or were a moment ago. */
static bool is_pressed(group *g, uint64_t now) {
    uswap_pool *pool = g->pool;
    tending *state = g->tending;
    uint64_t wakeups = atomic_load(&pool->native.wakeups);
    if (atomic_exchange(&g->pressed, 0) || wakeups != state->wakeups ||
        frame_pool_free(&pool->frames) < atomic_load(&pool->frames.low_frames) || atomic_load(&pool->frame_waiters) ||
        atomic_load(&pool->faults.wants_frames))
        state->pressed_ns = now;
    state->wakeups = wakeups;
    return state->pressed_ns != 0 && now < state->pressed_ns + PRESSED_NS;
}

/* Chunks with that word from the limit on: it has been lowered. */
static uint64_t beyond_limit(const group *g, uint32_t word) {
    const commons_header *head = commons_head(&g->commons);
    _Atomic uint32_t *chunks = commons_chunks(&g->commons);
    uint64_t beyond = 0;
    for (uint64_t i = commons_limit_chunks(&g->commons); i < head->chunks; i++)
        beyond += atomic_load_explicit(&chunks[i], memory_order_relaxed) == word;
    return beyond;
}

static need look_at_self(group *g, const outlook *seen) {
    uswap_pool *pool = g->pool;
    uint64_t most = commons_limit_chunks(&g->commons), free = frame_pool_free(&pool->frames);
    uint64_t keep = 2 * atomic_load(&pool->frames.wide_low);
    uint64_t held = seen->held - MAX_OF(g->tending->giving, seen->beyond);
    need self = {.chunks = held, .floor = g->floor_chunks};
    self.rate = rate_of(g->tending, member_index(g->self), g->self.value, atomic_load(&pool->near_refaults));
    self.unused = free > keep ? in_chunks(g, free - keep) : 0;
    if (is_pressed(g, seen->now) && held < most) {
        self.starved = MIN_OF(most - held, MAX_OF(held / 2, (uint64_t)WANT_LEAST));
        self.starved -= MIN_OF(self.starved, self.unused); /* what it asked for may have come meanwhile */
    }
    return self;
}

/* Return: false if it is nobody who would take anything. */
static bool look_at(group *g, unsigned index, uint64_t now, need *seen) {
    const member_entry *entry = &commons_head(&g->commons)->members[index];
    uint64_t word = atomic_load(&entry->state);
    member_state state = member_state_of(word);
    uint64_t beat = atomic_load(&entry->beat_ns);
    if (state != MEMBER_LIVE && state != MEMBER_JOINING)
        return false;
    *seen = (need){.chunks = atomic_load(&entry->granted_chunks),
                   .floor = atomic_load(&entry->floor_chunks),
                   .starved = atomic_load(&entry->starved),
                   .rate = rate_of(g->tending, index, member_id_of(word).value, atomic_load(&entry->near_refaults))};
    return now < beat + SILENT_NS || (beat == 0 && state == MEMBER_JOINING);
}

static need look_at_shared(group *g) {
    commons_header *head = commons_head(&g->commons);
    uint64_t used = shared_used_frames(&g->commons), chunks = grants_shared(g), frames = chunks * head->chunk_frames;
    bool any = false;
    for (uint32_t i = 0; i < OBJECTS_MAX && !any; i++)
        any = object_state_of(atomic_load_explicit(&head->objects[i].state, memory_order_relaxed)) != OBJECT_FREE;
    need seen = {.chunks = chunks,
                 .floor = any ? (SHARED_FLOOR_FRAMES + head->chunk_frames - 1) / head->chunk_frames : 0,
                 .starved = atomic_load(&head->shared_starved),
                 .rate = rate_of(g->tending, MEMBERS_MAX, 1, atomic_load(&head->shared_near_refaults))};
    seen.unused = used < frames ? in_chunks(g, frames - used) : 0;
    seen.starved -= MIN_OF(seen.starved, seen.unused); /* what was asked for may have come meanwhile */
    return seen;
}

static void look_around(group *g, outlook *seen) {
    *seen = (outlook){.now = clock_now_ns(),
                      .held = grants_held(g, g->self),
                      .free = grants_free(g),
                      .first = peer_state_at(g, member_index(g->self)) == MEMBER_LIVE};
    seen->beyond = beyond_limit(g, g->self.value);
    fade(g->tending, seen->now);
    seen->self = look_at_self(g, seen);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (i != member_index(g->self) && look_at(g, i, seen->now, &seen->others[seen->count])) {
            seen->count++;
            seen->first &= i > member_index(g->self) || peer_state_at(g, i) != MEMBER_LIVE;
        }
    seen->shared = look_at_shared(g);
}

/* ---- giving and taking ---- */

static uint64_t to_frames(const group *g, uint64_t chunks) {
    return chunks * commons_head(&g->commons)->chunk_frames;
}

/* The private pool's limit by what is held now; and what counts as near: the rest of the group's limit. */
static bool set_limit(group *g, uint64_t held) {
    commons_header *head = commons_head(&g->commons);
    uint64_t mine = to_frames(g, held - g->tending->giving), all = to_frames(g, commons_limit_chunks(&g->commons));
    if (g->is_family && mine == all) /* what is less than a chunk is for who has all of them */
        mine = MAX_OF(mine, atomic_load(&head->limit_bytes) >> PAGE_SHIFT);
    atomic_store(&g->pool->near_distance, all > mine ? all - mine : 0);
    return pool_start_limit(g->pool, mine);
}

static void take(group *g, outlook *seen, uint64_t chunks) {
    uint64_t taken = chunks > 0 ? grants_take(g, chunks) : 0;
    if (taken == 0)
        return;
    seen->held += taken;
    seen->self.chunks += taken;
    g->tending->moved_ns = seen->now;
    if (!set_limit(g, seen->held)) { /* no address space for more */
        seen->held -= grants_give(g, taken);
        seen->self.chunks = seen->held;
    }
}

static void say_used(group *g) {
    atomic_store(&group_entry(g, g->self)->private_frames, atomic_load(&g->pool->frames.budget->used_frames));
}

static void end_giving(group *g, outlook *seen) {
    tending *state = g->tending;
    if (pool_limit_is_met(g->pool)) {
        say_used(g); /* before: nobody is to see more in use than is held */
        FAILPOINT(grant_give);
        seen->held -= grants_give(g, state->giving);
        state->moved_ns = seen->now;
    } else if (seen->now < state->giving_ns + PATIENCE_NS) {
        return;
    } else {
        state->unable_ns = seen->now + PATIENCE_NS;
    }
    state->giving = 0;
    set_limit(g, seen->held);
}

static void begin_giving(group *g, outlook *seen, uint64_t chunks) {
    tending *state = g->tending;
    uint64_t least = MAX_OF((pool_least_frames(g->pool) + to_frames(g, 1) - 1) / to_frames(g, 1), g->floor_chunks);
    if (seen->now < state->unable_ns || seen->held <= least)
        return;
    state->giving = MIN_OF(chunks, seen->held - least);
    state->giving_ns = seen->now;
    FAILPOINT(grant_lower);
    set_limit(g, seen->held);
    end_giving(g, seen);
}

/* Private pages and their chunks. */
static void tend_own(group *g, outlook *seen) {
    need all[MEMBERS_MAX + 1];
    for (uint32_t i = 0; i < seen->count; i++)
        all[i] = seen->others[i];
    all[seen->count] = seen->shared;
    if (g->tending->giving > 0) {
        end_giving(g, seen);
        return;
    }
    uint64_t give = need_to_give(&seen->self, all, seen->count + 1, seen->free);
    uint64_t want = need_to_take(&seen->self, all, seen->count + 1, seen->free);
    if (g->is_family && seen->count == 0)
        want = seen->free; /* as before the first fork */
    take(g, seen, MAX_OF(want, MIN_OF(seen->beyond, seen->free)));
    if (MAX_OF(give, seen->beyond) > 0)
        begin_giving(g, seen, MAX_OF(give, seen->beyond));
}

/* What is in work has not become empty, and somebody is short: twice as much is begun. */
static void widen(tending *state, uint64_t now) {
    if (state->draining == 0) {
        state->spare = 0;
        state->drained_ns = now;
    } else if (now > state->drained_ns + STUCK_NS) {
        state->spare = 2 * state->spare + 1;
        state->drained_ns = now;
    }
}

/* Empties so many shared chunks; if any will do, others where these do not come free. */
static void drain(group *g, outlook *seen, uint64_t give, bool any_will_do) {
    tending *state = g->tending;
    widen(state, seen->now);
    uint64_t done = grants_unshare(g, give, any_will_do ? MIN_OF(state->spare, (uint64_t)CHUNKS_MAX) : 0);
    state->draining = give - done;
    if (done > 0)
        state->moved_ns = state->drained_ns = seen->now;
    if (state->draining > 0)
        shared_out_wake(g);
}

/* Shared pages and their chunks: by the first of those who look around, so that not all do the same at once. */
static void tend_shared(group *g, outlook *seen) {
    tending *state = g->tending;
    need privates[MEMBERS_MAX + 1];
    for (uint32_t i = 0; i < seen->count; i++)
        privates[i] = seen->others[i];
    privates[seen->count] = seen->self;
    uint64_t free = grants_free(g);
    uint64_t want = seen->first ? need_to_take(&seen->shared, privates, seen->count + 1, free) : 0;
    uint64_t give = seen->first ? need_to_give(&seen->shared, privates, seen->count + 1, free) : 0, beyond = 0;
    if (seen->first)
        beyond = beyond_limit(g, CHUNK_SHARED) + beyond_limit(g, CHUNK_DRAINING | g->self.value);
    if (want > 0 && grants_share(g, want) > 0) {
        state->moved_ns = seen->now;
        shared_out_wake(g); /* who waits for a frame looks again */
    }
    if (MAX_OF(give, beyond) > 0 || state->draining > 0)
        drain(g, seen, MIN_OF(MAX_OF(give, beyond), (uint64_t)DRAIN_MOST), give >= beyond);
}

/* ---- for a forked child ---- */

static uint64_t own_least(group *g) {
    return MAX_OF((pool_least_frames(g->pool) + to_frames(g, 1) - 1) / to_frames(g, 1), g->floor_chunks);
}

uint64_t grants_begin_endow(group *g, member_id child, uint64_t chunks) {
    uint64_t has = grants_held(g, child), held = grants_held(g, g->self), least = own_least(g);
    has += grants_hand(g, CHUNK_FREE, child.value, chunks - MIN_OF(has, chunks));
    atomic_store(&group_entry(g, child)->granted_chunks, has); /* as it will say itself */
    atomic_store(&group_entry(g, child)->starved, chunks - MIN_OF(has, chunks));
    return has + (held > least ? held - least : 0);
}

/* Lowers the private limit by so many chunks. Context: the gate is closed for the fork. Return: false: frames are in use. */
static bool spare(group *g, uint64_t held, uint64_t chunks) {
    frame_pool *frames = &g->pool->frames;
    g->tending->giving = chunks;
    set_limit(g, held);
    pool_fit_rings(g->pool);
    if (atomic_load(&frames->unmet)) /* more than the chunks' own, where the limit was no multiple of them */
        frame_pool_retire(g->pool, pool_frames_over(g->pool, RESERVE_FRAMES));
    return !atomic_load(&frames->unmet);
}

bool grants_endow(group *g, member_id child, uint64_t chunks) {
    uint64_t given = grants_held(g, child), held = grants_held(g, g->self);
    uint64_t own = chunks - MIN_OF(given, chunks);
    bool spared = own == 0 || (held >= own_least(g) + own && spare(g, held, own));
    if (spared)
        given += grants_hand(g, g->self.value, child.value, own);
    g->tending->giving = 0; /* whatever was under way: by need it begins again */
    set_limit(g, grants_held(g, g->self));
    if (given < chunks) {
        grants_take_back(g, child);
        return false;
    }
    atomic_store(&group_entry(g, child)->granted_chunks, chunks);
    atomic_store(&group_entry(g, child)->starved, 0);
    return true;
}

void grants_take_back(group *g, member_id child) {
    grants_hand(g, child.value, CHUNK_FREE, UINT64_MAX);
    g->tending->due_ns = 0;
}

/* ---- the look ---- */

static bool somebody_wants(const outlook *seen) {
    bool wants = seen->self.starved > 0 || seen->shared.starved > 0 || seen->self.chunks < seen->self.floor;
    for (uint32_t i = 0; i < seen->count && !wants; i++)
        wants = seen->others[i].starved > 0 || seen->others[i].chunks < seen->others[i].floor;
    return wants;
}

static void publish(group *g, const outlook *seen) {
    member_entry *own = group_entry(g, g->self);
    say_used(g);
    atomic_store(&own->granted_chunks, seen->held - MIN_OF(seen->beyond, seen->held));
    atomic_store(&own->near_refaults, atomic_load(&g->pool->near_refaults));
    atomic_store(&own->starved, seen->self.starved);
    atomic_store(&own->beat_ns, clock_now_ns());
}

void grants_tend(group *g) {
    tending *state = g->tending;
    outlook seen;
    if (!members_is_in(g)) { /* taken for gone: it has closed all of its descriptors. The entry may be another's */
        state->due_ns = clock_now_ns() + IDLE_NS;
        return;
    }
    atomic_store(&group_entry(g, g->self)->beat_ns, clock_now_ns()); /* what follows may wait for the disk */
    look_around(g, &seen);
    tend_own(g, &seen);
    tend_shared(g, &seen);
    publish(g, &seen);
    event_signal(&g->tended);
    bool moving = seen.now < state->moved_ns + WANTING_NS;
    state->due_ns = seen.now + (state->giving > 0 || state->draining > 0 ? GIVING_NS
                                : !somebody_wants(&seen)                 ? IDLE_NS
                                : moving                                 ? MOVING_NS
                                                                         : WANTING_NS);
}
