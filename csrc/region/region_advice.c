/*
 * region_advice.c - uswap_region_advise and _protect.
 */
#include "base/status.h"
#include "fault/fault_thread.h"
#include "reclaim/page_out.h"
#include "region/region_range.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static int advise_discard(region_range *range, uswap_error *err) {
    gate_enter(&range->pool->gate);
    int status = region_discard(range->pool, range->r, range->first, range->count);
    gate_leave(&range->pool->gate);
    if (status == 0)
        return 0;
    return error_set(err, USWAP_E_BUSY, -status, "discard", NULL,
                     status == -EAGAIN
                         ? "the region is being closed"
                         : "the range is locked or pinned (at least in part): unlock it before it is discarded");
}

/* The pages of the range leave before all others, in their order. */
static void advise_cold(region_range *range) {
    uswap_pool *pool = range->pool;
    gate_enter(&pool->gate);
    for (size_t i = 0; i < range->count; i++) {
        size_t page = range->first + i;
        if (!atomic_load(&range->r->object.touched[page / PAGE_WORDS_PER_CHUNK]))
            continue;
        page_word *at = &range->r->object.words[page];
        page_lock(at);
        uint64_t word = page_load(at);
        if (page_state_of(word) == PAGE_RESIDENT && !page_is_held(word)) {
            ring_push_page(pool, &pool->orders.rings[ORDER_COLD], stay_of(range->r, page));
        }
        page_unlock(at);
    }
    gate_leave(&pool->gate);
}

static void advise_pageout(region_range *range) {
    uswap_pool *pool = range->pool;
    context *ctx = context_borrow(pool);
    for (size_t page = range->first, end = page + range->count; page < end;) {
        bool touched;
        size_t chunk = region_range_chunk(range, page, &touched);
        if (touched) {
            gate_enter(&pool->gate);
            page_out_range(ctx, range->r, page, chunk);
            gate_leave(&pool->gate);
        }
        page += chunk;
    }
    gate_enter(&pool->gate);
    context_drain(ctx);
    gate_leave(&pool->gate);
    context_return(ctx);
}

/* Advice only: where too many orders are waiting, it is not taken. */
static void advise_willneed(region_range *range) {
    read_ahead_plan plan = {
        .first = (int64_t)range->first, .stride = 1, .count = (uint32_t)MIN_OF(range->count, (size_t)UINT32_MAX)};
    fault_thread_order(range->pool, &(read_order){.region = page_ref_of(range->r, 0), .plan = plan});
}

static int advise(region_range *range, uint32_t advice, uswap_error *err) {
    switch ((uswap_advice)advice) {
    case USWAP_ADVICE_NORMAL:
    case USWAP_ADVICE_RANDOM:
    case USWAP_ADVICE_SEQUENTIAL: /* of the whole region: streams know no ranges */
        atomic_store(&range->r->advice, advice);
        return 0;
    case USWAP_ADVICE_WILLNEED:
        advise_willneed(range);
        return 0;
    case USWAP_ADVICE_DONTNEED:
        return advise_discard(range, err);
    case USWAP_ADVICE_COLD:
        advise_cold(range);
        return 0;
    case USWAP_ADVICE_PAGEOUT:
        advise_pageout(range);
        return 0;
    }
    return error_set(err, USWAP_E_INVALID, 0, "advise", NULL, "%u is no advice", advice);
}

EXPORT int uswap_region_advise(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes,
                               uint32_t advice, uswap_error *err) {
    region_range range;
    range_rounding rounding = advice == USWAP_ADVICE_DONTNEED ? RANGE_INSIDE : RANGE_TOUCHED;
    int status = region_range_begin(&range, pool, id, start_bytes, length_bytes, rounding, err);
    if (status != 0)
        return status;
    if (range.count > 0 || advice > USWAP_ADVICE_PAGEOUT)
        status = advise(&range, advice, err);
    region_range_end(&range);
    return status;
}

EXPORT int uswap_region_protect(uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes,
                                uint32_t protection, uswap_error *err) {
    if (protection & ~(uint32_t)(PROT_READ | PROT_WRITE))
        return error_set(err, USWAP_E_INVALID, 0, "protect", NULL, "protection is made of READ and WRITE");
    if (start_bytes % PAGE_BYTES != 0)
        return error_set(err, USWAP_E_INVALID, 0, "protect", NULL, "start must be a multiple of 4096");
    region_range range;
    int status = region_range_begin(&range, pool, id, start_bytes, length_bytes, RANGE_TOUCHED, err);
    if (status != 0)
        return status;
    if (!region_move_begin(range.r)) {
        status = error_set(err, USWAP_E_BUSY, 0, "protect", NULL, "the region is being closed");
    } else {
        if (range.count > 0 &&
            mprotect(region_address(range.r, range.first), range.count << PAGE_SHIFT, (int)protection) != 0)
            status =
                error_set(err, USWAP_E_OS, errno, "mprotect", NULL, "cannot protect the range: %s%s", error_text(errno),
                          errno == ENOMEM ? " (each change of protection splits a mapping: see vm.max_map_count)" : "");
        region_move_end(range.r);
    }
    region_range_end(&range);
    return status;
}
