/*
 * peers_answer.c - what a member answers to others.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "shared/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int add(peer_fds *fds, int fd) {
    int copy = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (copy < 0)
        return -EMFILE;
    fds->fd[fds->count++] = copy;
    return 0;
}

static int answer_hello(group *g, peer_answer *answer, peer_fds *fds) {
    int status = FAILPOINT(peer_hello);
    if (status == 0)
        status = add(fds, g->commons.fd);
    if (status == 0)
        status = add(fds, g->swap_fd);
    answer->map_for_peers = g->map_for_peers;
    if (status == 0)
        peers_tell(g, answer, fds);
    return status;
}

/* The id is checked against the commons: it must be a member's whose process that is. */
static int answer_joined(group *g, const peer_request *request, uint32_t pid, peer_answer *answer, peer_fds *fds,
                         peer_fds *with) {
    member_id id = {(uint16_t)request->member};
    int status = FAILPOINT(peer_joined);
    if (status != 0)
        return status;
    if (with->count != 1 || !member_equal(peer_at(g, member_index(id)), id) || peer_socket_of(g, id).pid != pid)
        return -EINVAL;
    peers_learn(g, id, peer_fds_take(with, 0));
    peers_tell(g, answer, fds);
    return 0;
}

static int answer_want_uffd(group *g, const peer_request *request, peer_answer *answer, peer_fds *fds) {
    int uffd = peers_uffd_of(g, (member_id){(uint16_t)request->subject});
    if (uffd < 0)
        return uffd;
    fds->fd[fds->count++] = uffd;
    answer->member_of[answer->members++] = (uint16_t)request->subject;
    return 0;
}

static int answer_want_object(group *g, const peer_request *request, peer_fds *fds) {
    shared_region *r = request->subject < OBJECTS_MAX ? shared_region_get(g, request->subject) : NULL;
    if (!r)
        return -ENOENT;
    int status = r->generation == request->generation ? add(fds, r->fd) : -ENOENT;
    shared_region_put(r);
    return status;
}

static int answer_request(group *g, const peer_request *request, uint32_t pid, peer_answer *answer, peer_fds *fds,
                          peer_fds *with) {
    if (request->magic != PEER_MAGIC || request->version != PEER_VERSION || request->layout != peer_layout())
        return -EPROTO;
    if (request->kind == PEER_LOOK)
        return add(fds, g->commons.fd);
    if (request->pid != pid) /* of another pid namespace: nobody here could see it die */
        return -EXDEV;
    switch (request->kind) {
    case PEER_HELLO:
        return answer_hello(g, answer, fds);
    case PEER_JOINED:
        return answer_joined(g, request, pid, answer, fds, with);
    case PEER_WANT_UFFD:
        return answer_want_uffd(g, request, answer, fds);
    case PEER_WANT_OBJECT:
        return answer_want_object(g, request, fds);
    default:
        return -EINVAL;
    }
}

/* Return: false: the request has not come yet. */
static bool serve(group *g, const visitor *v) {
    peer_request request;
    peer_fds with, fds = {0};
    peer_answer answer = {
        .magic = PEER_MAGIC, .version = PEER_VERSION, .layout = peer_layout(), .member = g->self.value};
    int status = peer_receive(v->fd, &request, sizeof request, &with);
    if (status == -EAGAIN)
        return false;
    if (status == -EPIPE)
        return true;
    answer.status = status == 0 ? answer_request(g, &request, v->pid, &answer, &fds, &with) : status;
    if (answer.status != 0) {
        peer_fds_close(&fds);
        answer.members = 0;
    }
    peer_send(v->fd, &answer, sizeof answer, &fds); /* refused: it has gone, or will ask again */
    peer_fds_close(&fds);
    peer_fds_close(&with);
    return true;
}

static void dismiss(visitor *v) {
    close(v->fd);
    v->fd = -1;
}

/* The chair of who has been silent for longest, if all are taken. */
static visitor *free_chair(peers_state *state) {
    visitor *oldest = &state->visitors[0];
    for (int i = 0; i < VISITORS_MAX; i++) {
        if (state->visitors[i].fd < 0)
            return &state->visitors[i];
        if (state->visitors[i].since_ns < oldest->since_ns)
            oldest = &state->visitors[i];
    }
    dismiss(oldest);
    return oldest;
}

static void let_in(group *g) {
    uint32_t pid = 0;
    int fd;
    for (int i = 0; i < PEER_BACKLOG && (fd = peer_accept(g->listen_fd, &pid)) != -EAGAIN; i++) {
        if (fd == -EPERM)
            continue; /* another user's */
        if (fd < 0)
            break; /* no descriptor to be had: they wait in the backlog */
        visitor now = {.fd = fd, .pid = pid, .since_ns = clock_now_ns()};
        if (serve(g, &now))
            dismiss(&now);
        else
            *free_chair(g->peers_state) = now;
    }
}

void peers_answer(group *g) {
    let_in(g);
    for (int i = 0; i < VISITORS_MAX; i++) {
        visitor *v = &g->peers_state->visitors[i];
        if (v->fd >= 0 && (serve(g, v) || clock_now_ns() > v->since_ns + VISITOR_PATIENCE_NS))
            dismiss(v);
    }
}

void peers_answer_end(group *g) {
    for (int i = 0; i < VISITORS_MAX; i++)
        if (g->peers_state->visitors[i].fd >= 0)
            dismiss(&g->peers_state->visitors[i]);
}
