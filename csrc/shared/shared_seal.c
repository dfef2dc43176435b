/*
 * shared_seal.c - sealed pages: mapped write-protected since they were read, so that they can go again unread, unhashed and unwritten.
 *
 * A store to one costs a fault, and the next ones of a run of stores are let go in advance; objects whose pages are mostly written after they
 * came are not sealed at all, but for a run now and then, which tells when that changes.
 */
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "fault/uffd.h"

#include <errno.h>

/* A fault of a store costs about as much as so many sealed pages save when they go (1.3 us each: no pread, no hash, no write-protection). */
#define STORE_COSTS 8
#define SCORE_MAX 1024
#define SCORE_LEAST 512
#define PROBE_EVERY 32

/* Not exact where several do so at once, and needs not be. */
static void note(object_entry *object, int change) {
    int score = (int)atomic_load_explicit(&object->written_score, memory_order_relaxed) + change;
    uint32_t next = (uint32_t)MAX_OF(0, MIN_OF(score, SCORE_MAX));
    atomic_store_explicit(&object->written_score, next, memory_order_relaxed);
}

bool shared_seal_wanted(group *g, shared_region *r) {
    if (!g->seals)
        return false;
    return atomic_load_explicit(&group_object(g, r->object)->written_score, memory_order_relaxed) < SCORE_LEAST ||
           r->seal_turn++ % PROBE_EVERY == 0;
}

void shared_seal_dropped(group *g, const shared_region *r, uint32_t pages) {
    note(group_object(g, r->object), -(int)pages);
}

/* The word first: whoever finds it sealed may rely on the protection. */
static bool break_seal(shared_word *word) {
    uint64_t seen = shared_load(word);
    bool none = false; /* nobody waits for a page that is in nobody's hand */
    return shared_state_of(seen) == SHARED_RESIDENT && !(seen & SHARED_LOCK) &&
           (!(seen & SHARED_SEALED) || shared_move(word, seen, SHARED_RESIDENT, MEMBER_NONE, shared_field_of(seen),
                                                   seen & SHARED_HEAT_MASK, &none));
}

size_t shared_unseal(group *g, shared_region *r, size_t page, size_t pages) {
    size_t count = 0;
    while (count < pages && break_seal(&r->words[page + count]))
        count++;
    note(group_object(g, r->object), STORE_COSTS);
    FAILPOINT(shared_unsealed);
    if (count > 0)
        shared_allow_stores(g, r, page, count);
    return count;
}

/* CONTINUE_MODE_WP came with 6.4. Asked for a range that is not registered: a kernel that does not know it says so first. */
bool shared_seal_works(int uffd) {
    static unsigned char nothing[2 * PAGE_BYTES];
    size_t done;
    unsigned char *page = nothing + (PAGE_BYTES - (uintptr_t)nothing % PAGE_BYTES) % PAGE_BYTES;
    return uffd_continue(uffd, page, 1, true, false, &done) != -EINVAL;
}
