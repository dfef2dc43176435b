#define _GNU_SOURCE
#include "shared/family.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "pool.h"
#include "shared/group_info.h"
#include "shared/life_lock.h"
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
    if (status != 0)
        return status;
    g->floor_chunks = group_chunks_for(g, RESERVE_FRAMES + LEAST_FAULT_FRAMES + g->pool->bounce_frames);
    if ((status = members_join(g)) != 0)
        return status;
    if (!g->beside)
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
    g->beside = atomic_load(&pool->group) != NULL;
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

group *family_limiter(const uswap_pool *pool) {
    group *named = atomic_load_explicit(&pool->group, memory_order_acquire);
    group *family = atomic_load_explicit(&pool->family, memory_order_acquire);
    return named ? named : family && !family->beside ? family : NULL;
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

void family_part_from_group(uswap_pool *pool) {
    group *g = atomic_load(&pool->family);
    if (g)
        small_lock_acquire(&g->tend_lock);
    atomic_store(&pool->group, NULL);
    if (g)
        small_lock_release(&g->tend_lock);
}

/* ---- tended ---- */

static bool has_closed(int life_line) {
    struct pollfd ready = {.fd = life_line};
    return poll(&ready, 1, 0) > 0;
}

static void wake_tender(group *g) {
    uint64_t one = 1;
    ssize_t ignored = write(g->peer_wake_fd, &one, sizeof one);
    (void)ignored;
}

/* Whether it has claimed the place or not. */
static void end_life(group *g, member_id child, member_id parent) {
    if (!members_void(g, child, parent))
        members_mark_dead(g, child);
}

/* Children whose process image is gone: dead, or another program by now; or they have never been. Context: tend_lock held, so the pool does not leave
 * its named pool meanwhile. */
static void look_at_children(group *g) {
    group *named = atomic_load(&g->pool->group);
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        family_child *child = &g->children[i];
        if (child->life_line < 0 || !has_closed(child->life_line))
            continue;
        end_life(g, child->id, g->self);
        if (named && child->in_pool.value != 0) {
            end_life(named, child->in_pool, named->self);
            wake_tender(named);
        }
        close_one(&child->life_line);
        child->id = child->in_pool = MEMBER_NONE;
    }
}

static bool is_alone(const group *g) {
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (i != member_index(g->self) && peer_at(g, i).value != 0)
            return false;
    return true;
}

static bool is_coming(const group *named, const family_child *child) {
    unsigned index = member_index(child->in_pool);
    return child->life_line >= 0 && !has_closed(child->life_line) &&
           member_equal(peer_at(named, index), child->in_pool) && peer_state_at(named, index) == MEMBER_JOINING;
}

