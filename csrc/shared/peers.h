/*
 * peers.h - what the files about a group's members share: peers.c (the thread), peers_known.c (who is known), peers_answer.c (who asks),
 * peers_ask.c (whom this process asks).
 */
#ifndef USWAP_SHARED_PEERS_H
#define USWAP_SHARED_PEERS_H

#include "shared/group.h"
#include "shared/peers_socket.h"

/* Connections whose request has not come yet: their process has been stopped, or killed, in between. */
#define VISITORS_MAX 64
#define VISITOR_PATIENCE_NS UINT64_C(2000000000)
/* Descriptors of the dead: a thread may still have the number. */
#define GRAVES_MAX 64
/* A descriptor that nobody could give is asked for again after this. */
#define ASK_AGAIN_NS UINT64_C(50000000)

typedef struct {
    int fd; /* -1: free */
    uint32_t pid;
    uint64_t since_ns;
} visitor;

typedef struct peers_state {
    bool started;
    _Atomic uint32_t stop;
    visitor visitors[VISITORS_MAX]; /* peer thread only, as asked_ns */
    uint64_t asked_ns[MEMBERS_MAX];
    bool untended;           /* somebody forks, and has the tend_lock; peer thread only */
    _Atomic bool unmended;   /* what a dead member left is not mended yet: somebody has it just now */
    _Atomic uint64_t wanted; /* a bit a member index whose uffd somebody needs */
    int graves[GRAVES_MAX];  /* under peers_lock; 0: none */
    uint32_t next_grave;
} peers_state;

/* Who has the place now, by the commons; NONE: nobody. */
member_id peer_at(const group *g, unsigned index);
member_state peer_state_at(const group *g, unsigned index);
peer_socket peer_socket_of(const group *g, member_id id);

/* Everybody who has died. Context: the peer thread; of a family, who holds its tend_lock. */
void peers_bury_dead(group *g);
/* In a forked child: the thread is not there, what it had open is. */
void peers_in_child(group *g);

/* ---- peers_known.c ---- */

/* The member's uffd, ours from now on; closed if the member is gone or its uffd known. */
void peers_learn(group *g, member_id id, int uffd);
/* All that came with an answer. */
void peers_learn_all(group *g, const peer_answer *answer, peer_fds *fds);
/* Adds the descriptors that are known, duplicated so that they stay good, and whose they are. */
void peers_tell(group *g, peer_answer *answer, peer_fds *fds);
/* A duplicate of the member's uffd; -ENOENT. */
int peers_uffd_of(group *g, member_id id);
/* Nobody is known there any more. Context: peers_lock held. */
void peers_forget(group *g, unsigned index);
/* Opens pidfds of those who are new, forgets those who have left, says who is dead or being buried. Return: how many, in dead[]: by id, as the
 * places may be others' by the time they are buried. */
unsigned peers_look(group *g, member_id dead[MEMBERS_MAX]);

/* ---- peers_answer.c ---- */

/* Lets in who waits at the door, and answers whoever has asked. Context: peer thread. */
void peers_answer(group *g);
void peers_answer_end(group *g);

/* ---- peers_ask.c ---- */

/* Asks for descriptors that somebody wants. Context: peer thread. */
void peers_ask_wanted(group *g);
/* Gives this member's uffd to all others, and learns theirs. */
void peers_introduce(group *g);

#endif
