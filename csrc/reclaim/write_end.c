#include "reclaim/write_end.h"

#include "base/failpoint.h"
#include "frame/transport.h"
#include "reclaim/batch.h"
#include "reclaim/inactive.h"
#include "swap/page_in.h"
#include "swap/swap_cache.h"

/* The device has refused the slot: the frame goes back to its page, which looks for another slot at its next eviction. */
static void take_back(uswap_pool *pool, swap_entry entry) {
    page_ref owner = swap_map_owner(pool, entry);
    region *r = region_get_by_ref(&pool->regions, owner);
    if (!r)
        return; /* the region is being destroyed, and puts its slots */
    size_t page = page_ref_page(owner);
    page_word *at = &r->object.words[page];
    frame_id frame;
    uint64_t flags;
    page_lock(at);
    uint64_t word = page_load(at);
    bool ours = swap_entry_equal(page_entry_of(word), entry);
    if (ours && page_state_of(word) == PAGE_SWAPPED && slot_state_of(swap_cache_load(pool, entry)) == CACHE_DIRTY) {
        int status =
            transport_back(pool, r->uffd, region_address(r, page), slot_frame_of(swap_cache_load(pool, entry)));
        if (status == 0 && swap_cache_take(pool, entry, CACHE_DIRTY, &frame, &flags)) {
            page_in_arrived(pool, r, page, entry, false, flags);
        }
    } else if (ours && page_state_of(word) == PAGE_RESIDENT &&
               swap_cache_take(pool, entry, CACHE_DIRTY, &frame, &flags)) {
        /* A fault copied the contents back while they were written: only the slot is lost. */
        page_set_state(at, PAGE_RESIDENT, SWAP_ENTRY_NONE);
        swap_map_put(pool, entry);
        frame_drop(pool, frame, 1);
    }
    page_unlock(at);
    region_put(r);
}

static int write_again(context *ctx, const io_request *request, swap_entry entry) {
    uswap_pool *pool = ctx->pool;
    int status = FAILPOINT_PAGE(page_out_one, swap_map_owner(pool, entry).value, NULL);
    const void *memory = frame_address(pool, slot_frame_of(swap_cache_load(pool, entry)));
    return status ? status : io_page(&ctx->io, IO_WRITE, request->fd, (void *)(uintptr_t)memory, entry);
}

void write_end(context *ctx, io_request *request) {
    uswap_pool *pool = ctx->pool;
    int failure = FAILPOINT(page_out_written);
    bool whole = failure == 0 && request->result == (int64_t)request->pages << PAGE_SHIFT;
    frame_run run = {0};
    for (uint32_t i = 0; i < request->pages; i++) {
        swap_entry entry = swap_entry_after(request->first, i);
        frame_id frame;
        uint64_t flags;
        if (whole || write_again(ctx, request, entry) == 0) {
            if (swap_cache_end_write(pool, entry, &frame, &flags) == END_DROP) {
                frame_run_drop(pool, &run, frame);
                swap_cache_evicted(pool, entry, flags);
                events_note_slot(pool, USWAP_EVENT_EVICTED, entry);
            } else {
                inactive_add(pool, entry);
                events_note_slot(pool, USWAP_EVENT_WRITTEN, entry);
            }
            continue;
        }
        STAT_ADD(pool, write_errors, 1);
        if (swap_cache_fail_write(pool, entry, &frame))
            take_back(pool, entry);
        else
            frame_run_drop(pool, &run, frame);
    }
    FAILPOINT(page_out_drop);
    frame_run_end(pool, &run);
}
