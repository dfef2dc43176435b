#include "reclaim/write_slots.h"

#include "base/failpoint.h"
#include "scratch.h"
#include "swap/holders.h"

void write_slots_return(context *ctx) {
    slot_cluster *cluster = &ctx->cluster;
    if (cluster->left > 0)
        slot_alloc_give(cluster->area, cluster->next, cluster->left);
    cluster->left = 0;
}

/* Opens a cluster in the area of the highest priority that has one; areas of equal priority take turns. */
static bool open_cluster(context *ctx) {
    uswap_pool *pool = ctx->pool;
    uint32_t areas = atomic_load(&pool->area_count), turn = atomic_fetch_add(&pool->stripe, 1);
    uint64_t tried = 0;
    for (uint32_t round = 0; round < areas; round++) {
        swap_area *best = NULL;
        for (uint32_t i = 0; i < areas; i++) {
            swap_area *area = &pool->areas[(turn + i) % areas];
            if (swap_area_in_use(area) && !(tried >> area->index & 1) && (!best || area->priority > best->priority))
                best = area;
        }
        if (!best)
            return false;
        tried |= UINT64_C(1) << best->index;
        uint64_t first;
        uint32_t count = slot_alloc_run(best, CLUSTER_SLOTS, &first);
        if (count > 0) {
            ctx->cluster = (slot_cluster){.area = best, .next = first, .left = count};
            return true;
        }
    }
    return false;
}

uint32_t write_slots_room(const context *ctx) {
    const uswap_pool *pool = ctx->pool;
    uint64_t slots = ctx->cluster.left;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count) && slots < BLOCK_PAGES; i++) {
        const swap_area *area = &pool->areas[i];
        if (!swap_area_in_use(area))
            continue;
        uint64_t used = atomic_load_explicit(&area->used_slots, memory_order_relaxed);
        uint64_t room = swap_area_room(area);
        slots += room > used ? room - used : 0;
    }
    return (uint32_t)MIN_OF(slots, (uint64_t)BLOCK_PAGES);
}

swap_entry write_slots_take(context *ctx) {
    slot_cluster *cluster = &ctx->cluster;
    if (FAILPOINT(page_out_slot))
        return SWAP_ENTRY_NONE;
    if (cluster->left == 0) {
        atomic_store(&ctx->pool->slots_freed, 0);
        atomic_store(&ctx->pool->slots_exhausted, 1); /* before the look: slots freed after it clear this again */
        if (!open_cluster(ctx) && (holders_sweep(ctx->pool) == 0 || !open_cluster(ctx)))
            return SWAP_ENTRY_NONE;
        atomic_store(&ctx->pool->slots_exhausted, 0);
    }
    swap_entry entry = swap_entry_make(cluster->area->index, cluster->next);
    cluster->next++;
    cluster->left--;
    metadata_touch_slot(ctx->pool, entry);
    return entry;
}
