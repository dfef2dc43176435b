/*
 * group.h - what this process has of a group: the commons, its own place in it, the others' descriptors, its mappings of objects.
 *
 * One group a process and pool (pool.group). Its threads: uswap-peer (peers.c: sockets, deaths, chunks), uswap-share (shared_thread.c:
 * faults and reads of shared pages) and uswap-shout (shared_out.c: evictions). None of them holds a lock of the commons while it waits,
 * because there is none.
 */
#ifndef USWAP_SHARED_GROUP_H
#define USWAP_SHARED_GROUP_H

#include "base/lock.h"
#include "io/io.h"
#include "shared/commons.h"
#include "shared/shared_word.h"
#include "shared/soft_runs.h"
#include "swap/read_ahead.h"

#include <pthread.h>

#define GROUP_PATH_BYTES 512 /* of a folder; sockets are reached through its descriptor, so this is no socket's path */

/* What is known of another member; of this process too (its own uffd). Under group.peers_lock; but uffd is only ever replaced when the
 * member has been found dead, id first. Other threads use the descriptor without a lock: that of a dead member is not closed while they
 * may still have its number (it answers ESRCH), but kept open for a good while, as by a list of the last 64. */
typedef struct {
    _Atomic uint32_t id; /* member_id; 0: nobody known there */
    _Atomic int uffd;    /* watches its mappings of objects; -1: not (yet) known */
    int pidfd;
} peer;

/* Addresses that a view has left: nothing is there, and nothing else may be. */
typedef struct former_view {
    struct former_view *next;
    unsigned char *base;
    size_t bytes;
} former_view;

/* This process's mapping of an object. */
typedef struct shared_region {
    _Atomic uint32_t live;       /* 1: served */
    _Atomic uint32_t references; /* threads of the core that use it */
    uint32_t object;             /* index */
    uint32_t generation;
    int fd; /* the object's file */
    /* The view, watched by group.uffd: MISSING, MINOR and WP. Who reads both reads pages first: base of a longer view is there before. */
    unsigned char *_Atomic base;
    _Atomic size_t pages;
    size_t room; /* pages from base on whose addresses are ours, the view's with them; under api_lock, as is: */
    former_view *formers; /* addresses that were a view's */
    shared_word *words;   /* in the commons */
    read_ahead ahead, fresh;
    soft_runs soft; /* the share thread's, as is: */
    uint32_t seal_turn;
    _Atomic uint64_t waiting_ns; /* when a fault was first left to somebody else's unlocking; 0: none */
    _Atomic uint32_t advice;
} shared_region;

/* A child of this process, from its fork on until it is buried. id 0: none. */
typedef struct {
    member_id id;
    member_id in_pool; /* its id in the named pool; 0: none */
    int life_line;     /* readable when its process image is gone */
} family_child;

/* A place for a child that has not claimed it, and whose parent is gone. id 0: none. */
typedef struct {
    member_id id;
    uint64_t seen_ns;
} orphan_place;

/* How the names of objects' files begin: by that a forked child knows those that it is not to keep. */
#define OBJECT_FILE_NAME "uswap-region-"

