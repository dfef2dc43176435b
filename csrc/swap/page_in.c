#include "swap/page_in.h"

#include "base/failpoint.h"
#include "fault/poison.h"
#include "fault/uffd.h"
#include "frame/transport.h"
#include "frame/warm.h"
#include "reclaim/sealed.h"
#include "region/stall.h"
#include "swap/page_in_block.h"
#include "swap/swap_cache.h"

#include <errno.h>

/* Pages mapped together, of a request that is no block. */
#define MAP_RUN_MAX 64
/* Beyond this part of the slots in use, a page-in gives its slot back (three quarters): the next page-outs need it more. */
#define KEEP_SLOTS_NUMERATOR 3
#define KEEP_SLOTS_DENOMINATOR 4

/* ---- starting ---- */

bool page_in_add(context *ctx, swap_entry entry, frame_id frame) {
    void *memory = frame_address(ctx->pool, frame);
    io_request *request = ctx->reading;
    if (request && swap_entry_equal(entry, swap_entry_after(request->first, request->pages)) &&
        io_request_add(request, memory))
        return true;
    io_request *fresh = io_request_get(&ctx->io, IO_READ, ctx->pool->areas[swap_entry_area(entry)].fd, entry);
    if (!fresh)
        return false;
    if (request)
        context_send(ctx, request);
    ctx->reading = fresh;
    return io_request_add(fresh, memory);
}

void page_in_wanted(context *ctx, swap_entry entry) {
    if (ctx->who == ACTOR_INLINE)
        return; /* it measures its stall from end to end */
    io_request *request = io_request_of(&ctx->io, entry);
    if (request && request->wanted_ns == 0)
        request->wanted_ns = clock_now_ns();
}

int page_in_start(context *ctx, swap_entry entry, bool for_write) {
    uswap_pool *pool = ctx->pool;
    frame_id frame;
    if (!frame_take_one(pool, FRAME_FAULT, &frame))
        return -ENOMEM;
    if (!page_in_add(ctx, entry, frame)) {
        frame_drop(pool, frame, 1);
        return -EAGAIN;
    }
    /* The page lock excludes every other reader of this slot. */
    bool claimed = swap_cache_claim_read(pool, entry, frame, SLOT_WANTED);
    INVARIANT(I7, claimed);
    if (ctx->who != ACTOR_INLINE && ctx->reading->wanted_ns == 0)
        ctx->reading->wanted_ns = clock_now_ns();
    ctx->reading->for_write |= for_write;
    ctx->demand_reads++;
    FAILPOINT(page_in_claimed);
    return 0;
}

/* ---- ending ---- */

void page_in_poison(context *ctx, swap_entry entry, int status) {
    uswap_pool *pool = ctx->pool;
    frame_id frame;
    uint64_t flags;
    page_ref owner = swap_map_owner(pool, entry);
    region *r = region_get_by_ref(&pool->regions, owner);
    size_t page = page_ref_page(owner);
    if (r) {
        page_word *word = &r->object.words[page];
        page_lock(word);
        uint64_t now = page_load(word);
        if (page_state_of(now) == PAGE_SWAPPED && swap_entry_equal(page_entry_of(now), entry)) {
            bool taken = swap_cache_take(pool, entry, CACHE_READING, &frame, &flags);
            INVARIANT(I8, taken);
            frame_drop(pool, frame, 1);
            page_set_poisoned(word, -status);
            atomic_fetch_add(&r->poisoned_pages, 1);
            atomic_fetch_sub(&r->swapped_pages, 1);
            STAT_ADD(pool, poisoned_pages, 1);
            poison_map(pool, r->uffd, region_address(r, page));
            swap_map_put(pool, entry);
            page_unlock(word);
            region_put(r);
            return;
        }
        page_unlock(word);
        region_put(r);
    }
    if (swap_cache_end_read(pool, entry, WISH_KEEP, &frame) == END_DROP)
        frame_drop(pool, frame, 1);
}

/* Whether the memory has what the slot should have. */
static bool is_right(uswap_pool *pool, swap_entry entry, void *memory) {
    FAILPOINT_PAGE(page_in_hash, swap_map_owner(pool, entry).value, memory);
    if (!pool->options.verify)
        return true;
    page_hash expected = swap_map_hash(pool, entry), found = page_hash_of(memory, pool->hash_seed);
    return expected.low == found.low && expected.high == found.high;
}

/* The second try of a page whose request failed or whose contents are wrong. Return: as page_in_judge. */
static int read_again(context *ctx, io_request *request, swap_entry entry, void *memory) {
    uswap_pool *pool = ctx->pool;
    int status = FAILPOINT_PAGE(page_in_one, swap_map_owner(pool, entry).value, NULL);
    if (status == 0)
        status = io_page(&ctx->io, IO_READ, request->fd, memory, entry);
    if (status != 0) {
        STAT_ADD(pool, read_errors, 1);
        return status;
    }
    if (is_right(pool, entry, memory))
        return 0;
    STAT_ADD(pool, hash_errors, 1);
    return -EBADMSG;
}

