/*
 * group.c - a pool becomes one of several with one limit, and leaves them: the order of its steps.
 *
 * A member has its place in the table first, then a socket, then its part of the limit, and only then objects. Who is killed on the way has
 * left nothing but what its id names. The folder decides who is last: it can be removed only while no socket is in it, and where it has been
 * removed no socket can be made.
 */
#define _GNU_SOURCE
#include "shared/group.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "base/nameless_file.h"
#include "base/status.h"
#include "pool.h"
#include "shared/family.h"
#include "shared/group_find.h"
#include "shared/group_info.h"
#include "shared/life_lock.h"
#include "shared/peers.h"
#include "shared/shared_core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What shared pages must have at least, beside the floors of the members. */
#define SHARED_LEAST_FRAMES 256
/* The other members give back what a new one needs in this time, or do not. */
#define FLOOR_PATIENCE_NS UINT64_C(10000000000)
/* Slot 0 of the swap file is nobody's. */
#define BARRIER_SLOT 0

/* How far it has come: what is to be undone. */
typedef enum { STAGE_COMMONS, STAGE_PLACE, STAGE_PEERS, STAGE_FAULTS, STAGE_EVICTIONS } stage;

/* ---- what a group has ---- */

group *group_new(uswap_pool *pool) {
    group *g = memory_map(sizeof *g);
    if (!g)
        return NULL;
    madvise(g, sizeof *g, MADV_DOFORK); /* a forked child closes what it names (group_in_child) */
    g->pool = pool;
    g->commons.fd = g->uffd = g->swap_fd = g->folder_fd = -1;
    g->peer_wake_fd = g->share_wake_fd = g->out_wake_fd = g->listen_fd = -1;
    g->barrier_slot = BARRIER_SLOT;
    g->life_line = -1;
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        g->peers[i].uffd = g->peers[i].pidfd = g->children[i].life_line = -1;
    return g;
}

static void close_one(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void group_close(group *g) {
    shared_views_free(g);
    life_lock_let_go(g->life_lock);
    g->life_lock = NULL;
    close_one(&g->uffd);
    close_one(&g->swap_fd);
    close_one(&g->folder_fd);
    commons_detach(&g->commons);
}

static void group_unmap(group *g) {
    close_one(&g->peer_wake_fd);
    memory_unmap(g, sizeof *g);
}

void group_release(uswap_pool *pool) {
    while (pool->former) {
        group *g = pool->former;
        pool->former = g->former;
        group_unmap(g);
    }
}

uint64_t group_chunks_for(const group *g, uint64_t frames) {
    uint64_t size = commons_head(&g->commons)->chunk_frames;
    return (frames + size - 1) / size;
}

static uint64_t least_frames(const group *g, uint64_t limit_bytes) {
    return group_floor_frames(limit_bytes, g->pool->bounce_frames);
}

/* ---- the first member ---- */

static int make_swap(group *g, const char *folder, uswap_error *err) {
    struct stat status;
    g->swap_fd = nameless_file_open(folder);
    if (g->swap_fd < 0)
        return group_os_failure(err, "open", folder, g->swap_fd);
    fcntl(g->swap_fd, F_SETFL, O_DIRECT); /* refused: the page cache is used */
    /* The barrier's slot must lie inside the file: else punching it waits for nothing. */
    if (fallocate(g->swap_fd, 0, (off_t)(g->barrier_slot << PAGE_SHIFT), PAGE_BYTES) != 0 &&
        ftruncate(g->swap_fd, (off_t)((g->barrier_slot + 1) << PAGE_SHIFT)) != 0)
        return group_os_failure(err, "fallocate", folder, -errno);
    if (fstat(g->swap_fd, &status) != 0)
        return group_os_failure(err, "fstat", folder, -errno);
    commons_head(&g->commons)->swap_device = status.st_dev;
    commons_head(&g->commons)->swap_inode = status.st_ino;
    return 0;
}

static int refuse_limit(uswap_error *err, uint64_t limit_bytes, uint64_t least_bytes, const char *why) {
    return error_set(err, USWAP_E_LIMIT, 0, "limit", NULL, "a limit of %llu bytes is below %llu, %s",
                     (unsigned long long)limit_bytes, (unsigned long long)least_bytes, why);
}

/* The lowest limit from this one on that is enough: under a higher one each member needs more. */
static uint64_t enough_from(const group *g, uint64_t limit_bytes) {
    uint64_t least = (least_frames(g, limit_bytes) + SHARED_LEAST_FRAMES + 3 * CHUNK_FRAMES_LEAST) << PAGE_SHIFT;
    return least <= limit_bytes ? limit_bytes : enough_from(g, least);
}

static int make_commons(group *g, uint64_t limit_bytes, const char *swap_folder, uswap_error *err) {
    uint64_t least = enough_from(g, limit_bytes);
    if (limit_bytes < least)
        return refuse_limit(err, limit_bytes, least, "which one member and shared pages need");
    int status = commons_create(&g->commons, limit_bytes);
    if (status != 0)
        return group_os_failure(err, "memfd_create", NULL, status);
    status = make_swap(g, swap_folder, err);
    return status != 0                             ? status
           : (status = FAILPOINT(group_made)) != 0 ? group_os_failure(err, "group", NULL, status)
                                                   : 0;
}

/* ---- further members ---- */

static int attach(group *g, peer_fds *fds, uswap_error *err) {
    int status = commons_attach(&g->commons, peer_fds_take(fds, 0));
    g->swap_fd = peer_fds_take(fds, 1);
    if (status == -EPROTO)
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "join", g->folder,
                         "the pool is of an incompatible build of uswap");
    return status == 0 ? 0 : group_os_failure(err, "mmap", NULL, status);
}

