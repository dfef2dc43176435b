/*
 * probe_disk.c - how fast the disk of a swap directory is: a small area, written in full and read page by page.
 */
#include "base/lock.h"
#include "base/memory.h"
#include "base/status.h"
#include "shared/segment.h"
#include "swap/swap_area.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROBE_BYTES ((uint64_t)16 << 20)
#define CHUNK_BYTES ((size_t)1 << 20)
#define CHUNKS (PROBE_BYTES / CHUNK_BYTES)
#define READS 64

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *times, size_t count) {
    qsort(times, count, sizeof *times, compare);
    return times[count / 2];
}

/* Return: median time of a write in ns, 0 on failure. */
static uint64_t time_writes(int fd, unsigned char *chunk) {
    uint64_t times[CHUNKS];
    for (size_t i = 0; i < CHUNKS; i++) {
        memset(chunk, (int)i + 1, CHUNK_BYTES);
        uint64_t begin = clock_now_ns();
        if (pwrite(fd, chunk, CHUNK_BYTES, (off_t)(PAGE_BYTES + i * CHUNK_BYTES)) != (ssize_t)CHUNK_BYTES)
            return 0;
        times[i] = clock_now_ns() - begin;
    }
    return median(times, CHUNKS);
}

static uint64_t time_reads(int fd, unsigned char *page) {
    uint64_t times[READS];
    for (size_t i = 0; i < READS; i++) {
        uint64_t slot = 1 + i * 2654435761U % (PROBE_BYTES / PAGE_BYTES);
        uint64_t begin = clock_now_ns();
        if (pread(fd, page, PAGE_BYTES, (off_t)(slot * PAGE_BYTES)) != (ssize_t)PAGE_BYTES)
            return 0;
        times[i] = clock_now_ns() - begin;
    }
    return median(times, READS);
}

static int measure(swap_area *area, uint64_t *read_ns, uint64_t *write_ns, uswap_error *err) {
    unsigned char *chunk = memory_map(CHUNK_BYTES);
    if (!chunk)
        return error_set(err, USWAP_E_NO_MEMORY, ENOMEM, "mmap", area->path, "out of memory");
    errno = EIO; /* what a short write or read leaves */
    uint64_t written = time_writes(area->fd, chunk);
    uint64_t read = written ? time_reads(area->fd, chunk) : 0;
    int cause = errno;
    memory_unmap(chunk, CHUNK_BYTES);
    if (read == 0)
        return error_set(err, USWAP_E_OS, cause, written ? "pread" : "pwrite", area->path,
                         "cannot write and read a swap file in '%s': %s", area->path, strerror(cause));
    *write_ns = written;
    *read_ns = read;
    return 0;
}

EXPORT int uswap_probe_disk(const char *directory, uint64_t *read_4k_ns, uint64_t *write_1m_ns, uint32_t *notes,
                            uswap_error *err) {
    segment seg;
    swap_area *area = memory_map(sizeof *area);
    int status = area ? segment_create(&seg) : -ENOMEM;
    if (status != 0) {
        memory_unmap(area, sizeof *area);
        return error_set(err, USWAP_E_NO_MEMORY, -status, "mmap", directory, "out of memory");
    }
    status = swap_area_open(area, &seg, 0, directory, true, 2 * PROBE_BYTES, 0, err);
    if (status == 0) {
        status = swap_area_grow(area, PROBE_BYTES / PAGE_BYTES, err);
        if (status == 0)
            status = measure(area, read_4k_ns, write_1m_ns, err);
        if (status == 0)
            *notes = area->notes;
        swap_area_close(area);
    }
    segment_destroy(&seg);
    memory_unmap(area, sizeof *area);
    return status;
}
