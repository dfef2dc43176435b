#define _GNU_SOURCE
#include "reclaim/reclaimer.h"

#include "base/failpoint.h"
#include "base/status.h"
#include "reclaim/inactive.h"
#include "reclaim/page_out.h"
#include "swap/page_in_ahead.h"

#include <errno.h>
#include <limits.h>
#include <sys/prctl.h>

/* How late a steering thread may be before the native one acts: CPython hands its lock over after 5 ms, to one of those who wait.
 * One that was late gets no grace again until it has been seen at work, or some time has passed. */
#define LATE_NS UINT64_C(8000000)
#define FORGIVEN_NS UINT64_C(100000000)
/* A steering thread that has not been seen for so long (it looks in each second) has a policy that does not come back. */
#define GONE_NS UINT64_C(3000000000)
/* Pages evicted by one call at most; it looks at the watermarks and at who calls it off after each batch of them. */
#define STEP_PAGES 65536
/* Orders carried out before the watermarks are looked at again. */
#define ORDERS_STEP 128
/* When nothing could be evicted, look again after this: pins and DMA end without telling. */
#define EXHAUSTED_NS UINT64_C(10000000)
#define STACK_BYTES ((size_t)256 << 10)

static uint64_t free_frames(uswap_pool *pool) {
    return frame_pool_free(&pool->frames);
}

static uint64_t low_frames(uswap_pool *pool) {
    return atomic_load_explicit(&pool->frames.low_frames, memory_order_relaxed);
}

static uint64_t high_frames(uswap_pool *pool) {
    return atomic_load_explicit(&pool->frames.high_frames, memory_order_relaxed);
}

/* How many more frames must leave for the high watermark, beyond those that are being written now. */
static uint64_t frames_short(uswap_pool *pool) {
    uint64_t have = free_frames(pool) + pool->reclaim_context.writing[false], high = high_frames(pool);
    return high > have ? high - have : 0;
}

/* Somebody wants this thread to come to an end soon: the pool's owner, who steers and is to go, or who closes the gate. */
static bool is_called_off(uswap_pool *pool, actor who) {
    return atomic_load(&pool->native.stop) || (who == ACTOR_STEERED && atomic_load(&pool->native.detaching)) ||
           atomic_load(&pool->gate.closed);
}

bool reclaimer_is_led(const uswap_pool *pool) {
    return atomic_load(&pool->native.policy) && clock_now_ns() <= atomic_load(&pool->native.steered_ns) + GONE_NS;
}

/* Whether pages become inactive by age: where a policy says what is aged, nothing is by age, as long as it says anything at all. */
static bool is_by_age(uswap_pool *pool, actor who) {
    return !atomic_load(&pool->native.policy) || (who == ACTOR_NATIVE && !reclaimer_is_led(pool));
}

/* Evicts until the high watermark is reached, up to pages, makes sure of what will be wanted next, and waits for the writes. While these
 * are under way the next pages leave, if frames are short again: neither disk nor processor waits for the other. Return: frames that came
 * free. Context: reclaim_lock held, in the gate. */
static uint64_t evict(uswap_pool *pool, actor who, uint64_t pages) {
    context *ctx = &pool->reclaim_context;
    uint64_t freed = 0, ahead = 0, tried = 0, got;
    ctx->who = who;
    do {
        uint64_t want = MIN_OF(frames_short(pool), pages - freed);
        tried += want;
        got = want > 0 ? page_out_oldest(ctx, want) : 0;
        freed += got;
        if (got > 0)
            atomic_store(&pool->native.exhausted, 0);
        /* Bounded: pages that leave nothing to be kept would have it go on for ever. */
        if (ahead < inactive_target(pool) + freed && is_by_age(pool, who)) {
            uint64_t out = page_out_ahead(ctx);
            ahead += out;
            got += out;
        }
        context_submit(ctx);
        while (context_complete(ctx, got == 0)) /* nothing to do but to wait */
            got = 1;
    } while (got > 0 && freed < pages && !is_called_off(pool, who));
    context_drain(ctx);
    atomic_store(&pool->native.exhausted, freed == 0 && tried > 0);
    return freed;
}

/* Carries out what a policy has ordered, a part at a time, and frees frames in between. Where its orders leave frames short, the oldest pages
 * leave. Return and context as evict. */