static int find_commons(group *g, peer_answer *answer, peer_fds *fds, uswap_error *err) {
    int status = group_hello(g->folder_fd, g->folder, PEER_HELLO, answer, fds);
    if (status != 0)
        return group_explain(g->folder, status, err);
    status = attach(g, fds, err);
    g->map_for_peers = answer->map_for_peers != 0;
    if (status != 0)
        peer_fds_close(fds);
    return status;
}

/* ---- both ---- */

/* A part of the limit that was there before stays: what is used is evicted down to a floor. */
static int shrink_to_floor(group *g, uswap_error *err) {
    uswap_pool *pool = g->pool;
    g->sized_bytes = atomic_load(&commons_head(&g->commons)->limit_bytes);
    g->floor_chunks = group_chunks_for(g, least_frames(g, g->sized_bytes));
    small_lock_acquire(&pool->api_lock);
    int status = pool_change_limit(pool, g->floor_chunks * commons_head(&g->commons)->chunk_frames << PAGE_SHIFT, err);
    small_lock_release(&pool->api_lock);
    return status;
}

uint64_t group_least_chunks(const group *g) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t floors = 0;
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        member_state state = peer_state_at(g, i);
        if (state == MEMBER_JOINING || state == MEMBER_LIVE)
            floors += atomic_load(&head->members[i].floor_chunks);
    }
    return floors + (g->is_family ? 0 : group_chunks_for(g, SHARED_LEAST_FRAMES));
}

static bool has_room(const group *g) {
    return group_least_chunks(g) <= commons_limit_chunks(&g->commons);
}

/* The peer thread takes what is free, and the others give back what this member lacks: so it is looked at again when that thread has looked around. */
static bool await_floor(group *g) {
    const member_entry *self = group_entry(g, g->self);
    uint64_t now = clock_now_ns(), deadline = now + FLOOR_PATIENCE_NS;
    for (; has_room(g) && now < deadline; now = clock_now_ns()) {
        uint32_t seen = event_count(&g->tended);
        if (atomic_load(&self->granted_chunks) >= g->floor_chunks)
            return true;
        event_wait(&g->tended, seen, deadline - now);
    }
    return false;
}

/* The peer thread first: it evicts too. Then who evicts, then who serves faults: they ask for the descriptors of others, which go last. */
static void undo(group *g, stage reached) {
    if (reached >= STAGE_PEERS)
        peers_halt(g);
    if (reached >= STAGE_EVICTIONS)
        shared_out_stop(g);
    if (reached >= STAGE_FAULTS)
        shared_thread_stop(g);
    if (reached >= STAGE_PEERS)
        peers_stop(g);
    if (reached >= STAGE_PLACE) {
        FAILPOINT(group_leaving);
        grants_unshare(g, 0, 0);
        grants_give(g, CHUNKS_MAX);
        shared_free_named(g);
        members_leave(g);
    }
}

/* The member can be found, and finds the others. */
static int be_found(group *g, peer_answer *answer, peer_fds *known, stage *reached) {
    int status = shared_uffd_open(g);
    if (status != 0)
        return status;
    *reached = STAGE_PEERS;
    status = peers_start(g);
    if (status == 0 && answer)
        peers_learn_all(g, answer, known);
    return status == 0 ? FAILPOINT(group_joining) : status;
}

/* Threads for shared pages. => LIVE. */
static int serve(group *g, stage *reached) {
    *reached = STAGE_FAULTS;
    int status = shared_thread_start(g);
    if (status != 0)
        return status;
    *reached = STAGE_EVICTIONS;
    status = shared_out_start(g);
    if (status == 0)
        members_announce(g);
    return status;
}

/* Return: as group_join; on failure everything is undone. */
static int enter(group *g, peer_answer *answer, peer_fds *known, uswap_error *err) {
    stage reached = STAGE_COMMONS;
    int status = members_join(g);
    if (status == 0) {
        reached = STAGE_PLACE;
        status = be_found(g, answer, known, &reached);
    }
    bool floor = status == 0 && await_floor(g);
    if (floor) {
        status = serve(g, &reached);
        if (status == 0)
            return 0;
    }
    undo(g, reached);
    if (status == 0)
        return error_set(err, USWAP_E_LIMIT, 0, "join", g->folder,
                         "the pool's limit is not enough for one process more: each needs %llu bytes",
                         (unsigned long long)(g->floor_chunks * commons_head(&g->commons)->chunk_frames << PAGE_SHIFT));
    if (status == -EUSERS)
        return error_set(err, USWAP_E_BUSY, 0, "join", g->folder, "a pool has at most %d processes", MEMBERS_MAX - 1);
    if (status == -ENOENT && peer_folder_gone(g->folder_fd))
        return group_explain(g->folder, -ENOENT, err);
    return group_os_failure(err, "start", g->folder, status);
}

