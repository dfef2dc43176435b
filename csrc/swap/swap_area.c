#define _GNU_SOURCE
#include "swap/swap_area.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "base/nameless_file.h"
#include "base/status.h"
#include "swap/holders.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define HEADER_MAGIC "uswap swap area, version 1\n"
/* A file is ours only if it is empty or bears our header. A device cannot be empty: it is ours to write if this much of its
 * start is zeroes (every file system and partition table leaves something there) or bears our header. */
#define EXAMINED_BYTES ((size_t)1 << 20)
/* Share of the free disk a file may take by default. */
#define DEFAULT_SHARE_PERCENT 90
/* Space is asked from the file system in pieces of this many slots (64 MiB): fewer, larger extents. */
#define GROW_SLOTS UINT64_C(16384)

static int os_error(uswap_error *err, const char *operation, const swap_area *area, const char *what) {
    int cause = errno;
    return error_set(err, USWAP_E_OS, cause, operation, area->path, "%s '%s': %s", what, area->path, error_text(cause));
}

static int open_unlinked(swap_area *area, uswap_error *err) {
    area->notes |= USWAP_AREA_UNLINKED;
    area->fd = nameless_file_open(area->path);
    if (area->fd >= 0)
        return 0;
    errno = -area->fd;
    area->fd = -1;
    return os_error(err, "open", area, "cannot make a swap file in directory");
}

