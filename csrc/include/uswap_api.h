/*
 * uswap_api.h - every declaration the outside may use, and nothing else.
 *
 * Owns: the C API. Included by C, and read verbatim by cffi's cdef (src/uswap/_ffi_build.py), so the two cannot drift.
 * Therefore: no preprocessor lines, no inline functions, only what pycparser reads.
 *
 * Contracts common to all functions:
 *   => return 0 or a count on success, a negative uswap_status on failure; *err (may be NULL) then says what failed;
 *   => out-parameters are untouched on failure;
 *   => all are thread-safe unless they say otherwise; none calls back; none prints;
 *   => a forked child has its parent's pools, with its private regions as they were at the fork. Where that cannot be (the error says why) every
 *      function on the pool returns USWAP_E_FORKED and changes nothing.
 * Sizes are in bytes where the name says _bytes, in pages of 4096 bytes where it says _pages.
 */

typedef struct uswap_pool uswap_pool;

/* One place in Python (src/uswap/_errors.py) turns these into exceptions. */
typedef enum {
    USWAP_OK = 0,
    USWAP_E_INVALID = -1,     /* a bad argument: detail says which and why                            ValueError      */
    USWAP_E_NO_MEMORY = -2,   /* no swap space, metadata or address space for this                    MemoryError     */
    USWAP_E_UNSUPPORTED = -3, /* the kernel or a container refuses what is needed                     UnsupportedError*/
    USWAP_E_OS = -4,          /* a system call failed: operation, path, os_errno                      OSError         */
    USWAP_E_IN_USE = -5,      /* the swap area is locked by another pool                              SwapAreaError   */
    USWAP_E_NOT_OURS = -6,    /* the path holds somebody's data: refused, not overwritten             SwapAreaError   */
    USWAP_E_SWAP_READ = -7,   /* a slot could not be read back, or its checksum is wrong              SwapError       */
    USWAP_E_CLOSED = -8,      /* the pool or region is closed                                         ClosedError     */
    USWAP_E_FORKED = -9,      /* called in a forked child on the parent's pool                        ForkError       */
    USWAP_E_CORRUPT = -10,    /* uswap_pool_check: an invariant does not hold; detail names it        AssertionError  */
    USWAP_E_BUSY = -11,       /* pinned, locked, or in use: detail says by what                       BlockingIOError */
    USWAP_E_LIMIT = -12       /* the limit is below the minimum or below what is locked               LimitError      */
} uswap_status;

typedef struct {
    int32_t status;     /* a uswap_status                                                              */
    int32_t os_errno;   /* 0 where no system call failed                                               */
    char operation[64]; /* "fallocate", "userfaultfd", ...                                             */
    char path[512];     /* the file concerned, or ""                                                   */
    uint64_t offset;    /* byte offset in the file or region                                           */
    char detail[512];   /* one sentence: what is wrong, and what to do                                 */
} uswap_error;

typedef enum { USWAP_TRANSPORT_AUTO = 0, USWAP_TRANSPORT_MOVE = 1, USWAP_TRANSPORT_COPY = 2 } uswap_transport;
typedef enum { USWAP_IO_AUTO = 0, USWAP_IO_URING = 1, USWAP_IO_SYNC = 2 } uswap_io_kind;
typedef enum { USWAP_CODEC_NONE = 0, USWAP_CODEC_AES_256_XTS = 1 } uswap_codec_kind;

/* Who serves the faults of a region (csrc/README.md, Inline faults). */
typedef enum {
    USWAP_FAULTS_DEFAULT = 0, /* of a region: as the pool says; of a pool: THREAD where it is permitted, else INLINE */
    USWAP_FAULTS_THREAD = 1,  /* the pool's fault thread; system calls work as on any memory                 */
    USWAP_FAULTS_INLINE = 2   /* the thread that has them; a system call on a page that is out gets EFAULT    */
} uswap_fault_mode;

typedef struct {
    uint64_t limit_bytes;         /* hard limit; rounded down to whole pages                              */
    uint32_t transport;           /* a uswap_transport                                                    */
    uint32_t io_kind;             /* a uswap_io_kind                                                      */
    uint32_t recycle;             /* 1: frames circulate (see csrc/README.md, Frames)                     */
    uint32_t overcommit;          /* 1: regions do not reserve swap                                       */
    uint32_t fault_around_pages;  /* fresh pages mapped per first touch; 1 = only the page touched        */
    uint32_t read_ahead_pages;    /* largest read-ahead window; 0 = off                                   */
    uint32_t reclaim_batch_pages; /* pages a direct reclaim evicts at most; 1 gives exact FIFO            */
    uint32_t background;          /* 0: no native reclaimer and no watermarks: only direct reclaim        */
    uint32_t verify;              /* 1: check every slot's hash on the way in                             */
    uint32_t fault_mode;          /* a uswap_fault_mode, for regions that name none                       */
    uint32_t write_ahead;         /* 1: pages are cleaned before they must leave                          */
    uint32_t io_depth;            /* requests in flight at most, of each thread that moves pages: 1 to 256        */
    uint32_t awake;               /* 1: who waits for a single page does so awake, where that pays                  */
    uint32_t snapshots;           /* 1: a forked child has the private regions as they were at the fork      */
    uint32_t encrypt;             /* 1: slots hold cipher text; USWAP_E_UNSUPPORTED if built without      */
} uswap_options;

