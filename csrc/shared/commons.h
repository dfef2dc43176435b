/*
 * commons.h - the memory that all members of a group share: layout, and the words that say whose what is.
 *
 * A group is the processes of one named pool; each of them is a member. What lies here are offsets and ids, never pointers.
 * Every word changes by one atomic step, and says by itself whose unfinished business it is: so a member may be killed, or stopped,
 * between any two steps, and what it left behind can be told from what it is still doing (README, Processes of one pool).
 */
#ifndef USWAP_SHARED_COMMONS_H
#define USWAP_SHARED_COMMONS_H

#include "base/base.h"
#include "base/lock.h"

#include <sys/types.h>

#define COMMONS_MAGIC UINT64_C(0x316d6f632d707775) /* "uwp-com1" */
#define MEMBERS_MAX 64
#define OBJECTS_MAX 1024
#define OBJECT_NAME_BYTES 64
/* The limit is handed out in chunks: at least so many frames each, and at most so many chunks. */
#define CHUNK_FRAMES_LEAST 64
#define CHUNKS_MAX 16384
/* Slots that are claimed, and written, together. */
#define COMMONS_CLUSTER_SLOTS UINT64_C(256)
/* Ranges of shared pages that one member may hold in memory at a time (lock, resident). */
#define HOLDS_MAX 64

/* A member, for as long as it lives: index in the table (6 bits), and how often that place has been taken (10 bits, 1 to 1022). Never 0.
 * Index 63 is nobody's: its bit in object_entry.mappers says something else. */
typedef struct {
    uint16_t value;
} member_id;

#define MEMBER_NONE ((member_id){0})

static inline unsigned member_index(member_id id) {
    return id.value & (MEMBERS_MAX - 1);
}

static inline bool member_equal(member_id a, member_id b) {
    return a.value == b.value;
}

/* MEMBER_DEAD: it is being cleaned up after; whoever finishes makes the place free. */
typedef enum { MEMBER_FREE = 0, MEMBER_JOINING = 1, MEMBER_LIVE = 2, MEMBER_LEAVING = 3, MEMBER_DEAD = 4 } member_state;

/* In the place of a pid: the place is for a forked child that has not claimed it yet (README, Fork). The rest is the id of its parent. No pid is
 * that high. */
#define MEMBER_UNCLAIMED (UINT32_C(1) << 31)

/* Pages of an object that a member wants in memory. count 0: free. Written by that member alone: first the others, then count. */
typedef struct {
    _Atomic uint64_t first;
    _Atomic uint64_t count;
    _Atomic uint32_t object; /* index */
    uint32_t reserved;
} member_hold;

/* Pages that a member's share thread is at (shared_at_work.c). count 0: none. Written by that thread alone: first the others, then count. */
typedef struct {
    _Atomic uint64_t object; /* index */
    _Atomic uint64_t first;
    _Atomic uint64_t count;
} member_at_work;

/* Threads of a member that open or end objects at once; others wait for one of them. */
#define OBJECT_VISITS 4

/* What the member's thread that evicts, or discards, asks the kernel to punch (shared_punch.c): the argument of that call itself, in the kernel's layout (struct space_resv). */
typedef struct {
    int16_t type;
    _Atomic int16_t whence; /* PUNCH_ORDERED, PUNCH_TAKEN_BACK, PUNCH_AT_ONCE */
    int64_t start, bytes;
    int32_t system;
    uint32_t pid;
    int32_t reserved[4];
} punch_argument;

typedef struct {
    punch_argument argument;
    _Atomic uint64_t object; /* index */
    _Atomic uint64_t first;
    _Atomic uint64_t count; /* pages that it was for; 0: they are seen to */
    _Atomic uint64_t slot; /* + 1: of a page that is being discarded; if its word names it no more, nothing else does */
} member_order;