int page_in_judge(context *ctx, io_request *request, swap_entry entry, bool whole) {
    void *memory = frame_address(ctx->pool, slot_frame_of(swap_cache_load(ctx->pool, entry)));
    return whole && is_right(ctx->pool, entry, memory) ? 0 : read_again(ctx, request, entry, memory);
}

/* Pages that can be mapped by one call: neighbours in one region, with frames in neighbouring places, all locked. */
typedef struct {
    region *r;
    size_t page;
    frame_id frame;
    uint32_t count;
    bool for_write; /* somebody waits with a store */
    swap_entry entry[MAP_RUN_MAX];
} map_run;

static void keep_in_cache(uswap_pool *pool, region *r, size_t page, swap_entry entry) {
    frame_id frame;
    if (swap_cache_end_read(pool, entry, WISH_KEEP, &frame) == END_DROP)
        frame_drop(pool, frame, 1);
    else
        page_came(pool, r, page, USWAP_EVENT_READ_AHEAD, REFAULT_NEVER);
}

bool page_in_keeps_slot(uswap_pool *pool, swap_entry entry) {
    const swap_area *area = &pool->areas[swap_entry_area(entry)];
    if (!swap_area_keeps(area))
        return false;
    if (!pool->options.overcommit || area->inherited)
        return true;
    return atomic_load_explicit(&area->used_slots, memory_order_relaxed) / KEEP_SLOTS_NUMERATOR <
           area->total_slots / KEEP_SLOTS_DENOMINATOR;
}

static void settle_slot(uswap_pool *pool, region *r, size_t page, swap_entry entry, bool keep) {
    bool kept = keep && page_in_keeps_slot(pool, entry);
    page_set_state(&r->object.words[page], PAGE_RESIDENT, kept ? entry : SWAP_ENTRY_NONE);
    if (!kept)
        swap_map_put(pool, entry);
}

void page_in_settled(uswap_pool *pool, region *r, size_t page, swap_entry entry) {
    settle_slot(pool, r, page, entry, true);
}

/* How a page has come whose slot word was this before. */
unsigned page_in_kind(uswap_pool *pool, uint64_t flags) {
    cache_state state = slot_state_of(flags);
    bool rescued = state == CACHE_WRITING || state == CACHE_DIRTY || (flags & SLOT_STAYS);
    STAT_ADD(pool, rescues, rescued);
    STAT_ADD(pool, refaults, !rescued && (flags & SLOT_DISTANCE_MASK) != 0);
    return (rescued ? USWAP_EVENT_RESCUED : USWAP_EVENT_FAULTED) | (flags & SLOT_MARKED ? EVENT_MARKED : 0);
}

void page_in_arrived(uswap_pool *pool, region *r, size_t page, swap_entry entry, bool keep, uint64_t flags) {
    settle_slot(pool, r, page, entry, keep);
    atomic_fetch_add_explicit(&r->mapped_pages, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&r->swapped_pages, 1, memory_order_relaxed);
    STAT_ADD(pool, mapped_pages, 1);
    page_came(pool, r, page, page_in_kind(pool, flags), slot_distance_of(flags));
}

void page_in_beside(uswap_pool *pool, region *r, size_t page, swap_entry entry, uint64_t flags) {
    settle_slot(pool, r, page, entry, true);
    atomic_fetch_add_explicit(&r->mapped_pages, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&r->swapped_pages, 1, memory_order_relaxed);
    STAT_ADD(pool, mapped_pages, 1);
    page_came(pool, r, page, USWAP_EVENT_FAULTED | (flags & SLOT_MARKED ? EVENT_MARKED : 0), REFAULT_NEVER);
}

/* Return: how many of the run, from the first on, are in. */
static uint32_t run_map(uswap_pool *pool, const map_run *run, bool *sealed) {
    unsigned char *address = region_address(run->r, run->page);
    uint32_t done = 0;
    *sealed = false;
    if (FAILPOINT(page_in_map) != 0)
        return 0;
    if (run->count == 1 && warm_has(&pool->frames, run->frame)) {
        uint64_t word = page_load(&run->r->object.words[run->page]);
        *sealed = !run->for_write && seal_wanted(pool, run->r, word, run->entry[0]);
        done = transport_warm_in(pool, run->r->uffd, address, run->frame, *sealed) == 0;
    } else {
        transport_in(pool, run->r->uffd, address, run->frame, run->count, &done);
    }
    return done;
}

