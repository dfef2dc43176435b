/*
 * shared_core.h - what the files that serve and evict shared pages have in common.
 *
 * Contents go into an object's file, and out of it, by pwrite and pread between the file and bounce frames: a read of the disk is checked
 * before anybody can map it, what is written is what was hashed whatever becomes of the page meanwhile, and nobody ever touches a hole
 * through a mapping that is not watched (K18). The disk sees memory in one piece.
 */
#ifndef USWAP_SHARED_SHARED_CORE_H
#define USWAP_SHARED_SHARED_CORE_H

#include "base/awake.h"
#include "base/lock.h"
#include "shared/group.h"

static inline shared_ref region_ref(const shared_region *r, uint64_t page) {
    return shared_ref_make(r->object, r->generation, page);
}

static inline unsigned char *shared_address(const shared_region *r, size_t page) {
    return r->base + (page << PAGE_SHIFT);
}

/* ---- announcements (shared_at_work.c). Context: share thread ---- */

/* These pages are what we are at: what is seen in memory after this does not leave, and is not discarded, until the end. */
void at_work_begin(group *g, const shared_region *r, size_t page, size_t pages);
void at_work_end(group *g);
/* Whether anybody is at that page. Any thread; after a change of its word, and a fence. */
bool at_work_on(const group *g, uint32_t object, uint64_t page);

/* ---- what is in the hand of a member that seems to be stopped (shared_stopped.c) ---- */

bool shared_seems_stopped(const group *g, member_id id);
/* READING by such a one => SWAPPED, or ZERO. What he still reads goes to his own bounce frame, and he finds out. Wakes. Return: false: it is not. */
bool shared_break_read(group *g, shared_region *r, uint64_t page, shared_word *word);
/* LEAVING by a member whose thread is stopped, and its order is taken back => SWAPPED or ZERO. Wakes. Return: false: it is not so, or that cannot be known. */
bool shared_break_leave(group *g, shared_region *r, size_t page);
typedef enum {
    STOPPED_NOT,   /* he is at work, or nothing can be done without him */
    STOPPED_ENDED, /* the word has changed: look again */
    STOPPED_SHOWN  /* the page is mapped here, write-protected */
} stopped_result;
stopped_result shared_go_past(group *g, shared_region *r, size_t page);

/* ---- mapping: what is done to page-table entries, here and in the peers (shared_map.c) ---- */

/* Partial results of one call; the kernel's EAGAIN without progress passes by itself. */
#define SHARED_TRIES 64

/* The mappers of an object as somebody saw them. */
typedef struct {
    uint64_t epoch;
    uint32_t count;
    bool unknown; /* of some there is no descriptor: nothing can be said of their entries */
    struct {
        int uffd;
        unsigned index;
        uint64_t base, pages; /* its view */
    } of[MEMBERS_MAX];
} mapper_set;

/* Around a look, and what is done by it: the addresses stay the mappers' meanwhile. */
static inline void mappers_begin(group *g) {
    atomic_fetch_add(&group_entry(g, g->self)->at_peers, 1);
}
static inline void mappers_end(group *g) {
    atomic_fetch_sub(&group_entry(g, g->self)->at_peers, 1);
}
void mappers_look(group *g, uint32_t object, mapper_set *set);
/* Whether everybody who had begun before now has ended: waits for a moment. */
bool mappers_await_ended(group *g);
/* => stores to the pages fault in every mapper. Return: false: not in all of them. */
bool mappers_protect(group *g, const mapper_set *set, size_t page, size_t pages);
/* How pages are mapped. */
typedef struct {
    bool sealed; /* write-protected, as they all are SEALED; else with the protection off */
    bool around; /* those behind the first only as far as they are not mapped */
} map_how;

/* Maps pages here, from the first on; wakes. Context: announced, then seen RESIDENT (README). Return: how many are known to be mapped, and may be stored to if they
 * are not to be sealed; 0 with sealed and around: the first one was mapped already. */
size_t shared_map_here(group *g, shared_region *r, size_t page, size_t pages, map_how how);
/* The same in all other mappers, as far as it goes. */
void shared_map_peers(group *g, shared_region *r, size_t page, size_t pages, bool sealed);
/* Makes the file's pages of these contents, but those that it has already, and maps them here write-protected, in one step: 1.64 us a page where pwrite and CONTINUE
 * take 1.89. Wakes nobody. Context: announced, then seen READING by us. Return: how many, from the first on. */
