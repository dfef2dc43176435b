/*
 * read_ahead.h - which pages will be wanted next: streams found in the order of faults.
 *
 * Owns: a few streams a region. Pure arithmetic on page numbers: it starts no I/O and takes no page.
 *
 * A stream is a run of faults with one stride: two next to each other, or three equally far apart. How far a young run of neighbours is
 * read ahead is told from those before it (runs.h); where there are no markers, pairs that mostly have no third (records that cross from a page
 * into the next, read at random) are no stream either. The window of a stream doubles each time the prediction comes true, up to the given
 * maximum, halves when what was read is dropped unused, and the stream is forgotten when others need its place. The first page of each window
 * is the marker: it stays in the swap cache, so that touching it (a soft fault) asks for the next window while the reader still has this one
 * before him. Streams whose window is a block or more read whole blocks: each of them is a marker.
 *
 * A stream with a stride that begins beside the beginning of another one (the columns of a matrix, one after the other) is followed by
 * more of its kind: it reads the lanes beside it too, as many as can be kept until they are wanted.
 */
#ifndef USWAP_SWAP_READ_AHEAD_H
#define USWAP_SWAP_READ_AHEAD_H

#include "base/base.h"
#include "base/lock.h"
#include "swap/guess.h"
#include "swap/runs.h"

#define READ_AHEAD_STREAMS 8

typedef struct {
    int64_t last;    /* page of the last fault of the stream */
    int64_t end;     /* the last page that it has mapped: the same, but for who maps what is behind it too */
    int64_t next;    /* first page not asked for yet, nor mapped by a fault */
    int64_t stride;  /* pages; negative: backward; 0: only one fault seen so far */
    uint32_t window; /* pages asked for at a time; 0: the stride is not confirmed yet */
    int64_t shrunk;  /* next, when the window was last made smaller */
    uint32_t used;   /* clock of the last hit, for replacement */
    int64_t start;   /* page of the first fault */
    uint32_t width;  /* neighbours read at each step, the page itself included: lanes beside this one */
    bool guessed;    /* two neighbours, without a third so far */
    bool young;      /* a run of neighbours, or one page: how far it goes is told from others (runs.h) */
    bool close;      /* young: all its steps have markers */
    uint8_t reached; /* young: steps */
} read_ahead_stream;

typedef struct {
    small_lock lock;
    uint32_t clock;
    guess_record pairs; /* whether a third page follows two, where runs are not told */
    run_record runs;
    read_ahead_stream stream[READ_AHEAD_STREAMS];
} read_ahead;

/* Pages first, first + stride, ... (count of them), with the width - 1 pages behind each, are worth reading now. count 0: none. */
typedef struct {
    int64_t first;
    int64_t stride;
    uint32_t count;
    uint32_t width;
    bool stream; /* the fault belongs to an established stream, whatever the count */
    bool near;   /* or lies near another one, and may be the second of a stream to come */
    bool young;  /* of a run that began at start */
    bool close;  /* young: all steps are to have markers */
    int64_t start;
    bool wide; /* a stream of neighbours at speed: what follows in the same block of addresses is worth reading too */
} read_ahead_plan;

/* What is known of a fault. SEQUENTIAL: the program said so. ABSENT: the page is not even being read: if it was asked for, it has been
 * dropped since, and what was asked for beyond it with it. RUNS: markers are left in the cache, which tell how far runs go. */
enum { READ_AHEAD_SEQUENTIAL = 1, READ_AHEAD_ABSENT = 2, READ_AHEAD_RUNS = 4 };

/* Where who maps neighbours too has a fault says little of how far apart the pages are that are wanted: a stream whose faults map 16 pages each
 * is no stream with a stride of 16. */
typedef struct {
    size_t page;
    uint32_t
        mapped; /* pages that it has mapped, from this one on: who goes on has his next fault behind them. 0: as 1 */
    unsigned known; /* as above */
} read_ahead_seen;

/* What may be read. */
typedef struct {
    uint32_t window; /* largest, in pages; 0: nothing */
    uint64_t pages;  /* of the region */
    uint64_t frames; /* that pages read for later may fill */
} read_ahead_bounds;

/* Whether the page is to be left in the cache: the first of a window, or of a step of a run. first: it is the first of the plan. */
static inline bool read_ahead_marks(const read_ahead_plan *plan, int64_t page, bool first) {
    uint64_t beyond = (uint64_t)(page > plan->start ? page - plan->start : plan->start - page);
    return plan->young ? run_marks(beyond, plan->close) : first;
}

/* A fault. */
read_ahead_plan read_ahead_fault(read_ahead *ahead, read_ahead_seen fault, read_ahead_bounds bounds);

/* Whether a stream that is being used has come, or is coming, to this page. */
bool read_ahead_expects(read_ahead *ahead, size_t page);

/* The page was read ahead and has been dropped unused: its stream asks for half as much, once for all it has asked for so far. */
void read_ahead_wasted(read_ahead *ahead, size_t page);

/* Fewer pages of the plan could be asked for, or more have been. */
void read_ahead_asked(read_ahead *ahead, read_ahead_plan plan, uint32_t done);

#endif
