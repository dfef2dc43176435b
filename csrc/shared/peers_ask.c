/*
 * peers_ask.c - what a member asks others for: descriptors that it has not got.
 *
 * Any member that has it will do, so whoever does not answer is passed over: a stopped one, one that is just dying.
 */
#include "shared/peers.h"

#include <errno.h>
#include <unistd.h>

/* Who has not looked around for so long is stopped, or waits for a disk: asked all the same, but not waited for. */
#define SILENT_NS UINT64_C(500000000)
#define SILENT_PATIENCE_NS UINT64_C(10000000)

static bool can_be_asked(const group *g, unsigned index, member_id *id) {
    member_state state = peer_state_at(g, index);
    *id = peer_at(g, index);
    return (state == MEMBER_LIVE || state == MEMBER_JOINING) && id->value != 0 && !member_equal(*id, g->self);
}

static int ask(group *g, member_id whom, const peer_request *request, const peer_fds *with, peer_answer *answer,
               peer_fds *fds, void (*meanwhile)(void *)) {
    uint64_t now = clock_now_ns(), beat = atomic_load(&group_entry(g, whom)->beat_ns);
    uint64_t patience = beat == 0 || now < beat + SILENT_NS ? PEER_PATIENCE_NS : SILENT_PATIENCE_NS;
    return peer_ask(g->folder_fd, peer_socket_of(g, whom), request, with, answer, fds, now + patience, meanwhile, g);
}

void peers_introduce(group *g) {
    peer_request request = peer_request_of(PEER_JOINED, g->self, 0);
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        member_id id;
        peer_answer answer;
        peer_fds with = {.count = 1, .fd = {g->uffd}}, fds;
        if (!can_be_asked(g, i, &id) || ask(g, id, &request, &with, &answer, &fds, NULL) != 0)
            continue; /* it has the request in its socket, or is dead; or will hear of this member from others */
        peers_learn_all(g, &answer, &fds);
        peer_fds_close(&fds);
    }
}

/* Others answer each other at the same time: nobody who asks leaves those waiting that ask him. */
static void answer_meanwhile(void *argument) {
    peers_answer(argument);
}

/* Return: whether it is known now. */
static bool ask_for_uffd(group *g, member_id wanted, member_id whom) {
    peer_request request = peer_request_of(PEER_WANT_UFFD, g->self, wanted.value);
    peer_answer answer;
    peer_fds fds;
    if (ask(g, whom, &request, NULL, &answer, &fds, answer_meanwhile) != 0)
        return false;
    peers_learn_all(g, &answer, &fds);
    peer_fds_close(&fds);
    return answer.members > 0;
}

/* Itself first, who has it for sure; then the others. */
static bool find_uffd(group *g, member_id wanted) {
    bool found = ask_for_uffd(g, wanted, wanted);
    for (unsigned i = 0; i < MEMBERS_MAX && !found; i++) {
        member_id id;
        found = can_be_asked(g, i, &id) && !member_equal(id, wanted) && ask_for_uffd(g, wanted, id);
    }
    return found;
}

void peers_ask_wanted(group *g) {
    peers_state *state = g->peers_state;
    uint64_t wanted = atomic_exchange(&state->wanted, 0), now = clock_now_ns();
    for (unsigned i = 0; wanted >> i; i++) {
        member_id id;
        if (!(wanted >> i & 1) || !can_be_asked(g, i, &id))
            continue;
        int known = peers_uffd_of(g, id);
        if (known >= 0) {
            close(known);
        } else if (now < state->asked_ns[i] + ASK_AGAIN_NS) {
            atomic_fetch_or(&state->wanted, UINT64_C(1) << i);
        } else {
            find_uffd(g, id); /* if not: whoever needs it will say so again */
            state->asked_ns[i] = clock_now_ns();
        }
        if (wanted >> i == 1)
            break;
    }
}

static int object_from(group *g, member_id whom, const peer_request *request) {
    peer_answer answer;
    peer_fds fds;
    int status = ask(g, whom, request, NULL, &answer, &fds, NULL);
    if (status != 0)
        return status;
    int fd = peer_fds_take(&fds, 0);
    peer_fds_close(&fds);
    return fd >= 0 ? fd : -ENOENT;
}

/* Why nobody has given it, if it is not that nobody has it. */
static bool is_told(int status) {
    return status == -ETIMEDOUT || status == -EMFILE || status == -ENFILE || status == -ENOMEM;
}

int peers_object_fd(group *g, uint32_t object) {
    const object_entry *entry = group_object(g, object);
    peer_request request = peer_request_of(PEER_WANT_OBJECT, g->self, object);
    request.generation = object_generation_of(atomic_load(&entry->state));
    int status = -ENOENT;
    atomic_store(&g->has_files, 1);
    uint64_t mappers = atomic_load(&entry->mappers);
    for (int round = 0; round < 2; round++) /* the mappers first; then whoever has become one meanwhile */
        for (unsigned i = 0; i < MEMBERS_MAX; i++) {
            member_id id;
            if ((mappers >> i & 1) != (round == 0) || !can_be_asked(g, i, &id))
                continue;
            int fd = object_from(g, id, &request);
            if (fd >= 0)
                return fd;
            if (is_told(fd))
                status = fd;
        }
    return status;
}
