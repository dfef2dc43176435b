/*
 * sealed_age.c - sealed pages become inactive: a copy goes to the swap cache, and the mapping away.
 *
 * To MOVE them out one by one would interrupt the other processors once a page. They cannot change while they are copied (they are sealed,
 * and their locks are held), and many mappings go by one call.
 */
#include "base/failpoint.h"
#include "frame/drop_mapped.h"
#include "reclaim/inactive.h"
#include "reclaim/page_out.h"
#include "reclaim/sealed.h"
#include "scratch.h"
#include "swap/swap_cache.h"

#include <unistd.h>

/* Return: false if the page cannot be read: the program has thrown it away, or there is no frame. */
static bool copy_out(uswap_pool *pool, const victim *v, frame_id *frame) {
    if (pool->self_mem_fd < 0 || FAILPOINT(sealed_copy) || !frame_take_copy(pool, frame))
        return false;
    off_t address = (off_t)(uintptr_t)region_address(v->r, v->page);
    if (pread(pool->self_mem_fd, frame_address(pool, *frame), PAGE_BYTES, address) == (ssize_t)PAGE_BYTES)
        return true;
    frame_rest(pool, *frame);
    return false;
}

/* Context: page locked. Return: whether it is inactive now. */
static bool publish(context *ctx, const victim *v, out_result result, frame_id frame, uint64_t flags) {
    uswap_pool *pool = ctx->pool;
    page_word *at = &v->r->object.words[v->page];
    swap_entry kept = page_entry_of(v->word);
    if (result == OUT_BUSY) {
        STAT_ADD(pool, evict_busy, 1);
        frame_rest(pool, frame);
        victim_stays(pool, v, false);
        return false;
    }
    page_out_count(ctx, v->r);
    if (result == OUT_ABSENT) {
        page_set_state(at, PAGE_ZERO, SWAP_ENTRY_NONE);
        swap_map_put(pool, kept);
        frame_rest(pool, frame);
        return false;
    }
    page_set_state(at, PAGE_SWAPPED, kept);
    atomic_fetch_add_explicit(&v->r->swapped_pages, 1, memory_order_relaxed);
    STAT_ADD(pool, clean_drops, 1);
    bool added = swap_cache_add_clean(pool, kept, frame, flags); /* nobody else uses the slot of a page that is in */
    INVARIANT(I7, added);
    inactive_add(pool, kept);
    events_note_slot(pool, USWAP_EVENT_AGED, kept);
    return true;
}

uint64_t sealed_age(context *ctx, const victim *victims, uint32_t count, uint64_t flags) {
    uswap_pool *pool = ctx->pool;
    unsigned char *address[SEALED_AGE_MAX];
    out_result result[SEALED_AGE_MAX];
    frame_id frame[SEALED_AGE_MAX];
    victim copied[SEALED_AGE_MAX];
    uint32_t copies = 0;
    uint64_t aged = 0, gone = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (copy_out(pool, &victims[i], &frame[copies])) {
            address[copies] = region_address(victims[i].r, victims[i].page);
            copied[copies++] = victims[i];
        } else { /* it leaves like others, or not at all */
            sealed_drop(ctx, &victims[i], 1, false);
        }
    }
    if (copies > 0)
        drop_mapped(pool, address, copies, result);
    for (uint32_t i = 0; i < copies; i++) {
        gone += result[i] != OUT_BUSY;
        aged += publish(ctx, &copied[i], result[i], frame[i], flags);
        page_unlock(&copied[i].r->object.words[copied[i].page]);
        region_move_end(copied[i].r);
        region_put(copied[i].r);
    }
    frame_uncharge(pool, gone);
    return aged;
}
