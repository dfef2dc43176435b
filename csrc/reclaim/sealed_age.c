/*
 * sealed_age.c - sealed pages become inactive: a copy goes to the swap cache, and the mapping away.
 *
 * To MOVE them out one by one would interrupt the other processors once a page. They cannot change while they are copied (they are sealed,
 * and their locks are held), and many mappings go by one call.
 */
#include "frame/drop_mapped.h"
#include "reclaim/inactive.h"
#include "reclaim/page_out.h"
#include "reclaim/sealed.h"
#include "scratch.h"
#include "swap/swap_cache.h"

/* As many at a time as the reserve can lend frames for. */
#define LENT_MAX 16

/* Pages that are being copied. */
typedef struct {
    uint32_t count;
    unsigned char *address[DROP_MAPPED_MAX];
    out_result result[DROP_MAPPED_MAX];
    frame_id frame[DROP_MAPPED_MAX];
    void *memory[DROP_MAPPED_MAX];
} copies;

/* Frames for copies of as many of the pages as there are idle ones, and loans of the reserve. */
static void take_frames(uswap_pool *pool, copies *c, const victim *victims, uint32_t count) {
    uint32_t loans = 0;
    for (c->count = 0; c->count < count && loans < LENT_MAX; c->count++) {
        uint32_t at = c->count;
        bool lent;
        if (!frame_take_copy(pool, &c->frame[at], &lent))
            break;
        loans += lent;
        c->memory[at] = frame_address(pool, c->frame[at]);
        c->address[at] = region_address(victims[at].r, victims[at].page);
    }
}

/* Context: page locked. Return: whether it is inactive now. */
static bool publish(context *ctx, const victim *v, out_result result, frame_id frame, uint64_t flags) {
    uswap_pool *pool = ctx->pool;
    page_word *at = &v->r->object.words[v->page];
    swap_entry kept = page_entry_of(v->word);
    if (result == OUT_BUSY) {
        STAT_ADD(pool, evict_busy, 1);
        frame_rest_or_drop(pool, frame);
        victim_stays(pool, v, false);
        return false;
    }
    page_out_count(ctx, v->r);
    if (result == OUT_ABSENT) {
        page_set_state(at, PAGE_ZERO, SWAP_ENTRY_NONE);
        swap_map_put(pool, kept);
        frame_rest_or_drop(pool, frame);
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

static void let_go(const victim *v) {
    page_unlock(&v->r->object.words[v->page]);
    region_move_end(v->r);
    region_put(v->r);
}

/* The first of the pages, as many as there are frames for. *aged: how many of them are inactive now. Return: how many were dealt with. */
static uint32_t age_some(context *ctx, const victim *victims, uint32_t count, uint64_t flags, uint64_t *aged) {
    uswap_pool *pool = ctx->pool;
    copies c;
    take_frames(pool, &c, victims, count);
    uint32_t copied = copy_mapped(pool, c.address, c.memory, c.count), gone = 0;
    for (uint32_t i = copied; i < c.count; i++)
        frame_rest_or_drop(pool, c.frame[i]);
    if (copied > 0)
        drop_mapped(pool, c.address, copied, true, c.result);
    for (uint32_t i = 0; i < copied; i++) {
        gone += c.result[i] != OUT_BUSY;
        *aged += publish(ctx, &victims[i], c.result[i], c.frame[i], flags);
        let_go(&victims[i]);
    }
    frame_uncharge(pool, gone);
    return copied;
}

uint64_t sealed_age(context *ctx, const victim *victims, uint32_t count, uint64_t flags) {
    uint64_t aged = 0;
    for (uint32_t i = 0; i < count;) {
        uint32_t done = age_some(ctx, victims + i, count - i, flags, &aged);
        i += done;
        if (done == 0) /* it cannot be read: the program has thrown it away. It leaves like others, or not at all */
            sealed_drop(ctx, &victims[i++], 1, false);
    }
    return aged;
}
