/*
 * shared_api.c - the API of shared regions.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "base/status.h"
#include "pool.h"
#include "shared/group_info.h"
#include "shared/object_place.h"
#include "shared/shared_advise.h"
#include "shared/shared_core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What every call on a range of a shared region begins and ends with. */
typedef struct {
    api_guard guard;
    group *g;
    shared_region *r;
    size_t first, count; /* pages */
} shared_range;

static int enter(uswap_pool *pool, api_guard *guard, group **g, uswap_error *err) {
    int status = api_enter(pool, guard, err);
    if (status != 0)
        return status;
    *g = atomic_load(&pool->group);
    if (*g)
        return 0;
    api_leave(guard);
    return error_set(err, USWAP_E_INVALID, 0, "shared", NULL, "the pool is not a named one: it has no shared regions");
}

static int not_mapped(uswap_error *err, uint32_t object) {
    return error_set(err, USWAP_E_CLOSED, 0, "shared", NULL, "shared region %u is not open in this process", object);
}

static int range_begin(shared_range *range, uswap_pool *pool, uint32_t object, uint64_t start, uint64_t length,
                       bool inside, uswap_error *err) {
    int status = enter(pool, &range->guard, &range->g, err);
    if (status != 0)
        return status;
    range->r = shared_region_get(range->g, object);
    uint64_t bytes = range->r ? (uint64_t)range->r->pages << PAGE_SHIFT : 0;
    if (range->r && start <= bytes && length <= bytes - start) {
        uint64_t round = PAGE_BYTES - 1, end = start + length;
        range->first = (inside ? start + round : start) >> PAGE_SHIFT;
        size_t last = (inside ? end : end + round) >> PAGE_SHIFT;
        range->count = last > range->first ? last - range->first : 0;
        return 0;
    }
    if (range->r)
        shared_region_put(range->r);
    api_leave(&range->guard);
    if (!range->r)
        return not_mapped(err, object);
    return error_set(err, USWAP_E_INVALID, 0, "shared", NULL, "the range lies outside of the region");
}

static void range_end(shared_range *range) {
    shared_region_put(range->r);
    api_leave(&range->guard);
}

static int lost(uswap_error *err, const char *operation, const shared_range *range, size_t bad, int why) {
    error_set(err, USWAP_E_SWAP_READ, why, operation, NULL, "page %zu of shared region %u (offset %#zx) is lost: %s",
              bad, range->r->object, bad << PAGE_SHIFT, lost_because(why));
    if (err)
        err->offset = bad << PAGE_SHIFT;
    return USWAP_E_SWAP_READ;
}

/* ---- mapped ---- */

/* Where a shared region is to be: the caller's. */
typedef struct {
    unsigned char *address;
    uint64_t bytes, reserve_bytes;
    const uswap_mapping *mapping;
} shared_place;

/* The rest of the mapping is for the region to grow into: no access, no file. */
static int keep_room(const shared_place *at) {
    if (at->reserve_bytes <= at->bytes)
        return 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(at->address + at->bytes, at->reserve_bytes - at->bytes, PROT_NONE, flags, -1, 0) == MAP_FAILED)
        return -errno;
    *at->mapping->length = (int64_t)at->bytes;
    return 0;
}

/* Context: as objects_map. */
static int map_at(group *g, uint32_t index, int fd, const shared_place *at) {
    size_t pages = at->bytes >> PAGE_SHIFT, room = MAX_OF(at->bytes, at->reserve_bytes) >> PAGE_SHIFT;
    int status = objects_map(g, index, fd, at->address, pages, room);
    if (status == 0 && (status = keep_room(at)) != 0) {
        g->regions[index].room = pages;
        objects_unmap(g, index);
    }
    return status;
}

/* ---- made ---- */

