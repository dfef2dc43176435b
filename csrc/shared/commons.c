/*
 * commons.c - the memory of a group: made, mapped by the others, handed out.
 *
 * The memfd has its full size from the beginning, and is sealed against shrinking: nobody who has it can make the others die of SIGBUS. It
 * costs what is touched.
 */
#define _GNU_SOURCE
#include "shared/commons.h"

#include "base/failpoint.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Half of it for slots: 4 TiB of shared swap; a page word is 8 bytes, so the rest holds those of more than that. Less where so much address
 * space is refused (RLIMIT_AS). */
#define COMMONS_BYTES ((size_t)64 << 30)
#define COMMONS_LEAST_BYTES ((size_t)1 << 30)
#define LAYOUT_VERSION UINT64_C(8)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uint64_t layout_stamp(void) {
    const uint64_t sizes[] = {sizeof(commons_header), sizeof(member_entry), sizeof(object_entry), sizeof(shared_frame),
                              sizeof(shared_slot),    CHUNKS_MAX,           MEMBERS_MAX,          OBJECTS_MAX,
                              COMMONS_CLUSTER_SLOTS,  LAYOUT_VERSION};
    uint64_t stamp = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        stamp = (stamp ^ sizes[i]) * UINT64_C(0x9E3779B97F4A7C15);
    return stamp;
}

/* Before the header is of use: lays out the tables behind it. false: they do not fit. */
static bool lay_out(commons_header *head, uint64_t bytes, uint64_t limit_bytes) {
    uint64_t limit_frames = limit_bytes >> PAGE_SHIFT;
    /* A limit is 4096 chunks or less; the words are enough for four times of that. */
    head->chunk_frames = MAX_OF((uint64_t)CHUNK_FRAMES_LEAST, (limit_frames + 4095) / 4096);
    head->chunks = CHUNKS_MAX;
    head->frames = head->chunks * head->chunk_frames;
    head->slots_max = MIN_OF(UINT64_C(1) << 32, bytes / 2 / sizeof(shared_slot));
    uint64_t at = whole_pages(sizeof *head);
    head->chunks_at = at;
    at += whole_pages(head->chunks * sizeof(uint32_t));
    head->hints_at = at;
    at += whole_pages(head->chunks * sizeof(uint32_t));
    head->clusters_at = at;
    at += whole_pages(head->slots_max / COMMONS_CLUSTER_SLOTS * sizeof(uint32_t));
    head->frames_at = at;
    at += whole_pages(head->frames * sizeof(shared_frame));
    head->slots_at = at;
    at += whole_pages(head->slots_max * sizeof(shared_slot));
    atomic_store(&head->end_bytes, at);
    atomic_store(&head->limit_bytes, limit_bytes);
    atomic_store(&head->agreed_bytes, limit_bytes);
    return head->frames < UINT32_MAX && at < bytes;
}

static int map(commons *c, int fd, size_t bytes) {
    struct stat info;
    if (fstat(fd, &info) != 0)
        return -errno;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    madvise(base, bytes, MADV_DONTFORK);
    madvise(base, bytes, MADV_DONTDUMP);
    munlock(base, bytes); /* mlockall(MCL_FUTURE) would populate all of it */
    *c = (commons){.fd = fd, .base = base, .bytes = bytes, .device = info.st_dev, .inode = info.st_ino};
    return 0;
}

bool commons_is(const commons *c, int fd) {
    struct stat info;
    return fstat(fd, &info) == 0 && info.st_dev == c->device && info.st_ino == c->inode;
}

/* Largest size that can be had. */
static int map_largest(commons *c, int fd) {
    struct rlimit file_size;
    size_t bytes = COMMONS_BYTES;
    /* A file beyond RLIMIT_FSIZE is not refused: it is answered by a signal. */
    if (getrlimit(RLIMIT_FSIZE, &file_size) != 0)
        return -errno;
    while (file_size.rlim_cur != RLIM_INFINITY && bytes > file_size.rlim_cur)
        bytes /= 4;
    int status = -EFBIG;
    for (; bytes >= COMMONS_LEAST_BYTES; bytes /= 4) {
        status = map(c, fd, bytes);
        if (status == 0)
            return ftruncate(fd, (off_t)bytes) == 0 ? 0 : -errno;
    }
    return status;
}

