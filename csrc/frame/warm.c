#define _GNU_SOURCE
#include "frame/warm.h"

#include "pool.h"

#include <sys/mman.h>

/* At most this part of the limit. */
#define WARM_SHARE 64

static bool pop(warm_frames *warm, frame_id *frame, bool *populated) {
    bool found = false;
    small_lock_acquire(&warm->lock);
    if (warm->idle > 0) {
        *frame = warm->stack[--warm->idle];
        *populated = warm->populated[*frame - warm->first];
        found = true;
    }
    small_lock_release(&warm->lock);
    return found;
}

static void push(warm_frames *warm, frame_id frame, bool populated) {
    small_lock_acquire(&warm->lock);
    warm->populated[frame - warm->first] = populated;
    warm->stack[warm->idle++] = frame;
    small_lock_release(&warm->lock);
}

/* The first use of a warm frame takes one more frame of the limit, if there are some to spare. */
static bool charge_both(uswap_pool *pool) {
    warm_frames *warm = &pool->frames.warm;
    uint64_t limit = atomic_load_explicit(&pool->frames.budget->limit_frames, memory_order_relaxed);
    if (atomic_load_explicit(&warm->frames, memory_order_relaxed) >= limit / WARM_SHARE ||
        !frame_charge(pool, 2, FRAME_AHEAD))
        return false;
    atomic_fetch_add(&warm->frames, 1);
    return true;
}

bool warm_take(uswap_pool *pool, frame_purpose purpose, frame_id *frame) {
    warm_frames *warm = &pool->frames.warm;
    bool populated;
    if (!pop(warm, frame, &populated))
        return false;
    if (populated ? frame_charge(pool, 1, purpose) : charge_both(pool))
        return true;
    push(warm, *frame, populated);
    return false;
}

static void forget(uswap_pool *pool, frame_id frame) {
    int status = madvise(frame_address(pool, frame), PAGE_BYTES, MADV_DONTNEED);
    INVARIANT(I1, status == 0);
    push(&pool->frames.warm, frame, false);
    atomic_fetch_sub(&pool->frames.warm.frames, 1);
    frame_uncharge(pool, 1);
}

void warm_give(uswap_pool *pool, frame_id frame) {
    const frame_budget *budget = pool->frames.budget;
    if (atomic_load_explicit(&budget->used_frames, memory_order_relaxed) + RESERVE_FRAMES >
        atomic_load_explicit(&budget->limit_frames, memory_order_relaxed))
        forget(pool, frame);
    else
        push(&pool->frames.warm, frame, true);
}

void warm_drop(uswap_pool *pool, frame_id frame) {
    warm_give(pool, frame);
    frame_uncharge(pool, 1);
}

/* Populated ones lie anywhere in the stack: those that lie deep have not been used for long. */
static bool pop_populated(warm_frames *warm, frame_id *frame) {
    bool found = false;
    small_lock_acquire(&warm->lock);
    for (uint32_t i = 0; i < warm->idle && !found; i++) {
        found = warm->populated[warm->stack[i] - warm->first];
        if (found) {
            *frame = warm->stack[i];
            warm->stack[i] = warm->stack[--warm->idle];
        }
    }
    small_lock_release(&warm->lock);
    return found;
}

uint64_t warm_retire(uswap_pool *pool, uint64_t n) {
    frame_id frame;
    uint64_t retired = 0;
    for (; retired < n && pop_populated(&pool->frames.warm, &frame); retired++)
        forget(pool, frame);
    return retired;
}
