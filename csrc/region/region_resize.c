/*
 * region_resize.c - uswap_region_resize and _reserve: a live region gets longer, shorter, or other addresses (README, Resizing a region).
 *
 * Owns: the addresses behind the end of a region, and the order of the steps. Every step before the change can be taken back.
 */
#define _GNU_SOURCE
#include "base/status.h"
#include "fault/uffd.h"
#include "region/region_range.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define MAP_OURS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
/* How long one who keeps others out meanwhile (the GIL) is made to wait in one call. */
#define ALONE_WAIT_NS UINT64_C(50000000)

typedef struct {
    uswap_pool *pool;
    region *r;
    size_t pages; /* wanted */
    int64_t length;
    bool alone;
    const uswap_mapping *mapping;
    uswap_error error; /* of its own: the caller's may be inline memory, and may lie in this very region */
} resize;

static size_t bytes_of(size_t pages) {
    return pages << PAGE_SHIFT;
}

static bool still(const resize *z) {
    return region_still(z->pool, z->r, z->alone ? ALONE_WAIT_NS : 0);
}

/* ---- addresses behind the end ---- */

/* Addresses for so many pages, behind what is mapped for the region. Return: false: they are somebody's. */
static bool map_room(region *r, region_table *table, size_t pages) {
    unsigned char *at = region_address(r, r->room_pages);
    size_t bytes = bytes_of(pages - r->room_pages);
    if (region_table_overlaps(table, r, at, bytes))
        return false;
    void *got = mmap(at, bytes, PROT_NONE, MAP_OURS | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED)
        return false;
    if (got == at)
        return true;
    munmap(got, bytes); /* a kernel before 4.17 takes the address for a wish */
    return false;
}

static void unmap_room(region *r, size_t from, size_t to) {
    if (to > from)
        munmap(region_address(r, from), bytes_of(to - from));
}

/* Watched first, accessible then: at no moment would a page come there without us. */
static int open_room(resize *z, size_t pages) {
    region *r = z->r;
    unsigned char *at = region_address(r, r->object.pages);
    size_t bytes = bytes_of(pages - r->object.pages);
    int status = region_watch(r->uffd, at, bytes, &z->error);
    if (status != 0)
        return status;
    if (mprotect(at, bytes, PROT_READ | PROT_WRITE) == 0)
        return 0;
    status = error_set(&z->error, USWAP_E_NO_MEMORY, errno, "mprotect", NULL, "cannot grow the region in place: %s",
                       error_text(errno));
    uffd_unregister(r->uffd, at, bytes);
    return status;
}

/* => no access, no page, nobody waits there. */
static void close_room(region *r, size_t from, size_t to) {
    unsigned char *at = region_address(r, from);
    mprotect(at, bytes_of(to - from), PROT_NONE);
    madvise(at, bytes_of(to - from), MADV_DONTNEED);
    uffd_unregister(r->uffd, at, bytes_of(to - from));
}

/* ---- metadata ---- */

/* So that growing step by step stays cheap: address space only. */
static size_t capacity_for(const region *r, size_t pages) {
    return MAX_OF(pages, 2 * r->object.capacity);
}

static int no_words(resize *z) {
    return error_set(&z->error, USWAP_E_NO_MEMORY, ENOMEM, "region", NULL, "no address space for the page words");
}

/* Words of pages that are gone: all ZERO, and not even their generations are wanted. */
static void forget_words(uswap_pool *pool, region *r, size_t from, size_t to) {
    uint64_t chunks = 0;
    size_t first = (from + PAGE_WORDS_PER_CHUNK - 1) / PAGE_WORDS_PER_CHUNK;
    for (size_t chunk = first; chunk * PAGE_WORDS_PER_CHUNK < to; chunk++) {
        if (!atomic_load(&r->object.touched[chunk]))
            continue;
        madvise((void *)&r->object.words[chunk * PAGE_WORDS_PER_CHUNK], PAGE_BYTES, MADV_DONTNEED);
        atomic_store(&r->object.touched[chunk], 0);
        chunks++;
    }
    frame_uncharge_metadata(pool, chunks);
}

