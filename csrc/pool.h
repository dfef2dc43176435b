/*
 * pool.h - everything a pool owns, and who works for it.
 */
#ifndef USWAP_POOL_H
#define USWAP_POOL_H

#include "base/awake.h"
#include "base/gate.h"
#include "base/stats.h"
#include "fault/vigil.h"
#include "frame/frame_pool.h"
#include "io/codec.h"
#include "io/io.h"
#include "pool_watch.h"
#include "reclaim/events.h"
#include "reclaim/orders.h"
#include "reclaim/ring.h"
#include "region/region.h"
#include "shared/segment.h"
#include "shared/shared_policy.h"
#include "swap/cluster_ahead.h"
#include "swap/fill_value.h"
#include "swap/swap_area.h"
#include "trace/trace.h"

#include <pthread.h>
#include <sys/types.h>

#define API_CONTEXTS 4
#define INLINE_CONTEXTS 32 /* threads that serve their own faults at once; at most 64 */
#define PARKED_MAX 8192
#define READ_ORDERS 64
#define POOLS_MAX 64

/* Who works: for the counters, and ACTOR_INLINE (a thread that serves its own fault) leaves reading ahead to others. */
typedef enum { ACTOR_STEERED, ACTOR_NATIVE, ACTOR_DIRECT, ACTOR_INLINE, ACTOR_API } actor;

/* Slots taken together by one context and not used up yet, in one area. */
typedef struct {
    swap_area *area;
    uint64_t next;
    uint32_t left;
} slot_cluster;

/* Neighbouring slots. */
typedef struct {
    swap_entry first;
    uint32_t pages;
} slot_run;

/* More runs than this are not worth being read as a block. */
#define BLOCK_RUNS_MAX 8

/* A block that is being read; of the thread that has started its reads, until the last of them has ended. */
typedef struct {
    uint32_t runs;
    uint32_t pending; /* requests in flight */
    bool map;         /* to be moved in as soon as it is there */
    bool broken;      /* some of its pages are not being read, or have come back wrong */
    slot_run run[BLOCK_RUNS_MAX];
} block_read;

typedef struct context_scratch context_scratch; /* scratch.h */

/* What a thread needs to fault in and to evict: I/O queue, open slot cluster, the write being gathered. Used by one thread
 * at a time. */
typedef struct context {
    uswap_pool *pool;
    actor who;
    io_queue io;
    slot_cluster cluster;
    io_request *gathering; /* a write request that may still grow */
    io_request *reading;   /* a read request that may still grow */
    /* Pages in flight: whose frames come free, and those written ahead of need. Others look at it. */
    _Atomic uint64_t writing[2];
    uint64_t demand_reads; /* started because a fault waits */
    context_scratch *scratch;
    bool in_use; /* c: under context_lock */
} context;

/* A fault that waits for a frame, or to be tried again. */
typedef struct {
    page_ref page;
    uint64_t since_ns;
    bool write; /* a store's, as far as is known */
} parked_fault;

/* Pages that the fault thread is to read in before they are wanted: what the program announced, or a window of a stream whose reader
 * serves its own faults. */
typedef struct {
    page_ref region; /* page 0 of it */
    read_ahead_plan plan;
    bool stream; /* with a marker; what could not be asked for is asked for again */
} read_order;

typedef struct {
    pthread_t thread;
    bool started;
    int wake_fd;             /* eventfd: stop, frames free, orders */
    _Atomic uint32_t asleep; /* in poll, or about to be: who gives an order writes wake_fd */
    _Atomic uint32_t stop;
    _Atomic uint32_t wants_frames; /* parked faults exist: frame_uncharge writes wake_fd */
    awake_record record;           /* of its waits; fault thread only */
    vigil vigil;
    uint32_t parked_first, parked_count;
    uint64_t armed_ns;    /* when the SIGBUS handler was last looked after */
    parked_fault *parked; /* ring [PARKED_MAX], fault thread only */
    small_lock orders_lock;
    read_order orders[READ_ORDERS]; /* o: ring */
    uint32_t orders_first;          /* o */
    _Atomic uint32_t orders_count;  /* o: under orders_lock, but for a look */
} fault_thread;

