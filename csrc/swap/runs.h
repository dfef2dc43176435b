/*
 * runs.h - how far runs of neighbouring pages have gone of late, and so how far a young one is worth reading ahead.
 *
 * Owns: for each step of a run, how often it was reached by runs that had reached the one before. A step is a page, as far as the eighth;
 * beyond, it is a quarter of what lies before it. A page that is read in vain costs its part of a request that is made anyway, and the frame
 * of a page that may be wanted; a run that goes on beyond what was read costs a fault with a read of its own: read is what makes the sum of
 * both the least. Where fewer than half of the pages are followed by the next one, nothing is.
 *
 * A mapped page shows no access: how far a run goes is seen at pages that are left in the cache, markers, each of which costs a soft fault. So
 * only one in four runs is looked at closely, with a marker at each step; of the others it is only seen whether they have a second page.
 * (In shared regions a soft fault maps all markers behind it: there a run looked at closely tells little more.)
 * Context: its owner's lock.
 */
#ifndef USWAP_SWAP_RUNS_H
#define USWAP_SWAP_RUNS_H

#include "base/base.h"

#define RUN_STEPS 16U
/* A run that has come so far beyond its first page is a stream, whose window doubles. */
#define RUN_STREAM 32U

typedef struct {
    uint8_t on[RUN_STEPS], off[RUN_STEPS];
    uint32_t chance; /* which runs are looked at closely */
} run_record;

/* Steps that a run has reached which has come to the page so far beyond its first. */
unsigned run_steps_of(uint64_t beyond);

/* Whether the page so far beyond the first is to be a marker. close: all steps are. Of other runs it is the second page, and the one
 * at which it becomes a stream. */
bool run_marks(uint64_t beyond, bool close);

/* Whether a run that begins now is to be looked at closely. */
bool runs_look_closely(run_record *record);

/* A run that had reached so many steps has reached more. */
void runs_note_reached(run_record *record, unsigned before, unsigned now, bool close);
/* A run has ended that had reached so many. */
void runs_note_end(run_record *record, unsigned reached, bool close);

/* Return: how many pages, with the first one, are worth reading of a run that has reached so many steps. asked: have been asked for. */
uint64_t runs_worth(const run_record *record, unsigned reached, uint64_t asked);

#endif
