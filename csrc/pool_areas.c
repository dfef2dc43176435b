/*
 * pool_areas.c - the swap areas of a pool: adding one, listing them, and keeping room in them for every page of every region.
 */
#include "base/status.h"
#include "pool.h"

#include <errno.h>
#include <string.h>

/* Slots beyond one a page: the open clusters of the contexts, and pages that change from one slot to another. */
#define SLACK_SLOTS UINT64_C(1024)

/* The next area by priority that is not in *done. */
static swap_area *next_by_priority(uswap_pool *pool, uint64_t *done) {
    swap_area *best = NULL;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++)
        if (!(*done >> i & 1) && (!best || pool->areas[i].priority > best->priority))
            best = &pool->areas[i];
    if (best)
        *done |= UINT64_C(1) << best->index;
    return best;
}

/* Gives an area space for up to slots. Return: how many it has then. On a full disk: all or nothing; with overcommit as much as
 * there is. */
static uint64_t grow_area(uswap_pool *pool, swap_area *area, uint64_t slots, uswap_error *err) {
    uint64_t usable = atomic_load(&area->usable_slots) - 1;
    while (slots > usable && swap_area_grow(area, slots, err) != 0) {
        uint64_t missing = slots - usable;
        if (!pool->options.overcommit || missing < 2 * (uint64_t)CLUSTER_SLOTS)
            return usable;
        slots = usable + missing / 2;
    }
    return slots;
}

/* Gives the areas space on their disks for so many slots. Return: how many slots are still missing; *err: why. */
static uint64_t make_room(uswap_pool *pool, uint64_t slots, uswap_error *err) {
    uint64_t done = 0;
    swap_area *area;
    while (slots > 0 && (area = next_by_priority(pool, &done))) {
        uint64_t share = grow_area(pool, area, MIN_OF(slots, area->total_slots - 1), err);
        slots -= MIN_OF(share, slots);
    }
    atomic_store(&pool->slots_exhausted, 0);
    return slots;
}

int pool_reserve_slots(uswap_pool *pool, uint64_t pages, uswap_error *err) {
    uint64_t reserved = atomic_load(&pool->reserved_slots) + pages;
    uswap_error cause = {.status = USWAP_OK};
    uint64_t missing = make_room(pool, reserved + SLACK_SLOTS + STAT_GET(pool, bad_slots), &cause);
    if (missing > 0 && !pool->options.overcommit) {
        const char *why = cause.status ? cause.detail : "the swap areas are too small";
        return error_set(
            err, USWAP_E_NO_MEMORY, cause.status ? cause.os_errno : ENOSPC, "region", cause.path,
            "no swap space for a region of %llu bytes: %llu bytes are missing (%.300s). Add a swap area, or use "
            "overcommit=True",
            (unsigned long long)(pages << PAGE_SHIFT), (unsigned long long)(missing << PAGE_SHIFT), why);
    }
    atomic_store(&pool->reserved_slots, reserved);
    return 0;
}

void pool_unreserve_slots(uswap_pool *pool, uint64_t pages) {
    atomic_fetch_sub(&pool->reserved_slots, pages);
}

static void describe(const swap_area *area, uswap_area_info *info) {
    memset(info, 0, sizeof *info);
    info->area = area->index;
    info->notes = area->notes;
    info->priority = area->priority;
    info->size_bytes = area->total_slots << PAGE_SHIFT;
    info->allocated_bytes = area->notes & USWAP_AREA_NO_FALLOCATE ? 0 : atomic_load(&area->usable_slots) << PAGE_SHIFT;
    info->used_bytes = atomic_load(&area->used_slots) << PAGE_SHIFT;
    memcpy(info->path, area->path, sizeof info->path);
}

EXPORT int uswap_pool_swapon(uswap_pool *pool, const char *path, int unlinked, uint64_t size_bytes, int32_t priority,
                             uswap_area_info *info, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->api_lock);
    uint32_t index = atomic_load(&pool->area_count);
    if (index == SWAP_AREAS_MAX) {
        status = error_set(err, USWAP_E_INVALID, 0, "swapon", path, "a pool has at most %d swap areas", SWAP_AREAS_MAX);
    } else {
        status = swap_area_open(&pool->areas[index], &pool->seg, index, path, unlinked != 0, size_bytes, priority, err);
        if (status == 0)
            atomic_store(&pool->area_count, index + 1);
        if (status == 0 && pool->options.overcommit)
            make_room(pool, atomic_load(&pool->reserved_slots) + SLACK_SLOTS, NULL);
        if (status == 0 && info)
            describe(&pool->areas[index], info);
    }
    small_lock_release(&pool->api_lock);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_pool_areas(uswap_pool *pool, uswap_area_info *infos, uint32_t capacity, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->api_lock);
    uint32_t count = MIN_OF(atomic_load(&pool->area_count), capacity);
    for (uint32_t i = 0; i < count; i++)
        describe(&pool->areas[i], &infos[i]);
    small_lock_release(&pool->api_lock);
    api_leave(&guard);
    return (int)count;
}
