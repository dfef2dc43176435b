/*
 * peers.c - the thread that keeps up with the other members: answers them, sees them die, tends this member's part of the limit.
 *
 * It holds no lock while it waits, calls no malloc, and no step of it waits for another member: so it goes on whatever they do.
 */
#define _GNU_SOURCE
#include "shared/peers.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "fault/uffd.h"
#include "pool.h"
#include "shared/family.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STACK_BYTES ((size_t)256 << 10)
/* What is left by the dead is looked at again after this, if somebody was at it. */
#define MEND_AGAIN_NS UINT64_C(1000000)
/* Its part of the limit is looked at again after this, if a thread was forking. */
#define TEND_AGAIN_NS UINT64_C(1000000)
/* Descriptors that the thread waits for: its own, the members', and the visitors'. */
#define POLLED_MAX (2 + 2 * MEMBERS_MAX + VISITORS_MAX)

/* Whoever is about to wait for the dead member's pages, of this process: they look again. */
static void wake_own_waiters(group *g) {
    for (uint32_t i = 0; i < OBJECTS_MAX; i++) {
        if (!atomic_load_explicit(&g->regions[i].live, memory_order_relaxed))
            continue;
        shared_region *r = shared_region_get(g, i);
        if (!r)
            continue;
        uffd_wake(g->uffd, r->base, r->pages << PAGE_SHIFT);
        shared_region_put(r);
    }
}

/* Every survivor does this by itself; repair_after may be done by any number of them. */
static void bury(group *g, member_id id) {
    FAILPOINT(peer_death);
    unsigned index = member_index(id);
    peer_socket socket = peer_socket_of(g, id);
    members_mark_dead(g, id);
    bool mended = repair_after(g, id);
    if (!mended)
        atomic_store(&g->peers_state->unmended, true);
    wake_own_waiters(g);
    if (!mended)
        return;
    if (!g->is_family)
        peer_socket_remove(g->folder_fd, socket);
    small_lock_acquire(&g->peers_lock);
    if (atomic_load(&g->peers[index].id) == id.value && !member_equal(peer_at(g, index), id))
        peers_forget(g, index);
    small_lock_release(&g->peers_lock);
}

void peers_bury_dead(group *g) {
    member_id dead[MEMBERS_MAX];
    unsigned count = peers_look(g, dead);
    atomic_store(&g->peers_state->unmended, false);
    for (unsigned i = 0; i < count; i++)
        bury(g, dead[i]);
}

/* Of members and children. Under their locks: a thread that forks changes both. What it closes after that, the next turn sees. */
static nfds_t gather_lives(group *g, struct pollfd *polled) {
    nfds_t count = 0;
    small_lock_acquire(&g->peers_lock);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (g->peers[i].pidfd >= 0)
            polled[count++] = (struct pollfd){.fd = g->peers[i].pidfd, .events = POLLIN};
    small_lock_release(&g->peers_lock);
    if (!g->is_family)
        return count;
    small_lock_acquire(&g->tend_lock);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (g->children[i].life_line >= 0)
            polled[count++] = (struct pollfd){.fd = g->children[i].life_line};
    small_lock_release(&g->tend_lock);
    return count;
}

/* Return: how many. */
static nfds_t gather(group *g, struct pollfd *polled) {
    nfds_t count = 0;
    polled[count++] = (struct pollfd){.fd = g->listen_fd, .events = POLLIN};
    polled[count++] = (struct pollfd){.fd = g->peer_wake_fd, .events = POLLIN};
    count += gather_lives(g, polled + count);
    for (int i = 0; i < VISITORS_MAX; i++)
        if (g->peers_state->visitors[i].fd >= 0)
            polled[count++] = (struct pollfd){.fd = g->peers_state->visitors[i].fd, .events = POLLIN};
    return count;
}

