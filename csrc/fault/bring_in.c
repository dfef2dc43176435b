#include "fault/bring_in.h"

#include "base/failpoint.h"
#include "fault/fault.h"
#include "reclaim/direct.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <sched.h>

#define NS_PER_MS UINT64_C(1000000)
/* How often a caller that can be told is told so late that there are no frames (each time waits 1 ms and more). */
#define GIVE_UP_TRIES 2000

typedef struct {
    context *ctx;
    region *r;
    size_t page;
    page_word *word;
    bool write;
    uint64_t since_ns;   /* 0: no frame has been missing so far */
    uint32_t freed_seen; /* frames_freed before the last look for a frame */
    uint32_t refusals;
} wish;

/* ---- the read of another ---- */

/* The region is being closed: reads end without looking who waits, and region_table_retire has woken everybody once. */
static bool is_leaving(const wish *w) {
    return atomic_load(&w->r->state) != REGION_LIVE;
}

/* A read that ends under the page's lock. The one that was met may have ended since, the page have come and gone, and its slot be read ahead again, which
 * ends without the lock if nobody has said that he waits. */
static bool is_awaited(uswap_pool *pool, swap_entry entry) {
    uint64_t word = swap_cache_load(pool, entry);
    return slot_state_of(word) == CACHE_READING && (word & SLOT_WANTED);
}

/* Sleeps until the read that has the page in its hands has ended. The ticket is older than the look, and WAITERS is set before it: whoever
 * ends the read changes the slot, then unlocks the page, which clears WAITERS and wakes. */
static void await_read(wish *w) {
    uint32_t ticket = parking_ticket((const void *)w->word);
    uint64_t word = atomic_fetch_or(w->word, PAGE_WAITERS);
    if (!is_leaving(w) && page_state_of(word) == PAGE_SWAPPED && is_awaited(w->ctx->pool, page_entry_of(word))) {
        FAILPOINT(bring_in_wait);
        parking_wait((const void *)w->word, ticket, 0);
    }
}

/* ---- frames ---- */

static fault_result serve_once(wish *w) {
    context *ctx = w->ctx;
    w->freed_seen = event_count(&ctx->pool->frames_freed);
    gate_enter(&ctx->pool->gate);
    bool patient = w->since_ns == 0 || clock_now_ns() - w->since_ns < FAULT_PATIENCE_NS;
    unsigned how = (w->write ? FAULT_WRITE : 0U) | (patient ? FAULT_PATIENT : 0U);
    fault_result result = fault_serve(ctx, w->r, w->page, how);
    context_drain(ctx);
    gate_leave(&ctx->pool->gate);
    return result;
}

/* Nothing can be evicted. Return: 0: try again; -ENOMEM. */
static int do_without(wish *w, shortage policy, fault_result *result) {
    if (policy == SHORTAGE_GIVE_UP)
        return ++w->refusals < GIVE_UP_TRIES ? 0 : -ENOMEM;
    direct_grant(w->ctx->pool);
    *result = serve_once(w);
    direct_revoke(w->ctx->pool);
    return 0;
}

/* There was no frame. From the first time on, the thread counts as waiting for frames, so that the next look and the sleep after it miss
 * none. Return: 0: *result is that of another try, or it is to be tried again; -ENOMEM: given up. */
static int seek_frame(wish *w, shortage policy, fault_result *result) {
    uswap_pool *pool = w->ctx->pool;
    if (w->since_ns == 0) {
        w->since_ns = clock_now_ns();
        STAT_ADD(pool, parked_faults, 1);
        STAT_ADD(pool, write_waits, atomic_load(&pool->writes_in_flight) > 0);
        atomic_fetch_add(&pool->frame_waiters, 1);
        FAILPOINT(fault_park);
        return 0;
    }
    int wait_ms;
    gate_enter(&pool->gate);
    direct_outcome outcome = direct_reclaim(w->ctx, clock_now_ns() - w->since_ns, &wait_ms);
    context_drain(w->ctx);
    gate_leave(&pool->gate);
    int status = outcome == DIRECT_NOTHING ? do_without(w, policy, result) : 0;
    if (status == 0 && outcome != DIRECT_FRAMES && *result == FAULT_NO_FRAME)
        event_wait(&pool->frames_freed, w->freed_seen, (uint64_t)wait_ms * NS_PER_MS);
    return status;
}

/* ---- the loop ---- */

static int result_of(const wish *w) {
    return page_state_of(page_load(w->word)) == PAGE_POISONED ? -EIO : 0;
}

static int serve_until_in(wish *w, shortage policy) {
    for (;;) {
        fault_result result = is_leaving(w) ? FAULT_GONE : serve_once(w);
        if (result == FAULT_NO_FRAME) {
            int status = seek_frame(w, policy, &result);
            if (status != 0)
                return status;
        }
        if (result == FAULT_READING) {
            await_read(w);
            if (page_state_of(page_load(w->word)) != PAGE_SWAPPED)
                return result_of(w);
        } else if (result == FAULT_AGAIN) {
            sched_yield(); /* the kernel was at the page, or its slot has just changed */
        } else if (result == FAULT_GONE) {
            return -EFAULT;
        } else if (result == FAULT_DONE) {
            return result_of(w);
        }
    }
}

int bring_in(context *ctx, region *r, size_t page, bool write, shortage policy) {
    wish w = {.ctx = ctx, .r = r, .page = page, .word = &r->object.words[page], .write = write};
    int status = serve_until_in(&w, policy);
    if (w.since_ns != 0)
        atomic_fetch_sub(&ctx->pool->frame_waiters, 1);
    return status;
}
