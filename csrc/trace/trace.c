#include "trace/trace.h"

#include "base/memory.h"
#include "base/status.h"
#include "pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define KIND_SHIFT 60
#define STORE_BIT (UINT64_C(1) << 54)
#define SAMPLE_SHIFT 40
#define SAMPLE_UNIT (UINT32_C(1) << 24)
/* The time is written when so much has passed since it was last. */
#define TIME_STEP_NS UINT64_C(1000000)
/* A touch may need two records more: time, and what was lost. */
#define SPARE_RECORDS 3
#define MEMORY_BYTES (2 * (size_t)TRACE_RECORDS * sizeof(uint64_t))

/* Page and key of its region. */
static uint64_t page_key_of(stay page) {
    return page.value >> STAY_INDEX_SHIFT;
}

/* The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014). */
static uint64_t hash_of(uint64_t key) {
    key = (key ^ key >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    key = (key ^ key >> 27) * UINT64_C(0x94D049BB133111EB);
    return key ^ key >> 31;
}

static bool is_sampled(uint64_t key, uint32_t below) {
    return hash_of(key) >> SAMPLE_SHIFT < below;
}

/* Context: t. */
static void put(trace_log *trace, trace_kind kind, uint64_t payload) {
    trace->filling[trace->count++] = (uint64_t)kind << KIND_SHIFT | payload;
}

void trace_note(uswap_pool *pool, trace_kind kind, stay page, bool store) {
    trace_log *trace = &pool->trace;
    uint64_t key = page_key_of(page);
    bool half = false;
    small_lock_acquire(&trace->lock);
    if (trace_is_on(trace) && is_sampled(key, trace->below)) {
        if (trace->count + SPARE_RECORDS > TRACE_RECORDS) {
            trace->lost++;
        } else {
            uint64_t now = clock_now_ns();
            if (trace->lost > 0)
                put(trace, TRACE_LOST, trace->lost);
            trace->lost = 0;
            if (now - trace->time_ns >= TIME_STEP_NS)
                put(trace, TRACE_TIME, (trace->time_ns = now) - trace->begun_ns);
            uint32_t before = trace->count;
            put(trace, kind, key | (store ? STORE_BIT : 0));
            half = before < TRACE_RECORDS / 2 && trace->count >= TRACE_RECORDS / 2;
        }
    }
    small_lock_release(&trace->lock);
    if (half)
        event_signal(&trace->filled);
}

void trace_fini(uswap_pool *pool) {
    trace_log *trace = &pool->trace;
    if (trace->filling) /* the two lie together, in either order */
        memory_unmap(trace->filling < trace->writing ? trace->filling : trace->writing, MEMORY_BYTES);
    trace->filling = NULL;
}

static bool has_memory(uswap_pool *pool) {
    trace_log *trace = &pool->trace;
    if (trace->filling)
        return true;
    uint64_t *memory = memory_map(MEMORY_BYTES);
    if (!memory)
        return false;
    trace->filling = memory;
    trace->writing = memory + TRACE_RECORDS;
    frame_charge_metadata(pool, bytes_to_pages(MEMORY_BYTES));
    return true;
}

EXPORT int uswap_trace_start(uswap_pool *pool, double sample, uint32_t whole, uswap_error *err) {
    trace_log *trace = &pool->trace;
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    small_lock_acquire(&pool->api_lock);
    if (trace_is_on(trace)) {
        status = error_set(err, USWAP_E_BUSY, 0, "trace", NULL, "a trace of this pool is being recorded already");
    } else if (!(sample > 0 && sample <= 1)) {
        status = error_set(err, USWAP_E_INVALID, 0, "trace", NULL, "sample must be above 0 and at most 1");
    } else if (!has_memory(pool)) {
        status = error_set(err, USWAP_E_NO_MEMORY, 0, "trace", NULL, "no memory for the buffers of a trace");
    } else {
        small_lock_acquire(&trace->lock);
        trace->below = (uint32_t)(sample * SAMPLE_UNIT);
        trace->below += trace->below == 0;
        trace->count = 0;
        trace->lost = 0;
        trace->begun_ns = trace->time_ns = clock_now_ns();
        atomic_store(&trace->whole, whole != 0);
        atomic_store(&trace->on, 1);
        small_lock_release(&trace->lock);
    }
    small_lock_release(&pool->api_lock);
    api_leave(&guard);
    return status;
}

EXPORT int uswap_trace_stop(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    atomic_store(&pool->trace.on, 0);
    atomic_store(&pool->trace.whole, 0);
    event_signal(&pool->trace.filled);
    api_leave(&guard);
    return 0;
}

EXPORT int uswap_trace_running(uswap_pool *pool) {
    return trace_is_on(&pool->trace);
}

/* Return: 0 or -errno. */
static int write_all(int fd, const void *bytes, size_t count) {
    for (const unsigned char *at = bytes; count > 0;) {
        ssize_t written = write(fd, at, count);
        if (written < 0 && errno != EINTR)
            return -errno;
        at += MAX_OF(written, (ssize_t)0);
        count -= (size_t)MAX_OF(written, (ssize_t)0);
    }
    return 0;
}

/* What was filled is the caller's to write now. Return: how many records it has; *lost: since. */
static uint32_t turn_over(trace_log *trace) {
    small_lock_acquire(&trace->lock);
    uint32_t count = trace->count;
    uint64_t *filled = trace->filling;
    if (trace->lost > 0 && count < TRACE_RECORDS) {
        filled[count++] = (uint64_t)TRACE_LOST << KIND_SHIFT | trace->lost;
        trace->lost = 0;
    }
    trace->filling = trace->writing;
    trace->writing = filled;
    trace->count = 0;
    small_lock_release(&trace->lock);
    return count;
}

static bool is_half_full(trace_log *trace) {
    small_lock_acquire(&trace->lock);
    bool half = trace->count >= TRACE_RECORDS / 2;
    small_lock_release(&trace->lock);
    return half;
}

EXPORT int64_t uswap_trace_write(uswap_pool *pool, int fd, uint64_t timeout_ns, uswap_error *err) {
    trace_log *trace = &pool->trace;
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    uint32_t seen = event_count(&trace->filled);
    if (trace_is_on(trace) && !is_half_full(trace))
        event_wait(&trace->filled, seen, timeout_ns);
    uint32_t count = trace->filling ? turn_over(trace) : 0;
    int failure = write_all(fd, trace->writing, count * sizeof(uint64_t));
    if (failure != 0)
        status = error_set(err, USWAP_E_OS, -failure, "write", NULL, "the trace cannot be written: %s",
                           error_text(-failure));
    api_leave(&guard);
    return status != 0 ? status : (int64_t)count;
}

EXPORT int64_t uswap_trace_sampled(uint64_t *stays, uint64_t count, double sample) {
    uint32_t below = (uint32_t)(sample * SAMPLE_UNIT);
    uint64_t kept = 0;
    for (uint64_t i = 0; i < count; i++)
        if (is_sampled(page_key_of((stay){stays[i]}), below))
            stays[kept++] = stays[i];
    return (int64_t)kept;
}
