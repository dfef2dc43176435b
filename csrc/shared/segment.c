#define _GNU_SOURCE
#include "shared/segment.h"

#include "base/memory.h"
#include "base/proc_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* Address space only. 64 GiB hold the slots of 8 TiB of swap; where that much is refused (RLIMIT_AS) less must do. */
#define RESERVE_BYTES ((size_t)64 << 30)
#define RESERVE_LEAST_BYTES ((size_t)1 << 30)
/* Of the addresses that the process may have, the most that it takes. */
#define ADDRESS_PART 8
#define HEADER_BYTES ((size_t)64 << 10)

static uint64_t layout_stamp(void) {
    return sizeof(segment_header) << 32 | sizeof(swap_slot) << 24 | sizeof(process_entry) << 16 | SWAP_SLOT_BITS << 8 |
           1;
}

/* pid and start time (jiffies since boot) of this process: an identity that a reused pid does not have. */
static uint64_t own_start_time(void) {
    proc_stat stat;
    uint64_t time;
    proc_stat_of_self(&stat);
    return proc_stat_number(&stat, PROC_STAT_START, &time) ? time : 0;
}

/* Address space for the whole file, and for what it may grow to. */
static int map(segment *seg, int fd, size_t reserve, size_t least) {
    void *base = MAP_FAILED;
    for (; reserve >= least && base == MAP_FAILED; reserve /= 4) {
        base = mmap(NULL, reserve, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        seg->reserved_bytes = reserve;
    }
    if (base == MAP_FAILED)
        return -errno;
    madvise(base, seg->reserved_bytes, MADV_DONTFORK);
    madvise(base, seg->reserved_bytes, MADV_DONTDUMP);
    munlock(base, seg->reserved_bytes);
    seg->fd = fd;
    seg->base = base;
    return 0;
}

static int make(segment *seg, size_t bytes, size_t reserve, size_t least) {
    int fd = memfd_create("uswap-segment", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int status = ftruncate(fd, (off_t)bytes) == 0 ? map(seg, fd, reserve, least) : -errno;
    if (status != 0)
        close(fd);
    return status;
}

static void say_whose(segment_header *head) {
    atomic_store(&head->processes[0].start_time, own_start_time());
    atomic_store(&head->processes[0].generation, 1);
    atomic_store(&head->processes[0].pid, (uint64_t)getpid());
}

int segment_create(segment *seg) {
    *seg = (segment){.fd = -1};
    size_t reserve = MIN_OF(RESERVE_BYTES, memory_address_share(ADDRESS_PART));
    int status = make(seg, HEADER_BYTES, reserve, MIN_OF(RESERVE_LEAST_BYTES, reserve));
    if (status != 0)
        return status;
    segment_header *head = segment_head(seg);
    head->magic = SEGMENT_MAGIC;
    head->layout = layout_stamp();
    atomic_store(&head->end_bytes, HEADER_BYTES);
    if (getrandom(head->hash_seed, sizeof head->hash_seed, 0) != sizeof head->hash_seed) {
        segment_destroy(seg);
        return -EIO;
    }
    say_whose(head);
    return 0;
}

int segment_like(const segment *before, segment *after) {
    const segment_header *old = segment_head(before);
    *after = (segment){.fd = -1};
    /* Its parent may have made more of it since: all that this process knows of lies below the end of now. */
    uint64_t end = atomic_load(&old->end_bytes);
    int status = make(after, end, before->reserved_bytes, before->reserved_bytes);
    if (status != 0)
        return status;
    segment_header *head = segment_head(after);
    head->magic = old->magic;
    head->layout = old->layout;
    memcpy(head->hash_seed, old->hash_seed, sizeof head->hash_seed);
    atomic_store(&head->end_bytes, end);
    say_whose(head);
    return 0;
}

int segment_take_place(segment *seg, segment *after) {
    if (mremap(after->base, after->reserved_bytes, seg->reserved_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, seg->base) ==
        MAP_FAILED) {
        int status = -errno;
        segment_destroy(after);
        return status;
    }
    close(seg->fd);
    seg->fd = after->fd;
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
