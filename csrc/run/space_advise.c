/*
 * space_advise.c - madvise and mlock of managed addresses.
 */
#define _GNU_SOURCE
#include "run/space.h"

#include "pool.h"
#include "region/region_range.h"

#include <errno.h>
#include <sys/mman.h>

/* What becomes of an advice. */
enum { NOTHING_TO_DO = -1, NOT_FOR_US = -2, THE_KERNELS = -3 };

/* Return: a uswap_advice, or one of the above. */
static int meaning_of(int advice) {
    switch (advice) {
    case MADV_DONTNEED:
    case MADV_FREE:
        return USWAP_ADVICE_DONTNEED;
    case MADV_WILLNEED:
        return USWAP_ADVICE_WILLNEED;
#ifdef MADV_COLD
    case MADV_COLD:
        return USWAP_ADVICE_COLD;
    case MADV_PAGEOUT:
        return USWAP_ADVICE_PAGEOUT;
#endif
#ifdef MADV_POPULATE_READ
    case MADV_POPULATE_READ: /* touches, which are faults as any others */
    case MADV_POPULATE_WRITE:
        return THE_KERNELS;
#endif
    case MADV_DODUMP:
    case MADV_DONTDUMP:
        return THE_KERNELS;
    case MADV_NORMAL: /* of a mapping, while the core knows only all of them together */
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_DOFORK:
    case MADV_DONTFORK: /* a child has more than it was to have, which costs nothing until it touches it */
        return NOTHING_TO_DO;
    default:
        return NOT_FOR_US;
    }
}

static int discard_or_hint(const space *s, uintptr_t start, size_t bytes, uint32_t advice) {
    int status = uswap_region_advise(run_pool, s->region, start - s->base, bytes, advice, NULL);
    /* What is locked is not thrown away; all else may be left undone. */
    return status == 0 || advice != USWAP_ADVICE_DONTNEED ? 0 : space_fail(EINVAL);
}

/* Of one range. */
static int advise(const space *s, uintptr_t start, size_t bytes, bool foreign, int advice) {
    int meaning = foreign ? THE_KERNELS : meaning_of(advice);
    switch (meaning) {
    case THE_KERNELS:
        return run_core_madvise((void *)start, bytes, advice);
    case NOTHING_TO_DO:
        return 0;
    case NOT_FOR_US:
        return space_fail(EINVAL);
    default:
        return discard_or_hint(s, start, bytes, (uint32_t)meaning);
    }
}

/* As the kernel: of addresses of which some are not mapped, the others are advised all the same. */
int run_space_advise(void *address, size_t bytes, int advice) {
    space *s = space_of(address, bytes);
    uintptr_t start = (uintptr_t)address, end = start + whole_pages(bytes);
    bool hole = false;
    if (!s || start % PAGE_BYTES != 0)
        return space_fail(s ? EINVAL : ENOMEM);
    for (uintptr_t at = start, last; at < end; at = last) {
        small_lock_acquire(&space_lock);
        size_t i = ranges_find(&s->given, at);
        bool there = i < s->given.count && s->given.all[i].start < end;
        range r = there ? s->given.all[i] : (range){.start = end, .end = end};
        small_lock_release(&space_lock);
        uintptr_t first = MAX_OF(at, r.start);
        last = MIN_OF(end, r.end);
        hole |= first > at;
        if (there && advise(s, first, last - first, r.foreign, advice) != 0)
            return -1;
    }
    return hole ? space_fail(ENOMEM) : 0;
}

int run_space_in_core(void *address, size_t bytes, unsigned char *pages) {
    space *s = space_of(address, bytes);
    uintptr_t start = (uintptr_t)address;
    small_lock_acquire(&space_lock);
    bool given = s && ranges_cover(&s->given, start, start + whole_pages(bytes));
    small_lock_release(&space_lock);
    return start % PAGE_BYTES != 0 ? space_fail(EINVAL)
           : given                 ? run_core_mincore(address, bytes, pages)
                                   : space_fail(ENOMEM);
}

int run_space_lock(const void *address, size_t bytes, bool locked) {
    space *s = space_of(address, bytes);
    uintptr_t start = (uintptr_t)address & ~(PAGE_BYTES - 1), end = whole_pages((uintptr_t)address + bytes);
    if (!s)
        return space_fail(ENOMEM);
    small_lock_acquire(&space_lock);
    bool given = ranges_cover(&s->given, start, end);
    small_lock_release(&space_lock);
    if (!given)
        return space_fail(ENOMEM);
    int status =
        (locked ? uswap_region_lock : uswap_region_unlock)(run_pool, s->region, start - s->base, end - start, NULL);
    return status == 0 ? 0 : space_fail(status == USWAP_E_LIMIT ? ENOMEM : EAGAIN);
}

bool run_space_is_locked(const void *address) {
    const space *s = space_of(address, 1);
    region *r = s ? region_get_by_id(&run_pool->regions, s->region) : NULL;
    bool locked = false;
    if (r) {
        locked = page_load(&r->object.words[((uintptr_t)address - s->base) >> PAGE_SHIFT]) & PAGE_MLOCKED;
        region_put(r);
    }
    return locked;
}

bool run_space_pin(uintptr_t start, uintptr_t end) {
    const space *s = space_of((void *)start, end - start);
    uint8_t held = 0;
    if (s && run_space_managed(start, end))
        uswap_region_pin(run_pool, s->region, start - s->base, end - start, &held, NULL);
    return held;
}

void run_space_unpin(uintptr_t start, uintptr_t end) {
    const space *s = space_of((void *)start, end - start);
    if (s)
        uswap_region_unpin(run_pool, s->region, start - s->base, end - start, NULL);
}