int group_enter_born(group *g) {
    stage reached = STAGE_PLACE;
    int status = be_found(g, NULL, NULL, &reached);
    if (status == 0)
        status = serve(g, &reached);
    if (status != 0)
        undo(g, reached);
    return status;
}

static void give_up(group *g) {
    atomic_store(&g->pool->enters_group, false);
    group_close(g);
    group_unmap(g);
}

static void keep(group *g) {
    atomic_store(&g->pool->group, g);
    atomic_store(&g->pool->enters_group, false);
}

/* The folder, and memory for the group. Return: 0 or a uswap_status. */
static int begin(uswap_pool *pool, const char *folder, group **made, uswap_error *err) {
    /* Between two forks: the family that a fork makes is of a named pool, or is not. */
    fork_hold();
    bool free = !atomic_load(&pool->group) && !atomic_load(&pool->family);
    atomic_store(&pool->enters_group, free);
    fork_allow();
    if (!free)
        return error_set(err, USWAP_E_INVALID, 0, "join", folder,
                         atomic_load(&pool->group) ? "the pool is in a named pool already"
                                                   : "processes have been forked off with the pool's memory");
    group *g = strlen(folder) < GROUP_PATH_BYTES ? group_new(pool) : NULL;
    if (!g) {
        atomic_store(&pool->enters_group, false);
        if (strlen(folder) >= GROUP_PATH_BYTES)
            return error_set(err, USWAP_E_INVALID, 0, "join", folder, "the path of the folder is too long");
        return group_os_failure(err, "mmap", NULL, -ENOMEM);
    }
    strcpy(g->folder, folder);
    g->folder_fd = peer_folder_open(folder);
    if (g->folder_fd < 0) {
        int status = group_explain(g->folder, g->folder_fd, err);
        give_up(g);
        return status;
    }
    *made = g;
    return 0;
}

int group_create(uswap_pool *pool, const char *folder, uint64_t limit_bytes, const char *swap_folder,
                 bool map_for_peers, uswap_error *err) {
    group *g;
    int status = begin(pool, folder, &g, err);
    if (status != 0)
        return status;
    g->map_for_peers = map_for_peers;
    if (peer_sockets_clean(g->folder_fd, folder) > 0)
        status = error_set(err, USWAP_E_BUSY, 0, "group", folder, "a pool of that name has living processes");
    if (status == 0)
        status = make_commons(g, limit_bytes, swap_folder, err);
    if (status == 0)
        status = shrink_to_floor(g, err);
    if (status == 0)
        status = enter(g, NULL, NULL, err);
    if (status == 0)
        keep(g);
    else
        give_up(g);
    return status;
}

int group_join(uswap_pool *pool, const char *folder, uswap_error *err) {
    group *g;
    peer_answer answer;
    peer_fds known;
    int status = begin(pool, folder, &g, err);
    if (status != 0)
        return status;
    status = find_commons(g, &answer, &known, err);
    if (status == 0) {
        status = shrink_to_floor(g, err);
        if (status == 0)
            status = enter(g, &answer, &known, err);
        peer_fds_close(&known);
    }
    if (status == 0)
        keep(g);
    else
        give_up(g);
    return status;
}

/* ---- going ---- */

/* Whether nobody else is in it; then the folder goes too. What a program has put there itself stays. */
static bool is_last(const group *g, bool found) {
    if (!found || peer_sockets_clean(g->folder_fd, g->folder) > 0)
        return false;
    if (rmdir(g->folder) == 0)
        return true;
    peer_socket one;
    return peer_sockets(g->folder, &one, 1) <= 0;
}

int group_leave(uswap_pool *pool, uswap_error *err) {
    group *g = atomic_load(&pool->group);
    if (!g)
        return error_set(err, USWAP_E_INVALID, 0, "leave", NULL, "the pool is in no named pool");
    for (uint32_t i = 0; i < OBJECTS_MAX; i++)
        if (atomic_load(&g->regions[i].live))
            return error_set(err, USWAP_E_BUSY, 0, "leave", g->folder, "shared regions of the pool are still in use");
    family_part_from_group(pool);
    atomic_store(&pool->near_distance, 0);
    bool found = g->found;
    undo(g, STAGE_EVICTIONS);
    bool last = !family_expects(pool, g) && is_last(g, found);
    group_retire(g);
    return last;
}

/* A thread may have looked at pool.group, or pool.family, just before (grants_want). */
void group_retire(group *g) {
    group_close(g);
    g->former = g->pool->former;
    g->pool->former = g;
}
