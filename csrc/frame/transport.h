/*
 * transport.h - how frames enter and leave regions: move or copy, chosen page by page.
 *
 * Owns: the choice, the retries, and the frame count across a copy (for an instant there are two frames of one page).
 * Does not own: page states and slots. The caller holds the locks of all pages concerned, and names the descriptor that watches their
 * region (region.uffd): what changes the region goes through that one. Catch places are watched by the pool's own.
 * README, Transports, says what each protects against.
 */
#ifndef USWAP_FRAME_TRANSPORT_H
#define USWAP_FRAME_TRANSPORT_H

#include "frame/frame_pool.h"

typedef enum {
    OUT_TAKEN,  /* the frame lies in an arena place now, counted as before */
    OUT_ABSENT, /* nothing was mapped: the program has discarded the page behind our back */
    OUT_BUSY,   /* the kernel holds on to it (pinned, locked): still mapped */
    OUT_DROPPED /* the frame is gone, still counted (drop_mapped.h) */
} out_result;

typedef struct {
    out_result result;
    frame_id frame;
} out_outcome;

/* Takes the frames of pages neighbouring pages out. Fills outcome[pages]. */
void transport_out(uswap_pool *pool, int uffd, unsigned char *address, size_t pages, out_outcome *outcome);

/* Puts the frames of neighbouring places in, and wakes who waits for the pages. Their places become free.
 * Return: 0, or -errno of the first page not done: -EAGAIN (try again later), -EEXIST (something is mapped), others: there is no
 * region any more. *done: exactly this prefix went in. */
int transport_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id first, uint32_t count, uint32_t *done);

/* The same for one warm frame (warm.h), by copy; it stays where it is. protect: stores to the page fault. */
int transport_warm_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id frame, bool protect);

/* The same for a block, to an aligned block of addresses of which the caller has locked all pages and none is mapped: as one huge
 * page, if it is one. */
int transport_block_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id first, uint32_t *done);

/* As transport_in for one frame that has just left that very page: does not give up while the region is there. */
int transport_back(uswap_pool *pool, int uffd, unsigned char *address, frame_id frame);

/* Puts a copy of a frame in; the frame stays where it is. The caller has counted the new one. protect: stores to the page fault.
 * Return: 0 or -errno. */
int transport_copy_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id frame, bool protect);

/* Puts in fresh frames full of zeroes, prepared together outside the region; the caller has counted them. For pages that will be
 * written: a store to a mapped zero page costs a fault and a TLB flush on every processor. Returns as transport_in, but does less if
 * places are short. Only with pool->use_move. */
int transport_fresh(uswap_pool *pool, int uffd, unsigned char *address, size_t pages, size_t *done);

/* Maps zeroes; the caller has counted the frames that stores will take. Returns as transport_in. */
int transport_zero(int uffd, unsigned char *address, size_t pages, size_t *done);

#endif
