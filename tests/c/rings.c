/*
 * rings.c - the reclaim ring against a list: order, both ends, growth, and the sweep, which drops what is stale and nothing else.
 */
#include "part.h"

#include "pool.h"
#include "reclaim/ring.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <string.h>

#define LIST_MAX 100000U

static uint64_t list[LIST_MAX]; /* oldest first, from first to last */
static uint64_t first = LIST_MAX / 2, last = LIST_MAX / 2;
static uswap_pool *pool;
static page_word words[256];
static region fake = {.generation = 1};
static frame_budget budget;

/* ---- what else of the core the ring asks: pages 0 to 127 are there, the others are stale ---- */

region *region_get_by_stay(region_table *table, stay s) {
    (void)table;
    return stay_page(s) < 256 ? &fake : NULL;
}

void region_put(region *r) {
    (void)r;
}

static uint64_t charged;

void frame_charge_metadata(uswap_pool *of, uint64_t pages) {
    (void)of;
    charged += pages;
}

void frame_uncharge_metadata(uswap_pool *of, uint64_t pages) {
    (void)of;
    CHECK(charged >= pages);
    charged -= pages;
}

uint64_t swap_cache_load(uswap_pool *of, swap_entry entry) {
    (void)of, (void)entry;
    return 0;
}

static stay entry_of(uint64_t page) {
    return (stay){page << STAY_PAGE_SHIFT | UINT64_C(1) << STAY_REGION_SHIFT};
}

static bool is_stale(uint64_t entry) {
    return stay_page((stay){entry}) >= 128;
}

/* What a sweep may have dropped may be missing: the list is brought to what the ring gives. */
static void expect(stay got) {
    while (first < last && list[first] != got.value) {
        CHECK(is_stale(list[first]));
        first++;
    }
    CHECK(first < last);
    first++;
}

static void push(reclaim_ring *ring, bool front) {
    stay entries[8];
    uint32_t count = front ? 1 : (uint32_t)dice(8) + 1;
    for (uint32_t i = 0; i < count; i++)
        entries[i] = entry_of(dice(4) == 0 ? dice(128) : 128 + dice(1000));
    if (front)
        ring_push_page_front(pool, ring, entries[0]);
    else
        ring_push_pages(pool, ring, entries, count);
    for (uint32_t i = 0; front && i < count; i++)
        list[--first] = entries[i].value;
    for (uint32_t i = 0; !front && i < count; i++)
        list[last++] = entries[i].value;
}

static void pop(reclaim_ring *ring) {
    stay entries[16];
    uint32_t want = (uint32_t)dice(16) + 1, count = ring_pop(ring, entries, want);
    for (uint32_t i = 0; i < count; i++)
        expect(entries[i]);
    CHECK(count == want || ring_length(ring) == 0);
}

static void copy_all(reclaim_ring *ring) {
    uint64_t position = 0, at = first, length = ring_length(ring), copied = 0;
    stay entries[16];
    bool more = true;
    while (more) {
        uint32_t count = ring_copy(ring, &position, entries, 16, &more);
        for (uint32_t i = 0; i < count; i++, at++) {
            while (at < last && list[at] != entries[i].value)
                CHECK(is_stale(list[at++]));
            CHECK(at < last);
        }
        copied += count;
    }
    CHECK(copied == length);
}

static void pop_ranges(void) {
    reclaim_ring ring;
    stay entries[8], got[8];
    CHECK(ring_init(&ring, 64) == 0);
    for (uint64_t i = 0; i < 8; i++)
        entries[i] = entry_of(10 + i);
    CHECK(ring_try_push(&ring, entries, 8));
    CHECK(ring_pop_range(&ring, entry_of(11), got, 8) == 0);
    CHECK(ring_pop_range(&ring, entry_of(10), got, 5) == 5 && got[4].value == entries[4].value);
    CHECK(ring_try_push_front(&ring, entries, 5) && ring_length(&ring) == 8);
    CHECK(ring_pop(&ring, got, 8) == 8 && memcmp(got, entries, sizeof got) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(ring_try_push(&ring, entries, 8));
    CHECK(!ring_try_push(&ring, entries, 1) && !ring_try_push_front(&ring, entries, 1));
    CHECK(ring_grow(pool, &ring, 64) == -EEXIST && ring_grow(pool, &ring, 128) == 0 && ring_length(&ring) == 64);
    ring_fini(&ring);
}

/* Who copies a ring in parts misses nothing, if it becomes larger or smaller between two; and its memory is charged as it is. */
static void resize_while_copied(void) {
    reclaim_ring ring;
    stay entry, got[8];
    CHECK(ring_init(&ring, 2048) == 0);
    for (uint64_t i = 0; i < 2048; i++) { /* the counters are far from the ends of the memory */
        entry = entry_of(i);
        CHECK(ring_try_push(&ring, &entry, 1));
        CHECK(i < 32 || ring_pop(&ring, got, 1) == 1);
    }
    uint64_t position = 0, seen = 2048 - 32;
    bool more = true;
    charged = ring_pages(2048);
    for (int turn = 0; more; turn++) {
        uint32_t count = ring_copy(&ring, &position, got, 8, &more);
        for (uint32_t i = 0; i < count; i++)
            CHECK(got[i].value == entry_of(seen++).value);
        if (turn % 2 == 0)
            ring_shrink(pool, &ring, 64);
        else
            CHECK(ring_grow(pool, &ring, 4096) == 0);
        CHECK(ring.capacity == (turn % 2 == 0 ? 64 : 4096) && charged == ring_pages(ring.capacity));
    }
    CHECK(seen == 2048);
    ring_fini(&ring);
}

/* To half of what it has: what does not fit stays, unless it is stale and few frames are used. */
static void shrink(reclaim_ring *ring) {
    uint64_t half = ring->capacity / 2, length = ring_length(ring);
    atomic_store(&budget.used_frames, dice(256));
    ring_shrink(pool, ring, half);
    CHECK(length > half / 4 * 3 || ring->capacity == half);
}

int main(void) {
    pool = calloc(1, sizeof *pool);
    pool->frames.budget = &budget;
    fake.object.words = words;
    for (int i = 0; i < 128; i++)
        words[i] = PAGE_RESIDENT;
    reclaim_ring ring;
    CHECK(ring_init(&ring, 128) == 0);
    for (int turn = 0; turn < 8000; turn++) {
        uint64_t what = dice(100);
        if (what < 45)
            push(&ring, false);
        else if (what < 50)
            push(&ring, true);
        else if (what < 75 || ring_length(&ring) > 400)
            pop(&ring);
        else if (what < 80)
            copy_all(&ring);
        else if (what < 82 && ring.capacity > 64)
            shrink(&ring);
        CHECK(ring_length(&ring) <= ring.capacity && ring.capacity <= 1024);
    }
    while (ring_length(&ring) > 0)
        pop(&ring);
    for (; first < last; first++)
        CHECK(is_stale(list[first]));
    ring_fini(&ring);
    pop_ranges();
    resize_while_copied();
    free(pool);
    return 0;
}
