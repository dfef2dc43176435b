/*
 * pool_swapoff.c - taking a swap area out of use while the pool runs (README, Taking an area out of use).
 */
#include "base/failpoint.h"
#include "base/status.h"
#include "fault/fault.h"
#include "pool.h"
#include "reclaim/page_out.h"
#include "reclaim/write_slots.h"
#include "swap/page_in_ahead.h"
#include "swap/swap_cache.h"

#include <errno.h>

typedef unsigned long long ull;

/* Slots that one step passes: 16 MiB, some 10 ms of a disk. Whoever closes the gate waits for a step. Not slots in use: pages that are read
 * ahead leave the area before their turn, and a step that did not count those might be the only one. */
#define STEP_SLOTS 4096
/* Neighbours that are read together. */
#define RUN_SLOTS BLOCK_PAGES
/* The longest a step waits for others' I/O, so that its caller may look for signals. */
#define WAIT_NS UINT64_C(100000000)
/* Rounds over the area without a frame to be had and without a slot freed, before the caller is told: some 2 s of waiting. */
#define FRAMELESS_ROUNDS 20

/* ---- beginning ---- */

static void set_usual_state(swap_area *area) {
    atomic_store(&area->state, area->inherited ? AREA_INHERITED : AREA_IN_USE);
}

/* Slots that pages in the area may need elsewhere, where nothing was promised, less those they can have. */
static uint64_t overcommitted(uswap_pool *pool, const swap_area *leaving) {
    uint64_t needed =
        atomic_load(&leaving->used_slots) - atomic_load(&leaving->lost_slots) - atomic_load(&leaving->lent_slots);
    uint64_t room = frame_pool_free(&pool->frames);
    pool_make_room(pool, needed + pool_promised_slots(pool, atomic_load(&pool->reserved_slots)), NULL);
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        const swap_area *area = &pool->areas[i];
        if (swap_area_in_use(area))
            room += swap_area_room(area) - atomic_load(&area->used_slots);
    }
    return needed > room ? needed - room : 0;
}

/* Context: the area is CLOSING, so that it does not count. */
static int check_room(uswap_pool *pool, const swap_area *area, uswap_error *err) {
    uswap_error cause = {.status = USWAP_OK};
    uint64_t missing =
        pool->options.overcommit
            ? overcommitted(pool, area)
            : pool_make_room(pool, pool_promised_slots(pool, atomic_load(&pool->reserved_slots)), &cause);
    if (missing == 0)
        return 0;
    return error_set(err, USWAP_E_NO_MEMORY, cause.status ? cause.os_errno : ENOSPC, "swapoff", area->path,
                     "without '%s' %llu bytes of swap space are missing for what regions hold or were promised "
                     "(%.200s): add a swap area first, or close regions",
                     area->path, (ull)missing << PAGE_SHIFT, cause.status ? cause.detail : "the others are too small");
}

/* Context: the gate is closed. */
static void return_open_cluster(context *ctx, const swap_area *area) {
    if (ctx->cluster.area == area)
        write_slots_return(ctx);
}

/* IN_USE -> CLOSING. Context: api_lock held. */
static int begin(uswap_pool *pool, swap_area *area, uswap_error *err) {
    gate_close(&pool->gate);
    atomic_store(&area->state, AREA_CLOSING);
    return_open_cluster(&pool->fault_context, area);
    return_open_cluster(&pool->reclaim_context, area);
    for (int i = 0; i < API_CONTEXTS; i++)
        return_open_cluster(&pool->api_contexts[i], area);
    for (int i = 0; pool->inlines.contexts && i < INLINE_CONTEXTS; i++)
        return_open_cluster(&pool->inlines.contexts[i], area);
    gate_open(&pool->gate);
    int status = check_room(pool, area, err); /* which does not count an area that is CLOSING */
    if (status != 0) {
        set_usual_state(area);
        return status;
    }
    area->leaving = 0;
    area->frameless_rounds = 0;
    area->left_last_round = UINT64_MAX;
    return 0;
}

