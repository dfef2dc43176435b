/*
 * io_coded.c - the codec stage: a backend that sends by another queue what the codec makes of a request, part by part: writes through
 * bounce frames, reads into their targets, which are decoded in place (README, The codec stage).
 *
 * A write that finds no bounce frames waits, and those behind it: parts of this queue that end make room, and nothing else is needed.
 */
#include "io/io.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "io/bounce.h"
#include "io/codec.h"

#include <errno.h>

/* Of an asynchronous queue's bounce frames one part may take so much: while one is encoded or decoded, the others are with the device. */
#define PART_SHARE 4
/* In a part of a read: 256 KiB, of which the disk is at its best (io.h). While one is decoded, the others are with the device. */
#define READ_PAGES 64
_Static_assert(READ_PAGES <= IO_PIECES_MAX, "a part of a read is one request, wherever its pages are");

/* A part that is with the device; by the index of its request in the wire queue. */
typedef struct {
    io_request *whole;
    uint32_t first; /* page of the whole */
    uint32_t pages;
    bounce_run frames; /* of a write */
} part;

/* How far a request has come; by its index in the queue. */
typedef struct {
    uint32_t sent;      /* pages of it in parts so far */
    uint32_t in_flight; /* parts */
    int64_t result;     /* bytes so far, or the first error */
} progress;

typedef struct {
    io_queue wire;
    const codec *codec;
    uint32_t coder;
    uint32_t write_pages; /* at most in a part; in one of a read READ_PAGES */
    unsigned char *spare; /* the bounce frame of io_coded_page */
    bounce_set bounce;
    io_request *waiting; /* in order; only the first may have parts sent */
    io_request *waiting_last;
    part parts[IO_REQUESTS];
    progress progress[IO_REQUESTS];
} coded_state;

static coded_state *state_of(const io_queue *queue) {
    return queue->backend_state;
}

static progress *progress_of(const io_queue *queue, const io_request *request) {
    return &state_of(queue)->progress[request - queue->requests];
}

static part *part_of(coded_state *state, const io_request *sent) {
    return &state->parts[sent - state->wire.requests];
}

/* ---- making and ending ---- */

int io_coded_init(io_queue *queue, uswap_io_kind kind, io_manner manner, const io_coding *coding) {
    coded_state *state = memory_map(sizeof *state);
    if (!state)
        return -ENOMEM;
    int status = io_queue_init(&state->wire, kind, manner, MIN_OF(coding->pages, (uint32_t)IO_REQUESTS), NULL);
    if (status != 0) {
        memory_unmap(state, sizeof *state);
        return status;
    }
    state->codec = coding->codec;
    state->coder = coding->coder;
    bounce_init(&state->bounce, coding->memory, coding->pages);
    state->spare = coding->spare;
    uint32_t share = state->wire.backend->kind == USWAP_IO_SYNC ? coding->pages : coding->pages / PART_SHARE;
    state->write_pages = MIN_OF(MAX_OF(share, 1U), (uint32_t)BOUNCE_PART_MAX);
    queue->backend = &io_backend_coded;
    queue->backend_state = state;
    queue->wire = &state->wire;
    return 0;
}

static void coded_fini(io_queue *queue) {
    io_queue_fini(&state_of(queue)->wire);
    memory_unmap(queue->backend_state, sizeof(coded_state));
    queue->backend_state = NULL;
    queue->wire = NULL;
}

/* ---- the pages of a request ---- */

typedef struct {
    const struct iovec *piece;
    size_t offset;
} page_walk;

static page_walk walk_from(const io_request *request, uint32_t page) {
    page_walk walk = {.piece = request->piece, .offset = (size_t)page << PAGE_SHIFT};
    while (walk.offset >= walk.piece->iov_len)
        walk.offset -= walk.piece++->iov_len;
    return walk;
}

static unsigned char *walk_next(page_walk *walk) {
    if (walk->offset == walk->piece->iov_len) {
        walk->piece++;
        walk->offset = 0;
    }
    unsigned char *page = (unsigned char *)walk->piece->iov_base + walk->offset;
    walk->offset += PAGE_BYTES;
    return page;
}

/* ---- encoding and decoding ---- */

static int encode_part(const coded_state *state, const part *p) {
    page_walk walk = walk_from(p->whole, p->first);
    int status = 0;
    for (uint32_t i = 0; i < p->pages && status == 0; i++)
        status = state->codec->operations->encode(state->codec, state->coder,
                                                  swap_entry_after(p->whole->first, p->first + i), walk_next(&walk),
                                                  bounce_page(&state->bounce, p->frames, i));
    return status;
}

static int decode_part(const coded_state *state, const part *p) {
    page_walk walk = walk_from(p->whole, p->first);
    int status = 0;
    for (uint32_t i = 0; i < p->pages && status == 0; i++) {
        unsigned char *page = walk_next(&walk);
        FAILPOINT_DATA(codec_slot, page, PAGE_BYTES);
        status = state->codec->operations->decode(state->codec, state->coder,
                                                  swap_entry_after(p->whole->first, p->first + i), page, page);
    }
    return status;
}