size_t shared_copy_here(group *g, shared_region *r, size_t page, size_t pages, const void *contents);
/* Takes them out of this process's page table again; a touch faults. */
void shared_unmap_here(shared_region *r, size_t page, size_t pages);
/* Takes the write-protection off here, and wakes. Context: announced, then seen RESIDENT and not SEALED. */
void shared_allow_stores(group *g, shared_region *r, size_t page, size_t pages);
/* A touch raises SIGBUS here. Context: locked by us, POISONED. */
void shared_poison(group *g, shared_region *r, size_t page);
/* The marks of the poison outlast a punched hole: a page of zeroes is mapped over them in all mappers, for the caller to punch. Context: locked
 * by us. */
void shared_unpoison(group *g, uint32_t object, int fd, size_t page);

/* ---- views (shared_resize.c) ---- */

/* The addresses of a view that is unmapped, and those that were one's, come free; if somebody may be about to do something there, later. Context: nobody
 * refers to the region any more, and its member is no mapper. */
void shared_view_free(group *g, shared_region *r);
/* All that are left. Context: the group is left. */
void shared_views_free(group *g);

/* ---- heat (shared_heat.c) ---- */

#define HEAT_ROUNDS_MAX 15U

/* Of a page that is touched for the first time, in this frame (bits for shared_set). */
uint64_t heat_of_first_touch(group *g, const shared_region *r, uint32_t frame);
/* Of a page that has come back into memory from this slot, whose word is this. */
uint64_t heat_of_return(group *g, const shared_region *r, uint64_t word, uint64_t slot);
/* Looks which priorities there are. */
void heat_look_at_priorities(group *g);
/* The hand has passed the page over once. */
static inline uint64_t heat_passed(uint64_t word) {
    return (word & SHARED_HEAT_MASK) - (UINT64_C(1) << SHARED_ROUNDS_SHIFT);
}
/* What a page keeps that goes, or is on its way out or in. */
static inline uint64_t heat_kept(uint64_t word) {
    return word & SHARED_LEVEL_MASK;
}

/* ---- sealed pages (shared_seal.c) ---- */

bool shared_seal_works(int uffd);
/* Whether what is read now is to be sealed. Context: share thread. */
bool shared_seal_wanted(group *g, shared_region *r);
/* So many sealed pages have gone as they were. */
void shared_seal_dropped(group *g, const shared_region *r, uint32_t pages);
/* Stores may go on here, and fault once more in the other mappers. Context: announced. Return: how many pages from the first on, up to one that is not RESIDENT, or
 * locked. */
size_t shared_unseal(group *g, shared_region *r, size_t page, size_t pages);

/* ---- frames, slots: the order of steps that repair relies on (shared_pages.c) ---- */

/* Claims; counts what is used. The eviction thread is woken when few are left. */
uint32_t frames_claim(group *g, uint32_t want, uint32_t *frames);
void frames_release(group *g, uint32_t frame);
/* When its page lost its frame, from 1 on; 0: not known. */
uint64_t slot_eviction(group *g, uint64_t slot);
void shared_hash(group *g, const void *memory, uint8_t hash[16]);
bool shared_is_held(group *g, uint32_t object, uint64_t page);
/* Any of these pages. */
bool shared_range_is_held(group *g, uint32_t object, uint64_t page, uint64_t pages);
/* Throws the page's contents away, whatever they are. Context: locked by us, and not READING. */
void shared_discard_page(group *g, uint32_t object, int fd, uint64_t page, shared_word *word);
/* The same, if the object is in that state (so that it is the same object still). Return: false: it is not, or somebody has the page locked, is
 * reading it, is at it, or holds it. *waiters: wake. */
bool shared_try_discard(group *g, const object_entry *object, uint64_t state, int fd, uint64_t page, bool *waiters);
/* Ends a read, or a first touch, that brings nothing: the frame is free, the page is that, unlocked; wakes. Context: READING, locked by us. */
void shared_give_up_read(group *g, shared_region *r, size_t page, uint32_t frame, shared_state state, uint64_t field,
                         uint64_t bits);
