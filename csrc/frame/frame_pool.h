/*
 * frame_pool.h - the count that makes the limit hard, and the frames that lie outside regions.
 *
 * Owns: the frame budget (how many frames exist), the arenas, and the idle frames of recycle=True. A frame is counted
 * before it exists and until it is gone (README, I1, I2).
 * Lock-free but for the arenas' own locks; never blocks; may be called with a page locked.
 */
#ifndef USWAP_FRAME_FRAME_POOL_H
#define USWAP_FRAME_FRAME_POOL_H

#include "frame/arena.h"
#include "shared/segment.h"

/* Frames that only reclaim may use, and only for an instant: one for each thread in the core, with room to spare. Also what
 * metadata may take before anybody notices. */
#define RESERVE_FRAMES 64
/* Least frames for faults: an instruction may need some 32 pages at once, 16 threads of them. */
#define LEAST_FAULT_FRAMES 704
/* Frames that locks and pins must leave to faults. */
#define HOLD_LEAVES_FRAMES 256
/* Metadata that is not charged (uswap_api.h): code, stacks and rings take the rest of the fixed 16 MiB. */
#define METADATA_FREE_PAGES 1024

typedef enum {
    FRAME_FAULT,  /* leaves the reserve alone */
    FRAME_AHEAD,  /* speculative: only above the low watermark */
    FRAME_RESERVE /* an instant's loan, given back by the caller before it returns; never refused */
} frame_purpose;

/* Fill arenas are memory that reads and copies populate. Catch arenas are registered with the uffd, and what MOVE takes out of
 * regions goes there. Those of blocks are used by the block, so that huge frames stay whole. */
typedef enum { ARENA_FILL, ARENA_CATCH, ARENA_BLOCK_FILL, ARENA_BLOCK_CATCH } arena_kind;
#define ARENA_KINDS 4

typedef struct uswap_pool uswap_pool;

#define WARM_FRAMES 512
/* Idle frames that only copies leave behind, at most, and as a share of the limit: nobody else has them meanwhile. */
#define RESTING_MAX 256
#define RESTING_SHARE 128

/* Frames that single pages are read into and copied from (warm.h). */
typedef struct {
    small_lock lock;
    frame_id first; /* of the fill arena, one run */
    uint32_t places;
    uint32_t idle;               /* w: not in use */
    frame_id stack[WARM_FRAMES]; /* w: the idle ones */
    bool populated[WARM_FRAMES]; /* w: of the idle ones, those that have a frame, which is counted */
    _Atomic uint32_t frames;     /* counted, idle or in use */
} warm_frames;                   /* w: under lock */

typedef struct {
    frame_budget *budget; /* in the segment */
    arena arenas[ARENA_KINDS];
    warm_frames warm;
    bool recycle;
    _Atomic uint64_t low_frames; /* watermarks of free frames */
    _Atomic uint64_t high_frames;
    _Atomic uint64_t narrow_low, wide_low; /* what low_frames can be */
    _Atomic uint64_t widened_ns;           /* when a stream last found no frames for a block */
    _Atomic uint32_t unmet;      /* 1: since the limit was set, used frames have not been within it, the reserve free */
    _Atomic uint32_t over_grant; /* charges of FRAME_FAULT that may go over the limit (I9) */
    small_lock idle_lock;
    frame_id *idle;      /* i: stack of populated frames */
    uint32_t idle_count; /* i */
    uint32_t idle_capacity;
} frame_pool; /* i: under idle_lock */

/* places: of each arena. Return: 0 or -errno. */
int frame_pool_init(frame_pool *frames, frame_budget *budget, uint32_t places, bool recycle);
void frame_pool_fini(frame_pool *frames);
void frame_pool_set_limit(frame_pool *frames, uint64_t limit_frames, bool watermarks);
/* A stream has found no frames for its next block: the watermarks are higher for a while. */
void frame_pool_widen(frame_pool *frames);
/* Back to what they are, if the while is over. */
void frame_pool_narrow(frame_pool *frames);
/* Gives up to n idle frames back to the kernel (recycle, and warm ones). Return: how many. */
uint64_t frame_pool_retire(uswap_pool *pool, uint64_t n);

