/*
 * size.c - how much memory copies have: what they save, weighed against what the pages cost whose frames they take.
 *
 * A page that left d evictions ago would still be here, had there been d frames more for pages; with T frames of copies, of which one holds r, it is
 * here if d is less than r T. So a count of the pages that faults wait for, by that distance (which every slot remembers, shadow.h), says what any T would
 * save: there is no need to try. What a smaller T' gives back to pages, d < T - T', costs nothing any more; what a larger one takes from
 * them is touched as often as inactive pages are, of which one is rescued now and then: that is the end of the list that it takes.
 */
#include "compressed/compressed.h"

#include "pool.h"
#include "reclaim/inactive.h"
#include "swap/shadow.h"

/* Sizes that are weighed: so many sixteenths of the limit. The most is USWAP_COMPRESS_PERCENT_MAX. */
#define STEPS 16
#define STEPS_MOST 12
/* It changes by so many at most, so that what a change does is seen before the next. */
#define STEPS_AT_ONCE 2
/* Evictions between two decisions: a part of the limit, and no fewer than these. */
#define DECISION_PART 8
#define DECISION_LEAST 1024
/* To change, so much must be saved. */
#define WORTH 0.95
/* While there is no memory for copies, one page in so many is compressed all the same. */
#define SAMPLE 32
/* What it costs to expand a page and to compress one, and the fault about it, without the disk: by the fault thread, and inline
 * (benchmarks/bench_compressed.py). */
#define EXPAND_NS 1500.0
#define COMPRESS_NS 1500.0
#define FAULT_NS 15000.0
#define FAULT_INLINE_NS 5000.0
/* One in so many is the newest. */
#define DISK_SHARE 16

uint64_t compressed_most(uswap_pool *pool) {
    uint64_t limit = atomic_load(&pool->frames.budget->limit_frames);
    uint64_t others = RESERVE_FRAMES + LEAST_FAULT_FRAMES + pool->bounce_frames +
                      atomic_load(&pool->frames.budget->metadata_frames) + STAT_GET(pool, locked_pages) +
                      STAT_GET(pool, pinned_pages);
    return MIN_OF(limit * STEPS_MOST / STEPS, limit - MIN_OF(limit, others));
}

uint64_t compressed_target(const uswap_pool *pool) {
    if (pool->options.compress_percent == 0)
        return atomic_load_explicit(&pool->compressed.target, memory_order_relaxed);
    return atomic_load(&pool->frames.budget->limit_frames) * pool->options.compress_percent / 100;
}

/* ---- what is noted ---- */

void compressed_tried(uswap_pool *pool, uint32_t bytes) {
    copy_demand *d = &pool->compressed.demand;
    atomic_fetch_add_explicit(&d->tried, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&d->kept, bytes > 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&d->kept_bytes, bytes, memory_order_relaxed);
}

void compressed_note_wanted(uswap_pool *pool, unsigned distance_code) {
    atomic_fetch_add_explicit(&pool->compressed.demand.wanted[distance_code], 1, memory_order_relaxed);
}

void compressed_note_disk(uswap_pool *pool, uint64_t ns) {
    _Atomic uint64_t *mean = &pool->compressed.demand.disk_ns;
    uint64_t each = ns / MAX_OF(atomic_load_explicit(&pool->reads_in_flight, memory_order_relaxed), UINT64_C(1));
    uint64_t before = atomic_load_explicit(mean, memory_order_relaxed);
    atomic_store_explicit(mean, before - before / DISK_SHARE + each / DISK_SHARE, memory_order_relaxed);
}

/* ---- the decision ---- */

typedef struct {
    double wanted[DISTANCE_CODES];
    double evictions; /* since the last decision */
    double reach;     /* evictions back, for each frame of copies */
    double rescued;   /* how often a page is touched that one frame more would take */
    double disk_ns, fault_ns;
    double limit, now;   /* frames */
    double compressible; /* of the pages, this part can be kept */
} weights;

