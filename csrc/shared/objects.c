#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "fault/uffd.h"
#include "shared/mend.h"
#include "shared/object_place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- made ---- */

static bool has_name(group *g, uint32_t index, const char *name) {
    object_entry *object = group_object(g, index);
    object_state state = object_state_of(atomic_load(&object->state));
    return (state == OBJECT_LIVE || state == OBJECT_MAKING) && strncmp(object->name, name, OBJECT_NAME_BYTES) == 0;
}

/* Whether an object of that name is there, or on its way. */
static bool name_taken(group *g, const char *name, uint32_t but) {
    for (uint32_t i = 0; i < OBJECTS_MAX; i++) {
        if (i == but || !has_name(g, i, name))
            continue;
        if (atomic_load(&group_object(g, i)->mappers) == MAPPERS_CLOSED)
            objects_end(g, i); /* whoever was to end it may be stopped */
        if (has_name(g, i, name))
            return true;
    }
    return false;
}

/* Words cannot move, so there is room for more: for so many pages at least, and for so many times of what there is at first; of all the memory
 * for words no more than that part. */
#define ROOM_LEAST_PAGES (UINT64_C(1) << 18)
#define ROOM_TIMES 8U
#define ROOM_SHARE 64U

/* reserve: pages that there must be words for. */
static int make_words(group *g, object_entry *object, uint64_t pages, uint64_t reserve) {
    uint64_t least = reserve * sizeof(shared_word), most = g->commons.bytes / ROOM_SHARE;
    uint64_t bytes = MAX_OF(least, MIN_OF(MAX_OF(pages * ROOM_TIMES, ROOM_LEAST_PAGES) * sizeof(shared_word), most));
    if (atomic_load(&object->words_bytes) < least) {
        int64_t offset = commons_allot(&g->commons, bytes);
        if (offset < 0)
            offset = commons_allot(&g->commons, bytes = least);
        if (offset < 0)
            return (int)offset;
        atomic_store(&object->words_bytes, 0);
        atomic_store(&object->words, (uint64_t)offset);
        atomic_store(&object->words_bytes, bytes);
    }
    atomic_store(&object->reserve, reserve);
    object_set_size(object, pages);
    return 0;
}

static int make_file(const char *name, uint64_t pages) {
    char full[OBJECT_NAME_BYTES + sizeof OBJECT_FILE_NAME] = OBJECT_FILE_NAME;
    strncat(full, *name ? name : "shared", OBJECT_NAME_BYTES);
    int fd = memfd_create(full, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)(pages << PAGE_SHIFT)) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0)
        return fd;
    int status = -errno;
    close(fd);
    return status;
}

int64_t objects_create(group *g, uint64_t pages, uint64_t reserve, const char *name, uint64_t region_id, int *fd) {
    atomic_store(&g->has_files, 1);
    int64_t index = object_place_take(g);
    if (index < 0)
        return index;
    object_entry *object = group_object(g, (uint32_t)index);
    strncpy(object->name, name, OBJECT_NAME_BYTES - 1);
    object->name[OBJECT_NAME_BYTES - 1] = '\0';
    /* Two that make the same name at once: each has written it before it looks, so at least one of them sees the other. */
    atomic_thread_fence(memory_order_seq_cst);
    int status = *name && name_taken(g, name, (uint32_t)index) ? -EEXIST : make_words(g, object, pages, reserve);
    FAILPOINT(object_made);
    if (status == 0)
        status = slot_table_reserve(g);
    if (status == 0 && (*fd = make_file(name, reserve)) < 0)
        status = *fd;
    if (status != 0) {
        object_place_give(g, (uint32_t)index);
        return status;
    }
    atomic_store(&object->mappers, 0);
    atomic_store(&object->creator_region, region_id);
    return index;
}

/* ---- mapped ---- */

uint64_t object_view_pages(const object_entry *object) {
    uint64_t resize = atomic_load(&object->resize), pages = object_pages(object);
    return resize == 0 ? pages : MIN_OF(pages, resize_pages_of(resize));
}

