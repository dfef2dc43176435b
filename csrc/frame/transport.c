#define _GNU_SOURCE
#include "frame/transport.h"

#include "base/failpoint.h"
#include "fault/uffd.h"
#include "frame/warm.h"
#include "pool.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* A frame that has just been read into may be pinned for a moment longer by the completion of the read (K7: 15 retries
 * at most were seen). */
#define PINNED_RETRIES 100
/* Frames lent by the reserve to one copy. */
#define COPY_PAGES_MAX 4
/* Pages copied out together while there are frames to spare: a whole batch of victims. */
#define COPY_OUT_PAGES_MAX 64

/* Whether a page is mapped there, by the kernel's word. */
static bool is_mapped(const void *address) {
    unsigned char there = 1;
    return mincore((void *)(uintptr_t)address, PAGE_BYTES, &there) != 0 || (there & 1);
}

/* UFFDIO_MOVE, and what it really did: after an EAGAIN inside, kernels from 6.17 on may move pages that they do not report, and then
 * stop at them with EEXIST (K17). The destination was empty and nobody else may fill it, so what is there and gone here has moved. */
static int move(int uffd, void *to, const void *from, size_t pages, size_t *done) {
    *done = 0;
    int failure = FAILPOINT(uffd_move);
    if (failure)
        return failure;
    int status = uffd_move(uffd, to, from, pages, true, done);
    while (*done < pages && is_mapped((char *)to + (*done << PAGE_SHIFT)) &&
           !is_mapped((const char *)from + (*done << PAGE_SHIFT)))
        ++*done;
    return status;
}

static int copy(int uffd, void *to, const void *from, size_t pages, bool protect, size_t *done) {
    *done = 0;
    int failure = FAILPOINT(uffd_copy);
    return failure ? failure : uffd_copy(uffd, to, from, pages, protect, true, done);
}

/* ---- out ---- */

/* Frames for copies of up to so many pages: as many as there are to spare, else a loan of the reserve. */
static uint32_t take_copies(uswap_pool *pool, size_t pages, frame_id *first) {
    uint32_t got = frame_take_fill(pool, (uint32_t)MIN_OF(pages, (size_t)COPY_OUT_PAGES_MAX), FRAME_AHEAD, first);
    return got > 0 ? got : frame_take_fill(pool, (uint32_t)MIN_OF(pages, (size_t)COPY_PAGES_MAX), FRAME_RESERVE, first);
}

/* Return: how many pages, from the first on, are not mapped any more. */
static size_t discard_copied(unsigned char *address, size_t pages) {
    if (pages == 0 || madvise(address, pages << PAGE_SHIFT, MADV_DONTNEED) == 0)
        return pages;
    size_t gone = 0; /* the program has mlocked some; those before them may have gone */
    while (gone < pages && !is_mapped(address + (gone << PAGE_SHIFT)))
        gone++;
    return gone;
}

/* Write-protect, copy, discard; a store in between faults and waits for the page lock (README, Transports). A run is one call for each
 * step: protecting and discarding interrupt the other processors once a call (38 us a page one by one beside a busy thread in a virtual
 * machine, 5 us in runs).
 * Return: pages decided, at least 1. Those after them may be write-protected until they are decided. */
static size_t copy_out(uswap_pool *pool, int uffd, unsigned char *address, size_t pages, out_outcome *outcome) {
    frame_id first = FRAME_NONE;
    uint32_t run = pool->self_mem_fd < 0 ? 0 : take_copies(pool, pages, &first);
    size_t copied = 0;
    if (run > 0 && uffd_write_protect(uffd, address, run, true, false) == 0) {
        /* Not by loads: a missing page would fault, here, on ourselves (I12). This stops before it. */
        ssize_t length =
            pread(pool->self_mem_fd, frame_address(pool, first), (size_t)run << PAGE_SHIFT, (off_t)(uintptr_t)address);
        FAILPOINT(page_out_copied);
        copied = discard_copied(address, length > 0 ? (size_t)length >> PAGE_SHIFT : 0);
    }
    for (uint32_t i = 0; i < copied; i++)
        outcome[i] = (out_outcome){.result = OUT_TAKEN, .frame = first + i};
    if (copied < run)
        frame_drop(pool, first + (uint32_t)copied, run - (uint32_t)copied);
    if (copied > 0) {
        frame_uncharge(pool, copied); /* the region's; the copies were counted when they were taken */
        return copied;
    }
    if (run > 1) /* the first page is not there, or the run crosses a boundary */
        return copy_out(pool, uffd, address, 1, outcome);
    uffd_write_protect(uffd, address, 1, false, true);
    bool there = run == 0 || is_mapped(address);
    outcome[0] = (out_outcome){.result = there ? OUT_BUSY : OUT_ABSENT, .frame = FRAME_NONE};
    return 1;
}

