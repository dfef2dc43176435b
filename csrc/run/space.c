/*
 * space.c - managed memory as the program sees it: mappings that come, change and go, within two regions of addresses that are there from the start.
 *
 * One sparse region a space instead of one a mapping: so a part of a mapping can go, grow or change hands, and what is next to each other is read and
 * written together. What is not given out has no access. Who changes addresses that are his does so without the lock; the lock is for the table.
 */
#define _GNU_SOURCE
#include "run/space.h"

#include "base/memory.h"
#include "pool.h"
#include "region/region_range.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)
/* A space has no use below that. */
#define LEAST_BYTES ((size_t)256 << 20)
/* Of what the process may have of addresses (RLIMIT_AS), a space takes this part at most: the rest is for code, stacks, files, and the runtime. What is not given out is no
 * data (RLIMIT_DATA). */
#define PART_OF_LIMIT 4

space spaces[SPACES];
small_lock space_lock;

int space_fail(int error) {
    errno = error;
    return -1;
}

void *space_fail_map(int error) {
    errno = error;
    return MAP_FAILED;
}

static size_t most_bytes(void) {
    size_t bytes = SPACE_MOST_BYTES, share = MIN_OF(memory_address_share(PART_OF_LIMIT), memory_data_share(1));
    while (bytes > share)
        bytes /= 2;
    return bytes;
}

/* As many addresses as there are to be had, from the most down. Return: how many bytes; 0: too few. */
static size_t find_addresses(void **address) {
    for (size_t bytes = most_bytes(); bytes >= LEAST_BYTES; bytes /= 2) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        *address = run_core_mmap(NULL, bytes + HUGE_BYTES, PROT_NONE, flags, -1, 0);
        if (*address != MAP_FAILED)
            return bytes;
    }
    return 0;
}

static int open_space(space *s, const char *name, uswap_error *err) {
    void *address;
    size_t bytes = find_addresses(&address);
    if (bytes == 0) {
        snprintf(err->detail, sizeof err->detail, "too few addresses may be used: 1 GiB is the least (see ulimit -v)");
        return USWAP_E_NO_MEMORY;
    }
    s->base = ((uintptr_t)address + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1);
    s->end = s->base + bytes;
    run_core_madvise((void *)s->base, bytes, MADV_DONTDUMP);
    return uswap_region_create(run_pool, (void *)s->base, bytes, name, USWAP_FAULTS_THREAD, &s->region, err);
}

int run_spaces_open(uswap_error *err) {
    run_pool->sparse_regions = true; /* they are larger than any disk: space_map.c promises for what is mapped there */
    int status = open_space(&spaces[SPACE_MAPS], "mappings", err);
    if (status == 0)
        status = open_space(&spaces[SPACE_HEAP], "heap", err);
    run_pool->sparse_regions = false;
    return status;
}

space *space_of(const void *address, size_t bytes) {
    uintptr_t start = (uintptr_t)address;
    for (int i = 0; i < SPACES; i++)
        if (start >= spaces[i].base && start < spaces[i].end)
            return bytes <= spaces[i].end - start ? &spaces[i] : NULL;
    return NULL;
}

bool run_space_has(const void *address, size_t bytes) {
    uintptr_t start = (uintptr_t)address, end = start + bytes;
    for (int i = 0; i < SPACES; i++)
        if (start < spaces[i].end && end > spaces[i].base)
            return true;
    return false;
}

bool run_space_managed(uintptr_t start, uintptr_t end) {
    const space *s = space_of((void *)start, end - start);
    start &= ~(uintptr_t)(PAGE_BYTES - 1);
    end = whole_pages(end);
    small_lock_acquire(&space_lock);
    bool managed = s && ranges_cover(&s->given, start, end) && !ranges_have(&s->given, start, end, range_is_foreign);
    small_lock_release(&space_lock);
    return managed;
}

int space_access(uintptr_t start, size_t bytes, int protection) {
    if (run_core_mprotect((void *)start, bytes, protection) != 0)
        return -1;
    run_core_madvise((void *)start, bytes, protection == PROT_NONE ? MADV_DONTDUMP : MADV_DODUMP);
    return 0;
}

bool space_promise(size_t bytes) {
    return bytes == 0 || pool_promise(run_pool, bytes >> PAGE_SHIFT, NULL) == 0;
}

void space_unpromise(size_t bytes) {
    pool_unreserve_slots(run_pool, bytes >> PAGE_SHIFT);
}

int space_discard(const space *s, uintptr_t start, uintptr_t end) {
    uint64_t offset = start - s->base, bytes = end - start;
    int status = uswap_region_advise(run_pool, s->region, offset, bytes, USWAP_ADVICE_DONTNEED, NULL);
    if (status == USWAP_E_BUSY) { /* munmap and MAP_FIXED end a lock, too */
        uswap_region_unlock(run_pool, s->region, offset, bytes, NULL);
        run_stacks_await();
        status = uswap_region_advise(run_pool, s->region, offset, bytes, USWAP_ADVICE_DONTNEED, NULL);
    }
    return status == 0 ? 0 : space_fail(EBUSY);
}

void run_space_fork_begin(void) {
    small_lock_acquire(&space_lock);
}

void run_space_fork_end(void) {
    small_lock_release(&space_lock);
}