static void run_finish(context *ctx, map_run *run, uint64_t stall_ns) {
    uswap_pool *pool = ctx->pool;
    if (run->count == 0)
        return;
    bool sealed;
    uint32_t done = run_map(pool, run, &sealed);
    for (uint32_t i = 0; i < run->count; i++) {
        size_t page = run->page + i;
        page_word *word = &run->r->object.words[page];
        frame_id frame;
        uint64_t flags;
        if (i < done) {
            bool taken = swap_cache_take(pool, run->entry[i], CACHE_READING, &frame, &flags);
            INVARIANT(I8, taken);
            if (flags & SLOT_WANTED)
                stall_note(pool, run->r, page, stall_ns);
            page_in_arrived(pool, run->r, page, run->entry[i], true, flags);
            if (sealed)
                seal_page(run->r, page);
        } else {
            keep_in_cache(pool, run->r, page, run->entry[i]);
        }
        page_unlock(word);
    }
    if (done < run->count) /* who waits faults again, and finds the frame in the cache */
        uffd_wake(run->r->uffd, region_address(run->r, run->page + done), (size_t)(run->count - done) << PAGE_SHIFT);
    region_put(run->r);
    run->count = 0;
}

/* Locks the page for mapping. It joins the run if it is its neighbour and free, else starts a run of its own. */
static void run_lock(context *ctx, map_run *run, region *r, size_t page, frame_id frame, uint64_t stall_ns) {
    page_word *word = &r->object.words[page];
    bool joins = run->count > 0 && run->count < MAP_RUN_MAX && run->r == r && run->page + run->count == page &&
                 frames_adjoin(&ctx->pool->frames, run->frame + run->count - 1, frame) &&
                 !warm_has(&ctx->pool->frames, frame);
    if (joins && page_try_lock(word)) {
        region_put(r); /* the run has a reference */
        return;
    }
    run_finish(ctx, run, stall_ns); /* now no page is locked, and waiting is allowed */
    page_lock(word);
    run->r = r;
    run->page = page;
    run->frame = frame;
}

void page_in_unused(uswap_pool *pool, frame_id frame, page_ref owner) {
    frame_drop(pool, frame, 1);
    region *r = region_get_by_ref(&pool->regions, owner);
    if (!r)
        return;
    if (page_ref_page(owner) < r->object.pages)
        uffd_wake(r->uffd, region_address(r, page_ref_page(owner)), PAGE_BYTES);
    region_put(r);
}

/* READING, contents right: maps the page, or leaves it in the cache. */
static void settle_page(context *ctx, map_run *run, swap_entry entry, uint64_t stall_ns) {
    uswap_pool *pool = ctx->pool;
    uint64_t word = swap_cache_load(pool, entry);
    page_ref owner = swap_map_owner(pool, entry);
    frame_id frame = slot_frame_of(word);
    size_t page = page_ref_page(owner);
    region *r = slot_count_of(word) > 0 ? region_get_by_ref(&pool->regions, owner) : NULL;
    read_wish wish = !r ? WISH_KEEP : (word & SLOT_MARKER ? WISH_IF_WANTED : WISH_MAP);
    stay present = r ? stay_of(r, page) : (stay){0}; /* before the read ends: from then on the page may come and go */
    cache_end end = swap_cache_end_read(pool, entry, wish, &frame);
    if (end == END_DROP)
        page_in_unused(pool, frame, owner);
    if (end == END_KEEP && r)
        pages_came(pool, &present, 1, USWAP_EVENT_READ_AHEAD, REFAULT_NEVER);
    if (end != END_MAP) {
        if (r)
            region_put(r);
        return;
    }
    FAILPOINT(page_in_right);
    run_lock(ctx, run, r, page, frame, stall_ns);
    uint64_t now = page_load(&run->r->object.words[page]);
    if (page_state_of(now) == PAGE_SWAPPED && swap_entry_equal(page_entry_of(now), entry)) {
        run->entry[run->count++] = entry;
        return;
    }
    /* Discarded while it was read: the slot has no user any more. */
    page_unlock(&run->r->object.words[page]);
    if (run->count == 0)
        region_put(run->r);
    if (swap_cache_end_read(pool, entry, WISH_KEEP, &frame) == END_DROP)
        page_in_unused(pool, frame, owner);
}

void page_in_complete(context *ctx, io_request *request) {
    int failure = FAILPOINT(page_in_read);
    bool whole = failure == 0 && request->result == (int64_t)request->pages << PAGE_SHIFT;
    uint64_t stall_ns = request->wanted_ns ? clock_now_ns() - request->wanted_ns : 0;
    page_ref first = swap_map_owner(ctx->pool, request->first);
    if (page_in_block_complete(ctx, request, whole)) {
        region *r = region_get_by_ref(&ctx->pool->regions, first);
        if (r) {
            stall_note(ctx->pool, r, page_ref_page(first), stall_ns);
            region_put(r);
        }
        return;
    }
    map_run run;
    run.count = 0;
    run.for_write = request->for_write;
    for (uint32_t i = 0; i < request->pages; i++) {
        swap_entry entry = swap_entry_after(request->first, i);
        int status = page_in_judge(ctx, request, entry, whole);
        if (status == 0) {
            settle_page(ctx, &run, entry, stall_ns);
        } else {
            run_finish(ctx, &run, stall_ns); /* poison waits for a page lock: none may be held */
            page_in_poison(ctx, entry, status);
        }
    }
    run_finish(ctx, &run, stall_ns);
}