/* ---- growing in place ---- */

static void owner_learns(const resize *z) {
    *z->mapping->address = (uintptr_t)z->r->base;
    *z->mapping->length = z->length;
}

/* Room and words for the pages wanted, without the region having them yet. Return: a uswap_resize_outcome or a uswap_status. */
static int make_room(resize *z) {
    region *r = z->r;
    if (z->pages > r->room_pages && !map_room(r, &z->pool->regions, z->pages))
        return USWAP_RESIZE_ALONE_ONLY;
    int status = USWAP_RESIZED;
    if (z->pages > r->object.capacity) {
        if (!still(z))
            status = USWAP_RESIZE_LATER;
        else if (region_extend(r, capacity_for(r, z->pages)) != 0)
            status = no_words(z);
        if (status != USWAP_RESIZE_LATER)
            region_go_on(z->pool, r);
    }
    if (status == USWAP_RESIZED)
        status = open_room(z, z->pages);
    if (status != USWAP_RESIZED)
        unmap_room(r, r->room_pages, z->pages);
    return status;
}

static int grow_in_place(resize *z) {
    region *r = z->r;
    int status = make_room(z);
    if (status != USWAP_RESIZED)
        return status;
    r->room_pages = MAX_OF(r->room_pages, z->pages);
    region_table_move(&z->pool->regions, r, r->base, z->pages);
    return USWAP_RESIZED;
}

/* ---- moving ---- */

