/*
 * pool_areas.c - the swap areas of a pool: adding one, listing them, and keeping room in them for every page of every region.
 */
#include "base/status.h"
#include "pool.h"

#include <errno.h>
#include <string.h>

/* Slots beyond one a page: the open clusters of the contexts, and pages that change from one slot to another. */
#define SLACK_SLOTS UINT64_C(1024)

/* Less surplus than this is kept: 64 MiB, what areas grow by. Regions that come and go then cost no file system work. */
#define SURPLUS_SLOTS UINT64_C(16384)

/* The areas in use of the highest priority of those not in *done, a bit each. */
static uint64_t next_by_priority(uswap_pool *pool, uint64_t *done) {
    uint64_t group = 0;
    int32_t priority = 0;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        const swap_area *area = &pool->areas[i];
        if (!swap_area_in_use(area) || (*done >> i & 1) || (group && area->priority < priority))
            continue;
        group = (group && area->priority == priority ? group : 0) | UINT64_C(1) << i;
        priority = area->priority;
    }
    *done |= group;
    return group;
}

/* Gives an area space for slots in all, if it may grow so far. Return: how many it has then. On a full disk: all or nothing; with
 * overcommit as much as there is. */
static uint64_t grow_area(uswap_pool *pool, swap_area *area, uint64_t slots, uswap_error *err) {
    uint64_t room = swap_area_room(area);
    slots = MIN_OF(slots, area->total_slots - 1);
    while (slots > room && swap_area_grow(area, slots, err) != 0) {
        uint64_t missing = slots - room;
        if (!pool->options.overcommit || missing < 2 * (uint64_t)CLUSTER_SLOTS)
            break;
        slots = room + missing / 2;
    }
    return swap_area_room(area);
}

/* Gives areas of equal priority space for so many slots: the same share to each, so that they are used in turn, and what one cannot take
 * to the others. Return: how many slots they have then. */
static uint64_t grow_group(uswap_pool *pool, uint64_t group, uint64_t slots, uswap_error *err) {
    uint64_t room = 0, areas = (uint64_t)__builtin_popcountll(group);
    for (uint32_t i = 0; i < SWAP_AREAS_MAX; i++)
        if (group >> i & 1)
            room += grow_area(pool, &pool->areas[i], (slots + areas - 1) / areas, err);
    for (uint32_t i = 0; i < SWAP_AREAS_MAX && room < slots; i++)
        if (group >> i & 1) {
            uint64_t before = swap_area_room(&pool->areas[i]);
            room += grow_area(pool, &pool->areas[i], before + slots - room, err) - before;
        }
    return room;
}

uint64_t pool_promised_slots(uswap_pool *pool, uint64_t pages) {
    return pages > 0 ? pages + SLACK_SLOTS + STAT_GET(pool, bad_slots) + atomic_load(&pool->lendable_slots) : 0;
}

uint64_t pool_make_room(uswap_pool *pool, uint64_t slots, uswap_error *err) {
    uint64_t done = 0, group;
    while (slots > 0 && (group = next_by_priority(pool, &done)) != 0)
        slots -= MIN_OF(grow_group(pool, group, slots, err), slots);
    atomic_store(&pool->slots_exhausted, 0);
    return slots;
}

int pool_reserve_slots(uswap_pool *pool, uint64_t pages, uswap_error *err) {
    /* Added at once: others give theirs back meanwhile, without the lock. */
    uint64_t reserved = atomic_fetch_add(&pool->reserved_slots, pages) + pages;
    uswap_error cause = {.status = USWAP_OK};
    uint64_t missing = pool_make_room(pool, pool_promised_slots(pool, reserved), &cause);
    if (missing > 0 && !pool->options.overcommit) {
        pool_unreserve_slots(pool, pages);
        const char *why = cause.status ? cause.detail : "the swap areas are too small";
        return error_set(
            err, USWAP_E_NO_MEMORY, cause.status ? cause.os_errno : ENOSPC, "region", cause.path,
            "no swap space for a region of %llu bytes: %llu bytes are missing (%.300s). Add a swap area, or use "
            "overcommit=True",
            (unsigned long long)(pages << PAGE_SHIFT), (unsigned long long)(missing << PAGE_SHIFT), why);
    }
    return 0;
}

void pool_unreserve_slots(uswap_pool *pool, uint64_t pages) {
    atomic_fetch_sub(&pool->reserved_slots, pages);
}

int pool_promise(uswap_pool *pool, uint64_t pages, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->api_lock);
    status = pool_reserve_slots(pool, pages, err);
    small_lock_release(&pool->api_lock);
    api_leave(&guard);
    return status;
}

/* The area in use of the lowest priority of those not in *done, the youngest of equal ones. */
static swap_area *next_to_shrink(uswap_pool *pool, uint64_t *done) {
    swap_area *lowest = NULL;
    for (uint32_t i = atomic_load(&pool->area_count); i-- > 0;)
        if (swap_area_in_use(&pool->areas[i]) && !(*done >> i & 1) &&
            (!lowest || pool->areas[i].priority < lowest->priority))
            lowest = &pool->areas[i];
    if (lowest)
        *done |= UINT64_C(1) << lowest->index;
    return lowest;
}

void pool_return_room(uswap_pool *pool) {
    uint64_t promised = pool_promised_slots(pool, atomic_load(&pool->reserved_slots)), room = 0, done = 0;
    swap_area *area;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++)
        if (swap_area_in_use(&pool->areas[i]))
            room += swap_area_room(&pool->areas[i]);
    uint64_t surplus = room > promised ? room - promised : 0;
    while (surplus >= SURPLUS_SLOTS && (area = next_to_shrink(pool, &done)))
        surplus -= swap_area_shrink(area, surplus);
}

static void describe(const swap_area *area, uswap_area_info *info) {
    memset(info, 0, sizeof *info);
    info->area = area->index;
    info->notes = area->notes;
    info->priority = area->priority;
    info->size_bytes = area->total_slots << PAGE_SHIFT;
    info->allocated_bytes = area->notes & USWAP_AREA_NO_FALLOCATE ? 0 : (swap_area_room(area) + 1) << PAGE_SHIFT;
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
        status =
            error_set(err, USWAP_E_INVALID, 0, "swapon", path,
                      "a pool can have %d swap areas in its life, those that were taken out of use included: make a "
                      "new pool",
                      SWAP_AREAS_MAX);
    } else {
        status = swap_area_open(&pool->areas[index], &pool->seg, index, path, unlinked != 0, size_bytes, priority, err);
        if (status == 0)
            atomic_store(&pool->area_count, index + 1);
        if (status == 0 && pool->options.overcommit)
            pool_make_room(pool, pool_promised_slots(pool, atomic_load(&pool->reserved_slots)), NULL);
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
    uint32_t count = 0;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count) && count < capacity; i++)
        if (!swap_area_is_closed(&pool->areas[i]))
            describe(&pool->areas[i], &infos[count++]);
    small_lock_release(&pool->api_lock);
    api_leave(&guard);
    return (int)count;
}
