/*
 * group_api.c - the API of named pools.
 */
#include "base/status.h"
#include "pool.h"
#include "shared/group.h"
#include "shared/group_info.h"

#include <signal.h>

/* A lowered limit holds when the members that are not stopped have given back what is beyond it: in this time, or not. */
#define SET_LIMIT_PATIENCE_NS UINT64_C(10000000000)
/* Who has not looked around for so long is stopped. That gives no sign: it is looked for again after this, though nobody has given anything. */
#define SILENT_NS UINT64_C(1000000000)
#define SILENT_LOOK_NS UINT64_C(100000000)

/* ---- entry and exit ---- */

/* As api_enter, with SIGBUS blocked too: threads that are started inherit the mask. */
static int enter(uswap_pool *pool, api_guard *guard, uswap_error *err) {
    api_guard all;
    int status = api_enter(pool, guard, err);
    if (status == 0)
        signals_block(all.saved_mask);
    return status;
}

/* Return: NULL, with *err set: the pool is in no group, or not this process's. */
static group *enter_group(uswap_pool *pool, api_guard *guard, int *status, uswap_error *err) {
    *status = api_enter(pool, guard, err);
    if (*status != 0)
        return NULL;
    group *g = atomic_load(&pool->group);
    if (!g) {
        *status = error_set(err, USWAP_E_INVALID, 0, "group", NULL, "the pool is in no named pool");
        api_leave(guard);
    }
    return g;
}

/* ---- coming and going ---- */