/* We were to bring the page in, and somebody has broken that off: what has come into the file late nobody counts, if the page is out. */
void shared_drop_late(group *g, shared_region *r, size_t page);

/* ---- holes (shared_punch.c) ---- */

/* Punches a hole in an object's file. */
void shared_punch(int fd, uint64_t page, uint64_t pages);
/* The order to punch these pages, as long as nobody takes it back. Context: this and the next three: leave_lock held. */
void punch_order(group *g, uint32_t object, uint64_t page, uint64_t pages);
/* Only the first ones of them. */
void punch_order_shorten(group *g, uint64_t pages);
/* Return: false: it was taken back; nothing is punched. */
bool punch_ordered(group *g, int fd);
/* What it was for is seen to. */
void punch_order_end(group *g);
/* The slot that our order names, if nothing else does, is free. Return: false: its page was in somebody's hand; it stays named until the next time. Context: leave_lock held, or
 * no other thread discards. (shared_discard.c) */
bool shared_free_named(group *g);
/* Beside it, the slot + 1 of a page that is about to lose it; 0: none. Context: leave_lock held. */
void punch_order_names(group *g, uint64_t slot_plus_1);
/* The member's order is not there for a call that begins after this. Context: its thread is stopped. Return: false: it has none that can be taken back. */
bool punch_take_back(group *g, member_id member);

/* ---- bounce frames ---- */

/* Reads of the share thread: so many pieces of memory for a window, and for single pages. */
#define IN_UNIT_PAGES 64U
#define IN_UNITS 32U
#define IN_SINGLES 64U
_Static_assert(SHARED_TRIES >= IN_UNIT_PAGES, "as many pages of a read as may be there already");

typedef struct {
    bool busy;
    uint32_t pages;
    uint64_t first_slot;
    shared_region *r; /* referenced */
    size_t page[IN_UNIT_PAGES];
    uint32_t frame[IN_UNIT_PAGES];
    bool single;                 /* has memory for one page */
    bool alone;                  /* does not grow: sent at once */
    bool markers[IN_UNIT_PAGES]; /* is not to be mapped here */
    unsigned char *memory;
} read_unit;

typedef struct {
    shared_region *r; /* referenced */
    size_t page;
    uint64_t since_ns;
} shared_parked;

#define SHARED_PARKED_MAX 4096
#define SHARED_ORDERS 256

/* Pages that an API call wants in memory. */
typedef struct {
    uint32_t object;
    bool map;    /* they are to be mapped here, for any access */
    bool missed; /* some were not there, or in others' hands */
    uint64_t page, pages;
} shared_order;

/* The share thread's own. */
typedef struct {
    unsigned char *memory; /* of the units */
    size_t memory_bytes;
    uint32_t units; /* in use of IN_UNITS: fewer where memory is short */
    read_unit unit[IN_UNITS + IN_SINGLES];
    shared_region *
        rest_of; /* a window was cut, because all memory was in use: what is left of it is read as that comes free. NULL: none */
    read_ahead_plan rest;
    bool in_pieces;                 /* a wide window is being read: not page by page, where units are short */
    read_unit *growing;             /* read that may still grow */
    uint8_t unit_of[IO_REQUESTS];   /* by request */
    uint32_t frames[IN_UNIT_PAGES]; /* claimed ahead */
    uint32_t frames_left;
    shared_parked *parked;
    uint32_t parked_first, parked_count;
    small_lock orders_lock;
    shared_order orders[SHARED_ORDERS];
    uint32_t orders_first;
    _Atomic uint32_t orders_count;
    _Atomic uint64_t orders_ended;  /* so many have been followed ... */
    _Atomic uint64_t orders_missed; /* ... the last of them that missed pages: its number, from 1 on */
    event progress;                 /* pages have come in */
    /* By the eviction thread, now and then: how many frames are for shared pages, and how many of them are to be free. */
    _Atomic uint64_t frames_total, frames_low;
    _Atomic uint64_t cut_ns; /* when a window was last cut for want of frames */
    bool waits;              /* some region has waiting_ns */
    _Atomic uint32_t wants_frames;
    awake_record record;
    bool started;
} share_state;

static inline share_state *share_of(group *g) {
    return g->share_state;
}

