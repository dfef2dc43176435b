#include "reclaim/page_out.h"

#include "base/failpoint.h"
#include "frame/drop_mapped.h"
#include "reclaim/batch.h"
#include "reclaim/events.h"
#include "reclaim/inactive.h"
#include "reclaim/reclaimer.h"
#include "reclaim/sealed.h"
#include "reclaim/write_slots.h"
#include "scratch.h"
#include "swap/page_in.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <string.h>

/* Least time between two rounds over all pages while there is no slot to be had, and at least so many times what the last took. */
#define EXHAUSTED_ROUND_NS UINT64_C(100000000)
#define EXHAUSTED_ROUND_SHARE 10

/* How pages leave, a bit each. */
enum {
    OUT_AHEAD = 1,        /* nobody needs the frames yet */
    OUT_UNMAP = 2,        /* a touch is to be seen */
    OUT_MARKED = 4,       /* and known as one that was marked */
    OUT_WITHOUT_SLOTS = 8 /* those that need none, whichever they are */
};

/* ---- sealed pages ---- */

/* Ahead of need nothing is to be done for a sealed page: it can be dropped at once whenever its frame is needed. Whether it is on the list
 * already nobody knows, so a policy that orders the same again and again is followed until the list is as long as it can be of use; the page
 * has its entry elsewhere then. */
static void list_sealed(batch *b, const victim *v) {
    uswap_pool *pool = b->ctx->pool;
    if (b->popped || inactive_frames(pool) < atomic_load(&pool->frames.budget->limit_frames)) {
        ring_push_page(pool, &pool->inactive, stay_of(v->r, v->page));
        STAT_ADD(pool, listed_pages, 1);
    }
    page_unlock(&v->r->object.words[v->page]);
    region_move_end(v->r);
    region_put(v->r);
    b->freed++;
}

static uint32_t sealed_leave(batch *b, const victim *sealed, uint32_t count) {
    if (count > 0)
        b->freed += b->ahead ? sealed_age(b->ctx, sealed, count, batch_flags(b))
                             : sealed_drop(b->ctx, sealed, count, b->popped);
    return 0;
}

/* Lists, ages or drops the sealed pages of the batch; the others remain. */
static void part_sealed(batch *b) {
    victim sealed[DROP_MAPPED_MAX];
    uint32_t count = 0, others = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        const victim *v = &b->victims[i];
        if (!sealed_can_drop(b->ctx->pool, v->word))
            b->victims[others++] = *v;
        else if (b->ahead && !b->unmap)
            list_sealed(b, v);
        else
            sealed[count++] = *v;
        if (count == DROP_MAPPED_MAX)
            count = sealed_leave(b, sealed, count);
    }
    sealed_leave(b, sealed, count);
    b->count = others;
}

/* ---- isolating ---- */

static void isolate(batch *b) {
    out_outcome *outcome = b->ctx->scratch->outcomes;
    for (uint32_t i = 0; i < b->count;) {
        uint32_t run = 1;
        victim *first = &b->victims[i];
        while (i + run < b->count && first[run].r == first->r && first[run].page == first->page + run)
            run++;
        transport_out(b->ctx->pool, first->r->uffd, region_address(first->r, first->page), run, outcome);
        for (uint32_t n = 0; n < run; n++)
            first[n].out = outcome[n];
        i += run;
    }
    FAILPOINT(page_out_isolated);
}

/* ---- publishing: the new state of each page, while it is locked ---- */

void page_out_count(context *ctx, region *r) {
    uswap_pool *pool = ctx->pool;
    atomic_fetch_sub_explicit(&r->mapped_pages, 1, memory_order_relaxed);
    STAT_SUB(pool, mapped_pages, 1);
    STAT_ADD(pool, evictions, 1);
    switch (ctx->who) {
    case ACTOR_STEERED:
        STAT_ADD(pool, evictions_steered, 1);
        break;
    case ACTOR_NATIVE:
        STAT_ADD(pool, evictions_native, 1);
        break;
    case ACTOR_DIRECT:
    case ACTOR_INLINE:
        STAT_ADD(pool, evictions_direct, 1);
        break;
    case ACTOR_API:
        STAT_ADD(pool, evictions_api, 1);
        break;
    }
}

