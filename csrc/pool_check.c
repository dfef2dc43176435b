/*
 * pool_check.c - uswap_pool_check: the invariants of README over every page, slot, place and ring entry, with the gate closed.
 */
#define _GNU_SOURCE
#include "base/findings.h"
#include "base/memory.h"
#include "base/status.h"
#include "pool.h"
#include "shared/family.h"
#include "swap/holders.h"
#include "swap/swap_cache.h"

#include <sys/mman.h>

typedef struct {
    uswap_pool *pool;
    findings found;
    uint64_t resident, with_entry, uses, cached, held_locked, held_pinned, swapped;
    uint64_t *frames_seen; /* a bit a place */
    uint8_t *in_ring;      /* a bit a page of the region at hand */
} check;

typedef unsigned long long ull;

/* ---- pages ---- */

static void check_entry(check *c, const region *r, size_t page, uint64_t word) {
    uswap_pool *pool = c->pool;
    swap_entry entry = page_entry_of(word);
    if (swap_entry_area(entry) >= atomic_load(&pool->area_count) ||
        swap_area_is_closed(&pool->areas[swap_entry_area(entry)]) ||
        swap_entry_slot(entry) >= pool->areas[swap_entry_area(entry)].total_slots) {
        findings_add(&c->found, "I4", "page %llu of '%s' has the entry %llx of no area", (ull)page, r->name,
                     (ull)entry.value);
        return;
    }
    uint64_t slot = swap_cache_load(pool, entry);
    c->with_entry++;
    if (slot_count_of(slot) == 0)
        findings_add(&c->found, "I4", "page %llu of '%s' uses slot %llx, whose count is 0", (ull)page, r->name,
                     (ull)entry.value);
    if (swap_map_owner(pool, entry).value != page_ref_of(r, page).value)
        findings_add(&c->found, "I4", "slot %llx of page %llu of '%s' names another owner", (ull)entry.value, (ull)page,
                     r->name);
    if ((slot & SLOT_BAD) && slot_state_of(slot) == CACHE_NONE)
        findings_add(&c->found, "I11", "page %llu of '%s' has its contents in a bad slot only", (ull)page, r->name);
}

static void check_mapped(check *c, const region *r, size_t page) {
    unsigned char there = 0;
    if (mincore(region_address(r, page), PAGE_BYTES, &there) == 0 && (there & 1))
        findings_add(&c->found, "I3", "page %llu of '%s' is out, but something is mapped there", (ull)page, r->name);
}

static void check_page(check *c, const region *r, size_t page) {
    uint64_t word = page_load(&r->object.words[page]);
    page_state state = page_state_of(word);
    if (word & PAGE_LOCK)
        findings_add(&c->found, "lock", "page %llu of '%s' is locked by nobody", (ull)page, r->name);
    c->held_locked += (word & PAGE_MLOCKED) != 0;
    c->held_pinned += page_pins_of(word) != 0;
    c->resident += state == PAGE_RESIDENT;
    c->swapped += state == PAGE_SWAPPED;
    if (state == PAGE_SWAPPED && swap_entry_is_none(page_entry_of(word)))
        findings_add(&c->found, "I4", "page %llu of '%s' is swapped to nowhere", (ull)page, r->name);
    if (state == PAGE_FILLED &&
        (page_fill_of(word).value >= FILL_VALUES_MAX || fill_value_at(c->pool, page_fill_of(word)) == 0))
        findings_add(&c->found, "I11", "page %llu of '%s' is full of no value", (ull)page, r->name);
    if (page_is_sealed(word) &&
        (state != PAGE_RESIDENT || page_is_held(word) || swap_entry_is_none(page_entry_of(word))))
        findings_add(&c->found, "I14", "page %llu of '%s' is sealed, but held, out, or without a slot", (ull)page,
                     r->name);
    if (!swap_entry_is_none(page_entry_of(word)))
        check_entry(c, r, page, word);
    if (state != PAGE_RESIDENT && !atomic_load(&r->quiesced))
        check_mapped(c, r, page);
    bool cached = state == PAGE_SWAPPED && !c->found.failed &&
                  slot_state_of(swap_cache_load(c->pool, page_entry_of(word))) == CACHE_CLEAN;
    if ((state == PAGE_RESIDENT || cached) && !page_is_held(word) && !(c->in_ring[page / 8] >> (page % 8) & 1))
        findings_add(&c->found, "I10", "page %llu of '%s' is %s, but the reclaim rings have forgotten it", (ull)page,
                     r->name, cached ? "in the swap cache" : "resident");
}

