/*
 * failpoint.h - named places where a test can make a step fail, wait, stop or die.
 *
 * FAILPOINT(name) is 0, or a negative errno that the step must treat as its own failure. With the core built without
 * USWAP_FAILPOINTS it is the constant 0. Names are listed once, in FAILPOINT_NAMES; README lists what each one means.
 */
#ifndef USWAP_BASE_FAILPOINT_H
#define USWAP_BASE_FAILPOINT_H

#include "base/base.h"

#define FAILPOINT_NAMES(X)                                                                                             \
    X(fault_message, "fault.message")         /* a message was read, nothing decided */                                \
    X(fault_locked, "fault.locked")           /* the page lock is held */                                              \
    X(fault_park, "fault.park")               /* a fault is parked for want of a frame */                              \
    X(fault_inline, "fault.inline")           /* an inline fault has its context, nothing is served */                 \
    X(poison_touched, "poison.touched")       /* a thread has touched a lost page, and nothing has been said of it */  \
    X(bring_in_wait, "bring_in.wait")         /* a thread is about to sleep until the read of another has ended */     \
    X(page_in_chosen, "page_in.chosen")       /* a page is to be read ahead, its lock not taken yet */                 \
    X(page_in_claimed, "page_in.claimed")     /* the slot is READING, the read not yet submitted */                    \
    X(page_in_read, "page_in.read")           /* the read has ended; error: as if the device had said so */            \
    X(page_in_one, "page_in.one")             /* the single-page retry of a failed read */                             \
    X(page_in_hash, "page_in.hash")           /* flip: the contents read are damaged */                                \
    X(page_in_right, "page_in.right")         /* what was read is right and to be mapped, its page is not locked */    \
    X(page_in_map, "page_in.map")             /* before the frame enters the region */                                 \
    X(block_populate, "block.populate")       /* error: no memory for a block */                                       \
    X(page_out_copied, "page_out.copied")     /* pages are copied and write-protected, not discarded yet */            \
    X(page_out_isolated, "page_out.isolated") /* the frames have left the region */                                    \
    X(page_out_slot, "page_out.slot")         /* error: no slot to be had */                                           \
    X(page_out_published, "page_out.published") /* page words and slot words are set, the write not submitted */       \
    X(page_out_written, "page_out.written")     /* the write has ended; error: as if the device had said so */         \
    X(page_out_one, "page_out.one")             /* the single-page retry of a failed write */                          \
    X(page_out_drop, "page_out.drop")           /* before frames are given back */                                     \
    X(uffd_move, "uffd.move")                   /* error: UFFDIO_MOVE fails */                                         \
    X(uffd_copy, "uffd.copy")                   /* error: UFFDIO_COPY fails */                                         \
    X(uffd_zeropage, "uffd.zeropage")           /* error: UFFDIO_ZEROPAGE fails */                                     \
    X(drop_mapped, "drop.mapped")               /* error: process_madvise drops nothing */                             \
    X(sealed_copy, "sealed.copy")               /* error: a sealed page cannot be read where it is */                  \
    X(verify_slot, "verify.slot")               /* verify() knows what a slot should hold, and has not read it */      \
    X(discard_locked, "discard.locked")         /* the page lock is held by a discard */                               \
    X(region_destroy, "region.destroy")         /* the region is closed to new faults */                               \
    X(codec_encode, "codec.encode")             /* error: a page cannot be encoded */                                  \
    X(codec_decode, "codec.decode")             /* error: a slot cannot be decoded */                                  \
    X(codec_slot, "codec.slot")                 /* flip: a slot has been read and is damaged */                        \
    X(key_wiped, "key.wiped")                   /* keys are overwritten, their memory is still there */                \
    X(io_submit, "io.submit")                   /* error: the kernel takes no requests from the ring */                \
    X(file_nameless, "file.nameless")           /* error: the file system knows no files without a name */             \
    X(file_named, "file.named")                 /* a file that is to have no name has one */                           \
    X(area_fallocate, "area.fallocate")         /* error: the disk is full */                                          \
    X(area_direct, "area.direct")               /* error: the file system refuses O_DIRECT */                          \
    X(resize_move, "resize.move")               /* error: a page of a region that moves cannot be had */               \
    X(swapoff_step, "swapoff.step")             /* an area is closing, none of its slots looked at in this step */     \
    X(reclaimer_late, "reclaimer.late")         /* the steering thread has a batch to evict */                         \
    X(shared_fault, "shared.fault")             /* a fault on a shared page, nothing decided */                        \
    X(shared_claimed, "shared.claimed")         /* shared pages are READING, the read not submitted */                 \
    X(shared_announced, "shared.announced") /* the share thread is at shared pages, has not looked at their words */   \
    X(shared_fresh, "shared.fresh")         /* the file has zeroes, the words are READING yet */                       \
    X(shared_unsettled, "shared.unsettled") /* a shared page is READING, its frame CLAIMED yet */                      \
    X(shared_arriving, "shared.arriving")   /* the contents are right, the words READING, nothing is in the file */    \
    X(shared_settled, "shared.settled")     /* what was read is RESIDENT, mapped write-protected */                    \
    X(shared_broken, "shared.broken")       /* a page that is LEAVING was looked at, by who wants it */                \
    X(shared_read, "shared.read")           /* the read has ended; error: as if the device had said so */              \
    X(shared_one, "shared.one")             /* the single-page retry of a failed shared read */                        \
    X(shared_hash, "shared.hash")           /* flip: the contents read are damaged */                                  \
    X(shared_filled, "shared.filled")       /* the contents are in the object's file, the words READING */             \
    X(shared_before_continue, "shared.before_continue") /* shared pages are RESIDENT and announced, not mapped here */ \
    X(shared_mapped_peers, "shared.mapped_peers")       /* what was brought in is mapped in the peers */               \
    X(shared_writing, "shared.writing")                 /* shared pages are WRITING, not write-protected yet */        \
    X(shared_protected, "shared.protected")             /* write-protected everywhere, nothing read or written */      \
    X(shared_written, "shared.written")                 /* the write has ended; error: as if the device had said so */ \
    X(shared_unsealed, "shared.unsealed") /* shared pages are sealed no more, and write-protected still */             \
    X(hold_passed, "hold.passed") /* user-mode faults: what is held was passed over, evictions may protect it yet */   \
    X(shared_leaving, "shared.leaving")       /* a shared page is LEAVING, its slot not settled */                     \
    X(shared_committed, "shared.committed")   /* shared pages are LEAVING, the hole not punched */                     \
    X(shared_ordered, "shared.ordered")       /* error: the kernel has no call for holes by an argument in memory */   \
    X(shared_punched, "shared.punched")       /* the hole is punched, the frames are not free yet */                   \
    X(shared_late, "shared.late")             /* pages are out, what the file still has of them is not thrown out */   \
    X(shared_counted, "shared.counted")       /* shared frames in use are counted anew, nothing is done with it */     \
    X(shared_discard, "shared.discard")       /* a discarded page is ZERO and locked, the hole not punched */          \
    X(shared_unnamed, "shared.unnamed")       /* a discarded page is ZERO, its slot not free */                        \
    X(object_taken, "object.taken")           /* a place is being made an object's, not looked at for visitors */      \
    X(object_file, "object.file")             /* who opens an object has its file, and maps it next */                 \
    X(object_made, "object.made")             /* an object has its place and words, no file */                         \
    X(object_mapped, "object.mapped")         /* a region is watched, its member no mapper yet */                      \
    X(object_closed, "object.closed")         /* nobody can become an object's mapper any more, it is LIVE */          \
    X(object_unmapped, "object.unmapped")     /* the member is no mapper any more, the object not ended */             \
    X(object_ending, "object.ending")         /* an object is DYING, some of its pages are free */                     \
    X(object_resizing, "object.resizing")     /* an object is to have another size, nothing is done for it */          \
    X(object_growing, "object.growing")       /* disk and file are there for a longer object, its size is as before */ \
    X(object_grown, "object.grown")           /* an object is longer, nobody sees it yet */                            \
    X(object_cut_locked, "object.cut_locked") /* all pages are locked that are to be cut off */                        \
    X(object_cutting, "object.cutting")       /* some of the pages that are cut off are free */                        \
    X(object_cut, "object.cut")               /* all of them are, the size is as before */                             \
    X(object_shorter, "object.shorter")       /* an object is shorter, its member sees it longer still */              \
    X(shared_looked, "shared.looked")         /* the mappers of a shared page are known, nothing is mapped for them */ \
    X(object_viewed, "object.viewed")         /* a longer view is watched, nobody knows of it yet */                   \
    X(fork_child, "fork.child")               /* in the child, before its handlers are set */                          \
    X(fork_placed, "fork.placed")             /* a fork has a place for its child, the gate is open */                 \
    X(fork_quiet, "fork.quiet")               /* nothing is in any more, the gate is closed */                         \
    X(fork_endow, "fork.endow")               /* error: the child cannot have its part of the limit */                 \
    X(fork_lent, "fork.lent")                 /* the child holds its slots, it is not there yet */                     \
    X(fork_parent, "fork.parent")             /* the child is there, its parent has not gone on */                     \
    X(fork_half, "fork.half")                 /* the child has its place in the family, not in the named pool */       \
    X(fork_claimed, "fork.claimed")           /* the child has its place, and nothing else */                          \
    X(fork_mapped, "fork.mapped")             /* error: a child cannot have its regions watched */                     \
    X(fork_area, "fork.area")                 /* error: a child has no place to swap to */                             \
    X(fork_ready, "fork.ready")               /* the child has everything, and its threads */                          \
    X(fork_released, "fork.released")         /* a child holds a slot no more, its owner is not to look yet */         \
    X(member_joined, "member.joined")         /* the place in the table is taken, nothing else is */                   \
    X(life_lock, "life.lock")                 /* error: a member cannot have the lock that goes with its program */    \
    X(chunk_taken, "chunk.taken")             /* a chunk is this member's, or free again */                            \
    X(chunk_draining, "chunk.draining")       /* a chunk is being emptied, or filled, by this member */                \
    X(chunk_filled, "chunk.filled")           /* a chunk's frames can be used, it is not SHARED yet */                 \
    X(chunk_retired, "chunk.retired")         /* of a chunk that is emptied all free frames are RETIRED */             \
    X(frame_claimed, "frame.claimed")         /* a shared frame is claimed, no page has it */                          \
    X(frame_leaving, "frame.leaving")         /* a shared frame is being taken from its page */                        \
    X(frame_going, "frame.going")             /* a shared frame is held by who evicts its page */                      \
    X(frame_freed, "frame.freed")             /* a shared frame is free, searches may pass over it */                  \
    X(slot_claimed, "slot.claimed")           /* a shared slot is claimed, no page has it */                           \
    X(slot_leaving, "slot.leaving")           /* a shared slot is being taken from its page */                         \
    X(slot_kept, "slot.kept")                 /* a kept slot is claimed again, by who evicts its page */               \
    X(slot_freed, "slot.freed")               /* a shared slot is free, searches may pass over it */                   \
    X(shared_fallocate, "shared.fallocate")   /* error: the disk of the shared swap file is full */                    \
    X(repair_marked, "repair.marked")         /* a dead member is marked, nothing is mended */                         \
    X(repair_barrier, "repair.barrier")       /* error: the end of its writes cannot be waited for */                  \
    X(repair_page, "repair.page")             /* a page of a dead member is locked by who mends it */                  \
    X(repair_frames, "repair.frames")         /* all pages are mended, no frame */                                     \
    X(repair_slots, "repair.slots")           /* all frames are mended, no slot */                                     \
    X(repair_sizes, "repair.sizes")           /* all slots are mended, no size of an object */                         \
    X(repair_chunks, "repair.chunks")         /* all sizes are mended, no chunk */                                     \
    X(group_made, "group.made")               /* the commons are there, nobody can find them yet */                    \
    X(group_joining, "group.joining")         /* a member has its place, its socket, and no floor yet */               \
    X(group_leaving, "group.leaving")         /* a member's threads have ended, its chunks are not given back */       \
    X(peer_hello, "peer.hello")               /* somebody wants to join, and has not been answered */                  \
    X(peer_joined, "peer.joined")             /* a new member has given its uffd, and has not been answered */         \
    X(peer_death, "peer.death")               /* a member was found dead, and nothing is mended yet */                 \
    X(grant_lower, "grant.lower")             /* chunks are to be given back, the limit is not lowered yet */          \
    X(grant_give, "grant.give")               /* their frames are free, the chunks are still the member's */

