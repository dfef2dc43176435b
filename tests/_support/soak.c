/* Native loops of the soak (soak_book.py). A word says which page it belongs to, which version of it, and where it lies, so that
 * a word that has come from anywhere else, or from an older time, is seen; 0 is untouched or discarded memory. */
#include <stdint.h>

#define WORDS 512

static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static uint64_t expected(uint64_t page, uint64_t version, uint64_t i) {
    return version == 0 ? 0 : (page + 1) << 40 | version << 9 | i;
}

void soak_store(volatile uint64_t *memory, uint64_t page, uint64_t version) {
    for (uint64_t i = 0; i < WORDS; i++)
        memory[page * WORDS + i] = expected(page, version, i);
}

/* Return: how many words are not of that version. */
uint64_t soak_check(const volatile uint64_t *memory, uint64_t page, uint64_t version) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < WORDS; i++)
        wrong += memory[page * WORDS + i] != expected(page, version, i);
    return wrong;
}

/* Of a page that somebody else may be writing: each word is of that page and place, or untouched. Return: how many are not. */
uint64_t soak_look(const volatile uint64_t *memory, uint64_t page) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < WORDS; i++) {
        uint64_t word = memory[page * WORDS + i];
        wrong += word != 0 && (word >> 40 != page + 1 || (word & (WORDS - 1)) != i);
    }
    return wrong;
}

/* The pages first, first + step, ... (own of them), which somebody else had, and may have died in the middle of a store, are looked
 * at and written in version 1. Return: how many words were wrong. */
uint64_t soak_take_over(volatile uint64_t *memory, uint64_t first, uint64_t step, uint64_t own, uint32_t *versions) {
    uint64_t wrong = 0;
    for (uint64_t k = 0; k < own; k++) {
        wrong += soak_look(memory, first + k * step);
        soak_store(memory, first + k * step, versions[k] = 1);
    }
    return wrong;
}

/* count turns on the pages first, first + step, ... (own of them; versions[k] is that of the k-th): one is checked and, every second time,
 * written in a new version; every look_every turns any of the pages is looked at. Return: how many words were wrong; *stores grows. */
uint64_t soak_turns(volatile uint64_t *memory, uint64_t pages, uint64_t first, uint64_t step, uint64_t own,
                    uint32_t *versions, uint64_t seed, uint64_t count, uint64_t look_every, uint64_t *stores) {
    uint64_t wrong = 0;
    for (uint64_t turn = 0; turn < count; turn++) {
        uint64_t chosen = next_random(&seed) % own, page = first + chosen * step;
        wrong += soak_check(memory, page, versions[chosen]);
        if (next_random(&seed) & 1) {
            soak_store(memory, page, ++versions[chosen]);
            ++*stores;
        }
        if (turn % look_every == look_every - 1)
            wrong += soak_look(memory, next_random(&seed) % pages);
    }
    return wrong;
}