static void copy_out_fallback(uswap_pool *pool, int uffd, unsigned char *address, out_outcome *outcome) {
    copy_out(pool, uffd, address, 1, outcome);
    if (outcome->result == OUT_TAKEN)
        STAT_ADD(pool, copy_fallbacks, 1);
}

/* Empty places for a run that leaves; for a whole block those of a block, so that a huge page stays whole. Return: how many. */
static uint32_t take_places(uswap_pool *pool, const unsigned char *address, size_t pages, frame_id *first) {
    if (pages == BLOCK_PAGES && (uintptr_t)address % BLOCK_BYTES == 0 && block_take_catch(pool, first))
        return BLOCK_PAGES;
    return frame_take_catch(pool, (uint32_t)pages, first);
}

/* Moves a prefix of the run out. Return: pages decided, at least 1. */
static size_t move_out(uswap_pool *pool, int uffd, unsigned char *address, size_t pages, out_outcome *outcome) {
    frame_id first;
    uint32_t places = take_places(pool, address, pages, &first);
    if (places == 0) {
        outcome[0] = (out_outcome){.result = OUT_BUSY, .frame = FRAME_NONE};
        return 1;
    }
    size_t done, want = places;
    int status;
    for (int turn = 0;; turn++) {
        status = move(pool->uffd, frame_address(pool, first), address, want, &done);
        if (done > 0 || turn == PINNED_RETRIES)
            break;
        if (status == -EINVAL && want > 1) /* the run may cross a boundary of protection: page by page then */
            want = 1;
        else if (status == -EBUSY && turn == 0 && atomic_load(&pool->family)) /* a page that a fork has left in both */
            madvise(address, (want = 1) << PAGE_SHIFT, MADV_POPULATE_WRITE);
        else if (status != -EAGAIN)
            break;
    }
    for (uint32_t i = 0; i < done; i++)
        outcome[i] = (out_outcome){.result = OUT_TAKEN, .frame = first + i};
    if (done < places)
        frame_give_places(pool, first + (uint32_t)done, places - (uint32_t)done);
    if (done > 0)
        return done;
    INVARIANT(I8, status != -EEXIST); /* a free catch place is empty */
    if (status == -EINVAL)
        copy_out_fallback(pool, uffd, address, outcome);
    else
        outcome[0] = (out_outcome){.result = status == -ENOENT ? OUT_ABSENT : OUT_BUSY, .frame = FRAME_NONE};
    return 1;
}

void transport_out(uswap_pool *pool, int uffd, unsigned char *address, size_t pages, out_outcome *outcome) {
    for (size_t decided = 0; decided < pages;) {
        unsigned char *at = address + (decided << PAGE_SHIFT);
        decided += (pool->use_move ? move_out : copy_out)(pool, uffd, at, pages - decided, outcome + decided);
    }
}

/* ---- in ---- */

static int copy_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id first, uint32_t count, uint32_t *done) {
    uint32_t want = MIN_OF(count, (uint32_t)COPY_PAGES_MAX);
    *done = 0;
    frame_charge(pool, want, FRAME_RESERVE);
    size_t copied;
    int status = copy(uffd, address, frame_address(pool, first), want, false, &copied);
    if (copied == 0 && want > 1 && (status == -EINVAL || status == -ENOENT)) { /* the run may cross a boundary */
        frame_uncharge(pool, want - 1);
        want = 1;
        status = copy(uffd, address, frame_address(pool, first), want, false, &copied);
    }
    frame_uncharge(pool, want - copied);
    if (copied > 0)
        frame_drop(pool, first, (uint32_t)copied);
    *done = (uint32_t)copied;
    return copied > 0 ? 0 : (status == -ENOMEM ? -EAGAIN : status);
}

