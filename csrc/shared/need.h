/*
 * need.h - who of those that share a limit gets more of it, and who gives some of his: a rule without state.
 *
 * Whoever is short takes what is free. Beyond that memory goes where it saves most reads: a *near refault* is a page that had to be read back
 * and would not have been, with a larger part. Pages that come for the first time, or after too long a time for any part, are none: so
 * a scan gets only what nobody uses. Half of a difference is left as it is, so that nothing goes to and fro.
 */
#ifndef USWAP_SHARED_NEED_H
#define USWAP_SHARED_NEED_H

#include "base/base.h"

/* One of those who share the limit: a member, or all shared pages together. In chunks. */
typedef struct {
    uint64_t chunks;  /* has them now */
    uint64_t floor;   /* is never asked for these */
    uint64_t unused;  /* nothing would have to leave for these */
    uint64_t starved; /* lacks so many */
    uint64_t rate;    /* near refaults of late */
} need;

/* Whether a chunk saves more than twice as much with claim as with holder; or claim has not got its floor. */
bool need_outweighs(const need *claim, const need *holder);
/* How many chunks self gives away now for the sake of others, when so many are free for them anyway. */
uint64_t need_to_give(const need *self, const need *others, uint32_t count, uint64_t free);
/* How many of the free chunks self takes now. */
uint64_t need_to_take(const need *self, const need *others, uint32_t count, uint64_t free);

#endif