/* The page has got its new state, with this entry; the slot it kept, if it is another one, loses a user. */
static void left(batch *b, victim *v, swap_entry entry) {
    swap_entry kept = page_entry_of(v->word);
    if (!swap_entry_is_none(kept) && !swap_entry_equal(kept, entry))
        swap_map_put(b->ctx->pool, kept);
    page_out_count(b->ctx, v->r);
    b->freed++;
}

static void leave_swapped(batch *b, victim *v, swap_entry entry) {
    page_set_state(&v->r->object.words[v->page], PAGE_SWAPPED, entry);
    atomic_fetch_add_explicit(&v->r->swapped_pages, 1, memory_order_relaxed);
    left(b, v, entry);
}

/* Nothing of the page is left in memory, though it was only to be cleaned or aged. */
static void left_wholly(batch *b, victim *v) {
    left(b, v, SWAP_ENTRY_NONE);
    swap_cache_evicted(b->ctx->pool, SWAP_ENTRY_NONE, 0);
    atomic_fetch_add_explicit(&b->ctx->pool->left_ahead, b->ahead, memory_order_relaxed);
}

static void leave_zero(batch *b, victim *v) {
    page_set_state(&v->r->object.words[v->page], PAGE_ZERO, SWAP_ENTRY_NONE);
    left_wholly(b, v);
}

/* All words of the page are this value. Return: false if it cannot be named by an index. */
static bool leave_filled(batch *b, victim *v, uint64_t value) {
    fill_index fill;
    if (value == 0) {
        leave_zero(b, v);
        STAT_ADD(b->ctx->pool, zero_drops, 1);
        return true;
    }
    if (!fill_value_intern(b->ctx->pool, value, &fill))
        return false;
    page_set_filled(&v->r->object.words[v->page], fill);
    left_wholly(b, v);
    STAT_ADD(b->ctx->pool, filled_drops, 1);
    return true;
}

/* Contents that are in a slot already need no write, unless its area is to be emptied. The slot's last write may still be in flight: it
 * has these contents too. */
static bool is_clean(uswap_pool *pool, const victim *v, page_hash hash) {
    swap_entry kept = page_entry_of(v->word);
    if (swap_entry_is_none(kept) || !swap_area_keeps(&pool->areas[swap_entry_area(kept)]) ||
        (swap_cache_load(pool, kept) & SLOT_BAD))
        return false;
    page_hash stored = swap_map_hash(pool, kept);
    return stored.low == hash.low && stored.high == hash.high;
}

/* No slot to be had: the frame goes back where it came from (I9). */
static void put_back(batch *b, victim *v) {
    uswap_pool *pool = b->ctx->pool;
    STAT_ADD(pool, swap_full_events, 1);
    if (transport_back(pool, v->r->uffd, region_address(v->r, v->page), v->out.frame) == 0) {
        v->out.frame = FRAME_NONE;
        victim_stays(pool, v, b->popped);
    } else { /* the program has unmapped the region: nobody can want the contents */
        leave_zero(b, v);
    }
}

static void publish_taken(batch *b, victim *v) {
    uswap_pool *pool = b->ctx->pool;
    const void *memory = frame_address(pool, v->out.frame);
    uint64_t value;
    if (fill_value_of(memory, &value) && leave_filled(b, v, value))
        return;
    page_hash hash = page_hash_of(memory, pool->hash_seed);
    if (is_clean(pool, v, hash)) {
        swap_entry kept = page_entry_of(v->word);
        leave_swapped(b, v, kept);
        STAT_ADD(pool, clean_drops, 1);
        if (b->ahead && swap_cache_add_clean(pool, kept, v->out.frame, batch_flags(b))) {
            inactive_add(pool, kept);
            events_note_slot(pool, USWAP_EVENT_AGED, kept);
            v->out.frame = FRAME_NONE;
        } else {
            swap_cache_evicted(pool, kept, 0);
            events_note_slot(pool, USWAP_EVENT_EVICTED, kept);
        }
        return;
    }
    swap_entry entry = write_slots_take(b->ctx);
    if (swap_entry_is_none(entry)) {
        put_back(b, v);
        return;
    }
    v->entry = entry;
    swap_cache_add_writing(pool, entry, v->out.frame, page_ref_of(v->r, v->page), hash, batch_flags(b));
    leave_swapped(b, v, entry);
    STAT_ADD(pool, write_ahead_pages, b->ahead);
    if (b->ahead)
        events_note_slot(pool, USWAP_EVENT_AGED, entry);
}