/* Fresh addresses that lie to the blocks of 2 MiB as those of the region do. */
static unsigned char *map_alike(const resize *z) {
    size_t bytes = bytes_of(z->pages), slack = BLOCK_BYTES;
    unsigned char *mapping = mmap(NULL, bytes + slack, PROT_NONE, MAP_OURS, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    size_t before = ((uintptr_t)z->r->base - (uintptr_t)mapping) % BLOCK_BYTES;
    if (before > 0)
        munmap(mapping, before);
    munmap(mapping + before + bytes, slack - before);
    return mapping + before;
}

static int prepare_target(resize *z, unsigned char **to) {
    size_t bytes = bytes_of(z->pages);
    *to = map_alike(z);
    if (!*to || region_table_overlaps(&z->pool->regions, z->r, *to, bytes))
        return error_set(&z->error, USWAP_E_NO_MEMORY, ENOMEM, "region", NULL, "no address space for %llu bytes",
                         (unsigned long long)bytes);
    int status = region_watch(z->r->uffd, *to, bytes, &z->error);
    if (status == 0 && mprotect(*to, bytes, PROT_READ | PROT_WRITE) != 0)
        status = error_set(&z->error, USWAP_E_NO_MEMORY, errno, "mprotect", NULL, "no memory for %llu bytes: %s",
                           (unsigned long long)bytes, error_text(errno));
    return status;
}

/* Return: the first page from first on that is locked or pinned, as bits say; r->object.pages if there is none. */
static size_t first_held(region *r, size_t first, uint64_t bits) {
    for (size_t page = first; page < r->object.pages; page++) {
        if (!atomic_load(&r->object.touched[page / PAGE_WORDS_PER_CHUNK]))
            page |= PAGE_WORDS_PER_CHUNK - 1;
        else if (page_load(&r->object.words[page]) & bits)
            return page;
    }
    return r->object.pages;
}

static int refuse_held(resize *z, const char *what) {
    return error_set(&z->error, USWAP_E_BUSY, EBUSY, "resize", NULL, "%s", what);
}

/* Context: still. Return: as uswap_region_resize. */
static int move_to(resize *z, unsigned char *to) {
    region *r = z->r;
    if (first_held(r, 0, PAGE_PIN_MASK) < r->object.pages)
        return refuse_held(z, "the region cannot move while a part of it is held in place by resident()");
    if (z->pages > r->object.capacity && region_extend(r, capacity_for(r, z->pages)) != 0)
        return no_words(z);
    int status = region_move_pages(z->pool, r, to);
    if (status == -EBUSY)
        return refuse_held(z,
                           "the region cannot move: the kernel has pinned a page of it (a transfer in flight), or the "
                           "program has mlocked it");
    if (status != 0)
        return error_set(&z->error, USWAP_E_OS, -status, "mprotect", NULL,
                         "the region cannot move: its protection cannot be carried over: %s", error_text(-status));
    region_table_move(&z->pool->regions, r, to, z->pages);
    return USWAP_RESIZED;
}

static void leave_addresses(const region *r, unsigned char *base, size_t pages, size_t room) {
    uffd_unregister(r->uffd, base, bytes_of(pages)); /* wakes whoever waits there, against the rules */
    munmap(base, bytes_of(room));
}

static int move(resize *z) {
    region *r = z->r;
    unsigned char *to, *from = r->base;
    size_t pages = r->object.pages, room = r->room_pages;
    int status = prepare_target(z, &to);
    if (status == 0 && !still(z))
        status = USWAP_RESIZE_LATER;
    else if (status == 0) {
        status = move_to(z, to);
        region_go_on(z->pool, r);
    }
    if (status != USWAP_RESIZED) {
        if (to)
            leave_addresses(r, to, z->pages, z->pages);
        return status;
    }
    leave_addresses(r, from, pages, room);
    r->room_pages = z->pages;
    r->promised_pages = 0;
    return USWAP_RESIZED;
}

/* ---- growing ---- */

static int grow(resize *z) {
    size_t more = z->pages - z->r->object.pages;
    int status = pool_reserve_slots(z->pool, more, &z->error);
    if (status != 0)
        return status;
    status = grow_in_place(z);
    if (status == USWAP_RESIZE_ALONE_ONLY && z->alone)
        status = *z->mapping->exports ? USWAP_RESIZE_EXPORTED : move(z);
    if (status == USWAP_RESIZED)
        z->r->reserved_slots += more;
    else
        pool_unreserve_slots(z->pool, more);
    return status;
}

/* ---- shrinking ---- */

/* Context: still. */
static int cut(resize *z) {
    region *r = z->r;
    size_t before = r->object.pages, keep = MAX_OF(z->pages, r->promised_pages);
    if (first_held(r, z->pages, PAGE_PIN_MASK | PAGE_MLOCKED) < before)
        return refuse_held(z, "a page beyond the new end is locked or pinned: unlock it first");
    munlock(region_address(r, z->pages),
            bytes_of(before - z->pages)); /* what the program has mlocked cannot be discarded */
    int status = region_discard(z->pool, r, z->pages, before - z->pages);
    if (status != 0) /* cannot be: nobody is there but us */
        return error_set(&z->error, USWAP_E_OS, -status, "madvise", NULL, "cannot discard the end of the region: %s",
                         error_text(-status));
    close_room(r, z->pages, before);
    forget_words(z->pool, r, z->pages, before);
    region_table_move(&z->pool->regions, r, r->base, z->pages);
    unmap_room(r, keep, r->room_pages);
    r->room_pages = keep;
    return USWAP_RESIZED;
}

static int shrink(resize *z) {
    if (!z->alone)
        return USWAP_RESIZE_ALONE_ONLY;
    if (*z->mapping->exports)
        return USWAP_RESIZE_EXPORTED;
    size_t less = z->r->object.pages - z->pages;
    if (!still(z))
        return USWAP_RESIZE_LATER;
    int status = cut(z);
    region_go_on(z->pool, z->r);
    if (status == USWAP_RESIZED) {
        z->r->reserved_slots -= less;
        pool_unreserve_slots(z->pool, less);
        pool_return_room(z->pool);
    }
    return status;
}

/* ---- the calls ---- */

/* Context: api_lock. */
static int change(resize *z) {
    region *r = z->r;
    bool shorter = z->length < *z->mapping->length;
    int status = USWAP_RESIZED;
    if (atomic_load(&r->quiesced))
        return error_set(&z->error, USWAP_E_BUSY, 0, "resize", NULL, "the region is being closed");
    if (z->pages > r->object.pages)
        status = grow(z);
    else if (z->pages < r->object.pages)
        status = shrink(z);
    else if (shorter && !z->alone)
        status = USWAP_RESIZE_ALONE_ONLY;
    else if (shorter && *z->mapping->exports)
        status = USWAP_RESIZE_EXPORTED;
    if (status == USWAP_RESIZED)
        owner_learns(z);
    return status;
}

/* Everything is mapped already; the words of it are address space. */
static int reserve(resize *z, size_t pages) {
    region *r = z->r;
    unsigned char *behind = region_address(r, r->object.pages);
    size_t bytes = bytes_of(pages - r->object.pages);
    munlock(behind, bytes);
    madvise(behind, bytes, MADV_DONTNEED);
    if (madvise(behind, bytes, MADV_DONTFORK) != 0 || mprotect(behind, bytes, PROT_NONE) != 0)
        return error_set(&z->error, USWAP_E_NO_MEMORY, errno, "region", NULL, "cannot reserve addresses: %s",
                         error_text(errno));
    if (pages > r->object.capacity) {
        if (!still(z))
            return USWAP_RESIZE_LATER;
        int status = region_extend(r, pages);
        region_go_on(z->pool, r);
        if (status != 0)
            return no_words(z);
    }
    r->room_pages = r->promised_pages = pages;
    owner_learns(z);
    return USWAP_RESIZED;
}

/* reserve_pages: 0: resize. */
static int change_locked(resize *z, uint64_t id, size_t reserve_pages) {
    if (!pool_lock_api(z->pool, z->alone ? ALONE_WAIT_NS : 0))
        return USWAP_RESIZE_LATER;
    int status;
    z->r = region_get_by_id(&z->pool->regions, id);
    if (z->r) {
        region_put(z->r); /* api_lock keeps it from going */
        status = reserve_pages > z->r->object.pages ? reserve(z, reserve_pages) : USWAP_RESIZED;
        if (reserve_pages == 0)
            status = change(z);
    } else {
        status = error_set(&z->error, USWAP_E_CLOSED, 0, "region", NULL, "the region is closed");
    }
    small_lock_release(&z->pool->api_lock);
    return status;
}

static int run(uswap_pool *pool, uint64_t id, int64_t length, bool alone, size_t reserve_pages,
               const uswap_mapping *mapping, uswap_error *err) {
    if (length <= 0 || length >> 47 || reserve_pages >> (47 - PAGE_SHIFT))
        return error_set(err, length <= 0 ? USWAP_E_INVALID : USWAP_E_NO_MEMORY, ENOMEM, "region", NULL,
                         "a region cannot have %lld bytes", (long long)length);
    resize z = {.pool = pool,
                .pages = bytes_to_pages((uint64_t)length),
                .length = length,
                .alone = alone,
                .mapping = mapping,
                .error = {.status = USWAP_OK}};
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    status = change_locked(&z, id, reserve_pages);
    if (status < 0 && err)
        *err = z.error;
    api_leave(&guard);
    return status;
}

EXPORT int uswap_region_resize(uswap_pool *pool, uint64_t id, int64_t length, int promise, const uswap_mapping *mapping,
                               uswap_error *err) {
    return run(pool, id, length, promise == USWAP_RESIZE_ALONE, 0, mapping, err);
}

EXPORT int uswap_region_reserve(uswap_pool *pool, uint64_t id, uint64_t reserve_bytes, int64_t length,
                                const uswap_mapping *mapping, uswap_error *err) {
    return run(pool, id, length, false, bytes_to_pages(reserve_bytes), mapping, err);
}
