#include "swap/runs.h"

/* What is known of so many runs is known well enough; older ones count half then. */
#define NOTES_MAX 64U
/* Of a stage of which nothing is known: as if it had been seen so often, and reached so often. A run that has a second page is likely to go on. */
#define PRIOR 6U
#define PRIOR_ON 4U
/* In 1/1024. */
#define WHOLE 1024U
#define LEAST_FIRST (WHOLE / 2)
#define LEAST (WHOLE / 3)

static void note(run_record *record, unsigned stage, bool on) {
    if (stage >= RUN_STAGES)
        return;
    if (record->on[stage] + record->off[stage] >= NOTES_MAX) {
        record->on[stage] /= 2;
        record->off[stage] /= 2;
    }
    record->on[stage] = (uint8_t)(record->on[stage] + on);
    record->off[stage] = (uint8_t)(record->off[stage] + !on);
}

void runs_note_reached(run_record *record, unsigned before, unsigned now) {
    for (unsigned stage = before; stage < now; stage++)
        note(record, stage, true);
}

void runs_note_end(run_record *record, unsigned reached) {
    note(record, reached, false);
}

/* How many of those that reached the stage before have reached this one, in 1/1024. */
static uint32_t share_of(const run_record *record, unsigned stage) {
    uint32_t on = record->on[stage] + (stage > 0 ? PRIOR_ON : 0U);
    return on * WHOLE / (record->on[stage] + record->off[stage] + PRIOR);
}

unsigned runs_worth(const run_record *record, unsigned reached) {
    uint32_t share = WHOLE;
    unsigned stage = reached;
    for (; stage < RUN_STAGES; stage++) {
        share = share * share_of(record, stage) / WHOLE;
        if (share < (stage == 0 ? LEAST_FIRST : LEAST))
            break;
    }
    return stage;
}