static void publish(batch *b) {
    uswap_pool *pool = b->ctx->pool;
    for (uint32_t i = 0; i < b->count; i++) {
        victim *v = &b->victims[i];
        if (v->out.result == OUT_TAKEN) {
            publish_taken(b, v);
        } else if (v->out.result == OUT_ABSENT) {
            leave_zero(b, v);
            frame_uncharge(pool, 1);
        } else {
            STAT_ADD(pool, evict_busy, 1);
            victim_stays(pool, v, b->popped);
        }
        page_unlock(&v->r->object.words[v->page]);
        region_move_end(v->r);
        region_put(v->r);
    }
    FAILPOINT(page_out_published);
}

/* ---- writing and dropping, without locks ---- */

static void write_add(context *ctx, swap_entry entry, frame_id frame, bool ahead) {
    void *memory = frame_address(ctx->pool, frame);
    io_request *request = ctx->gathering;
    if (request && request->ahead == ahead &&
        swap_entry_equal(entry, swap_entry_after(request->first, request->pages)) && io_request_add(request, memory))
        return;
    ctx->gathering = NULL;
    if (request) {
        context_send(ctx, request);
        io_flush(&ctx->io);
    }
    ctx->gathering = context_request(ctx, IO_WRITE, ctx->pool->areas[swap_entry_area(entry)].fd, entry);
    ctx->gathering->ahead = ahead;
    io_request_add(ctx->gathering, memory);
}

static void write_and_drop(batch *b) {
    uswap_pool *pool = b->ctx->pool;
    frame_run run = {0};
    for (uint32_t i = 0; i < b->count; i++) {
        victim *v = &b->victims[i];
        if (v->out.result != OUT_TAKEN || v->out.frame == FRAME_NONE)
            continue;
        if (swap_entry_is_none(v->entry))
            frame_run_drop(pool, &run, v->out.frame);
        else
            write_add(b->ctx, v->entry, v->out.frame, b->ahead);
    }
    FAILPOINT(page_out_drop);
    frame_run_end(pool, &run);
}

static void evict_batch(batch *b) {
    part_sealed(b);
    if (b->count > 0) {
        batch_sort(b);
        isolate(b);
        publish(b);
        write_and_drop(b);
    }
    b->count = 0;
}

/* Evicts about want pages of the first left entries, of the ring or of orders. Return: how many. */
static uint64_t evict_from(context *ctx, reclaim_ring *from, uint64_t want, uint64_t left, unsigned how) {
    uint64_t freed = 0;
    batch b = {.ctx = ctx,
               .popped = from == &ctx->pool->ring || from == &ctx->pool->ring_marked,
               .ahead = how & OUT_AHEAD,
               .unmap = how & OUT_UNMAP,
               .marked = how & OUT_MARKED,
               .victims = ctx->scratch->victims};
    while (freed < want && left > 0) {
        b.room = how & OUT_WITHOUT_SLOTS ? BLOCK_PAGES : write_slots_room(ctx);
        if (b.room == 0)
            break;
        batch_choose_oldest(&b, from, want - freed, &left);
        evict_batch(&b);
        freed += b.freed;
        b.freed = 0;
        while (context_complete(ctx, false)) {
        }
    }
    frame_run_end(ctx->pool, &b.dropped);
    return freed;
}

static uint64_t evict_oldest(context *ctx, uint64_t want, unsigned how) {
    uswap_pool *pool = ctx->pool;
    bool led = reclaimer_is_led(pool);
    reclaim_ring *first = led ? &pool->ring : &pool->ring_marked, *second = led ? &pool->ring_marked : &pool->ring;
    uint64_t freed = evict_from(ctx, first, want, ring_length(first), how);
    return freed + (freed < want ? evict_from(ctx, second, want - freed, ring_length(second), how) : 0);
}

