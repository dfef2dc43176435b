/*
 * region_range.h - what every call on a range of a region begins and ends with.
 */
#ifndef USWAP_REGION_REGION_RANGE_H
#define USWAP_REGION_REGION_RANGE_H

#include "pool.h"

typedef struct {
    api_guard guard;
    uswap_pool *pool;
    region *r;
    size_t first; /* page */
    size_t count; /* pages */
} region_range;

typedef enum { RANGE_TOUCHED, RANGE_INSIDE } range_rounding; /* all pages the bytes touch; only those wholly inside */

/* Checks the range and references the region. Return: 0, or a uswap_status and nothing held. */
int region_range_begin(region_range *range, uswap_pool *pool, uint64_t region_id, uint64_t start_bytes,
                       uint64_t length_bytes, range_rounding rounding, uswap_error *err);
void region_range_end(region_range *range);

/* Pages of the range from page on that lie in the same chunk of metadata; *touched: whether any of them ever had a state. */
size_t region_range_chunk(const region_range *range, size_t page, bool *touched);

/* Throws the contents away: ZERO. Return: 0 or -errno (EINVAL: the program has mlocked them; EBUSY: locked by uswap; EAGAIN:
 * quiesced). (region_discard.c) */
int region_discard(uswap_pool *pool, region *r, size_t first, size_t count);

/* Fresh addresses are prepared and watched: the pages there are the pool's from now on. Return: 0 or a uswap_status.
 * (region_life.c) */
int region_watch(int uffd, void *address, uint64_t bytes, uswap_error *err);

/* What may be done with the pages at from may be done at to, which is read-write. Return: 0 or -errno. (region_move.c) */
int region_copy_protection(const unsigned char *from, unsigned char *to, size_t bytes);

/* The frames of all pages, and what may be done with them, go from r's addresses to others, which are watched and empty. Return: 0, or -errno
 * and all are where they were. Context: the region is still. (region_move.c) */
int region_move_pages(uswap_pool *pool, region *r, unsigned char *to);

/* Fills *err: the contents of the page are lost, as lost_because has it. Return: USWAP_E_SWAP_READ. */
int region_lost(uswap_error *err, const char *operation, const region *r, size_t page, int os_errno);

#endif
