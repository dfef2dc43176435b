/* Native loops over pages; called through ctypes, so they run without the GIL (or, through PyDLL, with it). */
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define WORDS 512
#define LOCKED 1U

static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* What word i of a page holds in its n-th version; version 0 is untouched memory. */
static uint64_t expected(uint64_t page, uint64_t version, uint64_t i) {
    return version == 0 ? 0 : (page * UINT64_C(1000003) + version) * 31 + i;
}

void pages_fill(uint64_t *memory, uint64_t first, uint64_t count, uint64_t version) {
    for (uint64_t page = first; page < first + count; page++)
        for (uint64_t i = 0; i < WORDS; i++)
            memory[page * WORDS + i] = expected(page, version, i);
}

/* Return: number of words that are wrong. */
uint64_t pages_check(const uint64_t *memory, uint64_t first, uint64_t count, uint64_t version) {
    uint64_t wrong = 0;
    for (uint64_t page = first; page < first + count; page++)
        for (uint64_t i = 0; i < WORDS; i++)
            wrong += memory[page * WORDS + i] != expected(page, version, i);
    return wrong;
}

uint64_t pages_check_random(const uint64_t *memory, uint64_t pages, uint64_t version, uint64_t seed, uint64_t count) {
    uint64_t wrong = 0;
    while (count-- > 0)
        wrong += pages_check(memory, next_random(&seed) % pages, 1, version);
    return wrong;
}

/* Random pages: checked against their version and, every second time, written in a new one. versions[page] holds the version
 * (shifted by one) and a lock bit. Return: number of wrong words. */
uint64_t pages_stress(uint64_t *memory, uint64_t pages, _Atomic uint32_t *versions, uint64_t seed, uint64_t count) {
    uint64_t wrong = 0;
    while (count-- > 0) {
        uint64_t page = next_random(&seed) % pages;
        uint32_t held;
        while ((held = atomic_fetch_or(&versions[page], LOCKED)) & LOCKED)
            sched_yield();
        wrong += pages_check(memory, page, 1, held >> 1);
        if (next_random(&seed) & 1) {
            held += 2;
            pages_fill(memory, page, 1, held >> 1);
        }
        atomic_store(&versions[page], held);
    }
    return wrong;
}

/* One word of each page named, in this order. */
uint64_t pages_touch(const uint64_t *memory, const uint64_t *order, uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += *(const volatile uint64_t *)&memory[order[i] * WORDS];
    return sum;
}

void pages_store(uint64_t *memory, const uint64_t *order, const uint64_t *values, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        *(volatile uint64_t *)&memory[order[i] * WORDS] = values[i];
}