/* Return: its index, or -errno. Context: api_lock. */
static int64_t make(group *g, const shared_place *at, const char *name, uint64_t region_id) {
    uint64_t pages = at->bytes >> PAGE_SHIFT, reserve = MAX_OF(at->bytes, at->reserve_bytes) >> PAGE_SHIFT;
    int fd;
    if (pages == 0 || reserve > OBJECT_PAGES_MASK || strlen(name) >= OBJECT_NAME_BYTES)
        return -EINVAL;
    int64_t made = objects_create(g, pages, reserve, name, region_id, &fd);
    if (made < 0)
        return made;
    int status = map_at(g, (uint32_t)made, fd, at);
    close(fd);
    if (status != 0)
        objects_unmap(g, (uint32_t)made);
    return status != 0 ? status : made;
}

static int not_made(uswap_error *err, int64_t why, const char *name, uint64_t bytes) {
    switch (why) {
    case -EEXIST:
        return error_set(err, USWAP_E_INVALID, EEXIST, "region", name, "a shared region named '%s' exists", name);
    case -EINVAL:
        return error_set(err, USWAP_E_INVALID, 0, "region", NULL, "bad size, or a name of more than %d bytes",
                         OBJECT_NAME_BYTES - 1);
    case -ENFILE:
        return error_set(err, USWAP_E_NO_MEMORY, 0, "region", NULL, "a pool has at most %d shared regions",
                         OBJECTS_MAX);
    default:
        return error_set(err, USWAP_E_NO_MEMORY, (int)-why, "region", NULL,
                         "no room for a shared region of %llu bytes: %s", (unsigned long long)bytes,
                         error_text((int)-why));
    }
}

EXPORT int uswap_shared_create(uswap_pool *pool, void *address, uint64_t bytes, uint64_t reserve_bytes,
                               const uswap_mapping *mapping, const char *name, uint64_t region_id, uint64_t *cell,
                               uswap_error *err) {
    api_guard guard;
    group *g;
    int status = enter(pool, &guard, &g, err);
    if (status != 0)
        return status;
    shared_place at = {address, bytes, reserve_bytes, mapping};
    fork_hold(); /* a child has the file's memory as long as that is not MADV_DONTFORK */
    small_lock_acquire(&pool->api_lock);
    int64_t made = make(g, &at, name, region_id);
    if (made >= 0)
        *cell = (uint64_t)made + 1;
    small_lock_release(&pool->api_lock);
    fork_allow();
    api_leave(&guard);
    return made >= 0 ? 0 : not_made(err, made, name, bytes);
}

/* ---- opened ---- */

static int no_such(uswap_error *err) {
    return error_set(err, USWAP_E_INVALID, ENOENT, "region", NULL, "there is no shared region of that number");
}

/* Context: visited, or what follows is only a hint. */
static bool is_there(const group *g, uint32_t index, uint64_t region_id, const char *name) {
    const object_entry *object = group_object(g, index);
    return object_state_of(atomic_load(&object->state)) == OBJECT_LIVE &&
           atomic_load(&object->creator_region) == region_id && strncmp(object->name, name, OBJECT_NAME_BYTES) == 0;
}

/* This process's own, or one that another gives. Return: or -errno. */
static int file_of(group *g, uint32_t index) {
    shared_region *r = shared_region_get(g, index);
    if (!r)
        return peers_object_fd(g, index);
    int file = fcntl(r->fd, F_DUPFD_CLOEXEC, 3);
    if (file < 0)
        file = -errno;
    shared_region_put(r);
    return file;
}

/* Context: visited, so all that is found is of one object. */
static int open_at(group *g, uint32_t index, const shared_place *at) {
    int fd = file_of(g, index);
    if (fd < 0)
        return fd;
    FAILPOINT(object_file);
    fork_hold();
    small_lock_acquire(&g->pool->api_lock);
    int status = map_at(g, index, fd, at);
    small_lock_release(&g->pool->api_lock);
    fork_allow();
    close(fd);
    return status;
}

