/*
 * holders.h - slots that several processes of a family use: who holds which (README, Fork).
 *
 * Owns: for each area that was ever shared a word a slot, a bit a member, in memory that forked children inherit. The owner of the area is not
 * in it: what it uses it knows by the slot word. Lock-free; every word says all by itself, so a process may die between any two steps.
 */
#ifndef USWAP_SWAP_HOLDERS_H
#define USWAP_SWAP_HOLDERS_H

#include "base/base.h"
#include "swap/swap_entry.h"

#define HOLDERS_MAX 64

typedef struct holders {
    _Atomic uint64_t users;    /* a bit a member that has the area open, the owner's too */
    _Atomic uint64_t released; /* changed after a slot has lost its last holder: then the owner sweeps */
    _Atomic uint16_t owner;    /* member_id of who gives its slots out */
    _Atomic uint16_t
        life[HOLDERS_MAX];    /* member_id whose bit it is now; 0: nobody's. Only the owner makes it 0, if it lives */
    _Atomic uint64_t words[]; /* by slot */
} holders;

typedef struct uswap_pool uswap_pool;
struct group;

/* Of all areas of the pool that are open; made where there are none yet. Return: 0 or -ENOMEM. Context: api_lock held. */
int holders_make(uswap_pool *pool);
void holders_fini(uswap_pool *pool);

/* Whether the member that has just taken this place may hold slots: the bits of who had it before are gone. */
bool holders_may_begin(uswap_pool *pool, const struct group *family, uint16_t member);
/* => the bits are the member's. Context: api_lock held. */
void holders_begin(uswap_pool *pool, uint16_t member);
/* A page of this process uses the slot; so will one of the member. Context: the gate is closed. */
void holders_add(uswap_pool *pool, swap_entry entry, uint16_t member);
/* Clears the bits of those who are no members any more from the pool's own areas. Context: tend_lock of the family held. */
void holders_look(uswap_pool *pool, const struct group *family);

/* This process does not use the slot any more, its word is 0; of an area that is inherited. */
void holders_release(uswap_pool *pool, swap_entry entry);
/* The same for one of its own. Return: whether it is lent: somebody holds it. Context: the slot is still taken. */
bool holders_lend(uswap_pool *pool, swap_entry entry);
/* Gives lent slots that nobody holds any more back, where something was released since the last time. Return: how many. Context: inside the
 * gate, or it is closed by the caller. */
uint64_t holders_sweep(uswap_pool *pool);
/* Whether holders_sweep would look at anything. */
bool holders_due(const uswap_pool *pool);
/* The member closes the area. Return: whether no other process of the family has it open. */
bool holders_close(holders *of, uint16_t member);

#endif
