/*
 * object_size.c - an object gets longer or shorter (README, An object's size): one member at a time, and whoever mends after him.
 *
 * Owns: the words size and resize of an object that is LIVE. What becomes of this process's view is shared_resize.c's.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "shared/mend.h"
#include "shared/shared_core.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* So long a page is waited for that somebody else has locked: the caller may keep others from going on (the GIL). */
#define WAIT_NS UINT64_C(50000000)
#define LOOK_NS UINT64_C(5000000)

/* Pages behind the new end of an object. */
typedef struct {
    group *g;
    uint32_t index;
    object_entry *object;
    int fd;
    uint64_t from, end;
    uint64_t resize; /* as it must be for this to go on */
} cut;

static bool set_size(object_entry *object, uint64_t seen, uint64_t pages) {
    uint64_t changes = (seen >> OBJECT_SIZE_SHIFT) + 1;
    return atomic_compare_exchange_strong(&object->size, &seen, pages | changes << OBJECT_SIZE_SHIFT);
}

static uint32_t pid_of(const group *g, member_id id) {
    uint64_t state = atomic_load(&group_entry(g, id)->state);
    return member_equal(member_id_of(state), id) ? member_pid_of(state) : 0;
}

/* ---- one at a time ---- */

int object_resize_begin(group *g, uint32_t index, uint64_t pages, uint32_t *pid) {
    uint64_t seen = 0;
    if (!atomic_compare_exchange_strong(&group_object(g, index)->resize, &seen,
                                        resize_make(RESIZE_SAID, g->self, pages))) {
        *pid = pid_of(g, resize_member_of(seen));
        return -EAGAIN;
    }
    FAILPOINT(object_resizing);
    return 0;
}

void object_resize_end(group *g, uint32_t index) {
    atomic_store(&group_object(g, index)->resize, 0);
}

/* ---- longer ---- */

static int make_file_longer(int fd, uint64_t pages) {
    struct stat now;
    if (fstat(fd, &now) != 0)
        return -errno;
    if ((uint64_t)now.st_size >= pages << PAGE_SHIFT)
        return 0;
    return ftruncate(fd, (off_t)(pages << PAGE_SHIFT)) == 0 ? 0 : -errno;
}

int object_grow(group *g, shared_region *r) {
    object_entry *object = group_object(g, r->object);
    uint64_t seen = atomic_load(&object->size), pages = resize_pages_of(atomic_load(&object->resize));
    if (pages > atomic_load(&object->words_bytes) / sizeof(shared_word))
        return -E2BIG;
    int status = slot_table_reserve(g);
    if (status == 0)
        status = make_file_longer(r->fd, pages);
    FAILPOINT(object_growing);
    if (status == 0)
        set_size(object, seen, pages);
    FAILPOINT(object_grown);
    return status;
}

/* ---- shorter: what must not be cut off ---- */

/* Whether somebody else sees pages behind the new end. */
static int look_at_views(const cut *c, uint32_t *pid) {
    const commons_header *head = commons_head(&c->g->commons);
    for (uint64_t bits = atomic_load(&c->object->mappers) & ~MAPPERS_CLOSED; bits != 0; bits &= bits - 1) {
        unsigned index = (unsigned)__builtin_ctzll(bits);
        if (index == member_index(c->g->self) || atomic_load(&c->object->mapped[index]) <= c->from)
            continue;
        member_id id = member_id_of(atomic_load(&head->members[index].state));
        *pid = pid_of(c->g, id);
        return members_alive(c->g, id) ? -EBUSY : -EAGAIN;
    }
    return shared_range_is_held(c->g, c->index, c->from, c->end - c->from) ? -EBUSY : 0;
}

/* ---- shorter: the pages ---- */

static shared_word *words_of(const cut *c) {
    return commons_at(&c->g->commons, atomic_load(&c->object->words));
}

/* The next of them, from *page on, that has ever been something. */
static bool next_touched(const cut *c, uint64_t *page, uint64_t *end) {
    uint64_t at = atomic_load(&c->object->words), first, last;
    if (!commons_touched(&c->g->commons, at + *page * sizeof(shared_word), at + c->end * sizeof(shared_word), &first,
                         &last))
        return false;
    *page = (first - at) / sizeof(shared_word);
    *end = MIN_OF((last - at) / sizeof(shared_word), c->end);
    return *page < *end;
}

static void unlock(const cut *c, shared_word *word, uint64_t page) {
    shared_region gone = {.object = c->index, .fd = -1};
    if (shared_unlock(word, c->g->self))
        shared_wake(c->g, &gone, (size_t)page, 1);
}

static void break_read(const cut *c, shared_word *word, uint64_t page) {
    shared_region gone = {.object = c->index, .fd = -1};
    shared_break_read(c->g, &gone, page, word);
}

static bool is_ours(const cut *c, uint64_t word) {
    return (word & SHARED_LOCK) && !shared_is_nothing(word) && member_equal(shared_member_of(word), c->g->self);
}

/* A page that is ZERO may be locked all the same, by another thread, or be zeroes that leave: who evicts it has not let go of it yet. Return: whether it is locked by
 * the caller, or ZERO; *since: when the first wait of all began. */