/* ---- parts ---- */

/* One part less, with this result. Context: all that is known of the whole is known to its progress. */
static void note_result(io_queue *queue, io_request *whole, int64_t result) {
    progress *now = progress_of(queue, whole);
    if (now->result >= 0)
        now->result = result < 0 ? result : now->result + result;
    if (now->in_flight == 0 && now->sent == whole->pages)
        io_queue_done(queue, whole, now->result);
}

/* What the device is to fill: the part's targets themselves. */
static void aim_read(io_request *sent, const part *p) {
    page_walk walk = walk_from(p->whole, p->first);
    for (uint32_t i = 0; i < p->pages; i++)
        io_request_add(sent, walk_next(&walk));
}

/* Sends the next part of the first waiting request. Return: false if it has to wait for those that are in flight. */
static bool send_part(io_queue *queue) {
    coded_state *state = state_of(queue);
    io_request *whole = state->waiting;
    bool write = whole->direction == IO_WRITE;
    progress *now = progress_of(queue, whole);
    uint32_t most = write ? state->write_pages : READ_PAGES;
    part next = {.whole = whole, .first = now->sent, .pages = MIN_OF(whole->pages - now->sent, most)};
    io_request *sent =
        io_request_get(&state->wire, whole->direction, whole->fd, swap_entry_after(whole->first, next.first));
    if (!sent)
        return false;
    if (write && !bounce_take(&state->bounce, next.pages, &next.frames)) {
        io_request_put(&state->wire, sent);
        return false;
    }
    int status = write ? encode_part(state, &next) : 0;
    now->sent += next.pages;
    if (now->sent == whole->pages)
        state->waiting = whole->next;
    if (status != 0) { /* what is no cipher text does not leave */
        bounce_give(&state->bounce, next.frames);
        io_request_put(&state->wire, sent);
        note_result(queue, whole, status);
        return true;
    }
    if (write)
        io_request_fill(sent, bounce_page(&state->bounce, next.frames, 0), next.pages);
    else
        aim_read(sent, &next);
    *part_of(state, sent) = next;
    now->in_flight++;
    io_submit(&state->wire, sent);
    return true;
}

static void send_parts(io_queue *queue) {
    while (state_of(queue)->waiting && send_part(queue)) {
    }
}

static void end_part(io_queue *queue, io_request *sent) {
    coded_state *state = state_of(queue);
    part ended = *part_of(state, sent);
    int64_t result = sent->result;
    io_request_put(&state->wire, sent);
    if (ended.whole->direction == IO_READ && result == (int64_t)ended.pages << PAGE_SHIFT) {
        int status = decode_part(state, &ended);
        result = status != 0 ? status : result;
    }
    if (ended.whole->direction == IO_WRITE)
        bounce_give(&state->bounce, ended.frames);
    progress_of(queue, ended.whole)->in_flight--;
    note_result(queue, ended.whole, result);
}

/* ---- the backend ---- */

static void coded_submit(io_queue *queue, io_request *request) {
    coded_state *state = state_of(queue);
    *progress_of(queue, request) = (progress){0};
    request->next = NULL;
    if (state->waiting)
        state->waiting_last->next = request;
    else
        state->waiting = request;
    state->waiting_last = request;
    send_parts(queue);
}

static void coded_flush(io_queue *queue) {
    io_flush(&state_of(queue)->wire);
}

/* Ends parts until a request has ended, and sends others in their place. */
static void coded_collect(io_queue *queue, bool wait) {
    coded_state *state = state_of(queue);
    io_request *sent;
    while (!queue->done && (sent = io_collect(&state->wire, wait))) {
        end_part(queue, sent);
        send_parts(queue);
    }
    io_flush(&state->wire);
}

static int coded_poll_fd(const io_queue *queue) {
    return io_poll_fd(&state_of(queue)->wire);
}

int io_coded_page(io_queue *queue, io_direction direction, int fd, void *page, swap_entry entry) {
    coded_state *state = state_of(queue);
    const codec_operations *operations = state->codec->operations;
    int status = 0;
    if (direction == IO_WRITE)
        status = operations->encode(state->codec, state->coder, entry, page, state->spare);
    if (status == 0)
        status = io_page_sync(direction, fd, state->spare, swap_entry_slot(entry));
    if (status == 0 && direction == IO_READ)
        status = operations->decode(state->codec, state->coder, entry, state->spare, page);
    return status;
}

static int coded_descriptor(const io_queue *queue) {
    return io_descriptor(&state_of(queue)->wire);
}

const io_backend io_backend_coded = {
    .name = "coded",
    .kind = USWAP_IO_AUTO,
    .fini = coded_fini,
    .submit = coded_submit,
    .flush = coded_flush,
    .collect = coded_collect,
    .poll_fd = coded_poll_fd,
    .descriptor = coded_descriptor,
};