static uint64_t follow(uswap_pool *pool) {
    context *ctx = &pool->reclaim_context;
    uint64_t done = 0, dropped, taken, ended;
    uint64_t left = frames_short(pool); /* what is short later is for the next decision */
    ctx->who = ACTOR_STEERED;
    do {
        /* In parts: the frames of those that are dropped are for the copies of those that are aged. */
        dropped = left > 0 ? inactive_drop(ctx, MIN_OF(left, (uint64_t)ORDERS_STEP)) : 0;
        left -= MIN_OF(left, dropped);
        uint64_t out = page_out_ordered(ctx, ORDERS_STEP, &taken);
        context_submit(ctx);
        for (ended = 0; context_complete(ctx, dropped + taken + ended == 0);)
            ended++;
        done += dropped + out;
    } while (dropped + taken + ended > 0 && !is_called_off(pool, ACTOR_STEERED));
    page_in_ordered(ctx);
    context_submit(ctx);
    context_drain(ctx);
    return done + (free_frames(pool) < low_frames(pool) ? evict(pool, ACTOR_STEERED, left) : 0);
}

/* ---- the native thread ---- */

/* Below the low watermark; whoever steers had his chance. Return: false if there was nothing to evict. */
static bool refill(uswap_pool *pool) {
    small_lock_acquire(&pool->reclaim_lock);
    do {
        gate_enter(&pool->gate);
        evict(pool, ACTOR_NATIVE, STEP_PAGES);
        gate_leave(&pool->gate);
    } while (!reclaimer_is_exhausted(pool) && free_frames(pool) < high_frames(pool) &&
             !atomic_load(&pool->native.stop));
    small_lock_release(&pool->reclaim_lock);
    return !reclaimer_is_exhausted(pool);
}

/* Gives the steering thread its time. Return: true if it has done nothing for that long and frames are still short. */
static bool is_late(uswap_pool *pool) {
    reclaimer *self = &pool->native;
    uint64_t begin = clock_now_ns();
    if (self->missed_ns > atomic_load(&self->steered_ns) && begin < self->missed_ns + FORGIVEN_NS)
        return free_frames(pool) < low_frames(pool);
    while (atomic_load(&self->attached) && !atomic_load(&self->stop)) {
        if (free_frames(pool) >= low_frames(pool))
            return false;
        uint64_t now = clock_now_ns(), since = MAX_OF(begin, atomic_load(&self->steered_ns));
        if (now >= since + LATE_NS) {
            if (small_lock_try(&pool->reclaim_lock)) {
                small_lock_release(&pool->reclaim_lock);
                self->missed_ns = now;
                return true;
            }
            since = now; /* it is at work, and the disk is slow */
        }
        event_wait(&self->pressure, event_count(&self->pressure), since + LATE_NS - now);
    }
    return free_frames(pool) < low_frames(pool);
}

/* Sleeps until free frames fall below the low watermark, something else is to be done, or the time is over (0: no limit). */
static void await_pressure(uswap_pool *pool, uint32_t seen, uint64_t timeout_ns) {
    atomic_store(&pool->native.signalled, 0);
    if (free_frames(pool) >= low_frames(pool)) /* looked at after signalled was cleared: watch_low cannot be missed */
        event_wait(&pool->native.pressure, seen, timeout_ns);
}

static void *run(void *argument) {
    uswap_pool *pool = argument;
    reclaimer *self = &pool->native;
    prctl(PR_SET_NAME, "uswap-reclaim");
    for (;;) {
        uint32_t seen = event_count(&self->pressure);
        /* Looked at after the count: who stops this thread signals, and it is not slept through. */
        if (atomic_load(&self->stop))
            break;
        if (free_frames(pool) >= low_frames(pool))
            await_pressure(pool, seen, 0);
        else if (is_late(pool) && !refill(pool))
            event_wait(&self->pressure, event_count(&self->pressure), EXHAUSTED_NS);
    }
    return NULL;
}

int reclaimer_start(uswap_pool *pool) {
    if (!pool->options.background)
        return 0;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    int status = pthread_create(&pool->native.thread, &attributes, run, pool);
    pthread_attr_destroy(&attributes);
    pool->native.started = status == 0;
    return -status;
}

