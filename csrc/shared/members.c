/*
 * members.c - the table of members: who is in, who has died.
 *
 * A place has one word that says its state, which life it is, and whose process: it is taken, marked and made free by compare-and-swap. What else
 * is in the entry is of that life, and is cleared before the place is free.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "base/proc_stat.h"
#include "shared/group.h"
#include "shared/life_lock.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* The last place is nobody's (commons.h), nor is the last life: with it a chunk word would say CHUNK_SHARED. */
#define PLACES (MEMBERS_MAX - 1)
#define GENERATION_LAST 1022U
#define GENERATION_SHIFT 6
/* A child whose parent has gone may still claim its place within this time. */
#define ORPHAN_PATIENCE_NS UINT64_C(500000000)

static uint64_t state_make(member_state state, member_id id, uint32_t pid) {
    return (uint64_t)state | (uint64_t)id.value << 8 | (uint64_t)pid << 32;
}

static unsigned generation_of(member_id id) {
    return id.value >> GENERATION_SHIFT;
}

static member_id next_life(member_id id, unsigned index) {
    unsigned generation = generation_of(id) >= GENERATION_LAST ? 1 : generation_of(id) + 1;
    return (member_id){(uint16_t)(generation << GENERATION_SHIFT | index)};
}

uint64_t process_start_time(uint32_t pid) {
    proc_stat stat;
    uint64_t time;
    proc_stat_of_process(&stat, pid);
    return proc_stat_number(&stat, PROC_STAT_START, &time) ? time : 0;
}

/* ---- one's own place ---- */

/* The free place whose last life was the longest ago, by the count of lives; MEMBERS_MAX: none. *seen: its word. */
static unsigned choose_place(const group *g, uint64_t *seen) {
    const commons_header *head = commons_head(&g->commons);
    unsigned best = MEMBERS_MAX;
    for (unsigned index = 0; index < PLACES; index++) {
        uint64_t state = atomic_load(&head->members[index].state);
        /* In this order: who has registered as a mender after that finds that there is nothing to mend. */
        if (member_state_of(state) != MEMBER_FREE || atomic_load(&head->members[index].repairers) != 0)
            continue;
        if (best < MEMBERS_MAX && generation_of(member_id_of(state)) >= generation_of(member_id_of(*seen)))
            continue;
        best = index;
        *seen = state;
    }
    return best;
}

/* => JOINING, of that pid. Return: MEMBER_NONE: the table is full. */
static member_id take_place(group *g, uint32_t pid) {
    for (;;) {
        uint64_t seen = 0;
        unsigned index = choose_place(g, &seen);
        if (index == MEMBERS_MAX)
            return MEMBER_NONE;
        member_id id = next_life(member_id_of(seen), index);
        if (atomic_compare_exchange_strong(&group_entry(g, id)->state, &seen, state_make(MEMBER_JOINING, id, pid))) {
            atomic_store(&group_entry(g, id)->floor_chunks, g->floor_chunks);
            return id;
        }
    }
}

/* Without a lock its pid alone says that it is there. */
static void say_who(group *g, uint32_t pid) {
    member_entry *entry = group_entry(g, g->self);
    atomic_store(&entry->pid, pid);
    atomic_store(&entry->start_time, process_start_time(pid));
    g->life_lock = life_lock_take(&g->commons, g->self);
    if (g->life_lock)
        atomic_store(&entry->has_life_lock, 1);
}

int members_join(group *g) {
    uint32_t pid = (uint32_t)getpid();
    member_id id = take_place(g, pid);
    if (id.value == 0)
        return -EUSERS;
    g->self = id;
    FAILPOINT(member_joined);
    say_who(g, pid);
    return 0;
}

/* ---- a place for a forked child ---- */

member_id members_reserve(group *g) {
    return take_place(g, MEMBER_UNCLAIMED | g->self.value);
}

/* From exactly this word: of claim and void one happens. */
static uint64_t unclaimed(member_id id, member_id parent) {
    return state_make(MEMBER_JOINING, id, MEMBER_UNCLAIMED | parent.value);
}

bool members_claim(group *g, member_id id, member_id parent) {
    uint64_t seen = unclaimed(id, parent);
    uint32_t pid = (uint32_t)getpid();
    if (!atomic_compare_exchange_strong(&group_entry(g, id)->state, &seen, state_make(MEMBER_JOINING, id, pid)))
        return false;
    g->self = id;
    say_who(g, pid);
    return true;
}

bool members_void(group *g, member_id id, member_id parent) {
    uint64_t seen = unclaimed(id, parent);
    return atomic_compare_exchange_strong(&group_entry(g, id)->state, &seen, state_make(MEMBER_DEAD, id, 0));
}

/* Whether that has been seen for a while: a child that is there is about to claim it. */
static bool is_orphaned_for_long(group *g, member_id id) {
    orphan_place *seen = &g->orphans[member_index(id)];
    uint64_t now = clock_now_ns();
    if (!member_equal(seen->id, id))
        *seen = (orphan_place){.id = id, .seen_ns = now};
    return now >= seen->seen_ns + ORPHAN_PATIENCE_NS;
}

void members_void_orphans(group *g) {
    for (unsigned index = 0; index < PLACES; index++) {
        uint64_t state = atomic_load(&commons_head(&g->commons)->members[index].state);
        member_id parent = {(uint16_t)member_pid_of(state)}, id = member_id_of(state);
        if (member_state_of(state) == MEMBER_JOINING && (member_pid_of(state) & MEMBER_UNCLAIMED) &&
            !members_alive(g, parent) && is_orphaned_for_long(g, id))
            members_void(g, id, parent);
    }
}

