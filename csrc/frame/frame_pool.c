#include "frame/frame_pool.h"

#include "base/memory.h"
#include "fault/fault_thread.h"
#include "frame/warm.h"
#include "pool.h"
#include "shared/family.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* Free frames below which reclaim starts, as a share of the limit, and the bounds of that. What is free is of no use to anybody, and inactive
 * frames are had in an instant, so it is little; but a stream needs 512 at once, again and again: while one has found none, it is more. At 2
 * GB/s of page-out 8 MiB are 4 ms of head start for the reclaimer. */
#define LOW_SHARE 64
#define WIDE_SHARE 16
#define LOW_FRAMES_MAX 4096
/* Pages that leave together lie together: not too few of them. */
#define LOW_FRAMES_LEAST 128
#define WIDE_NS UINT64_C(100000000)

static void make_warm(frame_pool *frames) {
    warm_frames *warm = &frames->warm;
    warm->places = arena_take(&frames->arenas[ARENA_FILL], WARM_FRAMES, &warm->first);
    for (uint32_t i = warm->places; i-- > 0;)
        warm->stack[warm->idle++] = warm->first + i;
}

int frame_pool_init(frame_pool *frames, frame_budget *budget, uint32_t places, bool recycle) {
    *frames = (frame_pool){.budget = budget, .recycle = recycle};
    frame_id next = 0;
    int status = 0;
    for (int i = 0; i < ARENA_KINDS && status == 0; i++) {
        status = arena_init(&frames->arenas[i], next, places);
        next += frames->arenas[i].places;
    }
    if (status == 0) {
        frames->idle_capacity = next;
        frames->idle = memory_map((size_t)frames->idle_capacity * sizeof *frames->idle);
        status = frames->idle ? 0 : -ENOMEM;
    }
    if (status == 0)
        make_warm(frames);
    return status;
}

void frame_pool_fini(frame_pool *frames) {
    for (int i = 0; i < ARENA_KINDS; i++)
        arena_fini(&frames->arenas[i]);
    memory_unmap(frames->idle, (size_t)frames->idle_capacity * sizeof *frames->idle);
    frames->idle = NULL;
}

/* So many frames are used now. Once they have been within the limit, with the reserve free, no charge takes them beyond but the loans
 * of the reserve, which end by themselves: whoever lowers the limit need not wait for a moment without loans. */
static void note_met(frame_pool *frames, uint64_t used) {
    if (unlikely(atomic_load(&frames->unmet)) && used + RESERVE_FRAMES <= atomic_load(&frames->budget->limit_frames))
        atomic_store(&frames->unmet, 0);
}

static void set_watermarks(frame_pool *frames, uint64_t low) {
    atomic_store(&frames->low_frames, low);
    atomic_store(&frames->high_frames, 2 * low);
}

void frame_pool_widen(frame_pool *frames) {
    atomic_store(&frames->widened_ns, clock_now_ns());
    if (atomic_load(&frames->low_frames) < atomic_load(&frames->wide_low))
        set_watermarks(frames, atomic_load(&frames->wide_low));
}

void frame_pool_narrow(frame_pool *frames) {
    uint64_t narrow = atomic_load(&frames->narrow_low);
    if (atomic_load(&frames->low_frames) > narrow && clock_now_ns() > atomic_load(&frames->widened_ns) + WIDE_NS)
        set_watermarks(frames, narrow);
}

void frame_pool_set_limit(frame_pool *frames, uint64_t limit_frames, bool watermarks) {
    uint64_t wide = MIN_OF(limit_frames / WIDE_SHARE, (uint64_t)LOW_FRAMES_MAX);
    uint64_t narrow = MIN_OF(MAX_OF(limit_frames / LOW_SHARE, (uint64_t)LOW_FRAMES_LEAST), wide);
    atomic_store(&frames->narrow_low, watermarks ? narrow : 0);
    atomic_store(&frames->wide_low, watermarks ? wide : 0);
    set_watermarks(frames, atomic_load(&frames->narrow_low));
    atomic_store(&frames->budget->limit_frames, limit_frames);
    /* Sequentially consistent with note_met: frames that come free from here on see that the limit is not met, or we see them gone. */
    atomic_store(&frames->unmet, 1);
    note_met(frames, atomic_load(&frames->budget->used_frames));
}

