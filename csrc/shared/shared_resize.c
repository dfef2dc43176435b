/*
 * shared_resize.c - uswap_shared_resize: this process's view of an object gets longer, shorter or other addresses, and the object with it (README, An
 * object's size).
 *
 * Owns: what is mapped at a view's addresses once it is there, and the addresses that were one's. All under api_lock.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "base/status.h"
#include "fault/uffd.h"
#include "pool.h"
#include "region/region_range.h"
#include "shared/shared_core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define NOTHING (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
#define READ_WRITE (PROT_READ | PROT_WRITE)
/* How long one who keeps others out meanwhile (the GIL) is made to wait for the lock in one call. */
#define ALONE_WAIT_NS UINT64_C(50000000)

typedef struct {
    uswap_pool *pool;
    group *g;
    shared_region *r;
    object_entry *object;
    size_t pages; /* wanted */
    bool alone;
    const uswap_mapping *mapping;
    former_view *former; /* if it moves: what its addresses will be */
    unsigned char *to;   /* where the view is to be */
    size_t room;         /* pages whose addresses are ours there */
    uint32_t pid;        /* who is in the way */
    uswap_error error;   /* of its own: the caller's may lie in this very region */
} change;

static size_t bytes_of(size_t pages) {
    return pages << PAGE_SHIFT;
}

/* ---- addresses ---- */

/* => no page, no file, nobody waits there, and nothing else comes there. */
static void occupy(group *g, unsigned char *at, size_t bytes) {
    mprotect(at, bytes, PROT_NONE);
    uffd_unregister(g->uffd, at, bytes); /* wakes */
    mmap(at, bytes, PROT_NONE, NOTHING | MAP_FIXED, -1, 0);
}

static void free_formers(former_view **formers) {
    for (former_view *former = *formers, *next; former; former = next) {
        next = former->next;
        munmap(former->base, former->bytes);
        free(former);
    }
    *formers = NULL;
}

/* What the caller has unmapped is occupied again, but where somebody else has come meanwhile: no region of ours, for it is not forgotten yet. */
static void keep_view(group *g, const shared_region *r) {
    size_t view = bytes_of(r->pages), all = bytes_of(MAX_OF(r->room, r->pages));
    bool whole = mmap(r->base, view, PROT_NONE, NOTHING | MAP_FIXED_NOREPLACE, -1, 0) == r->base;
    former_view *former = malloc(sizeof *former);
    if (!former) /* they stay so for good */
        return;
    *former =
        (former_view){.next = g->formers, .base = whole ? r->base : r->base + view, .bytes = whole ? all : all - view};
    g->formers = former;
}

void shared_view_free(group *g, shared_region *r) {
    if (mappers_await_ended(g)) {
        free_formers(&r->formers);
        free_formers(&g->formers);
        if (r->room > r->pages)
            munmap(shared_address(r, r->pages), bytes_of(r->room - r->pages));
        return;
    }
    keep_view(g, r);
    while (r->formers) {
        former_view *former = r->formers;
        r->formers = former->next;
        former->next = g->formers;
        g->formers = former;
    }
}

void shared_views_free(group *g) {
    free_formers(&g->formers);
}

/* Addresses for so many pages, behind those that are ours. Return: false: they are somebody's. */
static bool more_room(change *z) {
    shared_region *r = z->r;
    unsigned char *at = shared_address(r, r->room);
    size_t bytes = bytes_of(z->pages - r->room);
    if (region_table_overlaps(&z->pool->regions, NULL, at, bytes))
        return false;
    void *got = mmap(at, bytes, PROT_NONE, NOTHING | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == at)
        r->room = z->pages;
    else if (got != MAP_FAILED)
        munmap(got, bytes); /* a kernel before 4.17 takes the address for a wish */
    return got == at;
}

/* The object's pages from there on, at addresses that are ours: watched first, accessible then. Return: 0 or -errno. */
static int show(const change *z, size_t page) {
    unsigned char *at = z->to + bytes_of(page);
    size_t bytes = bytes_of(z->pages - page);
    if (mmap(at, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, z->r->fd, (off_t)bytes_of(page)) != at)
        return -errno;
    munlock(at, bytes);
    madvise(at, bytes, MADV_NOHUGEPAGE);
    madvise(at, bytes, MADV_DONTFORK);
    int status = uffd_register(z->g->uffd, at, bytes, UFFD_MISSING | UFFD_MINOR | UFFD_WP);
    if (status == 0 && mprotect(at, bytes, READ_WRITE) != 0)
        status = -errno;
    return status;
}