EXPORT int uswap_shared_find(uswap_pool *pool, uint32_t index, uint64_t region_id, const char *name, uint64_t *bytes,
                             uint64_t *reserve_bytes, uswap_error *err) {
    api_guard guard;
    group *g;
    int status = enter(pool, &guard, &g, err);
    if (status != 0)
        return status;
    bool found = index < OBJECTS_MAX && is_there(g, index, region_id, name);
    if (found) {
        const object_entry *object = group_object(g, index);
        *bytes = object_view_pages(object) << PAGE_SHIFT;
        *reserve_bytes = MAX_OF(*bytes, atomic_load(&object->reserve) << PAGE_SHIFT);
        found = *bytes > 0; /* else it has ended meanwhile */
    }
    api_leave(&guard);
    return found ? 0 : no_such(err);
}

EXPORT int uswap_shared_open(uswap_pool *pool, void *address, uint64_t bytes, uint64_t reserve_bytes,
                             const uswap_mapping *mapping, uint32_t index, uint64_t region_id, const char *name,
                             uint64_t *cell, uswap_error *err) {
    api_guard guard;
    group *g;
    int status = enter(pool, &guard, &g, err);
    if (status != 0)
        return status;
    shared_place at = {address, bytes, reserve_bytes, mapping};
    status = -ENOENT;
    if (index < OBJECTS_MAX) {
        small_lock_acquire(&g->open_lock);
        object_visit visit = object_visit_begin(g, index);
        if (is_there(g, index, region_id, name))
            status = open_at(g, index, &at);
        object_visit_end(visit);
        small_lock_release(&g->open_lock);
        if (status == -ENOENT ||
            status == -EAGAIN) /* nobody else may have it: the last one may have been stopped, or just have gone */
            objects_end(g, index);
    }
    if (status == 0)
        *cell = (uint64_t)index + 1;
    api_leave(&guard);
    if (status == -ENOENT)
        return no_such(err);
    if (status == -EBUSY)
        return error_set(err, USWAP_E_BUSY, 0, "open", NULL, "shared region %u is open in this process already", index);
    return status == 0 ? 0
                       : error_set(err, USWAP_E_OS, -status, "open", NULL,
                                   "the shared region could not be opened, nor one of its members asked: %s",
                                   error_text(-status));
}

EXPORT int uswap_shared_size(uswap_pool *pool, uint32_t object, uint64_t *bytes, uint64_t *key, uswap_error *err) {
    shared_range range;
    int status = range_begin(&range, pool, object, 0, 0, false, err);
    if (status != 0)
        return status;
    *bytes = object_view_pages(group_object(range.g, object)) << PAGE_SHIFT;
    *key = shared_key(object, range.r->generation);
    range_end(&range);
    return 0;
}

EXPORT int uswap_shared_unmap(uswap_pool *pool, uint32_t object, uswap_error *err) {
    api_guard guard;
    group *g;
    int status = enter(pool, &guard, &g, err);
    if (status != 0)
        return status;
    if (object < OBJECTS_MAX) {
        small_lock_acquire(&pool->api_lock);
        shared_release_all(g, object);
        objects_unmap(g, object);
        small_lock_release(&pool->api_lock);
    }
    api_leave(&guard);
    return 0;
}

EXPORT int uswap_shared_get_info(uswap_pool *pool, uint32_t object, uswap_object_info *info, uswap_error *err) {
    api_guard guard;
    group *g;
    int status = enter(pool, &guard, &g, err);
    if (status != 0)
        return status;
    bool found = object < OBJECTS_MAX && group_info_object(&g->commons, object, info);
    api_leave(&guard);
    return found ? 0 : no_such(err);
}

/* ---- ranges ---- */

/* The share thread reads it in its own time; what does not fit into its orders is not read. */
static void will_need(const shared_range *range) {
    shared_order order = {.object = range->r->object, .page = range->first, .pages = range->count};
    shared_order_give(range->g, &order);
}

