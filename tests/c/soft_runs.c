/*
 * soft_runs.c - how many soft faults readers of pages take that others have brought in: few, however many readers there are.
 */
#include "part.h"

#include "shared/soft_runs.h"

#include <string.h>

#define PAGES 65536U

static unsigned char mapped[PAGES];

/* Return: whether it was a fault. */
static bool touch(soft_runs *runs, size_t page) {
    if (mapped[page])
        return false;
    soft_run *run = soft_runs_find(runs, page);
    uint32_t want = (uint32_t)MIN_OF((size_t)soft_run_wanted(run), PAGES - page), pages = 0;
    while (pages < want && !mapped[page + pages])
        mapped[page + pages++] = 1;
    CHECK(pages > 0 && pages <= SOFT_MAX);
    soft_runs_mapped(runs, run, page, pages);
    CHECK(runs->next == page + pages);
    return true;
}

/* So many readers, in turn, each of a part, of which a part is mapped already. Return: soft faults. */
static uint32_t readers(uint32_t count, bool read_in_part) {
    soft_runs runs = {0};
    uint32_t faults = 0, part = PAGES / count;
    memset(mapped, 0, sizeof mapped);
    for (uint32_t page = 0; page < PAGES && read_in_part; page++)
        mapped[page] = page % 1000 >= 700;
    for (uint32_t i = 0; i < part; i++)
        for (uint32_t reader = 0; reader < count; reader++)
            faults += touch(&runs, (size_t)reader * part + i);
    return faults;
}

/* Pages at random: few are mapped that nobody has asked for. */
static void at_random(void) {
    soft_runs runs = {0};
    uint32_t faults = 0, pages = 0;
    memset(mapped, 0, sizeof mapped);
    for (int i = 0; i < 200; i++)
        faults += touch(&runs, (size_t)dice(PAGES));
    for (size_t page = 0; page < PAGES; page++)
        pages += mapped[page];
    CHECK(faults > 150 && pages <= faults * 12);
}

int main(void) {
    for (uint32_t count = 1; count <= SOFT_RUNS; count *= 2) {
        CHECK(readers(count, false) <= PAGES / SOFT_MAX + count * 7);
        CHECK(readers(count, true) <= 4 * PAGES / 1000 + count * 7);
    }
    at_random();
    return 0;
}
