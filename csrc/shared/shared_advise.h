/*
 * shared_advise.h - what API calls do with ranges of shared pages.
 */
#ifndef USWAP_SHARED_SHARED_ADVISE_H
#define USWAP_SHARED_SHARED_ADVISE_H

#include "shared/shared_core.h"

/* Throws contents away. Return: 0, or -EBUSY: some of it is held, or a page would not come free. */
int shared_discard(group *g, shared_region *r, size_t page, size_t pages);
/* Reads and checks what is out. Return: 0; -EIO: *bad is lost, *why as lost_because has it; or -errno. */
int shared_verify(group *g, shared_region *r, size_t page, size_t pages, size_t *bad, int *why);
/* Evicts what can go. */
void shared_evict(group *g, shared_region *r, size_t page, size_t pages);

/* => the pages are in memory until released. Return: 0; -EMFILE: too many ranges are held; -ENOSPC: memory for shared pages is short; -EIO: *bad is
 * lost. (shared_hold.c) */
int shared_hold(group *g, shared_region *r, size_t page, size_t pages, size_t *bad);
void shared_release(group *g, shared_region *r, size_t page, size_t pages);
/* Of an object that this process is about to unmap. */
void shared_release_all(group *g, uint32_t object);

#endif
