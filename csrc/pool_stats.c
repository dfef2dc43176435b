/*
 * pool_stats.c - uswap_stats from counters, budget and areas. Each figure is exact, the set of them is not one moment's.
 */
#include "pool.h"
#include "shared/family.h"
#include "swap/holders.h"

#include <string.h>

static void fill_areas(uswap_pool *pool, uswap_stats *stats) {
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        const swap_area *area = &pool->areas[i];
        if (swap_area_is_closed(area))
            continue;
        stats->swap_total_bytes += (area->total_slots - 1) << PAGE_SHIFT;
        if (!(area->notes & USWAP_AREA_NO_FALLOCATE))
            stats->swap_allocated_bytes += (swap_area_room(area) + 1) << PAGE_SHIFT;
        stats->swap_used_bytes += atomic_load(&area->used_slots) << PAGE_SHIFT;
        stats->swap_lent_bytes += atomic_load(&area->lent_slots) << PAGE_SHIFT;
    }
    stats->swap_reserved_bytes = atomic_load(&pool->reserved_slots) << PAGE_SHIFT;
}

static void fill_frames(uswap_pool *pool, uswap_stats *stats) {
    const frame_budget *budget = pool->frames.budget;
    uint64_t limit = atomic_load(&budget->limit_frames), used = atomic_load(&budget->used_frames);
    uint64_t charged = atomic_load(&budget->metadata_frames);
    const group *named = atomic_load(&pool->group), *limiter = family_limiter(pool);
    stats->limit_bytes =
        limiter && !named ? atomic_load(&commons_head(&limiter->commons)->limit_bytes) : limit << PAGE_SHIFT;
    uint64_t taken = RESERVE_FRAMES + charged + pool->bounce_frames;
    stats->capacity_frames = limit > taken ? limit - taken : 0;
    stats->resident_bytes = used << PAGE_SHIFT;
    stats->peak_resident_bytes = STAT_GET(pool, peak_frames) << PAGE_SHIFT;
    stats->metadata_bytes = atomic_load(&budget->metadata_pages) << PAGE_SHIFT;
    stats->metadata_charged_bytes = charged << PAGE_SHIFT;
    stats->bounce_bytes = pool->bounce_frames << PAGE_SHIFT;
    stats->over_limit_frames = used > limit ? used - limit : 0;
    stats->over_limit_events = atomic_load(&budget->over_limit_events);
    stats->mapped_bytes = STAT_GET(pool, mapped_pages) << PAGE_SHIFT;
    stats->cached_bytes = STAT_GET(pool, cached_pages) << PAGE_SHIFT;
    stats->inactive_bytes = STAT_GET(pool, inactive_pages) << PAGE_SHIFT;
    stats->locked_bytes = STAT_GET(pool, locked_pages) << PAGE_SHIFT;
    stats->pinned_bytes = STAT_GET(pool, pinned_pages) << PAGE_SHIFT;
}

EXPORT int uswap_pool_stats(uswap_pool *pool, uswap_stats *stats, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    memset(stats, 0, sizeof *stats);
    if (holders_due(pool)) {
        gate_enter(&pool->gate);
        holders_sweep(pool);
        gate_leave(&pool->gate);
    }
    stats->transport = pool->use_move ? USWAP_TRANSPORT_MOVE : USWAP_TRANSPORT_COPY;
    stats->fault_mode = pool->options.fault_mode;
    stats->user_mode_only = pool->user_mode_only;
    stats->io_kind = io_kind(&pool->fault_context.io);
    stats->codec = codec_kind(&pool->codec);
    stats->key_locked = pool->codec.key_locked;
    fill_frames(pool, stats);
    fill_areas(pool, stats);
    stats->managed_bytes = pool->regions.pages << PAGE_SHIFT;
    stats->regions = pool->regions.live;
    stats->bad_slots = STAT_GET(pool, bad_slots);
    stats->poisoned_pages = STAT_GET(pool, poisoned_pages);
    stats->unanswered_ns = watch_unanswered_ns(pool);
#define STATS_COPY(name) stats->name = STAT_GET(pool, name);
    STATS_COUNTERS(STATS_COPY)
#undef STATS_COPY
    api_leave(&guard);
    return 0;
}
