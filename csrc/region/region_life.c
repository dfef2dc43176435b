/*
 * region_life.c - making, closing and describing regions.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "base/status.h"
#include "fault/fault_inline.h"
#include "fault/uffd.h"
#include "region/region_range.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Only in libuswap-run.so (run/core_calls.c). */
extern void run_map_directly(int on) __attribute__((weak, visibility("hidden")));

EXPORT void uswap_map_directly(int on) {
    if (run_map_directly)
        run_map_directly(on);
}

/* ---- create ---- */

static int check_arguments(const void *address, uint64_t bytes, uswap_error *err) {
    if ((uintptr_t)address % PAGE_BYTES != 0 || bytes % PAGE_BYTES != 0 || bytes == 0 || !address)
        return error_set(err, USWAP_E_INVALID, 0, "region", NULL,
                         "a region needs a page-aligned address and a positive multiple of 4096 bytes");
    if (bytes >> 47)
        return error_set(err, USWAP_E_NO_MEMORY, ENOMEM, "region", NULL, "no address space for a region of %llu bytes",
                         (unsigned long long)bytes);
    return 0;
}

static int table_error(uswap_error *err, int status) {
    if (status == -EEXIST)
        return error_set(err, USWAP_E_INVALID, 0, "region", NULL, "these addresses belong to a region already");
    return error_set(err, USWAP_E_NO_MEMORY, -status, "region", NULL,
                     status == -ENFILE ? "a pool has at most %d regions" : "no address space for the %d-bit page words",
                     status == -ENFILE ? REGIONS_MAX : 64);
}

int region_watch(int uffd, void *address, uint64_t bytes, uswap_error *err) {
    munlock(address, bytes); /* mlockall(MCL_FUTURE) would forbid eviction */
    madvise(address, bytes, MADV_DONTNEED);
    madvise(address, bytes, MADV_NOHUGEPAGE);
    if (madvise(address, bytes, MADV_DONTFORK) != 0)
        return error_set(err, USWAP_E_OS, errno, "madvise", NULL, "cannot keep the region out of forks: %s",
                         error_text(errno));
    int status = uffd_register(uffd, address, bytes, UFFD_MISSING | UFFD_WP);
    if (status == -EBUSY)
        return error_set(err, USWAP_E_IN_USE, EBUSY, "UFFDIO_REGISTER", NULL,
                         "another userfaultfd watches these addresses already");
    if (status != 0)
        return error_set(err, USWAP_E_OS, -status, "UFFDIO_REGISTER", NULL, "cannot watch the region: %s",
                         error_text(-status));
    return 0;
}

/* The descriptor for regions of this fault mode. Return: it, or a uswap_status. */
static int watcher(uswap_pool *pool, uint32_t fault_mode, uswap_error *err) {
    if (fault_mode == USWAP_FAULTS_DEFAULT)
        fault_mode = pool->options.fault_mode;
    if (fault_mode == USWAP_FAULTS_THREAD)
        return pool->user_mode_only ? pool_refuse_uffd(err, EPERM) : pool->uffd;
    int status = fault_mode == USWAP_FAULTS_INLINE ? fault_inline_prepare(pool) : -EINVAL;
    if (status == 0)
        return pool->inlines.uffd;
    return error_set(err, status == -EINVAL ? USWAP_E_INVALID : USWAP_E_OS, -status, "region", NULL,
                     "faults cannot be served in that way: %s", error_text(-status));
}

static int create(uswap_pool *pool, void *address, uint64_t bytes, const char *name, uint32_t fault_mode, uint64_t *id,
                  uswap_error *err) {
    region *r;
    size_t pages = bytes_to_pages(bytes), promised = pool->sparse_regions ? 0 : pages;
    int uffd = watcher(pool, fault_mode, err);
    int status = uffd < 0 ? uffd : pool_reserve_slots(pool, promised, err);
    if (status != 0)
        return status;
    status = region_table_add(&pool->regions, address, pages, name ? name : "", &r);
    if (status != 0) {
        pool_unreserve_slots(pool, promised);
        return table_error(err, status);
    }
    r->reserved_slots = promised;
    r->uffd = uffd;
    status = region_watch(r->uffd, address, bytes, err);
    if (status != 0) {
        region_table_remove(&pool->regions, r);
        pool_unreserve_slots(pool, promised);
        return status;
    }
    region_table_publish(&pool->regions, r);
    *id = region_id(r);
    return 0;
}

EXPORT int uswap_region_create(uswap_pool *pool, void *address, uint64_t bytes, const char *name, uint32_t fault_mode,
                               uint64_t *id, uswap_error *err) {
    int status = check_arguments(address, bytes, err);
    if (status != 0)
        return status;
    api_guard guard;
    status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->api_lock);
    status = create(pool, address, bytes, name, fault_mode, id, err);
    small_lock_release(&pool->api_lock);
    api_leave(&guard);
    return status;
}