uint64_t frame_pool_free(const frame_pool *frames) {
    const frame_budget *budget = frames->budget;
    uint64_t limit = atomic_load_explicit(&budget->limit_frames, memory_order_relaxed);
    uint64_t used = atomic_load_explicit(&budget->used_frames, memory_order_relaxed);
    /* Resting ones are for copies: to give one to somebody else takes a system call. */
    uint64_t idle = frames->recycle ? atomic_load_explicit(&budget->idle_frames, memory_order_relaxed) : 0;
    return used + RESERVE_FRAMES < limit + idle ? limit + idle - used - RESERVE_FRAMES : 0;
}

static void note_peak(uswap_pool *pool, uint64_t used) {
    uint64_t peak = STAT_GET(pool, peak_frames);
    while (used > peak && !atomic_compare_exchange_weak_explicit(&pool->counters->peak_frames, &peak, used,
                                                                 memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* Tells the reclaimers when free frames fall below the low watermark: once, until one of them goes to sleep again. */
static void watch_low(uswap_pool *pool) {
    if (frame_pool_free(&pool->frames) < atomic_load_explicit(&pool->frames.low_frames, memory_order_relaxed) &&
        !atomic_load_explicit(&pool->native.signalled, memory_order_relaxed) &&
        !atomic_exchange(&pool->native.signalled, 1)) {
        atomic_fetch_add_explicit(&pool->native.wakeups, 1, memory_order_relaxed);
        event_signal(&pool->native.pressure);
        struct group *with = family_limiter(pool);
        if (unlikely(with != NULL))
            grants_want(with);
    }
}

static bool pop_idle(frame_pool *frames, frame_id *frame) {
    bool found = false;
    if (atomic_load_explicit(&frames->budget->idle_frames, memory_order_relaxed) == 0)
        return false;
    small_lock_acquire(&frames->idle_lock);
    if (frames->idle_count > 0) {
        *frame = frames->idle[--frames->idle_count];
        atomic_fetch_sub_explicit(&frames->budget->idle_frames, 1, memory_order_relaxed);
        found = true;
    }
    small_lock_release(&frames->idle_lock);
    return found;
}

/* Idle frames with neighbouring places of one arena from the top of the stack, at most most of them. Return: how many. */
static uint32_t pop_idle_run(frame_pool *frames, uint64_t most, frame_id *first) {
    uint32_t count = 0;
    small_lock_acquire(&frames->idle_lock);
    const frame_id *end = frames->idle + frames->idle_count; /* the lowest place of a run lies on top */
    while (count < most && count < frames->idle_count && end[-1] + count == end[-1 - (ptrdiff_t)count] &&
           (count == 0 || (end[-1] + count) % frames->arenas[0].places != 0))
        count++;
    if (count > 0)
        *first = end[-1];
    frames->idle_count -= count;
    atomic_fetch_sub_explicit(&frames->budget->idle_frames, count, memory_order_relaxed);
    small_lock_release(&frames->idle_lock);
    return count;
}

static void forget_frames(uswap_pool *pool, frame_id first, uint32_t count) {
    /* A write that is still pinning the frame keeps it until it ends; what it writes is what it pinned (K6). */
    int status = madvise(frame_address(pool, first), (size_t)count << PAGE_SHIFT, MADV_DONTNEED);
    INVARIANT(I1, status == 0);
}

void frame_give_places(uswap_pool *pool, frame_id first, uint32_t count) {
    arena_give(frame_arena(&pool->frames, first), first, count);
}

/* Idle frames exist and are counted; fresh frames need their count. */
uint64_t frame_pool_retire(uswap_pool *pool, uint64_t n) {
    frame_id first;
    uint32_t count;
    uint64_t retired = warm_retire(pool, n);
    for (; retired < n && (count = pop_idle_run(&pool->frames, n - retired, &first)) > 0; retired += count) {
        forget_frames(pool, first, count);
        frame_give_places(pool, first, count);
        note_met(&pool->frames, atomic_fetch_sub(&pool->frames.budget->used_frames, count) - count);
    }
    return retired;
}

static bool try_charge(uswap_pool *pool, uint64_t n, frame_purpose purpose) {
    frame_budget *budget = pool->frames.budget;
    uint64_t keep = purpose == FRAME_RESERVE ? 0 : RESERVE_FRAMES;
    if (purpose == FRAME_AHEAD)
        keep += atomic_load_explicit(&pool->frames.low_frames, memory_order_relaxed) / 2;
    uint64_t used = atomic_load_explicit(&budget->used_frames, memory_order_relaxed);
    do {
        if (used + n + keep > atomic_load_explicit(&budget->limit_frames, memory_order_relaxed))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&budget->used_frames, &used, used + n, memory_order_seq_cst,
                                                    memory_order_relaxed));
    note_peak(pool, used + n);
    return true;
}

/* The few cases in which a refusal would be worse than a frame too many (I9): a loan of the reserve while metadata or locked
 * pages have eaten it, and a fault for which nothing can be evicted. */
static bool charge_anyway(uswap_pool *pool, uint64_t n, frame_purpose purpose) {
    if (purpose == FRAME_AHEAD)
        return false;
    if (purpose == FRAME_FAULT) {
        uint32_t grant = atomic_load(&pool->frames.over_grant);
        do {
            if (grant < n)
                return false;
        } while (!atomic_compare_exchange_weak(&pool->frames.over_grant, &grant, grant - (uint32_t)n));
    }
    frame_charge_over(pool, n);
    return true;
}

bool frame_charge(uswap_pool *pool, uint64_t n, frame_purpose purpose) {
    bool charged = try_charge(pool, n, purpose);
    if (!charged && atomic_load_explicit(&pool->frames.budget->idle_frames, memory_order_relaxed) > 0) {
        frame_pool_retire(pool, n);
        charged = try_charge(pool, n, purpose);
    }
    if (!charged)
        charged = charge_anyway(pool, n, purpose);
    watch_low(pool);
    return charged;
}

void frame_charge_over(uswap_pool *pool, uint64_t n) {
    note_peak(pool, atomic_fetch_add(&pool->frames.budget->used_frames, n) + n);
}

/* Sequentially consistent against the fault thread's "set wants_frames, then try once more": one of the two sees the other. */
static void tell_waiters(uswap_pool *pool) {
    if (atomic_load(&pool->faults.wants_frames) && atomic_exchange(&pool->faults.wants_frames, 0))
        fault_thread_wake(pool);
    if (atomic_load(&pool->frame_waiters) > 0)
        event_signal(&pool->frames_freed);
}

void frame_uncharge(uswap_pool *pool, uint64_t n) {
    uint64_t before = atomic_fetch_sub(&pool->frames.budget->used_frames, n);
    INVARIANT(I1, before >= n);
    note_met(&pool->frames, before - n);
    tell_waiters(pool);
}

bool frame_take_copy(uswap_pool *pool, frame_id *frame, bool *lent) {
    *lent = !pop_idle(&pool->frames, frame);
    return !*lent || frame_take_fill(pool, 1, FRAME_RESERVE, frame) == 1;
}

uint32_t frame_take_fill(uswap_pool *pool, uint32_t want, frame_purpose purpose, frame_id *first) {
    if (pool->frames.recycle && pop_idle(&pool->frames, first))
        return 1;
    while (want > 0 && !frame_charge(pool, want, purpose))
        want /= 2; /* fewer will do */
    if (want == 0)
        return 0;
    uint32_t got = arena_take(&pool->frames.arenas[ARENA_FILL], want, first);
    if (got < want)
        frame_uncharge(pool, want - got);
    return got;
}

bool frame_take_one(uswap_pool *pool, frame_purpose purpose, frame_id *frame) {
    return warm_take(pool, purpose, frame) || frame_take_fill(pool, 1, purpose, frame) == 1;
}

uint32_t frame_take_catch(uswap_pool *pool, uint32_t want, frame_id *first) {
    return arena_take(&pool->frames.arenas[ARENA_CATCH], want, first);
}

static void make_idle(uswap_pool *pool, frame_id first, uint32_t count) {
    frame_pool *frames = &pool->frames;
    small_lock_acquire(&frames->idle_lock);
    for (uint32_t i = count; i-- > 0;) /* so that they come out in the order of their places */
        frames->idle[frames->idle_count++] = first + i;
    atomic_fetch_add(&frames->budget->idle_frames, count);
    small_lock_release(&frames->idle_lock);
    tell_waiters(pool);
}

bool frame_rest(uswap_pool *pool, frame_id frame) {
    frame_pool *frames = &pool->frames;
    const frame_budget *budget = frames->budget;
    bool over = atomic_load_explicit(&budget->used_frames, memory_order_relaxed) + RESERVE_FRAMES >
                atomic_load_explicit(&budget->limit_frames, memory_order_relaxed);
    bool ours = arena_has(&frames->arenas[ARENA_FILL], frame) && !warm_has(frames, frame);
    uint64_t most = MIN_OF(atomic_load_explicit(&budget->limit_frames, memory_order_relaxed) / RESTING_SHARE,
                           (uint64_t)RESTING_MAX);
    if (!ours || over || atomic_load_explicit(&budget->idle_frames, memory_order_relaxed) >= most)
        return false;
    make_idle(pool, frame, 1);
    return true;
}

void frame_rest_or_drop(uswap_pool *pool, frame_id frame) {
    if (!frame_rest(pool, frame))
        frame_drop(pool, frame, 1);
}

/* Neighbours of one kind: warm or not. */
static void drop_alike(uswap_pool *pool, frame_id first, uint32_t count) {
    frame_budget *budget = pool->frames.budget;
    bool over = atomic_load_explicit(&budget->used_frames, memory_order_relaxed) + RESERVE_FRAMES >
                atomic_load_explicit(&budget->limit_frames, memory_order_relaxed);
    if (warm_has(&pool->frames, first)) {
        for (uint32_t i = 0; i < count; i++)
            warm_drop(pool, first + i);
        return;
    }
    if (pool->frames.recycle && !over) {
        make_idle(pool, first, count);
        return;
    }
    forget_frames(pool, first, count);
    frame_give_places(pool, first, count);
    frame_uncharge(pool, count);
}

void frame_drop(uswap_pool *pool, frame_id first, uint32_t count) {
    for (uint32_t alike; count > 0; first += alike, count -= alike) {
        for (alike = 1; alike < count && warm_has(&pool->frames, first + alike) == warm_has(&pool->frames, first);)
            alike++;
        drop_alike(pool, first, alike);
    }
}

void frame_run_end(uswap_pool *pool, frame_run *run) {
    if (run->count > 0)
        frame_drop(pool, run->first, run->count);
    run->count = 0;
}

void frame_run_drop(uswap_pool *pool, frame_run *run, frame_id frame) {
    if (run->count > 0 && frames_adjoin(&pool->frames, run->first + run->count - 1, frame)) {
        run->count++;
        return;
    }
    frame_run_end(pool, run);
    *run = (frame_run){.first = frame, .count = 1};
}

arena *frame_arena(frame_pool *frames, frame_id frame) {
    for (int i = 0; i < ARENA_KINDS; i++)
        if (arena_has(&frames->arenas[i], frame))
            return &frames->arenas[i];
    return NULL;
}

void *frame_address(const uswap_pool *pool, frame_id frame) {
    /* All arenas have the same number of places. */
    const arena *a = &pool->frames.arenas[frame / pool->frames.arenas[0].places];
    return arena_address(a, frame);
}

/* What of so many pages of metadata is beyond the free ones. */
static uint64_t charged_of(uint64_t pages) {
    return pages > METADATA_FREE_PAGES ? pages - METADATA_FREE_PAGES : 0;
}

void frame_charge_metadata(uswap_pool *pool, uint64_t pages) {
    frame_budget *budget = pool->frames.budget;
    uint64_t before = atomic_fetch_add(&budget->metadata_pages, pages);
    uint64_t charged = charged_of(before + pages) - charged_of(before);
    if (charged > 0) {
        atomic_fetch_add(&budget->metadata_frames, charged);
        frame_charge_over(pool, charged);
        watch_low(pool);
    }
}

void frame_uncharge_metadata(uswap_pool *pool, uint64_t pages) {
    frame_budget *budget = pool->frames.budget;
    uint64_t before = atomic_fetch_sub(&budget->metadata_pages, pages);
    uint64_t charged = charged_of(before) - charged_of(before - pages);
    if (charged > 0) {
        atomic_fetch_sub(&budget->metadata_frames, charged);
        frame_uncharge(pool, charged);
    }
}
