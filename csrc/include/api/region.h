/*
 * region.h - regions: memory of a pool, page by page.
 */

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
/* The same by a cell: the region's id (0: there is none yet), and its pool's address, which becomes 0 in this call; with 0 nothing is to be done. */
int uswap_region_end(uswap_pool *pool, uint64_t *cell, uswap_error *err);
/* The same for an owner in Python who loses the mapping without having said anything: the destructor of a capsule
 * (docs.python.org/3/c-api/capsule.html) that leads to the cell, called before the unmapping. */
void uswap_region_lost(void *capsule);
/* Before the first of them: Python's PyCapsule_GetPointer, PyEval_SaveThread and PyEval_RestoreThread. */
void uswap_guards_use(void *pointer_of, void *let_go, void *take);
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
