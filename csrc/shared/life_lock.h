/*
 * life_lock.h - whether a member's program is still there: a lock that goes with it (README, Coming and going).
 *
 * A lock on the byte of the commons' file that the member's id names, held by a descriptor that is the process's alone. The kernel lets go of it
 * when the process has ended, or executes another program: its pid, which lives on then, does not say so.
 */
#ifndef USWAP_SHARED_LIFE_LOCK_H
#define USWAP_SHARED_LIFE_LOCK_H

#include "shared/commons.h"

/* This process's from now on. Return: its descriptor, which a forked child must close; or -errno: without /proc, or descriptors, there is none. */
int life_lock_take(const commons *c, member_id id);
/* Whether somebody has it; true too if that cannot be told. Never waits for anybody. */
bool life_lock_is_held(const commons *c, member_id id);

#endif
