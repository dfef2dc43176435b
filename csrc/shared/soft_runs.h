/*
 * soft_runs.h - readers of what is in memory, and not mapped here: where each goes on, and how many pages its last soft fault has mapped.
 *
 * Some at once, as several threads read a region. Pure arithmetic; the share thread's.
 */
#ifndef USWAP_SHARED_SOFT_RUNS_H
#define USWAP_SHARED_SOFT_RUNS_H

#include "base/base.h"

#define SOFT_RUNS 8
/* The most pages that one soft fault maps. */
#define SOFT_MAX 512U

typedef struct {
    size_t next;    /* behind what is mapped */
    uint32_t pages; /* that the last fault has mapped; 0: there was none yet */
    uint32_t used;  /* clock of the last fault; 0: of none */
} soft_run;

typedef struct {
    soft_run run[SOFT_RUNS];
    uint32_t clock;
    size_t next; /* of the last fault of all */
} soft_runs;

/* The run that a fault on this page belongs to: the one that ends at it, or not far before; else a new one, in the place of the one that was used
 * longest ago. */
soft_run *soft_runs_find(soft_runs *runs, size_t page);
/* How many pages are worth mapping: twice as many each time. */
uint32_t soft_run_wanted(const soft_run *run);
/* From page on so many are mapped now. */
void soft_runs_mapped(soft_runs *runs, soft_run *run, size_t page, uint32_t pages);

#endif