typedef enum {
#define FAILPOINT_ID(id, name) FAILPOINT_##id,
    FAILPOINT_NAMES(FAILPOINT_ID)
#undef FAILPOINT_ID
        FAILPOINT_COUNT
} failpoint_id;

/* From now on at each hit that is for the page with this page_ref, and at no other. */
int failpoint_set_page(const char *name, uint32_t action, int64_t argument, uint64_t page, uswap_error *err);

#ifdef USWAP_FAILPOINTS
extern _Atomic uint32_t failpoints_armed; /* how many are set; the only cost when none is */
int failpoint_hit(failpoint_id id);
/* data: where FLIP flips a bit. */
int failpoint_hit_data(failpoint_id id, void *data, size_t bytes);
/* page: the page_ref of whose step it is; passes by where the failpoint is another page's. data: NULL or as above, of a page. */
int failpoint_hit_page(failpoint_id id, uint64_t page, void *data);
#define FAILPOINT(id)                                                                                                  \
    (unlikely(atomic_load_explicit(&failpoints_armed, memory_order_relaxed) != 0) ? failpoint_hit(FAILPOINT_##id) : 0)
#define FAILPOINT_DATA(id, data, bytes)                                                                                \
    (unlikely(atomic_load_explicit(&failpoints_armed, memory_order_relaxed) != 0)                                      \
         ? failpoint_hit_data(FAILPOINT_##id, (data), (bytes))                                                         \
         : 0)
#define FAILPOINT_PAGE(id, page, data)                                                                                 \
    (unlikely(atomic_load_explicit(&failpoints_armed, memory_order_relaxed) != 0)                                      \
         ? failpoint_hit_page(FAILPOINT_##id, (page), (data))                                                          \
         : 0)
#else
#define FAILPOINT(id) failpoint_absent()
#define FAILPOINT_DATA(id, data, bytes) failpoint_absent()
#define FAILPOINT_PAGE(id, page, data) failpoint_absent()
static inline int failpoint_absent(void) {
    return 0;
}
#endif

#endif