/* Which pages of the region have an entry of their present stay in this ring. Under its lock: a ring grows with the limit, and that changes without
 * the gate where it is a part of another (shared/grants_tend.c). */
static void mark_ring(check *c, const region *r, reclaim_ring *ring) {
    small_lock_acquire(&ring->lock);
    for (uint64_t i = ring_past_gap(ring, ring->head); i < ring->tail; i = ring_past_gap(ring, i + 1)) {
        stay entry = ring->entries[i % ring->capacity];
        size_t page = stay_page(entry);
        if (page < r->object.pages && entry.value == stay_of(r, page).value)
            c->in_ring[page / 8] |= (uint8_t)(1U << (page % 8));
    }
    small_lock_release(&ring->lock);
}

static void check_region(check *c, const region *r) {
    size_t bytes = r->object.pages / 8 + 1;
    uint64_t resident = c->resident, swapped = c->swapped;
    c->in_ring = memory_map(bytes);
    if (!c->in_ring) {
        findings_add(&c->found, "check", "there is no memory for the check itself");
        return;
    }
    mark_ring(c, r, &c->pool->ring);
    mark_ring(c, r, &c->pool->ring_marked);
    mark_ring(c, r, &c->pool->inactive);
    mark_ring(c, r, &c->pool->inactive_marked);
    for (size_t page = 0; page < r->object.pages && !c->found.failed; page++) {
        if (page % PAGE_WORDS_PER_CHUNK == 0 && !atomic_load(&r->object.touched[page / PAGE_WORDS_PER_CHUNK])) {
            page += PAGE_WORDS_PER_CHUNK - 1;
            continue;
        }
        check_page(c, r, page);
    }
    memory_unmap(c->in_ring, bytes);
    if (c->resident - resident != atomic_load(&r->mapped_pages) ||
        c->swapped - swapped != atomic_load(&r->swapped_pages))
        findings_add(&c->found, "I1", "region '%s' counts %llu pages in and %llu out; there are %llu and %llu", r->name,
                     (ull)atomic_load(&r->mapped_pages), (ull)atomic_load(&r->swapped_pages),
                     (ull)(c->resident - resident), (ull)(c->swapped - swapped));
}

/* ---- slots ---- */

static void check_frame(check *c, swap_entry entry, frame_id frame) {
    uint64_t bit = UINT64_C(1) << (frame % 64);
    const arena *a = frame_arena(&c->pool->frames, frame);
    if (!a) {
        findings_add(&c->found, "I7", "slot %llx has the frame %u of no arena", (ull)entry.value, (unsigned)frame);
        return;
    }
    uint32_t place = frame - a->first;
    if (!(a->bitmap[place / 64] >> (place % 64) & 1))
        findings_add(&c->found, "I7", "slot %llx has a frame in a free place", (ull)entry.value);
    if (c->frames_seen[frame / 64] & bit)
        findings_add(&c->found, "I7", "slot %llx has a frame that another slot has too", (ull)entry.value);
    c->frames_seen[frame / 64] |= bit;
}