typedef struct {
    _Atomic uint64_t state; /* member_state | id << 8 | pid << 32: one word, so that a change is of one life */
    _Atomic uint64_t
        repairers; /* a bit a member index that is mending what this one left: the place is not free before they have ended */
    _Atomic uint32_t pid;
    _Atomic uint32_t has_life_lock;  /* 1: as long as its program is there (life_lock.h) */
    _Atomic uint64_t start_time;     /* with pid: identity (jiffies since boot) */
    _Atomic uint64_t private_frames; /* used now; for the others to see */
    _Atomic uint64_t floor_chunks; /* what it needs to go on: by the limit when it joined, and what it was made with */
    _Atomic uint64_t granted_chunks; /* what it thinks it has: a hint, the chunk words are the truth */
    _Atomic uint64_t near_refaults;  /* pages it had to read back that more memory would have kept; counts up */
    _Atomic uint64_t starved;        /* chunks that it lacks now */
    _Atomic uint64_t beat_ns;        /* when its own thread last looked around; a stopped one does not */
    _Atomic uint64_t protects;   /* odd: it may be write-protecting pages that others have taken back (README, Held) */
    _Atomic uint64_t at_peers;   /* so many of its threads may be about to change something at addresses of others */
    _Atomic uint32_t holds;      /* of hold[], in use: 0: evictors need not look */
    _Atomic uint32_t out_thread; /* the one whose order it is, or was the last to be: its number for the kernel */
    _Atomic uint64_t evicts_ns;  /* when it last began to evict some; 0: it has ended. A hint */
    member_at_work at_work;
    _Atomic uint32_t visits
        [OBJECT_VISITS]; /* index + 1 of places of objects whose object stays the one that is there; 0: none (object_place.c) */
    member_order order;
    member_hold hold[HOLDS_MAX];
} member_entry;

static inline member_state member_state_of(uint64_t state) {
    return (member_state)(state & 0xFF);
}

static inline member_id member_id_of(uint64_t state) {
    return (member_id){(uint16_t)(state >> 8)};
}

static inline uint32_t member_pid_of(uint64_t state) {
    return (uint32_t)(state >> 32);
}

/* ---- chunks of the limit ---- */

/* Whose frames a chunk allows for (a chunk word): nobody's, a member's private ones, or shared ones (frame_table.h). */
#define CHUNK_FREE UINT32_C(0)
#define CHUNK_SHARED UINT32_C(0xFFFF)
/* Shared, and being emptied by the member whose id is in the low 16 bits. */
#define CHUNK_DRAINING UINT32_C(0x10000)

/* ---- shared frames: a word says whose, and where the page is ---- */

/* use word of a frame or slot: kind (3 bits) | member id of a CLAIMED, LEAVING or GOING one << 8 | field << 24 (40 bits). */
typedef enum {
    USE_FREE = 0,
    USE_RETIRED =
        1, /* frames: of a chunk that is not shared now; field: which emptying it was; slots: it is bad, or never used */
    USE_CLAIMED = 2, /* a member has taken it, no page has it yet */
    USE_PAGE = 3,    /* page says of which */
    USE_LEAVING = 4, /* the member is taking it from its page */
    USE_GOING = 5    /* frames: the member is about to evict its page, or has: the page's word tells */
} use_kind;

#define USE_MEMBER_SHIFT 8
#define USE_FIELD_SHIFT 24

static inline use_kind use_kind_of(uint64_t use) {
    return (use_kind)(use & 7);
}

static inline member_id use_member_of(uint64_t use) {
    return (member_id){(uint16_t)(use >> USE_MEMBER_SHIFT)};
}

static inline uint64_t use_field_of(uint64_t use) {
    return use >> USE_FIELD_SHIFT;
}

static inline uint64_t use_make(use_kind kind, member_id member, uint64_t field) {
    return (uint64_t)kind | (uint64_t)member.value << USE_MEMBER_SHIFT | field << USE_FIELD_SHIFT;
}

/* Page of an object in one word: page 36 bits, object's generation 12 (never 0), its index 16. 0: none. */
typedef struct {
    uint64_t value;
} shared_ref;

#define OBJECT_GENERATION_MASK UINT32_C(0xFFF)

static inline shared_ref shared_ref_make(uint32_t index, uint32_t generation, uint64_t page) {
    return (shared_ref){(uint64_t)index | (uint64_t)generation << 16 | page << 28};
}

static inline uint32_t shared_ref_index(shared_ref ref) {
    return (uint32_t)(ref.value & 0xFFFF);
}

static inline uint32_t shared_ref_generation(shared_ref ref) {
    return (uint32_t)(ref.value >> 16) & OBJECT_GENERATION_MASK;
}

static inline uint64_t shared_ref_page(shared_ref ref) {
    return ref.value >> 28;
}

typedef struct {
    _Atomic uint64_t use; /* field: the slot that the page in this frame keeps, or is read from, plus 1; 0: none */
    _Atomic uint64_t
        page; /* a shared_ref; good with USE_PAGE, USE_LEAVING and USE_GOING, and with USE_CLAIMED from before any word names the frame */
} shared_frame;

typedef struct {
    _Atomic uint64_t
        use; /* field: the clock of the eviction by which its page lost its frame, from 1 on: no two have the same; 0: none */
    _Atomic uint64_t page; /* as above: the reverse map */
    uint8_t hash[16];      /* of the contents; before USE_PAGE */
} shared_slot;

/* ---- objects ---- */

