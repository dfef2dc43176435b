#include "shared/soft_runs.h"

#define SOFT_FIRST 8U

/* Where this process has read a part itself, that is mapped, and the run goes on behind it. */
static bool goes_on(const soft_run *run, size_t page) {
    return run->used != 0 && page - run->next < SOFT_MAX;
}

soft_run *soft_runs_find(soft_runs *runs, size_t page) {
    soft_run *nearest = NULL, *oldest = &runs->run[0];
    for (int i = 0; i < SOFT_RUNS; i++) {
        soft_run *run = &runs->run[i];
        if (goes_on(run, page) && (!nearest || run->next > nearest->next))
            nearest = run;
        if (run->used < oldest->used)
            oldest = run;
    }
    if (nearest)
        return nearest;
    *oldest = (soft_run){.next = page};
    return oldest;
}

uint32_t soft_run_wanted(const soft_run *run) {
    return run->pages == 0 ? SOFT_FIRST : MIN_OF(MAX_OF(run->pages, SOFT_FIRST) * 2, SOFT_MAX);
}

void soft_runs_mapped(soft_runs *runs, soft_run *run, size_t page, uint32_t pages) {
    run->next = page + pages;
    run->pages = pages;
    run->used = ++runs->clock;
    runs->next = run->next;
}
