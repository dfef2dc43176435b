/*
 * context.c - what a thread needs to move pages: an I/O queue, requests that still grow, an open cluster of slots.
 */
#include "pool.h"

#include "base/memory.h"
#include "reclaim/write_end.h"
#include "reclaim/write_slots.h"
#include "scratch.h"
#include "swap/page_in.h"
#include "swap/swap_cache.h"

#include <errno.h>

/* The page itself, and in direct reclaim a write that is gathered beside one that has ended. */
#define INLINE_REQUESTS 4
/* Of the inline contexts the first ones, which are in use when few threads fault at once: these may wait awake, and need a ring for that. */
#define INLINE_AWAKE 8

int context_init(context *ctx, uswap_pool *pool, actor who) {
    *ctx = (context){.pool = pool, .who = who, .scratch = memory_map(sizeof(context_scratch))};
    if (!ctx->scratch)
        return -ENOMEM;
    io_coding room;
    const io_coding *coding = pool_coding(ctx, &room);
    uswap_io_kind kind = (uswap_io_kind)pool->options.io_kind;
    if (who != ACTOR_INLINE)
        return io_queue_init(&ctx->io, kind, IO_AT_ONCE, pool->options.io_depth, coding);
    bool awake = pool->options.awake && ctx - pool->inlines.contexts < INLINE_AWAKE;
    return io_queue_init(&ctx->io, awake ? kind : USWAP_IO_SYNC, IO_ONE_BY_ONE, INLINE_REQUESTS, coding);
}

void context_fini(context *ctx) {
    io_queue_fini(&ctx->io);
    memory_unmap(ctx->scratch, sizeof(context_scratch));
    ctx->scratch = NULL;
}

void context_send(context *ctx, io_request *request) {
    if (request->direction == IO_READ) {
        swap_cache_count_read(ctx->pool, 1, request->pages, 0);
        atomic_fetch_add(&ctx->pool->reads_in_flight, 1);
    } else {
        swap_cache_count_write(ctx->pool, 1, request->pages);
        atomic_fetch_add_explicit(&ctx->writing[request->ahead], request->pages, memory_order_relaxed);
        atomic_fetch_add(&ctx->pool->writes_in_flight, 1);
    }
    io_submit(&ctx->io, request);
}

void context_submit(context *ctx) {
    if (ctx->reading)
        context_send(ctx, ctx->reading);
    if (ctx->gathering)
        context_send(ctx, ctx->gathering);
    ctx->reading = NULL;
    ctx->gathering = NULL;
    io_flush(&ctx->io);
}

bool context_complete(context *ctx, bool wait) {
    io_request *request = io_collect(&ctx->io, wait);
    if (!request)
        return false;
    if (request->direction == IO_READ) {
        page_in_complete(ctx, request);
        atomic_fetch_sub(&ctx->pool->reads_in_flight, 1);
    } else {
        write_end(ctx, request);
        atomic_fetch_sub_explicit(&ctx->writing[request->ahead], request->pages, memory_order_relaxed);
        atomic_fetch_sub(&ctx->pool->writes_in_flight, 1);
    }
    io_request_put(&ctx->io, request);
    return true;
}

void context_drain(context *ctx) {
    do
        context_submit(ctx);
    while (context_complete(ctx, true));
}

io_request *context_request(context *ctx, io_direction direction, int fd, swap_entry first) {
    io_request *request;
    while (!(request = io_request_get(&ctx->io, direction, fd, first)))
        context_complete(ctx, true);
    return request;
}

/* ---- lending the pool's contexts to API callers ---- */

context *context_borrow(uswap_pool *pool) {
    for (;;) {
        uint32_t seen = event_count(&pool->context_free);
        small_lock_acquire(&pool->context_lock);
        for (int i = 0; i < API_CONTEXTS; i++) {
            context *ctx = &pool->api_contexts[i];
            if (!ctx->in_use) {
                ctx->in_use = true;
                small_lock_release(&pool->context_lock);
                return ctx;
            }
        }
        small_lock_release(&pool->context_lock);
        event_wait(&pool->context_free, seen, 0);
    }
}

void context_return(context *ctx) {
    uswap_pool *pool = ctx->pool;
    gate_enter(&pool->gate);
    context_drain(ctx);
    write_slots_return(ctx);
    gate_leave(&pool->gate);
    small_lock_acquire(&pool->context_lock);
    ctx->in_use = false;
    small_lock_release(&pool->context_lock);
    event_signal(&pool->context_free);
}
