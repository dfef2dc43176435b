#include "swap/page_in_ahead.h"

#include "base/failpoint.h"
#include "fault/fault_thread.h"
#include "swap/cluster_ahead.h"
#include "swap/page_in.h"
#include "swap/page_in_block.h"
#include "swap/read_ahead.h"
#include "swap/swap_cache.h"

/* Read-ahead may fill at most this part of the frames with one window. */
#define WINDOW_SHARE 16
/* What is read for lanes to come, and the lane that is read now, may take this part of them: it waits for its turn for as long as a whole lane
 * takes, and what is evicted before was read in vain. */
#define LANES_SHARE 2
/* So few pages together are copied in from warm frames, one by one, as single ones are: to move them would take longer. */
#define FEW_PAGES 8

/* Frames for a window: a run of places, taken together so that they can be moved in together. */
typedef struct {
    frame_id next;
    uint32_t left;
} window_frames;

static bool next_frame(context *ctx, window_frames *run, uint32_t want, frame_id *frame) {
    if (run->left == 0 && want <= FEW_PAGES)
        run->left = frame_take_one(ctx->pool, FRAME_AHEAD, &run->next);
    else if (run->left == 0)
        run->left = frame_take_fill(ctx->pool, want, FRAME_AHEAD, &run->next);
    if (run->left == 0)
        return false;
    *frame = run->next++;
    run->left--;
    return true;
}

/* Pages of a window that are treated together: count of them, from the lowest on. */
typedef struct {
    const read_ahead_plan *plan;
    size_t lowest;
    uint32_t count;
    bool descends; /* the reader meets the highest first */
} window_part;

/* Claims one page for reading if it is out and idle. Return: false when frames or requests have run out. */
static bool read_ahead_page(context *ctx, region *r, size_t page, window_frames *run, uint32_t want, uint64_t flags) {
    uswap_pool *pool = ctx->pool;
    page_word *word = &r->object.words[page];
    frame_id frame;
    if (page_state_of(page_load(word)) != PAGE_SWAPPED)
        return true;
    FAILPOINT(page_in_chosen);
    if (!page_try_lock(word))
        return true;
    bool go_on = true;
    uint64_t now = page_load(word);
    swap_entry entry = page_entry_of(now);
    if (page_state_of(now) == PAGE_SWAPPED && slot_state_of(swap_cache_load(pool, entry)) == CACHE_NONE) {
        go_on = next_frame(ctx, run, want, &frame);
        if (go_on && !page_in_add(ctx, entry, frame)) {
            run->next--;
            run->left++;
            go_on = false;
        } else if (go_on) {
            bool claimed = swap_cache_claim_read(pool, entry, frame, flags);
            INVARIANT(I7, claimed);
            swap_cache_count_read(pool, 0, 0, 1);
        }
    }
    page_unlock(word);
    return go_on;
}

/* The part of a window that lies in one block of addresses, in ascending order: neighbours then share a request. markers: some may be; first: the
 * part is the first. Return: false when frames or requests have run out. */
static bool read_part(context *ctx, region *r, window_part part, bool markers, bool first) {
    window_frames run = {0};
    uint32_t looked = 0;
    for (; looked < part.count; looked++) {
        size_t page = part.lowest + looked;
        bool met_first = part.descends ? looked + 1 == part.count : looked == 0;
        bool marker = markers && read_ahead_marks(part.plan, (int64_t)page, first && met_first);
        uint64_t flags = SLOT_AHEAD | (marker ? SLOT_MARKER : 0);
        if (!read_ahead_page(ctx, r, page, &run, part.count - looked, flags))
            break;
    }
    if (run.left > 0)
        frame_drop(ctx->pool, run.next, run.left);
    return looked == part.count;
}

/* The pages of the window from page on that lie in the same block of addresses as it, and in the region. Return: how many steps of
 * the window it stands for. */
static uint32_t next_part(const region *r, const read_ahead_plan *plan, uint32_t looked, window_part *part) {
    int64_t stride = plan->stride, page = plan->first + stride * (int64_t)looked;
    uint32_t left = plan->count - looked;
    *part = (window_part){.plan = plan};
    if (page < 0 || (uint64_t)page >= r->object.pages)
        return 1;
    if (stride != 1 && stride != -1) {
        uint64_t beyond = r->object.pages - (uint64_t)page;
        *part = (window_part){
            .plan = plan, .lowest = (size_t)page, .count = (uint32_t)MIN_OF((uint64_t)plan->width, beyond)};
        return 1;
    }
    uint32_t within = (uint32_t)((uintptr_t)region_address(r, (size_t)page) / PAGE_BYTES % BLOCK_PAGES);
    uint32_t count = MIN_OF(left, stride > 0 ? BLOCK_PAGES - within : within + 1);
    count = (uint32_t)MIN_OF((uint64_t)count, stride > 0 ? r->object.pages - (uint64_t)page : (uint64_t)page + 1);
    part->lowest = stride > 0 ? (size_t)page : (size_t)page + 1 - count;
    part->count = count;
    part->descends = stride < 0;
    return count;
}

/* Whether any page of the part was ever touched. */
static bool is_touched(const region *r, const window_part *part) {
    size_t last = part->lowest + part->count - 1;
    for (size_t chunk = part->lowest / PAGE_WORDS_PER_CHUNK; chunk <= last / PAGE_WORDS_PER_CHUNK; chunk++)
        if (atomic_load_explicit(&r->object.touched[chunk], memory_order_relaxed))
            return true;
    return false;
}

