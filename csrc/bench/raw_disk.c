/*
 * raw_disk.c - uswap_bench_disk: what the disk itself gives through the pool's own I/O layer, with nothing above it.
 */
#define _GNU_SOURCE
#include "base/lock.h"
#include "base/memory.h"
#include "base/status.h"
#include "bench/histogram.h"
#include "frame/arena.h"
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    io_queue queue;
    io_direction direction;
    int fd;
    uint32_t block_pages;
    uint64_t blocks; /* of the file */
    bool random;
    uint64_t seed, sent;
    unsigned char *memory;          /* a block a request */
    uint64_t began_ns[IO_REQUESTS]; /* by the request's place in the queue */
    uswap_bench_result *result;
} disk_run;

static uint64_t next_block(disk_run *run) {
    uint64_t at = run->sent++;
    if (!run->random)
        return at % run->blocks;
    run->seed ^= run->seed << 13;
    run->seed ^= run->seed >> 7;
    run->seed ^= run->seed << 17;
    return run->seed % run->blocks;
}

static void send_one(disk_run *run) {
    swap_entry first = swap_entry_make(0, next_block(run) * run->block_pages);
    io_request *request = io_request_get(&run->queue, run->direction, run->fd, first);
    size_t place = (size_t)(request - run->queue.requests);
    io_request_fill(request, run->memory + place * run->block_pages * PAGE_BYTES, run->block_pages);
    run->began_ns[place] = clock_now_ns();
    io_submit(&run->queue, request);
}

/* Return: 0 or -errno. */
static int end_one(disk_run *run) {
    io_request *request = io_collect(&run->queue, true);
    histogram_add(run->result, clock_now_ns() - run->began_ns[request - run->queue.requests]);
    run->result->accesses++;
    int64_t wanted = (int64_t)request->pages << PAGE_SHIFT, result = request->result;
    io_request_put(&run->queue, request);
    return result == wanted ? 0 : result < 0 ? (int)result : -EIO;
}

static int keep_busy(disk_run *run, uint32_t depth, uint64_t budget_ns) {
    uint64_t begin = clock_now_ns(), now = begin;
    int status = 0;
    for (uint32_t i = 0; i < depth; i++)
        send_one(run);
    io_flush(&run->queue);
    while (status == 0 && now - begin < budget_ns) {
        status = end_one(run);
        send_one(run);
        io_flush(&run->queue);
        now = clock_now_ns();
    }
    while (run->queue.in_flight > 0) {
        int ended = end_one(run);
        status = status ? status : ended;
    }
    run->result->elapsed_ns += clock_now_ns() - begin;
    return status;
}

static int run_on(disk_run *run, uint32_t depth, uint32_t io_kind, uint64_t budget_ns) {
    size_t bytes = (size_t)depth * run->block_pages * PAGE_BYTES, room = bytes + 2 * BLOCK_BYTES;
    int status = io_queue_init(&run->queue, (uswap_io_kind)io_kind, IO_AT_ONCE, depth, NULL);
    if (status != 0)
        return status;
    unsigned char *memory = memory_map(room);
    if (memory) {
        /* In huge pages: how fast a disk is depends on how many pieces of memory a request has, and with single pages that is luck. */
        run->memory = memory + (BLOCK_BYTES - (uintptr_t)memory % BLOCK_BYTES);
        madvise(run->memory, bytes + BLOCK_BYTES - 1, MADV_HUGEPAGE);
        memset(run->memory, 0xA5, bytes);
        status = keep_busy(run, depth, budget_ns);
        memory_unmap(memory, room);
    } else {
        status = -ENOMEM;
    }
    io_queue_fini(&run->queue);
    return status;
}

EXPORT int uswap_bench_disk(const char *path, uint64_t bytes, uint32_t block_pages, uint32_t depth, uint32_t write,
                            uint32_t random, uint32_t io_kind, uint64_t seed, uint64_t budget_ns,
                            uswap_bench_result *result, uswap_error *err) {
    uint64_t blocks = block_pages > 0 ? bytes / PAGE_BYTES / block_pages : 0;
    if (block_pages > IO_REQUEST_PAGES_MAX || depth < 1 || depth > IO_REQUESTS || blocks == 0 ||
        io_kind > USWAP_IO_SYNC)
        return error_set(err, USWAP_E_INVALID, 0, "bench", path,
                         "a block is 1 to %d pages and no larger than the file, the depth 1 to %d",
                         IO_REQUEST_PAGES_MAX, IO_REQUESTS);
    disk_run run = {.direction = write ? IO_WRITE : IO_READ,
                    .block_pages = block_pages,
                    .blocks = blocks,
                    .random = random != 0,
                    .seed = seed | 1,
                    .result = result};
    run.fd = open(path, (write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
    int status = run.fd < 0 ? -errno : run_on(&run, depth, io_kind, budget_ns);
    if (run.fd >= 0)
        close(run.fd);
    if (status == 0)
        return 0;
    return error_set(err, status == -ENOMEM ? USWAP_E_NO_MEMORY : USWAP_E_OS, -status, "bench", path,
                     "the disk's own speed cannot be measured on '%s' (O_DIRECT): %s", path, strerror(-status));
}
