/*
 * page_in_block.h - whole blocks: read into one huge frame, kept in the swap cache, moved in as one (README, Blocks).
 *
 * Owns: which reads belong to a block that is still arriving, and the order of steps by which 512 pages change together.
 */
#ifndef USWAP_SWAP_PAGE_IN_BLOCK_H
#define USWAP_SWAP_PAGE_IN_BLOCK_H

#include "pool.h"

typedef enum {
    BLOCK_STARTED,  /* all its pages are being read, or fresh ones are in */
    BLOCK_UNFIT,    /* not all of them are out and at rest in neighbouring slots: page by page then */
    BLOCK_NO_FRAMES /* none now, or no requests */
} block_start;

/* Reads the block that begins with this page. map: into the region as soon as it is there, else when it is touched.
 * Context: no page locked. */
block_start page_in_block(context *ctx, region *r, size_t first_page, bool map);

/* Return: whether the request belongs to a block; then it has been dealt with. Context: no page locked. */
bool page_in_block_complete(context *ctx, io_request *request, bool whole);

/* A touch of a page whose frame lies in the swap cache as part of a block: moves the whole block in, if it is still whole and
 * nobody is at one of its pages. Return: whether it did. Context: the page is locked, SWAPPED and CLEAN. */
bool page_in_block_touched(context *ctx, region *r, size_t page, swap_entry entry);

/* First touch of a block of ZERO and FILLED pages: fresh frames for all of it. Return: STARTED: at least the page is in. Context: the page
 * is locked, and one of them. */
block_start page_in_block_fresh(context *ctx, region *r, size_t page);

#endif