static bool lock_one(const cut *c, shared_word *word, uint64_t page, uint64_t *since) {
    event *unlocked = &commons_head(&c->g->commons)->pages_unlocked;
    for (;;) {
        uint32_t seen = event_count(unlocked);
        uint64_t now = shared_load(word);
        if (shared_is_nothing(now))
            return true;
        break_read(c, word, page);
        if (shared_try_lock(word, c->g->self, true)) {
            if (shared_state_of(shared_load(word)) == SHARED_ZERO) /* discarded just before */
                unlock(c, word, page);
            return true;
        }
        *since = *since > 0 ? *since : clock_now_ns();
        if (clock_now_ns() - *since > WAIT_NS)
            return false;
        event_wait_shared(unlocked, seen, LOOK_NS);
    }
}

/* Locked ones up to there are let go. */
static void unlock_all(const cut *c, uint64_t end) {
    shared_word *words = words_of(c);
    for (uint64_t page = c->from, last; next_touched(c, &page, &last) && page < end; page = last)
        for (uint64_t i = page; i < MIN_OF(last, end); i++)
            if (is_ours(c, shared_load(&words[i])))
                unlock(c, &words[i], i);
}

/* Return: false: one could not be had, and none is locked. */
static bool lock_all(const cut *c) {
    shared_word *words = words_of(c);
    uint64_t since = 0;
    for (uint64_t page = c->from, last; next_touched(c, &page, &last); page = last)
        for (uint64_t i = page; i < last; i++)
            if (!lock_one(c, &words[i], i, &since)) {
                unlock_all(c, i);
                return false;
            }
    return true;
}

static void discard_all_locked(const cut *c) {
    shared_word *words = words_of(c);
    for (uint64_t page = c->from, last; next_touched(c, &page, &last); page = last)
        for (uint64_t i = page; i < last; i++)
            if (is_ours(c, shared_load(&words[i]))) {
                shared_discard_page(c->g, c->index, c->fd, i, &words[i]);
                unlock(c, &words[i], i);
                FAILPOINT(object_cutting);
            }
}

int object_shrink(group *g, shared_region *r, uint32_t *pid) {
    object_entry *object = group_object(g, r->object);
    uint64_t seen = atomic_load(&object->size), resize = atomic_load(&object->resize);
    size_t view = r->pages;
    cut c = {.g = g, .index = r->object, .object = object, .fd = r->fd};
    c.from = resize_pages_of(resize);
    c.end = object_size_pages(seen);
    int status = look_at_views(&c, pid);
    if (status != 0)
        return status;
    r->pages = MIN_OF(view, (size_t)c.from);
    if (!shared_thread_pass(g, clock_now_ns() + WAIT_NS) || !lock_all(&c))
        status = -EAGAIN;
    else if (shared_range_is_held(g, r->object, c.from, c.end - c.from)) /* said meanwhile */
        status = -EBUSY;
    if (status == -EBUSY)
        unlock_all(&c, c.end);
    if (status != 0) {
        r->pages = view;
        return status;
    }
    FAILPOINT(object_cut_locked);
    atomic_store(&object->resize, resize_make(RESIZE_CUTTING, g->self, c.from));
    discard_all_locked(&c);
    FAILPOINT(object_cut);
    set_size(object, seen, c.from);
    FAILPOINT(object_shorter);
    return 0;
}

/* ---- after a death ---- */

/* Under its lock a page is somebody's no more as long as the cut goes on: before another member could make the object longer, whoever ended
 * the cut would have had to lock this page. */
static bool discard_one(const cut *c, shared_word *word, uint64_t page) {
    uint64_t now = shared_load(word);
    if (shared_is_nothing(now) && !(now & SHARED_LOCK))
        return true;
    break_read(c, word, page);
    if (!shared_try_lock(word, c->g->self, true))
        return false;
    if (atomic_load(&c->object->resize) == c->resize)
        shared_discard_page(c->g, c->index, c->fd, page, word);
    unlock(c, word, page);
    FAILPOINT(object_cutting);
    return true;
}

static bool discard_rest(const cut *c) {
    shared_word *words = words_of(c);
    bool all = true;
    for (uint64_t page = c->from, last; next_touched(c, &page, &last); page = last)
        for (uint64_t i = page; i < last; i++)
            all &= discard_one(c, &words[i], i);
    return all;
}

/* Return: false: come again. */
static bool go_on_with_cut(group *g, uint32_t index, member_id dead, uint64_t resize) {
    object_entry *object = group_object(g, index);
    uint64_t others = atomic_load(&object->mappers) & ~(MAPPERS_CLOSED | UINT64_C(1) << member_index(dead));
    uint64_t seen = atomic_load(&object->size);
    cut c = {.g = g, .index = index, .object = object, .resize = resize};
    c.from = resize_pages_of(resize);
    c.end = object_size_pages(seen);
    if (others == 0) /* it ends, with all of its pages */
        return true;
    shared_region *mapped = shared_region_get(g, index);
    c.fd = mapped ? mapped->fd : peers_object_fd(g, index);
    bool done = c.fd >= 0 && (c.end <= c.from || discard_rest(&c));
    if (done && c.end > c.from && atomic_load(&object->resize) == resize)
        set_size(object, seen, c.from);
    if (mapped)
        shared_region_put(mapped);
    else if (c.fd >= 0)
        close(c.fd);
    return done;
}

bool object_mend_size(group *g, uint32_t index, member_id dead) {
    object_entry *object = group_object(g, index);
    uint64_t resize = atomic_load(&object->resize);
    if (resize_kind_of(resize) == RESIZE_NOT || !member_equal(resize_member_of(resize), dead))
        return true;
    if (resize_kind_of(resize) == RESIZE_CUTTING && !go_on_with_cut(g, index, dead, resize))
        return false;
    atomic_compare_exchange_strong(&object->resize, &resize, 0);
    return true;
}