/* ---- emptying ---- */

/* Neighbouring slots of neighbouring pages. */
typedef struct {
    swap_entry first;
    page_ref owner; /* of the first */
    uint32_t count;
} slot_owners;

static bool is_used(const swap_area *area, uint64_t slot) {
    const size_t per_page = PAGE_BYTES / sizeof(swap_slot);
    return atomic_load_explicit(&area->slots_touched[slot / per_page], memory_order_relaxed) &&
           slot_count_of(atomic_load_explicit(&area->slots[slot].word, memory_order_acquire)) > 0;
}

/* The next slots in use from *slot on. Return: false at the end of the area. */
static bool next_owners(const swap_area *area, uint64_t *slot, slot_owners *run) {
    uint64_t at = *slot, end = atomic_load(&area->usable_slots);
    while (at < end && !is_used(area, at))
        at++;
    *slot = at;
    if (at == end)
        return false;
    uint64_t owner = atomic_load(&area->slots[at].owner);
    *run = (slot_owners){.first = swap_entry_make(area->index, at), .owner = {owner}, .count = 1};
    while (at + run->count < end && run->count < RUN_SLOTS && is_used(area, at + run->count) &&
           atomic_load(&area->slots[at + run->count].owner) == page_ref_after(run->owner, run->count).value)
        run->count++;
    *slot = at + run->count;
    return true;
}

/* The slot of a page that is in is given up. Return: whether its page is out, and has to come in. */
static bool give_up_kept(uswap_pool *pool, region *r, size_t page, swap_entry entry) {
    page_word *at = &r->object.words[page];
    page_lock(at);
    uint64_t word = page_load(at);
    bool ours = swap_entry_equal(page_entry_of(word), entry), out = ours && page_state_of(word) == PAGE_SWAPPED;
    if (ours && page_state_of(word) == PAGE_RESIDENT) {
        page_set_state(at, PAGE_RESIDENT, SWAP_ENTRY_NONE);
        swap_map_put(pool, entry);
    }
    page_unlock(at);
    return out;
}

/* Brings one page in. Return: false if there is no frame for it. */
static bool bring_in(context *ctx, region *r, size_t page) {
    fault_result result = fault_serve(ctx, r, page, 0);
    if (result == FAULT_NO_FRAME) {
        page_out_oldest(ctx, ctx->pool->options.reclaim_batch_pages);
        context_drain(ctx);
        result = fault_serve(ctx, r, page, 0);
    }
    context_drain(ctx);
    return result != FAULT_NO_FRAME;
}

/* Return: false if frames were short. */
static bool empty_slots(context *ctx, const slot_owners *run) {
    uswap_pool *pool = ctx->pool;
    region *r = region_get_by_ref(&pool->regions, run->owner);
    if (!r)
        return true; /* it is being closed, and puts its slots */
    size_t first = page_ref_page(run->owner);
    uint32_t out = 0;
    bool frames = true;
    for (uint32_t i = 0; i < run->count; i++)
        out += give_up_kept(pool, r, first + i, swap_entry_after(run->first, i));
    if (out > 1) {
        if (frame_pool_free(&pool->frames) < atomic_load(&pool->frames.low_frames) + out)
            page_out_oldest(ctx, out);
        page_in_plan(ctx, r, (read_ahead_plan){.first = (int64_t)first, .stride = 1, .count = run->count}, false);
        context_drain(ctx);
    }
    for (uint32_t i = 0; out > 0 && frames && i < run->count; i++)
        if (give_up_kept(pool, r, first + i, swap_entry_after(run->first, i)))
            frames = bring_in(ctx, r, first + i);
    region_put(r);
    return frames;
}

static uint64_t slots_left(const swap_area *area) {
    return atomic_load(&area->used_slots) - atomic_load(&area->lost_slots) - atomic_load(&area->lent_slots);
}

