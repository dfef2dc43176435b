/*
 * pool_limit.c - the limit, changed while the pool is at work; and pages evicted on request.
 */
#include "base/status.h"
#include "fault/fault_thread.h"
#include "pool.h"
#include "reclaim/page_out.h"
#include "shared/group.h"

#include <errno.h>

/* A lowered limit evicts so many pages at a time, and then looks what is left to do: others evict as well. */
#define SET_LIMIT_STEP_PAGES UINT64_C(1024)
/* Pages that the kernel has pinned come free without a sign: they are looked for that often, and for so long without any success. */
#define SET_LIMIT_PAUSE_NS UINT64_C(1000000)
#define SET_LIMIT_PATIENCE_NS UINT64_C(2000000000)
/* A ring that is so many times too large is made smaller; of a member's part, which moves often, it grows by so much at least. */
#define RING_SHRINKS_AT 2
#define RING_GROWS_BY 1.5

uint64_t pool_frames_over(uswap_pool *pool, uint64_t below) {
    frame_budget *budget = pool->frames.budget;
    uint64_t limit = atomic_load(&budget->limit_frames), used = atomic_load(&budget->used_frames) + below;
    return used > limit ? used - limit : 0;
}

void pool_fit_rings(uswap_pool *pool) {
    uint64_t capacity = pool_ring_capacity(atomic_load(&pool->frames.budget->limit_frames));
    reclaim_ring *rings[] = {&pool->ring, &pool->ring_marked, &pool->inactive, &pool->inactive_marked};
    for (size_t i = 0; i < sizeof rings / sizeof *rings; i++)
        if (ring_capacity(rings[i]) > RING_SHRINKS_AT * capacity)
            ring_shrink(pool, rings[i], capacity);
}

static void fit_rings(uswap_pool *pool) {
    gate_enter(&pool->gate);
    pool_fit_rings(pool);
    gate_leave(&pool->gate);
}

/* Idle frames first: they cost nothing. Return: frames that came free. */
static uint64_t shrink_step(context *ctx) {
    uswap_pool *pool = ctx->pool;
    gate_enter(&pool->gate);
    pool_fit_rings(pool);
    uint64_t freed = frame_pool_retire(pool, pool_frames_over(pool, RESERVE_FRAMES));
    if (freed == 0)
        freed = page_out_oldest(ctx, MIN_OF(pool_frames_over(pool, RESERVE_FRAMES), SET_LIMIT_STEP_PAGES));
    context_drain(ctx);
    gate_leave(&pool->gate);
    return freed;
}

/* Nothing could be evicted: what is left is in the hands of others, who signal when they give it back, or of the kernel. */
static void await_shrinking(uswap_pool *pool) {
    atomic_fetch_add(&pool->frame_waiters, 1);
    uint32_t seen = event_count(&pool->frames_freed);
    /* Looked at after frame_waiters was raised: frames freed since then are signalled. */
    if (atomic_load(&pool->frames.unmet))
        event_wait(&pool->frames_freed, seen, SET_LIMIT_PAUSE_NS);
    atomic_fetch_sub(&pool->frame_waiters, 1);
}

/* Evicts until the limit has been met once, with the reserve free (note_met in frame_pool.c says why once is enough).
 * Return: whether the limit holds now. */
static bool evict_to_limit(uswap_pool *pool) {
    context *ctx = context_borrow(pool);
    uint64_t success_ns = clock_now_ns();
    while (atomic_load(&pool->frames.unmet)) {
        uint64_t over = pool_frames_over(pool, 0), freed = shrink_step(ctx), now = clock_now_ns();
        if (freed > 0 || pool_frames_over(pool, 0) < over)
            success_ns = now;
        else if (now - success_ns > SET_LIMIT_PATIENCE_NS)
            break;
        else
            await_shrinking(pool);
    }
    context_return(ctx);
    return pool_frames_over(pool, 0) == 0;
}

/* by: at least so many times as large, if at all: a limit that rises in small steps has it moved seldom. Return: false if there is no room for the
 * pages that such a limit allows. */
static bool grow_ring(uswap_pool *pool, uint64_t limit_frames, double by) {
    uint64_t capacity = pool_ring_capacity(limit_frames), before = ring_capacity(&pool->ring);
    if (capacity <= before)
        return true;
    if (limit_frames > pool->frames.arenas[ARENA_FILL].places)
        return false;
    return ring_grow(pool, &pool->ring, MAX_OF(capacity, (uint64_t)(by * (double)before))) != -ENOMEM;
}

