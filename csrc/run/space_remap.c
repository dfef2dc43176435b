/*
 * space_remap.c - mremap of managed addresses: in place where there is room, else by copying through the limit, piece by piece.
 */
#define _GNU_SOURCE
#include "run/space.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Bytes copied at a time: what is behind gives its frames and swap space back meanwhile. */
#define PIECE_BYTES ((size_t)2 << 20)
#define READ_WRITE (PROT_READ | PROT_WRITE)

/* The bytes behind a mapping become part of it. */
static bool grow_here(space *s, const range *old, uintptr_t start, size_t bytes, size_t new_bytes) {
    range r = *old;
    r.start = start + bytes;
    r.end = start + new_bytes;
    size_t promised = r.promised ? new_bytes - bytes : 0;
    if (r.foreign || new_bytes > s->end - start || !space_promise(promised))
        return false;
    small_lock_acquire(&space_lock);
    size_t next = ranges_find(&s->given, r.start);
    bool room = next == s->given.count || s->given.all[next].start >= r.end;
    bool grown = room && ranges_put(&s->given, &r);
    small_lock_release(&space_lock);
    if (!grown)
        space_unpromise(promised);
    else if (space_access(r.start, r.end - r.start, r.protection) != 0 ||
             (run_space_is_locked((void *)start) && run_space_lock((void *)r.start, r.end - r.start, true) != 0)) {
        run_space_unmap((void *)r.start, r.end - r.start);
        grown = false;
    }
    return grown;
}

static void copy(const space *s, uintptr_t from, uintptr_t to, size_t bytes) {
    for (size_t done = 0; done < bytes; done += PIECE_BYTES) {
        size_t step = MIN_OF(PIECE_BYTES, bytes - done);
        memcpy((void *)(to + done), (const void *)(from + done), step);
        space_discard(s, from + done, from + done + step);
    }
}

static void *move(space *s, const range *old, void *address, size_t bytes, size_t new_bytes, int flags, void *target) {
    int map_flags = MAP_PRIVATE | MAP_ANONYMOUS | (old->sparse ? MAP_NORESERVE : 0);
    void *moved = MAP_FAILED;
    if (old->foreign)
        return space_fail_map(ENOMEM);
    if (!(flags & MREMAP_FIXED))
        moved = run_space_map((run_space)(s - spaces), new_bytes, READ_WRITE, map_flags, NULL);
    else if (space_of(target, new_bytes))
        moved = run_space_map_fixed(target, new_bytes, READ_WRITE, map_flags | MAP_FIXED, -1, 0);
    else
        errno = ENOMEM; /* out of what is managed: its contents would not be limited there */
    if (moved == MAP_FAILED)
        return MAP_FAILED;
    if (run_space_is_locked(address) && run_space_lock(moved, new_bytes, true) != 0) {
        run_space_unmap(moved, new_bytes);
        return space_fail_map(ENOMEM);
    }
    if (!(old->protection & PROT_READ))
        run_core_mprotect(address, bytes, PROT_READ); /* it is about to go */
    copy(s, (uintptr_t)address, (uintptr_t)moved, MIN_OF(bytes, new_bytes));
    if (old->protection != READ_WRITE)
        run_space_protect(moved, new_bytes, old->protection);
    run_space_unmap(address, bytes);
    return moved;
}

static void *shrink(void *address, size_t bytes, size_t new_bytes) {
    if (new_bytes < bytes && run_space_unmap((char *)address + new_bytes, bytes - new_bytes) != 0)
        return MAP_FAILED;
    return address;
}

void *run_space_remap(void *address, size_t bytes, size_t new_bytes, int flags, void *target) {
    space *s = space_of(address, bytes);
    uintptr_t start = (uintptr_t)address;
    bytes = whole_pages(bytes);
    new_bytes = whole_pages(new_bytes);
    if (!s || start % PAGE_BYTES != 0 || bytes == 0 || new_bytes == 0 || (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED)))
        return space_fail_map(EINVAL);
    small_lock_acquire(&space_lock);
    size_t i = ranges_find(&s->given, start);
    range r = i < s->given.count ? s->given.all[i] : (range){0};
    small_lock_release(&space_lock);
    if (r.end == 0 || r.start > start)
        return space_fail_map(EFAULT);
    if (!(flags & MREMAP_FIXED) && new_bytes <= bytes)
        return shrink(address, bytes, new_bytes);
    if (r.end < start + bytes) /* mappings that differ: as the kernel */
        return space_fail_map(EFAULT);
    if (!(flags & MREMAP_FIXED) && grow_here(s, &r, start, bytes, new_bytes))
        return address;
    if (!(flags & MREMAP_MAYMOVE))
        return space_fail_map(flags & MREMAP_FIXED ? EINVAL : ENOMEM);
    if ((flags & MREMAP_FIXED) && (uintptr_t)target < start + bytes && start < (uintptr_t)target + new_bytes)
        return space_fail_map(EINVAL); /* onto itself */
    return move(s, &r, address, bytes, new_bytes, flags, target);
}
