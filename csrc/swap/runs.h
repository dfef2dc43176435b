/*
 * runs.h - how far runs of neighbouring pages have gone of late, and so how far a young one is worth reading ahead.
 *
 * Owns: for each stage of a run, how often it was reached by runs that had reached the one before. Stage i has the pages from 2^i to
 * 2^(i+1) - 1 beyond the first. A page that is read in vain costs a part of a request that is made anyway, and the frame of a page that may
 * be wanted; one that is not read costs a fault with a read of its own: so a stage is worth reading if a third of the runs come to it. The
 * first one is, only if half of them do: where nothing goes on, nothing is to be read. Context: its owner's lock.
 */
#ifndef USWAP_SWAP_RUNS_H
#define USWAP_SWAP_RUNS_H

#include "base/base.h"

/* Beyond them a run is a stream, whose window doubles. */
#define RUN_STAGES 6U

typedef struct {
    uint8_t on[RUN_STAGES], off[RUN_STAGES];
} run_record;

/* Stages that a run has reached which has come to the page so far beyond its first. */
static inline unsigned run_stages_of(uint64_t beyond) {
    return beyond == 0 ? 0 : 64U - (unsigned)__builtin_clzll(beyond);
}

/* A run that had reached so many stages has reached more. */
void runs_note_reached(run_record *record, unsigned before, unsigned now);
/* A run has ended that had reached so many. */
void runs_note_end(run_record *record, unsigned reached);
/* Return: how many stages, with those that it has reached, are worth reading of such a run. */
unsigned runs_worth(const run_record *record, unsigned reached);

#endif
