#include "fault/fault.h"

#include "base/failpoint.h"
#include "fault/poison.h"
#include "fault/uffd.h"
#include "frame/transport.h"
#include "frame/warm.h"
#include "reclaim/inactive.h"
#include "reclaim/sealed.h"
#include "swap/page_in.h"
#include "swap/page_in_ahead.h"
#include "swap/page_in_block.h"
#include "swap/page_in_cached.h"
#include "swap/page_in_filled.h"
#include "swap/swap_cache.h"

#include <errno.h>

#define FAULT_AROUND_MAX 64

typedef struct {
    context *ctx;
    uswap_pool *pool;
    region *r;
    size_t page;
    page_word *word;
    unsigned char *address;
    unsigned how;    /* bits of fault_how */
    bool read_ahead; /* the page belongs to a stream: look ahead when it is unlocked */
    bool absent;     /* nobody had asked for it */
} fault;

static fault_result result_of(int status) {
    return status == -EAGAIN ? FAULT_AGAIN : FAULT_GONE;
}

static void touched(fault *f, trace_kind kind) {
    trace_touch(f->pool, &f->pool->trace, kind, f->r, f->page, f->how & FAULT_WRITE);
}

static void count(fault *f, _Atomic uint64_t *kind) {
    atomic_fetch_add_explicit(kind, 1, memory_order_relaxed);
    STAT_ADD(f->pool, faults, 1);
    atomic_fetch_add_explicit(&f->r->faults, 1, memory_order_relaxed);
}

/* ---- RESIDENT ---- */

/* A late message, or a page the program has discarded behind our back. The kernel knows: zeroes go in only if nothing is
 * mapped. The frame is counted already. */
static fault_result serve_resident(fault *f) {
    size_t done;
    if ((f->how & FAULT_WRITE) && page_is_sealed(page_load(f->word))) {
        unseal_page(f->r, f->page, true);
        count(f, &f->pool->counters->write_faults);
        return FAULT_DONE;
    }
    int status = transport_zero(f->r->uffd, f->address, 1, &done);
    if (status == 0) {
        count(f, &f->pool->counters->zero_fills);
        touched(f, TRACE_FIRST);
        return FAULT_DONE;
    }
    if (status != -EEXIST)
        return result_of(status);
    STAT_ADD(f->pool, duplicate_faults, 1);
    if ((f->how &
         FAULT_WRITE)) /* it may be waiting for a write-protection that is left from a seal, or from a copy that was given up */
        uffd_write_protect(f->r->uffd, f->address, 1, false, true);
    return FAULT_DONE;
}

/* ---- ZERO ---- */

/* Pages of the same block of addresses beyond this one. */
static uint32_t left_in_block(const fault *f, bool upwards) {
    uint32_t within = (uint32_t)((uintptr_t)f->address / PAGE_BYTES % BLOCK_PAGES);
    return upwards ? BLOCK_PAGES - 1 - within : within;
}

/* Fresh pages beside this one that its stream of first touches will want: locked, in *count, this page included.
 * Return: the first of them by address. */
static size_t lock_around(fault *f, read_ahead_plan plan, size_t *pages) {
    size_t first = f->page;
    *pages = 1;
    if (plan.count == 0 || (plan.stride != 1 && plan.stride != -1))
        return first;
    uint32_t want = MIN_OF(plan.count, (uint32_t)FAULT_AROUND_MAX);
    want = MIN_OF(want, left_in_block(f, plan.stride > 0)); /* so that the next one may be taken whole */
    for (uint32_t i = 0; i < want; i++) {
        int64_t page = plan.stride > 0 ? (int64_t)(first + *pages) : (int64_t)first - 1;
        if (page < 0 || (uint64_t)page >= f->r->object.pages)
            break;
        page_word *word = &f->r->object.words[page];
        size_t chunk = (size_t)page / PAGE_WORDS_PER_CHUNK;
        metadata_touch(f->pool, f->r->object.touched, chunk, chunk);
        if (page_state_of(page_load(word)) != PAGE_ZERO || !page_try_lock(word))
            break;
        if (page_state_of(page_load(word)) != PAGE_ZERO) {
            page_unlock(word);
            break;
        }
        first = MIN_OF(first, (size_t)page);
        ++*pages;
    }
    return first;
}

static void page_arrived_fresh(fault *f, size_t page) {
    page_word *word = &f->r->object.words[page];
    page_set_state(word, PAGE_RESIDENT, SWAP_ENTRY_NONE);
    atomic_fetch_add_explicit(&f->r->mapped_pages, 1, memory_order_relaxed);
    STAT_ADD(f->pool, mapped_pages, 1);
    page_came(f->pool, f->r, page, USWAP_EVENT_FAULTED, REFAULT_NEVER);
}

