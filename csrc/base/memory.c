#include "base/memory.h"

#include <sys/mman.h>

static size_t whole_pages(size_t bytes) {
    return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

void *memory_map(size_t bytes) {
    size_t length = whole_pages(bytes);
    void *address = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        return NULL;
    madvise(address, length, MADV_NOHUGEPAGE);
    madvise(address, length, MADV_DONTFORK);
    munlock(address, length); /* under mlockall(MCL_FUTURE) lazily touched memory would be populated */
    return address;
}

void memory_unmap(void *address, size_t bytes) {
    if (address)
        munmap(address, whole_pages(bytes));
}