/* Orders first: what is cold, or what a policy has prepared. */
static uint64_t evict_ordered(context *ctx, uint64_t want) {
    order_kind kind;
    uint64_t freed = 0;
    for (reclaim_ring *from; freed < want && (from = orders_next(&ctx->pool->orders, &kind));) {
        uint64_t left = ring_length(from);
        freed += evict_from(ctx, from, want - freed, left, 0);
        if (ring_length(from) >= left)
            break; /* no slots */
    }
    return freed;
}

static bool has_slots(const context *ctx) {
    return !atomic_load(&ctx->pool->slots_exhausted) || ctx->cluster.left > 0;
}

/* A device that has refused writes may have recovered: a cluster of the slots that it refused is tried anew, and when that has gone well, all. Return:
 * whether there are slots now. */
static bool try_refused_slots(uswap_pool *pool) {
    uint64_t errors = STAT_GET(pool, write_errors), before = atomic_exchange(&pool->errors_at_retry, errors);
    if (STAT_GET(pool, bad_slots) == 0 || swap_cache_forgive(pool, before == errors ? UINT64_MAX : CLUSTER_SLOTS) == 0)
        return false;
    atomic_store(&pool->slots_exhausted, 0);
    return true;
}

/* Without slots only clean and zero pages can leave, and which are is found by moving each out, and most of them back again: not at
 * every fault, but now and then, by one thread. */
static uint64_t evict_without_slots(context *ctx, uint64_t want) {
    uswap_pool *pool = ctx->pool;
    uint64_t begin = clock_now_ns(), due = atomic_load(&pool->exhausted_round_ns);
    if (begin < due || !atomic_compare_exchange_strong(&pool->exhausted_round_ns, &due, UINT64_MAX))
        return 0;
    uint64_t freed = evict_oldest(ctx, want, try_refused_slots(pool) ? 0 : OUT_WITHOUT_SLOTS);
    uint64_t end = clock_now_ns();
    atomic_store(&pool->exhausted_round_ns, end + MAX_OF(EXHAUSTED_ROUND_NS, EXHAUSTED_ROUND_SHARE * (end - begin)));
    return freed;
}

uint64_t page_out_oldest(context *ctx, uint64_t want) {
    uswap_pool *pool = ctx->pool;
    atomic_fetch_add(&pool->evictors, 1);
    uint64_t freed = inactive_drop(ctx, want);
    if (freed < want && has_slots(ctx))
        freed += evict_ordered(ctx, want - freed);
    if (freed < want && has_slots(ctx))
        freed += evict_oldest(ctx, want - freed, 0);
    if (freed == 0 && write_slots_room(ctx) < BLOCK_PAGES)
        freed = evict_without_slots(ctx, want);
    atomic_fetch_sub(&pool->evictors, 1);
    return freed;
}

/* Frames that are free beyond the high watermark are as good as inactive ones: pages of one value leave none to keep. */
static uint64_t spare_frames(uswap_pool *pool) {
    uint64_t free = frame_pool_free(&pool->frames),
             high = atomic_load_explicit(&pool->frames.high_frames, memory_order_relaxed);
    return free - MIN_OF(free, high);
}

uint64_t page_out_ahead(context *ctx) {
    uswap_pool *pool = ctx->pool;
    uint64_t out = 0, target = inactive_target(pool);
    uint64_t have = inactive_frames(pool) + ctx->writing[true] + spare_frames(pool);
    atomic_fetch_add(&pool->evictors, 1);
    if (have < target && has_slots(ctx)) {
        reclaim_ring *cold = &pool->orders.rings[ORDER_COLD];
        out = evict_from(ctx, cold, target - have, ring_length(cold), OUT_AHEAD);
        out += out < target - have ? evict_oldest(ctx, target - have - out, OUT_AHEAD) : 0;
    }
    atomic_fetch_sub(&pool->evictors, 1);
    return out;
}