static int move_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id first, uint32_t count, uint32_t *done) {
    size_t moved = 0;
    int status = 0;
    for (int turn = 0; turn <= PINNED_RETRIES; turn++) {
        status = move(uffd, address, frame_address(pool, first), count, &moved);
        if (moved > 0 || (status != -EBUSY && status != -EAGAIN))
            break;
    }
    *done = (uint32_t)moved;
    if (moved > 0) {
        frame_give_places(pool, first, (uint32_t)moved);
        return 0;
    }
    return status == -EEXIST ? status : copy_in(pool, uffd, address, first, count, done);
}

int transport_warm_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id frame, bool protect) {
    size_t done;
    int status = copy(uffd, address, frame_address(pool, frame), 1, protect, &done);
    if (status == 0)
        warm_give(pool, frame);
    else if (status == -EEXIST) /* EEXIST does not wake (K2) */
        uffd_wake(uffd, address, PAGE_BYTES);
    return status == -ENOMEM ? -EAGAIN : status;
}

/* Neighbours of one kind: warm or not. */
static int alike_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id first, uint32_t count,
                    uint32_t *done) {
    if (!warm_has(&pool->frames, first))
        return (pool->use_move ? move_in : copy_in)(pool, uffd, address, first, count, done);
    int status = transport_warm_in(pool, uffd, address, first, false);
    *done = status == 0;
    return status;
}

int transport_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id first, uint32_t count, uint32_t *done) {
    int status = 0;
    for (*done = 0; status == 0 && *done < count;) {
        uint32_t step = 0;
        unsigned char *at = address + ((size_t)*done << PAGE_SHIFT);
        status = alike_in(pool, uffd, at, first + *done, count - *done, &step);
        *done += step;
    }
    if (status == -EEXIST) /* EEXIST does not wake (K2) */
        uffd_wake(uffd, address + ((size_t)*done << PAGE_SHIFT), PAGE_BYTES);
    return status;
}

int transport_block_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id first, uint32_t *done) {
    /* Nothing is mapped there; but an emptied page table would make MOVE split the huge page. */
    madvise(address, BLOCK_BYTES, MADV_DONTNEED);
    return transport_in(pool, uffd, address, first, BLOCK_PAGES, done);
}

int transport_back(uswap_pool *pool, int uffd, unsigned char *address, frame_id frame) {
    uint32_t done;
    int status;
    while ((status = transport_in(pool, uffd, address, frame, 1, &done)) == -EAGAIN)
        sched_yield(); /* the kernel is at the page (migration), or out of memory for an instant */
    return status;
}

int transport_copy_in(uswap_pool *pool, int uffd, unsigned char *address, frame_id frame, bool protect) {
    size_t done;
    int status = copy(uffd, address, frame_address(pool, frame), 1, protect, &done);
    if (status == -EEXIST)
        uffd_wake(uffd, address, PAGE_BYTES);
    return status == -ENOMEM ? -EAGAIN : status;
}

int transport_fresh(uswap_pool *pool, int uffd, unsigned char *address, size_t pages, size_t *done) {
    frame_id first;
    *done = 0;
    uint32_t places = arena_take(&pool->frames.arenas[ARENA_FILL], (uint32_t)pages, &first);
    if (places == 0)
        return -EAGAIN;
    void *memory = frame_address(pool, first);
    size_t bytes = (size_t)places << PAGE_SHIFT;
    int status = madvise(memory, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : -errno;
    if (status == 0)
        status = move(uffd, address, memory, places, done);
    if (*done < places)
        madvise(memory, bytes, MADV_DONTNEED);
    frame_give_places(pool, first, places);
    return *done > 0 ? 0 : status;
}

int transport_zero(int uffd, unsigned char *address, size_t pages, size_t *done) {
    *done = 0;
    int failure = FAILPOINT(uffd_zeropage);
    if (failure)
        return failure;
    int status = uffd_zeropage(uffd, address, pages, true, done);
    if (*done == 0 && pages > 1 && (status == -EINVAL || status == -ENOENT))
        status = uffd_zeropage(uffd, address, 1, true, done);
    if (status == -EEXIST && *done == 0)
        uffd_wake(uffd, address, PAGE_BYTES);
    if (*done > 0)
        return 0;
    return status == -ENOMEM ? -EAGAIN : status;
}
