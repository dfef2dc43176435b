#define _GNU_SOURCE
#include "shared/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* Address space only. 64 GiB hold the slots of 8 TiB of swap; where that much is refused (RLIMIT_AS) less must do. */
#define RESERVE_BYTES ((size_t)64 << 30)
#define RESERVE_LEAST_BYTES ((size_t)1 << 30)
#define HEADER_BYTES ((size_t)64 << 10)

static uint64_t layout_stamp(void) {
    return sizeof(segment_header) << 32 | sizeof(swap_slot) << 24 | sizeof(process_entry) << 16 | SWAP_SLOT_BITS << 8 |
           1;
}

/* pid and start time (jiffies since boot) of this process: an identity that a reused pid does not have. */
static uint64_t own_start_time(void) {
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file)
        return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *at = strrchr(text, ')'); /* the name may hold spaces */
    unsigned long long start = 0;
    if (at)
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start);
    return start;
}

int segment_create(segment *seg) {
    int fd = memfd_create("uswap-segment", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t reserve = RESERVE_BYTES;
    void *base = MAP_FAILED;
    if (ftruncate(fd, (off_t)HEADER_BYTES) == 0)
        for (; reserve >= RESERVE_LEAST_BYTES; reserve /= 4) {
            base = mmap(NULL, reserve, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
            if (base != MAP_FAILED)
                break;
        }
    if (base == MAP_FAILED) {
        int status = -errno;
        close(fd);
        return status;
    }
    madvise(base, reserve, MADV_DONTFORK);
    madvise(base, reserve, MADV_DONTDUMP);
    munlock(base, reserve);
    *seg = (segment){.fd = fd, .base = base, .reserved_bytes = reserve};
    segment_header *head = segment_head(seg);
    head->magic = SEGMENT_MAGIC;
    head->layout = layout_stamp();
    atomic_store(&head->end_bytes, HEADER_BYTES);
    if (getrandom(head->hash_seed, sizeof head->hash_seed, 0) != sizeof head->hash_seed) {
        segment_destroy(seg);
        return -EIO;
    }
    atomic_store(&head->processes[0].start_time, own_start_time());
    atomic_store(&head->processes[0].generation, 1);
    atomic_store(&head->processes[0].pid, (uint64_t)getpid());
    return 0;
}

void segment_destroy(segment *seg) {
    if (seg->base) {
        munmap(seg->base, seg->reserved_bytes);
        close(seg->fd);
        *seg = (segment){.fd = -1};
    }
}

int64_t segment_allot(segment *seg, size_t bytes) {
    segment_header *head = segment_head(seg);
    uint64_t start = atomic_load(&head->end_bytes);
    uint64_t end = start + ((bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1));
    if (end > seg->reserved_bytes)
        return -ENOMEM;
    if (ftruncate(seg->fd, (off_t)end) != 0)
        return -errno;
    atomic_store(&head->end_bytes, end);
    return (int64_t)start;
}

void segment_empty(segment *seg, void *start, size_t bytes) {
    int ignored = fallocate(seg->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (unsigned char *)start - seg->base,
                            (off_t)((bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)));
    (void)ignored;
}