/* Return: 0, -ENOENT: the object ends, or -EAGAIN: it has not so many pages (any more). */
static int become_mapper(group *g, object_entry *object, unsigned char *base, size_t pages) {
    uint64_t bit = UINT64_C(1) << member_index(g->self), mappers = atomic_load(&object->mappers);
    atomic_store(&object->base[member_index(g->self)], (uintptr_t)base);
    atomic_store(&object->mapped[member_index(g->self)], pages);
    FAILPOINT(object_mapped);
    do
        if (mappers & MAPPERS_CLOSED)
            return -ENOENT;
    while (!atomic_compare_exchange_weak(&object->mappers, &mappers, mappers | bit));
    atomic_fetch_add(&object->epoch, 1);
    /* Who makes it shorter says so first, and looks who sees what then: one of the two sees the other. */
    if (pages <= object_view_pages(object))
        return 0;
    mappers_leave(object, member_index(g->self));
    return -EAGAIN;
}

/* All but where it is. Not live and references: who looked up the object that had this index before may be about to let go of it. */
static void region_begin(group *g, shared_region *r, uint32_t index, uint64_t state, int fd) {
    r->object = index;
    small_lock_acquire(&g->files_lock);
    r->generation = object_generation_of(state);
    r->fd = fd;
    small_lock_release(&g->files_lock);
    r->formers = NULL;
    r->words = commons_at(&g->commons, atomic_load(&group_object(g, index)->words));
    r->ahead = (read_ahead){0};
    r->fresh = (read_ahead){0};
    r->soft = (soft_runs){0};
    r->seal_turn = 0;
    r->waiting_ns = 0;
    r->advice = 0;
}

static void close_file(group *g, shared_region *r) {
    small_lock_acquire(&g->files_lock);
    int fd = r->fd;
    r->fd = 0;
    small_lock_release(&g->files_lock);
    close(fd);
}

/* => this process's file of an object that ends, for the caller to close; -1: it has none. Another thread may just be closing its own. */
static int file_for_a_while(group *g, uint32_t index, uint32_t generation) {
    shared_region *r = &g->regions[index];
    small_lock_acquire(&g->files_lock);
    int fd = r->fd > 0 && r->generation == generation ? fcntl(r->fd, F_DUPFD_CLOEXEC, 3) : -1;
    small_lock_release(&g->files_lock);
    return fd;
}

static bool is_being_made_here(const group *g, uint64_t state) {
    return object_state_of(state) == OBJECT_MAKING && member_equal(object_maker_of(state), g->self);
}

/* The caller's memory becomes the file's, and its faults ours. Return: 0 or -errno. */
static int map_file(group *g, int fd, unsigned char *base, size_t bytes) {
    int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED;
    if (mmap(base, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED)
        return -errno;
    madvise(base, bytes, MADV_NOHUGEPAGE);
    madvise(base, bytes, MADV_DONTFORK);
    return uffd_register(g->uffd, base, bytes, UFFD_MISSING | UFFD_MINOR | UFFD_WP);
}

static void note_end(group *g, uint32_t index) {
    uint32_t end = atomic_load(&g->regions_end);
    while (end <= index && !atomic_compare_exchange_weak(&g->regions_end, &end, index + 1)) {
    }
}

int objects_map(group *g, uint32_t index, int fd, unsigned char *base, size_t pages, size_t room) {
    object_entry *object = group_object(g, index);
    shared_region *r = &g->regions[index];
    uint64_t state = atomic_load(&object->state);
    if (r->fd > 0 || atomic_load(&r->live))
        return -EBUSY;
    size_t bytes = pages << PAGE_SHIFT;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0)
        return -errno;
    int status = map_file(g, own, base, bytes);
    if (status != 0) {
        close(own);
        return status;
    }
    region_begin(g, r, index, state, own);
    r->base = base;
    r->pages = pages;
    r->room = room;
    note_end(g, index);
    status = become_mapper(g, object, base, pages);
    if (status == 0) {
        atomic_store(&r->live, 1);
        if (is_being_made_here(g, state)) /* not before: who opens and closes it would be its last mapper, and end it */
            atomic_store(&object->state, object_state_make(OBJECT_LIVE, object_generation_of(state), MEMBER_NONE));
        return 0;
    }
    uffd_unregister(g->uffd, base, bytes);
    close_file(g, r);
    return status;
}

