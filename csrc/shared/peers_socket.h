/*
 * peers_socket.h - a named pool's folder and the sockets in it: whose they are, how they are reached.
 *
 * The folder is opened and checked once; from then on everything in it is reached through that descriptor, so that nobody can put another
 * one in its place, and a socket's path is short, however long the folder's is.
 */
#ifndef USWAP_SHARED_PEERS_SOCKET_H
#define USWAP_SHARED_PEERS_SOCKET_H

#include "shared/peers_message.h"

/* Connections that wait for a member that is stopped. */
#define PEER_BACKLOG 512
/* Sockets of one folder that are looked at. */
#define PEER_SOCKETS_MAX 256

/* A member's socket, by its name: "member-ID-PID". */
typedef struct {
    member_id id;
    uint32_t pid;
} peer_socket;

/* The folder: a directory, no link, this user's, nobody else's to enter. Return: descriptor (O_PATH), or -errno; -EPERM: it is not so. */
int peer_folder_open(const char *path);
/* Whether it has been removed. */
bool peer_folder_gone(int folder);
/* Return: how many there are, in sockets[]; or -errno. */
int peer_sockets(const char *path, peer_socket *sockets, uint32_t capacity);
void peer_socket_remove(int folder, peer_socket socket);
/* Removes those that nobody listens at. Return: how many are left, or -errno. */
int peer_sockets_clean(int folder, const char *path);

/* Return: a descriptor that is listened at, mode 0600, or -errno. */
int peer_listen(int folder, peer_socket socket);
/* Return: a connection, or 0 - errno: -EAGAIN: nobody is waiting; -EPERM: another user's. *pid: the other process's, as this one sees it. */
int peer_accept(int listening, uint32_t *pid);
/* Return: a connection to a process of this user, or -errno. -ECONNREFUSED, -ENOENT: nobody is there. Never blocks. */
int peer_connect(int folder, peer_socket socket);

/* A request and its answer. with: goes with the request; may be NULL. => *fds are the caller's. meanwhile: called every millisecond while it
 * waits, with argument; may be NULL. Return: 0, or -errno: -ETIMEDOUT: no answer until deadline_ns; else what the answer says. */
int peer_ask(int folder, peer_socket socket, const peer_request *request, const peer_fds *with, peer_answer *answer,
             peer_fds *fds, uint64_t deadline_ns, void (*meanwhile)(void *), void *argument);

#endif
