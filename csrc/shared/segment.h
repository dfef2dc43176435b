/*
 * segment.h - the memory that the processes of a pool share.
 *
 * Owns: a memfd (never a name in /dev/shm), its layout stamp, and the address space it may grow into. Holds the process
 * table, the frame budget, and for each area its slots and slot bitmap. Everything in it is an offset or an id, never a
 * pointer; every word changes by one atomic step, so that a process may die between any two of them: use counts and bitmaps
 * can be recomputed from the slot words (README, I5). Today one process maps it; the layout is the one that several will map.
 */
#ifndef USWAP_SHARED_SEGMENT_H
#define USWAP_SHARED_SEGMENT_H

#include "base/base.h"
#include "swap/swap_entry.h"

#define SEGMENT_MAGIC UINT64_C(0x316765732d707775) /* "uwp-seg1" */
#define SEGMENT_PROCESSES_MAX 64

typedef struct {
    _Atomic uint64_t pid;         /* 0: free */
    _Atomic uint64_t start_time;  /* with pid: identity */
    _Atomic uint64_t frames_used; /* share of the budget this process holds */
    _Atomic uint64_t generation;
} process_entry;

typedef struct {
    _Atomic uint64_t limit_frames;
    _Atomic uint64_t used_frames; /* counted now (README, I1) */
    _Atomic uint64_t idle_frames; /* of the used: populated, in no slot and no region (recycle) */
    _Atomic uint64_t over_limit_events;
    _Atomic uint64_t metadata_pages;  /* touched */
    _Atomic uint64_t metadata_frames; /* of them, counted as frames */
} frame_budget;

/* Two words and a hash: 32 bytes a slot, with the page word 40 bytes a swapped page. */
typedef struct {
    _Atomic uint64_t word;  /* use count, cache state, frame: swap/swap_cache.h */
    _Atomic uint64_t owner; /* page_ref of the first user: the reverse map */
    uint8_t hash[16];       /* of the contents; written before the word says that they exist */
} swap_slot;

typedef struct {
    uint64_t magic;
    uint64_t layout; /* sizes of the structures below: an incompatible build is refused */
    uint64_t hash_seed[2];
    _Atomic uint64_t end_bytes; /* first free offset */
    frame_budget budget;
    process_entry processes[SEGMENT_PROCESSES_MAX];
} segment_header;

typedef struct {
    int fd;
    unsigned char *base;
    size_t reserved_bytes;
} segment;

/* Return: 0 or -errno. */
int segment_create(segment *seg);
void segment_destroy(segment *seg);

static inline segment_header *segment_head(const segment *seg) {
    return (segment_header *)(void *)seg->base;
}

/* In a forked child: a new one of the same size and layout, of this process, with nothing in it but the header. Return: 0 or -errno. */
int segment_like(const segment *before, segment *after);
/* => seg is that one, at seg's addresses; the parent's is closed here. Return: 0 or -errno: after is gone. */
int segment_take_place(segment *seg, segment *after);

/* Zeroed bytes, lazily touched, aligned to pages. Return: offset, or -errno. Context: pool.api_lock held. */
int64_t segment_allot(segment *seg, size_t bytes);

/* Gives the memory of these bytes, of an allotment of their own, back to the kernel: zeroes from here on. */
void segment_empty(segment *seg, void *start, size_t bytes);

static inline void *segment_at(const segment *seg, uint64_t offset) {
    return seg->base + offset;
}

#endif
