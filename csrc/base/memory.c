#define _GNU_SOURCE
#include "base/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>

/* So much is a table or an arena of which little is in use: a core dump would look for each page of it, for minutes. */
#define SPARSE_BYTES ((size_t)64 << 20)

void *memory_map(size_t bytes) {
    size_t length = whole_pages(bytes);
    /* Without access at first: under mlockall(MCL_FUTURE) the kernel would populate all of it at once. */
    void *address = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        return NULL;
    munlock(address, length);
    madvise(address, length, MADV_NOHUGEPAGE);
    madvise(address, length, MADV_DONTFORK);
    if (length >= SPARSE_BYTES)
        madvise(address, length, MADV_DONTDUMP);
    if (mprotect(address, length, PROT_READ | PROT_WRITE) != 0) {
        munmap(address, length);
        return NULL;
    }
    return address;
}

static size_t share_of(int resource, unsigned part) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    return (limit.rlim_cur / part) & ~(PAGE_BYTES - 1);
}

size_t memory_address_share(unsigned part) {
    return share_of(RLIMIT_AS, part);
}

size_t memory_data_share(unsigned part) {
    return share_of(RLIMIT_DATA, part);
}

void memory_inherit(void *address, size_t bytes, bool inherited) {
    if (address)
        madvise(address, whole_pages(bytes), inherited ? MADV_DOFORK : MADV_DONTFORK);
}

void memory_unmap(void *address, size_t bytes) {
    if (address)
        munmap(address, whole_pages(bytes));
}

void *memory_grow(void *address, size_t bytes, size_t new_bytes) {
    if (whole_pages(new_bytes) <= whole_pages(bytes))
        return address;
    void *moved = mremap(address, whole_pages(bytes), whole_pages(new_bytes), MREMAP_MAYMOVE);
    return moved == MAP_FAILED ? NULL : moved;
}

void memory_cut(void *address, size_t bytes, size_t new_bytes) {
    if (whole_pages(new_bytes) < whole_pages(bytes))
        munmap((char *)address + whole_pages(new_bytes), whole_pages(bytes) - whole_pages(new_bytes));
}
