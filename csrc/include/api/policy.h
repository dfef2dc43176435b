/*
 * policy.h - who decides which pages leave (csrc/README.md, Policy; src/uswap/policy/interface.py), and reclaim that is steered from outside.
 */

typedef enum {
    USWAP_EVENT_FAULTED = 0,    /* came in by a fault, or beside one                                             */
    USWAP_EVENT_RESCUED = 1,    /* was inactive or on its way out, and was touched                             */
    USWAP_EVENT_READ_AHEAD = 2, /* is in the swap cache before anybody wanted it                            */
    USWAP_EVENT_KEPT = 3,       /* could not leave after all, or may be evicted again                      */
    USWAP_EVENT_AGED = 4,       /* has become inactive                                                     */
    USWAP_EVENT_WRITTEN = 5,    /* inactive, and written now                                               */
    USWAP_EVENT_EVICTED = 6     /* has lost its frame                                                      */
} uswap_event;

/* What has happened since the last call, by kind, in order; valid until the next call. */
typedef struct {
    const uint64_t *stays[7];
    uint64_t counts[7];
    const uint32_t *distances; /* one for each FAULTED: evictions since its own; UINT32_MAX: none known              */
    const uint8_t *marks;      /* one for each FAULTED: 1: it was aged with a mark before it was evicted             */
    const uint8_t *rescued_marks; /* one for each RESCUED                                                           */
    uint32_t lost; /* 1: FAULTED is of pages that are in memory, known or not, and so it goes on ...     */
    uint32_t more; /* ... until this is 0                                                                */
} uswap_events;

typedef struct {
    uint64_t short_frames; /* to come free for the high watermark                                               */
    uint64_t capacity_frames;
    uint64_t mapped_frames;
    uint64_t inactive_frames; /* that can be dropped at once, or soon: being written                             */
    uint64_t target_frames;   /* what the core would have inactive by itself                                     */
    uint64_t prepared_frames; /* EVICT orders left                                                             */
    uint64_t evictions;
    uint64_t filled; /* of them, pages of one value that were only to be cleaned or aged: no frame of theirs stays */
} uswap_need;

typedef enum {
    USWAP_ACTION_EVICT = 0, /* next, when frames are needed                                                  */
    USWAP_ACTION_CLEAN = 1,
    USWAP_ACTION_AGE = 2,
    USWAP_ACTION_AGE_MARKED = 3, /* the mark comes back with the page                                       */
    USWAP_ACTION_READ_AHEAD = 4
} uswap_action;

/* Of the thread that has attached itself as reclaimer. wanted: a bit a uswap_event. every: it is woken when so many have happened.
 * => the first events are all pages there are. */
int uswap_policy_attach(uswap_pool *pool, uint32_t wanted, uint32_t every, uswap_error *err);
/* => the steering thread looks at once whether there is something to decide. */
int uswap_policy_wake(uswap_pool *pool, uswap_error *err);
/* failed: 1 if the policy has failed, which is counted. */
int uswap_policy_detach(uswap_pool *pool, uint32_t failed, uswap_error *err);
int uswap_policy_events(uswap_pool *pool, uswap_events *events, uswap_need *need, uswap_error *err);
/* => copied; stays out of date, or of nothing, are passed over when their turn comes. USWAP_E_INVALID: no such action, or more
 * orders than there could be pages. */
int uswap_policy_order(uswap_pool *pool, uint32_t action, const uint64_t *stays, uint64_t count, uswap_error *err);
/* Carries the orders out, and frees frames up to the high watermark. => how many pages have left or are leaving. Waits for the writes. */
int64_t uswap_policy_step(uswap_pool *pool, uswap_error *err);
/* => how many of the stays are of pages that have not left or come again since; these are first in stays now, in their order. */
int64_t uswap_policy_current(uswap_pool *pool, uint64_t *stays, uint64_t count, uswap_error *err);

/* Shared pages that this process has brought in since it was asked last, and how things stand for all shared pages. */
typedef struct {
    const uint64_t *stays; /* the pool's own, until the next call */
    const uint32_t *distances;
    const uint8_t *users; /* how many processes see the page */
    uint64_t count;
    uint64_t short_frames; /* to come free */
    uint64_t capacity_frames;
    uint64_t prepared_frames; /* orders left */
    uint32_t lost;            /* 1: some did not fit */
    uint32_t reserved;
} uswap_shared_events;

/* After uswap_policy_attach: until detach it is told of shared pages, too. */
int uswap_policy_shared_listen(uswap_pool *pool, uint32_t every, uswap_error *err);
int uswap_policy_shared_events(uswap_pool *pool, uswap_shared_events *events, uswap_error *err);
/* => the next to leave, hot or not, when this process makes room for shared pages. */
int uswap_policy_shared_order(uswap_pool *pool, const uint64_t *stays, uint64_t count, uswap_error *err);

typedef struct {
    uint64_t free_frames;
    uint64_t low_frames;  /* below: reclaim                                                            */
    uint64_t high_frames; /* up to: reclaim                                                            */
    uint64_t wakeups;     /* times the low watermark was passed                                        */
    uint64_t stopping;    /* 1: the pool wants this thread gone                                        */
} uswap_pressure;

/* Says that a steering thread exists; the native reclaimer then acts only when it is late. */
int uswap_reclaimer_attach(uswap_pool *pool, uswap_error *err);
/* => wakes a thread in uswap_reclaimer_wait with stopping = 1; the native reclaimer takes over at once. */
int uswap_reclaimer_detach(uswap_pool *pool, uswap_error *err);
/* Blocks until free frames fall below the low watermark, or the time is over. */
int uswap_reclaimer_wait(uswap_pool *pool, uint64_t timeout_ns, uswap_pressure *pressure, uswap_error *err);
/* => evicts in the caller's thread until free frames are at the high watermark, up to pages, cleans ahead what will be wanted next, and waits for
 * the writes; ends early when the thread is to go. Returns how many frames came free. */
int64_t uswap_reclaimer_evict(uswap_pool *pool, uint64_t pages, uswap_error *err);
