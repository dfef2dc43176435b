#include "swap/page_in_cached.h"

#include "frame/transport.h"
#include "frame/warm.h"
#include "swap/page_in.h"
#include "swap/read_ahead.h"
#include "swap/swap_cache.h"

#include <errno.h>

/* A fault of its own costs each page 15 to 30 us, and a move interrupts all processors that run the program, however many pages it is of. */
#define CACHED_AROUND_MAX 64U

/* Locked neighbours, in frames that are neighbours too. */
typedef struct {
    size_t first;
    frame_id frame;
    uint32_t count;
} cached_run;

/* Whether the page waits in that frame, by itself. What was read ahead does not join: its own soft fault asks for the next window. */
static bool waits_in(uswap_pool *pool, uint64_t word, frame_id frame) {
    if (page_state_of(word) != PAGE_SWAPPED)
        return false;
    uint64_t slot = swap_cache_load(pool, page_entry_of(word));
    return slot_state_of(slot) == CACHE_CLEAN && (slot & SLOT_STAYS) && !(slot & SLOT_PIN_MASK) &&
           slot_frame_of(slot) == frame && !block_has(&pool->frames, frame) && !warm_has(&pool->frames, frame);
}

static bool joins(uswap_pool *pool, page_word *at, frame_id frame) {
    if (!waits_in(pool, page_load(at), frame) || !page_try_lock(at))
        return false;
    if (waits_in(pool, page_load(at), frame))
        return true;
    page_unlock(at);
    return false;
}

/* The page and those that its stream will touch next, in the same block of addresses. */
static cached_run lock_run(uswap_pool *pool, region *r, size_t page, read_ahead_plan plan) {
    uint64_t slot = swap_cache_load(pool, page_entry_of(page_load(&r->object.words[page])));
    cached_run run = {.first = page, .frame = slot_frame_of(slot), .count = 1};
    bool up = plan.stride > 0;
    if (plan.count == 0 || (plan.stride != 1 && plan.stride != -1))
        return run;
    uint32_t within = (uint32_t)((uintptr_t)region_address(r, page) / PAGE_BYTES % BLOCK_PAGES);
    uint32_t most = MIN_OF(MIN_OF(plan.count + 1, CACHED_AROUND_MAX), up ? BLOCK_PAGES - within : within + 1);
    while (run.count < most) {
        size_t next = up ? run.first + run.count : run.first - 1; /* wraps around below the first page */
        frame_id frame = up ? run.frame + run.count : run.frame - 1;
        bool adjoins =
            up ? frames_adjoin(&pool->frames, frame - 1, frame) : frames_adjoin(&pool->frames, frame, frame + 1);
        if (next >= r->object.pages || !adjoins || !joins(pool, &r->object.words[next], frame))
            break;
        run.first = MIN_OF(run.first, next);
        run.frame = MIN_OF(run.frame, frame);
        run.count++;
    }
    return run;
}

/* Moves in count pages of the run from the i-th on; mine: the one that was touched. Return: how many are in. */
static uint32_t move_in(uswap_pool *pool, region *r, const cached_run *run, uint32_t i, uint32_t count, size_t mine,
                        int *status) {
    uint32_t done = 0;
    *status = transport_in(pool, r->uffd, region_address(r, run->first + i), run->frame + i, count, &done);
    for (size_t page = run->first + i; page < run->first + i + done; page++) {
        swap_entry entry = page_entry_of(page_load(&r->object.words[page]));
        cache_state state = slot_state_of(swap_cache_load(pool, entry));
        frame_id frame;
        uint64_t flags;
        bool taken = swap_cache_take(pool, entry, state, &frame, &flags); /* the page's lock has kept everybody away */
        INVARIANT(I8, taken);
        if (page == mine)
            page_in_arrived(pool, r, page, entry, state == CACHE_CLEAN, flags);
        else
            page_in_beside(pool, r, page, entry, flags);
    }
    return done;
}

int page_in_cached(uswap_pool *pool, region *r, size_t page, bool alone, size_t *around) {
    alone |= atomic_load_explicit(&pool->trace.whole, memory_order_relaxed) || /* a trace is to have each touch */
             atomic_load_explicit(&r->advice, memory_order_relaxed) == USWAP_ADVICE_RANDOM;
    uint32_t most = alone ? 1 : pool->options.fault_around_pages;
    read_ahead_bounds bounds = {.window = most > 1 ? most : 0, .pages = r->object.pages};
    read_ahead_plan plan = read_ahead_fault(&r->soft, (read_ahead_seen){.page = page}, bounds);
    cached_run run = lock_run(pool, r, page, plan);
    uint32_t mine = (uint32_t)(page - run.first);
    int status;
    uint32_t done = move_in(pool, r, &run, 0, run.count, page, &status);
    *around = done;
    if (done > mine) {
        status = 0;
        --*around;
    } else if (mine > 0 &&
               move_in(pool, r, &run, mine, 1, page, &status) == 1) { /* the run ended before the page that matters */
        status = 0;
    }
    for (size_t each = run.first; each < run.first + run.count; each++)
        if (each != page)
            page_unlock(&r->object.words[each]);
    if (plan.count > 0)
        read_ahead_asked(&r->soft, plan, (uint32_t)*around);
    return status;
}
