/* Checked loads and stores by several threads without locks (word_stress.py). Every word tells which word it is, who wrote it and how
 * often: one that was lost, is stale, or lies in the wrong place is seen at the first load.
 *
 * Word i belongs to writer i modulo the number of writers: he alone stores there, so neighbouring words of a page are stored to by
 * different threads at the same time, whatever is done to the page meanwhile. versions[i], outside managed memory, is the version
 * he stored last, written right after the word. He must find just that; the others one that lies between two looks at it (or one more:
 * he may be between the two stores). */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORDS_A_PAGE 512
#define VERSION_BITS 32
#define WRITER_BITS 6

struct word_area {
    _Atomic uint64_t *memory;
    _Atomic uint32_t *versions;
    uint64_t pages;
    uint64_t hot_pages; /* neighbouring pages that most visits go to */
    uint32_t writers;
    _Atomic uint32_t stop; /* somebody has found a wrong word */
};

/* A thread, and the first wrong word it has met: found where a version from least to most was due. */
struct word_writer {
    uint64_t random;
    uint64_t number;
    uint64_t loads, stores, visits;
    uint64_t wrong, word, found, least, most;
};

static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* Version 0 is untouched memory. */
static uint64_t encoded(uint64_t word, uint32_t version, uint64_t writer) {
    return version == 0 ? 0 : word << (VERSION_BITS + WRITER_BITS) | (uint64_t)version << WRITER_BITS | writer;
}

static bool is_right(uint64_t found, uint64_t word, uint64_t writer, uint32_t least, uint32_t most) {
    uint32_t version = (uint32_t)(found >> WRITER_BITS);
    return found == encoded(word, version, writer) &&
           version - least <= most - least; /* also where the count begins anew */
}

static bool check_word(struct word_area *area, struct word_writer *writer, uint64_t word) {
    uint64_t owner = word % area->writers;
    uint32_t least = atomic_load_explicit(&area->versions[word], memory_order_acquire);
    uint64_t found = atomic_load_explicit(&area->memory[word], memory_order_acquire);
    uint32_t most = atomic_load_explicit(&area->versions[word], memory_order_acquire) + (owner != writer->number);
    writer->loads++;
    if (is_right(found, word, owner, least, most))
        return true;
    writer->wrong = 1;
    writer->word = word;
    writer->found = found;
    writer->least = least;
    writer->most = most;
    atomic_store(&area->stop, 1);
    return false;
}

/* Word must be the writer's. */
static void store_word(struct word_area *area, struct word_writer *writer, uint64_t word) {
    uint32_t version = atomic_load_explicit(&area->versions[word], memory_order_relaxed) + 1;
    version += version == 0;
    atomic_store_explicit(&area->memory[word], encoded(word, version, writer->number), memory_order_release);
    atomic_store_explicit(&area->versions[word], version, memory_order_release);
    writer->stores++;
}

/* One of the writer's own words in the page. */
static uint64_t own_word(const struct word_area *area, const struct word_writer *writer, uint64_t page,
                         uint64_t random) {
    uint64_t start = page * WORDS_A_PAGE, writers = area->writers;
    uint64_t before = (writer->number + writers - start % writers) % writers;
    uint64_t count = (WORDS_A_PAGE - before + writers - 1) / writers;
    return start + before + random % count * writers;
}

/* count operations on one page: a quarter are stores, a quarter loads of words of one's own, half are loads of any word. */
static bool visit(struct word_area *area, struct word_writer *writer, uint64_t page, uint64_t count) {
    writer->visits++;
    while (count-- > 0) {
        uint64_t random = next_random(&writer->random), kind = random >> 62;
        if (kind == 0)
            store_word(area, writer, own_word(area, writer, page, random));
        else if (!check_word(area, writer,
                             kind == 1 ? own_word(area, writer, page, random)
                                       : page * WORDS_A_PAGE + random % WORDS_A_PAGE))
            return false;
    }
    return true;
}

/* Up to most operations on a page, or on a run of pages. Which: seven of ten among the hot ones (these hit, as a rule), two
 * anywhere, one is a run forwards or backwards. => how many operations; fewer than asked for only if a word was wrong */
static uint64_t some_visits(struct word_area *area, struct word_writer *writer, uint64_t most) {
    uint64_t random = next_random(&writer->random), kind = random % 10, page = (random >> 8) % area->pages;
    uint64_t count = UINT64_C(1) << (random >> 4) % 14, run = 1, step = 1, done = 0;
    if (kind < 7)
        page = (random >> 8) % area->hot_pages;
    else if (kind == 9) {
        run = 1 + (random >> 40) % 64;
        step = random >> 50 & 1 ? 1 : area->pages - 1;
        count = 1 + count % 16;
    }
    for (; run > 0 && done < most; run--, page = (page + step) % area->pages) {
        uint64_t now = count < most - done ? count : most - done;
        if (!visit(area, writer, page, now))
            break;
        done += now;
    }
    return done;
}

/* Just so many operations, if all words are right. => 0 if a word was wrong, here or in another thread */
int words_work(struct word_area *area, struct word_writer *writer, uint64_t operations) {
    while (operations > 0 && !atomic_load_explicit(&area->stop, memory_order_relaxed))
        operations -= some_visits(area, writer, operations);
    return operations == 0;
}

/* All words, when nobody stores any more. => 0 if one is wrong */
int words_check_all(struct word_area *area, struct word_writer *writer) {
    for (uint64_t word = 0; word < area->pages * WORDS_A_PAGE; word++)
        if (!check_word(area, writer, word))
            return 0;
    return 1;
}