/* ---- a longer view: made, taken back, said ---- */

static int no_addresses(change *z, int os_errno) {
    return error_set(&z->error, USWAP_E_NO_MEMORY, os_errno, "resize", NULL, "no address space for %llu bytes: %s",
                     (unsigned long long)bytes_of(z->pages), error_text(os_errno));
}

static int make_elsewhere(change *z) {
    z->to = NULL;
    z->former = malloc(sizeof *z->former);
    void *at = z->former ? mmap(NULL, bytes_of(z->pages), PROT_NONE, NOTHING, -1, 0) : MAP_FAILED;
    if (at == MAP_FAILED)
        return -ENOMEM;
    z->to = at;
    z->room = z->pages;
    int status = region_table_overlaps(&z->pool->regions, NULL, z->to, bytes_of(z->pages)) ? -ENOMEM : show(z, 0);
    return status == 0 ? region_copy_protection(z->r->base, z->to, bytes_of(z->r->pages)) : status;
}

/* Everything but that anybody knows of it. Return: a uswap_resize_outcome or a uswap_status. */
static int make_view(change *z) {
    shared_region *r = z->r;
    z->to = r->base;
    int status;
    if (z->pages <= r->room || more_room(z)) {
        z->room = r->room;
        status = show(z, r->pages);
    } else if (!z->alone) {
        return USWAP_RESIZE_ALONE_ONLY;
    } else if (*z->mapping->exports) {
        return USWAP_RESIZE_EXPORTED;
    } else {
        status = make_elsewhere(z);
    }
    FAILPOINT(object_viewed);
    return status == 0 ? USWAP_RESIZED : no_addresses(z, -status);
}

static void take_view_back(change *z) {
    shared_region *r = z->r;
    if (z->to == r->base) {
        occupy(z->g, shared_address(r, r->pages), bytes_of(z->pages - r->pages));
        return;
    }
    if (z->to) {
        uffd_unregister(z->g->uffd, z->to, bytes_of(z->pages));
        munmap(z->to, bytes_of(z->pages));
    }
    free(z->former);
}

/* The order is that of who reads them: pages, then base. */
static void say_view(change *z) {
    shared_region *r = z->r;
    unsigned self = member_index(z->g->self);
    unsigned char *from = r->base;
    size_t room = r->room;
    atomic_store(&z->object->base[self], (uintptr_t)z->to);
    atomic_store(&z->object->mapped[self], z->pages);
    r->base = z->to;
    r->room = z->room;
    r->pages = z->pages;
    atomic_fetch_add(&z->object->epoch, 1);
    if (z->to == from)
        return;
    occupy(z->g, from, bytes_of(room));
    *z->former = (former_view){.next = r->formers, .base = from, .bytes = bytes_of(room)};
    r->formers = z->former;
}

/* The object ends there by now, and so does r's view, but for what is mapped; its addresses are kept. */
static void cut_view(change *z, size_t before) {
    if (before <= z->pages)
        return;
    occupy(z->g, shared_address(z->r, z->pages), bytes_of(before - z->pages));
    atomic_store(&z->object->mapped[member_index(z->g->self)], z->pages);
}

/* ---- the object and the view ---- */

static int refuse(change *z, int status) {
    unsigned long long bytes = bytes_of(z->pages);
    switch (status) {
    case -E2BIG:
        return error_set(&z->error, USWAP_E_NO_MEMORY, ENOMEM, "resize", NULL,
                         "the region was not made to grow to %llu bytes: make it with reserve=", bytes);
    case -EBUSY:
        if (z->pid != 0)
            return error_set(&z->error, USWAP_E_BUSY, EBUSY, "resize", NULL,
                             "process %u has mapped more of the region than %llu bytes: it must close it before",
                             z->pid, bytes);
        return error_set(&z->error, USWAP_E_BUSY, EBUSY, "resize", NULL,
                         "a process holds pages beyond the new end (lock, resident): unlock them first");
    case -EAGAIN: /* the error is for who has no patience any more */
        if (z->pid != 0)
            error_set(&z->error, USWAP_E_BUSY, EBUSY, "resize", NULL,
                      "process %u is changing the region's size, and does not go on", z->pid);
        else
            error_set(&z->error, USWAP_E_BUSY, EBUSY, "resize", NULL,
                      "a page beyond the new end is in the hands of a process that does not go on");
        return USWAP_RESIZE_LATER;
    default:
        return error_set(&z->error, USWAP_E_NO_MEMORY, -status, "resize", NULL, "no room for %llu bytes: %s", bytes,
                         error_text(-status));
    }
}