static void await_no_references(shared_region *r) {
    for (;;) { /* reads in flight end by themselves */
        uint32_t ticket = parking_ticket((const void *)&r->references);
        if (atomic_load(&r->references) == 0)
            return;
        parking_wait((const void *)&r->references, ticket, 0);
    }
}

void objects_unmap(group *g, uint32_t index) {
    object_entry *object = group_object(g, index);
    shared_region *r = &g->regions[index];
    if (!atomic_exchange(&r->live, 0)) {
        if (is_being_made_here(g, atomic_load(&object->state)))
            object_place_give(g, index); /* made, and never mapped */
        return;
    }
    await_no_references(r);
    mappers_leave(object, member_index(g->self));
    FAILPOINT(object_unmapped);
    objects_end(g, index);
    close_file(g, r);
    shared_view_free(g, r);
}

/* ---- ended ---- */

/* Return: whether all pages are free. */
static bool free_pages(group *g, uint32_t index, object_entry *object, uint64_t dying) {
    shared_word *words = commons_at(&g->commons, atomic_load(&object->words));
    uint64_t pages = object_pages(object);
    int fd = file_for_a_while(g, index, object_generation_of(dying));
    bool all = true, waiters = false;
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t word = shared_load(&words[page]);
        if (shared_state_of(word) == SHARED_ZERO && !(word & SHARED_LOCK))
            continue;
        all &= shared_try_discard(g, object, dying, fd, page, &waiters);
        if (page % 4096 == 0)
            FAILPOINT(object_ending);
    }
    if (fd >= 0)
        close(fd);
    return all;
}

/* Context: visited. */
static void end_visited(group *g, uint32_t index) {
    object_entry *object = group_object(g, index);
    uint64_t state = atomic_load(&object->state), none = 0;
    uint64_t dying = object_state_make(OBJECT_DYING, object_generation_of(state), MEMBER_NONE);
    if (object_state_of(state) == OBJECT_LIVE) {
        if (!atomic_compare_exchange_strong(&object->mappers, &none, MAPPERS_CLOSED) && none != MAPPERS_CLOSED)
            return;
        FAILPOINT(object_closed);
        atomic_compare_exchange_strong(&object->state, &state, dying);
    }
    if (atomic_load(&object->state) != dying || !free_pages(g, index, object, dying))
        return;
    object->name[0] = '\0'; /* or who takes the place would have it, until he has written his own */
    uint64_t ended = object_state_make(OBJECT_FREE, object_generation_of(dying), MEMBER_NONE);
    atomic_compare_exchange_strong(&object->state, &dying, ended);
}

void objects_end(group *g, uint32_t index) {
    object_visit visit = object_visit_begin(g, index);
    end_visited(g, index);
    object_visit_end(visit);
}

/* ---- found ---- */

shared_region *shared_region_get(group *g, uint32_t index) {
    if (index >= OBJECTS_MAX)
        return NULL;
    shared_region *r = &g->regions[index];
    if (!atomic_load(&r->live))
        return NULL;
    atomic_fetch_add(&r->references, 1);
    if (atomic_load(&r->live))
        return r;
    shared_region_put(r);
    return NULL;
}

shared_region *shared_region_at(group *g, uintptr_t address, size_t *page) {
    for (uint32_t i = 0; i < atomic_load(&g->regions_end); i++) {
        shared_region *r = shared_region_get(g, i);
        size_t pages = r ? r->pages : 0;
        *page = r ? (address - (uintptr_t)r->base) >> PAGE_SHIFT : 0;
        if (*page < pages)
            return r;
        if (r)
            shared_region_put(r);
    }
    return NULL;
}

void shared_region_put(shared_region *r) {
    /* Against "not live, then look at the references": one of the two sees the other. */
    if (atomic_fetch_sub(&r->references, 1) == 1 && !atomic_load(&r->live))
        parking_wake((const void *)&r->references);
}
