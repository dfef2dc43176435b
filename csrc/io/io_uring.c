/*
 * io_uring.c - the io_uring backend (liburing). One ring a queue; never inherited by a fork.
 */
#ifdef USWAP_HAVE_URING
#include "io/io.h"

#include "base/failpoint.h"
#include "base/memory.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <string.h>

/* How often the kernel is asked again to take requests while it has none of ours to end. */
#define SUBMIT_TRIES 100

typedef struct {
    struct io_uring ring;
    uint32_t sent;         /* requests the kernel has, until their ends are collected */
    uint32_t unsent_count; /* in the ring's submission queue; its order is theirs */
    io_request *unsent[IO_REQUESTS];
    bool broken; /* the kernel takes no more: all further requests are done synchronously */
} uring_state;

static uring_state *state_of(const io_queue *queue) {
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
    uring_state *state = memory_map(sizeof *state);
    if (!state)
        return -ENOMEM;
    struct io_uring *ring = &state->ring;
    int status = io_uring_queue_init(IO_REQUESTS, ring, 0);
    if (status == 0 && (status = try_out(ring)) < 0)
        io_uring_queue_exit(ring);
    if (status < 0) {
        memory_unmap(state, sizeof *state);
        return status;
    }
    io_uring_ring_dontfork(ring);
    queue->backend_state = state;
    return 0;
}

static void uring_fini(io_queue *queue) {
    io_uring_queue_exit(&state_of(queue)->ring);
    memory_unmap(queue->backend_state, sizeof(uring_state));
    queue->backend_state = NULL;
}

static void note_sent(uring_state *state, uint32_t count) {
    state->sent += count;
    state->unsent_count -= count;
    memmove(state->unsent, state->unsent + count, state->unsent_count * sizeof *state->unsent);
}

/* The kernel takes no request although it has none of ours: waiting would be for ever. What lies in the ring is never sent, since
 * nobody enters the kernel with it again. */
static void give_up(io_queue *queue) {
    uring_state *state = state_of(queue);
    state->broken = true;
    for (uint32_t i = 0; i < state->unsent_count; i++)
        io_backend_sync.submit(queue, state->unsent[i]);
    state->unsent_count = 0;
}

static int submit_unsent(struct io_uring *ring) {
    int error = FAILPOINT(io_submit);
    return error ? error : io_uring_submit(ring);
}

static bool is_passing(int error) {
    return error == -EINTR || error == -EAGAIN || error == -EBUSY; /* the kernel is short of memory or of requests */
}

static void uring_flush(io_queue *queue) {
    uring_state *state = state_of(queue);
    unsigned tries = 0;
    while (state->unsent_count > 0) {
        int submitted = submit_unsent(&state->ring);
        if (submitted > 0)
            note_sent(state, (uint32_t)submitted);
        else if (state->sent > 0)
            queue->backend->collect(queue, true);
        else if (!is_passing(submitted) || ++tries > SUBMIT_TRIES)
            give_up(queue);
        else
            sched_yield();
    }
}

static void uring_submit(io_queue *queue, io_request *request) {
    uring_state *state = state_of(queue);
    if (state->broken) {
        io_backend_sync.submit(queue, request);
        return;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&state->ring);
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
    state->unsent[state->unsent_count++] = request;
}

static void uring_collect(io_queue *queue, bool wait) {
    uring_state *state = state_of(queue);
    struct io_uring *ring = &state->ring;
    struct io_uring_cqe *cqe;
    if (wait && state->sent > 0) {
        int status;
        do
            status = io_uring_wait_cqe(ring, &cqe);
        while (status == -EINTR || status == -EAGAIN);
    }
    while (io_uring_peek_cqe(ring, &cqe) == 0 && cqe) {
        io_request *request = io_uring_cqe_get_data(cqe);
        int64_t result = cqe->res;
        io_uring_cqe_seen(ring, cqe);
        state->sent--;
        io_queue_done(queue, request, result);
    }
}

static int uring_poll_fd(const io_queue *queue) {
    return state_of(queue)->ring.ring_fd;
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
    .descriptor = uring_poll_fd,
};
#endif
typedef int io_uring_translation_unit; /* without liburing the file is empty, which ISO C forbids */