typedef struct group {
    struct uswap_pool *pool;
    commons commons;
    member_id self;
    void *life_lock; /* NULL: none */
    int uffd;        /* of this process's mappings of objects */
    bool user_mode_only;
    int swap_fd;                   /* shared swap: a file without a name, O_DIRECT */
    uint64_t barrier_slot;         /* of the file: never used, punched to wait for the I/O of the dead */
    char folder[GROUP_PATH_BYTES]; /* of the named pool; for messages only */
    int folder_fd;                 /* checked once; O_PATH */
    small_lock peers_lock;
    peer peers[MEMBERS_MAX];
    small_lock regions_lock;
    small_lock files_lock; /* held while a region's file is noted, taken away, or duplicated */
    small_lock
        leave_lock; /* held while pages of objects leave, and while they are discarded: there is one order for it */
    small_lock
        protect_lock; /* held while pages are write-protected to leave: `protects` tells of one thread. Below leave_lock */
    small_lock
        share_lock; /* held while chunks become shared, or are emptied: their words do not tell which this member does */
    small_lock
        open_lock; /* held by who opens an object by the API: so visits are left for all others. Above api_lock */
    shared_region regions[OBJECTS_MAX]; /* by index of the object */
    _Atomic uint32_t regions_end;       /* none is, or was, at this index or beyond */
    _Atomic uint32_t has_files;         /* descriptors of objects' files are, or were, in this process */
    former_view *formers;               /* of regions that are unmapped; under api_lock */
    bool seals;                         /* what is read can be mapped write-protected */
    bool shows;                         /* so can what the file has of a page, whatever its word says: it is right */
    bool map_for_peers;                 /* what is brought in is mapped in all mappers at once */
    pthread_t peer_thread, share_thread, out_thread;
    _Atomic uint32_t stop;
    int peer_wake_fd, share_wake_fd, out_wake_fd, listen_fd;
    uint64_t sized_bytes; /* the limit that the floor is of, and the bounce frames */
    uint64_t floor_chunks;
    _Atomic uint64_t slots_looked_ns; /* when all clusters were last looked at, because the hints named no free slot */
    io_queue read_io, write_io;
    _Atomic uint64_t bounce_frames;     /* of the two threads; counted */
    void *share_state, *out_state;      /* of shared_thread.c and shared_out.c */
    struct peers_state *peers_state;    /* of peers.c */
    struct tending *tending;            /* of grants_tend.c */
    event tended;                       /* it has looked around */
    _Atomic uint32_t pressed;           /* private frames have become short since it last looked */
    struct group *former;               /* of the same pool, left before */
    bool is_family;                     /* it has no folder and no objects (family.c) */
    bool beside;                        /* a family in a named pool: the limit is not its own, its chunks say nothing */
    bool born;                          /* a forked child's in a named pool: it may find no folder any more */
    bool found;                         /* others can find this member in the folder */
    small_lock tend_lock;               /* held while it is tended, and by who forks */
    orphan_place orphans[MEMBERS_MAX];  /* by member index; of who looks around */
    family_child children[MEMBERS_MAX]; /* by member index; under tend_lock */
    int life_line;                      /* this process's end; of a child */
} group;

/* ---- group.c: coming and going ---- */

/* Of a pool that is in no group. Return: 0 or a uswap_status. Context: an API caller with every signal blocked. */
int group_create(struct uswap_pool *pool, const char *folder, uint64_t limit_bytes, const char *swap_folder,
                 bool map_for_peers, uswap_error *err);
int group_join(struct uswap_pool *pool, const char *folder, uswap_error *err);
/* => the pool is its process's alone again, and keeps its limit. Return: 1 if it was the last member, 0, or a uswap_status: USWAP_E_BUSY
 * while objects are mapped. */
int group_leave(struct uswap_pool *pool, uswap_error *err);
/* The floors of all members, and what shared pages need. */
uint64_t group_least_chunks(const group *g);
/* What the pool's former groups still had. Context: no other thread is in the pool. */
void group_release(struct uswap_pool *pool);
/* The commons of a named pool that this process is no member of, to be looked at. Return: 0 or a uswap_status. */
int group_look(const char *folder, commons *c, uswap_error *err);
/* How many processes are behind the sockets of that folder; the others go. Return: that, or a uswap_status. Context: the folder's lock is held. */
int group_living(const char *path, uswap_error *err);

/* ---- group_fork.c: what becomes of it in a forked child ---- */

/* It is no member: closes what keeps the parent's mappings registered and its sockets alive. */
void group_in_child(const struct uswap_pool *pool);
/* It has claimed a place: pool.group is a fresh one on the same commons, with no region, no thread and no socket. Return: 0 or -ENOMEM. */
int group_inherit(struct uswap_pool *pool);
/* => a member as any other, LIVE, with the part of the limit that its place has. Return: 0 or -errno: it has left. Context: all signals blocked. (group.c) */
int group_enter_born(group *g);
/* Whether the folder is another pool's by now: somebody listens there whom this one's table does not know. */
bool group_is_displaced(const group *g);

