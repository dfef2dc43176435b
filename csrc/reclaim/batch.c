#include "reclaim/batch.h"

#include "swap/page_in_ahead.h"
#include "swap/swap_cache.h"

/* A page in the swap cache whose turn has come: its frame is dropped. Context: page locked. */
static bool drop_cached(batch *b, region *r, size_t page, swap_entry entry) {
    uswap_pool *pool = b->ctx->pool;
    frame_id frame;
    uint64_t flags;
    if (b->ahead && (swap_cache_load(pool, entry) & SLOT_STAYS))
        return false; /* it is where it is to be */
    if (!swap_cache_take(pool, entry, CACHE_CLEAN, &frame, &flags))
        return false;
    page_in_ahead_dropped(pool, r, page, flags);
    frame_run_drop(pool, &b->dropped, frame);
    swap_cache_evicted(pool, entry, flags);
    events_note_slot(pool, USWAP_EVENT_EVICTED, entry);
    return true;
}

choice batch_choose(batch *b, stay entry, bool any, bool wait) {
    uswap_pool *pool = b->ctx->pool;
    region *r = region_get_by_stay(&pool->regions, entry);
    if (!r)
        return CHOICE_STALE;
    size_t page = stay_page(entry);
    page_word *at = &r->object.words[page];
    choice made = CHOICE_BUSY;
    if (!region_move_begin(r)) {
        region_put(r);
        return CHOICE_BUSY;
    }
    if (wait)
        page_lock(at);
    if (wait || page_try_lock(at)) {
        uint64_t word = page_load(at);
        bool current = any || page_generation_of(word) == stay_generation(entry);
        if (current && page_state_of(word) == PAGE_RESIDENT && !page_is_held(word)) {
            b->victims[b->count++] = (victim){.r = r, .page = page, .word = word};
            return CHOICE_VICTIM;
        }
        made = CHOICE_STALE;
        if (current && page_state_of(word) == PAGE_SWAPPED && drop_cached(b, r, page, page_entry_of(word)))
            made = CHOICE_DROPPED;
        page_unlock(at);
    }
    region_move_end(r);
    region_put(r);
    return made;
}

static void choose_entry(batch *b, stay entry) {
    uswap_pool *pool = b->ctx->pool;
    choice made = batch_choose(b, entry, false, false);
    if (made == CHOICE_BUSY && b->popped)
        pages_came(pool, &entry, 1, USWAP_EVENT_KEPT, REFAULT_NEVER);
    else if (made == CHOICE_BUSY)
        events_note(pool, USWAP_EVENT_KEPT, &entry, 1, REFAULT_NEVER);
    else if (made == CHOICE_STALE && !b->popped)
        STAT_ADD(pool, policy_passed, 1);
    b->freed += made == CHOICE_DROPPED;
}

/* Whether the page is still in, and lies in a block that went in as a whole. Then the block is to leave as a whole: to split a huge
 * page costs more than to read it did. */
static bool in_huge_block(uswap_pool *pool, stay entry, stay *first) {
    size_t page;
    region *r = region_get_by_stay(&pool->regions, entry);
    if (!r)
        return false;
    uint64_t word = page_load(&r->object.words[stay_page(entry)]);
    bool huge = page_state_of(word) == PAGE_RESIDENT && page_generation_of(word) == stay_generation(entry) &&
                region_block_of(r, stay_page(entry), &page) && region_is_huge(r, page);
    if (huge)
        *first = stay_of(r, page);
    region_put(r);
    return huge;
}

/* All pages of the block that are there: an order for one of them is for all. */
static void choose_all(batch *b, region *r, size_t first) {
    for (size_t page = first; page < first + BLOCK_PAGES && b->count < b->room; page++)
        b->freed += batch_choose(b, stay_of(r, page), true, false) == CHOICE_DROPPED;
}

/* Takes the entries of a block from the head of the ring, or whatever of it is there by the first of the orders. Return: how many entries
 * were taken. */
static uint32_t choose_block(batch *b, reclaim_ring *from, stay first) {
    stay *entries = b->ctx->scratch->ring;
    uint32_t popped = ring_pop_range(from, first, entries, b->popped ? b->room : BLOCK_PAGES);
    region *r = region_get_by_stay(&b->ctx->pool->regions, first);
    if (r) {
        region_set_huge(r, stay_page(first), false);
        if (!b->popped)
            choose_all(b, r, stay_page(first));
        region_put(r);
    }
    for (uint32_t i = 0; i < popped && b->popped; i++)
        choose_entry(b, entries[i]);
    return popped;
}

/* Takes the oldest entries, up to the first of a huge block; or that block, if it is the oldest. Return: how many. */
static uint32_t choose_next(batch *b, reclaim_ring *from, uint32_t want, bool *met_block) {
    uswap_pool *pool = b->ctx->pool;
    stay entries[BATCH_PAGES], first = {0};
    uint32_t popped = ring_pop(from, entries, MIN_OF(want, (uint32_t)BATCH_PAGES)), loose = 0;
    for (; loose < popped && !in_huge_block(pool, entries[loose], &first); loose++)
        choose_entry(b, entries[loose]);
    *met_block = loose < popped;
    for (uint32_t i = popped; i-- > loose;)
        ring_push_page_front(pool, from, entries[i]);
    if (*met_block && b->count == 0) /* else what is chosen leaves first */
        loose += choose_block(b, from, first);
    return loose;
}

void batch_choose_oldest(batch *b, reclaim_ring *from, uint64_t want, uint64_t *left) {
    bool met_block = false;
    want = MIN_OF(want, (uint64_t)MIN_OF(b->room, (uint32_t)BATCH_PAGES));
    while (b->count + b->freed<want && * left> 0 && !met_block) {
        uint64_t missing = want - b->count - b->freed;
        uint32_t seen = choose_next(b, from, (uint32_t)MIN_OF(missing, *left), &met_block);
        *left -= seen == 0 && !met_block ? *left : MIN_OF((uint64_t)seen, *left);
    }
}

static bool comes_before(const victim *a, const victim *b) {
    return a->r != b->r ? a->r->base < b->r->base : a->page < b->page;
}

/* By address, so that neighbours leave in one MOVE and lie side by side in the swap area. Mostly sorted already. */
void batch_sort(batch *b) {
    for (uint32_t i = 1; i < b->count; i++) {
        victim moved = b->victims[i];
        uint32_t at = i;
        for (; at > 0 && comes_before(&moved, &b->victims[at - 1]); at--)
            b->victims[at] = b->victims[at - 1];
        b->victims[at] = moved;
    }
}