/* How each kind of order is carried out. What is cold waits until frames are needed. */
static const unsigned ORDERED_HOW[ORDER_KINDS] = {[ORDER_OUT] = 0,
                                                  [ORDER_CLEAN] = OUT_AHEAD,
                                                  [ORDER_AGE] = OUT_AHEAD | OUT_UNMAP,
                                                  [ORDER_AGE_MARKED] = OUT_AHEAD | OUT_UNMAP | OUT_MARKED};

/* Whether what is aged leaves for nothing: since frames were last short, pages of one value have left so, and all the frames that it could be
 * of use for are free. A policy that decides late would order them out again and again, as none of them ever gets inactive. */
static bool is_beyond_need(uswap_pool *pool) {
    uint64_t left = atomic_load_explicit(&pool->left_ahead, memory_order_relaxed);
    if (spare_frames(pool) < MAX_OF(inactive_target(pool), (uint64_t)BATCH_PAGES))
        pool->left_when_short = left;
    return left != pool->left_when_short;
}

/* The oldest orders are not carried out; the policy is told that the pages are there. */
static void pass_over(uswap_pool *pool, reclaim_ring *from, uint32_t count) {
    stay entries[BATCH_PAGES];
    uint32_t popped = ring_pop(from, entries, count);
    events_note(pool, USWAP_EVENT_KEPT, entries, popped, REFAULT_NEVER);
    STAT_ADD(pool, policy_passed, popped);
}

/* Return: as page_out_ordered, of one kind of order. */
static uint64_t follow_orders(context *ctx, order_kind kind, uint64_t count) {
    uswap_pool *pool = ctx->pool;
    uint64_t out = 0;
    for (uint64_t part; count > 0; count -= part) {
        part = MIN_OF(count, (uint64_t)BATCH_PAGES);
        if ((ORDERED_HOW[kind] & OUT_AHEAD) && is_beyond_need(pool))
            pass_over(pool, &pool->orders.rings[kind], (uint32_t)part);
        else
            out += evict_from(ctx, &pool->orders.rings[kind], UINT64_MAX, part, ORDERED_HOW[kind]);
    }
    return out;
}

uint64_t page_out_ordered(context *ctx, uint64_t most, uint64_t *taken) {
    uswap_pool *pool = ctx->pool;
    uint64_t out = 0;
    *taken = 0;
    atomic_fetch_add(&pool->evictors, 1);
    for (int kind = ORDER_OUT; kind < ORDER_READ && has_slots(ctx); kind++) {
        reclaim_ring *from = &pool->orders.rings[kind];
        uint64_t length = ring_length(from), count = MIN_OF(length, most);
        most -= count;
        out += follow_orders(ctx, (order_kind)kind, count);
        *taken += length - MIN_OF(length, ring_length(from));
    }
    atomic_fetch_sub(&pool->evictors, 1);
    return out;
}

/* How many pages from page on may leave together: a block, if it went in as one and is wanted out as one. */
static uint32_t range_batch(region *r, size_t page, size_t end) {
    size_t first;
    if (!region_block_of(r, page, &first) || first != page || end - page < BLOCK_PAGES || !region_is_huge(r, first))
        return BATCH_PAGES;
    region_set_huge(r, first, false);
    return BLOCK_PAGES;
}

uint64_t page_out_range(context *ctx, region *r, size_t first, size_t count) {
    batch b = {.ctx = ctx, .victims = ctx->scratch->victims};
    atomic_fetch_add(&ctx->pool->evictors, 1);
    for (size_t page = first; page < first + count;) {
        b.room = range_batch(r, page, first + count);
        for (; page < first + count && b.count < b.room; page++) {
            choice made = batch_choose(&b, stay_of(r, page), true, false);
            if (made == CHOICE_BUSY) { /* a fault has just brought it, say: it is to leave all the same */
                evict_batch(&b);
                made = batch_choose(&b, stay_of(r, page), true, true);
            }
            b.freed += made == CHOICE_DROPPED;
        }
        evict_batch(&b);
        while (context_complete(ctx, false)) {
        }
    }
    frame_run_end(ctx->pool, &b.dropped);
    atomic_fetch_sub(&ctx->pool->evictors, 1);
    return b.freed;
}
