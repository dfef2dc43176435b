/*
 * places.c - places of an arena, and bounce frames, against models.
 */
#include "part.h"

#include "frame/arena.h"
#include "io/bounce.h"

#include <string.h>

#define PLACES (4 * BLOCK_PAGES)
#define FIRST 1000U

static arena places;
static bool taken[PLACES];

static void mark(uint32_t from, uint32_t count, bool now) {
    for (uint32_t i = from; i < from + count; i++) {
        CHECK(i < PLACES && taken[i] != now);
        taken[i] = now;
    }
}

static uint32_t count_taken(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < PLACES; i++)
        count += taken[i];
    return count;
}

static bool has_free_block(void) {
    for (uint32_t block = 0; block < PLACES; block += BLOCK_PAGES)
        if (!memchr(taken + block, 1, BLOCK_PAGES))
            return true;
    return false;
}

static void use_places(void) {
    frame_id first;
    uint64_t what = dice(10);
    if (what < 4) {
        uint32_t want = (uint32_t)dice(100) + 1, count = arena_take(&places, want, &first);
        CHECK(count <= want && (count > 0 || count_taken() == PLACES));
        mark(count ? first - FIRST : 0, count, true);
    } else if (what < 5) {
        bool there = has_free_block(), had = arena_take_block(&places, &first);
        CHECK(had == there);
        if (had)
            CHECK((first - FIRST) % BLOCK_PAGES == 0 && (uintptr_t)arena_address(&places, first) % BLOCK_BYTES == 0);
        mark(had ? first - FIRST : 0, had ? BLOCK_PAGES : 0, true);
    } else {
        uint32_t from = (uint32_t)dice(PLACES), count = 0;
        while (from + count < PLACES && taken[from + count] && count < 64)
            count++;
        mark(from, count, false);
        arena_give(&places, from + FIRST, count);
    }
    CHECK(places.taken == count_taken());
}

static void check_places(void) {
    CHECK(arena_init(&places, FIRST, PLACES - 5) == 0); /* made up to whole blocks */
    CHECK(places.places == PLACES);
    CHECK(arena_has(&places, FIRST) && arena_has(&places, FIRST + PLACES - 1));
    CHECK(!arena_has(&places, FIRST - 1) && !arena_has(&places, FIRST + PLACES));
    memset(arena_address(&places, FIRST + PLACES - 1), 1, PAGE_BYTES);
    for (int turn = 0; turn < 20000; turn++)
        use_places();
    arena_fini(&places);
}

#define BOUNCE 200U

static bool has_run(const bool *loaned, uint32_t pages) {
    for (uint32_t word = 0; word < BOUNCE; word += BOUNCE_PART_MAX)
        for (uint32_t i = word, run = 0; i < BOUNCE && i < word + BOUNCE_PART_MAX; i++)
            if ((run = loaned[i] ? 0 : run + 1) >= pages)
                return true;
    return false;
}

static void check_bounce(void) {
    static unsigned char memory[BOUNCE << PAGE_SHIFT];
    bounce_set set;
    bounce_run runs[BOUNCE];
    bool loaned[BOUNCE] = {false};
    uint32_t count = 0;
    bounce_init(&set, memory, BOUNCE);
    for (int turn = 0; turn < 50000; turn++) {
        uint32_t pages = (uint32_t)(dice(4) == 0 ? dice(BOUNCE_PART_MAX) : dice(5)) + 1, which;
        if (count == 0 || dice(2) == 0) {
            bool there = has_run(loaned, pages), had = bounce_take(&set, pages, &runs[count]);
            CHECK(had == there);
            for (uint32_t i = 0; had && i < pages; i++) {
                CHECK(!loaned[runs[count].first + i] && runs[count].first + i < BOUNCE);
                loaned[runs[count].first + i] = true;
                *bounce_page(&set, runs[count], i) = 1;
            }
            count += had;
        } else {
            which = (uint32_t)dice(count);
            bounce_give(&set, runs[which]);
            memset(loaned + runs[which].first, 0, runs[which].pages);
            runs[which] = runs[--count];
        }
    }
}

int main(void) {
    check_places();
    check_bounce();
    return 0;
}
