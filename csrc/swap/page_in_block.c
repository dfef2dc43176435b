#include "swap/page_in_block.h"

#include "base/failpoint.h"
#include "fault/uffd.h"
#include "reclaim/inactive.h"
#include "scratch.h"
#include "swap/page_in.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <sched.h>

/* How often each page of a block is tried while others are at it for an instant, and after how many tries the processor is left to them:
 * who has the page may not be running. To go on without the block would split a huge page, which takes as long as all these tries. */
#define LOCK_TRIES 1000
#define LOCK_TRIES_AWAKE 50

/* ---- locking 512 pages ---- */

static bool lock_page(page_word *word) {
    for (int turn = 0; turn < LOCK_TRIES; turn++) {
        if (page_try_lock(word))
            return true;
        if (turn >= LOCK_TRIES_AWAKE)
            sched_yield();
    }
    return false;
}

static void unlock_others(region *r, size_t first, size_t count, size_t mine) {
    for (size_t page = first; page < first + count; page++)
        if (page != mine)
            page_unlock(&r->object.words[page]);
}

/* Locks all pages of the block but mine, which the caller has locked (SIZE_MAX: none). Only by try-lock, so that two who hold a
 * page of the block each do not wait for each other. */
static bool lock_others(region *r, size_t first, size_t mine) {
    for (size_t page = first; page < first + BLOCK_PAGES; page++)
        if (page != mine && !lock_page(&r->object.words[page])) {
            unlock_others(r, first, page - first, mine);
            return false;
        }
    return true;
}

/* ---- moving in ---- */

static void push_arrived(context *ctx, region *r, size_t first, size_t count, unsigned kind, uint32_t distance) {
    stay *entries = ctx->scratch->ring;
    for (size_t i = 0; i < count; i++)
        entries[i] = stay_of(r, first + i);
    pages_came(ctx->pool, entries, (uint32_t)count, kind, distance);
}

/* Whether the page's contents are frame, at rest. reading: of a read that the caller is ending. */
static bool is_cached_as(uswap_pool *pool, uint64_t word, frame_id frame, bool reading) {
    if (page_state_of(word) != PAGE_SWAPPED)
        return false;
    uint64_t slot = swap_cache_load(pool, page_entry_of(word));
    bool state = slot_state_of(slot) == CACHE_CLEAN || (reading && slot_state_of(slot) == CACHE_READING);
    return state && slot_frame_of(slot) == frame && !(slot & SLOT_PIN_MASK);
}

static bool is_whole(uswap_pool *pool, region *r, size_t first, frame_id frame, bool reading) {
    for (uint32_t i = 0; i < BLOCK_PAGES; i++)
        if (!is_cached_as(pool, page_load(&r->object.words[first + i]), frame + i, reading))
            return false;
    return true;
}

/* Context: the pages are locked, their frames are in the region. */
static void arrived(context *ctx, region *r, size_t first, uint32_t count) {
    uswap_pool *pool = ctx->pool;
    uint64_t flags = 0;
    for (uint32_t i = 0; i < count; i++) {
        frame_id frame;
        swap_entry entry = page_entry_of(page_load(&r->object.words[first + i]));
        bool taken = swap_cache_take_arrived(pool, entry, &frame, &flags);
        INVARIANT(I8, taken);
        page_in_settled(pool, r, first + i, entry);
    }
    atomic_fetch_add_explicit(&r->mapped_pages, count, memory_order_relaxed);
    atomic_fetch_sub_explicit(&r->swapped_pages, count, memory_order_relaxed);
    STAT_ADD(pool, mapped_pages, count);
    push_arrived(ctx, r, first, count, page_in_kind(pool, flags), slot_distance_of(flags));
}

/* Moves the block in if it is whole. Context: all its pages are locked. Return: how many pages are in. */
static uint32_t move_in(context *ctx, region *r, size_t first, frame_id frame, bool reading) {
    uint32_t done = 0;
    if (!is_whole(ctx->pool, r, first, frame, reading))
        return 0;
    if (FAILPOINT(page_in_map) == 0)
        transport_block_in(ctx->pool, r->uffd, region_address(r, first), frame, &done);
    arrived(ctx, r, first, done);
    region_set_huge(r, first, done == BLOCK_PAGES);
    return done;
}