typedef enum { OBJECT_FREE = 0, OBJECT_MAKING = 1, OBJECT_LIVE = 2, OBJECT_DYING = 3 } object_state;

typedef struct {
    _Atomic uint64_t state;   /* object_state | generation << 8 | member id << 32 of who is making it (MAKING only) */
    _Atomic uint32_t creator; /* member id */
    _Atomic uint32_t written_score; /* whether its pages are written after they come in: a hint (shared_seal.c) */
    _Atomic uint64_t size;          /* pages | how often they have changed << OBJECT_SIZE_SHIFT */
    _Atomic uint64_t resize;        /* who is changing that (README, An object's size); 0: nobody */
    _Atomic uint64_t reserve;       /* pages whose addresses each mapper keeps, if he can, for it to grow into */
    _Atomic uint64_t words;         /* offset of its page words ... */
    _Atomic uint64_t words_bytes;   /* ... and the size of that allotment, which the place keeps for the next object */
    _Atomic uint64_t
        mappers; /* a bit a member index that has it mapped and registered; or MAPPERS_CLOSED: nobody gets in any more */
    _Atomic uint64_t epoch; /* how often mappers has changed */
    /* Where each mapper has it, by member index: good while its bit in mappers is set. */
    _Atomic uint64_t base[MEMBERS_MAX];
    _Atomic uint64_t mapped[MEMBERS_MAX]; /* how many of its pages, from the first on */
    _Atomic uint64_t faults;              /* since it was made */
    _Atomic int64_t priority;
    _Atomic uint64_t creator_region; /* the region's id in the creator: Pool.attach_region */
    char name[OBJECT_NAME_BYTES];    /* "": none */
} object_entry;

/* Set by compare-and-swap from 0, or from the last one's bit: the object ends. Whoever makes the next one in that place takes it off, in MAKING. A mapper sets
 * its bit by compare-and-swap from a value without it. */
#define MAPPERS_CLOSED (UINT64_C(1) << 63)

#define OBJECT_SIZE_SHIFT 36
#define OBJECT_PAGES_MASK ((UINT64_C(1) << OBJECT_SIZE_SHIFT) - 1)

/* A resize word: kind (8 bits) | id of the member << 8 | pages wanted << 24. CUTTING: whoever comes after him goes on with it. */
typedef enum { RESIZE_NOT = 0, RESIZE_SAID = 1, RESIZE_CUTTING = 2 } resize_kind;

static inline uint64_t object_size_pages(uint64_t size) {
    return size & OBJECT_PAGES_MASK;
}

static inline uint64_t object_pages(const object_entry *object) {
    return object_size_pages(atomic_load(&object->size));
}

static inline resize_kind resize_kind_of(uint64_t resize) {
    return (resize_kind)(resize & 0xFF);
}

static inline member_id resize_member_of(uint64_t resize) {
    return (member_id){(uint16_t)(resize >> 8)};
}

static inline uint64_t resize_pages_of(uint64_t resize) {
    return resize >> 24;
}

static inline uint64_t resize_make(resize_kind kind, member_id member, uint64_t pages) {
    return (uint64_t)kind | (uint64_t)member.value << 8 | pages << 24;
}

static inline object_state object_state_of(uint64_t state) {
    return (object_state)(state & 0xFF);
}

static inline uint32_t object_generation_of(uint64_t state) {
    return (uint32_t)(state >> 8) & OBJECT_GENERATION_MASK;
}

static inline member_id object_maker_of(uint64_t state) {
    return (member_id){(uint16_t)(state >> 32)};
}

static inline uint64_t object_state_make(object_state state, uint32_t generation, member_id maker) {
    return (uint64_t)state | (uint64_t)(generation & OBJECT_GENERATION_MASK) << 8 | (uint64_t)maker.value << 32;
}

