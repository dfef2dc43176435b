/*
 * io.h - page I/O on swap areas: requests, queues, and the two backends behind them.
 *
 * Owns: requests and their life (free -> filled -> submitted -> completed -> free). Knows nothing of pages or frames: a
 * request is a run of slots of one area and the memory for them.
 * A queue serves one thread at a time. No allocation after io_queue_init.
 */
#ifndef USWAP_IO_IO_H
#define USWAP_IO_IO_H

#include "base/base.h"
#include "swap/swap_entry.h"

#include <sys/uio.h>

/* 2 MiB, a block: benchmarks/ shows the disk at its best from 256 KiB on, if the memory is in one piece. */
#define IO_REQUEST_PAGES_MAX 512
/* Pieces of memory in one request; neighbouring pages make one piece. */
#define IO_PIECES_MAX 64
/* Requests of one queue. A stream over slots that hours of random writes have scattered asks for pages one by one: with 64, its
 * window of requests is used up before the next can be sent, and it reads at 0.5 to 0.8 of this speed (bench_churn.py). */
#define IO_REQUESTS 256

typedef enum { IO_READ, IO_WRITE } io_direction;

typedef struct io_request {
    struct io_request *next;
    io_direction direction;
    int fd;
    swap_entry first; /* pages slots from here */
    uint32_t pages;
    uint32_t pieces;
    bool block;                       /* a read into a block (swap/page_in_block.c) */
    bool for_write;                   /* a store waits for one of its pages */
    bool ahead;                       /* a write of pages that stay in the swap cache */
    int64_t result;                   /* bytes, or -errno */
    struct io_request *older, *newer; /* of those that have no answer */
    uint64_t sent_ns;
    uint64_t wanted_ns;  /* when the first fault on one of its pages came; 0: none has */
    struct iovec *piece; /* [IO_PIECES_MAX] */
} io_request;

typedef struct io_queue io_queue;
typedef struct codec codec; /* io/codec.h */

/* By what and through which memory a queue encodes (README, The codec stage). */
typedef struct {
    const codec *codec;
    uint32_t coder;        /* its number, this queue's alone */
    unsigned char *memory; /* bounce frames, counted */
    uint32_t pages;
    unsigned char *spare; /* one more, for second tries */
} io_coding;

typedef struct {
    const char *name;
    uswap_io_kind kind;
    int (*init)(io_queue *queue);
    void (*fini)(io_queue *queue);
    /* Hands the request to the device, or prepares to. Cannot fail: an error becomes the request's result. */
    void (*submit)(io_queue *queue, io_request *request);
    /* Makes sure that all submitted requests are on their way. */
    void (*flush)(io_queue *queue);
    /* Moves ended requests to queue->done; with wait, waits until there is one. */
    void (*collect)(io_queue *queue, bool wait);
    /* Readable when collect would find something; -1: nothing ever stays in flight. */
    int (*poll_fd)(const io_queue *queue);
    /* What a forked child inherits of it; -1: nothing. */
    int (*descriptor)(const io_queue *queue);
} io_backend;

struct io_queue {
    const io_backend *backend;
    io_request *requests; /* [capacity], small: io_request_of looks through them */
    struct iovec *pieces;
    uint32_t capacity;
    io_request *free;
    io_request *done;
    io_request *done_last;
    uint32_t in_flight;
    io_request *oldest, *newest;   /* of those that have no answer */
    _Atomic uint64_t oldest_ns;    /* when the oldest of them was sent; 0: there is none */
    _Atomic uint64_t page_sent_ns; /* the same for io_page */
    void *backend_state;
    io_queue *wire; /* what it sends by, if it has a codec; else NULL */
};

extern const io_backend io_backend_sync;
/* Sends by another queue what a codec has made of it. (io_coded.c) */
extern const io_backend io_backend_coded;
#ifdef USWAP_HAVE_URING
extern const io_backend io_backend_uring;
/* For one who waits for each request before the next: submit returns when it has ended. */
extern const io_backend io_backend_awake;
#endif

/* Who sends requests by a queue. */
typedef enum {
    IO_AT_ONCE,   /* many, and looks for their ends */
    IO_ONE_BY_ONE /* one, and waits for it: a page that somebody needs now */
} io_manner;

/* capacity: requests at once, at most IO_REQUESTS. coding: NULL: slots hold pages as they are. Return: 0 or -errno. kind AUTO: io_uring if
 * it works here, else sync. */
int io_queue_init(io_queue *queue, uswap_io_kind kind, io_manner manner, uint32_t capacity, const io_coding *coding);
/* => nothing in flight. */
void io_queue_fini(io_queue *queue);

/* NULL: all are in flight; collect first. */
io_request *io_request_get(io_queue *queue, io_direction direction, int fd, swap_entry first);
/* The request in flight, or growing, that this slot belongs to; NULL if it is none of this queue's. */
io_request *io_request_of(io_queue *queue, swap_entry entry);
/* Adds one page of memory for the next slot. Return: false when the request is full. */
bool io_request_add(io_request *request, void *page);
/* A new request for so many slots and one piece of memory; it grows no more. */
void io_request_fill(io_request *request, void *memory, uint32_t pages);
void io_request_put(io_queue *queue, io_request *request);
void io_submit(io_queue *queue, io_request *request);
void io_flush(io_queue *queue);
/* The next ended request, in the order of completion, or NULL. With wait: NULL only if nothing is in flight. */
io_request *io_collect(io_queue *queue, bool wait);
int io_poll_fd(const io_queue *queue);
int io_descriptor(const io_queue *queue);
/* Whether the next io_collect finds something without a wait, which io_poll_fd may not show (the synchronous backend). */
bool io_has_ended(const io_queue *queue);
/* How it reaches the device. */
uswap_io_kind io_kind(const io_queue *queue);

/* One page, synchronously, through the queue's codec: the reference path, and the second try of a failed request. Return: 0 or -errno. */
int io_page(io_queue *queue, io_direction direction, int fd, void *page, swap_entry entry);

/* When the oldest request without an answer was sent; 0: there is none. Context: any thread; the queue may have ended. */
static inline uint64_t io_unanswered_since(const io_queue *queue) {
    uint64_t oldest = atomic_load_explicit(&queue->oldest_ns, memory_order_relaxed);
    uint64_t page = atomic_load_explicit(&queue->page_sent_ns, memory_order_relaxed);
    return oldest == 0 || (page != 0 && page < oldest) ? page : oldest;
}

static inline uint64_t io_offset(swap_entry entry) {
    return swap_entry_slot(entry) << PAGE_SHIFT;
}

/* For the backends: a request has ended. */
void io_queue_done(io_queue *queue, io_request *request, int64_t result);
/* The same for one page and the device itself. */
int io_page_sync(io_direction direction, int fd, void *page, uint64_t slot);
/* Of backends whose requests have ended when they have been submitted (io_sync.c): there is nothing to flush, collect or poll. */
void io_ended_flush(io_queue *queue);
void io_ended_collect(io_queue *queue, bool wait);
int io_ended_poll_fd(const io_queue *queue);

/* The codec's backend (io_coded.c); fini is the backend's. Return: 0 or -errno. */
int io_coded_init(io_queue *queue, uswap_io_kind kind, io_manner manner, const io_coding *coding);
int io_coded_page(io_queue *queue, io_direction direction, int fd, void *page, swap_entry entry);

#endif