/* Defaults: the one table of them. */
void uswap_options_init(uswap_options *options);

/* ---- pool ------------------------------------------------------------------------------------------------------ */

/* The least limit uswap_pool_create accepts, in bytes; with a codec it needs uswap_stats.bounce_bytes more. */
uint64_t uswap_minimum_limit_bytes(void);

/* => starts the fault thread and the native reclaimer; the pool has no swap area yet. */
int uswap_pool_create(const uswap_options *options, uswap_pool **pool, uswap_error *err);

/* The pool that all of this process's memory comes from, under `uswap run`; NULL otherwise. It is never destroyed. */
uswap_pool *uswap_process_pool(void);

/* => stops the threads, closes the swap areas and frees everything. USWAP_E_BUSY while a region exists. Not thread-safe
 * against other calls on the same pool. */
int uswap_pool_destroy(uswap_pool *pool, uswap_error *err);

/* => a live change. Downwards it evicts until the new limit holds, and returns only then. */
int uswap_pool_set_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err);

/* Bits of uswap_area_info.notes */
typedef enum {
    USWAP_AREA_NO_O_DIRECT = 1,  /* the file system refuses O_DIRECT: the page cache is used               */
    USWAP_AREA_TMPFS = 2,        /* the file lies in memory: swapping there frees nothing                  */
    USWAP_AREA_NO_FALLOCATE = 4, /* space cannot be reserved: a full disk may show up late                 */
    USWAP_AREA_BLOCK_DEVICE = 8,
    USWAP_AREA_UNLINKED = 16 /* no name on the disk: gone with the process                             */
} uswap_area_note;

typedef struct {
    uint32_t area;  /* index of the area in the pool                                              */
    uint32_t notes; /* uswap_area_note bits                                                       */
    int32_t priority;
    uint64_t size_bytes;      /* what it may grow to                                                        */
    uint64_t allocated_bytes; /* what it takes on the disk now                                              */
    uint64_t used_bytes;      /* slots in use                                                               */
    char path[512];           /* directory for an unlinked file                                             */
} uswap_area_info;

/* path: a file or block device; or, with unlinked = 1, a directory for an O_TMPFILE. size_bytes 0: 90 % of the free disk
 * (files), the whole device (block devices). */
int uswap_pool_swapon(uswap_pool *pool, const char *path, int unlinked, uint64_t size_bytes, int32_t priority,
                      uswap_area_info *info, uswap_error *err);
/* 0 in the process that the pool is of: the one that made it, or a forked child that has gone on with it. */
int uswap_pool_check_process(uswap_pool *pool, uswap_error *err);
/* => the number of areas written, at most capacity. */
int uswap_pool_areas(uswap_pool *pool, uswap_area_info *infos, uint32_t capacity, uswap_error *err);

/* One step of taking an area out of use; to be called until it returns 0. area: its uswap_area_info.area. It brings pages back, or lets
 * them move to other areas; regions go on working meanwhile. May wait for I/O, but returns after 100 ms of waiting at the latest.
 * => how many slots are still in use there; 0: the area is closed, its file truncated to the header and unlocked, its index is not
 * used again. USWAP_E_NO_MEMORY: the others have no room for what is promised to regions; USWAP_E_BUSY: no frame can be freed. On
 * failure the area stays in use. */
int64_t uswap_pool_swapoff(uswap_pool *pool, uint32_t area, uswap_error *err);
/* => an area that was to be taken out of use is as any other. Pages that have left it do not come back. */
int uswap_pool_swapoff_cancel(uswap_pool *pool, uint32_t area, uswap_error *err);