/* Pages waited for whose distance is between two; within the range of a code all are as likely. */
static double wanted_within(const weights *w, double low, double high) {
    double sum = 0;
    for (unsigned code = 1; code < DISTANCE_CODES; code++) {
        double first = (double)shadow_first(code), last = (double)shadow_first(code + 1);
        double from = MAX_OF(first, low), to = MIN_OF(last, high);
        if (from < to)
            sum += w->wanted[code] * (to - from) / (last - first);
    }
    return sum;
}

/* Nanoseconds between two decisions, with so many frames for copies. */
static double cost_of(const weights *w, double frames) {
    double less = w->now - frames; /* more for pages */
    double from = MAX_OF(less, 0.0), to = less + frames * w->reach;
    double near = wanted_within(w, from, to), expanded = w->compressible * near;
    double read = near - expanded + wanted_within(w, MAX_OF(to, from), 1e18) + w->wanted[0];
    double taken = less < 0 ? -less * w->rescued : 0;
    return read * (w->fault_ns + w->disk_ns) + (expanded + taken) * (w->fault_ns + EXPAND_NS) +
           (frames > 0 ? w->evictions * COMPRESS_NS : 0);
}

static double step_to(const weights *w) {
    double best = w->now, least = cost_of(w, w->now) * (w->now > 0 ? WORTH : WORTH * WORTH);
    for (int step = 0; step <= STEPS_MOST; step++) {
        double frames = w->limit * step / STEPS, cost = cost_of(w, frames);
        if (cost < least) {
            best = frames;
            least = cost;
        }
    }
    double most = w->limit * STEPS_AT_ONCE / STEPS;
    return best > w->now ? MIN_OF(best, w->now + most) : MAX_OF(best, w->now - most);
}

static uint64_t halve(_Atomic uint64_t *counter) {
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_fetch_sub_explicit(counter, value - value / 2, memory_order_relaxed);
    return value;
}

static void weigh(uswap_pool *pool, weights *w, uint64_t evictions, uint64_t rescues) {
    compressed_copies *c = &pool->compressed;
    copy_demand *d = &c->demand;
    for (int code = 0; code < DISTANCE_CODES; code++)
        w->wanted[code] = (double)halve(&d->wanted[code]);
    double offered = (double)halve(&d->offered), tried = (double)halve(&d->tried), kept = (double)halve(&d->kept);
    double bytes = (double)halve(&d->kept_bytes);
    w->compressible = tried > 0 ? kept / tried : 0;
    w->evictions = 2 * (double)evictions; /* as the others are sums of halves */
    w->limit = (double)atomic_load(&pool->frames.budget->limit_frames);
    w->now = (double)atomic_load(&c->target);
    w->disk_ns = (double)atomic_load(&d->disk_ns);
    w->fault_ns = pool->options.fault_mode == USWAP_FAULTS_INLINE ? FAULT_INLINE_NS : FAULT_NS;
    w->rescued = 2 * (double)rescues / MAX_OF((double)inactive_frames(pool), w->limit / STEPS);
    /* Of all that leave, so many get a copy; the others make the log no longer. */
    double share = MIN_OF(w->compressible * offered / w->evictions, 1.0);
    w->reach = kept > 0 ? (double)PAGE_BYTES / (bytes / kept) / MAX_OF(share, 1e-3) : 1;
}

static void decide(uswap_pool *pool) {
    copy_demand *d = &pool->compressed.demand;
    uint64_t clock = atomic_load_explicit(&pool->eviction_clock, memory_order_relaxed);
    uint64_t rescues = STAT_GET(pool, rescues), limit = atomic_load(&pool->frames.budget->limit_frames);
    weights w;
    if (clock - d->clock < MAX_OF(limit / DECISION_PART, (uint64_t)DECISION_LEAST))
        return;
    weigh(pool, &w, clock - d->clock, rescues - d->rescues);
    d->clock = clock;
    d->rescues = rescues;
    atomic_store(&pool->compressed.target, (uint64_t)step_to(&w));
}

bool compressed_offered(uswap_pool *pool) {
    copy_demand *d = &pool->compressed.demand;
    uint64_t number = atomic_fetch_add_explicit(&d->offered, 1, memory_order_relaxed);
    if (number % SAMPLE != 0)
        return compressed_target(pool) > 0;
    if (small_lock_try(&d->deciding)) {
        decide(pool);
        small_lock_release(&d->deciding);
    }
    return true;
}