void reclaimer_stop(uswap_pool *pool) {
    atomic_store(&pool->native.stop, 1);
    event_signal(&pool->native.pressure);
    if (pool->native.started)
        pthread_join(pool->native.thread, NULL);
}

/* ---- steering from outside ---- */

EXPORT int uswap_reclaimer_attach(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    uint32_t nobody = 0;
    atomic_store(&pool->native.detaching, 0);
    if (!atomic_compare_exchange_strong(&pool->native.attached, &nobody, 1))
        status =
            error_set(err, USWAP_E_BUSY, 0, "reclaimer", NULL, "another thread steers this pool's reclaim already");
    api_leave(&guard);
    return status;
}

EXPORT int uswap_reclaimer_detach(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    atomic_store(&pool->native.detaching, 1);
    atomic_store(&pool->native.attached, 0);
    event_signal(&pool->native.pressure);
    api_leave(&guard);
    return 0;
}

/* Brackets what a steering thread does; end gives reclaim_lock back. Context: reclaim_lock held. */
static void steer_begin(uswap_pool *pool) {
    atomic_store(&pool->native.steered_ns, clock_now_ns());
    FAILPOINT(reclaimer_late);
    gate_enter(&pool->gate);
}

static void steer_end(uswap_pool *pool) {
    gate_leave(&pool->gate);
    atomic_store(&pool->native.steered_ns, clock_now_ns());
    small_lock_release(&pool->reclaim_lock);
}

/* Frames from what the policy has prepared, without asking it again: nothing is to be decided, and nothing to be written. Return: false: it
 * has prepared too little, or somebody else is at it. */
static bool drop_prepared(uswap_pool *pool) {
    uint64_t want = frames_short(pool);
    if (!atomic_load(&pool->native.policy) || atomic_load(&pool->events_waiting) ||
        ring_length(&pool->orders.rings[ORDER_EVICT]) < want || !small_lock_try(&pool->reclaim_lock))
        return false;
    pool->reclaim_context.who = ACTOR_STEERED;
    steer_begin(pool);
    uint64_t dropped = inactive_drop_prepared(&pool->reclaim_context, want);
    steer_end(pool);
    return dropped >= want;
}

EXPORT int uswap_reclaimer_wait(uswap_pool *pool, uint64_t timeout_ns, uswap_pressure *pressure, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    reclaimer *native = &pool->native;
    uint64_t deadline = clock_now_ns() + timeout_ns, now;
    while ((now = clock_now_ns()) < deadline) {
        uint32_t seen = event_count(&native->pressure);
        if (atomic_load(&native->detaching) || atomic_load(&native->stop))
            break;
        /* Where the last eviction found nothing, the next one waits for a sign, or for the time to be over. */
        bool exhausted = reclaimer_is_exhausted(pool);
        frame_pool_narrow(&pool->frames);
        if (free_frames(pool) < low_frames(pool) && drop_prepared(pool))
            continue;
        if ((free_frames(pool) < low_frames(pool) && !exhausted) || atomic_load(&pool->events_waiting))
            break;
        if (exhausted) {
            event_wait(&native->pressure, seen, MIN_OF(deadline - now, EXHAUSTED_NS));
            break; /* worth another try */
        } else {
            await_pressure(pool, seen, deadline - now);
        }
    }
    *pressure = (uswap_pressure){.free_frames = free_frames(pool),
                                 .low_frames = low_frames(pool),
                                 .high_frames = high_frames(pool),
                                 .wakeups = atomic_load(&native->wakeups),
                                 .stopping = atomic_load(&native->detaching) || atomic_load(&native->stop)};
    api_leave(&guard);
    return 0;
}

EXPORT int64_t uswap_policy_step(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->reclaim_lock);
    steer_begin(pool);
    uint64_t done = follow(pool);
    steer_end(pool);
    api_leave(&guard);
    return (int64_t)done;
}

EXPORT int64_t uswap_reclaimer_evict(uswap_pool *pool, uint64_t pages, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->reclaim_lock);
    steer_begin(pool);
    uint64_t freed = evict(pool, ACTOR_STEERED, pages);
    steer_end(pool);
    api_leave(&guard);
    return (int64_t)freed;
}
