/*
 * warm.h - warm frames: a few frames that single pages are read into and copied from, over and over.
 *
 * Owns: their places and their count. To MOVE a single page takes its mapping away at one end, and every processor that runs the process
 * is interrupted for it: 10 us here beside a busy thread, against 1.1 us for a copy (benchmarks/README.md). So what is read one by one is
 * copied in, from frames that stay where they are; what comes by runs and blocks is moved. They never were part of a region, so
 * nothing else can refer to them, and they may be used again.
 *
 * A warm frame is counted from its first use on, as long as it stays. One in use is counted twice: as itself, and for the page it is to
 * become.
 */
#ifndef USWAP_FRAME_WARM_H
#define USWAP_FRAME_WARM_H

#include "frame/frame_pool.h"

/* A warm frame for a page to come, and the count of that. Return: false: there is none, or no frame for the page. */
bool warm_take(uswap_pool *pool, frame_purpose purpose, frame_id *frame);
/* The contents have been copied in: the page has its frame. */
void warm_give(uswap_pool *pool, frame_id frame);
/* The page is not to be: its count goes back too. */
void warm_drop(uswap_pool *pool, frame_id frame);
/* Gives up to n warm frames that are not in use back to the kernel. Return: how many. */
uint64_t warm_retire(uswap_pool *pool, uint64_t n);

static inline bool warm_has(const frame_pool *frames, frame_id frame) {
    return frame - frames->warm.first < frames->warm.places;
}

#endif