/* SHOWN: mapped for loads, of a page that somebody has who is stopped; AGAIN: in a moment, when something has ended; LOST: the word has changed: look again. */
typedef enum { SHARED_DONE, SHARED_SHOWN, SHARED_WAITS, SHARED_NO_FRAME, SHARED_AGAIN, SHARED_LOST } shared_result;

/* Answers one fault by the page's word. WAITS: who waits is woken when somebody unlocks. (shared_fault.c) */
shared_result shared_fault(group *g, shared_region *r, size_t page);

/* Starts the read of a page that was seen SWAPPED, and of what is wanted next. (shared_in.c) */
shared_result shared_in_start(group *g, shared_region *r, size_t page);
/* Asks for what is wanted next, after a fault on a page that is in memory, or is being read. */
void shared_in_ahead(group *g, shared_region *r, read_ahead_seen fault);
/* Reads what of the range is out, as far as it goes without a wait. Return: pages looked at. */
size_t shared_in_range(group *g, shared_region *r, size_t page, size_t pages);
void shared_in_send(group *g);
/* The device has brought what the unit asked for (whole: all of it): each page comes in, or is lost. (shared_in_end.c) */
void shared_in_end(group *g, const read_unit *unit, bool whole);
/* Ends one read that has ended. Return: false: there was none. */
bool shared_in_complete(group *g, bool wait);
void shared_in_give_back_frames(group *g);

/* ---- going out (shared_hand.c, shared_out.c) ---- */

#define OUT_BATCH 512U
#define OUT_BOUNCE 256U
#define OUT_BATCHES 4U
#define OUT_BATCH_LEAST 64U /* the hand goes on by as many frames at once */

/* Pages that leave together: by one order. They are LEAVING while their holes are punched: who wants one waits for that. */
static inline uint32_t shared_out_together(uint64_t limit_frames) {
    return (uint32_t)MIN_OF(MAX_OF(limit_frames / 64, (uint64_t)OUT_BATCH_LEAST), (uint64_t)OUT_BATCH);
}

/* Every member has bounce frames, whether it is at work or not, so they are few where the limit of all is small. */
static inline uint32_t shared_out_batch_pages(uint64_t limit_frames) {
    return (uint32_t)MIN_OF(MAX_OF(limit_frames / 256, (uint64_t)OUT_BATCH_LEAST), (uint64_t)OUT_BOUNCE);
}

static inline uint32_t shared_out_batches(uint64_t limit_frames) {
    return (uint32_t)MIN_OF(MAX_OF(limit_frames / 8192, UINT64_C(1)), (uint64_t)OUT_BATCHES);
}

static inline uint32_t shared_in_units(uint64_t limit_frames) {
    return (uint32_t)MIN_OF(MAX_OF(limit_frames / 4096, UINT64_C(2)), (uint64_t)IN_UNITS);
}

static inline uint64_t shared_bounce_frames(uint64_t limit_frames) {
    return (uint64_t)shared_out_batches(limit_frames) * shared_out_batch_pages(limit_frames) +
           (uint64_t)shared_in_units(limit_frames) * IN_UNIT_PAGES + IN_SINGLES;
}

/* SEALED: CLEAN without a look. DISCARDED: as EMPTY, whatever it has. LEFT: it is out. */
typedef enum {
    OUT_GIVEN_UP,
    OUT_CHOSEN,
    OUT_EMPTY,
    OUT_CLEAN,
    OUT_DIRTY,
    OUT_WRITTEN,
    OUT_SEALED,
    OUT_DISCARDED,
    OUT_LEFT
} out_kind;

/* A page that is WRITING by us, if nobody has taken it back. */
typedef struct {
    shared_region *r; /* referenced */
    size_t page;
    uint32_t frame;
    out_kind kind;
    uint32_t bounce;    /* which of the batch's frames has its contents: CHOSEN, EMPTY to WRITTEN */
    uint64_t kept;      /* slot + 1 ... */
    uint64_t kept_seen; /* ... and its use word, when the page was WRITING by us */
    bool stale;         /* the kept slot is LEAVING by us */
    uint64_t slot;      /* that is to have the contents */
    bool claimed;       /* it is CLAIMED by us */
    bool going;         /* the frame is GOING by us */
    bool discarded;     /* its contents are to go, whatever they are: WRITING and LEAVING with SEALED */
    uint64_t epoch;     /* of the object, when the page was write-protected */
    uint8_t hash[16];
} out_page;

