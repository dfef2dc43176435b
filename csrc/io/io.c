#include "io/io.h"

#include "base/lock.h"
#include "base/memory.h"

#include <errno.h>
#include <unistd.h>

static size_t requests_bytes(const io_queue *queue) {
    return sizeof(io_request) * queue->capacity;
}

static size_t pieces_bytes(const io_queue *queue) {
    return sizeof(struct iovec) * IO_PIECES_MAX * queue->capacity;
}

static void free_requests(io_queue *queue) {
    memory_unmap(queue->requests, requests_bytes(queue));
    memory_unmap(queue->pieces, pieces_bytes(queue));
    queue->requests = NULL;
    queue->pieces = NULL;
}

static bool make_requests(io_queue *queue) {
    queue->requests = memory_map(requests_bytes(queue));
    queue->pieces = memory_map(pieces_bytes(queue));
    if (!queue->requests || !queue->pieces) {
        free_requests(queue);
        return false;
    }
    for (uint32_t i = queue->capacity; i-- > 0;) {
        queue->requests[i].piece = queue->pieces + i * IO_PIECES_MAX;
        io_request_put(queue, &queue->requests[i]);
    }
    return true;
}

/* The backend of that kind. One by one there is nothing that a ring must be had for. Return: 0 or -errno. */
static int choose_backend(io_queue *queue, uswap_io_kind kind, io_manner manner) {
#ifdef USWAP_HAVE_URING
    if (kind != USWAP_IO_SYNC) {
        queue->backend = manner == IO_ONE_BY_ONE ? &io_backend_awake : &io_backend_uring;
        int status = queue->backend->init(queue);
        if (status == 0 || (kind == USWAP_IO_URING && manner == IO_AT_ONCE))
            return status;
    }
#else
    if (kind == USWAP_IO_URING && manner == IO_AT_ONCE)
        return -ENOSYS;
#endif
    queue->backend = &io_backend_sync;
    return queue->backend->init(queue);
}

int io_queue_init(io_queue *queue, uswap_io_kind kind, io_manner manner, uint32_t capacity, const io_coding *coding) {
    *queue = (io_queue){.capacity = capacity};
    if (!make_requests(queue))
        return -ENOMEM;
    int status = coding ? io_coded_init(queue, kind, manner, coding) : choose_backend(queue, kind, manner);
    if (status != 0)
        free_requests(queue);
    return status;
}

void io_queue_fini(io_queue *queue) {
    if (!queue->requests)
        return;
    queue->backend->fini(queue);
    free_requests(queue);
}

io_request *io_request_get(io_queue *queue, io_direction direction, int fd, swap_entry first) {
    io_request *request = queue->free;
    if (!request)
        return NULL;
    queue->free = request->next;
    request->next = NULL;
    request->direction = direction;
    request->fd = fd;
    request->first = first;
    request->pages = 0;
    request->pieces = 0;
    request->block = false;
    request->for_write = false;
    request->ahead = false;
    request->wanted_ns = 0;
    return request;
}

io_request *io_request_of(io_queue *queue, swap_entry entry) {
    for (uint32_t i = 0; i < queue->capacity; i++) {
        io_request *request = &queue->requests[i]; /* a free one has no pages */
        if (entry.value - request->first.value < request->pages)
            return request;
    }
    return NULL;
}

bool io_request_add(io_request *request, void *page) {
    if (request->pages == IO_REQUEST_PAGES_MAX)
        return false;
    if (request->pieces > 0) {
        struct iovec *last = &request->piece[request->pieces - 1];
        if ((char *)last->iov_base + last->iov_len == page) {
            last->iov_len += PAGE_BYTES;
            request->pages++;
            return true;
        }
    }
    if (request->pieces == IO_PIECES_MAX)
        return false;
    request->piece[request->pieces++] = (struct iovec){.iov_base = page, .iov_len = PAGE_BYTES};
    request->pages++;
    return true;
}

void io_request_fill(io_request *request, void *memory, uint32_t pages) {
    request->piece[0] = (struct iovec){.iov_base = memory, .iov_len = (size_t)pages << PAGE_SHIFT};
    request->pieces = 1;
    request->pages = pages;
}

void io_request_put(io_queue *queue, io_request *request) {
    request->pages = 0;
    request->next = queue->free;
    queue->free = request;
}

/* ---- what has no answer (pool_watch.c) ---- */

static void tell_oldest(io_queue *queue) {
    uint64_t sent_ns = queue->oldest ? queue->oldest->sent_ns : 0;
    atomic_store_explicit(&queue->oldest_ns, sent_ns, memory_order_relaxed);
}

static void note_sent(io_queue *queue, io_request *request) {
    request->sent_ns = clock_now_ns();
    request->newer = NULL;
    request->older = queue->newest;
    if (queue->newest)
        queue->newest->newer = request;
    else
        queue->oldest = request;
    queue->newest = request;
    tell_oldest(queue);
}

static void note_answered(io_queue *queue, io_request *request) {
    if (request->older)
        request->older->newer = request->newer;
    else
        queue->oldest = request->newer;
    if (request->newer)
        request->newer->older = request->older;
    else
        queue->newest = request->older;
    tell_oldest(queue);
}

void io_submit(io_queue *queue, io_request *request) {
    queue->in_flight++;
    note_sent(queue, request);
    queue->backend->submit(queue, request);
}

void io_flush(io_queue *queue) {
    queue->backend->flush(queue);
}

void io_queue_done(io_queue *queue, io_request *request, int64_t result) {
    request->result = result;
    request->next = NULL;
    if (queue->done)
        queue->done_last->next = request;
    else
        queue->done = request;
    queue->done_last = request;
}

io_request *io_collect(io_queue *queue, bool wait) {
    if (!queue->done && queue->in_flight > 0) {
        queue->backend->flush(queue);
        queue->backend->collect(queue, wait && !queue->done);
    }
    io_request *request = queue->done;
    if (request) {
        queue->done = request->next;
        queue->in_flight--;
        note_answered(queue, request);
    }
    return request;
}

int io_poll_fd(const io_queue *queue) {
    return queue->backend->poll_fd(queue);
}

int io_descriptor(const io_queue *queue) {
    return queue->backend->descriptor(queue);
}

bool io_has_ended(const io_queue *queue) {
    return queue->done || (queue->wire && queue->wire->done);
}

uswap_io_kind io_kind(const io_queue *queue) {
    return queue->wire ? queue->wire->backend->kind : queue->backend->kind;
}

int io_page(io_queue *queue, io_direction direction, int fd, void *page, swap_entry entry) {
    atomic_store_explicit(&queue->page_sent_ns, clock_now_ns(), memory_order_relaxed);
    int status = queue->wire ? io_coded_page(queue, direction, fd, page, entry)
                             : io_page_sync(direction, fd, page, swap_entry_slot(entry));
    atomic_store_explicit(&queue->page_sent_ns, 0, memory_order_relaxed);
    return status;
}

int io_page_sync(io_direction direction, int fd, void *page, uint64_t slot) {
    off_t offset = (off_t)(slot << PAGE_SHIFT);
    ssize_t done;
    do
        done = direction == IO_READ ? pread(fd, page, PAGE_BYTES, offset) : pwrite(fd, page, PAGE_BYTES, offset);
    while (done < 0 && errno == EINTR);
    if (done < 0)
        return -errno;
    return done == (ssize_t)PAGE_BYTES ? 0 : -EIO;
}