/* Context: this member is the one that changes it. */
static int change_object(change *z) {
    uint64_t now = object_pages(z->object);
    int status = 0;
    if (now < z->pages)
        status = object_grow(z->g, z->r);
    else if (now > z->pages)
        status = object_shrink(z->g, z->r, &z->pid);
    return status == 0 ? USWAP_RESIZED : refuse(z, status);
}

static int change_both(change *z) {
    size_t before = z->r->pages;
    int status = USWAP_RESIZED;
    if (z->pages > before)
        status = make_view(z);
    if (status == USWAP_RESIZED)
        status = change_object(z);
    if (status == USWAP_RESIZED && z->pages > before)
        say_view(z);
    else if (status == USWAP_RESIZED)
        cut_view(z, before);
    else if (z->pages > before && status != USWAP_RESIZE_ALONE_ONLY && status != USWAP_RESIZE_EXPORTED)
        take_view_back(z);
    return status;
}

/* pages 0: as many as the object has. */
static int change_locked(change *z, size_t pages) {
    size_t view = z->r->pages;
    for (;;) {
        z->pages = pages ? pages : object_view_pages(z->object);
        z->pid = 0;
        if (z->pages == view && object_pages(z->object) == view)
            return USWAP_RESIZED;
        bool shorter = z->pages < view || z->pages < object_pages(z->object);
        if (shorter && pages != 0 && !z->alone)
            return USWAP_RESIZE_ALONE_ONLY;
        if (z->pages < view && *z->mapping->exports)
            return USWAP_RESIZE_EXPORTED;
        int status = object_resize_begin(z->g, z->r->object, z->pages, &z->pid);
        if (status != 0)
            return refuse(z, status);
        /* Only now nobody else changes it. */
        bool same = pages != 0 || z->pages == object_pages(z->object);
        if (same)
            status = change_both(z);
        object_resize_end(z->g, z->r->object);
        if (same)
            return status;
    }
}

static int change_here(change *z, uint64_t object, size_t pages) {
    if (!pool_lock_api(z->pool, z->alone ? ALONE_WAIT_NS : 0)) {
        error_set(&z->error, USWAP_E_BUSY, EBUSY, "resize", NULL, "another call keeps the pool busy");
        return USWAP_RESIZE_LATER;
    }
    int status;
    z->r = object < OBJECTS_MAX ? shared_region_get(z->g, (uint32_t)object) : NULL;
    if (z->r) {
        z->object = group_object(z->g, z->r->object);
        status = change_locked(z, pages);
        if (status == USWAP_RESIZED) {
            *z->mapping->address = (uintptr_t)z->r->base;
            *z->mapping->length = (int64_t)bytes_of(z->r->pages);
        }
        shared_region_put(z->r);
    } else {
        status =
            error_set(&z->error, USWAP_E_CLOSED, 0, "shared", NULL, "the shared region is not open in this process");
    }
    small_lock_release(&z->pool->api_lock);
    return status;
}

EXPORT int uswap_shared_resize(uswap_pool *pool, uint64_t object, int64_t length, int promise,
                               const uswap_mapping *mapping, uswap_error *err) {
    if (length < 0 || (uint64_t)length >> (OBJECT_SIZE_SHIFT + PAGE_SHIFT))
        return error_set(err, USWAP_E_NO_MEMORY, ENOMEM, "resize", NULL, "a region cannot have %lld bytes",
                         (long long)length);
    change z = {.pool = pool, .alone = promise == USWAP_RESIZE_ALONE, .mapping = mapping};
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    z.g = atomic_load(&pool->group);
    status = z.g ? change_here(&z, object, bytes_to_pages((uint64_t)length))
                 : error_set(&z.error, USWAP_E_INVALID, 0, "shared", NULL, "the pool is not a named one");
    if ((status < 0 || status == USWAP_RESIZE_LATER) && err)
        *err = z.error;
    api_leave(&guard);
    return status;
}
