/*
 * peers_known.c - which members are known, by id: their descriptors, and whether they are alive.
 */
#define _GNU_SOURCE
#include "shared/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static uint64_t state_word(const group *g, unsigned index) {
    return atomic_load(&commons_head(&g->commons)->members[index].state);
}

member_state peer_state_at(const group *g, unsigned index) {
    return member_state_of(state_word(g, index));
}

member_id peer_at(const group *g, unsigned index) {
    uint64_t word = state_word(g, index);
    return member_state_of(word) == MEMBER_FREE ? MEMBER_NONE : member_id_of(word);
}

peer_socket peer_socket_of(const group *g, member_id id) {
    return (peer_socket){.id = id, .pid = member_pid_of(state_word(g, member_index(id)))};
}

void peers_forget(group *g, unsigned index) {
    peer *known = &g->peers[index];
    peers_state *state = g->peers_state;
    atomic_store(&known->id, 0);
    int uffd = atomic_exchange(&known->uffd, -1), *grave = &state->graves[state->next_grave];
    if (uffd >= 0) {
        if (*grave > 0)
            close(*grave);
        *grave = uffd;
        state->next_grave = (state->next_grave + 1) % GRAVES_MAX;
    }
    if (known->pidfd >= 0)
        close(known->pidfd);
    known->pidfd = -1;
}

/* The place is the member's in what this process knows. Context: peers_lock held. Return: NULL: it is not (any more) the member's. */
static peer *known_as(group *g, member_id id) {
    unsigned index = member_index(id);
    peer *known = &g->peers[index];
    if (!member_equal(peer_at(g, index), id) || member_equal(id, g->self))
        return NULL;
    if (atomic_load(&known->id) != id.value) {
        peers_forget(g, index);
        atomic_store(&known->id, id.value);
    }
    return known;
}

void peers_learn(group *g, member_id id, int uffd) {
    small_lock_acquire(&g->peers_lock);
    peer *known = known_as(g, id);
    if (known && atomic_load(&known->uffd) < 0) {
        atomic_store(&known->uffd, uffd);
        atomic_fetch_and(&g->peers_state->wanted, ~(UINT64_C(1) << member_index(id)));
        uffd = -1;
    }
    small_lock_release(&g->peers_lock);
    if (uffd >= 0)
        close(uffd);
}

void peers_learn_all(group *g, const peer_answer *answer, peer_fds *fds) {
    uint32_t first = fds->count - answer->members;
    for (uint32_t i = 0; i < answer->members; i++)
        peers_learn(g, (member_id){answer->member_of[i]}, peer_fds_take(fds, first + i));
}

int peers_uffd_of(group *g, member_id id) {
    if (member_equal(id, g->self))
        return fcntl(g->uffd, F_DUPFD_CLOEXEC, 0);
    int copy = -ENOENT;
    small_lock_acquire(&g->peers_lock);
    const peer *known = &g->peers[member_index(id)];
    if (atomic_load(&known->id) == id.value && atomic_load(&known->uffd) >= 0)
        copy = fcntl(atomic_load(&known->uffd), F_DUPFD_CLOEXEC, 0);
    small_lock_release(&g->peers_lock);
    return copy < 0 ? -ENOENT : copy;
}

void peers_tell(group *g, peer_answer *answer, peer_fds *fds) {
    for (unsigned i = 0; i < MEMBERS_MAX && fds->count < PEER_FDS_MAX; i++) {
        member_id id = peer_at(g, i);
        int copy = id.value != 0 ? peers_uffd_of(g, id) : -1;
        if (copy < 0)
            continue;
        answer->member_of[answer->members++] = id.value;
        fds->fd[fds->count++] = copy;
    }
}

/* ---- who is alive ---- */

/* The process, if it is the one that joined: another may have its pid by now. Return: descriptor; -ESRCH: it is gone; -EAGAIN: when it was
 * started it has not said yet, or cannot be asked now; -errno: not to be had. */
static int watch(const group *g, member_id id) {
    const member_entry *entry = group_entry(g, id);
    uint32_t pid = member_pid_of(atomic_load(&entry->state));
    uint64_t start_time = atomic_load(&entry->start_time);
    if (start_time == 0)
        return -EAGAIN;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return -errno;
    /* Asked after the descriptor was opened: what it names now is what it names for good. */
    uint64_t found = process_start_time(pid);
    if (found == start_time)
        return pidfd;
    close(pidfd);
    return found == 0 ? -EAGAIN : -ESRCH; /* 0: it has ended, or this process has no descriptor left to ask by */
}

static bool has_ended(int pidfd) {
    struct pollfd ready = {.fd = pidfd, .events = POLLIN};
    return poll(&ready, 1, 0) > 0 && (ready.revents & POLLIN);
}

/* Or is no descriptor any more. */
static bool looks_ended(int pidfd) {
    struct pollfd ready = {.fd = pidfd, .events = POLLIN};
    return poll(&ready, 1, 0) > 0;
}

/* By a descriptor of now. Context: peers_lock held. */
static bool is_dead_now(group *g, member_id id, peer *known) {
    int pidfd = watch(g, id);
    if (pidfd < 0) /* no descriptor to be had: then as members_alive can tell */
        return pidfd == -ESRCH || !members_alive(g, id);
    bool ended = has_ended(pidfd);
    if (ended && known->pidfd >= 0)
        close(pidfd); /* the other one was right: it is closed when the member is forgotten */
    else
        known->pidfd = pidfd;
    return ended;
}

/*
 * Nobody is dead by the word of a descriptor alone: a program may close all that it finds (a daemon; subprocess, between preexec_fn and exec),
 * and the number is another file's then, or none. It is not closed here: it would be that one's.
 */
static bool is_dead(group *g, member_id id) {
    peer *known = known_as(g, id);
    if (!known)
        return false;
    return ((known->pidfd < 0 || looks_ended(known->pidfd)) && is_dead_now(g, id, known)) ||
           members_has_lost_program(g, id);
}

unsigned peers_look(group *g, member_id dead[MEMBERS_MAX]) {
    unsigned count = 0;
    small_lock_acquire(&g->peers_lock);
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        member_id id = peer_at(g, i);
        if (id.value == 0 && atomic_load(&g->peers[i].id) != 0 && i != member_index(g->self))
            peers_forget(g, i);
        if (id.value == 0 || member_equal(id, g->self))
            continue;
        if (peer_state_at(g, i) == MEMBER_DEAD || is_dead(g, id))
            dead[count++] = id;
    }
    small_lock_release(&g->peers_lock);
    return count;
}

int peers_uffd(group *g, unsigned index) {
    member_id id = peer_at(g, index);
    const peer *known = &g->peers[index];
    if (member_equal(id, g->self))
        return g->uffd;
    int uffd = atomic_load(&known->uffd);
    /* Looked at again after the id: the descriptor of who was there before goes after his id. */
    if (uffd >= 0 && atomic_load(&known->id) == id.value && atomic_load(&known->uffd) == uffd)
        return uffd;
    atomic_fetch_or(&g->peers_state->wanted, UINT64_C(1) << index);
    uint64_t one = 1;
    ssize_t ignored = write(g->peer_wake_fd, &one, sizeof one);
    (void)ignored;
    return -1;
}