typedef struct {
    out_page page[OUT_BATCH];
    uint32_t count, pending; /* requests */
    unsigned char *memory;   /* batch_pages bounce frames */
} out_batch;

typedef struct {
    uint8_t batch;
    uint32_t
        first; /* index of its first page in the batch; the others are those DIRTY ones behind it with the slots that follow */
} out_request;

typedef struct {
    small_lock lock;               /* one evicts at a time */
    uint32_t together;             /* pages a batch, of OUT_BATCH */
    uint32_t batches, batch_pages; /* in use of OUT_BATCHES and OUT_BOUNCE */
    out_batch batch[OUT_BATCHES];
    out_request request[IO_REQUESTS];
    unsigned char *memory;
    uint64_t *under_way; /* a bit a frame: of a page in a batch, even if it was taken back */
    size_t under_way_bytes;
    uint64_t freed;
    uint64_t counted_ns; /* when the used frames were last counted */
    _Atomic uint32_t woken;
    bool starved;        /* we have said so */
    uint64_t pressed_ns; /* when we last had to evict */
    bool started;
} out_state;

/* Where victims are looked for. */
typedef struct {
    uint64_t first, end; /* frames, hot or not; end 0: wherever the hand is */
    uint64_t left;       /* frames that may still be looked at */
    shared_region *r;    /* or these pages of this region, hot or not */
    size_t page, pages;
} out_search;

static inline out_state *out_of(group *g) {
    return g->out_state;
}

/* So that what is discarded is not mistaken for what another thread of the member evicts. */
static inline uint64_t out_bits(const out_page *v) {
    return v->discarded ? SHARED_SEALED : 0;
}

/* The page's word says that it is in our hand, and has not been taken back. */
static inline bool out_is_ours(const group *g, const out_page *v, uint64_t word) {
    return shared_state_of(word) == SHARED_WRITING && !(word & SHARED_LOCK) && (word & SHARED_SEALED) == out_bits(v) &&
           member_equal(shared_member_of(word), g->self) && shared_field_of(word) == v->frame;
}

/* A page that was seen LEAVING has left: SWAPPED, or ZERO. punched: the object's file has nothing of it any more; else its member's order is taken back, and what was to
 * be discarded is zeroed here, under LOCK. Return: false: it is not as it was seen any more. (shared_leave.c) */
bool shared_say_left(group *g, shared_region *r, size_t page, uint64_t seen, bool punched, bool *waiters);
/* Pages that the hand comes to next: WRITING, referenced, in no order; at most so many of them not SEALED. Return: how many. */
uint32_t hand_choose(group *g, out_search *search, out_page *victims, uint32_t want, uint32_t unsealed);
/* Of so many pages, those from the first on that are neighbours. */
uint32_t out_run_of(const out_page *first, uint32_t pages);
/* The slot that the page keeps, as it is while the page is WRITING by us: whoever evicts the page after that makes it another one. */
void out_note_kept_slot(group *g, out_page *v);
/* Pages that are WRITING by us, neighbours beside each other, are write-protected everywhere; those that somebody is at, or holds, are given up. In between
 * nobody may rely on what becomes of the protection of pages (README, Held). (shared_out.c) */
void out_settle(group *g, out_page *page, uint32_t pages);
/* The pages leave, as far as nobody has taken them back; the others are RESIDENT. Context: leave_lock held. (shared_leave.c) */
void shared_pages_leave(group *g, out_page *page, uint32_t pages);
/* All writes of the batch have ended: its pages leave, or stay; the batch is empty. (shared_leave.c) */
void shared_leave(group *g, out_batch *b);
/* Lets go of a page that hand_choose has given. */
void hand_release(group *g, out_page *victim);
/* How many frames are for shared pages, and how many of them are in use; counts if it is time to. */
void hand_count(group *g, uint64_t *total, uint64_t *used);

/* Asks the share thread. Return: the order's number, from 1 on; 0: too many orders. */
uint64_t shared_order_give(group *g, const shared_order *order);
void shared_thread_wake(group *g);
/* Waits until the share thread has ended what it was doing when this was called. Return: false: not until then. */
bool shared_thread_pass(group *g, uint64_t deadline_ns);
/* Frames have come free: parked faults are tried again. */
void shared_frames_freed(group *g);

#endif