/* Return: slots in use. */
static uint64_t check_slots(check *c, const swap_area *area) {
    uint64_t used = 0, lost = 0, lent = 0;
    const size_t per_page = PAGE_BYTES / sizeof(swap_slot);
    for (uint64_t slot = 0; slot < area->total_slots && !c->found.failed; slot++) {
        if (slot % per_page == 0 && !atomic_load(&area->slots_touched[slot / per_page])) {
            slot += per_page - 1;
            continue;
        }
        uint64_t word = atomic_load(&area->slots[slot].word);
        swap_entry entry = swap_entry_make(area->index, slot);
        if (word == 0)
            continue;
        used++;
        c->uses += slot_count_of(word);
        lost += word == SLOT_BAD;
        lent += word == SLOT_LENT;
        if (!area->inherited && !slot_alloc_is_taken(area, slot))
            findings_add(&c->found, "I6", "slot %llx is in use and free", (ull)entry.value);
        if (word == SLOT_LENT)
            continue;
        if (slot_state_of(word) != CACHE_NONE) {
            c->cached++;
            check_frame(c, entry, slot_frame_of(word));
        } else if (slot_count_of(word) == 0 && !(word & SLOT_BAD)) {
            findings_add(&c->found, "I6", "slot %llx is lost: not used and not free", (ull)entry.value);
        }
    }
    if (!c->found.failed && lost != atomic_load(&area->lost_slots))
        findings_add(&c->found, "I6", "area %u counts %llu lost slots; there are %llu", area->index,
                     (ull)area->lost_slots, (ull)lost);
    if (!c->found.failed && lent != atomic_load(&area->lent_slots))
        findings_add(&c->found, "I6", "area %u counts %llu slots that are lent; there are %llu", area->index,
                     (ull)area->lent_slots, (ull)lent);
    return used;
}

static uint64_t open_in(const context *contexts, int count, const swap_area *area) {
    uint64_t open = 0;
    for (int i = 0; i < count; i++)
        if (contexts[i].cluster.area == area)
            open += contexts[i].cluster.left;
    return open;
}

static uint64_t open_slots(const uswap_pool *pool, const swap_area *area) {
    uint64_t open = open_in(&pool->fault_context, 1, area) + open_in(&pool->reclaim_context, 1, area);
    open += open_in(pool->api_contexts, API_CONTEXTS, area);
    if (pool->inlines.contexts)
        open += open_in(pool->inlines.contexts, INLINE_CONTEXTS, area);
    return open;
}

/* Holes, too, are taken slots that nobody uses. */
static uint64_t taken_bits(const swap_area *area) {
    uint64_t taken = 0, words = (atomic_load(&area->usable_slots) + 63) / 64;
    for (uint64_t i = 0; i < words; i++)
        taken += (uint64_t)__builtin_popcountll(area->bitmap[i]);
    return taken - 1; /* the header */
}

static void check_area(check *c, const swap_area *area) {
    uint64_t used = check_slots(c, area), open = open_slots(c->pool, area), taken = atomic_load(&area->used_slots);
    if (!c->found.failed && used + open != taken)
        findings_add(&c->found, "I6", "area %u: %llu slots are taken, but %llu are in use and %llu in open clusters",
                     area->index, (ull)taken, (ull)used, (ull)open);
    if (!c->found.failed && !area->inherited && taken_bits(area) != taken + atomic_load(&area->hole_slots))
        findings_add(&c->found, "I6", "area %u: %llu slots are marked, but %llu are taken and %llu have no space",
                     area->index, (ull)taken_bits(area), (ull)taken, (ull)atomic_load(&area->hole_slots));
}

/* ---- sums ---- */

/* A member's limit goes down before it gives chunks away: until its frames are within the new one, it has the chunks of the old. */
static uint64_t frames_allowed(uswap_pool *pool) {
    const group *g = family_limiter(pool);
    uint64_t limit = atomic_load(&pool->frames.budget->limit_frames);
    if (!g || !atomic_load(&pool->frames.unmet))
        return limit;
    return MAX_OF(limit, grants_held(g, g->self) * commons_head(&g->commons)->chunk_frames);
}

