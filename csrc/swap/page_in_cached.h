/*
 * page_in_cached.h - pages that wait in the swap cache each by itself, and are touched in sequence: they go in together.
 */
#ifndef USWAP_SWAP_PAGE_IN_CACHED_H
#define USWAP_SWAP_PAGE_IN_CACHED_H

#include "pool.h"
#include "region/region.h"

/* Moves the page in, whose slot is CLEAN or DIRTY, and inactive; not alone: with those behind it in its stream that are CLEAN and inactive too, in
 * neighbouring frames, from 8 on, twice as many each time. *around: how many others came. Context: page locked; its frame is no block's, and not warm.
 * Return: 0, or -errno: the page has stayed. */
int page_in_cached(uswap_pool *pool, region *r, size_t page, bool alone, size_t *around);

#endif