/* Moves the block of a page in that is touched: at rest in the cache. Context: the page is locked. Return: whether at least it is in. */
static bool move_in_touched(context *ctx, region *r, size_t first, frame_id frame, size_t page) {
    uint32_t done = 0;
    if (!region_move_begin(r))
        return false;
    if (lock_others(r, first, page)) {
        done = move_in(ctx, r, first, frame, false);
        unlock_others(r, first, BLOCK_PAGES, page);
    }
    region_move_end(r);
    return done > page - first;
}

/* Frames for a block, if need be those of inactive pages. */
static bool take_frames(context *ctx, bool zeroed, frame_id *first) {
    uswap_pool *pool = ctx->pool;
    if (block_take(pool, FRAME_AHEAD, zeroed, first))
        return true;
    if (inactive_drop(ctx, BLOCK_PAGES) > 0 && block_take(pool, FRAME_AHEAD, zeroed, first))
        return true;
    frame_pool_widen(&pool->frames);
    return false;
}

bool page_in_block_touched(context *ctx, region *r, size_t page, swap_entry entry) {
    size_t first;
    frame_id frame = slot_frame_of(swap_cache_load(ctx->pool, entry));
    if (!ctx->pool->use_move || !block_has(&ctx->pool->frames, frame) || !region_block_of(r, page, &first))
        return false;
    frame_id block = block_first(&ctx->pool->frames, frame);
    return frame - block == page - first && move_in_touched(ctx, r, first, block, page);
}

/* Whether the page can be made without a read. */
static bool is_fresh(uint64_t word) {
    return page_state_of(word) == PAGE_ZERO || page_state_of(word) == PAGE_FILLED;
}

static bool is_block_fresh(const region *r, size_t first) {
    bool fresh = true;
    for (size_t page = first; fresh && page < first + BLOCK_PAGES; page++)
        fresh = is_fresh(page_load(&r->object.words[page]));
    return fresh;
}

/* Context: all pages of the block are locked and fresh. *done: how many went in. Return: false: there are no frames. */
static bool make_block(context *ctx, region *r, size_t first, uint32_t *done_pages) {
    uswap_pool *pool = ctx->pool;
    frame_id frame;
    uint32_t done = 0;
    *done_pages = 0;
    if (!take_frames(ctx, true, &frame))
        return false;
    for (uint32_t i = 0; i < BLOCK_PAGES; i++) {
        uint64_t word = page_load(&r->object.words[first + i]);
        if (page_state_of(word) == PAGE_FILLED)
            fill_value_write(frame_address(pool, frame + i), fill_value_at(pool, page_fill_of(word)));
    }
    transport_block_in(pool, r->uffd, region_address(r, first), frame, &done);
    for (uint32_t i = 0; i < done; i++)
        page_set_state(&r->object.words[first + i], PAGE_RESIDENT, SWAP_ENTRY_NONE);
    atomic_fetch_add_explicit(&r->mapped_pages, done, memory_order_relaxed);
    STAT_ADD(pool, mapped_pages, done);
    push_arrived(ctx, r, first, done, USWAP_EVENT_FAULTED, REFAULT_NEVER);
    region_set_huge(r, first, done == BLOCK_PAGES);
    if (done < BLOCK_PAGES)
        frame_drop(pool, frame + done, BLOCK_PAGES - done);
    *done_pages = done;
    return true;
}

block_start page_in_block_fresh(context *ctx, region *r, size_t page) {
    uswap_pool *pool = ctx->pool;
    size_t first;
    uint32_t done = 0;
    if (!pool->use_move || !region_block_of(r, page, &first) || !region_move_begin(r))
        return BLOCK_UNFIT;
    metadata_touch(pool, r->object.touched, first / PAGE_WORDS_PER_CHUNK,
                   (first + BLOCK_PAGES - 1) / PAGE_WORDS_PER_CHUNK);
    bool locked = lock_others(r, first, page);
    bool frames = !locked || !is_block_fresh(r, first) || make_block(ctx, r, first, &done);
    if (locked)
        unlock_others(r, first, BLOCK_PAGES, page);
    region_move_end(r);
    if (!frames)
        return BLOCK_NO_FRAMES;
    return done > page - first ? BLOCK_STARTED : BLOCK_UNFIT;
}

/* ---- starting the read ---- */

/* The slots of the block, as runs of neighbours. Return: how many runs; 0: not all pages are out and at rest, or their slots lie
 * too far apart. A first look without locks. */
