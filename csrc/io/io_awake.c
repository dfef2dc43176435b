/*
 * io_awake.c - the backend of threads that wait for each of their requests: one page is read awake where that pays (base/awake.h), by
 * a ring of the queue's own; everything else, and always where there is no ring, as the synchronous backend does.
 *
 * A request has ended when it has been submitted, as with the synchronous one.
 */
#ifdef USWAP_HAVE_URING
#include "io/io.h"

#include "base/awake.h"
#include "base/failpoint.h"
#include "base/lock.h"
#include "base/memory.h"

#include <errno.h>
#include <liburing.h>

#define RING_ENTRIES 2

typedef struct {
    struct io_uring ring;
    awake_record record;
    bool broken; /* the kernel takes nothing from the ring any more */
} awake_state;

static int awake_init_queue(io_queue *queue) {
    awake_state *state = memory_map(sizeof *state);
    if (!state)
        return -ENOMEM;
    int status = io_uring_queue_init(RING_ENTRIES, &state->ring, 0);
    if (status < 0) {
        memory_unmap(state, sizeof *state);
        return status;
    }
    io_uring_ring_dontfork(&state->ring);
    queue->backend_state = state;
    return 0;
}

static void awake_fini(io_queue *queue) {
    awake_state *state = queue->backend_state;
    io_uring_queue_exit(&state->ring);
    memory_unmap(state, sizeof *state);
    queue->backend_state = NULL;
}

/* Return: false: the kernel has not taken it, and never will. */
static bool send_one(awake_state *state, const io_request *request) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&state->ring);
    if (sqe) {
        const struct iovec *memory = &request->piece[0];
        io_uring_prep_read(sqe, request->fd, memory->iov_base, (unsigned)memory->iov_len, io_offset(request->first));
        if (FAILPOINT(io_submit) == 0 && io_uring_submit(&state->ring) == 1)
            return true;
    }
    state->broken = true;
    return false;
}

/* Looks for the end of the request for a while, then sleeps until it comes. Return: its result. */
static int64_t await_one(awake_state *state) {
    struct io_uring_cqe *ended;
    awake_wait wait = awake_begin();
    while (io_uring_peek_cqe(&state->ring, &ended) != 0 && awake_go_on(&state->record, &wait))
        cpu_relax();
    int status;
    do
        status = io_uring_wait_cqe(&state->ring, &ended);
    while (status == -EINTR || status == -EAGAIN);
    INVARIANT(I6, status == 0); /* a request of ours is in flight, and there is no other way to learn of its end */
    int64_t result = ended->res;
    io_uring_cqe_seen(&state->ring, ended);
    return result;
}

static void awake_submit(io_queue *queue, io_request *request) {
    awake_state *state = queue->backend_state;
    uint64_t begin = clock_now_ns();
    bool single = request->direction == IO_READ && request->pages == 1;
    if (!single) {
        io_backend_sync.submit(queue, request);
        return;
    }
    if (awake_enter(&state->record) && !state->broken && send_one(state, request))
        io_queue_done(queue, request, await_one(state));
    else
        io_backend_sync.submit(queue, request);
    awake_leave();
    awake_note(&state->record, clock_now_ns() - begin);
}

static int awake_descriptor(const io_queue *queue) {
    return ((const awake_state *)queue->backend_state)->ring.ring_fd;
}

const io_backend io_backend_awake = {
    .name = "awake",
    .kind = USWAP_IO_SYNC,
    .init = awake_init_queue,
    .fini = awake_fini,
    .submit = awake_submit,
    .flush = io_ended_flush,
    .collect = io_ended_collect,
    .poll_fd = io_ended_poll_fd,
    .descriptor = awake_descriptor,
};
#endif
typedef int io_awake_translation_unit; /* without liburing the file is empty, which ISO C forbids */
