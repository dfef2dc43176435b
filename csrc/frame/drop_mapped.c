#define _GNU_SOURCE
#include "frame/drop_mapped.h"

#include "base/failpoint.h"
#include "pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Of an entry of /proc/self/pagemap: in memory, or in the kernel's own swap. */
#define PAGEMAP_THERE (UINT64_C(3) << 62)

static long madvise_many(const uswap_pool *pool, const struct iovec *pages, size_t count) {
    return syscall(SYS_process_madvise, pool->self_pid_fd, pages, count, MADV_DONTNEED, 0);
}

void drop_mapped_init(uswap_pool *pool) {
    pool->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    pool->self_pid_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    /* What it does to nothing tells whether it may do it to oneself. */
    struct iovec place = {.iov_base = frame_address(pool, pool->frames.arenas[ARENA_CATCH].first),
                          .iov_len = PAGE_BYTES};
    if (pool->pagemap_fd >= 0 && pool->self_pid_fd >= 0 && madvise_many(pool, &place, 1) == (long)PAGE_BYTES)
        return;
    drop_mapped_fini(pool);
}

void drop_mapped_in_child(const uswap_pool *pool) {
    if (pool->pagemap_fd >= 0)
        close(pool->pagemap_fd);
    if (pool->self_pid_fd >= 0)
        close(pool->self_pid_fd);
}

void drop_mapped_fini(uswap_pool *pool) {
    drop_mapped_in_child(pool);
    pool->pagemap_fd = pool->self_pid_fd = -1;
}

bool drop_mapped_works(const uswap_pool *pool) {
    return pool->self_pid_fd >= 0;
}

/* The kernel is asked, not the page word: the program may have thrown the page away behind our back, and then it is zeroes. */
static bool is_there(const uswap_pool *pool, const unsigned char *address) {
    uint64_t entry = 0;
    off_t at = (off_t)((uintptr_t)address / PAGE_BYTES * sizeof entry);
    return pread(pool->pagemap_fd, &entry, sizeof entry, at) != (ssize_t)sizeof entry || (entry & PAGEMAP_THERE);
}

void drop_mapped(uswap_pool *pool, unsigned char *const *address, uint32_t count, bool seen, out_result *result) {
    struct iovec pages[DROP_MAPPED_MAX];
    uint32_t number[DROP_MAPPED_MAX], present = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool there = seen || is_there(pool, address[i]);
        result[i] = there ? OUT_DROPPED : OUT_ABSENT;
        if (there) {
            pages[present] = (struct iovec){.iov_base = address[i], .iov_len = PAGE_BYTES};
            number[present++] = i;
        }
    }
    long done = present == 0 || FAILPOINT(drop_mapped) ? 0 : madvise_many(pool, pages, present);
    /* It ends at the first that cannot be dropped (the program has mlocked it, say). */
    for (uint32_t i = done > 0 ? (uint32_t)((size_t)done / PAGE_BYTES) : 0; i < present; i++)
        if (madvise(address[number[i]], PAGE_BYTES, MADV_DONTNEED) != 0)
            result[number[i]] = OUT_BUSY;
}

uint32_t copy_mapped(const uswap_pool *pool, unsigned char *const *address, void *const *to, uint32_t count) {
    /* Not by process_vm_readv, which takes many: where the program has thrown a page away that waits for the fault thread, and that waits for
     * the page's lock (K13, K25). */
    uint32_t copied = 0;
    while (copied < count && !FAILPOINT(sealed_copy) &&
           pread(pool->self_mem_fd, to[copied], PAGE_BYTES, (off_t)(uintptr_t)address[copied]) == PAGE_BYTES)
        copied++;
    return copied;
}