/* What threads need that serve their own faults (fault_inline.c); made with the first inline region. */
typedef struct {
    _Atomic int uffd;      /* opened with UFFD_FEATURE_SIGBUS; -1: no inline region so far */
    context *contexts;     /* [INLINE_CONTEXTS], of ACTOR_INLINE */
    unsigned char *stacks; /* one each */
    _Atomic uint64_t idle; /* a bit a context that nobody uses */
    event returned;        /* threads waiting for a context */
} inline_set;

typedef struct {
    pthread_t thread;
    bool started;
    _Atomic uint32_t stop;
    _Atomic uint32_t attached;   /* a steering thread exists */
    _Atomic uint32_t policy;     /* it has a policy: pages leave by its orders */
    _Atomic uint32_t detaching;  /* it is to go */
    _Atomic uint32_t exhausted;  /* the last eviction found nothing that could leave */
    _Atomic uint32_t signalled;  /* since somebody last went to sleep on pressure */
    _Atomic uint64_t steered_ns; /* when the steering thread last began or ended an eviction */
    uint64_t missed_ns;          /* when it was last too late; native thread only */
    event pressure;              /* signalled when free frames fall below the low watermark */
    _Atomic uint64_t wakeups;
} reclaimer;

/* Bounce frames of each context of a kind. */
typedef struct {
    uint32_t reclaim, fault, api, inlined;
} bounce_plan;

/* Not NULL: asked by a pool that is made, and by a forked child for one of its own in the place of its parent's: where its counters are to lie. Return: zeroes;
 * NULL: in the pool. (run/board.c) */
extern pool_counters *(*pool_counters_elsewhere)(void);

struct uswap_pool {
    pid_t owner_pid;
    uswap_options options;
    int uffd;
    int self_pid_fd; /* for process_madvise; -1: no page is sealed (frame/drop_mapped.c) */
    int pagemap_fd;
    int self_mem_fd; /* /proc/self/mem, read-only: the copy transport's eyes; -1: refused */
    bool use_move;
    bool has_poison;
    bool user_mode_only;    /* no permission for more: regions are served inline, system calls get EFAULT */
    uint64_t uffd_features; /* in use */
    uint64_t hash_seed;
    segment seg;
    frame_pool frames;
    swap_area areas[SWAP_AREAS_MAX];
    _Atomic uint32_t area_count;
    _Atomic uint64_t reserved_slots;
    region_table regions;
    fill_table fills;
    reclaim_ring ring;        /* pages with frames, oldest first */
    reclaim_ring ring_marked; /* those of them that were touched while inactive and marked by a policy: left last */
    event_log events;         /* what has come and gone, for the policy */
    shared_policy_log shared_policy; /* the same of shared pages */
    _Atomic uint32_t events_waiting; /* so many that it is to look */
    uint64_t announced;    /* how far a policy that has missed events has been told of the ring; steering thread only */
    bool announcing;       /* it is being told of the rings... */
    bool announced_ring;   /* ...and has been told of all of the first one */
    order_book orders;     /* what the policy wants done */
    reclaim_ring inactive; /* those of them that can be dropped at once: taken out ahead of need, or sealed */
    reclaim_ring inactive_marked;    /* the same, marked by a policy: dropped last */
    _Atomic uint64_t eviction_clock; /* pages that have lost their frames: refault distances are counted by it */
    cluster_ahead cluster_ahead;
    block_read *block_reads; /* by block_index */
    codec codec;
    bounce_plan bounce;
    uint64_t bounce_frames; /* counted, as long as the pool lives; 0 without a codec */
    unsigned char *bounce_mapping;
    unsigned char *bounce_memory; /* in it */
    pool_counters *counters,
        own_counters; /* counters: own_counters, or where others see them (pool_counters_elsewhere) */
    trace_log trace;
    fault_thread faults;
    inline_set inlines;
    reclaimer native;
    pool_watch watch;
    context fault_context;
    context reclaim_context; /* shared by the native and the steering reclaimer */
    small_lock reclaim_lock; /* held while reclaim_context is in use; a call may take as long as its writes */
    context api_contexts[API_CONTEXTS];
    small_lock context_lock;
    event context_free;
    small_lock leave_lock; /* a step of taking an area out of use (pool_swapoff.c) */
    small_lock api_lock;
    event frames_freed; /* API threads waiting for frames */
    _Atomic uint32_t frame_waiters;
    _Atomic uint64_t writes_in_flight; /* requests; of all contexts */
    _Atomic uint64_t reads_in_flight;
    _Atomic uint32_t evictors;        /* threads inside page_out */
    _Atomic uint32_t direct_in_vain;  /* the last direct reclaim found nothing (direct.c) */
    small_lock direct_turn;           /* then they take turns */
    _Atomic uint32_t slots_exhausted; /* no slot was to be had, and less than a cluster of them has come free since */
    _Atomic uint64_t errors_at_retry; /* write_errors when refused slots were last tried anew */
    _Atomic uint64_t exhausted_round_ns; /* when the next round over the pages without slots may begin */
    _Atomic uint32_t slots_freed;        /* since then */
    gate gate;                           /* everybody who changes pages, slots or frames is inside */
    _Atomic uint32_t stripe;             /* which of several areas of equal priority is next */
    struct group *_Atomic group;         /* NULL: the pool is this process's alone */
    _Atomic bool enters_group;           /* it is just becoming a member: not to be forked with (group.c) */
    struct group *_Atomic family;        /* NULL: nobody has been forked off with its memory (README, Fork) */
    uint16_t family_member;              /* member_id of this process in it */
    _Atomic uint64_t lendable_slots;     /* that others may hold when this process does not use them any more */
    bool sparse_regions; /* no swap is promised to regions that are made now, but to what is used of them (run/) */
    int fork_error; /* what the last fork that was prepared will come to: 0, or why (errno) its child cannot have the regions; under fork.c's lock */
    char fork_reason[256]; /* in a child that could not go on with its regions: why */
    struct group *former;  /* what it has left: their memory stays, somebody may still look */
    _Atomic uint64_t
        near_distance; /* of a member of a group: with all of its limit, pages evicted so lately would have stayed */
    _Atomic uint64_t left_ahead;    /* pages of one value that have left memory though they were only cleaned or aged */
    uint64_t left_when_short;       /* that, when frames were last short; under reclaim_lock (page_out.c) */
    _Atomic uint64_t near_refaults; /* pages read back that lately */
};

