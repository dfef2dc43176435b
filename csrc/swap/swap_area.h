/*
 * swap_area.h - one swap file or device: opened safely, locked, given space, and its slots handed out by cluster.
 *
 * Owns: the file, its header (slot 0), its lock against other pools, how much of it is reserved on the disk, and the bitmap
 * of slots. Does not know what is in a slot.
 */
#ifndef USWAP_SWAP_SWAP_AREA_H
#define USWAP_SWAP_SWAP_AREA_H

#include "base/base.h"
#include "base/lock.h"
#include "shared/segment.h"

/* Slots handed out together, so that pages evicted together lie together: 1 MiB. */
#define CLUSTER_SLOTS 256

typedef struct {
    small_lock lock;
    int fd;
    unsigned index;
    uint32_t notes; /* uswap_area_note bits */
    int32_t priority;
    uint64_t total_slots;           /* what it may grow to, header included */
    _Atomic uint64_t usable_slots;  /* given space on the disk (all of them where space cannot be reserved) */
    _Atomic uint64_t used_slots;    /* a: bits set in the bitmap, header not counted */
    uint64_t *bitmap;               /* a: in the segment; 1 = taken */
    uint16_t *cluster_free;         /* a: in the segment; free slots below usable_slots, by cluster */
    uint64_t cursor;                /* a: cluster where the next search starts */
    uint64_t whole_clusters;        /* a: clusters with all slots free */
    swap_slot *slots;               /* in the segment */
    _Atomic uint8_t *slots_touched; /* one byte a 4 KiB of slots: metadata counted */
    char path[512];
} swap_area; /* a: under lock */

/* Opens and locks; refuses what is not ours. Return: 0 or a uswap_status with *err set. */
int swap_area_open(swap_area *area, segment *seg, unsigned index, const char *path, bool unlinked, uint64_t size_bytes,
                   int32_t priority, uswap_error *err);
/* => a file of ours is left with its header only; an unlinked one is gone. */
void swap_area_close(swap_area *area);

/* Makes sure that at least slots (header not counted) have their place on the disk.
 * Return: 0, or a uswap_status with *err set (the disk is full: nothing changed). Context: pool.api_lock; may block. */
int swap_area_grow(swap_area *area, uint64_t slots, uswap_error *err);

/* Takes a run of 1 to want (at most CLUSTER_SLOTS) neighbouring slots: a whole free cluster first, else what there is.
 * Return: its length, 0 when none is free. (slot_alloc.c) */
uint32_t slot_alloc_run(swap_area *area, uint32_t want, uint64_t *first);
void slot_alloc_give(swap_area *area, uint64_t first, uint32_t count);
/* New slots [from, to) become usable. Context: area.lock not held. */
void slot_alloc_extend(swap_area *area, uint64_t from, uint64_t to);
bool slot_alloc_is_taken(const swap_area *area, uint64_t slot);

#endif
