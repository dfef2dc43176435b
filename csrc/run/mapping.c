/*
 * mapping.c - mmap and its like, as the program calls them: what is large, private and anonymous is managed; all else is the kernel's.
 */
#define _GNU_SOURCE
#include "run/pieces.h"
#include "run/sites.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

/* Not for us: code, stacks, huge pages asked for by name, and addresses that 32 bits must hold. */
#define NEVER (MAP_GROWSDOWN | MAP_STACK | MAP_HUGETLB | MAP_32BIT)

/* Of small pieces so many bytes are the kernel's. A heap made of them (Ruby's, of 32 KiB each) would not be limited. */
#define SMALL_BYTES ((size_t)8 << 20)

static bool is_large(size_t bytes) {
    static _Atomic size_t small;
    return bytes >= RUN_LEAST_BYTES || atomic_fetch_add(&small, bytes) + bytes > SMALL_BYTES;
}

static bool is_for_us(size_t bytes, int protection, int flags) {
    return run_pool && !run_inside && (flags & MAP_ANONYMOUS) && (flags & MAP_TYPE) == MAP_PRIVATE &&
           !(flags & NEVER) && !(protection & PROT_EXEC) && bytes > 0 && is_large(bytes);
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
        if (space_of(address, bytes))
            return MANAGED(run_space_map_fixed(address, bytes, protection, flags, fd, offset));
        if (run_space_has(address, bytes))
            return MANAGED(run_map_pieces(address, bytes, protection, flags, fd, offset));
    } else if (is_for_us(bytes, protection, flags)) {
        void *given = MANAGED(run_space_map(SPACE_MAPS, bytes, protection, flags, address));
        if (given != MAP_FAILED)
            run_sites_note(given, bytes, __builtin_return_address(0));
        return given;
    }
    return run_core_mmap(address, bytes, protection, flags, fd, offset);
}

EXPORT void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));

EXPORT int munmap(void *address, size_t bytes) {
    return BY_PIECES(address, bytes, run_space_unmap(start, length), run_core_munmap(start, length));
}

EXPORT int mprotect(void *address, size_t bytes, int protection) {
    return BY_PIECES(address, bytes, run_space_protect(start, length, protection),
                     run_core_mprotect(start, length, protection));
}

EXPORT void *mremap(void *address, size_t bytes, size_t new_bytes, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    void *target = (flags & MREMAP_FIXED) ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    if (run_space_has(address, bytes))
        return MANAGED(run_space_remap(address, bytes, new_bytes, flags, target));
    if ((flags & MREMAP_FIXED) && run_space_has(target, new_bytes)) { /* the kernel would unmap what is managed there */
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *moved;
    if (MANAGED(run_remap_small(address, bytes, new_bytes, flags, target, &moved)))
        return moved;
    return run_core_mremap(address, bytes, new_bytes, flags, target);
}

EXPORT int madvise(void *address, size_t bytes, int advice) {
    return BY_PIECES(address, bytes, run_space_advise(start, length, advice), run_core_madvise(start, length, advice));
}

EXPORT int posix_madvise(void *address, size_t bytes, int advice) {
    if (advice == POSIX_MADV_DONTNEED) /* which must not lose anything, as madvise's does */
        return 0;
    return madvise(address, bytes, advice) == 0 ? 0 : errno;
}

/* What is out is not in memory, which the kernel says itself; what has not been given out is no mapping. */
EXPORT int mincore(void *address, size_t bytes, unsigned char *pages) {
    return BY_PIECES(address, bytes, run_space_in_core(start, length, pages + (at_ - (uintptr_t)address) / PAGE_BYTES),
                     run_core_mincore(start, length, pages + (at_ - (uintptr_t)address) / PAGE_BYTES));
}

/* ---- locked memory: counted in the limit, and refused where it would take too much of it ---- */

EXPORT int mlock(const void *address, size_t bytes) {
    return BY_PIECES(address, bytes, run_space_lock(start, length, true), run_core_mlock(start, length));
}

EXPORT int mlock2(const void *address, size_t bytes, unsigned flags) {
    (void)flags;
    return mlock(address, bytes);
}

EXPORT int munlock(const void *address, size_t bytes) {
    return BY_PIECES(address, bytes, run_space_lock(start, length, false), run_core_munlock(start, length));
}

/* All of memory in memory is what a limit denies; the kernel would besides make every address of the spaces a page. */
EXPORT int mlockall(int flags) {
    (void)flags;
    errno = ENOMEM;
    return -1;
}

EXPORT int munlockall(void) {
    return 0;
}
