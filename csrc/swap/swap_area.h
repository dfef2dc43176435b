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

/* README, Taking an area out of use. */
typedef enum { AREA_IN_USE = 0, AREA_CLOSING = 1, AREA_CLOSED = 2, AREA_INHERITED = 3 } area_state;

typedef struct {
    small_lock lock;
    _Atomic uint32_t state; /* an area_state */
    int fd;
    unsigned index;
    uint32_t notes; /* uswap_area_note bits */
    int32_t priority;
    uint64_t total_slots;          /* what it may grow to, header included */
    _Atomic uint64_t usable_slots; /* given space on the disk (all of them where space cannot be reserved) */
    _Atomic uint64_t used_slots;   /* a: bits set in the bitmap, header not counted */
    uint64_t *bitmap;              /* a: in the segment; 1 = taken */
    uint16_t *cluster_free;        /* a: in the segment; free slots below usable_slots, by cluster */
    uint64_t cursor;               /* a: cluster where the next search starts */
    uint64_t whole_clusters;       /* a: clusters with all slots free */
    uint64_t *holes; /* p: in the segment; a bit a cluster: no space on the disk, its slots count as taken */
    _Atomic uint64_t hole_slots;     /* p */
    swap_slot *slots;                /* in the segment */
    _Atomic uint8_t *slots_touched;  /* one byte a 4 KiB of slots: metadata counted */
    _Atomic uint64_t lost_slots;     /* of the used: refused by the device, and used by nobody */
    uint64_t leaving;                /* l: where the emptying of a CLOSING area stands */
    uint64_t left_last_round;        /* l: slots in use after the last round */
    uint32_t frameless_rounds;       /* l: parts of rounds since slots came free last, in which frames were short */
    event slot_freed;                /* signalled while it is CLOSING */
    uint16_t member;                 /* member_id of this process, where there are holders */
    bool inherited;                  /* by a fork: its slots are given out by another process (README, Fork) */
    struct holders *_Atomic holders; /* NULL: only this process uses it */
    _Atomic uint64_t lent_slots;     /* of the used: this process does not use them any more, another does */
    _Atomic uint64_t swept;          /* holders.released, when lent slots were last looked at */
    char path[512];
} swap_area; /* a: under lock; l: under pool.leave_lock; p: changed under pool.api_lock */

/* Whether slots may be taken, and contents left, there. */
static inline bool swap_area_in_use(const swap_area *area) {
    return atomic_load_explicit(&area->state, memory_order_relaxed) == AREA_IN_USE;
}

/* Whether contents that are in its slots may stay there. */
static inline bool swap_area_keeps(const swap_area *area) {
    uint32_t state = atomic_load_explicit(&area->state, memory_order_relaxed);
    return state == AREA_IN_USE || state == AREA_INHERITED;
}

/* Slots that have their place on the disk, header not counted. */
static inline uint64_t swap_area_room(const swap_area *area) {
    return atomic_load_explicit(&area->usable_slots, memory_order_relaxed) - 1 -
           atomic_load_explicit(&area->hole_slots, memory_order_relaxed);
}

static inline bool swap_area_is_closed(const swap_area *area) {
    return atomic_load_explicit(&area->state, memory_order_relaxed) == AREA_CLOSED;
}

/* Opens and locks; refuses what is not ours. Return: 0 or a uswap_status with *err set. */
int swap_area_open(swap_area *area, segment *seg, unsigned index, const char *path, bool unlinked, uint64_t size_bytes,
                   int32_t priority, uswap_error *err);
/* => a file of ours is left with its header only; an unlinked one is gone. */
void swap_area_close(swap_area *area);
/* Of slots_touched. */
static inline size_t swap_area_touched_bytes(const swap_area *area) {
    return area->total_slots * sizeof(swap_slot) / PAGE_BYTES + 1;
}
/* => the memory of its slots is back with the kernel. Return: pages of metadata that were touched. Context: before _close. */
uint64_t swap_area_forget_slots(swap_area *area, segment *seg);

/* Makes sure that at least slots (header not counted) have their place on the disk.
 * Return: 0, or a uswap_status with *err set (the disk is full: nothing changed). Context: pool.api_lock; may block. */
int swap_area_grow(swap_area *area, uint64_t slots, uswap_error *err);
/* Gives space for up to so many slots back to the file system, as far as whole clusters are free. Return: how many.
 * Context: pool.api_lock; may block. */
uint64_t swap_area_shrink(swap_area *area, uint64_t slots);

/* Takes a run of 1 to want (at most CLUSTER_SLOTS) neighbouring slots: a whole free cluster first, else what there is.
 * Return: its length, 0 when none is free. (slot_alloc.c) */
uint32_t slot_alloc_run(swap_area *area, uint32_t want, uint64_t *first);
void slot_alloc_give(swap_area *area, uint64_t first, uint32_t count);
/* Takes up to most neighbouring clusters that are free as a whole, those nearest to the end. Return: how many. (For holes.) */
uint64_t slot_alloc_take_whole(swap_area *area, uint64_t most, uint64_t *first_cluster);
/* Their slots may be used (again). */
void slot_alloc_give_whole(swap_area *area, uint64_t first_cluster, uint64_t count);
/* New slots [from, to) become usable. Context: area.lock not held. */
void slot_alloc_extend(swap_area *area, uint64_t from, uint64_t to);
bool slot_alloc_is_taken(const swap_area *area, uint64_t slot);

#endif
