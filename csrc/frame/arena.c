#include "frame/arena.h"

#include "base/memory.h"

#include <errno.h>

#define WORD_PLACES 64U
#define BLOCK_WORDS (BLOCK_PAGES / WORD_PLACES)

static size_t mapping_bytes(const arena *a) {
    return ((size_t)a->places << PAGE_SHIFT) + BLOCK_BYTES; /* so that there is an aligned part */
}

int arena_init(arena *a, frame_id first, uint32_t places) {
    places = (places + BLOCK_PAGES - 1) / BLOCK_PAGES * BLOCK_PAGES;
    *a = (arena){.first = first, .places = places};
    a->mapping = memory_map(mapping_bytes(a));
    a->bitmap = memory_map(places / 8);
    if (!a->mapping || !a->bitmap) {
        arena_fini(a);
        return -ENOMEM;
    }
    a->base = (unsigned char *)(((uintptr_t)a->mapping + BLOCK_BYTES - 1) & ~(uintptr_t)(BLOCK_BYTES - 1));
    return 0;
}

void arena_fini(arena *a) {
    memory_unmap(a->mapping, mapping_bytes(a));
    memory_unmap(a->bitmap, a->places / 8);
    a->mapping = NULL;
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

static bool is_free_block(const arena *a, uint32_t word) {
    for (uint32_t i = 0; i < BLOCK_WORDS; i++)
        if (a->bitmap[word + i])
            return false;
    return true;
}

bool arena_take_block(arena *a, frame_id *first) {
    uint32_t words = a->places / WORD_PLACES;
    bool found = false;
    small_lock_acquire(&a->lock);
    for (uint32_t word = 0; word < words && !found; word += BLOCK_WORDS) { /* the lowest: page tables stay small */
        found = is_free_block(a, word);
        if (found) {
            for (uint32_t i = 0; i < BLOCK_WORDS; i++)
                a->bitmap[word + i] = ~UINT64_C(0);
            a->taken += BLOCK_PAGES;
            *first = a->first + word * WORD_PLACES;
        }
    }
    small_lock_release(&a->lock);
    return found;
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
