/*
 * space_map.c - mmap, munmap and mprotect of managed addresses.
 */
#define _GNU_SOURCE
#include "run/space.h"

#include "pool.h"
#include "region/region_range.h"

#include <errno.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)

/* Something else of the program's goes from addresses of the region, which are the region's again. */
static int take_back(uintptr_t start, uintptr_t end) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (run_core_mmap((void *)start, end - start, PROT_NONE, flags, -1, 0) == MAP_FAILED)
        return -1;
    return region_watch(run_pool->uffd, (void *)start, end - start, NULL) == 0 ? 0 : space_fail(ENOMEM);
}

/* => nothing is given out there: empty, without access, and the region's. Context: the addresses are the caller's. Return: 0, or -1 with errno. */
static int clear(space *s, uintptr_t start, uintptr_t end) {
    for (uintptr_t at = start; at < end;) {
        small_lock_acquire(&space_lock);
        size_t i = ranges_find(&s->given, at);
        bool there = i < s->given.count && s->given.all[i].start < end;
        range r = there ? s->given.all[i] : (range){0};
        small_lock_release(&space_lock);
        if (!there)
            break;
        uintptr_t first = MAX_OF(at, r.start), last = MIN_OF(end, r.end);
        if ((r.foreign ? take_back(first, last) : space_discard(s, first, last)) != 0)
            return -1;
        at = last;
    }
    return space_access(start, end - start, PROT_NONE);
}

/* The table says that r is there, or (protection and all: 0) nothing. What was promised for what was there and is not is given back; what is new has been promised by the
 * caller, who hands in how much. */
static bool note(space *s, const range *r, bool given, size_t promised) {
    small_lock_acquire(&space_lock);
    size_t before = s->given.promised;
    bool noted = given ? ranges_put(&s->given, r) : ranges_cut(&s->given, r->start, r->end);
    size_t surplus = promised + before - s->given.promised; /* before + promised >= what is in use now */
    small_lock_release(&space_lock);
    space_unpromise(surplus);
    return noted;
}

static range range_of(uintptr_t start, size_t bytes, int protection, int flags) {
    return (range){.start = start,
                   .end = start + bytes,
                   .protection = (uint8_t)(protection & ACCESS),
                   .sparse = (flags & MAP_NORESERVE) != 0};
}

/* Return: false: there is no swap space for it; *promised: bytes. A sparse mapping that is too large for all of it to be promised is not promised at all. */
static bool promise(range *r, size_t *promised) {
    *promised = r->protection & PROT_WRITE ? r->end - r->start : 0;
    r->promised = *promised > 0 && space_promise(*promised);
    if (r->promised || *promised == 0)
        return true;
    *promised = 0;
    return r->sparse;
}

/* ---- mmap ---- */

static uintptr_t choose(const space *s, size_t bytes, const void *hint) {
    uintptr_t start = (uintptr_t)hint;
    if (start % PAGE_BYTES == 0 && start >= s->base && start < s->end && bytes <= s->end - start) {
        size_t i = ranges_find(&s->given, start);
        if (i == s->given.count || s->given.all[i].start >= start + bytes)
            return start;
    }
    return ranges_gap(&s->given, s->base, s->end, bytes, bytes >= HUGE_BYTES ? HUGE_BYTES : PAGE_BYTES);
}

void *run_space_map(run_space which, size_t bytes, int protection, int flags, const void *hint) {
    space *s = &spaces[which];
    size_t promised;
    if (bytes > SPACE_MOST_BYTES || bytes == 0)
        return space_fail_map(bytes ? ENOMEM : EINVAL);
    bytes = whole_pages(bytes);
    range r = range_of(0, bytes, protection, flags);
    if (!promise(&r, &promised))
        return space_fail_map(ENOMEM);
    small_lock_acquire(&space_lock);
    r.start = choose(s, bytes, hint);
    r.end = r.start + bytes;
    bool given = r.start != 0 && ranges_put(&s->given, &r);
    small_lock_release(&space_lock);
    void *address = (void *)r.start;
    if (!given) {
        space_unpromise(promised);
        return space_fail_map(ENOMEM);
    }
    if (protection != PROT_NONE && space_access(r.start, bytes, protection) != 0) {
        int error = errno;
        run_space_unmap(address, bytes);
        return space_fail_map(error);
    }
    if (flags & MAP_LOCKED)
        run_space_lock(address, bytes, true);
    return address;
}

static bool is_anonymous(int flags) {
    return (flags & MAP_ANONYMOUS) && (flags & MAP_TYPE) == MAP_PRIVATE && !(flags & (MAP_GROWSDOWN | MAP_HUGETLB));
}

static bool is_taken(const space *s, uintptr_t start, uintptr_t end) {
    small_lock_acquire(&space_lock);
    size_t i = ranges_find(&s->given, start);
    bool taken = i < s->given.count && s->given.all[i].start < end;
    small_lock_release(&space_lock);
    return taken;
}

/* Whether the kernel maps it at all: what is there now stays if not. Return: false, with errno. */
static bool can_map(size_t bytes, int protection, int flags, int fd, off_t offset) {
    flags &= ~(MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_LOCKED);
    void *tried = run_core_mmap(NULL, bytes, protection, flags, fd, offset);
    return tried != MAP_FAILED && run_core_munmap(tried, bytes) == 0;
}

