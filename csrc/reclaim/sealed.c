#include "reclaim/sealed.h"

#include "fault/uffd.h"
#include "frame/drop_mapped.h"
#include "reclaim/page_out.h"
#include "swap/page_in.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <sched.h>

/* A store to a sealed page costs a fault; a sealed page that leaves saves a MOVE, about half as much. So a region whose pages are written
 * after they came, more often than one in five, gets them unsealed, but for a few that tell when this changes. */
#define WRITTEN_COSTS 4
#define SCORE_MAX 64
#define SCORE_LEAST 32
#define PROBE_EVERY 32

/* ---- arriving ---- */

static bool pays(region *r) {
    return atomic_load_explicit(&r->written_score, memory_order_relaxed) < SCORE_LEAST ||
           atomic_fetch_add_explicit(&r->seal_turn, 1, memory_order_relaxed) % PROBE_EVERY == 0;
}

bool seal_wanted(uswap_pool *pool, region *r, uint64_t word, swap_entry entry) {
    return drop_mapped_works(pool) && !page_is_held(word) && page_in_keeps_slot(pool, entry) && pays(r);
}

void seal_page(region *r, size_t page) {
    if (swap_entry_is_none(page_entry_of(page_load(&r->object.words[page]))))
        return; /* its slot was to stay when that was asked, and has been given up since: slots have become scarce */
    page_set_bits(&r->object.words[page], 0, PAGE_SEALED);
}

/* ---- being written ---- */

/* Not exact where several threads do so at once: it need not be. */
static void note(region *r, int change) {
    int score = atomic_load_explicit(&r->written_score, memory_order_relaxed) + change;
    atomic_store_explicit(&r->written_score, MAX_OF(0, MIN_OF(score, SCORE_MAX)), memory_order_relaxed);
}

void unseal_page(region *r, size_t page, bool by_store) {
    page_set_bits(&r->object.words[page], PAGE_SEALED, 0);
    while (uffd_write_protect(r->uffd, region_address(r, page), 1, false, true) == -EAGAIN)
        sched_yield(); /* the program is changing its mappings at this moment */
    if (by_store)
        note(r, WRITTEN_COSTS);
}

/* ---- leaving ---- */

static bool publish(context *ctx, const victim *v, out_result result, bool popped) {
    uswap_pool *pool = ctx->pool;
    page_word *at = &v->r->object.words[v->page];
    swap_entry kept = page_entry_of(v->word);
    if (result == OUT_BUSY) {
        STAT_ADD(pool, evict_busy, 1);
        victim_stays(pool, v, popped);
        return false;
    }
    if (result == OUT_DROPPED) {
        page_set_state(at, PAGE_SWAPPED, kept);
        swap_cache_evicted(pool, kept, 0);
        atomic_fetch_add_explicit(&v->r->swapped_pages, 1, memory_order_relaxed);
        STAT_ADD(pool, clean_drops, 1);
        note(v->r, -1);
    } else {
        page_set_state(at, PAGE_ZERO, SWAP_ENTRY_NONE);
        swap_map_put(pool, kept);
    }
    page_out_count(ctx, v->r);
    return true;
}

bool sealed_can_drop(const uswap_pool *pool, uint64_t word) {
    return page_is_sealed(word) && swap_area_keeps(&pool->areas[swap_entry_area(page_entry_of(word))]);
}

uint64_t sealed_drop(context *ctx, const victim *victims, uint32_t count, bool popped) {
    unsigned char *address[DROP_MAPPED_MAX] = {NULL};
    out_result result[DROP_MAPPED_MAX];
    uint64_t freed = 0;
    for (uint32_t i = 0; i < count; i++)
        address[i] = region_address(victims[i].r, victims[i].page);
    drop_mapped(ctx->pool, address, count, false, result);
    for (uint32_t i = 0; i < count; i++) {
        freed += publish(ctx, &victims[i], result[i], popped);
        page_unlock(&victims[i].r->object.words[victims[i].page]);
        region_move_end(victims[i].r);
        region_put(victims[i].r);
    }
    frame_uncharge(ctx->pool, freed);
    return freed;
}