/* A stream of first touches that enters a block takes all of it. */
static block_start take_block(fault *f, read_ahead_plan plan) {
    bool enters = plan.wide && left_in_block(f, plan.stride > 0) == BLOCK_PAGES - 1;
    return enters ? page_in_block_fresh(f->ctx, f->r, f->page) : BLOCK_UNFIT;
}

/* Frames are short, but more are coming: a stream that goes on page by page meanwhile only takes the processors from those who free them, and
 * its pages cost more to write than a block does. */
static bool should_wait(const fault *f) {
    return (f->how & FAULT_PATIENT) &&
           (atomic_load(&f->pool->writes_in_flight) > 0 || atomic_load(&f->pool->evictors) > 0);
}

static fault_result end_zero(fault *f, read_ahead_plan plan, size_t pages) {
    if (plan.count > 0)
        read_ahead_asked(&f->r->fresh, plan, (uint32_t)pages - 1);
    count(f, &f->pool->counters->zero_fills);
    touched(f, TRACE_FIRST);
    STAT_ADD(f->pool, fault_around_pages, pages - 1);
    return FAULT_DONE;
}

static fault_result serve_zero(fault *f) {
    size_t pages, done = 0, alone = 0;
    uint32_t most =
        atomic_load_explicit(&f->pool->trace.whole, memory_order_relaxed) ? 1 : f->pool->options.fault_around_pages;
    read_ahead_bounds bounds = {.window = most > 1 ? most : 0, .pages = f->r->object.pages};
    read_ahead_plan plan = read_ahead_fault(&f->r->fresh, (read_ahead_seen){.page = f->page}, bounds);
    block_start block = take_block(f, plan);
    if (block == BLOCK_STARTED)
        return end_zero(f, plan, BLOCK_PAGES);
    if (block == BLOCK_NO_FRAMES && should_wait(f)) {
        read_ahead_asked(&f->r->fresh, plan, 0);
        return FAULT_NO_FRAME;
    }
    if (!frame_charge(f->pool, 1, FRAME_FAULT))
        return FAULT_NO_FRAME;
    size_t first = lock_around(f, plan, &pages);
    size_t locked_first = first, locked = pages;
    if (pages > 1 && !frame_charge(f->pool, pages - 1, FRAME_AHEAD)) {
        first = f->page;
        pages = 1;
    }
    int status = pages > 1 && f->pool->use_move
                     ? transport_fresh(f->pool, f->r->uffd, region_address(f->r, first), pages, &done)
                     : transport_zero(f->r->uffd, region_address(f->r, first), pages, &done);
    if (pages > 1 && f->page - first >= done) /* the run ended before the page that matters */
        status = transport_zero(f->r->uffd, f->address, 1, &alone);
    if (alone)
        page_arrived_fresh(f, f->page);
    frame_uncharge(f->pool, pages - done - alone);
    for (size_t i = 0; i < done; i++)
        page_arrived_fresh(f, first + i);
    for (size_t page = locked_first; page < locked_first + locked; page++)
        if (page != f->page)
            page_unlock(&f->r->object.words[page]);
    if (status != 0)
        return status == -EEXIST ? FAULT_DONE : result_of(status);
    return end_zero(f, plan, MAX_OF(done, (size_t)1));
}

/* ---- FILLED ---- */

static fault_result serve_filled(fault *f) {
    size_t around;
    int status = page_in_filled(f->ctx, f->r, f->page, &around);
    STAT_ADD(f->pool, fault_around_pages, around);
    if (status == -ENOMEM)
        return FAULT_NO_FRAME;
    if (status != 0)
        return status == -EEXIST ? FAULT_DONE : result_of(status);
    count(f, &f->pool->counters->soft_faults);
    touched(f, TRACE_SOFT);
    return FAULT_DONE;
}

/* ---- SWAPPED ---- */

static void count_soft(fault *f, uint64_t flags) {
    count(f, &f->pool->counters->soft_faults);
    touched(f, flags & SLOT_AHEAD ? TRACE_HIT_AHEAD : TRACE_SOFT);
    if (flags & SLOT_AHEAD) {
        STAT_ADD(f->pool, read_ahead_hits, 1);
        f->read_ahead = true;
    }
}

