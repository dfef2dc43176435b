#include "io/bounce.h"

static uint64_t bits(uint32_t count) {
    return count < 64 ? (UINT64_C(1) << count) - 1 : ~UINT64_C(0);
}

void bounce_init(bounce_set *set, unsigned char *memory, uint32_t pages) {
    *set = (bounce_set){.memory = memory, .pages = pages};
    for (uint32_t word = 0; word * BOUNCE_PART_MAX < pages; word++)
        set->free[word] = bits(MIN_OF(pages - word * BOUNCE_PART_MAX, (uint32_t)BOUNCE_PART_MAX));
}

/* The lowest of so many neighbours that are free in the word; -1: there are none. */
static int find_run(uint64_t word, uint32_t pages) {
    for (uint32_t found = 1, step; found < pages; found += step) {
        step = MIN_OF(found, pages - found);
        word &= word >> step; /* a bit: found + step neighbours from here on are free */
    }
    return word ? __builtin_ctzll(word) : -1;
}

/* In the fullest word that has room, so that room for large parts stays whole. */
bool bounce_take(bounce_set *set, uint32_t pages, bounce_run *run) {
    int best = -1, best_free = 65, best_first = 0;
    for (int word = 0; (uint32_t)word * BOUNCE_PART_MAX < set->pages; word++) {
        int count = __builtin_popcountll(set->free[word]);
        if (count < (int)pages || count >= best_free)
            continue;
        int first = find_run(set->free[word], pages);
        if (first < 0)
            continue;
        best = word;
        best_free = count;
        best_first = first;
    }
    if (best < 0)
        return false;
    set->free[best] &= ~(bits(pages) << best_first);
    *run = (bounce_run){.first = (uint32_t)(best * BOUNCE_PART_MAX + best_first), .pages = pages};
    return true;
}

void bounce_give(bounce_set *set, bounce_run run) {
    uint64_t mask = bits(run.pages) << (run.first % BOUNCE_PART_MAX);
    INVARIANT(I13, (set->free[run.first / BOUNCE_PART_MAX] & mask) == 0);
    set->free[run.first / BOUNCE_PART_MAX] |= mask;
}