/* All pools of this process, for the handlers of forks and signals. (pool_list.c) */
extern uswap_pool *_Atomic pool_list[POOLS_MAX];
/* Return: 0, or -1 if there are too many. */
int pool_list_add(uswap_pool *pool);
/* => no handler is in it any more, none gets in. */
void pool_list_remove(uswap_pool *pool);
/* The pool at an index of the list, which stays until pool_leave; NULL if there is none. Context: any, signal handlers too. */
uswap_pool *pool_enter(int index);
void pool_leave(int index);
/* In a forked child: nobody is in any of them. */
void pool_list_in_child(void);
/* Has forked children told, from now on. (fork.c, as are these) */
void fork_watch(void);
/* No fork begins between the two: a pool is coming or going. */
void fork_hold(void);
void fork_allow(void);

/* Entry of every API function: refuses forked children, and blocks signals, but for SIGBUS: the caller's buffers may be inline memory. */
typedef struct {
    unsigned char saved_mask[128]; /* a sigset_t */
} api_guard;

int api_enter(uswap_pool *pool, api_guard *guard, uswap_error *err);
void api_leave(const api_guard *guard);

/* The pool's descriptor, transport and fault mode, by what is asked for, permitted and possible (pool_uffd.c). Return: 0 or a
 * uswap_status. */
int pool_open_uffd(uswap_pool *pool, uswap_error *err);
/* What a pool needs that a forked child cannot inherit, in this order; return: 0 or -errno (pool.c). Arenas, rings, the limit: the segment is
 * there, with a budget of zeroes. */
int pool_make_frames(uswap_pool *pool);
int pool_make_contexts(uswap_pool *pool);
int pool_start_threads(uswap_pool *pool);
/* Entries of the reclaim ring for each frame: pages that left by discard leave theirs behind until it is swept. */
#define RING_ENTRIES_PER_FRAME 2
#define RING_ENTRIES_LEAST 4096

static inline uint64_t pool_ring_capacity(uint64_t limit_frames) {
    return MAX_OF(limit_frames * RING_ENTRIES_PER_FRAME, (uint64_t)RING_ENTRIES_LEAST);
}

/* Sets the limit and returns at once: the reclaimers evict what is over a lower one. Return: false if there is no address space for so high a one.
 * Context: one thread at a time; nobody calls uswap_pool_set_limit meanwhile. (pool_limit.c, as are these) */