EXPORT int uswap_group_create(uswap_pool *pool, const char *folder, uint64_t limit_bytes, const char *swap_folder,
                              uint32_t map_for_peers, uswap_error *err) {
    api_guard guard;
    int status = enter(pool, &guard, err);
    if (status != 0)
        return status;
    status = group_create(pool, folder, limit_bytes, swap_folder, map_for_peers != 0, err);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_group_join(uswap_pool *pool, const char *folder, uswap_error *err) {
    api_guard guard;
    int status = enter(pool, &guard, err);
    if (status != 0)
        return status;
    status = group_join(pool, folder, err);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_group_leave(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = enter(pool, &guard, err);
    if (status != 0)
        return status;
    status = group_leave(pool, err);
    api_leave(&guard);
    return status;
}

/* ---- looking ---- */

EXPORT int uswap_group_get_info(uswap_pool *pool, uswap_group_info *info, uswap_error *err) {
    api_guard guard;
    int status;
    const group *g = enter_group(pool, &guard, &status, err);
    if (!g)
        return status;
    group_info_get(&g->commons, info);
    api_leave(&guard);
    return 0;
}

EXPORT int uswap_group_members(uswap_pool *pool, uswap_member_info *infos, uint32_t capacity, uswap_error *err) {
    api_guard guard;
    int status;
    const group *g = enter_group(pool, &guard, &status, err);
    if (!g)
        return status;
    status = (int)group_info_members(&g->commons, g->self, infos, capacity);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_group_objects(uswap_pool *pool, uswap_object_info *infos, uint32_t capacity, uswap_error *err) {
    api_guard guard;
    int status;
    const group *g = enter_group(pool, &guard, &status, err);
    if (!g)
        return status;
    status = (int)group_info_objects(&g->commons, infos, capacity);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_group_look(const char *folder, uswap_group_info *info, uswap_member_info *members,
                            uint32_t member_capacity, uswap_object_info *objects, uint32_t object_capacity,
                            uswap_error *err) {
    commons seen;
    int status = group_look(folder, &seen, err);
    if (status != 0)
        return status;
    group_info_get(&seen, info);
    info->members = group_info_members(&seen, MEMBER_NONE, members, member_capacity);
    info->objects = group_info_objects(&seen, objects, object_capacity);
    commons_detach(&seen);
    return 0;
}

EXPORT int uswap_group_living(const char *folder, uswap_error *err) {
    return group_living(folder, err);
}

EXPORT int uswap_group_check(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status;
    group *g = enter_group(pool, &guard, &status, err);
    if (!g)
        return status;
    status = group_check(g, err);
    api_leave(&guard);
    return status;
}

/* ---- the limit ---- */

/* Chunks beyond the limit. stopped: only those of members that cannot give them back now. */
static uint64_t chunks_beyond(const group *g, bool stopped) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t beyond = 0, now = clock_now_ns();
    for (uint64_t i = commons_limit_chunks(&g->commons); i < head->chunks; i++) {
        uint32_t word = atomic_load(&commons_chunks(&g->commons)[i]);
        if (word == CHUNK_FREE)
            continue;
        /* Also of one that it is just emptying: nobody else goes on with that. */
        bool silent = word != CHUNK_SHARED &&
                      now > atomic_load(&group_entry(g, (member_id){(uint16_t)word})->beat_ns) + SILENT_NS;
        beyond += !stopped || silent;
    }
    return beyond;
}

/* Until nothing is beyond the limit, or somebody has set another one, or it will not come. Return: chunks beyond it. */
static uint64_t await_limit(group *g, uint64_t limit_bytes) {
    commons_header *head = commons_head(&g->commons);
    uint64_t begin = clock_now_ns();
    for (;;) {
        uint32_t seen = event_count(&head->chunks_given);
        uint64_t waited = clock_now_ns() - begin, beyond = chunks_beyond(g, false);
        bool stopped = waited > SILENT_NS && chunks_beyond(g, true) == beyond;
        if (beyond == 0 || stopped || waited > SET_LIMIT_PATIENCE_NS || atomic_load(&head->limit_bytes) != limit_bytes)
            return beyond;
        event_wait_shared(&head->chunks_given, seen, SILENT_LOOK_NS);
    }
}

static int refuse_beyond(uint64_t bytes, uswap_error *err) {
    return error_set(
        err, USWAP_E_BUSY, 0, "limit", NULL,
        "the limit stays as it was: %llu bytes of memory are in the hands of processes that are stopped, or "
        "cannot evict",
        (unsigned long long)bytes);
}

/* What is kept to is agreed on, though who has set it has not come to say so (he is stopped, or dead). Return: what is agreed on. */
static uint64_t agree(group *g) {
    commons_header *head = commons_head(&g->commons);
    uint64_t agreed = atomic_load(&head->agreed_bytes), now = atomic_load(&head->limit_bytes);
    if (chunks_beyond(g, false) == 0)
        atomic_compare_exchange_strong(&head->agreed_bytes, &agreed, now);
    return atomic_load(&head->agreed_bytes);
}

/* Who comes last has his way, and the others are told. What cannot be kept to goes back to what could, not to what another one was just trying. */
static int set_limit(group *g, uint64_t limit_bytes, uswap_error *err) {
    commons_header *head = commons_head(&g->commons);
    uint64_t agreed = agree(g);
    atomic_store(&head->limit_bytes, limit_bytes);
    uint64_t beyond = await_limit(g, limit_bytes), now = limit_bytes;
    if (beyond == 0 && atomic_load(&head->limit_bytes) == limit_bytes) {
        atomic_compare_exchange_strong(&head->agreed_bytes, &agreed, limit_bytes); /* or somebody who came later has */
        return 0;
    }
    if (atomic_compare_exchange_strong(&head->limit_bytes, &now, atomic_load(&head->agreed_bytes)))
        return refuse_beyond(beyond * head->chunk_frames << PAGE_SHIFT, err);
    return error_set(err, USWAP_E_BUSY, 0, "limit", NULL,
                     "another process of the pool has set the limit meanwhile: it is %llu bytes",
                     (unsigned long long)now);
}

int group_change_limit(group *g, uint64_t limit_bytes, uswap_error *err) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t chunk_bytes = head->chunk_frames << PAGE_SHIFT;
    uint64_t least = group_least_chunks(g) * chunk_bytes, most = head->chunks * chunk_bytes;
    if (limit_bytes < least)
        return error_set(err, USWAP_E_LIMIT, 0, "limit", NULL,
                         "a limit of %llu bytes is below the %llu that the pool's processes need",
                         (unsigned long long)limit_bytes, (unsigned long long)least);
    if (limit_bytes > most)
        return error_set(err, USWAP_E_NO_MEMORY, 0, "limit", NULL,
                         "the limit of this pool can be raised to %llu bytes at most: make a new one",
                         (unsigned long long)most);
    return set_limit(g, limit_bytes, err);
}

EXPORT int uswap_group_set_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err) {
    api_guard guard;
    int status;
    group *g = enter_group(pool, &guard, &status, err);
    if (!g)
        return status;
    status = group_change_limit(g, limit_bytes, err);
    api_leave(&guard);
    return status;
}