int commons_create(commons *c, uint64_t limit_bytes) {
    *c = (commons){.fd = -1};
    int fd = memfd_create("uswap-commons", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int status = map_largest(c, fd);
    if (status == 0 && fcntl(fd, F_ADD_SEALS, SEALS) != 0)
        status = -errno;
    if (status == 0 && getrandom(&commons_head(c)->hash_seed, sizeof(uint64_t), 0) != sizeof(uint64_t))
        status = -EIO;
    if (status == 0 && !lay_out(commons_head(c), c->bytes, limit_bytes))
        status = -ENOMEM;
    if (status != 0) {
        if (c->base)
            munmap(c->base, c->bytes);
        close(fd);
        *c = (commons){.fd = -1};
        return status;
    }
    commons_head(c)->layout = layout_stamp();
    atomic_thread_fence(memory_order_release);
    commons_head(c)->magic = COMMONS_MAGIC;
    return 0;
}

static bool same_layout(const commons_header *one, const commons_header *other) {
    return one->chunk_frames == other->chunk_frames && one->chunks == other->chunks && one->frames == other->frames &&
           one->slots_max == other->slots_max && one->chunks_at == other->chunks_at &&
           one->hints_at == other->hints_at && one->clusters_at == other->clusters_at &&
           one->frames_at == other->frames_at && one->slots_at == other->slots_at;
}

/* What another process says of itself is not believed: everything that this one indexes by must lie within. */
static bool is_sound(const commons *c) {
    const commons_header *head = commons_head(c);
    if (head->magic != COMMONS_MAGIC || head->layout != layout_stamp())
        return false;
    commons_header *own = memory_map(sizeof *own); /* much too large for a stack */
    bool sound = own && lay_out(own, c->bytes, head->chunk_frames * 4096 << PAGE_SHIFT) && same_layout(own, head);
    memory_unmap(own, sizeof *own);
    return sound;
}

int commons_attach(commons *c, int fd) {
    struct stat info;
    int status = -EPROTO;
    *c = (commons){.fd = -1};
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &info) == 0 && info.st_size >= (off_t)COMMONS_LEAST_BYTES) {
        status = map(c, fd, (size_t)info.st_size);
        if (status == 0 && is_sound(c))
            return 0;
        if (status == 0) {
            munmap(c->base, c->bytes);
            status = -EPROTO;
        }
    }
    close(fd);
    *c = (commons){.fd = -1};
    return status;
}

void commons_detach(commons *c) {
    if (c->base) {
        munmap(c->base, c->bytes);
        close(c->fd);
    }
    *c = (commons){.fd = -1};
}

int64_t commons_allot(commons *c, size_t bytes) {
    commons_header *head = commons_head(c);
    uint64_t start = atomic_load(&head->end_bytes);
    do {
        if (bytes > c->bytes - start || whole_pages(bytes) > c->bytes - start)
            return -ENOMEM;
    } while (!atomic_compare_exchange_weak(&head->end_bytes, &start, start + whole_pages(bytes)));
    return (int64_t)start;
}

void commons_empty(commons *c, uint64_t offset, uint64_t bytes) {
    int ignored =
        fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)whole_pages(bytes));
    (void)ignored;
}

bool commons_touched(const commons *c, uint64_t from, uint64_t end, uint64_t *first, uint64_t *last) {
    if (from >= end)
        return false;
    off_t data = lseek(c->fd, (off_t)from, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return false;
    if (data < 0) /* it cannot be told: look at all of it */
        data = (off_t)from;
    off_t hole = lseek(c->fd, data, SEEK_HOLE);
    *first = (uint64_t)data;
    *last = hole > data ? MIN_OF((uint64_t)hole, end) : end;
    return *first < end;
}