typedef struct {
    /* configuration */
    uint64_t limit_bytes;
    uint64_t capacity_frames; /* frames that faults can use: the limit less reserve, metadata charge, bounce */
    uint64_t transport;       /* the uswap_transport in use                                          */
    uint64_t io_kind;         /* the uswap_io_kind in use                                            */
    uint64_t fault_mode;      /* the uswap_fault_mode of regions that name none                      */
    uint64_t user_mode_only;  /* 1: no permission for faults inside system calls: THREAD is refused  */
    uint64_t codec;           /* a uswap_codec_kind: what pages go through on their way to slots     */
    uint64_t key_locked;      /* 1: the codec's keys are locked in memory                            */
    /* state */
    uint64_t resident_bytes; /* frames counted now: mapped, swap cache, in flight, metadata charge  */
    uint64_t peak_resident_bytes;
    uint64_t mapped_bytes;           /* frames mapped in regions                                            */
    uint64_t cached_bytes;           /* frames in the swap cache, I/O in flight included                    */
    uint64_t inactive_bytes;         /* of them, taken out ahead of need: clean, or being written         */
    uint64_t metadata_bytes;         /* metadata touched                                                    */
    uint64_t metadata_charged_bytes; /* the part of it that is counted as frames                            */
    uint64_t bounce_bytes;           /* bounce frames of the codec, counted whether they are in use or not  */
    uint64_t locked_bytes;           /* by uswap_region_lock                                                */
    uint64_t pinned_bytes;           /* by uswap_region_pin                                                 */
    uint64_t managed_bytes;          /* sum of the region sizes                                             */
    uint64_t swap_total_bytes;       /* what the areas may grow to                                          */
    uint64_t swap_allocated_bytes;   /* on disk now                                                         */
    uint64_t swap_reserved_bytes;    /* promised to regions                                                 */
    uint64_t swap_used_bytes;        /* slots in use                                                        */
    uint64_t swap_lent_bytes;        /* of them, those that only forked processes use any more              */
    uint64_t bad_slots;
    uint64_t over_limit_frames; /* frames over the limit now (see csrc/README.md, I9)                  */
    uint64_t over_limit_events;
    uint64_t poisoned_pages;
    uint64_t regions;
    uint64_t unanswered_ns; /* how long the oldest request that has no answer has been with its disk        */
    /* counters since the pool was made */
    uint64_t faults;             /* messages that needed a page: the sum of the four kinds below     */
    uint64_t inline_faults;      /* SIGBUS served by the thread that faulted, duplicates included       */
    uint64_t zero_fills;         /* first touches                                                       */
    uint64_t soft_faults;        /* no read: from the swap cache, or made again from one value          */
    uint64_t major_faults;       /* waited for a read                                                   */
    uint64_t write_faults;       /* first stores to pages that had come in write-protected              */
    uint64_t duplicate_faults;   /* messages for a page that was there already                          */
    uint64_t parked_faults;      /* had to wait for a frame                                             */
    uint64_t write_waits;        /* of them, those that did while pages were being written              */
    uint64_t fault_around_pages; /* fresh pages mapped beside the one touched                           */
    uint64_t pages_in;           /* read from swap areas                                                */
    uint64_t pages_out;          /* written to swap areas                                               */
    uint64_t reads;              /* read requests                                                       */
    uint64_t writes;             /* write requests                                                      */
    uint64_t read_ahead_pages;   /* of pages_in, those read before their fault                          */
    uint64_t read_ahead_hits;    /* markers and cached pages that were then wanted                      */
    uint64_t read_ahead_misses;  /* faults whose page nobody had asked for                               */
    uint64_t read_ahead_waste;   /* dropped from the swap cache unused                                  */
    uint64_t evictions;          /* pages taken out of regions                                          */
    uint64_t evictions_steered;  /* by the Python reclaimer                                             */
    uint64_t evictions_native;   /* by the native reclaimer                                             */
    uint64_t evictions_direct;   /* in the fault path                                                   */
    uint64_t evictions_api;      /* by advise, evict, a lowered limit                                   */
    uint64_t clean_drops;        /* evictions that needed no write: the slot had the same contents      */
    uint64_t zero_drops;         /* evictions of pages full of zeroes: no slot, no write                */
    uint64_t filled_drops;       /* evictions of pages full of another value: the same                  */
    uint64_t evict_busy;         /* victims the kernel had pinned                                       */
    uint64_t copy_fallbacks;     /* pages that went by copy where move was refused                      */
    uint64_t read_errors;
    uint64_t write_errors;
    uint64_t hash_errors;
    uint64_t swap_full_events;  /* evictions refused for lack of a slot                                */
    uint64_t write_ahead_pages; /* of pages_out, those written before their frames were needed          */
    uint64_t rescues;           /* of soft_faults, those on pages that were inactive or being written           */
    uint64_t refaults;          /* of faults that read, those on pages whose eviction had left a shadow         */
    uint64_t policy_orders;     /* pages that a policy has named                                               */
    uint64_t policy_passed;     /* of them, those passed over: out of date, locked, or no page at all            */
    uint64_t policy_errors;     /* policies that have failed                                                   */
    uint64_t stall_ns;          /* sum over faults of message read to wake, or of signal to return     */
    uint64_t disk_stalls;       /* times that a request had no answer for 5 s, and it was said            */
} uswap_stats;

int uswap_pool_stats(uswap_pool *pool, uswap_stats *stats, uswap_error *err);

/* ---- policy: who decides which pages leave (csrc/README.md, Policy; src/uswap/policy/interface.py) ----------------- */

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

/* ---- trace: which pages are touched (src/uswap/trace/format.py) ------------------------------------------------------ */

