/*
 * life_lock.h - whether a member's program is still there: a lock that goes with its memory (README, Coming and going).
 *
 * A lock on the byte of the commons' file that the member's id names, of an open file that only a mapping of this process keeps open. The kernel
 * lets go of it with the memory, when the process has ended or executes another program: its pid, which lives on then, does not say so.
 */
#ifndef USWAP_SHARED_LIFE_LOCK_H
#define USWAP_SHARED_LIFE_LOCK_H

#include "shared/commons.h"

/* This process's from now on; a forked child does not have it. Return: where it is mapped; NULL: without /proc, or descriptors, there is none. */
void *life_lock_take(const commons *c, member_id id);
void life_lock_let_go(void *lock);
/* Whether somebody has it; true too if that cannot be told. Never waits for anybody. */
bool life_lock_is_held(const commons *c, member_id id);

#endif