static bool set_state(group *g, member_id id, member_state from, member_state to) {
    uint64_t seen = atomic_load(&group_entry(g, id)->state);
    return member_equal(member_id_of(seen), id) && member_state_of(seen) == from &&
           atomic_compare_exchange_strong(&group_entry(g, id)->state, &seen, state_make(to, id, member_pid_of(seen)));
}

void members_announce(group *g) {
    set_state(g, g->self, MEMBER_JOINING, MEMBER_LIVE);
}

/* The words of a life, but for the state. */
static void clear(member_entry *entry) {
    atomic_store(&entry->holds, 0);
    for (unsigned i = 0; i < HOLDS_MAX; i++)
        atomic_store(&entry->hold[i].count, 0);
    atomic_store(&entry->start_time, 0);
    atomic_store(&entry->has_life_lock, 0);
    atomic_store(&entry->pid, 0);
    atomic_store(&entry->private_frames, 0);
    atomic_store(&entry->floor_chunks, 0);
    atomic_store(&entry->granted_chunks, 0);
    atomic_store(&entry->near_refaults, 0);
    atomic_store(&entry->starved, 0);
    atomic_store(&entry->beat_ns, 0);
    atomic_store(&entry->protects, 0);
    atomic_store(&entry->at_peers, 0);
    atomic_store(&entry->at_work.count, 0);
    for (unsigned i = 0; i < OBJECT_VISITS; i++)
        atomic_store(&entry->visits[i], 0);
    atomic_store(&entry->order.count, 0);
    atomic_store(&entry->order.slot, 0);
    atomic_store(&entry->out_thread, 0);
    atomic_store(&entry->evicts_ns, 0);
}

void members_leave(group *g) {
    set_state(g, g->self, MEMBER_LIVE, MEMBER_LEAVING);
    set_state(g, g->self, MEMBER_JOINING, MEMBER_LEAVING);
    clear(group_entry(g, g->self));
    member_id id = g->self;
    g->self = MEMBER_NONE;
    uint64_t seen = atomic_load(&group_entry(g, id)->state);
    if (member_equal(member_id_of(seen), id)) /* else somebody has taken us for dead, and buries us */
        atomic_compare_exchange_strong(&group_entry(g, id)->state, &seen, state_make(MEMBER_FREE, id, 0));
    life_lock_let_go(g->life_lock);
    g->life_lock = NULL;
}

/* ---- the others ---- */

/* Whether the process executes another program, or has ended. Looked at again: the entry may be of another life by now. */
static bool has_lost_life_lock(const group *g, const member_entry *entry, uint64_t state) {
    return atomic_load(&entry->has_life_lock) && !life_lock_is_held(&g->commons, member_id_of(state)) &&
           atomic_load(&entry->state) == state;
}

/* The state's word is of a process that is there. A process without a start time yet is known by its number alone. */
static bool is_running(const group *g, const member_entry *entry, uint64_t state) {
    uint32_t pid = member_pid_of(state);
    if (pid & MEMBER_UNCLAIMED)
        return true; /* nobody's yet: it is voided, or claimed */
    if (has_lost_life_lock(g, entry, state) || (kill((pid_t)pid, 0) != 0 && errno == ESRCH))
        return false;
    uint64_t expected = atomic_load(&entry->start_time), found = expected ? process_start_time(pid) : 0;
    /* 0: it cannot be told (no /proc): then only a pidfd does. Looked at again: the entry may be of another life by now. */
    return found == 0 || found == expected || atomic_load(&entry->state) != state;
}

bool members_has_lost_program(const group *g, member_id id) {
    const member_entry *entry = group_entry(g, id);
    uint64_t state = atomic_load(&entry->state);
    return member_equal(member_id_of(state), id) && has_lost_life_lock(g, entry, state);
}

bool members_alive(const group *g, member_id id) {
    const member_entry *entry = group_entry(g, id);
    uint64_t state = atomic_load(&entry->state);
    if (!member_equal(member_id_of(state), id) || member_state_of(state) == MEMBER_FREE ||
        member_state_of(state) == MEMBER_DEAD)
        return false;
    return is_running(g, entry, state);
}

bool members_is_in(const group *g) {
    uint64_t state = atomic_load(&group_entry(g, g->self)->state);
    return member_equal(member_id_of(state), g->self) && member_state_of(state) != MEMBER_FREE &&
           member_state_of(state) != MEMBER_DEAD;
}

bool members_mark_dead(group *g, member_id id) {
    member_entry *entry = group_entry(g, id);
    uint64_t seen = atomic_load(&entry->state);
    do {
        if (!member_equal(member_id_of(seen), id) || member_state_of(seen) == MEMBER_FREE ||
            member_state_of(seen) == MEMBER_DEAD)
            return false;
    } while (!atomic_compare_exchange_strong(&entry->state, &seen, state_make(MEMBER_DEAD, id, member_pid_of(seen))));
    return true;
}

void members_bury(group *g, member_id id) {
    member_entry *entry = group_entry(g, id);
    uint64_t state = atomic_load(&entry->state);
    if (!member_equal(member_id_of(state), id) || member_state_of(state) != MEMBER_DEAD)
        return;
    /* Registered (repairers): so the place cannot have been taken since. */
    clear(entry);
    set_state(g, id, MEMBER_DEAD, MEMBER_FREE);
}

unsigned members_unburied(const group *g, member_id ids[MEMBERS_MAX]) {
    unsigned count = 0;
    for (unsigned index = 0; index < PLACES; index++) {
        const member_entry *entry = &commons_head(&g->commons)->members[index];
        uint64_t state = atomic_load(&entry->state);
        if (member_state_of(state) == MEMBER_DEAD ||
            (member_state_of(state) != MEMBER_FREE && !is_running(g, entry, state)))
            ids[count++] = member_id_of(state);
    }
    return count;
}