/* sample: the share of pages that is recorded, by their hash. whole: 1: nothing comes in but what is touched (no read-ahead, no blocks), so
 * that a page out of the regions is seen when it is touched. USWAP_E_BUSY: there is a trace already. */
int uswap_trace_start(uswap_pool *pool, double sample, uint32_t whole, uswap_error *err);
/* => nothing is recorded any more; uswap_trace_write still has what was. */
int uswap_trace_stop(uswap_pool *pool, uswap_error *err);
/* Waits until half a buffer is full, the trace has been stopped, or the time is over; writes what there is. One thread at a time.
 * => how many records. USWAP_E_OS: they are lost. */
int64_t uswap_trace_write(uswap_pool *pool, int fd, uint64_t timeout_ns, uswap_error *err);
/* 1 while touches are recorded. */
int uswap_trace_running(uswap_pool *pool);
/* => how many of the stays are of pages that such a sample has; these are first in stays now. */
int64_t uswap_trace_sampled(uint64_t *stays, uint64_t count, double sample);

/* => evicts up to pages of the oldest pages; returns how many left, 0 when none can. Waits for the writes. */
int64_t uswap_pool_evict(uswap_pool *pool, uint64_t pages, uswap_error *err);

/* The core's own consistency check (csrc/README.md, Invariants). Stops reclaim while it looks; faults go on. */
int uswap_pool_check(uswap_pool *pool, uswap_error *err);

/* ---- region ---------------------------------------------------------------------------------------------------- */

/* Around the making of a mapping for a region, by mmap, in this thread: 1 before, 0 after it. Under `uswap run` the program's mappings are that pool's,
 * and no other pool could have them. */
void uswap_map_directly(int on);
/* address: a fresh private anonymous mapping of the caller's, page-aligned, not touched yet; it stays the caller's to
 * unmap, after uswap_region_destroy. bytes: a multiple of 4096. fault_mode: a uswap_fault_mode. => *region is an id for
 * the calls below. */
int uswap_region_create(uswap_pool *pool, void *address, uint64_t bytes, const char *name, uint32_t fault_mode,
                        uint64_t *region, uswap_error *err);
/* Inline faults come as SIGBUS. Puts the core's handler over what others have installed meanwhile, which it then chains to;
 * nothing if there was no inline region so far. Other calls do so too, and the fault thread now and then. */
void uswap_signals_check(void);
/* => frames and slots come back; the addresses are ordinary memory again (zeroes). */
int uswap_region_destroy(uswap_pool *pool, uint64_t region, uswap_error *err);
/* => no page of the region is moved by the runtime any more (faults are still served) until _resume or _destroy; for the
 * moment in which the caller must find out whether it may unmap. */
int uswap_region_quiesce(uswap_pool *pool, uint64_t region, uswap_error *err);
int uswap_region_resume(uswap_pool *pool, uint64_t region, uswap_error *err);

/* What the owner of the mapping keeps of it. The core changes it together with the region, before the call returns. */
typedef struct {
    uint64_t *address;
    int64_t *length;        /* in bytes, as it was asked for                                               */
    const int32_t *exports; /* not 0: somebody relies on the address and the length                        */
} uswap_mapping;

/* How much the caller of uswap_region_resize can promise. */
typedef enum {
    USWAP_RESIZE_BESIDE = 0, /* others may use the memory                                                    */
    USWAP_RESIZE_ALONE = 1   /* nobody touches it, and nobody begins to export it, until the call returns    */
} uswap_resize_promise;

typedef enum {
    USWAP_RESIZED = 0,
    USWAP_RESIZE_LATER = 1,      /* with ALONE: others are at the region; let them, and come again               */
    USWAP_RESIZE_ALONE_ONLY = 2, /* it must shrink, or move: possible with ALONE                              */
    USWAP_RESIZE_EXPORTED = 3    /* the same, and somebody relies on the address                                */
} uswap_resize_outcome;

/* The mapping made for uswap_region_create is reserve_bytes long (a multiple of 4096, more than the region): what is behind the region is for it to
 * grow into, has no access, and is the core's to unmap. length: of the region, for mapping->length. */
int uswap_region_reserve(uswap_pool *pool, uint64_t region, uint64_t reserve_bytes, int64_t length,
                         const uswap_mapping *mapping, uswap_error *err);
/* => the region has length bytes; those that are new are zero. In place, if that can be; else it moves. Returns a uswap_resize_outcome; on any but
 * RESIZED, and on failure, nothing has changed: NO_MEMORY: no swap space, no address space; BUSY: locked, pinned, or pinned by the kernel. */
int uswap_region_resize(uswap_pool *pool, uint64_t region, int64_t length, int promise, const uswap_mapping *mapping,
                        uswap_error *err);

