/*
 * shared_policy.h - what a policy is told of shared pages, and what it orders (README, Policy and shared pages).
 *
 * Owns: the log of shared pages that this process has brought in, and the orders of its policy. Nobody listens: nothing is noted, no memory is taken.
 * Both are hints: the order of all shared pages is the hand's, and what is ordered is looked at again.
 */
#ifndef USWAP_SHARED_SHARED_POLICY_H
#define USWAP_SHARED_SHARED_POLICY_H

#include "base/lock.h"

#define SHARED_EVENTS_MAX 16384U
#define SHARED_ORDERED_MAX 32768U
/* A stay: bits 0-9 of the frame's number | key of the region << 10 | page << 28. The page comes back in another frame, mostly: then it is out of
 * date. */
#define SHARED_STAY_FRAME_MASK UINT64_C(0x3FF)
#define SHARED_STAY_KEY_SHIFT 10
#define SHARED_STAY_PAGE_SHIFT 28
/* A key: index of the object | eight bits of its generation << 10. */
#define SHARED_KEY_GENERATION_SHIFT 10

typedef struct {
    uint64_t *stays;
    uint32_t *distances;
    uint8_t *users;
} shared_event_buffer;

typedef struct {
    small_lock lock;
    _Atomic uint32_t listens;
    uint32_t every;                      /* l: the steering thread is told when so many are there */
    uint32_t count;                      /* l */
    bool lost;                           /* l: some did not fit */
    shared_event_buffer noting, reading; /* l; of the reader */
    uint64_t *orders;                    /* l: a ring */
    uint32_t first, ordered;             /* l: where it begins, how many there are */
    void *memory;
} shared_policy_log; /* l: under lock */

typedef struct uswap_pool uswap_pool;
struct group;
struct shared_region;

static inline uint32_t shared_key(uint32_t object, uint32_t generation) {
    return object | (generation & 0xFF) << SHARED_KEY_GENERATION_SHIFT;
}

static inline bool shared_policy_listens(const shared_policy_log *log) {
    return atomic_load_explicit(&log->listens, memory_order_relaxed) != 0;
}

/* The page has come into that frame. distance: evictions of shared pages since its own. Context: share thread, if somebody listens. */
void shared_policy_note(struct group *g, const struct shared_region *r, size_t page, uint32_t frame, uint32_t distance);
/* Frames for shared pages are short. Context: any thread. */
void shared_policy_wake(struct group *g);
/* The frame of the next page ordered out that is in memory. Return: false: no more are ordered. Context: who evicts. */
bool shared_policy_next(struct group *g, uint32_t *frame);
/* The policy is gone; the pool is. */
void shared_policy_end(uswap_pool *pool);
void shared_policy_fini(uswap_pool *pool);

#endif
