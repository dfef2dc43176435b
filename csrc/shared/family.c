#define _GNU_SOURCE
#include "shared/family.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "pool.h"
#include "shared/group_info.h"
#include "shared/peers.h"
#include "swap/holders.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

/* So long a fork waits for others to give back what its child needs, or for the owner of an area to take note of a death. */
#define PLACE_PATIENCE_NS UINT64_C(2000000000)
/* What gives no sign (pages that are unlocked, an owner that has died) is looked at again after this. */
#define PLACE_LOOK_NS UINT64_C(20000000)

/* ---- made and left ---- */

static int fill(group *g) {
    uint64_t limit_bytes = atomic_load(&g->pool->frames.budget->limit_frames) << PAGE_SHIFT;
    int status = commons_create(&g->commons, limit_bytes);
    if (status == 0)
        status = members_join(g);
    if (status != 0)
        return status;
    g->floor_chunks = group_chunks_for(g, RESERVE_FRAMES + LEAST_FAULT_FRAMES + g->pool->bounce_frames);
    grants_take(g, CHUNKS_MAX);
    members_announce(g);
    return peers_start(g);
}

int family_make(uswap_pool *pool) {
    if (atomic_load(&pool->family))
        return 0;
    group *g = group_new(pool);
    if (!g)
        return -ENOMEM;
    g->is_family = true;
    int status = fill(g);
    if (status != 0) {
        peers_stop(g);
        group_retire(g);
        return status;
    }
    pool->family_member = g->self.value;
    atomic_store(&pool->family, g);
    return 0;
}

static void close_one(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_life_lines(group *g) {
    close_one(&g->life_line);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        close_one(&g->children[i].life_line);
}

void family_leave(uswap_pool *pool) {
    group *g = atomic_load(&pool->family);
    if (!g)
        return;
    atomic_store(&pool->family, NULL);
    peers_stop(g);
    grants_give(g, CHUNKS_MAX);
    members_leave(g);
    close_life_lines(g);
    group_retire(g);
}

/* ---- tended ---- */

static bool has_closed(int life_line) {
    struct pollfd ready = {.fd = life_line};
    return poll(&ready, 1, 0) > 0;
}

/* Children whose process image is gone: dead, or another program by now; or they have never been. */
static void look_at_children(group *g) {
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        family_child *child = &g->children[i];
        if (child->life_line < 0 || !has_closed(child->life_line))
            continue;
        if (!members_void(g, child->id, g->self))
            members_mark_dead(g, child->id);
        close_one(&child->life_line);
        child->id = MEMBER_NONE;
    }
}

static bool is_alone(const group *g) {
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (i != member_index(g->self) && peer_at(g, i).value != 0)
            return false;
    return true;
}

/* Context: tend_lock held. */
static void look(group *g) {
    look_at_children(g);
    members_void_orphans(g);
    peers_bury_dead(g);
    holders_look(g->pool, g);
    if (is_alone(g))
        atomic_store(&g->pool->lendable_slots, 0);
}

void family_tend(group *g) {
    small_lock_acquire(&g->tend_lock);
    look(g);
    if (clock_now_ns() >= grants_due_ns(g))
        grants_tend(g);
    small_lock_release(&g->tend_lock);
    if (holders_due(g->pool)) {
        gate_enter(&g->pool->gate);
        holders_sweep(g->pool);
        gate_leave(&g->pool->gate);
    }
}

static void wake_tender(group *g) {
    uint64_t one = 1;
    ssize_t ignored = write(g->peer_wake_fd, &one, sizeof one);
    (void)ignored;
}

/* ---- a place for a child ---- */

static void give_back(family_place *place) {
    members_void(place->family, place->child, place->parent);
    grants_take_back(place->family, place->child);
    close_one(&place->life_line[0]);
    close_one(&place->life_line[1]);
}

/* Return: 0; -EAGAIN: not yet. Context: tend_lock held. */
static int try_place(group *g, family_place *place) {
    look(g);
    if (place->child.value == 0)
        place->child = members_reserve(g);
    if (place->child.value == 0)
        return -EUSERS;
    if (group_least_chunks(g) > atomic_load(&commons_head(&g->commons)->limit_chunks))
        return -ENOMEM;
    bool free = holders_may_begin(g->pool, g, place->child.value);
    return free && grants_can_endow(g) >= place->chunks ? 0 : -EAGAIN;
}

int family_take_place(uswap_pool *pool, uint64_t frames, family_place *place) {
    int status = family_make(pool);
    if (status != 0)
        return status;
    group *g = atomic_load(&pool->family);
    *place = (family_place){.family = g, .parent = g->self, .life_line = {-1, -1}};
    place->chunks = g->floor_chunks + group_chunks_for(g, frames);
    uint64_t deadline = clock_now_ns() + PLACE_PATIENCE_NS;
    event *given = &commons_head(&g->commons)->chunks_given;
    for (;;) {
        uint32_t seen = event_count(given);
        small_lock_acquire(&g->tend_lock);
        status = try_place(g, place);
        if (status != -EAGAIN || clock_now_ns() > deadline)
            break;
        small_lock_release(&g->tend_lock);
        event_wait_shared(given, seen, PLACE_LOOK_NS);
    }
    if (status == 0 && pipe2(place->life_line, O_CLOEXEC) != 0)
        status = -errno;
    if (status != 0)
        family_give_up(place);
    return status;
}

bool family_endow(const family_place *place) {
    return FAILPOINT(fork_endow) == 0 && grants_endow(place->family, place->child, place->chunks);
}

void family_give_up(family_place *place) {
    group *g = place->family;
    if (place->child.value != 0)
        give_back(place);
    small_lock_release(&g->tend_lock);
    wake_tender(g);
}

void family_in_parent(family_place *place) {
    group *g = place->family;
    close_one(&place->life_line[1]);
    g->children[member_index(place->child)] = (family_child){.id = place->child, .life_line = place->life_line[0]};
    small_lock_release(&g->tend_lock);
    wake_tender(g);
}

/* ---- the child ---- */

void family_in_child(uswap_pool *pool, const family_place *place) {
    group *g = atomic_load(&pool->family);
    if (!g)
        return;
    close_life_lines(g);
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        close_one(&g->peers[i].pidfd);
        g->peers[i] = (peer){.uffd = -1, .pidfd = -1};
        g->children[i].id = MEMBER_NONE;
    }
    close_one(&g->peer_wake_fd);
    g->tend_lock = g->peers_lock = g->regions_lock = g->files_lock = (small_lock){0};
    g->peers_state = NULL; /* the parent's; it was not inherited, or is left where it is */
    g->tending = NULL;
    atomic_store(&g->pressed, 0);
    if (place) {
        close(place->life_line[0]);
        g->life_line = place->life_line[1];
    } else {
        close_one(&g->commons.fd);
    }
}

int family_claim(const family_place *place) {
    group *g = place->family;
    if (!members_claim(g, place->child, place->parent))
        return -ESRCH;
    g->pool->family_member = g->self.value;
    return 0;
}

int family_start(const family_place *place) {
    group *g = place->family;
    members_announce(g);
    return peers_start(g);
}

void family_resign(const family_place *place) {
    group *g = place->family;
    if (!members_void(g, place->child, place->parent))
        members_mark_dead(g, place->child);
    atomic_store(&g->pool->family, NULL);
    peers_stop(g);
    close_life_lines(g);
    close_one(&g->commons.fd);
}