typedef struct {
    uint64_t region;
    uint64_t address;
    uint64_t size_bytes;
    uint64_t resident_bytes; /* mapped                                                                   */
    uint64_t swapped_bytes;  /* pages whose contents are in a slot or in the swap cache                  */
    uint64_t locked_bytes;
    uint64_t faults;
    uint64_t poisoned_pages;
    uint64_t fault_mode; /* THREAD or INLINE                                                         */
    char name[64];
} uswap_region_info;

int uswap_region_get_info(uswap_pool *pool, uint64_t region, uswap_region_info *info, uswap_error *err);

typedef enum {
    USWAP_ADVICE_NORMAL = 0,
    USWAP_ADVICE_RANDOM = 1,     /* no read-ahead                                                          */
    USWAP_ADVICE_SEQUENTIAL = 2, /* widest read-ahead at once                                              */
    USWAP_ADVICE_WILLNEED = 3,   /* starts reading now, as far as frames allow                             */
    USWAP_ADVICE_DONTNEED = 4,   /* contents are thrown away: zeroes at the next touch                     */
    USWAP_ADVICE_COLD = 5,       /* first to be evicted                                                    */
    USWAP_ADVICE_PAGEOUT = 6     /* evicted now                                                            */
} uswap_advice;

/* start and length in bytes; DONTNEED covers only the pages wholly inside, the others all pages touched by the range. */
int uswap_region_advise(uswap_pool *pool, uint64_t region, uint64_t start_bytes, uint64_t length_bytes, uint32_t advice,
                        uswap_error *err);
/* Not evicted until unlocked; locks do not nest. USWAP_E_LIMIT if the limit would leave too little unlocked. */
int uswap_region_lock(uswap_pool *pool, uint64_t region, uint64_t start_bytes, uint64_t length_bytes, uswap_error *err);
int uswap_region_unlock(uswap_pool *pool, uint64_t region, uint64_t start_bytes, uint64_t length_bytes,
                        uswap_error *err);
/* As lock, but nests (up to 100 deep). Also the contract around DMA and system calls (csrc/README.md, Transports). => *held = 1, if it has pinned
 * them: known also to a caller whom a signal keeps from seeing the result. */
int uswap_region_pin(uswap_pool *pool, uint64_t region, uint64_t start_bytes, uint64_t length_bytes, uint8_t *held,
                     uswap_error *err);
int uswap_region_unpin(uswap_pool *pool, uint64_t region, uint64_t start_bytes, uint64_t length_bytes,
                       uswap_error *err);
/* protection: PROT_READ | PROT_WRITE bits, or 0. */
int uswap_region_protect(uswap_pool *pool, uint64_t region, uint64_t start_bytes, uint64_t length_bytes,
                         uint32_t protection, uswap_error *err);
/* Reads back and checks every swapped page of the range without mapping it. USWAP_E_SWAP_READ names the first bad one. */
int uswap_region_verify(uswap_pool *pool, uint64_t region, uint64_t start_bytes, uint64_t length_bytes,
                        uswap_error *err);
/* One byte a page: a uswap_page_class. pages entries are written. */
typedef enum {
    USWAP_PAGE_ZERO = 0, /* untouched or discarded                                                     */
    USWAP_PAGE_RESIDENT = 1,
    USWAP_PAGE_SWAPPED = 2, /* in its slot only                                                           */
    USWAP_PAGE_CACHED = 3,  /* out of the region, still or already in the swap cache                      */
    USWAP_PAGE_POISONED = 4,
    USWAP_PAGE_FILLED = 5 /* one value repeated: in no slot, made again at the next touch              */
} uswap_page_class;
int uswap_region_page_classes(uswap_pool *pool, uint64_t region, uint64_t first_page, uint64_t pages, uint8_t *classes,
                              uswap_error *err);

/* ---- heap: blocks of any size on managed memory (csrc/README.md, Heap) -------------------------------------------------- */

typedef struct uswap_heap uswap_heap;

/* The allocator of small blocks: path is a libtbbmalloc. Once a process; later calls change nothing. */
int uswap_heap_load(const char *path, uswap_error *err);
/* name: of its regions. limit_bytes: of the pool. The pool must live until uswap_heap_end has returned 0. */
int uswap_heap_create(uswap_pool *pool, const char *name, uint64_t limit_bytes, uswap_heap **heap, uswap_error *err);
/* => no new blocks; those there are stay, and may be freed. */
void uswap_heap_refuse(uswap_heap *heap);
/* => blocks in use. */
uint64_t uswap_heap_blocks(uswap_heap *heap);
/* => no block can be had any more, all memory is given back. USWAP_E_BUSY while blocks are in use: nothing has changed. Ending twice is no error. */
int uswap_heap_end(uswap_heap *heap, uswap_error *err);
/* Frees the structure itself, after uswap_heap_end; nobody may have its handler any more. */
void uswap_heap_forget(uswap_heap *heap);
/* => how many regions there are, at most capacity, whose ids are written. */
uint32_t uswap_heap_regions(uswap_heap *heap, uint64_t *regions, uint32_t capacity);
/* => a PyDataMem_Handler, version 1, valid as long as the heap. */
void *uswap_heap_numpy_handler(uswap_heap *heap);
/* numpy_default: NumPy's default handler, whose functions are replaced once and for good. => it takes blocks from the heap, or, with NULL, as ever; each
 * block goes back to where it came from. Context: the GIL is held. */