bool family_expects(uswap_pool *pool, const group *named) {
    group *g = atomic_load(&pool->family);
    bool any = false;
    if (!g)
        return false;
    small_lock_acquire(&g->tend_lock);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        any |= is_coming(named, &g->children[i]);
    small_lock_release(&g->tend_lock);
    return any;
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

/* ---- a place for a child ---- */

/* In this order. The peer thread of a named pool only tries its own. */
static void lock_tables(const family_place *place) {
    small_lock_acquire(&place->kin.in->tend_lock);
    if (place->pool.in)
        small_lock_acquire(&place->pool.in->tend_lock);
}

static void unlock_tables(const family_place *place) {
    if (place->pool.in)
        small_lock_release(&place->pool.in->tend_lock);
    small_lock_release(&place->kin.in->tend_lock);
}

static void wake_tenders(const family_place *place) {
    wake_tender(place->kin.in);
    if (place->pool.in)
        wake_tender(place->pool.in);
}

static int reserve(family_seat *seat) {
    if (seat->in && seat->child.value == 0)
        seat->child = members_reserve(seat->in);
    return seat->in && seat->child.value == 0 ? -EUSERS : 0;
}

static void give_back(const family_seat *seat) {
    if (!seat->in || seat->child.value == 0)
        return;
    members_void(seat->in, seat->child, seat->parent);
    grants_take_back(seat->in, seat->child);
}

/* What is wanting may be what the dead still have: as long as they are not buried it is only wanting yet. */
static int unless_dead(const group *g, int status) {
    member_id dead[MEMBERS_MAX];
    return members_unburied(g, dead) > 0 ? -EAGAIN : status;
}

/* Return: 0; -EAGAIN: not yet. Context: each tend_lock held. */
static int try_place(family_place *place) {
    group *family = place->kin.in, *limiter = family_limited_by(place)->in;
    look(family);
    if (reserve(&place->kin) != 0)
        return unless_dead(family, -EUSERS);
    if (reserve(&place->pool) != 0)
        return unless_dead(place->pool.in, -EUSERS);
    if (group_least_chunks(limiter) > commons_limit_chunks(&limiter->commons))
        return unless_dead(limiter, -ENOMEM);
    uint64_t chunks = grants_begin_endow(limiter, family_limited_by(place)->child, place->chunks);
    bool free = holders_may_begin(family->pool, family, place->kin.child.value);
    return free && chunks >= place->chunks ? 0 : -EAGAIN;
}

static family_seat seat_in(group *g) {
    return (family_seat){.in = g, .parent = g ? g->self : MEMBER_NONE};
}

int family_take_place(uswap_pool *pool, uint64_t frames, family_place *place) {
    int status = family_make(pool);
    if (status != 0)
        return status;
    group *g = atomic_load(&pool->family), *named = atomic_load(&pool->group);
    if (g->beside != (named != NULL))
        return -ENXIO;
    *place = (family_place){.kin = seat_in(g), .pool = seat_in(named), .life_line = {-1, -1}};
    group *limiter = family_limited_by(place)->in;
    place->chunks = limiter->floor_chunks + group_chunks_for(limiter, frames);
    uint64_t deadline = clock_now_ns() + PLACE_PATIENCE_NS;
    event *given = &commons_head(&limiter->commons)->chunks_given;
    for (;;) {
        uint32_t seen = event_count(given);
        lock_tables(place);
        status = try_place(place);
        if (status != -EAGAIN || clock_now_ns() > deadline)
            break;
        unlock_tables(place);
        if (place->pool.in)
            wake_tender(place->pool.in); /* buries the dead of that table */
        event_wait_shared(given, seen, PLACE_LOOK_NS);
    }
    if (status == 0 && pipe2(place->life_line, O_CLOEXEC) != 0)
        status = -errno;
    if (status != 0)
        family_give_up(place);
    return status;
}

bool family_endow(const family_place *place) {
    const family_seat *seat = family_limited_by(place);
    return FAILPOINT(fork_endow) == 0 && grants_endow(seat->in, seat->child, place->chunks);
}

void family_give_up(family_place *place) {
    give_back(&place->kin);
    give_back(&place->pool);
    close_one(&place->life_line[0]);
    close_one(&place->life_line[1]);
    unlock_tables(place);
    wake_tenders(place);
}

void family_in_parent(family_place *place) {
    close_one(&place->life_line[1]);
    place->kin.in->children[member_index(place->kin.child)] =
        (family_child){.id = place->kin.child, .in_pool = place->pool.child, .life_line = place->life_line[0]};
    unlock_tables(place);
    wake_tenders(place);
}

/* ---- the child ---- */

void family_in_child(uswap_pool *pool, const family_place *place) {
    group *g = atomic_load(&pool->family);
    if (!g)
        return;
    close_life_lines(g);
    g->life_lock = NULL; /* not in this memory */
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        close_one(&g->peers[i].pidfd);
        g->peers[i] = (peer){.uffd = -1, .pidfd = -1};
        g->children[i].id = g->children[i].in_pool = MEMBER_NONE;
    }
    close_one(&g->peer_wake_fd);
    g->tend_lock = g->peers_lock = g->regions_lock = g->files_lock = g->leave_lock = g->protect_lock = (small_lock){0};
    g->share_lock = g->open_lock = (small_lock){0};
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
    group *g = place->kin.in;
    if (!members_claim(g, place->kin.child, place->kin.parent))
        return -ESRCH;
    g->pool->family_member = g->self.value;
    FAILPOINT(fork_half);
    if (place->pool.in && !members_claim(place->pool.in, place->pool.child, place->pool.parent))
        return -ESRCH;
    return 0;
}

int family_start(const family_place *place) {
    group *g = place->kin.in;
    members_announce(g);
    return peers_start(g);
}

void family_resign(const family_place *place) {
    group *g = place->kin.in;
    end_life(g, place->kin.child, place->kin.parent);
    if (place->pool.in)
        end_life(place->pool.in, place->pool.child, place->pool.parent);
    atomic_store(&g->pool->family, NULL);
    peers_stop(g);
    close_life_lines(g);
    life_lock_let_go(g->life_lock);
    g->life_lock = NULL;
    close_one(&g->commons.fd);
}