static int follow_advice(const shared_range *range, uint32_t advice, uswap_error *err) {
    switch (advice) {
    case USWAP_ADVICE_NORMAL:
    case USWAP_ADVICE_RANDOM:
    case USWAP_ADVICE_SEQUENTIAL:
        atomic_store(&range->r->advice, advice);
        return 0;
    case USWAP_ADVICE_WILLNEED:
        will_need(range);
        return 0;
    case USWAP_ADVICE_DONTNEED:
        if (shared_discard(range->g, range->r, range->first, range->count) == 0)
            return 0;
        return error_set(err, USWAP_E_BUSY, EBUSY, "discard", NULL,
                         "the range is locked or held by a process of the pool (at least in part)");
    case USWAP_ADVICE_COLD:
    case USWAP_ADVICE_PAGEOUT:
        shared_evict(range->g, range->r, range->first, range->count);
        return 0;
    default:
        return error_set(err, USWAP_E_INVALID, 0, "advise", NULL, "no such advice: %u", advice);
    }
}

EXPORT int uswap_shared_advise(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                               uint32_t advice, uswap_error *err) {
    shared_range range;
    int status = range_begin(&range, pool, object, start_bytes, length_bytes, advice == USWAP_ADVICE_DONTNEED, err);
    if (status != 0)
        return status;
    status = range.count > 0 ? follow_advice(&range, advice, err) : 0;
    range_end(&range);
    return status;
}

EXPORT int uswap_shared_priority(uswap_pool *pool, uint32_t object, const int32_t *set, int32_t *now,
                                 uswap_error *err) {
    shared_range range;
    int status = range_begin(&range, pool, object, 0, 0, false, err);
    if (status != 0)
        return status;
    object_entry *entry = group_object(range.g, object);
    if (set) {
        atomic_store(&entry->priority, *set);
        heat_look_at_priorities(range.g);
    }
    *now = (int32_t)atomic_load(&entry->priority);
    range_end(&range);
    return 0;
}

EXPORT int uswap_shared_protect(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                                uint32_t protection, uswap_error *err) {
    shared_range range;
    if (protection & ~(uint32_t)(PROT_READ | PROT_WRITE))
        return error_set(err, USWAP_E_INVALID, 0, "protect", NULL, "protection is made of READ and WRITE");
    if (start_bytes % PAGE_BYTES != 0)
        return error_set(err, USWAP_E_INVALID, 0, "protect", NULL, "start must be a multiple of 4096");
    int status = range_begin(&range, pool, object, start_bytes, length_bytes, false, err);
    if (status != 0)
        return status;
    void *address = range.r->base + (range.first << PAGE_SHIFT);
    if (range.count > 0 && mprotect(address, range.count << PAGE_SHIFT, (int)protection) != 0)
        status =
            error_set(err, USWAP_E_OS, errno, "mprotect", NULL, "cannot protect the range: %s%s", error_text(errno),
                      errno == ENOMEM ? " (each change of protection splits a mapping: see vm.max_map_count)" : "");
    range_end(&range);
    return status;
}

EXPORT int uswap_shared_hold(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                             uint8_t *held, uswap_error *err) {
    shared_range range;
    int status = range_begin(&range, pool, object, start_bytes, length_bytes, false, err);
    if (status != 0)
        return status;
    size_t bad = 0;
    status = range.count > 0 ? shared_hold(range.g, range.r, range.first, range.count, &bad) : 0;
    if (status == -EIO)
        status = lost(err, "hold", &range, bad, (int)shared_field_of(shared_load(&range.r->words[bad])));
    else if (status == -EMFILE)
        status = error_set(err, USWAP_E_LIMIT, EMFILE, "hold", NULL,
                           "a process holds at most %d ranges of shared regions", HOLDS_MAX);
    else if (status == -EBUSY)
        status =
            error_set(err, USWAP_E_BUSY, EBUSY, "hold", NULL,
                      "a process of the pool is stopped while it takes pages out of memory: let it go on, or end it");
    else if (status != 0)
        status = error_set(err, USWAP_E_LIMIT, 0, "hold", NULL,
                           "holding %llu bytes needs more memory than the pool's limit leaves to shared pages",
                           (unsigned long long)range.count << PAGE_SHIFT);
    *held = status == 0;
    range_end(&range);
    return status;
}