void uswap_heap_everywhere(void *numpy_default, uswap_heap *heap);

/* ---- processes of one pool (csrc/README.md, Processes of one pool; shared/) ------------------------------------------ */

/* Makes the pool a named one, of which this process is the first member: its limit becomes a part of limit_bytes. folder: the named pool's
 * own, empty, mode 0700, this user's; the caller holds the lock of its creation. swap_folder: where the shared swap file (without a name)
 * lies. map_for_peers: 1: a shared page that one member brings in is mapped in all that have its region. */
int uswap_group_create(uswap_pool *pool, const char *folder, uint64_t limit_bytes, const char *swap_folder,
                       uint32_t map_for_peers, uswap_error *err);
/* Makes the pool a member of the one whose folder that is. USWAP_E_CLOSED: nobody alive is there. USWAP_E_UNSUPPORTED: of an incompatible
 * build. USWAP_E_NOT_OURS: another user's. USWAP_E_LIMIT: no floor is to be had. USWAP_E_BUSY: there are as many members as there can be. */
int uswap_group_join(uswap_pool *pool, const char *folder, uswap_error *err);
/* Shared regions must have been unmapped. => the pool's limit stays what it is; => 1 if it was the last member, and the folder is gone. Also
 * done by uswap_pool_destroy. */
int uswap_group_leave(uswap_pool *pool, uswap_error *err);

typedef struct {
    uint64_t limit_bytes;           /* of all members together */
    uint64_t free_bytes;            /* nobody's */
    uint64_t shared_limit_bytes;    /* what of it is for shared pages, and ... */
    uint64_t shared_resident_bytes; /* ... used by them */
    uint64_t shared_swap_used_bytes;
    uint64_t floor_bytes; /* of each member */
    uint64_t members;
    uint64_t objects;
    uint64_t faults, soft_faults, pages_read, pages_written, evictions, clean_drops, zero_drops, mapped_for_peers;
} uswap_group_info;

typedef struct {
    uint32_t member; /* its id; unique among those alive */
    uint32_t pid;
    uint32_t state;         /* 1: joining, 2: alive, 3: leaving, 4: dead, being cleaned up after */
    uint32_t self;          /* 1: this process */
    uint64_t limit_bytes;   /* its part */
    uint64_t private_bytes; /* used of it */
    uint64_t silent_ns;     /* since its own thread last looked around: large if it is stopped */
} uswap_member_info;

typedef struct {
    uint32_t object; /* index */
    uint32_t creator_pid;
    uint64_t creator_region;
    uint64_t size_bytes;
    uint64_t resident_bytes;
    uint64_t swapped_bytes;
    uint64_t locked_bytes; /* held by any process */
    uint64_t faults;       /* of all processes */
    uint64_t poisoned_pages;
    uint64_t mappers; /* how many processes */
    int64_t priority;
    uint64_t key; /* by which stays name it */
    char name[64];
} uswap_object_info;

typedef struct {
    uint32_t pid;
    uint32_t mapped; /* 1: has the page mapped now, as far as this process can tell; else only the region */
    uint64_t page;
} uswap_page_user;

int uswap_group_get_info(uswap_pool *pool, uswap_group_info *info, uswap_error *err);
int uswap_group_set_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err);
/* => how many there are; at most capacity are written. */
int uswap_group_members(uswap_pool *pool, uswap_member_info *infos, uint32_t capacity, uswap_error *err);
int uswap_group_objects(uswap_pool *pool, uswap_object_info *infos, uint32_t capacity, uswap_error *err);
/* The same of a named pool that this process is no member of (`uswap ls`). Any of the arrays may have capacity 0. counts: members, objects.
 * USWAP_E_CLOSED: nobody alive is there. */
int uswap_group_look(const char *folder, uswap_group_info *info, uswap_member_info *members, uint32_t member_capacity,
                     uswap_object_info *objects, uint32_t object_capacity, uswap_error *err);
/* How many processes are behind the sockets of a named pool's folder; a socket behind which nobody is goes. Waits for nobody. Context: the lock of
 * the folder is held, so nobody is just making a socket. */
int uswap_group_living(const char *folder, uswap_error *err);
/* The group's own consistency check: every frame, slot and chunk is exactly where the words say. Beside members that are at work. */
int uswap_group_check(uswap_pool *pool, uswap_error *err);

/* A new shared object. reserve_bytes: to which it can grow where it is mapped; 0, or no less than bytes. => *object, and *fd: its file, the caller's to
 * map and to close, of the larger of both. USWAP_E_INVALID: the name is taken. */