/* Not group_member: unistd.h has one. */
static inline member_entry *group_entry(const group *g, member_id id) {
    return &commons_head(&g->commons)->members[member_index(id)];
}

static inline object_entry *group_object(const group *g, uint32_t index) {
    return &commons_head(&g->commons)->objects[index];
}

/* Memory for a group, with nothing in it. */
group *group_new(struct uswap_pool *pool);
/* Its descriptors and memory go; it is remembered as a former one of the pool. */
void group_retire(group *g);
/* Of all its processes together. Return: 0 or a uswap_status. */
int group_change_limit(group *g, uint64_t limit_bytes, uswap_error *err);
uint64_t group_chunks_for(const group *g, uint64_t frames);

/* ---- members.c: who is in, who has died ---- */

/* Takes a place in the table. Return: 0, or -EUSERS: it is full. => JOINING, with pid and start time. */
int members_join(group *g);
/* A place for a child of this member: JOINING, not claimed. Return: MEMBER_NONE: the table is full. */
member_id members_reserve(group *g);
/* The child takes it: g->self. Return: false: it has been given up. */
bool members_claim(group *g, member_id id, member_id parent);
/* Nobody will claim it: it is DEAD. Return: false: somebody has claimed it, or it is another's by now. */
bool members_void(group *g, member_id id, member_id parent);
/* Places whose parents have been gone for a while: of their children nobody knows. Context: one thread at a time; of a family, tend_lock held. */
void members_void_orphans(group *g);
/* => LIVE: seen by the others. */
void members_announce(group *g);
/* => the place is free. Context: nothing of this member is left: chunks, frames, slots, mappers, holds. */
void members_leave(group *g);
/* Whether the member is alive: its place is not another's, and its process is there. Any thread; no lock. */
bool members_alive(const group *g, member_id id);
/* This member itself: nobody has taken it for dead. */
bool members_is_in(const group *g);
/* Whether its program is not there any more, though its process may be: the lock that it had has gone. */
bool members_has_lost_program(const group *g, member_id id);
/* Marks it dead (its pidfd says so). Return: true if it was not marked before. */
bool members_mark_dead(group *g, member_id id);
/* All that it left behind is mended: the place is free for another, as soon as nobody is mending it any more. */
void members_bury(group *g, member_id id);
/* Those that are marked dead and not buried, or whose process is gone without a mark: repair_after is to be called (again). Return: how many. */
unsigned members_unburied(const group *g, member_id ids[MEMBERS_MAX]);
/* pid's start time, jiffies since boot; 0: no such process. */
uint64_t process_start_time(uint32_t pid);

/* ---- grants.c: the limit, by chunks ---- */

/* Takes up to want free chunks for this member. Return: how many. */
uint64_t grants_take(group *g, uint64_t want);
/* Gives up to so many of this member's chunks back, those beyond the limit first. Context: the frames are not used any more. */
uint64_t grants_give(group *g, uint64_t chunks);
/* Chunks below the limit with the word from, a member's id or CHUNK_FREE, up to want of them, get the word to. Return: how many. Context: each of the
 * two is this member, nobody, or a place that nobody has claimed yet. */
uint64_t grants_hand(group *g, uint32_t from, uint32_t to, uint64_t want);
uint64_t grants_held(const group *g, member_id id);
uint64_t grants_free(const group *g);
uint64_t grants_shared(const group *g);
/* Makes free chunks shared ones, or shared ones free ones whose frames are all free. Return: how many. */
uint64_t grants_share(group *g, uint64_t want);
/* Those that are not empty yet stay in work, at most want of them and spare ones, the next ones that the hand comes to: call again after
 * evictions. With less want (0: none), what is in work beyond it is shared again. */