static uint32_t find_runs(uswap_pool *pool, region *r, size_t first, slot_run *runs) {
    uint32_t count = 0;
    for (size_t page = first; page < first + BLOCK_PAGES; page++) {
        uint64_t word = page_load(&r->object.words[page]);
        swap_entry entry = page_entry_of(word);
        if (page_state_of(word) != PAGE_SWAPPED || slot_state_of(swap_cache_load(pool, entry)) != CACHE_NONE)
            return 0;
        if (count > 0 && swap_entry_equal(entry, swap_entry_after(runs[count - 1].first, runs[count - 1].pages))) {
            runs[count - 1].pages++;
        } else {
            if (count == BLOCK_RUNS_MAX)
                return 0;
            runs[count++] = (slot_run){.first = entry, .pages = 1};
        }
    }
    return count;
}

/* Claims one page if it is as it was. */
static bool claim(context *ctx, region *r, size_t page, swap_entry entry, frame_id frame) {
    page_word *at = &r->object.words[page];
    if (!lock_page(at))
        return false;
    uint64_t word = page_load(at);
    bool claimed = page_state_of(word) == PAGE_SWAPPED && swap_entry_equal(page_entry_of(word), entry) &&
                   swap_cache_claim_read(ctx->pool, entry, frame, SLOT_AHEAD);
    page_unlock(at);
    return claimed;
}

/* Claims the run's pages; what is claimed is read. Return: how many. */
static uint32_t read_run(context *ctx, region *r, size_t page, const slot_run *run, frame_id frame) {
    uint32_t done = 0;
    while (done < run->pages && claim(ctx, r, page + done, swap_entry_after(run->first, done), frame + done))
        done++;
    if (done == 0)
        return 0;
    io_request *request =
        io_request_get(&ctx->io, IO_READ, ctx->pool->areas[swap_entry_area(run->first)].fd, run->first);
    INVARIANT(I7, request != NULL); /* page_in_block has made sure that there are enough */
    io_request_fill(request, frame_address(ctx->pool, frame), done);
    request->block = true;
    context_send(ctx, request);
    swap_cache_count_read(ctx->pool, 0, 0, done);
    return done;
}

block_start page_in_block(context *ctx, region *r, size_t first_page, bool map) {
    uswap_pool *pool = ctx->pool;
    slot_run runs[BLOCK_RUNS_MAX];
    frame_id frame;
    uint32_t count = pool->use_move ? find_runs(pool, r, first_page, runs) : 0;
    if (count == 0)
        return BLOCK_UNFIT;
    context_submit(ctx);
    if (ctx->io.in_flight + count > ctx->io.capacity || !take_frames(ctx, false, &frame))
        return BLOCK_NO_FRAMES;
    block_read *read = &pool->block_reads[block_index(&pool->frames, frame)];
    *read = (block_read){.runs = count, .map = map};
    /* Who meets a claimed page from here on waits for this thread to end its read: the record is not seen by others. */
    uint32_t done = 0;
    for (uint32_t i = 0; i < count; i++) {
        read->run[i] =
            (slot_run){.first = runs[i].first,
                       .pages = read->broken ? 0 : read_run(ctx, r, first_page + done, &runs[i], frame + done)};
        read->broken |= read->run[i].pages < runs[i].pages;
        done += read->run[i].pages;
        read->pending += read->run[i].pages > 0;
    }
    if (done < BLOCK_PAGES)
        frame_drop(pool, frame + done, BLOCK_PAGES - done);
    io_flush(&ctx->io);
    return BLOCK_STARTED;
}

/* ---- ending the read ---- */

/* Leaves the page in the cache, unless a fault waits for it: then the read stays as it is. Return: whether it has ended. */
static bool keep_unwanted(context *ctx, swap_entry entry, uint32_t *kept) {
    uswap_pool *pool = ctx->pool;
    frame_id frame;
    page_ref owner = swap_map_owner(pool, entry);
    region *r = region_get_by_ref(&pool->regions, owner);
    stay present = r ? stay_of(r, page_ref_page(owner)) : (stay){0};
    cache_end end = swap_cache_end_read(pool, entry, r ? WISH_IF_WANTED : WISH_KEEP, &frame);
    if (end == END_DROP)
        page_in_unused(pool, frame, owner);
    else if (end == END_KEEP && r)
        ctx->scratch->ring[(*kept)++] = present;
    if (r)
        region_put(r);
    return end != END_MAP;
}

