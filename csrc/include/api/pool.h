/*
 * pool.h - pools: how one is made, its limit, its swap areas, its statistics.
 */

typedef enum { USWAP_TRANSPORT_AUTO = 0, USWAP_TRANSPORT_MOVE = 1, USWAP_TRANSPORT_COPY = 2 } uswap_transport;
typedef enum { USWAP_IO_AUTO = 0, USWAP_IO_URING = 1, USWAP_IO_SYNC = 2 } uswap_io_kind;
typedef enum { USWAP_CODEC_NONE = 0, USWAP_CODEC_AES_128_XTS = 1 } uswap_codec_kind;

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
    uint32_t fault_around_pages;  /* pages mapped per first touch, or soft fault; 1 = only the page touched */
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

/* The least limit uswap_pool_create accepts, in bytes; with a codec it needs uswap_stats.bounce_bytes more. */
uint64_t uswap_minimum_limit_bytes(void);

/* => starts the fault thread and the native reclaimer; the pool has no swap area yet. */
int uswap_pool_create(const uswap_options *options, uswap_pool **pool, uswap_error *err);

/* The pool that all of this process's memory comes from, under `uswap run`; NULL otherwise. It is never destroyed. */
uswap_pool *uswap_process_pool(void);

/* => stops the threads, closes the swap areas and frees everything. USWAP_E_BUSY while a region exists. Not thread-safe
 * against other calls on the same pool. */
int uswap_pool_destroy(uswap_pool *pool, uswap_error *err);
/* The same, with the cell that uswap_pool_create has written: it is NULL afterwards, or was before. */
int uswap_pool_end(uswap_pool **cell, uswap_error *err);
/* A capsule's destructor, whose pointer is such a cell: nobody has ended the pool. Not in a forked child. */
void uswap_pool_lost(void *capsule);

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
    uint64_t fault_around_pages; /* pages mapped beside the one touched, no read being needed           */
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