uint64_t grants_unshare(group *g, uint64_t want, uint64_t spare);
/* The dead member's chunks come free, and what it was draining is shared again. */
void grants_of_dead(group *g, member_id dead);
/* One look around, every few milliseconds while there is want, else every 100: takes, gives and asks by need; sets the private pool's limit. */
void grants_tend(group *g);
/* Free chunks become the place's, up to so many; nobody else takes them then. Return: how many it can have, with those of this member, if no private
 * frame is used. Context: its tend_lock. */
uint64_t grants_begin_endow(group *g, member_id child, uint64_t chunks);
/* What the place lacks of so many comes from this member, whose private limit goes down. Return: false, and the place has none: frames are in use.
 * Context: its tend_lock; the gate is closed. */
bool grants_endow(group *g, member_id child, uint64_t chunks);
/* The same back, of a child that has not claimed its place. */
void grants_take_back(group *g, member_id child);
/* When it is to be called next, by clock_now_ns; UINT64_MAX: never. (grants_tend.c, as are these) */
uint64_t grants_due_ns(const group *g);
int grants_tend_init(group *g);
void grants_tend_fini(group *g);
/* Private frames are short: looked at as soon as the peer thread wakes. Context: any; never blocks. */
void grants_want(group *g);

/* ---- frame_table.c: shared frames ---- */

/* Claims up to want free frames. Return: how many, in frames[]. */
uint32_t frame_table_claim(group *g, uint32_t want, uint32_t *frames);
/* CLAIMED by self -> FREE. */
void frame_table_release(group *g, uint32_t frame);
/* CLAIMED by self: it is to be this page's, with that slot (slot + 1; 0: none). Before the page's word names the frame. */
void frame_table_aim(group *g, uint32_t frame, shared_ref page, uint64_t slot_plus_1);
/* CLAIMED by self -> PAGE, with the slot that it keeps (slot + 1; 0: none). The page's word names the frame already; it was aimed at that page. Return: false: it is ours
 * no more: the page was READING, and that was broken off (frame_table_take). */
bool frame_table_settle(group *g, uint32_t frame, shared_ref page, uint64_t slot_plus_1);
/* PAGE or GOING, or CLAIMED by the reader, who has not settled it yet -> LEAVING by self. Context: its page is READING, and locked by self. */
void frame_table_take(group *g, uint32_t frame, member_id reader);
/* PAGE or GOING -> LEAVING by self -> (the page's word has let go of it) -> CLAIMED by self. Context: the page is locked by self. */
void frame_table_begin_leave(group *g, uint32_t frame);
void frame_table_end_leave(group *g, uint32_t frame);
/* By the thread that lets it leave, of a page that nobody has locked (README, A page leaves). PAGE -> GOING by self; false: it is not PAGE. */
bool frame_table_begin_go(group *g, uint32_t frame);
/* GOING by self, if it still is -> PAGE. */
void frame_table_stay(group *g, uint32_t frame);
/* GOING by self -> CLAIMED by self. Context: its page has left by our hand. */
void frame_table_end_go(group *g, uint32_t frame);
uint64_t frame_table_slot(group *g, uint32_t frame); /* slot + 1, or 0 */
/* The frame keeps that slot no more, if it (still) does. Without the page's lock: of a slot CLAIMED or LEAVING by self. */
void frame_table_drop_slot(group *g, uint32_t frame, uint64_t slot_plus_1);
/* What a frame is, in an eviction's eyes: false if no page has it. */
bool frame_table_page(const group *g, uint32_t frame, shared_ref *page);
/* All frames that the dead member had claimed, or was taking from pages. Context: the pages' own words have been mended before. Return: false:
 * somebody has the page of one just now; come again. */
bool frame_table_of_dead(group *g, member_id dead);

/* ---- slot_table.c: shared slots ---- */

