/*
 * trace.h - which pages are touched (src/uswap/trace/format.py).
 */

/* sample: the share of pages that is recorded, by their hash. whole: 1: nothing comes in but what is touched (no read-ahead, no blocks), so
 * that a page out of the regions is seen when it is touched. USWAP_E_BUSY: there is a trace already. */
int uswap_trace_start(uswap_pool *pool, double sample, uint32_t whole, uswap_error *err);
/* => nothing is recorded any more; uswap_trace_write still has what was. */
int uswap_trace_stop(uswap_pool *pool, uswap_error *err);
/* Waits until half a buffer is full, the trace has been stopped, or the time is over; writes what there is. One thread at a time.
 * => how many records. USWAP_E_OS: they are lost. */
int64_t uswap_trace_write(uswap_pool *pool, int fd, uint64_t timeout_ns, uswap_error *err);
/* 1 while touches are recorded. */
int uswap_trace_running(uswap_pool *pool);
/* => how many of the stays are of pages that such a sample has; these are first in stays now. */
int64_t uswap_trace_sampled(uint64_t *stays, uint64_t count, double sample);

/* => evicts up to pages of the oldest pages; returns how many left, 0 when none can. Waits for the writes. */
int64_t uswap_pool_evict(uswap_pool *pool, uint64_t pages, uswap_error *err);

/* The core's own consistency check (csrc/README.md, Invariants). Stops reclaim while it looks; faults go on. */
int uswap_pool_check(uswap_pool *pool, uswap_error *err);