int uswap_shared_create(uswap_pool *pool, uint64_t bytes, uint64_t reserve_bytes, const char *name, uint64_t region_id,
                        uint32_t *object, int *fd, uswap_error *err);
/* One that is there, by name, or (name NULL) by index. USWAP_E_INVALID: there is none. */
int uswap_shared_open(uswap_pool *pool, const char *name, uint32_t *object, uint64_t *bytes, uint64_t *reserve_bytes,
                      int *fd, uswap_error *err);
/* How many bytes this process could see of it: others may have changed its size. key: by which stays name it. */
int uswap_shared_size(uswap_pool *pool, uint32_t object, uint64_t *bytes, uint64_t *key, uswap_error *err);
/* address: a fresh shared mapping of the file's first reserve_bytes (or bytes, if they are more), page-aligned, not touched yet. The first bytes of it are
 * the region; they stay the caller's to unmap, before uswap_shared_unmap; what is behind them is the core's, and mapping->length is changed. mapping may be
 * NULL if there is nothing behind. => faults there are served. USWAP_E_OS with EAGAIN: the region has become shorter: open it again. */
int uswap_shared_map(uswap_pool *pool, uint32_t object, int fd, void *address, uint64_t bytes, uint64_t reserve_bytes,
                     const uswap_mapping *mapping, uswap_error *err);
/* As uswap_region_resize, of the object and of what this process sees of it; what other processes see stays as it is. Whole pages; length 0: this
 * process sees all that there is. BUSY: another process sees what is to go, or holds it. After LATER, err says what a caller without patience is to be told. */
int uswap_shared_resize(uswap_pool *pool, uint64_t object, int64_t length, int promise, const uswap_mapping *mapping,
                        uswap_error *err);
int uswap_shared_unmap(uswap_pool *pool, uint32_t object, uswap_error *err);
int uswap_shared_get_info(uswap_pool *pool, uint32_t object, uswap_object_info *info, uswap_error *err);
/* As the calls of the same name for regions. */
int uswap_shared_advise(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes, uint32_t advice,
                        uswap_error *err);
/* set: what it is from now on, for all processes; NULL: as it is. => *now */
int uswap_shared_priority(uswap_pool *pool, uint32_t object, const int32_t *set, int32_t *now, uswap_error *err);
/* In this process alone. */
int uswap_shared_protect(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                         uint32_t protection, uswap_error *err);
/* held: as uswap_region_pin. */
int uswap_shared_hold(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes, uint8_t *held,
                      uswap_error *err);
int uswap_shared_release(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                         uswap_error *err);
int uswap_shared_verify(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                        uswap_error *err);
int uswap_shared_page_classes(uswap_pool *pool, uint32_t object, uint64_t first_page, uint64_t pages, uint8_t *classes,
                              uswap_error *err);
/* => how many use the page; at most capacity are written. */
int uswap_shared_users(uswap_pool *pool, uint32_t object, uint64_t page, uswap_page_user *users, uint32_t capacity,
                       uswap_error *err);

/* ---- reclaim, steered from outside ------------------------------------------------------------------------------ */

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

/* ---- failpoints and sync points (csrc/README.md lists the names) -------------------------------------------------- */

typedef enum {
    USWAP_FAIL_OFF = 0,
    USWAP_FAIL_ERROR = 1, /* the step fails with os_errno = argument                                      */
    USWAP_FAIL_DELAY = 2, /* the thread sleeps argument microseconds                                      */
    USWAP_FAIL_STOP = 3,  /* sync point: the thread waits there until uswap_syncpoint_release             */
    USWAP_FAIL_KILL = 4,  /* SIGKILL to the process                                                       */
    USWAP_FAIL_FLIP = 5,  /* a bit of the data at hand is flipped (where there is data)                   */
    USWAP_FAIL_FREEZE = 6 /* SIGSTOP to the process */
} uswap_fail_action;

/* 1 if the core was built with failpoints. */
int uswap_failpoints_built(void);
/* nth: fires at the nth hit from now (1 = next) and, if every = 1, at each hit after it. */
int uswap_failpoint_set(const char *name, uint32_t action, int64_t argument, uint64_t nth, int every, uswap_error *err);
/* The same at each hit, but only where the step is that page's: page_in.one, page_in.hash, page_out.one. */
int uswap_failpoint_set_page(const char *name, uint32_t action, int64_t argument, uint64_t region, uint64_t page,
                             uswap_error *err);
/* => hits counted since the failpoint was last set. */
int64_t uswap_failpoint_hits(const char *name, uswap_error *err);
/* => 1 when a thread is held at the sync point, 0 when the time was over. */
int uswap_syncpoint_wait(const char *name, uint64_t timeout_ns, uswap_error *err);
int uswap_syncpoint_release(const char *name, uswap_error *err);
void uswap_failpoints_reset(void);
/* The i-th name, or NULL past the last. */
const char *uswap_failpoint_name(uint32_t index);

