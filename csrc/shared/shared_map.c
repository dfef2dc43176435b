/*
 * shared_map.c - page-table entries of shared pages: made, write-protected and taken away, here and in the peers, through the mappers' uffds.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "fault/poison.h"
#include "fault/uffd.h"
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* So long the ends of what others do to mappings are waited for: microseconds, if they run. */
#define ENDED_WAIT_NS UINT64_C(20000000)

static member_id member_now(const group *g, unsigned index) {
    return member_id_of(atomic_load(&commons_head(&g->commons)->members[index].state));
}

/* The order matters: descriptor, then bit, then pages, then base. A bit that is set after the descriptor was read is of that life of the place or of a
 * later one; then the descriptor is a dead one, and says ESRCH. Who moves his view says where before he says that it is longer. */
void mappers_look(group *g, uint32_t index, mapper_set *set) {
    object_entry *object = group_object(g, index);
    set->count = 0;
    set->unknown = false;
    set->epoch = atomic_load(&object->epoch);
    for (uint64_t bits = atomic_load(&object->mappers) & ~MAPPERS_CLOSED; bits != 0; bits &= bits - 1) {
        unsigned at = (unsigned)__builtin_ctzll(bits);
        int uffd = at == member_index(g->self) ? g->uffd : peers_uffd(g, at);
        if (uffd < 0)
            set->unknown = true;
        else if (atomic_load(&object->mappers) >> at & 1) {
            set->of[set->count].uffd = uffd;
            set->of[set->count].index = at;
            set->of[set->count].pages = atomic_load(&object->mapped[at]);
            set->of[set->count++].base = atomic_load(&object->base[at]);
        }
    }
}

static bool await_one(const group *g, unsigned index, uint64_t deadline_ns) {
    const member_entry *entry = &commons_head(&g->commons)->members[index];
    uint64_t life = atomic_load(&entry->state);
    while (atomic_load(&entry->at_peers) > 0 && atomic_load(&entry->state) == life &&
           members_alive(g, member_id_of(life)))
        if (clock_now_ns() > deadline_ns)
            return false;
        else
            sched_yield();
    return true;
}

bool mappers_await_ended(group *g) {
    uint64_t deadline_ns = clock_now_ns() + ENDED_WAIT_NS;
    bool all = true;
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        member_state state = member_state_of(atomic_load(&commons_head(&g->commons)->members[i].state));
        if (state != MEMBER_FREE && state != MEMBER_DEAD)
            all &= await_one(g, i, deadline_ns);
    }
    return all;
}

/* Its memory is gone, or the whole mapping is: there is nothing to be protected. But ESRCH of an earlier life of the place says nothing of the
 * one there is now. */
static bool is_gone(group *g, unsigned index, int status) {
    if (index == member_index(g->self))
        return false;
    member_id known = {(uint16_t)atomic_load(&g->peers[index].id)};
    return status == -ESRCH && member_equal(known, member_now(g, index));
}

/* In a range of several mappings (mprotect splits them) kernels before 6.3 do nothing: then page by page. */
static int write_protect(int uffd, uint64_t address, size_t pages, bool protect, bool wake) {
    int status, tries = 0;
    do
        status = uffd_write_protect(uffd, (void *)(uintptr_t)address, pages, protect, wake); // NOLINT
    while (status == -EAGAIN && ++tries < SHARED_TRIES);
    if (status != -ENOENT || pages == 1)
        return status;
    for (size_t i = 0; i < pages; i++)
        if ((status = write_protect(uffd, address + (i << PAGE_SHIFT), 1, protect, wake)) != 0)
            return status;
    return 0;
}

/* How many of the pages that are left are tried next: CONTINUE and COPY refuse what lies in several mappings. */
static size_t next_step(int status, size_t done, size_t step, size_t left) {
    return status == -ENOENT && done == 0 ? step / 2 : left;
}

/* Of these pages, those that the mapper sees: behind its view is whatever may be there. Their address in *at. */
static size_t seen_pages(const mapper_set *set, uint32_t i, size_t page, size_t pages, uint64_t *at) {
    *at = set->of[i].base + (page << PAGE_SHIFT);
    return page < set->of[i].pages ? MIN_OF(pages, (size_t)(set->of[i].pages - page)) : 0;
}

/* The same, of one page. NULL: it does not. */
static void *seen_page(const mapper_set *set, uint32_t i, size_t page) {
    uint64_t at;
    return seen_pages(set, i, page, 1, &at) ? (void *)(uintptr_t)at : NULL; // NOLINT
}

bool mappers_protect(group *g, const mapper_set *set, size_t page, size_t pages) {
    for (uint32_t i = 0; i < set->count; i++) {
        uint64_t at;
        size_t seen = seen_pages(set, i, page, pages, &at);
        int status = seen > 0 ? write_protect(set->of[i].uffd, at, seen, true, false) : 0;
        if (status != 0 && !is_gone(g, set->of[i].index, status))
            return false;
    }
    return !set->unknown;
}

/* The page is mapped already: stores to it may go on. */
void shared_allow_stores(group *g, shared_region *r, size_t page, size_t pages) {
    write_protect(g->uffd, (uintptr_t)shared_address(r, page), pages, false, true);
    uffd_wake(g->uffd, shared_address(r, page), pages << PAGE_SHIFT);
}