static void wait(group *g) {
    struct pollfd polled[POLLED_MAX];
    uint64_t now = clock_now_ns(), due = grants_due_ns(g), count;
    if (atomic_load(&g->peers_state->unmended))
        due = MIN_OF(due, now + MEND_AGAIN_NS);
    if (g->peers_state->untended)
        due = MAX_OF(due, now + TEND_AGAIN_NS);
    struct timespec left = {.tv_nsec = due > now ? (long)MIN_OF(due - now, UINT64_C(100000000)) : 0};
    ppoll(polled, gather(g, polled), &left, NULL);
    ssize_t ignored = read(g->peer_wake_fd, &count, sizeof count);
    (void)ignored;
}

/* Who forks has the lock for as long as its pages leave; others are answered meanwhile. */
static void tend(group *g) {
    g->peers_state->untended = false;
    if (clock_now_ns() < grants_due_ns(g))
        return;
    if (!small_lock_try(&g->tend_lock)) {
        g->peers_state->untended = true;
        return;
    }
    grants_tend(g);
    small_lock_release(&g->tend_lock);
}

static void *run(void *argument) {
    group *g = argument;
    prctl(PR_SET_NAME, "uswap-peer");
    while (!atomic_load(&g->peers_state->stop)) {
        wait(g);
        if (g->is_family) {
            family_tend(g);
            continue;
        }
        members_void_orphans(g);
        peers_bury_dead(g);
        peers_answer(g);
        peers_ask_wanted(g);
        tend(g);
    }
    return NULL;
}

static int make_state(group *g) {
    g->peers_state = memory_map(sizeof *g->peers_state);
    g->peer_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!g->peers_state || g->peer_wake_fd < 0)
        return g->peers_state ? -errno : -ENOMEM;
    madvise(g->peers_state, sizeof *g->peers_state, MADV_DOFORK);
    for (int i = 0; i < VISITORS_MAX; i++)
        g->peers_state->visitors[i].fd = -1;
    return 0;
}

static void shut_door(group *g) {
    if (g->listen_fd < 0)
        return;
    peer_socket_remove(g->folder_fd, peer_socket_of(g, g->self));
    close(g->listen_fd);
    g->listen_fd = -1;
    g->found = false;
}

/* A forked child may find no folder any more, or another pool in it: nobody finds it then. Others look after they listen, too. */
static int open_door(group *g) {
    int status = g->listen_fd = peer_listen(g->folder_fd, peer_socket_of(g, g->self));
    g->found = status >= 0;
    if (g->born && status == -ENOENT && peer_folder_gone(g->folder_fd))
        return 0;
    if (g->born && status >= 0 && group_is_displaced(g))
        shut_door(g);
    return MIN_OF(status, 0);
}

int peers_start(group *g) {
    int status = make_state(g);
    if (status == 0)
        status = grants_tend_init(g);
    if (status == 0 && !g->is_family)
        status = open_door(g);
    if (status < 0)
        return status;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    status = pthread_create(&g->peer_thread, &attributes, run, g);
    pthread_attr_destroy(&attributes);
    g->peers_state->started = status == 0;
    /* After it listens: of two that join at once, one sees the other's socket. */
    if (status == 0 && !g->is_family)
        peers_introduce(g);
    return -status;
}

static void close_graves(peers_state *state) {
    for (int i = 0; i < GRAVES_MAX; i++) {
        if (state->graves[i] > 0)
            close(state->graves[i]);
        state->graves[i] = 0;
    }
}

void peers_in_child(group *g) {
    if (!g->peers_state)
        return;
    peers_answer_end(g);
    close_graves(g->peers_state);
}

void peers_halt(group *g) {
    peers_state *state = g->peers_state;
    if (!state || !state->started)
        return;
    uint64_t one = 1;
    atomic_store(&state->stop, 1);
    ssize_t ignored = write(g->peer_wake_fd, &one, sizeof one);
    (void)ignored;
    pthread_join(g->peer_thread, NULL);
    state->started = false;
}

void peers_stop(group *g) {
    peers_state *state = g->peers_state;
    peers_halt(g);
    shut_door(g);
    if (state) {
        peers_answer_end(g);
        for (unsigned i = 0; i < MEMBERS_MAX; i++)
            peers_forget(g, i);
        close_graves(state);
        memory_unmap(state, sizeof *state);
        g->peers_state = NULL;
    }
    grants_tend_fini(g);
}