/* ---- of a member of a group: its part changes beside everything else, in the hands of one thread (shared/grants_tend.c) ---- */

uint64_t pool_least_frames(uswap_pool *pool) {
    uint64_t held = STAT_GET(pool, locked_pages) + STAT_GET(pool, pinned_pages);
    return pool->bounce_frames +
           MAX_OF(uswap_minimum_limit_bytes() >> PAGE_SHIFT, held + RESERVE_FRAMES + HOLD_LEAVES_FRAMES);
}

bool pool_start_limit(uswap_pool *pool, uint64_t limit_frames) {
    if (!grow_ring(pool, limit_frames, RING_GROWS_BY))
        return false;
    frame_pool_set_limit(&pool->frames, limit_frames, pool->options.background);
    pool->options.limit_bytes = limit_frames << PAGE_SHIFT;
    event_signal(&pool->native.pressure);
    event_signal(&pool->frames_freed); /* who waits for frames looks again */
    fault_thread_wake(pool);
    return true;
}

bool pool_limit_is_met(uswap_pool *pool) {
    fit_rings(pool);
    if (!atomic_load(&pool->frames.unmet))
        return true;
    if (!pool->options.background) {
        context *ctx = context_borrow(pool);
        shrink_step(ctx);
        context_return(ctx);
    } else { /* what costs nothing; the rest is the reclaimers' */
        gate_enter(&pool->gate);
        frame_pool_retire(pool, pool_frames_over(pool, RESERVE_FRAMES));
        gate_leave(&pool->gate);
    }
    return !atomic_load(&pool->frames.unmet);
}

/* ---- of a pool that is one process's alone ---- */

int pool_change_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err) {
    uint64_t before = atomic_load(&pool->frames.budget->limit_frames), after = limit_bytes >> PAGE_SHIFT;
    uint64_t held = STAT_GET(pool, locked_pages) + STAT_GET(pool, pinned_pages);
    uint64_t least = uswap_minimum_limit_bytes() + (pool->bounce_frames << PAGE_SHIFT);
    if (limit_bytes < least || after < held + RESERVE_FRAMES + HOLD_LEAVES_FRAMES + pool->bounce_frames)
        return error_set(err, USWAP_E_LIMIT, 0, "limit", NULL,
                         "a limit of %llu bytes is too low: the minimum is %llu, and %llu bytes are locked or pinned",
                         (unsigned long long)limit_bytes, (unsigned long long)least,
                         (unsigned long long)(held << PAGE_SHIFT));
    if (!grow_ring(pool, after, 1))
        return error_set(err, USWAP_E_NO_MEMORY, ENOMEM, "limit", NULL,
                         "no address space for a limit of %llu bytes: make a new pool",
                         (unsigned long long)limit_bytes);
    frame_pool_set_limit(&pool->frames, after, pool->options.background);
    pool->options.limit_bytes = limit_bytes;
    fit_rings(pool);
    if (atomic_load(&pool->frames.unmet) && !evict_to_limit(pool)) {
        frame_pool_set_limit(&pool->frames, before, pool->options.background);
        pool->options.limit_bytes = before << PAGE_SHIFT;
        grow_ring(pool, before, 1); /* without memory for it now, it grows when it is full */
        return error_set(
            err, USWAP_E_BUSY, 0, "limit", NULL,
            "the limit stays as it was: pages are pinned by the kernel (direct I/O in flight), or swap is full");
    }
    event_signal(&pool->native.pressure);
    return 0;
}

EXPORT int uswap_pool_set_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->api_lock);
    if (atomic_load(&pool->group))
        status = error_set(err, USWAP_E_INVALID, 0, "limit", NULL,
                           "the pool is one of several with one limit: change that (uswap_group_set_limit)");
    else if (atomic_load(&pool->family))
        status = group_change_limit(atomic_load(&pool->family), limit_bytes, err);
    else
        status = pool_change_limit(pool, limit_bytes, err);
    small_lock_release(&pool->api_lock);
    fault_thread_wake(pool); /* parked faults may go on */
    api_leave(&guard);
    return status;
}

EXPORT int64_t uswap_pool_evict(uswap_pool *pool, uint64_t pages, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    context *ctx = context_borrow(pool);
    gate_enter(&pool->gate);
    uint64_t freed = page_out_oldest(ctx, pages);
    context_drain(ctx);
    gate_leave(&pool->gate);
    context_return(ctx);
    api_leave(&guard);
    return (int64_t)freed;
}