/* Claims up to want neighbouring free slots. Return: how many; 0: there are none. */
uint32_t slot_table_claim(group *g, uint32_t want, uint64_t *first);
void slot_table_release(group *g, uint64_t slot); /* CLAIMED by self -> FREE */
/* CLAIMED by self: it is to be this page's. Before any word names the slot. */
void slot_table_aim(group *g, uint64_t slot, shared_ref page);
/* Its use word: one that is PAGE comes again only if it has been so all the time. */
uint64_t slot_table_seen(const group *g, uint64_t slot);
/* CLAIMED by self: it has these contents, and that is the clock of the eviction by which it gets its page. Before the page's word names it. */
void slot_table_prepare(group *g, uint64_t slot, const uint8_t hash[16], uint64_t clock);
/* PAGE, as it was seen -> CLAIMED by self, with a new clock. Return: false: it is not that any more. */
bool slot_table_claim_kept(group *g, uint64_t slot, uint64_t seen, uint64_t clock);
/* CLAIMED by the member -> PAGE, if it is as it was seen, when the page's word named it. */
void slot_table_settle(group *g, uint64_t slot, uint64_t seen, member_id member);
/* PAGE, as it was seen -> LEAVING by self. Return: false: it is not that any more. */
bool slot_table_begin_leave_seen(group *g, uint64_t slot, uint64_t seen);
/* The slot that the frame keeps of its page, which is locked by self -> LEAVING by self. Return: slot + 1; 0: none, or somebody who was evicting the page has it,
 * and lets it go. */
uint64_t slot_table_begin_leave_kept(group *g, uint32_t frame);
/* PAGE -> LEAVING by self, of a page that is locked by self, and has its contents there. Return: false: it is not PAGE. */
bool slot_table_begin_leave(group *g, uint64_t slot);
void slot_table_end_leave(group *g, uint64_t slot); /* -> FREE */
/* CLAIMED by self -> never to be used again: the device refused it. */
void slot_table_condemn(group *g, uint64_t slot);
/* PAGE of a page whose word does not name it any more -> free; else nothing. Return: false: somebody has the page. */
bool slot_table_free_unnamed(group *g, uint64_t slot);
/* Whether the slot has contents of that page: only then is it kept. */
bool slot_table_is_of(const group *g, uint64_t slot, shared_ref page);
/* The slot that the frame keeps, plus 1: one that has contents of its page. 0: none; what the frame names may still be (or have been) on its
 * way, of somebody who finds out, or is dead. */
uint64_t slot_table_kept(const group *g, uint32_t frame);
/* quiet: no write of the dead member is under way any more; else its slots are never used again. Return: as frame_table_of_dead. */
bool slot_table_of_dead(group *g, member_id dead, bool quiet);
/* There is to be room on the disk for the pages of all objects that have a place (MAKING too), so nobody's promise is lost or counted twice.
 * Return: 0 or -errno. */
int slot_table_reserve(group *g);
uint64_t slot_table_promised(const group *g); /* pages of all objects */

/* ---- shared_word.c ---- */

/* The word of a page; NULL: that object is no more. */
shared_word *shared_ref_word(const group *g, shared_ref ref);
/* ---- objects.c: made, opened, closed ---- */

/* A new object, MAKING: its place, words and file. region_id: by which it is opened. name: may be "". reserve: pages it may grow to where it is mapped; at least pages. Return: index, or
 * -errno (-EEXIST: that name is taken; -ENFILE). *fd: its file, of reserve pages. */
int64_t objects_create(group *g, uint64_t pages, uint64_t reserve, const char *name, uint64_t region_id, int *fd);
/* Maps the object's file at base, where the caller has mapped room pages of any kind; the first of them are the view: it is registered, and this member a mapper. One that is new
 * is found by others from now on. Context: api_lock; visited (object_place.h), and seen LIVE; or MAKING by us. Return: 0 or -errno (-ENOENT: it ends; -EAGAIN: it is shorter by now; -EBUSY: it is mapped here already). => faults are
 * served. */
