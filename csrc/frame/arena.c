#include "frame/arena.h"

#include "base/memory.h"

#include <errno.h>

#define WORD_PLACES 64U

int arena_init(arena *a, frame_id first, uint32_t places) {
    places = (places + WORD_PLACES - 1) / WORD_PLACES * WORD_PLACES;
    *a = (arena){.first = first, .places = places};
    a->base = memory_map((size_t)places << PAGE_SHIFT);
    a->bitmap = memory_map(places / 8);
    if (a->base && a->bitmap)
        return 0;
    arena_fini(a);
    return -ENOMEM;
}

void arena_fini(arena *a) {
    memory_unmap(a->base, (size_t)a->places << PAGE_SHIFT);
    memory_unmap(a->bitmap, a->places / 8);
    a->base = NULL;
    a->bitmap = NULL;
}

static bool is_taken(const arena *a, uint32_t place) {
    return a->bitmap[place / WORD_PLACES] >> (place % WORD_PLACES) & 1;
}

/* Takes the free places from start on, at most want and at most to the end of the arena. */
static uint32_t take_from(arena *a, uint32_t start, uint32_t want) {
    uint32_t count = 0;
    while (count < want && start + count < a->places && !is_taken(a, start + count)) {
        a->bitmap[(start + count) / WORD_PLACES] |= UINT64_C(1) << ((start + count) % WORD_PLACES);
        count++;
    }
    a->taken += count;
    return count;
}

uint32_t arena_take(arena *a, uint32_t want, frame_id *first) {
    uint32_t words = a->places / WORD_PLACES, count = 0;
    small_lock_acquire(&a->lock);
    if (a->taken == 0)
        a->cursor = 0; /* low places again: page tables stay small */
    for (uint32_t turn = 0; turn < words && count == 0; turn++) {
        uint64_t free_bits = ~a->bitmap[a->cursor];
        if (free_bits) {
            uint32_t start = a->cursor * WORD_PLACES + (uint32_t)__builtin_ctzll(free_bits);
            count = take_from(a, start, want);
            *first = a->first + start;
        }
        if (count == 0 || !~a->bitmap[a->cursor])
            a->cursor = (a->cursor + 1) % words;
    }
    small_lock_release(&a->lock);
    return count;
}

void arena_give(arena *a, frame_id first, uint32_t count) {
    uint32_t start = first - a->first;
    small_lock_acquire(&a->lock);
    for (uint32_t i = start; i < start + count; i++) {
        INVARIANT(I8, is_taken(a, i));
        a->bitmap[i / WORD_PLACES] &= ~(UINT64_C(1) << (i % WORD_PLACES));
    }
    a->taken -= count;
    small_lock_release(&a->lock);
}