/* Reads the plan as far as speculative frames go. marker: leave the first page in the cache. Return: how many of its steps were done. */
static uint32_t page_in_window(context *ctx, region *r, const read_ahead_plan *plan, bool marker) {
    for (uint32_t looked = 0, step; looked < plan->count; looked += step) {
        window_part part;
        step = next_part(r, plan, looked, &part);
        if (part.count == 0 || !is_touched(r, &part))
            continue;
        block_start block = part.count == BLOCK_PAGES ? page_in_block(ctx, r, part.lowest, !marker) : BLOCK_UNFIT;
        if (block == BLOCK_NO_FRAMES || (block == BLOCK_UNFIT && !read_part(ctx, r, part, marker, looked == 0)))
            return looked;
    }
    return plan->count;
}

/* Streams that have come to speed read whole blocks. Return: the plan, up to the end of its last block. */
static read_ahead_plan in_blocks(const region *r, read_ahead_plan plan) {
    int64_t last = plan.first + plan.stride * (int64_t)(plan.count - 1);
    if (!plan.wide || last < 0)
        return plan;
    uint32_t within = (uint32_t)(((uintptr_t)r->base / PAGE_BYTES + (uint64_t)last) % BLOCK_PAGES);
    plan.count += plan.stride > 0 ? BLOCK_PAGES - 1 - within : within;
    return plan;
}

/* Reads what lies around the slot, whosever it is. The first and the last page are left in the cache, so that hits and waste can be told,
 * and so that a reader who goes on from group to group, up or down, is seen to touch neighbours. */
static void read_group(context *ctx, swap_entry entry) {
    uswap_pool *pool = ctx->pool;
    window_frames run = {0};
    swap_entry first = {entry.value - entry.value % GROUP_SLOTS};
    bool go_on = true;
    for (uint32_t i = 0; i < GROUP_SLOTS && go_on; i++) {
        swap_entry at = swap_entry_after(first, i);
        uint64_t word = swap_cache_load(pool, at);
        if (slot_count_of(word) == 0 || slot_state_of(word) != CACHE_NONE)
            continue;
        page_ref owner = swap_map_owner(pool, at);
        region *r = region_get_by_ref(&pool->regions, owner);
        if (!r)
            continue;
        uint64_t flags = SLOT_AHEAD | (i == 0 || i == GROUP_SLOTS - 1 ? SLOT_MARKER : 0);
        if (page_ref_page(owner) < r->object.pages)
            go_on = read_ahead_page(ctx, r, page_ref_page(owner), &run, GROUP_SLOTS - i, flags);
        region_put(r);
    }
    if (run.left > 0)
        frame_drop(pool, run.next, run.left);
}

void page_in_ahead_dropped(uswap_pool *pool, region *r, size_t page, uint64_t flags) {
    if (!(flags & SLOT_AHEAD))
        return;
    STAT_ADD(pool, read_ahead_waste, 1);
    read_ahead_wasted(&r->ahead, page);
}

void page_in_ordered(context *ctx) {
    uswap_pool *pool = ctx->pool;
    reclaim_ring *orders = &pool->orders.rings[ORDER_READ];
    window_frames run = {0};
    bool go_on = true;
    for (stay order; ring_pop(orders, &order, 1) == 1;) {
        region *r = go_on ? region_get_by_stay(&pool->regions, order) : NULL;
        if (!r)
            continue;
        go_on = read_ahead_page(ctx, r, stay_page(order), &run, 1, SLOT_AHEAD);
        region_put(r);
    }
    if (run.left > 0)
        frame_drop(pool, run.next, run.left);
}

void page_in_plan(context *ctx, region *r, read_ahead_plan plan, bool stream) {
    uint32_t done = page_in_window(ctx, r, &plan, stream);
    if (stream && done < plan.count)
        read_ahead_asked(&r->ahead, plan, done);
}

void page_in_ahead(context *ctx, region *r, size_t page, bool absent) {
    uswap_pool *pool = ctx->pool;
    uint32_t advice = atomic_load_explicit(&r->advice, memory_order_relaxed);
    uint64_t limit = atomic_load_explicit(&pool->frames.budget->limit_frames, memory_order_relaxed);
    read_ahead_bounds bounds = {.window =
                                    (uint32_t)MIN_OF((uint64_t)pool->options.read_ahead_pages, limit / WINDOW_SHARE),
                                .pages = r->object.pages,
                                .frames = limit / LANES_SHARE};
    if (advice == USWAP_ADVICE_RANDOM || atomic_load_explicit(&pool->trace.whole, memory_order_relaxed))
        return;
    unsigned known = READ_AHEAD_RUNS | (absent ? READ_AHEAD_ABSENT : 0U) |
                     (advice == USWAP_ADVICE_SEQUENTIAL ? READ_AHEAD_SEQUENTIAL : 0U);
    read_ahead_plan plan = read_ahead_fault(&r->ahead, (read_ahead_seen){.page = page, .known = known}, bounds);
    swap_entry entry = page_entry_of(page_load(&r->object.words[page]));
    if (bounds.window >= GROUP_SLOTS && !swap_entry_is_none(entry) &&
        cluster_ahead_fault(&pool->cluster_ahead, entry, !plan.near))
        read_group(ctx, entry);
    if (plan.count == 0)
        return;
    read_ahead_plan whole = in_blocks(r, plan);
    if (whole.count != plan.count)
        read_ahead_asked(&r->ahead, plan, whole.count);
    if (ctx->who != ACTOR_INLINE)
        page_in_plan(ctx, r, whole, true);
    else if (!fault_thread_order(pool, &(read_order){.region = page_ref_of(r, 0), .plan = whole, .stream = true}))
        read_ahead_asked(&r->ahead, whole, 0);
}