bool pool_start_limit(uswap_pool *pool, uint64_t limit_frames);
/* As uswap_pool_set_limit. Context: api_lock held; in no group. */
int pool_change_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err);
/* Whether the used frames have been within the limit since it was set: from then on they are. Without reclaimers it evicts a few itself. */
bool pool_limit_is_met(uswap_pool *pool);
/* What rings take is of the limit: of a much lower one they would take too much. Context: in the gate, or it is closed by the caller. */
void pool_fit_rings(uswap_pool *pool);
/* The least that the pool can do with now: what is locked or pinned stays. */
uint64_t pool_least_frames(uswap_pool *pool);
/* How many frames are used beyond so many below the limit. */
uint64_t pool_frames_over(uswap_pool *pool, uint64_t below);

/* The refusal, and what mends it. */
int pool_refuse_uffd(uswap_error *err, int os_errno);

/* What uswap_process_pool says (run/start.c). */
extern uswap_pool *process_pool;

/* Takes api_lock; within_ns, if not 0: gives up after that time, since a limit that is being lowered, say, holds it for as long as that takes. Return: whether it is
 * held. */
bool pool_lock_api(uswap_pool *pool, uint64_t within_ns);

/* Slots for pages more (or fewer) that may have to be written: their place on the disk is made sure of now, not at the page-out
 * (pool_areas.c). Return: 0 or a uswap_status. Context: api_lock held; may block. */
int pool_reserve_slots(uswap_pool *pool, uint64_t pages, uswap_error *err);
void pool_unreserve_slots(uswap_pool *pool, uint64_t pages);
/* The same for who makes promises himself (sparse_regions). Context: none. */
int pool_promise(uswap_pool *pool, uint64_t pages, uswap_error *err);
/* Gives the areas in use space on their disks for so many slots in all, and SLACK more. Return: how many slots are missing; *err: why.
 * Context: api_lock held; may block. */
uint64_t pool_make_room(uswap_pool *pool, uint64_t slots, uswap_error *err);
/* Gives space on the disks that is promised to nobody any more back, as far as it is free. Context: api_lock held; may block. */
void pool_return_room(uswap_pool *pool);
/* Slots that must be there for what is promised to regions. */
uint64_t pool_promised_slots(uswap_pool *pool, uint64_t pages);

/* The codec that the options name, and its bounce frames, counted; before the contexts. Return: 0 or -errno. (pool_codec.c) */
int pool_codec_init(uswap_pool *pool);
/* The same without keys, which are there. */
int pool_codec_make_frames(uswap_pool *pool, uint64_t limit_frames);
void pool_codec_fini(uswap_pool *pool);
/* Bounce frames that a pool with that limit has. */
uint64_t pool_codec_frames(uint32_t encrypt, uint64_t limit_frames);
/* What the context's queue encodes by; NULL: by nothing. */
const io_coding *pool_coding(const context *ctx, io_coding *coding);

/* Return: 0 or -errno. (context.c) */
int context_init(context *ctx, uswap_pool *pool, actor who);
void context_fini(context *ctx);
/* One of the pool's I/O contexts; waits for one. */
context *context_borrow(uswap_pool *pool);
/* => nothing of it in flight. */
void context_return(context *ctx);

/* Hands a request to the device, and counts it. */
void context_send(context *ctx, io_request *request);
/* The same for the requests that are still growing. */
void context_submit(context *ctx);
/* Ends one request that has ended; with wait, waits for one. Return: false if there was none. Context: no page locked. */
bool context_complete(context *ctx, bool wait);
/* => nothing of it in flight. Context: no page locked. */
void context_drain(context *ctx);
/* A request of the context, after ending others if all are in flight. Context: no page locked. */
io_request *context_request(context *ctx, io_direction direction, int fd, swap_entry first);

/* Pages of metadata [first, last] are about to be touched; counts the new ones. */
void metadata_touch(uswap_pool *pool, _Atomic uint8_t *flags, size_t first, size_t last);
/* A page of slots. */
void metadata_touch_slot(uswap_pool *pool, swap_entry entry);

static inline swap_slot *slot_at(uswap_pool *pool, swap_entry entry) {
    return &pool->areas[swap_entry_area(entry)].slots[swap_entry_slot(entry)];
}

#endif