/* ---- destroy ---- */

/* Nobody refers to the region any more; I/O on its slots may be in flight and ends by their use counts. */
static uint64_t forget_pages(uswap_pool *pool, region *r) {
    uint64_t frames = 0, locked = 0, pinned = 0, chunks = 0;
    for (size_t page = 0; page < r->object.pages; page++) {
        if (page % PAGE_WORDS_PER_CHUNK == 0) {
            if (!atomic_load(&r->object.touched[page / PAGE_WORDS_PER_CHUNK])) {
                page += PAGE_WORDS_PER_CHUNK - 1;
                continue;
            }
            chunks++;
        }
        uint64_t word = page_load(&r->object.words[page]);
        frames += page_state_of(word) == PAGE_RESIDENT;
        locked += (word & PAGE_MLOCKED) != 0;
        pinned += page_pins_of(word) != 0;
        if (!swap_entry_is_none(page_entry_of(word)))
            swap_map_put(pool, page_entry_of(word));
    }
    STAT_SUB(pool, mapped_pages, frames);
    STAT_SUB(pool, locked_pages, locked);
    STAT_SUB(pool, pinned_pages, pinned);
    STAT_SUB(pool, poisoned_pages, atomic_load(&r->poisoned_pages));
    frame_uncharge_metadata(pool, chunks);
    return frames;
}

static void destroy(uswap_pool *pool, region *r) {
    size_t bytes = r->object.pages << PAGE_SHIFT;
    bool unmapped =
        atomic_load(&r->quiesced); /* the caller has unmapped it since: those addresses are not ours any more */
    FAILPOINT(region_destroy);
    region_table_retire(&pool->regions, r);
    uffd_wake(r->uffd, r->base, bytes);
    if (!unmapped) {
        munlock(r->base, bytes);
        uffd_unregister(r->uffd, r->base, bytes);
        madvise(r->base, bytes, MADV_DONTNEED);
    }
    if (r->room_pages > r->object.pages)
        munmap(r->base + bytes, (r->room_pages - r->object.pages) << PAGE_SHIFT);
    gate_enter(&pool->gate);
    uint64_t frames = forget_pages(pool, r);
    frame_uncharge(pool, frames);
    pool_unreserve_slots(pool, r->reserved_slots);
    region_table_remove(&pool->regions, r);
    gate_leave(&pool->gate);
}

EXPORT int uswap_region_destroy(uswap_pool *pool, uint64_t id, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->api_lock);
    region *r = region_get_by_id(&pool->regions, id);
    if (r) {
        region_put(r); /* api_lock keeps it from going */
        destroy(pool, r);
        pool_return_room(pool);
    } else {
        status = error_set(err, USWAP_E_CLOSED, 0, "region", NULL, "the region is closed");
    }
    small_lock_release(&pool->api_lock);
    api_leave(&guard);
    return status;
}

/* ---- quiesce, resume, describe ---- */

EXPORT int uswap_region_quiesce(uswap_pool *pool, uint64_t id, uswap_error *err) {
    region_range range;
    int status = region_range_begin(&range, pool, id, 0, 0, RANGE_TOUCHED, err);
    if (status != 0)
        return status;
    region_quiesce(range.r);
    region_range_end(&range);
    return 0;
}

EXPORT int uswap_region_resume(uswap_pool *pool, uint64_t id, uswap_error *err) {
    region_range range;
    int status = region_range_begin(&range, pool, id, 0, 0, RANGE_TOUCHED, err);
    if (status != 0)
        return status;
    atomic_store(&range.r->quiesced, 0);
    region_range_end(&range);
    return 0;
}

EXPORT int uswap_region_get_info(uswap_pool *pool, uint64_t id, uswap_region_info *info, uswap_error *err) {
    region_range range;
    int status = region_range_begin(&range, pool, id, 0, 0, RANGE_TOUCHED, err);
    if (status != 0)
        return status;
    const region *r = range.r;
    memset(info, 0, sizeof *info);
    info->region = id;
    info->address = (uintptr_t)r->base;
    info->size_bytes = (uint64_t)r->object.pages << PAGE_SHIFT;
    info->resident_bytes = atomic_load(&r->mapped_pages) << PAGE_SHIFT;
    info->swapped_bytes = atomic_load(&r->swapped_pages) << PAGE_SHIFT;
    info->locked_bytes = atomic_load(&r->locked_pages) << PAGE_SHIFT;
    info->faults = atomic_load(&r->faults);
    info->poisoned_pages = atomic_load(&r->poisoned_pages);
    info->fault_mode = r->uffd == pool->uffd ? USWAP_FAULTS_THREAD : USWAP_FAULTS_INLINE;
    memcpy(info->name, r->name, sizeof info->name);
    region_range_end(&range);
    return 0;
}