/* A part of a round over the area. Return: whether it was the last part. */
static bool empty_some(uswap_pool *pool, swap_area *area, bool *frames) {
    slot_owners run;
    bool more = true;
    context *ctx = context_borrow(pool);
    gate_enter(&pool->gate);
    FAILPOINT(swapoff_step);
    for (uint64_t until = area->leaving + STEP_SLOTS; more && *frames && area->leaving < until;) {
        more = next_owners(area, &area->leaving, &run);
        if (more)
            *frames = empty_slots(ctx, &run);
    }
    context_drain(ctx);
    gate_leave(&pool->gate);
    context_return(ctx);
    return !more || !*frames;
}

/* ---- ending ---- */

/* CLOSING -> CLOSED, if nothing is left. Context: no lock held. Return: what is left. */
static uint64_t end(uswap_pool *pool, swap_area *area) {
    small_lock_acquire(&pool->api_lock);
    gate_close(&pool->gate);
    uint64_t left = slots_left(area);
    if (left == 0)
        atomic_store(&area->state, AREA_CLOSED);
    gate_open(&pool->gate);
    if (left == 0) {
        STAT_SUB(pool, bad_slots, atomic_load(&area->lost_slots));
        frame_uncharge_metadata(pool, swap_area_forget_slots(area, &pool->seg));
        swap_area_close(area);
    }
    small_lock_release(&pool->api_lock);
    return left;
}

static int no_frames(swap_area *area, uswap_error *err) {
    set_usual_state(area);
    return error_set(
        err, USWAP_E_BUSY, 0, "swapoff", area->path,
        "'%s' stays in use: its pages cannot come in, because none can leave (locked or pinned, or the other "
        "areas are full): add a swap area, raise the limit, or unlock some",
        area->path);
}

/* Return: slots left; negative: a uswap_status. Context: leave_lock held, the area is CLOSING. */
static int64_t step(uswap_pool *pool, swap_area *area, uswap_error *err) {
    uint32_t seen = event_count(&area->slot_freed);
    bool frames = true, last = empty_some(pool, area, &frames);
    uint64_t left = slots_left(area);
    if (left == 0)
        return (int64_t)end(pool, area);
    if (!last)
        return (int64_t)left;
    bool progress = left < area->left_last_round;
    area->left_last_round = left;
    area->leaving = 0;
    area->frameless_rounds = progress ? 0 : area->frameless_rounds + !frames;
    if (area->frameless_rounds > FRAMELESS_ROUNDS)
        return no_frames(area, err);
    if (!progress)
        event_wait(&area->slot_freed, seen, WAIT_NS);
    return (int64_t)left;
}

/* The area, if it is there; else *err. Context: api_lock held. */
static swap_area *find(uswap_pool *pool, uint32_t index, uswap_error *err) {
    if (index < atomic_load(&pool->area_count) && !swap_area_is_closed(&pool->areas[index]))
        return &pool->areas[index];
    error_set(err, USWAP_E_INVALID, 0, "swapoff", NULL, "the pool has no swap area %u (any more)", index);
    return NULL;
}

EXPORT int64_t uswap_pool_swapoff(uswap_pool *pool, uint32_t index, uswap_error *err) {
    api_guard guard;
    int64_t status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->leave_lock);
    small_lock_acquire(&pool->api_lock);
    swap_area *area = find(pool, index, err);
    if (!area)
        status = USWAP_E_INVALID;
    else if (swap_area_keeps(area))
        status = begin(pool, area, err);
    small_lock_release(&pool->api_lock);
    if (status == 0)
        status = step(pool, area, err);
    small_lock_release(&pool->leave_lock);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_pool_swapoff_cancel(uswap_pool *pool, uint32_t index, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->leave_lock);
    small_lock_acquire(&pool->api_lock);
    swap_area *area = find(pool, index, err);
    if (area)
        set_usual_state(area);
    else
        status = USWAP_E_INVALID;
    atomic_store(&pool->slots_exhausted, 0);
    small_lock_release(&pool->api_lock);
    small_lock_release(&pool->leave_lock);
    api_leave(&guard);
    return status;
}
