/*
 * io_sync.c - the synchronous backend: the reference, and the fallback where io_uring is refused.
 */
#define _GNU_SOURCE
#include "io/io.h"

#include <errno.h>

static int sync_init(io_queue *queue) {
    (void)queue;
    return 0;
}

static void sync_fini(io_queue *queue) {
    (void)queue;
}

static void sync_submit(io_queue *queue, io_request *request) {
    off_t offset = (off_t)io_offset(request->first);
    ssize_t done;
    do
        done = request->direction == IO_READ ? preadv(request->fd, request->piece, (int)request->pieces, offset)
                                             : pwritev(request->fd, request->piece, (int)request->pieces, offset);
    while (done < 0 && errno == EINTR);
    io_queue_done(queue, request, done < 0 ? -errno : done);
}

void io_ended_flush(io_queue *queue) {
    (void)queue;
}

void io_ended_collect(io_queue *queue, bool wait) {
    (void)queue, (void)wait;
}

int io_ended_poll_fd(const io_queue *queue) {
    (void)queue;
    return -1;
}

const io_backend io_backend_sync = {
    .name = "sync",
    .kind = USWAP_IO_SYNC,
    .init = sync_init,
    .fini = sync_fini,
    .submit = sync_submit,
    .flush = io_ended_flush,
    .collect = io_ended_collect,
    .poll_fd = io_ended_poll_fd,
    .descriptor = io_ended_poll_fd,
};
