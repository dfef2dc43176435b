/*
 * events.h - what has happened to pages, for the policy: a log that is emptied in batches.
 *
 * Owns: the log, its two buffers and the one that the reader gets it in, sorted by kind; and the one way for a page to be said to have come
 * (page_came). Nobody listens: nothing is noted, no memory is taken. A log that is full says so (lost), and its reader is told of all
 * pages again, in the order of the reclaim ring.
 */
#ifndef USWAP_RECLAIM_EVENTS_H
#define USWAP_RECLAIM_EVENTS_H

#include "base/lock.h"
#include "region/stay.h"
#include "swap/shadow.h"
#include "swap/swap_entry.h"

#define EVENTS_MAX 32768
#define EVENT_KINDS 7
/* Beside the kind: a policy had marked the page when it aged it. */
#define EVENT_MARKED 8U

typedef struct {
    stay *stays;
    uint32_t *distances;
    uint8_t *kinds; /* a uswap_event, and EVENT_MARKED */
} event_buffer;

typedef struct {
    small_lock lock;
    _Atomic uint32_t wanted; /* a bit a uswap_event kind; 0: nobody listens */
    uint32_t every;          /* e: the steering thread is told when so many are there */
    uint32_t count;          /* e */
    bool lost;               /* e: some did not fit, or nothing was noted so far */
    event_buffer noting;     /* e */
    event_buffer reading;    /* of the reader */
    event_buffer sorted;     /* of the reader */
    void *memory;
} event_log; /* e: under lock */

typedef struct uswap_pool uswap_pool;

/* Return: 0 or -ENOMEM. Context: one listener at a time, the steering thread. */
int events_listen(uswap_pool *pool, uint32_t wanted, uint32_t every);
void events_end(uswap_pool *pool);
/* Nobody uses the pool any more. */
void events_fini(uswap_pool *pool);

/* => the steering thread looks. */
void events_tell(uswap_pool *pool);
/* Pages of one kind; distance: of all of them. Context: any; takes events.lock only. */
void events_note(uswap_pool *pool, unsigned kind, const stay *stays, uint32_t count, uint32_t distance);
/* The page whose contents the slot has. Context: inside the gate. */
void events_note_slot(uswap_pool *pool, unsigned kind, swap_entry entry);

/* The page has got a frame, or has it still and may be evicted (again): it enters the reclaim ring as its youngest, and the policy is told.
 * Context: page locked; takes ring.lock and events.lock. */
void page_came(uswap_pool *pool, const region *r, size_t page, unsigned kind, uint32_t distance);
/* The same for several, one behind the other. */
void pages_came(uswap_pool *pool, const stay *stays, uint32_t count, unsigned kind, uint32_t distance);

#endif