/* Counts n frames. Return: false and nothing counted if there are not that many. */
bool frame_charge(uswap_pool *pool, uint64_t n, frame_purpose purpose);
/* Counts n frames whatever the limit says (I9, metadata). */
void frame_charge_over(uswap_pool *pool, uint64_t n);
/* n frames are gone. Wakes who waits for frames. */
void frame_uncharge(uswap_pool *pool, uint64_t n);
/* Frames a fault could have now. */
uint64_t frame_pool_free(const frame_pool *frames);

/* Takes up to want frames for contents to come, counted, in neighbouring fill places (or idle ones, one by one).
 * Return: how many; 0: no frame or no place. *first is the first of the run. */
uint32_t frame_take_fill(uswap_pool *pool, uint32_t want, frame_purpose purpose, frame_id *first);
/* The same for one page: a warm frame if there is one. */
bool frame_take_one(uswap_pool *pool, frame_purpose purpose, frame_id *frame);
/* A frame for a copy of a page that is about to give up its own: an idle one, or a loan of the reserve (*lent). */
bool frame_take_copy(uswap_pool *pool, frame_id *frame, bool *lent);
/* The frame has been copied from, and is not needed any more: it stays for the next copy, idle, if it never was part of a region (frames of
 * fill places never were) and is not one too many. Return: false: it is to be dropped. */
bool frame_rest(uswap_pool *pool, frame_id frame);
/* The same, or drops it. */
void frame_rest_or_drop(uswap_pool *pool, frame_id frame);
/* Neighbouring empty catch places for frames that are counted already. Return: how many. */
uint32_t frame_take_catch(uswap_pool *pool, uint32_t want, frame_id *first);
/* Places whose frame has left for a region (still counted there), or never came. */
void frame_give_places(uswap_pool *pool, frame_id first, uint32_t count);
/* Frames in places are not needed any more: dropped and uncounted, or idle (recycle, warm). */
void frame_drop(uswap_pool *pool, frame_id first, uint32_t count);

/* Frames to be dropped, neighbours together: a system call for a run instead of one for each. */
typedef struct {
    frame_id first;
    uint32_t count;
} frame_run;
void frame_run_drop(uswap_pool *pool, frame_run *run, frame_id frame);
/* => the last run is dropped too. */
void frame_run_end(uswap_pool *pool, frame_run *run);

void *frame_address(const uswap_pool *pool, frame_id frame);
/* Whether b lies behind a in memory, too: numbers go on from one arena to the next, addresses do not. */
static inline bool frames_adjoin(const frame_pool *frames, frame_id a, frame_id b) {
    return b == a + 1 && a / frames->arenas[0].places == b / frames->arenas[0].places;
}
/* NULL: no arena has such a place. */
arena *frame_arena(frame_pool *frames, frame_id frame);

/* The block's own way in and out of the count (block.c). */

/* A block of counted frames in places of their own, one huge frame where the kernel has one. zeroed: its contents must be, else
 * they may be anything (recycle). Return: false: no frames, no places, or no memory. */
bool block_take(uswap_pool *pool, frame_purpose purpose, bool zeroed, frame_id *first);
/* Empty places for a block that is counted already. */
bool block_take_catch(uswap_pool *pool, frame_id *first);
/* Whether the frame may be part of a block that can be moved in whole. */
static inline bool block_has(const frame_pool *frames, frame_id frame) {
    return frame >= frames->arenas[ARENA_BLOCK_FILL].first;
}
/* Number of the block it is part of, and the first frame of that. */
static inline uint32_t block_index(const frame_pool *frames, frame_id frame) {
    return (frame - frames->arenas[ARENA_BLOCK_FILL].first) / BLOCK_PAGES;
}
static inline frame_id block_first(const frame_pool *frames, frame_id frame) {
    return frames->arenas[ARENA_BLOCK_FILL].first + block_index(frames, frame) * BLOCK_PAGES;
}

/* A page of metadata is touched for the first time. */
void frame_charge_metadata(uswap_pool *pool, uint64_t pages);
/* Pages of metadata are gone. */
void frame_uncharge_metadata(uswap_pool *pool, uint64_t pages);

#endif
