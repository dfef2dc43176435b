/*
 * guess.h - whether guesses of one kind have come true often enough of late to be worth their reads.
 *
 * Owns: a score. A guess that fails costs a few pages read beside others, and the frames they take from pages that were wanted; one that comes
 * true saves a fault with its read: it outweighs three that fail. Context: its owner's lock.
 */
#ifndef USWAP_SWAP_GUESS_H
#define USWAP_SWAP_GUESS_H

#include "base/base.h"

#define GUESS_WEIGHT 3U
#define GUESS_FAILURES_MAX 32U
#define GUESS_FAILURES_MANY 16U

typedef struct {
    uint32_t failures; /* of late, beyond those that are outweighed */
} guess_record;

static inline void guess_note(guess_record *record, bool came_true) {
    if (came_true)
        record->failures -= MIN_OF(record->failures, GUESS_WEIGHT);
    else
        record->failures += record->failures < GUESS_FAILURES_MAX;
}

static inline bool guess_pays(const guess_record *record) {
    return record->failures < GUESS_FAILURES_MANY;
}

#endif