/* ---- what this machine can do (uswap doctor) ---------------------------------------------------------------------- */

typedef struct {
    int32_t uffd_syscall_errno;      /* 0: userfaultfd(2) works for kernel faults too                           */
    int32_t uffd_user_only_errno;    /* 0: userfaultfd(2) works with UFFD_USER_MODE_ONLY                        */
    int32_t uffd_device_errno;       /* 0: /dev/userfaultfd works                                               */
    uint64_t uffd_features;          /* bits of struct uffdio_api.features                                      */
    int32_t live_fault_errno;        /* 0: a missing page was served to a thread                                */
    int32_t live_kernel_fault_errno; /* 0: the same inside a system call                                    */
    int32_t live_wp_errno;           /* 0: a write to a write-protected page was reported, and went on          */
    int32_t live_move_errno;         /* 0: a page went out and back by UFFDIO_MOVE with its contents            */
    int32_t live_poison_errno;       /* 0: UFFDIO_POISON is there                                               */
    int32_t uring_errno;             /* 0: io_uring works; ENOSYS also when built without liburing              */
    int32_t uring_built;
    uint64_t memlock_bytes; /* RLIMIT_MEMLOCK; UINT64_MAX: no limit                                    */
    int32_t encrypt_errno;  /* 0: slots can be encrypted; ENOSYS: built without libcrypto              */
    int32_t key_locked;     /* 1: the keys of that were locked in memory                               */
} uswap_probe;

int uswap_probe_run(uswap_probe *probe, uswap_error *err);

/* Opens and closes a swap area as uswap_pool_swapon would, and times reads there: the median latency of one 4 KiB O_DIRECT
 * read in nanoseconds, over a file of 16 MiB written first. directory must exist. */
int uswap_probe_disk(const char *directory, uint64_t *read_4k_ns, uint64_t *write_1m_ns, uint32_t *notes,
                     uswap_error *err);

/* "0.1.0 (liburing 2.3, failpoints, debug)" */
const char *uswap_build_info(void);

/* ---- benchmarks: the native loops of `uswap bench` --------------------------------------------------------------- */

typedef enum {
    USWAP_ORDER_SEQUENTIAL = 0,
    USWAP_ORDER_BACKWARD = 1,
    USWAP_ORDER_STRIDE = 2,  /* every step-th page; the pages between in further rounds */
    USWAP_ORDER_STREAMS = 3, /* step streams, a page of each in turn                    */
    USWAP_ORDER_RANDOM = 4,
    USWAP_ORDER_ZIPF = 5 /* popularity rank^-exponent; popular pages lie scattered */
} uswap_bench_order;

typedef enum {
    USWAP_ACCESS_FILL = 0, /* writes all words of the page, whatever is there     */
    USWAP_ACCESS_READ = 1, /* reads and checks all words                          */
    USWAP_ACCESS_ADD = 2,  /* the same, and adds 1 to each                        */
    USWAP_ACCESS_TOUCH = 3 /* reads and checks one word                           */
} uswap_bench_access;

/* Accesses first to first + count of a pattern: the same arguments name the same pages, so a run may go on in steps. */
typedef struct {
    uint32_t order;  /* a uswap_bench_order                                    */
    uint32_t access; /* a uswap_bench_access                                   */
    uint64_t step;   /* pages of a stride; number of streams                   */
    double exponent; /* of Zipf; not 1                                         */
    uint64_t seed;
    uint64_t first;
    uint64_t count;
    uint64_t budget_ns; /* ends earlier when so much time is over                 */
} uswap_bench_job;

/* Latencies lie in buckets, eight to each doubling; uswap_bench_bucket_ns says which. */
enum { USWAP_BENCH_BUCKETS = 320 };

typedef struct {
    uint64_t accesses; /* pages, or requests                                      */
    uint64_t elapsed_ns;
    uint64_t wrong; /* accesses that found other contents than were written       */
    uint64_t latency[320];
} uswap_bench_result;

/* Adds to *result. memory: pages * 4096 bytes, any memory. */
void uswap_bench_run(void *memory, uint64_t pages, const uswap_bench_job *job, uswap_bench_result *result);
/* Upper end of a bucket. */
uint64_t uswap_bench_bucket_ns(uint32_t bucket);

/* The disk itself, through the same I/O layer and O_DIRECT: requests of block_pages (1 to 512), depth of them in flight
 * (1 to 256), on the first bytes of a file that has been written in full, for budget_ns. io_kind: a uswap_io_kind.
 * Return: 0, or a negative uswap_status with *err set. Adds to *result; accesses are requests. */
int uswap_bench_disk(const char *path, uint64_t bytes, uint32_t block_pages, uint32_t depth, uint32_t write,
                     uint32_t random, uint32_t io_kind, uint64_t seed, uint64_t budget_ns, uswap_bench_result *result,
                     uswap_error *err);
