/*
 * trace.h - a record of touches: what faults saw of the program's use of its pages, 8 bytes each.
 *
 * Owns: two buffers, one being filled, one being written to the file by whoever calls uswap_trace_write; which pages are recorded (all, or
 * a sample by their hash). The format is that of src/uswap/trace/format.py. Whoever records never waits: when a buffer is full before the
 * other is written, records are lost and counted. Nobody records: one load a fault.
 */
#ifndef USWAP_TRACE_TRACE_H
#define USWAP_TRACE_TRACE_H

#include "base/lock.h"
#include "region/stay.h"

#define TRACE_RECORDS 32768

/* Of records; those of pages. */
typedef enum {
    TRACE_TIME = 0,
    TRACE_FIRST = 1,
    TRACE_READ = 2,
    TRACE_SOFT = 3,
    TRACE_HIT_AHEAD = 4,
    TRACE_EVICTED = 6,
    TRACE_AGED = 7,
    TRACE_END = 14,
    TRACE_LOST = 15
} trace_kind;

typedef struct {
    _Atomic uint32_t on;
    _Atomic uint32_t whole; /* every touch is to be seen: nothing comes in but what is touched */
    small_lock lock;
    uint32_t below; /* t: of 2^24: pages whose hash is less are recorded */
    uint64_t *filling;
    uint64_t *writing; /* of uswap_trace_write */
    uint32_t count;    /* t: in filling */
    uint64_t lost;     /* t: since the last record that said so */
    uint64_t begun_ns; /* t */
    uint64_t time_ns;  /* t: of the last TIME */
    event filled;      /* a buffer is half full, or the end has come */
} trace_log;           /* t: under lock */

typedef struct uswap_pool uswap_pool;

void trace_fini(uswap_pool *pool);
void trace_note(uswap_pool *pool, trace_kind kind, stay page, bool store);

static inline bool trace_is_on(const trace_log *trace) {
    return atomic_load_explicit(&trace->on, memory_order_relaxed) != 0;
}

/* A page of the region is touched. */
static inline void trace_touch(uswap_pool *pool, trace_log *trace, trace_kind kind, const region *r, size_t page,
                               bool store) {
    if (unlikely(trace_is_on(trace)))
        trace_note(pool, kind, stay_of(r, page), store);
}

#endif
