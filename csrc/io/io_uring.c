/*
 * io_uring.c - the io_uring backend (liburing). One ring a queue; never inherited by a fork.
 */
#ifdef USWAP_HAVE_URING
#include "io/io.h"

#include "base/memory.h"

#include <errno.h>
#include <liburing.h>

static struct io_uring *ring_of(const io_queue *queue) {
    return queue->backend_state;
}

/* A filter may allow io_uring_setup and refuse io_uring_enter: one request that does nothing tells. */
static int try_out(struct io_uring *ring) {
    struct io_uring_cqe *ended;
    io_uring_prep_nop(io_uring_get_sqe(ring));
    int status = io_uring_submit(ring);
    if (status == 1)
        status = io_uring_wait_cqe(ring, &ended);
    if (status < 0)
        return status;
    io_uring_cqe_seen(ring, ended);
    return 0;
}

static int uring_init(io_queue *queue) {
    struct io_uring *ring = memory_map(sizeof *ring);
    if (!ring)
        return -ENOMEM;
    int status = io_uring_queue_init(IO_REQUESTS, ring, 0);
    if (status == 0 && (status = try_out(ring)) < 0)
        io_uring_queue_exit(ring);
    if (status < 0) {
        memory_unmap(ring, sizeof *ring);
        return status;
    }
    io_uring_ring_dontfork(ring);
    queue->backend_state = ring;
    return 0;
}

static void uring_fini(io_queue *queue) {
    io_uring_queue_exit(ring_of(queue));
    memory_unmap(queue->backend_state, sizeof(struct io_uring));
    queue->backend_state = NULL;
}

static void uring_flush(io_queue *queue) {
    struct io_uring *ring = ring_of(queue);
    while (io_uring_sq_ready(ring) > 0) {
        int submitted = io_uring_submit(ring);
        if (submitted >= 0 || submitted == -EINTR)
            continue;
        /* EAGAIN and EBUSY: the kernel is short of requests until some end. */
        struct io_uring_cqe *ended;
        if (io_uring_wait_cqe(ring, &ended) < 0 && io_uring_sq_ready(ring) == 0)
            return;
        queue->backend->collect(queue, false);
    }
}

static void uring_submit(io_queue *queue, io_request *request) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring_of(queue));
    INVARIANT(I6, sqe != NULL); /* as many entries as requests */
    __u64 offset = io_offset(request->first);
    if (request->pieces == 1) {
        unsigned length = (unsigned)request->piece[0].iov_len;
        if (request->direction == IO_READ)
            io_uring_prep_read(sqe, request->fd, request->piece[0].iov_base, length, offset);
        else
            io_uring_prep_write(sqe, request->fd, request->piece[0].iov_base, length, offset);
    } else if (request->direction == IO_READ) {
        io_uring_prep_readv(sqe, request->fd, request->piece, request->pieces, offset);
    } else {
        io_uring_prep_writev(sqe, request->fd, request->piece, request->pieces, offset);
    }
    io_uring_sqe_set_data(sqe, request);
}

static void uring_collect(io_queue *queue, bool wait) {
    struct io_uring *ring = ring_of(queue);
    struct io_uring_cqe *cqe;
    if (wait) {
        int status;
        do
            status = io_uring_wait_cqe(ring, &cqe);
        while (status == -EINTR || status == -EAGAIN);
    }
    while (io_uring_peek_cqe(ring, &cqe) == 0 && cqe) {
        io_request *request = io_uring_cqe_get_data(cqe);
        int64_t result = cqe->res;
        io_uring_cqe_seen(ring, cqe);
        io_queue_done(queue, request, result);
    }
}

static int uring_poll_fd(const io_queue *queue) {
    return ring_of(queue)->ring_fd;
}

const io_backend io_backend_uring = {
    .name = "io_uring",
    .kind = USWAP_IO_URING,
    .init = uring_init,
    .fini = uring_fini,
    .submit = uring_submit,
    .flush = uring_flush,
    .collect = uring_collect,
    .poll_fd = uring_poll_fd,
};
#endif
typedef int io_uring_translation_unit; /* without liburing the file is empty, which ISO C forbids */
