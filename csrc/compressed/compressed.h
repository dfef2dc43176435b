/*
 * compressed.h - copies of pages that have left memory, compressed: such a page comes back without the disk (README, Compressed copies).
 *
 * Owns: the copies (a log of segments), where that of each slot lies, and how much memory they may have. A copy is an addition to what the slot
 * holds, never in its place: whatever happens to it, the contents are on the disk.
 */
#ifndef USWAP_COMPRESSED_COMPRESSED_H
#define USWAP_COMPRESSED_COMPRESSED_H

#include "base/lock.h"
#include "io/io.h"
#include "swap/hash.h"
#include "swap/swap_entry.h"

/* Memory comes and goes by the segment. */
#define SEGMENT_PAGES 64
/* What a copy may take, with its record: three quarters of a page, or keeping the page itself were better. */
#define COPY_BYTES_MAX 3072
#define DISTANCE_CODES 64 /* shadow.h */
/* What a read of one page is taken to cost until one has been seen. */
#define COPY_DISK_NS 80000

typedef struct uswap_pool uswap_pool;
struct context;

/* Where the copies of an area's slots lie: segment and place in it, 0: nowhere. */
typedef struct {
    uint64_t *locations; /* c: [slots], lazily touched; NULL: no copy so far */
    _Atomic uint8_t *touched;
    uint64_t slots;
} copy_index;

/* What the decision is made from (size.c): of late, each half as much as a decision ago. */
typedef struct {
    _Atomic uint64_t wanted[DISTANCE_CODES]; /* pages that a fault waited for, by how long ago they had left */
    _Atomic uint64_t offered, tried, kept, kept_bytes;
    _Atomic uint64_t disk_ns; /* what a page read alone costs, per page where several are read at once */
    small_lock deciding;
    uint64_t clock, rescues; /* d: when it was last decided */
} copy_demand;               /* d: under deciding */

typedef struct {
    bool on;
    small_lock lock;
    unsigned char *log;    /* addresses for places segments; segment n lies at place n % places */
    uint64_t places;       /* a power of two */
    uint64_t oldest, next; /* c: segments [oldest, next) have memory; from 1 on, never twice the same */
    uint32_t filled;       /* c: bytes of the youngest */
    uint64_t live;         /* c: bytes of copies that the index names */
    copy_index index[SWAP_AREAS_MAX];
    _Atomic uint64_t held;   /* w: c: frames, counted: of the segments */
    _Atomic uint64_t target; /* frames they are to have, by what was decided last */
    copy_demand demand;
} compressed_copies; /* c: under lock */

/* Return: 0 or -errno; -ENOSYS: built without LZ4. Copies are kept if the pool's options say so. */
int compressed_init(uswap_pool *pool);
void compressed_fini(uswap_pool *pool);

/* ---- pages that leave, and come back (copies.c) ---- */

/* The page's contents, which are those of the slot, are about to leave memory. Context: the slot cannot be given up meanwhile (the page is locked, or the
 * slot WRITING); page locks are allowed. */
void compressed_keep(struct context *ctx, swap_entry entry, const void *memory);
/* The same of a sealed page, where it is mapped. */
void compressed_keep_mapped(struct context *ctx, swap_entry entry, unsigned char *address);
/* Whether there is a copy of what the slot holds. */
bool compressed_has(uswap_pool *pool, swap_entry entry);
/* Fills the memory of a read from copies. Return: false: not all its pages have one. */
bool compressed_read(struct context *ctx, const io_request *request);

/* ---- the log (log.c) ---- */

typedef enum {
    COPY_NONE,
    COPY_OLD, /* among the older half: it is going to be lost soon */
    COPY_YOUNG
} copy_age;

/* Its copy of these very contents, compressed. to: [COPY_BYTES_MAX], or NULL: only whether there is one. *bytes: how many. */
copy_age copy_log_find(uswap_pool *pool, swap_entry entry, void *to, uint32_t *bytes);
/* Appends a copy; older ones go to make room. Nothing happens without frames for any. */
void copy_log_add(uswap_pool *pool, swap_entry entry, const void *copy, uint32_t bytes);
/* Gives up the oldest segments, to get so many frames free. Return: how many. Context: any locks above the log's. */
uint64_t compressed_give(uswap_pool *pool, uint64_t frames);
/* The same, while they have more than compressed_most. */
uint64_t compressed_fit(uswap_pool *pool);
/* No slot of the area is in use any more, and it is about to be closed: its index goes, and with it all copies (areas go rarely). */
void compressed_forget_area(uswap_pool *pool, uint32_t area);

/* ---- how much memory (size.c) ---- */

/* The most frames that the limit leaves to copies now. */
uint64_t compressed_most(uswap_pool *pool);
/* Frames that they are to have, as far as there are so many: as was decided, or as the pool's options say. */
uint64_t compressed_target(const uswap_pool *pool);
/* A page could be kept. Return: whether it is worth while to try: always while there is to be memory for copies, else now and then, to know what it would
 * be like. */
bool compressed_offered(uswap_pool *pool);
/* What came of it; bytes: with its record, 0: too many. */
void compressed_tried(uswap_pool *pool, uint32_t bytes);
/* A fault waits for a page that left so long ago (a code of shadow.h). */
void compressed_note_wanted(uswap_pool *pool, unsigned distance_code);
/* A page has been read alone: so long it took. */
void compressed_note_disk(uswap_pool *pool, uint64_t ns);

static inline uint64_t compressed_frames(const compressed_copies *copies) {
    return atomic_load_explicit(&copies->held, memory_order_relaxed);
}

#endif
