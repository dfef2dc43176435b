/*
 * peers_message.h - what members say to each other: one request and one answer a connection, over SOCK_SEQPACKET.
 *
 * A request is complete with one message, descriptors and all: so a stopped member finds it in its socket when it goes on, whatever has
 * become of the sender. Nobody waits for an answer without a deadline.
 */
#ifndef USWAP_SHARED_PEERS_MESSAGE_H
#define USWAP_SHARED_PEERS_MESSAGE_H

#include "shared/commons.h"

#define PEER_MAGIC UINT32_C(0x75777370)
/* Of the messages; the layout of the commons is checked by itself (commons_attach). */
#define PEER_VERSION UINT32_C(1)
/* Every member's uffd, the commons, the swap file. */
#define PEER_FDS_MAX (MEMBERS_MAX + 2)
/* A member that is alive and not stopped answers within this. */
#define PEER_PATIENCE_NS UINT64_C(200000000)

typedef enum {
    PEER_HELLO = 1,      /* => commons, swap file, uffds of members[] */
    PEER_LOOK = 2,       /* => commons, for who wants to look at it */
    PEER_JOINED = 3,     /* with the sender's uffd => uffds of members[] */
    PEER_WANT_UFFD = 4,  /* subject: a member id => its uffd, or -ENOENT */
    PEER_WANT_OBJECT = 5 /* subject: an object's index => its file, or -ENOENT */
} peer_kind;

typedef struct {
    uint32_t magic, version;
    uint64_t layout; /* peer_layout() */
    uint32_t kind;
    uint32_t pid;     /* of the sender, as it sees itself: in another namespace it could not be watched */
    uint32_t member;  /* its id; 0: it is none yet */
    uint32_t subject; /* a member id, or an object's index ... */
    uint32_t generation;
    uint32_t reserved;
} peer_request;

typedef struct {
    uint32_t magic, version;
    uint64_t layout;
    int32_t status;   /* 0 or -errno */
    uint32_t member;  /* who answers */
    uint32_t members; /* so many uffds are with it, last of the descriptors */
    uint32_t map_for_peers;
    uint16_t member_of[MEMBERS_MAX]; /* ... and whose they are */
} peer_answer;

/* The descriptors that come with a message. */
typedef struct {
    uint32_t count;
    int fd[PEER_FDS_MAX];
} peer_fds;

uint64_t peer_layout(void);
peer_request peer_request_of(peer_kind kind, member_id self, uint32_t subject);

/* One message; never blocks. Return: 0 or -errno. */
int peer_send(int socket, const void *message, size_t bytes, const peer_fds *fds);
/* => the descriptors are the caller's, close-on-exec. -EAGAIN: there is none yet; -EPIPE: the other end has gone; -EPROTO: it has another
 * size; -EMFILE: this process may not have so many descriptors. */
int peer_receive(int socket, void *message, size_t bytes, peer_fds *fds);
void peer_fds_close(peer_fds *fds);
/* Takes one out of them; it is the caller's then. */
int peer_fds_take(peer_fds *fds, uint32_t index);

#endif
