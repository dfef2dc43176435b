/*
 * family.h - the processes that have come from one pool by forks: one limit, one table of members, no names (README, Fork).
 *
 * Owns: how a pool becomes one of a family, places for children, their life lines. A family is a group without a folder, sockets and objects.
 */
#ifndef USWAP_SHARED_FAMILY_H
#define USWAP_SHARED_FAMILY_H

#include "shared/group.h"

/* A child's place in one table of members. */
typedef struct {
    group *in; /* NULL: none */
    member_id parent, child;
} family_seat;

/* What has been taken for a child, until one of the two processes has done with it. */
typedef struct {
    family_seat kin;  /* in the family */
    family_seat pool; /* in the named pool, whose limit it is then; in NULL: the pool has no name */
    uint64_t chunks;  /* what it is to have */
    int life_line[2]; /* [0]: the parent's end; -1: none */
} family_place;

/* The one whose chunks it has. */
static inline const family_seat *family_limited_by(const family_place *place) {
    return place->pool.in ? &place->pool : &place->kin;
}

/* The group whose chunks are the pool's limit; NULL: none, the limit is its own. */
group *family_limiter(const struct uswap_pool *pool);

/* The pool's family, made if there is none: this process has all of the limit, if that is not a named pool's. Return: 0 or -errno. Context: all signals blocked. */
int family_make(struct uswap_pool *pool);
/* => nobody's member; what others hold they keep. Context: no thread of the process is in the pool but its own. */
void family_leave(struct uswap_pool *pool);
/* One look around: who has died, what is lent, the limit. Context: the peer thread. */
void family_tend(group *g);
/* The pool leaves its named pool: the family's thread looks there no more. => pool.group is NULL. */
void family_part_from_group(struct uswap_pool *pool);
/* Whether a child of this process is there that has no socket in its named pool yet. */
bool family_expects(struct uswap_pool *pool, const group *named);

/* Takes a place, if so many frames beyond a floor can be had for it; waits a while for others to give theirs. Return: 0 with each tend_lock held, -EUSERS: too many
 * processes; -ENOMEM: the limit is too low for one more; -EAGAIN: not now; -ENXIO: it has left its named pool; -errno. */
int family_take_place(struct uswap_pool *pool, uint64_t frames, family_place *place);
/* The place gets its part of the limit. Return: false: frames are in use. Context: tend_lock held, the gate closed. */
bool family_endow(const family_place *place);
/* Nobody will claim it. => each tend_lock free. */
void family_give_up(family_place *place);
/* After the fork, in the parent: the child is there, or its life line says that it is not. => each tend_lock free. */
void family_in_parent(family_place *place);

/* In the child: this process is nobody yet. Closes what was its parent's. place: NULL, or the one that was taken for it. */
void family_in_child(struct uswap_pool *pool, const family_place *place);
/* => a member, JOINING, in each table; then with a thread that tends the family. Return: 0; -ESRCH: it was given up; or -errno. */
int family_claim(const family_place *place);
int family_start(const family_place *place);
/* It cannot be a member after all: the others are to take back what it has. */
void family_resign(const family_place *place);

#endif