/* The file has it: of a read that was broken off, whose end came late; or because the kernel makes huge pages, zeroes. */
static bool map_there(group *g, shared_region *r, size_t page, const void *contents) {
    unsigned char there[PAGE_BYTES];
    size_t done;
    if (pread(r->fd, there, PAGE_BYTES, (off_t)((uint64_t)page << PAGE_SHIFT)) != (ssize_t)PAGE_BYTES ||
        memcmp(there, contents, PAGE_BYTES) != 0)
        return false;
    int status = uffd_continue(g->uffd, shared_address(r, page), 1, true, false, &done);
    return status == 0 || status == -EEXIST;
}

size_t shared_copy_here(group *g, shared_region *r, size_t page, size_t pages, const void *contents) {
    size_t at = 0, step = pages;
    for (int tries = 0; at < pages && step > 0 && tries < SHARED_TRIES;) {
        size_t done;
        int status = uffd_copy(g->uffd, shared_address(r, page + at),
                               (const unsigned char *)contents + (at << PAGE_SHIFT), step, true, false, &done);
        at += done;
        if (status == -EEXIST && at < pages) {
            if (!map_there(g, r, page + at, (const unsigned char *)contents + (at << PAGE_SHIFT)))
                break;
            at++;
            status = 0;
        }
        step = next_step(status, done, step, pages - at);
        tries += done == 0;
        if (status != 0 && status != -EAGAIN && status != -ENOENT && done == 0)
            break;
    }
    return at;
}

void shared_unmap_here(shared_region *r, size_t page, size_t pages) {
    int ignored = madvise(shared_address(r, page), pages << PAGE_SHIFT, MADV_DONTNEED); /* mlocked: stays */
    (void)ignored;
}

size_t shared_map_here(group *g, shared_region *r, size_t page, size_t pages, map_how how) {
    size_t at = 0, step = pages;
    for (int tries = 0; at < pages && step > 0 && tries < SHARED_TRIES;) {
        size_t done;
        int status = uffd_continue(g->uffd, shared_address(r, page + at), step, how.sealed, true, &done);
        at += done;
        step = next_step(status, done, step, pages - at);
        if (status == 0 || done > 0 || status == -ENOENT)
            continue;
        if (status == -EEXIST && how.around && (at > 0 || how.sealed))
            return at;
        if (status == -EEXIST) {
            if (!how.sealed)
                shared_allow_stores(g, r, page + at, 1);
            at++;
            step = pages - at;
        } else if (status == -EAGAIN) {
            tries++;
        } else {
            break;
        }
    }
    if (at < pages) /* who waits faults again */
        uffd_wake(g->uffd, shared_address(r, page + at), (pages - at) << PAGE_SHIFT);
    return at;
}

/* Return: how many pages it has mapped. */
static size_t map_in(int uffd, uint64_t base, size_t pages, bool sealed) {
    size_t mapped = 0, at = 0, step = pages;
    for (int tries = 0; at < pages && step > 0 && tries < SHARED_TRIES; tries++) {
        size_t done;
        void *address = (void *)(uintptr_t)(base + (at << PAGE_SHIFT)); // NOLINT
        int status = uffd_continue(uffd, address, step, sealed, true, &done);
        mapped += done;
        at += done + (status == -EEXIST && done == 0);
        step = next_step(status, done, step, pages - at);
        if (status != 0 && done == 0 && status != -EEXIST && status != -EAGAIN && status != -ENOENT)
            break;
    }
    return mapped;
}

void shared_map_peers(group *g, shared_region *r, size_t page, size_t pages, bool sealed) {
    mapper_set set;
    if ((atomic_load(&group_object(g, r->object)->mappers) & ~(UINT64_C(1) << member_index(g->self))) == 0)
        return;
    mappers_begin(g);
    mappers_look(g, r->object, &set);
    FAILPOINT(shared_looked);
    for (uint32_t i = 0; i < set.count; i++) {
        if (set.of[i].index == member_index(g->self))
            continue;
        uint64_t at;
        size_t seen = seen_pages(&set, i, page, pages, &at), mapped = map_in(set.of[i].uffd, at, seen, sealed);
        atomic_fetch_add_explicit(&commons_head(&g->commons)->mapped_for_peers, mapped, memory_order_relaxed);
    }
    mappers_end(g);
    FAILPOINT(shared_mapped_peers);
}

void shared_wake(group *g, shared_region *r, size_t page, size_t pages) {
    mapper_set set;
    mappers_look(g, r->object, &set);
    for (uint32_t i = 0; i < set.count; i++) {
        uint64_t at;
        size_t seen = seen_pages(&set, i, page, pages, &at);
        if (seen > 0)
            uffd_wake(set.of[i].uffd, (void *)(uintptr_t)at, seen << PAGE_SHIFT); // NOLINT
    }
    event_signal_shared(&commons_head(&g->commons)->pages_unlocked);
}

/* What an eviction has left there, a mark of the write-protection, would be in the way (EEXIST), and the thread fault for ever. */
void shared_poison(group *g, shared_region *r, size_t page) {
    uffd_write_protect(g->uffd, shared_address(r, page), 1, false, false);
    poison_map(g->pool, g->uffd, shared_address(r, page));
}

void shared_unpoison(group *g, uint32_t object, int fd, size_t page) {
    mapper_set set;
    size_t done;
    if (fd < 0 || fallocate(fd, 0, (off_t)(page << PAGE_SHIFT), PAGE_BYTES) != 0)
        return;
    mappers_begin(g);
    mappers_look(g, object, &set);
    for (uint32_t i = 0; i < set.count; i++) {
        void *address = seen_page(&set, i, page);
        if (address)
            uffd_continue(set.of[i].uffd, address, 1, false, false, &done);
    }
    mappers_end(g);
}
