/*
 * mapping.c - mmap and its like, as the program calls them: what is large, private and anonymous is managed; all else is the kernel's.
 */
#define _GNU_SOURCE
#include "run/sites.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

/* Not for us: code, stacks, huge pages asked for by name, and addresses that 32 bits must hold. */
#define NEVER (MAP_GROWSDOWN | MAP_STACK | MAP_HUGETLB | MAP_32BIT)

static bool is_for_us(size_t bytes, int protection, int flags) {
    return run_pool && !run_inside && bytes >= RUN_LEAST_BYTES && (flags & MAP_ANONYMOUS) &&
           (flags & MAP_TYPE) == MAP_PRIVATE && !(flags & NEVER) && !(protection & PROT_EXEC);
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
        if (run_space_has(address, bytes))
            return MANAGED(run_space_map_fixed(address, bytes, protection, flags, fd, offset));
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
    return run_space_has(address, bytes) ? MANAGED(run_space_unmap(address, bytes)) : run_core_munmap(address, bytes);
}

EXPORT int mprotect(void *address, size_t bytes, int protection) {
    return run_space_has(address, bytes) ? MANAGED(run_space_protect(address, bytes, protection))
                                         : run_core_mprotect(address, bytes, protection);
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
    return run_core_mremap(address, bytes, new_bytes, flags, target);
}

EXPORT int madvise(void *address, size_t bytes, int advice) {
    return run_space_has(address, bytes) ? MANAGED(run_space_advise(address, bytes, advice))
                                         : run_core_madvise(address, bytes, advice);
}

EXPORT int posix_madvise(void *address, size_t bytes, int advice) {
    if (advice == POSIX_MADV_DONTNEED) /* which must not lose anything, as madvise's does */
        return 0;
    return madvise(address, bytes, advice) == 0 ? 0 : errno;
}

/* ---- locked memory: counted in the limit, and refused where it would take too much of it ---- */

EXPORT int mlock(const void *address, size_t bytes) {
    return run_space_has(address, bytes) ? MANAGED(run_space_lock(address, bytes, true))
                                         : run_core_mlock(address, bytes);
}

EXPORT int mlock2(const void *address, size_t bytes, unsigned flags) {
    (void)flags;
    return mlock(address, bytes);
}

EXPORT int munlock(const void *address, size_t bytes) {
    return run_space_has(address, bytes) ? MANAGED(run_space_lock(address, bytes, false))
                                         : run_core_munlock(address, bytes);
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