EXPORT int uswap_shared_release(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                                uswap_error *err) {
    shared_range range;
    int status = range_begin(&range, pool, object, start_bytes, length_bytes, false, err);
    if (status != 0)
        return status;
    if (range.count > 0)
        shared_release(range.g, range.r, range.first, range.count);
    range_end(&range);
    return 0;
}

EXPORT int uswap_shared_verify(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                               uswap_error *err) {
    shared_range range;
    int status = range_begin(&range, pool, object, start_bytes, length_bytes, false, err);
    if (status != 0)
        return status;
    size_t bad = 0;
    int why = 0;
    status = shared_verify(range.g, range.r, range.first, range.count, &bad, &why);
    if (status == -EIO)
        status = lost(err, "verify", &range, bad, why);
    else if (status != 0)
        status = error_set(err, USWAP_E_NO_MEMORY, -status, "verify", NULL, "%s", error_text(-status));
    range_end(&range);
    return status;
}

/* ---- single pages ---- */

static uint8_t class_of(uint64_t word) {
    switch (shared_state_of(word)) {
    case SHARED_RESIDENT:
    case SHARED_WRITING:
        return USWAP_PAGE_RESIDENT;
    case SHARED_LEAVING:
        if (shared_field_of(word) == 0)
            break;
        return USWAP_PAGE_SWAPPED;
    case SHARED_SWAPPED:
        return USWAP_PAGE_SWAPPED;
    case SHARED_READING:
        return USWAP_PAGE_CACHED;
    case SHARED_POISONED:
        return USWAP_PAGE_POISONED;
    case SHARED_ZERO:
        break;
    }
    return USWAP_PAGE_ZERO;
}

EXPORT int uswap_shared_page_classes(uswap_pool *pool, uint32_t object, uint64_t first_page, uint64_t pages,
                                     uint8_t *classes, uswap_error *err) {
    shared_range range;
    uint64_t bound = UINT64_MAX >> PAGE_SHIFT;
    int status = range_begin(&range, pool, object, MIN_OF(first_page, bound) << PAGE_SHIFT,
                             MIN_OF(pages, bound) << PAGE_SHIFT, false, err);
    if (status != 0)
        return status;
    for (size_t i = 0; i < range.count; i++)
        classes[i] = class_of(shared_load(&range.r->words[range.first + i]));
    range_end(&range);
    return 0;
}

/* By the kernel's page map of that process, if this one may look at it. */
static bool has_mapped(uint32_t pid, uint64_t address) {
    char path[40];
    uint64_t entry = 0;
    snprintf(path, sizeof path, "/proc/%u/pagemap", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = pread(fd, &entry, sizeof entry, (off_t)((address >> PAGE_SHIFT) * sizeof entry));
    close(fd);
    return length == (ssize_t)sizeof entry && entry >> 63;
}

EXPORT int uswap_shared_users(uswap_pool *pool, uint32_t object, uint64_t page, uswap_page_user *users,
                              uint32_t capacity, uswap_error *err) {
    shared_range range;
    int status =
        range_begin(&range, pool, object, MIN_OF(page, UINT64_MAX >> PAGE_SHIFT) << PAGE_SHIFT, PAGE_BYTES, false, err);
    if (status != 0)
        return status;
    const object_entry *entry = group_object(range.g, object);
    uint32_t count = 0;
    for (uint64_t bits = atomic_load(&entry->mappers) & ~MAPPERS_CLOSED; bits != 0; bits &= bits - 1) {
        unsigned index = (unsigned)__builtin_ctzll(bits);
        if (page >= atomic_load(&entry->mapped[index]))
            continue; /* it sees less */
        uint32_t pid = member_pid_of(atomic_load(&commons_head(&range.g->commons)->members[index].state));
        uint64_t address = atomic_load(&entry->base[index]) + (page << PAGE_SHIFT);
        if (count < capacity)
            users[count] = (uswap_page_user){.pid = pid, .mapped = has_mapped(pid, address), .page = page};
        count++;
    }
    range_end(&range);
    return (int)count;
}