static int open_named(swap_area *area, uswap_error *err) {
    area->fd = open(area->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (area->fd >= 0)
        return 0;
    if (errno == ELOOP)
        return error_set(err, USWAP_E_NOT_OURS, ELOOP, "open", area->path,
                         "'%s' is a symbolic link: name the file itself", area->path);
    return os_error(err, "open", area, "cannot open swap file");
}

static bool is_ours_or_empty(int fd, bool device) {
    static const char zeroes[4096];
    char block[4096];
    for (size_t at = 0; at < EXAMINED_BYTES; at += sizeof block) {
        ssize_t length = pread(fd, block, sizeof block, (off_t)at);
        if (length <= 0)
            return length == 0;
        if (at == 0 && length >= (ssize_t)sizeof HEADER_MAGIC &&
            memcmp(block, HEADER_MAGIC, sizeof HEADER_MAGIC - 1) == 0)
            return true;
        if (!device || memcmp(block, zeroes, (size_t)length) != 0)
            return false;
    }
    return true;
}

static int write_header(swap_area *area, uswap_error *err) {
    char block[4096] = HEADER_MAGIC;
    if (pwrite(area->fd, block, sizeof block, 0) != (ssize_t)sizeof block || fsync(area->fd) != 0)
        return os_error(err, "write", area, "cannot write the header of swap area");
    return 0;
}

static int examine(swap_area *area, uint64_t *device_bytes, uswap_error *err) {
    struct stat status;
    if (fstat(area->fd, &status) != 0)
        return os_error(err, "fstat", area, "cannot examine swap area");
    if (S_ISBLK(status.st_mode)) {
        area->notes |= USWAP_AREA_BLOCK_DEVICE;
        if (ioctl(area->fd, BLKGETSIZE64, device_bytes) != 0)
            return os_error(err, "BLKGETSIZE64", area, "cannot size device");
        int exclusive = open(area->path, O_RDONLY | O_EXCL | O_CLOEXEC); /* refused while mounted or swapped on */
        if (exclusive < 0)
            return error_set(err, USWAP_E_IN_USE, errno, "open", area->path, "device '%s' is in use (mounted?)",
                             area->path);
        close(exclusive);
    } else if (!S_ISREG(status.st_mode)) {
        return error_set(err, USWAP_E_NOT_OURS, 0, "open", area->path, "'%s' is neither a file nor a block device",
                         area->path);
    }
    bool named = S_ISREG(status.st_mode) && !(area->notes & USWAP_AREA_UNLINKED);
    if (named && (status.st_uid != geteuid() || status.st_nlink > 1))
        return error_set(err, USWAP_E_NOT_OURS, 0, "open", area->path,
                         "'%s' belongs to another user or has another name too: others could read what is swapped; "
                         "name a new file",
                         area->path);
    if (flock(area->fd, LOCK_EX | LOCK_NB) != 0)
        return error_set(err, USWAP_E_IN_USE, errno, "flock", area->path,
                         "swap area '%s' is used by another pool: give this pool a file of its own", area->path);
    if (!is_ours_or_empty(area->fd, area->notes & USWAP_AREA_BLOCK_DEVICE))
        return error_set(err, USWAP_E_NOT_OURS, 0, "open", area->path,
                         "'%s' holds data that is not uswap's and is left as it is: name a new file, or empty this one "
                         "yourself",
                         area->path);
    if (named && fchmod(area->fd, 0600) != 0) /* not before: the mode of a file that is refused is not ours to change */
        return os_error(err, "fchmod", area, "cannot make private swap file");
    return 0;
}

static void note_file_system(swap_area *area) {
    struct statfs fs;
    /* (Of a device node it would say where the node lies.) */
    if (!(area->notes & USWAP_AREA_BLOCK_DEVICE) && fstatfs(area->fd, &fs) == 0 &&
        (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
        area->notes |= USWAP_AREA_TMPFS;
    int flags = fcntl(area->fd, F_GETFL);
    if (flags < 0 || FAILPOINT(area_direct) || fcntl(area->fd, F_SETFL, (flags & ~O_NONBLOCK) | O_DIRECT) != 0) {
        area->notes |= USWAP_AREA_NO_O_DIRECT;
        return;
    }
    /* Some file systems take the flag and refuse the I/O. */
    void *page = memory_map(PAGE_BYTES);
    if (!page || pread(area->fd, page, PAGE_BYTES, 0) != (ssize_t)PAGE_BYTES) {
        fcntl(area->fd, F_SETFL, flags & ~(O_NONBLOCK | O_DIRECT));
        area->notes |= USWAP_AREA_NO_O_DIRECT;
    }
    memory_unmap(page, PAGE_BYTES);
}

static int choose_size(swap_area *area, uint64_t size_bytes, uint64_t device_bytes, uswap_error *err) {
    struct statfs fs;
    uint64_t least = (CLUSTER_SLOTS + 1) * PAGE_BYTES;
    if (area->notes & USWAP_AREA_BLOCK_DEVICE) {
        if (size_bytes == 0 || size_bytes > device_bytes)
            size_bytes = device_bytes;
    } else if (size_bytes == 0) {
        if (fstatfs(area->fd, &fs) != 0)
            return os_error(err, "fstatfs", area, "cannot size the disk of swap area");
        size_bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / 100 * DEFAULT_SHARE_PERCENT;
        if (size_bytes < least)
            return error_set(err, USWAP_E_OS, ENOSPC, "fstatfs", area->path,
                             "the disk of '%s' has only %llu bytes free: free some, or put swap elsewhere", area->path,
                             (unsigned long long)fs.f_bavail * (unsigned long long)fs.f_bsize);
    }
    if (size_bytes < least)
        return error_set(err, USWAP_E_INVALID, 0, "swapon", area->path, "a swap area needs at least %llu bytes",
                         (unsigned long long)least);
    area->total_slots = size_bytes >> PAGE_SHIFT;
    if (area->total_slots >> SWAP_SLOT_BITS)
        area->total_slots = (uint64_t)1 << SWAP_SLOT_BITS;
    return 0;
}

/* Slots, bitmap and cluster counts in the segment; all lazily touched. */
static int make_tables(swap_area *area, segment *seg, uswap_error *err) {
    uint64_t clusters = area->total_slots / CLUSTER_SLOTS + 1;
    int64_t slots = segment_allot(seg, area->total_slots * sizeof(swap_slot));
    int64_t bitmap = segment_allot(seg, clusters * CLUSTER_SLOTS / 8);
    int64_t counts = segment_allot(seg, clusters * sizeof(uint16_t));
    int64_t holes = segment_allot(seg, clusters / 8 + sizeof(uint64_t));
    area->slots_touched = memory_map(swap_area_touched_bytes(area));
    if (slots < 0 || bitmap < 0 || counts < 0 || holes < 0 || !area->slots_touched)
        return error_set(err, USWAP_E_NO_MEMORY, ENOMEM, "swapon", area->path,
                         "no address space for the slots of a swap area of %llu bytes: give it a smaller size= (uswap "
                         "run: --swap-size)",
                         (unsigned long long)(area->total_slots << PAGE_SHIFT));
    area->slots = segment_at(seg, (uint64_t)slots);
    area->bitmap = segment_at(seg, (uint64_t)bitmap);
    area->cluster_free = segment_at(seg, (uint64_t)counts);
    area->holes = segment_at(seg, (uint64_t)holes);
    area->bitmap[0] = 1; /* the header */
    atomic_store(&area->usable_slots, 1);
    if (area->notes & USWAP_AREA_BLOCK_DEVICE)
        slot_alloc_extend(area, 1, area->total_slots);
    return 0;
}

int swap_area_open(swap_area *area, segment *seg, unsigned index, const char *path, bool unlinked, uint64_t size_bytes,
                   int32_t priority, uswap_error *err) {
    uint64_t device_bytes = 0;
    memset(area, 0, sizeof *area);
    area->fd = -1;
    area->index = index;
    area->priority = priority;
    snprintf(area->path, sizeof area->path, "%s", path);
    int status = unlinked ? open_unlinked(area, err) : open_named(area, err);
    if (status == 0)
        status = examine(area, &device_bytes, err);
    if (status == 0 && !(area->notes & USWAP_AREA_BLOCK_DEVICE) && ftruncate(area->fd, 0) != 0)
        status = os_error(err, "ftruncate", area, "cannot empty swap file");
    if (status == 0)
        status = choose_size(area, size_bytes, device_bytes, err);
    if (status == 0)
        status = write_header(area, err);
    if (status == 0) {
        note_file_system(area);
        status = make_tables(area, seg, err);
    }
    if (status != 0)
        swap_area_close(area);
    return status;
}

uint64_t swap_area_forget_slots(swap_area *area, segment *seg) {
    const size_t bytes = area->total_slots * sizeof(swap_slot), chunks = bytes / PAGE_BYTES + 1;
    uint64_t touched = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++)
        touched += atomic_load_explicit(&area->slots_touched[chunk], memory_order_relaxed);
    segment_empty(seg, area->slots, bytes);
    return touched;
}

void swap_area_close(swap_area *area) {
    if (area->fd >= 0) {
        struct holders *of = atomic_load(&area->holders);
        /* Only our own slots go; the header stays and says whose file it is. */
        if ((!of || holders_close(of, area->member)) &&
            !(area->notes & (USWAP_AREA_BLOCK_DEVICE | USWAP_AREA_UNLINKED)) && area->total_slots > 0) {
            int ignored = ftruncate(area->fd, PAGE_BYTES);
            (void)ignored;
        }
        close(area->fd);
    }
    area->fd = -1;
    memory_unmap((void *)area->slots_touched, swap_area_touched_bytes(area));
    area->slots_touched = NULL;
}

/* Return: 0 or -errno; EOPNOTSUPP: this file system cannot promise space. */
static int give_space(swap_area *area, uint64_t from, uint64_t to) {
    int failure = FAILPOINT(area_fallocate);
    if (failure)
        return failure;
    int status;
    do
        status = fallocate(area->fd, 0, (off_t)(from << PAGE_SHIFT), (off_t)((to - from) << PAGE_SHIFT));
    while (status != 0 && errno == EINTR);
    return status == 0 ? 0 : -errno;
}

/* ---- holes ---- */

#define HOLE_BITS 64U
/* Clusters taken out of use under one hold of the area's lock (64 MiB: some 20 us). */
#define SHRINK_CLUSTERS (GROW_SLOTS / CLUSTER_SLOTS)

static bool is_hole(const swap_area *area, uint64_t cluster) {
    return area->holes[cluster / HOLE_BITS] >> (cluster % HOLE_BITS) & 1;
}

/* Neighbouring clusters become holes, or cease to be. */
static void set_holes(swap_area *area, uint64_t first_cluster, uint64_t count, bool holes) {
    for (uint64_t cluster = first_cluster; cluster < first_cluster + count; cluster++)
        area->holes[cluster / HOLE_BITS] ^= UINT64_C(1) << (cluster % HOLE_BITS);
    if (holes)
        atomic_fetch_add(&area->hole_slots, count * CLUSTER_SLOTS);
    else
        atomic_fetch_sub(&area->hole_slots, count * CLUSTER_SLOTS);
}

static bool punch(const swap_area *area, uint64_t first_cluster, uint64_t count) {
    int status;
    do
        status = fallocate(area->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           (off_t)(first_cluster * CLUSTER_SLOTS << PAGE_SHIFT),
                           (off_t)(count * CLUSTER_SLOTS << PAGE_SHIFT));
    while (status != 0 && errno == EINTR);
    return status == 0;
}

uint64_t swap_area_shrink(swap_area *area, uint64_t slots) {
    uint64_t left = slots / CLUSTER_SLOTS, first, count;
    if (area->notes & (USWAP_AREA_BLOCK_DEVICE | USWAP_AREA_NO_FALLOCATE))
        return 0;
    while ((count = slot_alloc_take_whole(area, MIN_OF(left, SHRINK_CLUSTERS), &first)) > 0) {
        if (!punch(area, first, count)) {
            slot_alloc_give_whole(area, first, count);
            break;
        }
        set_holes(area, first, count, true);
        left -= count;
    }
    return slots - left * CLUSTER_SLOTS;
}

/* Gives holes space again, as far as it takes to have room for so many slots. Return: 0 or -errno. */
static int fill_holes(swap_area *area, uint64_t slots) {
    uint64_t clusters = atomic_load(&area->usable_slots) / CLUSTER_SLOTS;
    for (uint64_t first = 0; first < clusters && swap_area_room(area) < slots; first++) {
        uint64_t missing = (slots - swap_area_room(area) + CLUSTER_SLOTS - 1) / CLUSTER_SLOTS, count = 0;
        while (count < missing && first + count < clusters && is_hole(area, first + count))
            count++;
        if (count == 0)
            continue;
        int status = give_space(area, first * CLUSTER_SLOTS, (first + count) * CLUSTER_SLOTS);
        if (status != 0)
            return status;
        set_holes(area, first, count, false);
        slot_alloc_give_whole(area, first, count);
    }
    return 0;
}

static int grow_at_end(swap_area *area, uint64_t wanted, uint64_t *from, uint64_t *to) {
    *from = atomic_load(&area->usable_slots);
    *to = MIN_OF((wanted + GROW_SLOTS - 1) / GROW_SLOTS * GROW_SLOTS, area->total_slots);
    int status = give_space(area, *from, *to);
    if (status == -ENOSPC && *to > wanted && wanted <= area->total_slots) {
        *to = wanted;
        status = give_space(area, *from, *to);
    }
    if (status == -EOPNOTSUPP) {
        area->notes |= USWAP_AREA_NO_FALLOCATE;
        *to = area->total_slots;
        status = 0;
    }
    return status;
}

int swap_area_grow(swap_area *area, uint64_t slots, uswap_error *err) {
    if (slots <= swap_area_room(area))
        return 0;
    uint64_t missing = slots - swap_area_room(area), from = 0, to = 0;
    int status = fill_holes(area, slots);
    if (status == 0 && slots <= swap_area_room(area))
        return 0;
    if (status == 0)
        status = grow_at_end(area, slots + 1, &from, &to);
    if (status != 0)
        return error_set(err, status == -ENOSPC || status == -EDQUOT ? USWAP_E_NO_MEMORY : USWAP_E_OS, -status,
                         "fallocate", area->path, "no room on the disk of '%s' for %llu bytes of swap: %s", area->path,
                         (unsigned long long)missing << PAGE_SHIFT, error_text(-status));
    slot_alloc_extend(area, from, to);
    return 0;
}
