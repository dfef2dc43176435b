/*
 * sealed.h - sealed pages: mapped write-protected, with the very contents of the slot they keep.
 *
 * Owns: which pages arrive sealed, what a store does to them, and how they leave: without a look at their contents, without a write, and many by
 * one system call (README, Sealed pages).
 */
#ifndef USWAP_RECLAIM_SEALED_H
#define USWAP_RECLAIM_SEALED_H

#include "scratch.h"

/* Whether a page that is about to be copied in from its slot should be sealed: unless it is held, its slot does not stay, or pages of this
 * region have been written soon after they came, of late. Context: page locked. */
bool seal_wanted(uswap_pool *pool, region *r, uint64_t word, swap_entry entry);
/* It has arrived so; if it has kept its slot, it is sealed now. Context: page locked. */
void seal_page(region *r, size_t page);
/* It may be written from now on. Its ring entry stays where it is, in either ring. Context: page locked. by_store: a store has met the
 * seal. */
void unseal_page(region *r, size_t page, bool by_store);

/* Whether the page can leave as a sealed one: unless its slot is to be given up. */
bool sealed_can_drop(const uswap_pool *pool, uint64_t word);
/* Drops such pages, at most DROP_MAPPED_MAX: locked, referenced and entered for moving, as batch_choose leaves them; unlocks them.
 * popped: their ring entries are gone, so those that the kernel does not let go get new ones. Return: frames freed. */
uint64_t sealed_drop(context *ctx, const victim *victims, uint32_t count, bool popped);
/* Makes such pages inactive, at most DROP_MAPPED_MAX: a copy of each stays in the swap cache, and its mapping goes, so that a touch is seen.
 * flags: of their slots. Context as above. Return: how many are inactive now. */
uint64_t sealed_age(context *ctx, const victim *victims, uint32_t count, uint64_t flags);

#endif
