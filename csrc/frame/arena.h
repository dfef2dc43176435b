/*
 * arena.h - places: addresses at which frames lie while they are in no region.
 *
 * Owns: the address space of the arenas and which places are taken. Knows nothing of contents or counts.
 * A frame outside the regions is named by its place, a 32-bit index over all arenas of the pool, one after the other.
 */
#ifndef USWAP_FRAME_ARENA_H
#define USWAP_FRAME_ARENA_H

#include "base/base.h"
#include "base/lock.h"

typedef uint32_t frame_id; /* the place of a frame */
#define FRAME_NONE UINT32_MAX

/* Frames that lie together in memory, aligned as the processor maps them by one entry: 2 MiB (README, Blocks). */
#define BLOCK_PAGES 512U
#define BLOCK_BYTES (BLOCK_PAGES * PAGE_BYTES)

typedef struct {
    small_lock lock;
    unsigned char *base; /* aligned to blocks */
    void *mapping;
    frame_id first; /* id of its first place */
    uint32_t places;
    uint32_t cursor;  /* a: where the next search starts (word of the bitmap) */
    uint32_t taken;   /* a */
    uint64_t *bitmap; /* a: 1 = taken */
} arena;              /* a: under lock */

/* Return: 0 or -errno. */
int arena_init(arena *a, frame_id first, uint32_t places);
void arena_fini(arena *a);

/* Takes a run of 1 to want neighbouring places. Return: its length, 0 when the arena is full. */
uint32_t arena_take(arena *a, uint32_t want, frame_id *first);
/* Takes the places of a block. Return: false if no block is free. */
bool arena_take_block(arena *a, frame_id *first);
void arena_give(arena *a, frame_id first, uint32_t count);

static inline bool arena_has(const arena *a, frame_id frame) {
    return frame >= a->first && frame - a->first < a->places;
}

static inline void *arena_address(const arena *a, frame_id frame) {
    return a->base + ((size_t)(frame - a->first) << PAGE_SHIFT);
}

#endif