typedef struct {
    uint64_t magic;
    uint64_t layout; /* sizes of these structures: an incompatible build is refused */
    uint64_t hash_seed;
    uint64_t chunk_frames;
    uint64_t chunks;    /* words in use: enough for the largest limit there can be */
    uint64_t frames;    /* chunks * chunk_frames: entries of the frame table */
    uint64_t slots_max; /* entries of the slot table */
    uint64_t chunks_at; /* offsets */
    uint64_t frames_at;
    uint64_t slots_at;
    uint64_t hints_at;    /* for each chunk: whether it has free frames */
    uint64_t clusters_at; /* for each cluster of slots: how many are taken */
    uint64_t swap_device, swap_inode;
    _Atomic uint64_t limit_bytes; /* as asked for */
    _Atomic uint64_t
        agreed_bytes; /* the last limit that all have kept to: what it goes back to if they cannot keep to another one */
    _Atomic uint64_t usable_slots; /* there is disk for them */
    _Atomic uint64_t drains;       /* how often a chunk has begun to be emptied */
    _Atomic uint64_t end_bytes;    /* first free offset */
    _Atomic uint64_t frame_next;   /* where the next search for a free frame begins: a hint */
    _Atomic uint64_t slot_next;    /* where the next search for free slots begins: a hint */
    _Atomic uint64_t hand;         /* the next frame to be looked at by who evicts: the order of all shared pages */
    /* Shared frames that are not free: a hint, counted anew now and then (shared_hand.c). It lags behind: read it by shared_used_frames, and
     * take no more of it than there is in shared chunks. Above its lowest SHARED_USED_BITS: how often it was put right. */
    _Atomic uint64_t shared_used;
    /* A bit a member index that has, or had, pages held: evictors look at those alone. A dead member's bit stays, until the next in its place takes it
     * off: it costs a look. */
    _Atomic uint64_t holders;
    _Atomic uint64_t eviction_clock;
    _Atomic int64_t priority_least; /* of all objects: a hint (shared_heat.c) */
    _Atomic uint64_t shared_near_refaults;
    _Atomic uint64_t shared_starved;
    _Atomic uint64_t pages_read, pages_written, faults, soft_faults, evictions, clean_drops, zero_drops,
        mapped_for_peers;
    event chunks_given;   /* chunks have come free, or what a dead member had */
    event pages_unlocked; /* pages that somebody waited for */
    member_entry members[MEMBERS_MAX];
    object_entry objects[OBJECTS_MAX];
} commons_header;

typedef struct {
    int fd;
    unsigned char *base;
    size_t bytes;
    dev_t device; /* of the file */
    ino_t inode;
} commons;

static inline commons_header *commons_head(const commons *c) {
    return (commons_header *)(void *)c->base;
}

/* Chunks from this one on must not be used. */
static inline uint64_t commons_limit_chunks(const commons *c) {
    const commons_header *head = commons_head(c);
    uint64_t frames = atomic_load_explicit(&head->limit_bytes, memory_order_relaxed) >> PAGE_SHIFT;
    return MIN_OF(head->chunks, frames / head->chunk_frames);
}

/* 2 PiB of frames, either way. */
#define SHARED_USED_BITS 40
#define SHARED_USED_ROUND (UINT64_C(1) << SHARED_USED_BITS)

static inline int64_t shared_used_of(uint64_t word) {
    int64_t low = (int64_t)(word & (SHARED_USED_ROUND - 1)), round = (int64_t)SHARED_USED_ROUND;
    return low < round / 2 ? low : low - round;
}

/* At least 0: of a frame that was given back and claimed anew the one may be counted before the other, and not at all by who dies. */
static inline uint64_t shared_used_frames(const commons *c) {
    int64_t used = shared_used_of(atomic_load(&commons_head(c)->shared_used));
    return used > 0 ? (uint64_t)used : 0;
}

static inline void *commons_at(const commons *c, uint64_t offset) {
    return c->base + offset;
}

static inline _Atomic uint32_t *commons_chunks(const commons *c) {
    return commons_at(c, commons_head(c)->chunks_at);
}

static inline shared_frame *commons_frames(const commons *c) {
    return commons_at(c, commons_head(c)->frames_at);
}

static inline _Atomic uint32_t *commons_hints(const commons *c) {
    return commons_at(c, commons_head(c)->hints_at);
}

static inline _Atomic uint32_t *commons_clusters(const commons *c) {
    return commons_at(c, commons_head(c)->clusters_at);
}

static inline shared_slot *commons_slots(const commons *c) {
    return commons_at(c, commons_head(c)->slots_at);
}

/* Address space only, lazily touched. limit_bytes: of the pool. Return: 0 or -errno. */
int commons_create(commons *c, uint64_t limit_bytes);
/* Maps what another member has made. Return: 0, -errno, or -EPROTO: it is of an incompatible build, or none at all. Takes the descriptor,
 * also if it fails. */
int commons_attach(commons *c, int fd);
void commons_detach(commons *c);
/* Whether fd is of the commons' file. */
bool commons_is(const commons *c, int fd);
/* Zeroed bytes. Lock-free; any member. Return: offset, or -ENOMEM. */
int64_t commons_allot(commons *c, size_t bytes);
/* Their memory goes back to the kernel: zeroes from here on. */
void commons_empty(commons *c, uint64_t offset, uint64_t bytes);
/* The next bytes within [from, end) that have been touched: all others are zero, and looking at them would touch them. false: none. */
bool commons_touched(const commons *c, uint64_t from, uint64_t end, uint64_t *first, uint64_t *last);

#endif