/* Leaves the page in the cache, whoever waits. He is woken, faults again and finds it there: an inline one by the unlocking of the page. */
static void keep_wanted(context *ctx, swap_entry entry) {
    uswap_pool *pool = ctx->pool;
    uint32_t kept = 0;
    region *r = region_get_by_ref(&pool->regions, swap_map_owner(pool, entry));
    if (!r) {
        keep_unwanted(ctx, entry, &kept);
        return;
    }
    size_t page = page_ref_page(swap_map_owner(pool, entry));
    page_word *at = &r->object.words[page];
    frame_id frame;
    page_lock(at);
    if (swap_cache_end_read(pool, entry, WISH_KEEP, &frame) == END_DROP)
        page_in_unused(pool, frame, page_ref_of(r, page));
    else
        page_came(pool, r, page, USWAP_EVENT_READ_AHEAD, REFAULT_NEVER);
    page_unlock(at);
    uffd_wake(r->uffd, region_address(r, page), PAGE_BYTES);
    region_put(r);
}

/* Leaves what is still being read in the cache. wanted: whoever waits. Return: whether nobody waits. */
static bool keep_all(context *ctx, const block_read *read, bool wanted) {
    uint32_t kept = 0;
    bool all = true;
    for (uint32_t i = 0; i < read->runs; i++)
        for (uint32_t n = 0; n < read->run[i].pages; n++) {
            swap_entry entry = swap_entry_after(read->run[i].first, n);
            if (slot_state_of(swap_cache_load(ctx->pool, entry)) != CACHE_READING)
                continue;
            if (wanted)
                keep_wanted(ctx, entry);
            else
                all &= keep_unwanted(ctx, entry, &kept);
        }
    pages_came(ctx->pool, ctx->scratch->ring, kept, USWAP_EVENT_READ_AHEAD, REFAULT_NEVER);
    return all;
}

static bool is_wanted(uswap_pool *pool, const region *r, size_t first) {
    bool wanted = false;
    for (size_t page = first; !wanted && page < first + BLOCK_PAGES; page++)
        wanted = swap_cache_load(pool, page_entry_of(page_load(&r->object.words[page]))) & SLOT_WANTED;
    return wanted;
}

/* Context: all pages of the block are locked. Return: whether the read has ended for all of them. */
static bool end_locked(context *ctx, region *r, size_t first, const block_read *read, frame_id frame) {
    if (!is_whole(ctx->pool, r, first, frame, true))
        return false;
    if (read->map || is_wanted(ctx->pool, r, first))
        return move_in(ctx, r, first, frame, true) == BLOCK_PAGES;
    return keep_all(ctx, read, false);
}

/* Ends the read of a whole block in one step, under all its page locks: who touches a page meanwhile finds, when he gets its lock, the block
 * mapped or at rest as a whole. Else he would find a part at rest, and take his page out of it alone. Return: whether it has ended. */
static bool end_as_one(context *ctx, const block_read *read, frame_id frame) {
    page_ref owner = swap_map_owner(ctx->pool, read->run[0].first);
    region *r = region_get_by_ref(&ctx->pool->regions, owner);
    if (!r)
        return false;
    size_t first = page_ref_page(owner), aligned;
    bool ended = false;
    if (region_block_of(r, first, &aligned) && aligned == first && region_move_begin(r)) {
        if (lock_others(r, first, SIZE_MAX)) {
            ended = end_locked(ctx, r, first, read, frame);
            unlock_others(r, first, BLOCK_PAGES, SIZE_MAX);
        }
        region_move_end(r);
    }
    region_put(r);
    return ended;
}

bool page_in_block_complete(context *ctx, io_request *request, bool whole) {
    uswap_pool *pool = ctx->pool;
    frame_id frame = slot_frame_of(swap_cache_load(pool, request->first));
    if (!request->block)
        return false;
    block_read *read = &pool->block_reads[block_index(&pool->frames, frame)];
    for (uint32_t i = 0; i < request->pages; i++) {
        swap_entry entry = swap_entry_after(request->first, i);
        int status = page_in_judge(ctx, request, entry, whole);
        if (status != 0) {
            read->broken = true;
            page_in_poison(ctx, entry, status);
        }
    }
    if (--read->pending > 0)
        return true;
    bool ended = !read->broken && end_as_one(ctx, read, block_first(&pool->frames, frame));
    if (!ended && !keep_all(ctx, read, false))
        keep_all(ctx, read, true);
    return true;
}