int objects_map(group *g, uint32_t index, int fd, unsigned char *base, size_t pages, size_t room);
/* How many pages who maps it now may see: it may be about to get shorter. */
uint64_t object_view_pages(const object_entry *object);
/* Not a mapper any more; the last one out ends the object: frames, slots and words come free. */
void objects_unmap(group *g, uint32_t index);
/* Ends the object if nobody maps it (mappers 0, and it has been mapped or its maker is dead; then MAPPERS_CLOSED): pages that somebody has locked are left to the next call (the eviction thread goes round). For repair.c
 * too, after it has taken the dead member out of mappers. */
void objects_end(group *g, uint32_t index);
/* The object's mapping here, referenced; NULL: none. */
shared_region *shared_region_get(group *g, uint32_t index);
shared_region *shared_region_at(group *g, uintptr_t address, size_t *page);
void shared_region_put(shared_region *r);

/* ---- object_size.c: longer, shorter ---- */

/* This member, and nobody else, may change the object's size. Return: 0, or -EAGAIN: somebody is at it (*pid). */
int object_resize_begin(group *g, uint32_t index, uint64_t pages, uint32_t *pid);
void object_resize_end(group *g, uint32_t index);
/* Between the two: from what it has to the pages said. Return: 0 or -errno; nothing has changed then. -E2BIG: beyond its capacity. */
int object_grow(group *g, shared_region *r);
/* => r's view is not longer either, but mapped as before. -EBUSY: somebody sees what is to go (*pid), or (*pid 0) holds it; -EAGAIN: a page was not to
 * be had for a while, or (*pid) who sees it is dead and not mended yet. Context: nobody of this process touches what is to go. */
int object_shrink(group *g, shared_region *r, uint32_t *pid);
/* What a dead member was changing. Return: false: come again. Context: registered as its mender, its pages are mended. */
bool object_mend_size(group *g, uint32_t index, member_id dead);

/* ---- shared_thread.c, shared_in.c: faults and reads ---- */

/* Opens g->uffd, for all faults if that is permitted. Return: 0 or -errno. Before other members can ask for it. */
int shared_uffd_open(group *g);
int shared_thread_start(group *g);
void shared_thread_stop(group *g);
/* Wakes whoever waits for pages in any mapper's process. r need not be mapped here (base NULL; object and generation say which). */
void shared_wake(group *g, shared_region *r, size_t page, size_t pages);

/* ---- shared_out.c: evictions ---- */

int shared_out_start(group *g);
void shared_out_stop(group *g);
/* Evicts about want of the pages that the hand comes to next. Return: frames that came free (CLAIMED by self, then released). */
uint64_t shared_out(group *g, uint64_t want);
/* The same of the pages in these frames: a chunk that is not to be shared any more. */
uint64_t shared_out_frames(group *g, uint64_t first, uint64_t frames);
/* Frames are short: the eviction thread wakes. */
void shared_out_wake(group *g);

/* ---- repair.c: after a death ---- */

/* Everything that the dead member left: waits for its writes, mends pages, frames, slots, chunks, mappers. Any number of members may do it at
 * once, and may die of it; one thread of a member. Then the dead is buried. Return: false: somebody has a page just now that is to be mended; come
 * again. */
bool repair_after(group *g, member_id dead);

/* ---- group_check.c ---- */

/* The invariants of the commons (README, I15 to I19), at any time. Return: 0, or USWAP_E_CORRUPT with what is wrong. */
int group_check(group *g, uswap_error *err);

/* ---- peers.c: sockets, descriptors, deaths ---- */

int peers_start(group *g);
/* The thread ends; what is known of the others is still there, for who evicts. */
void peers_halt(group *g);
void peers_stop(group *g);
/* The descriptor of a mapper's mappings; -1: not known (it will be asked for). */
int peers_uffd(group *g, unsigned index);
/* An object's file, from any member that has it. Return: descriptor or -errno. */
int peers_object_fd(group *g, uint32_t object);

#endif