/* Maps the frame, or a copy of a warm one. Return: 0 or -errno. */
static int put_in(fault *f, swap_entry entry, cache_state state, bool *sealed) {
    uint32_t done;
    frame_id frame = slot_frame_of(swap_cache_load(f->pool, entry));
    *sealed = false;
    if (!warm_has(&f->pool->frames, frame))
        return transport_in(f->pool, f->r->uffd, f->address, frame, 1, &done);
    *sealed = state == CACHE_CLEAN && !(f->how & FAULT_WRITE) && seal_wanted(f->pool, f->r, page_load(f->word), entry);
    return transport_warm_in(f->pool, f->r->uffd, f->address, frame, *sealed);
}

/* WRITING, or CLEAN as part of a block: the frame is busy with its write, or would not leave the block without splitting a huge page. So a copy
 * goes in. Return: FAULT_AGAIN also if the write has ended just now. */
static fault_result serve_copy(fault *f, swap_entry entry, bool protect) {
    frame_id frame;
    uint64_t flags = swap_cache_load(f->pool, entry);
    if (!frame_charge(f->pool, 1, FRAME_FAULT))
        return FAULT_NO_FRAME;
    if (!swap_cache_pin(f->pool, entry, &frame)) {
        frame_uncharge(f->pool, 1);
        return FAULT_AGAIN;
    }
    int status = transport_copy_in(f->pool, f->r->uffd, f->address, frame, protect);
    if (status == 0) {
        page_in_arrived(f->pool, f->r, f->page, entry, true, flags);
        if (protect)
            seal_page(f->r, f->page);
        count_soft(f, 0);
    } else {
        frame_uncharge(f->pool, 1);
    }
    if (swap_cache_unpin(f->pool, entry, &frame))
        frame_rest_or_drop(f->pool, frame);
    return status == 0 || status == -EEXIST ? FAULT_DONE : result_of(status);
}

/* Whether the one who touches an inactive block is likely to go through it: he has said so, or enters it at one end, or a stream leads there. To
 * bring all of it back for one page would keep 511 that nobody wants, at the expense of others that were wanted lately. */
static bool goes_through(const fault *f) {
    uint32_t advice = atomic_load_explicit(&f->r->advice, memory_order_relaxed);
    if (atomic_load_explicit(&f->pool->trace.whole, memory_order_relaxed))
        return false; /* a trace is to have each touch */
    if (advice != USWAP_ADVICE_NORMAL)
        return advice == USWAP_ADVICE_SEQUENTIAL;
    size_t within = (uintptr_t)f->address / PAGE_BYTES % BLOCK_PAGES;
    return within == 0 || within == BLOCK_PAGES - 1 || read_ahead_expects(&f->r->ahead, f->page);
}

/* A page of a block that waits in the cache. Return: whether it is served; else it goes in by itself. */
static bool serve_from_block(fault *f, swap_entry entry, uint64_t flags, fault_result *result) {
    bool inactive = flags & SLOT_STAYS, alone = inactive && !goes_through(f);
    *result = FAULT_DONE;
    if (!alone && page_in_block_touched(f->ctx, f->r, f->page, entry)) {
        count_soft(f, flags);
        return true;
    }
    if (!inactive)
        return false;
    f->read_ahead = true; /* so that a stream is found that begins here */
    bool protect = !(f->how & FAULT_WRITE) && seal_wanted(f->pool, f->r, page_load(f->word), entry);
    *result = serve_copy(f, entry, protect);
    if (*result == FAULT_NO_FRAME && page_in_block_touched(f->ctx, f->r, f->page, entry)) { /* that takes none */
        count_soft(f, flags);
        *result = FAULT_DONE;
    }
    return true;
}

/* Whether an inactive page's frame lies where copies lie: a copy of it goes in again, for what moving costs (reclaim/sealed_age.c). */
static bool is_copy(const fault *f, uint64_t slot) {
    const frame_pool *frames = &f->pool->frames;
    frame_id frame = slot_frame_of(slot);
    return (slot & SLOT_STAYS) && arena_has(&frames->arenas[ARENA_FILL], frame) && !warm_has(frames, frame);
}

/* The frame itself goes in, and those of the neighbours that a stream will touch next. */
static fault_result serve_inactive(fault *f, uint64_t flags, bool alone) {
    size_t around;
    int status = page_in_cached(f->pool, f->r, f->page, alone, &around);
    STAT_ADD(f->pool, fault_around_pages, around);
    if (status != 0)
        return status == -EEXIST ? FAULT_DONE : result_of(status);
    count_soft(f, flags);
    return FAULT_DONE;
}

