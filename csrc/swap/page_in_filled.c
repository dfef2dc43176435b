#include "swap/page_in_filled.h"

#include "frame/transport.h"
#include "swap/page_in_block.h"
#include "swap/read_ahead.h"

#include <errno.h>

/* Pages made again together, of a run that is no block. */
#define FILLED_AROUND_MAX 64U

/* Locked neighbours, all FILLED. */
typedef struct {
    size_t first;
    uint32_t count;
} filled_run;

/* The page and those that its stream will touch next, in the same block of addresses. */
static filled_run lock_run(region *r, size_t page, read_ahead_plan plan) {
    filled_run run = {.first = page, .count = 1};
    if (plan.count == 0 || (plan.stride != 1 && plan.stride != -1))
        return run;
    uint32_t within = (uint32_t)((uintptr_t)region_address(r, page) / PAGE_BYTES % BLOCK_PAGES);
    uint32_t most = MIN_OF(plan.count + 1, FILLED_AROUND_MAX);
    most = MIN_OF(most, plan.stride > 0 ? BLOCK_PAGES - within : within + 1);
    while (run.count < most) {
        size_t next = plan.stride > 0 ? run.first + run.count : run.first - 1; /* wraps around below the first page */
        page_word *at = &r->object.words[next];
        if (next >= r->object.pages || page_state_of(page_load(at)) != PAGE_FILLED || !page_try_lock(at))
            break;
        if (page_state_of(page_load(at)) != PAGE_FILLED) {
            page_unlock(at);
            break;
        }
        run.first = MIN_OF(run.first, next);
        run.count++;
    }
    return run;
}

static void unlock_run(region *r, filled_run run, size_t mine) {
    for (size_t page = run.first; page < run.first + run.count; page++)
        if (page != mine)
            page_unlock(&r->object.words[page]);
}

/* Context: page locked, its frame is in the region. */
static void arrived(uswap_pool *pool, region *r, size_t page) {
    page_word *at = &r->object.words[page];
    page_set_state(at, PAGE_RESIDENT, SWAP_ENTRY_NONE);
    atomic_fetch_add_explicit(&r->mapped_pages, 1, memory_order_relaxed);
    STAT_ADD(pool, mapped_pages, 1);
    page_came(pool, r, page, USWAP_EVENT_FAULTED, REFAULT_NEVER);
}

/* Makes count pages from first on. purpose: what their frames may cost. Return: 0 or -errno, if none was made; *done: how many were. */
static int make(uswap_pool *pool, region *r, size_t first, uint32_t count, frame_purpose purpose, uint32_t *done) {
    frame_id frame;
    *done = 0;
    uint32_t taken = frame_take_fill(pool, count, purpose, &frame);
    if (taken == 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < taken; i++) {
        uint64_t word = page_load(&r->object.words[first + i]);
        fill_value_write(frame_address(pool, frame + i), fill_value_at(pool, page_fill_of(word)));
    }
    int status = transport_in(pool, r->uffd, region_address(r, first), frame, taken, done);
    for (uint32_t i = 0; i < *done; i++)
        arrived(pool, r, first + i);
    if (*done < taken)
        frame_drop(pool, frame + *done, taken - *done);
    return *done > 0 ? 0 : status;
}

int page_in_filled(context *ctx, region *r, size_t page, size_t *around) {
    uswap_pool *pool = ctx->pool;
    uint32_t most = pool->options.fault_around_pages, done = 0;
    *around = 0;
    read_ahead_bounds bounds = {.window = most > 1 ? most : 0, .pages = r->object.pages};
    read_ahead_plan plan = read_ahead_fault(&r->fresh, (read_ahead_seen){.page = page}, bounds);
    if (plan.wide && page_in_block_fresh(ctx, r, page) == BLOCK_STARTED) {
        *around = BLOCK_PAGES - 1;
        read_ahead_asked(&r->fresh, plan, BLOCK_PAGES - 1);
        return 0;
    }
    filled_run run = lock_run(r, page, plan);
    int status = -ENOMEM;
    if (run.count > 1)
        status = make(pool, r, run.first, run.count, FRAME_AHEAD, &done);
    bool served = page - run.first < done;
    *around = served ? done - 1 : done;
    if (!served) /* the run was cut short before the page that matters */
        status = make(pool, r, page, 1, FRAME_FAULT, &done);
    unlock_run(r, run, page);
    if (plan.count > 0)
        read_ahead_asked(&r->fresh, plan, (uint32_t)*around);
    return status;
}
