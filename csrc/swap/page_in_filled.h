/*
 * page_in_filled.h - pages of one value are made again: no read, no slot (README, Page states).
 */
#ifndef USWAP_SWAP_PAGE_IN_FILLED_H
#define USWAP_SWAP_PAGE_IN_FILLED_H

#include "pool.h"

/* Maps the page and, if touches run in sequence, its FILLED neighbours or its whole block. *around: how many of those.
 * Return: 0, -ENOMEM (no frame), or as transport_in. Context: the page is locked and FILLED. */
int page_in_filled(context *ctx, region *r, size_t page, size_t *around);

#endif
