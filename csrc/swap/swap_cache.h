/*
 * swap_cache.h - the slot word: swap map (use count) and swap cache (frame and state) of a slot in one atomic word.
 *
 *   bits 0-12 use count   13-15 state   16 WANTED   17 BAD   18 AHEAD   19-24 pins   25 MARKER   26 STAYS   27 MARKED
 *   28-33 refault distance
 *   34-63 frame; without a frame, the shadow of the page that was evicted last (shadow.h)
 *
 * The state table is in README, Swap cache states. All moves are single compare-and-swaps, made only here; page I/O is
 * counted only here.
 */
#ifndef USWAP_SWAP_SWAP_CACHE_H
#define USWAP_SWAP_SWAP_CACHE_H

#include "frame/frame_pool.h"
#include "region/region.h"
#include "swap/hash.h"
#include "swap/shadow.h"
#include "swap/swap_entry.h"

/* NONE must be 0: a free slot is a word of 0 (or BAD). LENT: only other processes use it (swap/holders.h); it is nobody's here. */
typedef enum {
    CACHE_NONE = 0,
    CACHE_READING = 1,
    CACHE_CLEAN = 2,
    CACHE_WRITING = 3,
    CACHE_DIRTY = 4,
    CACHE_LENT = 5
} cache_state;

#define SLOT_COUNT_MASK UINT64_C(0x1FFF)
#define SLOT_STATE_SHIFT 13
#define SLOT_STATE_MASK (UINT64_C(7) << SLOT_STATE_SHIFT)
#define SLOT_LENT ((uint64_t)CACHE_LENT << SLOT_STATE_SHIFT)
#define SLOT_WANTED (UINT64_C(1) << 16)
#define SLOT_BAD (UINT64_C(1) << 17)
#define SLOT_AHEAD (UINT64_C(1) << 18)
#define SLOT_PIN_ONE (UINT64_C(1) << 19)
#define SLOT_PIN_MASK (UINT64_C(63) << 19)
#define SLOT_MARKER (UINT64_C(1) << 25)
#define SLOT_STAYS (UINT64_C(1) << 26)
#define SLOT_MARKED (UINT64_C(1) << 27) /* by the policy that aged the page; stays with its shadow */
#define SLOT_DISTANCE_SHIFT 28
#define SLOT_DISTANCE_MASK (UINT64_C(63) << SLOT_DISTANCE_SHIFT)
#define SLOT_FRAME_SHIFT 34

static inline cache_state slot_state_of(uint64_t word) {
    return (cache_state)((word & SLOT_STATE_MASK) >> SLOT_STATE_SHIFT);
}

static inline unsigned slot_count_of(uint64_t word) {
    return (unsigned)(word & SLOT_COUNT_MASK);
}

static inline frame_id slot_frame_of(uint64_t word) {
    return (frame_id)(word >> SLOT_FRAME_SHIFT);
}

/* Of a page that is being read, or has been, and is not in yet; REFAULT_NEVER: its eviction left no shadow. */
static inline uint32_t slot_distance_of(uint64_t word) {
    return shadow_decode((unsigned)((word & SLOT_DISTANCE_MASK) >> SLOT_DISTANCE_SHIFT));
}

uint64_t swap_cache_load(uswap_pool *pool, swap_entry entry);
page_ref swap_map_owner(uswap_pool *pool, swap_entry entry);
page_hash swap_map_hash(uswap_pool *pool, swap_entry entry);
/* For DEBUG_INVARIANT(I7, ...): whether the frame has what the slot's hash says. True of a pool that does not compare what it reads. */
bool swap_cache_is_right(uswap_pool *pool, swap_entry entry, frame_id frame);

/* Page-out: a slot just allocated gets its contents. => count 1, WRITING, frame; owner and hash set before. flags: SLOT_STAYS, if the frame
 * stays in the cache when it has been written, and SLOT_MARKED. */
void swap_cache_add_writing(uswap_pool *pool, swap_entry entry, frame_id frame, page_ref owner, page_hash hash,
                            uint64_t flags);
/* Page-out of a page whose slot has its contents already: NONE -> CLEAN, and stays. flags as above. Return: false if the slot is not NONE. */
bool swap_cache_add_clean(uswap_pool *pool, swap_entry entry, frame_id frame, uint64_t flags);
/* The page whose contents the slot has lost its frame just now: counted, and its shadow left, if nobody reads it back already. flags: the slot
 * word as it was. */
void swap_cache_evicted(uswap_pool *pool, swap_entry entry, uint64_t flags);
/* Page-in: NONE -> READING with the frame, and the distance from its shadow. Return: false if the state is not NONE any more. */
bool swap_cache_claim_read(uswap_pool *pool, swap_entry entry, frame_id frame, uint64_t flags);
/* READING: sets WANTED; *flags: what was set before. Return: false if the state is not READING any more. */
bool swap_cache_want(uswap_pool *pool, swap_entry entry, uint64_t *flags);
/* from (CLEAN, DIRTY or READING) without pins -> NONE, the count stays: the caller owns the frame. *flags: what was set.
 * Return: false if it is not so any more. */
bool swap_cache_take(uswap_pool *pool, swap_entry entry, cache_state from, frame_id *frame, uint64_t *flags);
/* The same, from CLEAN or from a READING that the caller is ending. */
bool swap_cache_take_arrived(uswap_pool *pool, swap_entry entry, frame_id *frame, uint64_t *flags);
/* WRITING (or CLEAN): the frame stays until unpin. Return: false if there is no such frame any more. */
bool swap_cache_pin(uswap_pool *pool, swap_entry entry, frame_id *frame);
/* Return: true if the caller took out the last reference and owns the frame now (to be dropped). */
bool swap_cache_unpin(uswap_pool *pool, swap_entry entry, frame_id *frame);

typedef enum {
    END_DROP, /* the caller owns the frame now: drop it */
    END_KEEP, /* the frame stays in the cache */
    END_MAP /* end_read only: still READING; the caller maps the page under its lock and takes the frame, or ends it again */
} cache_end;

typedef enum {
    WISH_KEEP,      /* leave it in the cache, whoever waits (he is woken and faults again) */
    WISH_IF_WANTED, /* map if a fault waits */
    WISH_MAP        /* map */
} read_wish;

/* READING has ended well. END_DROP: nobody uses the slot any more (it is free now). END_KEEP: CLEAN now. */
cache_end swap_cache_end_read(uswap_pool *pool, swap_entry entry, read_wish wish, frame_id *frame);
/* WRITING has ended well. END_DROP or END_KEEP (pinned just now: the unpinner drops it). */
cache_end swap_cache_end_write(uswap_pool *pool, swap_entry entry, frame_id *frame, uint64_t *flags);
/* WRITING has failed: BAD and DIRTY. Return: false if nobody uses the slot any more (the caller owns the frame). */
bool swap_cache_fail_write(uswap_pool *pool, swap_entry entry, frame_id *frame);

/* One user less. With the last one the slot is freed, unless I/O on it is in flight (its end frees it then). */
/* Of the slots that the device has refused and nobody uses, at most so many are free again: it may write well by now. Return: how many. Context: inside
 * the gate. */
uint64_t swap_cache_forgive(uswap_pool *pool, uint64_t most);

void swap_map_put(uswap_pool *pool, swap_entry entry);

/* The only places that count page I/O. */
void swap_cache_count_read(uswap_pool *pool, uint64_t requests, uint64_t pages, uint64_t ahead_pages);
void swap_cache_count_write(uswap_pool *pool, uint64_t requests, uint64_t pages);

#endif