static void check_sums(check *c) {
    uswap_pool *pool = c->pool;
    const frame_budget *budget = pool->frames.budget;
    uint64_t idle = atomic_load(&budget->idle_frames), metadata = atomic_load(&budget->metadata_frames);
    uint64_t used = atomic_load(&budget->used_frames), limit = frames_allowed(pool);
    uint64_t warm = atomic_load(&pool->frames.warm.frames), warm_places = pool->frames.warm.idle;
    const group *g = atomic_load(&pool->group);
    uint64_t bounce = pool->bounce_frames + (g ? atomic_load(&g->bounce_frames) : 0);
    if (used != c->resident + c->cached + idle + warm + metadata + bounce)
        findings_add(
            &c->found, "I1",
            "%llu frames are counted; there are %llu mapped + %llu cached + %llu idle + %llu warm + %llu for metadata "
            "+ "
            "%llu to bounce",
            (ull)used, (ull)c->resident, (ull)c->cached, (ull)idle, (ull)warm, (ull)metadata, (ull)bounce);
    if (used > limit && atomic_load(&budget->over_limit_events) == 0)
        findings_add(&c->found, "I2", "%llu frames are over the limit of %llu, and nobody said so", (ull)(used - limit),
                     (ull)limit);
    if (c->uses != c->with_entry)
        findings_add(&c->found, "I5", "the use counts sum up to %llu; %llu pages have an entry", (ull)c->uses,
                     (ull)c->with_entry);
    uint64_t taken = 0;
    for (int i = 0; i < ARENA_KINDS; i++)
        taken += pool->frames.arenas[i].taken;
    if (taken != c->cached + idle + warm_places)
        findings_add(&c->found, "I8", "%llu places are taken for %llu cached, %llu idle and %llu warm frames",
                     (ull)taken, (ull)c->cached, (ull)idle, (ull)warm_places);
    if (c->resident != STAT_GET(pool, mapped_pages) || c->cached != STAT_GET(pool, cached_pages) ||
        c->held_locked != STAT_GET(pool, locked_pages) || c->held_pinned != STAT_GET(pool, pinned_pages))
        findings_add(&c->found, "I1",
                     "stats count %llu mapped, %llu cached, %llu locked, %llu pinned; there are %llu, %llu, %llu, %llu",
                     (ull)STAT_GET(pool, mapped_pages), (ull)STAT_GET(pool, cached_pages),
                     (ull)STAT_GET(pool, locked_pages), (ull)STAT_GET(pool, pinned_pages), (ull)c->resident,
                     (ull)c->cached, (ull)c->held_locked, (ull)c->held_pinned);
}

static void check_all(check *c) {
    uswap_pool *pool = c->pool;
    for (uint32_t i = 0; i < pool->regions.highest && !c->found.failed; i++)
        if (atomic_load(&pool->regions.regions[i].state) == REGION_LIVE)
            check_region(c, &pool->regions.regions[i]);
    for (uint32_t i = 0; i < atomic_load(&pool->area_count) && !c->found.failed; i++)
        if (!swap_area_is_closed(&pool->areas[i]))
            check_area(c, &pool->areas[i]);
    if (!c->found.failed)
        check_sums(c);
}

EXPORT int uswap_pool_check(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    uswap_error first = {.status = USWAP_OK}; /* *err may be inline memory, and a fault would wait for the gate */
    check c = {.pool = pool, .found = {.err = &first}};
    size_t bytes = (size_t)pool->frames.arenas[0].places * ARENA_KINDS / 8 + 8;
    c.frames_seen = memory_map(bytes);
    small_lock_acquire(&pool->api_lock); /* no region comes or goes; one checker at a time */
    gate_close(&pool->gate);
    holders_sweep(pool);
    if (c.frames_seen)
        check_all(&c);
    else
        findings_add(&c.found, "check", "there is no memory for the check itself");
    gate_open(&pool->gate);
    small_lock_release(&pool->api_lock);
    memory_unmap(c.frames_seen, bytes);
    if (c.found.failed && err)
        *err = first;
    api_leave(&guard);
    return c.found.failed ? USWAP_E_CORRUPT : 0;
}
