/*
 * bounce.h - the bounce frames of one context: neighbours on loan for one part of a request.
 *
 * Used by one thread at a time, like the context; no lock. Owns which frames are free, not the memory (pool_codec.c).
 */
#ifndef USWAP_IO_BOUNCE_H
#define USWAP_IO_BOUNCE_H

#include "base/base.h"

/* Frames of one set, and most that one part may have: a word of the map. */
#define BOUNCE_PAGES_MAX 1408
#define BOUNCE_PART_MAX 64

typedef struct {
    unsigned char *memory;
    uint32_t pages;
    uint64_t free[BOUNCE_PAGES_MAX / BOUNCE_PART_MAX]; /* a bit a frame */
} bounce_set;

/* Neighbouring bounce frames. */
typedef struct {
    uint32_t first, pages;
} bounce_run;

void bounce_init(bounce_set *set, unsigned char *memory, uint32_t pages);
/* pages: at most BOUNCE_PART_MAX. Return: false: so many neighbours are not free now. */
bool bounce_take(bounce_set *set, uint32_t pages, bounce_run *run);
void bounce_give(bounce_set *set, bounce_run run);

static inline unsigned char *bounce_page(const bounce_set *set, bounce_run run, uint32_t page) {
    return set->memory + ((size_t)(run.first + page) << PAGE_SHIFT);
}

#endif
