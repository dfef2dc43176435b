/*
 * group_find.h - for group.c: the first word with the members of a pool, and what to say of it to the caller.
 */
#ifndef USWAP_SHARED_GROUP_FIND_H
#define USWAP_SHARED_GROUP_FIND_H

#include "shared/group.h"
#include "shared/peers_socket.h"

/* Asks all members in the folder for the commons, until one of them has answered. Return: 0, and *fds are the caller's; or -errno. */
int group_hello(int folder, const char *path, peer_kind kind, peer_answer *answer, peer_fds *fds);
/* Fills *err with what that -errno of group_hello means. Return: a uswap_status. */
int group_explain(const char *folder, int status, uswap_error *err);
/* The same of a call of the operating system. */
int group_os_failure(uswap_error *err, const char *operation, const char *path, int status);

#endif
