/*
 * region_move.c - the pages of a region from one range of addresses to another: frames, and what protect has said of them.
 *
 * The kernel's own way (mremap) would lose the userfaultfd, and with it all that is swapped out (K26). Here frames leave the one range and
 * enter the other by the transports, as if they were evicted and came back at once. Nothing here is a page state: a RESIDENT page stays so.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "base/proc_maps.h"
#include "frame/transport.h"
#include "region/region_range.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

/* The kernel may be at a page for a moment (migration, the end of a read). */
#define MOVE_TRIES 100

/* ---- what may be done with the pages ---- */

/* The kernel is asked, because it knows of all changes. */
int region_copy_protection(const unsigned char *from, unsigned char *to, size_t bytes) {
    proc_maps in;
    uintptr_t first = (uintptr_t)from, end = first + bytes;
    mapped_range range;
    int status = proc_maps_open(&in);
    while (status == 0 && proc_maps_next(&in, &range) && range.start < end) {
        uintptr_t start = MAX_OF(range.start, first), stop = MIN_OF(range.end, end);
        if (start < stop && range.protection != (PROT_READ | PROT_WRITE) &&
            mprotect(to + (start - first), stop - start, range.protection) != 0)
            status = -errno;
    }
    proc_maps_close(&in);
    return status;
}

/* ---- frames ---- */

/* They were counted all the time. The addresses are ours alone and empty, so nothing but a short lack of memory is in the way. */
static void put_in(uswap_pool *pool, region *r, unsigned char *address, frame_id first, uint32_t count) {
    uint32_t done;
    transport_in(pool, r->uffd, address, first, count, &done);
    for (; done < count; done++) {
        int status = transport_back(pool, r->uffd, address + ((size_t)done << PAGE_SHIFT), first + done);
        INVARIANT(I3, status == 0);
    }
}

/* It was sealed by its mapping. */
static void break_seal(region *r, size_t page) {
    page_word *at = &r->object.words[page];
    if (!page_is_sealed(page_load(at)))
        return;
    page_lock(at);
    page_set_bits(at, PAGE_SEALED, 0);
    page_unlock(at);
}

/* A run of RESIDENT pages. Those that are not there (thrown away behind our back, or moved by an earlier try) are passed over. Return: 0 or
 * -EBUSY: not all. */
static int move_run(uswap_pool *pool, region *r, size_t page, size_t count, unsigned char *from, unsigned char *to) {
    out_outcome outcome[BLOCK_PAGES];
    int status = 0;
    transport_out(pool, r->uffd, from + (page << PAGE_SHIFT), count, outcome);
    for (size_t i = 0, next; i < count; i = next) {
        next = i + 1;
        status = outcome[i].result == OUT_BUSY ? -EBUSY : status;
        if (outcome[i].result != OUT_TAKEN)
            continue;
        while (next < count && outcome[next].result == OUT_TAKEN &&
               frames_adjoin(&pool->frames, outcome[next - 1].frame, outcome[next].frame))
            next++;
        put_in(pool, r, to + ((page + i) << PAGE_SHIFT), outcome[i].frame, (uint32_t)(next - i));
        for (size_t n = i; n < next; n++)
            break_seal(r, page + n);
    }
    return status;
}

/* Pages from page on that are RESIDENT and lie in one block of addresses. */
static size_t resident_run(const region *r, size_t page, size_t end) {
    size_t within = (uintptr_t)region_address(r, page) / PAGE_BYTES % BLOCK_PAGES, count = 0;
    end = MIN_OF(end, page + BLOCK_PAGES - within);
    while (page + count < end && page_state_of(page_load(&r->object.words[page + count])) == PAGE_RESIDENT)
        count++;
    return count;
}

/* tries: how often before it gives up; 0: never. Return: 0, or -EBUSY and *done: pages that have been looked at. */
static int move_all(uswap_pool *pool, region *r, unsigned char *from, unsigned char *to, int tries, size_t *done) {
    size_t end = *done;
    for (size_t page = 0; page < end;) {
        size_t chunk = page / PAGE_WORDS_PER_CHUNK, run = 0;
        if (!atomic_load(&r->object.touched[chunk]))
            page = (chunk + 1) * PAGE_WORDS_PER_CHUNK;
        else if ((run = resident_run(r, page, end)) == 0)
            page++;
        for (int turn = 1; run > 0; turn++) {
            int status = tries > 0 ? FAILPOINT(resize_move) : 0;
            if (status == 0)
                status = move_run(pool, r, page, run, from, to);
            if (status == 0)
                break;
            if (turn == tries) {
                *done = page + run;
                return -EBUSY;
            }
            sched_yield();
        }
        page += run;
    }
    return 0;
}

int region_move_pages(uswap_pool *pool, region *r, unsigned char *to) {
    size_t pages = r->object.pages;
    int status = region_copy_protection(r->base, to, pages << PAGE_SHIFT);
    if (status == 0)
        status = move_all(pool, r, r->base, to, MOVE_TRIES, &pages);
    if (status == -EBUSY)
        move_all(pool, r, to, r->base, 0, &pages);
    return status;
}