/* CLEAN or DIRTY: the frame itself goes in. */
static fault_result serve_from_cache(fault *f, swap_entry entry, cache_state state) {
    frame_id frame;
    bool sealed, no_frame = false;
    fault_result result;
    uint64_t flags = swap_cache_load(f->pool, entry);
    if (state == CACHE_CLEAN && f->pool->use_move && block_has(&f->pool->frames, slot_frame_of(flags)) &&
        serve_from_block(f, entry, flags, &result))
        return result;
    if (state == CACHE_CLEAN && is_copy(f, flags)) {
        bool protect = !(f->how & FAULT_WRITE) && seal_wanted(f->pool, f->r, page_load(f->word), entry);
        result = serve_copy(f, entry, protect);
        if (result != FAULT_NO_FRAME) /* to move it in takes none */
            return result;
        no_frame = true;
    }
    if ((flags & SLOT_STAYS) && !warm_has(&f->pool->frames, slot_frame_of(flags)) &&
        !block_has(&f->pool->frames, slot_frame_of(flags)))
        return serve_inactive(f, flags, state == CACHE_DIRTY || no_frame);
    int status = put_in(f, entry, state, &sealed);
    if (status != 0)
        return status == -EEXIST ? FAULT_DONE : result_of(status);
    /* The page lock has kept everybody away from the frame. */
    bool taken = swap_cache_take(f->pool, entry, state, &frame, &flags);
    INVARIANT(I8, taken);
    page_in_arrived(f->pool, f->r, f->page, entry, state == CACHE_CLEAN, flags);
    if (sealed)
        seal_page(f->r, f->page);
    count_soft(f, flags);
    return FAULT_DONE;
}

static fault_result serve_from_read(fault *f, swap_entry entry) {
    uint64_t flags;
    if (!swap_cache_want(f->pool, entry, &flags))
        return FAULT_AGAIN;
    if (flags & SLOT_WANTED) {
        STAT_ADD(f->pool, duplicate_faults, 1);
        return FAULT_READING;
    }
    page_in_wanted(f->ctx, entry);
    count(f, &f->pool->counters->major_faults);
    touched(f, TRACE_READ);
    STAT_ADD(f->pool, read_ahead_hits, 1); /* only reads ahead are not wanted from the start */
    f->read_ahead = true;
    return FAULT_READING;
}

static fault_result serve_from_slot(fault *f, swap_entry entry) {
    int status = page_in_start(f->ctx, entry, f->how & FAULT_WRITE);
    if (status != 0)
        return status == -ENOMEM ? FAULT_NO_FRAME : FAULT_AGAIN;
    count(f, &f->pool->counters->major_faults);
    touched(f, TRACE_READ);
    STAT_ADD(f->pool, read_ahead_misses, 1);
    f->read_ahead = f->absent = true;
    return FAULT_READING;
}

static fault_result serve_swapped(fault *f, swap_entry entry) {
    switch (slot_state_of(swap_cache_load(f->pool, entry))) {
    case CACHE_NONE:
        return serve_from_slot(f, entry);
    case CACHE_READING:
        return serve_from_read(f, entry);
    case CACHE_CLEAN:
        return serve_from_cache(f, entry, CACHE_CLEAN);
    case CACHE_DIRTY:
        return serve_from_cache(f, entry, CACHE_DIRTY);
    case CACHE_WRITING:
        return serve_copy(f, entry, false);
    case CACHE_LENT: /* no page's */
        break;
    }
    return FAULT_GONE;
}

static fault_result serve(fault *f) {
    uint64_t word = page_load(f->word);
    switch (page_state_of(word)) {
    case PAGE_RESIDENT:
        return serve_resident(f);
    case PAGE_ZERO:
        return serve_zero(f);
    case PAGE_SWAPPED:
        return serve_swapped(f, page_entry_of(word));
    case PAGE_FILLED:
        return serve_filled(f);
    case PAGE_POISONED:
        poison_map(f->pool, f->r->uffd, f->address);
        return FAULT_DONE;
    }
    return FAULT_GONE;
}

static fault_result serve_locked(fault *f) {
    page_lock(f->word);
    FAILPOINT(fault_locked);
    fault_result result = serve(f);
    page_unlock(f->word);
    return result;
}

fault_result fault_serve(context *ctx, region *r, size_t page, unsigned how) {
    fault f = {.ctx = ctx,
               .pool = ctx->pool,
               .r = r,
               .page = page,
               .how = how,
               .word = &r->object.words[page],
               .address = region_address(r, page)};
    size_t chunk = page / PAGE_WORDS_PER_CHUNK;
    metadata_touch(f.pool, r->object.touched, chunk, chunk);
    fault_result result = serve_locked(&f);
    if (result == FAULT_NO_FRAME && inactive_drop(ctx, f.pool->options.reclaim_batch_pages) > 0)
        result = serve_locked(&f);
    if (f.read_ahead)
        page_in_ahead(ctx, r, page, f.absent);
    return result;
}