void *run_space_map_fixed(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    space *s = space_of(address, bytes);
    uintptr_t start = (uintptr_t)address;
    size_t promised = 0;
    if (!s || bytes == 0 || start % PAGE_BYTES != 0)
        return space_fail_map(s ? EINVAL : ENOMEM);
    bytes = whole_pages(bytes);
    if ((flags & MAP_FIXED_NOREPLACE) == MAP_FIXED_NOREPLACE && is_taken(s, start, start + bytes))
        return space_fail_map(EEXIST);
    range r = range_of(start, bytes, protection, flags);
    r.foreign = !is_anonymous(flags);
    if (r.foreign ? !can_map(bytes, protection, flags, fd, offset) : !promise(&r, &promised))
        return r.foreign ? MAP_FAILED : space_fail_map(ENOMEM);
    int status = clear(s, start, start + bytes);
    if (status == 0 && r.foreign)
        status =
            run_core_mmap(address, bytes, protection, (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED, fd, offset) == address
                ? 0
                : -1;
    else if (status == 0)
        status = space_access(start, bytes, protection);
    int error = errno;
    bool noted = note(s, &r, status == 0, promised);
    if (status != 0 || !noted)
        return space_fail_map(status == 0 ? ENOMEM : error);
    if ((flags & MAP_LOCKED) && !r.foreign)
        run_space_lock(address, bytes, true);
    return address;
}

/* ---- munmap, mprotect ---- */

int run_space_unmap(void *address, size_t bytes) {
    space *s = space_of(address, bytes);
    range r = range_of((uintptr_t)address, whole_pages(bytes), PROT_NONE, 0);
    if (!s || bytes == 0 || r.start % PAGE_BYTES != 0)
        return space_fail(EINVAL);
    if (clear(s, r.start, r.end) != 0)
        return -1;
    return note(s, &r, false, 0) ? 0 : space_fail(ENOMEM);
}

/* Context: space_lock. Bytes that need a promise before they can be written to; *optional: those of sparse mappings among them. */
static size_t not_promised(const space *s, uintptr_t start, uintptr_t end, size_t *optional) {
    size_t bytes = 0;
    *optional = 0;
    for (size_t i = ranges_find(&s->given, start); i < s->given.count && s->given.all[i].start < end; i++) {
        const range *r = &s->given.all[i];
        size_t length = MIN_OF(r->end, end) - MAX_OF(r->start, start);
        if (!r->promised && !r->foreign && !(r->protection & PROT_WRITE)) {
            bytes += length;
            *optional += r->sparse ? length : 0;
        }
    }
    return bytes;
}

/* The promise for these bytes: without that for sparse mappings, where there is not enough for all. Return: false: not enough. */
static bool promise_writable(size_t *bytes, size_t optional, bool *all) {
    *all = space_promise(*bytes);
    if (!*all)
        *bytes -= optional;
    return *all || (optional > 0 && space_promise(*bytes));
}

/* Range by range: each may differ from the next in other ways. all: sparse ones that become writable are promised, too. */
static bool note_protection(space *s, uintptr_t start, uintptr_t end, int protection, size_t promised, bool all) {
    bool noted = true;
    small_lock_acquire(&space_lock);
    size_t before = s->given.promised;
    for (uintptr_t at = start; noted && at < end;) {
        size_t i = ranges_find(&s->given, at);
        if (i == s->given.count || s->given.all[i].start > at)
            break; /* another thread has unmapped it meanwhile */
        range r = s->given.all[i];
        r.start = at;
        at = r.end = MIN_OF(r.end, end);
        if ((protection & PROT_WRITE) && !(r.protection & PROT_WRITE) && !r.foreign && (all || !r.sparse))
            r.promised = 1;
        r.protection = (uint8_t)(protection & ACCESS);
        noted = ranges_put(&s->given, &r);
    }
    size_t surplus = MAX_OF(promised + before, s->given.promised) - s->given.promised;
    small_lock_release(&space_lock);
    space_unpromise(surplus);
    return noted;
}

/* Range by range, up to the first hole, as the kernel does. */
int run_space_protect(void *address, size_t bytes, int protection) {
    space *s = space_of(address, bytes);
    uintptr_t start = (uintptr_t)address, wanted = start + whole_pages(bytes);
    if (!s || start % PAGE_BYTES != 0)
        return space_fail(s ? EINVAL : ENOMEM);
    small_lock_acquire(&space_lock);
    uintptr_t end = ranges_covered(&s->given, start, wanted);
    size_t optional = 0, promised = protection & PROT_WRITE ? not_promised(s, start, end, &optional) : 0;
    bool bare = protection == PROT_NONE || ranges_have(&s->given, start, end, range_is_bare), all;
    small_lock_release(&space_lock);
    if ((end == start && bytes > 0) || !promise_writable(&promised, optional, &all))
        return space_fail(ENOMEM);
    if ((bare ? space_access(start, end - start, protection) : run_core_mprotect(address, end - start, protection)) !=
        0) {
        int error = errno;
        space_unpromise(promised);
        return space_fail(error);
    }
    bool noted = note_protection(s, start, end, protection, promised, all);
    return noted && end == wanted ? 0 : space_fail(ENOMEM);
}
