/*
 * shared_at_work.c - announcements: which pages a member's share thread is at, while it asks the kernel for what may come late (README, Nobody waits for anybody).
 *
 * Who is at pages says so first, and looks at their words then; who evicts, or discards what is in memory, changes a word first, and looks at what is announced then. One of the two
 * sees the other. So what was seen in memory after it was announced stays there until the announcement ends, however late that is.
 */
#include "shared/shared_core.h"

#include "base/failpoint.h"

void at_work_begin(group *g, const shared_region *r, size_t page, size_t pages) {
    member_at_work *own = &group_entry(g, g->self)->at_work;
    atomic_store_explicit(&own->object, r->object, memory_order_release);
    atomic_store_explicit(&own->first, page, memory_order_release);
    atomic_store(&own->count, pages);
    full_fence(); /* before any look at the words */
    FAILPOINT(shared_announced);
}

void at_work_end(group *g) {
    atomic_store_explicit(&group_entry(g, g->self)->at_work.count, 0, memory_order_release);
}

/* Read while it is changed, it may be neither the old nor the new one: then the old one has ended, and the new one's words are looked at after this. */
static bool is_at(const member_entry *member, uint32_t object, uint64_t page) {
    const member_at_work *at = &member->at_work;
    uint64_t count = atomic_load(&at->count), first = atomic_load(&at->first);
    return count > 0 && atomic_load(&at->object) == object && page >= first && page - first < count;
}

bool at_work_on(const group *g, uint32_t object, uint64_t page) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t bits = atomic_load(&group_object(g, object)->mappers) & ~MAPPERS_CLOSED;
    for (; bits != 0; bits &= bits - 1)
        if (is_at(&head->members[__builtin_ctzll(bits)], object, page))
            return true;
    return false;
}
