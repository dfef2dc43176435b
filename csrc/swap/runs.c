#include "swap/runs.h"

/* What is known of so many runs is known well enough; older ones count half then. */
#define NOTES_MAX 32U
/* Of fewer runs that had a second page too little is known. */
#define NOTES_FEW 16U
/* One in so many is looked at closely then. */
#define CLOSE_ONE_IN 4U
/* Each run counts so often; and of a step of which nothing is known: as if it had been seen so often, and reached so often. A run that has a
 * second page is likely to go on. */
#define NOTE_WEIGHT 32U
#define PRIOR 32U
#define PRIOR_ON 31U
/* The same of the second page: that there is one has to be seen. */
#define PRIOR_FIRST 64U
/* Shares are in 1/1024. */
#define WHOLE 1024U
#define LEAST_FIRST (WHOLE / 2)
/* A fault with its read costs as much as so many pages that are read beside others (csrc/README.md, "Runs"). */
#define FAULT_PAGES 16U

/* The first page of each step, counted from the first of the run, and the end of the last. */
static const uint8_t step_first[RUN_STEPS + 1] = {
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, RUN_STREAM, 2 * RUN_STREAM};

unsigned run_steps_of(uint64_t beyond) {
    unsigned steps = 0;
    while (steps < RUN_STEPS && step_first[steps] <= beyond)
        steps++;
    return steps;
}

bool run_marks(uint64_t beyond, bool close) {
    if (!close)
        return beyond == 1 || beyond == RUN_STREAM;
    unsigned steps = run_steps_of(beyond);
    return steps > 0 && step_first[steps - 1] == beyond;
}

static unsigned notes_of(const run_record *record, unsigned step) {
    return (unsigned)record->on[step] + record->off[step];
}

bool runs_look_closely(run_record *record) {
    record->chance = record->chance * 1664525U + 1013904223U; /* a fixed one in four might always meet the same kind */
    return notes_of(record, 1) < NOTES_FEW || (record->chance >> 16) % CLOSE_ONE_IN == 0;
}

static void note(run_record *record, unsigned step, bool on, bool close) {
    if (step >= RUN_STEPS || (step > 0 && !close))
        return;
    if (notes_of(record, step) >= NOTES_MAX) {
        record->on[step] /= 2;
        record->off[step] /= 2;
    }
    record->on[step] = (uint8_t)(record->on[step] + on);
    record->off[step] = (uint8_t)(record->off[step] + !on);
}

void runs_note_reached(run_record *record, unsigned before, unsigned now, bool close) {
    for (unsigned step = before; step < now; step++)
        note(record, step, true, close);
}

void runs_note_end(run_record *record, unsigned reached, bool close) {
    note(record, reached, false, close);
}

/* How many of those that reached the step before have reached this one, in 1/1024. */
static uint32_t share_of(const run_record *record, unsigned step) {
    uint32_t on = NOTE_WEIGHT * record->on[step] + (step > 0 ? PRIOR_ON : 0U);
    return on * WHOLE / (NOTE_WEIGHT * notes_of(record, step) + (step > 0 ? PRIOR : PRIOR_FIRST));
}

static uint32_t pages_of(unsigned step) {
    return (uint32_t)step_first[step + 1] - step_first[step];
}

/* The end of the step after those that were reached, if it pays by itself: who comes there is to find it, and its marker. */
static uint64_t next_end(const run_record *record, unsigned reached) {
    if (reached == 0 || reached >= RUN_STEPS)
        return 0;
    uint32_t share = share_of(record, reached);
    return pages_of(reached) * (WHOLE - share) < FAULT_PAGES * share ? step_first[reached + 1] : 0;
}

uint64_t runs_worth(const run_record *record, unsigned reached, uint64_t asked) {
    uint32_t share = WHOLE, vain = 0, least = UINT32_MAX;
    uint64_t worth = asked, from = MAX_OF(asked, next_end(record, reached));
    for (unsigned step = reached; step <= RUN_STEPS; step++) {
        /* Of those that are here so many go beyond what lies before this step. */
        share = step < RUN_STEPS ? share * share_of(record, step) / WHOLE : 0;
        if (step == 0 && share < LEAST_FIRST)
            break;
        uint64_t end = step_first[step];
        uint32_t cost = vain + FAULT_PAGES * share;
        if (end >= from && cost < least) {
            least = cost;
            worth = end;
        }
        if (step < RUN_STEPS && step_first[step + 1] > asked)
            vain += (uint32_t)(step_first[step + 1] - MAX_OF(end, asked)) * (WHOLE - share);
    }
    return worth;
}
